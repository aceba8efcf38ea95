"""The model of a job: spin finds nothing wrong in it, and finds what is wrong in each broken variant; the store does
what the model does.
"""

from __future__ import annotations

import pkgutil
import re
import runpy
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Clock, Rows, check_history

from pstamp_core.faults import IllegalTransition, LeaseLost, PstampError, Stale
from pstamp_core.machines import JOB, Event, JobState, Machine
from pstamp_core.machines.machine import FaultClass, Guard
from pstamp_core.store import Store, fire, make, pstampJob

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"
README = (MODELS / "README.md").read_text("utf-8")
SMALL = ("DEATHS=0", "RELEASES=0")
NAME = re.compile(r"`(\w+)`")
BROKEN = {
    tuple(defines.split()): set(NAME.findall(wrong))
    for defines, wrong in re.findall(r"^\| `([A-Z_ ]+)` \|.*\|(.*)\|$", README, re.MULTILINE)
}
NEVER = set(re.findall(r"^\| `(\w+)` \|", README.split("## What must never be")[1].split("##")[0], re.MULTILINE))
EXHAUSTIVE = ("-O1", "-DSAFETY", "-DNOCLAIM", "-m100000")
EXHAUSTIVE_ENDS = ("-O1", "-a", "-m100000")
ALL_ERRORS = ("-O0", "-DSAFETY", "-DNOCLAIM", "-m100", "-c0")
CEILING = 2
RUNS = 100
FAULTS = {"F_NONE": 0, "F_RETRYABLE": 2, "F_FINAL": 25}


def run(*command: str, folder: Path) -> str:
    """Run one of the programs that a check of the model needs; return what it says."""
    if not shutil.which(command[0]) and not command[0].startswith("./"):
        pytest.fail(
            f"{command[0]} is missing: the model is checked by spin and gcc: apt-get install spin gcc libc6-dev"
        )
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr}"
    return done.stdout


def check(folder: Path, *defines: str, search: tuple[str, ...], model: Path = MODELS) -> tuple[set[str], int]:
    """Return what spin finds wrong in the model, and how many states it went through.

    The `search` holds options for the compiler, which begin with ``-O`` and ``-D``, and for the checker.
    """
    how = [option for option in search if option.startswith(("-O", "-D"))]
    run("spin", "-a", *(f"-D{each}" for each in defines), str(model / "job.pml"), folder=folder)
    run("gcc", *how, "-o", "pan", "pan.c", folder=folder)
    said = run("./pan", *(option for option in search if option not in how), folder=folder)
    wrong = set(re.findall(r"^pan:\d+: (.*) \(at depth", said, re.MULTILINE))
    wrong = {
        re.sub(r"assertion violated +!\((\w+)\)", r"\1", each).replace("acceptance cycle", "ends") for each in wrong
    }
    (errors,), (states,) = re.findall(r"errors: (\d+)", said), re.findall(r"(\d+) states, stored", said)
    assert bool(wrong) == (errors != "0"), said
    return wrong, int(states)


def test_nothing_goes_wrong_in_the_model(tmp_path: Path) -> None:
    wrong, states = check(tmp_path, search=EXHAUSTIVE)
    assert wrong == set()
    assert states > 500_000


def test_every_job_of_the_model_comes_to_its_end(tmp_path: Path) -> None:
    wrong, states = check(tmp_path, "RELEASES=0", search=EXHAUSTIVE_ENDS)
    assert wrong == set()
    assert states > 200_000


@pytest.mark.parametrize("defines", BROKEN, ids=" ".join)
def test_a_broken_model_goes_wrong_as_it_must(tmp_path: Path, defines: tuple[str, ...]) -> None:
    ends = BROKEN[defines] == {"ends"}
    size, search = ((), EXHAUSTIVE_ENDS) if ends else (SMALL, ALL_ERRORS)
    assert check(tmp_path, *defines, *size, search=search)[0] == BROKEN[defines]


def test_all_that_must_never_be_is_seen_in_a_broken_model() -> None:
    text = (MODELS / "job.pml").read_text("utf-8")
    asserted = set(re.findall(r"NEVER\((\w+), ", text)) - {"what"}
    assert asserted | set(re.findall(r"^ltl (\w+)", text, re.MULTILINE)) == NEVER
    assert set().union(*BROKEN.values()) == NEVER
    switches = set(re.findall(r"#ifn?def (\w+)", text)) - {"CEILING", "RELEASES", "DEATHS"}
    assert {each for defines in BROKEN for each in defines} == switches


def test_code_that_the_model_means_is_there() -> None:
    names = re.findall(r"`(pstamp_core[\w.]*:[\w.]+)`", README)
    assert len(names) > 10
    for name in names:
        pkgutil.resolve_name(name)


@pytest.mark.parametrize(
    ("event", "change", "wrong"),
    [
        (Event.GIVE_UP, {"guards": (Guard.FINAL,)}, {"live_lease_taken"}),
        (Event.LOST, {"dest": JobState.STOP}, {"outside_table"}),
    ],
    ids=["give_up while a worker has the lease", "lost leads to stop"],
)
def test_a_wrong_table_is_found(tmp_path: Path, event: Event, change: dict[str, Any], wrong: set[str]) -> None:
    edges = [replace(edge, **change) if edge.event is event else edge for edge in JOB.edges]
    table = Machine(JOB.name, JOB.states, JOB.initial, JOB.faults, edges)
    shutil.copy(MODELS / "job.pml", tmp_path)
    (tmp_path / "job.inc").write_text(runpy.run_path(str(ROOT / "docs" / "generate.py"))["promela"](table))
    assert check(tmp_path, *SMALL, search=ALL_ERRORS, model=tmp_path)[0] == wrong


class Replay:
    """Does to a real job what a run of the model did to its own."""

    def __init__(self, store: Store, rows: Rows, clock: Clock) -> None:
        self.store, self.rows, self.clock = store, rows, clock
        self.seen: dict[str, pstampJob] = {}
        self.taken: set[tuple[Event, JobState, JobState]] = set()
        self.refused: set[type[PstampError]] = set()

    def make(self, state: str, fault: str) -> None:
        columns = {"req_id": self.rows.request().req_id, "state": named(JobState, state), "fault": FAULTS[fault]}
        self.job = self.store.work(lambda: make(pstampJob, now=self.clock.now, who="parse", **columns))

    def look(self, who: str) -> None:
        self.seen[who] = pstampJob.get_by_id(self.job.job_id)

    def lapse(self) -> None:
        self.clock.forward(61)

    def fire(self, who: str, me: str, event: str, code: str, operator: str, _arrow: str, won: str, *after: str) -> None:
        self.clock.now += 1
        args = self.rows.args(
            f"worker {me}" if me != "0" else f"other {who}", fault=FAULTS[code], delay=0,
            backoff=lambda _count: 0, ceiling=None if operator == "1" else CEILING,
        )  # fmt: skip
        before = self.seen.pop(who)

        def work() -> list[pstampJob]:
            try:
                return fire([before], named(Event, event), args)
            except PstampError as refusal:
                self.refused.add(type(refusal))
                return []

        changed = self.store.work(work)
        job = pstampJob.get_by_id(self.job.job_id)
        assert [str(len(changed)), *self.row(job)] == [won, *after]
        if changed:
            assert changed[0].__data__ == job.__data__
            self.seen[who] = changed[0]
            self.taken.add((named(Event, event), before.state, job.state))

    def row(self, job: pstampJob) -> list[str]:
        """Return the row as the model prints it."""
        lapsed = bool(job.lease_owner) and job.lease_until < self.clock.now
        number = job.lease_owner.removeprefix("worker ") or "0"
        values = (job.fault_count, job.attempt, number, int(lapsed))
        return [f"S_{job.state.name}", f"F_{FaultClass.of(job.fault).name}", *map(str, values)]


def named(members: Any, name: str) -> Any:
    return members[name.split("_", 1)[1]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What the model prints in random runs, by words."""
    folder, model = tmp_path_factory.mktemp("runs"), str(MODELS / "job.pml")
    said = "\n".join(run("spin", "-T", "-B", f"-n{seed}", model, folder=folder) for seed in range(RUNS))
    return [line.split() for line in said.splitlines() if line.startswith(("make", "look", "lapse", "fire"))]


def test_the_store_does_what_the_model_does(runs: list[list[str]], store: Store, rows: Rows, clock: Clock) -> None:
    replay = Replay(store, rows, clock)
    for what, *words in runs:
        getattr(replay, what)(*words)
    assert replay.taken == {(event, source, dest) for event, source, dest, _ in JOB.arrows()}
    assert replay.refused == {LeaseLost, Stale, IllegalTransition}
    check_history(pstampJob)
