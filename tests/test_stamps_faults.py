"""Bad input: the right code and sentence on the right request, the others served, no stray file."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from test_stamps_cut import (
    NX,
    NY,
    STORED,
    TOKEN,
    assert_same,
    cut_all,
    expected,
    integers,
    noise,
    product,
    read,
    request,
    run,
    sip_header,
    tan_header,
    write,
)
from test_stamps_products import make_sources, put_cards

from pstamp_core.faults import FinalError, PstampError, RetryableError, UserError
from pstamp_core.stamps import InputFiles, Stamp, StampRequest

MIDDLE = (45, 35)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def fails(files: InputFiles, *requests: StampRequest, max_pixels: int = 10**6) -> PstampError:
    """Cut; the first request must fail and leave nothing, the others must be served. Return the error."""
    results = {r.job_id if isinstance(r, Stamp) else r[0]: r for r in run(files, requests, max_pixels)}
    assert set(results) == {r.job_id for r in requests}
    first, *others = requests
    for other in others:
        assert isinstance(results[other.job_id], Stamp)
    assert not list(first.base.parent.glob(f"*{first.base.name}*"))
    failed = results[first.job_id]
    assert isinstance(failed, tuple)
    return failed[1]


# --- requests that can't be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "fault", "message"),
    [
        ({"size": (0, 5)}, 21, "WIDTH, HEIGHT 0, 5: one is zero; expected none, or both for the whole image"),
        ({"size": (float("nan"), 5)}, 21, "WIDTH, HEIGHT nan, 5: expected finite numbers"),
        ({"size": (5, float("-inf"))}, 21, "WIDTH, HEIGHT 5, -inf: expected finite numbers"),
        ({"size": (0.3, 5)}, 21, "WIDTH, HEIGHT 0.3, 5: less than half a pixel"),
        (
            {"size": (1e300, 1e300)},
            21,
            f"WIDTH, HEIGHT 1e+300, 1e+300: {1e300:.0f} x {1e300:.0f} pixels; this server cuts at most 6000 pixels, "
            "so ask for less of i.fits",
        ),
        (
            {"size": (0, 0)},
            21,
            "WIDTH, HEIGHT 0, 0: 90 x 70 pixels; this server cuts at most 6000 pixels, so ask for less of i.fits",
        ),
        ({"center": (float("inf"), 5)}, 21, "CENTER_X, CENTER_Y inf, 5: expected finite numbers"),
        (
            {"center": (150, -91), "center_in_pixels": False},
            21,
            "CENTER_Y -91: expected a declination from -90 to 90 degrees",
        ),
        ({"options": 4097}, 31, "OPTION_MASK 4097: the background can't be restored here; ask without bit 4096"),
        (
            {"center": (95, 35)},
            28,
            "CENTER_X, CENTER_Y 95, 35: the centre is off i.fits, whose 90 x 70 pixels do not hold x = 95.0, y = 35.0",
        ),
        (
            {"center": (1e300, 35)},
            28,
            f"CENTER_X, CENTER_Y 1e+300, 35: the whole stamp is off i.fits, whose 90 x 70 pixels do not hold "
            f"x = {1e300:.1f}, y = 35.0",
        ),
        (
            {"center": (330, -2.2), "center_in_pixels": False},
            28,
            "CENTER_X, CENTER_Y 330, -2.2: not within the projection of i.fits",
        ),
        ({"center": (22, 11), "size": (2, 1)}, 30, "i.fits: no pixel of [21:22,11:11] holds a number"),
    ],
)
def test_request_that_can_not_be(tmp_path: Path, out: Path, change: dict[str, Any], fault: int, message: str) -> None:
    image = write(tmp_path / "i.fits", noise(), tan_header())
    bad = request(1, **{"center": MIDDLE, "size": (20, 20), "base": out, **change})
    error = fails(InputFiles(image), bad, request(2, MIDDLE, (20, 20), out), max_pixels=6000)
    assert (error.fault, str(error)) == (fault, message)
    assert isinstance(error, UserError)


def test_right_ascension_wraps(tmp_path: Path, out: Path) -> None:
    image = write(tmp_path / "i.fits", noise(), tan_header())
    requests = [request(n, (150 + 360 * n, 2.2), (9, 9), out, center_in_pixels=False) for n in (-1, 0, 1)]
    assert len({stamp.box for stamp in cut_all(image, requests).values()}) == 1


@pytest.mark.parametrize("offset", [(-4, 35), (95, 35), (45, -4), (45, 75), (0.49, 35), (90.51, 35)])
def test_centre_off_the_image_needs_the_option(tmp_path: Path, out: Path, offset: tuple[float, float]) -> None:
    """Pixel centres are tested as sky centres are; with bit 8192 the overlap is delivered."""
    image = write(tmp_path / "i.fits", noise())
    assert fails(InputFiles(image), request(1, offset, (20, 20), out)).fault == 28
    stamp = cut_all(image, [request(1, offset, (20, 20), out, 8193)])[1]
    want = expected(image, (offset[0] - 1, offset[1] - 1), (20, 20))
    assert_same(read(product(stamp))[0], want)
    far = (offset[0] * 9 - 300, offset[1] * 9 - 300)
    assert fails(InputFiles(image), request(3, far, (20, 20), out, 8193)).fault == 28


def test_integers_without_a_number(tmp_path: Path, out: Path) -> None:
    pixels, header, how = STORED["scaled blank rice"]
    image = write(tmp_path / "i.fits", pixels, header, **how)
    assert fails(InputFiles(image), request(1, (22, 11), (2, 1), out)).fault == 30


def test_where_a_distortion_has_no_inverse(tmp_path: Path, out: Path) -> None:
    header = sip_header()
    header["A_2_0"] = 0.02
    image = write(tmp_path / "i.fits", noise(), header)
    near = request(2, (150, 2.2), (9, 9), out, center_in_pixels=False)
    error = fails(InputFiles(image), request(1, (150.3, 2.2), (9, 9), out, center_in_pixels=False), near)
    assert (error.fault, str(error)) == (28, "CENTER_X, CENTER_Y 150.3, 2.2: not within the projection of i.fits")


# --- images that can't be read ------------------------------------------------------------------------------------


def test_missing_image(tmp_path: Path, out: Path) -> None:
    error = fails(InputFiles(tmp_path / "no.fits"), request(1, MIDDLE, (9, 9), out))
    assert (type(error), error.fault, str(error)) == (FinalError, 25, f"{tmp_path / 'no.fits'}: no such file")


@pytest.mark.parametrize("content", [b"", b"hello", b"BZh9" + bytes(100), b"<html>" * 1000])
def test_not_fits(tmp_path: Path, out: Path, content: bytes) -> None:
    path = tmp_path / "i.fits"
    path.write_bytes(content)
    error = fails(InputFiles(path), request(1, MIDDLE, (9, 9), out))
    assert (error.fault, str(error)) == (25, f"{path}: not a FITS file (it does not begin with SIMPLE)")


@pytest.mark.parametrize("kind", ["float", "scaled blank rice"])
def test_truncated_image(tmp_path: Path, out: Path, kind: str) -> None:
    pixels, header, how = STORED[kind]
    image = write(tmp_path / "i.fits", pixels, header, **how)
    size = image.stat().st_size
    os.truncate(image, size - 2880)
    error = fails(InputFiles(image), request(1, MIDDLE, (9, 9), out))
    hdu = 1 if how else 0
    assert (error.fault, str(error)) == (25, f"{image}: truncated: {size - 2880} bytes, but HDU {hdu} ends at {size}")


@pytest.mark.parametrize("length", [7, 100, 2000, 2880, 3500, 5000])
def test_truncated_header(tmp_path: Path, out: Path, length: int) -> None:
    image = write(tmp_path / "i.fits", noise(), tan_header(), compress="RICE", qlevel=4)
    os.truncate(image, length)
    error = fails(InputFiles(image), request(1, MIDDLE, (9, 9), out))
    assert error.fault == 25
    assert str(error).startswith(f"{image}: ")
    assert len(str(error).splitlines()) == 1


def test_no_image_in_the_file(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "i.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 3, 4)))]).writeto(path)
    for hdu, message in ((-1, "no readable 2-d image in it"), (1, "HDU 1 is not a 2-d image"), (5, "no HDU 5")):
        error = fails(InputFiles(path, hdu), request(1, MIDDLE, (9, 9), out))
        assert (error.fault, str(error)) == (25, f"{path}: {message}")


def test_no_wcs(tmp_path: Path, out: Path) -> None:
    """Needed for a sky centre and for seconds of arc, and for nothing else."""
    image = write(tmp_path / "i.fits", noise())
    good = [request(8, MIDDLE, (9, 9), out), request(9, (0, 0), (0, 0), out, size_in_pixels=False)]
    for change in ({"center_in_pixels": False}, {"size_in_pixels": False}):
        error = fails(InputFiles(image), request(1, MIDDLE, (9, 9), out, **change), *good)
        message = f"{image}: HDU 0: no celestial WCS; a centre and size in pixels do without"
        assert (error.fault, str(error)) == (25, message)


def test_singular_wcs(tmp_path: Path, out: Path) -> None:
    header = tan_header()
    header["CD1_1"] = header["CD1_2"] = header["CD2_1"] = header["CD2_2"]
    image = write(tmp_path / "i.fits", noise(), header)
    good = request(8, MIDDLE, (9, 9), out)
    error = fails(InputFiles(image), request(1, (150, 2.2), (9, 9), out, center_in_pixels=False), good)
    message = f"{image}: HDU 0: its WCS can't be used (its matrix is singular); a centre and size in pixels do without"
    assert (error.fault, str(error)) == (25, message)


def test_wcs_of_an_unknown_frame(tmp_path: Path, out: Path) -> None:
    header = tan_header()
    header["RADESYS"] = "MARS"
    image = write(tmp_path / "i.fits", noise(), header)
    good = request(8, MIDDLE, (9, 9), out)
    error = fails(InputFiles(image), request(1, (150, 2.2), (9, 9), out, center_in_pixels=False), good)
    assert error.fault == 25
    assert str(error).startswith(f"{image}: HDU 0: its WCS can't be used (Could not determine celestial frame")


def test_odd_headers_are_used_without_a_word(tmp_path: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Distortion without -SIP, an old date, a unit in capitals: astropy warns and logs, warnings being errors here."""
    header = sip_header()
    header.update(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "DATE-OBS": "31/12/98", "CUNIT1": "DEG", "CUNIT2": "DEG"}
    )
    image = write(tmp_path / "i.fits", noise(), header)
    stamp = cut_all(image, [request(1, (150, 2.2), (9, 9), out, center_in_pixels=False)])[1]
    assert stamp.on_image == stamp.box
    assert capfd.readouterr() == ("", "")


def claim(path: Path, hdu: int, **cards: Any) -> None:
    """Change numbers in a header without a look at the data."""
    with fits.open(path, disable_image_compression=True) as hdus:
        start = hdus[hdu]._header_offset
    content = bytearray(path.read_bytes())
    for name, value in cards.items():
        at = content.index(name.ljust(8).encode() + b"=", start)
        content[at : at + 80] = f"{name:8}= {value:>20}".ljust(80).encode()
    path.write_bytes(content)


def test_header_that_claims_an_enormous_plain_image(tmp_path: Path, out: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    claim(image, 0, NAXIS1=10**9, NAXIS2=10**9)
    error = fails(InputFiles(image), request(1, MIDDLE, (9, 9), out))
    assert error.fault == 25
    assert str(error).startswith(f"{image}: truncated: {image.stat().st_size} bytes, but HDU 0 ends at 4000000000")


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"ZNAXIS1": 10**9, "ZNAXIS2": 10**9}, "no readable 2-d image in it"),
        ({"NAXIS2": 10**9, "ZNAXIS1": 10**9, "ZNAXIS2": 10**9}, "no readable 2-d image in it"),
        ({"ZNAXIS2": 10**9}, "no readable 2-d image in it"),
        ({"ZTILE1": 0}, "no readable 2-d image in it"),
        ({"ZTILE2": -5}, "no readable 2-d image in it"),
        (
            {"ZNAXIS1": 10**9, "ZTILE1": 10**9},
            "HDU 1 is packed in tiles of 1000000000 x 1; expected at most 134217728 pixels in one",
        ),
    ],
)
def test_header_that_claims_an_enormous_packed_image(
    tmp_path: Path, out: Path, claims: dict[str, int], message: str
) -> None:
    image = write(tmp_path / "i.fits", integers(), compress="RICE")
    claim(image, 1, **claims)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size in ((9, 9), (0, 0)):
        error = fails(InputFiles(image), request(1, MIDDLE, size, out))
        assert (error.fault, str(error)) == (25, f"{image}: {message}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_sparse_image_of_a_terabyte(tmp_path: Path, out: Path) -> None:
    """As large as it claims to be, and mostly a hole: two stamps far apart are read, nothing between."""
    image = write(tmp_path / "i.fits", np.zeros((2, 2), "u1"))
    claim(image, 0, NAXIS1=10**6, NAXIS2=10**6)
    os.truncate(image, 2880 * 2 + 10**12 // 2880 * 2880)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stamps = cut_all(image, [request(1, (9, 500_000), (9, 9), out), request(2, (999_000, 500_003), (9, 9), out)])
    assert (read(product(stamps[2]))[0] == 0).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_damaged_tile_hurts_only_the_stamps_on_it(tmp_path: Path, out: Path) -> None:
    image = write(tmp_path / "i.fits", integers(), fits.Header({"BLANK": -32768}), compress="GZIP")
    with fits.open(image, disable_image_compression=True) as hdus:
        table = hdus[1]
        heap = table._data_offset + table.header["NAXIS1"] * table.header["NAXIS2"]
        length, offset = np.frombuffer(image.read_bytes()[table._data_offset + 40 * 8 :][:8], ">i4")
    content = bytearray(image.read_bytes())
    content[heap + offset : heap + offset + length] = b"\xff" * length
    image.write_bytes(content)
    # All three share rows and are one band.
    good = [request(2, (20, 30), (21, 20), out), request(3, (60, 53), (21, 20), out)]
    error = fails(InputFiles(image), request(1, (45, 40), (20, 20), out), *good)
    assert error.fault == 25
    assert str(error).startswith(f"{image}: damaged: FITSIO status = ")


def test_what_a_damaged_file_leaves_in_cfitsio_does_not_hurt_the_next(tmp_path: Path, out: Path) -> None:
    """The messages of cfitsio are one stack for all files; bytes in it that are no text broke fitsio's next write."""
    good = write(tmp_path / "good.fits", integers(), fits.Header({"BLANK": -32768}), compress="RICE")
    bad = write(tmp_path / "bad.fits", integers(), compress="RICE")
    content = bad.read_bytes()
    end = content.index(b"END".ljust(80), 2880)
    # Two bytes too many in a card: what follows is out of step, and pixels are taken for the next header.
    bad.write_bytes(content[:end] + b"SPOILT  = 1".ljust(82) + content[end:])
    for number in range(30):
        assert fails(InputFiles(bad), request(1, MIDDLE, (9, 9), out)).fault == 25
        assert len(cut_all(good, [request(2, MIDDLE, (9 + number, 9), out)])) == 1


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_never_a_traceback(tmp_path: Path, out: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = sorted(STORED)[seed % len(STORED)]
    pixels, header, how = STORED[kind]
    wcs = sip_header()
    wcs.update(header)
    image = write(tmp_path / "i.fits", pixels, wcs, **how)
    content = np.frombuffer(image.read_bytes(), "u1").copy()
    where = rng.integers(0, len(content) if seed % 2 else 5760, rng.integers(1, 60))
    content[where] = rng.integers(0, 256, len(where))
    content[:6] = list(b"SIMPLE")
    image.write_bytes(content.tobytes())
    for center_in_pixels, center in ((True, MIDDLE), (False, (150, 2.2))):
        bad = request(1, center, (30, 30), out, 65, center_in_pixels=center_in_pixels)
        [result] = run(InputFiles(image), [bad])
        if isinstance(result, tuple):
            assert result[1].fault in (25, 28, 30, 21)
            assert not list(out.iterdir())
        else:
            for file in result.products:
                file.path.unlink()


# --- other files of an image --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mask", "variance", "exposure", "number", "sources", "psf", "backmdl"])
def test_file_that_is_named_but_not_there(tmp_path: Path, out: Path, name: str) -> None:
    """25 for those who asked for it, and for no others."""
    image = write(tmp_path / "i.fits", noise())
    path = tmp_path / "gone.fits"
    files = InputFiles(image, **{name: path})
    bit = {"mask": 2, "variance": 4, "sources": 8, "psf": 16, "backmdl": 32, "exposure": 128, "number": 256}[name]
    error = fails(files, request(1, MIDDLE, (9, 9), out, 65 | bit), request(2, MIDDLE, (9, 9), out, 65))
    assert (error.fault, str(error)) == (25, f"{path}: no such file")


def test_plane_of_another_size(tmp_path: Path, out: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    mask = write(tmp_path / "m.fits", np.zeros((NY, NX + 1), "i2"))
    error = fails(InputFiles(image, mask=mask), request(1, MIDDLE, (9, 9), out, 3), request(2, MIDDLE, (9, 9), out))
    assert (error.fault, str(error)) == (25, f"{mask}: 91 x 70 pixels, but i.fits has 90 x 70")


def test_mask_of_floats(tmp_path: Path, out: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    error = fails(InputFiles(image, mask=image), request(1, MIDDLE, (9, 9), out, 3))
    assert (error.fault, str(error)) == (25, f"{image}: BITPIX -32; expected integers, because it is a mask")


def test_source_table_that_is_none(tmp_path: Path, out: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    table = make_sources(tmp_path / "cell.cmf", ("RA", "DEC"))
    good = request(2, MIDDLE, (9, 9), out)
    error = fails(InputFiles(image, sources=table), request(1, MIDDLE, (9, 9), out, 9), good)
    alternatives = "X_PSF, Y_PSF or X_EXT, Y_EXT or X_IMAGE, Y_IMAGE or X, Y"
    assert (error.fault, str(error)) == (25, f"{table}: no table with pixel positions, columns {alternatives}")
    table.write_text("hello")
    error = fails(InputFiles(image, sources=table), request(1, MIDDLE, (9, 9), out, 9), good)
    assert error.fault == 25
    assert str(error).startswith(f"{table}: damaged: ")


def test_truncated_source_table(tmp_path: Path, out: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    table = make_sources(tmp_path / "cell.cmf")
    claim(table, 1, NAXIS2=10**9)
    error = fails(InputFiles(image, sources=table), request(1, MIDDLE, (9, 9), out, 9))
    assert error.fault == 25
    assert str(error) == f"{table}: truncated: {table.stat().st_size} bytes, but its HDUs claim more"


# --- disks --------------------------------------------------------------------------------------------------------


def test_permission_is_ours(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write(tmp_path / "i.fits", noise())

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    [result] = run(InputFiles(image), [request(1, MIDDLE, (9, 9), out)])
    assert isinstance(result, tuple)
    assert (type(result[1]), result[1].fault, str(result[1])) == (RetryableError, 2, f"{image}: Permission denied")


def test_failing_disk_is_told_from_a_damaged_file(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cfitsio has one error for both; reading the file once more without it shows which."""
    from pstamp_core.stamps import image as module

    path = write(tmp_path / "i.fits", noise())
    plain = Path.open

    class Failing:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def read(self, size: int) -> bytes:
            if size == 2**20:
                raise OSError(errno.EIO, "Input/output error")
            return self.stream.read(size)

    def fail(self: Any, box: Any) -> Any:
        with module.reading(self.path):
            raise OSError("FITSIO status = 108: error reading from FITS file")

    monkeypatch.setattr(module.Image, "read", fail)
    [result] = run(InputFiles(path), [request(1, MIDDLE, (9, 9), out)])
    assert isinstance(result, tuple)
    assert (result[1].fault, str(result[1])) == (
        25,
        f"{path}: damaged: FITSIO status = 108: error reading from FITS file",
    )
    monkeypatch.setattr(Path, "open", lambda self, *a: Failing(plain(self, *a)))
    [result] = run(InputFiles(path), [request(1, MIDDLE, (9, 9), out)])
    assert isinstance(result, tuple)
    assert (result[1].fault, str(result[1])) == (2, f"{path}: Input/output error")


def test_no_folder_to_write_to(tmp_path: Path) -> None:
    image = write(tmp_path / "i.fits", noise())
    error = fails(InputFiles(image), request(1, MIDDLE, (9, 9), tmp_path / "none"))
    path = tmp_path / "none" / "1_7_r_cell.000.001.fits"
    assert (type(error), error.fault) == (RetryableError, 2)
    assert str(error) == f"{path}: can't be written: No such file or directory"


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_stamps_cut import TOKEN, request, run
from pstamp_core.stamps import InputFiles, Stamp
folder = Path(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), -1))
files = InputFiles(folder / "i.fits", mask=folder / "i.fits", psf=folder / "psf.fits", sources=folder / "s.cmf")
requests = [request(n, (45, 35), (60, 60), folder / "out", 1 | bits) for n, bits in enumerate((2, 64, 16, 8))]
for r in run(files, requests):
    print(r[1].fault if isinstance(r, tuple) else [p.bytes for p in r.products])
    print(sorted(p.name for p in (folder / "out").iterdir() if f".{r[0]}_" in p.name) if isinstance(r, tuple) else "-")
    print(r[1] if isinstance(r, tuple) else "-")
"""


@pytest.mark.parametrize("limit", [0, 4000, 9000])
def test_full_disk_leaves_no_stray_file(tmp_path: Path, out: Path, limit: int) -> None:
    """A file that can't grow, in a process of its own: images of 11,520 bytes fit nowhere."""
    write(tmp_path / "i.fits", integers(), fits.Header({"BLANK": -32768}))
    (tmp_path / "psf.fits").write_bytes(bytes(20_000))
    make_sources(tmp_path / "s.cmf")
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FULL_DISK, here, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0::3] == ["2"] * 4
    assert lines[1::3] == ["[]"] * 4
    assert all(line.endswith("File too large") for line in lines[2::3])
    assert not list(out.iterdir())


def test_full_disk_at_any_write_leaves_no_stray_file(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC at the first, second, ... file of a request with all products: nothing of it stays, and the next works."""
    image = write(tmp_path / "i.fits", noise())
    plane = write(tmp_path / "m.fits", np.ones((NY, NX), "i2"))
    files = InputFiles(image, -1, plane, image, make_sources(tmp_path / "s.cmf"), image, plane, image, plane)
    plain = Path.open
    for number in range(9):
        opened = []

        def full(self: Path, mode: str = "r", *rest: Any, number: int = number, opened: list[Path] = opened) -> Any:
            stream = plain(self, mode, *rest)
            if "w" in mode:
                opened.append(self)
                if len(opened) == number + 1:
                    stream.close()
                    return plain(Path("/dev/full"), "wb", buffering=0)
            return stream

        monkeypatch.setattr(Path, "open", full)
        results = list(run(files, [request(n, MIDDLE, (9, 9), out, 511) for n in (1, 2)]))
        monkeypatch.setattr(Path, "open", plain)
        assert isinstance(results[0], tuple)
        assert (results[0][1].fault, str(results[0][1])[-24:]) == (2, ": No space left on device"[-24:])
        assert isinstance(results[1], Stamp)
        assert sorted(out.iterdir()) == sorted(p.path for p in results[1].products)
        assert len(results[1].products) == 9
        for file in results[1].products:
            file.path.unlink()
    assert TOKEN in str(results[1].products[0].path)


def test_header_of_megabytes(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pstamp_core.stamps import image as module

    image = write(tmp_path / "i.fits", noise())
    put_cards(image, [f"KEY{n:05} = {n}" for n in range(2000)])
    assert len(cut_all(image, [request(1, MIDDLE, (9, 9), tmp_path)])) == 1
    monkeypatch.setattr(module, "MAX_HEADER", 2880)
    error = fails(InputFiles(image), request(1, MIDDLE, (9, 9), out))
    assert str(error) == f"{image}: the header of HDU 0 has 161280 bytes; expected at most 2880"


def test_no_memory_is_ours_and_hurts_no_other(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pstamp_core.stamps import cutting

    def hungry(*_: Any, **__: Any) -> bytes:
        raise MemoryError

    monkeypatch.setattr(cutting, "jpeg", hungry)
    image = write(tmp_path / "i.fits", noise())
    error = fails(InputFiles(image), request(1, MIDDLE, (9, 9), out, 65), request(2, MIDDLE, (9, 9), out))
    message = f"{image}: not enough memory for a stamp of 9 x 9 pixels"
    assert (type(error), error.fault, str(error)) == (RetryableError, 2, message)
