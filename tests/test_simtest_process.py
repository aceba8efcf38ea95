"""The simulated survey's own update processing: made again, every file has its old bytes, whatever happened before."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import fitsio
import numpy as np
import pytest
from test_simtest import md5s, read, rows

from pstamp_core.database import connect, session
from pstamp_core.faults import FinalError, PstampError, RetryableError, UserError
from pstamp_core.imagedb import tables as t
from pstamp_core.testing.killpoints import killed_at
from simtest import making
from simtest.components import PIXELS, STAGES, clean, in_database, states
from simtest.images import BLANK, CR, DETECTOR, SAT, STREAK, cosmic_rays
from simtest.orders import Order, What, place, take
from simtest.process import main, process
from simtest.survey import Survey, plan_of, restore, simulate

CELL = "skycell.1234.044"
ROOT = Path(__file__).parents[1]

# a fork of pytest's own process, which may have threads that wait
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Survey:
    return simulate(tmp_path_factory.mktemp("plain") / "s", size=80, exposures=5)


@pytest.fixture(scope="module")
def magic(tmp_path_factory) -> Survey:
    return simulate(tmp_path_factory.mktemp("magic") / "s", size=80, exposures=5, magic=True)


def copy_of(survey: Survey, folder: Path) -> Survey:
    shutil.copytree(survey.folder, folder)
    return replace(survey, folder=folder, database=folder / "simtest.db")


@pytest.fixture
def survey(plain, tmp_path) -> Survey:
    return copy_of(plain, tmp_path / "s")


def files(survey: Survey) -> dict[str, str]:
    """The md5 of all files but the database."""
    return {name: md5 for name, md5 in md5s(survey.folder).items() if not name.startswith("simtest.db")}


def parts(survey: Survey, stage: str) -> list[tuple[int, str]]:
    tables = STAGES[stage]
    return [(row[tables.number], row[tables.name]) for row in rows(survey, tables.part)]


def base_of(survey: Survey, stage: str, number: int, name: str) -> str:
    tables = STAGES[stage]
    (found,) = [
        row["path_base"]
        for row in rows(survey, tables.part)
        if (row[tables.number], row[tables.name]) == (number, name)
    ]
    return found


def set_states(survey: Survey, stage: str, number: int, run: str, part: str | None = None) -> None:
    tables = STAGES[stage]
    with session(connect(str(survey.database)), t.TABLES):
        tables.run.update(state=run).where(tables.of_run(number)).execute()
        tables.part.update(data_state=part or run).where(tables.of_run(number, part=True)).execute()


def seen(survey: Survey, stage: str, number: int, name: str = CELL) -> tuple[str, str] | None:
    return in_database(survey.folder, lambda: states(stage, number, name))


# -- the same bytes


@pytest.mark.parametrize("kind", ["plain", "magic"])
def test_everything_is_made_again_with_the_same_bytes(kind, tmp_path, request) -> None:
    before = request.getfixturevalue(kind)
    survey = copy_of(before, tmp_path / "s")
    restore_cleaned(survey)
    whole, first = files(survey), files(before)
    assert first.items() <= whole.items()
    lost = {("warp", survey.lost_warp), ("diff", survey.purged_diff)}
    for stage in PIXELS:
        for number in {number for number, _ in parts(survey, stage)}:
            if (stage, number) not in lost:
                assert clean(survey.folder, stage, number) == 4
    left = files(survey)
    gone = whole.keys() - left.keys()
    assert len(gone) == 3 * 4 * (5 + 4 + 5)
    assert all(name.endswith(PIXELS[name.partition("/")[0]]) for name in gone)
    for stage in PIXELS:
        for number, name in parts(survey, stage):
            if (stage, number) in lost or number == survey.diff_ids[2]:
                continue
            process(survey.folder, stage, number, name)
            if stage == "chip" and kind == "magic" and number != survey.never_destreaked:
                process(survey.folder, "destreak", number, name)
    again = files(survey)
    assert whole.keys() - again.keys() == {name for name in whole if ".dif.50003." in name and name in gone}
    assert again.items() <= whole.items()
    with pytest.raises(RetryableError, match=r"^diff 50003 .*: input .*\.wrp\.40003\..* is not there$"):
        process(survey.folder, "diff", survey.diff_ids[2], CELL)


def restore_cleaned(survey: Survey) -> None:
    """Make what is cleaned from the start."""
    for stage in ("chip", "warp"):
        for number, name in parts(survey, stage):
            if (seen(survey, stage, number, name) or ())[1] == "cleaned":
                restore(survey.folder, stage, number, name)
                if stage == "chip" and plan_of(survey.folder).magic:
                    process(survey.folder, "destreak", number, name)


def test_full_size(tmp_path) -> None:
    survey = simulate(tmp_path / "s", size=400, exposures=5)
    whole = files(survey)
    made = [("chip", survey.chip_ids[i], name) for i in (0, 4) for name in survey.chips]
    made += [("warp", survey.warp_ids[i], CELL) for i in (0, 4)]
    made += [("diff", number, CELL) for number in (survey.diff_ids[0], survey.warp_diff)]
    for each in made:
        clean(survey.folder, *each)
    assert len(whole.keys() - files(survey).keys()) == 3 * len(made)
    for each in made:
        process(survey.folder, *each)
        process(survey.folder, *each)
    assert files(survey) == whole


def test_a_difference_without_its_chain_is_not_made(survey) -> None:
    for stage, number in (("chip", 10001), ("warp", 40001), ("diff", 50001)):
        clean(survey.folder, stage, number)
    before = files(survey)
    with pytest.raises(RetryableError) as caught:
        process(survey.folder, "diff", 50001, CELL)
    warp = survey.folder / base_of(survey, "warp", 40001, CELL)
    assert (str(caught.value), caught.value.fault) == (f"diff 50001 {CELL}: input {warp}.fits is not there", 2)
    with pytest.raises(
        RetryableError, match=rf"^warp 40001 {CELL}: input .*/o9001g0101o.9001.ch.10001.XY\d\d.ch.fits is not"
    ):
        process(survey.folder, "warp", 40001, CELL)
    assert files(survey) == before


KINDS = [("chip", 10001, "XY33"), ("warp", 40001, CELL), ("diff", 50001, CELL), ("diff", 50101, CELL),
                   ("destreak", 10004, "XY33")]  # fmt: skip


@pytest.mark.parametrize(("stage", "number", "name"), KINDS)
def test_a_death_anywhere_leaves_nothing_that_matters(plain, tmp_path, stage, number, name) -> None:
    survey = copy_of(plain, tmp_path / "s")
    restore(survey.folder, "chip", survey.cleaned_chip, "XY33")
    base = survey.folder / base_of(survey, stage if stage in PIXELS else "chip", number, name)
    kept = {path: path.read_bytes() for path in base.parent.glob(f"{base.name}.*")}
    process(survey.folder, stage, number, name)
    whole = files(survey)
    points = 0
    for point in count(1):
        if stage in PIXELS:
            clean(survey.folder, stage, number, name)
        else:
            for path, content in kept.items():
                path.write_bytes(content)
        if killed_at(point, lambda: process(survey.folder, stage, number, name), every=False) is None:
            break
        process(survey.folder, stage, number, name)
        assert files(survey) == whole, point
        points += 1
    assert points >= 9  # three files, each brought to disk, renamed, and its private name given up


def test_what_dead_writers_left_is_removed(survey) -> None:
    whole = files(survey)
    base = survey.folder / base_of(survey, "warp", 40001, CELL)
    (base.parent / f".{base.name}.fits.0123.tmp").write_bytes(b"half")
    process(survey.folder, "warp", 40001, CELL)
    assert files(survey) == whole


@pytest.mark.parametrize(("stage", "number", "name"), KINDS)
def test_writers_take_turns(survey, stage, number, name, monkeypatch) -> None:
    """Whoever writes holds the folder's lock, so that nobody takes its private files for those of the dead."""
    restore(survey.folder, "chip", survey.cleaned_chip, "XY33")
    written, write = [], making.write_image

    def look(path: Path, *rest: object) -> None:
        handle = os.open(path.parent, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr("simtest.making.write_image", look)
    monkeypatch.setattr("simtest.files.write_image", look)
    process(survey.folder, stage, number, name)
    assert len(written) == 3


# -- what a chip is


def test_a_chip_is_its_raw_image_calibrated(plain) -> None:
    for class_id in plain.chips:
        raw = fitsio.read(plain.folder / f"raw/o9001g0101o/o9001g0101o.{class_id}.fits").astype(float)
        bias, flat, dead = (
            read(plain.folder / f"detrend/{class_id}.{kind}.fits")[0] for kind in ("bias", "flat", "mask")
        )
        base = str(plain.folder / base_of(plain, "chip", 10001, class_id))
        image, mask = read(f"{base}.ch.fits")[0], read(f"{base}.ch.mk.fits")[0]
        assert ((mask & (DETECTOR | BLANK)) == dead).all()
        assert 3 > bias[dead == 0].std() > 1
        assert 0.03 > flat.std() > 0.005
        background = (raw - bias) / flat - image
        y, x = np.nonzero((dead == 0) & (mask & SAT == 0))
        fit = np.polynomial.polynomial.polyvander2d(x, y, [1, 1])[:, :3]
        left = background[y, x] - fit @ np.linalg.lstsq(fit, background[y, x], rcond=None)[0]
        step = fitsio.read_header(f"{base}.ch.fits", ext=1)["BSCALE"]
        assert np.abs(left).max() < step
        model = fitsio.read(f"{base}.mdl.fits")
        assert model.mean() == pytest.approx(background[y, x].mean(), abs=0.2)


def testcosmic_rays_are_found_and_nothing_else(plain) -> None:
    plan = plan_of(plain.folder)
    hit = missed = false = 0
    for chip in (0, 1, 2, 4):
        for class_id in plain.chips:
            base = str(plain.folder / base_of(plain, "chip", plain.chip_ids[chip], class_id))
            mask = read(f"{base}.ch.mk.fits")[0]
            true = np.zeros(mask.shape, bool)
            for y, x, _ in cosmic_rays(plan, plan.exposure(chip), class_id):
                true[y, x] = True
            known = mask & (DETECTOR | BLANK | SAT) == 0
            found = mask & CR > 0
            hit += (found & true).sum()
            missed += (true & known & ~found).sum()
            false += (found & ~true).sum()
    assert hit > 200
    assert missed < 0.1 * hit
    assert false < 0.02 * hit


# -- streaks


def test_a_streak_is_taken_out_in_place_and_once(survey) -> None:
    chip = survey.streaked
    for name in survey.chips:
        restore(survey.folder, "chip", chip, name)
    before, taken = files(survey), 0
    for name in survey.chips:
        base = survey.folder / base_of(survey, "chip", chip, name)
        old = [fitsio.read(f"{base}{suffix}") for suffix in PIXELS["chip"]]
        process(survey.folder, "destreak", chip, name)
        image, mask, variance = (read(f"{base}{suffix}")[0] for suffix in PIXELS["chip"])
        streak = mask & STREAK > 0
        taken += streak.sum()
        assert np.isnan(image[streak]).all()
        assert np.isnan(variance[streak]).all()
        for one, suffix in zip(old, PIXELS["chip"], strict=True):
            new = fitsio.read(f"{base}{suffix}")
            assert (new[~streak] == one[~streak]).all()
        if streak.any():
            light = np.where(np.isfinite(old[0]), old[0], 0)
            assert np.median(light[streak]) > 5
    assert taken > 200
    once = files(survey)
    changed = {name for name in once if once[name] != before[name]}
    assert len(changed) >= 6
    assert all(".ch.10004." in name and name.endswith(PIXELS["chip"]) for name in changed)
    for name in survey.chips:
        process(survey.folder, "destreak", chip, name)
    assert files(survey) == once


def test_a_chip_without_a_streak_stays_as_it_is(survey) -> None:
    before = files(survey)
    for name in survey.chips:
        process(survey.folder, "destreak", 10001, name)
    assert files(survey) == before


def test_what_is_made_of_destreaked_chips_has_no_streak(plain, magic) -> None:
    for stage, number in (("warp", plain.warp_ids[3]), ("diff", plain.diff_ids[3])):
        worst = {}
        for survey in (plain, magic):
            values = []
            for name in survey.skycells:
                base = survey.folder / base_of(survey, stage, number, name)
                image, mask = read(f"{base}.fits")[0], read(f"{base}.mask.fits")[0]
                assert np.isnan(image[mask & STREAK > 0]).all()
                values.append((mask & STREAK > 0).sum())
            worst[survey is magic] = sum(values)
        assert worst[False] == 0
        assert worst[True] > 200
    others = files(magic)
    different = {name for name, md5 in files(plain).items() if others[name] != md5}
    assert {name.partition("/")[0] for name in different} == {"warp", "diff", "stack", "simtest.json"}
    assert not any(".wrp." in name and ".40004." not in name for name in different)


def test_the_database_says_what_was_destreaked(plain, magic) -> None:
    tables = [each for stage in STAGES.values() for each in (stage.run, stage.part)]
    assert {row["magicked"] for table in tables for row in rows(plain, table)} == {0}
    assert rows(plain, t.magicDSRun) == rows(plain, t.magicDSFile) == []
    for stage, tables_ in STAGES.items():
        for table in (tables_.run, tables_.part):
            found = {row[tables_.number]: row["magicked"] for row in rows(magic, table)}
            ids = {"chip": magic.chip_ids, "warp": magic.warp_ids, "diff": magic.diff_ids}[stage]
            expected = {number: 80001 + i for i, number in enumerate(ids)}
            expected[ids[4]] = 0
            expected |= {"chip": {magic.cleaned_chip: -1}, "warp": {magic.cleaned_warp: -1, magic.lost_warp: -1},
                         "diff": {magic.warp_diff: 0}}[stage]  # fmt: skip
            assert found == expected
    assert {row["magicked"] for row in rows(magic, t.rawImfile)} == {0}
    runs = {(row["magic_ds_id"], row["stage"], row["stage_id"], row["state"], row["re_place"])
            for row in rows(magic, t.magicDSRun)}  # fmt: skip
    assert runs == {(80001, "chip", 10001, "full", True), (80002, "chip", 10002, "full", True),
                    (80003, "chip", 10003, "full", True), (80004, "chip", 10004, "cleaned", True)}  # fmt: skip
    states_ = {(row["magic_ds_id"], row["component"]): row["data_state"] for row in rows(magic, t.magicDSFile)}
    assert states_ == {(80001 + i, name): "cleaned" if i == 3 else "full" for i in range(4) for name in magic.chips}


# -- orders


def test_fail_a_few_times_then_work(survey) -> None:
    whole = files(survey)
    clean(survey.folder, "warp", 40001, CELL)
    before = files(survey)
    place(survey.folder, "warp", 40001, CELL, Order(What.FAIL, times=2, fault=5))
    for _ in range(2):
        assert "orders.json" in files(survey)
        with pytest.raises(PstampError) as caught:
            process(survey.folder, "warp", 40001, CELL)
        assert (str(caught.value), caught.value.fault) == (f"warp 40001 {CELL}: fault 5, as ordered", 5)
    assert files(survey) == before
    process(survey.folder, "warp", 40001, CELL)
    assert files(survey) == whole


def test_fail_for_ever_until_told_otherwise(survey) -> None:
    whole = files(survey)
    place(survey.folder, "chip", 10001, "XY33", Order(What.FAIL, fault=26))
    place(survey.folder, "chip", 10001, "XY34", Order(What.FAIL))
    for _ in range(5):
        with pytest.raises(PstampError, match=r"^chip 10001 XY33: fault 26, as ordered$"):
            process(survey.folder, "chip", 10001, "XY33")
    with pytest.raises(PstampError, match=r"^chip 10001 XY34: fault 2, as ordered$"):
        process(survey.folder, "chip", 10001, "XY34")
    process(survey.folder, "chip", 10002, "XY33")
    place(survey.folder, "chip", 10001, "XY33", Order(What.NOTHING))
    place(survey.folder, "chip", 10001, "XY34", Order(What.NOTHING))
    place(survey.folder, "chip", 10001, "XY34", Order(What.NOTHING))
    process(survey.folder, "chip", 10001, "XY33")
    assert files(survey) == whole


class Asleep(Exception):  # noqa: N818
    pass


def test_hang(survey, monkeypatch) -> None:
    def sleep(_: float) -> None:
        raise Asleep

    whole = files(survey)
    clean(survey.folder, "diff", 50001, CELL)
    place(survey.folder, "diff", 50001, CELL, Order(What.HANG, times=1))
    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(Asleep):
        process(survey.folder, "diff", 50001, CELL)
    process(survey.folder, "diff", 50001, CELL)
    assert files(survey) == whole


def test_vanish(survey) -> None:
    expected = {
        ("chip", 10001, "XY33"): {"raw/o9001g0101o/o9001g0101o.XY33.fits"},
        ("warp", 40002, CELL): {
            f"{base_of(survey, 'chip', 10002, row['class_id'])}{suffix}"
            for row in rows(survey, t.warpSkyCellMap) if (row["warp_id"], row["skycell_id"]) == (40002, CELL)
            for suffix in PIXELS["chip"]
        },
        ("diff", 50101, CELL): {
            f"{base_of(survey, 'warp', number, CELL)}{suffix}" for number in (40001, 40005) for suffix in PIXELS["warp"]
        },
        ("diff", 50002, CELL): {
            f"stack/{CELL}/{CELL}.stk.60005.unconv.{suffix}" for suffix in ("fits", "mask.fits", "wt.fits", "num.fits")
        },
        ("destreak", 10003, "XY33"): {f"{base_of(survey, 'chip', 10003, 'XY33')}{suffix}" for suffix in PIXELS["chip"]},
    }  # fmt: skip
    for key, names in expected.items():
        before = files(survey)
        place(survey.folder, *key, Order(What.VANISH, times=1))
        for _ in range(2):
            with pytest.raises(RetryableError, match=rf"^{' '.join(map(str, key))}: input .* is not there$"):
                process(survey.folder, *key)
        assert before.keys() - files(survey).keys() == names


@pytest.mark.parametrize(
    ("stage", "number", "name", "run"), [("warp", 40001, CELL, "warp"), ("destreak", 10001, "XY33", "chip")]
)
def test_purge(survey, stage, number, name, run) -> None:
    whole = files(survey)
    set_states(survey, run, number, "update")
    place(survey.folder, stage, number, name, Order(What.PURGE, times=1))
    process(survey.folder, stage, number, name)
    assert files(survey) == whole
    assert seen(survey, run, number, name) == ("purged", "purged")
    others = {row["data_state"] for row in rows(survey, STAGES[run].part) if row[STAGES[run].number] == number}
    assert others == {"purged", "update"}


def test_states_are_left_alone(survey) -> None:
    set_states(survey, "warp", 40001, "update")
    before = rows(survey, t.warpRun), rows(survey, t.warpSkyfile)
    process(survey.folder, "warp", 40001, CELL)
    place(survey.folder, "warp", 40001, CELL, Order(What.FAIL))
    with pytest.raises(PstampError):
        process(survey.folder, "warp", 40001, CELL)
    assert (rows(survey, t.warpRun), rows(survey, t.warpSkyfile)) == before


@pytest.mark.parametrize(
    ("stage", "number", "order", "sentence"),
    [
        ("stack", 60001, Order(What.FAIL), "order for stack: expected one of chip, warp, diff, destreak"),
        ("warp", 49999, Order(What.FAIL), f"order for warp 49999 {CELL}: there is no such component"),
        ("warp", 40001, Order(What.FAIL, times=-1), "order for -1 runs: expected 1 to 999, or 0 for all"),
        ("warp", 40001, Order(What.FAIL, times=1000), "order for 1000 runs: expected 1 to 999, or 0 for all"),
        ("warp", 40001, Order(What.FAIL, fault=0), "order of fault 0: expected 1 to 99"),
        ("warp", 40001, Order(What.FAIL, fault=100), "order of fault 100: expected 1 to 99"),
    ],
)
def test_orders_that_can_not_be(survey, stage, number, order, sentence) -> None:
    before = files(survey)
    with pytest.raises(UserError) as caught:
        place(survey.folder, stage, number, CELL, order)
    assert (str(caught.value), caught.value.fault) == (sentence, 21)
    assert files(survey) == before


def test_orders_that_can_not_be_read(survey, tmp_path) -> None:
    (survey.folder / "orders.json").write_text("{")
    for act in (
        lambda: place(survey.folder, "chip", 10001, "XY33", Order(What.HANG)),
        lambda: process(survey.folder, "chip", 10001, "XY33"),
    ):
        with pytest.raises(RetryableError, match=r"^orders .*/orders.json: Expecting property name"):
            act()
    with pytest.raises(RetryableError, match="holds no simulated survey"):
        place(tmp_path / "nowhere", "chip", 10001, "XY33", Order(What.FAIL))
    assert not (tmp_path / "nowhere").exists()


def test_an_order_changes_all_or_nothing(survey) -> None:
    for name in ("XY33", "XY34"):
        place(survey.folder, "chip", 10001, name, Order(What.FAIL, times=3))
    old = json.loads((survey.folder / "orders.json").read_text())
    new = {**old, "chip 10001 XY33": {"what": "fail", "times": 2, "fault": 2}}
    for point in count(1):
        (survey.folder / "orders.json").write_text(json.dumps(old, indent=1))
        died = killed_at(point, lambda: take(survey.folder, "chip", 10001, "XY33"))
        assert json.loads((survey.folder / "orders.json").read_text()) in (old, new)
        if died is None:
            break
    assert json.loads((survey.folder / "orders.json").read_text()) == new
    assert point > 3
    assert [path.name for path in survey.folder.iterdir() if path.suffix == ".tmp"] == []


# -- cleaning


def test_clean_a_run_by_and_by(survey) -> None:
    whole, others = files(survey), rows(survey, t.diffRun)
    for done, name in enumerate(survey.skycells, 1):
        assert clean(survey.folder, "warp", 40001, name) == 1
        assert seen(survey, "warp", 40001, name) == ("cleaned" if done == 4 else "full", "cleaned")
        base = base_of(survey, "warp", 40001, name)
        gone = {f"{base}{suffix}" for suffix in PIXELS["warp"]}
        assert gone <= whole.keys()
        assert len(whole.keys() - files(survey).keys()) == 3 * done
        assert not gone & files(survey).keys()
    assert clean(survey.folder, "warp", 40001) == 4  # once more
    assert rows(survey, t.diffRun) == others
    assert {row["state"] for row in rows(survey, t.warpRun) if row["warp_id"] not in (40001, 40002, 40003)} == {"full"}
    for name in survey.skycells:
        restore(survey.folder, "warp", 40001, name)
    assert files(survey) == whole
    assert seen(survey, "warp", 40001) == ("full", "full")


def test_what_was_cleaned_has_to_be_destreaked_again(magic, tmp_path) -> None:
    survey = copy_of(magic, tmp_path / "s")

    def values() -> dict[object, int]:
        runs = {row["chip_id"]: row["magicked"] for row in rows(survey, t.chipRun)}
        return {
            **runs,
            **{(row["chip_id"], row["class_id"]): row["magicked"] for row in rows(survey, t.chipProcessedImfile)},
        }

    before = values()
    clean(survey.folder, "chip", 10001, "XY33")
    assert values() == {**before, 10001: -1, (10001, "XY33"): -1}
    clean(survey.folder, "chip", survey.never_destreaked)
    clean(survey.folder, "chip", survey.cleaned_chip)
    assert values() == {**before, 10001: -1, (10001, "XY33"): -1}


@pytest.mark.parametrize("word", ["full", "update", "goto_cleaned", "cleaned"])
def test_states_in_which_a_component_is_cleaned(survey, word) -> None:
    set_states(survey, "diff", 50001, word)
    clean(survey.folder, "diff", 50001)
    assert seen(survey, "diff", 50001) == ("cleaned", "cleaned")


@pytest.mark.parametrize(
    ("stage", "number", "name", "sentence"),
    [
        ("raw", 9001, "XY33", "clean raw 9001 XY33: only the pixels of a chip, warp or diff are ever deleted"),
        ("stack", 60001, None, "clean stack 60001: only the pixels of a chip, warp or diff are ever deleted"),
        ("warp", 40003, None, "clean warp 40003: state error_cleaned; expected full, update, goto_cleaned, cleaned"),
        ("diff", 50005, CELL, f"clean diff 50005 {CELL}: state purged; expected full, update, goto_cleaned, cleaned"),
        ("chip", 10001, "XY99", "clean chip 10001 XY99: there is no such component"),
        ("chip", 99999, None, "clean chip 99999: there is no such component"),
    ],
)
def test_what_is_not_cleaned(survey, stage, number, name, sentence) -> None:
    before = files(survey), rows(survey, t.warpSkyfile), rows(survey, t.diffSkyfile)
    with pytest.raises(FinalError) as caught:
        clean(survey.folder, stage, number, name)
    assert (str(caught.value), caught.value.fault) == (sentence, 25)
    assert (files(survey), rows(survey, t.warpSkyfile), rows(survey, t.diffSkyfile)) == before


def test_a_component_purged_in_a_run_that_is_not(survey) -> None:
    set_states(survey, "warp", 40001, "full", "purged")
    with pytest.raises(FinalError, match="state purged"):
        clean(survey.folder, "warp", 40001)


def test_killed_cleaning_is_done_again(plain, tmp_path) -> None:
    folder = tmp_path / "s"
    for point in count(1):
        survey = copy_of(plain, folder)
        died = killed_at(point, lambda: clean(folder, "warp", 40001, CELL), every=False)
        if died and seen(survey, "warp", 40001)[1] == "full":
            assert files(survey) == files(plain)  # nothing is deleted that the database calls full
        clean(survey.folder, "warp", 40001, CELL)
        assert len(files(plain).keys() - files(survey).keys()) == 3
        shutil.rmtree(survey.folder)
        if died is None:
            break
    assert point > 4


# -- the command


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["warp", "40001", CELL], 0, ""),
        (["warp", "49999", CELL], 5, f"warp 49999 {CELL}: there is no such component"),
        (["chip", "10001", "XY99"], 5, "chip 10001 XY99: there is no such component"),
        (["stack", "60001", CELL], 5, f"stack 60001 {CELL}: expected one of the stages chip, destreak, warp, diff"),
    ],
)
def test_exit_codes(survey, arguments, code, line, capsys) -> None:
    assert main([str(survey.folder), *arguments]) == code
    assert capsys.readouterr() == ("", f"{line}\n" if line else "")


def test_the_fault_ordered_is_the_exit_code(survey, capsys) -> None:
    place(survey.folder, "warp", 40001, CELL, Order(What.FAIL, fault=26))
    assert main([str(survey.folder), "warp", "40001", CELL]) == 26
    assert capsys.readouterr().err == f"warp 40001 {CELL}: fault 26, as ordered\n"


def test_a_damaged_input(survey, capsys) -> None:
    base = survey.folder / base_of(survey, "warp", 40001, CELL)
    path = Path(f"{base}.wt.fits")
    path.write_bytes(path.read_bytes()[:3000])
    assert main([str(survey.folder), "diff", "50001", CELL]) == 5
    error = capsys.readouterr().err
    assert error.startswith(f"diff 50001 {CELL}: input {path} can't be read: ")
    assert error.count("\n") == 1


def test_a_disk_that_can_not_be_written(survey, capsys) -> None:
    base = survey.folder / base_of(survey, "warp", 40001, CELL)
    Path(f"{base}.fits").unlink()
    Path(f"{base}.fits").mkdir()
    assert main([str(survey.folder), "warp", "40001", CELL]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"warp 40001 {CELL}: ")
    assert error.count("\n") == 1
    assert not list(base.parent.glob(".*.tmp"))


def test_no_survey(tmp_path, capsys) -> None:
    assert main([str(tmp_path / "x"), "warp", "40001", CELL]) == 2
    assert capsys.readouterr().err.startswith(f"folder {tmp_path}/x holds no simulated survey: ")
    assert list(tmp_path.iterdir()) == []


def test_as_a_program(survey) -> None:
    whole = files(survey)
    clean(survey.folder, "chip", 10001, "XY33")
    for number, code in (("10001", 0), ("19999", 5)):
        command = [sys.executable, "-m", "simtest.process", str(survey.folder), "chip", number, "XY33"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr == ("" if code == 0 else "chip 19999 XY33: there is no such component\n")
    assert files(survey) == whole
