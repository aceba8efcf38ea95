"""From a centre and a size to a box of whole pixels: the rule of `astropy.nddata.Cutout2D`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pstamp_core.faults import Fault, FinalError, PstampError, UserError
from pstamp_core.stamps.image import Box

if TYPE_CHECKING:
    import numpy as np
    from astropy.wcs import WCS
    from numpy.typing import NDArray

    from pstamp_core.stamps.image import Image


class Option(IntFlag):
    """The bits of OPTION_MASK that matter once the image is chosen (`pstamp.h`)."""

    IMAGE = 1
    MASK = 2
    VARIANCE = 4
    SOURCES = 8
    PSF = 16
    BACKMDL = 32
    JPEG = 64
    EXPOSURE = 128
    NUMBER = 256
    UNCOMPRESSED = 512
    RESTORE_BACKGROUND = 4096
    MULTI_OVERLAP = 8192


@dataclass(frozen=True)
class StampRequest:
    """One stamp to cut.

    Attributes
    ----------
    job_id : int
        Key of the job that it is for.
    center : tuple of float
        Right ascension and declination in degrees (ICRS), or x and y in pixels, 1-based as in FITS.
    center_in_pixels : bool
        Which of the two.
    size : tuple of float
        Full width and height in pixels or in seconds of arc; their signs do not matter (as in `ppstamp`); (0, 0) is
        the whole image.
    size_in_pixels : bool
        Which of the two.
    options : int
        OPTION_MASK of the request row, see `Option`.
    base : Path
        Output base; a product is called ``base.name`` and its suffix.
    stage : str
        ``raw``, ``chip``, ``warp``, ``diff`` or ``stack``.
    header : tuple of (name, value, comment)
        Further cards for the headers of the products.
    """

    job_id: int
    center: tuple[float, float]
    center_in_pixels: bool
    size: tuple[float, float]
    size_in_pixels: bool
    options: int
    base: Path
    stage: str
    header: tuple[tuple[str, Any, str], ...] = ()


@dataclass(frozen=True)
class Region:
    """Where a stamp lies.

    Attributes
    ----------
    box : Box
        What was asked for, in 0-based pixels of the image; it may reach beyond it.
    on_image : Box
        The part of it that is on the image.
    ra, dec : float or None
        Centre in degrees (ICRS): as asked, or computed from a centre in pixels; None for an image without a WCS.
    """

    box: Box
    on_image: Box
    ra: float | None
    dec: float | None


def find_regions(image: Image, requests: Sequence[StampRequest], max_pixels: int) -> list[Region | PstampError]:
    """Return where each stamp lies, or why it can't be cut.

    The box is that of ``Cutout2D(data, centre, (height, width), wcs=wcs, mode="partial")``: a size is rounded to whole
    pixels, the first pixel is ``ceil(centre - size / 2)``, and seconds of arc become pixels by
    `astropy.wcs.utils.proj_plane_pixel_scales`. (Width goes with the scale of the first axis and height with the
    second; Cutout2D has them the other way round, which shows where pixels are not square.)

    Faults: 21 for sizes and centres that can't be, 25 for an image without the WCS that the request needs, 28 for a
    box beside the image, or a centre beside it without `Option.MULTI_OVERLAP`.
    """
    import numpy as np

    wcs, no_wcs = None, None
    try:
        wcs = image.wcs
    except FinalError as error:
        no_wcs = error
    problems = [_check(request) or (no_wcs if _needs_wcs(request) else None) for request in requests]
    good = [request for request, problem in zip(requests, problems, strict=True) if problem is None]
    if not good:
        return [problem for problem in problems if problem is not None]

    whole = np.array([is_whole(request) for request in good])
    on_sky = np.array([not request.center_in_pixels for request in good]) & ~whole
    in_arcsec = np.array([not request.size_in_pixels for request in good]) & ~whole
    asked = np.array([request.center for request in good], float)
    centers = np.where(whole[:, None], ((image.nx - 1) / 2, (image.ny - 1) / 2), asked - 1)
    sizes = np.abs(np.array([request.size for request in good], float))
    sizes[whole] = image.nx, image.ny
    sky = np.full_like(centers, np.nan)
    if wcs is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NaN is what we expect of a position without projection
            if on_sky.any():
                centers[on_sky] = _to_pixels(wcs, asked[on_sky])
            sizes[in_arcsec] = _arcsec_to_pixels(wcs, sizes[in_arcsec])
            sky[~on_sky] = _to_sky(wcs, centers[~on_sky])
        sky[on_sky] = asked[on_sky]
    sizes = np.round(sizes)
    found = iter([
        _place(image, request, center, size, place, max_pixels)
        for request, center, size, place in zip(good, centers.tolist(), sizes.tolist(), sky.tolist(), strict=True)
    ])  # fmt: skip
    return [problem or next(found) for problem in problems]


def is_whole(request: StampRequest) -> bool:
    """Tell whether the whole image is asked for."""
    return request.size[0] == 0 and request.size[1] == 0


def _needs_wcs(request: StampRequest) -> bool:
    return not (is_whole(request) or (request.center_in_pixels and request.size_in_pixels))


def _check(request: StampRequest) -> PstampError | None:
    """Return what is wrong with a request by itself."""
    if request.options & Option.RESTORE_BACKGROUND:
        return FinalError(
            f"OPTION_MASK {request.options}: the background can't be restored here; ask without bit 4096",
            Fault.PSTAMP_BG_RESTORE_NOT_AVAILABLE,
        )
    (x, y), (width, height) = request.center, request.size
    if not (math.isfinite(width) and math.isfinite(height)):
        return UserError(f"WIDTH, HEIGHT {width}, {height}: expected finite numbers")
    if is_whole(request):
        return None
    if width == 0 or height == 0:
        return UserError(f"WIDTH, HEIGHT {width}, {height}: one is zero; expected none, or both for the whole image")
    if not (math.isfinite(x) and math.isfinite(y)):
        return UserError(f"CENTER_X, CENTER_Y {x}, {y}: expected finite numbers")
    if not request.center_in_pixels and not -90 <= y <= 90:
        return UserError(f"CENTER_Y {y}: expected a declination from -90 to 90 degrees")
    return None


def _place(
    image: Image, request: StampRequest, center: list[float], size: list[float], sky: list[float], max_pixels: int
) -> Region | PstampError:
    """Return the region of `size` pixels about `center` (0-based), or why there is none."""
    width, height = size
    if width < 1 or height < 1:
        return UserError(f"WIDTH, HEIGHT {request.size[0]}, {request.size[1]}: less than half a pixel")
    if width * height > max_pixels:
        return UserError(
            f"WIDTH, HEIGHT {request.size[0]}, {request.size[1]}: {width:.0f} x {height:.0f} pixels; "
            f"this server cuts at most {max_pixels} pixels, so ask for less of {image.path.name}"
        )
    place = f"CENTER_X, CENTER_Y {request.center[0]}, {request.center[1]}"
    if not all(map(math.isfinite, center)):
        return FinalError(f"{place}: not within the projection of {image.path.name}", Fault.PSTAMP_NO_OVERLAP)
    x, y = center
    box = Box(math.ceil(x - width / 2), math.ceil(y - height / 2), int(width), int(height))
    on_image = box.clipped(image.nx, image.ny)
    what = ""
    if not on_image.nx or not on_image.ny:
        what = "the whole stamp"
    elif not (-0.5 <= x < image.nx - 0.5 and -0.5 <= y < image.ny - 0.5) and not (
        request.options & Option.MULTI_OVERLAP
    ):
        what = "the centre"
    if what:
        return FinalError(
            f"{place}: {what} is off {image.path.name}, whose {image.nx} x {image.ny} pixels do not hold "
            f"x = {x + 1:.1f}, y = {y + 1:.1f}",
            Fault.PSTAMP_NO_OVERLAP,
        )
    ra, dec = sky
    return Region(box, on_image, ra if math.isfinite(ra) else None, dec if math.isfinite(dec) else None)


def _to_pixels(wcs: WCS, sky: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 0-based pixels of positions in degrees (ICRS), NaN where the projection has none."""
    import numpy as np
    from astropy.coordinates import SkyCoord
    from astropy.wcs import NoConvergence
    from astropy.wcs.utils import wcs_to_celestial_frame

    if wcs.has_distortion and len(sky) > 1:
        # A list is iterated until its worst has converged, and fails as a whole; each stamp must stand for itself.
        return np.concatenate([_to_pixels(wcs, position[None]) for position in sky])
    place = SkyCoord(*sky.T, unit="deg").transform_to(wcs_to_celestial_frame(wcs)).spherical
    world = [place.lon.deg, place.lat.deg]
    if wcs.wcs.lat < wcs.wcs.lng:  # skycoord_to_pixel exchanges the pixels of such images
        world.reverse()
    try:
        return np.transpose(wcs.all_world2pix(*world, 0))
    except NoConvergence:
        # The inverse of a distortion need not exist far from the image.
        return np.full_like(sky, np.nan)


def _to_sky(wcs: WCS, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the positions in degrees (ICRS) of 0-based pixels, NaN where the projection has none."""
    import numpy as np

    if not len(pixels):
        return pixels
    sky = wcs.pixel_to_world(pixels[:, 0], pixels[:, 1]).icrs
    return np.transpose([sky.ra.deg, sky.dec.deg])


def _arcsec_to_pixels(wcs: WCS, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    from astropy import units as u
    from astropy.wcs.utils import proj_plane_pixel_scales

    if not len(sizes):
        return sizes
    pixels: NDArray[np.float64] = (sizes * u.arcsec / (proj_plane_pixel_scales(wcs) * u.deg)).decompose().value
    return pixels
