"""Looking at a live database and its files for what should not be there, without changing anything.

The database is read in one transaction that sees one state of it, in portions; files are looked at after that, and what
seems wrong with one is looked at again, since work goes on meanwhile.
"""

# ruff: noqa: S608 (the names of tables and columns are ours; values are bound)

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peewee import MySQLDatabase

from pstamp_core.database import session
from pstamp_core.datastore import TABLES as DATASTORE_TABLES
from pstamp_core.faults import is_retryable
from pstamp_core.files import measure
from pstamp_core.machines import DependentState, Event, JobState, Machine, RequestState
from pstamp_core.machines.dependent import SHARED
from pstamp_core.machines.job import OPEN
from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.machines.request import FINISHABLE
from pstamp_core.store import MACHINES, TABLES, Worked, moment, pstampDependent, pstampJob, pstampRequest
from pstamp_core.store.history import PORTION, Line, chain_problem, portions, rows_with_history, state_problem
from pstamp_core.store.rules import broken_rules, script
from pstamp_core.tasks.server import Progress, Server

RUN = "mend it with: pstamp run"
INIT = "mend it with: pstamp init"
BY_HAND = "no command mends it: a DBA puts back what is expected"

_OPEN = [state.value for state in OPEN]
_SHARED = [state.value for state in SHARED]
_FINISHABLE = [state.value for state in FINISHABLE]
_PUBLISHED = [*_FINISHABLE, RequestState.STOP.value, RequestState.GOTO_CLEANED.value]
_WITHOUT_JOBS = [RequestState.NEW.value, RequestState.CANCEL.value]
_RESULTS = "PSRESULTS"
_PRIVATE = re.compile(r"\..*\.tmp")


def rules_sql(server: Server | None = None, *, mysql: bool = False) -> str:
    """Return the database's own rules as a script: for the engine of `server`, or else for MySQL or SQLite."""
    return script(isinstance(server.store.db, MySQLDatabase) if server else mysql)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes
    ----------
    what : str
        The row or file, and what is wrong with it.
    mend : str
        The command that mends it, or where to look.
    """

    what: str
    mend: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.what}; {self.mend}"


def check(server: Server, *, md5: bool = False, progress: Progress | None = None) -> Iterator[Finding]:
    """Yield all that is wrong with the database of `server` and its files.

    Parameters
    ----------
    server : Server
        The server; it may be at work.
    md5 : bool
        Read all products, too: their bytes must be those that were made.
    progress : Progress, optional
        Called as rows get looked at.

    Raises
    ------
    RetryableError
        Fault 2: database or disk do not answer.
    """
    db = server.store.db
    with session(db, [*TABLES, *DATASTORE_TABLES]):
        examination = _Examination(server, md5, progress or (lambda _what, _done, _total: None))
        with _one_state(db):
            yield from examination.rules()
            yield from examination.requests()
            yield from examination.jobs()
            yield from examination.dependents()
            yield from examination.filesets()
        yield from examination.products()
        yield from examination.published_files()
        yield from examination.data_store()
        yield from examination.private_files()


@contextmanager
def _one_state(db: Any) -> Iterator[None]:
    """Let all queries of the block see one state of the database, which none of them can change."""
    mysql = isinstance(db, MySQLDatabase)
    with db.manual_commit():
        if mysql:
            db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            db.execute_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        else:
            db.execute_sql("PRAGMA query_only = 1")
            db.execute_sql("BEGIN")
        try:
            yield
        finally:
            db.execute_sql("ROLLBACK")
            if not mysql:
                db.execute_sql("PRAGMA query_only = 0")


class _Examination:
    """One look at everything; the database is open."""

    def __init__(self, server: Server, md5: bool, progress: Progress) -> None:
        self.server = server
        self.db: Any = server.store.db
        self.md5 = md5
        self.progress = progress
        self.now = server.store.now()
        self.suspects: list[tuple[int, Finding]] = []  # products, by the number of their request

    def rules(self) -> Iterator[Finding]:
        """Look for the rules that the database itself keeps."""
        mends = {"trigger": INIT, "CHECK": "a DBA runs what this prints: pstamp db sql"}
        if not isinstance(self.db, MySQLDatabase):
            mends["CHECK"] = "SQLite gives it to new tables only, but the triggers refuse the same"
        for kind, name, problem in broken_rules(self.db):
            yield Finding(f"{kind} {name} {problem}", mends[kind])

    def requests(self) -> Iterator[Finding]:
        """Look at requests, their histories, jobs and filesets."""
        default = self.server.settings.product
        product = "COALESCE(NULLIF(t.outProduct, ''), ?)"
        joins = (
            f"LEFT JOIN dsProduct p ON p.prod_name = {product} "
            "LEFT JOIN dsFileset f ON f.prod_id = p.prod_id AND f.fileset_name = t.name"
        )
        columns = (
            f"t.name AS name, {product} AS product, f.fileset_id AS fileset_id, f.prod_col_0 AS owner, "
            "EXISTS (SELECT 1 FROM pstampJob j WHERE j.req_id = t.req_id) AS has_jobs"
        )
        for row, lines in self._rows(pstampRequest, columns, joins, [default, default]):
            title, look = _title("request", row), _look("request", row)
            if not row["has_jobs"] and row["state"] not in _WITHOUT_JOBS:
                yield Finding(f"{title}: has no jobs, though every request gets at least one", look)
            # What the original server published before its database was taken over is in its own data store.
            if row["state"] == RequestState.STOP.value and any(line.event == Event.FINISH.value for line in lines):
                fileset = f"fileset {row['product']}/{row['name']}"
                if row["fileset_id"] is None:
                    yield Finding(f"{title}: its {fileset} is not registered", look)
                elif row["owner"] != str(row["number"]):
                    yield Finding(f"{title}: its {fileset} is registered for request {row['owner']}", look)
            yield from self._row(pstampRequest, row, lines)

    def jobs(self) -> Iterator[Finding]:
        """Look at jobs, their histories, requests, dependents and products."""
        joins = "LEFT JOIN pstampRequest r ON r.req_id = t.req_id LEFT JOIN pstampDependent d ON d.dep_id = t.dep_id"
        columns = (
            "t.req_id AS req_id, t.dep_id AS dep_id, r.state AS request, d.state AS dependent, "
            f"CASE WHEN t.state = '{JobState.STOP.value}' AND t.fault = 0 AND r.state IN ({_list(_FINISHABLE)}) "
            "THEN t.result ELSE '' END AS result"
        )
        for row, lines in self._rows(pstampJob, columns, joins):
            title, look, is_open = _title("job", row), _look("job", row), row["state"] in _OPEN
            if row["request"] is None:
                yield Finding(f"{title}: there is no request {row['req_id']}", look)
            elif is_open and row["request"] != row["state"]:
                yield Finding(f"{title}: is open, but its request {row['req_id']} is {row['request']}", look)
            elif row["request"] == RequestState.NEW.value:
                yield Finding(f"{title}: its request {row['req_id']} is new, and has no jobs before it is parsed", RUN)
            if row["dep_id"] and row["dependent"] is None:
                yield Finding(f"{title}: there is no dependent {row['dep_id']}", look)
            elif is_open and row["dependent"] == DependentState.STOP.value:
                yield Finding(f"{title}: waits for dependent {row['dep_id']}, which is stop", look)
            yield from self._row(pstampJob, row, lines)
            if row["result"]:
                yield from self._job_products(title, row)

    def dependents(self) -> Iterator[Finding]:
        """Look at dependents, their histories, and who waits for them."""
        columns = (
            "t.stage AS stage, t.stage_id AS stage_id, t.component AS component, t.imagedb AS imagedb, "
            "t.open_key AS open_key, EXISTS "
            f"(SELECT 1 FROM pstampJob j WHERE j.dep_id = t.dep_id AND j.state IN ({_list(_OPEN)})) AS needed"
        )
        for row, lines in self._rows(pstampDependent, columns):
            title, is_open = _title("dependent", row), row["state"] in _SHARED
            key = "|".join(str(row[name]) for name in ("imagedb", "stage", "stage_id", "component"))
            expected = key if is_open else None
            if row["open_key"] != expected:
                yield Finding(f"{title}: open_key is {row['open_key']!r}, expected {expected!r}", BY_HAND)
            if is_open and not row["needed"]:
                yield Finding(f"{title}: no job waits for it; the next that needs its component takes it over",
                              _look("dependent", row))  # fmt: skip
            yield from self._row(pstampDependent, row, lines)
        for first, count, key in self._run(
            "SELECT MIN(dep_id), COUNT(*), open_key FROM pstampDependent WHERE open_key IS NOT NULL "
            "GROUP BY open_key HAVING COUNT(*) > 1 ORDER BY 1"
        ):
            yield Finding(
                f"dependent {first}: open_key {key!r} is that of {count} dependents; it must be unique",
                f"look at: pstamp show dependent {first}",
            )

    def filesets(self) -> Iterator[Finding]:
        """Look for results that are published for nobody."""
        columns = (
            "p.prod_name AS product, f.fileset_name AS name, f.prod_col_0 AS owner, f.type AS type, "
            "r.req_id AS req_id, r.state AS state"
        )
        source = (
            "dsFileset f JOIN dsProduct p ON p.prod_id = f.prod_id LEFT JOIN pstampRequest r ON r.name = f.fileset_name"
        )
        for rows in portions(self.db, columns, source, "f.fileset_id"):
            for row in rows:
                is_owner = str(row["req_id"]) == row["owner"]
                if row["type"] == _RESULTS and not (is_owner and row["state"] in _PUBLISHED):
                    owner = f"which is {row['state']}" if is_owner else "but there is none of that number and name"
                    yield Finding(
                        f"fileset {row['product']}/{row['name']}: published for request {row['owner']}, {owner}",
                        f"look at: {self._folder(row)}",
                    )

    def products(self) -> Iterator[Finding]:
        """Report the products that are not as they should be, of requests that still want them."""
        for number, finding in self.suspects:
            if self._state("req_id", number) in _FINISHABLE:
                yield finding

    def published_files(self) -> Iterator[Finding]:
        """Look at the files of all registered filesets."""
        columns = "p.prod_name AS product, f.fileset_name AS name, f.prod_col_0 AS owner"
        source = "dsFileset f JOIN dsProduct p ON p.prod_id = f.prod_id"
        total, done = self._count("dsFileset"), 0
        for rows in portions(self.db, columns, source, "f.fileset_id"):
            for row in rows:
                if self._fileset(row):
                    yield from self._fileset(row)  # it may have been published anew, or withdrawn
            done += len(rows)
            self.progress("check filesets", done, max(done, total))

    def data_store(self) -> Iterator[Finding]:
        """Compare the data store's indexes and folders with its registry."""
        for path in self.server.datastore.stale_indexes():
            yield Finding(f"{path}: is not what the registry says", INIT)
        for path in self.server.datastore.unlisted():
            is_open = self._state("name", path.name) in _FINISHABLE
            yield Finding(f"{path}: a fileset that is not registered", RUN if is_open else "move it to another place")

    def private_files(self) -> Iterator[Finding]:
        """Look for what dead writers left."""
        settings = self.server.settings
        before = self.now / MICROSECONDS - settings.lease_seconds
        for root in (settings.work, settings.datastore):
            for path in _private(root):
                try:
                    old = path.lstat().st_mtime < before
                except FileNotFoundError:  # it is public by now
                    continue
                if old:
                    yield Finding(f"{path}: left by a writer that died", "delete it")

    # -- what they share

    def _run(self, sql: str, *values: Any) -> list[Any]:
        return list(self.db.execute_sql(sql.replace("?", self.db.param), values).fetchall())

    def _count(self, table: str) -> int:
        return int(self._run(f"SELECT COUNT(*) FROM {table}")[0][0])

    def _state(self, column: str, value: Any) -> str | None:
        """Return the state of a request as it is now."""
        found = self._run(f"SELECT state FROM pstampRequest WHERE {column} = ?", value)
        return found[0][0] if found else None

    def _rows(
        self, table: type[Worked], columns: str, joins: str = "", values: Sequence[Any] = ()
    ) -> Iterator[tuple[dict[str, Any], list[Line]]]:
        what, total = f"check {MACHINES[table].name}s", self._count(table.__name__)
        columns = f"t.fault_count AS fault_count, t.lease_owner AS lease_owner, t.lease_until AS lease_until, {columns}"
        for done, found in enumerate(rows_with_history(self.db, table, columns, joins, values), 1):
            yield found
            if done % PORTION == 0 or done == total:
                self.progress(what, done, total)

    def _row(self, table: type[Worked], row: Mapping[str, Any], lines: list[Line]) -> Iterator[Finding]:
        """Look at what all rows have: state, fault, lease and history."""
        machine = MACHINES[table]
        title, look = _title(machine.name, row), _look(machine.name, row)
        problem = state_problem(machine, row["state"], row["fault"])
        if problem:
            expected = f"; expected {lines[-1].dest} with fault {lines[-1].fault}, as its history says" if lines else ""
            yield Finding(f"{machine.name} {row['number']}: {problem}{expected}", BY_HAND)
            return
        yield from self._lease(machine, title, row)
        events = machine.events(machine.states(row["state"]))
        tries = row["fault_count"]
        if is_retryable(row["fault"]) and tries >= self.server.settings.retry_ceiling and Event.GIVE_UP not in events:
            yield Finding(
                f"{title}: {tries} tries failed, the last with fault {row['fault']}, and nobody tries again",
                f"mend the cause, then: pstamp revert {machine.name} {row['number']}",
            )
        problem = chain_problem(machine, row, lines)
        if problem:
            yield Finding(f"{title}: {problem}", look)

    def _lease(self, machine: Machine, title: str, row: Mapping[str, Any]) -> Iterator[Finding]:
        owner = row["lease_owner"]
        if owner and (row["fault"] or Event.HEARTBEAT not in machine.events(machine.states(row["state"]))):
            why = f"with fault {row['fault']}" if row["fault"] else f"when it is {row['state']}"
            yield Finding(f"{title}: has a lease of {owner}, expected none {why}", BY_HAND)
        elif owner and row["lease_until"] < self.now:
            until = moment(row["lease_until"])
            yield Finding(f"{title}: the lease of {owner} ran out at {until:%Y-%m-%d %H:%M:%S} UTC", RUN)

    def _job_products(self, title: str, row: Mapping[str, Any]) -> Iterator[Finding]:
        """Look at the products of a job, whose request is not finished."""
        look = _look("job", row)
        try:
            products = [
                (Path(each["path"]), each["bytes"], each["md5"]) for each in json.loads(row["result"])["products"]
            ]
        except (ValueError, KeyError, TypeError):
            yield Finding(f"{title}: its result can't be read", look)
            return
        for path, size, md5 in products:
            problem = self._file(path, size, md5)
            if problem:
                finding = Finding(f"{title}: product {path} {problem}", "put it back, then: pstamp run")
                self.suspects.append((row["req_id"], finding))

    def _fileset(self, row: Mapping[str, Any]) -> list[Finding]:
        """Look at the files of a fileset, if it is still registered."""
        files = self._run(
            "SELECT file_name, bytes, md5sum FROM dsFile JOIN dsFileset f ON f.fileset_id = dsFile.fileset_id "
            "WHERE f.fileset_id = ? ORDER BY file_id",
            row["number"],
        )
        title, folder = f"fileset {row['product']}/{row['name']}", self._folder(row)
        mend = "put it back"
        if row["owner"]:
            mend += f"; its bytes may be in the outdir that this shows: pstamp show request {row['owner']}"
        if not folder.is_dir() and self._run("SELECT 1 FROM dsFileset WHERE fileset_id = ?", row["number"]):
            return [Finding(f"{title}: {folder} is not there", mend)]
        problems = ((name, self._file(folder / name, size, md5)) for name, size, md5 in files)
        return [Finding(f"{title}: {folder / name} {problem}", mend) for name, problem in problems if problem]

    def _file(self, path: Path, size: int, md5: str) -> str | None:
        """Return what is wrong with a file, if anything."""
        try:
            found = path.stat().st_size
            if found != size:
                return f"has {found} bytes, expected {size}"
            if self.md5 and (found_md5 := measure(path, "").md5) != md5:
                return f"has md5 {found_md5}, expected {md5}"
        except (FileNotFoundError, NotADirectoryError):
            return "is not there"
        return None

    def _folder(self, row: Mapping[str, Any]) -> Path:
        return Path(self.server.datastore.root, row["product"], row["name"])


def _title(name: str, row: Mapping[str, Any]) -> str:
    return f"{name} {row['number']} ({row['state']})"


def _look(name: str, row: Mapping[str, Any]) -> str:
    return f"look at: pstamp show {name} {row['number']}"


def _list(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _private(root: Path) -> Iterator[Path]:
    """Yield the files and folders below `root` that have private names; not what is in such a folder."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            if _PRIVATE.fullmatch(name):
                yield Path(folder, name)
        folders[:] = [name for name in folders if not _PRIVATE.fullmatch(name)]
