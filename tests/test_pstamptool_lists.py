"""The modes of `pstamptool` that print rows, and its command line; on both engines."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import NOW, SECOND, Rows

from pstamp_core.database import connect
from pstamp_core.formats import read_rows
from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.store import (
    Store,
    dependents_to_check,
    jobs_to_run,
    moment,
    pstampAccessLevel,
    pstampJob,
    pstampProject,
    pstampRequest,
    pstampUser,
    pstampUserDomain,
    requests_to_clean,
    requests_to_finish,
    requests_to_parse,
)
from pstamp_core.store.tables import pstampDataStore, pstampFile
from pstamp_core.tasks.tool import lists
from runners import pstamptool

Result = tuple[int, str, str]
Tool = Callable[..., Result]

QUEUES: dict[str, Callable[[int], Any]] = {
    "pendingreq": requests_to_parse,
    "pendingjob": jobs_to_run,
    "pendingdependent": dependents_to_check,
    "completedreq": requests_to_finish,
    "pendingcleanup": requests_to_clean,
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Tool:
    """Run `pstamptool` with arguments in an empty folder; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    for name in ("PSTAMP_HOME", "PSTAMP_DB", "PSTAMP_DB_PASSWORD"):
        monkeypatch.delenv(name, raising=False)

    def tool(*args: object) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["pstamptool", *map(str, args)])
        code: Any = 0
        try:
            pstamptool.main()
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return int(code or 0), out, err

    return tool


@pytest.fixture
def tool(run: Tool, store: Store, address: str, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Run `pstamptool` on the store."""
    monkeypatch.setenv("PSTAMP_DB", address)
    return run


def ids(store: Store, mode: str, **options: Any) -> list[int]:
    """The numbers that a mode lists."""
    return [row[0] for row in getattr(lists, mode)(store, **options).rows]


def values(store: Store, mode: str, *names: str, **options: Any) -> list[tuple[Any, ...]]:
    """Some columns of what a mode lists."""
    rows = getattr(lists, mode)(store, **options)
    places = [[name for name, _ in rows.columns].index(name) for name in names]
    return [tuple(row[place] for place in places) for row in rows.rows]


# -- what is printed


def test_a_request_to_parse(tool: Tool, rows: Rows) -> None:
    request = rows.request(RequestState.NEW, name="demo", uri="/in/demo.fits")
    assert tool("-pendingreq") == (
        0,
        "pstampRequest MULTI\n"
        "\n"
        "pstampRequest  METADATA  \n"
        f"   req_id           S64       {request.req_id:<15}\n"
        "   ds_id            S64       0              \n"
        "   state            STR       new             \n"
        "   name             STR       demo            \n"
        "   reqType          STR       NULL            \n"
        "   label            STR       NULL            \n"
        "   outProduct       STR       NULL            \n"
        "   uri              STR       /in/demo.fits   \n"
        "   outdir           STR       NULL            \n"
        "   username         STR       NULL            \n"
        "   proj_id          S64       0              \n"
        "   registered       UTC       2027-01-15T08:00:00.000000\n"
        "   timestamp        UTC       2027-01-15T08:00:00.000000\n"
        "   fault            S16       0              \n"
        "   ds_outProduct    STR       NULL            \n"
        "   need_magic       S64       1              \n"
        "   priority         S64       10000          \n"
        "END\n"
        "\n",
        "",
    )


def test_a_job_to_run(tool: Tool, rows: Rows) -> None:
    rows.label("web", 70)
    request = rows.request(label="web")
    job = rows.job(request, rownum="3", jobType="stamp", exp_id=5, outputBase="/w/1 2", options=2053, fault_count=1)
    parent = rows.job(request, is_parent=True)
    assert tool("-pendingjob", "-simple", "-limit", 0) == (
        0,
        f"{job.job_id} {request.req_id} 3 run stamp 0 5 /w/1_2 2053 0 1 0 F 70 0 0\n"
        f"{parent.job_id} {request.req_id} 0 run none 0 0 NULL 0 0 0 0 T 70 9223372036854775807 9223372036854775807\n",
        "",
    )


def test_the_columns_of_each_record(store: Store) -> None:
    request = (
        "req_id S64,ds_id S64,state STR,name STR,reqType STR,label STR,outProduct STR,uri STR,outdir STR,username STR,"
        "proj_id S64,registered UTC,timestamp UTC,fault S16"
    )
    job = (
        "job_id S64,req_id S64,rownum STR,state STR,jobType STR,fault S16,exp_id S64,outputBase STR,options S64,"
        "dep_id S64,fault_count S32,parent_id S64,is_parent BOOL"
    )
    dependent = (
        "dep_id S64,state STR,stage STR,stage_id S64,component STR,imagedb STR,outdir STR,rlabel STR,need_magic BOOL,"
        "fault S16,fault_count S32"
    )
    project = "name STR,state STR,dbname STR,dvodb STR,camera STR,telescope STR,need_magic BOOL"
    expected = {
        "completedreq": ("pstampRequest", f"{request},priority S64"),
        "pendingcleanup": ("pstampRequest", f"{request},priority S64"),
        "listjob": ("pstampJob", f"{job},name STR,outProduct STR"),
        "pendingjob": ("pstampJob", f"{job},priority S64,myParent S64,runningChildren S64"),
        "pendingdependent": (
            "pstampDependent", f"{dependent},label STR,first_req_id S64,logfile STR,priority S64",
        ),
        "datastore": (
            "pstampDataStore",
            "ds_id S64,state STR,lastFileset STR,timestamp UTC,label STR,outProduct STR,uri STR,pollInterval S32,"
            "need_magic BOOL",
        ),
        "project": ("pstampProject", f"proj_id S64,{project}"),
        "listfile": ("pstampFile", "file_id S64,job_id S64,path STR,req_id S64"),
        "listdomain": ("pstampUserDomain", "domainName STR,accessLevel S32,defaultProduct STR,defaultLabel STR"),
        "listuser": (
            "pstampUser",
            "userName STR,domainName STR,accessLevel S32,domainAccessLevel S64,userProduct STR,userLabel STR,"
            "domainProduct STR,domainLabel STR",
        ),
        "listaccesslevel": ("pstampAccessLevel", f"proj_id S64,accessLevel S32,mjd_min F64,mjd_max F64,{project}"),
    }  # fmt: skip
    some = {"listjob": {"req_id": 1}, "listfile": {"req_id": 1}, "listuser": {"user": "x"}}
    for mode, (record, columns) in expected.items():
        found = getattr(lists, mode)(store, **some.get(mode, {}))
        assert (found.record, ",".join(f"{name} {kind}" for name, kind in found.columns)) == (record, columns)
        assert found.rows == []


def test_what_is_printed_is_read_back(tool: Tool, rows: Rows) -> None:
    first = rows.request(name="two words", username="a@b.org")
    rows.request(name=None, label="")
    code, out, _ = tool("-listreq", "-state", "run")
    assert code == 0
    (name, one), (_, two) = read_rows(out)
    assert name == "pstampRequest"
    assert (one["req_id"], one["name"], one["label"], one["registered"]) == (
        first.req_id, "two words", None, moment(NOW)
    )  # fmt: skip
    assert (two["name"], two["label"], two["proj_id"], two["username"]) == (None, None, 0, None)


def test_nothing_found(tool: Tool) -> None:
    for mode in [*QUEUES, "datastore", "project", "listdomain", "listaccesslevel"]:
        assert tool(f"-{mode}") == (0, "", "")
    for words in ("-listjob -req_id 7", "-listfile -job_id 7", "-listuser -user x", "-pendingjob -req_id 7"):
        assert tool(*words.split()) == (0, "", "")
    assert tool("-listreq", "-name", "nosuch") == (5, "", "pstamp: -listreq: there is no such request\n")


# -- queues


def test_the_tool_and_the_workers_never_disagree(store: Store, rows: Rows) -> None:
    """Rows of all kinds: what is listed is what could be claimed, in the same order, also the first few."""
    chance = random.Random(7)
    labels = [None, "unknown", *(f"l{n}" for n in range(4))]
    for n, priority in enumerate((5, 5, 20000, -3)):
        rows.label(f"l{n}", priority, active=n != 1)
    idle = {"fault": 0, "lease_owner": "", "lease_until": 0, "retry_at": 0}
    kinds = [idle, idle, idle, {**idle, "fault": 3}, {**idle, "lease_owner": "w", "lease_until": NOW + 1},
             {**idle, "retry_at": NOW + 1}, {**idle, "retry_at": NOW}]  # fmt: skip
    open_ = (DependentState.NEW, DependentState.NEW, DependentState.FULL, DependentState.HOLD)
    dependents = [rows.dependent(chance.choice(open_), **chance.choice(kinds)) for _ in range(25)]
    waits = [0, 0, *(each.dep_id for each in dependents)]
    for _ in range(100):
        state = chance.choice([*RequestState, RequestState.RUN, RequestState.RUN])
        at_work = state.value in ("new", "run", "cancel", "goto_cleaned")
        request = rows.request(state, label=chance.choice(labels), **(chance.choice(kinds) if at_work else idle))
        jobs: list[Any] = []
        for _ in range(chance.choice((0, 4, 8))):
            of = chance.choice((JobState.RUN, JobState.RUN, JobState.STOP))
            parent = chance.choice(jobs).job_id if jobs and chance.random() < 0.2 else 0
            jobs.append(
                rows.job(request, of, dep_id=chance.choice(waits), is_parent=chance.random() < 0.3, parent_id=parent,
                         **(chance.choice(kinds) if of is JobState.RUN else idle))
            )  # fmt: skip
    for mode, queue in QUEUES.items():
        expected = [row.id_ for row in queue(NOW)]
        assert len(expected) > 2
        assert ids(store, mode) == expected
        for limit in (1, 2, 3, len(expected), len(expected) + 1, 600):
            assert ids(store, mode, limit=limit) == expected[:limit]


def one_of(mode: str, rows: Rows, **columns: Any) -> int:
    """Make a row that a queue lists; returns its number."""
    label = columns.pop("label", None)
    if mode == "pendingjob":
        return rows.job(rows.request(label=label, **columns)).job_id
    if mode == "pendingdependent":
        dependent = rows.dependent()
        rows.job(rows.request(label=label, **columns), dep_id=dependent.dep_id)
        return dependent.dep_id
    states = {"pendingreq": RequestState.NEW, "completedreq": RequestState.RUN}
    return rows.request(states.get(mode, RequestState.GOTO_CLEANED), label=label, **columns).req_id


@pytest.mark.parametrize("mode", QUEUES)
def test_labels_of_queues(store: Store, rows: Rows, mode: str) -> None:
    rows.label("off", 99, active=False)
    rows.label("five", 5)
    rows.label("fifty", 50)
    off, five, fifty, none = (one_of(mode, rows, label=label) for label in ("off", "five", "fifty", None))
    drains = [(off, 99)] if mode == "completedreq" else []
    expected = [(none, 10000), *drains, (fifty, 50), (five, 5)]
    key = {"pendingjob": "job_id", "pendingdependent": "dep_id"}.get(mode, "req_id")
    assert values(store, mode, key, "priority") == expected
    assert ids(store, mode, label=["five", "fifty"]) == [fifty, five]
    assert ids(store, mode, label=["FIVE"]) == [five]
    assert ids(store, mode, label=["fi%"]) == ([] if mode == "pendingdependent" else [fifty, five])
    assert ids(store, mode, label=[""]) == [none]
    assert ids(store, mode, label=["nosuch"]) == []


@pytest.mark.parametrize("mode", ["pendingreq", "pendingjob", "pendingdependent", "pendingcleanup"])
def test_one_request_of_a_queue(store: Store, rows: Rows, mode: str) -> None:
    numbers = [one_of(mode, rows) for _ in range(3)]
    requests = [row.req_id for row in pstampRequest.select().order_by(pstampRequest.req_id)]
    assert ids(store, mode) == numbers
    assert ids(store, mode, req_id=requests[1]) == numbers[1:2]
    assert ids(store, mode, req_id=0) == []


def test_cleanup_by_data_store(store: Store, rows: Rows) -> None:
    """IPP took -ds_id, and ignored it."""
    one_of("pendingcleanup", rows)
    second = one_of("pendingcleanup", rows, ds_id=4)
    assert ids(store, "pendingcleanup", ds_id=4) == [second]


def test_one_job(store: Store, rows: Rows) -> None:
    jobs = [rows.job() for _ in range(3)]
    assert ids(store, "pendingjob", job_id=jobs[1].job_id) == [jobs[1].job_id]
    assert ids(store, "pendingjob", job_id=jobs[1].job_id, req_id=jobs[0].request_id) == []


def test_what_the_data_store_says(store: Store, rows: Rows) -> None:
    found = pstampDataStore.create(outProduct="results", need_magic=0)
    rows.request(RequestState.NEW, ds_id=found.ds_id)
    rows.request(RequestState.NEW, ds_id=99)
    assert values(store, "pendingreq", "ds_outProduct", "need_magic") == [("results", 0), (None, 1)]


# -- dependents


def test_a_shared_dependent_shows_the_most_urgent_request(store: Store, rows: Rows) -> None:
    rows.label("low", 5)
    rows.label("high", 50)
    rows.label("off", 99, active=False)
    shared, other = rows.dependent(outdir="/srv/7"), rows.dependent()
    low, high, off, high2 = (rows.request(label=label) for label in ("low", "high", "off", "high"))
    for request in (off, low, high2, high):
        rows.job(request, dep_id=shared.dep_id)
    rows.job(rows.request(RequestState.STOP), dep_id=shared.dep_id)
    rows.job(low, dep_id=other.dep_id)
    columns = ("dep_id", "label", "first_req_id", "logfile", "priority")
    row = (shared.dep_id, "high", low.req_id, f"/srv/7/checkdep.{shared.dep_id}.log", 50)
    assert values(store, "pendingdependent", *columns) == [row, (other.dep_id, "low", low.req_id, None, 5)]
    assert values(store, "pendingdependent", *columns, limit=1) == [row]
    assert values(store, "pendingdependent", "label", "first_req_id", req_id=high2.req_id) == [("high", high2.req_id)]


@pytest.mark.parametrize(
    ("option", "value"),
    [("stage", "diff"), ("stage", "DIFF"), ("imagedb", "gpc2"), ("rlabel", "ps_ud_x"), ("component", "XY01"),
     ("stage_id", 88)],
)  # fmt: skip
def test_a_dependent_by_a_column(store: Store, rows: Rows, option: str, value: Any) -> None:
    rows.job(dep_id=rows.dependent(rlabel="other").dep_id)
    columns = {"stage": "diff", "imagedb": "gpc2", "rlabel": "ps_ud_x", "component": "XY01", "stage_id": 88}
    wanted = rows.dependent(**columns)
    rows.job(dep_id=wanted.dep_id)
    assert ids(store, "pendingdependent", **{option: value}) == [wanted.dep_id]
    assert ids(store, "pendingdependent", **{option: value}, dep_id=wanted.dep_id - 1) == []


def test_a_dependent_by_its_job(store: Store, rows: Rows) -> None:
    dependents = [rows.dependent() for _ in range(2)]
    jobs = [rows.job(dep_id=each.dep_id) for each in dependents]
    assert ids(store, "pendingdependent", job_id=jobs[1].job_id) == [dependents[1].dep_id]
    assert ids(store, "pendingdependent", dep_id=dependents[0].dep_id) == [dependents[0].dep_id]


def test_faulted_dependents_are_listed_when_asked_for(store: Store, rows: Rows) -> None:
    kinds: list[dict[str, Any]] = [
        {}, {"fault": 2, "retry_at": NOW + SECOND}, {"retry_at": NOW + SECOND}, {"lease_owner": "w", "lease_until": 1}
    ]  # fmt: skip
    numbers = [rows.dependent(**kind).dep_id for kind in kinds]
    for number in numbers:
        rows.job(dep_id=number)
    assert ids(store, "pendingdependent") == numbers[:1]
    assert ids(store, "pendingdependent", includefaulted=True) == numbers[:2]


# -- look-ups


def test_requests_by_options(store: Store, rows: Rows) -> None:
    one = rows.request(name="Alpha_1", username="ana@obs.org", label="web")
    two = rows.request(RequestState.STOP, name="alphaX1", username="bob@obs.org")
    three = rows.request(RequestState.NEW, name="beta'; --", label="w%b")
    numbers = {each.req_id: name for name, each in (("one", one), ("two", two), ("three", three))}

    def found(**options: Any) -> list[str]:
        return [numbers[number] for number in ids(store, "listreq", **options)]

    assert found(req_id=two.req_id) == ["two"]
    assert found(not_req_id=two.req_id) == ["one", "three"]
    assert found(name="alpha_1") == ["one", "two"]
    assert found(name="alpha\\_1") == ["one"]
    assert found(name="%'; --") == ["three"]
    assert found(username="ANA@obs.org") == ["one"]
    assert found(state="stop") == ["two"]
    assert found(label="w%") == ["one", "three"]
    assert found(label="w\\%b") == ["three"]
    assert found(label="") == ["two"]
    assert found(not_req_id=one.req_id, name="alpha%") == ["two"]
    assert found(not_req_id=0, limit=2) == ["one", "two"]
    assert found(not_req_id=0, limit=0) == ["one", "two", "three"]


def test_an_equal_and_an_unequal_number_exclude_each_other(store: Store, rows: Rows) -> None:
    """IPP listed all of them."""
    request = rows.request()
    rows.request()
    with pytest.raises(lists.PstampError) as caught:
        ids(store, "listreq", req_id=request.req_id, not_req_id=request.req_id)
    assert (caught.value.fault, str(caught.value)) == (5, "-listreq: there is no such request")


def test_jobs_by_options(store: Store, rows: Rows) -> None:
    request = rows.request(name="demo", outProduct="results")
    dependent = rows.dependent()
    one = rows.job(request, JobState.STOP, fault=25, jobType="stamp")
    two = rows.job(request, dep_id=dependent.dep_id, jobType="none")
    three = rows.job()
    assert ids(store, "listjob", req_id=request.req_id) == [one.job_id, two.job_id]
    assert ids(store, "listjob", job_id=three.job_id) == [three.job_id]
    assert ids(store, "listjob", dep_id=dependent.dep_id) == [two.job_id]
    assert ids(store, "listjob", fault=0) == [two.job_id, three.job_id]
    assert ids(store, "listjob", fault=25, state="stop") == [one.job_id]
    assert ids(store, "listjob", state="RUN", limit=1) == [two.job_id]
    assert ids(store, "listjob", jobType="Stamp") == [one.job_id]
    assert values(store, "listjob", "name", "outProduct", job_id=one.job_id) == [("demo", "results")]


def test_data_stores(store: Store) -> None:
    now = moment(NOW)
    kinds = {
        "never": None, "just now": now, "on time": now - timedelta(seconds=60), "late": now - timedelta(seconds=61),
        "almost": now - timedelta(seconds=60.999),
    }  # fmt: skip
    numbers = {name: pstampDataStore.create(timestamp=at, pollInterval=60).ds_id for name, at in kinds.items()}
    off = pstampDataStore.create(state="disabled", need_magic=1).ds_id
    assert ids(store, "datastore") == list(numbers.values())
    assert ids(store, "datastore", all=True) == [*numbers.values(), off]
    assert ids(store, "datastore", ready=True) == [numbers["never"], numbers["late"]]
    assert ids(store, "datastore", ds_id=off) == []
    assert values(store, "datastore", "ds_id", "state", "need_magic", ds_id=off, all=True) == [(off, "disabled", 1)]


def test_projects(tool: Tool) -> None:
    pstampProject.create(name="gpc1", dbname="mysql://db/gpc1", camera="GPC1", need_magic=True)
    pstampProject.create(name="gpc2", dbname="x", state="disabled", telescope="PS2")
    assert tool("-project", "-simple")[1] == (
        "1 gpc1 enabled mysql://db/gpc1 NULL GPC1 NULL T\n2 gpc2 disabled x NULL NULL PS2 F\n"
    )
    assert tool("-project", "-name", "GPC2", "-simple")[1] == "2 gpc2 disabled x NULL NULL PS2 F\n"


def test_files(store: Store, rows: Rows) -> None:
    jobs = [rows.job(), rows.job()]
    files = [pstampFile.create(job_id=job.job_id, path=f"/f/{n}").file_id for n, job in enumerate((*jobs, jobs[0]))]
    pstampFile.create(job_id=99, path="/of no job")
    assert ids(store, "listfile", req_id=jobs[0].request_id) == [files[0], files[2]]
    assert ids(store, "listfile", job_id=jobs[1].job_id) == [files[1]]
    assert lists.listfile(store, file_id=files[1]).rows == [(files[1], jobs[1].job_id, "/f/1", jobs[1].request_id)]


def test_domains_users_and_levels(store: Store) -> None:
    pstampUserDomain.create(domainName="obs.org", accessLevel=2, defaultProduct="p", defaultLabel="l")
    pstampUserDomain.create(domainName="b.org", accessLevel=3)
    pstampUser.create(userName="zoe", domainName="obs.org", accessLevel=5, defaultLabel="mine")
    pstampUser.create(userName="ana", domainName="new.org")
    for name in ("gpc1", "gpc2"):
        project = pstampProject.create(name=name, dbname="x")
        for level in (2, 1):
            pstampAccessLevel.create(proj_id=project.proj_id, accessLevel=level, mjd_min=55000.12345, mjd_max=-1)
    assert lists.listdomain(store).rows == [("b.org", 3, None, None), ("obs.org", 2, "p", "l")]
    assert ids(store, "listdomain", accessLevel=3) == ids(store, "listdomain", domain="B.org") == ["b.org"]
    zoe = ("zoe", "obs.org", 5, 2, None, "mine", "p", "l")
    ana = ("ana", "new.org", 0, 0, None, None, None, None)
    assert lists.listuser(store, domain="obs.org").rows == [zoe]
    assert lists.listuser(store, user="ANA").rows == lists.listuser(store, accessLevel=0).rows == [ana]
    row = (2, 1, 55000.12345, -1.0, "gpc2", "enabled", "x", None, None, None, False)
    assert lists.listaccesslevel(store, project_name="gpc2", accessLevel=1).rows == [row]
    assert values(store, "listaccesslevel", "proj_id", "accessLevel") == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert values(store, "listaccesslevel", "proj_id", "accessLevel", proj_id=2, limit=1) == [(2, 1)]


@pytest.mark.parametrize("text", ["'; DROP TABLE pstampJob; --", '"', "%", "\\", "a;b", "%s", "{}", "Ł'"])
def test_any_text_is_only_a_text(tool: Tool, rows: Rows, text: str) -> None:
    request = rows.request(RequestState.NEW, name="plain", label=text, username=text)
    rows.request(RequestState.NEW, name="other", label="other")
    for words in (("-listreq", "-username", text), ("-pendingreq", "-label", text.replace("\\", "\\\\"))):
        code, out, err = tool(*words)
        assert (code, err) == (0, "")
        assert [values["req_id"] for _, values in read_rows(out)][:1] == [request.req_id]
    assert tool("-listjob", "-jobType", text) == (0, "", "")
    assert pstampJob.select().count() == 0
    assert pstampRequest.select().count() == 2


# -- the command line


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 3, "no mode; pstamptool -help lists the modes"),
        (["-req_id", "3"], 3, "no mode; pstamptool -help lists the modes"),
        (["-listreq", "-listjob"], 3, "two modes, -listreq and -listjob; expected one; pstamptool -help lists the "
         "modes"),
        (["listreq"], 3, "no mode; pstamptool -help lists the modes"),
        (["--listreq"], 3, "no mode; pstamptool -help lists the modes"),
        (["-project", "-nam", "x"], 3, "-project: '-nam' is no option of it; its options are -name -simple"),
        (["-project", "-req_id", "3"], 3, "-project: '-req_id' is no option of it; its options are -name -simple"),
        (["-project", "gpc1"], 3, "-project: 'gpc1' is no option of it; its options are -name -simple"),
        (["-getwebrequestnum", "x"], 3, "-getwebrequestnum: 'x' is no option of it; its options are none"),
        (["-project", "-name"], 3, "-name needs a value: a text"),
        (["-project", "-name", "-simple"], 3, "-name needs a value: a text"),
        (["-req_id", "-listreq"], 3, "-req_id needs a value: an integer from 0"),
        (["-listreq", "-req_id", "seven"], 3, "-listreq: -req_id 'seven': expected an integer from 0"),
        (["-listreq", "-req_id", "7.0"], 3, "-listreq: -req_id '7.0': expected an integer from 0"),
        (["-listreq", "-req_id", "-7"], 3, "-listreq: -req_id '-7': expected an integer from 0"),
        (["-listreq", "-req_id", ""], 3, "-listreq: -req_id '': expected an integer from 0"),
        (["-listreq", "-req_id", "1_0"], 3, "-listreq: -req_id '1_0': expected an integer from 0"),
        (["-listreq", "-req_id", "\u0663"], 3, "-listreq: -req_id '\u0663': expected an integer from 0"),
        (["-listreq", "-req_id", "9" * 19], 3, f"-listreq: -req_id '{'9' * 19}': expected an integer from 0"),
        (["-listjob", "-fault", "-1"], 3, "-listjob: -fault '-1': expected an integer from 0 to 32767"),
        (["-listjob", "-fault", "32768"], 3, "-listjob: -fault '32768': expected an integer from 0 to 32767"),
        (["-listreq", "-limit", "-1", "-req_id", "1"], 3, "-listreq: -limit '-1': expected an integer from 0"),
        (["-listreq", "-req_id", "1", "-req_id", "2"], 3, "-listreq: -req_id is given twice"),
        (["-listreq", "-label", "a", "-label", "b"], 3, "-listreq: -label is given twice"),
        (["-listreq", "-name", "\udcff"], 3, "-listreq: -name '\\udcff': expected a text"),
        (["-updatereq", "-timestamp_end", "2020-13-01"], 3, "-updatereq: -timestamp_end '2020-13-01': expected a time "
         "in UTC, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss"),
        (["-updatereq", "-timestamp_end", "now"], 3, "-updatereq: -timestamp_end 'now': expected a time in UTC, "
         "YYYY-MM-DD or YYYY-MM-DDThh:mm:ss"),
        (["-addaccesslevel", "-set_mjd_min", "nan"], 3, "-addaccesslevel: -set_mjd_min 'nan': expected a number"),
        (["-addaccesslevel", "-set_mjd_min", "1e999"], 3, "-addaccesslevel: -set_mjd_min '1e999': expected a number"),
        (["-addreq"], 3, "-addreq: -uri is missing"),
        (["-addjob", "-rownum", "1"], 1, "-addjob: -req_id is missing"),
        (["-adddomain", "-set_domain", "x"], 1, "-adddomain: -set_accessLevel is missing"),
        (["-pendingreq"], 3, "no server in pstamp-home (pstamp.toml is missing); make one with: pstamp init --home "
         "pstamp-home"),
        (["-pendingreq", "-dbname", "no.db"], 3, "database {cwd}/pstamp-home/no.db: no such file; is it the right one? "
         "-dbname, -dbserver, PSTAMP_DB or the home (-home, PSTAMP_HOME) names another"),
        (["-pendingreq", "-dbserver", "localhost"], 3, "no server in pstamp-home (pstamp.toml is missing); make one "
         "with: pstamp init --home pstamp-home"),
        (["-pendingreq", "-dbport", "0"], 3, "-pendingreq: -dbport '0': expected an integer from 1 to 65535"),
    ],
)  # fmt: skip
def test_a_wrong_command_line(run: Tool, tmp_path: Path, words: list[str], code: int, message: str) -> None:
    assert run(*words) == (code, "", f"pstamp: {message.replace('{cwd}', str(tmp_path))}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-listreq -limit 3", "-listreq: nothing says which; give one of -req_id, -not_req_id, -name, -username, "
         "-state, -label"),
        ("-listjob -simple", "-listjob: nothing says which; give one of -job_id, -req_id, -dep_id, -fault, -jobType, "
         "-state"),
        ("-listfile", "-listfile: nothing says which; give one of -file_id, -job_id, -req_id"),
        ("-listuser", "-listuser: nothing says which; give one of -user, -domain, -accessLevel"),
    ],
)  # fmt: skip
def test_a_look_up_of_nothing(tool: Tool, words: str, message: str) -> None:
    assert tool(*words.split()) == (1, "", f"pstamp: {message}\n")


def test_an_unknown_state(tool: Tool) -> None:
    assert tool("-listjob", "-state", "full") == (
        3, "", "pstamp: -state full: expected one of parsed, run, stop, cancel\n"
    )  # fmt: skip


def test_options_in_any_order(tool: Tool, rows: Rows) -> None:
    for label in ("a", "b", "c"):
        rows.request(RequestState.NEW, label=label)
    code, out, err = tool("-label", "b", "-simple", "-label", "c", "-pendingreq", "-limit", "1")
    assert (code, out.split()[5], len(out.splitlines()), err) == (0, "b", 1, "")


def test_help(run: Tool) -> None:
    code, out, _ = run("-help")
    assert code == 0
    for mode, (what, _) in pstamptool.MODES.items():
        assert f"  -{mode:<19} {what}\n" in out
    assert len(pstamptool.MODES) == 36
    assert run("-pendingjob", "--help") == (
        0,
        "usage: pstamptool -pendingjob [-OPTION VALUE ...]\n\n"
        "list the jobs to run\n\n"
        "  -job_id              an integer from 0\n"
        "  -req_id              an integer from 0\n"
        "  -label               a text, repeatable\n"
        "  -limit               an integer from 0, default 0\n"
        "  -simple\n",
        "",
    )
    assert "  -uri                 a text, required\n" in run("-help", "-addreq")[1]
    assert "  -limit               an integer from 0, no effect\n" in run("-revertjob", "-help")[1]


def test_what_a_mode_gets() -> None:
    """Options that were given, whatever their value, and defaults; a list, a time, a flag by their types."""
    read = pstamptool.PSTAMPTOOL.read
    assert read(["-listjob", "-fault", "0"]) == ("listjob", {"fault": 0, "limit": 0}, {})
    assert read(["-updatejob", "-req_id", "+3", "-set_fault", "0", "-limit", "9"])[1] == {"req_id": 3, "set_fault": 0}
    assert read(["-addreq", "-uri", "-x"])[1] == {"uri": "-x", "ds_id": 0, "proj_id": 0}
    _, options, common = read(
        ["-updatereq", "-label", "a", "-label", "b", "-clearfault", "-timestamp_end", "2020-02-03 04:05:06.5",
         "-dbname", "d", "-dbport", "3307", "-timestamp_begin", "2020-02-03"]
    )  # fmt: skip
    assert common == {"dbname": "d", "dbport": 3307}
    assert options.pop("timestamp_end").isoformat() == "2020-02-03T04:05:06.500000+00:00"
    assert options.pop("timestamp_begin").isoformat() == "2020-02-03T00:00:00+00:00"
    assert options == {"label": ["a", "b"], "clearfault": True}
    assert read(["-addaccesslevel", "-set_accessLevel", "-2", "-set_mjd_max", "5.5e4"])[1] == {
        "set_accessLevel": -2, "set_mjd_min": 0.0, "set_mjd_max": 55000.0
    }  # fmt: skip


# -- the database, and what the output goes to


@pytest.fixture
def bare(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database without tables."""
    if engine == "sqlite":
        (tmp_path / "bare.db").touch()
        yield str(tmp_path / "bare.db")
        return
    import mariadb

    with mariadb.database(request.getfixturevalue("mysql_server")) as address:
        yield address


def test_a_database_without_our_tables(run: Tool, bare: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSTAMP_DB", bare)
    code, out, err = run("-pendingreq")
    host, _, name = bare.rpartition("/")
    asked = bare if engine == "sqlite" else f"{name} on {host.partition('@')[2].partition(':')[0]}"
    assert (code, out, err) == (
        3,
        "",
        f"pstamp: database {asked}: the tables of pstamp are not there; make them with: pstamp init; is it the right "
        "one? -dbname, -dbserver, PSTAMP_DB or the home (-home, PSTAMP_HOME) names another\n",
    )


def test_a_database_by_its_parts(run: Tool, mysql_server: str, mysql_store: str) -> None:
    login, _, port = mysql_server.strip("/").rpartition(":")
    user, _, host = login.rpartition("/")[2].partition("@")
    where = ("-dbserver", host, "-dbport", port, "-dbuser", user)
    name = mysql_store.rpartition("/")[2]
    assert run("-project", "-name", "x", *where, "-dbname", name) == (0, "", "")
    code, out, err = run("-project", *where, "-dbname", "nosuch", "-dbpassword", "")
    assert (code, out) == (3, "")
    warning, message = err.splitlines()
    assert warning == (
        "pstamptool: everybody on this machine can read a password given as -dbpassword; use PSTAMP_DB_PASSWORD, or "
        "the setting password_file"
    )
    assert message == (
        f"pstamp: database nosuch on {host}: Unknown database 'nosuch'; is it the right one? -dbname, -dbserver, "
        "PSTAMP_DB or the home (-home, PSTAMP_HOME) names another"
    )


@pytest.mark.parametrize("engine", ["mysql"])
def test_a_database_that_goes_away(tool: Tool, rows: Rows, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    conditions = lists.conditions

    def cut_off(*args: Any) -> Any:
        db: Any = pstampRequest._meta.database
        other: Any = connect(address)
        with other:
            other.execute_sql("KILL %s", (db.connection().thread_id(),))
        return conditions(*args)

    monkeypatch.setattr(lists, "conditions", cut_off)
    code, out, err = tool("-project")
    assert (code, out) == (2, "")
    assert err.startswith("pstamp: database pstamp_test_")
    assert len(err.splitlines()) == 1


def test_output_that_nobody_reads(tmp_path: Path) -> None:
    code = "import runners.pstamptool as p, sys; sys.argv[1:] = ['-help']; p.main()"
    program = [sys.executable, "-c", code]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (2, "")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "pstamp: No space left on device\n")


def test_a_list_loads_the_store_alone(tmp_path: Path) -> None:
    Store(str(tmp_path / "x.db")).create()
    code = (
        "import sys, runners.pstamptool as p\n"
        "sys.argv[1:] = ['-pendingjob']\n"
        "p.main()\n"
        "unneeded = ('typer', 'rich', 'transitions', 'astropy', 'numpy', 'pstamp_core.formats', 'pstamp_core.stamps',\n"
        "            'pstamp_core.imagedb', 'pstamp_core.datastore', 'pstamp_core.tasks.server')\n"
        "print(sorted(set(unneeded) & set(sys.modules)))"
    )
    environment = {**os.environ, "PSTAMP_DB": str(tmp_path / "x.db")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout, done.stderr) == ("[]\n", "")
