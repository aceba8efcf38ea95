"""Whole requests: 10,000 rows parsed, and 2,000 stamps over 20 images from `submit` to the published fileset.

The peers: `astropy.table.Table.read` of the same request file, and a loop that only reads each box and writes it with
fitsio (one process, no header, no WCS, no md5, no table, no database).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import fitsio
import numpy as np
from astropy.table import Table

from benchmarks import table
from pstamp_core.formats import RequestRow, RequestTable, check_request, check_rows, read_request, write_request
from pstamp_core.tasks import report
from pstamp_core.tasks.images import add_images
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server, make_server
from pstamp_core.tasks.submit import submit

IMAGES, STAMPS, ROWS = 20, 2000, 10_000
NX, SIDE, SCALE = 3000, 100, 0.25 / 3600


def make_images(folder: Path) -> list[Path]:
    """Write images of 3000 x 3000 pixels side by side along the equator, RICE in row tiles."""
    pixels = np.random.default_rng(1).normal(100, 10, (NX, NX)).astype("f4")
    paths = []
    for number in range(IMAGES):
        cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0 + number, "CRVAL2": 0.0}
        cards |= {"CRPIX1": NX / 2, "CRPIX2": NX / 2, "CDELT1": -SCALE, "CDELT2": SCALE, "FILTER": "r"}
        path = folder / f"image{number:02d}.fits"
        with fitsio.FITS(str(path), "rw") as file:
            file.write(None)
            file.write(pixels, compress="RICE", tile_dims=(1, NX), qlevel=4, header=cards)
        paths.append(path)
    return paths


def request(name: str, count: int) -> RequestTable:
    """Make `count` rows by position, spread over the images."""
    generator = np.random.default_rng(2)
    offsets = (generator.random((count, 2)) - 0.5) * (NX - SIDE) * SCALE
    rows = tuple(
        RequestRow(
            rownum=n + 1, center_x=10.0 + n % IMAGES + dx, center_y=dy, width=SIDE, height=SIDE, coord_mask=2,
            job_type="stamp", option_mask=1, project="local", req_type="bycoord", img_type="stack", reqfilt="r",
        )
        for n, (dx, dy) in enumerate(offsets.tolist())
    )  # fmt: skip
    return RequestTable(name, 2, "PROCESS", "ana@obs.example.edu", rows)


def timed(task: object, *args: object) -> float:
    """Return the seconds that a call takes."""
    assert callable(task)
    start = time.perf_counter()
    task(*args)
    return time.perf_counter() - start


def bare_stamps(server: Server, out: Path) -> None:
    """Read and write the boxes of all stamps, image by image."""
    out.mkdir()
    for line in report.results(server, 1):
        path, _, hdu = line["INPUT_IMAGE"].partition("[")
        x0, y0, nx, ny = (line[f"BOX_{name}"] for name in ("X0", "Y0", "NX", "NY"))
        with fitsio.FITS(str(server.settings.home.parent / path)) as file:
            pixels = file[int(hdu.rstrip("]"))][y0 : y0 + ny, x0 : x0 + nx]
        fitsio.write(str(out / f"{line['ROWNUM']}.fits"), pixels)


def read_and_check(path: Path) -> None:
    """Read a request and run all checks that need no database."""
    rows = read_request(path)
    assert check_request(rows, serve_v1=False, path=path) is None
    assert not any(check_rows(rows, project_fault=lambda _: None, path=path))


def main() -> None:
    """Measure, and print the ratios."""
    with tempfile.TemporaryDirectory(prefix="pstamp-bench-") as name:
        folder = Path(name)
        server = make_server(folder / "home")
        add_images(server, "local", make_images(folder))
        many, stamps = folder / "many.fits", folder / "stamps.fits"
        write_request(many, request("many", ROWS))
        write_request(stamps, request("stamps", STAMPS))
        submit(server, stamps)
        whole = timed(lambda: run(server, workers=2))
        lines = report.results(server, 1)
        assert len(lines) == STAMPS, len(lines)
        assert {line["ERROR_CODE"] for line in lines} == {0}
        bare = timed(bare_stamps, server, folder / "bare")
        Table.read(many, hdu=1)  # imports
        peer = timed(lambda: Table.read(many, hdu=1))
        checked = timed(read_and_check, many)
        submit(server, many)
        parsed = timed(parse_requests, server, 1)
    table(
        "Whole requests",
        ("what", "seconds", "each", "ratio", "to"),
        [
            (f"read + check {ROWS:,} rows", f"{checked:.2f}", f"{checked / ROWS * 1e3:.3f} ms", f"{checked / peer:.1f}",
             "astropy Table.read"),
            (f"parse {ROWS:,} rows into jobs", f"{parsed:.2f}", f"{parsed / ROWS * 1e3:.2f} ms",
             f"{parsed / peer:.1f}", "astropy Table.read"),
            (f"{STAMPS:,} stamps of {IMAGES} images, two cores", f"{whole:.2f}", f"{whole / STAMPS * 1e3:.2f} ms",
             f"{whole / bare:.2f}", "bare fitsio, one core"),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
