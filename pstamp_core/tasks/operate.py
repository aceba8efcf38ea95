"""What people order: each order is one unit of work on all its rows or on none, with who and why in the history.

An order can be rehearsed: the same code runs, and is rolled back; so what it will touch is known before it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from peewee import fn

from pstamp_core.faults import RETRYABLE, Bug, Fault, RetryableError, UserError
from pstamp_core.machines import DEPENDENT, DependentState, Event, JobState, RequestState
from pstamp_core.machines.job import OPEN
from pstamp_core.store import (
    DEFAULT_PRIORITY,
    MACHINES,
    Label,
    Worked,
    fire,
    locked_dependents,
    pstampDependent,
    pstampHistory,
    pstampJob,
    pstampRequest,
)
from pstamp_core.tasks.dependents import end_cool_down, stop_waiting_jobs
from pstamp_core.tasks.retry import answer_unparsed, give_up_rows, revert_rows
from pstamp_core.tasks.server import TABLE_OF, Server, find, known_label

LABEL = "label"
"""Stands in the history for the name of a machine, where a label was changed; the note begins with it, quoted."""


@dataclass(frozen=True)
class Choice:
    """Which rows an order is for: those named by their numbers, or else all that it can be given to and that fit.

    Attributes
    ----------
    machine : str
        ``request``, ``job`` or ``dependent``.
    numbers : tuple of int
        Their numbers; empty takes all that fit.
    fault : int or None
        Only with this fault.
    label : str or None
        Only requests with this label, their jobs, or what these wait for.
    req_id : int or None
        Only this request, its jobs, or what these wait for.
    """

    machine: str
    numbers: tuple[int, ...] = ()
    fault: int | None = None
    label: str | None = None
    req_id: int | None = None


@dataclass(frozen=True)
class Effect:
    """What an order does to rows that fare alike, as the history has it.

    Attributes
    ----------
    machine, event, source, dest : str
        Whose rows, what happens to them, their states before (empty for a row that is made) and after.
    fault, cause : int
        After it.
    names : tuple of str
        The rows: their numbers, or the name of a label.
    """

    machine: str
    event: str
    source: str
    dest: str
    fault: int
    cause: int
    names: tuple[str, ...]


def order(
    server: Server,
    event: Event | str,
    choice: Choice,
    who: str,
    note: str = "",
    *,
    dry_run: bool = False,
    expected: Sequence[Effect] | None = None,
) -> list[Effect]:
    """Carry an order out on all rows of `choice`, or on none; return what it did, with all that followed from it.

    Parameters
    ----------
    server : Server
        The server.
    event : Event or str
        ``revert``, ``give_up``, ``cancel``, ``accept``, ``hold``, ``unhold`` or ``expire``.
    choice : Choice
        The rows. Where they are not named, reverting and giving up take faulted ones that nobody works on. A dependent
        without a fault that is reverted is looked at at once, and its cool-down is over.
    who, note : str
        Who orders it and why, for the history.
    dry_run : bool
        Do it, and roll it back.
    expected : sequence of Effect, optional
        What a dry run found: if it would be anything else now, nothing is done.

    Raises
    ------
    UserError
        There is no such row, or the order is not for such rows.
    IllegalTransition
        It is not possible for one of the rows; the message says which, and what is possible.
    RetryableError
        It is not what was `expected`; or an image database does not answer in which a cool-down was to end.
    """
    event = Event(event)
    machines, act = _ORDERS[event]
    if choice.machine not in machines:
        raise UserError(f"{event.value}: expected {' or '.join(machines)}, not {choice.machine!r}")

    rows: list[Any] = []

    def work() -> None:
        if choice.numbers:
            rows[:] = [find(choice.machine, number) for number in dict.fromkeys(choice.numbers)]
        else:
            rows[:] = _fitting(event, choice)
        act(server, rows, who, note)

    def in_earnest() -> None:
        if event is Event.REVERT and choice.machine == DEPENDENT.name:
            end_cool_down(server, [row for row in rows if not row.fault])

    return _carry_out(server, work, who, dry_run, expected, in_earnest=in_earnest)


class _Undo(Exception):  # noqa: N818 (no error: it rolls a rehearsal back)
    pass


def _carry_out(
    server: Server,
    act: Callable[[], None],
    who: str,
    dry_run: bool,
    expected: Sequence[Effect] | None,
    label: str = "",
    in_earnest: Callable[[], None] = lambda: None,
) -> list[Effect]:
    """Do `act` as one unit of work; `in_earnest` is the last of it, and left out where it is rolled back."""
    if dry_run and server.store.db.in_transaction():
        raise Bug("a rehearsal within another unit of work could not be rolled back")
    effects: list[Effect] = []

    def work() -> None:
        last = pstampHistory.select(fn.MAX(pstampHistory.hist_id)).scalar() or 0
        act()
        effects[:] = _effects(last, who, label)
        if expected is not None and effects != list(expected):
            raise RetryableError("the rows have changed since they were shown, so nothing was done; look again")
        if dry_run:
            raise _Undo
        in_earnest()

    with suppress(_Undo):
        server.store.work(work)
    return effects


def _effects(last: int, who: str, label: str) -> list[Effect]:
    """Return what `who` has done since the line `last` of the history; a label stands there without a number."""
    h = pstampHistory
    alike: dict[tuple[str, str, str, str, int, int], list[str]] = {}
    lines = h.select(h.machine, h.event, h.source, h.dest, h.fault, h.cause, h.row_id)
    mine: Any = lines.where((h.hist_id > last) & (h.who == who)).order_by(h.row_id, h.hist_id).tuples()
    for machine, event, source, dest, fault, cause, number in mine.iterator():
        what = machine, event, source, dest, fault, cause
        alike.setdefault(what, []).append(str(number) if number else label)
    place = [*TABLE_OF, LABEL].index
    ordered = sorted(alike.items(), key=lambda each: (place(each[0][0]), each[0]))
    return [Effect(*what, names=tuple(names)) for what, names in ordered]


def _fitting(event: Event, choice: Choice) -> list[Any]:
    """Return the rows that an order can be given to, as far as `choice` lets them."""
    table = TABLE_OF[choice.machine]
    # Parameters and results of jobs are long, and no order asks for them.
    columns = [each for name, each in table._meta.fields.items() if name not in ("params", "result")]
    wanted = table.state.in_(MACHINES[table].sources(event))
    if event in (Event.REVERT, Event.GIVE_UP):
        wanted &= table.fault.in_(list(RETRYABLE)) & (table.lease_owner == "")
    if choice.fault is not None:
        wanted &= table.fault == choice.fault
    if choice.label is not None:
        mine = pstampRequest.select(pstampRequest.req_id).where(pstampRequest.label == known_label(choice.label))
        wanted &= _of_requests(table, mine)
    if choice.req_id is not None:
        wanted &= _of_requests(table, [find("request", choice.req_id).id_])
    return list(table.select(*columns).where(wanted).order_by(table.key()))


def _of_requests(table: type[Worked], requests: Any) -> Any:
    """Return the condition that a row belongs to one of `requests`, or is waited for by an open job of one."""
    if table is not pstampDependent:
        return table._meta.fields["req_id"].in_(requests)
    open_jobs = pstampJob.req_id.in_(requests) & pstampJob.state.in_(OPEN) & (pstampJob.dep_id != 0)
    return pstampDependent.dep_id.in_(pstampJob.select(pstampJob.dep_id).where(open_jobs))


def accept(server: Server, number: int, who: str, note: str = "") -> None:
    """Let the jobs of a preview run.

    Components that were held back for it are worked on from now on, as if it had been no preview. Jobs whose component
    was given up meanwhile stop with its code.

    Raises
    ------
    UserError
        There is no such request.
    IllegalTransition
        It is no preview that waits; the message says what is possible.
    """
    order(server, Event.ACCEPT, Choice("request", (number,)), who, note)


def _accept(server: Server, rows: Sequence[Worked], who: str, note: str) -> None:
    args = server.args(who=who)
    fire(rows, Event.ACCEPT, args, note=note)
    for request in rows:
        mine = pstampJob.req_id == request.id_
        fire(list(pstampJob.select().where(mine & (pstampJob.state == JobState.PARSED))), Event.ACCEPT, args, note=note)
        needed = pstampJob.select(pstampJob.dep_id).where(mine & (pstampJob.state == JobState.RUN))
        dependents = locked_dependents(pstampDependent.dep_id.in_(needed))
        held = [each for each in dependents if each.state is DependentState.HOLD]
        fire(held, Event.UNHOLD, args, note=f"request {request.id_} needs it")
        for closed in dependents:
            if closed.state is DependentState.STOP:
                stop_waiting_jobs([closed], args)


def cancel(server: Server, machine: str, number: int, who: str, note: str = "") -> None:
    """Cancel a request with its open jobs, or one job; what a worker still makes of them is refused.

    The request is finished as any other, so that the user gets what was done before, and code 32 for the rest; one that
    was not parsed yet gets one job that says so.

    Raises
    ------
    UserError
        There is no such request or job, or it is neither.
    IllegalTransition
        It has ended already; the message says what is possible.
    """
    order(server, Event.CANCEL, Choice(machine, (number,)), who, note)


def _cancel(server: Server, rows: Sequence[Worked], who: str, note: str) -> None:
    args = server.args(who=who, fault=Fault.PSTAMP_CANCELLED)
    jobs = [row for row in rows if isinstance(row, pstampJob)]
    for row in rows:
        if isinstance(row, pstampRequest) and row.state is RequestState.NEW:
            answer_unparsed(server, row, Event.CANCEL, args, note, note)
        elif isinstance(row, pstampRequest):
            fire([row], Event.CANCEL, args, note=note)
            jobs.extend(pstampJob.select().where((pstampJob.req_id == row.req_id) & pstampJob.state.in_(OPEN)))
    fire(jobs, Event.CANCEL, args, note=note, sentence=note)


def hold(server: Server, number: int, who: str, note: str = "") -> None:
    """Keep a dependent from being looked at; its jobs wait.

    Raises
    ------
    UserError
        There is no such dependent.
    IllegalTransition
        It is closed or on hold already, or is being looked at just now.
    """
    order(server, Event.HOLD, Choice("dependent", (number,)), who, note)


def release(server: Server, number: int, who: str, note: str = "") -> None:
    """Let a dependent that is on hold be looked at again.

    Raises
    ------
    UserError
        There is no such dependent.
    IllegalTransition
        It is not on hold.
    """
    order(server, Event.UNHOLD, Choice("dependent", (number,)), who, note)


def expire(server: Server, number: int, who: str, note: str = "") -> None:
    """Let a finished request be deleted from disk, whatever its age.

    Raises
    ------
    UserError
        There is no such request.
    IllegalTransition
        It is not finished, or is cleaned already; one that runs is cancelled first.
    """
    order(server, Event.EXPIRE, Choice("request", (number,)), who, note)


def _just(event: Event) -> Callable[[Server, Sequence[Worked], str, str], None]:
    def act(server: Server, rows: Sequence[Worked], who: str, note: str) -> None:
        fire(rows, event, server.args(who=who), note=note)

    return act


_ORDERS: dict[Event, tuple[tuple[str, ...], Callable[[Server, Sequence[Worked], str, str], None]]] = {
    Event.REVERT: (tuple(TABLE_OF), revert_rows),
    Event.GIVE_UP: (tuple(TABLE_OF), give_up_rows),
    Event.CANCEL: (("request", "job"), _cancel),
    Event.ACCEPT: (("request",), _accept),
    Event.HOLD: (("dependent",), _just(Event.HOLD)),
    Event.UNHOLD: (("dependent",), _just(Event.UNHOLD)),
    Event.EXPIRE: (("request",), _just(Event.EXPIRE)),
}


def label_of(server: Server, req_id: int) -> str:
    """Return the label of a request.

    Raises
    ------
    UserError
        There is no such request, or it has none.
    """
    with server.store.reading():
        label = find("request", req_id).__data__["label"]
    if not label:
        raise UserError(f"request {req_id} has no label, hence the default priority {DEFAULT_PRIORITY}")
    return str(label)


def set_priority(
    server: Server,
    label: str,
    priority: int,
    who: str,
    note: str = "",
    *,
    dry_run: bool = False,
    expected: Sequence[Effect] | None = None,
) -> list[Effect]:
    """Change the priority of all work with `label`, which is added if it is in the table Label not yet.

    Parameters, result and errors are those of `order`; no effect is that it has this priority already.
    """
    if not 0 < len(label) <= Label.label.max_length:
        raise UserError(f"label {label!r}: expected 1 to {Label.label.max_length} characters")

    with server.store.reading():
        label = known_label(label)

    def work() -> None:
        row = Label.get_or_none(Label.label == label)
        if row is None:
            row = Label.create(label=label, priority=DEFAULT_PRIORITY)
        before = DEFAULT_PRIORITY if row.priority is None else row.priority
        Label.update(priority=priority).where(Label.label == label).execute()
        if priority != before:
            pstampHistory.create(
                machine=LABEL, row_id=0, event="priority", source=str(before), dest=str(priority), who=who,
                at=server.store.now(), note=f"{label!r}: {note}",
            )  # fmt: skip

    return _carry_out(server, work, who, dry_run, expected, label)
