"""`pstamp_parser_run`: parse a request."""

from runners import console
from runners.task import program

app = program(
    "PARSE",
    "--req_id",
    ("--uri", "--product", "--outdir", "--label"),
    ("--need_magic",),
    fault_ends=False,
    about="""Parse a request file into jobs; psparse.<req_id>.log in the request's work directory tells how it went.

Ends in 0 when the outcome is on the request, also when that is a fault. What another works on, or is not to be
parsed, is left alone, with a line that says why.

Example: pstamp_parser_run --req_id 3
""",
)


def main() -> None:
    """Run `pstamp_parser_run`."""
    console.main(app)
