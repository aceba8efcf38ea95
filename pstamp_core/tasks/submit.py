"""Request files: taking them in, making them, and showing them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from peewee import fn

from pstamp_core.faults import Fault, RetryableError, UserError
from pstamp_core.formats import (
    OPTION_FLAGS,
    Finding,
    Option,
    RequestTable,
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
from pstamp_core.formats.tables import shown
from pstamp_core.machines import RequestState
from pstamp_core.store import make, moment, pstampAccount, pstampRequest, pstampSender, pstampWebRequest
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.parse import Access, look_up_user
from pstamp_core.tasks.server import Server, known_label

MAX_TEXT = 50_000_000
"""Characters of the text form of a request."""

OPEN = (RequestState.NEW, RequestState.PARSED, RequestState.RUN)
"""The states of a request whose rows count for the quota of whoever sent it."""


def submit(server: Server, path: Path, *, label: str | None = None, sender: Account | None = None) -> int:
    """Copy the request file at `path` into the server and queue it.

    Only what can't be answered by a fileset is refused here, as the upload page does (`pstamp_insert_request.pl`); all
    other errors become rows of the results.

    Parameters
    ----------
    server : Server
        The server.
    path : Path
        The file.
    label : str, optional
        The queue it goes to.
    sender : Account, optional
        Who sends it, if that is known: the request is theirs, and its EMAIL may be missing, but not another's.

    Returns
    -------
    int
        The request's number.

    Raises
    ------
    UserError
        Fault 21: not a request table, or without a name; fault 20: the name is in use; fault 29: the file names
        somebody other than the sender, or the sender's quota is used up.
    RetryableError
        The file can't be copied, or the database does not answer.
    """
    table = read_request(path, max_rows=server.settings.max_rows)
    _refuse(_foreign(table, path.name, sender))
    # A name that can't be a fileset's is left to the parser, which answers under a name of its own.
    name = table.req_name if name_is_valid(table.req_name) else None
    place = _take_place(server, server.settings.work, "web")
    return _queue(
        server, place, partial(_copy, path, table), name, path.name, label or server.settings.label, sender=sender
    )


def insert_request(
    server: Server, path: Path, work: Path | None = None, *, sender: Account | None = None
) -> tuple[int, str]:
    """Copy an uploaded request file to a folder below `work`, or the server's own, and queue it under the label WEB.UP.

    `pstamp_insert_request.pl`; the uploader hears at once of a name that can't be a fileset's. The sender is that of
    `submit`.

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
    table = read_request(path, max_rows=server.settings.max_rows)
    name = table.req_name
    _check_name(path.name, name)
    _refuse(_foreign(table, path.name, sender))
    place = _take_place(server, work or server.settings.work, "web")
    return _queue(server, place, partial(_copy, path, table), name, path.name, "WEB.UP", sender=sender), name


def web_request(
    server: Server,
    make_file: Callable[[str, Path], object],
    *,
    prefix: str = "web",
    label: str = "WEB",
    username: str | None = None,
    sender: Account | None = None,
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
    sender : Account, optional
        Who sends it, as for `submit`; their address is the username then.
    pretend : bool
        Only make the file.

    Returns
    -------
    tuple of int, str and Path
        The request's number (None if it was not queued), its name and its file.

    Raises
    ------
    UserError
        The name is in use (fault 20) or not allowed, or `make_file` refuses to make the request; fault 29 as `submit`.
    RetryableError
        Fault 3: the folder can't be made.
    """
    _check_name("prefix", f"{prefix}_1")
    place = _take_place(server, server.settings.work, prefix)
    name = place.file.stem
    if pretend:
        make_file(name, place.file)
        return None, name, place.file

    def write(file: Path) -> RequestTable:
        make_file(name, file)
        table = read_request(file, max_rows=server.settings.max_rows)
        _refuse(_foreign(table, file.name, sender))
        return table

    number = _queue(server, place, write, name, place.file.name, label, username=username, sender=sender)
    return number, name, place.file


def check_file(server: Server, path: Path, sender: Account | None = None) -> list[Finding]:
    """Return all that is wrong with a request file, as far as that can be told without a look at images.

    A finding about the whole request (`Finding.position` 0) comes first and keeps all of it from being served; one
    about a row keeps this row.

    Parameters
    ----------
    server : Server
        The server.
    path : Path
        The file.
    sender : Account, optional
        Who sends it, as for `submit`.
    """
    try:
        table = read_request(path, max_rows=server.settings.max_rows)
    except UserError as error:
        return [Finding(0, 0, error.fault, "", "", str(error), str(error))]
    whole = [_foreign(table, path.name, sender)]
    if sender:
        table = replace(table, email=sender.email)
    found = check_request(table, serve_v1=server.settings.serve_v1, path=path)
    whole.append(found)
    with server.store.reading():
        whole += [_name_in_use(table.req_name, path.name), _over_quota(server, len(table.rows), path.name, sender)]
    if found and found.column == "EMAIL":
        return [each for each in whole if each]
    user = look_up_user(server, table.email)
    if user.level < 0:
        whole.append(
            _problem(path.name, "EMAIL", f"{table.email!r}", "it has no access here", Fault.PSTAMP_NOT_AUTHORIZED)
        )
    by_row = check_rows(
        table, project_fault=Access(server, user).fault, max_size_pixels=server.settings.max_stamp_pixels, path=path
    )
    return [*(each for each in whole if each), *(each for findings in by_row for each in findings)]


def _problem(source: str, column: str, value: str, reason: str, fault: Fault) -> Finding:
    """Return what is wrong with a whole request."""
    return Finding(0, 0, int(fault), column, value, reason, f"{source}: {column} is {value}; {reason}")


def _refuse(found: Finding | None) -> None:
    if found:
        raise UserError(found.sentence, found.fault)


def _foreign(table: RequestTable, source: str, sender: Account | None) -> Finding | None:
    """Return what is wrong with the address in a file that `sender` sends."""
    if sender is None or not table.email or table.email.lower() == sender.email:
        return None
    reason = f"it is not that of {sender.email}, who sends it: put that into the file, or none (null)"
    return _problem(source, "EMAIL", shown(table.email), reason, Fault.PSTAMP_NOT_AUTHORIZED)


def _name_in_use(name: str | None, source: str) -> Finding | None:
    same = pstampRequest.get_or_none(pstampRequest.name == name) if name else None
    if same is None:
        return None
    reason = f"it is in use by request {same.req_id} ({same.state.value}); send it under another name"
    return _problem(source, "REQ_NAME", f"{name!r}", reason, Fault.PSTAMP_DUP_REQUEST)


def _over_quota(server: Server, rows: int, source: str, sender: Account | None) -> Finding | None:
    """Return that the rows of `sender` would be too many with those of a new request, if so."""
    limit = server.settings.max_open_rows
    if sender is None or sender.operator or not limit:
        return None
    mine = (pstampSender.account_id == sender.account_id) & pstampRequest.state.in_(OPEN)
    requests = pstampSender.select(fn.SUM(pstampSender.num_rows)).join(
        pstampRequest, on=(pstampRequest.req_id == pstampSender.req_id)
    )
    used = int(requests.where(mine).scalar() or 0)
    if rows + used <= limit:
        return None
    reason = (
        f"your requests that are not finished have {used}, and a user may have {limit} at a time; wait until some "
        "are finished, cancel some, or send fewer rows"
    )
    return _problem(source, "the number of rows", str(rows), reason, Fault.PSTAMP_NOT_AUTHORIZED)


def _check_name(where: str, name: str) -> None:
    if not name_is_valid(name):
        raise UserError(f"{where}: REQ_NAME is {name[:80]!r}; expected {NAME_RULE}")


def _copy(path: Path, table: RequestTable, copy: Path) -> RequestTable:
    # The name is never used again, and nobody looks for it before the request is there: it needs no private one.
    with path.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    return table


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
    write: Callable[[Path], RequestTable],
    name: str | None,
    source: str,
    label: str,
    *,
    username: str | None = None,
    sender: Account | None = None,
) -> int:
    """Write the file of `place` and queue a request with it; `source` is what messages call it. Return its number.

    Races tolerated: two requests of one sender are counted one after the other.
    """
    file = place.file
    if sender:
        username = sender.email

    def work(rows: int) -> int:
        # An earlier try may have been stored although the database's answer was lost.
        new = pstampRequest.req_id > place.newest
        own = pstampRequest.get_or_none(new & pstampRequest.uri.endswith(f"/{file.name}"))
        if own is not None:
            return int(own.req_id)
        _refuse(_name_in_use(name, source))
        if sender:
            # FOR UPDATE without its dialects, as in `locked_dependents`.
            pstampAccount.update(email=sender.email).where(pstampAccount.account_id == sender.account_id).execute()
            _refuse(_over_quota(server, rows, source, sender))
        request = make(
            pstampRequest, now=place.now, who=username or server.worker, state=RequestState.NEW, name=name,
            label=known_label(label), uri=str(file), username=username, registered=moment(place.now),
            timestamp=moment(place.now),
        )  # fmt: skip
        if sender:
            pstampSender.create(req_id=request.req_id, account_id=sender.account_id, num_rows=rows)
        return int(request.req_id)

    try:
        rows = len(write(file).rows)
        return server.store.work(partial(work, rows))
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
