"""Make a simulated survey: FITS files as IPP stores them, and the rows of an image database that name them.

The same seed and sizes give the same files, to the byte. Some components are *cleaned* (pixels deleted, rows and
small files kept), as in a real archive; `restore` makes such pixels again, in the place of update processing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peewee import chunked

from pstamp_core.database import unit_of_work
from pstamp_core.faults import FinalError, RetryableError, UserError
from pstamp_core.files import sweep, write_text, written
from pstamp_core.imagedb import tables as t
from pstamp_core.imagedb.database import ImageDB, OnSky
from simtest.components import (
    DATABASE,
    PARAMETERS,
    STAGES,
    cleaned,
    delete_pixels,
    in_database,
    plan_of,
    set_full,
    states,
)
from simtest.process import process

if TYPE_CHECKING:
    from simtest.images import Exposure, Field
    from simtest.pipeline import Planes
    from simtest.rows import Drawn, Key
    from simtest.sky import Array

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Survey:
    """A simulated survey, with what a request about it needs to know.

    Attributes
    ----------
    folder : Path
        Everything is below it; paths in the database are relative to it.
    database : Path
        The image database, SQLite.
    tess_id : str
        The tessellation of its skycells.
    filters, exposures, chips, skycells : tuple of str
        Names: ``g.00000``, ``o9001g0101o``, ``XY33``, ``skycell.1234.044``. Exposures take the filters in turn.
    mjd : tuple of float
        When each exposure began, days.
    exp_ids, chip_ids, warp_ids, diff_ids : tuple of int
        Ids of each exposure and its runs.
    stack_ids : Mapping
        Id of the stack of a filter and skycell.
    centre, galaxy, saturated, variable : (ra, dec)
        The middle of the field, a big galaxy, the saturated star and the variable source; degrees.
    moving : tuple of (ra, dec)
        Where the moving source is in each exposure.
    cleaned_warp, cleaned_chip : int
        The warp and chip run that are ``cleaned``: an update brings them back.
    lost_warp : int
        The warp run that is ``error_cleaned``.
    purged_diff : int
        The diff run that is ``purged``: gone for good.
    warp_diff : int
        The diff run whose template is another exposure's warp, not a stack.
    streaked : int
        The chip run with the satellite's streak.
    never_destreaked : int
        The chip run that was never destreaked.
    """

    folder: Path
    database: Path
    tess_id: str
    filters: tuple[str, ...]
    exposures: tuple[str, ...]
    chips: tuple[str, ...]
    skycells: tuple[str, ...]
    mjd: tuple[float, ...]
    exp_ids: tuple[int, ...]
    chip_ids: tuple[int, ...]
    warp_ids: tuple[int, ...]
    diff_ids: tuple[int, ...]
    stack_ids: Mapping[tuple[str, str], int]
    centre: tuple[float, float]
    galaxy: tuple[float, float]
    saturated: tuple[float, float]
    variable: tuple[float, float]
    moving: tuple[tuple[float, float], ...]
    cleaned_warp: int
    cleaned_chip: int
    lost_warp: int
    purged_diff: int
    warp_diff: int
    streaked: int
    never_destreaked: int


def simulate(
    folder: Path,
    *,
    seed: int = 1,
    exposures: int = 6,
    size: int = 400,
    magic: bool = False,
    progress: Progress | None = None,
) -> Survey:
    """Make a survey in `folder`.

    Parameters
    ----------
    folder : Path
        Made if need be; must not hold a survey yet.
    seed : int, optional
        Of all random numbers.
    exposures : int, optional
        5 to 99.
    size : int, optional
        Columns of a chip, 80 to 2000; everything else scales with it, disk space with its square.
    magic : bool, optional
        Take the satellite's streak from the chips before anything is made from them, and say of all exposures but one
        that they were destreaked.
    progress : callable, optional
        Called with the stage, how many of its images are made, and how many there will be.

    Raises
    ------
    UserError
        Fault 21: a number is out of range, or there is a survey already.
    RetryableError
        Fault 2: a file or the database can't be written.
    """
    for name, value, low, high in (
        ("seed", seed, 0, 2**63),
        ("exposures", exposures, 5, 99),
        ("size", size, 80, 2000),
    ):
        if not low <= value <= high:
            raise UserError(f"simulated survey: {name} is {value}; expected {low} to {high}")
    if (folder / DATABASE).exists():
        raise UserError(f"folder {folder} holds a simulated survey already; remove it, or name another folder")
    from simtest.images import Field

    plan = Field(seed, exposures, size, magic)
    told = progress or (lambda _stage, _done, _total: None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        _make_detrends(folder, plan)
        made = _make_chips(folder, plan, told) | _make_skycells(folder, plan, told)
        _clean_some(folder, plan)
        write_text(folder / PARAMETERS, json.dumps(asdict(plan)) + "\n")
        with written(folder / DATABASE) as private:
            _store(private, folder, plan, made)
    except OSError as error:
        raise RetryableError(f"simulated survey {folder}: {error}") from error
    return survey_of(folder)


def survey_of(folder: Path) -> Survey:
    """Return the survey that `folder` holds.

    Raises
    ------
    RetryableError
        Fault 2: there is none.
    """
    from simtest import rows
    from simtest.images import CHIPS, SKYCELLS, STREAKED, TESS_ID
    from simtest.sky import CENTRE, FILTERS, GALAXY, SATURATED, VARIABLE, make_sky, moving_place

    plan = plan_of(folder)
    sky, exposures = make_sky(plan.seed, plan.size), plan.all_exposures()

    def place(source: int) -> tuple[float, float]:
        return float(sky.ra[source]), float(sky.dec[source])

    def ids(stage: str) -> tuple[int, ...]:
        return tuple(rows.run_id(stage, exposure.index) for exposure in exposures)

    return Survey(
        folder=folder,
        database=folder / DATABASE,
        tess_id=TESS_ID,
        filters=FILTERS,
        exposures=tuple(exposure.name for exposure in exposures),
        chips=CHIPS,
        skycells=SKYCELLS,
        mjd=tuple(exposure.mjd for exposure in exposures),
        exp_ids=ids("raw"),
        chip_ids=ids("chip"),
        warp_ids=ids("warp"),
        diff_ids=ids("diff"),
        stack_ids={(one, cell): rows.stack_id(one, cell) for one in FILTERS for cell in SKYCELLS},
        centre=CENTRE,
        galaxy=place(GALAXY),
        saturated=place(SATURATED),
        variable=place(VARIABLE),
        moving=tuple(moving_place(plan.size, exposure.days) for exposure in exposures),
        cleaned_warp=rows.run_id("warp", rows.CLEANED_WARP),
        cleaned_chip=rows.run_id("chip", rows.CLEANED_CHIP),
        lost_warp=rows.run_id("warp", rows.LOST_WARP),
        purged_diff=rows.run_id("diff", rows.PURGED_DIFF),
        warp_diff=rows.WARP_WARP_ID,
        streaked=rows.run_id("chip", STREAKED),
        never_destreaked=rows.run_id("chip", rows.NEVER_DESTREAKED),
    )


def restore(folder: Path, stage: str, stage_id: int, component: str) -> None:
    """Make the pixels of a cleaned chip, warp or difference again and set it ``full``, as update processing would.

    The run becomes ``full`` with its last component, and is ``update`` until then.

    Parameters
    ----------
    folder : Path
        Of the survey.
    stage : str
        ``chip``, ``warp`` or ``diff``.
    stage_id : int
        ``chip_id``, ``warp_id`` or ``diff_id``.
    component : str
        Class or skycell.

    Raises
    ------
    FinalError
        Fault 25: there is no such component, or its state is neither ``cleaned`` nor ``update``.
    RetryableError
        Fault 2: no survey, an input is not there, or a file or the database can't be written.
    """
    what = f"restore {stage} {stage_id} {component}"
    if stage not in STAGES:
        raise FinalError(f"{what}: only a chip, a warp or a difference can be made again")
    plan_of(folder)
    found = in_database(folder, lambda: states(stage, stage_id, component))
    if found is None:
        raise FinalError(f"{what}: there is no such component")
    if not set(found) <= {"cleaned", "update"}:
        raise FinalError(f"{what}: its run is {found[0]} and it is {found[1]}; expected cleaned or update")
    process(folder, stage, stage_id, component)
    in_database(folder, lambda: set_full(stage, stage_id, component))


def restore_all(folder: Path) -> int:
    """Make the pixels of all cleaned components again; return how many images that were.

    Raises
    ------
    RetryableError
        As `restore`.
    """
    found = in_database(folder, cleaned)
    for component in found:
        restore(folder, *component)
    return len(found)


def _make_detrends(folder: Path, plan: Field) -> None:
    from astropy.io.fits import Header

    from simtest import images
    from simtest.files import write_image
    from simtest.making import detrend

    for class_id in images.CHIPS:
        header = Header({"CHIPID": class_id})
        for kind, content in (
            ("bias", images.bias_of(plan, class_id)),
            ("flat", images.flat_of(plan, class_id)),
            ("mask", images.dead_of(plan, class_id)),
        ):
            write_image(detrend(folder, class_id, kind), content, header)


def _make_chips(folder: Path, plan: Field, told: Progress) -> dict[Key, Drawn]:
    """Draw raw images; make chips and the camera stage's catalogues; return what was made."""
    from simtest.catalogue import draw_psf, find_sources
    from simtest.files import write_image, write_tables
    from simtest.images import CHIPS, chip_header, draw_raw, exposure_header, truth
    from simtest.making import destreak, make_chip
    from simtest.rows import path_base, run_id
    from simtest.sky import PIXEL

    made: dict[Key, Drawn] = {}
    for exposure in plan.all_exposures():
        catalogues = {}
        for class_id in CHIPS:
            raw, name = folder / f"{path_base('raw', exposure, class_id)}.fits", path_base("chip", exposure, class_id)
            write_image(raw, draw_raw(plan, exposure, class_id), chip_header(plan, exposure, class_id))
            planes, model = make_chip(folder, plan, exposure, class_id, raw, folder / name)
            if plan.magic:
                destreak(plan, exposure, class_id, folder / name)
            counts = truth(plan, exposure)[1]
            table = find_sources(plan, exposure, planes, counts, name)
            write_tables(folder / f"{name}.cmf", planes.header, {f"{class_id}.psf": table})
            write_image(folder / f"{name}.psf", draw_psf(planes.fwhm, PIXEL))
            write_image(folder / f"{name}.mdl.fits", model)
            catalogues[f"{class_id}.psf"] = table
            for stage in ("raw", "chip"):
                made[stage, run_id(stage, exposure.index), class_id] = _drawn(planes)
            told("chip", len(made) // 2, plan.exposures * len(CHIPS))
        header = exposure_header(exposure, exposure.name)
        write_tables(folder / f"{path_base('cam', exposure, '')}.smf", header, catalogues)
    return made


def _make_skycells(folder: Path, plan: Field, told: Progress) -> dict[Key, Drawn]:
    """Make warps, stacks and differences, skycell by skycell; return what was made."""
    from simtest.catalogue import steady
    from simtest.images import CHIPS, SKYCELLS, truth
    from simtest.making import make_diff, make_stack, make_warp
    from simtest.rows import differences, path_base, run_id, stack_id
    from simtest.sky import FILTERS

    made: dict[Key, Drawn] = {}
    diffs = differences(plan)
    total = {"warp": plan.exposures, "stack": len(FILTERS), "diff": len(diffs)}
    done = dict.fromkeys(total, 0)

    def finish(stage: str, number: int, cell: str, planes: Planes, chips: tuple[str, ...] = ()) -> None:
        made[stage, number, cell] = _drawn(planes, chips)
        done[stage] += 1
        told(stage, done[stage], total[stage] * len(SKYCELLS))

    for cell in SKYCELLS:
        warps, stacks = {}, {}
        for exposure in plan.all_exposures():
            name = path_base("warp", exposure, cell)
            warps[exposure] = folder / name
            chips = {class_id: folder / path_base("chip", exposure, class_id) for class_id in CHIPS}
            warp, below = make_warp(plan, exposure, cell, chips, folder / name)
            _write_small(folder, plan, exposure, name, warp, truth(plan, exposure)[1])
            finish("warp", run_id("warp", exposure.index), cell, warp, below)
        for filter_ in FILTERS:
            inputs = plan.through(filter_)
            name = path_base("stack", inputs[0], cell)
            stacks[filter_] = folder / name
            stack, fwhm = make_stack(plan, filter_, cell, {one: warps[one] for one in inputs}, folder / name)
            _write_small(folder, plan, inputs[0], name, stack, steady(plan, inputs), fwhm)
            finish("stack", stack_id(filter_, cell), cell, stack)
        for diff in diffs:
            one, other, name = diff.exposure, diff.template, path_base("diff", diff.exposure, cell, diff.diff_id)
            template = warps[other] if other else stacks[one.filter]
            planes = make_diff(plan, one, cell, warps[one], (other, template), folder / name)
            counts = truth(plan, one)[1] - steady(plan, [other] if other else plan.through(one.filter))
            _write_small(folder, plan, one, name, planes, counts)
            finish("diff", diff.diff_id, cell, planes)
    return made


def _write_small(
    folder: Path, plan: Field, exposure: Exposure, name: str, planes: Planes, counts: Array, target: float = 0.0
) -> None:
    """Write catalogue and PSF of what lies on a skycell; of a stack, the PSF of the convolved one, of FWHM `target`."""
    from simtest.catalogue import draw_psf, find_sources
    from simtest.files import write_image, write_tables
    from simtest.images import CELL_PIXEL

    table = find_sources(plan, exposure, planes, counts, name)
    write_tables(folder / f"{name}.cmf", planes.header, {"SkyChip.psf": table})
    write_image(folder / f"{name}{'.target' if target else ''}.psf", draw_psf(target or planes.fwhm, CELL_PIXEL))


def _clean_some(folder: Path, plan: Field) -> None:
    """Delete what their states leave no files of: the pixels, and all of what is purged."""
    from simtest.images import CHIPS, SKYCELLS
    from simtest.rows import SPECIAL, path_base

    for (stage, index), state in SPECIAL.items():
        for component in CHIPS if stage == "chip" else SKYCELLS:
            base = path_base(stage, plan.exposure(index), component)
            delete_pixels(folder, stage, base)
            if state == "purged":
                for suffix in (".cmf", ".psf"):
                    (folder / f"{base}{suffix}").unlink()


def _drawn(planes: Planes, chips: tuple[str, ...] = ()) -> Drawn:
    import numpy as np

    from simtest.rows import Drawn

    rows, columns = planes.image.shape
    return Drawn(planes.header, (rows, columns), float(np.isfinite(planes.image).mean()), chips)


def _store(path: Path, folder: Path, plan: Field, drawn: Mapping[Key, Drawn]) -> None:
    """Write all rows and footprints into a new database at `path`."""
    from simtest.rows import make_rows

    images = ImageDB(str(path), root=folder)
    rows = make_rows(plan, drawn)

    def insert() -> None:
        for table, content in rows.items():
            for some in chunked(content, 500):
                table.insert_many(some).execute()

    with images.session():
        images.create()
        unit_of_work(images.db, t.TABLES, insert)
        images.add_footprints(
            OnSky(*key, image.header, naxis1=image.shape[1], naxis2=image.shape[0]) for key, image in drawn.items()
        )
