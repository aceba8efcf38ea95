"""Jobs whose image goes away between the parser's look and their turn: they wait for it, or learn what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mariadb
import pytest
from conftest import ENGINES, check_history
from worlds import World, sky_image

from pstamp_core.imagedb import ImageDB
from pstamp_core.imagedb import tables as t
from pstamp_core.machines import DependentState, Event, JobState
from pstamp_core.store import MACHINES, fire, jobs_to_run, pstampDependent, pstampHistory, pstampJob
from pstamp_core.tasks import report
from pstamp_core.tasks.dependents import check_dependents
from pstamp_core.tasks.finish import finish_requests
from pstamp_core.tasks.jobs import WENT, run_claimed_jobs, run_jobs
from pstamp_core.tasks.logs import log_path
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.retry import give_up_one
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.submit import submit


class Races(World):
    """A world whose warp was there when the request was parsed."""

    server_: Server

    def parsed(self) -> None:
        self.set_warp("full")
        submit(self.server_, self.request)
        parse_requests(self.server_, 1)

    def parsed_again(self) -> None:
        """Another request for the same images."""
        other = self.folder / "twice1.fits"
        other.write_bytes(self.request.read_bytes().replace(b"once_1", b"twice1"))
        submit(self.server_, other)
        parse_requests(self.server_, 1)

    def run(self) -> None:
        while run_jobs(self.server_, 100):
            pass

    def clean(self, run_state: str = "cleaned", data_state: str = "cleaned") -> None:
        """Delete the warp's pixels, as IPP does."""
        self.warp.unlink(missing_ok=True)
        with ImageDB(str(self.home / "images" / "gpc1.db")).session():
            t.warpRun.update(state=run_state).execute()
            t.warpSkyfile.update(data_state=data_state).execute()

    def make(self) -> None:
        """Make them again, and have that noticed."""
        with ImageDB(str(self.home / "images" / "gpc1.db")).session():
            t.warpRun.update(state="full").execute()
            t.warpSkyfile.update(data_state="full").execute()
        sky_image(self.warp)
        assert check_dependents(self.server_, 10) == 1

    @property
    def warp(self) -> Path:
        return self.folder / "images" / "warp.fits"

    @property
    def job(self) -> Any:
        """The job on the warp."""
        (job,) = pstampJob.select().where(pstampJob.rownum == "4")
        return job


ON_BOTH = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
def engine() -> str:
    """SQLite, unless a test says `ON_BOTH`: its database is made for each test, which takes long on MariaDB."""
    return "sqlite"


@pytest.fixture
def world(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Races]:
    if engine == "sqlite":
        yield from _served(Races(tmp_path))
    else:
        with mariadb.database(request.getfixturevalue("mysql_server")) as address:
            yield from _served(Races(tmp_path, address))


def _served(world: Races) -> Iterator[Races]:
    with world.serving() as world.server_, world.server_.store.reading():
        yield world


def ended(world: Races) -> tuple[JobState, int, str]:
    return world.job.state, world.job.fault, world.job.sentence


@ON_BOTH
def test_the_job_waits_until_its_image_is_made_again(world: Races) -> None:
    world.parsed()
    assert world.job.dep_id == 0
    world.clean()
    world.run()
    job, (dependent,) = world.job, list(pstampDependent.select())
    assert (job.state, job.fault, job.fault_count, job.dep_id) == (JobState.RUN, 0, 0, dependent.dep_id)
    assert (dependent.stage, dependent.stage_id, dependent.component, dependent.imagedb) == (
        "warp", 11, "cell", "images/gpc1.db",
    )  # fmt: skip
    assert (dependent.state, dependent.reason) == (DependentState.NEW, "cleaned, must be made again")
    last = pstampHistory.select().where(pstampHistory.row_id == job.job_id).order_by(pstampHistory.hist_id.desc())
    note = "its image was cleaned before it could be cut; it waits for dependent 1"
    assert next((line.event, line.note) for line in last if line.machine == "job") == ("release", note)
    path = log_path(world.server_, job)
    assert path is not None
    assert note in path.read_text()
    assert check_dependents(world.server_, 10) == 0
    world.clock.forward(77)
    world.make()
    world.run()
    assert ended(world)[:2] == (JobState.STOP, 0)
    assert finish_requests(world.server_, 1) == 1
    assert {row["ROWNUM"]: row["WAIT_S"] for row in report.results(world.server_, 1)} == {1: 0, 2: 0, 3: 0, 4: 77, 5: 0}
    for table in MACHINES:
        check_history(table)


@ON_BOTH
def test_jobs_of_one_image_share_the_dependent(world: Races) -> None:
    world.parsed()
    world.parsed_again()
    world.clean()
    world.run()
    jobs = list(pstampJob.select().where(pstampJob.rownum == "4"))
    assert [(job.state, job.fault, job.dep_id) for job in jobs] == [(JobState.RUN, 0, 1)] * 2
    assert pstampDependent.select().count() == 1


@ON_BOTH
def test_an_image_that_is_cleaned_again_and_again_is_not_waited_for_for_ever(world: Races) -> None:
    world.parsed()
    for _ in range(5):  # a server that stops gives it back, which does not count
        (job,) = world.server_.claim(jobs_to_run, 1, world.job.job_id)
        world.server_.store.work(lambda job=job: fire([job], Event.RELEASE, world.server_.args(), note="stops"))
        world.clock.forward(10)
    for count in range(1, 4):
        world.clean()
        world.run()
        assert (world.job.state, world.job.dep_id) == (JobState.RUN, count)
        world.make()
    world.clean()
    world.run()
    assert ended(world) == (
        JobState.STOP, 25, f"row 4: warp 11 cell: cleaned, must be made again; {WENT} 4 times",
    )  # fmt: skip
    assert pstampDependent.select().count() == 3


@pytest.mark.parametrize(
    ("states", "code", "said"),
    [
        (("purged", "purged"), 26, "row 4: warp 11 cell: deleted for good: its run is purged"),
        (("error_cleaned", "full"), 26, "row 4: warp 11 cell: lost when it was cleaned: its run is error_cleaned"),
        (("full", "full"), 25, "{warp}: no such file"),
    ],
)
def test_an_image_that_will_not_come_back(world: Races, states: tuple[str, str], code: int, said: str) -> None:
    """The reason is the image database's; where that says the image is there, it is the disk's."""
    world.parsed()
    world.clean(*states)
    world.run()
    assert ended(world) == (JobState.STOP, code, said.format(warp=world.warp))
    assert pstampDependent.select().count() == 0


def test_one_that_does_not_wait(world: Races) -> None:
    world.parsed()
    pstampJob.update(options=1 | 32768).execute()
    world.clean()
    world.run()
    assert ended(world) == (
        JobState.STOP, 25, "row 4: warp 11 cell: cleaned, must be made again; the request does not wait "
        "(OPTION_MASK bit 32768)",
    )  # fmt: skip


def test_an_image_that_the_database_does_not_know_any_more(world: Races) -> None:
    world.parsed()
    world.warp.unlink()
    with ImageDB(str(world.home / "images" / "gpc1.db")).session():
        t.warpSkyfile.delete().execute()
    world.run()
    assert ended(world) == (JobState.STOP, 25, f"{world.warp}: no such file")


def test_an_image_database_that_does_not_answer_gives_no_final_code(world: Races) -> None:
    """§8 point 3 of update-processing.md: "could not ask" is no finding."""
    world.parsed()
    world.clean()
    database = world.home / "images" / "gpc1.db"
    database.rename(world.home / "away")
    world.run()
    assert ended(world) == (JobState.RUN, 2, f"database {database}: no such table: warpSkyfile")
    assert world.job.fault_count == 1


def test_other_failures_do_not_ask(world: Races) -> None:
    """A stamp beside the image has its answer, whatever the state of the image."""
    world.parsed()
    with ImageDB(str(world.home / "images" / "gpc1.db")).session():
        t.warpRun.update(state="cleaned").execute()
        t.warpSkyfile.update(data_state="cleaned").execute()
    params = world.job.params.replace('"center": [5.0, 5.0]', '"center": [5000.0, 5.0]')
    assert params != world.job.params
    pstampJob.update(params=params).where(pstampJob.job_id == world.job.job_id).execute()
    world.run()
    assert ended(world)[:2] == (JobState.STOP, 28)


def test_a_component_that_was_given_up_lately_cools_down(world: Races) -> None:
    world.parsed()
    world.parsed_again()
    first, second = pstampJob.select().where(pstampJob.rownum == "4").order_by(pstampJob.job_id)
    world.clean()
    run_claimed_jobs(world.server_, world.server_.claim(jobs_to_run, 1, first.job_id))
    give_up_one(world.server_, "dependent", 1, "otto")
    run_claimed_jobs(world.server_, world.server_.claim(jobs_to_run, 1, second.job_id))
    dependent = pstampDependent.get_by_id(pstampJob.get_by_id(second.job_id).dep_id)
    hour = int(world.server_.settings.cooldown_seconds * 1_000_000)
    assert (dependent.dep_id, dependent.retry_at) == (2, world.clock.now + hour)
