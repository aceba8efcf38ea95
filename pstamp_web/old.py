"""The pages of the original server that programs read, at their old addresses and in their old words.

``upload.php``, ``request.php``, ``status.php`` and ``findskycell.php``; who asks is told by HTTP Basic. The answers are
looked through by programs, so that their words, and the blanks between them, are not to be changed: see the tests.
A refusal is a page with ``Error:`` and status 200, as ever.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse
from starlette.datastructures import FormData, UploadFile

from pstamp_core.faults import UserError
from pstamp_core.tasks import browse, finder, views
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.oldform import DEFAULTS, IMG_TYPES, MODES, REQ_TYPES, send_old_form
from pstamp_core.tasks.submit import insert_request
from pstamp_core.tasks.upload import received
from pstamp_web.guard import from_elsewhere
from pstamp_web.pages import page
from pstamp_web.who import MAX_FIELD, MAX_FIELDS, OldProgram, server_of

router = APIRouter(include_in_schema=False)

SHOWN = 100
"""Requests that a page lists: the newest."""


async def _fields(request: Request) -> AsyncIterator[FormData]:
    """Give the fields of a form; programs know no form token, and `pstamp_web.guard` refuses other sites' forms."""
    async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD) as form:
        yield form


Fields = Annotated[FormData, Depends(_fields)]


@router.get("/upload.php")
def upload_page(request: Request, account: OldProgram) -> HTMLResponse:
    """Show the upload page, with the requests of the account."""
    return _upload(request, account)


@router.post("/upload.php")
def upload(request: Request, account: OldProgram, form: Fields) -> HTMLResponse:
    """Queue a request file; a post without one does nothing."""
    file = form.get("filename")
    if not isinstance(file, UploadFile) or not file.filename or not file.size:
        return _upload(request, account)
    try:
        with received(server_of(request), file.file, file.filename) as path:
            number, name = insert_request(server_of(request), path, sender=account)
    except UserError as error:
        return _upload(request, account, error=str(error))
    return _upload(request, account, number=number, name=name)


def _upload(request: Request, account: Account, number: int = 0, name: str = "", error: str = "") -> HTMLResponse:
    return page(request, "old_upload.html", number=number, name=name, error=error, sent=_requests(request, account))


def _requests(request: Request, account: Account) -> list[browse.Entry]:
    mine = browse.list_requests(server_of(request), account, number=SHOWN).entries
    return [entry for entry in mine if entry.who == account.email]


@router.get("/request.php")
def request_page(request: Request, account: OldProgram) -> HTMLResponse:
    """Show the form, or do what the address says, as the original did: unless a page of another site has it say so."""
    if request.query_params.get("cmd_mode") in MODES[:2] and from_elsewhere(request.headers):
        raise HTTPException(403, "Error: another site may not send this")
    return _request(request, account, request.query_params)


@router.post("/request.php")
def send_request(request: Request, account: OldProgram, form: Fields) -> HTMLResponse:
    """Do what the form says."""
    return _request(request, account, {name: value for name, value in form.items() if isinstance(value, str)})


def _request(request: Request, account: Account, given: Mapping[str, str]) -> HTMLResponse:
    fields = {name: given.get(name, first) for name, first in DEFAULTS.items()}
    number, name, error = 0, "", ""
    mode = given.get("cmd_mode", "")
    if mode and mode != "Get Status":
        try:
            number, name = send_old_form(server_of(request), account, fields)
        except UserError as refused:
            error = str(refused)
    done = mode == "Get Status" or number
    shown = fields | {"cmd_mode": "Get Status"} if done else fields
    return page(
        request, "old_request.html", fields=shown, number=number, name=name, error=error, select_by=list(REQ_TYPES),
        img_types=IMG_TYPES, modes=MODES, requests=_requests(request, account) if done else [],
    )  # fmt: skip


@router.get("/status.php")
def status_page(request: Request, account: OldProgram) -> HTMLResponse:
    """Show the requests that the account may see: those that are worked on, and those finished in the last day."""
    server = server_of(request)
    tables = []
    for view in (views.running(server, account=account), views.finished(server, account=account)):
        columns = tuple(f"{name} (UTC)" if name.endswith("Time") else name for name in view.columns)
        tables.append("\n".join(views.framed(views.View(columns, view.rows))))
    return page(request, "old_status.html", tables=tables)


@router.get("/findskycell.php")
def find_page(request: Request, _account: OldProgram) -> HTMLResponse:
    """Show the form."""
    return page(request, "old_findskycell.html", ra="", dec="", skycells=[], error="")


@router.post("/findskycell.php")
def find_skycell(request: Request, account: OldProgram, form: Fields) -> HTMLResponse:
    """Show the skycells that hold a position."""
    ra, dec = (":".join(str(form.get(name, "")).split()) for name in ("ra", "dec"))
    skycells: list[finder.Skycell] = []
    error = ""
    try:
        [found] = finder.find_images(server_of(request), account, f"{ra} {dec}", stages=finder.ON_SKYCELLS)
        # A skycell of several projects, or stages, is told of once.
        skycells = list({(each.tess_id, each.skycell): each for each in found.skycells}.values())
    except (UserError, ValueError) as refused:
        error = str(refused) if isinstance(refused, UserError) else "ra and dec: expected one position"
    return page(request, "old_findskycell.html", ra=ra, dec=dec, skycells=skycells, error=error)
