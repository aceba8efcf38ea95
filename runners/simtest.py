"""`pstamp simtest`: a small simulated survey, for demonstrations and tests, whose images are deleted and made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runners import console
from simtest.orders import Order, What, place

app = typer.Typer(
    no_args_is_help=True,
    help="A small simulated survey, whose images are deleted and made again as IPP's are.",
)

Folder = Annotated[Path, typer.Argument(help="The survey.")]
StageId = Annotated[int, typer.Argument(help="Number of the run, e.g. warp_id.")]
Component = Annotated[str, typer.Argument(help="Class or skycell.")]
StageOrDestreak = Annotated[str, typer.Argument(help="chip, warp, diff, or destreak with the number of a chip run.")]


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="Where the survey goes; made if it is not there.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same survey.")] = 1,
    exposures: Annotated[int, typer.Option(min=5, max=99, help="How many exposures.")] = 6,
    size: Annotated[int, typer.Option(min=80, max=2000, help="Columns of a chip; all else scales with it.")] = 400,
    magic: Annotated[
        bool, typer.Option("--magic", help="With the satellite's streak removed, for a project that wants that.")
    ] = False,
) -> None:
    """Make a survey: images of all stages, and an image database with gpc1's tables.

    Example: pstamp simtest make survey && pstamp project add gpc1 --imagedb survey/simtest.db --root survey
    """
    from simtest.survey import simulate

    with console.progress() as progress:
        survey = simulate(folder, seed=seed, exposures=exposures, size=size, magic=magic, progress=progress)
    print(f"survey in {survey.folder}; image database {survey.database}")


@app.command()
def clean(
    folder: Folder,
    stage: Annotated[str, typer.Argument(help="chip, warp or diff")],
    stage_id: StageId,
    component: Annotated[str | None, typer.Argument(help="Class or skycell.", show_default="all of the run")] = None,
) -> None:
    """Delete pixels as IPP's cleanup does: small files stay, and the pixels can be made again.

    Example: pstamp simtest clean survey warp 40001 skycell.1234.044
    """
    from simtest.components import clean as clean_pixels

    print(f"{clean_pixels(folder, stage, stage_id, component)} images cleaned in {folder}")


@app.command()
def process(folder: Folder, stage: StageOrDestreak, stage_id: StageId, component: Component) -> None:
    """Make the files of one component again from those of its inputs; its states stay as they are.

    Ends in the fault that was ordered, if one was. An update server starts it as: python -m simtest.process ...

    Example: pstamp simtest process survey warp 40001 skycell.1234.044
    """
    from simtest.process import main

    raise typer.Exit(main([str(folder), stage, str(stage_id), component]))


@app.command()
def order(
    folder: Folder,
    stage: StageOrDestreak,
    stage_id: StageId,
    component: Component,
    what: Annotated[What, typer.Argument(help="What goes wrong when it is made; nothing takes it back.")],
    times: Annotated[int, typer.Option(help="In how many runs; 0 is in all.")] = 0,
    fault: Annotated[int, typer.Option(help="What it fails with.")] = 2,
) -> None:
    """Order a fault in advance: fail, hang until killed, vanish (of its inputs), purge (of its run).

    Example: pstamp simtest order survey warp 40001 skycell.1234.044 fail --times 2
    """
    place(folder, stage, stage_id, component, Order(what, times, fault))
    runs = "all runs" if not times else "the next run" if times == 1 else f"the next {times} runs"
    goes_wrong = f"{what.value}{f' with fault {fault}' * (what is What.FAIL)} in {runs}"
    print(f"{stage} {stage_id} {component}: {'nothing is ordered' if what is What.NOTHING else goes_wrong}")


@app.command()
def restore(folder: Folder) -> None:
    """Make all deleted pixels again, and set what has them full, as an update would.

    Example: pstamp simtest restore survey
    """
    from simtest.survey import restore_all

    print(f"{restore_all(folder)} images made again in {folder}")
