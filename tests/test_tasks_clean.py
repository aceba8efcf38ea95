"""Deleting a finished request: all that is its own, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from servers import row, send

from pstamp_core.datastore.index import read_product_index
from pstamp_core.faults import IllegalTransition, UserError
from pstamp_core.files import measure
from pstamp_core.store import pstampFile, pstampJob, pstampRequest
from pstamp_core.tasks import clean, operate, report
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server
from simtest.survey import Survey

DATABASE = {"pstamp.db-wal", "pstamp.db-shm"}


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
    assert files(server.settings.home) - DATABASE == before - DATABASE
    columns, _ = report.look_up(server, "request", req_id)
    assert (columns["state"], columns["fault"]) == ("goto_cleaned", 4)


def test_cleaning_may_be_repeated(
    server: Server, survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def finished(server: Server, survey: Survey, tmp_path: Path, name: str = "a_1") -> dict[str, Any]:
    """The columns of a request that is finished, and is to be deleted."""
    req_id = send(server, tmp_path, row(1, survey), name=name)
    run(server, workers=1)
    operate.expire(server, req_id, "ana")
    return look(server, req_id)


def look(server: Server, req_id: int) -> dict[str, Any]:
    return report.look_up(server, "request", req_id)[0]


def test_what_was_done_before_it_broke_off_is_not_missed(
    server: Server, survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies while it deletes the work directory, whose logs, which tell whose it is, are gone by then."""
    outdir = Path(finished(server, survey, tmp_path)["outdir"])

    delete = shutil.rmtree

    def dies(path: Path) -> None:
        if path.parent != outdir.parent:
            return delete(path)
        for each in path.iterdir():
            if each.suffix == ".log":
                each.unlink()
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(clean.shutil, "rmtree", dies)
        clean.clean_requests(server, 1)
    assert not outdir.exists()
    assert look(server, 1)["fault"] == 2
    assert list(outdir.parent.iterdir())
    run(server, workers=1)
    assert look(server, 1)["state"] == "cleaned"
    assert list(outdir.parent.iterdir()) == []


def test_a_directory_without_a_log_of_the_request_is_left_alone(server: Server, survey: Survey, tmp_path: Path) -> None:
    outdir = Path(finished(server, survey, tmp_path)["outdir"])
    for name in ("psparse", "reqfinish"):
        (outdir / f"{name}.1.log").rename(outdir / f"{name}.2.log")
    before = files(server.settings.home)
    clean.clean_requests(server, 1)
    assert files(server.settings.home) - DATABASE == before - DATABASE
    columns, history = report.look_up(server, "request", 1)
    assert (columns["state"], columns["fault"]) == ("goto_cleaned", 4)
    assert history[-1].note == (
        f"request 1: nothing says that {outdir} is its own: there is no log of it in there, such as psparse.1.log; "
        "make an empty one if it is"
    )
    (outdir / "psparse.1.log").touch()
    run(server, workers=1)
    assert look(server, 1)["state"] == "cleaned"


def test_a_fileset_of_another_request_is_left_alone(server: Server, survey: Survey, tmp_path: Path) -> None:
    finished(server, survey, tmp_path)
    (tmp_path / "x.txt").write_text("x")
    server.datastore.withdraw("pstamp_results", "a_1")
    server.datastore.publish(
        "pstamp_results", "a_1", "PSRESULTS", [measure(tmp_path / "x.txt", "text")], values=("77",)
    )
    run(server, workers=1)
    assert look(server, 1)["state"] == "cleaned"
    assert [file.name for file in server.datastore.files("pstamp_results", "a_1")] == ["x.txt"]


def test_the_fileset_goes_from_the_product_it_was_published_in(server: Server, survey: Survey, tmp_path: Path) -> None:
    """A request that never was parsed has none of its own in its row."""
    finished(server, survey, tmp_path)
    server.store.work(lambda: pstampRequest.update(outProduct=None).execute())
    run(server, workers=1)
    assert server.datastore.filesets("pstamp_results") == []


@pytest.mark.parametrize("name", ["*.fits", "web_?.fits", "web_1.fits"])
def test_uploads_of_others_stay(server: Server, survey: Survey, tmp_path: Path, name: str) -> None:
    """Whatever a data store calls its files, and whatever an operator says a request's file is."""
    send(server, tmp_path, row(2, survey), name="b_1", action="PREVIEW")
    columns = finished(server, survey, tmp_path)
    other = server.settings.work / "webreq" / f"{columns['registered']:%Y/%m/%d}" / "web_1.fits"
    content = other.read_bytes()
    copy = Path(columns["outdir"]) / name
    Path(columns["uri"]).rename(copy)
    server.store.work(lambda: pstampRequest.update(uri=str(copy)).where(pstampRequest.req_id == 2).execute())
    clean.clean_requests(server, 1)
    assert look(server, 2)["state"] == "cleaned"
    assert other.read_bytes() == content


def test_an_upload_that_a_polled_file_equals_stays(server: Server, survey: Survey, tmp_path: Path) -> None:
    columns = finished(server, survey, tmp_path)
    upload = server.settings.work / "webreq" / f"{columns['registered']:%Y/%m/%d}" / "web_1.fits"
    server.store.work(lambda: pstampRequest.update(ds_id=1).execute())
    clean.clean_requests(server, 1)
    assert (look(server, 1)["state"], upload.exists()) == ("cleaned", True)


def test_an_upload_that_could_not_be_read_goes(server: Server, tmp_path: Path, survey: Survey) -> None:
    """Of which there is no copy."""
    req_id = send(server, tmp_path, row(1, survey))
    upload = Path(look(server, req_id)["uri"])
    upload.write_text("no table")
    run(server, workers=1)
    assert look(server, req_id)["uri"] == str(upload)
    operate.expire(server, req_id, "ana")
    run(server, workers=1)
    assert (look(server, req_id)["state"], upload.exists()) == ("cleaned", False)


def test_files_outside_that_were_noted_for_its_jobs_go(server: Server, survey: Survey, tmp_path: Path) -> None:
    """Named as IPP names bundles: <job_id>_<output base>_<name>; the note of another's stays."""
    send(server, tmp_path, row(1, survey), name="b_1")
    finished(server, survey, tmp_path)
    paths = [tmp_path / "1_bundle.tgz", tmp_path / "5_bundle.tgz", tmp_path / "5_gone.tgz"]
    for path in paths[:2]:
        path.touch()
    notes = [{"job_id": int(path.name[0]), "path": str(path)} for path in paths]
    server.store.work(lambda: pstampFile.insert_many(notes).execute())
    with server.store.reading():
        assert pstampJob.get_by_id(5).request_id == 2
    clean.clean_requests(server, 1)
    assert look(server, 2)["state"] == "cleaned"
    assert [path.exists() for path in paths] == [True, False, False]
    with server.store.reading():
        assert [file.path for file in pstampFile.select()] == [str(paths[0])]


def test_a_noted_file_that_is_not_named_after_its_job_keeps_all(server: Server, survey: Survey, tmp_path: Path) -> None:
    finished(server, survey, tmp_path)
    path = tmp_path / "11_bundle.tgz"
    path.touch()
    server.store.work(lambda: pstampFile.create(job_id=1, path=str(path)))
    before = files(server.settings.home)
    clean.clean_requests(server, 1)
    assert path.exists()
    assert files(server.settings.home) - DATABASE == before - DATABASE
    columns, history = report.look_up(server, "request", 1)
    assert (columns["state"], columns["fault"]) == ("goto_cleaned", 4)
    assert history[-1].note == (
        f"request 1: file {path} was noted for job 1, but its name does not begin with 1_; delete it by hand if it is "
        "the job's, and the note: pstamptool -deletefile -job_id 1"
    )
