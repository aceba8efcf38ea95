"""One way to reach a database, whichever the engine: addresses, session settings, units of work with retry.

Both our own tables (`pstamp_core.store`, `pstamp_core.datastore`) and the image databases (`pstamp_core.imagedb`) go
through here. SQLite serves one machine, MySQL and MariaDB serve many.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from peewee import (
    CharField,
    Database,
    DateTimeField,
    InterfaceError,
    Model,
    MySQLDatabase,
    OperationalError,
    PeeweeException,
    SqliteDatabase,
)
from playhouse.shortcuts import ThreadSafeDatabaseMetadata

from pstamp_core.faults import Bug, Fault, RetryableError, Stale

T = TypeVar("T")

_MYSQL_TABLE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
# Text compares by its bytes on both engines; where IPP ignores case, the query says so.

_PRAGMAS = {"journal_mode": "wal", "synchronous": "normal", "foreign_keys": 1, "busy_timeout": 30000}
_SESSION = (
    "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES', "
    "/*M! tx_isolation *//*!50720 transaction_isolation */ = 'READ-COMMITTED'"
)
# One statement, since `init_command` takes one; MariaDB reads the first of the two names, MySQL the second.

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PASSWORD = re.compile(r"^((?:[^/:@]*://)?+[^/:@]*):.*@", re.DOTALL)

_REDO = {1205, 1213, 1020}  # lock wait, deadlock, row changed: the transaction is rolled back, do it again
_LOST = {2006, 2013, 0}  # server gone, connection lost; pymysql's InterfaceError(0, '') hides a 2006
TRIES = 8


class _PerThread(ThreadSafeDatabaseMetadata):  # type: ignore[misc]
    """What one thread binds a table to is no other thread's business."""

    def set_database(self, database: Database | None) -> None:
        """Bind the table for this thread; peewee's own would bind what makes tables for all threads."""
        self.database = database
        del self.table


class Table(Model):
    """Base of all tables: a table carries the name of its class, so that SQL and Python share one vocabulary."""

    class Meta:
        """Name the table as the class."""

        legacy_table_names = False
        model_metadata_class = _PerThread

        @staticmethod
        def table_function(model: type[Model]) -> str:
            """Return the table's name: that of the class."""
            return model.__name__


class UtcDateTimeField(DateTimeField):
    """A DATETIME in UTC to the microsecond, on both engines (plain DATETIME of MySQL drops the fraction)."""

    field_type = "DATETIME(6)"

    def db_value(self, value: datetime | None) -> Any:
        """Store the moment without a zone; a value in another zone is converted first."""
        return value.astimezone(UTC).replace(tzinfo=None) if value is not None and value.tzinfo else value

    def python_value(self, value: Any) -> datetime | None:
        """Return the moment with its zone, UTC."""
        moment = super().python_value(value)  # type: ignore[no-untyped-call]
        return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) else None


class NameField(CharField):
    """A name of IPP's: VARCHAR of 64 unless said otherwise, compared by its bytes."""

    def __init__(self, max_length: int = 64, **kwargs: Any) -> None:
        super().__init__(max_length=max_length, **kwargs)


class _Sqlite(SqliteDatabase):
    """SQLite that lets nobody starve.

    SQLite itself asks for a lock less and less often, up to every 0.1 s, so that whoever has just given it back nearly
    always gets it again. Here all who wait ask every 2 ms, at random: each is as likely as any other to be next.
    """

    def begin(self, lock_type: str | None = None) -> None:
        """Begin a transaction; wait for the lock that it asks for."""
        connection = self.connection()  # type: ignore[no-untyped-call]
        (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
        waited = 0.0
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    return super().begin(lock_type)
                except OperationalError as error:
                    if "locked" not in str(error) or waited >= patience / 1000:
                        raise
                nap = random.uniform(0, 0.004)
                time.sleep(nap)
                waited += nap
        finally:
            connection.execute(f"PRAGMA busy_timeout = {patience}")


def connect(address: str) -> Database:
    """Return the database at `address`, not yet opened.

    Parameters
    ----------
    address : str
        A path, ``sqlite:///path``, or ``mysql://user:password@host:port/name`` (also ``mariadb://``), in whose parts a
        blank is written %20. ``?ssl=1`` asks for TLS, without which connecting is 70 times faster.

    Raises
    ------
    RetryableError
        Fault 3: the address can't be understood.
    """
    path = _sqlite_path(address)
    if path is not None:
        return _Sqlite(path, pragmas=_PRAGMAS)
    try:
        parts = urlsplit(address)
        name, port = parts.path.strip("/"), parts.port or 3306
    except ValueError:  # its message may hold a part of the password
        raise _not_an_address(address) from None
    if parts.scheme not in ("mysql", "mariadb") or not parts.hostname or not name or set("/@") & set(name):
        raise _not_an_address(address)
    from pymysql.constants import CLIENT

    return MySQLDatabase(
        unquote(name),
        host=parts.hostname,
        port=port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        charset="utf8mb4",
        client_flag=CLIENT.FOUND_ROWS,
        init_command=_SESSION,
        ssl_disabled="ssl=1" not in parts.query,
        connect_timeout=10,
    )


def with_parts(
    address: str,
    *,
    server: str | None = None,
    name: str | None = None,
    user: str | None = None,
    port: int | None = None,
    password: str | None = None,
) -> str:
    """Return `address` with some of its parts replaced (`pmConfig.c`: -dbserver, -dbname, -dbuser, -dbport).

    Parameters
    ----------
    address : str
        As `connect` takes it.
    server, name, user, port, password : optional
        What goes before the part of `address`. A name for a SQLite database is its path, or address; a server turns it
        into a MySQL database, for which then a name is needed.
    """
    if name and (":" in name or (_sqlite_path(address) is not None and server is None)):
        address, name = name, None
    if _sqlite_path(address) is not None:
        if server is None:
            return address
        address = f"mysql://{server}/"
        if name is None:
            raise RetryableError(
                f"database server {server}: name a database, too (-dbname)", Fault.PS_EXIT_CONFIG_ERROR
            )
    try:
        parts = urlsplit(address)
        host, number = server or parts.hostname or "", port or parts.port
    except ValueError:
        raise _not_an_address(address) from None
    who = quote(user, safe="") if user is not None else parts.username or ""
    secret = quote(password, safe="") if password is not None else parts.password
    login = who + (f":{secret}" if secret is not None else "")
    path = quote(name, safe="") if name is not None else parts.path.lstrip("/")
    return parts._replace(
        netloc=f"{login}@" * bool(login) + host + (f":{number}" if number else ""), path=f"/{path}"
    ).geturl()


def _sqlite_path(address: str) -> str | None:
    """Return the path of a SQLite database; None when the address has another scheme, or is empty."""
    path = address.removeprefix("sqlite:///")
    return path if path and (path != address or not _SCHEME.match(address)) else None


def _not_an_address(address: str) -> RetryableError:
    return RetryableError(
        f"database address {redact(address)!r}: expected a path, sqlite:///path or "
        "mysql://user:password@host:port/name (# / ? @ in a part as %23 %2F %3F %40)",
        Fault.PS_EXIT_CONFIG_ERROR,
    )


def create_tables(db: Database, tables: Sequence[type[Model]]) -> None:
    """Make the tables that are not there yet; on MySQL as InnoDB, utf8mb4, compared by bytes."""
    for table in tables:
        table._meta.table_settings = _MYSQL_TABLE if isinstance(db, MySQLDatabase) else None
    db.create_tables(tables)


def redact(address: str) -> str:
    """Return `address` without its password, fit for a message or a log, even when it is no proper address."""
    return _PASSWORD.sub(r"\1:***@", address)


def must_exist(address: str) -> None:
    """Raise when `address` names a SQLite file that is not there (SQLite itself would make an empty one)."""
    path = _sqlite_path(address)
    if path is not None and not Path(path).is_file():
        raise RetryableError(f"database {path}: no such file", Fault.PS_EXIT_SYS_ERROR)


@contextmanager
def session(db: Database, tables: Sequence[type[Model]]) -> Iterator[None]:
    """Use `tables` on `db` within the block, with an open connection that is closed again if it was closed before.

    Raises
    ------
    RetryableError
        Fault 2: the database does not answer, or lacks the tables.
    """
    opened = False
    try:
        with db.bind_ctx(tables, bind_refs=False, bind_backrefs=False):
            opened = db.connect(reuse_if_open=True)
            yield
    except PeeweeException as error:
        opened = opened or _is_doubtful(error)
        raise RetryableError(f"database {_name(db)}: {_first_line(error)}") from error
    finally:
        if opened and not db.in_transaction():
            db.close()


def unit_of_work(db: Database, tables: Sequence[type[Model]], work: Callable[[], T]) -> T:
    """Run `work` in one transaction and redo it whole when the database asks for that.

    `work` must have no effect outside the database, and must read what it relies on itself: it may run up to `TRIES`
    times, after a deadlock, a lock wait, a locked file, a lost connection, or a row that somebody else changed. A
    connection lost during the commit leaves the outcome open; the second run then finds its compare-and-set refused,
    which is safe.

    Raises
    ------
    RetryableError
        Fault 2: the database still fails after the last try.
    """
    if db.in_transaction():
        with db.bind_ctx(tables, bind_refs=False, bind_backrefs=False):
            return work()
    handled = sys.exception()
    for attempt in range(1, TRIES + 1):
        try:
            with db.bind_ctx(tables, bind_refs=False, bind_backrefs=False):
                db.connect(reuse_if_open=True)
                with db.atomic("IMMEDIATE") if isinstance(db, SqliteDatabase) else db.atomic():
                    return work()
        except Stale:
            if attempt == TRIES:
                raise
        except (OperationalError, InterfaceError) as error:
            if _is_doubtful(error):
                db.close()
            first = _first_of(error, handled)
            if attempt == TRIES or not _passing(first):
                raise RetryableError(f"database {_name(db)}: {_first_line(first)}") from error
        except PeeweeException as error:
            raise RetryableError(f"database {_name(db)}: {_first_line(error)}") from error
        time.sleep(random.uniform(0.5, 1.0) * 0.01 * 2**attempt)
    raise Bug("unit_of_work: fell out of its loop")


def _code(error: PeeweeException) -> int | None:
    code = error.args[0] if error.args else None
    return code if isinstance(code, int) else None


def _is_doubtful(error: PeeweeException) -> bool:
    """Tell whether the connection may be broken, or still in a transaction that could not be rolled back."""
    return isinstance(error, OperationalError | InterfaceError) and _code(error) not in _REDO


def _first_of(error: PeeweeException, handled: BaseException | None) -> PeeweeException:
    """Return what a failing rollback hides: SQLite has undone everything when the disk is full, and refuses it."""
    link: BaseException | None = error
    while link is not None and link is not handled:
        if isinstance(link, PeeweeException):
            error = link
        link = link.__context__
    return error


def _passing(error: PeeweeException) -> bool:
    return _code(error) in _REDO | _LOST or "locked" in str(error)


def _name(db: Database) -> str:
    host = getattr(db, "connect_params", {}).get("host")
    return f"{db.database} on {host}" if host else str(db.database)


def _first_line(error: Exception) -> str:
    text = str(error.args[-1] if error.args else error).strip()
    return text.splitlines()[0] if text else type(error).__name__
