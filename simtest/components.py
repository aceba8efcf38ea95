"""The components of a simulated survey as its image database has them: found, cleaned, and set full again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from peewee import Expression, Model

from pstamp_core.database import connect, must_exist, unit_of_work
from pstamp_core.faults import FinalError, RetryableError
from pstamp_core.imagedb import tables as t

if TYPE_CHECKING:
    from simtest.images import Field

DATABASE = "simtest.db"
PARAMETERS = "simtest.json"
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """A stage whose components are cleaned and made again: its tables, and what names a component there.

    Attributes
    ----------
    run, part : type[Model]
        Tables of runs and of components.
    number, name : str
        Columns: the run's number (in both tables), the component's name.
    """

    run: type[Model]
    part: type[Model]
    number: str
    name: str

    def of_run(self, stage_id: int, *, part: bool = False) -> Expression:
        """Return the condition on the table of runs, or of components, for one run."""
        return self._equal(self.part if part else self.run, self.number, stage_id)

    def of_part(self, stage_id: int, component: str) -> Expression:
        """Return the condition on the table of components for one of them."""
        return self.of_run(stage_id, part=True) & self._equal(self.part, self.name, component)

    @staticmethod
    def _equal(table: type[Model], column: str, value: object) -> Expression:
        condition: Expression = getattr(table, column) == value
        return condition


STAGES = {
    "chip": Stage(t.chipRun, t.chipProcessedImfile, "chip_id", "class_id"),
    "warp": Stage(t.warpRun, t.warpSkyfile, "warp_id", "skycell_id"),
    "diff": Stage(t.diffRun, t.diffSkyfile, "diff_id", "skycell_id"),
}
PIXELS = {
    "chip": (".ch.fits", ".ch.mk.fits", ".ch.wt.fits"),
    "warp": (".fits", ".mask.fits", ".wt.fits"),
    "diff": (".fits", ".mask.fits", ".wt.fits"),
}
"""What is deleted when a component is cleaned, after its path_base: image, mask, variance."""
_CLEANABLE = ("full", "update", "goto_cleaned", "cleaned")


def plan_of(folder: Path) -> Field:
    """Return what the survey in `folder` was made from.

    Raises
    ------
    RetryableError
        Fault 2: there is none.
    """
    from simtest.images import Field

    try:
        return Field(**json.loads((folder / PARAMETERS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RetryableError(f"folder {folder} holds no simulated survey: {error}") from error


def in_database(folder: Path, work: Callable[[], T]) -> T:
    """Run `work` as one unit of work on the survey's image database.

    Raises
    ------
    RetryableError
        Fault 2: there is none, or it fails.
    """
    address = str(folder / DATABASE)
    must_exist(address)
    db = connect(address)
    try:
        return unit_of_work(db, t.TABLES, work)
    finally:
        db.close()


def states(stage: str, stage_id: int, component: str) -> tuple[str, str] | None:
    """Return the states of run and component, within a unit of work; None: there is no such component."""
    tables = STAGES[stage]
    run: Any = tables.run.get_or_none(tables.of_run(stage_id))
    part: Any = tables.part.get_or_none(tables.of_part(stage_id, component))
    return (run.state, part.data_state) if run and part else None


def cleaned() -> list[tuple[str, int, str]]:
    """Return stage, run and name of all components that can be made again, inputs first, within a unit of work."""
    found: list[tuple[str, int, str]] = []
    for stage, tables in STAGES.items():
        part: Any = tables.part
        rows: Any = part.select().where(part.data_state.in_(("cleaned", "update"))).dicts()
        found += [(stage, row[tables.number], row[tables.name]) for row in rows]
    return found


def set_full(stage: str, stage_id: int, component: str) -> None:
    """Set a component full, within a unit of work; its run is full with its last component, and update until then."""
    tables = STAGES[stage]
    tables.part.update(data_state="full", fault=0).where(tables.of_part(stage_id, component)).execute()
    whole = _number(tables, stage_id, full=False) == 0
    tables.run.update(state="full" if whole else "update").where(tables.of_run(stage_id)).execute()


def purge(stage: str, stage_id: int, component: str) -> None:
    """Set run and component purged, within a unit of work."""
    tables = STAGES[stage]
    tables.part.update(data_state="purged").where(tables.of_part(stage_id, component)).execute()
    tables.run.update(state="purged").where(tables.of_run(stage_id)).execute()


def clean(folder: Path, stage: str, stage_id: int, component: str | None = None) -> int:
    """Delete pixels as IPP's cleanup does; small files stay, and the pixels can be made again.

    The components become ``cleaned``, and the run, too, when none of it is full any more; what was destreaked has to be
    destreaked again (`magicked` is then -1, `chiptool.c`). What is cleaned already stays so.

    Parameters
    ----------
    folder : Path
        Of the survey.
    stage : str
        ``chip``, ``warp`` or ``diff``; raw images and stacks are never cleaned.
    stage_id : int
        Number of the run.
    component : str, optional
        Class or skycell; without it all of the run.

    Returns
    -------
    int
        How many components were cleaned.

    Raises
    ------
    FinalError
        Fault 25: there is no such component, or its state does not allow it.
    RetryableError
        Fault 2: no survey, or its files or database can't be changed.
    """
    what = " ".join(("clean", stage, str(stage_id), *([component] if component else [])))
    if stage not in STAGES:
        raise FinalError(f"{what}: only the pixels of a chip, warp or diff are ever deleted")
    tables = STAGES[stage]
    wanted = tables.of_part(stage_id, component) if component else tables.of_run(stage_id, part=True)

    def work() -> list[str]:
        run: Any = tables.run.get_or_none(tables.of_run(stage_id))
        parts: list[Any] = list(tables.part.select().where(wanted))
        if run is None or not parts:
            raise FinalError(f"{what}: there is no such component")
        for word in [run.state, *(part.data_state for part in parts)]:
            if word not in _CLEANABLE:
                raise FinalError(f"{what}: state {word}; expected {', '.join(_CLEANABLE)}")
        tables.part.update(data_state="cleaned").where(wanted).execute()
        _forget_destreaking(tables.part, wanted)
        of_run = tables.of_run(stage_id)
        _forget_destreaking(tables.run, of_run)
        if not _number(tables, stage_id, full=True):
            tables.run.update(state="cleaned").where(of_run).execute()
        return [part.path_base for part in parts]

    bases = in_database(folder, work)
    try:
        for base in bases:
            delete_pixels(folder, stage, base)
    except OSError as error:
        raise RetryableError(f"{what}: {error}") from error
    return len(bases)


def delete_pixels(folder: Path, stage: str, path_base: str) -> None:
    """Delete image, mask and variance of a component, as far as they are there."""
    for suffix in PIXELS[stage]:
        (folder / f"{path_base}{suffix}").unlink(missing_ok=True)


def _forget_destreaking(table: Any, which: Expression) -> None:
    table.update(magicked=-1).where(which, table.magicked > 0).execute()


def _number(tables: Stage, stage_id: int, *, full: bool) -> int:
    """Return how many components of a run are full, or are not."""
    part: Any = tables.part
    state = part.data_state == "full" if full else part.data_state != "full"
    return int(part.select().where(tables.of_run(stage_id, part=True), state).count())
