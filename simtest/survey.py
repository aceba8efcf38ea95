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

from pstamp_core.database import connect, must_exist, session, unit_of_work
from pstamp_core.faults import FinalError, RetryableError, UserError
from pstamp_core.files import sweep, write_text, written
from pstamp_core.imagedb import tables as t
from pstamp_core.imagedb.database import ImageDB, OnSky

if TYPE_CHECKING:
    from simtest.images import Exposure, Field, Planes
    from simtest.rows import Drawn, Key

DATABASE = "simtest.db"
_PARAMETERS = "simtest.json"
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


def simulate(
    folder: Path, *, seed: int = 1, exposures: int = 6, size: int = 400, progress: Progress | None = None
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

    plan = Field(seed, exposures, size)
    told = progress or (lambda _stage, _done, _total: None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        drawn = _write_chips(folder, plan, told) | _write_skycells(folder, plan, told)
        write_text(folder / _PARAMETERS, json.dumps(asdict(plan)) + "\n")
        with written(folder / DATABASE) as private:
            _store(private, folder, plan, drawn)
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
    from simtest.images import CHIPS, SKYCELLS, TESS_ID
    from simtest.sky import CENTRE, FILTERS, GALAXY, SATURATED, VARIABLE, make_sky, moving_place

    plan = _plan(folder)
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
    )


def restore(folder: Path, stage: str, stage_id: int, component: str) -> None:
    """Make the pixels of a cleaned chip or warp again and set it ``full``, as update processing would.

    The run becomes ``full`` with its last component, and is ``update`` until then.

    Parameters
    ----------
    folder : Path
        Of the survey.
    stage : str
        ``chip`` or ``warp``.
    stage_id : int
        ``chip_id`` or ``warp_id``.
    component : str
        Class or skycell.

    Raises
    ------
    FinalError
        Fault 25: there is no such component, or its state is neither ``cleaned`` nor ``update``.
    RetryableError
        Fault 2: no survey, or a file or the database can't be written.
    """
    from simtest.files import write_pixels
    from simtest.images import draw_chip, draw_warp
    from simtest.rows import exposure_of, path_base

    what = f"restore {stage} {stage_id} {component}"
    if stage not in ("chip", "warp"):
        raise FinalError(f"{what}: only a chip or a warp can be made again")
    plan = _plan(folder)
    address = str(folder / DATABASE)
    must_exist(address)
    run, part = (t.chipRun, t.chipProcessedImfile) if stage == "chip" else (t.warpRun, t.warpSkyfile)
    draw, name = (draw_chip, "class_id") if stage == "chip" else (draw_warp, "skycell_id")
    of_run, of_part = getattr(part, f"{stage}_id") == stage_id, getattr(part, name) == component
    this_run = getattr(run, f"{stage}_id") == stage_id

    def states() -> tuple[str, str]:
        whole, piece = run.get_or_none(this_run), part.get_or_none(of_run, of_part)
        if whole is None or piece is None:
            raise FinalError(f"{what}: there is no such component")
        return whole.state, piece.data_state

    def set_full() -> None:
        part.update(data_state="full", fault=0).where(of_run, of_part).execute()
        left = part.select().where(of_run, part.data_state != "full").count()
        run.update(state="update" if left else "full").where(this_run).execute()

    db = connect(address)
    try:
        found = unit_of_work(db, t.TABLES, states)
        if not set(found) <= {"cleaned", "update"}:
            raise FinalError(f"{what}: its run is {found[0]} and it is {found[1]}; expected cleaned or update")
        exposure = plan.exposure(exposure_of(stage, stage_id))
        write_pixels(folder / path_base(stage, exposure, component), stage, draw(plan, exposure, component))
        unit_of_work(db, t.TABLES, set_full)
    except OSError as error:
        raise RetryableError(f"{what}: {error}") from error
    finally:
        db.close()


def restore_all(folder: Path) -> int:
    """Make the pixels of all cleaned chips and warps again; return how many images that were.

    Raises
    ------
    RetryableError
        As `restore`.
    """
    address = str(folder / DATABASE)
    must_exist(address)
    chips, warps, gone = t.chipProcessedImfile, t.warpSkyfile, ("cleaned", "update")
    with session(connect(address), t.TABLES):
        components = [
            *(("chip", row.chip_id, row.class_id) for row in chips.select().where(chips.data_state.in_(gone))),
            *(("warp", row.warp_id, row.skycell_id) for row in warps.select().where(warps.data_state.in_(gone))),
        ]
    for component in components:
        restore(folder, *component)
    return len(components)


def _plan(folder: Path) -> Field:
    from simtest.images import Field

    try:
        return Field(**json.loads((folder / _PARAMETERS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RetryableError(f"folder {folder} holds no simulated survey: {error}") from error


def _write_chips(folder: Path, plan: Field, told: Progress) -> dict[Key, Drawn]:
    """Write raw and processed chips and the camera stage's catalogues; return what was drawn."""
    from simtest.files import write_image, write_pixels, write_tables
    from simtest.images import CHIPS, draw_chip, draw_psf, exposure_header, find_sources
    from simtest.rows import path_base, run_id, state
    from simtest.sky import PIXEL

    drawn: dict[Key, Drawn] = {}
    for exposure in plan.all_exposures():
        catalogues = {}
        for class_id in CHIPS:
            planes = draw_chip(plan, exposure, class_id)
            write_image(folder / f"{path_base('raw', exposure, class_id)}.fits", planes.extra["raw"], planes.header)
            base = path_base("chip", exposure, class_id)
            if state("chip", exposure.index) == "full":
                write_pixels(folder / base, "chip", planes)
            catalogues[f"{class_id}.psf"] = find_sources(plan, exposure, planes, base)
            write_tables(folder / f"{base}.cmf", planes.header, {f"{class_id}.psf": catalogues[f"{class_id}.psf"]})
            write_image(folder / f"{base}.psf", draw_psf(planes.fwhm / PIXEL))
            write_image(folder / f"{base}.mdl.fits", planes.extra["mdl"])
            for stage in ("raw", "chip"):
                drawn[stage, run_id(stage, exposure.index), class_id] = _drawn(planes)
            told("chip", len(drawn) // 2, plan.exposures * len(CHIPS))
        header = exposure_header(exposure, exposure.name)
        write_tables(folder / f"{path_base('cam', exposure, '')}.smf", header, catalogues)
    return drawn


def _write_skycells(folder: Path, plan: Field, told: Progress) -> dict[Key, Drawn]:
    """Write warps, stacks and differences, skycell by skycell; return what was drawn."""
    from simtest.images import SKYCELLS, convolve, draw_diff, draw_stack, draw_warp
    from simtest.rows import run_id, stack_id
    from simtest.sky import FILTERS

    drawn: dict[Key, Drawn] = {}
    exposures = plan.all_exposures()
    done = {"warp": 0, "stack": 0, "diff": 0}
    total = {stage: len(SKYCELLS) * (len(FILTERS) if stage == "stack" else plan.exposures) for stage in done}

    def finish(stage: str, number: int, cell: str, planes: Planes) -> None:
        drawn[stage, number, cell] = _drawn(planes)
        done[stage] += 1
        told(stage, done[stage], total[stage])

    for cell in SKYCELLS:
        warps = {}
        for exposure in exposures:
            warps[exposure] = draw_warp(plan, exposure, cell)
            _write_component(folder, plan, "warp", exposure, cell, warps[exposure])
            finish("warp", run_id("warp", exposure.index), cell, warps[exposure])
        for filter_ in FILTERS:
            inputs = [exposure for exposure in exposures if exposure.filter == filter_]
            stack = draw_stack(plan, inputs, [warps[exposure] for exposure in inputs], cell)
            _write_stack(folder, plan, inputs[0], cell, stack, convolve(stack))
            finish("stack", stack_id(filter_, cell), cell, stack)
            for exposure in inputs:
                diff = draw_diff(plan, exposure, warps[exposure], stack)
                _write_component(folder, plan, "diff", exposure, cell, diff)
                finish("diff", run_id("diff", exposure.index), cell, diff)
    return drawn


def _write_component(folder: Path, plan: Field, stage: str, exposure: Exposure, cell: str, planes: Planes) -> None:
    """Write a warp or a difference, as far as its state leaves files: none of a purged one, small ones of a cleaned."""
    from simtest.files import write_image, write_pixels, write_tables
    from simtest.images import CELL_PIXEL, draw_psf, find_sources
    from simtest.rows import path_base, state

    base, now = path_base(stage, exposure, cell), state(stage, exposure.index)
    if now == "full":
        write_pixels(folder / base, stage, planes)
    if now != "purged":
        write_tables(folder / f"{base}.cmf", planes.header, {"SkyChip.psf": find_sources(plan, exposure, planes, base)})
        write_image(folder / f"{base}.psf", draw_psf(planes.fwhm / CELL_PIXEL))


def _write_stack(folder: Path, plan: Field, first: Exposure, cell: str, stack: Planes, convolved: Planes) -> None:
    from simtest.files import write_image, write_pixels, write_tables
    from simtest.images import CELL_PIXEL, draw_psf, find_sources
    from simtest.rows import path_base

    base = path_base("stack", first, cell)
    write_pixels(folder / base, "stack", convolved)
    write_pixels(folder / base, "unconv", stack)
    for name in ("exp", "num"):
        write_image(folder / f"{base}.unconv.{name}.fits", stack.extra[name], stack.header)
    write_tables(folder / f"{base}.cmf", stack.header, {"SkyChip.psf": find_sources(plan, first, stack, base)})
    write_image(folder / f"{base}.target.psf", draw_psf(convolved.fwhm / CELL_PIXEL))


def _drawn(planes: Planes) -> Drawn:
    import numpy as np

    from simtest.rows import Drawn

    rows, columns = planes.image.shape
    return Drawn(planes.header, (rows, columns), float(np.isfinite(planes.image).mean()), planes.chips)


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
