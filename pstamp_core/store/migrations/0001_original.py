"""Schema 1: the first of ours, made from IPP's original one (version 0).

Up: the original tables stand aside while new ones are filled row by row; `takeover` says what becomes of the requests,
jobs and dependents, each of which gets a line of history ("migrate"). Text becomes utf8mb4, compared by bytes; a FLOAT
becomes the DOUBLE that was typed; a NULL that we do not allow becomes what it meant. Triggers come last.

Down: IPP's columns go back into original tables; ours, and the history, are lost.

The tables of this version are written out here once more, since those of the software will go on changing.
"""

# ruff: noqa: D101 (`tables.py` says what the tables are)
# ruff: noqa: S608 (the names of tables and columns are ours; values are bound)

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from peewee import (
    BigAutoField,
    BigIntegerField,
    BooleanField,
    Check,
    CompositeKey,
    DoubleField,
    ForeignKeyField,
    IntegerField,
    Model,
    MySQLDatabase,
    SmallIntegerField,
    TextField,
)

from pstamp_core.database import NameField, Table, UtcDateTimeField, create_tables
from pstamp_core.faults import Fault, RetryableError, fault_sentence
from pstamp_core.store.fire import MACHINES
from pstamp_core.store.migrations import original, sql
from pstamp_core.store.migrations.sql import Columns
from pstamp_core.store.migrations.takeover import Answer, Dependents, Row, take_job, take_request
from pstamp_core.store.rules import check_name, fault_rule, triggers


class Worked(Table):
    fault = SmallIntegerField()
    fault_count = IntegerField()
    cause = SmallIntegerField()
    attempt = IntegerField()
    lease_owner = NameField()
    lease_until = BigIntegerField()
    retry_at = BigIntegerField()


class pstampDataStore(Table):
    ds_id = BigAutoField()
    state = NameField()
    lastFileset = NameField(null=True)
    timestamp = UtcDateTimeField(null=True)
    label = NameField(null=True)
    outProduct = NameField(null=True, unique=True)
    uri = NameField(255, null=True)
    pollInterval = IntegerField()
    need_magic = SmallIntegerField()


class pstampProject(Table):
    proj_id = BigAutoField()
    name = NameField(unique=True)
    state = NameField()
    dbname = NameField(255)
    dvodb = NameField(null=True)
    camera = NameField(null=True)
    telescope = NameField(null=True)
    need_magic = BooleanField()
    imageroot = NameField(255)
    oldest_diff = BigIntegerField()
    oldest_unconv = BigIntegerField()


class pstampRequest(Worked):
    req_id = BigAutoField()
    ds_id = BigIntegerField()
    state = NameField()
    name = NameField(null=True, unique=True)
    reqType = NameField(16, null=True)
    label = NameField(null=True, index=True)
    outProduct = NameField(null=True)
    uri = NameField(255)
    outdir = NameField(255, null=True)
    username = NameField(255, null=True, index=True)
    proj_id = BigIntegerField()
    registered = UtcDateTimeField()
    timestamp = UtcDateTimeField()
    changed_at = BigIntegerField()

    class Meta:
        indexes = ((("state", "fault", "lease_owner"), False),)


class pstampDependent(Worked):
    dep_id = BigAutoField()
    state = NameField()
    stage = NameField()
    stage_id = BigIntegerField()
    component = NameField()
    imagedb = NameField(255)
    outdir = NameField(255, null=True)
    rlabel = NameField(null=True)
    need_magic = BooleanField()
    open_key = NameField(400, null=True, unique=True)
    reason = TextField()
    changed_at = BigIntegerField()

    class Meta:
        indexes = ((("state", "fault", "lease_owner"), False),)


class pstampJob(Worked):
    job_id = BigAutoField()
    req_id = ForeignKeyField(pstampRequest, column_name="req_id", object_id_name="request_id", on_delete="CASCADE")
    rownum = NameField()
    state = NameField()
    jobType = NameField(16)
    exp_id = BigIntegerField()
    outputBase = NameField(255, null=True)
    options = BigIntegerField()
    dep_id = BigIntegerField(index=True)
    parent_id = BigIntegerField()
    is_parent = BooleanField()
    image = NameField(512)
    params = TextField()
    result = TextField()
    sentence = TextField()
    changed_at = BigIntegerField()

    class Meta:
        indexes = (
            (("state", "fault", "lease_owner"), False),
            (("req_id", "state", "fault", "lease_owner", "job_id", "dep_id", "retry_at"), False),
            (("image", "state", "fault", "lease_owner", "req_id", "job_id"), False),
        )


class pstampHistory(Table):
    hist_id = BigAutoField()
    machine = NameField(16)
    row_id = BigIntegerField()
    event = NameField(16)
    source = NameField(16)
    dest = NameField(16)
    fault = SmallIntegerField()
    cause = SmallIntegerField()
    attempt = IntegerField()
    who = NameField(255)
    at = BigIntegerField()
    note = TextField()

    class Meta:
        indexes = ((("machine", "row_id", "hist_id"), False),)


class pstampWebRequest(Table):
    num = BigAutoField()


class pstampFile(Table):
    file_id = BigAutoField()
    job_id = BigIntegerField(index=True)
    path = NameField(255)


class pstampUserDomain(Table):
    domainName = NameField(primary_key=True)
    accessLevel = IntegerField()
    defaultProduct = NameField(255, null=True)
    defaultLabel = NameField(null=True)


class pstampUser(Table):
    userName = NameField()
    domainName = NameField()
    accessLevel = IntegerField()
    defaultProduct = NameField(255, null=True)
    defaultLabel = NameField(null=True)

    class Meta:
        primary_key = CompositeKey("userName", "domainName")


class pstampAccessLevel(Table):
    proj_id = ForeignKeyField(pstampProject, column_name="proj_id", object_id_name="project_id", on_delete="CASCADE")
    accessLevel = IntegerField()
    mjd_min = DoubleField()
    mjd_max = DoubleField()

    class Meta:
        primary_key = CompositeKey("proj_id", "accessLevel")


class Label(Table):
    label = NameField(primary_key=True)
    priority = IntegerField()
    active = BooleanField()
    comment = NameField(80, null=True)


TABLES: tuple[type[Model], ...] = (
    pstampDataStore, pstampProject, pstampRequest, pstampDependent, pstampJob, pstampHistory, pstampWebRequest,
    pstampFile, pstampUserDomain, pstampUser, pstampAccessLevel, Label,
)  # fmt: skip

_NULL_MEANS: dict[str, Columns] = {
    "pstampDataStore": {"state": "disabled", "pollInterval": 60, "need_magic": 0},  # only `enabled` ones are polled
    "pstampProject": {"state": "enabled", "dbname": "", "need_magic": 0},  # no tool looked at it
    "pstampRequest": {"ds_id": 0, "uri": "", "proj_id": 0},
    "pstampDependent": {
        "stage": "", "stage_id": 0, "component": "", "imagedb": "", "need_magic": 0, "fault_count": 0,
    },
    "pstampJob": {
        "rownum": "0", "jobType": "none", "exp_id": 0, "options": 0, "dep_id": 0, "fault_count": 0, "parent_id": 0,
        "is_parent": 0,
    },
    "pstampFile": {"path": ""},
    "pstampUserDomain": {"accessLevel": 0},
    "pstampUser": {"accessLevel": 0},
    "pstampAccessLevel": {"mjd_min": 0.0, "mjd_max": 0.0},
    "Label": {"priority": 10000, "active": 1},  # the default priority; only `false` keeps work back
}  # fmt: skip
"""What NULL means in a column that has none with us."""

_LABELS = {
    "pstampDataStore": "label", "pstampRequest": "label", "pstampUser": "defaultLabel",
    "pstampUserDomain": "defaultLabel",
}  # fmt: skip
"""The columns that hold a `Label`."""

_OURS: Columns = {"attempt": 0, "lease_owner": "", "lease_until": 0, "retry_at": 0}
_NUMBERS = {
    "pstampDataStore": "ds_id", "pstampProject": "proj_id", "pstampRequest": "req_id", "pstampDependent": "dep_id",
    "pstampJob": "job_id", "pstampWebRequest": "num", "pstampFile": "file_id",
}  # fmt: skip
"""The columns that the database numbers."""


def up(migrator: Any, db: Any) -> None:
    """Make version 1 of version 0.

    Raises
    ------
    RetryableError
        Fault 3: a table is not as IPP's.
    """
    _must_be_the_original(db)
    sql.set_aside(db, original.TABLES, 0)
    checks = {table.__name__: Check(fault_rule(machine), name=check_name(table)) for table, machine in MACHINES.items()}
    for table in TABLES:
        table._meta.constraints = [checks[table.__name__]] if table.__name__ in checks else []
    with db.bind_ctx(TABLES, bind_refs=False, bind_backrefs=False):
        create_tables(db, TABLES)
    with _clock_of_the_server(db):
        _Up(db, migrator.report).run()
    for statement in triggers(db):
        sql.run(db, statement)


def down(migrator: Any, db: Any) -> None:
    """Make version 0 of version 1."""
    sql.set_aside(db, [table.__name__ for table in TABLES], 1)
    for statement in original.statements(db):
        sql.run(db, statement)
    with _clock_of_the_server(db):
        _Down(db, migrator.report).run()


def _must_be_the_original(db: Any) -> None:
    """Refuse a table with more or fewer columns than IPP's; a table may be missing, as in old installations."""
    for table in sql.names(db) & original.TABLES.keys():
        found, expected = set(sql.columns(db, table)), original.columns(table)
        if found != expected:
            unknown, missing = (", ".join(sorted(each)) or "none" for each in (found - expected, expected - found))
            raise RetryableError(
                f"table {table}: not as in IPP's schema: unknown columns {unknown}, missing {missing}; "
                "make it so, then migrate again",
                Fault.PS_EXIT_CONFIG_ERROR,
            )


@contextmanager
def _clock_of_the_server(db: Any) -> Iterator[None]:
    """Read a TIMESTAMP as IPP's tools do: they store UTC through sessions that have the server's time zone."""
    if not isinstance(db, MySQLDatabase):
        yield
        return
    sql.run(db, "SET time_zone = @@GLOBAL.time_zone")
    try:
        yield
    finally:
        sql.run(db, "SET time_zone = '+00:00'")


class _Up:
    """Fills the tables of version 1."""

    def __init__(self, db: Any, report: Any) -> None:
        self.db = db
        self.report = report
        self.there = sql.names(db)
        self.nulls: Counter[tuple[str, str, str]] = Counter()
        self.history: list[Columns] = []
        self.labels = {original.fold(row["label"]): row["label"] for row in self.all("Label")}

    def all(self, table: str, where: str = "", *values: Any, what: str = "*") -> list[Columns]:
        """Return rows of an original table; none if an old installation does not have it."""
        name = sql.aside(table, 0)
        return sql.select(self.db, f"SELECT {what} FROM {name} {where}", *values) if name in self.there else []

    def numbered(self, table: str) -> Iterator[Columns]:
        """Yield all rows of an original table in the order of their numbers."""
        name = sql.aside(table, 0)
        yield from sql.rows(self.db, name, _NUMBERS[table]) if name in self.there else ()

    def filled(self, table: str, row: Mapping[str, Any]) -> Columns:
        """Return the columns of a row without forbidden NULLs, and with labels spelled as in `Label`."""
        new = dict(row)
        for column, meaning in _NULL_MEANS.get(table, {}).items():
            if new[column] is None:
                new[column] = meaning
                self.nulls[table, column, repr(meaning)] += 1
        column = _LABELS.get(table, "")
        label = new.get(column)
        if label and (spelled := self.labels.get(original.fold(label), label)) != label:
            new[column] = spelled
            key = " ".join(str(row[name]) for name in _key(table))
            self.report.say(f"{table} {key}: {column} {label!r} -> {spelled!r}: labels compare by their bytes")
        return new

    def run(self) -> None:
        """Fill all tables."""
        for table in ("pstampDataStore", "pstampWebRequest", "pstampFile"):
            sql.insert(self.db, table, (self.plain(table, row) for row in self.numbered(table)))
        for table in ("pstampUserDomain", "pstampUser", "Label"):
            sql.insert(self.db, table, [self.filled(table, row) for row in self.all(table)])
        self.projects()
        self.worked()
        self.write_history(0)
        self.files()
        for name, column in _NUMBERS.items():
            if sql.aside(name, 0) in self.there:
                number = sql.next_number(self.db, sql.aside(name, 0), column)
                sql.keep_number(self.db, name, column, number)
        for (table, column, meaning), count in sorted(self.nulls.items()):
            self.report.say(f"{table}: {column} NULL -> {meaning} (rows: {count})")

    def plain(self, table: str, row: Columns) -> Columns:
        """Return a row whose state, if it has one, compares as before."""
        new = self.filled(table, row)
        if (state := new.get("state")) and state != "enabled" and original.fold(state) == "enabled":
            new["state"] = "enabled"
            self.report.say(
                f"{table} {row[_NUMBERS[table]]}: state {state!r} -> 'enabled': states compare by their bytes"
            )
        return new

    def projects(self) -> None:
        """Fill the projects and their access levels."""
        known = set()
        projects = []
        for row in self.numbered("pstampProject"):
            new = {**self.plain("pstampProject", row), "imageroot": "", "oldest_diff": 0, "oldest_unconv": 0}
            number = row["proj_id"]
            known.add(number)
            if new["name"] is None:
                new |= {"name": f"project.{number}", "state": "disabled"}
                self.report.say(f"project {number}: name NULL -> {new['name']!r}, disabled: no request can name it")
            if new["state"] == "enabled" and "/" not in new["dbname"]:
                self.report.say(
                    f"project {number}: dbname {new['dbname']!r} is kept, but has to be an address; "
                    f"give it one: pstamp project add {new['name']} --imagedb mysql://user@host/{new['dbname']}"
                )
            projects.append(new)
        sql.insert(self.db, "pstampProject", projects)
        levels = []
        # MySQL prints no more than six digits of a FLOAT.
        exact = "proj_id, accessLevel, mjd_min + 0.0e0 AS mjd_min, mjd_max + 0.0e0 AS mjd_max"
        for row in self.all("pstampAccessLevel", what=exact):
            new = self.filled("pstampAccessLevel", row)
            if row["proj_id"] not in known:
                self.report.say(
                    f"access level {row['accessLevel']} of project {row['proj_id']}: removed: there is no such project"
                )
                continue
            levels.append(new | {name: original.as_printed(float(new[name])) for name in ("mjd_min", "mjd_max")})
        sql.insert(self.db, "pstampAccessLevel", levels)

    def worked(self) -> None:
        """Fill dependents, requests and jobs."""
        dependents = Dependents()

        def taken() -> Iterator[Columns]:
            for row in self.numbered("pstampDependent"):
                ours = {**_OURS, "reason": "", "changed_at": self.report.at}
                yield self.finish(dependents.take(row, self.filled("pstampDependent", row) | ours))

        sql.insert(self.db, "pstampDependent", taken())
        jobs = _Jobs(self, dependents)
        portion: list[Columns] = []
        for row in self.numbered("pstampRequest"):
            portion.append(row)
            if len(portion) == sql.PORTION // 10:
                self.requests(portion, jobs)
                portion = []
        self.requests(portion, jobs)
        jobs.orphans()

    def requests(self, portion: list[Columns], jobs: _Jobs) -> None:
        """Fill some requests with their jobs."""
        if not portion:
            return
        of_request = jobs.of(portion[0]["req_id"], portion[-1]["req_id"])
        requests: list[Columns] = []
        new_jobs: list[Columns] = []
        for old in portion:
            new = self.filled("pstampRequest", old) | _OURS
            since = _microseconds(old["timestamp"]) or _microseconds(old["registered"]) or self.report.at
            for column in ("registered", "timestamp"):
                if _microseconds(old[column]) is None:
                    new[column] = f"{datetime.fromtimestamp(since / 1e6, UTC):%Y-%m-%d %H:%M:%S}"
                    self.nulls["pstampRequest", column, "the other time, or now"] += 1
            mine = of_request.pop(old["req_id"], [])
            row, answer = take_request(old, new, mine, self.name_is_taken)
            row.new["changed_at"] = self.report.at if row.changed else since
            requests.append(self.finish(row))
            new_jobs += [self.finish(job) for job in mine if not self.removed(job)]
            if answer:
                new_jobs.append(self.finish(jobs.answer(row.number, answer)))
        sql.insert(self.db, "pstampRequest", requests)
        sql.insert(self.db, "pstampJob", new_jobs)

    def name_is_taken(self, name: str) -> bool:
        """Tell whether a request has this name."""
        return bool(self.all("pstampRequest", "WHERE name = ?", name))

    def removed(self, row: Row) -> bool:
        """Tell whether a row is left out; if so, say it and write it into the history."""
        if row.removed:
            self.finish(row)
        return row.removed

    def finish(self, row: Row) -> Columns:
        """Report a row, remember its line of history, and return its columns."""
        for line in row.lines():
            self.report.say(line)
        made = not row.old
        self.history.append(
            {
                "machine": row.machine, "row_id": row.number, "event": "make" if made else "migrate",
                "source": "" if made else str(row.old["state"] or "")[:16], "dest": "" if row.removed else row.state,
                "fault": row.fault, "cause": row.new["cause"], "attempt": 0, "who": "migration",
                "at": self.report.at if row.removed else row.new["changed_at"],
                "note": "; ".join([*row.why, *row.other]) or "taken over from the original schema",
            }
        )  # fmt: skip
        self.write_history(sql.PORTION)
        return row.new

    def write_history(self, at_least: int) -> None:
        """Write the remembered lines of history, once there are enough of them."""
        if len(self.history) > at_least:
            sql.insert(self.db, "pstampHistory", self.history)
            self.history = []

    def files(self) -> None:
        """Report files that clean-up will not find any more."""
        lost = sql.select(
            self.db, "SELECT file_id, job_id, path FROM pstampFile WHERE job_id NOT IN (SELECT job_id FROM pstampJob)"
        )
        for row in lost:
            self.report.say(
                f"file {row['file_id']}: job {row['job_id']} is not there any more: delete {row['path']!r} by hand"
            )


class _Jobs:
    """Reads the jobs of the original, and numbers those that are made."""

    def __init__(self, fill: _Up, dependents: Dependents) -> None:
        self.fill = fill
        self.dependents = dependents
        table = sql.aside("pstampJob", 0)
        there = table in fill.there
        self.next = sql.next_number(fill.db, table, "job_id") if there else 1
        self.seen_twice = (
            {
                row["job_id"]
                for row in sql.select(fill.db, f"SELECT job_id FROM {table} GROUP BY job_id HAVING COUNT(*) > 1")
            }
            if there
            else set()
        )
        self.seen: set[int] = set()

    def of(self, first: int, last: int) -> dict[int, list[Row]]:
        """Return the jobs of the requests from `first` to `last`."""
        found: dict[int, list[Row]] = {}
        for old in self.fill.all("pstampJob", "WHERE req_id BETWEEN ? AND ? ORDER BY req_id, job_id", first, last):
            found.setdefault(old["req_id"], []).append(self.take(old))
        return found

    def take(self, old: Columns) -> Row:
        """Return a job, legal by itself, with a number of its own."""
        ours = {**_OURS, "image": "", "params": "", "result": "", "sentence": "", "changed_at": self.fill.report.at}
        row = take_job(old, self.fill.filled("pstampJob", old) | ours, self.dependents)
        if row.number in self.seen_twice:
            if row.number in self.seen:
                row.correct("job_id", self.number(), "the number stands twice")
                row.number = row.new["job_id"]
            else:
                self.seen.add(row.number)
        return row

    def number(self) -> int:
        """Return a number that no job has."""
        self.next += 1
        return self.next - 1

    def answer(self, req_id: int, answer: Answer) -> Row:
        """Return a stopped job that tells the user what became of a request."""
        number = self.number()
        new = {
            **_NULL_MEANS["pstampJob"], **_OURS, "job_id": number, "req_id": req_id, "state": "stop",
            "fault": answer.fault, "cause": answer.cause, "outputBase": None, "image": "", "params": "", "result": "",
            "sentence": fault_sentence(answer.fault), "changed_at": self.fill.report.at,
        }  # fmt: skip
        return Row("job", number, {}, new, why=[f"the answer of request {req_id}"])

    def orphans(self) -> None:
        """Report the jobs whose request is gone; they stay behind."""
        requests = f"(SELECT req_id FROM {sql.aside('pstampRequest', 0)})"
        for old in self.fill.all("pstampJob", f"WHERE req_id NOT IN {requests} ORDER BY job_id"):
            row = self.take(old)
            row.remove(f"there is no request {old['req_id']}")
            self.fill.removed(row)


def _key(table: str) -> tuple[str, ...]:
    return (_NUMBERS[table],) if table in _NUMBERS else original.UNIQUE.get(table, ("proj_id", "accessLevel"))


def _microseconds(value: Any) -> int | None:
    """Return a moment as the database gives it as microseconds since 1970; None for NULL and MySQL's day 0."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return int(moment.replace(tzinfo=UTC).timestamp() * 1_000_000)


class _Down:
    """Fills the original tables."""

    def __init__(self, db: Any, report: Any) -> None:
        self.db = db
        self.report = report
        self.seen: set[tuple[Any, ...]] = set()

    def run(self) -> None:
        """Fill all tables."""
        for table, text in original.TABLES.items():
            widths = {name: int(width) for name, width in re.findall(r"(\w+) VARCHAR\((\d+)\)", text)}
            columns, source = sql.columns(self.db, table), sql.aside(table, 1)
            if table in _NUMBERS:
                rows: Iterable[Columns] = sql.rows(self.db, source, _NUMBERS[table])
            else:
                rows = sql.select(self.db, f"SELECT * FROM {source}")
            fit = self.fitter(table, widths)
            sql.insert(self.db, table, (fit({name: row[name] for name in columns}) for row in rows))
            if table in _NUMBERS:
                number = sql.next_number(self.db, source, _NUMBERS[table])
                sql.keep_number(self.db, table, _NUMBERS[table], number)
        self.losses()

    def fitter(self, table: str, widths: dict[str, int]) -> Callable[[Columns], Columns]:
        """Return what makes the columns of a row fit the original table."""

        def fit(row: Columns) -> Columns:
            title = f"{table} {' '.join(str(row[name]) for name in _key(table))}"
            new = dict(row)
            for name, width in widths.items():
                if new[name] is not None:
                    new[name] = original.latin1(new[name])[:width]
            if table == "pstampRequest" and new["state"] == "cancel":
                new["state"] = "run"  # IPP finishes it when no job is open, as we do
            self.make_unique(table, new, widths)
            for name in new:
                if new[name] != row[name]:
                    self.report.say(
                        f"{title}: {name} {row[name]!r} -> {new[name]!r}: as the original schema can hold it"
                    )
            return new

        return fit

    def make_unique(self, table: str, new: Columns, widths: dict[str, int]) -> None:
        """Change the text of a row that the original schema takes for that of another one."""
        unique = original.UNIQUE.get(table, ())
        if any(new[name] is None for name in unique) or not unique:
            return
        name, number = unique[-1], 2
        text = new[name]
        while (key := (table, *(original.fold(new[each]) for each in unique))) in self.seen:
            new[name] = f"{text[: widths[name] - 1 - len(str(number))]}.{number}"
            number += 1
        self.seen.add(key)

    def losses(self) -> None:
        """Report what the original schema has no place for."""
        (lines,) = sql.run(self.db, f"SELECT COUNT(*) FROM {sql.aside('pstampHistory', 1)}").fetchone()
        self.report.say(f"pstampHistory: {lines} lines are gone, and so are all columns of ours")
        for row in sql.select(
            self.db, "SELECT req_id, COUNT(*) AS jobs FROM pstampJob WHERE state IN ('run', 'parsed') GROUP BY req_id"
        ):
            self.report.say(
                f"request {row['req_id']}: {row['jobs']} open jobs have lost their parameters, and IPP's tools find no "
                "<outputBase>.mdc: let it be parsed again"
            )
