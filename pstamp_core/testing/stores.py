"""Stores to be thrown away, their clock, and a check of their histories."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.store import MACHINES, Store, Worked, pstampHistory
from pstamp_core.store.history import chain_problem, rows_with_history

NOW = 1_800_000_000 * MICROSECONDS
"""Where a clock begins: 2027-01-15 08:00 UTC."""


class Clock:
    """Microseconds since 1970 UTC, moved by hand; the `clock` of a `Store`."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        """Return the time."""
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += int(seconds * MICROSECONDS)


@contextmanager
def temporary_store(clock: Callable[[], int] | None = None) -> Iterator[Store]:
    """Give an empty store, a SQLite file in a folder of its own, which is deleted at the end.

    Its connection is open and its tables are bound, so that rows can be read by their classes. A second connection, as
    another process has it, is ``Store(store.db.database, clock)``.

    Parameters
    ----------
    clock : callable, optional
        Such as a `Clock`, instead of the database's own.
    """
    with tempfile.TemporaryDirectory(prefix="pstamp-") as folder:
        path = Path(folder, "pstamp.db")
        path.write_bytes(_empty())
        store = Store(str(path), clock)
        try:
            with store.reading():
                yield store
        finally:
            store.db.close()


@cache
def _empty() -> bytes:
    """Return a database with its tables, to be copied: making them takes longer than most tests."""
    with tempfile.TemporaryDirectory(prefix="pstamp-") as folder:
        path = Path(folder, "pstamp.db")
        Store(str(path)).create()
        return path.read_bytes()


def check_history(table: type[Worked]) -> None:
    """Check the history of every row of `table`, whose store is open; for a clock that does not go back.

    Raises
    ------
    AssertionError
        A history is no legal chain that ends in its row, a line is older than the one before it, or rows are gone.
    """
    machine, db = MACHINES[table], table._meta.database
    numbers = set()
    for row, lines in rows_with_history(db, table):
        numbers.add(row["number"])
        problem = chain_problem(machine, row, lines)
        older = [line for before, line in pairwise(lines) if line.at < before.at]
        if problem or older:
            raise AssertionError(
                f"{machine.name} {row['number']}: {problem or f'{older[0]} is older than its line before'}"
            )
    query: Any = pstampHistory.select(pstampHistory.row_id).where(pstampHistory.machine == machine.name).distinct()
    gone = {number for (number,) in query.tuples()} - numbers
    if gone:
        raise AssertionError(f"{machine.name} {', '.join(map(str, sorted(gone)))}: has a history, but is gone")
