"""`pstamp_parser_run`: parse a request."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home
from runners.task import FROM_ROW, LARGEST, Limit, NoUpdate, Redirect, Verbose, do

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command()
def pstamp_parser_run(
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
            "--outdir",
            "--label",
            help=FROM_ROW,
        ),
    ] = None,
    need_magic: Annotated[bool, typer.Option("--need_magic", help=FROM_ROW)] = False,
) -> None:
    """Parse a request file into jobs; psparse.<req_id>.log in the request's work directory tells how it went.

    Ends in 0 when the outcome is on the request, also when that is a fault. What another works on, or is not to be
    parsed, is left alone, with a line that says why.

    Example: pstamp_parser_run --req_id 3
    """
    from pstamp_core.tasks.one import PARSE

    del from_row, need_magic
    do(
        PARSE, req_id, limit, home=home, dbname=dbname, dbserver=dbserver, no_update=no_update,
        redirect_output=redirect_output, verbose=verbose, fault_ends=False,
    )  # fmt: skip


def main() -> None:
    """Run `pstamp_parser_run`."""
    console.main(app)
