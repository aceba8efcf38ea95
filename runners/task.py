"""What the commands share that pantasks starts to do a task: one row by its number, or some of what waits."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pstamp_core.faults import is_retryable
from runners.console import server_of

if TYPE_CHECKING:
    from pstamp_core.tasks.one import Work

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


def do(
    work: Work,
    number: int | None,
    limit: int,
    *,
    home: Path,
    dbname: str | None,
    dbserver: str | None,
    no_update: bool,
    redirect_output: bool,
    verbose: bool,
    fault_ends: bool = True,
) -> None:
    """Do `work` on the row of this number, or on up to `limit` rows of its queue, and end in the code of what came.

    Without a fault that is 0, also when there was nothing to do. `fault_ends` says whether a fault 1-9 of the one row
    is the exit code; what the user gets as an answer (10 and up) never is, and what became of several is on their rows.
    """
    from pstamp_core.tasks.one import in_queue, work_on

    if redirect_output:
        logging.disable()
    elif verbose:
        logging.getLogger("pstamp").setLevel(logging.INFO)
    server = server_of(home, dbname=dbname, dbserver=dbserver)
    if no_update:
        numbers = in_queue(server, work, limit, number)
        print(f"would work on {work.machine} {', '.join(map(str, numbers)) or '(none)'}")
    elif number is None:
        count = work.some(server, limit)
        if not redirect_output:
            print(f"{work.machine}s {'that changed' if work.machine == 'dependent' else 'taken'}: {count}")
    else:
        outcome = work_on(server, work, number)
        failed = is_retryable(outcome.fault)
        if not redirect_output:
            well = outcome.worked and not failed
            print(outcome.text if well else f"pstamp: {outcome.text}", file=sys.stdout if well else sys.stderr)
        if failed and fault_ends:
            sys.exit(outcome.fault)
