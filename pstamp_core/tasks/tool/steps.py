"""What the modes of `pstamptool` that change states have in common.

A state is reached by one or more events of the row's machine, each legal by itself. All functions that fire are part of
a unit of work, which changes all rows of a call or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, TypeVar

from peewee import chunked

from pstamp_core.faults import RETRYABLE, IllegalTransition, PstampError, is_final, is_retryable
from pstamp_core.machines import Args, Event
from pstamp_core.machines.machine import FaultClass
from pstamp_core.store import MACHINES, Worked, fire, moment, pstampDependent, pstampJob, pstampRequest
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.tool.filters import Filter, conditions, state_of, wrong_usage

W = TypeVar("W", bound=Worked)

PORTION = 500
"""Numbers in one statement."""


def who(server: Server) -> str:
    """Return who changes something, for the history: the tool, and its host and process."""
    return f"pstamptool {server.worker}"


# -- options


def selected(options: Mapping[str, Any], filters: Sequence[Filter], mode: str) -> list[Any]:
    """Return the conditions of the filters that were given.

    Raises
    ------
    PstampError
        Fault 3: none was given.
    """
    found = conditions(options, filters)
    if not found:
        names = ", ".join(f"-{each.option}" for each in filters)
        raise wrong_usage(f"-{mode}: would change every row; search parameters are required, at least one of {names}")
    return found


def goal(options: Mapping[str, Any], table: type[Worked]) -> tuple[Any, int | None]:
    """Return the state and the fault that -set_state and -set_fault ask for; None is whatever it is.

    Raises
    ------
    PstampError
        Fault 3: there is no such state.
    IllegalTransition
        They do not go together.
    """
    state: Any = None
    if "set_state" in options:
        state = state_of("set_state", table._meta.fields["state"], options["set_state"])
    fault: int | None = options.get("set_fault")
    if fault is not None:
        legal = MACHINES[table].faults.get(state, frozenset(FaultClass))
        # A final code of a request is the user's answer: that of a job to be made.
        if FaultClass.of(fault) not in legal and not (table is pstampRequest and is_final(fault)):
            words = " or ".join(each.value for each in FaultClass if each in legal)
            raise IllegalTransition(
                f"-set_state {state.value} -set_fault {fault}: a {MACHINES[table].name} in state {state.value} has "
                f"fault {words}"
            )
    return state, fault


# -- rows


def select(table: type[W], where: Sequence[Any]) -> list[W]:
    """Return the rows of `table`, in order, for which all conditions hold; those of jobs may be on their requests."""
    # Parameters and results of jobs are long, and nothing here asks for them.
    columns = [each for name, each in table._meta.fields.items() if name not in ("params", "result")]
    query: Any = table.select(*columns)
    if table is pstampJob:
        query = query.join(pstampRequest, on=(pstampJob.req_id == pstampRequest.req_id))
    return list(query.where(*where).order_by(table.key()))


def reread(rows: Sequence[W]) -> list[W]:
    """Return rows as they are now."""
    return [
        row
        for part in chunked(rows, PORTION)
        for row in select(type(part[0]), [type(part[0]).key().in_([row.id_ for row in part])])
    ]


def numbered(table: type[W], number: int) -> W:
    """Return one row.

    Raises
    ------
    PstampError
        Fault 1: there is none.
    """
    row = table.get_or_none(table.key() == number)
    if row is None:
        raise PstampError(f"there is no {MACHINES[table].name} {number}")
    return row


def title(row: Worked) -> str:
    """Return what to call a row."""
    return f"{MACHINES[type(row)].name} {row.id_}"


# -- events


def refusal(row: Worked, asked: str, why: str) -> IllegalTransition:
    """Return the error of what can't be done to a row, with the states that it can go to."""
    ways = [dest.value for _, source, dest, _ in MACHINES[type(row)].arrows() if source is row.state is not dest]
    onward = ", ".join(dict.fromkeys(ways)) or "none, it has ended"
    return IllegalTransition(f"{title(row)}: {asked} refused, {why} (legal ways on from {row.state.value}: {onward})")


def must_lead_to(rows: Sequence[Worked], state: Enum) -> None:
    """Raise unless an event leads from the states of `rows` to `state`.

    Raises
    ------
    IllegalTransition
        None does; the message says where the row can go.
    """
    for row in rows:
        if not any(row.state is source and state is dest for _, source, dest, _ in MACHINES[type(row)].arrows()):
            raise refusal(row, f"-set_state {state.value}", f"not possible in state {row.state.value}")


def is_so(row: Worked, state: Enum | None, fault: int | None) -> bool:
    """Tell whether a row is as asked already; another fault of 1-9 is always another failure."""
    return state in (None, row.state) and fault in (None, row.fault) and not is_retryable(fault or 0)


def step(rows: Sequence[W], event: Event, args: Args, note: str, only: Callable[[W], bool]) -> list[W]:
    """Fire `event` on those of `rows` that it is for; return all rows as they are then."""
    changed = {row.id_: row for row in fire([row for row in rows if only(row)], event, args, note=note)}
    return [changed.get(row.id_, row) for row in rows]


def freed(rows: Sequence[W], args: Args, note: str) -> list[W]:
    """Return `rows` with nobody working on them; a lease that ran out is lost.

    Raises
    ------
    IllegalTransition
        Somebody does.
    """
    for row in rows:
        if row.lease_owner and row.lease_until >= args.now:
            until = f"{moment(row.lease_until):%Y-%m-%d %H:%M:%S}"
            raise IllegalTransition(
                f"{title(row)}: {row.lease_owner} works on it until {until} UTC at the latest; wait"
            )
    return step(rows, Event.LOST, args, note, lambda row: bool(row.lease_owner))


def claimed(rows: Sequence[W], args: Args, note: str) -> list[W]:
    """Return `rows` as ours, however often they have failed.

    Raises
    ------
    IllegalTransition
        Somebody works on one of them, or it is in a state in which there is nothing to work on.
    """
    rows = step(freed(rows, args, note), Event.REVERT, args, note, lambda row: is_retryable(row.fault))
    if rows and isinstance(rows[0], pstampDependent):
        # Who looks at a dependent by hand need not wait for the time of its next look.
        args = replace(args, now=max(args.now, *(row.retry_at for row in rows)))
    return fire(rows, Event.CLAIM, args, note=note)


def revert(server: Server, table: type[Worked], where: Sequence[Any], options: Mapping[str, Any], mode: str) -> None:
    """Clear the faults 1-9 of rows: those below the ceiling of tries whose back-off is over, or all of them.

    Parameters
    ----------
    server : Server
        The server.
    table : type of Worked
        Whose rows.
    where : sequence of conditions
        Which rows.
    options : mapping of str to Any
        With -clear_fault_count the number of tries does not matter and begins anew, nor does the back-off. With a
        -fault of 10 or more the call is refused if there are such rows: nothing is wrong with them.
    mode : str
        The mode, for the history.

    Raises
    ------
    IllegalTransition
        -fault names a final code, and there are such rows.
    """

    def work() -> None:
        afresh = bool(options.get("clear_fault_count"))
        args = replace(server.args(who=who(server), operator=afresh), afresh=afresh)
        conditions = list(where)
        if not is_final(options.get("fault", 0)):
            conditions += due(table, args)
        fire(select(table, conditions), Event.REVERT, args, note=f"-{mode}")

    server.store.work(work)


def due(table: type[Worked], args: Args) -> list[Any]:
    """Return the conditions for a row that may be tried again."""
    tries_left = [] if args.ceiling is None else [table.fault_count < args.ceiling, table.retry_at <= args.now]
    able = MACHINES[table].sources(Event.REVERT)
    return [table.state.in_(able), table.fault.in_(list(RETRYABLE)), table.lease_owner == "", *tries_left]
