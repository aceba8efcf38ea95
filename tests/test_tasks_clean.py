"""Deleting a finished request: all that is its own, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers import row, send

from pstamp_core.datastore.index import read_product_index
from pstamp_core.faults import IllegalTransition, UserError
from pstamp_core.store import pstampRequest
from pstamp_core.tasks import operate, report
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server
from simtest.survey import Survey


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_request_is_deleted_and_its_neighbour_stays(server: Server, survey: Survey, tmp_path: Path) -> None:
    first = send(server, tmp_path, row(1, survey), name="a_1")
    run(server, workers=1)
    before = files(server.settings.work) | files(server.settings.datastore)
    second = send(server, tmp_path, row(1, survey), name="b_1")
    with pytest.raises(IllegalTransition, match=r"request 2: expire refused, not possible in state new"):
        operate.expire(server, second, "ana")
    run(server, workers=1)
    operate.expire(server, second, "ana")
    run(server, workers=1)
    assert files(server.settings.work) | files(server.settings.datastore) == before
    product = server.settings.datastore / "pstamp_results"
    assert [each.name for each in read_product_index((product / "index.txt").read_text())] == ["a_1"]
    columns, history = report.look_up(server, "request", second)
    assert columns["state"] == "cleaned"
    assert [line.event for line in history[-3:]] == ["expire", "claim", "clean"]
    with pytest.raises(UserError, match="request 2 is cleaned: no results yet"):
        report.results(server, second)
    assert report.results(server, first)


@pytest.mark.parametrize("outdir", ["{work}", "{work}/..", "/", "{work}/2026/01/01/99"])
def test_a_directory_that_is_not_its_own_is_left_alone(
    server: Server, survey: Survey, tmp_path: Path, outdir: str
) -> None:
    req_id = send(server, tmp_path, row(1, survey))
    run(server, workers=1)
    operate.expire(server, req_id, "ana")
    wrong = outdir.format(work=server.settings.work)
    server.store.work(lambda: pstampRequest.update(outdir=wrong).execute())
    before = files(server.settings.home)
    run(server, workers=1)
    assert files(server.settings.home) - {"pstamp.db-wal", "pstamp.db-shm"} == before - {
        "pstamp.db-wal",
        "pstamp.db-shm",
    }
    columns, _ = report.look_up(server, "request", req_id)
    assert (columns["state"], columns["fault"]) == ("goto_cleaned", 4)


def test_cleaning_may_be_repeated(
    server: Server, survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pstamp_core.tasks import clean

    req_id = send(server, tmp_path, row(1, survey))
    run(server, workers=1)
    operate.expire(server, req_id, "ana")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(clean.shutil, "rmtree", full)
        assert clean.clean_requests(server, 1) == 1
    assert report.look_up(server, "request", req_id)[0]["fault"] == 2
    run(server, workers=1)
    assert report.look_up(server, "request", req_id)[0]["state"] == "cleaned"
