"""`pstamp serve`: commands that hang, die and fail; several at once; stopped, killed, without a database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Rows
from serving import serving, wait_for

from pstamp_core.machines import JobState
from pstamp_core.store import Store, pstampHistory, pstampJob


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which faults are given up at once."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "pstamp.toml").write_text("retry_seconds = 0.0\nretry_ceiling = 1\ncheck_seconds = 0.0\n")
    return folder


def told(home: Path, image: str = "*") -> list[tuple[int, int]]:
    """The (job, attempt) pairs that the workers have claimed."""
    return [
        (int(line.split()[0]), int(line.split()[1]))
        for path in home.glob(f"{image}.[0-9]*")
        for line in path.read_text().splitlines()
    ]


def events(job: pstampJob) -> list[tuple[str, int, str]]:
    lines = pstampHistory.select().where((pstampHistory.machine == "job") & (pstampHistory.row_id == job.job_id))
    return [(line.event, line.fault, line.note) for line in lines.order_by(pstampHistory.hist_id)]


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that is dead but not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def stopped(jobs: list[pstampJob]) -> bool:
    ids = [job.job_id for job in jobs]
    return not pstampJob.select().where(pstampJob.job_id.in_(ids) & (pstampJob.state != JobState.STOP)).exists()


def test_whatever_becomes_of_a_command_its_jobs_get_an_outcome_at_once(
    store: Store, address: str, rows: Rows, home: Path, reread: Callable[..., Any]
) -> None:
    rows.label("urgent", 20000)
    urgent = rows.request(label="urgent")
    ends = {
        "hangs": "timed out after 2 s, killed",
        "is stubborn": "timed out after 2 s, killed",
        "crashes": "the command was killed by SIGSEGV",
        "gives up": "the command ended in 3",
    }
    bad = {image: [rows.job(urgent, image=image) for _ in range(2)] for image in ends}
    good = [rows.job(image="good") for _ in range(3)]
    with serving(home, address, 2, "--workers", "2") as served:
        wait_for(lambda: stopped([*good, *(job for jobs in bad.values() for job in jobs)]))
        assert served.stop() == 0
    for job in good:
        assert (reread(job).fault, reread(job).attempt) == (0, 1)
    for image, jobs in bad.items():
        for job in map(reread, jobs):
            assert (job.fault, job.cause, job.fault_count, job.attempt, job.lease_owner) == (25, 6, 1, 1, "")
            assert [event[:2] for event in events(job)] == [("claim", 0), ("fault", 6), ("give_up", 25)]
            assert events(job)[1][2] == ends[image]
    children = [int(path.suffix[1:]) for path in home.glob("child.*")]
    assert len(children) == 2
    assert not any(map(lives, children))
    log = [line.split(maxsplit=2)[2] for line in served.log.splitlines()]
    for line in (
        "WARNING pstamp.job.run: one thing",
        "WARNING pstamp.job.run: and another",
        "WARNING pstamp.job.run: 2 faulted (6)",
        "INFO stopped",
    ):
        assert line in log
    for end in ends.values():
        assert any(line.startswith(f"WARNING pstamp.job.run: {end} (after ") for line in log)
