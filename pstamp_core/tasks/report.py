"""What people ask: how the server is, what waits and for what, and what became of one row."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from peewee import JOIN, Case, chunked, fn

from pstamp_core.database import redact
from pstamp_core.faults import UserError, fault_sentence, is_final
from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.machines.dependent import SHARED
from pstamp_core.machines.job import OPEN
from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.machines.request import FINISHABLE
from pstamp_core.store import (
    DEFAULT_PRIORITY,
    MACHINES,
    Label,
    Worked,
    moment,
    pstampDependent,
    pstampHistory,
    pstampJob,
    pstampRequest,
)
from pstamp_core.tasks.logs import log_files
from pstamp_core.tasks.operate import LABEL
from pstamp_core.tasks.server import Server, find

IMAGE_STAMP = re.compile(r".+(?<!\.mk)(?<!\.wt)(?<!\.exp)(?<!\.num)\.fits")
"""The names of image stamps, as against masks, variances and maps."""


HOUR = 3600 * MICROSECONDS
LINES_LOOKED_AT = 100_000
"""Lines of the history that a status counts at most; where an hour has more, the time it speaks of is shorter."""


@dataclass(frozen=True)
class Waiting:
    """Something that does not move, and what it waits for."""

    what: str
    why: str
    since: datetime
    next_try: datetime | None = None


@dataclass
class Queue:
    """How much there is for one task.

    Attributes
    ----------
    name : str
        ``parse``, ``run``, ``check``, ``finish`` or ``clean``.
    now : int
        Rows that a worker would get.
    later : int
        Rows that are looked at again at a later time.
    leased : int
        Rows that somebody works on.
    faulted : int
        Rows with a fault 1-9, which wait for a revert.
    held : int
        Rows that wait for an image, an operator, or their label.
    """

    name: str
    now: int = 0
    later: int = 0
    leased: int = 0
    faulted: int = 0
    held: int = 0


@dataclass(frozen=True)
class Move:
    """How often something has happened of late."""

    machine: str
    event: str
    count: int
    per_hour: float


@dataclass(frozen=True)
class Lease:
    """Rows of one machine that one worker works on; `until` is when the first of its leases runs out."""

    machine: str
    owner: str
    count: int
    first: int
    until: datetime
    overdue: bool


@dataclass(frozen=True)
class FaultCount:
    """How many rows wait with a fault."""

    fault: int
    sentence: str
    requests: int
    jobs: int
    dependents: int


@dataclass(frozen=True)
class Disk:
    """Space of a file system, in bytes, with the names of the server's folders on it."""

    name: str
    free: int
    total: int


@dataclass(frozen=True)
class Images:
    """The images that are made again for jobs.

    Attributes
    ----------
    waiting : int
        How many are waited for.
    oldest : datetime or None
        Since when the first of them is.
    made : int
        How many came, in the time that `Status.hours` says.
    per_hour : float
    """

    waiting: int
    oldest: datetime | None
    made: int
    per_hour: float


@dataclass(frozen=True)
class Awaited:
    """An image that jobs wait for.

    Attributes
    ----------
    dep_id : int
        Its dependent.
    imagedb : str
        Its image database, without the password.
    stage, stage_id, component : str, int, str
    state : str
        ``new``, or ``hold`` while an operator keeps it, or nobody has accepted a preview.
    fault : int
        Why the last look failed, if so.
    reason : str
        What it waits for, as the last look found.
    since : datetime
        When it came to be in this state.
    looks, failed : int
        How often it was looked at, and how many of these looks failed.
    next_look : datetime or None
        When it is looked at again, if that is not now.
    priority : int or None
        Of the most urgent request that waits for it; None if no request that runs under an active label does.
    jobs : int
        How many wait for it.
    requests : list of int
        Theirs.
    """

    dep_id: int
    imagedb: str
    stage: str
    stage_id: int
    component: str
    state: str
    fault: int
    reason: str
    since: datetime
    looks: int
    failed: int
    next_look: datetime | None
    priority: int | None
    jobs: int
    requests: list[int]


@dataclass(frozen=True)
class AwaitedImages:
    """All images that jobs wait for, the most urgent first, as of one moment.

    Attributes
    ----------
    at : datetime
        Now, by the database's clock.
    images : list of Awaited
    longest_days : float
        Days after which one that is not there is given up (`Settings.longest_wait_days`); 0 is never.
    """

    at: datetime
    images: list[Awaited]
    longest_days: float


@dataclass
class LabelLoad:
    """A label, and what is open under it; requests without one have the name ``None``."""

    label: str | None
    priority: int
    active: bool
    requests: int = 0
    jobs: int = 0


@dataclass(frozen=True)
class Status:
    """How the server is now.

    Attributes
    ----------
    at : datetime
        Now, by the database's clock.
    queues : list of Queue
    moves : list of Move
        What has happened in the last `hours`, without looks and leases.
    hours : float
        1, or less where the history is too long to count an hour of it.
    images : Images
    stuck : list of Waiting
        What does not move, the longest first.
    more_stuck : int
        How many more there are.
    faults : list of FaultCount
    leases : list of Lease
        Those that run out first, first.
    labels : list of LabelLoad
        By priority.
    disks : list of Disk
    """

    at: datetime
    queues: list[Queue]
    moves: list[Move]
    hours: float
    images: Images
    stuck: list[Waiting]
    more_stuck: int
    faults: list[FaultCount]
    leases: list[Lease]
    labels: list[LabelLoad]
    disks: list[Disk]


class _OpenJobs(NamedTuple):
    """Open jobs of one request that are alike."""

    req_id: int
    state: JobState
    fault: int
    leased: bool
    waits_for: int
    later: bool
    rows: int
    first: int


def status(server: Server, most: int = 10) -> Status:
    """Return how the server is now, with at most `most` lines of what does not move.

    It looks at what is open, and at the end of the history: what is finished makes no difference, however much it is.
    """
    with server.store.reading():
        now = server.store.now()
        jobs = _open_jobs(now)
        requests = list(pstampRequest.select().where(pstampRequest.state.in_(UNFINISHED)))
        dependents = _open_dependents(jobs)
        labels = _labels(requests, jobs)
        leases = _leases(now)
        moves, hours = _moves(now)
        stuck = [
            *_waiting_requests(requests, now), *_waiting_jobs(jobs, now), *_waiting_dependents(dependents, now),
            *_waiting_labels(labels, requests), *_waiting_leases(each for each in leases if each.overdue),
        ]  # fmt: skip
        stuck.sort(key=lambda each: each.since)
    return Status(
        at=moment(now), queues=_queues(requests, jobs, dependents, labels, now), moves=moves, hours=hours,
        images=_images(dependents, moves),
        stuck=stuck[:most], more_stuck=max(0, len(stuck) - most),
        faults=_faults(requests, jobs, [row for row, _ in dependents]), leases=leases,
        labels=[each for each in labels.values() if each.requests or not each.active],
        disks=_disks((server.settings.work, server.settings.datastore)),
    )  # fmt: skip


UNFINISHED = [state for state in RequestState if state not in (RequestState.STOP, RequestState.CLEANED)]
"""The states in which something is still to be done with a request, or decided on."""


def _open_jobs(now: int) -> list[_OpenJobs]:
    """Return the open jobs, counted where they are alike: one walk over the index of each unfinished request."""
    alike = (
        pstampRequest.req_id,
        pstampJob.state,
        pstampJob.fault,
        pstampJob.lease_owner != "",
        Case(None, [(pstampDependent.state != DependentState.FULL, pstampJob.dep_id)], 0),
        pstampJob.retry_at > now,
    )
    query: Any = (
        pstampRequest.select(*alike, fn.COUNT(pstampJob.job_id), fn.MIN(pstampJob.job_id))
        .join(pstampJob, on=(pstampJob.req_id == pstampRequest.req_id))
        .join(pstampDependent, JOIN.LEFT_OUTER, on=(pstampDependent.dep_id == pstampJob.dep_id))
        .where(pstampRequest.state.in_(UNFINISHED) & pstampJob.state.in_(OPEN))
        .group_by(*alike)
    )
    return [_OpenJobs(*row) for row in query.tuples()]


def _open_dependents(jobs: Iterable[_OpenJobs]) -> list[tuple[pstampDependent, dict[int, int]]]:
    """Return the open dependents, each with the requests whose open jobs wait for it, and how many jobs these are."""
    needed: dict[int, Counter[int]] = {}
    for group in jobs:
        needed.setdefault(group.waits_for, Counter())[group.req_id] += group.rows
    rows = pstampDependent.select().where(pstampDependent.state.in_(SHARED))
    return [(row, needed.get(row.dep_id, {})) for row in rows]


def _images(dependents: Sequence[tuple[pstampDependent, dict[int, int]]], moves: Iterable[Move]) -> Images:
    since = [dependent.changed_at for dependent, jobs in dependents if jobs]
    made = [move for move in moves if (move.machine, move.event) == ("dependent", Event.SATISFY.value)]
    return Images(
        len(since), moment(min(since)) if since else None, sum(move.count for move in made),
        sum(move.per_hour for move in made),
    )  # fmt: skip


def awaited(server: Server) -> AwaitedImages:
    """Return the images that jobs wait for, the most urgent first, those of one priority by age."""
    with server.store.reading():
        now = server.store.now()
        requests = list(pstampRequest.select().where(pstampRequest.state.in_(UNFINISHED)))
        jobs = _open_jobs(now)
        labels, dependents = _labels(requests, jobs), _open_dependents(jobs)
    priorities = {
        each.req_id: labels[each.label].priority
        for each in requests if each.state is RequestState.RUN and labels[each.label].active
    }  # fmt: skip
    found = [
        Awaited(
            row.dep_id, redact(row.imagedb), row.stage, row.stage_id, row.component, row.state.value, row.fault,
            row.reason, moment(row.changed_at), row.attempt, row.fault_count, next_try(row, now),
            max((priorities[number] for number in its if number in priorities), default=None), sum(its.values()),
            sorted(its),
        )
        for row, its in dependents if its
    ]  # fmt: skip
    found.sort(key=lambda each: (each.priority is None, -(each.priority or 0), each.since, each.dep_id))
    return AwaitedImages(moment(now), found, server.settings.longest_wait_days)


def label_loads(server: Server) -> list[LabelLoad]:
    """Return all labels, with what is open under them, by priority."""
    with server.store.reading():
        requests = list(pstampRequest.select().where(pstampRequest.state.in_(UNFINISHED)))
        return list(_labels(requests, _open_jobs(server.store.now())).values())


def _labels(requests: Sequence[pstampRequest], jobs: Sequence[_OpenJobs]) -> dict[str | None, LabelLoad]:
    found: dict[str | None, LabelLoad] = {}
    for row in Label.select():
        priority = DEFAULT_PRIORITY if row.priority is None else row.priority
        found[row.label] = LabelLoad(row.label, priority, row.active is not False)
    label_of = {request.req_id: request.label for request in requests}
    for label in label_of.values():
        load = found.setdefault(label, LabelLoad(label, DEFAULT_PRIORITY, True))
        load.requests += 1
    for group in jobs:
        if group.req_id in label_of:
            found[label_of[group.req_id]].jobs += group.rows
    return dict(sorted(found.items(), key=lambda each: (-each[1].priority, each[0] or "")))


def _queues(
    requests: Sequence[pstampRequest],
    jobs: Sequence[_OpenJobs],
    dependents: Sequence[tuple[pstampDependent, dict[int, int]]],
    labels: dict[str | None, LabelLoad],
    now: int,
) -> list[Queue]:
    """Return how much is in each queue.

    These are the rules of the queues in `pstamp_core.store`, applied to what was read already, since the queries would
    walk over all open jobs again; a test keeps the two in step.
    """
    parse, run, check, finish, clean = (Queue(name) for name in ("parse", "run", "check", "finish", "clean"))
    active = {request.req_id: labels[request.label].active for request in requests}
    running = {request.req_id for request in requests if request.state is RequestState.RUN}
    served = {request.req_id for request in requests if request.req_id in running and not request.fault}
    unfinished = {group.req_id for group in jobs}
    for request in requests:
        if request.state is RequestState.NEW:
            _count(parse, request, now, held=not active[request.req_id])
        elif request.state is RequestState.GOTO_CLEANED:
            _count(clean, request, now, held=not active[request.req_id])
        elif request.state in FINISHABLE and request.req_id not in unfinished:
            _count(finish, request, now)
    for dependent, needed_by in dependents:
        wanted = any(number in running and active[number] for number in needed_by)
        _count(check, dependent, now, held=dependent.state is DependentState.HOLD or not wanted)
    for group in jobs:
        held = (
            group.waits_for > 0
            or group.state is not JobState.RUN
            or group.req_id not in served
            or not active[group.req_id]
        )
        place = _place(leased=group.leased, faulted=group.fault > 0, later=group.later, held=held)
        setattr(run, place, getattr(run, place) + group.rows)
    return [parse, run, check, finish, clean]


def _count(queue: Queue, row: Worked, now: int, *, held: bool = False) -> None:
    place = _place(leased=bool(row.lease_owner), faulted=row.fault > 0, later=row.retry_at > now, held=held)
    setattr(queue, place, getattr(queue, place) + 1)


def _place(*, leased: bool, faulted: bool, later: bool, held: bool) -> str:
    return "leased" if leased else "faulted" if faulted else "held" if held else "later" if later else "now"


def _moves(now: int) -> tuple[list[Move], float]:
    """Return how often each event has happened in the last hour, and the hours that were looked at.

    The history is in order of time, so that halving finds the number with which its last hour begins.
    """
    h = pstampHistory

    def time_of(number: int) -> int:
        return int(h.select(h.at).where(h.hist_id >= number).order_by(h.hist_id).limit(1).scalar())

    # One by one, since SQLite reads the whole table for both.
    oldest, newest = (h.select(end(h.hist_id)).scalar() for end in (fn.MIN, fn.MAX))
    if newest is None:
        return [], 1.0
    start = max(oldest, newest - LINES_LOOKED_AT)
    first, beyond = start, newest + 1
    while first < beyond:
        middle = (first + beyond) // 2
        if time_of(middle) < now - HOUR:
            first = middle + 1
        else:
            beyond = middle
    hours = max(now - time_of(start), MICROSECONDS) / HOUR if oldest < start == first else 1.0
    # Without its limit SQLite would count along an index of the whole table.
    lately = h.select(h.machine, h.event).where((h.hist_id >= first) & (h.at >= now - HOUR))
    lines = lately.limit(LINES_LOOKED_AT + 1).alias("lines")
    what = (lines.c.machine, lines.c.event)
    counted: Any = h.select(*what, fn.COUNT(lines.c.event)).from_(lines).group_by(*what).tuples()
    found = {(machine, event): count for machine, event, count in counted}
    order = [(machine.name, event.value) for machine in MACHINES.values() for event in Event if event not in _QUIET]
    return [Move(*key, found[key], found[key] / hours) for key in order if key in found], hours


_QUIET = (Event.CLAIM, Event.HEARTBEAT, Event.RELEASE)
"""Events that bring nothing forward."""


def _leases(now: int) -> list[Lease]:
    found = []
    for table, machine in MACHINES.items():
        held = table.state.in_(machine.sources(Event.CLAIM)) & (table.fault == 0) & (table.lease_owner > "")
        columns = table.lease_owner, fn.COUNT(table.key()), fn.MIN(table.key()), fn.MIN(table.lease_until)
        rows: Any = table.select(*columns).where(held).group_by(table.lease_owner).tuples()
        found += [
            Lease(machine.name, owner, count, first, moment(until), until < now) for owner, count, first, until in rows
        ]
    return sorted(found, key=lambda each: each.until)


def _faults(
    requests: Sequence[pstampRequest], jobs: Sequence[_OpenJobs], dependents: Sequence[pstampDependent]
) -> list[FaultCount]:
    counts = [
        Counter(row.fault for row in requests),
        sum((Counter({group.fault: group.rows}) for group in jobs), Counter[int]()),
        Counter(row.fault for row in dependents),
    ]
    codes = sorted({fault for each in counts for fault in each if fault})
    return [FaultCount(fault, fault_sentence(fault), *(each[fault] for each in counts)) for fault in codes]


def _disks(folders: Iterable[Path]) -> list[Disk]:
    """Return the space of the file systems of `folders`, once each."""
    names: dict[int, list[Path]] = {}
    for folder in folders:
        if folder.is_dir():
            names.setdefault(folder.stat().st_dev, []).append(folder)
    usage = [(" and ".join(each.name for each in same), shutil.disk_usage(same[0])) for same in names.values()]
    return [Disk(name, each.free, each.total) for name, each in usage]


def waiting(server: Server) -> list[Waiting]:
    """Return everything that is not finished and can't move now, with what it waits for."""
    with server.store.reading():
        now = server.store.now()
        requests = list(pstampRequest.select().where(pstampRequest.state.in_(UNFINISHED)))
        jobs = _open_jobs(now)
        return [
            *_waiting_requests(requests, now), *_waiting_jobs(jobs, now),
            *_waiting_dependents(_open_dependents(jobs), now), *_waiting_labels(_labels(requests, jobs), requests),
            *_waiting_leases(_leases(now)),
        ]  # fmt: skip


def trouble(row: Worked) -> str:
    """Return what failed on a row with a fault."""
    tries = "1 try" if row.fault_count == 1 else f"{row.fault_count} tries"
    return f"fault {row.fault} after {tries}: {fault_sentence(row.fault)}"


def next_try(row: Worked, now: int) -> datetime | None:
    """Return when a row is tried again, if that is not now, and not never."""
    return moment(row.retry_at) if row.retry_at > now and not is_final(row.fault) else None


def last_note(row: Worked) -> str:
    """Return the note of the last line of a row's history."""
    mine = (pstampHistory.machine == MACHINES[type(row)].name) & (pstampHistory.row_id == row.id_)
    last = pstampHistory.select(pstampHistory.note).where(mine).order_by(pstampHistory.hist_id.desc()).first()
    return str(last.note) if last else ""


def _waiting_requests(requests: Iterable[pstampRequest], now: int) -> Iterator[Waiting]:
    for request in requests:
        name = f"request {request.req_id} ({request.name or 'no name yet'})"
        if request.fault:
            note = last_note(request)
            why = f"{trouble(request)} ({note})" if note else trouble(request)
            yield Waiting(name, why, moment(request.changed_at), next_try(request, now))
        elif request.state is RequestState.PARSED:
            yield Waiting(
                name, f"a preview: accept it with: pstamp accept {request.req_id}", moment(request.changed_at)
            )


def _waiting_jobs(jobs: Iterable[_OpenJobs], now: int) -> Iterator[Waiting]:
    """Yield the faulted jobs, those of one request with one fault together."""
    groups: dict[tuple[int, int], list[_OpenJobs]] = {}
    for group in jobs:
        if group.fault:
            groups.setdefault((group.req_id, group.fault), []).append(group)
    first_of = {key: min(group.first for group in alike) for key, alike in groups.items()}
    for part in chunked(first_of.items(), CHUNK):
        first_jobs = {job.job_id: job for job in pstampJob.select().where(pstampJob.job_id.in_([n for _, n in part]))}
        for (req_id, fault), number in part:
            job = first_jobs.get(number)
            if job is None:  # its request was parsed anew meanwhile
                continue
            count = sum(group.rows for group in groups[req_id, fault])
            what = f"job {number}" if count == 1 else f"{count} jobs, the first is {number},"
            why = f"{trouble(job)} ({job.sentence})" if job.sentence else trouble(job)
            yield Waiting(f"{what} of request {req_id}", why, moment(job.changed_at), next_try(job, now))


CHUNK = 100
"""Rows looked up by one statement."""


def _waiting_dependents(dependents: Iterable[tuple[pstampDependent, dict[int, int]]], now: int) -> Iterator[Waiting]:
    for dependent, jobs in dependents:
        if jobs:
            requests = sorted(jobs)
            numbers = ", ".join(map(str, requests[:5])) + (", ..." if len(requests) > 5 else "")
            held = " (held)" if dependent.state is DependentState.HOLD else ""
            where = f"dependent {dependent.dep_id}: {dependent.stage} {dependent.stage_id} {dependent.component}"
            yield Waiting(
                f"{sum(jobs.values())} job(s) of request {numbers}", f"{where}{held}: {dependent.reason}",
                moment(dependent.changed_at), next_try(dependent, now),
            )  # fmt: skip


def _waiting_labels(labels: dict[str | None, LabelLoad], requests: Sequence[pstampRequest]) -> Iterator[Waiting]:
    for label, load in labels.items():
        if not load.active and load.requests:
            since = min(request.changed_at for request in requests if request.label == label)
            what = f"{load.jobs} job(s) of {load.requests} request(s)"
            yield Waiting(what, f"label {label} is inactive: it hands out no work", moment(since))


def _waiting_leases(leases: Iterable[Lease]) -> Iterator[Waiting]:
    for lease in leases:
        what = f"{lease.machine} {lease.first}" if lease.count == 1 else f"{lease.count} {lease.machine}s"
        state = "overdue since" if lease.overdue else "until"
        yield Waiting(what, f"{lease.owner} works on it, {state} {lease.until:%Y-%m-%d %H:%M:%S}", lease.until)


def logs(server: Server, machine: str, number: int) -> list[Path]:
    """Return the log files of a request, job or dependent, the oldest work first.

    Raises
    ------
    UserError
        There is no such row, or it has no log: it was not tried yet, or its files were deleted.
    """
    with server.store.reading():
        found = log_files(server, find(machine, number))
    if not found:
        raise UserError(f"{machine} {number} has no log; see: pstamp history {machine} {number}")
    return found


@dataclass(frozen=True)
class Line:
    """One line of the history of a row."""

    when: datetime
    event: str
    source: str
    dest: str
    fault: int
    attempt: int
    who: str
    note: str


def look_up(server: Server, machine: str, number: int) -> tuple[dict[str, Any], list[Line]]:
    """Return the columns of a request, job or dependent, and its history.

    States are words, times are moments, and the parameters and result of a job are mappings.

    Raises
    ------
    UserError
        There is no such row.
    """
    with server.store.reading():
        row = find(machine, number)
        lines = _lines(machine, number)
    columns: dict[str, Any] = {**row.__data__, "state": row.state.value}
    for name in ("lease_until", "retry_at", "changed_at"):
        columns[name] = moment(columns[name]) if columns[name] else None
    for name in {"params", "result"} & set(columns):
        columns[name] = json.loads(columns[name]) if columns[name] else None
    return columns, lines


def label_history(server: Server, label: str) -> list[Line]:
    """Return the changes of a label that were made by `pstamp priority`; its states are its priorities."""
    with server.store.reading():
        return [line for line in _lines(LABEL, 0) if line.note.startswith(f"{label!r}: ")]


def _lines(machine: str, number: int) -> list[Line]:
    mine = (pstampHistory.machine == machine) & (pstampHistory.row_id == number)
    return [
        Line(moment(each.at), each.event, each.source, each.dest, each.fault, each.attempt, each.who, each.note)
        for each in pstampHistory.select().where(mine).order_by(pstampHistory.hist_id)
    ]


def fileset(server: Server, req_id: int) -> Path:
    """Return the folder of a request's published fileset.

    Raises
    ------
    UserError
        There is no such request, or it has no results yet.
    """
    columns, _ = look_up(server, "request", req_id)
    folder = server.settings.datastore / (columns["outProduct"] or "") / (columns["name"] or "")
    if columns["state"] != RequestState.STOP.value or not (folder / "results.fits").is_file():
        raise UserError(f"request {req_id} is {columns['state']}: no results yet; see: pstamp why request {req_id}")
    return folder


def results(server: Server, req_id: int) -> list[dict[str, Any]]:
    """Return the rows of a request's published results table."""
    from pstamp_core.formats import read_results

    return list(read_results(fileset(server, req_id) / "results.fits").rows)


def draw_sheet(server: Server, req_id: int, out: Path) -> int:
    """Draw the image stamps of a request's results on one page (PNG) with their labels; return how many.

    Raises
    ------
    UserError
        There are no results, or no image among them.
    """
    from pstamp_core.formats import read_results
    from pstamp_core.stamps import contact_sheet

    folder = fileset(server, req_id)
    types = {file.name: file.type for file in server.datastore.files(folder.parent.name, folder.name)}
    entries = [
        (_label(row), folder / row["IMG_NAME"])
        for row in read_results(folder / "results.fits").rows
        if types.get(row["IMG_NAME"]) == "pstamp" and IMAGE_STAMP.fullmatch(row["IMG_NAME"])
    ]
    if not entries:
        raise UserError(f"request {req_id} has no image stamps; see: pstamp results {req_id}")
    contact_sheet(entries, out)
    return len(entries)


def _label(row: dict[str, Any]) -> str:
    texts = (str(row[name]) for name in ("ROWNUM", "IMG_TYPE", "FILTER", "COMMENT"))
    return " ".join(text for text in texts if text not in ("0", "null"))
