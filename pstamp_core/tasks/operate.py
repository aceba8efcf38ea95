"""What people do to one request, job or dependent: each is one unit of work, with who and why in the history.

Trying again by hand and giving up by hand are in `pstamp_core.tasks.retry`.
"""

from __future__ import annotations

from dataclasses import replace

from pstamp_core.faults import Fault, UserError
from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.machines.job import OPEN
from pstamp_core.store import fire, locked_dependents, pstampDependent, pstampJob, pstampRequest
from pstamp_core.tasks.dependents import stop_waiting_jobs
from pstamp_core.tasks.retry import answer_unparsed
from pstamp_core.tasks.server import Server, find


def accept(server: Server, number: int, who: str, note: str = "") -> None:
    """Let the jobs of a preview run.

    Components that were held back for it are worked on from now on, as if it had been no preview. Jobs whose component
    was given up meanwhile stop with its code.

    Raises
    ------
    UserError
        There is no such request.
    IllegalTransition
        It is no preview that waits; the message says what is possible.
    """

    def work() -> None:
        args = server.args(who=who)
        fire([find("request", number)], Event.ACCEPT, args, note=note)
        mine = pstampJob.req_id == number
        fire(list(pstampJob.select().where(mine & (pstampJob.state == JobState.PARSED))), Event.ACCEPT, args, note=note)
        needed = pstampJob.select(pstampJob.dep_id).where(mine & (pstampJob.state == JobState.RUN))
        dependents = locked_dependents(pstampDependent.dep_id.in_(needed))
        held = [each for each in dependents if each.state is DependentState.HOLD]
        fire(held, Event.UNHOLD, args, note=f"request {number} needs it")
        for closed in dependents:
            if closed.state is DependentState.STOP:
                stop_waiting_jobs([closed], replace(args, fault=closed.fault), closed.reason)

    server.store.work(work)


def cancel(server: Server, machine: str, number: int, who: str, note: str = "") -> None:
    """Cancel a request with its open jobs, or one job; what a worker still makes of them is refused.

    The request is finished as any other, so that the user gets what was done before, and code 32 for the rest; one that
    was not parsed yet gets one job that says so.

    Raises
    ------
    UserError
        There is no such request or job, or it is neither.
    IllegalTransition
        It has ended already; the message says what is possible.
    """

    def work() -> None:
        args = server.args(who=who, fault=Fault.PSTAMP_CANCELLED)
        row = find(machine, number)
        if isinstance(row, pstampJob):
            fire([row], Event.CANCEL, args, note=note, sentence=note)
        elif not isinstance(row, pstampRequest):
            raise UserError(f"{machine} {number}: only requests and jobs are cancelled; a dependent is given up")
        elif row.state is RequestState.NEW:
            answer_unparsed(server, row, Event.CANCEL, args, note, note)
        else:
            fire([row], Event.CANCEL, args, note=note)
            jobs = pstampJob.select().where((pstampJob.req_id == number) & pstampJob.state.in_(OPEN))
            fire(list(jobs), Event.CANCEL, args, note=note, sentence=note)

    server.store.work(work)


def hold(server: Server, number: int, who: str, note: str = "") -> None:
    """Keep a dependent from being looked at; its jobs wait.

    Raises
    ------
    UserError
        There is no such dependent.
    IllegalTransition
        It is closed or on hold already, or is being looked at just now.
    """
    _fire_one(server, "dependent", number, Event.HOLD, who, note)


def release(server: Server, number: int, who: str, note: str = "") -> None:
    """Let a dependent that is on hold be looked at again.

    Raises
    ------
    UserError
        There is no such dependent.
    IllegalTransition
        It is not on hold.
    """
    _fire_one(server, "dependent", number, Event.UNHOLD, who, note)


def expire(server: Server, number: int, who: str, note: str = "") -> None:
    """Let a finished request be deleted from disk, whatever its age.

    Raises
    ------
    UserError
        There is no such request.
    IllegalTransition
        It is not finished, or is cleaned already; one that runs is cancelled first.
    """
    _fire_one(server, "request", number, Event.EXPIRE, who, note)


def _fire_one(server: Server, machine: str, number: int, event: Event, who: str, note: str) -> None:
    server.store.work(lambda: fire([find(machine, number)], event, server.args(who=who), note=note))
