"""Make the pixels of one component from the files of its inputs, at its place: for a new survey, and again for an old.

The same inputs give the same bytes. Each file appears whole or not at all; whoever makes something takes turns with the
others in its folder, and first removes what those left that were killed there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pstamp_core.files import sweep
from simtest import images, pipeline
from simtest.files import Stored, names, read_image, read_pixels, write_image, write_pixels
from simtest.images import CELL_PIXEL, GHOST, STREAK_EDGE, Exposure, Field
from simtest.pipeline import Planes
from simtest.sky import Array, moving_place


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one who writes to a folder, within the block; what dead writers left there is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        sweep(folder)
        yield
    finally:
        os.close(handle)


def detrend(folder: Path, class_id: str, kind: str) -> Path:
    """Return the name of a chip's ``bias``, ``flat`` or ``mask``."""
    return folder / "detrend" / f"{class_id}.{kind}.fits"


def make_chip(
    folder: Path, plan: Field, exposure: Exposure, class_id: str, raw: Path, base: Path
) -> tuple[Planes, Array]:
    """Make a chip from its raw image; return it, and its background model."""
    bias, flat, dead = (read_image(detrend(folder, class_id, kind)) for kind in ("bias", "flat", "mask"))
    mask = dead | images.optics_mask(plan, exposure, class_id)
    planes, model = pipeline.calibrate(
        read_image(raw).astype("f4"), bias, flat, mask, images.chip_header(plan, exposure, class_id)
    )
    with alone(base.parent):
        write_pixels(base, "chip", planes)
    return planes, model


def destreak(plan: Field, exposure: Exposure, class_id: str, base: Path) -> None:
    """Take the pixels of the satellite's streak from a chip, in place: NaN, and STREAK in the mask.

    Done twice, it is as done once; other pixels keep their bits.
    """
    header, streak = images.chip_header(plan, exposure, class_id), images.streak_mask(plan, exposure, class_id)
    image, mask, variance = names(base, "chip")
    with alone(base.parent):
        contents = [Stored.read(image), read_image(mask), Stored.read(variance)]
        for path, old in zip((image, mask, variance), contents, strict=True):
            if isinstance(old, Stored):
                write_image(path, old.without(streak > 0), header)
            else:
                write_image(path, old | streak, header)


def make_warp(
    plan: Field, exposure: Exposure, cell: str, chips: Mapping[str, Path], base: Path
) -> tuple[Planes, tuple[str, ...]]:
    """Make a warp from chips, given by class and base; return it, and which of them lie below it."""
    used = []

    def below() -> Iterator[tuple[Planes, Array, Array]]:
        for class_id, chip in chips.items():
            x, y = images.chip_pixels(plan, exposure, class_id, cell)
            if pipeline.covered(plan.chip_shape, x, y).any():
                used.append(class_id)
                yield read_pixels(chip, "chip", images.chip_header(plan, exposure, class_id)), x, y

    planes = pipeline.resample(below(), images.warp_header(plan, exposure, cell), plan.cell_shape)
    with alone(base.parent):
        write_pixels(base, "warp", planes)
    return planes, tuple(used)


def make_stack(
    plan: Field, filter_: str, cell: str, warps: Mapping[Exposure, Path], base: Path
) -> tuple[Planes, float]:
    """Make a stack of warps, given by exposure and base: convolved and not, with its maps.

    Returns
    -------
    Planes, float
        The unconvolved one, and the FWHM of the other, arcsec.
    """
    header = images.stack_header(plan, filter_, cell)
    inputs = {one: read_pixels(path, "warp", images.warp_header(plan, one, cell)) for one, path in warps.items()}
    uses = [_used(plan, exposure, cell, warp) for exposure, warp in inputs.items()]
    planes, seconds, number = pipeline.combine(list(inputs.values()), uses, [one.seconds for one in inputs], header)
    convolved = pipeline.convolve(planes)
    with alone(base.parent):
        write_pixels(base, "unconv", planes)
        write_pixels(base, "stack", convolved)
        for name, content in (("exp", seconds), ("num", number)):
            write_image(_map(base, name), content, header)
    return planes, convolved.fwhm


def make_diff(
    plan: Field, exposure: Exposure, cell: str, warp: Path, template: tuple[Exposure | None, Path], base: Path
) -> Planes:
    """Make a difference from a warp and its template: the warp of another exposure, or, without one, the stack."""
    first = read_pixels(warp, "warp", images.warp_header(plan, exposure, cell))
    other, path = template
    if other:
        planes = pipeline.subtract(first, read_pixels(path, "warp", images.warp_header(plan, other, cell)))
    else:
        stack = read_pixels(path, "unconv", images.stack_header(plan, exposure.filter, cell))
        number = np.maximum(read_image(_map(path, "num")), 1).astype("f4")
        planes = pipeline.subtract(first, stack, _used(plan, exposure, cell, first) / number)
    with alone(base.parent):
        write_pixels(base, "diff", planes)
    return planes


def _map(base: Path, name: str) -> Path:
    return base.with_name(f"{base.name}.unconv.{name}.fits")


def _used(plan: Field, exposure: Exposure, cell: str, warp: Planes) -> Array:
    """Tell which pixels of a warp go into a stack: what outlier rejection would leave.

    Neither those of ghosts nor of a streak, nor within 2.5 FWHM of the moving source.
    """
    wcs = images.cell_wcs(plan, cell)
    x, y = wcs.all_world2pix(*moving_place(plan.size, exposure.days), 0)
    rows, columns = np.ogrid[: warp.image.shape[0], : warp.image.shape[1]]
    near = (columns - x) ** 2 + (rows - y) ** 2 < (2.5 * exposure.fwhm / CELL_PIXEL) ** 2
    streak = images.streak(plan, exposure, warp.image.shape, wcs, CELL_PIXEL) > STREAK_EDGE
    return np.asarray(np.isfinite(warp.image) & (warp.mask & GHOST == 0) & ~near & ~streak)
