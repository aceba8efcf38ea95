"""The text of the three levels of index.txt: written to the byte as IPP's server writes it, read as its clients read.

Sources: `dsrootindex`, `dsprodindex`, `dsfsindex`; `DataStore/Utils.pm` and the parsers beside it. A line is fields,
each padded to a least width and closed by a bar; lines with a ``#`` are headers. Readers strip blanks and drop each
row that breaks a rule, by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from pstamp_core.faults import UserError

T = TypeVar("T")

# The clients' pattern says A-z, which lets [ \ ] ^ and ` through; a name that leads elsewhere is no name.
_NAME = re.compile(r"(?!\.{1,2}$)[-A-z0-9+.: ]+")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_SIZE = re.compile(r"[0-9]{1,18}")
_MD5 = re.compile(r"([0-9a-f]{32})?")
_BREAKS_A_ROW = re.compile(r"[|#\x00-\x1f\x7f]")

_ROOT = {"# productID": 13, "Most recent": 12, "Time registered": 20, "type": 9, "Description": 32}
_FILESET = {"# fileID": 18, "bytes": 8, "md5sum": 32, "type": 12}
_TYPE_COLUMNS = 8
_TYPE_WIDTH = 8
_NULL = "null"
_TIME_WIDTH = 20


@dataclass(frozen=True)
class ProductEntry:
    """A row of the root index: `last_fileset` is the newest fileset, if any, `updated` the time of its registration."""

    name: str
    last_fileset: str | None
    updated: datetime
    type: str
    description: str


@dataclass(frozen=True)
class FilesetEntry:
    """A row of a product's index: `values` belong to the product's own columns, None where a fileset has none."""

    name: str
    registered: datetime
    type: str
    values: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class FileEntry:
    """A row of a fileset's index: `values` belong to the columns of the file type, None where the file has none."""

    name: str
    bytes: int
    md5: str
    type: str
    values: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class ListedFile:
    """A file to be registered: where it is, what it is said to have, and its values as in `FileEntry`."""

    path: str
    bytes: int | None
    md5: str | None
    type: str
    values: tuple[str | None, ...]


def root_index(products: Sequence[ProductEntry]) -> str:
    """Return the index of all products, sorted by type and name."""
    lines = [_line(list(_ROOT), list(_ROOT.values()))]
    for entry in sorted(products, key=lambda entry: (entry.type, entry.name)):
        row = [entry.name, entry.last_fileset or "none", _time_text(entry.updated), entry.type, entry.description]
        lines.append(_line(_clean(row), list(_ROOT.values())))
    return "".join(lines)


def product_index(
    filesets: Iterable[FilesetEntry], labels: Sequence[str | None] = (), longest: Sequence[int] = ()
) -> Iterator[str]:
    """Yield the lines of the index of a product.

    Parameters
    ----------
    filesets : iterable of FilesetEntry
        In the order of registration.
    labels : sequence of str or None, optional
        Labels of the product's own columns; they are shown up to the first that is None.
    longest : sequence of int, optional
        Characters of the longest name, of the longest type, and of the longest value of each own column. Columns are
        at least as wide as that, and as their labels.
    """
    shown = _clean(list(_defined(labels)))
    header = ["# filesetID", "time registered", "type", *shown]
    name, kind, *values = [*longest, *[0] * (2 + len(shown))][: 2 + len(shown)]
    needed = [name, _TIME_WIDTH if name else 0, kind, *values]
    widths = [max(len(label), width) for label, width in zip(header, needed, strict=True)]
    yield _line(header, widths)
    for entry in filesets:
        own = [_NULL if value is None else value for value in (*entry.values, *[None] * len(shown))[: len(shown)]]
        yield _line(_clean([entry.name, _time_text(entry.registered), entry.type, *own]), widths)


def fileset_index(
    files: Iterable[FileEntry], labels: Mapping[str, Sequence[str | None]] | None = None
) -> Iterator[str]:
    """Yield the lines of the index of a fileset: `files` in the order given, a new header where the columns change.

    All values that a file has are shown, also those without a label; the original stops at the fourth, and at the first
    that is missing.

    Parameters
    ----------
    files : iterable of FileEntry
        In the order of registration.
    labels : mapping, optional
        Labels of the columns of each file type that has some.
    """
    widths = [*_FILESET.values(), *[_TYPE_WIDTH] * _TYPE_COLUMNS]
    shown = None
    for entry in files:
        header = _fileset_header((labels or {}).get(entry.type, ()), widths)
        if header != shown:
            yield header
            shown = header
        values = [_NULL if value is None else value for value in entry.values]
        yield _line(_clean([entry.name, str(entry.bytes), entry.md5, entry.type, *values]), widths)
    if shown is None:
        yield _fileset_header((), widths)


def read_root_index(text: str) -> list[ProductEntry]:
    """Return the rows of a root index that keep the rules."""

    def parse(fields: list[str]) -> ProductEntry:
        name, last, updated, kind, description = fields[:5]
        newest = None if last == "none" else _name(last)
        return ProductEntry(_name(name), newest, _time(updated), _name(kind), description)

    return _read(text, parse)


def read_product_index(text: str) -> list[FilesetEntry]:
    """Return the rows of a product's index that keep the rules, in their order: the last is the newest."""

    def parse(fields: list[str]) -> FilesetEntry:
        name, registered, kind, *values = fields
        return FilesetEntry(_name(name), _time(registered), _name(kind), _texts(values))

    return _read(text, parse)


def read_fileset_index(text: str) -> list[FileEntry]:
    """Return the rows of a fileset's index that keep the rules, in their order; an md5 may be empty."""

    def parse(fields: list[str]) -> FileEntry:
        name, size, md5, kind, *values = fields
        return FileEntry(_name(name), int(_match(_SIZE, size)), _match(_MD5, md5), _name(kind), _texts(values))

    return _read(text, parse)


def read_file_list(text: str) -> list[ListedFile]:
    """Return what a file list for `dsreg` has: lines ``path|bytes|md5|type|c0|c1|...``.

    The first four are needed; bytes and md5 may be empty. Blank lines and lines that start with # are skipped, so that
    the index of a fileset will do.

    Raises
    ------
    UserError
        21: a line that breaks the rules; no line at all.
    """
    files = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = [field.strip(" \t\r") for field in line.split("|")]
        if fields == [""] or fields[0].startswith("#"):
            continue
        path, size, md5, kind, *values = [*fields, *[""] * (4 - len(fields))]
        if not (path and kind and re.fullmatch(rf"({_SIZE.pattern})?", size) and _MD5.fullmatch(md5)):
            raise UserError(
                f"file list, line {number}: {line[:300]!r}; expected name|bytes|md5|type|... with a size in digits and "
                "an md5 of 32 hexadecimal digits in lower case, or nothing for them"
            )
        own = [value or None for value in values]
        while own and own[-1] is None:
            own.pop()
        files.append(ListedFile(path, int(size) if size else None, md5 or None, kind, tuple(own)))
    if not files:
        raise UserError("file list: empty; expected a line name|bytes|md5|type|... for each file")
    return files


def _line(fields: Iterable[str], widths: Iterable[int]) -> str:
    # Fewer fields than widths make a shorter row; fields without a width are not shown.
    return "|".join(map(str.ljust, fields, widths)) + "|\n"


def _fileset_header(labels: Sequence[str | None], widths: Sequence[int]) -> str:
    return _line([*_FILESET, *_clean(list(_defined(labels)))], widths)


def _clean(fields: Sequence[str]) -> Sequence[str]:
    text = "".join(fields)
    if text.isprintable() and "|" not in text and "#" not in text:  # nearly always, and quickly seen
        return fields
    # A client drops a row with such a character; the rest of the text is worth more than the character.
    return [_BREAKS_A_ROW.sub(" ", field) for field in fields]


def _defined(texts: Iterable[str | None]) -> Iterator[str]:
    for text in texts:
        if text is None:
            return
        yield text


def _time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()[:19] + "Z"


def _read(text: str, parse: Callable[[list[str]], T]) -> list[T]:
    entries = []
    for line in text.split("\n"):
        if "#" in line:  # a header, or a row that the rules forbid
            continue
        fields = [field.strip(" \t\r") for field in line.split("|")]
        with suppress(ValueError):
            entries.append(parse(fields if fields[-1] else fields[:-1]))
    return entries


def _texts(values: Iterable[str]) -> tuple[str | None, ...]:
    return tuple(None if value == _NULL else value for value in values)


def _match(pattern: re.Pattern[str], field: str) -> str:
    if not pattern.fullmatch(field):
        raise ValueError(field)
    return field


def _name(field: str) -> str:
    return _match(_NAME, field)


def _time(field: str) -> datetime:
    return datetime.fromisoformat(_match(_TIME, field))
