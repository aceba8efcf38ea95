"""Stamps of 300 pixels out of synthetic skycells of 6000 x 6000, against `astrocut` and bare `fitsio`.

The bare path opens the file, reads the box and writes an image of the same type: no header, no WCS, no md5. Files are
in the page cache. Times are per stamp. `astrocut` can't read an image with BSCALE or BLANK, so the skycells have none.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import fitsio
import numpy as np
from astrocut import FITSCutout
from astropy.coordinates import SkyCoord
from astropy.io import fits

from benchmarks import medians, table
from pstamp_core.stamps import InputFiles, Stamp, StampRequest, cut

SIDE = 300
HALF_WIDTH = 0.19  # deg: stamps stay on the skycell


def _header(extra: int) -> list[dict[str, object]]:
    """Return a skycell's cards: TAN, 0.25 arcsec a pixel, and `extra` others."""
    cards: dict[str, object] = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.2}
    cards |= {"CRPIX1": 3000.5, "CRPIX2": 3000.5, "CDELT1": -0.25 / 3600, "CDELT2": 0.25 / 3600, "RADESYS": "ICRS"}
    cards |= {f"KEY{n:05d}": n * 1.5 for n in range(extra)}
    return [{"name": name, "value": value, "comment": "a comment of its own"} for name, value in cards.items()]


def _skycell(path: Path, dtype: str) -> Path:
    pixels = np.random.default_rng(1).normal(0, 40, (6000, 6000)).astype(dtype)
    with fitsio.FITS(str(path), "rw") as file:
        file.write(None)
        file.write(pixels, compress="RICE", tile_dims=(1, 6000), qlevel=4, header=_header(100))
    return path


def _mosaic(path: Path) -> Path:
    """Write 60 extensions with 150 keywords each, as a camera's raw data have."""
    pixels = np.random.default_rng(1).normal(0, 40, (600, 600)).astype("i2")
    with fitsio.FITS(str(path), "rw") as file:
        file.write(None)
        for _ in range(60):
            file.write(pixels, compress="RICE", header=_header(150))
    return path


class _Paths:
    """The three ways to stamps of one file, into one folder."""

    def __init__(self, image: Path, out: Path, hdu: int, size: int, centers: np.ndarray) -> None:
        self.image, self.out, self.hdu, self.size, self.centers = image, out, hdu, size, centers
        with fits.open(image) as hdus:
            from astropy.wcs import WCS

            x, y = WCS(hdus[hdu].header).all_world2pix(*centers.T, 0)
        self.corners = np.ceil(np.transpose([x, y]) - size / 2).astype(int).tolist()

    def ours(self, count: int) -> Callable[[], None]:
        """Return a task that cuts `count` stamps by `cut`."""
        requests = [
            StampRequest(n, tuple(center), False, (self.size,) * 2, True, 1, self.out / f"1_{n}_r_x", "stack")
            for n, center in enumerate(self.centers[:count].tolist())
        ]

        def task() -> None:
            for stamp in cut(InputFiles(self.image, self.hdu), requests, token=str(count), max_pixels=10**7):
                assert isinstance(stamp, Stamp), stamp

        return task

    def bare(self, count: int) -> Callable[[], None]:
        """Return a task that reads and writes `count` boxes by `fitsio`, opening the image for each."""

        def task() -> None:
            for x, y in self.corners[:count]:
                with fitsio.FITS(str(self.image)) as file:
                    pixels = file[self.hdu][y : y + self.size, x : x + self.size]
                fitsio.write(str(self.out / "bare.fits"), pixels.astype("f4"), clobber=True)

        return task

    def astrocut(self, count: int) -> Callable[[], None]:
        """Return a task that cuts `count` stamps by `astrocut`, one call for each: it has no other way."""
        where = SkyCoord(self.centers[:count], unit="deg")

        def task() -> None:
            for center in where:
                cutout = FITSCutout(str(self.image), center, [self.size] * 2, extension=self.hdu)
                cutout.write_as_fits(output_dir=str(self.out / "astrocut"))

        return task


def _row(label: str, paths: _Paths, count: int) -> list[str]:
    """Measure `count` stamps; the peers, whose time per stamp does not depend on it, are measured on up to 10."""
    few = min(count, 10)
    taken = medians({"ours": paths.ours(count), "bare": paths.bare(few), "astrocut": paths.astrocut(few)})
    ours, bare, astrocut = taken["ours"] / count, taken["bare"] / few, taken["astrocut"] / few
    times = [f"{1000 * value:.2f}" for value in (ours, bare, astrocut)]
    return [label, str(count), *times, f"{ours / bare:.2f}", f"{astrocut / ours:.1f}"]


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")  # those of astrocut
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "astrocut").mkdir()
        offsets = np.random.default_rng(2).uniform(-HALF_WIDTH, HALF_WIDTH, (300, 2))
        for label, dtype in (("int16", "i2"), ("float32", "f4")):
            paths = _Paths(_skycell(out / f"{dtype}.fits", dtype), out, 1, SIDE, offsets + np.array([150, 2.2]))
            rows += [_row(label, paths, count) for count in (1, 10, 100, 300)]
        mosaic = _mosaic(out / "mosaic.fits")
        with fits.open(mosaic) as hdus:
            from astropy.wcs import WCS

            center = np.transpose(WCS(hdus[60].header).all_pix2world([300.2], [300.2], 0))
        rows.append(_row("last HDU of 61", _Paths(mosaic, out, 60, 50, center), 1))
    columns = ["RICE file", "stamps", "pstamp", "fitsio", "astrocut", "pstamp : fitsio", "astrocut : pstamp"]
    table("Stamps of one image: ms per stamp, and ratios", columns, rows)


if __name__ == "__main__":
    main()
