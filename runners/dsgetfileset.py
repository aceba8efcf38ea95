"""`dsgetfileset`: fetch the files of a fileset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runners import console, dsclient
from runners.dsclient import NoProxy, Timeout, Version, required

app = console.new_app()


@app.command()
def dsgetfileset(
    uri: Annotated[str | None, typer.Option("--uri", "-u", help="The fileset; required.")] = None,
    outdir: Annotated[Path | None, typer.Option("--outdir", "-o", help="Where they go; required.")] = None,
    skip_checks: Annotated[bool, typer.Option("--skip-checks", help="Do not check sizes and md5.")] = False,
    unpack: Annotated[
        bool, typer.Option("--unpack", help="Unpack compressed FITS images, and .tgz archives, which stay.")
    ] = False,
    first_file: Annotated[str | None, typer.Option("--first-file", help="Begin with this file of the list.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say at the end how many files there were.")] = False,
    timeout: Timeout = 30.0,
    no_proxy: NoProxy = False,
    version: Version = False,
) -> None:
    """Fetch the files of a fileset in their order, checked; the first that can't be had ends it.

    Example: dsgetfileset --uri http://store.example.edu/ds/results/night_7 --outdir night_7
    """
    del version
    from pstamp_core.tasks.collect import get_fileset

    uri, outdir = required("--uri", uri), required("--outdir", outdir)
    with dsclient.asking(timeout, no_proxy) as terms, dsclient.moving() as progress:
        count = get_fileset(uri, outdir, terms, dsclient.warn, first=first_file, check=not skip_checks, unpack=unpack,
                            progress=progress)  # fmt: skip
    if not count:
        dsclient.warn(f"{uri}: no files found")
    if verbose:
        print(f"files: {count}")


def main() -> None:
    """Run `dsgetfileset`."""
    dsclient.main(app)
