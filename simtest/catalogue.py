"""What psphot would find on a simulated image: made once with it, and kept when its pixels are deleted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from simtest.images import FULL_WELL, Exposure, Field, truth
from simtest.pipeline import Planes
from simtest.sky import MOVING, Array, generator, make_sky, noise_area, psf_profile

SOURCE_COLUMNS = [
    ("IPP_IDET", "i4"), ("X_PSF", "f4"), ("Y_PSF", "f4"), ("X_PSF_SIG", "f4"), ("Y_PSF_SIG", "f4"),
    ("RA_PSF", "f8"), ("DEC_PSF", "f8"), ("PSF_INST_MAG", "f4"), ("PSF_INST_MAG_SIG", "f4"),
    ("PSF_INST_FLUX", "f4"), ("PSF_INST_FLUX_SIG", "f4"), ("CAL_PSF_MAG", "f4"), ("PSF_MAJOR", "f4"),
    ("PSF_MINOR", "f4"), ("FLAGS", "i4"),
]  # fmt: skip
"""Names as in IPP's `.cmf`. X_PSF and Y_PSF are FITS pixels: the centre of the first is 1, 1."""
_PSFMODEL, _EXTMODEL, _FITTED, _SATURATED = 0x1, 0x2, 0x4, 0x1000  # psphot's FLAGS


def steady(survey: Field, exposures: Sequence[Exposure]) -> Array:
    """Return the counts of all sources in a template of these exposures: their mean, without the moving source."""
    counts = np.mean([truth(survey, exposure)[1] for exposure in exposures], axis=0)
    counts[MOVING] = 0
    return np.asarray(counts)


def find_sources(survey: Field, exposure: Exposure, planes: Planes, counts: Array, seed_tag: str) -> Array:
    """Return the sources that psphot would find: above 5 sigma, on a pixel with a value, measured with errors.

    Parameters
    ----------
    survey, exposure : Field, Exposure
        What was drawn.
    planes : Planes
        The image.
    counts : Array
        Of all sources of the sky, as they are on the image.
    seed_tag : str
        Of the errors.

    Returns
    -------
    Array
        Rows of `SOURCE_COLUMNS`. The PSF flux of a galaxy is too small, as a PSF's is.
    """
    rng = generator(survey.seed, f"sources {seed_tag}")
    sky, wcs = make_sky(survey.seed, survey.size), WCS(planes.header)
    rows, columns = planes.image.shape
    scale = float(np.mean(proj_plane_pixel_scales(wcs))) * 3600
    width = planes.fwhm / scale
    place, _ = truth(survey, exposure)
    flux = counts / (1 + (sky.axis / planes.fwhm * 2.355) ** 2)
    area = noise_area(planes.fwhm) / scale**2
    sigma = np.sqrt(area * np.nanmedian(planes.variance) + np.maximum(flux, 0))
    x, y = (np.asarray(one) for one in wcs.all_world2pix(*place, 0, quiet=True))
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    found = (flux > 5 * sigma) & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    found[found] = np.isfinite(planes.image[row[found], column[found]])
    shown = np.flatnonzero(found)
    measured, error = flux[shown] + rng.standard_normal(len(shown)) * sigma[shown], sigma[shown]
    spread = width / 2.355 * error / flux[shown]
    table = np.zeros(len(shown), SOURCE_COLUMNS)
    table["IPP_IDET"] = np.arange(len(shown))
    table["X_PSF"] = x[shown] + 1 + rng.standard_normal(len(shown)) * spread
    table["Y_PSF"] = y[shown] + 1 + rng.standard_normal(len(shown)) * spread
    table["X_PSF_SIG"] = table["Y_PSF_SIG"] = spread
    table["RA_PSF"], table["DEC_PSF"] = wcs.all_pix2world(table["X_PSF"], table["Y_PSF"], 1)
    table["PSF_INST_MAG"] = -2.5 * np.log10(measured)
    table["PSF_INST_MAG_SIG"] = 2.5 / np.log(10) * error / measured
    table["PSF_INST_FLUX"], table["PSF_INST_FLUX_SIG"] = measured, error
    table["CAL_PSF_MAG"] = table["PSF_INST_MAG"] + exposure.zero_point
    table["PSF_MAJOR"] = table["PSF_MINOR"] = width
    full = flux[shown] * psf_profile(0, planes.fwhm) * scale**2 > FULL_WELL
    table["FLAGS"] = _PSFMODEL | _FITTED | np.where(full, _SATURATED, 0) | np.where(sky.axis[shown] > 0, _EXTMODEL, 0)
    return table


def draw_psf(fwhm: float, pixel: float) -> Array:
    """Return a picture of a PSF of this FWHM (arcsec) on pixels of this size, 31 x 31, normalised to the sum of 1."""
    rows, columns = np.indices((31, 31)) - 15
    image = psf_profile(np.hypot(rows, columns) * pixel, fwhm)
    return np.asarray(image / image.sum(), np.float32)
