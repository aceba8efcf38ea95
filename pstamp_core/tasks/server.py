"""A server: its settings with the store, the data store and the image databases that they name."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peewee import ModelSelect, fn

from pstamp_core.database import create_tables, must_exist, session
from pstamp_core.datastore import TABLES as DATASTORE_TABLES
from pstamp_core.datastore import DataStore
from pstamp_core.faults import (
    Fault,
    LeaseLost,
    PstampError,
    RetryableError,
    UserError,
    fault_name,
    is_final,
    is_retryable,
)
from pstamp_core.imagedb import Facts, Image, ImageDB, Verdict, classify, needs_magic
from pstamp_core.machines import Args, Event
from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.settings import FILE_NAME, Settings, default_settings_text, load_settings
from pstamp_core.store import (
    MACHINES,
    Label,
    Store,
    Worked,
    fire,
    moment,
    pstampAccessLevel,
    pstampDependent,
    pstampJob,
    pstampProject,
    pstampRequest,
)
from pstamp_core.store.migrations import check_version, migrate
from pstamp_core.tasks import logs

log = logging.getLogger("pstamp")

LONGEST_BACKOFF = 3600.0
LOCAL = "local"
"""The project of a user's own images."""


class Server:
    """Everything that a task needs.

    Parameters
    ----------
    settings : Settings
        The server's settings.
    store : Store, optional
        Its database, if not the one that the settings name (for tests).

    Raises
    ------
    RetryableError
        Fault 3: the database has no tables, or those of another version; the message says what mends that.
    """

    def __init__(self, settings: Settings, store: Store | None = None) -> None:
        self.settings = settings
        if store is None:
            must_exist(settings.address)
            store = Store(settings.address)
            check_version(store)
        self.store = store
        self.datastore = DataStore(settings.datastore, self.store.db)
        self.worker = f"{socket.gethostname()[:24]}.{os.getpid()}.{secrets.token_hex(4)}"
        self._imagedbs: dict[str, ImageDB] = {}

    def imagedb(self, project: pstampProject) -> ImageDB:
        """Return the image database of `project`."""
        return self.imagedb_at(project.dbname, project.imageroot)

    def imagedb_at(self, dbname: str, imageroot: str) -> ImageDB:
        """Return the image database `dbname`, whose relative image paths lie below `imageroot`."""
        if dbname not in self._imagedbs:
            address = self.settings.locate(dbname)
            must_exist(address)
            root = self.settings.home / imageroot if imageroot else None
            self._imagedbs[dbname] = ImageDB(address, root)
        return self._imagedbs[dbname]

    def args(self, *, who: str | None = None, fault: int = 0, open_jobs: int = 0, operator: bool = False) -> Args:
        """Return what comes with an event of this worker, now; an `operator` may retry beyond the ceiling."""
        settings = self.settings
        return Args(
            now=self.store.now(),
            who=who or self.worker,
            fault=fault,
            owner=self.worker,
            lease=int(settings.lease_seconds * MICROSECONDS),
            delay=int(settings.check_seconds * MICROSECONDS),
            backoff=self._backoff,
            ceiling=None if operator else settings.retry_ceiling,
            open_jobs=open_jobs,
        )

    def _backoff(self, count: int) -> int:
        return int(min(self.settings.retry_seconds * 2.0 ** (count - 1), LONGEST_BACKOFF) * MICROSECONDS)

    def work_directory(self, request: pstampRequest) -> Path:
        """Return where the files of `request` go: by the day (UTC) it was submitted, so that every try finds it."""
        return self.settings.work / f"{request.registered:%Y/%m/%d}" / str(request.req_id)

    def claim(self, queue: Callable[[int], ModelSelect[Any]], limit: int, number: int | None = None) -> list[Any]:
        """Claim up to `limit` rows of a queue; of one `number` only, if that is given, and only if it is in the queue.

        Races tolerated: a row that another worker was quicker to take is left out.
        """

        def work() -> list[Any]:
            args = self.args()
            return self.store.claim(narrowed(queue(args.now), number), args, limit)

        return self.store.work(work)

    def work_through(self, queue: Callable[[int], ModelSelect[Any]], limit: int, work: Callable[[Any], object]) -> int:
        """Claim up to `limit` rows of a queue and do `work` on each; return how many were claimed.

        None is claimed before its turn: its lease would run while it waits, and when the worker hangs on another row
        and is killed, it would share the fault.
        """
        for count in range(limit):
            claimed = self.claim(queue, 1)
            if not claimed:
                return count
            for row in claimed:
                with self.attempt(row):
                    work(row)
        return limit

    def record(self, row: Worked, error: BaseException) -> None:
        """Store what an attempt on `row` failed with; the row may be ours no longer, then nothing is stored."""
        problem = as_pstamp_error(error)
        unforeseen = None if isinstance(error, (PstampError, OSError)) else error
        if unforeseen:
            log.error("%s %s", MACHINES[type(row)].name, row.id_, exc_info=unforeseen)
        # A request has no final faults: what the user did wrong is a job's answer, so this is a bug of ours.
        fault = (
            Fault.PS_EXIT_PROG_ERROR if is_final(problem.fault) and isinstance(row, pstampRequest) else problem.fault
        )
        text = {pstampJob: "sentence", pstampDependent: "reason"}.get(type(row))
        said = logs.one_line(str(problem))
        columns: dict[str, Any] = {text: said} if text else {}
        args = self.args(fault=fault)
        try:
            if isinstance(problem, LeaseLost):
                raise problem
            (failed,) = self.store.work(lambda: fire([row], Event.FAULT, args, note=said, **columns))
        except LeaseLost as lost:
            log.warning("%s", lost)
            logs.end(self, row, f"the result is thrown away: {lost}", args.now)
            return
        what = f"fault {fault} ({fault_name(fault)}): {said}"
        logs.end(self, row, what + self._next_try(failed), args.now, unforeseen)

    def _next_try(self, row: Worked) -> str:
        if not is_retryable(row.fault):
            return "; this is final"
        if row.fault_count >= self.settings.retry_ceiling:
            return f"; no try is left after {row.fault_count}"
        return f"; tried again after {moment(row.retry_at):%Y-%m-%d %H:%M:%S} UTC"

    @contextmanager
    def attempt(self, row: Worked) -> Iterator[None]:
        """Turn any exception of the block into the outcome of the attempt on the claimed `row`."""
        try:
            yield
        except Exception as error:
            self.record(row, error)


class Beat:
    """Tells a worker when to say again that it is at work: each time that a third of its lease is over."""

    def __init__(self, server: Server) -> None:
        self._interval = server.settings.lease_seconds / 3
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether it is time; if so, the next third begins."""
        now = time.monotonic()
        due = now - self._last > self._interval
        if due:
            self._last = now
        return due


def narrowed(query: ModelSelect[Any], number: int | None) -> ModelSelect[Any]:
    """Return a queue's query for one row, or the query itself."""
    return query if number is None else query.where(query.model.key() == number)


def as_pstamp_error(error: BaseException) -> PstampError:
    """Return any exception as one of ours: an OSError is 2, an unforeseen one 4."""
    if isinstance(error, PstampError):
        return error
    if isinstance(error, OSError):
        name = f" {error.filename}" if error.filename else ""
        return RetryableError(f"{error.strerror or type(error).__name__}{name}")
    if isinstance(error, MemoryError):
        return RetryableError("out of memory")
    return PstampError(f"{type(error).__name__}: {error}", Fault.PS_EXIT_PROG_ERROR)


TABLE_OF = {machine.name: table for table, machine in MACHINES.items()}
"""The table of ``request``, ``job`` and ``dependent``."""


def find(machine: str, number: int) -> Worked:
    """Return a row by the name of its machine and its number, within a session or unit of work.

    Raises
    ------
    UserError
        There is none.
    """
    if machine not in TABLE_OF:
        raise UserError(f"{machine!r}: expected one of {', '.join(TABLE_OF)}")
    table = TABLE_OF[machine]
    row = table.get_or_none(table.key() == number)
    if row is None:
        raise UserError(f"there is no {machine} {number}")
    return row


def known_label(name: str) -> str:
    """Return a label as the table Label spells it, found without regard to case; `name` itself if it is not there.

    Queues join by the exact spelling, which an index serves.
    """
    label = Label.get_or_none(fn.LOWER(Label.label) == name.lower())
    return str(label.label) if label else name


NO_WAIT = "the request does not wait (OPTION_MASK bit 32768)"


def verdict_on(project: pstampProject | None, image: Image, *, wait: bool = True) -> Verdict:
    """Return whether the pixels of an image of `project` can be had, as far as its own row tells.

    The checker of dependents goes by the same rules, with more facts: what it would be made of, what was tried.
    """
    facts = Facts(
        image.stage, image.stage_id, image.run_state, image.data_state, image.fault, image.quality, image.magicked,
        _needs_magic(project, image), project.oldest_diff if project else 0,
    )  # fmt: skip
    return classify(facts, no_wait="" if wait else NO_WAIT)


def need_of(project: pstampProject | None, imagedb: str, image: Image, verdict: Verdict) -> dict[str, Any]:
    """Return the columns of a dependent for an image of `project`, which must be waited for, as `verdict` says."""
    return {
        "stage": image.stage, "stage_id": image.stage_id, "component": image.component, "imagedb": imagedb,
        "need_magic": _needs_magic(project, image), "reason": verdict.reason,
    }  # fmt: skip


def _needs_magic(project: pstampProject | None, image: Image) -> bool:
    return needs_magic(image.stage, image.diff_mode, bool(project and project.need_magic))


PRODUCTS = ("image", "mask", "variance", "sources", "psf", "backmdl", "exposure", "number")


def image_files(image: Image) -> dict[str, str | None]:
    """Return the paths of an image's files by product, as jobs keep them."""
    return {name: str(path) if (path := getattr(image, name)) else None for name in PRODUCTS}


def make_server(home: Path, database: str | None = None) -> Server:
    """Make a new server in `home`, or complete an old one: settings, folders, tables, and the project `local`.

    Every user may use every project without date limits until the operators restrict that.

    Raises
    ------
    RetryableError
        The folder can't be made, or the database does not answer.
    """
    home.mkdir(parents=True, exist_ok=True)
    path = home / FILE_NAME
    if not path.exists():
        chosen = f'database = "{database}"\n' if database and "@" not in database else ""
        path.write_text(default_settings_text() + chosen, encoding="utf-8")
    settings = load_settings(home, database)
    for folder in (settings.work, settings.images, settings.datastore):
        folder.mkdir(exist_ok=True)
    store = Store(settings.address)
    store.create()
    with session(store.db, DATASTORE_TABLES):
        create_tables(store.db, DATASTORE_TABLES)
    server = Server(settings, store)
    server.datastore.add_product(settings.product, "PSRESULTS", "Results of the postage stamp server", ("req_id",))
    server.datastore.rewrite_indexes()
    ImageDB(settings.locate(f"images/{LOCAL}.db"), None).create()
    add_project(server, LOCAL, f"images/{LOCAL}.db", camera=LOCAL)
    return server


def migrate_database(settings: Settings, target: int | None = None) -> list[str]:
    """Bring the server's database to schema version `target`, the newest by default; return what was changed.

    Raises
    ------
    RetryableError
        The database does not answer, or can't be brought there; the message says why.
    """
    must_exist(settings.address)
    report = migrate(Store(settings.address), target)
    return [*report.lines, f"schema version {report.before} -> {report.after}"]


def add_project(
    server: Server,
    name: str,
    dbname: str,
    imageroot: str = "",
    camera: str = "",
    *,
    oldest_diff: int = 0,
    oldest_unconv: int = 0,
) -> None:
    """Add a project, or change where its images are; every access level gets it without date limits.

    Parameters
    ----------
    name : str
        The PROJECT of request files.
    dbname : str
        Address of its image database; a relative path is taken from the home.
    imageroot : str
        Folder below which relative image paths of that database lie.
    camera : str
        The camera's name.
    oldest_diff : int
        Cleaned differences with a smaller number can't be made again (gpc1: 22779, `pstampparse.pl`).
    oldest_unconv : int
        Stacks with a smaller number have no unconvolved image (gpc1: 30067, `pstampparse.pl`).
    """

    def work() -> None:
        now = {
            "dbname": dbname, "imageroot": imageroot, "camera": camera, "oldest_diff": oldest_diff,
            "oldest_unconv": oldest_unconv,
        }  # fmt: skip
        project = pstampProject.get_or_none(fn.LOWER(pstampProject.name) == name.lower())
        if project is None:
            project = pstampProject.create(name=name, **now)
            pstampAccessLevel.create(proj_id=project.proj_id, accessLevel=server.settings.default_access_level)
        else:
            pstampProject.update(now).where(pstampProject.proj_id == project.proj_id).execute()

    server.store.work(work)


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""
