"""What `pstamp db check` finds: each kind of damage is made by hand, on both engines, and found with its whole line."""

# ruff: noqa: S608 (what is typed here is the damage)

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mariadb
import pytest
from conftest import ENGINES
from peewee import InternalError, MySQLDatabase, OperationalError
from servers import SETTINGS, row, send

from pstamp_core.database import session
from pstamp_core.datastore import TABLES as DATASTORE_TABLES
from pstamp_core.files import measure
from pstamp_core.machines import Event, JobState
from pstamp_core.store import (
    TABLES,
    Store,
    fire,
    make,
    make_jobs,
    moment,
    pstampDependent,
    pstampJob,
    pstampRequest,
)
from pstamp_core.store import history as store_history
from pstamp_core.store.rules import broken_rules, triggers
from pstamp_core.tasks import check as check_module
from pstamp_core.tasks.check import check, rules_sql
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server, add_project, make_server
from simtest.survey import Survey

ALL = [table.__name__ for table in (*TABLES, *DATASTORE_TABLES)]
LOOK = "look at: pstamp show"
BY_HAND = "no command mends it: a DBA puts back what is expected"


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script as the shell of MariaDB reads it."""
    end, text = ";", ""
    for line in script.splitlines():
        if line.startswith("DELIMITER "):
            end = line.split()[1]
            continue
        text += f"{line}\n"
        if line.endswith(end):
            yield text.rstrip().removesuffix(end)
            text = ""
    assert not text.strip()


class World:
    """A server after a full run, which can be damaged and put right again.

    Request 1 is finished: job 1 made a stamp, job 2 is an answer. Request 2 runs: job 3 made a stamp, job 4 waits for
    dependent 1. Request 3 is a preview with job 5.
    """

    def __init__(self, server: Server, pristine: Path) -> None:
        self.server = server
        self.home = server.settings.home
        self.db: Any = server.store.db
        self.mysql = isinstance(self.db, MySQLDatabase)
        self.pristine = pristine
        self.db.close()
        shutil.copytree(self.home, pristine)
        if self.mysql:
            with self.server.store.reading():
                for table in ALL:
                    self.db.execute_sql(f"CREATE TABLE saved_{table} AS SELECT * FROM {table}")

    def restore(self) -> None:
        """Put everything back as it was."""
        self.db.close()
        shutil.rmtree(self.home)
        shutil.copytree(self.pristine, self.home)
        if self.mysql:
            with self.careless():
                for table in ALL:
                    self.db.execute_sql(f"DELETE FROM {table}")
                    self.db.execute_sql(f"INSERT INTO {table} SELECT * FROM saved_{table}")
            with self.server.store.reading():
                if list(broken_rules(self.db)):
                    for statement in statements(rules_sql(self.server)):
                        self.db.execute_sql(statement)

    @contextmanager
    def careless(self) -> Iterator[Any]:
        """Let the database take whatever is written to it in the block; its rules are back after that."""
        off, on = (
            (f"SET SESSION foreign_key_checks = {n}, check_constraint_checks = {n}" for n in (0, 1))
            if self.mysql
            else (f"PRAGMA foreign_keys = {n}; PRAGMA ignore_check_constraints = {1 - n}" for n in (0, 1))
        )
        with session(self.db, [*TABLES, *DATASTORE_TABLES]):
            for statement in off.split(";"):
                self.db.execute_sql(statement)
            for statement in triggers(self.db):
                if statement.startswith("DROP"):
                    self.db.execute_sql(statement)
            yield self.db
            for statement in [*triggers(self.db), *on.split(";")]:
                self.db.execute_sql(statement)

    def sql(self, *statements: str) -> None:
        """Write what no program of ours would."""
        with self.careless() as db:
            for statement in statements:
                db.execute_sql(statement)

    def fire(self, table: Any, number: int, event: Event, **args: Any) -> None:
        """Let an event happen to one row, and to no other."""
        given = {name: args.pop(name) for name in ("fault", "who") if name in args}
        self.server.store.work(
            lambda: fire([table.get_by_id(number)], event, self.server.args(operator=True, **given), **args)
        )

    def lines(self, md5: bool = False) -> list[str]:
        return [str(finding) for finding in check(self.server, md5=md5)]


def build(home: Path, survey: Survey, address: str | None) -> Server:
    home.mkdir()
    (home / "pstamp.toml").write_text(SETTINGS + (f'database = "{address}"\n' if address else ""))
    server = make_server(home)
    add_project(server, "gpc1", str(survey.database), str(survey.folder), "GPC1")
    one = row(1, survey, req="byskycell", component=survey.skycells[0])
    cleaned = row(2, survey, req="byid", img="warp", id=survey.cleaned_warp, component=survey.skycells[0])
    send(server, home.parent, one, row(2, survey, filter="z"), name="test_1")
    send(server, home.parent, one, cleaned, name="test_2")
    send(server, home.parent, one, name="test_3", action="PREVIEW")
    run(server, workers=1)
    return server


@pytest.fixture(scope="module", params=ENGINES)
def built(request: pytest.FixtureRequest, survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("check")
    with ExitStack() as stack:
        address = None
        if request.param == "mysql":
            address = stack.enter_context(mariadb.database(request.getfixturevalue("mysql_server")))
        server = build(folder / "home", survey, address)
        stack.callback(server.store.db.close)
        yield World(server, folder / "pristine")


@pytest.fixture
def world(built: World) -> Iterator[World]:
    yield built
    built.restore()


def test_all_is_well_after_a_run(world: World) -> None:
    assert world.lines(md5=True) == []
    with world.server.store.reading():
        assert [request.state.value for request in pstampRequest.select()] == ["stop", "run", "parsed"]
        assert [job.state.value for job in pstampJob.select()] == ["stop", "stop", "stop", "run", "parsed"]
        assert [dependent.state.value for dependent in pstampDependent.select()] == ["new"]


def test_tables_are_read_in_portions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_history, "PORTION", 2)
    seen: list[tuple[str, int, int]] = []
    assert list(check(world.server, progress=lambda *what: seen.append(what))) == []
    assert seen == [
        ("check requests", 3, 3), ("check jobs", 5, 5), ("check dependents", 1, 1), ("check filesets", 1, 1),
    ]  # fmt: skip
    world.sql("UPDATE pstampJob SET dep_id = 99 WHERE job_id IN (1, 2, 3, 5)")
    assert [line.split(":")[0] for line in world.lines()] == [
        "job 1 (stop)", "job 2 (stop)", "job 3 (stop)", "job 5 (parsed)",
    ]  # fmt: skip


# -- rows

ROWS: dict[str, tuple[list[str], list[str]]] = {
    "unknown state": (
        ["UPDATE pstampJob SET state = 'limbo' WHERE job_id = 1"],
        ["job 1: state 'limbo' is none of parsed, run, stop, cancel; expected stop with fault 0, as its history says; "
         + BY_HAND],
    ),
    "state and fault": (
        ["UPDATE pstampJob SET fault = 3 WHERE job_id = 1"],
        ["job 1: stop with fault 3, which do not go together; expected stop with fault 0, as its history says; "
         + BY_HAND],
    ),
    "state and negative fault without history": (
        ["UPDATE pstampJob SET fault = -1 WHERE job_id = 1", "DELETE FROM pstampHistory WHERE machine = 'job'"
         " AND row_id = 1"],
        [f"job 1: stop with fault -1, which do not go together; {BY_HAND}"],
    ),
    "lease of what has ended": (
        ["UPDATE pstampJob SET lease_owner = 'w9', lease_until = 5 WHERE job_id = 1"],
        [f"job 1 (stop): has a lease of w9, expected none when it is stop; {BY_HAND}"],
    ),
    "no history": (
        ["DELETE FROM pstampHistory WHERE machine = 'request' AND row_id = 3"],
        [f"request 3 (parsed): it has no history; {LOOK} request 3"],
    ),
    "no request": (
        ["DELETE FROM pstampRequest WHERE req_id = 3"],
        [f"job 5 (parsed): there is no request 3; {LOOK} job 5"],
    ),
    "no dependent": (
        ["DELETE FROM pstampDependent WHERE dep_id = 1"],
        [f"job 4 (run): there is no dependent 1; {LOOK} job 4"],
    ),
    "an ended job without its dependent": (
        ["UPDATE pstampJob SET dep_id = 99 WHERE job_id = 1"],
        [f"job 1 (stop): there is no dependent 99; {LOOK} job 1"],
    ),
    "nobody waits": (
        ["UPDATE pstampJob SET dep_id = 0 WHERE job_id = 4"],
        ["dependent 1 (new): no job waits for it; the next that needs its component takes it over; "
         f"{LOOK} dependent 1"],
    ),
    "no jobs": (
        ["DELETE FROM pstampJob WHERE req_id = 3"],
        [f"request 3 (parsed): has no jobs, though every request gets at least one; {LOOK} request 3"],
    ),
    "no result": (
        ["UPDATE pstampJob SET result = '{}' WHERE job_id = 3"],
        [f"job 3 (stop): its result can't be read; {LOOK} job 3"],
    ),
    "result of a finished request": (["UPDATE pstampJob SET result = 'x' WHERE job_id = 1"], []),
    "history of rows that are gone": (
        ["DELETE FROM pstampJob WHERE job_id = 2"], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", ROWS)
def test_damage_to_rows_is_found(world: World, damage: str) -> None:
    statements, lines = ROWS[damage]
    world.sql(*statements)
    assert world.lines() == lines


@pytest.mark.parametrize("key", ["NULL", "'x'"])
def test_the_key_of_an_open_dependent(world: World, survey: Survey, key: str) -> None:
    world.sql(f"UPDATE pstampDependent SET open_key = {key}")
    expected = f"{survey.database}|warp|{survey.cleaned_warp}|{survey.skycells[0]}"
    found = None if key == "NULL" else "x"
    assert world.lines() == [f"dependent 1 (new): open_key is {found!r}, expected {expected!r}; {BY_HAND}"]


def test_the_key_of_a_closed_dependent(world: World) -> None:
    world.fire(pstampDependent, 1, Event.CLAIM)
    world.fire(pstampDependent, 1, Event.SATISFY)
    assert world.lines() == []
    world.sql("UPDATE pstampDependent SET open_key = 'x'")
    assert world.lines() == [f"dependent 1 (full): open_key is 'x', expected None; {BY_HAND}"]


def test_a_key_that_is_not_unique(world: World) -> None:
    index = "pstampDependent_open_key"
    world.sql(f"DROP INDEX {index} ON pstampDependent" if world.mysql else f'DROP INDEX "{index}"')
    try:
        columns = "state, stage, stage_id, component, imagedb, open_key, fault, fault_count, cause, attempt, "
        columns += "lease_owner, lease_until, retry_at, need_magic, reason, changed_at"
        world.sql(
            f"INSERT INTO pstampDependent ({columns}) SELECT {columns} FROM pstampDependent",
            "UPDATE pstampJob SET dep_id = 2 WHERE job_id = 3",
        )
        with world.server.store.reading():
            key = pstampDependent.get_by_id(1).open_key
        assert world.lines() == [
            "dependent 2 (new): no job waits for it; the next that needs its component takes it over; "
            f"{LOOK} dependent 2",
            f"dependent 2 (new): it has no history; {LOOK} dependent 2",
            f"dependent 1: open_key {key!r} is that of 2 dependents; it must be unique; {LOOK} dependent 1",
        ]
    finally:
        if world.mysql:
            world.sql("DELETE FROM pstampDependent", f"CREATE UNIQUE INDEX {index} ON pstampDependent (open_key)")


def test_a_history_that_does_not_end_in_the_row(world: World) -> None:
    with world.server.store.reading():
        job = pstampJob.get_by_id(4)
    world.sql("UPDATE pstampJob SET fault = 2, cause = 3, attempt = 7, changed_at = 5 WHERE job_id = 4")
    assert world.lines() == [
        f"job 4 (run): its history ends in run, fault 0, cause 0, attempt 0, changed at {job.changed_at}; "
        f"the row says run, fault 2, cause 3, attempt 7, changed at 5; {LOOK} job 4"
    ]


def test_a_lapsed_lease(world: World) -> None:
    world.fire(pstampJob, 4, Event.CLAIM)
    assert world.lines() == []
    world.sql("UPDATE pstampJob SET lease_until = 1700000000000000 WHERE job_id = 4")
    line = f"job 4 (run): the lease of {world.server.worker} ran out at 2023-11-14 22:13:20 UTC"
    assert world.lines() == [f"{line}; mend it with: pstamp run"]


def test_a_lease_of_what_has_a_fault(world: World) -> None:
    world.fire(pstampJob, 4, Event.CLAIM)
    world.fire(pstampJob, 4, Event.FAULT, fault=2)
    assert world.lines() == []
    world.sql("UPDATE pstampJob SET lease_owner = 'w9' WHERE job_id = 4")
    assert world.lines() == [f"job 4 (run): has a lease of w9, expected none with fault 2; {BY_HAND}"]


def test_results_that_nobody_tries_to_publish_again(world: World) -> None:
    for count in (1, 2, 3):
        assert world.lines() == []
        world.fire(pstampRequest, 2, Event.CLAIM)
        world.fire(pstampRequest, 2, Event.FAULT, fault=5)
        if count < 3:
            world.fire(pstampRequest, 2, Event.REVERT)
    line = "request 2 (run): 3 tries failed, the last with fault 5, and nobody tries again; mend the cause, then: "
    assert world.lines() == [f"{line}pstamp revert request 2"]


def test_a_job_that_is_given_up_by_itself_is_no_finding(world: World) -> None:
    for _ in range(4):
        world.fire(pstampJob, 4, Event.CLAIM)
        world.fire(pstampJob, 4, Event.FAULT, fault=5)
        assert world.lines() == []
        world.fire(pstampJob, 4, Event.REVERT)


def test_a_job_that_waits_for_a_closed_dependent(world: World) -> None:
    world.fire(pstampDependent, 1, Event.GIVE_UP, fault=25)
    assert world.lines() == [f"job 4 (run): waits for dependent 1, which is stop; {LOOK} job 4"]


def test_open_jobs_of_requests_that_have_ended(world: World) -> None:
    def more() -> None:
        now = world.server.store.now()
        make_jobs(pstampRequest.get_by_id(1), [{"state": JobState.RUN}], now=now, who="w")
        make_jobs(pstampRequest.get_by_id(2), [{"state": JobState.PARSED}], now=now, who="w")

    world.server.store.work(more)
    world.fire(pstampRequest, 3, Event.CANCEL)
    assert world.lines() == [
        f"job 5 (parsed): is open, but its request 3 is cancel; {LOOK} job 5",
        f"job 6 (run): is open, but its request 1 is stop; {LOOK} job 6",
        f"job 7 (parsed): is open, but its request 2 is run; {LOOK} job 7",
    ]


def test_jobs_of_a_request_that_is_not_parsed(world: World) -> None:
    def submit() -> None:
        now = world.server.store.now()
        request = make(pstampRequest, now=now, who="w", uri="x", registered=moment(now), timestamp=moment(now))
        make_jobs(request, [{"state": JobState.STOP, "fault": 25}], now=now, who="w")

    world.server.store.work(submit)
    with world.server.store.reading():
        job = pstampJob.select().order_by(pstampJob.job_id.desc()).get()  # MariaDB leaves gaps in the numbers
    line = (
        f"job {job.job_id} (stop): its request 4 is new, and has no jobs before it is parsed; mend it with: pstamp run"
    )
    assert world.lines() == [line]


def test_what_the_original_server_published_is_not_looked_for(world: World) -> None:
    world.sql(
        "DELETE FROM pstampHistory WHERE machine = 'request' AND row_id = 1 AND event <> 'finish'",
        "UPDATE pstampHistory SET event = 'migrate', attempt = 0 WHERE machine = 'request' AND row_id = 1",
        "UPDATE pstampRequest SET attempt = 0, name = 'other' WHERE req_id = 1",
        "DELETE FROM dsFile",
        "DELETE FROM dsFileset",
    )
    shutil.rmtree(world.home / "datastore/pstamp_results/test_1")
    world.server.datastore.rewrite_indexes()
    assert world.lines() == []


# -- the database's rules


def test_rules_that_are_missing_or_changed(world: World) -> None:
    world.sql()  # as they are made
    with world.server.store.reading():
        world.db.execute_sql("DROP TRIGGER pstampJob_before_insert")
        world.db.execute_sql("DROP TRIGGER pstampJob_before_update")
        body = "BEGIN END" if world.mysql else "BEGIN SELECT 1; END"
        world.db.execute_sql(f"CREATE TRIGGER pstampJob_before_update BEFORE UPDATE ON pstampJob FOR EACH ROW {body}")
    assert world.lines() == [
        "trigger pstampJob_before_insert is missing; mend it with: pstamp init",
        "trigger pstampJob_before_update does not say what it should; mend it with: pstamp init",
    ]
    make_server(world.home)
    assert world.lines() == []


@pytest.mark.parametrize("built", ["mysql"], indirect=True)
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DROP CONSTRAINT pstampJob_state_fault", "is missing"),
        (
            "DROP CONSTRAINT pstampJob_state_fault, ADD CONSTRAINT pstampJob_state_fault "
            "CHECK (fault < 99 AND state NOT LIKE '%%(x')",
            "does not say what it should",
        ),
        (
            "DROP CONSTRAINT pstampJob_state_fault, ADD CONSTRAINT pstampJob_state_fault CHECK ("
            "state = 'run' AND fault BETWEEN 0 AND 9 OR state IN ('parsed', 'stop') AND fault = 0 OR "
            "state IN ('stop', 'cancel') AND fault >= 11)",
            "does not say what it should",
        ),
        (
            "DROP CONSTRAINT pstampJob_state_fault, ADD CONSTRAINT pstampJob_state_fault CHECK (attempt >= 0)",
            "does not say what it should",
        ),
    ],
)
def test_check_constraints_that_are_missing_or_changed(world: World, damage: str, problem: str) -> None:
    with world.server.store.reading():
        world.db.execute_sql(f"ALTER TABLE pstampJob {damage}")
    line = f"CHECK pstampJob_state_fault {problem}; a DBA runs what this prints: pstamp db sql"
    assert world.lines() == [line]
    with world.server.store.reading():
        for statement in statements(rules_sql(world.server)):
            world.db.execute_sql(statement)
    assert world.lines() == []


@pytest.mark.parametrize("built", ["sqlite"], indirect=True)
@pytest.mark.parametrize("text", ["CHECK (fault < 99)", None])
def test_check_constraints_of_sqlite(world: World, text: str | None) -> None:
    with world.server.store.reading():
        ((table,),) = world.db.execute_sql("SELECT sql FROM sqlite_master WHERE name = 'pstampJob'").fetchall()
        name = 'CONSTRAINT "pstampJob_state_fault"'
        head, _, _ = table.partition(name)
        table = f"{head} {name} {text})" if text else f"{head.rstrip(', ')})"
        world.db.execute_sql("PRAGMA writable_schema = 1")
        world.db.execute_sql("UPDATE sqlite_master SET sql = ? WHERE name = 'pstampJob'", (table,))
        world.db.execute_sql("PRAGMA writable_schema = 0")
    problem = "does not say what it should" if text else "is missing"
    line = (
        f"CHECK pstampJob_state_fault {problem}; SQLite gives it to new tables only, but the triggers refuse the same"
    )
    assert world.lines() == [line]


def test_the_script_mends_triggers(world: World) -> None:
    with world.server.store.reading():
        for statement in triggers(world.db):
            if statement.startswith("DROP"):
                world.db.execute_sql(statement)
        assert len(world.lines()) == 8
        if world.mysql:
            for statement in statements(rules_sql(world.server)):
                world.db.execute_sql(statement)
        else:
            world.db.connection().executescript(rules_sql(world.server))
    assert world.lines() == []
    assert rules_sql(mysql=world.mysql) == rules_sql(world.server) != rules_sql(mysql=not world.mysql)


# -- files


def fileset(world: World) -> Path:
    return world.home / "datastore/pstamp_results/test_1"


PUT_BACK = "put it back; its bytes may be in the outdir that this shows: pstamp show request 1"


def test_a_fileset_that_is_not_registered(world: World) -> None:
    world.sql("DELETE FROM dsFile", "DELETE FROM dsFileset")
    index = world.home / "datastore/pstamp_results/index.txt"
    assert world.lines() == [
        f"request 1 (stop): its fileset pstamp_results/test_1 is not registered; {LOOK} request 1",
        f"{index}: is not what the registry says; mend it with: pstamp init",
        f"{fileset(world)}: a fileset that is not registered; move it to another place",
    ]
    shutil.move(fileset(world), world.home / "datastore/pstamp_results/test_2")
    assert world.lines()[2] == (
        f"{world.home}/datastore/pstamp_results/test_2: a fileset that is not registered; mend it with: pstamp run"
    )


def test_a_fileset_of_another_request(world: World) -> None:
    world.sql("UPDATE dsFileset SET prod_col_0 = '7'")
    world.server.datastore.rewrite_indexes()
    assert world.lines() == [
        f"request 1 (stop): its fileset pstamp_results/test_1 is registered for request 7; {LOOK} request 1",
        "fileset pstamp_results/test_1: published for request 7, but there is none of that number and name; look at: "
        f"{fileset(world)}",
    ]


def test_a_fileset_before_its_time(world: World) -> None:
    file = measure(fileset(world) / "results.fits", "table")
    world.server.datastore.publish("pstamp_results", "test_3", "PSRESULTS", [file], ["3"])
    world.server.datastore.publish("pstamp_results", "test_2", "PSRESULTS", [file], ["2"])  # killed before `finish`
    world.server.datastore.publish("pstamp_results", "own", "OTHER", [file], ["x"])
    folder = world.home / "datastore/pstamp_results/test_3"
    assert world.lines() == [
        f"fileset pstamp_results/test_3: published for request 3, which is parsed; look at: {folder}"
    ]


def test_a_fileset_without_its_folder(world: World) -> None:
    shutil.rmtree(fileset(world))
    assert world.lines() == [f"fileset pstamp_results/test_1: {fileset(world)} is not there; {PUT_BACK}"]


def test_published_files_that_are_damaged(world: World) -> None:
    stamp, table, text = (next(fileset(world).glob(name)) for name in ("1_1_*.fits", "results.fits", "results.mdc"))
    size = stamp.stat().st_size
    stamp.write_bytes(b"")
    table.unlink()
    content = bytearray(text.read_bytes())
    md5 = measure(text, "").md5
    content[0] ^= 1
    text.write_bytes(content)
    lines = [
        f"fileset pstamp_results/test_1: {table} is not there; {PUT_BACK}",
        f"fileset pstamp_results/test_1: {stamp} has 0 bytes, expected {size}; {PUT_BACK}",
    ]
    assert world.lines() == lines
    changed = f"{text} has md5 {measure(text, '').md5}, expected {md5}"
    assert world.lines(md5=True) == [lines[0], f"fileset pstamp_results/test_1: {changed}; {PUT_BACK}", lines[1]]


def test_what_is_published_anew_meanwhile_is_no_finding(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    look = check_module._Examination._file

    def first(*args: Any) -> str:
        monkeypatch.undo()
        look(*args)
        return "is not there"

    monkeypatch.setattr(check_module._Examination, "_file", first)
    world.fire(pstampRequest, 2, Event.CANCEL)
    world.fire(pstampJob, 4, Event.CANCEL)
    world.fire(pstampDependent, 1, Event.GIVE_UP, fault=25)
    run(world.server, workers=1)  # nothing is left whose products are looked at before
    assert world.lines() == []


def test_indexes(world: World) -> None:
    root = world.home / "datastore"
    for path in (root / "index.txt", root / "pstamp_results/index.txt", fileset(world) / "index.txt"):
        path.write_text("x")
    lines = [
        f"{path}: is not what the registry says; mend it with: pstamp init"
        for path in (fileset(world) / "index.txt", root / "pstamp_results/index.txt", root / "index.txt")
    ]
    assert world.lines() == lines
    make_server(world.home)
    assert world.lines() == []


def product(world: World) -> Path:
    with world.server.store.reading():
        return Path(f"{pstampJob.get_by_id(3).outputBase}.fits")


def test_products_that_are_still_to_be_published(world: World) -> None:
    path = product(world)
    line = f"job 3 (stop): product {path}"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    assert world.lines() == []
    md5 = measure(path, "").md5
    path.write_bytes(content)
    path.write_bytes(content[:-1] + b"x")
    (found,) = world.lines(md5=True)
    assert found.startswith(f"{line} has md5 {md5}, expected ")
    path.write_bytes(content[:-1])
    size = len(content)
    assert world.lines() == [f"{line} has {size - 1} bytes, expected {size}; put it back, then: pstamp run"]
    path.unlink()
    assert world.lines() == [f"{line} is not there; put it back, then: pstamp run"]


def test_products_of_a_request_that_is_finished_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    product(world).unlink()
    filesets = check_module._Examination.filesets
    other = Store(world.server.settings.address)
    args = world.server.args(open_jobs=0)

    def later(examination: Any) -> Any:
        def finish() -> None:
            fire(fire([pstampRequest.get_by_id(2)], Event.CLAIM, args), Event.FINISH, args)

        other.work(finish)
        return filesets(examination)

    monkeypatch.setattr(check_module._Examination, "filesets", later)
    assert world.lines() == []
    other.db.close()


def test_private_files(world: World) -> None:
    with world.server.store.reading():
        old = world.server.store.now() / 1e6 - 601
    work, data = world.home / "work/2026", world.home / "datastore/pstamp_results"
    (work / ".a").mkdir(parents=True, exist_ok=True)
    (data / ".vega.0123.tmp").mkdir()
    for path in (
        work / ".a/.stamp.fits.w1.tmp",
        data / ".vega.0123.tmp/.x.tmp",
        work / ".new.fits.w1.tmp",
        work / "a.tmp",
    ):
        path.write_text("")
        if path.name != ".new.fits.w1.tmp":
            os.utime(path, (old, old))
    os.utime(data / ".vega.0123.tmp", (old, old))
    (work / ".dangling.w1.tmp").symlink_to("nowhere")
    assert world.lines() == [
        f"{work}/.a/.stamp.fits.w1.tmp: left by a writer that died; delete it",
        f"{data}/.vega.0123.tmp: left by a writer that died; delete it",
    ]


# -- at work


def test_one_state_of_the_database_is_looked_at(world: World) -> None:
    """Somebody cancels everything between the look at requests and the look at jobs and dependents."""
    world.sql("UPDATE pstampRequest SET outProduct = 'other' WHERE req_id = 1")
    findings = check(world.server)
    assert str(next(findings)).startswith("request 1 (stop): its fileset other/test_1 is not registered")
    other = Store(world.server.settings.address)

    args = world.server.args(who="ana")

    def cancel() -> None:
        fire([pstampRequest.get_by_id(2)], Event.CANCEL, args)
        fire([pstampJob.get_by_id(4)], Event.CANCEL, args)

    other.work(cancel)
    other.db.close()
    assert list(findings) == []
    assert [line.split(";")[0] for line in world.lines()[1:]] == ["dependent 1 (new): no job waits for it"]


def test_nothing_can_be_written_meanwhile(world: World) -> None:
    refused = pytest.raises((OperationalError, InternalError), match=r"readonly|READ ONLY")
    with world.server.store.reading():
        with check_module._one_state(world.db), refused:
            world.db.execute_sql("UPDATE pstampJob SET image = 'x'")
        world.db.execute_sql("UPDATE pstampJob SET image = 'x'")
