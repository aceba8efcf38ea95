"""Why something does not move: chains from a request to what blocks it, each with what helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import SECOND, Clock, Rows
from test_imagedb_updates import CELL, CLEANED, FULL, World

from pstamp_core.faults import UserError
from pstamp_core.imagedb import ImageDB, Key, claim
from pstamp_core.imagedb import tables as t
from pstamp_core.imagedb.updates import KINDS
from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import Store, moment, pstampDependent, pstampHistory, pstampProject
from pstamp_core.tasks import explain as tasks_explain
from pstamp_core.tasks.dependents import check_dependents, image_database
from pstamp_core.tasks.explain import Explanation, JobCount, explain
from pstamp_core.tasks.server import Server, verdict_on
from pstamp_core.testing import NOW


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    return Server(Settings(tmp_path), store)


def chain(found: Explanation) -> list[tuple[str, str, str]]:
    return [(link.what, link.state, link.reason) for link in found.links]


def make_warp(server: Server, run_state: str, data_state: str, **columns: Any) -> None:
    """Make an image database that holds warp 11, skycell cell."""
    db = ImageDB(str(server.settings.home / "gpc1.db"))
    db.create()
    made: list[tuple[Any, dict[str, Any]]] = [
        (t.rawExp, {"exp_id": 1, "exp_name": "o1", "camera": "GPC1", "filter": "r"}),
        (t.chipRun, {"chip_id": 11, "exp_id": 1, "state": "full"}),
        (t.chipProcessedImfile, {"chip_id": 11, "exp_id": 1, "class_id": "XY31", "data_state": "full"}),
        (t.camRun, {"cam_id": 11, "chip_id": 11, "state": "full"}),
        (t.camProcessedExp, {"cam_id": 11}),
        (t.fakeRun, {"fake_id": 11, "cam_id": 11}),
        (t.warpRun, {"warp_id": 11, "fake_id": 11, "state": run_state, "tess_id": "T"}),
        (t.warpSkyCellMap, {"warp_id": 11, "skycell_id": "cell", "tess_id": "T", "class_id": "XY31"}),
        (t.warpImfile, {"warp_skyfile_id": 1, "warp_id": 11, "skycell_id": "cell"}),
        (t.warpSkyfile, {"warp_id": 11, "skycell_id": "cell", "tess_id": "T", "data_state": data_state,
                         "path_base": "/none/warp", **columns}),
    ]  # fmt: skip
    with db.session():
        for table, values in made:
            table.insert(values).execute()
    pstampProject.create(name="gpc1", dbname="gpc1.db")


def warp(rows: Rows, **columns: Any) -> int:
    """Make a dependent for warp 11, skycell cell."""
    values = {"stage_id": 11, "component": "cell", "imagedb": "gpc1.db", "reason": "cleaned, must be made again"}
    return int(rows.dependent(**{**values, "changed_at": NOW, **columns}).dep_id)


STOP = "to wait no longer: pstamp stop dependent"


# -- a request


@pytest.mark.parametrize(
    ("state", "reason", "helps"),
    [
        (RequestState.STOP, "its results are published", "pstamp results 1 (shows them)"),
        (RequestState.CLEANED, "its files were deleted; its rows and history stay", "pstamp history request 1"),
        (RequestState.PARSED, "a preview, which waits for the user", "pstamp accept 1"),
        (RequestState.NEW, "to be parsed; number 1 of 1 in the queue", "pstamp run"),
        (RequestState.RUN, "to be finished: no job is open; number 1 of 1 in the queue", "pstamp run"),
        (RequestState.CANCEL, "to be finished: no job is open; number 1 of 1 in the queue", "pstamp run"),
        (RequestState.GOTO_CLEANED, "to be deleted from disk; number 1 of 1 in the queue", "pstamp run"),
    ],
)
def test_a_request_by_its_state(server: Server, rows: Rows, state: RequestState, reason: str, helps: str) -> None:
    request = rows.request(state, changed_at=NOW - 60 * SECOND)
    found = explain(server, "request", request.req_id)
    assert chain(found) == [(f"request 1 ({request.name})", state.value, reason)]
    assert (found.helps, found.at, found.links[0].since) == (helps, moment(NOW), moment(NOW - 60 * SECOND))


def test_the_place_in_the_queue_goes_by_priority(server: Server, rows: Rows) -> None:
    rows.label("slow", 5)
    slow = rows.request(RequestState.NEW, label="slow")
    for _ in range(2):
        rows.request(RequestState.NEW)
    assert explain(server, "request", slow.req_id).links[0].reason == "to be parsed; number 3 of 3 in the queue"


def test_an_inactive_label(server: Server, rows: Rows) -> None:
    rows.label("off", active=False)
    new, run = rows.request(RequestState.NEW, label="off"), rows.request(label="off")
    job = rows.job(run)
    label = ("label off", "inactive", "it hands out no work")
    found = explain(server, "request", new.req_id)
    assert [*chain(found)[1:], found.helps] == [label, "labeltool -updatelabel -label off -active"]
    found = explain(server, "job", job.job_id)
    assert chain(found)[1:] == [("job 1", "run", "waits for its label"), label]
    assert found.helps == "labeltool -updatelabel -label off -active"
    (blocked,) = explain(server, "request", run.req_id).blocked
    assert (blocked.jobs, blocked.helps) == (1, found.helps)


@pytest.mark.parametrize(
    ("state", "faults", "helps"),
    [
        (RequestState.NEW, 1, "mend the cause; to try again at once: pstamp revert request 1"),
        (
            RequestState.NEW, 3,
            "mend the cause and: pstamp revert request 1 (it has no tries left: the next pstamp run gives it up)",
        ),
        (
            RequestState.RUN, 3,
            "mend the cause and: pstamp revert request 1 (it has no tries left, and waits for this)",
        ),
    ],
)  # fmt: skip
def test_a_faulted_request(server: Server, rows: Rows, state: RequestState, faults: int, helps: str) -> None:
    request = rows.request(state, fault=2, fault_count=faults, attempt=faults, retry_at=NOW + 20 * SECOND)
    pstampHistory.create(machine="request", row_id=1, event="fault", source="new", dest="new", who="w", at=NOW,
                         note="no disk")  # fmt: skip
    job = rows.job(request) if state is RequestState.RUN else None
    found = explain(server, "request", 1)
    (link,) = found.links
    tries = "1 try" if faults == 1 else f"{faults} tries"
    assert link.reason == f"fault 2 after {tries}: A disk, network or system call failed. (no disk)"
    assert (link.tries, link.faults, link.next_try) == (faults, faults, moment(NOW + 20 * SECOND))
    assert (found.helps, found.blocked) == (helps, [])
    if job:  # it is its request that keeps it
        of_job = explain(server, "job", job.job_id)
        assert of_job.links[1].reason == "its request is run, fault 2"
        assert (of_job.links[2], of_job.helps) == (link, helps)


def test_a_request_with_jobs_in_all_conditions(server: Server, rows: Rows, clock: Clock) -> None:
    """Jobs that wait for one reason are one chain; that of the most jobs comes first."""
    make_warp(server, "cleaned", "cleaned")
    request = rows.request()
    dep_id = warp(rows)
    for _ in range(3):
        rows.job(request, dep_id=dep_id)
    for _ in range(2):
        rows.job(request, fault=2, fault_count=1, attempt=1, sentence="no disk")
    held = rows.job(request, lease_owner="host.1", lease_until=NOW + 60 * SECOND, attempt=1)
    late = rows.job(request, lease_owner="host.2", lease_until=NOW - 60 * SECOND, attempt=1)
    soon = rows.job(request, retry_at=NOW + 5 * SECOND)
    rows.job(request)
    rows.job(request, dep_id=rows.dependent(DependentState.FULL, reason="was cleaned").dep_id)
    rows.job(request, JobState.STOP)
    rows.job(request, JobState.STOP, fault=28)
    found = explain(server, "request", request.req_id)
    assert found.links[0].reason == "waits for 10 open jobs"
    assert found.counts == [
        JobCount("run", 0, "", 8),
        JobCount("run", 2, "A disk, network or system call failed.", 2),
        JobCount("stop", 0, "", 1),
        JobCount("stop", 28, "The position is not on the image.", 1),
    ]
    assert [chain.jobs for chain in found.blocked] == [3, 2, 2, 1, 1]
    assert (found.more, found.helps) == (1, "")
    waits, fails, ready, *singles = found.blocked
    assert [link.what for link in waits.links] == ["job 1", "dependent 1 (warp 11 cell)", "component warp 11 cell"]
    assert waits.helps == f"pstamp run (puts warp 11 cell into update); {STOP} {dep_id}"
    assert [link.reason for link in fails.links] == [
        "fault 2 after 1 try: A disk, network or system call failed. (no disk)"
    ]
    assert fails.helps == "mend the cause; to try again at once: pstamp revert job 4"
    assert ([link.reason for link in ready.links], ready.helps) == (
        ["ready: a worker takes it in its turn"],
        "pstamp run",
    )
    expected = {
        held.job_id: ("host.1 works on it, until 2027-01-15 08:01:00 or longer", "nothing: wait for it"),
        late.job_id: (
            "host.2 worked on it and was lost: its lease ran out at 2027-01-15 07:59:00",
            "pstamp run (counts it as lost, and tries again)",
        ),
        soon.job_id: ("looked at again later", "nothing: wait for it, or mend the cause and: pstamp run"),
    }
    for number, (reason, helps) in expected.items():
        one = explain(server, "job", number)
        assert (one.links[1].reason, one.helps) == (reason, helps)
    assert [chain.links[0].what for chain in singles] == [f"job {job.job_id}" for job in (held, late)]


# -- a job, a dependent, and the component


def test_a_job_that_has_ended(server: Server, rows: Rows) -> None:
    done, running = rows.request(RequestState.STOP), rows.request()
    no = rows.job(done, JobState.STOP, fault=28, sentence="row 1: beside it")
    yes = rows.job(running, JobState.STOP)
    found = explain(server, "job", no.job_id)
    assert (found.links[1].reason, found.helps) == ("28: row 1: beside it", "pstamp results 1 (shows them)")
    found = explain(server, "job", yes.job_id)
    assert found.links[1].reason == "The product was delivered."
    assert found.helps == "pstamp why request 2 (what the request waits for)"


GOES_ON = ["nothing: it is looked at again by itself", "pstamp run (looks at it, and goes on)"]


@pytest.mark.parametrize(
    ("states", "columns", "state", "helps"),
    [
        (("cleaned", "cleaned"), {}, "run cleaned, pixels cleaned",
         [f"nothing: warp 11 cell is put into update when the dependent is looked at again; {STOP} 1",
          f"pstamp run (puts warp 11 cell into update); {STOP} 1"]),
        (("update", "update"), {}, "run update, pixels update",
         [f"another update server makes warp 11 cell; {STOP} 1"] * 2),
        (("update", "wait"), {}, "run update, pixels wait",
         [f"an operator of the image database must look at warp 11 cell; {STOP} 1"] * 2),
        (("full", "full"), {}, "run full, pixels full", GOES_ON),
        (("purged", "purged"), {"fault": 26}, "run purged, pixels purged, fault 26", GOES_ON),
        (("cleaned", "cleaned"), {"quality": 8006}, "run cleaned, pixels cleaned, quality 8006", GOES_ON),
    ],
)  # fmt: skip
def test_the_component_as_it_is_now(
    server: Server, rows: Rows, states: tuple[str, str], columns: dict[str, Any], state: str, helps: list[str]
) -> None:
    """What helps, before the dependent is to be looked at again, and after."""
    make_warp(server, *states, **columns)
    job = rows.job(dep_id=warp(rows, retry_at=NOW + 5 * SECOND, attempt=7))
    found = explain(server, "job", job.job_id)
    image = server.imagedb_at("gpc1.db", "").component("warp", 11, "cell")
    assert image is not None
    reason, before = verdict_on(pstampProject.get(), image).reason, "cleaned, must be made again"
    assert chain(found)[1:] == [
        ("job 1", "run", "waits for an image: dependent 1"),
        ("dependent 1 (warp 11 cell)", "new", before if reason == before else f"at the last look: {before}"),
        ("component warp 11 cell", state, reason),
    ]
    assert (found.links[2].next_try, found.links[2].tries) == (moment(NOW + 5 * SECOND), 7)
    assert chain(explain(server, "dependent", 1))[1:] == chain(found)[2:]
    pstampDependent.update(retry_at=0).execute()
    assert [found.helps, explain(server, "job", job.job_id).helps] == helps


@pytest.mark.parametrize(
    ("state", "days", "ends"),
    [(DependentState.NEW, 7.0, 7 * 86400), (DependentState.NEW, 0.5, 43200), (DependentState.NEW, 0.0, None),
     (DependentState.HOLD, 7.0, None), (DependentState.FULL, 7.0, None)],
)  # fmt: skip
def test_when_a_wait_ends(server: Server, rows: Rows, state: DependentState, days: float, ends: int | None) -> None:
    """Whatever keeps it; on hold it is not looked at."""
    server.settings = replace(server.settings, longest_wait_days=days)
    dependent = rows.dependent(state, changed_at=NOW)
    assert explain(server, "dependent", dependent.dep_id).links[0].ends == (ends and moment(NOW + ends * SECOND))


@pytest.fixture
def images(server: Server, clock: Clock) -> Iterator[World]:
    """An image database of project gpc1, whose clock is the server's."""
    pstampProject.create(name="gpc1", dbname="gpc1.db", need_magic=True)
    db = ImageDB(str(server.settings.home / "gpc1.db"))
    db.create()
    with db.session():
        world = World(db)
        world.policy = image_database(server, "gpc1.db")[1]
        yield world


def wait(rows: Rows, key: Key, *requests: Any) -> Any:
    """Make a dependent, and a job for each of `requests` that waits for it."""
    stage, stage_id, component = key
    made = rows.dependent(stage=stage, stage_id=stage_id, component=component, imagedb="gpc1.db", changed_at=NOW)
    for request in requests:
        rows.job(request, dep_id=made.dep_id)
    return made


def pieces(found: Explanation) -> list[tuple[int, str, str, str]]:
    """What is said of images: depth, name, state, and who waits for it."""
    of_images = [link for link in found.links if link.what.split()[0] not in ("request", "job", "dependent")]
    return [
        (link.depth, link.what, link.state, f"{link.jobs}: {', '.join(map(str, link.requests))}") for link in of_images
    ]


def test_the_whole_chain_and_who_else_waits(server: Server, rows: Rows, images: World, clock: Clock) -> None:
    """§8 point 25 of update-processing.md: from the job to the chips; what is there is left out."""
    for number in (11, 21):
        images.chip(number, CLEANED, "XY31", "XY32", raw=5, magicked=-1)
        images.warp(number, CLEANED, "XY31", "XY32")
    images.set(("chip", 11, "XY32"), data_state="full", magicked=5)
    diff = images.diff(1, warp1=11, warp2=21)
    ana, otto, eva = rows.request(), rows.request(), rows.request()
    wait(rows, ("warp", 21, CELL), otto, eva)
    wait(rows, diff, ana, otto)
    wait(rows, ("chip", 99, "nowhere"))
    check_dependents(server, 10)
    clock.forward(60)
    images.now = clock.now
    images.process(lambda key: 2 if key == ("chip", 21, "XY32") else 0)
    clock.forward(3)
    found = explain(server, "job", 3)
    assert pieces(found) == [
        (0, f"component diff 1 {CELL}", "run cleaned, pixels cleaned", "2: 1, 2"),
        (1, f"warp 11 {CELL}", "run cleaned, pixels cleaned", "2: 1, 2"),
        (1, f"warp 21 {CELL}", "run cleaned, pixels cleaned", "4: 1, 2, 3"),
        (2, "chip 21 XY32", "run update, pixels update, fault 2", "4: 1, 2, 3"),
    ]
    chip = found.links[-1]
    assert chip.reason == (
        "a try to make it failed, with fault 2: A disk, network or system call failed; tried again after a while"
    )
    assert (chip.tries, chip.faults, chip.since) == (1, 1, moment(NOW))
    assert chip.next_try == moment(NOW + 70 * SECOND)
    assert found.helps == f"nothing: chip 21 XY32 is tried again by itself; {STOP} 2"
    assert pieces(explain(server, "dependent", 1)) == [
        (0, f"component warp 21 {CELL}", "run cleaned, pixels cleaned", "4: 1, 2, 3"),
        (1, "chip 21 XY32", "run update, pixels update, fault 2", "4: 1, 2, 3"),
    ]
    clock.forward(60)
    look_again(server, images)
    again = explain(server, "job", 3)
    assert (again.links[-1].state, again.links[-1].tries, again.links[-1].faults) == ("run update, pixels update", 2, 1)
    assert again.helps == f"another update server makes chip 21 XY32; {STOP} 2"
    server.settings = replace(server.settings, update_chip=("make",))
    assert explain(server, "job", 3).helps == f"pstamp run (makes chip 21 XY32); {STOP} 2"


def test_an_image_that_cools_down(server: Server, rows: Rows, images: World, clock: Clock) -> None:
    pstampProject.update(need_magic=False).execute()
    chip = images.chip(11)
    made = wait(rows, chip, rows.request())
    for _ in range(3):
        look_again(server, images)
        images.policy = image_database(server, "gpc1.db")[1]
        images.process(lambda _: 2)
        clock.forward(60)
    assert explain(server, "dependent", 1).helps == "pstamp run (looks at it, and goes on)"
    pstampDependent.update(retry_at=clock.now + 1).where(pstampDependent.dep_id == made.dep_id).execute()
    assert explain(server, "dependent", 1).helps == (
        "nothing: it is looked at again by itself; to end the cool-down: pstamp revert dependent 1"
    )


def test_who_makes_an_image(server: Server, rows: Rows, images: World, clock: Clock) -> None:
    """Since when, and until when; also one who was lost at it."""
    pstampProject.update(need_magic=False).execute()
    wait(rows, images.chip(11), rows.request())
    check_dependents(server, 10)
    images.policy = image_database(server, "gpc1.db")[1]
    assert explain(server, "dependent", 1).links[-1].reason == "being made again"
    clock.forward(30)
    assert claim(images.db, images.policy, 5, "host.1", clock.now, clock.now + 60 * SECOND, KINDS)
    held, end = "2027-01-15 08:00:30", "2027-01-15 08:01:30"
    clock.forward(60)
    found = explain(server, "dependent", 1)
    link = found.links[-1]
    assert found.helps == f"nothing: chip 11 XY31 is being made; {STOP} 1"
    assert (link.holder, link.reason) == (
        "host.1", f"being made again; host.1 works on it since {held}, until {end} at most"
    )  # fmt: skip
    clock.forward(1)
    found = explain(server, "dependent", 1)
    link = found.links[-1]
    assert found.helps == f"another update server makes chip 11 XY31; {STOP} 1"
    assert link.reason == (
        f"being made again; host.1 worked on it since {held} and was lost: its lease ran out at {end}"
    )


def look_again(server: Server, images: World) -> None:
    images.now = server.store.now()
    pstampDependent.update(retry_at=0).execute()
    check_dependents(server, 10)


def test_an_image_that_is_to_be_destreaked(server: Server, rows: Rows, images: World) -> None:
    chip = images.chip(11, FULL, magicked=-1)
    images.destreak(11)
    wait(rows, chip, rows.request())
    assert explain(server, "job", 1).helps == f"pstamp run (puts chip 11 XY31 up for destreaking); {STOP} 1"
    check_dependents(server, 10)
    found = explain(server, "job", 1)
    assert pieces(found) == [
        (0, "component chip 11 XY31", "run full, pixels full", "1: 1"),
        (1, "destreak 511 XY31", "run new, file update", "0: "),
    ]
    assert [link.reason for link in found.links[-2:]] == ["being destreaked", ""]
    assert (found.links[-1].tries, found.links[-1].since) == (1, moment(NOW))
    assert found.helps == f"another update server destreaks chip 11 XY31; {STOP} 1"
    server.settings = replace(server.settings, update_destreak=("it",))
    assert explain(server, "job", 1).helps == f"pstamp run (destreaks chip 11 XY31); {STOP} 1"
    images.process(destreak=lambda _: 4)
    found = explain(server, "job", 1)
    assert pieces(found)[1][:3] == (1, "destreak 511 XY31", "run new, file update, fault 4")
    assert found.helps == f"nothing: chip 11 XY31 is tried again by itself; {STOP} 1"
    images.set(chip, magicked=511)
    assert len(pieces(explain(server, "job", 1))) == 1


def test_an_input_that_is_missing(server: Server, rows: Rows, images: World) -> None:
    images.chip(11)
    warp = images.warp(11)
    t.camRun.delete().execute()
    wait(rows, warp, rows.request())
    found = explain(server, "job", 1)
    assert pieces(found)[-1] == (1, "camera 0", "missing", "1: 1")
    assert found.helps == "pstamp run (looks at it, and goes on)"


def test_one_look_for_all_chains_of_an_image_database(
    server: Server, rows: Rows, images: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, looks = rows.request(), []
    for number in (11, 12, 13):
        key = images.chip(number, ("wait", "cleaned"))
        pstampDependent.update(reason=str(number)).where(
            pstampDependent.dep_id == wait(rows, key, request).dep_id
        ).execute()
    of_all = tasks_explain.survey_of
    monkeypatch.setattr(tasks_explain, "survey_of", lambda *args: (looks.append(1), of_all(*args))[1])
    found = explain(server, "request", request.req_id)
    assert [chain.links[-1].what for chain in found.blocked] == [f"component chip {n} XY31" for n in (11, 12, 13)]
    assert looks == [1]


def test_a_dependent_that_changes_while_it_is_explained(server: Server, rows: Rows, images: World) -> None:
    """What is said of its image is not that it is nowhere."""
    why = tasks_explain._Why(server)
    keys = [images.chip(number, ("wait", "cleaned")) for number in (11, 12)]
    first = wait(rows, keys[0])
    assert why.component(first)[0][0].state == "run wait, pixels cleaned"
    second = wait(rows, keys[1])  # made since the first look
    pstampDependent.update(state=DependentState.FULL).execute()
    assert why.component(second)[0][0].state == "run wait, pixels cleaned"


def test_images_of_another_database_are_others(server: Server, rows: Rows, images: World) -> None:
    chip = images.chip(11)
    mine, other = wait(rows, chip, rows.request()), wait(rows, chip, rows.request())
    pstampDependent.update(imagedb="gpc2.db").where(pstampDependent.dep_id == other.dep_id).execute()
    assert pieces(explain(server, "dependent", mine.dep_id))[0][3] == "1: 1"


def test_an_image_database_that_can_not_be_asked(server: Server, rows: Rows) -> None:
    rows.job(dep_id=warp(rows))
    found = explain(server, "dependent", 1)
    path = server.settings.home / "gpc1.db"
    assert chain(found)[-1] == ("component warp 11 cell", "unknown", f"database {path}: no such file")
    assert found.helps == f"mend the image database; {STOP} 1"
    make_warp(server, "cleaned", "cleaned")
    rows.job(dep_id=warp(rows, component="other", open_key="other"))
    found = explain(server, "dependent", 2)
    assert chain(found)[-1][2] == "not in image database gpc1.db"
    assert found.helps == f"mend the image database; {STOP} 2"


def test_a_dependent_that_failed_or_is_looked_at(server: Server, rows: Rows) -> None:
    make_warp(server, "cleaned", "cleaned")
    warp(rows, fault=2, fault_count=1, attempt=1, reason="database gone", open_key="1")
    warp(rows, lease_owner="host.1", lease_until=NOW + SECOND, attempt=1, open_key="2")
    failed, held = (explain(server, "dependent", number) for number in (1, 2))
    assert failed.links[0].reason == "fault 2 after 1 try: A disk, network or system call failed. (database gone)"
    assert failed.helps == "mend the cause; to try again at once: pstamp revert dependent 1"
    assert (held.links[0].holder, held.helps) == ("host.1", "nothing: wait for it")
    assert failed.links[1] == held.links[1]
    assert failed.links[1].what == "component warp 11 cell"


@pytest.mark.parametrize(
    ("state", "columns", "reason", "helps"),
    [
        (DependentState.HOLD, {}, "held by an operator", "pstamp release 1"),
        (DependentState.FULL, {}, "its image is there", "pstamp run"),
        (DependentState.STOP, {"fault": 25, "reason": "no disk"}, "25: no disk",
         "nothing: the next request for the image starts anew"),
    ],
)  # fmt: skip
def test_a_dependent_by_its_state(
    server: Server, rows: Rows, state: DependentState, columns: dict[str, Any], reason: str, helps: str
) -> None:
    rows.dependent(state, **columns)
    found = explain(server, "dependent", 1)
    assert ([link.reason for link in found.links], found.helps) == ([reason], helps)


def test_a_dependent_of_which_nobody_who_waits_may_run(server: Server, rows: Rows) -> None:
    make_warp(server, "cleaned", "cleaned")
    dep_id = warp(rows)
    assert explain(server, "dependent", dep_id).helps == "nothing: no job waits for it"
    rows.label("off", active=False)
    rows.job(rows.request(label="off"), dep_id=dep_id)
    assert explain(server, "dependent", dep_id).helps == "labeltool -updatelabel -label off -active"
    rows.job(rows.request(), dep_id=dep_id)
    assert explain(server, "dependent", dep_id).helps == f"pstamp run (puts warp 11 cell into update); {STOP} 1"


def test_a_dependent_that_is_held_for_a_preview(server: Server, rows: Rows) -> None:
    dep_id = rows.dependent(DependentState.HOLD).dep_id
    for _ in range(2):
        rows.job(rows.request(RequestState.PARSED), JobState.PARSED, dep_id=dep_id)
    found = explain(server, "dependent", dep_id)
    assert (found.links[-1].reason, found.helps) == ("held for a preview", "pstamp accept 1")
    rows.job(rows.request(), dep_id=dep_id)
    found = explain(server, "dependent", dep_id)
    assert (found.links[-1].reason, found.helps) == ("held by an operator", "pstamp release 1")


def test_who_waits_for_a_dependent(server: Server, rows: Rows) -> None:
    make_warp(server, "cleaned", "cleaned")
    dep_id = warp(rows)
    first, second = rows.request(), rows.request()
    for request in (first, first, second):
        rows.job(request, dep_id=dep_id)
    rows.job(rows.request(), JobState.STOP, dep_id=dep_id)
    link = explain(server, "dependent", dep_id).links[0]
    assert link.what == f"request 1 ({first.name})"
    assert link.reason == "the first that waits: 3 open jobs of 2 requests"


@pytest.mark.parametrize(("machine", "said"), [("job", "there is no job 9"), ("jobs", "'jobs': expected one of")])
def test_what_is_not_there(server: Server, machine: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        explain(server, machine, 9)


def test_the_try_that_succeeded_counts_until_its_image_is_cleaned(
    server: Server, rows: Rows, images: World, clock: Clock
) -> None:
    chip = images.chip(11, magicked=-1)
    images.destreak(11)
    wait(rows, chip, rows.request())
    look_again(server, images)
    images.process(lambda _: 2)
    clock.forward(100)
    look_again(server, images)
    images.process()
    made, destreak = explain(server, "job", 1).links[-2:]
    assert (made.state, made.reason) == ("run full, pixels full", "has to be destreaked")
    assert (made.tries, made.faults, made.since) == (2, 1, None)
    look_again(server, images)
    images.process()
    images.set(chip, "cleaned", data_state="cleaned", magicked=-1)
    again, destreak = explain(server, "job", 1).links[-2:]
    assert again.state == "run cleaned, pixels cleaned"
    assert {(each.tries, each.faults, each.since) for each in (again, destreak)} == {(0, 0, None)}


def test_what_was_given_up_is_not_tried_again(server: Server, rows: Rows) -> None:
    rows.dependent(DependentState.STOP, fault=25, cause=2, retry_at=NOW + SECOND, reason="3 tries failed")
    (link,) = explain(server, "dependent", 1).links
    assert (link.reason, link.next_try) == ("25: 3 tries failed", None)
