"""Workers as processes of their own, that claim and finish jobs of one database as fast as they can."""

from __future__ import annotations

import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pstamp_core.faults import LeaseLost
from pstamp_core.machines import Event
from pstamp_core.machines.job import OPEN
from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.settings import Settings
from pstamp_core.store import Store, fire, pstampJob
from pstamp_core.tasks.server import Server

SPAWN = multiprocessing.get_context("spawn")


class SharedClock:
    """A clock that all processes read and the test moves; without a lock, with which a worker could be killed."""

    def __init__(self, now: int) -> None:
        self._now = SPAWN.RawValue("q", now)

    def __call__(self) -> int:
        return int(self._now.value)

    def forward(self, seconds: int) -> None:
        self._now.value += seconds * MICROSECONDS


def server_at(home: Path, address: str, clock: SharedClock) -> Server:
    """A server that retries at once, and for ever."""
    return Server(Settings(home, lease_seconds=60.0, retry_ceiling=10**6, retry_seconds=0.0), Store(address, clock))


def start(
    home: Path, address: str, clock: SharedClock, name: str, limit: int, pause: float = 0.0, ready: Any = None
) -> BaseProcess:
    """Start a worker that takes up to `pause` seconds for a job; it begins when all that `ready` expects are there."""
    process = SPAWN.Process(target=work, args=(home, address, clock, name, limit, pause, ready), name=name, daemon=True)
    process.start()
    return process


def work(home: Path, address: str, clock: SharedClock, name: str, limit: int, pause: float, ready: Any) -> None:
    """Claim up to `limit` jobs and finish them, until no job is open; each that is finished is a line in a file."""
    server = server_at(home, address, clock)
    server.worker = name
    with server.store.reading(), (home / name).open("a", buffering=1) as told:
        if ready:
            ready.wait()
        while pstampJob.select().where(pstampJob.state.in_(OPEN)).exists():
            jobs = server.store.work(lambda: server.store.claim_jobs(server.args(), random.randint(1, limit)))
            if not jobs:
                time.sleep(0.001)  # others are at work on what is left
            time.sleep(random.uniform(0, pause))
            for done in finish(server, jobs):
                told.write(f"{done.job_id} {done.attempt}\n")


def finish(server: Server, jobs: list[pstampJob]) -> list[pstampJob]:
    """Finish `jobs` together, or those of them that are still ours one by one."""
    try:
        return server.store.work(lambda: fire(jobs, Event.FINISH, server.args()))
    except LeaseLost:
        return [done for job in jobs for done in finish(server, [job])] if len(jobs) > 1 else []
