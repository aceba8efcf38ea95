"""Running jobs: all stamps of one image at a time.

A worker claims jobs of one image, cuts them in one go, and for each stamp makes sure that the lease is still its own
before the products get their public names and the job its outcome (`pstamp_job_run.pl`, but by image).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peewee import fn

from pstamp_core.faults import Fault, FinalError, LeaseLost, PstampError
from pstamp_core.files import StoredFile, publish
from pstamp_core.formats import Option
from pstamp_core.imagedb import Verdict
from pstamp_core.machines import DependentState, Event
from pstamp_core.stamps import InputFiles, Stamp, StampRequest, cut
from pstamp_core.store import fire, pstampHistory, pstampJob, pstampProject, pstampRequest
from pstamp_core.tasks import logs
from pstamp_core.tasks.dependents import open_dependent
from pstamp_core.tasks.server import Beat, Progress, Server, image_files, need_of, verdict_on

TOGETHER = 25
"""Stamps that get their public names in one transaction."""

WENT = "its image was cleaned before it could be cut"
"""Why a job waits (again) for an image that was there; so its history says, by which it is counted how often."""

QUANTISE = 4
"""Quantisation level of lossy products: the noise spans this many steps (one sigma is 4 bits in IPP's recipes)."""


def run_jobs(server: Server, limit: int, progress: Progress | None = None) -> int:
    """Claim up to `limit` jobs of one image and run them; return how many were claimed."""
    jobs = server.store.work(lambda: server.store.claim_jobs(server.args(), limit))
    if jobs:
        run_claimed_jobs(server, jobs, progress)
    return len(jobs)


def run_claimed_jobs(server: Server, jobs: Sequence[pstampJob], progress: Progress | None = None) -> None:
    """Run claimed `jobs`, all of one image; each gets its own outcome.

    Races tolerated: a job that was taken over, given up or cancelled meanwhile loses its products, which never got
    their public names.
    """
    open_jobs = {int(job.job_id): job for job in jobs}
    done: list[tuple[pstampJob, Stamp]] = []
    beat = Beat(server)
    others = f", one of {len(jobs)} jobs" if len(jobs) > 1 else ""
    try:
        for job in jobs:
            logs.begin(server, job, f"cuts from {job.image}{others}")
        params = {number: json.loads(job.params) for number, job in open_jobs.items()}
        files = _input_files(server, jobs[0], params[int(jobs[0].job_id)])
        requests = [_stamp_request(job, params[number]) for number, job in open_jobs.items()]
        settings = server.settings
        for outcome in cut(
            files, requests, token=server.worker, max_pixels=settings.max_stamp_pixels**2,
            quantise=QUANTISE if settings.lossy else 0,
        ):  # fmt: skip
            if isinstance(outcome, Stamp):
                done.append((open_jobs.pop(outcome.job_id), outcome))
                if len(done) == TOGETHER:
                    _deliver(server, done)
                    done = []
            else:
                number, error = outcome
                job = open_jobs.pop(number)
                with server.attempt(job):
                    _wait_or_fail(server, job, params[number], error)
            if beat.is_due():
                _keep_leases(server, [*open_jobs.values(), *(job for job, _ in done)])
            if progress:
                progress("run jobs", len(jobs) - len(open_jobs), len(jobs))
        _deliver(server, done)
    except Exception as error:
        for _, stamp in done:
            _discard(stamp)
        for job in [*(job for job, _ in done), *open_jobs.values()]:
            server.record(job, error)


def _input_files(server: Server, job: pstampJob, params: dict[str, Any]) -> InputFiles:
    """Return the files of the image of `job`; those of one that was made again meanwhile are looked up anew."""
    paths = params["files"]
    if job.dep_id:
        image = server.imagedb_at(params["imagedb"], params["imageroot"]).component(
            params["stage"], params["stage_id"], params["component"], int(job.options)
        )
        if image is not None:
            paths = image_files(image)
    hdu = -1 if params["hdu"] is None else params["hdu"]
    planes: dict[str, Any] = {name: Path(path) if path else None for name, path in paths.items()}
    return InputFiles(hdu=hdu, **planes)


def _wait_or_fail(server: Server, job: pstampJob, params: dict[str, Any], error: PstampError) -> None:
    """Let a job wait for its image if that was cleaned since it was parsed, or raise what it failed with.

    Whether a file is lost, or only deleted until it is made again, the image database knows. Images that are cleaned
    again and again before their jobs' turn comes are not waited for for ever.
    """
    if error.fault != Fault.PSTAMP_NOT_AVAILABLE:
        raise error
    found = _look_again(server, job, params)
    if found is None:
        raise error
    verdict, need = found
    if not (verdict.fault or verdict.waits):
        raise error
    where = f"{params['stage']} {params['stage_id']} {params['component']}"
    if verdict.fault:
        raise FinalError(f"row {job.rownum}: {where}: {verdict.reason}", verdict.fault)

    def wait() -> int:
        args = server.args()
        mine = (pstampHistory.machine == "job") & (pstampHistory.row_id == job.job_id)
        again = mine & (pstampHistory.event == Event.RELEASE.value) & pstampHistory.note.startswith(WENT)
        count = int(pstampHistory.select(fn.COUNT(pstampHistory.hist_id)).where(again).scalar())
        if count >= server.settings.retry_ceiling:
            raise FinalError(f"row {job.rownum}: {where}: {verdict.reason}; {WENT} {count + 1} times")
        request = pstampRequest.get_by_id(job.request_id)
        number = open_dependent(server, request, need, DependentState.NEW, args.now)
        fire([job], Event.RELEASE, args, note=f"{WENT}; it waits for dependent {number}", dep_id=number)
        return number

    number = server.store.work(wait)
    logs.end(server, job, f"{WENT}; it waits for dependent {number}", server.store.now())


def _look_again(server: Server, job: pstampJob, params: dict[str, Any]) -> tuple[Verdict, dict[str, Any]] | None:
    """Return what can be said of the image of a job now, and what to wait for; None: the image database lost it."""
    with server.store.reading():
        project = pstampProject.get_or_none(pstampProject.dbname == params["imagedb"])
    image = server.imagedb_at(params["imagedb"], params["imageroot"]).component(
        params["stage"], params["stage_id"], params["component"], int(job.options)
    )
    wait = Option.NO_WAIT_FOR_UPDATE not in Option(int(job.options))
    if image is None:
        return None
    verdict = verdict_on(project, image, wait=wait)
    return verdict, need_of(project, params["imagedb"], image, verdict)


def _stamp_request(job: pstampJob, params: dict[str, Any]) -> StampRequest:
    whole = params["whole_file"]
    row = params["row"]
    return StampRequest(
        job_id=int(job.job_id),
        center=(params["center"][0], params["center"][1]),
        center_in_pixels=params["center_in_pixels"] or whole,
        size=(0.0, 0.0) if whole else (params["size"][0], params["size"][1]),
        size_in_pixels=params["size_in_pixels"],
        options=int(job.options),
        base=Path(job.outputBase),
        stage=params["stage"],
        header=(
            ("PSROWNUM", int(job.rownum), "row of the request"),
            ("PSJOBID", int(job.job_id), "job that made this stamp"),
            ("PSSTAGE", params["stage"], "stage of the input image"),
            ("PSSTGID", params["stage_id"], "run of the input image"),
            ("PSCOMP", params["component"], "component of the input image"),
            ("PSPROJ", row["PROJECT"], "project of the input image"),
        ),
    )


def _keep_leases(server: Server, jobs: Sequence[pstampJob]) -> None:
    """Say that we are still at work on `jobs`; what is ours no longer comes out when it is delivered."""
    try:
        server.store.work(lambda: fire(jobs, Event.HEARTBEAT, server.args()))
    except LeaseLost:
        if len(jobs) > 1:
            for job in jobs:
                _keep_leases(server, [job])


def _deliver(server: Server, done: Sequence[tuple[pstampJob, Stamp]]) -> None:
    """Give products their public names and their jobs success, if the leases are still ours.

    Several together are one transaction and one wait for the disk; when one of them is ours no longer, or the disk
    fails, each is tried on its own.
    """
    if not done:
        return
    try:
        jobs = [job for job, _ in done]
        jobs = server.store.work(lambda: fire(jobs, Event.HEARTBEAT, server.args()))
        for job, stamp in done:
            for product in stamp.products:
                public = Path(job.outputBase).parent / product.name
                if product.path.exists() or not public.exists():  # else it has its name since we tried them together
                    publish(product.path, public)
        own = {int(job.job_id): _outcome(job, stamp) for job, stamp in done}
        args = server.args()
        server.store.work(lambda: fire(jobs, Event.FINISH, args, own=own))
        for job, stamp in done:
            logs.end(server, job, f"stop: {', '.join(product.name for product in stamp.products)}", args.now)
    except (PstampError, OSError) as error:
        if len(done) > 1:
            for one in done:
                _deliver(server, [one])
            return
        ((job, stamp),) = done
        _discard(stamp)
        server.record(job, error)


def _discard(stamp: Stamp) -> None:
    for product in stamp.products:
        product.path.unlink(missing_ok=True)


def _outcome(job: pstampJob, stamp: Stamp) -> dict[str, Any]:
    return {
        "result": json.dumps(_result(stamp, Path(job.outputBase).parent)),
        "sentence": f"not known of this image: {', '.join(stamp.missing)}" if stamp.missing else "",
    }


def _result(stamp: Stamp, outdir: Path) -> dict[str, Any]:
    return {
        "products": [_public(product, outdir) for product in stamp.products],
        "RA_DEG": stamp.ra, "DEC_DEG": stamp.dec, "box": list(stamp.box), "on_image": list(stamp.on_image),
        "FRAC_IMAGE": stamp.fraction_on_image, "FRAC_FINITE": stamp.fraction_finite,
    }  # fmt: skip


def _public(product: StoredFile, outdir: Path) -> dict[str, Any]:
    return {
        "path": str(outdir / product.name), "name": product.name, "type": product.type, "bytes": product.bytes,
        "md5": product.md5,
    }  # fmt: skip
