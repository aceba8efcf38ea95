"""`pstamptool -addjob -updatejob -revertjob`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pstamp_core.faults import Fault, IllegalTransition, PstampError, is_final
from pstamp_core.machines import JOB, Args, DependentState, Event, JobState, RequestState
from pstamp_core.machines.machine import FaultClass
from pstamp_core.store import fire, locked_dependents, make, pstampDependent, pstampJob, pstampRequest
from pstamp_core.tasks.dependents import stop_waiting_jobs
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.tool.filters import Compare, Filter, conditions, state_of, values_of
from pstamp_core.tasks.tool.steps import (
    claimed,
    freed,
    goal,
    is_so,
    must_lead_to,
    numbered,
    refusal,
    reread,
    revert,
    select,
    selected,
    title,
    who,
)

_FILTERS = (
    Filter("job_id", pstampJob.job_id),
    Filter("req_id", pstampJob.req_id),
    Filter("fault", pstampJob.fault),
    Filter("label", pstampRequest.label, Compare.LIKE),
)
_FILTERS_OF_UPDATE = (
    Filter("dep_id", pstampJob.dep_id),
    Filter("state", pstampJob.state),
    Filter("fault_count", pstampJob.fault_count, Compare.AT_LEAST),
)
_FILTERS_OF_REVERT = (Filter("req_id_min", pstampJob.req_id, Compare.AT_LEAST),)

_LAST_ROW = 2**31 - 1
"""What ROWNUM of the results table holds."""

_TYPES = ("stamp", "get_image", "detect_query", "none", "mosaic", "child")


def addjob(
    server: Server,
    *,
    req_id: int,
    rownum: str,
    job_type: str = "stamp",
    outputBase: str = "",  # noqa: N803 (IPP's name)
    state: str = "run",
    fault: int = 0,
    exp_id: int = 0,
    options: int = 0,
    dep_id: int = 0,
    parent_id: int = 0,
    is_parent: bool = False,
) -> int:
    """Add a job to a request that is being parsed or runs; return its number.

    A job that is to run, of a preview that waits for its user, becomes ``parsed``: it runs when the request does.

    Raises
    ------
    PstampError
        Fault 1: a number names no row, -outputBase is missing, or -rownum or -job_type make no sense. Fault 3: no such
        state, or a text is too long.
    IllegalTransition
        A job can't begin with this state and fault, its request takes no such job, or its dependent was given up.
    """
    first = state_of("state", pstampJob.state, state)
    if JOB.initial.get(first) is not FaultClass.of(fault):
        legal = " or ".join(f"{each.value} with fault {faults.value}" for each, faults in JOB.initial.items())
        raise IllegalTransition(f"-addjob: a job begins as {legal}, not as {first.value} with fault {fault}")
    if not outputBase and first is not JobState.STOP:
        raise PstampError("-addjob: -outputBase is missing; only a job added with -state stop needs none")
    texts = {"rownum": _row_number(rownum), "outputBase": outputBase}
    values = {
        **values_of(texts, {"rownum": pstampJob.rownum, "outputBase": pstampJob.outputBase}),
        "jobType": job_type, "is_parent": _has_children(job_type, is_parent, dep_id), "fault": fault, "exp_id": exp_id,
        "options": options, "dep_id": dep_id, "parent_id": parent_id,
    }  # fmt: skip

    def work() -> int:
        args = server.args(who=who(server))
        # Locked, so that nobody finishes it in the same moment.
        pstampRequest.update(ds_id=pstampRequest.ds_id).where(pstampRequest.req_id == req_id).execute()
        (request,) = freed([numbered(pstampRequest, req_id)], args, "-addjob")
        if dep_id:
            _must_be_open(dep_id)
        columns = {**values, "req_id": req_id, "state": _state_in(request, first)}
        return make(pstampJob, now=args.now, who=args.who, note="-addjob", **columns).id_

    return server.store.work(work)


def updatejob(server: Server, **options: Any) -> None:
    """Change the state or the fault of jobs by the events that lead there; a fault of 10 or more stops them.

    Options to select by: job_id, req_id, dep_id, fault_count, state, fault, label. To change: set_state, set_fault;
    limit is ignored. Jobs not selected by their own number are changed in state ``run`` only, unless -state is given;
    with -fault_count only faulted ones are, since others may have been reverted and be running.

    Raises
    ------
    PstampError
        Fault 1: too little to select by, or nothing to change.
    IllegalTransition
        There is no legal way for one of the jobs.
    """
    if not any(options.get(name) for name in ("job_id", "req_id", "dep_id", "fault_count")):
        raise PstampError("-updatejob: at least one of -job_id, -req_id, -dep_id, -fault_count is required, and not 0")
    state, fault = goal(options, pstampJob)
    if state is None and fault is None:
        raise PstampError("-updatejob: nothing to change; at least one of -set_state, -set_fault is required")
    where = conditions(options, [*_FILTERS, *_FILTERS_OF_UPDATE])
    if "job_id" not in options and "state" not in options:
        where.append(pstampJob.state == JobState.RUN)
    if "fault_count" in options and "fault" not in options:
        where.append(pstampJob.fault > 0)
    server.store.work(
        lambda: _change(select(pstampJob, where), state, fault, server.args(who=who(server), operator=True))
    )


def revertjob(server: Server, **options: Any) -> None:
    """Let jobs of running requests that failed with 1-9 run again, as `revert` says.

    Options: req_id, req_id_min, job_id, fault, label, all, clear_fault_count; limit is ignored.

    Raises
    ------
    PstampError
        Fault 3: nothing to select by, and no -all.
    IllegalTransition
        -fault names a final code, and there are such jobs.
    """
    filters = [*_FILTERS, *_FILTERS_OF_REVERT]
    where = conditions(options, filters) if options.get("all") else selected(options, filters, "revertjob")
    revert(server, pstampJob, [*where, pstampRequest.state == RequestState.RUN], options, "revertjob")


def _row_number(rownum: str) -> str:
    if not re.fullmatch("[0-9]{1,10}", rownum) or int(rownum) > _LAST_ROW:
        raise PstampError(f"-addjob: -rownum {rownum}: expected the number of a row, or 0 for the whole request")
    return rownum


def _has_children(job_type: str, is_parent: bool, dep_id: int) -> bool:
    if job_type not in _TYPES:
        raise PstampError(f"-addjob: -job_type {job_type}: expected one of {', '.join(_TYPES)}")
    if job_type == "child" and (is_parent or not dep_id):
        raise PstampError("-addjob: -job_type child: needs a -dep_id, and can't be a parent")
    return is_parent or job_type == "mosaic"


def _state_in(request: pstampRequest, state: Any) -> Any:
    """Return the state in which `request` takes a job."""
    if request.state is RequestState.PARSED and state is JobState.RUN:
        return JobState.PARSED
    takes = {
        RequestState.NEW: (JobState.RUN, JobState.PARSED, JobState.STOP),
        RequestState.PARSED: (JobState.PARSED, JobState.STOP),
        RequestState.RUN: (JobState.RUN, JobState.STOP),
    }
    if state not in takes.get(request.state, ()):
        raise refusal(request, f"a job in state {state.value}", f"it takes none in state {request.state.value}")
    return state


def _must_be_open(dep_id: int) -> None:
    """Raise unless a job may wait for this dependent; nobody closes it before this unit of work ends."""
    locked_dependents(pstampDependent.dep_id == dep_id)
    dependent = numbered(pstampDependent, dep_id)
    if dependent.state is DependentState.STOP:
        why = f"it was given up with fault {dependent.fault}; -getdependent makes a new one"
        raise refusal(dependent, "a job that waits for it", why)


def _change(jobs: Sequence[pstampJob], state: Any, fault: int | None, args: Args) -> None:
    """Bring `jobs` to a state and a fault; None leaves it as it is. Part of a unit of work.

    What an earlier try had to say is forgotten, since it does not explain the new outcome.
    """
    note = "-updatejob"
    if fault is not None and is_final(fault):
        state = state or JobState.STOP
    jobs = [job for job in jobs if not is_so(job, state, fault)]
    must_lead_to([job for job in jobs if state not in (None, job.state)], state)
    if state is JobState.CANCEL:
        if fault not in (None, Fault.PSTAMP_CANCELLED):
            raise IllegalTransition(f"-set_state cancel -set_fault {fault}: a cancelled job has fault 32")
        fire(jobs, Event.CANCEL, args, note=note)
    elif state is JobState.STOP and fault:
        fire(freed(jobs, args, note), Event.GIVE_UP, replace(args, fault=fault), note=note, sentence="")
    elif state is JobState.STOP:
        fire(claimed(jobs, args, note), Event.FINISH, args, note=note, sentence="")
    else:
        jobs = _accepted(jobs, args, note) if state is JobState.RUN else jobs
        if fault:
            fire(claimed(jobs, args, note), Event.FAULT, replace(args, fault=fault), note=note, sentence="")
        elif fault == 0:
            fire([job for job in jobs if job.fault], Event.REVERT, args, note=note)


def _accepted(jobs: Sequence[pstampJob], args: Args, note: str) -> list[pstampJob]:
    """Let those of `jobs` run that are ``parsed``, of requests that run already; return all as they are then."""
    parsed = [job for job in jobs if job.state is JobState.PARSED]
    for number in {job.request_id for job in parsed}:
        request = numbered(pstampRequest, number)
        if request.state is not RequestState.RUN:
            raise IllegalTransition(
                f"{title(request)} is {request.state.value}, so that no job of it can run alone; the request with all "
                f"its jobs: -updatereq -req_id {number} -set_state run"
            )
    fire([job for job in jobs if job.state is not JobState.RUN], Event.ACCEPT, args, note=note)
    dependents = locked_dependents(pstampDependent.dep_id.in_([job.dep_id for job in parsed]))
    fire([each for each in dependents if each.state is DependentState.HOLD], Event.UNHOLD, args, note=note)
    for closed in dependents:
        if closed.state is DependentState.STOP:
            stop_waiting_jobs([closed], args)
    return reread(jobs)
