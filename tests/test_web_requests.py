"""The pages of requests: lists, one request in each of its states, its pictures and downloads, and who may see them."""

from __future__ import annotations

import hashlib
import html
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from conftest import NOW, Clock, Rows, _allow_any_row
from webtest import Browse, app, browse, email, token_of

from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.store import pstampRequest
from pstamp_core.tasks import operate
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server
from pstamp_web.requests import _attachment
from simtest.survey import Survey

__all__ = ["app", "browse"]

EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>"""


@pytest.fixture
def rows(server: Server, clock: Clock) -> Iterator[Rows]:
    """Rows in any state in the server that is browsed; made by ann unless said otherwise."""
    with server.store.reading():
        _allow_any_row(server.store)
        yield Rows(clock)


def text(page: str) -> str:
    """What a page says, without its head, in one line."""
    body = page[page.index("<main") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def live(page: str) -> int:
    """After how many seconds a page is fetched anew; 0 is never."""
    found = re.search(r'data-live="(\d+)"', page)
    return int(found[1]) if found else 0


# -- lists


def test_the_front_door_leads_to_ones_requests(browse: Browse) -> None:
    answer = browse("ann").get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/requests")
    for way in ("/requests", "/request/1", "/request/1/stamps.tar", "/request/1/results.csv", "/request/1/picture/a"):
        answer = browse("nobody").get(way)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={way}")


def test_a_newcomer_is_told_what_to_do(browse: Browse) -> None:
    page = browse("ann").get("/requests").text
    assert "Your first stamps" in page
    for way in ("/form", "/upload", "/finder"):
        assert f'<a href="{way}">' in page[page.index("Your first stamps") :]
    assert "Your first stamps" not in browse("ann").get("/requests?q=x").text


def test_a_list(browse: Browse, rows: Rows) -> None:
    working = rows.request(RequestState.RUN, name="night_1", username=email("ann"), label="fast", changed_at=NOW)
    for state, fault in ((JobState.RUN, 0), (JobState.STOP, 0), (JobState.STOP, 23)):
        rows.job(working, state, fault=fault)
    rows.job(working, dep_id=rows.dependent().dep_id)
    empty = rows.request(RequestState.STOP, name="night_2", username=email("ann"))
    rows.job(empty, JobState.STOP, fault=23)
    good = rows.request(RequestState.CLEANED, name="night_3", username=email("ann"))
    rows.job(good, JobState.STOP)
    preview = rows.request(RequestState.PARSED, name="night_4", username=email("ann"))
    rows.job(preview, JobState.PARSED)
    rows.job(preview, JobState.STOP, fault=23)
    rows.request(RequestState.NEW, name=None, username=email("ann"), fault=2)
    rows.request(name="others", username=email("bob"))
    page = browse("ann").get("/requests").text
    lines = [text(f"<main>{line}") for line in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)]
    times = r" 20\d\d-\d\d-\d\d [\d:]{8} (1970|20\d\d)-\d\d-\d\d [\d:]{8}"
    assert [re.sub(f"{times}$", "", line) for line in lines] == [
        "No. Name State Images Label Sent Last change",
        "5 not read yet held up",
        "4 night_4 preview 1 match, 1 not to be had",
        "3 night_3 deleted 1 stamp",
        "2 night_2 finished, no stamps 0 stamps, 1 without",
        "1 night_1 working 2 of 4 done, 1 without stamp, 1 waits for the image fast",
    ]
    assert live(page) == 3
    assert live(browse("ann").get("/requests?state=stop").text) == 0
    assert 'value="stop" selected' in browse("ann").get("/requests?state=stop").text


def test_whose_requests_are_shown(browse: Browse, rows: Rows) -> None:
    for name in ("ann", "bob", "olga"):
        rows.request(name=f"of_{name}", username=email(name))
    shown = {
        (who, query): re.findall(r">(of_\w+)<", browse(who).get(f"/requests{query}").text)
        for who in ("ann", "olga") for query in ("", "?who=all")
    }  # fmt: skip
    assert shown == {
        ("ann", ""): ["of_ann"], ("ann", "?who=all"): ["of_ann"],
        ("olga", ""): ["of_olga"], ("olga", "?who=all"): ["of_olga", "of_bob", "of_ann"],
    }  # fmt: skip
    assert "From" in text(browse("olga").get("/requests?who=all").text)
    assert "From" not in text(browse("olga").get("/requests").text)
    assert "Your requests" in browse("ann").get("/requests?who=all").text
    assert "of everybody" not in text(browse("ann").get("/requests").text)


def test_a_long_list_in_pages(browse: Browse, rows: Rows) -> None:
    for number in range(120):
        rows.request(name=f"n_{number}", username=email("ann"), label="a&b")
    browser, way, seen = browse("ann"), "/requests?q=a%26b", []
    while way:
        page = browser.get(way).text
        seen += re.findall(r">n_(\d+)<", page)
        assert 'value="a&amp;b"' in page
        older = re.search(r'href="([^"]*)">Older', page)
        way = html.unescape(older[1]) if older else ""
    assert [int(number) for number in seen] == list(range(119, -1, -1))
    newest = re.search(r'href="([^"]*)">Newest', page)
    assert newest
    assert html.unescape(newest[1]) == "/requests?q=a%26b"


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("?state=x", 400, "state 'x': expected unfinished or one of new,"),
        ("?before=x", 422, "before: "),
        ("?before=0", 422, "before: "),
        ("?before=9999999999999999999", 422, "before: "),
        ("?q=%00", 200, "Nothing found."),
        ("?q=%F0%28", 200, "Nothing found."),
        ("?q=" + "x" * 5000, 200, "Nothing found."),
        ("?q=' OR 1=1 --", 200, "Nothing found."),
        ("?q=1&q=2", 200, "Nothing found."),
    ],
)
def test_odd_searches(browse: Browse, query: str, status: int, says: str) -> None:
    answer = browse("ann").get(f"/requests{query}")
    assert (answer.status_code, says in text(answer.text)) == (status, True)


# -- one request


def test_somebody_elses_request_is_answered_as_none(browse: Browse, rows: Rows) -> None:
    rows.request(name="secret", username=email("bob"))
    browser = browse("ann")
    for rest in (
        "",
        "/stamps.tar",
        "/results.csv",
        "/results.json",
        "/results.fits",
        "/results.mdc",
        "/picture/a.fits",
    ):
        there, not_there = (browser.get(f"/request/{number}{rest}") for number in (1, 2))
        assert (there.status_code, not_there.status_code) == (404, 404)
        assert there.text.replace("request/1", "request/2").replace("request 1", "request 2") == not_there.text
        assert "there is no request 1 of yours" in there.text
    assert browse("olga").get("/request/1").status_code == 200


def test_what_is_no_number_of_a_request(browse: Browse) -> None:
    browser = browse("ann")
    for number in ("0", "-1", "x", "1e3", "9" * 30, "9" * 5000, "1'", "%2e%2e", "1%00"):
        for rest in ("", "/stamps.tar", "/results.csv", "/picture/a"):
            assert browser.get(f"/request/{number}{rest}").status_code in (404, 422), (number, rest)


def test_ways_that_lead_nowhere(browse: Browse, rows: Rows) -> None:
    rows.request(username=email("ann"))
    browser = browse("ann")
    for way in ("results.xml", "results.", "results.fits.bak", "stamps", "picture/", "picture/a/b"):
        assert browser.get(f"/request/1/{way}").status_code in (404, 422), way


def test_a_preview_shows_what_matches_and_asks(browse: Browse, rows: Rows) -> None:
    request = rows.request(RequestState.PARSED, name="look_1", username=email("ann"))
    asked = {"PROJECT": "gpc1", "IMG_TYPE": "warp", "REQ_TYPE": "bycoord", "CENTER_X": 10.5, "CENTER_Y": -2.25,
             "WIDTH": 60.0, "HEIGHT": 30.0, "COORD_MASK": 2, "REQFILT": "g", "COMMENT": "hello"}  # fmt: skip
    params = json.dumps({"row": asked})
    rows.job(request, JobState.PARSED, rownum="1", params=params)
    rows.job(request, JobState.PARSED, rownum="1", params=params, dep_id=rows.dependent(DependentState.HOLD).dep_id)
    rows.job(request, JobState.STOP, rownum="2", fault=23, sentence="row 2: no image", params=params)
    rows.job(request, JobState.STOP, rownum="0", fault=29)
    browser = browse("ann")
    page = browser.get("/request/1").text
    said = text(page)
    assert said.startswith(
        "look_1 preview This is a preview: 2 stamps would be cut; 2 images or rows lead to none, as the table says. "
        "Nothing happens until you decide. Cut 2 stamps Cancel"
    )
    assert "1 2 gpc1 warp bycoord hello 10.5, -2.25 60 × 30 px g 1 2 0 gpc1" in said
    assert "g 1 row 2: no image 0 0 1 The access level of the user does not allow this." in said
    assert live(page) == 0
    token = token_of(browser)
    for what in ("accept", "cancel"):
        form = re.search(rf'<form method="post" action="/request/1/{what}">.*?</form>', page)
        assert form
        assert f'name="form_token" value="{token}"' in form[0]


@pytest.mark.parametrize(
    ("state", "forms"), [("new", {"cancel"}), ("parsed", {"accept", "cancel"}), ("run", {"cancel"}), ("stop", set())]
)
def test_who_is_offered_to_change_it(browse: Browse, rows: Rows, state: str, forms: set[str]) -> None:
    rows.job(rows.request(RequestState(state), username=email("ann")), JobState.PARSED)
    for who in ("ann", "olga"):
        page = browse(who).get("/request/1").text
        assert set(re.findall(r'action="/request/1/(\w+)"', page)) == forms


def test_a_preview_without_a_match_can_only_be_cancelled(browse: Browse, rows: Rows) -> None:
    rows.job(rows.request(RequestState.PARSED, username=email("ann")), JobState.STOP, fault=23)
    page = browse("ann").get("/request/1").text
    assert re.findall(r'action="/request/1/(\w+)"', page) == ["cancel"]


def test_a_request_that_is_worked_on(browse: Browse, rows: Rows) -> None:
    request = rows.request(name="work_1", username=email("ann"), label="fast", changed_at=NOW)
    awaited = rows.dependent(reason="being made again", changed_at=NOW)
    rows.job(request, dep_id=awaited.dep_id, rownum="1", image="/data/in.fits")
    rows.job(request, rownum="2", changed_at=NOW)
    rows.job(request, rownum="2", fault=2, sentence="/data: no disk", changed_at=NOW)
    rows.job(request, JobState.STOP, rownum="3", fault=26, sentence="row 3: gone")
    page = browse("ann").get("/request/1").text
    said = text(page)
    for sentence in (
        "work_1 working 1 of 4 done, 1 without stamp, 1 waits for the image",
        f"1 image warp {awaited.stage_id} skycell.1: being made again since 2027-01-15 08:00:00; given up "
        "2027-01-22 08:00:00",
        "1 image to be cut: number 1 of 1 in the queue since 2027-01-15 08:00:00",
        "1 image A disk, network or system call failed. since",
        "1 waits for the image in.fits",
        "2 to be cut",
        "2 tried again A disk, network or system call failed.",
        "3 26 row 3: gone",
        "Rows 3",
        "Label fast",
    ):
        assert sentence in said
    assert "/data" not in page
    assert "Results" not in said
    assert live(page) == 3


def test_a_large_request_is_looked_at_less_often(browse: Browse, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pstamp_web.requests.LARGE", 2)
    request = rows.request(username=email("ann"))
    for _ in range(2):
        rows.job(request)
    assert live(browse("ann").get("/request/1").text) == 15


def test_a_request_whose_files_have_gone(browse: Browse, rows: Rows) -> None:
    result = {"products": [{"name": "a.fits", "type": "pstamp", "bytes": 2881, "md5": "x", "path": "x"}],
              "RA_DEG": 1, "DEC_DEG": 2, "box": [0, 0, 8, 6], "on_image": [0, 0, 8, 6], "FRAC_IMAGE": 1,
              "FRAC_FINITE": 0.5}  # fmt: skip
    request = rows.request(RequestState.CLEANED, name="old_1", username=email("ann"), changed_at=NOW)
    rows.job(request, JobState.STOP, rownum="1", result=json.dumps(result), image="/x/a.fits")
    rows.job(request, JobState.STOP, rownum="2", fault=23, sentence="row 2: no image")
    browser = browse("ann")
    page = browser.get("/request/1").text
    said = text(page)
    assert (
        "old_1 deleted Its files were deleted on 2027-01-15 08:00:00; results are kept for 14 days. What became of "
        "each image stays here."
    ) in said
    assert "1 stamp a.fits 1.00000, +2.00000 8 × 6 pixels 100 % on the image, 50 % finite fits 3 kB" in said
    assert "2 23 row 2: no image" in said
    assert '<img src="/request' not in page
    assert "/ds/" not in page[page.index("<main") :]
    for rest in ("stamps.tar", "results.csv", "picture/a.fits"):
        answer = browser.get(f"/request/1/{rest}")
        assert answer.status_code == 404
        assert "were kept long enough, and deleted on 2027-01-15; send it again" in answer.text


def test_many_images_in_pages(browse: Browse, rows: Rows) -> None:
    request = rows.request(RequestState.STOP, username=email("ann"))
    for number in range(120):
        rows.job(request, JobState.STOP, rownum=str(number), fault=26 * (number % 2))
    browser, way, seen = browse("ann"), "/request/1?stretch=log", []
    while way:
        page = browser.get(way).text
        seen += re.findall(r'<tr><td class="number">(\d+)</td>', page)
        after = re.search(r'href="([^"]*)">After', page)
        way = html.unescape(after[1]) if after else ""
        assert not way or "stretch=log" in way
    assert [int(number) for number in seen] == list(range(120))
    failed = browser.get("/request/1?only=failed&page=2").text
    assert "page 2 of 2" in text(failed)
    assert re.findall(r'<tr><td class="number">(\d+)</td>', failed) == [str(n) for n in range(101, 120, 2)]
    for odd in ("?page=0", "?page=-1", "?page=x", "?page=99999999999999999999"):
        assert browser.get(f"/request/1{odd}").status_code == 422
    assert browser.get("/request/1?page=4000000000&stretch=%00&only=x").status_code == 200


# -- what strangers write


@pytest.mark.parametrize("state", ["new", "parsed", "run", "stop", "cancel", "goto_cleaned", "cleaned"])
def test_nothing_that_is_shown_is_markup(browse: Browse, rows: Rows, state: str) -> None:
    """Names, labels, addresses, comments, what was asked for, sentences, file names, reasons."""
    rows.label(EVIL, active=False)
    request = rows.request(
        RequestState(state), name=EVIL, label=EVIL, username=email("ann"), outProduct=EVIL, fault=0, uri=EVIL
    )
    row = dict.fromkeys(("COMMENT", "PROJECT", "IMG_TYPE", "REQ_TYPE", "ID", "COMPONENT", "REQFILT"), EVIL)
    row |= {"CENTER_X": 1.0, "CENTER_Y": 1.0, "WIDTH": 1.0, "HEIGHT": 1.0, "COORD_MASK": 0}
    params = json.dumps({"row": row, "observation": {"FILTER": EVIL}})
    products = [{"name": f"{EVIL}.fits", "type": "pstamp", "bytes": 1, "md5": EVIL, "path": EVIL}]
    result = {"products": products, "RA_DEG": 0, "DEC_DEG": 0, "box": [0] * 4, "on_image": [0] * 4, "FRAC_IMAGE": 0,
              "FRAC_FINITE": 0}  # fmt: skip
    final = JobState.STOP if state in ("stop", "cleaned") else JobState.RUN
    rows.job(request, final, params=params, result=json.dumps(result), image=EVIL)
    rows.job(request, JobState.STOP, fault=23, sentence=EVIL, params=params)
    awaited = rows.dependent(reason=EVIL, component=EVIL, stage=EVIL[:20])
    rows.job(request, dep_id=awaited.dep_id, params=params)
    for who, way in [("ann", "/requests"), ("ann", f"/requests?q={EVIL}"), ("ann", f"/requests?state={EVIL}"),
                     ("ann", "/request/1"), ("ann", f"/request/1?stretch={EVIL}&only={EVIL}"),
                     ("ann", "/request/1?only=failed"), ("olga", "/requests?who=all"), ("olga", "/request/1"),
                     ("ann", f"/request/1/picture/{EVIL}"), ("ann", f"/request/1/results.{EVIL}")]:  # fmt: skip
        answer = browse(who).get(way)
        assert answer.status_code in (200, 400, 404, 422), way
        assert answer.headers["content-type"].startswith("text/html")
        for markup in ("<script>alert", "<img src=x", "\"'><", "onerror=alert(2)>"):
            shown = answer.text[answer.text.index("<main") :]
            assert markup not in shown, (way, markup)
    assert html.escape(EVIL, quote=False)[:20] in browse("ann").get("/requests").text


def test_a_header_can_not_be_broken() -> None:
    assert _attachment('a"b\r\nX: y\u00e9.tar') == "attachment; filename*=UTF-8''a%22b%0D%0AX%3A%20y%C3%A9.tar"


# -- results


def test_results_of_a_finished_request(browse: Browse, server: Server, survey: Survey, tmp_path: Path) -> None:
    lines = [servers.row(1, survey, options=1 + 64), servers.row(2, survey, filter="z")]
    assert servers.send(server, tmp_path, *lines) == 1
    run(server, workers=1)
    server.store.work(lambda: pstampRequest.update(username=email("ann")).execute())
    registered = {file.name: file for file in server.datastore.files("pstamp_results", "test_1")}
    browser = browse("ann")
    page = browser.get("/request/1?stretch=log").text
    said = text(page)
    assert said.startswith("test_1 finished Request 1, from ann@example.org")
    assert "Stamps 4; 1 image or row without" in said
    assert "Kept until" in said
    assert "2 23 row 2: " in said
    assert '<option value="log" selected>' in page
    assert live(page) == 0

    # Each picture is there, once, and is sent again only if it is another.
    pictures = [html.unescape(way) for way in re.findall(r'<img src="(/request[^"]*)"', page)]
    assert len(pictures) == 4
    answer = browser.get(pictures[0])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content.startswith(b"\x89PNG")
    assert answer.headers["cache-control"] == "private, no-cache"
    tag = {"If-None-Match": answer.headers["etag"]}
    again = browser.get(pictures[0], headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    other = browser.get(pictures[0].replace("log", "asinh"), headers=tag)
    assert (other.status_code, other.content != answer.content) == (200, True)
    refused = browser.get(pictures[0].replace("log", "x"))
    assert (refused.status_code, "expected one of asinh" in refused.text) == (400, True)
    assert browse("bob").get(pictures[0], headers=tag).status_code == 404

    # Each link to a file leads to the registered bytes.
    links = {html.unescape(way) for way in re.findall(r'<a href="(/ds/pstamp_results/test_1/[^"]+)"', page)}
    stamps = {name for name in registered if name.startswith("1_")}
    assert {way.rpartition("/")[2] for way in links} == stamps
    for way in links:
        content = browser.get(way).content
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() == registered[way.rpartition("/")[2]].md5

    kinds = {"fits": "application/fits", "mdc": "text/plain; charset=utf-8", "csv": "text/csv; charset=utf-8",
             "json": "application/json"}  # fmt: skip
    for form, kind in kinds.items():
        assert f'href="/request/1/results.{form}"' in page
        answer = browser.get(f"/request/1/results.{form}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert (
            answer.headers["content-disposition"].endswith(f"test_1.{form}")
            or f'"test_1.{form}"' in (answer.headers["content-disposition"])
        )
        if form in ("fits", "mdc"):
            md5 = hashlib.md5(answer.content, usedforsecurity=False).hexdigest()
            assert md5 == registered[f"results.{form}"].md5
    assert len(browser.get("/request/1/results.json").json()) == 9

    answer = browser.get("/request/1/stamps.tar")
    assert (answer.headers["content-type"], int(answer.headers["content-length"])) == (
        "application/x-tar", len(answer.content)
    )  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        assert {member.name.removeprefix("test_1/"): member.size for member in tar} == {
            name: file.bytes for name, file in registered.items()
        }

    operate.expire(server, 1, "ann")
    assert "its files are to be deleted" in text(browser.get("/request/1").text)
    run(server, workers=1)
    assert "Its files were deleted on" in text(browser.get("/request/1").text)


def test_a_request_without_any_stamp(browse: Browse, rows: Rows) -> None:
    rows.job(rows.request(RequestState.STOP, username=email("ann")), JobState.STOP, fault=23)
    said = text(browse("ann").get("/request/1").text)
    assert "No stamp could be cut. The table below says why." in said
    assert "Stretch" not in said
