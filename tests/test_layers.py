"""Who may import whom, and what a library may not do: read from the sources, so that no import can hide."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SCIENCE = {"astropy", "numpy", "fitsio", "PIL", "astropy_healpix"}  # slow to import
SQL = {"peewee", "playhouse"}

# package -> (what of ours it may import besides itself, which other distributions)
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "pstamp_core.faults": (set(), set()),
    "pstamp_core.files": ({"faults"}, set()),
    "pstamp_core.settings": ({"faults", "database"}, set()),
    "pstamp_core.database": ({"faults"}, {*SQL, "pymysql"}),
    "pstamp_core.machines": ({"faults"}, {"transitions"}),
    "pstamp_core.store": ({"faults", "database", "files", "machines"}, SQL),
    "pstamp_core.datastore": ({"faults", "database", "files"}, {*SQL, "httpx2"}),
    "pstamp_core.imagedb": ({"faults", "database", "files"}, {*SQL, *SCIENCE}),
    "pstamp_core.formats": ({"faults", "files"}, SCIENCE),
    "pstamp_core.stamps": ({"pstamp_core", "faults", "files"}, SCIENCE),
    "pstamp_core.tasks": (
        {"faults", "files", "settings", "database", "machines", "store", "datastore", "imagedb", "formats", "stamps"},
        {*SQL, *SCIENCE, "argon2"},
    ),
    "pstamp_core.testing": ({"faults", "settings", "machines", "store", "tasks"}, {*SQL, "pymysql", "hypothesis"}),
    "pstamp_core": (set(), set()),
    "pstamp_web": ({"pstamp_core", "tasks", "faults"}, {"fastapi", "pydantic", "starlette", "jinja2", "uvicorn"}),
    "runners": ({"pstamp_core", "pstamp_web", "tasks", "faults", "settings", "simtest"}, {"typer", "rich"}),
    "simtest": (
        {"tasks", "faults", "files", "settings", "database", "imagedb", "formats"},
        {*SQL, *SCIENCE},
    ),
}  # fmt: skip

# What a library must leave to its caller.
LEFT_TO_THE_CALLER = {
    "print", "input", "exit", "quit", "breakpoint", "eval", "exec", "__import__",
    "sys.exit", "sys.argv", "sys.stdin", "sys.stdout", "sys.stderr",
    "os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os._exit", "os.abort", "os.system",
    "os.popen", "importlib.import_module",
}  # fmt: skip
SQL_TEXT = re.compile(r"\b(SELECT\b.+\bFROM|INSERT INTO|UPDATE\b.+\bSET|DELETE FROM|(CREATE|DROP|ALTER) TABLE)\b", re.S)


def package_of(module: str) -> str:
    """Return the line of the table that `module` falls under; that of `pstamp_core` is for its ``__init__`` alone."""
    fitting = [name for name in MAY_IMPORT if module.startswith(f"{name}.") and name != "pstamp_core"]
    return module if module in MAY_IMPORT else max(fitting, default="")


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(node: ast.AST, module: str, *, is_package: bool) -> list[str]:
    """Return the modules that an import statement loads."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            parts = parts[: len(parts) - node.level + is_package]
            base = ".".join([*parts, base] if base else parts)
        deeper = [f"{base}.{alias.name}" for alias in node.names]
        return [name if is_module(name) else base for name in deeper]
    return []


def statements(tree: ast.AST, *, late: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node, and whether it runs only later (in a function) or never (for type checkers)."""
    for node in ast.iter_child_nodes(tree):
        inner = late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            inner = True
        yield node, late
        yield from statements(node, late=inner)


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """Return the full name of what an expression refers to, as far as imports tell."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return ""


def import_offences(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return what `source` imports against the table."""
    package = package_of(module)
    if not package:
        return [f"{module}: stands in no line of the table"]
    ours, others = MAY_IMPORT[package]
    wrong = []
    for node, late in statements(ast.parse(source)):
        for name in imported(node, module, is_package=is_package):
            top = name.split(".")[0]
            if top in ("pstamp_core", "pstamp_web", "runners", "simtest", "tests", "benchmarks"):
                target = package_of(name)
                if target != package and target.removeprefix("pstamp_core.") not in ours:
                    wrong.append(f"{module}: imports {target or name}")
            elif top not in sys.stdlib_module_names and top not in others:
                wrong.append(f"{module}: imports {name}")
            if top in SCIENCE and not late and package.startswith("pstamp_core"):
                wrong.append(f"{module}: imports {name} outside a function")
    return wrong


def conduct_offences(source: str, module: str) -> list[str]:
    """Return what `source` does that its layer may not do."""
    tree = ast.parse(source)
    names = {
        alias.asname or alias.name: f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "shell" and not (
            isinstance(node.value, ast.Constant) and node.value.value is False
        ):  # fmt: skip
            wrong.append(f"{module}: runs a shell")
        if module.startswith("pstamp_core") and isinstance(node, (ast.Name, ast.Attribute)):
            name = dotted(node, names)
            if name in LEFT_TO_THE_CALLER:
                wrong.append(f"{module}: uses {name}")
        if module.startswith(("runners", "pstamp_web")):
            if isinstance(node, ast.Attribute) and node.attr == "execute_sql":
                wrong.append(f"{module}: uses execute_sql")
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL_TEXT.search(node.value):
                wrong.append(f"{module}: has SQL")
    return wrong


SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for top in ("pstamp_core", "pstamp_web", "runners", "simtest")
    for path in sorted((ROOT / top).rglob("*.py"))
}


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    path = SOURCES[module]
    assert import_offences(path.read_text(), module, is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_does_only_what_its_layer_may(module: str) -> None:
    assert conduct_offences(SOURCES[module].read_text(), module) == []


def test_every_line_of_the_table_is_a_package_that_exists() -> None:
    assert {package_of(module) for module in SOURCES} == set(MAY_IMPORT)


SIBLINGS = ("store", "formats", "imagedb", "stamps", "datastore")


@pytest.mark.parametrize("one", SIBLINGS)
@pytest.mark.parametrize("two", SIBLINGS)
def test_the_table_keeps_siblings_apart(one: str, two: str) -> None:
    wrong = import_offences(f"def late():\n    from pstamp_core.{two} import x", f"pstamp_core.{one}.module")
    assert wrong == ([] if one == two else [f"pstamp_core.{one}.module: imports pstamp_core.{two}"])


@pytest.mark.parametrize(
    ("module", "source", "offence"),
    [
        ("pstamp_core.new", "", "stands in no line of the table"),
        ("pstamp_core.faults", "import pstamp_core.files", "imports pstamp_core.files"),
        ("pstamp_core.faults", "import yaml", "imports yaml"),
        ("pstamp_core.machines.job", "import peewee", "imports peewee"),
        ("pstamp_core.machines.job", "from pstamp_core.store import fire", "imports pstamp_core.store"),
        ("pstamp_core.machines.job", "from pstamp_core import store", "imports pstamp_core.store"),
        ("pstamp_core.machines.job", "from ..store import fire", "imports pstamp_core.store"),
        ("pstamp_core.machines.job", "from .. import store", "imports pstamp_core.store"),
        ("pstamp_core.datastore.index", "from pstamp_core.machines import Event", "imports pstamp_core.machines"),
        ("pstamp_core.imagedb.tables", "from pstamp_core.machines import Event", "imports pstamp_core.machines"),
        ("pstamp_core.formats.text", "import peewee", "imports peewee"),
        ("pstamp_core.formats.text", "from pstamp_core.database import Table", "imports pstamp_core.database"),
        ("pstamp_core.stamps.cut", "from playhouse import db_url", "imports playhouse"),
        ("pstamp_core.store.fire", "from pstamp_core.tasks import run", "imports pstamp_core.tasks"),
        ("pstamp_core.tasks.run", "import runners.pstamp", "imports runners"),
        ("pstamp_core.tasks.run", "import simtest", "imports simtest"),
        ("pstamp_core.tasks.run", "import typer", "imports typer"),
        ("pstamp_core.tasks.run", "from rich.table import Table", "imports rich.table"),
        ("pstamp_core.stamps.cut", "import numpy as np", "imports numpy outside a function"),
        (
            "pstamp_core.stamps.cut",
            "class A:\n    from astropy.io import fits",
            "imports astropy.io outside a function",
        ),
        ("runners.pstamp", "def f():\n    import peewee", "imports peewee"),
        ("runners.pstamp", "def f():\n    import fitsio", "imports fitsio"),
        ("runners.pstamp", "import astropy.io.fits", "imports astropy.io.fits"),
        ("runners.pstamp", "from pstamp_core.store import Store", "imports pstamp_core.store"),
        ("simtest.survey", "import runners", "imports runners"),
    ],
)
def test_an_offending_import_is_found(module: str, source: str, offence: str) -> None:
    assert import_offences(source, module) == [f"{module}: {offence}"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pstamp_core.stamps.cut", "def f():\n    import numpy"),
        ("pstamp_core.stamps.cut", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy"),
        ("pstamp_core.machines.job", "from .machine import Edge"),
        ("pstamp_core.store.fire", "from pstamp_core.machines import Event\nimport json"),
    ],
)
def test_a_proper_import_is_let_through(module: str, source: str) -> None:
    assert import_offences(source, module) == []


@pytest.mark.parametrize(
    ("module", "source", "offence"),
    [
        ("pstamp_core.files", "print('x')", "uses print"),
        ("pstamp_core.files", "import sys\nsys.exit(1)", "uses sys.exit"),
        ("pstamp_core.files", "from sys import exit as leave\nleave()", "uses sys.exit"),
        ("pstamp_core.files", "import sys as s\nx = s.argv[1]", "uses sys.argv"),
        ("pstamp_core.files", "import os\nx = os.environ['A']", "uses os.environ"),
        ("pstamp_core.files", "from os import getenv\ngetenv('A')", "uses os.getenv"),
        ("pstamp_core.files", "import os\nos.system('ls')", "uses os.system"),
        ("pstamp_core.files", "import subprocess\nsubprocess.run('ls', shell=True)", "runs a shell"),
        ("pstamp_core.files", "import subprocess\nsubprocess.run('ls', shell=flag)", "runs a shell"),
        ("runners.pstamp", "import subprocess\nsubprocess.run('ls', shell=True)", "runs a shell"),
        ("runners.pstamp", "x = 'SELECT * FROM pstampJob'", "has SQL"),
        ("runners.pstamp", "x = f'UPDATE {t} SET state = 1'.lower()\ny = 'DELETE FROM pstampJob'", "has SQL"),
        ("runners.pstamp", "store.db.execute_sql(x)", "uses execute_sql"),
    ],
)
def test_an_offending_act_is_found(module: str, source: str, offence: str) -> None:
    assert conduct_offences(source, module) == [f"{module}: {offence}"]


@pytest.mark.parametrize(
    "modules",
    [["pstamp_core.store", "pstamp_core.tasks"], [name for name in SOURCES if not name.startswith("simtest")]],
    ids=["store and tasks", "all"],
)
def test_nothing_heavy_is_loaded_at_the_start(modules: list[str]) -> None:
    imports = "".join(f"importlib.import_module({module!r}); " for module in modules)
    code = f"import importlib, sys; {imports}print(sorted({SCIENCE!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[]\n", "")
