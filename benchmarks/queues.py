"""The queue modes of `pstamptool` on 1,000,000 jobs, 200,000 of them open, of 1,000 requests under 20 labels.

The peer is ``python -c "import typer, peewee, pymysql"``: what any such command takes before it does anything. SQLite
has no statistics of its rows, as in use; MariaDB is a private server of its own, or that of PSTAMP_TEST_MYSQL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from peewee import MySQLDatabase

from benchmarks import medians, table
from pstamp_core.store import Label, Store, moment
from pstamp_core.store.rules import trigger_name
from tests import mariadb

REQUESTS, LABELS = 1000, 20
JOBS, OPEN, WAITING = 1_000_000, 200_000, 50_000
DEPENDENTS, IMAGES = 5000, 1000
OTHERS = {"new": 20, "goto_cleaned": 20, "run": 20}
"""Further requests, without jobs: to be parsed, to be cleaned, to be finished."""
MODES = ("pendingreq", "pendingjob", "pendingdependent", "completedreq", "pendingcleanup")
LIMIT = 32
PEER = [sys.executable, "-c", "import typer, peewee, pymysql"]
PROGRAM = str(Path(sys.executable).parent / "pstamptool")


def fill(store: Store) -> None:
    """Write the rows; jobs of a request follow each other, as parsing writes them."""
    db: Any = store.db
    mysql = isinstance(db, MySQLDatabase)
    for name in ("pstampRequest", "pstampJob", "pstampDependent"):
        db.execute_sql(f"DROP TRIGGER {trigger_name(name, 'insert')}")  # they refuse rows that were not made new
    Label.insert_many([{"label": f"label{n}", "priority": 100 * n, "active": n > 0} for n in range(LABELS)]).execute()
    label = f"CONCAT('label', n % {LABELS})" if mysql else f"'label' || (n % {LABELS})"
    image = f"CONCAT('image', n % {IMAGES})" if mysql else f"'image' || (n % {IMAGES})"
    at = f"'{moment(store.now()):%Y-%m-%d %H:%M:%S}'"
    columns = "fault, fault_count, cause, attempt, lease_owner, lease_until, retry_at, changed_at"
    zeros = "0, 0, 0, 0, '', 0, 0, 0"
    for state, count in (("run", REQUESTS), *OTHERS.items()):
        insert(
            db, f"pstampRequest (state, label, uri, ds_id, proj_id, registered, timestamp, {columns})", count,
            f"'{state}', {label}, 'request.fits', 0, 1, {at}, {at}, {zeros}",
        )  # fmt: skip
    insert(
        db, f"pstampDependent (state, stage, stage_id, component, imagedb, need_magic, reason, {columns})", DEPENDENTS,
        f"'new', 'warp', n, 'skycell.1', 'gpc1', 0, '', {zeros}",
    )  # fmt: skip
    each, open_, waiting = JOBS // REQUESTS, OPEN // REQUESTS, WAITING // REQUESTS
    state = f"CASE WHEN n % {each} < {each - open_} THEN 'stop' ELSE 'run' END"
    dependent = f"1 + (n DIV {each} * {waiting} + n % {each}) % {DEPENDENTS}"
    insert(
        db,
        "pstampJob (req_id, rownum, state, jobType, exp_id, options, dep_id, parent_id, is_parent, image, params, "
        f"result, sentence, {columns})",
        JOBS,
        f"1 + n DIV {each}, '1', {state}, 'stamp', 0, 1, "
        f"CASE WHEN n % {each} < {each - waiting} THEN 0 ELSE {dependent} END, 0, 0, {image}, '', '', '', {zeros}",
    )
    if mysql:  # it does so by itself, some seconds later
        for name in ("pstampRequest", "pstampJob", "pstampDependent", "Label"):
            db.execute_sql(f"ANALYZE TABLE {name}")


def insert(db: Any, target: str, count: int, values: str) -> None:
    """Insert rows with values made of the numbers n from 0."""
    numbers = f"WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {count - 1})"
    if isinstance(db, MySQLDatabase):
        db.execute_sql(f"SET SESSION max_recursive_iterations = {count}")
        db.execute_sql(f"INSERT INTO {target} {numbers} SELECT {values} FROM s ORDER BY n".replace("%", "%%"))
    else:
        db.execute_sql(f"{numbers} INSERT INTO {target} SELECT {values} FROM s ORDER BY n".replace(" DIV ", " / "))


def measure(address: str) -> None:
    """Measure on one database, and print."""
    store = Store(address)
    store.create()
    with store.reading():
        fill(store)
        name = "MariaDB" if isinstance(store.db, MySQLDatabase) else "SQLite"
    store.db.close()
    environment = {**os.environ, "PSTAMP_DB": address}

    def run(words: list[str]) -> int:
        done = subprocess.run(words, env=environment, capture_output=True, check=True, text=True)
        return done.stdout.count("\n")

    modes = {f"-{mode}": [PROGRAM, f"-{mode}", "-limit", str(LIMIT), "-simple"] for mode in MODES}
    rows = {mode: run(words) for mode, words in modes.items()}
    assert all(rows.values()), rows
    times = medians({name: lambda words=words: run(words) for name, words in {"peer": PEER, **modes}.items()}, 15)
    table(
        f"pstamptool -limit {LIMIT} on {JOBS:,} jobs, {OPEN:,} open: {name}; peer {times['peer'] * 1e3:.0f} ms",
        ("mode", "rows", "time", "ratio"),
        [
            (mode, rows[mode], f"{times[mode] * 1e3:.0f} ms", f"{times[mode] / times['peer']:.2f}")
            for mode in modes
        ],
    )  # fmt: skip


def main() -> None:
    """Measure on both engines; without MariaDB's server program, on SQLite alone."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pstamp-bench-"))
        measure(str(Path(folder, "pstamp.db")))
        try:
            server = stack.enter_context(mariadb.server())
        except RuntimeError as error:
            print(error)
            return
        measure(stack.enter_context(mariadb.database(server)))


if __name__ == "__main__":
    main()
