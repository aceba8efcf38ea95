"""Make the files of one component of a simulated survey again, as the processing command of an update server does.

``python -m simtest.process FOLDER STAGE STAGE_ID COMPONENT`` makes a chip from its raw image, a warp from chips, a
difference from a warp and another warp or a stack; stage ``destreak`` takes a satellite's streak from a chip, in place.
It ends in 0, or in an exit code with one line on standard error. States are left to whoever calls it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pstamp_core.faults import Fault, PstampError, RetryableError
from pstamp_core.imagedb import tables as t
from simtest.components import PIXELS, STAGES, in_database, plan_of, purge
from simtest.orders import What, take

_READ = {
    **PIXELS,
    "raw": ("",),
    "stack": (".unconv.fits", ".unconv.mask.fits", ".unconv.wt.fits", ".unconv.num.fits"),
}
"""The files that an input consists of, after its path."""


@dataclass(frozen=True)
class _Input:
    """One input: its stage, the number of its run, and its path as the database has it."""

    stage: str
    stage_id: int
    path: str


@dataclass(frozen=True)
class _Plan:
    """What is to be made: its exposure, from 0, its path, and its inputs; chips by their class."""

    exposure: int
    path: str
    inputs: Mapping[str, _Input]


def process(folder: Path, stage: str, stage_id: int, component: str) -> None:
    """Make one component again, or do what is ordered for it (`simtest.orders`).

    The same inputs give the same bytes. It may be killed at any moment, and run again.

    Parameters
    ----------
    folder : Path
        Of the survey.
    stage : str
        ``chip``, ``warp``, ``diff`` or ``destreak``.
    stage_id : int
        Number of the run; for ``destreak`` that of the chip run.
    component : str
        Class or skycell.

    Raises
    ------
    RetryableError
        Fault 2: an input is not there, or something can't be read or written; 5: an input is damaged, or there is no
        such component.
    PstampError
        The fault that was ordered.
    """
    what = f"{stage} {stage_id} {component}"
    plan_of(folder)
    if stage not in _PLANS:
        raise RetryableError(f"{what}: expected one of the stages {', '.join(_PLANS)}", Fault.PS_EXIT_DATA_ERROR)
    plan = in_database(folder, lambda: _PLANS[stage](stage_id, component))
    if plan is None:
        raise RetryableError(f"{what}: there is no such component", Fault.PS_EXIT_DATA_ERROR)
    _obey(folder, stage, stage_id, component, plan)
    try:
        _make(folder, stage, component, plan)
    except OSError as error:
        raise RetryableError(f"{what}: {error}") from error
    except RetryableError as error:
        raise RetryableError(f"{what}: {error}", error.fault) from error


def _make(folder: Path, stage: str, component: str, plan: _Plan) -> None:
    from simtest import making

    field, base = plan_of(folder), folder / plan.path
    exposure = field.exposure(plan.exposure)
    inputs = {name: folder / one.path for name, one in plan.inputs.items()}
    if stage == "chip":
        making.make_chip(folder, field, exposure, component, inputs["raw"], base)
    elif stage == "destreak":
        making.destreak(field, exposure, component, base)
    elif stage == "warp":
        making.make_warp(field, exposure, component, inputs, base)
    else:
        other = field.exposure(_exposure(plan.inputs["warp2"])) if "warp2" in inputs else None
        template = inputs["warp2" if other else "stack2"]
        making.make_diff(field, exposure, component, inputs["warp1"], (other, template), base)


def _obey(folder: Path, stage: str, stage_id: int, component: str, plan: _Plan) -> None:
    """Do what is ordered for this run."""
    order = take(folder, stage, stage_id, component)
    if order is None:
        return
    if order.what is What.FAIL:
        raise PstampError(f"{stage} {stage_id} {component}: fault {order.fault}, as ordered", order.fault)
    if order.what is What.HANG:
        while True:
            time.sleep(3600)
    if order.what is What.VANISH:
        for one in plan.inputs.values():
            for suffix in _READ[one.stage]:
                (folder / f"{one.path}{suffix}").unlink(missing_ok=True)
    else:
        run = "chip" if stage == "destreak" else stage
        in_database(folder, lambda: purge(run, stage_id, component))


def _exposure(of: _Input) -> int:
    from simtest.rows import exposure_of

    return exposure_of(of.stage, of.stage_id)


def _input(stage: str, stage_id: int, component: str) -> _Input:
    row: Any = STAGES[stage].part.get(STAGES[stage].of_part(stage_id, component))
    return _Input(stage, stage_id, row.path_base)


def _plan(stage: str, stage_id: int, component: str, inputs: Callable[[Any], Mapping[str, _Input]]) -> _Plan | None:
    """Return what to do for a component with these inputs, told by its row; None: it has no row."""
    row: Any = STAGES[stage].part.get_or_none(STAGES[stage].of_part(stage_id, component))
    if row is None:
        return None
    return _Plan(_exposure(_Input(stage, stage_id, row.path_base)), row.path_base, inputs(row))


def _chip(chip_id: int, class_id: str) -> _Plan | None:
    def raw(row: Any) -> Mapping[str, _Input]:
        file: Any = t.rawImfile.get(t.rawImfile.exp_id == row.exp_id, t.rawImfile.class_id == class_id)
        return {"raw": _Input("raw", row.exp_id, file.uri)}

    return _plan("chip", chip_id, class_id, raw)


def _destreak(chip_id: int, class_id: str) -> _Plan | None:
    return _plan("chip", chip_id, class_id, lambda row: {class_id: _Input("chip", chip_id, row.path_base)})


def _warp(warp_id: int, skycell_id: str) -> _Plan | None:
    def chips(_: Any) -> Mapping[str, _Input]:
        run: Any = (
            t.camRun.select(t.camRun.chip_id)
            .join(t.fakeRun, on=t.fakeRun.cam_id == t.camRun.cam_id)
            .join(t.warpRun, on=t.warpRun.fake_id == t.fakeRun.fake_id)
            .where(t.warpRun.warp_id == warp_id)
            .get()
        )
        below: Any = t.warpSkyCellMap.select().where(
            t.warpSkyCellMap.warp_id == warp_id, t.warpSkyCellMap.skycell_id == skycell_id
        )
        return {row.class_id: _input("chip", run.chip_id, row.class_id) for row in below}

    return _plan("warp", warp_id, skycell_id, chips)


def _diff(diff_id: int, skycell_id: str) -> _Plan | None:
    def warps(_: Any) -> Mapping[str, _Input]:
        table = t.diffInputSkyfile
        row: Any = table.get(table.diff_id == diff_id, table.skycell_id == skycell_id)
        inputs = {"warp1": _input("warp", row.warp1, skycell_id)}
        if row.warp2:
            inputs["warp2"] = _input("warp", row.warp2, skycell_id)
        else:
            stack: Any = t.stackSumSkyfile.get_by_id(row.stack2)
            inputs["stack2"] = _Input("stack", row.stack2, stack.path_base)
        return inputs

    return _plan("diff", diff_id, skycell_id, warps)


_PLANS: dict[str, Callable[[int, str], _Plan | None]] = {
    "chip": _chip,
    "destreak": _destreak,
    "warp": _warp,
    "diff": _diff,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("simtest.process", description="Make one component of a simulated survey again.")
    parser.add_argument("folder", type=Path, help="the survey")
    parser.add_argument("stage", help=", ".join(_PLANS))
    parser.add_argument("stage_id", type=int, help="number of the run; for destreak that of the chip run")
    parser.add_argument("component", help="class or skycell")
    try:
        process(**vars(parser.parse_args(arguments)))
    except PstampError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return error.fault
    return 0


if __name__ == "__main__":
    sys.exit(main())
