"""The data store as IPP's clients and browsers read it: indexes made from the registry, and registered files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import PurePath
from typing import TypeVar
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.staticfiles import NotModifiedResponse

from pstamp_core.faults import Fault, RetryableError
from pstamp_core.tasks.register import NotRegistered
from pstamp_web.pages import long_page
from pstamp_web.who import Visitor, server_of

T = TypeVar("T")

log = logging.getLogger("pstamp.web")
router = APIRouter(include_in_schema=False)

_INDEX = "index.txt"
_LEVELS = 3
_FITS = "image/x-fits"
_TEXT = "text/plain; charset=utf-8"
_TYPES = {
    ".fits": _FITS, ".cmf": _FITS, ".smf": _FITS, ".psf": _FITS, ".jpg": "image/jpeg", ".png": "image/png",
    ".txt": _TEXT, ".mdc": _TEXT, ".tgz": "application/gzip", ".gz": "application/gzip",
}  # fmt: skip
"""How files are sent; all others are no more than bytes, which a browser saves and does not show."""
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
_conditions = StaticFiles(directory=None)


class _File(FileResponse):
    chunk_size = 2**20


@router.api_route("/{path:path}", methods=["GET", "HEAD"])
def data_store(request: Request, path: str, visitor: Visitor) -> Response:
    """Answer with an index, as text or as a page, or with a file."""
    del visitor  # the page finds it
    names = [name for name in path.split("/") if name]
    try:
        if len(names) > _LEVELS:
            raise NotRegistered("there is nothing below files")
        if names[-1:] == [_INDEX]:
            text = _index(request, names[:-1])
            return StreamingResponse(_sent(request, text), media_type=_TEXT, headers=_HEADERS)
        if len(names) == _LEVELS and not path.endswith("/"):
            return _file(request, names)
        return _page(request, path, names)
    except NotRegistered as error:
        return PlainTextResponse(f"{error}\n", 404, _HEADERS)


def _index(request: Request, names: list[str]) -> Iterator[str]:
    """Return the text of an index, in blocks of lines."""
    store = server_of(request).datastore
    if not names:
        return iter([store.root_index()])
    if len(names) == 1:
        return store.product_index(names[0], unquote(request.url.query) or None)
    if len(names) == _LEVELS - 1:
        return store.fileset_index(names[0], names[1])
    raise NotRegistered("files have no index")


def _page(request: Request, path: str, names: list[str]) -> Response:
    """Return an index as a page, made of the lines of its text."""
    blocks = _index(request, names)
    query = f"?{request.url.query}" if request.url.query else ""
    if names and not path.endswith("/"):  # else links would lead beside it
        return RedirectResponse(f"./{quote(names[-1])}/{query}")
    # wget follows all links of a page, and is not to climb.
    wget = "wget" in request.headers.get("User-Agent", "").lower()
    return long_page(
        request, "datastore.html", frame="bare.html" if wget else "base.html", names=names,
        rows=_sent(request, _rows(blocks)), text=_INDEX + query * (len(names) == 1), up=bool(names) and not wget,
    )  # fmt: skip


def _rows(blocks: Iterator[str]) -> Iterator[tuple[bool, list[str]]]:
    """Yield the lines of an index as cells, each with whether it is a header."""
    for block in blocks:
        for line in block.removesuffix("\n").split("\n"):
            yield line.startswith("#"), [cell.strip("# ") for cell in line.split("|")[:-1]]


def _sent(request: Request, parts: Iterator[T]) -> Iterator[T]:
    """Return what is sent: nothing to who asks for the headers only."""
    return iter(()) if request.method == "HEAD" else parts


def _file(request: Request, names: list[str]) -> Response:
    try:
        file, found = server_of(request).datastore.file(*names)
    except RetryableError as error:
        if error.fault != Fault.PS_EXIT_DATA_ERROR:
            raise
        log.error("%s", error)
        return PlainTextResponse(
            "this file is not what was registered; the operators find what is wrong in the log\n", 500, _HEADERS
        )
    kind = _TYPES.get(PurePath(file.name).suffix)
    answer = _File(
        file.path,
        headers={**_HEADERS, "ETag": f'"{file.md5}"'},
        media_type=kind or "application/octet-stream",
        filename=None if kind else file.name,
        stat_result=found,
    )
    if _conditions.is_not_modified(answer.headers, request.headers):
        return NotModifiedResponse(answer.headers)
    return answer
