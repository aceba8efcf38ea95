"""Reading the one binary table of a file from a stranger, with every size bounded before memory is taken.

Requests, results and dumps are all read here, so that a damaged or hostile file has one place to be refused in.
"""

from __future__ import annotations

import io
import re
import stat
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from pstamp_core.faults import RetryableError, UserError
from pstamp_core.files import written

MAX_ROWS = 100_000
MAX_BYTES = 200_000_000
MAX_CARDS = 10_000
"""Longest header that is parsed, in cards of 80 bytes; 999 columns need a third of it."""
MAX_WIDTH = 1024
"""Widest text cell that is read, in bytes; the widest column of a request has 64."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_ASCII = re.compile(r"[^ -~]")


@dataclass(frozen=True)
class Column:
    """A column as it was read.

    Attributes
    ----------
    code : str
        Type letter of its TFORM (FITS standard, table 18), ``V`` for the unsigned form of ``J``.
    values : list
        One Python value for each row: `bytes`, `int`, `float`, `bool`; `None` where the column's TNULL stood.
    """

    code: str
    values: list[Any]


@dataclass(frozen=True)
class Table:
    """A binary table as it was read: the keywords asked for, the columns by upper-case name, the number of rows."""

    keywords: dict[str, Any]
    columns: dict[str, Column]
    length: int


def read_table(
    path: Path,
    *,
    extname: str | None = None,
    keywords: Sequence[str] = (),
    wanted: Collection[str] | None = None,
    max_rows: int = MAX_ROWS,
    max_bytes: int = MAX_BYTES,
) -> Table:
    """Read the first extension of a FITS file as a binary table.

    Parameters
    ----------
    path : Path
        The file. Compressed files are refused: their size says nothing about what comes out.
    extname : str, optional
        What EXTNAME must be.
    keywords : sequence of str
        Header keywords to return; a missing one is `None`.
    wanted : collection of str, optional
        Upper-case names of the columns to read, by default all. Other columns do no harm, whatever they hold.
    max_rows, max_bytes : int
        Larger tables and files are refused before they are read.

    Raises
    ------
    UserError
        21: the file is missing, or is not such a table; the message names the file and what was expected.
    RetryableError
        The disk failed.
    """
    from astropy.io import fits

    content = _content(path, max_bytes)
    content = _with_right_axes(path, content)
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # astropy repairs what it can; what it can't, it raises
            fits.open(io.BytesIO(content), memmap=False, lazy_load_hdus=True, character_as_bytes=True) as hdus,
        ):
            primary = hdus[0].fileinfo()
            _end_of_header(path, content, primary["datLoc"] + primary["datSpan"])
            try:
                hdu = hdus[1]
            except IndexError:
                raise _refuse(path, "there is no first extension", "a binary table there") from None
            if not isinstance(hdu, fits.BinTableHDU):
                raise _refuse(path, "the first extension is not a binary table", "a binary table there")
            if extname is not None and str(hdu.header.get("EXTNAME")).strip() != extname:
                raise _refuse(path, f"EXTNAME is {shown(hdu.header.get('EXTNAME'))}", extname)
            _check_size(path, hdu, len(content), max_rows)
            _mend_number_of_columns(hdu)
            return Table(
                {key: hdu.header.get(key) for key in keywords}, _columns(path, hdu, wanted), int(hdu.header["NAXIS2"])
            )
    except (UserError, MemoryError):  # a server short of memory says nothing about the file
        raise
    except Exception as error:  # a damaged header raises nearly anything in astropy
        reason = ascii_of(" ".join(str(error).split()))[:100] or type(error).__name__
        raise _refuse(path, f"the file is damaged ({reason})", "a FITS binary table") from None


def _content(path: Path, max_bytes: int) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refuse(path, "this is not a regular file", "a FITS file")
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except FileNotFoundError:
        raise _refuse(path, "there is no such file", "a FITS file") from None
    except OSError as error:
        raise RetryableError(f"{path}: can't be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise _refuse(path, f"the file has more than {max_bytes} bytes", "a smaller table")
    if not content.startswith(b"SIMPLE  ="):
        raise _refuse(path, "this is not a FITS file", "a file that begins with SIMPLE, not compressed")
    return content


def _end_of_header(path: Path, content: bytes, start: int) -> int:
    """Return where the blocks of the header that begins at `start` end, before astropy parses without bounds."""
    end = b"END".ljust(80)
    cards = range(start, min(len(content), start + 80 * MAX_CARDS), 80)
    last = next((n for n in cards if content[n : n + 80] == end), None)
    if cards and last is None:
        raise _refuse(path, "a header has no END", f"one within {MAX_CARDS} cards")
    return start if last is None else -(-(last + 80) // 2880) * 2880


def _with_right_axes(path: Path, content: bytes) -> bytes:
    """Return a file with the right NAXIS where a writer left that of another header.

    An extension that begins right after the primary header tells that there is no primary data; a table has two axes.
    """
    table = _end_of_header(path, content, 0)
    if not content.startswith(b"XTENSION", table):
        return content
    for start, end, axes in (0, table, 0), (table, _end_of_header(path, content, table), 2):
        card = content.find(b"NAXIS   =", start, end)
        if card >= 0 and content[card + 9 : card + 30].strip() != str(axes).encode():
            content = content[:card] + f"NAXIS   = {axes:20}".ljust(80).encode() + content[card + 80 :]
    return content


def _mend_number_of_columns(hdu: Any) -> None:
    """Take the columns that there are for those that TFIELDS counts, where the latter do not fill a row."""
    there = next(n for n in count(1) if f"TFORM{n}" not in hdu.header) - 1
    if hdu.header["TFIELDS"] > there or sum(column.dtype.itemsize for column in hdu.columns) != hdu.header["NAXIS1"]:
        hdu.header["TFIELDS"] = there
        del hdu.columns


def _check_size(path: Path, hdu: Any, size: int, max_rows: int) -> None:
    """Compare what the header claims with the file's size, before anything is made for the rows."""
    header = hdu.header
    width, rows, heap = (int(header[key]) for key in ("NAXIS1", "NAXIS2", "PCOUNT"))
    if min(width, rows, heap) < 0:
        raise _refuse(path, f"NAXIS1, NAXIS2, PCOUNT are {width}, {rows}, {heap}", "numbers that are not negative")
    if rows > max_rows:
        raise _refuse(path, f"the table has {rows} rows (NAXIS2)", f"at most {max_rows}, so send it in parts")
    start = hdu.fileinfo()["datLoc"]
    if start + width * rows + heap > size:
        raise _refuse(
            path, f"the file is cut short: it has {size} bytes", f"{start + width * rows + heap} for {rows} rows"
        )


def _columns(path: Path, hdu: Any, wanted: Collection[str] | None) -> dict[str, Column]:
    names = [str(column.name or "").strip().upper() for column in hdu.columns]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise _refuse(path, f"column {shown(twice[0])} occurs {names.count(twice[0])} times", "each name once")
    chosen = [n for n, name in enumerate(names) if name and (wanted is None or name in wanted)]
    for n in chosen:  # all before the first value is touched
        letters, code = re.fullmatch(r"\s*(\d*)\s*([A-Z]).*", str(hdu.columns[n].format), re.DOTALL).groups()  # type: ignore[union-attr]
        repeat = int(letters or 1)
        if code not in "ABIJKEDL" or (code != "A" and repeat != 1):
            raise _refuse(path, f"column {names[n]} has TFORM {shown(hdu.columns[n].format)}", "one number or one text")
        if code == "A" and repeat > MAX_WIDTH:
            raise _refuse(path, f"column {names[n]} is {repeat} characters wide", f"at most {MAX_WIDTH}")
    if hdu.columns.dtype.itemsize != hdu.header["NAXIS1"]:
        raise _refuse(
            path, f"NAXIS1 is {hdu.header['NAXIS1']}", f"{hdu.columns.dtype.itemsize}, the sum of the columns"
        )
    return {names[n]: _column(path, names[n], hdu, n) for n in chosen}


def _column(path: Path, name: str, hdu: Any, n: int) -> Column:
    column = hdu.columns[n]
    code = re.sub(r"[^A-Z]", "", column.format)[0]
    values = hdu.data.field(n)
    if values.ndim != 1:
        raise _refuse(path, f"column {name} holds arrays (TDIM {shown(column.dim)})", "one value in each cell")
    if code == "J" and column.bzero == 2**31:
        code = "V"
    cells = values.tolist()
    if code in "BIJK" and column.null is not None:
        cells = [None if cell == column.null else cell for cell in cells]
    return Column(code, cells)


def _refuse(path: Path, what: str, expected: str) -> UserError:
    return UserError(f"{shown(path.name, quote=False)}: {what}; expected {expected}")


def write_table(
    path: Path, keywords: Mapping[str, object], columns: Iterable[tuple[str, str, str, str, list[Any]]]
) -> None:
    """Write one binary table after an empty primary HDU, all or nothing; the same values give the same bytes.

    Parameters
    ----------
    path : Path
        The file, replaced if it exists.
    keywords : mapping
        The header keywords, EXTNAME among them.
    columns : iterable of (name, TFORM, unit, meaning, values)
        The columns in their order; TFORM ``V`` is the unsigned form of ``J``. The meaning is the comment of TTYPE.
    """
    import numpy as np
    from astropy.io import fits

    columns = list(columns)
    kinds = {"J": "i4", "V": "u4", "K": "i8", "D": "f8"}
    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column(
                name,
                "J" if tform == "V" else tform,
                unit or None,
                bzero=2**31 if tform == "V" else None,
                array=np.array(values, dtype=kinds.get(tform, f"S{tform[:-1]}")),
            )
            for name, tform, unit, _, values in columns
        ]
    )
    hdu.header.update(keywords)
    for n, (_, _, _, meaning, _) in enumerate(columns, 1):
        hdu.header.comments[f"TTYPE{n}"] = meaning
    with written(path) as private:
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(private, overwrite=True)


def text_of(cell: Any) -> str:
    """Return a cell or keyword as text: cut at a NUL, no blanks around it, `?` for what can't be printed.

    FITS allows ASCII only; users send UTF-8 and Latin-1 all the same.
    """
    if isinstance(cell, bytes):
        cell = cell.split(b"\0", 1)[0]
        try:
            cell = cell.decode("utf-8")
        except UnicodeDecodeError:
            cell = cell.decode("latin-1")
    elif isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # an ID in a D column
    text = str(cell).strip()
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def ascii_of(text: str) -> str:
    """Return `text` with a `?` for every character that a FITS table can't hold."""
    return _NOT_ASCII.sub("?", text)


def is_null(text: str) -> bool:
    """Tell whether a text means "not given": empty, or ``null`` in any case."""
    return text.lower() in ("", "null")


def number_of(text: str) -> float:
    """Return the number that `text` spells: sign, digits with a fraction or a fraction alone, exponent.

    Raises
    ------
    ValueError
        It is not a number in this form (`nan` and `inf` are not).
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def number_text(number: float) -> str:
    """Return the shortest text that reads back as the same number."""
    return str(int(number)) if isinstance(number, int) else repr(float(number)).removesuffix(".0")


def shown(value: object, *, quote: bool = True) -> str:
    """Return a user's value for a message: text in quotes, nothing unprintable, at most about 60 characters."""
    text = ascii_of(str(value))
    if len(text) > 60:
        text = text[:57] + "..."
    return f"'{text}'" if quote and isinstance(value, str) else text
