"""`dsget`: fetch one file from a data store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from runners import console, dsclient
from runners.dsclient import NoProxy, Timeout, Version, required

app = console.new_app()


@app.command()
def dsget(
    uri: Annotated[str | None, typer.Option("--uri", "-u", help="The file; required.")] = None,
    filename: Annotated[Path | None, typer.Option("--filename", "-f", help="Where it goes; required.")] = None,
    size: Annotated[int | None, typer.Option("--bytes", min=0, help="What its size must be.")] = None,
    md5: Annotated[str | None, typer.Option("--md5", help="What its md5 must be, in hexadecimal digits.")] = None,
    compress: Annotated[
        bool, typer.Option("--compress", "-c", help="Ask for a compressed copy, and unpack it before it is checked.")
    ] = False,
    nebulous: Annotated[bool, typer.Option("--nebulous", "-n", help="Refused: there is no Nebulous here.")] = False,
    volume: Annotated[str | None, typer.Option("--volume", "-v", help="Refused, as --nebulous.")] = None,
    copies: Annotated[int | None, typer.Option("--copies", help="Refused, as --nebulous.")] = None,
    xattr: Annotated[str | None, typer.Option("--xattr", "-x", help="Refused, as --nebulous.")] = None,
    server: Annotated[str | None, typer.Option("--server", "-s", help="Refused, as --nebulous.")] = None,
    timeout: Timeout = 30.0,
    no_proxy: NoProxy = False,
    version: Version = False,
) -> None:
    """Fetch one file, checked, all of it or nothing; a second call goes on where the first one was cut off.

    What is there of a file lies under a private name beside it, .NAME.....part, if the server can send the rest.

    Example: dsget --uri http://store.example.edu/ds/results/night_7/results.fits --filename results.fits
    """
    del version
    if nebulous or volume or copies is not None or xattr or server:
        raise typer.BadParameter("pstamp knows no Nebulous, for which --nebulous, --volume, --copies, --xattr and "
                                 "--server are; name a file with --filename")  # fmt: skip
    if md5 is not None and not re.fullmatch(r"[0-9a-fA-F]{32}", md5):
        raise typer.BadParameter(f"--md5 {md5!r}: expected 32 hexadecimal digits")
    from pstamp_core.tasks.collect import get_file

    uri, filename = required("--uri", uri), required("--filename", filename)
    with dsclient.asking(timeout, no_proxy) as terms, dsclient.moving() as progress:
        get_file(uri, filename, terms, size=size, md5=md5 and md5.lower(), compress=compress, progress=progress)


def main() -> None:
    """Run `dsget`."""
    dsclient.main(app)
