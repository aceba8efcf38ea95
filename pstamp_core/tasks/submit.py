"""Request files: taking them in, making them, and showing them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from peewee import fn

from pstamp_core.faults import Fault, RetryableError, UserError
from pstamp_core.formats import (
    OPTION_FLAGS,
    Option,
    check_request,
    check_rows,
    header_line,
    make_request,
    name_is_valid,
    parse_targets,
    parse_text,
    read_request,
    results_mdc,
    simple_rows,
    write_request,
)
from pstamp_core.formats.request import NAME_RULE
from pstamp_core.machines import RequestState
from pstamp_core.store import make, moment, pstampRequest, pstampWebRequest
from pstamp_core.tasks.server import Server, known_label

MAX_TEXT = 50_000_000
"""Characters of the text form of a request."""


def submit(server: Server, path: Path, *, label: str | None = None, username: str | None = None) -> int:
    """Copy the request file at `path` into the server and queue it.

    Only what can't be answered by a fileset is refused here, as the upload page does (`pstamp_insert_request.pl`); all
    other errors become rows of the results.

    Returns
    -------
    int
        The request's number.

    Raises
    ------
    UserError
        Fault 21: not a request table, or without a name; fault 20: the name is in use.
    RetryableError
        The file can't be copied, or the database does not answer.
    """
    table = read_request(path, max_rows=server.settings.max_rows)
    # A name that can't be a fileset's is left to the parser, which answers under a name of its own.
    name = table.req_name if name_is_valid(table.req_name) else None
    place = _take_place(server, server.settings.work, "web")
    return _queue(server, place, partial(_copy, path), name, path.name, label or server.settings.label, username)


def insert_request(server: Server, path: Path, work: Path | None = None) -> tuple[int, str]:
    """Copy an uploaded request file to a folder below `work`, or the server's own, and queue it under the label WEB.UP.

    `pstamp_insert_request.pl`; the uploader hears at once of a name that can't be a fileset's.

    Returns
    -------
    tuple of int and str
        The request's number and its name.

    Raises
    ------
    UserError
        As `submit`; fault 21 also for a name that is not allowed.
    RetryableError
        As `submit`; fault 3: the folder can't be made.
    """
    name = read_request(path, max_rows=server.settings.max_rows).req_name
    _check_name(path.name, name)
    place = _take_place(server, work or server.settings.work, "web")
    return _queue(server, place, partial(_copy, path), name, path.name, "WEB.UP"), name


def web_request(
    server: Server,
    make_file: Callable[[str, Path], object],
    *,
    prefix: str = "web",
    label: str = "WEB",
    username: str | None = None,
    pretend: bool = False,
) -> tuple[int | None, str, Path]:
    """Have a request file made under the next name, and queue it (`pstamp_webrequest.pl`).

    Parameters
    ----------
    server : Server
        The server.
    make_file : callable
        Writes the request of the name given to the path given.
    prefix : str
        The name is ``<prefix>_<number>``.
    label, username : str, optional
        Of the request.
    pretend : bool
        Only make the file.

    Returns
    -------
    tuple of int, str and Path
        The request's number (None if it was not queued), its name and its file.

    Raises
    ------
    UserError
        The name is in use (fault 20) or not allowed, or `make_file` refuses to make the request.
    RetryableError
        Fault 3: the folder can't be made.
    """
    _check_name("prefix", f"{prefix}_1")
    place = _take_place(server, server.settings.work, prefix)
    name = place.file.stem
    write = partial(make_file, name)
    if pretend:
        write(place.file)
        return None, name, place.file
    return _queue(server, place, write, name, place.file.name, label, username), name, place.file


def _check_name(where: str, name: str) -> None:
    if not name_is_valid(name):
        raise UserError(f"{where}: REQ_NAME is {name[:80]!r}; expected {NAME_RULE}")


def _copy(path: Path, copy: Path) -> None:
    # The name is never used again, and nobody looks for it before the request is there: it needs no private one.
    with path.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())


@dataclass(frozen=True)
class _Place:
    """A place for a request file that no other has; the newest request and the time when it was taken."""

    file: Path
    newest: int
    now: int


def _take_place(server: Server, work: Path, prefix: str) -> _Place:
    """Return ``<work>/webreq/YYYY/MM/DD/<prefix>_<number>.fits`` with the next number, its folder made."""

    def take_number() -> tuple[int, int, int]:
        newest = pstampRequest.select(fn.MAX(pstampRequest.req_id)).scalar() or 0
        return pstampWebRequest.create().num, newest, server.store.now()

    number, newest, now = server.store.work(take_number)
    folder = work.resolve() / "webreq" / moment(now).strftime("%Y/%m/%d")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RetryableError(f"folder {folder} can't be made: {error.strerror}", Fault.PS_EXIT_CONFIG_ERROR) from error
    return _Place(folder / f"{prefix}_{number}.fits", newest, now)


def _queue(
    server: Server,
    place: _Place,
    write: Callable[[Path], object],
    name: str | None,
    source: str,
    label: str,
    username: str | None = None,
) -> int:
    """Write the file of `place` and queue a request with it; `source` is what messages call it. Return its number."""
    file = place.file

    def work() -> int:
        # An earlier try may have been stored although the database's answer was lost.
        new = pstampRequest.req_id > place.newest
        own = pstampRequest.get_or_none(new & pstampRequest.uri.endswith(f"/{file.name}"))
        if own is not None:
            return int(own.req_id)
        same = pstampRequest.get_or_none(pstampRequest.name == name) if name else None
        if same is not None:
            raise UserError(
                f"{source}: REQ_NAME {name!r} is in use by request {same.req_id} ({same.state.value}); "
                "send it under another name",
                Fault.PSTAMP_DUP_REQUEST,
            )
        request = make(
            pstampRequest, now=place.now, who=username or server.worker, state=RequestState.NEW, name=name,
            label=known_label(label), uri=str(file), username=username, registered=moment(place.now),
            timestamp=moment(place.now),
        )  # fmt: skip
        return int(request.req_id)

    try:
        write(file)
        return server.store.work(work)
    except (UserError, OSError):  # a database that does not answer may have the request all the same
        file.unlink(missing_ok=True)
        raise


def make_request_file(
    file: Path,
    *,
    text: str | None = None,
    out: Path | None = None,
    req_name: str | None = None,
    email: str | None = None,
) -> tuple[Path, list[str]]:
    """Turn the text form of a request into a FITS table (`pstamp_request_file`).

    Parameters
    ----------
    file : Path
        The text, unless `text` is given; it names the source in messages.
    text : str, optional
        The text itself.
    out : Path, optional
        Where the table goes; ``<REQ_NAME>.fits`` by default, overwritten if it is there.
    req_name, email : str, optional
        Stand in for those of the text.

    Returns
    -------
    tuple of Path and list of str
        The table's file, and warnings.

    Raises
    ------
    UserError
        The text is malformed; the message names the line.
    """
    text = _read_text(file) if text is None else _bounded(file, text)
    table, warnings = parse_text(text, req_name=req_name, email=email, source=file.name)
    path = out or Path(f"{table.req_name}.fits")
    write_request(path, table)
    return path, warnings


def make_option_request(
    *,
    out: Path | None = None,
    req_name: str | None = None,
    req_name_base: str | None = None,
    targets: Path | None = None,
    flags: Collection[str] = (),
    **options: Any,
) -> tuple[Path, list[str]]:
    """Make a request from single options (`psmkreq`).

    Parameters
    ----------
    out : Path, optional
        Where the table goes; ``<REQ_NAME>.fits`` by default, overwritten if it is there.
    req_name : str, optional
        The name of the request.
    req_name_base : str, optional
        What its name begins with instead; the time follows (UTC, ``yyyymmddThhmmss``).
    targets : Path, optional
        A list of targets, each of which becomes a row.
    flags : collection of str
        Names of `OPTION_FLAGS`.
    **options
        As `make_request` takes them.

    Returns
    -------
    tuple of Path and list of str
        The table's file, and warnings: also what the server would answer to a row instead of a stamp.

    Raises
    ------
    UserError
        A name is missing, or the options do not go together.
    """
    if (req_name is None) == (req_name_base is None):
        raise UserError("the name of the request is not clear; expected REQ_NAME, or what it begins with")
    name = f"{req_name_base}{datetime.now(UTC):%Y%m%dT%H%M%S}" if req_name is None else req_name
    rows, warnings = parse_targets(_read_text(targets), source=targets.name) if targets else ([], [])
    if targets and not rows:
        raise UserError(f"{targets.name}: there is no target in it")
    bits = sum({OPTION_FLAGS[flag] for flag in flags} - {Option.SELECT_IMAGE}, Option.SELECT_IMAGE)
    table = make_request(name, targets=rows, options=bits, **options)
    path = out or Path(f"{name}.fits")
    write_request(path, table)
    whole = check_request(table, serve_v1=True, path=path)
    by_row = check_rows(table, project_fault=lambda _: None, path=path)
    found = [whole, *(finding for findings in by_row for finding in findings)]
    warnings += [finding.sentence for finding in found if finding]
    return path, warnings


def dump_table(path: Path, *, header: bool = False, rows: bool = True, simple: bool = False) -> str:
    """Return a FITS table as text (`pstampdump`).

    Parameters
    ----------
    path : Path
        The file; its first extension is the table.
    header : bool
        First a line with what the header of a request or results table says.
    rows : bool
        The rows, as metadata config text.
    simple : bool
        The rows as lines of values instead.

    Raises
    ------
    UserError
        The file is no such table.
    """
    text = header_line(path) + "\n" if header else ""
    if rows:
        text += simple_rows(path) if simple else results_mdc(path)
    return text


def _read_text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            return _bounded(file, stream.read(MAX_TEXT + 1))
    except UnicodeDecodeError:
        raise UserError(f"{file}: not a text file (UTF-8)") from None


def _bounded(file: Path, text: str) -> str:
    if len(text) > MAX_TEXT:
        raise UserError(f"{file}: more than {MAX_TEXT} characters; expected the text of a request")
    return text
