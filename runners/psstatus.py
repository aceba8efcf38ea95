"""`psstatus`: what the postage stamp server works on, and what it has finished."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home, server_of

app = console.new_app()


@app.command()
def psstatus(
    running: Annotated[bool, typer.Option("--running", "-r", help="What is worked on; the default.")] = False,
    finished: Annotated[bool, typer.Option("--finished", "-f", help="What was finished in the last day.")] = False,
    finishing: Annotated[bool, typer.Option("--finishing", help="What is done but not published yet.")] = False,
    totals: Annotated[bool, typer.Option("--totals", "-t", help="Unfinished jobs of each label.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-l", min=1, help="Requests shown of each.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Accepted; there is no more to say.")] = False,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
) -> None:
    """Show tables of requests, framed as MySQL's client does. Several options give several tables.

    Example: psstatus -t -r -l 20
    """
    del verbose
    if running and finished:
        raise typer.BadParameter("--running and --finished exclude each other")
    from pstamp_core.tasks import views

    server = server_of(home, dbname=dbname, dbserver=dbserver)
    shown = []
    if totals:
        shown.append(views.totals(server))
    if finishing:
        shown.append(views.finishing(server, limit))
    if finished:
        shown.append(views.finished(server, limit))
    if running or not shown:
        shown.append(views.running(server, limit))
    for view in shown:
        for line in views.framed(view):
            print(line)


def main() -> None:
    """Run `psstatus`."""
    console.main(app)
