"""Filesets: put in place as a whole or not at all, registered, and listed in index.txt.

On disk a fileset is ``<root>/<product>/<fileset>/``; the registry is in the database, and the three levels of
index.txt are written from it. Whoever dies on the way leaves at most files under private names, a directory that
nobody lists, an index that lacks the newest fileset, or, between the two renames that replace a fileset, none in its
place: doing the same again mends each.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from peewee import Database, Model

from pstamp_core.database import session, unit_of_work
from pstamp_core.datastore.index import FileEntry, FilesetEntry, ProductEntry, fileset_index, product_index, root_index
from pstamp_core.datastore.tables import FILE_TYPES, TABLES, dsFile, dsFileset, dsFileType, dsProduct
from pstamp_core.faults import Bug, Fault, RetryableError, UserError
from pstamp_core.files import StoredFile, inside, link_or_copy, measure, private_name, write_text

INDEX = "index.txt"
_NAME = re.compile(r"[-A-Za-z0-9+_:][-A-Za-z0-9+_.:]*")
_LONGEST = 64
_LONGEST_TEXT = 255
_COLUMNS = 8
_UNTYPED = "notset"  # one of the types that the clients know
_ROWS_AT_ONCE = 150  # SQLite of old takes 999 values in a statement


class DataStore:
    """The filesets below `root`, with their registry in `database`.

    Publishing and withdrawing take turns, on one machine and on all that share `root` with working file locks; files
    are copied and measured outside the turn.

    Parameters
    ----------
    root : Path
        The folder that the web server shows.
    database : peewee.Database
        Where the tables of `pstamp_core.datastore.tables` are. No method may be called within a transaction.
    """

    def __init__(self, root: Path, database: Database) -> None:
        self.root = root
        self.database = database

    def add_product(self, name: str, type: str, description: str, labels: Sequence[str] = ()) -> None:  # noqa: A002
        """Register a product; one that exists takes the new type, description and labels.

        The root, and the file types that come with the schema, are made on the way where they are missing.

        Parameters
        ----------
        name : str
            Its name and that of its folder.
        type : str
            A product type, such as ``psresults``.
        description : str
            Free text of up to 255 characters for the root index.
        labels : sequence of str, optional
            Labels of up to eight columns of its own; their values come with each fileset.

        Raises
        ------
        UserError
            Fault 21: a name, type, description or label that the registry or the index can't hold.
        RetryableError
            Fault 2: the disk or the database failed.
        """
        folder = self._folder(name)
        _check_name("product type", type)
        if len(description) > _LONGEST_TEXT:
            raise UserError(f"product {name}: description of {len(description)} characters, expected at most 255")
        if len(labels) > _COLUMNS or not all(0 < len(label) <= _LONGEST for label in labels):
            raise UserError(f"product {name}: labels {list(labels)}, expected at most 8 of 1 to 64 characters")
        columns = {"type": type, "description": description, **_numbered(labels)}
        types = [{"type": name, "type_col_0": label} for name, label in FILE_TYPES.items()]

        def register() -> None:
            dsFileType.insert_many(types).on_conflict_ignore().execute()
            if not dsProduct.update(**columns).where(dsProduct.prod_name == name).execute():
                dsProduct.create(prod_name=name, last_update=datetime.now(UTC), **columns)

        with self._working(f"product {name}"):
            folder.mkdir(parents=True, exist_ok=True)
            with self._turn():
                unit_of_work(self.database, TABLES, register)
                self._write_indexes([name])

    def has_product(self, name: str) -> bool:
        """Tell whether a product is registered."""
        with self._working(f"product {name}"):
            return bool(dsProduct.select().where(dsProduct.prod_name == name).exists())

    def publish(
        self,
        product: str,
        fileset: str,
        fileset_type: str,
        files: Sequence[StoredFile],
        values: Sequence[str],
        before_rename: Callable[[], None] = lambda: None,
    ) -> Path:
        """Put a fileset in place and register it; the same call again ends in the same state, wherever it broke off.

        A fileset that the same request published before is replaced, and keeps its place in the order of registration.

        Parameters
        ----------
        product, fileset : str
            A registered product, and the fileset's name in it.
        fileset_type : str
            Such as ``PSRESULTS``.
        files : sequence of StoredFile
            In the order of the index; may be empty.
        values : sequence of str
            Values of the product's columns; the first is the number of the request, which owns the fileset.
        before_rename : callable, optional
            Called when all files are there under a private name; what it raises ends the call and leaves nothing.

        Returns
        -------
        Path
            The published folder.

        Raises
        ------
        UserError
            Fault 20: the fileset belongs to another request. Fault 21: not a name.
        RetryableError
            Fault 2: the disk (full, not writable, something in the way) or the database failed. Fault 3: the product
            is not registered. Fault 5: a file is gone, or is not what it was when it was measured.
        Bug
            A file name, type or value that the registry or the index can't hold.
        """
        target = self._folder(product) / _check_name("fileset", fileset)
        _check_plan(f"fileset {product}/{fileset}", fileset_type, files, values)
        staging = private_name(target, token_hex(8))
        with self._working(f"fileset {product}/{fileset}"):
            with self._turn():  # whoever stages the same fileset now loses it, so that the last to come wins
                if not self._owned(product, fileset, values[0]) and os.path.lexists(target):
                    self._clear_unlisted(target)
                _sweep(target)
            try:
                self._stage(staging, files)
                with self._turn():
                    before_rename()
                    with _placed(staging, target):
                        self._register(product, fileset, fileset_type, files, values)
                    self._write_indexes([product])
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return target

    def withdraw(self, product: str, fileset: str, *, missing_ok: bool = True) -> None:
        """Take a fileset out of the registry and the indexes, then off the disk.

        Raises
        ------
        UserError
            Fault 21: there is no such fileset, and `missing_ok` is false.
        RetryableError
            Fault 2: the disk or the database failed; the same call again finishes the work.
        """
        target = self._folder(product) / _check_name("fileset", fileset)

        def unregister() -> bool:
            prod_id = self._lock_product(product)
            row = dsFileset.get_or_none(dsFileset.product == prod_id, dsFileset.fileset_name == fileset)
            if row is None:
                return False
            dsFile.delete().where(dsFile.fileset == row).execute()
            dsFileset.delete().where(dsFileset.fileset_id == row.fileset_id).execute()
            listed = dsFileset.select().where(dsFileset.product == prod_id, ~dsFileset.hide)
            newest = listed.order_by(dsFileset.fileset_id.desc()).first()
            last_fs = newest.fileset_name if newest else None
            dsProduct.update(last_fs=last_fs).where(dsProduct.prod_id == prod_id).execute()
            return True

        with self._working(f"fileset {product}/{fileset}"), self._turn():
            known = unit_of_work(self.database, TABLES, unregister)
            if not (known or missing_ok or _is_fileset(target)):
                raise UserError(f"data store {self.root}: there is no fileset {product}/{fileset}")
            self._write_indexes([product])  # first: an index names nothing that is gone
            if known or _is_fileset(target):
                _remove(target)
            _sweep(target)

    def rewrite_indexes(self) -> None:
        """Write those index.txt anew that are not what the registry says, as after a change made to it by hand."""
        with self._working("indexes"), self._turn():
            for path, text in self._all_indexes():
                if _read(path) != text():
                    self._write(path, text())

    def stale_indexes(self) -> list[Path]:
        """Return the index.txt that are not what the registry says; those of filesets that are not there are left out.

        Publishing goes on meanwhile: only what looks wrong is looked at again in a turn.
        """
        found = []
        with self._working("indexes"):
            for path, text in self._all_indexes():
                with suppress(UserError):  # withdrawn meanwhile
                    if _read(path) != text():
                        with self._turn():
                            found += [path] * (_read(path) != text())
        return found

    def unlisted(self) -> list[Path]:
        """Return the folders of filesets that are on disk, but not in the registry."""

        def look() -> list[Path]:
            rows: Any = dsFileset.select(dsProduct.prod_name, dsFileset.fileset_name).join(dsProduct).tuples()
            listed = {self.root / product / fileset for product, fileset in rows}
            there = (path.parent for path in self.root.glob(f"*/[!.]*/{INDEX}"))
            return sorted(path for path in there if path not in listed)

        with self._working("filesets"):
            if not look():
                return []
            with self._turn():
                return look()

    def filesets(self, product: str) -> list[FilesetEntry]:
        """Return the filesets of `product` in the order of registration, without the hidden ones.

        Raises
        ------
        RetryableError
            Fault 3: the product is not registered.
        """
        with self._working(f"product {product}"):
            mine = dsFileset.select().where(dsFileset.product == self._product(product), ~dsFileset.hide)
            return [
                FilesetEntry(row.fileset_name, row.reg_time, row.type or _UNTYPED, _values(row, "prod_col"))
                for row in mine.order_by(dsFileset.fileset_id)
            ]

    def files(self, product: str, fileset: str) -> list[FileEntry]:
        """Return the files of a fileset, hidden or not, in the order of its list.

        Raises
        ------
        UserError
            Fault 21: there is no such fileset.
        RetryableError
            Fault 3: the product is not registered.
        """
        with self._working(f"fileset {product}/{fileset}"):
            row = self._fileset(product, fileset)
            if row is None:
                raise UserError(f"data store {self.root}: there is no fileset {product}/{fileset}")
            return [
                FileEntry(file.file_name, file.bytes, file.md5sum, file.type or _UNTYPED, _values(file, "type_col"))
                for file in dsFile.select().where(dsFile.fileset == row).order_by(dsFile.file_id)
            ]

    @contextmanager
    def _working(self, what: str) -> Iterator[None]:
        if self.database.in_transaction():
            raise Bug(f"data store {self.root}: {what}: called within a transaction, which a file can't be part of")
        try:
            with session(self.database, TABLES):
                yield
        except OSError as error:
            place = error.filename2 or error.filename  # the target of a copy
            where = f" ({place})" if place else ""
            raise RetryableError(f"data store {self.root}: {what}: {error.strerror or error}{where}") from error

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # Else an older index could overwrite a newer one, and two requests could race for one name.
        with (self.root / ".lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _folder(self, product: str) -> Path:
        return inside(self.root, _check_name("product", product))

    def _product(self, name: str) -> dsProduct:
        row = dsProduct.get_or_none(dsProduct.prod_name == name)
        if row is None:
            known = ", ".join(sorted(row.prod_name for row in dsProduct.select())) or "none"
            raise RetryableError(
                f"data store {self.root}: product {name} is not registered (registered: {known}); add it first",
                Fault.PS_EXIT_CONFIG_ERROR,
            )
        return row

    def _lock_product(self, name: str) -> int:
        # An update that changes nothing locks the row, so that filesets are numbered in the order of their commits:
        # a poller that has seen a number never misses a smaller one.
        prod_id: int = self._product(name).prod_id
        dsProduct.update(prod_name=name).where(dsProduct.prod_id == prod_id).execute()
        return prod_id

    def _fileset(self, product: str, fileset: str) -> dsFileset | None:
        return dsFileset.get_or_none(dsFileset.product == self._product(product), dsFileset.fileset_name == fileset)

    def _owned(self, product: str, fileset: str, req_id: str) -> bool:
        row = self._fileset(product, fileset)
        if row is not None and row.prod_col_0 != req_id:
            raise UserError(
                f"fileset {product}/{fileset} belongs to request {row.prod_col_0}, so that request {req_id} can't have "
                "it: send the request again under another name",
                Fault.PSTAMP_DUP_REQUEST,
            )
        return row is not None

    def _clear_unlisted(self, target: Path) -> None:
        if not _is_fileset(target):
            raise RetryableError(
                f"data store {self.root}: {target} is in the way and is no fileset: move it to another place"
            )
        _remove(target)

    def _stage(self, staging: Path, files: Sequence[StoredFile]) -> None:
        staging.mkdir()
        for file in files:
            source, placed = file.path.resolve(), staging / file.name
            found = None
            if source.is_file():
                link_or_copy(source, placed)
                found = measure(placed, file.type)
            if found is None or (found.bytes, found.md5) != (file.bytes, file.md5):
                now = f"has {found.bytes} bytes, md5 {found.md5}" if found else "is no file"
                raise RetryableError(
                    f"file {file.path} {now}; expected {file.bytes} bytes, md5 {file.md5}, as it was measured",
                    Fault.PS_EXIT_DATA_ERROR,
                )
            if not placed.samefile(source):  # a linked file was brought to disk by who wrote it (`files.publish`)
                _sync(placed)
        entries = [FileEntry(file.name, file.bytes, file.md5, file.type) for file in files]
        write_text(staging / INDEX, fileset_index(entries, _labels()))
        _sync(staging)

    def _register(
        self, product: str, fileset: str, fileset_type: str, files: Sequence[StoredFile], values: Sequence[str]
    ) -> None:
        now = datetime.now(UTC)
        columns = {"type": fileset_type, **_numbered(values)}

        def register() -> None:
            prod_id = self._lock_product(product)
            if self._owned(product, fileset, values[0]):
                row = dsFileset.get(dsFileset.product == prod_id, dsFileset.fileset_name == fileset)
                dsFileset.update(**columns).where(dsFileset.fileset_id == row.fileset_id).execute()
                dsFile.delete().where(dsFile.fileset == row).execute()
            else:
                row = dsFileset.create(product=prod_id, fileset_name=fileset, reg_time=now, **columns)
                dsProduct.update(last_update=now, last_fs=fileset).where(dsProduct.prod_id == prod_id).execute()
            rows = [(row.fileset_id, file.name, file.bytes, file.md5, file.type) for file in files]
            into = [dsFile.fileset, dsFile.file_name, dsFile.bytes, dsFile.md5sum, dsFile.type]
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                dsFile.insert_many(rows[start : start + _ROWS_AT_ONCE], fields=into).execute()

        unit_of_work(self.database, TABLES, register)

    def _write_indexes(self, products: Iterable[str]) -> None:
        for path, text in self._indexes(products):
            self._write(path, text())

    def _indexes(self, products: Iterable[str]) -> Iterator[tuple[Path, Callable[[], str]]]:
        """Yield the indexes of `products`, and last that of the root, with what gives their text by the registry."""
        for name in products:
            yield self._folder(name) / INDEX, partial(self._product_text, name)
        yield self.root / INDEX, self._root_text

    def _all_indexes(self) -> Iterator[tuple[Path, Callable[[], str]]]:
        """Yield the indexes of all filesets that are there, and then those above them."""
        names = [row.prod_name for row in dsProduct.select()]
        for product in names:
            for row in dsFileset.select().join(dsProduct).where(dsProduct.prod_name == product):
                folder = self._folder(product) / row.fileset_name
                if folder.is_dir():
                    yield folder / INDEX, partial(self._fileset_text, product, row.fileset_name)
        yield from self._indexes(names)

    def _fileset_text(self, product: str, fileset: str) -> str:
        return fileset_index(self.files(product, fileset), _labels())

    def _product_text(self, product: str) -> str:
        return product_index(self.filesets(product), _values(self._product(product), "prod_col"))

    def _root_text(self) -> str:
        entries = [
            ProductEntry(row.prod_name, row.last_fs, row.last_update, row.type, row.description)
            for row in dsProduct.select()
        ]
        return root_index(entries)

    def _write(self, path: Path, text: str) -> None:
        _sweep(path)
        write_text(path, text)


def _check_name(what: str, name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or name == INDEX:
        raise UserError(
            f"{what} {name[:80]!r}: expected a name of 1 to 64 letters, digits and -+_.: that starts with no dot and "
            f"is not {INDEX}"
        )
    return name


def _check_plan(what: str, fileset_type: str, files: Sequence[StoredFile], values: Sequence[str]) -> None:
    names = [file.name for file in files]
    wrong = [name for name in names if not _NAME.fullmatch(name) or len(name) > _LONGEST_TEXT or name == INDEX]
    wrong += [name for name, times in Counter(names).items() if times > 1]
    if wrong:
        raise Bug(f"{what}: file name {wrong[0][:300]!r} is no plain name or occurs twice")
    for kind in [fileset_type, *(file.type for file in files)]:
        if not _NAME.fullmatch(kind) or len(kind) > _LONGEST:
            raise Bug(f"{what}: type {kind[:80]!r}, expected 1 to 64 letters, digits and -+_.:")
    if not 0 < len(values) <= _COLUMNS or not all(0 < len(value) <= _LONGEST for value in values):
        raise Bug(f"{what}: values {list(values)}, expected 1 to 8 of 1 to 64 characters, the request's number first")


def _numbered(values: Sequence[str]) -> dict[str, Any]:
    return {f"prod_col_{i}": values[i] if i < len(values) else None for i in range(_COLUMNS)}


def _values(row: Model, prefix: str) -> tuple[str | None, ...]:
    values = [getattr(row, f"{prefix}_{i}") for i in range(_COLUMNS)]
    while values and values[-1] is None:
        values.pop()
    return tuple(values)


def _labels() -> dict[str, list[str | None]]:
    return {row.type: [row.type_col_0, row.type_col_1, row.type_col_2, row.type_col_3] for row in dsFileType.select()}


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _is_fileset(path: Path) -> bool:
    # Everything published has an index; an operator's folder that a request happens to name has none.
    return (path / INDEX).is_file()


@contextmanager
def _placed(staging: Path, target: Path) -> Iterator[None]:
    """Have `staging` at `target`, and all as it was before when the block fails."""
    old = private_name(target, token_hex(8))
    if target.exists():
        target.rename(old)
    try:
        staging.rename(target)
        _sync(target.parent)
        yield
    except BaseException:
        if target.exists():
            target.rename(staging)
        if old.exists():
            old.rename(target)
        raise
    _delete(old)


def _remove(target: Path) -> None:
    """Take a published folder away at once, and then its files."""
    if target.exists():
        old = private_name(target, token_hex(8))
        target.rename(old)
        _delete(old)


def _sweep(target: Path) -> None:
    """Remove what dead writers left of `target` under private names."""
    for stray in target.parent.glob(f".{target.name}.*.tmp"):
        if re.fullmatch(rf"\.{re.escape(target.name)}\.[^.]+\.tmp", stray.name):
            _delete(stray)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
