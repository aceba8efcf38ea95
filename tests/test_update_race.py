"""Checkers, update servers, cleaners and several requests race for the same components, in any order, and get killed.

Two chips of each of two exposures, warps of them, two differences: what one request wants is what another's image is
made of. Two workers with connections of their own do what the server's tasks do: parse, look at dependents, make
components, cut, tidy up, count failures. Others have their way with the image database, as IPP and its operators have:
they clean, purge, hold, make differences, order a program to fail. A step of a worker may be overtaken between any two
of its transactions, with the clock going on meanwhile, so that its lease may have run out; or be killed at any
operation. In the end all go on until nothing moves: each job must have come to the end that its history justifies.

With ``PSTAMP_OVERNIGHT=1`` in the environment there are 100 times as many lives.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any
from unittest import mock

import mariadb
import pytest
from conftest import SECOND
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from peewee import MySQLDatabase
from test_imagedb_updates import CELL, World
from worlds import sky_image

from pstamp_core.database import unit_of_work
from pstamp_core.datastore.tables import dsFile, dsFileset
from pstamp_core.faults import RETRYABLE, Fault, IllegalTransition, PstampError, RetryableError
from pstamp_core.formats import RequestRow, RequestTable
from pstamp_core.imagedb import Component, ImageDB, Key, Work, components, leases, updates
from pstamp_core.imagedb import tables as t
from pstamp_core.imagedb.components import STATES
from pstamp_core.imagedb.survey import Effort
from pstamp_core.imagedb.updates import WORK_TABLES
from pstamp_core.settings import Settings
from pstamp_core.store import (
    Label,
    Store,
    make,
    moment,
    pstampDependent,
    pstampFile,
    pstampHistory,
    pstampJob,
    pstampProject,
    pstampRequest,
)
from pstamp_core.store.rules import trigger_name
from pstamp_core.tasks import finish, jobs, operate, parse, retry, update, update_cleanup
from pstamp_core.tasks.clean import clean_requests, queue_cleanup
from pstamp_core.tasks.dependents import check_dependents
from pstamp_core.tasks.server import Server, add_project, make_server
from pstamp_core.testing import invariants
from pstamp_core.testing.killpoints import around_database, killed_at
from pstamp_core.testing.stores import Clock

OVERNIGHT = os.environ.get("PSTAMP_OVERNIGHT") == "1"

# a fork of pytest's own process, which may have threads that wait
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

OTHER = "skycell.2"
CHIPS = [("chip", run, name) for run in (11, 21) for name in ("XY31", "XY32")]
INPUTS: dict[Key, tuple[Key, ...]] = {
    **dict.fromkeys(CHIPS, ()),
    ("warp", 11, CELL): (CHIPS[0], CHIPS[1]),
    ("warp", 11, OTHER): (CHIPS[1],),
    ("warp", 21, CELL): (CHIPS[2], CHIPS[3]),
    ("diff", 1, CELL): (("warp", 11, CELL), ("warp", 21, CELL)),
    ("diff", 2, CELL): (("warp", 11, CELL),),
}
"""What each component is made of; the second difference also of a stack, which is there."""
KEYS = list(INPUTS)
RUNS = list(dict.fromkeys(key[:2] for key in KEYS))
LABELS = {"ana": 400, "bob": 100}
CEILING, LEASE, TIMEOUT = 3, 60.0, 100.0
LONGEST = int((TIMEOUT + update.KILL_AFTER + LEASE) * SECOND)
"""How long an update server has a component to itself."""
DAY = 86_400 * SECOND
WEEK = 7.0
"""After so many days nobody waits any more."""


# -- the site --------------------------------------------------------------------------------------------------------


class Site:
    """A server with two workers, an image database that others use, too, and the site's program; it can begin anew."""

    def __init__(self, folder: Path, store: str, images: str) -> None:
        self.clock = Clock()
        self.images, self.home = folder / "images", folder / "home"
        made = make_server(self.home, store)
        add_project(made, "gpc1", images, str(self.images))
        with made.store.reading():
            pstampProject.delete().where(pstampProject.name == "local").execute()
            made.store.db.execute_sql(f"DROP TRIGGER {trigger_name('pstampHistory', 'delete')}")
            for label, priority in LABELS.items():
                Label.create(label=label, priority=priority)
        made.store.db.close()
        self.settings = Settings(
            self.home, store, lease_seconds=LEASE, retry_ceiling=CEILING, retry_seconds=10.0, check_seconds=5.0,
            cooldown_seconds=400.0, keep_made_days=0.0003, preserve_days=0.02, update_chip=("make",),
            update_warp=("make",), update_timeout=TIMEOUT, longest_wait_days=WEEK, pin_days=WEEK, update_at_once=1,
        )  # fmt: skip
        self.workers = [Server(self.settings, Store(store, self.clock)) for _ in range(2)]
        self.others = ImageDB(images, self.images)
        self.is_mysql = isinstance(self.others.db, MySQLDatabase)
        self.born = 0
        self.journal = os.open(self.home / "journal", os.O_CREAT | os.O_APPEND | os.O_RDWR)
        for number in range(2):
            self.replace_worker(number)
        self._rows = self._make_rows()
        self.files = {key: self.others.products(*key).files for key in KEYS}  # type: ignore[union-attr]
        sky_image(folder / "good.fits")
        self.good = (folder / "good.fits").read_bytes()
        self.tables: dict[str, RequestTable] = {}

    def replace_worker(self, number: int) -> None:
        """Let another process be this worker."""
        self.born += 1
        self.workers[number].worker = f"w{self.born}"

    def _make_rows(self) -> list[tuple[Any, list[tuple[Any, ...]]]]:
        """Make the image database; return its rows, to be put back."""
        self.others.create()
        with self.others.session():
            world = World(self.others)
            for run in (11, 21):
                world.chip(run, ("cleaned", "cleaned"), "XY31", "XY32")
                world.warp(run, ("cleaned", "cleaned"), "XY31", "XY32")
            world.warp(11, ("cleaned", "cleaned"), "XY32", cell=OTHER)
            world.stack(7)
            world.diff(1, warp1=11, warp2=21)
            world.diff(2, mode=2, warp1=11, stack2=7)
            for key in KEYS:
                world.set(key, path_base=".".join(map(str, key)))
            for stage, made in WORK_TABLES.items():
                if stage != "destreak":
                    for row in made.run.select():
                        own = own_label((stage, getattr(row, made.number)))
                        made.run.update(label=own).where(made.run_key == getattr(row, made.number)).execute()
            return [(table, list(table.select().tuples())) for table in t.TABLES]

    def begin(self, full: Sequence[tuple[str, int]]) -> None:
        """Be as new; the images of some runs are there."""
        for worker in self.workers:
            worker.store.db.connect(reuse_if_open=True)
        unit_of_work(self.workers[0].store.db, _EMPTIED, lambda: [table.delete().execute() for table in _EMPTIED])
        for folder in (self.images, self.settings.work, self.home / "datastore" / "pstamp_results"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        self.others.db.connect(reuse_if_open=True)

        def fill() -> None:
            for table, rows in self._rows:
                table.delete().execute()
                if rows:
                    table.insert_many(rows, table._meta.sorted_fields).execute()
            for stage, number in full:
                made = WORK_TABLES[stage]
                made.run.update(state="full").where(made.run_key == number).execute()
                made.file.update(data_state="full").where(made.keys[0] == number).execute()

        unit_of_work(self.others.db, t.TABLES, fill)
        if self.is_mysql:
            self.others.db.execute_sql("SET innodb_lock_wait_timeout = 0")
        for key in KEYS:
            if key[:2] in full:
                self.make(key)
        os.truncate(self.journal, 0)
        self.does: dict[Key, tuple[int, Sequence[str]]] = {}
        self.deleted: Counter[Key] = Counter()

    def work(self, work: Callable[[], Any]) -> bool:
        """Let others change the image database; who finds it locked leaves it, and False is returned."""
        try:
            with self.others.session(), self.others.db.atomic():
                work()
        except RetryableError as error:
            if "Lock wait timeout" not in str(error):
                raise
            return False
        return True

    def close(self) -> None:
        """Close all connections, since a forked process must not share them."""
        for worker in self.workers:
            worker.store.db.close()
            for imagedb in worker._imagedbs.values():
                imagedb.db.close()
        self.others.db.close()

    # -- files

    def make(self, key: Key) -> None:
        """Write the files of a component."""
        for path in self.files[key]:
            private = path.with_name(f".{path.name}.tmp")
            private.write_bytes(self.good)
            private.rename(path)

    def delete(self, key: Key) -> None:
        """Delete the files of a component."""
        self.deleted[key] += 1
        for path in self.files[key]:
            path.unlink(missing_ok=True)

    def is_there(self, key: Key) -> bool:
        """Tell whether all files of a component are there."""
        return all(path.exists() for path in self.files[key])

    # -- the program, in place of one that the update server starts

    def note(self, what: str, key: Key, value: int = 0) -> None:
        """Write to the journal, which outlives whoever is killed."""
        os.write(self.journal, json.dumps([what, key, value]).encode() + b"\n")

    def notes(self) -> list[tuple[str, Key, int]]:
        """Read the journal."""
        lines = map(json.loads, (self.home / "journal").read_text().splitlines())
        return [(what, tuple(key), value) for what, key, value in lines]  # type: ignore[misc]

    def program(self, key: Key) -> tuple[int, str]:
        """Make a component of its inputs, or do what was ordered; return code and last words."""
        if not all(map(self.is_there, INPUTS[key])):
            self.note("blind", key)
            return Fault.PS_EXIT_SYS_ERROR, "an input is not there"
        before, words = self.does.get(key, (0, ()))
        number = sum(note[:2] == ("begin", key) for note in self.notes()) - before
        word = words[number - 1] if number <= len(words) else "work"
        if word.startswith("fail"):
            return int(word.split()[1]), "as ordered"
        if word == "hang":
            self.files[key][0].write_bytes(self.good)
            return Fault.PS_EXIT_TIMEOUT_ERROR, "took too long"
        if word != "forget":
            self.make(key)
        if word == "garble":
            self.files[key][-1].write_bytes(b"no FITS at all")
        return 0, ""

    def order(self, key: Key, words: Sequence[str]) -> None:
        """Say what the next tries to make a component do."""
        self.does[key] = sum(note[:2] == ("begin", key) for note in self.notes()), words

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Use this program, these request files, and results that are quickly written."""
        attempt, store, finish_work = update._attempt, update._store, update.finish

        def trying(one: Any, *args: Any) -> tuple[int, str]:
            fault = -1
            self.note("begin", one.work.key, one.began)
            try:
                fault, reason = attempt(one, *args)
            except Exception:
                fault = Fault.PS_EXIT_DATA_ERROR
                raise
            finally:
                self.note("end", one.work.key, fault)
            return fault, reason

        under_way: list[int] = []  # since when, the innermost last: one may be overtaken by another

        def storing(server: Server, one: Any, future: Any) -> None:
            under_way.append(one.began)
            store(server, one, future)
            self.note("stored", one.work.key, under_way.pop())

        def finishing(imagedb: ImageDB, work: Work, *args: Any) -> bool:
            stored = finish_work(imagedb, work, *args)
            others = any(note[:2] == ("begin", work.key) and note[2] > under_way[-1] for note in self.notes())
            if stored and others:
                self.note("late", work.key)
            return stored

        with (
            mock.patch.object(update, "_run", lambda one, *_: self.program(one.work.key)),
            mock.patch.object(update, "_attempt", trying),
            mock.patch.object(update, "_store", storing),
            mock.patch.object(update, "finish", finishing),
            mock.patch.object(finish, "write_results", lambda path, *_: path.touch()),
            mock.patch.object(finish, "results_mdc", return_value=""),
            mock.patch.object(parse, "_fetch", lambda _server, _request, copy: self.tables[copy.name]),
        ):
            yield


_EMPTIED = (dsFile, dsFileset, pstampFile, pstampJob, pstampDependent, pstampRequest, pstampHistory)


def own_label(run: tuple[str, int]) -> str:
    """The label that a run had before anybody waited for it."""
    return f"own.{run[0]}.{run[1]}"


def chain(key: Key) -> set[Key]:
    """A component and all that it is made of."""
    return {key}.union(*map(chain, INPUTS[key]))


@dataclass
class Seen:
    """The image database at one moment.

    Attributes
    ----------
    runs : dict
        State and label of each.
    parts : dict
        State, fault and quality of each component.
    efforts : dict
        ``attempts fault cause retry_at queued_at made_at`` of each that was ever put into update.
    labels : dict
        Own label and priority of each run that has an update label for a while.
    leases : dict
        When the lease on each component ends.
    """

    runs: dict[tuple[str, int], tuple[str, str]]
    parts: dict[Key, tuple[str, int, int]]
    efforts: dict[Key, tuple[int, ...]]
    labels: dict[tuple[str, int], tuple[str, int]]
    leases: dict[Key, int]

    @classmethod
    def of(cls, db: Any) -> Seen:
        """Read it."""

        def rows(columns: str, table: str) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in db.execute_sql(f"SELECT {columns} FROM {table}").fetchall()]  # noqa: S608

        runs, parts = {}, {}
        for stage, made in WORK_TABLES.items():
            if stage != "destreak":
                number, name = made.number, made.component
                of_runs = rows(f"{number}, state, label", made.run.__name__)
                runs |= {(stage, n): (state, label) for n, state, label in of_runs}
                of_parts = rows(f"{number}, {name}, data_state, fault, quality", made.file.__name__)
                parts |= {(stage, n, each): tuple(values) for n, each, *values in of_parts}
        efforts = rows(
            "stage, stage_id, component, attempts, fault, cause, retry_at, queued_at, made_at", "pstampUpdate"
        )
        labels = rows("stage, stage_id, label, priority", "pstampRunLabel")
        leases = rows("stage, stage_id, component, until", "pstampLease")
        return cls(runs, parts, {row[:3]: row[3:] for row in efforts}, {row[:2]: row[2:] for row in labels},
                   {row[:3]: row[3] for row in leases})  # fmt: skip

    def states(self, key: Key) -> tuple[str, str]:
        """Return the states of run and component."""
        return self.runs[key[:2]][0], self.parts[key][0]

    def is_there(self, key: Key) -> bool:
        """Tell whether the pixels are there, and nobody is about to delete them."""
        return self.parts[key][0] == "full" and self.runs[key[:2]][0] != "goto_cleaned"

    def is_gone(self, key: Key) -> bool:
        """Tell whether the pixels will not come back."""
        return self.parts[key][1] == Fault.PSTAMP_GONE or bool({*GONE} & {*self.states(key)})

    def needed(self, key: Key, now: int) -> set[Key]:
        """Return what must be there, or stay there, so that a component can be had: the least of it."""
        run, data = self.states(key)
        attempts, *_, retry_at, _, _ = self.efforts.get(key, (0,) * 6)
        given_up = attempts >= CEILING and retry_at > now
        makes = run in ("cleaned", "update", "goto_cleaned") and data in ("cleaned", "update") and not given_up
        if self.is_there(key) or not makes or self.is_gone(key):
            return {key}
        return {key}.union(*(self.needed(each, now) for each in INPUTS[key]))


GONE = ("purged", "goto_purged", "scrubbed", "drop", "error_cleaned")


# -- what can be done ------------------------------------------------------------------------------------------------


def tidy(server: Server) -> None:
    """Let what nobody needs be cleaned."""
    for found in update_cleanup.queue_update_cleanup(server, 100):
        if found.trouble:
            raise found.trouble


def delete_requests(server: Server) -> None:
    """Delete what is old."""
    queue_cleanup(server)
    clean_requests(server, 10)


WORK: dict[str, Callable[[Server], Any]] = {
    "parse": lambda server: parse.parse_requests(server, 2),
    "check": lambda server: check_dependents(server, 100),
    "process": lambda server: update.update_components(server, 3),
    "cut": lambda server: jobs.run_jobs(server, 100),
    "tidy": tidy,
    "finish": lambda server: finish.finish_requests(server, 2),
    "delete_requests": delete_requests,
    "reap": retry.reap,
    "revert": retry.revert,
    "give_up": retry.give_up,
}
"""What workers do."""

QUEUES = {"parse": "parse", "check": "check", "run": "cut", "finish": "finish", "clean": "delete_requests"}
"""What is done with what is in each queue."""

Act = tuple[Any, ...]
"""The name of what somebody does, with what it takes."""

KEY, LABEL, WORKER = st.sampled_from(KEYS), st.sampled_from(list(LABELS)), st.sampled_from((0, 1))
PROGRAM = st.one_of(
    st.lists(st.sampled_from(["fail 2", "fail 5", "hang", "forget", "garble", "work"]), min_size=1, max_size=4),
    st.sampled_from([["fail 26"], ["fail 2"] * 100]),
)
SUBMIT = st.tuples(LABEL, st.lists(KEY, min_size=1, max_size=2, unique=True))
MORE = {"submit": SUBMIT, "order": st.tuples(PROGRAM), "purge": st.tuples(st.sampled_from(GONE)),
        "relabel": st.tuples(LABEL)}  # fmt: skip
"""What some acts take besides what `Race.possible` says."""


class Race(RuleBasedStateMachine):
    """The rules of the game.

    Parameters
    ----------
    site : Site
        Where it takes place; it begins anew.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site, self.clock = site, site.clock
        self.world = invariants.World(self.clock.now, {"request": {}, "job": {}, "dependent": {}})
        self.requests: list[int] = []
        self.label_of: dict[int, str] = {}
        self.held: dict[tuple[str, int], str] = {}
        self.let_go: set[tuple[str, int]] = set()
        self.inactive: set[str] = set()
        self.sound = False
        self.alone = True
        self.doing: Act = ()
        self.happened: Counter[str] = Counter()
        self.gone: set[Key] = set()
        self.ended: set[int] = set()
        self.given_up_by_hand = False
        self.noted = 0
        self.making: dict[Key, int] = {}

    # -- workers

    def do(self, act: Act, worker: int) -> None:
        """Let somebody do something; a worker, if it is work."""
        name, *args = act
        self.clock.forward(0.001)
        if name in WORK:
            WORK[name](self.site.workers[worker])
        else:
            getattr(self, name)(*args)

    def databases(self, act: Act, worker: int) -> list[Any]:
        """Return what is used for it."""
        if act[0] not in WORK:
            return [self.site.others.db]
        server = self.site.workers[worker]
        return [server.store.db, *(imagedb.db for imagedb in server._imagedbs.values())]

    @initialize(
        full=st.sets(st.sampled_from(RUNS), max_size=3), requests=st.lists(SUBMIT, min_size=1, max_size=3),
        orders=st.lists(st.tuples(KEY, PROGRAM), max_size=3), looks=st.integers(0, 3),
    )  # fmt: skip
    def begin(self, full: set[tuple[str, int]], requests: list[Any], orders: list[Any], looks: int) -> None:
        """Start in the middle: some images are there, some are waited for, some of those are being made."""
        self.site.begin(sorted(full))
        with self.site.workers[0].store.reading():
            Label.update(active=True).execute()
        for each in orders:
            self.order(*each)
        for each in requests:
            self.submit(*each)
            self.do(("parse",), 0)
        for _ in range(looks):
            self.do(("check",), 0)
            self.do(("process",), 1)
            self.clock.forward(6)
        self.seen = self.look()
        self.alone = False

    @rule(worker=WORKER, data=st.data())
    def work(self, worker: int, data: st.DataObject) -> None:
        """A worker does something, undisturbed."""
        self.start(data.draw(st.sampled_from(self.due()), "work"))
        self.do(self.doing, worker)

    @rule(data=st.data())
    def happen(self, data: st.DataObject) -> None:
        """Somebody else does something."""
        self.start(self.draw(data))
        self.do(self.doing, 0)

    @rule(seconds=st.sampled_from([11, 41, 61, 163, 401, 4000, 100_000]))
    def pass_time(self, seconds: int) -> None:
        """Let time pass."""
        self.start(("pass_time", seconds))
        self.clock.forward(seconds)

    def overtaken(
        self, act: Act, worker: int, at: int, seconds: int, by: Sequence[Act], *, inside: bool = False
    ) -> bool:
        """Let others do something, and time pass, before the `at`-th transaction of an act (or statement `inside`).

        Return whether it came to that.
        """
        self.start(act, alone=False)
        mine, left = self.databases(act, worker), at

        def step(db: Any, sql: str, go_on: Callable[[], Any]) -> Any:
            nonlocal left
            is_free = not any(each.in_transaction() for each in mine) and sql.startswith("BEGIN")
            if inside:
                is_free = db.in_transaction() and db is mine[-1]
            if left and is_free and any(db is each for each in mine):
                left -= 1
                if not left:
                    self.clock.forward(seconds)
                    for each in by:
                        self.do(each, 1 - worker)
            return go_on()

        with around_database(step):
            self.do(act, worker)
        self.happened["late"] += seconds > 0
        return not left

    @precondition(lambda self: self.site.is_mysql)
    @rule(
        name=st.sampled_from(["check", "check", "process", "tidy"]),
        worker=WORKER,
        at=st.integers(1, 25),
        data=st.data(),
    )
    def overtaken_inside(self, name: str, worker: int, at: int, data: st.DataObject) -> None:
        """Let others change rows of the image database that a transaction has read, and not yet changed."""
        names = ("clean", "purge", "keep", "ipp_clean", "ipp_make", "ipp_revert")
        if {act[0] for act in self.possible() + self.due()} & set(names):
            self.overtaken((name,), worker, at, 0, [self.draw(data, names)], inside=True)

    @rule(worker=WORKER, point=st.integers(1, 15), data=st.data())
    def killed(self, worker: int, point: int, data: st.DataObject) -> None:
        """Let a worker die at one of its operations; another process takes its place."""
        act = data.draw(st.sampled_from([act for act in self.due() if act[0] in WORK] or [("check",)]), "work")
        self.start(act, alone=False)
        self.site.close()
        if killed_at(point, lambda: self.do(act, worker), every=False) is not None:
            self.site.replace_worker(worker)
            self.happened["killed"] += 1
        self.clock.forward(0.001)

    def draw(self, data: st.DataObject, names: Sequence[str] = ()) -> Act:
        """Choose what somebody does: one of these things if any of them is possible."""
        choice: dict[str, list[Act]] = {}
        for act in self.due() + self.possible():
            choice.setdefault(act[0], []).append(act)
        name = data.draw(st.sampled_from([name for name in names if name in choice] or list(choice)), "what")
        act = data.draw(st.sampled_from(choice[name]), "which")
        return (*act, *data.draw(MORE[name], "how")) if name in MORE else act

    def possible(self) -> list[Act]:
        """Return what others could do now, without what it takes besides (`MORE`)."""
        found: list[Act] = [("submit",), *(("switch", label) for label in LABELS)]
        jobs = [job for job in self.world.rows["job"].values() if job["state"] in invariants.OPEN]
        wanted = set().union(*(chain(key) for job in jobs if (key := self.key_of(job))))
        for key in [each for each in KEYS if each in wanted] or KEYS:
            data, fault, _ = self.seen.parts[key]
            run = self.seen.runs[key[:2]][0]
            can = {
                "clean": data in ("full", "update") and run in ("full", "update"),
                "keep": run in ("full", "update", "cleaned") or key[:2] in self.held,
                "ipp_revert": fault and run == data == "update",
                "order": data != "full",
                "purge": not self.gone,  # once in a life, since it ends so much
            }
            found += [(name, key) for name, holds in can.items() if holds]
        for number, row in enumerate(self.world.rows["request"].values()):
            found += [("cancel", number), ("relabel", number)] if row["state"] in ("new", "run") else []
        for number, row in enumerate(self.world.rows["dependent"].values()):
            orders = {"hold": ("revert", "give_up", "release"), "new": ("hold", "revert", "give_up")}
            found += [("operator", order, number) for order in orders.get(row["state"], ())]
        return found

    def start(self, act: Act, *, alone: bool = True) -> None:
        """Begin a step, after a while in which a dependent may be looked at again."""
        self.clock.forward(6)
        self.sound, self.alone, self.doing = False, alone, act

    def due(self) -> list[Act]:
        """Return what there is to do for workers, and for IPP."""
        queues, rows = self.world.queues, self.world.rows
        due: list[Act] = [(act,) for queue, act in QUEUES.items() if queues[queue]]
        if any(row["lease_owner"] or 0 < row["fault"] < 10 for kind in rows.values() for row in kind.values()):
            due += [("reap",), ("revert",), ("give_up",)]
        if any(state == "update" for state, _, _ in self.seen.parts.values()):
            due += [("process",), ("process",), ("ipp_make",), ("vanish",)]
        if any(state == "goto_cleaned" for state, _ in self.seen.runs.values()):
            due += [("ipp_clean",)]
        if self.seen.labels or any(data != "cleaned" for data, _, _ in self.seen.parts.values()):
            due += [("tidy",)]
        return due or [("check",)]

    def vanish(self) -> None:
        """Another update server begins to make something, and dies."""
        server = Server(self.site.settings, self.site.workers[0].store)
        for one in islice(update._claim(server, list(update._sources(server)), 1), 1):
            self.site.note("begin", one.work.key, one.began)
        for imagedb in server._imagedbs.values():
            imagedb.db.close()

    # -- users and operators

    def submit(self, label: str, keys: Sequence[Key]) -> None:
        """Somebody sends a request."""
        site, at = self.site, moment(self.clock.now)
        name = f"r{len(self.requests)}"
        site.tables[f"{name}.fits"] = RequestTable(name, 2, "PROCESS", "ana@obs.example.edu", tuple(
            RequestRow(number, 8.0, 8.0, 6.0, 6.0, 3, "stamp", 513, "gpc1", req_type="byid", img_type=stage,
                       id=str(stage_id), component=component)
            for number, (stage, stage_id, component) in enumerate(keys, 1)
        ))  # fmt: skip
        values = {"uri": f"/{name}.fits", "label": label, "registered": at, "timestamp": at}
        store = site.workers[0].store
        made = store.work(lambda: make(pstampRequest, now=self.clock.now, who="user", **values))
        self.requests.append(made.req_id)
        self.label_of[made.req_id] = label

    def switch(self, label: str) -> None:
        """An operator switches a label off, or on."""
        self.inactive ^= {label}
        with self.site.workers[0].store.reading():
            Label.update(active=label not in self.inactive).where(Label.label == label).execute()

    def relabel(self, number: int, label: str) -> None:
        """An operator gives a request another label."""
        if self.requests:
            req_id = self.requests[number % len(self.requests)]
            self.label_of[req_id] = label
            with self.site.workers[0].store.reading():
                pstampRequest.update(label=label).where(pstampRequest.req_id == req_id).execute()

    def cancel(self, number: int) -> None:
        """A user cancels a request."""
        if self.requests:
            with suppress(IllegalTransition):
                operate.cancel(self.site.workers[0], "request", self.requests[number % len(self.requests)], "user")

    def operator(self, order: str, number: int) -> None:
        """An operator has to do with a dependent."""
        server = self.site.workers[0]
        known = list(self.world.rows["dependent"])
        if not known:
            return
        number = known[number % len(known)]
        orders = {
            "hold": lambda: operate.hold(server, number, "otto"),
            "release": lambda: operate.release(server, number, "otto"),
            "revert": lambda: retry.revert_one(server, "dependent", number, "otto"),
            "give_up": lambda: retry.give_up_one(server, "dependent", number, "otto"),
        }
        with suppress(IllegalTransition):
            orders[order]()
            self.given_up_by_hand |= order == "give_up"

    # -- others in the image database

    def set(self, key: Key, run: str, **columns: Any) -> None:
        """Change a component and its run."""
        made = WORK_TABLES[key[0]]
        if columns:
            made.file.update(columns).where(made.is_one_of([key])).execute()
        made.run.update(state=run).where(made.run_key == key[1]).execute()

    def look(self) -> Seen:
        """Read the image database."""
        return Seen.of(self.site.others.db)

    def clean(self, key: Key) -> None:
        """Somebody deletes the pixels of a component, whoever needs it."""
        seen = self.look()
        run, data = seen.states(key)
        if data not in ("full", "update") or run not in ("full", "update"):
            return
        left = any(seen.states(each)[1] in ("full", "update") for each in KEYS if each[:2] == key[:2] and each != key)
        if self.site.work(lambda: self.set(key, run if left else "cleaned", data_state="cleaned")):
            self.site.delete(key)

    def purge(self, key: Key, word: str) -> None:
        """A run, or the whole of it, is deleted for good, or given up."""
        run = [each for each in KEYS if each[:2] == key[:2]]
        columns = {} if word == "drop" else {"data_state": word}
        if self.site.work(lambda: [self.set(each, word, **columns) for each in run]):
            self.held.pop(key[:2], None)
            for each in run if word != "drop" else ():
                self.site.delete(each)

    def keep(self, key: Key) -> None:
        """An operator holds a run, or lets it go."""
        run = key[:2]
        before = self.look().runs[run][0]
        if run in self.held:
            if self.site.work(lambda: self.set(key, self.held[run])):
                self.let_go.add(run)
                del self.held[run]
        elif before in ("full", "update", "cleaned") and self.site.work(lambda: self.set(key, "keep")):
            self.held[run] = before

    def order(self, key: Key, words: list[str]) -> None:
        """What becomes of the next tries to make a component."""
        self.site.order(key, words)

    def ipp_clean(self) -> None:
        """IPP cleans the runs that are to be cleaned, and does not look again whether they still are."""
        seen = self.look()
        runs = [run for run, (state, _) in seen.runs.items() if state == "goto_cleaned"]
        cleaned = [key for key in KEYS if key[:2] in runs]
        if cleaned and self.site.work(lambda: [self.set(key, "cleaned", data_state="cleaned") for key in cleaned]):
            for key in cleaned:
                self.site.delete(key)

    def ipp_make(self) -> None:
        """IPP's own update server makes the differences; it knows nothing of labels and efforts."""
        seen = self.look()
        for key in KEYS:
            ready = all(seen.is_there(each) for each in INPUTS[key]) and seen.parts[key][1] == 0
            if key[0] == "diff" and seen.states(key) == ("update", "update") and ready:
                self.site.note("begin", key, self.clock.now)
                fault, _ = self.site.program(key)
                if not fault and not self.site.is_there(key):
                    fault = Fault.PS_EXIT_DATA_ERROR
                self.site.note("end", key, fault)
                self.site.note("stored", key, self.clock.now)
                made: dict[str, Any] = {"fault": fault} if fault else {"run": "full", "data_state": "full"}
                self.site.work(partial(self.set, key, **{"run": "update", **made}))

    def ipp_revert(self, key: Key) -> None:
        """IPP, or an operator, clears a fault."""
        run, data = self.look().states(key)
        if run == data == "update":
            self.site.work(lambda: self.set(key, run, fault=0))

    # -- what holds after every step

    @invariant()
    def all_is_well(self) -> None:
        """Check what must hold at any moment."""
        before, old = self.seen, self.world
        self.world = invariants.look(self.site.workers[0].store, old)
        self.seen = self.look()
        for each in invariants.INVARIANTS:
            if each is not invariants.queues_have_what_is_due or not self.inactive:
                for problem in each(self.world):
                    raise AssertionError(f"{each.__name__}: {problem}")
        for kind, rows in self.world.rows.items():
            for number, row in rows.items():
                assert Fault.PS_EXIT_PROG_ERROR not in (row["fault"], row["cause"]), f"{kind} {number}: a bug of ours"
        self.gone |= {key for key in KEYS if self.seen.is_gone(key)}
        self.check_images(before)
        self.check_programs(before)
        self.check_pins(old, before)
        self.check_urgency(old)
        self.check_ends()
        self.sound = True

    def check_images(self, before: Seen) -> None:
        """Check states, files, labels and counts in the image database."""
        seen = self.seen
        for key, (data, _, _) in seen.parts.items():
            assert data in STATES, (key, data)
            assert data != "full" or self.site.is_there(key), f"{key} is full, but its files are not there"
        for run, (state, label) in seen.runs.items():
            assert state in STATES, (run, state)
            own, _ = seen.labels.get(run, (label, 0))
            assert own == own_label(run), f"{run}: its own label is lost, it is {own} now"
            assert run not in seen.labels or label.startswith("ps_ud_"), f"{run}: {label} is no update label"
        failed = Counter(key for what, key, fault in self.site.notes() if what == "end" and fault)
        for key, tries in failed.items():
            dependents = self.world.rows["dependent"].values()
            waited = sum(key in chain((row["stage"], row["stage_id"], row["component"])) for row in dependents)
            bound = CEILING * waited + self.happened.total() + self.site.deleted[key]
            assert tries <= bound, f"{key}: {tries} tries failed"
        for key, (attempts, _, _, _, queued_at, _) in seen.efforts.items():
            bound = min(CEILING, failed[key] + self.site.deleted[key])
            assert attempts <= bound, f"{key}: {attempts} failures counted; there were {bound}"
            if self.alone and queued_at != before.efforts.get(key, (0,) * 6)[4]:
                assert (*before.states(key), before.parts[key][1]) != ("update", "update", 0), f"{key}: queued twice"

    def check_programs(self, before: Seen) -> None:
        """Check that nothing is made twice at the same time, and in quiet times only what is wanted, inputs first."""
        for what, key, value in self.site.notes()[self.noted :]:
            self.noted += 1
            assert what != "late", f"{key}: one who was late stored what came of it"
            assert what != "blind" or not self.alone, f"{key}: made before its inputs"
            if what == "begin":
                assert self.making.get(key, 0) <= value, f"{key}: made by two at the same time"
                self.making[key] = value + LONGEST
                found = (*before.states(key), before.parts[key][1])
                assert not self.alone or found == ("update", "update", 0), f"{key}: made, though it was {found}"
            elif what == "stored" and self.making.get(key) == value + LONGEST:
                del self.making[key]
        # Who died may have stored what came of it, and given up the lease, before that could be noted.
        self.making = {key: until for key, until in self.making.items() if key in self.seen.leases}

    def pinned(self, world: invariants.World, seen: Seen) -> dict[int, tuple[Key, set[Key]]]:
        """Return what each open job has for its image, and what that needs."""
        found = {}
        for number, job in world.rows["job"].items():
            moved = max(job["changed_at"], world.rows["dependent"].get(job["dep_id"], job)["changed_at"])
            if job["state"] in invariants.OPEN and moved > world.now - WEEK * DAY:
                key = self.key_of(job)
                assert key
                found[number] = key, seen.needed(key, world.now)
        return found

    def key_of(self, job: invariants.Row) -> Key | None:
        """Return the component that a job is about; None: its request was not parsed."""
        return next((key for key, files in self.site.files.items() if str(files[0]) == job["image"]), None)

    def check_pins(self, old: invariants.World, before: Seen) -> None:
        """Check that what a job needs was not left to be cleaned."""
        put_away = {run for run, (state, _) in self.seen.runs.items() if state == "goto_cleaned"} - {
            run for run, (state, _) in before.runs.items() if state == "goto_cleaned"
        }
        if put_away:
            was = self.pinned(old, before)
            for job, (key, needs) in self.pinned(self.world, self.seen).items():
                held = was.get(job, (key, set()))[1] & (needs if self.alone else {key})
                for each in held:
                    assert each[:2] not in put_away, f"{each}: to be cleaned, though job {job} needs it"

    def check_urgency(self, old: invariants.World) -> None:
        """Check that what was looked at has the priority of the most urgent who waits for it."""
        if self.doing != ("check",) or not self.alone:
            return
        rows = self.world.rows
        for number, dependent in rows["dependent"].items():
            key = dependent["stage"], dependent["stage_id"], dependent["component"]
            before = old.rows["dependent"].get(number, dependent)
            looked = dependent["attempt"] > before["attempt"] and dependent["state"] == "new"
            if looked and self.seen.states(key) == ("update", "update") and key[:2] in self.seen.labels:
                labels = {
                    self.label_of[job["req_id"]] for job in rows["job"].values()
                    if job["dep_id"] == number and rows["request"][job["req_id"]]["state"] == job["state"] == "run"
                } - self.inactive  # fmt: skip
                urgent = max((LABELS[label] for label in labels), default=-1)
                assert self.seen.labels[key[:2]][1] >= urgent, f"{key}: less urgent than one who waits for it"

    def check_ends(self) -> None:
        """Check that the end of each job has its reason in what happened to its image."""
        sql = "SELECT job_id, fault, sentence FROM pstampJob WHERE state = 'stop'"
        with self.site.workers[0].store.reading():
            rows = self.site.workers[0].store.db.execute_sql(sql).fetchall()
        failed = Counter(key for what, key, fault in self.site.notes() if what == "end" and fault)
        for number, fault, sentence in rows:
            if number in self.ended:
                continue
            self.ended.add(number)
            job = self.world.rows["job"][number]
            key = self.key_of(job)
            parts = chain(key) if key else set()
            lines = self.world.lines["job", number] + self.world.lines.get(("dependent", job["dep_id"]), [])
            asked = min(line.at for line in lines)
            reasons = {
                "given up for now": any(failed[key] + self.site.deleted[key] >= CEILING for key in parts),
                f"not there after {WEEK:g} days": self.clock.now > asked + WEEK * DAY,
                "although its run says full": any(self.site.deleted[key] for key in parts),
                "tries failed, the last with": sum(line.event in ("fault", "lost") for line in lines) >= CEILING,
                "given up by otto": self.given_up_by_hand,
                "before it could be cut": key is not None and self.site.deleted[key] > CEILING,
            }
            is_justified = {
                0: True,
                25: any(words in sentence and holds for words, holds in reasons.items()),
                26: bool(parts & self.gone),
                32: key is None,
            }.get(fault, False)
            assert is_justified, f"job {number}: {fault}, {sentence}"

    # -- the end

    def teardown(self) -> None:
        """Let everybody work until nothing moves any more, and look at what came of it."""
        if not self.sound:
            return
        self.alone = False
        for label in self.inactive.copy():
            self.switch(label)
        for pause in [6] * 6 + [21] * 8 + [200] * 8 + [DAY // SECOND] * 15:
            for number, row in enumerate(self.world.rows["dependent"].values()):
                if row["state"] == "hold":
                    self.operator("release", number)
            waits = any(job["state"] in invariants.OPEN for job in self.world.rows["job"].values())
            left_out = {"vanish", "finish", "delete_requests", "tidy" if waits else ""}
            for act in dict.fromkeys(act for act in self.due() if act[0] not in left_out):
                self.do(act, 0)
            self.all_is_well()
            if not self.unfinished():
                break
            self.clock.forward(pause)
        else:
            raise AssertionError(f"it does not come to an end: {self.unfinished()}")

    def unfinished(self) -> list[str]:
        """Return what has not come to an end; a run that an operator put into update by hand is the operator's."""
        found = [f"job {n} is {job['state']}" for n, job in self.world.rows["job"].items()
                 if job["state"] not in ("stop", "cancel")]  # fmt: skip
        ours = {run: state for run, (state, label) in self.seen.runs.items()
                if run not in self.let_go or label != own_label(run)}  # fmt: skip
        found += [f"{run} is {state}" for run, state in ours.items() if state in ("update", "goto_cleaned")]
        found += [f"{run} has another label" for run in self.seen.labels]
        return found


def overtaking(name: str) -> Any:
    """Return the rule by which an act is overtaken, when it is due."""

    def overtaken(self: Race, worker: int, at: int, seconds: int, data: st.DataObject) -> None:
        by = [self.draw(data, RIVALS[name]), *(self.draw(data) for _ in range(data.draw(st.integers(0, 1))))]
        self.overtaken((name,), worker, at, seconds, by)

    overtaken.__name__ = f"{name}_overtaken"
    return precondition(lambda self: (name,) in self.due())(
        rule(worker=WORKER, at=st.integers(1, 4), seconds=st.sampled_from([0, 61, 170]), data=st.data())(overtaken)
    )


RIVALS = {
    "process": ("process", "vanish", "clean", "keep", "purge", "check"),
    "check": ("check", "clean", "purge", "keep", "relabel", "operator"),
    "cut": ("cut", "clean", "tidy", "cancel"),
    "tidy": ("submit", "check", "process", "cancel"),
    "ipp_clean": ("check", "process", "purge"),
    "parse": ("parse", "process", "clean", "operator"),
    "reap": ("check", "process"),
}
"""Who is overtaken, and by whom above all. Who publishes has the folder to himself: the others would wait."""
for _name in RIVALS:
    setattr(Race, f"{_name}_overtaken", overtaking(_name))


# -- lives at random -------------------------------------------------------------------------------------------------


@contextmanager
def site_at(store: str, images: str) -> Iterator[Site]:
    """Give a site; in memory where there is such a folder, since no disk is on test."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 (a folder of its own is made in it)
    with tempfile.TemporaryDirectory(prefix="pstamp-race-", dir=shm) as name:
        folder = Path(name)
        site = Site(folder, store or str(folder / "pstamp.db"), images or str(folder / "gpc1.db"))
        try:
            with site.at_work():
                yield site
        finally:
            site.close()
            os.close(site.journal)


@pytest.fixture
def site(engine: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    caplog.set_level(logging.CRITICAL, "pstamp")
    if engine == "sqlite":
        with site_at("", "") as made:
            yield made
        return
    server = str(request.getfixturevalue("mysql_server"))
    with mariadb.database(server) as store, mariadb.database(server) as images, site_at(store, images) as made:
        yield made


ROUNDS = 100 if OVERNIGHT else 1
SETTINGS = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck),
    derandomize=not OVERNIGHT,  # the same lives each time, but for the nights, which look for new ones
    phases=set(Phase) - {Phase.explain},
)  # fmt: skip


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_whoever_races_with_whom_each_job_gets_the_end_that_it_should(site: Site, round_: int) -> None:
    run_state_machine_as_test(lambda: Race(site), settings=SETTINGS)


# -- lives led by hand: what chance seldom brings --------------------------------------------------------------------

CHIP, WARP, FOR_EVER = CHIPS[0], ("warp", 11, CELL), ["fail 2"] * 100
MADE = "process", 0, 2  # a worker that has made something, and is about to store it
LIVES: dict[str, list[Any]] = {
    "late": [CHIP, ("check",), (*MADE, 170, ("vanish",))],
    "late, and failed": [CHIP, ("order", CHIP, ["fail 2"]), ("check",), (*MADE, 170, ("vanish",))],
    "cleaned meanwhile": [CHIP, ("check",), (*MADE, 0, ("clean", CHIP))],
    "cleaned meanwhile and wanted again": [CHIP, ("check",), (*MADE, 6, ("clean", CHIP), ("check",))],
    "purged meanwhile": [CHIP, ("check",), (*MADE, 0, ("purge", CHIP, "purged"))],
    "held meanwhile": [CHIP, ("check",), (*MADE, 0, ("keep", CHIP)), ("keep", CHIP)],
    "held, of what fails for ever": [WARP, ("order", CHIP, FOR_EVER), ("keep", WARP)],
    "fails for ever": [WARP, ("order", CHIP, FOR_EVER)],
    "cleaned before it is cut": [CHIP, ("check",), ("process",), ("check",), ("clean", CHIP), ("cut",)],
    "an input to be cleaned": [
        WARP, ("check",), ("process",), ("submit", "bob", [CHIP]), ("parse",), ("cut",), ("tidy",),
    ],
}  # fmt: skip
"""What is wanted, and what happens then. What is overtaken says where and for how long, and by what."""


def lead(site: Site, life: str) -> Race:
    """Lead a life to its end."""
    race = Race(site)
    wanted, *acts = LIVES[life]
    race.begin(set(), [("ana", [wanted])], [], 0)
    race.all_is_well()
    for act in acts:
        if len(act) > 3 and isinstance(act[1], int):
            name, worker, at, seconds, *by = act
            race.overtaken((name,), worker, at, seconds, by)
        else:
            race.start(act)
            race.do(act, 0)
        race.all_is_well()
    race.teardown()
    return race


@pytest.mark.parametrize("life", LIVES)
def test_a_life_led_by_hand(site: Site, life: str) -> None:
    race = lead(site, life)
    (fault, *_) = (job["fault"] for job in race.world.rows["job"].values())
    assert fault == {"purged meanwhile": 26, "held, of what fails for ever": 25, "fails for ever": 25}.get(life, 0)


@pytest.mark.parametrize("engine", ["mysql"])
@pytest.mark.parametrize("act", [("clean", CHIP), ("purge", CHIP, "purged"), ("keep", CHIP), ("keep", WARP)])
def test_whoever_changes_rows_inside_a_transaction_of_ours_is_noticed(site: Site, act: Act) -> None:
    """What they did is read again, so that the look is not in vain. On SQLite nobody can."""
    for at in count(1):
        race = Race(site)
        race.begin({("chip", 11)}, [("ana", [WARP]), ("bob", [CHIPS[2]])], [], 0)
        race.all_is_well()
        came_to_it = race.overtaken(("check",), 0, at, 0, [act], inside=True)
        race.all_is_well()
        failed = [row for row in race.world.rows["dependent"].values() if row["fault"] in RETRYABLE]
        assert failed == []
        if not came_to_it:
            break
    assert at > 10


# -- that it can fail ------------------------------------------------------------------------------------------------


SEARCH = settings(SETTINGS, max_examples=300, derandomize=True, database=None, phases=[Phase.generate])
"""As far as it takes to find something; always the same."""


def without(owner: Any, name: str, value: Any) -> Callable[[], Any]:
    """Return a switch by which something does something else."""
    return lambda: mock.patch.object(owner, name, value)


def each_lease_is_its_own(*_: Any) -> Any:
    """Return a switch: whoever looks for work does not see what others work on."""
    look = leases.pending

    def blind(*args: Any) -> list[Work]:
        t.pstampLease.delete().execute()
        return look(*args)

    return mock.patch.object(leases, "pending", blind)


def nobody_remembers(survey: Any, needed: Any) -> None:
    """Give runs update labels, and remember none of theirs."""
    label(survey, needed)
    t.pstampRunLabel.delete().execute()


def each_look_counts(self: Effort, run_state: str, data_state: str, fault: int, **values: Any) -> Effort:
    """Count a failure whenever it is seen."""
    return seen(replace(self, fault=0), run_state, data_state, fault, **values)


def least_urgent_first(survey: Any, wanted: Any) -> dict[Key, Any]:
    """Let the first who comes decide on the priority."""
    needed: dict[Key, Any] = {}
    for key in sorted(wanted, key=wanted.__getitem__):
        updates._need(survey, key, wanted[key], needed)
    return needed


def as_it_failed(_server: Server, _job: Any, _params: Any, error: PstampError) -> None:
    """Let a job end whose image was cleaned before its turn."""
    raise error


def with_all_inputs(survey: Any, key: Key, waiter: Any, needed: dict[Key, Any]) -> None:
    """Have inputs made of what is held, too."""
    if key not in needed and survey.verdict(key).waits:
        needed[key] = waiter
        for each in survey.parts[key].inputs or ():
            with_all_inputs(survey, each, waiter, needed)


def whoever_it_is(key: Key, owner: str) -> bool:
    """End a lease of one's own; say so in any case."""
    end(key, owner)
    return True


label, seen, end = updates._label, Effort.seen, leases._end

MUTANTS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "pins": (without(update_cleanup, "pins", lambda *_: set()), "", "to be cleaned, though job"),
    "leases": (each_lease_is_its_own, "", "made by two at the same time"),
    "labels are remembered": (without(updates, "_label", nobody_remembers), "", "its own label is lost"),
    "labels are given back": (without(updates, "_restore_labels", lambda *_: None), "", "has another label"),
    "a failure counts once": (without(Effort, "seen", each_look_counts), "", "failures counted"),
    "the most urgent first": (without(updates, "_needed", least_urgent_first), "", "less urgent than one who waits"),
    "25 is not 26": (
        lambda: mock.patch.dict(components.CODES, {Component.NOT_NOW: Fault.PSTAMP_GONE}), "", ": 26, ",
    ),
    "jobs wait again": (without(jobs, "_wait_or_fail", as_it_failed), "cleaned before it is cut", "no such file"),
    "the fence": (without(leases, "_end", whoever_it_is), "late", "one who was late stored what came of it"),
    "only what is in update is set full": (
        without(updates, "_in_update", lambda made, key: made.is_one_of([key])), "cleaned meanwhile",
        "its files are not there",
    ),
    "only what is still the same is set full": (
        without(leases, "is_as_queued", lambda _: True), "cleaned meanwhile and wanted again",
        "its files are not there",
    ),
    "what is held has nothing made": (
        without(updates, "_need", with_all_inputs), "held, of what fails for ever", "tries failed",
    ),
}  # fmt: skip
"""A safeguard that is switched off, the life that shows it (else chance finds one), and what is said."""


@pytest.mark.parametrize("engine", ["sqlite"])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_a_safeguard_something_is_found(site: Site, mutant: str) -> None:
    switch, life, said = MUTANTS[mutant]

    def search() -> None:
        if life:
            lead(site, life)
        else:
            run_state_machine_as_test(lambda: Race(site), settings=SEARCH)

    with switch(), pytest.raises(AssertionError, match=re.escape(said)):
        search()
