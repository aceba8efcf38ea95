"""Why something does not move: the chain from a request to the thing that blocks it, and what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from peewee import JOIN, Case, fn

from pstamp_core.database import redact
from pstamp_core.faults import PstampError, fault_sentence
from pstamp_core.imagedb import Component, Effort, Key, Lease, Survey, lease_holders, survey_of
from pstamp_core.imagedb import Link as Piece
from pstamp_core.imagedb.components import MADE_AGAIN
from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.machines.dependent import SHARED
from pstamp_core.machines.job import OPEN
from pstamp_core.machines.request import FINISHABLE
from pstamp_core.store import (
    MACHINES,
    Label,
    Worked,
    moment,
    pstampDependent,
    pstampJob,
    pstampRequest,
    requests_to_clean,
    requests_to_finish,
    requests_to_parse,
)
from pstamp_core.tasks.dependents import image_database, wait_ends
from pstamp_core.tasks.report import last_note, next_try, trouble
from pstamp_core.tasks.server import Server, find
from pstamp_core.tasks.update import programs

RUN = "pstamp run"
REASONS = 5
"""Chains that are shown of one request, those of the most jobs first."""


@dataclass(frozen=True)
class Link:
    """One thing in a chain.

    Attributes
    ----------
    what : str
        ``request 3 (name)``, ``job 12``, ``dependent 4 (warp 11 cell)``, ``component warp 11 cell``, ``chip 5 XY31``.
    state : str
        Its state.
    reason : str
        Why it is so.
    since : datetime or None
        When it came to be so; of an image when it was put into `update`, if it is there.
    tries : int
        How often it was tried.
    faults : int
        How many of these failed.
    next_try : datetime or None
        When it is looked at again, if that is not now.
    ends : datetime or None
        Of a dependent: when it is given up, whatever keeps it.
    holder : str
        Who works on it.
    depth : int
        Of what an image is made of: how far below the image that is waited for. 0 for all else.
    jobs : int
        Of an image, and of what it is made of: how many open jobs wait for it.
    requests : list of int
        Their requests.
    """

    what: str
    state: str
    reason: str
    since: datetime | None = None
    tries: int = 0
    faults: int = 0
    next_try: datetime | None = None
    ends: datetime | None = None
    holder: str = ""
    depth: int = 0
    jobs: int = 0
    requests: list[int] = field(default_factory=list)


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
    """Return why a request, job or dependent is where it is, down to the image and what that has to be made of.

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


@dataclass(frozen=True)
class _Images:
    """What there is to say of the components of an image database that are waited for, and of their inputs.

    Attributes
    ----------
    survey : Survey
    waiters : mapping
        How many jobs of each request wait for each of them.
    leases : mapping
        Who makes them.
    """

    survey: Survey
    waiters: Mapping[Key, Counter[int]]
    leases: Mapping[Key, Lease]


class _Why:
    """The answers, as of one moment."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.now = server.store.now()
        self._surveys: dict[str, _Images] = {}

    def link(self, row: Worked, reason: str, **columns: Any) -> Link:
        ends = wait_ends(self.server, row) if isinstance(row, pstampDependent) else None
        return Link(
            what=_title(row), state=row.state.value, reason=reason, since=moment(row.__data__["changed_at"]),
            tries=row.attempt, faults=row.fault_count, next_try=next_try(row, self.now),
            ends=None if ends is None else moment(ends), **columns,
        )  # fmt: skip

    def own(self, row: Worked, sentence: str = "") -> Links | None:
        """Return why a row of itself does not move, if so: a lease, a fault, a time to wait for."""
        name = f"{MACHINES[type(row)].name} {row.id_}"
        if row.lease_owner:
            lost = row.lease_until < self.now
            helps = f"{RUN} (counts it as lost, and tries again)" if lost else "nothing: wait for it"
            reason = self._work_of(row.lease_owner, row.lease_until)
            return [self.link(row, reason, holder=row.lease_owner)], helps
        if row.fault:
            reason = f"{trouble(row)} ({sentence})" if sentence else trouble(row)
            return [self.link(row, reason)], self._help_for_fault(row, name)
        if row.retry_at > self.now:
            return [self.link(row, "looked at again later")], f"nothing: wait for it, or mend the cause and: {RUN}"
        return None

    def _work_of(self, owner: str, until: int, since: str = "") -> str:
        """Return what the holder of a lease does, or did."""
        end = f"{moment(until):%Y-%m-%d %H:%M:%S}"
        if until < self.now:
            return f"{owner} worked on it{since} and was lost: its lease ran out at {end}"
        most = "at most" if since else "or longer"  # a row's lease is prolonged, that of a component is not
        return f"{owner} works on it{since}, until {end} {most}"

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
            requests = self._requests(dependent)
            if requests and all(each.state is RequestState.PARSED for each in requests):
                return [self.link(dependent, "held for a preview")], f"pstamp accept {requests[0].req_id}"
            note = last_note(dependent)
            reason = f"held by an operator{f' ({note})' if note else ''}"
            return [self.link(dependent, reason)], f"pstamp release {dependent.dep_id}"
        if (dependent.lease_owner or dependent.fault) and (own := self.own(dependent, dependent.reason)):
            links, helps = own
            return [*links, *self.component(dependent)[0]], helps
        components, helps = self.component(dependent)
        reason = dependent.reason or "not looked at yet"
        if dependent.attempt and reason != components[0].reason:
            reason = f"at the last look: {reason}"
        requests = [each for each in self._requests(dependent) if each.state is RequestState.RUN]
        if not requests:
            helps = "nothing: no job waits for it"
        elif not any(map(_is_active, requests)):
            helps = _wake(requests[0])
        return [self.link(dependent, reason), *components], helps

    def _requests(self, dependent: pstampDependent) -> list[pstampRequest]:
        """Return the requests of which a job waits for a dependent."""
        mine = (pstampJob.dep_id == dependent.dep_id) & pstampJob.state.in_(OPEN)
        numbers = pstampJob.select(pstampJob.req_id).where(mine)
        return list(pstampRequest.select().where(pstampRequest.req_id.in_(numbers)).order_by(pstampRequest.req_id))

    def component(self, dependent: pstampDependent) -> Links:
        """Return the component as it is now in the image database, and what of its inputs is not there."""
        key = _key(dependent)
        what = Link(f"component {_name(key)}", "unknown", "")
        stop = f"to wait no longer: pstamp stop dependent {dependent.dep_id}"
        try:
            images = self._survey(dependent)
        except PstampError as error:
            return [replace(what, reason=str(error))], f"mend the image database; {stop}"
        survey = images.survey
        if key not in survey.parts:
            reason = f"not in image database {redact(dependent.imagedb)}"
            return [replace(what, reason=reason)], f"mend the image database; {stop}"
        links: list[Link] = []
        lowest: tuple[Key, int] = key, 0  # what is to come first: nothing that it is made of is missing
        for piece in survey.chain(key):
            if piece.depth and piece.verdict.component is Component.USABLE:
                continue
            links += self._pieces(piece, images)
            if piece.depth > lowest[1]:
                lowest = piece.key, piece.depth
        if not survey.verdict(key).waits:
            if dependent.retry_at <= self.now:
                return links, f"{RUN} (looks at it, and goes on)"
            cools = f"; to end the cool-down: pstamp revert dependent {dependent.dep_id}"
            given_up = survey.verdict(key).cause
            return links, f"nothing: it is looked at again by itself{cools if given_up else ''}"
        return links, f"{self._help_for_image(dependent, images, *lowest)}; {stop}"

    def _survey(self, dependent: pstampDependent) -> _Images:
        """Return what can be said of all components that are waited for where this one is, and of their inputs."""
        dbname = dependent.imagedb
        if dbname not in self._surveys or _key(dependent) not in self._surveys[dbname].waiters:
            imagedb, policy = image_database(self.server, dbname)
            jobs: Any = (
                pstampDependent.select(
                    pstampDependent.stage, pstampDependent.stage_id, pstampDependent.component, pstampJob.req_id,
                    fn.COUNT(pstampJob.job_id),
                )
                .join(pstampJob, JOIN.LEFT_OUTER,
                      on=(pstampJob.dep_id == pstampDependent.dep_id) & pstampJob.state.in_(OPEN))
                .where(pstampDependent.imagedb == dbname, pstampDependent.state.in_(SHARED)
                       | (pstampDependent.dep_id == dependent.dep_id))
                .group_by(pstampDependent.dep_id, pstampJob.req_id)
            )  # fmt: skip
            wanted: dict[Key, Counter[int]] = {}
            for *key, req_id, count in jobs.tuples():
                wanted.setdefault((key[0], key[1], key[2]), Counter())[req_id] += count
            survey = survey_of(imagedb, wanted, policy, self.now)
            waiters: dict[Key, Counter[int]] = {}
            for key, counts in wanted.items():
                for each in {link.key for link in survey.chain(key)}:
                    waiters.setdefault(each, Counter()).update(counts)
            self._surveys[dbname] = _Images(survey, waiters, lease_holders(imagedb))
        return self._surveys[dbname]

    def _pieces(self, piece: Piece, images: _Images) -> Iterator[Link]:
        """Yield a component and, if streaks are still to be taken from it, the run that does so."""
        part, jobs, lease = images.survey.parts.get(piece.key), images.waiters[piece.key], images.leases.get(piece.key)
        reason = piece.verdict.reason
        if lease:
            reason += f"; {self._work_of(lease.owner, lease.until, f' since {moment(lease.since):%Y-%m-%d %H:%M:%S}')}"
        states = [f"run {piece.run_state}"] if part else ["missing"]
        if piece.key[0] in MADE_AGAIN and part:
            states.append(f"pixels {piece.data_state}")
        states += [f"{name} {value}" for name in ("fault", "quality") if (value := getattr(piece, name))]
        name = _name(piece.key) if piece.depth else f"component {_name(piece.key)}"
        requests = sorted(number for number, count in jobs.items() if count)
        yield Link(
            name, ", ".join(states), reason, depth=piece.depth, jobs=jobs.total(), requests=requests,
            holder=lease.owner if lease else "",
            **self._efforts(part.effort if part else Effort(), there=piece.data_state == "full"),
        )  # fmt: skip
        if part and part.destreak and part.destreak_key and part.destreak["run_state"] and part.row["magicked"] <= 0:
            row = part.destreak
            states = [f"run {row['run_state']}", f"file {row['file_state'] or 'none yet'}"]
            states += [f"fault {row['fault']}"] if row["fault"] else []
            efforts = self._efforts(part.destreak_effort)
            yield Link(_name(part.destreak_key), ", ".join(states), "", depth=piece.depth + 1, **efforts)

    def _efforts(self, effort: Effort, *, there: bool = False) -> dict[str, Any]:
        """Return what a link says of the work on a component: failed tries, and the one that goes on or succeeded."""
        if effort.made_at and not there:  # it was cleaned since
            return {}
        at_work = effort.queued_at > 0 and not effort.made_at
        return {
            "since": moment(effort.queued_at) if at_work else None,
            "tries": effort.attempts + int(effort.queued_at > 0 and not effort.fault), "faults": effort.attempts,
            "next_try": moment(effort.retry_at) if effort.retry_at > self.now else None,
        }  # fmt: skip

    def _help_for_image(self, dependent: pstampDependent, images: _Images, key: Key, depth: int) -> str:
        """Return what brings the lowest piece of a chain forward."""
        survey, lease = images.survey, images.leases.get(key)
        part, found, name = survey.parts[key], survey.verdict(key, as_input=depth > 0).component, _name(key)
        if found is Component.IN_PROGRESS:
            if lease and lease.until >= self.now:
                return f"nothing: {name} is being made"
            kind = "destreak" if part.row["data_state"] == "full" else key[0]
            making = "destreaks" if kind == "destreak" else "makes"
            ours = kind in programs(self.server.settings)
            return f"{RUN} ({making} {name})" if ours else f"another update server {making} {name}"
        if found is Component.QUEUE:
            destreaks = part.row["data_state"] == "full" and part.row["run_state"] != "goto_cleaned"
            where = "up for destreaking" if destreaks else "into update"
            if dependent.retry_at > self.now:
                return f"nothing: {name} is put {where} when the dependent is looked at again"
            return f"{RUN} (puts {name} {where})"
        if max(part.effort.retry_at, part.destreak_effort.retry_at) > self.now:
            return f"nothing: {name} is tried again by itself"
        return f"an operator of the image database must look at {name}"


def _key(dependent: pstampDependent) -> Key:
    return dependent.stage, dependent.stage_id, dependent.component


def _name(key: Key) -> str:
    return " ".join(map(str, key)).strip()


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
    return RUN if _is_active(request) else f"labeltool -updatelabel -label {request.label} -active"


def _after_job(request: pstampRequest) -> str:
    if request.state is RequestState.STOP:
        return f"pstamp results {request.req_id} (shows them)"
    return f"pstamp why request {request.req_id} (what the request waits for)"
