"""Schema versions: numbered steps, up and down, on both engines, with the rows in the tables.

Version 0 is IPP's original schema; each file ``000n_*.py`` here leads from the version before to n (`up`) and back
(`down`). The runner is `playhouse.migrations`; the table `pstampSchema` holds the names of the steps taken, each marked
when it is done. On SQLite a migration is one transaction. MySQL commits at each change of a table, so a step must bear
being killed anywhere and run again; `sql` tells how one that rebuilds tables does that. Further rules for steps:

* It uses tables of its own, or none: those of the software will have changed when it runs.
* It reports each row that it changes in more than form (``migrator.report.say``).
* A step that changes states drops the triggers first and makes them anew at its end.

Nobody may work on the database meanwhile; a lease that has not lapsed stops the migration before it begins.
"""

# ruff: noqa: S608 (the names of tables and columns are ours; values are bound)

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peewee import Database, DateTimeField, MySQLDatabase

from pstamp_core.database import _name as database_name
from pstamp_core.database import session
from pstamp_core.faults import Fault, RetryableError, UserError
from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.store.fire import MACHINES
from pstamp_core.store.migrations import sql
from pstamp_core.store.tables import TABLES

if TYPE_CHECKING:
    from pstamp_core.store.store import Store

FOLDER = Path(__file__).parent
MARKS = "pstampSchema"
ADDED = {3: ("pstampAccount", "pstampGroup", "pstampKey", "pstampGuess", "pstampSender")}
"""The tables that came with a version, later than 1. No older version keeps them, so that a step which adds tables only
needs no undoing, wherever it was killed."""
LOCK_SECONDS = 10
"""How long a migration waits for another one; a server takes a moment to notice that a process was killed."""


@dataclass
class Report:
    """What a migration did.

    Attributes
    ----------
    before, after : int
        The schema versions.
    at : int
        When, microseconds since 1970 UTC; the history says the same.
    lines : list of str
        What was changed, row by row, and why: ``job 17: run with fault 25 -> stop with fault 25: ...``.
    """

    before: int
    after: int
    at: int
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Add a line."""
        self.lines.append(line)


def migrate(store: Store, target: int | None = None) -> Report:
    """Bring the database up, or down, to schema `target`, by default the newest.

    After a failure or a kill, run it again: what was half done is undone first.

    Raises
    ------
    UserError
        There is no such version.
    RetryableError
        Fault 3: the database has none of our tables, or a newer schema. Fault 2: somebody is at work on it, or it does
        not answer.
    """
    steps = _steps()
    if target is None:
        target = len(steps)
    if not 0 <= target <= len(steps):
        raise UserError(f"schema {target}: expected 0 (the original) to {len(steps)} (the newest)")
    db = store.db
    with session(db, TABLES), _alone(db):
        version = _version(db)
        if version is None:
            raise _no_tables(db)
        _settle(db, version)
        report = Report(version, target, store.now())
        if version != target:
            _refuse_at_work(db, version, report.at)
        runner = _runner(db)
        runner.migrator.report = report  # a step is given the migrator, and returns nothing
        while version != target:
            if version < target:
                runner.up(steps[version])
                version += 1
            else:
                version -= 1
                runner.down(steps[version])
            _settle(db, version)
    return report


def check_version(store: Store) -> None:
    """Make sure that the database has the schema of this software.

    Raises
    ------
    RetryableError
        Fault 3: it has none, an older or a newer one; the message says what mends that.
    """
    with session(store.db, ()):
        version = _version(store.db)
        if version is None:
            raise _no_tables(store.db)
        _must_be_newest(store.db, version)


def prepare(db: Database) -> None:
    """Make sure that the newest tables may be made in a database: it is empty, or has them, or some of them."""
    version = _version(db)
    if version is not None:
        _must_be_newest(db, version)


def mark_newest(db: Database) -> None:
    """Mark that the newest tables have been made."""
    if _version(db) is None:
        _runner(db).fake()


def _settle(db: Database, version: int) -> None:
    all_tables = [table.__name__ for table in TABLES]
    sql.settle(db, all_tables, version)
    later = {name for step, names in ADDED.items() if step > version for name in names} & sql.names(db)
    for table in reversed(all_tables):
        if table in later:
            sql.run(db, f"DROP TABLE {table}")


def _steps() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


def _runner(db: Database) -> Any:
    from playhouse.migrations import Runner

    runner = Runner(db, str(FOLDER), MARKS)
    utc = DateTimeField(default=lambda: datetime.now(UTC).replace(tzinfo=None))  # the runner's own is local time
    runner.History._meta.add_field("applied", utc)
    return runner


def _version(db: Any) -> int | None:
    """Return the schema version; None where there are no tables, or not all of them and no mark yet."""
    there = sql.names(db)
    if MARKS in there:
        steps = _steps()
        marked = [name for (name,) in sql.run(db, f"SELECT name FROM {MARKS} ORDER BY name").fetchall()]
        if unknown := sorted(set(marked) - set(steps)):
            raise _wrong(
                f"database {database_name(db)}: has schema {unknown[-1]}, this software knows none after {steps[-1]}; "
                "use the newer software"
            )
        if marked:
            return len(marked)
    if sql.aside("pstampRequest", 0) in there:
        return 0
    if "pstampRequest" in there and "attempt" not in {column.name for column in db.get_columns("pstampRequest")}:
        return 0
    return None


def _no_tables(db: Database) -> RetryableError:
    return _wrong(f"database {database_name(db)}: the tables of pstamp are not there; make them with: pstamp init")


def _must_be_newest(db: Database, version: int) -> None:
    newest = len(_steps())
    if version != newest:
        name = "0 (the original of IPP)" if version == 0 else str(version)
        raise _wrong(
            f"database {database_name(db)}: has schema {name}, this software needs {newest}; stop all that work on it, "
            "save a copy, then: pstamp db migrate"
        )


def _wrong(message: str) -> RetryableError:
    return RetryableError(message, Fault.PS_EXIT_CONFIG_ERROR)


@contextmanager
def _alone(db: Any) -> Iterator[None]:
    """Keep other migrations of the same database out."""
    if not isinstance(db, MySQLDatabase):
        with db.atomic("IMMEDIATE"):
            yield
        return
    lock = "LEFT(CONCAT('pstamp.', DATABASE()), 64)"
    if not sql.run(db, f"SELECT GET_LOCK({lock}, ?)", LOCK_SECONDS).fetchone()[0]:
        raise RetryableError(f"database {database_name(db)}: another migration is under way")
    try:
        yield
    finally:
        sql.run(db, f"SELECT RELEASE_LOCK({lock})")


def _refuse_at_work(db: Database, version: int, now: int) -> None:
    if version == 0:
        return
    for table, machine in MACHINES.items():
        held = sql.select(
            db,
            f"SELECT {table.key().name} AS number, lease_owner, lease_until FROM {table.__name__} "
            "WHERE lease_owner <> '' AND lease_until >= ? LIMIT 1",
            now,
        )
        for row in held:
            seconds = -(-(row["lease_until"] - now) // MICROSECONDS)
            raise RetryableError(
                f"database {database_name(db)}: {row['lease_owner']} works on {machine.name} {row['number']}; stop all "
                f"workers, or wait {seconds} s for its lease to lapse"
            )
