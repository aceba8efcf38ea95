"""Tables as words on lines (`pstampdump -header`, `-simple`); `pstamp_core.formats.mdc` has the longer form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pstamp_core.faults import UserError
from pstamp_core.formats import request, results
from pstamp_core.formats.results import MAX_BYTES, MAX_ROWS
from pstamp_core.formats.tables import ascii_of, number_text, read_table, shown, text_of

_HEADERS = {
    (request.EXTNAME, "1"): ("EXTNAME", "EXTVER", "REQ_NAME"),
    (request.EXTNAME, "2"): ("EXTNAME", "EXTVER", "REQ_NAME", "ACTION", "EMAIL"),
    (results.EXTNAME, ""): ("EXTNAME", "REQ_NAME", "REQ_ID"),
}


def header_line(path: Path) -> str:
    """Return the header of a request or results table as `pstampdump` prints it: its values, a blank between two.

    A request has EXTNAME, EXTVER and REQ_NAME, one of version 2 also ACTION and EMAIL; a results table has EXTNAME,
    REQ_NAME and REQ_ID.

    Raises
    ------
    UserError
        21: the file is not such a table, or a value is missing; the message names it.
    """
    names = ("EXTNAME", "EXTVER", "REQ_NAME", "ACTION", "EMAIL", "REQ_ID")
    table = read_table(path, keywords=names, wanted=(), max_rows=MAX_ROWS, max_bytes=MAX_BYTES)
    values = {name: "" if value is None else ascii_of(text_of(value)) for name, value in table.keywords.items()}
    extname, extver = values["EXTNAME"], values["EXTVER"]
    if extname not in (request.EXTNAME, results.EXTNAME):
        raise UserError(f"{path.name}: EXTNAME is {shown(extname)}; expected {request.EXTNAME} or {results.EXTNAME}")
    wanted = _HEADERS.get((extname, "" if extname == results.EXTNAME else extver))
    if wanted is None:
        raise UserError(f"{path.name}: EXTVER is {shown(extver)}; expected 1 or 2")
    for name in wanted:
        if not values[name]:
            raise UserError(f"{path.name}: {name} is missing")
    return " ".join(values[name] for name in wanted)


def simple_rows(path: Path) -> str:
    """Return any binary table as ``pstampdump -simple`` prints it: a line for each row, its values alone.

    Empty values are left out, so that the others move up, as in the original.

    Raises
    ------
    UserError
        21: the file's first extension is not a binary table of single values.
    """
    table = read_table(path, max_rows=MAX_ROWS, max_bytes=MAX_BYTES)
    columns = [[_word(cell) for cell in column.values] for column in table.columns.values()]
    return "".join(" ".join(filter(None, row)) + "\n" for row in zip(*columns, strict=True))


def _word(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "T" if cell else "F"
    return number_text(cell) if isinstance(cell, float | int) else ascii_of(text_of(cell))
