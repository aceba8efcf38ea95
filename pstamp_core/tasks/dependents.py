"""Looking at the components that jobs wait for (`pstamp_checkdependent.pl`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pstamp_core.faults import Fault, RetryableError
from pstamp_core.machines import Args, DependentState, Event
from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.store import dependents_to_check, fire, moment, pstampDependent, pstampProject, waiting_jobs
from pstamp_core.tasks import logs
from pstamp_core.tasks.server import Server, verdict_on


def check_dependents(server: Server, limit: int) -> int:
    """Claim and look at up to `limit` dependents; return how many changed.

    A component that is there makes its dependent `full` and its jobs eligible; one that is gone stops both with its
    code; any other is looked at again after a while, with the reason kept for whoever asks.
    """
    dependents = server.claim(dependents_to_check, limit)
    changed = 0
    for dependent in dependents:
        with server.attempt(dependent):
            changed += check_dependent(server, dependent)
    return changed


def check_dependent(server: Server, dependent: pstampDependent) -> bool:
    """Look at the component of the claimed `dependent`; return whether it can be waited for no longer.

    Raises
    ------
    LeaseLost
        Somebody else took the dependent over.
    RetryableError
        The image database does not answer, or does not know the component (only a positive finding is final).
    """
    with server.store.reading():
        project = pstampProject.get_or_none(pstampProject.dbname == dependent.imagedb)
    imageroot = project.imageroot if project else ""
    image = server.imagedb_at(dependent.imagedb, imageroot).component(
        dependent.stage, dependent.stage_id, dependent.component
    )
    name = f"{dependent.stage} {dependent.stage_id} {dependent.component}"
    if image is None:
        raise RetryableError(f"{name}: not in image database {dependent.imagedb}", Fault.PS_EXIT_PROG_ERROR)
    verdict = verdict_on(project, image)
    if verdict.fault:
        args = server.args(fault=verdict.fault)
        server.store.work(lambda: close(dependent, args, verdict.reason))
        logs.end(server, dependent, f"stop, {verdict.fault}: {verdict.reason}", args.now)
    elif verdict.waits:
        args = server.args()
        server.store.work(lambda: fire([dependent], Event.RELEASE, args, note=verdict.reason, reason=verdict.reason))
        if dependent.attempt == 1 or verdict.reason != dependent.reason:  # a look every few seconds would fill the log
            logs.end(server, dependent, f"waits: {verdict.reason}", args.now)
        return False
    else:
        args = server.args()
        server.store.work(lambda: fire([dependent], Event.SATISFY, args, reason=""))
        logs.end(server, dependent, "full: the image is there", args.now)
    return True


def close(dependent: pstampDependent, args: Args, reason: str) -> None:
    """Close a claimed dependent whose component is gone, and stop its jobs with the same code; part of a unit of work.

    `args` has the code.
    """
    fire([dependent], Event.FAULT, args, note=reason, reason=reason)
    stop_waiting_jobs([dependent], args, reason)


def stop_waiting_jobs(dependents: list[pstampDependent], args: Args, reason: str) -> None:
    """Stop the open jobs of closed `dependents` with the code of `args`; part of the unit of work that closes them."""
    fire(waiting_jobs(dependents), Event.GIVE_UP, args, note=reason, sentence=reason)


def component_key(values: Mapping[str, Any]) -> str:
    """Return what names a component: the `open_key` of a dependent that waits for it."""
    return "|".join(str(values[name]) for name in ("imagedb", "stage", "stage_id", "component"))


def given_up_lately(server: Server, now: int) -> dict[str, pstampDependent]:
    """Return the dependents that were given up so short a while ago that their components are left alone, by component.

    One that was found gone (26) was no failure of ours; that it is needed again means that its pixels may be had now.
    """
    since = now - int(server.settings.cooldown_seconds * MICROSECONDS)
    given_up = (pstampDependent.state == DependentState.STOP) & (pstampDependent.fault != Fault.PSTAMP_GONE)
    rows = pstampDependent.select().where(given_up & (pstampDependent.changed_at > since))
    return {component_key(row.__data__): row for row in rows.order_by(pstampDependent.dep_id)}


def cool_down(
    server: Server, need: Mapping[str, Any], now: int, lately: Mapping[str, pstampDependent] | None = None
) -> dict[str, Any]:
    """Return the columns by which the new dependent of a component waits, if the last one was given up lately.

    Parameters
    ----------
    server : Server
        The server.
    need : mapping
        The columns of the new one: its component, and the reason why it is needed.
    now : int
        Microseconds since 1970 UTC.
    lately : mapping, optional
        What `given_up_lately` returned, for who has many.
    """
    last = (given_up_lately(server, now) if lately is None else lately).get(component_key(need))
    if last is None:
        return {}
    same = (getattr(pstampDependent, name) == need[name] for name in ("stage_id", "component", "stage", "imagedb"))
    if pstampDependent.select().where(pstampDependent.dep_id > last.dep_id, *same).exists():
        return {}  # it was there since, or gone
    until = last.changed_at + int(server.settings.cooldown_seconds * MICROSECONDS)
    reason = (
        f"{need['reason']}; dependent {last.dep_id} for it was given up at {moment(last.changed_at):%H:%M:%S} UTC, so "
        f"that it is tried again after {moment(until):%Y-%m-%d %H:%M:%S} UTC"
    )
    return {"retry_at": until, "reason": reason}
