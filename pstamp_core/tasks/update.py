"""Making components again: what is in `update` is made by the site's programs, verified, and only then set `full`.

IPP's own update server (`chip.imfile.run`, `warp.skycell.run`, `diff.skycell.run`, `destreak.run`) works from the same
columns; a stage without a program is left to it. Programs run side by side, each in a process group of its own. The
databases are used by the calling thread alone: tables are bound to a database for all threads of a process.
"""

from __future__ import annotations

import logging
import os
import random
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from pstamp_core.database import redact
from pstamp_core.faults import Fault, LeaseLost, PstampError, RetryableError, UserError, fault_name, is_retryable
from pstamp_core.imagedb import ImageDB, Policy, Products, Work, claim, finish, give_back, pending
from pstamp_core.imagedb.updates import KINDS
from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.settings import Settings
from pstamp_core.store import moment, pstampProject
from pstamp_core.tasks import logs
from pstamp_core.tasks.dependents import image_database
from pstamp_core.tasks.server import Progress, Server, as_pstamp_error

log = logging.getLogger("pstamp")

KILL_AFTER = 2.0
"""Seconds between SIGTERM and SIGKILL; less than a scheduler grants us."""
LOOK = 5.0
"""Seconds between two looks for more to do while some programs run, and more could."""
TICK = 0.2
"""Seconds between two looks at whether a program should stop."""
LOG_SIZE = 2**20
"""Bytes of a component's log, after which nothing is added in this try, and the next one begins a new log."""
REASON = 200
"""Characters of why a try failed that are kept for those who wait; the log has all."""
LINE = 10_000
"""Bytes of a line that are read at once."""

Outcome = tuple[int, str]
"""The code in which a try ended, and why."""


def programs(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the site's programs by what they make: stages, and ``destreak``."""
    found = {kind: getattr(settings, f"update_{kind}") for kind in KINDS}
    return {kind: program for kind, program in found.items() if program}


def update_components(server: Server, limit: int, progress: Progress | None = None) -> int:
    """Claim and make up to `limit` components, inputs first; return how many were tried.

    A program gets `Settings.update_timeout` seconds. It is to end in 0, with image, mask and variance written anew at
    the place that the image database names: whole FITS images of the known size, whose checksums, if any, hold; for
    destreaking they may stay as they are. It ends in 26 when the component can't be made any more, and in 1-9 when it
    failed, with the reason as the last line on standard error. It may be killed, and run again, and should write each
    file under another name and rename it. ``<work>/updates/<stage>.<stage_id>.<component>.log`` tells how it went.

    Races tolerated: several servers may do this. A server that dies leaves a lease; when that has run out, another
    makes the component, and nothing that the dead one did counts. Where a run was purged, or is to be cleaned, while a
    component of it was made, the files are left as they are: deleting them is up to whoever cleans the run.
    """
    if not programs(server.settings):
        return 0
    sources = list(_sources(server))
    at_once = server.settings.update_at_once or os.cpu_count() or 1
    total = sum(len(works) for _, works in _pending(server, sources, limit)) if progress else 0
    running: dict[Future[Outcome], _Try] = {}
    taken = done = 0
    stop = threading.Event()
    try:
        with ThreadPoolExecutor(at_once) as pool:
            try:
                while True:
                    for one in _claim(server, sources, min(at_once - len(running), limit - taken)):
                        running[pool.submit(_attempt, one, server.settings, stop)] = one
                        taken += 1
                    if not running:
                        return done
                    for future in wait(running, LOOK, FIRST_COMPLETED).done:
                        _store(server, running[future], future)
                        del running[future]
                        done += 1
                        if progress:
                            progress("make images again", done, max(taken, total))
            finally:
                stop.set()
    finally:
        _give_back(server, running.values())


def would_update(server: Server, limit: int) -> list[str]:
    """Return the names of up to `limit` components that would be made now; nothing is claimed."""
    found = _pending(server, list(_sources(server)), limit)
    return [_name(work) for _, works in found for work in works][:limit]


# -- what there is to do ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """An image database."""

    imagedb: ImageDB
    policy: Policy
    database: str
    """Its address, without the password."""


@dataclass(frozen=True)
class _Try:
    """A claimed component, and what it takes to make it."""

    source: _Source
    work: Work
    command: list[str]
    products: Products | None
    problem: str
    """Why it can't even be tried, if so."""
    log: _Log
    began: int
    """Microseconds since 1970 UTC, by the database's clock."""


def _sources(server: Server) -> Iterator[_Source]:
    """Yield the image databases of all projects; one that can't be used is left out, with a warning."""
    with server.store.reading():
        names = sorted({project.dbname for project in pstampProject.select()})
    for name in names:
        try:
            imagedb, policy = image_database(server, name)
        except RetryableError as error:
            log.warning("update: %s", error)
        else:
            address = redact(server.settings.locate(name)).replace(":***@", "@")
            yield _Source(imagedb, policy, address)


def _pending(server: Server, sources: Sequence[_Source], limit: int) -> Iterator[tuple[_Source, list[Work]]]:
    now, kinds = server.store.now(), programs(server.settings)
    for source in sources:
        try:
            found = pending(source.imagedb, source.policy, limit, now, kinds)
        except RetryableError as error:
            log.warning("update: %s", error)
        else:
            yield source, found


def _claim(server: Server, sources: list[_Source], limit: int) -> Iterator[_Try]:
    """Claim up to `limit` components; an image database that fails is not asked again."""
    settings, commands = server.settings, programs(server.settings)
    longest = settings.update_timeout + KILL_AFTER + settings.lease_seconds
    for source in random.sample(sources, len(sources)):  # so that none comes last for ever
        if limit <= 0:
            return
        now = server.store.now()
        until = now + int(longest * MICROSECONDS)
        try:
            works = claim(source.imagedb, source.policy, limit, server.worker, now, until, commands)
            limit -= len(works)
            yield from [_prepared(server, source, work, commands[work.kind], now) for work in works]
        except RetryableError as error:
            log.warning("update: %s", error)
            sources.remove(source)


def _prepared(server: Server, source: _Source, work: Work, command: Sequence[str], now: int) -> _Try:
    stage, stage_id, component = work.key
    products, problem = None, "the image database names no files for it"
    try:
        products = source.imagedb.products(*work.key)
    except UserError as error:
        problem = str(error)
    values = {
        "stage": stage, "stage_id": stage_id, "component": component, "database": source.database,
        "root": source.imagedb.root or "", "path_base": products.path_base if products else "",
    }  # fmt: skip
    words = [word.format_map(values) for word in command]
    name = f"{stage}.{stage_id}.{quote(component, safe='')}.log"
    one = _Try(source, work, words, products, problem, _Log(logs.update_logs(server) / name), now)
    one.log.line(f"{_at(now)} begins to {'destreak' if work.destreak else 'make'} it, by {server.worker}: "
                 f"{shlex.join(words)}")  # fmt: skip
    return one


def _name(work: Work) -> str:
    return ("destreak " if work.destreak else "") + " ".join(map(str, work.key))


def _at(now: int) -> str:
    return f"{moment(now):%Y-%m-%d %H:%M:%S} UTC"


# -- what comes of it ------------------------------------------------------------------------------------------------


def _store(server: Server, one: _Try, future: Future[Outcome]) -> None:
    """Store what came of a try, and tell it."""
    error = future.exception()
    if error is None:
        fault, reason = future.result()
    else:
        problem = as_pstamp_error(error)
        fault, reason = problem.fault if is_retryable(problem.fault) else Fault.PS_EXIT_DATA_ERROR, str(problem)
        if not isinstance(error, (PstampError, OSError)):
            log.error("%s", _name(one.work), exc_info=error)
    now, reason = server.store.now(), logs.one_line(reason)
    said = f"fault {fault} ({fault_name(fault)}): {reason}" if fault else (
        "destreaked" if one.work.destreak else "full")  # fmt: skip
    level = logging.WARNING if fault else logging.INFO
    try:
        short = reason if len(reason) <= REASON else f"{reason[: REASON - 3]}..."
        if not finish(one.source.imagedb, one.work, server.worker, one.source.policy, now, fault, short):
            level = logging.WARNING
            said += "; but it is not wanted any more: its state, or that of its run, was changed meanwhile"
    except LeaseLost:
        level, said = logging.WARNING, "too late: another server may have taken it meanwhile; the result is thrown away"
    except RetryableError as trouble:
        level = logging.ERROR
        said += f"; but this could not be stored: {trouble}; tried again when its lease has run out"
    see = f" (see {one.log.path})" if level > logging.INFO else ""
    log.log(level, "%s: %s%s", _name(one.work), said, see)
    one.log.line(f"{_at(now)} {said} ({(now - one.began) / MICROSECONDS:.1f} s)")


def _give_back(server: Server, undone: Iterable[_Try]) -> None:
    for one in undone:
        with suppress(RetryableError):  # it runs out by itself
            give_back(one.source.imagedb, [one.work], server.worker)
        one.log.line(f"{_at(server.store.now())} given back, since the server stops")


# -- in threads: no database -----------------------------------------------------------------------------------------


def _attempt(one: _Try, settings: Settings, stop: threading.Event) -> Outcome:
    """Make a component, and verify it."""
    from pstamp_core.stamps.image import Image

    if one.products is None:
        return Fault.PS_EXIT_DATA_ERROR, one.problem
    before = {path: _stamp(path) for path in one.products.files}
    fault, reason = _run(one, settings, stop)
    if fault:
        return fault, reason
    for path in one.products.files:
        if not one.work.destreak and _stamp(path) == before[path]:
            return Fault.PS_EXIT_DATA_ERROR, f"{path}: not written, though {one.command[0]} ended in 0"
        with Image(path) as image:
            size = image.nx, image.ny
            if one.products.size not in (None, size):
                expected = " x ".join(map(str, one.products.size or ()))
                return Fault.PS_EXIT_DATA_ERROR, f"{path}: {size[0]} x {size[1]} pixels; expected {expected}"
            image.verify()
    return 0, ""


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written; None: it is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _run(one: _Try, settings: Settings, stop: threading.Event) -> Outcome:
    """Run the program until it ends, its time is over, or `stop` is set."""
    try:
        process = subprocess.Popen(  # noqa: S603 (the site's)
            one.command, cwd=settings.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return Fault.PS_EXIT_CONFIG_ERROR, f"{one.command[0]} can't be started: {reason}"
    readers = [_Reader(stream, one.log) for stream in (process.stdout, process.stderr) if stream]
    deadline = time.monotonic() + settings.update_timeout
    timed_out = False
    while process.poll() is None:
        timed_out = time.monotonic() >= deadline
        if timed_out or stop.is_set():
            _signal(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(KILL_AFTER)
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(TICK)
    _signal(process, signal.SIGKILL)  # those that it started and left behind, too
    code = process.wait()
    for reader in readers:
        reader.join(1.0)
    if timed_out:
        return Fault.PS_EXIT_TIMEOUT_ERROR, f"{one.command[0]} took more than {settings.update_timeout:g} s; killed"
    said = readers[-1].last or "without a word on standard error"
    if code < 0:
        name = signal.Signals(-code).name
        return Fault.PS_EXIT_SYS_ERROR, f"{one.command[0]} was killed by {name}: {said}"
    if code and not is_retryable(code) and code != Fault.PSTAMP_GONE:
        return Fault.PS_EXIT_UNKNOWN_ERROR, f"{one.command[0]} ended in {code}: {said}"
    return code, said


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class _Reader(threading.Thread):
    """Copies what a program says into the log, and keeps the last line."""

    def __init__(self, stream: IO[bytes], log_: _Log) -> None:
        super().__init__(daemon=True)
        self.last = ""
        self._stream, self._log = stream, log_
        self.start()

    def run(self) -> None:
        with self._stream as stream:
            for line in iter(lambda: stream.readline(LINE), b""):
                self._log.write(line)
                self.last = line.decode("utf-8", "replace").strip() or self.last


class _Log:
    """The log of a component; one that can't be written stops no work."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > LOG_SIZE:
                path.unlink()
        except OSError as trouble:
            log.warning("%s: %s", path.parent, trouble.strerror)

    def line(self, text: str) -> None:
        """Write a line of ours, whatever its length so far."""
        self._append(f"{logs.one_line(text)}\n".encode(errors="backslashreplace"))

    def write(self, text: bytes) -> None:
        """Write what a program says, as far as there is room."""
        with suppress(OSError):
            size = self.path.stat().st_size
            if size < LOG_SIZE:
                self._append(text)
                if size + len(text) >= LOG_SIZE:
                    self._append(b"... the rest of what it says is left out\n")

    def _append(self, text: bytes) -> None:
        try:
            with self._lock, self.path.open("ab", buffering=0) as stream:
                stream.write(text)
        except OSError as trouble:
            log.warning("%s: %s", self.path, trouble.strerror)
