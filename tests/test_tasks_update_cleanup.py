"""What must not be cleaned, and what is put away because nobody needs it any more.

The numbers in the docstrings are those of update-processing.md: §8 lists the weaknesses, §8.1 the acceptance checks.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mariadb
import pytest
from conftest import SECOND, Clock, Rows
from test_imagedb_updates import CELL, CLEANED, FULL, World

from pstamp_core.faults import UserError
from pstamp_core.imagedb import ImageDB, Key, made_again, put_away
from pstamp_core.imagedb import tables as t
from pstamp_core.imagedb.putaway import Run
from pstamp_core.machines import DependentState, JobState
from pstamp_core.settings import Settings
from pstamp_core.store import Store, pstampDependent, pstampJob, pstampProject
from pstamp_core.tasks.dependents import check_dependents, image_database
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.table import do_task
from pstamp_core.tasks.update_cleanup import Tidied, pins, queue_update_cleanup
from runners import pstamp_queue_update_cleanup

DAY = 86_400


@pytest.fixture(scope="module")
def mysql_images(mysql_server: str) -> Iterator[str]:
    """The address of an image database on MariaDB."""
    with mariadb.database(mysql_server) as address:
        ImageDB(address).create()
        yield address


@pytest.fixture
def dbname(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The image database of project gpc1, empty, on the engine of the server's."""
    if engine == "sqlite":
        ImageDB(str(tmp_path / "gpc1.db")).create()
        return "gpc1.db"
    address = str(request.getfixturevalue("mysql_images"))
    db = ImageDB(address)
    with db.session(), db.db.atomic():
        for table in t.TABLES:
            table.delete().execute()
    return address


@pytest.fixture
def server(store: Store, tmp_path: Path, dbname: str) -> Server:
    pstampProject.create(name="gpc1", dbname=dbname)
    return Server(Settings(tmp_path), store)


@pytest.fixture
def images(server: Server, dbname: str) -> Iterator[World]:
    """An image database in which time stands still."""
    db, policy = image_database(server, dbname)
    with db.session():
        world = World(db)
        world.policy = policy
        yield world


class Wants:
    """Makes jobs as parsing does."""

    def __init__(self, server: Server, rows: Rows, dbname: str) -> None:
        self.server, self.rows, self.dbname = server, rows, dbname

    def job(self, key: Key, state: JobState = JobState.RUN, *, dependent: bool = False, **columns: Any) -> pstampJob:
        values = dict(zip(("stage", "stage_id", "component"), key, strict=True))
        params = json.dumps({"row": {}, "imagedb": self.dbname, "imageroot": "", **values})
        now = {"changed_at": self.server.store.now()}
        if dependent:
            open_key = f"{self.dbname}|{key[0]}|{key[1]}|{key[2]}"
            made = self.rows.dependent(imagedb=self.dbname, open_key=open_key, **values, **now)
            columns["dep_id"] = made.dep_id
        return self.rows.job(self.rows.request(label="ana"), state, params=params, **{**now, **columns})

    def made(self, images: World, key: Key) -> pstampJob:
        """Let a job have its image made again, all of it."""
        job = self.job(key, dependent=True)
        for _ in range(8):
            check_dependents(self.server, 10)
            images.now = self.server.store.now()
            images.process()
            self.server.store._clock.forward(5)  # type: ignore[union-attr]
        assert images.state(key)[1] == "full"
        return job

    def done(self, *jobs: pstampJob) -> None:
        pstampJob.update(state=JobState.STOP).where(pstampJob.job_id.in_([job.job_id for job in jobs])).execute()


@pytest.fixture
def wants(server: Server, rows: Rows, dbname: str) -> Wants:
    return Wants(server, rows, dbname)


def tidy(server: Server, **options: Any) -> Tidied:
    """What became of the one image database; its name is on test elsewhere."""
    (found,) = queue_update_cleanup(server, **{"limit": 100, **options})
    return replace(found, imagedb="")


# -- pins ------------------------------------------------------------------------------------------------------------

CHAIN = {
    *[("chip", number, name) for number in (11, 21) for name in ("XY31", "XY32")],
    *[("warp", number, CELL) for number in (11, 21)],
    ("diff", 1, CELL),
}


def of_pixels(found: set[Key]) -> set[Key]:
    """Without what is never cleaned."""
    return {key for key in found if key[0] in ("chip", "warp", "diff")}


def test_all_that_an_image_has_to_be_made_of_is_held_until_it_is_there(
    server: Server, images: World, wants: Wants, dbname: str
) -> None:
    """§8 point 17: the whole chain; each input only as long as something has to be made of it."""
    diff = images.whole_diff()
    job = wants.job(diff, dependent=True)
    held = []
    for _ in range(7):
        check_dependents(server, 10)
        held.append(of_pixels(pins(server, dbname)))
        images.process()
        server.store._clock.forward(5)  # type: ignore[union-attr]
    warps = {key for key in CHAIN if key[0] != "chip"}
    assert held == [CHAIN, CHAIN, warps, {diff}, {diff}, {diff}, {diff}]
    wants.done(job)
    assert pins(server, dbname) == set()


@pytest.mark.parametrize("state", [JobState.RUN, JobState.PARSED])
def test_a_job_that_waits_for_nothing_holds_its_image(
    server: Server, images: World, wants: Wants, dbname: str, state: JobState
) -> None:
    """§8 point 16: whether it has a dependent, or found its image there."""
    chip = images.chip(11, FULL)
    wants.job(chip, state)
    wants.job(chip, state)
    wants.job(images.stack(7), state)
    assert pins(server, dbname) == {chip}


def test_what_holds_nothing(server: Server, images: World, wants: Wants, dbname: str, rows: Rows) -> None:
    """§8 point 16: a stuck dependent without jobs; jobs that have ended, or of another database, or without image."""
    chips = [images.chip(number, CLEANED) for number in range(11, 16)]
    wants.job(chips[0], JobState.STOP, dependent=True)
    wants.job(chips[1], JobState.CANCEL, fault=32)
    other = Wants(server, rows, "elsewhere.db")
    other.job(chips[2])
    for params in ("", "no json", "{}", "[]", '{"row": {}}', "null", json.dumps({"imagedb": dbname, "stage": "chip"})):
        rows.job(params=params, changed_at=server.store.now())
    assert pins(server, dbname) == set()
    wants.job(chips[3])
    assert pins(server, dbname) == {chips[3]}


def test_a_job_that_does_not_move_holds_its_image_for_a_week(
    server: Server, images: World, wants: Wants, dbname: str, clock: Clock
) -> None:
    idle, moved = images.chip(11, FULL), images.chip(12, FULL)
    wants.job(idle)
    late = wants.job(moved, dependent=True, changed_at=1)  # its dependent has moved since
    assert late.changed_at == 1
    clock.forward(7 * DAY)
    assert pins(server, dbname) == {idle, moved}
    clock.forward(1)
    assert pins(server, dbname) == set()
    server.settings = replace(server.settings, pin_days=0.0)
    assert pins(server, dbname) == {idle, moved}
    server.settings = replace(server.settings, pin_days=8.0)
    assert pins(server, dbname) == {idle, moved}


# -- putting away ----------------------------------------------------------------------------------------------------


def test_what_was_made_is_put_away_when_its_time_is_over(
    server: Server, images: World, wants: Wants, clock: Clock
) -> None:
    """From the request to `goto_cleaned`, under the runs' own labels (§8 points 6 and 16)."""
    diff = images.whole_diff()
    job = wants.made(images, diff)
    assert {images.run(key).state for key in CHAIN} == {"full"}
    assert tidy(server) == Tidied("", needed=1, recent=4)
    wants.done(job)
    assert tidy(server) == Tidied("", recent=5)
    clock.forward(DAY)
    assert tidy(server) == Tidied("", queued=5)
    assert {(images.run(key).state, images.run(key).label) for key in CHAIN} == {("goto_cleaned", "own")}
    assert {images.state(key)[1] for key in CHAIN} == {"full"}
    assert tidy(server) == Tidied("")


def test_an_image_of_a_released_job_is_kept(server: Server, images: World, wants: Wants, clock: Clock) -> None:
    """§8.1 check 11; and the chips of a warp that is still to be made (§8 point 17)."""
    images.chip(11)
    warp = images.warp(11)
    job = wants.job(warp, dependent=True)
    check_dependents(server, 10)
    images.process()  # the chip
    clock.forward(2 * DAY)
    assert tidy(server).needed == 1
    assert images.run(("chip", 11, "XY31")).state == "full"
    check_dependents(server, 10)
    images.now = clock.now
    images.process()  # the warp
    clock.forward(5)
    check_dependents(server, 10)
    clock.forward(2 * DAY)
    assert tidy(server) == Tidied("", queued=1, needed=1)
    assert (images.run(("chip", 11, "XY31")).state, images.run(warp).state) == ("goto_cleaned", "full")
    wants.done(job)
    assert tidy(server) == Tidied("", queued=1)


def test_a_run_is_kept_as_a_whole(server: Server, images: World, wants: Wants, clock: Clock) -> None:
    images.chip(11, CLEANED, "XY31", "XY32", "XY33")
    first = wants.made(images, ("chip", 11, "XY31"))
    wants.made(images, ("chip", 11, "XY32"))
    clock.forward(2 * DAY)
    wants.done(first)
    assert images.run(("chip", 11, "XY31")).state == "update"  # the third is not there
    assert tidy(server) == Tidied("", needed=1)


def test_what_nobody_waits_for_any_more_is_not_made(server: Server, images: World, wants: Wants) -> None:
    """Its jobs were cancelled while it was in update; its dependent, which nobody looks at, blocks nothing (§8, 16)."""
    chip = images.chip(11)
    job = wants.job(chip, dependent=True)
    check_dependents(server, 10)
    assert (images.state(chip), images.run(chip).label) == (("update", "update", 0), "ps_ud_ana")
    assert tidy(server) == Tidied("", needed=1)
    pstampJob.update(state=JobState.CANCEL, fault=32).where(pstampJob.job_id == job.job_id).execute()
    assert tidy(server) == Tidied("", queued=1)
    assert (images.run(chip).state, images.run(chip).label) == ("goto_cleaned", "own")
    assert t.pstampRunLabel.select().count() == 0


def test_runs_of_others_are_left_alone(server: Server, images: World, wants: Wants, clock: Clock) -> None:
    """A run in which more is there than was made for us belongs to somebody; so does one that was made once and since.

    One under an update label is an update's as a whole, whoever gave it that, as for IPP.
    """
    science = images.chip(11, ("full", "cleaned"), "XY31", "XY32")
    images.set(("chip", 11, "XY32"), data_state="full")
    again = images.chip(12)
    theirs = images.chip(13, FULL)
    t.chipRun.update(label="ps_ud_by_hand").where(t.chipRun.chip_id == 13).execute()
    wants.done(wants.made(images, science), wants.made(images, again))
    clock.forward(2 * DAY)
    images.set(again, "cleaned", data_state="cleaned")
    assert tidy(server) == Tidied("", queued=1)
    assert [images.run(key).state for key in (science, again, theirs)] == ["full", "cleaned", "goto_cleaned"]
    images.set(again, "full", data_state="full")
    assert tidy(server) == Tidied("")
    assert images.run(theirs).label == "ps_ud_by_hand"


def test_runs_that_others_work_on_are_left_alone(server: Server, images: World, wants: Wants, clock: Clock) -> None:
    """Under their own label: another component is in update, or one that we gave up for now."""
    chip, failed = images.chip(11, CLEANED, "XY31", "XY32"), images.chip(12)
    wants.done(wants.made(images, chip))
    clock.forward(2 * DAY)
    t.pstampRunLabel.delete().execute()
    images.set(("chip", 11, "XY32"), data_state="update")
    t.pstampUpdate.insert(stage="chip", stage_id=12, component="XY31", attempts=3, fault=2, cause=2,
                          retry_at=clock.now + 3 * DAY * SECOND).execute()  # fmt: skip
    t.pstampUpdate.insert(stage="chip", stage_id=11, component="XY32", attempts=1, queued_at=1).execute()
    images.set(failed, "update")
    images.put(t.warpRun, warp_id=11, fake_id=11, state="full", label="own")  # a number that stages share
    t.chipRun.update(label="own").execute()
    assert tidy(server) == Tidied("")
    assert images.effort(failed).attempts == 3  # the cool-down goes on
    images.set(("chip", 11, "XY32"), data_state="full")
    assert tidy(server) == Tidied("")


def test_own_labels_come_back_first(server: Server, images: World) -> None:
    """IPP's update server sets a run full, and leaves the label to us; else it would be taken for an update's."""
    chip = images.chip(11, FULL)
    t.chipRun.update(label="ps_ud_x").execute()
    images.put(t.pstampRunLabel, stage="chip", stage_id=11, label="own", priority=5)
    assert tidy(server) == Tidied("")
    assert images.run(chip).label == "own"


@pytest.mark.parametrize("state", ["new", "wait", "cleaned", "goto_cleaned", "error_cleaned", "purged", "goto_purged"])
def test_states_that_are_left_alone(server: Server, images: World, state: str) -> None:
    chip = images.chip(11, (state, "full"))
    t.chipRun.update(label="ps_ud_x").execute()
    assert tidy(server) == Tidied("")
    assert images.run(chip).state == state


def test_only_some_labels(server: Server, images: World, wants: Wants, clock: Clock) -> None:
    for number, label in ((11, "ps_ud_web"), (12, "ps_ud_ana"), (13, "own"), (14, None)):
        images.chip(number, FULL)
        t.chipRun.update(label=label).where(t.chipRun.chip_id == number).execute()
    wants.done(wants.made(images, images.chip(15)))
    clock.forward(2 * DAY)
    assert tidy(server, labels="%web") == Tidied("", queued=1)
    assert tidy(server, labels="ps_ud%") == Tidied("", queued=1)
    assert [row.chip_id for row in t.chipRun.select().where(t.chipRun.state == "goto_cleaned")] == [11, 12]
    assert tidy(server) == Tidied("", queued=1)
    assert [row.chip_id for row in t.chipRun.select().where(t.chipRun.state == "full")] == [13, 14]


def test_how_long_it_is_kept(server: Server, images: World, wants: Wants, clock: Clock) -> None:
    wants.done(wants.made(images, images.chip(11)))
    made_at = images.effort(("chip", 11, "XY31")).made_at
    server.settings = replace(server.settings, keep_made_days=2.0)
    clock.now = made_at + 2 * DAY * SECOND - 1
    assert tidy(server).recent == 1
    clock.now += 1
    assert tidy(server).queued == 1


@pytest.mark.parametrize(("days", "left"), [(14.0, {"young.log"}), (0.0, {"old.log", "young.log"})])
def test_old_logs_are_deleted(server: Server, clock: Clock, days: float, left: set[str]) -> None:
    """What is no log stays, and nothing else below the work directory is looked at."""
    server.settings = replace(server.settings, preserve_days=days)
    for folder in ("updates", "dependents", "2027"):
        (server.settings.work / folder).mkdir(parents=True)
        for name, age in (("old.log", 14 * DAY + 1), ("young.log", 14 * DAY - 1), ("old.txt", 99 * DAY)):
            path = server.settings.work / folder / name
            path.touch()
            os.utime(path, (clock.now / SECOND - age,) * 2)
    queue_update_cleanup(server, 10)
    for folder in ("updates", "dependents"):
        assert {path.name for path in (server.settings.work / folder).iterdir()} == left | {"old.txt"}
    assert len(list((server.settings.work / "2027").iterdir())) == 3


def test_a_log_that_can_not_be_deleted_holds_up_nothing(
    server: Server, images: World, caplog: pytest.LogCaptureFixture
) -> None:
    images.chip(11, FULL)
    t.chipRun.update(label="ps_ud_x").execute()
    path = server.settings.work / "updates" / "a folder.log"
    path.mkdir(parents=True)
    os.utime(path, (0, 0))
    assert tidy(server).queued == 1
    assert caplog.messages == [f"{path}: Is a directory"]


def test_no_more_than_were_asked_for_and_what_is_needed_blocks_nothing(
    server: Server, images: World, wants: Wants
) -> None:
    for number in range(11, 18):
        images.chip(number, FULL)
        t.chipRun.update(label="ps_ud_x").execute()
    for number in (11, 12, 13):
        wants.job(("chip", number, "XY31"))
    assert tidy(server, limit=3) == Tidied("", queued=3, needed=3, later=1)
    assert tidy(server, limit=3) == Tidied("", queued=1, needed=3)


def test_a_run_that_changes_meanwhile_is_left_alone(images: World) -> None:
    for number in (11, 12):
        images.chip(number, FULL)
    t.chipRun.update(label="ps_ud_x").execute()
    runs = made_again(images.db)
    assert runs == [Run("chip", 11, "full", 0), Run("chip", 12, "full", 0)]
    images.set(("chip", 11, "XY31"), "update")
    for number in (11, 12):
        images.put(t.pstampRunLabel, stage="chip", stage_id=number, label="own", priority=5)
    assert put_away(images.db, runs) == 1
    found = [images.run(("chip", number, "XY31")) for number in (11, 12)]
    assert [(run.state, run.label) for run in found] == [("update", "ps_ud_x"), ("goto_cleaned", "own")]


def test_what_is_needed_again_is_taken_back(server: Server, images: World, wants: Wants, clock: Clock) -> None:
    """The checker and the one who puts away run at the same time: the later look wins, nothing is lost."""
    chip = images.chip(11)
    wants.done(wants.made(images, chip))
    clock.forward(2 * DAY)
    runs = made_again(images.db)
    wants.job(chip, dependent=True)
    put_away(images.db, runs)
    assert images.state(chip)[0] == "goto_cleaned"
    for _ in range(2):
        check_dependents(server, 10)
        clock.forward(5)
    assert (images.state(chip), images.run(chip).label) == (("update", "full", 0), "ps_ud_ana")
    assert tidy(server) == Tidied("", needed=1)


def test_all_stages(server: Server, images: World) -> None:
    images.chip(11, FULL)
    keys = [("chip", 11, "XY31"), images.warp(11, FULL), images.diff(1, FULL, warp1=11, warp2=11)]
    for table in (t.chipRun, t.warpRun, t.diffRun):
        table.update(label="ps_ud_x").execute()
    assert tidy(server).queued == 3
    assert {images.run(key).state for key in keys} == {"goto_cleaned"}


# -- several databases, and the command -----------------------------------------------------------------------------


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: Server) -> Command:
    monkeypatch.setattr(pstamp_queue_update_cleanup, "server_of", lambda _home, **_: server)

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pstamp_queue_update_cleanup", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            pstamp_queue_update_cleanup.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


@pytest.mark.parametrize("engine", ["sqlite"])
def test_a_database_that_is_away_keeps_no_other_from_it(
    server: Server, images: World, wants: Wants, command: Command, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pstampProject.create(name="aaa", dbname="away.db")
    for number in (11, 12, 13):
        images.chip(number, FULL)
    t.chipRun.update(label="ps_ud_x").execute()
    wants.job(("chip", 11, "XY31"))
    away = f"database {tmp_path / 'away.db'}: no such file"
    assert command("--limit", 1) == (
        2, "gpc1.db: runs to be cleaned: 1; kept: 1 needed by jobs, 0 made lately, 1 for the next time\n",
        f"pstamp: away.db: {away}\n",
    )  # fmt: skip
    assert do_task(server, "pstamp.queue.update.cleanup") == 1
    assert caplog.messages == [f"update cleanup of away.db: {away}"]
    assert command("--imagedb", "gpc1.db", "--label", "ps_ud%") == (
        0, "gpc1.db: runs to be cleaned: 0; kept: 1 needed by jobs, 0 made lately\n", "",
    )  # fmt: skip
    assert command("--imagedb", "mysql://u:secret@h/n") == (
        5, "", "pstamp: image database mysql://u:***@h/n: expected one of away.db, gpc1.db\n",
    )  # fmt: skip
    with pytest.raises(UserError):
        queue_update_cleanup(server, 1, "gpc1")


@pytest.mark.parametrize("engine", ["sqlite"])
def test_a_dependent_that_is_held_by_an_operator_holds_its_image(
    server: Server, images: World, wants: Wants, dbname: str
) -> None:
    chip = images.chip(11)
    job = wants.job(chip, dependent=True)
    pstampDependent.update(state=DependentState.HOLD).where(pstampDependent.dep_id == job.dep_id).execute()
    assert chip in pins(server, dbname)
