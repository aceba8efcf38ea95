"""Deleting what was kept long enough: fileset, work directory, uploaded file.

`pstamp_queue_cleanup.pl` and `pstamp_cleanup.pl`.
"""

from __future__ import annotations

import shutil
from math import inf
from pathlib import Path

from pstamp_core.faults import Bug, Fault, RetryableError
from pstamp_core.files import inside
from pstamp_core.machines import Event, RequestState
from pstamp_core.machines.machine import DAY
from pstamp_core.store import fire, pstampRequest, requests_to_clean
from pstamp_core.tasks.server import Server

TOGETHER = 500
"""Requests that are queued for clean-up in one transaction."""


def queue_cleanup(server: Server, days: float | None = None) -> int:
    """Let requests that were finished long ago be deleted from disk, whatever their label; return how many.

    The time counts from the moment a request was finished; a later change of its label does not prolong it.

    Parameters
    ----------
    server : Server
        The server.
    days : float, optional
        How long they are kept (d), instead of the setting `preserve_days`; 0 keeps them for ever.

    Raises
    ------
    RetryableError
        Fault 3: no number of days.
    """
    days = server.settings.preserve_days if days is None else days
    if not 0 <= days < inf:
        raise RetryableError(f"preserve-days {days:g}: expected 0 (for ever) or more", Fault.PS_EXIT_CONFIG_ERROR)

    def work() -> int:
        args = server.args(who="queue cleanup")
        old = pstampRequest.changed_at <= max(args.now - days * DAY, 0)
        due = pstampRequest.select().where((pstampRequest.state == RequestState.STOP) & old).limit(TOGETHER)
        return len(fire(list(due), Event.EXPIRE, args, note=f"kept for {days:g} days"))

    count = 0
    while days and (some := server.store.work(work)):
        count += some
    return count


def clean_requests(server: Server, limit: int) -> int:
    """Claim and clean up to `limit` requests that are to be deleted; return how many were claimed."""
    return server.work_through(requests_to_clean, limit, lambda request: clean_request(server, request))


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
