"""FITS files as IPP stores them: RICE, one row a tile, floats in 16 bits; catalogues as tables with IPP's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from astropy.io import fits

from simtest.images import SOURCE_COLUMNS, Planes
from simtest.sky import Array

BLANK_PIXEL = 32767
"""Stands for NaN in an image of 16 bits (BLANK)."""
_SUFFIXES = {
    "chip": (".ch.fits", ".ch.mk.fits", ".ch.wt.fits"),
    "warp": (".fits", ".mask.fits", ".wt.fits"),
    "diff": (".fits", ".mask.fits", ".wt.fits"),
    "stack": (".fits", ".mask.fits", ".wt.fits"),
    "unconv": (".unconv.fits", ".unconv.mask.fits", ".unconv.wt.fits"),
}
"""Image, mask, variance; a stack's are the convolved ones, ``unconv`` the others."""
_UNITS = {"X_PSF": "pixel", "Y_PSF": "pixel", "RA_PSF": "deg", "DEC_PSF": "deg", "PSF_INST_FLUX": "count"}


def write_pixels(base: Path, stage: str, planes: Planes) -> None:
    """Write image, mask and variance of a stage under the names of its file rules."""
    for suffix, plane in zip(_SUFFIXES[stage], (planes.image, planes.mask, planes.variance), strict=True):
        write_image(base.with_name(base.name + suffix), plane, planes.header)


def write_image(path: Path, pixels: Array, header: fits.Header | None = None) -> None:
    """Write an image: compressed in the first extension, or, without a header, plain in the primary.

    A compressed float is stored in 16 bits (BSCALE, BZERO; NaN as BLANK) in steps of a sixteenth of the scatter, or as
    fine as 16 bits allow; integers are stored as they are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if header is None:
        fitsio.write(str(path), pixels, clobber=True)
        return
    scaling = []
    if pixels.dtype.kind == "f":
        good = pixels[np.isfinite(pixels)] if np.isfinite(pixels).any() else np.zeros(1)
        low, below, above, high = np.percentile(good, (0, 16, 84, 100)).tolist()
        step = max((above - below) / 32, (high - low) / 65500) or 1.0
        zero = low + 32767 * step
        scaling = [
            {"name": "BSCALE", "value": step, "comment": "value = BZERO + BSCALE * stored"},
            {"name": "BZERO", "value": zero, "comment": "value = BZERO + BSCALE * stored"},
            {"name": "BLANK", "value": BLANK_PIXEL, "comment": "stored where there is no value"},
        ]
        stored = np.full(pixels.shape, BLANK_PIXEL, np.int16)
        np.rint((pixels - zero) / step, out=stored, where=np.isfinite(pixels), casting="unsafe")
        pixels = stored
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        name = str(header.get("CHIPID", "SkyChip"))
        file.create_image_hdu(
            dims=pixels.shape, dtype=pixels.dtype.str[1:], compress="RICE", tile_dims=(1, pixels.shape[1]), extname=name
        )
        file[-1].write(pixels)
        file[-1].write_keys(_cards(header) + scaling, clean=False)


def write_tables(path: Path, header: fits.Header, tables: Mapping[str, Array]) -> None:
    """Write catalogues, one an extension, below an empty primary image with `header`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    units = [_UNITS.get(name, "") for name, _ in SOURCE_COLUMNS]
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        file.create_image_hdu()
        file[0].write_keys(_cards(header), clean=False)
        for name, table in tables.items():
            file.write_table(table, extname=name, units=units)
            file[-1].write_comment("X_PSF, Y_PSF: FITS pixels, the centre of the first pixel is 1, 1")


def _cards(header: fits.Header) -> list[dict[str, Any]]:
    return [{"name": card.keyword, "value": card.value, "comment": card.comment} for card in header.cards]
