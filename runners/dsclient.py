"""What the client programs of the data store share: options, exit codes, and how they show that something moves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pstamp_core import __version__
from pstamp_core.faults import Fault, PstampError, RetryableError
from runners import console
from runners.console import fail, plain

if TYPE_CHECKING:
    from pstamp_core.tasks.collect import Terms

T = TypeVar("T")

SILENCE = 30.0
"""Seconds after which a line says how far a file is, where there is no terminal for a bar."""

_USAGE = 2
_LARGEST_CODE = 255


def _show_version(show: bool) -> None:
    if show:
        print(f"pstamp {__version__}")
        raise typer.Exit


Timeout = Annotated[
    float, typer.Option("--timeout", "-t", min=0.01, max=86_400, help="Seconds that a server may keep silent.")
]
NoProxy = Annotated[bool, typer.Option("--no-proxy", help="Do not go by the proxies that the environment names.")]
Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")]


def required(option: str, value: T | None) -> T:
    """Return the value of an option that must be given; IPP's programs end in 3 where it is not."""
    if value is None:
        raise RetryableError(f"{option} is missing; see --help", Fault.PS_EXIT_CONFIG_ERROR)
    return value


@contextmanager
def asking(timeout: float, no_proxy: bool) -> Iterator[Terms]:
    """Give the terms on which servers are asked within the block, and end in `exit_code` where they do not answer."""
    from pstamp_core.tasks.collect import HttpError, Terms

    try:
        yield Terms(timeout, proxy=not no_proxy)
    except HttpError as error:
        fail(str(error), exit_code(error))
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on with the file that is half there, if the server can do that", 1)


def exit_code(error: PstampError | OSError) -> int:
    """Return the exit code of what went wrong: HTTP's status less 300, 200 without an answer; else IPP's."""
    from pstamp_core.tasks.collect import HttpError

    if isinstance(error, HttpError):
        return min(error.status, 300 + _LARGEST_CODE) - 300 if error.status > 300 else int(Fault.PS_EXIT_DATA_ERROR)
    return console.exit_code(error) if isinstance(error, PstampError) else int(Fault.PS_EXIT_SYS_ERROR)


def warn(message: str) -> None:
    """Say something on standard error."""
    print(f"pstamp: {plain(message)}", file=sys.stderr)


def show(uri: str, rows: Sequence[Sequence[str]], odd: Sequence[str], what: str) -> None:
    """Print rows, their fields separated by blanks; say what in the index is no row, or that nothing was found."""
    from pstamp_core.tasks.collect import odd_rows

    for row in rows:
        print(plain(" ".join(row)))
    for sentence in odd_rows(odd):
        warn(f"{uri}: {sentence}")
    if not rows:
        warn(f"{uri}: no {what} found")


@contextmanager
def moving(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Give what is told how far a file is: a bar on a terminal, else lines with the time unless `quiet`."""
    if not sys.stderr.isatty():
        yield _Lines(quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(), console=Console(stderr=True), transient=True,
    ) as bars:  # fmt: skip

        def step(name: str, done: int, total: int) -> None:
            if not bars.tasks:
                bars.add_task(name, total=None)
            (bar,) = bars.task_ids
            bars.update(bar, description=name, completed=done, total=total or None)
            if done == total:
                bars.remove_task(bar)
                bars.console.print(f"{name}: {total} bytes", markup=False, highlight=False)

        yield step


class _Lines:
    """Says on standard output which file is there, and now and then how far one is."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._spoken = time.monotonic()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Take note of the bytes of a file that are there, of how many (0: not known)."""
        now = time.monotonic()
        if self._quiet or (done != total and now - self._spoken < SILENCE):
            return
        self._spoken = now
        how_far = f"{done} of {total}" if 0 < total != done else done
        print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {name}: {how_far} bytes", flush=True)


def main(app: typer.Typer) -> None:
    """Run a command line; a wrong one ends in 2, as with IPP's programs."""
    console.main(app, usage=_USAGE)
