"""Write what is made from the machines' tables (state diagrams, the table of the model in ``models/``) and commands.md.

With ``--check`` only tell what is stale. A drawing is compared by the source it was drawn from, which stands in it,
since versions of graphviz draw differently.
"""

from __future__ import annotations

import ast
import inspect
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from enum import Enum, EnumType
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo, ParameterInfo

from pstamp_core.imagedb import components
from pstamp_core.machines import DEPENDENT, JOB, REQUEST, Event, Guard, Machine
from pstamp_core.machines.machine import FaultClass
from runners.ippargs import COMMON_HELP, Help, Program

ROOT = Path(__file__).parent.parent
DIAGRAMS = "docs/state-diagrams"
MACHINES = (REQUEST, JOB, DEPENDENT)
NOTE = "Written by `make docs` from the machine's table in `pstamp_core/machines/{}.py`; do not edit."


def about(machine: Machine) -> str:
    """Return the docstring of a machine's module."""
    return inspect.getdoc(inspect.getmodule(machine.states)) or ""


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


def moves(machine: Machine) -> dict[tuple[str, str], list[str]]:
    """Return the events that lead from one state to another, by both."""
    found: dict[tuple[str, str], list[str]] = {}
    for event, source, dest, _ in machine.arrows():
        if dest is not source:
            found.setdefault((source.value, dest.value), []).append(event.value)
    return found


def stays(machine: Machine, state: Any) -> list[str]:
    """Return the events after which a row may still be in `state`."""
    return [event.value for event, source, dest, _ in machine.arrows() if source is state and dest is state]


def faults(machine: Machine, state: Any) -> str:
    """Return the classes of faults that go with `state`."""
    return ", ".join(each.value for each in FaultClass if each in machine.faults[state])


def mermaid(machine: Machine) -> list[str]:
    """Return the diagram for Mermaid. Events that stay stand in the state's box, not at a loop."""
    lines = ["stateDiagram-v2"]
    for state in machine.states:
        lines.append(f"    {state.value} : {state.value}")
        if events := stays(machine, state):
            lines.append(f"    {state.value} : {', '.join(events)}")
    lines += [f"    [*] --> {state.value}" for state in machine.initial]
    lines += [f"    {source} --> {dest} : {', '.join(events)}" for (source, dest), events in moves(machine).items()]
    lines += [f"    {state.value} --> [*]" for state in machine.states if not machine.events(state)]
    return lines


def dot(machine: Machine) -> str:
    """Return the diagram for graphviz: on a light panel, so that it can be read on any page."""
    lines = [
        f'digraph "{machine.name}" {{',
        '    graph [bgcolor="#f6f8fa" pad=0.2 nodesep=0.5 ranksep=0.6]',
        '    node [color="#57606a" fontname="Helvetica,Arial" fontsize=11]',
        '    node [shape=box style="rounded,filled" fillcolor="white"]',
        '    edge [color="#57606a" fontname="Helvetica,Arial" fontsize=11 fontcolor="#0a3069"]',
    ]
    for state in machine.initial:
        lines.append(f'    "start {state.value}" [shape=point width=0.1 fillcolor="#57606a"]')
        lines.append(f'    "start {state.value}" -> "{state.value}"')
    for state in machine.states:
        rows = [f'<font point-size="14"><b>{state.value}</b></font>', f"fault {faults(machine, state)}"]
        events = stays(machine, state)
        by_three = (", ".join(events[start : start + 3]) for start in range(0, len(events), 3))
        rows += [f'<font color="#0a3069"><i>{three}</i></font>' for three in by_three]
        cells = "".join(f"<tr><td>{row}</td></tr>" for row in rows)
        ended = "" if machine.events(state) else " peripheries=2"
        lines.append(
            f'    "{state.value}" [label=<<table border="0" cellspacing="0" cellpadding="1">{cells}</table>>{ended}]'
        )
    for (source, dest), events in moves(machine).items():
        lines.append(f'    "{source}" -> "{dest}" [label=" {", ".join(events)} "]')
    return "\n".join([*lines, "}", ""])


def page(machine: Machine) -> str:
    """Return the page of a machine: its diagrams, its states, its transitions."""
    texts = meanings(machine.states)
    lines = [f"# {machine.name.capitalize()}", "", about(machine), "", NOTE.format(machine.name), ""]
    lines += [f"![Diagram of the states of a {machine.name}]({machine.name}.svg)", ""]
    lines += [
        "A dot leads to the states in which a row may be made, a double border marks the end. Events in a box leave",
        "the row in its state. The same for Mermaid:", "", "```mermaid", *mermaid(machine), "```", "",
    ]  # fmt: skip
    lines += ["## States", "", "| state | meaning | faults |", "|---|---|---|"]
    lines += [f"| `{state.value}` | {texts[state.name]} | {faults(machine, state)} |" for state in machine.states]
    lines += [
        "", "## Transitions", "",
        "All that an event needs must hold. A row of history holds the event, the states before and after it, fault,",
        "cause and attempt after it, who, when, and a note why.", "",
    ]  # fmt: skip
    titles = ("from", "event", "needs", "to", "by", "meaning", "what changes besides", "history")
    lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for edge in machine.edges:
        sources = ", ".join(f"`{state.value}`" for state in edge.sources)
        needs = "; ".join(guard.value for guard in edge.guards) or "–"
        dest = "stays" if edge.dest is None else f"`{edge.dest.value}`"
        effect = (inspect.getdoc(edge.effect) or "").splitlines()[0]
        history = "a row" if edge.history else "none"
        cells = (sources, f"`{edge.event.value}`", needs, dest, edge.who, edge.meaning, effect, history)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


_WARP = components.Facts("warp", 1, "cleaned", "cleaned", inputs=components.Verdict(components.Component.QUEUE, ""))
_HAPPENINGS: dict[str, tuple[set[str], dict[str, Any]]] = {
    # what happens: the findings in which it can, and what it changes
    "an input is made": ({"waiting"}, {"inputs": components.Verdict(components.Component.USABLE, "")}),
    "an input is gone": ({"waiting", "to be queued"}, {"inputs": components.Verdict(components.Component.GONE, "")}),
    "put into update": ({"to be queued"}, {"run_state": "update", "data_state": "update", "fault": 0}),
    "made": ({"in progress"}, {"run_state": "full", "data_state": "full", "tries": components.Tries()}),
    "a try fails": ({"in progress"}, {"fault": 2, "tries": components.Tries(1, 2, due=False)}),
    "time for the next try": ({"waiting"}, {"tries": components.Tries(1, 2)}),
    "the last try fails": ({"in progress"}, {"fault": 2, "tries": components.Tries(3, 2, used_up=True, due=False)}),
    "the cool-down is over": ({"not now"}, {"tries": components.Tries(3, 2)}),
    "its run is to be cleaned": ({"usable"}, {"run_state": "goto_cleaned"}),
    "its run is kept": ({"to be queued"}, {"run_state": "update"}),
    "cleaned": ({"usable"}, {"run_state": "cleaned", "data_state": "cleaned"}),
    "purged": ({"usable", "waiting", "to be queued", "in progress"}, {"run_state": "purged"}),
}
"""What befalls a component; where that leads to is for the rules to say."""


def component_moves() -> dict[tuple[str, str], list[str]]:
    """Return what leads a warp from one finding to another, by both: all that can happen to a cleaned one."""
    found: dict[tuple[str, str], list[str]] = {}
    seen = [_WARP]
    for facts in seen:  # which grows
        before = components.classify(facts).component.value
        for what, (findings, changes) in _HAPPENINGS.items():
            after = replace(facts, **changes)
            dest = components.classify(after).component.value
            if before in findings and dest != before:
                labels = found.setdefault((before, dest), [])
                labels += [what] * (what not in labels)
                seen += [after] * (after not in seen)
    return found


def component_dot() -> str:
    """Return the drawing of how a component goes from finding to finding."""
    colours = {0: "white", 24: "#ffebe9", 25: "#fff8c5", 26: "#ffebe9"}
    lines = [
        'digraph "component" {',
        '    graph [bgcolor="#f6f8fa" pad=0.2 nodesep=0.5 ranksep=0.6]',
        '    node [color="#57606a" fontname="Helvetica,Arial" fontsize=14 shape=box style="rounded,filled"]',
        '    edge [color="#57606a" fontname="Helvetica,Arial" fontsize=11 fontcolor="#0a3069"]',
    ]
    arrows, start = component_moves(), components.classify(_WARP).component.value
    lines += ['    "start" [shape=point width=0.1 fillcolor="#57606a"]', f'    "start" -> "{start}"']
    for finding in components.Component:
        if any(finding.value in arrow for arrow in arrows):
            code = int(components.CODES.get(finding, 0))
            text = finding.value + (f"\\nstops with {code}" if code else "")
            lines.append(f'    "{finding.value}" [label="{text}" fillcolor="{colours[code]}"]')
    for (before, after), labels in arrows.items():
        text = "\\n ".join(labels)
        lines.append(f'    "{before}" -> "{after}" [label=" {text} "]')
    return "\n".join([*lines, "}", ""])


def component_page() -> str:
    """Return the page of the rules that tell what can be said of a component."""
    texts = meanings(components.Component)
    note = "Written by `make docs` from the table in `pstamp_core/imagedb/components.py`; do not edit."
    lines = ["# Component", "", inspect.getdoc(components) or "", "", note, ""]
    lines += ["![How a component goes from finding to finding](component.svg)", ""]
    lines += ["The life of a warp, as the rules below tell it.", ""]
    lines += ["## Findings", "", "| finding | meaning | a job on it |", "|---|---|---|"]
    for finding in components.Component:
        verdict = components.Verdict(finding, "")
        job = f"stops with {int(verdict.fault)}" if verdict.fault else "waits" if verdict.waits else "runs"
        lines.append(f"| {finding.value} | {texts[finding.name]} | {job} |")
    lines += [
        "", "## Rules", "",
        "Asked in this order; the first that holds decides. States are those of the run and of its component. An image",
        "is there when it is full and its run is not `goto_cleaned`; it has streaks when the project wants destreaked",
        "images and it is none. Where nobody waits, or not any longer, what would wait is not to be had now (25).",
        "", "| | when | finding |", "|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {n} | {rule.when} | {rule.component.value} |" for n, rule in enumerate(components.RULES, 1)]
    return "\n".join([*lines, ""])


def promela(machine: Machine) -> str:
    """Return the part of the model that is the machine's table."""
    arrows = [(number, *arrow) for number, arrow in enumerate(machine.arrows(), 1)]
    fired = [event for event in Event if machine.sources(event)]
    ended = [state for state in machine.states if not machine.events(state)]
    legal = [
        f"(event == E_{event.name} && from == S_{source.name} && to == S_{dest.name})"
        for _, event, source, dest, _ in arrows
    ]
    fault_rule = [
        f"(state == S_{state.name} && ({_either(f'fault == F_{each.name}' for each in FaultClass if each in allowed)}))"
        for state, allowed in machine.faults.items()
    ]
    lines = [
        f"/* {NOTE.format(machine.name)} */", "",
        f"mtype = {{ {_names('S', machine.states)} }}    /* states */",
        f"mtype = {{ {_names('E', fired)} }}    /* events */",
        f"mtype = {{ {_names('F', FaultClass)} }}    /* classes of faults */", "",
        f"#define INITIAL(state) ({_either(f'state == S_{state.name}' for state in machine.initial)})",
        f"#define ENDED(state) ({_either(f'state == S_{state.name}' for state in ended)})",
        f"#define FAULT_RULE(state, fault) ( \\\n    {_either(fault_rule, NEXT_LINE)})",
        f"#define LEGAL(event, from, to) ( \\\n    {_either(legal, NEXT_LINE)})", "",
        "/* The line of the table that `event` takes from the row as it was seen; 0 when it is refused. */",
        "inline decide(event) {", "    if",
    ]  # fmt: skip
    for number, event, source, _, edge in arrows:
        guards = "".join(f" && G_{guard.name}" for guard in edge.guards)
        lines.append(f"    :: event == E_{event.name} && seen.state == S_{source.name}{guards} -> edge = {number}")
    held = _either(f"edge == {number}" for number, *_, edge in arrows if Guard.HELD in edge.guards)
    lines += [
        "    :: else -> edge = 0", "    fi", "}", "",
        "/* Whether that line asks for the caller's lease. */", f"#define NEEDS_LEASE ({held})", "",
        "/* What that line does to the row. */", "inline apply() {", "    if",
    ]  # fmt: skip
    lines += [
        f"    :: edge == {number} -> job.state = S_{dest.name}; {edge.effect.__name__}()"
        for number, _, _, dest, edge in arrows
    ]
    return "\n".join([*lines, "    fi", "}", ""])


NEXT_LINE = " \\\n    "


def _either(conditions: Iterable[str], space: str = " ") -> str:
    return f" ||{space}".join(conditions) or "false"


def _names(prefix: str, members: Iterable[Enum]) -> str:
    return ", ".join(f"{prefix}_{member.name}" for member in members)


def svg(source: str) -> str:
    """Return the drawing of a graph, with its source as a comment.

    Raises
    ------
    SystemExit
        Graphviz is not installed.
    """
    if not shutil.which("dot"):
        raise SystemExit("the diagrams are drawn by graphviz's program dot: apt-get install graphviz")
    done = subprocess.run(["dot", "-Tsvg"], input=source, capture_output=True, text=True, check=True)  # noqa: S607
    return f"{done.stdout.rstrip()}\n{_comment(source)}"


def _comment(source: str) -> str:
    return f"<!-- drawn from:\n{source}-->\n"


# -- the reference of the commands

COMMANDS = "docs/commands.md"


def commands() -> str:
    """Return the reference of all commands that pyproject.toml names."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    names: dict[str, list[str]] = {}
    for name, place in scripts.items():
        names.setdefault(place.partition(":")[0], []).append(name)
    lines = [
        "# Commands", "", "Written by `make docs` from the commands themselves; do not edit.", "",
        "A command ends in 0, or in IPP's exit code of what went wrong, with one line on standard error: 1 unknown,",
        "2 system, 3 configuration or command line, 4 a bug, 5 data or arguments, 6 timeout.",
    ]  # fmt: skip
    for module, called in names.items():
        lines += _reference(import_module(module), called)
    return "\n".join([*lines, ""])


def _reference(module: Any, called: list[str]) -> list[str]:
    """Return the section of the command in a module, under the names it is called by."""
    also = f"Also called {', '.join(f'`{name}`' for name in called[1:])}."
    if hasattr(module, "app"):
        return [*_typer_reference(called[0], module.app, 2), *["", also] * bool(called[1:])]
    (program,) = (each for each in vars(module).values() if isinstance(each, Program))
    lines = ["", f"## {called[0]}", "", *[also, ""] * bool(called[1:]), program.about, "", COMMON_HELP.strip()]
    for mode in program.modes:
        lines += ["", f"### {called[0]} -{mode}", "", "```", _help_of(program, mode), "```"]
    return lines


def _help_of(program: Program, mode: str) -> str:
    try:
        program.read([f"-{mode}", "-help"])
    except Help as text:
        return str(text).strip()
    raise AssertionError(f"{program.name} -{mode} -help gives none")


def _typer_reference(name: str, app: typer.Typer, level: int) -> list[str]:
    """Return the sections of an application: of its one command, or of all it has."""
    # Only of an application by itself does Typer leave the name of its one command out.
    if level == 2 and not app.registered_groups and not app.registered_callback and len(app.registered_commands) == 1:
        return _command_reference(name, app.registered_commands[0].callback, level)
    lines = ["", f"{'#' * level} {name}", "", f"{app.info.help} Its commands:"]
    for command in app.registered_commands:
        function: Any = command.callback
        lines += _command_reference(f"{name} {command.name or function.__name__}", function, level + 1)
    for group in app.registered_groups:
        inner: Any = group.typer_instance
        lines += _typer_reference(f"{name} {group.name}", inner, level + 1)
    return lines


def _command_reference(name: str, function: Any, level: int) -> list[str]:
    arguments, options = [], []
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        info = next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, ParameterInfo)), None)
        if info is None and hint is typer.Context:
            continue
        kind = hint.__origin__ if info else hint
        required = parameter.default is parameter.empty
        if isinstance(info, OptionInfo):
            options.append(_option(parameter, info, kind))
        else:
            word = (info and info.metavar) or _choices(kind) or parameter.name.upper()
            word += "..." if "list" in str(kind) else ""
            arguments.append(word if required else f"[{word}]")
            if info and info.help:
                options.append(f"* `{word}`: {info.help}")
    usage = " ".join([name, "[OPTIONS]", *arguments])
    text = inspect.getdoc(function) or ""
    return ["", f"{'#' * level} {name}", "", "```", usage, "```", "", text, "", *options]


def _choices(kind: Any) -> str:
    """Return the words that a parameter takes, if it is one of a few."""
    enums = [each for each in (kind, *get_args(kind)) if isinstance(each, EnumType)]
    return "|".join(str(member.value) for enum in enums for member in enum)


def _option(parameter: inspect.Parameter, info: OptionInfo, kind: Any) -> str:
    """Return the line of an option."""
    words = (info.default, *(info.param_decls or ()))  # in Annotated[], Typer takes the first name for the default
    names = [each for each in words if isinstance(each, str) and each.startswith("-")]
    names = names or [f"--{parameter.name.replace('_', '-')}"]
    types = {each for each in (kind, *get_args(kind)) if isinstance(each, type)}
    values = {bool: "", int: " N", float: " X", Path: " PATH"}
    takes = (
        f" {_choices(kind)}" if _choices(kind) else next((values[each] for each in values if each in types), " TEXT")
    )
    facts = ["may be repeated"] * ("list" in str(kind)) + [f"else `{info.envvar}`"] * bool(info.envvar)
    default = info.show_default if isinstance(info.show_default, str) else parameter.default
    if info.show_default and default not in (None, False, "", parameter.empty):
        facts.append(f"default {getattr(default, 'value', default)}")
    return f"* `{'`, `'.join(names)}{takes}`: {info.help}" + (f" ({', '.join(facts)})" if facts else "")


def index() -> str:
    """Return the page that leads to the others."""
    lines = ["# State diagrams", "", "Rows change their states as these tables say, and in no other way.", ""]
    lines += [f"* [{machine.name.capitalize()}]({machine.name}.md): {about(machine)}" for machine in MACHINES]
    lines += [
        "",
        "A table of rules tells whether a job runs, waits or stops because of its image: [Component](component.md).",
    ]
    return "\n".join([*lines, ""])


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write what is stale below `root`, or with ``--check`` name it and return 1."""
    texts = {f"{DIAGRAMS}/{machine.name}.md": page(machine) for machine in MACHINES}
    texts |= {
        f"{DIAGRAMS}/component.md": component_page(),
        f"{DIAGRAMS}/README.md": index(),
        "models/job.inc": promela(JOB),
        COMMANDS: commands(),
    }
    drawings = {f"{DIAGRAMS}/{machine.name}.svg": dot(machine) for machine in MACHINES}
    drawings[f"{DIAGRAMS}/component.svg"] = component_dot()
    old = {name: path.read_text("utf-8") if (path := root / name).is_file() else "" for name in [*texts, *drawings]}
    stale = [name for name, text in texts.items() if old[name] != text]
    stale += [name for name, source in drawings.items() if not old[name].endswith(_comment(source))]
    if arguments == ["--check"]:
        if stale:
            print(f"stale: {', '.join(stale)}; run: make docs")
        return bool(stale)
    for name in stale:
        (root / name).write_text(texts[name] if name in texts else svg(drawings[name]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
