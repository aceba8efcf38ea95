"""The command `pstamp`, as people type it."""

from __future__ import annotations

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


def test_status_and_show(command: Command, survey: Survey, tmp_path: Path) -> None:
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
    waiting = f"dependent 1: warp {survey.cleaned_warp} {survey.skycells[0]}: cleaned, must be made again"
    assert code == 0
    assert out.splitlines()[1].endswith(waiting)
    code, out, _ = command("status", "--home", "h")
    assert [line.split() for line in out.splitlines()[1:4]] == [
        ["request", "run", "1"], ["job", "run", "1"], ["dependent", "new", "1"],
    ]  # fmt: skip
    assert out.splitlines()[-1].endswith(waiting)
    code, out, _ = command("show", "dependent", 1, "--home", "h")
    assert "reason               cleaned, must be made again" in out
    code, out, _ = command("show", "job", 1, "--home", "h")
    assert f"    component        {survey.skycells[0]}" not in out
    assert f"  component          {survey.skycells[0]}" in out
    assert out.splitlines()[-1].split()[2:5] == ["make", "run", "0"]
    assert command("revert", "job", 1, "--home", "h")[::2] == (
        4, "pstamp: job 1: revert refused, it needs: fault 1-9 (legal ways on: claim, heartbeat, release, fault, "
        "lost, revert, finish, give_up, cancel)\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["status"], 3, "no server in pstamp-home (pstamp.toml is missing); make one with: pstamp init"),
        (["submit", "nosuch.fits", "--home", "h"], 5, "nosuch.fits: there is no such file; expected a FITS file"),
        (["results", "7", "--home", "h"], 5, "there is no request 7"),
        (["show", "jobs", "7", "--home", "h"], 5, "'jobs': expected one of request, job, dependent"),
        (["request", "make", "nosuch.txt"], 2, "No such file or directory: nosuch.txt"),
        (["images", "add", "x.fits", "--project", "no", "--home", "h"], 5, "there is no project 'no'"),
        (["simtest", "x", "--size", "7"], 2, "Invalid value for '--size'"),
        (["nosuch"], 2, "No such command 'nosuch'"),
    ],
)
def test_an_error_is_one_line_and_a_code(command: Command, args: list[str], code: int, said: str) -> None:
    command("init", "--home", "h")
    found, out, err = command(*args)
    assert (found, out) == (code, "")
    assert said in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    if code != 2 or "make" in args:
        assert err.count("\n") == 1


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
    assert command("accept", 1, "--home", "h") == (0, "request 1 is worked on at the next: pstamp run\n", "")
    said = "request 2 is cancelled; the results come with the next: pstamp run\n"
    assert command("cancel", "request", 2, "--home", "h") == (0, said, "")
    assert command("run", "--home", "h", "--workers", "1")[1] == "nothing waits\n"
    assert command("results", 1, "--home", "h")[1].splitlines()[1].split()[:3] == ["1", "0", "1_1_R_one.fits"]
    assert command("results", 2, "--home", "h")[1].splitlines()[1].split()[:2] == ["1", "32"]
    code, _, err = command("accept", 1, "--home", "h")
    assert (code, err.split(":")[1]) == (5, " request 1")


def test_an_original_database_is_migrated(command: Command, tmp_path: Path) -> None:
    command("init", "--home", "h")
    assert command("db", "migrate", "--home", "h") == (0, "schema version 1 -> 1\n", "")
    code, out, _ = command("db", "migrate", "--target", "0", "--home", "h")
    assert (code, out.splitlines()[-1]) == (0, "schema version 1 -> 0")
    code, out, err = command("status", "--home", "h")
    assert (code, out) == (3, "")
    assert err.endswith("pstamp db migrate\n")
    assert command("db", "migrate", "--home", "h")[1].splitlines()[-1] == "schema version 0 -> 1"
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
