"""What all commands share, whichever library reads their arguments: the server they work on, and how they end."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pstamp_core.faults import FIRST_FINAL, Fault, PstampError

if TYPE_CHECKING:
    from pstamp_core.settings import Settings
    from pstamp_core.tasks.server import Server

HOME = Path("pstamp-home")


def settings_of(
    home: Path,
    *,
    dbserver: str | None = None,
    dbname: str | None = None,
    dbuser: str | None = None,
    dbport: int | None = None,
    dbpassword: str | None = None,
    without_home: bool = False,
) -> Settings:
    """Return the settings of the server in `home`, with the database that options and environment ask for.

    PSTAMP_DB names another address than pstamp.toml, the options replace parts of either, and PSTAMP_DB_PASSWORD is the
    password (see `load_settings`).
    """
    from pstamp_core.settings import load_settings

    return load_settings(
        home, os.environ.get("PSTAMP_DB"), without_home=without_home, server=dbserver, name=dbname, user=dbuser,
        port=dbport, password=os.environ.get("PSTAMP_DB_PASSWORD") if dbpassword is None else dbpassword,
    )  # fmt: skip


def server_of(home: Path, **database: Any) -> Server:
    """Return the server in `home`; `database` as in `settings_of`."""
    from pstamp_core.tasks.server import Server

    server = Server(settings_of(home, **database))
    if token := os.environ.get("PSTAMP_WORKER"):  # `pstamp serve` started us, and wants to know our leases
        server.worker = f"{server.worker.rpartition('.')[0]}.{token}"
    return server


def exit_code(error: PstampError) -> int:
    """Return the exit code (1-6, `pantasks.pro`) of an error; a user's error is a data error, 5."""
    return error.fault if 0 < error.fault < FIRST_FINAL else int(Fault.PS_EXIT_DATA_ERROR)


def main(app: Callable[[], object]) -> None:
    """Run a command line; any failure is one line on standard error and an exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=os.environ.get("PSTAMP_LOG", "WARNING"))
    logging.getLogger("transitions").setLevel("WARNING")  # it tells each guard that it asks, as INFO
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except PstampError as error:
        fail(str(error), exit_code(error))
    except BrokenPipeError:  # nobody reads on, as after `| head`
        _drop_output()
        sys.exit(int(Fault.PS_EXIT_SYS_ERROR))
    except OSError as error:
        _drop_output()
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", Fault.PS_EXIT_SYS_ERROR)
    except Exception as error:
        logging.getLogger("pstamp").debug("unforeseen", exc_info=True)
        fail(
            f"a bug in pstamp: {type(error).__name__}: {error} (PSTAMP_LOG=DEBUG shows where)", Fault.PS_EXIT_PROG_ERROR
        )
    except KeyboardInterrupt:
        fail("interrupted; what was begun is taken up again when its lease has run out", 1)


def _drop_output() -> None:
    """Forget output that can't be written (closed pipe, full disk): Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str, code: int) -> None:
    """Say what went wrong, on standard error, and leave with `code`."""
    print(f"pstamp: {plain(message)}", file=sys.stderr)
    sys.exit(int(code))


def plain(text: str) -> str:
    """Return `text` as one line that commands no terminal: what can't be printed is spelled as Python does."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in " ".join(text.split())
    )
