"""Filesets: put in place as a whole or not at all, registered, and listed in index.txt.

On disk a fileset is ``<root>/<product>/<fileset>/``; the registry is in the database. The three levels of index.txt are
made from it at each request of the web service, and written here for those who read the folder. Whoever dies on the way
leaves at most files under private names, a directory that nobody lists, an index that lacks the newest fileset, or,
between the two renames that replace a fileset, none in its place: doing the same again mends each.
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
from typing import Any, Literal

from pstamp_core.database import unit_of_work
from pstamp_core.datastore.index import FileEntry, fileset_index
from pstamp_core.datastore.registry import INDEX, NAME, NotRegistered, Registry, type_labels
from pstamp_core.datastore.tables import COLUMNS, FILE_TYPES, TABLES, dsFile, dsFileset, dsFileType, dsProduct
from pstamp_core.faults import Bug, Fault, RetryableError, UserError
from pstamp_core.files import StoredFile, inside, link_or_copy, measure, private_name, write_text

Place = Literal["link", "copy"]

_LONGEST = 64
_LONGEST_TEXT = 255
_ROWS_AT_ONCE = 70  # SQLite of old takes 999 values in a statement


class DataStore(Registry):
    """The filesets below `root`, with their registry in `database`.

    Publishing and withdrawing take turns, on one machine and on all that share `root` with working file locks; files
    are copied and measured outside the turn.
    """

    def add_product(
        self,
        name: str,
        type: str,  # noqa: A002
        description: str,
        labels: Sequence[str | None] = (),
        *,
        new: bool = False,
    ) -> None:
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
        labels : sequence of str or None, optional
            Labels of up to eight columns of its own; their values come with each fileset.
        new : bool
            Refuse a product that exists, and a folder that is not empty.

        Raises
        ------
        UserError
            Fault 20: it is not `new`. Fault 21: a name, type, description or label that the registry or the index can't
            hold; a folder with files.
        RetryableError
            Fault 2: the disk or the database failed.
        """
        folder = self._folder(name)
        _check_name("product type", type)
        if len(description) > _LONGEST_TEXT:
            raise UserError(f"product {name}: description of {len(description)} characters, expected at most 255")
        if not _fit(labels):
            raise UserError(f"product {name}: labels {list(labels)}, expected at most 8 of 1 to 64 characters")
        own = {"type": type, "description": description, **_numbered("prod_col", labels)}
        types = [{"type": name, "type_col_0": label} for name, label in FILE_TYPES.items()]

        def register() -> None:
            dsFileType.insert_many(types).on_conflict_ignore().execute()
            if not dsProduct.update(**own).where(dsProduct.prod_name == name).execute():
                dsProduct.create(prod_name=name, last_update=datetime.now(UTC), **own)
            elif new:
                raise UserError(f"product {name} is registered already", Fault.PSTAMP_DUP_REQUEST)

        with self.working(f"product {name}"):
            if new and folder.is_dir() and any(folder.iterdir()) and not self.has_product(name):
                raise UserError(f"product {name}: {folder} is not empty; move what is in it to another place")
            folder.mkdir(parents=True, exist_ok=True)
            with self._turn():
                unit_of_work(self.database, TABLES, register)
                self._write_indexes([name])

    def remove_product(self, name: str, *, keep_files: bool = False) -> int:
        """Take a product with all its filesets out of the registry, in one transaction, and then off the disk.

        What was not published or registered here stays where it is.

        Parameters
        ----------
        name : str
            The product.
        keep_files : bool
            Remove only the indexes from the disk; the files are served no more.

        Returns
        -------
        int
            How many filesets it had.

        Raises
        ------
        NotRegistered
            There is no such product.
        RetryableError
            Fault 2: the disk or the database failed.
        """
        folder = self._folder(name)

        def unregister() -> list[str]:
            prod_id = self._lock_product(name)
            mine = dsFileset.select(dsFileset.fileset_id).where(dsFileset.product == prod_id)
            names = [row.fileset_name for row in dsFileset.select().where(dsFileset.product == prod_id)]
            dsFile.delete().where(dsFile.fileset.in_(mine)).execute()
            dsFileset.delete().where(dsFileset.product == prod_id).execute()
            dsProduct.delete().where(dsProduct.prod_id == prod_id).execute()
            return names

        with self.working(f"product {name}"), self._turn():
            names = unit_of_work(self.database, TABLES, unregister)
            self._write_indexes([])
            for fileset in names:
                _unpublish(folder / fileset, keep_files)
            (folder / INDEX).unlink(missing_ok=True)
            with suppress(OSError):  # what is left is not ours
                folder.rmdir()
        return len(names)

    def publish(
        self,
        product: str,
        fileset: str,
        fileset_type: str,
        files: Sequence[StoredFile],
        values: Sequence[str],
        before_rename: Callable[[], None] = lambda: None,
        after_each: Callable[[], None] = lambda: None,
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
        after_each : callable, optional
            Called after each file, likewise.

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
        target = self.folder(product, fileset)
        _check_plan(f"fileset {product}/{fileset}", fileset_type, files, values, Bug)
        owner = values[0] if values else None
        if not owner:
            raise Bug(f"fileset {product}/{fileset}: values {list(values)}, expected the request's number first")
        staging = private_name(target, token_hex(8))
        with self.working(f"fileset {product}/{fileset}"):
            try:
                self._product(product)
            except NotRegistered as error:
                raise RetryableError(f"{error}; dsprodtool adds one", Fault.PS_EXIT_CONFIG_ERROR) from None
            with self._turn():  # whoever stages the same fileset now loses it, so that the last to come wins
                if not self._owned(product, fileset, owner) and os.path.lexists(target):
                    self._clear_unlisted(target)
                _sweep(target)
            try:
                self._stage(staging, files, link_or_copy, after_each)
                with self._turn():
                    before_rename()
                    with _placed(staging, target):
                        self._register(product, fileset, fileset_type, files, values, owner)
                    self._write_indexes([product])
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return target

    def register(
        self,
        product: str,
        fileset: str,
        fileset_type: str,
        files: Sequence[StoredFile],
        values: Sequence[str | None] = (),
        place: Place | None = None,
    ) -> Path:
        """Register a new fileset, of whatever type and origin; all or nothing.

        Parameters
        ----------
        product, fileset, fileset_type : str
            As in `publish`.
        files : sequence of StoredFile
            In the order of the index, as they were measured; may be empty.
        values : sequence of str or None, optional
            Values of the product's columns.
        place : {'link', 'copy'}, optional
            How the files get into the fileset's folder: by a symbolic link, or by a copy. Without it they are there
            already.

        Returns
        -------
        Path
            The fileset's folder.

        Raises
        ------
        NotRegistered
            There is no such product.
        UserError
            Fault 20: the fileset is registered already. Fault 21: a name, type or value that the registry or the index
            can't hold; a file that is not where it should be; files in the folder that would be lost.
        RetryableError
            Fault 2: the disk or the database failed. Fault 5: a file is gone, or is not what it was when it was
            measured.
        """
        target = self.folder(product, fileset)
        what = f"fileset {product}/{fileset}"
        _check_plan(what, fileset_type, files, values, UserError)
        staging = private_name(target, token_hex(8))
        with self.working(what):
            self._owned(product, fileset, None)
            try:
                if place:
                    self._stage(staging, files, os.symlink if place == "link" else shutil.copy2)
                with self._turn():
                    self._owned(product, fileset, None)
                    self._check_free(target, files, place)
                    with _placed(staging, target) if place else _indexed(target, _file_index(files)):
                        self._register(product, fileset, fileset_type, files, values, None)
                    _sweep(target)
                    self._write_indexes([product])
            except FileNotFoundError:
                self._owned(product, fileset, None)  # it was swept away by who was quicker
                raise
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return target

    def withdraw(self, product: str, fileset: str, *, missing_ok: bool = True, keep_files: bool = False) -> None:
        """Take a fileset out of the registry and the indexes, then off the disk.

        With `keep_files` only its index goes from the disk; the files stay, and are served no more.

        Raises
        ------
        NotRegistered
            There is no such fileset, and `missing_ok` is false; there is no such product.
        RetryableError
            Fault 2: the disk or the database failed; the same call again finishes the work.
        """
        target = self.folder(product, fileset)

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

        with self.working(f"fileset {product}/{fileset}"), self._turn():
            known = unit_of_work(self.database, TABLES, unregister)
            if not (known or missing_ok or _is_fileset(target)):
                raise NotRegistered(f"there is no fileset {fileset} in product {product}")
            self._write_indexes([product])  # first: an index names nothing that is gone
            if known or _is_fileset(target):
                _unpublish(target, keep_files)
            _sweep(target)

    def owner(self, product: str, fileset: str) -> str | None:
        """Return the number of the request that published a fileset, as registered; None where there is no fileset."""
        with self.working(f"fileset {product}/{fileset}"), suppress(NotRegistered):
            owner: str | None = self._fileset(self._product(product), fileset).prod_col_0
            return owner
        return None

    def folder(self, product: str, fileset: str) -> Path:
        """Return where a fileset is, or would be.

        Raises
        ------
        UserError
            Fault 21: not a name.
        """
        return self._folder(product) / _check_name("fileset", fileset)

    def rewrite_indexes(self) -> None:
        """Write those index.txt anew that are not what the registry says, as after a change made to it by hand."""
        with self.working("indexes"), self._turn():
            for path, text in self._all_indexes():
                if _read(path) != text():
                    self._write(path, text())

    def stale_indexes(self) -> list[Path]:
        """Return the index.txt that are not what the registry says; those of filesets that are not there are left out.

        Publishing goes on meanwhile: only what looks wrong is looked at again in a turn.
        """
        found = []
        with self.working("indexes"):
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

        with self.working("filesets"):
            if not look():
                return []
            with self._turn():
                return look()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # Else an older index could overwrite a newer one, and two requests could race for one name.
        with (self.root / ".lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _folder(self, product: str) -> Path:
        return inside(self.root, _check_name("product", product))

    def _lock_product(self, name: str) -> int:
        # An update that changes nothing locks the row, so that filesets are numbered in the order of their commits:
        # a poller that has seen a number never misses a smaller one.
        prod_id: int = self._product(name).prod_id
        dsProduct.update(prod_name=name).where(dsProduct.prod_id == prod_id).execute()
        return prod_id

    def _owned(self, product: str, fileset: str, req_id: str | None) -> bool:
        """Tell whether the fileset is there; raise when it is, and is not that of request `req_id`."""
        parent = self._product(product)
        try:
            row = self._fileset(parent, fileset)
        except NotRegistered:
            return False
        if req_id is None:
            raise UserError(f"fileset {product}/{fileset} is registered already", Fault.PSTAMP_DUP_REQUEST)
        if row.prod_col_0 != req_id:
            raise UserError(
                f"fileset {product}/{fileset} belongs to request {row.prod_col_0}, so that request {req_id} can't have "
                "it: send the request again under another name",
                Fault.PSTAMP_DUP_REQUEST,
            )
        return True

    def _check_free(self, target: Path, files: Sequence[StoredFile], place: Place | None) -> None:
        """Make sure that files are where they should be, and that none is lost when they are placed in `target`."""
        if os.path.lexists(target) and not target.is_dir():
            raise UserError(f"{target} is in the way and is no folder: move it to another place")
        there = {path.name for path in target.iterdir()} if target.exists() else set()
        others = sorted(there - {INDEX, *(file.name for file in files)})
        if place and others:
            raise UserError(
                f"{target} has files that are not to be registered ({', '.join(others[:3])}): move them to another "
                "place, or list them, too"
            )
        for file in files:
            if place == "link" and target.resolve() in file.path.resolve().parents:
                raise UserError(f"file {file.path} is in {target} already, where a link to it would replace it")
            if not place and file.path.parent.resolve() / file.path.name != target.resolve() / file.name:
                raise UserError(f"file {file.path} is not in {target}: have it linked or copied there")

    def _clear_unlisted(self, target: Path) -> None:
        if not _is_fileset(target):
            raise RetryableError(
                f"data store {self.root}: {target} is in the way and is no fileset: move it to another place"
            )
        _remove(target)

    def _stage(
        self,
        staging: Path,
        files: Sequence[StoredFile],
        place: Callable[[Path, Path], object],
        after_each: Callable[[], None] = lambda: None,
    ) -> None:
        staging.mkdir()
        for file in files:
            source, placed = file.path, staging / file.name
            found = None
            if source.is_file():
                place(source, placed)
                found = measure(placed, file.type)
            if found is None or (found.bytes, found.md5) != (file.bytes, file.md5):
                now = f"has {found.bytes} bytes, md5 {found.md5}" if found else "is no file"
                raise RetryableError(
                    f"file {file.path} {now}; expected {file.bytes} bytes, md5 {file.md5}, as it was measured",
                    Fault.PS_EXIT_DATA_ERROR,
                )
            if not placed.samefile(source):  # a linked file was brought to disk by who wrote it (`files.publish`)
                _sync(placed)
            after_each()
        write_text(staging / INDEX, _file_index(files))
        _sync(staging)

    def _register(
        self,
        product: str,
        fileset: str,
        fileset_type: str,
        files: Sequence[StoredFile],
        values: Sequence[str | None],
        owner: str | None,
    ) -> None:
        now = datetime.now(UTC)
        own = {"type": fileset_type, **_numbered("prod_col", values)}

        def register() -> None:
            prod_id = self._lock_product(product)
            if self._owned(product, fileset, owner):
                row = dsFileset.get(dsFileset.product == prod_id, dsFileset.fileset_name == fileset)
                dsFileset.update(**own).where(dsFileset.fileset_id == row.fileset_id).execute()
                dsFile.delete().where(dsFile.fileset == row).execute()
            else:
                row = dsFileset.create(product=prod_id, fileset_name=fileset, reg_time=now, **own)
                dsProduct.update(last_update=now, last_fs=fileset).where(dsProduct.prod_id == prod_id).execute()
            rows = [
                {"fileset": row.fileset_id, "file_name": file.name, "bytes": file.bytes, "md5sum": file.md5,
                 "type": file.type, **_numbered("type_col", file.values)}
                for file in files
            ]  # fmt: skip
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                dsFile.insert_many(rows[start : start + _ROWS_AT_ONCE]).execute()

        unit_of_work(self.database, TABLES, register)

    def _write_indexes(self, products: Iterable[str]) -> None:
        for path, text in self._indexes(products):
            self._write(path, text())

    def _indexes(self, products: Iterable[str]) -> Iterator[tuple[Path, Callable[[], str]]]:
        """Yield the indexes of `products`, and last that of the root, with what gives their text by the registry."""
        for name in products:
            yield self._folder(name) / INDEX, partial(_joined, self.product_index, name)
        yield self.root / INDEX, self.root_index

    def _all_indexes(self) -> Iterator[tuple[Path, Callable[[], str]]]:
        """Yield the indexes of all filesets that are there, and then those above them."""
        names = [row.prod_name for row in dsProduct.select()]
        for product in names:
            for row in dsFileset.select().join(dsProduct).where(dsProduct.prod_name == product):
                folder = self._folder(product) / row.fileset_name
                if folder.is_dir():
                    yield folder / INDEX, partial(_joined, self.fileset_index, product, row.fileset_name)
        yield from self._indexes(names)

    def _write(self, path: Path, text: str) -> None:
        _sweep(path)
        write_text(path, text)


def _check_name(what: str, name: str) -> str:
    if not NAME.fullmatch(name) or len(name) > _LONGEST or name == INDEX:
        raise UserError(
            f"{what} {name[:80]!r}: expected a name of 1 to 64 letters, digits and -+_.: that starts with no dot and "
            f"is not {INDEX}"
        )
    return name


def _check_plan(
    what: str,
    fileset_type: str,
    files: Sequence[StoredFile],
    values: Sequence[str | None],
    error: type[Bug | UserError],
) -> None:
    names = [file.name for file in files]
    wrong = [name for name in names if not NAME.fullmatch(name) or len(name) > _LONGEST_TEXT or name == INDEX]
    wrong += [name for name, times in Counter(names).items() if times > 1]
    if wrong:
        raise error(f"{what}: file name {wrong[0][:300]!r} is no plain name or occurs twice")
    for kind in [fileset_type, *(file.type for file in files)]:
        if not NAME.fullmatch(kind) or len(kind) > _LONGEST:
            raise error(f"{what}: type {kind[:80]!r}, expected 1 to 64 letters, digits and -+_.:")
    for some in [values, *(file.values for file in files)]:
        if not _fit(some):
            raise error(f"{what}: values {list(some)}, expected at most 8 of 1 to 64 characters")


def _fit(texts: Sequence[str | None]) -> bool:
    return len(texts) <= COLUMNS and all(text is None or 0 < len(text) <= _LONGEST for text in texts)


def _numbered(prefix: str, values: Sequence[str | None]) -> dict[str, Any]:
    return {f"{prefix}_{i}": values[i] if i < len(values) else None for i in range(COLUMNS)}


def _file_index(files: Iterable[StoredFile]) -> str:
    entries = (FileEntry(file.name, file.bytes, file.md5, file.type, file.values) for file in files)
    return "".join(fileset_index(entries, type_labels()))


def _joined(index: Callable[..., Iterator[str]], *names: str) -> str:
    return "".join(index(*names))


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _is_fileset(path: Path) -> bool:
    # Everything published has an index; an operator's folder that a request happens to name has none.
    return (path / INDEX).is_file()


@contextmanager
def _indexed(target: Path, text: str) -> Iterator[None]:
    """Have an index in `target`, and all as it was before when the block fails."""
    existed = target.is_dir()
    target.mkdir(exist_ok=True)
    try:
        _sweep(target / INDEX)
        write_text(target / INDEX, text)
        yield
    except BaseException:
        (target / INDEX).unlink(missing_ok=True)
        if not existed:
            target.rmdir()
        raise


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


def _unpublish(target: Path, keep_files: bool) -> None:
    if keep_files:
        (target / INDEX).unlink(missing_ok=True)
    else:
        _remove(target)


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
