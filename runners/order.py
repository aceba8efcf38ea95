"""What people order with `pstamp`: each says what it touches, asks, and is carried out on all rows or on none."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pstamp_core.faults import FIRST_FINAL, Fault, RetryableError, UserError
from runners import console
from runners.console import HOME, Home, server_of

if TYPE_CHECKING:
    from pstamp_core.tasks.operate import Effect

SHOWN = 5
"""Rows that are named of those that fare alike."""


class What(Enum):
    """What a command is about."""

    REQUEST = "request"
    JOB = "job"
    DEPENDENT = "dependent"


class Wanted(Enum):
    """What can be cancelled."""

    REQUEST = "request"
    JOB = "job"


class Labelled(Enum):
    """How a label is named."""

    LABEL = "label"
    REQUEST = "request"


Numbers = Annotated[list[int], typer.Argument(help="Their numbers.", show_default=False)]
SomeNumbers = Annotated[list[int] | None, typer.Argument(help="Their numbers.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All that it can be done to, and that these options name.")]
OfFault = Annotated[
    int | None, typer.Option("--fault", min=1, max=FIRST_FINAL - 1, help="With --all: those with this fault.")
]
OfLabel = Annotated[str | None, typer.Option("--label", help="With --all: those of requests with this label.")]
OfRequest = Annotated[int | None, typer.Option("--request", help="With --all: those of this request.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would touch, and stop.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; scripts must say so.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.", show_default=False)]


@dataclass(frozen=True)
class How:
    """How an order is given."""

    home: Any
    dry_run: bool
    yes: bool
    why: str


def revert(
    what: Annotated[What, typer.Argument()],
    numbers: SomeNumbers = None,
    all_: All = False,
    fault: OfFault = None,
    label: OfLabel = None,
    request: OfRequest = None,
    why: Why = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    home: Home = HOME,
) -> None:
    """Try again what failed with a fault below 10, however often it has failed.

    A dependent that is named by its number need not have failed: its image gets all its tries back, and so does what
    that is made of, the first at once, whatever cool-down or back-off there is.

    Example: pstamp revert job --all --fault 2 --label WEB --why "NFS is back"
    """
    filters = {"fault": fault, "label": label, "req_id": request}
    _order("revert", what.value, numbers, all_, filters, How(home, dry_run, yes, why))


def stop(
    what: Annotated[What, typer.Argument()],
    numbers: SomeNumbers = None,
    all_: All = False,
    fault: OfFault = None,
    label: OfLabel = None,
    request: OfRequest = None,
    why: Why = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    home: Home = HOME,
) -> None:
    """Give up: end it with code 25, which the user gets with the reason. With --all only what is faulted.

    A dependent ends with all jobs that wait for it; a request only where its file can't be parsed (others: cancel).

    Example: pstamp stop dependent 4 --why "the raw exposure is lost"
    """
    filters = {"fault": fault, "label": label, "req_id": request}
    _order("give_up", what.value, numbers, all_, filters, How(home, dry_run, yes, why))


def cancel(
    what: Annotated[Wanted, typer.Argument()],
    numbers: SomeNumbers = None,
    all_: All = False,
    label: OfLabel = None,
    request: OfRequest = None,
    why: Why = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    home: Home = HOME,
) -> None:
    """Cancel requests with their open jobs, or jobs; what is done already is still delivered.

    Example: pstamp cancel request 3 --why "wrong field"
    """
    _order("cancel", what.value, numbers, all_, {"label": label, "req_id": request}, How(home, dry_run, yes, why))


def accept(numbers: Numbers, why: Why = "", dry_run: DryRun = False, yes: Yes = False, home: Home = HOME) -> None:
    """Let the jobs of requests that were previews (ACTION = PREVIEW) run.

    Example: pstamp accept 3
    """
    _order("accept", "request", numbers, False, {}, How(home, dry_run, yes, why))


def hold(numbers: Numbers, why: Why = "", dry_run: DryRun = False, yes: Yes = False, home: Home = HOME) -> None:
    """Keep dependents from being looked at; their jobs wait.

    Example: pstamp hold 4 --why "its disk is being replaced"
    """
    _order("hold", "dependent", numbers, False, {}, How(home, dry_run, yes, why))


def release(numbers: Numbers, why: Why = "", dry_run: DryRun = False, yes: Yes = False, home: Home = HOME) -> None:
    """Let dependents that are on hold be looked at again.

    Example: pstamp release 4
    """
    _order("unhold", "dependent", numbers, False, {}, How(home, dry_run, yes, why))


def clean(numbers: Numbers, why: Why = "", dry_run: DryRun = False, yes: Yes = False, home: Home = HOME) -> None:
    """Delete the results and the work directories of finished requests; their rows and history stay.

    Example: pstamp clean 3 4 --why "disk is full"
    """
    _order("expire", "request", numbers, False, {}, How(home, dry_run, yes, why))


def priority(
    what: Annotated[Labelled, typer.Argument(help="A label, or the label of a request.")],
    name: Annotated[str, typer.Argument(help="The label, or the request's number.")],
    value: Annotated[int, typer.Argument(min=0, max=2**31 - 1, metavar="PRIORITY", help="Larger goes first.")],
    why: Why = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    home: Home = HOME,
) -> None:
    """Change the priority of a label, hence of all requests with it.

    Example: pstamp priority request 3 20000 --why "needed tonight"
    """
    from pstamp_core.tasks.operate import label_of, set_priority

    server = server_of(home)
    if what is Labelled.REQUEST:
        if not name.isdecimal():
            raise UserError(f"request {name!r}: expected its number")
        name = label_of(server, int(name))
    _give(lambda **how: set_priority(server, name, value, _login(), why, **how), How(home, dry_run, yes, why))


def _order(event: str, machine: str, numbers: list[int] | None, all_: bool, filters: dict[str, Any], how: How) -> None:
    from pstamp_core.tasks.operate import Choice, order

    if bool(numbers) is all_ or (numbers and any(each is not None for each in filters.values())):
        raise typer.BadParameter(f"expected the numbers of {machine}s, or --all and options that say which")
    server = server_of(how.home)
    choice = Choice(machine, tuple(numbers or ()), **filters)
    _give(lambda **more: order(server, event, choice, _login(), how.why, **more), how)


def _give(act: Callable[..., list[Effect]], how: How) -> None:
    """Rehearse an order, show what it does, ask, and let it be carried out if it would still do the same."""
    if how.yes and not how.dry_run:
        _show(act())
        return
    effects = act(dry_run=True)
    _show(effects)
    if not effects:
        return
    if how.dry_run:
        print("nothing was done: a dry run")
        return
    if not sys.stdin.isatty():
        raise RetryableError("nothing was done: not on a terminal, so say --yes", Fault.PS_EXIT_CONFIG_ERROR)
    if not typer.confirm("do it?"):
        print("nothing was done")
        raise typer.Exit(1)
    act(expected=effects)
    print("done")


def _show(effects: list[Effect]) -> None:
    if not effects:
        print("there is nothing to do")
        return
    console.table(
        ("rows", "of", "event", "from", "to", "fault", "cause", "which"),
        [
            (len(each.names), each.machine, each.event, each.source, each.dest, each.fault or "", each.cause or "",
             ", ".join(each.names[:SHOWN]) + (f" and {len(each.names) - SHOWN} more" if each.names[SHOWN:] else ""))
            for each in effects
        ],
    )  # fmt: skip


def _login() -> str:
    """Return who orders it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return f"uid {os.getuid()}"
