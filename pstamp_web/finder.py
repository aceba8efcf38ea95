"""The page that tells which skycells, exposures and chips hold a position."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from pstamp_core.faults import UserError
from pstamp_core.tasks import finder
from pstamp_web.pages import page
from pstamp_web.who import Person, server_of

router = APIRouter(include_in_schema=False)


@router.get("/finder")
def finder_page(
    request: Request,
    person: Person,
    positions: Annotated[str, Query()] = "",
    stage: Annotated[str, Query()] = "",
    reqfilt: Annotated[str, Query()] = "",
) -> HTMLResponse:
    """Show the form and, once there are positions in it, what holds them."""
    found, refusal = [], ""
    stages = (stage,) if stage in finder.STAGES else finder.STAGES
    try:
        found = finder.find_images(server_of(request), person, positions, stages=stages, reqfilt=reqfilt.strip())
    except UserError as error:
        refusal = str(error)
    return page(
        request, "finder.html", 400 if refusal else 200, positions=positions, stage=stage, reqfilt=reqfilt,
        stages=finder.STAGES, found=found, refusal=refusal, most=finder.MAX_POSITIONS,
    )  # fmt: skip
