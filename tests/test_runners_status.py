"""What people see of a server: `pstamp status`, `why`, orders; `psstatus`, `pstamp_server_status`, `pstamp_listjobs`."""

# ruff: noqa: E501 (whole screens)

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import SECOND, Clock, Rows

from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import (
    Store,
    dependents_to_check,
    jobs_to_run,
    make,
    moment,
    pstampDependent,
    pstampHistory,
    pstampJob,
    pstampRequest,
    requests_to_clean,
    requests_to_finish,
    requests_to_parse,
)
from pstamp_core.tasks import report
from pstamp_core.tasks.explain import Explanation, Link
from pstamp_core.tasks.server import Server, make_server
from pstamp_core.testing import NOW
from runners import look, order, psstatus, pstamp, pstamp_listjobs, pstamp_server_status

HOUR = 3600 * SECOND


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    server = Server(Settings(tmp_path), store)
    for folder in (server.settings.work, server.settings.datastore):
        folder.mkdir()
    return server


Result = tuple[int, str, str]
Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: Server) -> Command:
    """Run one of the programs on the server; gives exit code, output and errors."""
    for module in (look, order, psstatus, pstamp_listjobs, pstamp_server_status):
        monkeypatch.setattr(module, "server_of", lambda _home, **_: server)
    monkeypatch.setattr(order, "_login", lambda: "otto")
    monkeypatch.setattr(report.shutil, "disk_usage", lambda _: Usage(1000 * 10**9, 750 * 10**9, 250 * 10**9))

    def run(program: Any, *args: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [program.__name__.rpartition(".")[2], *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            program.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def night(rows: Rows) -> None:
    """A bad night: a fault, a dead worker, a preview, an image that is not there, a label that is off."""
    rows.label("FAST", 20000)
    rows.label("OFF", 5, active=False)
    ago = {"changed_at": NOW - 2 * HOUR}
    new = rows.request(RequestState.NEW, name=None, label="OFF", **ago)
    running = rows.request(name="galaxies", label="FAST", changed_at=NOW - HOUR, reqType="pstamp", attempt=1)
    rows.request(RequestState.PARSED, name="look", label="FAST", changed_at=NOW - 30 * HOUR)
    rows.request(RequestState.STOP, name="done", label="FAST", reqType="pstamp", changed_at=NOW - HOUR)
    rows.request(RequestState.RUN, name="broken", fault=2, fault_count=3, attempt=3, changed_at=NOW - 60 * SECOND)
    dependent = rows.dependent(stage_id=11, component="cell", reason="cleaned, must be made again",
                               changed_at=NOW - 50 * HOUR, retry_at=NOW + 5 * SECOND)  # fmt: skip
    for number in range(2):
        rows.job(running, rownum=str(number), dep_id=dependent.dep_id, changed_at=NOW - HOUR)
    for _ in range(3):
        rows.job(running, fault=2, fault_count=1, cause=2, sentence="no disk", changed_at=NOW - 90 * SECOND,
                 retry_at=NOW + 10 * SECOND)  # fmt: skip
    long = {"changed_at": NOW - HOUR}
    rows.job(running, lease_owner="host.1", lease_until=NOW + 60 * SECOND, **long)
    rows.job(running, lease_owner="host.2", lease_until=NOW - 60 * SECOND, **long)
    rows.job(running, **long)
    rows.job(running, JobState.STOP, outputBase="/data/dsroot/stamps/1_1", **long)
    rows.job(running, JobState.STOP, fault=28, **long)
    for event, at in (("finish", NOW - 2 * HOUR), ("finish", NOW - HOUR // 2), ("claim", NOW), ("fault", NOW)):
        pstampHistory.create(machine="job", row_id=9, event=event, source="run", dest="stop", who="w", at=at)
    assert new.req_id == 1


STATUS = """\
2027-01-15 08:00:00 UTC

queue   now  later  leased  faulted  held
parse     0      0       0        0     1
run       1      0       2        3     2
check     0      1       0        0     0
finish    0      0       0        1     0
clean     0      0       0        0     0

in the last hour          rows  per hour
job               finish     1         1
job               fault      1         1

images: 1 waited for, the oldest for 2 d 2 h; 0 came in the last hour (0 per hour)

does not move                              for       next try             why
2 job(s) of request 2                      2 d 2 h   2027-01-15 08:00:05  dependent 1: warp 11 cell: cleaned, must be made again
request 3 (look)                           30 h 0 min                       a preview: accept it with: pstamp accept 3
0 job(s) of 1 request(s)                   2 h 0 min                        label OFF is inactive: it hands out no work
3 jobs, the first is 3, of request 2       1 min     2027-01-15 08:00:10  fault 2 after 1 try: A disk, network or system call failed. (no disk)
request 5 (broken)                         1 min                          fault 2 after 3 tries: A disk, network or system call failed.
job 7                                      1 min                          host.2 works on it, overdue since 2027-01-15 07:59:00

fault  requests  jobs  dependents  meaning
    2         1     3           0  A disk, network or system call failed.

works   on       until
host.2   1  job  2027-01-15 07:59:00 OVERDUE
host.1   1  job  2027-01-15 08:01:00

label   priority  active  requests  jobs
FAST       20000  yes            2     8
(none)     10000  yes            1     0
OFF            5  NO             1     0

disk                free GB   of GB  free
work and datastore    250.0  1000.0  25%
"""


def squeezed(text: str) -> str:
    return re.sub(r" +", " ", text)


def test_status_is_one_screen(command: Command, night: None) -> None:
    code, out, err = command(pstamp, "status")
    assert (code, squeezed(out), err) == (0, squeezed(STATUS), "")
    widths = {line.index("now") for line in out.splitlines() if line.startswith("queue")}
    assert widths == {8}


def test_status_for_programs_says_the_same(command: Command, night: None) -> None:
    code, out, _ = command(pstamp, "status", "--json")
    found = json.loads(out)
    assert (code, out.count("\n"), found["at"]) == (0, 1, "2027-01-15T08:00:00+00:00")
    text = squeezed(command(pstamp, "status")[1])
    for queue in found["queues"]:
        assert " ".join(str(queue[name]) for name in ("name", "now", "later", "leased", "faulted", "held")) in text
    for each in (*found["stuck"], *found["moves"]):
        assert squeezed(f"{each['what']} " if "what" in each else f"{each['machine']} {each['event']}") in text
    assert [each["owner"] for each in found["leases"] if each["overdue"]] == ["host.2"]
    assert [each["jobs"] for each in found["labels"]] == [8, 0, 0]
    assert found["faults"] == [
        {"fault": 2, "sentence": "A disk, network or system call failed.", "requests": 1, "jobs": 3, "dependents": 0}
    ]


def test_an_idle_server(command: Command, rows: Rows) -> None:
    code, out, _ = command(pstamp, "status")
    assert (code, [line.split()[0] for line in out.splitlines()[2:] if line]) == (
        0, ["queue", "parse", "run", "check", "finish", "clean", "disk", "work"],
    )  # fmt: skip
    rows.job()
    assert "\nnobody works on it just now: is pstamp run, pstamp serve or pantasks there?\n" in command(
        pstamp, "status"
    )[1]  # fmt: skip


def test_no_more_than_a_screen(command: Command, rows: Rows) -> None:
    for number in range(13):
        rows.job(fault=2, changed_at=NOW - number * SECOND)
        rows.job(lease_owner=f"host.{number:02}", lease_until=NOW + number * SECOND)
    out = command(pstamp, "status")[1]
    assert "\nand 3 more; pstamp why request N tells about one\n" in out
    assert "\nand 3 more\n\nlabel" in out
    assert [word for word in out.split() if word.startswith("host.")] == [f"host.{number:02}" for number in range(10)]
    first = out.split("does not move")[1].splitlines()[1]
    assert first.startswith("job 25 of request 25")


def test_the_history_is_counted_as_far_as_it_is_bounded(
    command: Command, rows: Rows, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"machine": "job", "row_id": 1, "event": "finish", "source": "run", "dest": "stop", "who": "w",
         "at": NOW - (100 - number) * 60 * SECOND}
        for number in range(100)
    ]  # fmt: skip
    pstampHistory.insert_many(lines).execute()
    found = report.status(server)
    assert [(move.count, move.per_hour, found.hours) for move in found.moves] == [(60, 60.0, 1.0)]
    monkeypatch.setattr(report, "LINES_LOOKED_AT", 30)
    found = report.status(server)
    assert [(move.count, round(move.per_hour)) for move in found.moves] == [(31, 60)]
    assert "in the last 31 min" in command(pstamp, "status")[1]


def test_the_queues_are_those_that_workers_claim_from(server: Server, rows: Rows, clock: Clock) -> None:
    rows.label("on", 5)
    rows.label("off", 5, active=False)
    conditions: list[dict[str, Any]] = [
        {}, {"fault": 2}, {"lease_owner": "w", "lease_until": NOW + SECOND}, {"retry_at": NOW + SECOND},
        {"retry_at": NOW - SECOND},
    ]  # fmt: skip
    for state, label, condition in itertools.product(RequestState, (None, "on", "off"), conditions):
        if state in (RequestState.PARSED, RequestState.STOP, RequestState.CLEANED) and "fault" in condition:
            continue
        request = rows.request(state, label=label, **condition)
        if state is not RequestState.RUN:
            continue
        for of_job in conditions:
            rows.job(request, **of_job)
        for state_of_image in (DependentState.NEW, DependentState.HOLD, DependentState.FULL):
            rows.job(request, dep_id=rows.dependent(state_of_image).dep_id)
        for of_dependent in conditions:
            rows.job(request, dep_id=rows.dependent(**of_dependent).dep_id)
        rows.request(label=label, **condition)
    rows.dependent()
    queues = {queue.name: queue for queue in report.status(server).queues}
    queries = {
        "parse": requests_to_parse, "run": jobs_to_run, "check": dependents_to_check, "finish": requests_to_finish,
        "clean": requests_to_clean,
    }  # fmt: skip
    counts = {name: len(list(query(NOW))) for name, query in queries.items()}
    assert {name: queue.now for name, queue in queues.items()} == counts
    assert min(counts.values()) > 0
    for name, table, states in (
        ("run", pstampJob, [JobState.RUN]),
        ("check", pstampDependent, [DependentState.NEW, DependentState.HOLD]),
        ("parse", pstampRequest, [RequestState.NEW]),
    ):
        queue = queues[name]
        total = queue.now + queue.later + queue.leased + queue.faulted + queue.held
        assert total == table.select().where(table.state.in_(states)).count()
        assert min(queue.later, queue.leased, queue.faulted, queue.held) > 0


@pytest.mark.parametrize("engine", ["sqlite"])
def test_what_is_finished_is_not_looked_at(
    server: Server, rows: Rows, night: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs and history are found by an index, never by a walk over the table."""
    asked: list[tuple[str, Any]] = []
    execute = server.store.db.execute_sql

    def note(sql: str, params: Any = None, *args: Any) -> Any:
        asked.append((sql, params))
        return execute(sql, params, *args)

    with monkeypatch.context() as patch:
        patch.setattr(server.store.db, "execute_sql", note)
        report.status(server)
    large = [(sql, params) for sql, params in asked if "pstampJob" in sql or "pstampHistory" in sql]
    assert len(large) > 8
    for sql, params in large:
        names = dict(re.findall(r'"(pstamp\w+)" AS "(t\d)"', sql))
        plan = [line[3] for line in execute(f"EXPLAIN QUERY PLAN {sql}", params).fetchall()]
        for table in ("pstampJob", "pstampHistory"):
            walks = [line for line in plan if line.split()[:2] == ["SCAN", names.get(table)]]
            ends = "MIN(" in sql or "MAX(" in sql or "ORDER BY" in sql  # one row, from an end of the index
            assert not walks or (ends and "LIMIT" in sql), (sql, plan)


def test_watching(command: Command, night: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain repeats where nobody looks; Control-C is the end, not an error."""
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", nap)
    code, out, err = command(pstamp, "status", "--watch", "--every", 7)
    assert (code, out.count("queue "), naps, err) == (0, 3, [7, 7, 7], "")
    naps.clear()
    code, out, _ = command(pstamp, "status", "--watch", "--json")
    assert (code, [bool(json.loads(line)) for line in out.splitlines()], naps) == (0, [True] * 3, [5, 5, 5])


def on_terminal(home: Path, *args: object, until: str, then: Callable[[subprocess.Popen[bytes], int], None]) -> Result:
    """Run `pstamp` on a terminal; once it shows `until`, do something."""
    terminal, end = pty.openpty()
    program = [Path(sys.executable).parent / "pstamp", *map(str, args), "--home", home]
    process = subprocess.Popen(
        program, stdin=end, stdout=end, stderr=end, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )  # fmt: skip
    os.close(end)
    seen, done = b"", False
    with suppress(OSError):  # how a terminal ends
        while part := os.read(terminal, 10000):
            seen += part
            if not done and re.search(until.encode(), seen, re.S):
                done = True
                then(process, terminal)
    os.close(terminal)
    return process.wait(30), seen.decode().replace("\r\n", "\n"), ""


def test_on_a_terminal(tmp_path: Path) -> None:
    """It is watched on a screen of its own, and an order is asked for."""
    home = tmp_path / "h"
    server = make_server(home)
    at = moment(server.store.now())

    def submit() -> None:
        make(pstampRequest, now=server.store.now(), who="ana", uri="a.fits", registered=at, timestamp=at)

    def is_cancelled() -> bool:
        with server.store.reading():
            return bool(pstampRequest.get().state is RequestState.CANCEL)

    server.store.work(submit)
    code, out, _ = on_terminal(
        home, "status", "--watch", "--every", 0.1, until="parse.*parse",
        then=lambda process, _: process.send_signal(signal.SIGINT),
    )  # fmt: skip
    assert (code, "\x1b[?1049h" in out, "\x1b[?1049l" in out) == (0, True, True)
    for answer, code in (("n", 1), ("", 1), ("y", 0)):
        assert not is_cancelled()
        said = answer

        def reply(_: object, terminal: int, said: str = said) -> None:
            os.write(terminal, f"{said}\n".encode())

        found, out, _ = on_terminal(home, "cancel", "request", 1, until=r"do it\?", then=reply)
        last = out.splitlines()[-1].strip()
        assert (found, last) == (code, "nothing was done" if code else "done")
        assert "1  request  cancel  new   cancel" in out
    assert is_cancelled()


WHY = """\
request 2 (galaxies): run for 1 h 0 min (1 try)
    waits for 8 open jobs
    5 jobs run
    3 jobs run: 2 A disk, network or system call failed.
    1 job stop
    1 job stop: 28 The position is not on the image.

3 jobs, the first of them:
  job 3: run for 1 min (next 2027-01-15 08:00:10)
      fault 2 after 1 try: A disk, network or system call failed. (no disk)
  what helps: mend the cause; to try again at once: pstamp revert job 3

2 jobs, the first of them:
  job 1: run for 1 h 0 min
      waits for an image: dependent 1
    dependent 1 (warp 11 cell): new for 2 d 2 h (next 2027-01-15 08:00:05; given up 2027-01-20 06:00:00)
        cleaned, must be made again
      component warp 11 cell: unknown
          database {home}/gpc1: no such file
  what helps: mend the image database; to wait no longer: pstamp stop dependent 1

1 job:
  job 6: run for 1 h 0 min
      host.1 works on it, until 2027-01-15 08:01:00 or longer
  what helps: nothing: wait for it

1 job:
  job 7: run for 1 h 0 min
      host.2 worked on it and was lost: its lease ran out at 2027-01-15 07:59:00
  what helps: pstamp run (counts it as lost, and tries again)

1 job:
  job 8: run for 1 h 0 min
      ready: a worker takes it in its turn
  what helps: pstamp run
"""


def test_why(command: Command, night: None, server: Server) -> None:
    assert command(pstamp, "why", "request", 2) == (0, WHY.replace("{home}", str(server.settings.home)), "")
    found = json.loads(command(pstamp, "why", "request", 2, "--json")[1])
    assert [(chain["jobs"], chain["helps"]) for chain in found["blocked"]] == [
        (int(number), helps)
        for number, helps in re.findall(r"^(\d+) job.*?what helps: (.*?)$", WHY.split("\n\n", 1)[1], re.M | re.S)
    ]
    assert (
        command(pstamp, "why", "job", 9)[1]
        == """\
request 2 (galaxies): run for 1 h 0 min (1 try)
  job 9: stop for 1 h 0 min
      The product was delivered.

what helps: pstamp why request 2 (what the request waits for)
"""
    )


DEPENDENTS = """\
no.  image         state    for      looks  failed  next look            priority  jobs  requests                what it waits for
  3  diff 3 cell   fault 2  1 min        4       2  2027-01-15 08:00:10     20000     1  8                       no disk
  4  chip 4 XY31   new      2 d 12 h     0       0                             -5     1  9
  2  warp 2 cell   new      2 d 2 h     90       0                             -5     9  1, 2, 3, 4, 5 and 2 more  being made again
  6  chip 6 XY31   new      3 h 0 min    0       0                                    1  11                      not looked at
  5  chip 5 XY31   hold     2 h 0 min    0       0                                    1  10                      for a preview

images: 5; jobs: 13; pstamp why dependent N tells about one
an image that is not there after 7 days is given up
"""


def test_the_images_that_are_waited_for(command: Command, rows: Rows) -> None:
    assert command(pstamp, "dependents") == (0, "no image is waited for\n", "")
    rows.label("FAST", 20000)
    rows.label("OFF", 30000, active=False)
    rows.label("SLOW", -5)
    requests = [rows.request(label="SLOW") for _ in range(7)]
    fast, usual = rows.request(label="FAST"), rows.request(label="SLOW")
    preview, off = rows.request(RequestState.PARSED, label="FAST"), rows.request(label="OFF")
    nobodys = rows.dependent(stage="chip", stage_id=1, component="XY31")
    shared = rows.dependent(stage_id=2, component="cell", changed_at=NOW - 50 * HOUR, attempt=90,
                            reason="being made again")  # fmt: skip
    urgent = rows.dependent(stage="diff", stage_id=3, component="cell", changed_at=NOW - 60 * SECOND, attempt=4, fault=2,
                            fault_count=2, retry_at=NOW + 10 * SECOND, reason="no disk",
                            imagedb="mysql://u:secret@h/gpc1")  # fmt: skip
    chips = [
        rows.dependent(state, stage="chip", stage_id=number, component="XY31", changed_at=NOW - hours * HOUR, reason=text)
        for number, hours, state, text in (
            (4, 60, DependentState.NEW, ""), (5, 2, DependentState.HOLD, "for a preview"),
            (6, 3, DependentState.NEW, "not looked at"), (7, 5, DependentState.FULL, ""),
        )
    ]  # fmt: skip
    for request in (*requests, *requests[:2]):
        rows.job(request, dep_id=shared.dep_id)
    rows.job(fast, dep_id=urgent.dep_id)
    rows.job(fast, JobState.STOP, dep_id=shared.dep_id)
    rows.job(fast, JobState.CANCEL, dep_id=nobodys.dep_id, fault=32)
    for request, chip in zip((usual, preview, off, fast), chips, strict=True):
        rows.job(request, JobState.PARSED if request is preview else JobState.RUN, dep_id=chip.dep_id)
    code, out, err = command(pstamp, "dependents")
    assert (code, squeezed(out), err) == (0, squeezed(DEPENDENTS), "")
    found = json.loads(command(pstamp, "dependents", "--json")[1])
    assert [each["priority"] for each in found["images"]] == [20000, -5, -5, None, None]
    assert found["images"][0] == {
        "dep_id": 3, "imagedb": "mysql://u:***@h/gpc1", "stage": "diff", "stage_id": 3, "component": "cell",
        "state": "new", "fault": 2, "reason": "no disk", "since": "2027-01-15T07:59:00+00:00", "looks": 4, "failed": 2,
        "next_look": "2027-01-15T08:00:10+00:00", "priority": 20000, "jobs": 1, "requests": [8],
    }  # fmt: skip
    assert found["images"][2]["requests"] == [1, 2, 3, 4, 5, 6, 7]


def test_images_that_came(command: Command, rows: Rows) -> None:
    """Also when none is waited for any more: by no job, that is."""
    rows.dependent()
    for event, minutes in (("satisfy", 70), ("satisfy", 50), ("satisfy", 1), ("fault", 1)):
        pstampHistory.create(machine="dependent", row_id=1, event=event, source="new", dest="full", who="w",
                             at=NOW - minutes * 60 * SECOND)  # fmt: skip
    assert "\nimages: 0 waited for; 2 came in the last hour (2 per hour)\n" in command(pstamp, "status")[1]
    found = json.loads(command(pstamp, "status", "--json")[1])
    assert found["images"] == {"waiting": 0, "oldest": None, "made": 2, "per_hour": 2.0}


CHAIN = """\
job 7: run for 1 min
    waits
  dependent 4 (diff 1 cell): new (2 looks, 1 failed)
      waits for its warp: cleaned
    component diff 1 cell: run cleaned
        waits for its warp; 3 jobs of request 2 wait for it
      warp 11 cell: run update for 10 s (2 tries, 1 failed; next 2027-01-15 08:01:00)
          being made again; 7 jobs of requests 1, 2, 3, 4, 5 and 1 more wait for it
        chip 11 XY31: run update
            waits: for streaks
        destreak 511 XY31: run new (1 try)
      warp 12 cell: run update
          waits

what helps: patience
"""


def test_a_chain_is_drawn_as_a_tree(capsys: pytest.CaptureFixture[str]) -> None:
    links = [
        Link("job 7", "run", "waits", moment(NOW - 60 * SECOND)),
        Link("dependent 4 (diff 1 cell)", "new", "waits for its warp: cleaned", tries=2, faults=1),
        Link("component diff 1 cell", "run cleaned", "waits for its warp: waits: made again", jobs=3, requests=[2]),
        Link("warp 11 cell", "run update", "being made again", moment(NOW - 10 * SECOND), tries=2, faults=1,
             next_try=moment(NOW + 60 * SECOND), depth=1, jobs=7, requests=[1, 2, 3, 4, 5, 6]),
        Link("chip 11 XY31", "run update", "waits: for streaks", depth=2, jobs=1, requests=[2]),
        Link("destreak 511 XY31", "run new", "", tries=1, depth=2),
        Link("warp 12 cell", "run update", "waits", depth=1),
    ]  # fmt: skip
    look._print_explanation(Explanation(moment(NOW), links, "patience"))
    assert capsys.readouterr().out == CHAIN


def test_names_command_no_terminal(command: Command, rows: Rows) -> None:
    evil = "\x1b[2J'\"; DROP\x07\u202e\n"
    rows.label("evil\x1b[1m", 5)
    request = rows.request(RequestState.RUN, name=evil, label="evil\x1b[1m", outProduct=evil)
    rows.job(request, fault=2, sentence=evil, outputBase=evil)
    rows.job(request, dep_id=rows.dependent(component=evil, reason=evil, imagedb="x\x1b.db").dep_id)
    rows.job(request, lease_owner=evil, lease_until=NOW + SECOND)
    calls: list[tuple[Any, ...]] = [
        (pstamp, "status"), (pstamp, "why", "request", 1), (pstamp, "show", "request", 1), (pstamp, "show", "job", 1),
        (pstamp, "why", "job", 1), (pstamp, "why", "dependent", 1), (pstamp, "dependents"), (pstamp, "history", "request", 1),
        (pstamp, "priority", "label", "evil\x1b[1m", 7, "--yes"), (pstamp, "history", "label", "evil\x1b[1m"),
        (psstatus, "-r", "-t"), (pstamp_listjobs, 1), (pstamp_server_status,), (pstamp, "results", 1),
        (pstamp, "cancel", "job", 1, "--yes", "--why", evil), (pstamp, "history", "job", 1), (pstamp, "log", "job", 1),
    ]  # fmt: skip
    seen = ""
    for call in calls:
        code, out, err = command(*call)
        assert (code in (0, 5), call) == (True, call)
        assert all(each.isprintable() or each == "\n" for each in out + err), call
        seen += out
    assert seen.count("\\x1b[2J'\"; DROP\\x07\\u202e") > 10
    assert "&#x27;&quot;; DROP" in seen


# -- orders


EFFECT = """\
rows  of   event   from  to   fault  cause  which
   3  job  revert  run   run             2  3, 4, 5
"""


def test_an_order_is_shown_asked_for_and_given(command: Command, night: None, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("revert", "job", "--all", "--fault", 2, "--label", "FAST", "--why", "NFS is back")
    before = list(pstampJob.select().order_by(pstampJob.job_id).tuples())
    code, out, err = command(pstamp, *args)
    assert (code, out, err) == (3, EFFECT, "pstamp: nothing was done: not on a terminal, so say --yes\n")
    assert command(pstamp, *args, "--dry-run") == (0, f"{EFFECT}nothing was done: a dry run\n", "")
    assert command(pstamp, *args, "--dry-run", "--yes") == (0, f"{EFFECT}nothing was done: a dry run\n", "")
    monkeypatch.setattr(order.typer, "confirm", lambda _: False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert command(pstamp, *args) == (1, f"{EFFECT}nothing was done\n", "")
    assert list(pstampJob.select().order_by(pstampJob.job_id).tuples()) == before

    def meanwhile(_: str) -> bool:
        pstampJob.update(fault=0).where(pstampJob.job_id == 4).execute()
        return True

    monkeypatch.setattr(order.typer, "confirm", meanwhile)
    code, out, err = command(pstamp, *args)
    assert (code, out) == (2, EFFECT)
    assert err == "pstamp: the rows have changed since they were shown, so nothing was done; look again\n"
    assert pstampJob.select().where(pstampJob.fault == 2).count() == 2
    pstampJob.update(fault=2).where(pstampJob.job_id == 4).execute()
    monkeypatch.setattr(order.typer, "confirm", lambda _: True)
    assert command(pstamp, *args) == (0, f"{EFFECT}done\n", "")
    assert not pstampJob.select().where(pstampJob.fault == 2).exists()
    line = pstampHistory.select().where(pstampHistory.event == "revert").first()
    assert (line.who, line.note) == ("otto", "NFS is back")
    assert command(pstamp, *args) == (0, "there is nothing to do\n", "")
    assert command(pstamp, *args, "--yes") == (0, "there is nothing to do\n", "")


def test_many_rows_are_named_by_the_first(command: Command, rows: Rows) -> None:
    request = rows.request()
    for _ in range(7):
        rows.job(request)
    out = command(pstamp, "cancel", "request", request.req_id, "--yes")[1]
    assert [line.split()[-7:] for line in out.splitlines()[2:]] == [
        ["1,", "2,", "3,", "4,", "5", "and", "2", "more"][-7:]
    ]


@pytest.mark.parametrize(
    ("args", "machine", "state"),
    [
        (["hold", 1], pstampDependent, DependentState.HOLD),
        (["release", 2], pstampDependent, DependentState.NEW),
        (["stop", "dependent", 1], pstampDependent, DependentState.STOP),
        (["stop", "job", 1], pstampJob, JobState.STOP),
        (["cancel", "job", 1], pstampJob, JobState.CANCEL),
        (["cancel", "request", 1], pstampRequest, RequestState.CANCEL),
        (["accept", 2], pstampRequest, RequestState.RUN),
        (["clean", 3], pstampRequest, RequestState.GOTO_CLEANED),
    ],
)
def test_each_order(command: Command, rows: Rows, args: list[object], machine: Any, state: Any) -> None:
    request = rows.request()
    rows.request(RequestState.PARSED)
    rows.request(RequestState.STOP)
    rows.job(request, dep_id=rows.dependent().dep_id)
    rows.dependent(DependentState.HOLD)
    number = args[-1]
    assert machine.get_by_id(number).state is not state
    code, out, err = command(pstamp, *args, "--yes", "--why", "as told")
    assert (code, err) == (0, "")
    assert machine.get_by_id(number).state is state
    lines = list(pstampHistory.select())
    assert {line.who for line in lines} == {"otto"}
    assert all("as told" in line.note for line in lines)
    assert sum(int(line.split()[0]) for line in out.splitlines()[1:]) == len(lines)


# -- psstatus, pstamp_listjobs, pstamp_server_status


def test_psstatus(command: Command, night: None) -> None:
    code, out, err = command(psstatus)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    columns, *rows_shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[0] == "|"]
    assert columns == [
        "req_id", "name", "label", "reqType", "state", "fault", "Num Rows", "Total Jobs", "Completed Jobs",
        "Pending Jobs", "Faulted Jobs", "Image updates", "last state change", "Submit time",
    ]  # fmt: skip
    noon = "2027-01-15 08:00:00"
    assert rows_shown == [
        ["1", "NULL", "OFF", "NULL", "new", "0", "0", "0", "0", "0", "0", "0", "2027-01-15 06:00:00", noon],
        ["2", "galaxies", "FAST", "pstamp", "run", "0", "2", "10", "2", "5", "4", "0", "2027-01-15 07:00:00", noon],
        ["3", "look", "FAST", "NULL", "parsed", "0", "0", "0", "0", "0", "0", "0", "2027-01-14 02:00:00", noon],
        ["5", "broken", "NULL", "NULL", "run", "2", "0", "0", "0", "0", "0", "0", "2027-01-15 07:59:00", noon],
    ]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert lines[0] == lines[2] == lines[-1] == re.sub(r"[^+]", "-", lines[0])
    assert command(psstatus, "-r")[1] == command(psstatus, "--running")[1] == out
    assert len(command(psstatus, "-l", 2)[1].splitlines()) == 6


PSSTATUS = """\
+-------+-----------------+----------+
| label | Unfinished Jobs | priority |
+-------+-----------------+----------+
| FAST  | 8               | 20000    |
+-------+-----------------+----------+
+--------+--------+-------+---------+-------+-------+---------------+---------------------+
| req_id | name   | label | reqType | state | fault | Finished jobs | last state change   |
+--------+--------+-------+---------+-------+-------+---------------+---------------------+
| 5      | broken | NULL  | NULL    | run   | 2     | 0             | 2027-01-15 07:59:00 |
+--------+--------+-------+---------+-------+-------+---------------+---------------------+
"""


def test_psstatus_of_what_is_finished_or_about_to_be(command: Command, night: None, rows: Rows) -> None:
    assert command(psstatus, "-t", "--finishing") == (0, PSSTATUS, "")
    for hours, name in ((25, "long ago"), (23, "today"), (2, "just now")):
        request = rows.request(RequestState.STOP, name=name, changed_at=NOW - hours * HOUR)
        rows.job(request, JobState.STOP, dep_id=rows.dependent(DependentState.FULL).dep_id)
        rows.job(request, JobState.STOP, fault=25)
    out = command(psstatus, "-f")[1]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line[0] == "|"]
    assert shown[0][4:9] == ["Num Rows", "Total Jobs", "Successful Jobs", "Faulted Jobs", "Image updates completed"]
    assert [row[1] for row in shown[1:]] == ["done", "just now", "today"]
    assert shown[2][4:] == ["1", "2", "1", "1", "1", "2027-01-15 06:00:00", "2027-01-15 08:00:00"]
    assert command(psstatus, "-f", "-l", 1)[1].count("\n") == 5
    code, out, err = command(psstatus, "-r", "-f")
    assert (code, out) == (3, "")
    assert "--running and --finished exclude each other" in " ".join(err.split())


def test_a_psstatus_of_nothing_is_nothing(command: Command) -> None:
    assert command(psstatus, "-r", "-t", "--finishing") == (0, "", "")


def test_the_jobs_of_a_request(command: Command, night: None) -> None:
    code, out, _ = command(pstamp_listjobs, 2)
    assert (code, out.splitlines()) == (0, [
        "1 run 0 galaxies NULL NULL", "2 run 0 galaxies NULL NULL", "3 run 2 galaxies NULL NULL",
        "4 run 2 galaxies NULL NULL", "5 run 2 galaxies NULL NULL", "6 run 0 galaxies NULL NULL",
        "7 run 0 galaxies NULL NULL", "8 run 0 galaxies NULL NULL", "9 stop 0 galaxies NULL /ds/stamps/1_1",
        "10 stop 28 galaxies NULL NULL",
    ])  # fmt: skip
    assert command(pstamp_listjobs, 99) == (5, "", "pstamp: there is no request 99\n")
    assert command(pstamp_listjobs, 1) == (0, "", "")


class Fragment(HTMLParser):
    """The texts of a fragment, and whether its tags match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag in {"p", "h3", "table", "tr", "th", "td"}
        assert attrs == []
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.cells.append(data)


def test_the_status_page(command: Command, night: None, rows: Rows) -> None:
    rows.request(name="<script>&\"'", label="<b>")
    code, out, err = command(pstamp_server_status, "--rundir", "/x", "--workdir", "/y", "--verbose", "--save-temps")
    assert (code, err) == (0, "")
    fragment = Fragment(out)
    assert fragment.cells[0] == "Postage stamp server at 2027-01-15 08:00:00 UTC"
    for text in ("<script>&\"'", "<b>", "galaxies", "host.2", "overdue", "Unfinished jobs", "250.0", "done",
                 "dependent 1: warp 11 cell: cleaned, must be made again"):  # fmt: skip
        assert text in fragment.cells
    assert "script" not in re.findall(r"<(\w+)", out)


# -- settings


def test_where_settings_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "pstamp.toml").write_text('# label = "no"\nlossy = true\n\nretry_ceiling=7\npassword_file = "secret"\n')
    (tmp_path / "secret").write_text("pass1\n")

    def config(*args: str) -> dict[str, tuple[str, str]]:
        monkeypatch.setattr(sys, "argv", ["pstamp", "config", *args])
        with pytest.raises(SystemExit) as caught:
            pstamp.main()
        out, err = capsys.readouterr()
        assert (caught.value.code or 0, err) == (0, "")
        assert "pass" not in out.replace("password_file", "")
        lines = [re.split(r"  +", line) for line in out.splitlines()[1:]]
        return {line[0]: (line[1] if len(line) == 3 else "", line[-1]) for line in lines}

    monkeypatch.delenv("PSTAMP_DB", raising=False)
    monkeypatch.delenv("PSTAMP_DB_PASSWORD", raising=False)
    found = config("--home", str(tmp_path))
    assert found["home"] == (str(tmp_path), "--home")
    assert found["database"] == ("pstamp.db", "default")
    assert found["label"] == ("LOCAL", "default")
    assert found["lossy"] == ("True", "pstamp.toml line 2")
    assert found["retry_ceiling"] == ("7", "pstamp.toml line 4")
    assert found["password_file"] == ("secret", "pstamp.toml line 5")
    monkeypatch.setenv("PSTAMP_HOME", str(tmp_path))
    monkeypatch.setenv("PSTAMP_DB", "mysql://u:pass2@host/name")
    found = config()
    assert found["home"] == (str(tmp_path), "PSTAMP_HOME")
    assert found["database"] == ("mysql://u:***@host/name", "PSTAMP_DB")
    monkeypatch.setenv("PSTAMP_DB_PASSWORD", "pass3")
    found = config("--dbname", "other", "--dbserver", "there")
    assert found["database"] == (
        "mysql://u:***@there/other", "PSTAMP_DB and --dbname and --dbserver and PSTAMP_DB_PASSWORD",
    )  # fmt: skip
