"""The commands by which requests come in, as web pages, pantasks and people type them: outputs, files, exit codes."""

from __future__ import annotations

import importlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mariadb
import pytest
import remote as stores
from astropy.io import fits

from pstamp_core.formats import parse_text, read_request, write_request, write_results
from pstamp_core.settings import load_settings
from pstamp_core.store import pstampRequest
from pstamp_core.store.tables import pstampDataStore
from pstamp_core.tasks import submit
from pstamp_core.tasks.server import Server, make_server

Result = tuple[int, str, str]
Command = Callable[..., Result]

COMMANDS = (
    "pstamp_queue_requests", "pstamp_insert_request", "pstamp_webrequest", "psmkreq", "pstamp_request_file",
    "pstampdump",
)  # fmt: skip
ROW = "1 150.12 2.21 60 60 0 stamp 65 local null null bycoord stack null null null null i 0 0 null 0 0"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run a command with arguments in an empty folder; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    for name in ("PSTAMP_HOME", "PSTAMP_DB", "PSTAMP_DB_PASSWORD"):
        monkeypatch.delenv(name, raising=False)

    def run(name: str, *args: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            importlib.import_module(f"runners.{name}").main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


@pytest.fixture
def home(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server's folder, the one that commands use."""
    make_server(tmp_path / "h").store.db.close()
    monkeypatch.setenv("PSTAMP_HOME", str(tmp_path / "h"))
    return tmp_path / "h"


@pytest.fixture
def known(home: Path) -> Callable[[], list[dict[str, Any]]]:
    """Read all requests."""

    def rows() -> list[dict[str, Any]]:
        server = Server(load_settings(home))
        with server.store.reading():
            return [row.__data__ for row in pstampRequest.select().order_by(pstampRequest.req_id)]

    return rows


def request_file(path: Path, name: str = "up_1", *rows: str) -> Path:
    write_request(path, parse_text("\n".join([f"{name} 2 PROCESS ana@obs.edu", *(rows or (ROW,))]))[0])
    return path


def today() -> str:
    return f"{datetime.now(UTC):%Y/%m/%d}"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(command: Command, name: str) -> None:
    code, out, err = command(name, "--help")
    assert (code, err) == (0, "")
    assert f"Example: {name}" in " ".join(out.split())


# -- pstamp_insert_request


def test_an_upload_is_queued(command: Command, home: Path, known: Callable[[], list[dict[str, Any]]]) -> None:
    upload = request_file(Path("php3f;q'x y"))
    assert command("pstamp_insert_request", "--tmp_req_file", upload, "--workdir", "w", "--verbose") == (
        0, "1\nup_1\n", "",
    )  # fmt: skip
    copy = Path(f"w/webreq/{today()}/web_1.fits").resolve()
    assert copy.read_bytes() == upload.read_bytes()
    (row,) = known()
    assert {name: row[name] for name in ("name", "label", "uri", "ds_id", "state", "username", "reqType")} == {
        "name": "up_1", "label": "WEB.UP", "uri": str(copy), "ds_id": 0, "state": row["state"], "username": None,
        "reqType": None,
    }  # fmt: skip
    assert row["state"].value == "new"
    again = command("pstamp_insert_request", "--tmp_req_file", upload, "--workdir", "w")
    assert again == (
        5, "", "pstamp: php3f;q'x y: REQ_NAME is 'up_1'; it is in use by request 1 (new); send it under another name\n",
    )  # fmt: skip
    assert [path.name for path in copy.parent.iterdir()] == ["web_1.fits"]
    request_file(Path("second.fits"), "up_2")
    assert command("pstamp_insert_request", "--tmp_req_file", "second.fits")[:2] == (0, "2\nup_2\n")
    assert known()[1]["uri"] == f"{home}/work/webreq/{today()}/web_3.fits"


def with_header(path: Path, **keywords: str) -> Path:
    with fits.open(request_file(path)) as hdus:
        hdus[1].header.update({name.replace("__", "-"): value for name, value in keywords.items()})
        for name in [name for name, value in keywords.items() if not value]:
            del hdus[1].header[name]
        hdus.writeto(path, overwrite=True)
    return path


NAME_RULE = (
    "expected at most 64 letters, digits and . _ + -, the first a letter or digit, no '..', not null or index.txt"
)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"EXTNAME": "MINE"}, "up.fits: EXTNAME is 'MINE'; expected PS1_PS_REQUEST"),
        ({"EXTVER": "3"}, "up.fits: EXTVER is '3'; expected 1 or 2"),
        ({"EXTVER": ""}, "up.fits: EXTVER is ''; expected 1 or 2"),
        ({"REQ_NAME": ""}, f"up.fits: REQ_NAME is ''; {NAME_RULE}"),
        ({"REQ_NAME": "../x; rm -rf $HOME"}, f"up.fits: REQ_NAME is '../x; rm -rf $HOME'; {NAME_RULE}"),
        ({"REQ_NAME": "a/b"}, f"up.fits: REQ_NAME is 'a/b'; {NAME_RULE}"),
    ],
)
def test_a_bad_upload_is_refused(
    command: Command,
    home: Path,
    known: Callable[[], list[dict[str, Any]]],
    keywords: dict[str, str],
    said: str,
) -> None:
    file = with_header(Path("up.fits"), **keywords)
    assert command("pstamp_insert_request", "--tmp_req_file", file, "--workdir", "w") == (5, "", f"pstamp: {said}\n")
    assert known() == []
    assert not Path("w").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "none.fits: there is no such file; expected a FITS file"),
        (b"", "none.fits: this is not a FITS file; expected a file that begins with SIMPLE, not compressed"),
        (b"SIMPLE", "none.fits:"),
    ],
)
def test_what_is_no_table_is_refused(command: Command, home: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        Path("none.fits").write_bytes(content)
    code, out, err = command("pstamp_insert_request", "--tmp_req_file", "none.fits", "--workdir", "w")
    assert (code, out, err.count("\n")) == (5, "", 1)
    assert err.startswith(f"pstamp: {said}")


def test_a_folder_that_can_not_be_made_is_exit_3(command: Command, home: Path) -> None:
    request_file(Path("up.fits"))
    Path("file").touch()
    code, out, err = command("pstamp_insert_request", "--tmp_req_file", "up.fits", "--workdir", "file")
    folder = Path(f"file/webreq/{today()}").resolve()
    assert (code, out, err) == (3, "", f"pstamp: folder {folder} can't be made: Not a directory\n")


def test_no_server_is_exit_3(command: Command) -> None:
    for name, *args in (
        ("pstamp_insert_request", "--tmp_req_file", request_file(Path("up.fits"))),
        ("pstamp_webrequest", "--ra", 1, "--dec", 2),
        ("pstamp_queue_requests",),
    ):
        assert command(name, *args) == (
            3, "", "pstamp: no server in pstamp-home (pstamp.toml is missing); make one with: pstamp init --home "
            "pstamp-home\n",
        )  # fmt: skip


def test_another_database_is_named_by_its_parts(
    command: Command, home: Path, mysql_server: str, known: Callable[[], list[dict[str, Any]]]
) -> None:
    """On MariaDB, with the name of the database alone on the command line."""
    request_file(Path("up.fits"))
    with mariadb.database(mysql_server) as address:
        make_server(Path("other"), address).store.db.close()
        host, name = address.removeprefix("mysql://root@").split("/")
        Path("h/pstamp.toml").write_text(f'database = "mysql://root@{host}/configured"\n')
        assert command("pstamp_insert_request", "--tmp_req_file", "up.fits", "--dbname", name)[:2] == (0, "1\nup_1\n")
        assert command("pstamp_insert_request", "--tmp_req_file", "up.fits", "--dbname", name)[0] == 5
        web = ("pstamp_webrequest", "--dbname", name, "--email", "a@b.edu", "--ra", 1, "--dec", 2)
        assert command(*web) == (0, "2 web_3\n", "")
        Path("h/pstamp.toml").write_text(f'database = "{address}"\n')
        assert [row["name"] for row in known()] == ["up_1", "web_3"]


# -- pstamp_webrequest


def test_a_request_is_made_of_options_and_queued(
    command: Command, home: Path, known: Callable[[], list[dict[str, Any]]]
) -> None:
    assert command(
        "pstamp_webrequest", "--project", "gpc1", "-pixcenter", "--x", 300, "--y", "299.5", "--width", 30,
        "--height", 40, "--req_name", "mine", "--output", "mine.fits",
        "--req_type", "byid", "--stage", "chip", "--id", 80001, "--component", "XY33", "--email", "ana@obs.edu",
        "--comment", "it's; $HOME `x`",
    ) == (0, "1 web_1\n", "")  # fmt: skip
    assert command(
        "pstamp_webrequest", "--ra", "10:00:00", "--dec", "-12:30:00", "--arcseconds", "--email", "ana@obs.edu",
        "--label", "WEB.BIG", "--username", "ana", "--prefix", "form", "--verbose",
    ) == (0, "2 form_2\n", "")  # fmt: skip
    first, second = known()
    folder = home / "work" / "webreq" / today()
    assert [(row["name"], row["label"], row["username"], row["uri"], row["ds_id"]) for row in (first, second)] == [
        ("web_1", "WEB", None, f"{folder}/web_1.fits", 0), ("form_2", "WEB.BIG", "ana", f"{folder}/form_2.fits", 0),
    ]  # fmt: skip
    table = read_request(Path(first["uri"]))
    assert (table.req_name, table.extver, table.action, table.email) == ("web_1", 2, "PROCESS", "ana@obs.edu")
    (row,) = table.rows
    assert (row.center_x, row.center_y, row.width, row.height, row.coord_mask, row.option_mask) == (
        300, 299.5, 30, 40, 3, 1,
    )  # fmt: skip
    assert (row.id, row.comment) == ("80001", "it's; $HOME `x`")
    assert not Path("mine.fits").exists()
    (row,) = read_request(Path(second["uri"])).rows
    assert (row.center_x, row.center_y, row.coord_mask, row.option_mask) == (150.0, -12.5, 0, 1 + 2048)


def test_pretend_makes_the_file_only(command: Command, home: Path, known: Callable[[], list[dict[str, Any]]]) -> None:
    file = home / "work" / "webreq" / today() / "web_1.fits"
    options = ("--pretend", "--ra", 1, "--dec", 2, "--email", "a@b.edu")
    assert command("pstamp_webrequest", *options) == (0, f"{file}\n", "")
    assert (read_request(file).req_name, known()) == ("web_1", [])


def test_what_the_server_would_refuse_is_told(command: Command, home: Path) -> None:
    assert command("pstamp_webrequest", "--ra", 1, "--dec", 95) == (
        0, "1 web_1\n",
        "pstamp: web_1.fits: EMAIL is not given; expected user@domain\n"
        "pstamp: web_1.fits, row 1: CENTER_Y is 95; expected Dec in degrees, from -90 to 90\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--ra", 1], 5, "pstamp: the centre is not clear; expected RA and Dec, or x and y, or a list of targets\n"),
        (["--ra", 1, "--dec", 2, "--prefix", "../x"], 5, f"pstamp: prefix: REQ_NAME is '../x_1'; {NAME_RULE}\n"),
        (["--ra", 1, "--dec", 2, "--email", "a@b.edu", "--prefix", "used"], 5,
         "pstamp: used_2.fits: REQ_NAME is 'used_2'; it is in use by request 1 (new); send it under another name\n"),
        (["--ra", 1, "--dec", 2, "--nosuch", 3], 3, "No such option: --nosuch"),
        (["--ra"], 3, "Option '--ra' requires an argument"),
        (["--ra", 1, "--dec", 2, "--width", "x"], 3, "Invalid value for '--width'"),
    ],
)  # fmt: skip
def test_what_makes_no_request_queues_none(
    command: Command, home: Path, known: Callable[[], list[dict[str, Any]]], args: list[object], code: int, said: str
) -> None:
    command("pstamp_insert_request", "--tmp_req_file", request_file(Path("used.fits"), "used_2"))
    found, out, err = command("pstamp_webrequest", *args)
    assert (found, out) == (code, "")
    assert err == said if code == 5 else said in err
    assert [row["name"] for row in known()] == ["used_2"]
    assert [path.name for path in home.glob("work/webreq/*/*/*/*")] == ["web_1.fits"]


# -- psmkreq


def row_of(path: str) -> dict[str, Any]:
    (row,) = read_request(Path(path)).rows
    return {name: getattr(row, name) for name in row.__slots__}


def test_all_options_reach_the_table(command: Command) -> None:
    values = {
        "--project": "gpc2", "--stage": "warp", "--req_type": "byexp", "--id": "o1234g0567o", "--component": "sky.1",
        "--tess_id": "RINGS.V3", "--survey": "3PI", "--release": "3PI.PV3", "--data_group": "mine%", "--filter": "i",
        "--mjd_min": 55000, "--mjd_max": 55100.5, "--run_type": "deep", "--fwhm_min": 1, "--fwhm_max": 9.5,
        "--comment": "two words", "--ra": "150.5", "--dec": "-2", "--width": 31, "--height": 41, "--email": "a@b.edu",
        "--action": "preview", "--req_name": "all", "--output": "x.fits",
    }  # fmt: skip
    assert command("psmkreq", *(word for pair in values.items() for word in pair)) == (0, "", "")
    table = read_request(Path("x.fits"))
    assert (table.req_name, table.action, table.email) == ("all", "PREVIEW", "a@b.edu")
    assert row_of("x.fits") == {
        "rownum": 1, "center_x": 150.5, "center_y": -2.0, "width": 31.0, "height": 41.0, "coord_mask": 2,
        "job_type": "stamp", "option_mask": 1, "project": "gpc2", "survey_name": "3PI", "ipp_release": "3PI.PV3",
        "req_type": "byexp", "img_type": "warp", "id": "o1234g0567o", "tess_id": "RINGS.V3", "component": "sky.1",
        "data_group": "mine%", "reqfilt": "i", "mjd_min": 55000.0, "mjd_max": 55100.5, "run_type": "deep",
        "fwhm_min": 1.0, "fwhm_max": 9.5, "comment": "two words", "bad": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "mask"),
    [
        ("", 1 + 2048), ("--convolved", 1), ("--option_mask 4", 4), ("--image", 1 + 2048),
        ("--convolved --mask --variance --jpeg --cmf", 1 + 2 + 4 + 64 + 8),
        ("--convolved --psf --backmdl --exptime --expnum", 1 + 16 + 32 + 128 + 256),
        ("--convolved --exptimejpeg --expnumjpeg --uncompressed --inverse", 1 + 65536 + 131072 + 512 + 1024),
        ("--unconvolved --restorebackground --allroi --do_not_wait", 1 + 2048 + 4096 + 8192 + 32768),
        ("--stage chip --use_imfile_id", 1 + 16384),
    ],
)  # fmt: skip
def test_each_flag_sets_its_bit(command: Command, flags: str, mask: int) -> None:
    assert command("psmkreq", "--req_name", "a", "--ra", 1, "--dec", 2, *flags.split())[:2] == (0, "")
    assert row_of("a.fits")["option_mask"] == mask


def test_a_whole_file_and_a_bundle(command: Command) -> None:
    base = ("psmkreq", "--req_name", "a", "--email", "a@b.edu", "--stage", "chip", "--req_type", "byid", "--id", 7)
    for more in (["--whole-file"], ["--whole_file", "--pixcenter"], ["--job_type", "get_image", "--component", "XY33"]):
        assert command(*base, *more) == (0, "", "")
        row = row_of("a.fits")
        assert [row[name] for name in ("center_x", "center_y", "width", "height", "coord_mask")] == [0, 0, 0, 0, 3]


def test_a_list_of_targets(command: Command) -> None:
    Path("t.txt").write_text("# my targets\n7 10:00:00 -1:30:00\n7 11.5 2 r 55000 55001 | the # second\n")
    assert command("psmkreq", "--req_name", "a", "--email", "a@b.edu", "--list", "t.txt", "--filter", "i") == (
        0, "", "pstamp: t.txt, line 3: the first # of the comment is replaced by a blank\n",
    )  # fmt: skip
    first, second = read_request(Path("a.fits")).rows
    assert (first.rownum, first.center_x, first.center_y, first.reqfilt, first.mjd_max) == (1, 150.0, -1.5, "i", 0)
    assert (second.rownum, second.center_x, second.reqfilt, second.mjd_max, second.comment) == (
        2, 11.5, "r", 55001.0, "the   second",
    )  # fmt: skip


def test_the_time_is_in_a_name_that_begins(command: Command) -> None:
    assert command("psmkreq", "--req_name_base", "m31.", "--ra", 1, "--dec", 2, "--email", "a@b.edu") == (0, "", "")
    (path,) = Path().glob("*.fits")
    assert re.fullmatch(r"m31\.\d{8}T\d{6}\.fits", path.name)
    assert read_request(path).req_name == path.stem


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ("--ra 1 --dec 2", 5, "the name of the request is not clear; expected REQ_NAME, or what it begins with"),
        ("--req_name a --req_name_base a --ra 1 --dec 2", 5, "the name of the request is not clear; "
         "expected REQ_NAME, or what it begins with"),
        ("--req_name a/b --ra 1 --dec 2", 5, f"b.fits: REQ_NAME is 'a/b'; {NAME_RULE}"),
        ("--req_name a --ra 25:00:00 --dec 2", 0, "a.fits: EMAIL is not given; expected user@domain"),
        ("--req_name a --ra x --dec 2", 5, "RA is 'x'; expected degrees or h:m:s"),
        ("--req_name a --pixcenter --ra 1 --dec 2", 5, "the centre is not clear; expected x and y, as it is in pixels"),
        ("--req_name a --ra 1 --dec 2 --x 3 --y 4", 5, "the centre is not clear; expected RA and Dec, or x and y, "
         "or a list of targets"),
        ("--req_name a --ra 1 --dec 2 --req_type byid", 5, "ID is not given; expected one, as byid needs it"),
        ("--req_name a --ra 1 --dec 2 --req_type byid --id o12", 5, "ID is 'o12'; expected digits only, as byid "
         "needs them"),
        ("--req_name a --ra 1 --dec 2 --stage cake", 5, "IMG_TYPE is 'cake'; expected one of raw, chip, warp, diff, "
         "stack, stack_summary"),
        ("--req_name a --ra 1 --dec 2 --req_type byname", 5, "REQ_TYPE is 'byname'; expected one of byid, byexp, "
         "bydiff, bycoord, byskycell"),
        ("--req_name a --ra 1 --dec 2 --job_type list_uri", 5, "JOB_TYPE is 'list_uri'; expected one of stamp, "
         "get_image"),
        ("--req_name a --job_type get_image", 5, "JOB_TYPE is 'get_image' with bycoord; expected byid or byexp"),
        ("--req_name a --list none.txt", 2, "No such file or directory: none.txt"),
        ("--req_name a --list empty.txt", 5, "empty.txt: there is no target in it"),
        ("--req_name a --list binary", 5, "binary: not a text file (UTF-8)"),
        ("--req_name a --ra 1 --dec 2 --output none/a.fits", 2, "No such file or directory: none/.a.fits"),
    ],
)  # fmt: skip
def test_what_makes_no_table_is_told(command: Command, args: str, code: int, said: str) -> None:
    Path("empty.txt").write_text("# nothing\n")
    Path("binary").write_bytes(b"\xff\xfe\x00")
    found, out, err = command("psmkreq", *args.split())
    assert (found, out) == (code, "")
    assert err.startswith(f"pstamp: {said}")
    assert bool(list(Path().glob("*.fits"))) is (code == 0)


# -- pstamp_request_file


def test_text_becomes_a_table(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.txt").write_text(f"# mine\nfirst 2 process me@x.org\n{ROW} | good\n2 150.2 2.2 9 9 2 | a | b\n")
    said = "pstamp: a.txt, line 4: the comment is cut at its vertical bar\n"
    assert command("pstamp_request_file", "--input", "a.txt") == (0, "", said)
    table = read_request(Path("first.fits"))
    assert (table.req_name, table.action, table.email, len(table.rows)) == ("first", "PROCESS", "me@x.org", 2)
    assert command("pstamp_request_file", "-i", "a.txt", "-o", "b.fits", "-r", "other", "--email", "you@x.org")[0] == 0
    table = read_request(Path("b.fits"))
    assert (table.req_name, table.email) == ("other", "you@x.org")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"piped 2 PROCESS me@x.org\n{ROW}\n"))
    assert command("pstamp_request_file", "-i", "-") == (0, "", "")
    assert read_request(Path("piped.fits")).rows == read_request(request_file(Path("x.fits"))).rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "x.txt: there is no header line; expected REQ_NAME EXTVER ACTION EMAIL"),
        ("a 2 PROCESS\n", "x.txt, line 1: the header has 3 words; expected four, REQ_NAME EXTVER ACTION EMAIL"),
        ("a 2 PROCESS a@b\n1 2\n", "x.txt, line 2: the row has 2 values; expected at least 6"),
        (f"a 2 PROCESS a@b\n{ROW}\n{ROW}\n", "x.txt, line 3: ROWNUM 1 is that of line 2"),
        (f"a;b 2 PROCESS a@b\n{ROW}\n", f"a;b.fits: REQ_NAME is 'a;b'; {NAME_RULE}"),
    ],
)
def test_a_bad_text_makes_no_table(command: Command, text: str, said: str) -> None:
    Path("x.txt").write_text(text)
    assert command("pstamp_request_file", "-i", "x.txt") == (5, "", f"pstamp: {said}\n")
    assert list(Path().glob("*.fits")) == []


def test_a_text_without_end_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "MAX_TEXT", 100)
    Path("x.txt").write_text("#" * 101)
    said = "more than 100 characters; expected the text of a request\n"
    assert command("pstamp_request_file", "-i", "x.txt") == (5, "", f"pstamp: x.txt: {said}")

    class Endless(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            assert size == 101
            return "#" * 101

    monkeypatch.setattr(sys, "stdin", Endless())
    assert command("pstamp_request_file", "-i", "-") == (5, "", f"pstamp: -: {said}")
    assert command("pstamp_request_file", "-i", "none.txt") == (
        2, "", "pstamp: No such file or directory: none.txt\n",
    )  # fmt: skip


# -- pstampdump

SIMPLE = "1 150.12 2.21 60 60 0 stamp 65 local null null bycoord stack null null null null i 0 0 null 0 0 null\n"


def test_a_table_is_printed(command: Command) -> None:
    request_file(Path("a.fits"))
    code, out, err = command("pstampdump", "a.fits")
    assert (code, err) == (0, "")
    assert out.splitlines()[:3] == [
        "ROW_0  METADATA",
        "ROWNUM           S32       1",
        "CENTER_X         F64       150.12",
    ]
    assert out.splitlines()[-2:] == ["COMMENT          STR       null", "END"]
    header = "PS1_PS_REQUEST 2 up_1 PROCESS ana@obs.edu\n"
    assert command("pstampdump", "-header", "a.fits") == (0, header + out, "")
    assert command("pstampdump", "-simple", "a.fits") == (0, SIMPLE, "")
    assert command("pstampdump", "a.fits", "-simple", "-header") == (0, header + SIMPLE, "")
    assert command("pstampdump", "-headeronly", "a.fits") == (0, header, "")
    write_request(Path("old.fits"), parse_text("old_1 1\n" + " ".join(["1"] * 18) + "\n")[0])
    assert command("pstampdump", "-headeronly", "old.fits") == (0, "PS1_PS_REQUEST 1 old_1\n", "")
    write_results(Path("r.fits"), "up_1", 7, [{"ROWNUM": 1, "ERROR_CODE": 23}])
    assert command("pstampdump", "-headeronly", "r.fits") == (0, "PS1_PS_RESULTS up_1 7\n", "")
    assert command("pstampdump", "-simple", "r.fits")[1].startswith("1 23 PSTAMP_NO_IMAGE_MATCH 0 0 0 0")


def test_empty_values_are_left_out_and_others_spelled(command: Command) -> None:
    columns = [
        fits.Column("A", "4A", array=["x", "", "y z"]), fits.Column("B", "L", array=[True, False, True]),
        fits.Column("C", "J", array=[1, -9, 3], null=-9), fits.Column("D", "D", array=[0.1, 1e30, float("nan")]),
    ]  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="OTHER")]).writeto("o.fits")
    assert command("pstampdump", "-simple", "o.fits") == (0, "x T 1 0.1\nF 1e+30\ny z T 3 nan\n", "")


def test_a_table_without_rows_is_told(command: Command) -> None:
    write_request(Path("a.fits"), parse_text("up_1 2 PROCESS a@b\n")[0])
    said = "pstamp: a.fits: the table has no rows\n"
    assert command("pstampdump", "a.fits") == (0, "", said)
    assert command("pstampdump", "-simple", "-header", "a.fits") == (0, "PS1_PS_REQUEST 2 up_1 PROCESS a@b\n", said)
    assert command("pstampdump", "-headeronly", "a.fits") == (0, "PS1_PS_REQUEST 2 up_1 PROCESS a@b\n", "")


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"EXTNAME": "MOPS_DETECTABILITY_QUERY"}, "EXTNAME is 'MOPS_DETECTABILITY_QUERY'; expected PS1_PS_REQUEST or "
         "PS1_PS_RESULTS"),
        ({"EXTVER": "3"}, "EXTVER is '3'; expected 1 or 2"),
        ({"EMAIL": ""}, "EMAIL is missing"),
        ({"ACTION": ""}, "ACTION is missing"),
        ({"REQ_NAME": ""}, "REQ_NAME is missing"),
        ({"EXTNAME": "PS1_PS_RESULTS"}, "REQ_ID is missing"),
    ],
)  # fmt: skip
def test_a_header_that_is_not_all_there_is_refused(command: Command, keywords: dict[str, str], said: str) -> None:
    with_header(Path("a.fits"), **keywords)
    assert command("pstampdump", "-header", "a.fits") == (5, "", f"pstamp: a.fits: {said}\n")
    assert command("pstampdump", "-simple", "a.fits") == (0, SIMPLE, "")


def test_what_is_no_table_is_not_printed(command: Command) -> None:
    Path("a.fits").write_text("no")
    for args in (["a.fits"], ["-simple", "a.fits"], ["-header", "a.fits"]):
        assert command("pstampdump", *args) == (
            5, "", "pstamp: a.fits: this is not a FITS file; expected a file that begins with SIMPLE, not compressed\n",
        )  # fmt: skip


# -- pstamp_queue_requests


@pytest.fixture
def remote() -> Iterator[stores.Remote]:
    with stores.serving() as (served, _):
        yield served


def test_data_stores_are_polled(
    command: Command, home: Path, remote: stores.Remote, known: Callable[[], list[dict[str, Any]]]
) -> None:
    assert command("pstamp_queue_requests", "--limit", 5) == (0, "", "")
    for n in range(3):
        remote.add(f"f{n}", a__fits="1", b__fits="2")
    remote.special["f1/index.txt"] = stores.send("", 500)
    server = Server(load_settings(home))

    def work() -> None:
        for uri in ("http://127.0.0.1:9/ds/p", remote.uri, f"{remote.uri}/x\x1b[31m"):
            pstampDataStore.create(uri=uri)

    server.store.work(work)
    code, out, err = command("pstamp_queue_requests", "--limit", 5, "--timeout", 5, "--verbose")
    assert (code, out) == (
        2,
        "data store 1: 0 filesets, 0 requests queued\n"
        "data store 2: 2 filesets, 4 requests queued\n"
        "data store 3: 0 filesets, 0 requests queued\n",
    )
    assert err.splitlines()[:2] == [
        "pstamp: data store 1: http://127.0.0.1:9/ds/p/index.txt: Connection refused",
        f"pstamp: data store 2: {remote.uri}/f1/index.txt: HTTP 500 Internal Server Error; it is tried again, unless "
        "you pass it over with: pstamptool -moddatastore -ds_id 2 -set_last_fileset 'f1'",
    ]
    assert len(err.splitlines()) == 3
    assert "\x1b" not in err
    assert [row["uri"].removeprefix(remote.uri) for row in known()] == [
        "/f0/a.fits", "/f0/b.fits", "/f2/a.fits", "/f2/b.fits",
    ]  # fmt: skip
    assert command("pstamp_queue_requests") == (0, "", "")
    server.store.db.close()


@pytest.mark.parametrize("args", [["--limit", "0"], ["--limit", "x"], ["--timeout", "0"], ["--nosuch"], ["extra"]])
def test_a_wrong_command_line_polls_nothing(command: Command, home: Path, args: list[str]) -> None:
    code, out, err = command("pstamp_queue_requests", *args)
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1
