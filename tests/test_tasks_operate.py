"""What people do to one row, and the tasks that look after faults: on rows alone, without files."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Clock, Rows, check_history

from pstamp_core.faults import Bug, IllegalTransition, LeaseLost, RetryableError, UserError
from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import (
    MACHINES,
    TABLES,
    Label,
    Store,
    Worked,
    fire,
    jobs_to_run,
    make,
    moment,
    pstampDependent,
    pstampHistory,
    pstampJob,
    pstampRequest,
    requests_to_finish,
    requests_to_parse,
)
from pstamp_core.tasks.dependents import close
from pstamp_core.tasks.operate import (
    Choice,
    Effect,
    accept,
    cancel,
    expire,
    hold,
    label_of,
    order,
    release,
    set_priority,
)
from pstamp_core.tasks.parse import Plan, PlannedJob, store_plan
from pstamp_core.tasks.report import label_history
from pstamp_core.tasks.retry import give_up, give_up_one, reap, revert
from pstamp_core.tasks.server import Server
from pstamp_core.testing.invariants import check, look

Reread = Callable[[Any], Any]


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    return Server(Settings(tmp_path), store)


def submit(server: Server) -> pstampRequest:
    """A new request, claimed."""
    at = moment(server.store.now())

    def work() -> Any:
        return make(pstampRequest, now=server.store.now(), who="ana", uri="a.fits", registered=at, timestamp=at)

    number = server.store.work(work).req_id
    query = requests_to_parse(server.store.now()).where(pstampRequest.req_id == number)
    (request,) = server.store.work(lambda: server.store.claim(query, server.args(), 1))
    return request


def plan_of(*components: str, preview: bool = False) -> Plan:
    plan = Plan(preview=preview)
    for component in components:
        need = {"stage": "warp", "stage_id": 1, "component": component, "imagedb": "g", "reason": ""}
        plan.jobs.append(
            PlannedJob({"image": component, "state": JobState.PARSED if preview else JobState.RUN},
                       need if component else None)
        )  # fmt: skip
    return plan


def parse(server: Server, request: pstampRequest, *components: str, preview: bool = False) -> list[pstampJob]:
    """Jobs of `request`, one for each component to wait for; the component "" is there."""
    server.store.work(lambda: store_plan(server, request, plan_of(*components, preview=preview)))
    return list(pstampJob.select().where(pstampJob.req_id == request.req_id).order_by(pstampJob.job_id))


def last(row: Worked) -> Any:
    """The last line of a row's history."""
    mine = (pstampHistory.machine == MACHINES[type(row)].name) & (pstampHistory.row_id == row.id_)
    return pstampHistory.select().where(mine).order_by(pstampHistory.hist_id.desc()).first()


def fire_one(server: Server, row: Worked, event: Event, fault: int = 0, **columns: Any) -> Any:
    (changed,) = server.store.work(lambda: fire([row], event, server.args(fault=fault), **columns))
    return changed


def histories_are_legal() -> None:
    for table in MACHINES:
        check_history(table)


def number_of(job: pstampJob) -> int:
    return int(job.dep_id)


def dependent_of(job: pstampJob) -> Any:
    return pstampDependent.get_by_id(job.dep_id)


# -- accept


def test_an_accepted_preview_runs(server: Server, reread: Reread) -> None:
    request = submit(server)
    jobs = parse(server, request, "", "sky.1", preview=True)
    assert dependent_of(jobs[1]).state is DependentState.HOLD
    accept(server, request.req_id, "ana", "looks good")
    assert reread(request).state is RequestState.RUN
    assert [reread(job).state for job in jobs] == [JobState.RUN, JobState.RUN]
    dependent = dependent_of(jobs[1])
    assert dependent.state is DependentState.NEW
    for row, event in ((request, "accept"), (jobs[0], "accept"), (jobs[1], "accept"), (dependent, "unhold")):
        line = last(row)
        assert (line.event, line.who) == (event, "ana")
        assert line.note == (f"request {request.req_id} needs it" if event == "unhold" else "looks good")
    assert [job.job_id for job in jobs_to_run(server.store.now())] == [jobs[0].job_id]
    histories_are_legal()


def test_accepting_leaves_other_previews_and_their_components_alone(server: Server, reread: Reread) -> None:
    mine, theirs = submit(server), submit(server)
    parse(server, mine, "sky.1", preview=True)
    shared, alone = parse(server, theirs, "sky.1", "sky.2", preview=True)
    accept(server, mine.req_id, "ana")
    assert reread(theirs).state is RequestState.PARSED
    assert reread(shared).state is JobState.PARSED
    assert dependent_of(shared).state is DependentState.NEW
    assert dependent_of(alone).state is DependentState.HOLD


def test_a_job_of_a_preview_whose_component_was_given_up_stops_with_its_code(server: Server, reread: Reread) -> None:
    """Else it would wait for ever: a closed dependent is never looked at again."""
    request = submit(server)
    there, gone = parse(server, request, "", "sky.1", preview=True)
    give_up_one(server, "dependent", number_of(gone), "otto", "no disk")
    assert reread(gone).state is JobState.PARSED
    accept(server, request.req_id, "ana")
    assert reread(there).state is JobState.RUN
    gone = reread(gone)
    assert (gone.state, gone.fault) == (JobState.STOP, 25)
    assert gone.sentence == "warp sky.1 could not be made again: given up by otto: no disk"
    histories_are_legal()


def test_only_a_preview_is_accepted(server: Server) -> None:
    request = submit(server)
    with pytest.raises(
        IllegalTransition, match=f"^request {request.req_id}: accept refused, not possible in state new"
    ):
        accept(server, request.req_id, "ana")
    with pytest.raises(UserError, match=r"^there is no request 999$"):
        accept(server, 999, "ana")


# -- cancel


def test_a_cancelled_request_has_no_open_job(server: Server, reread: Reread) -> None:
    request = submit(server)
    done, held, faulted, waiting = parse(server, request, "", "", "", "sky.1")
    for job, event, fault in ((done, Event.FINISH, 0), (faulted, Event.FAULT, 2)):
        fire_one(server, fire_one(server, job, Event.CLAIM), event, fault)
    held = fire_one(server, held, Event.CLAIM)
    cancel(server, "request", request.req_id, "ana", "wrong field")
    assert reread(request).state is RequestState.CANCEL
    found = [(row.state.value, row.fault, row.lease_owner) for row in map(reread, (done, held, faulted, waiting))]
    assert found == [("stop", 0, ""), ("cancel", 32, ""), ("cancel", 32, ""), ("cancel", 32, "")]
    assert reread(faulted).sentence == "wrong field"
    for row in (request, held):
        assert (last(row).event, last(row).who, last(row).note) == ("cancel", "ana", "wrong field")
    with pytest.raises(LeaseLost):
        fire_one(server, held, Event.FINISH)
    assert [each.req_id for each in requests_to_finish(server.store.now())] == [request.req_id]
    histories_are_legal()


def test_a_request_cancelled_before_it_is_parsed_gets_an_answer(server: Server, reread: Reread) -> None:
    request = submit(server)
    cancel(server, "request", request.req_id, "ana", "wrong file")
    row = reread(request)
    assert (row.state, row.lease_owner, row.reqType) == (RequestState.CANCEL, "", "unknown")
    assert (row.name, row.outProduct) == (f"ERROR.{request.req_id}", server.settings.product)
    (job,) = pstampJob.select()
    assert (job.state, job.fault, job.sentence, job.rownum) == (JobState.STOP, 32, "wrong file", "0")
    with pytest.raises(LeaseLost):
        parse(server, request, "")
    assert pstampJob.select().count() == 1
    assert [each.req_id for each in requests_to_finish(server.store.now())] == [request.req_id]
    histories_are_legal()


@pytest.mark.parametrize("end", [cancel, give_up_one], ids=["cancelled", "given up"])
def test_jobs_that_an_operator_added_before_parsing_do_not_outlive_it(
    server: Server, rows: Rows, reread: Reread, end: Callable[..., None]
) -> None:
    request = rows.request(RequestState.NEW, fault=2, cause=2)
    rows.job(request)
    end(server, "request", request.req_id, "ana")
    (job,) = pstampJob.select()
    assert (job.state is JobState.STOP, job.fault in (25, 32)) == (True, True)
    assert reread(request).req_id in [each.req_id for each in requests_to_finish(server.store.now())]


def test_one_job_is_cancelled(server: Server, reread: Reread) -> None:
    request = submit(server)
    one, two = parse(server, request, "", "")
    cancel(server, "job", one.job_id, "ana")
    assert [reread(job).state for job in (one, two)] == [JobState.CANCEL, JobState.RUN]
    assert reread(request).state is RequestState.RUN
    with pytest.raises(IllegalTransition, match=f"^job {one.job_id}: cancel refused, not possible in state cancel"):
        cancel(server, "job", one.job_id, "ana")


def test_a_dependent_is_not_cancelled(server: Server) -> None:
    (job,) = parse(server, submit(server), "sky.1")
    with pytest.raises(UserError, match=r"^cancel: expected request or job, not 'dependent'$"):
        cancel(server, "dependent", job.dep_id, "ana")
    assert dependent_of(job).state is DependentState.NEW


# -- hold, release, expire


def test_hold_and_release(server: Server, reread: Reread) -> None:
    (job,) = parse(server, submit(server), "sky.1")
    hold(server, job.dep_id, "otto", "broken disk")
    dependent = dependent_of(job)
    assert dependent.state is DependentState.HOLD
    assert (last(dependent).event, last(dependent).who, last(dependent).note) == ("hold", "otto", "broken disk")
    release(server, job.dep_id, "otto", "mended")
    assert dependent_of(job).state is DependentState.NEW
    assert (last(dependent).event, last(dependent).who, last(dependent).note) == ("unhold", "otto", "mended")
    with pytest.raises(IllegalTransition, match="unhold refused"):
        release(server, job.dep_id, "otto")
    histories_are_legal()


def test_a_finished_request_is_expired(server: Server, reread: Reread) -> None:
    request = submit(server)
    with pytest.raises(IllegalTransition, match="expire refused, not possible in state new"):
        expire(server, request.req_id, "otto")
    cancel(server, "request", request.req_id, "ana")
    fire_one(server, fire_one(server, reread(request), Event.CLAIM), Event.FINISH)
    expire(server, request.req_id, "otto", "disk is full")
    assert reread(request).state is RequestState.GOTO_CLEANED
    assert (last(request).event, last(request).who, last(request).note) == ("expire", "otto", "disk is full")
    histories_are_legal()


# -- giving up by hand


def test_an_operator_gives_a_dependent_up_with_its_jobs(server: Server, reread: Reread) -> None:
    waiting, other = parse(server, submit(server), "sky.1", "sky.2")
    hold(server, waiting.dep_id, "otto")
    give_up_one(server, "dependent", number_of(waiting), "otto")
    dependent, job = dependent_of(waiting), reread(waiting)
    assert (dependent.state, dependent.fault, dependent.open_key) == (DependentState.STOP, 25, None)
    assert (job.state, job.fault) == (JobState.STOP, 25)
    assert job.sentence == dependent.reason == "warp sky.1 could not be made again: given up by otto"
    assert {last(dependent).who, last(job).who} == {"otto"}
    assert reread(other).state is JobState.RUN
    histories_are_legal()


def test_an_operator_gives_a_job_up(server: Server, reread: Reread) -> None:
    fresh, failed = parse(server, submit(server), "", "")
    claimed = fire_one(server, failed, Event.CLAIM)
    with pytest.raises(IllegalTransition, match="give_up refused, it needs: nobody has a lease"):
        give_up_one(server, "job", claimed.job_id, "otto")
    fire_one(server, claimed, Event.FAULT, 5, sentence="bad block")
    for job in (fresh, failed):
        give_up_one(server, "job", job.job_id, "otto", "enough")
    fresh, failed = reread(fresh), reread(failed)
    assert (fresh.state, fresh.fault, fresh.cause) == (JobState.STOP, 25, 0)
    assert fresh.sentence == "given up by otto: enough"
    assert (failed.state, failed.fault, failed.cause) == (JobState.STOP, 25, 5)
    assert failed.sentence == (
        "given up by otto: enough; 1 tries failed, the last with 5: A file or value was damaged. (bad block)"
    )


def test_an_operator_gives_a_request_up_that_can_not_be_parsed(server: Server, reread: Reread) -> None:
    request = submit(server)
    fire_one(server, request, Event.FAULT, 2)
    give_up_one(server, "request", request.req_id, "otto")
    assert reread(request).state is RequestState.RUN
    (job,) = pstampJob.select()
    assert (job.state, job.fault, job.cause) == (JobState.STOP, 25, 2)
    assert job.sentence == (
        "the request could not be parsed: given up by otto; 1 tries failed, the last with 2: "
        "A disk, network or system call failed."
    )
    histories_are_legal()


# -- orders for many rows


def everything(server: Server) -> dict[str, list[Any]]:
    """All rows of all tables."""
    return {table.__name__: list(table.select().order_by(*table._meta.sorted_fields[:1]).tuples()) for table in TABLES}


def faulted(server: Server, job: pstampJob, fault: int = 2) -> Any:
    return fire_one(server, fire_one(server, job, Event.CLAIM), Event.FAULT, fault)


def labelled(server: Server, label: str) -> pstampRequest:
    request = submit(server)
    pstampRequest.update(label=label).where(pstampRequest.req_id == request.req_id).execute()
    return request


def test_a_rehearsal_tells_what_an_order_does_and_changes_nothing(server: Server) -> None:
    request = submit(server)
    one, two, *_ = parse(server, request, "", "", "sky.1")
    faulted(server, one)
    before = everything(server)
    numbers = (request.req_id,)
    effects = order(server, "cancel", Choice("request", numbers), "otto", "wrong field", dry_run=True)
    assert everything(server) == before
    names = tuple(str(number) for number in (one.job_id, two.job_id, two.job_id + 1))
    assert effects == [
        Effect("request", "cancel", "run", "cancel", 0, 0, (str(request.req_id),)),
        Effect("job", "cancel", "run", "cancel", 32, 0, names[1:]),
        Effect("job", "cancel", "run", "cancel", 32, 2, names[:1]),
    ]
    assert order(server, "cancel", Choice("request", numbers), "otto", "wrong field", expected=effects) == effects
    assert {(line.who, line.note) for line in pstampHistory.select().where(pstampHistory.event == "cancel")} == {
        ("otto", "wrong field")
    }
    histories_are_legal()


@pytest.mark.parametrize(
    ("event", "machine"),
    [("revert", "job"), ("give_up", "job"), ("give_up", "dependent"), ("cancel", "job"), ("hold", "dependent")],
)
def test_no_rehearsal_changes_anything(server: Server, event: str, machine: str) -> None:
    (job,) = parse(server, submit(server), "sky.1")
    faulted(server, job)
    before = everything(server)
    assert order(
        server, event, Choice(machine, (job.job_id if machine == "job" else number_of(job),)), "o", dry_run=True
    )
    assert everything(server) == before


def test_what_is_not_as_it_was_shown_is_left_alone(server: Server) -> None:
    one, two = parse(server, submit(server), "", "")
    faulted(server, one)
    shown = order(server, "revert", Choice("job"), "otto", dry_run=True)
    assert [effect.names for effect in shown] == [(str(one.job_id),)]
    faulted(server, two)
    before = everything(server)
    with pytest.raises(RetryableError, match=r"^the rows have changed since they were shown, so nothing was done"):
        order(server, "revert", Choice("job"), "otto", expected=shown)
    assert everything(server) == before


def test_one_row_that_refuses_keeps_all_from_being_changed(server: Server) -> None:
    one, two = parse(server, submit(server), "", "")
    faulted(server, one)
    before = everything(server)
    with pytest.raises(IllegalTransition, match=f"^job {two.job_id}: revert refused"):
        order(server, "revert", Choice("job", (one.job_id, two.job_id)), "otto")
    assert everything(server) == before
    with pytest.raises(UserError, match=r"^there is no job 999$"):
        order(server, "revert", Choice("job", (one.job_id, 999)), "otto")
    assert everything(server) == before
    order(server, "revert", Choice("job", (one.job_id, one.job_id)), "otto")
    assert pstampJob.get_by_id(one.job_id).fault == 0


def test_a_rehearsal_is_no_part_of_another_unit_of_work(server: Server) -> None:
    """It could not be rolled back by itself."""
    with pytest.raises(Bug, match="a rehearsal within another unit of work"):
        server.store.work(lambda: order(server, "revert", Choice("job"), "otto", dry_run=True))


def test_rows_are_chosen_by_fault_label_and_request(server: Server) -> None:
    jobs = [*parse(server, labelled(server, "A"), "", "", "sky.1"), *parse(server, labelled(server, "B"), "", "sky.2")]
    one, other, waiting, of_b, waiting_b = jobs
    held = fire_one(server, other, Event.CLAIM)
    for job, fault in ((one, 2), (waiting, 5), (of_b, 2)):
        faulted(server, job, fault)
    for job in (waiting, waiting_b):
        dependent = fire_one(server, dependent_of(job), Event.CLAIM)
        fire_one(server, dependent, Event.FAULT, 2)

    def chosen(event: str, machine: str, **filters: Any) -> set[int]:
        effects = order(server, event, Choice(machine, **filters), "otto", dry_run=True)
        return {int(name) for effect in effects if effect.machine == machine for name in effect.names}

    for event in ("revert", "give_up"):
        assert chosen(event, "job") == {one.job_id, waiting.job_id, of_b.job_id}
        assert chosen(event, "job", fault=2) == {one.job_id, of_b.job_id}
        assert chosen(event, "job", label="A") == {one.job_id, waiting.job_id}
        assert chosen(event, "job", label="A", fault=2) == {one.job_id}
        assert chosen(event, "job", req_id=of_b.request_id) == {of_b.job_id}
        assert chosen(event, "job", label="none") == set()
        assert chosen(event, "dependent") == {waiting.dep_id, waiting_b.dep_id}
        assert chosen(event, "dependent", label="B") == {waiting_b.dep_id}
        assert chosen(event, "dependent", req_id=one.request_id) == {waiting.dep_id}
    assert chosen("cancel", "request", label="B") == {of_b.request_id}
    assert chosen("cancel", "job", req_id=held.request_id) == {one.job_id, other.job_id, waiting.job_id}
    with pytest.raises(UserError, match=r"^there is no request 999$"):
        chosen("cancel", "job", req_id=999)


def test_thousands_of_jobs_are_reverted_by_few_statements(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    request = submit(server)
    parse(server, request, *[""] * 1200)
    while claimed := server.store.work(lambda: server.store.claim_jobs(server.args(), 2000)):
        server.store.work(lambda: fire(claimed, Event.FAULT, server.args(fault=2), sentence="no disk"))
    assert pstampJob.select().where(pstampJob.fault == 2).count() == 1200
    statements = 0
    execute = server.store.db.execute_sql

    def count(*args: Any, **kwargs: Any) -> Any:
        nonlocal statements
        statements += 1
        return execute(*args, **kwargs)

    monkeypatch.setattr(server.store.db, "execute_sql", count)
    for event in ("revert", "give_up"):
        statements = 0
        (effect,) = order(server, event, Choice("job"), "otto", dry_run=True)
        assert (len(effect.names), statements < 30) == (1200, True)


# -- the priority of a label


def test_the_priority_of_a_label(server: Server, rows: Rows) -> None:
    request = labelled(server, "A")
    assert label_of(server, request.req_id) == "A"
    (effect,) = set_priority(server, "A", 20000, "otto", "tonight", dry_run=True)
    assert effect == Effect("label", "priority", "10000", "20000", 0, 0, ("A",))
    assert not Label.select().exists()
    assert set_priority(server, "A", 20000, "otto", "tonight", expected=[effect]) == [effect]
    assert [(row.label, row.priority, row.active) for row in Label.select()] == [("A", 20000, True)]
    assert set_priority(server, "a", 5, "ana") == [Effect("label", "priority", "20000", "5", 0, 0, ("A",))]
    assert set_priority(server, "A", 5, "ana") == []
    rows.label("A': B", 7)
    set_priority(server, "A': B", 8, "ana")
    lines = label_history(server, "A")
    assert [(line.source, line.dest, line.who, line.note) for line in lines] == [
        ("10000", "20000", "otto", "'A': tonight"), ("20000", "5", "ana", "'A': "),
    ]  # fmt: skip
    with pytest.raises(RetryableError, match=r"^the rows have changed"):
        set_priority(server, "A", 20000, "otto", expected=[effect])
    assert Label.get_by_id("A").priority == 5


def test_a_request_without_a_label(server: Server) -> None:
    request = submit(server)
    with pytest.raises(UserError, match=f"^request {request.req_id} has no label, hence the default priority 10000$"):
        label_of(server, request.req_id)


@pytest.mark.parametrize("label", ["", "x" * 65])
def test_a_label_that_can_not_be(server: Server, label: str) -> None:
    with pytest.raises(UserError, match="expected 1 to 64 characters"):
        set_priority(server, label, 5, "otto")


# -- tasks that look after faults


def fault_out(server: Server, job: pstampJob, clock: Clock, times: int) -> None:
    """Let the dependent of `job` fail so often."""
    for number in range(times):
        if number:
            clock.forward(3600)
            assert revert(server) == 1
        fire_one(server, fire_one(server, dependent_of(job), Event.CLAIM), Event.FAULT, 2)


def test_a_faulted_dependent_on_hold_keeps_nothing_else_from_being_reverted(
    server: Server, reread: Reread, clock: Clock
) -> None:
    held, failed = parse(server, submit(server), "sky.1", "")
    fault_out(server, held, clock, 1)
    hold(server, held.dep_id, "otto")
    fire_one(server, fire_one(server, failed, Event.CLAIM), Event.FAULT, 2)
    clock.forward(3600)
    assert revert(server) == 1
    assert reread(failed).fault == 0
    assert dependent_of(held).fault == 2
    release(server, held.dep_id, "otto")
    assert revert(server) == 1
    assert dependent_of(held).fault == 0


def test_giving_up_ends_a_dependent_with_its_jobs(server: Server, reread: Reread, clock: Clock) -> None:
    waiting, fine = parse(server, submit(server), "sky.1", "")
    fault_out(server, waiting, clock, 2)
    assert give_up(server) == 0
    clock.forward(3600)
    revert(server)
    fault_out(server, waiting, clock, 1)
    assert give_up(server) == 1
    dependent, job = dependent_of(waiting), reread(waiting)
    assert (dependent.state, dependent.fault, dependent.cause) == (DependentState.STOP, 25, 2)
    assert (job.state, job.fault) == (JobState.STOP, 25)
    assert {last(dependent).who, last(job).who} == {"give up"}
    assert reread(fine).state is JobState.RUN
    histories_are_legal()


def test_a_job_lost_three_times_says_so(server: Server, reread: Reread, clock: Clock, rows: Rows) -> None:
    (job,) = parse(server, submit(server), "")
    for _ in range(3):
        assert len(server.store.work(lambda: server.store.claim_jobs(server.args(), 1))) == 1
        clock.forward(3600)
        assert reap(server) == 1
        clock.forward(3600)
        revert(server)
    assert give_up(server) == 1
    job = reread(job)
    assert (job.state, job.fault, job.cause) == (JobState.STOP, 25, 6)
    assert job.sentence == "3 tries failed, the last with 6: The work was lost or took too long."


# -- two at once, which SQLite does not allow


FORK = multiprocessing.get_context("fork")
Task = Callable[[Server], Any]


def meanwhile(server: Server, address: str, clock: Clock, first: Task, second: Task) -> None:
    """Do `second` in another process after `first`, before its transaction ends; it may have to wait for that."""
    begun, done = FORK.Event(), FORK.Event()

    def other() -> None:
        mine = Server(server.settings, Store(address, clock))
        mine.worker = server.worker
        with mine.store.reading():
            begun.set()
            mine.store.work(lambda: second(mine))
        done.set()

    process = FORK.Process(target=other)

    def unit() -> None:
        first(server)
        process.start()
        begun.wait(30)
        done.wait(0.5)

    server.store.work(unit)
    process.join(30)
    assert process.exitcode == 0


def in_both_orders(*names: str) -> Any:
    return pytest.mark.parametrize("order", [names, names[::-1]], ids=" then ".join)


@pytest.mark.parametrize("engine", ["mysql"])
@in_both_orders("parse", "close")
def test_a_component_is_given_up_while_a_request_that_needs_it_is_parsed(
    server: Server, address: str, clock: Clock, order: tuple[str, str]
) -> None:
    (waiting,) = parse(server, submit(server), "sky.1")
    dependent, request = fire_one(server, dependent_of(waiting), Event.CLAIM), submit(server)
    tasks: dict[str, Task] = {
        "parse": lambda server: store_plan(server, request, plan_of("sky.1")),
        "close": lambda server: close([dependent], server.args(fault=26), "purged"),
    }
    meanwhile(server, address, clock, *(tasks[name] for name in order))
    check(look(server.store))


@pytest.mark.parametrize("engine", ["mysql"])
@in_both_orders("accept", "give up")
def test_a_component_is_given_up_while_a_preview_that_needs_it_is_accepted(
    server: Server, address: str, clock: Clock, order: tuple[str, str]
) -> None:
    parse(server, submit(server), "sky.1")
    (preview,) = parse(server, submit(server), "sky.1", preview=True)
    tasks: dict[str, Task] = {
        "accept": lambda server: accept(server, preview.request_id, "ana"),
        "give up": lambda server: give_up_one(server, "dependent", number_of(preview), "otto"),
    }
    meanwhile(server, address, clock, *(tasks[name] for name in order))
    check(look(server.store))
