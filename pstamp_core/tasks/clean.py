"""Deleting what was kept long enough: fileset, files outside, uploaded file, work directory.

`pstamp_queue_cleanup.pl` and `pstamp_cleanup.pl`.
"""

from __future__ import annotations

import filecmp
import shutil
from math import inf
from pathlib import Path
from secrets import token_hex

from pstamp_core.faults import Bug, Fault, RetryableError
from pstamp_core.files import inside, private_name
from pstamp_core.machines import Event, RequestState
from pstamp_core.machines.machine import DAY
from pstamp_core.store import fire, pstampFile, pstampJob, pstampRequest, requests_to_clean
from pstamp_core.tasks import logs
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

    Only what is known to be this request's own is deleted, in this order: the fileset that is registered with its
    number; files outside that were noted for its jobs, whose names begin with the job's number; its copy among the
    uploaded files; the directory below the work directory that bears its number and holds its logs.

    Raises
    ------
    LeaseLost
        Somebody else took the request over.
    RetryableError
        Disk or database fail.
    Bug
        The row names a work directory, or a noted file, that is not the request's own; nothing was deleted.
    """
    outdir = _own_directory(server, request)
    bundles = _own_bundles(server, request)
    product = request.outProduct or server.settings.product
    if request.name and server.datastore.has_product(product):
        owner = server.datastore.owner(product, request.name)
        if owner in (None, str(request.req_id)):  # None: an earlier withdrawal may have broken off
            server.datastore.withdraw(product, request.name)
    for path in bundles.values():
        path.unlink(missing_ok=True)
    _delete_upload(server, request)
    if outdir:
        _delete_directory(outdir)

    def clean() -> None:
        pstampFile.delete().where(pstampFile.file_id.in_(list(bundles))).execute()
        fire([request], Event.CLEAN, server.args())

    server.store.work(clean)


def _own_directory(server: Server, request: pstampRequest) -> Path | None:
    """Return the request's work directory, whether it is there or not."""
    if not request.outdir:
        return None
    outdir = inside(server.settings.work, request.outdir)
    if outdir.name != str(request.req_id):
        raise Bug(f"request {request.req_id}: outdir {request.outdir} is not its own; expected .../{request.req_id}")
    if outdir.exists() and not logs.log_files(server, request):
        raise Bug(
            f"request {request.req_id}: nothing says that {outdir} is its own: there is no log of it in there, such as "
            f"psparse.{request.req_id}.log; make an empty one if it is"
        )
    return outdir


def _own_bundles(server: Server, request: pstampRequest) -> dict[int, Path]:
    """Return the files of the request's jobs outside of its work directory, by the numbers of their notes."""
    with server.store.reading():
        noted = pstampFile.select(pstampFile, pstampJob.job_id).join(
            pstampJob, on=(pstampJob.job_id == pstampFile.job_id)
        )
        rows = list(noted.where(pstampJob.req_id == request.req_id))
    for row in rows:
        if not Path(row.path).name.startswith(f"{row.job_id}_"):
            raise Bug(
                f"request {request.req_id}: file {row.path} was noted for job {row.job_id}, but its name does not "
                f"begin with {row.job_id}_; delete it by hand if it is the job's, and the note: "
                f"pstamptool -deletefile -job_id {row.job_id}"
            )
    return {row.file_id: Path(row.path) for row in rows}


def _delete_upload(server: Server, request: pstampRequest) -> None:
    """Delete the file that was sent here: it is what the request names, or what that is a copy of."""
    named = Path(request.uri)
    upload = server.settings.work / "webreq" / f"{request.registered:%Y/%m/%d}" / named.name
    if request.ds_id or not upload.is_file():
        return
    if named.is_file() and filecmp.cmp(named, upload, shallow=False):
        upload.unlink(missing_ok=True)


def _delete_directory(outdir: Path) -> None:
    """Delete a directory, whose name goes first: half deleted, it would no longer say whose it is."""
    if outdir.exists():
        outdir.rename(private_name(outdir, token_hex(8)))
    for stray in outdir.parent.glob(f".{outdir.name}.*.tmp"):
        shutil.rmtree(stray)
