"""`pstamp_checkdependent`: look at what jobs wait for."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home
from runners.task import FROM_ROW, LARGEST, Limit, NoUpdate, Redirect, Verbose, do

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command()
def pstamp_checkdependent(
    dep_id: Annotated[
        int | None,
        typer.Option("--dep_id", min=1, max=LARGEST, help="The dependent's number.", show_default="from the queue"),
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
            "--stage_id",
            "--stage",
            "--component",
            "--imagedb",
            "--rlabel",
            "--label",
            "--fault_count",
            "--max_fault_count",
            "--logfile",
            help=FROM_ROW,
        ),
    ] = None,
    flags: Annotated[
        bool, typer.Option("--need_magic", "--parse-verbose", "--save-temps", help="No effect; taken for old callers.")
    ] = False,
) -> None:
    """Look whether an image that jobs wait for is there, or gone; checkdep.<dep_id>.log tells what was found.

    Ends in 0 when the dependent is full, waits, or was closed with its jobs; in its code when the look failed (1-9).
    What another works on, or nobody waits for, is left alone, with a line that says why.

    Example: pstamp_checkdependent --dep_id 7
    """
    from pstamp_core.tasks.one import CHECK

    del from_row, flags
    do(
        CHECK, dep_id, limit, home=home, dbname=dbname, dbserver=dbserver, no_update=no_update,
        redirect_output=redirect_output, verbose=verbose,
    )  # fmt: skip


def main() -> None:
    """Run `pstamp_checkdependent`."""
    console.main(app)
