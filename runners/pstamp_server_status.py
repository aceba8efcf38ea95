"""`pstamp_server_status`: how the server is, as a fragment of HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runners import console
from runners.console import HOME, DbName, DbServer, Home, server_of

if TYPE_CHECKING:
    from pstamp_core.tasks.report import Status
    from pstamp_core.tasks.views import View

app = console.new_app()


@app.command()
def pstamp_server_status(
    rundir: Annotated[Path | None, typer.Option(help="Accepted; there is no other program to be asked.")] = None,
    workdir: Annotated[Path | None, typer.Option(help="Accepted; it is the server's own.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Accepted; there is no more to say.")] = False,
    save_temps: Annotated[bool, typer.Option("--save-temps", help="Accepted; there are no such files.")] = False,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
) -> None:
    """Print a fragment of HTML: time, queues, what moves, who works, disk, labels, running and finished requests.

    Example: pstamp_server_status > status.html.new && mv status.html.new status.html
    """
    del rundir, workdir, verbose, save_temps
    from pstamp_core.tasks import views
    from pstamp_core.tasks.report import status

    server = server_of(home, dbname=dbname, dbserver=dbserver)
    tables = {
        "Unfinished jobs": views.totals(server),
        "Requests": views.running(server),
        "Finished in the last day": views.finished(server),
    }
    for line in _page(status(server), tables):
        print(line)


def _page(found: Status, tables: dict[str, View]) -> Iterator[str]:
    from pstamp_core.tasks.views import cell

    yield f"<p>Postage stamp server at {cell(found.at)} UTC</p>"
    yield from _table(
        "Queues", ("queue", "now", "later", "leased", "faulted", "held"),
        [(each.name, each.now, each.later, each.leased, each.faulted, each.held) for each in found.queues],
    )  # fmt: skip
    yield from _table(
        f"In the last {60 * found.hours:.0f} minutes", ("of", "event", "rows", "per hour"),
        [(each.machine, each.event, each.count, f"{each.per_hour:.0f}") for each in found.moves],
    )  # fmt: skip
    yield from _table(
        "Does not move", ("what", "since", "next try", "why"),
        [(each.what, each.since, each.next_try or "", each.why) for each in found.stuck],
    )  # fmt: skip
    if found.more_stuck:
        yield f"<p>and {found.more_stuck} more</p>"
    yield from _table(
        "Workers", ("worker", "rows", "of", "until", ""),
        [(each.owner, each.count, each.machine, each.until, "overdue" * each.overdue) for each in found.leases],
    )  # fmt: skip
    yield from _table(
        "Labels", ("label", "priority", "active", "requests", "jobs"),
        [(each.label, each.priority, each.active, each.requests, each.jobs) for each in found.labels],
    )  # fmt: skip
    yield from _table(
        "Disk", ("folder", "free GB", "of GB"),
        [(each.name, f"{each.free / 1e9:.1f}", f"{each.total / 1e9:.1f}") for each in found.disks],
    )  # fmt: skip
    for title, view in tables.items():
        yield from _table(title, view.columns, view.rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    if not rows:
        return
    from pstamp_core.tasks.views import cell

    yield f"<h3>{escape(title)}</h3>"
    yield "<table>"
    yield f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in columns)}</tr>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{escape(cell(value))}</td>' for value in row)}</tr>"
    yield "</table>"


def main() -> None:
    """Run `pstamp_server_status`."""
    console.main(app)
