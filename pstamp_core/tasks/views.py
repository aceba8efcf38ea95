"""The tables of `psstatus`, and the jobs of a request as `pstamp_listjobs` has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import JOIN, Case, chunked, fn

from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.machines.job import OPEN
from pstamp_core.machines.machine import DAY
from pstamp_core.store import moment, pstampDependent, pstampJob, pstampRequest
from pstamp_core.tasks.accounts import Account, visible
from pstamp_core.tasks.logs import one_line
from pstamp_core.tasks.report import CHUNK, label_loads
from pstamp_core.tasks.server import Server, find


@dataclass(frozen=True)
class View:
    """A table for people; times are UTC."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return "NULL"
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else one_line(str(value))


def framed(view: View) -> Iterator[str]:
    """Yield the lines of a table in a frame of bars, as MySQL's client does: no line where there are no rows."""
    if not view.rows:
        return
    texts = [view.columns, *([cell(value) for value in row] for row in view.rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    rule = f"+{'+'.join('-' * (width + 2) for width in widths)}+"
    yield rule
    for number, row in enumerate(texts):
        yield f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |"
        if number == 0:
            yield rule
    yield rule


def totals(server: Server) -> View:
    """Return the labels with unfinished jobs."""
    rows = [(each.label or "NULL", each.jobs, each.priority) for each in label_loads(server) if each.jobs]
    return View(("label", "Unfinished Jobs", "priority"), rows)


def running(server: Server, limit: int | None = None, account: Account | None = None) -> View:
    """Return the requests that are `new`, `parsed` or `run`; only those that an `account` may see, if it is given."""
    states = [RequestState.NEW, RequestState.PARSED, RequestState.RUN]
    with server.store.reading():
        requests = _requests(pstampRequest.state.in_(states) & _seen(account), pstampRequest.req_id, limit)
        jobs = _jobs(requests)
    rows = [
        (each.req_id, each.name, each.label, each.reqType, each.state.value, each.fault, jobs[each.req_id].rows,
         jobs[each.req_id].total, jobs[each.req_id].stopped, jobs[each.req_id].pending, jobs[each.req_id].faulted,
         jobs[each.req_id].updates, moment(each.changed_at), each.registered)
        for each in requests
    ]  # fmt: skip
    return View(
        ("req_id", "name", "label", "reqType", "state", "fault", "Num Rows", "Total Jobs", "Completed Jobs",
         "Pending Jobs", "Faulted Jobs", "Image updates", "last state change", "Submit time"), rows,
    )  # fmt: skip


def finishing(server: Server, limit: int | None = None) -> View:
    """Return the running requests of which every job is stopped."""
    still_open = pstampJob.select().where((pstampJob.req_id == pstampRequest.req_id) & pstampJob.state.in_(OPEN))
    with server.store.reading():
        ready = (pstampRequest.state == RequestState.RUN) & ~fn.EXISTS(still_open)
        requests = _requests(ready, pstampRequest.req_id, limit)
        jobs = _jobs(requests)
    rows = [
        (each.req_id, each.name, each.label, each.reqType, each.state.value, each.fault, jobs[each.req_id].total,
         moment(each.changed_at))
        for each in requests
    ]  # fmt: skip
    columns = ("req_id", "name", "label", "reqType", "state", "fault", "Finished jobs", "last state change")
    return View(columns, rows)


def finished(server: Server, limit: int | None = None, account: Account | None = None) -> View:
    """Return the requests that were finished in the last 24 hours, newest first; the account is that of `running`."""
    with server.store.reading():
        lately = pstampRequest.changed_at >= server.store.now() - DAY
        requests = _requests(
            (pstampRequest.state == RequestState.STOP) & lately & _seen(account),
            pstampRequest.changed_at.desc(),
            limit,
        )
        jobs = _jobs(requests)
    rows = [
        (each.req_id, each.name, each.label, each.reqType, jobs[each.req_id].rows, jobs[each.req_id].total,
         jobs[each.req_id].total - jobs[each.req_id].faulted, jobs[each.req_id].faulted, jobs[each.req_id].updates,
         moment(each.changed_at), each.registered)
        for each in requests
    ]  # fmt: skip
    return View(
        ("req_id", "name", "label", "reqType", "Num Rows", "Total Jobs", "Successful Jobs", "Faulted Jobs",
         "Image updates completed", "Completion Time", "Submit Time"), rows,
    )  # fmt: skip


def jobs_of(server: Server, req_id: int) -> View:
    """Return the jobs of a request; what lies below a directory ``dsroot`` goes by its path in the data store, /ds/...

    Raises
    ------
    UserError
        There is no such request.
    """
    with server.store.reading():
        request: Any = find("request", req_id)
        jobs = list(pstampJob.select().where(pstampJob.req_id == req_id).order_by(pstampJob.job_id))
    rows = [
        (job.job_id, job.state.value, job.fault, request.name, request.outProduct,
         re.sub(r"^.*?/dsroot/", "/ds/", job.outputBase or "NULL"))
        for job in jobs
    ]  # fmt: skip
    return View(("job_id", "state", "fault", "name", "outProduct", "outputBase"), rows)


@dataclass(frozen=True)
class _Jobs:
    """Numbers of the jobs of a request; faulted are those that end with a code, or have one for the moment."""

    rows: int = 0
    total: int = 0
    stopped: int = 0
    pending: int = 0
    faulted: int = 0
    updates: int = 0


def _seen(account: Account | None) -> Any:
    return visible(account) if account else pstampRequest.req_id > 0


def _requests(which: Any, order: Any, limit: int | None) -> list[pstampRequest]:
    return list(pstampRequest.select().where(which).order_by(order).limit(limit))


def _jobs(requests: Sequence[pstampRequest]) -> dict[int, _Jobs]:
    """Return the numbers of the jobs of each of `requests`."""
    pending = (pstampJob.state == JobState.RUN) & (pstampJob.fault == 0)
    remade = pstampDependent.state == DependentState.FULL
    sums = [
        fn.SUM(Case(None, [(each, 1)], 0)) for each in (pstampJob.state == JobState.STOP, pending, pstampJob.fault > 0)
    ]
    counted = (
        pstampJob.select(
            pstampJob.req_id, fn.COUNT(pstampJob.rownum.distinct()), fn.COUNT(pstampJob.job_id), *sums,
            fn.COUNT(Case(None, [(remade, pstampJob.dep_id)]).distinct()),
        )
        .join(pstampDependent, JOIN.LEFT_OUTER, on=(pstampDependent.dep_id == pstampJob.dep_id))
        .group_by(pstampJob.req_id)
    )  # fmt: skip
    found = {each.req_id: _Jobs() for each in requests}
    for part in chunked(found, CHUNK):
        rows: Any = counted.where(pstampJob.req_id.in_(part)).tuples()
        found |= {req_id: _Jobs(*map(int, numbers)) for req_id, *numbers in rows}
    return found
