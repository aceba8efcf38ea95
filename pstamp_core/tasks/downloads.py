"""What can be fetched of a finished request: its files, pictures of its stamps, a tar of all, its results as text."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pstamp_core.datastore.index import FileEntry
from pstamp_core.datastore.registry import NotRegistered
from pstamp_core.faults import Fault, FinalError, RetryableError
from pstamp_core.files import StoredFile
from pstamp_core.formats import result_portions
from pstamp_core.machines import RequestState
from pstamp_core.stamps import STRETCHES, picture
from pstamp_core.store import moment
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.browse import NotThere, find_request, is_picture
from pstamp_core.tasks.server import Server

log = logging.getLogger("pstamp")

__all__ = ["STRETCHES", "FileEntry", "Tar", "draw", "list_files", "result_file", "results_csv", "results_json"]

DRAWN_AT_ONCE = 2
"""Each takes up to 100 MB; more than these wait."""
_drawing = threading.BoundedSemaphore(DRAWN_AT_ONCE)

_BLOCK = 2**20


def result_file(server: Server, account: Account, req_id: int, name: str) -> tuple[StoredFile, os.stat_result]:
    """Return a file of a finished request's fileset, whose bytes were compared with the registry.

    Raises
    ------
    NotThere
        There is no such request that the account may see, it has no results (any more), or there is no such file.
    RetryableError
        The file is not what was registered, or can't be read; the log says which.
    """
    product, fileset = _fileset(server, account, req_id)
    try:
        return server.datastore.file(product, fileset, name)
    except NotRegistered:
        raise NotThere(f"request {req_id} has no file of this name") from None
    except RetryableError as error:  # it names the path, which is no user's business
        log.error("request %s: %s", req_id, error)
        raise RetryableError(f"request {req_id}: {name} can't be had now; the operators find why in the log") from None


def list_files(server: Server, account: Account, req_id: int) -> tuple[str, str, list[FileEntry]]:
    """Return product and name of a finished request's fileset, and what is in it.

    Raises
    ------
    NotThere
        There is no such request that the account may see, or it has no results (any more).
    """
    product, fileset = _fileset(server, account, req_id)
    try:
        return product, fileset, server.datastore.files(product, fileset)
    except NotRegistered:
        raise NotThere(f"request {req_id} has no files in the data store") from None


def _fileset(server: Server, account: Account, req_id: int) -> tuple[str, str]:
    with server.store.reading():
        request = find_request(account, req_id)
    if request.state in (RequestState.GOTO_CLEANED, RequestState.CLEANED):
        when = f"{moment(request.changed_at):%Y-%m-%d}"
        raise NotThere(f"the files of request {req_id} were kept long enough, and deleted on {when}; send it again")
    if request.state is not RequestState.STOP:
        raise NotThere(f"request {req_id} is not finished: it has no results yet")
    return request.outProduct or server.settings.product, str(request.name)


def draw(server: Server, account: Account, req_id: int, name: str, stretch: str) -> bytes:
    """Return a picture (PNG) of an image stamp of a finished request.

    Raises
    ------
    NotThere
        As `result_file`, or the file is no image stamp.
    UserError
        There is no such stretch (`STRETCHES`), or no picture can be made of the file.
    RetryableError
        As `result_file`.
    """
    file, _ = result_file(server, account, req_id, name)
    if not is_picture(name, file.type):
        raise NotThere(f"{name} of request {req_id} is no image stamp, of which there would be a picture")
    try:
        with _drawing:
            return picture(file.path, stretch)
    except FinalError:  # it names the path, which is no user's business
        raise FinalError(f"no picture can be made of {name}") from None


class Tar:
    """The fileset of a finished request as a tar file, made while it is read.

    Attributes
    ----------
    name : str
        A name for it.
    bytes : int
        Its size.

    Raises
    ------
    NotThere
        There is no such request that the account may see, or it has no results (any more).
    """

    def __init__(self, server: Server, account: Account, req_id: int) -> None:
        self._server, self._account, self._req_id = server, account, req_id
        _, fileset, self._files = list_files(server, account, req_id)
        self._folder = fileset
        self.name = f"{fileset}.tar"
        self.bytes = sum(len(self._header(each.name, each.bytes)) + _padded(each.bytes) for each in self._files)
        self.bytes += 2 * tarfile.BLOCKSIZE

    def __iter__(self) -> Iterator[bytes]:
        """Give it in blocks.

        Raises
        ------
        PstampError
            In the middle: a file is gone, or is not what was registered any more. What was given is no whole tar then.
        """
        for each in self._files:
            file, _ = result_file(self._server, self._account, self._req_id, each.name)
            yield self._header(each.name, each.bytes)
            left = each.bytes
            with file.path.open("rb") as stream:
                while left and (block := stream.read(min(_BLOCK, left))):
                    left -= len(block)
                    yield block
            if left or file.bytes != each.bytes:
                raise RetryableError(f"{file.name}: changed while it was read", Fault.PS_EXIT_DATA_ERROR)
            yield bytes(_padded(each.bytes) - each.bytes)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(f"{self._folder}/{name}")
        info.size = size
        return info.tobuf(tarfile.PAX_FORMAT)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def results_csv(server: Server, account: Account, req_id: int) -> Iterator[str]:
    """Return the results table of a finished request as CSV, in portions.

    A text that a spreadsheet would take for a formula, since it begins with ``=``, ``+``, ``-`` or ``@``, gets an
    apostrophe before it.

    Raises
    ------
    NotThere, RetryableError
        As `result_file`.
    """
    return _csv(_table(server, account, req_id))


def _csv(table: Path) -> Iterator[str]:
    names = None
    for rows in result_portions(table):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
        if names is None:
            names = list(rows[0])
            writer.writerow(names)
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
        yield text.getvalue()


def _cell(value: Any) -> Any:
    # As OWASP's page on CSV injection says; a number is none, whatever sign it has.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def results_json(server: Server, account: Account, req_id: int) -> Iterator[str]:
    """Return the results table of a finished request as a JSON list of objects, in portions; NaN is null.

    Raises
    ------
    NotThere, RetryableError
        As `result_file`.
    """
    return _json(_table(server, account, req_id))


def _json(table: Path) -> Iterator[str]:
    before = "[\n"
    for rows in result_portions(table):
        yield before + ",\n".join(json.dumps(_finite(row), allow_nan=False) for row in rows)
        before = ",\n"
    yield "\n]\n"


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    odd = {name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
    return {name: None if name in odd else value for name, value in row.items()}


def _table(server: Server, account: Account, req_id: int) -> Path:
    file, _ = result_file(server, account, req_id, "results.fits")
    return file.path
