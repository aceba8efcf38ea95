"""What is wrong with a request: the checks of `pstampparse.pl` in its order with its codes, then ours.

A finding is an answer for the user, never a fault of the request. The checks need no database; what does (a name
already taken, an access level, a project) is asked through the caller.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pstamp_core.faults import Fault
from pstamp_core.formats.request import MAX_INTEGER, NAME_RULE, Option, RequestRow, RequestTable, name_is_valid
from pstamp_core.formats.tables import number_text, shown

JOB_TYPES = ("stamp", "get_image")
REQ_TYPES = ("byid", "byexp", "bydiff", "bycoord", "byskycell")
IMG_TYPES = ("raw", "chip", "warp", "diff", "stack", "stack_summary")

MAX_SIZE_PIXELS = 8000
"""Largest width or height of a stamp in pixels (`pstampGetROI.c` cuts down to it; we refuse)."""
MAX_SIZE_ARCSEC = 36_000.0
"""Largest width or height in seconds of arc: ten degrees, more than any image; the pixel limit follows with the WCS."""
MAX_CENTER_PIXELS = 1_000_000.0
"""Farthest pixel that can be a centre: far outside of any image, and small enough to count with."""

_POSITION = ("CENTER_X", "CENTER_Y", "WIDTH", "HEIGHT")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_MAX_EMAIL = 255  # pstampRequest.username

_MASKS = ("COORD_MASK", "OPTION_MASK")
_Problem = tuple[str, int, str]  # column, code, what was expected
_Check = tuple[str, Callable[[RequestRow], bool], str, Fault]  # column, what is wrong, what was expected, code


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a request or a row.

    Attributes
    ----------
    position : int
        Which row of the table it is about, from 1; 0 for the whole request.
    rownum : int
        ROWNUM of the row; 0 for the whole request, or when ROWNUM itself is wrong.
    fault : int
        The code of the answer.
    column : str
        Column or header keyword; empty when it is about all rows.
    value : str
        Its value, short and printable.
    reason : str
        What was expected, or why it can't be.
    sentence : str
        File, row, column, value, and the reason.
    """

    position: int
    rownum: int
    fault: int
    column: str
    value: str
    reason: str
    sentence: str


def check_request(table: RequestTable, *, serve_v1: bool, path: Path | str) -> Finding | None:
    """Return the first thing wrong with a request as a whole, or `None`.

    Parameters
    ----------
    table : RequestTable
        The request as it was read.
    serve_v1 : bool
        Whether the site serves version 1, which has neither ACTION nor EMAIL (`pstampparse.pl` refuses it with 29).
    path : Path or str
        Where it came from; its base name stands in the sentence.
    """
    in_v2 = table.extver > 1

    def found(fault: Fault, column: str, value: str | None, expected: str) -> Finding:
        text = "not given" if not value else shown(value)
        reason = f"expected {expected}"
        return Finding(0, 0, fault, column, text, reason, f"{_base(path)}: {column} is {text}; {reason}")

    if not in_v2 and not serve_v1:
        return found(Fault.PSTAMP_NOT_AUTHORIZED, "EXTVER", "1", "2: version 1 is not served here")
    if in_v2 and table.action not in ("PROCESS", "PREVIEW"):
        return found(Fault.PSTAMP_INVALID_REQUEST, "ACTION", table.action, "PROCESS or PREVIEW")
    if in_v2 and not (table.email and _EMAIL.fullmatch(table.email) and len(table.email) <= _MAX_EMAIL):
        return found(Fault.PSTAMP_NOT_AUTHORIZED, "EMAIL", table.email, "user@domain")
    if not table.rows:
        reason = "expected at least one"
        sentence = f"{_base(path)}: the table has no rows; {reason}"
        return Finding(0, 0, Fault.PSTAMP_INVALID_REQUEST, "", "no rows", reason, sentence)
    if not name_is_valid(table.req_name):
        return found(Fault.PSTAMP_INVALID_REQUEST, "REQ_NAME", table.req_name, NAME_RULE)
    return None


def check_rows(
    table: RequestTable,
    *,
    project_fault: Callable[[str], tuple[int, str] | None],
    path: Path | str,
    max_size_pixels: int = MAX_SIZE_PIXELS,
) -> list[list[Finding]]:
    """Return what is wrong with each row: one list for each, empty for a good row; the first finding is its code.

    Parameters
    ----------
    table : RequestTable
        The request.
    project_fault : callable
        Asked once for each project: its name -> `None`, or the code (22, 29) and why, as the end of the sentence.
    path : Path or str
        Where the request came from; its base name stands in the sentences.
    max_size_pixels : int
        Largest width or height in pixels.
    """
    projects: dict[str, tuple[int, str] | None] = {}
    seen: set[int] = set()
    findings = []
    for n, row in enumerate(table.rows, 1):
        problems = [(column, fault, f"expected {expected}") for column, fault, expected in _original(row)]
        if row.project is None:
            problems.append(("PROJECT", Fault.PSTAMP_UNKNOWN_PROJECT, "expected the name of a project"))
        else:
            if row.project not in projects:
                projects[row.project] = project_fault(row.project)
            if answer := projects[row.project]:
                problems.append(("PROJECT", *answer))
        if row.rownum and row.rownum in seen:
            problems.append(("ROWNUM", Fault.PSTAMP_INVALID_REQUEST, "expected a number that no row before it has"))
        seen.add(row.rownum)
        problems += [
            (column, Fault.PSTAMP_INVALID_REQUEST, f"expected {expected}")
            for column, expected in _ours(row, max_size_pixels)
        ]
        findings.append([_finding(row, n, *problem, path) for problem in problems])
    return findings


def _original(row: RequestRow) -> Iterator[_Problem]:
    """Yield what `checkRow` and `processRow` refuse, in their order (less the project)."""
    for column, is_wrong, expected, fault in _CHECKS:
        if is_wrong(row):
            yield column, fault, expected.format(row=row)


def _ours(row: RequestRow, max_size_pixels: int) -> Iterator[tuple[str, str]]:
    """Yield what the original let through, to end in a strange job or in a puzzling 23."""
    if _is_placed(row):
        yield from _out_of_range(row, max_size_pixels)
    else:  # what is not used may be missing, but not be nonsense
        for column in _POSITION:
            if row.bad.get(column) or (column not in row.bad and not _is_number(row, column)):
                yield column, "a number"
    for column in _MASKS:
        if column in row.bad or not 0 <= getattr(row, column.lower()) <= MAX_INTEGER:
            yield column, f"a whole number from 0 to {MAX_INTEGER}"
    if 0 < row.mjd_max < row.mjd_min:
        yield "MJD_MIN", f"at most MJD_MAX, {number_text(row.mjd_max)}"
    if 0 < row.fwhm_max < row.fwhm_min:
        yield "FWHM_MIN", f"at most FWHM_MAX, {number_text(row.fwhm_max)}"


def _out_of_range(row: RequestRow, max_size_pixels: int) -> Iterator[tuple[str, str]]:
    """Yield the positions and sizes that no image can have; NaN passes, it was found before."""
    if row.center_in_pixels:
        limit = f"a pixel from -{MAX_CENTER_PIXELS:.0f} to {MAX_CENTER_PIXELS:.0f}"
        for column in ("CENTER_X", "CENTER_Y"):
            if MAX_CENTER_PIXELS < abs(getattr(row, column.lower())) < math.inf:
                yield column, limit
    else:
        if math.isfinite(row.center_x) and not -180.0 <= row.center_x <= 360.0:
            yield "CENTER_X", "RA in degrees, from -180 to 360"
        if math.isfinite(row.center_y) and not -90.0 <= row.center_y <= 90.0:
            yield "CENTER_Y", "Dec in degrees, from -90 to 90"
    if row.whole_file:
        return
    largest, unit = (max_size_pixels, "pixels") if row.size_in_pixels else (MAX_SIZE_ARCSEC, "seconds of arc")
    for column, size in zip(("WIDTH", "HEIGHT"), row.size, strict=True):
        if size == 0:
            yield column, "a size, or WIDTH and HEIGHT both 0 for the whole file"
        elif largest < size < math.inf:
            yield column, f"at most {largest:.0f} {unit}"


def _is_placed(row: RequestRow) -> bool:
    """Tell whether centre and size are used (`get_image` fetches whole files by their ids)."""
    return row.job_type == "stamp" or row.req_type == "bycoord"


def _needs_component(row: RequestRow) -> bool:
    """Tell whether a pixel centre lacks the component whose pixel it is."""
    return (
        row.center_in_pixels
        and not row.whole_file
        and row.only_component is None
        and row.img_type != "stack"
        and Option.USE_IMFILE_ID not in row.options
    )


def _is_bundle_of_too_much(row: RequestRow) -> bool:
    """Tell whether `get_image` is asked for where it isn't supported."""
    return row.job_type == "get_image" and not (
        row.img_type == "stack_summary"
        or row.req_type in ("byid", "byexp")
        or (row.req_type == "byskycell" and row.img_type == "stack")
    )


def _is_number(row: RequestRow, column: str) -> bool:
    return math.isfinite(getattr(row, column.lower()))


def _is_id(text: str | None) -> bool:
    return text is not None and re.fullmatch(r"[0-9]{1,18}", text) is not None and int(text) > 0


def _one_of(values: tuple[str, ...]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"


def _no_number(column: str, *, where_used: bool = False) -> _Check:
    return (
        column,
        lambda row: not _is_number(row, column) and (_is_placed(row) or not where_used),
        "a number",
        Fault.PSTAMP_INVALID_REQUEST,
    )


_INVALID = Fault.PSTAMP_INVALID_REQUEST
_CHECKS: tuple[_Check, ...] = (
    ("ROWNUM", lambda row: not 1 <= row.rownum <= MAX_INTEGER, f"a whole number from 1 to {MAX_INTEGER}", _INVALID),
    ("JOB_TYPE", lambda row: row.job_type not in JOB_TYPES, _one_of(JOB_TYPES), _INVALID),
    ("REQ_TYPE", lambda row: row.req_type not in REQ_TYPES, _one_of(REQ_TYPES), _INVALID),
    (
        "JOB_TYPE",
        lambda row: row.req_type in REQ_TYPES and _is_bundle_of_too_much(row),
        "stamp (get_image goes with byid, byexp, byskycell stack and stack_summary)",
        _INVALID,
    ),
    _no_number("MJD_MIN"),
    _no_number("MJD_MAX"),
    _no_number("FWHM_MIN"),
    _no_number("FWHM_MAX"),
    ("COMPONENT", _needs_component, "a chip or skycell, as the centre is a pixel", _INVALID),
    ("IMG_TYPE", lambda row: row.img_type not in IMG_TYPES, _one_of(IMG_TYPES), _INVALID),
    *(_no_number(column, where_used=True) for column in _POSITION),
    (
        "IMG_TYPE",
        lambda row: row.req_type == "byexp" and row.img_type in ("stack", "stack_summary"),
        "raw, chip, warp or diff with byexp",
        Fault.PSTAMP_NOT_IMPLEMENTED,
    ),
    (
        "COORD_MASK",
        lambda row: row.req_type == "bycoord" and row.center_in_pixels,
        "no bit 1 (pixel centre), as bycoord needs RA and Dec",
        _INVALID,
    ),
    (
        "ID",
        lambda row: row.req_type in ("byid", "bydiff") and not _is_id(row.id),
        "a number from the database, as {row.req_type} needs it",
        _INVALID,
    ),
)
"""The checks 1-12, in the order of the original: column, what is wrong, what was expected, code."""


def _finding(row: RequestRow, position: int, column: str, fault: int, reason: str, path: Path | str) -> Finding:
    value = row.bad.get(column, getattr(row, column.lower()))
    if value is None or value == "":
        text = "not given"
    else:
        text = number_text(value) if isinstance(value, float) else shown(value)
    has_number = 1 <= row.rownum <= MAX_INTEGER
    where = f"row {row.rownum}" if has_number else f"row {position} of the table"
    sentence = f"{_base(path)}, {where}: {column} is {text}; {reason}"
    return Finding(position, row.rownum if has_number else 0, int(fault), column, text, reason, sentence)


def _base(path: Path | str) -> str:
    return shown(Path(path).name, quote=False)
