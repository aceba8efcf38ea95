"""Taking in a request file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from peewee import fn

from pstamp_core.faults import Fault, UserError
from pstamp_core.formats import name_is_valid, parse_text, read_request, write_request
from pstamp_core.machines import RequestState
from pstamp_core.store import make, moment, pstampRequest, pstampWebRequest
from pstamp_core.tasks.server import Server, known_label

MAX_TEXT = 50_000_000
"""Bytes of the text form of a request."""


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

    def take_number() -> tuple[int, int, int]:
        newest = pstampRequest.select(fn.MAX(pstampRequest.req_id)).scalar() or 0
        return pstampWebRequest.create().num, newest, server.store.now()

    number, newest, now = server.store.work(take_number)
    copy = server.settings.work / "webreq" / moment(now).strftime("%Y/%m/%d") / f"web_{number}.fits"
    copy.parent.mkdir(parents=True, exist_ok=True)

    # A name that can't be a fileset's is left to the parser, which answers under a name of its own.
    name = table.req_name if name_is_valid(table.req_name) else None

    def work() -> int:
        # An earlier try may have been stored although the database's answer was lost.
        own = pstampRequest.get_or_none((pstampRequest.req_id > newest) & pstampRequest.uri.endswith(f"/{copy.name}"))
        if own is not None:
            return int(own.req_id)
        same = pstampRequest.get_or_none(pstampRequest.name == name) if name else None
        if same is not None:
            raise UserError(
                f"{path.name}: REQ_NAME {name!r} is in use by request {same.req_id} ({same.state.value}); "
                "send it under another name",
                Fault.PSTAMP_DUP_REQUEST,
            )
        request = make(
            pstampRequest, now=now, who=username or server.worker, state=RequestState.NEW, name=name,
            label=known_label(label or server.settings.label), uri=str(copy), registered=moment(now),
            timestamp=moment(now),
        )  # fmt: skip
        return int(request.req_id)

    try:
        # The name is never used again, and nobody looks for it before the request is there: it needs no private one.
        with path.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        return server.store.work(work)
    except (UserError, OSError):  # a database that does not answer may have the request all the same
        copy.unlink(missing_ok=True)
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
    if text is None:
        if file.stat().st_size > MAX_TEXT:
            raise UserError(f"{file}: {file.stat().st_size} bytes; expected the text of a request, at most {MAX_TEXT}")
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{file}: not a text file (UTF-8)") from None
    table, warnings = parse_text(text, req_name=req_name, email=email, source=file.name)
    path = out or Path(f"{table.req_name}.fits")
    write_request(path, table)
    return path, warnings
