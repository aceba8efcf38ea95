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
from pstamp_core.machines.request import FINISHABLE
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
        them. A job that failed before comes alone: should it kill its worker again, no other job loses a try by that.
        How many jobs there are, to be run or finished, makes no difference.

        Races tolerated: who finds that all were taken meanwhile goes on at a random place in the same request, so that
        workers do not run into each other again. It returns none only when there is none.
        """
        found = _first_job(args.now)
        while found:
            req_id, image, number, failed = found
            alike = pstampJob.job_id == number if failed else (pstampJob.image == image) & (pstampJob.fault_count == 0)
            wanted = _jobs(args.now).where(alike)
            rows = list(wanted.where(pstampJob.req_id == req_id).order_by(pstampJob.job_id).limit(limit))
            if len(rows) < limit and not failed:
                others = wanted.where(pstampJob.req_id != req_id).order_by(pstampJob.req_id, pstampJob.job_id)
                rows += list(others.limit(limit - len(rows)))
            claimed = fire(rows, Event.CLAIM, args, race=True)
            if claimed:
                return claimed
            found = _any_job(args.now, req_id) or _first_job(args.now)
        return []


_JOB = pstampJob.req_id, pstampJob.image, pstampJob.job_id, pstampJob.fault_count
"""What a claim must know of the job that it begins with."""
_Job = tuple[int, str, int, int]


def _first_job(now: int) -> _Job | None:
    """Return the first job of the queue."""
    top = requests_with_jobs(now).limit(1).alias("top")
    jobs = pstampJob.select(*_JOB).join(top, on=(top.c.number == pstampJob.job_id))
    found: list[Any] = list(jobs.tuples())
    return found[0] if found else None


def requests_with_jobs(now: int, *conditions: Any) -> ModelSelect[Any]:
    """Return the requests whose jobs may run, with the ``number`` of the first job that can run.

    That is one look at each request, instead of at each job. The requests come in the order of the queue; those that
    have no such job come last, with None.

    Parameters
    ----------
    now : int
        The time, microseconds since 1970.
    *conditions
        What further holds of the jobs.
    """
    first = pstampJob.select(pstampJob.job_id).where(_can_run(now), *conditions).order_by(pstampJob.job_id)
    return _requests_with(first).where(pstampRequest.fault == 0)


def requests_with_dependents(*conditions: Any) -> ModelSelect[Any]:
    """Return the requests that run, with the ``number`` of a dependent that a job of theirs waits for.

    As `requests_with_jobs`; `conditions` hold of the jobs (`waits_for`).
    """
    # The index has jobs that wait for nothing first.
    return _requests_with(pstampJob.select(pstampJob.dep_id).where(*conditions).order_by(pstampJob.dep_id.desc()))


def _requests_with(jobs: ModelSelect[Any]) -> ModelSelect[Any]:
    first = jobs.where(pstampJob.req_id == pstampRequest.req_id).limit(1).alias("number")
    running = pstampRequest.select(pstampRequest.req_id, first).where(pstampRequest.state == RequestState.RUN)
    # Requests that have none come last: SQLite knows no HAVING here, and their number is small.
    return _in_active_label(running).order_by(SQL("number IS NULL"), priority().desc(), pstampRequest.req_id)


def _any_job(now: int, req_id: int) -> _Job | None:
    """Return a job of a request, from a random place on; None if no job of it can run any more."""
    jobs = _jobs(now).where(pstampJob.req_id == req_id)
    order: Any = pstampJob.job_id
    ends: list[Any] = []
    for each in (order, order.desc()):
        ends += list(jobs.select(order).order_by(each).limit(1).tuples())
    if len(ends) < 2:
        return None
    place = random.randint(ends[0][0], ends[1][0])
    later = jobs.select(*_JOB).where(pstampJob.job_id >= place).order_by(order).limit(1)
    found: list[Any] = list(later.tuples())
    return found[0] if found else None


def _requests(*conditions: Any) -> ModelSelect[Any]:
    """Return requests with their labels, in the order of a queue: by priority, then number."""
    return _with_label(pstampRequest.select().where(*conditions)).order_by(priority().desc(), pstampRequest.req_id)


def _with_label(query: ModelSelect[Any]) -> ModelSelect[Any]:
    return query.join_from(pstampRequest, Label, JOIN.LEFT_OUTER, on=(pstampRequest.label == Label.label))


def _in_active_label(query: ModelSelect[Any]) -> ModelSelect[Any]:
    return _with_label(query).where(is_active())


def is_active() -> Any:
    """Return the condition for work that its label lets go on, for a query that has joined `Label`."""
    return Label.active.is_null() | (Label.active == True)  # noqa: E712 (SQL)


def priority() -> Any:
    """Return the priority of work, for a query that has joined `Label`; see `DEFAULT_PRIORITY`."""
    return fn.COALESCE(Label.priority, DEFAULT_PRIORITY)


def claimable(table: type[Worked], now: int) -> Any:
    """Return the condition for a row that may be claimed: no fault, no lease, its time has come."""
    return (table.fault == 0) & (table.lease_owner == "") & (table.retry_at <= now)


def requests_to_parse(now: int) -> ModelSelect[Any]:
    """Return the queue of requests to parse."""
    return _requests(pstampRequest.state == RequestState.NEW, claimable(pstampRequest, now), is_active())


def requests_to_finish(now: int) -> ModelSelect[Any]:
    """Return the queue of requests without an open job.

    An inactive label does not keep results back, so that what was begun drains: the only queue where it does not.
    """
    mine = pstampJob.select(pstampJob.job_id).where(pstampJob.req_id == pstampRequest.req_id)
    # State by state: for several at once MariaDB looks at all jobs of a request.
    none_open = [_is_empty(mine.where(pstampJob.state == state)) for state in OPEN]
    return _requests(pstampRequest.state.in_(FINISHABLE), claimable(pstampRequest, now), *none_open)


def requests_to_clean(now: int) -> ModelSelect[Any]:
    """Return the queue of requests to delete from disk."""
    return _requests(pstampRequest.state == RequestState.GOTO_CLEANED, claimable(pstampRequest, now), is_active())


def jobs_to_run(now: int) -> ModelSelect[Any]:
    """Return the queue of jobs whose image is there."""
    return _jobs(now).order_by(priority().desc(), pstampJob.req_id, pstampJob.job_id)


def _jobs(now: int) -> ModelSelect[Any]:
    """Return the jobs that can run, in no order."""
    jobs = pstampJob.select().join_from(pstampJob, pstampRequest, on=(pstampJob.req_id == pstampRequest.req_id))
    return _in_active_label(jobs.where(_can_run(now) & _may_run()))


def _can_run(now: int) -> Any:
    """Return the condition for a job that can run, as far as its request lets it."""
    # Each as a value, since MariaDB makes of EXISTS a list of all that there are, finished ones and all.
    dependent, child, owner = pstampDependent.alias("dep"), pstampJob.alias("child"), pstampRequest.alias("owner")
    state = fn.COALESCE(dependent.select(dependent.state).where(dependent.dep_id == pstampJob.dep_id), "")
    owner_state = fn.COALESCE(owner.select(owner.state).where(owner.req_id == child.req_id), "")
    runs = (child.state == JobState.RUN) & (owner_state == RequestState.RUN.value)
    running_children = child.select(child.job_id).where((child.parent_id == pstampJob.job_id) & runs)
    return (
        (pstampJob.state == JobState.RUN)
        & claimable(pstampJob, now)
        & ((pstampJob.dep_id == 0) | (state == DependentState.FULL.value))
        & ((pstampJob.is_parent == False) | _is_empty(running_children))  # noqa: E712 (SQL)
    )


def _is_empty(numbers: ModelSelect[Any]) -> Any:
    """Return the condition that a query for numbers finds none; as a value, see `_can_run`."""
    return fn.COALESCE(numbers.limit(1), 0) == 0


def _may_run() -> Any:
    """Return the condition for a request whose jobs may run, as far as its label lets them."""
    return (pstampRequest.state == RequestState.RUN) & (pstampRequest.fault == 0)


def dependents_to_check(now: int) -> ModelSelect[Any]:
    """Return the queue of dependents that a job of a running request under an active label waits for.

    The most urgent of these requests counts.
    """
    joined = (
        (pstampJob.dep_id == pstampDependent.dep_id)
        & (pstampJob.state == JobState.RUN)
        & (pstampRequest.req_id == pstampJob.req_id)
        & (pstampRequest.state == RequestState.RUN)
    )
    # SQLite takes tables in the order of a CROSS JOIN; it does not count rows, and would begin with all that runs.
    jobs = pstampDependent.select().join_from(pstampDependent, pstampJob, JOIN.CROSS)
    waiting = _in_active_label(jobs.join_from(pstampJob, pstampRequest, JOIN.CROSS).where(joined))
    return (
        waiting.where((pstampDependent.state == DependentState.NEW) & claimable(pstampDependent, now))
        .group_by(pstampDependent.dep_id)
        # One number for priority and request: the smallest is the most urgent.
        .order_by(fn.MIN(pstampJob.req_id - priority() * 2**31), pstampDependent.dep_id)
    )


def is_served(*conditions: Any) -> Any:
    """Return the condition for a job whose request runs under an active label, and fulfils `conditions`."""
    mine = (pstampRequest.req_id == pstampJob.req_id) & (pstampRequest.state == RequestState.RUN)
    return fn.COALESCE(_in_active_label(pstampRequest.select(pstampRequest.req_id).where(mine, *conditions)), 0) > 0


def waits_for(*conditions: Any) -> Any:
    """Return the condition for a job that waits for a dependent in state new which fulfils `conditions`."""
    new = (pstampDependent.dep_id == pstampJob.dep_id) & (pstampDependent.state == DependentState.NEW)
    awaited = pstampDependent.select(pstampDependent.dep_id).where(new, *conditions)
    return (pstampJob.state == JobState.RUN) & (pstampJob.dep_id > 0) & (fn.COALESCE(awaited, 0) > 0)


def open_jobs(request: pstampRequest) -> int:
    """Return how many jobs of `request` are neither stopped nor cancelled."""
    return int(pstampJob.select().where((pstampJob.req_id == request.req_id) & pstampJob.state.in_(OPEN)).count())


def waiting_jobs(dependents: Sequence[pstampDependent]) -> list[pstampJob]:
    """Return the open jobs that wait for one of `dependents`."""
    ids = [dependent.dep_id for dependent in dependents]
    waiting = pstampJob.select().where(pstampJob.dep_id.in_(ids) & (pstampJob.state == JobState.RUN))
    return list(waiting.order_by(pstampJob.job_id))


def locked_dependents(condition: Any) -> list[pstampDependent]:
    """Return the dependents that fulfil `condition`; nobody changes them before this unit of work ends.

    Whoever lets jobs wait for a dependent must read it so: were it closed in the same moment, they would wait for ever.
    """
    # FOR UPDATE without its dialects: SQLite, which has none, has locked all by now.
    pstampDependent.update(open_key=pstampDependent.open_key).where(condition).execute()
    return list(pstampDependent.select().where(condition))
