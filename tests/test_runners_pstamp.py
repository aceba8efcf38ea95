"""The command `pstamp`, as people type it."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from astropy.io import fits

from runners import pstamp
from simtest.survey import Survey

Result = tuple[int, str, str]
Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run `pstamp` with arguments in an empty folder; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    for name in ("PSTAMP_HOME", "PSTAMP_DB"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["pstamp", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            pstamp.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


def sky_image(path: Path, extension: int = 0) -> Path:
    """An image of 50 x 40 pixels at RA 10, Dec 20, in the primary HDU or an extension."""
    header = fits.Header()
    for key, value in {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 25.0, "CRPIX2": 20.0,
        "CDELT1": -1e-4, "CDELT2": 1e-4, "FILTER": "R", "DATE-OBS": "2020-05-31T12:00:00",
    }.items():  # fmt: skip
        header[key] = value
    data = np.arange(2000, dtype="f4").reshape(40, 50)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, header)] if extension else [fits.PrimaryHDU(data, header)]
    fits.HDUList(hdus).writeto(path)
    return path


TEXT = """own_1 2 PROCESS me@home.org
1 10 20 8 6 2 stamp 65 local null null bycoord stack null null null null R 0 0 null 0 0 | by position
2 10 20 8 6 2 stamp 1 local null null byskycell stack null local two null null 0 0 null 0 0 | by the file's name
3 10 20 8 6 2 stamp 1 local null null bycoord stack null null null null R 59001 59002 null 0 0 | too late
"""


def test_a_folder_of_images_serves_a_request(command: Command, tmp_path: Path) -> None:
    assert command("init") == (
        0, f"server in {tmp_path}/pstamp-home; settings in {tmp_path}/pstamp-home/pstamp.toml\n", "",
    )  # fmt: skip
    bad = tmp_path / "bad.fits"
    bad.write_text("no image")
    code, out, err = command(
        "images", "add", sky_image(tmp_path / "one.fits"), sky_image(tmp_path / "two.fits", 1), bad
    )
    assert code == 0
    assert out.splitlines()[-1] == "2 images added to project local, 1 refused"
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ["one.fits", "0", "1", "one", "R", "59000.500"],
        ["two.fits", "1", "2", "two", "R", "59000.500"],
    ]
    assert f"pstamp: refused {bad}: not a FITS file" in err
    (tmp_path / "own.txt").write_text(TEXT)
    assert command("request", "make", "own.txt")[:2] == (0, "own_1.fits\n")
    assert command("submit", "own_1.fits") == (0, "1\n", "")
    code, out, _ = command("run", "--workers", "1")
    assert (code, out) == (0, "nothing waits\n")
    code, out, _ = command("results", 1)
    rows = [line.split() for line in out.splitlines()[1:-2]]
    assert [(row[0], row[1]) for row in rows] == [*[("1", "0")] * 4, ("2", "0"), ("3", "23")]
    folder = tmp_path / "pstamp-home/datastore/pstamp_results/own_1"
    assert out.splitlines()[-1] == f"fileset: {folder}"
    with fits.open(folder / "2_1_R_two.fits") as hdus:
        (stamp,) = [hdu for hdu in hdus if hdu.data is not None]
        np.testing.assert_array_equal(stamp.data, np.arange(2000, dtype="f4").reshape(40, 50)[16:22, 20:28])
    code, out, _ = command("sheet", 1, "--out", "sheet.png")
    assert (code, out) == (0, "3 stamps on sheet.png\n")
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


def test_what_waits_is_told_and_ordered(command: Command, survey: Survey, tmp_path: Path) -> None:
    command("init", "--home", "h")
    assert (
        command("project", "add", "gpc1", "--imagedb", survey.database, "--root", survey.folder, "--home", "h")[0] == 0
    )
    which = f"byid warp {survey.cleaned_warp} null {survey.skycells[0]}"
    row = f"1 0 0 0 0 3 stamp 1 gpc1 null null {which} null null 0 0 null 0 0"
    (tmp_path / "w.txt").write_text(f"wait_1 2 PROCESS me@home.org\n{row} |\n")
    command("request", "make", "w.txt", "--out", "w.fits")
    command("submit", "w.fits", "--home", "h")
    code, out, _ = command("run", "--home", "h", "--workers", "1")
    component = f"warp {survey.cleaned_warp} {survey.skycells[0]}"
    waiting = f"dependent 1: {component}: being made again"
    assert code == 0
    assert out.splitlines()[1].endswith(waiting)
    out = command("status", "--home", "h")[1]
    assert waiting in out
    state = json.loads(command("status", "--json", "--home", "h")[1])
    assert [each["why"] for each in state["stuck"]] == [waiting]
    assert {each["name"]: each["held"] for each in state["queues"]}["run"] == 1
    out = command("why", "request", 1, "--home", "h")[1]
    assert re.search(rf"\n      component {component}: run update, pixels update for \d+ s \(1 try\)\n", out)
    assert out.endswith("to wait no longer: pstamp stop dependent 1\n")
    assert "reason               being made again" in command("show", "dependent", 1, "--home", "h")[1]
    assert f"\n  component          {survey.skycells[0]}\n" in command("show", "job", 1, "--home", "h")[1]
    assert command("history", "job", 1, "--home", "h")[1].splitlines()[-1].split()[2:5] == ["make", "run", "0"]
    out = command("log", "dependent", 1, "--home", "h")[1]
    assert out.splitlines()[0] == f"==> {tmp_path}/h/work/dependents/checkdep.1.log <=="
    assert "waits: cleaned, must be made again" in out
    code, out, err = command("stop", "dependent", 1, "--home", "h")
    effects = """\
rows  of         event    from  to    fault  cause  which
   1  job        give_up  run   stop     25             1
   1  dependent  give_up  new   stop     25             1
"""
    assert (code, out, err) == (3, effects, "pstamp: nothing was done: not on a terminal, so say --yes\n")
    assert command("stop", "dependent", 1, "--home", "h", "--dry-run") == (
        0, f"{effects}nothing was done: a dry run\n", "",
    )  # fmt: skip
    assert waiting in command("status", "--home", "h")[1]
    assert command("stop", "dependent", 1, "--home", "h", "--yes", "--why", "no disk") == (0, effects, "")
    assert command("run", "--home", "h", "--workers", "1")[1] == "nothing waits\n"
    assert "given up by " in command("results", 1, "--home", "h")[1]
    assert command("revert", "job", 1, "--home", "h")[::2] == (
        5, "pstamp: job 1: revert refused, not possible in state stop (legal ways on: none, it has ended)\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["status"], 3, "no server in pstamp-home (pstamp.toml is missing); make one with: pstamp init"),
        (["submit", "nosuch.fits", "--home", "h"], 5, "nosuch.fits: there is no such file; expected a FITS file"),
        (["results", "7", "--home", "h"], 5, "there is no request 7"),
        (["show", "jobs", "7", "--home", "h"], 3, "'jobs' is not one of 'request', 'job', 'dependent'"),
        (["history", "jobs", "7", "--home", "h"], 5, "'jobs': expected one of request, job, dependent"),
        (["history", "job", "x", "--home", "h"], 5, "job 'x': expected its number"),
        (["log", "job", "7", "--home", "h"], 5, "there is no job 7"),
        (["why", "request", "7", "--home", "h"], 5, "there is no request 7"),
        (["cancel", "request", "7", "--home", "h"], 5, "there is no request 7"),
        (["cancel", "dependent", "7", "--home", "h"], 3, "'dependent' is not one of 'request', 'job'"),
        (["revert", "job", "--home", "h"], 3, "expected the numbers of jobs, or --all and options that say which"),
        (["revert", "job", "7", "--all", "--home", "h"], 3, "expected the numbers of jobs, or --all"),
        (["revert", "job", "7", "--fault", "2", "--home", "h"], 3, "expected the numbers of jobs, or --all"),
        (["revert", "job", "--all", "--fault", "25", "--home", "h"], 3, "Invalid value for '--fault'"),
        (["revert", "job", "--all", "--request", "7", "--home", "h"], 5, "there is no request 7"),
        (["priority", "request", "x", "5", "--home", "h"], 5, "request 'x': expected its number"),
        (["priority", "request", "7", "5", "--home", "h"], 5, "there is no request 7"),
        (["priority", "label", "", "5", "--home", "h"], 5, "label '': expected 1 to 64 characters"),
        (["request", "make", "nosuch.txt"], 2, "No such file or directory: nosuch.txt"),
        (["images", "add", "x.fits", "--project", "no", "--home", "h"], 5, "there is no project 'no'"),
        (["simtest", "make", "x", "--size", "7"], 3, "Invalid value for '--size'"),
        (["nosuch"], 3, "No such command 'nosuch'"),
    ],
)
def test_an_error_is_one_line_and_a_code(command: Command, args: list[str], code: int, said: str) -> None:
    command("init", "--home", "h")
    found, out, err = command(*args)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1


def test_the_library_of_the_machines_is_silent(command: Command, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    logging.getLogger("transitions").setLevel("NOTSET")
    command("init", "--home", "h")
    assert not logging.getLogger("transitions.core").isEnabledFor(logging.INFO)


def test_another_database_by_the_environment(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSTAMP_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("PSTAMP_DB", str(tmp_path / "elsewhere.db"))
    assert command("init")[0] == 0
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "h/pstamp.db").exists()
    assert command("status")[0] == 0


def test_the_database_is_checked_and_its_rules_are_printed(command: Command, tmp_path: Path) -> None:
    assert command("db", "sql")[:2] == (3, "")
    code, mysql, _ = command("db", "sql", "--engine", "mysql")
    assert (code, mysql.splitlines()[0]) == (
        0, "ALTER TABLE pstampRequest DROP CONSTRAINT /*M! IF EXISTS */ pstampRequest_state_fault;",
    )  # fmt: skip
    command("init", "--home", "h")
    assert command("db", "check", "--md5", "--home", "h") == (0, "all is well\n", "")
    (tmp_path / "h/datastore/index.txt").unlink()
    with sqlite3.connect(tmp_path / "h/pstamp.db") as database:
        database.execute("DROP TRIGGER pstampHistory_before_delete")
    lines = [
        "trigger pstampHistory_before_delete is missing; mend it with: pstamp init",
        f"{tmp_path}/h/datastore/index.txt: is not what the registry says; mend it with: pstamp init",
    ]
    assert command("db", "check", "--home", "h") == (5, "\n".join([*lines, ""]), "")
    code, script, _ = command("db", "sql", "--home", "h")
    assert (code, script) == command("db", "sql", "--engine", "sqlite")[:2] != (0, mysql)
    database.executescript(script)
    database.close()
    assert command("db", "check", "--home", "h") == (5, f"{lines[1]}\n", "")


def test_a_preview_is_accepted_or_cancelled(command: Command, tmp_path: Path) -> None:
    command("init", "--home", "h")
    command("images", "add", sky_image(tmp_path / "one.fits"), "--home", "h")
    row = TEXT.splitlines()[1]
    for number in (1, 2):
        (tmp_path / "p.txt").write_text(f"p_{number} 2 PREVIEW me@home.org\n{row}\n")
        command("request", "make", "p.txt", "--out", "p.fits")
        command("submit", "p.fits", "--home", "h")
    out = command("run", "--home", "h", "--workers", "1")[1]
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["request", "1"], ["request", "2"]]
    assert out.count("a preview: accept it with: pstamp accept") == 2
    assert command("accept", 1, "--home", "h", "-y")[1].splitlines()[1:] == [
        "   1  request  accept  parsed  run                    1",
        "   1  job      accept  parsed  run                    1",
    ]
    assert command("cancel", "request", 2, "--home", "h", "--yes")[1].splitlines()[1:] == [
        "   1  request  cancel  parsed  cancel                    2",
        "   1  job      cancel  parsed  cancel     32             2",
    ]
    assert command("run", "--home", "h", "--workers", "1")[1] == "nothing waits\n"
    assert command("results", 1, "--home", "h")[1].splitlines()[1].split()[:3] == ["1", "0", "1_1_R_one.fits"]
    assert command("results", 2, "--home", "h")[1].splitlines()[1].split()[:2] == ["1", "32"]
    code, _, err = command("accept", 1, "--home", "h")
    assert (code, err.split(":")[1]) == (5, " request 1")


def test_an_original_database_is_migrated(command: Command, tmp_path: Path) -> None:
    command("init", "--home", "h")
    code, out, _ = command("db", "migrate", "--home", "h")
    found = re.fullmatch(r"schema version (\d+) -> (\d+)\n", out)
    assert found is not None
    newest = found[1]
    assert (code, found[2]) == (0, newest)
    code, out, _ = command("db", "migrate", "--target", "0", "--home", "h")
    assert (code, out.splitlines()[-1]) == (0, f"schema version {newest} -> 0")
    code, out, err = command("status", "--home", "h")
    assert (code, out) == (3, "")
    assert err.endswith("pstamp db migrate\n")
    assert command("db", "migrate", "--home", "h")[1].splitlines()[-1] == f"schema version 0 -> {newest}"
    assert command("status", "--home", "h")[0] == 0


def commands(app: typer.Typer, name: str = "pstamp") -> Iterator[tuple[str, str]]:
    for each in app.registered_commands:
        assert each.callback is not None
        yield f"{name} {each.name or each.callback.__name__}", each.callback.__doc__ or ""
    for group in app.registered_groups:
        assert isinstance(group.typer_instance, typer.Typer)
        yield from commands(group.typer_instance, f"{name} {group.name}")


@pytest.mark.parametrize(("name", "text"), list(commands(pstamp.app)))
def test_every_help_has_an_example(name: str, text: str) -> None:
    assert f"Example: {name}" in text


def test_a_closed_pipe_and_a_quick_start(tmp_path: Path) -> None:
    program = f"{Path(sys.executable).parent}/pstamp"
    subprocess.run([program, "init", "--home", tmp_path / "h"], check=True, capture_output=True)
    done = subprocess.run(
        ["sh", "-c", f"{program} status --home {tmp_path}/h | true"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    code = (
        "import sys, runners.pstamp; sys.exit(any(m in sys.modules for m in ('astropy', 'numpy', 'fitsio', 'peewee')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shells_complete_commands_and_words(tmp_path: Path) -> None:
    program = f"{Path(sys.executable).parent}/pstamp"

    def complete(words: str, count: int) -> list[str]:
        environment = {"_PSTAMP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count), "PATH": ""}
        return subprocess.run([program], env=environment, capture_output=True, text=True, check=False).stdout.split()

    assert set(complete("pstamp re", 1)) == {"revert", "release", "results", "request"}
    assert set(complete("pstamp why ", 2)) == {"request", "job", "dependent"}
