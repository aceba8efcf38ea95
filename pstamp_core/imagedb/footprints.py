"""Where images lie on the sky: footprints, found by HEALPix cell and tested exactly on their WCS.

A footprint is stored under one cell: that of its centre, at the finest order whose cells are at least as wide as the
footprint's radius. Whatever holds a point then lies, at each order, in the point's cell or one of its neighbours, so
that a point is looked up with nine keys an order, and the rest is arithmetic.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any

from peewee import chunked

from pstamp_core.faults import UserError
from pstamp_core.imagedb.tables import pstampFootprint, pstampImage

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from numpy.typing import NDArray

CELL_WIDTH = 0.65
"""No point farther than this (radians, divided by 2**order) from a point escapes its cell and the neighbours.

The smallest distance found at random was 0.70, next to the corners of the polar caps."""

MAX_ORDER = 12
"""Finest order of cells: 0.9 arcmin; smaller footprints are stored there too."""

EVERYWHERE = 0
"""The cell of a footprint too wide for any order (UNIQ numbers begin at 4)."""

MAX_NAXIS = 1_000_000
"""Largest side of an image that is taken for one, in pixels."""

_BATCH = 500  # rows in one statement
_MARGIN = 1.02  # on the radius: it is measured on a grid of pixels
_GRID = 17
_CARDS = re.compile(
    r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[12]|(CD|PC|PV|PS)\d+_\d+|PC\d{6}|[AB]P?_(ORDER|DMAX|\d+_\d+)|WAT\d_\d+"
    r"|WCSAXES|LONPOLE|LATPOLE|EQUINOX|EPOCH|RADECSYS|RADESYS"
)
_TEXT = ("CTYPE", "CUNIT", "RAD", "WAT", "PS")


class Astrometry:
    """A header's celestial WCS, from pixels (FITS: the first is centred on 1, 1) to RA and Dec (ICRS, degrees).

    Raises
    ------
    UserError
        The header has no celestial WCS of two axes, or wcslib refuses it.
    """

    def __init__(self, cards: str) -> None:
        from astropy.io.fits import Header
        from astropy.wcs import WCS
        from astropy.wcs.utils import proj_plane_pixel_scales, wcs_to_celestial_frame

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # wcslib's repairs of old keywords
                self.wcs = WCS(Header.fromstring(cards, sep="\n"))
                celestial = self.wcs.has_celestial and self.wcs.naxis == 2
                frame: Any = wcs_to_celestial_frame(self.wcs) if celestial else None
                self.scales: Any = proj_plane_pixel_scales(self.wcs) if celestial else None
        except Exception as error:  # wcslib and astropy refuse in many ways
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"WCS not understood: {lines[-1]}") from error
        if not celestial:
            raise UserError("no celestial WCS; expected CTYPE1 and CTYPE2 such as RA---TAN and DEC--TAN")
        self.frame: Any = None if frame.name == "icrs" else frame
        self.order = 1 if self.wcs.wcs.lng == 0 else -1  # which axis of the world is the longitude

    def to_sky(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return RA and Dec of pixels."""
        from astropy.coordinates import SkyCoord

        ra, dec = self.wcs.all_pix2world(x, y, 1)[:: self.order]
        if self.frame is None:
            return ra, dec
        there = SkyCoord(ra, dec, unit="deg", frame=self.frame).icrs
        return there.ra.deg, there.dec.deg

    def to_pixel(self, ra: float, dec: float) -> tuple[float, float]:
        """Return the pixel of a position; NaN where the projection does not reach."""
        from astropy.wcs import NoConvergence

        if self.frame is not None:
            ra, dec = _in_frame(ra, dec, _Frame(self.frame))
        try:
            x, y = self.wcs.all_world2pix(*(ra, dec)[:: self.order], 1)
        except NoConvergence:  # off the image, where a distortion need not have an inverse
            return math.nan, math.nan
        return float(x), float(y)


class _Frame:
    """A coordinate frame as the key of a cache: those that are called alike are the same."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def __eq__(self, other: object) -> bool:
        return repr(self.frame) == repr(getattr(other, "frame", None))

    def __hash__(self) -> int:
        return hash(repr(self.frame))


@lru_cache(maxsize=256)
def _in_frame(ra: float, dec: float, frame: _Frame) -> tuple[float, float]:
    """Return a position in another frame; a millisecond's work, and the same for many images."""
    from astropy.coordinates import SkyCoord

    there = SkyCoord(ra, dec, unit="deg").transform_to(frame.frame).spherical
    return float(there.lon.deg), float(there.lat.deg)


astrometry = lru_cache(maxsize=2048)(Astrometry)
"""`Astrometry` of the cards, made once: images of one skycell share it."""


@dataclass(frozen=True)
class Place:
    """A position, and the box around it that an image may merely touch.

    Attributes
    ----------
    ra, dec : float
        ICRS, degrees.
    box : tuple[float, float] or None
        Width and height in degrees, along the axes of the image; None: the position itself must be on the image.
    """

    ra: float
    dec: float
    box: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (-360 <= self.ra <= 360 and -90 <= self.dec <= 90):
            raise UserError(f"position RA {self.ra:g} Dec {self.dec:g}: expected RA 0 to 360, Dec -90 to 90 degrees")

    @property
    def radius(self) -> float:
        """Half the diagonal of the box in radians; 0 without one."""
        return min(math.radians(math.hypot(*self.box)) / 2, math.pi) if self.box else 0.0

    def is_on(self, cards: str, naxis1: int, naxis2: int) -> bool:
        """Tell whether an image with this WCS has the position on its pixels, or touches the box."""
        sky = astrometry(cards)
        x, y = sky.to_pixel(self.ra, self.dec)
        if self.box is None:
            return 0.5 <= x < naxis1 + 0.5 and 0.5 <= y < naxis2 + 0.5
        for center, naxis, size, scale in zip((x, y), (naxis1, naxis2), self.box, sky.scales, strict=True):
            if math.isnan(center):
                return False
            pixels = max(round(abs(size) / float(scale)), 1)
            first = math.ceil(center - 1 - pixels / 2)  # as a stamp is cut: `astropy.nddata.Cutout2D`
            if not -pixels < first < naxis:
                return False
        return True


def wcs_cards(header: Header) -> str:
    """Return the cards of `header` that its WCS depends on, as they stand, a line each without comments.

    Raises
    ------
    UserError
        One of them can't be understood, or holds no finite number where one belongs: wcslib would take it for missing.
    """
    from astropy.io.fits import Header, VerifyError

    try:
        cards = [(card.keyword, card.value) for card in header.cards if _CARDS.fullmatch(card.keyword)]
    except VerifyError as error:
        raise UserError(str(error)) from error
    for keyword, value in cards:
        number = isinstance(value, (int, float)) and math.isfinite(value)
        if not (number or keyword.startswith(_TEXT)):
            raise UserError(f"{keyword} = {value!r}: expected a number")
    short = Header(cards)
    lines = short.tostring(sep="\n", endcard=False, padding=False).split("\n")
    return "\n".join(line.rstrip() for line in lines)


def footprint(header: Header, naxis1: int, naxis2: int) -> dict[str, Any]:
    """Return the row of `pstampFootprint` for an image of `naxis1` by `naxis2` pixels with this header.

    Raises
    ------
    UserError
        The WCS is missing, malformed, or does not lead back to the pixel it came from; or the size is no size.
    """
    import numpy as np

    if not (1 <= naxis1 <= MAX_NAXIS and 1 <= naxis2 <= MAX_NAXIS):
        raise UserError(f"image of {naxis1} x {naxis2} pixels; expected 1 to {MAX_NAXIS} on a side")
    cards = wcs_cards(header)
    sky = astrometry(cards)
    across, up = np.linspace(0.5, naxis1 + 0.5, _GRID), np.linspace(0.5, naxis2 + 0.5, _GRID)
    grid_x, grid_y = (part.ravel() for part in np.meshgrid(across, up))
    middle = grid_x.size // 2
    ra, dec = sky.to_sky(grid_x, grid_y)
    x, y = sky.to_pixel(float(ra[middle]), float(dec[middle]))
    if not math.hypot(x - grid_x[middle], y - grid_y[middle]) < 0.01:
        raise UserError("the WCS does not lead from the middle of the image to the sky and back")
    vectors = np.stack(unit_vector(ra, dec), axis=-1)
    centre = vectors[middle]
    chords = np.linalg.norm(vectors - centre, axis=1)
    radius = math.pi if np.isnan(chords).any() else 2 * math.asin(min(1.0, float(chords.max()) / 2)) * _MARGIN + 1e-6
    corners = [(ra[i], dec[i]) for i in (0, _GRID - 1, -1, -_GRID)]
    return {
        "digest": hashlib.blake2b(f"{naxis1} {naxis2}\n{cards}".encode(), digest_size=16).hexdigest(),
        "cell": int(cell_of(ra[middle], dec[middle], radius)),
        **dict(zip("xyz", centre.tolist(), strict=True)),
        "chord": _chord(radius),
        "naxis1": naxis1,
        "naxis2": naxis2,
        "corners": json.dumps(
            [[round(float(part), 9) for part in c] if np.isfinite(c).all() else None for c in corners]
        ),
        "wcs": cards,
    }


def unit_vector(ra: Any, dec: Any) -> tuple[Any, Any, Any]:
    """Return x, y, z of positions given in degrees."""
    import numpy as np

    ra, dec = np.radians(ra), np.radians(dec)
    return np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)


def cell_of(ra: Any, dec: Any, radius: Any) -> NDArray[Any]:
    """Return the UNIQ number of the cell under which a footprint is stored.

    Parameters
    ----------
    ra, dec : float or array
        Centre, degrees.
    radius : float or array
        Radians.
    """
    import numpy as np

    order = np.minimum(np.floor(np.log2(CELL_WIDTH / np.asarray(radius))), MAX_ORDER).astype(int)
    usable = np.maximum(order, 0)
    pixel = _pixel(ra, dec, usable)
    return np.where(order < 0, EVERYWHERE, (4 << 2 * usable) + pixel)


def ranges_around(place: Place) -> list[tuple[int, int]]:
    """Return first and last UNIQ number of the runs of cells whose footprints may reach `place`."""
    import numpy as np
    from astropy_healpix.core import neighbours

    orders = np.arange(MAX_ORDER + 1)
    reach = place.radius + CELL_WIDTH / 2.0**orders  # of the widest footprint of each order, and the box
    blocks = np.minimum(orders, np.floor(np.log2(CELL_WIDTH / reach) + 1e-9).astype(int))
    usable = np.maximum(blocks, 0)
    cell = _pixel(place.ra, place.dec, usable)
    with np.errstate(invalid="ignore"):  # where only seven neighbours exist, astropy-healpix warns and says -1
        around = neighbours(cell, 2**usable, order="nested")
    ranges = {(EVERYWHERE, EVERYWHERE)}
    for order, block, middle, others in zip(
        orders.tolist(), blocks.tolist(), cell.tolist(), around.T.tolist(), strict=True
    ):
        first, finer = 4 << 2 * order, 2 * (order - block)
        if block < 0:
            ranges.add((first, 4 * first - 1))
            continue
        cells = {middle, *(other for other in others if other >= 0)}
        ranges |= {(first + (c << finer), first + (c + 1 << finer) - 1) for c in cells}
    return sorted(ranges)


def _pixel(ra: Any, dec: Any, order: NDArray[Any]) -> NDArray[Any]:
    import astropy.units as u
    from astropy_healpix.core import lonlat_to_healpix

    return lonlat_to_healpix(ra * u.deg, dec * u.deg, 2**order, order="nested")  # type: ignore[no-any-return]


def _chord(radius: float) -> float:
    return 2 * math.sin(min(radius, math.pi) / 2)


def near(place: Place) -> Any:
    """Return the condition, on `pstampFootprint`, that the circle around a footprint reaches `place`."""
    table = pstampFootprint
    x, y, z = (float(part) for part in unit_vector(place.ra, place.dec))
    dx, dy, dz = table.x - x, table.y - y, table.z - z
    reach = table.chord + _chord(place.radius)  # the chord of two arcs is no longer than both their chords
    return dx * dx + dy * dy + dz * dz <= reach * reach


def in_cells(ranges: Sequence[tuple[int, int]]) -> Any:
    """Return the condition, on `pstampFootprint`, that the cell is in one of the ranges."""
    cell = pstampFootprint.cell
    conditions: list[Any] = [cell.in_([first for first, last in ranges if first == last])]
    conditions += [cell.between(first, last) for first, last in ranges if first != last]
    while len(conditions) > 1:  # as a balanced tree: SQLite's parser refuses a long chain
        conditions = [reduce(operator.or_, pair) for pair in chunked(conditions, 2)]
    return conditions[0]


def store_footprints(shapes: Sequence[dict[str, Any]], images: Sequence[dict[str, Any]]) -> None:
    """Write footprints, and the rows of `pstampImage` that refer to them; part of a unit of work.

    Parameters
    ----------
    shapes : sequence of dict
        As `footprint` returns them; those that are known already stay.
    images : sequence of dict
        Columns of `pstampImage`, with the ``digest`` of the footprint instead of its number. They replace what is
        known of the same images.
    """
    ids: dict[str, int] = {}
    for batch in chunked(shapes, _BATCH):
        pstampFootprint.insert_many(batch).on_conflict_ignore().execute()
        query: Any = pstampFootprint.select(pstampFootprint.digest, pstampFootprint.footprint_id)
        ids.update(query.where(pstampFootprint.digest.in_([shape["digest"] for shape in batch])).tuples())
    rows = [{**image, "footprint_id": ids[image["digest"]]} for image in images]
    for row in rows:
        del row["digest"]
    for batch in chunked(rows, _BATCH):
        pstampImage.replace_many(batch).execute()  # type: ignore[no-untyped-call]
