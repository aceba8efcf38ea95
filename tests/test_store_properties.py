"""Random lives of requests, jobs and dependents on both engines, beside a model (see `pstamp_core.testing.stateful`).

With ``PSTAMP_OVERNIGHT=1`` in the environment there are 100 times as many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import mariadb
import pytest
from conftest import Rows
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from peewee import IntegrityError, OperationalError

from pstamp_core.machines import Event
from pstamp_core.machines.machine import FaultClass
from pstamp_core.store import MACHINES, Store, Worked, pstampDependent, pstampJob, pstampRequest
from pstamp_core.store.history import Line
from pstamp_core.testing import Clock
from pstamp_core.testing.invariants import INVARIANTS, World, check
from pstamp_core.testing.stateful import KIND_OF, USUAL_END, Claim, Lives, taken

ROUNDS = 100 if os.environ.get("PSTAMP_OVERNIGHT") == "1" else 1
SETTINGS = settings(
    max_examples=1000,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    phases=set(Phase) - {Phase.explain},
)
rounds = pytest.mark.parametrize("round_", range(ROUNDS))


@contextmanager
def two_connections(address: str) -> Iterator[tuple[list[Store], Clock]]:
    clock = Clock()
    stores = [Store(address, clock) for _ in range(2)]
    stores[0].create()
    with stores[0].reading(), stores[1].reading():
        yield stores, clock


@rounds
def test_lives_on_sqlite(tmp_path: Path, round_: int) -> None:
    with two_connections(str(tmp_path / "pstamp.db")) as (stores, clock):
        run_state_machine_as_test(lambda: Lives(stores, clock), settings=SETTINGS)


@rounds
def test_lives_on_mysql(mysql_server: str, round_: int) -> None:
    with mariadb.database(mysql_server) as address, two_connections(address) as (stores, clock):
        run_state_machine_as_test(lambda: Lives(stores, clock), settings=SETTINGS)


@pytest.fixture
def life(store: Store, other: Store, clock: Clock) -> Lives:
    """A life to be led by hand."""
    return Lives([store, other], clock)


@pytest.mark.parametrize("second", [0, 1], ids=["by the same worker", "by another"])
@pytest.mark.parametrize("queue", KIND_OF)
def test_a_late_finish_is_refused(life: Lives, queue: str, second: int) -> None:
    """A lease runs out, the work is claimed again, and its first worker comes back: before it is done, and after."""
    life.submit(0)
    if queue != "parse":
        wish = {"run": "image a", "check": "need x"}.get(queue, "answer")
        life.parse(life.claim(0, "parse", 1)[0], [wish], preview=False)
    if queue == "clean":
        life.report(life.claim(0, "finish", 1)[0], Event.FINISH)
        life.order(0, "request", max(life.model.rows["request"]), Event.EXPIRE)
    (first,) = life.claim(0, queue, 1)
    number = first.row.id_
    life.pass_time(61)
    life.reap(1)
    life.order(1, first.kind, number, Event.REVERT)
    (again,) = life.claim(second, queue, 1)
    ends = [Event(USUAL_END[queue]), Event.FAULT, Event.RELEASE, Event.HEARTBEAT]
    for event in ends:
        report(life, first, event, refused=True)
    report(life, again, ends[0], refused=False)
    for event in ends:
        report(life, first, event, refused=True)


def report(life: Lives, claim: Claim, event: Event, *, refused: bool) -> None:
    before = deepcopy(life.model.rows)
    if event is Event.PARSE:
        life.parse(claim, ["image b"], preview=False)
    else:
        life.report(claim, event, 2 if event is Event.FAULT else 0)
    assert (life.model.rows == before) == refused
    life.rows_equal_the_model()


# -- what the database keeps to itself


@pytest.mark.parametrize("table", MACHINES, ids=lambda table: table.__name__)
def test_what_no_machine_allows_is_refused_by_hand_too(store: Store, rows: Rows, table: type[Worked]) -> None:
    machine = MACHINES[table]
    make = {pstampRequest: rows.request, pstampJob: rows.job, pstampDependent: rows.dependent}[table]
    steps = {(source, dest) for _, source, dest, _ in machine.arrows()}
    fault_of = {FaultClass.NONE: 0, FaultClass.RETRYABLE: 3, FaultClass.FINAL: 26}
    for source in machine.states:
        fault = min(fault_of[each] for each in machine.faults[source])
        number = make(state=source, fault=fault, attempt=4).id_
        by_hand = partial(typed, store, table, number)
        for dest in machine.states:
            for each, code in fault_of.items():
                legal = (source is dest and code == fault) or ((source, dest) in steps and each in machine.faults[dest])
                assert by_hand(f"state = '{dest.value}', fault = {code}") == legal, (source, dest, code)
        assert not by_hand("attempt = 3")
        assert not by_hand("state = 'limbo'")
        assert by_hand("attempt = 5") == ((source, source) in steps)


def typed(store: Store, table: type[Worked], number: int, change: str) -> bool:
    """Type an UPDATE, take it back, and return whether it was let through."""
    try:
        with store.db.atomic() as transaction:
            store.db.execute_sql(f"UPDATE {table.__name__} SET {change} WHERE {table.key().name} = {number}")  # noqa: S608
            transaction.rollback()
    except (IntegrityError, OperationalError) as error:  # MariaDB's SIGNAL is an OperationalError
        if "pstamp" not in str(error):
            raise
        return False
    return True


# -- that the lives are full


def test_there_is_a_rule_for_every_event_of_every_machine() -> None:
    rules = {rule.function.__name__ for rule in Lives.setup_state().rules}
    events = {f"{machine.name}_{event.value}" for machine in MACHINES.values() for event, _, _, _ in machine.arrows()}
    assert events < rules


def test_the_rules_lead_along_every_arrow(tmp_path: Path) -> None:
    """What the random lives do by chance, once on purpose."""
    taken.clear()
    with two_connections(str(tmp_path / "pstamp.db")) as (stores, clock):
        walk_everywhere(Lives(stores, clock))
    arrows = {
        (machine.name, event.value, source.value, dest.value)
        for machine in MACHINES.values()
        for event, source, dest, _ in machine.arrows()
    }
    assert set(taken) == arrows


def walk_everywhere(life: Lives) -> None:
    def claim(queue: str) -> Claim:
        (only,) = life.claim(0, queue, 1)
        return only

    def order(kind: str, event: Event) -> None:
        """Of the newest row."""
        life.order(1, kind, max(life.model.rows[kind]), event)
        life.rows_equal_the_model()

    def parsed(*wishes: str, preview: bool = False) -> None:
        life.submit(0)
        life.parse(claim("parse"), list(wishes), preview=preview)
        life.rows_equal_the_model()

    def everything_under_a_lease(queue: str) -> None:
        """With the first row of a queue, which is there again in the end."""
        for event in (Event.HEARTBEAT, Event.RELEASE, Event.FAULT, Event.LOST):
            begun = claim(queue)
            if event is Event.LOST:
                life.pass_time(61)
                life.order(1, begun.kind, begun.row.id_, event)
            else:
                life.report(begun, event, 2 if event is Event.FAULT else 0)
            if event is Event.HEARTBEAT:
                life.report(begun, Event.RELEASE)
            elif event is not Event.RELEASE:
                life.order(1, begun.kind, begun.row.id_, Event.REVERT)
            life.pass_time(5)
            life.rows_equal_the_model()

    life.submit(0)
    everything_under_a_lease("parse")
    life.report(claim("parse"), Event.FAULT, 2)
    order("request", Event.GIVE_UP)
    everything_under_a_lease("finish")
    life.report(claim("finish"), Event.FINISH)
    order("request", Event.EXPIRE)
    everything_under_a_lease("clean")
    life.report(claim("clean"), Event.CLEAN)

    life.submit(0)
    order("request", Event.CANCEL)
    everything_under_a_lease("finish")
    life.report(claim("finish"), Event.FINISH)

    parsed("image a", "need x", "image b", preview=True)
    order("job", Event.CANCEL)
    order("dependent", Event.GIVE_UP)
    order("request", Event.ACCEPT)
    everything_under_a_lease("run")
    life.report(claim("run"), Event.FAULT, 28)

    parsed("image a", "image b", "need x")
    life.report(claim("run"), Event.FINISH)
    everything_under_a_lease("check")
    order("dependent", Event.HOLD)
    order("dependent", Event.UNHOLD)
    life.report(claim("check"), Event.SATISFY)
    order("request", Event.CANCEL)
    parsed("need y")
    life.report(claim("check"), Event.FAULT, 28)
    parsed("need z")
    order("dependent", Event.GIVE_UP)
    parsed("image a", preview=True)
    order("request", Event.CANCEL)


# -- that each invariant can fail


def row(state: str, **columns: Any) -> dict[str, Any]:
    blank = {"fault": 0, "fault_count": 0, "cause": 0, "attempt": 0, "lease_owner": "", "lease_until": 0, "retry_at": 0}
    return {"state": state, "changed_at": 0, **blank, **columns}


def job(state: str, **columns: Any) -> dict[str, Any]:
    return row(state, **{"req_id": 1, "dep_id": 0, "image": "a", **columns})


def dependent(state: str, **columns: Any) -> dict[str, Any]:
    component = {"imagedb": "g", "stage": "warp", "stage_id": 1, "component": "s"}
    return row(state, **{**component, "open_key": "g|warp|1|s" if state in ("new", "hold") else None, **columns})


def world(
    request: dict[str, Any] | None = None,
    jobs: list[dict[str, Any]] | None = None,
    dependents: list[dict[str, Any]] | None = None,
    **values: Any,
) -> World:
    """One request, which runs if nothing else is said, with these jobs, one if nothing is said; its time is 1000."""
    rows = {
        "request": {1: request or row("run")},
        "job": dict(enumerate([job("run")] if jobs is None else jobs, 1)),
        "dependent": dict(enumerate(dependents or [], 1)),
    }
    return World(1000, rows, **values)


def line(event: str, dest: str, source: str = "", attempt: int = 0, at: int = 0) -> Line:
    return Line(1, event, source, dest, 0, 0, attempt, at)


LEASED = {"lease_owner": "w1", "lease_until": 2000, "attempt": 1}
MADE, CLAIMED = line("make", "run"), line("claim", "run", "run", 1)
DONE = line("finish", "stop", "run", 1)

BROKEN = [
    ("histories_are_legal", world(), "request 1: it has no history"),
    ("histories_are_legal", world(jobs=[], lines={("request", 1): [line("make", "new"), line("parse", "run", "new")],
                                                  ("job", 7): [MADE]}), "job 7: has a history, but is gone"),
    ("histories_are_legal", world(row("run", changed_at=3), [], lines={
        ("request", 1): [line("make", "new", at=4), line("parse", "run", "new", at=3)]}),
     "request 1: its history is not in order of time"),
    ("faults_go_with_states", world(row("new", fault=21)), "request 1: new with fault 21"),
    ("faults_go_with_states", world(row("stop", fault=2, cause=2)), "request 1: stop with fault 2"),
    ("faults_go_with_states", world(jobs=[job("run", fault=25)]), "job 1: run with fault 25"),
    ("faults_go_with_states", world(jobs=[job("stop", fault=9, cause=9)]), "job 1: stop with fault 9"),
    ("faults_go_with_states", world(jobs=[job("cancel")]), "job 1: cancel with fault 0"),
    ("faults_go_with_states", world(dependents=[dependent("stop")]), "dependent 1: stop with fault 0"),
    ("faults_go_with_states", world(dependents=[dependent("full", fault=1)]), "dependent 1: full with fault 1"),
    ("faults_go_with_states", world(row("odd")), "request 1: odd with fault 0"),
    ("causes_are_retryable", world(jobs=[job("stop", fault=25, cause=25)]), "job 1: fault 25 with cause 25"),
    ("causes_are_retryable", world(jobs=[job("run", fault=2)]), "job 1: fault 2 with cause 0"),
    ("causes_are_retryable", world(jobs=[job("stop", cause=2)]), "job 1: a success with cause 2"),
    ("leases_are_on_work", world(jobs=[job("run", lease_owner="w1")]), "job 1: half a lease, of w1 until 0"),
    ("leases_are_on_work", world(jobs=[job("run", lease_until=5)]), "job 1: half a lease, of nobody until 5"),
    ("leases_are_on_work", world(jobs=[job("stop", **LEASED)]), "job 1: a lease though it is stop with fault 0"),
    ("leases_are_on_work", world(jobs=[job("run", fault=2, cause=2, **LEASED)]),
     "job 1: a lease though it is run with fault 2"),
    ("attempts_count_claims", world(jobs=[job("run", attempt=1)]), "job 1: attempt 1 after 0 claims"),
    ("attempts_count_claims", world(jobs=[job("run")], dependents=[dependent("new", attempt=2)],
                                    before=world(dependents=[dependent("new", attempt=3)])),
     "dependent 1: attempt 2 after 3"),
    ("one_worker_at_a_time", world(jobs=[job("run")], lines={("job", 1): [MADE, CLAIMED, CLAIMED]}),
     "job 1: attempt 1 began under the lease of another"),
    ("one_worker_at_a_time", world(dependents=[dependent("new", lease_owner="w2", lease_until=3000, attempt=2)],
                                   before=world(dependents=[dependent("new", **LEASED)])),
     "dependent 1: w2 took it from w1, who has a lease"),
    ("ended_rows_stay", world(jobs=[job("run")], lines={("job", 1): [MADE, DONE, line("revert", "run", "stop")]}),
     "job 1: changed after its end"),
    ("ended_rows_stay", world(lines={("request", 1): [DONE, line("expire", "goto_cleaned"), DONE]}),
     "request 1: finished twice"),
    ("ended_rows_stay", world(jobs=[job("stop", fault=28)], before=world(jobs=[job("stop")])),
     "job 1: changed after its end"),
    ("ended_rows_stay", world(before=world(dependents=[dependent("full")])), "dependent 1: changed after its end"),
    ("jobs_go_with_their_request", world(jobs=[job("run", req_id=2)]), "job 1: there is no request 2"),
    ("jobs_go_with_their_request", world(row("new"), [job("stop")]), "job 1: its request 1 is not parsed"),
    *(("jobs_go_with_their_request", world(row(state), [job("run")]), f"job 1: run, though its request 1 is {state}")
      for state in ("parsed", "stop", "cancel", "goto_cleaned", "cleaned")),
    ("jobs_go_with_their_request", world(jobs=[job("parsed")]), "job 1: parsed, though its request 1 is run"),
    ("every_request_gets_an_answer", world(jobs=[]), "request 1: run without a job"),
    ("given_up_dependents_have_no_waiting_job",
     world(jobs=[job("run", dep_id=1)], dependents=[dependent("stop", fault=25)]),
     "job 1: waits for dependent 1, which was given up"),
    ("given_up_dependents_have_no_waiting_job", world(jobs=[job("run", dep_id=1)]), "job 1: there is no dependent 1"),
    ("one_open_dependent_a_component", world(dependents=[dependent("new"), dependent("hold")]),
     "dependent 2: g|warp|1|s has another, 1"),
    ("one_open_dependent_a_component", world(dependents=[dependent("full", open_key="g|warp|1|s")]),
     "dependent 1: full with key g|warp|1|s"),
    ("one_open_dependent_a_component", world(dependents=[dependent("new", open_key=None)]),
     "dependent 1: new with key None"),
    ("queues_have_what_is_due", world(jobs=[job("run", dep_id=1)], dependents=[dependent("full")], queues={"run": []}),
     "run: holds []; due are [1]"),
    ("queues_have_what_is_due", world(jobs=[job("run", dep_id=1)], dependents=[dependent("new")], queues={"run": [1]}),
     "run: holds [1]; due are []"),
    ("nobody_is_forgotten", world(jobs=[job("run", dep_id=1)], dependents=[dependent("stop", fault=25)]),
     "job 1: run, and nobody will ever look at it"),
    ("nobody_is_forgotten", world(row("parsed"), [job("run")]), "job 1: run, and nobody will ever look at it"),
    ("nobody_is_forgotten", world(row("goto_cleaned", fault=25), []),
     "request 1: goto_cleaned, and nobody will ever look at it"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "broken", "problem"), BROKEN)
def test_an_invariant_that_does_not_hold_is_named(name: str, broken: World, problem: str) -> None:
    (invariant,) = (each for each in INVARIANTS if each.__name__ == name)
    assert next(invariant(broken)) == problem
    with pytest.raises(AssertionError):
        check(broken)


def test_every_invariant_is_tested_and_numbered() -> None:
    assert list(dict.fromkeys(name for name, _, _ in BROKEN)) == [each.__name__ for each in INVARIANTS]
    assert [(each.__doc__ or "").split(".")[0] for each in INVARIANTS] == [
        str(n) for n in range(1, len(INVARIANTS) + 1)
    ]


def test_check_names_the_invariant() -> None:
    with pytest.raises(AssertionError) as refusal:
        check(world())
    assert str(refusal.value) == "histories_are_legal: request 1: it has no history"
