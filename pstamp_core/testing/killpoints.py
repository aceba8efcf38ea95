"""Kill points and database faults: what becomes of work that is cut short at any place, without a list of places.

`killed_at` runs an action in a forked process that dies of SIGKILL at the n-th thing it does to the world: a statement
or commit, a file opened for writing, renamed, linked or removed, a folder made, an fsync. Counting n up until the
action gets through meets every place. `DatabaseFaults` makes the driver fail at chosen statements instead.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn
from unittest import mock

import pymysql
from peewee import Database, MySQLDatabase

PATIENCE = 60
"""Seconds after which a forked action counts as hanging."""

_CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
    "os.utime",
}  # fmt: skip
"""Audit events of operations that change the disk."""

Step = Callable[[Database, str, Callable[[], Any]], Any]
"""Called with the database, the statement (BEGIN, COMMIT and ROLLBACK too) and what sends it."""


@contextmanager
def around_database(step: Step) -> Iterator[None]:
    """Let `step` stand around whatever is sent to any database within the block, at the driver's cursor.

    What `step` raises, peewee treats as the driver's own exception.
    """
    cursor_of = Database.cursor

    def cursor(db: Database, *args: Any) -> _Cursor:
        return _Cursor(db, cursor_of(db, *args), step)  # type: ignore[no-untyped-call]

    with mock.patch.object(Database, "cursor", cursor):
        yield


class _Cursor:
    """A driver's cursor with a step around `execute`."""

    def __init__(self, db: Database, cursor: Any, step: Step) -> None:
        self._db, self._cursor, self._step = db, cursor, step

    def execute(self, sql: str, *params: Any) -> Any:
        return self._step(self._db, sql, lambda: self._cursor.execute(sql, *params))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


def killed_at(point: int, action: Callable[[], object], *, every: bool = True) -> str | None:
    """Run `action` in a forked process that is killed just before its `point`-th operation, counted from 1.

    The process must not use a database connection opened before, so `action` opens its own. Modules that `action`
    imports should be loaded already: loading writes files, which would count.

    Parameters
    ----------
    point : int
        Where it dies.
    action : callable
        What it does.
    every : bool
        Whether statements count that leave nothing behind by themselves: SELECT, and all in a transaction but COMMIT.
        A death before one of them is like one before the next operation that counts.

    Returns
    -------
    str or None
        The operation before which it died; None when the action got through.

    Raises
    ------
    RuntimeError
        The action raised (the message holds its traceback), or did not end within `PATIENCE` seconds.
    """
    ear, mouth = os.pipe()
    child = os.fork()
    if not child:
        _live_until(point, action, every, mouth)
    os.close(mouth)
    with os.fdopen(ear, encoding="utf-8") as stream:
        last_words = stream.read()
    _, status = os.waitpid(child, 0)
    kind, _, words = last_words.partition(" ")
    if kind not in (_KILLED, _THROUGH):
        how = f"ended with status {status} and said nothing" if not last_words else words
        raise RuntimeError(f"the action, to be killed at operation {point}, failed of itself: {how}")
    return words if kind == _KILLED else None


_KILLED, _THROUGH, _FAILED = "killed", "through", "failed"


def _live_until(point: int, action: Callable[[], object], every: bool, mouth: int) -> None:
    """Be the forked process; it never returns, and every end is a SIGKILL, so that nothing of the parent's is run."""

    def die(kind: str, words: str = "") -> None:
        os.write(mouth, f"{kind} {words}".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    left = point

    def meet(operation: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            die(_KILLED, operation)

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(PATIENCE)
    try:
        with _operations(meet, every):
            action()
    except BaseException:
        die(_FAILED, traceback.format_exc())
    die(_THROUGH)


@contextmanager
def _operations(meet: Callable[[str], None], every: bool) -> Iterator[None]:
    """Call `meet` before operations of this process on disk or database; the audit hook stays for good."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and _writes(args)):
            meet(f"{event} {args}")

    def step(db: Database, sql: str, do: Callable[[], Any]) -> Any:
        if every or sql == "COMMIT" or not (db.in_transaction() or sql.startswith(("SELECT", "BEGIN"))):
            meet(sql)
        return do()

    fsync, opened = os.fsync, io.open

    def met_fsync(handle: int) -> None:
        meet("fsync")
        fsync(handle)

    def met_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        stream = opened(file, mode, *args, **kwargs)
        if set(mode) & set("wax+"):
            meet(f"write {file}")  # there, and still empty
        return stream

    sys.addaudithook(hook)
    with (
        around_database(step),
        mock.patch.object(os, "fsync", met_fsync),
        mock.patch.object(io, "open", met_open),
        mock.patch.object(builtins, "open", met_open),
    ):
        yield


def _writes(args: tuple[Any, ...]) -> bool:
    flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


@dataclass(frozen=True)
class DriverFault:
    """A way in which a driver's `execute` fails.

    Attributes
    ----------
    error : Exception
        What the driver raises.
    cut : bool
        The connection breaks.
    late : bool
        It breaks when the statement has had its effect, and the answer is lost.
    undone : bool
        The whole transaction is rolled back with the statement.
    """

    error: Exception
    cut: bool = False
    late: bool = False
    undone: bool = False

    def strike(self, db: Any, do: Callable[[], Any]) -> NoReturn:
        """Fail in place of `do`, or after it."""
        connection = db.connection()
        if self.late:
            do()
        if self.cut:
            connection._force_close()  # as pymysql does when it finds the connection broken
        if self.undone:
            connection.rollback()
        raise type(self.error)(*self.error.args)


_GONE = pymysql.err.OperationalError(2006, "MySQL server has gone away")
_LOST = pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")
_DEADLOCK = "Deadlock found when trying to get lock; try restarting transaction"

MYSQL_FAULTS: Mapping[str, DriverFault] = {
    "lock wait": DriverFault(
        pymysql.err.OperationalError(1205, "Lock wait timeout exceeded; try restarting transaction")
    ),
    "deadlock": DriverFault(pymysql.err.OperationalError(1213, _DEADLOCK), undone=True),
    "row changed": DriverFault(pymysql.err.OperationalError(1020, "Record has changed since last read in table 'x'")),
    "gone": DriverFault(_GONE, cut=True),
    "lost": DriverFault(_LOST, cut=True),
    "lost answer": DriverFault(_LOST, cut=True, late=True),
    "no socket": DriverFault(pymysql.err.InterfaceError(0, ""), cut=True),
    "table full": DriverFault(pymysql.err.OperationalError(1114, "The table 'x' is full")),
    "disk full": DriverFault(pymysql.err.OperationalError(1021, "Disk full (/tmp); waiting for someone to free space")),
}
"""Faults of MySQL and MariaDB, by a name."""

SQLITE_FAULTS: Mapping[str, DriverFault] = {
    "locked": DriverFault(sqlite3.OperationalError("database is locked")),
    "full": DriverFault(sqlite3.OperationalError("database or disk is full")),
    "full, undone": DriverFault(sqlite3.OperationalError("database or disk is full"), undone=True),
}
"""Faults of SQLite, by a name; of a full disk it may undo the transaction by itself."""


class DatabaseFaults:
    """Faults of the database at chosen statements, raised as the driver raises them: a step for `around_database`.

    Parameters
    ----------
    schedule : mapping of int to str
        Which fault of `MYSQL_FAULTS` or `SQLITE_FAULTS`, by the engine, meets the statement of that number, counted
        from 1.

    Attributes
    ----------
    count : int
        The statements so far.
    met : list of str
        The faults so far, each with its statement.
    """

    def __init__(self, schedule: Mapping[int, str]) -> None:
        self.schedule = schedule
        self.count = 0
        self.met: list[str] = []

    def __call__(self, db: Database, sql: str, do: Callable[[], Any]) -> Any:
        """Send a statement, or let it fail."""
        self.count += 1
        name = self.schedule.get(self.count)
        if name is None:
            return do()
        fault = (MYSQL_FAULTS if isinstance(db, MySQLDatabase) else SQLITE_FAULTS)[name]
        if sql == "ROLLBACK" and not fault.cut:  # fails only with the connection
            return do()
        self.met.append(f"{name}: {sql}")
        return fault.strike(db, do)
