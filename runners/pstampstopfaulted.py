"""`pstampstopfaulted`: give up what failed too often."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runners import console
from runners.console import HOME, server_of

app = console.new_app()


@app.command()
def pstampstopfaulted(
    fault_count: Annotated[
        int | None,
        typer.Option(
            "-fault_count", min=1, max=1000, help="Tries that are enough.", show_default="the setting retry_ceiling"
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("-label", help="Only of requests under this label; % stands for any text. May be repeated."),
    ] = None,
    limit: Annotated[int | None, typer.Option("-limit", help="No effect, as ever.")] = None,
    home: Annotated[
        Path,
        typer.Option(
            "--home", "-home", envvar="PSTAMP_HOME", help="The server's folder.", show_default="./pstamp-home"
        ),
    ] = HOME,
    dbname: Annotated[str | None, typer.Option("-dbname", "--dbname", help="Name of the server's database.")] = None,
    dbserver: Annotated[str | None, typer.Option("-dbserver", "--dbserver", help="Its host.")] = None,
) -> None:
    """Give up the jobs, dependents and requests that failed too often; prints how many.

    They get code 25, and keep the last fault as its cause. What is being tried again just now is left alone.

    Example: pstampstopfaulted -fault_count 3 -label WEB%
    """
    from pstamp_core.tasks.retry import give_up

    del limit
    server = server_of(home, dbname=dbname, dbserver=dbserver)
    print(f"given up: {give_up(server, ceiling=fault_count, labels=label or [])}")


def main() -> None:
    """Run `pstampstopfaulted`."""
    console.main(app)
