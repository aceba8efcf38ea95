"""The finder: which skycells, exposures and chips hold a position, and at which of their pixels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pstamp_core.faults import FinalError, RetryableError, UserError
from pstamp_core.formats import parse_targets
from pstamp_core.imagedb import Spot
from pstamp_core.store import pstampProject
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.parse import Access, look_up_user
from pstamp_core.tasks.server import Server

ON_SKYCELLS = ("stack", "warp", "diff")
"""The stages whose images lie on skycells."""
STAGES = (*ON_SKYCELLS, "chip", "raw")
MAX_POSITIONS = 20
"""Positions that are looked up at a time."""
MAX_IMAGES = 100
"""Images of one project and stage that are told of one position, the newest first."""

MAX_LOOKED_AT = 10_000
"""Images after which no further position is looked up."""


@dataclass(frozen=True)
class Skycell:
    """A skycell that holds a position, and the pixel (FITS: the first is centred on 1, 1) at which it does."""

    project: str
    tess_id: str
    skycell: str
    x: float
    y: float


@dataclass(frozen=True)
class Images:
    """The images of one stage that hold a position: how many there are, and the newest `MAX_IMAGES` of them."""

    project: str
    stage: str
    count: int
    newest: list[Spot]


@dataclass(frozen=True)
class Found:
    """What holds a position.

    Attributes
    ----------
    ra, dec : float
        The position, degrees.
    comment : str
        What stood behind the bar in its line.
    skycells : list of Skycell
        Those with an image that can be asked for.
    images : list of Images
        By project and stage.
    problems : list of str
        What could not be looked up, and why.
    """

    ra: float
    dec: float
    comment: str
    skycells: list[Skycell]
    images: list[Images]
    problems: list[str]


def find_images(
    server: Server, account: Account, text: str, *, stages: Collection[str] = STAGES, reqfilt: str | None = None
) -> list[Found]:
    """Return what holds each of some positions, in all projects that an account may see.

    The images are those that a row of REQ_TYPE bycoord would match.

    Parameters
    ----------
    server : Server
        The server.
    account : Account
        Who asks; its access level decides what there is.
    text : str
        The positions, as `pstamp_core.formats.parse_targets` reads them without numbers; filters and dates in it are
        passed over.
    stages : collection of str
        Some of `STAGES`.
    reqfilt : str, optional
        REQFILT.

    Raises
    ------
    UserError
        21: a line is malformed, there are more than `MAX_POSITIONS`, or RA or Dec is out of range.
    """
    targets, _ = parse_targets(text, numbered=False, most=MAX_POSITIONS, source="positions")
    access = access_of(server, account)
    projects = usable_projects(server, access)
    found: list[Found] = []
    for target in targets:
        ra, dec = target["center_x"], target["center_y"]
        if not (-180 <= ra <= 360 and -90 <= dec <= 90):
            raise UserError(f"position {ra:g} {dec:g}: expected RA from -180 to 360 and Dec from -90 to 90 degrees")
        here = Found(ra, dec, target["comment"] or "", [], [], [])
        if sum(images.count for each in found for images in each.images) > MAX_LOOKED_AT:
            here.problems.append("not looked up, since the positions before it have many images; ask for it alone")
        else:
            for project in projects:
                _look(server, access, project, here, stages, reqfilt)
        found.append(here)
    return found


def _look(
    server: Server, access: Access, project: pstampProject, here: Found, stages: Collection[str], reqfilt: str | None
) -> None:
    """Add to `here` what holds its position in one project."""
    limit = access.limit(project.name)
    skycells: dict[tuple[str, str], Skycell] = {}
    for stage in stages:
        try:
            spots = server.imagedb(project).spots(
                stage, (here.ra, here.dec), reqfilt=reqfilt, mjd_max=0.0 if stage == "stack" else limit
            )
        except FinalError:  # nothing there
            continue
        except UserError as error:  # too much there
            here.problems.append(f"{project.name}, {stage}: {error}")
            continue
        except RetryableError:  # where the database is, is nothing for users
            here.problems.append(f"{project.name}: its images can't be looked up now; try again later")
            return
        spots.sort(key=lambda spot: spot.mjd_obs or 0.0, reverse=True)
        here.images.append(Images(project.name, stage, len(spots), spots[:MAX_IMAGES]))
        if stage in ON_SKYCELLS:
            for spot in spots:
                name = spot.tess_id or "", spot.component
                skycells.setdefault(name, Skycell(project.name, *name, spot.x, spot.y))
    here.skycells.extend(skycells[name] for name in sorted(skycells))


def access_of(server: Server, account: Account) -> Access:
    """Return what an account may see of the projects."""
    return Access(server, look_up_user(server, account.email))


def usable_projects(server: Server, access: Access) -> list[pstampProject]:
    """Return the projects of which one may see anything, in the order in which they were added."""
    if access.user.level < 0:
        return []
    with server.store.reading():
        projects = list(pstampProject.select().order_by(pstampProject.proj_id))
    return [project for project in projects if access.fault(project.name) is None]
