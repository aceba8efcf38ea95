"""Polling data stores: each file of each new fileset becomes a request (`pstamp_queue_requests.pl`).

Where polling stands is in the store's row: `timestamp` is the last look, and `lastFileset` the newest fileset up to
which all are dealt with. Which filesets became requests is in the history of those: the note of its first line names
address, fileset and time of registration. So a fileset that can't be read now holds up no later one, a bookmark that
has gone from the store costs nothing but a longer list, and no file is queued twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pstamp_core.database import redact
from pstamp_core.datastore.client import NotThere, Terms, below, list_files, list_filesets
from pstamp_core.datastore.index import FilesetEntry
from pstamp_core.faults import Fault, PstampError, RetryableError, UserError, is_retryable
from pstamp_core.machines import RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import make, moment, pstampHistory, pstampRequest
from pstamp_core.store.tables import pstampDataStore
from pstamp_core.tasks.server import Server, known_label

MAX_FILES = 1000
"""Files of one fileset that become requests; a fileset with more is refused."""
PATIENCE = 4
"""How many timeouts one store may take in a pass; what it has not told by then is asked for in the next."""
TROUBLES = 5
"""Troubles of one store that are told in a pass; the others are counted."""

_LONGEST_NAME = pstampDataStore.lastFileset.max_length
_LONGEST_URI = pstampRequest.uri.max_length


@dataclass
class Poll:
    """What one look at a data store led to.

    Attributes
    ----------
    ds_id : int
        The store.
    filesets : list of str
        The filesets that were queued, or refused for good.
    requests : list of int
        The requests made.
    troubles : list of str
        What went wrong, a sentence each; what is not said to be passed over is tried again.
    more : int
        How many troubles there were besides.
    fault : int
        The exit code (1-6) of the first trouble; 0 if there is none.
    """

    ds_id: int
    filesets: list[str] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    more: int = 0
    fault: int = 0

    def add(self, trouble: str, fault: int = Fault.PS_EXIT_DATA_ERROR) -> None:
        """Add what went wrong."""
        self.fault = self.fault or (fault if is_retryable(fault) else Fault.PS_EXIT_DATA_ERROR)
        if len(self.troubles) < TROUBLES:
            self.troubles.append(trouble)
        else:
            self.more += 1


def terms_of(settings: Settings, seconds: float) -> Terms:
    """Return the terms on which a server asks data stores; an answer may take so many seconds."""
    return Terms(
        seconds, total=seconds, hosts={host.lower() for host in settings.poll_hosts}, redirects=settings.poll_redirects,
        max_index=settings.poll_bytes,
    )  # fmt: skip


def queue_requests(server: Server, *, limit: int, timeout: float | None = None) -> list[Poll]:
    """Look at each data store that is enabled and due, the one longest not looked at first, and queue what is new.

    A store is due when its last look is longer ago than its `pollInterval`, or there was none. The look is written down
    before the store is asked, so that one that hangs is not the first again next time.

    Parameters
    ----------
    server : Server
        The server.
    limit : int
        Filesets to deal with in each store; the rest come with the next look.
    timeout : float, optional
        Seconds that one listing may take; by default what the settings say.

    Returns
    -------
    list of Poll
        One for each store that was due; nothing that goes wrong with one keeps the others from being looked at.
    """
    with server.store.reading():
        now = moment(server.store.now())
        due = [store for store in pstampDataStore.select().order_by(pstampDataStore.timestamp) if _is_due(store, now)]
    terms = terms_of(server.settings, timeout or server.settings.poll_seconds)
    polls = []
    for store in due:
        poll = Poll(store.ds_id)
        polls.append(poll)
        try:
            _Look(server, store, poll, terms).deal_with(limit)
        except PstampError as error:
            poll.add(str(error), error.fault)
    return polls


def _is_due(store: pstampDataStore, now: datetime) -> bool:
    if store.state.lower() != "enabled":
        return False
    if store.timestamp is None:  # a new store, which the original never polled
        return True
    # In either direction: where a look seems to be to come, some clock was wrong.
    return bool(abs(now - store.timestamp) >= timedelta(seconds=store.pollInterval + 1))


class _Look:
    """One look at one store.

    Races tolerated: whoever else looks at the store or changes it sets its `timestamp`; this look ends then.
    """

    def __init__(self, server: Server, store: pstampDataStore, poll: Poll, terms: Terms) -> None:
        self.server, self.store, self.poll, self.terms = server, store, poll, terms
        self.uri = store.uri or ""
        self.changed = store.timestamp

    def deal_with(self, limit: int) -> None:
        """Queue up to `limit` new filesets, in the order of their registration."""
        self._update()
        until = time.monotonic() + PATIENCE * self.terms.timeout
        entries = self._filesets()
        known = self._known_among(entries)
        bookmark, unbroken = self.store.lastFileset, True
        for entry in entries:
            if _key(entry) not in known:
                if len(self.poll.filesets) == limit or time.monotonic() > until:
                    break
                try:
                    files = self._files(entry)
                except RetryableError as error:
                    self.poll.add(f"{error}; {self._way_past(entry)}", error.fault)
                    unbroken = False
                    continue
                self.poll.filesets.append(entry.name)
                known.add(_key(entry))
                bookmark = entry.name if unbroken else bookmark
                self._update(bookmark, files, entry)
            elif unbroken:
                bookmark = entry.name
        if bookmark != self.store.lastFileset:
            self._update(bookmark)

    def _filesets(self) -> list[FilesetEntry]:
        """Return the filesets after the bookmark, or all of them if it has gone from the store."""
        try:
            entries, broken = list_filesets(self.uri, self.terms, self.store.lastFileset)
        except NotThere:
            if not self.store.lastFileset:
                raise
            entries, broken = list_filesets(self.uri, self.terms)
        self._tell_broken(self.uri, broken)
        for entry in entries:
            if len(entry.name) > _LONGEST_NAME:
                self.poll.add(f"fileset {entry.name}: passed over: its name is longer than {_LONGEST_NAME} characters")
        return [entry for entry in entries if len(entry.name) <= _LONGEST_NAME]

    def _files(self, entry: FilesetEntry) -> list[str]:
        """Return the addresses of the files of a fileset that can be queued."""
        folder = below(self.uri, entry.name)
        try:
            files, broken = list_files(folder, self.terms)
        except UserError as error:
            self.poll.add(f"fileset {entry.name}: passed over: {error}")
            return []
        self._tell_broken(folder, broken)
        if len(files) > MAX_FILES:
            self.poll.add(f"fileset {entry.name}: passed over: it has {len(files)} files; expected at most {MAX_FILES}")
            return []
        uris = dict.fromkeys(below(folder, file.name) for file in files)
        for uri in uris:
            if len(uri) > _LONGEST_URI:
                self.poll.add(f"{redact(uri)}: passed over: the address is longer than {_LONGEST_URI} characters")
        return [uri for uri in uris if len(uri) <= _LONGEST_URI]

    def _tell_broken(self, uri: str, lines: Sequence[str]) -> None:
        for line in lines:
            text = line if len(line) <= 80 else f"{line[:77]}..."
            self.poll.add(f"{redact(uri)}: passed over: {text!r} is no row of an index")

    def _way_past(self, entry: FilesetEntry) -> str:
        return (
            "it is tried again, unless you pass it over with: "
            f"pstamptool -moddatastore -ds_id {self.store.ds_id} -set_last_fileset '{entry.name}'"
        )

    def _known_among(self, entries: Sequence[FilesetEntry]) -> set[str]:
        """Return the keys of those filesets that became requests already."""
        if not entries:
            return set()
        wanted = {_key(entry) for entry in entries}
        with self.server.store.reading():
            notes: Any = (
                pstampHistory.select(pstampHistory.note)
                .join(pstampRequest, on=(pstampRequest.req_id == pstampHistory.row_id))
                .where(
                    (pstampRequest.ds_id == self.store.ds_id)
                    & (pstampHistory.machine == "request")
                    & (pstampHistory.event == "make")
                )
            )
            return wanted & {note.rpartition(", ")[2] for (note,) in notes.tuples().iterator()}

    def _update(
        self, bookmark: str | None = None, files: Sequence[str] = (), entry: FilesetEntry | None = None
    ) -> None:
        """Write the time of this look, the bookmark if there is one, and a request for each file, all or nothing."""
        server, store = self.server, self.store
        bookmark = bookmark or store.lastFileset

        def work() -> tuple[datetime, list[int]]:
            now = server.store.now()
            changed = moment(now)
            if self.changed is not None and changed <= self.changed < changed + timedelta(seconds=1):
                changed = self.changed + timedelta(microseconds=1)  # never the same twice
            same = (
                pstampDataStore.timestamp.is_null()
                if self.changed is None
                else pstampDataStore.timestamp == self.changed
            )
            mine = (pstampDataStore.ds_id == store.ds_id) & same
            if not pstampDataStore.update(timestamp=changed, lastFileset=bookmark).where(mine).execute():
                raise RetryableError("somebody else looks at it, or has changed it; this look ends")
            label = known_label(store.label) if store.label else None
            requests = [
                make(
                    pstampRequest, now=now, who=server.worker, note=f"{redact(uri)}, {_key(entry)}" if entry else "",
                    state=RequestState.NEW, ds_id=store.ds_id, label=label, outProduct=store.outProduct, uri=uri,
                    registered=moment(now), timestamp=moment(now),
                )
                for uri in files
            ]  # fmt: skip
            return changed, [int(request.req_id) for request in requests]

        self.changed, requests = server.store.work(work)
        store.lastFileset = bookmark
        self.poll.requests += requests


def _key(entry: FilesetEntry) -> str:
    """Return what tells a fileset from all others of its store, also from one of its name registered later."""
    return f"fileset {entry.name} of {entry.registered.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
