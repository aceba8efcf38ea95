"""Histories: all rows of a machine with what they went through, and whether that is a legal way to where they are.

This is plain SQL, read in portions: `pstamp db check` looks at databases of millions of rows, and at words in them that
no machine knows.
"""

# ruff: noqa: S608 (the names of tables and columns are ours; values are bound)

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from pstamp_core.machines import Event, Machine
from pstamp_core.machines.machine import FaultClass
from pstamp_core.store.fire import MACHINES
from pstamp_core.store.tables import Worked, pstampHistory

PORTION = 1000
"""Rows read at once."""


class Line(NamedTuple):
    """A line of the history, as it stands in the table."""

    hist_id: int
    event: str
    source: str
    dest: str
    fault: int
    cause: int
    attempt: int
    at: int


def portions(
    db: Any, columns: str, source: str, key: str, values: Sequence[Any] = ()
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a query in portions, in the order of the number `key`; columns go by name.

    Parameters
    ----------
    db : peewee.Database
        An open database.
    columns, source : str
        What stands behind SELECT and FROM, without a condition; ``?`` for each of `values`.
    key : str
        The number, unique in `source`; it is given the name ``number``.
    values : sequence
        What `columns` and `source` need.
    """
    last = 0
    while True:
        sql = f"SELECT {key} AS number, {columns} FROM {source} WHERE {key} > ? ORDER BY {key} LIMIT {PORTION}"
        cursor = db.execute_sql(sql.replace("?", db.param), (*values, last))
        names = [each[0] for each in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        if rows:
            yield rows
        if len(rows) < PORTION:
            return
        last = rows[-1]["number"]


def rows_with_history(
    db: Any, table: type[Worked], columns: str = "", joins: str = "", values: Sequence[Any] = ()
) -> Iterator[tuple[dict[str, Any], list[Line]]]:
    """Yield every row of `table` in the order of its number, with the lines of its history.

    Parameters
    ----------
    db : peewee.Database
        An open database; where others work on it, in a transaction that sees one state of it.
    table : type[Worked]
        Requests, jobs or dependents; the table is ``t`` in `columns` and `joins`.
    columns, joins : str
        Further columns than those a history speaks of, and the tables they come from.
    values : sequence
        What `columns` and `joins` need.
    """
    base = "t.state AS state, t.fault AS fault, t.cause AS cause, t.attempt AS attempt, t.changed_at AS changed_at"
    every = f"{base}, {columns}" if columns else base
    sql = (
        f"SELECT row_id, {', '.join(Line._fields)} FROM {pstampHistory.__name__} "
        "WHERE machine = ? AND row_id BETWEEN ? AND ? ORDER BY row_id, hist_id"
    ).replace("?", db.param)
    for rows in portions(db, every, f"{table.__name__} t {joins}", f"t.{table.key().name}", values):
        span = (MACHINES[table].name, rows[0]["number"], rows[-1]["number"])
        lines: dict[int, list[Line]] = {}
        for number, *line in db.execute_sql(sql, span).fetchall():
            lines.setdefault(number, []).append(Line(*line))
        for row in rows:
            yield row, lines.get(row["number"], [])


def state_problem(machine: Machine, state: str, fault: int) -> str | None:
    """Return what is wrong with a state and its fault, if anything."""
    if state not in _words(machine):
        return f"state {state!r} is none of {', '.join(_words(machine))}"
    if fault < 0 or FaultClass.of(fault) not in machine.faults[machine.states(state)]:
        return f"{state} with fault {fault}, which do not go together"
    return None


def chain_problem(machine: Machine, row: Mapping[str, Any], lines: Sequence[Line]) -> str | None:
    """Return what is wrong with the history of a row, if anything.

    It must begin with the row's making, or with its migration from the original schema; each line must start where the
    one before ended, be in the machine's table, and count attempts as claims do; the last must end in the row. Quiet
    events (a look at a dependent) leave no line, so that a dependent's attempt may be ahead of its history.

    Parameters
    ----------
    machine : Machine
        Its machine.
    row : mapping
        Its state (as a word), fault, cause, attempt and changed_at.
    lines : sequence of Line
        Its history, in the order of ``hist_id``.
    """
    quiet = Event.CLAIM.value in _quiet(machine)
    before: Line | None = None
    for line in lines:
        if before is None or not before.dest:  # a migration removed a row; its number was given to another
            problem = _wrong_start(machine, line)
        else:
            problem = _wrong_step(machine, before, line, quiet)
        if problem:
            return f"line {line.hist_id} of its history, {_arrow(line)}, {problem}"
        before = line
    if before is None:
        return "it has no history"
    if not before.dest:
        return "its history ends in a row that was removed"
    attempts_agree = before.attempt <= row["attempt"] if quiet else before.attempt == row["attempt"]
    names = ("state", "fault", "cause", "changed_at")
    if attempts_agree and (before.dest, before.fault, before.cause, before.at) == tuple(row[name] for name in names):
        return None
    return (
        f"its history ends in {_end(before.dest, before.fault, before.cause, before.attempt, before.at)}; "
        f"the row says {_end(row['state'], row['fault'], row['cause'], row['attempt'], row['changed_at'])}"
    )


def _wrong_start(machine: Machine, line: Line) -> str | None:
    if line.event not in ("make", "migrate"):
        return "is no beginning; expected make or migrate"
    if line.attempt:
        return f"has attempt {line.attempt}; expected 0"
    if line.event == "migrate":
        problem = state_problem(machine, line.dest, line.fault) if line.dest else None
        return f"ends in {problem}" if problem else None
    made = {state.value: fault for state, fault in machine.initial.items()}
    if line.source or line.fault < 0 or made.get(line.dest) is not FaultClass.of(line.fault):
        legal = ", ".join(f"{word} with fault {fault.value}" for word, fault in made.items())
        return f"has fault {line.fault}; a {machine.name} is made {legal}"
    return None


def _wrong_step(machine: Machine, before: Line, line: Line, quiet: bool) -> str | None:
    if line.source != before.dest:
        return f"does not start in {before.dest}, where the line before it ends"
    if (line.event, line.source, line.dest) not in _arrows(machine):
        return "is not in the machine's table"
    if line.event in _quiet(machine):
        return "leaves no line"
    step = line.attempt - before.attempt
    if step < 0 if quiet else step != (line.event == Event.CLAIM.value):
        return f"has attempt {line.attempt} after {before.attempt}"
    problem = state_problem(machine, line.dest, line.fault)
    return f"ends in {problem}" if problem else None


def _arrow(line: Line) -> str:
    return f"{line.event} from {line.source} to {line.dest}" if line.source else f"{line.event} as {line.dest}"


def _end(state: str, fault: int, cause: int, attempt: int, at: int) -> str:
    return f"{state}, fault {fault}, cause {cause}, attempt {attempt}, changed at {at}"


@cache
def _words(machine: Machine) -> list[str]:
    return [state.value for state in machine.states]


@cache
def _arrows(machine: Machine) -> set[tuple[str, str, str]]:
    return {(event.value, source.value, dest.value) for event, source, dest, _ in machine.arrows()}


@cache
def _quiet(machine: Machine) -> set[str]:
    return {event.value for event, _, _, edge in machine.arrows() if not edge.history}
