"""Lost leases, second tries, and giving up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pstamp_core.faults import RETRYABLE, Fault, fault_sentence
from pstamp_core.machines import Event, JobState
from pstamp_core.machines.job import OPEN
from pstamp_core.machines.machine import Args
from pstamp_core.store import (
    MACHINES,
    Worked,
    delete_jobs,
    fire,
    make_jobs,
    pstampDependent,
    pstampJob,
    pstampRequest,
)
from pstamp_core.tasks.dependents import stop_waiting_jobs
from pstamp_core.tasks.server import Server, find
from pstamp_core.tasks.tool.filters import Compare, Filter

FAULTS = list(RETRYABLE)


def reap(server: Server) -> int:
    """Turn every lapsed lease into the outcome "lost"; return how many.

    Races tolerated: the owner's heartbeat in the same moment makes the reaper read again.
    """

    def lapsed(table: type[Worked], now: int) -> list[Worked]:
        # By what a leased row is (and an index begins with), since no more than these few are to be looked at.
        leased = table.state.in_(MACHINES[table].sources(Event.LOST)) & (table.fault == 0) & (table.lease_owner > "")
        return list(table.select().where(leased & (table.lease_until < now)))

    def work() -> int:
        args = server.args(who="reaper")
        return sum(len(fire(lapsed(table, args.now), Event.LOST, args, note="the lease ran out")) for table in MACHINES)

    return server.store.work(work)


def revert(server: Server) -> int:
    """Clear the retryable faults whose back-off is over and whose number is below the ceiling; return how many.

    A request that has not finished parsing stays `new`: it stored nothing, so nothing is left to delete.
    """

    def work() -> int:
        args = server.args(who="revert")
        due = [list(_faulted(table, Event.REVERT, args, over=False)) for table in MACHINES]
        return sum(len(fire(rows, Event.REVERT, args, note="time for the next try")) for rows in due)

    return server.store.work(work)


def revert_one(server: Server, machine: str, number: int, who: str) -> None:
    """Let an operator clear the retryable fault of one row, however often it has failed.

    Raises
    ------
    UserError
        There is no such row.
    IllegalTransition
        There is nothing to revert; the message says what is possible.
    """
    server.store.work(lambda: revert_rows(server, [find(machine, number)], who, "by hand"))


def revert_rows(server: Server, rows: Sequence[Worked], who: str, note: str) -> None:
    """Let an operator clear the retryable faults of `rows`, which are of one table; part of a unit of work."""
    fire(rows, Event.REVERT, server.args(who=who, operator=True), note=note)


def give_up(server: Server, *, ceiling: int | None = None, labels: Sequence[str] = ()) -> int:
    """End what has used up its tries with code 25 and the last fault as the cause; return how many rows.

    With `ceiling` so many tries are enough, instead of those of the settings (`pstampstopfaulted -fault_count`); with
    `labels` only the work of requests under such labels is ended, patterns as of `pstamptool`.

    A request that can't be parsed gets one stopped job, so that the user has an answer; one whose results can't be
    published stays faulted for an operator, since there is no way to give the answer. A dependent is closed with its
    jobs.
    """

    def work() -> int:
        args = server.args(who="give up", fault=Fault.PSTAMP_NOT_AVAILABLE)
        args = replace(args, ceiling=ceiling or args.ceiling)
        count = 0
        for table in (pstampDependent, pstampJob, pstampRequest):
            rows = list(_faulted(table, Event.GIVE_UP, args, over=True).where(*_under(table, labels)))
            _end(server, rows, args, _why)
            count += len(rows)
        return count

    return server.store.work(work)


def _under(table: type[Worked], labels: Sequence[str]) -> list[Any]:
    """Return the condition for rows of requests under `labels`, if there are any; a dependent is of all that wait."""
    if not labels:
        return []
    label = Filter("label", pstampRequest.label, Compare.LIKE).condition(list(labels))
    requests = pstampRequest.select(pstampRequest.req_id).where(label)
    jobs = pstampJob.req_id.in_(requests)
    waiting = pstampJob.select(pstampJob.dep_id).where(jobs & pstampJob.state.in_(OPEN))
    return [{pstampRequest: label, pstampJob: jobs, pstampDependent: pstampDependent.dep_id.in_(waiting)}[table]]


def give_up_one(server: Server, machine: str, number: int, who: str, note: str = "") -> None:
    """Let an operator end one row with code 25, as `give_up` does with those that have used up their tries.

    Raises
    ------
    UserError
        There is no such row.
    IllegalTransition
        It has ended, somebody works on it, or it is a request that is not faulted in parsing (such are cancelled).
    """
    server.store.work(lambda: give_up_rows(server, [find(machine, number)], who, note))


def give_up_rows(server: Server, rows: Sequence[Worked], who: str, note: str) -> None:
    """Let an operator end `rows`, which are of one table, with code 25; part of a unit of work."""
    given_up = f"given up by {who}" + (f": {note}" if note else "")
    args = server.args(who=who, fault=Fault.PSTAMP_NOT_AVAILABLE)
    _end(server, rows, args, lambda row: f"{given_up}; {_why(row)}" if row.fault else given_up)


def _end(server: Server, rows: Sequence[Worked], args: Args, why: Callable[[Worked], str]) -> None:
    """Give rows up with all that follows from it."""
    jobs: dict[tuple[str, str], list[pstampJob]] = {}
    for row in rows:
        if isinstance(row, pstampDependent):
            reason = f"{row.stage} {row.component} could not be made again: {why(row)}"
            stop_waiting_jobs(fire([row], Event.GIVE_UP, args, note=reason, reason=reason), args)
        elif isinstance(row, pstampJob):
            jobs.setdefault((why(row), row.sentence), []).append(row)
        elif isinstance(row, pstampRequest):
            answer_unparsed(server, row, Event.GIVE_UP, args, why(row), f"the request could not be parsed: {why(row)}")
    for (note, sentence), alike in jobs.items():
        fire(alike, Event.GIVE_UP, args, note=note, sentence=f"{note} ({sentence})" if sentence else note)


def answer_unparsed(server: Server, request: pstampRequest, event: Event, args: Args, note: str, sentence: str) -> None:
    """Let a request that was not parsed go on to be finished with one stopped job alone; part of a unit of work.

    Parameters
    ----------
    server : Server
        The server.
    request : pstampRequest
        A request in state ``new``.
    event : Event
        What takes it out of that state.
    args : Args
        What comes with the event; its code is the user's answer.
    note, sentence : str
        Why, for the history and for the user.
    """
    columns: dict[str, Any] = {"outProduct": request.outProduct or server.settings.product}
    if not request.name:
        columns["name"] = f"ERROR.{request.req_id}"
    if not request.outdir:
        columns |= {"outdir": str(server.work_directory(request)), "reqType": "unknown"}
    delete_jobs(request)
    fire([request], event, args, note=note, **columns)
    job = {
        "rownum": "0", "jobType": "none", "state": JobState.STOP, "fault": args.fault, "cause": request.cause,
        "sentence": sentence, "params": json.dumps({}),
    }  # fmt: skip
    make_jobs(request, [job], now=args.now, who=args.who)


def _why(row: Worked) -> str:
    return f"{row.fault_count} tries failed, the last with {row.fault}: {fault_sentence(row.fault)}"


def _faulted(table: type[Worked], event: Event, args: Args, *, over: bool) -> Any:
    """Return the faulted rows that `event` can be fired on, with tries left or not (`over`)."""
    ceiling = args.ceiling or 0
    used_up = table.fault_count >= ceiling if over else (table.fault_count < ceiling) & (table.retry_at <= args.now)
    able = table.state.in_(MACHINES[table].sources(event))
    return table.select().where(able & table.fault.in_(FAULTS) & (table.lease_owner == "") & used_up)
