"""`request_finish`: publish the results of a request."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home
from runners.task import FROM_ROW, LARGEST, Limit, NoUpdate, Redirect, Verbose, do

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command()
def request_finish(
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
            "--req_type",
            "--req_file",
            "--req_name",
            "--product",
            "--outdir",
            help=FROM_ROW,
        ),
    ] = None,
    save_temps: Annotated[bool, typer.Option("--save-temps", help="No effect: there are no temporary files.")] = False,
) -> None:
    """Publish the results of a request that has no open job; reqfinish.<req_id>.log tells how it went.

    Ends in 0 when the request is stopped, in its code when that failed (1-9). What another works on, or is not to be
    finished yet, is left alone, with a line that says why.

    Example: request_finish --req_id 3
    """
    from pstamp_core.tasks.one import FINISH

    del from_row, save_temps
    do(
        FINISH, req_id, limit, home=home, dbname=dbname, dbserver=dbserver, no_update=no_update,
        redirect_output=redirect_output, verbose=verbose,
    )  # fmt: skip


def main() -> None:
    """Run `request_finish`."""
    console.main(app)
