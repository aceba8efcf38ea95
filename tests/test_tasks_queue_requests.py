"""Polling data stores: each file of each new fileset becomes one request, whatever else is wrong, on both engines."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import remote as stores
from conftest import SECOND, Clock, Rows
from remote import Remote, both, remote, send, stop

from pstamp_core.formats import parse_text, write_request
from pstamp_core.machines import RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import Label, Store, moment, pstampHistory, pstampRequest
from pstamp_core.store.tables import pstampDataStore
from pstamp_core.tasks import queue_requests as module
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.queue_requests import Poll, queue_requests
from pstamp_core.tasks.retry import revert
from pstamp_core.tasks.server import Server

__all__ = ["both", "remote", "stop"]

HINT = "it is tried again, unless you pass it over with: pstamptool -moddatastore -ds_id 1 -set_last_fileset"


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    return Server(Settings(tmp_path / "home"), store)


def with_settings(server: Server, **settings: Any) -> Server:
    """A server on the same store, with other settings."""
    return Server(replace(server.settings, **settings), server.store)


def add_store(uri: str, **columns: Any) -> pstampDataStore:
    return pstampDataStore.create(uri=uri, **columns)


def again(ds_id: int = 1) -> pstampDataStore:
    return pstampDataStore.get_by_id(ds_id)


def uris(ds_id: int | None = None) -> list[str]:
    """The last two parts of what was queued, in order."""
    rows = pstampRequest.select().order_by(pstampRequest.req_id)
    chosen = rows if ds_id is None else rows.where(pstampRequest.ds_id == ds_id)
    return ["/".join(row.uri.split("/")[-2:]) for row in chosen]


def poll(server: Server, clock: Clock, limit: int = 5, timeout: float = 5.0) -> list[Poll]:
    """Poll when all is due."""
    clock.forward(100)
    return queue_requests(server, limit=limit, timeout=timeout)


# -- when all is well


def test_each_file_of_each_new_fileset_is_queued(server: Server, clock: Clock, remote: Remote) -> None:
    Label.create(label="MOPS.2", priority=300)
    add_store(remote.uri, label="mops.2", outProduct="mops")
    remote.add("night 1", a__fits="1", b__fits="2")
    remote.add("night_2")
    remote.add("night_3", c__fits="3")
    assert poll(server, clock) == [Poll(1, ["night 1", "night_2", "night_3"], [1, 2, 3])]
    first = pstampRequest.get_by_id(1)
    assert {name: getattr(first, name) for name in ("state", "fault", "name", "ds_id", "label", "outProduct", "uri",
                                                    "outdir", "username", "reqType")} == {
        "state": RequestState.NEW, "fault": 0, "name": None, "ds_id": 1, "label": "MOPS.2", "outProduct": "mops",
        "uri": f"{remote.uri}/night%201/a.fits", "outdir": None, "username": None, "reqType": None,
    }  # fmt: skip
    assert first.registered == first.timestamp == moment(clock.now)
    assert pstampHistory.get(pstampHistory.row_id == 1).note == (
        f"{remote.uri}/night%201/a.fits, fileset night 1 of 2026-03-04T05:06:07Z"
    )
    assert uris() == ["night%201/a.fits", "night%201/b.fits", "night_3/c.fits"]
    assert again().lastFileset == "night_3"
    assert again().timestamp - moment(clock.now) < timedelta(seconds=1)
    remote.add("night_4", a__fits="4")
    assert poll(server, clock) == [Poll(1, ["night_4"], [4])]
    assert poll(server, clock) == [Poll(1)]
    assert remote.asked[-1] == "index.txt?night_4"


def test_a_store_is_polled_when_it_is_due_and_enabled(server: Server, clock: Clock, remote: Remote) -> None:
    now = clock.now
    ages = {"to come": -3600, "just due": 61, "not yet": 60, "new": None, "slow": 500}
    for name, age in ages.items():
        add_store(
            remote.uri, state="Enabled", timestamp=None if age is None else moment(now - age * SECOND),
            pollInterval=600 if name == "slow" else 60, label=name,
        )  # fmt: skip
    add_store(remote.uri, state="disabled")
    polled = [again(each.ds_id).label for each in queue_requests(server, limit=1, timeout=5)]
    assert polled == ["new", "just due", "to come"]  # the one longest not looked at first
    assert queue_requests(server, limit=1, timeout=5) == []
    clock.forward(61)
    assert len(queue_requests(server, limit=1, timeout=5)) == 4


def test_only_so_many_filesets_are_dealt_with_in_a_pass(server: Server, clock: Clock, remote: Remote) -> None:
    add_store(remote.uri)
    for n in range(5):
        remote.add(f"f{n}", r__fits="1")
    assert [poll(server, clock, limit=2)[0].filesets for _ in range(4)] == [["f0", "f1"], ["f2", "f3"], ["f4"], []]
    assert again().lastFileset == "f4"


def test_a_folder_is_polled(server: Server, clock: Clock, remote: Remote, tmp_path: Path) -> None:
    folder = tmp_path / "a store"
    remote.add("f 0", **{"r 0__fits": "1"})
    for path in ("index.txt", "f 0/index.txt"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        text = remote.text(path)
        assert text
        (folder / path).write_bytes(text)
    add_store(str(folder))
    assert poll(server, clock) == [Poll(1, ["f 0"], [1])]
    assert pstampRequest.get_by_id(1).uri == f"{folder}/f 0/r 0.fits"
    assert poll(server, clock) == [Poll(1)]


def test_a_password_is_used_and_not_told(server: Server, clock: Clock, remote: Remote) -> None:
    heard = []

    def answer(handler: stores.BaseHTTPRequestHandler) -> None:
        heard.append(handler.headers["Authorization"])
        send("", 500)(handler)

    add_store(remote.uri.replace("//", "//ana:secret@"))
    remote.add("f0", r__fits="1")
    remote.add("f1", r__fits="1")
    remote.special |= {"f0/r.fits": answer, "f1/index.txt": answer}
    (found,) = poll(server, clock)
    parse_requests(server, 1)
    assert heard == ["Basic YW5hOnNlY3JldA=="] * 2
    notes = [line.note for line in pstampHistory.select()]
    log = (server.work_directory(pstampRequest.get_by_id(1)) / "psparse.1.log").read_text()
    assert "ana:***@127.0.0.1" in notes[0]
    assert "secret" not in "".join([*notes, *found.troubles, log])


# -- what is wrong with one keeps no other


def test_a_dead_and_a_hanging_store_stop_no_other(
    server: Server, clock: Clock, remote: Remote, stop: threading.Event
) -> None:
    remote.special["slow/index.txt"] = stores.never(stop)
    remote.add("f0", r__fits="1")
    for uri in ("http://127.0.0.1:9/ds/p", f"{remote.uri}/slow", f"{remote.uri}/none", "no address", remote.uri):
        add_store(uri)
    add_store(None)
    before = moment(clock.now)
    polls = poll(server, clock, timeout=0.3)
    no_address = "expected http://..., https://..., file:///path or an absolute path"
    assert [(each.troubles, each.fault) for each in polls] == [
        (["http://127.0.0.1:9/ds/p/index.txt: Connection refused"], 2),
        ([f"{remote.uri}/slow/index.txt: no answer within 0.3 s"], 6),
        ([f"{remote.uri}/none/index.txt: HTTP 404 Not Found"], 2),
        ([f"address 'no address/index.txt': {no_address}"], 3),
        ([], 0),
        ([f"address '': {no_address}"], 3),
    ]
    assert uris() == ["f0/r.fits"]
    assert all(each.timestamp > before for each in pstampDataStore.select())
    assert queue_requests(server, limit=5, timeout=0.3) == []


def test_what_is_wrong_with_a_fileset_keeps_no_later_one(
    server: Server, clock: Clock, remote: Remote, stop: threading.Event
) -> None:
    add_store(remote.uri)
    for n in range(6):
        remote.add(f"f{n}", r__fits="1")
    bad = {
        "f1": (send("", 500), "HTTP 500 Internal Server Error"),
        "f2": (stores.never(stop), "no answer within 0.3 s"),
        "f4": (send("<html>\n"), "the answer is no index"),
    }
    remote.special |= {f"{name}/index.txt": answer for name, (answer, _) in bad.items()}
    (first,) = poll(server, clock, limit=2, timeout=0.3)
    (second,) = poll(server, clock, limit=2, timeout=0.3)
    assert (first.filesets, second.filesets) == (["f0", "f3"], ["f5"])
    assert second.troubles == [
        f"{remote.uri}/{name}/index.txt: {said}; {HINT} '{name}'" for name, (_, said) in bad.items()
    ]
    assert (second.fault, again().lastFileset) == (2, "f0")
    # Well again, one after the other, and not in the order of their registration.
    for name, bookmark in {"f2": "f0", "f1": "f3", "f4": "f5"}.items():
        del remote.special[f"{name}/index.txt"]
        assert poll(server, clock, timeout=0.3)[0].filesets == [name]
        assert again().lastFileset == bookmark
    assert sorted(uris()) == [f"f{n}/r.fits" for n in range(6)]
    assert poll(server, clock) == [Poll(1)]


def test_an_operator_passes_over_what_can_not_be_read(server: Server, clock: Clock, remote: Remote) -> None:
    add_store(remote.uri)
    for n in range(3):
        remote.add(f"f{n}", r__fits="1")
    remote.special["f0/index.txt"] = send("", 500)
    assert poll(server, clock)[0].fault == 2
    pstampDataStore.update(lastFileset="f0").execute()
    assert poll(server, clock) == [Poll(1)]
    assert uris() == ["f1/r.fits", "f2/r.fits"]


def test_a_store_does_not_take_the_time_of_the_others(
    server: Server, clock: Clock, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_store(remote.uri)
    for n in range(9):
        remote.add(f"f{n}", r__fits="1")
    passed = iter(range(1000))
    seconds = SimpleNamespace(monotonic=lambda: next(passed))  # one goes by with each fileset
    monkeypatch.setattr(module, "time", seconds)
    assert len(poll(server, clock, limit=9, timeout=1)[0].filesets) == module.PATIENCE
    monkeypatch.undo()
    assert len(poll(server, clock, limit=9)[0].filesets) == 9 - module.PATIENCE


# -- what is refused for good


def test_what_is_too_large_is_passed_over_and_told(
    server: Server, clock: Clock, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_store(remote.uri)
    monkeypatch.setattr(module, "MAX_FILES", 2)
    server = with_settings(server, poll_bytes=10_000)
    long_file, long_set = "x" * 250 + "__fits", "y" * 65
    remote.add("crowd", a__fits="1", b__fits="2", c__fits="3")
    remote.add("endless", r__fits="1")
    remote.special["endless/index.txt"] = stores.endless
    remote.add(long_set, r__fits="1")
    remote.add("odd", **{long_file: "1", "it's;__fits": "2", "fine__fits": "3"})
    remote.add("last", r__fits="1")
    (found,) = poll(server, clock)
    assert found.filesets == ["crowd", "endless", "odd", "last"]
    assert uris() == ["odd/fine.fits", "last/r.fits"]
    assert found.troubles == [
        f"fileset {long_set}: passed over: its name is longer than 64 characters",
        "fileset crowd: passed over: it has 3 files; expected at most 2",
        f"fileset endless: passed over: {remote.uri}/endless/index.txt: larger than 10000 bytes; expected a smaller "
        "file",
        f'{remote.uri}/odd: passed over: "it\'s;.fits        |1       |c81e728d9d4c2f636f067f89cc14862c|psrequest   |" '
        "is no row of an index",
        f"{remote.uri}/odd/{'x' * 250}.fits: passed over: the address is longer than 255 characters",
    ]
    assert (found.fault, found.more) == (5, 0)
    assert poll(server, clock) == [Poll(1)]


def test_only_some_troubles_are_told(server: Server, clock: Clock, remote: Remote) -> None:
    add_store(remote.uri)
    remote.special["index.txt"] = send("#\n" + f"{'non' * 30}\n" * 1000)
    (found,) = poll(server, clock)
    assert (found.more, found.fault) == (1000 - module.TROUBLES, 5)
    assert (
        found.troubles
        == [f"{remote.uri}: passed over: '{('non' * 30)[:77]}...' is no row of an index"] * module.TROUBLES
    )


def test_a_product_index_without_end_is_data_error(server: Server, clock: Clock, remote: Remote) -> None:
    add_store(remote.uri)
    server = with_settings(server, poll_bytes=10_000)
    remote.special["index.txt"] = stores.endless
    (found,) = poll(server, clock)
    assert (found.fault, found.troubles) == (
        5, [f"{remote.uri}/index.txt: larger than 10000 bytes; expected a smaller file"],
    )  # fmt: skip


# -- once, and only once


def parse_all(server: Server) -> None:
    """Let the addresses of all requests be those of their local copies, as parsing does."""
    server.store.work(lambda: pstampRequest.update(uri="/home/work/1/r.fits").execute())


@pytest.mark.parametrize("answer", [None, send(""), send("<html>gone</html>\n")], ids=["404", "empty", "page"])
def test_a_bookmark_that_has_gone_is_recovered_from(
    server: Server, clock: Clock, remote: Remote, answer: stores.Answer | None
) -> None:
    add_store(remote.uri)
    for n in range(4):
        remote.add(f"f{n}", r__fits="1")
    poll(server, clock)
    parse_all(server)
    for gone in ("f3", "f0"):
        del remote.files[gone]
    if answer:
        remote.special["index.txt?f3"] = answer
    remote.add("f4", r__fits="1")
    assert poll(server, clock, limit=1) == [Poll(1, ["f4"], [5])]
    assert again().lastFileset == "f4"
    assert poll(server, clock) == [Poll(1)]


def test_a_bookmark_that_has_gone_from_an_empty_store(server: Server, clock: Clock, remote: Remote) -> None:
    add_store(remote.uri, lastFileset="old")
    assert poll(server, clock) == [Poll(1)]
    remote.add("f0", r__fits="1")
    assert poll(server, clock) == [Poll(1, ["f0"], [1])]


def test_a_fileset_registered_anew_is_a_new_one(server: Server, clock: Clock, remote: Remote) -> None:
    add_store(remote.uri)
    for name in ("f0", "f1"):
        remote.add(name, r__fits="1")
    poll(server, clock)
    del remote.files["f0"]
    remote.registered["more"] = stores.DAY_1
    remote.add("f0", r__fits="better")
    assert poll(server, clock) == [Poll(1, ["f0"], [3])]


def test_stores_with_filesets_of_one_name_are_apart(server: Server, clock: Clock, remote: Remote) -> None:
    remote.add("f0", r__fits="1")
    for _ in range(2):
        add_store(remote.uri)
    assert poll(server, clock) == [Poll(1, ["f0"], [1]), Poll(2, ["f0"], [2])]


def test_a_file_that_is_listed_twice_is_queued_once(server: Server, clock: Clock, remote: Remote) -> None:
    add_store(remote.uri)
    remote.add("f0", r__fits="1")
    for path in ("index.txt", "f0/index.txt"):
        text = remote.text(path)
        assert text
        remote.special[path] = send(text + text.splitlines(keepends=True)[-1])
    assert poll(server, clock) == [Poll(1, ["f0"], [1])]


class Killed(BaseException):
    """What a killed process never sees."""


@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("place", range(5))
def test_killed_at_any_commit_and_started_again(
    server: Server, clock: Clock, remote: Remote, monkeypatch: pytest.MonkeyPatch, place: int, after: bool
) -> None:
    add_store(remote.uri)
    for n in range(4):
        remote.add(f"f{n}", **{f"r{i}__fits": "1" for i in range(n)})
    remote.special["f2/index.txt"] = send("", 500)  # so that the bookmark stays behind
    work, commits = server.store.work, count()

    def killing(unit: Callable[[], Any]) -> Any:
        here = next(commits) == place
        if here and not after:
            raise Killed
        result = work(unit)
        if here:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(server.store, "work", killing)
        if place < 4:
            with pytest.raises(Killed):
                poll(server, clock)
        else:
            poll(server, clock)
    assert next(commits) == min(place + 1, 4)  # the look, f0, f1, f3
    poll(server, clock)
    assert sorted(uris()) == ["f1/r0.fits", *(f"f3/r{i}.fits" for i in range(3))]
    assert again().lastFileset == "f1"
    remote.special.clear()
    poll(server, clock)
    assert sorted(uris()) == ["f1/r0.fits", "f2/r0.fits", "f2/r1.fits", *(f"f3/r{i}.fits" for i in range(3))]
    assert again().lastFileset == "f3"


def test_a_commit_whose_answer_was_lost_queues_nothing_twice(
    server: Server, clock: Clock, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_store(remote.uri)
    remote.add("f0")
    remote.add("f1", r__fits="1")
    remote.special["f0/index.txt"] = send("", 500)  # so that the bookmark does not tell
    work, commits = server.store.work, count()

    def lost(unit: Callable[[], Any]) -> Any:
        result = work(unit)
        return result if next(commits) == 0 else work(unit)  # done again, as the database says nothing

    with monkeypatch.context() as patch:
        patch.setattr(server.store, "work", lost)
        assert "somebody else" in poll(server, clock)[0].troubles[-1]
    assert uris() == ["f1/r.fits"]
    poll(server, clock)
    assert uris() == ["f1/r.fits"]


@pytest.mark.parametrize("when", ["list_filesets", "list_files"])
def test_two_polls_at_once_queue_a_file_once(
    server: Server, other: Store, clock: Clock, remote: Remote, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    add_store(remote.uri)
    for n in range(3):
        remote.add(f"f{n}", r__fits="1")
    second = Server(server.settings, other)
    real = getattr(module, when)
    polls: list[Poll] = []

    def meanwhile(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        monkeypatch.setattr(module, when, real)
        polls.extend(poll(second, clock))
        return found

    monkeypatch.setattr(module, when, meanwhile)
    (first,) = poll(server, clock)
    assert polls == [Poll(1, ["f0", "f1", "f2"], [1, 2, 3])]
    assert first.troubles == ["somebody else looks at it, or has changed it; this look ends"]
    assert Counter(uris()) == Counter(f"f{n}/r.fits" for n in range(3))
    assert again().lastFileset == "f2"


def test_an_operators_change_meanwhile_stays(
    server: Server, clock: Clock, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_store(remote.uri)
    remote.add("f0", r__fits="1")
    real = module.list_files

    def meanwhile(*args: Any, **options: Any) -> Any:
        pstampDataStore.update(state="disabled", lastFileset="mine", timestamp=moment(clock.now + 1)).execute()
        return real(*args, **options)

    monkeypatch.setattr(module, "list_files", meanwhile)
    assert poll(server, clock)[0].fault == 2
    assert (again().lastFileset, uris()) == ("mine", [])


# -- what becomes of them


def test_a_remote_file_is_parsed_tried_again_and_answered(
    server: Server, clock: Clock, remote: Remote, tmp_path: Path
) -> None:
    row = "1 10 20 8 6 2 stamp 1 nosuch null null byid stack 1 null null null null 0 0 null 0 0"
    write_request(tmp_path / "r.fits", parse_text(f"remote_1 2 PROCESS ana@obs.example.edu\n{row}\n")[0])
    remote.add("f0", **{"my r__fits": (tmp_path / "r.fits").read_bytes(), "gone__fits": "1", "bad__fits": "no table"})
    remote.special["f0/gone.fits"] = send("", 404)
    add_store(remote.uri, outProduct="theirs")
    poll(server, clock)
    assert parse_requests(server, 10) == 3
    good, gone, bad = pstampRequest.select().order_by(pstampRequest.req_id)
    assert (good.state, good.name, good.outProduct, good.label) == (RequestState.RUN, "remote_1", "theirs", None)
    assert Path(good.uri) == server.work_directory(good) / "my r.fits"
    assert Path(good.uri).read_bytes() == (tmp_path / "r.fits").read_bytes()
    assert (gone.state, gone.fault, gone.fault_count) == (RequestState.NEW, 2, 1)
    notes = pstampHistory.select().where(
        (pstampHistory.row_id == gone.req_id) & (pstampHistory.machine == "request") & (pstampHistory.event == "fault")
    )
    assert [line.note for line in notes] == [f"{remote.uri}/f0/gone.fits: HTTP 404 Not Found"]
    assert (bad.state, bad.reqType) == (RequestState.RUN, "unknown")


GOOD = "1 10 20 8 6 2 stamp 1 nosuch null null byid stack 1 null null null null 0 0 null 0 0"


def request_file(tmp_path: Path) -> bytes:
    """The bytes of a request table."""
    write_request(tmp_path / "r.fits", parse_text(f"remote_1 2 PROCESS ana@obs.example.edu\n{GOOD}\n")[0])
    return (tmp_path / "r.fits").read_bytes()


def parse_again(server: Server, clock: Clock) -> pstampRequest:
    """Parse request 1, which may have failed before."""
    clock.forward(4000)
    revert(server)
    parse_requests(server, 1)
    return pstampRequest.get_by_id(1)


def trouble(server: Server, clock: Clock) -> tuple[int, str]:
    """Parse request 1; return its fault, and what the history says of it."""
    request = parse_again(server, clock)
    notes = [row.note for row in pstampHistory.select().where(pstampHistory.event == "fault")]
    assert len(notes) == request.fault_count
    return request.fault, notes[-1]


def test_a_file_must_be_what_its_filesets_index_says(
    server: Server, clock: Clock, remote: Remote, tmp_path: Path
) -> None:
    server = with_settings(server, retry_ceiling=9)
    content = request_file(tmp_path)
    remote.add("f0", r__fits=content)
    add_store(remote.uri)
    poll(server, clock)
    uri = f"{remote.uri}/f0/r.fits"
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    for damaged in (content[:-1] + b"\1", content[:-2880]):
        remote.special["f0/r.fits"] = send(damaged)
        found = hashlib.md5(damaged, usedforsecurity=False).hexdigest()
        assert trouble(server, clock) == (
            5, f"{uri}: has {len(damaged)} bytes, md5 {found}; expected {len(content)} bytes, md5 {md5}",
        )  # fmt: skip
    remote.special["f0/r.fits"] = send(content + b"x")
    assert trouble(server, clock) == (5, f"{uri}: has more than the {len(content)} bytes expected")
    remote.special["f0/index.txt"] = send("# fileID|bytes|md5sum|type|\n")
    assert trouble(server, clock) == (2, f"{remote.uri}/f0/index.txt: file r.fits is not listed any more")
    remote.special.clear()
    remote.files["f0"]["r.fits"] = content.replace(b"ana@", b"ANA@")  # registered anew since it was queued
    assert parse_again(server, clock).state is RequestState.RUN


def test_what_nobody_polled_has_no_index_to_agree_with(
    server: Server, clock: Clock, remote: Remote, tmp_path: Path, rows: Rows
) -> None:
    remote.special["r.fits"] = send(request_file(tmp_path))
    rows.request(RequestState.NEW, name=None, uri=f"{remote.uri}/r.fits")
    assert parse_requests(server, 1) == 1
    assert pstampRequest.get_by_id(1).state is RequestState.RUN
    assert remote.asked == ["r.fits"]


# -- where it does not go


@pytest.mark.parametrize("what", ["index.txt", "f0/index.txt", "f0/r.fits"])
def test_a_store_does_not_lead_to_another_host_unless_the_site_says_so(
    server: Server, clock: Clock, remote: Remote, tmp_path: Path, what: str
) -> None:
    content = request_file(tmp_path)
    remote.add("f0", r__fits=content)
    add_store(remote.uri)
    own = remote.uri.removeprefix("http://").partition("/")[0]
    other = own.replace("127.0.0.1", "localhost")
    text = remote.text(what)
    assert text
    remote.special |= {what: send("", 302, Location=f"http://{other}/ds/p/elsewhere"), "elsewhere": send(text)}
    refusal = f"{remote.uri}/{what}: redirects to http://{other}; expected {own} itself, or a host that the setting "
    refusal += "poll_hosts names"
    (found,) = poll(server, clock)
    if what == "f0/r.fits":
        assert trouble(server, clock) == (3, refusal)
    else:
        assert found.fault == 3
        assert found.troubles[0].startswith(refusal)
        assert uris() == []
    assert "elsewhere" not in remote.asked
    there = with_settings(server, poll_hosts=("LocalHost:" + own.rpartition(":")[2],))
    poll(there, clock)
    assert parse_again(there, clock).state is RequestState.RUN


def test_the_settings_say_how_long_and_how_far(
    server: Server, clock: Clock, remote: Remote, stop: threading.Event
) -> None:
    add_store(remote.uri)
    remote.add("f0", r__fits="1" * 10_000)
    remote.special["index.txt"] = stores.dripping(stop)
    clock.forward(100)
    impatient = with_settings(server, poll_seconds=0.2, fetch_seconds=0.2, poll_redirects=1)
    (found,) = queue_requests(impatient, limit=5)
    assert found.troubles == [f"{remote.uri}/index.txt: no answer within 0.2 s"]
    for n in (0, 1):
        remote.special["index.txt" if n == 0 else str(n)] = send("", 302, Location=f"/ds/p/{n + 1}")
    assert poll(impatient, clock)[0].troubles == [f"{remote.uri}/index.txt: more than 1 redirects"]
    remote.special = {"f0/r.fits": stores.dripping(stop)}
    poll(impatient, clock)
    assert trouble(impatient, clock) == (6, f"{remote.uri}/f0/r.fits: no answer within 0.2 s")
