"""Making components again: putting them into `update`, finding what is ready to be made, storing what came of it.

The states are IPP's, so that its own update server can do the work (`chiptool -setimfiletoupdate`, `warptool` and
`difftool -setskyfiletoupdate`, `magicdstool -setfiletoupdate`). Every UPDATE names what was seen. One that meets
something else raises `Stale`, upon which the unit of work reads and decides again: no order is lost silently, and none
is repeated for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from peewee import JOIN, Model, chunked, fn

from pstamp_core.database import create_tables, unit_of_work
from pstamp_core.faults import Stale, UserError
from pstamp_core.imagedb.components import MADE_AGAIN, Component
from pstamp_core.imagedb.database import ImageDB
from pstamp_core.imagedb.survey import Effort, Key, Policy, Survey, read_survey
from pstamp_core.imagedb.tables import (
    TABLES,
    UPDATE_TABLES,
    chipProcessedImfile,
    chipRun,
    diffRun,
    diffSkyfile,
    magicDSFile,
    magicDSRun,
    pstampLease,
    pstampRunLabel,
    pstampUpdate,
    rawImfile,
    warpRun,
    warpSkyfile,
)

DESTREAK = "destreak"
_INSERTS = 2000  # rows in one statement: SQLite allows 32,766 parameters


class Waiter(NamedTuple):
    """Who waits for a component: the larger of two is served first."""

    priority: int
    label: str


class _Made(NamedTuple):
    """The tables of a stage whose components are made again."""

    run: Any
    file: Any
    number: str
    component: str

    @property
    def keys(self) -> tuple[Any, Any]:
        """The columns of a component's run and name."""
        return getattr(self.file, self.number), getattr(self.file, self.component)

    @property
    def run_key(self) -> Any:
        """The column of the run's number."""
        return getattr(self.run, self.number)

    def is_one_of(self, keys: Iterable[Key]) -> Any:
        """Return the condition for components (SQLite knows no list of pairs)."""
        components: dict[int, list[str]] = {}
        for _, run, name in keys:
            components.setdefault(run, []).append(name)
        alike: dict[tuple[str, ...], list[int]] = {}
        for run, names in components.items():
            alike.setdefault(tuple(sorted(names)), []).append(run)
        number, component = self.keys
        which = [number.in_(sorted(runs)) & component.in_(names) for names, runs in alike.items()]
        return number.in_(sorted(components)) & _any(which)


def _any(conditions: Sequence[Any]) -> Any:
    """Return the condition that one of them holds, as a tree that is no deeper than it must be."""
    if len(conditions) == 1:
        return conditions[0]
    half = len(conditions) // 2
    return _any(conditions[:half]) | _any(conditions[half:])


WORK_TABLES: Mapping[str, _Made] = {
    "chip": _Made(chipRun, chipProcessedImfile, "chip_id", "class_id"),
    "warp": _Made(warpRun, warpSkyfile, "warp_id", "skycell_id"),
    "diff": _Made(diffRun, diffSkyfile, "diff_id", "skycell_id"),
    DESTREAK: _Made(magicDSRun, magicDSFile, "magic_ds_id", "component"),
}  # fmt: skip
"""The tables of each stage, in the order in which things are made."""


def look(imagedb: ImageDB, wanted: Mapping[Key, Waiter], policy: Policy, now: int) -> Survey:
    """Look at components, and put into `update` what they need to be there: inputs first, each once.

    Failures since the last look are counted, and runs that are done get their own labels back.

    Parameters
    ----------
    imagedb : ImageDB
        Their image database; it gets the tables that it lacks for this.
    wanted : mapping of Key to Waiter
        The components, and who waits most urgently for each.
    policy : Policy
        What the project and the site want.
    now : int
        Microseconds since 1970 UTC, by the clock of the server's database.

    Returns
    -------
    Survey
        As it was before anything was put into `update`.

    Raises
    ------
    RetryableError
        The database does not answer, or somebody else changed the same rows over and over; nothing was changed.
    """
    make_tables(imagedb)

    def work() -> Survey:
        _restore_labels(*WORK_TABLES)
        survey = read_survey(wanted, policy, now, with_updates=True)
        efforts = _count_failures(survey)
        needed = _needed(survey, wanted)
        efforts |= _queue(survey, [key for key in needed if survey.verdict(key).component is Component.QUEUE])
        _label(survey, needed)
        _store_efforts(efforts)
        return survey

    return unit_of_work(imagedb.db, TABLES, work)


def forget_failures(imagedb: ImageDB, wanted: Iterable[Key], policy: Policy, now: int) -> None:
    """Give components, and what they are made of, all their tries back, the first at once; also what was given up.

    Raises
    ------
    RetryableError
        The database does not answer; nothing was changed.
    """
    make_tables(imagedb)

    def work() -> None:
        efforts: dict[Key, Effort] = {}
        for part in read_survey(wanted, policy, now, with_updates=True).parts.values():
            for key, effort in ((part.key, part.effort), (part.destreak_key, part.destreak_effort)):
                if key and effort.attempts and not effort.made_at:
                    efforts[key] = replace(effort, attempts=0, retry_at=0)
        _store_efforts(efforts)

    unit_of_work(imagedb.db, TABLES, work)


def survey_of(imagedb: ImageDB, wanted: Iterable[Key], policy: Policy, now: int) -> Survey:
    """Return what can be said of components and of what they are made of; nothing is changed.

    Raises
    ------
    RetryableError
        The database does not answer.
    """
    with imagedb.session():
        return read_survey(wanted, policy, now, with_updates=not missing_tables(imagedb))


def missing_tables(imagedb: ImageDB) -> list[type[Model]]:
    """Return the tables that an image database lacks as long as nothing was made again there."""
    there = set(imagedb.db.get_tables())
    return [table for table in UPDATE_TABLES if table.__name__ not in there]


def make_tables(imagedb: ImageDB) -> None:
    """Make the tables that an image database may lack; not within a transaction, which MySQL would commit."""
    if not imagedb.has_update_tables:
        with imagedb.session():
            create_tables(imagedb.db, missing_tables(imagedb))
        imagedb.has_update_tables = True


# -- deciding what to do ---------------------------------------------------------------------------------------------


def _count_failures(survey: Survey) -> dict[Key, Effort]:
    """Bring the work on each component up to date with its state; return what has changed."""
    changed: dict[Key, Effort] = {}
    now, policy = survey.now, survey.policy
    for key, part in survey.parts.items():
        if key[0] not in MADE_AGAIN:
            continue
        row, before = part.row, part.effort
        part.effort = before.seen(
            row["run_state"], row["data_state"], row["fault"], done=row["data_state"] == "full", now=now, policy=policy
        )
        if part.effort != before:
            changed[key] = part.effort
        name, destreak, before = part.destreak_key, part.destreak, part.destreak_effort
        if name and destreak:
            # The file of a first destreaking is made by its success.
            part.destreak_effort = before.seen(
                destreak["run_state"], destreak["file_state"] or "update", destreak["fault"],
                done=row["magicked"] > 0, now=now, policy=policy,
            )  # fmt: skip
            if part.destreak_effort != before:
                changed[name] = part.destreak_effort
    return changed


def _needed(survey: Survey, wanted: Mapping[Key, Waiter]) -> dict[Key, Waiter]:
    """Return all components that must be there for the wanted ones, and who waits most urgently for each."""
    needed: dict[Key, Waiter] = {}
    for key in sorted(wanted, key=lambda each: wanted[each], reverse=True):
        _need(survey, key, wanted[key], needed)
    return needed


def _need(survey: Survey, key: Key, waiter: Waiter, needed: dict[Key, Waiter]) -> None:
    if key in needed or not survey.verdict(key).waits:
        return
    needed[key] = waiter
    if not survey.facts(key).can_be_made:  # as long as it is held, an input that fails would be tried for ever
        return
    for each in survey.parts[key].inputs or ():
        _need(survey, each, waiter, needed)


# -- putting into `update` -------------------------------------------------------------------------------------------


def _queue(survey: Survey, keys: Sequence[Key]) -> dict[Key, Effort]:
    """Put components into `update`, or have them destreaked; return the work that was begun."""
    now, policy = survey.now, survey.policy
    begun: dict[Key, Effort] = {}
    for stage in WORK_TABLES:
        files: dict[tuple[str, int], list[Key]] = {}
        runs: dict[str, set[int]] = {}
        for part in (survey.parts[key] for key in keys):
            row, key, effort = part.row, part.key, part.effort
            destreaks = row["data_state"] == "full" and row["run_state"] != "goto_cleaned"
            if stage != (DESTREAK if destreaks else key[0]):
                continue
            if destreaks and part.destreak and part.destreak_key:
                row, key, effort = part.destreak, part.destreak_key, part.destreak_effort
            runs.setdefault(row["run_state"], set()).add(key[1])
            # A run that is about to be cleaned is stopped first; what it needs besides is seen at the next look.
            if row["run_state"] == "goto_cleaned":
                continue
            begun[key] = effort.queued(now, policy)
            state = row["file_state"] if destreaks else row["data_state"]
            if state:
                files.setdefault((state, row["fault"]), []).append(key)
        for (state, fault), some in files.items():
            _set_files(stage, some, state, fault)
        for state, numbers in runs.items():
            _set_runs(stage, numbers, state)
    return begun


def _set_files(stage: str, keys: Sequence[Key], state: str, fault: int) -> None:
    """Put components that are as they were seen into `update`."""
    made = WORK_TABLES[stage]
    for some in chunked(keys, _INSERTS):
        as_seen = made.file.data_state == state
        if stage != DESTREAK:  # which has no quality, and whose fault may be that of the run
            as_seen &= (made.file.fault == fault) & (made.file.quality == 0)
        query = made.file.update(data_state="update", fault=0).where(made.is_one_of(some), as_seen)
        _must_change(query, len(some), some[0])


def _set_runs(stage: str, numbers: Iterable[int], state: str) -> None:
    """Put runs that are in `state` into `update`; those that remove streaks into `new` (as on the operators' page)."""
    made = WORK_TABLES[stage]
    values: dict[str, Any] = {"state": "update"}
    if stage == DESTREAK:
        values = {"state": "update" if state == "update" else "new", "fault": 0}
    elif stage == "chip" and state != "update":
        values["update_mode"] = 0  # with the recipe of the first time
    for some in chunked(sorted(numbers), _INSERTS):
        query = made.run.update(values).where(made.run_key.in_(some), made.run.state == state)
        _must_change(query, len(some), (stage, some[0], ""))


def _must_change(query: Any, count: int, first: Key) -> None:
    if query.execute() != count:
        name = " ".join(map(str, first)).strip() + (f" or another of {count}" if count > 1 else "")
        raise Stale(f"{name}: changed by somebody else while it was to be put into update")


def _store_efforts(efforts: Mapping[Key, Effort]) -> None:
    rows = [
        {"stage": stage, "stage_id": stage_id, "component": component, **asdict(effort)}
        for (stage, stage_id, component), effort in efforts.items()
    ]
    table: Any = pstampUpdate
    for some in chunked(rows, _INSERTS):
        table.replace_many(some).execute()


# -- labels of runs --------------------------------------------------------------------------------------------------


def _label(survey: Survey, needed: Mapping[Key, Waiter]) -> None:
    """Give the runs that are worked on the label of the most urgent of those who wait, and remember their own.

    A label is only changed for a more urgent one, and that of a run which others put into `update` not at all.
    """
    urgent: dict[tuple[str, int], tuple[Waiter, str | None, bool]] = {}
    for key, waiter in needed.items():
        verdict, part = survey.verdict(key).component, survey.parts[key]
        if verdict not in (Component.QUEUE, Component.IN_PROGRESS) or key[0] not in MADE_AGAIN:
            continue
        run, label = key[:2], part.row["label"]
        if part.row["data_state"] == "full" and part.destreak and part.row["run_state"] != "goto_cleaned":
            run, label = (DESTREAK, part.destreak["magic_ds_id"]), part.destreak["label"]
        before = urgent.get(run)
        ours = verdict is Component.QUEUE or run in survey.labels or (before is not None and before[2])
        urgent[run] = max(waiter, before[0]) if before else waiter, label, ours
    by_label: dict[Waiter, dict[str, list[int]]] = {}
    new = []
    for (stage, number), (waiter, own, ours) in urgent.items():
        known = survey.labels.get((stage, number))
        if not ours or (known is not None and known >= waiter.priority):
            continue
        by_label.setdefault(waiter, {}).setdefault(stage, []).append(number)
        if known is None:
            new.append({"stage": stage, "stage_id": number, "label": own, "priority": waiter.priority})
    for some in chunked(new, _INSERTS):
        pstampRunLabel.insert_many(some).on_conflict_ignore().execute()
    for waiter, by_stage in by_label.items():
        for stage, numbers in by_stage.items():
            made = WORK_TABLES[stage]
            made.run.update(label=waiter.label).where(made.run_key.in_(numbers)).execute()
            mine = (pstampRunLabel.stage == stage) & pstampRunLabel.stage_id.in_(numbers)
            pstampRunLabel.update(priority=waiter.priority).where(mine).execute()


def restore_labels(imagedb: ImageDB) -> None:
    """Give the runs on which nobody works any more their own labels back.

    Raises
    ------
    RetryableError
        The database does not answer.
    """
    make_tables(imagedb)
    unit_of_work(imagedb.db, TABLES, lambda: _restore_labels(*WORK_TABLES))


_AT_WORK = ("update", "new", "goto_cleaned")


def _restore_labels(*stages: str) -> None:
    for stage in stages:
        give_labels_back(stage, WORK_TABLES[stage].run.state.not_in(_AT_WORK))


def give_labels_back(stage: str, runs: Any) -> None:
    """Give the runs of a stage for which a condition holds their own labels back; part of a unit of work."""
    made = WORK_TABLES[stage]
    query: Any = (
        pstampRunLabel.select(pstampRunLabel.stage_id, pstampRunLabel.label)
        .join(made.run, on=(made.run_key == pstampRunLabel.stage_id))
        .where(pstampRunLabel.stage == stage, runs)
    )
    by_label: dict[str | None, list[int]] = {}
    for number, label in query.tuples():
        by_label.setdefault(label, []).append(number)
    for label, numbers in by_label.items():
        made.run.update(label=label).where(made.run_key.in_(numbers)).execute()
        mine = (pstampRunLabel.stage == stage) & pstampRunLabel.stage_id.in_(numbers)
        pstampRunLabel.delete().where(mine).execute()


# -- doing the work: for an update server of our own -----------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Something to be made now.

    Attributes
    ----------
    key : Key
        The component.
    destreak : bool
        It is there; the satellite streaks are to be removed from it. Else it is to be made of its inputs.
    magicked : int
        What `set_full` is to be told: positive where all that it is made of is destreaked.
    queued_at : int
        When it was put into `update`, as `pstampUpdate` has it: what was cleaned since, and put there again, is another
        thing to be made.
    """

    key: Key
    destreak: bool = False
    magicked: int = 0
    queued_at: int = field(default=0, compare=False)

    @property
    def kind(self) -> str:
        """The stage, or ``destreak``."""
        return DESTREAK if self.destreak else self.key[0]


KINDS = tuple(WORK_TABLES)
"""The kinds of work there are."""


def pending(imagedb: ImageDB, policy: Policy, limit: int, now: int, kinds: Collection[str] = KINDS) -> list[Work]:
    """Return up to `limit` components in `update` whose inputs are there: inputs first, then by priority.

    What is ready is told by the same rules as in `look`. What an update server works on (`leases.claim`) is left out.

    Raises
    ------
    RetryableError
        The database does not answer.
    """
    make_tables(imagedb)
    found: list[Work] = []
    with imagedb.session():
        for stage in MADE_AGAIN:
            if stage in kinds:
                found += _ready(stage, policy, limit - len(found), now, destreak=False)
            if DESTREAK in kinds and policy.need_magic:
                found += _ready(stage, policy, limit - len(found), now, destreak=True)
    return found


def still_pending(work: Work, policy: Policy, now: int) -> bool:
    """Tell whether something can be done as `pending` said; within a session or unit of work."""
    return bool(_of_kind([work.key], policy, now, destreak=work.destreak))


def _ready(stage: str, policy: Policy, limit: int, now: int, *, destreak: bool) -> list[Work]:
    found: list[Work] = []
    page, size = 1, max(limit, 100)
    while len(found) < limit:
        rows = list(_candidates(stage, destreak=destreak).paginate(page, size).tuples())
        keys = list(dict.fromkeys((stage, *row) for row in rows))
        found += _of_kind(keys, policy, now, destreak=destreak)
        if len(rows) < size:
            break
        page += 1
    return found[:limit]


def _of_kind(keys: Sequence[Key], policy: Policy, now: int, *, destreak: bool) -> list[Work]:
    """Return those components that are ready to be made, or to be destreaked."""
    survey = read_survey(keys, policy, now, with_updates=True)
    ready = [survey.parts[key] for key in keys if survey.verdict(key).component is Component.IN_PROGRESS]
    found = []
    for part in ready:
        if (part.row["data_state"] == "full") is destreak:
            inputs = [survey.parts[key].row["magicked"] for key in part.inputs or () if key[0] in MADE_AGAIN]
            effort = part.destreak_effort if destreak else part.effort
            found.append(Work(part.key, destreak, max(min(inputs, default=0), 0), effort.queued_at))
    return found


def _candidates(stage: str, *, destreak: bool) -> Any:
    """Return the components of a stage that may be ready, by priority."""
    made = WORK_TABLES[stage]
    number, component = made.keys
    query = made.file.select(number, component).join(made.run, on=(made.run_key == number))
    labelled, run = stage, made.run_key
    if destreak:
        on = (magicDSRun.stage == stage) & (magicDSRun.stage_id == number)
        query = query.join_from(made.file, magicDSRun, on=on)
        query = query.where(magicDSRun.state.in_(["new", "update"]), made.file.data_state == "full",
                            made.file.magicked <= 0, made.file.fault == 0, made.file.quality == 0)  # fmt: skip
        labelled, run = DESTREAK, magicDSRun.magic_ds_id
    else:
        query = query.where(made.run.state == "update", made.file.data_state == "update", made.file.fault == 0)
    on = (pstampRunLabel.stage == labelled) & (pstampRunLabel.stage_id == run)
    query = query.join_from(made.file, pstampRunLabel, JOIN.LEFT_OUTER, on=on)
    lease = pstampLease
    taken = (lease.stage == stage) & (lease.stage_id == number) & (lease.component == component)
    query = query.where(~fn.EXISTS(lease.select().where(taken)))
    return query.order_by(fn.COALESCE(pstampRunLabel.priority, -1).desc(), number, component)


def set_full(imagedb: ImageDB, key: Key, now: int, *, magicked: int = 0) -> bool:
    """Store that a component was made again; its run is full, under its own label, when all its good components are.

    Parameters
    ----------
    imagedb : ImageDB
        Its image database.
    key : Key
        Which component.
    now : int
        Microseconds since 1970 UTC.
    magicked : int
        That of what it was made of, where that is destreaked: it is without streaks, too. For a chip the raw image's
        counts, whatever is given here.

    Returns
    -------
    bool
        False: it is not being made any more (its run was purged, or is to be cleaned), and the result is not wanted.

    Raises
    ------
    RetryableError
        The database does not answer.
    """
    make_tables(imagedb)
    made = _made(key)

    def work() -> bool:
        values: dict[str, Any] = {"data_state": "full", "fault": 0}
        of_source = _raw_magicked(key) if key[0] == "chip" else magicked
        if of_source > 0:  # else it stays what it was: never destreaked, or to be destreaked again
            values["magicked"] = of_source
        if not made.file.update(values).where(_in_update(made, key)).execute():
            return False
        _store_efforts({key: _effort(key).made(now)})
        _settle(key[0], key[1])
        return True

    return unit_of_work(imagedb.db, TABLES, work)


def set_destreaked(imagedb: ImageDB, key: Key, now: int) -> bool:
    """Store that the streaks were removed from a component, whose destreak run is full when all its files are.

    Parameters and errors are those of `set_full`. False: the component, or its destreak run, is not as it was when the
    work began.
    """
    make_tables(imagedb)
    made = _made(key)

    def work() -> bool:
        number = _destreak_run(key)
        one = made.is_one_of([key]) & (made.file.data_state == "full")
        if not number or not made.file.update(magicked=number).where(one).execute():
            return False
        _store_file(number, key[2], "full", 0)
        name = DESTREAK, number, key[2]
        _store_efforts({name: _effort(name).made(now)})
        _settle(DESTREAK, number)
        has_streaks = made.file.select().where(made.keys[0] == key[1], made.file.quality == 0, made.file.magicked <= 0)
        made.run.update(magicked=number).where(made.run_key == key[1], ~fn.EXISTS(has_streaks)).execute()
        return True

    return unit_of_work(imagedb.db, TABLES, work)


def set_fault(
    imagedb: ImageDB, key: Key, fault: int, policy: Policy, now: int, reason: str = "", *, destreak: bool = False
) -> bool:
    """Store that a try to make a component, or to destreak it, failed; it counts, and is not repeated before its time.

    Parameters
    ----------
    imagedb, key, now
        As of `set_full`.
    fault : int
        What it failed with; 26 means that it can't be made any more.
    policy : Policy
        What the site wants: when it is tried again.
    reason : str
        Why it failed, in one short line, for those who wait.
    destreak : bool
        Whether it was to be destreaked.

    Returns
    -------
    bool
        False: it is not being made any more.

    Raises
    ------
    UserError
        21: the code is not positive.
    RetryableError
        The database does not answer.
    """
    if fault <= 0:
        raise UserError(f"{key[0]} {key[1]} {key[2]}: fault {fault}; expected a positive code")
    make_tables(imagedb)

    def work() -> bool:
        name = key
        if destreak:
            number = _destreak_run(key)
            if not number:
                return False
            name = DESTREAK, number, key[2]
            _store_file(number, key[2], "update", fault)
        else:
            made = _made(key)
            if not made.file.update(fault=fault).where(_in_update(made, key)).execute():
                return False
        _store_efforts({name: _effort(name).failed(fault, now, policy, reason)})
        return True

    return unit_of_work(imagedb.db, TABLES, work)


def _made(key: Key) -> _Made:
    if key[0] not in MADE_AGAIN:
        raise UserError(f"{key[0]} {key[1]} {key[2]}: only {', '.join(MADE_AGAIN)} are made again")
    return WORK_TABLES[key[0]]


def _in_update(made: _Made, key: Key) -> Any:
    """Return the condition for a component that is still being made, as its run is."""
    run = made.run.select().where(made.run_key == key[1], made.run.state == "update")
    return made.is_one_of([key]) & (made.file.data_state == "update") & (made.file.fault == 0) & fn.EXISTS(run)


def _raw_magicked(key: Key) -> int:
    chip, raw = chipProcessedImfile, rawImfile
    query: Any = raw.select(raw.magicked).join(chip, on=(raw.exp_id == chip.exp_id) & (raw.class_id == chip.class_id))
    return query.where(chip.chip_id == key[1], chip.class_id == key[2]).scalar() or 0


def _destreak_run(key: Key) -> int:
    """Return the number of the destreak run at work on a component; 0 if there is none."""
    query: Any = magicDSRun.select(magicDSRun.magic_ds_id).where(
        magicDSRun.stage == key[0], magicDSRun.stage_id == key[1], magicDSRun.state.in_(["new", "update"]),
        magicDSRun.re_place == True,  # noqa: E712 (SQL)
    )  # fmt: skip
    return query.order_by(magicDSRun.magic_ds_id.desc()).limit(1).scalar() or 0


def _store_file(magic_ds_id: int, component: str, data_state: str, fault: int) -> None:
    table: Any = magicDSFile
    table.replace(magic_ds_id=magic_ds_id, component=component, data_state=data_state, fault=fault).execute()


def is_as_queued(work: Work) -> bool:
    """Tell whether nobody has put something into `update` anew since it was `pending`; within a unit of work."""
    name = (DESTREAK, _destreak_run(work.key), work.key[2]) if work.destreak else work.key
    return _effort(name).queued_at == work.queued_at


def _effort(key: Key) -> Effort:
    table = pstampUpdate
    row: Any = table.get_or_none(table.stage == key[0], table.stage_id == key[1], table.component == key[2])
    return Effort(**{name: getattr(row, name) for name in Effort.__dataclass_fields__}) if row else Effort()


def _settle(stage: str, number: int) -> None:
    """Make a run full when all its good components are; never one that was purged, or is to be cleaned, meanwhile."""
    made = WORK_TABLES[stage]
    left = made.file.select().where(made.keys[0] == number, made.file.data_state != "full")
    values: dict[str, Any] = {"state": "full"}
    if stage != DESTREAK:
        left = left.where(made.file.quality == 0)
    if stage == "chip":
        values["update_mode"] = 0
    working = made.run.state.in_(["new", "update"] if stage == DESTREAK else ["update"])
    if made.run.update(values).where(made.run_key == number, working, ~fn.EXISTS(left)).execute():
        _restore_labels(stage)
