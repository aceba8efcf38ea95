"""The machine of a request: one submitted request file."""

from enum import Enum

from pstamp_core.machines.machine import (
    Edge,
    Event,
    FaultClass,
    Guard,
    Machine,
    lease_edges,
    start_afresh,
    succeed,
)

_NONE = frozenset({FaultClass.NONE})
_WORKED_ON = frozenset({FaultClass.NONE, FaultClass.RETRYABLE})


class RequestState(Enum):
    """Where a request is."""

    NEW = "new"
    """Submitted, not parsed."""
    PARSED = "parsed"
    """Parsed as a preview; waits for `accept`."""
    RUN = "run"
    """Its jobs are worked on; when none is open, its results are published."""
    STOP = "stop"
    """Its results are published."""
    CANCEL = "cancel"
    """Cancelled: no job is open any more, the results (code 32) are still to be published."""
    GOTO_CLEANED = "goto_cleaned"
    """To be deleted from disk."""
    CLEANED = "cleaned"
    """Deleted from disk; the row stays."""


WORKED_ON = (RequestState.NEW, RequestState.RUN, RequestState.CANCEL, RequestState.GOTO_CLEANED)
"""The states in which somebody can hold a lease, and a retryable fault can stand."""

FINISHABLE = (RequestState.RUN, RequestState.CANCEL)
"""The states from which results are published."""

REQUEST = Machine(
    "request",
    RequestState,
    {RequestState.NEW: FaultClass.NONE},
    {state: _WORKED_ON if state in WORKED_ON else _NONE for state in RequestState},
    [
        *lease_edges(WORKED_ON, "parse, finish, clean"),
        Edge(
            Event.PARSE, (RequestState.NEW,), RequestState.RUN, "parse",
            "All jobs are made; an error of the whole request is one stopped job.", start_afresh, (Guard.HELD,),
        ),
        Edge(
            Event.PREVIEW, (RequestState.NEW,), RequestState.PARSED, "parse",
            "All jobs are made, and wait for the user.", start_afresh, (Guard.HELD,),
        ),
        Edge(
            Event.ACCEPT, (RequestState.PARSED,), RequestState.RUN, "user, operator",
            "The jobs may run; they are accepted in the same transaction.",
        ),
        Edge(
            Event.FINISH, FINISHABLE, RequestState.STOP, "finish",
            "The fileset with the results is published.", succeed, (Guard.HELD, Guard.DONE),
        ),
        Edge(
            Event.GIVE_UP, (RequestState.NEW,), RequestState.RUN, "give up, operator",
            "It can't be parsed; one stopped job with a final code tells the user so.", start_afresh,
            (Guard.FAULTED, Guard.FREE),
        ),
        Edge(
            Event.CANCEL, (RequestState.NEW, RequestState.PARSED, RequestState.RUN), RequestState.CANCEL,
            "user, operator", "Open jobs are cancelled in the same transaction; a worker's late result is refused.",
            start_afresh,
        ),
        Edge(
            Event.EXPIRE, (RequestState.STOP,), RequestState.GOTO_CLEANED, "clean, operator",
            "Kept long enough, or not wanted any more.", start_afresh,
        ),
        Edge(
            Event.CLEAN, (RequestState.GOTO_CLEANED,), RequestState.CLEANED, "clean",
            "Fileset and work directory are gone.", succeed, (Guard.HELD,),
        ),
    ],
)  # fmt: skip
