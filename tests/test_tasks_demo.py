"""From a request file to a published fileset, on the simulated survey."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from servers import codes, row, send

from pstamp_core.datastore.index import read_fileset_index, read_product_index, read_root_index
from pstamp_core.faults import LeaseLost, UserError
from pstamp_core.formats import read_mdc, read_results
from pstamp_core.machines import Event, JobState, RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import Label, fire, pstampDependent, pstampHistory, pstampJob, pstampRequest
from pstamp_core.tasks import report
from pstamp_core.tasks.jobs import run_claimed_jobs
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server, add_project
from simtest.survey import Survey, restore


def all_jobs(server: Server) -> list[pstampJob]:
    with server.store.reading():
        return list(pstampJob.select().order_by(pstampJob.job_id))


def test_a_request_becomes_a_fileset(server: Server, survey: Survey, tmp_path: Path) -> None:
    req_id = send(
        server, tmp_path,
        row(1, survey, options=71),
        row(2, survey, req="byname"),
        row(3, survey, filter="z"),
        row(4, survey, req="byexp", img="warp", id=survey.exposures[1], options=32769, tess="null", filter="null"),
        row(5, survey, req="byexp", img="warp", id=survey.exposures[0], x=151.5, tess="null", filter="null"),
    )  # fmt: skip
    run(server, workers=1)
    found = codes(server, req_id)
    assert set(found[1]) == {0}
    assert {number: set(each) for number, each in found.items() if number > 1} == {2: {21}, 3: {23}, 4: {25}, 5: {28}}
    folder = report.fileset(server, req_id)
    index = read_fileset_index((folder / "index.txt").read_text())
    assert [entry.name for entry in index[:3]] == ["results.fits", "results.mdc", "parse_error.txt"]
    assert {path.name for path in folder.iterdir()} == {entry.name for entry in index} | {"index.txt"}
    for entry in index:
        content = (folder / entry.name).read_bytes()
        assert (len(content), hashlib.md5(content, usedforsecurity=False).hexdigest()) == (entry.bytes, entry.md5)
    results = read_results(folder / "results.fits")
    assert (results.req_name, results.req_id) == ("test_1", req_id)
    products = {line["IMG_NAME"] for line in results.rows} - {"0"}
    assert products == {entry.name for entry in index if entry.type in ("pstamp", "fits")}
    assert {Path(name).suffixes[-2] for name in products if ".mk." in name or ".wt." in name} == {".mk", ".wt"}
    blocks = read_mdc((folder / "results.mdc").read_text())
    assert [block["IMG_NAME"] for _, block in blocks] == [line["IMG_NAME"] for line in results.rows]
    product = read_product_index((folder.parent / "index.txt").read_text())
    assert [(each.name, each.type, each.values) for each in product] == [("test_1", "PSRESULTS", (str(req_id),))]
    root = read_root_index((folder.parent.parent / "index.txt").read_text())
    assert [(each.name, each.last_fileset) for each in root] == [("pstamp_results", "test_1")]
    errors = (folder / "parse_error.txt").read_text()
    assert "row 2: REQ_TYPE is 'byname'; expected byid, byexp, bydiff, bycoord or byskycell" in errors
    assert len(errors.splitlines()) == sum(code != 0 for each in found.values() for code in each)


def test_pixels_and_facts_of_a_stamp(server: Server, survey: Survey, tmp_path: Path) -> None:
    import numpy as np
    from astropy.io import fits
    from astropy.nddata import Cutout2D
    from astropy.wcs import WCS

    req_id = send(server, tmp_path, row(1, survey, req="byskycell", component=survey.skycells[0]))
    run(server, workers=1)
    (line,) = report.results(server, req_id)
    (job,) = all_jobs(server)
    source = json.loads(job.params)["files"]["image"]
    with fits.open(source) as hdus:
        wcs = WCS(hdus[1].header)
        x, y = wcs.wcs_world2pix(*survey.centre, 0)
        wanted = Cutout2D(hdus[1].data, (float(x), float(y)), (30, 30), mode="partial", fill_value=np.nan).data
    with fits.open(report.fileset(server, req_id) / line["IMG_NAME"]) as hdus:
        stamp = next(hdu for hdu in hdus if hdu.data is not None)
        np.testing.assert_array_equal(stamp.data, wanted)
        assert stamp.header["PSROWNUM"] == 1
        assert stamp.header["PSPROJ"] == "gpc1"
    assert (line["RA_DEG"], line["DEC_DEG"]) == survey.centre
    assert (line["BOX_NX"], line["BOX_NY"], line["FILTER"]) == (30, 30, "r.00000")
    assert line["INPUT_IMAGE"] == Path(source).name
    assert line["FRAC_FINITE"] == pytest.approx(np.isfinite(wanted).mean())


def test_a_cleaned_image_is_waited_for(server: Server, tmp_path: Path, survey: Survey) -> None:
    own = tmp_path / "own"
    shutil.copytree(survey.folder, own)
    add_project(server, "gpc1", str(own / survey.database.name), str(own))
    cell = survey.skycells[0]
    one = row(1, survey, req="byid", img="warp", id=survey.cleaned_warp, component=cell, filter="null", options=9)
    req_id = send(server, tmp_path, one)
    other = send(server, tmp_path, one, name="test_2")
    run(server, workers=1)
    (waiting,) = report.waiting(server)
    assert waiting.what == f"2 job(s) of request {req_id}, {other}"
    assert waiting.why == f"dependent 1: warp {survey.cleaned_warp} {cell}: being made again"
    with pytest.raises(UserError, match=f"request {req_id} is run: no results yet"):
        report.results(server, req_id)
    restore(own, "warp", survey.cleaned_warp, cell)
    run(server, workers=1)
    assert report.waiting(server) == []
    for each in (req_id, other):
        products = {Path(line["IMG_NAME"]).suffix for line in report.results(server, each)}
        assert products == {".fits", ".cmf"}  # side files are named again once the image is there


def test_a_component_that_is_purged_while_waited_for_ends_its_jobs(
    server: Server, tmp_path: Path, survey: Survey
) -> None:
    import sqlite3

    own = tmp_path / "own"
    shutil.copytree(survey.folder, own)
    add_project(server, "gpc1", str(own / survey.database.name), str(own))
    cell = survey.skycells[0]
    req_id = send(server, tmp_path, row(1, survey, req="byid", img="warp", id=survey.cleaned_warp, component=cell))
    req_id2 = send(server, tmp_path, row(1, survey), name="test_2")
    run(server, workers=1)
    with sqlite3.connect(own / survey.database.name) as db:
        db.execute("UPDATE warpRun SET state = 'purged' WHERE warp_id = ?", (survey.cleaned_warp,))
    db.close()
    run(server, workers=1)
    assert codes(server, req_id) == {1: [26]}
    assert set(codes(server, req_id2)[1]) == {0}
    with server.store.reading():
        dependent = pstampDependent.get()
        assert (dependent.state.value, dependent.fault, dependent.open_key) == ("stop", 26, None)


def test_a_preview_waits_and_holds(server: Server, survey: Survey, tmp_path: Path) -> None:
    cell = survey.skycells[0]
    req_id = send(
        server, tmp_path, row(1, survey),
        row(2, survey, req="byid", img="warp", id=survey.cleaned_warp, component=cell), action="PREVIEW",
    )  # fmt: skip
    run(server, workers=1)
    with server.store.reading():
        assert pstampRequest.get_by_id(req_id).state is RequestState.PARSED
        assert {job.state for job in pstampJob.select()} == {JobState.PARSED}
        assert pstampDependent.get().state.value == "hold"
    assert [each.why for each in report.waiting(server)][:1] == ["a preview: accept it with: pstamp accept 1"]


def test_what_waits_for_its_label_is_told(server: Server, survey: Survey, tmp_path: Path) -> None:
    send(server, tmp_path, row(1, survey))
    server.store.work(lambda: Label.create(label=server.settings.label, active=False))
    run(server, workers=1)
    assert [each.why for each in report.waiting(server)] == ["label LOCAL is inactive: it hands out no work"]


def test_two_cores_do_the_same(server: Server, survey: Survey, tmp_path: Path) -> None:
    req_id = send(
        server, tmp_path, *(row(n, survey, img="warp", filter=f, options=32769) for n, f in enumerate("gr", 1))
    )
    run(server, workers=2)
    assert {code for each in codes(server, req_id).values() for code in each} == {0, 25, 26}
    with server.store.reading():
        finished = pstampHistory.select().where((pstampHistory.machine == "job") & (pstampHistory.event == "finish"))
        assert finished.count() == pstampJob.select().where(pstampJob.fault == 0).count() > 0


def test_a_late_worker_publishes_nothing(server: Server, survey: Survey, tmp_path: Path) -> None:
    req_id = send(server, tmp_path, row(1, survey, req="byskycell", component=survey.skycells[0]))
    parse_requests(server, 10)
    late = server.store.work(lambda: server.store.claim_jobs(server.args(), 10))
    server.store.work(lambda: fire(late, Event.CANCEL, server.args(who="ana")))
    run_claimed_jobs(server, late)
    outdir = Path(late[0].outputBase).parent
    assert [path.name for path in outdir.iterdir() if path.suffix != ".log"] == ["web_1.fits"]
    run(server, workers=1)
    assert codes(server, req_id) == {1: [32]}


def test_a_second_parser_stores_nothing(server: Server, survey: Survey, tmp_path: Path) -> None:
    from pstamp_core.store import requests_to_parse
    from pstamp_core.tasks.parse import parse_request

    send(server, tmp_path, row(1, survey))
    (mine,) = server.store.work(lambda: server.store.claim(requests_to_parse(server.store.now()), server.args(), 1))
    parse_request(server, mine)
    before = len(all_jobs(server))
    with pytest.raises(LeaseLost, match="request 1: changed by somebody else meanwhile"):
        parse_request(server, mine)
    assert len(all_jobs(server)) == before


def test_home_holds_everything(server: Server) -> None:
    home = server.settings.home
    assert {path.name for path in home.iterdir()} == {
        "pstamp.toml", "pstamp.db", "pstamp.db-wal", "pstamp.db-shm", "images", "work", "datastore",
    } - {name for name in ("pstamp.db-wal", "pstamp.db-shm") if not (home / name).exists()}  # fmt: skip
    assert isinstance(server.settings, Settings)


def columns(server: Server, machine: str, number: int) -> dict[str, Any]:
    return report.look_up(server, machine, number)[0]


def test_show_tells_all_of_a_row(server: Server, survey: Survey, tmp_path: Path) -> None:
    req_id = send(server, tmp_path, row(1, survey, x=survey.galaxy[0], y=survey.galaxy[1]))
    run(server, workers=1)
    request, history = report.look_up(server, "request", req_id)
    assert (request["state"], request["name"], request["username"]) == ("stop", "test_1", "ana@obs.example.edu")
    assert [line.event for line in history] == ["make", "claim", "parse", "claim", "finish"]
    assert columns(server, "job", 1)["result"]["FRAC_IMAGE"] == 1.0
    with pytest.raises(UserError, match="there is no job 999"):
        report.look_up(server, "job", 999)
    with pytest.raises(UserError, match="'jobs': expected one of request, job, dependent"):
        report.look_up(server, "jobs", 1)
