"""Schema 2: other indexes on `pstampJob`, so that each queue finds what waits without a look at what does not.

Each statement is by itself on MySQL, so that a step looks what is there already. The new ones come first: the foreign
key needs one that begins with ``req_id`` at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pstamp_core.store.migrations import sql

OLD = {
    "pstampJob_req_id": "req_id",
    "pstampJob_dep_id": "dep_id",
    "pstampJob_req_id_state_fault_lease_owner_job_id_dep_id_retry_at": (
        "req_id, state, fault, lease_owner, job_id, dep_id, retry_at"
    ),
}
NEW = {
    "pstampJob_req_id_state_dep_id": "req_id, state, dep_id",
    "pstampJob_dep_id_state_req_id": "dep_id, state, req_id",
    "pstampJob_parent_id_state_req_id": "parent_id, state, req_id",
    "pstampJob_fault_req_id_state_lease_owner_job_id_dep_id_r_f046bd7": (
        "fault, req_id, state, lease_owner, job_id, dep_id, retry_at, is_parent"
    ),
}


def up(migrator: Any, db: Any) -> None:
    """Make version 2 of version 1."""
    del migrator
    _replace(db, OLD, NEW)


def down(migrator: Any, db: Any) -> None:
    """Make version 1 of version 2."""
    del migrator
    _replace(db, NEW, OLD)


def _replace(db: Any, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    there = {index.name for index in db.get_indexes("pstampJob")}
    quote = db.quote[0]
    for name, listed in new.items():
        if name not in there:
            columns = ", ".join(f"{quote}{column}{quote}" for column in listed.split(", "))
            sql.run(db, f"CREATE INDEX {quote}{name}{quote} ON {quote}pstampJob{quote} ({columns})")
    for name in old:
        if name in there:
            table = f" ON {quote}pstampJob{quote}" if quote == "`" else ""
            sql.run(db, f"DROP INDEX {quote}{name}{quote}{table}")
