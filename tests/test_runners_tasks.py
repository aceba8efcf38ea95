"""The commands by which pantasks does the tasks, as it types them: what they print, how they end, what they leave."""

from __future__ import annotations

import getpass
import importlib
import logging
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mariadb
import pytest
from worlds import World

from pstamp_core.machines import DependentState, Event, JobState, RequestState
from pstamp_core.settings import load_settings
from pstamp_core.store import TABLES, Label, fire, make, moment, pstampDependent, pstampJob, pstampRequest
from pstamp_core.tasks import clean, finish, one, operate, report, retry
from pstamp_core.tasks.finish import finish_requests
from pstamp_core.tasks.jobs import run_jobs
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.server import Server, find
from pstamp_core.tasks.submit import submit

OFF = (
    "CENTER_X, CENTER_Y 30.0, 20.0: the whole stamp is off two.fits, whose 50 x 40 pixels do not hold x = -19425.3, "
    "y = 1193.0"
)
Result = tuple[int, str, str]
Command = Callable[..., Result]

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "pstamp_parser_run": ("--req_id", "request"),
    "pstamp_job_run": ("--job_id", "job"),
    "pstamp_checkdependent": ("--dep_id", "dependent"),
    "request_finish": ("--req_id", "request"),
    "pstamp_cleanup": ("--req_id", "request"),
}
"""The option and the machine of each command that works on one row."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, World]]:
    """A world on each engine; the clocks of its servers are real here, since those of commands are."""
    with mariadb.database(request.getfixturevalue("mysql_server")) as address:
        yield {
            "sqlite": World(tmp_path_factory.mktemp("sqlite")),
            "mysql": World(tmp_path_factory.mktemp("mysql"), address),
        }


@pytest.fixture
def world(worlds: dict[str, World], engine: str) -> World:
    """A world with a request that is submitted: number 1."""
    world = worlds[engine]
    world.begin()
    with serving(world) as server:
        submit(server, world.request)
    return world


@contextmanager
def serving(world: World) -> Iterator[Server]:
    server = Server(load_settings(world.home, world.address))
    try:
        yield server
    finally:
        server.store.db.close()


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], worlds: dict[str, World], engine: str
) -> Iterator[Command]:
    """Run a command in this process, for the server of `world`."""
    world = worlds[engine]
    monkeypatch.setenv("PSTAMP_HOME", str(world.home))
    monkeypatch.delenv("PSTAMP_DB", raising=False)
    if world.address:
        monkeypatch.setenv("PSTAMP_DB", world.address)

    def run(name: str, *args: object) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            importlib.import_module(f"runners.{name}").main()
        out, err = capfd.readouterr()
        return int(caught.value.code or 0), out, err

    yield run
    logging.disable(logging.NOTSET)
    logging.getLogger("pstamp").setLevel(logging.NOTSET)


def rows(world: World) -> dict[str, list[Any]]:
    """All rows of the server's database."""
    with serving(world) as server, server.store.reading():
        return {table.__name__: sorted(table.select().tuples(), key=repr) for table in TABLES}


def row(world: World, machine: str, number: int = 1) -> Any:
    with serving(world) as server, server.store.reading():
        return find(machine, number)


def log(world: World, name: str) -> str:
    """A log file, without times and names of workers."""
    (path,) = (world.home / "work").glob(f"**/{name}")
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "<time>", path.read_text())
    text = re.sub(r"\d+\.\d s\)", "<s>)", text).replace(str(world.folder), "")
    return re.sub(r"by \S+\.\d+\.[0-9a-f]{8}", "by <worker>", text)


# -- before each command


def parse(world: World) -> None:
    with serving(world) as server:
        parse_requests(server, 1)


def cut(world: World) -> None:
    """All is cut but the warp, which nobody wants any more."""
    parse(world)
    with serving(world) as server:
        while run_jobs(server, 100):
            pass
        operate.cancel(server, "job", 5, "ana")


def expire(world: World) -> None:
    cut(world)
    with serving(world) as server:
        finish_requests(server, 1)
        operate.expire(server, 1, "ana")


BEFORE: dict[str, Callable[[World], None]] = {
    "pstamp_parser_run": lambda _: None,
    "pstamp_job_run": parse,
    "pstamp_checkdependent": parse,
    "request_finish": cut,
    "pstamp_cleanup": expire,
}
WORK = {
    "pstamp_parser_run": one.PARSE,
    "pstamp_job_run": one.RUN,
    "pstamp_checkdependent": one.CHECK,
    "request_finish": one.FINISH,
    "pstamp_cleanup": one.CLEAN,
}
every_command = pytest.mark.parametrize("name", COMMANDS)


# -- what they are for


def test_a_request_from_its_file_to_its_end(world: World, command: Command) -> None:
    assert command("pstamp_parser_run", "--req_id", 1) == (0, "request 1: run\n", "")
    with serving(world) as server, server.store.reading():
        assert [(job.rownum, job.state.value, job.fault, job.dep_id) for job in pstampJob.select()] == [
            ("1", "run", 0, 0), ("2", "run", 0, 0), ("2", "run", 0, 0), ("3", "stop", 21, 0), ("4", "run", 0, 1),
            ("5", "run", 0, 0),
        ]  # fmt: skip
    assert command("pstamp_checkdependent", "--dep_id", 1) == (0, "dependent 1: new, cleaned, must be made again\n", "")
    world.set_warp("full")
    assert command("pstamp_checkdependent", "--dep_id", 1) == (0, "dependent 1: full\n", "")
    assert command("pstamp_job_run", "--job_id", 5) == (0, "job 5: stop\n", "")
    assert command("pstamp_job_run", "--job_id", 6) == (0, f"job 6: stop, fault 28, {OFF}\n", "")
    assert command("pstamp_job_run", "--limit", 2) == (0, "jobs taken: 2\n", "")
    code, out, err = command("request_finish", "--req_id", 1)
    assert (code, out) == (0, "")
    assert err == "pstamp: request 1: nothing to do, it is run (see: pstamp why request 1)\n"
    assert command("pstamp_job_run", "--limit", 100) == (0, "jobs taken: 1\n", "")
    assert command("request_finish", "--req_id", 1) == (0, "request 1: stop\n", "")
    with serving(world) as server:
        assert len(report.results(server, 1)) == 6
    assert command("pstamp_queue_cleanup", "--preserve-days", 1e-9) == (0, "requests to be cleaned: 1\n", "")
    assert command("pstamp_cleanup", "--req_id", 1) == (0, "request 1: cleaned\n", "")
    assert not (world.home / "datastore/pstamp_results/once_1").exists()
    assert [path.name for path in (world.home / "work").glob("**/*.log")] == ["checkdep.1.log"]


def test_without_a_number_they_take_what_waits(world: World, command: Command) -> None:
    assert command("pstamp_parser_run") == (0, "requests taken: 1\n", "")
    assert command("pstamp_parser_run", "--limit", 3) == (0, "requests taken: 0\n", "")
    assert command("pstamp_checkdependent", "--limit", 3) == (0, "dependents that changed: 0\n", "")
    world.set_warp("full")
    assert command("pstamp_checkdependent", "--limit", 3) == (0, "dependents that changed: 1\n", "")
    assert command("pstamp_job_run", "--limit", 4) == (0, "jobs taken: 4\n", "")  # of three images
    assert command("pstamp_job_run", "--limit", 4) == (0, "jobs taken: 1\n", "")
    assert command("request_finish", "--limit", 3) == (0, "requests taken: 1\n", "")
    assert row(world, "request").state is RequestState.STOP


def test_logs_tell_what_was_done(world: World, command: Command) -> None:
    for name in ("pstamp_parser_run", "pstamp_checkdependent"):
        command(name)
    world.set_warp("full")
    for name in ("pstamp_checkdependent", "pstamp_job_run", "request_finish"):
        command(name, "--limit", 100)
    assert log(world, "psparse.1.log") == (
        "<time> attempt 1: begins, by <worker>: parses /home/work/webreq/" + f"{moment_of(world)}/web_1.fits\n"
        "<time> attempt 1: run: once_1; jobs: 4 to cut, 1 waiting for their image, 1 answered with code 21 (<s>)\n"
    )
    assert log(world, "checkdep.1.log") == (
        "<time> attempt 1: waits: cleaned, must be made again\n<time> attempt 2: full: the image is there\n"
    )
    assert log(world, "1_1_r_one.log") == (
        "<time> attempt 1: begins, by <worker>: cuts from /images/one.fits[0], one of 2 jobs\n"
        "<time> attempt 1: stop: 1_1_r_one.fits (<s>)\n"
    )
    assert log(world, "5_1_r_two.log") == (
        "<time> attempt 1: begins, by <worker>: cuts from /images/two.fits[0], one of 2 jobs\n"
        f"<time> attempt 1: fault 28 (PSTAMP_NO_OVERLAP): {OFF}; this is final (<s>)\n"
    )
    assert log(world, "reqfinish.1.log") == (
        "<time> attempt 2: begins, by <worker>: publishes once_1\n"
        "<time> attempt 2: stop: fileset pstamp_results/once_1, files: 7; jobs: 4 done, 1 with code 21, "
        "1 with code 28 (<s>)\n"
    )


def moment_of(world: World) -> str:
    return f"{row(world, 'request').registered:%Y/%m/%d}"


# -- twice, and for nothing


@every_command
def test_what_another_works_on_is_left_alone(world: World, command: Command, name: str) -> None:
    BEFORE[name](world)
    option, machine = COMMANDS[name]
    with serving(world) as server:
        server.worker = "other.1.0"
        number = one.in_queue(server, WORK[name], 1)[0]
        (claimed,) = server.claim(WORK[name].queue, 1, number)
    before = rows(world)
    until = f"{moment(claimed.lease_until):%H:%M:%S} UTC"
    assert command(name, option, number) == (
        0, "", f"pstamp: {machine} {number}: nothing to do, other.1.0 works on it until {until}\n",
    )  # fmt: skip
    assert rows(world) == before


@every_command
def test_what_does_not_exist_is_said_so(world: World, command: Command, name: str) -> None:
    option, machine = COMMANDS[name]
    for number in (99, 2**63 - 1):
        assert command(name, option, number) == (5, "", f"pstamp: there is no {machine} {number}\n")


@every_command
@pytest.mark.parametrize("number", ["0", "-1", "x", "1 OR 1=1", "1.5", "", str(2**63), "9" * 50])
def test_what_is_no_number_is_refused(
    world: World, command: Command, name: str, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSTAMP_HOME", "/nowhere")  # nothing is asked of a server
    code, out, err = command(name, COMMANDS[name][0], number)
    assert (code != 0, out) == (True, "")
    assert COMMANDS[name][0] in err


def test_what_is_in_another_state_is_left_alone(world: World, command: Command) -> None:
    why = "(see: pstamp why request 1)"
    assert command("request_finish", "--req_id", 1)[2] == f"pstamp: request 1: nothing to do, it is new {why}\n"
    cut(world)
    before = rows(world)
    assert command("pstamp_parser_run", "--req_id", 1)[2] == f"pstamp: request 1: nothing to do, it is run {why}\n"
    assert command("pstamp_cleanup", "--req_id", 1)[2] == f"pstamp: request 1: nothing to do, it is run {why}\n"
    assert command("pstamp_job_run", "--job_id", 4)[2] == (
        "pstamp: job 4: nothing to do, it is stop, fault 21, web_1.fits, row 3: REQ_TYPE is 'byname'; "
        "expected byid, byexp, bydiff, bycoord or byskycell (see: pstamp why job 4)\n"
    )
    assert command("pstamp_checkdependent", "--dep_id", 1)[2] == (  # nobody waits for it
        "pstamp: dependent 1: nothing to do, it is new, cleaned, must be made again (see: pstamp why dependent 1)\n"
    )
    assert rows(world) == before


def test_what_waits_for_a_later_time_is_left_alone(world: World, command: Command) -> None:
    parse(world)
    with serving(world) as server, server.store.reading():
        server.store.work(lambda: pstampDependent.update(retry_at=server.store.now() + 10**9).execute())
        until = f"{moment(pstampDependent.get().retry_at):%Y-%m-%d %H:%M:%S} UTC"
    assert command("pstamp_checkdependent", "--dep_id", 1) == (
        0, "", "pstamp: dependent 1: nothing to do, it is new, cleaned, must be made again, "
        f"not before {until} (see: pstamp why dependent 1)\n",
    )  # fmt: skip


@every_command
def test_two_at_once_do_it_once(world: World, command: Command, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is started while the first is at work, having claimed."""
    BEFORE[name](world)
    option, machine = COMMANDS[name]
    with serving(world) as server:
        number = one.in_queue(server, WORK[name], 1)[0]
        (claimed,) = server.claim(WORK[name].queue, 1, number)
        assert command(name, option, number)[:2] == (0, "")
        with server.attempt(claimed):
            WORK[name].one(server, claimed)
        with server.store.reading():
            done = find(machine, number)
    assert (done.fault, done.attempt, done.lease_owner) == (0, claimed.attempt, "")
    assert done.state is not claimed.state or machine == "dependent"


# -- faults


def no_request_file(world: World) -> None:
    (upload,) = (world.home / "work/webreq").glob("*/*/*/web_1.fits")
    upload.unlink()


def no_folder(world: World) -> None:
    parse(world)
    shutil.rmtree(Path(row(world, "request").outdir))


def no_image_database(world: World) -> None:
    parse(world)
    (world.home / "images/gpc1.db").unlink()


def something_in_the_way(world: World) -> None:
    cut(world)
    (world.home / "datastore/pstamp_results/once_1").write_text("not a fileset")


def not_its_own_folder(world: World) -> None:
    expire(world)
    with serving(world) as server:
        server.store.work(lambda: pstampRequest.update(outdir=str(world.home / "work/2026")).execute())


FAULTY: dict[str, tuple[Callable[[World], None], int, int, str, str]] = {
    "pstamp_parser_run": (no_request_file, 0, 2, "new", "{work}/webreq/{day}/web_1.fits: no such file"),
    "pstamp_job_run": (
        no_folder, 2, 2, "run", "{work}/{day}/1/1_1_r_one.fits: can't be written: No such file or directory",
    ),
    "pstamp_checkdependent": (no_image_database, 2, 2, "new", "database {home}/images/gpc1.db: no such file"),
    "request_finish": (
        something_in_the_way, 2, 2, "run", "data store {home}/datastore: {home}/datastore/pstamp_results/once_1 is in "
        "the way and is no fileset: move it to another place",
    ),
    "pstamp_cleanup": (
        not_its_own_folder, 4, 4, "goto_cleaned",
        "request 1: outdir {work}/2026 is not its own; expected .../1",
    ),
}  # fmt: skip


@every_command
def test_a_fault_of_ours_is_on_the_row_and_in_the_exit_code(world: World, command: Command, name: str) -> None:
    prepare, code, fault, state, text = FAULTY[name]
    option, machine = COMMANDS[name]
    prepare(world)
    text = text.format(home=world.home, work=world.home / "work", day=moment_of(world))
    ended, out, err = command(name, option, 1)
    assert (ended, out, err) == (code, "", f"pstamp: {machine} 1: {state}, fault {fault}, {text}\n")
    found = row(world, machine)
    assert (found.state.value, found.fault, found.cause, found.fault_count) == (state, fault, fault, 1)
    ended, out, err = command(name, option, 1)
    assert (ended, out) == (0, "")
    assert err.startswith(f"pstamp: {machine} 1: nothing to do, it is {state}, fault {fault}, ")
    assert row(world, machine) == found


@every_command
def test_a_fault_among_several_is_on_the_row(world: World, command: Command, name: str) -> None:
    prepare, _, fault, *_ = FAULTY[name]
    prepare(world)
    code, out, err = command(name, "--limit", 1)
    assert (code, err) == (0, "")
    assert out == ("dependents that changed: 0\n" if "dependent" in name else f"{COMMANDS[name][1]}s taken: 1\n")
    assert row(world, COMMANDS[name][1]).fault == fault


@every_command
def test_a_database_that_is_not_there(world: World, command: Command, name: str, engine: str) -> None:
    nowhere = "nosuch" if engine == "mysql" else world.folder / "nosuch.db"
    code, out, err = command(name, "--dbname", nowhere)
    assert (code in (2, 3), out, err.count("\n")) == (True, "", 1)
    assert "nosuch" in err


# -- the options


@every_command
def test_redirected_output_prints_nothing(world: World, command: Command, name: str) -> None:
    BEFORE[name](world)
    option, _ = COMMANDS[name]
    assert command(name, option, 1, "--redirect-output", "--verbose") == (0, "", "")
    assert command(name, option, 1, "--redirect-output") == (0, "", "")
    assert command(name, "--redirect-output") == (0, "", "")


def test_redirected_output_still_says_what_no_log_can(world: World, command: Command) -> None:
    assert command("pstamp_parser_run", "--req_id", 99, "--redirect-output") == (
        5, "", "pstamp: there is no request 99\n",
    )  # fmt: skip


@every_command
def test_the_code_is_the_same_when_output_is_redirected(world: World, command: Command, name: str) -> None:
    prepare, code, *_ = FAULTY[name]
    prepare(world)
    assert command(name, COMMANDS[name][0], 1, "--redirect-output") == (code, "", "")


@every_command
def test_no_update_changes_nothing(world: World, command: Command, name: str) -> None:
    BEFORE[name](world)
    option, machine = COMMANDS[name]
    before, files = rows(world), world.files()
    with serving(world) as server:
        numbers = one.in_queue(server, WORK[name], 2)
    shown = ", ".join(map(str, numbers))
    assert command(name, "--no-update", "--limit", 2) == (0, f"would work on {machine} {shown}\n", "")
    assert command(name, "--no-update", option, numbers[0]) == (0, f"would work on {machine} {numbers[0]}\n", "")
    assert command(name, "--no-update", option, 99) == (0, f"would work on {machine} (none)\n", "")
    assert (rows(world), world.files()) == (before, files)


PANTASKS = {
    "pstamp_parser_run": "--uri /etc/passwd --product other --outdir /tmp/other --label BIG --need_magic",
    "pstamp_job_run": "--job_type mosaic --rownum 77 --output_base /tmp/other --options 2047",
    "pstamp_checkdependent": "--stage_id 12 --stage chip --component XY01 --imagedb other --rlabel x --label y "
                             "--need_magic --fault_count 7 --max_fault_count 1 --logfile /tmp/other.log",
    "request_finish": "--req_type dquery --req_file /etc/passwd --req_name other --product other --outdir /tmp/other",
    "pstamp_cleanup": "--uri /etc/passwd --product other --name other --outdir / --reqType dquery",
}  # fmt: skip


@every_command
def test_what_pantasks_passes_on_is_taken_from_the_row(world: World, command: Command, name: str) -> None:
    BEFORE[name](world)
    world.save(name)
    option, machine = COMMANDS[name]
    _, plain, _ = command(name, option, 1)
    expected = world.files(), row(world, machine)
    world.restore(name)
    code, out, err = command(name, option, 1, *PANTASKS[name].split(), "--redirect-output", "--verbose")
    assert (code, out, err) == (0, "", "")
    found = row(world, machine)
    times = {"changed_at": 0, "timestamp": 0, "lease_until": 0, "retry_at": 0}
    assert found.__data__ | times == expected[1].__data__ | times
    assert (world.files().keys(), plain) == (expected[0].keys(), f"{machine} 1: {plain.split(': ', 1)[1]}")
    assert not Path("/tmp/other").exists()  # noqa: S108 (must not be there)


def test_as_a_process_of_its_own(world: World, command: Command) -> None:
    """Entry points, log lines on standard error, and one line for what goes wrong."""
    del command  # it sets the environment

    def start(name: str, *args: str) -> Result:
        code = f"import sys; sys.argv[0] = {name!r}; from runners.{name} import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=ROOT)
        return done.returncode, done.stdout, done.stderr

    code, out, err = start("pstamp_parser_run", "--req_id", "1", "--verbose")
    assert (code, out) == (0, "request 1: run\n")
    assert [line.split(" ", 3)[2:] for line in err.splitlines()] == [
        ["INFO", f"request 1: {line.split('attempt 1: ')[1]}"]
        for line in next((world.home / "work").glob("**/psparse.1.log")).read_text().splitlines()
    ]
    assert start("pstamp_parser_run", "--req_id", "9") == (5, "", "pstamp: there is no request 9\n")
    shutil.rmtree(Path(row(world, "request").outdir))
    code, out, err = start("pstamp_job_run", "--job_id", "1")
    assert (code, out, err.count("\n")) == (2, "", 3)  # its log can't be written, which is a warning for each line
    assert "Traceback" not in err


@every_command
def test_every_command_has_an_entry_point_and_an_example(command: Command, world: World, name: str) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts[name] == f"runners.{name}:main"
    code, out, err = command(name, "--help")
    assert (code, err) == (0, "")
    assert f"Example: {name} {COMMANDS[name][0]}" in out


# -- clean-up after some time


def finished(world: World, *days: float, label: str | None = None) -> list[int]:
    """Requests that were finished so many days ago."""
    with serving(world) as server, server.store.reading():
        at = moment(server.store.now())
        numbers = []
        for age in days:
            then = server.store.now() - int(age * clean.DAY)
            values = {"uri": "x", "label": label, "name": f"old_{age}_{label}", "registered": at, "timestamp": at}

            def work(values: dict[str, Any] = values, then: int = then) -> int:
                args = replace(server.args(who="test"), now=then)
                request = make(pstampRequest, now=then, who="test", **values)
                for event in (Event.CANCEL, Event.CLAIM, Event.FINISH):
                    (request,) = fire([request], event, args)
                return int(request.req_id)

            numbers.append(server.store.work(work))
    return numbers


def test_only_what_was_kept_long_enough_is_queued(
    world: World, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean, "TOGETHER", 2)
    young = finished(world, 0, 13.9)
    old = finished(world, 14.1, 20, 400, 10_000, 14.2, label="OFF")
    with serving(world) as server, server.store.reading():
        # Neither a change of its label nor an inactive one prolongs it.
        server.store.work(lambda: Label.create(label="OFF", active=False))
    assert command("pstamp_queue_cleanup", "--preserve-days", 30) == (0, "requests to be cleaned: 2\n", "")
    assert command("pstamp_queue_cleanup") == (0, "requests to be cleaned: 3\n", "")
    assert command("pstamp_queue_cleanup") == (0, "requests to be cleaned: 0\n", "")
    states = {number: row(world, "request", number).state for number in (*young, *old)}
    assert states == dict.fromkeys(young, RequestState.STOP) | dict.fromkeys(old, RequestState.GOTO_CLEANED)
    with serving(world) as server:
        line = report.look_up(server, "request", old[0])[1][-1]
    assert (line.event, line.who, line.note) == ("expire", "queue cleanup", "kept for 14 days")


def test_how_long_they_are_kept(world: World, command: Command) -> None:
    finished(world, 400)
    assert command("pstamp_queue_cleanup", "--preserve-days", 0) == (0, "requests to be cleaned: 0\n", "")
    for wrong in ("-1", "nan", "inf"):
        assert command("pstamp_queue_cleanup", "--preserve-days", wrong) == (
            3, "", f"pstamp: preserve-days {wrong}: expected 0 (for ever) or more\n",
        )  # fmt: skip
    assert command("pstamp_queue_cleanup", "--preserve-days", 1e300) == (0, "requests to be cleaned: 0\n", "")
    (world.home / "pstamp.toml").write_text("preserve_days = 399")
    assert command("pstamp_queue_cleanup") == (0, "requests to be cleaned: 1\n", "")


# -- giving up, and trying again


def failed_three_times(world: World) -> None:
    """The jobs of request 1 that can run, and its dependent."""
    parse(world)
    with serving(world) as server, server.store.reading():
        for _ in range(3):
            for table in (pstampJob, pstampDependent):
                states = [JobState.RUN, DependentState.NEW]
                found = list(table.select().where(table.state.in_(states) & (table.fault_count < 3)))

                def work(found: list[Any] = found) -> None:
                    args = server.args(fault=2, operator=True)
                    found = fire([each for each in found if each.fault], Event.REVERT, args) or found
                    fire(fire(found, Event.CLAIM, args), Event.FAULT, args, note="for the test")

                server.store.work(work)


def test_what_failed_too_often_is_given_up(world: World, command: Command) -> None:
    failed_three_times(world)
    assert command("pstampstopfaulted", "-fault_count", 4) == (0, "given up: 0\n", "")
    assert command("pstampstopfaulted", "-fault_count", 3, "-label", "WEB%", "-label", "L_CA") == (
        0, "given up: 0\n", "",
    )  # fmt: skip
    assert command("pstampstopfaulted", "-fault_count", 3, "-label", "WEB", "-label", "lo%", "-limit", 32) == (
        0, "given up: 5\n", "",
    )  # fmt: skip
    with serving(world) as server, server.store.reading():
        jobs = [(job.state, job.fault, job.cause) for job in pstampJob.select()]
        assert jobs == [(JobState.STOP, *((21, 0) if number == 4 else (25, 2))) for number in range(1, 7)]
        dependent = pstampDependent.get()
        assert (dependent.state, dependent.fault, dependent.cause) == (DependentState.STOP, 25, 2)


def test_the_ceiling_of_the_settings_is_that_of_pstampstopfaulted(world: World, command: Command) -> None:
    failed_three_times(world)
    (world.home / "pstamp.toml").write_text("retry_ceiling = 4")
    assert command("pstampstopfaulted") == (0, "given up: 0\n", "")
    (world.home / "pstamp.toml").write_text("retry_ceiling = 3")
    assert command("pstampstopfaulted") == (0, "given up: 5\n", "")


def fail_after_publication(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results are published, and the request is still in run, with a fault."""
    cut(world)

    def broken(_: object) -> int:
        raise OSError(5, "Input/output error")

    with serving(world) as server, monkeypatch.context() as patch:
        patch.setattr(finish, "open_jobs", broken)
        finish_requests(server, 1)
    assert (row(world, "request").state, row(world, "request").fault) == (RequestState.RUN, 2)


def test_a_request_is_reverted_without_the_fileset_that_it_published(
    world: World, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_after_publication(world, monkeypatch)
    folder = world.home / "datastore/pstamp_results/once_1"
    assert folder.exists()
    assert command("pstamp_revert_request", "--req_id", 1) == (
        0, "request 1 is tried again; its fileset was taken back\n", "",
    )  # fmt: skip
    assert (row(world, "request").fault, folder.exists()) == (0, False)
    with serving(world) as server:
        line = report.look_up(server, "request", 1)[1][-1]
    assert (line.event, line.who, line.note) == ("revert", getpass.getuser(), "by hand")
    assert command("request_finish", "--req_id", 1) == (0, "request 1: stop\n", "")
    assert folder.exists()


def test_the_fileset_of_another_request_is_left_alone(world: World, command: Command) -> None:
    cut(world)
    with serving(world) as server:
        server.datastore.publish("pstamp_results", "once_1", "PSRESULTS", [], values=("77",))
    assert command("request_finish", "--req_id", 1)[0] == 4
    assert command("pstamp_revert_request", "--req_id", 1) == (
        0, "request 1 is tried again; it had no fileset\n", "",
    )  # fmt: skip
    with serving(world) as server:
        assert [entry.values[0] for entry in server.datastore.filesets("pstamp_results")] == ["77"]


@pytest.mark.parametrize("state", ["stop", "leased"])
def test_a_request_that_can_not_be_reverted_keeps_its_fileset(
    world: World, command: Command, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_after_publication(world, monkeypatch)
    with serving(world) as server:
        retry.revert_one(server, "request", 1, "ana")
        if state == "leased":
            server.claim(one.FINISH.queue, 1)
        else:
            finish_requests(server, 1)
    before = rows(world)
    code, out, err = command("pstamp_revert_request", "--req_id", 1)
    assert (code, out) == (5, "")
    assert err.startswith("pstamp: request 1: revert refused, ")
    assert rows(world) == before
    assert (world.home / "datastore/pstamp_results/once_1").exists()
