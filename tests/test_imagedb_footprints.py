"""Footprints: found wherever they hold a position, exactly where astropy's WCS puts it, and nowhere else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io.fits import Header
from astropy.wcs import WCS
from astropy_healpix.core import lonlat_to_healpix, neighbours
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pstamp_core.faults import UserError
from pstamp_core.imagedb import ImageDB, OnSky
from pstamp_core.imagedb.footprints import (
    CELL_WIDTH,
    EVERYWHERE,
    MAX_ORDER,
    Place,
    astrometry,
    cell_of,
    footprint,
    in_cells,
    near,
    ranges_around,
    wcs_cards,
)
from pstamp_core.imagedb.tables import TABLES, pstampFootprint, pstampImage


def header(
    ra: float,
    dec: float,
    scale: float = 1e-4,
    angle: float = 0.0,
    crpix: tuple[float, float] = (50.5, 40.5),
    **more: object,
) -> Header:
    """A TAN header; scale in degrees a pixel, angle in degrees."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec, "CRPIX1": crpix[0],
        "CRPIX2": crpix[1], "CD1_1": -scale * c, "CD1_2": scale * s, "CD2_1": scale * s, "CD2_2": scale * c,
    }  # fmt: skip
    return Header(cards | {"RADESYS": "ICRS"} | more)


SIP = {
    "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 2e-4, "A_1_1": -1e-4,
    "B_0_2": 3e-4, "B_2_0": 5e-5,
}  # fmt: skip
TPV = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV1_4": 0.4, "PV2_1": 1.0, "PV2_4": -0.3}
GALACTIC = {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}
FK4 = {"RADESYS": "FK4", "EQUINOX": 1950.0}
FK5 = {"RADESYS": "FK5", "EQUINOX": 2000.0}
SWAPPED = {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 20.0, "CRVAL2": 150.0}
ZENITHAL = {"CTYPE1": "RA---ZEA", "CTYPE2": "DEC--ZEA"}
KINDS = {"tan": {}, "sip": SIP, "tpv": TPV, "galactic": GALACTIC, "fk4": FK4, "fk5": FK5, "swapped": SWAPPED,
         "zea": ZENITHAL}  # fmt: skip


def in_ranges(cell: int, ranges: list[tuple[int, int]]) -> bool:
    return any(first <= cell <= last for first, last in ranges)


def passes(row: dict[str, object], place: Place) -> bool:
    """Evaluate the database's circle test on a row."""
    ra, dec = math.radians(place.ra), math.radians(place.dec)
    here = math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)
    distance = math.dist((row["x"], row["y"], row["z"]), here)  # type: ignore[arg-type]
    return distance <= row["chord"] + 2 * math.sin(min(place.radius, math.pi) / 2)  # type: ignore[operator,no-any-return]


skies = st.tuples(
    st.one_of(st.sampled_from([0.0, 360.0, 45.0, 180.0]), st.floats(0, 360)),
    st.one_of(st.sampled_from([90.0, -90.0, 89.9999, 41.8103, -41.8103, 0.0]), st.floats(-90, 90)),
)


@settings(max_examples=150, deadline=None)
@given(
    sky=skies,
    scale=st.floats(-6.5, -0.5).map(lambda power: 10**power),
    angle=st.floats(0, 360),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    at=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_whatever_lies_on_an_image_finds_it(
    sky: tuple[float, float], scale: float, angle: float, size: tuple[int, int], at: tuple[float, float]
) -> None:
    assume(scale * max(size) < 100)
    made = footprint(header(*sky, scale, angle, (size[0] / 2, size[1] / 2)), *size)
    x, y = (0.5 + part * side for part, side in zip(at, size, strict=True))
    ra, dec = (float(part) for part in astrometry(made["wcs"]).to_sky(x, y))
    place = Place(ra, dec)
    assert in_ranges(made["cell"], ranges_around(place))
    assert passes(made, place)
    if all(1e-6 < part < 1 - 1e-6 for part in at):  # rounding decides nearer to the edge
        assert place.is_on(made["wcs"], *size)


@settings(max_examples=150, deadline=None)
@given(
    sky=skies,
    scale=st.floats(-6, -1).map(lambda power: 10**power),
    away=st.floats(0, 1),
    angle=st.floats(0, 360),
    box=st.floats(-5, 2.2).map(lambda power: 10**power),
)
def test_whatever_a_box_touches_is_among_the_candidates(
    sky: tuple[float, float], scale: float, away: float, angle: float, box: float
) -> None:
    made = footprint(header(*sky, scale), 100, 80)
    centre = SkyCoord(
        *(np.degrees([math.atan2(made["y"], made["x"]), math.asin(np.clip(made["z"], -1, 1))])), unit="deg"
    )
    place = Place(0, 0, (box, box))
    reach = place.radius + 2 * math.asin(made["chord"] / 2)
    assume(reach < math.pi)
    there = centre.directional_offset_by(angle * u.deg, away * reach * 0.999 * u.rad)
    place = Place(float(there.ra.deg), float(there.dec.deg), (box, box))
    assert in_ranges(made["cell"], ranges_around(place))
    assert passes(made, place)


@pytest.mark.parametrize("width", [60.0, 100.0, 200.0])
def test_a_box_wider_than_the_widest_cells(width: float) -> None:
    rng = np.random.default_rng(4)
    for _ in range(40):
        place = Place(rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-1, 1))), (width, width))
        ranges, here = ranges_around(place), SkyCoord(place.ra, place.dec, unit="deg")
        for radius in (1e-5, 0.01, 0.3):
            reach = min(place.radius + radius, math.pi)
            there = here.directional_offset_by(rng.uniform(0, 360) * u.deg, rng.uniform(0, 1) * reach * u.rad)
            assert in_ranges(int(cell_of(there.ra.deg, there.dec.deg, radius)), ranges)


def test_no_point_within_the_cell_width_escapes_the_neighbours() -> None:
    rng = np.random.default_rng(5)
    for order in (0, 1, 4, MAX_ORDER):
        nside, number = 2**order, 60_000
        # Next to the corners of cells, where the neighbourhood is narrowest, and around the corners of the polar caps.
        cells = rng.integers(0, 12 * nside**2, number)
        from astropy_healpix.core import healpix_to_lonlat

        edge = np.array([1e-9, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-9])
        lon, lat = healpix_to_lonlat(cells, nside, rng.choice(edge, number), rng.choice(edge, number), order="nested")
        here = SkyCoord(lon, lat)
        cell = lonlat_to_healpix(lon, lat, nside, order="nested")
        with np.errstate(invalid="ignore"):
            around = neighbours(cell, nside, order="nested")
        there = here.directional_offset_by(rng.uniform(0, 360, number) * u.deg, CELL_WIDTH / nside * u.rad)
        found = lonlat_to_healpix(there.ra, there.dec, nside, order="nested")
        assert ((found == cell) | (found == around).any(axis=0)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edge", ["left", "right", "bottom", "top"])
def test_the_edge_of_the_pixels_is_the_edge_of_the_image(kind: str, edge: str) -> None:
    cards = header(150.0, 20.0, **KINDS[kind])
    nx, ny = 100, 80
    made, wcs = footprint(cards, nx, ny), WCS(cards)
    x, y = {"left": (0.5, 33.0), "right": (nx + 0.5, 33.0), "bottom": (61.0, 0.5), "top": (61.0, ny + 0.5)}[edge]
    outward = {"left": (-1, 0), "right": (1, 0), "bottom": (0, -1), "top": (0, 1)}[edge]
    for step, inside in ((-1e-4, True), (1e-4, False)):
        at_x, at_y = x + step * outward[0], y + step * outward[1]
        there = wcs.pixel_to_world(at_x - 1, at_y - 1).icrs
        assert np.allclose(wcs.world_to_pixel(there), (at_x - 1, at_y - 1), atol=1e-5)
        place = Place(float(there.ra.deg), float(there.dec.deg))
        assert place.is_on(made["wcs"], nx, ny) is inside
        if inside:
            assert in_ranges(made["cell"], ranges_around(place))
            assert passes(made, place)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cards_kept_are_the_wcs_of_the_whole_header(kind: str) -> None:
    cards = header(150.0, 20.0, **KINDS[kind])
    cards["OBJECT"], cards["EXPTIME"] = "M31", 30.0
    kept = wcs_cards(cards)
    assert "OBJECT" not in kept
    assert "EXPTIME" not in kept
    pixels = np.array([[1.0, 1.0], [77.3, 3.0], [100.0, 80.0]])
    again = WCS(Header.fromstring(kept, sep="\n"))
    assert np.array_equal(again.all_pix2world(pixels, 1), WCS(cards).all_pix2world(pixels, 1))


def test_each_frame_has_its_own_view_of_a_position() -> None:
    """One position asked of images in several frames, whose 150, 20 lie in several places."""
    views = {kind: wcs_cards(header(150.0, 20.0, **KINDS[kind])) for kind in ("tan", "fk4", "galactic")}
    middles = {kind: astrometry(cards).to_sky(50.5, 40.5) for kind, cards in views.items()}
    for here, (ra, dec) in middles.items():
        on = {kind for kind, cards in views.items() if Place(float(ra), float(dec)).is_on(cards, 100, 80)}
        assert on == {here}


def test_a_position_behind_the_tangent_plane_or_beyond_a_distortion_is_not_on_the_image() -> None:
    assert not Place(330.0, -20.0).is_on(wcs_cards(header(150.0, 20.0)), 100, 80)
    assert not Place(330.0, -20.0, (10.0, 10.0)).is_on(wcs_cards(header(150.0, 20.0)), 100, 80)
    assert not Place(152.0, 20.0).is_on(wcs_cards(header(150.0, 20.0, **SIP)), 100, 80)


@pytest.mark.parametrize(
    ("width", "touches"),
    # One pixel is 1e-4 degrees; the position is 30 pixels right of the last column.
    [(59e-4, False), (61.4e-4, False), (61.6e-4, True), (-61.6e-4, True), (1.0, True)],
)
def test_a_box_touches_an_image_when_a_stamp_of_it_would_have_a_pixel(width: float, touches: bool) -> None:
    cards = header(150.0, 0.0)
    there = WCS(cards).pixel_to_world(129.6, 40)
    place = Place(float(there.ra.deg), float(there.dec.deg), (width, 1e-4))
    assert place.is_on(wcs_cards(cards), 100, 80) is touches
    assert not Place(place.ra, place.dec, (1e-4, width)).is_on(wcs_cards(cards), 100, 80)


def test_a_box_touches_an_image_if_and_only_if_its_cutout_overlaps() -> None:
    from astropy.nddata import Cutout2D, NoOverlapError

    cards, data = header(150.0, 0.0, angle=30.0), np.zeros((80, 100))
    wcs, kept = WCS(cards), wcs_cards(cards)
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(150):
        x, y = rng.uniform(-40, 140), rng.uniform(-40, 120)
        width, height = rng.uniform(1e-4, 60e-4, 2)
        there = wcs.pixel_to_world(x, y)
        place = Place(float(there.ra.deg), float(there.dec.deg), (width, height))
        try:
            Cutout2D(data, there, u.Quantity([height, width], "deg"), wcs=wcs, mode="partial")
            overlaps = True
        except NoOverlapError:
            overlaps = False
        assert place.is_on(kept, 100, 80) is overlaps
        seen.add(overlaps)
    assert seen == {True, False}


def test_corners_and_sharing() -> None:
    made = footprint(header(0.0, 89.999, 1e-3), 100, 80)
    wcs = WCS(header(0.0, 89.999, 1e-3))
    expected = wcs.all_pix2world([[0.5, 0.5], [100.5, 0.5], [100.5, 80.5], [0.5, 80.5]], 1)
    assert np.allclose(json.loads(made["corners"]), expected, atol=1e-8)
    assert footprint(header(0.0, 89.999, 1e-3), 100, 80)["digest"] == made["digest"]
    assert footprint(header(0.0, 89.999, 1e-3), 80, 100)["digest"] != made["digest"]
    assert footprint(header(0.0, 89.998, 1e-3), 100, 80)["digest"] != made["digest"]


def test_a_map_of_the_whole_sky_is_everywhere() -> None:
    cards = header(0.0, 0.0, 1.0, crpix=(180.5, 90.5), CTYPE1="RA---AIT", CTYPE2="DEC--AIT")
    made = footprint(cards, 360, 180)
    assert made["cell"] == EVERYWHERE
    assert json.loads(made["corners"]) == [None] * 4
    for ra, dec in ((0, 0), (170, -80), (359, 89)):
        assert in_ranges(EVERYWHERE, ranges_around(Place(ra, dec)))
        assert passes(made, Place(ra, dec))
        assert Place(ra, dec).is_on(made["wcs"], 360, 180)


@pytest.mark.parametrize(
    ("cards", "size", "message"),
    [
        (Header(), (10, 10), "no celestial WCS; expected CTYPE1 and CTYPE2 such as RA---TAN and DEC--TAN"),
        (Header({"CTYPE1": "WAVE", "CTYPE2": "FREQ"}), (10, 10), "no celestial WCS; expected CTYPE1"),
        (header(1, 2, CD1_1=1.0, CD1_2=1.0, CD2_1=1.0, CD2_2=1.0), (10, 10), "the WCS does not lead from the middle"),
        (header(1, 2, CTYPE1="RA---XXX"), (10, 10), "WCS not understood"),
        (header(1, 2, CTYPE2="WAVE"), (10, 10), "WCS not understood: Unmatched celestial axes."),
        (header(1, 2, CRVAL1="east"), (10, 10), "CRVAL1 = 'east': expected a number"),
        (header(1, 2), (0, 10), "image of 0 x 10 pixels; expected 1 to 1000000 on a side"),
        (header(1, 2), (10, 2_000_000), "image of 10 x 2000000 pixels"),
        (header(1, 2, **SIP | {"A_2_0": 9.0}), (10, 10), "the WCS does not lead from the middle of the image"),
        # A distortion that folds the image: two pixels see one place.
        (header(1, 2, crpix=(-95, 5), **SIP | {"A_2_0": -0.01}), (10, 10), "the WCS does not lead from the middle"),
    ],
)  # fmt: skip
def test_refused(cards: Header, size: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")) as caught:
        footprint(cards, *size)
    assert caught.value.fault == 21


@pytest.mark.parametrize(("ra", "dec"), [(400, 0), (10, -91), (math.nan, 0), (0, math.inf), (-361, 0)])
def test_positions_off_the_sky_are_refused(ra: float, dec: float) -> None:
    with pytest.raises(UserError, match="expected RA 0 to 360, Dec -90 to 90 degrees"):
        Place(ra, dec)


def test_one_statement_finds_what_arithmetic_finds(tmp_path: Path) -> None:
    """The database's own evaluation of cells and circles, against the plain test of each footprint."""
    db = ImageDB(str(tmp_path / "a.db"))
    db.create()
    rng = np.random.default_rng(8)
    images = []
    for number in range(300):
        scale = 10 ** rng.uniform(-5, -1.5)
        sky = rng.uniform(140, 150), rng.uniform(84, 90)
        images.append(OnSky("stack", number, f"c{number}", header(*sky, scale, rng.uniform(0, 360)), 100, 80))
    db.add_footprints(images)
    shared = OnSky("chip", 1, "XY01", images[0].header, 100, 80)
    db.add_footprints([shared, shared])
    with db.session():
        rows = list(pstampFootprint.select().dicts())
        assert len(rows) == 300
        assert pstampImage.select().count() == 301
        for box in (None, (0.5, 0.5), (20.0, 10.0)):
            for _ in range(20):
                place = Place(rng.uniform(140, 150), rng.uniform(84, 90), box)
                query = pstampFootprint.select().where(in_cells(ranges_around(place)), near(place))
                found = {row.footprint_id for row in query}
                holding = {row["footprint_id"] for row in rows if place.is_on(row["wcs"], row["naxis1"], row["naxis2"])}
                assert holding <= found
                assert found == {row["footprint_id"] for row in rows if passes(row, place)}


def test_footprints_are_replaced_and_all_or_none(tmp_path: Path) -> None:
    db = ImageDB(str(tmp_path / "a.db"))
    db.create()
    db.add_footprint("warp", 7, "skycell.1", header(10, 10), 100, 80)
    db.add_footprint("warp", 7, "skycell.1", header(20, 10), 100, 80)
    good, bad = OnSky("chip", 1, "XY01", header(1, 1), 9, 9), OnSky("chip", 1, "XY02", Header(), 9, 9)
    with pytest.raises(UserError, match=r"^chip 1 XY02: no celestial WCS"):
        db.add_footprints([good, bad])
    with db.session():
        (row,) = pstampImage.select()
        assert (row.stage, row.stage_id, row.component) == ("warp", 7, "skycell.1")
        assert "CRVAL1  =                   20\n" in pstampFootprint.get_by_id(row.footprint_id).wcs


def test_the_tables_stand_in_the_list() -> None:
    assert {pstampFootprint, pstampImage} <= set(TABLES)
