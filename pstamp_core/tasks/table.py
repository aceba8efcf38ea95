"""The table of tasks: `pstamp run`, `pstamp serve` and the pantasks script of `pstamp pantasks` are driven by it.

Names, time-outs and numbers at once are those of IPP's `pstamp.pro` where nothing speaks against them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peewee import ModelSelect

from pstamp_core.faults import UserError
from pstamp_core.settings import Settings
from pstamp_core.store import (
    dependents_to_check,
    jobs_to_run,
    requests_to_clean,
    requests_to_finish,
    requests_to_parse,
)
from pstamp_core.tasks.clean import clean_requests, queue_cleanup
from pstamp_core.tasks.dependents import check_dependents
from pstamp_core.tasks.finish import finish_requests
from pstamp_core.tasks.jobs import run_jobs
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.queue_requests import queue_requests
from pstamp_core.tasks.retry import give_up, reap, revert
from pstamp_core.tasks.server import Progress, Server
from pstamp_core.tasks.update import programs, update_components
from pstamp_core.tasks.update_cleanup import tidy

log = logging.getLogger("pstamp")


@dataclass(frozen=True)
class Queue:
    """What waits for a task.

    Attributes
    ----------
    rows : callable
        Gives the rows that can be claimed now, in order.
    mode : str
        The mode of `pstamptool` that lists the same rows.
    key : str
        The column with their number; with two dashes it is the option by which the task's command takes one row.
    limit : int
        Rows that pantasks asks for at once.
    period, timeout : float
        Seconds between two looks of pantasks, and how long one may take.
    """

    rows: Callable[[int], ModelSelect[Any]]
    mode: str
    key: str
    limit: int
    period: float = 5.0
    timeout: float = 300.0


@dataclass(frozen=True)
class Task:
    """One task of the server.

    Attributes
    ----------
    name : str
        IPP's; a task with a queue is ``*.run``, its load task in pantasks ``*.load``.
    group : str
        What switches it: pantasks' macros ``pstamp.<group>.on`` and ``.off``.
    work : callable
        The library function: takes up to `limit` rows, and returns how many things moved.
    command : tuple of str
        The program and its arguments; ``{limit}`` stands for `limit`.
    period : float
        Seconds between two starts.
    timeout : float
        Seconds after which the command is killed.
    at_once : int
        How many may run at the same time; 0 is as many as the server has workers.
    limit : int
        Rows taken at once.
    queue : Queue, optional
        What waits for it; nothing is started while nothing waits.
    inside : bool
        `pstamp serve` does it in its own process: it takes milliseconds, since it changes rows alone.
    chore : bool
        The calendar asks for it, not work that waits: `pstamp run` leaves it to servers that run for ever.
    wanted : callable
        Whether `pstamp serve` has anything to start for it, with such settings.
    """

    name: str
    group: str
    work: Callable[[Server, int, Progress | None], int]
    command: tuple[str, ...]
    period: float
    timeout: float
    at_once: int = 1
    limit: int = 100
    queue: Queue | None = None
    inside: bool = False
    chore: bool = False
    wanted: Callable[[Settings], bool] = lambda _: True

    def arguments(self) -> list[str]:
        """Return the command line that takes what waits."""
        return [word.format(limit=self.limit) for word in self.command]


JOBS = Task(
    "pstamp.job.run", "job", run_jobs, ("pstamp_job_run", "--limit", "{limit}"),
    period=0.5, timeout=1200, at_once=0,
    queue=Queue(jobs_to_run, "pendingjob", "job_id", limit=32, timeout=30),
)  # fmt: skip
"""The task that has the pixels to move, and of which there are many at once."""


def _find(server: Server, limit: int, _progress: Progress | None) -> int:
    polls = queue_requests(server, limit=limit)
    for poll in polls:
        for trouble in poll.troubles:
            log.warning("data store %s: %s", poll.ds_id, trouble)
    return sum(len(poll.requests) for poll in polls)


TASKS = (
    Task(
        "pstamp.request.find", "find", _find, ("pstamp_queue_requests", "--limit", "{limit}"),
        period=10, timeout=120, limit=5, chore=True,
    ),
    Task(
        "pstamp.reap", "revert", lambda server, _limit, _progress: reap(server), ("pstamp", "task", "pstamp.reap"),
        period=30, timeout=300, inside=True,
    ),
    Task(
        "pstamp.revert", "revert", lambda server, _limit, _progress: revert(server),
        ("pstamp", "task", "pstamp.revert"), period=5, timeout=300, inside=True,
    ),
    Task(
        "pstamp.request.run", "parse", parse_requests, ("pstamp_parser_run", "--limit", "{limit}"),
        period=2.5, timeout=300, at_once=0,
        queue=Queue(requests_to_parse, "pendingreq", "req_id", limit=20),
    ),
    Task(
        "pstamp.dependent.run", "dependent", lambda server, limit, _progress: check_dependents(server, limit),
        ("pstamp_checkdependent", "--limit", "{limit}"), period=0.5, timeout=300, limit=5000,
        queue=Queue(dependents_to_check, "pendingdependent", "dep_id", limit=500, period=15),
    ),
    Task(
        "pstamp.update", "update", update_components, ("pstamp_update_run", "--limit", "{limit}"),
        period=10, timeout=4 * 3600, wanted=lambda settings: bool(programs(settings)),
    ),
    JOBS,
    Task(
        "request.finish.run", "finish", lambda server, limit, _progress: finish_requests(server, limit),
        ("request_finish", "--limit", "{limit}"), period=2.5, timeout=2400, at_once=4,
        queue=Queue(requests_to_finish, "completedreq", "req_id", limit=8),
    ),
    Task(
        "pstamp.cleanup.run", "cleanup", lambda server, limit, _progress: clean_requests(server, limit),
        ("pstamp_cleanup", "--limit", "{limit}"), period=2.5, timeout=300, at_once=2,
        queue=Queue(requests_to_clean, "pendingcleanup", "req_id", limit=32),
    ),
    Task(
        "pstamp.stopfaulted", "revert", lambda server, _limit, _progress: give_up(server),
        ("pstamp", "task", "pstamp.stopfaulted"), period=30, timeout=300, inside=True,
    ),
    Task(
        "pstamp.queue.cleanup", "cleanup", lambda server, _limit, _progress: queue_cleanup(server),
        ("pstamp_queue_cleanup",), period=600, timeout=120, inside=True, chore=True,
    ),
    Task(
        "pstamp.queue.update.cleanup", "cleanup", lambda server, limit, _progress: tidy(server, limit),
        ("pstamp_queue_update_cleanup", "--limit", "{limit}"), period=3600, timeout=1200, limit=1000, chore=True,
    ),
)  # fmt: skip
"""All tasks, in the order in which a request meets them."""


def do_task(server: Server, name: str) -> int:
    """Do the task `name` once, in this process; return how many things moved.

    Raises
    ------
    UserError
        There is no such task; the message names those that there are.
    """
    for task in TASKS:
        if task.name == name:
            return task.work(server, task.limit, None)
    raise UserError(f"{name!r}: expected one of {', '.join(task.name for task in TASKS)}")
