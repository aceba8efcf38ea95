"""The log files of requests, jobs and dependents: where they are, what is in them, and that they stop nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from worlds import World

from pstamp_core.faults import RetryableError
from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.store import pstampDependent, pstampJob, pstampRequest
from pstamp_core.tasks import jobs, operate
from pstamp_core.tasks.clean import clean_requests
from pstamp_core.tasks.dependents import check_dependents
from pstamp_core.tasks.finish import finish_requests
from pstamp_core.tasks.jobs import run_claimed_jobs, run_jobs
from pstamp_core.tasks.logs import log_files, log_path
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.retry import give_up, reap, revert
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server, find
from pstamp_core.tasks.submit import submit

DAY = "2027/01/15"  # of the tests' clock


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world whose request is submitted; its clock stands still, and a lease lasts 600 s."""
    world = World(tmp_path)
    with world.serving() as server:
        submit(server, world.request)
    return world


@pytest.fixture
def server(world: World) -> Server:
    server = world.server()
    server.worker = "w1"
    return server


def read(world: World, name: str) -> str:
    """The log of a name, without the path of the world."""
    (path,) = (world.home / "work").glob(f"**/{name}")
    return path.read_text().replace(str(world.folder), "")


def row(server: Server, machine: str, number: int = 1) -> object:
    with server.store.reading():
        return find(machine, number)


# -- where they are


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (RequestState.NEW, "psparse.5.log"), (RequestState.PARSED, "psparse.5.log"),
        (RequestState.RUN, "reqfinish.5.log"), (RequestState.CANCEL, "reqfinish.5.log"),
        (RequestState.STOP, "reqfinish.5.log"), (RequestState.GOTO_CLEANED, None), (RequestState.CLEANED, None),
    ],
)  # fmt: skip
def test_the_log_of_a_request(server: Server, tmp_path: Path, state: RequestState, name: str | None) -> None:
    request = pstampRequest(req_id=5, state=state, outdir=str(tmp_path))
    assert log_path(server, request) == (tmp_path / name if name else None)


def test_the_log_of_a_request_that_has_no_folder_yet(server: Server, world: World) -> None:
    assert log_path(server, row(server, "request")) == world.home / "work" / DAY / "1/psparse.1.log"


def test_the_logs_of_jobs_and_dependents(server: Server, world: World, tmp_path: Path) -> None:
    assert log_path(server, pstampJob(job_id=7, outputBase="/w/1/2_3_r_x.y")) == Path("/w/1/2_3_r_x.y.log")
    assert log_path(server, pstampJob(job_id=7)) is None
    own = world.home / "work/dependents/checkdep.7.log"
    assert log_path(server, pstampDependent(dep_id=7)) == own
    assert log_path(server, pstampDependent(dep_id=7, outdir="/old/5")) == Path("/old/5/checkdep.7.log")


def test_the_logs_that_are_there(server: Server, world: World) -> None:
    outdir = world.home / "work" / DAY / "1"
    assert log_files(server, row(server, "request")) == []
    parse_requests(server, 1)
    assert log_files(server, row(server, "request")) == [outdir / "psparse.1.log"]
    assert log_files(server, row(server, "job")) == []
    assert log_files(server, row(server, "job", 4)) == []  # an answer: nobody works on it
    world.set_warp("full")
    run(server, workers=1)
    assert log_files(server, row(server, "request")) == [outdir / "psparse.1.log", outdir / "reqfinish.1.log"]
    assert log_files(server, row(server, "job")) == [outdir / "1_1_r_one.log"]
    assert log_files(server, row(server, "dependent")) == [world.home / "work/dependents/checkdep.1.log"]
    with server.store.reading():
        assert pstampDependent.get().outdir == str(world.home / "work/dependents")  # for -pendingdependent's logfile
    fileset = world.home / "datastore/pstamp_results/once_1"
    assert not [path.name for path in fileset.iterdir() if path.suffix == ".log"]
    operate.expire(server, 1, "ana")
    run(server, workers=1)
    assert not outdir.exists()
    assert log_files(server, row(server, "request")) == log_files(server, row(server, "job")) == []
    assert len(log_files(server, row(server, "dependent"))) == 1


# -- what is in them


def test_every_try_is_told(server: Server, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_requests(server, 1)
    world.clock.forward(5)

    def slow(*_: object, **__: object) -> None:
        world.clock.forward(2)
        raise OSError(5, "Input/output error", "/data/one.fits")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_input_files", slow)
        run_jobs(server, 1)
    reap(server)
    revert(server)
    run_jobs(server, 1)
    assert read(world, "1_1_r_one.log") == (
        "2027-01-15 08:00:05 UTC attempt 1: begins, by w1: cuts from /images/one.fits[0]\n"
        "2027-01-15 08:00:07 UTC attempt 1: fault 2 (PS_EXIT_SYS_ERROR): Input/output error /data/one.fits; "
        "tried again after 2027-01-15 08:00:07 UTC (2.0 s)\n"
        "2027-01-15 08:00:07 UTC attempt 2: begins, by w1 (1 failed before, the last with 2: A disk, network or system "
        "call failed.): cuts from /images/one.fits[0]\n"
        "2027-01-15 08:00:07 UTC attempt 2: stop: 1_1_r_one.fits (0.0 s)\n"
    )


def test_the_last_try_and_an_answer_say_so(server: Server, world: World) -> None:
    parse_requests(server, 1)
    for _ in range(3):
        (job,) = server.store.work(lambda: server.store.claim_jobs(server.args(), 1))
        server.record(job, RetryableError("no luck"))
        revert(server)
    assert read(world, "1_1_r_one.log").splitlines()[-1] == (
        "2027-01-15 08:00:00 UTC attempt 3: fault 2 (PS_EXIT_SYS_ERROR): no luck; no try is left after 3 (0.0 s)"
    )
    give_up(server)
    run_jobs(server, 100)
    run_jobs(server, 100)
    assert "PSTAMP_NO_OVERLAP" in read(world, "5_1_r_two.log")
    assert read(world, "5_1_r_two.log").endswith("; this is final (0.0 s)\n")


def test_an_unforeseen_error_leaves_its_traceback(
    server: Server, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("so\nwhat")

    monkeypatch.setattr(jobs, "cut", broken)
    parse_requests(server, 1)
    run_jobs(server, 1)
    lines = read(world, "1_1_r_one.log").splitlines()
    assert lines[1].endswith(
        "fault 4 (PS_EXIT_PROG_ERROR): ZeroDivisionError: so what; tried again after 2027-01-15 08:00:00 UTC (0.0 s)"
    )
    assert lines[2] == "    Traceback (most recent call last):"
    assert lines[-2:] == ["    ZeroDivisionError: so", "    what"]
    assert any(line.endswith("in broken") for line in lines)


def test_a_result_that_comes_too_late_is_told(server: Server, world: World) -> None:
    parse_requests(server, 1)
    late = server.store.work(lambda: server.store.claim_jobs(server.args(), 1))
    world.clock.forward(601)
    reap(server)
    revert(server)
    other = world.server()
    other.worker = "w2"
    run_jobs(other, 1)
    run_claimed_jobs(server, late)
    lines = read(world, "1_1_r_one.log").splitlines()
    assert lines[:2] == [
        "2027-01-15 08:10:01 UTC attempt 2: begins, by w2 (1 failed before, the last with 6: The work was lost or took "
        "too long.): cuts from /images/one.fits[0]",
        "2027-01-15 08:10:01 UTC attempt 2: stop: 1_1_r_one.fits (0.0 s)",
    ]
    assert lines[-1] == (
        "2027-01-15 08:10:01 UTC attempt 1: the result is thrown away: job 1: changed by somebody else meanwhile "
        "(601.0 s)"
    )


def test_what_a_user_sent_can_not_break_a_line(server: Server, world: World) -> None:
    parse_requests(server, 1)
    (job,) = server.store.work(lambda: server.store.claim_jobs(server.args(), 1))
    server.record(job, RetryableError("a\nb\x1b[31mc\x07 d\udcff e\u2028f  \t g"))
    line = r"a b\x1b[31mc\x07 d\xdcff e f g"
    assert read(world, "1_1_r_one.log") == (
        f"2027-01-15 08:00:00 UTC attempt 1: fault 2 (PS_EXIT_SYS_ERROR): {line}; "
        "tried again after 2027-01-15 08:00:00 UTC (0.0 s)\n"
    )
    assert row(server, "job").sentence == line


def test_a_message_is_of_bounded_length(server: Server, world: World) -> None:
    parse_requests(server, 1)
    (job,) = server.store.work(lambda: server.store.claim_jobs(server.args(), 1))
    server.record(job, RetryableError("x" * 100_000))
    assert row(server, "job").sentence == "x" * 4000 + "..."
    assert len(read(world, "1_1_r_one.log")) < 4200


def test_jobs_of_one_image_have_their_own_lines(server: Server, world: World) -> None:
    parse_requests(server, 1)
    run_jobs(server, 100)
    run_jobs(server, 100)
    for name, product in (("1_1_r_one.log", "1_1_r_one.fits"), ("2_2_r_one.log", "2_2_r_one.fits")):
        assert read(world, name) == (
            "2027-01-15 08:00:00 UTC attempt 1: begins, by w1: cuts from /images/one.fits[0], one of 2 jobs\n"
            f"2027-01-15 08:00:00 UTC attempt 1: stop: {product} (0.0 s)\n"
        )


def test_parsing_and_finishing(server: Server, world: World) -> None:
    (upload,) = (world.home / "work/webreq").glob("*/*/*/web_1.fits")
    hidden = upload.rename(world.folder / "hidden")
    parse_requests(server, 1)
    hidden.rename(upload)
    revert(server)
    parse_requests(server, 1)
    begins = f"by w1{{}}: parses /home/work/webreq/{DAY}/web_1.fits\n"
    assert read(world, "psparse.1.log") == (
        "2027-01-15 08:00:00 UTC attempt 1: begins, " + begins.format("")
        + "2027-01-15 08:00:00 UTC attempt 1: fault 2 (PS_EXIT_SYS_ERROR): "
        f"/home/work/webreq/{DAY}/web_1.fits: no such file; tried again after 2027-01-15 08:00:00 UTC (0.0 s)\n"
        "2027-01-15 08:00:00 UTC attempt 2: begins, "
        + begins.format(" (1 failed before, the last with 2: A disk, network or system call failed.)")
        + "2027-01-15 08:00:00 UTC attempt 2: run: once_1; jobs: 4 to cut, 1 waiting for their image, 1 answered with "
        "code 21 (0.0 s)\n"
    )  # fmt: skip
    operate.cancel(server, "request", 1, "ana")
    finish_requests(server, 1)
    assert read(world, "reqfinish.1.log") == (
        "2027-01-15 08:00:00 UTC attempt 3: begins, by w1: publishes once_1\n"
        "2027-01-15 08:00:00 UTC attempt 3: stop: fileset pstamp_results/once_1, files: 3; jobs: 1 with code 21, "
        "5 with code 32 (0.0 s)\n"
    )


def test_the_log_of_a_dependent_grows_only_when_something_changes(server: Server, world: World) -> None:
    parse_requests(server, 1)
    for _ in range(5):
        check_dependents(server, 1)
        world.clock.forward(1)
    queued = (
        "2027-01-15 08:00:00 UTC attempt 1: waits: cleaned, must be made again\n"
        "2027-01-15 08:00:01 UTC attempt 2: waits: being made again\n"
    )
    assert read(world, "checkdep.1.log") == queued
    world.set_warp("keep")
    check_dependents(server, 1)
    check_dependents(server, 1)
    held = "2027-01-15 08:00:05 UTC attempt 6: waits: an operator holds it (keep)\n"
    assert read(world, "checkdep.1.log") == queued + held


@pytest.mark.parametrize(
    ("state", "line"),
    [("full", "full: the image is there"), ("purged", "stop, 26: deleted for good: its run is purged")],
)
def test_the_end_of_a_dependent(server: Server, world: World, state: str, line: str) -> None:
    parse_requests(server, 1)
    world.set_warp(state)
    check_dependents(server, 1)
    assert read(world, "checkdep.1.log") == f"2027-01-15 08:00:00 UTC attempt 1: {line}\n"


def test_a_look_that_fails(server: Server, world: World) -> None:
    parse_requests(server, 1)
    (world.home / "images/gpc1.db").rename(world.folder / "away.db")
    server.imagedb_at.__self__._imagedbs.clear()
    check_dependents(server, 1)
    assert read(world, "checkdep.1.log") == (
        "2027-01-15 08:00:00 UTC attempt 1: fault 2 (PS_EXIT_SYS_ERROR): database /home/images/gpc1.db: no such file; "
        "tried again after 2027-01-15 08:00:00 UTC\n"
    )


# -- in nobody's way


def test_a_log_that_can_not_be_written_stops_nothing(
    server: Server, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    parse_requests(server, 1)
    outdir = world.home / "work" / DAY / "1"
    (outdir / "1_1_r_one.log").mkdir()
    (outdir / "reqfinish.1.log").mkdir()
    (world.home / "work/dependents").write_text("in the way")
    world.set_warp("full")
    caplog.set_level(logging.WARNING, "pstamp")
    run(server, workers=1)
    assert row(server, "request").state is RequestState.STOP
    assert (row(server, "job").state, row(server, "job").fault) == (JobState.STOP, 0)
    assert row(server, "dependent").state is DependentState.FULL
    texts = [record.getMessage() for record in caplog.records]
    assert f"{outdir}/1_1_r_one.log: Is a directory, so that this is not in it: stop: 1_1_r_one.fits (0.0 s)" in texts
    assert any(text.startswith(f"{outdir}/reqfinish.1.log: Is a directory") for text in texts)
    assert any(text.startswith(f"{world.home}/work/dependents/checkdep.1.log: Not a directory") for text in texts)


def test_a_worker_that_is_late_does_not_bring_a_deleted_folder_back(server: Server, world: World) -> None:
    parse_requests(server, 1)
    late = server.store.work(lambda: server.store.claim_jobs(server.args(), 1))
    operate.cancel(server, "request", 1, "ana")
    other = world.server()
    finish_requests(other, 1)
    operate.expire(server, 1, "ana")
    clean_requests(other, 1)
    outdir = world.home / "work" / DAY / "1"
    assert not outdir.exists()
    run_claimed_jobs(server, late)
    assert not outdir.exists()


def test_finishing_that_fails_before_its_folder_is_there_has_a_log(server: Server, world: World) -> None:
    """A request that was cancelled before it was parsed."""
    operate.cancel(server, "request", 1, "ana", "not wanted")
    finish_requests(server, 1)
    assert "stop: fileset pstamp_results/once_1, files: 3; jobs: 1 with code 32" in read(world, "reqfinish.1.log")


def test_a_log_is_not_swept_and_not_taken_for_a_product(server: Server, world: World) -> None:
    world.set_warp("full")
    run(server, workers=1)
    logs = {path.name for path in (world.home / "work").glob("**/*.log")}
    assert logs == {
        "psparse.1.log", "reqfinish.1.log", "1_1_r_one.log", "2_1_r_two.log", "2_2_r_one.log", "4_1_r_warp.log",
        "5_1_r_two.log",
    }  # fmt: skip


def test_messages_also_go_to_the_logger(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pstamp")
    parse_requests(server, 1)
    check_dependents(server, 1)
    assert [record.getMessage() for record in caplog.records if "begins" not in record.getMessage()] == [
        "request 1: run: once_1; jobs: 4 to cut, 1 waiting for their image, 1 answered with code 21 (0.0 s)",
        "dependent 1: waits: cleaned, must be made again",
    ]
