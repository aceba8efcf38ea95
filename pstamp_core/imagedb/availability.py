"""Whether the pixels of a component can be had: one exhaustive classification for the parser and the checker.

It unites the tables of `pstampparse.pl` (``queueUpdatesIfNeeded``) and `pstamp_checkdependent.pl`, which disagreed with
each other and let states that they did not list wait for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pstamp_core.faults import Fault

STATES = (
    "new", "reg", "full", "drop", "wait", "keep", "ignore", "update", "cleaned", "goto_cleaned", "error_cleaned",
    "purged", "goto_purged", "error_purged", "scrubbed", "goto_scrubbed", "error_scrubbed",
)  # fmt: skip
"""The words for the state of a run or a component that IPP's common validity check accepts (`pxtools.c`)."""


class Component(Enum):
    """What can be said of one component of a run."""

    USABLE = "usable"
    """All pixels are there."""

    TO_BE_QUEUED = "to be queued"
    """The pixels were deleted and can be made again; nobody has asked for that yet."""

    IN_PROGRESS = "in progress"
    """The pixels are being made again."""

    WAITING = "waiting"
    """Neither there nor on the way, for a reason that may pass or that an operator must settle."""

    GONE = "gone"
    """The pixels will not come back."""


@dataclass(frozen=True)
class Availability:
    """The verdict on one component.

    Attributes
    ----------
    component : Component
        The classification.
    fault : Fault
        The code in which a job on it stops now: 25 or 26. 0: the job runs (USABLE), or waits for a dependent.
    reason : str
        One clause for the user, without subject: ``cleaned, must be made again``.
    """

    component: Component
    fault: Fault
    reason: str

    @property
    def waits(self) -> bool:
        """Whether a job on it waits for a dependent."""
        return self.component is not Component.USABLE and not self.fault


_HELD = {
    "new": "its first processing is not done",
    "reg": "its run is still being defined",
    "wait": "an operator holds its run (wait)",
    "keep": "an operator holds its run (keep)",
    "ignore": "an operator holds its run (ignore)",
}


def availability(
    stage: str,
    stage_id: int,
    run_state: str,
    data_state: str,
    fault: int = 0,
    quality: int = 0,
    *,
    wait: bool = True,
    oldest_diff: int = 0,
) -> Availability:
    """Classify a component and say what a job on it does.

    Parameters
    ----------
    stage : str
        ``raw``, ``chip``, ``warp``, ``diff`` or ``stack``. A raw image counts as there; a stack is never made again.
    stage_id : int
        Number of its run.
    run_state, data_state : str
        State of the run and of the component; a stack has one state for both.
    fault, quality : int
        Of the component. Fault 26 means deleted for good. Any other fault belongs to an attempt to make the
        component and decides nothing here. A component of bad quality (not 0) is never made again.
    wait : bool
        Whether the request lets the job wait (OPTION_MASK bit 32768 clear).
    oldest_diff : int
        Differences with a smaller number are too old to be made again (22779 for gpc1).

    Notes
    -----
    The order of the tests is that of `pstampparse.pl`, with four changes. A component that is itself purged,
    scrubbed, dropped or ``error_cleaned`` is gone, not only one of such a run. A run that says ``full`` over a
    component that is not, and an unknown word, fault this job with 25 instead of ending the parse of the whole
    request. Operators' holds wait with a reason. What is gone is answered with 26 also when the request does not wait.
    """
    if stage == "raw":
        return Availability(Component.USABLE, Fault.PSTAMP_SUCCESS, "raw images are kept")
    gone = _why_gone(stage, stage_id, run_state, data_state, fault)
    if gone:
        return Availability(Component.GONE, Fault.PSTAMP_GONE, gone)
    if data_state == "full" and run_state != "goto_cleaned":
        return Availability(Component.USABLE, Fault.PSTAMP_SUCCESS, "all pixels are there")
    for state in (run_state, data_state):
        if state not in STATES:
            reason = f"in a state that this server does not know ({state!r}); an operator must look"
            return Availability(Component.WAITING, Fault.PSTAMP_NOT_AVAILABLE, reason)
    if stage == "stack":
        return Availability(Component.GONE, Fault.PSTAMP_GONE, f"state {run_state}; stacks are not made again")
    verdict = _absent(stage, stage_id, run_state, data_state, fault, quality, oldest_diff)
    if not wait and not verdict.fault:
        reason = f"{verdict.reason}; the request does not wait (OPTION_MASK bit 32768)"
        return Availability(verdict.component, Fault.PSTAMP_NOT_AVAILABLE, reason)
    return verdict


def _why_gone(stage: str, stage_id: int, run_state: str, data_state: str, fault: int) -> str:
    if fault == Fault.PSTAMP_GONE:
        return "deleted for good (fault 26)"
    for whose, state in ((f"{stage} run {stage_id} is", run_state), ("the component is", data_state)):
        if "purged" in state or "scrubbed" in state or state == "drop":
            return f"deleted for good: {whose} {state}"
        if state == "error_cleaned":
            return f"lost when it was cleaned: {whose} {state}"
    return ""


def _absent(
    stage: str, stage_id: int, run_state: str, data_state: str, fault: int, quality: int, oldest_diff: int
) -> Availability:
    """Classify a component of a chip, warp or diff run that is not full, or is about to be cleaned."""
    if quality:
        reason = f"of bad quality ({quality}); such images are not made again"
        return Availability(Component.GONE, Fault.PSTAMP_GONE, reason)
    if run_state == "full" and stage != "chip":
        reason = f"{data_state} although {stage} run {stage_id} says full; an operator must look"
        return Availability(Component.WAITING, Fault.PSTAMP_NOT_AVAILABLE, reason)
    if stage == "diff" and stage_id < oldest_diff:
        reason = f"{data_state}, and difference {stage_id} is too old to be made again (before {oldest_diff})"
        return Availability(Component.GONE, Fault.PSTAMP_GONE, reason)
    for state in (run_state, data_state):
        if state in _HELD:
            return Availability(Component.WAITING, Fault.PSTAMP_SUCCESS, _HELD[state])
    if data_state == "goto_cleaned":
        return Availability(Component.WAITING, Fault.PSTAMP_SUCCESS, "being cleaned; it can be made again after that")
    if run_state == data_state == "update":
        tried = f"; the last try ended in fault {fault}" if fault else ""
        return Availability(Component.IN_PROGRESS, Fault.PSTAMP_SUCCESS, f"being made again{tried}")
    reason = "about to be cleaned" if data_state == "full" else "cleaned"
    return Availability(Component.TO_BE_QUEUED, Fault.PSTAMP_SUCCESS, f"{reason}, must be made again")
