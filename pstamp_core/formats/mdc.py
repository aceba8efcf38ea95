"""Metadata config text, the form in which IPP's programs print rows: names, types and values, a line for each.

`pstampdump` prints tables in it (``results.mdc``), `pstamptool` the rows of its database.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pstamp_core.faults import UserError
from pstamp_core.formats.results import MAX_BYTES, MAX_ROWS
from pstamp_core.formats.tables import ascii_of, number_text, read_table, shown, text_of

_TYPES = {"A": "STR", "B": "U8", "I": "S16", "J": "S32", "V": "U32", "K": "S64", "E": "F32", "D": "F64", "L": "BOOL"}
_INTEGERS = {f"{sign}{bits}" for sign in "SU" for bits in (8, 16, 32, 64)}


def results_mdc(path: Path, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> str:
    """Return any binary table as `pstampdump` prints it: for each row ``ROW_<n> METADATA``, its columns, ``END``.

    A line is name, type and value, not indented. Numbers have as many digits as reading them back exactly takes. An
    empty text is ``NULL``, as in psLib.

    Raises
    ------
    UserError
        21: the file's first extension is not a binary table of single values.
    RetryableError
        The disk failed.
    """
    table = read_table(path, max_rows=max_rows, max_bytes=max_bytes)
    printed = [
        [f"{name:<15}  {_TYPES[column.code]:<8}  {_printed(cell)}" for cell in column.values]
        for name, column in table.columns.items()
    ]
    blocks = ["\n".join([f"ROW_{n}  METADATA", *(lines[n] for lines in printed), "END\n"]) for n in range(table.length)]
    return "\n".join(blocks)


def _printed(cell: Any) -> str:
    if isinstance(cell, bool):
        return "T" if cell else "F"
    if isinstance(cell, float | int):
        return number_text(cell)
    return (ascii_of(text_of(cell)) if cell is not None else "") or "NULL"


_TIMES = ("UTC", "TAI")
"""The tags of a time, which is UTC under both: the C program parsed it as TAI, without a change to its value."""


def read_rows(text: str, *, source: str = "metadata") -> list[tuple[str, dict[str, Any]]]:
    """Read rows of a database, as `pstamptool` prints them (`pstamp_core.tasks.tool.rows`), also that of IPP.

    Times are aware, in UTC. What stands for NULL in a column is None: the largest value of its integer type, a float
    that is no number, ``NULL`` as a text or a time.

    Returns
    -------
    list of (str, dict)
        Name of each row and its values by name, in their order.

    Raises
    ------
    UserError
        21: a line is malformed; the message names the line.
    """
    return [
        (name, {column: _null_is_none(kind, value) for column, (kind, value) in values.items()})
        for name, values in _blocks(text, source)
    ]


def _null_is_none(kind: str, value: Any) -> Any:
    is_largest = kind in _INTEGERS and value == 2 ** (int(kind[1:]) - (kind[0] == "S")) - 1  # `psDB.c`
    return None if is_largest or value != value else value


def read_mdc(text: str, *, source: str = "metadata") -> list[tuple[str, dict[str, Any]]]:
    """Read rows of metadata config text, as `results_mdc` and `pstamptool` print them.

    Indents, empty lines, lines that begin with ``#`` and ``MULTI`` headers mean nothing. Values are `int`, `float`,
    `bool` or `str`, by their type; ``NULL`` is `None`.

    Returns
    -------
    list of (str, dict)
        Name of each block and its values by name, in their order.

    Raises
    ------
    UserError
        21: a line is malformed; the message names the line.
    """
    return [(name, {column: value for column, (_, value) in values.items()}) for name, values in _blocks(text, source)]


def _blocks(text: str, source: str) -> Iterator[tuple[str, dict[str, tuple[str, Any]]]]:
    """Yield the name of each block, and its types and values by name."""
    title = ""
    values: dict[str, tuple[str, Any]] = {}
    for n, line in enumerate(text.split("\n"), 1):
        name, kind, value = (*line.split(None, 2), "", "", "")[:3]
        if not name or name.startswith("#") or (not title and kind == "MULTI"):
            continue
        if not title and kind == "METADATA":
            title, values = name, {}
        elif title and name == "END" and not kind:
            yield title, values
            title = ""
        elif title and kind and kind != "METADATA":
            values[name] = kind, _value(kind, value.strip(), f"{source}, line {n}")
        else:
            expected = "NAME TYPE VALUE or END" if title else "NAME METADATA"
            raise UserError(f"{source}, line {n}: {shown(line.strip())}; expected {expected}")
    if title:
        raise UserError(f"{source}: block {title} has no END")


def _value(kind: str, value: str, where: str) -> Any:
    try:
        if value == "NULL":
            return None
        if kind in _INTEGERS:
            return int(value)
        if kind in ("F32", "F64"):
            return float(value)
        if kind == "BOOL":
            return {"T": True, "F": False}[value]
        if kind in _TIMES:
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
    except (ValueError, KeyError):
        raise UserError(f"{where}: {shown(value)}; expected a value of type {kind}") from None
    return value
