"""The JSON interface: what programs send and get, who may what, and the examples of `docs/api.md`."""

from __future__ import annotations

import hashlib
import json
import math
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import servers
from browsing import served
from fastapi import FastAPI
from starlette.testclient import TestClient
from webtest import PASSWORD, app, email

from pstamp_core.formats import parse_text, read_request, write_request
from pstamp_core.formats.request import COLUMNS
from pstamp_core.store import pstampRequest
from pstamp_core.tasks import accounts
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server
from pstamp_web import api
from simtest.survey import Survey

__all__ = ["app"]


class Program:
    """A program of one person, with a token of theirs."""

    def __init__(self, app: FastAPI, server: Server, name: str) -> None:
        self.web = TestClient(app, follow_redirects=False, raise_server_exceptions=False)
        token = accounts.add_token(server, accounts.account_of(server, email(name)), "test")
        self.web.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, status: int = 200, **params: Any) -> Any:
        answer = self.web.get(f"/api{path}", params=params)
        assert answer.status_code == status, answer.text
        return answer.json()

    def post(self, path: str, status: int = 200, **sent: Any) -> Any:
        answer = self.web.post(f"/api{path}", **sent)
        assert answer.status_code == status, answer.text
        return answer.json()

    def send(self, *rows: dict[str, Any], status: int = 201, **more: Any) -> Any:
        return self.post("/requests", status, json={"rows": list(rows), **more})


@pytest.fixture
def ann(app: FastAPI, server: Server) -> Program:
    return Program(app, server, "ann")


@pytest.fixture
def bob(app: FastAPI, server: Server) -> Program:
    return Program(app, server, "bob")


@pytest.fixture
def olga(app: FastAPI, server: Server) -> Program:
    return Program(app, server, "olga")


def row(survey: Survey, **other: Any) -> dict[str, Any]:
    ra, dec = survey.centre
    return {"CENTER_X": ra, "CENTER_Y": dec, "WIDTH": 30, "HEIGHT": 30, "COORD_MASK": 2, "PROJECT": "gpc1",
            "REQ_TYPE": "bycoord", "IMG_TYPE": "stack", "REQFILT": "r", **other}  # fmt: skip


def file_of(tmp_path: Path, *rows: str, name: str = "api_1", sender: str = email("ann")) -> dict[str, Any]:
    table, _ = parse_text("\n".join([f"{name} 2 PROCESS {sender}", *rows]))
    write_request(tmp_path / "sent.fits", table)
    return {"files": {"file": ("my file.fits", (tmp_path / "sent.fits").read_bytes())}}


def requests(server: Server) -> int:
    with server.store.reading():
        return int(pstampRequest.select().count())


# -- from the rows to the files


def test_rows_are_sent_watched_and_fetched(ann: Program, server: Server, survey: Survey) -> None:
    sent = ann.send(row(survey, COMMENT="here"), row(survey, REQ_TYPE="byid", ID="1234567"), prefix="m31")
    told = {"req_id": 1, "name": "m31_1", "who": email("ann"), "label": "WEB", "state": "new", "fault": 0,
            "says": "to be read", "rows": 2, "mine": True}  # fmt: skip
    assert {name: sent[name] for name in told} == told
    assert [each["why"] for each in sent["waits"]] == ["to be read: number 1 of 1 in the queue"]
    assert ann.get("/requests/1/files", 404) == {"error": "request 1 is not finished: it has no results yet"}
    assert ann.get("/requests/1/results", 404) == {"error": "request 1 is not finished: it has no results yet"}
    run(server)
    done = ann.get("/requests/1")
    assert (done["state"], done["says"], done["waits"], done["page"]) == ("stop", "finished", [], "/request/1")
    images = done["progress"]["images"]
    assert done["progress"] == {"images": images, "done": images - 1, "failed": 1, "waiting": 0}
    jobs = ann.get("/requests/1/jobs")
    assert (len(jobs["jobs"]), jobs["pages"]) == (images, 1)
    assert jobs["jobs"][0]["values"]["COMMENT"] == "here"
    [failed] = ann.get("/requests/1/jobs", failed=True)["jobs"]
    assert (failed["row"], failed["fault"], failed["files"]) == (2, 23, [])
    assert failed["sentence"]
    table = ann.get("/requests/1/results")
    ends = {(line["ROWNUM"], line["ERROR_STR"]) for line in table}
    assert ends == {(1, "PSTAMP_SUCCESS"), (2, "PSTAMP_NO_IMAGE_MATCH")}


def test_files_have_addresses_that_need_no_token(ann: Program, app: FastAPI, server: Server, survey: Survey) -> None:
    ann.send(row(survey))
    run(server)
    files = ann.get("/requests/1/files")
    assert [each["name"] for each in files][:2] == ["results.fits", "results.mdc"]
    assert files[-1]["type"] == "pstamp"
    with TestClient(app) as anybody:
        for each in files:
            content = anybody.get(each["url"]).content
            assert len(content) == each["bytes"]
            assert hashlib.md5(content, usedforsecurity=False).hexdigest() == each["md5"]


def test_every_column_comes_into_the_table(ann: Program, server: Server) -> None:
    values: dict[str, Any] = {
        "ROWNUM": 7, "CENTER_X": 10.5, "CENTER_Y": -3, "WIDTH": 20, "HEIGHT": 30.5, "COORD_MASK": 0,
        "JOB_TYPE": "STAMP", "OPTION_MASK": 71, "PROJECT": "gpc1", "SURVEY_NAME": "3PI", "IPP_RELEASE": "PV3",
        "REQ_TYPE": "byid", "IMG_TYPE": "warp", "ID": "40001", "TESS_ID": "RINGS.V3", "COMPONENT": "skycell.1.2",
        "DATA_GROUP": "a%", "REQFILT": "r", "MJD_MIN": 55000, "MJD_MAX": 55001.5, "RUN_TYPE": " warp ",
        "FWHM_MIN": 0.5, "FWHM_MAX": 2, "COMMENT": "null",
    }  # fmt: skip
    assert set(values) == set(api.Row.model_fields)
    ann.send(values, row_of_nothing := {"CENTER_X": 1, "CENTER_Y": 2, "WIDTH": 3, "HEIGHT": 4, "PROJECT": "gpc1",
                                        "REQ_TYPE": "bycoord", "IMG_TYPE": "stack"})  # fmt: skip
    with server.store.reading():
        request = pstampRequest.get_by_id(1)
    table = read_request(Path(request.uri))
    assert (table.req_name, table.extver, table.action, table.email) == ("web_1", 2, "PROCESS", email("ann"))
    first = {name: getattr(table.rows[0], name.lower()) for name in values}
    assert first == values | {"JOB_TYPE": "stamp", "RUN_TYPE": "warp", "COMMENT": None}
    assert table.rows[1].rownum == 2
    assert (table.rows[1].job_type, table.rows[1].option_mask, table.rows[1].coord_mask) == ("stamp", 1, 0)
    assert table.rows[1].center_y == row_of_nothing["CENTER_Y"]


def test_the_columns_are_those_of_the_table() -> None:
    limits = {"16A": 16, "64A": 64}
    kinds = {"D": "number", "J": "integer"}
    schema = api.Row.model_json_schema()["properties"]
    assert list(schema) == [column.name for column in COLUMNS]
    for column in COLUMNS:
        told = next((each for each in schema[column.name].get("anyOf", []) if "maxLength" in each), schema[column.name])
        if column.tform in limits:
            assert (told["type"], told["maxLength"]) == ("string", limits[column.tform])
        else:
            assert told["type"] == kinds[column.tform]


def test_a_preview_is_counted_and_accepted(ann: Program, server: Server, survey: Survey) -> None:
    ann.send(row(survey), row(survey, CENTER_Y=-80.0), action="PREVIEW")
    parse_requests(server, 1)
    assert ann.get("/requests/1")["says"] == "preview"
    found = ann.get("/requests/1/matches")
    assert (found["pages"], [each["row"] for each in found["rows"]]) == (1, [1, 2])
    assert [(each["images"] > 0, each["refused"]) for each in found["rows"]] == [(True, 0), (False, 1)]
    accepted = ann.post("/requests/1/accept")
    assert accepted["state"] == "run"
    run(server)
    assert ann.get("/requests/1")["state"] == "stop"
    error = ann.post("/requests/1/accept", 400)["error"]
    assert error.startswith("request 1 can't be accepted any more: ")


def test_a_request_is_cancelled(ann: Program, server: Server, survey: Survey) -> None:
    ann.send(row(survey))
    assert ann.post("/requests/1/cancel")["state"] == "cancel"
    run(server)
    assert ann.get("/requests/1/jobs")["jobs"][0]["fault"] == 32


# -- files


def test_a_file_is_checked_and_sent(ann: Program, server: Server, survey: Survey, tmp_path: Path) -> None:
    sent = file_of(tmp_path, servers.row(1, survey))
    assert ann.post("/check/file", **sent) == {"count": 0, "findings": []}
    assert requests(server) == 0
    answer = ann.web.post("/api/requests/file", **sent)
    assert (answer.status_code, answer.headers["location"]) == (201, "/api/requests/1")
    assert {name: answer.json()[name] for name in ("req_id", "name", "label", "rows")} == {
        "req_id": 1, "name": "api_1", "label": "WEB.UP", "rows": 1
    }  # fmt: skip
    in_use = "my_file.fits: REQ_NAME is 'api_1'; it is in use by request 1 (new); send it under another name"
    again = ann.post("/requests/file", 400, **sent)
    assert (again["error"], again["count"], again["findings"][0]["sentence"]) == (in_use, 1, in_use)
    assert ann.post("/check/file", **sent)["findings"][0]["sentence"] == in_use


def test_a_file_with_wrong_rows_is_sent_if_it_must(
    ann: Program, server: Server, survey: Survey, tmp_path: Path
) -> None:
    sent = file_of(tmp_path, servers.row(1, survey), servers.row(2, survey, req="byname"))
    refused = ann.post("/requests/file", 400, **sent)
    assert refused["error"] == refused["findings"][0]["sentence"]
    assert {each["position"] for each in refused["findings"]} == {2}
    assert requests(server) == 0
    assert ann.post("/requests/file?anyway=true", 201, **sent)["rows"] == 2
    another = file_of(tmp_path, servers.row(1, survey), name="api_2", sender=email("bob"))
    assert "ann@example.org, who sends it" in ann.post("/requests/file?anyway=true", 400, **another)["error"]
    empty = file_of(tmp_path, name="api_3")
    assert ann.post("/requests/file?anyway=true", 400, **empty)["findings"][0]["value"] == "no rows"
    assert requests(server) == 1


def test_what_is_no_file_is_refused(ann: Program, server: Server) -> None:
    nothing = "there is no file in it; send one as the field file of a form (multipart/form-data)"
    for path in ("/requests/file", "/check/file"):
        for sent in ({}, {"data": {"file": "text"}}, {"files": {"other": ("a", b"b")}}, {"files": {"file": ("", b"")}}):
            assert ann.post(path, 400, **sent) == {"error": nothing}  # type: ignore[arg-type]
    assert "not a FITS" in ann.post("/requests/file", 400, files={"file": ("a", b"nonsense")})["error"]
    assert requests(server) == 0


# -- what is wrong with rows


def test_what_is_wrong_is_told_row_by_row(ann: Program, server: Server, survey: Survey) -> None:
    rows = [row(survey), row(survey, PROJECT="gpc9", IMG_TYPE="sky"), row(survey, ROWNUM=1)]
    checked = ann.post("/check", json={"rows": rows})
    assert [(each["position"], each["column"]) for each in checked["findings"]] == [
        (2, "IMG_TYPE"), (2, "PROJECT"), (3, "ROWNUM")
    ]  # fmt: skip
    refused = ann.send(*rows, status=400)
    assert refused["findings"] == checked["findings"]
    assert (refused["count"], refused["error"]) == (3, checked["findings"][0]["sentence"])
    assert refused["error"].startswith("request, row 2: IMG_TYPE is 'sky'; expected raw, chip, ")
    assert requests(server) == 0
    assert ann.post("/check", json={"rows": [row(survey)]}) == {"count": 0, "findings": []}


def test_only_so_many_findings_are_told(ann: Program, survey: Survey) -> None:
    checked = ann.post("/check", json={"rows": [row(survey, ROWNUM=n, IMG_TYPE="sky") for n in range(1, 301)]})
    assert (checked["count"], len(checked["findings"])) == (300, api.MAX_FINDINGS)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"rows": []}, "rows: List should have at least 1 item after validation, not 0"),
        ({"rows": None}, "rows: Input should be a valid array"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"action": "LIST"}, "action: Input should be 'PROCESS' or 'PREVIEW'"),
        ({"prefix": "x" * 54}, "prefix: String should have at most 53 characters"),
        ({"rows": [{}]}, "rows.0.CENTER_X: Field required; rows.0.CENTER_Y: Field required; rows.0.WIDTH: Field "
         "required; rows.0.HEIGHT: Field required"),
        ({"CENTER_X": "10"}, "rows.0.CENTER_X: Input should be a valid number"),
        ({"CENTRE_X": 10}, "rows.0.CENTRE_X: Extra inputs are not permitted"),
        ({"COORD_MASK": 1.5}, "rows.0.COORD_MASK: Input should be a valid integer"),
        ({"CENTER_X": math.inf}, "rows.0.CENTER_X: Input should be a finite number"),
        ({"COMMENT": "x" * 65}, "rows.0.COMMENT: String should have at most 64 characters"),
        ({"COMMENT": "é"}, "rows.0.COMMENT: String should match pattern '^[ -~]*$'"),
        ({"COMMENT": "a\n"}, "rows.0.COMMENT: String should match pattern '^[ -~]*$'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/check", "/requests"])
def test_a_body_that_is_no_request(
    ann: Program, server: Server, survey: Survey, path: str, change: dict[str, Any], error: str
) -> None:
    body: dict[str, Any] = {"rows": [row(survey)]}
    if set(change) <= {"rows", "more", "action", "prefix"}:
        body |= change
    else:
        body["rows"][0] |= change
    sent = {"content": json.dumps(body)}
    assert ann.post(path, 422, **sent) == {"error": error}
    assert requests(server) == 0


def test_bodies_that_are_no_json(ann: Program) -> None:
    for body in (b"", b"{", b"[" * 100_000, b"\xff", b'{"rows": "\\ud800"}', b"1" * 10_000):
        assert ann.web.post("/api/requests", content=body).status_code == 422
    bad = ann.send({"CENTER_X": 1, "CENTER_Y": 1, "WIDTH": 10**400, "HEIGHT": 1}, status=422)
    assert "WIDTH" in bad["error"]


def test_no_more_is_told_than_can_be_read(ann: Program) -> None:
    error = ann.send(*[{"X": 1}] * 3000, status=422)["error"]
    assert error.count(";") == api.MAX_FLAWS - 1


@pytest.mark.parametrize("prefix", ["", "../x", "a b", "x/y", ".x", "<b>"])
def test_a_prefix_that_no_name_can_have(ann: Program, survey: Survey, prefix: str) -> None:
    error = ann.send(row(survey), prefix=prefix, status=400)["error"]
    assert error.startswith(f"request: REQ_NAME is '{prefix}_1234567890'; expected at most 64 letters")


def test_a_name_that_another_has_is_no_trouble(ann: Program, bob: Program, survey: Survey, tmp_path: Path) -> None:
    taken = file_of(tmp_path, servers.row(1, survey), name="web_1234567890", sender=email("bob"))
    bob.post("/requests/file", 201, **taken)
    assert ann.send(row(survey))["name"] == "web_2"


def test_the_quota_holds(ann: Program, server: Server, survey: Survey) -> None:
    object.__setattr__(server.settings, "max_open_rows", 3)
    ann.send(row(survey), row(survey))
    refused = ann.send(row(survey), row(survey), status=400)
    assert "your requests that are not finished have 2, and a user may have 3 at a time" in refused["error"]
    ann.send(row(survey))


def test_bodies_are_bounded(ann: Program, app: FastAPI, survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_JSON", 700)
    too_large = {"error": "more than 700 bytes; send longer lists of rows as a file"}
    assert ann.send(row(survey), row(survey), row(survey), row(survey), row(survey), status=413) == too_large
    # Nobody unknown has anything read.
    with TestClient(app) as nobody:
        assert nobody.post("/api/requests", content=b"x" * 2000).status_code == 401
        for path in ("/api/requests/file", "/api/check/file"):
            broken = nobody.post(path, content=b"x", headers={"Content-Type": "multipart/form-data"})
            assert broken.status_code == 401
    assert ann.web.post("/api/check/file", content=b"x", headers={"Content-Type": "multipart/form-data"}).json() == {
        "error": "Missing boundary in multipart."
    }


def test_too_many_rows_are_refused(ann: Program, survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ann.send(*[row(survey)] * (api.MAX_ROWS + 1), status=422)
    assert refused["error"].startswith(f"rows: List should have at most {api.MAX_ROWS} items")


# -- who may what

READING = ["/requests/1", "/requests/1/jobs", "/requests/1/matches", "/requests/1/results", "/requests/1/files"]
DECIDING = ["/requests/1/accept", "/requests/1/cancel"]


def test_another_s_request_is_not_there(
    ann: Program, bob: Program, olga: Program, server: Server, survey: Survey
) -> None:
    ann.send(row(survey))
    run(server)
    for program, number in ((bob, 1), (bob, 2), (ann, 2)):
        for path in READING:
            told = program.get(path.replace("1", str(number)), 404)
            assert told == {"error": f"there is no request {number} of yours"}
        for path in DECIDING:
            assert program.post(path.replace("1", str(number)), 404) == told
    assert bob.get("/requests") == {"entries": [], "before": None}
    assert bob.get("/requests", everyone=True, search=email("ann"))["entries"] == []
    assert olga.get("/requests")["entries"] == []
    assert [each["req_id"] for each in olga.get("/requests", everyone=True)["entries"]] == [1]
    for path in READING:
        olga.get(path)


def test_a_friend_looks_but_does_not_decide(ann: Program, bob: Program, server: Server, survey: Survey) -> None:
    for name in ("ann", "bob"):
        accounts.change_groups(server, email(name), add=["friends"])
    ann.send(row(survey))
    assert bob.get("/requests/1")["mine"] is False
    refused = bob.post("/requests/1/cancel", 403)
    assert refused == {"error": "request 1 is not yours: whoever sent it can cancel it, or an operator"}
    assert ann.get("/requests/1")["state"] == "new"


def test_the_list_is_searched_and_paged(ann: Program, survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    for prefix in ("a", "b", "a"):
        ann.send(row(survey), prefix=prefix)
    assert [each["name"] for each in ann.get("/requests")["entries"]] == ["a_3", "b_2", "a_1"]
    assert [each["name"] for each in ann.get("/requests", search="a_")["entries"]] == ["a_3", "a_1"]
    assert [each["name"] for each in ann.get("/requests", before=3)["entries"]] == ["b_2", "a_1"]
    assert ann.get("/requests", state="stop")["entries"] == []
    assert len(ann.get("/requests", state="unfinished")["entries"]) == 3
    assert ann.get("/requests", 400, state="odd")["error"].startswith("state 'odd': expected unfinished or one of")
    for search in ("' OR 1=1 --", "%", "_", "\x00", "é" * 300):
        assert ann.get("/requests", search=search)["entries"] == []


@pytest.mark.parametrize("number", ["0", "-1", str(2**63), str(10**30)])
def test_numbers_that_no_request_has(ann: Program, number: str) -> None:
    assert ann.get(f"/requests/{number}", 404) == {"error": f"there is no request {number} of yours"}


def test_what_is_no_number(ann: Program) -> None:
    assert ann.get("/requests/1 OR 1=1", 422)["error"].startswith("req_id: Input should be a valid integer")
    for page in (0, -1, 2**63):
        assert ann.get("/requests/1/jobs", 422, page=page)["error"].startswith("page: ")


PATHS = [("GET", f"/api{path}") for path in (*READING, "/requests", "/finder", "/status")] + [
    ("POST", f"/api{path}") for path in (*DECIDING, "/requests", "/requests/file", "/check", "/check/file")
]


def test_these_are_all_paths(app: FastAPI) -> None:
    told = app.openapi()["paths"]
    found = {(method.upper(), path.replace("{req_id}", "1")) for path, ways in told.items() for method in ways}
    assert found == set(PATHS)


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_nobody_unknown_gets_in(app: FastAPI, method: str, path: str) -> None:
    told = "send a token of yours: Authorization: Bearer TOKEN"
    with TestClient(app) as web:
        web.post("/login", data={"email": email("ann"), "password": PASSWORD})  # a browser's login is none here
        for login in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic !"}, {"Authorization": "x"}):
            answer = web.request(method, path, headers=login)
            assert (answer.status_code, answer.json()) == (401, {"error": told})
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_password_does_too(app: FastAPI) -> None:
    with TestClient(app) as web:
        assert web.get("/api/requests", auth=(email("ann"), PASSWORD)).status_code == 200
        for _ in range(accounts.WRONG_FOR_EMAIL):
            answer = web.get("/api/requests", auth=(email("ann"), "a wrong password"))
            assert answer.status_code == 401
        assert answer.json() == {"error": "e-mail address and password do not belong to an account here"}
        answer = web.get("/api/requests", auth=(email("ann"), PASSWORD))
        assert answer.json()["error"].startswith("too many wrong passwords")


def test_a_token_that_is_over_is_none(ann: Program, server: Server) -> None:
    accounts.change_account(server, email("ann"), active=False)
    assert ann.get("/requests", 401) == {"error": "send a token of yours: Authorization: Bearer TOKEN"}


def test_other_sites_may_not_post(ann: Program) -> None:
    answer = ann.web.post("/api/requests/1/cancel", headers={"Origin": "https://evil.example"})
    assert (answer.status_code, answer.json()) == (403, {"error": "another site may not send this"})


def test_there_is_no_such_path(ann: Program) -> None:
    assert ann.get("/nothing", 404) == {"error": "Not Found"}
    assert ann.post("/status", 405) == {"error": "Method Not Allowed"}


# -- the survey, and the server


def test_the_finder(ann: Program, server: Server, survey: Survey) -> None:
    ra, dec = survey.centre
    [found] = ann.get("/finder", positions=f"{ra} {dec} | here", stage="stack", reqfilt="r")
    assert (found["ra"], found["dec"], found["comment"]) == (pytest.approx(ra), pytest.approx(dec), "here")
    assert {each["tess_id"] for each in found["skycells"]} == {survey.tess_id}
    assert {(each["stage"], spot["filter"][0]) for each in found["images"] for spot in each["newest"]} == {
        ("stack", "r")
    }
    assert ann.get("/finder", 400, positions="nowhere")["error"].startswith("positions, line 1: ")
    assert ann.get("/finder", 422)["error"] == "positions: Field required"
    assert ann.get("/finder", 422, positions="1 2", stage="sky")["error"].startswith("stage: ")


def test_the_status(ann: Program, olga: Program, server: Server, survey: Survey) -> None:
    ann.send(row(survey))
    told, all_ = ann.get("/status"), olga.get("/status")
    assert {each["name"]: each["now"] for each in told["queues"]}["parse"] == 1
    assert [each["label"] for each in all_["labels"]] == ["WEB"]
    assert (told["labels"], told["leases"], told["stuck"], told["more_stuck"]) == ([], [], [], 0)
    for name in ("queues", "moves", "images", "faults", "disks"):
        assert told[name] == all_[name]


# -- the description


def test_openapi_says_what_there_is(app: FastAPI) -> None:
    with TestClient(app) as web:
        told = web.get("/api/openapi.json").json()
    for ways in told["paths"].values():
        for way in ways.values():
            assert way["description"]
            assert way["security"] == [{"HTTPBearer": []}]
            assert {"401", "404"} <= set(way["responses"])
    body = told["paths"]["/api/requests"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert all(each["description"] for each in body["properties"]["rows"]["items"]["properties"].values())
    assert "$ref" not in json.dumps(body)


def test_the_example_of_openapi_is_a_request(ann: Program, app: FastAPI) -> None:
    schema = app.openapi()["paths"]["/api/check"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert ann.post("/check", json=schema["example"]) == {"count": 0, "findings": []}


PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def test_the_examples_go_as_they_are_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, folder = tmp_path / "home", tmp_path / "typed"
    folder.mkdir()
    ana = accounts.add_account(server, "ana@obs.example.edu", PASSWORD)
    monkeypatch.setenv("TOKEN", accounts.add_token(server, ana, "the page"))
    day = runpy.run_path(str(PAGE.with_name("day.py")))
    told = PAGE.read_text(encoding="utf-8")
    for name, language in (("request.json", "json"), ("fetch.py", "python")):
        [text] = re.findall(rf"^```{language}\n(.*?)^```$", told, re.DOTALL | re.MULTILINE)
        (folder / name).write_text(text)
    with served(home) as (address, _):
        monkeypatch.setenv("SERVER", address)
        typed = day["replay"](told, folder)
    (tmp_path / "api.md").write_text(typed)  # to be copied where the page is to change
    alike = [re.sub(r'"[0-9a-f]{32}"', '"<md5>"', day["alike"](text)) for text in (typed, told)]
    assert alike[0].splitlines() == alike[1].splitlines()
