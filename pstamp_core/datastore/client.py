"""Reading other data stores: their indexes, and single files, over HTTP or from a folder.

What is read comes from strangers: every size is bounded before memory or disk is taken, every wait and every chain of
redirects is bounded, and a file gets its name only when all of it is there. An address is ``http://``, ``https://``,
``file://`` or an absolute path. Proxies of the environment are honoured, as by IPP's clients.
"""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, unquote, urlsplit

from pstamp_core.database import redact
from pstamp_core.datastore.index import FileEntry, FilesetEntry, read_fileset_index, read_product_index
from pstamp_core.faults import Fault, RetryableError, UserError
from pstamp_core.files import written

if TYPE_CHECKING:
    from httpx import Client, Response

T = TypeVar("T")

INDEX = "index.txt"
MAX_INDEX = 20_000_000
"""Bytes of an index: some 200,000 rows."""
MAX_REDIRECTS = 5
LONGEST_NAME = 100

_HTTP = ("http", "https")
_BLOCK = 2**16


class NotThere(RetryableError):  # noqa: N818 (an answer)
    """The data store answers, but has nothing at the address."""


def list_filesets(uri: str, *, timeout: float, after: str | None = None) -> tuple[list[FilesetEntry], list[str]]:
    """Read the index of a product.

    Parameters
    ----------
    uri : str
        The product's address, with or without ``/index.txt``.
    timeout : float
        Seconds until the first and between two bytes, and for the text as a whole.
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
        2: no connection, or another status; 6: too slow.
    UserError
        21: the text is larger than `MAX_INDEX`.
    """
    query = f"?{quote(after, safe='')}" if after and is_http(uri) else ""
    entries, broken = _read_index(_base(uri), query, timeout, read_product_index)
    names = [entry.name for entry in entries]
    if after and after in names:
        return entries[len(names) - names[::-1].index(after) :], broken
    if after and not is_http(uri):
        raise NotThere(f"{redact(_base(uri))}: there is no fileset {after}")
    return entries, broken


def list_files(uri: str, *, timeout: float) -> tuple[list[FileEntry], list[str]]:
    """Read the index of the fileset at `uri`; parameters, result and errors are those of `list_filesets`."""
    return _read_index(_base(uri), "", timeout, read_fileset_index)


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
    uri: str, target: Path, *, timeout: float, max_bytes: int, size: int | None = None, md5: str | None = None
) -> None:
    """Bring the file at `uri` to `target`, all of it or nothing.

    Parameters
    ----------
    uri : str
        The file's address.
    target : Path
        Where it goes; replaced if it is there.
    timeout : float
        Seconds until the first and between two bytes, and for the file as a whole.
    max_bytes : int
        A larger file is refused.
    size, md5 : optional
        What the file must have, as its fileset lists it.

    Raises
    ------
    NotThere
        2: there is no such file.
    RetryableError
        2: no connection, a status other than 200, the disk; 5: size or md5 differ; 6: too slow.
    UserError
        21: the file is larger than `max_bytes`, or is no regular file.
    """
    sum_, length = hashlib.md5(usedforsecurity=False), 0
    with written(target) as private, private.open("wb") as stream, closing(_blocks(uri, timeout, max_bytes)) as blocks:
        for block in blocks:
            stream.write(block)
            sum_.update(block)
            length += len(block)
        stream.flush()
        found = (length, sum_.hexdigest())
        wanted = (length if size is None else size, md5 or found[1])
        if found != wanted:
            raise RetryableError(
                f"{redact(uri)}: has {found[0]} bytes, md5 {found[1]}; expected {wanted[0]} bytes, md5 {wanted[1]}",
                Fault.PS_EXIT_DATA_ERROR,
            )


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


def _read_index(base: str, query: str, timeout: float, read: Callable[[str], list[T]]) -> tuple[list[T], list[str]]:
    uri = f"{base}/{INDEX}{query}"
    with closing(_blocks(uri, timeout, MAX_INDEX)) as blocks:
        text = b"".join(blocks).decode("utf-8", errors="replace")
    lines = [line for line in text.split("\n") if line.strip()]
    entries = read(text)
    if not entries and not any(line.lstrip().startswith("#") for line in lines):
        raise NotThere(f"{redact(uri)}: the answer is no index")
    if not text.endswith("\n"):
        raise RetryableError(f"{redact(uri)}: the index is cut short", Fault.PS_EXIT_DATA_ERROR)
    broken = [line.strip() for line in lines if not line.lstrip().startswith("#") and not read(line)]
    return entries, broken


def _blocks(uri: str, timeout: float, max_bytes: int) -> Generator[bytes]:
    """Yield what is at `uri` in blocks, at most `max_bytes` altogether; to be closed, since who reads may give up."""
    length = 0
    with closing(_http_blocks(uri, timeout, max_bytes) if is_http(uri) else _file_blocks(uri)) as blocks:
        for block in blocks:
            length += len(block)
            if length > max_bytes:
                raise _too_large(uri, max_bytes)
            yield block


def _too_large(uri: str, max_bytes: int) -> UserError:
    return UserError(f"{redact(uri)}: larger than {max_bytes} bytes; expected a smaller file")


def _file_blocks(uri: str) -> Generator[bytes]:
    path = _local_path(uri)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise UserError(f"{path}: not a regular file; expected one")
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                yield block
    except (FileNotFoundError, NotADirectoryError):
        raise NotThere(f"{path}: no such file") from None
    except OSError as error:
        raise RetryableError(f"{path}: {error.strerror or error}") from error


def _local_path(uri: str) -> Path:
    if "://" not in uri:
        path = uri
    else:
        parts = urlsplit(uri)
        path = unquote(parts.path) if parts.scheme.lower() == "file" and parts.netloc in ("", "localhost") else ""
    if not path.startswith("/") or "\0" in path:
        raise _no_address(uri)
    return Path(path)


def _http_blocks(uri: str, timeout: float, max_bytes: int) -> Generator[bytes]:
    import httpx

    where, deadline = redact(uri), time.monotonic() + timeout
    slow = RetryableError(f"{where}: no answer within {timeout:g} s", Fault.PS_EXIT_TIMEOUT_ERROR)
    # identity: a file is taken as it is stored, and nothing can be blown up here
    try:
        with (
            httpx.Client(timeout=timeout, headers={"Accept-Encoding": "identity"}) as client,
            closing(_answer(client, uri)) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                gone = answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE)
                raise (NotThere if gone else RetryableError)(
                    f"{where}: HTTP {answer.status_code} {answer.reason_phrase}".rstrip()
                )
            if int(answer.headers.get("Content-Length", "0")) > max_bytes:
                raise _too_large(uri, max_bytes)
            for block in answer.iter_raw():
                if time.monotonic() > deadline:
                    raise slow
                yield block
    except httpx.TimeoutException:
        raise slow from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise RetryableError(f"{where}: {_reason(error)}") from error


def _answer(client: Client, uri: str) -> Response:
    """Return the answer of the server that redirects lead to; their own bodies, of whatever size, are not read."""
    from httpx import TooManyRedirects

    request = client.build_request("GET", uri)
    for _ in range(MAX_REDIRECTS + 1):
        answer = client.send(request, stream=True)
        if answer.next_request is None:
            return answer
        request = answer.next_request
    raise TooManyRedirects(f"more than {MAX_REDIRECTS} redirects")


def _reason(error: BaseException) -> str:
    """Return the last word of a chain of exceptions: Connection refused, not its four wrappings."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return " ".join(str(error).split()) or type(error).__name__
