"""The data store over HTTP: what clients and browsers are answered, and what nobody gets."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from pstamp_core.database import connect, create_tables, session
from pstamp_core.datastore import TABLES, DataStore, registry
from pstamp_core.datastore.index import read_product_index
from pstamp_core.datastore.tables import dsFile, dsFileset, dsFileType, dsProduct
from pstamp_core.faults import RetryableError
from pstamp_core.files import StoredFile, measure
from pstamp_core.tasks.server import Server, make_server
from pstamp_web import datastore
from pstamp_web.app import make_app

ROOT = """\
# productID  |Most recent |Time registered     |type     |Description                     |
field_frames |none        |2026-02-11T09:00:00Z|image    |Demonstration frames            |
cutout_asks  |vega_0042   |2026-03-04T05:06:07Z|psrequest|Incoming cutout requests        |
cutout_results|vega_0042   |2026-03-04T05:31:40Z|psresults|Finished cutouts                |
"""
PRODUCT = """\
# filesetID|time registered     |type     |req_id|
vega_0040  |2026-03-04T04:10:00Z|PSRESULTS|91    |
vega_0041  |2026-03-04T04:55:12Z|PSRESULTS|null  |
vega_0042  |2026-03-04T05:31:40Z|PSRESULTS|93    |
"""
LATER = """\
# filesetID|time registered     |type     |req_id|
vega_0042  |2026-03-04T05:31:40Z|PSRESULTS|93    |
"""
NOTHING_LATER = "# filesetID|time registered|type|req_id|\n"
FILESET = """\
# fileID          |bytes   |md5sum                          |type        |
results.fits      |11520   |62d71657ba0f9a3b2dc8bf0382aedee2|table       |
# fileID          |bytes   |md5sum                          |type        |component|
results.mdc       |4133    |c75d4098d234ee520522887c2cddc62a|text        |
parse_error.txt   |61      |65d0b09c00a0a84cf6c2a964ffb8ebd3|text        |
# fileID          |bytes   |md5sum                          |type        |
1_1_r_demo.0007.fits|23040   |746ea49d8e1ca78f1a0459b26fa4b9d7|pstamp      |
1_1_r_demo.0007.mk.fits|8640    |c58fac03b19f1749229ac4c41ea35a9e|pstamp      |
1_1_r_demo.0007.jpg|5219    |54cb19f7b4da6da355a776fa2b95eb23|pstamp      |
1_1_r_demo.0007.psf|14400   |fecc2961c0b6ebfdcea30e769202cd7b|fits        |
"""
TEXT = "text/plain; charset=utf-8"
SCRIPT = "<script>alert(1)</script>"
Get = Callable[..., Response]


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}").replace(tzinfo=UTC)


@pytest.fixture
def store(address: str, tmp_path: Path) -> Iterator[DataStore]:
    """A data store without products, on each engine."""
    database = connect(address)
    with session(database, TABLES):
        create_tables(database, TABLES)
        for table in reversed(TABLES):
            table.delete().execute()
        (tmp_path / "ds").mkdir()
        yield DataStore(tmp_path / "ds", database)
        for table in reversed(TABLES):
            table.delete().execute()


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[DataStore]:
    """A data store with the product results, where the engine makes no difference."""
    database = connect(str(tmp_path / "registry.db"))
    with session(database, TABLES):
        create_tables(database, TABLES)
        store = DataStore(tmp_path / "ds", database)
        store.add_product("results", "psresults", "Finished stamps", ("req_id",))
        yield store


def app_of(store: DataStore) -> FastAPI:
    app = FastAPI()
    app.state.server = SimpleNamespace(datastore=store)
    app.include_router(datastore.router, prefix="/ds")
    return app


def browser(store: DataStore) -> TestClient:
    return TestClient(app_of(store), follow_redirects=False)


def published(store: DataStore, work: Path, fileset: str = "vega", **files: bytes) -> list[StoredFile]:
    """Publish files; in their names, __ is a dot."""
    folder = work / fileset
    folder.mkdir()
    names = {name.replace("__", "."): content for name, content in files.items()}
    for name, content in names.items():
        (folder / name).write_bytes(content)
    stored = [measure(folder / name, "pstamp") for name in names]
    store.publish("results", fileset, "PSRESULTS", stored, ["91"])
    return stored


@pytest.fixture
def example(store: DataStore) -> DataStore:
    """The registry of the examples in the description of the protocol."""
    for name, time, kind, text, newest in (
        ("field_frames", "02-11T09:00", "image", "Demonstration frames", None),
        ("cutout_asks", "03-04T05:06:07", "psrequest", "Incoming cutout requests", "vega_0042"),
        ("cutout_results", "03-04T05:31:40", "psresults", "Finished cutouts", "vega_0042"),
    ):
        dsProduct.create(
            prod_name=name, last_update=at(time), type=kind, description=text, last_fs=newest, prod_col_0="req_id"
        )
    dsFileType.create(type="text", type_col_0="component")
    results = dsProduct.get(dsProduct.prod_name == "cutout_results")
    for name, time, number in (("0040", "04:10:00", "91"), ("0041", "04:55:12", None), ("0042", "05:31:40.9", "93")):
        dsFileset.create(
            product=results,
            fileset_name=f"vega_{name}",
            reg_time=at(f"03-04T{time}"),
            type="PSRESULTS",
            prod_col_0=number,
        )
    for line in FILESET.splitlines():
        if not line.startswith("#"):
            name, size, md5, kind = (field.strip() for field in line.split("|")[:4])
            dsFile.create(fileset=dsFileset.get(), file_name=name, bytes=int(size), md5sum=md5, type=kind)
    return store


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/index.txt", ROOT),
        ("/index.txt?vega_0041", ROOT),
        ("/cutout_results/index.txt", PRODUCT),
        ("/cutout_results/index.txt?", PRODUCT),
        ("//cutout_results///index.txt", PRODUCT),
        ("/cutout_results/index.txt?vega_0041", LATER),
        ("/cutout_results/index.txt?vega%5f0041", LATER),
        ("/cutout_results/index.txt?vega_0042", NOTHING_LATER),
        ("/field_frames/index.txt", NOTHING_LATER),
        ("/cutout_results/vega_0040/index.txt", FILESET),
        ("/cutout_results/vega_0040/index.txt?vega_0041", FILESET),
        ("/cutout_results/vega_0041/index.txt", FILESET.splitlines(keepends=True)[0]),
    ],
)
def test_indexes_are_those_of_the_protocol_to_the_byte(example: DataStore, path: str, text: str) -> None:
    answer = browser(example).get(f"/ds{path}")
    assert (answer.status_code, answer.text) == (200, text)
    assert answer.headers["Content-Type"] == TEXT
    head = browser(example).head(f"/ds{path}")
    assert (head.status_code, head.content, head.headers["Content-Type"]) == (200, b"", TEXT)


PRODUCTS = "cutout_asks, cutout_results, field_frames"
NOT_THERE = [
    ("/other/index.txt", f"there is no product other in the data store (there are: {PRODUCTS})"),
    ("/cutout_results/index.txt?vega_0039", "there is no fileset vega_0039 in product cutout_results"),
    ("/cutout_asks/index.txt?vega_0041", "there is no fileset vega_0041 in product cutout_asks"),
    ("/cutout_results/index.txt?vega_0041%20", "there is no fileset 'vega_0041 ' in product cutout_results"),
    ("/cutout_results/VEGA_0041/index.txt", "there is no fileset VEGA_0041 in product cutout_results"),
    ("/cutout_results/vega_0039/", "there is no fileset vega_0039 in product cutout_results"),
    ("/cutout_results/vega_0039", "there is no fileset vega_0039 in product cutout_results"),
    ("/cutout_results/vega_0040/other.fits", "there is no file other.fits in fileset cutout_results/vega_0040"),
    ("/cutout_results/vega_0040/results.fits/", "files have no index"),
    ("/cutout_results/vega_0040/results.fits/index.txt", "there is nothing below files"),
    ("/cutout_results/vega_0040/results.fits/a/b", "there is nothing below files"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "sentence"), NOT_THERE)
def test_what_the_registry_does_not_have_is_404_in_plain_text(example: DataStore, path: str, sentence: str) -> None:
    answer = browser(example).get(f"/ds{path}")
    assert (answer.status_code, answer.text) == (404, f"{sentence}\n")
    assert answer.headers["Content-Type"] == TEXT
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["index.txt", "", "vega_0040/index.txt", "vega_0040/"])
def test_who_asks_for_the_headers_alone_has_no_rows_read(
    example: DataStore, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(registry.Registry, "_portions", None)
    assert browser(example).head(f"/ds/cutout_results/{path}").status_code == 200
    with pytest.raises(TypeError, match="not callable"):
        browser(example).get(f"/ds/cutout_results/{path}")


def test_hidden_filesets_are_not_listed_but_have_an_index_and_may_be_asked_after(example: DataStore) -> None:
    dsFileset.update(hide=True).where(dsFileset.fileset_name == "vega_0040").execute()
    get = browser(example).get
    listed = get("/ds/cutout_results/index.txt").text
    assert [entry.name for entry in read_product_index(listed)] == ["vega_0041", "vega_0042"]
    assert get("/ds/cutout_results/index.txt?vega_0040").text == listed
    assert get("/ds/cutout_results/vega_0040/index.txt").text == FILESET


def test_a_product_has_eight_columns_of_its_own_up_to_the_first_without_label(example: DataStore) -> None:
    labels = {f"prod_col_{i}": f"L{i}" for i in range(8)}
    dsProduct.update(**labels).execute()
    values = {f"prod_col_{i}": "w" * i for i in range(1, 8)}
    dsFileset.update(**values).where(dsFileset.fileset_name == "vega_0041").execute()
    get = browser(example).get
    header, _, row, _ = get("/ds/cutout_results/index.txt").text.splitlines()
    assert header == "# filesetID|time registered     |type     |L0  |L1  |L2  |L3  |L4  |L5   |L6    |L7     |"
    assert row == "vega_0041  |2026-03-04T04:55:12Z|PSRESULTS|null|w   |ww  |www |wwww|wwwww|wwwwww|wwwwwww|"
    dsProduct.update(prod_col_2=None).execute()
    assert get("/ds/cutout_results/index.txt").text.startswith(
        "# filesetID|time registered     |type     |L0  |L1  |\n"
    )


def test_values_need_not_be_ascii_for_columns_to_line_up(example: DataStore) -> None:
    dsFileset.update(prod_col_0="ä€𝄞").where(dsFileset.fileset_name == "vega_0041").execute()
    lines = browser(example).get("/ds/cutout_results/index.txt").text.splitlines()
    assert {len(line) for line in lines} == {len(PRODUCT.splitlines()[0])}


def test_rows_without_a_type_are_listed(example: DataStore) -> None:
    dsFileset.update(type=None).execute()
    dsFile.update(type="").execute()
    get = browser(example).get
    assert get("/ds/cutout_results/index.txt").text.splitlines()[1] == "vega_0040  |2026-03-04T04:10:00Z|notset|91    |"
    assert get("/ds/cutout_results/vega_0040/index.txt").text.count("|notset      |\n") == 7


def test_long_lists_are_read_in_portions(example: DataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_PORTION", 3)
    monkeypatch.setattr(registry, "_LINES", 2)
    product = dsProduct.get(dsProduct.prod_name == "cutout_asks")
    for number in range(3, 13):
        dsFileset.create(product=product, fileset_name=f"x{number}", reg_time=at("03-04"), type="PSREQUEST")
    get = browser(example).get
    names = [entry.name for entry in read_product_index(get("/ds/cutout_asks/index.txt").text)]
    assert names == [f"x{number}" for number in range(3, 13)]
    assert get("/ds/cutout_asks/index.txt?x6").text.count("\n") == 1 + 6
    assert get("/ds/cutout_results/vega_0040/index.txt").text == FILESET


def test_who_reads_slowly_gets_what_was_there_when_he_began(
    example: DataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_PORTION", 2)
    monkeypatch.setattr(registry, "_LINES", 1)
    index, files = example.product_index("cutout_results"), example.fileset_index("cutout_results", "vega_0040")
    blocks, lines = [next(index), next(index)], [next(files), next(files)]
    dsFileset.create(
        product=dsFileset.get().product, fileset_name="vega_0043_is_longer", reg_time=at("03-05"), type="T"
    )
    assert "".join([*blocks, *index]) == PRODUCT
    dsFile.delete().where(dsFile.file_name == "1_1_r_demo.0007.jpg").execute()
    with pytest.raises(RetryableError) as failure:
        lines += files
    assert str(failure.value) == (
        f"data store {example.root}: fileset cutout_results/vega_0040 was replaced while its index was read; read it "
        "again"
    )


def test_filesets_after_another_are_found_by_an_index(lite: DataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    dsFileset.insert_many(
        {"product": 1, "fileset_name": f"f{n}", "reg_time": at("03-04"), "type": "T"} for n in range(10)
    ).execute()
    statements: list[tuple[str, Any]] = []
    execute = lite.database.execute_sql

    def noted(sql: str, params: Any = None) -> Any:
        statements.append((sql, params))
        return execute(sql, params)

    monkeypatch.setattr(lite.database, "execute_sql", noted)
    assert "".join(lite.product_index("results", "f7")).count("\n") == 3
    plans = [
        detail
        for sql, params in statements
        if "dsFileset" in sql
        for *_, detail in execute(f"EXPLAIN QUERY PLAN {sql}", params).fetchall()
    ]
    assert len(plans) == 3
    assert plans[0] == "SEARCH t1 USING INDEX dsFileset_prod_id_fileset_name (prod_id=? AND fileset_name=?)"
    for plan in plans[1:]:
        assert plan.startswith("SEARCH t1 USING ")
        assert "rowid>?" in plan


# -- files


def test_a_file_is_served_with_its_registered_bytes_and_validators(lite: DataStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (file,) = published(lite, tmp_path, a__fits=content)
    os.utime(file.path, (1_770_000_000, 1_770_000_000))
    answer = browser(lite).get("/ds/results/vega/a.fits")
    assert (answer.status_code, answer.content) == (200, content)
    wanted = {
        "Content-Type": "image/x-fits", "Content-Length": str(len(content)), "ETag": f'"{file.md5}"',
        "Last-Modified": formatdate(1_770_000_000, usegmt=True), "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache",
    }  # fmt: skip
    assert {name: answer.headers[name] for name in wanted} == wanted
    assert "Content-Disposition" not in answer.headers
    head = browser(lite).head("/ds/results/vega/a.fits")
    assert (head.status_code, head.content, head.headers) == (200, b"", answer.headers)
    listed = browser(lite).get("/ds/results/vega/index.txt").text.splitlines()[1]
    assert [field.strip() for field in listed.split("|")][1:3] == [
        answer.headers["Content-Length"], hashlib.md5(answer.content, usedforsecurity=False).hexdigest(),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "status", "content"),
    [
        ({"Range": "bytes=2-4"}, 206, b"234"),
        ({"Range": "bytes=7-"}, 206, b"789"),
        ({"Range": "bytes=-2"}, 206, b"89"),
        ({"Range": "bytes=10-"}, 416, b""),
        ({"Range": "bytes=7-", "If-Range": "{etag}"}, 206, b"789"),
        ({"Range": "bytes=7-", "If-Range": '"781e5e245d69b566979b86e28d23f2c8"'}, 200, b"0123456789"),
        ({"If-None-Match": "{etag}"}, 304, b""),
        ({"If-None-Match": '"a", W/{etag}'}, 304, b""),
        ({"If-None-Match": '"other"', "If-Modified-Since": "{modified}"}, 200, b"0123456789"),
        ({"If-Modified-Since": "{modified}"}, 304, b""),
        ({"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}, 200, b"0123456789"),
    ],
)
def test_parts_and_conditions(
    lite: DataStore, tmp_path: Path, headers: dict[str, str], status: int, content: bytes
) -> None:
    (file,) = published(lite, tmp_path, a__fits=b"0123456789")
    modified = formatdate(file.path.stat().st_mtime, usegmt=True)
    sent = {name: text.format(etag=f'"{file.md5}"', modified=modified) for name, text in headers.items()}
    answer = browser(lite).get("/ds/results/vega/a.fits", headers=sent)
    assert (answer.status_code, answer.content) == (status, content)
    if status == 206:
        first = b"0123456789".index(content)
        assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(content) - 1}/10"
    if status != 416:
        assert answer.headers["ETag"] == f'"{file.md5}"'


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.fits", "image/x-fits"),
        ("a.cmf", "image/x-fits"),
        ("a.jpg", "image/jpeg"),
        ("a.png", "image/png"),
        ("a.txt", TEXT),
        ("a.mdc", TEXT),
        ("a.tgz", "application/gzip"),
        ("a.html", None),
        ("a.HTML", None),
        ("a.svg", None),
        ("a.xml", None),
        ("a.js", None),
        ("a", None),
    ],
)
def test_nothing_is_sent_as_a_page(lite: DataStore, tmp_path: Path, name: str, kind: str | None) -> None:
    published(lite, tmp_path, **{name.replace(".", "__"): SCRIPT.encode()})
    answer = browser(lite).get(f"/ds/results/vega/{name}")
    assert answer.text == SCRIPT
    assert answer.headers["Content-Type"] == (kind or "application/octet-stream")
    assert answer.headers.get("Content-Disposition") == (None if kind else f'attachment; filename="{name}"')
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_only_what_is_registered_is_served(lite: DataStore, tmp_path: Path) -> None:
    published(lite, tmp_path, a__fits=b"a")
    published(lite, tmp_path, "lyra", b__fits=b"b")
    folder = lite.root / "results" / "vega"
    (folder / "own.fits").write_bytes(b"own")
    (lite.root / "results" / "own").mkdir()
    (lite.root / "results" / "own" / "own.fits").write_bytes(b"own")
    get = browser(lite).get
    asked = ["vega/own.fits", "own/own.fits", "own/", "own/index.txt", "vega/b.fits", "../.lock", "vega/../lyra/b.fits"]
    assert {path: get(f"/ds/results/{path.replace('..', '%2e%2e')}").status_code for path in asked} == dict.fromkeys(
        asked, 404
    )
    assert get("/ds/.lock").status_code == 404
    lite.withdraw("results", "vega", keep_files=True)
    assert (folder / "a.fits").read_bytes() == b"a"
    assert get("/ds/results/vega/a.fits").status_code == 404


def overwritten(content: bytes) -> Callable[[Path, Path], object]:
    return lambda file, _: file.write_bytes(content)


SPOILED: dict[str, Callable[[Path, Path], object]] = {
    "longer": overwritten(b"0123456789!"),
    "shorter": overwritten(b"012345678"),
    "of the same size": overwritten(b"secret----"),
    "of the same size and time": lambda file, _: unnoticed(file),
    "gone": lambda file, _: file.unlink(),
    "its fileset a file": lambda file, other: other.rename(moved(file.parent)),
    "its fileset gone": lambda file, other: file.parent.rename(other.with_name("moved")),
    "a link to a file of this size": lambda file, other: replaced(file).symlink_to(other),
    "a link to itself": lambda file, _: replaced(file).symlink_to(file),
    "a link to nothing": lambda file, other: replaced(file).symlink_to(other.with_name("nothing")),
    "a folder": lambda file, _: replaced(file).mkdir(),
    "a pipe": lambda file, _: os.mkfifo(replaced(file)),
    "in a folder that is a link": lambda file, other: elsewhere(file.parent, other),
}


def replaced(path: Path) -> Path:
    path.unlink()
    return path


def moved(path: Path) -> Path:
    path.rename(path.with_name("moved"))
    return path


def unnoticed(file: Path) -> None:
    before = file.stat()
    file.write_bytes(b"secret----")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def elsewhere(folder: Path, other: Path) -> None:
    folder.rename(folder.with_name("moved"))
    other.with_name("a.fits").write_bytes(other.read_bytes())
    folder.symlink_to(other.parent)


@pytest.mark.parametrize("how", SPOILED)
def test_what_is_not_what_was_registered_is_an_error_and_its_bytes_are_never_sent(
    lite: DataStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    published(lite, tmp_path, a__fits=b"0123456789")
    get = browser(lite).get
    assert get("/ds/results/vega/a.fits").content == b"0123456789"
    (tmp_path / "outside").mkdir()
    other = tmp_path / "outside" / "other"
    other.write_bytes(b"secret----")
    file = lite.root / "results" / "vega" / "a.fits"
    SPOILED[how](file, other)
    caplog.set_level(logging.ERROR)
    answer = get("/ds/results/vega/a.fits", headers={"Range": "bytes=0-3"})
    assert (answer.status_code, answer.text) == (
        500, "this file is not what was registered; the operators find what is wrong in the log\n",
    )  # fmt: skip
    (line,) = [record.getMessage() for record in caplog.records if record.name == "pstamp.web"]
    assert line == (
        f"{file}: is not there, or is not what was registered: 10 bytes, md5 781e5e245d69b566979b86e28d23f2c7; "
        "pstamp db check --md5 looks at all files"
    )


def test_a_folder_in_the_place_of_a_file_is_not_read(lite: DataStore, tmp_path: Path) -> None:
    published(lite, tmp_path, a__fits=b"")
    file = replaced(lite.root / "results" / "vega" / "a.fits")
    file.mkdir()
    dsFile.update(bytes=file.stat().st_size).execute()
    assert browser(lite).get("/ds/results/vega/a.fits").status_code == 500


def test_names_that_lead_elsewhere_are_no_names_even_in_the_registry(lite: DataStore, tmp_path: Path) -> None:
    """Whoever types into the registry by hand opens no other folder."""
    published(lite, tmp_path, a__fits=b"a")
    (tmp_path / "a.fits").write_bytes(b"a")
    (lite.root / "a.fits").write_bytes(b"a")
    get = browser(lite).get
    assert get("/ds/results/vega/a.fits").status_code == 200
    dsFileset.update(fileset_name="..").execute()
    assert [get(f"/ds/results/%2e%2e/{name}").status_code for name in ("a.fits", "index.txt", "")] == [404] * 3
    dsProduct.update(prod_name="..").execute()
    paths = ("%2e%2e/a.fits", "index.txt", "", "index.txt?..")
    assert [get(f"/ds/%2e%2e/{path}").status_code for path in paths] == [404] * 4


def test_a_link_leads_to_the_registered_bytes(lite: DataStore, tmp_path: Path) -> None:
    source = tmp_path / "far.fits"
    source.write_bytes(b"far away")
    path = lite.register("results", "vega", "OBJECT", [measure(source, "fits")], ("91",), "link")
    assert (path / "far.fits").is_symlink()
    get = browser(lite).get
    assert get("/ds/results/vega/far.fits").content == b"far away"
    source.write_bytes(b"changed!")
    assert get("/ds/results/vega/far.fits").status_code == 500


def test_a_disk_that_fails_is_told_as_such(lite: DataStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(lite, tmp_path, a__fits=b"a")

    def fail(*args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(registry, "measure", fail)
    with pytest.raises(RetryableError, match=r"file results/vega/a\.fits: Input/output error$"):
        browser(lite).get("/ds/results/vega/a.fits")


def test_a_file_is_read_for_its_md5_once_for_each_state(
    lite: DataStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(lite, tmp_path, a__fits=b"0123456789")
    measured: list[Path] = []
    monkeypatch.setattr(registry, "measure", lambda path, kind: measured.append(path) or measure(path, kind))
    get = browser(lite).get
    file = lite.root / "results" / "vega" / "a.fits"
    for number in range(3):
        assert get("/ds/results/vega/a.fits").status_code == 200
        assert len(measured) == 1, number
    os.utime(file, (1, 1))
    assert get("/ds/results/vega/a.fits").status_code == 200
    assert measured == [file, file]


# -- pages


def links(text: str) -> list[str]:
    return re.findall(r'<a href="([^"]*)"', text.partition("<main")[2].partition("</main>")[0])


def test_pages_lead_down_up_and_to_their_text(example: DataStore) -> None:
    get = browser(example).get
    root, product, fileset = (get(f"/ds/{path}") for path in ("", "cutout_results/", "cutout_results/vega_0040/"))
    assert {answer.headers["Content-Type"] for answer in (root, product, fileset)} == {"text/html; charset=utf-8"}
    assert links(root.text) == [
        "index.txt", "./field_frames/", "./cutout_asks/", "./cutout_asks/vega_0042/", "./cutout_results/",
        "./cutout_results/vega_0042/",
    ]  # fmt: skip
    assert links(product.text) == ["../", "index.txt", "./vega_0040/", "./vega_0041/", "./vega_0042/"]
    assert links(fileset.text)[:4] == ["../", "index.txt", "./results.fits", "./results.mdc"]
    assert '<a href="./results.fits" type="image/x-fits">results.fits</a>' in fileset.text
    assert '<a href="./results.mdc">results.mdc</a>' in fileset.text
    assert fileset.text.count("<th>component</th>") == 1
    assert "<td>62d71657ba0f9a3b2dc8bf0382aedee2</td>" in fileset.text
    titles = [re.search("<title>(.*)</title>", answer.text)[1] for answer in (root, product, fileset)]  # type: ignore[index]
    assert titles == [
        "IPP Data Store · pstamp", "IPP Data Store cutout_results · pstamp",
        "IPP Data Store cutout_results/vega_0040 · pstamp",
    ]  # fmt: skip


def test_a_page_of_later_filesets_leads_to_its_own_text(example: DataStore) -> None:
    get = browser(example).get
    page = get("/ds/cutout_results/?vega_0041").text
    assert links(page) == ["../", "index.txt?vega_0041", "./vega_0042/"]
    assert get("/ds/cutout_results/index.txt?vega_0041").text == LATER
    assert links(get("/ds/?vega_0041").text)[0] == "index.txt"


@pytest.mark.parametrize("path", ["", "cutout_results/", "cutout_results/vega_0040/"])
def test_wget_finds_no_way_up(example: DataStore, path: str) -> None:
    page = browser(example).get(f"/ds/{path}", headers={"User-Agent": "Wget/1.21.3"}).text
    ways = re.findall(r'(?:href|src|action)="([^"]*)"', page)
    assert "index.txt" in ways
    assert len(ways) > 3
    assert [way for way in ways if way != "index.txt" and not way.startswith("./")] == []
    assert "<script" not in page


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/ds/cutout_results", "./cutout_results/"),
        ("/ds/cutout_results?vega_0041", "./cutout_results/?vega_0041"),
        ("/ds//cutout_results/vega_0040", "./vega_0040/"),
        ("/ds", "http://testserver/ds/"),
    ],
)
def test_the_address_of_a_page_ends_in_a_slash(example: DataStore, path: str, location: str) -> None:
    answer = browser(example).get(path)
    assert (answer.status_code, answer.headers["Location"]) == (307, location)


def test_all_that_is_shown_is_escaped(example: DataStore) -> None:
    bad = f"{SCRIPT}\"'>&"
    dsProduct.update(description=bad, type=bad, last_fs=bad, prod_col_0=bad).execute()
    dsFileset.update(prod_col_0=bad, type=bad).execute()
    dsFile.update(type=bad, md5sum=bad, type_col_0=bad).execute()
    dsFileType.create(type=bad, type_col_0=bad)
    dsFileset.create(product=dsFileset.get().product, fileset_name=bad, reg_time=at("03-04"))
    dsFile.create(fileset=dsFileset.get(), file_name=f"javascript:{bad}", bytes=1, md5sum="")
    get = browser(example).get
    for path in ("", "cutout_results/", "cutout_results/vega_0040/"):
        page = get(f"/ds/{path}").text
        assert page.count("alert(1)") > 3
        assert SCRIPT not in page
        assert not re.search(r"<[^<>]*<|alert\([^<>]*[\"'][^<>]*>", page)
        assert all(re.fullmatch(r"\.\./|index\.txt|\./[\w.%+/-]*", way) for way in links(page)), links(page)


# -- what attackers send


TRAVERSALS = [
    "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fpasswd", "%252e%252e%252fetc%252fpasswd",
    "..%5c..%5cetc%5cpasswd", "..\\..\\etc\\passwd", "....//....//etc/passwd", "%c0%ae%c0%ae/etc/passwd", "/etc/passwd",
    "%2fetc%2fpasswd", "results/%2e%2e/.lock", "results/vega/%2e%2e/.lock", "results/..%2f/.lock",
    "results/vega/..%2f..%2f.lock",
    "results/vega/a.fits%00", "results/vega/a.fits%00.jpg", "results/%00/a.fits", "%00", "results/vega/.",
    "results/vega/%2e/a.fits", "results/./vega/%2e%2e", "results/vega/%ff%fe", "results/vega/..;/a.fits",
    "results/vega/~root", "file:///etc/passwd", "results/vega/a.fits::$DATA", "results/vega/" + "a" * 3000,
    "results/vega'%20OR%20'1'='1/a.fits", "results/vega/a.fits'--", "results/v_ga/a.fits", "results/%25/a.fits",
    "results/index.txt?vega'%20OR%201=1--", "results/index.txt?v%25", "results/index.txt?%00",
    "results/index.txt?../vega",
    "results/index.txt?vega%0d%0aSet-Cookie:x=1", "results/a%0d%0aSet-Cookie:x=1", "results/a%0d%0aSet-Cookie:x=1/",
    "results/vega/a%0d%0aSet-Cookie:x=1", "a%0d%0aSet-Cookie:%20x=1?b%0d%0aSet-Cookie:x=1",
]  # fmt: skip


@pytest.fixture
def whole(tmp_path: Path) -> Server:
    """A server with all that the web service has."""
    server = make_server(tmp_path / "home")
    server.datastore.add_product("results", "psresults", "Finished stamps", ("req_id",))
    published(server.datastore, tmp_path, a__fits=b"0123456789")
    return server


@pytest.fixture
def port(whole: Server) -> Iterator[int]:
    """A real server, since clients mend paths before they send them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app(whole), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield int(listening.getsockname()[1])
        server.should_exit = True
        thread.join()


def raw(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"GET /ds/{path} HTTP/1.0\r\nHost: x\r\n\r\n".encode("latin-1"))
        answer = b""
        while block := connection.recv(65536):
            answer += block
        return answer


def test_no_path_leads_anywhere_else(port: int) -> None:
    assert raw(port, "results/vega/a.fits").endswith(b"\r\n\r\n0123456789")
    for path in TRAVERSALS:
        head, _, body = raw(port, path).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 "), (path, head)
        assert b"\r\ncontent-type: text/plain; charset=utf-8" in head, path
        assert b"\r\nset-cookie" not in head.lower(), path
        assert body.isascii(), path
        assert len(body) < 250, path
        assert not re.search(rb"root:|0123456789|Traceback", body), path


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(lite: DataStore, method: str) -> None:
    assert browser(lite).request(method, "/ds/results/index.txt").status_code == 405


def test_an_index_never_shows_what_can_not_be_had(port: int, whole: Server, tmp_path: Path) -> None:
    numbers, stop, seen = count(), threading.Event(), 0

    def publish() -> None:
        store = DataStore(whole.datastore.root, connect(whole.settings.address))
        while not stop.is_set():
            published(store, tmp_path, f"n{next(numbers)}", a__fits=b"a")

    writer = threading.Thread(target=publish)
    writer.start()
    try:
        while seen < 5:
            assert writer.is_alive()
            listed = read_product_index(raw(port, "results/index.txt").partition(b"\r\n\r\n")[2].decode())
            seen = len(listed)
            assert raw(port, f"results/{listed[-1].name}/a.fits").startswith(b"HTTP/1.1 200 ")
    finally:
        stop.set()
        writer.join()
