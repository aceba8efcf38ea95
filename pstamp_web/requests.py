"""Looking at requests: the list, one request while it is worked on, and its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse

from pstamp_core import __version__
from pstamp_core.tasks import browse, downloads
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.server import Server
from pstamp_web.pages import page
from pstamp_web.who import Person, server_of

router = APIRouter(include_in_schema=False)

LIVE = 3
"""Seconds after which a page of what moves is fetched anew."""
LIVE_IF_LARGE = 15
LARGE = 2000
"""Images of a request that is looked at less often."""

STATES = {
    "new": ("to be read", "wait"),
    "parsed": ("preview", "wait"),
    "run": ("working", "wait"),
    "stop": ("finished", "good"),
    "cancel": ("being cancelled", "wait"),
    "goto_cleaned": ("being deleted", "wait"),
    "cleaned": ("deleted", ""),
}
"""The states of a request in words, with the colour of their tags."""

_TEXT_FORMS: dict[str, tuple[str, Callable[[Server, Account, int], Iterator[str]]]] = {
    "csv": ("text/csv", downloads.results_csv),
    "json": ("application/json", downloads.results_json),
}

Number = Annotated[int, Query(ge=1, le=browse.LARGEST)]


@router.get("/")
def home() -> RedirectResponse:
    """Lead to one's requests."""
    return RedirectResponse("/requests", 303)


@router.get("/requests")
def list_requests(
    request: Request, person: Person, q: str = "", state: str = "", who: str = "", before: Number | None = None
) -> HTMLResponse:
    """Show requests, the newest first."""
    everyone = person.operator and who == "all"
    found = browse.list_requests(server_of(request), person, everyone=everyone, search=q, state=state, before=before)
    asked = {"q": q, "state": state, "who": "all" if everyone else ""}
    query = {name: value for name, value in asked.items() if value}
    newest = f"/requests?{urlencode(query)}" if before else ""
    older = f"/requests?{urlencode({**query, 'before': found.before})}" if found.before else ""
    return page(
        request, "requests.html", entries=found.entries, asked=asked, searched=bool(query), newest=newest, older=older,
        states=STATES, live=max(_live(entry) for entry in found.entries) if found.entries else 0,
        others={entry.who for entry in found.entries} - {person.email},
    )  # fmt: skip


def _live(entry: browse.Entry) -> int:
    """Return after how many seconds a page with this request is fetched anew; 0: nothing moves by itself."""
    if entry.state in ("stop", "cleaned", "parsed"):
        return 0
    return LIVE if entry.progress.images < LARGE else LIVE_IF_LARGE


@router.get("/request/{req_id}")
def look(
    request: Request,
    person: Person,
    req_id: int,
    number: Annotated[Number, Query(alias="page")] = 1,
    stretch: str = "asinh",
    only: str = "",
) -> HTMLResponse:
    """Show one request."""
    server = server_of(request)
    view = browse.look(server, person, req_id)
    entry = view.entry
    lines: Sequence[browse.Match | browse.Outcome]
    if entry.state == "parsed":
        lines, pages = browse.matches(server, person, req_id, number)
    else:
        lines, pages = browse.outcomes(server, person, req_id, number, failed=only == "failed")
    chosen = {
        "stretch": stretch if stretch in downloads.STRETCHES else "asinh", "only": only if only == "failed" else ""
    }  # fmt: skip
    before, after = (
        urlencode({**chosen, "page": there}) if 0 < there <= pages else "" for there in (number - 1, number + 1)
    )
    return page(
        request, "request.html", view=view, entry=entry, lines=lines, number=number, pages=pages, before=before,
        after=after, asked=chosen, stretches=downloads.STRETCHES, states=STATES, live=_live(entry),
        files=f"/ds/{quote(view.product)}/{quote(entry.name)}/", days=server.settings.preserve_days,
    )  # fmt: skip


@router.get("/request/{req_id}/picture/{name}")
def draw(request: Request, person: Person, req_id: int, name: str, stretch: str = "asinh") -> Response:
    """Send a picture of a stamp, unless the browser has it."""
    server = server_of(request)
    file, _ = downloads.result_file(server, person, req_id, name)
    tag = f'"{file.md5}-{quote(stretch)}-{__version__}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    return Response(downloads.draw(server, person, req_id, name, stretch), media_type="image/png", headers=headers)


@router.get("/request/{req_id}/stamps.tar")
def all_files(request: Request, person: Person, req_id: int) -> Response:
    """Send all files of a request."""
    tar = downloads.Tar(server_of(request), person, req_id)
    headers = {"Content-Length": str(tar.bytes), "Content-Disposition": _attachment(tar.name)}
    return StreamingResponse(iter(tar), media_type="application/x-tar", headers=headers)


@router.get("/request/{req_id}/results.{form}")
def results(request: Request, person: Person, req_id: int, form: Literal["fits", "mdc", "csv", "json"]) -> Response:
    """Send the results table."""
    server = server_of(request)
    table, found = downloads.result_file(server, person, req_id, "results.mdc" if form == "mdc" else "results.fits")
    name = f"{table.path.parent.name}.{form}"
    if form in _TEXT_FORMS:
        kind, made = _TEXT_FORMS[form]
        headers = {"Content-Disposition": _attachment(name)}
        return StreamingResponse(made(server, person, req_id), media_type=kind, headers=headers)
    kind = "text/plain" if form == "mdc" else "application/fits"
    return FileResponse(table.path, media_type=kind, filename=name, stat_result=found)


def _attachment(name: str) -> str:
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"
