"""FITS files as IPP stores them: RICE, one row a tile, floats in 16 bits; catalogues as tables with IPP's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from astropy.io import fits

from pstamp_core.faults import Fault, RetryableError
from pstamp_core.files import written
from simtest.catalogue import SOURCE_COLUMNS
from simtest.components import PIXELS
from simtest.pipeline import Planes
from simtest.sky import Array

BLANK_PIXEL = 32767
"""Stands for NaN in an image of 16 bits (BLANK)."""
_SUFFIXES = {
    **PIXELS,
    "stack": (".fits", ".mask.fits", ".wt.fits"),
    "unconv": (".unconv.fits", ".unconv.mask.fits", ".unconv.wt.fits"),
}
"""Image, mask, variance; a stack's are the convolved ones, ``unconv`` the others."""
_UNITS = {"X_PSF": "pixel", "Y_PSF": "pixel", "RA_PSF": "deg", "DEC_PSF": "deg", "PSF_INST_FLUX": "count"}


@dataclass(frozen=True)
class Stored:
    """Pixels as a file holds them: value = zero + step * number, and `BLANK_PIXEL` for NaN."""

    numbers: Array
    step: float
    zero: float

    @classmethod
    def of(cls, pixels: Array) -> Stored:
        """Return values in steps of a sixteenth of their scatter, or as fine as 16 bits allow."""
        finite = np.isfinite(pixels)
        good = pixels[finite] if finite.any() else np.zeros(1)
        below, above = np.percentile(good[:: len(good) // 20000 + 1], (16, 84)).tolist()
        low, high = float(good.min()), float(good.max())
        step = max((above - below) / 32, (high - low) / 65500) or 1.0
        zero = low + 32767 * step
        numbers = np.full(pixels.shape, BLANK_PIXEL, np.int16)
        np.rint((pixels - zero) / step, out=numbers, where=finite, casting="unsafe")
        return cls(numbers, step, zero)

    @classmethod
    def read(cls, path: Path) -> Stored:
        """Return what the file of an image with fractions holds; errors as in `read_pixels`."""
        return cls._of_file(*_read(path))

    @classmethod
    def _of_file(cls, values: Array, header: Mapping[str, Any]) -> Stored:
        step, zero = header["BSCALE"], header["BZERO"]
        return cls(np.rint((values.astype("f8") - zero) / step).astype(np.int16), step, zero)

    def without(self, bad: Array) -> Stored:
        """Return the same with NaN where `bad` is set; the other pixels keep their bits."""
        return replace(self, numbers=np.where(bad, np.int16(BLANK_PIXEL), self.numbers))

    def values(self) -> Array:
        """Return the values, as 32-bit floats."""
        values = (self.zero + self.step * self.numbers).astype("f4")
        values[self.numbers == BLANK_PIXEL] = np.nan
        return values


def names(base: Path, stage: str) -> tuple[Path, Path, Path]:
    """Return the names of image, mask and variance of a stage, by its file rules."""
    image, mask, variance = (base.with_name(base.name + suffix) for suffix in _SUFFIXES[stage])
    return image, mask, variance


def write_pixels(base: Path, stage: str, planes: Planes) -> None:
    """Write image, mask and variance of a stage under the names of its file rules."""
    for path, plane in zip(names(base, stage), (planes.image, planes.mask, planes.variance), strict=True):
        write_image(path, plane, planes.header)


def read_pixels(base: Path, stage: str, header: fits.Header) -> Planes:
    """Read image, mask and variance of a stage again; `header` is what they were written with.

    Raises
    ------
    RetryableError
        Fault 2: a file is not there; 5: it can't be read.
    """
    image, mask, variance = names(base, stage)
    return Planes(read_image(image), read_image(mask), read_image(variance), header)


def read_image(path: Path) -> Array:
    """Return the pixels of an image in the first extension; errors as in `read_pixels`."""
    values, header = _read(path)
    return Stored._of_file(values, header).values() if "BLANK" in header else values


def _read(path: Path) -> tuple[Array, Mapping[str, Any]]:
    if not path.is_file():
        raise RetryableError(f"input {path} is not there")
    try:
        with fitsio.FITS(str(path)) as file:
            return file[1].read(), file[1].read_header()
    except (OSError, LookupError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RetryableError(f"input {path} can't be read: {reason}", Fault.PS_EXIT_DATA_ERROR) from error


def write_image(path: Path, pixels: Array | Stored, header: fits.Header | None = None) -> None:
    """Write an image: compressed in the first extension, or, without a header, plain in the primary.

    A compressed float is stored in 16 bits (`Stored`; BSCALE, BZERO, BLANK); integers are stored as they are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if header is None:
        with written(path) as private:
            fitsio.write(str(private), pixels, clobber=True)
        return
    scaling = []
    if isinstance(pixels, Stored) or pixels.dtype.kind == "f":
        stored = pixels if isinstance(pixels, Stored) else Stored.of(pixels)
        scaling = [
            {"name": "BSCALE", "value": stored.step, "comment": "value = BZERO + BSCALE * stored"},
            {"name": "BZERO", "value": stored.zero, "comment": "value = BZERO + BSCALE * stored"},
            {"name": "BLANK", "value": BLANK_PIXEL, "comment": "stored where there is no value"},
        ]
        pixels = stored.numbers
    with written(path) as private, fitsio.FITS(str(private), "rw", clobber=True) as file:
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
    with written(path) as private, fitsio.FITS(str(private), "rw", clobber=True) as file:
        file.create_image_hdu()
        file[0].write_keys(_cards(header), clean=False)
        for name, table in tables.items():
            file.write_table(table, extname=name, units=units)
            file[-1].write_comment("X_PSF, Y_PSF: FITS pixels, the centre of the first pixel is 1, 1")


def _cards(header: fits.Header) -> list[dict[str, Any]]:
    return [{"name": card.keyword, "value": card.value, "comment": card.comment} for card in header.cards]
