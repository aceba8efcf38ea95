"""The modes of `pstamptool` that change something, and the filters that all modes share; on both engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import NOW, SECOND, Clock, Rows, check_history
from peewee import Model, OperationalError

from pstamp_core.faults import IllegalTransition, PstampError
from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import (
    MACHINES,
    Label,
    Store,
    Worked,
    fire,
    jobs_to_run,
    moment,
    pstampAccessLevel,
    pstampDependent,
    pstampHistory,
    pstampJob,
    pstampProject,
    pstampRequest,
    pstampUser,
    pstampUserDomain,
    pstampWebRequest,
    requests_to_finish,
    requests_to_parse,
)
from pstamp_core.store.tables import pstampDataStore, pstampFile
from pstamp_core.tasks import dependents
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.tool import changes, jobs
from pstamp_core.tasks.tool.filters import Compare, Filter, conditions

REQUEST_FILTERS = (
    Filter("req_id", pstampRequest.req_id),
    Filter("not_req_id", pstampRequest.req_id, Compare.UNEQUAL),
    Filter("req_id_min", pstampRequest.req_id, Compare.AT_LEAST),
    Filter("req_id_max", pstampRequest.req_id, Compare.AT_MOST),
    Filter("fault", pstampRequest.fault),
    Filter("state", pstampRequest.state),
    Filter("label", pstampRequest.label, Compare.LIKE),
    Filter("username", pstampRequest.username),
    Filter("timestamp_begin", pstampRequest.timestamp, Compare.AT_LEAST),
    Filter("timestamp_end", pstampRequest.timestamp, Compare.AT_MOST),
)


# -- filters


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"req_id": 2}, [2]),
        ({"req_id": 99}, []),
        ({"not_req_id": 2}, [1, 3, 4, 5, 6]),
        ({"req_id_min": 2, "req_id_max": 4}, [2, 3, 4]),
        ({"req_id": 5, "req_id_max": 4}, []),  # not one or the other
        ({"fault": 0}, [1, 3, 4, 5, 6]),
        ({"fault": 2}, [2]),
        ({"state": "run"}, [1, 2, 3, 4, 5]),
        ({"state": "NEW"}, [6]),
        ({"state": "run", "fault": 2}, [2]),
        ({"label": ["ps_a"]}, [1, 2]),
        ({"label": ["PS_A"]}, [1, 2]),
        ({"label": [r"ps\_a"]}, [1]),
        ({"label": ["ps%"]}, [1, 2, 3]),
        ({"label": [r"ps\%"]}, [3]),
        ({"label": ["psxa", "ps%"], "req_id_max": 2}, [1, 2]),
        ({"label": ["psxa", "it's;"]}, [2, 4]),
        ({"label": ["'; DROP TABLE pstampRequest; --"]}, []),
        ({"label": [""]}, [5]),
        ({"label": ["", "psxa"]}, [2, 5]),
        ({"label": ["%"]}, [1, 2, 3, 4, 6]),
        ({"label": "ps_a"}, [1, 2]),  # a mode that takes one
        ({"username": "Ana@Obs.edu"}, [1]),
        ({"username": "a%"}, []),
        ({"username": "___@obs.edu"}, []),
        ({"username": ""}, [2, 3, 4, 5, 6]),
    ],
)
def test_what_filters_find(store: Store, rows: Rows, options: dict[str, object], found: list[int]) -> None:
    rows.request(label="ps_a", username="ana@OBS.edu")
    rows.request(label="psXa", fault=2)
    rows.request(label="ps%")
    rows.request(label="it's;")
    rows.request(label=None)
    rows.request(RequestState.NEW, label="other")
    query = pstampRequest.select().order_by(pstampRequest.req_id)
    for condition in conditions(options, REQUEST_FILTERS):
        query = query.where(condition)
    assert [request.req_id for request in query] == found


def test_times_include_their_ends(store: Store, rows: Rows) -> None:
    request = rows.request()
    rows.clock.forward(60)
    rows.request()
    for name in ("timestamp_begin", "timestamp_end"):
        (condition,) = conditions({name: request.timestamp}, REQUEST_FILTERS)
        found = [each.req_id for each in pstampRequest.select().where(condition)]
        assert found == ([1, 2] if name == "timestamp_begin" else [1])


def test_filters_refuse_a_state_that_does_not_exist() -> None:
    with pytest.raises(PstampError) as caught:
        conditions({"state": "rnu"}, REQUEST_FILTERS)
    message = "-state rnu: expected one of new, parsed, run, stop, cancel, goto_cleaned, cleaned"
    assert (str(caught.value), caught.value.fault) == (message, 3)


# -- what the tests of modes share

Reread = Callable[[Any], Any]


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Iterator[Server]:
    """A server, after whose use the history of every row must be a legal chain."""
    yield Server(Settings(tmp_path), store)
    for table in MACHINES:
        check_history(table)


@pytest.fixture
def loose(store: Store, tmp_path: Path) -> Server:
    """A server for rows that come from nowhere, without a history, or that go."""
    return Server(Settings(tmp_path), store)


def as_is() -> list[list[tuple[Any, ...]]]:
    """All rows of all tables, to see that nothing changed."""
    tables: list[type[Model]] = [
        pstampRequest, pstampJob, pstampDependent, pstampHistory, pstampDataStore, pstampProject, pstampFile,
        pstampUserDomain, pstampUser, pstampAccessLevel, pstampWebRequest, Label,
    ]  # fmt: skip
    return [sorted(table.select().tuples(), key=str) for table in tables]


def refused(fault: int, message: str, mode: Callable[..., Any], server: Server, /, **options: Any) -> None:
    """A mode is refused with a fault and a message, and changes nothing."""
    before = as_is()
    with pytest.raises(PstampError) as caught:
        mode(server, **options)
    assert (str(caught.value), caught.value.fault) == (message, fault)
    assert as_is() == before


@contextmanager
def undone(server: Server) -> Iterator[None]:
    """What happens in the block is rolled back."""
    with server.store.db.atomic() as transaction:  # type: ignore[no-untyped-call]
        yield
        transaction.rollback()


def events(row: Worked) -> list[str]:
    """What happened to a row."""
    mine = (pstampHistory.machine == MACHINES[type(row)].name) & (pstampHistory.row_id == row.id_)
    return [line.event for line in pstampHistory.select().where(mine).order_by(pstampHistory.hist_id)]


def outcome(row: Worked) -> tuple[str, int, int]:
    """State, fault and number of faults, as they are in the database."""
    now: Any = type(row).get_by_id(row.id_)
    assert (now.lease_owner, now.lease_until) == ("", 0)
    return now.state.value, now.fault, now.fault_count


def made(server: Server, *states: str, **options: Any) -> tuple[Any, list[Any]]:
    """A request of the tool with a job in each of `states`, and the jobs."""
    number = changes.addreq(server, uri="a.fits", name=f"made_{pstampRequest.select().count()}", **options)
    jobs = [
        changes.addjob(server, req_id=number, rownum="1", outputBase="b", state=state, fault=25 * (state == "stop"))
        for state in states
    ]
    return pstampRequest.get_by_id(number), [pstampJob.get_by_id(job) for job in jobs]


def running(server: Server, count: int = 1, **options: Any) -> tuple[Any, list[Any]]:
    """A running request with jobs, and the jobs."""
    request, jobs = made(server, *["run"] * count, **options)
    changes.updatereq(server, req_id=request.req_id, set_state="run")
    return request, jobs


def take(server: Server, row: Any, other: str = "other") -> Any:
    """Let another worker claim a row."""
    args = server.args()
    args = type(args)(**{**vars(args), "owner": other, "who": other})
    (claimed,) = server.store.work(lambda: fire([type(row).get_by_id(row.id_)], Event.CLAIM, args))
    return claimed


def component(number: int = 1) -> dict[str, Any]:
    return {"stage": "warp", "stage_id": number, "component": "sky.1", "imagedb": "gpc1", "outdir": "d", "rlabel": "r"}


# -- requests: addreq


def test_a_new_request(server: Server, rows: Rows) -> None:
    rows.label("WEB")
    number = changes.addreq(
        server, uri="http://x/it's;%.fits", name="n'1", label="web", ds_id=7, username="o'neill@x.edu", proj_id=3
    )
    request = pstampRequest.get_by_id(number)
    assert (request.state, request.fault, request.uri) == (RequestState.NEW, 0, "http://x/it's;%.fits")
    assert (request.name, request.ds_id, request.username, request.proj_id) == ("n'1", 7, "o'neill@x.edu", 3)
    assert request.label == "WEB"  # as it is spelled where queues look
    assert (request.reqType, request.outProduct, request.outdir) == (None, None, None)
    assert request.registered == request.timestamp == moment(NOW)
    assert [each.req_id for each in requests_to_parse(NOW)] == [number]
    (line,) = pstampHistory.select()
    assert (line.event, line.who, line.note) == ("make", f"pstamptool {server.worker}", "-addreq")


def test_requests_without_a_name_and_with_an_empty_one_are_not_the_same_request(server: Server) -> None:
    numbers = [changes.addreq(server, uri="a.fits"), changes.addreq(server, uri="a.fits", name="", label="")]
    found = pstampRequest.select().where(pstampRequest.name.is_null() & pstampRequest.label.is_null())
    assert [request.req_id for request in found] == numbers


def test_what_addreq_refuses(server: Server) -> None:
    changes.addreq(server, uri="a.fits", name="same")
    message = "the name 'same' is in use by another request"
    refused(1, message, changes.addreq, server, uri="b.fits", name="same")
    refused(3, "-uri: expected a text that is not empty", changes.addreq, server, uri="")
    refused(3, "-label: 65 characters; expected at most 64", changes.addreq, server, uri="b", label="x" * 65)


# -- requests: updatereq


def test_columns_are_changed_as_given_and_the_time_is_now(server: Server, clock: Clock) -> None:
    request, _ = made(server)
    other, _ = made(server)
    clock.forward(60)
    new = {name: f"{name}'; DROP TABLE pstampJob; --%" for name in ("label", "outProduct", "outdir", "uri", "name")}
    new |= {"username": "x'y@z", "reqType": "p'%"}
    changes.updatereq(server, req_id=request.req_id, **{f"set_{name}": value for name, value in new.items()})
    request = pstampRequest.get_by_id(request.req_id)
    assert {name: getattr(request, name) for name in new} == new
    assert (request.timestamp, request.registered) == (moment(NOW + 60 * SECOND), moment(NOW))
    assert (request.state, request.fault) == (RequestState.NEW, 0)
    assert pstampRequest.get_by_id(other.req_id).__data__ == other.__data__
    changes.updatereq(server, req_id=request.req_id, set_label="")
    assert pstampRequest.get_by_id(request.req_id).label is None


def test_a_label_is_stored_as_queues_look_for_it(server: Server, rows: Rows) -> None:
    rows.label("WEB.UP")
    request, _ = made(server)
    changes.updatereq(server, req_id=request.req_id, set_label="web.up")
    assert pstampRequest.get_by_id(request.req_id).label == "WEB.UP"


def test_every_filter_of_updatereq_selects(loose: Server, rows: Rows, clock: Clock) -> None:
    first = rows.request(label="a_c", username="ana@x", reqType="pstamp", name="n_1")
    clock.forward(60)
    rows.request(label="abc", username="ben@x", reqType="dquery", name="nn1")
    rows.request(RequestState.STOP, label=None, name="m'2")
    rows.request(RequestState.NEW, fault=3, label="z", name="z")
    for options, found in (
        ({"req_id": 2}, [2]), ({"req_id_max": 2}, [1, 2]), ({"req_id": 3, "req_id_max": 2}, []), ({"fault": 3}, [4]),
        ({"state": "stop"}, [3]), ({"reqType": "dquery"}, [2]), ({"name": "n_1"}, [1, 2]), ({"name": "m'2"}, [3]),
        ({"username": "ana@x"}, [1]), ({"label": ["abc"]}, [2]), ({"label": ["a_c", "z"]}, [1, 2, 4]),
        ({"timestamp_begin": moment(clock.now)}, [2, 3, 4]), ({"timestamp_end": first.timestamp}, [1]),
        ({"state": "run", "label": ["a_c"], "username": "ben@x"}, [2]), ({"label": ["%'; --"]}, []),
    ):  # fmt: skip
        with undone(loose):
            changes.updatereq(loose, **options, set_outdir="here")
            changed = pstampRequest.select().where(pstampRequest.outdir == "here").order_by(pstampRequest.req_id)
            assert [each.req_id for each in changed] == found, options


def test_what_updatereq_refuses_whatever_the_rows(server: Server) -> None:
    one, _ = made(server)
    two, _ = made(server)
    nothing = (
        "-updatereq: would change every row; search parameters are required, at least one of -req_id, -fault, -state, "
        "-label, -req_id_max, -reqType, -name, -username, -timestamp_begin, -timestamp_end"
    )
    refused(3, nothing, changes.updatereq, server, set_state="run")
    lacks = (
        "-updatereq: nothing to change; at least one of -set_state, -set_fault, -clearfault, -set_label, "
        "-set_outProduct, -set_outdir, -set_uri, -set_name, -set_username, -set_reqType is required"
    )
    refused(1, lacks, changes.updatereq, server, req_id=one.req_id)
    both = "-updatereq: -set_fault 5 and -clearfault exclude each other"
    refused(3, both, changes.updatereq, server, req_id=one.req_id, set_fault=5, clearfault=True)
    state = "-set_state done: expected one of new, parsed, run, stop, cancel, goto_cleaned, cleaned"
    refused(3, state, changes.updatereq, server, req_id=one.req_id, set_state="done")
    long = "-set_name: 65 characters; expected at most 64"
    refused(3, long, changes.updatereq, server, req_id=one.req_id, set_name="n" * 65)
    empty = "-set_uri: expected a text that is not empty"
    refused(3, empty, changes.updatereq, server, req_id=one.req_id, set_uri="")
    name = f"the name {two.name!r} is in use by another request"
    refused(1, name, changes.updatereq, server, req_id=one.req_id, set_name=two.name)
    several = "-set_name x: 2 requests can't have one name"
    refused(1, several, changes.updatereq, server, state="new", set_name="x", set_label="l")
    pair = "-set_state stop -set_fault 3: a request in state stop has fault 0"
    refused(5, pair, changes.updatereq, server, req_id=one.req_id, set_state="stop", set_fault=3)


def test_no_request_is_no_error(server: Server) -> None:
    before = as_is()
    changes.updatereq(server, req_id=99, set_state="run", set_fault=3)
    changes.updatereq(server, label=["%'"], set_fault=25)
    changes.revertreq(server, req_id=99)
    assert as_is() == before


def test_a_request_parsed_by_others_lives_to_its_end(server: Server, clock: Clock) -> None:
    request, (first, second) = made(server, "run", "stop")
    number = request.req_id
    assert list(jobs_to_run(NOW)) == []
    changes.updatereq(server, req_id=number, set_state="run", set_reqType="pstamp")
    assert outcome(request) == ("run", 0, 0)
    assert pstampRequest.get_by_id(number).outProduct == server.settings.product
    assert [job.job_id for job in jobs_to_run(NOW)] == [first.job_id]
    assert outcome(second) == ("stop", 25, 0)
    open_one = f"request {number}: finish refused, it needs: no job of the request is open (legal ways on: claim, " \
        "heartbeat, release, fault, lost, revert, finish, cancel)"  # fmt: skip
    refused(5, open_one, changes.updatereq, server, req_id=number, set_state="stop")
    changes.updatejob(server, job_id=first.job_id, set_state="stop")
    assert outcome(first) == ("stop", 0, 0)
    assert [each.req_id for each in requests_to_finish(NOW)] == [number]
    changes.updatereq(server, req_id=number, set_fault=2)
    assert outcome(request) == ("run", 2, 1)
    changes.updatereq(server, req_id=number, set_state="stop")
    assert outcome(request) == ("stop", 0, 1)
    clock.forward(60)
    changes.updatereq(server, state="stop", timestamp_end=moment(NOW), set_state="goto_cleaned")
    assert outcome(request) == ("goto_cleaned", 0, 0)
    changes.updatereq(server, req_id=number, set_fault=2)
    changes.updatereq(server, req_id=number, clearfault=True)
    assert outcome(request) == ("goto_cleaned", 0, 1)
    changes.updatereq(server, req_id=number, set_state="cleaned")
    assert outcome(request) == ("cleaned", 0, 1)
    lived = ["make", "claim", "parse", "claim", "fault", "revert", "claim", "finish", "expire", "claim", "fault",
             "revert", "claim", "clean"]  # fmt: skip
    assert events(request) == lived
    lines = pstampHistory.select().where(pstampHistory.event != "make")
    assert {(line.who, line.note) for line in lines} == {
        (f"pstamptool {server.worker}", "-updatereq"), (f"pstamptool {server.worker}", "-updatejob"),
    }  # fmt: skip


def test_what_has_its_state_already_stays_as_it_is(server: Server) -> None:
    request, _ = running(server)
    done = events(request)
    changes.updatereq(server, req_id=request.req_id, set_state="run")
    changes.updatereq(server, req_id=request.req_id, set_state="run", set_fault=0)
    changes.updatereq(server, req_id=request.req_id, clearfault=True)
    assert events(request) == done


def test_what_is_cleaned_or_to_be_cleaned_is_not_queued_for_it_again(loose: Server, rows: Rows, clock: Clock) -> None:
    stopped, going, gone = map(rows.request, (RequestState.STOP, RequestState.GOTO_CLEANED, RequestState.CLEANED))
    clock.forward(60)
    changes.updatereq(loose, req_id_max=99, set_state="goto_cleaned", set_label="x")
    assert [outcome(each)[0] for each in (stopped, going, gone)] == ["goto_cleaned", "goto_cleaned", "cleaned"]
    assert [each.label for each in pstampRequest.select().order_by(pstampRequest.req_id)] == ["x", None, None]
    assert [each.timestamp == moment(NOW) for each in pstampRequest.select()] == [False, True, True]


def test_all_requests_of_a_call_change_or_none(loose: Server, rows: Rows) -> None:
    rows.request(RequestState.STOP)
    rows.request(RequestState.RUN)
    message = (
        "request 2: -set_state goto_cleaned refused, not possible in state run (legal ways on from run: stop, cancel)"
    )
    refused(5, message, changes.updatereq, loose, req_id_max=2, set_state="goto_cleaned", set_label="x")


@pytest.mark.parametrize(
    ("state", "goal", "ways"),
    [
        ("new", "stop", "run, parsed, cancel"),
        ("new", "cleaned", "run, parsed, cancel"),
        ("parsed", "stop", "run, cancel"),
        ("parsed", "new", "run, cancel"),
        ("run", "new", "stop, cancel"),
        ("run", "parsed", "stop, cancel"),
        ("stop", "run", "goto_cleaned"),
        ("stop", "cancel", "goto_cleaned"),
        ("stop", "cleaned", "goto_cleaned"),
        ("cancel", "run", "stop"),
        ("goto_cleaned", "run", "cleaned"),
        ("cleaned", "new", "none, it has ended"),
    ],
)
def test_ways_that_a_request_can_not_go(loose: Server, rows: Rows, state: str, goal: str, ways: str) -> None:
    rows.job(rows.request(RequestState(state)), JobState.STOP)
    message = (
        f"request 1: -set_state {goal} refused, not possible in state {state} (legal ways on from {state}: {ways})"
    )
    refused(5, message, changes.updatereq, loose, req_id=1, set_state=goal)


def test_a_request_without_jobs_or_name_is_not_parsed(server: Server) -> None:
    request, _ = made(server)
    ways = "(legal ways on from new: run, parsed, cancel)"
    for goal in ("run", "parsed"):
        why = f"it has no job, and each has one at least, if only to say why there is no more {ways}"
        lacks = f"request {request.req_id}: -set_state {goal} refused, {why}"
        refused(5, lacks, changes.updatereq, server, req_id=request.req_id, set_state=goal)
    nameless = changes.addreq(server, uri="a.fits")
    changes.addjob(server, req_id=nameless, rownum="1", outputBase="b")
    lacks = f"request {nameless}: -set_state run refused, its results need a name, which -set_name gives {ways}"
    refused(5, lacks, changes.updatereq, server, req_id=nameless, set_state="run")
    changes.updatereq(server, req_id=nameless, set_state="run", set_name="now", set_outProduct="mine")
    row = pstampRequest.get_by_id(nameless)
    assert (row.state, row.name, row.outProduct) == (RequestState.RUN, "now", "mine")


def test_a_preview_is_accepted_with_its_jobs(server: Server) -> None:
    request, (job, other) = made(server, "parsed", "parsed")
    number = request.req_id
    changes.updatereq(server, req_id=number, set_state="parsed")
    assert (outcome(request), outcome(job)) == (("parsed", 0, 0), ("parsed", 0, 0))
    way = f"the request with all its jobs: -updatereq -req_id {number} -set_state run"
    alone = f"request {number} is parsed, so that no job of it can run alone; {way}"
    refused(5, alone, changes.updatejob, server, job_id=job.job_id, set_state="run")
    late = changes.addjob(server, req_id=number, rownum="2", outputBase="b")
    assert outcome(pstampJob.get_by_id(late)) == ("parsed", 0, 0)
    changes.updatereq(server, req_id=number, set_state="run")
    assert {outcome(each) for each in (request, job, other, pstampJob.get_by_id(late))} == {("run", 0, 0)}
    assert events(request) == ["make", "claim", "preview", "accept"]


def test_jobs_added_as_parsed_run_when_the_new_request_does(server: Server) -> None:
    dependent = changes.getdependent(server, **component(), hold=True)
    request, (job, ready) = made(server, "parsed", "run")
    waiting = changes.addjob(
        server, req_id=request.req_id, rownum="2", outputBase="b", state="parsed", dep_id=dependent
    )
    changes.updatereq(server, req_id=request.req_id, set_state="run")
    assert {outcome(each) for each in (request, job, ready, pstampJob.get_by_id(waiting))} == {("run", 0, 0)}
    assert outcome(pstampDependent.get_by_id(dependent)) == ("new", 0, 0)


def test_a_preview_has_no_jobs_that_run(server: Server) -> None:
    request, _ = made(server, "parsed", "run")
    message = (
        f"request {request.req_id}: -set_state parsed refused, jobs of a preview are added with -state parsed, and "
        "some are run (legal ways on from new: run, parsed, cancel)"
    )
    refused(5, message, changes.updatereq, server, req_id=request.req_id, set_state="parsed")


def test_a_cancelled_request_has_no_open_jobs(server: Server) -> None:
    request, (job, done) = running(server, 2)
    take(server, job)
    changes.updatejob(server, job_id=done.job_id, set_state="stop")
    changes.updatereq(server, req_id=request.req_id, set_state="cancel")
    assert (outcome(request), outcome(job), outcome(done)) == (("cancel", 0, 0), ("cancel", 32, 0), ("stop", 0, 0))
    assert pstampJob.get_by_id(job.job_id).sentence == ""  # what the tool is called is nothing for the user
    changes.updatereq(server, req_id=request.req_id, set_state="stop")
    assert outcome(request) == ("stop", 0, 0)


def test_a_request_cancelled_while_half_parsed_has_one_job_that_says_so(loose: Server) -> None:
    request, (job,) = made(loose, "run")
    changes.addfile(loose, job_id=job.job_id, path="/big")
    changes.updatereq(loose, req_id=request.req_id, set_state="cancel")
    assert outcome(request) == ("cancel", 0, 0)
    (answer,) = pstampJob.select()
    assert (answer.state, answer.fault, answer.rownum) == (JobState.STOP, 32, "0")
    assert list(pstampFile.select()) == []
    assert [each.req_id for each in requests_to_finish(NOW)] == [request.req_id]


@pytest.mark.parametrize("state", ["new", "run", "cancel", "goto_cleaned"])
def test_faults_of_a_request(loose: Server, rows: Rows, state: str) -> None:
    request = rows.request(RequestState(state))
    changes.updatereq(loose, req_id=1, set_fault=3)
    changes.updatereq(loose, req_id=1, set_fault=4)
    assert outcome(request) == (state, 4, 2)
    assert events(request) == ["claim", "fault", "revert", "claim", "fault"]
    changes.updatereq(loose, req_id=1, set_fault=0)
    assert outcome(request) == (state, 0, 2)
    changes.updatereq(loose, req_id=1, set_fault=5)
    changes.updatereq(loose, req_id=1, clearfault=True)
    assert outcome(request) == (state, 0, 3)


def test_a_fault_stays_where_something_else_changes(loose: Server, rows: Rows) -> None:
    request, job = rows.request(fault=3, fault_count=1), rows.job(fault=3, fault_count=1)
    changes.updatereq(loose, req_id=request.req_id, set_label="x", set_state="run")
    changes.updatejob(loose, job_id=job.job_id, set_state="run")
    assert (outcome(request), outcome(job)) == (("run", 3, 1), ("run", 3, 1))


def test_where_nobody_works_there_are_no_faults(loose: Server, rows: Rows) -> None:
    rows.request(RequestState.STOP)
    message = "request 1: claim refused, not possible in state stop (legal ways on: expire)"
    refused(5, message, changes.updatereq, loose, req_id=1, set_fault=3)


def test_state_and_fault_in_one_call(server: Server) -> None:
    request, _ = made(server, "run")
    changes.updatereq(server, req_id=request.req_id, set_state="run", set_fault=3)
    assert outcome(request) == ("run", 3, 1)


@pytest.mark.parametrize("faulted", [False, True])
@pytest.mark.parametrize("state", [None, "run"])
def test_a_request_that_can_not_be_parsed_is_answered(loose: Server, state: str | None, faulted: bool) -> None:
    number = changes.addreq(loose, uri="a.fits")
    changes.addfile(loose, job_id=changes.addjob(loose, req_id=number, rownum="1", outputBase="b"), path="/big")
    if faulted:
        changes.updatereq(loose, req_id=number, set_fault=2)
    goal = {} if state is None else {"set_state": state}
    changes.updatereq(loose, req_id=number, set_fault=21, set_reqType="unknown", **goal)
    request = pstampRequest.get_by_id(number)
    assert outcome(request) == ("run", 0, 0)
    assert (request.name, request.reqType) == (f"ERROR.{number}", "unknown")
    (job,) = pstampJob.select()
    assert (job.state, job.fault, job.cause) == (JobState.STOP, 21, 2 * faulted)
    assert (job.rownum, job.jobType, job.sentence) == ("0", "none", "")
    assert list(pstampFile.select()) == []
    assert [each.req_id for each in requests_to_finish(NOW)] == [number]


@pytest.mark.parametrize(("state", "goal"), [("run", None), ("run", "stop"), ("stop", None), ("new", "parsed")])
def test_only_a_new_request_is_answered(loose: Server, rows: Rows, state: str, goal: str | None) -> None:
    rows.request(RequestState(state))
    ways = {"run": "stop, cancel", "stop": "goto_cleaned", "new": "run, parsed, cancel"}[state]
    message = (
        "request 1: -set_fault 25 refused, a code of 10 or more is the user's answer, and is given in state new only, "
        f"on the way to run (legal ways on from {state}: {ways})"
    )
    refused(5, message, changes.updatereq, loose, req_id=1, set_fault=25, **({"set_state": goal} if goal else {}))


LEASED = "other works on it until 2027-01-15 08:10:00 UTC at the latest; wait"


def test_a_request_that_somebody_works_on_is_left_alone(server: Server) -> None:
    request, _ = made(server, "run")
    take(server, request)
    message = f"request {request.req_id}: {LEASED}"
    for options in ({"set_state": "run"}, {"set_fault": 3}, {"set_fault": 21}):
        refused(5, message, changes.updatereq, server, req_id=request.req_id, **options)
    refused(5, message, changes.addjob, server, req_id=request.req_id, rownum="2", outputBase="b")
    changes.updatereq(server, req_id=request.req_id, set_label="x")
    assert pstampRequest.get_by_id(request.req_id).lease_owner == "other"


def test_a_lease_that_ran_out_is_lost(server: Server, clock: Clock) -> None:
    request, _ = made(server, "run")
    take(server, request)
    clock.forward(601)
    changes.updatereq(server, req_id=request.req_id, set_state="run")
    assert outcome(request) == ("run", 0, 0)
    assert events(request) == ["make", "claim", "lost", "revert", "claim", "parse"]


# -- requests: revertreq


def test_reverting_a_new_request_deletes_its_jobs_and_a_running_one_keeps_them(loose: Server, clock: Clock) -> None:
    new, (half, _) = made(loose, "run", "stop")
    changes.addfile(loose, job_id=half.job_id, path="/big")
    going, (job,) = running(loose)
    kept = changes.addfile(loose, job_id=job.job_id, path="/kept")
    changes.updatereq(loose, req_id_max=99, set_fault=3)
    clock.forward(10)
    changes.revertreq(loose, fault=3)
    assert (outcome(new), outcome(going)) == (("new", 0, 1), ("run", 0, 1))
    assert [each.job_id for each in pstampJob.select()] == [job.job_id]
    assert [each.file_id for each in pstampFile.select()] == [kept]
    assert [each.req_id for each in requests_to_parse(clock.now)] == [new.req_id]
    assert {line.note for line in pstampHistory.select().where(pstampHistory.event == "revert")} == {"-revertreq"}


def test_which_requests_are_reverted(loose: Server, rows: Rows, clock: Clock) -> None:
    def faulted(**columns: Any) -> Any:
        return rows.request(**{"state": RequestState.RUN, "fault": 3, "fault_count": 1, "label": "a", **columns})

    usual, new = faulted(), faulted(state=RequestState.NEW, label="b")
    tired, waits = faulted(fault_count=3), faulted(retry_at=clock.now + 1)
    healthy, stopped = rows.request(label="a"), rows.request(RequestState.STOP, label="a")
    for options, found in (
        ({"req_id": usual.req_id}, [usual]), ({"fault": 3}, [usual, new]), ({"fault": 4}, []), ({"fault": 25}, []),
        ({"state": "new"}, [new]), ({"label": ["A"]}, [usual]), ({"label": ["x", "_"]}, [usual, new]),
        ({"label": ["%"], "state": "run"}, [usual]), ({"req_id": tired.req_id}, []), ({"req_id": waits.req_id}, []),
        ({"req_id": healthy.req_id}, []), ({"req_id": stopped.req_id}, []),
    ):  # fmt: skip
        with undone(loose):
            before = {row.req_id: row.fault for row in pstampRequest.select()}
            changes.revertreq(loose, **options, limit=1)
            changed = [row.req_id for row in pstampRequest.select() if row.fault != before[row.req_id]]
            assert changed == [row.req_id for row in found], options


def test_revertreq_wants_to_know_which(server: Server) -> None:
    message = (
        "-revertreq: would change every row; search parameters are required, at least one of -req_id, -fault, -state, "
        "-label"
    )
    refused(3, message, changes.revertreq, server)


# -- jobs: addjob


def test_a_new_job(server: Server) -> None:
    request, _ = made(server)
    dependent = changes.getdependent(server, **component())
    number = changes.addjob(
        server, req_id=request.req_id, rownum="12", job_type="mosaic", outputBase="o'b%", exp_id=5, options=65,
        dep_id=dependent, parent_id=9,
    )  # fmt: skip
    job = pstampJob.get_by_id(number)
    assert (job.request_id, job.rownum, job.jobType, job.outputBase) == (request.req_id, "12", "mosaic", "o'b%")
    assert (job.exp_id, job.options, job.dep_id, job.parent_id) == (5, 65, dependent, 9)
    assert (job.is_parent, outcome(job)) == (True, ("run", 0, 0))
    usual = pstampJob.get_by_id(changes.addjob(server, req_id=request.req_id, rownum="0", outputBase="b"))
    assert (usual.jobType, usual.exp_id, usual.options, usual.dep_id) == ("stamp", 0, 0, 0)
    assert (usual.parent_id, usual.is_parent) == (0, False)
    answer = changes.addjob(server, req_id=request.req_id, rownum="0", job_type="none", state="stop", fault=23)
    assert outcome(pstampJob.get_by_id(answer)) == ("stop", 23, 0)
    assert pstampJob.get_by_id(answer).outputBase is None
    child = changes.addjob(
        server, req_id=request.req_id, rownum="1", outputBase="b", job_type="child", dep_id=dependent
    )
    assert not pstampJob.get_by_id(child).is_parent


BEGINS = "-addjob: a job begins as run with fault 0 or parsed with fault 0 or stop with fault 10 and up, not as"


@pytest.mark.parametrize(
    ("options", "fault", "message"),
    [
        ({"req_id": 99}, 1, "there is no request 99"),
        ({"dep_id": 99}, 1, "there is no dependent 99"),
        ({"rownum": "1a"}, 1, "-addjob: -rownum 1a: expected the number of a row, or 0 for the whole request"),
        ({"rownum": "-1"}, 1, "-addjob: -rownum -1: expected the number of a row, or 0 for the whole request"),
        ({"rownum": "²"}, 1, "-addjob: -rownum ²: expected the number of a row, or 0 for the whole request"),
        ({"rownum": ""}, 1, "-addjob: -rownum : expected the number of a row, or 0 for the whole request"),
        (
            {"rownum": "2147483648"}, 1,
            "-addjob: -rownum 2147483648: expected the number of a row, or 0 for the whole request",
        ),
        (
            {"rownum": "1" * 5000}, 1,
            f"-addjob: -rownum {'1' * 5000}: expected the number of a row, or 0 for the whole request",
        ),
        ({"outputBase": ""}, 1, "-addjob: -outputBase is missing; only a job added with -state stop needs none"),
        ({"outputBase": "b" * 256}, 3, "-outputBase: 256 characters; expected at most 255"),
        (
            {"job_type": "stam"}, 1,
            "-addjob: -job_type stam: expected one of stamp, get_image, detect_query, none, mosaic, child",
        ),
        ({"job_type": "child"}, 1, "-addjob: -job_type child: needs a -dep_id, and can't be a parent"),
        (
            {"job_type": "child", "dep_id": 1, "is_parent": True}, 1,
            "-addjob: -job_type child: needs a -dep_id, and can't be a parent",
        ),
        ({"state": "runn"}, 3, "-state runn: expected one of parsed, run, stop, cancel"),
        ({"state": "stop"}, 5, f"{BEGINS} stop with fault 0"),
        ({"state": "cancel", "fault": 32}, 5, f"{BEGINS} cancel with fault 32"),
        ({"state": "run", "fault": 3}, 5, f"{BEGINS} run with fault 3"),
        ({"state": "run", "fault": 25}, 5, f"{BEGINS} run with fault 25"),
    ],
)  # fmt: skip
def test_what_addjob_refuses(server: Server, options: dict[str, Any], fault: int, message: str) -> None:
    request, _ = made(server)
    usual = {"req_id": request.req_id, "rownum": "1", "outputBase": "b"}
    refused(fault, message, changes.addjob, server, **{**usual, **options})


def test_no_job_waits_for_what_was_given_up(server: Server) -> None:
    request, _ = made(server)
    dependent = changes.getdependent(server, **component())
    changes.updatedependent(server, dep_id=dependent, set_fault=26)
    message = (
        f"dependent {dependent}: a job that waits for it refused, it was given up with fault 26; -getdependent makes a "
        "new one (legal ways on from stop: none, it has ended)"
    )
    refused(5, message, changes.addjob, server, req_id=request.req_id, rownum="1", outputBase="b", dep_id=dependent)


@pytest.mark.parametrize(
    ("request_state", "state", "taken_as"),
    [
        ("new", "run", "run"), ("new", "parsed", "parsed"), ("new", "stop", "stop"),
        ("parsed", "run", "parsed"), ("parsed", "parsed", "parsed"), ("parsed", "stop", "stop"),
        ("run", "run", "run"), ("run", "stop", "stop"), ("run", "parsed", None),
        ("stop", "run", None), ("stop", "stop", None), ("cancel", "run", None), ("goto_cleaned", "run", None),
        ("cleaned", "stop", None),
    ],
)  # fmt: skip
def test_which_jobs_a_request_takes(
    loose: Server, rows: Rows, request_state: str, state: str, taken_as: str | None
) -> None:
    rows.request(RequestState(request_state))
    job = {"req_id": 1, "rownum": "1", "outputBase": "b", "state": state, "fault": 25 * (state == "stop")}
    if taken_as:
        assert pstampJob.get_by_id(changes.addjob(loose, **job)).state.value == taken_as
        return
    with pytest.raises(
        IllegalTransition,
        match=f"^request 1: a job in state {state} refused, it takes none in state {request_state} [(]legal ways on",
    ):
        changes.addjob(loose, **job)
    assert not pstampJob.select().exists()


# -- jobs: updatejob


def test_a_fault_is_counted_each_time_and_reverted(server: Server, clock: Clock) -> None:
    _, (job,) = running(server)
    changes.updatejob(server, job_id=job.job_id, set_fault=2)
    changes.updatejob(server, job_id=job.job_id, set_fault=2)
    assert outcome(job) == ("run", 2, 2)
    assert list(jobs_to_run(NOW)) == []
    changes.revertjob(server, job_id=job.job_id)
    assert outcome(job) == ("run", 2, 2)  # it backs off
    clock.forward(20)
    changes.revertjob(server, job_id=job.job_id)
    assert outcome(job) == ("run", 0, 2)
    assert events(job) == ["make", "claim", "fault", "revert", "claim", "fault", "revert"]


@pytest.mark.parametrize("goal", [{}, {"set_state": "stop"}])
@pytest.mark.parametrize("before", [0, 2])
def test_a_final_fault_stops_a_job(server: Server, before: int, goal: dict[str, str]) -> None:
    _, (job,) = running(server)
    if before:
        changes.updatejob(server, job_id=job.job_id, set_fault=before)
    changes.updatejob(server, job_id=job.job_id, set_fault=28, **goal)
    assert outcome(job) == ("stop", 28, before // 2)
    assert pstampJob.get_by_id(job.job_id).cause == before
    done = events(job)
    changes.updatejob(server, job_id=job.job_id, set_fault=28, **goal)  # said twice
    changes.updatejob(server, job_id=job.job_id, set_state="stop")
    assert events(job) == done
    message = f"job {job.job_id}: give_up refused, not possible in state stop (legal ways on: none, it has ended)"
    refused(5, message, changes.updatejob, server, job_id=job.job_id, set_fault=25)
    message = f"job {job.job_id}: claim refused, not possible in state stop (legal ways on: none, it has ended)"
    refused(5, message, changes.updatejob, server, job_id=job.job_id, set_state="stop", set_fault=0)
    message = f"job {job.job_id}: revert refused, not possible in state stop (legal ways on: none, it has ended)"
    refused(5, message, changes.updatejob, server, job_id=job.job_id, set_fault=0)


@pytest.mark.parametrize("goal", [{"set_fault": 28}, {"set_fault": 3}, {"set_state": "stop"}])
def test_what_an_earlier_try_said_does_not_explain_the_outcome(loose: Server, rows: Rows, goal: dict[str, Any]) -> None:
    job = rows.job(fault=2, fault_count=1, sentence="no such file")
    changes.updatejob(loose, job_id=job.job_id, **goal)
    assert pstampJob.get_by_id(job.job_id).sentence == ""


def test_success_records_fault_0(server: Server) -> None:
    _, (job, other) = running(server, 2)
    changes.updatejob(server, req_id=job.request_id, set_fault=2)
    changes.updatejob(server, job_id=job.job_id, set_state="stop", set_fault=0)
    assert (outcome(job), outcome(other)) == (("stop", 0, 1), ("run", 2, 1))
    changes.updatejob(server, job_id=other.job_id, set_fault=0)
    assert outcome(other) == ("run", 0, 1)
    changes.updatejob(server, job_id=other.job_id, set_state="run", set_fault=3)
    changes.updatejob(server, job_id=other.job_id, set_state="run", set_fault=0)
    assert outcome(other) == ("run", 0, 2)


def test_a_cancelled_job(server: Server) -> None:
    _, (job, other) = running(server, 2)
    take(server, job)
    changes.updatejob(server, job_id=job.job_id, set_state="cancel")
    changes.updatejob(server, job_id=other.job_id, set_state="cancel", set_fault=32)
    assert (outcome(job), outcome(other)) == (("cancel", 32, 0), ("cancel", 32, 0))
    message = f"job {job.job_id}: -set_state run refused, not possible in state cancel " \
        "(legal ways on from cancel: none, it has ended)"  # fmt: skip
    refused(5, message, changes.updatejob, server, job_id=job.job_id, set_state="run")


def test_a_job_in_a_running_request_is_accepted_with_its_component(loose: Server, rows: Rows) -> None:
    request = rows.request()
    held = rows.dependent(DependentState.HOLD)
    gone = rows.dependent(DependentState.STOP, fault=26, reason="deleted")
    states = []
    for dep_id in (0, held.dep_id, gone.dep_id):
        job = rows.job(request, JobState.PARSED, dep_id=dep_id)
        changes.updatejob(loose, job_id=job.job_id, set_state="run")
        states.append(outcome(job))
    assert states == [("run", 0, 0), ("run", 0, 0), ("stop", 26, 0)]
    assert outcome(held) == ("new", 0, 0)
    faulted = rows.job(request, JobState.PARSED)
    changes.updatejob(loose, job_id=faulted.job_id, set_state="run", set_fault=3)
    assert outcome(faulted) == ("run", 3, 1)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({"set_state": "run", "set_fault": 25}, "-set_state run -set_fault 25: a job in state run has fault 0 or 1-9"),
        ({"set_state": "stop", "set_fault": 3}, "-set_state stop -set_fault 3: a job in state stop has fault 0 or "
         "10 and up"),
        ({"set_state": "cancel", "set_fault": 3}, "-set_state cancel -set_fault 3: a job in state cancel has fault "
         "10 and up"),
        ({"set_state": "cancel", "set_fault": 25}, "-set_state cancel -set_fault 25: a cancelled job has fault 32"),
        ({"set_state": "parsed"}, "job 1: -set_state parsed refused, not possible in state run (legal ways on from "
         "run: stop, cancel)"),
    ],
)  # fmt: skip
def test_pairs_that_a_job_can_not_have(server: Server, goal: dict[str, Any], message: str) -> None:
    running(server)
    refused(5, message, changes.updatejob, server, job_id=1, **goal)


@pytest.mark.parametrize("goal", [{"set_state": "stop"}, {"set_fault": 3}, {"set_fault": 25}])
def test_a_job_that_somebody_runs_is_left_alone_until_its_lease_is_over(
    server: Server, clock: Clock, goal: dict[str, Any]
) -> None:
    _, (free, job) = running(server, 2)
    take(server, job)
    clock.forward(600)
    refused(5, f"job {job.job_id}: {LEASED}", changes.updatejob, server, req_id=job.request_id, **goal)
    clock.forward(1)
    changes.updatejob(server, req_id=job.request_id, **goal)
    assert outcome(free)[:2] == outcome(job)[:2]
    assert events(job)[:4] == ["make", "claim", "lost", "give_up" if goal == {"set_fault": 25} else "revert"]


def test_which_jobs_are_changed(loose: Server, rows: Rows) -> None:
    request = rows.request(label="a_b")
    other = rows.request(label="it's")
    dependent = rows.dependent()
    usual = rows.job(request)
    waits = rows.job(request, dep_id=dependent.dep_id)
    failed = rows.job(request, fault=3, fault_count=10)
    reverted = rows.job(request, fault_count=4)
    parsed = rows.job(request, JobState.PARSED)
    done = rows.job(request, JobState.STOP, dep_id=dependent.dep_id, fault_count=4)
    foreign = rows.job(other, fault_count=4, fault=2)
    for options, found in (
        ({"job_id": usual.job_id}, [usual]),
        ({"job_id": usual.job_id, "req_id": other.req_id}, []),
        ({"job_id": usual.job_id, "state": "parsed"}, []),
        ({"job_id": parsed.job_id}, [parsed]),
        ({"req_id": request.req_id}, [usual, waits, failed, reverted]),
        ({"req_id": request.req_id, "state": "parsed"}, [parsed]),
        ({"req_id": request.req_id, "fault": 3}, [failed]),
        ({"dep_id": dependent.dep_id}, [waits]),
        ({"fault_count": 3}, [failed, foreign]),
        ({"fault_count": 3, "state": "run"}, [failed, foreign]),
        ({"fault_count": 3, "fault": 0}, [reverted]),
        ({"fault_count": 3, "label": ["axb", "IT'S"]}, [foreign]),
        ({"fault_count": 3, "label": ["a_b", "it_s"]}, [failed, foreign]),
        ({"fault_count": 9}, [failed]),
        ({"fault_count": 11}, []),
        ({"job_id": 99}, []),
    ):
        with undone(loose):
            changes.updatejob(loose, **options, set_state="cancel", limit=1)
            cancelled = list(pstampJob.select().where(pstampJob.state == JobState.CANCEL))
            assert [row.job_id for row in cancelled] == [row.job_id for row in found], options
    assert outcome(done) == ("stop", 0, 4)


def test_what_updatejob_refuses_whatever_the_rows(server: Server) -> None:
    which = "-updatejob: at least one of -job_id, -req_id, -dep_id, -fault_count is required, and not 0"
    for options in ({}, {"job_id": 0}, {"state": "run", "label": ["%"], "fault": 3}):
        refused(1, which, changes.updatejob, server, set_state="stop", **options)
    what = "-updatejob: nothing to change; at least one of -set_state, -set_fault is required"
    refused(1, what, changes.updatejob, server, job_id=1)
    state = "-set_state stopp: expected one of parsed, run, stop, cancel"
    refused(3, state, changes.updatejob, server, job_id=1, set_state="stopp")


# -- jobs: revertjob


def test_the_ceiling_holds_until_it_is_lifted(server: Server, clock: Clock) -> None:
    _, (job,) = running(server)
    for _ in range(5):
        changes.updatejob(server, job_id=job.job_id, set_fault=2)
    clock.forward(3600)
    changes.revertjob(server, job_id=job.job_id)
    assert outcome(job) == ("run", 2, 5)
    changes.revertjob(server, job_id=job.job_id, clear_fault_count=True)
    assert outcome(job) == ("run", 0, 0)
    before = as_is()
    changes.revertjob(server, all=True, clear_fault_count=True)  # what is healthy stays as it is
    assert as_is() == before


def test_which_jobs_are_reverted(loose: Server, rows: Rows, clock: Clock) -> None:
    def faulted(request: Any, **columns: Any) -> Any:
        return rows.job(request, **{"fault": 3, "fault_count": 1, **columns})

    first, second = rows.request(label="a%"), rows.request(label="ab")
    stopped = rows.request(RequestState.STOP, label="a%")
    one, two, three = faulted(first), faulted(first, fault=5), faulted(second)
    tired, waits = faulted(second, fault_count=3), faulted(second, retry_at=clock.now + 1)
    faulted(stopped)
    for options, found in (
        ({"all": True}, [one, two, three]),
        ({"all": True, "clear_fault_count": True}, [one, two, three, tired, waits]),
        ({"job_id": one.job_id}, [one]), ({"req_id": first.req_id}, [one, two]), ({"fault": 5}, [two]),
        ({"fault": 0}, []), ({"req_id_min": second.req_id}, [three]),
        ({"req_id": first.req_id, "req_id_min": second.req_id}, []), ({"label": [r"a\%"]}, [one, two]),
        ({"label": ["a%"]}, [one, two, three]), ({"label": ["ab", "%'"]}, [three]), ({"label": ["%s", "%d"]}, []),
        ({"job_id": 99}, []),
    ):  # fmt: skip
        with undone(loose):
            faults = {row.job_id: row.fault for row in pstampJob.select()}
            changes.revertjob(loose, **options, limit=1)
            changed = [row.job_id for row in pstampJob.select() if row.fault != faults[row.job_id]]
            assert changed == [row.job_id for row in found], options


def test_answers_are_not_reverted(server: Server) -> None:
    request, (job, other) = running(server, 2)
    changes.updatejob(server, job_id=job.job_id, set_fault=25)
    before = as_is()
    changes.revertjob(server, job_id=job.job_id)
    changes.revertjob(server, fault=26)
    assert as_is() == before
    message = f"job {job.job_id}: revert refused, not possible in state stop (legal ways on: none, it has ended)"
    refused(5, message, changes.revertjob, server, fault=25, req_id=request.req_id, clear_fault_count=True)
    assert outcome(other) == ("run", 0, 0)


def test_revertjob_wants_to_know_which(server: Server) -> None:
    message = (
        "-revertjob: would change every row; search parameters are required, at least one of -job_id, -req_id, -fault, "
        "-label, -req_id_min"
    )
    refused(3, message, changes.revertjob, server, clear_fault_count=True)


# -- dependents: getdependent


def test_who_needs_the_same_component_gets_the_same_dependent(server: Server) -> None:
    number = changes.getdependent(server, **component())
    made_now = pstampDependent.get_by_id(number)
    assert (made_now.stage, made_now.stage_id, made_now.component) == ("warp", 1, "sky.1")
    assert (made_now.imagedb, made_now.outdir, made_now.rlabel, made_now.need_magic) == ("gpc1", "d", "r", False)
    assert outcome(made_now) == ("new", 0, 0)
    again = {**component(), "outdir": "e", "rlabel": "s", "need_magic": True}
    assert changes.getdependent(server, **again) == number
    assert pstampDependent.get_by_id(number).__data__ == made_now.__data__
    assert changes.getdependent(server, **component(), no_create=True) == number
    others = [{"stage": "chip"}, {"stage_id": 2}, {"component": "sky.2"}, {"component": "SKY.1"}, {"imagedb": "x'%;"}]
    numbers = [changes.getdependent(server, **{**component(), **other}) for other in others]
    assert len({number, *numbers}) == 6
    changes.updatedependent(server, dep_id=number, set_state="full")
    assert changes.getdependent(server, **component()) not in (number, *numbers)


def test_a_label_is_not_needed(server: Server) -> None:
    needed = component()
    del needed["rlabel"]
    number = changes.getdependent(server, **needed, need_magic=True)
    made_now = pstampDependent.get_by_id(number)
    assert (made_now.rlabel, made_now.need_magic) == (None, True)


def test_a_component_can_be_held(server: Server) -> None:
    full = changes.getdependent(server, **component())
    changes.updatedependent(server, dep_id=full, set_state="full")
    number = changes.getdependent(server, **component(), hold=True)
    held = pstampDependent.get_by_id(number)
    assert outcome(held) == ("hold", 0, 0)
    assert changes.getdependent(server, **component(), hold=True) == number
    assert outcome(held) == ("hold", 0, 0)
    assert changes.getdependent(server, **component()) == number
    assert outcome(held) == ("new", 0, 0)
    assert changes.getdependent(server, **component(), hold=True) == number
    assert outcome(held) == ("new", 0, 0)
    assert outcome(pstampDependent.get_by_id(full)) == ("full", 0, 0)  # the one selected row is changed, no other


def test_none_is_made_where_none_is_wanted(server: Server) -> None:
    before = as_is()
    assert changes.getdependent(server, **component(), no_create=True) is None
    assert as_is() == before


def test_a_faulted_component_is_the_fault_of_the_call(server: Server) -> None:
    number = changes.getdependent(server, **component())
    changes.updatedependent(server, dep_id=number, set_fault=3)
    for options in ({}, {"hold": True}, {"no_create": True}):
        message = f"dependent {number} has fault 3: The server is set up wrongly; its operators must look."
        refused(3, message, changes.getdependent, server, **component(), **options)
    pstampDependent.update(reason="").execute()
    refused(3, message, changes.getdependent, server, **component())
    pstampDependent.update(reason="the run is faulted").execute()
    message = f"dependent {number} has fault 3: the run is faulted"
    refused(3, message, changes.getdependent, server, **component())


def test_a_component_that_was_given_up_is_tried_again_after_a_while(server: Server, clock: Clock) -> None:
    closed = changes.getdependent(server, **component())
    changes.updatedependent(server, dep_id=closed, set_fault=25)
    number = changes.getdependent(server, **component())
    assert number != closed
    dependent = pstampDependent.get_by_id(number)
    assert dependent.retry_at == clock.now + 3600 * SECOND
    assert dependent.reason == (
        f"asked for with -getdependent; dependent {closed} for it was given up at 08:00:00 UTC, so that it is tried "
        "again after 2027-01-15 09:00:00 UTC"
    )
    changes.updatedependent(server, dep_id=number, set_state="full")
    clock.forward(3601)
    assert pstampDependent.get_by_id(changes.getdependent(server, **component())).retry_at == 0


def test_what_getdependent_refuses(server: Server) -> None:
    long = "-component: 65 characters; expected at most 64"
    refused(3, long, changes.getdependent, server, **{**component(), "component": "x" * 65})
    empty = "-stage: expected a text that is not empty"
    refused(3, empty, changes.getdependent, server, **{**component(), "stage": ""})


# -- dependents: updatedependent


def test_a_component_that_is_there_lets_its_jobs_run(server: Server) -> None:
    dependent = pstampDependent.get_by_id(changes.getdependent(server, **component()))
    request, _ = made(server)
    job = changes.addjob(server, req_id=request.req_id, rownum="1", outputBase="b", dep_id=dependent.dep_id)
    changes.updatereq(server, req_id=request.req_id, set_state="run")
    assert list(jobs_to_run(NOW)) == []
    changes.updatedependent(server, dep_id=dependent.dep_id, set_fault=2)
    changes.updatedependent(server, dep_id=dependent.dep_id, set_state="new", set_fault=2)
    assert outcome(dependent) == ("new", 2, 2)
    changes.updatedependent(server, dep_id=dependent.dep_id, set_state="full")
    assert outcome(dependent) == ("full", 0, 2)
    assert pstampDependent.get_by_id(dependent.dep_id).reason == ""
    assert [each.job_id for each in jobs_to_run(NOW)] == [job]
    done = events(dependent)
    changes.updatedependent(server, dep_id=dependent.dep_id, set_state="full")  # that it is so already is no error
    assert events(dependent) == done == ["make", "fault", "revert", "fault", "revert", "satisfy"]


def test_the_time_of_the_next_look_does_not_count_by_hand(server: Server, clock: Clock) -> None:
    dependent = pstampDependent.get_by_id(changes.getdependent(server, **component()))
    claimed = take(server, dependent)
    args = server.args()
    args = type(args)(**{**vars(args), "owner": "other", "who": "other"})
    server.store.work(lambda: fire([claimed], Event.RELEASE, args))
    assert pstampDependent.get_by_id(dependent.dep_id).retry_at > clock.now
    changes.updatedependent(server, dep_id=dependent.dep_id, set_state="full")
    assert outcome(dependent) == ("full", 0, 0)


@pytest.mark.parametrize("goal", [{}, {"set_state": "stop"}])
def test_giving_a_dependent_up_stops_its_jobs(server: Server, goal: dict[str, str]) -> None:
    dependent = pstampDependent.get_by_id(changes.getdependent(server, **component()))
    request, _ = made(server)
    job = pstampJob.get_by_id(
        changes.addjob(server, req_id=request.req_id, rownum="1", outputBase="b", dep_id=dependent.dep_id)
    )
    changes.updatereq(server, req_id=request.req_id, set_state="run")
    changes.updatedependent(server, dep_id=dependent.dep_id, set_fault=26, **goal)
    assert (outcome(dependent), outcome(job)) == (("stop", 26, 0), ("stop", 26, 0))
    reason = "warp sky.1 could not be made again: The image was deleted for good."
    assert pstampJob.get_by_id(job.job_id).sentence == pstampDependent.get_by_id(dependent.dep_id).reason == reason
    done = events(dependent)
    changes.updatedependent(server, dep_id=dependent.dep_id, set_fault=26, **goal)
    assert events(dependent) == done
    message = f"dependent {dependent.dep_id}: give_up refused, not possible in state stop " \
        "(legal ways on: none, it has ended)"  # fmt: skip
    refused(5, message, changes.updatedependent, server, dep_id=dependent.dep_id, set_fault=25)


def test_holding_and_letting_go(server: Server) -> None:
    dependent = pstampDependent.get_by_id(changes.getdependent(server, **component()))
    number = dependent.dep_id
    changes.updatedependent(server, dep_id=number, set_state="hold")
    assert outcome(dependent) == ("hold", 0, 0)
    message = f"dependent {number}: -set_state full refused, not possible in state hold " \
        "(legal ways on from hold: stop, new)"  # fmt: skip
    refused(5, message, changes.updatedependent, server, dep_id=number, set_state="full")
    message = f"dependent {number}: claim refused, not possible in state hold (legal ways on: give_up, unhold)"
    refused(5, message, changes.updatedependent, server, dep_id=number, set_fault=3)
    changes.updatedependent(server, dep_id=number, set_state="new")
    assert outcome(dependent) == ("new", 0, 0)
    changes.updatedependent(server, dep_id=number, set_state="hold", set_fault=3)
    assert outcome(dependent) == ("hold", 3, 1)
    changes.updatedependent(server, dep_id=number, set_state="new", set_fault=0)
    assert outcome(dependent) == ("new", 0, 1)
    changes.updatedependent(server, dep_id=number, set_fault=3)
    changes.updatedependent(server, dep_id=number, set_fault=0)
    assert outcome(dependent) == ("new", 0, 2)


def test_a_dependent_that_is_looked_at_is_left_alone_until_the_lease_is_over(server: Server, clock: Clock) -> None:
    dependent = pstampDependent.get_by_id(changes.getdependent(server, **component()))
    take(server, dependent)
    message = f"dependent {dependent.dep_id}: {LEASED}"
    for goal in ({"set_state": "full"}, {"set_fault": 3}, {"set_fault": 25}, {"set_state": "hold"}):
        refused(5, message, changes.updatedependent, server, dep_id=dependent.dep_id, **goal)
    clock.forward(601)
    changes.updatedependent(server, dep_id=dependent.dep_id, set_state="full")
    assert outcome(dependent) == ("full", 0, 1)


def waits_for(server: Server, dependent: Any) -> Any:
    """A job that waits for a dependent, of a running request."""
    request, _ = made(server)
    number = changes.addjob(server, req_id=request.req_id, rownum="1", outputBase="b", dep_id=dependent.dep_id)
    changes.updatereq(server, req_id=request.req_id, set_state="run")
    return pstampJob.get_by_id(number)


def test_what_updatedependent_refuses(server: Server) -> None:
    what = "-updatedependent: nothing to change; at least one of -set_state, -set_fault is required"
    refused(1, what, changes.updatedependent, server, dep_id=1)
    refused(1, "there is no dependent 1", changes.updatedependent, server, dep_id=1, set_state="full")
    number = changes.getdependent(server, **component())
    for options, fault, message in (
        ({"set_state": "none"}, 3, "-set_state none: expected one of new, hold, full, stop"),
        ({"set_state": "stop"}, 5, f"dependent {number}: -set_state stop refused, it needs -set_fault with a code of "
         "10 or more, which the jobs that wait for it get, too"),
        ({"set_state": "full", "set_fault": 3}, 5,
         "-set_state full -set_fault 3: a dependent in state full has fault 0"),
        ({"set_state": "new", "set_fault": 25}, 5,
         "-set_state new -set_fault 25: a dependent in state new has fault 0 or 1-9"),
    ):  # fmt: skip
        refused(fault, message, changes.updatedependent, server, dep_id=number, **options)
    changes.updatedependent(server, dep_id=number, set_state="full")
    message = f"dependent {number}: -set_state new refused, not possible in state full " \
        "(legal ways on from full: none, it has ended)"  # fmt: skip
    refused(5, message, changes.updatedependent, server, dep_id=number, set_state="new")


# -- dependents: revertdependent, stopdependentjob


def test_which_dependents_are_reverted(loose: Server, rows: Rows, clock: Clock) -> None:
    request, other = rows.request(label="a_b"), rows.request(label="axb")
    stopped = rows.request(RequestState.STOP)

    def faulted(of: Any, **columns: Any) -> tuple[Any, Any]:
        dependent = rows.dependent(**{"fault": 3, "fault_count": 1, **columns})
        return dependent, rows.job(of, dep_id=dependent.dep_id)

    one, job = faulted(request)
    two, _ = faulted(other, fault=5)
    tired, _ = faulted(other, fault_count=3)
    waits, _ = faulted(other, retry_at=clock.now + 1)
    late, late_job = faulted(stopped)
    unneeded = rows.dependent(fault=3, fault_count=1)
    for options, found in (
        ({"dep_id": one.dep_id}, [one]), ({"job_id": job.job_id}, [one]), ({"req_id": other.req_id}, [two]),
        ({"req_id": other.req_id, "clear_fault_count": True}, [two, tired, waits]), ({"fault": 5}, [two]),
        ({"label": ["a_b"]}, [one]), ({"label": ["a_b", "AXB"]}, [one, two]), ({"label": ["a%"]}, []),
        ({"label": ["%s'"]}, []), ({"dep_id": late.dep_id}, []), ({"job_id": late_job.job_id}, []),
        ({"dep_id": unneeded.dep_id}, []), ({"dep_id": tired.dep_id}, []), ({"dep_id": 99}, []),
        ({"job_id": job.job_id, "req_id": other.req_id}, []),
    ):  # fmt: skip
        with undone(loose):
            changes.revertdependent(loose, **options, limit=1)
            changed = [row.dep_id for row in pstampDependent.select().order_by(pstampDependent.dep_id) if not row.fault]
            assert changed == [row.dep_id for row in found], options


def test_a_dependent_that_was_given_up_is_not_reverted(server: Server) -> None:
    dependent = pstampDependent.get_by_id(changes.getdependent(server, **component()))
    job = waits_for(server, dependent)
    changes.updatedependent(server, dep_id=dependent.dep_id, set_fault=25)
    before = as_is()
    changes.revertdependent(server, dep_id=dependent.dep_id)
    changes.revertdependent(server, fault=26)
    assert as_is() == before
    message = (
        f"dependent {dependent.dep_id}: revert refused, not possible in state stop (legal ways on: none, it has ended)"
    )
    refused(5, message, changes.revertdependent, server, fault=25, job_id=job.job_id)
    refused(5, message, changes.revertdependent, server, fault=25)
    pstampJob.update(dep_id=0).execute()  # it is so whoever waited for it
    refused(5, message, changes.revertdependent, server, fault=25, dep_id=dependent.dep_id)


def test_revertdependent_wants_to_know_which(server: Server) -> None:
    message = (
        "-revertdependent: would change every row; search parameters are required, at least one of -dep_id, -fault, "
        "-job_id, -req_id, -label"
    )
    refused(3, message, changes.revertdependent, server)


def test_hopeless_work_is_ended_for_all_who_wait(server: Server) -> None:
    dependent = pstampDependent.get_by_id(changes.getdependent(server, **component()))
    mine, theirs = waits_for(server, dependent), waits_for(server, dependent)
    changes.updatedependent(server, dep_id=dependent.dep_id, set_fault=2)
    changes.stopdependentjob(server, req_id=mine.request_id, set_fault=25)
    assert [outcome(each) for each in (dependent, mine, theirs)] == [("stop", 25, 1), ("stop", 25, 0), ("stop", 25, 0)]
    closed = pstampDependent.get_by_id(dependent.dep_id)
    assert closed.cause == 2
    assert closed.reason == pstampJob.get_by_id(theirs.job_id).sentence
    assert closed.reason == (
        "warp sky.1 could not be made again: The image exists, but can't be had now. The last try: A disk, network or "
        "system call failed."
    )
    assert changes.getdependent(server, **component()) != dependent.dep_id


def test_which_dependents_are_given_up(loose: Server, rows: Rows) -> None:
    request, other = rows.request(label="a_b"), rows.request(RequestState.STOP, label="it's")
    one, two = rows.dependent(fault=3, fault_count=4), rows.dependent(fault_count=4, component="sky'%")
    held = rows.dependent(DependentState.HOLD)
    job = rows.job(request, dep_id=one.dep_id)
    rows.job(other, dep_id=two.dep_id)
    rows.job(request, dep_id=held.dep_id)
    unneeded = rows.dependent()
    rows.job(request, JobState.STOP, dep_id=unneeded.dep_id)
    for options, found in (
        ({"dep_id": one.dep_id}, [one]), ({"job_id": job.job_id}, [one]), ({"req_id": other.req_id}, [two]),
        ({"stage_id": two.stage_id}, [two]), ({"component": "SKY'%"}, [two]), ({"component": "sky%"}, []),
        ({"fault": 3}, [one]), ({"fault_count": 4}, [one]), ({"fault_count": 4, "fault": 0}, [two]),
        ({"fault_count": 5}, []), ({"label": ["AXB", "it's"]}, [two]), ({"label": ["a%", "it%"]}, [one, two]),
        ({"dep_id": held.dep_id}, []), ({"dep_id": unneeded.dep_id}, []), ({"dep_id": 99}, []),
        ({"dep_id": one.dep_id, "req_id": other.req_id}, []), ({"req_id": request.req_id, "set_state": "new"}, [one]),
        ({"req_id": request.req_id, "set_state": "stop"}, [one]),
    ):  # fmt: skip
        with undone(loose):
            changes.stopdependentjob(loose, **options, set_fault=25, limit=1)
            closed = pstampDependent.select().where(pstampDependent.state == DependentState.STOP)
            assert [row.dep_id for row in closed] == [row.dep_id for row in found], options
            stopped = pstampJob.select().where((pstampJob.state == JobState.STOP) & (pstampJob.fault == 25))
            assert {row.dep_id for row in stopped} == {row.dep_id for row in found}


def test_what_stopdependentjob_refuses(server: Server) -> None:
    dependent = pstampDependent.get_by_id(changes.getdependent(server, **component()))
    waits_for(server, dependent)
    which = (
        "-stopdependentjob: would change every row; search parameters are required, at least one of -dep_id, -fault, "
        "-stage_id, -component, -fault_count, -job_id, -req_id, -label"
    )
    refused(3, which, changes.stopdependentjob, server, set_fault=25)
    code = "-set_state stop -set_fault 3: a dependent in state stop has fault 10 and up"
    refused(5, code, changes.stopdependentjob, server, dep_id=dependent.dep_id, set_fault=3)
    state = "-stopdependentjob: -set_state full refused, a dependent that is given up is stop"
    refused(5, state, changes.stopdependentjob, server, dep_id=dependent.dep_id, set_fault=25, set_state="full")
    take(server, dependent)
    message = f"dependent {dependent.dep_id}: {LEASED}"
    refused(5, message, changes.stopdependentjob, server, dep_id=dependent.dep_id, set_fault=25)


# -- rows without states


def only(table: Any, **columns: Any) -> None:
    """The only row of `table` has these columns."""
    (row,) = table.select()
    assert {name: row.__data__[name] for name in columns} == columns


def test_data_stores(server: Server, clock: Clock) -> None:
    changes.adddatastore(server, set_uri="http://x/it's", set_out_product="p1")
    only(pstampDataStore, uri="http://x/it's", outProduct="p1", state="enabled", pollInterval=60, timestamp=None,
         label=None, lastFileset=None, need_magic=0)  # fmt: skip
    changes.adddatastore(
        server, set_uri="u", set_out_product="p2", set_last_fileset="f", set_state="off", set_label="l",
        set_poll_interval=5,
    )  # fmt: skip
    second = pstampDataStore.get_by_id(2)
    assert (second.lastFileset, second.state, second.label, second.pollInterval) == ("f", "off", "l", 5)
    refused(1, "-set_out_product P1: is there already", changes.adddatastore, server, set_uri="u", set_out_product="P1")
    changes.moddatastore(server, ds_id=1, set_last_fileset="g';%", set_uri="v", set_state="off", set_label="",
                         set_poll_interval=0)  # fmt: skip
    first = pstampDataStore.get_by_id(1)
    assert (first.lastFileset, first.uri, first.state, first.label, first.pollInterval) == ("g';%", "v", "off", None, 0)
    assert first.timestamp == moment(NOW)
    clock.forward(1)
    changes.moddatastore(server, ds_id=1, set_uri="v")  # it says so already
    changes.moddatastore(server, ds_id=1, set_uri="v")
    changes.moddatastore(server, ds_id=2, update_timestamp=True)
    assert {each.timestamp for each in pstampDataStore.select()} == {moment(NOW + SECOND)}
    assert pstampDataStore.get_by_id(2).uri == "u"
    changes.moddatastore(server, ds_id=1, state="off", set_state="enabled")
    assert pstampDataStore.get_by_id(1).state == "enabled"
    none = "there is no data store 1 in this state"
    refused(1, none, changes.moddatastore, server, ds_id=1, state="off", update_timestamp=True)
    refused(1, "there is no data store 99", changes.moddatastore, server, ds_id=99, update_timestamp=True)
    what = "-moddatastore: nothing to change; at least one of -set_..., -update_timestamp is required"
    refused(1, what, changes.moddatastore, server, ds_id=1)
    refused(
        3, "-set_uri: 256 characters; expected at most 255", changes.moddatastore, server, ds_id=1, set_uri="u" * 256
    )


def test_projects(server: Server) -> None:
    changes.addproject(server, name="gpc1", imagedb="db'1", inst="GPC1", telescope="PS1", state="enabled")
    only(pstampProject, name="gpc1", dbname="db'1", camera="GPC1", telescope="PS1", state="enabled", dvodb=None,
         need_magic=False)  # fmt: skip
    refused(1, "-name GPC1: is there already", changes.addproject, server, name="GPC1", imagedb="x", inst="y",
            telescope="z")  # fmt: skip
    changes.addproject(server, name="m", imagedb="x", inst="y", telescope="z", state="disabled", dvodb="v",
                       need_magic=True)  # fmt: skip
    second = pstampProject.get_by_id(2)
    assert (second.state, second.dvodb, second.need_magic) == ("disabled", "v", True)
    changes.modproject(server, proj_id=1, state="disabled")
    changes.modproject(server, proj_id=1, state="disabled")
    changes.modproject(server, proj_id=2, imagedb="i", dvodb="d", camera="c", telescope="t", need_magic=True)
    first, second = pstampProject.select().order_by(pstampProject.proj_id)
    assert (first.state, first.dbname) == ("disabled", "db'1")
    assert (second.dbname, second.dvodb, second.camera, second.telescope) == ("i", "d", "c", "t")
    assert (second.state, second.name) == ("disabled", "m")
    refused(1, "there is no project 99", changes.modproject, server, proj_id=99, state="enabled")
    what = "-modproject: nothing to change; give -state, or another column"
    refused(1, what, changes.modproject, server, proj_id=1)


def test_numbers_for_uploads(server: Server) -> None:
    first, second = changes.getwebrequestnum(server), changes.getwebrequestnum(server)
    assert first < second


def test_files(server: Server) -> None:
    _, (job, other) = made(server, "run", "run")
    number = changes.addfile(server, job_id=job.job_id, path="/it's;%")
    only(pstampFile, file_id=number, job_id=job.job_id, path="/it's;%")
    changes.addfile(server, job_id=other.job_id, path="/other")
    refused(1, "there is no job 99", changes.addfile, server, job_id=99, path="/x")
    refused(3, "-path: expected a text that is not empty", changes.addfile, server, job_id=job.job_id, path="")
    changes.deletefile(server, job_id=job.job_id)
    changes.deletefile(server, job_id=99)
    only(pstampFile, job_id=other.job_id)


def test_domains_and_users(server: Server) -> None:
    changes.adddomain(server, set_domain="x.edu", set_accessLevel=0)
    only(pstampUserDomain, domainName="x.edu", accessLevel=0, defaultProduct=None, defaultLabel=None)
    refused(1, "-set_domain X.edu: is there already", changes.adddomain, server, set_domain="X.edu", set_accessLevel=1)
    refused(3, "-set_domain: expected a text that is not empty", changes.adddomain, server, set_domain="",
            set_accessLevel=1)  # fmt: skip
    changes.adddomain(server, set_domain="it's", set_accessLevel=2, set_defaultProduct="p", set_defaultLabel="l")
    changes.updatedomain(server, domain="X.EDU", set_accessLevel=5, set_defaultProduct="q%", set_defaultLabel="m'")
    changes.updatedomain(server, domain="%", set_accessLevel=9)
    changes.updatedomain(server, domain="", set_accessLevel=9)
    found = [tuple(each.__data__.values()) for each in pstampUserDomain.select().order_by(pstampUserDomain.domainName)]
    assert found == [("it's", 2, "p", "l"), ("x.edu", 5, "q%", "m'")]
    changes.updatedomain(server, domain="it's", set_accessLevel=0, set_defaultProduct="")
    row = pstampUserDomain.get_by_id("it's")
    assert (row.accessLevel, row.defaultProduct, row.defaultLabel) == (0, None, "l")
    changes.adduser(server, set_user="o'neill", set_domain="x.edu")
    changes.adduser(server, set_user="ana", set_domain="x.edu", set_accessLevel=3, set_defaultProduct="p")
    changes.adduser(server, set_user="ana", set_domain="y.edu")  # whose domain has no row
    refused(1, "-set_user ANA -set_domain x.edu: is there already", changes.adduser, server, set_user="ANA",
            set_domain="x.edu")  # fmt: skip
    changes.updateuser(server, user="O'Neill", domain="x.edu", set_accessLevel=-1, set_defaultLabel="l")
    changes.updateuser(server, user="%", domain="x.edu", set_accessLevel=9)
    users = pstampUser.select().order_by(pstampUser.userName, pstampUser.domainName).tuples()
    assert list(users) == [
        ("ana", "x.edu", 3, "p", None), ("ana", "y.edu", 0, None, None), ("o'neill", "x.edu", -1, None, "l"),
    ]  # fmt: skip
    for mode, which in (
        (changes.updatedomain, {"domain": "x.edu"}),
        (changes.updateuser, {"user": "ana", "domain": "x"}),
    ):
        what = f"-{mode.__name__}: nothing to change; at least one of -set_accessLevel, -set_defaultProduct, " \
            "-set_defaultLabel is required"  # fmt: skip
        refused(1, what, mode, server, **which)


def test_access_levels(server: Server) -> None:
    for name in ("one", "two"):
        changes.addproject(server, name=name, imagedb="i", inst="c", telescope="t")
    changes.addaccesslevel(server, set_project_name="ONE", set_accessLevel=1, set_mjd_min=0.0, set_mjd_max=55000.123)
    changes.addaccesslevel(server, set_proj_id=2, set_project_name="one", set_accessLevel=1)
    changes.addaccesslevel(server, set_proj_id=2, set_accessLevel=0, set_mjd_max=-1.0)

    def rules() -> list[Any]:
        order = pstampAccessLevel.proj_id, pstampAccessLevel.accessLevel
        return list(pstampAccessLevel.select().order_by(*order).tuples())

    assert rules() == [(1, 1, 0.0, 55000.123), (2, 0, 0.0, -1.0), (2, 1, 0.0, 0.0)]
    refused(1, "there is no project 99", changes.addaccesslevel, server, set_proj_id=99, set_accessLevel=1)
    refused(1, "there is no project o%e", changes.addaccesslevel, server, set_project_name="o%e", set_accessLevel=1)
    neither = "-addaccesslevel: -set_proj_id or -set_project_name is missing"
    refused(1, neither, changes.addaccesslevel, server, set_accessLevel=1)
    there = "project two has a rule for access level 1 (-updateaccesslevel)"
    refused(1, there, changes.addaccesslevel, server, set_project_name="two", set_accessLevel=1)
    changes.updateaccesslevel(server, project_name="TWO", accessLevel=1, set_mjd_min=5.5)
    changes.updateaccesslevel(server, proj_id=1, set_mjd_max=0.0)
    changes.updateaccesslevel(server, project_name="t%", set_mjd_max=7.0)
    assert rules() == [(1, 1, 0.0, 0.0), (2, 0, 0.0, -1.0), (2, 1, 5.5, 0.0)]
    changes.updateaccesslevel(server, accessLevel=1, set_mjd_max=8.0)
    assert rules() == [(1, 1, 0.0, 8.0), (2, 0, 0.0, -1.0), (2, 1, 5.5, 8.0)]
    which = (
        "-updateaccesslevel: would change every row; search parameters are required, at least one of -project_name, "
        "-proj_id, -accessLevel"
    )
    refused(3, which, changes.updateaccesslevel, server, set_mjd_max=1.0)
    what = "-updateaccesslevel: nothing to change; at least one of -set_mjd_min, -set_mjd_max is required"
    refused(1, what, changes.updateaccesslevel, server, proj_id=1)


# -- others at work


def test_nobody_changes_what_a_job_is_added_to(
    server: Server, other: Store, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it could be finished, or given up, between the look at it and the job."""
    request, _ = running(server)
    dependent = changes.getdependent(server, **component())
    look, looked = jobs.numbered, []

    def meanwhile(table: Any, number: int) -> Any:
        looked.append(table)
        with other.reading():
            if engine == "sqlite":
                other.db.execute_sql("PRAGMA busy_timeout = 0")
                query = "BEGIN IMMEDIATE", ()
            else:
                query = table.select().where(table.key() == number).for_update(nowait=True).sql()
            with pytest.raises(OperationalError, match=r"[Ll]ock"):
                other.db.execute_sql(*query)
        return look(table, number)

    monkeypatch.setattr(jobs, "numbered", meanwhile)
    changes.addjob(server, req_id=request.req_id, rownum="1", outputBase="b", dep_id=dependent)
    assert looked == [pstampRequest, pstampDependent]


def test_two_who_need_a_component_at_once_share_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    number = changes.getdependent(server, **component())
    look, looks = dependents.locked_dependents, []

    def too_early(condition: Any) -> Any:
        looks.append(condition)
        return look(condition) if len(looks) > 1 else []

    monkeypatch.setattr(dependents, "locked_dependents", too_early)
    assert changes.getdependent(server, **component()) == number
    assert len(looks) == 2
