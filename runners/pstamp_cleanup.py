"""`pstamp_cleanup`: delete the files of a request."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home
from runners.task import FROM_ROW, LARGEST, Limit, NoUpdate, Redirect, Verbose, do

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command()
def pstamp_cleanup(
    req_id: Annotated[
        int | None,
        typer.Option("--req_id", min=1, max=LARGEST, help="The request's number.", show_default="from the queue"),
    ] = None,
    limit: Limit = 1,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
    no_update: NoUpdate = False,
    redirect_output: Redirect = False,
    verbose: Verbose = False,
    from_row: Annotated[
        list[str] | None,
        typer.Option(
            "--uri",
            "--product",
            "--name",
            "--outdir",
            "--reqType",
            help=FROM_ROW,
        ),
    ] = None,
) -> None:
    """Delete the fileset and the work directory of a request in state goto_cleaned; its rows and history stay.

    Ends in 0 when the request is cleaned, in its code when that failed (1-9). What another works on, or is not to be
    deleted, is left alone, with a line that says why. There is no log file, since that would be deleted too.

    Example: pstamp_cleanup --req_id 3
    """
    from pstamp_core.tasks.one import CLEAN

    del from_row
    do(
        CLEAN, req_id, limit, home=home, dbname=dbname, dbserver=dbserver, no_update=no_update,
        redirect_output=redirect_output, verbose=verbose,
    )  # fmt: skip


def main() -> None:
    """Run `pstamp_cleanup`."""
    console.main(app)
