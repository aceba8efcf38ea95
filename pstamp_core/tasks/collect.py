"""Collecting files from data stores, as IPP's client programs do (`dsget`, `dsgetfileset`, `dsleech`)."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pstamp_core.database import redact
from pstamp_core.datastore.client import (
    INDEX,
    HttpError,
    NotThere,
    Terms,
    below,
    fetch,
    is_http,
    list_files,
    list_filesets,
    list_products,
)
from pstamp_core.datastore.index import FileEntry
from pstamp_core.faults import Fault, PstampError, RetryableError, UserError
from pstamp_core.files import inside, measure, open_unpacked, write_text, written

if TYPE_CHECKING:
    from pstamp_core.tasks.server import Progress

__all__ = [
    "HttpError", "Leeched", "Terms", "file_rows", "fileset_rows", "get_file", "get_fileset", "leech", "odd_rows",
    "product_rows", "recall", "remember", "unpack_archive", "unpack_fits",
]  # fmt: skip

MAX_PIXELS = 2**31
"""Bytes of the images of one file once unpacked; all of them are in memory at the same time."""

FILESET_COLUMNS = 4
"""Columns of `fileset_rows` that every product has."""

_MAX_READ = 2**20
_ODD_ROWS = 5
_LONGEST_ROW = 80

Tell = Callable[[str], None]


def product_rows(uri: str, terms: Terms) -> tuple[list[list[str]], list[str]]:
    """Return the products of the data store at `uri`, as `dsrootls` lists them, and what is no row of its index.

    A row is address, name, newest fileset or ``none``, time of its registration, type and description. Errors are those
    of `list_filesets`.
    """
    entries, odd = list_products(uri, terms)
    rows = [
        [f"{below(uri, each.name)}/{INDEX}", each.name, each.last_fileset or "none", _time(each.updated), each.type,
         each.description]
        for each in entries
    ]  # fmt: skip
    return rows, odd


def fileset_rows(uri: str, terms: Terms, after: str | None) -> tuple[list[list[str]], list[str]]:
    """Return the filesets of the product at `uri` after one of them, as `dsproductls` lists them.

    A row is address, name, time of registration, type and the product's own columns, ``null`` where there is no value;
    the rest as `product_rows`.
    """
    entries, odd = list_filesets(uri, terms, after)
    rows = [
        [f"{below(uri, each.name)}/{INDEX}", each.name, _time(each.registered), each.type, *_words(each.values)]
        for each in entries
    ]
    return rows, odd


def file_rows(uri: str, terms: Terms) -> tuple[list[list[str]], list[str]]:
    """Return the files of the fileset at `uri`, as `dsfilesetls` lists them.

    A row is address, name, bytes, md5 (0 where there is none), type and the columns of the type; the rest as
    `product_rows`.
    """
    entries, odd = list_files(uri, terms)
    rows = [
        [below(uri, each.name), each.name, str(each.bytes), each.md5 or "0", each.type, *_words(each.values)]
        for each in entries
    ]
    return rows, odd


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _words(values: Sequence[str | None]) -> list[str]:
    return ["null" if value is None else value for value in values]


def get_file(
    uri: str,
    target: Path,
    terms: Terms,
    *,
    size: int | None = None,
    md5: str | None = None,
    compress: bool = False,
    progress: Progress | None = None,
) -> None:
    """Bring the file at `uri` to `target`, whose folder is made; go on where an earlier call was cut off.

    Parameters
    ----------
    uri : str
        The file's address.
    target : Path
        Where it goes; replaced if it is there.
    terms : Terms
        On what terms.
    size, md5 : optional
        What the file must have.
    compress : bool
        Ask for a compressed copy and unpack that; size and md5 are checked afterwards. A server that knows nothing of
        that sends the file as it is.
    progress : callable, optional
        Is told the name of the file, how many bytes are there, and of how many (0: not known).

    Raises
    ------
    PstampError
        As `fetch`; also 5: what came can't be unpacked.
    OSError
        It can't be written.
    """
    target.parent.mkdir(mode=0o775, parents=True, exist_ok=True)
    tell = partial(progress, target.name) if progress else lambda _done, _total: None
    if not (compress and is_http(uri)):
        fetch(uri, target, terms, size=size, md5=md5, resume=True, progress=tell)
        return
    with written(target) as private:
        fetch(f"{uri}?compress", private, terms, progress=tell)
        unpack_fits(private)
        found = measure(private, "")
        if (size, md5) != (size and found.bytes, md5 and found.md5):
            raise RetryableError(
                f"{redact(uri)}: has {found.bytes} bytes, md5 {found.md5} when unpacked; "
                f"expected {size or 'any number of'} bytes, md5 {md5 or 'of any kind'}",
                Fault.PS_EXIT_DATA_ERROR,
            )


def get_fileset(
    uri: str,
    folder: Path,
    terms: Terms,
    tell: Tell,
    *,
    first: str | None = None,
    check: bool = True,
    unpack: bool = False,
    progress: Progress | None = None,
) -> int:
    """Bring the files of the fileset at `uri` to `folder`, in the order of their index; return how many.

    Parameters
    ----------
    uri : str
        The fileset's address, with or without ``/index.txt``.
    folder : Path
        Where they go; made if it is not there. Files of the same names are replaced.
    terms : Terms
        On what terms.
    tell : callable
        Is told what is odd.
    first : str, optional
        Begin with the file of this name.
    check : bool
        Size and md5 must be those of the index, as far as it has them.
    unpack : bool
        Unpack compressed images, and what is in ``.tgz`` archives, which stay.
    progress : callable, optional
        As for `get_file`.

    Raises
    ------
    PstampError
        As `get_file`, of the first file that can't be had; as `list_files`; 5: there is no file `first`.
    """
    entries = _files(uri, terms, tell)
    names = [entry.name for entry in entries]
    if first is not None:
        if first not in names:
            raise UserError(
                f"{redact(uri)}: there is no file {first}; the first is {names[0] if names else 'not there'}"
            )
        entries = entries[names.index(first) :]
    for entry in entries:
        target = _place(folder, entry.name)
        _get(below(uri, entry.name), target, terms, entry if check else None, progress)
        if unpack and target.name.endswith(".tgz"):
            unpack_archive(target)
        elif unpack and target.name.endswith((".fits", ".fz")):
            unpack_fits(target)
    return len(entries)


@dataclass
class Leeched:
    """What became of one fileset.

    Attributes
    ----------
    fileset : str
        Its name.
    files : list of str
        The files that were fetched.
    troubles : list of PstampError or OSError
        Why others were not.
    bookmark : str or None
        The newest fileset up to which all there is was fetched, if there is one.
    """

    fileset: str
    files: list[str] = field(default_factory=list)
    troubles: list[PstampError | OSError] = field(default_factory=list)
    bookmark: str | None = None


def leech(
    uri: str,
    folder: Path,
    terms: Terms,
    tell: Tell,
    *,
    after: str | None = None,
    recalled: bool = False,
    overwrite: bool = False,
    apart: bool = False,
    progress: Progress | None = None,
) -> Iterator[Leeched]:
    """Fetch the files of all new filesets of the product at `uri` to `folder`; yield what became of each fileset.

    What can't be had keeps nothing else from being fetched, but a server that does not answer in time is asked no more.

    Parameters
    ----------
    uri : str
        The product's address, with or without ``/index.txt``.
    folder : Path
        Where they go; made if it is not there.
    terms : Terms
        On what terms.
    tell : callable
        Is told what is odd.
    after : str, optional
        The last fileset that is not new.
    recalled : bool
        That was true at some time: if `after` has gone from the product, all filesets are looked at.
    overwrite : bool
        Replace files that are there; otherwise they are passed over, and told if they differ.
    apart : bool
        Give each fileset a folder of its own below `folder`.
    progress : callable, optional
        As for `get_file`.

    Raises
    ------
    PstampError
        As `list_filesets`; 6: no answer in time.
    """
    try:
        entries, odd = list_filesets(uri, terms, after)
    except NotThere:
        if not (after and recalled):
            raise
        entries, odd = list_filesets(uri, terms)
        tell(f"{redact(uri)}: fileset {after} has gone; all that are there now are looked at")
    _tell_odd(uri, odd, tell)
    bookmark, unbroken = after, True
    for entry in entries:
        found = Leeched(entry.name)
        with _noted(found):
            place = _place(folder, entry.name) if apart else folder
            _leech_fileset(below(uri, entry.name), place, terms, tell, overwrite, progress, found)
        unbroken = unbroken and not found.troubles
        bookmark = found.bookmark = entry.name if unbroken else bookmark
        yield found


def _leech_fileset(
    uri: str, folder: Path, terms: Terms, tell: Tell, overwrite: bool, progress: Progress | None, found: Leeched
) -> None:
    entries = _files(uri, terms, tell)
    for entry in entries:
        with _noted(found):
            target = _place(folder, entry.name)
            if not overwrite and target.exists():
                if _differs(target, entry):
                    tell(
                        f"{redact(uri)}: file {entry.name} is passed over: another of this name is in {folder}; "
                        "--apart keeps them apart, --overwrite replaces it"
                    )
                continue
            _get(below(uri, entry.name), target, terms, entry, progress)
            found.files.append(entry.name)


@contextmanager
def _noted(found: Leeched) -> Iterator[None]:
    """Note what goes wrong within the block; nothing more is asked of a server that lets us wait."""
    try:
        yield
    except (PstampError, OSError) as error:
        if isinstance(error, PstampError) and error.fault == Fault.PS_EXIT_TIMEOUT_ERROR:
            raise
        found.troubles.append(error)


def _differs(path: Path, entry: FileEntry) -> bool:
    return path.stat().st_size != entry.bytes or (bool(entry.md5) and measure(path, "").md5 != entry.md5)


def _files(uri: str, terms: Terms, tell: Tell) -> list[FileEntry]:
    entries, odd = list_files(uri, terms)
    _tell_odd(uri, odd, tell)
    return entries


def _tell_odd(uri: str, lines: Sequence[str], tell: Tell) -> None:
    for text in odd_rows(lines):
        tell(f"{redact(uri)}: {text}")


def odd_rows(lines: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each of the first lines of an index that are no rows, and one for the others."""
    for line in lines[:_ODD_ROWS]:
        text = line if len(line) <= _LONGEST_ROW else f"{line[: _LONGEST_ROW - 3]}..."
        yield f"passed over: {text!r} is no row of an index"
    if more := len(lines[_ODD_ROWS:]):
        yield f"passed over: {more} more"


def _place(folder: Path, name: str) -> Path:
    """Return where a file from a stranger goes; nothing that programs read by itself is made or replaced."""
    if any(part.startswith(".") for part in name.split("/")):
        raise UserError(f"file {name}: a name that begins with a dot is not taken from others")
    folder.mkdir(mode=0o775, parents=True, exist_ok=True)
    return inside(folder, name)


def _get(uri: str, target: Path, terms: Terms, entry: FileEntry | None, progress: Progress | None) -> None:
    size, md5 = (entry.bytes, entry.md5) if entry else (None, None)
    get_file(uri, target, terms, size=size, md5=md5, progress=progress)


def unpack_archive(path: Path) -> None:
    """Unpack the ``.tgz`` archive at `path` beside it: folders and plain files, below its folder and nowhere else.

    Raises
    ------
    UserError
        21: something in it is a link or a device, or leads elsewhere; 25: damaged, or too large.
    RetryableError
        5: damaged.
    """
    try:
        with open_unpacked(path) as stream, tarfile.open(fileobj=_InSmallParts(stream), mode="r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                # What is sparse has no size that the archive's own would bound.
                content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None:
                    raise UserError(f"{path}: {member.name[:80]!r} in it is neither a plain file nor a folder")
                target = _place(path.parent, member.name)
                target.parent.mkdir(mode=0o775, parents=True, exist_ok=True)
                with content, written(target) as private, private.open("xb") as copy:
                    shutil.copyfileobj(content, copy)
    except (tarfile.TarError, ValueError) as error:
        raise RetryableError(f"{path}: can't be unpacked: {error}", Fault.PS_EXIT_DATA_ERROR) from error


class _InSmallParts(io.RawIOBase):
    """A file of which nobody takes much into memory: tarfile reads names and headers as long as the archive says."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """Read, but not everything."""
        if not 0 <= size <= _MAX_READ:
            raise tarfile.ReadError(f"a name or header of {size} bytes")
        return self._stream.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        """Go on elsewhere."""
        return self._stream.seek(place, whence)

    def tell(self) -> int:
        """Return where it goes on."""
        return self._stream.tell()


def unpack_fits(path: Path) -> None:
    """Write the images of the FITS file at `path` uncompressed, all or nothing; those of ``a.fz`` to ``a`` beside it.

    A file without compressed images stays as it is.

    The first image becomes the primary one if it was that before it was compressed (``ZSIMPLE``), as `funpack` does it.

    Raises
    ------
    UserError
        21: the images are larger than `MAX_PIXELS`.
    RetryableError
        5: it can't be read.
    """
    from astropy.io import fits

    target = path.with_suffix("") if path.suffix == ".fz" else path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy repairs what it can
            with fits.open(path, do_not_scale_image_data=True) as hdus:
                packed = [hdu for hdu in hdus if isinstance(hdu, fits.CompImageHDU)]
                if not packed:
                    return
                size = sum(prod(hdu.shape) * abs(hdu.header["BITPIX"]) // 8 for hdu in packed)
                if size > MAX_PIXELS:
                    raise UserError(f"{path}: its images have {size} bytes; expected at most {MAX_PIXELS}")
                images: list[Any] = []
                for hdu in hdus:
                    if hdu not in packed:
                        images.append(hdu)
                        continue
                    first = len(images) == 1 and images[0].data is None and "SIMPLE" in hdu.header
                    kind = fits.PrimaryHDU if first else fits.ImageHDU
                    image = kind(hdu.data, hdu.header, do_not_scale_image_data=True)
                    image.header = hdu.header.copy()  # with the scale, which goes when there are data
                    images = [*images[first:], image]
                with written(target) as private:
                    fits.HDUList(images).writeto(private)
    except UserError:
        raise
    except Exception as error:
        raise RetryableError(f"{path}: can't be unpacked: {error}", Fault.PS_EXIT_DATA_ERROR) from error


def recall(path: Path, uri: str) -> str | None:
    """Return what `remember` wrote down of the product at `uri`; errors are the same."""
    return _marks(path).get(_product(uri))


def remember(path: Path, uri: str, fileset: str) -> None:
    """Write down in the file at `path` that `fileset` is the last one of the product at `uri`.

    It is the file of the original: YAML, a line ``address: fileset`` for each product.

    Raises
    ------
    RetryableError
        3: a line is none of those that the original and we write; nothing was changed.
    """
    marks = {**_marks(path), _product(uri): fileset}
    lines = [f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value)}\n" for key, value in marks.items()]
    write_text(path, "".join(["---\n", *lines]))


def _product(uri: str) -> str:
    # The original wants an address that ends so, and writes it down as it is.
    return f"{uri.removesuffix(f'/{INDEX}').rstrip('/')}/{INDEX}"


def _marks(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        lines = ["?"]
    marks = {}
    for number, line in enumerate(lines, 1):
        if line.strip() in ("", "---", "--- {}", "...") or line.lstrip().startswith("#"):
            continue
        try:
            key, value = _MARK.fullmatch(line).groups()  # type: ignore[union-attr]
            marks[_scalar(key)] = _scalar(value)
        except (AttributeError, ValueError):
            raise RetryableError(
                f'{path}, line {number}: expected "address": "fileset"; mend it, or move the file away',
                Fault.PS_EXIT_CONFIG_ERROR,
            ) from None
    return marks


_QUOTED = r'"(?:[^"\\]|\\.)*"' + "|'(?:[^']|'')*'"
_PLAIN = r"[^][\s'\"{}&*!|>%@`#,?].*?"  # what these begin with is something else in YAML
_MARK = re.compile(rf"({_QUOTED}|{_PLAIN})\s*:\s+({_QUOTED}|{_PLAIN})\s*")


def _scalar(text: str) -> str:
    """Return what a word of YAML stands for."""
    if text[0] == '"':
        return str(json.loads(text))
    return text[1:-1].replace("''", "'") if text[0] == "'" else text
