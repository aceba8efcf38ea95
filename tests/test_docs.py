"""The generated pages are what the machines and the commands say."""

from __future__ import annotations

import re
import runpy
import shutil
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pstamp_core.imagedb import components
from pstamp_core.machines import DEPENDENT, JOB, REQUEST, Machine

ROOT = Path(__file__).parent.parent
GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))
MACHINES = pytest.mark.parametrize("machine", [REQUEST, JOB, DEPENDENT], ids=lambda machine: machine.name)
FILES = [
    *(
        f"docs/state-diagrams/{name}.{kind}"
        for name in ("request", "job", "dependent", "component")
        for kind in ("md", "svg")
    ),
    "docs/state-diagrams/README.md",
    "docs/commands.md",
    "models/job.inc",
]


def test_generated_files_are_not_stale(capsys: pytest.CaptureFixture[str]) -> None:
    assert (GENERATE["main"](["--check"]), capsys.readouterr().out) == (0, "")


def test_a_file_that_was_edited_is_stale_until_it_is_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert GENERATE["main"](["--check"], tmp_path) == 0
    for name in FILES:
        path = tmp_path / name
        text = path.read_text("utf-8").replace("revert", "invert").replace("state", "estate").replace("made", "mode")
        path.write_text(text, "utf-8")
    assert GENERATE["main"](["--check"], tmp_path) == 1
    assert set(re.findall(r"[\w/.-]+\.\w+", capsys.readouterr().out)) == set(FILES)
    assert GENERATE["main"]([], tmp_path) == 0
    assert GENERATE["main"](["--check"], tmp_path) == 0
    for name in FILES:
        if not name.endswith(".svg"):  # versions of graphviz draw differently
            assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


def test_without_graphviz_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="drawn by graphviz's program dot: apt-get install graphviz"):
        GENERATE["svg"]("digraph {}")


@MACHINES
def test_a_drawing_shows_every_state_and_event(machine: Machine) -> None:
    text = (ROOT / "docs" / "state-diagrams" / f"{machine.name}.svg").read_text("utf-8")
    shown = re.findall(r"\w+", " ".join(re.findall(r">([^<]*)</text>", text)))
    for state in machine.states:
        assert state.value in shown
    for event, *_ in machine.arrows():
        assert event.value in shown


@MACHINES
def test_a_page_holds_the_whole_table(machine: Machine) -> None:
    text = (ROOT / "docs" / "state-diagrams" / f"{machine.name}.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.split("## Transitions")[1].splitlines() if " | " in line]
    titles, *rows = rows
    assert len(rows) == len(machine.edges)
    for row, edge in zip(rows, machine.edges, strict=True):
        assert len(row) == len(titles) == 8
        assert row[1] == f"`{edge.event.value}`"
        assert all(guard.value in row[2] for guard in edge.guards)
        assert row[4:6] == [edge.who, edge.meaning]
        assert row[7] == ("a row" if edge.history else "none")


def test_the_page_of_components_holds_all_findings_and_rules() -> None:
    text = (ROOT / "docs" / "state-diagrams" / "component.md").read_text("utf-8")
    findings, rules = text.split("## Findings")[1].split("## Rules")
    for finding in components.Component:
        assert f"\n| {finding.value} | " in findings
    rows = [line.strip("| ").split(" | ") for line in rules.splitlines() if re.match(r"\| \d", line)]
    assert [row[1:] for row in rows] == [[rule.when, rule.component.value] for rule in components.RULES]
    drawing = (ROOT / "docs" / "state-diagrams" / "component.svg").read_text("utf-8").replace("&#45;", "-")
    shown = re.findall(r">([^<]+)</text>", drawing)
    assert GENERATE["_HAPPENINGS"].keys() <= {text.strip() for text in shown}


def options(command: Any, name: str) -> Iterator[tuple[str, set[str]]]:
    """The names of the options of each command, as Typer parses them."""
    for each, inner in getattr(command, "commands", {}).items():
        yield from options(inner, f"{name} {each}")
    if not hasattr(command, "commands"):
        yield name, {word for each in command.params if each.param_type_name == "option" for word in each.opts}


SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
MODULES = {name: import_module(place.partition(":")[0]) for name, place in SCRIPTS.items()}


@pytest.mark.parametrize("name", [name for name, module in MODULES.items() if hasattr(module, "app")])
def test_the_reference_has_every_option_of_every_command(name: str) -> None:
    text = (ROOT / "docs" / "commands.md").read_text("utf-8")
    for title, names in options(get_command(MODULES[name].app), name):
        section = re.split(r"\n##+ ", text.split(f"# {title}\n", 1)[1])[0]
        listed = {word for line in section.splitlines() if line.startswith("* `-") for word in _names(line)}
        assert listed == names - {"--help"}, title
        assert f"Example: {title} " in f"{section} ".replace("\n", " "), title


def _names(line: str) -> list[str]:
    return [word.split()[0] for word in re.findall(r"`(-[^`]+)`", line.partition(": ")[0])]


def test_the_reference_has_every_script_and_mode() -> None:
    text = (ROOT / "docs" / "commands.md").read_text("utf-8")
    for name in SCRIPTS:
        assert f"\n## {name}\n" in text or f"Also called `{name}`" in text
    for mode in MODULES["pstamptool"].MODES:
        assert f"\n### pstamptool -{mode}\n" in text


@MACHINES
def test_names_are_safe_in_diagrams(machine: Machine) -> None:
    """Mermaid and Promela have words of their own; graphviz reads labels as HTML."""
    names = {state.value for state in machine.states} | {event.value for event, *_ in machine.arrows()}
    assert all(re.fullmatch("[a-z_]+", name) for name in names)
    assert not names & {"end", "note", "state", "direction", "class", "style", "click"}
