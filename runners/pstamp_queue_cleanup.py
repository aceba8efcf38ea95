"""`pstamp_queue_cleanup`: queue what was kept long enough for clean-up."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home, server_of

app = console.new_app()


@app.command()
def pstamp_queue_cleanup(
    preserve_days: Annotated[
        float | None,
        typer.Option("--preserve-days", help="Days since it was finished; 0 is for ever.", show_default="the setting"),
    ] = None,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
) -> None:
    """Queue the finished requests for clean-up that were kept long enough; prints how many.

    Example: pstamp_queue_cleanup --preserve-days 14
    """
    from pstamp_core.tasks.clean import queue_cleanup

    server = server_of(home, dbname=dbname, dbserver=dbserver)
    print(f"requests to be cleaned: {queue_cleanup(server, preserve_days)}")


def main() -> None:
    """Run `pstamp_queue_cleanup`."""
    console.main(app)
