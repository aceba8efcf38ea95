"""`dsrootls`: list the products of a data store."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console, dsclient
from runners.dsclient import NoProxy, Timeout, Version, required

app = console.new_app()


@app.command()
def dsrootls(
    uri: Annotated[str | None, typer.Option("--uri", "-u", help="The data store; required.")] = None,
    timeout: Timeout = 30.0,
    no_proxy: NoProxy = False,
    version: Version = False,
) -> None:
    """List the products of a data store: address, name, newest fileset (or none), time of that, type, description.

    An address is http://..., https://..., file:///... or an absolute path, with or without /index.txt, here and for the
    other clients of data stores (dsproductls, dsfilesetls, dsget, dsgetfileset, dsleech). They end in 0, also when
    nothing was found; in the status of HTTP less 300 (404: 104), 200 when there is no answer; in 2 when the command
    line is wrong, 3 when an option is missing; else in IPP's codes.

    Example: dsrootls --uri http://store.example.edu/ds
    """
    del version
    from pstamp_core.tasks.collect import product_rows

    uri = required("--uri", uri)
    with dsclient.asking(timeout, no_proxy) as terms:
        rows, odd = product_rows(uri, terms)
    if rows:
        print("# uri product last_fileset time_registered type description")
    dsclient.show(uri, rows, odd, "products")


def main() -> None:
    """Run `dsrootls`."""
    dsclient.main(app)
