"""Pictures of stamps for a browser: what they show, and what they refuse to be made of."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image as Picture

from pstamp_core.faults import FinalError, RetryableError, UserError
from pstamp_core.stamps import STRETCHES
from pstamp_core.stamps import picture as draw

SKY = np.random.default_rng(7).normal(100, 5, (60, 80)).astype("f4")


def write(path: Path, pixels: NDArray[Any], **cards: Any) -> Path:
    fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(path, overwrite=True)
    return path


def grey(path: Path, stretch: str = "asinh") -> NDArray[np.uint8]:
    """The picture as FITS has it: the first row at the bottom."""
    picture = Picture.open(io.BytesIO(draw(path, stretch)))
    assert (picture.format, picture.mode) == ("PNG", "L")
    return np.asarray(picture)[::-1]


@pytest.mark.parametrize("stretch", STRETCHES)
def test_brighter_is_brighter_and_no_data_is_black(tmp_path: Path, stretch: str) -> None:
    pixels = SKY.copy()
    pixels[10, 20:40] = np.linspace(100, 400, 20)
    pixels[:5] = np.nan
    pixels[5, 5] = np.inf
    shown = grey(write(tmp_path / "a.fits", pixels), stretch)
    assert shown.shape == (60, 80)
    black = ~np.isfinite(pixels)
    assert (shown[black] == 0).all()
    assert shown[~black].min() >= 24
    assert (np.diff(shown[10, 20:40].astype(int)) >= 0).all()
    assert (shown[10, 39], shown[~black].min()) == (255, 24)


def test_stretches_differ(tmp_path: Path) -> None:
    pixels = SKY.copy()
    pixels[30:33, 30:33] = 5000
    path = write(tmp_path / "a.fits", pixels)
    assert len({draw(path, stretch) for stretch in STRETCHES}) == len(STRETCHES)
    faint, linear = (float(np.median(grey(path, stretch))) for stretch in ("log", "minmax"))
    assert faint > linear + 20  # log shows the sky, which is next to nothing on a linear scale up to the star


def test_a_large_image_is_averaged_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1030 x 700 in blocks of 3, the last ones smaller; whatever number of rows is read at once."""
    import importlib

    module = importlib.import_module("pstamp_core.stamps.picture")
    pixels = np.random.default_rng(3).normal(0, 1, (700, 1030))
    pixels[0:3, 0:3] = np.nan
    pixels[3, 3] = np.nan
    path = write(tmp_path / "a.fits", pixels)
    expected = np.array([
        [np.nanmean(pixels[y : y + 3, x : x + 3]) if x + y else np.nan for x in range(0, 1030, 3)]
        for y in range(0, 700, 3)
    ])  # fmt: skip
    seen = []
    for band in (1, 1030 * 7, 10**9):
        monkeypatch.setattr(module, "BAND", band)
        np.testing.assert_allclose(module._reduced(path), expected, rtol=1e-12, atol=1e-15)
        seen.append(draw(path))
    assert len(set(seen)) == 1
    assert grey(path).shape == (234, 344)


@pytest.mark.parametrize(
    ("pixels", "cards"),
    [
        (np.full((3, 4), np.nan, "f4"), {}),
        (np.full((3, 4), 7, "i2"), {}),
        (np.array([[5.0]]), {}),
        (np.array([[-1e308, 1e308]] * 600), {}),
        (np.full((2, 600), 1.7e308), {}),
        (np.array([[1, 2], [3, -32768]], "i2"), {"BLANK": -32768, "BSCALE": 0.5, "BZERO": 100.0}),
        (np.arange(12, dtype="u1").reshape(3, 4), {}),
    ],
    ids=str,
)
def test_odd_pixels_give_a_picture_all_the_same(tmp_path: Path, pixels: NDArray[Any], cards: dict[str, Any]) -> None:
    path = write(tmp_path / "a.fits", pixels, **cards)
    for stretch in STRETCHES:
        assert grey(path, stretch).size > 0


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_any_floats_give_a_picture(tmp_path_factory: pytest.TempPathFactory, pixels: NDArray[np.float32]) -> None:
    path = write(tmp_path_factory.mktemp("any") / "a.fits", pixels)
    for stretch in STRETCHES:
        assert ((grey(path, stretch) == 0) == ~np.isfinite(pixels)).all()


def test_a_packed_image(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.fits", (SKY * 10).astype("i4"))
    fits.CompImageHDU((SKY * 10).astype("i4")).writeto(tmp_path / "b.fits")
    assert draw(tmp_path / "b.fits") == draw(plain)


def test_no_such_stretch(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        draw(write(tmp_path / "a.fits", SKY), "<b>" * 99)
    assert str(refused.value) == (
        f"stretch {('<b>' * 99)[:64]!r}: expected one of asinh, linear, sqrt, log, zscale, minmax"
    )


def claim(path: Path, **cards: Any) -> Path:
    """Have a header claim what is not so."""
    text = path.read_bytes()
    for name, value in cards.items():
        start = text.index(f"{name:<8}=".encode())
        text = text[:start] + f"{name:<8}= {value:>20}".ljust(80).encode() + text[start + 80 :]
    path.write_bytes(text)
    return path


@pytest.mark.parametrize(
    ("cards", "why"),
    [
        ({"NAXIS1": 8000, "NAXIS2": 6000}, r"truncated: \d+ bytes, but HDU 0 ends at \d+"),
        ({"NAXIS1": 2**40, "NAXIS2": 2**40}, "damaged|truncated"),
        ({"NAXIS1": -5}, "damaged|no readable"),
        ({"NAXIS": 0}, "damaged"),
        ({"BITPIX": 7}, "damaged"),
    ],
)
def test_a_header_that_lies(tmp_path: Path, cards: dict[str, Any], why: str) -> None:
    path = claim(write(tmp_path / "a.fits", SKY), **cards)
    with pytest.raises(FinalError, match=why):
        draw(path)


@pytest.mark.parametrize(
    ("shape", "tile"), [((16_500, 16_500), (1000, 16_500)), ((2, 300_000), (1, 300_000)), ((6000, 6000), (6000, 6000))]
)
def test_a_small_file_of_many_pixels(tmp_path: Path, shape: tuple[int, int], tile: tuple[int, int]) -> None:
    """Packed to next to nothing; none of its pixels is looked at."""
    path = tmp_path / "a.fits"
    fits.CompImageHDU(np.zeros((-(-shape[0] // tile[0]), 3), "u1"), tile_shape=(1, 3)).writeto(path)
    claim(path, ZNAXIS1=shape[1], ZNAXIS2=shape[0], ZTILE1=tile[1], ZTILE2=tile[0])
    with pytest.raises(FinalError, match=rf"a.fits: {shape[1]} x {shape[0]} pixels are too many for a picture"):
        draw(path)


def test_what_is_gzipped_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "a.fits"
    packed.write_bytes(gzip.compress(write(tmp_path / "b.fits", SKY).read_bytes()))
    monkeypatch.setattr("pstamp_core.stamps.image.open_unpacked", None)
    with pytest.raises(FinalError) as refused:
        draw(packed)
    assert str(refused.value) == "a.fits: no picture is made of what does not begin as FITS"


def test_what_is_not_there_or_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(FinalError, match="no such file"):
        draw(tmp_path / "a.fits")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RetryableError, match="loop"):
        draw(tmp_path / "loop")
