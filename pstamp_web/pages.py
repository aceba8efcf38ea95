"""Drawing pages: one set of templates, in which every value is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, StreamingResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from pstamp_core import __version__
from pstamp_web.who import form_token


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("pstamp_web"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters["utc"] = utc
    templates.globals["version"] = __version__
    return templates


def utc(moment: datetime | None) -> str:
    """Return a moment as people read it: to the second, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else ""


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page.

    Parameters
    ----------
    request : Request
        What it answers. The template knows as `account` who asks (None without a login), and as `form_token` what each
        form that changes something must send along.
    template : str
        A file in ``templates/``.
    status : int
        The status of HTTP.
    **values
        What the template shows.
    """
    return HTMLResponse(_templates().get_template(template).render(**_known(request), **values), status_code=status)


def long_page(request: Request, template: str, **values: Any) -> StreamingResponse:
    """Return a page that is drawn while it is sent, since it may have very many rows; parameters as of `page`."""
    parts = _templates().get_template(template).stream(**_known(request), **values)
    parts.enable_buffering(1000)
    return StreamingResponse(parts, media_type="text/html")


def _known(request: Request) -> dict[str, Any]:
    return {
        "account": getattr(request.state, "account", None),
        "form_token": form_token(request),
        "path": request.url.path,
    }
