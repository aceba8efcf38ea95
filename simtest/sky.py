"""The simulated sky: stars, galaxies, one variable and one moving source, and how they look through an atmosphere.

Every profile is a sum of Gaussians, so that a galaxy seen through the atmosphere is exact and cheap: widths add. The
atmosphere is a Gaussian, and the wings are the telescope's, the same in every exposure: so one image is brought to the
seeing of another by a Gaussian, too.
Shapes are on the sky, in arcsec and in the frame (east, north); an image's WCS turns them into pixels.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache, lru_cache
from math import ceil, floor, log, pi, sqrt
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

Array = NDArray[Any]

CENTRE = (150.12, 2.21)
"""Where the survey looks: RA and Dec in degrees."""
PIXEL = 0.256
"""Pixel of a chip, arcsec."""
FILTERS = ("g.00000", "r.00000")
SECONDS = {"g.00000": 43.0, "r.00000": 40.0}
"""Exposure time of each filter."""
ZERO = 25.0
"""Magnitude of a source that gives one count in one second."""
SKY = {"g.00000": 22.0, "r.00000": 20.9}
"""Brightness of the night sky, magnitudes per square arcsec."""

_PSF = ((0.80, 0.0), (0.16, 0.76), (0.04, 2.06))  # share of the light, width in arcsec without an atmosphere
_DISK = ((0.18, 0.35), (0.40, 0.75), (0.32, 1.25), (0.10, 1.9))  # the same for a galaxy, in units of its scale length
_UNIT = np.eye(2)
_FAR = 100  # pixels outside an image, from where light still reaches it
_DENSITY = 35.0  # sources per square arcmin
_BRIGHTEST, _FAINTEST, _SLOPE = 15.0, 23.5, 0.24  # counts grow as 10**(0.28 m)


@dataclass(frozen=True)
class Sky:
    """What there is to see; arrays of one length N, positions in degrees.

    Attributes
    ----------
    ra, dec : Array
        Positions; the moving source (`MOVING`) has its place at the first exposure.
    mag : dict[str, Array]
        Magnitudes by filter; of the variable source (`VARIABLE`), its mean.
    axis : Array, shape (N,)
        Scale length of a galaxy, arcsec; 0 for a star.
    ratio, angle : Array, shape (N,)
        Axis ratio, and position angle from north to east in radians.
    """

    ra: Array
    dec: Array
    mag: dict[str, Array]
    axis: Array
    ratio: Array
    angle: Array


SATURATED, GALAXY, VARIABLE, MOVING = range(4)
"""The first four sources: a saturated star, a big galaxy, the variable and the moving source; four stars follow."""

_PLACES = (
    (-0.55, 0.50), (0.30, 0.42), (0.55, -0.42), (-0.80, -0.36),
    (-0.22, 0.27), (0.80, 0.72), (0.85, -0.75), (-0.45, -0.80),
)  # fmt: skip
# (east, north) of those eight, in chip sides: the last four are bright stars that stand alone, one on each chip
_MAGNITUDES = (11.6, 16.6, 18.2, 18.8, 16.2, 16.5, 16.8, 17.1)
MOTION = (0.022, -0.009)
"""What the moving source travels in one day, east and north, in chip sides."""


def generator(seed: int, tag: str) -> np.random.Generator:
    """Return the random numbers of one thing of the survey, which no other thing's drawing disturbs."""
    return np.random.default_rng([seed, zlib.crc32(tag.encode())])


def offset(east: float | Array, north: float | Array) -> tuple[Any, Any]:
    """Return RA and Dec, in degrees, of a place `east` and `north` of `CENTRE` in arcsec (small angles)."""
    dec = CENTRE[1] + np.asarray(north) / 3600
    return CENTRE[0] + np.asarray(east) / 3600 / np.cos(np.radians(CENTRE[1])), dec


@lru_cache(maxsize=4)
def make_sky(seed: int, size: int) -> Sky:
    """Make the sky over a survey whose chips have `size` pixels a side."""
    rng = generator(seed, "sky")
    side = size * PIXEL
    reach = 1.6 * side
    number = max(round(_DENSITY * (2 * reach / 60) ** 2), 12)
    place = rng.uniform(-reach, reach, (2, number))
    low, high = 10 ** (_SLOPE * _BRIGHTEST), 10 ** (_SLOPE * _FAINTEST)
    red = np.log10(rng.uniform(low, high, number)) / _SLOPE
    colour = rng.normal(0.6, 0.35, number)
    is_galaxy = rng.random(number) < np.clip((red - 16) / 8, 0, 0.7)
    axis = np.where(is_galaxy, np.clip(0.25 + 0.28 * (23 - red) * rng.uniform(0.5, 1.2, number), 0.15, 3.0), 0.0)
    ratio, angle = rng.uniform(0.25, 1.0, number), rng.uniform(0, np.pi, number)

    special = len(_PLACES)
    place[:, :special] = np.array(_PLACES).T * side
    red[:special], colour[:special] = _MAGNITUDES, 0.4
    axis[:special] = 0.0
    axis[GALAXY], ratio[GALAXY], angle[GALAXY] = min(4.0, 0.06 * side), 0.55, 0.9
    for index in (GALAXY, VARIABLE, *range(MOVING + 1, special)):  # what would blend with them goes beyond the field
        near = np.hypot(*(place - place[:, index : index + 1])) < 6
        near[:special] = False
        place[:, near] = reach * 2
    ra, dec = offset(place[0], place[1])
    return Sky(ra, dec, {FILTERS[0]: red + colour, FILTERS[1]: red}, axis, ratio, angle)


def moving_place(size: int, days: float) -> tuple[float, float]:
    """Return RA and Dec, in degrees, of the moving source `days` after the first exposure."""
    side = size * PIXEL
    (east, north), (right, up) = _PLACES[MOVING], MOTION
    ra, dec = offset((east + right * days) * side, (north + up * days) * side)
    return float(ra), float(dec)


def variable_change(days: float) -> float:
    """Return how much brighter than its mean the variable source is, as a factor of its mean flux: -0.7 ... 0.7."""
    return 0.7 * float(np.sin(0.9 * days + 0.8))


def fwhm_of(seeing: float) -> float:
    """Return the full width at half maximum of a star through an atmosphere of this width (Gaussian sigma), arcsec."""
    radius = np.linspace(0, 3, 3001)
    profile = _profile(radius, seeing)
    return 2 * float(np.interp(0.5, profile[::-1] / profile[0], radius[::-1]))


@cache
def seeing_of(fwhm: float) -> float:
    """Return the width of the atmosphere (Gaussian sigma, arcsec) through which a star has this FWHM."""
    widths = np.linspace(0.1, 1.0, 181)
    return float(np.interp(fwhm, [fwhm_of(float(width)) for width in widths], widths))


def _profile(radius: Array | float, seeing: float) -> Array:
    """Return the share of a star's light per square arcsec at `radius` from its middle, arcsec."""
    square = np.asarray(radius) ** 2
    terms = [
        share / (2 * np.pi * (seeing**2 + width**2)) * np.exp(-0.5 * square / (seeing**2 + width**2))
        for share, width in _PSF
    ]
    return np.asarray(np.sum(terms, axis=0))


def psf_profile(radius: Array | float, fwhm: float) -> Array:
    """Return the share of a star's light per square arcsec at `radius` (arcsec) from its middle, for a FWHM."""
    return _profile(radius, seeing_of(fwhm))


def noise_area(fwhm: float) -> float:
    """Return the square arcsec over which the noise counts when a star is fitted: 1 / integral of PSF squared."""
    seeing = seeing_of(fwhm)
    overlap = sum(
        one * two / (2 * np.pi * (2 * seeing**2 + wide1**2 + wide2**2)) for one, wide1 in _PSF for two, wide2 in _PSF
    )
    return float(1 / overlap)


def jacobian(wcs: WCS, ra: Array, dec: Array) -> tuple[Array, Array, Array]:
    """Return pixel positions of places on the sky, and how pixels follow the sky there.

    Returns
    -------
    x, y : Array, shape (N,)
        0-based pixels.
    matrix : Array, shape (N, 2, 2)
        Pixels per arcsec: rows x and y, columns east and north.
    """
    step = 1 / 3600
    x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
    east = wcs.all_world2pix(ra + step / np.cos(np.radians(dec)), dec, 0, quiet=True)
    north = wcs.all_world2pix(ra, dec + step, 0, quiet=True)
    matrix = np.array([[east[0] - x, north[0] - x], [east[1] - y, north[1] - y]])
    return x, y, np.moveaxis(matrix, 2, 0)


def draw(
    shape: tuple[int, int], wcs: WCS, sky: Sky, place: tuple[Array, Array], flux: Array, fwhm: float
) -> NDArray[np.float32]:
    """Draw the sources of `sky` on an empty image.

    Parameters
    ----------
    shape : (rows, columns)
        Of the image.
    wcs : WCS
        Of the image.
    sky : Sky
        Gives the shapes.
    place : (ra, dec)
        Positions of all its sources, degrees.
    flux : Array, shape (N,)
        Their counts; a negative one digs a hole, 0 leaves the source out.
    fwhm : float
        Of the PSF, arcsec.

    Returns
    -------
    Array, `shape`
        Counts per pixel.
    """
    image = np.zeros(shape, np.float32)
    shown = np.flatnonzero(flux)
    x, y, matrix = jacobian(wcs, place[0][shown], place[1][shown])
    seeing = seeing_of(fwhm)
    near = (x > -_FAR) & (x < shape[1] + _FAR) & (y > -_FAR) & (y < shape[0] + _FAR)
    for source, x0, y0, turn in zip(shown[near].tolist(), x[near], y[near], matrix[near], strict=True):
        for share, cov in _intrinsic(sky, source):
            for part, width in _PSF:
                pixels = turn @ (cov + _UNIT * (seeing**2 + width**2)) @ turn.T
                _add_gaussian(image, x0, y0, flux[source] * share * part, pixels)
    return image


def _intrinsic(sky: Sky, source: int) -> list[tuple[float, Array]]:
    """Return shares of light and covariances (arcsec^2; east, north) of a source outside the atmosphere."""
    if not sky.axis[source]:
        return [(1.0, np.zeros((2, 2)))]
    sine, cosine = np.sin(sky.angle[source]), np.cos(sky.angle[source])
    turn = np.array([[sine, cosine], [cosine, -sine]])  # columns: along the long axis, across it
    disk = turn @ np.diag([1.0, sky.ratio[source] ** 2]) @ turn.T
    scale = sky.axis[source]
    bulge = [(0.25, np.eye(2) * (0.15 * scale) ** 2)]
    return bulge + [(0.75 * share, disk * (width * scale) ** 2) for share, width in _DISK]


def _add_gaussian(image: Array, x0: float, y0: float, counts: float, cov: Array) -> None:
    """Add a Gaussian to the image in place, as far out as it gives 0.2 counts per pixel."""
    (xx, xy), (_, yy) = cov.tolist()
    determinant = xx * yy - xy**2
    peak = counts / (2 * pi * sqrt(determinant))
    if abs(peak) <= 0.2:
        return
    reach = sqrt(2 * log(abs(peak) / 0.2))
    wide, high = reach * sqrt(xx), reach * sqrt(yy)
    left, right = max(0, ceil(x0 - wide)), min(image.shape[1], floor(x0 + wide) + 1)
    low, top = max(0, ceil(y0 - high)), min(image.shape[0], floor(y0 + high) + 1)
    if left >= right or low >= top:
        return
    dx = np.arange(left, right) - x0
    dy = (np.arange(low, top) - y0)[:, None]
    form = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / determinant
    image[low:top, left:right] += peak * np.exp(-0.5 * form)


def draw_spikes(shape: tuple[int, int], wcs: WCS, sky: Sky, counts: float, angle: float) -> NDArray[np.float32]:
    """Draw the four diffraction spikes of the saturated star of `counts`; they turn with the telescope (`angle`, deg).

    Returns
    -------
    Array, `shape`
        Counts per pixel.
    """
    ra, dec = sky.ra[SATURATED : SATURATED + 1], sky.dec[SATURATED : SATURATED + 1]
    x, y, matrix = jacobian(wcs, ra, dec)
    columns, rows = np.arange(shape[1]) - x[0], (np.arange(shape[0]) - y[0])[:, None]
    back = np.linalg.inv(matrix[0])
    east, north = back[0, 0] * columns + back[0, 1] * rows, back[1, 0] * columns + back[1, 1] * rows
    sine, cosine = np.sin(np.radians(45 + angle)), np.cos(np.radians(45 + angle))
    along, across = (cosine * east - sine * north).astype("f4"), (sine * east + cosine * north).astype("f4")
    spikes = sum(
        np.exp(-np.abs(far) / 4.5 - 0.5 * (side / 0.45) ** 2) for far, side in ((along, across), (across, along))
    )
    return np.asarray(counts * 3e-5 * spikes, np.float32)
