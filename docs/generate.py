"""Write the generated pages: one for each state machine. With ``--check``, only tell whether they are stale."""

from __future__ import annotations

import ast
import inspect
import sys
from enum import Enum
from pathlib import Path

from pstamp_core.machines import DEPENDENT, JOB, REQUEST, Machine
from pstamp_core.machines.machine import FaultClass

FOLDER = Path(__file__).parent / "state-diagrams"


def meanings(states: type[Enum]) -> dict[str, str]:
    """Return the docstring below each member of an enum."""
    (body,) = ast.parse(inspect.getsource(states)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for member, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            name = member.targets[0]
            assert isinstance(name, ast.Name)
            found[name.id] = " ".join(str(text.value.value).split())
    return found


def page(machine: Machine) -> str:
    """Return the page of a machine: its diagram, its states, its transitions."""
    about = inspect.getdoc(inspect.getmodule(machine.states)) or ""
    texts = meanings(machine.states)
    lines = [f"# {machine.name.capitalize()}", "", about, ""]
    lines += ["This page is written by `make docs` from the machine's table; do not edit it.", "", "```mermaid"]
    lines += ["stateDiagram-v2", *(f"    [*] --> {state.value}" for state in machine.initial)]
    labels: dict[tuple[str, str], list[str]] = {}
    for event, source, dest, _ in machine.arrows():
        labels.setdefault((source.value, dest.value), []).append(event.value)
    lines += [f"    {source} --> {dest}: {', '.join(events)}" for (source, dest), events in labels.items()]
    lines += [f"    {state.value} --> [*]" for state in machine.states if not machine.events(state)]
    lines += ["```", "", "## States", "", "| state | meaning | faults |", "|---|---|---|"]
    for state in machine.states:
        faults = ", ".join(each.value for each in FaultClass if each in machine.faults[state])
        lines.append(f"| `{state.value}` | {texts[state.name]} | {faults} |")
    lines += ["", "## Transitions", ""]
    lines += ["| from | event | needs | to | by | meaning | history |", "|---|---|---|---|---|---|---|"]
    for edge in machine.edges:
        sources = ", ".join(f"`{state.value}`" for state in edge.sources)
        needs = "; ".join(guard.value for guard in edge.guards) or "–"
        dest = "stays" if edge.dest is None else f"`{edge.dest.value}`"
        cells = (sources, f"`{edge.event.value}`", needs, dest, edge.who, edge.meaning)
        lines.append(f"| {' | '.join(cells)} | {'a row' if edge.history else 'none'} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Write the pages, or with ``--check`` compare them; return 1 when one is stale."""
    stale = []
    for machine in (REQUEST, JOB, DEPENDENT):
        path, text = FOLDER / f"{machine.name}.md", page(machine)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and stale:
        print(f"stale: {', '.join(stale)}; run: make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
