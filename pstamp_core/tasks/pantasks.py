"""The table of tasks as a script for pantasks, IPP's scheduler (`pstamp.pro`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pstamp_core.faults import Fault, RetryableError
from pstamp_core.tasks.table import TASKS, Task

POLL = 0.5
"""Seconds between two looks of pantasks at a command that runs (`pantasks.pro`, RUNPOLL)."""

_WORD = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")

HEAD = """\
# pstamp.pro: the tasks of the postage stamp server, for pantasks.
# Written by pstamp pantasks; not to be changed by hand: write it anew.
#
# NOT VERIFIED: no pantasks has read this file yet. To our knowledge it uses nothing that IPP's own scripts don't, and
# of pantasks.pro nothing at all: task, macro, for, if, break, echo; host, periods, npending, active, task.exec,
# command, options, task.exit; book init, npages, getpage, getword, setword, delpage; ipptool2book; list -add, -del;
# controller host add, delete, controller status. All tasks are off at first.
#
# Rows are claimed in the database before they are worked on; books know nothing that is not known there. So several
# pantasks, and pstamp serve beside them, may run these tasks, and a page that is lost, or run twice, does no harm. A
# page is deleted when its command has ended, however that was: what failed is listed again when its back-off is over.
# What pantasks kills at a time-out leaves a lease; when that has run out, pstamp.reap makes it fault 6.
#
# pstamp.on, pstamp.off               everything
# pstamp.GROUP.on, pstamp.GROUP.off   {groups}
# pstamp.add.label, pstamp.del.label, pstamp.show.labels   labels to work on, % and _ are wildcards; none: all
# pstamp.add.host, pstamp.del.host, pstamp.show.hosts      hosts for the *.run tasks
# pstamp.reset                        forget all pages

$PSTAMP_LABEL:n = 0
"""

MACROS = """\
macro pstamp.add.label
  if ($0 != 2)
    echo "USAGE: pstamp.add.label (label)"
    break
  end
  list PSTAMP_LABEL -add $1
end

macro pstamp.del.label
  if ($0 != 2)
    echo "USAGE: pstamp.del.label (label)"
    break
  end
  list PSTAMP_LABEL -del $1
end

macro pstamp.show.labels
  for i 0 $PSTAMP_LABEL:n
    echo $PSTAMP_LABEL:$i
  end
end

macro pstamp.add.host
  if ($0 != 2)
    echo "USAGE: pstamp.add.host (host)"
    break
  end
  controller host add $1
end

macro pstamp.del.host
  if ($0 != 2)
    echo "USAGE: pstamp.del.host (host)"
    break
  end
  controller host delete $1
end

macro pstamp.show.hosts
  controller status
end
"""


def pantasks_script(options: Mapping[str, str | None]) -> str:
    """Return a script that defines all tasks, switched off.

    Parameters
    ----------
    options : mapping of str to str or None
        What every command gets besides, such as ``{"home": "/data/pstamp"}``; None is left out.

    Raises
    ------
    RetryableError
        Fault 3: an option's value has a character that pantasks may take for its own.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if not _WORD.fullmatch(value):
            raise RetryableError(
                f"--{name} {value!r}: pantasks takes letters, digits and _./:@%+,=- only", Fault.PS_EXIT_CONFIG_ERROR
            )
    groups = list(dict.fromkeys(task.group for task in TASKS))
    switched = {
        f"pstamp.{group}": [name for task in TASKS if task.group == group for name in _names(task)] for group in groups
    }
    switched["pstamp"] = [name for names in switched.values() for name in names]
    books = [_book(task) for task in TASKS if task.queue]
    return "\n".join([
        HEAD.format(groups=" ".join(groups)),
        *(f"book init {book}" for book in books), "",
        MACROS,
        *_macro("pstamp.reset", [f"  book init {book}" for book in books]),
        *(
            line
            for group, names in switched.items()
            for on, active in (("on", "true"), ("off", "false"))
            for line in _macro(f"{group}.{on}", _switch(names, active))
        ),
        *(line for task in TASKS for line in (_paged(task, given) if task.queue else _plain(task, given))),
    ])  # fmt: skip


def _names(task: Task) -> list[str]:
    """Return the names of what `task` is in pantasks."""
    return [_load_name(task), task.name] if task.queue else [task.name]


def _load_name(task: Task) -> str:
    return task.name.removesuffix("run") + "load"


def _book(task: Task) -> str:
    """Return the name of the book with what waits for `task`."""
    return f"pstamp{task.name.split('.')[-2].capitalize()}"


def _macro(name: str, lines: Iterable[str]) -> list[str]:
    return [f"macro {name}", *lines, "end", ""]


def _switch(names: Iterable[str], active: str) -> list[str]:
    return [line for name in names for line in (f"  task {name}", f"    active {active}", "  end")]


def _head(name: str, host: str, period: float, timeout: float, at_once: int) -> list[str]:
    return [
        f"task {name}",
        f"  host {host}",
        f"  periods -poll {POLL:g}",
        f"  periods -exec {period:g}",
        f"  periods -timeout {timeout:g}",
        *([f"  npending {at_once}"] if at_once else []),
        "  active false",
    ]


def _ends(name: str, *lines: str) -> list[str]:
    """Return what is done however a command ends; only what went wrong is told."""
    return [
        line
        for case, told in (
            ("default", f'    echo "{name} $options:0: ended in $JOB_STATUS"'),
            ("crash", f'    echo "{name} $options:0: crashed"'),
            ("timeout", f'    echo "{name} $options:0: timed out"'),
        )
        for line in (f"  task.exit {case}", told, *lines, "  end")
    ]


def _paged(task: Task, options: Mapping[str, str]) -> list[str]:
    """Return a load task, which makes a page of each row that waits, and a run task, which works on a page."""
    queue, book, load = task.queue, _book(task), _load_name(task)
    if queue is None:
        return []
    program, key = task.command[0], queue.key
    listed = " ".join(["pstamptool", f"-{queue.mode}", f"-limit {queue.limit}", *_with(options, "-")])
    worked = " ".join([program, f"--{key} ${key.upper()}", *_with(options, "--"), "--redirect-output"])
    close = f"    book delpage {book} $options:0"
    return [
        *_head(load, "local", queue.period, queue.timeout, 1),
        "  task.exec",
        f"    $run = {listed}",
        "    for i 0 $PSTAMP_LABEL:n",
        "      $run = $run -label $PSTAMP_LABEL:$i",
        "    end",
        "    options all",
        "    command $run",
        "  end",
        "  task.exit 0",
        f"    ipptool2book stdout {book} -key {key} -uniq -setword pantaskState INIT",
        "  end",
        *_ends(load),
        "end",
        "",
        *_head(task.name, "anyhost", task.period, task.timeout, task.at_once),
        "  task.exec",
        f"    book npages {book} -var N",
        "    if ($N == 0) break",
        f"    book getpage {book} 0 -var PAGE -key pantaskState INIT",
        '    if ("$PAGE" == "NULL") break',
        f"    book setword {book} $PAGE pantaskState RUN",
        f"    book getword {book} $PAGE {key} -var {key.upper()}",
        "    options $PAGE",
        f"    command {worked}",
        "  end",
        "  task.exit 0",
        close,
        "  end",
        *_ends(task.name, close),
        "end",
        "",
    ]


def _plain(task: Task, options: Mapping[str, str]) -> list[str]:
    return [
        *_head(task.name, "local", task.period, task.timeout, task.at_once),
        "  task.exec",
        "    options all",
        f"    command {' '.join([*task.arguments(), *_with(options, '--')])}",
        "  end",
        *_ends(task.name),
        "end",
        "",
    ]


def _with(options: Mapping[str, str], dashes: str) -> list[str]:
    return [f"{dashes}{name} {value}" for name, value in options.items()]
