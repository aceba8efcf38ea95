"""`request_finish`: publish the results of a request."""

from runners import console
from runners.task import program

app = program(
    "FINISH",
    "--req_id",
    ("--req_type", "--req_file", "--req_name", "--product", "--outdir"),
    ("--save-temps",),
    "No effect: there are no temporary files.",
    about="""Publish the results of a request that has no open job; reqfinish.<req_id>.log tells how it went.

Ends in 0 when the request is stopped, in its code when that failed (1-9). What another works on, or is not to be
finished yet, is left alone, with a line that says why.

Example: request_finish --req_id 3
""",
)


def main() -> None:
    """Run `request_finish`."""
    console.main(app)
