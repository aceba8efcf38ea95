"""The six programs that read data stores, as they are typed: what they print, how they end, what they leave behind."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import os
import pty
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import astropy.io.fits as fits
import numpy as np
import pytest
import remote as stores
from remote import Remote, both, remote, send, stop
from worlds import World

from pstamp_core import __version__
from pstamp_core.datastore.index import FileEntry, FilesetEntry, ProductEntry, fileset_index, product_index, root_index
from pstamp_core.faults import RetryableError
from pstamp_core.machines import RequestState
from pstamp_core.store import pstampRequest
from pstamp_core.store.tables import pstampDataStore
from pstamp_core.tasks import collect, register
from pstamp_core.tasks.queue_requests import queue_requests
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import make_server
from pstamp_web.app import WebService
from runners import dsclient

__all__ = ["both", "remote", "stop"]

Result = tuple[int, str, str]
Command = Callable[..., Result]

ROOT = Path(__file__).parents[1]
LISTS = ("dsrootls", "dsproductls", "dsfilesetls")
PROGRAMS = (*LISTS, "dsget", "dsgetfileset", "dsleech")
NOW = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run a program with arguments in an empty folder, which is home, too; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(name: str, *args: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            importlib.import_module(f"runners.{name}").main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


def md5_of(content: bytes | str) -> str:
    return hashlib.md5(content.encode() if isinstance(content, str) else content, usedforsecurity=False).hexdigest()


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with their bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def steps(out: str) -> list[str]:
    """The lines of an output, without the time that each begins with."""
    lines = out.splitlines()
    assert all(re.match(f"{NOW} ", line) for line in lines)
    return [line.partition(" ")[2] for line in lines]


# -- all of them


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_version_and_wrong_command_lines(command: Command, name: str) -> None:
    code, out, err = command(name, "--help")
    assert (code, err) == (0, "")
    assert f"Example: {name}" in " ".join(out.split())
    assert command(name, "--version") == (0, f"pstamp {__version__}\n", "")
    code, out, err = command(name, "--nosuch")
    assert (code, out, err.startswith("pstamp: No such option: --nosuch; see: ")) == (2, "", True)
    code, out, err = command(name, "-u", "http://h", "extra")
    assert (code, out) == (2, "")
    assert "unexpected extra argument" in err
    assert command(name) == (3, "", "pstamp: --uri is missing; see --help\n")


@pytest.mark.parametrize(("name", "option"), [("dsget", "--filename"), ("dsgetfileset", "--outdir")])
def test_where_it_shall_go_must_be_said(command: Command, name: str, option: str) -> None:
    assert command(name, "--uri", "http://h/x") == (3, "", f"pstamp: {option} is missing; see --help\n")


def arguments(name: str, uri: str) -> list[str]:
    more = {"dsget": ["-f", "got"], "dsgetfileset": ["-o", "got"]}
    return ["--uri", uri, *more.get(name, [])]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, 101, "Unauthorized"), (403, 103, "Forbidden"), (404, 104, "Not Found"), (410, 110, "Gone"),
        (500, 200, "Internal Server Error"), (503, 203, "Service Unavailable"), (599, 255, ""),
        (304, 4, "Not Modified"), (204, 5, "No Content"),
    ],
)  # fmt: skip
def test_a_status_of_http_is_told_and_the_exit_code(
    command: Command, remote: Remote, tmp_path: Path, name: str, status: int, code: int, said: str
) -> None:
    path = "x" if name == "dsget" else "x/index.txt"
    remote.special[path] = send("", status)
    found = command(name, *arguments(name, f"{remote.uri}/x"))
    assert found == (code, "", f"pstamp: {remote.uri}/{path}: {f'HTTP {status} {said}'.rstrip()}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_answer_is_200(command: Command, remote: Remote, stop: threading.Event, tmp_path: Path, name: str) -> None:
    path = "x" if name == "dsget" else "x/index.txt"
    remote.special[path] = stores.never(stop)
    slow = command(name, *arguments(name, f"{remote.uri}/x"), "--timeout", "0.2")
    assert slow == (200, "", f"pstamp: {remote.uri}/{path}: no answer within 0.2 s\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
        path = uri if name == "dsget" else f"{uri}/index.txt"
        assert command(name, *arguments(name, uri)) == (200, "", f"pstamp: {path}: Connection refused\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_proxy_is_that_of_the_environment_unless_it_shall_not(
    command: Command, remote: Remote, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    content = "12345"
    remote.add("a", r__fits=content)
    remote.special["/ds/index.txt"] = send("".join(root_index([ProductEntry("p", "a", stores.DAY_1, "x", "y")])))
    level = {"dsrootls": "", "dsproductls": "/p", "dsleech": "/p", "dsget": "/p/a/r.fits"}.get(name, "/p/a")
    uri = remote.uri.removesuffix("/p") + level
    direct = command(name, *arguments(name, uri))
    assert direct[0] == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY")
        asked = len(remote.asked)
        assert command(name, *arguments(name, uri))[0] == 200
        assert len(remote.asked) == asked
        code, out, err = command(name, *arguments(name, uri), "--no-proxy")
    assert (code, err) == (0, "")
    if name in LISTS:
        assert out == direct[1]
    # Files go the same way as lists (the original's dsgetfileset and dsleech forgot).
    assert remote.asked[asked:] == remote.asked[: len(remote.asked) - asked] or name == "dsleech"


def test_https_is_spoken_by_all(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with stores.serving(tls=True) as (remote, _):
        remote.add("a", r__fits="12345")
        monkeypatch.setenv("SSL_CERT_FILE", str(stores.CERTIFICATE))
        assert command("dsgetfileset", "-u", f"{remote.uri}/a", "-o", "got", "--no-proxy")[0] == 0
        assert command("dsleech", "-u", remote.uri, "-d", "leeched")[0] == 0
        assert command("dsfilesetls", "-u", f"{remote.uri}/a")[1].startswith("https://127.0.0.1:")
        monkeypatch.delenv("SSL_CERT_FILE")
        code, out, err = command("dsget", "-u", f"{remote.uri}/a/r.fits", "-f", "not")
        assert (code, out) == (200, "")
        assert "certificate verify failed" in err
    assert files(tmp_path) == {"got/r.fits": b"12345", "leeched/r.fits": b"12345"}


# -- lists


def test_products_are_listed(command: Command, remote: Remote) -> None:
    root = remote.uri.removesuffix("/p")
    entries = [
        ProductEntry("asks", None, stores.DAY_1, "psrequest", "Incoming \x1b[31mrequests"),
        ProductEntry("p q", "f 1", stores.DAY_1, "psresults", ""),
    ]
    remote.special["/ds/index.txt"] = send("".join(root_index(entries)) + "../x|none|\n")
    for ending in ("", "/", "/index.txt"):
        assert command("dsrootls", "--uri", root + ending) == (
            0,
            "# uri product last_fileset time_registered type description\n"
            f"{root}/asks/index.txt asks none 2026-03-04T05:06:07Z psrequest Incoming [31mrequests\n"
            f"{root}/p%20q/index.txt p q f 1 2026-03-04T05:06:07Z psresults\n",
            f"pstamp: {root + ending}: passed over: '../x|none|' is no row of an index\n",
        )
    remote.special["/ds/index.txt"] = send("".join(root_index([])))
    assert command("dsrootls", "--uri", root) == (0, "", f"pstamp: {root}: no products found\n")


def test_filesets_are_listed(command: Command, remote: Remote) -> None:
    entries = [
        FilesetEntry("vega_0041", stores.DAY_1, "PSRESULTS", ("91", None)),
        FilesetEntry("vega_0042", stores.DAY_1, "PSRESULTS", (None, "x")),
    ]
    remote.special["index.txt"] = send("".join(product_index(entries, ["req_id", "more"])) + "odd|\n" * 7)
    lines = [f"{remote.uri}/vega_004{n}/index.txt vega_004{n} 2026-03-04T05:06:07Z PSRESULTS" for n in (1, 2)]
    code, out, err = command("dsproductls", "-u", remote.uri)
    assert (code, out.splitlines()) == (0, lines)
    odd = [f"pstamp: {remote.uri}: passed over: 'odd|' is no row of an index"] * 5
    assert err.splitlines() == [*odd, f"pstamp: {remote.uri}: passed over: 2 more"]
    assert command("dsproductls", "-u", remote.uri, "-e")[1].splitlines() == [
        f"{lines[0]} 91 null",
        f"{lines[1]} null x",
    ]
    remote.special["index.txt?vega_0042"] = send("".join(product_index([], ["req_id"])))
    for option in ("-l", "--last_fileset"):
        assert command("dsproductls", "-u", remote.uri, option, "vega_0042") == (
            0, "", f"pstamp: {remote.uri}: no filesets found\n",
        )  # fmt: skip
    assert command("dsproductls", "-u", remote.uri, "-l", "gone") == (
        104, "", f"pstamp: {remote.uri}/index.txt?gone: HTTP 404 Not Found\n",
    )  # fmt: skip


def test_files_are_listed(command: Command, remote: Remote) -> None:
    entries = [
        FileEntry("results.fits", 11520, "62d71657ba0f9a3b2dc8bf0382aedee2", "table"),
        FileEntry("XY 33.tgz", 7, "", "tgz", ("XY33", "b")),
    ]
    remote.special["a/index.txt"] = send("".join(fileset_index(entries)))
    assert command("dsfilesetls", "-u", f"{remote.uri}/a") == (
        0,
        f"{remote.uri}/a/results.fits results.fits 11520 62d71657ba0f9a3b2dc8bf0382aedee2 table\n"
        f"{remote.uri}/a/XY%2033.tgz XY 33.tgz 7 0 tgz XY33 b\n",
        "",
    )
    remote.special["a/index.txt"] = send("".join(fileset_index([])))
    assert command("dsfilesetls", "-u", f"{remote.uri}/a") == (0, "", f"pstamp: {remote.uri}/a: no files found\n")


# -- dsget


def test_a_file_is_fetched_and_checked(command: Command, remote: Remote, tmp_path: Path) -> None:
    remote.add("a", **{"r 1__fits": "12345"})
    uri, md5 = f"{remote.uri}/a/r%201.fits", md5_of("12345")
    for more in ([], ["--bytes", 5], ["--md5", md5.upper()], ["--bytes", 5, "--md5", md5, "--skip"][:4]):
        code, out, err = command("dsget", "-u", uri, "-f", "new/deep/r.fits", *more)
        assert (code, steps(out), err) == (0, ["r.fits: 5 bytes"], "")
        assert files(tmp_path) == {"new/deep/r.fits": b"12345"}
        (tmp_path / "new/deep/r.fits").write_text("old")
    for more, said in (
        (["--bytes", 4], "has more than the 4 bytes expected"),
        (["--bytes", 6], f"has 5 bytes, md5 {md5}; expected 6 bytes, md5 {md5}"),
        (["--md5", "0" * 32], f"has 5 bytes, md5 {md5}; expected 5 bytes, md5 {'0' * 32}"),
    ):
        assert command("dsget", "-u", uri, "-f", "new/deep/r.fits", *more) == (5, "", f"pstamp: {uri}: {said}\n")
        assert files(tmp_path) == {"new/deep/r.fits": b"old"}
    code, _, err = command("dsget", "-u", uri, "-f", "r.fits", "--md5", "12")
    assert (code, err.partition(";")[0]) == (2, "pstamp: Invalid value: --md5 '12': expected 32 hexadecimal digits")
    (tmp_path / "folder").mkdir()
    code, _, err = command("dsget", "-u", uri, "-f", "folder")
    assert code == 2
    assert err.startswith("pstamp: Is a directory")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_file_that_was_cut_off_is_continued(command: Command, remote: Remote, tmp_path: Path) -> None:
    body = os.urandom(50_000)
    remote.special["big"] = stores.in_parts(body, '"v1"', 30_000)
    code, out, err = command("dsget", "-u", f"{remote.uri}/big", "-f", "big")
    assert (code, out) == (200, "")
    assert err.endswith("peer closed connection without sending complete message body (received 30000 bytes, expected "
                        "50000)\n")  # fmt: skip
    assert list(files(tmp_path).values()) == [body[:30_000]]
    code, out, _ = command("dsget", "-u", f"{remote.uri}/big", "-f", "big", "--md5", md5_of(body))
    assert (code, steps(out)) == (0, ["big: 50000 bytes"])
    assert files(tmp_path) == {"big": body}


def test_now_and_then_a_line_says_how_far_it_is(
    command: Command, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dsclient, "SILENCE", 0)
    remote.special["big"] = stores.in_parts(b"x" * 300_000, '"v1"')
    lines = steps(command("dsget", "-u", f"{remote.uri}/big", "-f", "big")[1])
    assert len(lines) > 2
    assert all(re.fullmatch("big: [0-9]+ of 300000 bytes", line) for line in lines[:-1])
    assert lines[-1] == "big: 300000 bytes"
    remote.special["big"] = stores.without_length(b"x" * 300_000)
    assert re.fullmatch("big: [0-9]+ bytes", steps(command("dsget", "-u", f"{remote.uri}/big", "-f", "big")[1])[0])


def test_an_interrupted_one_says_how_to_go_on(
    command: Command, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(collect, "fetch", interrupted)
    assert command("dsget", "-u", f"{remote.uri}/big", "-f", "big") == (
        1,
        "",
        "pstamp: interrupted; the same command goes on with the file that is half there, if the server can do that\n",
    )


def test_on_a_terminal_a_bar_moves(remote: Remote, tmp_path: Path) -> None:
    remote.special["big"] = stores.in_parts(b"x" * 300_000, '"v1"')
    ours, theirs = pty.openpty()
    code = "from runners.dsget import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "-u", f"{remote.uri}/big", "-f", str(tmp_path / "big[red]")],
        stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # nobody holds the other end any more
        while more := os.read(ours, 2**16):
            shown += more
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"big[red]: 300000 bytes\r\n" in shown


def test_what_is_for_nebulous_is_refused(command: Command, tmp_path: Path) -> None:
    for option in (["-n"], ["--volume", "v"], ["--copies", "2"], ["-x", "a"], ["--server", "s"]):
        code, out, err = command("dsget", "-u", "http://h/x", "-f", "x", *option)
        assert (code, out) == (2, "")
        assert err.startswith(
            "pstamp: Invalid value: pstamp knows no Nebulous, for which --nebulous, --volume, --copies, --xattr and "
            "--server are; name a file with --filename; see: "
        )
    assert list(tmp_path.iterdir()) == []


def compressed(shape: tuple[int, int] = (40, 50), *, primary: bool = False) -> tuple[bytes, bytes]:
    """A FITS file with a table, an image of scaled integers and one of unsigned ones; and the same compressed."""
    scaled = fits.ImageHDU(np.arange(shape[0] * shape[1], dtype="i2").reshape(shape), name="scaled")
    scaled.header["BSCALE"], scaled.header["BZERO"], scaled.header["BLANK"] = 0.5, 100.0, -32768
    mask = fits.ImageHDU(np.arange(20, dtype="u2").reshape(4, 5), name="mask")
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1, 2])], name="table")
    plain, packed = io.BytesIO(), io.BytesIO()
    if primary:
        first = fits.PrimaryHDU(np.arange(2000, dtype="i4").reshape(shape), fits.Header({"OBJECT": "vega"}))
        first.writeto(plain)
        hdu = fits.CompImageHDU(first.data, first.header)
        with fits.open(_written(fits.HDUList([fits.PrimaryHDU(), hdu])), disable_image_compression=True) as hdus:
            for name in ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2"):  # fpack keeps the comments, astropy does not
                hdus[1].header.comments[f"Z{name}"] = first.header.comments[name]
            hdus.writeto(packed)
        return plain.getvalue(), packed.getvalue()
    with fits.open(
        _written(fits.HDUList([fits.PrimaryHDU(), scaled, table, mask])), do_not_scale_image_data=True
    ) as raw:
        raw.writeto(plain)
        packs = []
        for hdu in raw:
            pack = hdu
            if isinstance(hdu, fits.ImageHDU):
                pack = fits.CompImageHDU(hdu.data, hdu.header, do_not_scale_image_data=True)
                pack.header = hdu.header.copy()
            packs.append(pack)
        fits.HDUList(packs).writeto(packed)
    return plain.getvalue(), packed.getvalue()


def _written(hdus: fits.HDUList) -> io.BytesIO:
    stream = io.BytesIO()
    hdus.writeto(stream)
    return io.BytesIO(stream.getvalue())


def test_a_compressed_copy_is_unpacked_before_it_is_checked(command: Command, remote: Remote, tmp_path: Path) -> None:
    plain, packed = compressed(primary=True)
    remote.special["a.fits?compress"] = send(packed)
    uri = f"{remote.uri}/a.fits"
    checks = ["--bytes", len(plain), "--md5", md5_of(plain)]
    code, out, err = command("dsget", "-u", uri, "-f", "a.fits", "-c", *checks)
    assert (code, steps(out), err) == (0, [f"a.fits: {len(packed)} bytes"], "")
    assert files(tmp_path) == {"a.fits": plain}
    remote.special["a.fits?compress"] = send(plain)  # a server that knows nothing of that
    assert command("dsget", "-u", uri, "-f", "a.fits", "-c", *checks)[0] == 0
    (tmp_path / "a.fits").unlink()
    code, _, err = command("dsget", "-u", uri, "-f", "a.fits", "-c", "--bytes", 5)
    said = f"has {len(plain)} bytes, md5 {md5_of(plain)} when unpacked; expected 5 bytes, md5 of any kind"
    assert (code, err) == (5, f"pstamp: {uri}: {said}\n")
    (tmp_path / "here.fits").write_bytes(plain)
    assert command("dsget", "-u", tmp_path / "here.fits", "-f", "here.fits", "-c")[0] == 0
    (tmp_path / "here.fits").unlink()
    remote.special["a.fits?compress"] = send("no table")
    code, _, err = command("dsget", "-u", uri, "-f", "a.fits", "-c")
    assert code == 5
    assert "can't be unpacked" in err
    assert files(tmp_path) == {}


# -- dsgetfileset


def test_a_fileset_is_fetched_in_its_order(command: Command, remote: Remote, tmp_path: Path) -> None:
    remote.add("f 0", **{"z__fits": "1", "b 1__txt": "22", "a__jpg": ""})
    code, out, err = command("dsgetfileset", "-u", f"{remote.uri}/f%200", "-o", "new/out", "-v")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert steps("\n".join(lines[:-1])) == ["z.fits: 1 bytes", "b 1.txt: 2 bytes", "a.jpg: 0 bytes"]
    assert lines[-1] == "files: 3"
    assert files(tmp_path) == {"new/out/a.jpg": b"", "new/out/b 1.txt": b"22", "new/out/z.fits": b"1"}
    asked = len(remote.asked)
    assert (
        command("dsgetfileset", "-u", f"{remote.uri}/f%200/index.txt", "-o", "out", "--first-file", "b 1.txt")[0] == 0
    )
    assert remote.asked[asked:] == ["f%200/index.txt", "f%200/b%201.txt", "f%200/a.jpg"]
    assert command("dsgetfileset", "-u", f"{remote.uri}/f%200", "-o", "out", "--first-file", "c") == (
        5, "", f"pstamp: {remote.uri}/f%200: there is no file c; the first is z.fits\n",
    )  # fmt: skip
    remote.add("empty")
    assert command("dsgetfileset", "-u", f"{remote.uri}/empty", "-o", "out") == (
        0, "", f"pstamp: {remote.uri}/empty: no files found\n",
    )  # fmt: skip


def test_the_first_file_that_can_not_be_had_ends_it(command: Command, remote: Remote, tmp_path: Path) -> None:
    remote.add("a", one__fits="1", two__fits="2", three__fits="3")
    args = ("dsgetfileset", "-u", f"{remote.uri}/a", "-o", "out")
    remote.special["a/two.fits"] = send("", 503)
    code, out, err = command(*args)
    assert (code, steps(out)) == (203, ["one.fits: 1 bytes"])
    assert err == f"pstamp: {remote.uri}/a/two.fits: HTTP 503 Service Unavailable\n"
    assert files(tmp_path) == {"out/one.fits": b"1"}
    remote.special["a/two.fits"] = send("x")
    code, _, err = command(*args)
    assert (code, files(tmp_path)) == (5, {"out/one.fits": b"1"})
    assert err == (
        f"pstamp: {remote.uri}/a/two.fits: has 1 bytes, md5 {md5_of('x')}; expected 1 bytes, md5 {md5_of('2')}\n"
    )
    assert command(*args, "--skip-checks")[0] == 0
    assert files(tmp_path) == {"out/one.fits": b"1", "out/three.fits": b"3", "out/two.fits": b"x"}


def test_a_file_without_md5_is_checked_for_its_size(command: Command, remote: Remote, tmp_path: Path) -> None:
    remote.add("a", r__fits="12345")
    remote.special["a/index.txt"] = send("".join(fileset_index([FileEntry("r.fits", 5, "", "table")])) + "odd\n")
    code, _, err = command("dsgetfileset", "-u", f"{remote.uri}/a", "-o", "out")
    assert (code, err) == (0, f"pstamp: {remote.uri}/a: passed over: 'odd' is no row of an index\n")
    remote.special["a/r.fits"] = send("1234")
    assert command("dsgetfileset", "-u", f"{remote.uri}/a", "-o", "out")[0] == 5
    assert files(tmp_path) == {"out/r.fits": b"12345"}


def test_a_stranger_chooses_no_hidden_name_and_no_other_place(command: Command, remote: Remote, tmp_path: Path) -> None:
    remote.add("a", __bashrc="evil")
    code, _, err = command("dsgetfileset", "-u", f"{remote.uri}/a", "-o", ".")
    assert (code, err) == (5, "pstamp: file .bashrc: a name that begins with a dot is not taken from others\n")
    rows = "# fileID|bytes|md5sum|type|\n../up|1||x|\n/etc/passwd|1||x|\na/b|1||x|\n..|1||x|\n"
    remote.special["a/index.txt"] = send(rows)
    code, _, err = command("dsgetfileset", "-u", f"{remote.uri}/a", "-o", "out")
    assert (code, len(err.splitlines())) == (0, 5)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "r.fits").symlink_to(tmp_path / "mine")
    remote.add("b", r__fits="evil")
    code, _, err = command("dsgetfileset", "-u", f"{remote.uri}/b", "-o", "out")
    assert (code, files(tmp_path)) == (5, {})
    assert "leads out of" in err


def archive(*members: tuple[str, bytes | None], **odd: Any) -> bytes:
    """A .tgz with files, and with folders where there is no content; `odd` goes into each member."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = (tarfile.DIRTYPE, 0) if content is None else (tarfile.REGTYPE, len(content))
            for key, value in odd.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content or b""))
    return packed.getvalue()


def test_what_is_packed_is_unpacked(command: Command, remote: Remote, tmp_path: Path) -> None:
    plain, packed = compressed()
    whole, one = compressed(primary=True)
    tgz = archive(("sub", None), ("sub/x.fits", b"1"), ("y.fits", b"2"))
    remote.add("a", t__tgz=tgz, i__fits=packed, i2__fits__fz=packed, p__fits=one, n__fits=plain, a__txt="text")
    assert command("dsgetfileset", "-u", f"{remote.uri}/a", "-o", "out", "--unpack")[0] == 0
    found = files(tmp_path / "out")
    assert sorted(found) == sorted(
        ["a.txt", "i.fits", "i2.fits", "i2.fits.fz", "n.fits", "p.fits", "sub/x.fits", "t.tgz", "y.fits"]
    )
    assert found["p.fits"] == whole
    assert (found["i.fits"], found["i2.fits.fz"], found["n.fits"]) == (found["i2.fits"], packed, plain)
    with fits.open(io.BytesIO(packed), disable_image_compression=True, do_not_scale_image_data=True) as hdus:
        assert [hdus[1].header.get(key) for key in ("ZIMAGE", "BSCALE", "BZERO")] == [True, 0.5, 100.0]
    assert (found["sub/x.fits"], found["y.fits"], found["t.tgz"]) == (b"1", b"2", tgz)
    for scaled in (True, False):
        with (
            fits.open(io.BytesIO(found["i.fits"]), do_not_scale_image_data=not scaled) as ours,
            fits.open(io.BytesIO(plain), do_not_scale_image_data=not scaled) as theirs,
        ):
            assert [type(hdu) for hdu in ours] == [type(hdu) for hdu in theirs]
            for mine, other in zip(ours[1:], theirs[1:], strict=True):
                assert np.array_equal(mine.data, other.data)
                assert mine.name == other.name
    assert not command("dsgetfileset", "-u", f"{remote.uri}/a", "-o", "raw")[0]
    assert files(tmp_path / "raw") == remote.files["a"]


def test_two_primary_images_are_one_too_many(tmp_path: Path) -> None:
    _, packed = compressed(primary=True)
    odd = tmp_path / "a.fits"
    with fits.open(io.BytesIO(packed), disable_image_compression=True) as hdus:
        hdus[0].data = np.ones((2, 2))
        hdus.writeto(odd)
    before = odd.read_bytes()
    with pytest.raises(RetryableError, match=r"(?s)can't be unpacked: .*'XTENSION' card does not exist") as caught:
        collect.unpack_fits(odd)
    assert (caught.value.fault, files(tmp_path)) == (5, {"a.fits": before})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive(("sub/../../up", b"1")), "begins with a dot"),
        (archive(("/etc/up", b"1")), "leads out of"),
        (archive((".bashrc", b"1")), "file .bashrc: a name that begins with a dot"),
        (archive(("sub/.x", b"1")), "begins with a dot"),
        (archive(("a", b""), type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'a' in it is neither a plain file nor"),
        (archive(("a", b""), type=tarfile.LNKTYPE, linkname="b"), "'a' in it is neither a plain file nor a folder"),
        (archive(("a", b""), type=tarfile.CHRTYPE), "'a' in it is neither a plain file nor a folder"),
        (archive(("a" * 2**21, b"")), "a name or header of 2097664 bytes"),
        (archive(("a", bytes(Random(1).randbytes(5000))))[:2000], "Compressed file ended before"),
        (b"no archive", "can't be unpacked"),
        (archive(("a", b""), pax_headers={"GNU.sparse.map": "x"}), "can't be unpacked: invalid literal for int()"),
        (gzip.compress(gzip.decompress(archive(("a", b"1" * 5000)))[:1000]), "unexpected end of data"),
        (archive(("a", b"1" * 5000))[:-8] + b"\0" * 8, "CRC check failed"),
    ],
    ids=[
        "up",
        "root",
        "hidden",
        "hidden below",
        "symlink",
        "link",
        "device",
        "name",
        "cut",
        "text",
        "map",
        "cut inside",
        "crc",
    ],
)
def test_a_bad_archive_leaves_nothing_elsewhere(
    command: Command, remote: Remote, tmp_path: Path, content: bytes, said: str
) -> None:
    remote.add("a", t__tgz=content)
    code, _, err = command("dsgetfileset", "-u", f"{remote.uri}/a", "-o", "out", "--unpack")
    assert code == 5
    assert said in err
    assert len(err.splitlines()) == 1
    assert files(tmp_path) == {"out/t.tgz": content}


def test_bombs_are_not_unpacked(
    command: Command, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pstamp_core.files.MAX_UNPACKED", 100_000)
    monkeypatch.setattr(collect, "MAX_PIXELS", 7999)
    sparse = io.BytesIO()
    with tarfile.open(fileobj=sparse, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("big")
        member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,0",
                              "GNU.sparse.size": str(2**60)}  # fmt: skip
        tar.addfile(member)
    bad = {
        "zeros.tgz": (archive(("a", b"0" * 200_000)), "more than 100000 bytes when unpacked"),
        "sparse.tgz": (sparse.getvalue(), "'big' in it is neither a plain file nor a folder"),
        "p.fits": (compressed(primary=True)[1], "its images have 8000 bytes; expected at most 7999"),
    }
    for name, (content, said) in bad.items():
        remote.files = {"a": {name: content}}
        code, _, err = command("dsgetfileset", "-u", f"{remote.uri}/a", "-o", "out", "--unpack")
        assert code == 5
        assert said in err
        assert files(tmp_path)[f"out/{name}"] == content
    assert len(files(tmp_path)) == len(bad)


# -- dsleech


def product(remote: Remote, count: int = 3) -> None:
    """Filesets f0, f1 ... with a file each, r0.fits, r1.fits ..., and one of the same name in all."""
    for n in range(count):
        remote.add(f"f{n}", **{f"r{n}__fits": str(n), "same__txt": "same"})


def remembered(tmp_path: Path) -> str:
    return (tmp_path / ".dsleechrc").read_text()


def test_all_that_is_new_is_fetched(command: Command, remote: Remote, tmp_path: Path) -> None:
    product(remote)
    args = ("dsleech", "-u", f"{remote.uri}/index.txt", "-d", "got")
    assert command(*args, "--recall", "--remember") == (0, "", "")
    assert sorted(files(tmp_path / "got")) == ["r0.fits", "r1.fits", "r2.fits", "same.txt"]
    assert remembered(tmp_path) == f'---\n"{remote.uri}/index.txt": "f2"\n'
    remote.add("f3", r3__fits="3")
    code, out, err = command("dsleech", "-u", remote.uri, "-d", "got", "--recall", "--remember", "-v")
    lines = out.splitlines()
    assert (code, steps(lines[0]), lines[1:], err) == (0, ["r3.fits: 1 bytes"], ["f3: files: 1"], "")
    assert remote.asked[-3:] == ["index.txt?f2", "f3/index.txt", "f3/r3.fits"]
    code, out, err = command(*args, "--recall", "-v")
    assert (code, out, err) == (0, "", f"pstamp: {remote.uri}/index.txt: no new filesets found\n")
    # What is said goes before what was remembered, and nothing is remembered unasked.
    assert command(*args, "--recall", "--last_fileset", "f1")[0] == 0
    assert "index.txt?f1" in remote.asked
    assert remembered(tmp_path) == f'---\n"{remote.uri}/index.txt": "f3"\n'
    assert command(*args, "-l", "gone") == (104, "", f"pstamp: {remote.uri}/index.txt?gone: HTTP 404 Not Found\n")


def test_files_of_one_name_are_passed_over_kept_apart_or_replaced(
    command: Command, remote: Remote, tmp_path: Path
) -> None:
    remote.add("f0", results__fits="0", same__txt="same")
    remote.add("f1", results__fits="11", same__txt="same")
    args = ("dsleech", "-u", remote.uri)
    code, out, err = command(*args)
    assert (code, out) == (0, "")
    assert err == (
        f"pstamp: {remote.uri}/f1: file results.fits is passed over: another of this name is in .; --apart keeps them "
        "apart, --overwrite replaces it\n"
    )
    assert files(tmp_path) == {"results.fits": b"0", "same.txt": b"same"}
    assert command(*args, "--overwrite") == (0, "", "")
    assert files(tmp_path) == {"results.fits": b"11", "same.txt": b"same"}
    assert command(*args, "--apart", "--dir", "d") == (0, "", "")
    assert files(tmp_path / "d") == {
        "f0/results.fits": b"0", "f0/same.txt": b"same", "f1/results.fits": b"11", "f1/same.txt": b"same",
    }  # fmt: skip
    asked = len(remote.asked)
    assert command(*args, "--apart", "--dir", "d") == (0, "", "")
    assert all("index.txt" in path for path in remote.asked[asked:])
    (tmp_path / "d" / "f0" / "results.fits").write_text("x")  # as long as the one that is listed
    assert "f0: file results.fits is passed over" in command(*args, "--apart", "--dir", "d")[2]
    remote.add(".ssh", authorized_keys="evil")
    code, _, err = command(*args, "--apart", "--dir", "d")
    assert code == 5
    assert "file .ssh: a name that begins with a dot is not taken from others" in err
    assert not (tmp_path / "d" / ".ssh").exists()


def test_what_failed_is_told_and_not_remembered_as_fetched(command: Command, remote: Remote, tmp_path: Path) -> None:
    product(remote, 6)
    args = ("dsleech", "-u", remote.uri, "--dir", "got", "--recall", "--remember")
    remote.special |= {
        "f1/r1.fits": send("", 503),
        "f3/index.txt": send("", 500),
        "f4/r4.fits": send("x"),
    }
    code, out, err = command(*args)
    assert (code, out) == (203, "")
    assert err.splitlines() == [
        f"pstamp: {remote.uri}/f1/r1.fits: HTTP 503 Service Unavailable",
        f"pstamp: {remote.uri}/f3/index.txt: HTTP 500 Internal Server Error",
        f"pstamp: {remote.uri}/f4/r4.fits: has 1 bytes, md5 {md5_of('x')}; expected 1 bytes, md5 {md5_of('4')}",
    ]
    assert sorted(files(tmp_path / "got")) == ["r0.fits", "r2.fits", "r5.fits", "same.txt"]
    assert remembered(tmp_path) == f'---\n"{remote.uri}/index.txt": "f0"\n'
    del remote.special["f1/r1.fits"]
    assert command(*args)[0] == 200
    assert remembered(tmp_path) == f'---\n"{remote.uri}/index.txt": "f2"\n'
    remote.special.clear()
    assert command(*args) == (0, "", "")
    assert sorted(files(tmp_path / "got")) == [*(f"r{n}.fits" for n in range(6)), "same.txt"]
    assert remembered(tmp_path) == f'---\n"{remote.uri}/index.txt": "f5"\n'
    assert remote.asked.count("f2/r2.fits") == 1


def test_what_can_not_be_written_is_told(command: Command, remote: Remote, tmp_path: Path) -> None:
    product(remote, 3)
    (tmp_path / "got" / "r1.fits").mkdir(parents=True)
    code, _, err = command("dsleech", "-u", remote.uri, "-d", "got", "--overwrite", "--remember")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "Is a directory" in err
    assert sorted(files(tmp_path / "got")) == ["r0.fits", "r2.fits", "same.txt"]
    assert remembered(tmp_path) == f'---\n"{remote.uri}/index.txt": "f0"\n'


def test_the_first_fileset_that_fails_is_not_passed_by(command: Command, remote: Remote, tmp_path: Path) -> None:
    product(remote, 2)
    remote.special["f0/r0.fits"] = send("", 403)
    assert command("dsleech", "-u", remote.uri, "-d", "got", "--remember")[0] == 103
    assert list(files(tmp_path)) == ["got/r1.fits", "got/same.txt"]


def test_a_server_that_lets_wait_is_asked_no_more(
    command: Command, remote: Remote, stop: threading.Event, tmp_path: Path
) -> None:
    product(remote, 4)
    remote.special["f1/r1.fits"] = stores.never(stop)
    code, _, err = command("dsleech", "-u", remote.uri, "-d", "got", "--remember", "-t", 0.2)
    assert (code, err) == (200, f"pstamp: {remote.uri}/f1/r1.fits: no answer within 0.2 s\n")
    assert sorted(files(tmp_path)) == [".dsleechrc", "got/r0.fits", "got/same.txt"]
    assert remembered(tmp_path) == f'---\n"{remote.uri}/index.txt": "f0"\n'


def test_a_remembered_fileset_that_has_gone_is_recovered_from(command: Command, remote: Remote, tmp_path: Path) -> None:
    product(remote)
    (tmp_path / ".dsleechrc").write_text(f"---\n{remote.uri}/index.txt: gone\n")
    args = ("dsleech", "-u", remote.uri, "-d", "got", "--recall", "--remember")
    assert command(*args) == (
        0, "", f"pstamp: {remote.uri}: fileset gone has gone; all that are there now are looked at\n",
    )  # fmt: skip
    assert sorted(files(tmp_path / "got")) == ["r0.fits", "r1.fits", "r2.fits", "same.txt"]
    assert remembered(tmp_path) == f'---\n"{remote.uri}/index.txt": "f2"\n'
    remote.special |= {"index.txt": send("", 404), "index.txt?f2": send("", 404)}
    asked = len(remote.asked)
    assert command("dsleech", "-u", f"{remote.uri}/none", "--recall")[0] == 104
    assert remote.asked[asked:] == ["none/index.txt"]
    assert command(*args) == (104, "", f"pstamp: {remote.uri}/index.txt: HTTP 404 Not Found\n")


@pytest.mark.parametrize(
    "line",
    ["{}/index.txt: f0", '"{}/index.txt": "f0"', "'{}/index.txt': 'f0'", '"{}/index.txt" : f0  ', "{}/index.txt:   f0"],
)
def test_the_originals_file_is_read_and_kept(command: Command, remote: Remote, tmp_path: Path, line: str) -> None:
    product(remote, 2)
    others = "# mine\n--- \nhttp://h/ds/it''s/index.txt: '7'\n'http://h/''/index.txt': \"a b\"\n\n"
    (tmp_path / ".dsleechrc").write_text(f"{others}{line.format(remote.uri)}\n")
    assert command("dsleech", "-u", remote.uri, "-d", "got", "--recall", "--remember") == (0, "", "")
    assert "index.txt?f0" in remote.asked
    assert remembered(tmp_path) == (
        f'---\n"http://h/ds/it\'\'s/index.txt": "7"\n"http://h/\'/index.txt": "a b"\n"{remote.uri}/index.txt": "f1"\n'
    )


@pytest.mark.parametrize("text", ["no colon\n", "a: [\n", '"a": "\\x"\n', "- list\n", b"\xff\n", '"a: b\n'])
def test_a_file_that_is_something_else_is_left_alone(
    command: Command, remote: Remote, tmp_path: Path, text: str | bytes
) -> None:
    product(remote, 1)
    (tmp_path / ".dsleechrc").write_bytes(before := text if isinstance(text, bytes) else text.encode())
    for option in ("--recall", "--remember"):
        code, _, err = command("dsleech", "-u", remote.uri, "-d", "got", option)
        assert code == 3
        assert err == (
            f'pstamp: {tmp_path}/.dsleechrc, line 1: expected "address": "fileset"; mend it, or move the file away\n'
        )
        assert (tmp_path / ".dsleechrc").read_bytes() == before


# -- a folder, and our own server


def test_a_folder_is_read_like_a_server(command: Command, remote: Remote, tmp_path: Path) -> None:
    product(remote, 2)
    folder = tmp_path / "a store"
    for path in ("index.txt", "f0/index.txt", "f1/index.txt", "f0/r0.fits", "f1/r1.fits", "f0/same.txt", "f1/same.txt"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        content = remote.text(path)
        assert content is not None
        (folder / path).write_bytes(content)
    assert command("dsproductls", "-u", folder, "-l", "f0")[1].startswith(f"{folder}/f1/index.txt f1 ")
    for uri in (str(folder), f"file://{str(folder).replace(' ', '%20')}"):
        assert command("dsleech", "-u", uri, "-d", "got", "--overwrite") == (0, "", "")
    assert command("dsget", "-u", folder / "f0" / "r0.fits", "-f", "got/again")[0] == 0
    assert sorted(files(tmp_path / "got")) == ["again", "r0.fits", "r1.fits", "same.txt"]
    assert command("dsfilesetls", "-u", folder / "f7") == (
        104, "", f"pstamp: {folder}/f7/index.txt: no such file\n",
    )  # fmt: skip


def test_two_servers_give_to_each_other(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One publishes a request; the other polls, serves and publishes; the results are collected, byte for byte."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    theirs = make_server(tmp_path / "theirs")
    register.add_product(theirs, "asks", "psrequest", "What we ask for")
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world")
    listing = f"{world.request}|||psrequest|\n"
    register.add_fileset(theirs, "asks", "night_7", "PSREQUEST", listing, place="copy", abspath=True)
    asks = WebService(make_server(tmp_path / "theirs"), "127.0.0.1", 0)
    asks.start()
    ours = world.server()
    try:
        uri = f"{asks.address}ds/asks"
        assert f"{uri}/index.txt asks night_7 " in command("dsrootls", "-u", f"{asks.address}ds")[1]
        with ours.store.reading():
            pstampDataStore.create(uri=uri, outProduct="for_them")
        (poll,) = queue_requests(ours, limit=5)
        assert (poll.filesets, poll.troubles, len(poll.requests)) == (["night_7"], [], 1)
        run(ours)
        with ours.store.reading():
            request = pstampRequest.get_by_id(poll.requests[0])
        assert (request.state, request.name) == (RequestState.RUN, "once_1")  # a row waits for its image
        world.set_warp("full")
        run(ours)
    finally:
        asks.stop()
    web = WebService(world.server(), "127.0.0.1", 0)
    web.start()
    try:
        uri = f"{web.address}ds/for_them/index.txt"
        code, out, err = command("dsleech", "-u", uri, "-d", "got", "--apart", "--remember", "--recall", "-v")
        assert (code, err) == (0, "")
        assert out.splitlines()[-1].startswith("once_1: files: ")
        assert command("dsleech", "-u", uri, "-d", "got", "--apart", "--recall") == (0, "", "")
        code, out, _ = command("dsfilesetls", "-u", f"{web.address}ds/for_them/once_1")
    finally:
        web.stop()
    there = files(ours.settings.datastore / "for_them" / "once_1")
    got = files(tmp_path / "got" / "once_1")
    assert {name for name in there if name != "index.txt"} == set(got)
    assert "results.fits" in got
    assert len(got) > 4
    assert [got[name] for name in got] == [there[name] for name in got]
    assert out.splitlines()[0].split()[1:] == [
        "results.fits",
        str(len(got["results.fits"])),
        md5_of(got["results.fits"]),
        "table",
    ]
