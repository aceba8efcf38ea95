"""`pstamp_insert_request`: queue an uploaded request file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home, server_of

app = console.new_app()


@app.command()
def pstamp_insert_request(
    tmp_req_file: Annotated[Path, typer.Option("--tmp_req_file", help="The file as it was uploaded.")],
    workdir: Annotated[
        Path | None, typer.Option("--workdir", help="A copy goes to webreq/ in it.", show_default="the server's")
    ] = None,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Taken for the sake of old callers.")] = False,
) -> None:
    """Queue an uploaded request file under the label WEB.UP; prints the request's number and its name, a line each.

    Ends in 5 for what is no request file, and for a name that is not allowed or in use.

    Example: pstamp_insert_request --tmp_req_file /tmp/upload.fits --workdir /data/pstamp/work
    """
    from pstamp_core.tasks.submit import insert_request

    del verbose
    number, name = insert_request(server_of(home, dbname=dbname, dbserver=dbserver), tmp_req_file, workdir)
    print(f"{number}\n{name}")


def main() -> None:
    """Run `pstamp_insert_request`."""
    console.main(app)
