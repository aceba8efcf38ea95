"""`pstamp_queue_requests`: poll the data stores for new request files."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home, plain, server_of

app = console.new_app()


@app.command()
def pstamp_queue_requests(
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=100_000, help="Filesets to take from each data store; the rest wait.")
    ] = 5,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            min=0.01,
            max=86_400,
            help="Seconds that one listing may take.",
            show_default="the setting poll_seconds",
        ),
    ] = None,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what was queued from each data store.")] = False,
) -> None:
    """Queue a request for each file of each new fileset, in all data stores that are enabled and due.

    What is wrong with a data store is a line on standard error, and does not keep the others from being polled. Ends in
    0 when all went well, or nothing was due; else in the code of the first trouble.

    Example: pstamp_queue_requests --limit 5
    """
    from pstamp_core.tasks.queue_requests import queue_requests

    polls = queue_requests(server_of(home, dbname=dbname, dbserver=dbserver), limit=limit, timeout=timeout)
    for poll in polls:
        if verbose:
            print(f"data store {poll.ds_id}: {len(poll.filesets)} filesets, {len(poll.requests)} requests queued")
        if poll.troubles:
            more = [f"and {poll.more} more"] if poll.more else []
            line = f"pstamp: data store {poll.ds_id}: {'; '.join([*poll.troubles, *more])}"
            print(plain(line), file=sys.stderr)
    raise typer.Exit(next((poll.fault for poll in polls if poll.fault), 0))


def main() -> None:
    """Run `pstamp_queue_requests`."""
    console.main(app)
