"""Putting images away again that were made for somebody, when nobody needs them any more.

`pstamp_queue_update_cleanup.pl`, which did so only when no dependent was outstanding, and did not look at jobs.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from peewee import JOIN, fn

from pstamp_core.database import redact
from pstamp_core.faults import PstampError, UserError
from pstamp_core.imagedb import Key, made_again, put_away, survey_of
from pstamp_core.imagedb.components import MADE_AGAIN
from pstamp_core.machines.job import OPEN
from pstamp_core.machines.machine import DAY
from pstamp_core.store import pstampDependent, pstampJob, pstampProject
from pstamp_core.tasks import logs
from pstamp_core.tasks.dependents import image_database
from pstamp_core.tasks.server import Server

log = logging.getLogger("pstamp")

_COMPONENT = ("$.imagedb", "$.stage", "$.stage_id", "$.component")
"""Where the parameters of a job name its component."""


@dataclass(frozen=True)
class Tidied:
    """What became of the runs of an image database that were made again.

    Attributes
    ----------
    imagedb : str
        Its address, without the password.
    queued : int
        Runs that are to be cleaned now.
    needed : int
        Runs that are kept because jobs need something of them.
    recent : int
        Runs that are kept because they were made a short while ago.
    later : int
        Runs that are left for the next time, since there are more than were asked for.
    trouble : PstampError or None
        Why nothing could be done, if so.
    """

    imagedb: str
    queued: int = 0
    needed: int = 0
    recent: int = 0
    later: int = 0
    trouble: PstampError | None = None


def pins(server: Server, dbname: str) -> set[Key]:
    """Return the components of an image database that must not be cleaned.

    These are the images of open jobs and, as long as such an image is not there, all that it has to be made of, down to
    the chips: it is read off what is there, so that it is never out of step. A dependent for which no job waits needs
    nothing. A job that has not moved for `Settings.pin_days`, nor has its dependent, holds nothing any more; should its
    turn come nevertheless, it has its image made again.

    Raises
    ------
    RetryableError
        A database does not answer.
    """
    with server.store.reading():
        now = server.store.now()
        since = now - int(server.settings.pin_days * DAY) if server.settings.pin_days else 0
        component = fn.JSON_EXTRACT(pstampJob.params, *_COMPONENT).coerce(False)
        query: Any = (
            pstampJob.select(component)
            .join(pstampDependent, JOIN.LEFT_OUTER, on=(pstampDependent.dep_id == pstampJob.dep_id))
            .where(pstampJob.state.in_(OPEN), fn.JSON_VALID(pstampJob.params) == 1)
            .where((pstampJob.changed_at >= since) | (pstampDependent.changed_at >= since))
            .distinct()
        )
        found = [json.loads(text) for (text,) in query.tuples() if text]
    # What has no image (an answer, a job added by hand) lacks some of them: MariaDB leaves these out.
    jobs = [each[1:] for each in found if len(each) == len(_COMPONENT) and None not in each and each[0] == dbname]
    wanted = {(stage, number, name) for stage, number, name in jobs if stage in MADE_AGAIN}
    imagedb, policy = image_database(server, dbname)
    return wanted | set(survey_of(imagedb, wanted, policy, now).parts)


def queue_update_cleanup(
    server: Server, limit: int, imagedb: str | None = None, labels: str | None = None
) -> list[Tidied]:
    """Let whoever cleans runs have those that were made again, and that nobody needs; return what became of them.

    Runs are cleaned as wholes, so that one is kept if anything of it is needed. It is also kept for
    `Settings.keep_made_days` after the last of it was made, since who asks once may ask again. Which runs count as made
    again is told at `pstamp_core.imagedb.made_again`. Old logs (`logs.delete_old`) are deleted on the way.

    Parameters
    ----------
    server : Server
        The server.
    limit : int
        How many runs of each image database, at most.
    imagedb : str, optional
        One image database, as its project has it; else all.
    labels : str, optional
        A LIKE pattern: runs under such labels alone (IPP: ``ps_ud%``).

    Raises
    ------
    UserError
        No project has such an image database. An image database that does not answer is told in the result.
    """
    with server.store.reading():
        names = sorted({project.dbname for project in pstampProject.select()})
    if imagedb is not None and imagedb not in names:
        raise UserError(f"image database {redact(imagedb)}: expected one of {', '.join(map(redact, names))}")
    logs.delete_old(server)
    return [_tidy(server, name, limit, labels) for name in names if imagedb in (None, name)]


def _tidy(server: Server, dbname: str, limit: int, labels: str | None) -> Tidied:
    try:
        imagedb, _ = image_database(server, dbname)
        runs = made_again(imagedb, labels)
        if not runs:
            return Tidied(redact(dbname))
        pinned = {key[:2] for key in pins(server, dbname)}
        free = [run for run in runs if (run.stage, run.stage_id) not in pinned]
        kept_since = server.store.now() - int(server.settings.keep_made_days * DAY)
        old = [run for run in free if run.made_at <= kept_since]
        return Tidied(
            redact(dbname), put_away(imagedb, old[:limit]), len(runs) - len(free), len(free) - len(old),
            len(old[limit:]),
        )  # fmt: skip
    except PstampError as error:
        return Tidied(redact(dbname), trouble=error)


def tidy(server: Server, limit: int) -> int:
    """Do `queue_update_cleanup` for all image databases, with troubles in the log; return how many runs it queued."""
    found = queue_update_cleanup(server, limit)
    for each in found:
        if each.trouble:
            log.warning("update cleanup of %s: %s", each.imagedb, each.trouble)
    return sum(each.queued for each in found)
