"""Uploads at once while jobs run: fifty people send a file each, on an idle server and on one that cuts 10,000 stamps.

The peer is the server itself when nothing else goes on: the same uploads, one after the other. No upload may fail, no
request may be lost, and the pages that others look at meanwhile must answer.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Event

import httpx2
import numpy as np
from astropy.io import fits

from benchmarks import table
from pstamp_core.formats import parse_text, write_request
from pstamp_core.store import pstampJob, pstampRequest
from pstamp_core.tasks import accounts
from pstamp_core.tasks.images import add_images
from pstamp_core.tasks.server import Server, make_server
from pstamp_core.tasks.submit import submit

JOBS, IMAGES, UPLOADS = 10_000, 100, 50
PASSWORD = "one of fifty"  # noqa: S105
PAGES = ("/requests", "/status", "/form", "/ds/index.txt")


def make(folder: Path) -> Server:
    """Make a server with images that all hold one position, and an account."""
    server = make_server(folder / "home")
    rng = np.random.default_rng(1)
    for number in range(IMAGES):
        header = fits.Header({
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 100.0,
            "CRPIX2": 100.0, "CDELT1": -1e-3, "CDELT2": 1e-3, "FILTER": "r",
            "DATE-OBS": f"2020-05-{1 + number % 28:02}T12:00:00",
        })  # fmt: skip
        fits.PrimaryHDU(rng.normal(size=(200, 200)).astype("f4"), header).writeto(folder / f"image{number}.fits")
    add_images(server, "local", sorted(folder.glob("image*.fits")))
    accounts.add_account(server, "all@example.org", PASSWORD, [accounts.OPERATORS])
    return server


def request(folder: Path, name: str, rows: int, image: str | None) -> Path:
    """Write a request file of which each row asks for a stamp of one image, or of all."""
    which = f"byskycell stack null local {image}" if image else "bycoord stack null null null"
    lines = [f"{n} 10 20 20 20 2 stamp 1 local null null {which} null null 0 0 null 0 0" for n in range(1, rows + 1)]
    path = folder / f"{name}.fits"
    write_request(path, parse_text("\n".join([f"{name} 2 PROCESS all@example.org", *lines]))[0])
    return path


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """Run `pstamp serve`; gives its address."""
    log = home.parent / "serve.log"
    with log.open("wb") as stream:
        words = ["pstamp", "serve", "--home", str(home), "--port", "0"]
        process = subprocess.Popen(words, stdout=stream, stderr=stream, env=dict(os.environ))
        try:
            while not (found := re.search(r"web service: (http://\S+)/\n", log.read_text())):
                time.sleep(0.05)
            yield found[1]
        finally:
            process.terminate()
            process.wait(120)


def login(address: str) -> tuple[dict[str, str], str]:
    """Return the cookie of a login, and the token of its forms."""
    with httpx2.Client(base_url=address) as web:
        web.post("/login", data={"email": "all@example.org", "password": PASSWORD})
        found = re.search(r'name="form_token" value="([^"]+)"', web.get("/upload").text)
        assert found
        return dict(web.cookies), found[1]


def upload(address: str, path: Path, known: tuple[dict[str, str], str]) -> float:
    """Send a file; return the seconds until the answer."""
    cookies, token = known
    with httpx2.Client(base_url=address, cookies=cookies, timeout=120) as web:
        start = time.perf_counter()
        answer = web.post("/upload", data={"form_token": token}, files={"file": (path.name, path.read_bytes())})
        taken = time.perf_counter() - start
    assert answer.status_code == 303, (answer.status_code, answer.text[:2000])
    return taken


def look(address: str, known: tuple[dict[str, str], str], over: Event) -> list[float]:
    """Look at pages in turn until it is over; return how long each took to answer."""
    times = []
    with httpx2.Client(base_url=address, cookies=known[0], timeout=120) as web:
        while not over.is_set():
            for page in PAGES:
                start = time.perf_counter()
                web.get(page).raise_for_status()
                times.append(time.perf_counter() - start)
    return times


def at_once(
    address: str, known: tuple[dict[str, str], str], paths: list[Path], threads: int
) -> tuple[list[float], list[float]]:
    """Upload all files by some threads at once; return the seconds of each, and those of the pages meanwhile."""
    over = Event()
    with ThreadPoolExecutor(threads + 1) as pool:
        looked = pool.submit(look, address, known, over)
        times = list(pool.map(lambda path: upload(address, path, known), paths))
        over.set()
        return times, looked.result()


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = make(folder)
        files = {
            turn: [request(folder, f"{turn}_{n}", 3, f"image{n}") for n in range(UPLOADS)]
            for turn in ("alone", "idle", "busy")
        }
        with serving(server.settings.home) as address:
            known = login(address)
            results = {"one after the other": at_once(address, known, files["alone"], 1)}
            results["50 at once"] = at_once(address, known, files["idle"], UPLOADS)
            submit(server, request(folder, "large", JOBS // IMAGES, None))
            while True:
                with server.store.reading():
                    done = pstampJob.select().where(pstampJob.state == "stop", pstampJob.req_id == 2 * UPLOADS + 1)
                    if done.count() > 0:
                        break
                time.sleep(0.2)
            results["50 at once, 10,000 jobs"] = at_once(address, known, files["busy"], UPLOADS)
            with server.store.reading():
                left = JOBS - done.count()
                names = {row.name for row in pstampRequest.select()}
        assert names >= {path.stem for paths in files.values() for path in paths}, "a request is lost"
        assert left > 0, "the jobs were done before the uploads"
        peer = median(results["one after the other"][0])
        rows = [
            [
                how,
                *(
                    f"{each:.3f}"
                    for each in (median(times), max(times), median(times) / peer, median(looks), max(looks))
                ),
            ]
            for how, (times, looks) in results.items()
        ]
        table(
            f"{UPLOADS} uploads of 3 rows; after the last, {left} of {JOBS} jobs were still to be done",
            ["uploads", "median s", "longest s", "ratio", "page: median s", "longest s"], rows,
        )  # fmt: skip


if __name__ == "__main__":
    main()
