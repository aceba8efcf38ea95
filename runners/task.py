"""What the commands share that pantasks starts to do a task: one row by its number, or some of what waits."""

from __future__ import annotations

import inspect
import logging
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pstamp_core.faults import is_retryable
from runners import console
from runners.console import HOME, DbName, DbServer, Home, server_of

if TYPE_CHECKING:
    from pstamp_core.tasks.one import Work
    from pstamp_core.tasks.server import Server

LARGEST = 2**63 - 1
"""The largest number that a row can have."""

Limit = Annotated[
    int, typer.Option("--limit", min=1, max=1_000_000, help="Without a number: how many to take from the queue.")
]
NoUpdate = Annotated[bool, typer.Option("--no-update", help="Print what would be worked on, and change nothing.")]
Redirect = Annotated[
    bool, typer.Option("--redirect-output", help="Print nothing: what happens is in the log file in any case.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show on standard error what is going on.")]
FROM_ROW = "The row says it; taken for the sake of old callers, and not looked at."


def program(
    work: str,
    option: str,
    from_row: tuple[str, ...],
    flags: tuple[str, ...] = (),
    flags_help: str = FROM_ROW,
    *,
    about: str,
    fault_ends: bool = True,
) -> typer.Typer:
    """Return the command that does one kind of work.

    Parameters
    ----------
    work : str
        What it does: the name of a `Work` in `pstamp_core.tasks.one`.
    option : str
        The option by which it takes the number of one row, such as ``--req_id``.
    from_row : tuple of str
        The original's options whose values the row has.
    flags : tuple of str
        The original's options without a value that have no effect.
    flags_help : str
        Why they have none.
    about : str
        The help text.
    fault_ends : bool
        As of `_do`.
    """
    machine = {"req": "request", "job": "job", "dep": "dependent"}[option.strip("-").partition("_")[0]]

    def run(
        number: int | None = None,
        limit: Limit = 1,
        home: Home = HOME,
        dbname: DbName = None,
        dbserver: DbServer = None,
        no_update: NoUpdate = False,
        redirect_output: Redirect = False,
        verbose: Verbose = False,
        from_row: list[str] | None = None,
        flags: bool = False,
    ) -> None:
        from pstamp_core.tasks import one

        del from_row, flags
        listen(redirect_output, verbose)
        _do(getattr(one, work), server_of(home, dbname=dbname, dbserver=dbserver), number, limit, no_update=no_update,
            silent=redirect_output, fault_ends=fault_ends)  # fmt: skip

    command: Any = run
    command.__doc__ = about
    command.__annotations__ |= {
        "number": Annotated[
            int | None,
            typer.Option(option, min=1, max=LARGEST, help=f"The {machine}'s number.", show_default="from the queue"),
        ],
        "from_row": Annotated[list[str] | None, typer.Option(*from_row, help=FROM_ROW)],
        "flags": Annotated[bool, typer.Option(*flags, help=flags_help)],
    }
    if not flags:
        parameters = inspect.signature(run, eval_str=True).parameters.values()
        command.__signature__ = inspect.Signature([each for each in parameters if each.name != "flags"])
    app = console.new_app()
    app.command()(command)
    return app


def listen(redirect_output: bool, verbose: bool) -> None:
    """Let standard error tell nothing, all that is going on, or what it tells else."""
    if redirect_output:
        logging.disable()
    elif verbose:
        logging.getLogger("pstamp").setLevel(logging.INFO)


def _do(
    work: Work, server: Server, number: int | None, limit: int, *, no_update: bool, silent: bool, fault_ends: bool
) -> None:
    """Do `work` on the row of this number, or on up to `limit` rows of its queue, and end in the code of what came.

    Without a fault that is 0, also when there was nothing to do. `fault_ends` says whether a fault 1-9 of the one row
    is the exit code; what the user gets as an answer (10 and up) never is, and what became of several is on their rows.
    """
    from pstamp_core.tasks.one import in_queue, work_on

    if no_update:
        numbers = in_queue(server, work, limit, number)
        print(f"would work on {work.machine} {', '.join(map(str, numbers)) or '(none)'}")
    elif number is None:
        count = work.some(server, limit)
        if not silent:
            print(f"{work.machine}s {'that changed' if work.machine == 'dependent' else 'taken'}: {count}")
    else:
        outcome = work_on(server, work, number)
        failed = is_retryable(outcome.fault)
        if not silent:
            well = outcome.worked and not failed
            print(outcome.text if well else f"pstamp: {outcome.text}", file=sys.stdout if well else sys.stderr)
        if failed and fault_ends:
            sys.exit(outcome.fault)
