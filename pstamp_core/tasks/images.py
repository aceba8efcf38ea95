"""Registering a user's own images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peewee import fn

from pstamp_core.faults import Fault, UserError
from pstamp_core.imagedb import Added, Refused
from pstamp_core.imagedb import add_images as register
from pstamp_core.store import pstampProject
from pstamp_core.tasks.server import Progress, Server


def add_images(
    server: Server, project: str, files: Sequence[Path], progress: Progress | None = None
) -> tuple[list[Added], list[Refused]]:
    """Register FITS images under `project`, so that requests find them as stacks.

    Returns
    -------
    tuple of list of Added and list of Refused
        The images that went in, and the files that did not, with the reason.

    Raises
    ------
    UserError
        Fault 22: there is no such project.
    """
    with server.store.reading():
        row = pstampProject.get_or_none(fn.LOWER(pstampProject.name) == project.lower())
    if row is None:
        raise UserError(
            f"there is no project {project!r}; add it with: pstamp project add", Fault.PSTAMP_UNKNOWN_PROJECT
        )
    told = progress or (lambda _what, _done, _total: None)
    return register(server.imagedb(row), files, progress=lambda done, total: told("read images", done, total))
