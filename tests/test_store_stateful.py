"""Random lives of jobs on a real SQLite file, with two connections, beside a model in plain Python.

After every step each row equals its model, and its history is a legal chain that ends in the row. A worker keeps the
rows of its old claims and fires on them again: late, twice, or after the job became another's.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from conftest import SECOND, Rows
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from pstamp_core.faults import IllegalTransition, LeaseLost
from pstamp_core.machines import Event, JobState
from pstamp_core.store import (
    Store,
    fire,
    jobs_to_run,
    make,
    make_jobs,
    moment,
    open_jobs,
    pstampJob,
    pstampRequest,
    requests_to_finish,
    requests_to_parse,
)
from pstamp_core.testing import Clock, check_history, temporary_store

LEASE, BACK_OFF, CEILING = 60 * SECOND, 10 * SECOND, 3
WORKERS = ("w1", "w2", "w3")


@dataclass
class Job:
    """What a job should be."""

    request: int
    image: str
    state: str
    fault: int = 0
    fault_count: int = 0
    cause: int = 0
    attempt: int = 0
    lease_owner: str = ""
    lease_until: int = 0
    retry_at: int = 0

    def free(self) -> None:
        self.lease_owner, self.lease_until = "", 0

    def fail(self, fault: int, now: int) -> None:
        self.free()
        self.fault = fault
        self.fault_count += 1
        if fault < 10:
            self.cause = fault
            self.retry_at = now + BACK_OFF * self.fault_count
        else:
            self.state, self.cause = "stop", 0

    def is_faulted(self) -> bool:
        return self.state == "run" and 0 < self.fault < 10 and not self.lease_owner


class Lives(RuleBasedStateMachine):
    """The rules of the game."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.clock = Clock()
        self.rows = Rows(self.clock)
        first = self.stack.enter_context(temporary_store(self.clock))
        second = Store(first.db.database, self.clock)
        self.stack.callback(second.db.close)
        self.stores = [first, second]
        self.jobs: dict[int, Job] = {}
        self.requests: dict[int, str] = {}

    def teardown(self) -> None:
        self.stack.close()

    def fire(self, rows: list[Any], event: Event, owner: str, **args: Any) -> Any:
        """Fire through the connection of that worker."""
        store = self.stores[WORKERS.index(owner) % 2] if owner in WORKERS else self.stores[0]
        return store.work(lambda: fire(rows, event, self.rows.args(owner, **args)))

    def read(self, numbers: list[int]) -> list[pstampJob]:
        return list(pstampJob.select().where(pstampJob.job_id.in_(numbers)).order_by(pstampJob.job_id))

    # -- requests

    @initialize()
    def begin(self) -> None:
        self.submit(["a", "b"], preview=False)

    @rule(images=st.lists(st.sampled_from("abc"), min_size=1, max_size=3), preview=st.booleans())
    def submit(self, images: list[str], preview: bool) -> None:
        store, at = self.stores[0], moment(self.clock.now)

        def submission() -> Any:
            return make(pstampRequest, now=self.clock.now, who="user", uri="x", registered=at, timestamp=at)

        number = store.work(submission).req_id
        (request,) = store.work(lambda: store.claim(requests_to_parse(self.clock.now), self.rows.args(), 9))
        assert request.req_id == number

        def parse() -> None:
            state = JobState.PARSED if preview else JobState.RUN
            fire([request], Event.PREVIEW if preview else Event.PARSE, self.rows.args())
            make_jobs(request, [{"image": image, "state": state} for image in images], now=self.clock.now, who="parse")

        before = set(self.jobs)
        store.work(parse)
        word = "parsed" if preview else "run"
        self.requests[number] = word
        made = [job.job_id for job in pstampJob.select().order_by(pstampJob.job_id) if job.job_id not in before]
        for job, image in zip(made, images, strict=True):
            self.jobs[job] = Job(number, image, word)

    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        parsed = sorted(number for number, state in self.requests.items() if state == "parsed")
        if not parsed:
            return
        number = data.draw(st.sampled_from(parsed))
        waiting = [job for job, each in self.jobs.items() if each.request == number and each.state == "parsed"]

        def work() -> None:
            fire([pstampRequest.get_by_id(number)], Event.ACCEPT, self.rows.args("user"))
            fire(self.read(waiting), Event.ACCEPT, self.rows.args("user"))

        self.stores[1].work(work)
        self.requests[number] = "run"
        for job in waiting:
            self.jobs[job].state = "run"

    @rule(owner=st.sampled_from(WORKERS))
    def publish(self, owner: str) -> None:
        still_open = {job.request for job in self.jobs.values() if job.state in ("parsed", "run")}
        expected = sorted(
            number for number, state in self.requests.items() if state == "run" and number not in still_open
        )
        store = self.stores[1]
        args = self.rows.args(owner)
        claimed = store.work(lambda: store.claim(requests_to_finish(self.clock.now), args, 99))
        assert [request.req_id for request in claimed] == expected
        for request in claimed:
            self.fire([request], Event.FINISH, owner, open_jobs=open_jobs(request))
            self.requests[request.req_id] = "stop"

    # -- workers

    def claimable(self) -> list[int]:
        return sorted(
            number
            for number, job in self.jobs.items()
            if job.state == "run" and not job.fault and not job.lease_owner
            and job.retry_at <= self.clock.now and self.requests[job.request] == "run"
        )  # fmt: skip

    @rule(target=claims, owner=st.sampled_from(WORKERS), limit=st.integers(1, 3))
    def claim(self, owner: str, limit: int) -> Any:
        able = self.claimable()
        expected = [number for number in able if self.jobs[number].image == self.jobs[able[0]].image][:limit]
        store = self.stores[WORKERS.index(owner) % 2]
        claimed = store.work(lambda: store.claim_jobs(self.rows.args(owner), limit))
        assert [job.job_id for job in claimed] == expected
        for number in expected:
            job = self.jobs[number]
            job.attempt += 1
            job.lease_owner, job.lease_until = owner, self.clock.now + LEASE
        return multiple(*claimed)

    def held(self, row: pstampJob) -> Job | None:
        """Return the model of a job if its lease is still that of the claim that gave `row`."""
        job = self.jobs[row.job_id]
        mine = (job.state, job.fault, job.attempt, job.lease_owner) == ("run", 0, row.attempt, row.lease_owner)
        return job if mine else None

    def by_worker(self, row: pstampJob, event: Event, **args: Any) -> Job | None:
        """Fire a worker's event on the row of a claim, however old; return the model of the job if it went through."""
        job = self.held(row)
        try:
            self.fire([row], event, row.lease_owner, **args)
        except LeaseLost:
            assert job is None
        else:
            assert job is not None
        return job

    @rule(row=claims)
    def heartbeat(self, row: pstampJob) -> None:
        if job := self.by_worker(row, Event.HEARTBEAT):
            job.lease_until = self.clock.now + LEASE

    @rule(row=claims)
    def finish(self, row: pstampJob) -> None:
        if job := self.by_worker(row, Event.FINISH):
            job.free()
            job.state, job.cause, job.retry_at = "stop", 0, 0

    @rule(row=claims, fault=st.sampled_from([1, 2, 6, 9, 10, 25, 28, 255]))
    def fault(self, row: pstampJob, fault: int) -> None:
        if job := self.by_worker(row, Event.FAULT, fault=fault):
            job.fail(fault, self.clock.now)

    @rule(row=claims, seconds=st.integers(0, 100))
    def release(self, row: pstampJob, seconds: int) -> None:
        if job := self.by_worker(row, Event.RELEASE, delay=seconds * SECOND):
            job.free()
            job.retry_at = self.clock.now + seconds * SECOND

    @rule(row=consumes(claims))
    def finish_late(self, row: pstampJob) -> None:
        """Let the lease run out and the job go to another before its first worker comes back with a result."""
        if self.held(row) and self.requests[self.jobs[row.job_id].request] == "run":
            self.pass_time(61)
            self.reap()
            self.pass_time(100)
            self.operator_reverts(row.job_id)
            self.claim_one(row.job_id, row.lease_owner)
        self.finish(row)

    def claim_one(self, number: int, owner: str) -> None:
        """Claim a job again, for a worker of the same name."""
        job = self.jobs[number]
        store = self.stores[1]
        query = jobs_to_run(self.clock.now).where(pstampJob.job_id == number)
        assert len(store.work(lambda: store.claim(query, self.rows.args(owner), 1))) == 1
        job.attempt += 1
        job.lease_owner, job.lease_until = owner, self.clock.now + LEASE

    # -- time, and those who look after things

    @rule(seconds=st.sampled_from([1, 9, 10, 30, 60, 61, 3600]))
    def pass_time(self, seconds: int) -> None:
        self.clock.forward(seconds)

    @rule()
    def reap(self) -> None:
        lapsed = sorted(
            number for number, job in self.jobs.items() if job.lease_owner and job.lease_until < self.clock.now
        )
        self.fire(self.read(lapsed), Event.LOST, "reaper")
        for number in lapsed:
            self.jobs[number].fail(6, self.clock.now)

    @rule()
    def revert(self) -> None:
        able = [
            number
            for number, job in self.jobs.items()
            if job.is_faulted() and job.fault_count < CEILING and job.retry_at <= self.clock.now
        ]
        self.fire(self.read(able), Event.REVERT, "revert", ceiling=CEILING)
        for number in able:
            self.jobs[number].fault = self.jobs[number].retry_at = 0

    @rule(data=st.data())
    def operator_reverts_any(self, data: st.DataObject) -> None:
        self.operator_reverts(data.draw(st.sampled_from(sorted(self.jobs))))

    def operator_reverts(self, number: int) -> None:
        job = self.jobs[number]
        able = job.is_faulted()
        try:
            self.fire(self.read([number]), Event.REVERT, "operator")
        except IllegalTransition:
            assert not able
        else:
            assert able
            job.fault = job.retry_at = 0

    @rule()
    def give_up(self) -> None:
        able = [number for number, job in self.jobs.items() if job.is_faulted() and job.fault_count >= CEILING]
        self.fire(self.read(able), Event.GIVE_UP, "give up", fault=25)
        for number in able:
            self.jobs[number].state, self.jobs[number].fault = "stop", 25

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[number]
        able = job.state in ("parsed", "run")
        try:
            self.fire(self.read([number]), Event.CANCEL, "user")
        except IllegalTransition:
            assert not able
        else:
            assert able
            job.free()
            job.state, job.fault = "cancel", 32

    # -- what holds after every step

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        columns = "req_id, image, state, fault, fault_count, cause, attempt, lease_owner, lease_until, retry_at"
        db = self.stores[0].db
        rows = db.execute_sql(f"SELECT job_id, {columns} FROM pstampJob")  # noqa: S608
        found = {number: Job(*values) for number, *values in rows}
        assert found == self.jobs
        assert dict(db.execute_sql("SELECT req_id, state FROM pstampRequest")) == self.requests

    @invariant()
    def histories_are_legal(self) -> None:
        check_history(pstampJob)
        check_history(pstampRequest)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
