"""What holds of requests, jobs and dependents at any time, whatever happened: the specification of the server's rows.

`look` reads all rows with their histories; the functions of `INVARIANTS`, in order, say what must be true of them. They
follow from the design and not from the tables of the machines, so that an error there shows too. After any step of any
test ``check(look(store))`` must pass, if all labels are active.
"""

# ruff: noqa: S608 (the names of tables and columns are ours)

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from peewee import ModelSelect

from pstamp_core.store import (
    MACHINES,
    Store,
    dependents_to_check,
    jobs_to_run,
    pstampDependent,
    pstampHistory,
    pstampJob,
    requests_to_clean,
    requests_to_finish,
    requests_to_parse,
)
from pstamp_core.store.history import Line, chain_problem

Row = dict[str, Any]
Rows = Mapping[str, Mapping[int, Row]]
"""By ``request``, ``job`` or ``dependent``, then by number."""

_COLUMNS = (
    "state", "fault", "fault_count", "cause", "attempt", "lease_owner", "lease_until", "retry_at", "changed_at",
)  # fmt: skip
_COMPONENT = ("imagedb", "stage", "stage_id", "component")
_FURTHER = {pstampJob: ("req_id", "dep_id", "image"), pstampDependent: (*_COMPONENT, "open_key")}
QUEUES: dict[str, Callable[[int], ModelSelect[Any]]] = {
    "parse": requests_to_parse,
    "finish": requests_to_finish,
    "clean": requests_to_clean,
    "run": jobs_to_run,
    "check": dependents_to_check,
}
"""What workers claim from."""

WORKED_ON = {"request": ("new", "run", "cancel", "goto_cleaned"), "job": ("run",), "dependent": ("new",)}
"""The states in which somebody can have a lease."""
OPEN = ("parsed", "run")
"""The states in which a job keeps its request from being finished."""

_ZERO, _RETRYABLE, _FINAL = (0,), range(1, 10), range(10, 2**15)
_FAULTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "request": {
        "new": (_ZERO, _RETRYABLE), "parsed": (_ZERO,), "run": (_ZERO, _RETRYABLE), "stop": (_ZERO,),
        "cancel": (_ZERO, _RETRYABLE), "goto_cleaned": (_ZERO, _RETRYABLE), "cleaned": (_ZERO,),
    },
    "job": {"parsed": (_ZERO,), "run": (_ZERO, _RETRYABLE), "stop": (_ZERO, _FINAL), "cancel": (_FINAL,)},
    "dependent": {"new": (_ZERO, _RETRYABLE), "hold": (_ZERO, _RETRYABLE), "full": (_ZERO,), "stop": (_FINAL,)},
}  # fmt: skip


@dataclass
class World:
    """What was read in one look.

    Attributes
    ----------
    now : int
        Microseconds since 1970 UTC.
    rows : Rows
        The columns of every row, states as words.
    lines : dict
        The history of each row, by the name of its machine and its number.
    queues : dict
        The numbers in each queue: ``parse``, ``finish``, ``clean``, ``run``, ``check``.
    before : World or None
        The look before, if this is one of several.
    last : int
        The last number of the history.
    """

    now: int
    rows: Rows
    lines: dict[tuple[str, int], list[Line]] = field(default_factory=dict)
    queues: dict[str, list[int]] = field(default_factory=dict)
    before: World | None = None
    last: int = 0


def look(store: Store, before: World | None = None) -> World:
    """Read all rows; of the history only what came since the look `before`, if there was one."""
    with store.reading():
        now = store.now()

        def execute(sql: str, params: Sequence[Any] = ()) -> Any:
            return store.db.execute_sql(sql, params).fetchall()  # type: ignore[no-untyped-call]

        rows: dict[str, dict[int, Row]] = {}
        for table, machine in MACHINES.items():
            columns = [*_COLUMNS, *_FURTHER.get(table, ())]
            lines_of_table = execute(f"SELECT {table.key().name}, {', '.join(columns)} FROM {table.__name__}")
            rows[machine.name] = {number: dict(zip(columns, values, strict=True)) for number, *values in lines_of_table}
        lines, last = ({}, 0) if before is None else (before.lines, before.last)
        sql = f"SELECT machine, row_id, {', '.join(Line._fields)} FROM {pstampHistory.__name__}"
        for kind, number, *values in execute(f"{sql} WHERE hist_id > {last} ORDER BY hist_id"):
            lines.setdefault((kind, number), []).append(Line(*values))
            last = values[0]
        sql, params = _queues_sql(store.db.param)
        queues: dict[str, list[int]] = {name: [] for name in QUEUES}
        for name, number in execute(sql, [now if each == _NOW else each for each in params]):
            queues[name].append(number)
    if before is not None:
        before.before = None
    return World(now, rows, lines, queues, before, last)


_NOW = -1
"""Stands for the time in the SQL of the queues."""


@cache
def _queues_sql(_: str) -> tuple[str, list[Any]]:
    """Return one statement that reads all queues, for the engine with this placeholder, to which tables are bound.

    Composing it takes longer than running it, so this is done once.
    """
    parts: list[str] = []
    params: list[Any] = []
    for name, query in QUEUES.items():
        sql, values = query(_NOW).select(query(_NOW).model.key().alias("number")).sql()
        parts.append(f"SELECT '{name}', q_{name}.number FROM ({sql}) AS q_{name}")
        params += values
    return " UNION ALL ".join(parts), params


def check(world: World) -> None:
    """Check all invariants.

    Raises
    ------
    AssertionError
        One does not hold; the message names it and the row.
    """
    for invariant in INVARIANTS:
        for problem in invariant(world):
            raise AssertionError(f"{invariant.__name__}: {problem}")


def due(rows: Rows, now: int) -> dict[str, list[int]]:
    """Return what should be in each queue."""
    requests, jobs, dependents = rows["request"], rows["job"], rows["dependent"]
    unfinished = {job["req_id"] for job in jobs.values() if job["state"] in OPEN}
    wanted = {
        job["dep_id"] for job in jobs.values() if job["state"] == "run" and requests[job["req_id"]]["state"] == "run"
    }

    def free(row: Row) -> bool:
        return bool(row["fault"] == 0 and row["lease_owner"] == "" and row["retry_at"] <= now)

    def ready(job: Row) -> bool:
        request = requests[job["req_id"]]
        image_is_there = job["dep_id"] == 0 or dependents[job["dep_id"]]["state"] == "full"
        return (request["state"], request["fault"]) == ("run", 0) and image_is_there

    return {
        "parse": [n for n, row in requests.items() if row["state"] == "new" and free(row)],
        "finish": [
            n for n, row in requests.items() if row["state"] in ("run", "cancel") and n not in unfinished and free(row)
        ],
        "clean": [n for n, row in requests.items() if row["state"] == "goto_cleaned" and free(row)],
        "run": [n for n, row in jobs.items() if row["state"] == "run" and free(row) and ready(row)],
        "check": [n for n, row in dependents.items() if row["state"] == "new" and n in wanted and free(row)],
    }


# -- the invariants

Problems = Iterator[str]


def _every(world: World) -> Iterator[tuple[str, int, Row]]:
    for kind, rows in world.rows.items():
        for number, row in rows.items():
            yield kind, number, row


def histories_are_legal(world: World) -> Problems:
    """1. The history of a row is a legal chain from its making to the row as it is, in order of time."""
    machines = {machine.name: machine for machine in MACHINES.values()}
    for kind, number, row in _every(world):
        lines = world.lines.get((kind, number), [])
        if problem := chain_problem(machines[kind], row, lines):
            yield f"{kind} {number}: {problem}"
        if sorted(line.at for line in lines) != [line.at for line in lines] or row["changed_at"] > world.now:
            yield f"{kind} {number}: its history is not in order of time"
    for kind, number in world.lines:
        if number not in world.rows[kind]:
            yield f"{kind} {number}: has a history, but is gone"


def faults_go_with_states(world: World) -> Problems:
    """2. 0 is no fault, 1-9 may go away and only stand where work goes on, 10 and up are final and end the row."""
    for kind, number, row in _every(world):
        if not any(row["fault"] in codes for codes in _FAULTS[kind].get(row["state"], ())):
            yield f"{kind} {number}: {row['state']} with fault {row['fault']}"


def causes_are_retryable(world: World) -> Problems:
    """3. The cause is the last retryable fault: it is 0 or 1-9, that of the row if it has one, and 0 after success."""
    for kind, number, row in _every(world):
        success = row["fault"] == 0 and row["state"] == {"job": "stop", "dependent": "full"}.get(kind)
        if not 0 <= row["cause"] <= 9 or (row["fault"] in _RETRYABLE and row["cause"] != row["fault"]):
            yield f"{kind} {number}: fault {row['fault']} with cause {row['cause']}"
        elif success and row["cause"]:
            yield f"{kind} {number}: a success with cause {row['cause']}"


def leases_are_on_work(world: World) -> Problems:
    """4. A lease has an owner and an end, and is only on rows that are worked on and have no fault."""
    for kind, number, row in _every(world):
        if bool(row["lease_owner"]) != bool(row["lease_until"]):
            yield f"{kind} {number}: half a lease, of {row['lease_owner'] or 'nobody'} until {row['lease_until']}"
        if row["lease_owner"] and (row["state"] not in WORKED_ON[kind] or row["fault"]):
            yield f"{kind} {number}: a lease though it is {row['state']} with fault {row['fault']}"


def attempts_count_claims(world: World) -> Problems:
    """5. The attempt is the number of claims, and never goes back."""
    for kind, number, row in _every(world):
        claims = [line for line in world.lines.get((kind, number), []) if line.event == "claim"]
        if kind != "dependent" and row["attempt"] != len(claims):  # looks at a dependent leave no line
            yield f"{kind} {number}: attempt {row['attempt']} after {len(claims)} claims"
        if world.before and number in world.before.rows[kind]:
            before = world.before.rows[kind][number]["attempt"]
            if row["attempt"] < before:
                yield f"{kind} {number}: attempt {row['attempt']} after {before}"


def one_worker_at_a_time(world: World) -> Problems:
    """6. A row is not claimed while somebody has a lease on it: first the work ends, or the reaper ends the lease."""
    for (kind, number), lines in world.lines.items():
        under_way = False
        for line in lines:
            if line.event == "claim" and under_way:
                yield f"{kind} {number}: attempt {line.attempt} began under the lease of another"
            under_way = line.event == "claim"  # whatever leaves a line after that, ends the lease
    if world.before:
        for kind, number, row in _every(world):  # a dependent's claims leave no line
            before = world.before.rows[kind].get(number, row)
            live = before["lease_owner"] and before["lease_until"] >= world.now
            if live and row["lease_owner"] and row["attempt"] != before["attempt"]:
                yield f"{kind} {number}: {row['lease_owner']} took it from {before['lease_owner']}, who has a lease"


def ended_rows_stay(world: World) -> Problems:
    """7. A job ends once, a dependent is closed once, a request is published once; an ended row never changes again."""
    ends = {"request": ("cleaned",), "job": ("stop", "cancel"), "dependent": ("full", "stop")}
    for (kind, number), lines in world.lines.items():
        if any(line.dest in ends[kind] for line in lines[:-1]):
            yield f"{kind} {number}: changed after its end"
        if sum(line.event == "finish" for line in lines) > 1:
            yield f"{kind} {number}: finished twice"
    if world.before:
        for kind, rows in world.before.rows.items():
            for number, before in rows.items():
                if before["state"] in ends[kind] and world.rows[kind].get(number) != before:
                    yield f"{kind} {number}: changed after its end"


def jobs_go_with_their_request(world: World) -> Problems:
    """8. Jobs appear with parsing; a preview's wait; where no work goes on any more (or never began) none is open."""
    may_be_open = {"parsed": ("parsed",), "run": ("run",)}
    for number, job in world.rows["job"].items():
        request = world.rows["request"].get(job["req_id"])
        if request is None:
            yield f"job {number}: there is no request {job['req_id']}"
        elif request["state"] == "new":
            yield f"job {number}: its request {job['req_id']} is not parsed"
        elif job["state"] in OPEN and job["state"] not in may_be_open.get(request["state"], ()):
            yield f"job {number}: {job['state']}, though its request {job['req_id']} is {request['state']}"


def every_request_gets_an_answer(world: World) -> Problems:
    """9. A request that is past parsing has at least one job: its results have at least one row."""
    answered = {job["req_id"] for job in world.rows["job"].values()}
    for number, request in world.rows["request"].items():
        if request["state"] != "new" and number not in answered:
            yield f"request {number}: {request['state']} without a job"


def given_up_dependents_have_no_waiting_job(world: World) -> Problems:
    """10. No open job of a running request waits for a component that was given up."""
    for number, job in world.rows["job"].items():
        dependent = world.rows["dependent"].get(job["dep_id"])
        if job["dep_id"] and dependent is None:
            yield f"job {number}: there is no dependent {job['dep_id']}"
        elif dependent is not None and job["state"] == "run" and dependent["state"] == "stop":
            yield f"job {number}: waits for dependent {job['dep_id']}, which was given up"


def one_open_dependent_a_component(world: World) -> Problems:
    """11. A component has at most one open dependent, which holds its key; a closed one has let go of it."""
    seen: dict[str, int] = {}
    for number, row in world.rows["dependent"].items():
        key = "|".join(str(row[name]) for name in _COMPONENT)
        is_open = row["state"] in ("new", "hold")
        if row["open_key"] != (key if is_open else None):
            yield f"dependent {number}: {row['state']} with key {row['open_key']}"
        if is_open and seen.setdefault(key, number) != number:
            yield f"dependent {number}: {key} has another, {seen[key]}"


def queues_have_what_is_due(world: World) -> Problems:
    """12. The queues hold what can be worked on now, and nothing else: a component that is there blocks nobody."""
    expected = due(world.rows, world.now)
    for name, numbers in world.queues.items():
        if sorted(numbers) != sorted(expected[name]):
            yield f"{name}: holds {sorted(numbers)}; due are {sorted(expected[name])}"


def nobody_is_forgotten(world: World) -> Problems:
    """13. Whatever has not ended is in a queue, under a lease, waits for its time, or for a row that has not ended.

    That is: for its image, its jobs, a second try, or a person (who accepts, releases, reverts or expires).
    """
    at_work = due(world.rows, world.now)
    queue_of = {"request": ("parse", "finish", "clean"), "job": ("run",), "dependent": ("check",)}
    for kind, number, row in _every(world):
        queued = any(number in at_work[name] for name in queue_of[kind])
        moves = queued or row["lease_owner"] or 0 < row["fault"] < 10 or row["retry_at"] > world.now
        if not moves and not _WAITS[kind](world, number, row):
            yield f"{kind} {number}: {row['state']}, and nobody will ever look at it"


def _request_waits(world: World, number: int, row: Row) -> bool:
    is_open = any(job["req_id"] == number and job["state"] in OPEN for job in world.rows["job"].values())
    return row["state"] in ("parsed", "stop", "cleaned") or is_open


def _job_waits(world: World, _: int, row: Row) -> bool:
    dependent = world.rows["dependent"].get(row["dep_id"])
    return row["state"] != "run" or (dependent is not None and dependent["state"] in ("new", "hold"))


def _dependent_waits(world: World, number: int, row: Row) -> bool:
    needed = any(job["dep_id"] == number and job["state"] == "run" for job in world.rows["job"].values())
    return row["state"] != "new" or not needed


_WAITS: dict[str, Callable[[World, int, Row], bool]] = {
    "request": _request_waits, "job": _job_waits, "dependent": _dependent_waits,
}  # fmt: skip


INVARIANTS: tuple[Callable[[World], Problems], ...] = (
    histories_are_legal, faults_go_with_states, causes_are_retryable, leases_are_on_work, attempts_count_claims,
    one_worker_at_a_time, ended_rows_stay, jobs_go_with_their_request, every_request_gets_an_answer,
    given_up_dependents_have_no_waiting_job, one_open_dependent_a_component, queues_have_what_is_due,
    nobody_is_forgotten,
)  # fmt: skip
"""The specification, in order; each yields what is wrong."""
