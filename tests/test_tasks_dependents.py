"""Dependents: looked at together, released or closed with their jobs, whatever happens to databases and workers.

The numbers in the docstrings are those of update-processing.md: §8 lists the weaknesses, §8.1 the acceptance checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import SECOND, Clock, Rows
from test_imagedb_updates import CELL, CLEANED, FULL, World

from pstamp_core.faults import RetryableError
from pstamp_core.imagedb import ImageDB, Key, set_fault
from pstamp_core.imagedb import tables as t
from pstamp_core.machines import DependentState, Event, JobState
from pstamp_core.settings import Settings
from pstamp_core.store import Store, fire, moment, pstampDependent, pstampHistory, pstampJob, pstampProject
from pstamp_core.tasks import dependents as tasks_dependents
from pstamp_core.tasks.dependents import check_dependent, check_dependents
from pstamp_core.tasks.operate import Choice, order
from pstamp_core.tasks.parse import Plan, PlannedJob, store_plan
from pstamp_core.tasks.retry import give_up, reap, revert
from pstamp_core.tasks.server import Server

NEW, DONE, CLOSED, HELD = DependentState.NEW, DependentState.FULL, DependentState.STOP, DependentState.HOLD
DAY = 86400


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    """A server with the projects gpc1 and gpc2; it looks again after 5 s."""
    for name in ("gpc1", "gpc2"):
        ImageDB(str(tmp_path / f"{name}.db")).create()
        pstampProject.create(name=name, dbname=f"{name}.db")
    return Server(Settings(tmp_path), store)


class Images(World):
    """An image database, whose clock is the server's."""

    def __init__(self, path: Path, server: Server, clock: Clock) -> None:
        super().__init__(ImageDB(str(path)))
        self.clock, self.server = clock, server

    def process(self, *args: Any, **kwargs: Any) -> list[Any]:
        self.now = self.clock.now
        _, self.policy = tasks_dependents.image_database(self.server, "gpc1.db")
        return super().process(*args, **kwargs)


@pytest.fixture
def images(server: Server, clock: Clock, tmp_path: Path) -> Iterator[Images]:
    found = Images(tmp_path / "gpc1.db", server, clock)
    with found.db.session():
        yield found


@pytest.fixture
def wait(rows: Rows, server: Server) -> Any:
    """Makes a dependent with a job of a request of its own that waits for it."""

    def one(key: Key, imagedb: str = "gpc1.db", *, dependent: Any = None, **request: Any) -> pstampDependent:
        stage, stage_id, component = key
        values = {"stage": stage, "stage_id": stage_id, "component": component, "imagedb": imagedb}
        values |= {"open_key": f"{imagedb}|{stage}|{stage_id}|{component}", "changed_at": server.store.now()}
        made = dependent or rows.dependent(**values)
        rows.job(rows.request(**{"label": "ana"} | request), dep_id=made.dep_id, image="x.fits")
        return made

    return one


def seen(dependent: Any) -> tuple[DependentState, int, str]:
    row = pstampDependent.get_by_id(dependent.dep_id)
    return row.state, row.fault, row.reason


def jobs_of(dependent: Any) -> list[tuple[str, int, str]]:
    jobs = pstampJob.select().where(pstampJob.dep_id == dependent.dep_id).order_by(pstampJob.job_id)
    return [(job.state.value, job.fault, job.sentence) for job in jobs]


# -- a look, and what it leads to ------------------------------------------------------------------------------------


def test_an_image_that_is_there_releases_all_its_jobs(server: Server, images: Images, wait: Any) -> None:
    """§8.1 check 1: within one cycle; full in a run that is still in update."""
    dependent = wait(images.chip(11, ("update", "full")))
    wait(("chip", 11, "XY31"), dependent=dependent)
    assert check_dependents(server, 10) == 1
    assert seen(dependent) == (DONE, 0, "")
    assert jobs_of(dependent) == [("run", 0, "")] * 2
    assert len(server.store.work(lambda: server.store.claim_jobs(server.args(), 10))) == 2
    assert check_dependents(server, 10) == 0


def test_a_whole_chain(server: Server, images: Images, wait: Any, clock: Clock) -> None:
    """§8.1 check 2, to its end; what it waits for is told at every step, and each look takes place in time."""
    dependent = wait(images.whole_diff())
    said = []
    for _ in range(8):
        check_dependents(server, 10)
        said.append(seen(dependent)[2])
        assert check_dependents(server, 10) == 0  # too early
        images.process()
        clock.forward(5)
    assert seen(dependent) == (DONE, 0, "")
    assert said[:4] == [
        "waits for its warp: waits for its chip: cleaned, must be made again",
        "waits for its warp: cleaned, must be made again", "cleaned, must be made again", "",
    ]  # fmt: skip
    assert pstampHistory.select().where(pstampHistory.machine == "dependent").count() == 1
    log = (server.settings.work / f"dependents/checkdep.{dependent.dep_id}.log").read_text()
    assert [line.split(": ", 1)[1] for line in log.splitlines()] == [
        *(f"waits: {reason}" for reason in said[:3]), "full: the image is there",
    ]  # fmt: skip


def test_a_reason_that_stays_is_not_written_again(
    server: Server, images: Images, wait: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dependent = wait(images.chip(11, ("keep", "cleaned")))
    said: list[str] = []
    execute = server.store.db.execute_sql
    monkeypatch.setattr(server.store.db, "execute_sql", lambda sql, *args: (said.append(sql), execute(sql, *args))[1])
    for _ in range(3):
        check_dependents(server, 10)
        clock.forward(5)
    assert seen(dependent) == (NEW, 0, "an operator holds it (keep)")
    updates = [sql for sql in said if sql.startswith("UPDATE") and "reason" in sql.partition("WHERE")[0]]
    assert len(updates) == 1


@pytest.mark.parametrize(
    ("state", "fault", "reason"),
    [("purged", 26, "deleted for good: its run is purged"), ("drop", 26, "deleted for good: its run is drop"),
     ("odd", 25, "in a state that this server does not know ('odd'); an operator must look")],
)  # fmt: skip
def test_what_can_not_be_had_closes_it_and_stops_its_jobs(
    server: Server, images: Images, wait: Any, clock: Clock, state: str, fault: int, reason: str
) -> None:
    """§8.1 check 9, §8 points 2, 12, 13: closed within one cycle, with the same code for all that wait."""
    dependent = wait(images.chip(11))
    wait(("chip", 11, "XY31"), dependent=dependent)
    check_dependents(server, 10)
    images.set(("chip", 11, "XY31"), state)
    clock.forward(5)
    assert check_dependents(server, 10) == 1
    assert seen(dependent) == (CLOSED, fault, reason)
    assert jobs_of(dependent) == [("stop", fault, reason)] * 2
    assert pstampDependent.get().open_key is None
    for table in (pstampDependent, pstampJob):
        notes = pstampHistory.select().where(pstampHistory.note == reason)
        assert notes.where(pstampHistory.machine == ("job" if table is pstampJob else "dependent")).exists()


def test_three_failures_and_a_later_request(
    server: Server, images: Images, wait: Any, clock: Clock, rows: Rows
) -> None:
    """§8.1 check 6, §8 points 9-12: three real tries; 25, the cause kept; after the cool-down a new attempt."""
    dependent = wait(images.chip(11))
    for count in (1, 2, 3):
        assert check_dependents(server, 10) == 0
        images.process(lambda _: 2)
        clock.forward(5)
        assert check_dependents(server, 10) == (count == 3)  # sees it more often than it is tried
        assert images.effort(("chip", 11, "XY31")).attempts == count
        clock.forward(40)
    failed = (
        "3 tries to make it failed, the last with fault 2: A disk, network or system call failed; given up for now, "
    )
    failed += "a later request has it tried again"
    assert seen(dependent) == (CLOSED, 25, failed)
    closed = pstampDependent.get()
    assert closed.cause == pstampJob.get().cause == 2
    assert jobs_of(dependent) == [("stop", 25, failed)]
    later = request_for(server, rows, ("chip", 11, "XY31"))
    assert check_dependents(server, 10) == 0
    clock.now = later.retry_at
    check_dependents(server, 10)
    assert seen(later)[:2] == (NEW, 0)
    images.process()
    clock.forward(5)
    assert check_dependents(server, 10) == 1
    assert seen(later) == (DONE, 0, "")
    assert pstampDependent.select().count() == 2


def test_what_the_program_said_reaches_those_who_wait(server: Server, images: Images, wait: Any, clock: Clock) -> None:
    """Through all that is made of it, into the answer of the job; what others failed with is not put into its mouth."""
    chip = images.chip(11)
    dependent = wait(images.warp(11))

    def fail(fault: int, reason: str) -> str:
        clock.forward(100)
        check_dependents(server, 10)
        _, policy = tasks_dependents.image_database(server, "gpc1.db")
        assert set_fault(images.db, chip, fault, policy, clock.now, reason)
        clock.forward(5)
        check_dependents(server, 10)
        return seen(dependent)[2]

    again = "; tried again after a while"
    assert fail(2, "no detrend") == f"waits for its chip: a try to make it failed, with fault 2: no detrend{again}"
    t.chipProcessedImfile.update(fault=3).execute()
    clock.forward(5)
    check_dependents(server, 10)
    assert seen(dependent)[2] == (
        "waits for its chip: 2 tries to make it failed, the last with fault 3: The server is set up wrongly; its "
        f"operators must look{again}"
    )
    answer = fail(2, "disk full")
    assert answer == (
        "can't be made again without its chip: 3 tries to make it failed, the last with fault 2: disk full; given up "
        "for now, a later request has it tried again"
    )
    assert jobs_of(dependent) == [("stop", 25, answer)]


def test_what_the_program_said_of_what_is_gone(server: Server, images: Images, wait: Any, clock: Clock) -> None:
    chip = images.chip(11)
    dependent = wait(chip)
    check_dependents(server, 10)
    _, policy = tasks_dependents.image_database(server, "gpc1.db")
    assert set_fault(images.db, chip, 26, policy, clock.now, "the raw file is lost")
    assert images.effort(chip).attempts == 0
    clock.forward(5)
    check_dependents(server, 10)
    assert jobs_of(dependent) == [("stop", 26, "deleted for good (fault 26): the raw file is lost")]


@pytest.fixture
def cooling(server: Server, images: Images, wait: Any, clock: Clock, rows: Rows) -> pstampDependent:
    """A dependent that waits until its warp may be tried again, whose chip was given up."""
    images.chip(11)
    wait(images.warp(11))
    for _ in range(3):
        check_dependents(server, 10)
        images.process(lambda _: 2)
        clock.forward(100)
    check_dependents(server, 10)
    return request_for(server, rows, ("warp", 11, CELL))


def test_an_operator_ends_a_cool_down(server: Server, images: Images, cooling: pstampDependent, clock: Clock) -> None:
    """With all tries for what it is made of; a rehearsal does nothing of that."""
    chip, choice = ("chip", 11, "XY31"), Choice("dependent", (cooling.dep_id,))
    assert cooling.retry_at > clock.now
    before = images.all_rows()
    expected = order(server, Event.REVERT, choice, "otto", dry_run=True)
    assert images.all_rows() == before
    assert pstampDependent.get_by_id(cooling.dep_id).retry_at == cooling.retry_at
    assert order(server, Event.REVERT, choice, "otto", "disk is back", expected=expected) == expected
    assert check_dependents(server, 10) == 0
    assert seen(cooling)[2] == (
        "waits for its chip: a try to make it failed, with fault 2: A disk, network or system call failed; to be tried "
        "again"
    )
    for count in (1, 2):
        images.process(lambda _: 2)
        assert images.effort(chip).attempts == count
        clock.forward(100)
        assert check_dependents(server, 10) == 0
    for _ in range(3):
        images.process()
        clock.forward(5)
        check_dependents(server, 10)
    assert seen(cooling) == (DONE, 0, "")


def test_a_cool_down_does_not_end_where_the_image_database_does_not_answer(
    server: Server, cooling: pstampDependent, clock: Clock, tmp_path: Path
) -> None:
    """Nothing is done by halves; but what is faulted by that can be reverted."""
    (tmp_path / "gpc1.db").rename(tmp_path / "away.db")
    server._imagedbs.clear()
    choice = Choice("dependent", (cooling.dep_id,))
    with pytest.raises(RetryableError, match=r"gpc1\.db: no such file$"):
        order(server, Event.REVERT, choice, "otto")
    assert pstampDependent.get_by_id(cooling.dep_id).retry_at == cooling.retry_at
    clock.now = cooling.retry_at
    check_dependents(server, 10)
    assert seen(cooling)[:2] == (NEW, 2)
    order(server, Event.REVERT, choice, "otto")
    assert seen(cooling)[:2] == (NEW, 0)


def request_for(server: Server, rows: Rows, key: Key) -> pstampDependent:
    """What the parser does for one image that is not there."""
    need = dict(zip(("stage", "stage_id", "component"), key, strict=True)) | {"imagedb": "gpc1.db", "reason": "cleaned"}
    request = rows.request(state=type(rows.request().state).NEW, registered=moment(server.store.now()))
    (claimed,) = server.store.work(lambda: fire([request], Event.CLAIM, server.args()))
    plan = Plan(jobs=[PlannedJob({"image": "x", "state": JobState.RUN}, need)])
    server.store.work(lambda: store_plan(server, claimed, plan))
    return pstampDependent.select().order_by(pstampDependent.dep_id.desc()).get()


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_an_image_database_that_does_not_answer(
    server: Server, images: Images, wait: Any, clock: Clock, tmp_path: Path
) -> None:
    """§8.1 check 7, §8 point 3: its dependents alone are faulted, and tried again with a back-off."""
    there = wait(images.chip(11, FULL))
    away = [wait(("chip", number, "XY31"), "gpc2.db") for number in (1, 2)]
    (tmp_path / "gpc2.db").rename(tmp_path / "away.db")
    assert check_dependents(server, 10) == 1
    assert seen(there)[0] is DONE
    for each in away:
        assert seen(each) == (NEW, 2, f"database {tmp_path}/gpc2.db: no such file")
        assert pstampDependent.get_by_id(each.dep_id).retry_at == clock.now + 10 * SECOND
        assert jobs_of(each) == [("run", 0, "")]
    revert(server)
    assert check_dependents(server, 10) == 0
    (tmp_path / "away.db").rename(tmp_path / "gpc2.db")
    clock.forward(10)
    revert(server)
    other = ImageDB(str(tmp_path / "gpc2.db"))
    with other.session():
        World(other).chip(1, FULL)
    assert check_dependents(server, 10) == 1
    assert [seen(each)[0] for each in away] == [DONE, NEW]


def test_a_table_that_is_missing(server: Server, images: Images, wait: Any) -> None:
    """A query that fails is no finding."""
    images.chip(11)
    dependent = wait(images.warp(11))
    t.warpSkyCellMap.drop_table()
    check_dependents(server, 10)
    state, fault, reason = seen(dependent)
    assert (state, fault) == (NEW, 2)
    assert "warpSkyCellMap" in reason


def test_a_component_that_is_not_in_the_database(server: Server, images: Images, wait: Any) -> None:
    """It was there when the request was parsed, so that somebody must look; others are not kept from their images."""
    there, lost = wait(images.chip(11, FULL)), wait(("chip", 99, "XY31"))
    odd = wait(("foo", 1, "x"))
    assert check_dependents(server, 10) == 1
    assert seen(there)[0] is DONE
    assert seen(lost) == (NEW, 4, "chip 99 XY31: not in image database gpc1.db")
    assert seen(odd) == (NEW, 4, "foo 1 x: not in image database gpc1.db")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_checker_that_is_killed_once_it_has_queued(
    server: Server, images: Images, wait: Any, clock: Clock, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """§8.1 check 10: the next look finds the same decision harmless."""
    dependent = wait(images.chip(11))
    store_it = tasks_dependents._fire

    def killed(*args: Any) -> None:
        if when == "after":
            store_it(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tasks_dependents, "_fire", killed)
        with pytest.raises(KeyboardInterrupt):
            check_dependents(server, 10)
    rows = images.all_rows()
    clock.forward(601)
    reap(server)
    assert seen(dependent)[:2] == (NEW, 6)
    clock.forward(10)
    revert(server)
    check_dependents(server, 10)
    assert seen(dependent) == (NEW, 0, "being made again")
    assert images.all_rows() == rows
    images.process()
    clock.forward(5)
    assert check_dependents(server, 10) == 1


def test_one_that_was_taken_over_does_not_hold_up_the_others(
    server: Server, images: Images, wait: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, lost, last = (wait(images.chip(number, FULL)) for number in (11, 12, 13))
    look = tasks_dependents.look

    def slow(*args: Any) -> Any:
        found = look(*args)
        clock.forward(601)
        row = pstampDependent.get_by_id(lost.dep_id)
        server.store.work(lambda: fire([row], Event.LOST, server.args(who="reaper")))
        return found

    monkeypatch.setattr(tasks_dependents, "look", slow)
    check_dependents(server, 10)
    assert [seen(each)[:2] for each in (first, lost, last)] == [(DONE, 0), (NEW, 6), (DONE, 0)]


def test_a_cancelled_job_is_left_as_it_is(server: Server, images: Images, wait: Any, rows: Rows) -> None:
    dependent = wait(images.chip(11, ("purged", "purged")))
    rows.job(state=JobState.CANCEL, dep_id=dependent.dep_id, fault=32)
    check_dependents(server, 10)
    assert [(state, fault) for state, fault, _ in jobs_of(dependent)] == [("stop", 26), ("cancel", 32)]


@pytest.mark.parametrize(("days", "text"), [(7.0, "7"), (0.5, "0.5")])
def test_nobody_waits_for_ever(server: Server, images: Images, wait: Any, clock: Clock, days: float, text: str) -> None:
    """§8 points 1, 2, 7: whatever keeps it, also that nobody serves the update label, or that the work hangs."""
    held, queued = wait(images.chip(11, ("wait", "cleaned"))), wait(images.chip(12))
    server.settings = replace(server.settings, longest_wait_days=days)
    check_dependents(server, 10)
    clock.forward(days * DAY)
    assert check_dependents(server, 10) == 0
    clock.forward(5)
    assert check_dependents(server, 10) == 2
    late = f"not there after {text} days"
    assert seen(held) == (CLOSED, 25, f"an operator holds it (wait); {late}")
    assert seen(queued) == (CLOSED, 25, f"being made again; {late}")


def test_unless_the_site_wants_that(server: Server, images: Images, wait: Any, clock: Clock) -> None:
    dependent = wait(images.chip(11))
    server.settings = replace(server.settings, longest_wait_days=0.0)
    check_dependents(server, 10)
    clock.forward(1000 * DAY)
    assert check_dependents(server, 10) == 0
    assert seen(dependent) == (NEW, 0, "being made again")


def test_given_up_by_its_own_faults(server: Server, images: Images, wait: Any, clock: Clock) -> None:
    dependent = wait(("chip", 99, "XY31"))
    for _ in range(3):
        check_dependents(server, 10)
        clock.forward(100)
        revert(server)
    give_up(server)
    assert seen(dependent)[:2] == (CLOSED, 25)
    assert jobs_of(dependent)[0][:2] == ("stop", 25)


# -- who waits -------------------------------------------------------------------------------------------------------


def test_the_label_of_the_most_urgent_request(server: Server, images: Images, wait: Any, rows: Rows) -> None:
    """§8.1 check 8, §8 points 5, 6: as the requests are labelled now; one regeneration, both are released."""
    for label, priority in (("low", 100), ("high", 500), ("idle", 900)):
        rows.label(label, priority, active=label != "idle")
    images.chip(11)
    images.warp(11)
    images.stack(1)
    images.stack(2)
    one, two = (images.diff(number, mode=2, warp1=11, stack2=number) for number in (1, 2))
    first, second = wait(one, label="low"), wait(two, label="low")
    wait(two, label="high", dependent=second)
    wait(two, label="idle", dependent=second)
    wait(one, label="top", dependent=first, state=type(rows.request().state).STOP)
    check_dependents(server, 10)
    assert images.run(("chip", 11, "XY31")).label == "ps_ud_high"
    for _ in range(3):
        server.store.now.__self__._clock.forward(5)
        images.process()
        check_dependents(server, 10)
    assert images.run(("chip", 11, "XY31")).label == "own"
    images.process()
    server.store.now.__self__._clock.forward(5)
    check_dependents(server, 10)
    assert [seen(each)[0] for each in (first, second)] == [DONE, DONE]


@pytest.mark.parametrize(
    ("label", "wanted"), [(None, "ps_ud_LOCAL"), ("a" * 64, "ps_ud_" + "a" * 58), ("unknown", "ps_ud_unknown")]
)
def test_labels_that_need_care(server: Server, images: Images, wait: Any, label: str | None, wanted: str) -> None:
    """§8 points 7, 22: a request without a label waits like any other."""
    wait(images.chip(11), label=label)
    check_dependents(server, 10)
    assert images.run(("chip", 11, "XY31")).label == wanted


def test_what_a_project_wants(server: Server, images: Images, wait: Any) -> None:
    """§8 point 22, and destreaking: settings of the project."""
    pstampProject.update(oldest_diff=5, need_magic=True).where(pstampProject.name == "gpc1").execute()
    images.stack(1)
    old = wait(images.diff(4, mode=4, stack1=1, stack2=1))
    young = wait(images.diff(5, mode=4, stack1=1, stack2=1))
    streaks = wait(images.chip(11, FULL))
    check_dependents(server, 10)
    assert seen(old) == (CLOSED, 26, "cleaned, and too old to be made again (before difference 5)")
    assert seen(young) == (NEW, 0, "cleaned, must be made again")
    assert seen(streaks) == (CLOSED, 24, "never destreaked")
    assert jobs_of(streaks) == [("stop", 24, "never destreaked")]


def test_the_example_of_the_operators_page(server: Server, images: Images, wait: Any, clock: Clock) -> None:
    """A cleaned chip that needs destreaking."""
    pstampProject.update(need_magic=True).where(pstampProject.name == "gpc1").execute()
    dependent = wait(images.chip(11, CLEANED, magicked=-1))
    images.destreak(11)
    said = []
    for _ in range(6):
        check_dependents(server, 10)
        said.append((seen(dependent)[2], images.run(("chip", 11, "XY31")).state, t.magicDSRun.get().state))
        images.process()
        clock.forward(5)
    assert said[:3] == [
        ("cleaned, must be made again", "update", "cleaned"), ("has to be destreaked", "full", "new"),
        ("", "full", "full"),
    ]  # fmt: skip
    assert seen(dependent)[0] is DONE


# -- one, and what it waits for --------------------------------------------------------------------------------------


def test_one_alone(server: Server, images: Images, wait: Any) -> None:
    for state, done in ((FULL, True), (CLEANED, False)):
        dependent = wait(images.chip(11 if done else 12, state))
        (claimed,) = server.store.work(lambda dependent=dependent: fire([dependent], Event.CLAIM, server.args()))
        assert check_dependent(server, claimed) is done


def test_as_many_statements_for_many_as_for_few(
    server: Server, images: Images, wait: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """§8 point 18; they were looked at more or less often before."""
    count = [0]
    execute = type(server.store.db).execute_sql

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return execute(self, *args, **kwargs)

    wait(images.chip(99, FULL))
    check_dependents(server, 1)  # which makes the tables that the image database lacks
    counts = []
    for numbers in (range(1, 4), range(10, 70)):
        for number in numbers:
            images.stack(number)
            images.chip(number)
            images.warp(number)
            wait(images.diff(number, mode=2, warp1=number, stack2=number))
        pstampDependent.update(attempt=pstampDependent.dep_id).where(pstampDependent.attempt == 0).execute()
        with monkeypatch.context() as patch:
            for database in {type(server.store.db), type(images.db.db)}:
                patch.setattr(database, "execute_sql", counting)
            for _ in range(2):
                count[0] = 0
                check_dependents(server, 1000)
                counts.append(count[0])
                clock.forward(5)
        pstampDependent.update(retry_at=clock.now + DAY * SECOND).execute()
    assert counts[:2] == counts[2:]
    assert max(counts) < 60
