"""Claims: jobs claimed and finished by 1, 2, 4, 8 processes, and a claim while rows pile up; on SQLite and MariaDB.

The peer is the bare compare-and-set loop: the same rows, the same history, the same server, through the driver alone,
without machines, labels, requests and images. MariaDB is a private server of its own, or that of PSTAMP_TEST_MYSQL.
Neither engine waits for a disk at each commit here: SQLite's WAL, and a server whose files are in memory.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import pymysql
from peewee import MySQLDatabase

from benchmarks import table
from pstamp_core.machines import Args, Event
from pstamp_core.store import Store, fire, make, make_jobs, moment, pstampJob, pstampRequest
from tests import mariadb

JOBS, IMAGES, TURNS = 200, 20, 3
PROCESSES = (1, 2, 4, 8)
PILES = (10_000, 100_000, 1_000_000)
CLAIMS = 30
SPAWN = multiprocessing.get_context("spawn")
LEASE = 600_000_000


def add_jobs(store: Store, count: int, images: int) -> pstampRequest:
    """Make a request that runs, with `count` jobs over some images."""

    def work() -> pstampRequest:
        now = store.now()
        args = Args(now=now, who="bench", owner="bench", lease=LEASE)
        made = make(pstampRequest, now=now, who="bench", uri="x", registered=moment(now), timestamp=moment(now))
        (claimed,) = fire([pstampRequest.get_by_id(made.req_id)], Event.CLAIM, args)
        (request,) = fire([claimed], Event.PARSE, args)
        jobs = [{"image": f"/data/images/image{n % images}.fits", "params": "p" * 1000} for n in range(count)]
        make_jobs(request, jobs, now=now, who="bench")
        return request

    return store.work(work)


def claim_and_finish(address: str, limit: int) -> None:
    """Claim up to `limit` jobs at a time and finish them, until there is none."""
    store = Store(address)
    with store.reading():
        while one_claim(store, limit):
            pass


def one_claim(store: Store, limit: int) -> int:
    """Claim up to `limit` jobs and finish them; return how many there were."""

    def args() -> Args:
        return Args(now=store.now(), who="bench", owner=f"bench.{os.getpid()}", lease=LEASE)

    jobs = store.work(lambda: store.claim_jobs(args(), limit))
    store.work(lambda: fire(jobs, Event.FINISH, args()))
    return len(jobs)


LOOK = (
    "SELECT job_id, attempt FROM pstampJob WHERE state = 'run' AND fault = 0 AND lease_owner = '' "
    "ORDER BY job_id LIMIT 8"
)
CLAIM = (
    "UPDATE pstampJob SET lease_owner = 'bare', lease_until = ?, attempt = ?, changed_at = ? "
    "WHERE job_id = ? AND state = 'run' AND fault = 0 AND attempt = ? AND lease_owner = ''"
)
FINISH = (
    "UPDATE pstampJob SET state = 'stop', lease_owner = '', lease_until = 0, changed_at = ? "
    "WHERE job_id = ? AND state = 'run' AND attempt = ? AND lease_owner = 'bare'"
)
HISTORY = (
    "INSERT INTO pstampHistory (machine, row_id, event, source, dest, fault, cause, attempt, who, at, note) "
    "VALUES ('job', ?, ?, 'run', ?, 0, 0, ?, 'bare', ?, '')"
)


def bare_loop(address: str, limit: int) -> None:
    """Do the same through the driver, a job at a time."""
    del limit
    parts = urlsplit(address)
    if parts.scheme != "mysql":
        connection: Any = sqlite3.connect(address, timeout=30, isolation_level=None)
        connection.execute("PRAGMA synchronous = normal")
        begin, sign = "BEGIN IMMEDIATE", "?"
    else:
        connection = pymysql.connect(
            host=parts.hostname, port=parts.port or 3306, user=parts.username or "", password=parts.password or "",
            database=parts.path.strip("/"), ssl_disabled=True, autocommit=True,
            init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        )  # fmt: skip
        begin, sign = "BEGIN", "%s"
    look, claim, finish, history = (sql.replace("?", sign) for sql in (LOOK, CLAIM, FINISH, HISTORY))
    cursor = connection.cursor()
    while True:
        cursor.execute(look)
        rows = cursor.fetchall()
        if not rows:
            return
        number, attempt = random.choice(rows)
        now = time.time_ns() // 1000
        cursor.execute(begin)
        cursor.execute(claim, (now + LEASE, attempt + 1, now, number, attempt))
        won = cursor.rowcount
        if won:
            cursor.execute(history, (number, "claim", "run", attempt + 1, now))
        cursor.execute("COMMIT")
        if won:
            cursor.execute(begin)
            cursor.execute(finish, (now, number, attempt + 1))
            cursor.execute(history, (number, "finish", "stop", attempt + 1, now))
            cursor.execute("COMMIT")


def _process(work: Callable[[str, int], None], address: str, limit: int, ready: Any, ends: Any, place: int) -> None:
    ready.wait()
    work(address, limit)
    ends[place] = time.monotonic()


def rate(store: Store, address: str, work: Callable[[str, int], None], limit: int, processes: int) -> float:
    """Return jobs per second of some processes together, from the moment when all have started."""
    request = add_jobs(store, JOBS, IMAGES)
    ready, ends = SPAWN.Barrier(processes + 1), SPAWN.Array("d", processes)
    workers = [
        SPAWN.Process(target=_process, args=(work, address, limit, ready, ends, place)) for place in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    start = time.monotonic()
    for worker in workers:
        worker.join()
    assert not any(worker.exitcode for worker in workers)
    done = (pstampJob.req_id == request.req_id) & (pstampJob.state == "stop") & (pstampJob.attempt == 1)
    assert pstampJob.select().where(done).count() == JOBS
    return JOBS / (max(ends) - start)


def throughput(store: Store, address: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of processes; the ways take turns, so that a slow minute hits all."""
    ways = {"bare": (bare_loop, 1), "one": (claim_and_finish, 1), "ten": (claim_and_finish, 10)}
    for processes in PROCESSES:
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, (work, limit) in ways.items():
                rates[name].append(rate(store, address, work, limit, processes))
        bare, one, ten = (median(rates[name]) for name in ways)
        yield str(processes), f"{bare:.0f}", f"{one:.0f}", f"{one / bare:.2f}", f"{ten:.0f}", f"{ten / bare:.2f}"


def pile_up(store: Store, state: str, fault: int, count: int) -> None:
    """Bring the rows of jobs in `state` up to `count`, each with a line of history."""
    columns = ", ".join(name for name in pstampJob._meta.columns if name not in ("job_id", "state", "fault"))
    db: Any = store.db
    where = f"state = '{state}' AND fault = {fault}"
    (last,) = db.execute_sql("SELECT MAX(job_id) FROM pstampJob").fetchone()
    while missing := count - db.execute_sql(f"SELECT COUNT(*) FROM pstampJob WHERE {where}").fetchone()[0]:
        db.execute_sql(
            f"INSERT INTO pstampJob ({columns}, state, fault) SELECT {columns}, '{state}', {fault} FROM pstampJob "
            f"ORDER BY job_id LIMIT {min(missing, 100_000)}"
        )
    db.execute_sql(
        "INSERT INTO pstampHistory (machine, row_id, event, source, dest, fault, cause, attempt, who, at, note) "
        "SELECT 'job', job_id, 'make', '', state, fault, 0, 0, 'bench', changed_at, '' FROM pstampJob "
        f"WHERE job_id > {last}"
    )


def claim_time(store: Store) -> float:
    """Return the seconds of one claim of ten jobs with their finish: the median of some."""
    add_jobs(store, 10 * CLAIMS, CLAIMS)
    times = []
    for _ in range(CLAIMS):
        start = time.perf_counter()
        assert one_claim(store, 10) == 10
        times.append(time.perf_counter() - start)
    return median(times)


def piles(store: Store) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of piles."""
    claim_time(store)
    first = claim_time(store)
    yield "-", "-", f"{first * 1e3:.2f} ms", "1.00"
    # What is stopped by an answer may be inserted as such; what is finished may not.
    for what, state, fault in (("finished", "stop", 25), ("to run", "run", 0)):
        for count in PILES if what == "finished" else PILES[:2]:
            store.work(lambda pile=(state, fault, count): pile_up(store, *pile))
            claim_time(store)  # what was written is on its way to the disk
            taken = claim_time(store)
            yield what, f"{count:,}", f"{taken * 1e3:.2f} ms", f"{taken / first:.2f}"


def measure(address: str) -> None:
    """Measure on one database, and print."""
    store = Store(address)
    store.create()
    name = "MariaDB" if isinstance(store.db, MySQLDatabase) else "SQLite"
    with store.reading():
        table(
            f"{JOBS} jobs claimed and finished, {name}",
            ("processes", "bare loop/s", "one a claim/s", "ratio", "ten a claim/s", "ratio"),
            list(throughput(store, address)),
        )
        table(
            f"Ten jobs claimed and finished while rows pile up, {name}",
            ("rows", "number", "time", "ratio"),
            list(piles(store)),
        )
    store.db.close()


def main() -> None:
    """Measure on both engines; without MariaDB's server program, on SQLite alone."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pstamp-bench-"))
        measure(str(Path(folder, "pstamp.db")))
        try:
            server = stack.enter_context(mariadb.server("1G"))
        except RuntimeError as error:
            print(error)
            return
        measure(stack.enter_context(mariadb.database(server)))


if __name__ == "__main__":
    main()
