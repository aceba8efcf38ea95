"""Histories: which chains of lines are legal, and what is said of one that is not."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import NOW, Clock, Rows

from pstamp_core.machines import DEPENDENT, JOB, REQUEST, Event, Machine
from pstamp_core.store import Store, fire, make, moment, pstampDependent, pstampHistory, pstampJob, pstampRequest
from pstamp_core.store import history as store_history
from pstamp_core.store.history import Line, chain_problem, rows_with_history, state_problem
from pstamp_core.testing import check_history, temporary_store


def lines(*texts: str) -> list[Line]:
    """Lines from ``event source dest fault cause attempt at``, where - is an empty word, numbered from 1."""
    found = []
    for number, text in enumerate(texts, 1):
        event, source, dest, *numbers = text.split()
        words = ("" if word == "-" else word for word in (event, source, dest))
        found.append(Line(number, *words, *map(int, numbers)))
    return found


def row(state: str, *numbers: int) -> dict[str, Any]:
    return {"state": state, **dict(zip(("fault", "cause", "attempt", "changed_at"), numbers, strict=True))}


MADE, CLAIMED = "make - run 0 0 0 5", "claim run run 0 0 1 6"
NEW = "make - new 0 0 0 5"
HOW = "a job is made run with fault 0, parsed with fault 0, stop with fault 10 and up"


@pytest.mark.parametrize(
    ("machine", "ended", "chain"),
    [
        (JOB, row("run", 0, 0, 0, 5), [MADE]),
        (JOB, row("stop", 25, 0, 0, 5), ["make - stop 25 0 0 5"]),
        (JOB, row("stop", 0, 0, 1, 7), [MADE, CLAIMED, "finish run stop 0 0 1 7"]),
        (JOB, row("run", 0, 0, 1, 4), [MADE, "claim run run 0 0 1 4"]),  # clocks of several hosts
        (JOB, row("stop", 25, 6, 1, 8), [MADE, CLAIMED, "lost run run 6 6 1 7", "give_up run stop 25 6 1 8"]),
        (JOB, row("cancel", 32, 0, 0, 7), [MADE, "cancel run cancel 32 0 0 7"]),
        (JOB, row("stop", 25, 5, 0, 5), ["migrate run stop 25 5 0 5"]),
        (JOB, row("stop", 25, 5, 0, 5), ["migrate limbo stop 25 5 0 5"]),
        (JOB, row("run", 0, 0, 0, 5), ["migrate run - 0 0 0 3", MADE]),  # removed; its number was given again
        (DEPENDENT, row("new", 0, 0, 9, 5), [NEW]),  # looks leave no line
        (DEPENDENT, row("full", 0, 0, 9, 6), [NEW, "satisfy new full 0 0 7 6"]),
        (DEPENDENT, row("new", 0, 2, 9, 8), [NEW, "fault new new 2 2 3 6", "revert new new 0 2 3 8"]),
        (REQUEST, row("run", 0, 0, 1, 7), [NEW, "claim new new 0 0 1 6", "parse new run 0 0 1 7"]),
    ],
)
def test_legal_chains(machine: Machine, ended: dict[str, Any], chain: list[str]) -> None:
    assert chain_problem(machine, ended, lines(*chain)) is None


@pytest.mark.parametrize(
    ("machine", "chain", "problem"),
    [
        (JOB, [], "it has no history"),
        (JOB, [CLAIMED], "line 1 of its history, claim from run to run, is no beginning; expected make or migrate"),
        (JOB, ["make - cancel 32 0 0 5"], f"line 1 of its history, make as cancel, has fault 32; {HOW}"),
        (JOB, ["make run run 0 0 0 5"], f"line 1 of its history, make from run to run, has fault 0; {HOW}"),
        (JOB, ["make - stop 0 0 0 5"], f"line 1 of its history, make as stop, has fault 0; {HOW}"),
        (JOB, ["make - run 2 0 0 5"], f"line 1 of its history, make as run, has fault 2; {HOW}"),
        (JOB, ["make - run -1 0 0 5"], f"line 1 of its history, make as run, has fault -1; {HOW}"),
        (JOB, ["migrate run new 0 0 0 5"],
         "line 1 of its history, migrate from run to new, ends in state 'new' is none of parsed, run, stop, cancel"),
        (JOB, ["make - run 0 0 1 5"], "line 1 of its history, make as run, has attempt 1; expected 0"),
        (JOB, [MADE, MADE], "line 2 of its history, make as run, does not start in run, where the line before it ends"),
        (JOB, [MADE, "finish parsed stop 0 0 0 6"],
         "line 2 of its history, finish from parsed to stop, does not start in run, where the line before it ends"),
        (JOB, [MADE, "finish run run 0 0 0 6"],
         "line 2 of its history, finish from run to run, is not in the machine's table"),
        (JOB, [MADE, "accept run stop 0 0 0 6"],
         "line 2 of its history, accept from run to stop, is not in the machine's table"),
        (JOB, [MADE, "heartbeat run run 0 0 0 6"],
         "line 2 of its history, heartbeat from run to run, leaves no line"),
        (DEPENDENT, [NEW, "claim new new 0 0 1 6"], "line 2 of its history, claim from new to new, leaves no line"),
        (JOB, [MADE, "claim run run 0 0 0 6"],
         "line 2 of its history, claim from run to run, has attempt 0 after 0"),
        (JOB, [MADE, "claim run run 0 0 2 6"],
         "line 2 of its history, claim from run to run, has attempt 2 after 0"),
        (JOB, [MADE, CLAIMED, "finish run stop 0 0 2 7"],
         "line 3 of its history, finish from run to stop, has attempt 2 after 1"),
        (DEPENDENT, [NEW, "fault new new 2 2 3 6", "revert new new 0 2 2 7"],
         "line 3 of its history, revert from new to new, has attempt 2 after 3"),
        (JOB, [MADE, CLAIMED, "fault run run 25 0 1 7"],
         "line 3 of its history, fault from run to run, ends in run with fault 25, which do not go together"),
        (JOB, ["migrate run - 0 0 0 3"], "its history ends in a row that was removed"),
    ],
)  # fmt: skip
def test_chains_that_are_not_legal(machine: Machine, chain: list[str], problem: str) -> None:
    assert chain_problem(machine, row("run", 0, 0, 0, 5), lines(*chain)) == problem


@pytest.mark.parametrize(
    ("machine", "ended", "is_legal"),
    [
        (JOB, row("run", 0, 0, 1, 6), True),
        (JOB, row("stop", 0, 0, 1, 6), False),
        (JOB, row("run", 2, 0, 1, 6), False),
        (JOB, row("run", 0, 2, 1, 6), False),
        (JOB, row("run", 0, 0, 2, 6), False),
        (JOB, row("run", 0, 0, 0, 6), False),
        (JOB, row("run", 0, 0, 1, 7), False),
        (DEPENDENT, row("new", 0, 0, 1, 6), True),
        (DEPENDENT, row("new", 0, 0, 2, 6), True),
        (DEPENDENT, row("new", 0, 0, 0, 6), False),
    ],
)
def test_the_last_line_ends_in_the_row(machine: Machine, ended: dict[str, Any], is_legal: bool) -> None:
    chain = [MADE, CLAIMED] if machine is JOB else [NEW, "revert new new 0 0 1 6"]
    state = "run" if machine is JOB else "new"
    names = {"fault": "fault", "cause": "cause", "attempt": "attempt", "changed at": "changed_at"}
    says = ", ".join([ended["state"], *(f"{name} {ended[key]}" for name, key in names.items())])
    ends = f"{state}, fault 0, cause 0, attempt 1, changed at 6"
    problem = f"its history ends in {ends}; the row says {says}"
    assert chain_problem(machine, ended, lines(*chain)) == (None if is_legal else problem)


@pytest.mark.parametrize(
    ("state", "fault", "problem"),
    [
        ("run", 0, None),
        ("run", 9, None),
        ("run", 10, "run with fault 10, which do not go together"),
        ("run", -1, "run with fault -1, which do not go together"),
        ("RUN", 0, "state 'RUN' is none of parsed, run, stop, cancel"),
        ("", 0, "state '' is none of parsed, run, stop, cancel"),
    ],
)
def test_states_and_faults(state: str, fault: int, problem: str | None) -> None:
    assert state_problem(JOB, state, fault) == problem


@pytest.mark.parametrize("portion", [1, 2, 3, 1000])
def test_rows_come_with_their_histories(
    store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    monkeypatch.setattr(store_history, "PORTION", portion)
    jobs = [rows.job(image=f"{number}") for number in range(4)]
    jobs[1].delete_instance()
    for claimed in ([jobs[0]], [jobs[2], jobs[3]], []):
        store.work(lambda some=claimed: fire(some, Event.CLAIM, rows.args()))
    store.work(lambda: fire([pstampJob.get_by_id(jobs[2].job_id)], Event.FINISH, rows.args()))
    found = list(rows_with_history(store.db, pstampJob, "t.image AS image, r.name AS name, ? AS given",
                                   "JOIN pstampRequest r ON r.req_id = t.req_id", ["x"]))  # fmt: skip
    assert [(row["number"], row["image"], row["given"]) for row, _ in found] == [
        (jobs[number].job_id, f"{number}", "x") for number in (0, 2, 3)
    ]
    assert [[line.event for line in chain] for _, chain in found] == [["claim"], ["claim", "finish"], ["claim"]]
    assert found[1][0]["state"] == "stop"
    assert list(rows_with_history(store.db, pstampDependent)) == []


def test_a_temporary_store_is_of_its_own(clock: Clock) -> None:
    at = moment(NOW)
    with temporary_store(clock) as store:
        assert store.now() == NOW
        store.work(lambda: make(pstampRequest, now=NOW, who="w", uri="x", registered=at, timestamp=at))
        second = Store(store.db.database, clock)
        with second.reading():
            assert pstampRequest.select().count() == 1
        second.db.close()
    with temporary_store() as store:
        assert pstampRequest.select().count() == 0
        assert store.now() != NOW


def test_the_check_of_histories_fails_where_it_should(store: Store, rows: Rows, clock: Clock) -> None:
    def work() -> None:
        make(pstampRequest, now=clock.now, who="w", uri="x", registered=moment(NOW), timestamp=moment(NOW))

    store.work(work)
    check_history(pstampRequest)
    (request,) = pstampRequest.select()
    clock.forward(-1)
    store.work(lambda: fire([request], Event.CLAIM, rows.args()))
    with pytest.raises(AssertionError, match=r"^request 1: Line\(.*'claim'.*\) is older than its"):
        check_history(pstampRequest)
    pstampRequest.update(fault=3).execute()
    with pytest.raises(
        AssertionError, match=r"^request 1: its history ends in new, fault 0, .* the row says new, fault 3"
    ):
        check_history(pstampRequest)
    pstampRequest.delete().execute()
    with pytest.raises(AssertionError, match=r"^request 1: has a history, but is gone$"):
        check_history(pstampRequest)
    check_history(pstampJob)
    assert pstampHistory.select().count() == 2
