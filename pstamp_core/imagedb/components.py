"""What can be said of one component of a run: one ordered table of rules, for the parser and the checker alike.

It unites the tables of `pstampparse.pl` (``queueUpdatesIfNeeded``) and `pstamp_checkdependent.pl`, which disagreed with
each other and let states that they did not list wait for ever. Pure: the facts go in, the verdict comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from pstamp_core.faults import Fault, fault_sentence

STATES = (
    "new", "reg", "full", "drop", "wait", "keep", "ignore", "update", "cleaned", "goto_cleaned", "error_cleaned",
    "purged", "goto_purged", "error_purged", "scrubbed", "goto_scrubbed", "error_scrubbed",
)  # fmt: skip
"""The words for the state of a run or a component that IPP's common validity check accepts (`pxtools.c`)."""

_STACK_STACK = 4

MADE_AGAIN = ("chip", "warp", "diff")
"""The stages whose components are cleaned, and made again from their inputs."""


class Component(Enum):
    """What can be said of one component of a run."""

    USABLE = "usable"
    """All pixels are there."""

    QUEUE = "to be queued"
    """It can be made again, and all it needs for that is there; it has to be put into `update`."""

    IN_PROGRESS = "in progress"
    """It is being made again."""

    WAITING = "waiting"
    """Neither there nor to be queued now, for a reason that passes by itself or that an operator must settle."""

    NOT_NOW = "not now"
    """It can't be had as things are; code 25."""

    NOT_DESTREAKED = "not destreaked"
    """It was never cleared of satellite streaks, and the project wants that; code 24."""

    GONE = "gone"
    """The pixels will not come back; code 26."""


CODES: Mapping[Component, Fault] = {
    Component.NOT_NOW: Fault.PSTAMP_NOT_AVAILABLE,
    Component.NOT_DESTREAKED: Fault.PSTAMP_NOT_DESTREAKED,
    Component.GONE: Fault.PSTAMP_GONE,
}
"""The codes in which jobs stop; with any other finding they run, or wait."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one component.

    Attributes
    ----------
    component : Component
        The finding.
    reason : str
        One clause for user and operator, without subject and without numbers of runs: ``cleaned, must be made again``.
    cause : int
        The retryable code that led to a final one, if one did.
    """

    component: Component
    reason: str
    cause: int = 0

    @property
    def fault(self) -> Fault:
        """The code in which a job on it stops now: 24, 25 or 26. 0: the job runs, or waits for a dependent."""
        return CODES.get(self.component, Fault.PSTAMP_SUCCESS)

    @property
    def waits(self) -> bool:
        """Whether a job on it waits for a dependent."""
        return self.component is not Component.USABLE and not self.fault


@dataclass(frozen=True)
class Tries:
    """How often the work on a component failed.

    Attributes
    ----------
    count : int
        Failed tries.
    cause : int
        What the last of them failed with.
    reason : str
        What the program that failed then said, if that is known.
    used_up : bool
        There were as many as the site allows, and the cool-down after that is not over.
    due : bool
        The time of the next try has come.
    """

    count: int = 0
    cause: int = 0
    reason: str = ""
    used_up: bool = False
    due: bool = True


@dataclass(frozen=True)
class Destreak:
    """The removal of satellite streaks from a component (`magicDSRun`, `magicDSFile`).

    Attributes
    ----------
    run_state, file_state : str
        Empty where there is no row.
    fault : int
        Of the file, or else of the run.
    of_source : bool
        Whether the raw image was destreaked, so that a chip made from it is without streaks, too.
    tries : Tries
        As of the component itself.
    """

    run_state: str = ""
    file_state: str = ""
    fault: int = 0
    of_source: bool = False
    tries: Tries = Tries()


@dataclass(frozen=True)
class Facts:
    """All that counts about one component.

    Attributes
    ----------
    stage, stage_id : str, int
        ``raw``, ``chip``, ``camera``, ``warp``, ``diff`` or ``stack``, and the number of the run.
    run_state, data_state : str
        State of the run and of the component; a stack and a camera product have one state for both.
    fault, quality : int
        Of the component.
    magicked : int
        Of the component: 0 never destreaked, > 0 destreaked, < 0 destreaked once and cleaned since.
    need_magic : bool
        Whether the project shows no images with streaks, and this one is of a kind that has them.
    oldest_diff : int
        Differences with a smaller number are too old to be made again (22779 for gpc1).
    as_input : bool
        It is wanted to make something else of it; the question is then that of IPP's update server, which is stricter.
    tries : Tries
        What making it again has led to so far.
    inputs : Verdict or None
        The worst verdict on what it is made of; None where nobody looked (the parser does not).
    destreak : Destreak or None
        None where nobody looked.
    """

    stage: str
    stage_id: int
    run_state: str
    data_state: str
    fault: int = 0
    quality: int = 0
    magicked: int = 0
    need_magic: bool = False
    oldest_diff: int = 0
    as_input: bool = False
    tries: Tries = Tries()
    inputs: Verdict | None = None
    destreak: Destreak | None = None

    @property
    def has_streaks(self) -> bool:
        """Whether it may not be shown as it is."""
        return self.need_magic and self.magicked <= 0

    @property
    def is_there(self) -> bool:
        """Whether the pixels are there, and nobody is about to delete them."""
        return self.data_state == "full" and self.run_state != "goto_cleaned"

    @property
    def can_be_made(self) -> bool:
        """Whether it is of a kind, and in a state, in which it can be made again.

        A chip run may say full over a chip that is not; the parser of the original let such chips wait.
        """
        runs = ("cleaned", "update", "goto_cleaned", "full") if self.stage == "chip" else (
            "cleaned", "update", "goto_cleaned")  # fmt: skip
        return self.stage in MADE_AGAIN and self.run_state in runs and self.data_state in ("cleaned", "update")


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes
    ----------
    when : str
        The condition in words, for the documentation.
    holds : callable
        The condition.
    component : Component
        The finding.
    reason : callable
        Gives the clause of the verdict.
    cause : callable
        Gives its cause.
    """

    when: str
    holds: Callable[[Facts], bool]
    component: Component
    reason: Callable[[Facts], str]
    cause: Callable[[Facts], int] = lambda _: 0

    def verdict(self, facts: Facts) -> Verdict:
        """Return the verdict on a component for which the rule holds."""
        return Verdict(self.component, self.reason(facts), self.cause(facts))


_HELD = {
    "new": "its first processing is not done",
    "reg": "its run is still being defined",
    "wait": "an operator holds it (wait)",
    "keep": "an operator holds it (keep)",
    "ignore": "an operator holds it (ignore)",
}


def _is_deleted(*words: str) -> bool:
    return any("purged" in word or "scrubbed" in word or word == "drop" for word in words)


def _whose(facts: Facts, found: Callable[[str], bool]) -> str:
    """Return which of the two states it is that `found` tells."""
    return f"its run is {facts.run_state}" if found(facts.run_state) else f"it is {facts.data_state}"


def _held(*words: str) -> str:
    return next((_HELD[word] for word in words if word in _HELD), "")


def _unknown(*words: str) -> str:
    odd = " and ".join(dict.fromkeys(repr(word) for word in words if word not in STATES))
    if not odd:
        return f"in states that do not go together ({' and '.join(words)}); an operator must look"
    return f"in a state that this server does not know ({odd}); an operator must look"


def _said(tries: Tries, fault: int) -> str:
    """Return what the program said that failed with a fault; nothing where that is not known."""
    return tries.reason if tries.cause == fault else ""


def _gone(tries: Tries) -> str:
    said = _said(tries, Fault.PSTAMP_GONE)
    return f"deleted for good (fault 26){f': {said}' if said else ''}"


def _failed(what: str, tries: Tries, fault: int) -> str:
    """Return what became of the tries so far; `fault` stands in the row, whoever put it there."""
    sentence = _said(tries, fault) or fault_sentence(fault).rstrip(".")
    number = f"{tries.count} tries to {what} it" if tries.count > 1 else f"a try to {what} it"
    return f"{number} failed, {'the last ' * (tries.count > 1)}with fault {fault}: {sentence}"


def _given_up(what: str, tries: Tries) -> str:
    return f"{_failed(what, tries, tries.cause)}; given up for now, a later request has it tried again"


def _inputs(facts: Facts, *findings: Component) -> bool:
    return facts.can_be_made and facts.inputs is not None and facts.inputs.component in findings


def _of_inputs(finding: Component) -> Rule:
    return Rule(
        f"an input that it would be made of is {finding.value}", lambda f: _inputs(f, finding), finding,
        lambda f: f.inputs.reason if f.inputs else "", lambda f: f.inputs.cause if f.inputs else 0,
    )  # fmt: skip


def _streaks(words: str, holds: Callable[[Destreak], bool], component: Component,
             reason: Callable[[Destreak], str], cause: Callable[[Destreak], int] = lambda _: 0) -> Rule:  # fmt: skip
    """Return a rule for an image that is there, but has streaks, and of whose destreaking something holds."""
    nothing = Destreak()
    return Rule(
        f"it is there with streaks, and its destreak run {words}",
        lambda f: f.is_there and f.has_streaks and f.destreak is not None and holds(f.destreak), component,
        lambda f: reason(f.destreak or nothing), lambda f: cause(f.destreak or nothing),
    )  # fmt: skip


_KEPT = {"goto_cleaned", "goto_restored", "reg", "wait", "keep", "ignore"}
_WORKING = ("new", "update")
_WHOLE_INPUTS = ("warp", "stack", "camera")

RULES: tuple[Rule, ...] = (
    Rule("raw, the project wants destreaked images, and it is none", lambda f: f.stage == "raw" and f.has_streaks,
         Component.NOT_DESTREAKED, lambda _: "never destreaked"),
    Rule("raw", lambda f: f.stage == "raw", Component.USABLE, lambda _: "raw images are kept"),
    Rule("fault 26", lambda f: f.fault == Fault.PSTAMP_GONE, Component.GONE, lambda f: _gone(f.tries)),
    Rule("run or component purged or scrubbed, or about to be, or dropped",
         lambda f: _is_deleted(f.run_state, f.data_state), Component.GONE,
         lambda f: f"deleted for good: {_whose(f, _is_deleted)}"),
    Rule("run or component error_cleaned", lambda f: "error_cleaned" in (f.run_state, f.data_state), Component.GONE,
         lambda f: f"lost when it was cleaned: {_whose(f, 'error_cleaned'.__eq__)}"),
    Rule("an input (warp, stack, camera) that is full, of bad quality",
         lambda f: f.as_input and f.stage in _WHOLE_INPUTS and f.is_there and f.quality != 0, Component.GONE,
         lambda f: f"of bad quality ({f.quality}); such images are not used"),
    Rule("an input (warp, stack, camera) that is full, with a fault",
         lambda f: f.as_input and f.stage in _WHOLE_INPUTS and f.is_there and f.fault != 0, Component.NOT_NOW,
         lambda f: f"it has fault {f.fault}; an operator must look", lambda f: f.fault),
    Rule("component full, run not goto_cleaned, and no streaks that matter",
         lambda f: f.is_there and not f.has_streaks, Component.USABLE, lambda _: "all pixels are there"),

    Rule("it is there with streaks; nobody looked for its destreak run",
         lambda f: f.is_there and f.destreak is None, Component.WAITING, lambda _: "has to be destreaked"),
    _streaks("is missing", lambda d: not d.run_state, Component.NOT_DESTREAKED, lambda _: "never destreaked"),
    _streaks("or file is deleted for good", lambda d: d.fault == Fault.PSTAMP_GONE
             or _is_deleted(d.run_state, d.file_state), Component.GONE,
             lambda _: "what is needed to destreak it again was deleted for good"),
    _streaks("or file failed to be cleaned or restored",
             lambda d: d.run_state == "failed_revert" or "error_cleaned" in (d.run_state, d.file_state),
             Component.NOT_NOW,
             lambda d: f"can't be destreaked, its destreak run is {d.run_state}; an operator must look"),
    _streaks("has used up its tries", lambda d: d.tries.used_up, Component.NOT_NOW,
             lambda d: _given_up("destreak", d.tries), lambda d: d.tries.cause),
    _streaks("or file is held, or about to be cleaned or restored",
             lambda d: bool(_KEPT & {d.run_state, d.file_state}), Component.WAITING,
             lambda d: f"has to be destreaked; the run for that is {d.run_state}, its file {d.file_state or 'none'}"),
    _streaks("failed, and it is not yet time for the next try",
             lambda d: d.run_state in _WORKING and d.fault != 0 and not d.tries.due, Component.WAITING,
             lambda d: f"{_failed('destreak', d.tries, d.fault)}; tried again after a while"),
    _streaks("is cleaned or full, or its file is, or it failed",
             lambda d: d.run_state in ("cleaned", "full")
             or (d.run_state in _WORKING and (d.fault != 0 or d.file_state in ("cleaned", "full"))),
             Component.QUEUE, lambda _: "has to be destreaked"),
    _streaks("is at work", lambda d: d.run_state in _WORKING and d.file_state in ("", *_WORKING),
             Component.IN_PROGRESS, lambda _: "being destreaked"),
    _streaks("is in another state, or its file is", lambda _: True, Component.NOT_NOW,
             lambda d: f"has to be destreaked, but its destreak run is {_unknown(d.run_state, d.file_state)}"),

    Rule("stack, in a known state", lambda f: f.stage == "stack" and f.run_state in STATES, Component.GONE,
         lambda f: f"state {f.run_state}; stacks are not made again"),
    Rule("camera product in update", lambda f: f.stage == "camera" and f.run_state == "update", Component.IN_PROGRESS,
         lambda _: "being made again"),
    Rule("camera product cleaned, or about to be", lambda f: f.stage == "camera" and "cleaned" in f.run_state,
         Component.GONE, lambda f: f"state {f.run_state}; camera products are not made again"),
    Rule("quality not 0", lambda f: not f.is_there and f.quality != 0, Component.GONE,
         lambda f: f"of bad quality ({f.quality}); such images are not made again"),
    Rule("warp or diff whose run says full, but which is not",
         lambda f: f.stage in ("warp", "diff") and f.run_state == "full" != f.data_state, Component.NOT_NOW,
         lambda f: f"{f.data_state} although its run says full; an operator must look"),
    Rule("diff below the project's oldest_diff, not there",
         lambda f: f.stage == "diff" and not f.is_there and f.stage_id < f.oldest_diff, Component.GONE,
         lambda f: f"{f.data_state}, and too old to be made again (before difference {f.oldest_diff})"),
    Rule("chip to be destreaked, not there, which never was, nor its raw image",
         lambda f: f.stage == "chip" and f.need_magic and f.can_be_made and f.destreak is not None
         and not f.destreak.run_state and not f.destreak.of_source, Component.NOT_DESTREAKED,
         lambda _: "never destreaked"),
    Rule("run or component not processed yet, or held by an operator",
         lambda f: not f.is_there and bool(_held(f.run_state, f.data_state)), Component.WAITING,
         lambda f: _held(f.run_state, f.data_state)),
    Rule("component goto_cleaned", lambda f: f.data_state == "goto_cleaned" and f.run_state in STATES,
         Component.WAITING, lambda _: "being cleaned; it can be made again after that"),
    Rule("making it has used up its tries", lambda f: f.can_be_made and f.tries.used_up, Component.NOT_NOW,
         lambda f: _given_up("make", f.tries), lambda f: f.tries.cause),
    _of_inputs(Component.GONE),
    _of_inputs(Component.NOT_DESTREAKED),
    _of_inputs(Component.NOT_NOW),
    Rule("run goto_cleaned", lambda f: f.run_state == "goto_cleaned" and f.data_state in ("full", "cleaned", "update"),
         Component.QUEUE,
         lambda f: "about to be cleaned; to be kept" if f.data_state == "full" else "cleaned, must be made again"),
    Rule("an input is not there yet",
         lambda f: _inputs(f, Component.WAITING, Component.QUEUE, Component.IN_PROGRESS), Component.WAITING,
         lambda f: f.inputs.reason if f.inputs else ""),
    Rule("run and component in update, the last try failed, and it is not yet time for the next",
         lambda f: f.run_state == f.data_state == "update" and f.fault != 0 and not f.tries.due, Component.WAITING,
         lambda f: f"{_failed('make', f.tries, f.fault)}; tried again after a while"),
    Rule("run and component in update, the last try failed, and it is time for the next",
         lambda f: f.run_state == f.data_state == "update" and f.fault != 0 and f.can_be_made, Component.QUEUE,
         lambda f: f"{_failed('make', f.tries, f.fault)}; to be tried again"),
    Rule("run and component in update", lambda f: f.run_state == f.data_state == "update" and f.can_be_made,
         Component.IN_PROGRESS, lambda _: "being made again"),
    Rule("cleaned, or one of run and component in update and the other not", lambda f: f.can_be_made,
         Component.QUEUE, lambda _: "cleaned, must be made again"),
    Rule("anything else: a word that is no state", lambda _: True, Component.NOT_NOW,
         lambda f: _unknown(f.run_state, f.data_state)),
)  # fmt: skip
"""The table: the first rule that holds decides. The last one always holds."""


def classify(facts: Facts, *, no_wait: str = "") -> Verdict:
    """Return the verdict on a component.

    Parameters
    ----------
    facts : Facts
        About the component.
    no_wait : str
        Why nobody waits for it (any more), if so: what would wait is then not to be had now (25).
    """
    verdict = next(rule for rule in RULES if rule.holds(facts)).verdict(facts)
    if no_wait and verdict.waits:
        return Verdict(Component.NOT_NOW, f"{verdict.reason}; {no_wait}", facts.tries.cause)
    return verdict


def needs_magic(stage: str, diff_mode: int | None, wanted: bool) -> bool:
    """Tell whether an image must be destreaked in a project that wants that: stacks, and what is made of stacks, don't.

    Parameters
    ----------
    stage : str
        Of the image.
    diff_mode : int or None
        Of a difference: 4 is stack-stack.
    wanted : bool
        Whether the project wants it (`pstampProject.need_magic`).
    """
    return wanted and stage in ("raw", *MADE_AGAIN) and diff_mode != _STACK_STACK


_WORST_FIRST = (
    Component.GONE, Component.NOT_DESTREAKED, Component.NOT_NOW, Component.WAITING, Component.QUEUE,
    Component.IN_PROGRESS, Component.USABLE,
)  # fmt: skip


def worst(inputs: Iterable[tuple[str, Verdict]]) -> Verdict:
    """Return the verdict on all inputs of a component together: the worst, said of the component.

    Parameters
    ----------
    inputs : iterable of (str, Verdict)
        What each is, as ``chip``, and the verdict on it; one at least.
    """
    found = sorted(inputs, key=lambda each: _WORST_FIRST.index(each[1].component))
    what, verdict = found[0]
    if verdict.waits:
        return Verdict(verdict.component, f"waits for its {what}: {verdict.reason}", verdict.cause)
    if verdict.fault:
        return Verdict(verdict.component, f"can't be made again without its {what}: {verdict.reason}", verdict.cause)
    return verdict
