"""`pstamp_cleanup`: delete the files of a request."""

from runners import console
from runners.task import program

app = program(
    "CLEAN",
    "--req_id",
    ("--uri", "--product", "--name", "--outdir", "--reqType"),
    about="""Delete the fileset and the work directory of a request in state goto_cleaned; its rows and history stay.

Ends in 0 when the request is cleaned, in its code when that failed (1-9). What another works on, or is not to be
deleted, is left alone, with a line that says why. There is no log file, since that would be deleted too.

Example: pstamp_cleanup --req_id 3
""",
)


def main() -> None:
    """Run `pstamp_cleanup`."""
    console.main(app)
