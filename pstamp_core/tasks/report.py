"""What people ask: how much is there of what, what waits and for what, and what became of one row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from peewee import fn

from pstamp_core.faults import UserError, fault_sentence
from pstamp_core.formats import read_results
from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.store import (
    MACHINES,
    Worked,
    moment,
    pstampDependent,
    pstampHistory,
    pstampJob,
    pstampRequest,
)
from pstamp_core.tasks.server import Server, find

IMAGE_STAMP = re.compile(r".+(?<!\.mk)(?<!\.wt)(?<!\.exp)(?<!\.num)\.fits")
"""The names of image stamps, as against masks, variances and maps."""


@dataclass(frozen=True)
class Waiting:
    """Something that does not move, and what it waits for."""

    what: str
    why: str
    since: datetime
    next_try: datetime | None = None


def counts(server: Server) -> list[tuple[str, str, int, int]]:
    """Return (machine, state, fault, number of rows), in the order of the machines' states."""
    found = []
    with server.store.reading():
        for table, machine in MACHINES.items():
            order = {state: place for place, state in enumerate(machine.states)}
            rows: Any = table.select(table.state, table.fault, fn.COUNT(table.key())).group_by(table.state, table.fault)
            found += [
                (machine.name, row[0].value, row[1], row[2])
                for row in sorted(rows.tuples(), key=lambda row: (order[row[0]], row[1]))
            ]
    return found


def waiting(server: Server) -> list[Waiting]:
    """Return everything that is not finished and can't move now, with what it waits for."""
    with server.store.reading():
        now = server.store.now()
        return [*_waiting_requests(now), *_waiting_jobs(now), *_waiting_dependents()]


def _trouble(row: Worked, now: int) -> tuple[str, datetime | None] | None:
    """Return why a row of itself does not move: somebody works on it, or it failed."""
    if row.lease_owner:
        return f"{row.lease_owner} works on it until {moment(row.lease_until):%H:%M:%S}", None
    if row.fault:
        text = f"fault {row.fault} after {row.fault_count} tries: {fault_sentence(row.fault)}"
        return text, moment(row.retry_at) if row.retry_at > now else None
    return None


def _waiting_requests(now: int) -> Iterator[Waiting]:
    unfinished = pstampRequest.state.in_([
        RequestState.NEW, RequestState.PARSED, RequestState.RUN, RequestState.CANCEL, RequestState.GOTO_CLEANED,
    ])  # fmt: skip
    for request in pstampRequest.select().where(unfinished).order_by(pstampRequest.req_id):
        name = f"request {request.req_id} ({request.name or 'no name yet'})"
        if trouble := _trouble(request, now):
            yield Waiting(name, _last_note(request) or trouble[0], moment(request.changed_at), trouble[1])
        elif request.state is RequestState.PARSED:
            yield Waiting(
                name, f"a preview: accept it with: pstamp accept {request.req_id}", moment(request.changed_at)
            )


def _waiting_jobs(now: int) -> Iterator[Waiting]:
    jobs = pstampJob.select().where(
        (pstampJob.state == JobState.RUN) & ((pstampJob.fault != 0) | (pstampJob.lease_owner != ""))
    )
    for job in jobs.order_by(pstampJob.job_id):
        trouble = _trouble(job, now)
        if trouble:
            why = f"{trouble[0]} ({job.sentence})" if job.fault and job.sentence else trouble[0]
            yield Waiting(f"job {job.job_id} of request {job.request_id}", why, moment(job.changed_at), trouble[1])


def _waiting_dependents() -> Iterator[Waiting]:
    open_states = [DependentState.NEW, DependentState.HOLD]
    for dependent in pstampDependent.select().where(pstampDependent.state.in_(open_states)):
        jobs = pstampJob.select(pstampJob.req_id).where(
            (pstampJob.dep_id == dependent.dep_id) & pstampJob.state.in_([JobState.RUN, JobState.PARSED])
        )
        requests = sorted({job.request_id for job in jobs})
        if not requests:
            continue
        numbers = ", ".join(map(str, requests[:5])) + (", ..." if len(requests) > 5 else "")
        what = f"{jobs.count()} job(s) of request {numbers}"
        held = " (held by an operator)" if dependent.state is DependentState.HOLD else ""
        where = f"dependent {dependent.dep_id}: {dependent.stage} {dependent.stage_id} {dependent.component}"
        yield Waiting(what, f"{where}{held}: {dependent.reason}", moment(dependent.changed_at))


def _last_note(row: Worked) -> str:
    last = (
        pstampHistory.select(pstampHistory.note)
        .where((pstampHistory.machine == MACHINES[type(row)].name) & (pstampHistory.row_id == row.id_))
        .order_by(pstampHistory.hist_id.desc())
        .first()
    )
    return str(last.note) if last else ""


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
        history = (
            pstampHistory.select()
            .where((pstampHistory.machine == machine) & (pstampHistory.row_id == number))
            .order_by(pstampHistory.hist_id)
        )
        lines = [
            Line(moment(each.at), each.event, each.source, each.dest, each.fault, each.attempt, each.who, each.note)
            for each in history
        ]
    columns: dict[str, Any] = {**row.__data__, "state": row.state.value}
    for name in ("lease_until", "retry_at", "changed_at"):
        columns[name] = moment(columns[name]) if columns[name] else None
    for name in {"params", "result"} & set(columns):
        columns[name] = json.loads(columns[name]) if columns[name] else None
    return columns, lines


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
        raise UserError(f"request {req_id} is {columns['state']}: no results yet; see: pstamp show request {req_id}")
    return folder


def results(server: Server, req_id: int) -> list[dict[str, Any]]:
    """Return the rows of a request's published results table."""
    return list(read_results(fileset(server, req_id) / "results.fits").rows)


def draw_sheet(server: Server, req_id: int, out: Path) -> int:
    """Draw the image stamps of a request's results on one page (PNG) with their labels; return how many.

    Raises
    ------
    UserError
        There are no results, or no image among them.
    """
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
