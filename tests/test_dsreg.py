"""`dsreg` and `dsprodtool`: what they register and take out, what they refuse, and how they end; on both engines."""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from peewee import IntegrityError

from pstamp_core.database import connect, create_tables, session, unit_of_work
from pstamp_core.datastore import TABLES, DataStore, filesets, registry
from pstamp_core.datastore.tables import dsFile, dsFileset, dsProduct
from pstamp_core.faults import RetryableError
from pstamp_core.files import StoredFile, measure
from pstamp_core.settings import load_settings
from pstamp_core.tasks.server import Server, make_server
from runners import dsprodtool, dsreg

Result = tuple[int, str, str]
Command = Callable[..., Result]
A = "d1d84d95f3ae3f1f0a4f8e1f5b1d5f2a"
HEAD = "# fileID          |bytes   |md5sum                          |type        |"


@pytest.fixture
def server(address: str, tmp_path: Path) -> Iterator[Server]:
    """A server on each engine, with the product asks, which has two columns of its own."""
    database = connect(address)
    with session(database, TABLES):
        create_tables(database, TABLES)
        for table in reversed(TABLES):
            table.delete().execute()
        (tmp_path / "home" / "datastore").mkdir(parents=True)
        (tmp_path / "home" / "pstamp.toml").write_text("")
        server = Server(load_settings(tmp_path / "home", address))
        server.datastore.add_product("pstamp_results", "PSRESULTS", "Results", ("req_id",))
        server.datastore.add_product("asks", "psrequest", "Requests", ("night", "who"))
        yield server
        for table in reversed(TABLES):
            table.delete().execute()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(
    server: Server, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PSTAMP_HOME", str(server.settings.home))
    monkeypatch.setenv("PSTAMP_DB", address)

    def run(module: ModuleType, *args: object, stdin: str = "", terminal: bool = False) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [module.__name__.partition(".")[2], *map(str, args)])
        monkeypatch.setattr(sys, "stdin", Terminal(stdin) if terminal else io.StringIO(stdin))
        code: Any = 0
        try:
            module.main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err.replace("python -m pytest.", "")

    return run


@pytest.fixture
def reg(run: Callable[..., Result]) -> Command:
    return lambda *args, **more: run(dsreg, *args, **more)


@pytest.fixture
def prod(run: Callable[..., Result]) -> Command:
    return lambda *args, **more: run(dsprodtool, *args, **more)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with two files."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.fits").write_text("bytes of a")
    (folder / "b.tgz").write_text("more bytes of b")
    return folder


def md5(path: Path) -> str:
    return measure(path, "").md5


def state(server: Server) -> tuple[Any, ...]:
    """All that is on disk and in the registry."""
    root = server.datastore.root
    with session(server.store.db, TABLES):
        return {
            str(path.relative_to(root)): path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
            for path in root.rglob("*")
        }, [list(table.select().order_by(table._meta.primary_key).tuples()) for table in TABLES]


ADD = ("--add", "night_7", "--product", "asks", "--type", "PSREQUEST")
LIST = "a.fits|||psrequest|\n"


# -- dsreg --add


@pytest.mark.parametrize("place", ["--copy", "--link"])
@pytest.mark.parametrize("sizes", [False, True])
def test_a_fileset_is_registered_with_its_files(
    reg: Command, server: Server, data: Path, place: str, sizes: bool
) -> None:
    measured = [measure(data / name, "") for name in ("a.fits", "b.tgz")]
    first, second = [f"{file.bytes}|{file.md5}" if sizes else "|" for file in measured]
    (data / "list").write_text(f"# a comment\n\na.fits|{first}|psrequest\n b.tgz |{second}|tgz|XY33||c\n")
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert reg(*ADD, "--list", data / "list", place, "--datapath", data, "--ps1", "ann", "-v") == (
        0, "registered asks/night_7, files: 2\n", "",
    )  # fmt: skip
    folder = server.datastore.root / "asks" / "night_7"
    assert {path.name: path.is_symlink() for path in folder.iterdir()} == {
        "a.fits": place == "--link", "b.tgz": place == "--link", "index.txt": False,
    }  # fmt: skip
    assert (folder / "a.fits").read_text() == "bytes of a"
    if place == "--copy":
        assert (folder / "a.fits").stat().st_nlink == 1
    text = (
        f"{HEAD}\na.fits            |10      |{measured[0].md5}|psrequest   |\n"
        f"{HEAD}component|\nb.tgz             |15      |{measured[1].md5}|tgz         |XY33    |null    |c       |\n"
    )
    assert (folder / "index.txt").read_text() == "".join(server.datastore.fileset_index("asks", "night_7")) == text
    (entry,) = server.datastore.filesets("asks")
    assert (entry.name, entry.type, entry.values) == ("night_7", "PSREQUEST", (None, "ann"))
    assert before < entry.registered < datetime.now(UTC) + timedelta(seconds=1)
    product = (server.datastore.root / "asks" / "index.txt").read_text()
    assert product == "".join(server.datastore.product_index("asks"))
    assert "|null |ann|\n" in product
    assert "asks         |night_7     |" in server.datastore.root_index()


def test_files_may_lie_in_the_folder_of_the_fileset_already(reg: Command, server: Server, data: Path) -> None:
    folder = server.datastore.root / "asks" / "night_7"
    shutil.copytree(data, folder)
    assert reg(*ADD, "--list", "-", stdin=LIST) == (0, "", "")
    assert [file.name for file in server.datastore.files("asks", "night_7")] == ["a.fits"]
    assert server.datastore.file("asks", "night_7", "a.fits")[0].path == folder / "a.fits"
    assert {path.name for path in folder.iterdir()} == {"a.fits", "b.tgz", "index.txt"}


def test_the_list_may_have_complete_paths_and_only_their_last_parts_count(
    reg: Command, server: Server, data: Path
) -> None:
    assert reg(*ADD, "--list", "-", "--abspath", "--link", stdin=f"{data}/a.fits|||psrequest\n")[0] == 0
    assert (server.datastore.root / "asks" / "night_7" / "a.fits").readlink() == data / "a.fits"
    (data / "sub").mkdir()
    (data / "sub" / "c").write_text("c")
    assert reg("--add", "x", *ADD[2:], "--list", "-", "--copy", "--datapath", "data", stdin="sub/c|||text|")[0] == 0
    assert [file.name for file in server.datastore.files("asks", "x")] == ["c"]


def test_a_fileset_may_be_empty(reg: Command, server: Server) -> None:
    assert reg(*ADD, "--empty") == (0, "", "")
    assert (server.datastore.root / "asks" / "night_7" / "index.txt").read_text() == f"{HEAD}\n"
    assert server.datastore.files("asks", "night_7") == []


def test_files_of_an_earlier_try_are_replaced(reg: Command, server: Server, data: Path) -> None:
    folder = server.datastore.root / "asks" / "night_7"
    folder.mkdir()
    (folder / "a.fits").write_text("old")
    (folder / "index.txt").write_text("old")
    assert reg(*ADD, "--list", "-", "--copy", "--datapath", data, stdin=LIST)[0] == 0
    assert (folder / "a.fits").read_text() == "bytes of a"


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_another_database_and_another_root_can_be_named(
    reg: Command, prod: Command, server: Server, data: Path, tmp_path: Path
) -> None:
    other = make_server(tmp_path / "other", str(tmp_path / "other.db"))
    there = ("--dsroot", tmp_path / "ds", "--dbname", tmp_path / "other.db")
    before = state(server)
    assert prod("--add", "asks", "--type", "psrequest", "--description", "d", *there) == (0, "", "")
    assert reg(*ADD, "--list", "-", "--copy", "--datapath", data, *there, stdin=LIST) == (0, "", "")
    assert (tmp_path / "ds" / "asks" / "night_7" / "a.fits").is_file()
    assert [entry.name for entry in other.datastore.filesets("asks")] == ["night_7"]
    assert state(server) == before
    assert reg("--del", "night_7", "--product", "asks", "--rm", *there) == (0, "", "")
    assert not (tmp_path / "ds" / "asks" / "night_7").exists()


USAGE = "pstamp: Invalid value: {}; see: dsreg --help\n"
EITHER = "expected either --add NAME or --del NAME"
NEEDS = (
    "--add needs --type, and --list FILE or --empty; it takes at most one of --link and --copy, not --rm, not --force"
)
WRONG_LINES: list[tuple[tuple[str, ...], str]] = [
    (("--product", "asks"), USAGE.format(EITHER)),
    (("--product", "asks", "--add", "a", "--del", "b"), USAGE.format(EITHER)),
    (("--add", "a", "--type", "T", "--empty"), "pstamp: Missing option '--product'; see: dsreg --help\n"),
    (("--product", "asks", "--add", "a", "--empty"), USAGE.format(NEEDS)),
    (("--product", "asks", "--add", "a", "--type", "T"), USAGE.format(NEEDS)),
    ((*ADD, "--list", "-", "--empty"), USAGE.format(NEEDS)),
    ((*ADD, "--empty", "--link", "--copy"), USAGE.format(NEEDS)),
    ((*ADD, "--empty", "--rm"), USAGE.format(NEEDS)),
    ((*ADD, "--empty", "--force"), USAGE.format(NEEDS)),
    (("--product", "asks", "--del", "a", "--copy"), USAGE.format("--del takes only --product, --rm and --force")),
    ((*ADD, "--empty", "--what"), "pstamp: No such option: --what; see: dsreg --help\n"),
    ((*ADD, "--list", "nothing", "--copy"), "pstamp: No such file or directory: nothing\n"),
]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("line", "error"), WRONG_LINES)
def test_a_wrong_command_line_ends_in_2(reg: Command, server: Server, line: tuple[str, ...], error: str) -> None:
    before = state(server)
    assert reg(*line, stdin=LIST) == (2, "", error)
    assert state(server) == before


NAME = "expected a name of 1 to 64 letters, digits and -+_.: that starts with no dot and is not index.txt"
LISTED = (
    "pstamp: file list, line {}: {!r}; expected name|bytes|md5|type|... with a size in digits and an md5 of 32 "
    "hexadecimal digits in lower case, or nothing for them\n"
)
MOST = "expected at most 8 of 1 to 64 characters\n"
COPY = ("--copy", "--datapath", "{data}")
REFUSED: dict[str, tuple[tuple[str, ...], str, int, str]] = {
    "no such product": (
        ("--add", "a", "--product", "other", "--type", "T", "--empty"), "", 2,
        "pstamp: there is no product other in the data store (there are: asks, pstamp_results)\n",
    ),
    "product is a path": (
        ("--add", "a", "--product", "../asks", "--type", "T", "--empty"), "", 2, f"pstamp: product '../asks': {NAME}\n",
    ),
    "name is a path": (
        ("--add", "../a", "--product", "asks", "--type", "T", "--empty"), "", 2, f"pstamp: fileset '../a': {NAME}\n",
    ),
    "type": (
        ("--add", "a", "--product", "asks", "--type", "a b", "--empty"), "", 2,
        "pstamp: fileset asks/a: type 'a b', expected 1 to 64 letters, digits and -+_.:\n",
    ),
    "value too long": (
        (*ADD, "--empty", "--ps0", "x" * 65), "", 2,
        f"pstamp: fileset asks/night_7: values ['{'x' * 65}'{', None' * 7}], {MOST}",
    ),
    "empty list": (
        (*ADD, "--list", "-", *COPY), "\n# nothing\n", 4,
        "pstamp: file list: empty; expected a line name|bytes|md5|type|... for each file\n",
    ),
    "too few fields": ((*ADD, "--list", "-", *COPY), "a.fits||", 4, LISTED.format(1, "a.fits||")),
    "no type": ((*ADD, "--list", "-", *COPY), f"{LIST}b.tgz||||", 4, LISTED.format(2, "b.tgz||||")),
    "no size": ((*ADD, "--list", "-", *COPY), "a.fits|-1||psrequest", 4, LISTED.format(1, "a.fits|-1||psrequest")),
    "no md5": ((*ADD, "--list", "-", *COPY), "a.fits||0|psrequest", 4, LISTED.format(1, "a.fits||0|psrequest")),
    "another size": (
        (*ADD, "--list", "-", *COPY), "a.fits|11||psrequest", 4,
        "pstamp: file {data}/a.fits has 10 bytes, md5 {md5}; the list says 11 bytes\n",
    ),
    "size of an empty file": (
        (*ADD, "--list", "-", *COPY), "a.fits|0||psrequest", 4,
        "pstamp: file {data}/a.fits has 10 bytes, md5 {md5}; the list says 0 bytes\n",
    ),
    "another md5": (
        (*ADD, "--list", "-", *COPY), f"a.fits|10|{'0' * 32}|psrequest", 4,
        "pstamp: file {data}/a.fits has 10 bytes, md5 {md5}; the list says 10 bytes, md5 " + "0" * 32 + "\n",
    ),
    "another md5 alone": (
        (*ADD, "--list", "-", *COPY), f"a.fits||{'0' * 32}|psrequest", 4,
        "pstamp: file {data}/a.fits has 10 bytes, md5 {md5}; the list says md5 " + "0" * 32 + "\n",
    ),
    "no such file": (
        (*ADD, "--list", "-", *COPY), "c.fits|||psrequest", 2, "pstamp: file {data}/c.fits: there is no such file\n",
    ),
    "a folder": (
        (*ADD, "--list", "-", *COPY), "../data|||text", 2, "pstamp: file {data}/../data: there is no such file\n",
    ),
    "twice": (
        (*ADD, "--list", "-", *COPY), LIST * 2, 2,
        "pstamp: fileset asks/night_7: file name 'a.fits' is no plain name or occurs twice\n",
    ),
    "nine values": (
        (*ADD, "--list", "-", *COPY), "a.fits|||text|1|2|3|4|5|6|7|8|9", 2,
        f"pstamp: fileset asks/night_7: values ['1', '2', '3', '4', '5', '6', '7', '8', '9'], {MOST}",
    ),
    "index.txt": (
        (*ADD, "--list", "-", *COPY), "index.txt|||text", 2,
        "pstamp: fileset asks/night_7: file name 'index.txt' is no plain name or occurs twice\n",
    ),
    "not in its folder": (
        (*ADD, "--list", "-", "--datapath", "{data}"), LIST, 2,
        "pstamp: file {data}/a.fits is not in {root}/asks/night_7: have it linked or copied there\n",
    ),
    "not there": ((*ADD, "--list", "-"), LIST, 2, "pstamp: file {root}/asks/night_7/a.fits: there is no such file\n"),
    "a link to a relative path": (
        (*ADD, "--list", "-", "--link", "--datapath", "data"), LIST, 2,
        "pstamp: data/a.fits: a link needs a complete path; give --datapath as one, or --copy\n",
    ),
    "a list of relative paths": (
        (*ADD, "--list", "-", "--copy", "--abspath"), "data/a.fits|||text", 2,
        "pstamp: file data/a.fits: not a complete path, which --abspath asks for\n",
    ),
    "no home": (
        (*ADD, "--empty", "--home", "/nowhere"), "", 3,
        "pstamp: no server in /nowhere (pstamp.toml is missing); make one with: pstamp init --home /nowhere\n",
    ),
    "no database": (
        (*ADD, "--empty", "--dbname", "/nowhere.db"), "", 2, "pstamp: database /nowhere.db: no such file\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_registered_leaves_everything_as_it_was(
    reg: Command, server: Server, data: Path, case: str
) -> None:
    words, listing, code, error = REFUSED[case]
    (data / "index.txt").write_text("x")
    before = state(server)
    result = reg(*(word.replace("{data}", str(data)) for word in words), stdin=listing)
    known = {"{data}": str(data), "{root}": str(server.datastore.root), "{md5}": md5(data / "a.fits")}
    for name, value in known.items():
        error = error.replace(name, value)
    assert result == (code, "", error)
    assert state(server) == before


def test_a_name_is_registered_once(reg: Command, server: Server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reg(*ADD, "--list", "-", "--copy", "--datapath", data, stdin=LIST)[0] == 0
    before = state(server)
    monkeypatch.setattr(shutil, "copy2", None)  # nothing is copied in vain
    for more in (("--empty",), ("--list", "-", "--copy", "--datapath", str(data)), ("--list", "-")):
        assert reg(*ADD, *more, stdin=LIST) == (1, "", "pstamp: fileset asks/night_7 is registered already\n")
    assert state(server) == before


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_files_that_would_be_lost_are_left_alone(reg: Command, server: Server, data: Path) -> None:
    folder = server.datastore.root / "asks" / "night_7"
    folder.mkdir()
    (folder / "a.fits").write_text("old")
    (folder / "precious").write_text("old")
    before = state(server)
    assert reg(*ADD, "--list", "-", "--copy", "--datapath", data, stdin=LIST) == (
        2, "", f"pstamp: {folder} has files that are not to be registered (precious): move them to another place, or "
        "list them, too\n",
    )  # fmt: skip
    assert state(server) == before
    (folder / "precious").unlink()
    before = state(server)
    (data / "link").symlink_to(folder / "a.fits")
    (data / "link").rename(data / "a.fits")
    for path in (folder, data):
        assert reg(*ADD, "--list", "-", "--link", "--datapath", path, stdin=LIST) == (
            2, "", f"pstamp: file {path}/a.fits is in {folder} already, where a link to it would replace it\n",
        )  # fmt: skip
        assert state(server) == before
    (folder / "a.fits").unlink()
    folder.rmdir()
    folder.write_text("a file")
    (data / "a.fits").unlink()
    (data / "a.fits").write_text("new")
    assert reg(*ADD, "--list", "-", "--copy", "--datapath", data, stdin=LIST) == (
        2, "", f"pstamp: {folder} is in the way and is no folder: move it to another place\n",
    )  # fmt: skip
    assert folder.read_text() == "a file"


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("place", ["copy", "link", None])
def test_what_fails_is_rolled_back(
    reg: Command, server: Server, data: Path, monkeypatch: pytest.MonkeyPatch, place: str | None, existed: bool
) -> None:
    folder = server.datastore.root / "asks" / "night_7"
    if existed or place is None:
        shutil.copytree(data, folder)
        (folder / "b.tgz").unlink()
    before = state(server)

    def refuse(*args: object) -> None:
        def work() -> None:
            dsFileset.create(product=dsProduct.get(), fileset_name="night_7", reg_time=datetime.now(UTC))
            raise RetryableError("no")

        unit_of_work(server.store.db, TABLES, work)

    with monkeypatch.context() as patch:
        patch.setattr(DataStore, "_register", refuse)
        more = [f"--{place}", "--datapath", str(data)] if place else []
        assert reg(*ADD, "--list", "-", *more, stdin=LIST) == (2, "", "pstamp: no\n")
        if place is None:
            assert reg("--add", "night_8", *ADD[2:], "--empty")[0] == 2
    assert state(server) == before


def test_of_two_who_register_one_name_the_second_is_refused(
    reg: Command, server: Server, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first copies: the check before copying did not see it."""
    (data / "other").mkdir()
    (data / "other" / "a.fits").write_text("of another")

    def other_comes(path: Path, kind: str) -> StoredFile:
        monkeypatch.setattr(filesets, "measure", measure)
        file = measure(data / "other" / "a.fits", "psrequest")
        DataStore(server.datastore.root, server.store.db).register("asks", "night_7", "PSREQUEST", [file], (), "copy")
        return measure(path, kind)

    monkeypatch.setattr(filesets, "measure", other_comes)
    assert reg(*ADD, "--list", "-", "--copy", "--datapath", data, stdin=LIST) == (
        1, "", "pstamp: fileset asks/night_7 is registered already\n",
    )  # fmt: skip
    path = server.datastore.file("asks", "night_7", "a.fits")[0].path
    assert path.read_text() == "of another"
    assert not list(server.datastore.root.rglob("*.tmp"))


def test_the_registry_itself_keeps_names_of_files_unique(reg: Command, server: Server, data: Path) -> None:
    assert reg(*ADD, "--list", "-", "--copy", "--datapath", data, stdin=LIST)[0] == 0
    with session(server.store.db, TABLES):
        row = dsFile.get()
        with pytest.raises(IntegrityError, match=r"UNIQUE|Duplicate"):
            dsFile.create(fileset=row.fileset, file_name="a.fits", bytes=1, md5sum="")


def test_a_request_takes_over_what_was_registered_for_it(reg: Command, server: Server, data: Path) -> None:
    """As the original's `pstamp_finish.pl` does it: the first column is the number of the request."""
    assert reg(*ADD, "--ps0", "91", "--list", "-", "--copy", "--datapath", data, stdin=LIST)[0] == 0
    server.datastore.publish("asks", "night_7", "PSRESULTS", [measure(data / "b.tgz", "tgz")], ["91"])
    assert [file.name for file in server.datastore.files("asks", "night_7")] == ["b.tgz"]


# -- dsreg --del


@pytest.mark.parametrize("place", ["--copy", "--link"])
def test_a_fileset_is_taken_out_with_or_without_its_files(reg: Command, server: Server, data: Path, place: str) -> None:
    with session(server.store.db, TABLES):
        updated = dsProduct.get(dsProduct.prod_name == "asks").last_update
    for name in ("x", "y", "z"):
        assert reg("--add", name, *ADD[2:], "--list", "-", place, "--datapath", data, stdin=LIST)[0] == 0
    assert reg("--del", "z", "--product", "asks", "-v") == (0, "asks/z is not registered any more\n", "")
    root = server.datastore.root / "asks"
    assert {path.name for path in (root / "z").iterdir()} == {"a.fits"}
    assert reg("--del", "y", "--product", "asks", "--rm") == (0, "", "")
    assert {path.name for path in root.iterdir()} == {"x", "z", "index.txt"}
    assert (data / "a.fits").read_text() == "bytes of a"
    assert [entry.name for entry in server.datastore.filesets("asks")] == ["x"]
    assert (root / "index.txt").read_text() == "".join(server.datastore.product_index("asks"))
    with session(server.store.db, TABLES):
        row = dsProduct.get(dsProduct.prod_name == "asks")
        assert (row.last_fs, dsFile.select().count()) == ("x", 1)
        assert row.last_update > updated
    assert server.datastore.unlisted() == []


@pytest.mark.parametrize(
    ("product", "sentence"),
    [
        ("asks", "there is no fileset night_7 in product asks"),
        ("other", "there is no product other in the data store (there are: asks, pstamp_results)"),
    ],
)
def test_what_is_not_there_can_only_be_taken_out_by_force(
    reg: Command, server: Server, product: str, sentence: str
) -> None:
    before = state(server)
    assert reg("--del", "night_7", "--product", product) == (1, "", f"pstamp: {sentence}\n")
    assert reg("--del", "night_7", "--product", product, "--rm", "--force") == (0, "", "")
    assert state(server) == before


# -- dsprodtool


NEW = ("--add", "frames", "--type", "image", "--description", "Demonstration frames")


def test_a_product_is_registered_with_its_columns(prod: Command, server: Server) -> None:
    assert prod(*NEW, "--ps0", "night   ", "--ps1", "who") == (0, "", "")
    index = server.datastore.root / "frames" / "index.txt"
    assert index.read_text() == "# filesetID|time registered|type|night   |who|\n"
    root = (server.datastore.root / "index.txt").read_text()
    assert root == server.datastore.root_index()
    assert re.search(r"^frames +\|none +\|20..-..-..T..:..:..Z\|image +\|Demonstration frames +\|$", root, re.M)


def test_a_product_is_registered_once_and_in_an_empty_folder(prod: Command, server: Server) -> None:
    folder = server.datastore.root / "frames"
    folder.mkdir()
    (folder / "precious").write_text("old")
    before = state(server)
    not_empty = f"pstamp: product frames: {folder} is not empty; move what is in it to another place\n"
    assert prod(*NEW) == (2, "", not_empty)
    assert state(server) == before
    (folder / "precious").unlink()
    assert prod(*NEW) == (0, "", "")
    before = state(server)
    for _ in range(2):
        assert prod(*NEW) == (1, "", "pstamp: product frames is registered already\n")
        assert state(server) == before


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ((), EITHER),
        (("--add", "a", "--del", "b"), EITHER),
        (("--add", "a", "--type", "t"), "--add needs --type and --description, and takes no --rm"),
        (("--add", "a", "--description", "d"), "--add needs --type and --description, and takes no --rm"),
        ((*NEW, "--rm"), "--add needs --type and --description, and takes no --rm"),
        (("--del", "asks", "--rm"), "--del works only at a terminal, where somebody can say YES"),
    ],
)
def test_a_wrong_line_for_products_ends_in_2(prod: Command, server: Server, line: tuple[str, ...], error: str) -> None:
    before = state(server)
    assert prod(*line, stdin="YES\n") == (2, "", f"pstamp: Invalid value: {error}; see: dsprodtool --help\n")
    assert state(server) == before


def test_a_name_of_a_product_that_is_none(prod: Command, server: Server) -> None:
    assert prod("--add", "../x", *NEW[2:]) == (2, "", f"pstamp: product '../x': {NAME}\n")
    assert prod(*NEW, "--ps3", "x" * 65)[0] == 2


@pytest.mark.parametrize("rm", [False, True])
def test_a_product_is_taken_out_by_who_says_yes(
    prod: Command, reg: Command, server: Server, data: Path, rm: bool
) -> None:
    for name in ("x", "y"):
        assert reg("--add", name, *ADD[2:], "--list", "-", "--copy", "--datapath", data, stdin=LIST)[0] == 0
    root = server.datastore.root
    assert reg("--add", "z", "--product", "pstamp_results", "--type", "T", "--empty")[0] == 0
    (root / "asks" / "own").mkdir()
    (root / "asks" / "own" / "precious").write_text("not ours")
    before = state(server)
    words = ("--del", "asks", *["--rm"] * rm)
    what = "and deletes their folders" if rm else "and leaves their files, which are served no more"
    asked = f"This takes product asks with all its filesets out of the registry, {what}.\nType YES to go on: "
    assert prod(*words, stdin="yes\n", terminal=True) == (1, f"{asked}nothing was done\n", "")
    assert state(server) == before
    assert prod(*words, stdin="YES\n", terminal=True) == (0, f"{asked}product asks is gone, filesets: 2\n", "")
    left = {str(path.relative_to(root)) for path in root.rglob("*")} - {".lock"}
    kept = set() if rm else {"asks/x", "asks/x/a.fits", "asks/y", "asks/y/a.fits"}
    assert left == {
        "index.txt", "pstamp_results", "pstamp_results/index.txt", "pstamp_results/z", "pstamp_results/z/index.txt",
        "asks", "asks/own", "asks/own/precious", *kept,
    }  # fmt: skip
    assert "asks" not in (root / "index.txt").read_text()
    with session(server.store.db, TABLES):
        assert (dsProduct.select().count(), dsFileset.select().count(), dsFile.select().count()) == (1, 1, 0)
    assert prod(*words, stdin="YES\n", terminal=True) == (
        1, asked, "pstamp: there is no product asks in the data store (there are: pstamp_results)\n",
    )  # fmt: skip


def test_a_product_is_taken_out_in_one_transaction(
    prod: Command, reg: Command, server: Server, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reg(*ADD, "--list", "-", "--copy", "--datapath", data, stdin=LIST)[0] == 0
    before = state(server)

    def fail(*args: object, **more: object) -> None:
        raise RetryableError("no")

    with monkeypatch.context() as patch:
        patch.setattr(dsProduct, "delete", fail)
        assert prod("--del", "asks", "--rm", stdin="YES\n", terminal=True)[0] == 2
    assert state(server) == before
    assert registry.Registry(server.datastore.root, server.store.db).file("asks", "night_7", "a.fits")


def test_of_two_who_register_what_is_there_the_second_leaves_the_first_alone(
    reg: Command, server: Server, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data, server.datastore.root / "asks" / "night_7")
    turn = DataStore._turn

    def other_comes(self: DataStore) -> Any:
        monkeypatch.setattr(DataStore, "_turn", turn)
        assert reg(*ADD, "--list", "-", stdin="b.tgz|||tgz\n")[0] == 0
        return turn(self)

    monkeypatch.setattr(DataStore, "_turn", other_comes)
    assert reg(*ADD, "--list", "-", stdin=LIST) == (1, "", "pstamp: fileset asks/night_7 is registered already\n")
    index = server.datastore.root / "asks" / "night_7" / "index.txt"
    assert index.read_text() == "".join(server.datastore.fileset_index("asks", "night_7"))
    assert "b.tgz" in index.read_text()


def test_the_folder_of_a_fileset_may_be_a_link_to_where_its_files_are(reg: Command, server: Server, data: Path) -> None:
    folder = server.datastore.root / "asks" / "night_7"
    folder.symlink_to(data)
    assert reg(*ADD, "--list", "-", "--copy", "--datapath", data, stdin=LIST)[0] == 2
    assert reg(*ADD, "--list", "-", stdin=LIST) == (0, "", "")
    assert server.datastore.file("asks", "night_7", "a.fits")[0].path == folder / "a.fits"
    assert reg("--del", "night_7", "--product", "asks", "--rm")[0] == 0
    assert not folder.is_symlink()
    assert (data / "a.fits").read_text() == "bytes of a"
