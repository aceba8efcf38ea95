"""The one way to change a state: `fire`, and the two ways in which rows are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from peewee import NodeList, chunked, fn

from pstamp_core.faults import Bug, LeaseLost, Stale
from pstamp_core.machines import DEPENDENT, JOB, REQUEST, Args, Change, Event, Guard, Machine
from pstamp_core.machines.machine import FaultClass
from pstamp_core.store.tables import Worked, pstampDependent, pstampFile, pstampHistory, pstampJob, pstampRequest

MACHINES: dict[type[Worked], Machine] = {pstampRequest: REQUEST, pstampJob: JOB, pstampDependent: DEPENDENT}
"""The machine of each table."""

CHUNK = 500
"""Rows in one statement; SQLite allows 32,766 parameters, and long statements gain nothing."""

_MACHINES_COLUMNS = {"state", "changed_at", *Worked._meta.fields}

W = TypeVar("W", bound=Worked)


def fire(
    rows: Sequence[W],
    event: Event,
    args: Args,
    *,
    note: str = "",
    race: bool = False,
    own: Mapping[int, Mapping[str, Any]] | None = None,
    **columns: Any,
) -> list[W]:
    """Apply `event` to all of `rows`, which are of one table, or to none of them.

    For each row the machine decides; then rows that change alike, whatever their attempts, are changed by one UPDATE
    that names what was seen (state, fault, attempt, lease), and the history gets a row for each. Must be called within
    a unit of work.

    Races tolerated: whatever changed a row since it was read makes the UPDATE miss it. A worker's event then raises
    `LeaseLost`; any other raises `Stale`, upon which the unit of work reads and decides again. With `race` the rows
    that were missed are left out instead: that is how several workers claim from one queue.

    Parameters
    ----------
    rows : sequence of Worked
        Rows as read in this unit of work, or held under a lease.
    event : Event
        What happens.
    args : Args
        What comes with it.
    note : str
        For the history: why.
    race : bool
        Leave out rows that somebody else was quicker to claim.
    own : mapping of int to mapping, optional
        Further columns to set, by the number of the row; such rows take an UPDATE each.
    **columns
        Further columns to set, the same for all rows.

    Returns
    -------
    list of Worked
        Copies of the rows that were changed, with their new values; `rows` stay as they were read.

    Raises
    ------
    IllegalTransition, LeaseLost, Stale
    """
    if not rows:
        return []
    table = type(rows[0])
    machine = MACHINES[table]
    _must_be_in_unit_of_work(table, "fire")
    own = own or {}
    for name in {name for values in (columns, *own.values()) for name in values}:
        if name in _MACHINES_COLUMNS:
            raise Bug(f"{event.value}: {name} is for the machine to set")
    groups: dict[tuple[Any, ...], list[tuple[W, Change]]] = {}
    for row in rows:
        change = machine.decide(row, event, args)
        seen, values = ({**each, "attempt": 0} for each in (_seen(row, change), change.values))
        alike = (*seen.values(), *values.items(), row.id_ if row.id_ in own else None)
        groups.setdefault(alike, []).append((row, change))
    changed: list[tuple[W, Change]] = []
    for group in groups.values():
        for part in chunked(group, CHUNK):
            changed += _update(table, part, args, race, {**columns, **own.get(part[0][0].id_, {})})
    _record(machine, changed, event, args, note)
    return [row for row, _ in changed]


def _seen(row: Worked, change: Change) -> dict[str, Any]:
    """Return what the row must still be like when it is changed: this is what fences late writers off."""
    seen = {"state": change.source, "fault": row.fault, "attempt": row.attempt, "lease_owner": row.lease_owner}
    if Guard.HELD not in change.edge.guards:  # the holder's own heartbeats may have moved it
        seen["lease_until"] = row.lease_until
    return seen


def _update(
    table: type[W], part: list[tuple[W, Change]], args: Args, race: bool, columns: dict[str, Any]
) -> list[tuple[W, Change]]:
    first, change = part[0]
    key = table.key()
    values = {**columns, **table.closing_values(change.dest)}
    if change.edge.history:
        values["changed_at"] = args.now
    ids = [row.id_ for row, _ in part]
    seen = _seen(first, change)
    unchanged = [getattr(table, name) == value for name, value in seen.items() if name != "attempt"]
    if "attempt" in seen:
        unchanged.append(_attempts_of(table, [row for row, _ in part]))
    new = {**change.values, **values}
    if "attempt" in new:
        new["attempt"] = table.attempt + (new["attempt"] - first.attempt)
    count = table.update(new).where(key.in_(ids), *unchanged).execute()
    if count != len(part):
        if not race:
            kind = LeaseLost if Guard.HELD in change.edge.guards else Stale
            names = ", ".join(map(str, ids[:5])) + (f" or another of {len(ids)}" if len(ids) > 5 else "")
            raise kind(f"{MACHINES[table].name} {names}: changed by somebody else meanwhile")
        mine: Any = table.select(key, table.attempt).where(key.in_(ids), table.lease_owner == args.owner).tuples()
        won = set(mine)
        part = [(row, change) for row, change in part if (row.id_, change.values["attempt"]) in won]
    return [(_with(row, {**change.values, **values}), change) for row, change in part]


def _attempts_of(table: type[W], rows: Sequence[W]) -> Any:
    """Return the condition that each row is in the attempt in which it was seen (SQLite knows no list of pairs)."""
    ids: dict[int, list[int]] = {}
    for row in rows:
        ids.setdefault(row.attempt, []).append(row.id_)
    if len(ids) == 1:
        return table.attempt == rows[0].attempt
    # As a list, since the tree of as many ORs would be too deep.
    return NodeList([(table.attempt == each) & table.key().in_(some) for each, some in ids.items()], " OR ", True)


def _with(row: W, values: dict[str, Any]) -> W:
    """Return a copy of `row` with new values; the row itself stays as read, since a unit of work may be redone."""
    changed = type(row)()
    changed.__data__ = {**row.__data__, **values}
    return changed


def _record(machine: Machine, changed: Iterable[tuple[Worked, Change]], event: Event, args: Args, note: str) -> None:
    lines = [
        {
            "machine": machine.name,
            "row_id": row.id_,
            "event": event.value,
            "source": change.source.value,
            "dest": change.dest.value,
            "fault": row.fault,
            "cause": row.cause,
            "attempt": row.attempt,
            "who": args.who,
            "at": args.now,
            "note": note,
        }
        for row, change in changed
        if change.edge.history
    ]
    for part in chunked(lines, CHUNK):
        pstampHistory.insert_many(part).execute()


def make(table: type[W], *, now: int, who: str, note: str = "", **values: Any) -> W:
    """Insert one row in an initial state of its machine, with its first line of history; part of a unit of work.

    Raises
    ------
    Bug
        A state that is not initial, or a fault that does not go with it.
    """
    _must_be_in_unit_of_work(table, "make")
    _check_initial(MACHINES[table], values)
    row = table.create(**values, changed_at=now)
    _record_making(MACHINES[table], [row], now, who, note)
    return row


def make_jobs(request: pstampRequest, jobs: Sequence[dict[str, Any]], *, now: int, who: str) -> None:
    """Insert the jobs of `request`, with their first lines of history; part of the unit of work that parses it.

    Raises
    ------
    Bug
        A state that is not initial, a fault that does not go with it, or jobs that do not all name the same columns:
        one INSERT has one list of them, and what the first job does not name would be lost.
    """
    _must_be_in_unit_of_work(pstampJob, "make_jobs")
    if any(values.keys() != jobs[0].keys() for values in jobs):
        raise Bug("make_jobs: the jobs name different columns")
    for values in jobs:
        _check_initial(JOB, values)
    mine = pstampJob.req_id == request.req_id
    last = pstampJob.select(fn.MAX(pstampJob.job_id)).where(mine).scalar() or 0
    for part in chunked(jobs, CHUNK):
        pstampJob.insert_many([{**values, "req_id": request.req_id, "changed_at": now} for values in part]).execute()
    made = pstampJob.select().where(mine & (pstampJob.job_id > last)).order_by(pstampJob.job_id)
    _record_making(JOB, made.iterator(), now, who, "")


def delete_jobs(*requests: pstampRequest) -> None:
    """Delete the jobs of requests that are not parsed, with what is known of their files; part of a unit of work.

    They were added by an operator, or the original left them half made. Their histories stay.
    """
    _must_be_in_unit_of_work(pstampJob, "delete_jobs")
    its = pstampJob.req_id.in_([request.req_id for request in requests])
    pstampFile.delete().where(pstampFile.job_id.in_(pstampJob.select(pstampJob.job_id).where(its))).execute()
    pstampJob.delete().where(its).execute()


def _must_be_in_unit_of_work(table: type[Worked], function: str) -> None:
    """Without a transaction a row could change and its line of history be lost."""
    if not table._meta.database or not table._meta.database.in_transaction():
        raise Bug(f"{function}: must be called within a unit of work")


def _check_initial(machine: Machine, values: dict[str, Any]) -> None:
    state, fault = values.get("state", next(iter(machine.initial))), values.get("fault", 0)
    if machine.initial.get(state) is not FaultClass.of(fault):
        raise Bug(f"{machine.name}: can't be made {state.value} with fault {fault}")


def _record_making(machine: Machine, rows: Iterable[Worked], now: int, who: str, note: str) -> None:
    lines = (
        {
            "machine": machine.name, "row_id": row.id_, "event": "make", "source": "", "dest": row.state.value,
            "fault": row.fault, "cause": row.cause, "attempt": row.attempt, "who": who, "at": now, "note": note,
        }
        for row in rows
    )  # fmt: skip
    for part in chunked(lines, CHUNK):
        pstampHistory.insert_many(part).execute()


def moment(now: int) -> datetime:
    """Return microseconds since 1970 as a moment in UTC."""
    return datetime.fromtimestamp(now / 1_000_000, UTC)
