"""Sending requests: the upload page, the form, and what one decides about a request afterwards."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import UploadFile

from pstamp_core.faults import UserError, fault_sentence
from pstamp_core.tasks import form as forms
from pstamp_core.tasks import upload as uploads
from pstamp_core.tasks.accounts import Account
from pstamp_web.pages import page
from pstamp_web.who import Person, SentForm, server_of

router = APIRouter(include_in_schema=False)

MAX_SHOWN = 200
"""Findings on one page."""


def _request_page(req_id: int) -> Response:
    return RedirectResponse(f"/request/{req_id}", 303)


# -- the upload page


@router.get("/upload")
def upload_page(request: Request, _person: Person) -> HTMLResponse:
    """Show the upload page."""
    return _upload(request)


def _upload(request: Request, status: int = 200, refusal: str = "", done: uploads.Upload | None = None) -> HTMLResponse:
    findings = done.findings if done else []
    codes = Counter(each.fault for each in findings if each.position)
    return page(
        request, "upload.html", status, refusal=refusal, done=done, findings=findings[:MAX_SHOWN],
        count=len(findings), bad_rows=len({each.position for each in findings}),
        codes=[(code, fault_sentence(code)) for code in sorted(codes)],
        max_bytes=server_of(request).settings.max_upload_bytes, max_rows=server_of(request).settings.max_rows,
    )  # fmt: skip


@router.post("/upload")
def upload(request: Request, person: Person, form: SentForm) -> Response:
    """Check a file, and queue it; or show what is wrong with it."""
    file = form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        return _upload(request, 400, "choose a file first")
    try:
        done = uploads.upload(server_of(request), person, file.file, file.filename)
    except UserError as error:
        return _upload(request, 400, str(error))
    return _upload(request, 400, done=done) if done.findings else _request_page(done.req_id)


@router.post("/upload/anyway")
def upload_anyway(request: Request, person: Person, form: SentForm) -> Response:
    """Queue the file that was just looked at, bad rows and all."""
    try:
        return _request_page(uploads.send_kept(server_of(request), person, str(form.get("digest", ""))))
    except UserError as error:
        return _upload(request, 400, str(error))


# -- the form


@router.get("/form")
def form_page(request: Request, person: Person, like: Annotated[int | None, Query()] = None) -> HTMLResponse:
    """Show the form: empty, filled as the address says, or as an earlier request was."""
    values, note = forms.blank_form(server_of(request), person), ""
    if like is not None:
        values, note = forms.form_like(server_of(request), person, like)
    values |= {name: value for name, value in request.query_params.items() if name in values}
    return _form(request, person, values, note=note)


def _form(
    request: Request,
    person: Account,
    values: dict[str, str],
    status: int = 200,
    *,
    errors: dict[str, str] | None = None,
    note: str = "",
    matches: list[forms.Matches] | None = None,
    rows: int = 0,
) -> HTMLResponse:
    return page(
        request, "form.html", status, values=values, errors=errors or {}, note=note, matches=matches, rows=rows,
        projects=[(name, name) for name in forms.project_names(server_of(request), person)], most=forms.MAX_POSITIONS,
    )  # fmt: skip


@router.post("/form")
def send_form(request: Request, person: Person, form: SentForm) -> Response:
    """Count what a form would match, or queue it, to be looked at first or at once; or show what is wrong with it."""
    server, action = server_of(request), form.get("do")
    values = {name: str(form.get(name, "")) for name in forms.DEFAULTS}
    table, errors = forms.read_form(server, person, values, preview=action == "preview")
    if errors:
        return _form(request, person, values, 400, errors=errors)
    if action == "count":
        matches = forms.count_matches(server, person, table)
        return _form(request, person, values, matches=matches, rows=len(table.rows))
    if action not in ("preview", "send"):
        raise HTTPException(400, "do: expected count, preview or send")
    try:
        return _request_page(forms.send_form(server, person, table, values["prefix"].strip()))
    except UserError as error:
        return _form(request, person, values, 400, errors={"": str(error)})


# -- afterwards


@router.post("/request/{req_id}/accept")
def accept(request: Request, req_id: int, person: Person, _form: SentForm) -> Response:
    """Have the images of a preview cut."""
    return _decide(request, req_id, person, "accept")


@router.post("/request/{req_id}/cancel")
def cancel(request: Request, req_id: int, person: Person, _form: SentForm) -> Response:
    """Have nothing more done for a request."""
    return _decide(request, req_id, person, "cancel")


def _decide(request: Request, req_id: int, person: Account, event: str) -> Response:
    forms.decide(server_of(request), person, req_id, event)
    return _request_page(req_id)
