"""Real processes on one database: nothing is claimed twice, nothing is lost, nobody starves, whoever is killed when.

What is checked is the history, and beside it what each worker wrote down for itself.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from conftest import NOW
from racing import SPAWN, SharedClock, server_at, start

from pstamp_core.machines import JOB, RequestState
from pstamp_core.machines.job import OPEN
from pstamp_core.store import make_jobs, moment, pstampHistory, pstampJob, pstampRequest
from pstamp_core.store.history import chain_problem, rows_with_history
from pstamp_core.tasks.retry import reap, revert
from pstamp_core.tasks.server import Server

JOBS, IMAGES = 160, 40
PATIENCE = 120.0


@pytest.fixture
def clock() -> SharedClock:
    return SharedClock(NOW)


@pytest.fixture
def server(tmp_path: Path, address: str, clock: SharedClock) -> Iterator[Server]:
    """A server whose database has jobs; its tables are bound."""
    server = server_at(tmp_path, address, clock)
    with server.store.reading():
        at = moment(NOW)
        request = pstampRequest.create(state=RequestState.RUN, name="r", uri="x", registered=at, timestamp=at)
        jobs = [{"image": f"{number % IMAGES}"} for number in range(JOBS)]
        server.store.work(lambda: make_jobs(request, jobs, now=NOW, who="test"))
        yield server
    server.store.db.close()


def wait(workers: list[BaseProcess]) -> None:
    """Wait for the end of all workers, which must be a good one."""
    until = time.monotonic() + PATIENCE
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))
    assert {worker.name: worker.exitcode for worker in workers} == dict.fromkeys((w.name for w in workers), 0)


def check_races(server: Server) -> Counter[str]:
    """Check that each job was finished once, by the holder of its last lease; return how many each worker finished."""
    for row, lines in rows_with_history(server.store.db, pstampJob):
        assert chain_problem(JOB, row, lines) is None
        assert (row["state"], row["fault"], lines[-1].event) == ("stop", 0, "finish")
        outcomes = Counter((line.event, line.attempt) for line in lines)
        for attempt in range(1, row["attempt"] + 1):
            last = attempt == row["attempt"]
            assert (outcomes["claim", attempt], outcomes["finish", attempt], outcomes["lost", attempt]) == (
                1, last, not last,
            )  # fmt: skip
    written = list(events("claim", "finish"))
    claimed = {(job, attempt): who for event, job, attempt, who in written if event == "claim"}
    finished = {(job, attempt): who for event, job, attempt, who in written if event == "finish"}
    assert finished.items() <= claimed.items()
    assert len(finished) == JOBS
    told = [
        ((int(job), int(attempt)), path.name)
        for path in server.settings.home.glob("w*")
        for job, attempt in (line.split() for line in path.read_text().splitlines())
    ]
    assert len(told) == len(dict(told))
    assert dict(told).items() <= finished.items()
    return Counter(finished.values())


def events(*names: str) -> Iterator[tuple[str, int, int, str]]:
    columns: Any = (pstampHistory.event, pstampHistory.row_id, pstampHistory.attempt, pstampHistory.who)
    yield from pstampHistory.select(*columns).where(pstampHistory.event.in_(names)).tuples()


@pytest.mark.parametrize("count", [2, 4, 8])
def test_no_double_claim_none_lost_nobody_starves(
    server: Server, address: str, clock: SharedClock, tmp_path: Path, count: int
) -> None:
    ready = SPAWN.Barrier(count)
    wait([start(tmp_path, address, clock, f"w{number}", 3, ready=ready) for number in range(count)])
    finished = check_races(server)
    assert {job.attempt for job in pstampJob.select()} == {1}
    assert len(finished) == count
    assert min(finished.values()) >= JOBS / count / 20


def test_workers_are_killed_at_any_moment(server: Server, address: str, clock: SharedClock, tmp_path: Path) -> None:
    kills, names = 8, iter(f"w{number}" for number in range(99))
    workers = {name: start(tmp_path, address, clock, name, 5, pause=0.03) for name in (next(names) for _ in range(4))}
    ended: list[BaseProcess] = []
    until = time.monotonic() + PATIENCE
    while kills and time.monotonic() < until and pstampJob.select().where(pstampJob.state.in_(OPEN)).exists():
        held = pstampJob.select(pstampJob.lease_owner).where(pstampJob.lease_owner != "").tuples()
        owners = [name for (name,) in held if name in workers]
        if not owners or pstampJob.select().where(pstampJob.state == "stop").count() < (9 - kills) * JOBS // 12:
            time.sleep(0.001)
            continue
        victim = workers.pop(random.choice(owners))
        victim.kill()
        victim.join()
        ended.append(victim)
        kills -= 1
        clock.forward(61)  # who lives, but was as slow as that, has lost its lease as well
        reap(server)
        revert(server)
        name = next(names)
        workers[name] = start(tmp_path, address, clock, name, 5, pause=0.03)
    assert kills == 0
    wait(list(workers.values()))
    assert {worker.exitcode for worker in ended} <= {-9, 0}
    check_races(server)
    assert len(list(events("lost"))) > 0
