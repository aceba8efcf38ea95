"""`psmkreq`: make a request table from options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from runners import console
from runners.console import plain

app = console.new_app()

Text = str | None
Number = float | None


def _flag(name: str, text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(f"--{name}", help=text)
    return option


@app.command()
def psmkreq(
    req_name: Annotated[Text, typer.Option("--req_name", help="Name of the request.")] = None,
    req_name_base: Annotated[
        Text, typer.Option("--req_name_base", help="What its name begins with; the time follows.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file.", show_default="REQ_NAME.fits")
    ] = None,
    email: Annotated[Text, typer.Option("--email", help="EMAIL; the server refuses a request without one.")] = None,
    action: Annotated[str, typer.Option("--action", help="PROCESS or PREVIEW.")] = "PROCESS",
    targets: Annotated[
        Path | None,
        typer.Option("--list", help="Lines ROWNUM RA DEC [FILTER [MJD_MIN [MJD_MAX]]] [| comment], a row each."),
    ] = None,
    ra: Annotated[Text, typer.Option("--ra", help="Degrees, or h:m:s.")] = None,
    dec: Annotated[Text, typer.Option("--dec", help="Degrees, or d:m:s.")] = None,
    pixcenter: Annotated[bool, typer.Option("--pixcenter", "-pixcenter", help="The centre is --x and --y.")] = False,
    x: Annotated[Number, typer.Option("--x", help="Column of the centre, pixels.")] = None,
    y: Annotated[Number, typer.Option("--y", help="Row of the centre, pixels.")] = None,
    width: Annotated[float, typer.Option("--width", help="Pixels; arcsec with --arcseconds.")] = 100,
    height: Annotated[float, typer.Option("--height", help="As the width.")] = 100,
    arcseconds: Annotated[bool, _flag("arcseconds", "Width and height are arcsec.")] = False,
    whole_file: Annotated[bool, typer.Option("--whole-file", "--whole_file", help="The whole image.")] = False,
    job_type: Annotated[str, typer.Option("--job_type", help="stamp or get_image.")] = "stamp",
    req_type: Annotated[str, typer.Option("--req_type", help="bycoord, byid, byexp, bydiff or byskycell.")] = "bycoord",
    stage: Annotated[str, typer.Option("--stage", help="raw, chip, warp, diff, stack or stack_summary.")] = "stack",
    project: Annotated[str, typer.Option("--project", help="The survey.")] = "gpc1",
    id_: Annotated[Text, typer.Option("--id", help="Number, or name of the exposure.")] = None,
    component: Annotated[Text, typer.Option("--component", help="Chip or skycell.")] = None,
    tess_id: Annotated[Text, typer.Option("--tess_id", help="Tessellation.")] = None,
    survey: Annotated[Text, typer.Option("--survey", help="SURVEY_NAME, as 3PI.")] = None,
    release: Annotated[Text, typer.Option("--release", help="IPP_RELEASE, as 3PI.PV3.")] = None,
    data_group: Annotated[Text, typer.Option("--data_group", help="DATA_GROUP; % stands for any text.")] = None,
    reqfilt: Annotated[Text, typer.Option("--filter", help="REQFILT, as i.")] = None,
    mjd_min: Annotated[Number, typer.Option("--mjd_min", help="Earliest date, MJD in days.")] = None,
    mjd_max: Annotated[Number, typer.Option("--mjd_max", help="Latest date.")] = None,
    run_type: Annotated[Text, typer.Option("--run_type", help="RUN_TYPE, as warp_stack or deep.")] = None,
    fwhm_min: Annotated[Number, typer.Option("--fwhm_min", help="Best seeing, as the survey stores it.")] = None,
    fwhm_max: Annotated[Number, typer.Option("--fwhm_max", help="Worst seeing.")] = None,
    comment: Annotated[Text, typer.Option("--comment", help="Comes back with the results.")] = None,
    option_mask: Annotated[
        int | None, typer.Option("--option_mask", min=0, help="OPTION_MASK itself, instead of the flags below.")
    ] = None,
    convolved: Annotated[bool, _flag("convolved", "The convolved stack.")] = False,
    image: Annotated[bool, _flag("image", "The image, which comes in any case.")] = False,
    mask: Annotated[bool, _flag("mask", "The mask.")] = False,
    variance: Annotated[bool, _flag("variance", "The variance.")] = False,
    jpeg: Annotated[bool, _flag("jpeg", "A JPEG.")] = False,
    cmf: Annotated[bool, _flag("cmf", "The sources.")] = False,
    psf: Annotated[bool, _flag("psf", "The PSF model.")] = False,
    backmdl: Annotated[bool, _flag("backmdl", "The background model.")] = False,
    exptime: Annotated[bool, _flag("exptime", "The map of exposure times.")] = False,
    expnum: Annotated[bool, _flag("expnum", "The map of the numbers of inputs.")] = False,
    exptimejpeg: Annotated[bool, _flag("exptimejpeg", "A JPEG of the first map.")] = False,
    expnumjpeg: Annotated[bool, _flag("expnumjpeg", "A JPEG of the second map.")] = False,
    uncompressed: Annotated[bool, _flag("uncompressed", "Do not compress.")] = False,
    unconvolved: Annotated[bool, _flag("unconvolved", "The unconvolved stack, as without --convolved.")] = False,
    use_imfile_id: Annotated[bool, _flag("use_imfile_id", "The ID is that of a file.")] = False,
    inverse: Annotated[bool, _flag("inverse", "The inverse difference.")] = False,
    restorebackground: Annotated[bool, _flag("restorebackground", "Put the background back.")] = False,
    allroi: Annotated[bool, _flag("allroi", "Also components that the stamp only touches.")] = False,
    do_not_wait: Annotated[bool, _flag("do_not_wait", "Do not make deleted images again.")] = False,
) -> None:
    """Make a request table of one row, or of one for each line of a list.

    What the server would refuse in it is told on standard error; the table is made all the same.

    Example: psmkreq --req_name m31 --email ana@obs.example.edu --ra 0:42:44.3 --dec 41:16:09 --filter i --jpeg
    """
    from pstamp_core.tasks.submit import make_option_request

    flags = {
        "image": image, "mask": mask, "variance": variance, "jpeg": jpeg, "cmf": cmf, "psf": psf, "backmdl": backmdl,
        "exptime": exptime, "expnum": expnum, "exptimejpeg": exptimejpeg, "expnumjpeg": expnumjpeg,
        "uncompressed": uncompressed, "unconvolved": unconvolved, "use_imfile_id": use_imfile_id, "inverse": inverse,
        "restorebackground": restorebackground, "allroi": allroi, "do_not_wait": do_not_wait,
    }  # fmt: skip
    _, warnings = make_option_request(
        out=output, req_name=req_name, req_name_base=req_name_base, targets=targets,
        flags=[name for name, given in flags.items() if given], email=email, action=action, ra=ra, dec=dec,
        pixcenter=pixcenter, x=x, y=y, width=width, height=height, arcseconds=arcseconds, whole_file=whole_file,
        convolved=convolved, option_mask=option_mask, job_type=job_type, req_type=req_type, img_type=stage,
        project=project, id=id_, component=component, tess_id=tess_id, survey_name=survey, ipp_release=release,
        data_group=data_group, reqfilt=reqfilt, mjd_min=mjd_min, mjd_max=mjd_max, run_type=run_type,
        fwhm_min=fwhm_min, fwhm_max=fwhm_max, comment=comment,
    )  # fmt: skip
    for warning in warnings:
        print(f"pstamp: {plain(warning)}", file=sys.stderr)


def make(words: Sequence[str], name: str, file: Path) -> None:
    """Make the request `name` in `file` from the other options of a command line."""
    command = typer.main.get_command(app)
    with command.make_context("psmkreq", list(words)) as context:
        context.params |= {"req_name": name, "req_name_base": None, "output": file}
        command.invoke(context)


def main() -> None:
    """Run `psmkreq`."""
    console.main(app)
