"""`pstamptool -addreq -updatereq -revertreq`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from peewee import IntegrityError, chunked

from pstamp_core.faults import PstampError, is_final
from pstamp_core.machines import Args, Event, JobState, RequestState
from pstamp_core.store import delete_jobs, fire, make, moment, open_jobs, pstampJob, pstampRequest
from pstamp_core.tasks import operate
from pstamp_core.tasks.retry import answer_unparsed
from pstamp_core.tasks.server import Server, known_label
from pstamp_core.tasks.tool.filters import Compare, Filter, values_of, wrong_usage
from pstamp_core.tasks.tool.steps import (
    PORTION,
    claimed,
    due,
    goal,
    must_lead_to,
    refusal,
    reread,
    select,
    selected,
    who,
)

_FILTERS = (
    Filter("req_id", pstampRequest.req_id),
    Filter("fault", pstampRequest.fault),
    Filter("state", pstampRequest.state),
    Filter("label", pstampRequest.label, Compare.LIKE),
)
_MORE_FILTERS = (
    Filter("req_id_max", pstampRequest.req_id, Compare.AT_MOST),
    Filter("reqType", pstampRequest.reqType),
    Filter("name", pstampRequest.name, Compare.LIKE),
    Filter("username", pstampRequest.username),
    Filter("timestamp_begin", pstampRequest.timestamp, Compare.AT_LEAST),
    Filter("timestamp_end", pstampRequest.timestamp, Compare.AT_MOST),
)
_COLUMNS = {
    f"set_{name}": pstampRequest._meta.fields[name]
    for name in ("label", "outProduct", "outdir", "uri", "name", "username", "reqType")
}


def addreq(server: Server, *, ds_id: int = 0, proj_id: int = 0, **options: Any) -> int:
    """Register a new request; return its number.

    Options: uri, name, label, username, ds_id, proj_id.

    Raises
    ------
    PstampError
        Fault 1: the name is in use. Fault 3: a text is too long, or the uri is empty.
    """
    values = values_of(options, {name: pstampRequest._meta.fields[name] for name in options})

    def work() -> int:
        now = server.store.now()
        columns = {**values, "ds_id": ds_id, "proj_id": proj_id, "registered": moment(now), "timestamp": moment(now)}
        try:
            request = make(pstampRequest, now=now, who=who(server), note="-addreq", **_labelled(columns))
        except IntegrityError:
            raise _name_in_use(values["name"]) from None
        return request.id_

    return server.store.work(work)


def updatereq(server: Server, **options: Any) -> None:
    """Change requests: states and faults by the events that lead there, other columns as they are given.

    Options to select by: req_id, req_id_max, fault, state, reqType, name, username, label, timestamp_begin,
    timestamp_end. To change: set_state, set_fault, clearfault, and set_ with label, outProduct, outdir, uri, name,
    username, reqType. Whatever changes, `timestamp` is now.

    Raises
    ------
    PstampError
        Fault 3: nothing to select by, or a fault to be set and cleared. Fault 1: nothing to change, or the name is in
        use, or would be that of several.
    IllegalTransition
        There is no legal way for one of the requests.
    """
    where = selected(options, [*_FILTERS, *_MORE_FILTERS], "updatereq")
    state, fault = goal(options, pstampRequest)
    if options.get("clearfault"):
        if fault:
            raise wrong_usage(f"-updatereq: -set_fault {fault} and -clearfault exclude each other")
        fault = 0
    columns = values_of(options, _COLUMNS)
    if state is None and fault is None and not columns:
        changes = ", ".join(f"-{name}" for name in ("set_state", "set_fault", "clearfault", *_COLUMNS))
        raise PstampError(f"-updatereq: nothing to change; at least one of {changes} is required")
    if state is RequestState.GOTO_CLEANED:
        where.append(pstampRequest.state.not_in([RequestState.GOTO_CLEANED, RequestState.CLEANED]))

    def work() -> None:
        args = server.args(who=who(server), operator=True)
        requests = select(pstampRequest, where)
        if columns.get("name") and len(requests) > 1:
            raise PstampError(f"-set_name {columns['name']}: {len(requests)} requests can't have one name")
        values = _labelled({**columns, "timestamp": moment(args.now)})
        try:
            for part in chunked([request.req_id for request in requests], PORTION):
                pstampRequest.update(values).where(pstampRequest.req_id.in_(part)).execute()
        except IntegrityError:
            raise _name_in_use(columns["name"]) from None
        _change(server, reread(requests), state, fault, args, "-updatereq")

    server.store.work(work)


def revertreq(server: Server, **options: Any) -> None:
    """Let requests that failed with 1-9 be tried again: those below the ceiling of tries whose back-off is over.

    One that was not parsed yet loses the jobs that were made for it so far, with their files' lines in pstampFile.

    Options: req_id, fault, state, label; limit is ignored.

    Raises
    ------
    PstampError
        Fault 3: nothing to select by.
    """
    where = selected(options, _FILTERS, "revertreq")

    def work() -> None:
        args = server.args(who=who(server))
        requests = select(pstampRequest, [*where, *due(pstampRequest, args)])
        delete_jobs(*[request for request in requests if request.state is RequestState.NEW])
        fire(requests, Event.REVERT, args, note="-revertreq")

    server.store.work(work)


def _labelled(columns: dict[str, Any]) -> dict[str, Any]:
    return {**columns, "label": known_label(columns["label"])} if columns.get("label") else columns


def _name_in_use(name: str) -> PstampError:
    return PstampError(f"the name {name!r} is in use by another request")


def _change(
    server: Server, requests: Sequence[pstampRequest], state: Any, fault: int | None, args: Args, note: str
) -> None:
    """Bring `requests` to a state and a fault; None leaves it as it is. Part of a unit of work."""
    if fault is not None and is_final(fault):
        for request in requests:
            _answer(server, request, state, replace(args, fault=fault), note)
        return
    moving = [request for request in requests if state not in (None, request.state)]
    if moving:
        must_lead_to(moving, state)
        _MOVES[state](server, moving, args, note)
        requests = reread(requests)
    if fault:
        fire(claimed(requests, args, note), Event.FAULT, replace(args, fault=fault), note=note)
    elif fault == 0:
        fire([request for request in requests if request.fault], Event.REVERT, args, note=note)


def _answer(server: Server, request: pstampRequest, state: Any, args: Args, note: str) -> None:
    """End a request that can't be parsed with one job that has the code of `args`, instead of those made so far."""
    if request.state is not RequestState.NEW or state not in (None, RequestState.RUN):
        raise refusal(
            request, f"-set_fault {args.fault}", "a code of 10 or more is the user's answer, and is given in state new "
            "only, on the way to run",
        )  # fmt: skip
    (request,) = claimed([request], args, note)
    answer_unparsed(server, request, Event.PARSE, args, note, "")


def _run(server: Server, requests: Sequence[pstampRequest], args: Args, note: str) -> None:
    """Accept previews; start what somebody else has parsed, and added jobs for, with those added as ``parsed``."""
    for request in requests:
        is_preview = request.state is not RequestState.NEW or JobState.PARSED in _states_of_jobs(request)
        if request.state is RequestState.NEW:
            _parsed(server, request, Event.PREVIEW if is_preview else Event.PARSE, "-set_state run", args, note)
        if is_preview:
            operate.accept(server, request.id_, args.who, note)


def _preview(server: Server, requests: Sequence[pstampRequest], args: Args, note: str) -> None:
    for request in requests:
        if JobState.RUN in _states_of_jobs(request):
            raise refusal(
                request, "-set_state parsed", "jobs of a preview are added with -state parsed, and some are run"
            )
        _parsed(server, request, Event.PREVIEW, "-set_state parsed", args, note)


def _parsed(server: Server, request: pstampRequest, event: Event, asked: str, args: Args, note: str) -> None:
    if not _states_of_jobs(request):
        raise refusal(request, asked, "it has no job, and each has one at least, if only to say why there is no more")
    if not request.name:
        raise refusal(request, asked, "its results need a name, which -set_name gives")
    product = request.outProduct or server.settings.product
    fire(claimed([request], args, note), event, args, note=note, outProduct=product)


def _stop(_server: Server, requests: Sequence[pstampRequest], args: Args, note: str) -> None:
    for request in requests:
        fire(claimed([request], args, note), Event.FINISH, replace(args, open_jobs=open_jobs(request)), note=note)


def _cancel(server: Server, requests: Sequence[pstampRequest], args: Args, _note: str) -> None:
    for request in requests:
        operate.cancel(server, "request", request.id_, args.who)  # its note would be told the user


def _goto_cleaned(_server: Server, requests: Sequence[pstampRequest], args: Args, note: str) -> None:
    fire(requests, Event.EXPIRE, args, note=note)


def _cleaned(_server: Server, requests: Sequence[pstampRequest], args: Args, note: str) -> None:
    fire(claimed(requests, args, note), Event.CLEAN, args, note=note)


_MOVES: Mapping[RequestState, Callable[[Server, Sequence[pstampRequest], Args, str], None]] = {
    RequestState.RUN: _run,
    RequestState.PARSED: _preview,
    RequestState.STOP: _stop,
    RequestState.CANCEL: _cancel,
    RequestState.GOTO_CLEANED: _goto_cleaned,
    RequestState.CLEANED: _cleaned,
}


def _states_of_jobs(request: pstampRequest) -> set[JobState]:
    query: Any = pstampJob.select(pstampJob.state).where(pstampJob.req_id == request.req_id).distinct().tuples()
    return {state for (state,) in query}
