"""A flood: thousands of jobs on hundreds of differences, of which nothing is left but the raw images.

Everything is made again once, however many wait for it; no cycle passes without progress, and a cycle of the checker
takes as many statements for many as for few. PSTAMP_OVERNIGHT=1 takes 5,000 jobs on 300 differences of 30 exposures.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mariadb
import pytest
from conftest import Clock
from peewee import Database, chunked
from worlds import sky_image

from pstamp_core.formats import parse_text, write_request
from pstamp_core.imagedb import ImageDB
from pstamp_core.imagedb import tables as t
from pstamp_core.imagedb.updates import WORK_TABLES
from pstamp_core.store import Label, pstampDependent, pstampHistory, pstampJob, pstampRequest
from pstamp_core.tasks import report
from pstamp_core.tasks.dependents import check_dependents
from pstamp_core.tasks.finish import finish_requests
from pstamp_core.tasks.jobs import run_jobs
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.server import add_project, make_server
from pstamp_core.tasks.submit import submit
from pstamp_core.tasks.update import update_components
from pstamp_core.testing import invariants

PROGRAM = Path(__file__).with_name("programs.py")
CHIPS, REQUESTS = ("XY31", "XY32", "XY41", "XY42"), 10
FEW = 2, 2, 20
"""Exposures, skycells and jobs."""
MANY = (30, 10, 5000) if os.environ.get("PSTAMP_OVERNIGHT") == "1" else (5, 4, 200)
STAGES = ("chip", "warp", "diff")


def fill(images: ImageDB, exposures: int, cells: int) -> None:
    """Chips, warps, and differences of each exposure and the next; all cleaned."""
    rows: dict[Any, list[dict[str, Any]]] = {table: [] for table in t.TABLES}
    cleaned, gone, full = {"state": "cleaned"}, {"data_state": "cleaned"}, {"state": "full"}
    for number in range(1, exposures + 1):
        rows[t.rawExp].append({"exp_id": number, "exp_name": f"o{number}", "camera": "GPC1", "filter": "r.00000"})
        rows[t.chipRun].append({"chip_id": number, "exp_id": number, **cleaned})
        rows[t.camRun].append({"cam_id": number, "chip_id": number, **full})
        rows[t.camProcessedExp].append({"cam_id": number})
        rows[t.fakeRun].append({"fake_id": number, "cam_id": number})
        rows[t.warpRun].append({"warp_id": number, "fake_id": number, "tess_id": "T", **cleaned})
        rows[t.diffRun].append({"diff_id": number, "tess_id": "T", "diff_mode": 1, **cleaned})
        for name in CHIPS:
            chip = {"chip_id": number, "exp_id": number, "class_id": name, "path_base": f"chip.{number}.{name}"}
            rows[t.chipProcessedImfile].append({**chip, **gone})
        for place in range(cells):
            cell = {"skycell_id": f"skycell.{place}", "tess_id": "T"}
            warp, diff = ({**gone, "path_base": f"{stage}.{number}.skycell.{place}"} for stage in ("warp", "diff"))
            rows[t.warpSkyfile].append({"warp_id": number, **cell, **warp})
            rows[t.warpSkyCellMap] += [{"warp_id": number, **cell, "class_id": name} for name in CHIPS]
            rows[t.diffSkyfile].append({"diff_id": number, "skycell_id": f"skycell.{place}", **diff})
            inputs = {"warp1": number, "warp2": number % exposures + 1, "diff_skyfile_id": number * cells + place}
            rows[t.diffInputSkyfile].append({"diff_id": number, **cell, **inputs})
    with images.session(), images.db.atomic():
        for table, some in rows.items():
            for part in chunked(some, 500):
                table.insert_many(part).execute()


@contextmanager
def counted(*databases: Database) -> Iterator[list[int]]:
    """Count the statements that are executed on some databases."""
    count = [0]
    with pytest.MonkeyPatch.context() as patch:
        for each in databases:

            def execute(sql: str, *args: Any, whole: Any = each.execute_sql, **more: Any) -> Any:
                count[0] += 1
                return whole(sql, *args, **more)

            patch.setattr(each, "execute_sql", execute)
        yield count


class Flood:
    """A server whose requests all wait for differences."""

    def __init__(self, folder: Path, address: str | None, clock: Clock, exposures: int, cells: int, jobs: int) -> None:
        self.folder, self.clock = folder / "site", clock
        (self.folder / "files").mkdir(parents=True)
        sky_image(self.folder / "files" / "good")
        images = ImageDB(str(self.folder / "images.db"))
        images.create()
        fill(images, exposures, cells)
        images.db.close()
        home = folder / "home"
        home.mkdir()
        words = [sys.executable, "-S", str(PROGRAM), "{root}", "{path_base}", "{stage}", "{stage_id}", "{component}"]
        (home / "pstamp.toml").write_text("".join(f"update_{stage} = {words}\n" for stage in ("chip", "warp", "diff")))
        self.server = make_server(home, address)
        self.server.store._clock = clock
        add_project(self.server, "gpc1", str(self.folder / "images.db"), str(self.folder))
        with self.server.store.reading():
            for number in range(3):
                Label.create(label=f"label{number}", priority=400 + number)
        self.images = self.server.imagedb_at(str(self.folder / "images.db"), str(self.folder))
        components = [(run, f"skycell.{place}") for run in range(1, exposures + 1) for place in range(cells)]
        wanted = [components[number % len(components)] for number in range(jobs)]
        for number in range(REQUESTS):
            image = "3 stamp 1 gpc1 null null byid diff"
            rows = [
                f"{row} {10 + row % 30} {10 + row % 20} 8 6 {image} {run} null {cell} null null 0 0 null 0 0"
                for row, (run, cell) in enumerate(wanted[number::REQUESTS], 1)
            ]
            path = folder / f"{number}.fits"
            write_request(path, parse_text("\n".join([f"flood_{number} 2 PROCESS ana@obs.example.edu", *rows]))[0])
            submit(self.server, path, label=f"label{number % 3}")
        assert parse_requests(self.server, REQUESTS) == REQUESTS

    def queries(self, task: Callable[..., int], *args: Any) -> tuple[int, int]:
        """Do a task until nothing is left for it; return how much it did, and with how many statements."""
        with counted(self.server.store.db, self.images.db) as count:
            done = some = task(self.server, *args)
            while some and task is not check_dependents:
                done += (some := task(self.server, *args))
        return done, count[0]

    def made(self) -> Counter[str]:
        """How often programs were started, by stage; none twice for the same component."""
        told = [path.read_text().splitlines() for path in self.folder.glob("*.told")]
        assert {len(lines) for lines in told} <= {1}
        return Counter(line.split()[0] for (line,) in told)

    def cycle(self) -> tuple[list[int], list[int]]:
        """What the tasks do once: dependents that are done with, components, jobs, requests; and their statements."""
        tasks = ((check_dependents, 5000), (update_components, 5000), (run_jobs, 100), (finish_requests, 100))
        done, queries = zip(*(self.queries(*task) for task in tasks), strict=True)
        self.clock.forward(self.server.settings.check_seconds)
        return list(done), list(queries)


@pytest.fixture
def flood(tmp_path: Path, engine: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Flood]]:
    """Makes floods on one engine."""
    with ExitStack() as stack:

        def one(*size: int) -> Flood:
            folder, address = tmp_path / str(size[0]), None
            if engine == "mysql":
                address = stack.enter_context(mariadb.database(request.getfixturevalue("mysql_server")))
            folder.mkdir()
            made = Flood(folder, address, Clock(), *size)
            stack.callback(made.server.store.db.close)
            return made

        yield one


def test_a_flood_of_jobs_on_images_of_which_nothing_is_left(flood: Callable[..., Flood]) -> None:
    assert run(flood(*FEW), *FEW) == run(flood(*MANY), *MANY)


def run(flood: Flood, exposures: int, cells: int, jobs: int) -> list[int]:
    """Let the tasks work until all is quiet; return the statements of the checker in each cycle."""
    images, chips = exposures * cells, exposures * len(CHIPS)
    with flood.server.store.reading():
        assert {(job.state.value, job.dep_id > 0) for job in pstampJob.select()} == {("run", True)}
        assert (pstampJob.select().count(), pstampDependent.select().count()) == (jobs, images)
    cycles = [flood.cycle() for _ in range(5)]
    assert [done for done, _ in cycles] == [
        [0, chips, 0, 0], [0, images, 0, 0], [0, images, 0, 0], [images, 0, jobs, REQUESTS], [0, 0, 0, 0],
    ]  # fmt: skip
    for (_, made, ran, finished), (_, *queries) in cycles:
        bounds = 10 + 30 * made, 10 + 30 * images * (ran > 0), 10 + 40 * finished
        assert all(count <= bound for count, bound in zip(queries, bounds, strict=True)), queries
    assert flood.made() == {"chip": chips, "warp": images, "diff": images}
    with flood.server.store.reading():
        assert {(row.state.value, row.fault) for row in pstampRequest.select()} == {("stop", 0)}
        assert {(row.state.value, row.fault, row.attempt) for row in pstampJob.select()} == {("stop", 0, 1)}
        lines = Counter((line.machine, line.event) for line in pstampHistory.select() if line.machine != "request")
        each_once = {("job", "make"): jobs, ("job", "claim"): jobs, ("job", "finish"): jobs}
        assert lines == each_once | {("dependent", "make"): images, ("dependent", "satisfy"): images}
        for number in range(1, REQUESTS + 1):
            assert {row["ERROR_CODE"] for row in report.results(flood.server, number)} == {0}
    invariants.check(invariants.look(flood.server.store))
    with flood.images.session():
        for stage in STAGES:
            tables = WORK_TABLES[stage]
            assert {(row.state, row.label) for row in tables.run.select()} == {("full", None)}
            assert {(row.data_state, row.fault) for row in tables.file.select()} == {("full", 0)}
        assert {row.attempts for row in t.pstampUpdate.select()} == {0}
    return [checker for _, (checker, *_) in cycles]
