"""The machine of a dependent: one cleaned component that must be made again before its jobs can run."""

from enum import Enum

from pstamp_core.machines.machine import (
    Edge,
    Event,
    FaultClass,
    Guard,
    Machine,
    give_code,
    lease_edges,
    record_fault,
    succeed,
)


class DependentState(Enum):
    """Where a dependent is."""

    NEW = "new"
    """Its component is not there yet; looked at again and again."""
    HOLD = "hold"
    """An operator keeps it from being worked on; its jobs wait."""
    FULL = "full"
    """The component is there: its jobs may run. A later need makes a new dependent."""
    STOP = "stop"
    """Given up: its jobs were stopped with its code. Closed, never used again; a later need makes a new one."""


SHARED = (DependentState.NEW, DependentState.HOLD)
"""The states in which a new job for the same component joins in."""

DEPENDENT = Machine(
    "dependent",
    DependentState,
    {DependentState.NEW: FaultClass.NONE, DependentState.HOLD: FaultClass.NONE},
    {
        DependentState.NEW: frozenset({FaultClass.NONE, FaultClass.RETRYABLE}),
        DependentState.HOLD: frozenset({FaultClass.NONE, FaultClass.RETRYABLE}),
        DependentState.FULL: frozenset({FaultClass.NONE}),
        DependentState.STOP: frozenset({FaultClass.FINAL}),
    },
    [
        # A look every few seconds for weeks would fill the history, so a look itself leaves none. What waits without a
        # fault, for the end of a cool-down, say, can be reverted, too.
        *lease_edges((DependentState.NEW,), "check dependents", history=False, revert=Guard.ASKED),
        Edge(
            Event.SATISFY, (DependentState.NEW,), DependentState.FULL, "check dependents",
            "The component is there.", succeed, (Guard.HELD,),
        ),
        Edge(
            Event.FAULT, (DependentState.NEW,), DependentState.STOP, "check dependents",
            "The component is gone for good; its jobs are stopped in the same transaction.", record_fault,
            (Guard.HELD, Guard.FINAL),
        ),
        Edge(
            Event.GIVE_UP, (DependentState.NEW, DependentState.HOLD), DependentState.STOP, "give up, operator",
            "Out of tries; its jobs are stopped in the same transaction.", give_code, (Guard.FREE, Guard.FINAL),
        ),
        Edge(
            Event.HOLD, (DependentState.NEW,), DependentState.HOLD, "operator", "Not to be worked on for now.",
            guards=(Guard.FREE,),
        ),
        Edge(Event.UNHOLD, (DependentState.HOLD,), DependentState.NEW, "operator, parse", "To be worked on again."),
    ],
)  # fmt: skip
