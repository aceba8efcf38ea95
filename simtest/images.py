"""What a simulated survey looks at: its exposures, the geometry of chips and skycells, and raw images, drawn by name.

Chips see the sky through a camera of 2 x 2 chips with gaps, slightly turned and moved from exposure to exposure,
with distortion. Everything after the raw images is made from files (`simtest.pipeline`); catalogues are what a perfect
measurement of the sky that was drawn would give, with errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.polynomial import polynomial

from simtest.sky import (
    CENTRE,
    FILTERS,
    MOVING,
    PIXEL,
    SATURATED,
    SECONDS,
    SKY,
    VARIABLE,
    ZERO,
    Array,
    draw,
    draw_spikes,
    fwhm_of,
    generator,
    make_sky,
    moving_place,
    offset,
    seeing_of,
    variable_change,
)

CHIPS = ("XY33", "XY34", "XY43", "XY44")
SKYCELLS = ("skycell.1234.044", "skycell.1234.045", "skycell.1234.054", "skycell.1234.055")
TESS_ID = "RINGS.V3"
CELL_PIXEL = 0.25
"""Pixel of a skycell, arcsec."""

# The 16-bit masks recipe of IPP (`masks.16bit.config`)
DETECTOR, BLANK, SAT, CR = 0x0001, 0x0008, 0x0020, 0x0100
SPIKE, GHOST, STREAK, CONV_POOR = 0x0200, 0x0400, 0x0800, 0x4000

FULL_WELL = 60000.0
READ_NOISE = 5.0
BIAS = 1000.0
FIRST_MJD = 59001
STREAKED = 3
"""The exposure, from 0, that a satellite crossed."""
STREAK_EDGE = 0.2
"""Counts a pixel at which its streak ends."""

_STREAK = (-0.35, 0.25)  # north of the middle at 1.5 chip sides west and east, in chip sides
_STREAK_COUNTS = 60.0


@dataclass(frozen=True)
class Field:
    """What a simulated survey is made from; everything else follows.

    Attributes
    ----------
    seed : int
        Of all random numbers.
    exposures : int
        How many; their filters take turns.
    size : int
        Columns of a chip; all else scales with it.
    magic : bool
        Whether chips are destreaked before anything is made from them.
    """

    seed: int
    exposures: int
    size: int
    magic: bool = False

    @property
    def chip_shape(self) -> tuple[int, int]:
        """Rows and columns of a chip."""
        return self.size + self.size // 20, self.size

    @property
    def cell_shape(self) -> tuple[int, int]:
        """Rows and columns of a skycell."""
        return self.size * 5 // 4 + 6, self.size * 5 // 4

    @property
    def overlap(self) -> int:
        """How many pixels two neighbouring skycells share."""
        return self.size // 7

    def exposure(self, index: int) -> Exposure:
        """Return exposure number `index`, from 0."""
        return _make_exposure(self, index)

    def all_exposures(self) -> list[Exposure]:
        """Return all exposures in order of time."""
        return [self.exposure(index) for index in range(self.exposures)]

    def through(self, filter_: str) -> list[Exposure]:
        """Return the exposures through a filter."""
        return [exposure for exposure in self.all_exposures() if exposure.filter == filter_]


@dataclass(frozen=True)
class Exposure:
    """One exposure: when, where and how.

    Attributes
    ----------
    index : int
        Its number, from 0.
    name : str
        IPP's name: ``o<MJD - 50000>g<number>o``.
    filter : str
    mjd : float
        Start, days.
    seconds : float
        Exposure time.
    fwhm : float
        Seeing, arcsec.
    ra, dec : float
        Where the middle of the camera points, degrees.
    angle : float
        How far the camera is turned, degrees.
    """

    index: int
    name: str
    filter: str
    mjd: float
    seconds: float
    fwhm: float
    ra: float
    dec: float
    angle: float

    @property
    def dateobs(self) -> datetime:
        """The start in UTC, to the second."""
        return _date(self.mjd).replace(tzinfo=UTC)

    @property
    def days(self) -> float:
        """Days since the first night of the survey."""
        return self.mjd - FIRST_MJD

    @property
    def zero_point(self) -> float:
        """Magnitude of a source that gives one count in this exposure."""
        return ZERO + 2.5 * float(np.log10(self.seconds))

    def counts(self, magnitude: Array | float) -> Array:
        """Return the counts of sources of these magnitudes."""
        return np.asarray(10 ** (-0.4 * (np.asarray(magnitude) - self.zero_point)))


@lru_cache(maxsize=1024)
def _make_exposure(survey: Field, index: int) -> Exposure:
    """Return exposure number `index` of the survey, from 0."""
    night = FIRST_MJD + 29 * index // survey.exposures
    name = f"o{night - 50000}g{101 + index:04d}o"
    rng = generator(survey.seed, name)
    east, north = rng.uniform(-0.06, 0.06, 2) + np.array([0.15, -0.13])  # so that the centre lies on a chip
    ra, dec = offset(east * survey.size * PIXEL, north * survey.size * PIXEL)
    filter_ = FILTERS[index % len(FILTERS)]
    mjd = round((night + 0.3 + rng.uniform(0, 0.1)) * 86400) / 86400
    return Exposure(
        index, name, filter_, mjd, SECONDS[filter_], rng.uniform(1.0, 1.3), float(ra), float(dec), rng.uniform(-3, 3)
    )


@lru_cache(maxsize=512)
def chip_header(survey: Field, exposure: Exposure, class_id: str) -> fits.Header:
    """Return the header of a chip, not to be changed: TAN with SIP distortion around the middle of the camera.

    The chips of the left column (XY3x) stand on their heads, as half of the camera's do.
    """
    rows, columns = survey.chip_shape
    gap = survey.size // 20
    right, up = int(class_id[2]) - 3.5, int(class_id[3]) - 3.5
    turn = -1 if right < 0 else 1
    sine, cosine = np.sin(np.radians(exposure.angle)), np.cos(np.radians(exposure.angle))
    scale = turn * PIXEL / 3600
    header = exposure_header(exposure, class_id)
    _add_wcs(
        header,
        ("RA---TAN-SIP", "DEC--TAN-SIP"),
        (exposure.ra, exposure.dec),
        ((columns + 1) / 2 - turn * right * (columns + gap), (rows + 1) / 2 - turn * up * (rows + gap)),
        ((-scale * cosine, scale * sine), (scale * sine, scale * cosine)),
    )
    cubic, square = 0.8 / (1.5 * survey.size) ** 3, 0.3 / (1.5 * survey.size) ** 2  # a pixel at the far corner
    for axis, terms in (
        ("A", {"2_0": square, "3_0": cubic, "1_2": cubic}),
        ("B", {"1_1": square, "0_3": cubic, "2_1": cubic}),
    ):
        header[f"{axis}_ORDER"] = (3, "distortion, SIP")
        for term, value in terms.items():
            header[f"{axis}_{term}"] = value
    header["CHIPID"] = (class_id, "IPP chip")
    return header


@lru_cache(maxsize=512)
def warp_header(survey: Field, exposure: Exposure, skycell_id: str) -> fits.Header:
    """Return the header of a warp, not to be changed."""
    header = exposure_header(exposure, skycell_id)
    header.update(cell_header(survey, skycell_id))
    return header


@lru_cache(maxsize=64)
def stack_header(survey: Field, filter_: str, skycell_id: str) -> fits.Header:
    """Return the header of a stack of all exposures through a filter, not to be changed."""
    inputs = survey.through(filter_)
    header = warp_header(survey, inputs[0], skycell_id).copy()
    del header["EXPNAME"]
    mjd = float(np.mean([exposure.mjd for exposure in inputs]))
    seeing = float(np.sqrt(np.mean([seeing_of(exposure.fwhm) ** 2 for exposure in inputs])))
    header["MJD-OBS"] = (mjd, "[d] mean of the inputs, UTC")
    header["DATE-OBS"] = (_date(mjd).isoformat(), "mean of the inputs, UTC")
    header["EXPTIME"] = (sum(exposure.seconds for exposure in inputs), "[s] sum of the inputs; counts are of one")
    header["NINPUTS"] = (len(inputs), "warps in the stack")
    header["SEEING"] = (fwhm_of(seeing), "[arcsec] FWHM of the PSF")
    return header


@lru_cache(maxsize=64)
def cell_header(survey: Field, skycell_id: str) -> fits.Header:
    """Return the WCS of a skycell, not to be changed: TAN, north up, one tangent point for a whole projection cell."""
    rows, columns = survey.cell_shape
    number = int(skycell_id[-3:])
    right, up = number % 10 - 4.5, number // 10 - 4.5
    header = fits.Header()
    _add_wcs(
        header,
        ("RA---TAN", "DEC--TAN"),
        CENTRE,
        ((columns + 1) / 2 - right * (columns - survey.overlap), (rows + 1) / 2 - up * (rows - survey.overlap)),
        ((-CELL_PIXEL / 3600, 0.0), (0.0, CELL_PIXEL / 3600)),
    )
    header["SKYCELL"] = (skycell_id, "skycell of the tessellation")
    header["TESS_ID"] = (TESS_ID, "tessellation")
    return header


def _add_wcs(
    header: fits.Header,
    kinds: tuple[str, str],
    value: tuple[float, float],
    pixel: tuple[float, float],
    matrix: tuple[tuple[float, float], tuple[float, float]],
) -> None:
    for axis in (0, 1):
        header[f"CTYPE{axis + 1}"] = (kinds[axis], "projection")
        header[f"CRVAL{axis + 1}"] = (value[axis], "[deg] reference point on the sky")
        header[f"CRPIX{axis + 1}"] = (pixel[axis], "[pixel] reference point on the image")
        header[f"CUNIT{axis + 1}"] = "deg"
    for i in (0, 1):
        for j in (0, 1):
            header[f"CD{i + 1}_{j + 1}"] = (matrix[i][j], "[deg/pixel]")
    header["RADESYS"] = "ICRS"


def exposure_header(exposure: Exposure, name: str) -> fits.Header:
    """Return what a header says about the exposure, for its chip or skycell `name`."""
    header = fits.Header()
    header["TELESCOP"] = ("PS1", "telescope")
    header["INSTRUME"] = ("GPC1", "camera")
    header["OBSTYPE"] = ("object", "kind of exposure")
    header["OBJECT"] = ("simulated sky", "what was observed")
    header["EXPNAME"] = (exposure.name, "exposure")
    header["FILTERID"] = (exposure.filter, "filter")
    header["HIERARCH FPA.FILTERID"] = (exposure.filter, "filter, as IPP names it")
    header["EXPTIME"] = (exposure.seconds, "[s] exposure time")
    header["MJD-OBS"] = (exposure.mjd, "[d] start of the exposure, UTC")
    header["DATE-OBS"] = (_date(exposure.mjd).isoformat(), "start of the exposure, UTC")
    header["ZPT_OBS"] = (exposure.zero_point, "magnitude of a source of one count")
    header["SEEING"] = (exposure.fwhm, "[arcsec] FWHM of the PSF")
    header["IMAGEID"] = (name, "chip or skycell")
    return header


def _date(mjd: float) -> datetime:
    """Return a moment in UTC to the second, without a zone."""
    return datetime(1858, 11, 17) + timedelta(seconds=round(mjd * 86400))


def bias_of(survey: Field, class_id: str) -> Array:
    """Return the counts that a chip reads without light: a level for each column."""
    rng = generator(survey.seed, f"bias {class_id}")
    return np.tile(BIAS + rng.normal(0, 3, survey.size), (survey.chip_shape[0], 1)).astype("f4")


def flat_of(survey: Field, class_id: str) -> Array:
    """Return the sensitivity of a chip's pixels, 1 on average: less towards a corner, and each its own."""
    rng = generator(survey.seed, f"flat {class_id}")
    rows, columns = (np.linspace(-1, 1, number, dtype="f4") for number in survey.chip_shape)
    flat = 1 + np.float32(0.02) * (rows[:, None] + columns) / 2 + rng.normal(0, 0.003, survey.chip_shape)
    return np.asarray(flat, np.float32)


def dead_of(survey: Field, class_id: str) -> Array:
    """Return the mask of a chip's pixels that never have a value: a bad column, and what lies between its cells."""
    mask = np.zeros(survey.chip_shape, np.uint16)
    rows, columns = mask.shape
    bad = int(generator(survey.seed, class_id).integers(columns // 8, columns * 3 // 8))
    mask[rows // 5 :, bad] |= DETECTOR
    mask[rows // 2 - 2 : rows // 2 + 2] = BLANK
    mask[:, columns // 2 - 2 : columns // 2 + 2] = BLANK
    return mask


def draw_raw(survey: Field, exposure: Exposure, class_id: str) -> Array:
    """Draw what a chip reads: sky, sources, ghost, streak and cosmic rays through its flat, full wells, noise, bias."""
    rng = generator(survey.seed, f"{exposure.name} {class_id}")
    wcs, shape = chip_wcs(survey, exposure, class_id), survey.chip_shape
    light = draw(shape, wcs, make_sky(survey.seed, survey.size), *truth(survey, exposure), exposure.fwhm)
    light += _spikes(survey, exposure, class_id) + _ghost(survey, exposure, class_id)
    light += _chip_streak(survey, exposure, class_id)
    slope = np.float32(0.02) * np.linspace(-1, 1, survey.size, dtype="f4")
    expected = (light + _sky_counts(exposure) * (1 + slope)) * flat_of(survey, class_id)
    counts = expected + rng.standard_normal(shape, "f4") * np.sqrt(np.maximum(expected, 0) + np.float32(READ_NOISE**2))
    for rows, columns, ray in cosmic_rays(survey, exposure, class_id):
        counts[rows, columns] += np.float32(ray)
    full = expected > FULL_WELL
    for column in np.flatnonzero(full.any(axis=0)):  # charge runs along the columns
        hit = np.flatnonzero(full[:, column])
        full[max(0, hit[0] - 2 * len(hit)) : hit[-1] + 2 * len(hit) + 1, column] = True
    counts = np.where(full, np.float32(FULL_WELL), np.minimum(counts, np.float32(FULL_WELL)))
    raw: Array = np.rint(np.maximum(counts + bias_of(survey, class_id), 0)).astype("u2")
    dead = dead_of(survey, class_id)
    raw[dead & DETECTOR > 0] = round(BIAS)
    raw[dead & BLANK > 0] = 0
    return raw


def optics_mask(survey: Field, exposure: Exposure, class_id: str) -> Array:
    """Return the mask of what the optics make of bright stars on a chip, SPIKE and GHOST: predicted, as in IPP."""
    mask = np.where(_ghost(survey, exposure, class_id) > 0, np.uint16(GHOST), np.uint16(0))
    mask[_spikes(survey, exposure, class_id) > np.sqrt(_sky_counts(exposure))] |= SPIKE
    return mask


def streak_mask(survey: Field, exposure: Exposure, class_id: str) -> Array:
    """Return the mask of the satellite's streak on a chip, STREAK, as magic finds it."""
    return np.where(_chip_streak(survey, exposure, class_id) > STREAK_EDGE, np.uint16(STREAK), np.uint16(0))


def truth(survey: Field, exposure: Exposure) -> tuple[tuple[Array, Array], Array]:
    """Return positions, degrees, and counts of all sources in an exposure."""
    sky = make_sky(survey.seed, survey.size)
    ra, dec = sky.ra.copy(), sky.dec.copy()
    ra[MOVING], dec[MOVING] = moving_place(survey.size, exposure.days)
    counts = exposure.counts(sky.mag[exposure.filter])
    counts[VARIABLE] *= 1 + variable_change(exposure.days)
    return (ra, dec), counts


def _sky_counts(exposure: Exposure) -> np.float32:
    """Return the counts of the night sky on a pixel of a chip."""
    return np.float32(exposure.counts(SKY[exposure.filter]) * PIXEL**2)


def _spikes(survey: Field, exposure: Exposure, class_id: str) -> Array:
    sky, wcs = make_sky(survey.seed, survey.size), chip_wcs(survey, exposure, class_id)
    star = float(exposure.counts(sky.mag[exposure.filter][SATURATED]))
    return draw_spikes(survey.chip_shape, wcs, sky, star, exposure.angle)


def streak(survey: Field, exposure: Exposure, shape: tuple[int, ...], wcs: WCS, pixel: float) -> Array:
    """Return the counts of the satellite's streak, straight over all images of one exposure, on pixels of this size."""
    if exposure.index != STREAKED:
        return np.zeros(shape, np.float32)
    side = survey.size * PIXEL
    ra, dec = offset(np.array([-1.5, 1.5]) * side, np.array(_STREAK) * side)
    x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
    columns, rows = np.arange(shape[1]), np.arange(shape[0])[:, None]
    length = np.hypot(x[1] - x[0], y[1] - y[0])
    across = ((columns - x[0]) * (y[1] - y[0]) - (rows - y[0]) * (x[1] - x[0])) / length * pixel
    return np.asarray(_STREAK_COUNTS * np.exp(-0.5 * (across / seeing_of(exposure.fwhm)) ** 2), np.float32)


def _chip_streak(survey: Field, exposure: Exposure, class_id: str) -> Array:
    return streak(survey, exposure, survey.chip_shape, chip_wcs(survey, exposure, class_id), PIXEL)


@lru_cache(maxsize=512)
def chip_wcs(survey: Field, exposure: Exposure, class_id: str) -> WCS:
    """Return the WCS of a chip."""
    return WCS(chip_header(survey, exposure, class_id))


@lru_cache(maxsize=64)
def cell_wcs(survey: Field, skycell_id: str) -> WCS:
    """Return the WCS of a skycell."""
    return WCS(cell_header(survey, skycell_id))


def cosmic_rays(survey: Field, exposure: Exposure, class_id: str) -> list[tuple[Array, Array, float]]:
    """Return rows, columns and counts of the tracks of cosmic rays on a chip."""
    rng = generator(survey.seed, f"rays {exposure.name} {class_id}")
    rows, columns = survey.chip_shape
    rays = []
    for _ in range(max(3, rows * columns // 16000)):
        steps = np.arange(rng.integers(2, 14))
        angle, row, column = rng.uniform(0, np.pi), rng.uniform(0, rows), rng.uniform(0, columns)
        counts = float(rng.uniform(300, 4000))
        y, x = np.rint(row + np.sin(angle) * steps).astype(int), np.rint(column + np.cos(angle) * steps).astype(int)
        on = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        rays.append((y[on], x[on], counts))
    return rays


def _ghost(survey: Field, exposure: Exposure, class_id: str) -> Array:
    """Return the counts of a reflection, a ring on one chip of the first exposure."""
    if exposure.index or class_id != CHIPS[-1]:
        return np.zeros(survey.chip_shape, np.float32)
    rows, columns = np.indices(survey.chip_shape, np.float32)
    radius = np.hypot(columns - 0.7 * survey.size, rows - 0.3 * survey.size) / survey.size
    ring = np.sqrt(_sky_counts(exposure)) * (1 + 2 * (radius > 0.06))
    return np.where(radius < 0.1, ring, 0).astype("f4")


def chip_pixels(survey: Field, exposure: Exposure, class_id: str, skycell_id: str) -> tuple[Array, Array]:
    """Return the 0-based chip pixels below those of a skycell, by a polynomial through 144 exact places."""
    rows, columns = survey.cell_shape
    x, y = (one.ravel() for one in np.meshgrid(np.linspace(0, columns - 1, 12), np.linspace(0, rows - 1, 12)))
    wcs, chip = cell_wcs(survey, skycell_id), chip_wcs(survey, exposure, class_id)
    there = np.array(chip.all_world2pix(*wcs.all_pix2world(x, y, 0), 0, quiet=True))
    unit = float(max(rows, columns))
    design = polynomial.polyvander2d(x / unit, y / unit, [4, 4])
    fit = np.linalg.lstsq(design, there.T, rcond=None)[0].T.reshape(2, 5, 5)
    across, up = np.arange(columns) / unit, np.arange(rows) / unit
    return polynomial.polygrid2d(across, up, fit[0]).T, polynomial.polygrid2d(across, up, fit[1]).T
