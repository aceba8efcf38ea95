"""`pstamptool -getdependent -updatedependent -revertdependent -stopdependentjob`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from peewee import fn

from pstamp_core.faults import FIRST_FINAL, IllegalTransition, PstampError, fault_sentence, is_final
from pstamp_core.machines import Args, DependentState, Event, JobState, RequestState
from pstamp_core.store import fire, locked_dependents, pstampDependent, pstampJob, pstampRequest
from pstamp_core.tasks.dependents import component_key, find_or_make, stop_waiting_jobs
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.tool.filters import Compare, Filter, conditions, values_of
from pstamp_core.tasks.tool.steps import (
    claimed,
    freed,
    goal,
    is_so,
    must_lead_to,
    numbered,
    revert,
    select,
    selected,
    title,
    who,
)

_ITS_JOBS = (Filter("job_id", pstampJob.job_id), Filter("req_id", pstampJob.req_id))
_FILTERS = (Filter("dep_id", pstampDependent.dep_id), Filter("fault", pstampDependent.fault))
_FILTERS_OF_STOP = (
    Filter("stage_id", pstampDependent.stage_id),
    Filter("component", pstampDependent.component),
    Filter("fault_count", pstampDependent.fault_count, Compare.AT_LEAST),
)


def getdependent(
    server: Server,
    *,
    stage: str,
    stage_id: int,
    component: str,
    imagedb: str,
    outdir: str,
    rlabel: str = "",
    need_magic: bool = False,
    hold: bool = False,
    no_create: bool = False,
) -> int | None:
    """Return the number of the open dependent of a component, made if there is none; None if none is to be made.

    All who need the component share it. One on hold is let go on, unless the caller wants it held, too. That of a
    component which was given up a short while ago is looked at only after the cool-down.

    Raises
    ------
    PstampError
        Fault 3: a text is too long or empty. Any other fault is that of the dependent.
    """
    texts = {"stage": stage, "component": component, "imagedb": imagedb, "outdir": outdir, "rlabel": rlabel}
    values = values_of(texts, {name: pstampDependent._meta.fields[name] for name in texts})
    need = {**values, "stage_id": stage_id, "need_magic": need_magic, "reason": "asked for with -getdependent"}

    def work() -> int | None:
        if no_create and not locked_dependents(pstampDependent.open_key == component_key(need)):
            return None
        state = DependentState.HOLD if hold else DependentState.NEW
        dependent = find_or_make(server, need, state, server.args(who=who(server)), "-getdependent")
        if dependent.fault:
            why = dependent.reason or fault_sentence(dependent.fault)
            raise PstampError(f"{title(dependent)} has fault {dependent.fault}: {why}", dependent.fault)
        return dependent.id_

    return server.store.work(work)


def updatedependent(server: Server, *, dep_id: int, **options: Any) -> None:
    """Change the state or the fault of one dependent by the events that lead there.

    A fault of 10 or more gives it up, and stops the jobs that wait for it with the same code.

    Raises
    ------
    PstampError
        Fault 1: nothing is to change, or there is no such dependent.
    IllegalTransition
        There is no legal way.
    """
    state, fault = goal(options, pstampDependent)
    if state is None and fault is None:
        raise PstampError("-updatedependent: nothing to change; at least one of -set_state, -set_fault is required")

    def work() -> None:
        dependent = numbered(pstampDependent, dep_id)
        if fault is not None and is_final(fault):
            _give_up([dependent], replace(server.args(who=who(server)), fault=fault), "-updatedependent")
        else:
            _change(dependent, state, fault, server.args(who=who(server), operator=True))

    server.store.work(work)


def revertdependent(server: Server, **options: Any) -> None:
    """Let dependents that failed with 1-9, and that a running job waits for, be checked again, as `revert` says.

    Options: dep_id, job_id, req_id, fault, label (exact), clear_fault_count; limit is ignored.

    Raises
    ------
    PstampError
        Fault 3: nothing to select by.
    IllegalTransition
        -fault names a final code, and there are such dependents.
    """
    label = Filter("label", pstampRequest.label)
    selected(options, [*_FILTERS, *_ITS_JOBS, label], "revertdependent")
    its_jobs = conditions(options, [*_ITS_JOBS, label])
    if not is_final(options.get("fault", 0)):
        its_jobs += [pstampJob.state == JobState.RUN, pstampRequest.state == RequestState.RUN]
    where = conditions(options, _FILTERS)
    revert(server, pstampDependent, [*where, *_waited_for_by(its_jobs)], options, "revertdependent")


def stopdependentjob(server: Server, *, set_fault: int, set_state: str | None = None, **options: Any) -> None:
    """Give dependents in state ``new`` up, and stop the jobs that wait for them, all with the same code.

    An abandoned dependent is closed, and the next need of its component makes a new one (IPP left it ``new``). All jobs
    that wait for it are stopped, also those that were not selected by.

    Options: req_id, job_id, dep_id, stage_id, component, fault, fault_count, label; set_fault, set_state (``new``, as
    IPP's default, or ``stop``); limit is ignored. With -fault_count only faulted dependents are given up.

    Raises
    ------
    PstampError
        Fault 3: nothing to select by.
    IllegalTransition
        The code is no final one, or somebody works on one of the dependents.
    """
    label = Filter("label", pstampRequest.label, Compare.LIKE)
    selected(options, [*_FILTERS, *_FILTERS_OF_STOP, *_ITS_JOBS, label], "stopdependentjob")
    _, fault = goal({"set_state": "stop", "set_fault": set_fault}, pstampDependent)
    if set_state not in (None, "new", "stop"):
        raise IllegalTransition(
            f"-stopdependentjob: -set_state {set_state} refused, a dependent that is given up is stop"
        )
    where = [*conditions(options, [*_FILTERS, *_FILTERS_OF_STOP]), pstampDependent.state == DependentState.NEW]
    if "fault_count" in options and "fault" not in options:
        where.append(pstampDependent.fault > 0)
    where += _waited_for_by([*conditions(options, [*_ITS_JOBS, label]), pstampJob.state == JobState.RUN])

    def work() -> None:
        args = server.args(who=who(server), fault=fault or 0)
        _give_up(select(pstampDependent, where), args, "-stopdependentjob")

    server.store.work(work)


def _waited_for_by(jobs: Sequence[Any]) -> list[Any]:
    """Return the condition for a dependent that a job waits for which fulfils all conditions on it and its request."""
    if not jobs:
        return []
    query = pstampJob.select().join(pstampRequest, on=(pstampJob.req_id == pstampRequest.req_id))
    return [fn.EXISTS(query.where(pstampJob.dep_id == pstampDependent.dep_id, *jobs))]


def _change(dependent: pstampDependent, state: Any, fault: int | None, args: Args) -> None:
    """Bring `dependent` to a state and a fault below 10; None leaves it as it is. Part of a unit of work."""
    note = "-updatedependent"
    if is_so(dependent, state, fault):
        return
    if state is DependentState.STOP:
        raise IllegalTransition(
            f"{title(dependent)}: -set_state stop refused, it needs -set_fault with a code of {FIRST_FINAL} or more, "
            "which the jobs that wait for it get, too"
        )
    rows = [dependent]
    if state not in (None, dependent.state):
        must_lead_to(rows, state)
    if state is DependentState.NEW and dependent.state is DependentState.HOLD:
        rows = fire(rows, Event.UNHOLD, args, note=note)
    if state is DependentState.FULL:
        fire(claimed(rows, args, note), Event.SATISFY, args, note=note, reason="")
        return
    if fault:
        failed = replace(args, fault=fault)
        rows = fire(claimed(rows, args, note), Event.FAULT, failed, note=note, reason=fault_sentence(fault))
    elif fault == 0 and dependent.fault:
        rows = fire(rows, Event.REVERT, args, note=note)
    if state is DependentState.HOLD and rows[0].state is DependentState.NEW:
        fire(freed(rows, args, note), Event.HOLD, args, note=note)


def _give_up(dependents: Sequence[pstampDependent], args: Args, note: str) -> None:
    """Close `dependents` with the code of `args`, and stop the jobs that wait for them; part of a unit of work."""
    for dependent in freed(
        [each for each in dependents if not is_so(each, DependentState.STOP, args.fault)], args, note
    ):
        reason = f"{dependent.stage} {dependent.component} could not be made again: {fault_sentence(args.fault)}"
        reason += f" The last try: {dependent.reason}" if dependent.fault else ""
        stop_waiting_jobs(fire([dependent], Event.GIVE_UP, args, note=f"{note}: {reason}", reason=reason), args)
