"""How the server is: the same numbers as `pstamp status`; whose the work is, is shown to operators only."""

from __future__ import annotations

import threading
import time

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from pstamp_core.tasks import browse, report
from pstamp_web.pages import page
from pstamp_web.requests import STATES
from pstamp_web.who import Visitor, server_of

router = APIRouter(include_in_schema=False)

LIVE = 5
"""Seconds after which the page is fetched anew."""
KEPT = 2.0
"""Seconds for which one look serves all who ask: anybody may, as often as they like."""
STUCK = 20
"""Lines of what does not move."""

_looking = threading.Lock()


@router.get("/status")
def status(request: Request, visitor: Visitor) -> HTMLResponse:
    """Show the server's state."""
    mine = browse.list_requests(server_of(request), visitor, state="unfinished").entries if visitor else []
    return page(
        request, "status.html", found=latest(request), live=LIVE, mine=mine, states=STATES,
        operator=bool(visitor and visitor.operator),
    )  # fmt: skip


def latest(request: Request) -> report.Status:
    """Return the server's state, as it was at most `KEPT` seconds ago."""
    kept = request.app.state
    with _looking:
        if time.monotonic() - getattr(kept, "looked", -KEPT) >= KEPT:
            kept.status = report.status(server_of(request), STUCK)
            kept.looked = time.monotonic()
        found: report.Status = kept.status
        return found
