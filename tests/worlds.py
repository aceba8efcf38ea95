"""A small server whose state can be saved and put back, with a request in which every task takes part.

Two images of its own, and a warp whose pixels were deleted. Six rows lead to stamps of both images, one of the warp
once it is made again, an answer that parsing gives, and one that only the pixels give.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from conftest import Clock
from peewee import MySQLDatabase

from pstamp_core.database import connect, session
from pstamp_core.datastore import TABLES as DATASTORE_TABLES
from pstamp_core.datastore.index import FileEntry, read_fileset_index, read_product_index
from pstamp_core.files import measure
from pstamp_core.formats import parse_text, read_results, write_request
from pstamp_core.imagedb import ImageDB
from pstamp_core.imagedb import tables as t
from pstamp_core.machines import JobState, RequestState
from pstamp_core.settings import load_settings
from pstamp_core.store import TABLES, Store, pstampDependent, pstampJob, pstampRequest, pstampWebRequest
from pstamp_core.store.rules import trigger_name
from pstamp_core.tasks import report
from pstamp_core.tasks.images import add_images
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server, add_project, make_server

SETTINGS = "lease_seconds = 600\nretry_seconds = 0\ncheck_seconds = 0\n"
DAY = 86_400

_STACK = "1 local null null byskycell stack null local"
REQUEST = f"""once_1 2 PROCESS ana@obs.example.edu
1 10 20 8 6 2 stamp {_STACK} one null null 0 0 null 0 0 | a stamp
2 10.001 20 8 6 2 stamp 1 local null null bycoord stack null null null null null 0 0 null 0 0 | of both images
3 10 20 8 6 2 stamp 1 local null null byname stack null null null null null 0 0 null 0 0 | no such REQ_TYPE
4 5 5 8 6 3 stamp 1 gpc1 null null byid warp 11 null cell null null 0 0 null 0 0 | deleted, and made again
5 30 20 8 6 2 stamp {_STACK} two null null 0 0 null 0 0 | not on this image
"""


def sky_image(path: Path) -> None:
    """An image of 50 x 40 pixels at RA 10, Dec 20."""
    header = fits.Header({
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 25.0, "CRPIX2": 20.0,
        "CDELT1": -1e-3, "CDELT2": 1e-3, "FILTER": "r", "DATE-OBS": "2020-05-31T12:00:00",
    })  # fmt: skip
    fits.PrimaryHDU(np.arange(2000, dtype="f4").reshape(40, 50), header).writeto(path)


class World:
    """A server in `folder`, with its own database or that at `address`."""

    def __init__(self, folder: Path, address: str | None = None, settings: str = SETTINGS) -> None:
        self.folder, self.clock = folder, Clock()
        self.home = folder / "home"
        self.home.mkdir()
        self.request = folder / "once_1.fits"
        write_request(self.request, parse_text(REQUEST)[0])
        (self.home / "pstamp.toml").write_text(settings)
        self.address = address
        self._saved: dict[str, dict[str, Any]] = {}
        server = make_server(self.home, address)
        if address:  # so that rows in any state can be put back
            with server.store.reading():
                for table in (pstampRequest, pstampJob, pstampDependent):
                    server.store.db.execute_sql(f"DROP TRIGGER {trigger_name(table.__name__, 'insert')}")
                server.store.db.execute_sql(f"DROP TRIGGER {trigger_name('pstampHistory', 'delete')}")
        (folder / "images").mkdir()
        for name in ("one", "two", "warp"):
            sky_image(folder / "images" / f"{name}.fits")
        add_images(server, "local", [folder / "images" / "one.fits", folder / "images" / "two.fits"])
        self._make_warp(server)
        server.store.db.close()
        self.save("empty")

    def begin(self) -> None:
        """Be as new."""
        self.restore("empty")

    def _make_warp(self, server: Server) -> None:
        db = ImageDB(server.settings.locate("images/gpc1.db"))
        db.create()
        rows: list[tuple[Any, dict[str, Any]]] = [
            (t.rawExp, {"exp_id": 1, "exp_name": "o1", "camera": "GPC1", "dateobs": datetime(2010, 3, 1, tzinfo=UTC),
                        "filter": "r.00000", "exp_time": 40.0}),
            (t.chipRun, {"chip_id": 11, "exp_id": 1, "state": "full"}),
            (t.chipProcessedImfile, {"chip_id": 11, "exp_id": 1, "class_id": "XY31", "data_state": "full"}),
            (t.camRun, {"cam_id": 11, "chip_id": 11, "state": "full"}),
            (t.fakeRun, {"fake_id": 11, "cam_id": 11}),
            (t.warpRun, {"warp_id": 11, "fake_id": 11, "state": "cleaned", "tess_id": "RINGS"}),
            (t.warpSkyCellMap, {"warp_id": 11, "skycell_id": "cell", "tess_id": "RINGS", "class_id": "XY31"}),
            (t.warpImfile, {"warp_skyfile_id": 1, "warp_id": 11, "skycell_id": "cell"}),
            (t.warpSkyfile, {"warp_id": 11, "skycell_id": "cell", "tess_id": "RINGS", "data_state": "cleaned",
                             "path_base": str(self.folder / "images" / "warp")}),
        ]  # fmt: skip
        with db.session():
            for table, columns in rows:
                table.insert(columns).execute()
        add_project(server, "gpc1", "images/gpc1.db")

    def set_warp(self, state: str) -> None:
        """Bring the warp from `cleaned`, or `update`, to another state."""
        with ImageDB(str(self.home / "images" / "gpc1.db")).session():
            t.warpRun.update(state=state).where(t.warpRun.state.in_(["cleaned", "update"])).execute()
            absent = t.warpSkyfile.data_state.in_(["cleaned", "update"])
            t.warpSkyfile.update(data_state=state).where(absent).execute()

    def server(self) -> Server:
        """The server as a new process has it, with a connection of its own."""
        settings = load_settings(self.home, self.address)
        return Server(settings, Store(settings.address, self.clock))

    @contextmanager
    def serving(self) -> Iterator[Server]:
        """A server whose connection is closed in the end, so that a fork does not share it."""
        server = self.server()
        try:
            yield server
        finally:
            server.store.db.close()

    # -- saving

    def save(self, name: str) -> None:
        """Remember all files and rows."""
        shutil.copytree(self.home, self.folder / name, dirs_exist_ok=True)
        rows = {}
        if self.address:
            db = connect(self.address)
            with session(db, [*TABLES, *DATASTORE_TABLES]):
                rows = {table.__name__: list(table.select().tuples()) for table in (*TABLES, *DATASTORE_TABLES)}
        self._saved[name] = {"now": self.clock.now, "rows": rows}

    def restore(self, name: str) -> None:
        """Put all files and rows back as they were."""
        shutil.rmtree(self.home)
        shutil.copytree(self.folder / name, self.home)
        self.clock.now = self._saved[name]["now"]
        if not self.address:
            return
        db = connect(self.address)
        with session(db, [*TABLES, *DATASTORE_TABLES]), db.atomic():
            db.execute_sql("SET foreign_key_checks = 0")
            for table in (*TABLES, *DATASTORE_TABLES):
                table.delete().execute()
                if rows := self._saved[name]["rows"][table.__name__]:
                    table.insert_many(rows, table._meta.sorted_fields).execute()
            db.execute_sql("SET foreign_key_checks = 1")
        self.reuse_numbers()

    def reuse_numbers(self) -> None:
        """Let numbers that went to what never came to be be given again, so that ends can be compared byte for byte.

        MariaDB does not by itself after a transaction was rolled back, nor do we after an upload broke off.
        """
        with self.serving() as server, server.store.reading():
            if not pstampRequest.select().exists():
                pstampWebRequest.delete().execute()
            if isinstance(server.store.db, MySQLDatabase):
                for table in (*TABLES, *DATASTORE_TABLES):
                    if table._meta.auto_increment:
                        server.store.db.execute_sql(f"ALTER TABLE {table.__name__} AUTO_INCREMENT = 1")

    # -- going on

    def recover(self) -> None:
        """Go on after whatever happened: all leases have lapsed, it is another day, the warp is there again."""
        self.reuse_numbers()
        self.clock.forward(DAY)
        with self.serving() as server:
            run(server, workers=1)
            self.set_warp("full")
            for _ in range(10):
                run(server, workers=1)
                self.clock.forward(60)
                if self.is_done():
                    return
        raise AssertionError(f"still not done: {report.waiting(server)}")

    # -- looking

    def is_done(self) -> bool:
        """Tell whether every request has come to its end."""
        with self.serving() as server, server.store.reading():
            return not pstampRequest.select().where(pstampRequest.state.not_in(_ENDS)).exists()

    def waits(self) -> bool:
        """Tell whether a job waits for the warp."""
        with self.serving() as server, server.store.reading():
            return pstampDependent.select().exists()

    def look(self) -> None:
        """Check what must hold at any moment: what is public is whole, and what a row or an index says is there, is."""
        product = self.home / "datastore" / "pstamp_results"
        public = {path.name for path in product.iterdir() if not path.name.startswith(".")} - {"index.txt"}
        for name in public:
            entries = read_fileset_index((product / name / "index.txt").read_text())
            assert {path.name for path in (product / name).iterdir()} == {entry.name for entry in entries} | {
                "index.txt"
            }
            for entry in entries:
                found = measure(product / name / entry.name, entry.type)
                assert (found.bytes, found.md5) == (entry.bytes, entry.md5)
        listed = {entry.name for entry in read_product_index((product / "index.txt").read_text())}
        assert listed <= public
        with self.serving() as server, server.store.reading():
            for request in pstampRequest.select():
                if request.state is RequestState.STOP:
                    assert request.name in listed
                elif request.state is RequestState.NEW:
                    assert Path(request.uri).is_file()
            kept = pstampRequest.select(pstampRequest.req_id).where(
                pstampRequest.state.not_in([RequestState.GOTO_CLEANED, RequestState.CLEANED])
            )
            done = (pstampJob.state == JobState.STOP) & (pstampJob.fault == 0) & pstampJob.req_id.in_(kept)
            for job in pstampJob.select().where(done):
                for promised in json.loads(job.result)["products"]:
                    found = measure(Path(promised["path"]), promised["type"])
                    assert (found.bytes, found.md5) == (promised["bytes"], promised["md5"])

    def state(self) -> dict[str, Any]:
        """All that is to be the same whatever happened: rows without times and attempts, files by their bytes."""
        rows: dict[str, Any] = {}
        with self.serving() as server, server.store.reading():
            for table, columns in _COLUMNS.items():
                fields = [getattr(table, name) for name in columns]
                rows[table.__name__] = list(table.select(*fields).tuples())
            store = server.datastore
            registry = [(entry.name, entry.type, entry.values) for entry in store.filesets("pstamp_results")]
            rows["registry"] = [
                (entry, [_timeless(file) for file in store.files("pstamp_results", entry[0])]) for entry in registry
            ]
        return rows | self.files()

    def files(self) -> dict[str, bytes]:
        """All files of the server but its settings, databases and logs, by name; folders too."""
        found = {}
        for path in sorted(self.home.rglob("*")):
            name = str(path.relative_to(self.home))
            is_log = path.suffix == ".log" or name == "work/dependents"
            if name.startswith(("work", "datastore")) and path.name != ".lock" and not is_log:
                found[name] = b"a folder" if path.is_dir() else timeless(path)
        return found


def timeless(path: Path) -> bytes:
    """Return what is in a published file, without its times: that of publication, and how long stamps waited."""
    content = path.read_bytes()
    if path.name == "index.txt":
        content = re.sub(rb"\d{4}-\d\d-\d\dT[\d:]{8}Z", b"<time>", content)
        return re.sub(rb"(results\.\w+ *\|)\d+ *\|\w+", rb"\1<table>", content)
    if path.name == "results.fits":
        return repr([{**row, "WAIT_S": 0} for row in read_results(path).rows]).encode()
    return re.sub(rb"(WAIT_S +F64) .*", rb"\1", content) if path.name == "results.mdc" else content


def _timeless(file: FileEntry) -> FileEntry:
    """Without what the table of results tells of times: how long stamps waited."""
    return replace(file, bytes=0, md5="") if file.name.startswith("results.") else file


_ENDS = [RequestState.STOP, RequestState.CLEANED]

_COLUMNS = {
    pstampRequest: ("state", "fault", "cause", "lease_owner", "lease_until", "name", "reqType", "label", "outProduct",
                    "uri", "outdir", "username"),
    pstampJob: ("job_id", "req_id", "rownum", "state", "fault", "cause", "lease_owner", "lease_until", "jobType",
                "exp_id", "outputBase", "options", "dep_id", "image", "params", "result", "sentence"),
    pstampDependent: ("dep_id", "state", "fault", "cause", "lease_owner", "lease_until", "stage", "stage_id",
                      "component", "imagedb", "open_key", "outdir"),
}  # fmt: skip
