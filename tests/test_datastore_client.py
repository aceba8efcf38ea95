"""Reading other data stores: good ones, and everything that a stranger's server may do."""

from __future__ import annotations

import gzip
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import remote as stores
from remote import Remote, send

from pstamp_core.datastore import client
from pstamp_core.datastore.client import NotThere, below, fetch, list_files, list_filesets, name_of
from pstamp_core.faults import Fault, PstampError, RetryableError, UserError

SLOW = 0.3  # s


@pytest.fixture
def both() -> Iterator[tuple[Remote, threading.Event]]:
    with stores.serving() as served:
        yield served


@pytest.fixture
def remote(both: tuple[Remote, threading.Event]) -> Remote:
    return both[0]


@pytest.fixture
def stop(both: tuple[Remote, threading.Event]) -> threading.Event:
    return both[1]


def names(uri: str, after: str | None = None) -> list[str]:
    entries, broken = list_filesets(uri, timeout=5, after=after)
    assert broken == []
    return [entry.name for entry in entries]


# -- what good stores say


@pytest.mark.parametrize("ending", ["", "/", "/index.txt"])
def test_filesets_and_files_are_listed(remote: Remote, ending: str) -> None:
    remote.add("a", r__fits="12345")
    remote.add("b c", **{"x;y__fits": b"1", "r 2__fits": b"2"})
    assert names(remote.uri + ending) == ["a", "b c"]
    assert names(remote.uri + ending, "a") == ["b c"]
    assert names(remote.uri + ending, "b c") == []
    assert remote.asked[-2:] == ["index.txt?a", "index.txt?b%20c"]
    files, broken = list_files(below(remote.uri + ending, "a"), timeout=5)
    assert [(file.name, file.bytes, file.md5, file.type) for file in files] == [
        ("r.fits", 5, "827ccb0eea8a706c4c34a16891f84e7b", "psrequest")
    ]
    files, broken = list_files(below(remote.uri + ending, "b c"), timeout=5)
    assert [file.name for file in files] == ["r 2.fits"]
    assert [line.partition("|")[0].strip() for line in broken] == ["x;y.fits"]
    with pytest.raises(NotThere, match=r"HTTP 404 Not Found$"):
        names(remote.uri, "gone")


@pytest.mark.parametrize("form", ["{}", "file://{}", "FILE://localhost{}"])
def test_a_folder_is_a_data_store_too(remote: Remote, tmp_path: Path, form: str) -> None:
    for fileset in ("a", "b c"):
        remote.add(fileset, r__fits="12345")
        (tmp_path / "a store" / fileset).mkdir(parents=True)
        text = remote.text(f"{fileset}/index.txt")
        assert text
        (tmp_path / "a store" / fileset / "index.txt").write_bytes(text)
        (tmp_path / "a store" / fileset / "r.fits").write_text("12345")
    text = remote.text("index.txt")
    assert text
    (tmp_path / "a store" / "index.txt").write_bytes(text)
    folder = str(tmp_path / "a store")
    uri = form.format(folder.replace(" ", "%20") if "file" in form.lower() else folder)
    assert names(uri) == ["a", "b c"]
    assert names(uri, "a") == ["b c"]
    with pytest.raises(NotThere, match="there is no fileset gone"):
        names(uri, "gone")
    ((file,), _) = list_files(below(uri, "b c"), timeout=5)
    fetch(below(below(uri, "b c"), file.name), tmp_path / "got", timeout=5, max_bytes=5, size=file.bytes, md5=file.md5)
    assert (tmp_path / "got").read_text() == "12345"


def test_a_server_that_ignores_the_query_does_no_harm(remote: Remote) -> None:
    for fileset in ("a", "b", "c"):
        remote.add(fileset)
    text = remote.text("index.txt")
    assert text
    remote.special["index.txt?b"] = send(text)
    assert names(remote.uri, "b") == ["c"]


def test_rows_that_break_the_rules_are_told_and_the_others_read(remote: Remote) -> None:
    rows = [
        "# filesetID|time registered|type|",
        "good|2026-03-04T05:06:07Z|PSREQUEST|",
        "",
        "../evil|2026-03-04T05:06:07Z|PSREQUEST|",
        "quote'|2026-03-04T05:06:07Z|PSREQUEST|",
        "when|yesterday|PSREQUEST|",
        "remark|2026-03-04T05:06:07Z|PSREQUEST| # of mine",
        " fine |2026-03-04T05:06:08Z|PSREQUEST|null|",
    ]
    remote.special["index.txt"] = send("\n".join([*rows, ""]))
    entries, broken = list_filesets(remote.uri, timeout=5)
    assert [entry.name for entry in entries] == ["good", "fine"]
    assert broken == rows[3:7]


# -- what is no answer


@pytest.mark.parametrize("text", ["", "\n", "<html><p>Welcome</p></html>\n", "gone|home\n"])
def test_a_text_without_header_and_rows_says_that_there_is_nothing(remote: Remote, text: str) -> None:
    remote.special["index.txt"] = send(text)
    with pytest.raises(NotThere) as caught:
        names(remote.uri)
    assert str(caught.value) == f"{remote.uri}/index.txt: the answer is no index"


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (404, NotThere, "HTTP 404 Not Found"),
        (410, NotThere, "HTTP 410 Gone"),
        (500, RetryableError, "HTTP 500 Internal Server Error"),
        (403, RetryableError, "HTTP 403 Forbidden"),
        (204, RetryableError, "HTTP 204 No Content"),
        (206, RetryableError, "HTTP 206 Partial Content"),
        (302, RetryableError, "HTTP 302 Found"),  # and nowhere to go
    ],
)
def test_another_status_is_passing_trouble(
    remote: Remote, tmp_path: Path, status: int, kind: type[PstampError], said: str
) -> None:
    remote.special["a/r.fits"] = send("" if status == 204 else "# no", status)
    with pytest.raises(RetryableError) as caught:
        fetch(f"{remote.uri}/a/r.fits", tmp_path / "got", timeout=5, max_bytes=100)
    assert type(caught.value) is kind
    assert str(caught.value) == f"{remote.uri}/a/r.fits: {said}"
    assert caught.value.fault == Fault.PS_EXIT_SYS_ERROR
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["never", "dripping"])
def test_a_slow_server_is_not_waited_for(remote: Remote, stop: threading.Event, tmp_path: Path, how: str) -> None:
    remote.special["index.txt"] = getattr(stores, how)(stop)
    with pytest.raises(RetryableError) as caught:
        list_filesets(remote.uri, timeout=SLOW)
    assert str(caught.value) == f"{remote.uri}/index.txt: no answer within 0.3 s"
    assert caught.value.fault == Fault.PS_EXIT_TIMEOUT_ERROR


@pytest.mark.parametrize("answer", [send(b"#" * 101), send(b"", length=101), stores.endless])
def test_too_much_is_refused_before_it_is_taken(remote: Remote, tmp_path: Path, answer: stores.Answer) -> None:
    remote.special["big"] = answer
    with pytest.raises(UserError) as caught:
        fetch(f"{remote.uri}/big", tmp_path / "got", timeout=5, max_bytes=100)
    assert str(caught.value) == f"{remote.uri}/big: larger than 100 bytes; expected a smaller file"
    assert list(tmp_path.iterdir()) == []


def test_an_index_without_end_is_refused(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_INDEX", 100_000)
    remote.special["index.txt"] = stores.endless
    with pytest.raises(UserError, match="larger than 100000 bytes"):
        names(remote.uri)


def test_nothing_is_unpacked(remote: Remote, tmp_path: Path) -> None:
    packed = gzip.compress(b"0" * 1_000_000)
    asked = []

    def answer(handler: stores.BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers["Accept-Encoding"])
        send(packed, Content_Encoding="gzip")(handler)

    remote.special["r.fits"] = answer
    fetch(f"{remote.uri}/r.fits", tmp_path / "got", timeout=5, max_bytes=len(packed))
    assert (tmp_path / "got").read_bytes() == packed
    assert asked == ["identity"]


def test_what_is_cut_short_is_no_file_and_no_index(remote: Remote, tmp_path: Path) -> None:
    remote.add("a", r__fits="12345")
    text = remote.text("index.txt")
    assert text
    remote.special["index.txt"] = send(text[:-10], length=len(text))
    with pytest.raises(RetryableError, match="without sending complete message body"):
        names(remote.uri)
    remote.special["index.txt"] = stores.without_length(text[:-10])
    with pytest.raises(RetryableError) as caught:
        names(remote.uri)
    assert (str(caught.value), caught.value.fault) == (f"{remote.uri}/index.txt: the index is cut short", 5)
    remote.special["index.txt"] = stores.without_length(text)
    assert names(remote.uri) == ["a"]


# -- redirects


def test_a_few_redirects_are_followed(remote: Remote, tmp_path: Path) -> None:
    for n in range(client.MAX_REDIRECTS):
        remote.special[str(n)] = send("x" * 1000, 302, Location=f"/ds/p/{n + 1}")
    remote.special[str(client.MAX_REDIRECTS)] = send("here")
    fetch(f"{remote.uri}/0", tmp_path / "got", timeout=5, max_bytes=100)
    assert (tmp_path / "got").read_text() == "here"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/ds/p/0", "more than 5 redirects"),
        ("file:///etc/passwd", "Request URL has an unsupported protocol 'file://'."),
    ],
)
def test_a_redirect_leads_nowhere_else(remote: Remote, tmp_path: Path, target: str, said: str) -> None:
    remote.special["0"] = send("", 302, Location=target)
    with pytest.raises(RetryableError) as caught:
        fetch(f"{remote.uri}/0", tmp_path / "got", timeout=5, max_bytes=100)
    assert str(caught.value) == f"{remote.uri}/0: {said}"
    assert len(remote.asked) == (6 if target == "/ds/p/0" else 1)


def test_the_body_of_a_redirect_is_not_read(remote: Remote, tmp_path: Path) -> None:
    def answer(handler: stores.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "/ds/p/here")
        handler.end_headers()
        while True:
            handler.wfile.write(b"#" * 2**16)

    remote.special |= {"0": answer, "here": send("here")}
    fetch(f"{remote.uri}/0", tmp_path / "got", timeout=5, max_bytes=4)
    assert (tmp_path / "got").read_text() == "here"


# -- connections and addresses


def test_nobody_there_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://ana:secret@127.0.0.1:{free.getsockname()[1]}/r.fits"
        with pytest.raises(RetryableError) as caught:
            fetch(uri, tmp_path / "got", timeout=5, max_bytes=100)
    assert str(caught.value) == f"{uri.replace('secret', '***')}: Connection refused"
    assert caught.value.fault == Fault.PS_EXIT_SYS_ERROR


@pytest.mark.parametrize("uri", ["r.fits", "ftp://h/r.fits", "file://elsewhere/r.fits", "file:r.fits", "", "/a\0b"])
def test_what_is_no_address_is_said(tmp_path: Path, uri: str) -> None:
    with pytest.raises(RetryableError) as caught:
        fetch(uri, tmp_path / "got", timeout=5, max_bytes=100)
    expected = "expected http://..., https://..., file:///path or an absolute path"
    assert (str(caught.value), caught.value.fault) == (f"address {uri!r}: {expected}", Fault.PS_EXIT_CONFIG_ERROR)


@pytest.mark.parametrize("uri", ["http://", "http://h:port/r.fits", "http://127.0.0.1:0/r.fits"])
def test_what_is_no_address_of_http_is_said(tmp_path: Path, uri: str) -> None:
    with pytest.raises(RetryableError) as caught:
        fetch(uri, tmp_path / "got", timeout=5, max_bytes=100)
    assert str(caught.value).startswith(f"{uri}: ")
    assert "\n" not in str(caught.value)


def test_only_regular_files_of_some_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").write_bytes(b"123456")
    for name, said in {
        "pipe": "not a regular file; expected one", ".": "not a regular file; expected one",
        "big": "larger than 5 bytes; expected a smaller file",
    }.items():  # fmt: skip
        with pytest.raises(UserError) as caught:
            fetch(str(tmp_path / name), tmp_path / "got", timeout=5, max_bytes=5)
        assert str(caught.value).endswith(said)
    for name in ("none", "big/none"):
        with pytest.raises(NotThere) as gone:
            fetch(str(tmp_path / name), tmp_path / "got", timeout=5, max_bytes=5)
        assert str(gone.value) == f"{tmp_path / name}: no such file"


# -- files


def test_a_file_is_there_whole_or_not_at_all(remote: Remote, tmp_path: Path) -> None:
    remote.add("a", r__fits=b"12345")
    uri, got = f"{remote.uri}/a/r.fits", tmp_path / "got"
    md5 = "827ccb0eea8a706c4c34a16891f84e7b"
    fetch(uri, got, timeout=5, max_bytes=5, size=5, md5=md5)
    assert got.read_bytes() == b"12345"
    for size, wrong in ((4, md5), (5, "0" * 32), (None, "0" * 32), (6, None)):
        with pytest.raises(RetryableError) as caught:
            fetch(uri, got, timeout=5, max_bytes=5, size=size, md5=wrong)
        assert str(caught.value) == (f"{uri}: has 5 bytes, md5 {md5}; expected {size or 5} bytes, md5 {wrong or md5}")
        assert caught.value.fault == Fault.PS_EXIT_DATA_ERROR
    remote.special["a/r.fits"] = send("123", length=5)
    with pytest.raises(RetryableError, match="without sending complete message body"):
        fetch(uri, got, timeout=5, max_bytes=5)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("got", b"12345")]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("http://h/ds/p/a/r.fits", "r.fits"),
        ("http://h/ds/p/a/my%20r.fits?x#y", "my r.fits"),
        ("http://h/ds/p/a/%2e%2e%2fetc%2fpasswd", "passwd"),
        ("/data/a#b?.fits", "a#b?.fits"),
        ("/data/%20.fits", "%20.fits"),
        *[(uri, "request.fits") for uri in
          ("http://h", "http://h/", "http://h/a/..", "http://h/.hidden", "http://h/a%00b", "http://h/a%0Ab",
           f"http://h/{'x' * 101}")],
    ],
)  # fmt: skip
def test_the_name_of_a_file_does_as_a_name_here(uri: str, name: str) -> None:
    assert name_of(uri) == name
