"""Reading other data stores: good ones, and everything that a stranger's server may do."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import remote as stores
from remote import Remote, both, remote, send, stop

from pstamp_core.datastore import client
from pstamp_core.datastore.client import (
    HttpError,
    NotThere,
    Terms,
    below,
    fetch,
    list_files,
    list_filesets,
    list_products,
    listed,
    name_of,
)
from pstamp_core.datastore.index import ProductEntry, fileset_index, root_index
from pstamp_core.faults import Fault, RetryableError, UserError

__all__ = ["both", "remote", "stop"]

SLOW = 0.3  # s
TERMS = Terms(5)


def names(uri: str, after: str | None = None) -> list[str]:
    entries, broken = list_filesets(uri, TERMS, after)
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
    files, broken = list_files(below(remote.uri + ending, "a"), TERMS)
    assert [(file.name, file.bytes, file.md5, file.type) for file in files] == [
        ("r.fits", 5, "827ccb0eea8a706c4c34a16891f84e7b", "psrequest")
    ]
    files, broken = list_files(below(remote.uri + ending, "b c"), TERMS)
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
    ((file,), _) = list_files(below(uri, "b c"), TERMS)
    fetch(below(below(uri, "b c"), file.name), tmp_path / "got", TERMS, max_bytes=5, size=file.bytes, md5=file.md5)
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
    entries, broken = list_filesets(remote.uri, TERMS)
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
        (500, HttpError, "HTTP 500 Internal Server Error"),
        (403, HttpError, "HTTP 403 Forbidden"),
        (204, HttpError, "HTTP 204 No Content"),
        (206, HttpError, "HTTP 206 Partial Content"),
        (302, HttpError, "HTTP 302 Found"),  # and nowhere to go
    ],
)
def test_another_status_is_passing_trouble(
    remote: Remote, tmp_path: Path, status: int, kind: type[HttpError], said: str
) -> None:
    remote.special["a/r.fits"] = send("" if status == 204 else "# no", status)
    with pytest.raises(HttpError) as caught:
        fetch(f"{remote.uri}/a/r.fits", tmp_path / "got", TERMS, max_bytes=100)
    assert (type(caught.value), caught.value.status) == (kind, status)
    assert str(caught.value) == f"{remote.uri}/a/r.fits: {said}"
    assert caught.value.fault == Fault.PS_EXIT_SYS_ERROR
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["never", "dripping", "dripping_header"])
def test_a_slow_server_is_not_waited_for(remote: Remote, stop: threading.Event, tmp_path: Path, how: str) -> None:
    remote.special["index.txt"] = getattr(stores, how)(stop)
    with pytest.raises(RetryableError) as caught:
        list_filesets(remote.uri, Terms(SLOW, total=SLOW))
    assert str(caught.value) == f"{remote.uri}/index.txt: no answer within 0.3 s"
    assert caught.value.fault == Fault.PS_EXIT_TIMEOUT_ERROR


def test_redirects_and_answer_have_one_time_together(remote: Remote, stop: threading.Event) -> None:
    def late(handler: stores.BaseHTTPRequestHandler) -> None:
        stop.wait(0.2)
        send("", 302, Location="/ds/p/index.txt")(handler)

    remote.special["index.txt"] = late
    with pytest.raises(HttpError, match=r"index\.txt: no answer within 0\.3 s$"):
        list_filesets(remote.uri, Terms(5, total=SLOW, redirects=1000))


def test_a_connection_that_comes_too_late_is_not_used(
    remote: Remote, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.create_connection

    def slow(*args: Any, **options: Any) -> socket.socket:
        stop.wait(SLOW)
        return connect(*args, **options)

    monkeypatch.setattr(socket, "create_connection", slow)
    remote.special["index.txt"] = stores.dripping_header(stop)
    with pytest.raises(HttpError, match=r"index\.txt: no answer within 0\.1 s$"):
        list_filesets(remote.uri, Terms(5, total=0.1))


def test_without_a_limit_of_time_as_a_whole_slow_bytes_are_waited_for(remote: Remote, stop: threading.Event) -> None:
    text = remote.text("index.txt")
    assert text

    def drip(handler: stores.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for n in range(len(text)):
            stop.wait(0.01)
            handler.wfile.write(text[n : n + 1])

    remote.special["index.txt"] = drip
    assert list_filesets(remote.uri, Terms(SLOW)) == ([], [])


@pytest.mark.parametrize("answer", [send(b"#" * 101), send(b"", length=101), stores.endless])
def test_too_much_is_refused_before_it_is_taken(remote: Remote, tmp_path: Path, answer: stores.Answer) -> None:
    remote.special["big"] = answer
    with pytest.raises(UserError) as caught:
        fetch(f"{remote.uri}/big", tmp_path / "got", TERMS, max_bytes=100)
    assert str(caught.value) == f"{remote.uri}/big: larger than 100 bytes; expected a smaller file"
    assert list(tmp_path.iterdir()) == []


def test_an_index_without_end_is_refused(remote: Remote) -> None:
    remote.special["index.txt"] = stores.endless
    with pytest.raises(UserError) as caught:
        list_filesets(remote.uri, Terms(5, max_index=100_000))
    assert str(caught.value) == f"{remote.uri}/index.txt: larger than 100000 bytes; expected a smaller file"


def test_nothing_is_unpacked(remote: Remote, tmp_path: Path) -> None:
    packed = gzip.compress(b"0" * 1_000_000)
    asked = []

    def answer(handler: stores.BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers["Accept-Encoding"])
        send(packed, Content_Encoding="gzip")(handler)

    remote.special["r.fits"] = answer
    fetch(f"{remote.uri}/r.fits", tmp_path / "got", TERMS, max_bytes=len(packed))
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


# -- redirects, proxies, TLS


def test_a_few_redirects_are_followed(remote: Remote, tmp_path: Path) -> None:
    for n in range(client.MAX_REDIRECTS):
        remote.special[str(n)] = send("x" * 1000, 302, Location=f"/ds/p/{n + 1}")
    remote.special[str(client.MAX_REDIRECTS)] = send("here")
    fetch(f"{remote.uri}/0", tmp_path / "got", TERMS, max_bytes=100)
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
        fetch(f"{remote.uri}/0", tmp_path / "got", TERMS, max_bytes=100)
    assert str(caught.value) == f"{remote.uri}/0: {said}"
    assert len(remote.asked) == (6 if target == "/ds/p/0" else 1)


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://localhost:{port}/ds/p/here", "http://localhost:{port}"),
        ("http://127.0.0.1/ds/p/here", "http://127.0.0.1"),
        ("http://127.0.0.1:1/here", "http://127.0.0.1:1"),
        ("//169.254.169.254/latest", "http://169.254.169.254"),
        ("http://[::1]:{port}/", "http://[::1]:{port}"),
        ("http://127.0.0.1:{port}@10.0.0.1/", "http://10.0.0.1"),
        ("file:///etc/passwd", "file://127.0.0.1"),
    ],
)
def test_a_redirect_to_another_host_is_refused_unless_the_site_names_it(
    remote: Remote, tmp_path: Path, target: str, host: str
) -> None:
    own = remote.uri.removeprefix("http://").partition("/")[0]
    port = own.partition(":")[2]
    remote.special["0"] = send("", 302, Location=target.format(port=port))
    with pytest.raises(HttpError) as caught:
        fetch(f"{remote.uri}/0", tmp_path / "got", Terms(5, hosts=()))
    assert (str(caught.value), caught.value.fault) == (
        f"{remote.uri}/0: redirects to {host.format(port=port)}; expected {own} itself, or a host that the setting "
        "poll_hosts names",
        Fault.PS_EXIT_CONFIG_ERROR,
    )
    assert remote.asked == ["0"]


def test_redirects_to_the_same_host_and_to_named_ones_are_followed(remote: Remote, tmp_path: Path) -> None:
    port = remote.uri.rpartition(":")[2].partition("/")[0]
    remote.special |= {
        "0": send("", 302, Location="/ds/p/1"),
        "1": send("", 302, Location=f"http://LOCALHOST:{port}/ds/p/2"),
        "2": send("here"),
    }
    fetch(f"{remote.uri}/0", tmp_path / "got", Terms(5, hosts=[f"localhost:{port}"]))
    assert (tmp_path / "got").read_text() == "here"
    with pytest.raises(HttpError, match="redirects to"):
        fetch(f"{remote.uri}/0", tmp_path / "got", Terms(5, hosts=["localhost"]))
    fetch(f"{remote.uri}/0", tmp_path / "got", Terms(5))  # a person at a terminal may go where it leads
    with pytest.raises(HttpError, match=r"0: more than 1 redirects$"):
        fetch(f"{remote.uri}/0", tmp_path / "got", Terms(5, redirects=1))


def test_a_password_does_not_follow_to_another_host(remote: Remote, tmp_path: Path) -> None:
    heard = []
    port = remote.uri.rpartition(":")[2].partition("/")[0]

    def here(handler: stores.BaseHTTPRequestHandler) -> None:
        heard.append(handler.headers["Authorization"])
        send("here")(handler)

    remote.special |= {
        "0": send("", 302, Location="/ds/p/here"),
        "1": send("", 302, Location=f"http://localhost:{port}/ds/p/here"),
        "here": here,
    }
    for name in "01":
        fetch(f"{remote.uri.replace('//', '//ana:secret@')}/{name}", tmp_path / "got", TERMS)
    assert heard == ["Basic YW5hOnNlY3JldA==", None]


def test_the_proxy_of_the_environment_is_asked_unless_it_shall_not(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "http://store.example/a"
    remote.special[uri] = send("by the proxy")
    monkeypatch.setenv("http_proxy", remote.uri.removesuffix("/ds/p"))
    fetch(uri, tmp_path / "got", TERMS)
    assert (tmp_path / "got").read_text() == "by the proxy"
    remote.special["a"] = send("by itself")
    monkeypatch.setenv("NO_PROXY", "")
    fetch(f"{remote.uri}/a", tmp_path / "got", Terms(5, proxy=False))
    assert (tmp_path / "got").read_text() == "by itself"


def test_https_is_spoken_with_those_whom_somebody_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stores.serving(tls=True) as (remote, stop):
        remote.add("a", r__fits="12345")
        with pytest.raises(HttpError, match=r"/a/r\.fits: .*certificate verify failed"):
            fetch(f"{remote.uri}/a/r.fits", tmp_path / "got", TERMS)
        monkeypatch.setenv("SSL_CERT_FILE", str(stores.CERTIFICATE))
        assert names(remote.uri) == ["a"]
        for terms in (TERMS, Terms(5, proxy=False)):
            fetch(f"{remote.uri}/a/r.fits", tmp_path / "got", terms)
        assert (tmp_path / "got").read_text() == "12345"
        remote.special["index.txt"] = stores.dripping_header(stop)
        with pytest.raises(HttpError, match=r"no answer within 0\.3 s$"):
            list_filesets(remote.uri, Terms(5, total=SLOW))


def test_the_body_of_a_redirect_is_not_read(remote: Remote, tmp_path: Path) -> None:
    def answer(handler: stores.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "/ds/p/here")
        handler.end_headers()
        while True:
            handler.wfile.write(b"#" * 2**16)

    remote.special |= {"0": answer, "here": send("here")}
    fetch(f"{remote.uri}/0", tmp_path / "got", TERMS, max_bytes=4)
    assert (tmp_path / "got").read_text() == "here"


# -- connections and addresses


def test_nobody_there_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://ana:secret@127.0.0.1:{free.getsockname()[1]}/r.fits"
        with pytest.raises(RetryableError) as caught:
            fetch(uri, tmp_path / "got", TERMS, max_bytes=100)
    assert str(caught.value) == f"{uri.replace('secret', '***')}: Connection refused"
    assert caught.value.fault == Fault.PS_EXIT_SYS_ERROR


@pytest.mark.parametrize("uri", ["r.fits", "ftp://h/r.fits", "file://elsewhere/r.fits", "file:r.fits", "", "/a\0b"])
def test_what_is_no_address_is_said(tmp_path: Path, uri: str) -> None:
    with pytest.raises(RetryableError) as caught:
        fetch(uri, tmp_path / "got", TERMS, max_bytes=100)
    expected = "expected http://..., https://..., file:///path or an absolute path"
    assert (str(caught.value), caught.value.fault) == (f"address {uri!r}: {expected}", Fault.PS_EXIT_CONFIG_ERROR)


@pytest.mark.parametrize("uri", ["http://", "http://h:port/r.fits", "http://127.0.0.1:0/r.fits"])
def test_what_is_no_address_of_http_is_said(tmp_path: Path, uri: str) -> None:
    with pytest.raises(RetryableError) as caught:
        fetch(uri, tmp_path / "got", TERMS, max_bytes=100)
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
            fetch(str(tmp_path / name), tmp_path / "got", TERMS, max_bytes=5)
        assert str(caught.value).endswith(said)
    for name in ("none", "big/none"):
        with pytest.raises(NotThere) as gone:
            fetch(str(tmp_path / name), tmp_path / "got", TERMS, max_bytes=5)
        assert str(gone.value) == f"{tmp_path / name}: no such file"


# -- files


def test_a_file_is_there_whole_or_not_at_all(remote: Remote, tmp_path: Path) -> None:
    remote.add("a", r__fits=b"12345")
    uri, got = f"{remote.uri}/a/r.fits", tmp_path / "got"
    md5 = "827ccb0eea8a706c4c34a16891f84e7b"
    fetch(uri, got, TERMS, max_bytes=5, size=5, md5=md5)
    assert got.read_bytes() == b"12345"
    for size, wrong in ((5, "0" * 32), (None, "0" * 32), (6, None)):
        with pytest.raises(RetryableError) as caught:
            fetch(uri, got, TERMS, max_bytes=5, size=size, md5=wrong)
        assert str(caught.value) == (f"{uri}: has 5 bytes, md5 {md5}; expected {size or 5} bytes, md5 {wrong or md5}")
        assert caught.value.fault == Fault.PS_EXIT_DATA_ERROR
    remote.special["a/r.fits"] = stores.endless
    with pytest.raises(RetryableError) as caught:
        fetch(uri, got, TERMS, size=4)
    assert (str(caught.value), caught.value.fault) == (f"{uri}: has more than the 4 bytes expected", 5)
    remote.special["a/r.fits"] = send("123", length=5)
    with pytest.raises(RetryableError, match="without sending complete message body"):
        fetch(uri, got, TERMS, max_bytes=5)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("got", b"12345")]


# -- going on where it was cut off

BODY = bytes(range(256)) * 40


def lying(folder: Path) -> dict[str, int]:
    """What lies in a folder, with its sizes; of private names only their ends."""
    return {path.name if path.suffix != ".part" else path.suffix: path.stat().st_size for path in folder.iterdir()}


def test_a_file_is_continued_where_it_was_cut_off(remote: Remote, tmp_path: Path) -> None:
    uri, got, told = f"{remote.uri}/big", tmp_path / "got", []
    heard = []

    def answer(handler: stores.BaseHTTPRequestHandler) -> None:
        heard.append((handler.headers["Range"], handler.headers["If-Range"]))
        stores.in_parts(BODY, '"v1"', 4000)(handler)

    remote.special["big"] = answer
    for length in (4000, 8000):
        with pytest.raises(HttpError, match="without sending complete message body"):
            fetch(uri, got, TERMS, resume=True, max_bytes=len(BODY), progress=lambda *done: told.append(done))
        assert lying(tmp_path) == {".part": length}
    assert told == [(4000, len(BODY)), (8000, len(BODY))]
    told.clear()
    md5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    fetch(uri, got, TERMS, resume=True, size=len(BODY), md5=md5, progress=lambda *done: told.append(done))
    assert (got.read_bytes(), lying(tmp_path)) == (BODY, {"got": len(BODY)})
    assert heard == [(None, None), ("bytes=4000-", '"v1"'), ("bytes=8000-", '"v1"')]
    assert told == [(len(BODY), len(BODY))]
    mask = os.umask(0)
    os.umask(mask)
    assert got.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(
    "then",
    [
        stores.in_parts(b"new" * 2000, '"v2"'),  # it has changed
        send(b"new" * 2000),  # a server that knows neither parts nor ETags
        stores.in_parts(b"new" * 2000, '"v1"', status=200),  # all of it, whatever was asked for
    ],
    ids=["changed", "all", "all of the same"],
)
def test_what_can_not_be_continued_begins_anew(remote: Remote, tmp_path: Path, then: stores.Answer) -> None:
    uri, got = f"{remote.uri}/big", tmp_path / "got"
    remote.special["big"] = stores.in_parts(BODY, '"v1"', 4000)
    with pytest.raises(HttpError):
        fetch(uri, got, TERMS, resume=True)

    def without_range(handler: stores.BaseHTTPRequestHandler) -> None:
        if then is not send and "Range" in handler.headers and handler.headers["If-Range"] == '"v1"':
            del handler.headers["Range"]
        then(handler)

    remote.special["big"] = without_range
    fetch(uri, got, TERMS, resume=True)
    assert (got.read_bytes(), lying(tmp_path)) == (b"new" * 2000, {"got": 6000})


@pytest.mark.parametrize(("etag", "body", "start"), [('"v2"', b"new" * 2000, 4000), ('"v1"', BODY, 3000)])
def test_a_server_that_sends_other_parts_is_asked_for_all_of_it(
    remote: Remote, tmp_path: Path, etag: str, body: bytes, start: int
) -> None:
    uri, got = f"{remote.uri}/big", tmp_path / "got"
    remote.special["big"] = stores.in_parts(BODY, '"v1"', 4000)
    with pytest.raises(HttpError):
        fetch(uri, got, TERMS, resume=True)

    def careless(handler: stores.BaseHTTPRequestHandler) -> None:
        del handler.headers["If-Range"]
        if handler.headers["Range"]:
            handler.headers.replace_header("Range", f"bytes={start}-")
        stores.in_parts(body, etag)(handler)

    remote.special["big"] = careless
    fetch(uri, got, TERMS, resume=True)
    assert (got.read_bytes(), lying(tmp_path)) == (body, {"got": len(body)})
    assert remote.asked == ["big"] * 3


def test_where_all_was_there_already_it_begins_anew(remote: Remote, tmp_path: Path) -> None:
    uri, got = f"{remote.uri}/big", tmp_path / "got"
    remote.special["big"] = stores.in_parts(BODY, '"v1"', 4000)
    with pytest.raises(HttpError):
        fetch(uri, got, TERMS, resume=True)
    (part,) = tmp_path.iterdir()
    part.write_bytes(BODY)  # killed before it got its name
    remote.special["big"] = stores.in_parts(BODY, '"v1"')
    fetch(uri, got, TERMS, resume=True)
    assert (got.read_bytes(), lying(tmp_path)) == (BODY, {"got": len(BODY)})


def test_what_is_wrong_is_not_kept_to_be_continued(remote: Remote, tmp_path: Path) -> None:
    uri, got = f"{remote.uri}/big", tmp_path / "got"
    for most, wrong in ((None, {"md5": "0" * 32}), (None, {"size": 20_000}), (None, {"size": 4}), (0, {})):
        remote.special["big"] = stores.in_parts(BODY, '"v1"', most)
        with pytest.raises(RetryableError):
            fetch(uri, got, TERMS, resume=True, **wrong)
        assert lying(tmp_path) == {}
    remote.special["big"] = stores.without_length(BODY)
    for etag in ("", 'W/"v1"', '"' + "v" * 200 + '"'):  # with none of these can a part be asked for, or kept
        remote.special["big"] = stores.in_parts(BODY, etag, 4000)
        with pytest.raises(HttpError):
            fetch(uri, got, TERMS, resume=True)
        assert lying(tmp_path) == {}


def test_two_at_a_time_do_not_spoil_each_other(remote: Remote, tmp_path: Path) -> None:
    uri, got = f"{remote.uri}/big", tmp_path / "got"
    told: list[object] = []

    def meanwhile(done: int, total: int) -> None:
        if not told:
            told.append(done)
            with pytest.raises(RetryableError) as caught:
                fetch(uri, got, TERMS, resume=True)
            told.append(str(caught.value))

    body = BODY * 20
    remote.special["big"] = stores.in_parts(body, '"v1"')
    fetch(uri, got, TERMS, resume=True, progress=meanwhile)
    assert told[1:] == [f"{got}: somebody else fetches it at this moment"]
    assert (got.read_bytes(), lying(tmp_path)) == (body, {"got": len(body)})


def test_a_part_that_another_finishes_meanwhile_is_not_taken(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, got = f"{remote.uri}/big", tmp_path / "got"
    remote.special["big"] = stores.in_parts(BODY, '"v1"', 4000)
    with pytest.raises(HttpError):
        fetch(uri, got, TERMS, resume=True)
    remote.special["big"] = stores.in_parts(BODY, '"v1"')
    lock = client.fcntl.flock

    def late(*args: Any) -> None:
        monkeypatch.undo()
        fetch(uri, got, TERMS, resume=True)
        lock(*args)

    monkeypatch.setattr(client.fcntl, "flock", late)
    with pytest.raises(RetryableError, match="got: somebody else fetches it at this moment"):
        fetch(uri, got, TERMS, resume=True)
    assert (got.read_bytes(), lying(tmp_path)) == (BODY, {"got": len(BODY)})


def test_a_link_under_the_private_name_is_not_followed(remote: Remote, tmp_path: Path) -> None:
    remote.special["big"] = stores.in_parts(BODY, '"v1"')
    (tmp_path / "mine").write_bytes(b"x" * 10)
    (tmp_path / ".got.InYxIg==.part").symlink_to("mine")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        fetch(f"{remote.uri}/big", tmp_path / "got", TERMS, resume=True)
    assert (tmp_path / "mine").read_bytes() == b"x" * 10


# -- other questions


def test_products_are_listed(remote: Remote) -> None:
    entries = [
        ProductEntry("results", "f1", stores.DAY_1, "psresults", "Finished | cutouts"),
        ProductEntry("asks", None, stores.DAY_1, "psrequest", ""),
    ]
    remote.special["/ds/index.txt"] = send("".join(root_index(entries)) + "a|b|\n")
    found, broken = list_products(remote.uri.removesuffix("/p"), TERMS)
    assert found == [entries[1], replace(entries[0], description="Finished   cutouts")]
    assert broken == ["a|b|"]


def test_a_file_is_what_its_filesets_index_says(remote: Remote) -> None:
    remote.add("f 0", **{"r 0__fits": "12345"})
    entry = listed(below(below(remote.uri, "f 0"), "r 0.fits"), TERMS)
    assert (entry.name, entry.bytes, entry.md5) == ("r 0.fits", 5, "827ccb0eea8a706c4c34a16891f84e7b")
    rows = [entry, replace(entry, bytes=6)]
    remote.special["f%200/index.txt"] = send("".join(fileset_index(rows)))
    assert listed(f"{remote.uri}/f%200/r%200.fits", TERMS) == rows[1]
    with pytest.raises(NotThere) as caught:
        listed(f"{remote.uri}/f%200/gone.fits", TERMS)
    assert str(caught.value) == f"{remote.uri}/f%200/index.txt: file gone.fits is not listed any more"


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
