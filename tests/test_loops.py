"""Two loops started at once against one MariaDB: what `pstamp serve` does, and what pantasks does.

Every job is done once, and the files are those of one undisturbed run. PSTAMP_OVERNIGHT=1 takes 5,000 jobs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import mariadb
import pytest
import servers
from conftest import check_history
from serving import environment, serving, wait_for
from worlds import timeless

from pstamp_core.formats import read_rows
from pstamp_core.machines import RequestState
from pstamp_core.store import MACHINES, pstampDependent, pstampHistory, pstampJob, pstampRequest
from pstamp_core.tasks.pantasks import pantasks_script
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server, add_project, make_server
from simtest.survey import Survey, restore_all

ROWS = 424 if os.environ.get("PSTAMP_OVERNIGHT") == "1" else 20
STAGES = ("stack", "warp", "chip", "diff")


def many(survey: Survey) -> list[str]:
    """Rows of which each leads to about twelve jobs, some of them for deleted images."""
    return [
        servers.row(
            number + 1, survey, x=survey.centre[0] + 1e-4 * (number % 7), w=10 + number % 5, h=10,
            img=STAGES[number % 4], filter="null" if number % 2 else "r",
        )
        for number in range(ROWS)
    ]  # fmt: skip


def few(survey: Survey) -> list[str]:
    """Rows of one job each; the last waits for a deleted image."""
    deleted = servers.row(
        2, survey, x=0, y=0, w=0, h=0, coord=3, req="byid", img="warp", id=survey.cleaned_warp, tess="null",
        component=survey.skycells[0], filter="null",
    )  # fmt: skip
    there = servers.row(1, survey, req="byskycell", component=survey.skycells[0])
    return [there, deleted]


class Site:
    """A server on MariaDB whose request waits, also for images that are deleted."""

    def __init__(self, folder: Path, address: str, survey: Survey, rows: Callable[[Survey], list[str]]) -> None:
        self.home, self.address = folder / "home", address
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(survey.folder, folder / "survey")
        self.survey = replace(survey, folder=folder / "survey", database=folder / "survey" / survey.database.name)
        self.home.mkdir()
        (self.home / "pstamp.toml").write_text(servers.SETTINGS)
        server = make_server(self.home, address)
        add_project(server, "gpc1", str(self.survey.database), str(self.survey.folder), "GPC1")
        servers.send(server, folder, *rows(self.survey))
        server.store.db.close()

    def server(self) -> Server:
        from pstamp_core.settings import load_settings

        return Server(load_settings(self.home, self.address))

    def is_done(self) -> bool:
        with self.server().store.reading():
            return bool(pstampRequest.get().state is RequestState.STOP)

    def waits(self) -> bool:
        """Tell whether dependents were made, so that the deleted images may be made again."""
        with self.server().store.reading():
            return bool(pstampDependent.select().exists())

    def files(self) -> dict[str, bytes]:
        """All that the user gets, but for times."""
        return {path.name: timeless(path) for path in (self.home / "datastore" / "pstamp_results" / "test_1").iterdir()}

    def look(self, undisturbed: dict[str, bytes]) -> int:
        """Check that all is done, once, and as it should be; return how many jobs that are."""
        assert self.files() == undisturbed
        with self.server().store.reading():
            for table in MACHINES:
                check_history(table)
            claimed = list(pstampJob.select().where(pstampJob.attempt > 0))
            assert {(job.attempt, job.lease_owner, job.fault) for job in claimed} == {(1, "", 0)}
            for event in ("claim", "finish"):
                lines = pstampHistory.select().where((pstampHistory.machine == "job") & (pstampHistory.event == event))
                assert sorted(line.row_id for line in lines) == [job.job_id for job in claimed]
            return int(pstampJob.select().count())


@pytest.fixture
def site(
    tmp_path: Path, survey: Survey, mysql_server: str
) -> Iterator[Callable[[Callable[[Survey], list[str]]], tuple[Site, dict[str, bytes]]]]:
    """Make a site, with what its user would get of one undisturbed run."""
    with mariadb.database(mysql_server) as one, mariadb.database(mysql_server) as two:

        def make(rows: Callable[[Survey], list[str]]) -> tuple[Site, dict[str, bytes]]:
            first = Site(tmp_path / "site", one, survey, rows)
            server = first.server()
            run(server, workers=1)
            restore_all(first.survey.folder)
            run(server, workers=1)
            server.store.db.close()
            assert first.is_done()
            files = first.files()
            return Site(tmp_path / "site", two, survey, rows), files

        yield make


def test_two_servers(site: Callable[..., tuple[Site, dict[str, bytes]]]) -> None:
    here, undisturbed = site(many)
    options = here.home, here.address, None, "--workers", "1"
    with serving(*options) as one, serving(*options) as two:
        wait_for(here.waits)
        restore_all(here.survey.folder)
        wait_for(here.is_done, 3600)
        assert (one.stop(), two.stop()) == (0, 0)
        assert not [line for log in (one.log, two.log) for line in log.splitlines() if " INFO " not in line]
        assert "pstamp.job.run: done in" in one.log
        assert "pstamp.job.run: done in" in two.log
    assert here.look(undisturbed) > 11 * ROWS


def pantasks(script: str, env: dict[str, str], is_done: Callable[[], bool], start: Barrier) -> list[str]:
    """Do what pantasks does with a script: load, then run each page once; return what went wrong."""
    bodies = re.findall(r"^task (\S+)\n(.*?)^end", script, re.MULTILINE | re.DOTALL)
    commands = {name: re.search(r"^ +(?:command|\$run =) ((?!\$).+)", body, re.MULTILINE)[1] for name, body in bodies}
    wrong = []

    def do(command: str) -> str:
        done = subprocess.run(command.split(), env=env, capture_output=True, text=True, check=False)
        if done.returncode or done.stderr:
            wrong.append(f"{command}: {done.returncode} {done.stderr}")
        return done.stdout

    start.wait()
    while not is_done():
        for name, command in commands.items():
            if "$" in command:
                key, word = re.search(r"--(\w+) (\$\w+)", command).groups()
                found = read_rows(do(commands[re.sub("run$", "load", name)]))
                for _, row in found:
                    do(command.replace(word, str(row[key])))
            elif not name.endswith(".load"):
                do(command)
    return wrong


def test_two_pantasks(site: Callable[..., tuple[Site, dict[str, bytes]]]) -> None:
    here, undisturbed = site(few)
    env = environment(here.home.parent, PSTAMP_DB=here.address)
    script, start = pantasks_script({"home": str(here.home)}), Barrier(3)
    with ThreadPoolExecutor(2) as threads:
        loops = [threads.submit(pantasks, script, env, lambda: (here.home / "done").exists(), start) for _ in range(2)]
        start.wait()
        wait_for(here.waits)
        restore_all(here.survey.folder)
        try:
            wait_for(here.is_done, 120)
        finally:
            (here.home / "done").touch()
        assert [loop.result() for loop in loops] == [[], []]
    assert here.look(undisturbed) == 2
