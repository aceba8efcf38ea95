"""Products: FITS images, JPEGs, source tables and copies, under private names, with size and md5.

Files are put together in memory block by block and written by Python, so that a full disk shows as what it is and
the md5 costs no second reading. cfitsio compresses, in memory.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pstamp_core.faults import FinalError, RetryableError
from pstamp_core.files import StoredFile, measure, private_name
from pstamp_core.stamps.header import Cards, format_cards, padded
from pstamp_core.stamps.image import BLOCK, CARD, Box, reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE_MARGIN = 16
"""Sources so many pixels beyond the edge of a stamp belong to it (`ppstamp`, copySources)."""
POSITIONS = (("X_PSF", "Y_PSF"), ("X_EXT", "Y_EXT"), ("X_IMAGE", "Y_IMAGE"), ("X", "Y"))
"""Columns of pixel positions, the best first: IPP's PSF and extended fits, SExtractor's, anybody's."""

_BITPIX = {"u1": 8, "i2": 16, "i4": 32, "i8": 64, "f4": -32, "f8": -64}


class Products:
    """The files of one request, while they are made; leaving the ``with`` block by an exception removes them.

    Parameters
    ----------
    base : Path
        Output base: a product is called ``base.name`` and its suffix.
    token : str
        Goes into the private names, `pstamp_core.files.private_name`.
    """

    def __init__(self, base: Path, token: str) -> None:
        self._base = base
        self._token = token
        self._private: list[Path] = []
        self.stored: list[StoredFile] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            for path in self._private:
                path.unlink(missing_ok=True)

    def _new(self, name: str) -> Path:
        private = private_name(self._base.with_name(name), self._token)
        self._private.append(private)
        return private

    def write(self, suffix: str, blocks: Iterable[bytes | memoryview]) -> None:
        """Write ``base`` + `suffix`.

        Raises
        ------
        RetryableError
            2: it can't be written (disk full, no permission).
        """
        name = self._base.name + suffix
        private = self._new(name)
        md5 = hashlib.md5(usedforsecurity=False)
        size = 0
        try:
            with private.open("wb") as stream:
                for block in blocks:
                    stream.write(block)
                    md5.update(block)
                    size += len(block)
        except OSError as error:
            raise RetryableError(f"{self._base.with_name(name)}: can't be written: {_reason(error)}") from error
        self.stored.append(StoredFile(private, name, "pstamp", size, md5.hexdigest()))

    def copy(self, source: Path) -> None:
        """Copy `source` whole, as ``<rownum>_<job number>_<filter>_<its own name>``."""
        name = "_".join([*self._base.name.split("_")[:3], source.name])
        private = self._new(name)
        with reading(source):
            stream = source.open("rb")
        with stream:
            try:
                with private.open("wb") as target:
                    shutil.copyfileobj(stream, target)
            except OSError as error:
                raise RetryableError(
                    f"{source}: can't be copied to {self._base.with_name(name)}: {_reason(error)}"
                ) from error
        self.stored.append(measure(private, "fits", name))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def fits_blocks(pixels: NDArray[Any], cards: bytes, compression: str | None, quantise: float) -> Iterator[bytes]:
    """Yield the blocks of a FITS file with one image.

    Parameters
    ----------
    pixels : array, shape (ny, nx)
        Stored numbers: uint8, int16, int32, int64, float32 or float64.
    cards : bytes
        The header but for its structure.
    compression : str or None
        ``RICE`` or ``GZIP_2`` of `fitsio`, for the first extension; None is a plain image in the primary HDU.
    quantise : float
        cfitsio's quantisation level for floats; 0 is no loss.
    """
    import numpy as np

    if compression and (pixels.itemsize < 8 or pixels.dtype.kind == "f"):
        yield from _compressed_blocks(pixels, cards, compression, quantise)
        return
    ny, nx = pixels.shape
    kind = pixels.dtype.kind + str(pixels.itemsize)
    yield padded(
        format_cards([
            ("SIMPLE", True, "file conforms to FITS standard"),
            ("BITPIX", _BITPIX[kind], "number of bits per data pixel"),
            ("NAXIS", 2, "number of data axes"),
            ("NAXIS1", nx, "columns"),
            ("NAXIS2", ny, "rows"),
        ])
        + cards
    )  # fmt: skip
    step = max(2**20 // nx, 1)
    for row in range(0, ny, step):
        yield np.ascontiguousarray(pixels[row : row + step], ">" + kind).tobytes()
    yield bytes(-pixels.nbytes % BLOCK)


def _compressed_blocks(pixels: NDArray[Any], cards: bytes, compression: str, quantise: float) -> Iterator[bytes]:
    import fitsio

    with fitsio.FITS("mem://", "rw") as fits:
        fits.write(None)
        fits.write(
            pixels,
            compress=compression,
            qlevel=quantise,
            dither_seed="checksum" if quantise else fitsio.NOT_SET,  # the same stamp has the same bytes again
            tile_dims=pixels.shape if compression == "GZIP_2" else fitsio.NOT_SET,
        )
        where = fits[1].get_offsets()
        content = memoryview(fits.read_raw())
    yield padded(format_cards([("SIMPLE", True, "file conforms to FITS standard"), ("BITPIX", 8, "no pixels here"),
                               ("NAXIS", 0, "the image is in the first extension"), ("EXTEND", True, "")]))  # fmt: skip
    structure = bytes(content[where["header_start"] : where["data_start"]])
    yield padded(structure[: structure.index(b"END".ljust(CARD))] + cards)
    yield content[where["data_start"] :]  # type: ignore[misc]


class SourceTable:
    """The table of sources that belongs to an image (``.cmf``), read once.

    Parameters
    ----------
    path : Path
        A FITS file. Its tables with a pair of columns of `POSITIONS` are cut to the stamp; all other HDUs go along.

    Raises
    ------
    FinalError
        25: missing, damaged, or without positions.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _hdus(self) -> list[Any]:
        from astropy.io import fits
        from astropy.utils.exceptions import AstropyUserWarning

        with reading(self._path), warnings.catch_warnings():
            warnings.simplefilter("ignore", fits.verify.VerifyWarning)
            warnings.filterwarnings("ignore", "File may have been truncated", AstropyUserWarning)
            with fits.open(self._path, memmap=False) as hdus:
                size = self._path.stat().st_size
                for hdu in hdus:
                    where = hdu.fileinfo()
                    if where["datLoc"] + hdu.size > size:
                        raise FinalError(f"{self._path}: truncated: {size} bytes, but its HDUs claim more")
                    _ = hdu.data
                return list(hdus)

    def blocks(self, box: Box | None, cards: Cards) -> Iterator[bytes]:
        """Yield a FITS file with the sources in `box` and `SOURCE_MARGIN` around it, or with all for None.

        Positions move by the first column and row of the box, exactly as the pixels do.
        """
        from astropy.io import fits

        found = False
        hdus = fits.HDUList()
        for hdu in self._hdus:
            new = hdu.copy()
            pairs = [
                pair for pair in POSITIONS if isinstance(hdu, fits.BinTableHDU) and set(pair) <= set(hdu.data.names)
            ]
            if pairs and box is not None:
                new = fits.BinTableHDU(data=_cut_rows(hdu.data, box, pairs), header=hdu.header)
            for name in ("CHECKSUM", "DATASUM"):
                new.header.remove(name, ignore_missing=True)
            found = found or bool(pairs)
            hdus.append(new)
        if not found:
            raise FinalError(f"{self._path}: no table with pixel positions, columns {_alternatives()}")
        hdus[0].header.extend(fits.Header.fromstring(format_cards(cards)), update=True)
        stream = io.BytesIO()
        hdus.writeto(stream)
        yield stream.getvalue()


def _cut_rows(rows: Any, box: Box, pairs: list[tuple[str, str]]) -> Any:
    x, y = (rows[name] for name in pairs[0])
    near = (x >= box.x0 - SOURCE_MARGIN) & (x <= box.x1 + SOURCE_MARGIN)
    near &= (y >= box.y0 - SOURCE_MARGIN) & (y <= box.y1 + SOURCE_MARGIN)
    cut = rows[near]
    for names in pairs:
        for name, offset in zip(names, (box.x0, box.y0), strict=True):
            cut[name] = cut[name] - offset
    return cut


def _alternatives() -> str:
    return " or ".join(f"{x}, {y}" for x, y in POSITIONS)


def jpeg(pixels: NDArray[np.floating[Any]], both_signs: bool = False) -> bytes:
    """Return a grey scale JPEG of an image; no data is black, and nothing else is.

    Rows go from the bottom up in FITS and from the top down in a picture, so the picture is flipped to look the same.
    The scale is an asinh about the median m in units of the scatter s (both robust): from m - 3 s to the brighter of
    m + 10 s and the 99.8th percentile, so that an empty sky shows its noise and a star its core.

    Parameters
    ----------
    pixels : array of float, shape (ny, nx)
        Physical values.
    both_signs : bool
        Let the scale reach as far down as up, with m a middle grey: for differences.
    """
    import numpy as np
    from PIL import Image as Picture

    step = max(math.ceil(max(pixels.shape) / _MAX_JPEG), 1)
    pixels = pixels[::-step, ::step]
    low, middle, unit, high = _levels(pixels, both_signs)
    bottom, top = np.arcsinh((low - middle) / unit), np.arcsinh((high - middle) / unit)
    grey = np.zeros(pixels.shape, np.uint8)
    for row in range(0, len(pixels), 256):
        part = pixels[row : row + 256]
        with np.errstate(invalid="ignore"):  # signalling NaN
            scaled = (np.arcsinh((part.astype(np.float64) - middle) / unit) - bottom) / (top - bottom)
        tone = _DARKEST + np.clip(np.nan_to_num(scaled), 0, 1) * (255 - _DARKEST)
        grey[row : row + 256] = np.where(np.isnan(part), 0, np.round(tone))
    stream = io.BytesIO()
    Picture.fromarray(grey).save(stream, "JPEG", quality=92)
    return stream.getvalue()


_MAX_JPEG = 65500
_DARKEST = 24


def _levels(pixels: NDArray[np.floating[Any]], both_signs: bool) -> tuple[float, float, float, float]:
    """Return bottom, middle, unit and top of the scale, from up to about 40,000 pixels."""
    import numpy as np

    step = max(int(math.sqrt(pixels.size / 40000)), 1)
    sample = pixels[step // 2 :: step, step // 2 :: step]
    sample = sample[np.isfinite(sample)].astype(np.float64)
    if not sample.size:
        return -1.0, 0.0, 1.0, 1.0
    lower, middle, upper, bright = np.percentile(sample, (25, 50, 75, 99.8)).tolist()
    unit = (upper - lower) / 1.349 or sample.std() or 1.0
    top = max(middle + 10 * unit, bright)
    return (2 * middle - top if both_signs else middle - 3 * unit), middle, float(unit) * 2, top
