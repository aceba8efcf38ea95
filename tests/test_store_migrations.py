"""Schema versions: IPP's original database with rows in every state, up and down, killed anywhere, on both engines."""

# ruff: noqa: S608 (the names of tables are ours)

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import mariadb
import pytest
import servers
from conftest import NOW, Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from peewee import MySQLDatabase

from pstamp_core.database import connect
from pstamp_core.faults import Fault, RetryableError, UserError
from pstamp_core.machines import RequestState
from pstamp_core.machines.machine import FaultClass
from pstamp_core.store import (
    MACHINES,
    TABLES,
    Store,
    migrations,
    pstampHistory,
    pstampJob,
    pstampRequest,
    requests_to_finish,
)
from pstamp_core.store.migrations import check_version, migrate, original, sql
from pstamp_core.store.rules import trigger_name
from pstamp_core.store.store import requests_to_parse
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import add_project
from simtest.survey import Survey

Columns = dict[str, Any]
NEWEST = len(migrations._steps())
ANYTIME = "2014-05-06 07:08:09"
ANYTIME_US = 1_399_360_089_000_000


def request(
    number: int, state: str | None, fault: int | None = 0, uri: str | None = "/r.fits", **other: Any
) -> Columns:
    return {
        "req_id": number, "ds_id": 0, "state": state, "name": f"r{number}", "reqType": "pstamp", "label": "WEB",
        "outProduct": "stamps", "uri": uri, "outdir": "/srv", "username": "me@home.org", "proj_id": 1,
        "registered": ANYTIME, "timestamp": ANYTIME, "fault": fault, **other,
    }  # fmt: skip


def job(number: int, req_id: int, state: str | None, fault: int | None = 0, **other: Any) -> Columns:
    return {
        "job_id": number, "req_id": req_id, "rownum": "1", "state": state, "jobType": "stamp", "fault": fault,
        "exp_id": 7, "outputBase": f"/srv/{number}", "options": 1, "dep_id": 0, "fault_count": 0, "parent_id": 0,
        "is_parent": 0, **other,
    }  # fmt: skip


def dependent(number: int, state: str | None, fault: int | None = 0, **other: Any) -> Columns:
    return {
        "dep_id": number, "state": state, "stage": "warp", "stage_id": number, "component": "skycell.1",
        "imagedb": "gpc1", "outdir": "/srv", "rlabel": "ps_ud_WEB", "need_magic": 0, "fault": fault, "fault_count": 1,
        **other,
    }  # fmt: skip


ROWS: dict[str, list[Columns]] = {
    "pstampDataStore": [
        {"ds_id": 1, "state": "Enabled", "label": "web", "outProduct": "p1", "pollInterval": 30, "need_magic": 0,
         "lastFileset": "f9", "timestamp": ANYTIME, "uri": "http://a"},
        {"ds_id": 2, "state": None, "label": None, "outProduct": None, "pollInterval": None, "need_magic": None,
         "lastFileset": None, "timestamp": None, "uri": None},
    ],
    "pstampProject": [
        {"proj_id": 1, "name": "gpc1", "state": "ENABLED", "dbname": "gpc1", "dvodb": "dvo", "camera": "GPC1",
         "telescope": "PS1", "need_magic": 1},
        {"proj_id": 2, "name": None, "state": None, "dbname": None, "dvodb": None, "camera": None, "telescope": None,
         "need_magic": None},
    ],
    "pstampRequest": [
        request(1, "new"), request(2, "new", 3), request(3, "new", 21), request(4, "new", uri=None),
        request(5, "parsed", label="web "), request(6, "run"), request(7, "run", 21, name=None, reqType="unknown"),
        request(8, "run", uri=None), request(9, "run", 4), request(10, "stop"), request(11, "stop", 21),
        request(12, "goto_cleaned"), request(13, "goto_cleaned", 2), request(14, "goto_cleaned", 21),
        request(15, "cleaned"), request(16, "cleaned", 5), request(17, "RUN"), request(18, "run.wait"),
        request(19, None, None, None, name=None, registered=None, ds_id=None, proj_id=None, label=None),
        request(20, "run"), request(21, "run"), request(22, "run"), request(23, "run", uri=""), request(24, "run"),
        request(25, "run", -1), request(26, "cancel"), request(27, "run"), request(28, "parsed", 2),
        request(29, "run", 22), request(30, "parsed", uri=None), request(31, "stop", None), request(32, "new", 5, None),
    ],
    "pstampDependent": [
        dependent(1, "new", 25), dependent(2, "full"), dependent(3, "new"),
        dependent(4, "new", 2, stage_id=3, component="SkyCell.1 ", imagedb="GPC1"), dependent(5, "hold", 3),
        dependent(6, "hold", 26), dependent(7, "full", 3), dependent(8, "stop"), dependent(9, "stop", 4),
        dependent(10, "stop", 26), dependent(11, "gone"), dependent(12, None, None, fault_count=None),
        dependent(13, "new", component=None), dependent(14, "New", need_magic=None), dependent(15, "full", stage_id=3),
        dependent(16, "new", imagedb=None), dependent(17, "hold", stage=""),
    ],
    "pstampJob": [
        job(101, 1, "run"), job(102, 2, "run", 25), job(103, 3, "stop", 23), job(105, 5, "parsed"),
        job(106, 5, "run", dep_id=3), job(107, 6, "run"), job(108, 6, "stop"), job(109, 6, "stop", 28),
        job(110, 8, "run"), job(111, 8, "run", 3, fault_count=1), job(112, 8, "run", 25), job(113, 8, "stop"),
        job(114, 8, "stop", 2), job(115, 8, "cancel"), job(116, 8, "parsed", 5), job(117, 9, "stop", 28),
        job(118, 9, "cancel", None), job(119, 10, "stop"), job(120, 10, "stop", 30), job(121, 10, "run", 2),
        job(122, 18, "run"), job(123, 20, "run", 2, dep_id=1), job(124, 21, "run", dep_id=2),
        job(125, 22, "run", dep_id=99), job(126, 23, "run", dep_id=4), job(127, 24, "wait"), job(128, 24, None, 26),
        job(129, 25, "stop", 23, rownum=None, parent_id=None, is_parent=None), job(130, 26, "run", 2),
        job(131, 26, "stop"), job(132, 17, "Stop ", 28, rownum="x"), job(133, 28, "stop", 23),
        job(134, 29, "run", 3), job(135, 29, "stop", 26), job(136, 30, "parsed"), job(137, 32, "run"),
        job(138, 10, "stop", -3, dep_id=98, fault_count=-1), job(140, 99, "run"),
    ],
    "pstampWebRequest": [{"num": 41}],
    "pstampFile": [
        {"file_id": 1, "job_id": 119, "path": "/bundles/a.tgz"},
        {"file_id": 2, "job_id": 108, "path": "/bundles/b.tgz"},
    ],
    "pstampUserDomain": [
        {"domainName": "home.org", "accessLevel": None, "defaultProduct": None, "defaultLabel": "psi"},
    ],
    "pstampUser": [
        {"userName": "J\u00fcrgen", "domainName": "home.org", "accessLevel": 2, "defaultProduct": "p2",
         "defaultLabel": "Web"},
    ],
    "pstampAccessLevel": [
        {"proj_id": 1, "accessLevel": 1, "mjd_min": 55197.5, "mjd_max": 57000.12},
        {"proj_id": 1, "accessLevel": 2, "mjd_min": None, "mjd_max": -1.0},
        {"proj_id": 9, "accessLevel": 1, "mjd_min": 0.0, "mjd_max": 0.0},
    ],
    "Label": [
        {"label": "WEB", "priority": 400, "active": 0, "comment": "the pages"},
        {"label": "PSI", "priority": None, "active": None, "comment": None},
    ],
}  # fmt: skip
"""Rows of IPP's database in every state, the limbo states among them."""


@contextmanager
def without_keys(db: Any) -> Iterator[None]:
    """Let rows in whose keys point nowhere, as an old installation may have them."""
    off, on = (
        ("SET foreign_key_checks = 0", "SET foreign_key_checks = 1")
        if isinstance(db, MySQLDatabase)
        else ("PRAGMA foreign_keys = 0", "PRAGMA foreign_keys = 1")
    )
    sql.run(db, off)
    try:
        yield
    finally:
        sql.run(db, on)


def fill(store: Store, rows: dict[str, list[Columns]]) -> None:
    """Make IPP's tables with `rows` in them."""
    with store.reading():
        for statement in original.statements(store.db):
            sql.run(store.db, statement)
        with without_keys(store.db):
            for table in original.TABLES:
                sql.insert(store.db, table, rows.get(table, []))


@pytest.fixture
def empty(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database without tables."""
    if engine == "sqlite":
        yield str(tmp_path / "empty.db")
        return
    with mariadb.database(request.getfixturevalue("mysql_server")) as address:
        yield address


@pytest.fixture
def ours(empty: str, clock: Clock) -> Iterator[Store]:
    """A new database of ours, connected."""
    store = Store(empty, clock)
    store.create()
    with store.reading():
        yield store


@pytest.fixture
def ipp(empty: str, clock: Clock) -> Iterator[Store]:
    """IPP's database with rows in every state."""
    store = Store(empty, clock)
    fill(store, ROWS)
    yield store
    store.db.close()


def dump(store: Store) -> dict[str, list[Columns]]:
    """Return all rows of all tables but the marks."""
    with store.reading():
        tables = sorted(sql.names(store.db) - {migrations.MARKS})
        what = {"pstampAccessLevel": "proj_id, accessLevel, mjd_min + 0.0e0 AS mjd_min, mjd_max + 0.0e0 AS mjd_max"}
        return {
            table: sorted(
                sql.select(store.db, f"SELECT {what.get(table, '*')} FROM {table}"),
                key=lambda row: str(list(row.items())),
            )
            for table in tables
        }


EXPECTED = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
"""What the report says of `ROWS`."""


def test_the_report_says_row_by_row_what_was_changed_and_why(ipp: Store) -> None:
    report = migrate(ipp)
    assert (report.before, report.after, report.at) == (0, NEWEST, NOW)
    assert report.lines == EXPECTED
    check_version(ipp)
    assert migrate(ipp).lines == []


def check_legal(store: Store) -> None:
    """Check that a database taken over keeps all our rules, and that each row's history tells how it came here."""
    with store.reading():
        for table, machine in MACHINES.items():
            lines = {line.row_id: line for line in pstampHistory.select().where(pstampHistory.machine == machine.name)}
            assert len(lines) == pstampHistory.select().where(pstampHistory.machine == machine.name).count()
            for row in table.select():
                assert FaultClass.of(row.fault) in machine.faults[row.state]
                assert row.fault_count == bool(row.fault) if machine.name == "request" else row.fault_count >= 0
                assert (row.attempt, row.lease_owner, row.lease_until, row.retry_at) == (0, "", 0, 0)
                line = lines.pop(row.id_)
                assert (line.dest, line.fault, line.cause, line.attempt, line.at) == (
                    row.state.value, row.fault, row.cause, 0, row.changed_at,
                )  # fmt: skip
                assert line.who == "migration"
                assert line.event in ("make", "migrate")
            assert {line.dest for line in lines.values()} <= {""}  # those of removed rows
        jobs: dict[int, list[Any]] = {}
        for job_ in pstampJob.select():
            assert job_.state.value in ("stop", "cancel")  # none can be run without parameters
            int(job_.rownum)
            jobs.setdefault(job_.request_id, []).append(job_)
        for request_ in pstampRequest.select():
            mine = jobs.pop(request_.req_id, [])
            match request_.state:
                case RequestState.NEW:
                    assert request_.uri.strip()
                    assert mine == []
                case RequestState.RUN | RequestState.CANCEL:  # to be published: every job has an answer
                    assert request_.name.strip()
                    assert mine
                    assert all(job_.fault for job_ in mine)
        assert jobs == {}
        if not isinstance(store.db, MySQLDatabase):
            assert sql.run(store.db, "PRAGMA foreign_key_check").fetchall() == []


def test_the_rows_are_legal_and_the_queues_go_on(ipp: Store) -> None:
    migrate(ipp)
    check_legal(ipp)
    with ipp.reading():
        assert [row.req_id for row in requests_to_parse(NOW)] == []  # WEB is inactive, as it was
        sql.run(ipp.db, "UPDATE Label SET active = 1")
        assert [row.req_id for row in requests_to_parse(NOW)] == [1, 5, 6, 21, 22, 27]
        ready = [3, 4, 7, 8, 17, 18, 19, 20, 23, 24, 26, 29, 30, 32]  # 9 and 25 wait for a revert
        assert sorted(row.req_id for row in requests_to_finish(NOW)) == ready


def test_values_keep_their_meaning(ipp: Store) -> None:
    migrate(ipp)
    rows = dump(ipp)
    levels = [(row["accessLevel"], row["mjd_min"], row["mjd_max"]) for row in rows["pstampAccessLevel"]]
    assert levels == [(1, 55197.5, 57000.12), (2, 0.0, -1.0)]
    assert [row["userName"] for row in rows["pstampUser"]] == ["J\u00fcrgen"]
    with ipp.reading():
        first, nineteenth = pstampRequest.get_by_id(10), pstampRequest.get_by_id(19)
        assert f"{first.registered:%Y-%m-%d %H:%M:%S}" == f"{first.timestamp:%Y-%m-%d %H:%M:%S}" == ANYTIME
        assert first.changed_at == ANYTIME_US  # the clock of clean-up goes on
        assert nineteenth.changed_at == NOW
        assert nineteenth.registered == nineteenth.timestamp
        last = pstampJob.get_by_id(147)
        assert (last.request_id, last.fault, last.cause) == (32, 25, 5)
        assert last.sentence == "The image exists, but can't be had now."
        assert pstampJob.get_by_id(110).sentence == (
            "parameters and products of jobs are not in the database, and no request file is named"
        )
        assert pstampJob.get_by_id(123).sentence == "dependent 1, which it waits for, is closed"
    keys = {row["dep_id"]: (row["open_key"], row["reason"]) for row in rows["pstampDependent"]}
    assert keys[3] == ("gpc1|warp|3|skycell.1", "")
    assert keys[4] == (None, "dependent 3 is open for the same component")
    assert keys[5] == ("gpc1|warp|5|skycell.1", "")
    assert keys[10] == (None, "")


def _is_index(line: str) -> str:
    return line if line.startswith("  KEY ") else ""


def schema(store: Store) -> set[str]:
    """Return all that makes the schema, as text."""
    with store.reading():
        if not isinstance(store.db, MySQLDatabase):
            found = sql.run(store.db, "SELECT sql FROM sqlite_master WHERE sql > ''").fetchall()
            return {text for (text,) in found}
        tables = [sql.run(store.db, f"SHOW CREATE TABLE {name}").fetchone()[1] for name in sql.names(store.db)]
        triggers = sql.run(
            store.db, "SELECT trigger_name, action_statement FROM information_schema.triggers "
            "WHERE trigger_schema = DATABASE()"
        ).fetchall()  # fmt: skip
        lines = [re.sub(r" AUTO_INCREMENT=[0-9]+", "", text) for text in tables]
        # The order of the indexes tells when they were made, and means nothing.
        lines = ["\n".join(sorted(text.replace(",\n", "\n").split("\n"), key=_is_index)) for text in lines]
        return {*lines, *(f"{name}: {text}" for name, text in triggers)}


@pytest.fixture
def fresh(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A second, empty database of the same engine."""
    if engine == "sqlite":
        yield Store(str(tmp_path / "fresh.db"))
        return
    with mariadb.database(request.getfixturevalue("mysql_server")) as empty:
        yield Store(empty)


def test_a_database_taken_over_has_the_schema_of_a_new_one(ipp: Store, fresh: Store) -> None:
    """When this fails after a change of `tables.py`: the change needs a migration of its own."""
    fresh.create()
    check_version(fresh)
    migrate(ipp)
    assert schema(ipp) == schema(fresh)


def test_going_down_gives_the_original_schema(ipp: Store, fresh: Store) -> None:
    before = schema(ipp)
    migrate(ipp)
    assert migrate(ipp, 0).after == 0
    assert {text for text in schema(ipp) if migrations.MARKS not in text} == before
    fresh.create()
    assert migrate(fresh, 0).lines == ["pstampHistory: 0 lines are gone, and so are all columns of ours"]
    assert {text for text in schema(fresh) if migrations.MARKS not in text} == before


IPPS = {table: original.columns(table) for table in original.TABLES}


def in_ipps_columns(rows: dict[str, list[Columns]]) -> dict[str, list[Columns]]:
    """Return what of `rows` the original schema can hold; it has no `cancel` of a request."""
    return {
        table: [
            {
                name: "run" if (table, name, row[name]) == ("pstampRequest", "state", "cancel") else row[name]
                for name in sorted(IPPS[table])
            }
            for row in rows[table]
        ]
        for table in IPPS
    }


def test_up_down_up_gives_the_same_rows(ipp: Store) -> None:
    migrate(ipp)
    up = dump(ipp)
    migrate(ipp, 0)
    down = dump(ipp)
    for level in down["pstampAccessLevel"]:
        level |= {name: original.as_printed(level[name]) for name in ("mjd_min", "mjd_max")}
    assert down.keys() == IPPS.keys()
    assert by_number(in_ipps_columns(down)) == by_number(in_ipps_columns(up))
    report = migrate(ipp)
    assert [line for line in report.lines if "dbname" not in line and "file 2" not in line] == []
    assert by_number(in_ipps_columns(dump(ipp))) == by_number(in_ipps_columns(up))
    check_legal(ipp)


def by_number(rows: dict[str, list[Columns]]) -> dict[str, list[str]]:
    """Return rows as sorted text, in which a moment reads alike from either column type."""
    return {
        table: sorted(str([str(value).removesuffix(".000000") for value in row.values()]) for row in lines)
        for table, lines in rows.items()
    }


OURS = {
    "fault_count": 0, "cause": 0, "attempt": 0, "lease_owner": "", "lease_until": 0, "retry_at": 0, "changed_at": 0,
}  # fmt: skip


def test_going_down_fits_what_the_original_schema_can_not_hold(ours: Store) -> None:
    at = {"registered": ANYTIME, "timestamp": ANYTIME}
    text = {"image": "", "params": "{}", "result": "", "sentence": ""}
    with ours.reading():
        for table in ("pstampRequest", "pstampJob"):
            sql.run(ours.db, f"DROP TRIGGER {trigger_name(table, 'insert')}")
        rows = [
            request(1, "run", name="Gr\u00fc\u00dfe", **at), request(2, "cancel", name="GRYSSE", **at),
            request(3, "stop", name="gryss\u0119", **at), request(4, "stop", name="x" * 64, **at),
            request(5, "stop", name="X" * 64, **at), request(6, "stop", name=None, **at),
            request(7, "stop", name=None, **at), request(8, "stop", name="GR\u00dc\u00dfE ", **at),
            request(9, "stop", name="\u20ac", **at),
        ]  # fmt: skip
        sql.insert(ours.db, "pstampRequest", [row | OURS for row in rows])
        sql.insert(ours.db, "pstampJob", [job(9, 1, "run") | OURS | text, job(10, 1, "parsed") | OURS | text])
        sql.insert(ours.db, "pstampProject", [
            {"proj_id": 1, "name": "local", "state": "enabled", "dbname": "mysql://" + "x" * 64, "need_magic": 0,
             "imageroot": "", "oldest_diff": 0, "oldest_unconv": 0},
        ])  # fmt: skip
    lines = migrate(ours, 0).lines
    assert lines == [
        f"pstampProject 1: dbname 'mysql://{'x' * 64}' -> 'mysql://{'x' * 56}': as the original schema can hold it",
        "pstampRequest 2: state 'cancel' -> 'run': as the original schema can hold it",
        "pstampRequest 3: name 'gryss\u0119' -> 'gryss?': as the original schema can hold it",
        f"pstampRequest 5: name '{'X' * 64}' -> '{'X' * 62}.2': as the original schema can hold it",
        "pstampRequest 8: name 'GR\u00dc\u00dfE ' -> 'GR\u00dc\u00dfE .2': as the original schema can hold it",
        "pstampHistory: 0 lines are gone, and so are all columns of ours",
        "request 1: 2 open jobs have lost their parameters, and IPP's tools find no <outputBase>.mdc: "
        "let it be parsed again",
    ]


def test_what_was_taken_over_is_worked_on(tmp_path: Path, survey: Survey) -> None:
    """A server whose database went down to IPP's schema and up again, with one request done and two under way."""
    server = servers.make(tmp_path / "home", survey)
    done = servers.send(server, tmp_path, servers.row(1, survey), name="done")
    run(server, workers=1)
    parsed = servers.send(server, tmp_path, servers.row(1, survey), servers.row(2, survey, filter="g"), name="parsed")
    parse_requests(server, 1)
    wrong = servers.send(server, tmp_path, servers.row(1, survey, project="nix"), name="wrong")
    migrate(server.store, 0)
    lines = migrate(server.store).lines
    assert [line for line in lines if line.startswith("request")] == [
        "request 2: run with fault 0 -> new with fault 0: parameters and products of jobs are not in the database"
    ]
    add_project(server, "gpc1", str(survey.database), str(survey.folder), "GPC1")  # `imageroot` is not IPP's
    run(server, workers=1)
    found = {number: servers.codes(server, number) for number in (done, parsed, wrong)}
    assert found == {done: {1: [0, 0, 0, 0]}, parsed: {1: [0, 0, 0, 0], 2: [0, 0, 0, 0]}, wrong: {1: [22]}}


def test_numbers_are_never_given_twice(mysql_server: str, clock: Clock) -> None:
    with mariadb.database(mysql_server) as address:
        store = Store(address, clock)
        fill(store, {"pstampRequest": [request(7, "stop"), request(9, "stop")], "pstampWebRequest": [{"num": 41}]})
        with store.reading():
            sql.run(store.db, "DELETE FROM pstampRequest WHERE req_id = 9")
            sql.run(store.db, "DELETE FROM pstampWebRequest")
        for target in (1, 0, 1):
            migrate(store, target)
            with store.reading():
                assert sql.next_number(store.db, "pstampRequest", "req_id") == 10
                assert sql.next_number(store.db, "pstampWebRequest", "num") == 42


def test_times_are_read_as_ipps_tools_wrote_them(mysql_server: str, clock: Clock) -> None:
    """A TIMESTAMP that was stored as UTC through a session in the server's zone, here Hawaii's."""
    admin = connect(mysql_server + "mysql")
    with mariadb.database(mysql_server) as address, admin:
        (zone,) = sql.run(admin, "SELECT @@GLOBAL.time_zone").fetchone()
        store = Store(address, clock)
        with store.reading():
            for statement in original.statements(store.db):
                sql.run(store.db, statement)
            sql.run(store.db, "SET time_zone = '-10:00'")
            sql.insert(store.db, "pstampRequest", [request(1, "stop")])
        sql.run(admin, "SET GLOBAL time_zone = '-10:00'")
        with store.reading():
            try:
                for target in (1, 0, 1):
                    migrate(store, target)
            finally:
                sql.run(admin, "SET GLOBAL time_zone = ?", zone)
            row = pstampRequest.get_by_id(1)
            assert f"{row.timestamp:%Y-%m-%d %H:%M:%S}" == f"{row.registered:%Y-%m-%d %H:%M:%S}" == ANYTIME
            assert sql.run(store.db, "SELECT @@time_zone").fetchone() == ("+00:00",)


def test_a_step_is_marked_with_its_time_in_utc(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(empty)
    monkeypatch.setenv("TZ", "Pacific/Honolulu")
    time.tzset()
    try:
        store.create()
    finally:
        monkeypatch.undo()
        time.tzset()
    with store.reading():
        (text,) = sql.run(store.db, f"SELECT applied FROM {migrations.MARKS}").fetchone()
    applied = text if isinstance(text, datetime) else datetime.fromisoformat(text)
    assert abs(datetime.now(UTC).replace(tzinfo=None) - applied) < timedelta(hours=5)


def test_many_rows_are_taken_in_portions(empty: str, clock: Clock) -> None:
    store, number = Store(empty, clock), 2 * sql.PORTION + 3
    fill(store, {
        "pstampRequest": [request(each, "stop") for each in range(1, number + 1)],
        "pstampJob": [job(each, 1 + each // 2, "stop") for each in range(1, number)],
        "pstampWebRequest": [{"num": each} for each in range(1, number + 1)],
    })  # fmt: skip
    before = by_number(dump(store))
    assert migrate(store).lines == []
    with store.reading():
        assert pstampHistory.select().count() == 2 * number - 1
    migrate(store, 0)
    assert by_number(dump(store)) == before


def test_a_number_that_two_jobs_have_is_given_to_one(empty: str, clock: Clock) -> None:
    store = Store(empty, clock)
    fill(store, {
        "pstampRequest": [request(1, "stop"), request(2, "stop"), request(3, "stop")],
        "pstampJob": [job(5, 1, "stop"), job(5, 2, "stop"), job(5, 3, "stop"), job(6, 3, "stop")],
    })  # fmt: skip
    assert migrate(store).lines == [
        "job 7: job_id 5 -> 7: the number stands twice",
        "job 8: job_id 5 -> 8: the number stands twice",
    ]
    numbers = {(row["req_id"], row["job_id"]) for row in dump(store)["pstampJob"]}
    assert numbers == {(1, 5), (2, 7), (3, 8), (3, 6)}
    check_legal(store)


def test_a_name_for_results_is_one_that_no_request_has(empty: str, clock: Clock) -> None:
    store = Store(empty, clock)
    fill(store, {"pstampRequest": [request(1, "stop", name="ERROR.2"), request(2, "run", 21, name=" ")]})
    assert "request 2: name ' ' -> 'ERROR.2.': results need a name" in migrate(store).lines


def test_accounts_are_lost_on_the_way_down_and_the_report_says_so(ours: Store) -> None:
    sql.insert(ours.db, "pstampAccount", [{"email": "ana@obs.edu", "password": "$argon2id$", "active": 1}])
    assert migrate(ours, 2).lines == ["pstampAccount: all accounts are gone (1), and what hangs on them"]
    assert "pstampAccount" not in dump(ours)
    assert migrate(ours).lines == []
    assert dump(ours)["pstampAccount"] == []


# ---- killed anywhere


class Killed(BaseException):
    """Nothing after this statement was run."""


def killed_after(store: Store, number: int, migration: Callable[[], Any]) -> bool:
    """Run `migration`, and break it off when it has executed `number` statements; tell whether it was."""
    execute, done = store.db.execute_sql, 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        cursor = execute(*args, **kwargs)
        done += not str(args[0]).startswith(("SELECT", "SHOW", "SET", "PRAGMA"))  # these change nothing
        if done == number:
            raise Killed
        return cursor

    store.db.execute_sql = counting
    try:
        migration()
    except Killed:
        return True
    else:
        return False
    finally:
        del store.db.execute_sql
        store.db.close()


FEW = {
    "pstampRequest": [request(1, "run"), request(2, "run", 21), request(3, "stop")],
    "pstampDependent": [dependent(1, "new"), dependent(2, "new", 25)],
    "pstampJob": [job(4, 1, "run", dep_id=1), job(5, 3, "stop")],
    "Label": ROWS["Label"],
}


def test_a_migration_killed_after_any_statement_is_run_again(engine: str, empty: str, clock: Clock) -> None:
    store = Store(empty, clock)
    fill(store, FEW)
    ends, schemas = {}, {}
    for version in (NEWEST, 0, NEWEST, 0):  # the first finds rows that are not legal, the later ones do not
        migrate(store, version)
        ends[version], schemas[version] = dump(store), schema(store)
    killed = 0
    for number in count(1, 1 if engine == "mysql" else 9):
        hits = 0
        for target in (NEWEST, 0):
            hit = killed_after(store, number, partial(migrate, store, target))
            hits += hit
            if hit and engine == "sqlite":  # one transaction
                assert dump(store) == ends[NEWEST - target]
            if number % 4 == 0:  # the operator changes his mind
                migrate(store, NEWEST - target)
                assert dump(store) == ends[NEWEST - target]
            migrate(store, target)
            assert dump(store) == ends[target]
            assert schema(store) == schemas[target]
        if not hits:
            break
        killed += hits
    assert killed > (80 if engine == "mysql" else 8)


def die_within(address: str, statement: str) -> None:
    """Migrate in this process, and die at a statement."""
    store = Store(address)
    execute = store.db.execute_sql

    def deadly(*args: Any, **kwargs: Any) -> Any:
        if str(args[0]).startswith(statement):
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(*args, **kwargs)

    store.db.execute_sql = deadly
    migrate(store)


@pytest.mark.parametrize("statement", ["INSERT INTO pstampJob", "CREATE TRIGGER", "INSERT INTO `pstampSchema`"])
def test_a_killed_process_leaves_nothing_that_the_next_one_stumbles_over(
    ipp: Store, empty: str, engine: str, statement: str
) -> None:
    child = multiprocessing.get_context("spawn").Process(
        target=die_within, args=(empty, statement.replace("`", '"') if engine == "sqlite" else statement)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with pytest.raises(RetryableError, match="has schema 0"):
        check_version(ipp)
    assert migrate(ipp).lines == EXPECTED
    check_legal(ipp)
    assert dump(ipp).keys() == {table.__name__ for table in TABLES}


# ---- what is refused


def test_a_database_without_tables_is_refused(empty: str) -> None:
    store = Store(empty)
    for refused in (lambda: check_version(store), lambda: migrate(store)):
        with pytest.raises(RetryableError) as caught:
            refused()
        assert caught.value.fault == Fault.PS_EXIT_CONFIG_ERROR
        assert str(caught.value) == (
            f"database {migrations.database_name(store.db)}: the tables of pstamp are not there; make them with: "
            "pstamp init"
        )


def test_tables_half_made_are_no_server_until_they_are_completed(empty: str) -> None:
    store = Store(empty)
    assert killed_after(store, 20, store.create)
    with pytest.raises(RetryableError, match="pstamp init"):
        check_version(store)
    store.create()
    check_version(store)


def test_an_older_schema_is_refused_untouched(ipp: Store) -> None:
    before = dump(ipp)
    for refused in (lambda: check_version(ipp), ipp.create):
        with pytest.raises(RetryableError) as caught:
            refused()
        assert caught.value.fault == Fault.PS_EXIT_CONFIG_ERROR
        assert str(caught.value) == (
            f"database {migrations.database_name(ipp.db)}: has schema 0 (the original of IPP), this software needs "
            f"{NEWEST}; stop all that work on it, save a copy, then: pstamp db migrate"
        )
    assert dump(ipp) == before


def test_a_newer_schema_is_refused(ours: Store) -> None:
    sql.insert(ours.db, migrations.MARKS, [{"name": "9999_later", "applied": ANYTIME}])
    for refused in (lambda: check_version(ours), ours.create, lambda: migrate(ours), lambda: migrate(ours, 0)):
        with pytest.raises(RetryableError) as caught:
            refused()
        assert caught.value.fault == Fault.PS_EXIT_CONFIG_ERROR
        assert str(caught.value) == (
            f"database {migrations.database_name(ours.db)}: has schema 9999_later, this software knows none after "
            f"{migrations._steps()[-1]}; use the newer software"
        )


@pytest.mark.parametrize("target", [-1, NEWEST + 1])
def test_a_version_that_there_is_not_is_refused(ipp: Store, target: int) -> None:
    with pytest.raises(UserError, match=rf"^schema {target}: expected 0 \(the original\) to {NEWEST} \(the newest\)$"):
        migrate(ipp, target)


def test_tables_that_are_not_ipps_are_refused_untouched(ipp: Store) -> None:
    with ipp.reading():
        sql.run(ipp.db, "ALTER TABLE pstampFile ADD COLUMN md5 INT")
    before = dump(ipp)
    with pytest.raises(RetryableError) as caught:
        migrate(ipp)
    assert caught.value.fault == Fault.PS_EXIT_CONFIG_ERROR
    assert str(caught.value) == (
        "table pstampFile: not as in IPP's schema: unknown columns md5, missing none; make it so, then migrate again"
    )
    assert dump(ipp) == before


def test_an_old_installation_may_lack_tables(empty: str, clock: Clock) -> None:
    store = Store(empty, clock)
    fill(store, {"pstampRequest": [request(1, "stop")]})
    with store.reading():
        for table in reversed(original.TABLES):
            if table != "pstampRequest":
                sql.run(store.db, f"DROP TABLE {table}")
    assert migrate(store).lines == []
    assert dump(store).keys() == {table.__name__ for table in TABLES}


def test_work_under_way_keeps_a_migration_from_beginning(ours: Store, clock: Clock) -> None:
    lease = {"attempt": 1, "lease_owner": "host.1", "lease_until": NOW + 60_000_000}
    sql.insert(ours.db, "pstampDependent", [dependent(5, "new") | OURS | {"open_key": "k", "reason": ""} | lease])
    clock.forward(20.5)
    with pytest.raises(RetryableError) as caught:
        migrate(ours, 0)
    assert str(caught.value) == (
        f"database {migrations.database_name(ours.db)}: host.1 works on dependent 5; stop all workers, or wait "
        "40 s for its lease to lapse"
    )
    check_version(ours)
    clock.forward(39.6)
    assert migrate(ours, 0).after == 0


def test_one_migration_at_a_time(engine: str, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0)
    store, second = Store(empty), Store(empty)
    store.create()
    why = "another migration is under way" if engine == "mysql" else "database is locked"
    with store.reading(), second.reading():
        if engine == "sqlite":
            sql.run(second.db, "PRAGMA busy_timeout = 0")
        with migrations._alone(store.db), pytest.raises(RetryableError, match=f"^database .*: {why}$"):
            migrate(second)
        assert migrate(store).lines == []
        assert migrate(second).lines == []


# ---- more steps than one


SECOND_STEP = """
def up(migrator, db):
    db.execute_sql("ALTER TABLE pstampFile ADD COLUMN md5 VARCHAR(32)")
    migrator.report.say("2 up")

def down(migrator, db):
    db.execute_sql("ALTER TABLE pstampFile DROP COLUMN md5")
    migrator.report.say("2 down")
"""


def test_steps_are_taken_in_order_up_and_down(ipp: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(migrations.FOLDER / "0001_original.py", tmp_path)
    (tmp_path / "0002_md5.py").write_text(SECOND_STEP)
    monkeypatch.setattr(migrations, "FOLDER", tmp_path)

    def has_md5() -> bool:
        with ipp.reading():
            return "md5" in sql.columns(ipp.db, "pstampFile")

    report = migrate(ipp)
    assert (report.before, report.after, report.lines) == (0, 2, [*EXPECTED, "2 up"])
    assert has_md5()
    report = migrate(ipp, 1)
    assert (report.before, report.after, report.lines) == (2, 1, ["2 down"])
    assert not has_md5()
    with pytest.raises(RetryableError, match="has schema 1, this software needs 2"):
        check_version(ipp)
    assert migrate(ipp).lines == ["2 up"]
    report = migrate(ipp, 0)
    assert (report.before, report.after, report.lines[0]) == (2, 0, "2 down")


# ---- values


def test_text_that_latin1_takes_for_equal_folds_alike(mysql_server: str) -> None:
    """All pairs of letters, as MySQL's latin1_swedish_ci weighs them."""
    letters = [latin for code in range(1, 256) if (latin := bytes([code]).decode("cp1252", "ignore"))]
    db = connect(mysql_server + "mysql")
    with db:
        statement = "SELECT HEX(WEIGHT_STRING(CONVERT(? USING latin1) COLLATE latin1_swedish_ci))"
        weights = {letter: sql.run(db, statement, letter).fetchone()[0] for letter in letters}
    alike = [(a, b) for a in letters for b in letters if a < b and weights[a] == weights[b]]
    assert len(alike) > 50
    assert [(a, b) for a, b in alike if original.fold(a) != original.fold(b)] == []
    assert original.fold("run  ") == "run"
    assert original.fold("a") != original.fold("b")


@given(st.integers(4_000_000, 7_000_000).map(lambda number: number / 100))
def test_a_date_typed_into_a_float_column_comes_back(mjd: float) -> None:
    stored = struct.unpack("f", struct.pack("f", mjd))[0]
    printed = original.as_printed(stored)
    assert struct.pack("f", printed) == struct.pack("f", stored)
    assert len(str(printed)) <= len(str(mjd))


@pytest.mark.parametrize("number", [57000.123456789, 1e300, -1e300, 0.1])
def test_a_date_more_precise_than_a_float_stays(number: float) -> None:
    assert original.as_printed(number) == number


# ---- any rows

WORDS = st.sampled_from(
    [
        None,
        "",
        "new",
        "NEW",
        "parsed",
        "run",
        "Run ",
        "stop",
        "cancel",
        "goto_cleaned",
        "cleaned",
        "hold",
        "full",
        "what",
    ]
)
FAULTS = st.sampled_from([None, 0, 0, 0, -1, 1, 2, 6, 9, 10, 21, 25, 32, 256, 32767])
COUNTS = st.sampled_from([None, 0, 1, 3, -2])
TIMES = st.sampled_from([None, ANYTIME, "0000-00-00 00:00:00"])
REQUESTS = st.lists(
    st.fixed_dictionaries({
        "state": WORDS, "fault": FAULTS, "uri": st.sampled_from([None, "", " ", "/r.fits"]),
        "name": st.sampled_from([None, "", "a", "ERROR.1", "ERROR.2"]), "registered": TIMES,
        "label": st.sampled_from([None, "web", "x"]), "timestamp": TIMES.filter(bool),
    }), max_size=4,
)  # fmt: skip
DEPENDENTS = st.lists(
    st.fixed_dictionaries({
        "state": WORDS, "fault": FAULTS, "fault_count": COUNTS, "stage_id": st.sampled_from([None, 1, 2]),
        "component": st.sampled_from([None, "", "xy", "XY"]), "need_magic": st.sampled_from([None, 1]),
    }), max_size=4,
)  # fmt: skip
JOBS = st.lists(
    st.fixed_dictionaries({
        "job_id": st.integers(1, 9), "req_id": st.integers(1, 5), "state": WORDS, "fault": FAULTS,
        "fault_count": COUNTS, "dep_id": st.sampled_from([None, 0, 1, 2, 3, 9]),
        "rownum": st.sampled_from([None, "0", "12", "", "x", "-1", "1.5", "\u00b2"]),
    }), max_size=9, unique_by=lambda row: (row["job_id"], row["req_id"]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(REQUESTS, DEPENDENTS, JOBS)
def test_any_rows_become_legal(requests: list[Columns], dependents: list[Columns], jobs: list[Columns]) -> None:
    used: set[str] = set()
    for row in requests:
        if row["name"] in used:
            row["name"] = None
        used.add(row["name"])
    store = Store(":memory:", Clock())
    with store.reading():
        fill(store, {
            "pstampRequest": [request(number, None) | row for number, row in enumerate(requests, 1)],
            "pstampDependent": [dependent(number, None) | row for number, row in enumerate(dependents, 1)],
            "pstampJob": [job(1, 1, None) | row for row in jobs],
            "Label": ROWS["Label"],
        })  # fmt: skip
        report = migrate(store)
        check_version(store)
        check_legal(store)
        up = in_ipps_columns(dump(store))
        for machine, table, key, old in (
            ("request", "pstampRequest", "req_id", requests), ("dependent", "pstampDependent", "dep_id", dependents),
        ):  # fmt: skip
            for row in dump(store)[table]:
                was = old[row[key] - 1]
                if (was["state"], was["fault"]) != (row["state"], row["fault"]):
                    start, end = f"{machine} {row[key]}: ", f" -> {row['state']} with fault {row['fault']}"
                    assert any(line.startswith(start) and end in line for line in report.lines)
        migrate(store, 0)
        assert by_number(in_ipps_columns(dump(store))) == by_number(up)
        migrate(store)
        check_legal(store)
        assert by_number(in_ipps_columns(dump(store))) == by_number(up)
    store.db.close()
