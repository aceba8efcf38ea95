"""Workers that are late between the look at their lease and the new name of a file: nobody else is hurt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worlds import World

from pstamp_core.files import link_or_copy, publish, written
from pstamp_core.machines import JobState, RequestState
from pstamp_core.store import pstampHistory, pstampJob, pstampRequest
from pstamp_core.tasks import jobs
from pstamp_core.tasks.finish import finish_requests
from pstamp_core.tasks.jobs import run_jobs
from pstamp_core.tasks.operate import cancel
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.retry import reap, revert
from pstamp_core.tasks.submit import submit


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world whose request is parsed; its first image has two jobs."""
    world = World(tmp_path)
    with world.serving() as server:
        submit(server, world.request)
        parse_requests(server, 1)
    return world


def test_a_job_that_is_cancelled_while_it_is_published_hurts_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[int] = []

    def slow(private: Path, public: Path) -> None:
        if not cancelled:
            cancelled.append(1)
            with world.serving() as other:
                cancel(other, "job", 1, "ana")
        publish(private, public)

    monkeypatch.setattr(jobs, "publish", slow)
    with world.serving() as server, server.store.reading():
        run_jobs(server, 100)
        first, second = pstampJob.select().where(pstampJob.attempt == 1)
        assert (first.state, first.fault) == (JobState.CANCEL, 32)
        assert (second.state, second.fault, second.fault_count) == (JobState.STOP, 0, 0)
        events = pstampHistory.select(pstampHistory.event).where(
            (pstampHistory.machine == "job") & (pstampHistory.row_id == second.job_id)
        )
        assert [each.event for each in events] == ["make", "claim", "finish"]
    world.recover()
    world.look()


def test_a_worker_who_is_overtaken_while_it_publishes_spoils_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another does its jobs meanwhile, and finishing sweeps its private files away."""
    ends: list[object] = []

    def slow(private: Path, public: Path) -> None:
        if not ends:
            ends.append(None)
            world.recover()
            ends.append(world.state())
            assert not private.exists()
        publish(private, public)

    monkeypatch.setattr(jobs, "publish", slow)
    with world.serving() as server:
        run_jobs(server, 100)
    assert world.state() == ends[1]
    world.look()


@pytest.mark.parametrize("overtaken", [False, True])
def test_cutting_that_takes_long_keeps_the_leases_of_all_that_wait(
    world: World, monkeypatch: pytest.MonkeyPatch, overtaken: bool
) -> None:
    """Stamp by stamp; also when one of them was taken from it meanwhile."""
    lost: list[int] = []
    cut = jobs.cut

    def slow(*args: Any, **options: Any) -> Iterator[Any]:
        for outcome in cut(*args, **options):
            world.clock.forward(400)
            with world.serving() as other:
                lost.append(reap(other))
                if overtaken and len(lost) == 1:
                    with other.store.reading():
                        cancel(other, "job", pstampJob.get(pstampJob.attempt == 1).job_id, "ana")
            yield outcome

    monkeypatch.setattr(jobs, "cut", slow)
    monkeypatch.setattr("pstamp_core.tasks.server.time.monotonic", lambda: world.clock.now / 1e6)
    with world.serving() as server, server.store.reading():
        assert run_jobs(server, 100) == 2
        first, second = pstampJob.select().where(pstampJob.attempt == 1)
        assert first.state is (JobState.CANCEL if overtaken else JobState.STOP)
        assert second.state is JobState.STOP
    assert lost == [0, 0]
    world.recover()
    world.look()


def test_publishing_that_takes_long_keeps_its_lease(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it brings one file after the other into place; one that hangs at a file is lost."""
    lost: list[int] = []

    def slow(seconds: float) -> None:
        def place(source: Path, target: Path) -> None:
            world.clock.forward(seconds)
            with world.serving() as other:
                lost.append(reap(other))
            link_or_copy(source, target)

        monkeypatch.setattr("pstamp_core.datastore.filesets.link_or_copy", place)

    monkeypatch.setattr("pstamp_core.tasks.server.time.monotonic", lambda: world.clock.now / 1e6)
    with world.serving() as server, server.store.reading():
        while run_jobs(server, 100):
            pass
        for job in pstampJob.select().where(pstampJob.state == JobState.RUN):
            cancel(server, "job", job.job_id, "ana")
        slow(601)
        finish_requests(server, 1)
        request = pstampRequest.get()
        assert (request.state, request.fault, lost[0]) == (RequestState.RUN, 6, 1)
        world.clock.forward(60)
        revert(server)
        lost.clear()
        slow(300)
        finish_requests(server, 1)
        assert pstampRequest.get().state is RequestState.STOP
        assert len(lost) > 4
        assert set(lost) == {0}
    world.look()


def test_two_who_write_one_file_do_not_write_into_each_other(tmp_path: Path) -> None:
    """On two hosts their processes may have the same number, as they do in containers."""
    path = tmp_path / "results.fits"
    with written(path) as late, written(path) as quick:
        assert late != quick
        quick.write_text("whole")
        late.write_text("wh")
    assert [each.name for each in tmp_path.iterdir()] == ["results.fits"]
