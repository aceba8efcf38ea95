"""The stages as tables: from which rows an image of each stage is read, and which column means what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from peewee import JOIN, Case, Model, ModelSelect, Value, fn

from pstamp_core.imagedb.images import INVERSE
from pstamp_core.imagedb.tables import (
    camRun,
    chipImfile,
    chipProcessedImfile,
    chipRun,
    diffInputSkyfile,
    diffRun,
    diffSkyfile,
    fakeRun,
    pstampImage,
    rawExp,
    rawImfile,
    stackRun,
    stackSumSkyfile,
    warpImfile,
    warpRun,
    warpSkyfile,
)

_NO_ID = 2**63 - 1  # psLib's "no value" of a 64-bit integer; 0 means the same
_NONE: Any = Value(None)


@dataclass(frozen=True)
class Stage:
    """The joined tables of one stage.

    Attributes
    ----------
    columns : Mapping[str, Any]
        Expressions by name: ``stage_id component file_id tess_id exp_id exp_name filter dateobs mjd ra decl exp_time
        camera data_group diff_mode bothways path_base run_state data_state fault quality magicked``,
        and of `pstampImage` ``footprint_id path hdu``.
    joins : tuple[tuple[type[Model], Any, str], ...]
        What else is joined to `table`: model, condition, kind of join.
    table : type[Model]
        The first table.
    """

    columns: Mapping[str, Any]
    joins: tuple[tuple[type[Model], Any, str], ...]
    table: type[Model]

    def select(self, *columns: Any) -> ModelSelect:
        """Return a query for `columns` of the joined tables."""
        query = self.table.select(*columns)
        for table, on, how in self.joins:
            query = query.join(table, how, on=on)
        return query


_EXPOSURE = {
    "exp_id": rawExp.exp_id, "exp_name": rawExp.exp_name, "filter": rawExp.filter, "dateobs": rawExp.dateobs,
    "mjd": _NONE, "ra": rawExp.ra, "decl": rawExp.decl, "exp_time": rawExp.exp_time, "camera": rawExp.camera,
    "diff_mode": _NONE, "bothways": _NONE,
}  # fmt: skip

_FROM_WARP_TO_EXPOSURE = (
    (fakeRun, fakeRun.fake_id == warpRun.fake_id),
    (camRun, camRun.cam_id == fakeRun.cam_id),
    (chipRun, chipRun.chip_id == camRun.chip_id),
    (rawExp, rawExp.exp_id == chipRun.exp_id),
)


def _raw() -> Stage:
    file = rawImfile
    columns = {
        **_EXPOSURE, "stage_id": file.exp_id, "component": file.class_id, "file_id": file.raw_imfile_id,
        "tess_id": _NONE, "data_group": _NONE, "path_base": file.uri, "run_state": rawExp.state,
        "data_state": file.data_state, "fault": file.fault, "quality": file.quality, "magicked": file.magicked,
    }  # fmt: skip
    return Stage(columns, ((rawExp, rawExp.exp_id == file.exp_id, JOIN.INNER),), file)


def _chip() -> Stage:
    file = chipProcessedImfile
    columns = {
        **_EXPOSURE, "stage_id": file.chip_id, "component": file.class_id, "file_id": chipImfile.chip_imfile_id,
        "tess_id": _NONE, "data_group": chipRun.data_group, "path_base": file.path_base, "run_state": chipRun.state,
        "data_state": file.data_state, "fault": file.fault, "quality": file.quality, "magicked": file.magicked,
    }  # fmt: skip
    joins = (
        (chipRun, chipRun.chip_id == file.chip_id, JOIN.INNER),
        (rawExp, rawExp.exp_id == chipRun.exp_id, JOIN.INNER),
        (chipImfile, (chipImfile.chip_id == file.chip_id) & (chipImfile.class_id == file.class_id), JOIN.LEFT_OUTER),
    )
    return Stage(columns, joins, file)


def _warp() -> Stage:
    file = warpSkyfile
    columns = {
        **_EXPOSURE, "stage_id": file.warp_id, "component": file.skycell_id, "file_id": warpImfile.warp_skyfile_id,
        "tess_id": file.tess_id, "data_group": warpRun.data_group, "path_base": file.path_base,
        "run_state": warpRun.state, "data_state": file.data_state, "fault": file.fault, "quality": file.quality,
        "magicked": file.magicked,
    }  # fmt: skip
    joins = (
        (warpRun, warpRun.warp_id == file.warp_id, JOIN.INNER),
        *((table, on, JOIN.INNER) for table, on in _FROM_WARP_TO_EXPOSURE),
        (
            warpImfile,
            (warpImfile.warp_id == file.warp_id) & (warpImfile.skycell_id == file.skycell_id),
            JOIN.LEFT_OUTER,
        ),
    )
    return Stage(columns, joins, file)


def _diff(options: int) -> Stage:
    """Return the joined tables; the exposure is that of input 1, or of input 2 for the inverse of a bothways run."""
    file, inputs = diffSkyfile, diffInputSkyfile

    def of_input(first: Any, second: Any) -> Any:
        if options & INVERSE:
            inverse = diffRun.bothways == True  # noqa: E712 (SQL)
            first, second = Case(None, [(inverse, second)], first), Case(None, [(inverse, first)], second)
        return fn.COALESCE(*(fn.NULLIF(fn.NULLIF(number, 0), _NO_ID) for number in (first, second)))

    columns = {
        **_EXPOSURE, "stage_id": file.diff_id, "component": file.skycell_id, "file_id": inputs.diff_skyfile_id,
        "tess_id": inputs.tess_id, "filter": fn.COALESCE(rawExp.filter, stackRun.filter),
        "mjd": stackSumSkyfile.mjd_obs, "data_group": diffRun.data_group, "path_base": file.path_base,
        "diff_mode": diffRun.diff_mode, "bothways": diffRun.bothways, "run_state": diffRun.state,
        "data_state": file.data_state, "fault": file.fault, "quality": file.quality, "magicked": file.magicked,
    }  # fmt: skip
    warp, stack = of_input(inputs.warp1, inputs.warp2), of_input(inputs.stack1, inputs.stack2)
    stack_stack = rawExp.exp_id.is_null() & (stackSumSkyfile.stack_id == stackRun.stack_id)
    joins = (
        (diffRun, diffRun.diff_id == file.diff_id, JOIN.INNER),
        (inputs, (inputs.diff_id == file.diff_id) & (inputs.skycell_id == file.skycell_id), JOIN.INNER),
        (warpRun, warpRun.warp_id == warp, JOIN.LEFT_OUTER),
        *((table, on, JOIN.LEFT_OUTER) for table, on in _FROM_WARP_TO_EXPOSURE),
        (stackRun, stackRun.stack_id == stack, JOIN.LEFT_OUTER),
        (stackSumSkyfile, stack_stack, JOIN.LEFT_OUTER),
    )
    return Stage(columns, joins, file)


def _stack() -> Stage:
    run, file = stackRun, stackSumSkyfile
    columns = {
        **dict.fromkeys(_EXPOSURE, _NONE), "stage_id": run.stack_id, "component": run.skycell_id, "file_id": _NONE,
        "tess_id": run.tess_id, "filter": run.filter, "mjd": file.mjd_obs, "data_group": run.data_group,
        "path_base": file.path_base, "run_state": run.state, "data_state": run.state, "fault": file.fault,
        "quality": file.quality, "magicked": Value(0),
    }  # fmt: skip
    return Stage(columns, ((file, file.stack_id == run.stack_id, JOIN.INNER),), run)


_STAGES: Mapping[str, Callable[[], Stage]] = {"raw": _raw, "chip": _chip, "warp": _warp, "stack": _stack}
STAGES = (*_STAGES, "diff")


def stage_tables(stage: str, options: int) -> Stage:
    """Return the joined tables of a stage, with the footprint of each image where one is known."""
    tables = _diff(options) if stage == "diff" else _STAGES[stage]()
    columns = tables.columns
    on = (
        (pstampImage.stage == stage)
        & (pstampImage.stage_id == columns["stage_id"])
        & (pstampImage.component == columns["component"])
    )
    known: dict[str, Any] = {name: getattr(pstampImage, name) for name in ("footprint_id", "path", "hdu")}
    joins: Any = (*tables.joins, (pstampImage, on, JOIN.LEFT_OUTER))
    return Stage({**columns, **known, "stage": Value(stage)}, joins, tables.table)


def warps_of(exposures: Any) -> list[int]:
    """Return the numbers of the warp runs of exposures, given as a condition on `rawExp`."""
    query = rawExp.select(warpRun.warp_id)
    query = query.join(chipRun, on=chipRun.exp_id == rawExp.exp_id).join(camRun, on=camRun.chip_id == chipRun.chip_id)
    query = query.join(fakeRun, on=fakeRun.cam_id == camRun.cam_id).join(warpRun, on=warpRun.fake_id == fakeRun.fake_id)
    rows: Any = query.where(exposures).tuples()
    return [warp_id for (warp_id,) in rows]
