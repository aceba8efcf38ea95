"""Who makes a component again: several update servers share the work, and each component is made by one of them.

A lease outlives the time that a try may take, so that one that has run out belongs to a server that is dead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from pstamp_core.database import unit_of_work
from pstamp_core.faults import LeaseLost
from pstamp_core.imagedb.database import ImageDB
from pstamp_core.imagedb.survey import Key, Policy
from pstamp_core.imagedb.tables import TABLES, pstampLease
from pstamp_core.imagedb.updates import (
    Work,
    is_as_queued,
    make_tables,
    missing_tables,
    pending,
    set_destreaked,
    set_fault,
    set_full,
    still_pending,
)


@dataclass(frozen=True)
class Lease:
    """Who works on a component, since when, and until when at most: microseconds since 1970 UTC."""

    owner: str
    since: int
    until: int


def lease_holders(imagedb: ImageDB) -> dict[Key, Lease]:
    """Return who works on which component now, or was lost at it a short while ago; nothing is changed.

    Raises
    ------
    RetryableError
        The database does not answer.
    """
    with imagedb.session():
        if pstampLease in missing_tables(imagedb):
            return {}
        return {
            (row.stage, row.stage_id, row.component): Lease(row.owner, row.since, row.until)
            for row in pstampLease.select()
        }


def claim(
    imagedb: ImageDB, policy: Policy, limit: int, owner: str, now: int, until: int, kinds: Collection[str]
) -> list[Work]:
    """Take up to `limit` of what is `pending`, of some kinds.

    Races tolerated: what another server was quicker to take is left out.

    Parameters
    ----------
    imagedb, policy, limit, kinds
        As of `pending`.
    owner : str
        Who takes it.
    now, until : int
        Microseconds since 1970 UTC: the time, and when the leases end. Those of others that have ended are removed.

    Raises
    ------
    RetryableError
        The database does not answer.
    """
    make_tables(imagedb)

    def work() -> list[Work]:
        lease: Any = pstampLease
        lease.delete().where(lease.until <= now).execute()
        taken = []
        for each in pending(imagedb, policy, limit, now, kinds):
            stage, stage_id, component = each.key
            row = {"stage": stage, "stage_id": stage_id, "component": component}
            row |= {"owner": owner, "since": now, "until": until}
            if not lease.insert(row).on_conflict_ignore().as_rowcount().execute():
                continue
            if still_pending(each, policy, now):
                taken.append(each)
            else:  # it was done, and the lease on it given up, since it was read
                _end(each.key, owner)
        return taken

    return unit_of_work(imagedb.db, TABLES, work)


def finish(
    imagedb: ImageDB, done: Work, owner: str, policy: Policy, now: int, fault: int = 0, reason: str = ""
) -> bool:
    """Store what came of work that `owner` has claimed, and give up the lease.

    Parameters
    ----------
    imagedb : ImageDB
        Its image database.
    done : Work
        As it was claimed.
    owner : str
        Who claimed it.
    policy, now, fault, reason
        As of `set_fault`; with fault 0 it was done well.

    Returns
    -------
    bool
        False: it is not wanted any more, see `set_full`, `set_destreaked` and `set_fault`, or was cleaned meanwhile and
        has to be made once more; nothing was stored.

    Raises
    ------
    LeaseLost
        The lease ran out, and somebody else may have taken it; nothing was stored.
    RetryableError
        The database does not answer.
    """

    def work() -> bool:
        if not _end(done.key, owner):
            raise LeaseLost(f"{' '.join(map(str, done.key))}: {owner} took too long, the result is thrown away")
        if not is_as_queued(done):
            return False
        if fault:
            return set_fault(imagedb, done.key, fault, policy, now, reason, destreak=done.destreak)
        if done.destreak:
            return set_destreaked(imagedb, done.key, now)
        return set_full(imagedb, done.key, now, magicked=done.magicked)

    return unit_of_work(imagedb.db, TABLES, work)


def give_back(imagedb: ImageDB, undone: Iterable[Work], owner: str) -> None:
    """Give up the leases of `owner` on work that was not done, by no fault of the work.

    Raises
    ------
    RetryableError
        The database does not answer; they run out by themselves.
    """

    def work() -> None:
        for each in undone:
            _end(each.key, owner)

    unit_of_work(imagedb.db, TABLES, work)


def _end(key: Key, owner: str) -> bool:
    lease: Any = pstampLease
    mine = (lease.stage == key[0]) & (lease.stage_id == key[1]) & (lease.component == key[2]) & (lease.owner == owner)
    return bool(lease.delete().where(mine).execute())
