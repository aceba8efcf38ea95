"""Log files: what was tried on a request, job or dependent, when, by whom, and what came of it.

Their names and places are the original's (`pstamp_parser_run.pl`, `pstamp_job_run.pl`, `request_finish.pl`); only the
log of a dependent is its own, not in the directory of the first request that needed it. Times are those of the
database's clock, so that they agree with the history. A log is for people: one that can't be written stops no work.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from pstamp_core.faults import fault_sentence
from pstamp_core.machines import RequestState
from pstamp_core.machines.machine import DAY, MICROSECONDS
from pstamp_core.store import MACHINES, Worked, moment, pstampDependent, pstampJob, pstampRequest

if TYPE_CHECKING:
    from pstamp_core.tasks.server import Server

log = logging.getLogger("pstamp")

LONGEST = 4000
"""Characters of a line, so that a column of TEXT has room for it (64 kB in MySQL)."""

_LOG_OF = {
    RequestState.NEW: "psparse", RequestState.PARSED: "psparse", RequestState.RUN: "reqfinish",
    RequestState.CANCEL: "reqfinish", RequestState.STOP: "reqfinish",
}  # fmt: skip
"""What the log of a request in a state is called; what is being deleted has none."""


def log_path(server: Server, row: Worked) -> Path | None:
    """Return the log file of the work on `row` in the state it is in, whether it is there yet or not; None: no log.

    A request has two, ``psparse.<req_id>.log`` and ``reqfinish.<req_id>.log``, a job ``<outputBase>.log``, a dependent
    ``checkdep.<dep_id>.log``.
    """
    if isinstance(row, pstampRequest):
        return _request_log(server, row, _LOG_OF[row.state]) if row.state in _LOG_OF else None
    if isinstance(row, pstampJob):
        return Path(f"{row.outputBase}.log") if row.outputBase else None
    return Path(getattr(row, "outdir", None) or dependent_logs(server)) / f"checkdep.{row.id_}.log"


def log_files(server: Server, row: Worked) -> list[Path]:
    """Return all log files of `row` that are there, the oldest work first."""
    paths = [log_path(server, row)]
    if isinstance(row, pstampRequest):
        paths = [_request_log(server, row, name) for name in dict.fromkeys(_LOG_OF.values())]
    return [path for path in paths if path and path.is_file()]


def dependent_logs(server: Server) -> Path:
    """Return the folder of the logs of dependents."""
    return server.settings.work / "dependents"


def update_logs(server: Server) -> Path:
    """Return the folder of the logs of components that are made again."""
    return server.settings.work / "updates"


def delete_old(server: Server) -> None:
    """Delete the logs of dependents and components to which nothing was added for `Settings.preserve_days`.

    Those of requests and jobs go with their requests. One that can't be deleted is told of in the log of the server.
    """
    days = server.settings.preserve_days
    before = (server.store.now() - days * DAY) / MICROSECONDS
    for path in (path for folder in (dependent_logs, update_logs) for path in folder(server).glob("*.log")):
        try:
            if days and path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:  # somebody else was quicker
            continue
        except OSError as trouble:
            log.warning("%s: %s", path, trouble.strerror)


def _request_log(server: Server, request: pstampRequest, name: str) -> Path:
    outdir = Path(request.outdir) if request.outdir else server.work_directory(request)
    return outdir / f"{name}.{request.req_id}.log"


def begin(server: Server, row: Worked, text: str = "") -> None:
    """Write that an attempt on the claimed `row` begins; `text` says on what."""
    path = log_path(server, row)
    if path and isinstance(row, pstampRequest):  # the work will need the folder, too
        _make_folder(path)
    before = (
        f" ({row.fault_count} failed before, the last with {row.cause}: {fault_sentence(row.cause)})"
        if row.fault_count else ""
    )  # fmt: skip
    say(server, row, f"begins, by {server.worker}{before}{f': {text}' if text else ''}", row.changed_at)


def end(server: Server, row: Worked, text: str, now: int, error: BaseException | None = None) -> None:
    """Write what came of the attempt on the claimed `row`, and how long that took; arguments as of `say`."""
    # A dependent is claimed every few seconds, which leaves its time of change alone.
    took = "" if isinstance(row, pstampDependent) else f" ({(now - row.changed_at) / MICROSECONDS:.1f} s)"
    say(server, row, text + took, now, error)


def say(server: Server, row: Worked, text: str, now: int, error: BaseException | None = None) -> None:
    """Write a line to the log of `row`.

    Parameters
    ----------
    server : Server
        The server.
    row : Worked
        As it was claimed.
    text : str
        One line, whatever is in it.
    now : int
        Microseconds since 1970 UTC, by the database's clock.
    error : BaseException, optional
        Its traceback is written, too.
    """
    text = one_line(text)
    log.info("%s %s: %s", MACHINES[type(row)].name, row.id_, text)
    path = log_path(server, row)
    if path is None:
        return
    if isinstance(row, pstampDependent) and path.parent == dependent_logs(server):
        _make_folder(path)
    lines = [f"{moment(now):%Y-%m-%d %H:%M:%S} UTC attempt {row.attempt}: {text}"]
    if error is not None:
        lines += [f"    {line}" for part in traceback.format_exception(error) for line in part.splitlines()]
    try:
        with path.open("ab", buffering=0) as stream:  # in one piece, since two may write
            stream.write("".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
    except OSError as trouble:
        log.warning("%s: %s, so that this is not in it: %s", path, trouble.strerror, text)


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as trouble:
        log.warning("%s: %s", path.parent, trouble.strerror)


def one_line(text: str) -> str:
    """Return `text` as one line that any database, file and terminal takes: it may hold what a user sent."""
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
