"""The script for pantasks: its text, its structure, and that what it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pstamp_core.faults import RetryableError
from pstamp_core.tasks.pantasks import pantasks_script
from pstamp_core.tasks.table import TASKS
from runners.pstamptool import PSTAMPTOOL

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "test_pantasks.pro"
"""``pstamp pantasks --home /data/pstamp --dbname stamps --dbserver db1``"""

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
TEXT = pantasks_script({"home": "/data/pstamp", "dbname": "stamps", "dbserver": "db1"})
WORDS = {
    "active", "book", "break", "command", "controller", "echo", "host", "ipptool2book", "list", "npending", "options",
    "periods",
}  # fmt: skip
OPENING = ("macro ", "task ", "task.exec", "task.exit ", "for ")


def blocks(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield each line with the blocks that it stands in, outermost first; checks that each block is ended."""
    inside: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line == "end":
            inside.pop()
        assert raw == "  " * len(inside) + line
        if line != "end":
            yield list(inside), line
        opens = line.startswith(OPENING) or (line.startswith("if ") and not line.endswith(" break"))
        if opens:
            inside.append(line)
        elif not line.startswith(("if ", "$", "end")):
            assert line.split()[0] in WORDS
    assert inside == []


def test_the_text_is_what_it_was() -> None:
    assert GOLDEN.read_text() == TEXT


def test_each_task_is_switched_by_its_group_and_by_all() -> None:
    defined = {line.split()[1] for inside, line in blocks(TEXT) if not inside and line.startswith("task ")}
    assert defined == {
        name
        for task in TASKS
        for name in ([task.name, re.sub("run$", "load", task.name)] if task.queue else [task.name])
    }
    switches: dict[str, dict[str, str]] = {}
    for inside, line in blocks(TEXT):
        if line.startswith("active") and inside[0].startswith("macro"):
            active = switches.setdefault(inside[0].split()[1], {})
            assert inside[1].split()[1] not in active
            active[inside[1].split()[1]] = line.removeprefix("active ")
    groups = {task.group for task in TASKS}
    assert set(switches) == {
        f"{name}.{on}" for name in ("pstamp", *(f"pstamp.{g}" for g in groups)) for on in ("on", "off")
    }
    assert switches["pstamp.on"] == dict.fromkeys(defined, "true")
    assert switches["pstamp.off"] == dict.fromkeys(defined, "false")
    for group in groups:
        assert switches[f"pstamp.{group}.on"] == dict.fromkeys(switches[f"pstamp.{group}.off"], "true")
    assert sorted(name for group in groups for name in switches[f"pstamp.{group}.on"]) == sorted(defined)


def test_each_task_is_off_at_first_and_tells_every_bad_end() -> None:
    bodies: dict[str, list[str]] = {}
    for inside, line in blocks(TEXT):
        if len(inside) == 1 and inside[0].startswith("task "):
            bodies.setdefault(inside[0], []).append(line)
    for lines in bodies.values():
        assert "active false" in lines
        assert [line for line in lines if line.startswith("periods")] == [
            line for name in ("poll", "exec", "timeout") for line in lines if line.startswith(f"periods -{name} ")
        ]
        assert {"task.exit default", "task.exit crash", "task.exit timeout"} <= set(lines)
        assert sum(line.startswith("host ") for line in lines) == 1


def test_a_page_that_was_taken_is_deleted_at_every_end() -> None:
    taken = {inside[0]: line.split()[2] for inside, line in blocks(TEXT) if line.endswith("pantaskState RUN")}
    assert len(taken) == 5
    ends = [(inside[0], inside[1], line) for inside, line in blocks(TEXT) if line.startswith("book delpage")]
    assert sorted(ends) == sorted(
        (task, f"task.exit {case}", f"book delpage {book} $options:0")
        for task, book in taken.items()
        for case in ("0", "default", "crash", "timeout")
    )
    made = [line.split()[2] for inside, line in blocks(TEXT) if not inside and line.startswith("book init")]
    assert sorted(made) == sorted(taken.values())
    assert made == [line.split()[2] for inside, line in blocks(TEXT) if inside == ["macro pstamp.reset"]]


def command_lines() -> list[str]:
    return [
        re.sub(r"^(command|\$run =) ", "", line)
        for _, line in blocks(TEXT)
        if line.startswith(("command ", "$run = ")) and "$run" not in line.removeprefix("$run")
    ]


@pytest.mark.parametrize("line", command_lines())
def test_every_command_and_option_exists(line: str) -> None:
    program, *arguments = line.split()
    assert program in SCRIPTS
    if program == "pstamptool":
        mode, *options = (word[1:] for word in arguments if word.startswith("-"))
        assert set(options) <= {*PSTAMPTOOL.options(mode), "home", "dbname", "dbserver"}
        assert "label" in PSTAMPTOOL.options(mode)
        return
    module = SCRIPTS[program].partition(":")[0]
    command = [word for word in arguments[:1] if not word.startswith("-")]
    code = f"import sys; sys.argv = {[program, *command, '--help']}; from {module} import main; main()"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"COLUMNS": "200"})
    assert shown.returncode == 0
    for option in (word for word in arguments if word.startswith("--")):
        assert re.search(rf"(?<!\S){option}(?!\S)", shown.stdout)


@pytest.mark.parametrize("value", ["a b", "$HOME", "a;b", "a#b", '"', ""])
def test_what_pantasks_would_not_read_as_one_word_is_refused(value: str) -> None:
    with pytest.raises(RetryableError) as caught:
        pantasks_script({"home": value})
    assert (str(caught.value), caught.value.fault) == (
        f"--home {value!r}: pantasks takes letters, digits and _./:@%+,=- only", 3,
    )  # fmt: skip
