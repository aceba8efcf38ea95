"""`pstamp`: the command for people."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pstamp_core import __version__
from runners import console, db, look, order, serve, simtest, user
from runners.console import HOME, Home, server_of

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False,
    help="Postage stamps from astronomical images: send a request table, get a fileset of cutouts.",
)  # fmt: skip
request_app = typer.Typer(no_args_is_help=True, help="Make request files.")
images_app = typer.Typer(no_args_is_help=True, help="Your own images.")
project_app = typer.Typer(no_args_is_help=True, help="The surveys that stamps are cut from.")
app.add_typer(request_app, name="request")
app.add_typer(images_app, name="images")
app.add_typer(project_app, name="project")
app.add_typer(user.app, name="user")
app.add_typer(db.app, name="db")
app.add_typer(simtest.app, name="simtest")
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "To look": (
        look.status, look.why, look.dependents, look.show, look.history, look.log, look.results, look.sheet,
        look.config,
    ),
    "To order": (
        order.revert, order.stop, order.cancel, order.accept, order.hold, order.release, order.priority, order.clean,
    ),
}  # fmt: skip
for panel, commands in _PANELS.items():
    for each in commands:
        app.command(rich_help_panel=panel)(each)
app.command()(serve.serve)
app.command()(serve.pantasks)
app.command()(serve.task)


def _version(show: bool) -> None:
    if show:
        print(f"pstamp {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    del version


@app.command()
def init(
    home: Home = HOME,
    database: Annotated[
        str | None, typer.Option(envvar="PSTAMP_DB", help="mysql://user@host/name instead of a SQLite file.")
    ] = None,
) -> None:
    """Make a server, or complete one: settings, database, folders, and the project `local` for your own images.

    Example: pstamp init --home my-server
    """
    from pstamp_core.tasks.server import make_server

    server = make_server(home, database)
    print(f"server in {server.settings.home}; settings in {server.settings.home / 'pstamp.toml'}")


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="A FITS table PS1_PS_REQUEST.")],
    home: Home = HOME,
    label: Annotated[str | None, typer.Option(help="The queue it goes to.")] = None,
) -> None:
    """Queue a request file; prints the request's number.

    Example: pstamp submit request.fits
    """
    from pstamp_core.tasks.submit import submit as submit_file

    print(submit_file(server_of(home), file, label=label))


@app.command()
def run(
    home: Home = HOME,
    workers: Annotated[int, typer.Option(min=0, help="Processes that cut stamps; 0 is one for each core.")] = 0,
) -> None:
    """Do all there is to do, until nothing can move; then say what still waits, and for what.

    Example: pstamp run --workers 4
    """
    from pstamp_core.tasks.report import waiting
    from pstamp_core.tasks.run import run as run_all

    server = server_of(home)
    with console.progress() as progress:
        run_all(server, workers=workers, progress=progress)
    look.show_waiting(waiting(server))


@request_app.command("make")
def request_make(
    file: Annotated[Path, typer.Argument(help="The text form; - is standard input.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: REQ_NAME.fits")] = None,
    req_name: Annotated[str | None, typer.Option(help="Instead of the text's REQ_NAME.")] = None,
    email: Annotated[str | None, typer.Option(help="Instead of the text's EMAIL.")] = None,
) -> None:
    """Turn the text form of a request into a FITS table; prints the file's name.

    Example: pstamp request make stamps.txt --email ana@obs.example.edu
    """
    from pstamp_core.tasks.submit import MAX_TEXT, make_request_file

    text = sys.stdin.read(MAX_TEXT + 1) if str(file) == "-" else None
    path, warnings = make_request_file(file, text=text, out=out, req_name=req_name, email=email)
    for warning in warnings:
        print(f"pstamp: {warning}", file=sys.stderr)
    print(path)


@images_app.command("add")
def images_add(
    files: Annotated[list[Path], typer.Argument(help="FITS images with a celestial WCS.")],
    home: Home = HOME,
    project: Annotated[str, typer.Option(help="The PROJECT of request files.")] = "local",
) -> None:
    """Register FITS images, so that requests find them by position, filter, date and skycell (the file's name).

    Example: pstamp images add ~/images/*.fits
    """
    from pstamp_core.tasks.images import add_images

    server = server_of(home)
    with console.progress() as progress:
        added, refused = add_images(server, project, files, progress)
    console.table(
        ("image", "HDU", "stack", "skycell", "filter", "MJD"),
        [
            (
                each.path.name,
                each.hdu,
                each.stack_id,
                each.skycell_id,
                each.filter or "",
                "" if each.mjd_obs is None else f"{each.mjd_obs:.3f}",
            )
            for each in added
        ],
    )
    for each in refused:
        print(f"pstamp: refused {each.path}: {each.reason}", file=sys.stderr)
    print(f"{len(added)} images added to project {project}, {len(refused)} refused")
    if refused and not added:
        raise typer.Exit(5)


@project_app.command("add")
def project_add(
    name: Annotated[str, typer.Argument(help="The PROJECT of request files.")],
    imagedb: Annotated[str, typer.Option(help="Image database: a SQLite file or mysql://user@host/name.")],
    root: Annotated[str, typer.Option(help="Folder below which its relative image paths lie.")] = "",
    camera: Annotated[str, typer.Option(help="The camera's name.")] = "",
    oldest_diff: Annotated[int, typer.Option(help="First difference that can be made again (gpc1: 22779).")] = 0,
    oldest_unconv: Annotated[int, typer.Option(help="First stack with an unconvolved image (gpc1: 30067).")] = 0,
    home: Home = HOME,
) -> None:
    """Add a project, or change where its images are.

    Example: pstamp project add gpc1 --imagedb survey/simtest.db --root survey
    """
    from pstamp_core.tasks.server import add_project

    address = imagedb if "://" in imagedb else str(Path(imagedb).resolve())
    add_project(
        server_of(home), name, address, str(Path(root).resolve()) if root else "", camera,
        oldest_diff=oldest_diff, oldest_unconv=oldest_unconv,
    )  # fmt: skip
    print(f"project {name}: images from {address}")


def main() -> None:
    """Run `pstamp`."""
    console.main(app)
