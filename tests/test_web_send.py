"""Sending requests from pages: the form and its fields, the count of images, uploads, and decisions."""

from __future__ import annotations

import html
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import servers
from httpx2 import Response
from starlette.testclient import TestClient
from webtest import Browse, app, browse, email, token_of

from pstamp_core.formats import RequestRow, parse_text, read_request, write_request
from pstamp_core.machines import JobState, RequestState
from pstamp_core.store import pstampAccessLevel, pstampHistory, pstampJob, pstampProject, pstampRequest
from pstamp_core.tasks import accounts, form, upload
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server, add_project
from pstamp_web import send as send_module
from simtest.survey import Survey

__all__ = ["app", "browse"]

EVIL = "'\"><script>alert(1)</script>"


class Form:
    """The form of one person: what a browser would send of it."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.token = token_of(client, "/form")

    def post(self, do: str, **fields: str) -> Response:
        values = {"width": "30", "height": "30", "unit": "pixels", "project": "gpc1", "img_type": "stack",
                  "req_type": "bycoord", "prefix": "web"}  # fmt: skip
        return self.client.post("/form", data={"form_token": self.token, "do": do, **values, **fields})

    def send(self, do: str = "send", **fields: str) -> int:
        answer = self.post(do, **fields)
        assert answer.status_code == 303, errors_in(answer)
        found = re.fullmatch(r"/request/(\d+)", answer.headers["location"])
        assert found
        return int(found[1])


def errors_in(answer: Response) -> dict[str, str]:
    """The messages beside the fields of a page, and above them."""
    text = answer.text
    found = re.findall(r'<small class="bad" id="(\w+)-wrong" role="alert">(.*?)</small>', text)
    above = re.findall(r'<p class="note bad" role="alert">(.*?)</p>', text)
    return {name: html.unescape(said) for name, said in [*(("", each) for each in above), *found]}


def fields_of(text: str) -> dict[str, str]:
    """What stands in the fields of the form."""
    found = {name: html.unescape(value) for name, value in re.findall(r'<input name="(\w+)" value="([^"]*)"', text)}
    for name in re.findall(r'<input type="checkbox" name="(\w+)" value="on" checked', text):
        found[name] = "on"
    for name, options in re.findall(r'<select name="(\w+)"[^>]*>(.*?)</select>', text, re.S):
        (chosen,) = re.findall(r'<option( value="[^"]*")? selected>([^<]*)</option>', options)
        found[name] = html.unescape(chosen[0][8:-1] if chosen[0] else chosen[1])
    for name, value in re.findall(r'<textarea name="(\w+)"[^>]*>([^<]*)</textarea>', text):
        found[name] = html.unescape(value)
    return found


def rows_of(server: Server, req_id: int) -> tuple[RequestRow, ...]:
    return read_request(Path(row_of(server, req_id).uri)).rows


def row_of(server: Server, req_id: int) -> Any:
    with server.store.reading():
        return pstampRequest.get(pstampRequest.req_id == req_id)


def requests(server: Server) -> int:
    with server.store.reading():
        return int(pstampRequest.select().count())


@pytest.fixture
def ann(browse: Browse) -> Form:
    return Form(browse("ann"))


# -- from the form to the table


def test_an_empty_form_asks_for_the_project_that_has_images(ann: Form) -> None:
    expected = {name: value for name, value in form.DEFAULTS.items() if name not in (*form.PRODUCTS, *form.WAYS)}
    assert fields_of(ann.client.get("/form").text) == expected | {"project": "gpc1", "run_type": ""}


def test_every_field_is_a_column(ann: Form, server: Server) -> None:
    req_id = ann.send(
        positions="150.12 2.21 | first\n10:00:28.8 +2:12:36 i 2010-03-01 55300.5 | second\n\n# not this\n0 0 null",
        width="12.5", height="7", unit="arcsec", project="gpc1", img_type="diff", req_type="byid", id="50001",
        tess_id="RINGS.V3", component="skycell.1234.054", data_group="Survey%", reqfilt="g", mjd_min="55000",
        mjd_max="2020-01-01T12:00", run_type="warp_stack", comment="all", prefix="m31",
        **dict.fromkeys((*form.PRODUCTS, *form.WAYS), "on"),
    )  # fmt: skip
    row = row_of(server, req_id)
    assert (row.name, row.label, row.username, row.state) == ("m31_1", "WEB", email("ann"), RequestState.NEW)
    table = read_request(Path(row.uri))
    assert (table.req_name, table.action, table.email) == ("m31_1", "PROCESS", email("ann"))
    everything = 1 + 2 + 4 + 64 + 8 + 16 + 32 + 128 + 256 + 512 + 2048 + 1024 + 8192 + 16384 + 32768
    first = RequestRow(
        rownum=1, center_x=150.12, center_y=2.21, width=12.5, height=7.0, coord_mask=0, job_type="stamp",
        option_mask=everything, project="gpc1", req_type="byid", img_type="diff", id="50001", tess_id="RINGS.V3",
        component="skycell.1234.054", data_group="Survey%", reqfilt="g", mjd_min=55000.0,
        mjd_max=table.rows[0].mjd_max, run_type="warp_stack", comment="first",
    )  # fmt: skip
    # 2020-01-01 12:00 UTC and 2010-03-01 00:00 UTC, in TAI: 37 and 34 leap seconds
    assert table.rows[0].mjd_max == pytest.approx(58849.5 + 37 / 86400, abs=1e-9)
    assert table.rows[1].mjd_min == pytest.approx(55256 + 34 / 86400, abs=1e-9)
    second = replace(
        first, rownum=2, center_x=table.rows[1].center_x, reqfilt="i", mjd_min=table.rows[1].mjd_min,
        mjd_max=55300.5, comment="second",
    )  # fmt: skip
    assert table.rows[1].center_x == pytest.approx(150.12, abs=1e-12)
    third = replace(first, rownum=3, center_x=0.0, center_y=0.0, reqfilt=None, comment="all")
    assert table.rows == (first, second, third)


def test_every_box_is_a_bit(ann: Form, server: Server) -> None:
    bits = {"mask": 2, "variance": 4, "jpeg": 64, "cmf": 8, "psf": 16, "backmdl": 32, "exptime": 128, "expnum": 256,
            "uncompressed": 512, "unconvolved": 2048, "inverse": 1024, "allroi": 8192, "use_imfile_id": 16384,
            "do_not_wait": 32768}  # fmt: skip
    assert set(bits) == {*form.PRODUCTS, *form.WAYS}
    for name, bit in bits.items():
        req_id = ann.send(positions="0 0", unit="arcsec", **{name: "on"})
        assert [row.option_mask for row in rows_of(server, req_id)] == [1 + bit], name


def test_dates_are_utc_wherever_the_server_is(ann: Form, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    try:
        req_id = ann.send(positions="1 2", mjd_min="2020-01-01", mjd_max="2020-01-01T14:00+02:00")
    finally:
        monkeypatch.undo()
        time.tzset()
    (row,) = rows_of(server, req_id)
    assert (row.mjd_min, row.mjd_max) == pytest.approx((58849 + 37 / 86400, 58849.5 + 37 / 86400), abs=1e-9)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"positions": "0 0"}, (0.0, 0.0, 30.0, 30.0, 2)),
        ({"positions": "0 0", "unit": "arcsec"}, (0.0, 0.0, 30.0, 30.0, 0)),
        ({"positions": "0 -90", "width": "0", "height": "0"}, (0.0, -90.0, 0.0, 0.0, 2)),
        ({"x": "0", "y": "12.5", "req_type": "byskycell"}, (0.0, 12.5, 30.0, 30.0, 3)),
        ({"x": "0", "y": "0", "req_type": "byskycell", "unit": "arcsec"}, (0.0, 0.0, 30.0, 30.0, 1)),
        ({"req_type": "byskycell", "width": "0", "height": "0"}, (0.0, 0.0, 0.0, 0.0, 3)),
    ],
)
def test_zero_is_a_coordinate_and_a_size(
    ann: Form, server: Server, fields: dict[str, str], expected: tuple[float, ...]
) -> None:
    req_id = ann.send(tess_id="RINGS.V3", component="skycell.1", **fields)
    (row,) = rows_of(server, req_id)
    assert (row.center_x, row.center_y, row.width, row.height, row.coord_mask) == expected


# -- what is wrong, and where

LINE = "expected RA DEC [FILTER [MJD_MIN [MJD_MAX]]]"
NO_RA = "expected RA in degrees, from -180 to 360"


WRONG: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {"positions": "expected at least one, RA and Dec"}),
    ({"positions": "# only this"}, {"positions": "expected at least one, RA and Dec"}),
    ({"req_type": "byid", "id": "1"}, {"positions": "expected at least one, RA and Dec, or a pixel below"}),
    ({"x": "5", "y": "5"}, {"positions": "expected at least one, RA and Dec"}),
    ({"positions": "1 2", "y": "5"}, {"x": "there are positions, too; give either them or a pixel"}),
    ({"x": "5", "req_type": "byid", "id": "1", "component": "XY01"}, {"y": "not given; expected a number"}),
    ({"x": "5", "y": "1e9", "req_type": "byid", "id": "1", "component": "XY01"},
     {"y": "1000000000; expected a pixel from -1000000 to 1000000"}),
    ({"x": "5", "y": "5", "req_type": "byid", "id": "1", "img_type": "chip"},
     {"component": "not given; expected a chip or skycell, as the centre is a pixel"}),
    ({"positions": "1 2\n3 4 5"},
     {"positions": f"positions, line 2: it begins with 3 numbers and has 3 values; {LINE}"}),
    ({"positions": "1 2\n400 4"}, {"positions": f"position 2: CENTER_X is 400; {NO_RA}"}),
    ({"positions": "1 2 r soon"}, {"positions": "position 1: MJD_MIN is 'soon'; expected an MJD, or a date"}),
    ({"positions": "1 2 r 2 1"}, {"positions": "position 1: MJD_MIN is 2; expected at most MJD_MAX, 1"}),
    ({"positions": "1 2 " + "r" * 17},
     {"positions": "position 1: REQFILT is 'rrrrrrrrrrrrrrrrr' (17 characters); expected at most 16, all ASCII"}),
    ({"positions": "1 2\n" * 5001},
     {"positions": "positions, line 5001: this is target 5001; expected at most 5000"}),
    ({"positions": "1e999 2"}, {"positions": "position 1: CENTER_X is inf; expected a finite number"}),
    ({"width": "wide", "height": "", "positions": "1 2"},
     {"width": "'wide'; expected a number", "height": "not given; expected a number"}),
    ({"width": "8001", "positions": "1 2"}, {"width": "8001; expected at most 8000 pixels"}),
    ({"width": "0", "positions": "1 2"},
     {"width": "0; expected a size, or WIDTH and HEIGHT both 0 for the whole file"}),
    ({"mjd_min": "yesterday", "mjd_max": "1492-10-12", "positions": "1 2"},
     {"mjd_min": "'yesterday'; expected an MJD, or a date as 2010-03-01",
      "mjd_max": "'1492-10-12'; expected an MJD, or a date as 2010-03-01"}),
    ({"mjd_min": "2010-03-02", "mjd_max": "55257", "positions": "1 2"},
     {"mjd_min": "55257.000393518516; expected at most MJD_MAX, 55257"}),
    ({"project": "nope", "positions": "1 2"}, {"project": "'nope'; there is no project of this name"}),
    ({"project": "", "positions": "1 2"}, {"project": "not given; expected the name of a project"}),
    ({"req_type": "byname", "positions": "1 2"},
     {"req_type": "'byname'; expected byid, byexp, bydiff, bycoord or byskycell"}),
    ({"img_type": "", "positions": "1 2"},
     {"img_type": "not given; expected raw, chip, warp, diff, stack or stack_summary"}),
    ({"req_type": "byid", "positions": "1 2"},
     {"id": "not given; expected a number from the database, as byid needs it"}),
    ({"req_type": "byexp", "id": "o1g1o", "positions": "1 2"},
     {"img_type": "'stack'; expected raw, chip, warp or diff with byexp"}),
    ({"component": "Þing", "positions": "1 2"},
     {"component": "'?ing' (4 characters); expected at most 64, all ASCII"}),
    ({"comment": "é", "positions": "1 2"}, {"comment": "'?' (1 characters); expected at most 64, all ASCII"}),
    ({"allroi": "on", "positions": "1 2"}, {"allroi": "needs a size in arcsec"}),
    ({"prefix": "../etc", "positions": "1 2"},
     {"prefix": "with a number added to it, expected at most 64 letters, digits and . _ + -, the first a letter or "
                "digit, no '..', not null or index.txt"}),
    ({"prefix": "x" * 54, "positions": "1 2"},
     {"prefix": "with a number added to it, expected at most 64 letters, digits and . _ + -, the first a letter or "
                "digit, no '..', not null or index.txt"}),
]  # fmt: skip


def test_what_is_wrong_stands_beside_its_field(ann: Form, server: Server) -> None:
    for (fields, errors), do in zip(WRONG, cycle(("send", "preview", "count")), strict=False):
        answer = ann.post(do, **fields)
        above = f"Nothing was sent: see the field{'' if len(errors) == 1 else 's'} marked below."
        assert (answer.status_code, errors_in(answer)) == (400, {"": above, **errors}), fields
    assert requests(server) == 0
    assert not list(server.settings.work.rglob("*.fits"))


def test_the_largest_stamp_is_what_the_settings_say(ann: Form, server: Server) -> None:
    server.settings = replace(server.settings, max_stamp_pixels=50)
    answer = ann.post("send", positions="1 2", width="51", height="50")
    assert errors_in(answer)["width"] == "51; expected at most 50 pixels"
    assert len(errors_in(answer)) == 2


def test_what_was_typed_is_kept_and_escaped(ann: Form, server: Server) -> None:
    typed = dict.fromkeys((*form.TEXTS, "x", "y", "mjd_min", "mjd_max", "width", "height", "prefix", "unit"), EVIL)
    typed |= {"positions": f"1 2\n{EVIL}"} | dict.fromkeys((*form.PRODUCTS, *form.WAYS), "on")
    answer = ann.post("count", **typed)
    assert answer.status_code == 400
    assert "<script>alert" not in answer.text
    assert fields_of(answer.text) == typed
    assert answer.text.count("<details open>") == 2
    prefilled = ann.client.get("/form", params=typed)
    assert prefilled.status_code == 200
    assert "<script>alert" not in prefilled.text
    assert fields_of(prefilled.text) == typed


def test_sql_in_a_field_is_text(ann: Form, server: Server, survey: Survey) -> None:
    ra, dec = survey.centre
    counted = {}
    for field in (*form.TEXTS, "x", "mjd_min", "width", "unit", "prefix", "positions", "jpeg"):
        answer = ann.post("count", **{"positions": f"{ra} {dec}", "img_type": "warp", field: "x' OR 1=1 --"})
        if answer.status_code == 200:
            (counted[field],) = re.findall(r"<strong>(\d+) images</strong>", answer.text)
        else:
            assert list(errors_in(answer)) == ["", field]
    matched = {field for field, count in counted.items() if count != "0"}
    # what is compared in the image database matches nothing; the others are asked of no database
    assert counted.keys() - matched == {"tess_id", "component", "data_group", "reqfilt"}
    assert matched == {"id", "run_type", "comment", "unit", "jpeg"}


def test_a_form_needs_a_button_that_there_is(ann: Form, server: Server) -> None:
    answer = ann.post("destroy", positions="1 2")
    assert (answer.status_code, requests(server)) == (400, 0)
    assert "do: expected count, preview or send" in answer.text


@pytest.mark.parametrize("path", ["/form", "/upload", "/upload/anyway", "/request/1/accept", "/request/1/cancel"])
def test_what_changes_something_wants_a_login_and_the_token(browse: Browse, server: Server, path: str) -> None:
    answer = browse("nobody").post(path, data={"positions": "1 2", "do": "send"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/")
    answer = browse("ann").post(path, data={"positions": "1 2", "do": "send"})
    assert answer.status_code == 403
    assert "this form is too old" in answer.text
    assert requests(server) == 0


def test_the_quota_is_told_above_the_form(ann: Form, server: Server) -> None:
    server.settings = replace(server.settings, max_open_rows=3)
    ann.send(positions="1 2\n3 4")
    answer = ann.post("send", positions="1 2\n3 4")
    (said,) = errors_in(answer).values()
    assert "a user may have 3 at a time" in said
    assert (answer.status_code, requests(server)) == (400, 1)
    assert fields_of(answer.text)["positions"] == "1 2\n3 4"


# -- counting and previews


def test_the_count_is_what_a_preview_finds(ann: Form, server: Server, survey: Survey) -> None:
    ra, dec = survey.galaxy
    fields = {"positions": f"{ra} {dec} | <i>one</i>\n{ra} {dec} z\n10 -80", "img_type": "warp"}
    answer = ann.post("count", **fields)
    assert (answer.status_code, requests(server)) == (200, 0)
    table = re.search(r'<section class="card".*?</section>', answer.text, re.S)
    assert table
    counted = [
        tuple(re.findall(r"<td[^>]*>(.*?)</td>", line)) for line in re.findall(r"<tr>(<td.*?)</tr>", table[0], re.S)
    ]
    req_id = ann.send("preview", **fields)
    assert parse_requests(server, 1) == 1
    assert row_of(server, req_id).state is RequestState.PARSED
    with server.store.reading():
        jobs = list(pstampJob.select().where(pstampJob.req_id == req_id))
    to_cut = [job for job in jobs if job.state is JobState.PARSED]
    waiting = sum(bool(job.dep_id) for job in to_cut)
    (gone,) = [job.sentence for job in jobs if job.fault == 26]
    assert waiting > 0
    place = f"{ra:.7g} {dec:+.7g}"
    assert counted == [
        ("1", f"{place} | &lt;i&gt;one&lt;/i&gt;", str(len(to_cut)), str(waiting),
         f"<div>{gone.removeprefix('row 1: ')}</div>"),
        ("2", place, "0", "", f"<div>6 warp images of RA {ra:.7g} Dec {dec:.7g}, none of them with REQFILT "
                              "&#39;z%&#39;</div>"),
        ("3", "10 -80", "0", "", "<div>no warp image of RA 10 Dec -80</div>"),
    ]  # fmt: skip
    assert f"<strong>{len(to_cut)} images</strong> in 3 of 3 rows.\n Nothing was sent yet." in table[0]


def test_the_filter_of_a_line_goes_before_that_of_the_form(ann: Form, survey: Survey) -> None:
    ra, dec = survey.galaxy
    text = ann.post("count", positions=f"{ra} {dec}\n{ra} {dec} null\n{ra} {dec} g", reqfilt="z").text
    images = [int(each) for each in re.findall(r"</td><td class=\"number\">(\d+)</td><td class=\"number\"></td>", text)]
    assert images[0] == 0
    assert images[1] == 2 * images[2] > 0  # the survey has two filters


def test_answers_that_come_often_are_told_once(ann: Form, server: Server, survey: Survey) -> None:
    with server.store.reading():
        project = pstampProject.get(pstampProject.name == "gpc1")
        pstampAccessLevel.update(mjd_max=survey.mjd[0] + 0.1).where(
            pstampAccessLevel.proj_id == project.proj_id
        ).execute()
    answer = ann.post("count", positions="", req_type="byid", img_type="warp", id=str(survey.warp_ids[1]),
                      width="0", height="0")  # fmt: skip
    (said,) = re.findall(r"<td><div>(.*?)</div></td>", answer.text)
    assert re.fullmatch(r"\d+ images: The access level of the user does not allow this\.", said)


def test_the_count_ends_early(ann: Form, survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    ra, dec = survey.centre
    fields = {"positions": f"{ra} {dec}\n" * 5, "img_type": "warp"}
    assert "in 5 of 5 rows." in ann.post("count", **fields).text
    monkeypatch.setattr(form, "MAX_COUNTED_ROWS", 4)
    text = ann.post("count", **fields).text
    assert "in 4 of 5 rows.\nThe others were not counted; <em>Preview</em> counts all." in text
    monkeypatch.setattr(form, "MAX_COUNTED", 1)
    assert "in 1 of 5 rows." in ann.post("count", **fields).text


def test_the_count_says_when_images_cannot_be_looked_up(ann: Form, server: Server, tmp_path: Path) -> None:
    add_project(server, "gpc2", str(tmp_path / "no-such.db"))
    text = ann.post("count", positions="1 2", project="gpc2").text
    assert "the images of project gpc2 can&#39;t be looked up now; send it again later" in text
    assert "no-such" not in text


def decide(person: Form, req_id: object, event: str) -> Response:
    return person.client.post(f"/request/{req_id}/{event}", data={"form_token": person.token})


def test_a_preview_is_accepted_and_served(ann: Form, server: Server, survey: Survey) -> None:
    ra, dec = survey.galaxy
    req_id = ann.send("preview", positions=f"{ra} {dec} r")
    run(server, workers=1)
    assert row_of(server, req_id).state is RequestState.PARSED
    answer = decide(ann, req_id, "accept")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/request/{req_id}")
    run(server, workers=1)
    assert row_of(server, req_id).state is RequestState.STOP
    assert servers.codes(server, req_id) == {1: [0]}
    with server.store.reading():
        accepted = pstampHistory.get((pstampHistory.row_id == req_id) & (pstampHistory.event == "accept"))
    assert (accepted.who, accepted.note) == (email("ann"), "from its page")
    answer = decide(ann, req_id, "accept")
    assert answer.status_code == 400
    assert f"request {req_id} can&#39;t be accepted any more: " in answer.text


def test_a_request_is_cancelled(ann: Form, server: Server) -> None:
    req_id = ann.send("preview", positions="150.12 2.21")
    assert decide(ann, req_id, "cancel").status_code == 303
    run(server, workers=1)
    assert servers.codes(server, req_id) == {0: [32]}
    answer = decide(ann, req_id, "cancel")
    assert answer.status_code == 400
    assert f"request {req_id} can&#39;t be cancelled any more: " in answer.text


@pytest.mark.parametrize("event", ["accept", "cancel"])
def test_another_s_request_is_not_there(ann: Form, browse: Browse, server: Server, event: str) -> None:
    req_id = ann.send("preview", positions="150.12 2.21")
    parse_requests(server, 1)
    bob = Form(browse("bob"))
    other, none = decide(bob, req_id, event), decide(bob, 999, event)
    assert (other.status_code, none.status_code) == (404, 404)
    assert other.text == none.text.replace("request 999", f"request {req_id}")
    assert decide(bob, 2**70, event).status_code == 404
    assert decide(bob, "x' OR 1=1 --", event).status_code == 422
    assert row_of(server, req_id).state is RequestState.PARSED
    # a member of a common group sees it, and may not change it
    for name in ("ann", "bob"):
        accounts.change_groups(server, email(name), ["team"])
    answer = decide(bob, req_id, event)
    assert answer.status_code == 403
    assert f"request {req_id} is not yours: whoever sent it can {event} it, or an operator" in answer.text
    assert row_of(server, req_id).state is RequestState.PARSED
    assert decide(Form(browse("olga")), req_id, event).status_code == 303
    assert row_of(server, req_id).state is not RequestState.PARSED


# -- a form like an earlier request


def test_a_form_like_an_earlier_request(ann: Form, server: Server) -> None:
    typed = {
        "positions": "150.12 2.21 | first\n-10.5 0 i 55000 55300.5 | second\n0 0 null 0 0\n1 1 g 0 55300.5",
        "width": "12.5", "height": "7", "unit": "arcsec", "project": "gpc1", "img_type": "diff", "req_type": "byid",
        "id": "50001",
        "tess_id": "RINGS.V3", "component": "XY01", "data_group": "Survey%", "reqfilt": "g", "mjd_max": "55300.5",
        "run_type": "warp_stack", "jpeg": "on", "do_not_wait": "on",
    }  # fmt: skip
    first = ann.send(**typed)
    assert f'<a href="/form?like={first}">send another like it</a>' in ann.client.get(f"/request/{first}").text
    answer = ann.client.get(f"/form?like={first}")
    assert "Not all of" not in answer.text
    fields = fields_of(answer.text)
    assert fields.pop("positions") == ("150.12 2.21 | first\n-10.5 0 i 55000 55300.5 | second\n0 0 null 0 0\n1 1")
    typed.pop("positions")
    assert {name: value for name, value in fields.items() if value} == typed | {"prefix": "web"}
    second = ann.send(**fields_of(answer.text))
    assert rows_of(server, second) == rows_of(server, first)


def test_a_form_like_one_with_a_pixel(ann: Form, server: Server) -> None:
    first = ann.send(x="0", y="12.5", req_type="byid", id="10001", img_type="chip", component="XY01", comment="c")
    fields = fields_of(ann.client.get(f"/form?like={first}").text)
    assert (fields["x"], fields["y"], fields["positions"], fields["comment"]) == ("0", "12.5", "", "c")
    assert rows_of(server, ann.send(**fields)) == rows_of(server, first)


ROW = "1 150.12 2.21 30 30 2 stamp 1 gpc1 null null bycoord stack null null null null r 0 0 null 0 0 | one"


def request_file(folder: Path, *rows: str, name: str = "up_1", who: str = "null") -> Path:
    table, _ = parse_text("\n".join([f"{name} 2 PROCESS {who}", *rows]))
    path = folder / f"{name}.fits"
    write_request(path, table)
    return path


def send_file(person: Form, path: Path, name: str | None = None) -> Response:
    files = {"file": (path.name if name is None else name, path.read_bytes(), "application/octet-stream")}
    return person.client.post("/upload", data={"form_token": person.token}, files=files)


def test_what_a_form_cannot_hold_is_told(
    ann: Form, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ROW.replace("1 150.12", "2 150.13").replace("stack", "warp")
    pixel = "1 5 6 30 30 3 stamp 1 gpc1 null null byskycell stack null T skycell.1 null r 0 0 null 0 0"
    assert send_file(ann, request_file(tmp_path, ROW, other)).status_code == 303
    assert send_file(ann, request_file(tmp_path, pixel, "2" + pixel[1:], name="up_2")).status_code == 303
    text = ann.client.get("/form?like=1").text
    assert (
        "Not all of the earlier request fits into the form: its rows differ in more than position, filter, dates and "
        "comment, the rest here is the first row&#39;s." in text
    )
    assert fields_of(text)["positions"] == "150.12 2.21\n150.13 2.21"
    text = ann.client.get("/form?like=2").text
    assert "fits into the form: only the pixel of its first row is here." in text
    monkeypatch.setattr(form, "MAX_POSITIONS", 1)
    assert "it has 2 rows, and only the first 1 are here." in ann.client.get("/form?like=1").text


def test_only_one_s_own_requests_fill_a_form(ann: Form, browse: Browse, server: Server) -> None:
    req_id = ann.send(positions="150.12 2.21 | secret")
    bob = browse("bob")
    other, none = bob.get(f"/form?like={req_id}"), bob.get("/form?like=999")
    assert (other.status_code, none.status_code) == (404, 404)
    assert other.text == none.text.replace("999", str(req_id))
    assert bob.get(f"/form?like={2**70}").status_code == 404
    assert bob.get("/form?like=1'--").status_code == 422
    assert "secret" in browse("olga").get(f"/form?like={req_id}").text


def test_a_form_like_a_request_whose_file_has_gone(ann: Form, server: Server) -> None:
    req_id = ann.send(positions="150.12 2.21")
    Path(row_of(server, req_id).uri).unlink()
    answer = ann.client.get(f"/form?like={req_id}")
    assert answer.status_code == 400
    assert f"the file of request {req_id} is not here any more, so that no form can be made of it" in answer.text


# -- uploads


def uploads_left(server: Server) -> list[str]:
    folder = server.settings.work / "uploads"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def findings_in(answer: Response) -> list[tuple[str, ...]]:
    body = answer.text.partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        tuple(html.unescape(re.sub("</?code>", "", cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line, re.S))
        for line in re.findall(r"<tr>(.*?)</tr>", body, re.S)
    ]


def test_a_good_file_is_queued_at_once(ann: Form, server: Server, tmp_path: Path) -> None:
    path = request_file(tmp_path, ROW)
    answer = send_file(ann, path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/request/1")
    row = row_of(server, 1)
    assert (row.name, row.label, row.username) == ("up_1", "WEB.UP", email("ann"))
    assert Path(row.uri).read_bytes() == path.read_bytes()
    assert uploads_left(server) == []
    run(server, workers=1)
    assert set(servers.codes(server, 1)[1]) == {0}


def test_a_file_with_bad_rows_is_shown_first(ann: Form, server: Server, tmp_path: Path) -> None:
    bad = ROW.replace("1 150.12 2.21", "7 150.12 99").replace("gpc1", "<b>x</b>")
    path = request_file(tmp_path, ROW, bad)
    answer = send_file(ann, path, "C:\\my\\<i>äbc</i>.fits")
    assert (answer.status_code, requests(server)) == (400, 0)
    assert "What is wrong with i_.fits</h2>" in answer.text
    assert "1 row can’t be served. Nothing was sent yet." in answer.text
    assert findings_in(answer) == [
        ("7", "PROJECT", "'<b>x</b>'; there is no project of this name", "22"),
        ("7", "CENTER_Y", "99; expected Dec in degrees, from -90 to 90", "21"),
    ]
    assert "<li>21: The row or the file is malformed.</li><li>22: There is no project of this name.</li>" in answer.text
    (digest,) = re.findall(r'name="digest" value="(\w+)"', answer.text)
    assert uploads_left(server) == ["1@i_.fits"]
    answer = ann.client.post("/upload/anyway", data={"form_token": ann.token, "digest": digest})
    assert (answer.status_code, answer.headers["location"]) == (303, "/request/1")
    assert uploads_left(server) == []
    run(server, workers=1)
    codes = servers.codes(server, 1)
    assert (set(codes[1]), codes[7]) == ({0}, [22])
    answer = ann.client.post("/upload/anyway", data={"form_token": ann.token, "digest": digest})
    assert errors_in(answer) == {"": "the file is not here any more; choose it again"}
    assert (answer.status_code, requests(server)) == (400, 1)


def test_only_what_was_shown_last_and_to_whom_is_sent(
    ann: Form, browse: Browse, server: Server, tmp_path: Path
) -> None:
    digests = []
    for name in ("up_1", "up_2"):
        answer = send_file(ann, request_file(tmp_path, ROW.replace("stamp", "stump"), name=name))
        digests += re.findall(r'name="digest" value="(\w+)"', answer.text)
    assert uploads_left(server) == ["1@up_2.fits"]
    bob = Form(browse("bob"))
    for person, digest in ((ann, digests[0]), (bob, digests[1]), (ann, ""), (ann, "up_2.fits")):
        answer = person.client.post("/upload/anyway", data={"form_token": person.token, "digest": digest})
        assert (answer.status_code, requests(server)) == (400, 0)
    # what is kept too long goes, and what a server that died was just taking in
    folder = server.settings.work / "uploads"
    (folder / "died").mkdir()
    (folder / "died" / "x.fits").touch()
    for path in (folder / "1@up_2.fits", folder / "died"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert send_file(bob, request_file(tmp_path, ROW, name="up_3")).status_code == 303
    assert uploads_left(server) == []


def test_uploads_of_one_account_at_once_do_not_disturb_each_other(ann: Form, server: Server, tmp_path: Path) -> None:
    account = accounts.account_of(server, email("ann"))
    files = [request_file(tmp_path, ROW.replace("stamp", "stump"), name=f"up_{n}").read_bytes() for n in range(4)]

    def one(n: int) -> str:
        return upload.upload(server, account, BytesIO(files[n % 4]), f"up_{n % 4}.fits").digest

    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(one, range(24)))
    assert set(digests) == {sha256(content).hexdigest() for content in files}
    assert len(uploads_left(server)) <= 1


@pytest.mark.parametrize(
    ("rows", "who", "finding"),
    [
        ([ROW], "bob@example.org",
         ("all rows", "EMAIL", "'bob@example.org'; it is not that of ann@example.org, who sends it: put that into the "
                               "file, or none (null)", "29")),
        ([], "null", ("all rows", "", "no rows; expected at least one", "21")),
    ],
)  # fmt: skip
def test_a_file_that_is_bad_as_a_whole_is_not_sent(
    ann: Form, server: Server, tmp_path: Path, rows: list[str], who: str, finding: tuple[str, ...]
) -> None:
    answer = send_file(ann, request_file(tmp_path, *rows, who=who))
    assert answer.status_code == 400
    assert "It was not sent: mend what is wrong, and upload it again." in answer.text
    assert findings_in(answer) == [finding]
    assert "Send it all the same" not in answer.text
    assert (requests(server), uploads_left(server)) == (0, [])


def test_a_name_in_use_is_told(ann: Form, server: Server, tmp_path: Path) -> None:
    path = request_file(tmp_path, ROW)
    assert send_file(ann, path).status_code == 303
    answer = send_file(ann, path)
    assert findings_in(answer) == [
        ("all rows", "REQ_NAME", "'up_1'; it is in use by request 1 (new); send it under another name", "20")
    ]


@pytest.mark.parametrize("content", [b"", b"\0" * 3000, b"SIMPLE  =" + b"x" * 5000, b"<script>alert(1)</script>"])
def test_what_is_no_request_is_told(ann: Form, server: Server, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    answer = send_file(ann, path)
    ((where, column, reason, code),) = findings_in(answer)
    assert (where, column, code) == ("all rows", "", "21")
    assert reason.startswith("a.fits: ")
    assert (requests(server), uploads_left(server)) == (0, [])


def test_no_file_is_told(ann: Form) -> None:
    token = {"form_token": ann.token}
    empty = "\r\n".join([  # as browsers send it
        "--b", 'Content-Disposition: form-data; name="form_token"', "", ann.token,
        "--b", 'Content-Disposition: form-data; name="file"; filename=""', "Content-Type: application/octet-stream", "",
        "", "--b--", "",
    ])  # fmt: skip
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answers = [
        ann.client.post("/upload", data=token),
        ann.client.post("/upload", data=token | {"file": "text"}),
        ann.client.post("/upload", content=empty, headers=kind),
    ]
    for answer in answers:
        assert (answer.status_code, errors_in(answer)) == (400, {"": "choose a file first"})


def test_a_file_that_is_too_large_is_refused(ann: Form, server: Server, tmp_path: Path) -> None:
    path = request_file(tmp_path, ROW)
    size = path.stat().st_size
    server.settings = replace(server.settings, max_upload_bytes=size - 1)
    answer = send_file(ann, path)
    assert errors_in(answer) == {"": f"up_1.fits: more than {size - 1} bytes; send it in parts"}
    assert (answer.status_code, requests(server), uploads_left(server)) == (400, 0, [])
    server.settings = replace(server.settings, max_upload_bytes=size)
    assert send_file(ann, path).status_code == 303


def test_long_lists_of_findings_are_cut(ann: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_module, "MAX_SHOWN", 3)
    rows = [ROW.replace("1 150.12 2.21", f"{n} 150.12 99") for n in range(1, 6)]
    table, _ = parse_text("\n".join(["up_1 2 PROCESS null", *rows]))
    path = tmp_path / "up_1.fits"
    write_request(path, replace(table, rows=(replace(table.rows[0], rownum=0, center_y=0.0), *table.rows[1:])))
    answer = send_file(ann, path)
    assert [line[0] for line in findings_in(answer)] == ["row 1 of the table", "2", "3"]
    assert "The first 3 of 5." in answer.text
    assert "5 rows can’t be served." in answer.text


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\x.fits", "x.fits"),
        ("..", "upload"),
        (".hidden.fits", "hidden.fits"),
        ("a\0b\r\nc.fits", "a_b__c.fits"),
        ("x" * 300 + ".fits", "x" * 59 + ".fits"),
        ("/", "upload"),
    ],
)
def test_the_name_of_an_uploaded_file_is_made_plain(server: Server, name: str, plain: str) -> None:
    with upload.received(server, BytesIO(b"abc"), name) as path:
        assert path.name == plain
        assert path.read_bytes() == b"abc"
        assert path.parent.parent == server.settings.work / "uploads"
        assert path.parent.stat().st_mode & 0o077 == 0
    assert uploads_left(server) == []
