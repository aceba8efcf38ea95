"""The modes of `pstamptool` that print rows: a function for each, named as the mode (`pstamptool.c`).

Each takes the store and the options of its mode as keyword arguments: those that were given, by their names without the
dash, and ``limit`` (0 is none). Rows come in the order of their numbers; those of a queue (``pending...``,
``completedreq``) in the order in which workers claim them, and only those that could be claimed now: what somebody
works on, or what waits for its next try, is left out. Priorities are `Label`'s, 10000 where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any

from peewee import JOIN, ModelSelect, chunked, fn

from pstamp_core.faults import Fault, PstampError
from pstamp_core.machines import JobState
from pstamp_core.store import (
    Store,
    claimable,
    is_served,
    jobs_to_run,
    moment,
    priority,
    pstampAccessLevel,
    pstampDependent,
    pstampJob,
    pstampProject,
    pstampRequest,
    pstampUser,
    pstampUserDomain,
    requests_to_clean,
    requests_to_finish,
    requests_to_parse,
    requests_with_dependents,
    requests_with_jobs,
    waits_for,
)
from pstamp_core.store.tables import pstampDataStore, pstampFile
from pstamp_core.tasks.tool.filters import Compare, Filter, conditions
from pstamp_core.tasks.tool.rows import Rows

_KINDS = {
    "BIGAUTO": "S64", "BIGINT": "S64", "INT": "S32", "SMALLINT": "S16", "BOOL": "BOOL", "DOUBLE": "F64",
    "VARCHAR": "STR", "TEXT": "STR", "DATETIME(6)": "UTC",
}  # fmt: skip
"""The printed type of each SQL type (`psDB.c`, where a time was tagged TAI)."""

Column = tuple[str, str, Any]
"""Name, printed type, and what is selected."""


def _of(table: Any, names: str) -> list[Column]:
    fields = [(name, table._meta.fields[name]) for name in names.split()]
    return [(name, _KINDS[field.field_type], field) for name, field in fields]


REQUEST = _of(
    pstampRequest,
    "req_id ds_id state name reqType label outProduct uri outdir username proj_id registered timestamp fault",
)
JOB = _of(
    pstampJob,
    "job_id req_id rownum state jobType fault exp_id outputBase options dep_id fault_count parent_id is_parent",
)
DEPENDENT = _of(
    pstampDependent, "dep_id state stage stage_id component imagedb outdir rlabel need_magic fault fault_count"
)
DATA_STORE = [
    *_of(pstampDataStore, "ds_id state lastFileset timestamp label outProduct uri pollInterval"),
    ("need_magic", "BOOL", pstampDataStore.need_magic),
]
_OUTDIR = [name for name, _, _ in DEPENDENT].index("outdir")
PROJECT = _of(pstampProject, "proj_id name state dbname dvodb camera telescope need_magic")

_REQ_ID = Filter("req_id", pstampRequest.req_id)
_LABEL = Filter("label", pstampRequest.label, Compare.LIKE)
_JOB = [Filter("job_id", pstampJob.job_id), Filter("req_id", pstampJob.req_id), Filter("dep_id", pstampJob.dep_id)]


# -- requests


def pendingreq(store: Store, **options: Any) -> Rows:
    """List the requests to parse, with what their data store says: outProduct and need_magic (1 without one)."""
    columns = [
        *REQUEST,
        ("ds_outProduct", "STR", pstampDataStore.outProduct),
        ("need_magic", "S64", fn.COALESCE(pstampDataStore.need_magic, 1)),
        ("priority", "S64", priority()),
    ]
    with store.reading():
        queue = requests_to_parse(store.now()).join_from(
            pstampRequest, pstampDataStore, JOIN.LEFT_OUTER, on=(pstampDataStore.ds_id == pstampRequest.ds_id)
        )
        return _rows("pstampRequest", columns, queue, options, [_REQ_ID, _LABEL])


def completedreq(store: Store, **options: Any) -> Rows:
    """List the requests to finish, also those under an inactive label."""
    with store.reading():
        return _queued_requests(requests_to_finish(store.now()), options)


def pendingcleanup(store: Store, **options: Any) -> Rows:
    """List the requests to delete from disk."""
    with store.reading():
        return _queued_requests(requests_to_clean(store.now()), options)


def _queued_requests(queue: ModelSelect[Any], options: dict[str, Any]) -> Rows:
    columns = [*REQUEST, ("priority", "S64", priority())]
    return _rows(
        "pstampRequest", columns, queue, options, [_REQ_ID, Filter("ds_id", pstampRequest.ds_id), _LABEL]
    )  # fmt: skip


def listreq(store: Store, **options: Any) -> Rows:
    """List requests.

    Raises
    ------
    PstampError
        Fault 1: nothing says which. Fault 5: there are none (3 in IPP, where a broken configuration is 3, too).
    """
    filters = [
        _REQ_ID,
        Filter("not_req_id", pstampRequest.req_id, Compare.UNEQUAL),
        Filter("name", pstampRequest.name, Compare.LIKE),
        Filter("username", pstampRequest.username),
        Filter("state", pstampRequest.state),
        _LABEL,
    ]
    _must_select("listreq", options, filters)
    with store.reading():
        found = _rows("pstampRequest", REQUEST, pstampRequest.select(), options, filters, pstampRequest.req_id)
    if not found.rows:
        raise PstampError("-listreq: there is no such request", Fault.PS_EXIT_DATA_ERROR)
    return found


# -- jobs


def pendingjob(store: Store, *, limit: int = 0, **options: Any) -> Rows:
    """List the jobs to run; ``myParent`` and ``runningChildren`` tell parents (NULL) from others (0), and no more."""
    parents = [(name, "S64", pstampJob.is_parent) for name in ("myParent", "runningChildren")]
    columns = [*JOB, ("priority", "S64", priority()), *parents]
    on_request, on_job = conditions(options, [_REQ_ID, _LABEL]), conditions(options, _JOB[:1])
    found: list[Sequence[Any]] = []
    with store.reading():
        now = store.now()
        # Request by request: the jobs of one come in order from an index, while all jobs would have to be sorted.
        requests = requests_with_jobs(now, *on_job).where(*on_request)
        for (req_id,) in _with_work(requests.limit(limit or None)):
            jobs = jobs_to_run(now).where(pstampJob.req_id == req_id, *on_job).order_by(pstampJob.job_id)
            found += _selected(columns, jobs, limit and limit - len(found))
            if len(found) == limit > 0:
                break
    plain = [(*row[:-2], *(None if is_parent else 0 for is_parent in row[-2:])) for row in found]
    return Rows("pstampJob", _titles(columns), plain)


def _with_work(requests: ModelSelect[Any], *columns: Any) -> Iterator[Sequence[Any]]:
    """Yield numbers and further columns of the requests that have any work."""
    for req_id, number, *others in requests.select_extend(*columns).tuples():
        if number is None:
            break
        yield req_id, *others


def listjob(store: Store, **options: Any) -> Rows:
    """List jobs, with the name and the outProduct of their requests.

    Raises
    ------
    PstampError
        Fault 1: nothing says which.
    """
    filters = [
        *_JOB,
        Filter("fault", pstampJob.fault),
        Filter("jobType", pstampJob.jobType),
        Filter("state", pstampJob.state),
    ]
    _must_select("listjob", options, filters)
    columns = [*JOB, *_of(pstampRequest, "name outProduct")]
    with store.reading():
        jobs = pstampJob.select().join_from(pstampJob, pstampRequest, on=(pstampJob.req_id == pstampRequest.req_id))
        return _rows("pstampJob", columns, jobs, options, filters, pstampJob.job_id)


# -- dependents


def pendingdependent(store: Store, *, limit: int = 0, includefaulted: bool = False, **options: Any) -> Rows:
    """List the dependents to check, with label and priority of the most urgent request that waits for them.

    Of several that are as urgent the one with the smallest number counts. `includefaulted` adds those that wait for
    their next try.
    """
    texts = ("stage", "imagedb", "rlabel", "component", "stage_id", "dep_id")
    on_dependent = conditions(options, [Filter(name, getattr(pstampDependent, name)) for name in texts])
    on_request = conditions(options, [_REQ_ID, Filter("label", pstampRequest.label)])
    on_job = conditions(options, _JOB[:1])
    found: dict[int, tuple[int, str | None]] = {}
    with store.reading():
        now = store.now()
        due = claimable(pstampDependent, now)
        if includefaulted:
            due = (pstampDependent.lease_owner == "") & (
                (pstampDependent.fault > 0) | (pstampDependent.retry_at <= now)
            )
        awaited = [waits_for(due, *on_dependent), *on_job]
        requests = requests_with_dependents(*awaited).where(*on_request)
        for req_id, level, label in _with_work(requests, priority(), pstampRequest.label):
            waiting = pstampJob.select(pstampJob.dep_id).where(pstampJob.req_id == req_id, *awaited).distinct()
            numbers: Any = waiting.order_by(pstampJob.dep_id).limit(limit or None).tuples()
            for (dep_id,) in numbers:
                if len(found) < limit or not limit:
                    found.setdefault(dep_id, (level, label))
            if len(found) == limit > 0:
                break
        rows = list(_dependents(found, on_job, on_request))
    titles = [("label", "STR"), ("first_req_id", "S64"), ("logfile", "STR"), ("priority", "S64")]
    return Rows("pstampDependent", [*_titles(DEPENDENT), *titles], rows)


def _dependents(
    found: Mapping[int, tuple[int, str | None]], on_job: Sequence[Any], on_request: Sequence[Any]
) -> Iterator[Sequence[Any]]:
    """Yield rows of the list, for dependents with priority and label of the most urgent request."""
    waits = (pstampJob.dep_id == pstampDependent.dep_id) & (pstampJob.state == JobState.RUN)
    first = pstampJob.select(fn.MIN(pstampJob.req_id)).where(waits, *on_job, is_served(*on_request))
    columns = [*DEPENDENT, ("", "", first)]
    for part in chunked(found, 500):
        rows = _selected(columns, pstampDependent.select().where(pstampDependent.dep_id.in_(part)), 0)
        by_number = {row[0]: row for row in rows}
        for dep_id in part:
            if dep_id in by_number:  # it was there a moment ago
                *row, first_req_id = by_number[dep_id]
                outdir = row[_OUTDIR]
                level, label = found[dep_id]
                yield *row, label, first_req_id, f"{outdir}/checkdep.{dep_id}.log" if outdir else None, level


# -- data stores, projects, files


def datastore(store: Store, *, ready: bool = False, all: bool = False, **options: Any) -> Rows:  # noqa: A002
    """List the enabled data stores; with `all` also others, with `ready` only those to be polled.

    That is, the last look was longer ago than ``pollInterval``, or there was none.
    """
    with store.reading():
        stores = pstampDataStore.select()
        if not all:
            stores = stores.where(fn.LOWER(pstampDataStore.state) == "enabled")
        found = _rows(
            "pstampDataStore", DATA_STORE, stores, options, [Filter("ds_id", pstampDataStore.ds_id)],
            pstampDataStore.ds_id,
        )  # fmt: skip
        now = moment(store.now())
    if not ready:
        return found
    names = [name for name, _ in found.columns]
    last, interval = names.index("timestamp"), names.index("pollInterval")
    due = [row for row in found.rows if not row[last] or now - row[last] >= timedelta(seconds=row[interval] + 1)]
    return Rows(found.record, found.columns, due)


def project(store: Store, **options: Any) -> Rows:
    """List the projects, also disabled ones."""
    with store.reading():
        filters = [Filter("name", pstampProject.name)]
        return _rows("pstampProject", PROJECT, pstampProject.select(), options, filters, pstampProject.proj_id)


def listfile(store: Store, **options: Any) -> Rows:
    """List files that clean-up will delete, with the requests they belong to.

    Raises
    ------
    PstampError
        Fault 1: nothing says which.
    """
    filters = [
        Filter("file_id", pstampFile.file_id), Filter("job_id", pstampFile.job_id), Filter("req_id", pstampJob.req_id)
    ]  # fmt: skip
    _must_select("listfile", options, filters)
    columns = [*_of(pstampFile, "file_id job_id path"), *_of(pstampJob, "req_id")]
    with store.reading():
        files = pstampFile.select().join_from(pstampFile, pstampJob, on=(pstampFile.job_id == pstampJob.job_id))
        return _rows("pstampFile", columns, files, options, filters, pstampFile.file_id)


# -- domains, users, access levels


def listdomain(store: Store, **options: Any) -> Rows:
    """List e-mail domains."""
    columns = _of(pstampUserDomain, "domainName accessLevel defaultProduct defaultLabel")
    filters = [
        Filter("domain", pstampUserDomain.domainName), Filter("accessLevel", pstampUserDomain.accessLevel)
    ]  # fmt: skip
    with store.reading():
        return _rows(
            "pstampUserDomain", columns, pstampUserDomain.select(), options, filters, pstampUserDomain.domainName
        )


def listuser(store: Store, **options: Any) -> Rows:
    """List users, with what holds for their domains.

    Raises
    ------
    PstampError
        Fault 1: nothing says which.
    """
    user, domain = pstampUser, pstampUserDomain
    filters = [
        Filter("user", user.userName), Filter("domain", user.domainName), Filter("accessLevel", user.accessLevel)
    ]  # fmt: skip
    _must_select("listuser", options, filters)
    columns = [
        *_of(user, "userName domainName accessLevel"),
        ("domainAccessLevel", "S64", fn.COALESCE(domain.accessLevel, 0)),
        ("userProduct", "STR", user.defaultProduct),
        ("userLabel", "STR", user.defaultLabel),
        ("domainProduct", "STR", domain.defaultProduct),
        ("domainLabel", "STR", domain.defaultLabel),
    ]
    with store.reading():
        users = user.select().join_from(user, domain, JOIN.LEFT_OUTER, on=(user.domainName == domain.domainName))
        return _rows("pstampUser", columns, users, options, filters, user.userName, user.domainName)


def listaccesslevel(store: Store, **options: Any) -> Rows:
    """List which dates (MJD) of the projects the access levels may see."""
    level = pstampAccessLevel
    filters = [
        Filter("project_name", pstampProject.name),
        Filter("proj_id", level.proj_id),
        Filter("accessLevel", level.accessLevel),
    ]
    columns = [
        *_of(level, "proj_id accessLevel mjd_min mjd_max"),
        *_of(pstampProject, "name state dbname dvodb camera telescope need_magic"),
    ]
    with store.reading():
        levels = level.select().join_from(level, pstampProject, on=(level.proj_id == pstampProject.proj_id))
        return _rows("pstampAccessLevel", columns, levels, options, filters, level.proj_id, level.accessLevel)


# -- what they have in common


def _must_select(mode: str, options: dict[str, Any], filters: Sequence[Filter]) -> None:
    names = [each.option for each in filters]
    if not options.keys() & set(names):
        listed = ", ".join(f"-{name}" for name in names)
        raise PstampError(f"-{mode}: nothing says which; give one of {listed}", Fault.PS_EXIT_UNKNOWN_ERROR)


def _rows(
    record: str,
    columns: Sequence[Column],
    query: ModelSelect[Any],
    options: dict[str, Any],
    filters: Sequence[Filter],
    *order: Any,
) -> Rows:
    """Return the rows of `query` that the options ask for; a queue has an order of its own."""
    if wanted := conditions(options, filters):
        query = query.where(*wanted)
    if order:
        query = query.order_by(*order)
    return Rows(record, _titles(columns), _selected(columns, query, options.get("limit", 0)))


def _titles(columns: Sequence[Column]) -> list[tuple[str, str]]:
    return [(name, kind) for name, kind, _ in columns]


def _selected(columns: Sequence[Column], query: ModelSelect[Any], limit: int) -> list[Sequence[Any]]:
    selected = query.select(*(what for _, _, what in columns)).limit(limit or None)
    return [tuple(each.value if isinstance(each, Enum) else each for each in row) for row in selected.tuples()]
