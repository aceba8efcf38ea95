"""`pstampdump`: print a request or results table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from runners import console

app = console.new_app()


@app.command()
def pstampdump(
    file: Annotated[Path, typer.Argument(help="A FITS file; its first extension is the table.")],
    header: Annotated[bool, typer.Option("-header", help="First a line of what the header says.")] = False,
    headeronly: Annotated[bool, typer.Option("-headeronly", help="That line alone.")] = False,
    simple: Annotated[bool, typer.Option("-simple", help="A line of values for each row.")] = False,
) -> None:
    """Print the rows of a FITS table as metadata config text; -header is for request and results tables.

    Example: pstampdump -header request.fits
    """
    from pstamp_core.tasks.submit import dump_table

    text = dump_table(file, header=header or headeronly, rows=not headeronly, simple=simple)
    print(text, end="")
    if not headeronly and text.count("\n") == header:
        print(f"pstamp: {file}: the table has no rows", file=sys.stderr)


def main() -> None:
    """Run `pstampdump`."""
    console.main(app)
