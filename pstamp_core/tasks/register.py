"""The data store's registry, changed by hand (`dsreg`, `dsprodtool`); errors carry the exit codes of the original.

These are: 1 it is there already, or is not there; 2 a name or file is wrong, or the product or the disk fails; 4 the
file list is wrong, or does not fit the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pstamp_core.datastore import DataStore
from pstamp_core.datastore.filesets import Place
from pstamp_core.datastore.index import ListedFile, read_file_list
from pstamp_core.datastore.registry import NotRegistered
from pstamp_core.faults import Fault, PstampError, UserError
from pstamp_core.files import StoredFile, measure
from pstamp_core.tasks.server import Server

__all__ = ["NotRegistered", "Place", "add_fileset", "add_product", "remove_fileset", "remove_product"]

_FAILED, _USAGE, _BAD_LIST = 1, 2, 4


def add_fileset(
    server: Server,
    product: str,
    name: str,
    fileset_type: str,
    listing: str | None,
    *,
    values: Sequence[str | None] = (),
    place: Place | None = None,
    datapath: Path | None = None,
    abspath: bool = False,
    root: Path | None = None,
) -> int:
    """Register a new fileset, all or nothing; return how many files it has.

    Every file is measured. One whose size or md5 is not that of the list is refused (the original only warns, and
    publishes it as it is).

    Parameters
    ----------
    server : Server
        Whose registry it goes to.
    product, name, fileset_type : str
        A registered product, the fileset's name, and its type, such as ``PSREQUEST``.
    listing : str or None
        The file list (`read_file_list`); None for a fileset without files.
    values : sequence of str or None, optional
        Values of the product's columns.
    place : {'link', 'copy'}, optional
        Have the files linked or copied into the fileset's folder; else they are there already.
    datapath : Path, optional
        Where the listed files are, by default in the fileset's folder; absolute for links.
    abspath : bool
        The list has complete paths.
    root : Path, optional
        The data store's folder, if not the server's.

    Raises
    ------
    PstampError
        With the codes above.
    """
    store = _store(server, root)
    with _codes(missing=_USAGE):
        folder = datapath or store.folder(product, name)
        try:
            listed = [] if listing is None else read_file_list(listing)
        except UserError as error:
            raise PstampError(str(error), _BAD_LIST) from error
        files = [_measured(file, folder, abspath=abspath) for file in listed]
        if place == "link" and (wrong := [file.path for file in files if not file.path.is_absolute()]):
            raise UserError(f"{wrong[0]}: a link needs a complete path; give --datapath as one, or --copy")
        store.register(product, name, fileset_type, files, values, place)
    return len(files)


def remove_fileset(
    server: Server, product: str, name: str, *, rm: bool = False, force: bool = False, root: Path | None = None
) -> None:
    """Take a fileset out of the registry, and with `rm` off the disk; with `force` it need not be there.

    Raises
    ------
    PstampError
        With the codes above.
    """
    with _codes(missing=_FAILED):
        try:
            _store(server, root).withdraw(product, name, missing_ok=force, keep_files=not rm)
        except NotRegistered:
            if not force:
                raise


def add_product(
    server: Server,
    name: str,
    product_type: str,
    description: str,
    labels: Sequence[str | None] = (),
    *,
    root: Path | None = None,
) -> None:
    """Register a new product; its folder must be empty if it is there.

    Raises
    ------
    PstampError
        With the codes above.
    """
    with _codes(missing=_FAILED):
        _store(server, root).add_product(name, product_type, description, labels, new=True)


def remove_product(server: Server, name: str, *, rm: bool = False, root: Path | None = None) -> int:
    """Take a product with all its filesets out of the registry, and with `rm` off the disk; return how many there were.

    Raises
    ------
    PstampError
        With the codes above.
    """
    with _codes(missing=_FAILED):
        return _store(server, root).remove_product(name, keep_files=not rm)


def _store(server: Server, root: Path | None) -> DataStore:
    return server.datastore if root is None else DataStore(root, server.store.db)


@contextmanager
def _codes(missing: int) -> Iterator[None]:
    try:
        yield
    except NotRegistered as error:
        raise PstampError(str(error), missing) from error
    except UserError as error:
        raise PstampError(str(error), _FAILED if error.fault == Fault.PSTAMP_DUP_REQUEST else _USAGE) from error


def _measured(listed: ListedFile, folder: Path, *, abspath: bool) -> StoredFile:
    path = Path(listed.path) if abspath else folder / listed.path
    if abspath and not path.is_absolute():
        raise UserError(f"file {listed.path}: not a complete path, which --abspath asks for")
    if not path.is_file():
        raise UserError(f"file {path}: there is no such file")
    found = measure(path, listed.type)
    if listed.bytes not in (None, found.bytes) or listed.md5 not in (None, found.md5):
        said = [f"{listed.bytes} bytes"] * (listed.bytes is not None) + [f"md5 {listed.md5}"] * bool(listed.md5)
        raise PstampError(
            f"file {path} has {found.bytes} bytes, md5 {found.md5}; the list says {', '.join(said)}", _BAD_LIST
        )
    return StoredFile(path, path.name, listed.type, found.bytes, found.md5, listed.values)
