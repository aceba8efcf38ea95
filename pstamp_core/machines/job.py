"""The machine of a job: one input image for one row of a request."""

from enum import Enum

from pstamp_core.machines.machine import (
    Edge,
    Event,
    FaultClass,
    Guard,
    Machine,
    cancelled,
    give_code,
    lease_edges,
    record_fault,
    succeed,
)


class JobState(Enum):
    """Where a job is."""

    PARSED = "parsed"
    """Made by a preview; waits for its request to be accepted."""
    RUN = "run"
    """To be done, being done, or waiting: for its dependent, or for a retry."""
    STOP = "stop"
    """Over: fault 0 is success, 10 and up the user's answer."""
    CANCEL = "cancel"
    """Cancelled; code 32."""


OPEN = (JobState.PARSED, JobState.RUN)
"""The states that keep a request from being finished."""

JOB = Machine(
    "job",
    JobState,
    # A job that is made stopped is an answer; success takes a worker and a file.
    {JobState.RUN: FaultClass.NONE, JobState.PARSED: FaultClass.NONE, JobState.STOP: FaultClass.FINAL},
    {
        JobState.PARSED: frozenset({FaultClass.NONE}),
        JobState.RUN: frozenset({FaultClass.NONE, FaultClass.RETRYABLE}),
        JobState.STOP: frozenset({FaultClass.NONE, FaultClass.FINAL}),
        JobState.CANCEL: frozenset({FaultClass.FINAL}),
    },
    [
        *lease_edges((JobState.RUN,), "run jobs"),
        Edge(
            Event.ACCEPT, (JobState.PARSED,), JobState.RUN, "accept of the request", "The user wants the stamp.",
        ),
        Edge(
            Event.FINISH, (JobState.RUN,), JobState.STOP, "run jobs", "The products are in the work directory.",
            succeed, (Guard.HELD,),
        ),
        Edge(
            Event.FAULT, (JobState.RUN,), JobState.STOP, "run jobs", "The answer is no: off the image, gone.",
            record_fault, (Guard.HELD, Guard.FINAL),
        ),
        Edge(
            Event.GIVE_UP, (JobState.RUN,), JobState.STOP, "give up, check dependents, operator",
            "Out of tries, or its image can't be had; the cause is kept.", give_code, (Guard.FREE, Guard.FINAL),
        ),
        Edge(
            Event.CANCEL, OPEN, JobState.CANCEL, "cancel of the request, operator",
            "A worker's late result is refused.", cancelled,
        ),
    ],
)  # fmt: skip
