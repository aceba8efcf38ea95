"""Logging in and out, and the page of one's own account."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from pstamp_core.faults import UserError
from pstamp_core.tasks import accounts
from pstamp_web.pages import page
from pstamp_web.who import COOKIE, Person, SentForm, Visitor, address_of, server_of

router = APIRouter(include_in_schema=False)


def _own(way: str) -> str:
    """Return where to go after the login: a page of ours, whatever a link says."""
    fine = way.startswith("/") and not way.startswith(("//", "/\\")) and way.isprintable()
    return way if fine and "\\" not in way else "/"


@router.get("/login")
def login_page(request: Request, _visitor: Visitor, next: str = "/") -> HTMLResponse:  # noqa: A002
    """Show the form."""
    return page(request, "login.html", next=_own(next), email="", refusal="")


@router.post("/login")
def log_in(request: Request, form: SentForm) -> Response:
    """Log somebody in: under a new secret, so that none that somebody planted is of use."""
    way, email, server = _own(str(form.get("next", "/"))), str(form.get("email", "")), server_of(request)
    try:
        _, secret = accounts.log_in(server, email, str(form.get("password", "")), address_of(request))
    except accounts.Refused as refused:
        return page(request, "login.html", 403, next=way, email=email, refusal=str(refused))
    answer = RedirectResponse(way, 303)
    answer.set_cookie(
        COOKIE, secret, max_age=int(server.settings.login_hours * 3600), httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


@router.post("/logout")
def log_out(request: Request, _person: Person, _form: SentForm) -> Response:
    """End the login, here and in the database."""
    accounts.log_out(server_of(request), request.cookies[COOKIE])
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.get("/account")
def account_page(request: Request, person: Person) -> HTMLResponse:
    """Show who somebody is here, and their tokens."""
    return _account(request, person)


def _account(request: Request, person: accounts.Account, status: int = 200, **values: str) -> HTMLResponse:
    shown = {"new_token": "", "refusal": "", "done": ""} | values
    return page(request, "account.html", status, tokens=accounts.tokens(server_of(request), person), **shown)


@router.post("/account/password")
def change_password(request: Request, person: Person, form: SentForm) -> Response:
    """Change the password, which ends all logins."""
    server = server_of(request)
    try:
        accounts.check_password(server, person.email, str(form.get("password", "")), address_of(request))
        if form.get("new") != form.get("again"):
            raise UserError("the new password and its repetition differ")
        accounts.change_account(server, person.email, password=str(form.get("new", "")))
    except UserError as refused:
        return _account(request, person, 400, refusal=str(refused))
    return RedirectResponse("/login", 303)


@router.post("/account/token")
def add_token(request: Request, person: Person, form: SentForm) -> HTMLResponse:
    """Make a token; it is shown once."""
    try:
        token = accounts.add_token(server_of(request), person, str(form.get("name", "")))
    except UserError as refused:
        return _account(request, person, 400, refusal=str(refused))
    return _account(request, person, new_token=token)


@router.post("/account/token/drop")
def drop_token(request: Request, person: Person, form: SentForm) -> Response:
    """End a token."""
    number = str(form.get("token_id", ""))
    if not number.isdecimal():
        raise HTTPException(400, f"token_id = {number!r}: expected a number")
    accounts.drop_token(server_of(request), person, int(number))
    return RedirectResponse("/account", 303)
