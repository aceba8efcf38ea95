"""Rows as `pstamptool` prints them; `pstamp_core.formats.read_rows` reads them back.

The writer stands apart from `pstamp_core.formats`, since a queue command must start quickly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from typing import Any, NamedTuple

_LARGEST = {"S16": 2**15 - 1, "S32": 2**31 - 1, "S64": 2**63 - 1}
"""What stands for NULL in a column of integers (`psDB.c`)."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Rows(NamedTuple):
    """Rows of a database as `pstamptool` prints them (`psMetadataConfig.c`, `ippdb.c`).

    Attributes
    ----------
    record : str
        The name of each row: its table.
    columns : sequence of (str, str)
        Name and type of each column: ``S16``, ``S32``, ``S64``, ``F32``, ``F64``, ``BOOL``, ``STR``, or ``UTC``.
    rows : sequence of sequences
        The values. None is NULL; a ``UTC`` is an aware `datetime`.
    """

    record: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Any]]

    def text(self) -> str:
        """Return the rows as metadata config text; no rows are no text.

        Nothing in it is quoted: control characters of a text, such as line ends, become ``?``.
        """
        if not self.rows:
            return ""
        lines = [f"{self.record} MULTI"]
        for row in self.rows:
            lines += ["", f"{self.record}  METADATA  "]
            lines += [
                f"   {name:<15}  {kind:<8}  {_cell(kind, value)}"
                for (name, kind), value in zip(self.columns, row, strict=True)
            ]
            lines.append("END")
        return "\n".join([*lines, "", ""])

    def simple(self) -> str:
        """Return the rows as plain text: a line for each, values divided by a blank, blanks in texts as ``_``."""
        return "".join(
            " ".join(_plain(kind, value) for (_, kind), value in zip(self.columns, row, strict=True)) + "\n"
            for row in self.rows
        )


def _cell(kind: str, value: Any) -> str:
    if kind == "STR":
        return f"{_text(value):<15} "
    if kind == "UTC" and value is not None:
        return _plain(kind, value)
    if kind in ("F32", "F64"):
        return f"{value if value is not None else float('nan'):<15.{7 if kind == 'F32' else 15}g}"
    return f"{_plain(kind, value):<15}"


def _plain(kind: str, value: Any) -> str:
    if kind == "STR":
        return _text(value).replace(" ", "_")
    if kind == "BOOL":
        return "T" if value else "F"
    if value is None:
        return str(_LARGEST[kind]) if kind in _LARGEST else "NULL" if kind == "UTC" else "nan"
    if kind == "UTC":
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    return f"{value:f}" if kind in ("F32", "F64") else str(value)


def _text(value: str | None) -> str:
    text = _CONTROL.sub("?", value or "")
    return text if text.strip(" ") else "NULL"
