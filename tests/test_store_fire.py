"""`fire`, the one way to change a state; `make` and `make_jobs`, the two ways in which rows are made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import NOW, SECOND, Clock, Rows, check_history
from peewee import IntegrityError
from playhouse.test_utils import count_queries

from pstamp_core import database
from pstamp_core.faults import Bug, FinalError, IllegalTransition, LeaseLost, RetryableError, Stale
from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.store import (
    MACHINES,
    Store,
    Worked,
    fire,
    make,
    make_jobs,
    moment,
    pstampDependent,
    pstampHistory,
    pstampJob,
    pstampRequest,
)

Do = Callable[..., Any]
Reread = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.time, "sleep", lambda _: None)


def history(machine: str = "job") -> list[dict[str, Any]]:
    columns = [field for field in pstampHistory._meta.sorted_fields if field.name not in ("hist_id", "machine")]
    return list(
        pstampHistory.select(*columns).where(pstampHistory.machine == machine).order_by(pstampHistory.hist_id).dicts()
    )


def data(row: Worked) -> dict[str, Any]:
    return dict(row.__data__)


# -- one row


def test_a_claim_changes_the_row_and_leaves_a_line(store: Store, rows: Rows, do: Do, reread: Reread) -> None:
    job = rows.job()
    before = data(job)
    changed = do(job, Event.CLAIM)
    expected = {
        **before, "attempt": 1, "lease_owner": "w1", "lease_until": NOW + 60 * SECOND, "changed_at": NOW,
    }  # fmt: skip
    assert data(changed) == data(reread(job)) == expected
    assert history() == [
        {
            "row_id": job.job_id, "event": "claim", "source": "run", "dest": "run", "fault": 0, "cause": 0,
            "attempt": 1, "who": "w1", "at": NOW, "note": "",
        }
    ]  # fmt: skip


def test_the_row_given_stays_as_it_was_read(store: Store, rows: Rows, do: Do) -> None:
    job = rows.job()
    before = data(job)
    assert do(job, Event.CLAIM) is not job
    assert data(job) == before


def test_a_fault_is_in_the_line_with_its_note(store: Store, rows: Rows, do: Do, clock: Clock) -> None:
    job = do(rows.job(), Event.CLAIM)
    clock.forward(1)
    store.work(lambda: fire([job], Event.FAULT, rows.args(fault=2, who="me"), note="disk full"))
    assert history()[-1] == {
        "row_id": job.job_id, "event": "fault", "source": "run", "dest": "run", "fault": 2, "cause": 2,
        "attempt": 1, "who": "me", "at": NOW + SECOND, "note": "disk full",
    }  # fmt: skip


def test_further_columns_are_set_too(store: Store, rows: Rows, do: Do, reread: Reread) -> None:
    job = do(rows.job(), Event.CLAIM)
    (done,) = store.work(lambda: fire([job], Event.FINISH, rows.args(), result="{}", sentence="well"))
    assert (done.result, done.sentence) == ("{}", "well")
    assert data(reread(job)) == data(done)


@pytest.mark.parametrize("column", ["state", "fault", "attempt", "lease_owner", "lease_until", "cause", "changed_at"])
def test_the_machines_columns_can_not_be_set_beside_it(store: Store, rows: Rows, column: str) -> None:
    with pytest.raises(Bug, match=f"^claim: {column} is for the machine to set$"):
        store.work(lambda: fire([rows.job()], Event.CLAIM, rows.args(), **{column: 1}))


def test_a_heartbeat_leaves_no_line_and_is_no_change(
    store: Store, rows: Rows, do: Do, reread: Reread, clock: Clock
) -> None:
    job = do(rows.job(), Event.CLAIM)
    clock.forward(5)
    beaten = do(job, Event.HEARTBEAT)
    assert beaten.lease_until == NOW + 65 * SECOND
    assert [line["event"] for line in history()] == ["claim"]
    assert reread(job).changed_at == NOW


def test_a_heartbeat_that_changes_nothing_keeps_the_lease(store: Store, rows: Rows, do: Do) -> None:
    """MySQL counts only rows that it changes, unless told otherwise."""
    job = do(rows.job(), Event.CLAIM)
    assert data(do(job, Event.HEARTBEAT)) == data(job)


def test_a_look_at_a_dependent_leaves_no_line(store: Store, rows: Rows, do: Do, clock: Clock) -> None:
    dependent = store.work(
        lambda: make(
            pstampDependent, now=NOW, who="parse", state=DependentState.NEW, open_key="k",
            stage="warp", stage_id=1, component="skycell.1", imagedb="gpc1",
        )
    )  # fmt: skip
    for _ in range(2):
        dependent = do(do(dependent, Event.CLAIM), Event.RELEASE)
        clock.forward(5)
    do(do(dependent, Event.CLAIM), Event.SATISFY)
    assert [(line["event"], line["attempt"]) for line in history("dependent")] == [("make", 0), ("satisfy", 3)]
    check_history(pstampDependent)


def test_nothing_is_done_for_no_rows(store: Store, rows: Rows) -> None:
    with count_queries() as counter:
        assert fire([], Event.CLAIM, rows.args()) == []
    assert counter.count == 0


def test_a_refusal_changes_nothing(store: Store, rows: Rows, reread: Reread) -> None:
    job = rows.job(state=JobState.STOP)
    with pytest.raises(IllegalTransition, match=f"^job {job.job_id}: claim refused"):
        store.work(lambda: fire([job], Event.CLAIM, rows.args()))
    assert data(reread(job)) == data(job)
    assert history() == []


@pytest.mark.parametrize("way", ["fire", "make", "make_jobs"])
def test_outside_a_unit_of_work_nothing_is_written(store: Store, rows: Rows, way: str, reread: Reread) -> None:
    """Else a row could change and its line of history be lost."""
    job = rows.job()
    ways: dict[str, Callable[[], Any]] = {
        "fire": lambda: fire([job], Event.CLAIM, rows.args()),
        "make": lambda: make(pstampJob, now=NOW, who="w1", state=JobState.RUN, req_id=job.request_id),
        "make_jobs": lambda: make_jobs(job.req_id, [{"state": JobState.RUN}], now=NOW, who="w1"),
    }
    with pytest.raises(Bug, match=f"^{way}: must be called within a unit of work$"):
        ways[way]()
    assert data(reread(job)) == data(job)
    assert pstampJob.select().count() == 1
    assert history() == []


def test_without_its_line_of_history_no_row_changes(
    store: Store, rows: Rows, reread: Reread, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rows.job()

    def broken(*_: Any) -> None:
        raise IntegrityError("history is full")

    monkeypatch.setattr(pstampHistory, "insert_many", broken)
    with pytest.raises(RetryableError, match="history is full"):
        store.work(lambda: fire([job], Event.CLAIM, rows.args()))
    assert data(reread(job)) == data(job)


def test_a_held_row_may_be_fired_again_when_the_unit_is_redone(store: Store, rows: Rows, do: Do) -> None:
    """The first try is rolled back, e.g. by a deadlock; the row in memory must not be ahead of the database."""
    job = do(rows.job(), Event.CLAIM)
    tries = []

    def work() -> Any:
        tries.append(1)
        (done,) = fire([job], Event.FINISH, rows.args())
        if len(tries) == 1:
            raise Stale("once")
        return done

    assert store.work(work).state is JobState.STOP
    assert [line["event"] for line in history()] == ["claim", "finish"]


# -- races: what another connection changed since the row was read

SEEN = {
    "state": {"state": JobState.STOP}, "fault": {"fault": 5}, "attempt": {"attempt": 9},
    "lease_owner": {"lease_owner": "w2"},
}  # fmt: skip


def behind_the_back(other: Store, job: pstampJob, values: dict[str, Any]) -> None:
    other.work(lambda: pstampJob.update(values).where(pstampJob.job_id == job.job_id).execute())


def unchanged_by(job: pstampJob, values: dict[str, Any], reread: Reread) -> None:
    assert data(reread(job)) == {**data(job), **values}


@pytest.mark.parametrize("what", SEEN)
@pytest.mark.parametrize("event", [Event.HEARTBEAT, Event.FINISH, Event.FAULT, Event.RELEASE])
def test_a_worker_that_was_overtaken_gets_lease_lost(
    store: Store, other: Store, rows: Rows, do: Do, reread: Reread, what: str, event: Event
) -> None:
    job = do(rows.job(), Event.CLAIM)
    behind_the_back(other, job, SEEN[what])
    lines = history()
    with pytest.raises(LeaseLost) as refusal:
        store.work(lambda: fire([job], event, rows.args(fault=2), result="mine"))
    assert str(refusal.value) == f"job {job.job_id}: changed by somebody else meanwhile"
    unchanged_by(job, SEEN[what], reread)
    assert history() == lines


def test_a_workers_own_heartbeats_do_not_cost_it_the_lease(
    store: Store, other: Store, rows: Rows, do: Do, reread: Reread
) -> None:
    job = do(rows.job(), Event.CLAIM)
    behind_the_back(other, job, {"lease_until": NOW + 99 * SECOND})
    assert do(job, Event.FINISH).state is JobState.STOP
    assert reread(job).state is JobState.STOP


@pytest.mark.parametrize("what", [*SEEN, "lease_until"])
@pytest.mark.parametrize("event", [Event.LOST, Event.CANCEL])
def test_anybody_else_who_was_overtaken_gets_stale(
    store: Store, other: Store, rows: Rows, do: Do, reread: Reread, what: str, event: Event, clock: Clock
) -> None:
    job = do(rows.job(), Event.CLAIM)
    clock.forward(61)
    change = SEEN.get(what, {"lease_until": clock.now + 60 * SECOND})
    behind_the_back(other, job, change)
    lines = history()
    with pytest.raises(Stale) as refusal:
        store.work(lambda: fire([job], event, rows.args("reaper")))
    assert str(refusal.value) == f"job {job.job_id}: changed by somebody else meanwhile"
    unchanged_by(job, change, reread)
    assert history() == lines


def test_a_row_that_is_gone_is_stale(store: Store, other: Store, rows: Rows) -> None:
    job = rows.job()
    other.work(lambda: pstampJob.delete().execute())
    with pytest.raises(Stale):
        store.work(lambda: fire([job], Event.CANCEL, rows.args()))
    assert history() == []


def test_stale_is_redone_with_the_row_as_it_is_now(store: Store, other: Store, rows: Rows, do: Do) -> None:
    """The reaper reads a lapsed lease; its holder's heartbeat comes first; the second reading finds nothing to reap."""
    job = do(rows.job(), Event.CLAIM)
    readings = []

    def reap() -> int:
        lapsed = [job] if not readings else list(pstampJob.select().where(pstampJob.lease_until < NOW + 61 * SECOND))
        readings.append(len(lapsed))
        return len(fire(lapsed, Event.LOST, rows.args("reaper", now=NOW + 61 * SECOND)))

    behind_the_back(other, job, {"lease_until": NOW + 99 * SECOND})
    assert store.work(reap) == 0
    assert readings == [1, 0]


@pytest.mark.parametrize("what", [*SEEN, "lease_until", "an older claim of mine"])
def test_in_a_race_the_overtaken_row_is_left_out(
    store: Store, other: Store, rows: Rows, reread: Reread, what: str
) -> None:
    mine, theirs, mine_too = (rows.job(rows.request()) for _ in range(3))
    change = {
        **SEEN, "lease_until": {"lease_until": NOW + 1}, "an older claim of mine": {"lease_owner": "w1", "attempt": 9},
    }[what]  # fmt: skip
    behind_the_back(other, theirs, change)
    claimed = store.work(lambda: fire([mine, theirs, mine_too], Event.CLAIM, rows.args(), race=True))
    assert [job.job_id for job in claimed] == [mine.job_id, mine_too.job_id]
    assert [data(job) for job in claimed] == [data(reread(mine)), data(reread(mine_too))]
    unchanged_by(theirs, change, reread)
    assert [line["row_id"] for line in history()] == [mine.job_id, mine_too.job_id]


# -- many rows


@pytest.fixture
def crowd(store: Store, rows: Rows) -> list[pstampJob]:
    request = rows.request()
    many = [{"state": JobState.RUN, "image": f"image_{number}.fits"} for number in range(2000)]
    store.work(lambda: make_jobs(request, many, now=NOW, who="parse"))
    return list(pstampJob.select().order_by(pstampJob.job_id))


def test_thousands_are_changed_in_a_few_statements(store: Store, rows: Rows, crowd: list[pstampJob]) -> None:
    def work() -> list[pstampJob]:
        with count_queries() as counter:
            changed = fire(crowd, Event.CLAIM, rows.args())
        assert counter.count == 8  # 4 updates of 500 rows, 4 insertions of 500 lines
        return changed

    changed = store.work(work)
    assert [job.job_id for job in changed] == [job.job_id for job in crowd]
    assert pstampJob.select().where((pstampJob.attempt == 1) & (pstampJob.lease_owner == "w1")).count() == 2000
    check_history(pstampJob)


def test_thousands_are_made_in_a_few_statements(store: Store, rows: Rows) -> None:
    request = rows.request()

    def work() -> None:
        with count_queries() as counter:
            make_jobs(request, [{"state": JobState.RUN}] * 2000, now=NOW, who="parse")
        assert counter.count == 10  # the last number, 4 insertions, reading back, 4 insertions of lines

    store.work(work)
    check_history(pstampJob)


def test_all_or_none(store: Store, other: Store, rows: Rows, crowd: list[pstampJob]) -> None:
    """One row of thousands was changed behind our back: none changes."""
    behind_the_back(other, crowd[1999], {"fault": 3})
    lines = pstampHistory.select().count()
    with pytest.raises(Stale) as refusal:
        store.work(lambda: fire(crowd, Event.CANCEL, rows.args()))
    listed = ", ".join(str(job.job_id) for job in crowd[1500:1505])
    assert str(refusal.value) == f"job {listed} or another of 500: changed by somebody else meanwhile"
    assert pstampJob.select().where(pstampJob.state == JobState.RUN).count() == 2000
    assert pstampHistory.select().count() == lines


def test_one_refusal_refuses_all(store: Store, rows: Rows, reread: Reread) -> None:
    fine, ended = rows.job(), rows.job(state=JobState.STOP)
    with pytest.raises(IllegalTransition):
        store.work(lambda: fire([fine, ended], Event.CANCEL, rows.args()))
    assert data(reread(fine)) == data(fine)
    assert history() == []


def test_rows_that_differ_each_change_their_own_way(store: Store, rows: Rows, reread: Reread) -> None:
    """Leases of several attempts and fault counts lapse at once."""
    leased = {"lease_owner": "dead", "lease_until": NOW - 1}
    jobs = [rows.job(attempt=n % 3, fault_count=n % 2, cause=n % 2 * 5, **leased) for n in range(12)]
    lost = store.work(lambda: fire(jobs, Event.LOST, rows.args("reaper")))
    assert sorted(job.job_id for job in lost) == [job.job_id for job in jobs]
    for job in jobs:
        after = reread(job)
        assert (after.attempt, after.fault_count) == (job.attempt, job.fault_count + 1)
        assert (after.fault, after.cause, after.lease_owner, after.lease_until) == (6, 6, "", 0)
        assert after.retry_at == NOW + 10 * SECOND * after.fault_count
    assert sorted(line["row_id"] for line in history()) == [job.job_id for job in jobs]


def test_rows_of_many_attempts_take_one_update(store: Store, rows: Rows, reread: Reread) -> None:
    """As many as fit in a statement: a row goes on from its own attempt."""
    request = rows.request()
    pstampJob.insert_many([{"req_id": request.req_id, "attempt": n} for n in range(500)]).execute()
    jobs = list(pstampJob.select())
    with store.db.atomic(), count_queries() as counter:
        claimed = fire(jobs, Event.CLAIM, rows.args(), race=True)
        fire(claimed[:300], Event.HEARTBEAT, rows.args())
    assert counter.count == 3  # an update and an insertion of lines, and an update
    assert [row.attempt for row in claimed] == [job.attempt + 1 for job in jobs]
    assert all(data(reread(row)) == data(row) for row in claimed[300:])


@pytest.mark.parametrize("race", [True, False])
def test_one_of_many_attempts_that_went_on(store: Store, rows: Rows, race: bool) -> None:
    """It is missed, though it is now in an attempt that another row was seen in."""
    jobs = [rows.job(attempt=n) for n in range(5)]
    pstampJob.update(attempt=3).where(pstampJob.job_id == jobs[2].job_id).execute()
    if race:
        claimed = store.work(lambda: fire(jobs, Event.CLAIM, rows.args(), race=True))
        assert [row.job_id for row in claimed] == [job.job_id for job in jobs if job is not jobs[2]]
        assert len(history()) == 4
    else:
        with pytest.raises(Stale, match="changed by somebody else meanwhile"):
            store.work(lambda: fire(jobs, Event.CLAIM, rows.args()))
        assert history() == []
    assert [job.attempt for job in pstampJob.select().order_by(pstampJob.job_id)] == (
        [1, 2, 3, 4, 5] if race else [0, 1, 3, 3, 4]
    )


def test_rows_in_whatever_condition_are_cancelled_at_once(store: Store, rows: Rows, reread: Reread) -> None:
    jobs = [
        rows.job(),
        rows.job(state=JobState.PARSED),  # the same but for its state
        *(
            rows.job(fault=fault, attempt=attempt, lease_owner=owner, lease_until=until)
            for fault in (0, 2, 5)
            for attempt in (1, 2)
            for owner in ("w2", "w3")
            for until in (NOW - 1, NOW + 1)
        ),
    ]
    assert len(store.work(lambda: fire(jobs, Event.CANCEL, rows.args()))) == 26
    for job in jobs:
        change = {"state": JobState.CANCEL, "fault": 32, "lease_owner": "", "lease_until": 0, "changed_at": NOW}
        assert data(reread(job)) == {**data(job), **change}
    assert [line["source"] for line in history()].count("parsed") == 1


# -- dependents and their key


def make_dependent(store: Store, **columns: Any) -> pstampDependent:
    values = {
        "stage": "warp", "stage_id": 1, "component": "skycell.1", "imagedb": "gpc1", "open_key": "gpc1|warp|1",
        "state": DependentState.NEW, **columns,
    }  # fmt: skip
    return store.work(lambda: make(pstampDependent, now=NOW, who="parse", **values))


def test_a_component_has_one_open_dependent(store: Store) -> None:
    make_dependent(store)
    with pytest.raises(RetryableError, match=r"UNIQUE|Duplicate"):
        make_dependent(store)
    assert pstampDependent.select().count() == 1


@pytest.mark.parametrize(
    ("events", "free"),
    [
        ([Event.CLAIM, Event.SATISFY], True),
        ([Event.CLAIM, (Event.FAULT, 26)], True),
        ([(Event.GIVE_UP, 25)], True),
        ([Event.HOLD, (Event.GIVE_UP, 25)], True),
        ([Event.CLAIM], False),
        ([Event.CLAIM, (Event.FAULT, 2)], False),
        ([Event.HOLD], False),
        ([Event.HOLD, Event.UNHOLD], False),
    ],
)
def test_a_closed_dependent_frees_its_key(store: Store, do: Do, reread: Reread, events: list[Any], free: bool) -> None:
    dependent = make_dependent(store)
    for event in events:
        dependent = do(dependent, event[0], fault=event[1]) if isinstance(event, tuple) else do(dependent, event)
    assert dependent.open_key == reread(dependent).open_key == (None if free else "gpc1|warp|1")
    if free:
        assert make_dependent(store).dep_id != dependent.dep_id
    check_history(pstampDependent)


def test_many_closed_dependents_of_one_component_may_stand(store: Store, do: Do) -> None:
    for _ in range(3):
        do(do(make_dependent(store), Event.CLAIM), Event.SATISFY)
    assert pstampDependent.select().where(pstampDependent.open_key.is_null()).count() == 3


# -- making rows


def test_a_request_begins_with_a_line(store: Store) -> None:
    request = store.work(
        lambda: make(
            pstampRequest, now=NOW, who="someone", note="by mail", state=RequestState.NEW, name="r", uri="a.fits",
            registered=moment(NOW), timestamp=moment(NOW),
        )
    )  # fmt: skip
    assert history("request") == [
        {
            "row_id": request.req_id, "event": "make", "source": "", "dest": "new", "fault": 0, "cause": 0,
            "attempt": 0, "who": "someone", "at": NOW, "note": "by mail",
        }
    ]  # fmt: skip
    check_history(pstampRequest)


def test_a_row_made_without_a_state_begins_in_the_first(store: Store) -> None:
    at = moment(NOW)
    made = store.work(lambda: make(pstampRequest, now=NOW, who="w", uri="a", registered=at, timestamp=at))
    assert made.state is RequestState.NEW
    assert make_dependent(store).state is DependentState.NEW
    store.work(lambda: make_jobs(made, [{"image": "a.fits"}], now=NOW, who="w"))
    assert pstampJob.get().state is JobState.RUN
    for table in MACHINES:
        check_history(table)


@pytest.mark.parametrize(
    ("state", "fault", "fine"),
    [
        (JobState.RUN, 0, True), (JobState.PARSED, 0, True), (JobState.STOP, 0, False), (JobState.STOP, 23, True),
        (JobState.RUN, 2, False), (JobState.RUN, 23, False), (JobState.PARSED, 2, False), (JobState.STOP, 2, False),
        (JobState.CANCEL, 32, False), (JobState.STOP, -1, False),
    ],
)  # fmt: skip
def test_jobs_are_made_in_an_initial_state_with_a_code_that_goes_with_it(
    store: Store, rows: Rows, state: JobState, fault: int, fine: bool
) -> None:
    request = rows.request()
    ways: list[Callable[[], Any]] = [
        lambda: make(pstampJob, now=NOW, who="w", req_id=request.req_id, state=state, fault=fault),
        lambda: make_jobs(request, [{"state": JobState.RUN}, {"state": state, "fault": fault}], now=NOW, who="w"),
        lambda: make_jobs(request, [{"state": JobState.RUN, "fault": 0}, {"state": state, "fault": fault}],
                          now=NOW, who="w"),
    ]  # fmt: skip
    if fine:
        store.work(ways[0])
        store.work(ways[2])
        assert pstampJob.select().where((pstampJob.state == state) & (pstampJob.fault == fault)).count() >= 2
        check_history(pstampJob)
    else:
        for way in ways:
            with pytest.raises(Bug):
                store.work(way)
        assert pstampJob.select().count() == pstampHistory.select().count() == 0


@pytest.mark.parametrize(
    "state", [RequestState.RUN, RequestState.STOP, RequestState.CANCEL, RequestState.CLEANED, RequestState.PARSED]
)
def test_a_request_is_made_new(store: Store, state: RequestState) -> None:
    with pytest.raises(Bug) as refusal:
        store.work(lambda: make(pstampRequest, now=NOW, who="w", state=state, uri="a"))
    assert str(refusal.value) == f"request: can't be made {state.value} with fault 0"
    assert pstampRequest.select().count() == 0


def test_jobs_that_name_different_columns_are_refused(store: Store, rows: Rows) -> None:
    """One INSERT has one list of columns: what only the second job names would be lost without a word."""
    request = rows.request()
    jobs = [{"state": JobState.RUN}, {"state": JobState.RUN, "outputBase": "b"}]
    with pytest.raises(Bug, match=r"^make_jobs: the jobs name different columns$"):
        store.work(lambda: make_jobs(request, jobs, now=NOW, who="w"))
    assert pstampJob.select().count() == 0


def test_jobs_belong_to_their_request_and_only_new_ones_get_a_line(store: Store, rows: Rows) -> None:
    one, two = rows.request(), rows.request()
    for request in (one, two, one):
        store.work(lambda request=request: make_jobs(request, [{"rownum": "1"}, {"rownum": "2"}], now=NOW, who="w"))
    assert [job.request_id for job in pstampJob.select().order_by(pstampJob.job_id)] == [
        request.req_id for request in (one, one, two, two, one, one)
    ]
    assert [line["row_id"] for line in history()] == [
        job.job_id for job in pstampJob.select().order_by(pstampJob.job_id)
    ]
    check_history(pstampJob)


def test_no_jobs_are_no_work(store: Store, rows: Rows) -> None:
    store.work(lambda: make_jobs(rows.request(), [], now=NOW, who="w"))
    assert pstampJob.select().count() == pstampHistory.select().count() == 0


def test_jobs_that_fail_leave_nothing(store: Store, rows: Rows) -> None:
    request = rows.request()

    def work() -> None:
        make_jobs(request, [{"state": JobState.RUN}] * 3, now=NOW, who="w")
        raise FinalError("disk full")

    with pytest.raises(FinalError):
        store.work(work)
    assert pstampJob.select().count() == pstampHistory.select().count() == 0


def test_deleting_a_request_deletes_its_jobs(store: Store, rows: Rows) -> None:
    request, kept = rows.request(), rows.request()
    rows.job(request)
    job = rows.job(kept)
    store.work(lambda: pstampRequest.delete().where(pstampRequest.req_id == request.req_id).execute())
    assert [each.job_id for each in pstampJob.select()] == [job.job_id]


# -- a life, from end to end


def test_a_request_lives(store: Store, rows: Rows, do: Do, clock: Clock) -> None:
    at = moment(clock.now)
    request = store.work(lambda: make(pstampRequest, now=NOW, who="w", uri="a", registered=at, timestamp=at))
    request = do(request, Event.CLAIM)
    clock.forward(61)
    request = do(request, Event.LOST, "reaper")
    assert (request.fault, request.cause, request.fault_count) == (6, 6, 1)
    clock.forward(10)
    request = do(do(request, Event.REVERT, ceiling=3), Event.CLAIM)

    def parse() -> Any:
        (parsed,) = fire([request], Event.PARSE, rows.args(), outdir="/srv/1")
        make_jobs(request, [{"rownum": "1"}, {"rownum": "2"}], now=clock.now, who="w1")
        return parsed

    request = store.work(parse)
    assert (request.state, request.fault_count, request.attempt) == (RequestState.RUN, 0, 2)
    good, bad = pstampJob.select().order_by(pstampJob.job_id)
    do(do(good, Event.CLAIM), Event.FINISH)
    bad = do(do(bad, Event.CLAIM), Event.FAULT, fault=5)
    clock.forward(10)
    bad = do(bad, Event.GIVE_UP, fault=25)
    assert (bad.state, bad.fault, bad.cause) == (JobState.STOP, 25, 5)
    for event in (Event.CLAIM, Event.FINISH, Event.EXPIRE, Event.CLAIM, Event.CLEAN):
        request = do(request, event)
    assert (request.state, request.lease_owner, request.fault) == (RequestState.CLEANED, "", 0)
    for table in MACHINES:
        check_history(table)


def test_moment() -> None:
    assert moment(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert moment(1_800_000_000_123_457) == datetime(2027, 1, 15, 8, 0, 0, 123457, UTC)
