"""The scheduler of `pstamp serve`: starts each task's command when something waits for it, for ever.

Commands are processes of their own, each in a process group of its own. One that takes too long is killed with all that
it started. However one ends, what it still had claimed gets an outcome at once, so that nothing waits for a lease to
run out. Nothing is known here that the database does not know: any number of schedulers, on any number of hosts, may
serve one database, and each may be killed at any time.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from math import inf
from queue import Empty, SimpleQueue
from typing import Any

from pstamp_core.faults import Fault, LeaseLost, PstampError, RetryableError
from pstamp_core.machines import Event
from pstamp_core.store import MACHINES, Worked, fire
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.table import TASKS, Task

log = logging.getLogger("pstamp.serve")

WORKER = "PSTAMP_WORKER"
"""The environment variable that tells a command the end of the name under which it claims."""

TICK = 0.1
"""Seconds between two looks at the commands that run."""
LOOK = 0.5
"""Seconds between two looks at the queues; more where a look takes long."""
KILL_AFTER = 5.0
"""Seconds between SIGTERM and SIGKILL."""
LAST_WORDS = 3 * KILL_AFTER
"""Seconds that a scheduler that stops waits for killed commands to die, and for the database to take down outcomes."""
LINE = 10_000
"""Bytes of a line on standard error that are read at once."""


@dataclass
class _Child:
    """A command that runs, or has ended and is not yet accounted for."""

    task: Task
    process: subprocess.Popen[bytes]
    token: str
    started: float
    deadline: float
    why: str = ""
    """Why it was killed, if it was."""
    stopped: bool = False
    """It was killed because the server stops, which is no fault of what it worked on."""
    code: int | None = None
    settled: threading.Event = field(default_factory=threading.Event)
    reader: threading.Thread | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def end(self) -> str:
        """Return how it ended, in words."""
        if self.why:
            return self.why
        if self.code is None or self.code >= 0:
            return f"the command ended in {self.code}"
        return f"the command was killed by {signal.Signals(-self.code).name}"


class Scheduler:
    """Serves one database until it is told to stop.

    Parameters
    ----------
    server : Server
        The server; its database is used by one thread of the scheduler alone.
    environment : mapping of str to str
        The environment of the commands: it must lead them to the same server, and to their programs.
    workers : int
        How many commands of a task with many at once may run at the same time.
    grace : float
        Seconds that commands get to end by themselves when the scheduler stops.
    alarm : float
        Seconds after which work that waits while no command ends well is worth a warning.
    tasks : sequence of Task, optional
        Instead of the whole table.
    """

    def __init__(
        self,
        server: Server,
        environment: Mapping[str, str],
        *,
        workers: int,
        grace: float = 60.0,
        alarm: float = 600.0,
        tasks: Sequence[Task] = TASKS,
    ) -> None:
        self._environment = dict(environment)
        self._workers = workers
        self._grace, self._alarm = grace, alarm
        tasks = [task for task in tasks if task.wanted(server.settings)]
        self._outside = [task for task in tasks if not task.inside]
        self._clerk = _Clerk(server, tasks)
        self._children: list[_Child] = []
        self._last_start = {task.name: -inf for task in tasks}
        self._quiet_since: dict[str, float] = {}
        self._stop_by: float | None = None

    def stop(self) -> None:
        """Start nothing new, and let the commands end; asked a second time, kill them. May be called by a signal."""
        now = time.monotonic()
        self._stop_by = now + self._grace if self._stop_by is None else now

    def run(self) -> None:
        """Serve until `stop` is called and every command has ended."""
        self._clerk.start()
        log.info("serves with %d workers", self._workers)
        told = False
        while True:
            now = time.monotonic()
            for child in list(self._children):
                self._watch(child, now)
            if self._stop_by is None:
                self._start_due(now)
                self._warn_of_silence(now)
            elif not told:
                log.info("stops: %d running, killed after %g s, or when told again", len(self._children), self._grace)
                told = True
            elif not self._children or now > self._stop_by + LAST_WORDS:
                break
            time.sleep(TICK)
        for child in self._children:
            log.warning("%s: left behind; what it has claimed is free when its lease has run out", child.task.name)
        log.info("stopped")

    # -- starting

    def _start_due(self, now: float) -> None:
        for task in self._outside:
            running = sum(child.task is task for child in self._children)
            free = (task.at_once or self._workers) - running
            if free > 0 and now >= self._last_start[task.name] + task.period and self._clerk.wants(task):
                # Twice as many as run already: the queue shows soon whether they were too many.
                for _ in range(min(free, max(1, running)) if task.queue else 1):
                    self._start(task, now)

    def _start(self, task: Task, now: float) -> None:
        self._last_start[task.name] = now
        token = secrets.token_hex(4)
        command = task.arguments()
        try:
            process = subprocess.Popen(  # noqa: S603 (from the table of tasks)
                command, env={**self._environment, WORKER: token}, start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            log.error("%s: %s can't be started: %s", task.name, command[0], error.strerror)
            return
        log.debug("%s: %s (process %d)", task.name, " ".join(command), process.pid)
        child = _Child(task, process, token, now, now + task.timeout)
        child.reader = threading.Thread(target=_repeat_lines, args=(child,), daemon=True)
        child.reader.start()
        self._children.append(child)

    # -- watching

    def _watch(self, child: _Child, now: float) -> None:
        if child.code is not None:
            if child.settled.is_set():
                self._children.remove(child)
            return
        child.code = child.process.poll()
        if child.code is None:
            if now >= child.deadline:
                self._kill(child, now, f"timed out after {child.task.timeout:g} s, killed")
            elif self._stop_by is not None and now >= self._stop_by and not child.why:
                child.stopped = True
                self._kill(child, now, "killed, since the server stops")
            return
        child.signal(signal.SIGKILL)  # those that it started and left behind
        if child.reader:
            child.reader.join(1.0)
        took = now - child.started
        if child.why or child.code:
            log.warning("%s: %s (after %.1f s)", child.task.name, child.end(), took)
        else:
            level = logging.INFO if child.task.queue else logging.DEBUG  # a chore that is done is no news
            log.log(level, "%s: done in %.1f s", child.task.name, took)
            self._quiet_since.pop(child.task.name, None)
        self._clerk.settle(child)

    def _kill(self, child: _Child, now: float, why: str) -> None:
        child.signal(signal.SIGKILL if child.why else signal.SIGTERM)
        child.why = child.why or why
        child.deadline = now + KILL_AFTER

    def _warn_of_silence(self, now: float) -> None:
        for task in self._outside:
            if not task.queue or not self._clerk.wants(task):
                self._quiet_since.pop(task.name, None)
            elif now - self._quiet_since.setdefault(task.name, now) >= self._alarm:
                self._quiet_since[task.name] = now
                running = sum(child.task is task and child.code is None for child in self._children)
                log.warning(
                    "%s: work waits, but none was done well for %g minutes (%d running now); see: pstamp status",
                    task.name, self._alarm / 60, running,
                )  # fmt: skip


def _repeat_lines(child: _Child) -> None:
    """Repeat what a command says on standard error, under the name of its task."""
    stream = child.process.stderr
    if stream:
        for line in iter(lambda: stream.readline(LINE), b""):
            log.warning("%s: %s", child.task.name, line.decode("utf-8", "replace").rstrip())
        stream.close()


class _Clerk(threading.Thread):
    """The one thread that uses the database: if it hangs there, commands are still watched, and signals obeyed."""

    def __init__(self, server: Server, tasks: Sequence[Task]) -> None:
        super().__init__(name="clerk", daemon=True)
        self._server = server
        self._inside = {task: 0.0 for task in tasks if task.inside}
        self._queued = [task for task in tasks if task.queue]
        self._dead: SimpleQueue[_Child] = SimpleQueue()
        self._waiting: frozenset[str] = frozenset()
        self._troubles: dict[str, str] = {}

    def wants(self, task: Task) -> bool:
        """Tell whether something waited for `task` at the last look; a task without a queue is always wanted."""
        return not task.queue or task.name in self._waiting

    def settle(self, child: _Child) -> None:
        """Have an outcome recorded for all that an ended command still had claimed."""
        self._dead.put(child)

    def run(self) -> None:
        """Record outcomes, do the tasks that change rows alone, look at the queues; again and again."""
        child: _Child | None = None
        next_look = 0.0
        while True:
            if child and self._try(child.task.name, self._settle, child):
                child.settled.set()
                child = None
            now = time.monotonic()
            if now >= next_look:
                for task, due in self._inside.items():
                    if now >= due and self._try(task.name, self._do, task):
                        self._inside[task] = now + task.period
                self._try("looking at the queues", self._look_at_queues)
                next_look = time.monotonic() + max(LOOK, 10 * (time.monotonic() - now))
            if child is None:
                with suppress(Empty):
                    child = self._dead.get(timeout=max(0.0, next_look - time.monotonic()))
            else:
                time.sleep(LOOK)

    def _try(self, what: str, action: Callable[..., None], *args: Any) -> bool:
        """Do `action`; what hinders it is told once, and so is its end."""
        try:
            action(*args)
        except Exception as error:  # whatever it is, the clerk has to go on
            if self._troubles.get(what) != str(error):
                log.error("%s: %s", what, error, exc_info=None if isinstance(error, PstampError) else error)
            self._troubles[what] = str(error)
            return False
        if self._troubles.pop(what, None) is not None:
            log.warning("%s: works again", what)
        return True

    def _do(self, task: Task) -> None:
        moved = task.work(self._server, task.limit, None)
        if moved:
            log.info("%s: %d", task.name, moved)

    def _look_at_queues(self) -> None:
        with self._server.store.reading():
            now = self._server.store.now()
            self._waiting = frozenset(
                task.name for task in self._queued if task.queue and task.queue.rows(now).order_by().exists()
            )

    def _settle(self, child: _Child) -> None:
        number = settle(self._server, child.token, child.end(), stopped=child.stopped)
        if number:
            log.warning("%s: %d %s", child.task.name, number, "given back" if child.stopped else "faulted (6)")


def settle(server: Server, token: str, why: str, *, stopped: bool = False) -> int:
    """Record an outcome for all that the dead worker whose name ends in `token` had claimed; return for how many rows.

    It is fault 6, which counts as an attempt, or a mere release if the worker was `stopped` by no fault of its work.

    Races tolerated: whatever the worker's last commit still changes, or a reaper, goes before.

    Raises
    ------
    RetryableError
        The database does not answer.
    """
    dead = copy(server)  # the outcome is recorded in the name of the worker, whose leases they are
    count = 0
    for table, machine in MACHINES.items():
        able = table.state.in_(machine.sources(Event.HEARTBEAT)) & (table.fault == 0) & (table.lease_owner != "")
        with server.store.reading():
            rows = list(table.select().where(able & table.lease_owner.endswith(f".{token}")))
        for row in rows:
            dead.worker = row.lease_owner
            _end_attempt(dead, row, why, stopped)
        count += len(rows)
    return count


def _end_attempt(dead: Server, row: Worked, why: str, stopped: bool) -> None:
    if not stopped:
        dead.record(row, RetryableError(why, Fault.PS_EXIT_TIMEOUT_ERROR))
        return
    with suppress(LeaseLost):
        dead.store.work(lambda: fire([row], Event.RELEASE, dead.args(), note=why))
