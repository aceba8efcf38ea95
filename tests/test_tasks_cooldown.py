"""A component that was given up is left alone for a while; and what a request starts from when it is parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import SECOND, Clock, Rows, check_history

from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import (
    MACHINES,
    Store,
    dependents_to_check,
    fire,
    make,
    moment,
    pstampDependent,
    pstampFile,
    pstampJob,
    pstampRequest,
    requests_to_parse,
)
from pstamp_core.tasks import parse as tasks_parse
from pstamp_core.tasks.dependents import close
from pstamp_core.tasks.operate import accept
from pstamp_core.tasks.parse import Plan, PlannedJob, store_plan
from pstamp_core.tasks.retry import give_up_one
from pstamp_core.tasks.server import Server

HOUR = 3600


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    return Server(Settings(tmp_path), store)


def parse(server: Server, *components: str, preview: bool = False, **other: Any) -> Any:
    """A request with a job for each component, which waits for it; gives the last dependent."""
    need = {"stage": "warp", "stage_id": 1, "imagedb": "g", "reason": "cleaned"}
    state = JobState.PARSED if preview else JobState.RUN
    needs = [{**need, "component": each, **other} for each in components or ("sky.1",)]
    plan = Plan(preview=preview, jobs=[PlannedJob({"image": "x", "state": state}, need) for need in needs])
    at = moment(server.store.now())

    def work() -> None:
        made = make(pstampRequest, now=server.store.now(), who="ana", uri="a.fits", registered=at, timestamp=at)
        query = requests_to_parse(server.store.now()).where(pstampRequest.req_id == made.req_id)
        (request,) = server.store.claim(query, server.args(), 1)
        store_plan(server, request, plan)

    server.store.work(work)
    (job,) = pstampJob.select().order_by(pstampJob.job_id.desc()).limit(1)
    return pstampDependent.get_by_id(job.dep_id)


def waits(server: Server) -> list[int]:
    """The dependents that are looked at now."""
    return [row.dep_id for row in dependents_to_check(server.store.now())]


def claim(server: Server, dependent: Any) -> Any:
    (claimed,) = server.store.work(lambda: fire([dependent], Event.CLAIM, server.args()))
    return claimed


def test_the_next_request_waits_until_the_component_has_cooled_down(server: Server, clock: Clock) -> None:
    first = parse(server)
    assert (first.retry_at, first.reason) == (0, "cleaned")
    give_up_one(server, "dependent", first.dep_id, "otto")
    until = clock.now + HOUR * SECOND
    clock.forward(600)
    second = parse(server)
    assert second.dep_id != first.dep_id
    assert (second.state, second.fault, second.fault_count, second.retry_at) == (DependentState.NEW, 0, 0, until)
    assert second.reason == (
        "cleaned; dependent 1 for it was given up at 08:00:00 UTC, so that it is tried again after 2027-01-15 09:00:00 "
        "UTC"
    )
    assert waits(server) == []
    assert parse(server).dep_id == second.dep_id  # later ones join, and wait with it
    clock.forward(2999)
    assert waits(server) == []
    clock.forward(1)
    assert waits(server) == [second.dep_id]
    for table in MACHINES:
        check_history(table)


def test_what_fails_again_cools_down_again(server: Server, clock: Clock) -> None:
    give_up_one(server, "dependent", parse(server).dep_id, "otto")
    clock.forward(2 * HOUR)
    second = parse(server)
    assert second.retry_at == 0
    give_up_one(server, "dependent", second.dep_id, "otto")
    assert parse(server).retry_at == clock.now + HOUR * SECOND


@pytest.mark.parametrize("other", [{"component": "sky.2"}, {"stage": "diff"}, {"stage_id": 2}, {"imagedb": "h"}])
def test_another_component_does_not_wait(server: Server, other: dict[str, Any]) -> None:
    give_up_one(server, "dependent", parse(server).dep_id, "otto")
    assert parse(server, **other).retry_at == 0


def test_a_component_that_was_gone_does_not_wait(server: Server) -> None:
    """It is needed again, so that its pixels may be had by now."""
    claimed = claim(server, parse(server))
    server.store.work(lambda: close([claimed], server.args(fault=26), "purged"))
    assert parse(server).retry_at == 0


def test_a_component_that_was_there_since_does_not_wait(server: Server) -> None:
    give_up_one(server, "dependent", parse(server).dep_id, "otto")
    server.store.work(lambda: pstampDependent.update(retry_at=0).execute())
    second = parse(server)
    server.store.work(lambda: pstampDependent.update(retry_at=0).execute())
    claimed = claim(server, pstampDependent.get_by_id(second.dep_id))
    server.store.work(lambda: fire([claimed], Event.SATISFY, server.args()))
    assert parse(server).retry_at == 0


def test_a_preview_waits_too_once_it_is_accepted(server: Server, clock: Clock) -> None:
    give_up_one(server, "dependent", parse(server).dep_id, "otto")
    held = parse(server, preview=True)
    assert (held.state, held.retry_at) == (DependentState.HOLD, clock.now + HOUR * SECOND)
    accept(server, 2, "ana")
    assert waits(server) == []
    clock.forward(HOUR)
    assert waits(server) == [held.dep_id]


def test_a_site_can_do_without(store: Store, tmp_path: Path) -> None:
    server = Server(Settings(tmp_path, cooldown_seconds=0), store)
    give_up_one(server, "dependent", parse(server).dep_id, "otto")
    assert parse(server).retry_at == 0


def test_parsing_starts_without_the_jobs_that_a_request_has(server: Server, rows: Rows) -> None:
    """Somebody added one by hand, or the original left them half made; their files go, too."""
    request, other = rows.request(RequestState.NEW), rows.request(RequestState.RUN)
    added, kept = rows.job(request), rows.job(other)
    for job in (added, added, kept):
        pstampFile.create(job_id=job.job_id, path=f"/bundles/{job.job_id}.tgz")

    def work() -> Any:
        (claimed,) = server.store.claim(requests_to_parse(server.store.now()), server.args(), 1)
        return claimed

    claimed = server.store.work(work)
    plan = Plan(jobs=[PlannedJob({"image": "b.fits", "state": JobState.RUN})])

    def fails() -> None:
        store_plan(server, claimed, plan)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        server.store.work(fails)
    assert (pstampJob.select().count(), pstampFile.select().count()) == (2, 3)
    server.store.work(lambda: store_plan(server, claimed, plan))
    assert [(job.request_id, job.image) for job in pstampJob.select().order_by(pstampJob.req_id)] == [
        (request.req_id, "b.fits"), (other.req_id, "a.fits"),
    ]  # fmt: skip
    assert [file.job_id for file in pstampFile.select()] == [kept.job_id]


def test_a_component_that_was_gone_after_it_was_given_up_does_not_wait(server: Server) -> None:
    give_up_one(server, "dependent", parse(server).dep_id, "otto")
    second = parse(server)
    give_up_one(server, "dependent", parse(server, "sky.2").dep_id, "otto")  # another one since
    server.store.work(lambda: pstampDependent.update(retry_at=0).execute())
    claimed = claim(server, pstampDependent.get_by_id(second.dep_id))
    server.store.work(lambda: close([claimed], server.args(fault=26), "purged"))
    assert parse(server).retry_at == 0


def test_many_components_are_asked_for_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look for those given up, however many a request needs."""
    give_up_one(server, "dependent", parse(server, "7").dep_id, "otto")
    looks: list[int] = []
    look = tasks_parse.given_up_lately

    def count(*args: Any) -> Any:
        looks.append(1)
        return look(*args)

    monkeypatch.setattr(tasks_parse, "given_up_lately", count)
    parse(server, *map(str, range(20)))
    assert looks == [1]
    assert [row.component for row in pstampDependent.select().where(pstampDependent.retry_at > 0)] == ["7"]
