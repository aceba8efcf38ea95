"""What the three machines have in common: events, guards, effects, and the decision on one event.

A machine is one table of `Edge`s. All else is derived from it: the look-ups here, the states that SQL selects by, the
rules that the database keeps, documentation, the rules of the property tests. Deciding is pure: the row, the event and
the `Args` (which bring the time) go in, the new column values come out; `pstamp_core.store.fire` writes them.

The library `transitions` holds the table and finds the edge (its use is confined to this module). Rows are never
registered with it, since `add_model` would overwrite a loaded state and keep the row for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from pstamp_core.faults import Bug, Fault, IllegalTransition, LeaseLost, is_final, is_retryable

if TYPE_CHECKING:
    from transitions import EventData
    from transitions import Machine as TransitionsMachine

MICROSECONDS = 1_000_000
DAY = 86_400 * MICROSECONDS


class Event(Enum):
    """What can happen to a request, job or dependent."""

    CLAIM = "claim"
    """A worker takes the row: a new attempt with a lease."""
    HEARTBEAT = "heartbeat"
    """The worker is alive and keeps its lease."""
    RELEASE = "release"
    """The worker gives the row back: nothing to do yet."""
    PARSE = "parse"
    """The request file has become jobs."""
    PREVIEW = "preview"
    """The request file has become jobs that wait for `accept` (ACTION = PREVIEW)."""
    ACCEPT = "accept"
    """The user wants what the preview promised."""
    FINISH = "finish"
    """The work is done and its products are published."""
    SATISFY = "satisfy"
    """The image is there."""
    FAULT = "fault"
    """The attempt failed with a code."""
    LOST = "lost"
    """The lease ran out without an outcome: worker killed, host gone."""
    REVERT = "revert"
    """Try again after a retryable fault."""
    GIVE_UP = "give_up"
    """No more tries: the final code goes to the user, the last retryable one is kept as the cause."""
    CANCEL = "cancel"
    """Somebody does not want it any more."""
    HOLD = "hold"
    """An operator keeps a dependent from being worked on."""
    UNHOLD = "unhold"
    """The operator lets it go on."""
    EXPIRE = "expire"
    """The results have been kept long enough."""
    CLEAN = "clean"
    """Fileset and work directory are deleted."""


class Row(Protocol):
    """The columns of a row that a machine looks at.

    ``lease_until`` and ``retry_at`` are microseconds since 1970 UTC; ``lease_owner`` is empty while nobody has a lease.
    """

    state: Any
    fault: int
    fault_count: int
    cause: int
    attempt: int
    lease_owner: str
    lease_until: int
    retry_at: int


@dataclass(frozen=True)
class Args:
    """What comes with an event.

    Attributes
    ----------
    now : int
        Microseconds since 1970 UTC, by the database's clock.
    who : str
        Who fires it, for the history: a worker's token or a person.
    fault : int
        The code of `Event.FAULT` and `Event.GIVE_UP`.
    cause : int or None
        What led to `Event.GIVE_UP`, where that is not the row's own: a job is given up with what it waits for.
    owner : str
        The lease's owner, for the events of a worker.
    lease : int
        Length of the lease in microseconds.
    delay : int
        Microseconds until the next look, for `Event.RELEASE`.
    backoff : Callable[[int], int]
        Number of faults so far -> microseconds until the next try.
    ceiling : int or None
        Faults after which nothing is reverted any more; None is an operator, who may always.
    open_jobs : int
        How many jobs of the request are neither stopped nor cancelled.
    afresh : bool
        Whether `Event.REVERT` forgets how many faults there were, too.
    """

    now: int
    who: str
    fault: int = 0
    cause: int | None = None
    owner: str = ""
    lease: int = 0
    delay: int = 0
    backoff: Callable[[int], int] = field(default=lambda _count: 0)
    ceiling: int | None = None
    open_jobs: int = 0
    afresh: bool = False


class Guard(Enum):
    """A condition on the row and the arguments; all guards of an edge must hold."""

    FREE = "nobody has a lease"
    READY = "fault 0, and the time of the next try has come"
    HELD = "the lease is the caller's"
    LAPSED = "the lease has run out"
    FAULTED = "fault 1-9"
    ASKED = "fault 1-9, or an operator asks"
    MAY_RETRY = "the number of faults is below the ceiling and the back-off is over, or an operator asks"
    RETRYABLE = "the code is 1-9"
    FINAL = "the code is 10 or more"
    DONE = "no job of the request is open"

    def holds(self, row: Row, args: Args) -> bool:
        """Tell whether the condition holds."""
        return _TESTS[self](row, args)


_TESTS: Mapping[Guard, Callable[[Row, Args], bool]] = {
    Guard.FREE: lambda row, _: not row.lease_owner,
    Guard.READY: lambda row, args: row.fault == 0 and row.retry_at <= args.now,
    Guard.HELD: lambda row, args: bool(args.owner) and row.lease_owner == args.owner,
    Guard.LAPSED: lambda row, args: bool(row.lease_owner) and row.lease_until < args.now,
    Guard.FAULTED: lambda row, _: is_retryable(row.fault),
    Guard.ASKED: lambda row, args: is_retryable(row.fault) or args.ceiling is None,
    Guard.MAY_RETRY: lambda row, args: (
        args.ceiling is None or (row.fault_count < args.ceiling and row.retry_at <= args.now)
    ),
    Guard.RETRYABLE: lambda _, args: is_retryable(args.fault),
    Guard.FINAL: lambda _, args: is_final(args.fault),
    Guard.DONE: lambda _, args: args.open_jobs == 0,
}

Effect = Callable[[Row, Args], dict[str, Any]]
_NO_LEASE = {"lease_owner": "", "lease_until": 0}


def take_lease(row: Row, args: Args) -> dict[str, Any]:
    """Start a new attempt."""
    if not args.owner:
        raise Bug("claim: a lease needs an owner")
    return {"attempt": row.attempt + 1, "lease_owner": args.owner, "lease_until": args.now + args.lease}


def keep_lease(row: Row, args: Args) -> dict[str, Any]:
    """Move the end of the lease."""
    return {"lease_until": args.now + args.lease}


def postpone(row: Row, args: Args) -> dict[str, Any]:
    """Give the lease back and look again later."""
    return {**_NO_LEASE, "retry_at": args.now + args.delay}


def record_fault(row: Row, args: Args) -> dict[str, Any]:
    """Store the code, count it, give the lease back; a retryable one is also the cause, and backs off.

    A final one is an answer of its own: what earlier tries met is not its cause.
    """
    values = {**_NO_LEASE, "fault": args.fault, "fault_count": row.fault_count + 1, "cause": 0}
    if is_retryable(args.fault):
        values |= {"cause": args.fault, "retry_at": args.now + args.backoff(row.fault_count + 1)}
    return values


def record_loss(row: Row, args: Args) -> dict[str, Any]:
    """Store a lapsed lease as fault 6."""
    lost = Fault.PS_EXIT_TIMEOUT_ERROR
    retry_at = args.now + args.backoff(row.fault_count + 1)
    return {**_NO_LEASE, "fault": lost, "cause": lost, "fault_count": row.fault_count + 1, "retry_at": retry_at}


def clear_fault(row: Row, args: Args) -> dict[str, Any]:
    """Allow the next try at once; the cause stays, and so does the count, if nothing else is asked for."""
    return {"fault": 0, "retry_at": 0, **({"fault_count": 0} if args.afresh else {})}


def give_code(row: Row, args: Args) -> dict[str, Any]:
    """Store the final code; the cause stays, if no other is given."""
    return {**_NO_LEASE, "fault": args.fault, **({} if args.cause is None else {"cause": args.cause})}


def cancelled(row: Row, args: Args) -> dict[str, Any]:
    """Store the code of a cancelled job."""
    return {**_NO_LEASE, "fault": Fault.PSTAMP_CANCELLED}


def start_afresh(row: Row, args: Args) -> dict[str, Any]:
    """Give the lease back; the next task starts with a full budget of tries. The cause stays."""
    return {**_NO_LEASE, "fault": 0, "fault_count": 0, "retry_at": 0}


def succeed(row: Row, args: Args) -> dict[str, Any]:
    """Give the lease back with nothing to report."""
    return {**_NO_LEASE, "fault": 0, "cause": 0, "retry_at": 0}


def nothing(row: Row, args: Args) -> dict[str, Any]:
    """Change the state alone."""
    return {}


@dataclass(frozen=True)
class Edge:
    """One line of a machine's table.

    Attributes
    ----------
    event, sources, dest
        What happens, from which states, to which state; ``dest`` None stays where it is.
    who : str
        Who fires it.
    meaning : str
        What it means, for the reader of the state diagrams.
    effect : Effect
        The columns it changes besides the state.
    guards : tuple of Guard
        All must hold.
    history : bool
        Whether it leaves a row in the history.
    """

    event: Event
    sources: tuple[Any, ...]
    dest: Any
    who: str
    meaning: str
    effect: Effect = nothing
    guards: tuple[Guard, ...] = ()
    history: bool = True


class FaultClass(Enum):
    """The classes of fault codes that a state may have."""

    NONE = "0"
    RETRYABLE = "1-9"
    FINAL = "10 and up"

    @classmethod
    def of(cls, fault: int) -> FaultClass:
        """Return the class of a code."""
        if fault < 0:
            raise Bug(f"fault {fault}: expected 0 or more")
        return cls.NONE if fault == 0 else cls.RETRYABLE if is_retryable(fault) else cls.FINAL


@dataclass(frozen=True)
class Change:
    """The decision on an event: the edge taken, the states, the columns with their new values."""

    edge: Edge
    source: Any
    dest: Any
    values: Mapping[str, Any]


@dataclass
class _Subject:
    """What `transitions` sees of a row; the row itself stays untouched."""

    state: Any
    edge: Edge | None = None


class Machine:
    """A state machine: its table, and what follows from it.

    Parameters
    ----------
    name : str
        ``request``, ``job`` or ``dependent``.
    states : type[Enum]
        The states; declaration order is the documented order.
    initial : mapping of state to FaultClass
        The states in which a row may be made, with the class of its fault.
    faults : mapping of state to FaultClass
        Which codes go with which state (the fault rule).
    edges : sequence of Edge
        The table.
    """

    def __init__(
        self,
        name: str,
        states: type[Enum],
        initial: Mapping[Any, FaultClass],
        faults: Mapping[Any, frozenset[FaultClass]],
        edges: Sequence[Edge],
    ) -> None:
        self.name = name
        self.states = states
        self.initial = dict(initial)
        self.faults = faults
        self.edges = tuple(edges)
        self._by_arrow: dict[tuple[Event, Any, Any], Edge] = {}
        for edge in self.edges:
            for source in edge.sources:
                arrow = (edge.event, source, source if edge.dest is None else edge.dest)
                if arrow in self._by_arrow:
                    raise Bug(f"{name}: two edges for {arrow}")
                self._by_arrow[arrow] = edge

    @cached_property
    def _machine(self) -> TransitionsMachine:
        """The table as the library has it; made when something is decided: commands that only look start quicker."""
        from transitions import Machine as TransitionsMachine

        return TransitionsMachine(
            model=None,
            states=self.states,
            initial=next(iter(self.initial)),
            transitions=[
                {
                    "trigger": event.value, "source": source, "dest": dest,
                    "conditions": [_condition(guard) for guard in edge.guards],
                }
                for event, source, dest, edge in self.arrows()
            ],
            auto_transitions=False,
            send_event=True,
            queued=False,
            before_state_change=self._remember_edge,
        )  # fmt: skip

    def _remember_edge(self, data: EventData) -> None:
        subject, transition = data.model, data.transition
        if isinstance(subject, _Subject) and transition is not None:
            source, dest = self.states[str(transition.source)], self.states[str(transition.dest)]
            subject.edge = self._by_arrow[Event(data.event.name), source, dest]

    def arrows(self) -> Iterable[tuple[Event, Any, Any, Edge]]:
        """Return every (event, from, to) with its edge, in the order of the table."""
        return [(*arrow, edge) for arrow, edge in self._by_arrow.items()]

    def sources(self, event: Event) -> list[Any]:
        """Return the states from which `event` can be fired."""
        return list(dict.fromkeys(source for each, source, _ in self._by_arrow if each is event))

    def events(self, state: Any) -> list[Event]:
        """Return what can happen in `state`: the legal ways on."""
        return list(dict.fromkeys(event for event, source, _ in self._by_arrow if source is state))

    def decide(self, row: Row, event: Event, args: Args) -> Change:
        """Return what `event` makes of `row`.

        Raises
        ------
        LeaseLost
            The event is one of a worker's, and the lease is not the caller's.
        IllegalTransition
            The event is not possible in this state, or a guard refuses it.
        """
        from transitions import MachineError

        subject = _Subject(row.state)
        try:
            trigger = self._machine.events[event.value].trigger
            trigger(subject, row=row, args=args)
        except (KeyError, MachineError):
            pass
        if subject.edge is None:
            raise self._refusal(row, event, args)
        edge, dest = subject.edge, subject.state
        values = {**edge.effect(row, args), "state": dest}
        fault = values.get("fault", row.fault)
        if FaultClass.of(fault) not in self.faults[dest]:
            raise Bug(f"{self._title(row)}: {event.value} would leave it {dest.value} with fault {fault}")
        return Change(edge, row.state, dest, values)

    def _title(self, row: Row) -> str:
        number = getattr(row, "id_", None)
        return f"{self.name} {number}" if number is not None else self.name

    def _refusal(self, row: Row, event: Event, args: Args) -> IllegalTransition | LeaseLost:
        edges = [edge for each, source, _, edge in self.arrows() if each is event and source is row.state]
        all_edges = [edge for edge in self.edges if edge.event is event]
        ways = ", ".join(each.value for each in self.events(row.state)) or "none, it has ended"
        workers = bool(all_edges) and all(Guard.HELD in edge.guards for edge in all_edges)
        if workers and not Guard.HELD.holds(row, args):
            return LeaseLost(
                f"{self._title(row)}: {event.value} refused, it is {row.state.value} (fault {row.fault}) and "
                f"belongs to {row.lease_owner or 'nobody'}, not to {args.owner or 'nobody'}"
            )
        if edges:
            missing = "; or ".join(
                " and ".join(guard.value for guard in edge.guards if not guard.holds(row, args)) for edge in edges
            )
            why = f"it needs: {missing}"
        else:
            why = f"not possible in state {row.state.value}"
        return IllegalTransition(f"{self._title(row)}: {event.value} refused, {why} (legal ways on: {ways})")


def _condition(guard: Guard) -> Callable[[EventData], bool]:
    def condition(data: EventData) -> bool:
        return guard.holds(data.kwargs["row"], data.kwargs["args"])

    return condition


def lease_edges(
    states: tuple[Any, ...], who: str, *, history: bool = True, revert: Guard = Guard.FAULTED
) -> list[Edge]:
    """Return the edges of everything that is worked on under a lease in `states`; `revert` is what reverting takes."""
    return [
        Edge(
            Event.CLAIM, states, None, who, "A worker takes it: new attempt, new lease.", take_lease,
            (Guard.READY, Guard.FREE), history,
        ),
        Edge(Event.HEARTBEAT, states, None, who, "The worker is alive.", keep_lease, (Guard.HELD,), history=False),
        Edge(
            Event.RELEASE, states, None, who, "Nothing to do yet; look again later.", postpone, (Guard.HELD,), history,
        ),
        Edge(
            Event.FAULT, states, None, who, "The attempt failed, but may succeed later.", record_fault,
            (Guard.HELD, Guard.RETRYABLE),
        ),
        Edge(
            Event.LOST, states, None, "reaper", "The lease ran out without an outcome; fault 6.", record_loss,
            (Guard.LAPSED,),
        ),
        Edge(
            Event.REVERT, states, None, "revert, operator", "Try again.", clear_fault,
            (revert, Guard.FREE, Guard.MAY_RETRY),
        ),
    ]  # fmt: skip
