"""Files: written under a private name and renamed into place, resolved inside their root, measured once.

A reader never sees half a file, and a writer that dies leaves nothing under a public name: private names start with
a dot and end in ``.tmp``, and `sweep` removes what a dead writer left.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pstamp_core.faults import FinalError, UserError

MAX_UNPACKED = 2**32
"""Bytes of a gzipped file once unpacked; a larger one is refused before it fills the disk."""

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class StoredFile:
    """A file as a fileset lists it.

    Attributes
    ----------
    path : Path
        Where the bytes are.
    name : str
        Its name in the fileset (the data store's fileID).
    type : str
        The data store's file type: ``table``, ``text``, ``pstamp``, ``fits``, ``tgz``.
    bytes : int
        Size.
    md5 : str
        32 lower-case hexadecimal digits.
    values : tuple of str or None
        What it has in the columns of its type.
    """

    path: Path
    name: str
    type: str
    bytes: int
    md5: str
    values: tuple[str | None, ...] = ()


def measure(path: Path, file_type: str, name: str | None = None) -> StoredFile:
    """Return `path` with its size and md5, as a fileset lists it under `name` (its own by default)."""
    with path.open("rb") as stream:
        md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return StoredFile(path, name or path.name, file_type, os.fstat(stream.fileno()).st_size, md5)


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file for reading; one that is gzipped as a whole is unpacked to a nameless temporary file first.

    Raises
    ------
    FinalError
        25: what is in the gzip file is damaged, or too large.
    OSError
        The file can't be read, or there is no room to unpack it.
    """
    stream = path.open("rb")
    if stream.read(2) != _GZIP:
        stream.seek(0)
        return stream
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    try:
        with stream, gzip.open(path) as packed:
            while block := packed.read(2**20):
                unpacked.write(block)
                if unpacked.tell() > MAX_UNPACKED:
                    raise FinalError(f"{path}: more than {MAX_UNPACKED} bytes when unpacked; unpack it where it is")
        unpacked.seek(0)
    except BaseException as error:
        unpacked.close()
        if isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error)):
            raise FinalError(f"{path}: damaged: {error}") from error
        raise
    return cast(BinaryIO, unpacked)


def inside(root: Path, name: str | os.PathLike[str]) -> Path:
    """Return the path of `name` below `root`, links resolved.

    Raises
    ------
    UserError
        The path is `root` itself, leads out of it, or is no path at all (NUL, a loop of links).
    """
    base = root.resolve()
    try:
        path = (base / name).resolve()
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(f"path {os.fspath(name)!r} is no usable path: {error}") from error
    if base not in path.parents:
        raise UserError(f"path {os.fspath(name)!r} leads out of {base}; expected a name below it")
    return path


def private_name(path: Path, token: str) -> Path:
    """Return the private name under which `path` is written by the holder of `token`."""
    return path.with_name(f".{path.name}.{token}.tmp")


@contextmanager
def written(path: Path, token: str = "") -> Iterator[Path]:
    """Give a private name to write to; rename it to `path` at the end, or remove it when the block fails."""
    private = private_name(path, token or secrets.token_hex(8))  # process numbers are the same in every container
    try:
        yield private
        publish(private, path)
    finally:
        private.unlink(missing_ok=True)


def publish(private: Path, path: Path) -> None:
    """Bring the bytes of `private` to disk and rename it to `path`."""
    with private.open("rb") as stream:
        os.fsync(stream.fileno())
    private.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a small text file, all or nothing."""
    with written(path) as private:
        private.write_text(text, encoding="utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same bytes as `source`: a hard link where the file system allows it, else a copy.

    An old `target` is removed first, never written into: its bytes may have other names too. `target` lies in a folder
    that nobody reads yet, since a copy grows under its name.
    """
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copy2(source, target)


def sweep(folder: Path) -> None:
    """Remove what dead writers left in `folder` under private names."""
    for stray in folder.glob(".*.tmp"):
        shutil.rmtree(stray) if stray.is_dir() and not stray.is_symlink() else stray.unlink(missing_ok=True)
