"""How long a search by position takes among many footprints, against the fastest thing that the database can do.

Every image has a footprint of its own on a random place of the sky (skycells of 6000 x 6000 pixels of 0.25 arcsec,
five filters), which is the worst case: warps and stacks of one skycell share theirs.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io.fits import Header

from pstamp_core.database import connect
from pstamp_core.faults import Fault, FinalError
from pstamp_core.imagedb import ImageDB, Selection
from pstamp_core.imagedb.footprints import MAX_ORDER, cell_of, footprint, unit_vector, wcs_cards

ROWS = 1_000_000
LOOKUPS = 400
SIDE = 6000
PIXEL = 0.25 / 3600
FILTERS = ("g.00000", "r.00000", "i.00000", "z.00000", "y.00000")


def main(rows: int = ROWS) -> None:
    """Build an image database with `rows` footprints and print what a look-up costs."""
    with tempfile.TemporaryDirectory(prefix="pstamp-bench-") as folder:
        path = Path(folder) / "sky.db"
        started = time.perf_counter()
        db = build(path, rows)
        size = path.stat().st_size / 2**20
        print(f"{rows:,} footprints ({size:,.0f} MB), built in {time.perf_counter() - started:.0f} s, SQLite")
        generator = np.random.default_rng(2)
        places = positions(generator, LOOKUPS)
        numbers = generator.integers(1, rows + 1, LOOKUPS).tolist()
        bare = connect(str(path))
        bare.connect()
        with db.session():
            found: list[int] = []
            hits = measure(lambda place: found.append(look_up(db, place)), places)
            point = measure(lambda number: select_one(bare, number), numbers)
            again = measure(lambda place: look_up(db, place), places)
        bare.close()
    print(f"{statistics.mean(found):.2f} images of all filters at a random position, {max(found)} at most")
    unit = statistics.median(point)
    print(f"{'':44}{'median':>10}{'95 %':>10}{'ratio':>8}")
    for name, times in (
        ("one row by its key, bare SQL", point),
        ("bycoord, position never seen before", hits),
        ("bycoord, same positions again (WCS cached)", again),
    ):
        median, high = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        print(f"{name:44}{median * 1e3:7.3f} ms{high * 1e3:7.3f} ms{median / unit:8.1f}")


def positions(generator: np.random.Generator, number: int) -> list[tuple[float, float]]:
    """Return random positions on the sky, in degrees."""
    ra, dec = generator.uniform(0, 360, number), np.degrees(np.arcsin(generator.uniform(-1, 1, number)))
    return list(zip(ra.tolist(), dec.tolist(), strict=True))


def measure(call: Callable[[Any], Any], arguments: Iterable[Any]) -> list[float]:
    """Return the seconds that each call takes, after one that does not count."""
    times = []
    for argument in arguments:
        started = time.perf_counter()
        call(argument)
        times.append(time.perf_counter() - started)
    return times[1:]


def look_up(db: ImageDB, place: tuple[float, float]) -> int:
    """Return how many images a bycoord row finds."""
    try:
        return len(db.select(Selection(req_type="bycoord", img_type="stack", position=place)))
    except FinalError as error:
        if error.fault != Fault.PSTAMP_NO_IMAGE_MATCH:
            raise
        return 0


def select_one(db: Any, number: int) -> None:
    """Read one footprint by its key."""
    row = db.execute_sql("SELECT wcs FROM pstampFootprint WHERE footprint_id = ?", (number,)).fetchone()
    assert row


def build(path: Path, rows: int) -> ImageDB:
    """Make an image database of `rows` stacks, each with its own footprint."""
    db = ImageDB(str(path))
    db.create()
    generator = np.random.default_rng(1)
    first = footprint(header(150.0, 2.0), SIDE, SIDE)
    radius = 2 * np.arcsin(first["chord"] / 2)
    db.db.connect()
    try:
        for start in range(0, rows, 50_000):
            number = min(50_000, rows - start)
            sky = positions(generator, number)
            ra, dec = np.array(sky).T
            cells = cell_of(ra, dec, np.full(number, radius)).tolist()
            vectors = np.stack(unit_vector(ra, dec), axis=-1).tolist()
            cards = wcs_cards(header(0.5, 0.5)).split("\n")
            footprints = []
            for index, (place, cell, vector) in enumerate(zip(sky, cells, vectors, strict=True), start + 1):
                wcs = "\n".join([*cards[:2], *map(card, ("CRVAL1", "CRVAL2"), place), *cards[4:]])
                digest = hashlib.blake2b(f"{SIDE} {SIDE}\n{wcs}".encode(), digest_size=16).hexdigest()
                footprints.append((index, digest, cell, *vector, first["chord"], SIDE, SIDE, "[]", wcs))
            check(footprints[0], sky[0])
            insert(db, start, footprints)
    finally:
        db.db.close()
    return db


def header(ra: float, dec: float) -> Header:
    """Return the header of a skycell."""
    return Header({
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec, "CRPIX1": (SIDE + 1) / 2,
        "CRPIX2": (SIDE + 1) / 2, "CDELT1": -PIXEL, "CDELT2": PIXEL,
    })  # fmt: skip


def card(keyword: str, value: float) -> str:
    """Return a header card as astropy writes it."""
    return f"{keyword:8}= {value!r:>20}"


def check(row: tuple[Any, ...], place: tuple[float, float]) -> None:
    """Make sure that the rows built here in bulk are those that the library makes one by one."""
    made = footprint(header(*place), SIDE, SIDE)
    assert row[2] == made["cell"] != 4 << 2 * MAX_ORDER
    assert np.allclose(row[3:7], [made[name] for name in ("x", "y", "z", "chord")], rtol=0, atol=1e-12)
    assert np.allclose([float(line.split()[2]) for line in row[10].split("\n")[2:4]], place)


def insert(db: ImageDB, start: int, footprints: list[tuple[Any, ...]]) -> None:
    """Insert footprints, and a stack for each."""
    numbers = range(start + 1, start + len(footprints) + 1)
    named = [(number, f"skycell.{number}", FILTERS[number % len(FILTERS)]) for number in numbers]
    with db.db.atomic():
        put = db.db.connection().executemany
        put("INSERT INTO pstampFootprint VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", footprints)
        put(
            "INSERT INTO pstampImage (stage, stage_id, component, footprint_id) VALUES ('stack', ?, ?, ?)",
            [(number, name, number) for number, name, _ in named],
        )
        put(
            "INSERT INTO stackRun (state, tess_id, stack_id, skycell_id, filter) VALUES ('full', 'RINGS.V3', ?, ?, ?)",
            named,
        )
        put(
            "INSERT INTO stackSumSkyfile (fault, quality, stack_id, path_base) VALUES (0, 0, ?, ?)",
            [(number, f"stack/{name}") for number, name, _ in named],
        )
