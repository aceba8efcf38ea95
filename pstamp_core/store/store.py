"""The store: a connection, its clock, units of work, and the queues that workers claim from."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from peewee import JOIN, SQL, Database, ModelSelect, MySQLDatabase, fn

from pstamp_core.database import connect, create_tables, session, unit_of_work
from pstamp_core.machines import Args, DependentState, Event, JobState, RequestState
from pstamp_core.machines.job import OPEN
from pstamp_core.store.fire import fire
from pstamp_core.store.migrations import mark_newest, prepare
from pstamp_core.store.rules import check_constraints, triggers
from pstamp_core.store.tables import TABLES, Label, Worked, pstampDependent, pstampJob, pstampRequest

T = TypeVar("T")

DEFAULT_PRIORITY = 10000
"""The priority of work whose label has no row in `Label`, in every queue (`pstamptool_pendingjob.sql`)."""


class Store:
    """The server's database.

    Parameters
    ----------
    database : str or peewee.Database
        The address, or the database itself.
    clock : callable, optional
        Gives microseconds since 1970 UTC, instead of the database's own clock (for tests).
    """

    def __init__(self, database: str | Database, clock: Callable[[], int] | None = None) -> None:
        self.db = connect(database) if isinstance(database, str) else database
        self._clock = clock

    def create(self) -> None:
        """Make the tables that are not there yet, with the rules that the database itself keeps.

        Raises
        ------
        RetryableError
            Fault 3: the database has another schema version; the message says what mends that.
        """
        with self.reading():
            prepare(self.db)
            for table, check in check_constraints().items():
                table._meta.constraints = [check]
            create_tables(self.db, TABLES)
            for statement in triggers(self.db):
                self.db.execute_sql(statement)  # type: ignore[no-untyped-call]
            mark_newest(self.db)

    def reading(self) -> AbstractContextManager[None]:
        """Use the tables for reading within a block."""
        return session(self.db, TABLES)

    def work(self, work: Callable[[], T]) -> T:
        """Run `work` as one transaction, redone as `unit_of_work` says."""
        return unit_of_work(self.db, TABLES, work)

    def now(self) -> int:
        """Return the time, microseconds since 1970 UTC, by the database's clock."""
        if self._clock:
            return self._clock()
        if isinstance(self.db, MySQLDatabase):
            sql = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"
        else:
            sql = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000"
        cursor = self.db.execute_sql(sql)  # type: ignore[no-untyped-call]
        return int(cursor.fetchone()[0])

    def claim(self, query: ModelSelect[Any], args: Args, limit: int) -> list[Any]:
        """Claim up to `limit` rows of a queue's `query`; a row that another worker was quicker to take is left out."""
        rows = list(query.limit(limit))
        return fire(rows, Event.CLAIM, args, race=True)

    def claim_jobs(self, args: Args, limit: int) -> list[pstampJob]:
        """Claim up to `limit` jobs of one image: that of the first job of the queue.

        Jobs of the same request come first, since they are as urgent; jobs of others that want the image come with
        them. How many jobs there are, to be run or finished, makes no difference.

        Races tolerated: who finds that all were taken meanwhile goes on at a random place in the same request, so that
        workers do not run into each other again. It returns none only when there is none.
        """
        found = _first_job(args.now)
        while found:
            req_id, image = found
            wanted = _jobs(args.now).where(pstampJob.image == image)
            rows = list(wanted.where(pstampJob.req_id == req_id).order_by(pstampJob.job_id).limit(limit))
            if len(rows) < limit:
                others = wanted.where(pstampJob.req_id != req_id).order_by(pstampJob.req_id, pstampJob.job_id)
                rows += list(others.limit(limit - len(rows)))
            claimed = fire(rows, Event.CLAIM, args, race=True)
            if claimed:
                return claimed
            found = _any_job(args.now, req_id) or _first_job(args.now)
        return []


def _first_job(now: int) -> tuple[int, str] | None:
    """Return request and image of the first job of the queue, by one look at each request instead of at each job."""
    first = (
        pstampJob.select(pstampJob.job_id)
        .where((pstampJob.req_id == pstampRequest.req_id) & _can_run(now))
        .order_by(pstampJob.job_id)
        .limit(1)
    )
    # Requests that have none come last: SQLite knows no HAVING here, and their number is small.
    requests = _in_active_label(pstampRequest.select(first.alias("job_id")).where(_is_served()))
    order = (SQL("job_id IS NULL"), _priority().desc(), SQL("job_id"))
    top = requests.order_by(*order).limit(1).alias("top")
    jobs = pstampJob.select(pstampJob.req_id, pstampJob.image).join(top, on=(top.c.job_id == pstampJob.job_id))
    found: list[Any] = list(jobs.tuples())
    return found[0] if found else None


def _any_job(now: int, req_id: int) -> tuple[int, str] | None:
    """Return a request and the image of a job in it, from a random place on; None if no job of it can run any more."""
    jobs = _jobs(now).where(pstampJob.req_id == req_id)
    order: Any = pstampJob.job_id
    ends: list[Any] = []
    for each in (order, order.desc()):
        ends += list(jobs.select(order).order_by(each).limit(1).tuples())
    if len(ends) < 2:
        return None
    place = random.randint(ends[0][0], ends[1][0])
    later = jobs.select(pstampJob.req_id, pstampJob.image).where(pstampJob.job_id >= place).order_by(order).limit(1)
    found: list[Any] = list(later.tuples())
    return found[0] if found else None


def with_label(query: ModelSelect[Any], key: Any) -> ModelSelect[Any]:
    """Leave out work under an inactive label, and order by priority, then number."""
    return _in_active_label(query).order_by(_priority().desc(), key)


def _in_active_label(query: ModelSelect[Any]) -> ModelSelect[Any]:
    labelled = query.join_from(pstampRequest, Label, JOIN.LEFT_OUTER, on=(pstampRequest.label == Label.label))
    return labelled.where(Label.active.is_null() | (Label.active == True))  # noqa: E712 (SQL)


def _priority() -> Any:
    return fn.COALESCE(Label.priority, DEFAULT_PRIORITY)


def claimable(table: type[Worked], now: int) -> Any:
    """Return the condition for a row that may be claimed: no fault, no lease, its time has come."""
    return (table.fault == 0) & (table.lease_owner == "") & (table.retry_at <= now)


def requests_to_parse(now: int) -> ModelSelect[Any]:
    """Return the queue of requests to parse."""
    query = pstampRequest.select().where((pstampRequest.state == RequestState.NEW) & claimable(pstampRequest, now))
    return with_label(query, pstampRequest.req_id)


def requests_to_finish(now: int) -> ModelSelect[Any]:
    """Return the queue of requests without an open job (an inactive label does not keep results back)."""
    still_open = pstampJob.select().where((pstampJob.req_id == pstampRequest.req_id) & pstampJob.state.in_(OPEN))
    return (
        pstampRequest.select()
        .where(
            pstampRequest.state.in_([RequestState.RUN, RequestState.CANCEL])
            & claimable(pstampRequest, now)
            & ~fn.EXISTS(still_open)
        )
        .order_by(pstampRequest.req_id)
    )


def requests_to_clean(now: int) -> ModelSelect[Any]:
    """Return the queue of requests to delete from disk, whatever their label."""
    return (
        pstampRequest.select()
        .where((pstampRequest.state == RequestState.GOTO_CLEANED) & claimable(pstampRequest, now))
        .order_by(pstampRequest.req_id)
    )


def jobs_to_run(now: int) -> ModelSelect[Any]:
    """Return the queue of jobs whose image is there."""
    return _jobs(now).order_by(_priority().desc(), pstampJob.job_id)


def _jobs(now: int) -> ModelSelect[Any]:
    """Return the jobs that can run, in no order."""
    jobs = pstampJob.select().join_from(pstampJob, pstampRequest, on=(pstampJob.req_id == pstampRequest.req_id))
    return _in_active_label(jobs.where(_can_run(now) & _is_served()))


def _can_run(now: int) -> Any:
    """Return the condition for a job that can run, as far as its request lets it."""
    is_there = pstampDependent.select().where(
        (pstampDependent.dep_id == pstampJob.dep_id) & (pstampDependent.state == DependentState.FULL)
    )
    return (
        (pstampJob.state == JobState.RUN) & claimable(pstampJob, now) & ((pstampJob.dep_id == 0) | fn.EXISTS(is_there))
    )


def _is_served() -> Any:
    """Return the condition for a request whose jobs may run, as far as its label lets them."""
    return (pstampRequest.state == RequestState.RUN) & (pstampRequest.fault == 0)


def dependents_to_check(now: int) -> ModelSelect[Any]:
    """Return the queue of dependents that a job of a running request under an active label waits for."""
    waiting = with_label(
        pstampJob.select()
        .join_from(pstampJob, pstampRequest, on=(pstampJob.req_id == pstampRequest.req_id))
        .where(
            (pstampJob.dep_id == pstampDependent.dep_id)
            & (pstampJob.state == JobState.RUN)
            & (pstampRequest.state == RequestState.RUN)
        ),
        pstampJob.job_id,
    ).order_by()
    return (
        pstampDependent.select()
        .where((pstampDependent.state == DependentState.NEW) & claimable(pstampDependent, now) & fn.EXISTS(waiting))
        .order_by(pstampDependent.dep_id)
    )


def open_jobs(request: pstampRequest) -> int:
    """Return how many jobs of `request` are neither stopped nor cancelled."""
    return int(pstampJob.select().where((pstampJob.req_id == request.req_id) & pstampJob.state.in_(OPEN)).count())


def waiting_jobs(dependents: Sequence[pstampDependent]) -> list[pstampJob]:
    """Return the open jobs that wait for one of `dependents`."""
    ids = [dependent.dep_id for dependent in dependents]
    return list(pstampJob.select().where(pstampJob.dep_id.in_(ids) & (pstampJob.state == JobState.RUN)))


def locked_dependents(condition: Any) -> list[pstampDependent]:
    """Return the dependents that fulfil `condition`; nobody changes them before this unit of work ends.

    Whoever lets jobs wait for a dependent must read it so: were it closed in the same moment, they would wait for ever.
    """
    # FOR UPDATE without its dialects: SQLite, which has none, has locked all by now.
    pstampDependent.update(open_key=pstampDependent.open_key).where(condition).execute()
    return list(pstampDependent.select().where(condition))
