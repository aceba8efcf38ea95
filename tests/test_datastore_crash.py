"""Whatever breaks, wherever: nothing half-done is public, and the same call again ends in the same state.

An audit hook sees every operation on a file that Python makes, a database of its own sees every statement; the n-th
of them, for each n until the call gets through, kills the writer (nothing it tries afterwards has an effect) or fails.
"""

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
from peewee import OperationalError, SqliteDatabase

from pstamp_core.database import create_tables, session
from pstamp_core.datastore import TABLES, DataStore
from pstamp_core.datastore.index import FileEntry, read_fileset_index, read_product_index, read_root_index
from pstamp_core.datastore.tables import dsFile, dsFileset, dsProduct
from pstamp_core.faults import Fault, RetryableError, UserError
from pstamp_core.files import StoredFile, measure

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "os.chmod", "os.utime"}


class Killed(BaseException):
    """The writer is dead: even its clean-up does nothing."""


class Weather:
    """Counts the operations while it is armed, and strikes at the `strike`-th."""

    def __init__(self) -> None:
        self.armed = False
        self.log: list[str] = []

    def arm(self, strike: int, blow: Callable[[str], None]) -> None:
        self.log, self.strike, self.blow, self.armed = [], strike, blow, True

    def meet(self, operation: str) -> None:
        if self.armed:
            self.log.append(operation)
            if len(self.log) == self.strike or (self.blow is kill and len(self.log) > self.strike):
                self.blow(operation)

    @property
    def struck(self) -> bool:
        return len(self.log) >= self.strike


WEATHER = Weather()
sys.addaudithook(lambda event, _: WEATHER.meet(event) if event in EVENTS else None)


class Fragile(SqliteDatabase):
    def execute_sql(self, sql: str, params: Any = None) -> Any:
        WEATHER.meet("sql")
        return super().execute_sql(sql, params)

    def commit(self) -> Any:
        WEATHER.meet("sql commit")
        super().commit()
        WEATHER.meet("sql committed")

    def rollback(self) -> Any:
        WEATHER.meet("rollback")
        return super().rollback()


def kill(operation: str) -> None:
    raise Killed(operation)


def fail(operation: str) -> None:
    if operation == "sql":
        raise OperationalError("disk I/O error")
    if not operation.startswith(("sql", "rollback")):
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


@pytest.fixture(autouse=True)
def _fsync(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fsync(handle: int) -> None:
        WEATHER.meet("fsync")

    monkeypatch.setattr(os, "fsync", fsync)
    yield
    WEATHER.armed = False


class World:
    """A store with one published fileset, files for another, and what an onlooker sees of it."""

    def __init__(self, folder: Path) -> None:
        (folder / "work").mkdir(parents=True)
        self.folder = folder
        self.root = folder / "ds"
        self.old = self._files(folder / "work", {"results.fits": "table", "old.fits": "pstamp"}, "old")
        self.new = self._files(folder / "work", {"results.mdc": "text", "new.fits": "pstamp"}, "new")
        with self.writer() as store:
            create_tables(store.database, TABLES)
            store.add_product("results", "psresults", "Finished", ("req_id",))
            store.publish("results", "old", "PSRESULTS", self.old, ["90"])

    def copy(self, folder: Path) -> "World":
        other = copy(self)
        other.folder, other.root = folder, folder / "ds"
        shutil.copytree(self.root, other.root)
        shutil.copy(self.folder / "registry.db", folder)
        return other

    @staticmethod
    def _files(work: Path, names: dict[str, str], text: str) -> list[StoredFile]:
        for name in names:
            (work / name).write_text(f"{text} {name}")
        return [measure(work / name, kind) for name, kind in names.items()]

    def writer(self) -> "Writer":
        return Writer(self.root, self.folder / "registry.db")

    def files(self) -> dict[str, str]:
        """All files but the lock, times masked."""
        return {
            str(path.relative_to(self.root)): re.sub(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", "<time>", path.read_text())
            for path in self.root.rglob("*")
            if path.is_file() and path.name != ".lock"
        } | {str(path.relative_to(self.root)): "<folder>" for path in self.root.rglob("*") if path.is_dir()}

    def registry(self) -> list[tuple[Any, ...]]:
        """All rows but times and numbers."""
        with self.writer():
            filesets = dsFileset.select(
                dsProduct.prod_name, dsProduct.last_fs, dsFileset.fileset_name, dsFileset.type, dsFileset.prod_col_0
            ).join(dsProduct)
            files = dsFile.select(dsFileset.fileset_name, dsFile.file_name, dsFile.bytes, dsFile.md5sum, dsFile.type)
            return [
                *filesets.order_by(dsFileset.fileset_id).tuples(),
                *files.join(dsFileset).order_by(dsFile.file_id).tuples(),
            ]

    def state(self) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
        return self.files(), self.registry()

    def look(self) -> None:
        """Check what must hold at any moment of publishing: what is public is whole, and what is listed is public."""
        public = {path.name for path in (self.root / "results").iterdir() if not path.name.startswith(".")}
        for name in public - {"index.txt"}:
            whole(self.root / "results" / name)
        with self.writer() as store:
            registered = {row.fileset_name for row in dsFileset.select()}
            for name in registered:
                assert whole(self.root / "results" / name) == store.files("results", name)
        listed = {entry.name for entry in read_product_index((self.root / "results" / "index.txt").read_text())}
        assert {"old"} <= listed <= registered
        assert [entry.name for entry in read_root_index((self.root / "index.txt").read_text())] == ["results"]


def whole(path: Path) -> list[FileEntry]:
    """Return the files of a folder, which are those its index lists."""
    entries = read_fileset_index((path / "index.txt").read_text())
    found = {file.name: measure(file, "") for file in path.iterdir() if file.name != "index.txt"}
    assert {entry.name: (entry.bytes, entry.md5) for entry in entries} == {
        name: (file.bytes, file.md5) for name, file in found.items()
    }
    return entries


class Writer:
    """A data store on a connection of its own, which ends with it, as that of a process does."""

    def __init__(self, root: Path, database: Path) -> None:
        self.store = DataStore(root, Fragile(str(database), pragmas={"foreign_keys": 1, "synchronous": 0}))

    def __enter__(self) -> DataStore:
        self.session = session(self.store.database, TABLES)
        self.session.__enter__()
        return self.store

    def __exit__(self, *_: object) -> None:
        WEATHER.armed = False
        with closing(self.store.database.connection()):  # SQLite rolls back what is open
            self.session.__exit__(None, None, None)


def publish_new(store: DataStore, world: World) -> None:
    store.publish("results", "new", "PSRESULTS", world.new, ["91"])


def publish_same(store: DataStore, world: World) -> None:
    store.publish("results", "old", "PSRESULTS", world.old, ["90"])


def publish_other(store: DataStore, world: World) -> None:
    store.publish("results", "old", "PSRESULTS", world.new, ["90"])


def withdraw(store: DataStore, world: World) -> None:
    store.withdraw("results", "old")


def add_product(store: DataStore, world: World) -> None:
    store.add_product("further", "psresults", "Further", ("req_id",))


def register_copies(store: DataStore, world: World) -> None:
    register(store, world, "copy")


def register_links(store: DataStore, world: World) -> None:
    register(store, world, "link")


def register_there(store: DataStore, world: World) -> None:
    folder = store.folder("results", "new")
    if not folder.exists():
        armed, WEATHER.armed = WEATHER.armed, False
        shutil.copytree(world.new[0].path.parent, folder)
        WEATHER.armed = armed
    register(store, world, None)


def register(store: DataStore, world: World, place: Literal["copy", "link"] | None) -> None:
    """Register a fileset; who is told that it is there already has the indexes written that may lack it."""
    folder = world.new[0].path.parent if place else store.folder("results", "new")
    files = [replace(file, path=folder / file.name) for file in world.new]
    with telling("fileset results/new is registered already") as told:
        store.register("results", "new", "OBJECT", files, (), place)
    if told:
        store.rewrite_indexes()


@contextmanager
def telling(what: str) -> Iterator[list[str]]:
    """Give a list that has `what` afterwards, if that was said in a refusal."""
    told: list[str] = []
    try:
        yield told
    except UserError as refusal:
        told.append(str(refusal))
    assert told in ([], [what])


def withdraw_but_keep(store: DataStore, world: World) -> None:
    store.withdraw("results", "old", keep_files=True)


def remove_product(store: DataStore, world: World) -> None:
    """Remove the product; who is told that it is gone already removes what is left of it on disk by hand."""
    with telling("there is no product results in the data store (there are: none)") as told:
        store.remove_product("results")
    if told:
        store.rewrite_indexes()
        shutil.rmtree(store.root / "results", ignore_errors=True)


Action = Callable[[DataStore, World], None]
ACTIONS: list[Action] = [
    publish_new, publish_same, publish_other, withdraw, add_product, register_copies, register_links, register_there,
    withdraw_but_keep, remove_product,
]  # fmt: skip
NEW = (publish_new, register_copies, register_links)


def strikes(folder: Path, action: Action, blow: Callable[[str], None]) -> Iterator[tuple[World, BaseException | None]]:
    """Do `action` in ever new worlds, struck at its first, second, ... operation, until it is not struck any more."""
    template = World(folder / "template")
    for strike in count(1):
        world = template.copy(folder / str(strike))
        error: BaseException | None = None
        with world.writer() as store:
            WEATHER.arm(strike, blow)
            try:
                action(store, world)
            except (Killed, RetryableError) as caught:
                error = caught
            WEATHER.armed = False
        yield world, error
        if not WEATHER.struck:
            assert error is None
            assert strike > 10
            return


@pytest.fixture
def end(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """The state that the action ends in when nothing breaks."""
    world = World(tmp_path / "end")
    with world.writer() as store:
        request.getfixturevalue("action")(store, world)
    assert not [path for path in world.files() if path.endswith(".tmp")]
    return world.state()


@pytest.mark.parametrize("action", ACTIONS)
def test_a_writer_killed_anywhere_can_be_followed_by_another(tmp_path: Path, action: Action, end: object) -> None:
    for world, _ in strikes(tmp_path, action, kill):
        if action in NEW:
            world.look()
        with world.writer() as store:
            action(store, world)
        assert world.state() == end


@pytest.mark.parametrize("action", ACTIONS)
def test_what_fails_anywhere_leaves_nothing_half_done(tmp_path: Path, action: Action, end: object) -> None:
    failures = 0
    for world, error in strikes(tmp_path, action, fail):
        if isinstance(error, RetryableError):
            failures += 1
            assert error.fault == Fault.PS_EXIT_SYS_ERROR
            assert re.search(r": (No space left on device \(somewhere\)|disk I/O error)$", str(error))
        if action in (*NEW, publish_same):
            world.look()
        if action in NEW and len(world.registry()) == 3:  # the old fileset and its files
            assert not (world.root / "results" / "new").exists()
        with world.writer() as store:
            action(store, world)
        assert world.state() == end
    assert failures > 10


def test_a_disk_that_fills_up_under_a_copy_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    before = world.state()

    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:3])
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(shutil, "copy2", half)
    with world.writer() as store, pytest.raises(RetryableError) as refused:
        publish_new(store, world)
    assert refused.value.fault == Fault.PS_EXIT_SYS_ERROR
    assert re.fullmatch(
        rf"data store {world.root}: fileset results/new: No space left on device "
        rf"\({world.root}/results/\.new\.[0-9a-f]+\.tmp/results\.mdc\)",
        str(refused.value),
    )
    assert world.state() == before
