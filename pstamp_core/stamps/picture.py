"""A picture of a FITS image for a browser, in one of several stretches, in bounded memory."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from pstamp_core.faults import FinalError, UserError
from pstamp_core.stamps.image import Box, Image, reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STRETCHES = {
    "asinh": "asinh: noise and bright cores",
    "linear": "linear, without the 0.5 % at both ends",
    "sqrt": "square root",
    "log": "logarithmic: faint wings",
    "zscale": "zscale, as in DS9: the sky",
    "minmax": "linear from the least to the largest",
}
"""What pictures can be stretched by, in words."""

SIDE = 512
"""Longest side of a picture in pixels; of a larger image, blocks of pixels are averaged."""
MAX_PIXELS = 2**28
"""Larger images are not drawn."""
MAX_WIDTH = 2**18
"""Nor are wider ones, of which a row of blocks would take too much memory."""
MAX_TILE = 2**24
"""Nor those that are packed in larger tiles, which cfitsio unpacks whole."""
BAND = 2**21
"""Pixels that are read at once, or else one row."""

_DARKEST = 24  # no data is black, and nothing else is


def picture(path: Path, stretch: str = "asinh") -> bytes:
    """Return a grey scale PNG of the first image in a FITS file, the first row at the bottom.

    Parameters
    ----------
    path : Path
        The file.
    stretch : str
        One of `STRETCHES`.

    Raises
    ------
    UserError
        21: there is no such stretch.
    FinalError
        25: missing, no FITS image, damaged, gzipped, or larger than is drawn.
    RetryableError
        2: the file can't be read now.
    """
    from PIL import Image as Picture

    if stretch not in STRETCHES:
        raise UserError(f"stretch {stretch[:64]!r}: expected one of {', '.join(STRETCHES)}")
    pixels = _reduced(path)
    stream = io.BytesIO()
    Picture.fromarray(_grey(pixels, stretch)[::-1]).save(stream, "PNG")
    return stream.getvalue()


def _reduced(path: Path) -> NDArray[np.float64]:
    """Return the pixels of an image, means of blocks of them where it is larger than `SIDE`; NaN is no data."""
    import numpy as np

    with reading(path), path.open("rb") as stream:
        if stream.read(6) != b"SIMPLE":  # one that is gzipped would be unpacked to disk, however large that is
            raise FinalError(f"{path.name}: no picture is made of what does not begin as FITS")
    with Image(path) as image:
        nx, ny = image.nx, image.ny
        if nx * ny > MAX_PIXELS or nx > MAX_WIDTH or math.prod(image.tile) > MAX_TILE:
            raise FinalError(f"{path.name}: {nx} x {ny} pixels are too many for a picture")
        step = math.ceil(max(nx, ny) / SIDE)
        columns = np.arange(0, nx, step)
        sums, counts = np.zeros((2, -(-ny // step), len(columns)))
        rows = max(BAND // nx, 1)
        for y in range(0, ny, rows):
            some = image.physical(image.read(Box(0, y, nx, min(rows, ny - y)))).astype(np.float64)
            known = np.isfinite(some)
            blocks = np.arange(y, y + len(some)) // step
            with np.errstate(over="ignore"):
                np.add.at(sums, blocks, np.add.reduceat(np.where(known, some, 0), columns, axis=1))
            np.add.at(counts, blocks, np.add.reduceat(known, columns, axis=1, dtype=np.float64))
    counts[counts == 0] = np.nan
    return sums / counts


def _grey(pixels: NDArray[np.float64], stretch: str) -> NDArray[np.uint8]:
    import numpy as np
    from astropy import visualization as v

    wide = v.AsymmetricPercentileInterval(1, 99.8)
    interval, curve = {
        "asinh": (wide, v.AsinhStretch(0.1)),
        "linear": (v.PercentileInterval(99), v.LinearStretch()),
        "sqrt": (wide, v.SqrtStretch()),
        "log": (wide, v.LogStretch(1000)),
        "zscale": (v.ZScaleInterval(), v.LinearStretch()),
        "minmax": (v.MinMaxInterval(), v.LinearStretch()),
    }[stretch]
    known = np.isfinite(pixels)
    if not known.any():
        return np.zeros(pixels.shape, np.uint8)
    low, high = interval.get_limits(pixels[known])
    with np.errstate(over="ignore", invalid="ignore"):  # NaN, and numbers of which not even a difference can be had
        scaled = np.clip(np.nan_to_num((pixels - low) / ((high - low) or 1)), 0, 1)
    tones = _DARKEST + curve(scaled, clip=False) * (255 - _DARKEST)
    return np.where(known, np.round(tones), 0).astype(np.uint8)
