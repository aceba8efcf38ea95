"""`pstamp_listjobs`: the jobs of a request."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home, server_of

app = console.new_app()


@app.command()
def pstamp_listjobs(
    req_id: Annotated[int, typer.Argument(help="The request's number.")],
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
) -> None:
    """Print a line for each job of a request: job_id, state, fault, request name, outProduct, outputBase.

    What lies below a directory dsroot is given by its path in the data store, /ds/...

    Example: pstamp_listjobs 3
    """
    from pstamp_core.tasks.views import cell, jobs_of

    for row in jobs_of(server_of(home, dbname=dbname, dbserver=dbserver), req_id).rows:
        print(" ".join(map(cell, row)))


def main() -> None:
    """Run `pstamp_listjobs`."""
    console.main(app)
