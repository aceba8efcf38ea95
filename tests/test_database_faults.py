"""A database that fails, at any statement, in any way: work goes on or waits, and nothing is lost or done twice.

Faults are raised by the driver's cursor on a schedule that Hypothesis draws; a connection that breaks while the answer
to a COMMIT is on its way leaves the outcome open. PSTAMP_OVERNIGHT=1 draws a hundred times as many.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import mariadb
import pytest
from conftest import check_history
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import World

from pstamp_core import database
from pstamp_core.faults import RetryableError, UserError
from pstamp_core.store import MACHINES, Label, Store, pstampDependent, pstampHistory, pstampJob, pstampRequest
from pstamp_core.tasks import report
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.submit import submit
from pstamp_core.testing.killpoints import MYSQL_FAULTS, SQLITE_FAULTS, DatabaseFaults, around_database

OVERNIGHT = os.environ.get("PSTAMP_OVERNIGHT") == "1"
PATIENT = "lease_seconds = 600\nretry_seconds = 0\ncheck_seconds = 0\nretry_ceiling = 1000\n"
STATEMENTS = 300
"""About as many as the life of the request takes."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, World]]:
    """A world on each engine, whose server never gives up."""
    with mariadb.database(request.getfixturevalue("mysql_server")) as address:
        folder = tmp_path_factory.mktemp
        yield {
            "sqlite": World(folder("sqlite"), settings=PATIENT),
            "mysql": World(folder("mysql"), address, settings=PATIENT),
        }


def live(world: World, faults: DatabaseFaults, mend: Callable[[], None] = lambda: None) -> int:
    """Lead a request from its submission to its end, while the server's database meets `faults`.

    Returns how often they stopped whoever ran the server; he then calls `mend`, and runs it again.
    """
    stops = 0
    with world.serving() as server:

        def step(db: Any, sql: str, do: Callable[[], Any]) -> Any:
            return faults(db, sql, do) if db is server.store.db else do()

        with around_database(step), mock.patch.object(database.time, "sleep"):
            send(server, world)
            for _ in range(100):
                try:
                    run(server, workers=1)
                except RetryableError:
                    stops += 1
                    mend()
                world.clock.forward(700)
                if world.is_done():
                    return stops
                if world.waits():
                    world.set_warp("full")
    raise AssertionError("it never ends")


def send(server: Server, world: World) -> None:
    """Submit as a user does who tries again; he may learn that the request was stored all the same."""
    failed = False
    while True:
        try:
            submit(server, world.request)
        except RetryableError:
            failed = True
        except UserError:
            assert failed
            return
        else:
            return


def essence(world: World) -> dict[str, Any]:
    """What is to be the same whatever failed: numbers aside, since those of rolled back rows are not given again."""
    with world.serving() as server, server.store.reading():
        jobs = [
            (job.rownum, job.state, job.fault, job.cause, job.lease_owner, re.sub(r"web_\d+", "", job.sentence),
             [product["name"] for product in json.loads(job.result)["products"]] if job.result else [])
            for job in pstampJob.select().order_by(pstampJob.job_id)
        ]  # fmt: skip
        requests = [(row.state, row.fault, row.cause, row.name, row.lease_owner) for row in pstampRequest.select()]
        dependents = [(row.state, row.fault, row.cause, row.component) for row in pstampDependent.select()]
    files = sorted(re.sub(r"\d+(/|$)", r"N\1", name) for name in world.files() if "web" not in name)
    return {"jobs": jobs, "requests": requests, "dependents": dependents, "files": files}


def check(world: World) -> None:
    """Check the files, and the history: each row a legal chain, each ended once."""
    world.look()
    with world.serving() as server, server.store.reading():
        for table in MACHINES:
            check_history(table)
        ends = pstampHistory.select(pstampHistory.machine, pstampHistory.row_id).where(
            pstampHistory.dest.in_(["stop", "full"]) & (pstampHistory.source != pstampHistory.dest)
        )
        ended = Counter(ends.tuples())
        assert set(ended.values()) == {1}
        assert Counter(kind for kind, _ in ended) == {"request": 1, "job": 6, "dependent": 1}


def bursts(faults: Iterable[str]) -> st.SearchStrategy[dict[int, str]]:
    """Draw schedules of up to five bursts of one to ten faults each; ten are more than a unit of work bears."""
    burst = st.tuples(st.integers(1, STATEMENTS), st.integers(1, 10), st.sampled_from(sorted(faults)))
    return st.lists(burst, min_size=1, max_size=5).map(
        lambda drawn: {start + n: name for start, length, name in drawn for n in range(length)}
    )


@cache
def undisturbed(world: World) -> dict[str, Any]:
    """The end of a life without faults."""
    world.begin()
    live(world, DatabaseFaults({}))
    return essence(world)


def faulty_life(world: World, schedule: dict[int, str]) -> None:
    end = undisturbed(world)
    world.begin()
    live(world, DatabaseFaults(schedule))
    assert essence(world) == end
    check(world)


@settings(max_examples=30 * (100 if OVERNIGHT else 1), deadline=None)
@given(schedule=bursts(SQLITE_FAULTS))
def test_a_sqlite_that_fails_anywhere(worlds: dict[str, World], schedule: dict[int, str]) -> None:
    faulty_life(worlds["sqlite"], schedule)


@settings(max_examples=30 * (100 if OVERNIGHT else 1), deadline=None)
@given(schedule=bursts(MYSQL_FAULTS))
def test_a_mariadb_that_fails_anywhere(worlds: dict[str, World], schedule: dict[int, str]) -> None:
    faulty_life(worlds["mysql"], schedule)


# -- one fault at one place


PASSING = {"sqlite": "locked", "mysql": "lost"}


def test_one_passing_fault_anywhere_stops_nobody(worlds: dict[str, World], engine: str) -> None:
    world = worlds[engine]
    for number in range(1, STATEMENTS, 1 if OVERNIGHT else 17):
        world.begin()
        assert live(world, DatabaseFaults({number: PASSING[engine]})) == 0


class LostAnswer(DatabaseFaults):
    """The connection breaks while the answer to the `number`-th COMMIT is on its way; empty ones do not count."""

    def __init__(self, number: int) -> None:
        super().__init__({})
        self.number, self.wrote = number, False

    def __call__(self, db: Any, sql: str, do: Callable[[], Any]) -> Any:
        if sql == "COMMIT" and self.wrote:
            self.number -= 1
            self.schedule = {} if self.number else {self.count + 1: "lost answer"}
        self.wrote = sql != "BEGIN" and (self.wrote or not sql.startswith("SELECT"))
        return super().__call__(db, sql, do)


def test_a_commit_whose_outcome_nobody_knows(worlds: dict[str, World]) -> None:
    """Each in turn: the work is repeated, and must neither be done twice nor spoil what was done."""
    world = worlds["mysql"]
    end = undisturbed(world)
    for number in count(1):
        world.begin()
        faults = LostAnswer(number)
        live(world, faults)
        assert essence(world) == end, number
        check(world)
        if not faults.met:
            break
    assert number > 15


def test_a_submission_is_no_double_of_itself(worlds: dict[str, World]) -> None:
    world = worlds["mysql"]
    world.begin()
    with world.serving() as server, around_database(LostAnswer(2)):
        assert submit(server, world.request) == 1
    with world.serving() as server, server.store.reading():
        assert [request.req_id for request in pstampRequest.select()] == [1]
    assert [path.name for path in (world.home / "work").rglob("*.fits")] == ["web_1.fits"]


def test_an_upload_stays_when_its_request_may_be_stored(worlds: dict[str, World]) -> None:
    world = worlds["mysql"]
    world.begin()
    with (
        world.serving() as server,
        mock.patch.object(database, "TRIES", 1),
        around_database(LostAnswer(2)),
        pytest.raises(RetryableError, match=r"Lost connection to MySQL server during query$"),
    ):
        submit(server, world.request)
    world.recover()
    with world.serving() as server:
        assert {line["ERROR_CODE"] for line in report.results(server, 1)} == {0, 21, 28}


def test_a_full_disk_is_called_so(tmp_path: Path) -> None:
    """SQLite itself undoes the transaction, so that peewee's ROLLBACK fails too."""
    store = Store(str(tmp_path / "full.db"))
    store.create()
    with store.reading():
        pages = store.db.execute_sql("PRAGMA page_count").fetchone()[0]
        store.db.execute_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RetryableError, match=f"^database {tmp_path}/full.db: database or disk is full$"):
            store.work(lambda: [Label.create(label=str(n), comment="x" * 80) for n in range(1000)])
        assert Label.select().count() == 0
        store.work(lambda: [Label.create(label=str(n), comment="x" * 80) for n in range(1000)])


def test_reading_does_not_stay_with_a_broken_connection(worlds: dict[str, World]) -> None:
    world = worlds["mysql"]
    world.begin()
    with world.serving() as server:
        server.store.db.connect()
        with (
            around_database(DatabaseFaults({1: "gone"})),
            pytest.raises(RetryableError, match=r"MySQL server has gone away$"),
            server.store.reading(),
        ):
            Label.select().count()
        with server.store.reading():
            assert Label.select().count() == 0


# -- a server that is killed and started again


class Killer(DatabaseFaults):
    """Kills the server at the first statements that hold given texts; it is back at once, or when somebody asks."""

    def __init__(self, server: mariadb.MariaDB, back_at_once: dict[str, bool]) -> None:
        super().__init__({})
        self.server, self.back_at_once = server, back_at_once

    def __call__(self, db: Any, sql: str, do: Callable[[], Any]) -> Any:
        for text in [text for text in self.back_at_once if text in sql]:
            self.met.append(text)
            self.server.stop(kill=True)
            if self.back_at_once.pop(text):
                self.server.start()
        return super().__call__(db, sql, do)


def test_a_server_killed_and_started_again_in_mid_run(tmp_path: Path) -> None:
    """While a request is parsed, its jobs are run and its results are published."""
    with tempfile.TemporaryDirectory() as folder:
        server = mariadb.MariaDB(Path(folder))
        try:
            server.start()
            with mariadb.database(server.address) as address:
                world = World(tmp_path, address, settings=PATIENT)
                end = undisturbed(world)
                world.begin()
                killer = Killer(server, {"INTO `pstampJob`": True, "`result` =": False, "INTO `dsFileset`": True})
                assert live(world, killer, server.start) == 1
                assert len(killer.met) == 3
                assert essence(world) == end
                check(world)
        finally:
            server.stop(kill=True)
