"""What can be fetched of a finished request, by whom, and that it is what was registered."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import NOW, Rows
from PIL import Image as Picture

from pstamp_core.datastore.index import FileEntry
from pstamp_core.faults import FinalError, RetryableError, UserError
from pstamp_core.files import measure
from pstamp_core.formats import read_results, result_portions, write_results
from pstamp_core.machines import RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import Store, moment
from pstamp_core.tasks import downloads
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.browse import NotThere
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server
from simtest.survey import Survey

ANA, BOB = Account(1, "ana@obs.example.edu", frozenset()), Account(2, "bob@example.org", frozenset())
EVIL = "=HYPERLINK(1)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, survey: Survey) -> Iterator[Server]:
    """A server with a finished request of ana's, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("downloads")
    server = servers.make(folder / "home", survey)
    lines = [
        f"{servers.row(1, survey, options=1 + 2 + 64)} | {EVIL}",
        servers.row(2, survey, filter="z"),
        servers.row(3, survey, w=30, h=700, img="warp", filter="g"),
    ]
    assert servers.send(server, folder, *lines) == 1
    run(server, workers=1)
    yield server
    server.store.db.close()


def files(server: Server) -> list[FileEntry]:
    return server.datastore.files("pstamp_results", "test_1")


def stamp(server: Server) -> str:
    return next(file.name for file in files(server) if file.name.startswith("1_1") and ".mk." not in file.name)


def test_a_file(server: Server) -> None:
    for entry in files(server):
        file, found = downloads.result_file(server, ANA, 1, entry.name)
        assert (file.bytes, file.md5, found.st_size) == (entry.bytes, entry.md5, entry.bytes)


NAMES = [
    "nothing.fits",
    "",
    ".",
    "..",
    "../test_1/results.fits",
    "index.txt",
    "/etc/passwd",
    "a\0b",
    "'; DROP",
    "x" * 999,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_registered(server: Server, name: str) -> None:
    for fetch in (downloads.result_file, lambda *args: downloads.draw(*args, "asinh")):
        with pytest.raises(NotThere) as refused:
            fetch(server, ANA, 1, name)
        assert str(refused.value) == "request 1 has no file of this name"


FETCHES: dict[str, Any] = {
    "file": lambda server, account, number: downloads.result_file(server, account, number, "results.fits"),
    "mdc": lambda server, account, number: downloads.result_file(server, account, number, "results.mdc"),
    "picture": lambda server, account, number: downloads.draw(server, account, number, "a.fits", "asinh"),
    "tar": downloads.Tar,
    "csv": downloads.results_csv,
    "json": downloads.results_json,
}


@pytest.mark.parametrize("what", FETCHES)
def test_nothing_is_there_for_others(server: Server, what: str) -> None:
    """As if there were no such request; and before anything is sent."""
    for account, number in ((BOB, 1), (ANA, 2)):
        with pytest.raises(NotThere) as refused:
            FETCHES[what](server, account, number)
        assert str(refused.value) == f"there is no request {number} of yours"


@pytest.mark.parametrize("what", FETCHES)
@pytest.mark.parametrize("state", [state for state in RequestState if state is not RequestState.STOP])
def test_nothing_is_there_in_other_states(
    store: Store, rows: Rows, tmp_path: Path, what: str, state: RequestState
) -> None:
    rows.request(state, username=ANA.email, changed_at=NOW)
    with pytest.raises(NotThere) as refused:
        FETCHES[what](Server(Settings(tmp_path), store), ANA, 1)
    assert str(refused.value) == (
        f"the files of request 1 were kept long enough, and deleted on {moment(NOW):%Y-%m-%d}; send it again"
        if state in (RequestState.GOTO_CLEANED, RequestState.CLEANED)
        else "request 1 is not finished: it has no results yet"
    )


def test_a_file_that_is_not_what_was_registered(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Where it is, is for the log alone."""
    file, _ = downloads.result_file(server, ANA, 1, "results.mdc")
    content = file.path.read_bytes()
    file.path.unlink()  # it has other names
    try:
        file.path.write_bytes(content[:-1] + b"?")
        for fetch in (FETCHES["mdc"], lambda *args: list(downloads.Tar(*args))):
            caplog.clear()
            with pytest.raises(RetryableError) as refused:
                fetch(server, ANA, 1)
            assert str(refused.value) == ("request 1: results.mdc can't be had now; the operators find why in the log")
            assert f"request 1: {file.path}: is not there, or is not what was registered" in caplog.text
    finally:
        file.path.write_bytes(content)


def test_a_file_that_changes_while_it_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tar ends in the middle, whatever the registry said at its beginning."""
    real = downloads.result_file

    def cut_short(*args: Any) -> Any:
        file, found = real(*args)
        if file.name != "results.mdc":
            return file, found
        short = server.settings.home / "short"
        short.write_bytes(b"x")
        return replace(file, path=short), found

    monkeypatch.setattr(downloads, "result_file", cut_short)
    sent: list[bytes] = []
    tar = downloads.Tar(server, ANA, 1)
    with pytest.raises(RetryableError, match=r"results\.mdc: changed while it was read"):
        sent.extend(tar)
    assert 0 < sum(map(len, sent)) < tar.bytes


# -- tar


def test_all_files_as_tar(server: Server, tmp_path: Path) -> None:
    """As Python and tar read it; its size is known before."""
    tar = downloads.Tar(server, ANA, 1)
    blocks = list(tar)
    content = b"".join(blocks)
    assert (tar.name, tar.bytes) == ("test_1.tar", len(content))
    (tmp_path / "all.tar").write_bytes(content)
    with tarfile.open(tmp_path / "all.tar") as opened:
        opened.extractall(tmp_path / "python", filter="data")
    (tmp_path / "gnu").mkdir()
    done = subprocess.run(["tar", "-xf", "../all.tar"], cwd=tmp_path / "gnu", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for folder in ("python", "gnu"):
        found = {path.name: measure(path, "").md5 for path in (tmp_path / folder / "test_1").iterdir()}
        assert found == {file.name: file.md5 for file in files(server)}


def test_a_tar_of_a_large_file_and_a_long_name(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never held as a whole."""
    size, name = downloads._BLOCK * 2 + 5, "n" * 200
    path = server.settings.home / "large"
    path.write_bytes(bytes(size))
    monkeypatch.setattr(server.datastore, "files", lambda *_: [FileEntry(name, size, "", "fits")])
    monkeypatch.setattr(downloads, "result_file", lambda *_: (measure(path, "fits"), path.stat()))
    tar = downloads.Tar(server, ANA, 1)
    blocks = list(tar)
    assert max(map(len, blocks)) == downloads._BLOCK
    assert sum(map(len, blocks)) == tar.bytes
    with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as opened:
        assert [(member.name, member.size) for member in opened] == [(f"test_1/{name}", size)]


# -- pictures


@pytest.mark.parametrize("stretch", downloads.STRETCHES)
def test_a_picture(server: Server, stretch: str) -> None:
    picture = Picture.open(io.BytesIO(downloads.draw(server, ANA, 1, stamp(server), stretch)))
    assert (picture.format, picture.size) == ("PNG", (30, 30))


def test_a_large_stamp_is_reduced(server: Server) -> None:
    tall = next(file.name for file in files(server) if file.name.startswith("3_1"))
    assert Picture.open(io.BytesIO(downloads.draw(server, ANA, 1, tall, "asinh"))).size == (15, 350)


def test_of_what_there_is_no_picture(server: Server) -> None:
    mask = next(file.name for file in files(server) if file.name.endswith(".mk.fits"))
    for name in ("results.fits", "results.mdc", mask, stamp(server).replace(".fits", ".jpg")):
        with pytest.raises(NotThere) as refused:
            downloads.draw(server, ANA, 1, name, "asinh")
        assert str(refused.value) == f"{name} of request 1 is no image stamp, of which there would be a picture"
    with pytest.raises(UserError, match="stretch 'x': expected one of asinh"):
        downloads.draw(server, ANA, 1, stamp(server), "x")


def test_a_stamp_that_can_not_be_drawn_does_not_tell_where_it_is(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path, _stretch: str) -> bytes:
        raise FinalError(f"{path}: damaged")

    monkeypatch.setattr(downloads, "picture", fails)
    with pytest.raises(FinalError) as refused:
        downloads.draw(server, ANA, 1, stamp(server), "asinh")
    assert str(refused.value) == f"no picture can be made of {stamp(server)}"


def test_only_some_are_drawn_at_a_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is drawn by who has one of the few places."""
    places = downloads.DRAWN_AT_ONCE
    free = []

    def look(_path: Path, _stretch: str) -> bytes:
        taken = [downloads._drawing.acquire(blocking=False) for _ in range(places)]
        for each in filter(None, taken):
            downloads._drawing.release()
            free.append(each)
        return b""

    monkeypatch.setattr(downloads, "picture", look)
    downloads.draw(server, ANA, 1, stamp(server), "asinh")
    assert len(free) == places - 1


# -- the results table as text


def table(server: Server) -> list[dict[str, Any]]:
    return list(read_results(server.settings.datastore / "pstamp_results" / "test_1" / "results.fits").rows)


def test_portions_are_the_whole_table(server: Server) -> None:
    path = server.settings.datastore / "pstamp_results" / "test_1" / "results.fits"
    for length in (1, 3, 1000):
        portions = list(result_portions(path, length))
        assert [row for rows in portions for row in rows] == table(server)
        assert {len(rows) for rows in portions[:-1]} <= {length}


def test_results_as_csv(server: Server) -> None:
    """Every cell as it is, but none that a spreadsheet would take for a formula."""
    lines = list(csv.reader(io.StringIO("".join(downloads.results_csv(server, ANA, 1)), newline="")))
    rows = table(server)
    assert lines[0] == list(rows[0])
    for line, row in zip(lines[1:], rows, strict=True):
        expected = {name: str(value) for name, value in row.items()}
        if expected["COMMENT"] == EVIL:
            expected["COMMENT"] = f"'{EVIL}"
        assert dict(zip(lines[0], line, strict=True)) == expected
    assert EVIL in {row["COMMENT"] for row in rows}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "=", "-"])
def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path, text: str) -> None:
    rows = [{"COMMENT": text, "ID": text, "SENTENCE": f'a "b", {text}', "DEC_DEG": -1.5, "RA_DEG": math.nan}]
    write_results(tmp_path / "a.fits", "a", 1, rows)
    names, cells = csv.reader(io.StringIO("".join(downloads._csv(tmp_path / "a.fits")), newline=""))
    found = dict(zip(names, cells, strict=True))
    assert [found[name] for name in ("COMMENT", "ID", "SENTENCE", "DEC_DEG", "RA_DEG")] == [
        f"'{text}", f"'{text}", f'a "b", {text}', "-1.5", "nan"
    ]  # fmt: skip


def test_results_as_json(server: Server) -> None:
    assert json.loads("".join(downloads.results_json(server, ANA, 1))) == table(server)


def test_json_has_no_number_that_json_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"ROWNUM": number, "RA_DEG": math.nan, "DEC_DEG": -math.inf, "COMMENT": "</script>"} for number in range(5)]
    write_results(tmp_path / "a.fits", "a", 1, rows)
    whole = "".join(downloads._json(tmp_path / "a.fits"))
    found = json.loads(whole, parse_constant=lambda name: pytest.fail(name))
    shown = ("ROWNUM", "RA_DEG", "DEC_DEG", "COMMENT")
    assert [[row[name] for name in shown] for row in found] == [[n, None, None, "</script>"] for n in range(5)]
    portions = downloads.result_portions
    monkeypatch.setattr(downloads, "result_portions", lambda path: portions(path, 2))
    assert "".join(downloads._json(tmp_path / "a.fits")) == whole
