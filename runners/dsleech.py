"""`dsleech`: fetch all new filesets of a product."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runners import console, dsclient
from runners.dsclient import NoProxy, Timeout, Version, required

app = console.new_app()


@app.command()
def dsleech(
    uri: Annotated[str | None, typer.Option("--uri", "-u", help="The product; required.")] = None,
    folder: Annotated[Path, typer.Option("--dir", "-d", help="Where the files go.")] = Path(),
    last_fileset: Annotated[
        str | None, typer.Option("--last_fileset", "-l", help="Begin after this fileset.", show_default="the first")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", "-o", help="Replace files that are there; else they are passed over.")
    ] = False,
    apart: Annotated[
        bool, typer.Option("--apart", help="Give each fileset a folder of its own, since many have files of one name.")
    ] = False,
    recall: Annotated[bool, typer.Option("--recall", help="Begin after the fileset that was remembered.")] = False,
    remember: Annotated[
        bool, typer.Option("--remember", help="Remember the newest fileset up to which all files are there.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say which files and filesets were fetched.")
    ] = False,
    timeout: Timeout = 30.0,
    no_proxy: NoProxy = False,
    version: Version = False,
) -> None:
    """Fetch the files of all new filesets of a product, checked.

    What can't be had keeps the others from nothing; it is told, the first such trouble is how the command ends, and
    --remember does not go past it. Remembered is in ~/.dsleechrc, a line "address": "fileset" for each product.

    Example: dsleech --uri http://store.example.edu/ds/results/index.txt --dir stamps --apart --recall --remember
    """
    del version
    from pstamp_core.tasks import collect

    uri, marks = required("--uri", uri), Path.home() / ".dsleechrc"
    recalled = recall and last_fileset is None
    after = collect.recall(marks, uri) if recalled else last_fileset
    code, count = 0, 0
    with dsclient.asking(timeout, no_proxy) as terms, dsclient.moving(quiet=not verbose) as progress:
        for found in collect.leech(uri, folder, terms, dsclient.warn, after=after, recalled=recalled,
                                   overwrite=overwrite, apart=apart, progress=progress):  # fmt: skip
            count += 1
            for trouble in found.troubles:
                dsclient.warn(str(trouble))
                code = code or dsclient.exit_code(trouble)
            if verbose:
                print(f"{found.fileset}: files: {len(found.files)}")
            if remember and found.bookmark:
                collect.remember(marks, uri, found.bookmark)
    if verbose and not count:
        dsclient.warn(f"{uri}: no new filesets found")
    raise typer.Exit(code)


def main() -> None:
    """Run `dsleech`."""
    dsclient.main(app)
