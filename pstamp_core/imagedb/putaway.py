"""Putting away: runs that were made again, and are not needed any more, are left to whoever cleans runs.

The state is IPP's (`chiptool`, `warptool`, `difftool -updaterun -set_state goto_cleaned`); unlike there the run keeps
its own label.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from peewee import chunked, fn

from pstamp_core.database import unit_of_work
from pstamp_core.imagedb.components import MADE_AGAIN
from pstamp_core.imagedb.database import ImageDB
from pstamp_core.imagedb.tables import TABLES, pstampUpdate
from pstamp_core.imagedb.updates import WORK_TABLES, give_labels_back, restore_labels

UPDATE_LABELS = "ps_ud%"
"""The labels of IPP's update servers, as a LIKE pattern."""
_TOGETHER = 500
_TAKEN = ("full", "update")


@dataclass(frozen=True)
class Run:
    """A run of which something was made again.

    Attributes
    ----------
    stage, stage_id : str, int
        Which.
    state : str
        As it was seen.
    made_at : int
        When the last of it was made, microseconds since 1970 UTC; 0 where nobody knows.
    """

    stage: str
    stage_id: int
    state: str
    made_at: int


def made_again(imagedb: ImageDB, labels: str | None = None) -> list[Run]:
    """Return the runs whose pixels are there because somebody waited for them.

    These are the runs under an update label, whole, as IPP has it; and those that have their own label back, if all of
    them that is there was made again: where other components are there, too, the run is somebody else's.

    Parameters
    ----------
    imagedb : ImageDB
        The image database; it gets the tables that it lacks for this.
    labels : str, optional
        A LIKE pattern: only runs that are under such a label now.

    Raises
    ------
    RetryableError
        The database does not answer.
    """
    restore_labels(imagedb)

    def work() -> list[Run]:
        for stage in MADE_AGAIN:
            _forget(stage)
        return [run for stage in MADE_AGAIN for run in _made_again(stage, labels)]

    return unit_of_work(imagedb.db, TABLES, work)


def put_away(imagedb: ImageDB, runs: Iterable[Run]) -> int:
    """Let runs be cleaned that are in the state in which they were seen, under their own labels; return how many.

    Races tolerated: a run that has changed since is left for another time. One that is needed again in this moment is
    taken back at the next look at its dependent, if it is not cleaned by then, or else made again.

    Raises
    ------
    RetryableError
        The database does not answer.
    """
    alike: dict[tuple[str, str], list[int]] = {}
    for run in runs:
        alike.setdefault((run.stage, run.state), []).append(run.stage_id)
    parts = [(*what, some) for what, numbers in alike.items() for some in chunked(sorted(numbers), _TOGETHER)]
    return sum(unit_of_work(imagedb.db, TABLES, lambda part=part: _put_away(*part)) for part in parts)  # type: ignore[misc]


def _put_away(stage: str, state: str, numbers: list[int]) -> int:
    made = WORK_TABLES[stage]
    these = made.run_key.in_(numbers)
    count: int = made.run.update(state="goto_cleaned").where(these, made.run.state == state).execute()
    give_labels_back(stage, these & (made.run.state == "goto_cleaned"))
    return count


def _component(stage: str) -> Any:
    """Return the condition that joins a component of a stage with its work."""
    number, name = WORK_TABLES[stage].keys
    work = pstampUpdate
    return (work.stage == stage) & (work.stage_id == number) & (work.component == name)


def _forget(stage: str) -> None:
    """Forget what was made, and is not there any more: what stands there later, others have made."""
    file = WORK_TABLES[stage].file
    there = file.select().where(_component(stage), file.data_state == "full")
    pstampUpdate.delete().where(pstampUpdate.stage == stage, pstampUpdate.made_at > 0, ~fn.EXISTS(there)).execute()


def _made_again(stage: str, labels: str | None) -> list[Run]:
    made, work = WORK_TABLES[stage], pstampUpdate
    run, file = made.run, made.file
    ours = (work.stage == stage) & (work.made_at > 0)
    last = fn.COALESCE(work.select(fn.MAX(work.made_at)).where(ours, work.stage_id == made.run_key), 0)
    which = run.label ** (labels or UPDATE_LABELS)
    if labels is None:
        by_us = work.select().where(_component(stage), work.made_at > 0)
        by_others = file.select().where(made.keys[0] == made.run_key, file.data_state.in_(_TAKEN), ~fn.EXISTS(by_us))
        which |= made.run_key.in_(work.select(work.stage_id).where(ours)) & ~fn.EXISTS(by_others)
    query = run.select(made.run_key, run.state, last).where(run.state.in_(_TAKEN), which)
    return [Run(stage, *row) for row in query.order_by(made.run_key).tuples()]
