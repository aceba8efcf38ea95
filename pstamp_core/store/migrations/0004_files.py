"""Schema 4: the data store's registry keeps the name of a file unique within its fileset.

Where the data store's tables are not in this database there is nothing to do. Each statement is by itself on MySQL, so
that the step looks what is there already.
"""

from __future__ import annotations

from typing import Any

from peewee import MySQLDatabase

from pstamp_core.store.migrations import sql

INDEX = "dsFile_fileset_id_file_name"


def up(migrator: Any, db: Any) -> None:
    """Make version 4 of version 3; of two files of one name, which only a hand can have made, the later stays."""
    if "dsFile" not in sql.names(db) or _is_there(db):
        return
    for row in sql.select(
        db,
        "SELECT a.file_id, a.fileset_id, a.file_name, MAX(b.file_id) AS later FROM dsFile a JOIN dsFile b "
        "ON b.fileset_id = a.fileset_id AND b.file_name = a.file_name AND b.file_id > a.file_id "
        "GROUP BY a.file_id, a.fileset_id, a.file_name ORDER BY a.file_id",
    ):
        sql.run(db, "DELETE FROM dsFile WHERE file_id = ?", row["file_id"])
        migrator.report.say(
            f"dsFile {row['file_id']}: removed: fileset {row['fileset_id']} has {row['file_name']} again as "
            f"{row['later']}"
        )
    sql.run(db, f"CREATE UNIQUE INDEX {INDEX} ON dsFile (fileset_id, file_name)")


def down(migrator: Any, db: Any) -> None:
    """Make version 3 of version 4."""
    del migrator
    if "dsFile" in sql.names(db) and _is_there(db):
        sql.run(db, f"DROP INDEX {INDEX}" + " ON dsFile" * isinstance(db, MySQLDatabase))


def _is_there(db: Any) -> bool:
    return INDEX in {index.name for index in db.get_indexes("dsFile")}
