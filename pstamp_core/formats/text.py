"""Requests as people write them: the text form of `pstamp_request_file`, and the defaults of `psmkreq`.

The text form: empty lines and lines that begin with ``#`` are skipped; the first other line is the header,
``REQ_NAME EXTVER ACTION EMAIL``; each further line is a row, its values in the order of the columns without COMMENT,
then optionally ``|`` and the comment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any
from warnings import catch_warnings

from pstamp_core.faults import UserError
from pstamp_core.formats.checks import IMG_TYPES, JOB_TYPES, REQ_TYPES
from pstamp_core.formats.request import (
    MAX_INTEGER,
    CoordMask,
    Option,
    RequestColumn,
    RequestRow,
    RequestTable,
    columns_of,
    row_fault,
)
from pstamp_core.formats.tables import MAX_ROWS, ascii_of, is_null, number_of, number_text, shown

OPTION_FLAGS = {
    "image": Option.SELECT_IMAGE, "mask": Option.SELECT_MASK, "variance": Option.SELECT_VARIANCE,
    "jpeg": Option.SELECT_JPEG, "cmf": Option.SELECT_CMF, "psf": Option.SELECT_PSF, "backmdl": Option.SELECT_BACKMDL,
    "exptime": Option.SELECT_EXP, "expnum": Option.SELECT_NUM, "exptimejpeg": Option.SELECT_EXPJPEG,
    "expnumjpeg": Option.SELECT_NUMJPEG, "uncompressed": Option.SELECT_UNCOMPRESSED,
    "unconvolved": Option.SELECT_UNCONV, "use_imfile_id": Option.USE_IMFILE_ID, "inverse": Option.SELECT_INVERSE,
    "restorebackground": Option.RESTORE_BACKGROUND, "allroi": Option.MULTI_OVERLAP_IMAGE,
    "do_not_wait": Option.NO_WAIT_FOR_UPDATE,
}  # fmt: skip
"""The bit that each flag of `psmkreq` sets."""

_MIN_VALUES = 6  # ROWNUM ... COORD_MASK
_MAX_COMMENT = 63
_NEEDS_ID = ("byid", "byexp", "bydiff")
_SEXAGESIMAL = re.compile(r"[+-]?\d{1,3}:\d{1,2}(:\d{1,2}(\.\d*)?)?", re.ASCII)


def parse_text(
    text: str, *, req_name: str | None = None, email: str | None = None, source: str = "request text"
) -> tuple[RequestTable, list[str]]:
    """Turn the text form of a request into its table.

    Values that a row leaves out at its end repeat those of the row before; ROWNUM 0 means "number me". A blank at
    the start of a line means nothing (in the original it shifts the row by a column).

    Parameters
    ----------
    text : str
        The text.
    req_name, email : str, optional
        Stand in for those of the header line.
    source : str
        What messages call the text, usually the name of its file.

    Returns
    -------
    table : RequestTable
        The request; `check_request` and `check_rows` judge it further.
    warnings : list of str
        What was dropped or changed, each with its line.

    Raises
    ------
    UserError
        21: a line is malformed; the message names the line.
    """
    warnings: list[str] = []
    header: RequestTable | None = None
    rows: list[RequestRow] = []
    numbers: dict[int, int] = {}  # ROWNUM -> line
    last: list[str] = []
    counter = 0
    for n, line in enumerate(map(str.strip, text.removeprefix("\ufeff").split("\n")), 1):
        if not line or line.startswith("#"):
            continue
        where = f"{source}, line {n}"
        if header is None:
            header = _header(line, req_name, email, where, warnings)
            continue
        if len(rows) == MAX_ROWS:
            raise UserError(f"{where}: this is row {MAX_ROWS + 1}; expected at most {MAX_ROWS} rows")
        columns = columns_of(header.extver)[:-1]
        before, bar, comment = line.partition("|")
        last = _complete(before.split(), last, len(columns), where, warnings)
        values: dict[str, Any] = {c.name.lower(): _value(c, word, where) for c, word in zip(columns, last, strict=True)}
        if values["rownum"] == 0:
            counter += 1
            values["rownum"] = counter
        if values["rownum"] in numbers:
            raise UserError(f"{where}: ROWNUM {values['rownum']} is that of line {numbers[values['rownum']]}")
        numbers[values["rownum"]] = n
        rows.append(RequestRow(**values, comment=_comment(comment, where, warnings) if bar else None))
    if header is None:
        raise UserError(f"{source}: there is no header line; expected REQ_NAME EXTVER ACTION EMAIL")
    return replace(header, rows=tuple(rows)), warnings


def _header(line: str, req_name: str | None, email: str | None, where: str, warnings: list[str]) -> RequestTable:
    words = line.replace("'", "").split()
    if len(words) < 2 or words[1] not in ("1", "2"):
        raise UserError(f"{where}: the header is {shown(line)}; expected REQ_NAME EXTVER ACTION EMAIL, EXTVER 1 or 2")
    name = words[0] if req_name is None else req_name
    if words[1] == "1":
        if words[2:] or email is not None:
            warnings.append(f"{where}: version 1 has no ACTION and EMAIL; they are dropped")
        return RequestTable(name, 1, "PROCESS", None, ())
    if len(words) != 4:
        raise UserError(f"{where}: the header has {len(words)} words; expected four, REQ_NAME EXTVER ACTION EMAIL")
    address = words[3] if email is None else email
    return RequestTable(name, 2, words[2].upper(), None if is_null(address) else address, ())


def _complete(words: list[str], last: list[str], number: int, where: str, warnings: list[str]) -> list[str]:
    """Return the values of a row, those left out taken from the row before."""
    if len(words) < _MIN_VALUES:
        raise UserError(f"{where}: the row has {len(words)} values; expected at least {_MIN_VALUES}")
    if not last and len(words) < number:
        raise UserError(f"{where}: the first row has {len(words)} values; expected all {number}")
    if len(words) > number:
        warnings.append(f"{where}: the row has {len(words)} values; those after {number} are dropped")
    return (words + last[len(words) :])[:number]


def _value(column: RequestColumn, word: str, where: str) -> Any:
    try:
        if column.tform == "D":
            number = number_of(word)
            if math.isinf(number):
                raise ValueError(word)
            return number
        if column.tform == "J":
            if not re.fullmatch(r"[0-9]{1,10}", word) or int(word) > MAX_INTEGER:
                raise ValueError(word)
            return int(word)
    except ValueError:
        kind = "a number" if column.tform == "D" else f"a whole number from 0 to {MAX_INTEGER}"
        raise UserError(f"{where}: {column.name} is {shown(word)}; expected {kind}") from None
    if len(word) > column.width or word != ascii_of(word):
        raise UserError(
            f"{where}: {column.name} is {shown(word)} ({len(word)} characters); expected at most {column.width} ASCII"
        )
    return None if is_null(word) else word


def _comment(text: str, where: str, warnings: list[str]) -> str | None:
    comment, bar, _ = text.partition("|")
    if bar:
        warnings.append(f"{where}: the comment is cut at its vertical bar")
    if "#" in comment:
        comment = comment.replace("#", " ", 1)
        warnings.append(f"{where}: the first # of the comment is replaced by a blank")
    if comment != ascii_of(comment):
        comment = ascii_of(comment)
        warnings.append(f"{where}: characters of the comment that are not ASCII are replaced by ?")
    comment = comment.strip()
    if len(comment) > _MAX_COMMENT:
        comment = comment[:_MAX_COMMENT].rstrip()
        warnings.append(f"{where}: the comment is cut to {_MAX_COMMENT} characters")
    return None if is_null(comment) else comment


def format_text(table: RequestTable) -> str:
    """Return the text form of a request, which `parse_text` turns back into the same table.

    Raises
    ------
    UserError
        21: the text form can't hold a value (a blank or a bar in it, a ROWNUM of 0 or used twice).
    """
    header = [table.req_name, str(table.extver)]
    if table.extver > 1:
        header += [table.action, table.email or "null"]
    for word in header:
        if not word or re.search(r"[\s']", word) or word.startswith("#"):
            raise UserError(f"the text form can't hold {shown(word)} in its header; expected one word without '")
    lines = [" ".join(header)]
    columns = columns_of(table.extver)
    numbers: set[int] = set()
    for row in table.rows:
        for column in columns:
            if fault := row_fault(row, column) or _text_fault(row, column):
                raise UserError(f"row {row.rownum}: {column.name} is {fault}")
        if row.rownum in numbers or row.rownum == 0:
            raise UserError(f"row {row.rownum}: ROWNUM is {row.rownum}; the text form needs one that is not used yet")
        numbers.add(row.rownum)
        words = [_word(getattr(row, column.name.lower())) for column in columns[:-1]]
        lines.append(" ".join(words) + (f" | {row.comment}" if row.comment else ""))
    return "\n".join(lines) + "\n"


def _text_fault(row: RequestRow, column: RequestColumn) -> str | None:
    value = getattr(row, column.name.lower())
    if not isinstance(value, str):
        return None
    if column.name == "COMMENT":
        held = len(value) <= _MAX_COMMENT and not re.search(r"[|#]", value)
        return None if held else f"{shown(value)}; the text form holds {_MAX_COMMENT} characters without | and #"
    return None if not re.search(r"[\s|]", value) else f"{shown(value)}; the text form holds one word without |"


def _word(value: str | float | None) -> str:
    if isinstance(value, str):
        return value
    return "null" if value is None else number_text(value)


def make_request(
    req_name: str,
    *,
    email: str | None,
    ra: str | float | None = None,
    dec: str | float | None = None,
    x: float | None = None,
    y: float | None = None,
    pixcenter: bool = False,
    whole_file: bool = False,
    arcseconds: bool = False,
    convolved: bool = False,
    options: int = Option.SELECT_IMAGE,
    option_mask: int | None = None,
    action: str = "PROCESS",
    targets: Sequence[Mapping[str, Any]] = (),
    **columns: Any,
) -> RequestTable:
    """Make a request (version 2) with the defaults of `psmkreq`: stamps of 100 x 100 pixels, stack, bycoord, gpc1.

    Parameters
    ----------
    req_name, email, action : str
        The header.
    ra, dec : str or float, optional
        Centre in degrees, or as text ``h:m:s`` and ``d:m:s``.
    x, y : float, optional
        Centre in pixels instead.
    pixcenter : bool
        Insist on that.
    whole_file : bool
        The whole image: size 0, and a pixel centre of 0, 0 if there is no `ra` and `dec`.
    arcseconds : bool
        The size is in seconds of arc, not in pixels.
    convolved : bool
        Take the convolved stack; else the unconvolved bit is set for stacks.
    options : int
        `Option` bits.
    option_mask : int, optional
        The exact OPTION_MASK, no bit added.
    targets : sequence of mapping
        Columns in which the rows differ, as `parse_targets` returns them; the rows are numbered from 1.
    **columns
        Columns (lower case) that all rows share: ``width=50, reqfilt="i"``; `None` is not given.

    Raises
    ------
    UserError
        21: centre or ID missing, or a combination that `psmkreq` refuses.
    """
    row: dict[str, Any] = {
        "width": 100,
        "height": 100,
        "job_type": "stamp",
        "project": "gpc1",
        "req_type": "bycoord",
        "img_type": "stack",
        **{name: value for name, value in columns.items() if value is not None},
    }
    unknown = sorted(set(row) - {column.name.lower() for column in columns_of(2)})
    if unknown:
        raise UserError(f"{unknown[0].upper()} is not a column of a request")
    if row["job_type"] == "get_image" and row["req_type"] not in ("byid", "byexp"):
        raise UserError(f"JOB_TYPE is 'get_image' with {row['req_type']}; expected byid or byexp")
    if row["req_type"] in _NEEDS_ID and not row.get("id"):
        raise UserError(f"ID is not given; expected one, as {row['req_type']} needs it")
    if row["req_type"] == "byid" and not re.fullmatch(r"[0-9]+", str(row["id"])):
        raise UserError(f"ID is {shown(row['id'])}; expected digits only, as byid needs them")
    for name, known in (("job_type", JOB_TYPES), ("req_type", REQ_TYPES), ("img_type", IMG_TYPES)):
        if row[name] not in known:
            raise UserError(f"{name.upper()} is {shown(row[name])}; expected one of {', '.join(known)}")
    whole_file = whole_file or row["job_type"] == "get_image"
    if pixcenter and not whole_file and (x is None or y is None):
        raise UserError("the centre is not clear; expected x and y, as it is in pixels")
    if whole_file:
        row |= {"width": 0, "height": 0}
    row |= _center(ra, dec, x, y, in_targets=bool(targets), needed=not whole_file)
    if not arcseconds:
        row["coord_mask"] |= CoordMask.RANGE_IN_PIXELS
    if option_mask is None:
        unconvolved = row["img_type"] == "stack" and not convolved
        option_mask = options | (Option.SELECT_UNCONV if unconvolved else 0)
    row["option_mask"] = option_mask
    rows = tuple(_row({**row, **target, "rownum": n}) for n, target in enumerate(targets or ({},), 1))
    return RequestTable(req_name, 2, action.upper(), email, rows)


def _center(
    ra: str | float | None, dec: str | float | None, x: float | None, y: float | None, *, in_targets: bool, needed: bool
) -> dict[str, Any]:
    """Return the columns of the centre, and the bit of COORD_MASK that says what it is."""
    if in_targets and ra is dec is x is y is None:
        return {"coord_mask": 0}  # sky positions
    if not in_targets and ra is not None and dec is not None and x is y is None:
        return {**_sky(ra, dec, ""), "coord_mask": 0}
    if not in_targets and x is not None and y is not None and ra is dec is None:
        return {"center_x": x, "center_y": y, "coord_mask": CoordMask.CENTER_IN_PIXELS}
    if not needed and ra is dec is x is y is None:
        return {"center_x": 0, "center_y": 0, "coord_mask": CoordMask.CENTER_IN_PIXELS}
    raise UserError("the centre is not clear; expected RA and Dec, or x and y, or a list of targets")


def _row(values: Mapping[str, Any]) -> RequestRow:
    """Return the row of these values, each one checked as if it had been written down; `None` is not given."""
    where = f"row {values['rownum']}"
    given = [c for c in columns_of(2) if values.get(c.name.lower()) is not None]
    return RequestRow(**{c.name.lower(): _value(c, _word(values[c.name.lower()]), where) for c in given})


def parse_targets(
    text: str, *, numbered: bool = True, most: int = MAX_ROWS, source: str = "target list"
) -> tuple[list[dict[str, Any]], list[str]]:
    """Read a list of targets: lines ``ROWNUM RA DEC [FILTER [MJD_MIN [MJD_MAX]]] [| comment]`` (`psmkreq --list`).

    Empty lines and lines that begin with ``#`` are skipped. RA and Dec are degrees, or ``h:m:s`` and ``d:m:s``. ROWNUM
    must be there and means nothing: `make_request` numbers the rows anew.

    Parameters
    ----------
    text : str
        The list.
    numbered : bool
        Whether ROWNUM is there. Without it a list is read as people paste it: commas may stand between the values, and
        blanks for the colons of a position.
    most : int
        Targets; more are refused.
    source : str
        What messages call the text.

    Returns
    -------
    targets : list of dict
        Columns by lower-case name, for `make_request`.
    warnings : list of str
        What was changed in comments, each with its line.

    Raises
    ------
    UserError
        21: a line is malformed; the message names the line.
    """
    targets: list[dict[str, Any]] = []
    warnings: list[str] = []
    for n, line in enumerate(map(str.strip, text.split("\n")), 1):
        before, _, comment = line.partition("|")
        if not line or line.startswith("#"):
            continue
        where = f"{source}, line {n}"
        if len(targets) == most:
            raise UserError(f"{where}: this is target {most + 1}; expected at most {most}")
        words = _numbered(before, where) if numbered else _pasted(before, where)
        targets.append(
            {
                **_sky(words[0], words[1], f"{where}: "),
                **dict(zip(("reqfilt", "mjd_min", "mjd_max"), words[2:], strict=False)),
                "comment": _comment(comment, where, warnings),
            }
        )
    return targets, warnings


def _numbered(text: str, where: str) -> list[str]:
    words = text.split()
    if not 3 <= len(words) <= 6:
        raise UserError(f"{where}: there are {len(words)} values; expected ROWNUM RA DEC [FILTER [MJD_MIN [MJD_MAX]]]")
    return words[1:]


def _pasted(text: str, where: str) -> list[str]:
    """Return the words of a line without ROWNUM; a number in the place of a filter is a sign of something else."""
    words = text.replace(",", " ").split()
    numbers = sum(1 for _ in takewhile(_is_angle, words))
    if numbers == 6 and ":" not in text:
        words = [":".join(words[:3]), ":".join(words[3:6]), *words[6:]]
        numbers = 2
    if numbers != 2 or len(words) > 5:
        raise UserError(
            f"{where}: it begins with {numbers} numbers and has {len(words)} values; "
            "expected RA DEC [FILTER [MJD_MIN [MJD_MAX]]]"
        )
    return words


def _is_angle(word: str) -> bool:
    try:
        number_of(word)
    except ValueError:
        return _SEXAGESIMAL.fullmatch(word) is not None
    return True


def _sky(ra: str | float, dec: str | float, where: str) -> dict[str, float]:
    return {
        "center_x": _degrees(ra, f"{where}RA", in_hours=True),
        "center_y": _degrees(dec, f"{where}DEC", in_hours=False),
    }


def _degrees(angle: str | float, what: str, *, in_hours: bool) -> float:
    """Return an angle in degrees; text with colons is in hours or in degrees."""
    text = angle if isinstance(angle, str) else number_text(angle)
    try:
        if _SEXAGESIMAL.fullmatch(text):
            from astropy.coordinates import Angle  # slow to import, and most positions are decimal

            with catch_warnings(action="error"):  # 60 seconds and the like
                return float(Angle(text, "deg").deg) * (15.0 if in_hours else 1.0)
        return number_of(text)
    except (ValueError, Warning):
        form = "h:m:s" if in_hours else "d:m:s"
        raise UserError(f"{what} is {shown(text)}; expected degrees or {form}") from None
