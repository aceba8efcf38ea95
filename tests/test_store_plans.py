"""How the engines find what is in a queue: no mode of `pstamptool` and no claim looks at jobs or history as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Rows
from peewee import MySQLDatabase
from test_store_queues import effort

from pstamp_core.machines import Args, JobState, RequestState
from pstamp_core.store import Store, dependents_to_check, pstampHistory, pstampJob
from pstamp_core.tasks.tool import lists

Mode = Callable[[Store], Any]

MODES: dict[str, Mode] = {
    "pendingreq": lambda store: lists.pendingreq(store, limit=2),
    "pendingjob": lambda store: lists.pendingjob(store, limit=2),
    "all of pendingjob": lambda store: lists.pendingjob(store),
    "pendingjob of a label": lambda store: lists.pendingjob(store, label=["web"], limit=2),
    "pendingdependent": lambda store: lists.pendingdependent(store, limit=2),
    "all of pendingdependent": lambda store: lists.pendingdependent(store),
    "completedreq": lambda store: lists.completedreq(store, limit=2),
    "pendingcleanup": lambda store: lists.pendingcleanup(store, limit=2),
    "jobs of a request": lambda store: lists.listjob(store, req_id=3),
    "one job": lambda store: lists.listjob(store, job_id=3),
    "jobs that wait": lambda store: lists.listjob(store, dep_id=3),
    "a claim of jobs": lambda store: store.work(
        lambda: store.claim_jobs(Args(now=store.now(), who="w1", owner="w1", lease=1), 2)
    ),
    "a claim of dependents": lambda store: list(dependents_to_check(store.now()).limit(2)),
}


@pytest.fixture
def filled(store: Store, rows: Rows) -> Store:
    """Thirty requests of a hundred jobs, nine tenths of which are over; some wait, some are parents."""
    rows.label("web", 5)
    history = []
    for number in range(30):
        request = rows.request(label="web")
        waits = rows.dependent().dep_id
        rows.request(RequestState.NEW)
        rows.request(RequestState.GOTO_CLEANED)
        pstampJob.insert_many([
            {
                "req_id": request.req_id, "image": f"{number}.{n}", "dep_id": waits if n % 3 == 0 else 0,
                "state": JobState.RUN if n >= 90 else JobState.STOP, "is_parent": n == 95, "parent_id": 1,
            }
            for n in range(100)
        ]).execute()  # fmt: skip
        history += [
            {"machine": "job", "row_id": n, "event": "make", "source": "", "dest": "run", "who": "w", "at": 1}
            for n in range(100)
        ]
    pstampHistory.insert_many(history).execute()
    if isinstance(store.db, MySQLDatabase):
        for table in ("pstampRequest", "pstampJob", "pstampDependent", "pstampHistory", "Label"):
            store.db.execute_sql(f"ANALYZE TABLE {table}").fetchall()
    return store


@contextmanager
def plans(store: Store) -> Iterator[list[tuple[str, str, str]]]:
    """Collect how each SELECT of the block is done: statement, table, and the way to its rows."""
    db: Any = store.db
    execute = db.execute_sql
    found: list[tuple[str, str, str]] = []

    def explained(sql: str, params: Any = None, *args: Any, **kwargs: Any) -> Any:
        if sql.startswith("SELECT"):
            found.extend(_plan(execute, sql, params, mysql=isinstance(db, MySQLDatabase)))
        return execute(sql, params, *args, **kwargs)

    db.execute_sql = explained
    try:
        yield found
    finally:
        del db.execute_sql


def _plan(execute: Any, sql: str, params: Any, *, mysql: bool) -> Iterator[tuple[str, str, str]]:
    aliases = dict(_aliases(sql))
    if mysql:
        for row in execute(f"EXPLAIN {sql}", params).fetchall():
            table, way = row[2], row[3]
            if table:
                yield sql, aliases.get(table, table), "scan" if way in ("ALL", "index") else "search"
        return
    for *_, text in execute(f"EXPLAIN QUERY PLAN {sql}", params).fetchall():
        way, _, rest = text.partition(" ")
        if way in ("SCAN", "SEARCH"):
            table = rest.split()[0]
            yield sql, aliases.get(table, table), "scan" if way == "SCAN" else "search"


def _aliases(sql: str) -> Iterator[tuple[str, str]]:
    words = sql.replace('"', "").replace("`", "").replace("(", " ").replace(")", " ").split()
    for place, word in enumerate(words):
        if word == "AS" and place and words[place - 1].startswith(("pstamp", "Label")):
            yield words[place + 1], words[place - 1]


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_looks_at_all_jobs(filled: Store, mode: str) -> None:
    with plans(filled) as found:
        MODES[mode](filled)
    tables = {table for _, table, _ in found}
    assert tables & {"pstampJob", "pstampRequest", "pstampDependent"}
    assert [
        (table, sql) for sql, table, way in found if way == "scan" and table in ("pstampJob", "pstampHistory")
    ] == []
    assert "pstampHistory" not in tables


@pytest.mark.parametrize("mode", ["pendingjob", "pendingdependent", "completedreq", "a claim of dependents"])
def test_the_queues_look_at_jobs(filled: Store, mode: str) -> None:
    """So that the test above says something of them."""
    with plans(filled) as found:
        MODES[mode](filled)
    assert "pstampJob" in {table for _, table, _ in found}


def test_a_look_at_all_jobs_is_noticed(filled: Store) -> None:
    with plans(filled) as found:
        list(pstampJob.select().where(pstampJob.rownum == "x"))
        list(pstampHistory.select().where(pstampHistory.event == "x"))
    assert {(table, way) for _, table, way in found} == {("pstampJob", "scan"), ("pstampHistory", "scan")}


@pytest.mark.parametrize("mode", ["pendingjob", "pendingdependent", "completedreq", "pendingreq", "pendingcleanup"])
def test_a_list_is_no_more_work_when_finished_jobs_pile_up(filled: Store, mode: str) -> None:
    efforts = []
    for more in (0, 3000):
        for start in range(0, more, 500):
            pstampJob.insert_many(
                [{"req_id": 1, "state": JobState.STOP, "image": "x", "dep_id": 1} for _ in range(start, start + 500)]
            ).execute()
        efforts.append(effort(filled, lambda: MODES[mode](filled)))
    assert efforts[1] < 1.5 * efforts[0]
