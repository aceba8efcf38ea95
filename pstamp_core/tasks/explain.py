"""Why something does not move: the chain from a request to the thing that blocks it, and what would help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from peewee import JOIN, Case, fn

from pstamp_core.faults import PstampError, fault_sentence
from pstamp_core.imagedb import Component
from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.machines.job import OPEN
from pstamp_core.machines.request import FINISHABLE
from pstamp_core.store import (
    MACHINES,
    Label,
    Worked,
    moment,
    pstampDependent,
    pstampJob,
    pstampProject,
    pstampRequest,
    requests_to_clean,
    requests_to_finish,
    requests_to_parse,
)
from pstamp_core.tasks.report import last_note, next_try, trouble
from pstamp_core.tasks.server import Server, find, verdict_on

RUN = "pstamp run"
REASONS = 5
"""Chains that are shown of one request, those of the most jobs first."""


@dataclass(frozen=True)
class Link:
    """One thing in a chain.

    Attributes
    ----------
    what : str
        ``request 3 (name)``, ``job 12``, ``dependent 4 (warp 11 cell)``, ``component warp 11 cell``.
    state : str
        Its state.
    reason : str
        Why it is so.
    since : datetime or None
        When it came to be so; nobody knows of a component.
    tries : int
        How often it was tried.
    faults : int
        How many of these failed.
    next_try : datetime or None
        When it is looked at again, if that is not now.
    holder : str
        Who works on it.
    """

    what: str
    state: str
    reason: str
    since: datetime | None = None
    tries: int = 0
    faults: int = 0
    next_try: datetime | None = None
    holder: str = ""


@dataclass(frozen=True)
class Chain:
    """What blocks some jobs, from the first of them down to the last cause; `helps` is what to do or to type."""

    jobs: int
    links: list[Link]
    helps: str


@dataclass(frozen=True)
class JobCount:
    """Jobs of a request in one state with one fault."""

    state: str
    fault: int
    sentence: str
    count: int


@dataclass(frozen=True)
class Explanation:
    """Why a request, job or dependent is where it is.

    Attributes
    ----------
    at : datetime
        Now, by the database's clock.
    links : list of Link
        The chain that leads to it, and on to what blocks it.
    helps : str
        What to do or to type, if that is the same for all `blocked`.
    counts : list of JobCount
        The jobs of a request.
    blocked : list of Chain
        What blocks its open jobs, by reason, that of the most jobs first.
    more : int
        How many open jobs wait for other reasons than these.
    """

    at: datetime
    links: list[Link]
    helps: str
    counts: list[JobCount] = field(default_factory=list)
    blocked: list[Chain] = field(default_factory=list)
    more: int = 0


def explain(server: Server, machine: str, number: int) -> Explanation:
    """Return why a request, job or dependent is where it is, down to the state of the component in the image database.

    Raises
    ------
    UserError
        There is no such row.
    """
    with server.store.reading():
        why = _Why(server)
        row: Any = find(machine, number)
        if isinstance(row, pstampRequest):
            return why.request(row)
        if isinstance(row, pstampJob):
            request = pstampRequest.get_by_id(row.request_id)
            links, helps = why.job(row, request)
            return Explanation(moment(why.now), [why.link(request, ""), *links], helps)
        links, helps = why.dependent(row)
        return Explanation(moment(why.now), [*why.waiting(row), *links], helps)


Links = tuple[list[Link], str]
"""A chain, and what helps."""


class _Why:
    """The answers, as of one moment."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.now = server.store.now()

    def link(self, row: Worked, reason: str, **columns: Any) -> Link:
        return Link(
            what=_title(row), state=row.state.value, reason=reason, since=moment(row.__data__["changed_at"]),
            tries=row.attempt, faults=row.fault_count, next_try=next_try(row, self.now), **columns,
        )  # fmt: skip

    def own(self, row: Worked, sentence: str = "") -> Links | None:
        """Return why a row of itself does not move, if so: a lease, a fault, a time to wait for."""
        name = f"{MACHINES[type(row)].name} {row.id_}"
        if row.lease_owner:
            until = f"{moment(row.lease_until):%Y-%m-%d %H:%M:%S}"
            if row.lease_until < self.now:
                reason = f"{row.lease_owner} worked on it and was lost: its lease ran out at {until}"
                helps = f"{RUN} (counts it as lost, and tries again)"
            else:
                reason, helps = f"{row.lease_owner} works on it, until {until} or longer", "nothing: wait for it"
            return [self.link(row, reason, holder=row.lease_owner)], helps
        if row.fault:
            reason = f"{trouble(row)} ({sentence})" if sentence else trouble(row)
            return [self.link(row, reason)], self._help_for_fault(row, name)
        if row.retry_at > self.now:
            return [self.link(row, "looked at again later")], f"nothing: wait for it, or mend the cause and: {RUN}"
        return None

    def _help_for_fault(self, row: Worked, name: str) -> str:
        if row.fault_count < self.server.settings.retry_ceiling:
            return f"mend the cause; to try again at once: pstamp revert {name}"
        if row.state in MACHINES[type(row)].sources(Event.GIVE_UP):
            return f"mend the cause and: pstamp revert {name} (it has no tries left: the next {RUN} gives it up)"
        return f"mend the cause and: pstamp revert {name} (it has no tries left, and waits for this)"

    # -- a request

    def request(self, request: pstampRequest) -> Explanation:
        counts = _count_jobs(request)
        still_open = sum(each.count for each in counts if each.state in _OPEN)
        links, helps = self._request(request, still_open)
        blocked, more = [], 0
        if still_open and request.state is RequestState.RUN and not request.fault:
            blocked = list(self._blocked(request))
            more = max(0, still_open - sum(chain.jobs for chain in blocked))
        return Explanation(moment(self.now), links, helps, counts, blocked, more)

    def _request(self, request: pstampRequest, still_open: int) -> Links:
        name = f"request {request.req_id}"
        ended = {
            RequestState.STOP: ("its results are published", f"pstamp results {request.req_id} (shows them)"),
            RequestState.CLEANED: ("its files were deleted; its rows and history stay", f"pstamp history {name}"),
            RequestState.PARSED: ("a preview, which waits for the user", f"pstamp accept {request.req_id}"),
        }
        if request.state in ended:
            reason, helps = ended[request.state]
            return [self.link(request, reason)], helps
        if own := self.own(request, last_note(request)):
            return own
        if request.state in FINISHABLE and still_open:
            return [self.link(request, f"waits for {_number(still_open, 'open job')}")], ""
        return self._queued(request)

    def _queued(self, request: pstampRequest) -> Links:
        todo, queue = {
            RequestState.NEW: ("parsed", requests_to_parse),
            RequestState.RUN: ("finished: no job is open", requests_to_finish),
            RequestState.CANCEL: ("finished: no job is open", requests_to_finish),
            RequestState.GOTO_CLEANED: ("deleted from disk", requests_to_clean),
        }[request.state]
        numbers = [number for (number,) in queue(self.now).select(pstampRequest.req_id).tuples()]
        if request.req_id in numbers:
            place = f"number {numbers.index(request.req_id) + 1} of {len(numbers)} in the queue"
            return [self.link(request, f"to be {todo}; {place}")], RUN
        return [self.link(request, f"to be {todo}"), *self._label(request)], _wake(request)

    def _label(self, request: pstampRequest) -> list[Link]:
        if _is_active(request):
            return []
        return [Link(f"label {request.label}", "inactive", "it hands out no work")]

    def _blocked(self, request: pstampRequest) -> Iterator[Chain]:
        """Yield the chain of the first job for each reason why open jobs wait."""
        waits = pstampDependent.state != DependentState.FULL
        of_dependent = (pstampDependent.state, pstampDependent.fault, pstampDependent.reason)
        alike = (
            pstampJob.fault, pstampJob.lease_owner, pstampJob.retry_at > self.now,
            *(Case(None, [(waits, column)]) for column in of_dependent),
        )  # fmt: skip
        number: Any = fn.COUNT(pstampJob.job_id)
        groups: Any = (
            pstampJob.select(number, fn.MIN(pstampJob.job_id))
            .join(pstampDependent, JOIN.LEFT_OUTER, on=(pstampDependent.dep_id == pstampJob.dep_id))
            .where((pstampJob.req_id == request.req_id) & pstampJob.state.in_(OPEN))
            .group_by(*alike)
            .order_by(number.desc(), fn.MIN(pstampJob.job_id))
            .limit(REASONS)
        )
        for count, first in groups.tuples():
            links, helps = self.job(pstampJob.get_by_id(first), request)
            yield Chain(count, links, helps)

    # -- a job

    def job(self, job: pstampJob, request: pstampRequest) -> Links:
        if job.state not in OPEN:
            meaning = job.sentence or fault_sentence(job.fault)
            reason = f"{job.fault}: {meaning}" if job.fault else meaning
            return [self.link(job, reason)], _after_job(request)
        if own := self.own(job, job.sentence):
            return own
        if request.state is not RequestState.RUN or request.fault:
            links, helps = self._request(request, 1)
            return [self.link(job, f"its request is {request.state.value}, fault {request.fault}"), *links], helps
        if label := self._label(request):
            return [self.link(job, "waits for its label"), *label], _wake(request)
        if job.dep_id:
            dependent = pstampDependent.get_by_id(job.dep_id)
            if dependent.state is not DependentState.FULL:
                links, helps = self.dependent(dependent)
                return [self.link(job, f"waits for an image: dependent {job.dep_id}"), *links], helps
        return [self.link(job, "ready: a worker takes it in its turn")], RUN

    # -- a dependent, and its component

    def waiting(self, dependent: pstampDependent) -> list[Link]:
        """Return the first request that waits for a dependent, with how many others do."""
        mine = (pstampJob.dep_id == dependent.dep_id) & pstampJob.state.in_(OPEN)
        jobs = pstampJob.select(pstampJob.req_id, fn.COUNT(pstampJob.job_id)).where(mine).group_by(pstampJob.req_id)
        found: list[Any] = list(jobs.order_by(pstampJob.req_id).tuples())
        if not found:
            return []
        jobs_of = f"{_number(sum(each for _, each in found), 'open job')} of {_number(len(found), 'request')}"
        return [self.link(pstampRequest.get_by_id(found[0][0]), f"the first that waits: {jobs_of}")]

    def dependent(self, dependent: pstampDependent) -> Links:
        if dependent.state is DependentState.FULL:
            return [self.link(dependent, "its image is there")], RUN
        if dependent.state is DependentState.STOP:
            again = "the next request for the image starts anew"
            return [self.link(dependent, f"{dependent.fault}: {dependent.reason}")], f"nothing: {again}"
        if dependent.state is DependentState.HOLD:
            note = last_note(dependent)
            reason = f"held by an operator, or for a preview{f' ({note})' if note else ''}"
            return [self.link(dependent, reason)], f"pstamp release {dependent.dep_id}"
        if (dependent.lease_owner or dependent.fault) and (own := self.own(dependent, dependent.reason)):
            links, helps = own
            return [*links, self.component(dependent)[0]], helps
        component, helps = self.component(dependent)
        return [self.link(dependent, dependent.reason or "not looked at yet"), component], helps

    def component(self, dependent: pstampDependent) -> tuple[Link, str]:
        """Return the component as it is now in the image database."""
        where = f"{dependent.stage} {dependent.stage_id} {dependent.component}"
        what = Link(f"component {where}", "unknown", "")
        stop = f"to wait no longer: pstamp stop dependent {dependent.dep_id}"
        project = pstampProject.get_or_none(pstampProject.dbname == dependent.imagedb)
        root = project.imageroot if project else ""
        try:
            image = self.server.imagedb_at(dependent.imagedb, root).component(
                dependent.stage, dependent.stage_id, dependent.component
            )
        except PstampError as error:
            return replace(what, reason=str(error)), f"mend the image database; {stop}"
        if image is None:
            reason = f"not in image database {dependent.imagedb}"
            return replace(what, reason=reason), f"mend the image database; {stop}"
        verdict = verdict_on(project, image)
        state = f"run {image.run_state}, pixels {image.data_state}"
        marks = [f"{name} {value}" for name, value in (("fault", image.fault), ("quality", image.quality)) if value]
        link = replace(what, state=", ".join([state, *marks]), reason=verdict.reason)
        if not verdict.waits:
            return link, f"{RUN} (looks at it, and goes on)"
        making = "it is being made again" if verdict.component is Component.IN_PROGRESS else \
            "the image database's own update processing makes it again"  # fmt: skip
        return link, f"{making}; {stop}"


def _number(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


_OPEN = [state.value for state in OPEN]


def _title(row: Worked) -> str:
    if isinstance(row, pstampRequest):
        return f"request {row.req_id} ({row.name or 'no name yet'})"
    if isinstance(row, pstampDependent):
        return f"dependent {row.dep_id} ({row.stage} {row.stage_id} {row.component})"
    return f"job {row.id_}"


def _count_jobs(request: pstampRequest) -> list[JobCount]:
    columns = pstampJob.state, pstampJob.fault, fn.COUNT(pstampJob.job_id)
    mine = pstampJob.select(*columns).where(pstampJob.req_id == request.req_id).group_by(*columns[:2])
    order = list(JobState)
    found: list[Any] = sorted(mine.tuples(), key=lambda row: (order.index(row[0]), row[1]))
    return [
        JobCount(state.value, fault, fault_sentence(fault) if fault else "", count) for state, fault, count in found
    ]


def _is_active(request: pstampRequest) -> bool:
    label = Label.get_or_none(Label.label == request.label)
    return label is None or label.active is not False


def _wake(request: pstampRequest) -> str:
    return RUN if _is_active(request) else f"labeltool -updatelabel -label {request.label} -set_active"


def _after_job(request: pstampRequest) -> str:
    if request.state is RequestState.STOP:
        return f"pstamp results {request.req_id} (shows them)"
    return f"pstamp why request {request.req_id} (what the request waits for)"
