"""The products of a stamp: planes, headers, sources, copies, JPEG."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image as Picture
from test_stamps_cut import NX, NY, STORED, assert_same, cut_all, noise, product, read, request, tan_header, write

from pstamp_core import __version__
from pstamp_core.stamps import Option, contact_sheet

EDGE = (3, 35)  # a 20-pixel stamp about it lacks its first 8 columns


def test_every_product_of_a_stack(tmp_path: Path) -> None:
    """All bits at once: names, types, sizes and md5s, on disk under private names only."""
    source = tmp_path / "in"
    source.mkdir()
    image = write(source / "i.fits", noise(), tan_header())
    planes = {n: write(source / f"{n}.fits", noise(5)) for n in ("variance", "exposure")}
    planes |= {n: write(source / f"{n}.fits", np.ones((NY, NX), "i2")) for n in ("mask", "number")}
    copies = {"psf": source / "cell.psf.fits", "backmdl": source / "cell.mdl.fits"}
    for name, path in copies.items():
        path.write_bytes(name.encode())
    sources = make_sources(source / "cell.cmf")
    out = tmp_path / "out"
    out.mkdir()
    stamp = cut_all(image, [request(1, EDGE, (20, 20), out, 511)], **planes, **copies, sources=sources)[1]
    base = "1_7_r_cell.000.001"
    assert [(p.name, p.type) for p in stamp.products] == [
        (f"{base}.fits", "pstamp"),
        (f"{base}.jpg", "pstamp"),
        (f"{base}.mk.fits", "pstamp"),
        (f"{base}.wt.fits", "pstamp"),
        (f"{base}.exp.fits", "pstamp"),
        (f"{base}.num.fits", "pstamp"),
        (f"{base}.cmf", "pstamp"),
        ("1_7_r_cell.psf.fits", "fits"),
        ("1_7_r_cell.mdl.fits", "fits"),
    ]
    assert sorted(out.iterdir()) == sorted(out / f".{p.name}.t0.tmp" for p in stamp.products)
    for file in stamp.products:
        content = file.path.read_bytes()
        assert (file.bytes, file.md5) == (len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())
        if file.name.endswith(".fits") and file.type == "pstamp":
            with fits.open(file.path) as hdus:
                hdus.verify("exception")
    assert (stamp.products[-2].path.read_bytes(), stamp.products[-1].path.read_bytes()) == (b"psf", b"backmdl")
    assert stamp.missing == ()


def test_products_whose_file_is_not_known_are_named(tmp_path: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    stamp = cut_all(image, [request(1, EDGE, (20, 20), tmp_path, 511 - Option.JPEG)])[1]
    assert [p.name for p in stamp.products] == ["1_7_r_cell.000.001.fits"]
    assert stamp.missing == ("mask", "variance", "exposure", "number", "sources", "psf", "backmdl")


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("raw", ("sources",)),
        ("chip", ("mask", "variance", "sources", "psf", "backmdl")),
        ("warp", ("mask", "variance", "sources", "psf", "backmdl")),
        ("diff", ("mask", "variance", "sources", "psf", "backmdl")),
    ],
)
def test_a_stage_has_only_some_products(tmp_path: Path, stage: str, missing: tuple[str, ...]) -> None:
    image = write(tmp_path / "i.fits", noise())
    assert cut_all(image, [request(1, EDGE, (9, 9), tmp_path, 511, stage=stage)])[1].missing == missing


def test_image_is_always_delivered(tmp_path: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    assert len(cut_all(image, [request(1, EDGE, (9, 9), tmp_path, 0)])[1].products) == 1


@pytest.mark.parametrize(
    ("dtype", "cards", "compress"),
    [("i2", {}, "GZIP_2"), ("i2", {"BZERO": 32768, "BSCALE": 1}, None), ("u1", {}, "PLIO"), ("i4", {}, "RICE")],
)
def test_mask_keeps_its_bits_and_pads_with_blank(tmp_path: Path, dtype: str, cards: Any, compress: str | None) -> None:
    image = write(tmp_path / "i.fits", noise())
    raw = np.random.default_rng(3).integers(0, 127, (NY, NX)).astype(dtype)
    mask = write(tmp_path / "m.fits", raw, fits.Header(cards), **({"compress": compress} if compress else {}))
    stamp = cut_all(image, [request(1, EDGE, (20, 20), tmp_path, 3)], mask=mask)[1]
    got, _ = read(product(stamp, ".mk.fits"))
    want, _ = read(mask)
    assert got.dtype == want.dtype
    assert (got[:, 8:] == want[24:44, :12]).all()
    assert (got[:, :8] == 0x0008).all()


@pytest.mark.parametrize("dtype", ["i2", "u1", "f4"])
def test_maps_pad_with_zero(tmp_path: Path, dtype: str) -> None:
    image = write(tmp_path / "i.fits", noise())
    maps = write(tmp_path / "n.fits", np.full((NY, NX), 7, dtype), compress="GZIP_2", qlevel=0)
    stamp = cut_all(image, [request(1, EDGE, (20, 20), tmp_path, 1 | 128 | 256)], number=maps, exposure=maps)[1]
    for suffix in (".exp.fits", ".num.fits"):
        got, _ = read(product(stamp, suffix))
        assert got.dtype == dtype
        assert (got[:, 8:] == 7).all()
        assert (got[:, :8] == 0).all()


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_map_whose_scale_has_no_zero_becomes_float(tmp_path: Path, dtype: str) -> None:
    image = write(tmp_path / "i.fits", noise())
    maps = write(tmp_path / "n.fits", np.full((NY, NX), 7, dtype), fits.Header({"BSCALE": 0.3, "BZERO": 1.0}))
    stamp = cut_all(image, [request(1, EDGE, (20, 20), tmp_path, 1 | 128)], exposure=maps)[1]
    got, header = read(product(stamp, ".exp.fits"))
    assert (got[:, 8:] == np.float32(7) * np.float32(0.3) + np.float32(1)).all()
    assert (got[:, :8] == 0).all()
    assert "BSCALE" not in header


def test_variance_pads_with_nan(tmp_path: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    variance = write(tmp_path / "w.fits", noise(6))
    stamp = cut_all(image, [request(1, EDGE, (20, 20), tmp_path, 5)], variance=variance)[1]
    want = np.full((20, 20), np.nan, "f4")
    want[:, 8:] = noise(6)[24:44, :12]
    assert_same(read(product(stamp, ".wt.fits"))[0], want)


@pytest.mark.parametrize("kind", ["float", "blank tiles"])
def test_uncompressed_option(tmp_path: Path, kind: str) -> None:
    pixels, header, how = STORED[kind]
    image = write(tmp_path / "i.fits", pixels, header, **how)
    options = 1 | Option.MASK | Option.EXPOSURE | Option.UNCOMPRESSED
    mask = write(tmp_path / "m.fits", np.ones((NY, NX), "i2"), compress="RICE")
    stamp = cut_all(image, [request(1, EDGE, (20, 20), tmp_path, options)], mask=mask, exposure=mask)[1]
    assert len(stamp.products) == 3
    for file in stamp.products:
        with fits.open(file.path) as hdus:
            assert [type(hdu) for hdu in hdus] == [fits.PrimaryHDU]


def test_loss_only_where_the_site_asks_for_it(tmp_path: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    for quantise, loss in ((0, False), (16, True)):
        stamp = cut_all(image, [request(1, EDGE, (20, 20), tmp_path)], quantise=quantise)[1]
        got, _ = read(product(stamp))
        difference = got[:, 8:] - noise()[24:44, :12]
        assert (np.abs(difference).max() > 0) == loss
        assert np.abs(difference).max() < 30 / 16
        assert np.isnan(got[:, :8]).all()
    # The dither is taken from the pixels, not from the clock: the same bytes each time.
    stamps = cut_all(
        image, [request(1, EDGE, (20, 20), tmp_path), request(2, (50, 35), (20, 20), tmp_path)], quantise=16
    )
    assert stamps[1].products == stamp.products
    seeds = {card for s in stamps.values() for card in raw_cards(product(s), 1) if card.startswith("ZDITHER0")}
    assert len(seeds) == 2


# --- headers ------------------------------------------------------------------------------------------------------

ODD_CARDS = [
    "LONG    = 'a string longer than a card can hold, and so it goes on in the &'",
    "CONTINUE  'next one, to its end'",
    "HIERARCH ESO DET CHIP TEMP = 163.5 / [K] detector",
    "ZP      =                  NaN / not FITS, but seen",
    "COMMENT the same twice",
    "COMMENT the same twice",
    "HISTORY one",
    "HISTORY two",
    "EXPTIME =                 45.0 / [s]",
    "TINY    =        1.2345678D-12 / a Fortran exponent",
    "UNDEF   =                      / no value",
    "        a blank keyword",
    "QUOTE   = 'it''s'              / two quotes",
]
LOST = {
    "DATASEC": "[1:90,1:70]",
    "CHECKSUM": "abcdefghijklmnop",
    "DATASUM": "123",
}


def put_cards(path: Path, cards: list[str], hdu: int = 0) -> None:
    """Write cards into a header as they are."""
    with fits.open(path) as hdus:
        where = hdus[hdu]._header_offset, hdus[hdu]._data_offset
    content = path.read_bytes()
    header = content[where[0] : where[1]]
    assert max(map(len, cards)) <= 80
    header = header[: header.index(b"END" + b" " * 77)] + b"".join(
        c.encode("latin-1").ljust(80) for c in [*cards, "END"]
    )
    header += b" " * (-len(header) % 2880)
    path.write_bytes(content[: where[0]] + header + content[where[1] :])


def raw_cards(path: Path, hdu: int) -> list[str]:
    with fits.open(path, memmap=False) as hdus:
        where = hdus[hdu]._header_offset, hdus[hdu]._data_offset
    content = path.read_bytes()[where[0] : where[1]].decode("ascii")
    return [content[i : i + 80].rstrip() for i in range(0, len(content), 80)]


@pytest.mark.parametrize("kind", ["float", "scaled blank rice"])
@pytest.mark.parametrize("options", [1, 1 | Option.UNCOMPRESSED])
def test_header_survives(tmp_path: Path, kind: str, options: int) -> None:
    pixels, cards, how = STORED[kind]
    header = tan_header()
    header.update(cards)
    header.update(LOST)
    image = write(tmp_path / "i.fits", pixels, header, **how)
    put_cards(image, ODD_CARDS, 1 if how else 0)
    own = (
        ("REQNAME", "a 'request' whose name is " + 60 * "long", "name"),
        ("ROWNUM", 7, "row"),
        ("EXPTIME", float("nan"), ""),
    )
    stamp = cut_all(image, [request(1, (45, 35), (20, 20), tmp_path, options, header=own)])[1]
    packed = bool(how) and not options & Option.UNCOMPRESSED
    got = raw_cards(product(stamp), int(packed))
    start = got.index(ODD_CARDS[0])
    kept = [card for card in ODD_CARDS if not card.startswith("EXPTIME")]
    assert got[start : start + len(kept)] == kept
    _, new = read(product(stamp))
    assert new["REQNAME"] == own[0][1]
    assert new["ROWNUM"] == 7
    assert new["PSTAMP"] == f"pstamp {__version__}"
    assert new["PSFILE"] == "i.fits"
    assert new["PSHDU"] == (1 if how else 0)
    assert sum(card.startswith("EXPTIME ") for card in got) == 1
    assert new["EXPTIME"] is None
    assert not set(LOST) & set(new)
    names = [
        card[:8].strip() for card in got if card[:8].strip() not in ("COMMENT", "HISTORY", "", "CONTINUE", "HIERARCH")
    ]
    assert len(names) == len(set(names))


def test_own_cards_replace_and_add(tmp_path: Path) -> None:
    """A card that goes takes its CONTINUE along; commentary is added to; T and 1 are two values."""
    image = write(tmp_path / "i.fits", noise())
    put_cards(image, ["LONG    = 'begun &'", "CONTINUE  'ended'", "HISTORY theirs", "NEXT    = 5"])
    for value in (1, True, 1.0):
        own = (("LONG", value, "a comment that is much longer than what fits behind a value, and so it is cut"),)
        own += (("HISTORY", "ours", ""),)
        stamp = cut_all(image, [request(1, EDGE, (9, 9), tmp_path, header=own)])[1]
        cards = raw_cards(product(stamp), 0)
        assert not any(card.startswith("CONTINUE") for card in cards)
        _, header = read(product(stamp))
        assert (header["LONG"], type(header["LONG"])) == (value, type(value))
        assert list(header["HISTORY"]) == ["theirs", "ours"]
        assert header["NEXT"] == 5


def test_bytes_that_no_header_may_hold_are_replaced(tmp_path: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    put_cards(image, ["OBSERVER= 'J\xf6rg    '"])
    own = (("REQNAME", "Zo\xeb\n", "\u00b5"),)
    _, header = read(product(cut_all(image, [request(1, EDGE, (9, 9), tmp_path, header=own)])[1]))
    assert (header["OBSERVER"], header["REQNAME"]) == ("J?rg", "Zo??")


def test_reference_pixels_move_and_no_others(tmp_path: Path) -> None:
    header = tan_header()
    header.update({"CRPIX1A": 5.0, "LTV1": -3.0, "LTV2": "x", "CRPIX2B": 1e6, "XCRPIX1": 4.0})
    image = write(tmp_path / "i.fits", noise(), header)
    _, new = read(product(cut_all(image, [request(1, (45, 35), (20, 20), tmp_path)])[1]))
    got = [new[name] for name in ("CRPIX1", "CRPIX2", "CRPIX1A", "CRPIX2B", "LTV1", "LTV2", "XCRPIX1")]
    assert got == [41.25 - 34, 33.5 - 24, 5 - 34, 1e6 - 24, -3 - 34, "x", 4.0]
    assert new.comments["CRPIX1"] == header.comments["CRPIX1"]


@pytest.mark.parametrize("inherit", [True, False])
def test_primary_header_is_inherited_where_the_extension_says_so(tmp_path: Path, inherit: bool) -> None:
    primary = fits.PrimaryHDU()
    primary.header.update({"OBJECT": "M 31", "EXPTIME": 30.0, "COMMENT": "not this"})
    chip = fits.ImageHDU(noise(), tan_header(), name="CHIP")
    chip.header.update({"INHERIT": inherit, "EXPTIME": 45.0})
    path = tmp_path / "mosaic.fits"
    fits.HDUList([primary, chip]).writeto(path)
    _, header = read(product(cut_all(path, [request(1, EDGE, (9, 9), tmp_path)])[1]))
    assert header.get("OBJECT") == ("M 31" if inherit else None)
    assert header["EXPTIME"] == 45
    assert header["EXTNAME"] == "CHIP"
    assert "INHERIT" not in header
    assert "COMMENT" not in header


# --- sources ------------------------------------------------------------------------------------------------------


def make_sources(path: Path, names: tuple[str, str] = ("X_PSF", "Y_PSF")) -> Path:
    """A `.cmf`: header-only image, table of sources about the edges of the box 34..54, 24..44 and its margin of 16."""
    x = np.array([10.0, 17.9, 18.0, 34.25, 44, 70.0, 70.1, 44, 44, np.nan], "f4")
    y = np.array([34.0, 34, 34, 24.125, 34, 34, 34, 7.9, 60.1, 34], "f4")
    columns = [
        fits.Column("IPP_IDET", "J", array=np.arange(10)),
        fits.Column(names[0], "E", array=x),
        fits.Column(names[1], "E", array=y),
        fits.Column("PSF_INST_MAG", "E", array=-np.arange(10.0)),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="SkyChip.psf")
    table.header["PHOTCODE"] = "GPC1.r"
    other = fits.BinTableHDU.from_columns([fits.Column("EFF", "E", array=[1.0, 2.0])], name="SkyChip.deteff")
    fits.HDUList([fits.PrimaryHDU(), table, other]).writeto(path, checksum=True)
    return path


@pytest.mark.parametrize("names", [("X_PSF", "Y_PSF"), ("X_IMAGE", "Y_IMAGE"), ("X", "Y")])
def test_sources_in_the_box_and_a_margin_shifted_with_the_pixels(tmp_path: Path, names: tuple[str, str]) -> None:
    image = write(tmp_path / "i.fits", noise(), tan_header())
    sources = make_sources(tmp_path / "cell.cmf", names)
    stamp = cut_all(image, [request(1, (45, 35), (20, 20), tmp_path, 9, header=(("ROWNUM", 3, ""),))], sources=sources)[
        1
    ]
    assert stamp.box[:2] == (34, 24)
    with fits.open(product(stamp, ".cmf")) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SKYCHIP.PSF", "SKYCHIP.DETEFF"]
        rows = hdus[1].data
        assert rows["IPP_IDET"].tolist() == [2, 3, 4, 5]
        assert rows[names[0]].tolist() == [-16, 0.25, 10, 36]
        assert rows[names[1]].tolist() == [10, 0.125, 10, 10]
        assert rows["PSF_INST_MAG"].tolist() == [-2, -3, -4, -5]
        assert hdus[1].header["PHOTCODE"] == "GPC1.r"
        assert "CHECKSUM" not in hdus[1].header
        assert hdus[2].data["EFF"].tolist() == [1, 2]
        assert (hdus[0].header["ROWNUM"], hdus[0].header["PSBOX"]) == (3, "[35:54,25:44]")


def test_sources_of_the_whole_image_are_all(tmp_path: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    sources = make_sources(tmp_path / "cell.cmf")
    requests = [request(1, (45, 35), (4, 4), tmp_path, 9), request(2, (0, 0), (0, 0), tmp_path, 9)]
    stamps = cut_all(image, requests, sources=sources)
    with fits.open(product(stamps[2], ".cmf")) as whole, fits.open(sources) as original:
        assert (whole[1].data == original[1].data)[:-1].all()
        assert len(whole[1].data) == 10


def test_no_source_is_an_empty_table(tmp_path: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    sources = make_sources(tmp_path / "cell.cmf")
    stamp = cut_all(image, [request(1, (89, 2), (3, 3), tmp_path, 9)], sources=sources)[1]
    with fits.open(product(stamp, ".cmf")) as hdus:
        assert len(hdus[1].data) == 0
        assert hdus[1].data.names == ["IPP_IDET", "X_PSF", "Y_PSF", "PSF_INST_MAG"]


# --- pictures -----------------------------------------------------------------------------------------------------


def picture(pixels: np.ndarray, tmp_path: Path, stage: str = "stack") -> np.ndarray:
    image = write(tmp_path / "p.fits", pixels)
    size = pixels.shape[::-1]
    center = ((size[0] + 1) / 2, (size[1] + 1) / 2)
    stamp = cut_all(image, [request(1, center, size, tmp_path, 65, stage=stage)])[1]
    with Picture.open(product(stamp, ".jpg")) as opened:
        assert opened.mode == "L"
        return np.asarray(opened).astype(int)


def test_jpeg_shows_stars_sky_and_holes(tmp_path: Path) -> None:
    y, x = np.mgrid[:80, :100]
    pixels = np.random.default_rng(1).normal(1000, 5, (80, 100)) + 3000 * np.exp(-((x - 20) ** 2 + (y - 10) ** 2) / 8)
    pixels[40:, 60:] = np.nan
    grey = picture(pixels.astype("f4"), tmp_path)
    assert grey.shape == (80, 100)
    assert grey[79 - 10, 20] > 220  # the star, near the bottom
    assert grey[2:38, 62:].max() <= 8  # no data at the top right: black
    sky = grey[20:38, 2:50]
    assert 40 < np.median(sky) < 120
    assert sky.std() > 5  # the noise of an empty sky is seen
    assert sky.min() > 12


def test_jpeg_of_a_difference_has_a_middle_grey_sky(tmp_path: Path) -> None:
    y, x = np.mgrid[:80, :100]
    star = 300 * np.exp(-((y - 40) ** 2) / 8)
    pixels = np.random.default_rng(1).normal(0, 3, (80, 100)) + star * (
        np.exp(-((x - 25) ** 2) / 8) - np.exp(-((x - 75) ** 2) / 8)
    )
    grey = picture(pixels.astype("f4"), tmp_path, stage="diff")
    assert abs(np.median(grey[:20]) - 140) < 8
    assert grey[39, 25] > 230
    assert grey[39, 75] < 50


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 9)), np.full((8, 9), np.inf), np.eye(9) * 1e38, np.full((500, 500), np.nan)]
)
def test_jpeg_of_nearly_nothing(tmp_path: Path, pixels: np.ndarray) -> None:
    pixels = pixels.copy()
    pixels[0, 0] = 1
    assert picture(pixels, tmp_path).shape == pixels.shape


def test_jpeg_of_signalling_nan(tmp_path: Path) -> None:
    """NumPy warns when it converts one."""
    pixels = noise()
    pixels.view("u4")[5, 5] = 0x7FA00001
    path = tmp_path / "p.fits"
    fits.PrimaryHDU(pixels).writeto(path)
    stamp = cut_all(path, [request(1, (6, 6), (9, 9), tmp_path, 65)])[1]
    with Picture.open(product(stamp, ".jpg")) as opened:
        grey = np.asarray(opened)
    assert grey[4, 4] == grey.min()


def test_jpeg_of_few_counts_on_zero(tmp_path: Path) -> None:
    """The quartiles are equal, and yet there is something to see, however faint its unit."""
    pixels = np.zeros((60, 60))
    pixels[20:30, 20:30] = 1e-6
    grey = picture(pixels, tmp_path)
    assert grey[33:37, 23:27].min() > 200
    assert grey[:20].max() < 130


def test_contact_sheet_holds_all(tmp_path: Path) -> None:
    entries = []
    for number, kind in enumerate(STORED):
        pixels, header, how = STORED[kind]
        path = write(tmp_path / f"{number}.fits", pixels, header, **how)
        entries.append((f"{kind}\nsecond line " + "wide " * number, path))
    contact_sheet(entries, tmp_path / "sheet.png")
    with Picture.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        tiles = np.asarray(sheet.convert("L"))
    assert tiles.shape[0] > 3 * 200
    # Each of the 14 tiles, 5 a row, shows noise.
    rows = np.array_split(tiles[12:-12], 3)
    for number in range(14):
        tile = rows[number // 5][60:120, 12 + number % 5 * 192 + 40 : 12 + number % 5 * 192 + 140]
        assert tile.std() > 10, number
    assert not list(tmp_path.glob(".*"))


def test_contact_sheet_of_nothing(tmp_path: Path) -> None:
    contact_sheet([], tmp_path / "sheet.png")
    assert Picture.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())).size[0] > 0
