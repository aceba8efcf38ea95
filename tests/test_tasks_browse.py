"""Requests as people look at them: whose they see, how they find them, what they wait for, and what it costs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import NOW, SECOND, Clock, Rows
from peewee import MySQLDatabase
from test_store_queues import effort

from pstamp_core.faults import UserError
from pstamp_core.imagedb import ImageDB
from pstamp_core.imagedb import tables as t
from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import Store, moment, pstampAccount, pstampGroup, pstampJob, pstampRequest, pstampSender
from pstamp_core.tasks import browse
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.browse import NotThere, Progress, Wait
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.server import Server
from simtest.survey import Survey

ANN, BOB, OLGA = (f"{name}@example.org" for name in ("ann", "bob", "olga"))


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    return Server(Settings(tmp_path), store)


@pytest.fixture
def people(store: Store) -> dict[str, Account]:
    """Ann and bob are in a group, cid in another with olga, who is an operator; dan is in none."""
    groups = {"ann": {"asteroids"}, "bob": {"asteroids", "comets"}, "cid": {"moons"}, "dan": set(),
              "olga": {"operators", "moons"}, "otto": {"operators"}}  # fmt: skip
    found = {}
    for name, names in groups.items():
        row = pstampAccount.create(email=f"{name}@example.org", password="x")
        for group in names:
            pstampGroup.create(account_id=row.account_id, name=group)
        found[name] = Account(row.account_id, row.email, frozenset(names))
    return found


def numbers(server: Server, account: Account, **how: Any) -> list[int]:
    return [entry.req_id for entry in browse.list_requests(server, account, **how).entries]


# -- lists


@pytest.mark.parametrize(
    ("who", "mine", "everyones"),
    [
        ("ann", {"ann", "bob"}, {"ann", "bob"}),
        ("bob", {"ann", "bob"}, {"ann", "bob"}),
        ("cid", {"cid", "olga"}, {"cid", "olga"}),
        ("dan", {"dan"}, {"dan"}),
        ("olga", {"olga", "cid"}, {"ann", "bob", "cid", "dan", "olga", "otto", None}),
    ],
)
def test_whose_requests_somebody_sees(
    server: Server, rows: Rows, people: dict[str, Account], who: str, mine: set[str], everyones: set[str | None]
) -> None:
    """Those of the own groups; operators are no group in this: they see all, if they ask for it."""
    for name in people:
        rows.request(username=f"{name}@example.org")
    rows.request(username=None)
    for everyone, expected in ((False, mine), (True, everyones)):
        found = browse.list_requests(server, people[who], everyone=everyone).entries
        assert {entry.who.partition("@")[0] or None for entry in found} == expected


def test_the_newest_come_first_in_pages(server: Server, rows: Rows, people: dict[str, Account]) -> None:
    for number in range(120):
        rows.request(username=ANN if number % 2 else OLGA)
    mine = [number for number in range(120, 0, -1) if number % 2 == 0]
    first = browse.list_requests(server, people["ann"])
    assert [entry.req_id for entry in first.entries] == mine[:50]
    second = browse.list_requests(server, people["ann"], before=first.before)
    assert ([entry.req_id for entry in second.entries], second.before) == (mine[50:], None)
    exactly = browse.list_requests(server, people["ann"], number=60)
    assert ([entry.req_id for entry in exactly.entries], exactly.before) == (mine, None)
    for before in (-(10**30), 0, 1, 10**30):
        found = numbers(server, people["ann"], before=before)
        assert found == (mine[:50] if before > 1 else [])


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("1", [1]),
        ("02", [2]),
        (" night ", [4, 3, 2]),
        ("night_1", [3, 2]),
        ("night_", [3, 2]),
        ("Night", []),
        ("ight", []),
        ("%", []),
        ("_", []),
        ("fast", [3]),
        ("fas", []),
        (BOB.upper(), [4]),
        (OLGA, []),
        ("x' OR '1'='1", []),
        ("\0", []),
        ("²", []),
        ("٣", []),
        ("9" * 300, []),
        ("\U0010ffff", []),
        ("日", [6]),
        ("6", [6, 5]),
    ],
)
def test_what_is_searched_for(
    server: Server, rows: Rows, people: dict[str, Account], search: str, found: list[int]
) -> None:
    """A number, the beginning of a name, a whole label, an e-mail address: literally, whatever is in it."""
    names = ["first", "night_1", "night_12", "nightly", "6_o_clock", "日"]
    labels = ["slow", "slow", "fast", "slow", "slow", "slow"]
    senders = [ANN, ANN, ANN, BOB, ANN, ANN]
    for name, label, sender in zip(names, labels, senders, strict=True):
        rows.request(name=name, label=label, username=sender)
    rows.request(name="night_2", label="fast", username=OLGA)
    assert numbers(server, people["ann"], search=search) == found


def test_states_are_looked_for(server: Server, rows: Rows, people: dict[str, Account]) -> None:
    for state in RequestState:
        rows.request(state, username=ANN)
    for number, state in enumerate(RequestState, 1):
        assert numbers(server, people["ann"], state=state.value) == [number]
        assert numbers(server, people["ann"], state=state.value, search=str(number)) == [number]
        assert numbers(server, people["ann"], state=state.value, search=str(number + 1)) == []
    assert numbers(server, people["ann"], state="unfinished") == [6, 5, 3, 2, 1]
    with pytest.raises(UserError) as refused:
        browse.list_requests(server, people["ann"], state="x" * 99)
    assert str(refused.value) == (
        f"state {'x' * 64!r}: expected unfinished or one of new, parsed, run, stop, cancel, goto_cleaned, cleaned"
    )


def test_an_entry(server: Server, rows: Rows, people: dict[str, Account], clock: Clock) -> None:
    request = rows.request(username=ANN, label="fast", changed_at=NOW + SECOND, fault=2)
    rows.request(RequestState.NEW, name=None, username=ANN)
    dependents = {state: rows.dependent(state).dep_id for state in (DependentState.NEW, DependentState.FULL)}
    for state, columns in [
        (JobState.RUN, {}), (JobState.RUN, {"dep_id": dependents[DependentState.NEW]}),
        (JobState.RUN, {"dep_id": dependents[DependentState.FULL]}), (JobState.RUN, {"fault": 2}),
        (JobState.STOP, {}), (JobState.STOP, {"dep_id": dependents[DependentState.NEW]}),
        (JobState.STOP, {"fault": 23}), (JobState.CANCEL, {"fault": 32}), (JobState.CANCEL, {"fault": 32}),
    ]:  # fmt: skip
        rows.job(request, state, **columns)
    nameless, entry = browse.list_requests(server, people["ann"]).entries
    assert entry == browse.Entry(
        1, request.name, ANN, "fast", "run", 2, moment(clock.now), moment(NOW + SECOND), Progress(9, 2, 3, 1)
    )
    assert (nameless.name, nameless.label, nameless.progress) == ("", "", Progress())


@pytest.mark.parametrize(
    "how",
    [{}, {"search": "mine"}, {"search": "nothing"}, {"state": "parsed"}, {"everyone": True, "search": "mine"}],
    ids=str,
)
def test_a_list_is_no_more_work_when_requests_of_others_pile_up(
    server: Server, rows: Rows, people: dict[str, Account], how: dict[str, Any]
) -> None:
    account = people["olga" if how.get("everyone") else "ann"]
    for _ in range(5):
        rows.job(rows.request(username=ANN, name=None))
    rows.request(username=ANN, name="mine")
    at = moment(rows.clock.now)
    efforts = []
    for more in (0, 4000):
        for start in range(0, more, 200):
            pstampRequest.insert_many([
                {"name": f"other_{start + n}", "username": OLGA, "uri": "a", "registered": at, "timestamp": at,
                 "state": RequestState.STOP, "label": "web"} for n in range(200)
            ]).execute()  # fmt: skip
        if isinstance(server.store.db, MySQLDatabase):
            server.store.db.execute_sql("ANALYZE TABLE pstampRequest").fetchall()
        efforts.append(effort(server.store, lambda: browse.list_requests(server, account, **how)))
    assert efforts[1] < 1.5 * efforts[0] + 100


# -- one request


def test_somebody_elses_request_is_not_there(server: Server, rows: Rows, people: dict[str, Account]) -> None:
    """It is answered as one that is not."""
    rows.job(rows.request(username=OLGA))
    for number in (1, 2, 0, -1, 2**63, 10**30):
        for look in (browse.look, browse.outcomes, browse.matches):
            with pytest.raises(NotThere) as refused:
                look(server, people["ann"], number)
            assert str(refused.value) == f"there is no request {number} of yours"
    assert browse.look(server, people["olga"], 1).mine


@pytest.mark.parametrize(("who", "mine"), [("ann", True), ("bob", False), ("olga", True)])
def test_who_may_change_it(server: Server, rows: Rows, people: dict[str, Account], who: str, mine: bool) -> None:
    rows.request(username=ANN)
    assert browse.look(server, people[who], 1).mine is mine


def test_how_many_rows_it_has(
    server: Server, rows: Rows, people: dict[str, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were counted when it was sent, or else those that have jobs, unless these are many."""
    first, second = rows.request(username=ANN), rows.request(username=ANN)
    for request in (first, second):
        for row in ("1", "1", "7"):
            rows.job(request, rownum=row)
    pstampSender.create(req_id=first.req_id, account_id=people["ann"].account_id, num_rows=5)
    assert [browse.look(server, people["ann"], number).rows for number in (1, 2)] == [5, 2]
    monkeypatch.setattr(browse, "COUNTED", 2)
    assert [browse.look(server, people["ann"], number).rows for number in (1, 2)] == [5, None]


def test_what_a_large_request_waits_for_is_read_from_an_index(
    server: Server, rows: Rows, people: dict[str, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are long, and the page of a request that moves is looked at every few seconds."""
    request, db = rows.request(username=ANN), server.store.db
    for _ in range(20):
        pstampJob.insert_many([{"req_id": request.req_id, "image": "a", "params": "x" * 2000}] * 50).execute()
    is_mysql = isinstance(db, MySQLDatabase)
    if is_mysql:
        db.execute_sql("ANALYZE TABLE pstampJob").fetchall()
    execute, found = db.execute_sql, []

    def explained(sql: str, params: Any = None) -> Any:
        if "GROUP BY" in sql and "pstampJob" in sql:
            plan = execute(f"EXPLAIN {'' if is_mysql else 'QUERY PLAN '}{sql}", params).fetchall()
            found.append(str(plan[0]))
        return execute(sql, params)

    monkeypatch.setattr(db, "execute_sql", explained)
    browse.look(server, people["ann"], request.req_id)
    assert len(found) == 5
    assert all(("Using index" if is_mysql else "COVERING INDEX") in plan for plan in found), found


def test_when_it_goes(store: Store, rows: Rows, people: dict[str, Account], tmp_path: Path) -> None:
    for days in (2.5, 0):
        server = Server(Settings(tmp_path, preserve_days=days), store)
        for state in RequestState:
            request = rows.request(state, username=ANN, changed_at=NOW)
            goes = browse.look(server, people["ann"], request.req_id).goes
            kept = state is RequestState.STOP and days
            assert goes == (moment(NOW) + timedelta(days=days) if kept else None)


def waits(server: Server, account: Account, number: int = 1) -> list[Wait]:
    return browse.look(server, account, number).waits


LATER = {"fault": 2, "fault_count": 1, "retry_at": NOW + 9 * SECOND, "changed_at": NOW}


@pytest.mark.parametrize(
    ("state", "columns", "why"),
    [
        (RequestState.NEW, {}, "to be read: number 2 of 3 in the queue"),
        (RequestState.NEW, {"lease_owner": "host.1", "lease_until": NOW}, "being read: its images are looked for"),
        (RequestState.NEW, {"label": "off"}, "the operators have stopped queue off for now"),
        (RequestState.NEW, LATER, "A disk, network or system call failed."),
        (RequestState.NEW, {"retry_at": NOW + SECOND}, "to be read: next"),
        (RequestState.PARSED, {}, None),
        (RequestState.RUN, {}, "its results are to be published"),
        (RequestState.RUN, {"lease_owner": "host.1", "lease_until": NOW}, "its results are being published"),
        (RequestState.RUN, LATER, "A disk, network or system call failed."),
        (RequestState.CANCEL, {"label": "off"}, "its results are to be published"),
        (RequestState.CANCEL, {"lease_owner": "host.1", "lease_until": NOW}, "its results are being published"),
        (RequestState.STOP, {}, None),
        (RequestState.GOTO_CLEANED, {}, "its files are to be deleted"),
        (RequestState.GOTO_CLEANED, {"lease_owner": "h", "lease_until": NOW}, "its files are being deleted"),
        (RequestState.CLEANED, {}, None),
    ],
)
def test_what_a_request_waits_for(
    server: Server,
    rows: Rows,
    people: dict[str, Account],
    state: RequestState,
    columns: dict[str, Any],
    why: str | None,
) -> None:
    rows.label("off", active=False)
    rows.request(RequestState.NEW)
    number = rows.request(state, **{"username": ANN, "changed_at": NOW, **columns}).req_id
    rows.request(RequestState.NEW)
    again = moment(NOW + 9 * SECOND) if columns is LATER else None
    expected = [] if why is None else [Wait(0, why, moment(NOW), again)]
    assert waits(server, people["ann"], number) == expected


def test_what_its_images_wait_for(server: Server, rows: Rows, people: dict[str, Account]) -> None:
    """Together what waits for one thing, that of the most images first; nothing of the server's inside is told."""
    other = rows.request(label="urgent")
    rows.label("urgent", 20_000)
    rows.job(other)
    request = rows.request(username=ANN)
    made = {"reason": "being made again", "changed_at": NOW, "imagedb": "secret.db"}
    awaited = rows.dependent(**made)
    fails = rows.dependent(**made | LATER | {"reason": "database /secret: gone"})
    held = rows.dependent(DependentState.HOLD, **made)
    groups: list[tuple[int, dict[str, Any]]] = [
        (7, {}), (6, {"dep_id": awaited.dep_id}),
        (5, {"fault": 2, "sentence": "/secret: no disk", "retry_at": NOW + SECOND}),
        (4, {"lease_owner": "secret.1", "lease_until": NOW + SECOND}), (3, {"dep_id": fails.dep_id}),
        (2, {"dep_id": held.dep_id}), (1, {"fault": 3}),
    ]  # fmt: skip
    for count, columns in groups:
        for _ in range(count):
            rows.job(request, **{"changed_at": NOW, **columns})
    rows.job(request, dep_id=rows.dependent(DependentState.FULL).dep_id, changed_at=NOW)
    view = browse.look(server, people["ann"], request.req_id)
    at, week = moment(NOW), moment(NOW) + timedelta(days=7)
    assert view.waits == [
        Wait(8, "to be cut: number 2 of 2 in the queue", at),
        Wait(6, f"warp {awaited.stage_id} skycell.1: being made again", at, None, week),
        Wait(5, "A disk, network or system call failed.", at, moment(NOW + SECOND)),
        Wait(4, "being cut", at),
        Wait(3, f"warp {fails.stage_id} skycell.1: A disk, network or system call failed.", at,
             moment(NOW + 9 * SECOND), week),
    ]  # fmt: skip
    assert view.more == 3
    pstampJob.delete().where(pstampJob.dep_id != held.dep_id, pstampJob.req_id == request.req_id).execute()
    assert waits(server, people["ann"], request.req_id) == [
        Wait(2, f"warp {held.stage_id} skycell.1: held back by the operators", at)
    ]


def test_a_stopped_label_keeps_a_request_that_runs(server: Server, rows: Rows, people: dict[str, Account]) -> None:
    rows.label("off", active=False)
    rows.job(rows.request(username=ANN, label="off", changed_at=NOW))
    assert waits(server, people["ann"]) == [Wait(0, "the operators have stopped queue off for now", moment(NOW))]
    pstampJob.update(state=JobState.STOP).execute()
    assert waits(server, people["ann"])[0].why == "its results are to be published"


# -- its images


def test_what_became_of_images_comes_in_pages(server: Server, rows: Rows, people: dict[str, Account]) -> None:
    request = rows.request(username=ANN)
    for number in range(120):
        rows.job(
            request, JobState.STOP if number % 2 else JobState.RUN, rownum=str(number), fault=26 * (number % 4 == 3)
        )
    found = []
    for page in (1, 2, 3):
        lines, pages = browse.outcomes(server, people["ann"], 1, page)
        assert pages == 3
        found += [line.row for line in lines]
    assert found == list(range(120))
    for page in (4, 10**30):
        assert browse.outcomes(server, people["ann"], 1, page) == ([], 3)
    assert browse.outcomes(server, people["ann"], 1, -5) == browse.outcomes(server, people["ann"], 1, 1)
    failed, pages = browse.outcomes(server, people["ann"], 1, failed=True)
    assert ([line.row for line in failed], pages) == (list(range(3, 120, 4)), 1)
    rows.job(request, fault=2)
    assert browse.outcomes(server, people["ann"], 1, failed=True)[0] == failed


def test_what_is_told_of_an_image(server: Server, rows: Rows, people: dict[str, Account]) -> None:
    request = rows.request(username=ANN)
    names = ["a.b.fits", "a.b.mk.fits", "a.b.jpg", "a.psf", "a.mdl.fits"]
    products = [{"name": name, "type": "pstamp", "bytes": 7, "md5": "x", "path": f"/secret/{name}"} for name in names]
    products[-1]["type"] = "fits"
    result = {"products": products, "RA_DEG": 0.0, "DEC_DEG": -1.5, "box": [0, 0, 8, 6], "on_image": [0, 0, 8, 6],
              "FRAC_IMAGE": 1.0, "FRAC_FINITE": 0.5}  # fmt: skip
    params = {"row": {"COMMENT": "null", "PROJECT": "gpc1"}, "observation": {"FILTER": "0", "MJD_OBS": 55000.5}}
    awaited = rows.dependent()
    rows.job(
        request,
        JobState.STOP,
        rownum="3",
        image="/secret/in.fits",
        params=json.dumps(params),
        result=json.dumps(result),
    )
    rows.job(request, JobState.STOP, fault=26, sentence="row 4: deleted")
    rows.job(request, JobState.STOP, fault=26)
    rows.job(request, fault=2, sentence="/secret: no disk")
    rows.job(request, dep_id=awaited.dep_id)
    rows.job(request, JobState.CANCEL, fault=32, dep_id=awaited.dep_id)
    made, *others = browse.outcomes(server, people["ann"], 1)[0]
    assert (made.row, made.state, made.fault, made.sentence, made.waits) == (3, "stop", 0, "", False)
    assert [(file.name, file.kind, file.bytes, file.picture) for file in made.files] == [
        ("a.b.fits", "fits", 7, True), ("a.b.mk.fits", "mk.fits", 7, False), ("a.b.jpg", "jpg", 7, False),
        ("a.psf", "psf", 7, False), ("a.mdl.fits", "mdl.fits", 7, False),
    ]  # fmt: skip
    shown = ("COMMENT", "PROJECT", "FILTER", "MJD_OBS", "RA_DEG", "DEC_DEG", "BOX_NX", "BOX_NY", "INPUT_IMAGE", "WIDTH")
    assert [made.values[name] for name in shown] == [None, "gpc1", None, 55000.5, 0.0, -1.5, 8, 6, "in.fits", None]
    assert [(each.state, each.fault, each.sentence, each.waits) for each in others] == [
        ("stop", 26, "row 4: deleted", False),
        ("stop", 26, "The image was deleted for good.", False),
        ("run", 2, "A disk, network or system call failed.", False),
        ("run", 0, "", True),
        ("cancel", 32, "The request or job was cancelled.", False),
    ]


def test_images_that_match_are_counted_by_row(server: Server, rows: Rows, people: dict[str, Account]) -> None:
    request = rows.request(RequestState.PARSED, username=ANN)
    params = json.dumps({"row": {"COMMENT": "one", "REQFILT": "null", "CENTER_X": 0.0}})
    awaited = rows.dependent(DependentState.HOLD)
    for row, columns in [("2", {}), ("2", {"dep_id": awaited.dep_id}), ("10", {})]:
        rows.job(request, JobState.PARSED, rownum=row, params=params, **columns)
    rows.job(request, JobState.STOP, rownum="2", fault=26, sentence="gone", params=params)
    rows.job(request, JobState.STOP, rownum="2", fault=25, sentence="another", params=params)
    rows.job(request, JobState.STOP, rownum="11", fault=23)
    found, pages = browse.matches(server, people["ann"], 1)
    assert [(each.row, each.images, each.waiting, each.refused, each.sentence) for each in found] == [
        (2, 2, 1, 2, "gone"), (10, 1, 0, 0, ""), (11, 0, 0, 1, "No image matches the row."),
    ]  # fmt: skip
    assert (found[0].values["COMMENT"], found[0].values["REQFILT"], found[0].values["CENTER_X"]) == ("one", None, 0.0)
    assert set(found[2].values.values()) == {None}
    assert pages == 1
    for number in range(100, 150):
        rows.job(request, JobState.PARSED, rownum=str(number))
    lines = [browse.matches(server, people["ann"], 1, page) for page in (1, 2, 3)]
    assert [(len(each), pages) for each, pages in lines] == [(50, 2), (3, 2), (0, 2)]
    together = [line.row for each, _ in lines for line in each]
    assert all(one < two for one, two in pairwise(together))


# -- what an image is made from


def test_what_an_image_is_made_again_from(tmp_path: Path, survey: Survey) -> None:
    """One of the four chips under a warp was deleted, too."""
    copy = replace(survey, database=tmp_path / "copy.db")
    shutil.copy(survey.database, copy.database)
    with ImageDB(str(copy.database)).session():
        warp = t.warpSkyCellMap.warp_id == survey.cleaned_warp
        chip, cell = t.warpSkyCellMap.class_id, t.warpSkyCellMap.skycell_id
        class_id, skycell = t.warpSkyCellMap.select(chip, cell).where(warp).order_by(chip, cell).tuples().first()
        chip_id = survey.cleaned_warp - 30_000
        chips = t.chipProcessedImfile.chip_id == chip_id
        changed = t.chipProcessedImfile.update(data_state="cleaned").where(
            chips, t.chipProcessedImfile.class_id == class_id
        )
        assert changed.execute() == 1
        assert t.chipRun.update(state="cleaned").where(t.chipRun.chip_id == chip_id).execute() == 1
        under = t.warpSkyCellMap.select().where(warp, cell == skycell).count()
    server = servers.make(tmp_path / "home", copy)
    row = servers.row(
        1, survey, req="byid", img="warp", id=survey.cleaned_warp, component=skycell, filter="null", coord=3, x=50, y=50
    )
    servers.send(server, tmp_path, row)
    parse_requests(server, 1)
    operator = Account(1, OLGA, frozenset({"operators"}))
    (wait,) = browse.look(server, operator, 1).waits
    assert wait.why == f"warp {survey.cleaned_warp} {skycell}: cleaned, must be made again"
    assert wait.made_of == {"chip": (under - 1, under)}
    copy.database.unlink()
    (wait,) = browse.look(server, operator, 1).waits
    assert wait.made_of == {}
