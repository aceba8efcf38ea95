"""Making components again: what is put into update, in which order, under which label, and what becomes of failures.

The numbers in the docstrings are those of update-processing.md: §8 lists the weaknesses, §8.1 the acceptance checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import mariadb
import pytest
from racing import SPAWN

from pstamp_core.database import connect
from pstamp_core.faults import LeaseLost, RetryableError, Stale, UserError
from pstamp_core.imagedb import Component, ImageDB, leases, updates
from pstamp_core.imagedb import tables as t
from pstamp_core.imagedb.components import MADE_AGAIN, STATES
from pstamp_core.imagedb.leases import claim, finish, give_back
from pstamp_core.imagedb.survey import Effort, Key, Policy, Survey
from pstamp_core.imagedb.updates import (
    KINDS,
    Waiter,
    Work,
    look,
    pending,
    restore_labels,
    set_destreaked,
    set_fault,
    set_full,
    survey_of,
)

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
POLICY = Policy(ceiling=3, backoff=lambda count: 10 * count * SECOND, cooldown=3600 * SECOND)
MAGIC = Policy(need_magic=True, ceiling=3, backoff=lambda count: 10 * count * SECOND, cooldown=3600 * SECOND)
ANA = Waiter(400, "ps_ud_ana")
CELL, CHIP = "skycell.1", "XY31"
CLEANED, FULL = ("cleaned", "cleaned"), ("full", "full")


class World:
    """An image database with as much in it as a test needs, and the time."""

    def __init__(self, db: ImageDB) -> None:
        self.db, self.now, self.policy = db, NOW, POLICY

    def put(self, table: Any, **columns: Any) -> None:
        table.insert(columns).execute()

    def chip(
        self, chip_id: int, state: tuple[str, str] = CLEANED, *names: str, magicked: int = 0, raw: int = 0, **row: Any
    ) -> Key:
        """A run of chips that are alike (one, if none is named), with its exposure and camera run."""
        names = names or (CHIP,)
        self.put(t.rawExp, exp_id=chip_id, exp_name=f"o{chip_id}", magicked=raw)
        self.put(t.chipRun, chip_id=chip_id, exp_id=chip_id, state=state[0], label="own", magicked=magicked)
        for name in names:
            self.put(t.rawImfile, exp_id=chip_id, class_id=name, magicked=raw)
            self.put(t.chipProcessedImfile, chip_id=chip_id, exp_id=chip_id, class_id=name, data_state=state[1],
                     magicked=magicked, **row)  # fmt: skip
        self.put(t.camRun, cam_id=chip_id, chip_id=chip_id, state="full")
        self.put(t.camProcessedExp, cam_id=chip_id)
        self.put(t.fakeRun, fake_id=chip_id, cam_id=chip_id)
        return "chip", chip_id, names[0]

    def warp(
        self, warp_id: int, state: tuple[str, str] = CLEANED, *chips: str, of: int = 0, cell: str = CELL, **row: Any
    ) -> Key:
        """A warp of the chips of run `of` (its own number, if not said)."""
        if not t.warpRun.get_or_none(t.warpRun.warp_id == warp_id):
            self.put(t.warpRun, warp_id=warp_id, fake_id=of or warp_id, state=state[0], label="own")
        self.put(t.warpSkyfile, warp_id=warp_id, skycell_id=cell, tess_id="T", data_state=state[1], **row)
        for chip in chips or (CHIP,):
            self.put(t.warpSkyCellMap, warp_id=warp_id, skycell_id=cell, tess_id="T", class_id=chip)
        return "warp", warp_id, cell

    def stack(self, stack_id: int, state: str = "full", **row: Any) -> Key:
        self.put(t.stackRun, stack_id=stack_id, state=state, skycell_id=CELL, tess_id="T")
        self.put(t.stackSumSkyfile, stack_id=stack_id, **row)
        return "stack", stack_id, CELL

    def diff(self, diff_id: int, state: tuple[str, str] = CLEANED, mode: int = 1, **inputs: int) -> Key:
        self.put(t.diffRun, diff_id=diff_id, state=state[0], label="own", diff_mode=mode)
        self.put(t.diffSkyfile, diff_id=diff_id, skycell_id=CELL, data_state=state[1])
        self.put(t.diffInputSkyfile, diff_id=diff_id, skycell_id=CELL, tess_id="T", **inputs)
        return "diff", diff_id, CELL

    def destreak(self, chip_id: int, state: str = "cleaned", file: str | None = "cleaned", **row: Any) -> None:
        """A destreak run for one chip of a run."""
        self.put(t.magicDSRun, magic_ds_id=chip_id + 500, stage="chip", stage_id=chip_id, state=state, label="magic")
        if file:
            self.put(t.magicDSFile, magic_ds_id=chip_id + 500, component=CHIP, data_state=file, **row)

    def whole_diff(self) -> Key:
        """A difference of two warps, each of two chips; all of it cleaned."""
        for number in (11, 21):
            self.chip(number, CLEANED, "XY31", "XY32")
            self.warp(number, CLEANED, "XY31", "XY32")
        return self.diff(1, warp1=11, warp2=21)

    def set(self, key: Key, run: str | None = None, **columns: Any) -> None:
        """Change a component, and the state of its run."""
        made = updates.WORK_TABLES[key[0]]
        if columns:
            assert made.file.update(columns).where(made.is_one_of([key])).execute() == 1
        if run:
            assert made.run.update(state=run).where(made.run_key == key[1]).execute() == 1

    def state(self, key: Key) -> tuple[str, str, int]:
        made = updates.WORK_TABLES[key[0]]
        row = made.file.get(made.is_one_of([key]))
        return self.run(key).state, row.data_state, row.fault

    def run(self, key: Key) -> Any:
        made = updates.WORK_TABLES[key[0]]
        return made.run.get(made.run_key == key[1])

    def effort(self, key: Key) -> Effort:
        return updates._effort(key)

    def look(self, *wanted: Key, waiter: Waiter = ANA) -> Survey:
        return look(self.db, dict.fromkeys(wanted, waiter), self.policy, self.now)

    def says(self, key: Key) -> tuple[Component, str]:
        """Look at a component; return the verdict."""
        verdict = self.look(key).verdict(key)
        return verdict.component, verdict.reason

    def pending(self) -> list[Key]:
        return [work.key for work in pending(self.db, self.policy, 1000, self.now)]

    def process(
        self, make: Callable[[Key], int] = lambda _: 0, *, destreak: Callable[[Key], int] = lambda _: 0
    ) -> list[Work]:
        """Do all that is pending, as an update server does; `make` and `destreak` give the code in which each ends."""
        done = pending(self.db, self.policy, 1000, self.now)
        for work in done:
            fault = (destreak if work.destreak else make)(work.key)
            if fault:
                assert set_fault(self.db, work.key, fault, self.policy, self.now, destreak=work.destreak)
            elif work.destreak:
                assert set_destreaked(self.db, work.key, self.now)
            else:
                assert set_full(self.db, work.key, self.now)
        return done

    def all_rows(self) -> dict[str, list[Any]]:
        return {table.__name__: sorted(map(str, table.select().tuples())) for table in t.TABLES}

    def forward(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@pytest.fixture(scope="module")
def mysql(mysql_server: str) -> Iterator[str]:
    with mariadb.database(mysql_server) as address:
        yield address


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image database of SQLite without rows."""
    path = tmp_path_factory.mktemp("empty") / "images.db"
    ImageDB(str(path)).create()
    return path.read_bytes()


@pytest.fixture
def lite_address(empty: bytes, tmp_path: Path) -> str:
    (tmp_path / "images.db").write_bytes(empty)
    return str(tmp_path / "images.db")


@pytest.fixture(scope="module")
def mysql_images(mysql: str) -> str:
    ImageDB(mysql).create()
    return mysql


@pytest.fixture
def address(engine: str, request: pytest.FixtureRequest) -> str:
    if engine == "sqlite":
        return str(request.getfixturevalue("lite_address"))
    db = ImageDB(request.getfixturevalue("mysql_images"))
    with db.session(), db.db.atomic():
        for table in t.TABLES:
            table.delete().execute()
    return str(request.getfixturevalue("mysql_images"))


@pytest.fixture
def world(address: str) -> Iterator[World]:
    db = ImageDB(address)
    with db.session():
        yield World(db)


@pytest.fixture
def statements(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements of the test, as they are executed."""
    said: list[str] = []
    execute = world.db.db.execute_sql

    def listening(sql: str, *args: Any, **kwargs: Any) -> Any:
        said.append(sql)
        return execute(sql, *args, **kwargs)

    monkeypatch.setattr(world.db.db, "execute_sql", listening)
    return said


# -- the chain -------------------------------------------------------------------------------------------------------


def test_a_difference_is_made_again_from_the_chips_on(world: World) -> None:
    """§8.1 check 2: chips of both warps, then both warps, then the diff, each once."""
    diff = world.whole_diff()
    chips = [("chip", number, name) for number in (11, 21) for name in ("XY31", "XY32")]
    warps = [("warp", number, CELL) for number in (11, 21)]
    assert world.says(diff) == (
        Component.WAITING,
        "waits for its warp: waits for its chip: cleaned, must be made again",
    )
    assert world.pending() == chips
    assert [world.state(key) for key in (*chips, *warps, diff)] == [("update", "update", 0)] * 4 + [(*CLEANED, 0)] * 3
    assert world.says(diff)[1] == "waits for its warp: waits for its chip: being made again"
    assert [work.key for work in world.process()] == chips
    assert world.pending() == []
    assert world.says(diff) == (Component.WAITING, "waits for its warp: cleaned, must be made again")
    assert [work.key for work in world.process()] == warps
    assert world.says(diff) == (Component.QUEUE, "cleaned, must be made again")
    assert world.says(diff) == (Component.IN_PROGRESS, "being made again")
    assert [work.key for work in world.process()] == [diff]
    assert world.says(diff)[0] is Component.USABLE
    assert {world.state(key) for key in (*chips, *warps, diff)} == {("full", "full", 0)}
    assert {world.run(key).label for key in (*chips, *warps, diff)} == {"own"}


@pytest.mark.parametrize("times", [1, 2])
def test_looking_again_changes_nothing(world: World, times: int) -> None:
    """§8.1 check 10: a checker killed after it queued finds the same decision harmless."""
    diff = world.whole_diff()
    world.look(diff)
    rows = world.all_rows()
    for _ in range(times):
        world.forward(1)
        world.look(diff)
    assert world.all_rows() == rows


def test_a_component_of_many_differences_is_queued_once(world: World) -> None:
    world.chip(11)
    world.warp(11)
    diffs = []
    for number in (1, 2, 3):
        world.stack(number)
        diffs.append(world.diff(number, mode=2, warp1=11, stack2=number))
    world.look(*diffs)
    assert t.pstampUpdate.select().count() == 1
    world.process()
    world.look(*diffs)
    world.process()
    assert [each.component for each in map(world.look(*diffs).verdict, diffs)] == [Component.QUEUE] * 3
    assert len(world.process()) == 3
    assert {world.effort(key).attempts for key in diffs} == {0}


@pytest.mark.parametrize("state", [("keep", "cleaned"), ("update", "goto_cleaned")])
def test_nothing_is_made_for_what_can_not_be_made_now(world: World, state: tuple[str, str]) -> None:
    """Else an input that fails would be tried after each cool-down, as long as the operator holds it."""
    chip, warp = world.chip(11), world.warp(11, state)
    assert world.says(warp)[0] is Component.WAITING
    assert world.state(chip) == (*CLEANED, 0)
    world.set(warp, "cleaned", data_state="cleaned")
    world.look(warp)
    assert world.state(chip) == ("update", "update", 0)


def test_a_warp_leaves_out_bad_chips(world: World) -> None:
    """§8.1 check 3."""
    world.chip(11, FULL, "XY31", "XY32", "XY33")
    warp = world.warp(11, CLEANED, "XY31", "XY32", "XY33")
    world.set(("chip", 11, "XY31"), quality=8006, data_state="cleaned")
    t.chipProcessedImfile.delete().where(t.chipProcessedImfile.class_id == "XY32").execute()
    assert world.says(warp)[0] is Component.QUEUE
    assert world.state(("chip", 11, "XY31"))[1] == "cleaned"
    world.set(("chip", 11, "XY33"), quality=1)
    assert world.says(warp) == (Component.GONE, "can't be made again, no good chip lies under it")


@pytest.mark.parametrize(
    ("camera", "product", "wanted", "reason"),
    [
        ("full", {}, "QUEUE", "cleaned, must be made again"),
        ("full", {"fault": 3}, "NOT_NOW",
         "can't be made again without its camera: it has fault 3; an operator must look"),
        ("full", {"quality": 7}, "GONE",
         "can't be made again without its camera: of bad quality (7); such images are not used"),
        ("cleaned", {}, "GONE",
         "can't be made again without its camera: state cleaned; camera products are not made again"),
        ("new", {}, "WAITING", "waits for its camera: its first processing is not done"),
        ("update", {}, "WAITING", "waits for its camera: being made again"),
        (None, {}, "NOT_NOW",
         "can't be made again without its camera: not in the image database; an operator must look"),
    ],
)  # fmt: skip
def test_a_warp_needs_its_camera_product(
    world: World, camera: str | None, product: dict[str, int], wanted: str, reason: str
) -> None:
    """§8 points 3 and 23."""
    world.chip(11, FULL)
    warp = world.warp(11)
    if camera:
        t.camRun.update(state=camera).execute()
        t.camProcessedExp.update(product or {"fault": 0}).execute()
    else:
        t.camRun.delete().execute()
    assert world.says(warp) == (Component[wanted], reason)
    assert world.state(warp)[1] == ("update" if wanted == "QUEUE" else "cleaned")


@pytest.mark.parametrize("state", ["cleaned", "purged", "new", "goto_cleaned"])
@pytest.mark.parametrize(
    ("mode", "names"), [(2, ("warp1", "stack2")), (3, ("stack1", "warp2")), (4, ("stack1", "stack2"))]
)
def test_a_difference_without_its_stack(world: World, state: str, mode: int, names: tuple[str, str]) -> None:
    """§8.1 check 12: final at once, and nothing is queued for it."""
    for number in (11, 12):
        world.chip(number)
        world.warp(number)
        world.stack(number, state)
    diff = world.diff(1, mode=mode, **dict(zip(names, (11, 12), strict=True)))
    rows = world.all_rows()
    verdict = world.look(diff).verdict(diff)
    assert verdict.fault == 26
    assert verdict.reason.startswith("can't be made again without its stack: ")
    assert world.all_rows() == rows


@pytest.mark.parametrize(
    ("stage", "columns", "fault", "cause"),
    [("warp", {"fault": 3}, 25, 3), ("warp", {"quality": 1}, 26, 0), ("stack", {"fault": 3}, 25, 3),
     ("stack", {"quality": 1}, 26, 0)],
)  # fmt: skip
def test_inputs_that_are_full_but_not_ready(
    world: World, stage: str, columns: dict[str, int], fault: int, cause: int
) -> None:
    """§8 point 23: the update server would never take such a difference, so that it does not wait for it."""
    world.chip(11)
    world.warp(11, FULL)
    world.stack(1)
    diff = world.diff(1, mode=2, warp1=11, stack2=1)
    table = t.warpSkyfile if stage == "warp" else t.stackSumSkyfile
    table.update(columns).execute()
    verdict = world.look(diff).verdict(diff)
    assert (verdict.fault, verdict.cause) == (fault, cause)
    assert world.state(diff)[1] == "cleaned"


def test_what_is_not_in_the_database(world: World) -> None:
    """Only a positive finding is final: an input that is not known is one for the operators, and the code is 25."""
    survey = world.look(("warp", 99, CELL), ("foo", 1, "x"), ("chip", 1, ""))
    assert survey.parts == {}
    assert survey.verdict(("warp", 99, CELL)).reason == "not in the image database; an operator must look"
    diff = world.diff(1, warp1=98, warp2=99)
    assert world.says(diff) == (
        Component.NOT_NOW, "can't be made again without its warp: not in the image database; an operator must look"
    )  # fmt: skip
    t.diffInputSkyfile.delete().execute()
    assert world.says(diff) == (
        Component.NOT_NOW,
        "can't be made again, the image database does not say of what; an operator must look",
    )


def test_numbers_that_mean_none(world: World) -> None:
    world.stack(1)
    world.stack(2)
    diff = world.diff(1, mode=4, warp1=0, warp2=2**63 - 1, stack1=1, stack2=2)
    assert world.says(diff)[0] is Component.QUEUE


def test_a_warp_whose_chip_is_lost(world: World) -> None:
    """§8 points 4, 14: a chip says the same whoever asks, and so does a fault of it."""
    warp = (world.chip(11), world.warp(11))[1]
    for columns, run in (({"fault": 26}, None), ({"fault": 0, "data_state": "purged"}, None), ({}, "drop")):
        world.set(("chip", 11, CHIP), run, **columns)
        assert world.look(warp).verdict(warp).fault == world.look(("chip", 11, CHIP)).verdict(("chip", 11, CHIP)).fault
        assert world.look(warp).verdict(warp).fault == 26


@pytest.mark.parametrize("state", ["purged", "scrubbed", "drop", "goto_purged", "goto_scrubbed", "error_purged"])
def test_what_is_deleted_while_it_is_waited_for(world: World, state: str) -> None:
    """§8.1 check 9: at the next look, for the component and all that would be made of it."""
    diff = world.whole_diff()
    world.look(diff)
    world.set(("chip", 21, "XY32"), data_state=state)
    for key in (("chip", 21, "XY32"), ("warp", 21, CELL), diff):
        assert world.look(key).verdict(key).fault == 26
    assert world.look(("warp", 11, CELL)).verdict(("warp", 11, CELL)).waits


# -- runs that are to be cleaned -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", MADE_AGAIN)
def test_what_is_about_to_be_cleaned_is_kept(world: World, stage: str) -> None:
    """§8.1 check 4, §8 point 17: back to update, usable at the next look, nothing deleted."""
    world.chip(11, FULL)
    world.warp(11, FULL)
    world.diff(1, FULL, warp1=11)
    key = (stage, 1 if stage == "diff" else 11, CHIP if stage == "chip" else CELL)
    world.set(key, "goto_cleaned")
    assert world.says(key) == (Component.QUEUE, "about to be cleaned; to be kept")
    assert world.state(key) == ("update", "full", 0)
    assert world.run(key).label == "ps_ud_ana"
    assert world.says(key)[0] is Component.USABLE


def test_nothing_is_made_for_what_is_there(world: World) -> None:
    chip, warp = world.chip(11), world.warp(11, ("goto_cleaned", "full"))
    world.look(warp)
    assert (world.state(chip), world.state(warp)) == ((*CLEANED, 0), ("update", "full", 0))


def test_inputs_that_are_about_to_be_cleaned_are_kept(world: World) -> None:
    """§8 point 17: a full chip in a run that is to be cleaned is not ready."""
    chip, warp = world.chip(11, ("goto_cleaned", "full")), world.warp(11)
    assert world.says(warp) == (Component.WAITING, "waits for its chip: about to be cleaned; to be kept")
    assert world.state(chip) == ("update", "full", 0)
    assert world.says(warp)[0] is Component.QUEUE


def test_what_is_being_cleaned_is_made_again_after_that(world: World) -> None:
    chip = world.chip(11, ("goto_cleaned", "goto_cleaned"))
    assert world.says(chip)[0] is Component.WAITING
    assert world.state(chip) == ("goto_cleaned", "goto_cleaned", 0)
    world.set(chip, data_state="cleaned")
    world.look(chip)
    assert world.state(chip) == ("update", "cleaned", 0)
    world.look(chip)
    assert world.state(chip) == ("update", "update", 0)


@pytest.mark.parametrize("state", ["goto_cleaned", "goto_purged", "purged", "drop", "wait"])
@pytest.mark.parametrize("stage", MADE_AGAIN)
def test_a_result_that_comes_too_late(world: World, stage: str, state: str) -> None:
    """§8 points 15, 20: nothing turns a run back that was sent away meanwhile, neither a success nor a failure."""
    world.chip(11, ("update", "update"))
    world.warp(11, ("update", "update"))
    world.diff(1, ("update", "update"), warp1=11)
    key = (stage, 1 if stage == "diff" else 11, CHIP if stage == "chip" else CELL)
    world.set(key, state)
    rows = world.all_rows()
    assert not set_full(world.db, key, world.now)
    assert not set_fault(world.db, key, 2, world.policy, world.now)
    assert world.all_rows() == rows
    world.set(key, "update", data_state=state)
    rows = world.all_rows()
    assert not set_full(world.db, key, world.now)
    assert not set_fault(world.db, key, 2, world.policy, world.now)
    assert world.all_rows() == rows


def test_a_run_is_full_when_all_its_good_components_are(world: World) -> None:
    one = world.chip(11, CLEANED, "XY31", "XY32", "XY33")
    two, bad = ("chip", 11, "XY32"), ("chip", 11, "XY33")
    world.set(bad, quality=1)
    t.chipRun.update(update_mode=1).execute()
    world.look(one)
    assert world.run(one).update_mode == 0
    t.chipRun.update(update_mode=1).execute()
    world.process()
    assert (world.state(one), world.state(two)) == (("update", "full", 0), ("update", "cleaned", 0))
    assert (world.run(one).label, world.run(one).update_mode) == ("ps_ud_ana", 1)
    assert world.says(one)[0] is Component.USABLE
    world.look(two)
    assert world.run(one).update_mode == 1  # somebody is at work on it
    world.process()
    assert (world.state(one), world.state(bad)) == (("full", "full", 0), ("full", "cleaned", 0))
    assert (world.run(one).label, world.run(one).update_mode) == ("own", 0)
    assert not t.pstampRunLabel.select().exists()


def test_a_chip_that_is_not_full_in_a_run_that_says_so(world: World) -> None:
    """§8 point 1."""
    chip = world.chip(11, ("full", "cleaned"))
    world.look(chip)
    assert world.state(chip) == ("update", "update", 0)
    warp = world.warp(11, ("full", "cleaned"))
    assert world.says(warp) == (Component.NOT_NOW, "cleaned although its run says full; an operator must look")


@pytest.mark.parametrize("states", [("cleaned", "update"), ("update", "cleaned"), ("update", "update")])
def test_half_of_it_in_update(world: World, states: tuple[str, str]) -> None:
    """The known limbo (C4, W9) ends, and a leftover fault of what was cleaned counts for nothing (§8 point 24)."""
    fault = 0 if states == ("update", "update") else 3
    chip = world.chip(11, states, fault=fault)
    world.look(chip)
    assert world.state(chip) == ("update", "update", 0)
    assert world.effort(chip).attempts == 0


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["us", "others"])
def test_two_failures_then_success(world: World, by: str) -> None:
    """§8.1 check 5; §8 points 8, 9, 10: each failure counts once, however often it is seen, and whatever the code."""
    chip = world.chip(11)
    for count, fault in ((1, 2), (2, 4)):
        world.look(chip)
        if by == "us":
            world.process(lambda _, fault=fault: fault)
        else:
            world.set(chip, fault=fault)
        for _ in range(5):
            assert world.says(chip)[0] is Component.WAITING
        assert world.effort(chip).attempts == count
        assert world.effort(chip).cause == fault
        assert world.state(chip) == ("update", "update", fault)
        assert world.pending() == []
        world.forward(10 * count - 1)
        assert world.says(chip)[0] is Component.WAITING
        world.forward(1)
        assert world.says(chip)[0] is Component.QUEUE
        assert world.state(chip) == ("update", "update", 0)
    assert world.says(chip)[0] is Component.IN_PROGRESS
    if by == "us":
        world.process()
    else:
        world.set(chip, "full", data_state="full")
    assert world.says(chip)[0] is Component.USABLE
    effort = world.effort(chip)
    assert (effort.attempts, effort.cause, effort.made_at) == (2, 4, world.now)
    world.set(chip, "cleaned", data_state="cleaned")
    world.look(chip)
    assert world.effort(chip) == Effort(queued_at=world.now)


def test_three_failures(world: World) -> None:
    """§8.1 check 6; §8 points 11, 12: 25 with the cause; after the cool-down it has all its tries again."""
    diff = world.whole_diff()
    chip = ("chip", 21, "XY32")
    for _ in range(3):
        world.forward(100)
        world.look(diff)
        world.process(lambda key: 2 if key == chip else 0)
    failed = "3 tries to make it failed, the last with fault 2: A disk, network or system call failed; "
    failed += "given up for now, a later request has it tried again"
    without = "can't be made again without its"
    for key, where in ((chip, ""), (("warp", 21, CELL), f"{without} chip: "),
                       (diff, f"{without} warp: {without} chip: ")):  # fmt: skip
        verdict = world.look(key).verdict(key)
        assert (verdict.fault, verdict.cause, verdict.reason) == (25, 2, where + failed)
    world.forward(3599)
    assert world.look(diff).verdict(diff).fault == 25
    assert world.state(chip) == ("update", "update", 2)
    world.forward(1)
    assert world.look(diff).verdict(diff).waits
    assert world.state(chip) == ("update", "update", 0)
    assert world.effort(chip) == Effort(queued_at=world.now)
    world.process()
    world.look(diff)
    assert ("warp", 21, CELL) in world.pending()


def test_a_fault_that_others_clear(world: World) -> None:
    """IPP's own revert tasks may be quicker than the back-off."""
    chip = world.chip(11)
    world.look(chip)
    for count in (1, 2, 3):
        world.set(chip, fault=2)
        world.look(chip)
        assert world.effort(chip).attempts == count
        world.set(chip, fault=0)
        world.look(chip)
    assert world.look(chip).verdict(chip).fault == 25
    cooled = world.effort(chip).retry_at
    for _ in range(2):  # what others try meanwhile does not count
        world.set(chip, fault=3)
        world.look(chip)
        world.set(chip, fault=0)
        world.look(chip)
    assert (world.effort(chip).attempts, world.effort(chip).retry_at) == (3, cooled)
    world.forward(3600)
    assert world.says(chip)[0] is Component.IN_PROGRESS
    world.set(chip, fault=2)
    assert world.says(chip)[0] is Component.WAITING
    assert world.effort(chip).attempts == 1


def test_one_that_vanishes_again_and_again(world: World) -> None:
    chip = world.chip(11)
    seen = []
    for _ in range(8):
        world.forward(100)
        seen.append(world.look(chip).verdict(chip))
        world.set(chip, "cleaned", data_state="cleaned")
    assert [verdict.component.name for verdict in seen] == ["QUEUE"] * 3 + ["NOT_NOW"] * 5
    assert seen[-1].cause == 6
    world.forward(3600)
    assert world.look(chip).verdict(chip).component is Component.QUEUE


def test_one_that_was_made_and_cleaned_while_nobody_looked_starts_anew(world: World) -> None:
    chip = world.chip(11)
    for _ in range(5):
        world.look(chip)
        world.process()
        world.set(chip, "cleaned", data_state="cleaned")
    assert world.effort(chip).attempts == 0


def test_fault_26_while_it_is_made(world: World) -> None:
    chip = world.chip(11)
    world.look(chip)
    world.process(lambda _: 26)
    assert world.says(chip) == (Component.GONE, "deleted for good (fault 26)")
    assert world.effort(chip).attempts == 0


def test_a_result_after_a_failure_was_stored(world: World) -> None:
    """Of one who took too long, so that somebody else had it tried: neither is true any more."""
    chip = world.chip(11)
    world.look(chip)
    assert set_fault(world.db, chip, 2, world.policy, world.now)
    assert not set_full(world.db, chip, world.now)
    assert not set_fault(world.db, chip, 6, world.policy, world.now)
    assert (world.state(chip), world.effort(chip).attempts) == (("update", "update", 2), 1)


def test_codes_that_are_none(world: World) -> None:
    chip = world.chip(11, ("update", "update"))
    for fault in (0, -1):
        with pytest.raises(UserError, match=f"chip 11 XY31: fault {fault}; expected a positive code"):
            set_fault(world.db, chip, fault, world.policy, world.now)
    for each in (set_full, set_destreaked):
        with pytest.raises(UserError, match="stack 1 x: only chip, warp, diff are made again"):
            each(world.db, ("stack", 1, "x"), world.now)


# -- guards ----------------------------------------------------------------------------------------------------------


CHANGES: dict[str, Callable[[World, Key], None]] = {
    "component": lambda world, key: world.set(key, data_state="purged"),
    "fault": lambda world, key: world.set(key, fault=26),
    "quality": lambda world, key: world.set(key, quality=1),
    "run": lambda world, key: world.set(key, "drop"),
    "made": lambda world, key: world.set(key, "full", data_state="full"),
    "cleaned": lambda world, key: world.set(key, "goto_cleaned"),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("stage", MADE_AGAIN)
def test_what_changes_between_look_and_order(
    world: World, stage: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """§8 points 1, 2: an order that meets something else is not carried out; it is looked at again, and explained."""
    world.chip(11, CLEANED if stage == "chip" else FULL)
    world.warp(11, CLEANED if stage == "warp" else FULL)
    world.diff(1, CLEANED, warp1=11)
    key = (stage, 1 if stage == "diff" else 11, CHIP if stage == "chip" else CELL)
    read, changed = updates.read_survey, []

    def and_then_somebody_else(*args: Any, **kwargs: Any) -> Survey:
        found = read(*args, **kwargs)
        if not changed:
            changed.append(found)
            # as if committed by somebody else: the rollback of our own unit of work would undo it
            monkeypatch.setattr(updates, "_store_efforts", lambda _: pytest.fail("the order was carried out"))
            CHANGES[what](world, key)
        return found

    monkeypatch.setattr(updates, "read_survey", and_then_somebody_else)
    with pytest.raises(Stale, match=f"{stage} .* changed by somebody else while it was to be put into update"):
        world.db.db.atomic()(lambda: world.look(key))()


def test_an_order_that_meets_something_else_is_decided_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    chip = world.chip(11)
    read, first = updates.read_survey, []

    def stale_once(*args: Any, **kwargs: Any) -> Survey:
        found = read(*args, **kwargs)
        if not first:
            first.append(found)
            found.parts[chip].row["fault"] = 5  # as it was a moment ago
        return found

    monkeypatch.setattr(updates, "read_survey", stale_once)
    assert world.says(chip)[0] is Component.QUEUE
    assert world.state(chip) == ("update", "update", 0)


def test_only_the_components_that_are_meant(world: World) -> None:
    """Not all chips of these names in these runs."""
    for number in (11, 12, 13):
        world.chip(number, CLEANED, "XY31", "XY32")
    world.look(("chip", 11, "XY31"), ("chip", 12, "XY32"), ("chip", 13, "XY31"))
    chips = t.chipProcessedImfile
    queued: Any = chips.select(chips.chip_id, chips.class_id).where(chips.data_state == "update").tuples()
    assert sorted(queued) == [(11, "XY31"), (12, "XY32"), (13, "XY31")]


def check(address: str, wanted: list[Key], ready: Any, found: Any) -> None:
    """What each of two checkers does, a process of its own."""
    db = ImageDB(address)
    ready.wait()
    for _ in range(5):
        survey = look(db, dict.fromkeys(wanted, ANA), POLICY, NOW)
        found.put({survey.verdict(key).component.name for key in wanted})


def test_two_checkers_at_once(world: World, address: str) -> None:
    """Nobody fails, and what both want is queued once."""
    diff, keys = world.whole_diff(), [world.chip(number) for number in range(100, 140)]
    ready, found = SPAWN.Barrier(2), SPAWN.Queue()
    checkers = [SPAWN.Process(target=check, args=(address, [diff, *keys], ready, found)) for _ in range(2)]
    for checker in checkers:
        checker.start()
    seen = [found.get(timeout=60) for _ in range(10)]
    for checker in checkers:
        checker.join()
        assert checker.exitcode == 0
    assert set.union(*seen) <= {"WAITING", "QUEUE", "IN_PROGRESS"}
    assert seen.count({"WAITING", "QUEUE"}) == 1
    assert {row.attempts for row in t.pstampUpdate.select()} == {0}
    assert t.pstampUpdate.select().count() == 44
    assert [row.label for row in t.pstampRunLabel.select()] == ["own"] * 42
    assert {row.label for row in t.chipRun.select()} == {"ps_ud_ana"}


# -- labels ----------------------------------------------------------------------------------------------------------


def test_the_most_urgent_of_those_who_wait(world: World) -> None:
    """§8.1 check 8; §8 points 5, 6: one regeneration under the highest priority; the run's own label comes back."""
    world.chip(11)
    world.warp(11)
    diffs = []
    for number in (1, 2):
        world.stack(number)
        diffs.append(world.diff(number, mode=2, warp1=11, stack2=number))
    chip = ("chip", 11, CHIP)
    low, high, top = Waiter(100, "ps_ud_low"), Waiter(500, "ps_ud_high"), Waiter(900, "ps_ud_top")
    look(world.db, {diffs[0]: low, diffs[1]: high}, POLICY, NOW)
    assert world.run(chip).label == "ps_ud_high"
    look(world.db, {diffs[0]: low}, POLICY, NOW)
    assert world.run(chip).label == "ps_ud_high"
    look(world.db, {diffs[0]: top}, POLICY, NOW)
    assert world.run(chip).label == "ps_ud_top"
    look(world.db, {diffs[1]: high}, POLICY, NOW)
    assert world.run(chip).label == "ps_ud_top"
    world.process()
    assert world.run(chip).label == "own"
    assert not t.pstampRunLabel.select().exists()


def test_two_equally_urgent(world: World) -> None:
    one, two = world.chip(11, CLEANED, "XY31", "XY32"), ("chip", 11, "XY32")
    for _ in range(2):
        look(world.db, {one: Waiter(1, "ps_ud_a"), two: Waiter(1, "ps_ud_b")}, POLICY, NOW)
        assert world.run(one).label == "ps_ud_b"
    look(world.db, {one: Waiter(1, "ps_ud_c")}, POLICY, NOW)
    assert world.run(one).label == "ps_ud_b"


def test_a_label_that_another_checker_has_remembered_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two want different components of one run: the first to come knows the run's own label."""
    world.look(world.chip(11, CLEANED, "XY31", "XY32"))
    read = updates.read_survey

    def a_moment_ago(*args: Any, **kwargs: Any) -> Survey:
        found = read(*args, **kwargs)
        found.labels.clear()
        return found

    monkeypatch.setattr(updates, "read_survey", a_moment_ago)
    world.look(("chip", 11, "XY32"))
    assert [row.label for row in t.pstampRunLabel.select()] == ["own"]


def test_what_others_put_into_update_keeps_its_label(world: World) -> None:
    chip = world.chip(11, ("update", "update"))
    world.look(chip)
    assert world.run(chip).label == "own"
    other = world.chip(12, ("update", "update"), "XY31", "XY32")
    world.set(("chip", 12, "XY32"), data_state="cleaned")
    world.look(other, ("chip", 12, "XY32"))
    assert world.run(other).label == "ps_ud_ana"


@pytest.mark.parametrize("state", ["full", "cleaned", "purged"])
@pytest.mark.parametrize("by", ["look", "restore"])
def test_a_run_that_others_finish_gets_its_label_back(world: World, state: str, by: str) -> None:
    chip, other = world.chip(11), world.chip(12)
    t.chipRun.update(label=None).where(t.chipRun.chip_id == 12).execute()
    world.look(chip, other)
    for each in (chip, other):
        world.set(each, state, data_state=state)
    if by == "look":
        world.look()
    else:
        restore_labels(world.db)
    assert [world.run(each).label for each in (chip, other)] == ["own", None]
    assert not t.pstampRunLabel.select().exists()


def test_a_label_stays_while_somebody_is_at_work(world: World) -> None:
    chip = world.chip(11)
    world.look(chip)
    for state in ("update", "goto_cleaned"):
        world.set(chip, state)
        restore_labels(world.db)
        assert world.run(chip).label == "ps_ud_ana"


# -- destreaking -----------------------------------------------------------------------------------------------------


@pytest.fixture
def magic(world: World) -> World:
    world.policy = MAGIC
    return world


def test_a_cleaned_chip_that_needs_destreaking(magic: World) -> None:
    """The operators' page: chipRun goes to update and full, the destreak run to new; then the chip may be shown."""
    chip = magic.chip(11, magicked=-1)
    magic.destreak(11)
    assert magic.says(chip) == (Component.QUEUE, "cleaned, must be made again")
    assert magic.run(chip).state == "update"
    assert t.magicDSRun.get().state == "cleaned"
    assert magic.process() == [Work(chip)]
    assert magic.state(chip) == ("full", "full", 0)
    assert magic.says(chip) == (Component.QUEUE, "has to be destreaked")
    run, file = t.magicDSRun.get(), t.magicDSFile.get()
    assert (run.state, run.label, file.data_state) == ("new", "ps_ud_ana", "update")
    assert magic.says(chip) == (Component.IN_PROGRESS, "being destreaked")
    assert magic.process() == [Work(chip, destreak=True)]
    assert magic.says(chip)[0] is Component.USABLE
    run, file = t.magicDSRun.get(), t.magicDSFile.get()
    assert (run.state, run.label, file.data_state) == ("full", "magic", "full")
    assert (t.chipProcessedImfile.get().magicked, t.chipRun.get().magicked) == (511, 511)


def test_without_need_magic_nobody_asks_for_streaks(world: World) -> None:
    chip = world.chip(11, magicked=-1)
    world.look(chip)
    world.process()
    assert world.says(chip)[0] is Component.USABLE
    assert t.chipProcessedImfile.get().magicked == -1


@pytest.mark.parametrize("data_state", ["cleaned", "full"])
@pytest.mark.parametrize("magicked", [0, -1])
def test_a_chip_that_was_never_destreaked(magic: World, data_state: str, magicked: int) -> None:
    chip = magic.chip(11, (data_state, data_state), magicked=magicked)
    rows = magic.all_rows()
    for run in ({"state": "drop"}, {"re_place": False}, {"stage": "warp"}):
        verdict = magic.look(chip).verdict(chip)
        assert (verdict.fault, verdict.reason) == (24, "never destreaked")
        assert magic.all_rows() == rows
        t.magicDSRun.delete().execute()
        t.magicDSRun.insert({"stage": "chip", "stage_id": 11, "state": "cleaned"} | run).execute()
        rows = magic.all_rows()


def test_a_chip_of_a_destreaked_raw_image(magic: World) -> None:
    """What is made of an image without streaks has none: no destreaking is needed."""
    chip = magic.chip(11, magicked=-1, raw=7)
    magic.look(chip)
    magic.process()
    assert magic.says(chip)[0] is Component.USABLE
    assert t.chipProcessedImfile.get().magicked == 7


def test_warp_and_difference_wait_for_destreaked_chips(magic: World) -> None:
    chip, warp = magic.chip(11, magicked=-1), magic.warp(11, magicked=-1)
    magic.destreak(11)
    magic.stack(1)
    diff = magic.diff(1, mode=2, warp1=11, stack2=1)
    said = []
    for _ in range(12):
        said.append(magic.says(diff))
        for work in pending(magic.db, magic.policy, 1000, magic.now):
            if work.destreak:
                assert set_destreaked(magic.db, work.key, magic.now)
            else:
                assert set_full(magic.db, work.key, magic.now, magicked=0 if work.key == chip else 511)
    assert list(dict.fromkeys(reason for _, reason in said)) == [
        "waits for its warp: waits for its chip: cleaned, must be made again",
        "waits for its warp: waits for its chip: has to be destreaked",
        "waits for its warp: cleaned, must be made again",
        "cleaned, must be made again", "all pixels are there",
    ]  # fmt: skip
    assert {magic.state(key) for key in (chip, warp, diff)} == {("full", "full", 0)}
    assert magic.look(warp).verdict(warp).component is Component.USABLE


def test_a_difference_of_stacks_has_no_streaks(magic: World) -> None:
    magic.stack(1)
    magic.stack(2)
    four = magic.diff(1, FULL, mode=4, stack1=1, stack2=2)
    two = magic.diff(2, FULL, mode=2, stack1=1, stack2=2)
    survey = magic.look(four, two)
    assert survey.verdict(four).component is Component.USABLE
    assert survey.verdict(two).component is Component.NOT_DESTREAKED


def test_a_warp_of_chips_that_were_never_destreaked(magic: World) -> None:
    magic.chip(11)
    warp = magic.warp(11)
    verdict = magic.look(warp).verdict(warp)
    assert (verdict.fault, verdict.reason) == (24, "can't be made again without its chip: never destreaked")
    assert magic.pending() == []


def test_destreaking_that_fails(magic: World) -> None:
    chip = magic.chip(11, FULL, magicked=-1)
    magic.destreak(11)
    for count in (1, 2, 3):
        assert magic.says(chip)[0] is Component.QUEUE
        magic.process(destreak=lambda _: 5)
        for _ in range(3):
            assert magic.says(chip)[0] is (Component.WAITING if count < 3 else Component.NOT_NOW)
        assert magic.effort(("destreak", 511, CHIP)).attempts == count
        magic.forward(100)
    verdict = magic.look(chip).verdict(chip)
    assert (verdict.fault, verdict.cause) == (25, 5)
    magic.forward(3600)
    assert magic.says(chip)[0] is Component.QUEUE
    magic.process()
    assert magic.says(chip)[0] is Component.USABLE
    assert magic.effort(("destreak", 511, CHIP)).made_at == magic.now


def test_the_newest_destreak_run_counts(magic: World) -> None:
    chip = magic.chip(11, FULL, magicked=-1)
    magic.destreak(11, "purged", "purged")
    magic.put(t.magicDSRun, magic_ds_id=900, stage="chip", stage_id=11, state="cleaned")
    magic.put(t.magicDSFile, magic_ds_id=900, component="other", data_state="purged")
    assert magic.says(chip)[0] is Component.QUEUE
    assert [(run.magic_ds_id, run.state) for run in t.magicDSRun.select()] == [(511, "purged"), (900, "new")]
    assert magic.process() == [Work(chip, destreak=True)]
    assert magic.says(chip)[0] is Component.USABLE


def test_a_destreak_run_goes_on_until_all_its_files_are_done(magic: World) -> None:
    one = magic.chip(11, FULL, "XY31", "XY32", magicked=-1)
    magic.destreak(11)
    magic.put(t.magicDSFile, magic_ds_id=511, component="XY32", data_state="cleaned")
    magic.look(one)
    magic.process()
    assert magic.says(one)[0] is Component.USABLE
    assert (t.magicDSRun.get().state, t.chipRun.get().magicked) == ("new", -1)
    two = ("chip", 11, "XY32")
    assert magic.says(two)[0] is Component.QUEUE
    magic.process()
    assert magic.says(two)[0] is Component.USABLE
    assert (t.magicDSRun.get().state, t.chipRun.get().magicked) == ("full", 511)


def test_late_news_of_destreaking(magic: World) -> None:
    chip = magic.chip(11, FULL, magicked=-1)
    magic.destreak(11, "goto_cleaned")
    rows = magic.all_rows()
    assert not set_destreaked(magic.db, chip, magic.now)
    assert not set_fault(magic.db, chip, 2, magic.policy, magic.now, destreak=True)
    magic.set(chip, data_state="cleaned")
    t.magicDSRun.update(state="new").execute()
    assert not set_destreaked(magic.db, chip, magic.now)
    magic.set(chip, data_state="full")
    t.magicDSRun.update(state="goto_cleaned").execute()
    assert magic.all_rows() == rows


# -- what is pending -------------------------------------------------------------------------------------------------


def test_pending_by_stage_then_priority(world: World) -> None:
    keys = [world.chip(number) for number in (11, 12, 13)]
    world.chip(14, FULL)
    warp = world.warp(14)
    waiters = {keys[0]: Waiter(1, "a"), keys[1]: Waiter(3, "c"), keys[2]: Waiter(2, "b"), warp: Waiter(9, "z")}
    look(world.db, waiters, POLICY, NOW)
    wanted = [keys[1], keys[2], keys[0], warp]
    for limit in range(6):
        assert [work.key for work in pending(world.db, POLICY, limit, NOW)] == wanted[:limit]


def test_nothing_is_pending_whose_inputs_are_not_there(world: World) -> None:
    """§8 point 23: the same rule as the checker's; also where many come first that can't be done."""
    world.stack(1, fault=2)
    world.stack(2)
    for number in range(120):
        world.diff(100 + number, ("update", "update"), mode=4, stack1=1, stack2=2)
    ready = world.diff(500, ("update", "update"), mode=4, stack1=2, stack2=2)
    assert [work.key for work in pending(world.db, POLICY, 1, NOW)] == [ready]


# -- tables, queries -------------------------------------------------------------------------------------------------


def test_a_database_without_our_tables(engine: str, mysql_server: str, tmp_path: Path) -> None:
    """An existing gpc1 lacks them: they are made when something is first put into update, and not for a mere look."""

    def check(address: str) -> None:
        db = ImageDB(address)
        db.create()
        with db.session():
            db.db.drop_tables(t.UPDATE_TABLES)
            World(db).chip(11)
        chip = ("chip", 11, CHIP)
        fresh = ImageDB(address)
        assert survey_of(fresh, [chip], MAGIC, NOW).verdict(chip).component is Component.QUEUE
        assert not set(db.db.get_tables()) & {table.__name__ for table in t.UPDATE_TABLES}
        look(fresh, {chip: ANA}, POLICY, NOW)
        assert set(db.db.get_tables()) >= {table.__name__ for table in t.UPDATE_TABLES}
        with fresh.session():
            assert World(fresh).state(chip) == ("update", "update", 0)
        db.db.close()

    if engine == "sqlite":
        check(str(tmp_path / "bare.db"))
    else:
        with mariadb.database(mysql_server) as address:
            check(address)


def test_as_many_queries_for_many_as_for_few(world: World, statements: list[str]) -> None:
    """§8 point 18."""

    def make(numbers: range) -> list[Key]:
        with world.db.db.atomic():
            for number in numbers:
                world.chip(number, CLEANED, "XY31", "XY32")
                world.warp(number, CLEANED, "XY31", "XY32")
                world.stack(number)
                world.diff(number, mode=2, warp1=number, stack2=number)
        return [("diff", number, CELL) for number in numbers]

    world.look()  # makes tables that are missing
    counts = []
    for keys in (make(range(1, 3)), make(range(10, 210))):
        for _ in range(2):  # one look that queues, one that finds nothing to do
            statements.clear()
            world.look(*keys)
            counts.append(len(statements))
    assert counts[:2] == counts[2:]
    assert max(counts) < 30


def test_more_than_fit_into_one_query(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pstamp_core.imagedb.survey.BATCH", 3)
    monkeypatch.setattr(updates, "_INSERTS", 2)
    keys = []
    for number in range(11, 21):
        world.chip(number)
        keys.append(world.warp(number))
    world.look(*keys)
    assert len(world.process()) == 10
    world.look(*keys)
    assert [work.key for work in world.process()] == keys
    assert {verdict.component for verdict in map(world.look(*keys).verdict, keys)} == {Component.USABLE}


def test_a_database_that_does_not_answer(tmp_path: Path) -> None:
    """§8.1 check 7: never taken for a finding."""
    for each in (lambda db: look(db, {("warp", 1, CELL): ANA}, POLICY, NOW),
                 lambda db: survey_of(db, [("warp", 1, CELL)], POLICY, NOW),
                 lambda db: pending(db, POLICY, 1, NOW)):  # fmt: skip
        with pytest.raises(RetryableError, match="unable to open database file"):
            each(ImageDB(str(tmp_path / "no" / "such.db")))
    empty = str(tmp_path / "empty.db")
    connect(empty).connect()
    with pytest.raises(RetryableError, match=r"no such table: \w+"):
        look(ImageDB(empty), {("warp", 1, CELL): ANA}, POLICY, NOW)


def test_the_chain(world: World) -> None:
    """§8 point 25: what a job waits for, and how far that is."""
    diff = world.whole_diff()
    world.look(diff)
    world.process(lambda key: 2 if key == ("chip", 21, "XY32") else 0)
    found = survey_of(world.db, [diff], world.policy, world.now)
    lines = [
        (link.depth, " ".join(map(str, link.key)).strip(), link.run_state, link.data_state, link.fault,
         link.effort.attempts, link.verdict.component.name)
        for link in found.chain(diff)
    ]  # fmt: skip
    assert lines == [
        (0, "diff 1 skycell.1", "cleaned", "cleaned", 0, 0, "WAITING"),
        (1, "warp 11 skycell.1", "cleaned", "cleaned", 0, 0, "QUEUE"),
        (2, "camera 11", "full", "full", 0, 0, "USABLE"),
        (2, "chip 11 XY31", "full", "full", 0, 0, "USABLE"),
        (2, "chip 11 XY32", "full", "full", 0, 0, "USABLE"),
        (1, "warp 21 skycell.1", "cleaned", "cleaned", 0, 0, "WAITING"),
        (2, "camera 21", "full", "full", 0, 0, "USABLE"),
        (2, "chip 21 XY31", "update", "full", 0, 0, "USABLE"),
        (2, "chip 21 XY32", "update", "update", 2, 1, "WAITING"),
    ]
    nothing = survey_of(world.db, [("warp", 99, CELL)], world.policy, world.now)
    (link,) = nothing.chain(("warp", 99, CELL))
    assert (link.run_state, link.verdict.fault) == ("", 25)


# -- who does it -----------------------------------------------------------------------------------------------------


def take(world: World, owner: str, limit: int = 10, seconds: float = 60.0, *kinds: str) -> list[Work]:
    until = world.now + int(seconds * SECOND)
    return claim(world.db, world.policy, limit, owner, world.now, until, kinds or KINDS)


def test_what_one_server_works_on_is_left_alone_by_the_others(world: World) -> None:
    chips = [world.chip(number) for number in (11, 12, 13)]
    world.look(*chips)
    first, second = take(world, "one", 2)
    assert [first.key, second.key] == chips[:2]
    assert world.pending() == chips[2:]
    assert [work.key for work in take(world, "two")] == chips[2:]
    assert take(world, "three") == []
    assert finish(world.db, first, "one", POLICY, world.now)
    assert finish(world.db, second, "one", POLICY, world.now, fault=2)
    give_back(world.db, [Work(chips[2])], "one")  # it is not its own
    assert world.pending() == []
    give_back(world.db, [Work(chips[2])], "two")
    assert world.pending() == chips[2:]
    assert [world.state(chip) for chip in chips] == [
        ("full", "full", 0), ("update", "update", 2), ("update", "update", 0),
    ]  # fmt: skip
    assert [world.effort(chip).attempts for chip in chips] == [0, 1, 0]


def test_what_a_dead_server_worked_on_is_free_when_its_lease_has_run_out(world: World) -> None:
    chip = world.chip(11)
    world.look(chip)
    (lost,) = take(world, "dead")
    world.forward(59.9)
    assert take(world, "heir") == []
    world.forward(0.1)
    (work,) = take(world, "heir")
    for fault in (0, 2):  # the dead one was only slow
        rows = world.all_rows()
        with pytest.raises(LeaseLost, match="chip 11 XY31: dead took too long, the result is thrown away"):
            finish(world.db, lost, "dead", POLICY, world.now, fault)
        assert world.all_rows() == rows
    assert finish(world.db, work, "heir", POLICY, world.now)
    assert world.state(chip) == ("full", "full", 0)


def test_a_result_that_is_not_wanted_ends_the_lease_all_the_same(world: World) -> None:
    chip = world.chip(11)
    for fault in (0, 2):
        world.set(chip, "update", data_state="update")
        (work,) = take(world, "one")
        world.set(chip, "purged", data_state="purged")
        assert not finish(world.db, work, "one", POLICY, world.now, fault)
        assert world.state(chip) == ("purged", "purged", 0)
        assert t.pstampLease.select().count() == 0


@pytest.mark.parametrize("fault", [0, 2])
def test_what_was_cleaned_and_is_wanted_again_is_made_once_more(world: World, fault: int) -> None:
    """Its files are gone, though it is in update, as it was when the work began."""
    world.policy = MAGIC
    chip, streaky = world.chip(11, raw=1), world.chip(12, FULL, magicked=-1)
    world.destreak(12)
    world.look(chip, streaky)
    works = take(world, "one")
    assert works == [Work(chip), Work(streaky, destreak=True)]
    world.set(chip, "cleaned", data_state="cleaned")
    t.magicDSRun.update(state="cleaned").execute()
    t.magicDSFile.update(data_state="cleaned").execute()
    for _ in range(2):  # the first look finds that it was lost
        world.forward(100)
        world.look(chip, streaky)
    for work in works:
        assert not finish(world.db, work, "one", world.policy, world.now, fault)
    assert world.state(chip) == ("update", "update", 0)
    assert t.magicDSFile.get().data_state == "update"
    again = take(world, "two")
    assert again == works
    assert all(finish(world.db, work, "two", world.policy, world.now) for work in again)
    assert world.state(chip) == ("full", "full", 0)


def test_only_some_kinds_of_work_are_taken(world: World) -> None:
    world.policy = MAGIC
    chip, other = world.chip(11, magicked=-1), world.chip(12, FULL, magicked=-1)
    warp = world.warp(13)
    world.chip(13, FULL, magicked=513)
    for number in (11, 12):
        world.destreak(number)
    world.look(chip, other, warp)
    assert take(world, "one", 10, 60.0, "diff") == []
    made, destreaked = take(world, "one", 10, 60.0, "warp"), take(world, "one", 10, 60.0, "destreak")
    assert (made, destreaked) == ([Work(warp, magicked=513)], [Work(other, destreak=True)])
    assert take(world, "one", 10, 60.0, "chip") == [Work(chip)]
    assert finish(world.db, *made, "one", world.policy, world.now)
    assert finish(world.db, *destreaked, "one", world.policy, world.now)
    assert t.warpSkyfile.get().magicked == 513
    assert t.chipProcessedImfile.get(t.chipProcessedImfile.chip_id == 12).magicked == 512


def test_what_is_made_of_one_that_has_streaks_is_not_destreaked(world: World) -> None:
    world.chip(13, FULL, "XY31", "XY32", magicked=513)
    warp = world.warp(13, CLEANED, "XY31", "XY32")
    world.set(("chip", 13, "XY32"), magicked=0)
    world.look(warp)
    assert take(world, "one") == [Work(warp)]


def test_what_was_made_since_it_was_read_is_not_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server has set it full and given up its lease between the reading and the taking."""
    chip, other = world.chip(11), world.chip(12)
    world.look(chip, other)
    read = leases.pending

    def slowly(*args: Any) -> list[Work]:
        found = read(*args)
        assert set_full(world.db, chip, world.now)
        return found

    monkeypatch.setattr(leases, "pending", slowly)
    assert [work.key for work in take(world, "one")] == [other]
    assert [lease.stage_id for lease in t.pstampLease.select()] == [12]


def work_off(address: str, name: str, made: Any) -> None:
    """Take what is pending and set it full, until nothing is left; tell what was taken."""
    db = ImageDB(address)
    with db.session():
        while works := claim(db, POLICY, 3, name, NOW, NOW + 60 * SECOND, KINDS):
            for work in works:
                assert finish(db, work, name, POLICY, NOW)
                made.put(work.key)


def test_several_servers_take_each_component_once(world: World, address: str) -> None:
    chips = [world.chip(number) for number in range(11, 41)]
    world.look(*chips)
    made = SPAWN.Queue()
    servers = [SPAWN.Process(target=work_off, args=(address, name, made), daemon=True) for name in ("a", "b", "c")]
    for server in servers:
        server.start()
    assert sorted(made.get(timeout=60) for _ in chips) == chips
    for server in servers:
        server.join(60)
        assert server.exitcode == 0
    assert made.empty()
    assert {world.state(chip) for chip in chips} == {("full", "full", 0)}


# -- nothing waits for ever ------------------------------------------------------------------------------------------


BEHAVIOURS = ("works", "fails twice", "fails for ever", "vanishes", "is purged", "is reverted")
HELD = {"new", "reg", "wait", "keep", "ignore", "goto_cleaned"}


def play(
    world: World, behaviour: dict[Key, str], wanted: set[Key], cycles: int
) -> tuple[dict[Key, Any], dict[Key, int]]:
    """Look and process in turns; return the verdicts that do not wait, and how often each component was tried."""
    verdicts: dict[Key, Any] = {}
    tried: dict[Key, int] = {}
    for _ in range(cycles):
        survey = world.look(*(wanted - verdicts.keys()))
        found = {key: survey.verdict(key) for key in wanted - verdicts.keys()}
        verdicts |= {key: verdict for key, verdict in found.items() if not verdict.waits}
        with world.db.db.atomic():
            for key in world.pending():
                how, tried[key] = behaviour.get(key, "works"), tried.get(key, 0) + 1
                if how == "works" or (how == "fails twice" and tried[key] == 3):
                    assert set_full(world.db, key, world.now)
                elif how == "vanishes":
                    world.set(key, "cleaned", data_state="cleaned")
                elif how == "is purged":
                    world.set(key, data_state="purged")
                else:
                    assert set_fault(world.db, key, 2, world.policy, world.now)
                    if how == "is reverted":  # by others, at once
                        world.set(key, fault=0)
        world.forward(40)
    return verdicts, tried


@pytest.fixture
def lite(lite_address: str) -> Iterator[World]:
    """On SQLite, where the rules of the table are under test and not the statements."""
    db = ImageDB(lite_address)
    with db.session():
        yield World(db)


def test_nothing_waits_for_ever(lite: World) -> None:
    """Whatever its states are, and whatever the processing does: usable, a final code, or held, which its state says.

    All combinations of states, faults and behaviours at once, each in a run of its own.
    """
    behaviour, failed_before = {}, set()
    with lite.db.db.atomic():
        states = product((*STATES, "odd"), (*STATES, "odd"), (0, 2), BEHAVIOURS)
        for number, (run, data, fault, how) in enumerate(states, 1):
            key = lite.chip(number, (run, data), fault=fault)
            behaviour[key] = how
            if data == "update" and fault:
                failed_before.add(key)  # which counts, too
    verdicts, tried = play(lite, behaviour, set(behaviour), 15)
    assert all(HELD & set(lite.state(key)[:2]) for key in set(behaviour) - verdicts.keys())
    ends = {how: {(verdicts[key].component.name, verdicts[key].cause) for key in tried.keys() - failed_before
                  if behaviour[key] == how} for how in BEHAVIOURS}  # fmt: skip
    assert ends == {
        "works": {("USABLE", 0)}, "fails twice": {("USABLE", 0)}, "fails for ever": {("NOT_NOW", 2)},
        "vanishes": {("NOT_NOW", 6)}, "is purged": {("GONE", 0)}, "is reverted": {("NOT_NOW", 2)},
    }  # fmt: skip
    assert max(tried.values()) == 4  # one that others had begun, and three of ours


def test_no_chain_waits_for_ever(lite: World) -> None:
    """The same for a difference, whatever is done to it or to what it is made of."""
    behaviour, wanted = {}, {}
    for number, (place, how) in enumerate(product((0, 1, 2), BEHAVIOURS), 1):
        lite.stack(number)
        chain = (lite.chip(number), lite.warp(number), lite.diff(number, mode=2, warp1=number, stack2=number))
        behaviour[chain[place]] = how
        wanted[chain[2]] = how
    verdicts, _ = play(lite, behaviour, set(wanted), 25)
    assert verdicts.keys() == wanted.keys()
    ends = {how: {verdicts[key].component.name for key in wanted if wanted[key] == how} for how in BEHAVIOURS}
    assert ends == {
        "works": {"USABLE"}, "fails twice": {"USABLE"}, "fails for ever": {"NOT_NOW"}, "vanishes": {"NOT_NOW"},
        "is purged": {"GONE"}, "is reverted": {"NOT_NOW"},
    }  # fmt: skip
