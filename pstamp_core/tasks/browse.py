"""Requests as people look at them: their own, one at a time or in a list, with what became of each image.

Everything here is asked by an account, and what that may not see (`accounts.visible`) is answered as if it were not
there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from peewee import JOIN, Case, fn

from pstamp_core.faults import RETRYABLE, PstampError, UserError, fault_sentence, is_retryable
from pstamp_core.formats.results import COLUMNS, REQUEST_COLUMNS
from pstamp_core.imagedb import Component, survey_of
from pstamp_core.imagedb.components import MADE_AGAIN
from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.machines.job import OPEN
from pstamp_core.machines.request import FINISHABLE
from pstamp_core.store import (
    Label,
    moment,
    pstampDependent,
    pstampJob,
    pstampRequest,
    pstampSender,
    requests_to_parse,
    requests_with_jobs,
)
from pstamp_core.tasks.accounts import OPERATORS, Account, visible
from pstamp_core.tasks.dependents import image_database, wait_ends
from pstamp_core.tasks.finish import result_rows
from pstamp_core.tasks.report import IMAGE_STAMP, UNFINISHED, next_try
from pstamp_core.tasks.server import Server

PAGE = 50
"""Lines of a page: requests of a list, images or rows of a request."""
MAX_SEARCH = 255
"""Characters that are searched for; no column that is searched holds more."""
LARGEST = 2**63 - 1
"""The largest number that a database has for a request."""

COUNTED = 10_000
"""Images of a request whose rows are counted, which means to look at each."""
REASONS = 5
"""Things that a request waits for which are told, those of the most images first."""

FINAL = [state for state in RequestState if state not in UNFINISHED]


class NotThere(UserError):  # noqa: N818 (an outcome)
    """There is nothing of this name, or nothing that whoever asks may see."""


@dataclass(frozen=True)
class Progress:
    """How far the images of a request are: each image that matches a row is a job.

    Attributes
    ----------
    images : int
        All of them, and what the server answered instead where a row led to none.
    done : int
        With a stamp.
    failed : int
        Ended without one.
    waiting : int
        Wait until their pixels were made again.
    """

    images: int = 0
    done: int = 0
    failed: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class Entry:
    """A request in a list.

    Attributes
    ----------
    req_id : int
    name : str
        Empty until it is known.
    who : str
        The e-mail address that it came from, if that is known.
    label, state : str
    fault : int
        1-9 while something keeps it from going on that is tried again.
    sent, changed : datetime
        When it came, and when its state was last changed.
    progress : Progress
    """

    req_id: int
    name: str
    who: str
    label: str
    state: str
    fault: int
    sent: datetime
    changed: datetime
    progress: Progress


@dataclass(frozen=True)
class Listing:
    """A page of requests, the newest first; `before` leads to the next one, if there is one."""

    entries: list[Entry]
    before: int | None


@dataclass(frozen=True)
class Wait:
    """What some images of a request wait for, or the request as a whole, in words for whoever sent it.

    Attributes
    ----------
    images : int
        How many; 0 is the request.
    why : str
        Such as ``warp 40002 skycell.1234.044: being made again``, or ``number 2 of 5 in the queue``.
    since : datetime
        Since when.
    next_try : datetime or None
        When it is looked at again, if that is not now.
    ends : datetime or None
        When it is given up if the image is not there by then.
    made_of : dict
        What the image is made again from, as far as that is looked at: by stage how many are there, and of how many.
    """

    images: int
    why: str
    since: datetime
    next_try: datetime | None = None
    ends: datetime | None = None
    made_of: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """One request.

    Attributes
    ----------
    entry : Entry
    product : str
        The product of the data store in which its results appear; its fileset has the name of the request.
    rows : int or None
        How many the request has; None if that was not counted when it was sent, and would be long to count now.
    mine : bool
        Whether who asks may change it, too.
    goes : datetime or None
        When its files are deleted; None while it is not finished, when they are gone, or are kept for ever.
    waits : list of Wait
        What keeps it from being finished, that of the most images first.
    more : int
        How many images wait for other things than these.
    """

    entry: Entry
    product: str
    rows: int | None
    mine: bool
    goes: datetime | None
    waits: list[Wait]
    more: int


@dataclass(frozen=True)
class File:
    """A file of a request's results: its name, what sets it apart from others of its image, and whether it is drawn."""

    name: str
    kind: str
    bytes: int
    picture: bool


@dataclass(frozen=True)
class Outcome:
    """What became of one image, or of a row that led to none.

    Attributes
    ----------
    job_id, row : int
        The job, and the row of the request.
    state : str
        Of the job.
    fault : int
        10 and up: the answer. 1-9: it failed for now, and is tried again.
    sentence : str
        What the fault means here, in words; without one, what there is to say, if anything.
    waits : bool
        Its pixels are being made again.
    values : dict
        By the names of the columns of the results table; None for what is not known.
    files : list of File
    """

    job_id: int
    row: int
    state: str
    fault: int
    sentence: str
    waits: bool
    values: dict[str, Any]
    files: list[File]


@dataclass(frozen=True)
class Match:
    """How many images match a row of a preview.

    Attributes
    ----------
    row : int
    images : int
        Those that a stamp would be cut from.
    waiting : int
        Of these, those whose pixels have to be made again first.
    refused : int
        Those that can't be had; 1 for a row that is wrong, or that nothing matches.
    sentence : str
        Why the first of the refused is.
    values : dict
        What was asked for, by the names of the columns of the request table; None for what was not given.
    """

    row: int
    images: int
    waiting: int
    refused: int
    sentence: str
    values: dict[str, Any]


def list_requests(
    server: Server,
    account: Account,
    *,
    everyone: bool = False,
    search: str = "",
    state: str = "",
    before: int | None = None,
    number: int = PAGE,
) -> Listing:
    """Return requests, the newest first.

    Parameters
    ----------
    server : Server
        The server.
    account : Account
        Who asks; its requests and those of its groups are looked at.
    everyone : bool
        All requests, if the account may see them.
    search : str
        A request's number, what its name begins with, its whole label, or the e-mail address that it came from.
    state : str
        Only those in this state; ``unfinished`` for those with which something is to be done.
    before : int, optional
        Only those with smaller numbers.
    number : int
        How many at most.

    Raises
    ------
    UserError
        There is no such state.
    """
    # Without that group an operator is one user among others.
    whose = account if everyone else replace(account, groups=account.groups - {OPERATORS})
    wanted = [pstampRequest.state.in_(_states(state))] if state else []
    if before is not None:
        wanted.append(pstampRequest.req_id < max(0, min(before, LARGEST)))
    found: set[int] = set()
    with server.store.reading():
        wanted.append(visible(whose))
        # Each way to find some by itself, since each has its own index.
        for way in _ways(search.strip()[:MAX_SEARCH]):
            query: Any = pstampRequest.select(pstampRequest.req_id).where(*way, *wanted)
            found |= {each for (each,) in query.order_by(pstampRequest.req_id.desc()).limit(number + 1).tuples()}
        shown = sorted(found, reverse=True)[:number]
        rows = pstampRequest.select().where(pstampRequest.req_id.in_(shown))
        entries = _entries(rows.order_by(pstampRequest.req_id.desc()))
    return Listing(entries, entries[-1].req_id if len(found) > number else None)


def _states(name: str) -> Collection[RequestState]:
    if name == "unfinished":
        return UNFINISHED
    try:
        return [RequestState(name)]
    except ValueError:
        known = ", ".join(each.value for each in RequestState)
        raise UserError(f"state {name[:64]!r}: expected unfinished or one of {known}") from None


def _ways(search: str) -> list[list[Any]]:
    """Return the ways to find what is searched for, each as conditions."""
    if not search:
        return [[]]
    ways: list[list[Any]] = [
        # What begins so lies between it and what follows all that begins so, in the order of the index.
        [pstampRequest.name >= search, pstampRequest.name < f"{search}\U0010ffff"],
        [pstampRequest.label == search],
        [pstampRequest.username == search.lower()],
    ]
    if search.isascii() and search.isdecimal() and int(search) <= LARGEST:
        ways.append([pstampRequest.req_id == int(search)])
    return ways


def look(server: Server, account: Account, req_id: int) -> View:
    """Return one request, and what it waits for.

    Raises
    ------
    NotThere
        There is none that the account may see.
    """
    with server.store.reading():
        request = find_request(account, req_id)
        (entry,) = _entries([request])
        rows = pstampSender.select(pstampSender.num_rows).where(pstampSender.req_id == req_id).scalar()
        if rows is None and entry.progress.images <= COUNTED:
            rows = _jobs_of(request).select(fn.COUNT(pstampJob.rownum.distinct())).scalar()
        still_open = entry.progress.images - entry.progress.done - entry.progress.failed
        waits = list(_waits(server, request, still_open))
        more = still_open - sum(each.images for each in waits) if waits and waits[0].images else 0
    goes = None
    if request.state is RequestState.STOP and server.settings.preserve_days:
        goes = entry.changed + timedelta(days=server.settings.preserve_days)
    own = account.operator or request.username == account.email
    return View(entry, request.outProduct or server.settings.product, rows, own, goes, waits, more)


def find_request(account: Account, req_id: int) -> pstampRequest:
    """Return a request that the account may see, within a session or unit of work.

    Raises
    ------
    NotThere
        There is none.
    """
    row = None
    if 0 < req_id <= LARGEST:
        row = pstampRequest.get_or_none((pstampRequest.req_id == req_id) & visible(account))
    if row is None:
        raise NotThere(f"there is no request {req_id} of yours")
    return row


def _waits(server: Server, request: pstampRequest, open_jobs: int) -> Iterator[Wait]:
    """Yield what a request waits for, in words that tell nothing of the server's inside."""
    now, since = server.store.now(), moment(request.changed_at)
    label = Label.get_or_none(Label.label == request.label)
    if request.state in FINAL or request.state is RequestState.PARSED:
        return
    if request.fault:
        yield Wait(0, fault_sentence(request.fault), since, next_try(request, now))
    elif request.lease_owner:
        yield Wait(0, _AT_WORK[request.state], since)
    elif label and label.active is False and (open_jobs or request.state not in FINISHABLE):
        yield Wait(0, f"the operators have stopped queue {request.label} for now", since)
    elif request.state is RequestState.NEW:
        queue: Any = requests_to_parse(now).select(pstampRequest.req_id).tuples()
        yield Wait(0, f"to be read: {_place(request.req_id, [number for (number,) in queue])}", since)
    elif request.state is RequestState.RUN and open_jobs:
        yield from _waits_of_jobs(server, request, now)
    else:
        yield Wait(0, _NEXT[request.state], since)


_AT_WORK = {
    RequestState.NEW: "being read: its images are looked for", RequestState.RUN: "its results are being published",
    RequestState.CANCEL: "its results are being published", RequestState.GOTO_CLEANED: "its files are being deleted",
}  # fmt: skip
_NEXT = {
    RequestState.RUN: "its results are to be published", RequestState.CANCEL: "its results are to be published",
    RequestState.GOTO_CLEANED: "its files are to be deleted",
}  # fmt: skip


def _place(req_id: int, queue: list[int]) -> str:
    if req_id not in queue:  # somebody takes it just now
        return "next"
    return f"number {queue.index(req_id) + 1} of {len(queue)} in the queue"


def _waits_of_jobs(server: Server, request: pstampRequest, now: int) -> Iterator[Wait]:
    """Yield what the open jobs of a request wait for, that of the most jobs first."""
    job, dependent = pstampJob, pstampDependent
    alike = (job.fault, job.lease_owner != "", Case(None, [(dependent.state != DependentState.FULL, job.dep_id)], 0))
    number: Any = fn.COUNT(job.job_id)
    groups: Any = (
        job.select(number, fn.MIN(job.job_id), *alike)
        .join(dependent, JOIN.LEFT_OUTER, on=(dependent.dep_id == job.dep_id))
        # An open job has no other fault; the index begins with it.
        .where(job.fault.in_([0, *RETRYABLE]) & (job.req_id == request.req_id) & job.state.in_(OPEN))
        .group_by(*alike)
        .order_by(number.desc(), fn.MIN(job.job_id))
        .limit(REASONS)
    )
    for count, first, fault, leased, dep_id in groups.tuples():
        row = job.get_by_id(first)
        since = moment(row.changed_at)
        if fault:
            yield Wait(count, fault_sentence(fault), since, next_try(row, now))
        elif leased:
            yield Wait(count, "being cut", since)
        elif dep_id:
            yield _wait_for_image(server, dependent.get_by_id(dep_id), count, now)
        else:
            yield Wait(count, f"to be cut: {_place(request.req_id, _ready(now))}", since)


def _ready(now: int) -> list[int]:
    """Return the requests with jobs that can run, in the order of the queue."""
    queue: Any = requests_with_jobs(now).tuples()
    return [number for number, first in queue if first is not None]


def _wait_for_image(server: Server, dependent: pstampDependent, count: int, now: int) -> Wait:
    key = (dependent.stage, dependent.stage_id, dependent.component)
    why = fault_sentence(dependent.fault) if dependent.fault else dependent.reason or "not looked at yet"
    if dependent.state is DependentState.HOLD:
        why = "held back by the operators"
    ends = wait_ends(server, dependent)
    made_of: dict[str, tuple[int, int]] = {}
    with suppress(PstampError):  # the image database does not answer, which the operators see
        imagedb, policy = image_database(server, dependent.imagedb)
        for piece in survey_of(imagedb, [key], policy, now).chain(key):
            if piece.depth and piece.key[0] in MADE_AGAIN:
                there, of = made_of.get(piece.key[0], (0, 0))
                made_of[piece.key[0]] = there + (piece.verdict.component is Component.USABLE), of + 1
    return Wait(
        count, f"{' '.join(map(str, key))}: {why}", moment(dependent.changed_at), next_try(dependent, now),
        None if ends is None else moment(ends), made_of,
    )  # fmt: skip


def outcomes(
    server: Server, account: Account, req_id: int, page: int = 1, *, failed: bool = False
) -> tuple[list[Outcome], int]:
    """Return what became of the images of a request, in the order of its rows, and how many pages of them there are.

    Parameters
    ----------
    server : Server
        The server.
    account : Account
        Who asks.
    req_id : int
        The request.
    page : int
        From 1; one of `PAGE` images.
    failed : bool
        Only those that ended without a stamp.

    Raises
    ------
    NotThere
        There is none that the account may see.
    """
    with server.store.reading():
        jobs = _jobs_of(find_request(account, req_id))
        if failed:
            jobs = jobs.where(pstampJob.state.not_in(OPEN) & (pstampJob.fault > 0))
        total = int(jobs.select(fn.COUNT(pstampJob.job_id)).scalar())
        # First the numbers, which an index has, so that the others' parameters and results are not read.
        numbers: Any = jobs.select(pstampJob.job_id).order_by(pstampJob.job_id)
        chosen = [number for (number,) in numbers.limit(PAGE).offset(_first_of(page)).tuples()]
        rows = list(pstampJob.select().where(pstampJob.job_id.in_(chosen)).order_by(pstampJob.job_id))
        awaited = (pstampDependent.state != DependentState.FULL) & pstampDependent.dep_id.in_({j.dep_id for j in rows})
        waits = {each.dep_id for each in pstampDependent.select(pstampDependent.dep_id).where(awaited)}
    return [_outcome(job, job.state in OPEN and job.dep_id in waits) for job in rows], _pages(total)


def _outcome(job: pstampJob, waits: bool) -> Outcome:
    values = _known(next(result_rows(job)), _RESULT_COLUMNS)
    products = json.loads(job.result)["products"] if job.result else []
    files = [
        File(name := each["name"], _KIND.search(name)[0], each["bytes"], is_picture(name, each["type"]))  # type: ignore[index]
        for each in products
    ]
    sentence = job.sentence
    if job.fault and (not sentence or is_retryable(job.fault)):
        # What failed for now may name what is no user's business.
        sentence = fault_sentence(job.fault)
    return Outcome(job.job_id, int(job.rownum), job.state.value, job.fault, sentence, waits, values, files)


def is_picture(name: str, file_type: str) -> bool:
    """Tell whether a file of a fileset is an image that has a picture, by its name and type."""
    return file_type == "pstamp" and bool(IMAGE_STAMP.fullmatch(name))


def _known(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the values of columns, None for those that say in their way that there is none."""
    return {name: None if row.get(name) in (None, "", "0", "null") else row[name] for name in names}


_KIND = re.compile(r"((mk|wt|exp|num|mdl)\.)?[^.]*$")
_RESULT_COLUMNS = [column.name for column in COLUMNS]


def matches(server: Server, account: Account, req_id: int, page: int = 1) -> tuple[list[Match], int]:
    """Return how many images match each row of a preview, in the order of the rows, and how many pages there are.

    Raises
    ------
    NotThere
        There is none that the account may see.
    """
    job = pstampJob
    refused, fits = job.fault > 0, job.state.in_(OPEN)
    counts = [fn.SUM(Case(None, [(each, 1)], 0)) for each in (fits, fits & (job.dep_id > 0), refused)]
    first: Any = fn.MIN(job.job_id)
    with server.store.reading():
        jobs = _jobs_of(find_request(account, req_id))
        total = int(jobs.select(fn.COUNT(job.rownum.distinct())).scalar())
        query: Any = (
            jobs.select(job.rownum, *counts, first, fn.MIN(Case(None, [(refused, job.job_id)])))
            .group_by(job.rownum)
            .order_by(first)
            .limit(PAGE)
            .offset(_first_of(page))
        )
        groups = list(query.tuples())
        wanted = {number for group in groups for number in group[4:] if number}
        rows = {each.job_id: each for each in job.select().where(job.job_id.in_(wanted))}
    found = []
    for row, images, waiting, answers, any_, why in groups:
        params = json.loads(rows[any_].params) if rows[any_].params else {}
        sentence = (rows[why].sentence or fault_sentence(rows[why].fault)) if why else ""
        values = _known(params.get("row", {}), REQUEST_COLUMNS)
        found.append(Match(int(row), int(images), int(waiting), int(answers), sentence, values))
    return found, _pages(total)


def _first_of(page: int) -> int:
    return (min(max(page, 1), 2**31) - 1) * PAGE


def _pages(lines: int) -> int:
    return max(1, -(-lines // PAGE))


def _jobs_of(request: pstampRequest) -> Any:
    return pstampJob.select().where(pstampJob.req_id == request.req_id)


def _entries(rows: Iterable[pstampRequest]) -> list[Entry]:
    rows = list(rows)
    progress = _progress(rows)
    return [
        Entry(
            row.req_id, row.name or "", row.username or "", row.label or "", row.state.value, row.fault,
            row.registered, moment(row.changed_at), progress[row.req_id],
        )
        for row in rows
    ]  # fmt: skip


def _progress(rows: Collection[pstampRequest]) -> dict[int, Progress]:
    """Return how far requests are; each count is made from an index alone."""
    numbers = [row.req_id for row in rows]
    working = [row.req_id for row in rows if row.state not in FINAL]

    def count(query: Any, among: list[int]) -> dict[int, int]:
        counted = query.where(pstampJob.req_id.in_(among)).group_by(pstampJob.req_id)
        return dict(counted.tuples()) if among else {}

    jobs = pstampJob.select(pstampJob.req_id, fn.COUNT(pstampJob.job_id))
    total = count(jobs, numbers)
    still_open = count(jobs.where(pstampJob.state.in_(OPEN)), working)
    done = count(jobs.where((pstampJob.fault == 0) & (pstampJob.state == JobState.STOP)), numbers)
    awaited = pstampJob.state.in_(OPEN) & (pstampDependent.state != DependentState.FULL)
    joined = jobs.join(pstampDependent, on=(pstampDependent.dep_id == pstampJob.dep_id))
    waiting = count(joined.where(awaited), working)
    found = {}
    for each in numbers:
        images, good = total.get(each, 0), done.get(each, 0)
        found[each] = Progress(images, good, images - good - still_open.get(each, 0), waiting.get(each, 0))
    return found
