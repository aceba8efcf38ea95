"""`pstamp_request_file`: turn the text form of a request into a FITS table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from runners import console
from runners.console import plain

app = typer.Typer(
    add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)  # fmt: skip


@app.command()
def pstamp_request_file(
    input_: Annotated[Path, typer.Option("--input", "-i", help="The text form; - is standard input.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file.", show_default="REQ_NAME.fits")
    ] = None,
    req_name: Annotated[str | None, typer.Option("--req_name", "-r", help="Instead of the text's REQ_NAME.")] = None,
    email: Annotated[str | None, typer.Option("--email", help="Instead of the text's EMAIL.")] = None,
) -> None:
    """Turn the text form of a request into a FITS table; what is changed or dropped is told on standard error.

    Example: pstamp_request_file --input stamps.txt --email ana@obs.example.edu
    """
    from pstamp_core.tasks.submit import MAX_TEXT, make_request_file

    text = sys.stdin.read(MAX_TEXT + 1) if str(input_) == "-" else None
    _, warnings = make_request_file(input_, text=text, out=output, req_name=req_name, email=email)
    for warning in warnings:
        print(f"pstamp: {plain(warning)}", file=sys.stderr)


def main() -> None:
    """Run `pstamp_request_file`."""
    console.main(app)
