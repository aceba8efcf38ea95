"""A survey of components: all that counts about any number of them and about what they are made of, in a few queries.

Differences lead to warps and stacks, warps to their camera product and chips, chips to their raw images. Each component
is read once, however many need it, and one query serves all components of a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from peewee import JOIN, Model, chunked

from pstamp_core.faults import Fault
from pstamp_core.imagedb.components import (
    MADE_AGAIN,
    Component,
    Destreak,
    Facts,
    Tries,
    Verdict,
    classify,
    needs_magic,
    worst,
)
from pstamp_core.imagedb.tables import (
    camProcessedExp,
    camRun,
    chipProcessedImfile,
    chipRun,
    diffInputSkyfile,
    diffRun,
    diffSkyfile,
    fakeRun,
    magicDSFile,
    magicDSRun,
    pstampRunLabel,
    pstampUpdate,
    rawExp,
    rawImfile,
    stackRun,
    stackSumSkyfile,
    warpRun,
    warpSkyCellMap,
    warpSkyfile,
)

Key = tuple[str, int, str]
"""Stage, number of the run, chip or skycell (empty for a stack and a camera product). The work of destreaking one goes
by ``destreak``, `magic_ds_id`, component."""

Row = dict[str, Any]

BATCH = 8000
"""Components in one query; SQLite allows 32,766 parameters."""

_NO_ID = 2**63 - 1  # psLib's "no value" of a 64-bit integer; 0 means the same
_NO_CHIPS = Verdict(Component.GONE, "can't be made again, no good chip lies under it")
_NO_INPUTS = Verdict(
    Component.NOT_NOW, "can't be made again, the image database does not say of what; an operator must look"
)
_MISSING = Verdict(Component.NOT_NOW, "not in the image database; an operator must look")


@dataclass(frozen=True)
class Policy:
    """What a project and its site want.

    Attributes
    ----------
    need_magic : bool
        No images with satellite streaks are shown.
    oldest_diff : int
        Differences with a smaller number can't be made again.
    ceiling : int
        Failed tries after which a component is given up.
    backoff : callable
        Number of failed tries -> microseconds until the next.
    cooldown : int
        Microseconds after the last of them, before it may be tried again.
    """

    need_magic: bool = False
    oldest_diff: int = 0
    ceiling: int = 3
    backoff: Callable[[int], int] = field(default=lambda _count: 0)
    cooldown: int = 0


@dataclass(frozen=True)
class Effort:
    """The work on one component so far; the columns are those of `pstampUpdate`."""

    attempts: int = 0
    fault: int = 0
    cause: int = 0
    reason: str = ""
    retry_at: int = 0
    queued_at: int = 0
    made_at: int = 0

    def failed(self, fault: int, now: int, policy: Policy, reason: str = "") -> Effort:
        """Return the work after a try that failed; what others try during the cool-down does not count, nor a 26."""
        given_up = self.attempts >= policy.ceiling
        after = replace(self, fault=fault, cause=fault, reason=reason)
        if fault == Fault.PSTAMP_GONE or (given_up and self.retry_at > now):
            return after
        attempts = 1 if given_up else self.attempts + 1
        pause = policy.cooldown if attempts >= policy.ceiling else policy.backoff(attempts)
        return replace(after, attempts=attempts, retry_at=now + pause)

    def queued(self, now: int, policy: Policy) -> Effort:
        """Return the work after it was asked for; with all tries, if it was done before, or given up."""
        if self.made_at or self.attempts >= policy.ceiling:
            return Effort(queued_at=now)
        return replace(self, fault=0, retry_at=0, queued_at=now)

    def made(self, now: int) -> Effort:
        """Return the work after its success."""
        return replace(self, fault=0, retry_at=0, made_at=now)

    def seen(self, run_state: str, data_state: str, fault: int, *, done: bool, now: int, policy: Policy) -> Effort:
        """Return the work after a look at the component: each failure counts once, however often it is seen.

        What was queued and is found cleaned again was lost.
        """
        at_work = self.queued_at and not self.made_at
        if done:
            return self.made(now) if at_work or self.fault else self
        if data_state == "cleaned" and at_work:
            return replace(self.failed(Fault.PS_EXIT_TIMEOUT_ERROR, now, policy), queued_at=0)
        if data_state != "update" or run_state not in ("new", "update") or fault in (self.fault, Fault.PSTAMP_GONE):
            return self
        return self.failed(fault, now, policy) if fault else replace(self, fault=0)

    def tries(self, now: int, policy: Policy) -> Tries:
        """Return what counts of it for the verdict."""
        later = self.retry_at > now
        used_up = later and self.attempts >= policy.ceiling
        return Tries(self.attempts, self.cause, self.reason, used_up=used_up, due=not later)


@dataclass
class Part:
    """One component as it was read.

    Attributes
    ----------
    key : Key
        Which.
    row : dict
        ``run_state data_state fault quality magicked`` and, by stage, ``label cam_id chip_id class_ids diff_mode ...``.
    inputs : tuple of Key or None
        What it is made of; None where that makes no difference.
    effort, destreak_effort : Effort
        The work of making it, and of destreaking it.
    destreak : dict or None
        Its destreak run: ``magic_ds_id run_state file_state fault label``; None where that makes no difference.
    """

    key: Key
    row: Row
    inputs: tuple[Key, ...] | None = None
    effort: Effort = Effort()
    destreak_effort: Effort = Effort()
    destreak: Row | None = None

    @property
    def destreak_key(self) -> Key | None:
        """The name of the work of destreaking it."""
        return ("destreak", self.destreak["magic_ds_id"], self.key[2]) if self.destreak else None


@dataclass(frozen=True)
class Link:
    """One component of a chain, for whoever asks what a job waits for.

    Attributes
    ----------
    depth : int
        0 for the component itself, 1 for what it is made of, 2 for what that is made of.
    key : Key
        Which component.
    run_state, data_state : str
        Its states; empty when it is not in the image database.
    fault, quality : int
        As stored.
    verdict : Verdict
        What can be said of it.
    effort : Effort
        How often it was tried, since when, when again.
    """

    depth: int
    key: Key
    run_state: str
    data_state: str
    fault: int
    quality: int
    verdict: Verdict
    effort: Effort


class Survey:
    """Components with all that they are made of, as they were at one moment.

    Parameters
    ----------
    policy : Policy
        What the project and the site want.
    now : int
        Microseconds since 1970 UTC, by the clock of the server's database.
    """

    def __init__(self, policy: Policy, now: int) -> None:
        self.policy = policy
        self.now = now
        self.parts: dict[Key, Part] = {}
        self.labels: dict[tuple[str, int], int] = {}
        self._verdicts: dict[tuple[Key, bool], Verdict] = {}

    def facts(self, key: Key, *, as_input: bool = False) -> Facts:
        """Return all that counts about a component that was found."""
        part, policy = self.parts[key], self.policy
        return replace(
            self.own_facts(part), as_input=as_input, tries=part.effort.tries(self.now, policy),
            inputs=self._inputs(part), destreak=self._destreak(part),
        )  # fmt: skip

    def verdict(self, key: Key, *, as_input: bool = False) -> Verdict:
        """Return the verdict on a component; one that was not found is not to be had now (25)."""
        if key not in self.parts:
            return _MISSING
        if (key, as_input) not in self._verdicts:
            self._verdicts[key, as_input] = classify(self.facts(key, as_input=as_input))
        return self._verdicts[key, as_input]

    def chain(self, key: Key, depth: int = 0) -> Iterator[Link]:
        """Yield a component and, below it, what it is made of, as far as it is waited for."""
        verdict = self.verdict(key, as_input=depth > 0)
        part = self.parts.get(key) or Part(key, {"run_state": "", "data_state": "", "fault": 0, "quality": 0})
        row = part.row
        effort = part.destreak_effort if part.destreak_effort != Effort() else part.effort
        states = row["run_state"], row["data_state"], row["fault"], row["quality"]
        yield Link(depth, key, *states, verdict, effort)
        for each in part.inputs or ():
            yield from self.chain(each, depth + 1)

    def own_facts(self, part: Part) -> Facts:
        """Return what counts of a component without a look at its inputs, its past, or its destreaking."""
        stage, stage_id, _ = part.key
        row, policy = part.row, self.policy
        return Facts(
            stage, stage_id, row["run_state"], row["data_state"], row["fault"], row["quality"], row["magicked"],
            needs_magic(stage, row.get("diff_mode"), policy.need_magic), policy.oldest_diff,
        )  # fmt: skip

    def _inputs(self, part: Part) -> Verdict | None:
        if part.inputs is None:
            return None
        if not part.inputs:
            return _NO_INPUTS
        verdict = worst((key[0], self.verdict(key, as_input=True)) for key in part.inputs)
        has_chips = part.key[0] != "warp" or any(stage == "chip" for stage, _, _ in part.inputs)
        return _NO_CHIPS if not has_chips and not verdict.fault else verdict

    def _destreak(self, part: Part) -> Destreak | None:
        row = part.destreak
        if row is None:
            return None
        of_source = (part.row.get("raw_magicked") or 0) > 0
        if not row["magic_ds_id"]:
            return Destreak(of_source=of_source)
        tries = part.destreak_effort.tries(self.now, self.policy)
        return Destreak(row["run_state"], row["file_state"] or "", row["fault"], of_source, tries)


# -- reading ---------------------------------------------------------------------------------------------------------


def read_survey(wanted: Iterable[Key], policy: Policy, now: int, *, with_updates: bool) -> Survey:
    """Return a survey of `wanted` components; within a session or unit of work of their image database.

    Parameters
    ----------
    wanted : iterable of Key
        Any number, of any stages; one that is not in the database is left out.
    policy, now
        See `Survey`.
    with_updates : bool
        Whether the database has `UPDATE_TABLES`; without them nothing was ever made again, or destreaked.
    """
    survey = Survey(policy, now)
    levels: dict[str, set[Key]] = {stage: set() for stage in ("diff", "warp", "camera", "stack", "chip", "raw")}
    for key in wanted:
        levels.get(key[0], set()).add(key)
    for stage, reader in _READERS.items():
        parts = [Part((stage, row["stage_id"], row["component"]), row) for row in reader(levels[stage])]
        survey.parts |= {part.key: part for part in parts if part.key in levels[stage]}
        making = [part for part in parts if part.key in levels[stage] and _is_waited_for(survey.own_facts(part))]
        for part in making if stage in _INPUTS else ():
            part.inputs = _INPUTS[stage](part.row)
        if stage == "warp":
            _add_chips(making)
        for part in making:
            for key in part.inputs or ():
                levels[key[0]].add(key)
    _drop_bad_chips(survey)
    if with_updates:
        _read_destreaks(survey)
        _read_updates(survey)
    return survey


def _is_waited_for(facts: Facts) -> bool:
    """Tell whether it makes a difference what a component is made of."""
    return facts.data_state != "full" and classify(facts).waits


def _select(query: Any, run: Any, component: Any, keys: Iterable[Key]) -> Iterator[Row]:
    """Yield the rows of components, and of some others of the same runs."""
    for batch in chunked(sorted(keys), BATCH):
        runs, components = {key[1] for key in batch}, {key[2] for key in batch}
        some = query.where(run.in_(sorted(runs)))
        yield from (some if component is None else some.where(component.in_(sorted(components)))).dicts()


def _columns(run: Any, number: Any, file: Any, component: Any) -> list[Any]:
    """Return the columns that all stages have that are made again."""
    return [
        number.alias("stage_id"), component.alias("component"), run.state.alias("run_state"), file.data_state,
        file.fault, file.quality, file.magicked, run.label,
    ]  # fmt: skip


def _read_diffs(keys: set[Key]) -> Iterator[Row]:
    run, file, inputs = diffRun, diffSkyfile, diffInputSkyfile
    query = (
        file.select(*_columns(run, file.diff_id, file, file.skycell_id), run.diff_mode,
                    inputs.warp1, inputs.stack1, inputs.warp2, inputs.stack2)
        .join(run, on=(run.diff_id == file.diff_id))
        .join(inputs, JOIN.LEFT_OUTER, on=(inputs.diff_id == file.diff_id) & (inputs.skycell_id == file.skycell_id))
    )  # fmt: skip
    return _select(query, file.diff_id, file.skycell_id, keys)


def _read_warps(keys: set[Key]) -> Iterator[Row]:
    run, file = warpRun, warpSkyfile
    query = (
        file.select(*_columns(run, file.warp_id, file, file.skycell_id), camRun.cam_id, camRun.chip_id)
        .join(run, on=(run.warp_id == file.warp_id))
        .join(fakeRun, JOIN.LEFT_OUTER, on=(fakeRun.fake_id == run.fake_id))
        .join(camRun, JOIN.LEFT_OUTER, on=(camRun.cam_id == fakeRun.cam_id))
    )
    return _select(query, file.warp_id, file.skycell_id, keys)


def _read_chips(keys: set[Key]) -> Iterator[Row]:
    run, file, raw = chipRun, chipProcessedImfile, rawImfile
    query = (
        file.select(*_columns(run, file.chip_id, file, file.class_id), raw.magicked.alias("raw_magicked"))
        .join(run, on=(run.chip_id == file.chip_id))
        .join(raw, JOIN.LEFT_OUTER, on=(raw.exp_id == file.exp_id) & (raw.class_id == file.class_id))
    )
    return _select(query, file.chip_id, file.class_id, keys)


def _read_raws(keys: set[Key]) -> Iterator[Row]:
    run, file = rawExp, rawImfile
    query = file.select(
        file.exp_id.alias("stage_id"), file.class_id.alias("component"), run.state.alias("run_state"), file.data_state,
        file.fault, file.quality, file.magicked,
    ).join(run, on=(run.exp_id == file.exp_id))  # fmt: skip
    return _select(query, file.exp_id, file.class_id, keys)


def _read_cameras(keys: set[Key]) -> Iterator[Row]:
    run, product = camRun, camProcessedExp
    query = run.select(run.cam_id.alias("stage_id"), run.state, product.fault, product.quality).join(
        product, JOIN.LEFT_OUTER, on=(product.cam_id == run.cam_id)
    )
    return (_of_one_state(row, "") for row in _select(query, run.cam_id, None, keys))


def _read_stacks(keys: set[Key]) -> Iterator[Row]:
    run, product = stackRun, stackSumSkyfile
    query = run.select(run.stack_id.alias("stage_id"), run.skycell_id, run.state, product.fault, product.quality).join(
        product, JOIN.LEFT_OUTER, on=(product.stack_id == run.stack_id)
    )
    for row in _select(query, run.stack_id, None, keys):
        for component in ("", row["skycell_id"]):  # as an input, and as an image of its own
            yield _of_one_state(row, component)


def _of_one_state(row: Row, component: str) -> Row:
    """Return the row of a product whose run has one component, without a state of its own."""
    return {
        "stage_id": row["stage_id"], "component": component, "run_state": row["state"], "data_state": row["state"],
        "fault": row["fault"] or 0, "quality": row["quality"] or 0, "magicked": 0,
    }  # fmt: skip


_READERS: Mapping[str, Callable[[set[Key]], Iterator[Row]]] = {
    "diff": _read_diffs, "warp": _read_warps, "camera": _read_cameras, "stack": _read_stacks, "chip": _read_chips,
    "raw": _read_raws,
}  # fmt: skip
"""How components are read: what is made of others before these."""


def _inputs_of_diff(row: Row) -> tuple[Key, ...]:
    cell, found = row["component"], []
    for name in ("warp1", "stack1", "warp2", "stack2"):
        if row[name] not in (None, 0, _NO_ID):
            stage = name[:-1]
            found.append((stage, row[name], cell if stage == "warp" else ""))
    return tuple(found)


def _inputs_of_warp(row: Row) -> tuple[Key, ...]:
    return (("camera", row["cam_id"] or 0, ""),)


_INPUTS: Mapping[str, Callable[[Row], tuple[Key, ...]]] = {"diff": _inputs_of_diff, "warp": _inputs_of_warp}


def _add_chips(warps: list[Part]) -> None:
    """Add to the inputs of warps the chips that lie under them."""
    by_key = {part.key: part for part in warps}
    query = warpSkyCellMap.select(
        warpSkyCellMap.warp_id.alias("stage_id"), warpSkyCellMap.skycell_id.alias("component"), warpSkyCellMap.class_id
    )
    chips: dict[Key, set[Key]] = {}
    for row in _select(query, warpSkyCellMap.warp_id, warpSkyCellMap.skycell_id, by_key):
        part = by_key.get(("warp", row["stage_id"], row["component"]))
        if part:
            chips.setdefault(part.key, set()).add(("chip", part.row["chip_id"] or 0, row["class_id"]))
    for key, found in chips.items():
        by_key[key].inputs = (*(by_key[key].inputs or ()), *sorted(found))


def _drop_bad_chips(survey: Survey) -> None:
    """Leave out the chips that failed, or are of bad quality, of which nothing is made (`warptool -scmap`)."""
    good = {key for key, part in survey.parts.items() if key[0] == "chip" and not part.row["quality"]}
    for key, part in survey.parts.items():
        if key[0] == "warp" and part.inputs:
            part.inputs = tuple(each for each in part.inputs if each[0] != "chip" or each in good)


def _read_destreaks(survey: Survey) -> None:
    """Add the newest destreak run to each component that needs one, and the file of the component in it."""
    if not survey.policy.need_magic:
        return
    parts = [part for key, part in survey.parts.items() if key[0] in MADE_AGAIN and survey.own_facts(part).need_magic]
    run, file = magicDSRun, magicDSFile
    found: dict[tuple[str, int], tuple[Row, dict[str, Row]]] = {}
    for batch in chunked(sorted({part.key[:2] for part in parts}), BATCH):
        query: Any = run.select(
            run.stage, run.stage_id, run.magic_ds_id, run.state.alias("run_state"), run.fault.alias("run_fault"),
            run.label, file.component, file.data_state.alias("file_state"), file.fault.alias("file_fault"),
        ).join(file, JOIN.LEFT_OUTER, on=(file.magic_ds_id == run.magic_ds_id))  # fmt: skip
        stages, runs = {stage for stage, _ in batch}, {number for _, number in batch}
        query = query.where(
            run.stage_id.in_(sorted(runs)), run.stage.in_(sorted(stages)), run.state != "drop",
            run.re_place == True,  # noqa: E712 (SQL)
        ).order_by(run.magic_ds_id)  # fmt: skip
        for row in query.dicts():
            known = found.get((row["stage"], row["stage_id"]))
            if known is None or known[0]["magic_ds_id"] != row["magic_ds_id"]:  # a newer one
                known = found[row["stage"], row["stage_id"]] = row, {}
            known[1][row["component"]] = row
    for part in parts:
        whole, files = found.get(part.key[:2], ({}, {}))
        one = files.get(part.key[2], {})
        part.destreak = {
            "magic_ds_id": whole.get("magic_ds_id", 0), "run_state": whole.get("run_state", ""),
            "label": whole.get("label"), "file_state": one.get("file_state", ""),
            "fault": one.get("file_fault") or whole.get("run_fault") or 0,
        }  # fmt: skip


def _read_updates(survey: Survey) -> None:
    """Add the work so far to each component, and to the survey the priorities of the runs that have update labels."""
    of_key: dict[Key, tuple[Part, str]] = {}
    for part in survey.parts.values():
        if part.key[0] in MADE_AGAIN:
            of_key[part.key] = part, "effort"
        if part.destreak_key:
            of_key[part.destreak_key] = part, "destreak_effort"
    table = pstampUpdate
    for batch in chunked(sorted(of_key), BATCH):
        for row in _rows_of(table, batch, table.component.in_(sorted({key[2] for key in batch}))):
            key = row.stage, row.stage_id, row.component
            if key in of_key:
                part, name = of_key[key]
                setattr(part, name, Effort(**{each: getattr(row, each) for each in Effort.__dataclass_fields__}))
        for row in _rows_of(pstampRunLabel, batch):
            survey.labels[row.stage, row.stage_id] = row.priority


def _rows_of(table: Any, keys: list[Key], *conditions: Any) -> Iterable[Any]:
    stages, runs = {key[0] for key in keys}, {key[1] for key in keys}
    rows: type[Model] = table
    return rows.select().where(table.stage_id.in_(sorted(runs)), table.stage.in_(sorted(stages)), *conditions)
