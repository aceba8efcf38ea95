"""The pixels and the WCS of stamps, with `astropy.nddata.Cutout2D` and the input's WCS as oracles."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D, NoOverlapError
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pstamp_core.faults import PstampError
from pstamp_core.stamps import InputFiles, Option, Stamp, StampRequest, cut

NX, NY = 90, 70
SCALE = 0.25 / 3600
TOKEN = "t0"


def tan_header(ra: float = 150.0, dec: float = 2.2, angle: float = 0.0, flip: bool = False) -> fits.Header:
    """A skycell's WCS: rotated by `angle` degrees, mirrored when `flip`."""
    header = fits.Header()
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    sign = 1 if flip else -1
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = ra, dec
    header["CRPIX1"], header["CRPIX2"] = 41.25, 33.5
    header["CD1_1"], header["CD1_2"] = sign * SCALE * c, -SCALE * s
    header["CD2_1"], header["CD2_2"] = sign * SCALE * s, SCALE * c
    header["RADESYS"] = "ICRS"
    return header


def sip_header() -> fits.Header:
    header = tan_header(angle=20)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header["A_ORDER"], header["B_ORDER"] = 2, 2
    header["A_2_0"], header["A_1_1"], header["B_0_2"], header["B_1_1"] = 3e-4, -2e-4, 2e-4, 1e-4
    return header


def tpv_header() -> fits.Header:
    header = tan_header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TPV", "DEC--TPV"
    for axis in (1, 2):
        header[f"PV{axis}_1"] = 1.0
        header[f"PV{axis}_4"] = 0.8 * axis
    return header


def fk5_header() -> fits.Header:
    header = tan_header()
    header["RADESYS"], header["EQUINOX"] = "FK5", 1975.0
    return header


HEADERS = {
    "tan": tan_header(),
    "rotated": tan_header(angle=33),
    "flipped": tan_header(angle=-120, flip=True),
    "ra0": tan_header(ra=0.0001, dec=-30),
    "pole": tan_header(ra=77, dec=89.999),
    "sip": sip_header(),
    "tpv": tpv_header(),
    "fk5": fk5_header(),
}


def noise(seed: int = 1) -> np.ndarray:
    data = np.random.default_rng(seed).normal(100, 30, (NY, NX)).astype("f4")
    data[10, 20:24] = np.nan
    return data


def write(path: Path, pixels: np.ndarray, header: fits.Header | None = None, **how: Any) -> Path:
    """Write stored numbers and cards as they are: plain in the primary HDU, or packed in extension 1."""
    cards = [{"name": c.keyword, "value": c.value, "comment": c.comment} for c in (header or fits.Header()).cards]
    path.unlink(missing_ok=True)
    with fitsio.FITS(str(path), "rw") as file:
        if how:
            file.write(None)
        file.write(pixels, header=cards, **how)
    return path


def scaled(header: fits.Header, **more: Any) -> fits.Header:
    new = header.copy()
    new.update({"BSCALE": 0.013, "BZERO": 2.3, **more})
    return new


def integers() -> np.ndarray:
    raw = np.random.default_rng(2).integers(-3000, 3000, (NY, NX)).astype("i2")
    raw[10, 20:24] = -32768
    return raw


STORED: dict[str, tuple[np.ndarray, fits.Header, dict[str, Any]]] = {
    "float": (noise(), fits.Header(), {}),
    "float64": (noise().astype("f8"), fits.Header(), {}),
    "float gzip": (noise(), fits.Header(), {"compress": "GZIP_2", "qlevel": 0}),
    "float quantised": (noise(), fits.Header(), {"compress": "RICE", "qlevel": 4}),
    "scaled blank rice": (integers(), scaled(fits.Header(), BLANK=-32768), {"compress": "RICE"}),
    "scaled blank": (integers(), scaled(fits.Header(), BLANK=-32768), {}),
    "scaled rice": (integers(), scaled(fits.Header()), {"compress": "RICE"}),
    "blank hcompress": (integers(), fits.Header({"BLANK": -32768}), {"compress": "HCOMPRESS", "hcomp_scale": 0}),
    "blank tiles": (integers(), fits.Header({"BLANK": -32768}), {"compress": "RICE", "tile_dims": (16, 16)}),
    "int32": (integers().astype("i4") * 70001, fits.Header(), {"compress": "RICE"}),
    "int64": (integers().astype("i8"), fits.Header({"BLANK": -32768}), {}),
    "unsigned": (integers(), fits.Header({"BSCALE": 1, "BZERO": 32768, "BLANK": -32768}), {}),
    "bytes": (np.abs(integers() % 256).astype("u1"), fits.Header(), {"compress": "RICE"}),
    "scaled float": (noise(), scaled(fits.Header()), {"compress": "GZIP_2", "qlevel": 0}),
}


def request(job_id: int, center: Any, size: Any, base: Path, options: int = 1, **more: Any) -> StampRequest:
    """A request in pixels unless told otherwise."""
    return StampRequest(
        **{
            "job_id": job_id,
            "center": center,
            "center_in_pixels": True,
            "size": size,
            "size_in_pixels": True,
            "options": options,
            "base": base / f"{job_id}_7_r_cell.000.001",
            "stage": "stack",
            **more,
        }
    )


def run(
    files: InputFiles, requests: Sequence[StampRequest], max_pixels: int = 10**6, quantise: float = 0
) -> Iterator[Stamp | tuple[int, PstampError]]:
    return cut(files, requests, token=TOKEN, max_pixels=max_pixels, quantise=quantise)


def cut_all(image: Path, requests: Sequence[StampRequest], **more: Any) -> dict[int, Stamp]:
    """Cut, and expect that all succeed."""
    files = InputFiles(image, **{k: v for k, v in more.items() if k != "quantise"})
    results = list(run(files, requests, quantise=more.get("quantise", 0)))
    for result in results:
        if not isinstance(result, Stamp):
            raise result[1]
    return {result.job_id: result for result in results}


def product(stamp: Stamp, suffix: str = ".fits") -> Path:
    [path] = [file.path for file in stamp.products if file.name.endswith("cell.000.001" + suffix)]
    return path


def read(path: Path) -> tuple[np.ndarray, fits.Header]:
    """Pixels as astropy reads them, and the header, of the HDU that has an image."""
    with fits.open(path, memmap=False) as hdus:
        hdu = hdus[-1]
        return hdu.data.astype(hdu.data.dtype.newbyteorder("=")), hdu.header


def expected(image: Path, center: Any, size: tuple[Any, Any], wcs: WCS | None = None) -> np.ndarray:
    """What Cutout2D makes of it; pixel centres 0-based, size (width, height)."""
    data, _ = read(image)
    if data.dtype.kind != "f":
        data = data.astype("f4" if data.itemsize <= 2 else "f8")
    return Cutout2D(data, center, size[::-1], wcs=wcs, mode="partial", fill_value=np.nan).data


def assert_same(got: np.ndarray, want: np.ndarray) -> None:
    """Equal to the last bit, NaN to NaN, and of the same type."""
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert (np.isnan(got) == np.isnan(want)).all()
    assert got[~np.isnan(got)].tobytes() == want[~np.isnan(want)].tobytes()


PLACES = [
    ((45, 35), (20, 21)),  # odd, even
    ((45.5, 35.5), (20, 21)),  # on a pixel's edge
    ((45.5, 35.5), (1, 1)),
    ((45.25, 34.75), (7.4, 8.6)),  # sizes are rounded
    ((0.5, 0.5), (11, 12)),  # low corner
    ((90.49, 70.49), (11, 12)),  # high corner
    ((0.5, 70.4), (10, 10)),
    ((90.4, 0.5), (10, 10)),
    ((45, 1), (30, 9)),
    ((45, 70), (30, 9)),
    ((1, 35), (9, 30)),
    ((90, 35), (9, 30)),
    ((45, 35), (200, 150)),  # larger than the image
    ((45, 35), (-20, -21)),  # signs do not matter
    ((45, 35), (90, 70)),
]


@pytest.mark.parametrize("kind", STORED)
def test_pixels_are_those_of_cutout2d(tmp_path: Path, kind: str) -> None:
    pixels, header, how = STORED[kind]
    image = write(tmp_path / "image.fits", pixels, header, **how)
    stamps = cut_all(image, [request(n, c, s, tmp_path) for n, (c, s) in enumerate(PLACES)])
    for number, ((x, y), (width, height)) in enumerate(PLACES):
        got, _ = read(product(stamps[number]))
        assert_same(got, expected(image, (x - 1, y - 1), (abs(width), abs(height))))


def test_integers_with_blank_stay_integers(tmp_path: Path) -> None:
    pixels, header, how = STORED["scaled blank rice"]
    image = write(tmp_path / "image.fits", pixels, header, **how)
    stamp = cut_all(image, [request(1, (3, 35), (20, 20), tmp_path)])[1]
    raw = fitsio.FITS(str(product(stamp)))[1]
    raw.ignore_scaling = True
    padded = np.full((20, 20), -32768, "i2")
    padded[:, 8:] = pixels[24:44, :12]
    assert raw.is_compressed()
    assert raw.read().dtype == np.int16
    assert (raw.read() == padded).all()


def test_rows_between_two_boxes_of_one_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are one band, because they share tiles, but the rows between are not read."""
    monkeypatch.setattr("pstamp_core.stamps.image.READ_AHEAD", 1)
    pixels, header, how = STORED["blank tiles"]
    image = write(tmp_path / "image.fits", pixels, header, **{**how, "tile_dims": (64, 90)})
    stamps = cut_all(image, [request(1, (30, 3), (20, 4), tmp_path), request(2, (40, 50), (20, 4), tmp_path)])
    for number, center in ((1, (29, 2)), (2, (39, 49))):
        assert_same(read(product(stamps[number]))[0], expected(image, center, (20, 4)))


def test_blank_under_another_name(tmp_path: Path) -> None:
    """ZBLANK (FITS standard 10.2.2) holds where it is, and is BLANK in a stamp that is not packed."""
    pixels, header, how = STORED["scaled blank rice"]
    image = write(tmp_path / "image.fits", pixels, header, **how)
    image.write_bytes(image.read_bytes().replace(b"BLANK   =", b"ZBLANK  ="))
    for options in (1, 1 | Option.UNCOMPRESSED):
        got, _ = read(product(cut_all(image, [request(1, (21, 11), (9, 9), tmp_path, options)])[1]))
        assert np.isnan(got[4, 4])
        assert_same(got, expected(image, (20, 10), (9, 9)))


def test_blank_zero_is_no_data(tmp_path: Path) -> None:
    """By the FITS standard; astropy takes it for none, so such an image becomes floating point."""
    pixels = integers()
    pixels[30, 30] = 0
    image = write(tmp_path / "image.fits", pixels, fits.Header({"BLANK": 0}))
    got, header = read(product(cut_all(image, [request(1, (31, 31), (9, 9), tmp_path)])[1]))
    assert (got.dtype, "BLANK" in header) == ("f4", False)
    assert np.isnan(got[4, 4])
    assert np.isfinite(got).sum() == (pixels[26:35, 26:35] != 0).sum()


def test_infinity_survives(tmp_path: Path) -> None:
    pixels = noise()
    pixels[30, 30], pixels[31, 31] = np.inf, -np.inf
    image = tmp_path / "image.fits"
    fits.PrimaryHDU(pixels).writeto(image)  # fitsio would write NaN
    stamps = cut_all(image, [request(1, (31, 31), (8, 8), tmp_path, 1 | Option.EXPOSURE)], exposure=image)
    assert np.isinf(expected(image, (30, 30), (8, 8))).sum() == 2
    for suffix in (".fits", ".exp.fits"):
        assert_same(read(product(stamps[1], suffix))[0], expected(image, (30, 30), (8, 8)))


@pytest.fixture(scope="module")
def two_images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    kinds = "float", "blank tiles"
    return [write(folder / f"{kind}.fits", *STORED[kind][:2], **STORED[kind][2]) for kind in kinds]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(
        st.tuples(
            st.tuples(
                *(st.one_of(st.floats(0.5, n + 0.49), st.integers(1, 2 * n).map(lambda i: i / 2)) for n in (NX, NY))
            ),
            st.tuples(st.floats(1, 120), st.integers(1, 99)),
        ),
        min_size=1,
        max_size=6,
    ),
    which=st.integers(0, 1),
    ahead=st.sampled_from([1, 10, 512]),
)
def test_any_boxes_together(two_images: list[Path], tmp_path: Path, places: Any, which: int, ahead: int) -> None:
    """Any centres and sizes, several in one pass, read in pieces of any height: each is what Cutout2D makes."""
    image = two_images[which]
    places = [((x, y), s) for (x, y), s in places if 0.5 <= x < NX + 0.5 and 0.5 <= y < NY + 0.5]
    requests = [request(n, c, s, tmp_path) for n, (c, s) in enumerate(places)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pstamp_core.stamps.image.READ_AHEAD", ahead)
        results = sorted_results(image, requests)
    for request_, result in zip(requests, results, strict=True):
        center = (request_.center[0] - 1, request_.center[1] - 1)
        try:
            want = expected(image, center, request_.size)
        except NoOverlapError:  # a centre on the very edge
            assert isinstance(result, tuple)
            assert result[1].fault == 28
            continue
        if np.isnan(want).all():
            assert isinstance(result, tuple)
            assert result[1].fault == 30
        else:
            assert isinstance(result, Stamp)
            assert_same(read(product(result))[0], want)
            assert result.fraction_finite == np.isfinite(want).mean()


def sorted_results(image: Path, requests: Sequence[StampRequest]) -> list[Stamp | tuple[int, PstampError]]:
    results = run(InputFiles(image), requests)
    return sorted(results, key=lambda r: r.job_id if isinstance(r, Stamp) else r[0])


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("size", [(20, 17), (3.1 * u.arcsec, 4.6 * u.arcsec)], ids=["pixels", "arcsec"])
def test_sky_centres_and_the_wcs_of_stamps(tmp_path: Path, kind: str, size: Any) -> None:
    image = write(tmp_path / "image.fits", noise(), HEADERS[kind])
    wcs = WCS(fits.getheader(image))  # as written, with 15 digits
    places = [(45.0, 35.0), (-0.3, -0.3), (89.3, 69.3), (10.2, 60.7)]
    in_pixels = not isinstance(size[0], u.Quantity)
    requests, centers = [], []
    for number, (x, y) in enumerate(places):
        sky = wcs.pixel_to_world(x, y).icrs
        center = SkyCoord(sky.ra.deg, sky.dec.deg, unit="deg")
        centers.append(center)
        plain = tuple(float(getattr(side, "value", side)) for side in size)
        requests.append(
            request(
                number,
                (center.ra.deg, center.dec.deg),
                plain,
                tmp_path,
                center_in_pixels=False,
                size_in_pixels=in_pixels,
            )
        )
    stamps = cut_all(image, requests)
    for number, center in enumerate(centers):
        got, header = read(product(stamps[number]))
        assert_same(got, expected(image, center, size, wcs))
        stamp = stamps[number]
        assert (stamp.ra, stamp.dec) == requests[number].center
        assert (header["RA_DEG"], header["DEC_DEG"]) == pytest.approx(requests[number].center, rel=1e-14)
        x, y = np.meshgrid(np.linspace(-5, 25, 7), np.linspace(-5, 25, 7))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fits.verify.VerifyWarning)
            new = WCS(header)
        back = wcs.all_pix2world(x + stamp.box.x0, y + stamp.box.y0, 0)
        assert np.abs(np.array(new.all_world2pix(*back, 0, tolerance=1e-9)) - (x, y)).max() < 1e-6


@pytest.mark.parametrize("kind", ["sip", "fk5", "tan"])
def test_a_sky_centre_does_not_depend_on_its_neighbours(tmp_path: Path, kind: str) -> None:
    """The inverse of a distortion is iterated, for a list until the worst has converged: not so here."""
    image = write(tmp_path / "image.fits", noise(), HEADERS[kind])
    rng = np.random.default_rng(8)
    sky = WCS(HEADERS[kind]).pixel_to_world(rng.integers(0, NX, 60), rng.integers(0, NY, 60)).icrs
    requests = [request(n, (c.ra.deg, c.dec.deg), (6, 6), tmp_path, center_in_pixels=False) for n, c in enumerate(sky)]
    crowd = cut_all(image, requests)
    assert [crowd[r.job_id].box for r in requests] == [cut_all(image, [r])[r.job_id].box for r in requests]


def test_pixel_centre_and_whole_image_have_their_sky_position(tmp_path: Path) -> None:
    image = write(tmp_path / "image.fits", noise(), HEADERS["fk5"])
    requests = [request(1, (12.5, 60.25), (9, 9), tmp_path), request(2, (0, 0), (0, 0), tmp_path)]
    stamps = cut_all(image, requests)
    wcs = WCS(HEADERS["fk5"])
    for job, (x, y) in ((1, (11.5, 59.25)), (2, (44.5, 34.5))):
        sky = wcs.pixel_to_world(x, y).icrs
        assert (stamps[job].ra, stamps[job].dec) == pytest.approx((sky.ra.deg, sky.dec.deg), abs=1e-11)
    assert_same(read(product(stamps[2]))[0], noise())
    assert stamps[2].box == (0, 0, NX, NY)


def test_width_goes_with_the_first_axis_where_pixels_are_not_square(tmp_path: Path) -> None:
    header = tan_header()
    header["CD1_1"] *= 2
    image = write(tmp_path / "image.fits", noise(), header)
    stamp = cut_all(image, [request(1, (45, 35), (5, 5), tmp_path, size_in_pixels=False)])[1]
    assert stamp.box[2:] == (10, 20)


def test_reference_pixel_that_is_not_said_is_zero(tmp_path: Path) -> None:
    header = tan_header()
    del header["CRPIX1"]
    image = write(tmp_path / "image.fits", noise(), header)
    _, new = read(product(cut_all(image, [request(1, (45, 35), (10, 10), tmp_path)])[1]))
    assert (new["CRPIX1"], new["CRPIX2"]) == (-39, 33.5 - 29)


def test_boxes_and_fractions_are_told(tmp_path: Path) -> None:
    image = write(tmp_path / "image.fits", noise())
    stamp = cut_all(image, [request(1, (21, 2), (40, 20), tmp_path)])[1]
    assert stamp.box == (0, -9, 40, 20)
    assert stamp.on_image == (0, 0, 40, 11)
    assert stamp.fraction_on_image == 11 / 20
    assert stamp.fraction_finite == (11 * 40 - 4) / 800
    assert stamp.ra is None
    assert stamp.dec is None
    _, header = read(product(stamp))
    assert (header["PSBOX"], header["PSONIMG"]) == ("[1:40,-8:11]", "[1:40,1:11]")
    assert "RA_DEG" not in header


def test_a_crowd_equals_each_alone(tmp_path: Path) -> None:
    """Forty stamps in one pass over all planes: the same bytes as forty passes."""
    pixels, _, how = STORED["scaled blank rice"]
    image = write(tmp_path / "i.fits", pixels, scaled(tan_header(), BLANK=-32768), **how)
    mask = write(
        tmp_path / "m.fits", np.random.default_rng(4).integers(0, 2**15, (NY, NX)).astype("i2"), compress="GZIP_2"
    )
    rng = np.random.default_rng(3)
    together, alone = tmp_path / "together", tmp_path / "alone"
    together.mkdir()
    alone.mkdir()
    where = [((rng.uniform(1, NX), rng.uniform(1, NY)), tuple(rng.integers(2, 40, 2).tolist())) for _ in range(40)]
    options = [int(rng.choice([1, 1 | Option.MASK])) for _ in where]
    crowd = [request(n, c, s, together, o) for n, ((c, s), o) in enumerate(zip(where, options, strict=True))]
    stamps = cut_all(image, crowd, mask=mask)
    for number, ((center, size), option) in enumerate(zip(where, options, strict=True)):
        single = cut_all(image, [request(number, center, size, alone, option)], mask=mask)[number]
        assert [(p.name, p.md5) for p in single.products] == [(p.name, p.md5) for p in stamps[number].products]
        assert len(single.products) == option.bit_count()


def test_rows_are_read_once_and_little_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tall image with many overlapping stamps every row is read once, and in pieces."""
    from pstamp_core.stamps import image as module

    pixels = np.arange(3000 * 40, dtype="i4").reshape(3000, 40)
    image = write(tmp_path / "image.fits", pixels, fits.Header({"BLANK": -1}), compress="RICE")
    reads: list[Any] = []
    plain = module.Image.read
    monkeypatch.setattr(module.Image, "read", lambda self, box: (reads.append(box), plain(self, box))[1])
    requests = [request(n, (21, 16 + 29 * n), (40, 30), tmp_path) for n in range(100)]
    stamps = cut_all(image, requests)
    for number in range(100):
        assert_same(read(product(stamps[number]))[0], pixels[29 * number : 29 * number + 30].astype("f8"))
    assert sum(box.ny for box in reads) == 99 * 29 + 30
    assert max(box.ny for box in reads) <= module.READ_AHEAD + 30


def test_wide_apart_stamps_are_not_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window would hold too much, or square tiles between them would be unpacked for nothing."""
    from pstamp_core.stamps import image as module

    reads: list[Any] = []
    plain = module.Image.read
    monkeypatch.setattr(module.Image, "read", lambda self, box: (reads.append(box), plain(self, box))[1])
    row_tiles, square_tiles = {"compress": "RICE"}, {"compress": "RICE", "tile_dims": (16, 16)}
    for how, window, widths in (
        (row_tiles, module.WINDOW, [75]),
        (row_tiles, 30000, [4, 4]),
        (square_tiles, module.WINDOW, [4, 4]),
    ):
        reads.clear()
        monkeypatch.setattr(module, "WINDOW", window)
        image = write(tmp_path / "image.fits", integers(), fits.Header({"BLANK": -32768}), **how)
        cut_all(image, [request(1, (9, 9), (4, 4), tmp_path), request(2, (80, 10), (4, 4), tmp_path)])
        assert [box.nx for box in reads] == widths


def test_first_image_is_found_or_the_hdu_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "many [1](2).fits"  # a name that cfitsio would take apart
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("A", "J", array=[1])])]
    hdus += [fits.ImageHDU(np.zeros((2, 2, 2))), fits.ImageHDU(noise(1)), fits.CompImageHDU(integers())]
    fits.HDUList(hdus).writeto(path)
    first, named = (cut_all(path, [request(1, (45, 35), (9, 9), tmp_path)], **hdu)[1] for hdu in ({}, {"hdu": 4}))
    pixels, header = read(product(named))
    assert header["PSHDU"] == 4
    assert (pixels == integers()[30:39, 40:49]).all()
    with pytest.raises(PstampError) as caught:
        cut_all(path, [request(1, (45, 35), (9, 9), tmp_path)], hdu=1)
    assert str(caught.value) == f"{path}: HDU 1 is not a 2-d image"
    del first


def test_results_are_made_one_by_one(tmp_path: Path) -> None:
    image = write(tmp_path / "image.fits", noise())
    out = tmp_path / "out"
    out.mkdir()
    results = run(InputFiles(image), [request(n, (45, 20 + n), (9, 9), out) for n in range(5)])
    next(results)
    assert len(list(out.iterdir())) == 1
    results.close()


def test_a_gzipped_file(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.fits", noise(), tan_header())
    packed = tmp_path / "b.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    want = read(product(cut_all(plain, [request(1, (30, 20), (11, 12), tmp_path)])[1]))[0]
    got = read(product(cut_all(packed, [request(2, (30, 20), (11, 12), tmp_path)])[2]))[0]
    assert_same(got, want)


def test_latitude_first(tmp_path: Path) -> None:
    header = tan_header()
    for name in ("CTYPE", "CRVAL", "CUNIT"):
        if f"{name}1" in header:
            header[f"{name}1"], header[f"{name}2"] = header[f"{name}2"], header[f"{name}1"]
    image = write(tmp_path / "a.fits", noise(), header)
    with fits.open(image) as hdus:
        place = WCS(header).pixel_to_world(30, 12).icrs
        want = hdus[0].data[12 - 4 : 12 + 5, 30 - 3 : 30 + 4].astype("f4")
    sky = request(2, (place.ra.deg, place.dec.deg), (7, 9), tmp_path, center_in_pixels=False)
    for stamp in cut_all(image, [request(1, (31, 13), (7, 9), tmp_path), sky]).values():
        assert stamp.box == (27, 8, 7, 9)
        assert (stamp.ra, stamp.dec) == (pytest.approx(place.ra.deg), pytest.approx(place.dec.deg))
        assert_same(read(product(stamp))[0], want)
