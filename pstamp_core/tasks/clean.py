"""Deleting what was kept long enough: fileset, work directory, uploaded file (`pstamp_cleanup.pl`)."""

from __future__ import annotations

import shutil
from pathlib import Path

from pstamp_core.faults import Bug
from pstamp_core.files import inside
from pstamp_core.machines import Event
from pstamp_core.store import fire, pstampRequest, requests_to_clean
from pstamp_core.tasks.server import Server


def clean_requests(server: Server, limit: int) -> int:
    """Claim and clean up to `limit` requests that are to be deleted; return how many were claimed."""
    requests = server.store.work(
        lambda: server.store.claim(requests_to_clean(server.store.now()), server.args(), limit)
    )
    for request in requests:
        with server.attempt(request):
            clean_request(server, request)
    return len(requests)


def clean_request(server: Server, request: pstampRequest) -> None:
    """Delete the files of the claimed `request`; its rows stay. May be repeated at any point.

    Only what is known to be this request's own is deleted: its fileset, the directory that bears its number below the
    work directory, and its copy among the uploaded files.

    Raises
    ------
    LeaseLost
        Somebody else took the request over.
    RetryableError
        Disk or database fail.
    Bug
        The row names a work directory that is not the request's own; nothing was deleted.
    """
    outdir = None
    if request.outdir:
        outdir = inside(server.settings.work, request.outdir)
        if outdir.name != str(request.req_id):
            raise Bug(
                f"request {request.req_id}: outdir {request.outdir} is not its own; expected .../{request.req_id}"
            )
    if request.name and request.outProduct and server.datastore.has_product(request.outProduct):
        server.datastore.withdraw(request.outProduct, request.name)
    if outdir and outdir.exists():
        shutil.rmtree(outdir)
    for upload in (server.settings.work / "webreq").glob(f"*/*/*/{Path(request.uri).name}"):
        upload.unlink(missing_ok=True)
    server.store.work(lambda: fire([request], Event.CLEAN, server.args()))
