"""The status page: the numbers of `pstamp status`, and for operators alone whose work it is."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from conftest import NOW, Clock, Rows, _allow_any_row
from fastapi import FastAPI
from webtest import Browse, app, browse, email

from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.store import pstampRequest
from pstamp_core.tasks import report
from pstamp_core.tasks.server import Server
from pstamp_web import status

__all__ = ["app", "browse"]

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def rows(server: Server, clock: Clock) -> Iterator[Rows]:
    with server.store.reading():
        _allow_any_row(server.store)
        yield Rows(clock)


@pytest.fixture
def busy(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something of all that there can be, under names that must not be seen by everybody."""
    monkeypatch.setattr(status, "KEPT", 0.0)
    rows.label(EVIL, active=False)
    request = rows.request(name="secret_1", username=email("bob"), label="secret label")
    rows.request(RequestState.NEW, name=None, uri="secret.fits", fault=2, fault_count=1)
    rows.request(RequestState.PARSED, name="secret_2", label=EVIL)
    rows.request(RequestState.STOP, name="secret_3")
    for fault in (0, 0, 2, 3):
        rows.job(request, fault=fault, sentence="secret: no disk" if fault else "")
    rows.job(request, lease_owner="secret.host.1", lease_until=1)
    rows.job(request, dep_id=rows.dependent(reason="secret reason").dep_id)
    rows.dependent(DependentState.HOLD)


def tables(page: str) -> dict[str, list[list[str]]]:
    """The rows of each table, by the heading above it."""
    found = {}
    for heading, table in re.findall(r"<h2>([^<]*)</h2>\s*<div class=\"wide\"><table>(.*?)</table>", page, re.DOTALL):
        lines = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        cells = [re.findall(r"<t[dh].*?</t[dh]>", line, re.DOTALL) for line in lines]
        found[heading] = [
            [" ".join(html.unescape(re.sub(r"<[^>]*>", "", cell)).split()) for cell in line] for line in cells
        ]
    return found


@pytest.mark.parametrize("who", ["nobody", "ann"])
def test_everybody_sees_numbers_and_no_names(browse: Browse, server: Server, busy: None, who: str) -> None:
    answer = browse(who).get("/status")
    assert answer.status_code == 200
    page = answer.text
    assert "secret" not in page
    assert "<script>alert" not in page
    assert 'data-live="5"' in page
    found, expected = tables(page), report.status(server)
    assert [line[1:] for line in found["Queues"][1:]] == [
        [str(getattr(queue, name)) for name in ("now", "later", "leased", "faulted", "held")]
        for queue in expected.queues
    ]
    assert found["Faults"][1:] == [
        [str(each.fault), each.sentence, str(each.requests), str(each.jobs), str(each.dependents)]
        for each in expected.faults
    ]
    assert [line[0] for line in found["Faults"][1:]] == ["2", "3"]
    assert "1 image is waited for, the oldest since " in page
    (disk,) = expected.disks
    assert f"work and datastore: {disk.free / 1e9:.1f} GB free of {disk.total / 1e9:.1f} GB" in page
    assert set(found) <= {"Queues", "Faults", "In the last hour"}


def test_an_operator_sees_whose_it_is(browse: Browse, server: Server, busy: None) -> None:
    page = browse("olga").get("/status").text
    found, expected = tables(page), report.status(server, 20)
    assert [line[0] for line in found["What does not move"][1:]] == [each.what for each in expected.stuck]
    assert any("secret: no disk" in line[3] for line in found["What does not move"])
    assert found["Who works"][1][:3] == ["secret.host.1", "1", "job"]
    assert found["Who works"][1][3].endswith("overdue")
    assert [[line[0], *line[2:]] for line in found["Labels"][1:]] == [
        ["(none)", "yes", "1", "0"], ["secret label", "yes", "1", "6"], [EVIL, "no", "1", "0"]
    ]  # fmt: skip
    assert "<script>alert" not in page


def test_somebodys_own_requests_are_shown(browse: Browse, rows: Rows) -> None:
    rows.request(name="mine_1", username=email("ann"))
    rows.request(RequestState.STOP, name="mine_2", username=email("ann"))
    rows.request(name="others", username=email("bob"))
    mine = tables(browse("ann").get("/status").text)["Your requests that are not finished"]
    assert [line[:3] for line in mine[1:]] == [["1", "mine_1", "working"]]
    assert "Your requests" not in browse("nobody").get("/status").text
    assert '<p class="quiet">None.</p>' in browse("olga").get("/status").text


def test_whether_somebody_works(browse: Browse, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "KEPT", 0.0)
    browser = browse("nobody")
    assert "idle" in browser.get("/status").text
    job = rows.job()
    said = browser.get("/status").text
    assert "nobody works just now</span> 1 thing could be done." in said
    rows.job(lease_owner="w1", lease_until=NOW)
    assert '<span class="tag good">working</span>' in browser.get("/status").text
    type(job).update(state=JobState.STOP).execute()
    pstampRequest.update(state=RequestState.STOP).execute()
    assert "idle" in browser.get("/status").text


def test_one_look_serves_all_who_ask_meanwhile(browse: Browse, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, now, look = [], [100.0], report.status

    def counted(server: Server, most: int) -> report.Status:
        looks.append(now[0])
        return look(server, most)

    monkeypatch.setattr(report, "status", counted)
    monkeypatch.setattr(status, "time", SimpleNamespace(monotonic=lambda: now[0]))
    browser = browse("nobody")
    for moment in (100.0, 101.9, 102.1, 104.0, 104.2):
        now[0] = moment
        assert browser.get("/status").status_code == 200
    assert looks == [100.0, 102.1, 104.2]
