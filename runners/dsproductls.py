"""`dsproductls`: list the filesets of a product."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console, dsclient
from runners.dsclient import NoProxy, Timeout, Version, required

app = console.new_app()


@app.command()
def dsproductls(
    uri: Annotated[str | None, typer.Option("--uri", "-u", help="The product; required.")] = None,
    last_fileset: Annotated[
        str | None, typer.Option("--last_fileset", "-l", help="Only those registered after this one.")
    ] = None,
    extra: Annotated[
        bool, typer.Option("--extra", "-e", help="Also the columns that the product has of its own.")
    ] = False,
    timeout: Timeout = 30.0,
    no_proxy: NoProxy = False,
    version: Version = False,
) -> None:
    """List the filesets of a product, the newest last: address, name, time of registration, type.

    Example: dsproductls --uri http://store.example.edu/ds/results --last_fileset night_7
    """
    del version
    from pstamp_core.tasks.collect import FILESET_COLUMNS, fileset_rows

    uri = required("--uri", uri)
    with dsclient.asking(timeout, no_proxy) as terms:
        rows, odd = fileset_rows(uri, terms, last_fileset)
    dsclient.show(uri, [row if extra else row[:FILESET_COLUMNS] for row in rows], odd, "filesets")


def main() -> None:
    """Run `dsproductls`."""
    dsclient.main(app)
