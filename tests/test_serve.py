"""`pstamp serve`: commands that hang, die and fail; several at once; stopped, killed, without a database."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mariadb
import pytest
from conftest import Clock, Rows, _create
from serving import serving, wait_for

from pstamp_core.faults import RetryableError
from pstamp_core.machines import JobState
from pstamp_core.store import Store, pstampHistory, pstampJob
from pstamp_core.tasks import table
from pstamp_core.tasks.serve import Scheduler
from pstamp_core.tasks.server import Server
from runners import pstamp


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which faults are given up at once."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "pstamp.toml").write_text("retry_seconds = 0.0\nretry_ceiling = 1\ncheck_seconds = 0.0\n")
    return folder


def told(home: Path, image: str = "*") -> list[tuple[int, int]]:
    """The (job, attempt) pairs that the workers have claimed."""
    return [
        (int(line.split()[0]), int(line.split()[1]))
        for path in home.glob(f"{image}.[0-9]*")
        for line in path.read_text().splitlines()
    ]


def events(job: pstampJob) -> list[tuple[str, int, str]]:
    lines = pstampHistory.select().where((pstampHistory.machine == "job") & (pstampHistory.row_id == job.job_id))
    return [(line.event, line.fault, line.note) for line in lines.order_by(pstampHistory.hist_id)]


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that is dead but not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def stopped(jobs: list[pstampJob]) -> bool:
    ids = [job.job_id for job in jobs]
    return not pstampJob.select().where(pstampJob.job_id.in_(ids) & (pstampJob.state != JobState.STOP)).exists()


def test_whatever_becomes_of_a_command_its_jobs_get_an_outcome_at_once(
    store: Store, address: str, rows: Rows, home: Path, reread: Callable[..., Any]
) -> None:
    rows.label("urgent", 20000)
    urgent = rows.request(label="urgent")
    ends = {
        "hangs": "timed out after 2 s, killed",
        "is stubborn": "timed out after 2 s, killed",
        "crashes": "the command was killed by SIGSEGV",
        "gives up": "the command ended in 3",
    }
    bad = {image: [rows.job(urgent, image=image) for _ in range(2)] for image in ends}
    good = [rows.job(image="good") for _ in range(3)]
    others = rows.job(image="good", lease_owner="elsewhere.1.0f", lease_until=2**60)
    with serving(home, address, 2, "--workers", "2") as served:
        wait_for(lambda: stopped([*good, *(job for jobs in bad.values() for job in jobs)]))
        assert served.stop() == 0
    for job in good:
        assert (reread(job).fault, reread(job).attempt) == (0, 1)
    assert (reread(others).fault, reread(others).lease_owner) == (0, "elsewhere.1.0f")
    for image, jobs in bad.items():
        for job in map(reread, jobs):
            assert (job.fault, job.cause, job.fault_count, job.attempt, job.lease_owner) == (25, 6, 1, 1, "")
            assert [event[:2] for event in events(job)] == [("claim", 0), ("fault", 6), ("give_up", 25)]
            assert events(job)[1][2] == ends[image]
    children = [int(path.suffix[1:]) for path in home.glob("child.*")]
    assert len(children) == 3
    assert not any(map(lives, children))
    log = [line.split(maxsplit=2)[2] for line in served.log.splitlines()]
    for line in (
        "WARNING pstamp.job.run: one thing",
        "WARNING pstamp.job.run: and another",
        "WARNING pstamp.job.run: 2 faulted (6)",
        "INFO stopped",
    ):
        assert line in log
    for end in ends.values():
        assert any(line.startswith(f"WARNING pstamp.job.run: {end} (after ") for line in log)


@pytest.mark.parametrize("engine", ["sqlite"])
def test_told_to_stop_it_starts_nothing_new_and_lets_commands_end(
    store: Store, address: str, rows: Rows, home: Path, reread: Callable[..., Any]
) -> None:
    rows.label("urgent", 20000)
    slow, other = rows.job(rows.request(label="urgent"), image="is slow"), rows.job(image="good")
    with serving(home, address, 60, "--workers", "1") as served:
        wait_for(lambda: told(home))
        served.process.send_signal(signal.SIGINT)
        wait_for(lambda: " stops: " in served.log)
        (home / "go on").touch()
        assert served.process.wait(60) == 0
    assert (reread(slow).state, reread(slow).fault) == (JobState.STOP, 0)
    assert (reread(other).state, reread(other).attempt) == (JobState.RUN, 0)
    assert served.log.splitlines()[-1].endswith("INFO stopped")


@pytest.mark.parametrize("engine", ["sqlite"])
@pytest.mark.parametrize("grace", ["1", "1000"])
def test_what_does_not_end_in_time_is_killed_and_its_jobs_are_given_back(
    store: Store, address: str, rows: Rows, home: Path, grace: str, reread: Callable[..., Any]
) -> None:
    job = rows.job(image="is stubborn")
    with serving(home, address, 1000, "--grace", grace) as served:
        wait_for(lambda: list(home.glob("child.*")))
        served.process.send_signal(signal.SIGTERM)
        if grace == "1000":
            wait_for(lambda: " stops: " in served.log)
            served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
    (child,) = home.glob("child.*")
    assert not lives(int(child.suffix[1:]))
    job = reread(job)
    assert (job.state, job.fault, job.fault_count, job.lease_owner) == (JobState.RUN, 0, 0, "")
    assert events(job) == [("claim", 0, ""), ("release", 0, "killed, since the server stops")]
    assert "pstamp.job.run: 1 given back" in served.log


def test_several_serve_one_database_and_one_that_is_killed_takes_nothing_with_it(
    store: Store, address: str, rows: Rows, home: Path
) -> None:
    jobs = [rows.job(image=f"image {number % 12}") for number in range(300)]
    slow = rows.job(image="is slow")
    with serving(home, address, 60, "--workers", "2") as first, serving(home, address, 60, "--workers", "2"):
        wait_for(lambda: told(home, "is slow"))
        first.process.kill()
        first.process.wait()
        (home / "go on").touch()
        wait_for(lambda: stopped([*jobs, slow]))
    claims = told(home)
    assert sorted(claims) == [(job.job_id, 1) for job in [*jobs, slow]]
    assert not pstampJob.select().where(pstampJob.fault != 0).exists()


@pytest.mark.parametrize("engine", ["sqlite"])
def test_no_more_commands_run_at_once_than_there_are_workers(
    store: Store, address: str, rows: Rows, home: Path
) -> None:
    jobs = [rows.job(image=f"is slow {number}") for number in range(5)]
    with serving(home, address, 60, "--alarm", "0.02", "--workers", "2") as served:
        wait_for(lambda: served.log.count("(2 running now)") > 1)
        assert len(told(home)) == 2
        (home / "go on").touch()
        wait_for(lambda: stopped(jobs))


def test_a_database_that_is_gone_for_a_while_is_waited_for(tmp_path: Path, home: Path) -> None:
    (tmp_path / "server").mkdir()
    database = mariadb.MariaDB(tmp_path / "server")
    database.start()
    try:
        with mariadb.database(database.address) as address:
            store = Store(address)
            _create(store)
            with serving(home, address, 60, "--grace", "1") as served:
                with store.reading():
                    rows = Rows(Clock())
                    request = rows.request()
                    job = pstampJob.create(req_id=request.req_id, image="crashes")
                    later = pstampJob.create(req_id=request.req_id, image="is slow")
                    wait_for(lambda: stopped([job]) and told(home, "is slow"))
                store.db.close()
                database.stop(kill=True)
                wait_for(lambda: "ERROR looking at the queues: database " in served.log)
                (home / "go on").touch()
                wait_for(lambda: "pstamp.job.run: the command ended in" in served.log)
                database.start()
                wait_for(lambda: "WARNING looking at the queues: works again" in served.log)
                with store.reading():
                    wait_for(lambda: stopped([later]))
                    assert pstampJob.get_by_id(later.job_id).cause == 6
                    hopeless = pstampJob.create(req_id=request.req_id, image="hangs")
                    wait_for(lambda: told(home, "hangs"))
                store.db.close()
                database.stop(kill=True)
                assert served.stop() == 0
                lines = [line.split(maxsplit=2)[2] for line in served.log.splitlines()[-2:]]
                assert lines == [
                    "WARNING pstamp.job.run: left behind; what it has claimed is free when its lease has run out",
                    "INFO stopped",
                ]  # fmt: skip
            database.start()
            with store.reading():
                assert pstampJob.get_by_id(hopeless.job_id).lease_owner
            store.db.close()
    finally:
        database.stop(kill=True)


@pytest.mark.parametrize("engine", ["sqlite"])
def test_commands_that_are_missing_are_found_at_once(
    home: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table, "TASKS", (replace(table.JOBS, command=("no_such_program",)),))
    monkeypatch.setenv("PSTAMP_DB", address)
    monkeypatch.setattr(sys, "argv", ["pstamp", "serve", "--no-web", "--home", str(home)])
    with pytest.raises(SystemExit) as caught:
        pstamp.main()
    assert caught.value.code == 3
    assert capsys.readouterr().err == "pstamp: no_such_program: no such command; is pstamp installed as a whole?\n"


@pytest.mark.parametrize("engine", ["sqlite"])
def test_it_is_as_silent_as_one_wants(store: Store, address: str, rows: Rows, home: Path) -> None:
    job = rows.job(image="good")
    with serving(home, address, 60, PSTAMP_LOG="WARNING") as served:
        wait_for(lambda: stopped([job]))
        assert served.stop() == 0
        assert served.log == ""


def test_it_warns_after_each_ten_minutes_in_which_work_waits_and_no_command_ends_well(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = replace(table.JOBS, command=("true",))
    scheduler = Scheduler(server, os.environ, workers=1, tasks=(jobs,))

    def warnings(now: float, *waiting: str) -> int:
        caplog.clear()
        scheduler._clerk._waiting = frozenset(waiting)
        scheduler._warn_of_silence(now)
        for message in caplog.messages:
            assert message == (
                "pstamp.job.run: work waits, but none was done well for 10 minutes (0 running now); see: pstamp status"
            )
        return len(caplog.messages)

    assert [warnings(now, "pstamp.job.run") for now in (0, 599, 600, 601, 1199, 1200)] == [0, 0, 1, 0, 0, 1]
    assert [warnings(1300), warnings(1801), warnings(1900, "pstamp.job.run")] == [0, 0, 0]
    assert [warnings(now, "pstamp.job.run") for now in (2499, 2500)] == [0, 1]
    scheduler._start(jobs, 2600)
    (child,) = scheduler._children
    child.process.wait()
    scheduler._watch(child, 2600)
    assert [warnings(now, "pstamp.job.run") for now in (3100, 3699, 3700)] == [0, 0, 1]


def test_what_hinders_it_is_told_once_and_so_is_the_end(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    clerk = Scheduler(server, {}, workers=1)._clerk
    wrong = [RetryableError("the disk is full"), RetryableError("the disk is full"), RetryableError("no memory"), None]

    def action(error: Exception | None) -> None:
        if error:
            raise error

    for _ in range(2):
        assert [clerk._try("pstamp.reap", action, error) for error in wrong] == [False, False, False, True]
    assert clerk._try("pstamp.reap", action, None)
    assert caplog.messages == 2 * [
        "pstamp.reap: the disk is full", "pstamp.reap: no memory", "pstamp.reap: works again",
    ]  # fmt: skip
