"""Publishing and withdrawing filesets: what is on disk, in the registry and in the indexes, and what is refused."""

import errno
import fcntl
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from peewee import IntegrityError, SqliteDatabase

from pstamp_core.database import connect, create_tables, session, unit_of_work
from pstamp_core.datastore import TABLES, DataStore, filesets
from pstamp_core.datastore.index import read_fileset_index, read_product_index, read_root_index
from pstamp_core.datastore.registry import NotRegistered
from pstamp_core.datastore.tables import dsFile, dsFileset, dsFileType, dsProduct
from pstamp_core.faults import Bug, Fault, LeaseLost, PstampError, RetryableError, UserError
from pstamp_core.files import StoredFile, measure

FIRST = {"results.fits": "table", "results.mdc": "text", "1_1_a.fits": "pstamp"}
Change = Callable[[], object]
LONG_AGO = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DataStore]:
    database = connect(str(tmp_path / "registry.db"))
    with session(database, TABLES):
        create_tables(database, TABLES)
        store = DataStore(tmp_path / "ds", database)
        store.add_product("results", "psresults", "Finished stamps", ("req_id",))
        yield store


@pytest.fixture
def files(tmp_path: Path) -> list[StoredFile]:
    work = tmp_path / "work"
    work.mkdir()
    for name in FIRST:
        (work / name).write_text(f"bytes of {name}")
    return [measure(work / name, kind) for name, kind in FIRST.items()]


def names(store: DataStore, product: str = "results") -> list[str]:
    listed = [entry.name for entry in read_product_index((store.root / product / "index.txt").read_text())]
    assert listed == [entry.name for entry in store.filesets(product)]
    return listed


def newest(store: DataStore, product: str = "results") -> str | None:
    entries = {entry.name: entry for entry in read_root_index((store.root / "index.txt").read_text())}
    return entries[product].last_fileset


def tree(store: DataStore) -> set[str]:
    return {str(path.relative_to(store.root)) for path in store.root.rglob("*")} - {".lock"}


def no_link(*_: object, **__: object) -> None:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def test_a_fileset_is_in_place_registered_and_listed_on_three_levels(store: DataStore, files: list[StoredFile]) -> None:
    path = store.publish("results", "vega", "PSRESULTS", files, ["91"])
    assert path == store.root / "results" / "vega"
    assert tree(store) == {
        "index.txt", "results", "results/index.txt", "results/vega", "results/vega/index.txt",
        *(f"results/vega/{name}" for name in FIRST),
    }  # fmt: skip
    assert all((path / file.name).read_bytes() == file.path.read_bytes() for file in files)
    assert (path / "index.txt").read_text() == (
        "# fileID          |bytes   |md5sum                          |type        |\n"
        f"results.fits      |21      |{files[0].md5}|table       |\n"
        "# fileID          |bytes   |md5sum                          |type        |component|\n"
        f"results.mdc       |20      |{files[1].md5}|text        |\n"
        "# fileID          |bytes   |md5sum                          |type        |\n"
        f"1_1_a.fits        |19      |{files[2].md5}|pstamp      |\n"
    )
    assert store.files("results", "vega") == read_fileset_index((path / "index.txt").read_text())
    (entry,) = store.filesets("results")
    assert (entry.name, entry.type, entry.values) == ("vega", "PSRESULTS", ("91",))
    stamp = entry.registered.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (store.root / "results" / "index.txt").read_text() == (
        f"# filesetID|time registered     |type     |req_id|\nvega       |{stamp}|PSRESULTS|91    |\n"
    )
    assert (store.root / "index.txt").read_text() == (
        "# productID  |Most recent |Time registered     |type     |Description                     |\n"
        f"results      |vega        |{stamp}|psresults|Finished stamps                 |\n"
    )


def test_an_empty_fileset_has_a_header_alone(store: DataStore) -> None:
    path = store.publish("results", "empty", "PSRESULTS", [], ["91"])
    assert (path / "index.txt").read_text() == (
        "# fileID          |bytes   |md5sum                          |type        |\n"
    )
    assert store.files("results", "empty") == []


def test_many_files_keep_their_order(store: DataStore, tmp_path: Path) -> None:
    source = tmp_path / "stamp"
    source.write_text("x")
    files = [measure(source, "pstamp", f"{i * 7919 % 401}.fits") for i in range(401)]
    store.publish("results", "vega", "PSRESULTS", files, ["91"])
    assert [file.name for file in store.files("results", "vega")] == [file.name for file in files]


def test_filesets_are_listed_in_the_order_of_their_registration(store: DataStore, files: list[StoredFile]) -> None:
    for name in ("b", "c", "a"):
        dsProduct.update(last_update=LONG_AGO).execute()
        store.publish("results", name, "PSRESULTS", files, [name])
    assert names(store) == ["b", "c", "a"]
    assert dsProduct.get().last_update == store.filesets("results")[-1].registered
    assert newest(store) == "a"


def test_products_do_not_mix(store: DataStore, files: list[StoredFile]) -> None:
    store.add_product("others", "psresults", "Others", ())
    store.publish("others", "vega", "PSRESULTS", files[:1], ["1"])
    store.publish("results", "vega", "PSRESULTS", files, ["2"])
    store.withdraw("others", "vega")
    assert (names(store), names(store, "others")) == (["vega"], [])
    assert (newest(store), newest(store, "others")) == ("vega", None)
    assert len(store.files("results", "vega")) == 3
    assert dsFile.select().count() == 3


def test_a_product_can_be_added_again_with_another_description(store: DataStore, files: list[StoredFile]) -> None:
    store.publish("results", "vega", "PSRESULTS", files, ["91"])
    before = store.root.joinpath("index.txt").read_text()
    store.add_product("results", "psresults", "Finished stamps", ("req_id",))
    assert store.root.joinpath("index.txt").read_text() == before
    dsFileType.update(type_col_0="part").where(dsFileType.type == "text").execute()
    store.add_product("results", "PSRESULTS", "Others", ("number", "user"))
    (entry,) = read_root_index(store.root.joinpath("index.txt").read_text())
    assert (entry.type, entry.description, entry.last_fileset) == ("PSRESULTS", "Others", "vega")
    assert "|number|user|\n" in (store.root / "results" / "index.txt").read_text()
    assert dsProduct.select().count() == 1
    assert {row.type: row.type_col_0 for row in dsFileType.select()} == {**filesets.FILE_TYPES, "text": "part"}


def test_the_same_request_replaces_its_fileset_in_its_place(store: DataStore, files: list[StoredFile]) -> None:
    store.publish("results", "first", "PSRESULTS", files, ["91"])
    store.publish("results", "second", "PSRESULTS", files, ["92"])
    before = {entry.name: entry.registered for entry in store.filesets("results")}
    root = (store.root / "index.txt").read_text()
    path = store.publish("results", "first", "OTHER", files[:2], ["91", "note"])
    assert names(store) == ["first", "second"]
    assert {entry.name: entry.registered for entry in store.filesets("results")} == before
    assert store.filesets("results")[0].type == "OTHER"
    assert store.filesets("results")[0].values == ("91", "note")
    assert {entry.name for entry in path.iterdir()} == {"index.txt", "results.fits", "results.mdc"}
    assert store.files("results", "first") == read_fileset_index((path / "index.txt").read_text())
    assert (store.root / "index.txt").read_text() == root


def test_a_fileset_of_another_request_is_left_alone(store: DataStore, files: list[StoredFile]) -> None:
    path = store.publish("results", "vega", "PSRESULTS", files, ["91"])
    before = tree(store)
    with pytest.raises(UserError) as refused:
        store.publish("results", "vega", "PSRESULTS", files[:1], ["92"])
    assert refused.value.fault == Fault.PSTAMP_DUP_REQUEST
    assert str(refused.value) == (
        "fileset results/vega belongs to request 91, so that request 92 can't have it: send the request again under "
        "another name"
    )
    assert tree(store) == before
    assert len(list(path.iterdir())) == 4


def test_a_request_that_loses_the_race_for_a_name_takes_its_files_back(
    store: DataStore, files: list[StoredFile]
) -> None:
    before = tree(store)

    def other_is_faster() -> None:  # by a writer that takes no turns
        dsFileset.create(product=1, fileset_name="vega", reg_time=LONG_AGO, prod_col_0="91")

    with pytest.raises(UserError, match="belongs to request 91"):
        store.publish("results", "vega", "PSRESULTS", files, ["92"], before_rename=other_is_faster)
    assert tree(store) == before
    assert dsFile.select().count() == 0


@pytest.mark.parametrize(("other", "fault"), [("91", Fault.PSTAMP_DUP_REQUEST), ("92", None)])
def test_of_two_who_publish_one_fileset_the_last_to_come_wins(
    store: DataStore, files: list[StoredFile], monkeypatch: pytest.MonkeyPatch, other: str, fault: int | None
) -> None:
    called: list[str] = []

    def other_comes(path: Path, kind: str) -> StoredFile:
        monkeypatch.setattr(filesets, "measure", measure)
        store.publish("results", "vega", "PSRESULTS", files[:1], [other], lambda: called.append(other))
        return measure(path, kind)

    def publish() -> None:
        store.publish("results", "vega", "PSRESULTS", files[:2], ["92"], lambda: called.append("92"))

    monkeypatch.setattr(filesets, "measure", other_comes)
    with pytest.raises(RetryableError, match="No such file or directory"):
        publish()
    assert called == [other]
    assert [file.name for file in store.files("results", "vega")] == ["results.fits"]
    assert not [path for path in tree(store) if ".tmp" in path]
    if fault is None:
        publish()
        assert len(store.files("results", "vega")) == 2
    else:
        with pytest.raises(UserError) as refused:
            publish()
        assert refused.value.fault == fault


def test_the_product_is_locked_before_a_fileset_gets_its_number(
    store: DataStore, files: list[StoredFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    execute = store.database.execute_sql

    def noted(sql: str, params: object = None) -> object:
        statements.extend(re.findall(r'^(?:INSERT INTO|UPDATE|DELETE FROM) "\w+"', sql))
        return execute(sql, params)

    monkeypatch.setattr(store.database, "execute_sql", noted)
    store.publish("results", "vega", "PSRESULTS", files, ["91"])
    assert statements[:2] == ['UPDATE "dsProduct"', 'INSERT INTO "dsFileset"']
    statements.clear()
    store.withdraw("results", "vega")
    assert statements[0] == 'UPDATE "dsProduct"'


@pytest.mark.parametrize("linked", [True, False])
def test_all_bytes_and_names_reach_the_disk_before_the_rename_and_the_rename_before_the_registry(
    store: DataStore, files: list[StoredFile], monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    synced = {file.path.stat().st_ino for file in files}  # by who wrote them
    if not linked:
        monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "fsync", lambda handle: synced.add(os.fstat(handle).st_ino))
    register = DataStore._register

    def before_rename() -> None:
        (staging,) = (store.root / "results").glob(".vega.*.tmp")
        assert {staging.stat().st_ino, *(path.stat().st_ino for path in staging.iterdir())} <= synced

    def before_register(self: DataStore, *rest: Any) -> None:
        assert (store.root / "results").stat().st_ino in synced
        register(self, *rest)

    monkeypatch.setattr(DataStore, "_register", before_register)
    store.publish("results", "vega", "PSRESULTS", files, ["91"], before_rename)


def test_a_disk_that_fails_without_naming_a_file(store: DataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RetryableError) as refused:
        store.publish("results", "vega", "PSRESULTS", [], ["91"])
    assert str(refused.value) == f"data store {store.root}: fileset results/vega: Input/output error"


def test_a_link_in_the_place_of_a_fileset_is_replaced_and_not_followed(
    store: DataStore, files: list[StoredFile], tmp_path: Path
) -> None:
    path = store.publish("results", "vega", "PSRESULTS", files, ["91"])
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    store.publish("results", "vega", "PSRESULTS", files, ["91"])
    assert not path.is_symlink()
    assert len(list((tmp_path / "moved").iterdir())) == 4
    assert not [path for path in tree(store) if ".tmp" in path]


def test_a_failed_replacement_leaves_the_old_fileset(
    store: DataStore, files: list[StoredFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish("results", "vega", "PSRESULTS", files, ["91"])
    before = tree(store)

    def refuse(*_: object) -> None:
        raise RetryableError("no")

    monkeypatch.setattr(DataStore, "_register", refuse)
    with pytest.raises(RetryableError, match=r"^no$"):
        store.publish("results", "vega", "PSRESULTS", files[:1], ["91"])
    assert tree(store) == before


def test_what_the_caller_finds_before_the_rename_ends_the_call(store: DataStore, files: list[StoredFile]) -> None:
    before = tree(store)
    seen: list[set[str]] = []

    def lost() -> None:
        seen.extend({entry.name for entry in path.iterdir()} for path in (store.root / "results").glob(".vega.*.tmp"))
        raise LeaseLost("the lease is over")

    with pytest.raises(LeaseLost, match=r"^the lease is over$"):
        store.publish("results", "vega", "PSRESULTS", files, ["91"], lost)
    assert seen == [{*FIRST, "index.txt"}]
    assert tree(store) == before
    assert store.filesets("results") == []


def test_the_rename_and_the_indexes_are_written_in_turn(
    store: DataStore, files: list[StoredFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []
    write_text = filesets.write_text

    def note(what: str) -> None:
        with (store.root / ".lock").open("a") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(what)

    def noted(path: Path, text: str) -> None:
        note(str(path.relative_to(store.root)))
        write_text(path, text)

    monkeypatch.setattr(filesets, "write_text", noted)
    indexes = ["results/index.txt", "index.txt"]
    store.publish("results", "vega", "PSRESULTS", files, ["91"], lambda: note("rename"))
    assert held == ["rename", *indexes]
    store.withdraw("results", "vega")
    store.add_product("results", "psresults", "Others")
    for index in indexes:
        (store.root / index).unlink()
    store.rewrite_indexes()
    store.rewrite_indexes()  # nothing to write
    assert held == ["rename", *indexes * 4]


def _publish_some(root: Path, database: str, req_id: int, source: Path) -> None:
    store = DataStore(root, connect(database))
    for i in range(4):
        store.publish("results", f"{req_id}_{i}", "PSRESULTS", [measure(source, "table")], [str(req_id)])


def test_several_processes_publish_at_once(store: DataStore, files: list[StoredFile]) -> None:
    context = multiprocessing.get_context("spawn")
    database = str(store.database.database)
    workers = [
        context.Process(target=_publish_some, args=(store.root, database, req_id, files[0].path)) for req_id in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    listed = names(store)
    assert sorted(listed) == [f"{req_id}_{i}" for req_id in range(3) for i in range(4)]
    assert newest(store) == listed[-1]
    assert not [path for path in tree(store) if ".tmp" in path]


def test_an_unregistered_product_is_named_with_those_that_are(store: DataStore, files: list[StoredFile]) -> None:
    expected = "there is no product other in the data store (there are: results)"
    calls: list[Change] = [
        lambda: store.withdraw("other", "vega"),
        lambda: store.filesets("other"),
        lambda: store.files("other", "vega"),
        lambda: store.product_index("other"),
        lambda: store.fileset_index("other", "vega"),
        lambda: store.register("other", "vega", "PSRESULTS", files, (), "copy"),
        lambda: store.remove_product("other"),
    ]
    for call in calls:
        with pytest.raises(NotRegistered, match=f"^{re.escape(expected)}$"):
            call()
    with pytest.raises(RetryableError, match=f"^{re.escape(expected)}; dsprodtool adds one$") as refused:
        store.publish("other", "vega", "PSRESULTS", files, ["91"])
    assert refused.value.fault == Fault.PS_EXIT_CONFIG_ERROR
    assert not (store.root / "other").exists()


def test_hidden_filesets_are_not_listed_but_can_be_read(store: DataStore, files: list[StoredFile]) -> None:
    for name in ("a", "b", "c"):
        store.publish("results", name, "PSRESULTS", files, [name])
    dsFileset.update(hide=True).where(dsFileset.fileset_name == "b").execute()
    store.rewrite_indexes()
    assert names(store) == ["a", "c"]
    assert len(store.files("results", "b")) == 3
    store.withdraw("results", "c")
    assert newest(store) == "a"


def test_withdrawing_the_newest_makes_the_one_before_it_the_newest(store: DataStore, files: list[StoredFile]) -> None:
    for name in ("a", "b", "c"):
        store.publish("results", name, "PSRESULTS", files, [name])
    dsFileset.update(reg_time=LONG_AGO).execute()  # as in one second: the order of registration decides
    updated = dsProduct.get().last_update
    store.withdraw("results", "a")
    assert (names(store), newest(store)) == (["b", "c"], "c")
    store.withdraw("results", "c")
    assert (names(store), newest(store)) == (["b"], "b")
    store.withdraw("results", "b")
    assert (names(store), newest(store)) == ([], None)
    assert dsProduct.get().last_update == updated
    assert dsFile.select().count() == 0
    assert tree(store) == {"index.txt", "results", "results/index.txt"}
    assert all(file.path.is_file() for file in files)


def test_withdrawing_what_is_not_there(store: DataStore) -> None:
    store.withdraw("results", "vega")
    with pytest.raises(UserError, match=r"^there is no fileset vega in product results$"):
        store.withdraw("results", "vega", missing_ok=False)
    with pytest.raises(UserError, match=r"^there is no fileset vega in product results$"):
        store.files("results", "vega")


def test_a_withdrawn_name_can_be_used_by_another_request(store: DataStore, files: list[StoredFile]) -> None:
    store.publish("results", "vega", "PSRESULTS", files, ["91"])
    store.withdraw("results", "vega", missing_ok=False)
    store.publish("results", "vega", "PSRESULTS", files[:1], ["92"])
    assert store.filesets("results")[0].values[0] == "92"


def test_a_folder_of_somebody_else_is_not_touched(store: DataStore, files: list[StoredFile]) -> None:
    (store.root / "results" / "lost+found").mkdir()
    (store.root / "results" / "lost+found" / "inode").write_text("precious")
    before = tree(store)
    store.withdraw("results", "lost+found")
    with pytest.raises(RetryableError, match=r"is in the way and is no fileset: move it to another place$") as refused:
        store.publish("results", "lost+found", "PSRESULTS", files, ["91"])
    assert refused.value.fault == Fault.PS_EXIT_SYS_ERROR
    assert tree(store) == before


def test_what_dead_writers_left_is_swept_but_not_the_work_of_the_living(
    store: DataStore, files: list[StoredFile]
) -> None:
    product = store.root / "results"
    for name in (".vega.0a1b.tmp", ".vega.2.0a1b.tmp", ".vega.2.vega.0a1b.tmp", ".vega.2.tmp"):
        (product / name).mkdir()
        (product / name / "half").write_text("half")
    for name in (product / ".index.txt.4321.tmp", store.root / ".index.txt.4321.tmp"):
        name.write_text("half")
    store.publish("results", "vega", "PSRESULTS", files, ["91"])
    strays = sorted(path for path in tree(store) if path.endswith(".tmp"))
    assert strays == ["results/.vega.2.0a1b.tmp", "results/.vega.2.vega.0a1b.tmp"]
    store.publish("results", "vega.2", "PSRESULTS", files, ["92"])
    store.withdraw("results", "vega.2.vega")
    assert not [path for path in tree(store) if ".tmp" in path]


def test_a_linked_file_is_published_as_its_bytes(store: DataStore, files: list[StoredFile], tmp_path: Path) -> None:
    link = tmp_path / "link.fits"
    link.symlink_to(files[0].path)
    path = store.publish("results", "vega", "PSRESULTS", [measure(link, "table")], ["91"])
    assert not (path / "link.fits").is_symlink()


def test_files_are_copied_where_they_cannot_be_linked(
    store: DataStore, files: list[StoredFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_link)
    path = store.publish("results", "vega", "PSRESULTS", files, ["91"])
    assert [measure(path / file.name, file.type).md5 for file in files] == [file.md5 for file in files]
    assert os.stat(path / "results.fits").st_nlink == 1  # noqa: PTH116


def _grow(file: StoredFile) -> None:
    with file.path.open("a") as stream:
        stream.write("!")


def _flip(file: StoredFile) -> None:
    file.path.write_bytes(b"B" + file.path.read_bytes()[1:])


def _delete(file: StoredFile) -> None:
    file.path.unlink()


def _is_a_folder(file: StoredFile) -> None:
    file.path.unlink()
    file.path.mkdir()


@pytest.mark.parametrize(
    ("change", "now"),
    [
        (_grow, r"has 21 bytes, md5 [0-9a-f]{32}"),
        (_flip, r"has 20 bytes, md5 [0-9a-f]{32}"),
        (_delete, "is no file"),
        (_is_a_folder, "is no file"),
    ],
)
def test_a_file_that_changed_is_not_published(
    store: DataStore, files: list[StoredFile], change: Callable[[StoredFile], None], now: str
) -> None:
    change(files[1])
    before = tree(store)
    with pytest.raises(RetryableError) as refused:
        store.publish("results", "vega", "PSRESULTS", files, ["91"])
    assert refused.value.fault == Fault.PS_EXIT_DATA_ERROR
    tail = f"; expected 20 bytes, md5 {files[1].md5}, as it was measured"
    assert re.fullmatch(re.escape(f"file {files[1].path} ") + now + re.escape(tail), str(refused.value))
    assert tree(store) == before


NO_NAMES = ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a|b", "a#b", "ä", "a\n", "x" * 65, "index.txt"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused(store: DataStore, name: str) -> None:
    calls: list[Change] = [
        lambda: store.publish("results", name, "PSRESULTS", [], ["91"]),
        lambda: store.withdraw("results", name),
        lambda: store.publish(name, "vega", "PSRESULTS", [], ["91"]),
        lambda: store.add_product(name, "psresults", ""),
        lambda: store.add_product("other", name, ""),
    ]
    before = tree(store)
    for call, what in zip(calls, ["fileset", "fileset", "product", "product", "product type"], strict=True):
        with pytest.raises(UserError) as refused:
            call()
        assert refused.value.fault == Fault.PSTAMP_INVALID_REQUEST
        assert str(refused.value) == (
            f"{what} {name!r}: expected a name of 1 to 64 letters, digits and -+_.: that starts with no dot and is not "
            "index.txt"
        )
    assert tree(store) == before


def test_a_product_that_leads_out_of_the_root_is_refused(store: DataStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (store.root / "other").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of"):
        store.add_product("other", "psresults", "")


@pytest.mark.parametrize(
    ("description", "labels", "message"),
    [
        ("x" * 256, (), "product other: description of 256 characters, expected at most 255"),
        ("", ("",), "product other: labels [''], expected at most 8 of 1 to 64 characters"),
        ("", ("x" * 65,), f"product other: labels ['{'x' * 65}'], expected at most 8 of 1 to 64 characters"),
        ("", "123456789", f"product other: labels {list('123456789')}, expected at most 8 of 1 to 64 characters"),
    ],
)
def test_a_product_that_does_not_fit_the_registry_is_refused(
    store: DataStore, description: str, labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError) as refused:
        store.add_product("other", "psresults", description, labels)
    assert str(refused.value) == message


@pytest.mark.parametrize("name", ["", ".a", "a/b", "a|b", "a#b", "a b", "x" * 256, "index.txt", "results.fits"])
def test_a_file_name_that_no_index_can_hold_is_a_bug(store: DataStore, files: list[StoredFile], name: str) -> None:
    wrong = StoredFile(files[1].path, name, "table", files[1].bytes, files[1].md5)
    before = tree(store)
    with pytest.raises(Bug) as refused:
        store.publish("results", "vega", "PSRESULTS", [files[0], wrong], ["91"])
    assert str(refused.value) == f"fileset results/vega: file name {name!r} is no plain name or occurs twice"
    assert tree(store) == before


@pytest.mark.parametrize("kind", ["", "a|b", "a b", "x" * 65])
def test_a_type_that_no_index_can_hold_is_a_bug(store: DataStore, files: list[StoredFile], kind: str) -> None:
    expected = re.escape(f"fileset results/vega: type {kind!r}, expected 1 to 64 letters, digits and -+_.:")
    with pytest.raises(Bug, match=f"^{expected}$"):
        store.publish("results", "vega", kind, files, ["91"])
    wrong = StoredFile(files[0].path, "a", kind, files[0].bytes, files[0].md5)
    with pytest.raises(Bug, match=f"^{expected}$"):
        store.publish("results", "vega", "PSRESULTS", [wrong], ["91"])


@pytest.mark.parametrize("values", [["91", ""], ["x" * 65], list("123456789")])
def test_values_that_do_not_fit_the_registry_are_a_bug(store: DataStore, values: list[str]) -> None:
    with pytest.raises(Bug) as refused:
        store.publish("results", "vega", "PSRESULTS", [], values)
    assert str(refused.value) == f"fileset results/vega: values {values}, expected at most 8 of 1 to 64 characters"


def test_what_is_published_belongs_to_a_request(store: DataStore) -> None:
    with pytest.raises(Bug, match=r"^fileset results/vega: values \[\], expected the request's number first$"):
        store.publish("results", "vega", "PSRESULTS", [], [])


def test_no_file_takes_part_in_a_transaction(store: DataStore, files: list[StoredFile]) -> None:
    def work() -> None:
        store.publish("results", "vega", "PSRESULTS", files, ["91"])

    with pytest.raises(Bug, match=r"fileset results/vega: called within a transaction, which a file can't be part of$"):
        unit_of_work(store.database, TABLES, work)
    assert not (store.root / "results" / "vega").exists()


def test_a_store_whose_folder_is_gone_is_not_made_anew(store: DataStore, tmp_path: Path) -> None:
    store.root.rename(tmp_path / "unmounted")
    with pytest.raises(RetryableError) as refused:
        store.publish("results", "vega", "PSRESULTS", [], ["91"])
    assert str(refused.value) == (
        f"data store {store.root}: fileset results/vega: No such file or directory ({store.root}/.lock)"
    )
    assert refused.value.fault == Fault.PS_EXIT_SYS_ERROR
    assert not store.root.exists()


def test_the_registry_itself_keeps_names_unique(store: DataStore, files: list[StoredFile]) -> None:
    store.publish("results", "vega", "PSRESULTS", files, ["91"])
    with pytest.raises(IntegrityError, match="UNIQUE"):
        dsFileset.create(product=1, fileset_name="vega", reg_time=LONG_AGO)
    with pytest.raises(IntegrityError, match="UNIQUE"):
        dsProduct.create(prod_name="results", last_update=LONG_AGO, type="psresults")


def test_a_registry_without_tables_is_a_readable_error(tmp_path: Path) -> None:
    with pytest.raises(PstampError, match=r"no such table: dsFileType$") as refused:
        DataStore(tmp_path / "ds", SqliteDatabase(str(tmp_path / "empty.db"))).add_product("results", "psresults", "")
    assert refused.value.fault == Fault.PS_EXIT_SYS_ERROR


def test_rows_of_an_older_registry_without_type_are_listed(store: DataStore, files: list[StoredFile]) -> None:
    path = store.publish("results", "vega", "PSRESULTS", files[:1], ["91"])
    dsFileset.update(type=None).execute()
    dsFile.update(type=None, type_col_0="own").execute()
    store.rewrite_indexes()
    (listed,) = read_product_index((store.root / "results" / "index.txt").read_text())
    (file,) = read_fileset_index((path / "index.txt").read_text())
    assert (listed.type, file.type, file.values) == ("notset", "notset", ("own",))
    assert store.file("results", "vega", "results.fits")[0] == replace(
        files[0], path=path / "results.fits", type="notset"
    )


def test_indexes_are_rewritten_for_what_is_on_disk(store: DataStore, files: list[StoredFile]) -> None:
    path = store.publish("results", "vega", "PSRESULTS", files, ["91"])
    dsFileset.create(product=1, fileset_name="gone", reg_time=LONG_AGO, type="PSRESULTS")
    dsProduct.update(description="New").execute()
    dsFileType.update(type_col_0="part").where(dsFileType.type == "text").execute()
    (path / "index.txt").unlink()
    store.rewrite_indexes()
    assert names(store) == ["vega", "gone"]
    assert not (store.root / "results" / "gone").exists()
    assert "|New " in (store.root / "index.txt").read_text()
    assert "|part    |\n" in (path / "index.txt").read_text()
    assert read_fileset_index((path / "index.txt").read_text()) == store.files("results", "vega")


def test_indexes_that_are_not_what_the_registry_says_are_found(store: DataStore, files: list[StoredFile]) -> None:
    vega, lyra = (store.publish("results", name, "PSRESULTS", files, [name]) for name in ("vega", "lyra"))
    assert store.stale_indexes() == []
    before = tree(store)
    (vega / "index.txt").write_bytes(b"\xff|")
    (store.root / "results" / "index.txt").unlink()
    dsProduct.update(description="New").execute()
    stale = [vega / "index.txt", store.root / "results" / "index.txt", store.root / "index.txt"]
    assert store.stale_indexes() == stale
    store.rewrite_indexes()
    assert store.stale_indexes() == []
    assert tree(store) == before
    shutil.rmtree(lyra)
    assert store.stale_indexes() == []


def test_what_is_published_while_one_looks_is_not_stale(
    store: DataStore, files: list[StoredFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish("results", "vega", "PSRESULTS", files, ["91"])
    read = filesets._read

    def slow(path: Path) -> str | None:
        text = read(path)
        monkeypatch.undo()
        store.publish("results", "vega", "PSRESULTS", files[:1], ["91"])
        store.publish("results", "lyra", "PSRESULTS", files, ["92"])
        return text

    monkeypatch.setattr(filesets, "_read", slow)
    assert store.stale_indexes() == []


def test_a_folder_that_is_in_no_registry_is_found(store: DataStore, files: list[StoredFile]) -> None:
    vega = store.publish("results", "vega", "PSRESULTS", files, ["91"])
    (store.root / "results" / "own").mkdir()
    shutil.copytree(vega, store.root / "results" / ".vega.being-staged.tmp")
    assert store.unlisted() == []
    shutil.copytree(vega, store.root / "results" / "copy")
    assert store.unlisted() == [store.root / "results" / "copy"]
