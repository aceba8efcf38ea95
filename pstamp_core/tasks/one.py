"""Work as pantasks starts it: on one row by its number, with what came of it, or on some of what waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peewee import ModelSelect

from pstamp_core.faults import fault_sentence
from pstamp_core.store import (
    MACHINES,
    Worked,
    dependents_to_check,
    jobs_to_run,
    moment,
    pstampDependent,
    pstampJob,
    requests_to_clean,
    requests_to_finish,
    requests_to_parse,
)
from pstamp_core.tasks.clean import clean_request, clean_requests
from pstamp_core.tasks.dependents import check_dependent, check_dependents
from pstamp_core.tasks.finish import finish_request, finish_requests
from pstamp_core.tasks.jobs import run_claimed_jobs, run_jobs
from pstamp_core.tasks.parse import parse_request, parse_requests
from pstamp_core.tasks.report import last_note
from pstamp_core.tasks.server import Server, find, narrowed


@dataclass(frozen=True)
class Work:
    """A kind of work.

    Attributes
    ----------
    machine : str
        That of its rows.
    queue : callable
        Gives the rows that wait for it now.
    one : callable
        Does it on a claimed row.
    some : callable
        Claims up to so many rows and does it; returns how many were claimed (of dependents: how many changed).
    """

    machine: str
    queue: Callable[[int], ModelSelect[Any]]
    one: Callable[[Server, Any], object]
    some: Callable[[Server, int], int]


def run_images(server: Server, limit: int) -> int:
    """Claim and run up to `limit` jobs, one image after the other; return how many were claimed."""
    count = 0
    while count < limit and (claimed := run_jobs(server, limit - count)):
        count += claimed
    return count


PARSE = Work("request", requests_to_parse, parse_request, parse_requests)
RUN = Work("job", jobs_to_run, lambda server, job: run_claimed_jobs(server, [job]), run_images)
CHECK = Work("dependent", dependents_to_check, check_dependent, check_dependents)
FINISH = Work("request", requests_to_finish, finish_request, finish_requests)
CLEAN = Work("request", requests_to_clean, clean_request, clean_requests)


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    Attributes
    ----------
    text : str
        One line: its state, its code with the reason; or why nothing was done with it.
    fault : int
        The code that it has now.
    worked : bool
        Whether it was in the queue, so that it was worked on.
    """

    text: str
    fault: int
    worked: bool


def work_on(server: Server, work: Work, number: int) -> Outcome:
    """Claim the row of this number, if it is in the queue of `work`, and do the work.

    To be called twice for one row, at once or one after the other, does no harm: the second finds nothing to do.

    Raises
    ------
    UserError
        There is no such row.
    RetryableError
        The database does not answer; whatever else goes wrong is the row's outcome.
    """
    claimed = server.claim(work.queue, 1, number)
    for row in claimed:
        with server.attempt(row):
            work.one(server, row)
    with server.store.reading():
        row = find(work.machine, number)
        text = _state(row) if claimed else f"nothing to do, {_hindrance(row, server.store.now())}"
    return Outcome(f"{work.machine} {number}: {text}", row.fault if claimed else 0, bool(claimed))


def in_queue(server: Server, work: Work, limit: int, number: int | None = None) -> list[int]:
    """Return the numbers of the rows that would be worked on now; changes nothing."""
    with server.store.reading():
        return [row.id_ for row in narrowed(work.queue(server.store.now()), number).limit(limit)]


def _state(row: Worked) -> str:
    """Return the state of a row with its code and the reason."""
    reason = {pstampJob: "sentence", pstampDependent: "reason"}.get(type(row))
    text = getattr(row, reason) if reason else last_note(row) if row.fault else ""
    if row.fault:
        text = f"fault {row.fault}, {text or fault_sentence(row.fault)}"
    return ", ".join(part for part in (row.state.value, text) if part)


def _hindrance(row: Worked, now: int) -> str:
    """Return why a row is not in the queue, as far as it tells itself."""
    if row.lease_owner:
        return f"{row.lease_owner} works on it until {moment(row.lease_until):%H:%M:%S} UTC"
    later = f", not before {moment(row.retry_at):%Y-%m-%d %H:%M:%S} UTC" if row.retry_at > now else ""
    return f"it is {_state(row)}{later} (see: pstamp why {MACHINES[type(row)].name} {row.id_})"
