"""Addresses, sessions, and units of work that are redone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pymysql
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from peewee import (
    DataError,
    IntegerField,
    IntegrityError,
    InterfaceError,
    MySQLDatabase,
    OperationalError,
    ProgrammingError,
    SqliteDatabase,
)

from pstamp_core import database
from pstamp_core.database import (
    TRIES,
    NameField,
    Table,
    UtcDateTimeField,
    connect,
    create_tables,
    must_exist,
    redact,
    session,
    unit_of_work,
    with_parts,
)
from pstamp_core.faults import Bug, FinalError, RetryableError, Stale


class Thing(Table):
    name = NameField(unique=True)
    number = IntegerField(default=0)
    at = UtcDateTimeField(null=True)


class Other(Table):
    name = NameField()


@pytest.fixture
def db(address: str) -> Iterator[Any]:
    opened = connect(address)
    with session(opened, [Thing, Other]):
        opened.drop_tables([Thing, Other], safe=True)
        create_tables(opened, [Thing, Other])
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a unit of work would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(database.time, "sleep", slept.append)
    return slept


def things(db: Any) -> list[tuple[str, int]]:
    with session(db, [Thing]):
        return [(thing.name, thing.number) for thing in Thing.select().order_by(Thing.name)]


# -- addresses


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("pstamp.db", "pstamp.db"),
        ("/srv/a b/pstamp.db", "/srv/a b/pstamp.db"),
        ("sqlite:///pstamp.db", "pstamp.db"),
        ("sqlite:////srv/pstamp.db", "/srv/pstamp.db"),
        ("sqlite:///:memory:", ":memory:"),
        ("/srv/100%/#1?.db", "/srv/100%/#1?.db"),
    ],
)
def test_a_path_is_sqlite(address: str, path: str) -> None:
    db = connect(address)
    assert isinstance(db, SqliteDatabase)
    assert db.database == path
    assert db.is_closed()


@pytest.mark.parametrize("scheme", ["mysql", "mariadb"])
def test_a_mysql_address(scheme: str) -> None:
    db = connect(f"{scheme}://a%20user:p%40ss%2Fword@db.example.org:3307/my%20stamps")
    assert isinstance(db, MySQLDatabase)
    assert db.database == "my stamps"
    expected = {"host": "db.example.org", "port": 3307, "user": "a user", "password": "p@ss/word", "ssl_disabled": True}
    assert expected.items() <= db.connect_params.items()
    assert db.connect_params["client_flag"] & pymysql.constants.CLIENT.FOUND_ROWS
    assert db.is_closed()


def test_a_short_mysql_address() -> None:
    db = connect("mysql://h/n?ssl=1")
    assert isinstance(db, MySQLDatabase)
    expected = {"host": "h", "port": 3306, "user": "", "password": "", "ssl_disabled": False}
    assert expected.items() <= db.connect_params.items()


SECRET = "s3cr3t"
EXPECTED = (
    "expected a path, sqlite:///path or mysql://user:password@host:port/name (# / ? @ in a part as %23 %2F %3F %40)"
)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("mysql://u:s3cr3t@h", "mysql://u:***@h"),
        ("mysql://u:s3cr3t@h/", "mysql://u:***@h/"),
        ("mysql://u:s3cr3t@/n", "mysql://u:***@/n"),
        ("mysql:u:s3cr3t@h/n", "mysql:***@h/n"),
        ("mysql://u:s3cr3t@h:port/n", "mysql://u:***@h:port/n"),
        ("mysql://u:s3cr3t@h:99999/n", "mysql://u:***@h:99999/n"),
        ("mysql://u:s3cr3t@[h/n", "mysql://u:***@[h/n"),
        ("mysql://u:a/s3cr3t@h/n", "mysql://u:***@h/n"),
        ("mysql://u:a#s3cr3t@h/n", "mysql://u:***@h/n"),
        ("mysql://u:a?s3cr3t@h/n", "mysql://u:***@h/n"),
        ("postgres://u:s3cr3t@h/n", "postgres://u:***@h/n"),
        ("u:s3cr3t@h/n", "u:***@h/n"),
        ("sqlite://pstamp.db", "sqlite://pstamp.db"),
        ("", ""),
        ("sqlite:///", "sqlite:///"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(address: str, shown: str) -> None:
    with pytest.raises(RetryableError) as refusal:
        connect(address)
    assert str(refusal.value) == f"database address {shown!r}: {EXPECTED}"
    assert refusal.value.fault == 3
    cause: BaseException | None = refusal.value
    while cause is not None:
        assert SECRET not in str(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("mysql://u:s3cr3t@h:1/n", "mysql://u:***@h:1/n"),
        ("mysql://u:p@s3cr3t@h/n", "mysql://u:***@h/n"),
        ("mysql://u:@h/n", "mysql://u:***@h/n"),
        ("mysql://u:u@u/u", "mysql://u:***@u/u"),
        ("mysql://u@h:3306/n", "mysql://u@h:3306/n"),
        ("mysql://h:3306/n", "mysql://h:3306/n"),
        ("/srv/pstamp.db", "/srv/pstamp.db"),
        ("sqlite:////srv/pstamp.db", "sqlite:////srv/pstamp.db"),
    ],
)
def test_redact(address: str, shown: str) -> None:
    assert redact(address) == shown


@given(st.text(alphabet="ab3:/#?%[]@.", max_size=12))
@example("5/")
def test_no_password_whatever_shows(text: str) -> None:
    address = f"mysql://user:{text}{SECRET}{text}@host:3306/name"
    assert SECRET not in redact(address)
    try:
        db = connect(address)
    except RetryableError as refusal:
        shown = str(refusal)
    else:
        shown = database._name(db)
    assert SECRET not in shown


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    db = connect("mysql://u:s3cr3t@127.0.0.1:1/n")
    for use in (lambda: unit_of_work(db, [Thing], Thing.select().count), lambda: things(db)):
        with pytest.raises(RetryableError) as refusal:
            use()
        assert str(refusal.value).startswith("database n on 127.0.0.1: Can't connect to MySQL server on '127.0.0.1'")
        assert refusal.value.fault == 2


def test_a_file_that_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for address in (str(path), f"sqlite:///{path}"):
        with pytest.raises(RetryableError) as refusal:
            must_exist(address)
        assert str(refusal.value) == f"database {path}: no such file"
        assert refusal.value.fault == 2
    path.touch()
    must_exist(str(path))
    must_exist(f"sqlite:///{path}")
    must_exist("mysql://h/n")
    with pytest.raises(RetryableError):
        must_exist(str(tmp_path))


# -- tables and fields


def test_a_table_has_the_name_of_its_class(db: Any) -> None:
    with session(db, [Thing]):
        assert {"Thing", "Other"} <= set(db.get_tables())


def test_making_tables_again_keeps_what_is_in_them(db: Any) -> None:
    unit_of_work(db, [Thing], lambda: Thing.create(name="a"))
    with session(db, [Thing, Other]):
        create_tables(db, [Thing, Other])
    assert things(db) == [("a", 0)]


@pytest.mark.parametrize("micro", [0, 1, 999_999])
def test_a_moment_comes_back_in_utc_to_the_microsecond(db: Any, micro: int) -> None:
    moment = datetime(2026, 11, 22, 23, 59, 59, micro, UTC)
    hawaii = moment.astimezone(timezone(timedelta(hours=-10)))
    for name, value in (("a", moment), ("b", hawaii), ("c", moment.replace(tzinfo=None))):
        unit_of_work(db, [Thing], lambda name=name, value=value: Thing.create(name=name, at=value))
    with session(db, [Thing]):
        assert [thing.at for thing in Thing.select()] == [moment] * 3
        assert {thing.at.tzinfo for thing in Thing.select()} == {UTC}
        assert Thing.select().where(Thing.at == hawaii).count() == 3
        assert Thing.select().where(Thing.at > hawaii).count() == 0


def test_no_moment_comes_back_as_none(db: Any) -> None:
    unit_of_work(db, [Thing], lambda: Thing.create(name="a"))
    with session(db, [Thing]):
        assert Thing.get().at is None


def test_names_compare_by_their_bytes(db: Any) -> None:
    unit_of_work(db, [Thing], lambda: [Thing.create(name=name) for name in ("a", "A", "á")])
    with session(db, [Thing]):
        assert Thing.select().where(Thing.name == "A").count() == 1


def test_the_session_settings(db: Any) -> None:
    with session(db, [Thing]):
        if isinstance(db, SqliteDatabase):
            settings = [db.pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")]
            assert settings == ["wal", 1, 1, 30000]
        else:
            seen = db.execute_sql("SELECT @@time_zone, @@sql_mode, @@tx_isolation").fetchone()
            assert seen == ("+00:00", "STRICT_ALL_TABLES", "READ-COMMITTED")


# -- sessions


def test_a_session_closes_what_it_opened(db: Any) -> None:
    with session(db, [Thing]):
        assert not db.is_closed()
        with session(db, [Other]):
            Other.select().count()
        assert not db.is_closed()
    assert db.is_closed()


def test_a_session_closes_after_an_error_too(db: Any) -> None:
    with pytest.raises(ZeroDivisionError), session(db, [Thing]):
        1 / 0  # noqa: B018
    assert db.is_closed()


def test_a_session_inside_a_unit_of_work_leaves_it_open(db: Any) -> None:
    def work() -> None:
        Thing.create(name="a")
        assert things(db) == [("a", 0)]
        Thing.create(name="b")

    unit_of_work(db, [Thing], work)
    assert things(db) == [("a", 0), ("b", 0)]


def test_tables_are_bound_only_inside(db: Any) -> None:
    with session(db, [Thing]):
        assert Thing._meta.database is db
    assert Thing._meta.database is not db


def test_threads_do_not_disturb_each_other_s_tables(tmp_path: Path) -> None:
    """Two threads within sessions of two databases, in step: each finds its own, also after the other has left."""
    step = threading.Barrier(2, timeout=10)

    def use(name: str) -> list[str]:
        db, seen = connect(str(tmp_path / name)), []
        for number in range(2):
            with session(db, [Thing]):
                step.wait()
                create_tables(db, [Thing])
                Thing.create(name=f"{name} {number}")
                step.wait()
            # The other is still inside, or inside again.
            with session(db, [Thing]):
                seen += [row.name for row in Thing.select().order_by(Thing.name)]
        return seen

    with ThreadPoolExecutor() as pool:
        one, two = pool.map(use, ("one.db", "two.db"))
    assert one == ["one.db 0", "one.db 0", "one.db 1"]
    assert two == ["two.db 0", "two.db 0", "two.db 1"]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    db = connect(str(tmp_path / "empty.db"))
    with pytest.raises(RetryableError) as refusal:
        things(db)
    assert str(refusal.value) == f"database {tmp_path}/empty.db: no such table: Thing"
    assert refusal.value.fault == 2
    assert db.is_closed()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("not a database" * 1000)
    db = connect(str(tmp_path / "a.db"))
    for use in (lambda: things(db), lambda: unit_of_work(db, [Thing], lambda: Thing.create(name="a"))):
        with pytest.raises(RetryableError) as refusal:
            use()
        assert str(refusal.value) == f"database {tmp_path}/a.db: file is not a database"


# -- units of work


def failing(times: int, error: Exception, work: Callable[[], Any]) -> Callable[[], Any]:
    """Let `work` be done, and then fail with `error`, the first `times` times."""
    left = [times]

    def run() -> Any:
        result = work()
        if left[0]:
            left[0] -= 1
            raise error
        return result

    return run


def driver_error(*args: Any) -> Exception:
    """Return an error as peewee hands it on from the driver."""
    return OperationalError(pymysql.err.OperationalError(*args), *args)


PASSING = [
    driver_error(1205, "Lock wait timeout exceeded"),
    driver_error(1213, "Deadlock found"),
    driver_error(1020, "Record has changed since last read"),
    driver_error(2006, "MySQL server has gone away"),
    driver_error(2013, "Lost connection"),
    InterfaceError(0, ""),
    OperationalError("database is locked"),
    OperationalError("database table is locked"),
    Stale("job 1: changed by somebody else meanwhile"),
]
passing = pytest.mark.parametrize("error", PASSING, ids=str)


@passing
@pytest.mark.parametrize("times", [1, TRIES - 1])
def test_a_passing_error_is_redone_whole(db: Any, naps: list[float], error: Exception, times: int) -> None:
    def work() -> int:
        Thing.create(name="a")
        return Thing.update(number=Thing.number + 1).execute()

    assert unit_of_work(db, [Thing], failing(times, error, work)) == 1
    assert things(db) == [("a", 1)]
    assert len(naps) == times


@passing
def test_after_the_last_try_it_gives_up_and_nothing_is_done(db: Any, naps: list[float], error: Exception) -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        Thing.create(name="a")
        raise error

    with pytest.raises(RetryableError) as refusal:
        unit_of_work(db, [Thing], work)
    assert len(tries) == TRIES
    assert len(naps) == TRIES - 1
    assert things(db) == []
    assert refusal.value.fault == 2
    if isinstance(error, Stale):
        assert refusal.value is error
    else:
        name = Path(db.database).name if "/" in db.database else f"{db.database} on "
        assert name in str(refusal.value)
        assert str(refusal.value).endswith(str(error.args[-1]) or ": InterfaceError")


def test_the_naps_grow(db: Any, naps: list[float]) -> None:
    with pytest.raises(Stale):
        unit_of_work(db, [Thing], failing(TRIES, Stale("x"), lambda: None))
    assert all(0.005 * 2**n <= nap <= 0.01 * 2**n for n, nap in enumerate(naps, 1))


@pytest.mark.parametrize(
    "error",
    [
        driver_error(1064, "You have an error in your SQL syntax"),
        driver_error(1045, "Access denied"),
        OperationalError("no such table: x"),
        OperationalError("disk I/O error"),
        ProgrammingError("x"),
        DataError(1406, "Data too long for column 'name'"),
        IntegrityError("UNIQUE constraint failed: Thing.name"),
    ],
    ids=str,
)
def test_any_other_error_of_the_database_is_not_redone(db: Any, naps: list[float], error: Exception) -> None:
    with pytest.raises(RetryableError) as refusal:
        unit_of_work(db, [Thing], failing(1, error, lambda: Thing.create(name="a")))
    assert naps == []
    assert things(db) == []
    assert refusal.value.__cause__ is error
    assert str(refusal.value).endswith(f": {error.args[-1]}")


@pytest.mark.parametrize("error", [FinalError("gone"), Bug("x"), ValueError("x"), KeyboardInterrupt()], ids=repr)
def test_what_is_not_of_the_database_passes_through_and_undoes(
    db: Any, naps: list[float], error: BaseException
) -> None:
    def work() -> None:
        Thing.create(name="a")
        raise error

    with pytest.raises(type(error)) as refusal:
        unit_of_work(db, [Thing], work)
    assert refusal.value is error
    assert naps == []
    assert things(db) == []


@pytest.mark.parametrize("error", [driver_error(2006, "gone away"), driver_error(2013, "lost"), InterfaceError(0, "")])
def test_after_a_lost_connection_there_is_a_new_one(db: Any, error: Exception) -> None:
    connections = []
    unit_of_work(db, [Thing], failing(1, error, lambda: connections.append(db.connection())))
    assert len(set(map(id, connections))) == 2


def test_otherwise_the_connection_is_kept(db: Any) -> None:
    connections = []
    unit_of_work(db, [Thing], failing(1, driver_error(1213, "x"), lambda: connections.append(db.connection())))
    assert len(set(map(id, connections))) == 1


def test_a_nested_unit_is_part_of_the_outer_one(db: Any, naps: list[float]) -> None:
    runs = []

    def inner() -> None:
        runs.append("inner")
        Thing.create(name="b")
        if len(runs) < 4:
            raise Stale("x")

    def outer() -> None:
        runs.append("outer")
        Thing.create(name="a")
        unit_of_work(db, [Thing], inner)

    unit_of_work(db, [Thing], outer)
    assert runs == ["outer", "inner"] * 2
    assert things(db) == [("a", 0), ("b", 0)]


def test_a_nested_unit_may_use_tables_of_its_own(db: Any) -> None:
    def outer() -> None:
        Thing.create(name="a")
        unit_of_work(db, [Other], lambda: Other.create(name="b"))
        Thing.create(name="c")

    unit_of_work(db, [Thing], outer)
    with session(db, [Other]):
        assert [other.name for other in Other.select()] == ["b"]
    assert things(db) == [("a", 0), ("c", 0)]


def test_an_outer_failure_undoes_the_nested_unit(db: Any) -> None:
    def outer() -> None:
        unit_of_work(db, [Thing], lambda: Thing.create(name="b"))
        raise FinalError("no")

    with pytest.raises(FinalError):
        unit_of_work(db, [Thing], outer)
    assert things(db) == []


def test_a_real_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another connection writes; it ends while the unit of work sleeps before its second try."""
    one, two = connect(str(tmp_path / "a.db")), connect(str(tmp_path / "a.db"))
    with session(one, [Thing]):
        create_tables(one, [Thing])
    two.pragma("busy_timeout", 0, permanent=True)
    one.connect()
    one.begin("IMMEDIATE")
    naps = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            one.commit()

    monkeypatch.setattr(database.time, "sleep", sleep)
    unit_of_work(two, [Thing], lambda: Thing.create(name="a"))
    assert len(naps) == 2
    assert things(one) == [("a", 0)]
    one.close()
    two.close()


def test_a_lock_is_asked_for_often_so_that_nobody_starves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = connect(str(tmp_path / "a.db")), connect(str(tmp_path / "a.db"))
    with session(one, [Thing]):
        create_tables(one, [Thing])
    one.connect()
    one.begin("IMMEDIATE")
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 50:
            one.commit()

    monkeypatch.setattr(database.time, "sleep", sleep)
    tries = []
    unit_of_work(two, [Thing], lambda: tries.append(Thing.create(name="a")))
    assert (len(tries), len(naps)) == (1, 50)
    assert max(naps) <= 0.004
    assert max(naps) - min(naps) > 0.001  # each at a time of its own
    one.close()
    two.close()


def test_a_lock_is_not_waited_for_without_end(tmp_path: Path, naps: list[float]) -> None:
    one, two = connect(str(tmp_path / "a.db")), connect(str(tmp_path / "a.db"))
    one.connect()
    one.begin("IMMEDIATE")
    two.connect()
    two.pragma("busy_timeout", 20)
    with pytest.raises(OperationalError, match=r"^database is locked$"):
        two.begin("IMMEDIATE")
    assert 0.02 <= sum(naps) < 0.024
    assert two.pragma("busy_timeout") == 20
    with pytest.raises(OperationalError, match=r"^near \"NOW\": syntax error$"):
        two.begin("NOW")
    one.close()
    two.close()


def test_reading_and_then_writing_is_not_overtaken(tmp_path: Path) -> None:
    """The lock is taken at the beginning, so that nobody writes between the reading and the writing."""
    one, two = connect(str(tmp_path / "a.db")), connect(str(tmp_path / "a.db"))
    with session(one, [Thing]):
        create_tables(one, [Thing])
        Thing.create(name="a")
    two.pragma("busy_timeout", 0, permanent=True)

    def work() -> None:
        number = Thing.get().number
        two.connect(reuse_if_open=True)
        with pytest.raises(OperationalError, match="locked"):
            two.execute_sql("UPDATE Thing SET number = 7")
        Thing.update(number=number + 1).execute()

    unit_of_work(one, [Thing], work)
    assert things(one) == [("a", 1)]
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("address", "parts", "expected"),
    [
        ("pstamp.db", {}, "pstamp.db"),
        ("pstamp.db", {"password": "secret", "user": "me", "port": 1}, "pstamp.db"),
        ("pstamp.db", {"name": "/srv/other.db"}, "/srv/other.db"),
        ("pstamp.db", {"name": "mysql://me@db1/x"}, "mysql://me@db1/x"),
        ("pstamp.db", {"name": "mysql://me@db1/x", "password": "a@b"}, "mysql://me:a%40b@db1/x"),
        ("pstamp.db", {"name": "ipp", "server": "db1"}, "mysql://db1/ipp"),
        ("pstamp.db", {"name": "ipp", "server": "db1", "user": "me", "port": 7}, "mysql://me@db1:7/ipp"),
        ("mysql://me:old@db1:7/ipp", {}, "mysql://me:old@db1:7/ipp"),
        ("mysql://me:old@db1:7/ipp?ssl=1", {"name": "a/b", "server": "db2"}, "mysql://me:old@db2:7/a%2Fb?ssl=1"),
        ("mysql://me:old@db1/ipp", {"password": "", "user": "a b"}, "mysql://a%20b:@db1/ipp"),
        ("mysql://me@db1/ipp", {"name": "sqlite:////srv/x.db"}, "sqlite:////srv/x.db"),
    ],
)
def test_parts_of_an_address_are_replaced(address: str, parts: dict[str, Any], expected: str) -> None:
    assert with_parts(address, **parts) == expected


def test_a_server_without_a_name_is_refused() -> None:
    with pytest.raises(RetryableError, match=r"database server db1: name a database, too \(-dbname\)") as caught:
        with_parts("pstamp.db", server="db1")
    assert caught.value.fault == 3


def test_an_address_whose_port_is_no_number_is_refused_without_its_password() -> None:
    with pytest.raises(RetryableError, match=r"mysql://me:\*\*\*@db1:x/ipp") as caught:
        with_parts("mysql://me:secret@db1:x/ipp", name="other")
    assert "secret" not in str(caught.value)
