"""`pstamp_revert_request`: have a faulted request tried again."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home, server_of
from runners.task import LARGEST

app = console.new_app()


@app.command()
def pstamp_revert_request(
    req_id: Annotated[
        int, typer.Option("--req_id", min=1, max=LARGEST, help="The request's number.", show_default=False)
    ],
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
) -> None:
    """Have a faulted request tried again, after taking back the fileset that it published, if it did.

    Example: pstamp_revert_request --req_id 3
    """
    from pstamp_core.tasks.finish import revert_request

    taken_back = revert_request(server_of(home, dbname=dbname, dbserver=dbserver), req_id, getpass.getuser())
    print(f"request {req_id} is tried again; {'its fileset was taken back' if taken_back else 'it had no fileset'}")


def main() -> None:
    """Run `pstamp_revert_request`."""
    console.main(app)
