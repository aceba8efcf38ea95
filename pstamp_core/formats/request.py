"""PS1_PS_REQUEST: the table in which a user asks for stamps, one row for each request specification.

Names, order and types of the columns are those of the reference writer `pstamp_request_file`; the bits are those of
`pstamp.h` and `RequestFile.pm`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path
from typing import Any, NamedTuple

from pstamp_core.faults import UserError
from pstamp_core.formats.tables import (
    MAX_BYTES,
    MAX_ROWS,
    Column,
    ascii_of,
    is_null,
    number_of,
    read_table,
    shown,
    text_of,
    write_table,
)

EXTNAME = "PS1_PS_REQUEST"
MAX_INTEGER = 2**31 - 1
"""Largest value of an integer column (TFORM J)."""
MAX_NAME = 64
"""Longest REQ_NAME (`pstampRequest.name`)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class CoordMask(IntFlag):
    """Bits of COORD_MASK: how CENTER_X/Y and WIDTH/HEIGHT are meant. Other bits are ignored."""

    CENTER_IN_PIXELS = 1
    """Pixels; else RA and Dec in degrees."""
    RANGE_IN_PIXELS = 2
    """Pixels; else seconds of arc."""


class Option(IntFlag):
    """Bits of OPTION_MASK: what a row wants. Unknown bits are ignored."""

    SELECT_IMAGE = 1
    """The image; forced on for every row."""
    SELECT_MASK = 2
    SELECT_VARIANCE = 4
    SELECT_WEIGHT = 4
    SELECT_SOURCES = 8
    SELECT_CMF = 8
    SELECT_PSF = 16
    """A copy of the file of the PSF model."""
    SELECT_BACKMDL = 32
    """A copy of the file of the background model."""
    SELECT_JPEG = 64
    SELECT_EXP = 128
    """The exposure-time map (stacks)."""
    SELECT_NUM = 256
    """The map of the number of inputs (stacks)."""
    SELECT_UNCOMPRESSED = 512
    SELECT_INVERSE = 1024
    """The inverse difference and its second input."""
    SELECT_UNCONV = 2048
    """The unconvolved stack instead of the convolved one."""
    RESTORE_BACKGROUND = 4096
    MULTI_OVERLAP_IMAGE = 8192
    """Also the components that the box touches, not only the one that holds the centre."""
    USE_IMFILE_ID = 16384
    """With byid: ID is the id of a file."""
    NO_WAIT_FOR_UPDATE = 32768
    """Don't regenerate cleaned data; answer 25."""
    SELECT_EXPJPEG = 65536
    SELECT_NUMJPEG = 131072


class RequestColumn(NamedTuple):
    """A column of PS1_PS_REQUEST: its name, its TFORM, and whether version 1 has it."""

    name: str
    tform: str
    in_v1: bool = True

    @property
    def width(self) -> int:
        """Number of characters of a text column."""
        return int(self.tform[:-1])


COLUMNS = (
    RequestColumn("ROWNUM", "J"),
    RequestColumn("CENTER_X", "D"),
    RequestColumn("CENTER_Y", "D"),
    RequestColumn("WIDTH", "D"),
    RequestColumn("HEIGHT", "D"),
    RequestColumn("COORD_MASK", "J"),
    RequestColumn("JOB_TYPE", "16A"),
    RequestColumn("OPTION_MASK", "J"),
    RequestColumn("PROJECT", "16A"),
    RequestColumn("SURVEY_NAME", "16A", in_v1=False),
    RequestColumn("IPP_RELEASE", "64A", in_v1=False),
    RequestColumn("REQ_TYPE", "16A"),
    RequestColumn("IMG_TYPE", "16A"),
    RequestColumn("ID", "16A"),
    RequestColumn("TESS_ID", "64A"),
    RequestColumn("COMPONENT", "64A"),
    RequestColumn("DATA_GROUP", "64A"),
    RequestColumn("REQFILT", "16A"),
    RequestColumn("MJD_MIN", "D"),
    RequestColumn("MJD_MAX", "D"),
    RequestColumn("RUN_TYPE", "16A", in_v1=False),
    RequestColumn("FWHM_MIN", "D", in_v1=False),
    RequestColumn("FWHM_MAX", "D", in_v1=False),
    RequestColumn("COMMENT", "64A"),
)
_NO_DEFAULT = ("CENTER_X", "CENTER_Y", "WIDTH", "HEIGHT")  # a whole file must not come of a misspelt column


def columns_of(extver: int) -> tuple[RequestColumn, ...]:
    """Return the columns of a version, in their order: 19 in version 1, 24 in version 2."""
    return tuple(column for column in COLUMNS if extver > 1 or column.in_v1)


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request specification: the columns of `COLUMNS` in lower case, with their meanings in IPP.

    Texts have no blanks around them, and a null one (empty, or ``null`` in any case) is `None`; `job_type` is in
    lower case. A number that is not given is 0; one that can't be read is NaN (0 in an integer column) and stands
    in `bad` as it was.

    Attributes
    ----------
    center_x, center_y : float
        Position: RA and Dec (J2000) in degrees, or pixels of the image.
    width, height : float
        Full size in pixels or seconds of arc; both 0 for the whole file.
    mjd_min, mjd_max : float
        Dates (TAI days); 0 is open.
    bad : mapping of str to str
        Values that were no number although their column needs one, by column name; empty for one not given.
    """

    rownum: int
    center_x: float
    center_y: float
    width: float
    height: float
    coord_mask: int = 0
    job_type: str | None = None
    option_mask: int = 0
    project: str | None = None
    survey_name: str | None = None
    ipp_release: str | None = None
    req_type: str | None = None
    img_type: str | None = None
    id: str | None = None
    tess_id: str | None = None
    component: str | None = None
    data_group: str | None = None
    reqfilt: str | None = None
    mjd_min: float = 0.0
    mjd_max: float = 0.0
    run_type: str | None = None
    fwhm_min: float = 0.0
    fwhm_max: float = 0.0
    comment: str | None = None
    bad: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def options(self) -> Option:
        """What the row wants, the image always included (`pstampparse.pl` forces the bit)."""
        return Option(self.option_mask) | Option.SELECT_IMAGE

    @property
    def center_in_pixels(self) -> bool:
        """Whether the centre is a pixel, not a sky position."""
        return bool(self.coord_mask & CoordMask.CENTER_IN_PIXELS)

    @property
    def size_in_pixels(self) -> bool:
        """Whether the size is in pixels, not in seconds of arc."""
        return bool(self.coord_mask & CoordMask.RANGE_IN_PIXELS)

    @property
    def whole_file(self) -> bool:
        """Whether the whole image is asked for: size 0 by 0, or (older form) a pixel centre of exactly (0, 0)."""
        return self.width == self.height == 0 or (self.center_in_pixels and self.center_x == self.center_y == 0)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, made positive as `pstampGetROI.c` does."""
        return abs(self.width), abs(self.height)

    @property
    def sky_center(self) -> tuple[float, float]:
        """RA in [0, 360) and Dec of a sky centre, degrees."""
        return self.center_x % 360.0, self.center_y

    @property
    def only_component(self) -> str | None:
        """The chip or skycell that the row is about, or `None` for any (not given, or ``all``)."""
        return None if self.component is None or self.component.lower() == "all" else self.component


@dataclass(frozen=True)
class RequestTable:
    """A request: its header and its rows.

    Attributes
    ----------
    req_name : str
        Name of the request and of its fileset, as it was read: `check_request` judges it. Empty when missing.
    extver : int
        1 or 2.
    action : str
        In capitals, ``PROCESS`` or ``PREVIEW`` if valid. Version 1 has none and is processed.
    email : str or None
        ``user@domain`` if valid, a token for access rather than an address. Version 1 has none.
    rows : tuple of RequestRow
        The rows, in their order.
    """

    req_name: str
    extver: int
    action: str
    email: str | None
    rows: tuple[RequestRow, ...]


def name_is_valid(req_name: str) -> bool:
    """Tell whether a REQ_NAME can be the name of a fileset: a folder's name, an URL's part, a database key.

    Letters, digits and ``. _ + -``, at most 64, the first a letter or digit, no ``..``; neither ``null`` nor
    ``index.txt``, which is the name of the list that the folder stands beside.
    """
    return bool(
        _NAME.fullmatch(req_name)
        and len(req_name) <= MAX_NAME
        and ".." not in req_name
        and req_name.lower() not in ("null", "index.txt")
    )


NAME_RULE = (
    f"at most {MAX_NAME} letters, digits and . _ + -, the first a letter or digit, no '..', not null or index.txt"
)


def read_request(path: Path, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> RequestTable:
    """Read a PS1_PS_REQUEST table, version 1 or 2, from whichever writer.

    Columns may stand in any order, with any number type or as text; others are ignored; LABEL stands in for a missing
    DATA_GROUP. What makes no sense in a row is kept for `check_rows` to find.

    Parameters
    ----------
    path : Path
        The file.
    max_rows, max_bytes : int
        Larger tables and files are refused before they are read.

    Raises
    ------
    UserError
        21: the file is not such a table; the message names the file and what was expected.
    RetryableError
        The disk failed.
    """
    header = ("EXTVER", "REQ_NAME", "ACTION", "EMAIL")
    wanted = {column.name for column in COLUMNS} | {"LABEL"}
    table = read_table(path, extname=EXTNAME, keywords=header, wanted=wanted, max_rows=max_rows, max_bytes=max_bytes)
    extver, req_name, action, email = ("" if value is None else text_of(value) for value in table.keywords.values())
    if extver not in ("1", "2"):
        raise UserError(f"{shown(path.name, quote=False)}: EXTVER is {shown(extver)}; expected 1 or 2")
    bad: dict[int, dict[str, str]] = {}
    columns = dict(table.columns)
    if "DATA_GROUP" not in columns and "LABEL" in columns:
        columns["DATA_GROUP"] = columns["LABEL"]
    in_version = columns_of(int(extver))
    values: list[list[Any]] = [
        _values(column, columns.get(column.name) if column in in_version else None, table.length, bad)
        for column in COLUMNS
    ]
    values.append([bad.get(n, {}) for n in range(table.length)])
    rows = tuple(RequestRow(*cells) for cells in zip(*values, strict=True))
    if extver == "1":
        return RequestTable(req_name, 1, "PROCESS", None, rows)
    return RequestTable(req_name, 2, action.upper(), None if is_null(email) else email, rows)


def _values(column: RequestColumn, read: Column | None, length: int, bad: dict[int, dict[str, str]]) -> list[Any]:
    """Return the values of one column of rows; what can't be converted goes to `bad`, by row and column."""
    if column.tform.endswith("A"):
        texts = [None] * length if read is None else _texts(read.values)
        # Writers in use give this one in capitals, too.
        return [text and text.lower() for text in texts] if column.name == "JOB_TYPE" else texts
    cells = [None] * length if read is None else read.values
    if column.tform == "D" and read is not None and read.code in "DEBIJKV" and None not in cells:
        return list(map(float, cells))
    convert = _real if column.tform == "D" else _integer
    values: list[Any] = []
    for n, cell in enumerate(cells):
        text = "" if cell is None else text_of(cell)
        try:
            if is_null(text) and column.name in _NO_DEFAULT:
                raise ValueError(text)
            values.append(0 if is_null(text) else convert(text))
        except ValueError:
            values.append(math.nan if column.tform == "D" else 0)
            bad.setdefault(n, {})[column.name] = text
    return values


def _texts(cells: list[Any]) -> list[str | None]:
    known: dict[Any, str | None] = {None: None}  # few values are distinct
    for cell in cells:
        if cell not in known:
            text = text_of(cell)
            known[cell] = None if is_null(text) else text
    return [known[cell] for cell in cells]


def _real(text: str) -> float:
    return float(text) if text in ("nan", "inf", "-inf") else number_of(text)


def _integer(text: str) -> int:
    number = number_of(text)
    if not (0 <= number <= MAX_INTEGER and number.is_integer()):
        raise ValueError(text)
    return int(number)


def row_fault(row: RequestRow, column: RequestColumn) -> str | None:
    """Return why a request table can't hold a row's value in a column, or `None` if it can."""
    value = getattr(row, column.name.lower())
    if column.name in row.bad:
        return f"{shown(row.bad[column.name])}; expected a number"
    if column.tform == "D":
        return None if math.isfinite(value) else f"{value}; expected a finite number"
    if column.tform == "J":
        return None if 0 <= value <= MAX_INTEGER else f"{value}; expected a whole number from 0 to {MAX_INTEGER}"
    text = value or ""
    if text != ascii_of(text) or len(text) > column.width:
        return f"{shown(text)} ({len(text)} characters); expected at most {column.width}, all ASCII"
    return None


def write_request(path: Path, table: RequestTable) -> None:
    """Write a request as the reference writer does (same TFORMs, EXTVER as text); the same table gives the same bytes.

    Raises
    ------
    UserError
        The name is not allowed, or a value doesn't fit its column: nothing is written.
    """
    if not name_is_valid(table.req_name):
        raise UserError(f"{path.name}: REQ_NAME is {shown(table.req_name)}; expected {NAME_RULE}")
    header = {"EXTNAME": EXTNAME, "EXTVER": str(table.extver), "REQ_NAME": table.req_name}
    if table.extver > 1:
        header |= {"ACTION": table.action, "EMAIL": table.email or "null"}
    for keyword, text in header.items():
        if text != ascii_of(text) or len(text) > 68:
            raise UserError(f"{path.name}: {keyword} is {shown(text)}; expected at most 68 ASCII characters")
    columns = columns_of(table.extver)
    for row in table.rows:
        for column in columns:
            if fault := row_fault(row, column):
                raise UserError(f"{path.name}, row {row.rownum}: {column.name} is {fault}")
    write_table(path, header, [(c.name, c.tform, "", "", _cells(table.rows, c)) for c in columns])


def _cells(rows: tuple[RequestRow, ...], column: RequestColumn) -> list[Any]:
    values = [getattr(row, column.name.lower()) for row in rows]
    return ["null" if value is None else value for value in values] if column.tform.endswith("A") else values
