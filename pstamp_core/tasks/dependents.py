"""Looking at the components that jobs wait for (`pstamp_checkdependent.pl`)."""

from __future__ import annotations

from pstamp_core.faults import Fault, RetryableError
from pstamp_core.machines import Args, Event
from pstamp_core.store import dependents_to_check, fire, pstampDependent, pstampProject, waiting_jobs
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
