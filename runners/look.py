"""What people look at with `pstamp`: it changes nothing."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import asdict
from datetime import datetime
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pstamp_core.faults import UserError, fault_sentence
from runners import console
from runners.console import HOME, DbName, DbServer, Home, plain, server_of
from runners.order import What

if TYPE_CHECKING:
    from pstamp_core.tasks.explain import Explanation, Link
    from pstamp_core.tasks.report import Status, Waiting

Json = Annotated[bool, typer.Option("--json", help="For programs: one line of JSON.")]
Number = Annotated[int, typer.Argument(help="Its number.")]
RequestNumber = Annotated[int, typer.Argument(help="The request's number.")]
LEASES = 10
"""Leases shown on one screen."""
REQUESTS = 5
"""Requests named in one line."""


def status(
    home: Home = HOME,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Control-C.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="With --watch: seconds between two looks.")] = 5.0,
    as_json: Json = False,
    dbname: DbName = None,
    dbserver: DbServer = None,
) -> None:
    """Show on one screen what there is to do, what moves, and what does not, and for how long.

    Queues: now (a worker would get it), later (at a later time), leased (somebody works on it), faulted (waits for its
    next try), held (waits for an image, an operator, or its label).

    Example: pstamp status --watch --every 10
    """
    from pstamp_core.tasks.report import status as look

    server = server_of(home, dbname=dbname, dbserver=dbserver)

    def screen() -> str:
        found = look(server)
        return _json(found) if as_json else _status_screen(found)

    if not watch:
        print(screen(), end="")
        return
    try:
        if sys.stdout.isatty() and not as_json:
            _watch_on_terminal(screen, every)
        while True:
            print(screen(), flush=True, end="" if as_json else "\n")
            time.sleep(every)
    except KeyboardInterrupt:
        return


def _watch_on_terminal(screen: Any, every: float) -> None:
    from rich.live import Live
    from rich.text import Text

    live = Live(Text(screen()), screen=True, auto_refresh=False)
    try:
        live.start(refresh=True)
        while True:
            time.sleep(every)
            live.update(Text(screen()), refresh=True)
    finally:  # also where Control-C comes while it starts
        live.stop()


def _json(found: Any) -> str:
    """Return what was found as a line of JSON; moments as ISO 8601, in UTC."""
    text = json.dumps(asdict(found), default=lambda each: each.isoformat() if isinstance(each, datetime) else str(each))
    return f"{text}\n"


def _status_screen(found: Status) -> str:
    with redirect_stdout(StringIO()) as text:
        print(f"{clock(found.at)} UTC\n")
        console.table(
            ("queue", "now", "later", "leased", "faulted", "held"),
            [(each.name, each.now, each.later, each.leased, each.faulted, each.held) for each in found.queues],
        )
        if any(each.now for each in found.queues) and not found.leases:
            print("nobody works on it just now: is pstamp run, pstamp serve or pantasks there?")
        period = "hour" if found.hours == 1 else f"{60 * found.hours:.0f} min"
        _section(
            (f"in the last {period}", "", "rows", "per hour"),
            [(each.machine, each.event, each.count, f"{each.per_hour:.0f}") for each in found.moves],
        )
        images = found.images
        if images.waiting or images.made:
            oldest = f", the oldest for {age(images.oldest, found.at)}" if images.oldest else ""
            made = f"{images.made} came in the last {period} ({images.per_hour:.0f} per hour)"
            print(f"\nimages: {images.waiting} waited for{oldest}; {made}")
        _section(("does not move", "for", "next try", "why"), [_waiting_cells(each, found.at) for each in found.stuck])
        if found.more_stuck:
            print(f"and {found.more_stuck} more; pstamp why request N tells about one")
        _section(
            ("fault", "requests", "jobs", "dependents", "meaning"),
            [(each.fault, each.requests, each.jobs, each.dependents, each.sentence) for each in found.faults],
        )
        _section(
            ("works", "on", "", "until"),
            [
                (each.owner, each.count, each.machine, clock(each.until) + (" OVERDUE" if each.overdue else ""))
                for each in found.leases[:LEASES]
            ],
        )
        if found.leases[LEASES:]:
            print(f"and {len(found.leases) - LEASES} more")
        _section(
            ("label", "priority", "active", "requests", "jobs"),
            [
                (each.label or "(none)", each.priority, "yes" if each.active else "NO", each.requests, each.jobs)
                for each in found.labels
            ],
        )
        _section(
            ("disk", "free GB", "of GB", "free"),
            [
                (each.name, f"{each.free / 1e9:.1f}", f"{each.total / 1e9:.1f}", f"{100 * each.free / each.total:.0f}%")
                for each in found.disks
            ],
        )
    return text.getvalue()


def _section(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    if rows:
        print()
        console.table(columns, rows)


def _waiting_cells(each: Waiting, now: datetime) -> tuple[object, ...]:
    return each.what, age(each.since, now), clock(each.next_try), each.why


def dependents(home: Home = HOME, as_json: Json = False, dbname: DbName = None, dbserver: DbServer = None) -> None:
    """List the images that jobs wait for, the most urgent first, and what is known of when they will be there.

    Without a priority nobody looks at it: no request that runs under an active label waits for it.

    Example: pstamp dependents | head
    """
    from pstamp_core.tasks.report import awaited

    found = awaited(server_of(home, dbname=dbname, dbserver=dbserver))
    if as_json:
        print(_json(found), end="")
        return
    if not found.images:
        print("no image is waited for")
        return
    rows = [
        (
            each.dep_id, f"{each.stage} {each.stage_id} {each.component}",
            f"fault {each.fault}" if each.fault else each.state, age(each.since, found.at), each.looks, each.failed,
            clock(each.next_look), "" if each.priority is None else each.priority, each.jobs, _numbers(each.requests),
            each.reason,
        )
        for each in found.images
    ]  # fmt: skip
    console.table(
        (
            "no.",
            "image",
            "state",
            "for",
            "looks",
            "failed",
            "next look",
            "priority",
            "jobs",
            "requests",
            "what it waits for",
        ),
        rows,
    )
    jobs = sum(each.jobs for each in found.images)
    print(f"\nimages: {len(found.images)}; jobs: {jobs}; pstamp why dependent N tells about one")
    if found.longest_days:
        print(f"an image that is not there after {found.longest_days:g} days is given up")


def show_waiting(found: Iterable[Waiting]) -> None:
    """Print what waits, and for what."""
    rows = [(each.what, clock(each.since), clock(each.next_try), each.why) for each in found]
    if rows:
        console.table(("waits", "since", "next try", "for"), rows)
    else:
        print("nothing waits")


def clock(moment: datetime | None) -> str:
    """Return a moment for people; nothing for none."""
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def age(since: datetime, now: datetime) -> str:
    """Return how long something lasts, in the two largest units that matter."""
    seconds = max(0, round((now - since).total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def why(what: What, number: Number, home: Home = HOME, as_json: Json = False) -> None:
    """Tell why a request, job or dependent is where it is: the chain to what blocks it, and what would help.

    Example: pstamp why request 3
    """
    from pstamp_core.tasks.explain import explain

    found = explain(server_of(home), what.value, number)
    if as_json:
        print(_json(found), end="")
    else:
        _print_explanation(found)


def _print_explanation(found: Explanation) -> None:
    _print_links(found.links, found.at)
    for each in found.counts:
        meaning = f": {each.fault} {each.sentence}" if each.fault else ""
        print(f"    {each.count} {'job' if each.count == 1 else 'jobs'} {each.state}{meaning}")
    for chain in found.blocked:
        print(f"\n{chain.jobs} jobs, the first of them:" if chain.jobs > 1 else "\n1 job:")
        _print_links(chain.links, found.at, 1)
        print(f"  what helps: {plain(chain.helps)}")
    if found.more:
        print(f"\n{found.more} more jobs wait for other reasons")
    if found.helps:
        print(f"\nwhat helps: {plain(found.helps)}")


def _print_links(links: list[Link], now: datetime, depth: int = 0) -> None:
    position = depth - 1
    for link, below in zip_longest(links, links[1:]):
        position += not link.depth
        indent = position + link.depth
        lasts = f" for {age(link.since, now)}" if link.since else ""
        facts = []
        if link.tries:
            failed = f", {link.faults} failed" if link.faults else ""
            one, more = ("look", "looks") if link.what.startswith("dependent ") else ("try", "tries")
            facts.append(f"{link.tries} {one if link.tries == 1 else more}{failed}")
        if link.next_try:
            facts.append(f"next {clock(link.next_try)}")
        if link.ends:
            facts.append(f"given up {clock(link.ends)}")
        tried = f" ({'; '.join(facts)})" if facts else ""
        print(f"{'  ' * indent}{plain(link.what)}: {plain(link.state)}{lasts}{tried}")
        what = "requests" if link.requests[1:] else "request"
        waiting = f"; {link.jobs} jobs of {what} {_numbers(link.requests)} wait for it" if link.jobs > 1 else ""
        # What an image waits for stands below it.
        reason = link.reason.partition(": ")[0] if below and below.reason and below.depth > link.depth else link.reason
        if reason:
            print(f"{'  ' * indent}    {plain(reason)}{waiting}")


def _numbers(requests: list[int]) -> str:
    first = ", ".join(map(str, requests[:REQUESTS]))
    return first + (f" and {len(requests) - REQUESTS} more" if requests[REQUESTS:] else "")


def show(what: What, number: Number, home: Home = HOME) -> None:
    """Show all that the database knows of one request, job or dependent; its past is in: pstamp history.

    Example: pstamp show job 12
    """
    from pstamp_core.tasks.report import look_up

    columns, _ = look_up(server_of(home), what.value, number)
    for name, value in columns.items():
        _show_value(name, value)


def _show_value(name: str, value: object, indent: int = 0) -> None:
    if isinstance(value, dict):
        print(f"{' ' * indent}{name}")
        for key, inner in value.items():
            _show_value(key, inner, indent + 2)
        return
    if isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            _show_value(name, inner, indent)
        return
    text = clock(value) if isinstance(value, datetime) else value
    print(f"{' ' * indent}{name:<{20 - indent}} {'-' if text is None or text == '' else plain(str(text))}")


def history(
    what: Annotated[str, typer.Argument(help="request, job, dependent or label")],
    name: Annotated[str, typer.Argument(help="Its number; the name of a label.")],
    home: Home = HOME,
) -> None:
    """Show what became of one request, job or dependent, by whom and why; or who changed the priority of a label.

    Example: pstamp history request 3
    """
    from pstamp_core.tasks.report import label_history, look_up

    server = server_of(home)
    if what == "label":
        lines = label_history(server, name)
    elif name.isdecimal():
        lines = look_up(server, what, int(name))[1]
    else:
        raise UserError(f"{what} {name!r}: expected its number")
    console.table(
        ("when (UTC)", "event", "from", "to", "fault", "attempt", "who", "note"),
        [
            (clock(each.when), each.event, each.source, each.dest, each.fault, each.attempt, each.who, each.note)
            for each in lines
        ],
    )


def log(what: What, number: Number, home: Home = HOME) -> None:
    """Print the log of a request, job or dependent: what each attempt did.

    Example: pstamp log job 12
    """
    from pstamp_core.tasks.report import logs

    for path in logs(server_of(home), what.value, number):
        print(f"==> {plain(str(path))} <==")
        with path.open(encoding="utf-8", errors="backslashreplace") as lines:
            for line in lines:
                print(plain(line))


def results(number: RequestNumber, home: Home = HOME) -> None:
    """Show the results of a request: one line for each product, or for each reason why there is none.

    Example: pstamp results 1
    """
    from pstamp_core.tasks import report

    server = server_of(home)
    folder = report.fileset(server, number)
    console.table(
        ("row", "code", "product, or (image)", "filter", "RA", "Dec", "size", "on image", "finite", "what it means"),
        [_result_cells(row) for row in report.results(server, number)],
    )
    print(f"\nfileset: {folder}")


def _result_cells(row: dict[str, Any]) -> tuple[object, ...]:
    name, image, filter_ = (
        "" if row[key] in ("0", "null") else row[key] for key in ("IMG_NAME", "INPUT_IMAGE", "FILTER")
    )
    measures: tuple[str, ...] = ("", "", "", "", "")
    if name:
        measures = (
            f"{row['RA_DEG']:.5f}", f"{row['DEC_DEG']:+.5f}", f"{row['BOX_NX']}x{row['BOX_NY']}",
            f"{row['FRAC_IMAGE']:.2f}", f"{row['FRAC_FINITE']:.2f}",
        )  # fmt: skip
    meaning = "" if row["SENTENCE"] == fault_sentence(0) else row["SENTENCE"]
    return row["ROWNUM"], row["ERROR_CODE"], name or (image and f"({image})"), filter_, *measures, meaning


def sheet(
    number: RequestNumber,
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG file to write.")] = Path("contact-sheet.png"),
    home: Home = HOME,
) -> None:
    """Draw all image stamps of a request on one page, with their labels.

    Example: pstamp sheet 1 --out stamps.png
    """
    from pstamp_core.tasks.report import draw_sheet

    count = draw_sheet(server_of(home), number, out)
    print(f"{count} stamps on {out}")


def config(ctx: typer.Context, home: Home = HOME, dbname: DbName = None, dbserver: DbServer = None) -> None:
    """Show the settings in force and where each comes from; passwords are not shown.

    Example: pstamp config
    """
    from pstamp_core.settings import in_force

    settings = console.settings_of(home, dbname=dbname, dbserver=dbserver)
    source = ctx.get_parameter_source("home")
    chosen = {
        "home": {"COMMANDLINE": "--home", "ENVIRONMENT": "PSTAMP_HOME"}.get(source.name if source else "", "default"),
        "database": _source_of_database(dbname, dbserver),
    }
    console.table(
        ("setting", "value", "from"), in_force(settings, {key: value for key, value in chosen.items() if value})
    )


def _source_of_database(dbname: str | None, dbserver: str | None) -> str:
    parts = ["PSTAMP_DB"] * bool(os.environ.get("PSTAMP_DB"))
    parts += [name for name, value in (("--dbname", dbname), ("--dbserver", dbserver)) if value]
    parts += ["PSTAMP_DB_PASSWORD"] * bool(os.environ.get("PSTAMP_DB_PASSWORD"))
    return " and ".join(parts)
