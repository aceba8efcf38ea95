"""Reading the registry: which products, filesets and files there are, and the three indexes that are made from it.

Nothing is found but by its name in the registry, and no file is given out whose bytes are not those registered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from errno import ELOOP, ENOENT, ENOTDIR
from functools import lru_cache
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import Any

from peewee import Database, Model, MySQLDatabase, fn

from pstamp_core.database import session
from pstamp_core.datastore.index import FileEntry, FilesetEntry, ProductEntry, fileset_index, product_index, root_index
from pstamp_core.datastore.tables import COLUMNS, TABLES, dsFile, dsFileset, dsFileType, dsProduct
from pstamp_core.faults import Bug, Fault, RetryableError, UserError
from pstamp_core.files import StoredFile, measure

INDEX = "index.txt"
NAME = re.compile(r"[-A-Za-z0-9+_:][-A-Za-z0-9+_.:]*")
"""What products, filesets, files and types may be called: it leads nowhere, and breaks no index."""

_UNTYPED = "notset"  # one of the types that the clients know
_PORTION = 10_000  # rows that are read at once: many may read a long index, and slowly
_LINES = 1000
_MD5S = 100_000


class NotRegistered(UserError):  # noqa: N818 (an answer)
    """The registry has no such product, fileset or file."""


class Registry:
    """What the registry in `database` has of the filesets below `root`.

    Parameters
    ----------
    root : Path
        The data store's folder.
    database : peewee.Database
        Where the tables of `pstamp_core.datastore.tables` are. No method may be called within a transaction.
    """

    def __init__(self, root: Path, database: Database) -> None:
        self.root = root
        self.database = database

    def has_product(self, name: str) -> bool:
        """Tell whether a product is registered."""
        with self.working(f"product {name}"):
            return bool(dsProduct.select().where(dsProduct.prod_name == name).exists())

    def filesets(self, product: str) -> list[FilesetEntry]:
        """Return the filesets of `product` in the order of registration, without the hidden ones.

        Raises
        ------
        NotRegistered
            There is no such product.
        """
        what = f"product {product}"
        with self.working(what):
            return list(self._filesets(what, _shown(self._product(product))))

    def files(self, product: str, fileset: str) -> list[FileEntry]:
        """Return the files of a fileset, hidden or not, in the order of its list.

        Raises
        ------
        NotRegistered
            There is no such product or fileset.
        """
        what = f"fileset {product}/{fileset}"
        with self.working(what):
            return list(self._files(what, self._fileset(self._product(product), fileset).fileset_id))

    def root_index(self) -> str:
        """Return the index of all products."""
        with self.working("products"):
            return root_index([
                ProductEntry(row.prod_name, row.last_fs, row.last_update, row.type, row.description)
                for row in dsProduct.select()
            ])  # fmt: skip

    def product_index(self, product: str, after: str | None = None) -> Iterator[str]:
        """Return the index of a product, in blocks of lines.

        What is registered while they are read is not in it.

        Parameters
        ----------
        product : str
            Its name.
        after : str, optional
            Only filesets that were registered after this one, which may be hidden.

        Raises
        ------
        NotRegistered
            There is no such product, or no fileset `after` in it.
        """
        what = f"product {product}"
        with self.working(what):
            row = self._product(product)
            own = texts(row, "prod_col")
            shown = _shown(row)
            if after:
                shown &= dsFileset.fileset_id > self._fileset(row, after).fileset_id
            length = fn.CHAR_LENGTH if isinstance(self.database, MySQLDatabase) else fn.LENGTH
            values = (fn.COALESCE(value, "null") for value in columns(dsFileset, "prod_col")[: len(own)])
            wide = [fn.MAX(length(text)) for text in (dsFileset.fileset_name, _type(dsFileset), *values)]
            query: Any = dsFileset.select(fn.MAX(dsFileset.fileset_id), *wide).where(shown)
            newest, *longest = query.tuples().get()
        entries = self._filesets(what, shown & (dsFileset.fileset_id <= (newest or 0)), len(own))
        return _blocks(product_index(entries, own, [n or 0 for n in longest]))

    def fileset_index(self, product: str, fileset: str) -> Iterator[str]:
        """Return the index of a fileset, hidden or not, in blocks of lines.

        Raises
        ------
        NotRegistered
            There is no such product or fileset.
        RetryableError
            Fault 2, while it is read: the fileset was replaced meanwhile.
        """
        what = f"fileset {product}/{fileset}"
        with self.working(what):
            row = self._fileset(self._product(product), fileset)
            known = type_labels()
        return _blocks(fileset_index(self._files(what, row.fileset_id), known))

    def file(self, product: str, fileset: str, name: str) -> tuple[StoredFile, os.stat_result]:
        """Return a registered file, whose bytes were compared with the registry, and its state at that time.

        Links are followed, wherever they lead, and to the registered bytes alone. A file is read for its md5 once for
        each state (inode, size, times) that it is in.

        Raises
        ------
        NotRegistered
            There is no such file.
        RetryableError
            Fault 5: it is not on disk, or is not what was registered. Fault 2: it can't be read.
        """
        what = f"file {product}/{fileset}/{name}"
        with self.working(what):
            mine = (dsProduct.prod_name == product) & (dsFileset.fileset_name == fileset) & (dsFile.file_name == name)
            row = _named(product, fileset, name) and (
                dsFile.select().join(dsFileset).join(dsProduct).where(mine).first()
            )  # fmt: skip
            if not row:
                where = f"{_shortened(product)}/{_shortened(fileset)}"
                raise NotRegistered(f"there is no file {_shortened(name)} in fileset {where}")
            path = self.root / product / fileset / name
            found = _found(path)
            md5 = None
            if found and S_ISREG(found.st_mode):
                state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                md5 = _md5(path, state)
            if not found or md5 != row.md5sum:
                raise RetryableError(
                    f"{path}: is not there, or is not what was registered: {row.bytes} bytes, md5 {row.md5sum}; "
                    "pstamp db check --md5 looks at all files",
                    Fault.PS_EXIT_DATA_ERROR,
                )
            return StoredFile(path, name, row.type or _UNTYPED, row.bytes, row.md5sum), found

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Use the registry within a block; failures of the disk become ours, with `what` in their message."""
        if self.database.in_transaction():
            raise Bug(f"data store {self.root}: {what}: called within a transaction, which a file can't be part of")
        try:
            with session(self.database, TABLES):
                yield
        except OSError as error:
            place = error.filename2 or error.filename  # the target of a copy
            where = f" ({place})" if place else ""
            raise RetryableError(f"data store {self.root}: {what}: {error.strerror or error}{where}") from error

    def _product(self, name: str) -> dsProduct:
        row = _named(name) and dsProduct.get_or_none(dsProduct.prod_name == name)
        if not row:
            known = ", ".join(sorted(row.prod_name for row in dsProduct.select())) or "none"
            raise NotRegistered(f"there is no product {_shortened(name)} in the data store (there are: {known})")
        return row

    def _fileset(self, product: dsProduct, name: str) -> dsFileset:
        row = _named(name) and dsFileset.get_or_none(dsFileset.product == product, dsFileset.fileset_name == name)
        if not row:
            raise NotRegistered(f"there is no fileset {_shortened(name)} in product {product.prod_name}")
        return row

    def _filesets(self, what: str, condition: Any, number: int = COLUMNS) -> Iterator[FilesetEntry]:
        """Yield filesets with the first `number` of their values."""
        time = fn.SUBSTR(dsFileset.reg_time, 1)  # a text with both engines
        shown = (dsFileset.fileset_name, time, _type(dsFileset), *columns(dsFileset, "prod_col")[:number])
        for name, registered, kind, *values in self._portions(what, dsFileset.fileset_id, shown, condition):
            yield FilesetEntry(name, datetime.fromisoformat(registered).replace(tzinfo=UTC), kind, trimmed(values))

    def _files(self, what: str, fileset_id: int) -> Iterator[FileEntry]:
        shown = (dsFile.file_name, dsFile.bytes, dsFile.md5sum, _type(dsFile), *columns(dsFile, "type_col"))
        mine = dsFile.fileset == fileset_id
        with self.working(what):
            query: Any = dsFile.select(fn.COUNT(dsFile.file_id), fn.MAX(dsFile.file_id)).where(mine)
            number, last = query.tuples().get()
        upto = mine & (dsFile.file_id <= (last or 0))
        for name, size, md5, kind, *values in self._portions(what, dsFile.file_id, shown, upto):
            number -= 1
            yield FileEntry(name, size, md5, kind, trimmed(values))
        if number:
            raise RetryableError(f"data store {self.root}: {what} was replaced while its index was read; read it again")

    def _portions(self, what: str, key: Any, shown: Iterable[Any], condition: Any) -> Iterator[Any]:
        """Yield rows in the order of `key`, as the engine gives them: peewee's own way takes three times longer.

        No connection is held between two portions.
        """
        last, full = 0, True
        while full:
            with self.working(what):
                query = key.model.select(key, *shown).where(condition, key > last).order_by(key).limit(_PORTION)
                rows = self.database.execute(query).fetchall()  # type: ignore[no-untyped-call]
            full = len(rows) == _PORTION
            for last, *row in rows:  # noqa: B007 (used for the next portion)
                yield row


def columns(table: type[Model], prefix: str) -> list[Any]:
    """Return the numbered columns of a table."""
    return [getattr(table, f"{prefix}_{i}") for i in range(COLUMNS)]


def texts(row: Model, prefix: str) -> tuple[str | None, ...]:
    """Return what the numbered columns of a row hold, up to the last that holds something."""
    return trimmed([getattr(row, f"{prefix}_{i}") for i in range(COLUMNS)])


def trimmed(values: list[str | None]) -> tuple[str | None, ...]:
    """Return `values` without those at the end that are None."""
    while values and values[-1] is None:
        values.pop()
    return tuple(values)


def type_labels() -> dict[str, list[str | None]]:
    """Return the labels of the columns of each file type."""
    return {row.type: [row.type_col_0, row.type_col_1, row.type_col_2, row.type_col_3] for row in dsFileType.select()}


def _named(*names: str) -> bool:
    return all(map(NAME.fullmatch, names))


def _shortened(name: str) -> str:
    return name if _named(name) and len(name) <= 80 else ascii(name[:80])


def _shown(product: dsProduct) -> Any:
    return (dsFileset.product == product.prod_id) & ~dsFileset.hide


def _type(table: type[dsFile | dsFileset]) -> Any:
    return fn.COALESCE(fn.NULLIF(table.type, ""), _UNTYPED)


def _blocks(lines: Iterator[str]) -> Iterator[str]:
    while block := "".join(islice(lines, _LINES)):
        yield block


def _found(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR, ELOOP):
            return None
        raise


@lru_cache(maxsize=_MD5S)
def _md5(path: Path, state: tuple[int, ...]) -> str:
    del state  # of the file: another one has another md5
    return measure(path, "").md5
