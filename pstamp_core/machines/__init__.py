"""Request, Job and Dependent as explicit state machines: pure tables, no I/O, no clock."""

from pstamp_core.machines.dependent import DEPENDENT, DependentState
from pstamp_core.machines.job import JOB, JobState
from pstamp_core.machines.machine import Args, Change, Event, Guard, Machine
from pstamp_core.machines.request import REQUEST, RequestState

__all__ = [
    "DEPENDENT",
    "JOB",
    "REQUEST",
    "Args",
    "Change",
    "DependentState",
    "Event",
    "Guard",
    "JobState",
    "Machine",
    "RequestState",
]
