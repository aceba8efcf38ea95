"""What the tests share: a store on each engine, a clock that stands still, and makers of rows.

The engines are SQLite and MariaDB: a private server that the tests start and stop, or the one of PSTAMP_TEST_MYSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import mariadb
import pytest
import servers

from pstamp_core.machines import Args, DependentState, Event, JobState, RequestState
from pstamp_core.machines.machine import MICROSECONDS as SECOND
from pstamp_core.store import (
    MACHINES,
    TABLES,
    Label,
    Store,
    Worked,
    fire,
    moment,
    pstampDependent,
    pstampJob,
    pstampRequest,
)
from pstamp_core.store.rules import trigger_name
from pstamp_core.tasks.server import Server
from pstamp_core.testing import NOW, Clock, check_history
from simtest.survey import Survey, simulate

__all__ = ["NOW", "SECOND", "Clock", "Rows", "check_history"]

ENGINES = ["sqlite", "mysql"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[str]:
    """The address of a MariaDB server, without a database."""
    with mariadb.server() as address:
        yield address


@pytest.fixture(scope="session")
def mysql_store(mysql_server: str) -> Iterator[str]:
    """The address of a store on MariaDB, one for all tests, which empty it: making tables takes long there."""
    with mariadb.database(mysql_server) as address:
        _create(Store(address))
        yield address


@pytest.fixture
def address(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The address of a store without rows."""
    if engine == "sqlite":
        path = str(tmp_path / "pstamp.db")
        _create(Store(path))
        return path
    filled = Store(request.getfixturevalue("mysql_store"))
    with filled.reading():
        filled.db.execute_sql("SET FOREIGN_KEY_CHECKS = 0")
        for table in TABLES:
            filled.db.execute_sql(f"TRUNCATE TABLE `{table.__name__}`")
        _allow_any_row(filled)
    filled.db.close()
    return str(request.getfixturevalue("mysql_store"))


def _create(store: Store) -> None:
    store.create()
    with store.reading():
        _allow_any_row(store)
    store.db.close()


def _allow_any_row(store: Store) -> None:
    """Drop the triggers that refuse rows made in any state: these have tests of their own."""
    for table in MACHINES:
        store.db.execute_sql(f"DROP TRIGGER IF EXISTS {trigger_name(table.__name__, 'insert')}")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(address: str, clock: Clock) -> Iterator[Store]:
    """A fresh store, connected, with its tables bound: a test reads rows by their classes."""
    fresh = Store(address, clock)
    with fresh.reading():
        yield fresh
    fresh.db.close()


@pytest.fixture
def other(store: Store, address: str, clock: Clock) -> Iterator[Store]:
    """The same database through a second connection, as another process has it."""
    second = Store(address, clock)
    yield second
    second.db.close()


class Rows:
    """Makes rows in any state, without history, in the store that is bound."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._number = count(1)

    @staticmethod
    def _reread(row: Any) -> Any:
        return type(row).get_by_id(row.id_)

    def request(self, state: RequestState = RequestState.RUN, **columns: Any) -> pstampRequest:
        at = moment(self.clock.now)
        values = {"name": f"request_{next(self._number)}", "uri": "a.fits", "registered": at, "timestamp": at}
        return self._reread(pstampRequest.create(**{**values, "state": state, **columns}))

    def job(self, request: pstampRequest | None = None, state: JobState = JobState.RUN, **columns: Any) -> pstampJob:
        request = request or self.request()
        return self._reread(
            pstampJob.create(**{"req_id": request.req_id, "image": "a.fits", "state": state, **columns})
        )

    def dependent(self, state: DependentState = DependentState.NEW, **columns: Any) -> pstampDependent:
        number = next(self._number)
        key = f"gpc1|warp|{number}|skycell.1" if state in (DependentState.NEW, DependentState.HOLD) else None
        values = {"stage": "warp", "stage_id": number, "component": "skycell.1", "imagedb": "gpc1", "open_key": key}
        return self._reread(pstampDependent.create(**{**values, "state": state, **columns}))

    def label(self, label: str, priority: int = 0, *, active: bool = True) -> Label:
        return Label.create(label=label, priority=priority, active=active)

    def args(self, owner: str = "w1", **values: Any) -> Args:
        """What worker `owner` brings with an event, now: a lease of 60 s, a back-off of 10 s per fault."""
        back_off: Callable[[int], int] = lambda faults: 10 * SECOND * faults  # noqa: E731
        usual = {"who": owner, "owner": owner, "lease": 60 * SECOND, "delay": 5 * SECOND, "backoff": back_off}
        return Args(**{"now": self.clock.now, **usual, **values})


@pytest.fixture
def rows(clock: Clock) -> Rows:
    return Rows(clock)


@pytest.fixture
def do(store: Store, rows: Rows) -> Callable[..., Any]:
    """Fire one event on one row in a unit of work of its own; returns the changed row."""

    def one(row: Worked, event: Event, owner: str = "w1", **values: Any) -> Any:
        (changed,) = store.work(lambda: fire([row], event, rows.args(owner, **values)))
        return changed

    return one


@pytest.fixture
def reread() -> Callable[..., Any]:
    """Read a row again."""
    return lambda row: type(row).get_by_id(row.id_)


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """A small simulated survey; not to be changed."""
    return simulate(tmp_path_factory.mktemp("survey") / "s", size=100)


@pytest.fixture
def server(tmp_path: Path, survey: Survey) -> Server:
    """A server with the survey as project gpc1."""
    return servers.make(tmp_path / "home", survey)
