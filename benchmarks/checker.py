"""The checker of dependents: statements and time of a cycle, for 1 to 3,000 that wait; on SQLite and MariaDB.

Each waits for a difference whose warp and chips were cleaned, too; thirty exposures have all the warps. The first cycle
puts chips into `update`, the second finds that nothing has changed, the third releases all jobs. The peer is the same
cycle for one dependent. MariaDB is a private server of its own, or that of PSTAMP_TEST_MYSQL.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peewee import Database, chunked

from benchmarks import table
from pstamp_core.imagedb import ImageDB
from pstamp_core.imagedb import tables as t
from pstamp_core.machines import RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import Store, moment, pstampDependent, pstampJob, pstampProject, pstampRequest
from pstamp_core.store.rules import trigger_name
from pstamp_core.tasks.dependents import check_dependents
from pstamp_core.tasks.server import Server
from tests import mariadb

WAITING = (1, 30, 300, 3000)
EXPOSURES, CHIPS, REQUESTS = 30, 4, 30
SECOND = 1_000_000


def fill_images(count: int) -> None:
    """Insert differences on as many skycells, spread over the exposures, with all they are made of; all cleaned."""
    rows: dict[Any, list[dict[str, Any]]] = {table: [] for table in t.TABLES}
    state, data_state, full = {"state": "cleaned"}, {"data_state": "cleaned"}, {"state": "full"}
    names = [f"XY{number}" for number in range(CHIPS)]
    for number in range(1, EXPOSURES + 1):
        rows[t.rawExp].append({"exp_id": number, "exp_name": f"o{number}"})
        rows[t.chipRun].append({"chip_id": number, "exp_id": number, **state})
        rows[t.chipProcessedImfile] += [
            {"chip_id": number, "exp_id": number, "class_id": name, **data_state} for name in names
        ]
        rows[t.camRun].append({"cam_id": number, "chip_id": number, **full})
        rows[t.fakeRun].append({"fake_id": number, "cam_id": number})
        rows[t.warpRun].append({"warp_id": number, "fake_id": number, **state})
        rows[t.diffRun].append({"diff_id": number, "diff_mode": 2, **state})
    for number in range(count):
        cell, run = f"skycell.{number}", number % EXPOSURES + 1
        rows[t.stackRun].append({"stack_id": number + 1, "skycell_id": cell, "tess_id": "T", **full})
        rows[t.stackSumSkyfile].append({"stack_id": number + 1})
        rows[t.warpSkyfile].append({"warp_id": run, "skycell_id": cell, "tess_id": "T", **data_state})
        rows[t.warpSkyCellMap] += [
            {"warp_id": run, "skycell_id": cell, "tess_id": "T", "class_id": name} for name in names
        ]
        rows[t.diffSkyfile].append({"diff_id": run, "skycell_id": cell, **data_state})
        rows[t.diffInputSkyfile].append(
            {"diff_id": run, "skycell_id": cell, "tess_id": "T", "warp1": run, "stack2": number + 1}
        )
    for each, some in rows.items():
        for part in chunked(some, 500):
            each.insert_many(part).execute()


def make_waiting(store: Store, count: int) -> None:
    """Insert requests whose jobs wait, one for each difference; each request was looked at a number of times before."""
    now = store.now()
    at = moment(now)
    requests = [
        {"req_id": number, "name": f"r{number}", "uri": "x", "state": RequestState.RUN, "registered": at,
         "timestamp": at, "label": f"label{number % 3}"}
        for number in range(1, REQUESTS + 1)
    ]  # fmt: skip
    dependents, jobs = [], []
    for number in range(1, count + 1):
        cell, run, request = f"skycell.{number - 1}", (number - 1) % EXPOSURES + 1, number % REQUESTS + 1
        dependents.append(
            {"dep_id": number, "stage": "diff", "stage_id": run, "component": cell, "imagedb": "images", "attempt":
             request, "open_key": f"images|diff|{run}|{cell}", "changed_at": now}
        )  # fmt: skip
        jobs.append({"req_id": request, "dep_id": number, "image": "x", "changed_at": now})
    for each, some in ((pstampRequest, requests), (pstampDependent, dependents), (pstampJob, jobs)):
        for part in chunked(some, 500):
            each.insert_many(part).execute()


@contextmanager
def counted(*databases: Database) -> Iterator[dict[Database, int]]:
    """Count the statements that are executed on each database."""
    counts = dict.fromkeys(databases, 0)
    for database in databases:

        def counting(sql: str, *args: Any, database: Any = database, **more: Any) -> Any:
            counts[database] += 1
            return type(database).execute_sql(database, sql, *args, **more)

        database.execute_sql = counting
    try:
        yield counts
    finally:
        for database in databases:
            del database.execute_sql


def finish_all() -> None:
    """Make everything full, as update servers would in a while."""
    for run in (t.chipRun, t.warpRun, t.diffRun):
        run.update(state="full").execute()
    for file in (t.chipProcessedImfile, t.warpSkyfile, t.diffSkyfile):
        file.update(data_state="full", fault=0).execute()


def measure(folder: Path, store_address: str, images_address: str, count: int) -> list[tuple[int, int, float]]:
    """Return statements on the image database and on the server's, and seconds, of the three cycles."""
    clock = [1_800_000_000 * SECOND]
    store = Store(store_address, lambda: clock[0])
    store.create()
    images = ImageDB(images_address)
    images.create()
    with images.session(), images.db.atomic():
        fill_images(count)
    with store.reading(), store.db.atomic():
        for each in (pstampRequest, pstampDependent, pstampJob):
            store.db.execute_sql(f"DROP TRIGGER IF EXISTS {trigger_name(each.__name__, 'insert')}")
        pstampProject.create(name="images", dbname="images")
        make_waiting(store, count)
    server = Server(Settings(folder), store)
    server._imagedbs["images"] = images
    cycles = []
    with store.reading(), images.session(), counted(store.db, images.db) as counts:
        for cycle in range(3):
            if cycle == 2:
                finish_all()
            counts.update(dict.fromkeys(counts, 0))
            start = time.perf_counter()
            done = check_dependents(server, count)
            cycles.append((counts[images.db], counts[store.db], time.perf_counter() - start))
            assert done == (count if cycle == 2 else 0)
            clock[0] += 10 * SECOND
    return cycles


def on_sqlite(folder: Path, count: int) -> list[tuple[int, int, float]]:
    """Measure with both databases on SQLite."""
    return measure(folder, str(folder / f"store{count}.db"), str(folder / f"images{count}.db"), count)


def main() -> None:
    """Measure, and print the numbers."""
    with tempfile.TemporaryDirectory(prefix="pstamp-bench-") as name, mariadb.server(memory="256M") as address:
        folder = Path(name)

        def on_mariadb(folder: Path, count: int) -> list[tuple[int, int, float]]:
            with mariadb.database(address) as store, mariadb.database(address) as images:
                return measure(folder, store, images, count)

        engines: dict[str, Callable[[Path, int], list[tuple[int, int, float]]]] = {
            "SQLite": on_sqlite, "MariaDB": on_mariadb
        }  # fmt: skip
        rows = []
        for engine, run in engines.items():
            alone: list[tuple[int, int, float]] = []
            for count in WAITING:
                cycles = run(folder, count)
                alone = alone or cycles
                for what, cycle, one in zip(("queues", "waits", "releases"), cycles, alone, strict=True):
                    rows.append((engine, f"{count:,}", what, cycle[0], cycle[1], f"{cycle[2] * 1e3:.0f} ms",
                                 f"{cycle[2] / count * 1e3:.2f} ms", f"{cycle[2] / one[2]:.1f}"))  # fmt: skip
    columns = (
        "engine",
        "dependents",
        "the cycle",
        "statements: images",
        "server",
        "time",
        "each",
        "ratio to one alone",
    )
    table("Cycles of the checker", columns, rows)


if __name__ == "__main__":
    main()
