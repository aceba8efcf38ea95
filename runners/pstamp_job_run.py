"""`pstamp_job_run`: cut stamps."""

from runners import console
from runners.task import program

app = program(
    "RUN",
    "--job_id",
    ("--job_type", "--rownum", "--output_base", "--options"),
    ("--save-temps",),
    "No effect: there are no temporary files.",
    about="""Cut the stamps of a job, or of several jobs image by image; <output_base>.log tells how each went.

Ends in 0 when the job is done or has its answer (10 and up), in its code when the fault is ours (1-9). What another
works on, or can't run now, is left alone, with a line that says why.

Example: pstamp_job_run --job_id 12
""",
)


def main() -> None:
    """Run `pstamp_job_run`."""
    console.main(app)
