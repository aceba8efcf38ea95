"""The table of tasks, and `run`, which is driven by it."""

from __future__ import annotations

import string
import tomllib
from pathlib import Path

import pytest
import servers
from conftest import Clock
from typer.main import get_command

from pstamp_core.faults import RetryableError, UserError
from pstamp_core.machines import RequestState
from pstamp_core.store import pstampRequest, requests_to_parse
from pstamp_core.store.tables import pstampDataStore
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.table import TASKS, Task, do_task
from runners import pstamp
from simtest.survey import Survey

SCRIPTS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["scripts"]


def test_names_are_unique_and_those_with_a_queue_are_run() -> None:
    assert len({task.name for task in TASKS}) == len(TASKS)
    for task in TASKS:
        assert task.name.endswith(".run") == bool(task.queue)
        assert task.period > 0
        assert task.timeout > 0


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_command_exists_and_every_placeholder_is_known(task: Task) -> None:
    program, *arguments = task.arguments()
    assert program in SCRIPTS
    if program == "pstamp":
        assert arguments[0] in get_command(pstamp.app).commands
        assert arguments[1:] == [task.name]
    names = {name for word in task.command for _, name, _, _ in string.Formatter().parse(word) if name is not None}
    assert names <= {"limit"}
    assert ("limit" in names) == ("--limit" in task.command)
    assert str(task.limit) in arguments or "--limit" not in task.command


def test_one_task_is_done_by_its_name(server: Server, survey: Survey, tmp_path: Path) -> None:
    servers.send(server, tmp_path, servers.row(1, survey))
    assert do_task(server, "pstamp.request.run") == 1
    assert do_task(server, "pstamp.request.run") == 0
    assert do_task(server, "pstamp.job.run") == 1
    with pytest.raises(UserError) as caught:
        do_task(server, "pstamp.run")
    assert str(caught.value) == (
        "'pstamp.run': expected one of pstamp.request.find, pstamp.reap, pstamp.revert, pstamp.request.run, "
        "pstamp.dependent.run, pstamp.update, pstamp.job.run, request.finish.run, pstamp.cleanup.run, "
        "pstamp.stopfaulted, pstamp.queue.cleanup, pstamp.queue.update.cleanup"
    )


def test_no_request_is_claimed_before_its_turn(server: Server, survey: Survey, tmp_path: Path) -> None:
    sent = [servers.send(server, tmp_path, servers.row(1, survey), name=f"test_{number}") for number in (1, 2, 3)]
    seen = []

    def fail(request: pstampRequest) -> None:
        seen.append([row.req_id for row in pstampRequest.select().where(pstampRequest.lease_owner != "")])
        raise RetryableError("not now")

    with server.store.reading():
        assert server.work_through(requests_to_parse, 2, fail) == 2
        assert server.work_through(requests_to_parse, 2, fail) == 1
    assert seen == [[number] for number in sent]


def test_data_stores_are_polled_and_what_is_wrong_with_them_is_told(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with server.store.reading():
        pstampDataStore.create(uri=str(tmp_path / "nowhere"), outProduct="a")
    run(server, workers=1)
    assert caplog.messages == []
    assert do_task(server, "pstamp.request.find") == 0
    assert [message.partition(":")[0] for message in caplog.messages] == ["data store 1"]
    assert str(tmp_path / "nowhere") in caplog.text


def test_run_does_all_but_chores(server: Server, survey: Survey, tmp_path: Path) -> None:
    number = servers.send(server, tmp_path, servers.row(1, survey))
    server.store._clock = clock = Clock()
    run(server, workers=1)
    clock.forward(1000 * 86_400)
    run(server, workers=1)
    with server.store.reading():
        assert pstampRequest.get_by_id(number).state is RequestState.STOP
    assert do_task(server, "pstamp.queue.cleanup") == 1
    run(server, workers=1)
    with server.store.reading():
        assert pstampRequest.get_by_id(number).state is RequestState.CLEANED
