"""`pstamp_update_run`: make components again that are in `update`."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from pstamp_core.faults import Fault
from runners import console
from runners.console import HOME, DbName, DbServer, Home, fail, server_of
from runners.task import NoUpdate, Redirect, Verbose, listen

app = console.new_app()


@app.command()
def pstamp_update_run(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="How many to take at most.")] = 100,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
    no_update: NoUpdate = False,
    redirect_output: Redirect = False,
    verbose: Verbose = False,
) -> None:
    """Make images again that were deleted, inputs first, with the programs that pstamp.toml names.

    Each image is verified, and only then set full; a failure becomes its fault. The logs are in the server's folder,
    work/updates/STAGE.NUMBER.COMPONENT.log. Ends in 0, whatever becomes of the images, when nothing is left or as many
    were tried as asked for. A stage whose program (update_chip, update_warp, update_diff, update_destreak) is not named
    is left to others. A program ends in 0 when image, mask and variance are written, in 1-9 when it failed, its last
    line on standard error being the reason, and in 26 when the image is gone for good.

    Example: pstamp_update_run --limit 20 --verbose
    """
    from pstamp_core.tasks.update import programs, update_components, would_update

    listen(redirect_output, verbose)
    server = server_of(home, dbname=dbname, dbserver=dbserver)
    if no_update:
        print(f"would make {', '.join(would_update(server, limit)) or '(none)'}")
        return
    signal.signal(signal.SIGTERM, lambda *_: fail("stopped; what was begun is given back", Fault.PS_EXIT_SYS_ERROR))
    count = update_components(server, limit)
    if not redirect_output:
        none = "" if programs(server.settings) else "; pstamp.toml names no programs (see --help)"
        print(f"components tried: {count}{none}")


def main() -> None:
    """Run `pstamp_update_run`."""
    console.main(app)
