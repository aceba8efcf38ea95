"""The three machines: their tables as text, what each guard refuses, what each event changes, the fault rule."""

from __future__ import annotations

import copy
import inspect
from dataclasses import asdict, dataclass, replace
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transitions import Machine as TransitionsMachine

from pstamp_core.faults import Bug, IllegalTransition, LeaseLost
from pstamp_core.machines import (
    DEPENDENT,
    JOB,
    REQUEST,
    Args,
    DependentState,
    Event,
    JobState,
    Machine,
    RequestState,
)
from pstamp_core.machines import dependent as dependent_module
from pstamp_core.machines import job as job_module
from pstamp_core.machines import request as request_module
from pstamp_core.machines.machine import Edge, FaultClass, Guard

NOW = 1_000_000
ME = "w1"

# state, event, state after, guards; `-` is no guard, `quiet` leaves no history.
TABLES = {
    REQUEST: """
    new          claim     new          ready free
    new          heartbeat new          held                  quiet
    new          release   new          held
    new          parse     run          held
    new          preview   parsed       held
    new          fault     new          held retryable
    new          lost      new          lapsed
    new          revert    new          faulted free may_retry
    new          give_up   run          faulted free
    new          cancel    cancel       -
    parsed       accept    run          -
    parsed       cancel    cancel       -
    run          claim     run          ready free
    run          heartbeat run          held                  quiet
    run          release   run          held
    run          finish    stop         held done
    run          fault     run          held retryable
    run          lost      run          lapsed
    run          revert    run          faulted free may_retry
    run          cancel    cancel       -
    stop         expire    goto_cleaned -
    cancel       claim     cancel       ready free
    cancel       heartbeat cancel       held                  quiet
    cancel       release   cancel       held
    cancel       finish    stop         held done
    cancel       fault     cancel       held retryable
    cancel       lost      cancel       lapsed
    cancel       revert    cancel       faulted free may_retry
    goto_cleaned claim     goto_cleaned ready free
    goto_cleaned heartbeat goto_cleaned held                  quiet
    goto_cleaned release   goto_cleaned held
    goto_cleaned fault     goto_cleaned held retryable
    goto_cleaned lost      goto_cleaned lapsed
    goto_cleaned revert    goto_cleaned faulted free may_retry
    goto_cleaned clean     cleaned      held
    """,
    JOB: """
    parsed       accept    run          -
    parsed       cancel    cancel       -
    run          claim     run          ready free
    run          heartbeat run          held                  quiet
    run          release   run          held
    run          finish    stop         held
    run          fault     run          held retryable
    run          fault     stop         held final
    run          lost      run          lapsed
    run          revert    run          faulted free may_retry
    run          give_up   stop         free final
    run          cancel    cancel       -
    """,
    DEPENDENT: """
    new          claim     new          ready free            quiet
    new          heartbeat new          held                  quiet
    new          release   new          held                  quiet
    new          satisfy   full         held
    new          fault     new          held retryable
    new          fault     stop         held final
    new          lost      new          lapsed
    new          revert    new          asked free may_retry
    new          give_up   stop         free final
    new          hold      hold         free
    hold         give_up   stop         free final
    hold         unhold    new          -
    """,
}

# Which fault codes go with which state (design: the fault rule).
FAULT_RULE = """
request   new          0 1-9
request   parsed       0
request   run          0 1-9
request   stop         0
request   cancel       0 1-9
request   goto_cleaned 0 1-9
request   cleaned      0
job       parsed       0
job       run          0 1-9
job       stop         0     10-
job       cancel             10-
dependent new          0 1-9
dependent hold         0 1-9
dependent full         0
dependent stop               10-
"""

ENDS = {
    REQUEST: {RequestState.CLEANED},
    JOB: {JobState.STOP, JobState.CANCEL},
    DEPENDENT: {DependentState.FULL, DependentState.STOP},
}
MACHINES = list(TABLES)


@dataclass
class Row:
    """A row as a machine sees it."""

    state: Any
    fault: int = 0
    fault_count: int = 0
    cause: int = 0
    attempt: int = 0
    lease_owner: str = ""
    lease_until: int = 0
    retry_at: int = 0
    id_: int = 7


@dataclass(frozen=True)
class Line:
    """A line of `TABLES`."""

    machine: Machine
    source: Any
    event: Event
    dest: Any
    guards: frozenset[str]
    quiet: bool

    def __str__(self) -> str:
        return f"{self.machine.name}-{self.source.value}-{self.event.value}-{self.dest.value}"


def read_table(machine: Machine) -> list[Line]:
    lines = []
    for text in TABLES[machine].strip().splitlines():
        source, event, dest, *words = text.split()
        guards = frozenset(words) - {"-", "quiet"}
        source, dest = machine.states(source), machine.states(dest)
        lines.append(Line(machine, source, Event(event), dest, guards, "quiet" in words))
    return lines


LINES = [line for machine in MACHINES for line in read_table(machine)]
all_machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
all_lines = pytest.mark.parametrize("line", LINES, ids=str)


def allowed(machine: Machine, state: Any, fault: int) -> bool:
    """Tell by the text above whether a state and a code go together."""
    word = "0" if fault == 0 else "1-9" if 1 <= fault <= 9 else "10-" if fault >= 10 else "none"
    lines = [line.split() for line in FAULT_RULE.strip().splitlines()]
    return next(word in rest for name, word_, *rest in lines if (name, word_) == (machine.name, state.value))


# -- the tables


@all_machines
def test_the_machine_is_its_table(machine: Machine) -> None:
    built = {
        (source, event, dest, frozenset(guard.name.lower() for guard in edge.guards), not edge.history)
        for event, source, dest, edge in machine.arrows()
    }
    assert built == {
        (line.source, line.event, line.dest, line.guards, line.quiet) for line in LINES if line.machine is machine
    }


@all_lines
def test_an_allowed_event_leads_where_the_table_says(line: Line) -> None:
    row, args = fitting(line)
    change = line.machine.decide(row, line.event, args)
    assert (change.source, change.dest, change.values["state"]) == (line.source, line.dest, line.dest)
    assert change.edge.history is not line.quiet


@pytest.mark.parametrize(
    ("machine", "state", "event"),
    [
        pytest.param(machine, state, event, id=f"{machine.name}-{state.value}-{event.value}")
        for machine in MACHINES
        for state in machine.states
        for event in Event
        if not any((line.machine, line.source, line.event) == (machine, state, event) for line in LINES)
    ],
)
def test_every_other_pair_is_refused(machine: Machine, state: Any, event: Event) -> None:
    """However well row and arguments fit the guards."""
    for fault in (0, 2, 25):
        for owner, until in ((ME, NOW + 10), (ME, NOW - 10), ("", 0)):
            with pytest.raises((IllegalTransition, LeaseLost)):
                machine.decide(
                    Row(state, fault=fault, lease_owner=owner, lease_until=until),
                    event,
                    Args(now=NOW, who=ME, owner=ME, fault=25, lease=10),
                )


@all_machines
def test_every_state_is_reached_from_an_initial_one(machine: Machine) -> None:
    reached = set(machine.initial)
    for _ in machine.states:
        reached |= {line.dest for line in LINES if line.machine is machine and line.source in reached}
    if machine is DEPENDENT:  # a preview makes it so
        assert DependentState.HOLD in machine.initial
    assert reached == set(machine.states)


@all_machines
def test_every_state_but_the_ends_can_be_left(machine: Machine) -> None:
    stuck = set(machine.states) - {
        line.source for line in LINES if line.machine is machine and line.source is not line.dest
    }
    assert stuck == ENDS[machine]
    assert all(machine.events(state) == [] for state in ENDS[machine])


@pytest.mark.parametrize(
    ("machine", "states"),
    [
        (REQUEST, {"new": "0"}),
        (JOB, {"run": "0", "parsed": "0", "stop": "10 and up"}),
        (DEPENDENT, {"new": "0", "hold": "0"}),
    ],
)
def test_a_row_begins_in(machine: Machine, states: dict[str, str]) -> None:
    assert {state.value: fault.value for state, fault in machine.initial.items()} == states


@all_machines
def test_the_lookups_agree_with_the_table(machine: Machine) -> None:
    lines = [line for line in LINES if line.machine is machine]
    for event in Event:
        assert set(machine.sources(event)) == {line.source for line in lines if line.event is event}
        assert len(machine.sources(event)) == len(set(machine.sources(event)))
    for state in machine.states:
        assert set(machine.events(state)) == {line.event for line in lines if line.source is state}
        assert len(machine.events(state)) == len(set(machine.events(state)))


def test_the_words_are_those_of_ipp() -> None:
    words = [[state.value for state in machine.states] for machine in MACHINES]
    assert words == [
        ["new", "parsed", "run", "stop", "cancel", "goto_cleaned", "cleaned"],
        ["parsed", "run", "stop", "cancel"],
        ["new", "hold", "full", "stop"],
    ]


def test_named_sets() -> None:
    assert {state.value for state in job_module.OPEN} == {"parsed", "run"}
    assert {state.value for state in dependent_module.SHARED} == {"new", "hold"}
    assert {state.value for state in request_module.FINISHABLE} == {"run", "cancel"}
    assert {state.value for state in request_module.WORKED_ON} == {"new", "run", "cancel", "goto_cleaned"}


@pytest.mark.parametrize("listing", [Event, Guard, RequestState, JobState, DependentState])
def test_members_differ_and_say_what_they_mean(listing: type[Enum]) -> None:
    assert len({member.value for member in listing}) == len(listing)
    if listing is not Guard:  # whose values are sentences
        source = inspect.getsource(listing)
        for member in listing:
            assert f'{member.name} = "{member.value}"\n    """' in source


# -- guards


def fitting(line: Line) -> tuple[Row, Args]:
    """Return a row and arguments that fit all guards of a line, each at the edge of what it lets through."""
    row = Row(line.source, attempt=3, fault_count=1, cause=2)
    args = Args(now=NOW, who=ME, owner=ME, lease=100, delay=10, ceiling=2, open_jobs=5)
    if line.source in (JobState.STOP, JobState.CANCEL, DependentState.STOP):
        row.fault = 25
    for guard in line.guards:
        row, args = FIT[guard](row, args)
    return row, args


FIT = {
    "free": lambda row, args: (replace(row, lease_owner=""), args),
    "ready": lambda row, args: (replace(row, fault=0, retry_at=NOW), args),
    "held": lambda row, args: (replace(row, lease_owner=ME, lease_until=NOW - 1), args),
    "lapsed": lambda row, args: (replace(row, lease_owner="w2", lease_until=NOW - 1), args),
    "faulted": lambda row, args: (replace(row, fault=9), args),
    "asked": lambda row, args: (replace(row, fault=9), args),
    "may_retry": lambda row, args: (replace(row, fault_count=1, retry_at=NOW), args),
    "retryable": lambda row, args: (row, replace(args, fault=9)),
    "final": lambda row, args: (row, replace(args, fault=10)),
    "done": lambda row, args: (row, replace(args, open_jobs=0)),
}
# What each guard refuses: every way in which it can fail to hold, at the edge.
BREAK = {
    "free": {"somebody has it": lambda row, args: (replace(row, lease_owner="w2", lease_until=NOW + 9), args)},
    "ready": {
        "retryable fault": lambda row, args: (replace(row, fault=1), args),
        "not yet": lambda row, args: (replace(row, retry_at=NOW + 1), args),
    },
    "held": {
        "another's": lambda row, args: (replace(row, lease_owner="w2"), args),
        "nobody's": lambda row, args: (replace(row, lease_owner=""), args),
        "no caller": lambda row, args: (replace(row, lease_owner=""), replace(args, owner="")),
    },
    "lapsed": {
        "not yet": lambda row, args: (replace(row, lease_until=NOW), args),
        "no lease": lambda row, args: (replace(row, lease_owner="", lease_until=0), args),
    },
    "faulted": {"no fault": lambda row, args: (replace(row, fault=0), args)},
    "asked": {"no fault": lambda row, args: (replace(row, fault=0), args)},
    "may_retry": {
        "ceiling": lambda row, args: (replace(row, fault_count=2), args),
        "not yet": lambda row, args: (replace(row, retry_at=NOW + 1), args),
    },
    "retryable": {
        "no code": lambda row, args: (row, replace(args, fault=0)),
        "killed by a signal": lambda row, args: (row, replace(args, fault=-9)),
    },
    "final": {
        "no code": lambda row, args: (row, replace(args, fault=0)),
        "negative": lambda row, args: (row, replace(args, fault=-1)),
    },
    "done": {"one is open": lambda row, args: (row, replace(args, open_jobs=1))},
}
BROKEN = [
    pytest.param(line, way, id=f"{line}-{guard}: {name}")
    for line in LINES
    for guard in sorted(line.guards)
    for name, way in BREAK[guard].items()
]


def test_every_guard_can_be_broken() -> None:
    assert {guard.name.lower() for guard in Guard} == set(BREAK) == set(FIT)
    assert {guard for line in LINES for guard in line.guards} == set(BREAK)


@pytest.mark.parametrize(("line", "way"), BROKEN)
def test_a_guard_refuses(line: Line, way: Any) -> None:
    row, args = way(*fitting(line))
    with pytest.raises((IllegalTransition, LeaseLost)):
        line.machine.decide(row, line.event, args)


@pytest.mark.parametrize("machine", [JOB, DEPENDENT], ids=lambda machine: machine.name)
@pytest.mark.parametrize(("fault", "stops"), [(1, False), (9, False), (10, True), (13, True), (255, True)])
def test_the_code_decides_between_trying_again_and_stopping(machine: Machine, fault: int, stops: bool) -> None:
    row = Row(next(iter(machine.initial)), lease_owner=ME)
    change = machine.decide(row, Event.FAULT, Args(now=NOW, who=ME, owner=ME, fault=fault))
    assert change.dest.value == ("stop" if stops else row.state.value)


@pytest.mark.parametrize("machine", [JOB, DEPENDENT], ids=lambda machine: machine.name)
def test_giving_up_takes_a_final_code(machine: Machine) -> None:
    with pytest.raises(IllegalTransition, match="it needs: the code is 10 or more"):
        machine.decide(Row(next(iter(machine.initial)), fault=2), Event.GIVE_UP, Args(now=NOW, who=ME, fault=9))


@all_machines
def test_an_operator_may_retry_beyond_the_ceiling_and_at_once(machine: Machine) -> None:
    row = Row(next(iter(machine.initial)), fault=2, fault_count=99, retry_at=NOW + 10**9)
    change = machine.decide(row, Event.REVERT, Args(now=NOW, who="operator", ceiling=None))
    assert change.values == {"fault": 0, "retry_at": 0, "state": row.state}


def test_an_operator_may_end_the_wait_of_a_dependent_without_a_fault() -> None:
    """A cool-down; a job or request that waits has been faulted, or its worker put it off for a few seconds."""
    asked = Args(now=NOW, who="operator", ceiling=None)
    row = Row(DependentState.NEW, retry_at=NOW + 10**9)
    assert DEPENDENT.decide(row, Event.REVERT, asked).values == {"fault": 0, "retry_at": 0, "state": row.state}
    with pytest.raises(IllegalTransition, match="it needs: fault 1-9 "):
        JOB.decide(Row(JobState.RUN, retry_at=NOW + 10**9), Event.REVERT, asked)


# -- refusals


@pytest.mark.parametrize(
    ("machine", "row", "event", "args", "message"),
    [
        (
            JOB, Row(JobState.STOP), Event.CLAIM, {},
            "job 7: claim refused, not possible in state stop (legal ways on: none, it has ended)",
        ),
        (
            JOB, Row(JobState.PARSED), Event.GIVE_UP, {},
            "job 7: give_up refused, not possible in state parsed (legal ways on: accept, cancel)",
        ),
        (
            JOB, Row(JobState.RUN), Event.PARSE, {},
            "job 7: parse refused, not possible in state run "
            "(legal ways on: claim, heartbeat, release, fault, lost, revert, finish, give_up, cancel)",
        ),
        (
            DEPENDENT, Row(DependentState.NEW, fault=3, lease_owner="w2"), Event.CLAIM, {},
            "dependent 7: claim refused, it needs: fault 0, and the time of the next try has come and nobody has a "
            "lease (legal ways on: claim, heartbeat, release, fault, lost, revert, satisfy, give_up, hold)",
        ),
        (
            JOB, Row(JobState.RUN, lease_owner=ME), Event.FAULT, {"fault": 0},
            "job 7: fault refused, it needs: the code is 1-9; or the code is 10 or more "
            "(legal ways on: claim, heartbeat, release, fault, lost, revert, finish, give_up, cancel)",
        ),
        (
            REQUEST, Row(RequestState.RUN, lease_owner=ME), Event.FINISH, {"open_jobs": 2},
            "request 7: finish refused, it needs: no job of the request is open "
            "(legal ways on: claim, heartbeat, release, fault, lost, revert, finish, cancel)",
        ),
        (
            REQUEST, Row(RequestState.NEW, lease_owner=ME), Event.FAULT, {"fault": 21},
            "request 7: fault refused, it needs: the code is 1-9 "
            "(legal ways on: claim, heartbeat, release, fault, lost, revert, parse, preview, give_up, cancel)",
        ),
        (
            REQUEST, Row(RequestState.RUN, lease_owner=ME), Event.PARSE, {},
            "request 7: parse refused, not possible in state run "
            "(legal ways on: claim, heartbeat, release, fault, lost, revert, finish, cancel)",
        ),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_missing(
    machine: Machine, row: Row, event: Event, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(IllegalTransition) as refusal:
        machine.decide(row, event, Args(now=NOW, who=ME, owner=ME, **args))
    assert str(refusal.value) == message
    assert refusal.value.fault == 5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            Row(JobState.RUN, lease_owner="w2"),
            "job 7: finish refused, it is run (fault 0) and belongs to w2, not to w1",
        ),
        (
            Row(JobState.RUN, fault=6),
            "job 7: finish refused, it is run (fault 6) and belongs to nobody, not to w1",
        ),
        (
            Row(JobState.CANCEL, fault=32),
            "job 7: finish refused, it is cancel (fault 32) and belongs to nobody, not to w1",
        ),
    ],
)  # fmt: skip
def test_a_late_worker_is_told_that_its_lease_is_lost(row: Row, message: str) -> None:
    with pytest.raises(LeaseLost) as refusal:
        JOB.decide(row, Event.FINISH, Args(now=NOW, who=ME, owner=ME))
    assert str(refusal.value) == message
    assert refusal.value.fault == 6


WORKERS_EVENTS = sorted({(line.machine.name, line.event.value) for line in LINES if "held" in line.guards})


def test_the_events_of_a_worker() -> None:
    by_machine = {machine.name: " ".join(event for name, event in WORKERS_EVENTS if name == machine.name)
                  for machine in MACHINES}  # fmt: skip
    assert by_machine == {
        "request": "clean fault finish heartbeat parse preview release",
        "job": "fault finish heartbeat release",
        "dependent": "fault heartbeat release satisfy",
    }


@pytest.mark.parametrize(
    ("machine", "event", "state"),
    [
        pytest.param(machine, Event(event), state, id=f"{machine.name}-{event}-{state.value}")
        for machine in MACHINES
        for name, event in WORKERS_EVENTS
        if name == machine.name
        for state in machine.states
    ],
)
def test_in_every_state_a_worker_without_the_lease_gets_lease_lost(machine: Machine, event: Event, state: Any) -> None:
    for owner in ("", "w2"):
        with pytest.raises(LeaseLost):
            machine.decide(Row(state, lease_owner=owner), event, Args(now=NOW, who=ME, owner=ME, fault=2))


def test_a_row_without_a_number_is_named_by_its_machine() -> None:
    bare = SimpleNamespace(**asdict(Row(JobState.STOP)))
    del bare.id_
    with pytest.raises(IllegalTransition, match=r"^job: claim refused"):
        JOB.decide(bare, Event.CLAIM, Args(now=NOW, who=ME, owner=ME))


def test_a_claim_needs_an_owner() -> None:
    with pytest.raises(Bug, match=r"^claim: a lease needs an owner$"):
        JOB.decide(Row(JobState.RUN), Event.CLAIM, Args(now=NOW, who=ME))


# -- effects

HELD = Row(None, fault_count=2, cause=5, attempt=4, lease_owner=ME, lease_until=NOW + 50, retry_at=NOW - 3)
FREE = replace(HELD, lease_owner="", lease_until=0)
GONE = {"lease_owner": "", "lease_until": 0}
WORKED_ON = [*((REQUEST, state) for state in request_module.WORKED_ON), (JOB, JobState.RUN),
             (DEPENDENT, DependentState.NEW)]  # fmt: skip


def effect(machine: Machine, row: Row, event: Event, **args: Any) -> dict[str, Any]:
    """Return what `event` sets besides the state."""
    given_ = Args(now=NOW, who=ME, owner=ME, lease=100, delay=10, backoff=lambda count: 1000 * count, **args)
    values = dict(machine.decide(row, event, given_).values)
    del values["state"]
    return values


@pytest.mark.parametrize(("machine", "state"), WORKED_ON)
def test_effects_of_a_lease(machine: Machine, state: Any) -> None:
    held, free = replace(HELD, state=state), replace(FREE, state=state)
    assert effect(machine, free, Event.CLAIM) == {"attempt": 5, "lease_owner": ME, "lease_until": NOW + 100}
    assert effect(machine, held, Event.HEARTBEAT) == {"lease_until": NOW + 100}
    assert effect(machine, held, Event.RELEASE) == {**GONE, "retry_at": NOW + 10}
    assert effect(machine, held, Event.FAULT, fault=2) == {
        **GONE, "fault": 2, "cause": 2, "fault_count": 3, "retry_at": NOW + 3000,
    }  # fmt: skip
    lapsed = replace(held, lease_until=NOW - 1)
    assert effect(machine, lapsed, Event.LOST) == {
        **GONE, "fault": 6, "cause": 6, "fault_count": 3, "retry_at": NOW + 3000,
    }  # fmt: skip
    assert effect(machine, replace(free, fault=6), Event.REVERT) == {"fault": 0, "retry_at": 0}


SUCCESS = {**GONE, "fault": 0, "cause": 0, "retry_at": 0}
AFRESH = {**GONE, "fault": 0, "fault_count": 0, "retry_at": 0}


@pytest.mark.parametrize(
    ("machine", "state", "event", "values"),
    [
        (REQUEST, RequestState.NEW, Event.PARSE, AFRESH),
        (REQUEST, RequestState.NEW, Event.PREVIEW, AFRESH),
        (REQUEST, RequestState.RUN, Event.FINISH, SUCCESS),
        (REQUEST, RequestState.CANCEL, Event.FINISH, SUCCESS),
        (REQUEST, RequestState.GOTO_CLEANED, Event.CLEAN, SUCCESS),
        (JOB, JobState.RUN, Event.FINISH, SUCCESS),
        (DEPENDENT, DependentState.NEW, Event.SATISFY, SUCCESS),
        (REQUEST, RequestState.NEW, Event.CANCEL, AFRESH),
        (REQUEST, RequestState.PARSED, Event.CANCEL, AFRESH),
        (REQUEST, RequestState.RUN, Event.CANCEL, AFRESH),
        (JOB, JobState.PARSED, Event.CANCEL, {**GONE, "fault": 32}),
        (JOB, JobState.RUN, Event.CANCEL, {**GONE, "fault": 32}),
    ],
)
def test_effects_on_a_held_row(machine: Machine, state: Any, event: Event, values: dict[str, Any]) -> None:
    assert effect(machine, replace(HELD, state=state), event) == values


@pytest.mark.parametrize(
    ("machine", "state", "event", "values"),
    [
        (REQUEST, RequestState.NEW, Event.GIVE_UP, AFRESH),
        (JOB, JobState.RUN, Event.GIVE_UP, {**GONE, "fault": 25}),
        (DEPENDENT, DependentState.NEW, Event.GIVE_UP, {**GONE, "fault": 25}),
        (DEPENDENT, DependentState.HOLD, Event.GIVE_UP, {**GONE, "fault": 25}),
        (DEPENDENT, DependentState.NEW, Event.HOLD, {}),
        (DEPENDENT, DependentState.HOLD, Event.UNHOLD, {}),
    ],
)
def test_effects_on_a_faulted_row(machine: Machine, state: Any, event: Event, values: dict[str, Any]) -> None:
    assert effect(machine, replace(FREE, state=state, fault=5), event, fault=25) == values


@pytest.mark.parametrize(("machine", "state"), [(JOB, JobState.RUN), (DEPENDENT, DependentState.NEW)])
@pytest.mark.parametrize("cause", [2, 0])
def test_what_is_given_up_with_another_row_has_its_cause(machine: Machine, state: Any, cause: int) -> None:
    values = {**GONE, "fault": 26, "cause": cause}
    assert effect(machine, replace(FREE, state=state), Event.GIVE_UP, fault=26, cause=cause) == values


@pytest.mark.parametrize(("machine", "state"), [(JOB, JobState.RUN), (DEPENDENT, DependentState.NEW)])
def test_a_final_code_has_no_cause_and_sets_no_next_try(machine: Machine, state: Any) -> None:
    values = {**GONE, "fault": 28, "fault_count": 3, "cause": 0}
    assert effect(machine, replace(HELD, state=state), Event.FAULT, fault=28) == values


@pytest.mark.parametrize("machine", [REQUEST, JOB], ids=lambda machine: machine.name)
def test_accepting_changes_the_state_alone(machine: Machine) -> None:
    assert effect(machine, Row(machine.states("parsed")), Event.ACCEPT) == {}


def test_cleaning_starts_with_all_its_tries() -> None:
    """Two faults of publishing must not leave the clean-up one try."""
    assert effect(REQUEST, replace(FREE, state=RequestState.STOP), Event.EXPIRE) == AFRESH


# -- the fault rule


@all_machines
def test_the_fault_rule(machine: Machine) -> None:
    for state in machine.states:
        for fault in (0, 1, 9, 10, 25, 255):
            assert (FaultClass.of(fault) in machine.faults[state]) == allowed(machine, state, fault), (state, fault)


def test_a_negative_number_is_no_fault_code() -> None:
    with pytest.raises(Bug, match=r"^fault -9: expected 0 or more$"):
        FaultClass.of(-9)


def test_an_event_that_would_break_the_fault_rule_is_a_bug() -> None:
    wrong = Machine(
        "job", JobState, {JobState.RUN: FaultClass.NONE}, JOB.faults,
        [Edge(Event.FINISH, (JobState.RUN,), JobState.STOP, "run jobs", "The fault is forgotten.")],
    )  # fmt: skip
    with pytest.raises(Bug, match=r"^job 7: finish would leave it stop with fault 2$"):
        wrong.decide(Row(JobState.RUN, fault=2), Event.FINISH, Args(now=NOW, who=ME))


def test_two_edges_for_one_arrow_are_refused() -> None:
    edge = Edge(Event.FINISH, (JobState.RUN,), JobState.STOP, "run jobs", "Done.")
    with pytest.raises(Bug, match=r"^job: two edges for "):
        Machine("job", JobState, {JobState.RUN: FaultClass.NONE}, JOB.faults, [edge, edge])


@st.composite
def legal_rows(draw: st.DrawFn) -> tuple[Machine, Row]:
    machine = draw(st.sampled_from(MACHINES))
    state = draw(st.sampled_from(list(machine.states)))
    fault = draw(st.sampled_from([code for code in (0, 1, 6, 9, 10, 25, 32, 200) if allowed(machine, state, code)]))
    around = st.sampled_from([0, NOW - 1, NOW, NOW + 1])
    owner = draw(st.sampled_from(["", ME, "w2"]))
    count, cause = draw(st.integers(0, 4)), draw(st.integers(0, 9))
    return machine, Row(state, fault, count, cause, draw(st.integers(0, 5)), owner, draw(around), draw(around))


any_args = st.builds(
    Args,
    now=st.just(NOW),
    who=st.just("someone"),
    fault=st.integers(-20, 300) | st.sampled_from([0, 1, 9, 10, 25]),
    owner=st.sampled_from(["", ME, "w2"]),
    lease=st.integers(0, 100),
    delay=st.integers(0, 100),
    backoff=st.sampled_from([lambda count: 10 * count]),
    ceiling=st.none() | st.integers(0, 4),
    open_jobs=st.integers(0, 2),
)


@settings(max_examples=1000, deadline=None)
@given(legal_rows(), st.sampled_from(list(Event)), any_args)
def test_from_a_legal_row_only_legal_rows_follow(subject: tuple[Machine, Row], event: Event, args: Args) -> None:
    machine, row = subject
    before = copy.copy(row)
    assume(args.owner or event is not Event.CLAIM)
    try:
        change = machine.decide(row, event, args)
    except (IllegalTransition, LeaseLost):
        return
    finally:
        assert row == before
    after = replace(row, **change.values)
    assert isinstance(after.state, machine.states)
    assert allowed(machine, after.state, after.fault), (row, event, after)
    assert any((line.machine, line.source, line.event, line.dest) == (machine, row.state, event, after.state)
               for line in LINES)  # fmt: skip
    assert set(change.values) <= set(asdict(row))
    assert after.attempt == row.attempt + (event is Event.CLAIM)
    if after.fault and after.fault != row.fault:  # whatever ends or pauses an attempt gives the lease back
        assert after.lease_owner == ""
    if row.fault_count > after.fault_count:
        assert machine is REQUEST


# -- the library


def test_rows_are_never_registered_with_the_library() -> None:
    row = Row(JobState.RUN)
    JOB.decide(row, Event.CLAIM, Args(now=NOW, who=ME, owner=ME))
    assert JOB._machine.models == []
    assert not [name for name in vars(row) if name not in asdict(row)]


@all_machines
def test_the_library_has_no_ways_of_its_own(machine: Machine) -> None:
    """No `to_<state>` back doors, and no queue that threads would share."""
    library = machine._machine
    assert isinstance(library, TransitionsMachine)
    assert set(library.events) == {line.event.value for line in LINES if line.machine is machine}
    assert not library.has_queue


def test_an_unforeseen_failure_is_not_taken_for_a_refusal() -> None:
    """A state as its word, not as the member of its enum: a programming error that must show itself."""
    with pytest.raises(ValueError, match="State 'run' is not a registered state"):
        JOB.decide(Row("run"), Event.CLAIM, Args(now=NOW, who=ME, owner=ME))
