"""Reading other data stores: their indexes, and single files, over HTTP or from a folder.

What is read comes from strangers: every size is bounded before memory or disk is taken, every wait and every chain of
redirects is bounded, and a file gets its name only when all of it is there. An address is ``http://``, ``https://``,
``file://`` or an absolute path. Proxies of the environment are honoured, as by IPP's clients.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote, unquote, urlsplit

from pstamp_core.database import redact
from pstamp_core.datastore.index import (
    FileEntry,
    FilesetEntry,
    ProductEntry,
    read_fileset_index,
    read_product_index,
    read_root_index,
)
from pstamp_core.faults import Fault, PstampError, RetryableError, UserError
from pstamp_core.files import publish, written

if TYPE_CHECKING:
    from httpx2 import Client, Response

T = TypeVar("T")

INDEX = "index.txt"
MAX_INDEX = 20_000_000
"""Bytes of an index: some 200,000 rows."""
MAX_REDIRECTS = 5
LONGEST_NAME = 100

_HTTP = ("http", "https")
_BLOCK = 2**16
_PARTIAL = 206
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True)
class Terms:
    """On what terms others are asked.

    Attributes
    ----------
    timeout : float
        Seconds until the first and between two bytes.
    total : float, optional
        Seconds for an answer as a whole; by default as long as it keeps coming.
    hosts : collection of str, optional
        Where redirects may lead besides the host that is asked, in lower case, as ``host`` or ``host:port``; by default
        anywhere. Names are compared, not what they resolve to: whoever chose the address chose whose names to believe.
    redirects : int
        How many are followed.
    max_index : int
        Bytes; a larger index is refused.
    proxy : bool
        Go by the proxies that the environment names.
    """

    timeout: float
    total: float | None = None
    hosts: Collection[str] | None = None
    redirects: int = MAX_REDIRECTS
    max_index: int = MAX_INDEX
    proxy: bool = True


class HttpError(RetryableError):
    """There is no answer that would do; `status` is that of HTTP, 500 where there is none (`LWP` makes it up, too)."""

    def __init__(self, message: str, fault: int | None = None, status: int = 500) -> None:
        super().__init__(message, fault)
        self.status = status


class NotThere(HttpError):  # noqa: N818 (an answer)
    """The data store answers, but has nothing at the address."""

    def __init__(self, message: str, fault: int | None = None, status: int = 404) -> None:
        super().__init__(message, fault, status)


def list_products(uri: str, terms: Terms) -> tuple[list[ProductEntry], list[str]]:
    """Read the index of the data store at `uri`; parameters, result and errors are those of `list_filesets`."""
    return _read_index(_base(uri), "", terms, read_root_index)


def list_filesets(uri: str, terms: Terms, after: str | None = None) -> tuple[list[FilesetEntry], list[str]]:
    """Read the index of a product.

    Parameters
    ----------
    uri : str
        The product's address, with or without ``/index.txt``.
    terms : Terms
        On what terms.
    after : str, optional
        List only filesets that were registered after this one. A server that ignores that does no harm.

    Returns
    -------
    tuple of list of FilesetEntry and list of str
        The filesets, the newest last, and the lines that break the rules of an index.

    Raises
    ------
    NotThere
        There is no such product, or no fileset `after` in it. Real servers say that with status 404, or with 200 and
        a text without a header line (`datastore.md` §5).
    RetryableError
        2: no connection, or another status; 3: no address, or a redirect that leads elsewhere; 5: cut short;
        6: too slow.
    UserError
        21: the text is larger than allowed.
    """
    query = f"?{quote(after, safe='')}" if after and is_http(uri) else ""
    entries, broken = _read_index(_base(uri), query, terms, read_product_index)
    names = [entry.name for entry in entries]
    if after and after in names:
        return entries[len(names) - names[::-1].index(after) :], broken
    if after and not is_http(uri):
        raise NotThere(f"{redact(_base(uri))}: there is no fileset {after}")
    return entries, broken


def list_files(uri: str, terms: Terms) -> tuple[list[FileEntry], list[str]]:
    """Read the index of the fileset at `uri`; parameters, result and errors are those of `list_filesets`."""
    return _read_index(_base(uri), "", terms, read_fileset_index)


def listed(uri: str, terms: Terms) -> FileEntry:
    """Return what the index of its fileset says of the file at `uri`; errors are those of `list_filesets`."""
    folder, _, name = uri.rpartition("/")
    name = unquote(name) if "://" in uri else name
    found = [entry for entry in list_files(folder, terms)[0] if entry.name == name]
    if not found:
        raise NotThere(f"{redact(folder)}/{INDEX}: file {name} is not listed any more")
    return found[-1]


def below(uri: str, name: str) -> str:
    """Return the address of fileset `name` in the product at `uri`, or of file `name` in the fileset there."""
    return f"{_base(uri)}/{quote(name) if '://' in uri else name}"


def is_http(uri: str) -> bool:
    """Tell whether an address is one of HTTP."""
    return uri.partition("://")[0].lower() in _HTTP


def name_of(uri: str) -> str:
    """Return the name of the file at an address, if it will do as a name here; else ``request.fits``."""
    name = (unquote(urlsplit(uri).path) if "://" in uri else uri).rpartition("/")[2]
    will_do = name.isprintable() and len(name) <= LONGEST_NAME and not name.startswith(".")
    return name if name and will_do else "request.fits"


def fetch(
    uri: str,
    target: Path,
    terms: Terms,
    *,
    max_bytes: int | None = None,
    size: int | None = None,
    md5: str | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Bring the file at `uri` to `target`, all of it or nothing.

    Parameters
    ----------
    uri : str
        The file's address.
    target : Path
        Where it goes; replaced if it is there.
    terms : Terms
        On what terms.
    max_bytes : int, optional
        A larger file is refused.
    size, md5 : optional
        What the file must have, as its fileset lists it.
    resume : bool
        Go on where an earlier call was cut off. What that had got lies beside `target`, under a private name that holds
        the file's ETag; where a server gives no strong one, nothing can be continued.
    progress : callable
        Is told how many bytes are there, and of how many (0: not known); both are the same once, at the end.

    Raises
    ------
    NotThere
        2: there is no such file.
    RetryableError
        2: no connection, a status other than 200; 3: a redirect that leads elsewhere; 5: size or md5 differ; 6: too
        slow.
    UserError
        21: the file is larger than `max_bytes`, or is no regular file.
    OSError
        It can't be written.
    """
    take = partial(
        _fetch, uri, target, terms, max_bytes=max_bytes, wanted=(size, md5), resume=resume, progress=progress
    )
    with _left_of(target) if resume else nullcontext() as part:
        try:
            take(part)
        except HttpError as error:
            if part is None or error.status not in (_PARTIAL, _RANGE_NOT_SATISFIABLE):
                raise
            part.path.unlink(missing_ok=True)  # the server can't, or won't, continue it
            take(None)


@dataclass(frozen=True)
class _Part:
    """The first `length` bytes of a file, and their ETag; nobody else has the `stream` to them."""

    path: Path
    stream: BinaryIO
    etag: str
    length: int


@contextmanager
def _left_of(target: Path) -> Iterator[_Part | None]:
    """Give what an earlier call has left of the file that goes to `target`."""
    private = re.compile(re.escape(f".{target.name}.") + r"([\w=-]+)\.part", re.ASCII)
    for path in target.parent.glob(".*.part"):
        if match := private.fullmatch(path.name):
            with _own(path, target) as stream:
                etag = base64.urlsafe_b64decode(match[1]).decode(errors="replace")
                yield _Part(path, stream, etag, os.fstat(stream.fileno()).st_size)
            return
    yield None


@dataclass(frozen=True)
class _Source:
    """What is at an address: its `blocks` from byte `offset` on, its length (0: not known), its strong ETag if any."""

    blocks: Iterator[bytes]
    length: int = 0
    offset: int = 0
    etag: str = ""


def _fetch(
    uri: str,
    target: Path,
    terms: Terms,
    part: _Part | None,
    *,
    max_bytes: int | None,
    wanted: tuple[int | None, str | None],
    resume: bool,
    progress: Callable[[int, int], None],
) -> None:
    sum_, size = hashlib.md5(usedforsecurity=False), wanted[0]
    with _source(uri, terms, max_bytes, part) as source:
        length = source.offset
        if part and not length:
            part.path.unlink(missing_ok=True)  # the file has changed since
        with _room(target, source, part if length else None, resume) as stream:
            while block := stream.read(_BLOCK) if length else b"":
                sum_.update(block)
            for block in source.blocks:
                stream.write(block)
                sum_.update(block)
                length += len(block)
                if size is not None and length > size:
                    raise _damaged(f"{redact(uri)}: has more than the {size} bytes expected")
                if length != source.length:
                    progress(length, source.length)
            found = (length, sum_.hexdigest())
            expected = (length if size is None else size, wanted[1] or found[1])
            if found != expected:
                raise _damaged(
                    f"{redact(uri)}: has {found[0]} bytes, md5 {found[1]}; "
                    f"expected {expected[0]} bytes, md5 {expected[1]}"
                )
        progress(length, length)


def _damaged(message: str) -> RetryableError:
    return RetryableError(message, Fault.PS_EXIT_DATA_ERROR)


@contextmanager
def _room(target: Path, source: _Source, part: _Part | None, resume: bool) -> Iterator[BinaryIO]:
    """Give a stream whose bytes become `target` at the end; it stands at the start of what is there in `part`."""
    name = f".{target.name}.{base64.urlsafe_b64encode(source.etag.encode()).decode()}.part"
    if not (resume and source.etag and len(os.fsencode(name)) <= os.pathconf(target.parent, "PC_NAME_MAX")):
        with written(target) as private, private.open("xb") as stream:
            yield stream
        return
    private = target.with_name(name)
    with nullcontext(part.stream) if part else _own(private, target) as stream:
        stream.seek(0)
        try:
            yield stream
            stream.flush()
            publish(private, target)
        except PstampError as error:
            if not isinstance(error, HttpError):  # known to be wrong
                private.unlink()
            raise
        finally:
            with suppress(OSError):  # told already, if nothing can be written
                stream.flush()
            if not os.fstat(stream.fileno()).st_size:
                private.unlink(missing_ok=True)


@contextmanager
def _own(private: Path, target: Path) -> Iterator[BinaryIO]:
    """Give a stream to `private`, made if it is not there, that nobody else has; what is written goes to its end."""
    with open(private, "a+b", opener=_no_link) as stream:
        mine = False
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = private.stat().st_ino == os.fstat(stream.fileno()).st_ino  # else it was finished meanwhile
        if not mine:
            raise RetryableError(f"{target}: somebody else fetches it at this moment")
        yield stream


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _base(uri: str) -> str:
    base = uri.removesuffix(f"/{INDEX}").rstrip("/")
    if not base:
        raise _no_address(uri)
    return base


def _no_address(uri: str) -> RetryableError:
    return RetryableError(
        f"address {redact(uri)!r}: expected http://..., https://..., file:///path or an absolute path",
        Fault.PS_EXIT_CONFIG_ERROR,
    )


def _read_index(base: str, query: str, terms: Terms, read: Callable[[str], list[T]]) -> tuple[list[T], list[str]]:
    uri = f"{base}/{INDEX}{query}"
    with _source(uri, terms, terms.max_index) as source:
        text = b"".join(source.blocks).decode("utf-8", errors="replace")
    lines = [line for line in text.split("\n") if line.strip()]
    entries = read(text)
    if not entries and not any(line.lstrip().startswith("#") for line in lines):
        raise NotThere(f"{redact(uri)}: the answer is no index")
    if not text.endswith("\n"):
        raise _damaged(f"{redact(uri)}: the index is cut short")
    broken = [line.strip() for line in lines if not line.lstrip().startswith("#") and not read(line)]
    return entries, broken


@contextmanager
def _source(uri: str, terms: Terms, max_bytes: int | None, part: _Part | None = None) -> Iterator[_Source]:
    """Give what is at `uri`, at most `max_bytes`, without what is there in `part` if the server can do that."""
    most = inf if max_bytes is None else max_bytes
    with _http_source(uri, terms, part) if is_http(uri) else _file_source(uri) as source:
        if source.length > most:
            raise _too_large(uri, most)
        yield replace(source, blocks=_bounded(uri, source, most))


def _bounded(uri: str, source: _Source, most: float) -> Iterator[bytes]:
    length = source.offset
    for block in source.blocks:
        length += len(block)
        if length > most:
            raise _too_large(uri, most)
        yield block


def _too_large(uri: str, most: float) -> UserError:
    return UserError(f"{redact(uri)}: larger than {most:.0f} bytes; expected a smaller file")


@contextmanager
def _file_source(uri: str) -> Iterator[_Source]:
    path = _local_path(uri)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise UserError(f"{path}: not a regular file; expected one")
        stream = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise NotThere(f"{path}: no such file") from None
    except OSError as error:
        raise RetryableError(f"{path}: {error.strerror or error}") from error
    with stream:
        yield _Source(iter(partial(stream.read, _BLOCK), b""), os.fstat(stream.fileno()).st_size)


def _local_path(uri: str) -> Path:
    if "://" not in uri:
        path = uri
    else:
        parts = urlsplit(uri)
        path = unquote(parts.path) if parts.scheme.lower() == "file" and parts.netloc in ("", "localhost") else ""
    if not path.startswith("/") or "\0" in path:
        raise _no_address(uri)
    return Path(path)


@contextmanager
def _http_source(uri: str, terms: Terms, part: _Part | None) -> Iterator[_Source]:
    import httpx2

    deadline = inf if terms.total is None else time.monotonic() + terms.total
    # identity: a file is taken as it is stored, and nothing can be blown up here
    headers = {"Accept-Encoding": "identity"}
    if part:
        headers |= {"Range": f"bytes={part.length}-", "If-Range": part.etag}
    with ExitStack() as stack:
        with _told(uri, terms, deadline):
            # Proxies of the environment are for clients without a transport of their own.
            transport = None if terms.proxy else httpx2.HTTPTransport()
            client = stack.enter_context(httpx2.Client(timeout=terms.timeout, headers=headers, transport=transport))
            trace = stack.enter_context(_hanging_up(terms.total))
            answer = stack.enter_context(closing(_answer(client, uri, terms, trace)))
            length = int(answer.headers.get("Content-Length", "0"))
        etag = answer.headers.get("ETag", "")
        offset = part.length if part and etag == part.etag and _is_from(answer, part.length) else 0
        if answer.status_code != httpx2.codes.OK and not offset:
            kind = NotThere if answer.status_code in (httpx2.codes.NOT_FOUND, httpx2.codes.GONE) else HttpError
            said = f"HTTP {answer.status_code} {answer.reason_phrase}".rstrip()
            raise kind(f"{redact(uri)}: {said}", status=answer.status_code)
        yield _Source(
            _http_blocks(answer, uri, terms, deadline), offset + length if length else 0, offset,
            etag if etag.startswith('"') else "",
        )  # fmt: skip


def _is_from(answer: Response, offset: int) -> bool:
    return answer.status_code == _PARTIAL and answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _http_blocks(answer: Response, uri: str, terms: Terms, deadline: float) -> Iterator[bytes]:
    import httpx2

    with _told(uri, terms, deadline):
        yield from answer.iter_raw()
        if time.monotonic() > deadline:  # hung up, which may look like the end
            raise httpx2.ReadTimeout("")


@contextmanager
def _hanging_up(seconds: float | None) -> Iterator[Callable[[str, Any], None]]:
    """Give what httpx2 is to tell its doings, so that every connection is shut when the time is up.

    Time-outs are for single waits, and who sends a byte now and then, if only of a header, keeps to them for ever.
    """
    sockets: list[socket.socket] = []
    up = threading.Event()

    def trace(event: str, info: Any) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            sockets.append(info["return_value"].get_extra_info("socket"))
            if up.is_set():
                hang_up()

    def hang_up() -> None:
        up.set()
        for each in sockets:
            with suppress(OSError):  # closed already, or went into the one below TLS
                each.shutdown(socket.SHUT_RDWR)

    if seconds is None:
        yield trace
        return
    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield trace
    finally:
        timer.cancel()


@contextmanager
def _told(uri: str, terms: Terms, deadline: float) -> Iterator[None]:
    """Tell what goes wrong within the block, in one line."""
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        late = time.monotonic() > deadline
        if late or isinstance(error, httpx2.TimeoutException):
            seconds = terms.total if late else terms.timeout
            raise HttpError(f"{redact(uri)}: no answer within {seconds:g} s", Fault.PS_EXIT_TIMEOUT_ERROR) from None
        raise HttpError(f"{redact(uri)}: {_reason(error)}") from error


def _answer(client: Client, uri: str, terms: Terms, trace: Callable[[str, Any], None]) -> Response:
    """Return the answer of the server that redirects lead to; their own bodies, of whatever size, are not read."""
    from httpx2 import TooManyRedirects

    request = client.build_request("GET", uri, extensions={"trace": trace})
    own = request.url.netloc.decode()  # in lower case, without the port that goes without saying
    for _ in range(terms.redirects + 1):
        answer = client.send(request, stream=True)
        if answer.next_request is None:
            return answer
        request = answer.next_request
        host = request.url.netloc.decode()
        if terms.hosts is not None and host != own and host not in terms.hosts:
            raise HttpError(
                f"{redact(uri)}: redirects to {request.url.scheme}://{host}; expected {own} itself, or a host that the "
                "setting poll_hosts names",
                Fault.PS_EXIT_CONFIG_ERROR,
            )
    raise TooManyRedirects(f"more than {terms.redirects} redirects")


def _reason(error: BaseException) -> str:
    """Return the last word of a chain of exceptions: Connection refused, not its four wrappings."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return " ".join(str(error).split()) or type(error).__name__
