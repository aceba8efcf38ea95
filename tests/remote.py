"""A data store on another machine: a little HTTP server in a thread, and what can be wrong with one."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from pstamp_core.datastore.index import FileEntry, FilesetEntry, fileset_index, product_index

CERTIFICATE = Path(__file__).with_name("https.pem")
"""Certificate and key of 127.0.0.1, good for a hundred years and for these tests."""

DAY_1 = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

Answer = Callable[[BaseHTTPRequestHandler], None]


class Remote:
    """One product of a remote data store, at `uri`.

    Attributes
    ----------
    files : dict of str to dict of str to bytes
        The files of each fileset, the newest last.
    special : dict of str to callable
        What answers instead, by path below the product, with its query if it has one; by the whole path elsewhere.
    asked : list of str
        Everything that was asked for.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.files: dict[str, dict[str, bytes]] = {}
        self.registered: dict[str, datetime] = {}
        self.special: dict[str, Answer] = {}
        self.asked: list[str] = []

    def add(self, fileset: str, **files: bytes | str) -> None:
        """Register a fileset; in names of files, __ is a dot."""
        self.registered[fileset] = DAY_1 + timedelta(minutes=len(self.registered))
        named = {name.replace("__", "."): content for name, content in files.items()}
        self.files[fileset] = {name: text.encode() if isinstance(text, str) else text for name, text in named.items()}

    def text(self, path: str) -> bytes | None:
        """Return what a real server has at a path below the product."""
        path, _, after = path.partition("?")
        names = list(self.files)
        if path == "index.txt":
            if after and unquote(after) not in names:
                return None
            later = names[names.index(unquote(after)) + 1 :] if after else names
            rows = [FilesetEntry(each, self.registered[each], "PSREQUEST") for each in later]
            return "".join(product_index(rows)).encode()
        fileset, _, name = unquote(path).partition("/")
        if name == "index.txt" and fileset in self.files:
            files = [
                FileEntry(each, len(content), hashlib.md5(content, usedforsecurity=False).hexdigest(), "psrequest")
                for each, content in self.files[fileset].items()
            ]
            return "".join(fileset_index(files)).encode()
        return self.files.get(fileset, {}).get(name)


def send(body: bytes | str, status: int = 200, length: int | None = None, **headers: str) -> Answer:
    """Answer with this; `length` may be a lie."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        content = body.encode() if isinstance(body, str) else body
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def in_parts(body: bytes, etag: str, most: int | None = None, status: int = 206) -> Answer:
    """Answer as servers do that can begin in the middle, and break off after `most` bytes of what was asked for."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start and handler.headers.get("If-Range") not in (None, etag):
            start = 0
        if start >= len(body):
            send("", 416)(handler)
            return
        rest = body[start:]
        place = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        send(rest[:most], status if start else 200, len(rest), ETag=etag, **place)(handler)

    return answer


def without_length(body: bytes) -> Answer:
    """Answer as servers do that do not know how long it gets: the end of the connection is the end."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def never(stop: threading.Event) -> Answer:
    """Accept, and say nothing."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        del handler
        stop.wait(30)

    return answer


def dripping(stop: threading.Event) -> Answer:
    """Answer byte by byte, each quick enough, without end."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.02):
            handler.wfile.write(b"#")

    return answer


def dripping_header(stop: threading.Event) -> Answer:
    """Answer with a header line that grows byte by byte, each quick enough, without end."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
        while not stop.wait(0.02):
            handler.wfile.write(b"x")

    return answer


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Answer without end, as fast as it goes."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"#" * 2**16)


@contextmanager
def serving(*, tls: bool = False) -> Iterator[tuple[Remote, threading.Event]]:
    """A running server, and what ends its waits; with `tls` only CERTIFICATE vouches for it."""
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/ds/p/")
            remote.asked.append(path)
            content = remote.text(path)
            try:
                if path in remote.special:
                    remote.special[path](self)
                elif content is None:
                    send("no such thing", 404)(self)
                else:
                    send(content)(self)
            except OSError:  # the client has had enough
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    remote = Remote(f"http{'s' * tls}://127.0.0.1:{server.server_port}/ds/p")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("NO_PROXY", "127.0.0.1")
            yield remote, stop
    finally:
        stop.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def both() -> Iterator[tuple[Remote, threading.Event]]:
    """A remote store, and the event that ends its slow answers; for modules that import these three fixtures."""
    with serving() as served:
        yield served


@pytest.fixture
def remote(both: tuple[Remote, threading.Event]) -> Remote:
    return both[0]


@pytest.fixture
def stop(both: tuple[Remote, threading.Event]) -> threading.Event:
    return both[1]
