"""Bad input: the right code on the right row, a sentence that says what to do, the other rows served, no stray file."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from servers import codes, row, send, sentences

from pstamp_core import files
from pstamp_core.datastore import client, filesets
from pstamp_core.faults import UserError
from pstamp_core.machines import RequestState
from pstamp_core.store import (
    Label,
    make,
    moment,
    pstampAccessLevel,
    pstampJob,
    pstampProject,
    pstampRequest,
    pstampUser,
)
from pstamp_core.tasks import jobs, report
from pstamp_core.tasks.retry import revert_one
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server, add_project
from pstamp_core.tasks.submit import submit
from simtest.survey import Survey


def queue(server: Server, path: Path) -> int:
    """Queue a file as a data store would: without looking at it."""

    def work() -> int:
        now = server.store.now()
        values: dict[str, Any] = {"uri": str(path), "registered": moment(now), "timestamp": moment(now)}
        return int(make(pstampRequest, now=now, who="poll", state=RequestState.NEW, label="LOCAL", **values).req_id)

    return server.store.work(work)


def not_fits(path: Path) -> None:
    path.write_text("ROWNUM CENTER_X\n1 150\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    good_table().writeto(path)
    path.write_bytes(path.read_bytes()[:-4000])


def no_table(path: Path) -> None:
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(path)


def wrong_extname(path: Path) -> None:
    good_table(EXTNAME="SOMETHING").writeto(path)


def too_many_rows(path: Path) -> None:
    good_table().writeto(path)
    content = path.read_bytes()
    card = b"NAXIS2  =                    1"
    assert content.count(card) == 1
    path.write_bytes(content.replace(card, b"NAXIS2  =           1000000000"))


def huge_cell(path: Path) -> None:
    columns = [*good_table()[1].columns, fits.Column("COMMENT", "1000000A", array=["x"])]
    hdu = fits.BinTableHDU.from_columns(columns, header=good_table()[1].header)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)


def good_table(rows: int = 1, values: dict[str, list[Any]] | None = None, **keywords: object) -> fits.HDUList:
    numbers = {"CENTER_X": 150.12, "CENTER_Y": 2.21, "WIDTH": 30.0, "HEIGHT": 30.0, "MJD_MIN": 0.0, "MJD_MAX": 0.0}
    texts = {
        "JOB_TYPE": "stamp", "PROJECT": "gpc1", "REQ_TYPE": "bycoord", "IMG_TYPE": "stack", "TESS_ID": "RINGS.V3",
        "REQFILT": "r",
    }  # fmt: skip
    columns = [fits.Column("ROWNUM", "J", array=(values or {}).get("ROWNUM", list(range(1, rows + 1))))]
    columns += [fits.Column("COORD_MASK", "J", array=[2] * rows), fits.Column("OPTION_MASK", "J", array=[1] * rows)]
    columns += [fits.Column(k, "D", array=(values or {}).get(k, [v] * rows)) for k, v in numbers.items()]
    columns += [fits.Column(k, "16A", array=[v] * rows) for k, v in texts.items()]
    hdu = fits.BinTableHDU.from_columns(columns)
    header = {"EXTNAME": "PS1_PS_REQUEST", "EXTVER": "2", "REQ_NAME": "bad_1", "ACTION": "PROCESS", "EMAIL": "a@b.org"}
    for key, value in {**header, **keywords}.items():
        hdu.header[key] = value
    return fits.HDUList([fits.PrimaryHDU(), hdu])


FILES = [not_fits, empty, truncated, no_table, wrong_extname, too_many_rows, huge_cell]


@pytest.mark.parametrize("spoil", FILES)
def test_files_that_are_no_request(server: Server, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / "bad.fits"
    spoil(path)
    with pytest.raises(UserError, match=r"^bad\.fits"):
        submit(server, path)
    req_id = queue(server, path)  # from a data store there is nobody to refuse it to: the answer is a fileset
    run(server, workers=1)
    assert codes(server, req_id) == {0: [21]}
    assert sentences(server, req_id)[0].startswith("bad.fits")
    folder = report.fileset(server, req_id)
    assert folder.name.startswith("ERROR.")
    assert {each.name for each in folder.iterdir()} == {"index.txt", "parse_error.txt", "results.fits", "results.mdc"}


def test_rows_are_answered_one_by_one(server: Server, survey: Survey, tmp_path: Path) -> None:
    bad = {
        "CENTER_X": [150.12, np.nan, 400.0, 150.12, 150.12, np.inf, 150.12, 150.12],
        "CENTER_Y": [2.21, 2.21, 2.21, -91.0, 2.21, 2.21, 2.21, 2.21],
        "WIDTH": [-30.0, 30, 30, 30, 1e9, 30, 30, np.nan],
        "ROWNUM": [1, 2, 3, 4, 5, 6, 1, 8],
    }
    path = tmp_path / "rows.fits"
    good_table(8, bad).writeto(path)
    req_id = submit(server, path)
    run(server, workers=1)
    found = codes(server, req_id)
    assert found.pop(1) == [0, 0, 0, 0, 21]  # the size's sign is ignored, as ever; the second row 1 is refused
    assert found == {number: [21] for number in (2, 3, 4, 5, 6, 8)}
    said = sentences(server, req_id)
    assert said[3] == "web_1.fits, row 3: CENTER_X is 400; expected RA in degrees, from -180 to 360"
    assert said[4] == "web_1.fits, row 4: CENTER_Y is -91; expected Dec in degrees, from -90 to 90"
    assert said[5] == "web_1.fits, row 5: WIDTH is 1000000000; expected at most 8000 pixels"


@pytest.mark.parametrize("name", ["a/b", "..", "a'b\"c", "a b", "x" * 300, "f\xfcr", "", "-rf", "a;b", "null"])
def test_names_that_are_no_fileset(server: Server, tmp_path: Path, name: str) -> None:
    hdus = good_table(REQ_NAME="placeholder")
    path = tmp_path / "named.fits"
    hdus.writeto(path)
    content = path.read_bytes()
    card = b"REQ_NAME= 'placeholder'"
    assert content.count(card) == 1
    text = f"REQ_NAME= '{name.replace(chr(39), chr(39) * 2)[:66]}'".encode("latin-1").ljust(80)
    start = content.index(card)
    path.write_bytes(content[:start] + text + content[start + 80 :])
    req_id = submit(server, path)
    run(server, workers=1)
    assert codes(server, req_id) == {0: [21]}
    assert report.fileset(server, req_id).parent == server.settings.datastore / "pstamp_results"
    assert [each.name for each in server.settings.datastore.iterdir() if each.is_dir()] == ["pstamp_results"]


def test_a_name_in_use(server: Server, survey: Survey, tmp_path: Path) -> None:
    send(server, tmp_path, row(1, survey))
    with pytest.raises(UserError, match=r"REQ_NAME is 'test_1'; it is in use by request 1 \(new\)") as caught:
        send(server, tmp_path, row(1, survey))
    assert caught.value.fault == 20
    second = queue(server, tmp_path / "test_1.fits")
    run(server, workers=1)
    assert codes(server, second) == {0: [20]}
    assert report.fileset(server, second).name.startswith("ERROR.")
    assert set(codes(server, 1)[1]) == {0}


def test_header_errors_are_answers(server: Server, tmp_path: Path) -> None:
    wanted = {"ACTION": ("LIST", 21), "EMAIL": ("null", 29), "EXTVER": ("3", 21)}
    for number, (key, (value, code)) in enumerate(wanted.items(), 1):
        path = tmp_path / f"{key}.fits"
        good_table(REQ_NAME=f"header_{number}", **{key: value}).writeto(path)
        req_id = queue(server, path)
        run(server, workers=1)
        assert codes(server, req_id) == {0: [code]}, key
        assert key in sentences(server, req_id)[0]


def test_an_image_database_that_does_not_answer(server: Server, survey: Survey, tmp_path: Path) -> None:
    add_project(server, "lost", str(tmp_path / "nowhere.db"))
    req_id = send(server, tmp_path, row(1, survey, project="lost"), row(2, survey))
    run(server, workers=1)
    found = codes(server, req_id)
    assert found[1] == [25]
    assert set(found[2]) == {0}
    (first, *_) = report.results(server, req_id)
    assert (first["CAUSE"], first["SENTENCE"]) == (
        2, "row 1: the images of project lost can't be looked up now; send it again later",
    )  # fmt: skip
    columns, history = report.look_up(server, "request", req_id)
    assert [line.event for line in history].count("fault") == server.settings.retry_ceiling - 1
    assert columns["state"] == "stop"


def spoil_image(survey: Survey, tmp_path: Path, server: Server, spoil: Callable[[Path], None]) -> int:
    own = tmp_path / "own"
    shutil.copytree(survey.folder, own)
    add_project(server, "gpc1", str(own / survey.database.name), str(own))
    (image,) = own.glob(f"stack/**/*{survey.stack_ids['r.00000', survey.skycells[0]]}.fits")
    spoil(image)
    cell = row(1, survey, req="byskycell", component=survey.skycells[0], options=7)
    req_id = send(server, tmp_path, cell, row(2, survey, req="byskycell", component=survey.skycells[1]))
    run(server, workers=1)
    assert codes(server, req_id) == {1: [25], 2: [0]}
    assert image.name in sentences(server, req_id)[1]
    outdir = Path(report.look_up(server, "request", req_id)[0]["outdir"])
    assert [path.name for path in outdir.iterdir() if path.name.startswith((".", "1_"))] == [f"1_1_r_{image.stem}.log"]
    return req_id


def test_an_image_that_is_missing(server: Server, survey: Survey, tmp_path: Path) -> None:
    spoil_image(survey, tmp_path, server, Path.unlink)


def test_an_image_that_is_truncated(server: Server, survey: Survey, tmp_path: Path) -> None:
    spoil_image(survey, tmp_path, server, lambda path: os.truncate(path, path.stat().st_size // 2))


def test_an_image_without_wcs(server: Server, survey: Survey, tmp_path: Path) -> None:
    def strip(path: Path) -> None:
        fits.HDUList([fits.PrimaryHDU(np.zeros((131, 125), "f4"))]).writeto(path, overwrite=True)

    req_id = spoil_image(survey, tmp_path, server, strip)
    assert "WCS" in sentences(server, req_id)[1]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


def no_strays(server: Server) -> bool:
    return not [path for path in server.settings.home.rglob(".*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("function", ["written", "link_or_copy"])
def test_a_full_disk(
    server: Server, survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """What can't be published waits for an operator once its tries are used up: there is no other way to answer."""
    req_id = send(server, tmp_path, row(1, survey))
    with monkeypatch.context() as patch:
        for module in (files, filesets, client):
            patch.setattr(module, function, full, raising=False)
        run(server, workers=1)
    columns, _ = report.look_up(server, "request", req_id)
    assert (columns["state"], columns["fault"]) == ("run", 2)
    assert not list(server.settings.datastore.glob("*/*/results.fits"))
    (waiting,) = report.waiting(server)
    assert "No space left on device" in waiting.why
    run(server, workers=1)
    assert report.look_up(server, "request", req_id)[0]["state"] == "run"
    revert_one(server, "request", req_id, "ana")
    run(server, workers=1)
    # Where even the request file could not be copied, parsing was given up, and the whole request has one answer.
    assert set(codes(server, req_id)) == ({0} if function == "written" else {1})
    assert no_strays(server)


def test_a_disk_too_full_for_a_stamp(
    server: Server, survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    req_id = send(server, tmp_path, row(1, survey))
    monkeypatch.setattr(jobs, "publish", full)
    run(server, workers=1)
    assert set(codes(server, req_id)[1]) == {25}
    line = report.results(server, req_id)[0]
    assert line["CAUSE"] == 2
    assert line["SENTENCE"] == (
        "3 tries failed, the last with 2: A disk, network or system call failed. (No space left on device somewhere)"
    )
    assert no_strays(server)


def test_access_is_what_the_tables_say(server: Server, survey: Survey, tmp_path: Path) -> None:
    def restrict() -> None:
        project = pstampProject.get(pstampProject.name == "gpc1")
        pstampUser.create(userName="Ana", domainName="OBS.example.edu", accessLevel=2, defaultProduct="ana_stamps")
        middle = sorted(survey.mjd)[2] + 1.0
        pstampAccessLevel.create(proj_id=project.proj_id, accessLevel=2, mjd_max=middle)

    server.store.work(restrict)
    warps = row(1, survey, img="warp", filter="null", options=32769)
    chips = [row(n, survey, req="byexp", img="chip", id=name, filter="null", x=survey.galaxy[0], y=survey.galaxy[1])
             for n, name in enumerate((survey.exposures[0], survey.exposures[5]), 2)]  # fmt: skip
    req_id = send(server, tmp_path, warps, *chips)
    run(server, workers=1)
    folder = report.fileset(server, req_id)
    assert folder.parent.name == "ana_stamps"
    found = codes(server, req_id)
    assert (found[2], found[3]) == ([0], [29])
    with server.store.reading():
        names = {job.outputBase.split("_")[-1][:11] for job in pstampJob.select().where(pstampJob.rownum == "1")}
    assert names == set(survey.exposures[:3])


def test_an_unknown_level_has_no_access(server: Server, survey: Survey, tmp_path: Path) -> None:
    server.store.work(
        lambda: (
            pstampUser.create(userName="ana", domainName="obs.example.edu", accessLevel=7),
            pstampUser.create(userName="bob", domainName="obs.example.edu", accessLevel=-1),
        )
    )
    req_id = send(server, tmp_path, row(1, survey))
    path = tmp_path / "bob.fits"
    good_table(EMAIL="bob@obs.example.edu").writeto(path)
    second = submit(server, path)
    run(server, workers=1)
    assert codes(server, req_id) == {1: [29]}
    assert codes(server, second) == {0: [29]}


def test_projects_compare_without_case(server: Server, survey: Survey, tmp_path: Path) -> None:
    req_id = send(server, tmp_path, row(1, survey, project="GPC1", filter="R%"), row(2, survey, project="nosuch"))
    run(server, workers=1)
    assert set(codes(server, req_id)[1]) == {0}
    assert codes(server, req_id)[2] == [22]


def test_version_1_is_served_when_the_site_says_so(server: Server, survey: Survey, tmp_path: Path) -> None:
    from pstamp_core.settings import load_settings

    path = tmp_path / "v1.fits"
    good_table(EXTVER=1).writeto(path)
    refused = submit(server, path)
    run(server, workers=1)
    assert codes(server, refused) == {0: [29]}
    settings = server.settings.home / "pstamp.toml"
    settings.write_text(settings.read_text() + "serve_v1 = true\n")
    generous = Server(load_settings(server.settings.home))
    good_table(EXTVER=1, REQ_NAME="old_2").writeto(path, overwrite=True)
    served = submit(generous, path)
    run(generous, workers=1)
    assert set(codes(generous, served)[1]) == {0}


def test_too_many_jobs(server: Server, survey: Survey, tmp_path: Path) -> None:
    from dataclasses import replace

    server.settings = replace(server.settings, max_jobs=5)
    req_id = send(server, tmp_path, row(1, survey), row(2, survey), row(3, survey))
    run(server, workers=1)
    assert codes(server, req_id) == {0: [21]}
    assert sentences(server, req_id)[0] == (
        "web_1.fits: the first 2 rows lead to more than 5 jobs; send fewer rows, or narrow them"
    )


def test_two_files_with_unusable_names(server: Server, tmp_path: Path) -> None:
    for number in (1, 2):
        path = tmp_path / f"{number}.fits"
        good_table(REQ_NAME="a b").writeto(path)
        assert submit(server, path) == number
    run(server, workers=1)
    assert [codes(server, number) for number in (1, 2)] == [{0: [21]}, {0: [21]}]


def test_labels_compare_without_case(server: Server, survey: Survey, tmp_path: Path) -> None:
    def prepare() -> None:
        Label.create(label="Fast", priority=5, active=False)
        pstampUser.create(userName="ana", domainName="obs.example.edu", accessLevel=1, defaultLabel="FAST")

    server.store.work(prepare)
    path = tmp_path / "labelled.fits"
    good_table().writeto(path)
    req_id = submit(server, path, label="fAST")
    assert report.look_up(server, "request", req_id)[0]["label"] == "Fast"
    run(server, workers=1)
    assert report.look_up(server, "request", req_id)[0]["state"] == "new"  # the label hands out no work
    good_table(REQ_NAME="web_1", EMAIL="ana@obs.example.edu").writeto(path, overwrite=True)
    req_id = submit(server, path, label="WEB")
    run(server, workers=1)
    columns, _ = report.look_up(server, "request", req_id)
    assert (columns["label"], columns["state"]) == ("Fast", "run")


def test_limits_of_a_project(server: Server, survey: Survey, tmp_path: Path) -> None:
    """Differences too old to be made again are gone; stacks of before a date have no unconvolved image."""
    stack, diff = survey.stack_ids["r.00000", survey.skycells[0]], survey.diff_ids[0]
    own = tmp_path / "own"
    shutil.copytree(survey.folder, own)
    with sqlite3.connect(own / survey.database.name) as db:
        db.execute("UPDATE diffRun SET state = 'cleaned' WHERE diff_id = ?", (diff,))
        db.execute("UPDATE diffSkyfile SET data_state = 'cleaned' WHERE diff_id = ?", (diff,))
    db.close()
    limits = {"oldest_diff": diff + 1, "oldest_unconv": stack + 1}
    add_project(server, "gpc1", str(own / survey.database.name), str(own), **limits)
    cell = survey.skycells[0]
    req_id = send(
        server, tmp_path, row(1, survey, req="byid", id=stack, options=2049), row(2, survey, req="byid", id=stack),
        row(3, survey, req="byid", img="diff", id=diff, component=cell, filter="null"),
    )  # fmt: skip
    run(server, workers=1)
    assert codes(server, req_id) == {1: [25], 2: [0], 3: [26]}
    said = sentences(server, req_id)
    assert said[1] == (
        f"row 1: stack {stack} has no unconvolved image (the first that has is {stack + 1}); "
        "ask without OPTION_MASK bit 2048"
    )
    assert said[3].endswith(f"cleaned, and too old to be made again (before difference {diff + 1})")
