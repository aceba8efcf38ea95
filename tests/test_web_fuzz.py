"""Uploads of anything at all: the page answers each, nothing breaks, what is taken in gets an answer for each row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import servers
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from webtest import PASSWORD, email, token_of

from pstamp_core.formats import parse_text, read_results, write_request
from pstamp_core.machines import RequestState
from pstamp_core.store import pstampRequest
from pstamp_core.tasks import accounts, report
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server
from pstamp_web.app import make_app
from simtest.survey import Survey

EVIL = ["<script>alert(1)</script>", "'; DROP TABLE pstampJob; --", "../../../etc/passwd", "%s%s%n", "${jndi:x}",
        "\x00", "\x1b[2J", "a|b", "-1 OR 1=1", "=cmd()", "null", "NaN", "", " ", "é", "/" * 40, "."]  # fmt: skip
NUMBERS = [0, -1, 1, 2**31 - 1, -(2**31), 1e300, -1e300, float("nan"), float("inf"), 1e-300, 360, 90, 8001]


class Place:
    """A server with the browser of ann, and a file of one good row."""

    def __init__(self, folder: Path, survey: Survey) -> None:
        self.server: Server = servers.make(folder / "home", survey, "retry_seconds = 0.0\nretry_ceiling = 1\n")
        self.folder = folder
        accounts.add_account(self.server, email("ann"), PASSWORD)
        self.web = TestClient(make_app(self.server), follow_redirects=False)
        self.web.post("/login", data={"email": email("ann"), "password": PASSWORD})
        self.token = token_of(self.web)
        self.names = (f"fuzz_{number:06}" for number in count())
        self.row = servers.row(1, survey)

    def good(self) -> bytes:
        """A request nobody has sent yet."""
        table, _ = parse_text(f"{next(self.names)} 2 PROCESS {email('ann')}\n{self.row}")
        path = self.folder / "good.fits"
        write_request(path, table)
        return path.read_bytes()

    def send(self, content: bytes) -> str:
        """Upload it, bad rows and all; returns what the page says is wrong, nothing if it was queued."""
        answer = self.web.post(
            "/upload", data={"form_token": self.token}, files={"file": ("fuzz.fits", content)}
        )  # fmt: skip
        digest = re.search(r'name="digest" value="(\w+)"', answer.text)
        if digest:
            assert answer.status_code == 400
            answer = self.web.post("/upload/anyway", data={"form_token": self.token, "digest": digest[1]})
        assert answer.status_code in (303, 400), answer.text
        if answer.status_code == 303:
            assert re.fullmatch(r"/request/\d+", answer.headers["location"])
            page = self.web.get(answer.headers["location"])
            assert page.status_code == 200
            assert "<script>alert" not in page.text
            return ""
        assert "<script>alert" not in answer.text
        return unescape(answer.text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, survey: Survey) -> Iterator[Place]:
    one = Place(tmp_path_factory.mktemp("fuzz"), survey)
    yield one
    finish(one)


def finish(place: Place) -> None:
    """All that was taken in comes to an end, with a table that has each of its rows."""
    run(place.server)
    with place.server.store.reading():
        requests = list(pstampRequest.select())
    assert len(requests) > 20  # else this would say nothing
    for request in requests:
        assert request.state is RequestState.STOP, (request.req_id, request.state, request.fault)
        assert read_results(report.fileset(place.server, request.req_id) / "results.fits").rows
        assert place.web.get(f"/request/{request.req_id}").status_code == 200
        assert place.web.get(f"/request/{request.req_id}/results.csv").status_code == 200


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=6000))
def test_any_bytes(place: Place, content: bytes) -> None:
    assert place.send(content)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_good_file_with_some_of_its_bytes_changed(place: Place, data: st.DataObject) -> None:
    content = bytearray(place.good())
    for _ in range(data.draw(st.integers(1, 4))):
        # Where the text of headers and cells is, mostly: the rest is blank.
        at = data.draw(st.sampled_from([i for i in range(len(content)) if content[i] not in b" \0"] or [0]))
        what = data.draw(st.sampled_from(["byte", "cut", "blank", "card"]))
        if what == "byte":
            content[at] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del content[at + 1 :]
        elif what == "blank":
            content[at : at + 8] = b" " * len(content[at : at + 8])
        else:
            number = data.draw(st.sampled_from(NUMBERS))
            name = data.draw(st.sampled_from(["NAXIS", "NAXIS1", "NAXIS2", "TFIELDS", "PCOUNT", "GCOUNT", "BITPIX"]))
            start = bytes(content).find(f"{name:8}=".encode(), 2880)
            if start >= 0:
                content[start : start + 80] = f"{name:8}= {number!s:>20}".ljust(80).encode()[:80]
    place.send(bytes(content))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_table_with_any_values(place: Place, data: st.DataObject) -> None:
    path = place.folder / "values.fits"
    path.write_bytes(place.good())
    with fits.open(path) as file:
        table = file[1].data.copy()
        header = file[1].header.copy()
    for name in data.draw(st.lists(st.sampled_from(table.names), min_size=1, max_size=5, unique=True)):
        if table.dtype[name].kind == "S":
            cell = data.draw(st.sampled_from(EVIL) | st.text(max_size=20)).encode("ascii", "replace")
            table[name] = np.array([cell[: table.dtype[name].itemsize]], dtype=table.dtype[name])
        elif table.dtype[name].kind == "f":
            table[name] = data.draw(st.sampled_from(NUMBERS) | st.floats())
        else:
            table[name] = int(np.clip(np.nan_to_num(data.draw(st.sampled_from(NUMBERS))), -(2**31), 2**31 - 1))
    for name in data.draw(st.lists(st.sampled_from(["REQ_NAME", "EMAIL", "ACTION", "EXTVER"]), max_size=2)):
        text = data.draw(
            st.sampled_from(EVIL) | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
        )
        header[name] = "".join(char for char in text if " " <= char <= "~")
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(table, header)]).writeto(path, overwrite=True)
    place.send(path.read_bytes())
