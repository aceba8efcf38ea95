"""`pstamp_checkdependent`: look at what jobs wait for."""

from runners import console
from runners.task import program

app = program(
    "CHECK",
    "--dep_id",
    (
        "--stage_id",
        "--stage",
        "--component",
        "--imagedb",
        "--rlabel",
        "--label",
        "--fault_count",
        "--max_fault_count",
        "--logfile",
    ),
    ("--need_magic", "--parse-verbose", "--save-temps"),
    "No effect; taken for old callers.",
    about="""Look whether an image that jobs wait for is there, or gone; checkdep.<dep_id>.log tells what was found.

Ends in 0 when the dependent is full, waits, or was closed with its jobs; in its code when the look failed (1-9).
What another works on, or nobody waits for, is left alone, with a line that says why.

Example: pstamp_checkdependent --dep_id 7
""",
)


def main() -> None:
    """Run `pstamp_checkdependent`."""
    console.main(app)
