"""Who asks: the login of a browser, the token or password of a program.

A handler says what it needs by the type of a parameter, before that of its form, so that nobody unknown can have a body
read: `Visitor` for an account that is not there for all, `Person` for pages (who has no login is led to one), `Program`
for the JSON interface, and `OldProgram` for the pages of the original server (HTTP Basic).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, HTTPException, Request
from starlette.datastructures import FormData

from pstamp_core.tasks import accounts
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.server import Server

COOKIE = "pstamp_login"
MAX_FIELDS = 200
"""Fields in a form."""
MAX_FIELD = 1_000_000
"""Bytes of one field of a form, other than a file: the list of positions is the largest."""


def server_of(request: Request) -> Server:
    """Return the server that is asked."""
    server: Server = request.app.state.server
    return server


def form_token(request: Request) -> str:
    """Return what a form must send along, so that no other site can send it with this browser's cookie."""
    secret = request.cookies.get(COOKIE)
    return hmac.new(secret.encode(), b"form", hashlib.sha256).hexdigest() if secret else ""


def _visitor(request: Request) -> Account | None:
    secret = request.cookies.get(COOKIE)
    request.state.account = accounts.by_login(server_of(request), secret) if secret else None
    account: Account | None = request.state.account
    return account


def _person(request: Request) -> Account:
    account = _visitor(request)
    if account is None:
        way_back = request.url.path if request.method == "GET" else "/"
        raise HTTPException(303, headers={"Location": f"/login?next={quote(way_back, safe='/')}"})
    return account


def _operator(request: Request) -> Account:
    account = _person(request)
    if not account.operator:
        raise HTTPException(403, "this page is for operators")
    return account


def _program(request: Request) -> Account:
    """Return whose token comes as ``Authorization: Bearer``, or whose password as ``Basic``."""
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    account = None
    if kind.lower() == "bearer":
        account = accounts.by_token(server_of(request), value.strip())
    elif kind.lower() == "basic":
        account = _basic(request, value)
    if account is None:
        raise HTTPException(
            401, "send a token of yours: Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"}
        )
    return account


def _old_program(request: Request) -> Account:
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    account = _basic(request, value) if kind.lower() == "basic" else None
    if account is None:
        challenge = {"WWW-Authenticate": 'Basic realm="Restricted Section", charset="UTF-8"'}
        raise HTTPException(401, "log in with your e-mail address and password", headers=challenge)
    request.state.account = account
    return account


def _basic(request: Request, value: str) -> Account | None:
    """Return whose e-mail address and password, or token in the place of a password, these are."""
    try:
        email, _, password = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    server = server_of(request)
    account = accounts.by_token(server, password)
    if account is not None and account.email == email.strip().lower():
        return account
    try:
        return accounts.check_password(server, email, password, address_of(request))
    except accounts.Refused as refused:
        raise HTTPException(401, str(refused), headers={"WWW-Authenticate": "Basic"}) from None


def address_of(request: Request) -> str:
    """Return the network address that a request comes from."""
    return request.client.host if request.client else ""


async def _form(request: Request) -> AsyncIterator[FormData]:
    """Give a form, of bounded size; one that comes with a login must carry its token."""
    async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD) as form:
        token = form_token(request)
        if token and not hmac.compare_digest(token.encode(), str(form.get("form_token", "")).encode()):
            raise HTTPException(
                403, "this form is too old, or came from another site; go back, load the page anew, and send it again"
            )
        yield form


Visitor = Annotated[Account | None, Depends(_visitor)]
Person = Annotated[Account, Depends(_person)]
Operator = Annotated[Account, Depends(_operator)]
Program = Annotated[Account, Depends(_program)]
OldProgram = Annotated[Account, Depends(_old_program)]
SentForm = Annotated[FormData, Depends(_form)]
