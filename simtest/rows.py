"""What the image database says of a simulated survey: ids, paths, states, and the rows of the gpc1 tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import radians
from typing import Any

from astropy.io import fits
from astropy.wcs import WCS
from peewee import Model

from pstamp_core.imagedb import tables as t
from simtest.images import CELL_PIXEL, CHIPS, SKYCELLS, STREAKED, TESS_ID, Exposure, Field, cell_header
from simtest.sky import FILTERS, PIXEL

Rows = dict[type[Model], list[dict[str, Any]]]
Key = tuple[str, int, str]
"""Stage, id of the run (of the exposure for raw), component."""

_FIRST = {"raw": 9001, "chip": 10001, "cam": 20001, "fake": 30001, "warp": 40001, "diff": 50001, "stack": 60001}
_FIRST_FILE = {"raw": 700001, "chip": 710001, "warp": 720001, "diff": 730001}
# Apart from each other, and above the ids below which gpc1's differences and unconvolved stacks can't be had.

CLEANED_WARP, LOST_WARP, CLEANED_CHIP, PURGED_DIFF = 1, 2, STREAKED, 4
"""Exposures, from 0: warp `cleaned`, warp `error_cleaned`, chips `cleaned`, diff `purged`."""
WARP_WARP = (0, 4)
"""Exposures, from 0, of one more difference: the warps of the first less those of the second."""
NEVER_DESTREAKED = 4
"""Exposure, from 0, that was never destreaked, also where the others were."""
WARP_WARP_ID = 50101
"""Number of that difference, above those of the most exposures."""
SPECIAL = {
    ("warp", CLEANED_WARP): "cleaned",
    ("warp", LOST_WARP): "error_cleaned",
    ("chip", CLEANED_CHIP): "cleaned",
    ("diff", PURGED_DIFF): "purged",
}
"""The states of runs, by stage and exposure from 0, that are not full, and of all their components."""
_DESTREAK = 80001  # destreak run of the first exposure
_RUN = {"label": "simtest", "data_group": "simtest", "reduction": "DEFAULT", "tess_id": TESS_ID}


@dataclass(frozen=True)
class Drawn:
    """What is to be remembered of an image that was drawn: its header, rows and columns, finite share, chips below."""

    header: fits.Header
    shape: tuple[int, int]
    good_frac: float
    chips: tuple[str, ...]


def run_id(stage: str, exposure: int) -> int:
    """Return the id of the run of a stage on exposure number `exposure`, from 0; for raw, exp_id."""
    return _FIRST[stage] + exposure


def exposure_of(stage: str, stage_id: int) -> int:
    """Return the number of the exposure that a run belongs to; of a difference of warps, that of the first."""
    return WARP_WARP[0] if (stage, stage_id) == ("diff", WARP_WARP_ID) else stage_id - _FIRST[stage]


def stack_id(filter_: str, skycell_id: str) -> int:
    """Return the id of a stack."""
    return _FIRST["stack"] + len(SKYCELLS) * FILTERS.index(filter_) + SKYCELLS.index(skycell_id)


def state(stage: str, exposure: int) -> str:
    """Return the state of the run of a stage on an exposure, and of its components."""
    return SPECIAL.get((stage, exposure), "full")


@dataclass(frozen=True)
class Difference:
    """One run of the difference stage.

    Attributes
    ----------
    diff_id : int
        Its number.
    exposure : Exposure
        The exposure whose warps are the input.
    template : Exposure or None
        The exposure whose warps are the template; None: the stacks.
    state : str
        Of the run and its components.
    """

    diff_id: int
    exposure: Exposure
    template: Exposure | None
    state: str


def differences(plan: Field) -> list[Difference]:
    """Return all runs of the difference stage: one for each exposure and its stacks, and one of two exposures."""
    stacks = [
        Difference(run_id("diff", one.index), one, None, state("diff", one.index)) for one in plan.all_exposures()
    ]
    first, second = (plan.exposure(index) for index in WARP_WARP)
    return [*stacks, Difference(WARP_WARP_ID, first, second, "full")]


def magicked(plan: Field, stage: str, *exposures: int) -> int:
    """Return what the database says of the destreaking of a stage's run on exposures (IPP: < 0, then cleaned)."""
    if not plan.magic or NEVER_DESTREAKED in exposures:
        return 0
    return _DESTREAK + exposures[0] if state(stage, exposures[0]) == "full" else -1


def path_base(stage: str, exposure: Exposure, component: str, number: int | None = None) -> str:
    """Return the name that the file rules add their suffixes to; short, since the names of products hold it.

    A stack's is that of its filter (the exposure's) and skycell. `number` is that of the run, if it is not the one that
    goes by the exposure.
    """
    name, exp_id = exposure.name, run_id("raw", exposure.index)
    if stage == "stack":
        return f"stack/{component}/{component}.stk.{stack_id(exposure.filter, component)}"
    number = number or run_id(stage, exposure.index)
    return {
        "raw": f"raw/{name}/{name}.{component}",
        "chip": f"chip/{name}.{exp_id}/{name}.{exp_id}.ch.{number}.{component}",
        "cam": f"cam/{name}.{exp_id}/{name}.{exp_id}.cm.{number}",
        "warp": f"warp/{component}/{name}.wrp.{number}.{component}",
        "diff": f"diff/{component}/{name}.dif.{number}.{component}",
    }[stage]


def make_rows(plan: Field, drawn: Mapping[Key, Drawn]) -> Rows:
    """Return all rows of the gpc1 tables for a survey whose images were drawn."""
    rows: Rows = {table: [] for table in t.TABLES}
    for exposure in plan.all_exposures():
        _add_chips(rows, plan, exposure)
        _add_warps(rows, plan, exposure, drawn)
    for index, difference in enumerate(differences(plan)):
        _add_difference(rows, plan, difference, index, drawn)
    for filter_ in FILTERS:
        for cell in SKYCELLS:
            _add_stack(rows, plan.through(filter_), cell, drawn)
    rows[t.skycell] += [_skycell(plan, cell) for cell in SKYCELLS]
    return rows


def _add_chips(rows: Rows, plan: Field, exposure: Exposure) -> None:
    """Add the rows of one exposure up to the camera stage."""
    i = exposure.index
    exp_id, chip_id, cam_id = (run_id(stage, i) for stage in ("raw", "chip", "cam"))
    seen = {
        "exp_id": exp_id,
        "filter": exposure.filter,
        "dateobs": exposure.dateobs,
        "ra": radians(exposure.ra),
        "decl": radians(exposure.dec),
        "exp_time": exposure.seconds,
    }
    named = {"exp_name": exposure.name, "camera": "GPC1", "telescope": "PS1", "tess_id": TESS_ID, "object": "simtest"}
    rows[t.rawExp].append(seen | named)
    chip_state, magic = state("chip", i), {"magicked": magicked(plan, "chip", i)}
    rows[t.chipRun].append(
        {**_RUN, **magic, "dist_group": "simtest", "chip_id": chip_id, "exp_id": exp_id, "state": chip_state}
    )
    for number, class_id in enumerate(CHIPS):
        file = len(CHIPS) * i + number
        uri, base = path_base("raw", exposure, class_id) + ".fits", path_base("chip", exposure, class_id)
        rows[t.rawImfile].append({**seen, "raw_imfile_id": _FIRST_FILE["raw"] + file, "class_id": class_id, "uri": uri})
        chip = {"chip_id": chip_id, "class_id": class_id}
        rows[t.chipImfile].append({**chip, "chip_imfile_id": _FIRST_FILE["chip"] + file})
        rows[t.chipProcessedImfile].append(
            {**chip, **magic, "exp_id": exp_id, "data_state": chip_state, "uri": base + ".ch.fits", "path_base": base}
        )
    if magic["magicked"]:
        _add_destreaking(rows, exposure, chip_id)
    base = path_base("cam", exposure, "")
    rows[t.camRun].append({**_RUN, "cam_id": cam_id, "chip_id": chip_id, "state": "full"})
    measured = {"zpt_obs": exposure.zero_point, "fwhm_major": exposure.fwhm / PIXEL}
    rows[t.camProcessedExp].append({**measured, "cam_id": cam_id, "uri": base + ".smf", "path_base": base})
    rows[t.fakeRun].append({"fake_id": run_id("fake", i), "cam_id": cam_id, "state": "full"})


def _add_destreaking(rows: Rows, exposure: Exposure, chip_id: int) -> None:
    """Add the rows of the destreak run of the chips of one exposure."""
    number, now = _DESTREAK + exposure.index, state("chip", exposure.index)
    own = {"label": _RUN["label"], "data_group": _RUN["data_group"], "re_place": True}
    rows[t.magicDSRun].append({**own, "magic_ds_id": number, "stage": "chip", "stage_id": chip_id, "state": now})
    rows[t.magicDSFile] += [{"magic_ds_id": number, "component": class_id, "data_state": now} for class_id in CHIPS]


def _add_warps(rows: Rows, plan: Field, exposure: Exposure, drawn: Mapping[Key, Drawn]) -> None:
    """Add the rows of the warps of one exposure."""
    i = exposure.index
    warp_id, magic = run_id("warp", i), {"magicked": magicked(plan, "warp", i)}
    run = {**_RUN, **magic, "dist_group": "simtest", "registered": exposure.dateobs, "fake_id": run_id("fake", i)}
    rows[t.warpRun].append({**run, "warp_id": warp_id, "state": state("warp", i)})
    for number, cell in enumerate(SKYCELLS):
        file, here = _FIRST_FILE["warp"] + len(SKYCELLS) * i + number, {"skycell_id": cell, "tess_id": TESS_ID}
        base, warp = path_base("warp", exposure, cell), drawn["warp", warp_id, cell]
        rows[t.warpSkyCellMap] += [{**here, "warp_id": warp_id, "class_id": class_id} for class_id in warp.chips]
        rows[t.warpImfile].append({"warp_skyfile_id": file, "warp_id": warp_id, "skycell_id": cell})
        files = {"path_base": base, "data_state": state("warp", i), "good_frac": warp.good_frac}
        rows[t.warpSkyfile].append({**here, **magic, **files, "warp_id": warp_id, "uri": base + ".fits"})


def _add_difference(rows: Rows, plan: Field, diff: Difference, index: int, drawn: Mapping[Key, Drawn]) -> None:
    """Add the rows of one run of the difference stage, number `index` from 0."""
    exposures = [one for one in (diff.exposure, diff.template) if one]
    warps = [run_id("warp", one.index) for one in exposures]
    run = {"diff_id": diff.diff_id, "magicked": magicked(plan, "diff", *(one.index for one in exposures))}
    kind = {"exposure": True, "bothways": False, "diff_mode": 1 if diff.template else 2}
    registered = {"dist_group": "simtest", "registered": exposures[-1].dateobs}
    rows[t.diffRun].append({**_RUN, **run, **kind, **registered, "state": diff.state})
    for number, cell in enumerate(SKYCELLS):
        file = _FIRST_FILE["diff"] + len(SKYCELLS) * index + number
        inputs = {"warp1": warps[0], "stack1": None, "warp2": None, "stack2": None}
        inputs |= {"warp2": warps[1]} if diff.template else {"stack2": stack_id(diff.exposure.filter, cell)}
        rows[t.diffInputSkyfile].append(
            {**inputs, "diff_id": diff.diff_id, "skycell_id": cell, "tess_id": TESS_ID, "diff_skyfile_id": file}
        )
        files = {
            "path_base": path_base("diff", diff.exposure, cell, diff.diff_id),
            "good_frac": drawn["diff", diff.diff_id, cell].good_frac,
        }
        rows[t.diffSkyfile].append({**run, **files, "skycell_id": cell, "data_state": diff.state})


def _add_stack(rows: Rows, inputs: list[Exposure], cell: str, drawn: Mapping[Key, Drawn]) -> None:
    number = stack_id(inputs[0].filter, cell)
    base, stack = path_base("stack", inputs[0], cell), drawn["stack", number, cell]
    rows[t.stackRun].append(
        {
            **_RUN,
            "stack_id": number,
            "state": "full",
            "dist_group": "simtest",
            "skycell_id": cell,
            "filter": inputs[0].filter,
            "registered": inputs[-1].dateobs,
        }
    )
    rows[t.stackInputSkyfile] += [{"stack_id": number, "warp_id": run_id("warp", one.index)} for one in inputs]
    rows[t.stackSumSkyfile].append(
        {
            "stack_id": number,
            "uri": base + ".fits",
            "path_base": base,
            "mjd_obs": stack.header["MJD-OBS"],
            "good_frac": stack.good_frac,
        }
    )


def _skycell(plan: Field, cell: str) -> dict[str, Any]:
    rows, columns = plan.cell_shape
    ra, dec = WCS(cell_header(plan, cell)).all_pix2world((columns + 1) / 2, (rows + 1) / 2, 1)
    return {
        "tess_id": TESS_ID,
        "skycell_id": cell,
        "radeg": float(ra),
        "decdeg": float(dec),
        "width": columns * CELL_PIXEL / 3600,
        "height": rows * CELL_PIXEL / 3600,
    }
