"""`pstamp db`: the server's database, for its operators and DBAs."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from pstamp_core.faults import Fault
from runners import console
from runners.console import HOME, Home, server_of

app = typer.Typer(no_args_is_help=True, help="The server's database.")


class Engine(Enum):
    """What the SQL is for; MariaDB reads that for MySQL."""

    SQLITE = "sqlite"
    MYSQL = "mysql"


@app.command()
def sql(
    home: Home = HOME,
    engine: Annotated[
        Engine | None, typer.Option(help="Instead of that of the server's database; mysql is MariaDB, too.")
    ] = None,
) -> None:
    """Print the constraints and triggers by which the database refuses what may not be, as a script for its shell.

    It may be run at any time, and puts back what is missing.

    Example: pstamp db sql | mariadb pstamp
    """
    from pstamp_core.tasks.check import rules_sql

    print(rules_sql(None if engine else server_of(home), mysql=engine is Engine.MYSQL), end="")


@app.command()
def check(
    home: Home = HOME,
    md5: Annotated[bool, typer.Option("--md5", help="Read all products, too, and compare their md5.")] = False,
) -> None:
    """Look for what is wrong in the database and with the files: a line each, with what mends it. Changes nothing.

    Ends in 0 only when all is well.

    Example: pstamp db check --md5
    """
    from pstamp_core.tasks.check import check as check_all

    server = server_of(home)
    count = 0
    with console.progress() as progress:
        for finding in check_all(server, md5=md5, progress=progress):
            print(finding, flush=True)
            count += 1
    if count:
        raise typer.Exit(Fault.PS_EXIT_DATA_ERROR)
    print("all is well")


@app.command()
def migrate(
    home: Home = HOME,
    target: Annotated[
        int | None, typer.Option(help="Schema version; 0 is IPP's original.", show_default="newest")
    ] = None,
) -> None:
    """Bring the database to the schema of this software, or to an older one; prints each row that was changed, and why.

    Example: pstamp db migrate
    """
    from pstamp_core.tasks.server import migrate_database

    for line in migrate_database(console.settings_of(home), target):
        print(line)
