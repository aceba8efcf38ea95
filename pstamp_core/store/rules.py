"""What the database itself refuses: SQL made from the machines, for both engines.

CHECK constraints keep unknown states and forbidden state-fault pairs out; triggers refuse illegal first states, illegal
steps from state to state, attempts that go back, changes to what has ended, and any change of the history. They hold
for whoever writes, also by hand. Messages begin with ``pstamp:``, name the rule and the legal ways on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peewee import Check, Database, MySQLDatabase

from pstamp_core.faults import FIRST_FINAL
from pstamp_core.machines import Machine
from pstamp_core.machines.machine import FaultClass
from pstamp_core.store.fire import MACHINES
from pstamp_core.store.tables import Worked, pstampHistory

_FAULTS = {
    FaultClass.NONE: "fault = 0",
    FaultClass.RETRYABLE: f"fault BETWEEN 1 AND {FIRST_FINAL - 1}",
    FaultClass.FINAL: f"fault >= {FIRST_FINAL}",
}
_LONGEST_MESSAGE = 128
"""MESSAGE_TEXT of MySQL's SIGNAL holds no more."""


def fault_rule(machine: Machine) -> str:
    """Return the condition that only known states stand in the table, each with a fault that goes with it."""
    return " OR ".join(
        f"(state = '{state.value}' AND ({' OR '.join(_FAULTS[each] for each in FaultClass if each in allowed)}))"
        for state, allowed in machine.faults.items()
    )


def check_constraints() -> dict[type[Worked], Any]:
    """Return the CHECK constraint of each table under a machine."""
    return {table: Check(fault_rule(machine), name=check_name(table)) for table, machine in MACHINES.items()}


def check_name(table: type[Worked]) -> str:
    """Return the name of a table's CHECK constraint."""
    return f"{table.__name__}_state_fault"


def triggers(db: Database) -> Iterator[str]:
    """Yield the statements that make the triggers on the engine of `db`, in place of older ones."""
    engine = _mysql_trigger if isinstance(db, MySQLDatabase) else _sqlite_trigger
    for table, machine in MACHINES.items():
        faults = list(_fault_rules(machine))
        yield from engine(table.__name__, "INSERT", [*_insert_rules(machine), *faults])
        yield from engine(table.__name__, "UPDATE", [*_update_rules(machine), *faults])
    always = [("1 = 1", "pstamp: the history is never changed; correct a row by an event of its machine")]
    yield from engine(pstampHistory.__name__, "UPDATE", always)
    yield from engine(pstampHistory.__name__, "DELETE", always)


Rule = tuple[str, str]
"""A condition under which a statement is refused, and the message."""


def _fault_rules(machine: Machine) -> Iterator[Rule]:
    # The CHECK constraint says the same, but no engine lets it say why.
    for state, allowed in machine.faults.items():
        words = " or ".join(each.value for each in FaultClass if each in allowed)
        legal = " OR ".join(f"NEW.{_FAULTS[each]}" for each in FaultClass if each in allowed)
        yield (
            f"NEW.state = '{state.value}' AND NOT ({legal})",
            f"pstamp: a {machine.name} in state {state.value} has fault {words}",
        )


def _insert_rules(machine: Machine) -> Iterator[Rule]:
    words = ", ".join(state.value for state in machine.initial)
    allowed = ", ".join(f"'{state.value}'" for state in machine.initial)
    yield f"NEW.state NOT IN ({allowed})", f"pstamp: a new {machine.name} must be {words}"
    yield "NEW.attempt < 0", "pstamp: attempt must not be negative"


def _update_rules(machine: Machine) -> Iterator[Rule]:
    for state in machine.states:
        ways: dict[Any, list[str]] = {}
        for event, source, dest, _ in machine.arrows():
            if source is state:
                ways.setdefault(dest, []).append(event.value)
        stays = ways.pop(state, None)
        allowed = ", ".join(f"'{dest.value}'" for dest in (state, *ways))
        onward = "; ".join(f"{', '.join(events)} to {dest.value}" for dest, events in ways.items())
        text = f"pstamp: {machine.name} is {state.value}; ways on: {onward or 'none, it has ended'}"
        if len(text) > _LONGEST_MESSAGE:
            text = f"pstamp: {machine.name} is {state.value}; ways on: to {', '.join(dest.value for dest in ways)}"
        yield f"OLD.state = '{state.value}' AND NEW.state NOT IN ({allowed})", text
        if stays is None:  # nothing happens to it while it stays, so its outcome stands
            changed = "NEW.fault <> OLD.fault OR NEW.cause <> OLD.cause OR NEW.attempt <> OLD.attempt"
            yield f"NEW.state = '{state.value}' AND OLD.state = '{state.value}' AND ({changed})", text
    yield (
        "NEW.attempt < OLD.attempt",
        f"pstamp: attempt of a {machine.name} never goes back; it fences off late writers",
    )


def _sqlite_trigger(table: str, verb: str, rules: list[Rule]) -> Iterator[str]:
    name = trigger_name(table, verb)
    body = " ".join(f"SELECT RAISE(ABORT, '{message}') WHERE {condition};" for condition, message in rules)
    yield f'DROP TRIGGER IF EXISTS "{name}"'
    yield f'CREATE TRIGGER "{name}" BEFORE {verb} ON "{table}" FOR EACH ROW BEGIN {body} END'


def _mysql_trigger(table: str, verb: str, rules: list[Rule]) -> Iterator[str]:
    name = trigger_name(table, verb)
    body = " ".join(
        f"IF {condition} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}'; END IF;"
        for condition, message in rules
    )
    yield f"DROP TRIGGER IF EXISTS `{name}`"
    yield f"CREATE TRIGGER `{name}` BEFORE {verb} ON `{table}` FOR EACH ROW BEGIN {body} END"


def trigger_name(table: str, verb: str) -> str:
    """Return the name of a trigger."""
    return f"{table}_before_{verb.lower()}"
