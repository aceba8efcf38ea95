"""What is asked of an image database, and what it answers: `Selection`, `Image`, and the names of an image's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

INVERSE = 1024
UNCONVOLVED = 2048
MULTI_OVERLAP = 8192
USE_IMFILE_ID = 16384


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The columns of a request row by which images are selected; None, or 0 for a date, where nothing is asked.

    Attributes
    ----------
    req_type, img_type : str
        REQ_TYPE and IMG_TYPE.
    id : str
        ID: the number of a run for ``byid`` (of a file with option 16384), the name of an exposure for ``byexp``.
    tess_id, component : str
        Tessellation; chip or skycell. Component ``all``: every one, wherever the position is.
    data_group, reqfilt : str
        SQL LIKE patterns; case is ignored. A filter of one letter stands for all that begin with it.
    mjd_min, mjd_max : float
        Limits of the date, TAI days.
    run_type : str
        For differences: ``warp_warp``, ``warp_stack`` or ``stack_stack``.
    position : tuple[float, float]
        RA and Dec in degrees; None when the centre is given in pixels.
    size_deg : tuple[float, float]
        Width and height of the stamp in degrees; None when the size is given in pixels or is that of the file.
    options : int
        OPTION_MASK; the bits 1024 (inverse), 2048 (unconvolved), 8192 (all that the box touches) and 16384 (ID is
        that of a file) matter here.
    """

    req_type: str
    img_type: str
    id: str | None = None
    tess_id: str | None = None
    component: str | None = None
    data_group: str | None = None
    reqfilt: str | None = None
    mjd_min: float = 0.0
    mjd_max: float = 0.0
    run_type: str | None = None
    position: tuple[float, float] | None = None
    size_deg: tuple[float, float] | None = None
    options: int = 1


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image that matches: a component of a run, with its files.

    Attributes
    ----------
    stage, stage_id, component : str, int, str
        What it is: the stage, the number of the run (of the exposure for ``raw``), the chip or skycell.
    tess_id : str or None
        Tessellation of a skycell.
    exp_id, exp_name : int, str or None
        The exposure; None for stacks and differences of stacks.
    filter : str or None
        Name of the filter.
    mjd_obs : float or None
        Start of the exposure, TAI days, with all leap seconds; for stacks the mean epoch as stored.
    ra_obs, dec_obs : float or None
        Pointing of the exposure, degrees.
    exp_time : float or None
        Seconds.
    camera, data_group : str or None
        As stored.
    diff_mode : int or None
        1 warp-warp, 2 warp-stack, 3 stack-warp, 4 stack-stack.
    image : Path
        The file with the pixels; it is named whether it is there or not.
    hdu : int or None
        Which HDU of it, from 0; None: the first that holds an image.
    mask, variance : Path or None
        Named for every image that the pipeline made, whether they are there or not.
    sources, psf, backmdl, exposure, number : Path or None
        Named when they are there. A job that waited for its image should look again.
    run_state, data_state, fault, quality, magicked : str, str, int, int, int
        What `classify` asks for.
    """

    stage: str
    stage_id: int
    component: str
    tess_id: str | None
    exp_id: int | None
    exp_name: str | None
    filter: str | None
    mjd_obs: float | None
    ra_obs: float | None
    dec_obs: float | None
    exp_time: float | None
    camera: str | None
    data_group: str | None
    diff_mode: int | None
    image: Path
    hdu: int | None
    mask: Path | None
    variance: Path | None
    sources: Path | None
    psf: Path | None
    backmdl: Path | None
    exposure: Path | None
    number: Path | None
    run_state: str
    data_state: str
    fault: int
    quality: int
    magicked: int


@dataclass(frozen=True, kw_only=True)
class Spot:
    """The pixel of one image at which a position lies.

    Attributes
    ----------
    stage, stage_id, component, tess_id, exp_name, filter, mjd_obs
        As those of `Image`.
    x, y : float
        The pixel (FITS: the first is centred on 1, 1).
    """

    stage: str
    stage_id: int
    component: str
    tess_id: str | None
    exp_name: str | None
    filter: str | None
    mjd_obs: float | None
    x: float
    y: float


ALWAYS = ("image", "mask", "variance")
_MAPS = {"exposure": ".unconv.exp.fits", "number": ".unconv.num.fits"}
_WARP = {
    "image": ".fits", "mask": ".mask.fits", "variance": ".wt.fits", "sources": ".cmf", "psf": ".psf",
}  # fmt: skip
_SUFFIXES: Mapping[str, Mapping[str, str]] = {
    "chip": {
        "image": ".ch.fits", "mask": ".ch.mk.fits", "variance": ".ch.wt.fits", "sources": ".cmf", "psf": ".psf",
        "backmdl": ".mdl.fits",
    },
    "warp": _WARP,
    "diff": _WARP,
    "diff inverse": {
        "image": ".inv.fits", "mask": ".inv.mask.fits", "variance": ".inv.wt.fits", "sources": ".inv.cmf",
        "psf": ".psf",
    },
    "stack": {**_WARP, "psf": ".target.psf", **_MAPS},
    "stack unconvolved": {
        "image": ".unconv.fits", "mask": ".unconv.mask.fits", "variance": ".unconv.wt.fits", "sources": ".cmf",
        "psf": ".target.psf", **_MAPS,
    },
}  # fmt: skip


def file_names(stage: str, path_base: str, options: int, *, bothways: bool) -> dict[str, str]:
    """Return the files of a component by product (`filerules-split.mdc`).

    Parameters
    ----------
    stage : str
        ``chip``, ``warp``, ``diff`` or ``stack``.
    path_base : str
        What all their names begin with.
    options : int
        Bit 1024 takes the inverse of a difference, bit 2048 the unconvolved stack.
    bothways : bool
        Whether the difference was made both ways; else there is no inverse and the bit is ignored.
    """
    kind = stage
    if stage == "diff" and options & INVERSE and bothways:
        kind = "diff inverse"
    elif stage == "stack" and options & UNCONVOLVED:
        kind = "stack unconvolved"
    return {product: path_base + suffix for product, suffix in _SUFFIXES[kind].items()}
