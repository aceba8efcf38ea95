"""`dsfilesetls`: list the files of a fileset."""

from __future__ import annotations

from typing import Annotated

import typer

from runners import console, dsclient
from runners.dsclient import NoProxy, Timeout, Version, required

app = console.new_app()


@app.command()
def dsfilesetls(
    uri: Annotated[str | None, typer.Option("--uri", "-u", help="The fileset; required.")] = None,
    timeout: Timeout = 30.0,
    no_proxy: NoProxy = False,
    version: Version = False,
) -> None:
    """List the files of a fileset: address, name, bytes, md5 (0 if there is none), type, and the columns of the type.

    Example: dsfilesetls --uri http://store.example.edu/ds/results/night_7
    """
    del version
    from pstamp_core.tasks.collect import file_rows

    uri = required("--uri", uri)
    with dsclient.asking(timeout, no_proxy) as terms:
        rows, odd = file_rows(uri, terms)
    dsclient.show(uri, rows, odd, "files")


def main() -> None:
    """Run `dsfilesetls`."""
    dsclient.main(app)
