"""What every rebuilding of tables needs, on both engines: old tables set aside, rows read in portions and written.

MySQL commits at each statement that changes a table, so a step can be killed half-way. Therefore a step that rebuilds
tables first renames them all in one statement (``pstampJob`` of version 1 is then ``v1_pstampJob``) and makes new ones;
they are dropped when the new version has been marked. Whatever stands aside tells what happened: tables of the marked
version belong to a step that did not end, and get their names back; others belong to one that did, and go.
"""

# ruff: noqa: S608 (the names of tables and columns are ours; values are bound)

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from peewee import Database, MySQLDatabase

Columns = dict[str, Any]
PORTION = 500


def run(db: Any, statement: str, *values: Any) -> Any:
    """Execute a statement with ? for each value; return the cursor."""
    return db.execute_sql(statement.replace("?", db.param), values)


def names(db: Any) -> set[str]:
    """Return the names of all tables."""
    return set(db.get_tables())


def columns(db: Database, table: str) -> list[str]:
    """Return the names of a table's columns."""
    return [each[0] for each in run(db, f"SELECT * FROM {table} WHERE 1 = 0").description]


def aside(table: str, version: int) -> str:
    """Return the name under which a table of `version` stands aside."""
    return f"v{version}_{table}"


def set_aside(db: Database, tables: Iterable[str], version: int) -> None:
    """Rename those of `tables` that are there; all or none."""
    all_ = names(db)
    there = [table for table in tables if table in all_]
    if isinstance(db, MySQLDatabase):
        run(db, "RENAME TABLE " + ", ".join(f"{table} TO {aside(table, version)}" for table in there))
        return
    for table in there:  # SQLite: within a transaction; the names of indexes must be free for the new table
        for (index,) in run(
            db, "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql > ''", table
        ).fetchall():
            run(db, f'DROP INDEX "{index}"')
        run(db, f"ALTER TABLE {table} RENAME TO {aside(table, version)}")


def settle(db: Database, tables: Sequence[str], version: int) -> None:
    """Undo a step away from `version` that did not end, or drop what a step to `version` has set aside.

    `tables` are all that any version has, each after those it refers to.
    """
    there = names(db)
    mine = [table for table in tables if aside(table, version) in there]
    if mine:
        for table in reversed(tables):
            run(db, f"DROP TABLE IF EXISTS {table}")
        run(db, "RENAME TABLE " + ", ".join(f"{aside(table, version)} TO {table}" for table in mine))
    for table in reversed(tables):
        for old in there - {aside(table, version)}:
            if re.fullmatch(rf"v[0-9]+_{table}", old):
                run(db, f"DROP TABLE {old}")


def rows(db: Database, table: str, key: str) -> Iterator[Columns]:
    """Yield the rows of a table, read in portions in the order of the number `key`; columns go by name."""
    last = -1
    while True:
        portion = select(db, f"SELECT * FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {PORTION}", last)
        yield from portion
        if len(portion) < PORTION:
            return
        last = portion[-1][key]


def select(db: Database, statement: str, *values: Any) -> list[Columns]:
    """Return the rows of a query; columns go by name."""
    cursor = run(db, statement, *values)
    listed = [each[0] for each in cursor.description]
    return [dict(zip(listed, row, strict=True)) for row in cursor.fetchall()]


def insert(db: Any, table: str, new: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, which all name the same columns."""
    quote = db.quote[0]
    source = iter(new)
    while portion := list(islice(source, PORTION)):
        line = f"({', '.join('?' * len(portion[0]))})"
        listed = ", ".join(f"{quote}{column}{quote}" for column in portion[0])
        values = [row[column] for row in portion for column in portion[0]]
        run(db, f"INSERT INTO {table} ({listed}) VALUES {', '.join([line] * len(portion))}", *values)


def next_number(db: Database, table: str, key: str) -> int:
    """Return the number that the next row of a table would get, also when the last rows were deleted (MySQL)."""
    (largest,) = run(db, f"SELECT COALESCE(MAX({key}), 0) FROM {table}").fetchone()
    counter = 0
    if isinstance(db, MySQLDatabase):
        found = re.search(r"AUTO_INCREMENT=([0-9]+)", run(db, f"SHOW CREATE TABLE {table}").fetchone()[1])
        counter = int(found[1]) if found else 0
    return max(int(largest) + 1, counter)


def keep_number(db: Database, table: str, key: str, number: int) -> None:
    """Let the next row of a table get at least `number` (MySQL), so that no number is ever given twice."""
    if isinstance(db, MySQLDatabase) and next_number(db, table, key) < number:
        run(db, f"ALTER TABLE {table} AUTO_INCREMENT = {number}")
