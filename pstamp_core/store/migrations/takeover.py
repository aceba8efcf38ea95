"""How a request, job or dependent of the original schema becomes a legal one; pure, no database.

The original knows limbo states, in which nobody works on a row for ever: a job that is `run` with a final code, a
dependent that is `new` with one, and so on (`pstamptool.c`, `pstamp.pro`). Each row is taken to what its columns mean:

* A final code (10 and up) ends what carries it; that of a request becomes the answer of a job, and it is finished.
* A retryable code (1-9) stays where it can be tried again; where it gives way to a final one, it is kept as the cause.
* A word that is no state was written by hand to keep a row from being worked on: it becomes `cancel` (a dependent:
  `stop`).
* Jobs of a closed dependent end with its code. Of duplicates the first stays open, and takes over the others' jobs.
* The original keeps a job's parameters and products in files (``<outputBase>.mdc``, ``reglist<job_id>``), so that a job
  can neither be run nor published from its row. A request that needs that goes back to `new` and is parsed again, its
  jobs removed; where no request file is named, its jobs end with code 25.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pstamp_core.faults import Fault, is_final, is_retryable
from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.store.migrations.original import fold

_WORDS = {
    "request": {state.value for state in RequestState},
    "job": {state.value for state in JobState},
    "dependent": {state.value for state in DependentState},
}
_NO_FILES = "parameters and products of jobs are not in the database"


@dataclass
class Row:
    """A row on its way.

    Attributes
    ----------
    machine : str
        ``request``, ``job`` or ``dependent``.
    number : int
        Its number.
    old : mapping
        The columns as they were read; empty for a job that is made.
    new : dict
        The columns as they will be, those of ours included.
    removed : bool
        It will not be there any more.
    why : list of str
        Why state or fault change.
    other : list of str
        What else changes.
    """

    machine: str
    number: int
    old: Mapping[str, Any]
    new: dict[str, Any]
    removed: bool = False
    why: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """The state as it will be; empty while it is no state."""
        return str(self.new["state"])

    @property
    def fault(self) -> int:
        """The fault as it will be."""
        return int(self.new["fault"])

    @property
    def changed(self) -> bool:
        """Whether its state or fault is another, or it came or went."""
        return self.removed or _text(self.machine, self.old) != _text(self.machine, self.new)

    def become(self, state: str, fault: int, why: str) -> None:
        """Change state and fault."""
        self.new |= {"state": state, "fault": int(fault)}
        self.why.append(why)

    def remove(self, why: str) -> None:
        """Take it out of the database."""
        self.removed = True
        self.why.append(why)

    def correct(self, column: str, value: Any, why: str) -> None:
        """Change another column."""
        self.other.append(f"{column} {_value(self.new[column])} -> {value!r}: {why}")
        self.new[column] = value

    def lines(self) -> list[str]:
        """Return what is changed and why, one readable line each."""
        title = f"{self.machine} {self.number}"
        if self.changed:
            before = f"{_text(self.machine, self.old)} ->" if self.old else "made,"
            after = "removed" if self.removed else _text(self.machine, self.new)
            if self.new["cause"] and not self.removed:
                after += f", cause {self.new['cause']}"
            return [f"{title}: {before} {after}: {'; '.join(self.why)}"] + (
                [] if self.removed else [f"{title}: {each}" for each in self.other]
            )
        return [f"{title}: {each}" for each in self.other]


def _text(machine: str, columns: Mapping[str, Any]) -> str:
    if not columns:
        return ""
    word, fault = columns["state"], columns["fault"]
    state = word if word in _WORDS[machine] else _value(word)
    return f"{state} with fault {'NULL' if fault is None else fault}"


def _value(value: Any) -> str:
    return "NULL" if value is None else repr(value)


def _start(machine: str, number: int, old: Mapping[str, Any], new: Mapping[str, Any]) -> Row:
    """Return a row with its state as a word of ours or empty, and a fault that is not negative; the cause is set."""
    row = Row(machine, number, old, dict(new))
    word = fold(old["state"] or "")
    row.new |= {"state": word if word in _WORDS[machine] else "", "fault": old["fault"] or 0}
    if row.state and row.state != old["state"]:
        row.why.append("states compare by their bytes")
    if old["fault"] is None:
        row.why.append("no fault is 0")
    if row.fault < 0:
        row.become(row.state, Fault.PS_EXIT_UNKNOWN_ERROR, "a fault is not negative")
    if (count := row.new.get("fault_count", 0)) < 0:
        row.correct("fault_count", 0, f"{count} is no count")
    row.new["cause"] = row.fault if is_retryable(row.fault) else 0
    return row


def take_dependent(old: Mapping[str, Any], new: Mapping[str, Any]) -> Row:
    """Return a dependent under the fault rule."""
    row = _start("dependent", old["dep_id"], old, new)
    fault = row.fault
    code = fault if is_final(fault) else Fault.PSTAMP_NOT_AVAILABLE
    if row.state in ("new", "hold"):
        if is_final(fault):
            row.become("stop", fault, "a final code closes a dependent; a later need makes a new one")
        elif not (new["imagedb"] and new["stage"] and new["component"]):
            row.become("stop", code, "it names no component")
    elif row.state == "full" and fault:
        row.become("full", 0, "its component is there")
        row.new["cause"] = 0
    elif row.state == "stop" and fault != code:
        row.become("stop", code, "a closed dependent has a final code")
    elif not row.state:
        row.become("stop", code, "unknown state: nobody works on it")
    return row


class Dependents:
    """All dependents of the original, as far as their jobs need them."""

    def __init__(self) -> None:
        self._codes: dict[int, int] = {}
        self._keeper: dict[int, int] = {}
        self._open: dict[str, int] = {}

    def take(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Row:
        """Return a dependent that is legal by itself and beside those taken before."""
        row = take_dependent(old, new)
        row.new["open_key"] = None
        if row.state in ("new", "hold"):
            key = "|".join(str(row.new[name]) for name in ("imagedb", "stage", "stage_id", "component"))
            keeper = self._open.setdefault(fold(key), row.number)
            if keeper == row.number:
                row.new["open_key"] = key
            else:
                self._keeper[row.number] = keeper
                row.become("stop", Fault.PSTAMP_NOT_AVAILABLE, f"dependent {keeper} is open for the same component")
        if row.state == "stop":
            row.new["reason"] = row.why[-1] if row.why else ""
        self._codes[row.number] = row.fault if row.state == "stop" else 0
        return row

    def apply(self, job: Row) -> None:
        """Give an open job of a closed dependent its code, and one of a duplicate the dependent that stays open."""
        number = job.new["dep_id"]
        if number and number not in self._codes:
            job.correct("dep_id", 0, "there is no such dependent")
        elif keeper := self._keeper.get(number):
            job.correct("dep_id", keeper, f"dependent {number} is a duplicate")
        elif job.state in ("run", "parsed") and (code := self._codes.get(number)):
            _end([job], "stop", code, f"dependent {number}, which it waits for, is closed")


def take_job(old: Mapping[str, Any], new: Mapping[str, Any], dependents: Dependents) -> Row:
    """Return a job under the fault rule; what its request makes of it is left to `take_request`."""
    row = _start("job", old["job_id"], old, new)
    fault = row.fault
    if row.state in ("run", "parsed", "") and is_final(fault):
        row.become("stop", fault, "a final code ends a job")
    elif row.state == "parsed" and fault:
        row.become("parsed", 0, "a job that waits to be accepted has not been tried")
    elif row.state == "stop" and is_retryable(fault):
        row.become("stop", Fault.PSTAMP_NOT_AVAILABLE, "a job that has ended has success or a final code")
    elif row.state == "cancel" and not is_final(fault):
        row.become("cancel", Fault.PSTAMP_CANCELLED, "a cancelled job has a final code")
    elif not row.state:
        row.become("cancel", Fault.PSTAMP_CANCELLED, "unknown state: nobody works on it")
    if not row.new["rownum"].strip().isdecimal():
        row.correct("rownum", "0", "the number of a row, or 0 for the whole request")
    dependents.apply(row)
    return row


@dataclass
class Answer:
    """A job that has to be made, so that the user hears what became of the request."""

    fault: int
    cause: int


def take_request(
    old: Mapping[str, Any], new: Mapping[str, Any], jobs: Sequence[Row], name_is_taken: Callable[[str], bool]
) -> tuple[Row, Answer | None]:
    """Return a request that agrees with its `jobs`, which are changed too, and the answer job that it needs, if so."""
    row = _start("request", old["req_id"], old, new)
    fault = row.fault
    answer = None
    if not row.state:
        row.become("cancel", 0, "unknown state: nobody works on it, and the user is told so")
    elif fault and row.state in ("stop", "cleaned"):
        row.become(row.state, 0, "a request that has ended has no fault")
        row.new["cause"] = 0
        answer = Answer(fault, 0) if is_final(fault) and not jobs else None
    elif is_final(fault) and row.state in ("cancel", "goto_cleaned"):
        row.become(row.state, 0, "a request has no final code; it is tried again")
    if row.state in ("new", "parsed", "run"):
        answer = _go_on(row, jobs)
    elif row.state == "cancel":
        _end(_successes(jobs), "stop", Fault.PSTAMP_NOT_AVAILABLE, _NO_FILES)
        answer = None if jobs else Answer(Fault.PSTAMP_CANCELLED, row.new["cause"])
    if row.state in ("cancel", "stop", "goto_cleaned", "cleaned"):
        _end(_open(jobs), "cancel", Fault.PSTAMP_CANCELLED, f"its request {row.number} is in state {row.state}")
    if row.state in ("run", "cancel") and not (row.new["name"] or "").strip():
        name = f"ERROR.{row.number}"
        while name_is_taken(name):
            name += "."
        row.correct("name", name, "results need a name")
    row.new["fault_count"] = 1 if row.fault else 0
    return row, answer


def _go_on(row: Row, jobs: Sequence[Row]) -> Answer | None:
    """Decide how a request whose results are not published goes on: parsed again, finished, or left as it is."""
    fault, undone = row.fault, [*_open(jobs), *_successes(jobs)]
    if row.state != "new" and jobs and not undone and not is_final(fault):
        if row.state == "parsed" and fault:
            row.become("parsed", 0, "a request that waits to be accepted has no fault")
        return None
    has_file = bool((row.new["uri"] or "").strip())
    if has_file and not is_final(fault):
        _remove(jobs, f"request {row.number} is parsed again")
        if row.state != "new":
            row.become("new", 0, _NO_FILES if jobs else "it has no jobs")
        return None
    code = fault if is_final(fault) else int(Fault.PSTAMP_NOT_AVAILABLE)
    why = "a final code of a request is the answer of a job" if is_final(fault) else "no request file is named"
    if row.state == "new":
        _remove(jobs, f"request {row.number} could not be parsed")
    _end(undone, "stop", code, f"{_NO_FILES}, and {why}")
    answer = None if jobs and row.state != "new" and not is_final(fault) else Answer(code, row.new["cause"])
    if row.state != "run" or is_final(fault):
        row.become("run", 0, why)
    return answer


def _open(jobs: Sequence[Row]) -> list[Row]:
    return [job for job in jobs if job.state in ("run", "parsed")]


def _successes(jobs: Sequence[Row]) -> list[Row]:
    return [job for job in jobs if job.state == "stop" and not job.fault]


def _remove(jobs: Sequence[Row], why: str) -> None:
    for job in jobs:
        job.remove(why)


def _end(jobs: Sequence[Row], state: str, code: int, why: str) -> None:
    for job in jobs:
        if not job.removed:
            job.become(state, code, why)
            job.new["sentence"] = why
