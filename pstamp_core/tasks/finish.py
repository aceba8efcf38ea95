"""Publishing: when no job of a request is open, its results go to the data store (`pstamp_finish.pl`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peewee import Case, fn

from pstamp_core.faults import Bug, fault_name, fault_sentence
from pstamp_core.files import StoredFile, measure, sweep, write_text
from pstamp_core.formats import results_mdc, write_results
from pstamp_core.machines import REQUEST, DependentState, Event
from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.store import (
    fire,
    open_jobs,
    pstampDependent,
    pstampHistory,
    pstampJob,
    pstampRequest,
    requests_to_finish,
)
from pstamp_core.tasks import logs
from pstamp_core.tasks.server import Beat, Server, find

PARSE_ERRORS = "parse_error.txt"


def finish_requests(server: Server, limit: int) -> int:
    """Claim and finish up to `limit` requests; return how many were claimed."""
    return server.work_through(requests_to_finish, limit, lambda request: finish_request(server, request))


def finish_request(server: Server, request: pstampRequest) -> None:
    """Publish the results of the claimed `request`, and stop it.

    May be repeated at any point: the fileset is the request's own, and is published once.

    Raises
    ------
    LeaseLost
        Somebody else took the request over.
    RetryableError
        Disk or database fail; the fileset is not there, or whole.
    """
    logs.begin(server, request, f"publishes {request.name}")
    outdir = Path(request.outdir) if request.outdir else server.work_directory(request)
    outdir.mkdir(parents=True, exist_ok=True)
    with server.store.reading():
        jobs = list(pstampJob.select().where(pstampJob.req_id == request.req_id))
        waits = _waits(request)
    if not jobs:
        raise Bug(f"request {request.req_id}: no jobs, though every request gets at least one")
    jobs.sort(key=lambda job: (int(job.rownum), job.job_id))
    rows = [{**row, "WAIT_S": waits.get(job.job_id, 0.0)} for job in jobs for row in result_rows(job)]
    write_results(outdir / "results.fits", request.name, request.req_id, rows)
    write_text(outdir / "results.mdc", results_mdc(outdir / "results.fits"))
    files = [measure(outdir / "results.fits", "table"), measure(outdir / "results.mdc", "text")]
    errors = [f"{fault_name(job.fault)} ({job.fault}): {_sentence(job)}" for job in jobs if job.fault]
    if errors:
        write_text(outdir / PARSE_ERRORS, "\n".join(errors) + "\n")
        files.append(measure(outdir / PARSE_ERRORS, "text"))
    files += [_stored(product) for job in jobs for product in _products(job)]

    beat = Beat(server)

    def keep_lease() -> None:
        server.store.work(lambda: fire([request], Event.HEARTBEAT, server.args()))

    def after_each() -> None:
        if beat.is_due():
            keep_lease()

    def still_ours() -> None:
        keep_lease()
        sweep(outdir)  # all has its public name: what is left is of workers who died, or lost their leases

    product = request.outProduct or server.settings.product
    if not server.datastore.has_product(product):
        server.datastore.add_product(product, "PSRESULTS", "Results of the postage stamp server", ("req_id",))
    server.datastore.publish(
        product, request.name, "PSRESULTS", files, values=(str(request.req_id),), before_rename=still_ours,
        after_each=after_each,
    )  # fmt: skip

    def stop() -> pstampRequest:
        args = server.args(open_jobs=open_jobs(request))
        return fire([request], Event.FINISH, args, outdir=str(outdir))[0]

    stopped = server.store.work(stop)
    codes = sorted(Counter(job.fault for job in jobs).items())
    ends = ", ".join(f"{count} with code {code}" if code else f"{count} done" for code, count in codes)
    text = f"stop: fileset {product}/{request.name}, files: {len(files)}; jobs: {ends}"
    logs.end(server, request, text, stopped.changed_at)


def revert_request(server: Server, number: int, who: str) -> bool:
    """Let an operator have a faulted request tried again, after taking back a fileset that it published.

    As publishing may be repeated anyhow, this is for a fileset that should not be seen meanwhile
    (`pstamp_revert_request.pl`). The fileset of another request is left alone.

    Returns
    -------
    bool
        Whether there was a fileset.

    Raises
    ------
    UserError
        There is no such request.
    IllegalTransition
        It has no fault, or somebody works on it; its fileset was not touched.
    RetryableError
        Disk or database fail; the request is as it was.
    """
    with server.store.reading():
        request: Any = find("request", number)
    REQUEST.decide(request, Event.REVERT, server.args(who=who, operator=True))
    product = request.outProduct or server.settings.product
    published = server.datastore.owner(product, request.name or "") == str(number)
    if published:
        server.datastore.withdraw(product, request.name)
    server.store.work(lambda: fire([request], Event.REVERT, server.args(who=who, operator=True), note="by hand"))
    return published


def _waits(request: pstampRequest) -> dict[int, float]:
    """Return how long each job of a request that has a dependent waited for it, in seconds.

    A job begins to wait when it is made, accepted after a preview, or released because its image is there no more; it
    ends with the dependent, or by itself. What waited twice tells of the second time.
    """
    job, dependent, line = pstampJob, pstampDependent, pstampHistory
    ended = dependent.state.in_([DependentState.FULL, DependentState.STOP])
    of_job = (line.machine == "job") & (line.row_id == job.job_id) & line.event.in_(_BEGINNINGS)
    columns = (job.job_id, job.changed_at, Case(None, [(ended, dependent.changed_at)], job.changed_at))
    query: Any = (
        job.select(*columns, fn.MAX(line.at))
        .join_from(job, dependent, on=(dependent.dep_id == job.dep_id))
        .join_from(job, line, on=of_job)
        .where(job.req_id == request.req_id, ~ended | (line.at <= dependent.changed_at))
        .group_by(*columns)
    )
    return {number: (min(ends) - begin) / MICROSECONDS for number, *ends, begin in query.tuples()}


_BEGINNINGS = ("make", Event.ACCEPT.value, Event.RELEASE.value)


def _products(job: pstampJob) -> list[dict[str, Any]]:
    return list(json.loads(job.result)["products"]) if job.result else []


def _stored(product: dict[str, Any]) -> StoredFile:
    return StoredFile(Path(product["path"]), product["name"], product["type"], product["bytes"], product["md5"])


def _sentence(job: pstampJob) -> str:
    return job.sentence or fault_sentence(job.fault)


def result_rows(job: pstampJob) -> Iterator[dict[str, Any]]:
    """Yield the results rows of a job: one for each product, or one that says why there is none."""
    params = json.loads(job.params) if job.params else {}
    result = json.loads(job.result) if job.result else {}
    row: dict[str, Any] = {
        "ROWNUM": int(job.rownum), "ERROR_CODE": job.fault, "ERROR_STR": fault_name(job.fault), "JOB_ID": job.job_id,
        "CAUSE": job.cause, "SENTENCE": _sentence(job), "INPUT_IMAGE": Path(job.image).name,
        **params.get("row", {}), **params.get("observation", {}),
    }  # fmt: skip
    for name in ("RA_DEG", "DEC_DEG", "FRAC_IMAGE", "FRAC_FINITE"):
        if result.get(name) is not None:
            row[name] = result[name]
    for prefix, box in (("BOX", result.get("box")), ("IMG", result.get("on_image"))):
        if box:
            row |= dict(zip((f"{prefix}_X0", f"{prefix}_Y0", f"{prefix}_NX", f"{prefix}_NY"), box, strict=True))
    products = _products(job)
    for product in products:
        yield {**row, "IMG_NAME": product["name"], "MD5": product["md5"]}
    if not products:
        yield row
