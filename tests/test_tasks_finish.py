"""How long stamps waited for their images, as the results table tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Clock

from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import Store, fire, make, moment, pstampDependent, pstampJob, pstampRequest
from pstamp_core.tasks.dependents import close
from pstamp_core.tasks.finish import _waits, result_rows
from pstamp_core.tasks.operate import accept, cancel
from pstamp_core.tasks.parse import Plan, PlannedJob, store_plan
from pstamp_core.tasks.server import Server


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    return Server(Settings(tmp_path, check_seconds=0), store)


NEED = {"imagedb": "g", "stage": "warp", "stage_id": 1, "component": "sky", "reason": "cleaned"}


def parse(server: Server, *needs: dict[str, Any] | None, preview: bool = False) -> pstampRequest:
    """A request with a job for each of `needs`."""
    state = JobState.PARSED if preview else JobState.RUN
    plan = Plan(preview=preview, jobs=[PlannedJob({"image": "x", "state": state}, need) for need in needs])
    at = moment(server.store.now())

    def work() -> Any:
        made = make(pstampRequest, now=server.store.now(), who="ana", uri="a.fits", registered=at, timestamp=at)
        query = pstampRequest.select().where(pstampRequest.req_id == made.req_id)
        (request,) = server.store.claim(query, server.args(), 1)
        return store_plan(server, request, plan)

    return pstampRequest.get_by_id(server.store.work(work).req_id)


def claim(server: Server, row: Any) -> Any:
    (claimed,) = server.store.work(lambda: fire([type(row).get_by_id(row.id_)], Event.CLAIM, server.args()))
    return claimed


def satisfy(server: Server, number: int = 1) -> None:
    claimed = claim(server, pstampDependent.get_by_id(number))
    server.store.work(lambda: fire([claimed], Event.SATISFY, server.args()))


def run(server: Server, job: pstampJob, event: Event = Event.FINISH, **columns: Any) -> None:
    claimed = claim(server, job)
    server.store.work(lambda: fire([claimed], event, server.args(), **columns))


def jobs_of(request: pstampRequest) -> list[pstampJob]:
    return list(pstampJob.select().where(pstampJob.req_id == request.req_id).order_by(pstampJob.job_id))


def test_from_the_making_of_the_job_to_the_end_of_its_dependent(server: Server, clock: Clock) -> None:
    """Neither before, nor what it waited for a worker after; a job without a dependent has not waited."""
    first = parse(server, NEED, None)
    clock.forward(30)
    second = parse(server, NEED)
    clock.forward(12.5)
    satisfy(server)
    clock.forward(1000)
    for job in (*jobs_of(first), *jobs_of(second)):
        run(server, job)
    assert _waits(first) == {1: 42.5}
    assert _waits(second) == {3: 12.5}


def test_one_whose_dependent_was_closed(server: Server, clock: Clock) -> None:
    request = parse(server, NEED)
    clock.forward(60)
    claimed = claim(server, pstampDependent.get())
    server.store.work(lambda: close([claimed], server.args(fault=25), "no"))
    assert _waits(request) == {1: 60.0}


@pytest.mark.parametrize("cause", [2, 0])
def test_the_cause_of_a_dependent_is_that_of_its_jobs(server: Server, cause: int) -> None:
    """What an earlier try of a job met is not why its image can't be had."""
    request = parse(server, NEED)
    claimed = claim(server, jobs_of(request)[0])
    server.store.work(lambda: fire([claimed], Event.FAULT, server.args(fault=5)))
    server.store.work(lambda: fire(jobs_of(request), Event.REVERT, server.args(operator=True)))
    dependent = claim(server, pstampDependent.get())
    server.store.work(lambda: close([dependent], server.args(fault=25), "no", cause))
    (row,) = result_rows(jobs_of(request)[0])
    assert (row["ERROR_CODE"], row["CAUSE"], row["SENTENCE"]) == (25, cause, "no")
    assert pstampDependent.get().cause == cause


@pytest.mark.parametrize("later", [True, False])
def test_one_that_was_cancelled_waits_no_longer(server: Server, clock: Clock, later: bool) -> None:
    """Whether its dependent goes on for others or not."""
    request = parse(server, NEED)
    parse(server, NEED)
    clock.forward(60)
    cancel(server, "job", 1, "ana")
    clock.forward(60)
    if later:
        satisfy(server)
    assert _waits(request) == {1: 60.0}


def test_a_preview_waits_from_when_it_is_accepted(server: Server, clock: Clock) -> None:
    request = parse(server, NEED, preview=True)
    assert request.state is RequestState.PARSED
    clock.forward(1000)
    accept(server, request.req_id, "ana")
    clock.forward(8)
    satisfy(server)
    clock.forward(8)
    run(server, jobs_of(request)[0])
    assert _waits(request) == {1: 8.0}
    assert pstampDependent.get().state is DependentState.FULL


def test_one_that_is_given_back_later(server: Server, clock: Clock) -> None:
    """By a server that stops, when the image was there; and one whose image had gone, from then on."""
    request = parse(server, NEED, None)
    clock.forward(60)
    satisfy(server)
    clock.forward(60)
    first, second = jobs_of(request)
    run(server, first, Event.RELEASE)
    other = parse(server, {**NEED, "stage_id": 2})
    run(server, second, Event.RELEASE, dep_id=jobs_of(other)[0].dep_id)
    clock.forward(5)
    satisfy(server, 2)
    for job in (first, second):
        run(server, job)
    assert _waits(request) == {1: 60.0, 2: 5.0}
