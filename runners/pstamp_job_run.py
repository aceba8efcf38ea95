"""`pstamp_job_run`: cut stamps."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home
from runners.task import FROM_ROW, LARGEST, Limit, NoUpdate, Redirect, Verbose, do

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command()
def pstamp_job_run(
    job_id: Annotated[
        int | None,
        typer.Option("--job_id", min=1, max=LARGEST, help="The job's number.", show_default="from the queue"),
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
            "--job_type",
            "--rownum",
            "--output_base",
            "--options",
            help=FROM_ROW,
        ),
    ] = None,
    save_temps: Annotated[bool, typer.Option("--save-temps", help="No effect: there are no temporary files.")] = False,
) -> None:
    """Cut the stamps of a job, or of several jobs image by image; <output_base>.log tells how each went.

    Ends in 0 when the job is done or has its answer (10 and up), in its code when the fault is ours (1-9). What another
    works on, or can't run now, is left alone, with a line that says why.

    Example: pstamp_job_run --job_id 12
    """
    from pstamp_core.tasks.one import RUN

    del from_row, save_temps
    do(
        RUN, job_id, limit, home=home, dbname=dbname, dbserver=dbserver, no_update=no_update,
        redirect_output=redirect_output, verbose=verbose,
    )  # fmt: skip


def main() -> None:
    """Run `pstamp_job_run`."""
    console.main(app)
