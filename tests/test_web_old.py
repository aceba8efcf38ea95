"""The pages of the original server, asked by programs of its time (`oldclients`)."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import oldclients
import pytest
import servers
from astropy.io import fits
from fastapi import FastAPI
from starlette.testclient import TestClient
from webtest import PASSWORD, Browse, app, browse, email

from pstamp_core.formats import parse_text, write_request
from pstamp_core.machines import RequestState
from pstamp_core.store import make, moment, pstampRequest, pstampUser
from pstamp_core.tasks import accounts
from pstamp_core.tasks.oldform import DEFAULTS
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server
from simtest.survey import Survey

__all__ = ["app", "browse"]

ANN = (email("ann"), PASSWORD)
BOB = (email("bob"), PASSWORD)
OLGA = (email("olga"), PASSWORD)
PAGES = ["/upload.php", "/request.php", "/status.php", "/findskycell.php"]


@pytest.fixture
def web(app: FastAPI) -> TestClient:
    return TestClient(app, follow_redirects=False, raise_server_exceptions=False)


def request_file(tmp_path: Path, *rows: str, name: str = "old_1", sender: str | None = email("ann")) -> bytes:
    table, _ = parse_text("\n".join([f"{name} 2 PROCESS {sender or 'null'}", *rows]))
    write_request(tmp_path / "sent.fits", table)
    return (tmp_path / "sent.fits").read_bytes()


def finish(server: Server) -> None:
    run(server)


# -- from the upload to the stamps


def test_a_program_of_old_uploads_waits_and_fetches(
    web: TestClient, server: Server, survey: Survey, tmp_path: Path
) -> None:
    rows = [servers.row(1, survey, tess="null"), servers.row(2, survey, req="byname")]
    number, name = oldclients.upload(web, ANN, request_file(tmp_path, *rows))
    assert (number, name) == (1, "old_1")
    assert oldclients.sections(web, "/ds", "pstamp_results", name) is None
    finish(server)
    found = oldclients.sections(web, "/ds", "pstamp_results", name)
    assert found
    assert found[0][0].name == "results.fits"
    images = found[-1]
    assert images
    assert {each.columns["type"] for each in images} == {"pstamp"}
    for each in images:
        with fits.open(io.BytesIO(oldclients.fetch(web, "/ds", "pstamp_results", name, each))) as file:
            header = file[1].header if len(file) > 1 else file[0].header
            assert header["MJD-OBS"] > 50000
            assert header["FPA.FILTERID"].startswith("r")
    files = {each.name: each for section in found for each in section}
    table = oldclients.read_mdc(oldclients.fetch(web, "/ds", "pstamp_results", name, files["results.mdc"]).decode())
    ends = {(row["ROWNUM"], row["ERROR_STR"]) for row in table}
    assert ends == {("1", "PSTAMP_SUCCESS"), ("2", "PSTAMP_INVALID_REQUEST")}
    assert {row["IMG_NAME"] for row in table} - {"0"} <= set(files)


def test_the_product_depends_on_who_sends(web: TestClient, server: Server, survey: Survey, tmp_path: Path) -> None:
    server.datastore.add_product("bobs_results", "psresults", "for bob")
    with server.store.reading():
        pstampUser.create(userName="bob", domainName="example.org", accessLevel=1, defaultProduct="bobs_results")
    oldclients.upload(web, ANN, request_file(tmp_path, servers.row(1, survey), name="of_ann"))
    oldclients.upload(web, BOB, request_file(tmp_path, servers.row(1, survey), name="of_bob", sender=email("bob")))
    finish(server)
    assert oldclients.sections(web, "/ds", "pstamp_results", "of_ann")
    assert oldclients.sections(web, "/ds", "pstamp_results", "of_bob") is None
    assert oldclients.sections(web, "/ds", "bobs_results", "of_bob")


def test_the_answer_to_an_upload(web: TestClient, server: Server, survey: Survey, tmp_path: Path) -> None:
    content = request_file(tmp_path, servers.row(1, survey))
    answer = web.post("/upload.php", files={"filename": ("my file.fits", content)}, auth=ANN)
    assert answer.status_code == 200
    assert "<p>Submitted Request ID:&nbsp; 1\nRequest Name: &nbsp; old_1\n</p>" in answer.text
    assert "Error:" not in answer.text
    with server.store.reading():
        row = pstampRequest.get_by_id(1)
    assert (row.label, row.username) == ("WEB.UP", email("ann"))
    again = web.post("/upload.php", files={"filename": ("my file.fits", content)}, auth=ANN)
    assert again.status_code == 200
    assert "<p>Error: my_file.fits: REQ_NAME is &#39;old_1&#39;; it is in use by request 1 (new); send it" in again.text
    assert "Submitted Request ID" not in again.text


@pytest.mark.parametrize("data", [None, {"MAX_FILE_SIZE": "1"}])
def test_a_post_without_a_file_does_nothing(web: TestClient, server: Server, data: dict[str, str] | None) -> None:
    for files in (None, {"filename": ("", b"")}, {"filename": ("empty.fits", b"")}):
        answer = web.post("/upload.php", data=data, files=files, auth=ANN)
        assert answer.status_code == 200
        assert "Error:" not in answer.text
        assert "Submitted" not in answer.text
    with server.store.reading():
        assert pstampRequest.select().count() == 0


@pytest.mark.parametrize("content", [b"not FITS", b"SIMPLE  =                    T", b"\0" * 5760])
def test_what_is_no_request_is_refused(web: TestClient, content: bytes) -> None:
    with pytest.raises(oldclients.RefusedUploadError):
        oldclients.upload(web, ANN, content)


def test_another_s_address_in_the_file_is_refused(web: TestClient, survey: Survey, tmp_path: Path) -> None:
    with pytest.raises(oldclients.RefusedUploadError, match="not that of ann@"):
        oldclients.upload(web, ANN, request_file(tmp_path, servers.row(1, survey), sender=email("bob")))


def test_a_name_in_the_list_is_no_error(web: TestClient, server: Server, tmp_path: Path) -> None:
    """Nor would a name be that `pstamp submit` let through."""
    at = moment(server.store.now())

    def work() -> None:
        make(pstampRequest, now=server.store.now(), who="t", state=RequestState.NEW, name="Error:1", uri="x",
             username=email("ann"), registered=at, timestamp=at)  # fmt: skip

    server.store.work(work)
    answer = web.get("/upload.php", auth=ANN)
    assert "Error<wbr>:1" in answer.text
    assert "Error:" not in answer.text


# -- logging in


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "login",
    [
        None, "", "Basic", "Basic !!!", "Bearer x", f"Basic {base64.b64encode(b'ann').decode()}",
        f"Basic {base64.b64encode(bytes([255, 58])).decode()}",
        f"Basic {base64.b64encode(b'ann@example.org:wrong password').decode()}",
    ],
)  # fmt: skip
def test_nobody_unknown_gets_in(web: TestClient, page: str, login: str | None) -> None:
    headers = {} if login is None else {"Authorization": login}
    for answer in (web.get(page, headers=headers), web.post(page, headers=headers)):
        if page == "/status.php" and answer.status_code == 405:
            continue
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert answer.text.startswith("Error: ")


def test_a_token_does_instead_of_the_password(web: TestClient, server: Server) -> None:
    token = accounts.add_token(server, accounts.account_of(server, email("ann")), "old script")
    assert web.get("/upload.php", auth=(email("ann"), token)).status_code == 200
    assert web.get("/upload.php", auth=(email("bob"), token)).status_code == 401


def test_guessing_is_stopped_here_too(web: TestClient) -> None:
    for _ in range(accounts.WRONG_FOR_EMAIL):
        assert web.get("/upload.php", auth=(ANN[0], "wrong password")).status_code == 401
    answer = web.get("/upload.php", auth=ANN)
    assert (answer.status_code, "too many wrong passwords" in answer.text) == (401, True)


def test_a_login_by_cookie_is_none_here(browse: Browse) -> None:
    assert browse("ann").get("/upload.php").status_code == 401


@pytest.mark.parametrize("page", ["/upload.php", "/request.php", "/findskycell.php"])
def test_other_sites_may_not_post(web: TestClient, page: str) -> None:
    answer = web.post(page, auth=ANN, headers={"Origin": "https://evil.example"})
    assert (answer.status_code, answer.text) == (403, "Error: another site may not send this")


# -- the form

FORM = {"project": "gpc1", "select_by": "coord", "img_type": "stack", "center_type": "Sky", "range_type": "Pixels",
        "W": "20", "H": "20", "cmd_mode": "Make Stamps"}  # fmt: skip


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_form_makes_a_request(web: TestClient, server: Server, survey: Survey, method: str) -> None:
    form = FORM | {"RA": str(survey.centre[0]), "DEC": str(survey.centre[1])}
    answer = web.get("/request.php", params=form, auth=ANN) if method == "get" else web.post(
        "/request.php", data=form, auth=ANN
    )  # fmt: skip
    assert "request id: 1 name: web_1" in answer.text
    assert oldclients.states(answer.text) == {1: "new"}
    assert "<option selected>Get Status</option>" in answer.text
    with server.store.reading():
        row = pstampRequest.get_by_id(1)
    assert (row.name, row.label, row.username) == ("web_1", "WEB", email("ann"))
    finish(server)
    answer = web.post("/request.php", data={"cmd_mode": "Get Status"}, auth=ANN)
    assert oldclients.states(answer.text) == {1: "stop"}
    assert "Error:" not in answer.text
    found = oldclients.sections(web, "/ds", "pstamp_results", "web_1")
    assert found
    assert found[-1][-1].columns["type"] == "pstamp"


def test_another_s_requests_are_not_told_of(web: TestClient) -> None:
    web.post("/request.php", data=FORM | {"RA": "10", "DEC": "0"}, auth=ANN)
    for login in (BOB, OLGA):
        assert oldclients.states(web.post("/request.php", data={"cmd_mode": "Get Status"}, auth=login).text) == {}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"project": ""}, "project is empty; expected one"),
        ({}, "RA is empty; expected one"),
        ({"RA": "1"}, "DEC is empty; expected one"),
        ({"center_type": "Pixels"}, "X is empty; expected one"),
        ({"RA": "1", "DEC": "2", "W": ""}, "W is empty; expected one"),
        ({"RA": "1", "DEC": "2", "range_type": "Sky"}, "dRA is empty; expected one"),
        ({"RA": "1", "DEC": "2", "W": "wide"}, "W is &#39;wide&#39;; expected a number"),
        ({"RA": "1", "DEC": "2", "select_by": "exposure_id"},
         "a stack is not of one exposure; select it by coordinates or by its database ID"),
        ({"RA": "1", "DEC": "2", "select_by": "exposure_id", "img_type": "chip"},
         "id is empty; expected the name of an exposure"),
        ({"RA": "1", "DEC": "2", "select_by": "db_id"}, "id is empty; expected a database ID"),
        ({"RA": "1", "DEC": "2", "select_by": "db_id", "id": "1 OR 1=1"},
         "ID is &#39;1 OR 1=1&#39;; expected digits only, as byid needs them"),
        ({"RA": "1", "DEC": "2", "cmd_mode": "Get Images"},
         "JOB_TYPE is &#39;get_image&#39; with bycoord; expected byid or byexp"),
        ({"select_by": "<script>"}, "select_by is &#39;&lt;script&gt;&#39;; expected one of db_id, exposure_id,"),
        ({"cmd_mode": "List Images"}, "cmd_mode is &#39;List Images&#39;; expected one of Make Stamps, Get Images"),
        ({"RA": "nowhere", "DEC": "2"}, ""),
    ],
)  # fmt: skip
def test_the_form_says_what_is_wrong(web: TestClient, server: Server, fields: dict[str, str], error: str) -> None:
    answer = web.post("/request.php", data=FORM | fields, auth=ANN)
    assert answer.status_code == 200
    assert f"<p>Error: {error}" in answer.text
    assert "request id:" not in answer.text
    with server.store.reading():
        assert pstampRequest.select().count() == 0


def test_a_coordinate_of_zero_is_one(web: TestClient) -> None:
    answer = web.post("/request.php", data=FORM | {"RA": "0", "DEC": "0"}, auth=ANN)
    assert "request id: 1 name: web_1" in answer.text
    pixels = {"center_type": "Pixels", "X": "0", "Y": "0", "select_by": "db_id", "id": "1", "img_type": "warp"}
    assert "request id: 2 name: web_2" in web.post("/request.php", data=FORM | pixels, auth=ANN).text


def test_what_was_typed_stays_and_is_harmless(web: TestClient) -> None:
    evil = '"><script>alert(1)</script>'
    answer = web.post("/request.php", data=FORM | {"id": evil, "class_id": evil, "project": evil, "RA": evil}, auth=ANN)
    assert "<script" not in answer.text
    assert answer.text.count("&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


def test_a_link_of_another_site_sends_nothing(web: TestClient, server: Server) -> None:
    form = FORM | {"RA": "10", "DEC": "0"}
    for site, status in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
        answer = web.get("/request.php", params=form, auth=ANN, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == status
    with server.store.reading():
        assert pstampRequest.select().count() == 2


# -- status and finder


def test_the_status_is_a_table_with_bars(web: TestClient, server: Server, survey: Survey, tmp_path: Path) -> None:
    oldclients.upload(web, ANN, request_file(tmp_path, servers.row(1, survey), servers.row(2, survey, req="byname")))
    waiting = oldclients.status_table(web.get("/status.php", auth=ANN).text)
    assert [(row["name"], row["state"]) for row in waiting] == [("old_1", "new")]
    finish(server)
    text = web.get("/status.php", auth=ANN).text
    [row] = oldclients.status_table(text)
    assert (row["name"], row["Total Jobs"], row["Successful Jobs"], row["Faulted Jobs"]) == ("old_1", "5", "4", "1")
    assert {"Completion Time (UTC)", "Submit Time (UTC)", "label", "req_id"} <= set(row)
    assert oldclients.status_table(web.get("/status.php", auth=BOB).text) == []
    assert [row["name"] for row in oldclients.status_table(web.get("/status.php", auth=OLGA).text)] == ["old_1"]


def test_the_skycells_of_a_position(web: TestClient, survey: Survey) -> None:
    ra, dec = survey.centre
    found = oldclients.skycells(web, ANN, ra, dec)
    assert found
    assert len({(tess, cell) for tess, cell, _, _ in found}) == len(found) == 4
    assert {tess for tess, _, _, _ in found} == {survey.tess_id}
    assert oldclients.skycells(web, ANN, "0", "-89") == []
    [first, *_] = [cell for _, cell, _, _ in oldclients.skycells(web, ANN, "10 00 28.8", "+2 12 36")]
    assert first in {cell for _, cell, _, _ in found}


@pytest.mark.parametrize(
    ("ra", "dec"), [("", ""), ("1", ""), ("x", "y"), ("400", "0"), ("10", "95"), ("1;DROP", "2"), ("1\n2 3 4", "4")]
)
def test_a_position_that_is_none(web: TestClient, ra: str, dec: str) -> None:
    answer = web.post("/findskycell.php", data={"ra": ra, "dec": dec}, auth=ANN)
    assert answer.status_code == 200
    assert "<p>Error: " in answer.text


def test_the_pages_have_the_words_that_programs_know(web: TestClient) -> None:
    """Names of fields, and where forms go."""
    texts: dict[str, Any] = {page: web.get(page, auth=ANN).text for page in PAGES}
    assert '<form method="post" action="upload.php" enctype="multipart/form-data">' in texts["/upload.php"]
    assert '<input type="file" name="filename">' in texts["/upload.php"]
    for name in (*DEFAULTS, "request_id", "last_request_id", "last_cmd_mode"):
        assert f'name="{name}"' in texts["/request.php"]
    assert '<input type="text" name="ra" value="">' in texts["/findskycell.php"]
