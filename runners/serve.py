"""The tasks of a server: started for ever (`serve`), by pantasks (`pantasks`), or once (`task`)."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pstamp_core.faults import Fault, RetryableError
from runners.console import HOME, DbName, DbServer, Home, server_of

if TYPE_CHECKING:
    from pstamp_core.tasks.server import Server


def serve(
    home: Home = HOME,
    host: Annotated[str, typer.Option(help="Where the web service listens; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 takes a free one.")] = 8080,
    no_web: Annotated[bool, typer.Option("--no-web", help="The tasks alone, without the web service.")] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Commands that cut stamps, or parse, at the same time; 0 is one for each core.")
    ] = 0,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that commands get to end when the server stops.")] = 60,
    alarm: Annotated[
        float, typer.Option(min=0, help="Minutes after which work that waits while nothing succeeds is warned of.")
    ] = 10,
    dbname: DbName = None,
    dbserver: DbServer = None,
) -> None:
    """Serve for ever: start what is due, kill what takes too long, try again what failed; tells it on standard error.

    The web service answers beside that: pages, data store, and JSON for programs.

    SIGTERM or Control-C stops it: nothing new is started, what runs may end. A second one stops it at once. Any number
    of servers, on any number of hosts, may serve one database.

    Example: pstamp serve --port 8080 2>> pstamp.log
    """
    from pstamp_core.tasks.serve import Scheduler
    from pstamp_core.tasks.table import TASKS

    server = server_of(home, dbname=dbname, dbserver=dbserver)
    own = os.pathsep.join(str(Path(each).absolute().parent) for each in (sys.argv[0], sys.executable))
    environment = {
        **os.environ,
        "PATH": f"{own}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PSTAMP_HOME": str(server.settings.home),
        "PSTAMP_DB": server.settings.database,
    }
    for task in TASKS:
        if not task.inside and shutil.which(task.command[0], path=environment["PATH"]) is None:
            raise RetryableError(
                f"{task.command[0]}: no such command; is pstamp installed as a whole?", Fault.PS_EXIT_CONFIG_ERROR
            )
    if "PSTAMP_LOG" not in os.environ:
        logging.getLogger("pstamp.serve").setLevel(logging.INFO)
    scheduler = Scheduler(server, environment, workers=workers or os.cpu_count() or 1, grace=grace, alarm=60 * alarm)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scheduler.stop())
    with nullcontext() if no_web else _web_service(server, host, port):
        scheduler.run()


@contextmanager
def _web_service(server: Server, host: str, port: int) -> Iterator[None]:
    """Answer at an address within the block; say what it is, and how to get in."""
    from pstamp_core.tasks.accounts import accounts
    from pstamp_core.tasks.server import Server
    from pstamp_web.app import WebService

    service = WebService(Server(server.settings), host, port)
    log = logging.getLogger("pstamp.serve")
    log.info("web service: %s", service.address)
    if not accounts(server):
        log.info("nobody has an account yet; make one with: pstamp user add YOU@EXAMPLE.ORG")
    service.start()
    try:
        yield
    finally:
        service.stop()


def pantasks(
    home: Annotated[
        Path | None,
        typer.Option("--home", help="The server's folder, as all hosts see it.", show_default="what PSTAMP_HOME says"),
    ] = None,
    dbname: DbName = None,
    dbserver: DbServer = None,
) -> None:
    """Print a script for pantasks that does what `pstamp serve` does, over many hosts; the options go to each command.

    Example: pstamp pantasks --home /data/pstamp > pstamp.pro
    """
    from pstamp_core.tasks.pantasks import pantasks_script

    print(pantasks_script({"home": str(home) if home else None, "dbname": dbname, "dbserver": dbserver}), end="")


def task(
    name: Annotated[str, typer.Argument(help="The task's name, such as pstamp.revert.")],
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
) -> None:
    """Do one task of the server once, as a scheduler does every now and then; prints how many things moved.

    Example: pstamp task pstamp.revert
    """
    from pstamp_core.tasks.table import do_task

    print(do_task(server_of(home, dbname=dbname, dbserver=dbserver), name))
