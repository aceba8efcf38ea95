"""Parsing: a request file becomes jobs.

`pstamp_parser_run.pl` and `pstampparse.pl` in one: fetch the file, check it, find the images of each row, and store all
jobs with the request's new state in one transaction. An error that the user made is an answer, never a fault.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peewee import fn

from pstamp_core.database import redact
from pstamp_core.datastore.client import fetch, listed, name_of
from pstamp_core.faults import Fault, RetryableError, Stale, UserError
from pstamp_core.formats import (
    JOB_TYPES,
    Finding,
    Option,
    RequestRow,
    RequestTable,
    check_request,
    check_rows,
    name_is_valid,
    read_request,
    request_columns,
)
from pstamp_core.formats.tables import MAX_BYTES
from pstamp_core.imagedb import Image, Selection
from pstamp_core.machines import DependentState, Event, JobState
from pstamp_core.store import (
    delete_jobs,
    fire,
    make_jobs,
    moment,
    pstampAccessLevel,
    pstampAccount,
    pstampProject,
    pstampRequest,
    pstampSender,
    pstampUser,
    pstampUserDomain,
    requests_to_parse,
)
from pstamp_core.tasks import logs
from pstamp_core.tasks.dependents import component_key, given_up_lately, open_dependent
from pstamp_core.tasks.queue_requests import terms_of
from pstamp_core.tasks.server import Progress, Server, image_files, known_label, need_of, verdict_on

NAME_LENGTH = 64
"""IMG_NAME of the results table; product names must fit."""
LONGEST_SUFFIX = len(".exp.fits")


# insert_many wants the same columns of every row
_EMPTY_JOB: dict[str, Any] = {
    "rownum": "0", "jobType": "none", "options": 1, "exp_id": 0, "image": "", "outputBase": None, "params": "",
    "sentence": "", "fault": 0, "cause": 0,
}  # fmt: skip


@dataclass(frozen=True)
class PlannedJob:
    """The columns of a job, and the component it waits for, if it does."""

    columns: dict[str, Any]
    need: dict[str, Any] | None = None


@dataclass
class Plan:
    """What a request file leads to, before anything is stored."""

    name: str | None = None
    preview: bool = False
    columns: dict[str, Any] = field(default_factory=dict)
    jobs: list[PlannedJob] = field(default_factory=list)

    def answer(self, fault: int, sentence: str, **columns: Any) -> None:
        """Add a stopped job that carries an answer."""
        answer = {"state": JobState.STOP, "fault": int(fault), "sentence": sentence}
        self.jobs.append(PlannedJob(_EMPTY_JOB | columns | answer))


@dataclass(frozen=True)
class User:
    """Who asks, by e-mail address: access level, and what comes with it."""

    name: str | None
    level: int
    product: str | None = None
    label: str | None = None


def parse_requests(server: Server, limit: int, progress: Progress | None = None) -> int:
    """Claim and parse up to `limit` requests; return how many were claimed."""
    return server.work_through(requests_to_parse, limit, lambda request: parse_request(server, request, progress))


def parse_request(server: Server, request: pstampRequest, progress: Progress | None = None) -> None:
    """Parse the claimed `request`.

    Raises
    ------
    LeaseLost
        Somebody else took the request over; nothing was stored.
    RetryableError
        A file, disk or database does not answer now; nothing was stored.
    """
    logs.begin(server, request, f"parses {redact(request.uri)}")
    outdir = Path(request.outdir) if request.outdir else server.work_directory(request)
    outdir.mkdir(parents=True, exist_ok=True)
    plan = Plan(columns={"outdir": str(outdir), "reqType": "pstamp"})
    copy = outdir / name_of(request.uri)
    try:
        table = _fetch(server, request, copy)
    except UserError as error:
        plan.columns["reqType"] = "unknown"
        plan.answer(error.fault, str(error))
    else:
        plan.columns["uri"] = str(copy)
        _plan_request(server, request, table, plan, outdir, progress)
    if not plan.jobs:
        plan.answer(Fault.PSTAMP_NO_JOBS_QUEUED, "no row led to a job")
    parsed = server.store.work(lambda: store_plan(server, request, plan))
    logs.end(server, request, f"{parsed.state.value}: {parsed.name}; {_summary(plan)}", parsed.changed_at)


def _fetch(server: Server, request: pstampRequest, copy: Path) -> RequestTable:
    if request.uri != str(copy):
        terms = terms_of(server.settings, server.settings.fetch_seconds)
        # What a data store was polled for is what its index says now: the file may have been registered anew since.
        entry = listed(request.uri, terms) if request.ds_id else None
        size, md5 = (entry.bytes, entry.md5) if entry else (None, None)
        fetch(request.uri, copy, terms, max_bytes=MAX_BYTES, size=size, md5=md5)
    return read_request(copy, max_rows=server.settings.max_rows)


def _plan_request(
    server: Server, request: pstampRequest, table: RequestTable, plan: Plan, outdir: Path, progress: Progress | None
) -> None:
    file = Path(plan.columns["uri"])
    settings = server.settings
    # Anybody can write any address into a file; an account has proved who it is, and was compared with the file.
    table = replace(table, email=_sender_of(server, request) or table.email)
    finding = check_request(table, serve_v1=settings.serve_v1, path=file)
    plan.name = table.req_name if name_is_valid(table.req_name) else None
    if plan.name and _name_is_taken(server, request, plan.name):
        plan.answer(
            Fault.PSTAMP_DUP_REQUEST,
            f"{file.name}: header: REQ_NAME = {plan.name!r} is in use by another request; send it under another name",
        )
        plan.name = None
        return
    if finding:
        plan.answer(finding.fault, finding.sentence)
        return
    user = look_up_user(server, table.email)
    plan.columns["username"] = user.name
    if user.level < 0:
        plan.answer(
            Fault.PSTAMP_NOT_AUTHORIZED, f"{file.name}: header: EMAIL = {table.email!r} has no access to this server"
        )
        return
    if user.product and request.outProduct in (None, settings.product):
        plan.columns["outProduct"] = user.product
    if user.label and request.label in (None, "WEB", "WEB.UP"):
        plan.columns["label"] = user.label
    plan.preview = table.action == "PREVIEW"
    with ExitStack() as connections:
        # The last try answers what it can, so that one dead image database does not keep all other rows from the user.
        last_try = request.fault_count + 1 >= settings.retry_ceiling
        projects = _Projects(server, user, last_try, connections)
        _plan_rows(server, table, projects, plan, outdir, progress)


def _plan_rows(
    server: Server, table: RequestTable, projects: _Projects, plan: Plan, outdir: Path, progress: Progress | None
) -> None:
    file, settings = Path(plan.columns["uri"]), server.settings
    findings = check_rows(table, project_fault=projects.fault, max_size_pixels=settings.max_stamp_pixels, path=file)
    for number, (row, problems) in enumerate(zip(table.rows, findings, strict=True)):
        if problems:
            plan.answer(problems[0].fault, _sentence(problems), **_row_columns(row))
        else:
            _plan_row(row, projects, plan, outdir)
        if len(plan.jobs) > settings.max_jobs:
            plan.jobs.clear()
            plan.answer(
                Fault.PSTAMP_INVALID_REQUEST,
                f"{file.name}: the first {number + 1} rows lead to more than {settings.max_jobs} jobs; "
                "send fewer rows, or narrow them",
            )
            return
        if progress:
            progress("parse rows", number + 1, len(table.rows))


def rehearse(server: Server, rows: Sequence[RequestRow], email: str, *, most: int) -> list[list[PlannedJob]]:
    """Return what each row of a user's request would lead to, the answers among it; nothing is stored.

    The rows are such that `check_rows` finds nothing wrong with them. Those at the end are left out once there are more
    than `most` jobs.
    """
    by_row: list[list[PlannedJob]] = []
    with ExitStack() as connections:
        projects = _Projects(server, look_up_user(server, email), True, connections)
        for row in rows:
            plan = Plan()
            _plan_row(row, projects, plan, server.settings.work)
            by_row.append(plan.jobs)
            if sum(map(len, by_row)) > most:
                break
    return by_row


def _sentence(findings: list[Finding]) -> str:
    return "; ".join(each.sentence for each in findings)


def _name_is_taken(server: Server, request: pstampRequest, name: str) -> bool:
    with server.store.reading():
        return bool(
            pstampRequest.select()
            .where((pstampRequest.name == name) & (pstampRequest.req_id != request.req_id))
            .exists()
        )


def _sender_of(server: Server, request: pstampRequest) -> str | None:
    """Return the address of the account that sent a request, if one did."""
    with server.store.reading():
        accounts = pstampAccount.select(pstampAccount.email).join(pstampSender)
        email = accounts.where(pstampSender.req_id == request.req_id).scalar()
        return str(email) if email else None


def look_up_user(server: Server, email: str | None) -> User:
    """Return the access of an e-mail address: the user's, else the domain's, else the default (`pstampparse.pl`)."""
    if not email:  # version 1, served because the site says so
        return User(None, server.settings.default_access_level)
    email = email.lower()
    user, domain = email.split("@", 1)
    with server.store.reading():
        one = pstampUser.get_or_none(
            (fn.LOWER(pstampUser.userName) == user) & (fn.LOWER(pstampUser.domainName) == domain)
        )
        all_ = pstampUserDomain.get_or_none(fn.LOWER(pstampUserDomain.domainName) == domain)
    found = [each for each in (one, all_) if each is not None]
    if not found:
        return User(email, server.settings.default_access_level)
    product = next((each.defaultProduct for each in found if each.defaultProduct), None)
    label = next((each.defaultLabel for each in found if each.defaultLabel), None)
    return User(email, found[0].accessLevel, product, label)


class Access:
    """The projects that a request names, looked up once each, with what the user may see of them."""

    def __init__(self, server: Server, user: User) -> None:
        self.server = server
        self.user = user
        self._known: dict[str, tuple[pstampProject | None, pstampAccessLevel | None]] = {}

    def look_up(self, name: str) -> tuple[pstampProject | None, pstampAccessLevel | None]:
        """Return a project and the rule of the user's level for it; names compare without regard to case."""
        key = name.lower()
        if key not in self._known:
            with self.server.store.reading():
                project = pstampProject.get_or_none(fn.LOWER(pstampProject.name) == key)
                rule = pstampAccessLevel.get_or_none(
                    (pstampAccessLevel.proj_id == (project.proj_id if project else 0))
                    & (pstampAccessLevel.accessLevel == self.user.level)
                )
            self._known[key] = project, rule
        return self._known[key]

    def fault(self, name: str) -> tuple[int, str] | None:
        """Return why the user can't have anything of a project, if so (checks 13 and 14)."""
        project, rule = self.look_up(name)
        if project is None or project.state != "enabled":
            return Fault.PSTAMP_UNKNOWN_PROJECT, "there is no project of this name"
        if rule is None or rule.mjd_max < 0:
            return Fault.PSTAMP_NOT_AUTHORIZED, f"access level {self.user.level} may not use it"
        return None

    def limit(self, name: str) -> float:
        """Return the last date (MJD, d) that the user may see of a project; 0 is no limit."""
        _, rule = self.look_up(name)
        return float(rule.mjd_max) if rule else 0.0


class _Projects(Access):
    """The same with their image databases."""

    def __init__(self, server: Server, user: User, last_try: bool, connections: ExitStack) -> None:
        super().__init__(server, user)
        self.last_try = last_try
        self._connections = connections
        self._connected: set[str] = set()
        self._silent: dict[str, RetryableError] = {}

    def select(self, project: pstampProject, selection: Selection) -> list[Image]:
        """Return the images that match, from a database that is not asked again once it did not answer."""
        if project.dbname in self._silent:
            raise self._silent[project.dbname]
        try:
            imagedb = self.server.imagedb(project)
            if project.dbname not in self._connected:
                self._connections.enter_context(imagedb.session())
                self._connected.add(project.dbname)
            return imagedb.select(selection)
        except RetryableError as error:
            self._silent[project.dbname] = error
            raise


def _row_columns(row: RequestRow) -> dict[str, Any]:
    return {
        "rownum": str(row.rownum), "jobType": row.job_type if row.job_type in JOB_TYPES else "none",
        "options": int(row.options), "params": json.dumps({"row": request_columns(row)}),
    }  # fmt: skip


def _plan_row(row: RequestRow, projects: _Projects, plan: Plan, outdir: Path) -> None:
    project, _ = projects.look_up(str(row.project))
    if project is None:
        raise Stale(f"project {row.project} has gone meanwhile")
    limit = projects.limit(str(row.project))
    columns = _row_columns(row)
    if row.job_type == "get_image":
        plan.answer(
            Fault.PSTAMP_NOT_IMPLEMENTED, f"row {row.rownum}: JOB_TYPE = get_image is not implemented", **columns
        )
        return
    selection = _selection(row, limit)
    try:
        images = projects.select(project, selection)
    except UserError as error:
        plan.answer(error.fault, f"row {row.rownum}: {error}", **columns)
        return
    except RetryableError as error:
        if not projects.last_try:
            raise
        # Where the database is, is nothing for users; it is in the history of the tries before.
        sentence = f"row {row.rownum}: the images of project {project.name} can't be looked up now; send it again later"
        plan.answer(Fault.PSTAMP_NOT_AVAILABLE, sentence, **columns, cause=error.fault)
        return
    for number, image in enumerate(images, 1):
        _plan_job(project, row, number, image, limit, columns, plan, outdir)


def _selection(row: RequestRow, limit: float) -> Selection:
    mjd_max = row.mjd_max
    # Only where images are chosen by place does the access limit narrow the choice; else each image is tested.
    if limit > 0 and row.img_type != "stack" and row.req_type in ("bycoord", "byskycell"):
        mjd_max = min(mjd_max, limit) if mjd_max else limit
    width, height = row.size
    return Selection(
        req_type=str(row.req_type), img_type=str(row.img_type), id=row.id, tess_id=row.tess_id,
        component=row.component, data_group=row.data_group, reqfilt=row.reqfilt, mjd_min=row.mjd_min, mjd_max=mjd_max,
        run_type=row.run_type, position=None if row.center_in_pixels else row.sky_center,
        size_deg=None if row.size_in_pixels or row.whole_file else (width / 3600.0, height / 3600.0),
        options=int(row.options),
    )  # fmt: skip


def _plan_job(
    project: pstampProject,
    row: RequestRow,
    number: int,
    image: Image,
    limit: float,
    columns: dict[str, Any],
    plan: Plan,
    outdir: Path,
) -> None:
    columns = {
        **columns, "exp_id": image.exp_id or 0, "image": _image_key(image),
        "outputBase": str(outdir / _base_name(row, number, image)),
        "params": json.dumps({"row": request_columns(row), **_job_params(project, row, image)}),
    }  # fmt: skip
    if limit > 0 and image.stage != "stack" and (image.mjd_obs is None or image.mjd_obs > limit):
        date = "has no date" if image.mjd_obs is None else f"is of MJD {image.mjd_obs:.3f}"
        plan.answer(
            Fault.PSTAMP_NOT_AUTHORIZED,
            f"row {row.rownum}: {image.exp_name or image.component} {date}; your access level may see nothing later "
            f"than MJD {limit:.3f}",
            **columns,
        )
        return
    if image.stage == "stack" and Option.SELECT_UNCONV in row.options and image.stage_id < project.oldest_unconv:
        plan.answer(
            Fault.PSTAMP_NOT_AVAILABLE,
            f"row {row.rownum}: stack {image.stage_id} has no unconvolved image (the first that has is "
            f"{project.oldest_unconv}); ask without OPTION_MASK bit 2048",
            **columns,
        )
        return
    verdict = verdict_on(project, image, wait=Option.NO_WAIT_FOR_UPDATE not in row.options)
    if verdict.fault:
        plan.answer(verdict.fault, f"row {row.rownum}: {image.stage} {image.stage_id} {image.component}: "
                    f"{verdict.reason}", **columns)  # fmt: skip
        return
    need = need_of(project, project.dbname, image, verdict) if verdict.waits else None
    state = JobState.PARSED if plan.preview else JobState.RUN
    plan.jobs.append(PlannedJob(_EMPTY_JOB | columns | {"state": state}, need))


def _image_key(image: Image) -> str:
    """Return what jobs of one image have in common."""
    return str(image.image) if image.hdu is None else f"{image.image}[{image.hdu}]"


def _base_name(row: RequestRow, number: int, image: Image) -> str:
    """Return ``<rownum>_<jobnum>_<f>_<image base name>``, fit for IMG_NAME with any suffix: short, plain ASCII."""
    letter = (image.filter or "X")[:1]
    name = image.image.name
    for ending in (".gz", ".fz", ".fits", ".fit"):
        name = name.removesuffix(ending)
    base = re.sub(r"[^A-Za-z0-9.+-]", "_", f"{row.rownum}_{number}_{letter}_{name}")
    return base[: NAME_LENGTH - LONGEST_SUFFIX]


def _job_params(project: pstampProject, row: RequestRow, image: Image) -> dict[str, Any]:
    """Return what the job and the results table need, so that neither asks the image database again."""
    center = (row.center_x, row.center_y) if row.center_in_pixels else row.sky_center
    return {
        "imagedb": project.dbname, "imageroot": project.imageroot, "files": image_files(image), "hdu": image.hdu,
        "stage": image.stage, "stage_id": image.stage_id, "component": image.component, "center": list(center),
        "center_in_pixels": row.center_in_pixels, "size": list(row.size), "size_in_pixels": row.size_in_pixels,
        "whole_file": row.whole_file,
        "observation": {
            "MJD_OBS": image.mjd_obs or 0.0, "RA_OBS": image.ra_obs or 0.0, "DEC_OBS": image.dec_obs or 0.0,
            "FILTER": image.filter or "0", "EXPTIME": image.exp_time or 0.0, "FPA_ID": image.exp_name or "0",
        },
    }  # fmt: skip


def _summary(plan: Plan) -> str:
    """Return what a plan leads to, in few words."""
    answers = Counter(job.columns["fault"] for job in plan.jobs if job.columns["state"] is JobState.STOP)
    waiting = sum(job.need is not None for job in plan.jobs)
    parts = {"to cut": len(plan.jobs) - waiting - answers.total(), "waiting for their image": waiting}
    parts |= {f"answered with code {fault}": count for fault, count in sorted(answers.items())}
    return "jobs: " + ", ".join(f"{count} {what}" for what, count in parts.items() if count)


def store_plan(server: Server, request: pstampRequest, plan: Plan) -> pstampRequest:
    """Write the whole plan and the new state, without what was there before; part of a unit of work.

    What was there are jobs that an operator added to a request not parsed yet, or that the original left half made.
    """
    args = server.args()
    delete_jobs(request)
    name = plan.name or f"ERROR.{moment(args.now):%Y%m%d%H%M%S}.{request.req_id}"
    product = plan.columns.get("outProduct") or request.outProduct or server.settings.product
    columns = {**plan.columns, "name": name, "outProduct": product}
    if columns.get("label"):
        columns["label"] = known_label(columns["label"])
    (parsed,) = fire([request], Event.PREVIEW if plan.preview else Event.PARSE, args, **columns)
    held = DependentState.HOLD if plan.preview else DependentState.NEW
    needs = {component_key(job.need): job.need for job in plan.jobs if job.need}
    lately = given_up_lately(server, args.now) if needs else {}
    # In order, so that two parsers do not wait for each other.
    numbers = {key: open_dependent(server, request, needs[key], held, args.now, lately) for key in sorted(needs)}
    jobs = [{**job.columns, "dep_id": numbers[component_key(job.need)] if job.need else 0} for job in plan.jobs]
    make_jobs(request, jobs, now=args.now, who=args.who)
    return parsed
