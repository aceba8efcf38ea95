"""Version 0: the original schema of IPP's `ippRequestServer` (`pxadmin_create_tables.sql`, `dbconfig/pstamp.md`).

IPP runs on MySQL only. The form for SQLite is a translation with the same columns, for whoever goes down on SQLite.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Iterator

from peewee import Database, MySQLDatabase

TABLES: dict[str, str] = {
    "pstampDataStore": """
        ds_id BIGINT AUTO_INCREMENT PRIMARY KEY, state VARCHAR(64), lastFileset VARCHAR(64), timestamp DATETIME,
        label VARCHAR(64), outProduct VARCHAR(64) UNIQUE, uri VARCHAR(255), pollInterval INT DEFAULT 60,
        need_magic TINYINT""",
    "pstampProject": """
        proj_id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(64) UNIQUE, state VARCHAR(64), dbname VARCHAR(64),
        dvodb VARCHAR(64), camera VARCHAR(64), telescope VARCHAR(64), need_magic TINYINT""",
    "pstampRequest": """
        req_id BIGINT AUTO_INCREMENT PRIMARY KEY, ds_id BIGINT, state VARCHAR(64), name VARCHAR(64) UNIQUE,
        reqType VARCHAR(16), label VARCHAR(64), outProduct VARCHAR(64), uri VARCHAR(255), outdir VARCHAR(255),
        username VARCHAR(255), proj_id BIGINT, registered DATETIME,
        timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, fault SMALLINT""",
    "pstampDependent": """
        dep_id BIGINT AUTO_INCREMENT PRIMARY KEY, state VARCHAR(64), stage VARCHAR(64), stage_id BIGINT,
        component VARCHAR(64), imagedb VARCHAR(64), outdir VARCHAR(255), rlabel VARCHAR(64), need_magic TINYINT,
        fault SMALLINT, fault_count INT""",
    "pstampJob": """
        job_id BIGINT NOT NULL AUTO_INCREMENT, req_id BIGINT NOT NULL, rownum VARCHAR(64), state VARCHAR(64),
        jobType VARCHAR(16), fault SMALLINT, exp_id BIGINT, outputBase VARCHAR(255), options BIGINT, dep_id BIGINT,
        fault_count INT, parent_id BIGINT, is_parent TINYINT DEFAULT 0, PRIMARY KEY (job_id, req_id),
        FOREIGN KEY (req_id) REFERENCES pstampRequest (req_id)""",
    "pstampWebRequest": "num BIGINT AUTO_INCREMENT PRIMARY KEY",
    "pstampFile": "file_id BIGINT AUTO_INCREMENT PRIMARY KEY, job_id BIGINT NOT NULL, path VARCHAR(255)",
    "pstampUserDomain": """
        domainName VARCHAR(64) NOT NULL PRIMARY KEY, accessLevel INT, defaultProduct VARCHAR(255),
        defaultLabel VARCHAR(64)""",
    "pstampUser": """
        userName VARCHAR(64) NOT NULL, domainName VARCHAR(64) NOT NULL, accessLevel INT, defaultProduct VARCHAR(255),
        defaultLabel VARCHAR(64), PRIMARY KEY (userName, domainName)""",
    "pstampAccessLevel": """
        proj_id BIGINT NOT NULL, accessLevel INT NOT NULL, mjd_min FLOAT DEFAULT 0, mjd_max FLOAT DEFAULT 0,
        PRIMARY KEY (proj_id, accessLevel), FOREIGN KEY (proj_id) REFERENCES pstampProject (proj_id)""",
    "Label": "label VARCHAR(64) NOT NULL PRIMARY KEY, priority INT, active TINYINT, comment VARCHAR(80)",
}
"""The tables with their columns; a table stands after those it refers to."""

_INDEXES = {
    "pstampRequest": ("state", "label", "username", "fault"),
    "pstampDependent": ("state", "stage", "stage_id", "component", "imagedb", "fault"),
    "pstampJob": ("job_id", "req_id", "state", "fault", "dep_id", "parent_id", "is_parent"),
    "pstampFile": ("job_id",),
    "Label": ("priority", "active"),
}

UNIQUE = {
    "pstampDataStore": ("outProduct",),
    "pstampProject": ("name",),
    "pstampRequest": ("name",),
    "pstampUserDomain": ("domainName",),
    "pstampUser": ("domainName", "userName"),
    "Label": ("label",),
}
"""The text columns of each table that must differ together; the last one can be changed."""


def columns(table: str) -> set[str]:
    """Return the names of a table's columns."""
    types = "BIGINT|INT|SMALLINT|TINYINT|FLOAT|DATETIME|TIMESTAMP|VARCHAR"
    return set(re.findall(rf"(\w+) (?:{types})\b", TABLES[table]))


def statements(db: Database) -> Iterator[str]:
    """Yield the statements that make the tables, on the engine of `db`."""
    mysql = isinstance(db, MySQLDatabase)
    for table, columns in TABLES.items():
        text = " ".join(columns.split())
        if mysql:
            yield f"CREATE TABLE {table} ({text}) ENGINE=InnoDB DEFAULT CHARSET=latin1 COLLATE=latin1_swedish_ci"
        else:
            text = text.replace("BIGINT AUTO_INCREMENT PRIMARY KEY", "INTEGER PRIMARY KEY").replace(
                " AUTO_INCREMENT", ""
            )
            text = re.sub(r"VARCHAR.[0-9]+.", r"\g<0> COLLATE NOCASE", text)
            yield f"CREATE TABLE {table} ({text})"
        for column in _INDEXES.get(table, ()):
            yield f"CREATE INDEX {table}_{column} ON {table} ({column})"


_SWEDISH = str.maketrans({"ü": "y", "ð": "d", "å": "[", "ä": "\\", "æ": "\\", "ö": "]"})
"""Equal by latin1_swedish_ci, besides letters that differ in case or accent: the last four by Sweden's 7-bit code."""


def fold(text: str) -> str:
    """Return what `text` compares by in the original schema: without case, accents and blanks at the end.

    Texts that are equal under latin1_swedish_ci fold alike, and a few others, whose letters latin1 itself lacks.
    """
    lower = text.rstrip(" ").lower().translate(_SWEDISH)
    return "".join(letter for letter in unicodedata.normalize("NFKD", lower) if not unicodedata.combining(letter))


def latin1(text: str) -> str:
    """Return `text` with ? for what MySQL's latin1 (Windows code page 1252) does not have."""
    return text.encode("cp1252", "replace").decode("cp1252")


def as_printed(number: float) -> float:
    """Return the shortest decimal that is `number` in single precision; `number` itself if it is more precise.

    A FLOAT column gives 57000.12109375 for the 57000.12 that was put in.
    """
    try:
        single = struct.pack("f", number)
    except OverflowError:
        return number
    if struct.unpack("f", single)[0] != number:
        return number
    shortest = (float(f"{number:.{digits}g}") for digits in range(6, 10))
    return next(each for each in shortest if struct.pack("f", each) == single)
