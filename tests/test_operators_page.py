"""The example of the operators' page, acted out with the commands: a cleaned chip that needs destreaking, step by step.

And the same through a difference and its warp, with a fault that clears and one that does not.
"""

from __future__ import annotations

import functools
import importlib
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mariadb
import numpy as np
import pytest
from astropy.io import fits
from conftest import Clock

from pstamp_core.formats import read_results
from pstamp_core.settings import load_settings
from pstamp_core.store import Store, pstampDependent, pstampJob, pstampRequest
from simtest import images
from simtest import rows as simtest_rows
from simtest.components import PIXELS
from simtest.images import STREAK
from simtest.survey import Survey, simulate

SETTINGS = "retry_seconds = 60\ncheck_seconds = 10\ncooldown_seconds = 3600\n"
"""What fails is tried again after one minute, then after two; then the server gives up for an hour."""
DS = 80004
"""The destreak run of the chips of the exposure with the streak (`Survey.streaked`)."""
CELL = "skycell.1234.055"
"""A skycell with one chip below it, XY44."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """A survey of destreaked images, with a chip of the class on the page, beside the middle of the camera.

    The exposure that a satellite crossed is there as it was first made.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (images, simtest_rows):
            patch.setattr(module, "CHIPS", ("XY31", "XY33", "XY34", "XY43", "XY44"))
        patch.delitem(simtest_rows.SPECIAL, ("chip", simtest_rows.CLEANED_CHIP))
        return simulate(tmp_path_factory.mktemp("original") / "s", size=80, exposures=5, magic=True)


class Site:
    """A server on a copy of the survey, whose images are made again by the survey's own programs.

    Commands are run in this process, by a clock that stands still.
    """

    def __init__(
        self, folder: Path, address: str | None, original: Survey, clock: Clock, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.address, self.original, self.clock, self._capfd = folder, address, original, clock, capfd
        shutil.copytree(original.folder, folder / "survey")
        self.types("pstamp init")
        words = [sys.executable, "-m", "simtest.process", "{root}"]
        kinds = (*PIXELS, "destreak")
        with (folder / "home" / "pstamp.toml").open("a") as settings:
            settings.write(SETTINGS)
            settings.writelines(f"update_{kind} = {[*words, kind, '{stage_id}', '{component}']}\n" for kind in kinds)
        self.types("pstamp project add gpc1 --imagedb survey/simtest.db --root survey --camera GPC1")
        self.types("pst -modproject -proj_id 2 -state enabled -need_magic")

    def types(self, line: str) -> str:
        """What a command prints; it is to end well, without a word on standard error."""
        name, *words = line.split()
        main = importlib.import_module(f"runners.{'pstamptool' if name == 'pst' else name}").main
        self._capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [name, *words])
            with pytest.raises(SystemExit) as caught:
                sys.exit(main())
        out, err = self._capfd.readouterr()
        assert (int(caught.value.code or 0), err) == (0, ""), line
        return out.replace(f"{self.folder}/", "")

    def sends(self, name: str, image: str, *components: str) -> None:
        """Submit a request of a row for each component of one run, and parse it."""
        stage, run, x, y = image.split()
        start = f"{x} {y} 60 40 3 stamp 7 gpc1 null null byid {stage} {run} null"
        rows = [f"{number} {start} {each} null null 0 0 null 0 0\n" for number, each in enumerate(components, 1)]
        (self.folder / f"{name}.txt").write_text(f"{name} 2 PROCESS ana@obs.example.edu\n{''.join(rows)}")
        self.types(f"pstamp request make {name}.txt --out {name}.fits")
        number = self.types(f"pstamp submit {name}.fits --label WEB").strip()
        assert self.types(f"pstamp_parser_run --req_id {number}") == f"request {number}: run\n"

    def images(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the image database."""
        with closing(sqlite3.connect(self.folder / "survey" / "simtest.db")) as db:
            return db.execute(sql, values).fetchall()

    def rows(self, table: Any, *columns: str) -> list[tuple[Any, ...]]:
        """Columns of all rows of a table of the server's database."""
        store = Store(load_settings(self.folder / "home", self.address).address)
        with store.reading():
            fields = [getattr(table, name) for name in columns]
            found = [tuple(getattr(each, "value", each) for each in row) for row in table.select(*fields).tuples()]
        store.db.close()
        return found

    def chips(self) -> tuple[Any, ...]:
        """The chip run with the streak: state, label, magicked; the same of its chips; then its destreak run and files.

        What its chips, and files, have in common is told once.
        """
        run = self.images("SELECT state, label, magicked FROM chipRun WHERE chip_id = ?", self.original.streaked)
        chips = self.images("SELECT DISTINCT data_state, fault, magicked FROM chipProcessedImfile WHERE chip_id = ?",
                            self.original.streaked)  # fmt: skip
        destreak = self.images("SELECT state, label FROM magicDSRun WHERE magic_ds_id = ?", DS)
        files = self.images("SELECT DISTINCT data_state, fault FROM magicDSFile WHERE magic_ds_id = ?", DS)
        return (*run, chips, *destreak, files)

    def results(self, name: str) -> tuple[dict[str, Any], ...]:
        """The rows of the results table of a request."""
        return read_results(self.folder / "home/datastore/pstamp_results" / name / "results.fits").rows

    def check_stamps(self, name: str, x: int, y: int) -> int:
        """Compare the stamps of a request with what the original survey has there; return how many pixels are STREAK.

        Their centre counts from 1.
        """
        streaks = 0
        for row in self.results(name):
            stamp, whole = row["IMG_NAME"], re.sub(r"^\d+_\d+_[a-z]_", "", row["IMG_NAME"])
            if ".dif." in whole:
                whole = whole.replace(".mk.fits", ".mask.fits")
            (path,) = self.original.folder.rglob(whole)
            made, was = pixels(self.folder / "home/datastore/pstamp_results" / name / stamp), pixels(path)
            np.testing.assert_array_equal(made, was[y - 21 : y + 19, x - 31 : x + 29], strict=True)
            streaks += int((made & STREAK > 0).sum()) if ".mk." in stamp else 0
        return streaks

    def turn(self, seconds: int) -> str:
        """What checker and update server do once, some seconds later; the states that come of it, and `magicked`."""
        self.clock.forward(seconds)
        changed = self.types("pstamp_checkdependent --limit 10").removeprefix("dependents that changed: ")
        tried = self.types("pstamp_update_run").removeprefix("components tried: ")
        found = self.images(
            "SELECT diffSkyfile.data_state, diffSkyfile.fault, warpSkyfile.data_state, warpSkyfile.fault, "
            "chip.data_state, chip.fault, chip.magicked FROM diffSkyfile JOIN warpSkyfile USING (skycell_id), "
            "chipProcessedImfile chip WHERE diff_id = 50004 AND warp_id = 40004 AND skycell_id = ? "
            "AND chip_id = 10004 AND class_id = 'XY44'", CELL,
        )  # fmt: skip
        diff, diff_fault, warp, warp_fault, chip, chip_fault, magicked = found[0]
        states = f"diff {diff} {diff_fault}, warp {warp} {warp_fault}, chip {chip} {chip_fault} {magicked}"
        return f"changed {changed.strip()}, tried {tried.strip()}: {states}"


def pixels(path: Path) -> Any:
    with fits.open(path) as hdus:
        return next(hdu.data for hdu in hdus if hdu.data is not None)


on = functools.partial(pytest.mark.parametrize, "engine", indirect=True)  # each on one: most of the time goes to pixels


@pytest.fixture
def site(
    original: Survey, engine: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> Iterator[Site]:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PSTAMP_HOME", "home")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.delenv("PSTAMP_DB", raising=False)
    monkeypatch.setattr(Store, "now", lambda _: clock())
    if engine == "sqlite":
        yield Site(tmp_path, None, original, clock, capfd)
        return
    with mariadb.database(request.getfixturevalue("mysql_server")) as address:
        monkeypatch.setenv("PSTAMP_DB", address)
        yield Site(tmp_path, address, original, clock, capfd)


PENDING = """\
pstampDependent MULTI

pstampDependent  METADATA··
   dep_id           S64       1··············
   state            STR       new·············
   stage            STR       chip············
   stage_id         S64       10004··········
   component        STR       XY31············
   imagedb          STR       survey/simtest.db·
   outdir           STR       home/work/dependents·
   rlabel           STR       ps_ud_WEB·······
   need_magic       BOOL      T··············
   fault            S16       0··············
   fault_count      S32       0··············
   label            STR       WEB·············
   first_req_id     S64       1··············
   logfile          STR       home/work/dependents/checkdep.1.log·
   priority         S64       10000··········
END

"""
SIMPLE = (
    "1 new chip 10004 XY31 survey/simtest.db home/work/dependents ps_ud_WEB T 0 0 WEB 1 "
    "home/work/dependents/checkdep.1.log 10000\n"
)


@on(["mysql"])
def test_a_cleaned_chip_that_needs_destreaking(site: Site) -> None:
    own, other = ("full", "simtest", DS), ("full", "simtest", -1)
    destreaked = (("full", "simtest"), [("full", 0)])
    assert site.chips() == (own, [("full", 0, DS)], *destreaked)
    assert site.types("pstamp simtest clean survey chip 10004") == "5 images cleaned in survey\n"
    cleaned = (("cleaned", "simtest", -1), [("cleaned", 0, -1)], *destreaked)
    assert site.chips() == cleaned

    site.sends("page", "chip 10004 40 60", *site.original.chips)
    waiting = [(number, "new", 0, "chip", 10004, name) for number, name in enumerate(site.original.chips, 1)]
    columns = ("dep_id", "state", "fault", "stage", "stage_id", "component")
    assert site.rows(pstampDependent, *columns) == waiting
    jobs = [(number, "run", 0, number) for number in range(1, 6)]
    assert site.rows(pstampJob, "job_id", "state", "fault", "dep_id") == jobs
    assert site.types("pst -pendingdependent -limit 1") == PENDING.replace("·", " ")
    assert site.types("pst -pendingdependent -limit 1 -simple") == SIMPLE
    assert site.types("pstamp_job_run --limit 10") == "jobs taken: 0\n"
    assert site.chips() == cleaned

    # The checker sets the chip of its dependent to update, and its run; then those of the others.
    assert site.types("pstamp_checkdependent --dep_id 1") == "dependent 1: new, cleaned, must be made again\n"
    assert site.images("SELECT class_id FROM chipProcessedImfile WHERE data_state = 'update'") == [("XY31",)]
    assert site.types("pstamp_checkdependent --limit 10") == "dependents that changed: 0\n"
    assert site.chips() == (("update", "ps_ud_WEB", -1), [("update", 0, -1)], *destreaked)
    assert site.rows(pstampDependent, *columns) == waiting

    # The update server makes them full, and with the last of them the run.
    assert site.types("pstamp_update_run") == "components tried: 5\n"
    assert site.chips() == (other, [("full", 0, -1)], *destreaked)
    assert site.types("pstamp_update_run") == "components tried: 0\n"

    # The checker sets the destreak run to new: no stamp of a chip with streaks.
    site.clock.forward(10)
    assert site.types("pstamp_checkdependent --limit 10") == "dependents that changed: 0\n"
    assert site.chips() == (other, [("full", 0, -1)], ("new", "ps_ud_WEB"), [("update", 0)])
    assert site.rows(pstampDependent, *columns) == waiting
    assert site.types("pstamp_job_run --limit 10") == "jobs taken: 0\n"

    # The chips are destreaked: magicked is positive.
    assert site.types("pstamp_update_run") == "components tried: 5\n"
    assert site.chips() == (own, [("full", 0, DS)], *destreaked)
    assert site.rows(pstampDependent, *columns) == waiting

    # The dependents are full, the jobs run.
    site.clock.forward(10)
    assert site.types("pst -pendingjob -simple") == ""
    assert site.types("pstamp_checkdependent --limit 10") == "dependents that changed: 5\n"
    assert site.rows(pstampDependent, *columns) == [(number, "full", *rest) for number, _, *rest in waiting]
    assert site.rows(pstampJob, "job_id", "state", "fault", "dep_id") == jobs
    assert site.types("pst -pendingdependent -limit 1") == ""
    assert site.types("pstamp_job_run --limit 10") == "jobs taken: 5\n"
    assert site.rows(pstampJob, "job_id", "state", "fault", "dep_id") == [
        (number, "stop", fault, dep_id) for number, _, fault, dep_id in jobs
    ]
    assert site.types("request_finish --req_id 1") == "request 1: stop\n"
    assert site.rows(pstampRequest, "req_id", "state", "fault") == [(1, "stop", 0)]
    results = site.results("page")
    found = {(row["ROWNUM"], row["ERROR_CODE"], row["WAIT_S"]) for row in results}
    assert (len(results), found) == (15, {(number, 0, 20.0) for number in range(1, 6)})
    assert site.check_stamps("page", 40, 60) > 0


def clean_all(site: Site) -> None:
    for run in ("diff 50004", "warp 40004", "chip 10004"):
        site.types(f"pstamp simtest clean survey {run}")


WHY = """\
request 1 (page): run for 1 min (1 try)
  job 1: run for 1 min
      waits for an image: dependent 1
    dependent 1 (diff 50004 skycell.1234.055): new for 1 min (3 looks; next T+70 s; given up T+7 d)
        at the last look: waits for its warp: waits for its chip: a try to make it failed, with fault 5: ...
      component diff 50004 skycell.1234.055: run cleaned, pixels cleaned
          waits for its warp
        warp 40004 skycell.1234.055: run cleaned, pixels cleaned
            waits for its chip
          chip 10004 XY44: run update, pixels update, fault 5 for 0 s (2 tries, 2 failed; next 2027-01-15 08:03:00)
              2 tries to make it failed, the last with fault 5: ...
            destreak 80004 XY44: run full, file full

what helps: nothing: chip 10004 XY44 is tried again by itself; to wait no longer: pstamp stop dependent 1
"""


@on(["sqlite"])
def test_through_difference_and_warp_with_a_fault_that_clears(site: Site) -> None:
    clean_all(site)
    site.types("pstamp simtest order survey chip 10004 XY44 fail --times 2 --fault 5")
    site.sends("page", "diff 50004 31 21", CELL)
    for seconds, becomes in (
        (0, "changed 0, tried 1: diff cleaned 0, warp cleaned 0, chip update 5 -1"),
        (50, "changed 0, tried 0: diff cleaned 0, warp cleaned 0, chip update 5 -1"),
        (10, "changed 0, tried 1: diff cleaned 0, warp cleaned 0, chip update 5 -1"),
    ):
        assert site.turn(seconds) == becomes
    said = site.types("pstamp why job 1")
    times = {"2027-01-15 08:01:10": "T+70 s", "2027-01-22 08:00:00": "T+7 d"}
    for pattern, word in {"(fault 5: ).*": r"\1...", **times}.items():
        said = re.sub(pattern, word, said)
    assert said == WHY
    for seconds, becomes in (
        (110, "changed 0, tried 0: diff cleaned 0, warp cleaned 0, chip update 5 -1"),
        (10, "changed 0, tried 1: diff cleaned 0, warp cleaned 0, chip full 0 -1"),
    ):
        assert site.turn(seconds) == becomes
    assert "chip 10004 XY44: run update, pixels full (3 tries, 2 failed)\n" in site.types("pstamp why job 1")
    for seconds, becomes in (
        (10, "changed 0, tried 1: diff cleaned 0, warp cleaned 0, chip full 0 80004"),
        (10, "changed 0, tried 1: diff cleaned 0, warp full 0, chip full 0 80004"),
        (10, "changed 0, tried 1: diff full 0, warp full 0, chip full 0 80004"),
        (10, "changed 1, tried 0: diff full 0, warp full 0, chip full 0 80004"),
    ):
        assert site.turn(seconds) == becomes
    assert site.types("pstamp_job_run --job_id 1") == "job 1: stop\n"
    assert site.types("request_finish --req_id 1") == "request 1: stop\n"
    assert {(row["ERROR_CODE"], row["CAUSE"], row["WAIT_S"]) for row in site.results("page")} == {(0, 0, 220.0)}
    assert site.check_stamps("page", 31, 21) > 0


@on(["sqlite"])
def test_through_difference_and_warp_with_a_fault_that_does_not_clear(site: Site) -> None:
    clean_all(site)
    site.types(f"pstamp simtest order survey warp 40004 {CELL} fail")
    site.sends("page", "diff 50004 31 21", CELL)
    for seconds, becomes in (
        (0, "changed 0, tried 1: diff cleaned 0, warp cleaned 0, chip full 0 -1"),
        (10, "changed 0, tried 1: diff cleaned 0, warp cleaned 0, chip full 0 80004"),
        (10, "changed 0, tried 1: diff cleaned 0, warp update 2, chip full 0 80004"),
        (60, "changed 0, tried 1: diff cleaned 0, warp update 2, chip full 0 80004"),
        (120, "changed 0, tried 1: diff cleaned 0, warp update 2, chip full 0 80004"),
        (10, "changed 1, tried 0: diff cleaned 0, warp update 2, chip full 0 80004"),
    ):
        assert site.turn(seconds) == becomes
    assert site.rows(pstampDependent, "state", "fault", "cause") == [("stop", 25, 2)]
    assert site.rows(pstampJob, "state", "fault", "cause") == [("stop", 25, 2)]
    assert site.types("request_finish --req_id 1") == "request 1: stop\n"
    (row,) = site.results("page")
    assert (row["ERROR_CODE"], row["CAUSE"], row["WAIT_S"]) == (25, 2, 210.0)
    said = row["SENTENCE"]
    assert said.startswith("can't be made again without its warp: 3 tries to make it failed, the last with fault 2: ")
    assert said.endswith("; given up for now, a later request has it tried again")
    published = site.folder / "home/datastore/pstamp_results/page"
    assert (published / "parse_error.txt").read_text() == f"PSTAMP_NOT_AVAILABLE (25): {said}\n"
    assert f"    25: {said}\n" in site.types("pstamp why job 1")

    # The cause is mended; a request that comes too early waits until the cool-down is over.
    site.types(f"pstamp simtest order survey warp 40004 {CELL} nothing")
    site.clock.forward(600)
    site.sends("later", "diff 50004 31 21", CELL)
    assert "it is tried again after 2027-01-15 09:03:30 UTC\n" in site.types("pstamp why job 2")
    for seconds, becomes in (
        (0, "changed 0, tried 0: diff cleaned 0, warp update 2, chip full 0 80004"),
        (2999, "changed 0, tried 0: diff cleaned 0, warp update 2, chip full 0 80004"),
        (1, "changed 0, tried 1: diff cleaned 0, warp full 0, chip full 0 80004"),
        (10, "changed 0, tried 1: diff full 0, warp full 0, chip full 0 80004"),
        (10, "changed 1, tried 0: diff full 0, warp full 0, chip full 0 80004"),
    ):
        assert site.turn(seconds) == becomes
    assert site.types("pstamp_job_run --job_id 2") == "job 2: stop\n"
    assert site.types("request_finish --req_id 2") == "request 2: stop\n"
    assert {(row["ERROR_CODE"], row["CAUSE"]) for row in site.results("later")} == {(0, 0)}
    assert site.check_stamps("later", 31, 21) > 0
