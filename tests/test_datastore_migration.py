"""Schema 4: names of files are unique in the registry, up and down, on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import mariadb
import pytest
from peewee import IntegrityError

from pstamp_core.database import create_tables, session
from pstamp_core.datastore import TABLES
from pstamp_core.datastore.tables import dsFile, dsFileset, dsProduct
from pstamp_core.store import Store
from pstamp_core.store.migrations import migrate


@pytest.fixture
def store(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A new server's database, with a fileset that has a file."""
    if engine == "sqlite":
        yield made(str(tmp_path / "pstamp.db"))
    else:
        with mariadb.database(request.getfixturevalue("mysql_server")) as address:
            yield made(address)


def made(address: str) -> Store:
    store = Store(address)
    store.create()
    with session(store.db, TABLES):
        create_tables(store.db, TABLES)
        now = datetime.now(UTC)
        product = dsProduct.create(prod_name="p", last_update=now, type="t")
        for name in ("f", "g"):
            dsFileset.create(product=product, fileset_name=name, reg_time=now)
        add("a.fits", 1)
    return store


def add(name: str, size: int, fileset: int = 1) -> None:
    dsFile.create(fileset=fileset, file_name=name, bytes=size, md5sum="")


def rows(store: Store) -> list[tuple[object, ...]]:
    with session(store.db, TABLES):
        return list(dsFile.select(dsFile.fileset, dsFile.file_name, dsFile.bytes).order_by(dsFile.file_id).tuples())


def test_a_name_is_unique_after_the_step_up_only(store: Store) -> None:
    assert migrate(store, 3).lines == []
    with session(store.db, TABLES):
        for name, size, fileset in (
            ("b.fits", 2, 1),
            ("a.fits", 3, 1),
            ("a.fits", 4, 2),
            ("A.fits", 5, 1),
            ("a.fits", 6, 1),
        ):
            add(name, size, fileset)
    assert migrate(store).lines == [
        "dsFile 1: removed: fileset 1 has a.fits again as 6",
        "dsFile 3: removed: fileset 1 has a.fits again as 6",
    ]
    left = [(1, "b.fits", 2), (2, "a.fits", 4), (1, "A.fits", 5), (1, "a.fits", 6)]
    assert rows(store) == left
    with session(store.db, TABLES), pytest.raises(IntegrityError, match=r"UNIQUE|Duplicate"):
        add("a.fits", 7)
    for version in (3, 4):
        assert migrate(store, version).lines == []
        assert rows(store) == left
    with session(store.db, TABLES), pytest.raises(IntegrityError, match=r"UNIQUE|Duplicate"):
        add("a.fits", 7)


def test_a_new_registry_has_the_index_that_the_step_makes(store: Store) -> None:
    def indexes() -> list[tuple[object, ...]]:
        with session(store.db, TABLES):
            return sorted((each.name, tuple(each.columns), each.unique) for each in store.db.get_indexes("dsFile"))

    before = indexes()
    migrate(store, 3)
    assert len(indexes()) == len(before) - 1
    migrate(store)
    assert indexes() == before


def test_a_step_that_was_done_but_not_marked_is_taken_again(store: Store) -> None:
    with session(store.db, ()):
        store.db.execute_sql("DELETE FROM pstampSchema WHERE name = '0004_files'")
    assert migrate(store).lines == []
    migrate(store, 3)
    with session(store.db, ()):
        store.db.execute_sql(
            "INSERT INTO pstampSchema (name, applied) SELECT '0004_files', applied FROM pstampSchema LIMIT 1"
        )
    assert migrate(store, 3).after == 3


def test_a_database_without_a_registry_is_left_alone(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "pstamp.db"))
    store.create()
    for version in (3, 4):
        assert migrate(store, version).lines == []
