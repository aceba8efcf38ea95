"""Looking at the components that jobs wait for, and having them made again (`pstamp_checkdependent.pl`).

All dependents that are due are looked at together: some queries for each image database, however many they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from peewee import JOIN, IntegrityError

from pstamp_core.faults import Fault, LeaseLost, RetryableError, Stale, is_retryable
from pstamp_core.imagedb import Component, ImageDB, Key, Policy, Verdict, Waiter, classify, forget_failures, look
from pstamp_core.machines import Args, DependentState, Event, JobState, RequestState
from pstamp_core.machines.machine import DAY, MICROSECONDS
from pstamp_core.store import (
    Label,
    dependents_to_check,
    fire,
    locked_dependents,
    make,
    moment,
    priority,
    pstampDependent,
    pstampJob,
    pstampProject,
    pstampRequest,
    waiting_jobs,
)
from pstamp_core.tasks import logs
from pstamp_core.tasks.server import Server

UPDATE_LABEL = "ps_ud_"
"""What the label of the update server begins with (`pstampparse.pl`); the rest is the request's."""
_LABEL_LENGTH = 64

Outcome = tuple[pstampDependent, Verdict]


def check_dependents(server: Server, limit: int) -> int:
    """Claim and look at up to `limit` dependents; return how many need not be looked at again.

    A component that is there makes its dependent `full` and its jobs eligible; one that can't be had stops both with
    its code; any other is put into `update`, with what it is made of, and looked at again after a while. An image
    database that does not answer faults its own dependents alone.
    """
    by_database: dict[str, list[pstampDependent]] = {}
    for dependent in server.claim(dependents_to_check, limit):
        by_database.setdefault(dependent.imagedb, []).append(dependent)
    done = 0
    for some in by_database.values():
        try:
            done += _check(server, some)
        except Exception as error:
            for dependent in some:
                server.record(dependent, error)
    return done


def check_dependent(server: Server, dependent: pstampDependent) -> bool:
    """Look at the component of the claimed `dependent`; return whether it need not be looked at again.

    Raises
    ------
    RetryableError
        The image database does not answer.
    """
    return _check(server, [dependent]) > 0


def end_cool_down(server: Server, dependents: Iterable[pstampDependent]) -> None:
    """Give the components of `dependents`, and what these are made of, all their tries back, the first at once.

    Raises
    ------
    RetryableError
        An image database does not answer.
    """
    by_database: dict[str, list[Key]] = {}
    for dependent in dependents:
        by_database.setdefault(dependent.imagedb, []).append(_key(dependent))
    for dbname, keys in by_database.items():
        imagedb, policy = image_database(server, dbname)
        forget_failures(imagedb, keys, policy, server.store.now())


def close(dependents: Sequence[pstampDependent], args: Args, reason: str, cause: int = 0) -> None:
    """Close claimed dependents whose component can't be had, and stop their jobs; part of a unit of work.

    Parameters
    ----------
    dependents : sequence of pstampDependent
        Which.
    args : Args
        With the code.
    reason : str
        Why, for the user.
    cause : int
        The retryable code that led to it, if one did; they keep it.
    """
    if is_retryable(cause):
        failed = fire(dependents, Event.FAULT, replace(args, fault=cause), note=reason, reason=reason)
        closed = fire(failed, Event.GIVE_UP, args, note=reason)
    else:
        closed = fire(dependents, Event.FAULT, args, note=reason, reason=reason)
    stop_waiting_jobs(closed, args)


def stop_waiting_jobs(closed: Sequence[pstampDependent], args: Args) -> None:
    """Stop the open jobs of dependents that are closed, with their code, cause and reason; part of a unit of work.

    They were closed alike, so that the first tells of all.
    """
    for first in closed[:1]:
        args = replace(args, fault=first.fault, cause=first.cause)
        fire(waiting_jobs(closed), Event.GIVE_UP, args, note=first.reason, sentence=first.reason)


def _check(server: Server, dependents: Sequence[pstampDependent]) -> int:
    """Look at the components of claimed dependents of one image database; return how many are done with."""
    imagedb, policy = image_database(server, dependents[0].imagedb)
    with server.store.reading():
        waiters = _waiters(server, dependents)
        now = server.store.now()
    with imagedb.session():
        survey = look(imagedb, {_key(each): waiters[each.dep_id] for each in dependents}, policy, now)
    outcomes: list[Outcome] = []
    for dependent in dependents:
        key = _key(dependent)
        if key in survey.parts:
            outcomes.append((dependent, classify(survey.facts(key), no_wait=_impatience(server, dependent, now))))
        else:  # only a positive finding is final
            where = f"{dependent.stage} {dependent.stage_id} {dependent.component}: not in image database"
            server.record(dependent, RetryableError(f"{where} {dependent.imagedb}", Fault.PS_EXIT_PROG_ERROR))
    try:
        server.store.work(lambda: _fire(server, outcomes))
    except LeaseLost:  # one of them was taken over: each for itself
        for outcome in outcomes:
            with server.attempt(outcome[0]):
                server.store.work(lambda outcome=outcome: _fire(server, [outcome]))  # type: ignore[misc]
                _tell(server, [outcome], now)
    else:
        _tell(server, outcomes, now)
    return sum(not verdict.waits for _, verdict in outcomes)


def image_database(server: Server, dbname: str) -> tuple[ImageDB, Policy]:
    """Return an image database, and what its project and this site want of what is made again there.

    Raises
    ------
    RetryableError
        There is no such file, or no such address.
    """
    with server.store.reading():
        project = pstampProject.get_or_none(pstampProject.dbname == dbname)
    settings = server.settings
    policy = Policy(
        need_magic=bool(project and project.need_magic), oldest_diff=project.oldest_diff if project else 0,
        ceiling=settings.retry_ceiling, backoff=server.args().backoff,
        cooldown=int(settings.cooldown_seconds * MICROSECONDS),
    )  # fmt: skip
    return server.imagedb_at(dbname, project.imageroot if project else ""), policy


def _key(dependent: pstampDependent) -> Key:
    return dependent.stage, dependent.stage_id, dependent.component


def _waiters(server: Server, dependents: Sequence[pstampDependent]) -> dict[int, Waiter]:
    """Return who waits most urgently for each dependent, by the labels that the requests have now."""
    query: Any = (
        pstampJob.select(pstampJob.dep_id, priority(), pstampRequest.label)
        .join_from(pstampJob, pstampRequest, on=(pstampRequest.req_id == pstampJob.req_id))
        .join_from(pstampRequest, Label, JOIN.LEFT_OUTER, on=(Label.label == pstampRequest.label))
        .where(
            pstampJob.dep_id.in_([each.dep_id for each in dependents]), pstampJob.state == JobState.RUN,
            pstampRequest.state == RequestState.RUN, Label.active.is_null() | (Label.active == True),  # noqa: E712 (SQL)
        )
        .group_by(pstampJob.dep_id, pstampRequest.label, Label.priority)
    )  # fmt: skip
    found = {each.dep_id: Waiter(-1, each.rlabel or UPDATE_LABEL + server.settings.label) for each in dependents}
    for dep_id, urgency, label in query.tuples():
        waiter = Waiter(urgency, (UPDATE_LABEL + (label or server.settings.label))[:_LABEL_LENGTH])
        found[dep_id] = max(found[dep_id], waiter)
    return found


def wait_ends(server: Server, dependent: pstampDependent) -> int | None:
    """Return when an open dependent is given up (25) whatever keeps it: microseconds since 1970; None: never."""
    days = server.settings.longest_wait_days
    return dependent.changed_at + int(days * DAY) if days and dependent.state is DependentState.NEW else None


def _impatience(server: Server, dependent: pstampDependent, now: int) -> str:
    end = wait_ends(server, dependent)
    return f"not there after {server.settings.longest_wait_days:g} days" if end is not None and now > end else ""


def _fire(server: Server, outcomes: Iterable[Outcome]) -> None:
    """Store what the looks found out, together what is alike; part of a unit of work."""
    alike: dict[Verdict | None, list[pstampDependent]] = {}
    for dependent, verdict in outcomes:
        is_known = verdict.waits and verdict.reason == dependent.reason
        alike.setdefault(None if is_known else verdict, []).append(dependent)
    for found, some in alike.items():
        args = server.args(fault=found.fault if found else 0)
        if found is None:
            fire(some, Event.RELEASE, args)
        elif found.fault:
            close(some, args, found.reason, found.cause)
        elif found.component is Component.USABLE:
            fire(some, Event.SATISFY, args, reason="")
        else:
            fire(some, Event.RELEASE, args, reason=found.reason)


def _tell(server: Server, outcomes: Iterable[Outcome], now: int) -> None:
    """Write to the logs what is new; a look every few seconds would fill them."""
    for dependent, verdict in outcomes:
        if verdict.fault:
            logs.end(server, dependent, f"stop, {verdict.fault}: {verdict.reason}", now)
        elif verdict.component is Component.USABLE:
            logs.end(server, dependent, "full: the image is there", now)
        elif dependent.attempt == 1 or verdict.reason != dependent.reason:
            logs.end(server, dependent, f"waits: {verdict.reason}", now)


def open_dependent(
    server: Server,
    request: pstampRequest,
    need: Mapping[str, Any],
    state: DependentState,
    now: int,
    lately: Mapping[str, pstampDependent] | None = None,
) -> int:
    """Return the number of the open dependent of a component that a job of `request` needs, as `find_or_make`."""
    columns = {**need, "outdir": str(logs.dependent_logs(server)), "rlabel": f"{UPDATE_LABEL}{request.label}"}
    args = replace(server.args(), now=now)
    return find_or_make(server, columns, state, args, f"request {request.req_id} needs it", lately).id_


def find_or_make(
    server: Server,
    need: Mapping[str, Any],
    state: DependentState,
    args: Args,
    note: str,
    lately: Mapping[str, pstampDependent] | None = None,
) -> pstampDependent:
    """Return the open dependent of a component, made if there is none; part of a unit of work.

    All who need a component share its dependent.

    Parameters
    ----------
    server : Server
        The server.
    need : mapping
        The columns of a new one: its component, ``imagedb stage stage_id component``, the ``reason`` why it is needed,
        and others.
    state : DependentState
        Of a new one; one that is held is let go if it is `NEW`.
    args, note : Args, str
        Who needs it, when and why.
    lately : mapping, optional
        As of `cool_down`.

    Raises
    ------
    Stale
        Somebody else made it in the same moment.
    """
    key = component_key(need)
    for dependent in locked_dependents(pstampDependent.open_key == key):
        if dependent.state is DependentState.HOLD and state is DependentState.NEW:
            (dependent,) = fire([dependent], Event.UNHOLD, args, note=note)
        return dependent
    columns = {**need, **cool_down(server, need, args.now, lately)}
    try:
        return make(pstampDependent, now=args.now, who=args.who, note=note, state=state, open_key=key, **columns)
    except IntegrityError:
        raise Stale(f"dependent {key}: made by somebody else meanwhile") from None


def component_key(values: Mapping[str, Any]) -> str:
    """Return what names a component: the `open_key` of a dependent that waits for it."""
    return "|".join(str(values[name]) for name in ("imagedb", "stage", "stage_id", "component"))


def given_up_lately(server: Server, now: int) -> dict[str, pstampDependent]:
    """Return the dependents that were given up so short a while ago that their components are left alone, by component.

    One that was found gone (26) was no failure of ours; that it is needed again means that its pixels may be had now.
    """
    since = now - int(server.settings.cooldown_seconds * MICROSECONDS)
    given_up = (pstampDependent.state == DependentState.STOP) & (pstampDependent.fault != Fault.PSTAMP_GONE)
    rows = pstampDependent.select().where(given_up & (pstampDependent.changed_at > since))
    return {component_key(row.__data__): row for row in rows.order_by(pstampDependent.dep_id)}


def cool_down(
    server: Server, need: Mapping[str, Any], now: int, lately: Mapping[str, pstampDependent] | None = None
) -> dict[str, Any]:
    """Return the columns by which the new dependent of a component waits, if the last one was given up lately.

    Parameters
    ----------
    server : Server
        The server.
    need : mapping
        The columns of the new one: its component, and the reason why it is needed.
    now : int
        Microseconds since 1970 UTC.
    lately : mapping, optional
        What `given_up_lately` returned, for who has many.
    """
    last = (given_up_lately(server, now) if lately is None else lately).get(component_key(need))
    if last is None:
        return {}
    same = (getattr(pstampDependent, name) == need[name] for name in ("stage_id", "component", "stage", "imagedb"))
    if pstampDependent.select().where(pstampDependent.dep_id > last.dep_id, *same).exists():
        return {}  # it was there since, or gone
    until = last.changed_at + int(server.settings.cooldown_seconds * MICROSECONDS)
    reason = (
        f"{need['reason']}; dependent {last.dep_id} for it was given up at {moment(last.changed_at):%H:%M:%S} UTC, so "
        f"that it is tried again after {moment(until):%Y-%m-%d %H:%M:%S} UTC"
    )
    return {"retry_at": until, "reason": reason}
