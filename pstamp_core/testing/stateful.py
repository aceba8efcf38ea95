"""Random lives of requests, jobs and dependents on a real database, beside a model in plain Python.

The rules of `Lives` are made from the tables of the machines: each event of each machine is fired through what the
tasks use, at rows in all conditions, by two workers with a connection each. They keep the rows of their old claims and
of queues once listed, and come back with them: late, twice, or after the work became another's. The model was written
from the design, not from the tables: an event it does not know fails. After every step the rows must be as the model
says, and all of `pstamp_core.testing.invariants` hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from peewee import fn

from pstamp_core.faults import IllegalTransition, LeaseLost
from pstamp_core.machines import Event, Guard, JobState, Machine
from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.settings import Settings
from pstamp_core.store import (
    MACHINES,
    Store,
    fire,
    make,
    moment,
    open_jobs,
    pstampDependent,
    pstampHistory,
    pstampJob,
    pstampRequest,
)
from pstamp_core.tasks import dependents, operate, retry
from pstamp_core.tasks.parse import Plan, PlannedJob, store_plan
from pstamp_core.tasks.server import TABLE_OF, Server
from pstamp_core.testing.invariants import OPEN, QUEUES, WORKED_ON, Row, World, check, due, look
from pstamp_core.testing.stores import Clock

LEASE, CHECK, COOLDOWN, CEILING = 60 * MICROSECONDS, 5 * MICROSECONDS, 40 * MICROSECONDS, 3
SETTINGS = Settings(
    Path("/nowhere"), lease_seconds=60, check_seconds=5, cooldown_seconds=40, retry_seconds=10, retry_ceiling=CEILING
)
FREE: Row = {"lease_owner": "", "lease_until": 0}
DONE: Row = {**FREE, "fault": 0, "cause": 0, "retry_at": 0}
AFRESH: Row = {**FREE, "fault": 0, "fault_count": 0, "retry_at": 0}
FAULTS = (1, 2, 5, 6, 9, 10, 25, 26, 28, 255)
GIVEN_UP, GONE, CANCELLED = 25, 26, 32

WORKER = st.sampled_from((0, 1))
KIND_OF = {"parse": "request", "finish": "request", "clean": "request", "run": "job", "check": "dependent"}
"""What is in each queue."""
QUEUE = st.sampled_from(list(KIND_OF))
USUAL_END = {"parse": "parse", "finish": "finish", "clean": "clean", "run": "finish", "check": "satisfy"}
"""How the work of each queue ends when all goes well."""
WORKERS_EVENTS = {
    machine.name: [
        event for event in Event if any(edge.event is event and Guard.HELD in edge.guards for edge in machine.edges)
    ]
    for machine in MACHINES.values()
}
"""What only the holder of a lease may fire."""
ORDERS = {
    machine.name: [
        event for event in Event
        if event is not Event.CLAIM and event not in WORKERS_EVENTS[machine.name] and machine.sources(event)
    ]
    for machine in MACHINES.values()
}  # fmt: skip
"""What anybody else fires."""


@dataclass(frozen=True, repr=False)
class Claim:
    """A row as a worker got it with its claim, kept for ever."""

    worker: int
    queue: str
    row: Any

    @property
    def kind(self) -> str:
        """Request, job or dependent."""
        return KIND_OF[self.queue]

    def __repr__(self) -> str:
        return f"claim {self.row.attempt} of {self.kind} {self.row.id_} by {self.row.lease_owner}"


@dataclass(frozen=True)
class By:
    """Who fires an event, when, and with which code."""

    now: int
    owner: str = ""
    fault: int = 0
    cause: int | None = None
    operator: bool = True


class Model:
    """What should be in the tables: plain dicts, changed as the design says (section 3).

    Parameters
    ----------
    unknown : callable
        Gives the numbers of the rows that the database has and the model has not, in order.
    """

    def __init__(self, unknown: Callable[[str], list[int]]) -> None:
        self.rows: dict[str, dict[int, Row]] = {"request": {}, "job": {}, "dependent": {}}
        self.cooling: dict[str, int] = {}  # component -> when its next dependent is tried
        self._unknown = unknown

    def jobs(self, **columns: Any) -> list[tuple[int, Row]]:
        """Return the jobs with these values, and their numbers."""
        return [(n, job) for n, job in self.rows["job"].items() if columns.items() <= job.items()]

    def open_jobs(self, number: int) -> list[tuple[int, Row]]:
        """Return the open jobs of a request."""
        return [(n, job) for n, job in self.jobs(req_id=number) if job["state"] in OPEN]

    def make(self, kind: str, rows: Sequence[Row]) -> list[int]:
        """Expect new rows, in this order; return their numbers."""
        numbers = self._unknown(kind)
        blank = {"fault": 0, "fault_count": 0, "cause": 0, "attempt": 0, **FREE, "retry_at": 0}
        self.rows[kind] |= {n: {**blank, **row} for n, row in zip(numbers, rows, strict=True)}
        return numbers

    # -- one row

    def after(self, kind: str, number: int, event: str, by: By) -> Row | None:
        """Return what `event` should make of a row; None when it should be refused."""
        row = self.rows[kind][number]
        change = self._under_lease(kind, row, event, by) or getattr(self, f"_{kind}")(number, row, event, by)
        return None if change is None else {**row, **change}

    @staticmethod
    def _under_lease(kind: str, row: Row, event: str, by: By) -> Row | None:
        """Return what the life of a lease, which all three have in common, changes."""
        if row["state"] not in WORKED_ON[kind]:
            return None
        free, mine = not row["lease_owner"], row["lease_owner"] == by.owner
        may_revert = free and (0 < row["fault"] < 10 or (kind == "dependent" and by.operator))
        due_again = by.operator or (row["fault_count"] < CEILING and row["retry_at"] <= by.now)
        match event:
            case "claim" if free and row["fault"] == 0 and row["retry_at"] <= by.now:
                return {"attempt": row["attempt"] + 1, "lease_owner": by.owner, "lease_until": by.now + LEASE}
            case "heartbeat" if mine:
                return {"lease_until": by.now + LEASE}
            case "release" if mine:
                return {**FREE, "retry_at": by.now + CHECK}
            case "fault" if mine and by.fault < 10:
                return Model._failed(row, by.fault, by.now)
            case "lost" if not free and row["lease_until"] < by.now:
                return Model._failed(row, 6, by.now)
            case "revert" if may_revert and due_again:
                return {"fault": 0, "retry_at": 0}
        return None

    @staticmethod
    def _failed(row: Row, fault: int, now: int) -> Row:
        count = row["fault_count"] + 1
        wait = min(10 * 2 ** (count - 1), 3600) * MICROSECONDS
        return {**FREE, "fault": fault, "cause": fault, "fault_count": count, "retry_at": now + wait}

    def _request(self, number: int, row: Row, event: str, by: By) -> Row | None:
        mine = row["lease_owner"] == by.owner != ""
        match row["state"], event:
            case "new", ("parse" | "preview") if mine:
                return {**AFRESH, "state": "run" if event == "parse" else "parsed"}
            case "new", "give_up" if row["fault"] and not row["lease_owner"]:
                return {**AFRESH, "state": "run"}
            case "parsed", "accept":
                return {"state": "run"}
            case (("run" | "cancel"), "finish") if mine and not self.open_jobs(number):
                return {**DONE, "state": "stop"}
            case (("new" | "parsed" | "run"), "cancel"):
                return {**AFRESH, "state": "cancel"}
            case "stop", "expire":
                return {**AFRESH, "state": "goto_cleaned"}
            case "goto_cleaned", "clean" if mine:
                return {**DONE, "state": "cleaned"}
        return None

    def _job(self, _: int, row: Row, event: str, by: By) -> Row | None:
        free, mine = not row["lease_owner"], row["lease_owner"] == by.owner != ""
        match row["state"], event:
            case "parsed", "accept":
                return {"state": "run"}
            case "run", "finish" if mine:
                return {**DONE, "state": "stop"}
            case "run", "fault" if mine and by.fault >= 10:
                return {**FREE, "state": "stop", "fault": by.fault, "cause": 0, "fault_count": row["fault_count"] + 1}
            case "run", "give_up" if free:
                return {"state": "stop", "fault": by.fault, "cause": row["cause"] if by.cause is None else by.cause}
            case (("parsed" | "run"), "cancel"):
                return {**FREE, "state": "cancel", "fault": CANCELLED}
        return None

    def _dependent(self, _: int, row: Row, event: str, by: By) -> Row | None:
        free, mine = not row["lease_owner"], row["lease_owner"] == by.owner != ""
        closed = {"state": "stop", "fault": by.fault, "open_key": None}
        match row["state"], event:
            case "new", "satisfy" if mine:
                return {**DONE, "state": "full", "open_key": None}
            case "new", "fault" if mine and by.fault >= 10:
                return {**FREE, **closed, "cause": 0, "fault_count": row["fault_count"] + 1}
            case (("new" | "hold"), "give_up") if free:
                return closed
            case "new", "hold" if free:
                return {"state": "hold"}
            case "hold", "unhold":
                return {"state": "new"}
        return None

    # -- with all that follows

    def happen(self, kind: str, number: int, event: str, by: By) -> None:
        """Let a legal event happen, and what belongs to it."""
        before, after = self.rows[kind][number], self.after(kind, number, event, by)
        assert after is not None, f"{kind} {number}: the model refuses {event}"  # noqa: S101
        taken[kind, event, before["state"], after["state"]] += 1
        self.rows[kind][number] = after
        if kind == "request" and before["state"] == "new" and event in ("cancel", "give_up"):
            fault = CANCELLED if event == "cancel" else GIVEN_UP
            self.make("job", [self._answer(number, fault) | {"cause": before["cause"]}])
        elif (kind, event) == ("request", "cancel"):
            for job, _ in self.open_jobs(number):
                self.happen("job", job, "cancel", by)
        elif (kind, event) == ("request", "accept"):
            self._accept_jobs(number, by)
        elif kind == "dependent" and not after["open_key"]:
            given_up = after["state"] == "stop" and after["fault"] != GONE
            self.cooling[before["open_key"]] = by.now + COOLDOWN if given_up else 0
        if kind == "dependent" and after["state"] == "stop":
            for job, _ in self.jobs(dep_id=number, state="run"):
                self.happen("job", job, "give_up", By(by.now, fault=after["fault"], cause=after["cause"]))

    @staticmethod
    def _answer(number: int, fault: int) -> Row:
        return {"req_id": number, "dep_id": 0, "image": "", "state": "stop", "fault": fault}

    def _accept_jobs(self, number: int, by: By) -> None:
        for job, _ in self.jobs(req_id=number, state="parsed"):
            self.happen("job", job, "accept", by)
        for job, row in self.jobs(req_id=number, state="run"):
            dependent = self.rows["dependent"].get(row["dep_id"])
            if dependent and dependent["state"] == "hold":
                self.happen("dependent", row["dep_id"], "unhold", by)
            elif dependent and dependent["state"] == "stop":
                self.happen("job", job, "give_up", By(by.now, fault=dependent["fault"], cause=dependent["cause"]))

    def parse(self, number: int, wishes: Sequence[str], by: By, *, preview: bool) -> None:
        """Let a request be parsed into jobs (see `plan_of`)."""
        self.happen("request", number, "preview" if preview else "parse", by)
        open_key = {row["open_key"]: n for n, row in self.rows["dependent"].items() if row["open_key"]}
        needed = dict.fromkeys(key_of(wish) for wish in wishes if wish.startswith("need"))
        for key in needed.keys() & open_key.keys():
            if not preview and self.rows["dependent"][open_key[key]]["state"] == "hold":
                self.happen("dependent", open_key[key], "unhold", by)
        missing = [key for key in sorted(needed) if key not in open_key]
        state, cooling = "hold" if preview else "new", {key: self.cooling.get(key, 0) for key in missing}
        made = self.make("dependent", [
            {"state": state, "open_key": key, "retry_at": until if until > by.now else 0}
            for key, until in cooling.items()
        ])  # fmt: skip
        open_key |= dict(zip(missing, made, strict=True))
        waits = {"req_id": number, "state": "parsed" if preview else "run"}
        self.make("job", [
            self._answer(number, 23) if wish == "answer"
            else {**waits, "dep_id": open_key.get(key_of(wish), 0), "image": wish}
            for wish in wishes
        ])  # fmt: skip


WISHES = ("image a", "image b", "answer", "need x", "need y")
"""What a row of a request can lead to."""
WISH = st.sampled_from(WISHES)
WISH_LISTS = st.lists(WISH, min_size=1, max_size=3)


def key_of(wish: str) -> str:
    """Return the key of the component that a wish needs."""
    return f"gpc1|warp|1|{wish}"


def plan_of(wishes: Sequence[str], *, preview: bool) -> Plan:
    """Return the plan of a request file: a job a wish; it has its answer, or waits for its image, or can run."""
    plan = Plan(preview=preview)
    for wish in wishes:
        if wish == "answer":
            plan.jobs.append(PlannedJob({"image": "", "state": JobState.STOP, "fault": 23}))
            continue
        need = {"imagedb": "gpc1", "stage": "warp", "stage_id": 1, "component": wish, "reason": "cleaned"}
        state = JobState.PARSED if preview else JobState.RUN
        columns = {"image": wish, "state": state, "fault": 0}
        plan.jobs.append(PlannedJob(columns, need if wish.startswith("need") else None))
    return plan


taken: Counter[tuple[str, str, str, str]] = Counter()
"""How often each arrow (machine, event, from, to) was taken in this process."""


class Lives(RuleBasedStateMachine):
    """The rules of the game; run it with `hypothesis.stateful.run_state_machine_as_test`.

    Parameters
    ----------
    stores : sequence of Store
        Two connections to one database, which is emptied; both with `clock`.
    clock : Clock
        Their clock.
    """

    def __init__(self, stores: Sequence[Store], clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.servers = [Server(SETTINGS, store) for store in stores]
        for server, name in zip(self.servers, ("w1", "w2"), strict=True):
            server.worker = name
        self.claims: list[Claim] = []
        self.listed: dict[str, list[Any]] = {}
        self.steps = 0
        self.model = Model(self._unknown)
        self.world = World(clock.now, {kind: {} for kind in TABLE_OF}, last=self.servers[0].store.work(_empty))

    def _unknown(self, kind: str) -> list[int]:
        table, known = TABLE_OF[kind], self.model.rows[kind]
        with self.servers[0].store.reading():
            rows: Any = table.select().where(table.key() > max(known, default=0)).order_by(table.key())
            return [row.id_ for row in rows]

    def by(self, worker: int, **values: Any) -> By:
        """Return who fires an event: a worker, now."""
        return By(self.clock.now, self.servers[worker].worker, **values)

    def due(self, queue: str) -> list[int]:
        """Return what should be in a queue, in its order: by request, then by number."""
        rows = self.model.rows

        def first(number: int) -> int:
            if queue == "run":
                return int(rows["job"][number]["req_id"])
            mine = [job["req_id"] for _, job in self.model.jobs(dep_id=number, state="run")]
            return min((n for n in mine if rows["request"][n]["state"] == "run"), default=0) if queue == "check" else 0

        return sorted(due(rows, self.clock.now)[queue], key=lambda number: (first(number), number))

    def filled(self, queues: Iterable[str] = tuple(KIND_OF)) -> list[str]:
        """Return the queues that are not empty."""
        now = due(self.model.rows, self.clock.now)
        return [queue for queue in queues if now[queue]]

    def went_through(self, worker: int, work: Callable[[Server], Any], *refusals: type[Exception]) -> bool:
        """Run `work` on the worker's connection; return whether it was not refused."""
        try:
            work(self.servers[worker])
        except refusals:
            return False
        return True

    # -- requests begin

    @initialize(
        requests=st.lists(st.tuples(st.lists(WISH, max_size=2), st.booleans()), min_size=1, max_size=2),
        done=st.lists(QUEUE, max_size=4),
        begun=st.lists(QUEUE, min_size=1, max_size=3),
        data=st.data(),
    )
    def begin(
        self, requests: list[tuple[list[str], bool]], done: list[str], begun: list[str], data: st.DataObject
    ) -> None:
        """Start in the middle: some requests, parsed if there are wishes, some of the work done, some under way."""
        for wishes, preview in requests:
            self.submit(0)
            if wishes:
                self.parse(self.claim(0, "parse", 1)[0], wishes, preview=preview)
        for queue in done:
            if self.due(queue):
                self.work_off(1, queue, 2, data)
        for queue in begun:
            if self.due(queue):
                self.claim(0, queue, 1)

    @rule(worker=WORKER)
    def submit(self, worker: int) -> None:
        """Somebody sends a request file."""
        server, at = self.servers[worker], moment(self.clock.now)
        server.store.work(
            lambda: make(pstampRequest, now=self.clock.now, who="user", uri="x", registered=at, timestamp=at)
        )
        self.model.make("request", [{"state": "new"}])

    # -- workers

    def claim(self, worker: int, queue: str, limit: int) -> list[Claim]:
        """Claim the first rows of a queue; of jobs those of one image, or one that failed before."""
        server = self.servers[worker]
        expected = self.due(queue)
        if queue == "run":
            jobs = self.model.rows["job"]
            first = jobs[expected[0]]
            alike = [n for n in expected if jobs[n]["image"] == first["image"] and not jobs[n]["fault_count"]]
            expected = expected[:1] if first["fault_count"] else alike
            rows = server.store.work(lambda: server.store.claim_jobs(server.args(), limit))
        else:
            rows = server.store.work(lambda: server.store.claim(QUEUES[queue](self.clock.now), server.args(), limit))
        _must_equal(f"claimed from {queue}", sorted(row.id_ for row in rows), sorted(expected[:limit]))
        return self.claimed(worker, queue, rows)

    def claimed(self, worker: int, queue: str, rows: Sequence[Any]) -> list[Claim]:
        """Remember what a worker got."""
        claims = [Claim(worker, queue, row) for row in rows]
        for claim in claims:
            self.model.happen(claim.kind, claim.row.id_, "claim", self.by(worker))
        self.claims += claims
        return claims

    @precondition(lambda self: self.filled())
    @rule(worker=WORKER, data=st.data())
    def list_queue(self, worker: int, data: st.DataObject) -> None:
        """Let a worker read a queue; somebody will claim from that later."""
        queue = data.draw(st.sampled_from(self.filled()), "queue")
        self.listed[queue] = self.read(worker, QUEUES[queue](self.clock.now))

    @precondition(lambda self: any(self.listed.values()))
    @rule(worker=WORKER, data=st.data())
    def claim_listed(self, worker: int, data: st.DataObject) -> None:
        """Claim what was listed some time ago."""
        queue = data.draw(st.sampled_from([queue for queue, rows in self.listed.items() if rows]), "queue")
        self.claim_rows(worker, queue, self.listed.pop(queue))

    @precondition(lambda self: self.filled())
    @rule(worker=WORKER, data=st.data())
    def claim_overtaken(self, worker: int, data: st.DataObject) -> None:
        """Read a queue and claim from it, while a person has to do with one of its rows."""
        queue = data.draw(st.sampled_from(self.filled()), "queue")
        rows = self.read(worker, QUEUES[queue](self.clock.now))
        kind, number = KIND_OF[queue], data.draw(st.sampled_from([row.id_ for row in rows]), "row")
        by = self.by(1 - worker, fault=GIVEN_UP)
        ways = [event for event in ORDERS[kind] if self.model.after(kind, number, event.value, by)]
        if ways:
            self.order(1 - worker, kind, number, data.draw(st.sampled_from(ways), "event"))
        self.claim_rows(worker, queue, rows)

    def read(self, worker: int, query: Any) -> list[Any]:
        """Read rows on the worker's connection."""
        with self.servers[worker].store.reading():
            return list(query)

    def claim_rows(self, worker: int, queue: str, rows: Sequence[Any]) -> None:
        """Claim what was read before: what changed since must be left out."""
        server, now_of = self.servers[worker], self.model.rows[KIND_OF[queue]]
        # A worker reads a queue and claims from it at once, so that only others come between.
        rows = [row for row in rows if now_of[row.id_]["lease_owner"] != server.worker]
        seen = ("fault", "attempt", "lease_owner", "lease_until")
        expected = []
        for row in rows:
            now = now_of[row.id_]
            if now["state"] == row.state.value and all(now[name] == getattr(row, name) for name in seen):
                expected.append(row.id_)
        got = server.store.work(lambda: fire(rows, Event.CLAIM, server.args(), race=True))
        _must_equal(f"claimed from an old list of {queue}", sorted(row.id_ for row in got), sorted(expected))
        self.claimed(worker, queue, got)

    def holds(self, claim: Claim) -> bool:
        """Tell whether the lease of a claim still is."""
        row = self.model.rows[claim.kind][claim.row.id_]
        return (row["lease_owner"], row["attempt"]) == (self.servers[claim.worker].worker, claim.row.attempt)

    def held(self) -> list[Claim]:
        """Return the claims whose leases still are."""
        return [claim for claim in self.claims if self.holds(claim)]

    def report(self, claim: Claim, event: Event, fault: int = 0) -> bool:
        """Let a worker fire an event on what it claimed, however long ago; return whether it went through."""
        kind, row, by = claim.kind, claim.row, self.by(claim.worker, fault=fault)
        able = self.holds(claim) and self.model.after(kind, row.id_, event.value, by) is not None

        def work(server: Server) -> None:
            args = server.args(fault=fault)
            if kind == "dependent" and fault >= 10:
                server.store.work(lambda: dependents.close([row], args, "gone"))
            elif isinstance(row, pstampRequest) and event is Event.FINISH:
                server.store.work(lambda: fire([row], event, server.args(open_jobs=open_jobs(row))))
            else:
                server.store.work(lambda: fire([row], event, args))

        # Whose lease is lost is told so, unless it asks for what can't be in any case.
        refusals = [IllegalTransition] if self.holds(claim) else [LeaseLost, IllegalTransition]
        _must_equal(f"{event.value} of {claim} goes through", self.went_through(claim.worker, work, *refusals), able)
        if able:
            self.model.happen(kind, row.id_, event.value, by)
        return able

    def report_any(self, claim: Claim, event: Event, data: st.DataObject) -> None:
        """Let a worker fire one of a worker's events, with what it takes."""
        if event in (Event.PARSE, Event.PREVIEW):
            self.parse(claim, data.draw(WISH_LISTS, "wishes"), preview=event is Event.PREVIEW)
        else:
            self.report(claim, event, data.draw(st.sampled_from(FAULTS), "fault") if event is Event.FAULT else 0)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def report_late(self, data: st.DataObject) -> None:
        """Let a worker report on any claim, however old, and with an event that may be out of place."""
        claim = data.draw(st.sampled_from(self.claims), "claim")
        event = data.draw(st.sampled_from(WORKERS_EVENTS[claim.kind]), "event")
        self.report_any(claim, event, data)

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def report_for_another(self, data: st.DataObject) -> None:
        """Let a worker report on the work of the other, with the row as it is now."""
        claim = data.draw(st.sampled_from(self.held()), "claim")
        other = 1 - claim.worker
        (row,) = self.read(other, type(claim.row).select().where(type(claim.row).key() == claim.row.id_))
        event = data.draw(st.sampled_from(WORKERS_EVENTS[claim.kind]), "event")
        self.report_any(Claim(other, claim.queue, row), event, data)

    def parse(self, claim: Claim, wishes: list[str], *, preview: bool) -> None:
        """Let a worker store the jobs of a request it claimed, however long ago."""
        row, event, by = claim.row, "preview" if preview else "parse", self.by(claim.worker)
        able = self.holds(claim) and self.model.after("request", row.id_, event, by) is not None

        def work(server: Server) -> None:
            server.store.work(lambda: store_plan(server, row, plan_of(wishes, preview=preview)))

        _must_equal(
            f"{event} of {claim} goes through",
            self.went_through(claim.worker, work, LeaseLost, IllegalTransition),
            able,
        )
        if able:
            self.model.parse(row.id_, wishes, by, preview=preview)

    def end(self, claim: Claim, data: st.DataObject) -> None:
        """Let a worker's work end as it does when all goes well."""
        if claim.queue == "parse":
            self.parse(claim, data.draw(WISH_LISTS, "wishes"), preview=data.draw(st.booleans(), "preview"))
        else:
            self.report(claim, Event(USUAL_END[claim.queue]))

    def work_off(self, worker: int, queue: str, limit: int, data: st.DataObject) -> None:
        """Claim and end the work at once."""
        for claim in self.claim(worker, queue, limit):
            self.end(claim, data)

    @precondition(lambda self: self.held())
    @rule(worker=WORKER, data=st.data())
    def finish_late(self, worker: int, data: st.DataObject) -> None:
        """Let a lease run out, and another (or the same worker again) do the work before the first comes back."""
        claim = data.draw(st.sampled_from(self.held()), "claim")
        number = claim.row.id_
        self.pass_time(61)
        self.reap(worker)
        if self.model.after(claim.kind, number, "revert", self.by(worker)):
            self.order(worker, claim.kind, number, Event.REVERT)
        if number not in self.due(claim.queue):
            return
        server = self.servers[worker]
        query = QUEUES[claim.queue](self.clock.now).where(type(claim.row).key() == number)
        (again,) = self.claimed(
            worker, claim.queue, server.store.work(lambda: server.store.claim(query, server.args(), 1))
        )
        self.end(claim, data)  # refused, as `report` and `parse` check
        self.end(again, data)

    # -- time, and those who look after all rows

    @rule(seconds=st.sampled_from([1, 5, 10, 60, 61, 3600]))
    def pass_time(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.forward(seconds)

    @precondition(lambda self: self.has("lease_owner"))
    @rule(worker=WORKER)
    def reap(self, worker: int) -> None:
        """All lapsed leases are lost."""
        self.look_after(worker, retry.reap, "lost", self.by(worker))

    @precondition(lambda self: self.has("fault", range(1, 10)))
    @rule(worker=WORKER)
    def revert(self, worker: int) -> None:
        """All faults that are due are tried again."""
        self.look_after(worker, retry.revert, "revert", self.by(worker, operator=False))

    @precondition(lambda self: self.has("fault", range(1, 10)))
    @rule(worker=WORKER)
    def give_up(self, worker: int) -> None:
        """All that has no tries left is given up."""
        self.look_after(worker, retry.give_up, "give_up", self.by(worker, fault=GIVEN_UP))

    def has(self, column: str, values: Container[Any] | None = None) -> bool:
        """Tell whether a row has one of these values in a column, or any that is not empty."""
        found = [row[column] for rows in self.model.rows.values() for row in rows.values()]
        return any(value in values if values else value for value in found)

    def look_after(self, worker: int, task: Callable[[Server], int], event: str, by: By) -> None:
        """Fire `event` on all rows that are due for it."""
        count = task(self.servers[worker])
        expected = 0
        for kind in ("dependent", "job", "request"):
            for number, row in list(self.model.rows[kind].items()):
                used_up = 0 < row["fault"] < 10 and row["fault_count"] >= CEILING
                if (event != "give_up" or used_up) and self.model.after(kind, number, event, by):
                    self.model.happen(kind, number, event, by)
                    expected += 1
        _must_equal(f"rows of {event}", count, expected)

    # -- people, and whoever else has no lease

    def order(self, worker: int, kind: str, number: int, event: Event) -> None:
        """Fire an event from outside on one row."""
        by = self.by(worker, fault=CANCELLED if event is Event.CANCEL else GIVEN_UP)
        able = self.model.after(kind, number, event.value, by) is not None

        def work(server: Server) -> None:
            match event:
                case Event.REVERT:
                    retry.revert_one(server, kind, number, "operator")
                case Event.GIVE_UP:
                    retry.give_up_one(server, kind, number, "operator")
                case Event.ACCEPT:
                    operate.accept(server, number, "user")
                case Event.CANCEL:
                    operate.cancel(server, kind, number, "user")
                case Event.HOLD:
                    operate.hold(server, number, "operator")
                case Event.UNHOLD:
                    operate.release(server, number, "operator")
                case Event.EXPIRE:
                    operate.expire(server, number, "operator")
                case _:
                    server.store.work(
                        lambda: fire([TABLE_OF[kind].get_by_id(number)], event, server.args(who="reaper"))
                    )

        through = self.went_through(worker, work, IllegalTransition)
        _must_equal(f"{event.value} of {kind} {number} goes through", through, able)
        if able:
            self.model.happen(kind, number, event.value, by)

    # -- what holds after every step

    @invariant()
    def rows_equal_the_model(self) -> None:
        """Check that the rows are as the model says, and all of `pstamp_core.testing.invariants`."""
        self.steps += 1
        self.world = look(self.servers[self.steps % 2].store, self.world)
        for kind, rows in self.model.rows.items():
            found = self.world.rows[kind]
            _must_equal(f"numbers of {kind}s", sorted(found), sorted(rows))
            for number, row in rows.items():
                for name, value in row.items():
                    _must_equal(f"{name} of {kind} {number}", found[number][name], value)
        check(self.world)


def _empty() -> int:
    """Delete all rows but the history, which is never changed; return its last number."""
    for table in (pstampJob, pstampDependent, pstampRequest):
        table.delete().execute()
    return int(pstampHistory.select(fn.MAX(pstampHistory.hist_id)).scalar() or 0)


def _must_equal(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {found}; the model says {expected}")


# -- rules made from the machines


def _claim_rule(kind: str) -> Any:
    queues = [queue for queue, each in KIND_OF.items() if each == kind]

    def claim(self: Lives, worker: int, limit: int, data: st.DataObject) -> None:
        self.claim(worker, data.draw(st.sampled_from([*self.filled(queues), *queues]), "queue"), limit)

    return precondition(lambda self: self.filled(queues))(
        rule(worker=WORKER, limit=st.integers(1, 3), data=st.data())(_named(claim, kind, Event.CLAIM))
    )


def _usual_rule(queue: str) -> Any:
    """Let lives get on: claim, and end the work at once as it ends when all goes well."""

    def work_off(self: Lives, worker: int, limit: int, data: st.DataObject) -> None:
        self.work_off(worker, queue, limit, data)

    work_off.__name__ = f"work_off_{queue}"
    return precondition(lambda self: self.filled([queue]))(
        rule(worker=WORKER, limit=st.integers(1, 2), data=st.data())(work_off)
    )


def _report_rule(machine: Machine, event: Event) -> Any:
    def able(lives: Any) -> Any:
        sources = {state.value for state in machine.sources(event)}
        rows = lives.model.rows[machine.name]
        return [each for each in lives.held() if each.kind == machine.name and rows[each.row.id_]["state"] in sources]

    def report(self: Lives, data: st.DataObject) -> None:
        self.report_any(data.draw(st.sampled_from(able(self)), "claim"), event, data)

    return precondition(able)(rule(data=st.data())(_named(report, machine.name, event)))


def _order_rule(machine: Machine, event: Event) -> Any:
    kind = machine.name

    def able(lives: Any) -> Any:
        by = lives.by(0, fault=GIVEN_UP)
        return [n for n in lives.model.rows[kind] if lives.model.after(kind, n, event.value, by)]

    def order(self: Lives, worker: int, data: st.DataObject) -> None:
        numbers = able(self)
        number = data.draw(st.sampled_from([*numbers, *numbers, *self.model.rows[kind]]), kind)
        if (kind, event) == ("job", Event.ACCEPT):
            self.order(worker, "request", self.model.rows["job"][number]["req_id"], event)
        else:
            self.order(worker, kind, number, event)

    return precondition(able)(rule(worker=WORKER, data=st.data())(_named(order, kind, event)))


def _named(function: Callable[..., None], kind: str, event: Event) -> Callable[..., None]:
    function.__name__ = f"{kind}_{event.value}"
    return function


for _machine in MACHINES.values():
    for _event in dict.fromkeys(event for event, _, _, _ in _machine.arrows()):
        if _event is Event.CLAIM:
            _made = _claim_rule(_machine.name)
        elif _event in WORKERS_EVENTS[_machine.name]:
            _made = _report_rule(_machine, _event)
        else:
            _made = _order_rule(_machine, _event)
        setattr(Lives, f"{_machine.name}_{_event.value}", _made)
for _queue in KIND_OF:
    setattr(Lives, f"work_off_{_queue}", _usual_rule(_queue))
