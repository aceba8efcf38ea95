"""PS1_PS_RESULTS: the table that tells what became of each row, one row for each product and each job without one.

The first 31 columns are those of `pstamp_results_file.pl`; the others are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pstamp_core.faults import Bug, UserError, fault_name, fault_sentence
from pstamp_core.formats.request import RequestRow
from pstamp_core.formats.tables import ascii_of, read_table, shown, text_of, write_table

EXTNAME = "PS1_PS_RESULTS"
EXTVER = 1
MAX_ROWS = 1_000_000
"""Most rows of a results table that is read back: a request has fewer rows, but a row has many products."""
MAX_BYTES = 2_000_000_000

_RANGES = {"J": (-(2**31), 2**31 - 1), "V": (0, 2**32 - 1), "K": (-(2**63), 2**63 - 1)}


class ResultColumn(NamedTuple):
    """A column of PS1_PS_RESULTS.

    Attributes
    ----------
    name, tform, unit, meaning : str
        TFORM ``V`` is the unsigned form of ``J`` (TZERO 2147483648).
    null : str
        What a text column holds when there is nothing to say; numbers hold 0.
    """

    name: str
    tform: str
    unit: str
    meaning: str
    null: str = "null"


COLUMNS = (
    ResultColumn("ROWNUM", "V", "", "row of the request, 0 for all of it"),
    ResultColumn("ERROR_CODE", "V", "", "what became of it, 0 is success"),
    ResultColumn("ERROR_STR", "24A", "", "name of ERROR_CODE"),
    ResultColumn("IMG_NAME", "64A", "", "file of the product in this fileset", "0"),
    ResultColumn("JOB_ID", "K", "", "job that made it"),
    ResultColumn("RA_DEG", "D", "deg", "RA of the stamp's centre"),
    ResultColumn("DEC_DEG", "D", "deg", "Dec of the stamp's centre"),
    ResultColumn("MJD_OBS", "D", "d", "start of the exposure (TAI)"),
    ResultColumn("RA_OBS", "D", "deg", "RA of the telescope"),
    ResultColumn("DEC_OBS", "D", "deg", "Dec of the telescope"),
    ResultColumn("FILTER", "16A", "", "filter of the image", "0"),
    ResultColumn("EXPTIME", "D", "s", "exposure time"),
    ResultColumn("FPA_ID", "20A", "", "name of the exposure", "0"),
    ResultColumn("PROJECT", "16A", "", "asked for", "0"),
    ResultColumn("JOB_TYPE", "16A", "", "asked for", "0"),
    ResultColumn("REQ_TYPE", "16A", "", "asked for", "0"),
    ResultColumn("IMG_TYPE", "16A", "", "asked for", "0"),
    ResultColumn("ID", "16A", "", "asked for", "0"),
    ResultColumn("TESS_ID", "64A", "", "asked for", "0"),
    ResultColumn("COMPONENT", "64A", "", "asked for", "0"),
    ResultColumn("DATA_GROUP", "64A", "", "asked for", "0"),
    ResultColumn("OPTION_MASK", "J", "", "asked for"),
    ResultColumn("MJD_MIN", "D", "d", "asked for"),
    ResultColumn("MJD_MAX", "D", "d", "asked for"),
    ResultColumn("REQFILT", "16A", "", "asked for", "0"),
    ResultColumn("COORD_MASK", "J", "", "asked for"),
    ResultColumn("CENTER_X", "D", "", "asked for, unit by COORD_MASK"),
    ResultColumn("CENTER_Y", "D", "", "asked for, unit by COORD_MASK"),
    ResultColumn("WIDTH", "D", "", "asked for, unit by COORD_MASK"),
    ResultColumn("HEIGHT", "D", "", "asked for, unit by COORD_MASK"),
    ResultColumn("COMMENT", "64A", "", "of the row", "0"),
    # ours
    ResultColumn("SURVEY_NAME", "16A", "", "asked for"),
    ResultColumn("IPP_RELEASE", "64A", "", "asked for"),
    ResultColumn("RUN_TYPE", "16A", "", "asked for"),
    ResultColumn("FWHM_MIN", "D", "", "asked for"),
    ResultColumn("FWHM_MAX", "D", "", "asked for"),
    ResultColumn("CAUSE", "V", "", "last passing fault of a job given up"),
    ResultColumn("SENTENCE", "255A", "", "what became of it, in words"),
    ResultColumn("BOX_X0", "J", "pix", "box asked for, first column from 0"),
    ResultColumn("BOX_Y0", "J", "pix", "box asked for, first row from 0"),
    ResultColumn("BOX_NX", "J", "pix", "box asked for, columns"),
    ResultColumn("BOX_NY", "J", "pix", "box asked for, rows"),
    ResultColumn("IMG_X0", "J", "pix", "box on the image, first column from 0"),
    ResultColumn("IMG_Y0", "J", "pix", "box on the image, first row from 0"),
    ResultColumn("IMG_NX", "J", "pix", "box on the image, columns"),
    ResultColumn("IMG_NY", "J", "pix", "box on the image, rows"),
    ResultColumn("FRAC_IMAGE", "D", "", "fraction of the stamp on the image"),
    ResultColumn("FRAC_FINITE", "D", "", "fraction of the stamp that is finite"),
    ResultColumn("INPUT_IMAGE", "255A", "", "image that the stamp is from"),
    ResultColumn("MD5", "32A", "", "md5 of the product"),
    ResultColumn("WAIT_S", "D", "s", "wait until the image was made again"),
)
_BY_NAME = {column.name: column for column in COLUMNS}

REQUEST_COLUMNS = (
    *(column.name for column in COLUMNS[13:31]),
    "SURVEY_NAME",
    "IPP_RELEASE",
    "RUN_TYPE",
    "FWHM_MIN",
    "FWHM_MAX",
)
"""The columns that repeat the request row: 14-31, and those of version 2 that the original leaves out."""


@dataclass(frozen=True)
class Results:
    """A results table that was read back; each row maps upper-case column names to text and numbers."""

    req_name: str
    req_id: int
    rows: tuple[dict[str, Any], ...]


def request_columns(row: RequestRow) -> dict[str, Any]:
    """Return the columns of a result that repeat its request row as it was written: no bit forced, no date moved.

    Rows about the whole request (ROWNUM 0) go without.
    """
    values = {name: getattr(row, name.lower()) for name in REQUEST_COLUMNS}
    return {name: "null" if value is None else value for name, value in values.items()}


def write_results(path: Path, req_name: str, req_id: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a results table; the same rows give the same bytes.

    Parameters
    ----------
    path : Path
        The file, replaced if it exists.
    req_name, req_id : str, int
        Header keywords.
    rows : iterable of mapping
        Values by column name. What a row doesn't have is null (0, or the text that the column's `null` names);
        ERROR_STR and SENTENCE follow from ERROR_CODE. Texts are cut to their column, SENTENCE with three dots, and
        have a `?` for what is not ASCII.

    Raises
    ------
    Bug
        An unknown column, a number out of its column's range, or an IMG_NAME that doesn't fit: it names a file, so it
        can be neither cut nor changed.
    """
    filled = [_filled(row) for row in rows]
    header = {"EXTNAME": EXTNAME, "EXTVER": EXTVER, "REQ_NAME": ascii_of(req_name), "REQ_ID": req_id}
    write_table(
        path,
        header,
        [(c.name, c.tform, c.unit, c.meaning, [row[c.name] for row in filled]) for c in COLUMNS],
    )


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(row) - set(_BY_NAME)):
        raise Bug(f"results table: there is no column {unknown[0]}")
    code = int(row.get("ERROR_CODE", 0))
    row = {"ERROR_STR": fault_name(code), "SENTENCE": fault_sentence(code), **row}
    return {column.name: _cell(column, row.get(column.name)) for column in COLUMNS}


def _cell(column: ResultColumn, value: Any) -> Any:
    if column.tform == "D":
        return float(value or 0)
    if column.tform in _RANGES:
        low, high = _RANGES[column.tform]
        number = int(value or 0)
        if not low <= number <= high:
            raise Bug(f"results table: {column.name} is {number}; expected {low} to {high}")
        return number
    text = str(value or column.null)
    width = int(column.tform[:-1])
    held = ascii_of(text)[:width]
    if column.name == "IMG_NAME" and held != text:
        raise Bug(f"results table: IMG_NAME is {shown(text)}; expected a name of at most {width} ASCII characters")
    if column.name == "SENTENCE" and len(text) > width:
        return held[:-3] + "..."
    return held


def read_results(path: Path, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> Results:
    """Read a results table, ours or the original's; columns that it lacks are missing from its rows.

    Raises
    ------
    UserError
        21: the file is not such a table.
    RetryableError
        The disk failed.
    """
    table = read_table(
        path,
        extname=EXTNAME,
        keywords=("REQ_NAME", "REQ_ID"),
        wanted=_BY_NAME,
        max_rows=max_rows,
        max_bytes=max_bytes,
    )
    columns = {
        name: [text_of(cell) for cell in column.values] if column.code == "A" else column.values
        for name, column in table.columns.items()
    }
    req_id = table.keywords["REQ_ID"]
    if not isinstance(req_id, int):
        raise UserError(f"{path.name}: REQ_ID is {shown(req_id)}; expected a number")
    rows = tuple(dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True))
    return Results(text_of(table.keywords["REQ_NAME"]), req_id, rows)


def result_portions(path: Path, length: int = 1000) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a results table of ours, `length` at a time, as `read_results` gives them all at once.

    Raises
    ------
    OSError
        The file can't be read, or is no such table.
    """
    import fitsio

    with fitsio.FITS(str(path)) as hdus:
        table = hdus[EXTNAME]
        names = table.get_colnames()
        for first in range(0, table.get_nrows(), length):
            yield [
                {
                    name: text_of(cell) if isinstance(cell, bytes) else cell
                    for name, cell in zip(names, cells, strict=True)
                }
                for cells in table[first : first + length].tolist()
            ]
