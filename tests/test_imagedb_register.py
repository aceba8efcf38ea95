"""A user's own images: what goes in, what is refused and why, and that a request then finds them."""

from __future__ import annotations

import bz2
import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import astropy
import mariadb
import numpy as np
import pytest
from astropy.io import fits

from pstamp_core.faults import FinalError
from pstamp_core.imagedb import Added, ImageDB, Refused, Selection, add_images, register
from pstamp_core.imagedb import tables as t
from pstamp_core.imagedb.footprints import astrometry

WCS_CARDS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 20.5, "CRPIX2": 15.5,
    "CD1_1": -1e-3, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-3, "RADESYS": "ICRS",
}  # fmt: skip
CENTRE, FILE_DATA = (150.0, 2.0), Path(astropy.__file__).parent
NO_WCS = "no celestial WCS; expected CTYPE1 and CTYPE2 such as RA---TAN and DEC--TAN"


@pytest.fixture(scope="module")
def mysql(mysql_server: str) -> Iterator[str]:
    with mariadb.database(mysql_server) as address:
        yield address


@pytest.fixture
def address(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The address of an image database; on MariaDB one for all tests, which make it empty: tables take long there."""
    return str(tmp_path / "images.db") if engine == "sqlite" else str(request.getfixturevalue("mysql"))


@pytest.fixture
def db(address: str) -> Iterator[ImageDB]:
    made = ImageDB(address)
    made.create()
    with made.session():
        with made.db.atomic():
            for table in t.TABLES:
                table.delete().execute()
        yield made


def header(**cards: Any) -> fits.Header:
    return fits.Header(WCS_CARDS | cards)


def image(ra: float = 150.0, **cards: Any) -> fits.ImageHDU:
    return fits.ImageHDU(np.zeros((30, 40), "f4"), header(CRVAL1=ra, **cards))


def write(path: Path, *hdus: Any) -> Path:
    fits.HDUList(list(hdus)).writeto(path)
    return path


def simple(path: Path, **cards: Any) -> Path:
    return write(path, fits.PrimaryHDU(np.zeros((30, 40), "f4"), header(**cards)))


def one(db: ImageDB, path: Path) -> Added:
    (added,), refused = add_images(db, [path])
    assert refused == []
    return added


def reason(db: ImageDB, path: Path) -> str:
    added, (refused,) = add_images(db, [path])
    assert added == []
    assert refused.path == path
    return refused.reason


def found(db: ImageDB, **columns: Any) -> list[tuple[str, int | None]]:
    try:
        images = db.select(Selection(**{"req_type": "bycoord", "img_type": "stack", "position": CENTRE} | columns))
    except FinalError as error:
        if error.fault != 23:
            raise
        return []
    return sorted((image.image.name, image.hdu) for image in images)


def test_an_image_is_found_by_position_filter_date_name_and_number(db: ImageDB, tmp_path: Path) -> None:
    path = simple(tmp_path / "NGC 1.r.fits", FILTER=" r ", **{"DATE-OBS": "2017-03-01T00:00:00"})
    added = one(db, path)
    assert (added.path, added.hdu, added.skycell_id, added.filter) == (path.resolve(), 0, "NGC 1.r", "r")
    assert added.mjd_obs == pytest.approx(57813 + 37 / 86400, abs=1e-9)
    hit = [("NGC 1.r.fits", 0)]
    assert found(db) == hit
    assert found(db, reqfilt="R") == hit
    assert found(db, reqfilt="g") == []
    assert found(db, mjd_min=57813.0, mjd_max=57814.0) == hit
    assert found(db, mjd_max=57813.0) == []
    assert found(db, data_group="LOCAL", tess_id="local", component="ngc 1.R") == hit
    assert found(db, req_type="byskycell", tess_id="local", component="NGC 1.r") == hit
    assert found(db, req_type="byid", id=str(added.stack_id)) == hit
    assert found(db, position=(150.03, 2.0)) == []
    (image,) = db.select(Selection(req_type="byid", img_type="stack", id=str(added.stack_id)))
    assert image.image == path.resolve()
    assert {image.mask, image.variance, image.sources, image.psf, image.exposure, image.number} == {None}
    assert db.component("stack", added.stack_id, "NGC 1.r") == image


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1"])
def test_tile_compressed_images(db: ImageDB, tmp_path: Path, compression: str) -> None:
    data = np.zeros((30, 40), "i2")
    path = write(
        tmp_path / "a.fits.fz", fits.PrimaryHDU(), fits.CompImageHDU(data, header(), compression_type=compression)
    )
    added = one(db, path)
    assert (added.hdu, added.skycell_id) == (1, "a")
    with db.session():
        (row,) = t.pstampFootprint.select()
        assert (row.naxis1, row.naxis2) == (40, 30)
    assert found(db) == [("a.fits.fz", 1)]


def test_many_extensions(db: ImageDB, tmp_path: Path) -> None:
    """Each image of its own; masks, weights, tables and cubes are none; keywords may stand in the primary header."""
    primary = fits.PrimaryHDU()
    primary.header["FILTER"], primary.header["MJD-OBS"], primary.header["TIMESYS"] = "i", 55000.5, "TAI"
    table = fits.BinTableHDU.from_columns([fits.Column("A", "J", array=[1])])
    path = write(
        tmp_path / "mosaic.fits", primary, image(EXTNAME="SCI"), image(EXTNAME="DQ"), image(EXTNAME="wht"),
        table, fits.ImageHDU(np.zeros((2, 30, 40), "f4"), header(EXTNAME="CUBE")), fits.ImageHDU(),
        image(151.0, EXTNAME="SCI", FILTER="z"),
    )  # fmt: skip
    added, refused = add_images(db, [path])
    assert refused == []
    assert [(one.hdu, one.filter, one.mjd_obs) for one in added] == [(1, "i", 55000.5), (7, "z", 55000.5)]
    assert found(db) == [("mosaic.fits", 1)]
    assert found(db, position=(151.0, 2.0)) == [("mosaic.fits", 7)]


def test_an_extension_without_wcs_does_not_hurt_the_others(db: ImageDB, tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(np.zeros((5, 5), "f4")), image())
    assert one(db, path).hdu == 1


def test_adding_again_brings_up_to_date(db: ImageDB, tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), image(FILTER="r"), image(151.0))
    (first, second), _ = add_images(db, [path])
    assert add_images(db, [path]) == ([first, second], [])
    os.chdir(tmp_path)
    assert add_images(db, [Path("a.fits")])[0] == [first, second]
    path.unlink()
    write(path, fits.PrimaryHDU(), image(152.0, FILTER="g"))
    (again,), _ = add_images(db, [path])
    assert (again.stack_id, again.filter) == (first.stack_id, "g")
    assert found(db) == found(db, position=(151.0, 2.0)) == []
    assert found(db, position=(152.0, 2.0), reqfilt="g") == [("a.fits", 1)]
    with db.session():
        assert [t.stackRun.select().count(), t.stackSumSkyfile.select().count(), t.pstampImage.select().count()] == [
            1
        ] * 3


@pytest.fixture(autouse=True)
def _stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_names_with_a_meaning_to_the_fits_library(db: ImageDB, tmp_path: Path) -> None:
    names = ["a[1].fits", "b(x).fits", "!c.fits", "mem:d.fits", "e+1.fits", "é.fits"]
    added, refused = add_images(db, [simple(tmp_path / name) for name in names])
    assert refused == []
    assert [one.path.name for one in added] == names


def test_two_files_of_one_name(db: ImageDB, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        simple(tmp_path / folder / "a.fits")
    add_images(db, [tmp_path / "x" / "a.fits", tmp_path / "y" / "a.fits"])
    assert found(db, req_type="byskycell", tess_id="local", component="a") == [("a.fits", 0)] * 2


def test_unusable_files_are_refused_one_by_one_and_the_rest_go_in(db: ImageDB, tmp_path: Path) -> None:
    good, other = simple(tmp_path / "good.fits"), simple(tmp_path / "other.fits", CRVAL1=20.0)
    text = tmp_path / "note.txt"
    text.write_text("no image")
    told: list[tuple[int, int]] = []
    added, refused = add_images(
        db, [good, text, tmp_path / "none.fits", other], progress=lambda done, number: told.append((done, number))
    )
    assert [one.path.name for one in added] == ["good.fits", "other.fits"]
    assert refused == [
        Refused(text, "not a FITS file (it does not begin with SIMPLE)"),
        Refused(tmp_path / "none.fits", "no such file"),
    ]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_reasons(db: ImageDB, tmp_path: Path) -> None:
    folder = tmp_path / "folder.fits"
    folder.mkdir()
    assert reason(db, folder) == "not a file"
    empty = tmp_path / "empty.fits"
    empty.touch()
    assert reason(db, empty) == "not a FITS file (it does not begin with SIMPLE)"
    assert reason(db, write(tmp_path / "table.fits", fits.PrimaryHDU())) == "no image of two dimensions in it"
    assert reason(db, write(tmp_path / "no.fits", fits.PrimaryHDU(np.zeros((5, 5))))) == f"HDU 0: {NO_WCS}"
    assert (
        reason(db, write(tmp_path / "dq.fits", fits.PrimaryHDU(), image(EXTNAME="DQ"))) == "only masks or weights in it"
    )
    assert reason(db, simple(tmp_path / "text.fits", CRVAL2="north")) == "HDU 0: CRVAL2 = 'north': expected a number"
    long = simple(tmp_path / f"{'x' * 65}.fits")
    assert reason(db, long) == "a name of 65 characters without its ending; expected 1 to 64"
    assert reason(db, simple(tmp_path / ".fits")) == "a name of 0 characters without its ending; expected 1 to 64"
    packed = tmp_path / "a.fits.bz2"
    packed.write_bytes(bz2.compress(simple(tmp_path / "a.fits").read_bytes()))
    assert reason(db, packed) == "compressed as a whole (bzip2); unpack it, or use fpack, which leaves it readable"
    cut = tmp_path / "cut.fits.gz"
    cut.write_bytes(gzip.compress(simple(tmp_path / "cut.fits").read_bytes())[:-20])
    assert reason(db, cut).startswith(f"{cut}: damaged: ")


def test_a_gzipped_file(db: ImageDB, tmp_path: Path) -> None:
    packed = tmp_path / "b.fits.gz"
    packed.write_bytes(gzip.compress(simple(tmp_path / "plain.fits").read_bytes()))
    added, refused = add_images(db, [packed])
    assert ([(each.path, each.hdu, each.skycell_id) for each in added], refused) == ([(packed, 0, "b")], [])


def test_a_file_that_may_not_be_read(db: ImageDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = simple(tmp_path / "a.fits")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert reason(db, path) == "Permission denied"


@pytest.mark.parametrize("keep", [0.999, 0.6, 0.3])
def test_truncated(db: ImageDB, tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), image(), image(151.0))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    assert reason(db, path).startswith(("truncated: ", "damaged: "))


def test_every_cut_of_a_file_is_refused(db: ImageDB, tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), image())
    data = path.read_bytes()
    for length in range(0, len(data), 700):
        path.write_bytes(data[:length])
        assert reason(db, path)


def test_damaged_headers(db: ImageDB, tmp_path: Path) -> None:
    data = simple(tmp_path / "a.fits").read_bytes()
    for number, (old, new) in enumerate([
        (b"NAXIS1  =                   40", b"NAXIS1  =           4000000000"),
        (b"NAXIS1  =                   40", b"NAXIS1  =                  -40"),
        (b"NAXIS1  =                   40", b"NAXIS1  =                  abc"),
        (b"NAXIS   =                    2", b"NAXIS   =                  999"),
        (b"BITPIX  =                  -32", b"BITPIX  =                    7"),
        (b"END     ", b"EMD     "),
        (b"CRPIX1  =                 20.5", b"CRPIX1  = 'twenty"),
        (b"CTYPE1  = 'RA---TAN'", b"CTYPE1  = \xff\xfe\x00---TAN'"),
        (b"CD1_1   =               -0.001", b"CD1_1   =                1E400"),
    ]):  # fmt: skip
        assert old in data
        path = tmp_path / f"b{number}.fits"
        path.write_bytes(data.replace(old, new.ljust(len(old))))
        assert reason(db, path)


def test_bounds(db: ImageDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path.joinpath(*["x" * 100] * 7)
    long.mkdir(parents=True)
    path = simple(long / "a.fits")
    assert reason(db, path) == "path too long or not printable; expected at most 700 characters"
    assert reason(db, simple(tmp_path / "a\nb.fits")).startswith("path too long or not printable")
    monkeypatch.setattr(register, "MAX_HEADER", 2879)
    assert reason(db, simple(tmp_path / "a.fits")) == "a header of 2880 bytes; expected at most 2879"


def test_cards_that_bend_the_standard(db: ImageDB, tmp_path: Path) -> None:
    """Filter, date and name of an extension may be missing, so a card without sense counts as missing."""
    path = simple(tmp_path / "a.fits", FILTER="r", EXTNAME="xx", **{"DATE-OBS": "2010-03-01"})
    data = path.read_bytes()
    for good, bad in (
        (b"FILTER  = 'r       '", b"FILTER  = r         "), (b"DATE-OBS= '2010-03-01'", b"DATE-OBS=  2010-03-01 "),
        (b"EXTNAME = 'xx      '", b"EXTNAME = xx        "),
    ):  # fmt: skip
        assert good in data
        data = data.replace(good, bad)
    path.write_bytes(data)
    added = one(db, path)
    assert (added.filter, added.mjd_obs) == (None, None)
    path.write_bytes(data.replace(b"CRVAL2  =                  2.0", b"CRVAL2  =                2.0.0"))
    assert reason(db, path) == "HDU 0: Unparsable card (CRVAL2), fix it first with .verify('fix')."


def test_a_header_without_end_takes_no_memory(db: ImageDB, tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "endless.fits"
    card = b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                    8".ljust(80)
    path.write_bytes((card + b"NAXIS   =                    0".ljust(80)).ljust(40_000_000))
    tracemalloc.start()
    assert reason(db, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize(
    ("cards", "mjd_obs"),
    [
        ({"MJD-OBS": 57813.0}, 57813 + 37 / 86400),
        ({"MJD-OBS": 57813}, 57813 + 37 / 86400),
        ({"MJD-OBS": 57813.0, "TIMESYS": "TAI"}, 57813.0),
        ({"MJD-OBS": 57813.0, "TIMESYS": "TT"}, 57813 - 32.184 / 86400),
        ({"DATE-OBS": "2010-03-01", "TIME-OBS": "12:00:00"}, 55256.5 + 34 / 86400),
        ({"DATE-OBS": "2010-03-01T12:00:00", "TIME-OBS": "12:00:00"}, 55256.5 + 34 / 86400),
        ({"DATE-OBS": "2010-03-01"}, 55256 + 34 / 86400),
        ({"DATE-OBS": "2010-03-01T12:00:00", "TIMESYS": "LOCAL"}, None),
        ({"DATE-OBS": "01/03/99"}, None),
        ({"DATE-OBS": ""}, None),
        ({"MJD-OBS": "soon"}, None),
        ({"MJD-OBS": 1e300}, None),
        ({"MJD-OBS": True}, None),
        ({}, None),
    ],
)
def test_dates(db: ImageDB, tmp_path: Path, cards: dict[str, Any], mjd_obs: float | None) -> None:
    added = one(db, simple(tmp_path / "a.fits", **cards))
    assert added.mjd_obs == (None if mjd_obs is None else pytest.approx(mjd_obs, abs=1e-9))


@pytest.mark.parametrize(
    ("cards", "filter_"),
    [
        ({"FILTER": "g.00000"}, "g.00000"), ({"FILTER1": "CLEAR1L", "FILTER2": "F606W"}, "F606W"),
        ({"FILTER": 33}, "33"), ({"FILTER": " "}, None), ({"FILTER": "x" * 66}, "x" * 64), ({}, None),
    ],
)  # fmt: skip
def test_filters(db: ImageDB, tmp_path: Path, cards: dict[str, Any], filter_: str | None) -> None:
    assert one(db, simple(tmp_path / "a.fits", **cards)).filter == filter_


def test_another_camera(db: ImageDB, tmp_path: Path) -> None:
    add_images(db, [simple(tmp_path / "a.fits")], camera="dwarf")
    assert found(db, tess_id="dwarf", data_group="dwarf") == [("a.fits", 0)]


def test_the_fits_files_that_astropy_ships(db: ImageDB) -> None:
    """Real headers of every kind: each file is either in or refused with a reason, and what is in is found."""
    files = sorted(FILE_DATA.rglob("*.fits*"))
    added, refused = add_images(db, files)
    assert {one.path for one in added} | {one.path.resolve() for one in refused} == {path.resolve() for path in files}
    assert all(one.reason for one in refused)
    names = {one.path.name for one in added}
    assert {"m13.fits", "m13_rice.fits", "sip-wcs.fits", "header_newlines.fits", "1904-66_AZP.fits"} <= names
    assert ("m13.fits", 0) in found(db, position=(250.42, 36.46))
    middles = {}
    with db.session():
        for row in t.pstampImage.select():
            shape = t.pstampFootprint.get_by_id(row.footprint_id)
            sky = astrometry(shape.wcs).to_sky((shape.naxis1 + 1) / 2, (shape.naxis2 + 1) / 2)
            middles[Path(row.path).name, row.hdu] = tuple(map(float, sky))
    assert len(middles) == len(added)
    for image, middle in middles.items():
        assert image in found(db, position=middle)
