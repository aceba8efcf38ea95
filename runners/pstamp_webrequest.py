"""`pstamp_webrequest`: make a request from options, and queue it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from runners import console, psmkreq
from runners.console import HOME, DbName, DbServer, Home, server_of

app = console.new_app()


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def pstamp_webrequest(
    context: typer.Context,
    label: Annotated[str, typer.Option("--label", help="The queue it goes to.")] = "WEB",
    username: Annotated[str | None, typer.Option("--username", help="Who asks, for the request's row.")] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="The name is PREFIX_NUMBER.")] = "web",
    pretend: Annotated[bool, typer.Option("--pretend", help="Only make the file, and print where it is.")] = False,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Taken for the sake of old callers.")] = False,
) -> None:
    """Make a request from the options of psmkreq, and queue it; prints the request's number and its name.

    Example: pstamp_webrequest --email ana@obs.example.edu --ra 150.12 --dec 2.21 --filter i
    """
    from pstamp_core.tasks.submit import web_request

    del verbose
    number, name, file = web_request(
        server_of(home, dbname=dbname, dbserver=dbserver), partial(psmkreq.make, context.args), prefix=prefix,
        label=label, username=username, pretend=pretend,
    )  # fmt: skip
    print(file if pretend else f"{number} {name}")


def main() -> None:
    """Run `pstamp_webrequest`."""
    console.main(app)
