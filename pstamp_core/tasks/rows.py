"""Requests of programs that send rows instead of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pstamp_core.faults import Fault
from pstamp_core.formats import Finding, RequestRow, RequestTable, write_request
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.submit import check_file

__all__ = ["Finding", "RequestTable", "check_table", "request_of"]


def request_of(account: Account, rows: Sequence[Mapping[str, Any]], *, preview: bool = False) -> RequestTable:
    """Return the request of some rows; its name is not known yet.

    Parameters
    ----------
    account : Account
        Who sends it.
    rows : sequence of mapping
        What was given of each row, by the names of the columns, with the right types; ROWNUM is the row's place where
        it is missing.
    preview : bool
        Whether it is to be accepted before anything is cut (ACTION PREVIEW).
    """
    made = (
        RequestRow(**{"rownum": n, **{column.lower(): value for column, value in row.items()}})
        for n, row in enumerate(rows, 1)
    )
    return RequestTable("", 2, "PREVIEW" if preview else "PROCESS", account.email, tuple(made))


def check_table(server: Server, account: Account, table: RequestTable, prefix: str) -> list[Finding]:
    """Return all that is wrong with a request that is to be named ``<prefix>_<number>``, as `check_file` does.

    Raises
    ------
    UserError
        The prefix is none that can be, or a value does not fit its column.
    """
    with TemporaryDirectory() as folder:
        # What is looked at is what would be read: null, blanks and small letters are seen to by the reader.
        file = Path(folder) / "request"
        write_request(file, replace(table, req_name=f"{prefix}_1234567890"))
        found = check_file(server, file, account)
    # It will have a name that nobody has, whoever may have this one.
    return [each for each in found if each.fault != Fault.PSTAMP_DUP_REQUEST]
