"""What the database itself refuses: SQL made from the machines, for both engines.

CHECK constraints keep unknown states and forbidden state-fault pairs out; triggers refuse illegal first states, illegal
steps from state to state, attempts that go back, changes to what has ended, and any change of the history. They hold
for whoever writes, also by hand. Messages begin with ``pstamp:``, name the rule and the legal ways on.
"""

# ruff: noqa: S608 (the names of tables and columns are ours)

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from peewee import Check, Database, MySQLDatabase, PeeweeException

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
    return "\n    OR ".join(
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
    mysql = isinstance(db, MySQLDatabase)
    for name, create in _triggers(mysql).items():
        yield f"DROP TRIGGER IF EXISTS {_quoted(name, mysql)}"
        yield create


def script(mysql: bool) -> str:
    """Return all rules as a script for the shell ``mariadb`` (`mysql` true) or ``sqlite3``, to be read or run by a DBA.

    It may be run again, and puts back what somebody dropped; SQLite can't add a CHECK constraint to a table that is
    there, so that those stand in comments.
    """
    lines = []
    for table, machine in MACHINES.items():
        rule = f"CONSTRAINT {check_name(table)} CHECK ({fault_rule(machine)})"
        if mysql:  # MySQL does not know IF EXISTS here
            lines.append(f"ALTER TABLE {table.__name__} DROP CONSTRAINT /*M! IF EXISTS */ {check_name(table)};")
            lines.append(f"ALTER TABLE {table.__name__} ADD {rule};")
        else:
            text = f"CREATE TABLE {table.__name__} (..., {rule})"
            lines += [f"-- {line}" for line in text.splitlines()]
    end = "//" if mysql else ";"
    lines += ["DELIMITER //"] * mysql
    for name, create in _triggers(mysql).items():
        lines += [f"DROP TRIGGER IF EXISTS {_quoted(name, mysql)}{end}", f"{create}{end}"]
    lines += ["DELIMITER ;"] * mysql
    return "\n".join([*lines, ""])


def broken_rules(db: Any) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with the rules in an open database: ``CHECK`` or ``trigger``, its name, and what is wrong."""
    mysql = isinstance(db, MySQLDatabase)
    if mysql:
        there = db.execute_sql(
            "SELECT TRIGGER_NAME, EVENT_MANIPULATION, EVENT_OBJECT_TABLE, ACTION_STATEMENT, ACTION_TIMING "
            "FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()"
        )
        found = {name: _create(name, verb, table, body, mysql, timing) for name, verb, table, body, timing in there}
    else:
        found = dict(db.execute_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    for table, machine in MACHINES.items():
        problem = _check_problem(db, table, machine)
        if problem:
            yield "CHECK", check_name(table), problem
    for name, create in _triggers(mysql).items():
        if found.get(name) != create:
            yield "trigger", name, "is missing" if name not in found else "does not say what it should"


def _check_problem(db: Any, table: type[Worked], machine: Machine) -> str | None:
    """Return what is wrong with a CHECK constraint: what it lets through counts, since engines rewrite its text."""
    mysql = isinstance(db, MySQLDatabase)
    if mysql:
        (text,) = [row[1] for row in db.execute_sql(f"SHOW CREATE TABLE {table.__name__}")]
    else:
        ((text,),) = db.execute_sql("SELECT sql FROM sqlite_master WHERE name = ?", (table.__name__,))
    rest = text.partition(_quoted(check_name(table), mysql))[2]
    clause = _in_brackets(rest)
    if not clause:
        return "is missing"
    if rest.partition(clause)[2].lstrip().startswith("/*!80016 NOT ENFORCED"):
        return "is not enforced"
    pairs = [(state, fault) for state in [*(each.value for each in machine.states), "?"] for fault in _PROBES]
    rows = " UNION ALL ".join(f"SELECT '{state}' AS state, {fault} AS fault" for state, fault in pairs)
    if mysql:
        clause = clause.replace("%", "%%")
    try:
        let_through = set(db.execute_sql(f"SELECT state, fault FROM ({rows}) probes WHERE {clause}"))
    except PeeweeException:  # it speaks of other columns, too
        let_through = set()
    legal = {
        (state.value, fault)
        for state, allowed in machine.faults.items()
        for fault in _PROBES
        if fault >= 0 and FaultClass.of(fault) in allowed
    }
    return None if let_through == legal else "does not say what it should"


_PROBES = (-1, 0, 1, FIRST_FINAL - 1, FIRST_FINAL, 1000)
"""A fault of each class, those at the edges, and one that can't be."""


def _in_brackets(text: str) -> str:
    """Return the first bracket of `text` with what stands in it; empty if there is none."""
    depth, start = 0, text.find("(")
    for token in re.finditer(r"'[^']*'|[()]", text[max(start, 0) :]):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if not depth:
            return text[start : start + token.end()]
    return ""


def _triggers(mysql: bool) -> dict[str, str]:
    """Return the statement that makes each trigger, by its name."""
    body = _mysql_body if mysql else _sqlite_body
    made = {}
    for table, machine in MACHINES.items():
        faults = list(_fault_rules(machine))
        rules = {"INSERT": [*_insert_rules(machine), *faults], "UPDATE": [*_update_rules(machine), *faults]}
        for verb, each in rules.items():
            name = trigger_name(table.__name__, verb)
            made[name] = _create(name, verb, table.__name__, body(each), mysql)
    never = [("1 = 1", "pstamp: the history is never changed; correct a row by an event of its machine")]
    for verb in ("UPDATE", "DELETE"):
        name = trigger_name(pstampHistory.__name__, verb)
        made[name] = _create(name, verb, pstampHistory.__name__, body(never), mysql)
    return made


def _create(name: str, verb: str, table: str, body: str, mysql: bool, timing: str = "BEFORE") -> str:
    return f"CREATE TRIGGER {_quoted(name, mysql)} {timing} {verb} ON {_quoted(table, mysql)} FOR EACH ROW {body}"


def _quoted(name: str, mysql: bool) -> str:
    return f"`{name}`" if mysql else f'"{name}"'


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
    words = ", ".join(f"{state.value} with fault {fault.value}" for state, fault in machine.initial.items())
    legal = " OR ".join(
        f"(NEW.state = '{state.value}' AND NEW.{_FAULTS[fault]})" for state, fault in machine.initial.items()
    )
    yield f"NOT ({legal})", f"pstamp: a new {machine.name} must be {words}"
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


def _sqlite_body(rules: list[Rule]) -> str:
    lines = [f"    SELECT RAISE(ABORT, '{message}') WHERE {condition};" for condition, message in rules]
    return "\n".join(["BEGIN", *lines, "END"])


def _mysql_body(rules: list[Rule]) -> str:
    lines = [
        f"    IF {condition} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}'; END IF;"
        for condition, message in rules
    ]
    return "\n".join(["BEGIN", *lines, "END"])


def trigger_name(table: str, verb: str) -> str:
    """Return the name of a trigger."""
    return f"{table}_before_{verb.lower()}"
