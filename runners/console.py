"""What all commands share: the server of ``--home``, progress, tables, and one line and an exit code for an error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pstamp_core.faults import FIRST_FINAL, Fault, PstampError

if TYPE_CHECKING:
    from pstamp_core.settings import Settings
    from pstamp_core.tasks.server import Server

Home = Annotated[
    Path,
    typer.Option("--home", envvar="PSTAMP_HOME", help="The server's folder.", show_default="./pstamp-home"),
]
HOME = Path("pstamp-home")


DbName = Annotated[
    str | None,
    typer.Option("--dbname", help="Name of the server's database, if not the configured one.", show_default=False),
]
DbServer = Annotated[
    str | None,
    typer.Option("--dbserver", help="Host of the server's database, if not the configured one.", show_default=False),
]


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

    return Server(settings_of(home, **database))


def exit_code(error: PstampError) -> int:
    """Return the exit code (1-6, `pantasks.pro`) of an error; a user's error is a data error, 5."""
    return error.fault if 0 < error.fault < FIRST_FINAL else int(Fault.PS_EXIT_DATA_ERROR)


def main(app: typer.Typer) -> None:
    """Run a command line; any failure is one line on standard error and an exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=os.environ.get("PSTAMP_LOG", "WARNING"))
    try:
        app()
    except PstampError as error:
        fail(str(error), exit_code(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(int(Fault.PS_EXIT_SYS_ERROR))
    except OSError as error:
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", Fault.PS_EXIT_SYS_ERROR)
    except Exception as error:
        logging.getLogger("pstamp").debug("unforeseen", exc_info=True)
        fail(
            f"a bug in pstamp: {type(error).__name__}: {error} (PSTAMP_LOG=DEBUG shows where)", Fault.PS_EXIT_PROG_ERROR
        )
    except KeyboardInterrupt:
        fail("interrupted; what was begun is taken up again when its lease has run out", 1)


def fail(message: str, code: int) -> None:
    """Say what went wrong, on standard error, and leave with `code`."""
    print(f"pstamp: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(int(code))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their headings, columns lined up; numbers to the right."""
    texts = [["" if value is None else _text(value) for value in row] for row in rows]
    right = [bool(texts) and all(_is_number(row[i]) for row in texts) for i in range(len(columns))]
    widths = [max(len(name), *(len(row[i]) for row in texts), 0) for i, name in enumerate(columns)]
    for row in [list(columns), *texts]:
        cells = (
            text.rjust(width) if r else text.ljust(width) for text, width, r in zip(row, widths, right, strict=True)
        )
        print("  ".join(cells).rstrip())


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())


def _is_number(text: str) -> bool:
    return not text or text.lstrip("-").replace(".", "", 1).isdigit()


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows how far the work is: bars on a terminal, a line for each finished part otherwise."""
    if not sys.stderr.isatty():
        yield _plain_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    ) as bars:  # fmt: skip
        tasks: dict[str, object] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield show


def _plain_progress(what: str, done: int, total: int) -> None:
    if done == total:
        print(f"{what}: {done} of {total}", file=sys.stderr)
