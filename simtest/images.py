"""The simulated images: a raw chip, a processed chip, a warp, a stack or a difference is drawn from its name alone.

Chips see the sky through a camera of 2 x 2 chips with gaps, slightly turned and moved from exposure to exposure,
with distortion. Warps show the same sky on skycells; their masks are those of the chips below them. Stacks are the
weighted mean of the warps, differences are warp minus stack. All counts are on the scale of one exposure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
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
    generator,
    make_sky,
    moving_place,
    noise_area,
    offset,
    psf_profile,
    variable_change,
)

CHIPS = ("XY33", "XY34", "XY43", "XY44")
SKYCELLS = ("skycell.1234.044", "skycell.1234.045", "skycell.1234.054", "skycell.1234.055")
TESS_ID = "RINGS.V3"
CELL_PIXEL = 0.25
"""Pixel of a skycell, arcsec."""

# The 16-bit masks recipe of IPP (`masks.16bit.config`)
DETECTOR, BLANK, SAT, CR, SPIKE, GHOST, CONV_POOR = 0x0001, 0x0008, 0x0020, 0x0100, 0x0200, 0x0400, 0x4000
_NO_VALUE = DETECTOR | BLANK | SAT | CR  # a warp has NaN there

FULL_WELL = 60000.0
READ_NOISE = 5.0
BIAS = 1000.0
FIRST_MJD = 59001

SOURCE_COLUMNS = [
    ("IPP_IDET", "i4"), ("X_PSF", "f4"), ("Y_PSF", "f4"), ("X_PSF_SIG", "f4"), ("Y_PSF_SIG", "f4"),
    ("RA_PSF", "f8"), ("DEC_PSF", "f8"), ("PSF_INST_MAG", "f4"), ("PSF_INST_MAG_SIG", "f4"),
    ("PSF_INST_FLUX", "f4"), ("PSF_INST_FLUX_SIG", "f4"), ("CAL_PSF_MAG", "f4"), ("PSF_MAJOR", "f4"),
    ("PSF_MINOR", "f4"), ("FLAGS", "i4"),
]  # fmt: skip
"""Names as in IPP's `.cmf`. X_PSF and Y_PSF are FITS pixels: the centre of the first is 1, 1."""
_PSFMODEL, _EXTMODEL, _FITTED, _SATURATED = 0x1, 0x2, 0x4, 0x1000  # psphot's FLAGS


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
    """

    seed: int
    exposures: int
    size: int

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


@dataclass(frozen=True)
class Planes:
    """One image with all that belongs to it; arrays of one shape.

    Attributes
    ----------
    image, variance : Array of float32
        Counts, counts squared; NaN where there is no value.
    mask : Array of uint16
        Bits of IPP's 16-bit recipe.
    header : astropy.io.fits.Header
        WCS and what the image is.
    quiet : Array of float32
        The unchanging sky without noise: what a difference takes out exactly.
    flux : Array
        True counts of all sources of the sky, as far as they are on this image.
    place : (ra, dec)
        Their positions, degrees.
    fwhm : float
        Of the PSF, arcsec.
    chips : tuple of str
        The chips that a warp was made from.
    extra : dict
        Further planes: ``raw`` and ``mdl`` of a chip, ``exp`` and ``num`` of a stack.
    """

    image: Array
    mask: Array
    variance: Array
    header: fits.Header
    quiet: Array
    flux: Array
    place: tuple[Array, Array]
    fwhm: float
    chips: tuple[str, ...] = ()
    extra: dict[str, Array] = field(default_factory=dict)


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


def chip_header(survey: Field, exposure: Exposure, class_id: str) -> fits.Header:
    """Return the header of a chip: TAN with SIP distortion around the middle of the camera.

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


def cell_header(survey: Field, skycell_id: str) -> fits.Header:
    """Return the WCS of a skycell: all cells of a projection cell share one tangent point, TAN, north up."""
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


def draw_chip(survey: Field, exposure: Exposure, class_id: str) -> Planes:
    """Draw a processed chip, with its raw image and background model as `extra`.

    The background is taken off the chip, as IPP does; its noise stays.
    """
    rng = generator(survey.seed, f"{exposure.name} {class_id}")
    header = chip_header(survey, exposure, class_id)
    quiet, change, mask = _chip_without_noise(survey, exposure, class_id)
    slope = np.float32(0.02) * np.linspace(-1, 1, survey.size, dtype="f4")
    sky = _sky_counts(exposure, PIXEL) * (1 + slope)
    variance = _variance(quiet + change, sky)
    image = quiet + change + rng.standard_normal(mask.shape, "f4") * np.sqrt(variance)
    for rows, columns, counts in _cosmic_rays(survey, exposure, class_id):
        image[rows, columns] += np.float32(counts)
    image = np.where(mask & SAT > 0, np.float32(FULL_WELL), np.minimum(image, np.float32(FULL_WELL)))
    raw = np.clip(np.rint(BIAS + sky + image), 0, 65535).astype("u2")
    raw[mask & DETECTOR > 0] = BIAS
    raw[mask & BLANK > 0] = 0
    model = np.tile(sky[np.linspace(0, survey.size - 1, 13).astype(int)], (13, 1))
    _blank(image, variance, mask & (DETECTOR | BLANK) > 0)
    place, still, changed = _seen(survey, exposure)
    return Planes(
        image, mask, variance, header, quiet, still + changed, place, exposure.fwhm, extra={"raw": raw, "mdl": model}
    )


def draw_warp(survey: Field, exposure: Exposure, skycell_id: str) -> Planes:
    """Draw a warp: the sky on a skycell, with a value where a chip of the exposure has one."""
    rng = generator(survey.seed, f"{exposure.name} {skycell_id}")
    header = exposure_header(exposure, skycell_id)
    header.update(cell_header(survey, skycell_id))
    wcs, shape = WCS(header), survey.cell_shape
    quiet, change = _drawn(survey, exposure, shape, wcs)
    mask = np.full(shape, BLANK, np.uint16)
    chips = []
    for class_id in CHIPS:
        x, y = _chip_pixels(survey, exposure, class_id, wcs)
        column, row = np.rint(x).astype(np.int32), np.rint(y).astype(np.int32)
        on = (column >= 0) & (column < survey.chip_shape[1]) & (row >= 0) & (row < survey.chip_shape[0])
        if on.any():
            chips.append(class_id)
            mask[on] = _chip_mask(survey, exposure, class_id)[row[on], column[on]]
            change[on] += _ghost(survey, exposure, class_id, x[on], y[on])
    variance = _variance(quiet + change, _sky_counts(exposure, CELL_PIXEL))
    image = quiet + change + rng.standard_normal(shape, "f4") * np.sqrt(variance)
    _blank(image, variance, mask & _NO_VALUE > 0)
    place, still, changed = _seen(survey, exposure)
    return Planes(image, mask, variance, header, quiet, still + changed, place, exposure.fwhm, tuple(chips))


def draw_stack(survey: Field, exposures: Sequence[Exposure], warps: Sequence[Planes], skycell_id: str) -> Planes:
    """Average the warps of one filter on one skycell, with exposure time and number of inputs as `extra`.

    Pixels of ghosts and of the moving source are left out, as outlier rejection would do.
    """
    shape = survey.cell_shape
    total, noise = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    seconds, number = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
    common, any_bit = np.full(shape, 0xFFFF, np.uint16), np.zeros(shape, np.uint16)
    for exposure, warp in zip(exposures, warps, strict=True):
        use = _used(survey, exposure, warp)
        total[use] += warp.image[use]
        noise[use] += warp.variance[use]
        seconds[use] += round(exposure.seconds)
        number[use] += 1
        common[use] &= warp.mask[use]
        any_bit |= warp.mask
    divisor = np.maximum(number, 1).astype("f4")
    image, variance = total / divisor, noise / divisor**2
    _blank(image, variance, number == 0)
    header = exposure_header(exposures[0], skycell_id)
    header.update(cell_header(survey, skycell_id))
    del header["EXPNAME"]
    fwhm = float(np.mean([exposure.fwhm for exposure in exposures]))
    mjd = float(np.mean([exposure.mjd for exposure in exposures]))
    header["MJD-OBS"] = (mjd, "[d] mean of the inputs, UTC")
    header["DATE-OBS"] = (_date(mjd).isoformat(), "mean of the inputs, UTC")
    header["EXPTIME"] = (sum(exposure.seconds for exposure in exposures), "[s] sum of the inputs; counts are of one")
    header["NINPUTS"] = (len(exposures), "warps in the stack")
    header["SEEING"] = (fwhm, "[arcsec] FWHM of the PSF")
    flux = np.mean([warp.flux for warp in warps], axis=0)
    flux[MOVING] = 0
    return Planes(
        image, np.where(number > 0, common, any_bit), variance, header, np.mean([warp.quiet for warp in warps], axis=0),
        flux, warps[0].place, fwhm, extra={"exp": seconds, "num": number},
    )  # fmt: skip


def convolve(stack: Planes) -> Planes:
    """Return a stack brought to a wider PSF, as IPP's convolved stacks are; pixels near holes are marked CONV.POOR."""
    sigma = 1.1
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2).astype("f4")
    kernel /= kernel.sum()
    use = np.isfinite(stack.image)
    weight = _smooth(use.astype("f4"), kernel)
    divisor = np.where(use, weight, np.float32(1))
    image = _smooth(np.where(use, stack.image, np.float32(0)), kernel) / divisor
    variance = _smooth(np.where(use, stack.variance, np.float32(0)), kernel**2) / divisor**2
    _blank(image, variance, ~use)
    fwhm = float(np.hypot(stack.fwhm, 2.355 * sigma * CELL_PIXEL))
    header = stack.header.copy()
    header["SEEING"] = fwhm
    mask = stack.mask | np.where(use & (weight < 0.9), np.uint16(CONV_POOR), np.uint16(0))
    return replace(stack, image=image, mask=mask, variance=variance, header=header, fwhm=fwhm)


def draw_diff(survey: Field, exposure: Exposure, warp: Planes, stack: Planes) -> Planes:
    """Subtract a stack from a warp: noise, what changes and moves, and what a misfit of 0.04 pixel leaves of stars.

    The warp's own share in the stack cancels part of its noise, and the variance says so; where the stack is that warp
    alone there is no difference.
    """
    misfit = np.float32(0.04) * np.gradient(warp.quiet, axis=1)
    image = (warp.image - warp.quiet) - (stack.image - stack.quiet) - misfit
    share = _used(survey, exposure, warp) / np.maximum(stack.extra["num"], 1).astype("f4")
    variance = warp.variance * (1 - 2 * share) + stack.variance
    mask = warp.mask | stack.mask
    _blank(image, variance, share == 1)
    mask[np.isnan(image)] |= BLANK
    return replace(warp, image=image, mask=mask, variance=variance, flux=warp.flux - stack.flux)


def find_sources(survey: Field, exposure: Exposure, planes: Planes, seed_tag: str) -> Array:
    """Return the sources that psphot would find: above 5 sigma, on a pixel with a value, measured with errors.

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
    flux = planes.flux / (1 + (sky.axis / planes.fwhm * 2.355) ** 2)
    sigma = np.sqrt(noise_area(width) * np.nanmedian(planes.variance) + np.maximum(flux, 0))
    x, y = (np.asarray(one) for one in wcs.all_world2pix(*planes.place, 0, quiet=True))
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    found = (flux > 5 * sigma) & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    found[found] = np.isfinite(planes.image[row[found], column[found]])
    shown = np.flatnonzero(found)
    counts, error = flux[shown] + rng.standard_normal(len(shown)) * sigma[shown], sigma[shown]
    spread = width / 2.355 * error / flux[shown]
    table = np.zeros(len(shown), SOURCE_COLUMNS)
    table["IPP_IDET"] = np.arange(len(shown))
    table["X_PSF"] = x[shown] + 1 + rng.standard_normal(len(shown)) * spread
    table["Y_PSF"] = y[shown] + 1 + rng.standard_normal(len(shown)) * spread
    table["X_PSF_SIG"] = table["Y_PSF_SIG"] = spread
    table["RA_PSF"], table["DEC_PSF"] = wcs.all_pix2world(table["X_PSF"], table["Y_PSF"], 1)
    table["PSF_INST_MAG"] = -2.5 * np.log10(counts)
    table["PSF_INST_MAG_SIG"] = 2.5 / np.log(10) * error / counts
    table["PSF_INST_FLUX"], table["PSF_INST_FLUX_SIG"] = counts, error
    table["CAL_PSF_MAG"] = table["PSF_INST_MAG"] + exposure.zero_point
    table["PSF_MAJOR"] = table["PSF_MINOR"] = width
    full = flux[shown] * psf_profile(0, width) > FULL_WELL
    table["FLAGS"] = _PSFMODEL | _FITTED | np.where(full, _SATURATED, 0) | np.where(sky.axis[shown] > 0, _EXTMODEL, 0)
    return table


def draw_psf(fwhm: float) -> Array:
    """Return a picture of a PSF of this FWHM (pixels), 31 x 31, normalised to the sum of 1."""
    rows, columns = np.indices((31, 31)) - 15
    image = psf_profile(np.hypot(rows, columns), fwhm)
    return np.asarray(image / image.sum(), np.float32)


def _variance(light: Array, sky: Array | np.float32) -> Array:
    """Return the variance of pixels that hold `light` on top of the sky: photons and read-out."""
    return np.asarray(np.maximum(light, 0) + sky + np.float32(READ_NOISE**2), np.float32)


def _blank(image: Array, variance: Array, bad: Array) -> None:
    image[bad] = np.nan
    variance[bad] = np.nan


def _sky_counts(exposure: Exposure, pixel: float) -> np.float32:
    return np.float32(exposure.counts(SKY[exposure.filter]) * pixel**2)


def _seen(survey: Field, exposure: Exposure) -> tuple[tuple[Array, Array], Array, Array]:
    """Return positions, unchanging counts and changed counts of all sources in an exposure."""
    sky = make_sky(survey.seed, survey.size)
    ra, dec = sky.ra.copy(), sky.dec.copy()
    ra[MOVING], dec[MOVING] = moving_place(survey.size, exposure.days)
    still = exposure.counts(sky.mag[exposure.filter])
    change = np.zeros_like(still)
    change[VARIABLE] = still[VARIABLE] * variable_change(exposure.days)
    change[MOVING], still[MOVING] = still[MOVING], 0
    return (ra, dec), still, change


def _drawn(survey: Field, exposure: Exposure, shape: tuple[int, int], wcs: WCS) -> tuple[Array, Array]:
    """Return the unchanging sky and what differs from it in this exposure, without noise, in counts."""
    sky = make_sky(survey.seed, survey.size)
    place, still, change = _seen(survey, exposure)
    quiet = draw(shape, wcs, sky, place, still, exposure.fwhm)
    return quiet + _spikes(survey, exposure, shape, wcs), draw(shape, wcs, sky, place, change, exposure.fwhm)


def _spikes(survey: Field, exposure: Exposure, shape: tuple[int, int], wcs: WCS) -> Array:
    sky = make_sky(survey.seed, survey.size)
    return draw_spikes(shape, wcs, sky, float(exposure.counts(sky.mag[exposure.filter][SATURATED])), exposure.angle)


def _chip_without_noise(survey: Field, exposure: Exposure, class_id: str) -> tuple[Array, Array, Array]:
    """Return the unchanging sky, the changes and the mask of a chip."""
    wcs, shape = _chip_wcs(survey, exposure, class_id), survey.chip_shape
    quiet, change = _drawn(survey, exposure, shape, wcs)
    rows, columns = np.indices(shape, np.float32)
    ghost = _ghost(survey, exposure, class_id, columns, rows)
    change += ghost
    mask = np.where(ghost > 0, np.uint16(GHOST), np.uint16(0))
    mask[_spikes(survey, exposure, shape, wcs) > np.sqrt(_sky_counts(exposure, PIXEL))] |= SPIKE
    full = quiet + change > FULL_WELL
    for column in np.flatnonzero(full.any(axis=0)):  # charge runs along the columns
        hit = np.flatnonzero(full[:, column])
        full[max(0, hit[0] - 2 * len(hit)) : hit[-1] + 2 * len(hit) + 1, column] = True
    quiet[full] = FULL_WELL
    mask[full] |= SAT
    for ray_rows, ray_columns, _ in _cosmic_rays(survey, exposure, class_id):
        mask[ray_rows, ray_columns] |= CR
    bad = int(generator(survey.seed, class_id).integers(shape[1] // 8, shape[1] * 3 // 8))
    mask[shape[0] // 5 :, bad] |= DETECTOR
    mask[shape[0] // 2 - 2 : shape[0] // 2 + 2] = BLANK  # between the cells of a chip
    mask[:, shape[1] // 2 - 2 : shape[1] // 2 + 2] = BLANK
    return quiet, change, mask


@lru_cache(maxsize=512)
def _chip_wcs(survey: Field, exposure: Exposure, class_id: str) -> WCS:
    return WCS(chip_header(survey, exposure, class_id))


@lru_cache(maxsize=64)
def _chip_mask(survey: Field, exposure: Exposure, class_id: str) -> Array:
    """Return the mask of a chip, which every skycell over it needs again."""
    return _chip_without_noise(survey, exposure, class_id)[2]


def _cosmic_rays(survey: Field, exposure: Exposure, class_id: str) -> list[tuple[Array, Array, float]]:
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


def _ghost(survey: Field, exposure: Exposure, class_id: str, x: Array, y: Array) -> Array:
    """Return the counts of a reflection, a ring on one chip of the first exposure, at 0-based chip pixels."""
    if exposure.index or class_id != CHIPS[-1]:
        return np.zeros(x.shape, np.float32)
    radius = np.hypot(x - 0.7 * survey.size, y - 0.3 * survey.size) / survey.size
    ring = np.sqrt(_sky_counts(exposure, PIXEL)) * (1 + 2 * (radius > 0.06))
    return np.where(radius < 0.1, ring, 0).astype("f4")


def _chip_pixels(survey: Field, exposure: Exposure, class_id: str, wcs: WCS) -> tuple[Array, Array]:
    """Return the 0-based chip pixels below those of a skycell, by a polynomial through 144 exact places."""
    rows, columns = survey.cell_shape
    x, y = (one.ravel() for one in np.meshgrid(np.linspace(0, columns - 1, 12), np.linspace(0, rows - 1, 12)))
    chip = _chip_wcs(survey, exposure, class_id)
    there = np.array(chip.all_world2pix(*wcs.all_pix2world(x, y, 0), 0, quiet=True))
    unit = float(max(rows, columns))
    design = polynomial.polyvander2d(x / unit, y / unit, [4, 4])
    fit = np.linalg.lstsq(design, there.T, rcond=None)[0].T.reshape(2, 5, 5)
    across, up = np.arange(columns) / unit, np.arange(rows) / unit
    return polynomial.polygrid2d(across, up, fit[0]).T, polynomial.polygrid2d(across, up, fit[1]).T


def _used(survey: Field, exposure: Exposure, warp: Planes) -> Array:
    """Tell which pixels of a warp go into a stack: not those of ghosts, nor within 2.5 FWHM of the moving source."""
    x, y = WCS(warp.header).all_world2pix(*moving_place(survey.size, exposure.days), 0)
    rows, columns = np.ogrid[: warp.image.shape[0], : warp.image.shape[1]]
    near = (columns - x) ** 2 + (rows - y) ** 2 < (2.5 * exposure.fwhm / CELL_PIXEL) ** 2
    return np.asarray(np.isfinite(warp.image) & (warp.mask & GHOST == 0) & ~near)


def _smooth(image: Array, kernel: Array) -> Array:
    """Convolve with `kernel` along both axes; outside the image is 0."""
    half = len(kernel) // 2
    for axis in (0, 1):
        margin = [(0, 0), (0, 0)]
        margin[axis] = (half, half)
        wide, length = np.pad(image, margin), image.shape[axis]
        image = np.zeros_like(image)
        for k, share in enumerate(kernel):
            image += share * np.take(wide, range(k, k + length), axis)
    return image
