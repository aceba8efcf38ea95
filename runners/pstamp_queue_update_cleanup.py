"""`pstamp_queue_update_cleanup`: put images away that were made again, and are not needed any more."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home, exit_code, plain, server_of

app = console.new_app()


@app.command()
def pstamp_queue_update_cleanup(
    imagedb: Annotated[
        str | None,
        typer.Option("--imagedb", help="One image database, as its project has it.", show_default="all"),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            help="Only runs under labels like this, such as ps_ud%.",
            show_default="ps_ud%, and what was made again and has its own label back",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1_000_000, help="Runs of each image database, at most.")
    ] = 1000,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
) -> None:
    """Set chip, warp and diff runs goto_cleaned that were made again for jobs, when no job needs anything of them.

    Prints how many there are of each image database, and how many are kept. An image database that does not answer is a
    line on standard error, and does not keep the others from being looked at; then the exit code is that of the first.

    Example: pstamp_queue_update_cleanup --label ps_ud%
    """  # fmt: skip
    from pstamp_core.tasks.update_cleanup import queue_update_cleanup

    found = queue_update_cleanup(server_of(home, dbname=dbname, dbserver=dbserver), limit, imagedb, label)
    for each in found:
        if each.trouble:
            print(plain(f"pstamp: {each.imagedb}: {each.trouble}"), file=sys.stderr)
            continue
        kept = f"kept: {each.needed} needed by jobs, {each.recent} made lately"
        later = f", {each.later} for the next time" if each.later else ""
        print(plain(f"{each.imagedb}: runs to be cleaned: {each.queued}; {kept}{later}"))
    raise typer.Exit(next((exit_code(each.trouble) for each in found if each.trouble), 0))


def main() -> None:
    """Run `pstamp_queue_update_cleanup`."""
    console.main(app)
