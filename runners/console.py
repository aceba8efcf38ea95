"""What all commands for Typer share: options, progress, tables, and all of `runners.outcome`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pstamp_core.faults import Fault
from runners import outcome
from runners.outcome import HOME, exit_code, fail, plain, server_of, settings_of

__all__ = [
    "HOME", "DbName", "DbServer", "Home", "exit_code", "fail", "main", "plain", "progress", "server_of", "settings_of",
    "table",
]  # fmt: skip

Home = Annotated[
    Path,
    typer.Option("--home", envvar="PSTAMP_HOME", help="The server's folder.", show_default="./pstamp-home"),
]

DbName = Annotated[
    str | None,
    typer.Option("--dbname", help="Name of the server's database, if not the configured one.", show_default=False),
]
DbServer = Annotated[
    str | None,
    typer.Option("--dbserver", help="Host of the server's database, if not the configured one.", show_default=False),
]


def new_app() -> typer.Typer:
    """Return the application of a command by itself; its one function is added with ``@app.command()``."""
    return typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


_UsageError: Any = typer.BadParameter.__base__


def main(app: typer.Typer, usage: int = Fault.PS_EXIT_CONFIG_ERROR) -> None:
    """Run a command line; any failure is one line on standard error and an exit code, `usage` if the line is wrong."""
    outcome.main(lambda: _run(app, usage))


def _run(app: typer.Typer, usage: int) -> None:
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            error.show()
            sys.exit(int(usage))
        where = f"; see: {error.ctx.command_path} --help" if error.ctx else ""
        fail(f"{error.format_message().rstrip('.')}{where}", usage)
    sys.exit(code if isinstance(code, int) else 0)  # typer.Exit becomes its code


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
    return f"{value:.6g}" if isinstance(value, float) else plain(str(value))


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
