"""The queues that workers claim from: who is in, in which order, and that nobody gets what another has."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from time import time
from typing import Any

import pytest
from conftest import NOW, SECOND, Clock, Rows
from peewee import MySQLDatabase
from playhouse.test_utils import count_queries

from pstamp_core.faults import RetryableError
from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.store import (
    Label,
    Store,
    Worked,
    dependents_to_check,
    fire,
    jobs_to_run,
    make_jobs,
    open_jobs,
    pstampJob,
    pstampRequest,
    requests_to_clean,
    requests_to_finish,
    requests_to_parse,
    waiting_jobs,
)

Do = Callable[..., Any]


def one_to_parse(rows: Rows, label: str | None = None, **columns: Any) -> Worked:
    return rows.request(RequestState.NEW, label=label, **columns)


def one_to_finish(rows: Rows, label: str | None = None, **columns: Any) -> Worked:
    return rows.request(label=label, **columns)


def one_to_clean(rows: Rows, label: str | None = None, **columns: Any) -> Worked:
    return rows.request(RequestState.GOTO_CLEANED, label=label, **columns)


def one_to_run(rows: Rows, label: str | None = None, **columns: Any) -> Worked:
    return rows.job(rows.request(label=label), **columns)


def one_to_check(rows: Rows, label: str | None = None, **columns: Any) -> Worked:
    dependent = rows.dependent(**columns)
    rows.job(rows.request(label=label), dep_id=dependent.dep_id)
    return dependent


QUEUES: dict[str, tuple[Callable[[int], Any], Callable[..., Worked]]] = {
    "parse": (requests_to_parse, one_to_parse),
    "run": (jobs_to_run, one_to_run),
    "check": (dependents_to_check, one_to_check),
    "finish": (requests_to_finish, one_to_finish),
    "clean": (requests_to_clean, one_to_clean),
}
every_queue = pytest.mark.parametrize("queue", QUEUES)


def listed(queue: str, now: int = NOW) -> list[int]:
    return [row.id_ for row in QUEUES[queue][0](now)]


def make(queue: str, rows: Rows, label: str | None = None, **columns: Any) -> int:
    return QUEUES[queue][1](rows, label, **columns).id_


# -- what all queues have in common


@every_queue
@pytest.mark.parametrize(
    ("columns", "is_in"),
    [
        ({}, True),
        ({"retry_at": NOW}, True),
        ({"fault_count": 99, "cause": 5, "attempt": 99}, True),
        ({"retry_at": NOW + 1}, False),
        ({"fault": 1}, False),
        ({"fault": 9}, False),
        ({"lease_owner": "w2", "lease_until": NOW + 1}, False),
        ({"lease_owner": "w2", "lease_until": NOW - 1}, False),  # lapsed: the reaper's, so that it counts
    ],
)
def test_only_what_can_be_claimed_is_in(
    store: Store, rows: Rows, queue: str, columns: dict[str, Any], is_in: bool
) -> None:
    number = make(queue, rows, **columns)
    assert listed(queue) == ([number] if is_in else [])


@every_queue
def test_everything_in_a_queue_can_be_claimed(store: Store, rows: Rows, queue: str) -> None:
    """What the SQL selects is what the machine's guards let through."""
    for columns in ({}, {"retry_at": NOW}, {"retry_at": NOW + 1}, {"fault": 3}, {"lease_owner": "w2"}):
        make(queue, rows, **columns)
    claimed = store.work(lambda: store.claim(QUEUES[queue][0](NOW), rows.args(), 10))
    assert len(claimed) == 2
    assert listed(queue) == []


@every_queue
def test_the_queue_is_in_order_of_number(store: Store, rows: Rows, queue: str) -> None:
    numbers = [make(queue, rows, retry_at=NOW - number) for number in range(5)]  # not the order of the index
    assert listed(queue) == numbers


@every_queue
def test_a_limit_takes_the_first(store: Store, rows: Rows, queue: str) -> None:
    numbers = [make(queue, rows) for _ in range(5)]
    for expected in (numbers[:2], numbers[2:4], numbers[4:], []):
        claimed = store.work(lambda: store.claim(QUEUES[queue][0](NOW), rows.args(), 2))
        assert [row.id_ for row in claimed] == expected


# -- labels


@every_queue
def test_labels_gate_and_order(store: Store, rows: Rows, queue: str) -> None:
    """pstamptool: larger priorities first, 10000 without a row in Label, nothing under an inactive one.

    An inactive label does not keep results back.
    """
    rows.label("below", -5)
    rows.label("low", 5)
    rows.label("high", 20000)
    rows.label("off", 30000, active=False)
    below, low, off, none, unknown, high, low2 = (
        make(queue, rows, label) for label in ("below", "low", "off", None, "unknown", "high", "low")
    )
    assert listed(queue) == [*([off] if queue == "finish" else []), high, none, unknown, low, low2, below]


# -- requests to parse and to finish


@pytest.mark.parametrize("state", RequestState)
def test_new_requests_are_parsed(store: Store, rows: Rows, state: RequestState) -> None:
    request = rows.request(state)
    assert listed("parse") == ([request.req_id] if state is RequestState.NEW else [])


@pytest.mark.parametrize("state", RequestState)
def test_running_and_cancelled_requests_are_finished(store: Store, rows: Rows, state: RequestState) -> None:
    request = rows.request(state)
    is_in = state in (RequestState.RUN, RequestState.CANCEL)
    assert listed("finish") == ([request.req_id] if is_in else [])


@pytest.mark.parametrize(
    ("jobs", "is_in"),
    [
        ([], True),
        ([JobState.STOP], True),
        ([JobState.CANCEL, JobState.STOP], True),
        ([JobState.STOP, JobState.RUN], False),
        ([JobState.PARSED], False),
    ],
)
def test_a_request_is_finished_when_no_job_is_open(store: Store, rows: Rows, jobs: list[JobState], is_in: bool) -> None:
    rows.job(rows.request(RequestState.STOP))  # another's open job does not matter
    request = rows.request()
    for state in jobs:
        rows.job(request, state, fault=32 if state is JobState.CANCEL else 0)
    assert listed("finish") == ([request.req_id] if is_in else [])
    assert open_jobs(request) == sum(state in (JobState.RUN, JobState.PARSED) for state in jobs)


def test_a_job_that_waits_for_a_retry_keeps_its_request_open(store: Store, rows: Rows) -> None:
    request = rows.request()
    rows.job(request, fault=2, retry_at=NOW + 99)
    assert listed("finish") == []
    assert open_jobs(request) == 1


# -- jobs to run


@pytest.mark.parametrize("state", JobState)
def test_jobs_in_run_are_run(store: Store, rows: Rows, state: JobState) -> None:
    job = rows.job(state=state, fault=32 if state is JobState.CANCEL else 0)
    assert listed("run") == ([job.job_id] if state is JobState.RUN else [])


@pytest.mark.parametrize("state", RequestState)
@pytest.mark.parametrize("fault", [0, 2])
def test_a_job_runs_only_for_a_running_request_without_fault(
    store: Store, rows: Rows, state: RequestState, fault: int
) -> None:
    if fault and state in (RequestState.PARSED, RequestState.STOP, RequestState.CLEANED):
        fault = 0  # such a request has none
    job = rows.job(rows.request(state, fault=fault))
    assert listed("run") == ([job.job_id] if state is RequestState.RUN and not fault else [])


@pytest.mark.parametrize("state", DependentState)
def test_a_job_waits_until_its_dependent_is_full(store: Store, rows: Rows, state: DependentState) -> None:
    dependent = rows.dependent(state, fault=25 if state is DependentState.STOP else 0)
    job = rows.job(dep_id=dependent.dep_id)
    free = rows.job()
    assert listed("run") == ([job.job_id, free.job_id] if state is DependentState.FULL else [free.job_id])


def test_jobs_come_by_request(store: Store, rows: Rows) -> None:
    first, second = rows.request(), rows.request()
    jobs = [rows.job(request) for request in (second, first, second, first)]
    assert listed("run") == [jobs[number].job_id for number in (1, 3, 0, 2)]
    assert [job.job_id for job in store.work(lambda: store.claim_jobs(rows.args(), 1))] == [jobs[1].job_id]


@pytest.mark.parametrize(
    ("children", "is_in"),
    [
        ([], True),
        ([(JobState.RUN, 0)], False),
        ([(JobState.STOP, 0), (JobState.RUN, 3)], False),
        ([(JobState.STOP, 0), (JobState.STOP, 25)], True),
        ([(JobState.CANCEL, 32), (JobState.PARSED, 0)], True),
    ],
)
def test_a_parent_waits_for_its_children(
    store: Store, rows: Rows, children: list[tuple[JobState, int]], is_in: bool
) -> None:
    request = rows.request()
    parent = rows.job(request, is_parent=True)
    for state, fault in children:
        rows.job(
            request, state, fault=fault, parent_id=parent.job_id, lease_owner="w2" if state is JobState.RUN else ""
        )
    assert listed("run") == ([parent.job_id] if is_in else [])
    assert len(store.work(lambda: store.claim_jobs(rows.args(), 9))) == is_in


def test_children_of_a_request_that_does_not_run_hold_no_parent_back(store: Store, rows: Rows) -> None:
    parent = rows.job(is_parent=True)
    rows.job(rows.request(RequestState.STOP), parent_id=parent.job_id)
    assert listed("run") == [parent.job_id]


def test_a_job_whose_dependent_is_missing_waits(store: Store, rows: Rows) -> None:
    rows.job(dep_id=77)
    assert listed("run") == []


# -- dependents to check


@pytest.mark.parametrize("state", DependentState)
def test_new_dependents_are_checked(store: Store, rows: Rows, state: DependentState) -> None:
    dependent = rows.dependent(state, fault=25 if state is DependentState.STOP else 0)
    rows.job(dep_id=dependent.dep_id)
    assert listed("check") == ([dependent.dep_id] if state is DependentState.NEW else [])


@pytest.mark.parametrize("job", JobState)
@pytest.mark.parametrize("request_", RequestState)
def test_a_dependent_is_checked_while_a_running_job_of_a_running_request_waits(
    store: Store, rows: Rows, job: JobState, request_: RequestState
) -> None:
    dependent = rows.dependent()
    fault = 32 if job is JobState.CANCEL else 0
    rows.job(rows.request(request_), job, dep_id=dependent.dep_id, fault=fault)
    is_in = job is JobState.RUN and request_ is RequestState.RUN
    assert listed("check") == ([dependent.dep_id] if is_in else [])


def test_a_dependent_for_which_nothing_waits_is_not_checked(store: Store, rows: Rows) -> None:
    rows.dependent()
    rows.job()
    assert listed("check") == []


def test_a_dependent_that_many_wait_for_is_listed_once(store: Store, rows: Rows) -> None:
    dependent = rows.dependent()
    for _ in range(3):
        rows.job(dep_id=dependent.dep_id)
    assert listed("check") == [dependent.dep_id]


def test_the_most_urgent_of_those_that_wait_counts(store: Store, rows: Rows) -> None:
    """What is shared comes by its highest priority, then by the first request of that priority."""
    rows.label("low", 5)
    rows.label("high", 20000)
    rows.label("off", 30000, active=False)
    low, high, high2, off = (rows.request(label=label) for label in ("low", "high", "high", "off"))
    second, first, last, third = (rows.dependent() for _ in range(4))
    for dependent, requests in (
        (second, (low, high2)), (first, (high,)), (last, (low, off)), (third, (high2, high2)),
    ):  # fmt: skip
        for request in requests:
            rows.job(request, dep_id=dependent.dep_id)
    assert listed("check") == [each.dep_id for each in (first, second, third, last)]


def test_waiting_jobs(store: Store, rows: Rows) -> None:
    one, two, three = (rows.dependent() for _ in range(3))
    waiting = [rows.job(dep_id=each.dep_id) for each in (one, two, one, three)]
    rows.job(dep_id=one.dep_id, state=JobState.STOP)
    rows.job()
    assert [job.job_id for job in waiting_jobs([one, two])] == [job.job_id for job in waiting[:3]]
    assert waiting_jobs([]) == []


# -- claiming jobs by image


def test_jobs_of_one_image_are_claimed_together(store: Store, rows: Rows) -> None:
    images = ["b", "a", "b", "c", "b", "a"]
    jobs = [rows.job(image=image) for image in images]
    taken = []
    while claimed := store.work(lambda: store.claim_jobs(rows.args(), 10)):
        assert len({job.image for job in claimed}) == 1
        taken.append([job.job_id for job in claimed])
    assert taken == [
        [jobs[number].job_id for number in numbers] for numbers in ((0, 2, 4), (1, 5), (3,))
    ]  # fmt: skip


def test_a_job_that_failed_before_is_claimed_alone(store: Store, rows: Rows) -> None:
    """So that one that kills its worker takes no other with it: the first one or another, or of another request."""
    first, second = rows.request(), rows.request()
    jobs = [
        rows.job(request, image="a", fault_count=count)
        for request, count in ((first, 0), (first, 1), (first, 0), (second, 2), (second, 0), (second, 0), (first, 3))
    ]
    taken = []
    while claimed := store.work(lambda: store.claim_jobs(rows.args(), 4)):
        taken.append([jobs.index(job) for job in claimed])
    assert taken == [[0, 2, 4, 5], [1], [6], [3]]


def test_one_that_kills_its_worker_costs_its_neighbours_one_try(store: Store, rows: Rows, clock: Clock) -> None:
    request = rows.request()
    jobs = [rows.job(request, image="a") for _ in range(10)]
    killer = jobs[4]
    for _ in range(30):
        claimed = store.work(lambda: store.claim_jobs(rows.args(), 100))
        if killer in claimed:
            clock.forward(61)
            store.work(lambda claimed=claimed: fire(claimed, Event.LOST, rows.args("reaper")))
        else:
            store.work(lambda claimed=claimed: fire(claimed, Event.FINISH, rows.args()))
        clock.forward(100)
        faulted = list(pstampJob.select().where(pstampJob.fault > 0, pstampJob.fault_count < 3))
        store.work(lambda faulted=faulted: fire(faulted, Event.REVERT, rows.args("revert")))
    counts = {job.job_id: (job.state, job.fault_count) for job in pstampJob.select()}
    assert counts.pop(killer.job_id) == (JobState.RUN, 3)
    assert set(counts.values()) == {(JobState.STOP, 1)}


def test_at_most_the_limit_is_claimed(store: Store, rows: Rows) -> None:
    jobs = [rows.job(image="a") for _ in range(5)]
    sizes = [len(store.work(lambda: store.claim_jobs(rows.args(), 2))) for _ in range(4)]
    assert sizes == [2, 2, 1, 0]
    assert {job.attempt for job in pstampJob.select()} == {1}
    assert len(jobs) == 5


def test_the_image_of_the_most_urgent_job_goes_first(store: Store, rows: Rows) -> None:
    rows.label("urgent", 20000)
    rows.job(rows.request(label="slow"), image="a")
    rows.job(rows.request(label="urgent"), image="b")
    claimed = store.work(lambda: store.claim_jobs(rows.args(), 10))
    assert [job.image for job in claimed] == ["b"]


def test_only_jobs_that_can_run_are_claimed_with_the_image(store: Store, rows: Rows) -> None:
    job = rows.job(image="a")
    rows.job(image="a", retry_at=NOW + 1)
    rows.job(image="a", dep_id=rows.dependent().dep_id)
    rows.job(rows.request(RequestState.CANCEL), image="a")
    claimed = store.work(lambda: store.claim_jobs(rows.args(), 10))
    assert [each.job_id for each in claimed] == [job.job_id]


def test_a_claim_takes_a_handful_of_statements(store: Store, rows: Rows) -> None:
    request = rows.request()
    store.work(lambda: make_jobs(request, [{"image": f"{n % 7}"} for n in range(1000)], now=NOW, who="w"))

    def work() -> int:
        with count_queries() as counter:
            claimed = store.claim_jobs(rows.args(), 100)
        assert counter.count == 4  # the images, the jobs of the first, their claim, their history
        return len(claimed)

    assert store.work(work) == 100


# -- two workers


def test_two_workers_never_get_the_same_job(store: Store, other: Store, rows: Rows) -> None:
    jobs = [rows.job(image=image) for image in "aabbccddee"]
    taken: dict[str, list[int]] = {"w1": [], "w2": []}
    while True:
        one = store.work(lambda: store.claim_jobs(rows.args("w1"), 1))
        two = other.work(lambda: other.claim_jobs(rows.args("w2"), 2))
        if not one and not two:
            break
        taken["w1"] += [job.job_id for job in one]
        taken["w2"] += [job.job_id for job in two]
    assert sorted(taken["w1"] + taken["w2"]) == [job.job_id for job in jobs]
    for job in pstampJob.select():
        assert job.job_id in taken[job.lease_owner]
        assert job.attempt == 1


@pytest.fixture
def quicker(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[pstampJob]], None]:
    """Let another worker take jobs between the look at the queue and the claim, as it can at READ COMMITTED."""

    def take(jobs: list[pstampJob]) -> None:
        def late(*args: Any, **options: Any) -> Any:
            monkeypatch.undo()
            theirs = pstampJob.job_id.in_([job.job_id for job in jobs])
            pstampJob.update(lease_owner="w2", lease_until=NOW + SECOND, attempt=1).where(theirs).execute()
            return fire(*args, **options)

        monkeypatch.setattr("pstamp_core.store.store.fire", late)

    return take


def test_a_claim_leaves_out_what_another_was_quicker_to_take(
    store: Store, rows: Rows, quicker: Callable[[list[pstampJob]], None]
) -> None:
    jobs = [rows.job() for _ in range(3)]
    quicker(jobs[:2])
    claimed = store.work(lambda: store.claim(jobs_to_run(NOW), rows.args(), 10))
    assert [job.job_id for job in claimed] == [jobs[2].job_id]


def test_a_worker_whose_candidates_were_all_taken_goes_to_the_next_image(
    store: Store, rows: Rows, quicker: Callable[[list[pstampJob]], None]
) -> None:
    first, second = rows.job(image="a"), rows.job(image="b")
    quicker([first])
    claimed = store.work(lambda: store.claim_jobs(rows.args(), 10))
    assert [job.job_id for job in claimed] == [second.job_id]


def test_a_worker_that_lost_a_race_looks_anywhere_in_the_request(
    store: Store, rows: Rows, quicker: Callable[[list[pstampJob]], None]
) -> None:
    request = rows.request()
    jobs = [rows.job(request, image=f"{number}") for number in range(10)]
    quicker(jobs[:1])
    claimed = set()
    for seed in range(30):
        random.seed(seed)
        with store.db.atomic() as transaction:
            (job,) = store.claim_jobs(rows.args(), 1)
            claimed.add(job.job_id)
            transaction.rollback()
            if seed < 29:
                quicker(jobs[:1])
    assert jobs[0].job_id not in claimed
    assert len(claimed) > 5


def test_a_request_that_is_not_served_any_more_ends_the_search(
    store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its label is switched off while a worker loses a race for its jobs."""
    rows.label("x")
    request = rows.request(label="x")
    for number in range(3):
        rows.job(request, image=f"{number}")

    def late(*args: Any, **options: Any) -> Any:
        Label.update(active=False).execute()
        return []

    monkeypatch.setattr("pstamp_core.store.store.fire", late)
    assert store.work(lambda: store.claim_jobs(rows.args(), 10)) == []


@pytest.mark.parametrize("pile", ["to run", "finished", "finished, of the same image"])
def test_a_claim_is_no_more_work_when_jobs_pile_up(store: Store, rows: Rows, pile: str) -> None:
    efforts = []
    request = rows.request()
    old = request if pile == "to run" else rows.request(RequestState.STOP)
    state = JobState.RUN if pile == "to run" else JobState.STOP
    fresh = {"req_id": request.req_id, "state": JobState.RUN}
    pstampJob.insert_many([{**fresh, "image": f"{n % 20}"} for n in range(60)]).execute()
    for more in (0, 3000):
        image = "0" if pile.endswith("same image") else ""
        for start in range(0, more, 500):
            jobs = [{"req_id": old.req_id, "state": state, "image": image or f"x{start + n}"} for n in range(500)]
            pstampJob.insert_many(jobs).execute()
        efforts.append(effort(store, lambda: store.work(lambda: store.claim_jobs(rows.args(), 2))))
    assert efforts[1] < 1.5 * efforts[0]


def rows_read(db: Any) -> int:
    return sum(int(number) for _, number in db.execute_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").fetchall())


def effort(store: Store, work: Callable[[], Any]) -> int:
    """Return how much the database has to do for `work`, whatever else the machine does: steps, or rows it looks at."""
    db: Any = store.db
    if isinstance(db, MySQLDatabase):
        for table in ("pstampRequest", "pstampJob", "Label"):
            db.execute_sql(f"ANALYZE TABLE {table}").fetchall()
        before = rows_read(db)
        work()
        return rows_read(db) - before
    steps = count(1)
    db.connection().set_progress_handler(lambda: next(steps) and None, 1)
    work()
    db.connection().set_progress_handler(None, 1)
    return next(steps)


def test_a_lost_lease_comes_back_by_reaping_and_reverting(store: Store, rows: Rows, do: Do, clock: Clock) -> None:
    job = do(rows.job(), Event.CLAIM)
    clock.forward(61)
    assert listed("run", clock.now) == []
    job = do(job, Event.LOST, "reaper")
    assert listed("run", clock.now) == []
    clock.forward(10)
    job = do(job, Event.REVERT, ceiling=3)
    assert listed("run", clock.now) == [job.job_id]


# -- the store itself


def test_making_the_tables_again_keeps_the_rows(store: Store, rows: Rows) -> None:
    request = rows.request()
    store.create()
    assert [each.req_id for each in pstampRequest.select()] == [request.req_id]


def test_the_databases_clock_is_utc_microseconds(address: str) -> None:
    store = Store(address)
    store.create()
    with store.reading():
        before, now, after = time(), store.now(), time()
        assert (before - 0.002) * SECOND <= now <= (after + 0.002) * SECOND
        assert store.now() >= now


def test_a_store_without_tables_says_so(tmp_path: Path) -> None:
    empty = Store(str(tmp_path / "empty.db"))
    with pytest.raises(RetryableError, match=r"^database .*empty\.db: no such table: pstampRequest$"), empty.reading():
        list(requests_to_parse(NOW))
