"""From raw images to differences: what each stage does to pixels, a pure function of its inputs.

The same inputs give the same pixels, to the bit; nothing here knows what was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy.io import fits

from simtest.images import BLANK, CELL_PIXEL, CONV_POOR, CR, DETECTOR, FULL_WELL, READ_NOISE, SAT, STREAK
from simtest.sky import PIXEL, Array, fwhm_of, seeing_of

_NO_VALUE = DETECTOR | BLANK | SAT | CR | STREAK  # a warp has NaN there
_BLOCKS = 13  # of a background model, along each side
_SMOOTHING = 1.1  # of a convolved stack, pixels


@dataclass(frozen=True)
class Planes:
    """One image; arrays of one shape.

    Attributes
    ----------
    image, variance : Array of float32
        Counts, counts squared; NaN where there is no value.
    mask : Array of uint16
        Bits of IPP's 16-bit recipe.
    header : astropy.io.fits.Header
        WCS and what the image is.
    """

    image: Array
    mask: Array
    variance: Array
    header: fits.Header

    @property
    def fwhm(self) -> float:
        """FWHM of the PSF, arcsec."""
        return float(self.header["SEEING"])


def calibrate(raw: Array, bias: Array, flat: Array, mask: Array, header: fits.Header) -> tuple[Planes, Array]:
    """Make a chip from a raw image: bias, flat, background, saturation, cosmic rays; return its background model, too.

    Parameters
    ----------
    raw, bias, flat : Array
        Counts; counts; sensitivity.
    mask : Array of uint16
        What is known before: DETECTOR, BLANK, SPIKE, GHOST.
    header : astropy.io.fits.Header
        Of the chip.
    """
    dead = mask & (DETECTOR | BLANK) > 0
    counts = (raw - bias) / flat
    full = ~dead & (raw - bias > FULL_WELL - 5 * READ_NOISE)
    model, background = _background(counts, ~dead & ~full)
    image = counts - background
    dark = background / flat + (np.float32(READ_NOISE) / flat) ** 2
    mask = mask | np.where(full, np.uint16(SAT), np.uint16(0))
    mask |= np.where(_rays(image, dead | full, 5 * np.sqrt(dark)), np.uint16(CR), np.uint16(0))
    near = _smooth(_smooth(np.where(dead, np.float32(0), image), _BOX, 0), _BOX, 1)
    lit = near > 3 * np.sqrt(dark / len(_BOX) ** 2)  # elsewhere, what is above the sky is its noise
    variance = dark + np.where(lit, np.maximum(image, 0), np.float32(0)) / flat
    image[dead] = variance[dead] = np.nan
    return Planes(image, mask, variance, header), model


_BOX = np.full(5, 0.2, np.float32)


def _background(counts: Array, use: Array) -> tuple[Array, Array]:
    """Return medians of blocks, as far as a plane fits them, at their centres and at all pixels."""
    rows, columns = (np.linspace(0, number, _BLOCKS + 1).astype(int) for number in counts.shape)
    medians = np.full((_BLOCKS, _BLOCKS), np.nan)
    for i in range(_BLOCKS):
        for j in range(_BLOCKS):
            block = np.s_[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            if use[block].any():
                medians[i, j] = np.median(counts[block][use[block]])
    y, x = np.meshgrid((rows[1:] + rows[:-1] - 1) / 2, (columns[1:] + columns[:-1] - 1) / 2, indexing="ij")
    unit = max(counts.shape)
    design = np.stack([np.ones_like(x), x / unit, y / unit], axis=-1)
    good = np.isfinite(medians)
    for _ in range(5):  # blocks full of a star or a galaxy drop out
        fit = np.linalg.lstsq(design[good], medians[good], rcond=None)[0]
        off = medians - design @ fit
        limit = 3 * 1.4826 * np.median(np.abs(off[good])) + 0.01
        good = np.isfinite(medians) & (np.abs(np.nan_to_num(off, nan=np.inf)) <= limit)
    row, column = (np.arange(number, dtype="f4") / np.float32(unit) for number in counts.shape)
    level, right, up = fit.astype("f4")
    return (design @ fit).astype("f4"), level + right * column + up * row[:, None]


def _rays(image: Array, unknown: Array, limit: Array) -> Array:
    """Tell which pixels are of a cosmic ray: bright, and in some direction alone, as nothing behind optics can be."""
    wide = np.pad(np.where(unknown, np.float32(np.inf), image), 2, constant_values=np.inf)
    rows, columns = image.shape
    alone = np.full(image.shape, np.inf, np.float32)
    for down, right in ((0, 2), (2, 0), (2, 2), (2, -2)):
        one, two = (wide[2 + i : 2 + i + rows, 2 + j : 2 + j + columns] for i, j in ((down, right), (-down, -right)))
        np.minimum(alone, np.maximum(one, two), out=alone)
    return np.asarray(~unknown & (image > 2 * limit) & (image - 5 * alone > limit))


def resample(chips: Iterable[tuple[Planes, Array, Array]], header: fits.Header, shape: tuple[int, int]) -> Planes:
    """Make a warp: chips interpolated (cubic) to the pixels of a skycell; a mask is that of the nearest pixel.

    Parameters
    ----------
    chips : iterable of (Planes, x, y)
        Each with the 0-based pixels of it that lie below those of the skycell.
    header : astropy.io.fits.Header
        Of the warp.
    shape : (rows, columns)
        Of the skycell.
    """
    area = np.float32((CELL_PIXEL / PIXEL) ** 2)
    image, variance = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    mask = np.full(shape, BLANK, np.uint16)
    for chip, x, y in chips:
        on = covered(chip.image.shape, x, y)
        x, y = x[on], y[on]
        mask[on] = chip.mask[np.rint(y).astype(int), np.rint(x).astype(int)]
        left, low = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
        across, up = _cubic((x - left).astype("f4")), _cubic((y - low).astype("f4"))
        values, noise = (np.pad(plane, 2, mode="edge") for plane in _filled(chip))
        corner = (low + 1) * values.shape[1] + left + 1
        total, square = np.zeros(len(x), np.float32), np.zeros(len(x), np.float32)
        for j in range(4):
            for i in range(4):
                weight, there = across[i] * up[j], corner + (j * values.shape[1] + i)
                total += weight * values.take(there)
                square += weight**2 * noise.take(there)
        image[on], variance[on] = total * area, square * area**2
    bad = mask & _NO_VALUE > 0
    image[bad] = variance[bad] = np.nan
    return Planes(image, mask, variance, header)


def covered(shape: tuple[int, ...], x: Array, y: Array) -> Array:
    """Tell which places, in 0-based pixels, lie on an image."""
    return np.asarray((x >= -0.5) & (x < shape[1] - 0.5) & (y >= -0.5) & (y < shape[0] - 0.5))


def _cubic(fraction: Array) -> list[Array]:
    """Return the weights of four pixels, for a place `fraction` beyond the second (Keys 1981)."""
    far = (1 + fraction, fraction, 1 - fraction, 2 - fraction)
    return [_keys(one) for one in far]


def _keys(distance: Array) -> Array:
    near, far = (1.5 * distance - 2.5) * distance**2 + 1, ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0)).astype("f4")


def _filled(chip: Planes) -> tuple[Array, Array]:
    """Return image and variance with the mean of their neighbours up to two pixels deep where there is no value."""
    bad = np.pad(chip.mask & _NO_VALUE > 0, 1, constant_values=True)
    planes = [np.pad(np.where(bad[1:-1, 1:-1], np.float32(0), one), 1) for one in (chip.image, chip.variance)]
    width = bad.shape[1]
    steps = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    inner = np.zeros(bad.shape, bool)
    inner[1:-1, 1:-1] = True
    for _ in range(2):
        holes = np.flatnonzero(bad & inner)
        around = holes[:, None] + steps
        good = ~bad.ravel()[around]
        number = good.sum(axis=1)
        for plane in planes:
            plane.ravel()[holes] = (plane.ravel()[around] * good).sum(axis=1) / np.maximum(number, 1)
        bad.ravel()[holes[number > 0]] = False
    return planes[0][1:-1, 1:-1], planes[1][1:-1, 1:-1]


def combine(
    warps: Sequence[Planes], uses: Sequence[Array], seconds: Sequence[float], header: fits.Header
) -> tuple[Planes, Array, Array]:
    """Make a stack: the mean of the warps where they are used; return exposure time and number of inputs, too."""
    shape = warps[0].image.shape
    total, noise = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    time, number = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
    common, any_bit = np.full(shape, 0xFFFF, np.uint16), np.zeros(shape, np.uint16)
    for warp, use, each in zip(warps, uses, seconds, strict=True):
        total[use] += warp.image[use]
        noise[use] += warp.variance[use]
        time[use] += round(each)
        number[use] += 1
        common[use] &= warp.mask[use]
        any_bit |= warp.mask
    divisor = np.maximum(number, 1).astype("f4")
    image, variance = total / divisor, noise / divisor**2
    image[number == 0] = variance[number == 0] = np.nan
    return Planes(image, np.where(number > 0, common, any_bit), variance, header), time, number


def convolve(stack: Planes) -> Planes:
    """Return a stack brought to a wider PSF, as IPP's convolved stacks are."""
    return _blurred(stack, _SMOOTHING**2)


def subtract(warp: Planes, template: Planes, share: Array | float = 0.0) -> Planes:
    """Make a difference, at the seeing of the worse of the two.

    Parameters
    ----------
    warp, template : Planes
        What is left of the first without the second.
    share : Array, optional
        How much of the template the warp itself is. It cancels part of its noise, and the variance says so; where the
        template is that warp alone there is no difference.
    """
    gap = (seeing_of(template.fwhm) ** 2 - seeing_of(warp.fwhm) ** 2) / CELL_PIXEL**2
    first, second = (_blurred(one, width) for one, width in ((warp, max(gap, 0.0)), (template, max(-gap, 0.0))))
    both = share * _covariance(_kernel(abs(gap)), np.ones(1)) * warp.variance
    image, variance = first.image - second.image, first.variance + second.variance - 2 * both
    mask = first.mask | second.mask
    bad = np.isnan(image) | (np.asarray(share) == 1)
    image[bad] = variance[bad] = np.nan
    mask[bad] |= BLANK
    header = warp.header.copy()
    header["SEEING"] = max(first.fwhm, second.fwhm)
    return Planes(image, mask, np.asarray(variance, np.float32), header)


def _kernel(width: float) -> Array:
    """Return weights whose variance is exactly `width` (pixels squared, to 4), nearly a Gaussian."""
    kernel = np.ones(1)
    for _ in range(8):
        kernel = np.convolve(kernel, [width / 16, 1 - width / 8, width / 16])
    return kernel


def _covariance(one: Array, two: Array) -> float:
    """Return the covariance of a pixel smoothed with two kernels, in units of its variance: neighbours are correlated.

    What correlates them is the interpolation of the warp that they come from.
    """
    apart = np.abs(np.arange(len(one))[:, None] - len(one) // 2 - np.arange(len(two)) + len(two) // 2)
    place = np.arange(-2, 2, 1 / 64) + 1 / 128
    lags = np.array([np.sum(_keys(np.abs(place)) * _keys(np.abs(place - lag))) for lag in range(5)])
    return float(one @ lags[np.minimum(apart, 4)] @ two / lags[0]) ** 2


def _blurred(planes: Planes, width: float) -> Planes:
    """Return an image convolved with a Gaussian of variance `width` (pixels squared); near holes it is CONV_POOR."""
    if not width:
        return planes
    exact = _kernel(width)
    kernel = exact.astype("f4")
    use = np.isfinite(planes.image)

    def smooth(plane: Array, weights: Array) -> Array:
        return _smooth(_smooth(np.where(use, plane, np.float32(0)), weights, 0), weights, 1)

    weight = smooth(np.ones_like(planes.image), kernel)
    divisor = np.where(use, weight, np.float32(1))
    factor = np.float32(_covariance(exact, exact) / (exact**2).sum() ** 2)
    image, variance = smooth(planes.image, kernel) / divisor, smooth(planes.variance, kernel**2) / divisor**2 * factor
    image[~use] = variance[~use] = np.nan
    mask = planes.mask | np.where(use & (weight < 0.9), np.uint16(CONV_POOR), np.uint16(0))
    header = planes.header.copy()
    header["SEEING"] = fwhm_of(float(np.hypot(seeing_of(planes.fwhm), np.sqrt(width) * CELL_PIXEL)))
    return replace(planes, image=image, mask=mask, variance=variance, header=header)


def _smooth(image: Array, kernel: Array, axis: int) -> Array:
    """Convolve along an axis; outside the image is 0."""
    half = len(kernel) // 2
    margin = [(0, 0), (0, 0)]
    margin[axis] = (half, half)
    wide = np.moveaxis(np.pad(image, margin), axis, 0)
    smooth = np.zeros_like(image)
    view = np.moveaxis(smooth, axis, 0)
    for k, share in enumerate(kernel):
        view += share * wide[k : k + len(view)]
    return smooth
