"""The update server: programs that work, fail, hang, lie and vanish; several servers; one that is killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fitsio
import mariadb
import numpy as np
import pytest
import servers
from astropy.io import fits
from conftest import ENGINES, SECOND, Clock
from programs import SUFFIXES
from serving import environment, wait_for
from test_imagedb_updates import ANA, CELL, FULL, World
from worlds import sky_image

from pstamp_core.imagedb import ImageDB, Key, Work, look
from pstamp_core.imagedb import tables as t
from pstamp_core.settings import load_settings
from pstamp_core.store import pstampProject
from pstamp_core.tasks import update
from pstamp_core.tasks.run import run
from pstamp_core.tasks.serve import Scheduler
from pstamp_core.tasks.server import Server, add_project, make_server
from pstamp_core.tasks.update import update_components, would_update
from simtest.components import PIXELS, clean
from simtest.images import STREAK
from simtest.process import process
from simtest.survey import Survey, restore_all, simulate

PROGRAM = Path(__file__).with_name("programs.py")
UPDATE = ("update", "update")


class Site(World):
    """A server with an image database in which components are in `update`, and the site's programs."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder / "site"
        (self.folder / "files").mkdir(parents=True)
        self.address = address
        super().__init__(ImageDB(address, self.folder))
        words = [sys.executable, "-S", str(PROGRAM), "{root}", "{path_base}", "{stage}", "{stage_id}", "{component}"]
        self.home = folder / "home"
        self.home.mkdir()
        (self.home / "pstamp.toml").write_text(
            f"update_chip = {[*words, '{database}']}\nupdate_warp = {words}\nupdate_at_once = 4\nretry_seconds = 0.0\n"
        )
        self.server = make_server(self.home)
        add_project(self.server, "gpc1", address, str(self.folder))
        self.server.store._clock = self.clock = Clock()
        image = self.folder / "files" / "good"
        sky_image(image)
        self.header = fits.getheader(image)
        fits.writeto(self.folder / "files" / "small", np.zeros((40, 49), "f4"))
        fits.PrimaryHDU(np.zeros((40, 50), "f4")).writeto(self.folder / "files" / "wrong_sum", checksum=True)
        with (self.folder / "files" / "wrong_sum").open("r+b") as stream:
            stream.seek(2880)
            stream.write(b"x")
        packed = self.folder / "files" / "rotten"
        fitsio.write(str(packed), np.arange(2000, dtype="f4").reshape(40, 50), compress="GZIP", qlevel=0)
        content = bytearray(packed.read_bytes())
        start = content.index(b"END", 2880) // 2880 * 2880 + 2880
        content[start + 2400 : start + 2800] = bytes(400)
        packed.write_bytes(content)
        (self.folder / "files" / "garbage").write_bytes(b"no FITS at all")
        (self.folder / "files" / "cut").write_bytes(image.read_bytes()[:6000])

    def settings(self, **changes: Any) -> None:
        self.server.settings = replace(self.server.settings, **changes)

    def wants(self, number: int, does: str = "work", **row: Any) -> Key:
        """A chip of 50 x 40 pixels in `update`, and what becomes of it."""
        base = f"c{number}"
        key = self.chip(number, UPDATE, **{"path_base": base, **row})
        self.db.add_footprint(*key, self.header, 50, 40)
        (self.folder / f"{base}.does").write_text(does)
        return key

    def told(self, name: str = "c*") -> list[str]:
        return [line for path in sorted(self.folder.glob(f"{name}.told")) for line in path.read_text().splitlines()]

    def log(self, key: Key) -> list[str]:
        """The log of a component, without times and names that differ."""
        text = (self.home / "work" / "updates" / f"{'.'.join(map(str, key))}.log").read_text()
        for pattern, word in ((r" it, by \S+: .*", " it, by WORKER: ..."), (r"\(\d+\.\d s\)", "(S s)")):
            text = re.sub(pattern, word, text)
        return [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "AT", line) for line in text.splitlines()]


@pytest.fixture
def address(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty image database; on SQLite unless a test asks for both engines."""
    if getattr(request, "param", "sqlite") == "sqlite":
        path = str(tmp_path / "images.db")
        ImageDB(path).create()
        yield path
        return
    with mariadb.database(request.getfixturevalue("mysql_server")) as made:
        ImageDB(made).create()
        yield made


@pytest.fixture
def site(tmp_path: Path, address: str) -> Iterator[Site]:
    made = Site(tmp_path, address)
    with made.db.session():
        yield made


BOTH = pytest.mark.parametrize("address", ENGINES, indirect=True)


@BOTH
def test_what_is_in_update_is_made_inputs_first(site: Site) -> None:
    chips = [site.wants(number) for number in (11, 12, 13)]
    site.set(site.chip(14), quality=1)
    warp = site.warp(11, UPDATE, path_base="w11")
    shown: list[tuple[str, int, int]] = []
    assert would_update(site.server, 2) == ["chip 11 XY31", "chip 12 XY31"]
    assert update_components(site.server, 100, lambda *each: shown.append(each)) == 4
    assert [site.state(key) for key in (*chips, warp)] == [("full", "full", 0)] * 4
    address = re.sub(r":[^/@]*@", "@", site.address)
    assert site.told() == [f"chip {number} XY31 {address}" for number in (11, 12, 13)]
    assert site.told("w*") == [f"warp 11 {CELL}"]
    assert sorted(path.name for path in site.folder.glob("[cw]*.fits")) == sorted(
        [f"c{number}{suffix}" for number in (11, 12, 13) for suffix in SUFFIXES["chip"]]
        + [f"w11{suffix}" for suffix in SUFFIXES["warp"]]
    )
    assert site.log(chips[0]) == ["AT begins to make it, by WORKER: ...", "AT full (S s)"]
    assert shown[-1] == ("make images again", 4, 4)
    assert t.pstampLease.select().count() == 0
    assert site.effort(chips[0]).made_at == site.clock.now
    assert (update_components(site.server, 100), would_update(site.server, 9)) == (0, [])


END = {
    "fail 2 the disk is full": (2, "the disk is full"),
    "fail 6 too slow": (6, "too slow"),
    "fail 26 deleted": (26, "deleted"),
    "fail 77 odd": (1, "{python} ended in 77: odd"),
    "fail 10 odd": (1, "{python} ended in 10: odd"),
    "fail 3": (3, "first line"),
    "die": (2, "{python} was killed by SIGSEGV: without a word on standard error"),
    "garbage": (5, "{base}.ch.wt.fits: not a FITS file (it does not begin with SIMPLE)"),
    "cut": (5, "{base}.ch.wt.fits: truncated: 6000 bytes, but HDU 0 ends at 11520"),
    "rotten": (5, "{base}.ch.wt.fits: damaged: FITSIO status = 107: tried to move past end of file"),
    "small": (5, "{base}.ch.wt.fits: 49 x 40 pixels; expected 50 x 40"),
    "wrong_sum": (5, "{base}.ch.wt.fits: damaged: HDU 0 has another checksum than its header says"),
    "forget": (5, "{base}.ch.wt.fits: not written, though {python} ended in 0"),
    "leave": (5, "{base}.ch.fits: not written, though {python} ended in 0"),
}
"""What a program does, the code it comes to, and the reason."""


@BOTH
def test_a_failure_becomes_a_fault_with_its_reason(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    keys = {does: site.wants(number, does) for number, does in enumerate(END, 11)}
    for suffix in SUFFIXES["chip"]:  # left from an earlier time: not what was asked for
        shutil.copy(site.folder / "files" / "good", site.folder / f"c{keys['leave'][1]}{suffix}")
    assert update_components(site.server, 100) == len(END)
    for does, (fault, reason) in END.items():
        key = keys[does]
        said = reason.format(python=sys.executable, base=site.folder / f"c{key[1]}")
        name = {1: "PS_EXIT_UNKNOWN_ERROR", 2: "PS_EXIT_SYS_ERROR", 3: "PS_EXIT_CONFIG_ERROR",
                5: "PS_EXIT_DATA_ERROR", 6: "PS_EXIT_TIMEOUT_ERROR", 26: "PSTAMP_GONE"}[fault]  # fmt: skip
        assert site.state(key) == ("update", "update", fault)
        assert site.log(key)[-1] == f"AT fault {fault} ({name}): {said} (S s)"
        where = site.home / "work" / "updates" / f"chip.{key[1]}.XY31.log"
        assert f"chip {key[1]} XY31: fault {fault} ({name}): {said} (see {where})" in caplog.messages
        effort = site.effort(key)
        assert (effort.attempts, effort.cause) == (int(fault != 26), fault)
        assert effort.reason == (said if len(said) <= 200 else f"{said[:197]}...")
    said_by_program = sorted(site.log(keys["fail 2 the disk is full"])[1:-1])
    assert said_by_program == ["", "first line", "on standard output", "the disk is full"]
    assert t.pstampLease.select().count() == 0


def test_a_reason_is_one_short_line(site: Site) -> None:
    key = site.wants(11, f"fail 2 \x1b[31m{'long ' * 50}")
    assert update_components(site.server, 1) == 1
    reason = site.effort(key).reason
    assert len(reason) == 200
    assert reason == f"\\x1b[31m{'long ' * 38}..."[:197] + "..."


def test_a_program_that_can_not_be_started(site: Site) -> None:
    key = site.wants(11)
    site.settings(update_chip=("/no/such/program",))
    assert update_components(site.server, 1) == 1
    assert site.state(key)[2] == 3
    assert site.log(key)[-1] == (
        "AT fault 3 (PS_EXIT_CONFIG_ERROR): /no/such/program can't be started: No such file or directory (S s)"
    )


def test_what_has_no_place_is_not_begun(site: Site) -> None:
    nowhere, outside = site.wants(11, path_base=None), site.wants(12, path_base="../../c12")
    assert update_components(site.server, 100) == 2
    reasons = {
        nowhere: "the image database names no files for it",
        outside: f"path '../../c12' leads out of {site.folder}; expected a name below it",
    }
    for key, reason in reasons.items():
        assert site.state(key)[2] == 5
        assert site.log(key)[-1] == f"AT fault 5 (PS_EXIT_DATA_ERROR): {reason} (S s)"
    assert site.told("*") == []


def test_without_a_footprint_any_size_will_do(site: Site) -> None:
    key = site.chip(11, UPDATE, path_base="c11")
    (site.folder / "c11.does").write_text("small")
    assert update_components(site.server, 1) == 1
    assert site.state(key) == ("full", "full", 0)


def test_a_difference_made_both_ways_has_six_files(site: Site) -> None:
    site.stack(1)
    key = site.diff(1, UPDATE, mode=4, stack1=1, stack2=1)
    t.diffRun.update(bothways=True).execute()
    t.diffSkyfile.update(path_base="d1").execute()
    products = site.db.products(*key)
    assert products
    assert [path.name for path in products.files] == [
        "d1.fits", "d1.mask.fits", "d1.wt.fits", "d1.inv.fits", "d1.inv.mask.fits", "d1.inv.wt.fits",
    ]  # fmt: skip
    t.diffRun.update(bothways=False).execute()
    assert site.db.products(*key) == replace(products, files=products.files[:3])
    assert site.db.products("diff", 2, CELL) is None


def test_what_fails_twice_and_is_reverted_is_made(site: Site) -> None:
    key = site.wants(11, "fail 2 once\nfail 2 twice\nwork")
    for attempts in (1, 2):
        assert update_components(site.server, 100) == 1
        assert (site.state(key)[2], site.effort(key).attempts) == (2, attempts)
        assert update_components(site.server, 100) == 0
        look(site.db, {key: ANA}, site.policy, site.clock.now + 10**9)  # the checker puts it into update again
    assert update_components(site.server, 100) == 1
    assert site.state(key) == ("full", "full", 0)
    assert len(site.log(key)) == 3 * 2 + 2 * 4


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that is dead but not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_takes_too_long_is_killed_with_all_that_it_started(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "KILL_AFTER", 0.1)
    key = site.wants(11, "hang")
    site.settings(update_timeout=1.0)
    assert update_components(site.server, 1) == 1
    assert site.log(key)[-1] == (
        f"AT fault 6 (PS_EXIT_TIMEOUT_ERROR): {sys.executable} took more than 1 s; killed (S s)"
    )
    assert site.state(key)[2] == 6
    pids = [int(pid) for pid in (site.folder / "c11.pids").read_text().split()]
    wait_for(lambda: not any(map(lives, pids)))


def test_as_many_run_at_once_as_the_settings_say(site: Site) -> None:
    for number in range(11, 14):
        site.wants(number, "meet 3")
    assert update_components(site.server, 3) == 3
    assert {site.state(("chip", number, "XY31")) for number in (11, 12, 13)} == {("full", "full", 0)}


def test_no_more_is_taken_than_can_be_made_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.settings(update_at_once=2, update_timeout=300.0, lease_seconds=60.0)
    taken, claim = [], update.claim
    monkeypatch.setattr(update, "claim", lambda *args: taken.append(args) or claim(*args))
    for number in range(11, 16):
        site.wants(number)
    assert update_components(site.server, 4) == 4
    assert max(limit for _, _, limit, *_ in taken) == 2
    # The lease outlives the program, what it takes to kill it, and a silence of the server.
    assert {until - now for *_, now, until, _ in taken} == {362 * SECOND}
    assert len(would_update(site.server, 100)) == 1


def test_one_that_takes_long_holds_up_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put into update while it runs is taken, too."""
    monkeypatch.setattr(update, "LOOK", 0.05)
    site.settings(update_timeout=20.0)
    first = site.wants(11, "meet 2")
    looks, claim = [], update.claim

    def late(*args: Any) -> list[Work]:
        looks.append(args)
        if len(looks) == 3:
            site.wants(12)
        return claim(*args)

    monkeypatch.setattr(update, "claim", late)
    assert update_components(site.server, 100) == 2
    assert {site.state(key) for key in (first, ("chip", 12, "XY31"))} == {("full", "full", 0)}


def test_no_image_database_comes_last_for_ever(site: Site, tmp_path: Path) -> None:
    for number in range(11, 51):
        site.wants(number)
    other = ImageDB(str(tmp_path / "other.db"))
    other.create()
    add_project(site.server, "last", str(tmp_path / "other.db"), str(site.folder))
    with other.session():
        World(other).chip(99, UPDATE, path_base="z99")
    while not (site.folder / "z99.told").exists():
        assert update_components(site.server, 1) == 1
    assert would_update(site.server, 1000)  # but for one in 2**40 times


def test_no_password_reaches_a_command_line(site: Site) -> None:
    add_project(site.server, "far", "mysql://ps:secret@db1:3307/gpc1")
    assert [source.database for source in update._sources(site.server)][-1] == "mysql://ps@db1:3307/gpc1"


def test_a_stage_without_a_program_is_left_to_others(site: Site) -> None:
    site.chip(11, FULL)
    warp = site.warp(11, UPDATE, path_base="w11")
    chip = site.wants(12)
    site.settings(update_warp=())
    assert update_components(site.server, 100) == 1
    assert (site.state(warp), site.state(chip)) == (("update", "update", 0), ("full", "full", 0))
    site.settings(update_chip=())
    site.db.db.drop_tables(t.UPDATE_TABLES)
    site.server._imagedbs.clear()
    assert update_components(site.server, 100) == 0
    assert not set(site.db.db.get_tables()) & {table.__name__ for table in t.UPDATE_TABLES}


def test_a_run_that_was_purged_meanwhile_stays_purged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    key = site.wants(11, "purge")
    assert update_components(site.server, 100) == 1
    assert site.state(key) == ("purged", "purged", 0)
    said = "full; but it is not wanted any more: its state, or that of its run, was changed meanwhile"
    assert site.log(key)[-1] == f"AT {said} (S s)"
    assert f"chip 11 XY31: {said} (see {site.home}/work/updates/chip.11.XY31.log)" in caplog.messages
    assert (site.folder / "c11.ch.fits").exists()


def test_an_image_database_that_is_down_holds_up_no_other(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "z"):
        add_project(site.server, name, str(site.folder / f"{name}.db"))
    (site.folder / "a.db").touch()  # without tables
    key = site.wants(11)
    assert update_components(site.server, 100) == 1
    assert site.state(key) == ("full", "full", 0)
    told = [each for each in caplog.messages if re.fullmatch(r"update: database \S+/a\.db: no such table: \w+", each)]
    assert len(told) == 1
    assert f"update: database {site.folder}/z.db: no such file" in caplog.messages


def test_a_log_does_not_grow_without_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "LOG_SIZE", 2000)
    key = site.wants(11, "chatter")
    assert update_components(site.server, 1) == 1
    path = site.home / "work" / "updates" / "chip.11.XY31.log"
    assert path.stat().st_size < 2300
    *_, last, note, end = site.log(key)
    assert last.startswith("line ")
    assert (note, end) == ("... the rest of what it says is left out", "AT full (S s)")
    (site.folder / "c11.does").write_text("work")
    site.set(key, "update", data_state="update")
    assert update_components(site.server, 1) == 1
    assert site.log(key) == ["AT begins to make it, by WORKER: ...", "AT full (S s)"]


def test_a_log_that_can_not_be_written_stops_no_work(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    (site.home / "work" / "updates").touch()
    key = site.wants(11, "chatter")
    assert update_components(site.server, 1) == 1
    assert site.state(key) == ("full", "full", 0)
    assert f"{site.home}/work/updates: File exists" in caplog.messages


def test_the_name_of_a_component_leads_nowhere(site: Site) -> None:
    base = "../../x y"
    key = site.chip(11, UPDATE, base, path_base="c11")
    assert update_components(site.server, 1) == 1
    assert site.state(key) == ("full", "full", 0)
    assert [path.name for path in (site.home / "work" / "updates").iterdir()] == ["chip.11...%2F..%2Fx%20y.log"]
    assert site.told()[0].startswith("chip 11 ../../x y ")


def test_an_error_of_ours_is_a_fault_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def stamp(_: Path) -> None:
        raise KeyError("odd")

    monkeypatch.setattr(update, "_stamp", stamp)
    key = site.wants(11)
    assert update_components(site.server, 1) == 1
    assert site.state(key)[2] == 4
    assert site.log(key)[-1] == "AT fault 4 (PS_EXIT_PROG_ERROR): KeyError: 'odd' (S s)"


# -- destreaking -----------------------------------------------------------------------------------------------------


def test_a_chip_is_made_then_destreaked_and_then_its_warp(site: Site) -> None:
    with site.server.store.reading():
        pstampProject.update(need_magic=True).where(pstampProject.name == "gpc1").execute()
    site.policy = replace(site.policy, need_magic=True)
    chip = site.wants(11, "work\nfail 2 streaks\nleave", magicked=-1)
    site.destreak(11)
    warp = site.warp(11, path_base="w11", magicked=-1)
    site.settings(update_destreak=(*site.server.settings.update_chip, "destreak"))
    seen = []
    for step in range(6):
        look(site.db, {warp: ANA}, site.policy, site.clock.now + step * 10**9)
        seen.append((update_components(site.server, 100), site.told("*")[-1].split()[0], site.told("*")[-1][-8:]))
    magic = t.chipProcessedImfile.get().magicked, t.chipRun.get().magicked, t.warpSkyfile.get().magicked
    assert magic == (511, 511, 511)
    assert site.state(warp) == ("full", "full", 0)
    assert t.magicDSRun.get().state == "full"
    assert sum(count for count, *_ in seen) == 4
    assert [line.endswith("destreak") for line in site.told()] == [False, True, True]
    lines = [line for line in site.log(chip) if line.startswith("AT")]
    assert lines == [
        "AT begins to make it, by WORKER: ...", "AT full (S s)", "AT begins to destreak it, by WORKER: ...",
        "AT fault 2 (PS_EXIT_SYS_ERROR): streaks (S s)", "AT begins to destreak it, by WORKER: ...",
        "AT destreaked (S s)",
    ]  # fmt: skip


# -- several servers, and what is killed -----------------------------------------------------------------------------


def start(site: Site, *options: str) -> subprocess.Popen[str]:
    """Start `pstamp_update_run`, a process of its own."""
    command = ["pstamp_update_run", "--home", str(site.home), *options]
    env = environment(site.home.parent)
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@BOTH
def test_several_servers_make_each_component_once(site: Site) -> None:
    keys = [site.wants(number) for number in range(11, 31)]
    both = [start(site) for _ in range(2)]
    said = [server.communicate(timeout=60) for server in both]
    assert [server.returncode for server in both] == [0, 0]
    assert [error for _, error in said] == ["", ""]
    assert sum(int(out.removeprefix("components tried: ")) for out, _ in said) == len(keys)
    assert {site.state(key) for key in keys} == {("full", "full", 0)}
    assert len(site.told()) == len(keys)


def test_a_server_that_is_killed_leaves_its_work_to_others(site: Site) -> None:
    key = site.wants(11, "hang\nwork")
    dead = start(site)
    pids = wait_for(lambda: (site.folder / "c11.pids").exists() and (site.folder / "c11.pids").read_text().split())
    dead.kill()
    dead.communicate(timeout=60)
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    lease: Any = t.pstampLease.get()
    assert lease.owner != site.server.worker
    site.clock.now = lease.until - 1
    assert update_components(site.server, 100) == 0
    site.clock.now += 1
    assert update_components(site.server, 100) == 1
    assert site.state(key) == ("full", "full", 0)
    assert site.effort(key).attempts == 0


def test_a_server_that_is_late_overwrites_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = site.wants(11, "fail 2 slowly\nwork")
    store = update._store

    def late(*args: Any) -> None:
        monkeypatch.setattr(update, "_store", store)
        site.clock.forward(3600)
        heir = Server(load_settings(site.home))
        heir.store._clock = site.clock
        assert update_components(heir, 1) == 1
        store(*args)

    monkeypatch.setattr(update, "_store", late)
    assert update_components(site.server, 1) == 1
    said = "too late: another server may have taken it meanwhile; the result is thrown away"
    assert f"chip 11 XY31: {said} (see {site.home}/work/updates/chip.11.XY31.log)" in caplog.messages
    assert site.log(key)[-1] == f"AT {said} (S s)"
    assert site.state(key) == ("full", "full", 0)
    assert site.effort(key).attempts == 0


def test_told_to_stop_a_server_gives_back_what_it_has_begun(site: Site) -> None:
    key = site.wants(11, "hang\nwork")
    server = start(site)
    pids = wait_for(lambda: (site.folder / "c11.pids").exists() and (site.folder / "c11.pids").read_text().split())
    server.terminate()
    assert server.communicate(timeout=60) == ("", "pstamp: stopped; what was begun is given back\n")
    assert server.returncode == 2
    wait_for(lambda: not any(lives(int(pid)) for pid in pids))
    assert site.log(key)[-1] == "AT given back, since the server stops"
    assert site.effort(key).attempts == 0
    assert update_components(site.server, 100) == 1
    assert site.state(key) == ("full", "full", 0)


def test_the_command(site: Site) -> None:
    site.wants(11)
    site.wants(12, "fail 2 no luck")

    def said(*options: str) -> tuple[str, str, int]:
        done = start(site, *options)
        out, error = done.communicate(timeout=60)
        return out, error, done.returncode

    assert said("--no-update") == ("would make chip 11 XY31, chip 12 XY31\n", "", 0)
    assert said("--no-update", "--limit", "1") == ("would make chip 11 XY31\n", "", 0)
    assert said("--limit", "1", "--redirect-output") == ("", "", 0)
    out, error, code = said("--verbose")
    assert (out, code) == ("components tried: 1\n", 0)
    assert re.search(r"WARNING chip 12 XY31: fault 2 \(PS_EXIT_SYS_ERROR\): no luck \(see \S+12\.XY31\.log\)$", error)
    assert said("--no-update") == ("would make (none)\n", "", 0)
    (site.home / "pstamp.toml").write_text("")
    assert said() == ("components tried: 0; pstamp.toml names no programs (see --help)\n", "", 0)


def test_serve_starts_it_where_there_are_programs(site: Site) -> None:
    def names() -> list[str]:
        return [task.name for task in Scheduler(site.server, {}, workers=1)._outside]

    assert "pstamp.update" in names()
    site.settings(update_chip=())
    assert "pstamp.update" in names()
    site.settings(update_warp=())
    assert "pstamp.update" not in names()


# -- the simulated survey, which really processes --------------------------------------------------------------------


def of_survey(home: Path, survey: Survey) -> Server:
    """A server that makes the survey's images again."""
    words = [sys.executable, "-m", "simtest.process", "{root}"]
    lines = [f"update_{kind} = {[*words, kind, '{stage_id}', '{component}']}" for kind in (*PIXELS, "destreak")]
    return servers.make(home, survey, "\n".join(["retry_seconds = 0.0", *lines, ""]))


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.fits")}


def test_a_difference_is_made_of_warps_made_of_chips_as_it_was(tmp_path: Path) -> None:
    """Everything is cleaned; what is made again has the bytes that it had."""
    survey = simulate(tmp_path / "survey", size=80)
    before = all_files(survey.folder)
    inputs: Any = t.diffInputSkyfile
    with ImageDB(str(survey.database)).session():
        diff = inputs.get(inputs.diff_id == survey.warp_diff)
        warps = [survey.warp_ids.index(number) for number in (diff.warp1, diff.warp2)]
        cell = t.warpSkyCellMap
        below = {
            row.skycell_id: cell.select().where(cell.skycell_id == row.skycell_id, cell.warp_id == diff.warp1).count()
            for row in cell.select()
        }
    component = min(below, key=lambda name: below[name])
    clean(survey.folder, "diff", survey.warp_diff)
    for index in warps:
        clean(survey.folder, "warp", survey.warp_ids[index])
        clean(survey.folder, "chip", survey.chip_ids[index])
    missing = before.keys() - all_files(survey.folder).keys()
    server = of_survey(tmp_path / "home", survey)
    wanted = servers.row(1, survey, req="byid", img="diff", id=survey.warp_diff, component=component, coord=3, x=0, y=0,
                         tess="null", filter="null")  # fmt: skip
    number = servers.send(server, tmp_path, wanted)
    run(server, workers=1)
    assert servers.codes(server, number) == {1: [0]}
    made = all_files(survey.folder)
    assert len(made.keys() & missing) == 3 * (1 + 2 + 2 * below[component])
    assert made.items() <= before.items()


def test_where_streaks_matter_a_chip_is_destreaked_before_it_is_shown(tmp_path: Path) -> None:
    survey = simulate(tmp_path / "survey", size=80, magic=True)
    restore_all(survey.folder)
    for name in survey.chips:
        process(survey.folder, "destreak", survey.streaked, name)
    before = all_files(survey.folder)
    masks = survey.folder.rglob(f"*.ch.{survey.streaked}.*.ch.mk.fits")
    chip = next(path.name.split(".")[-4] for path in masks if (fits.getdata(path) & STREAK).any())
    clean(survey.folder, "chip", survey.streaked, chip)
    server = of_survey(tmp_path / "home", survey)
    with server.store.reading():
        pstampProject.update(need_magic=True).where(pstampProject.name == "gpc1").execute()
    chips = {"req": "byid", "img": "chip", "coord": 3, "x": 0, "y": 0, "tess": "null", "filter": "null"}
    number = servers.send(server, tmp_path, servers.row(1, survey, id=survey.streaked, component=chip, **chips))
    run(server, workers=1)
    assert servers.codes(server, number) == {1: [0]}
    assert all_files(survey.folder) == before
    (log,) = (tmp_path / "home" / "work" / "updates").iterdir()
    assert len(re.findall("destreaked", log.read_text())) == 1
