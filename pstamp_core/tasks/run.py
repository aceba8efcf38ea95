"""Driving all tasks on one machine until nothing can move."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from copy import copy
from dataclasses import replace
from pathlib import Path

from pstamp_core.settings import load_settings
from pstamp_core.store import jobs_to_run
from pstamp_core.tasks.jobs import run_jobs
from pstamp_core.tasks.server import Progress, Server
from pstamp_core.tasks.table import JOBS, TASKS

WORTH_A_POOL = 100
"""Jobs from which on starting further processes (about a second) pays."""


def run(server: Server, *, workers: int = 0, progress: Progress | None = None) -> None:
    """Run every task until nothing can move; what waits for a later time, or for others to make an image, is left.

    Chores are left out: nobody polls data stores, or deletes old results, who only wants his stamps.

    Parameters
    ----------
    server : Server
        The server.
    workers : int
        Processes that run jobs; 0 takes one for each core when there are many jobs, 1 stays in this process.
    progress : Progress, optional
        Called as things get done.
    """
    # What a dependent waits for may have been made since the last round, so that it is looked at in each.
    server = copy(server)
    server.settings = replace(server.settings, check_seconds=0.0)
    while sum(
        _run_all_jobs(server, workers, progress) if task is JOBS else task.work(server, task.limit, progress)
        for task in TASKS
        if not task.chore
    ):
        pass


def _run_all_jobs(server: Server, workers: int, progress: Progress | None) -> int:
    total = server.store.work(lambda: jobs_to_run(server.store.now()).count())
    if not total:
        return 0
    workers = workers or (os.cpu_count() or 1 if total >= WORTH_A_POOL else 1)
    if workers == 1:
        done = 0
        while claimed := run_jobs(server, server.settings.claim_limit):
            done += claimed
            if progress:
                progress("run jobs", done, max(done, total))
        return done
    spawn = multiprocessing.get_context("spawn")  # a fork would share our database connection
    try:
        with ProcessPoolExecutor(workers, mp_context=spawn) as executor:
            return _fan_out(executor, server, workers, total, progress)
    except BrokenProcessPool:
        return 1  # a worker was killed: its leases will lapse; look at the queue again


def _fan_out(executor: Executor, server: Server, workers: int, total: int, progress: Progress | None) -> int:
    """Let `workers` processes claim jobs, one image at a time each, until each of them finds none."""
    settings = server.settings
    done = 0
    running = [executor.submit(work_jobs, settings.home, settings.database) for _ in range(workers)]
    while running:
        future = running.pop(0)
        if claimed := future.result():
            done += claimed
            running.append(executor.submit(work_jobs, settings.home, settings.database))
            if progress:
                progress("run jobs", done, max(done, total))
    return done


_workers: dict[tuple[Path, str], Server] = {}


def work_jobs(home: Path, database: str) -> int:
    """Run the jobs of one image in a worker process; return how many were claimed."""
    key = home, database
    if key not in _workers:
        _workers[key] = Server(load_settings(home, database))
    server = _workers[key]
    return run_jobs(server, server.settings.claim_limit)
