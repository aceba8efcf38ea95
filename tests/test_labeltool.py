"""`labeltool`: what it prints, changes and refuses; on both engines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Rows

from pstamp_core.formats import read_rows
from pstamp_core.store import Label, Store
from runners import labeltool

Result = tuple[int, str, str]
Tool = Callable[..., Result]


@pytest.fixture
def tool(
    store: Store, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Tool:
    """Run `labeltool` with arguments on the store; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PSTAMP_HOME", raising=False)
    monkeypatch.setenv("PSTAMP_DB", address)

    def run(*args: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["labeltool", *map(str, args)])
        code: Any = 0
        try:
            labeltool.main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err

    return run


def labels() -> dict[str, tuple[int, bool, str | None]]:
    return {each.label: (each.priority, each.active, each.comment) for each in Label.select()}


def test_a_new_label_is_printed(tool: Tool) -> None:
    assert tool("-definelabel", "-label", "web", "-priority", "500", "-comment", "from the form") == (
        0,
        "Label MULTI\n\nLabel  METADATA  \n"
        "   label            STR       web             \n"
        "   priority         S32       500            \n"
        "   active           BOOL      T              \n"
        "   comment          STR       from the form   \n"
        "END\n\n",
        "",
    )
    assert tool("-definelabel", "-label", "off", "-priority", "-1", "-inactive", "-simple") == (
        0,
        "off -1 F NULL\n",
        "",
    )
    assert labels() == {"web": (500, True, "from the form"), "off": (-1, False, None)}


def test_a_label_is_changed(tool: Tool, rows: Rows) -> None:
    rows.label("web", 5)
    rows.label("other", 6)
    for words, row in (
        (["-priority", "0"], (0, True, None)),
        (["-inactive"], (0, False, None)),
        (["-comment", 'it\'s; "50%"'], (0, False, 'it\'s; "50%"')),
        (["-active", "-priority", "7", "-comment", ""], (7, True, None)),
    ):
        assert tool("-updatelabel", "-label", "WEB", *words) == (0, "", "")
        assert labels() == {"web": row, "other": (6, True, None)}


def test_a_label_is_removed(tool: Tool, rows: Rows) -> None:
    for name in ("web", "w_b", "w%"):
        rows.label(name)
    assert tool("-deletelabel", "-label", "w%") == (0, "", "")
    assert tool("-deletelabel", "-label", "w_b") == (0, "", "")
    assert list(labels()) == ["web"]


def test_labels_are_listed(tool: Tool, rows: Rows) -> None:
    for name, priority, active in (("b", 5, True), ("a", 5, False), ("c_1", 7, True), ("cx1", -2, True)):
        rows.label(name, priority, active=active)

    def listed(*words: str) -> list[str]:
        code, out, err = tool("-listlabel", *words)
        assert (code, err) == (0, "")
        return [row["label"] for _, row in read_rows(out)]

    assert listed() == ["a", "b", "c_1", "cx1"]
    assert listed("-active") == ["b", "c_1", "cx1"]
    assert listed("-inactive") == ["a"]
    assert listed("-highest_first") == ["c_1", "a", "b", "cx1"]
    assert listed("-lowest_first", "-limit", "2") == ["cx1", "a"]
    assert listed("-label", "C_1") == ["c_1", "cx1"]
    assert listed("-label", "c\\_1", "-label", "a") == ["a", "c_1"]
    assert listed("-label", "'; --") == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("-definelabel -label x", 3, "-definelabel: -priority is missing"),
        ("-definelabel -priority 3", 3, "-definelabel: -label is missing"),
        ("-definelabel -label WEB -priority 3", 1, "-definelabel: there is a label web already"),
        ("-definelabel -label x -priority high", 3, "-definelabel: -priority 'high': expected an integer from "
         "-2147483648 to 2147483647"),
        (f"-definelabel -label {'x' * 65} -priority 1", 3, "-label: 65 characters; expected at most 64"),
        ("-updatelabel -label nix -active", 5, "-updatelabel: there is no label nix"),
        ("-updatelabel -label w% -active", 5, "-updatelabel: there is no label w%"),
        ("-updatelabel -label web", 1, "-updatelabel: nothing to change; give one of -priority, -active, -inactive, "
         "-comment"),
        ("-updatelabel -label web -active -inactive", 3, "-updatelabel: -active and -inactive exclude each other"),
        ("-deletelabel -label nix", 5, "-deletelabel: there is no label nix"),
        ("-listlabel -active -inactive", 3, "-listlabel: -active and -inactive exclude each other"),
        ("-listlabel -highest_first -lowest_first", 3, "-listlabel: -highest_first and -lowest_first exclude each "
         "other"),
        ("-listlabel -priority 3", 3, "-listlabel: '-priority' is no option of it; its options are -label -active "
         "-inactive -highest_first -lowest_first -limit -simple"),
        ("-listlabel -deletelabel", 3, "two modes, -listlabel and -deletelabel; expected one; labeltool -help lists "
         "the modes"),
    ],
)  # fmt: skip
def test_what_is_refused(tool: Tool, rows: Rows, words: str, code: int, message: str) -> None:
    rows.label("web", 5)
    assert tool(*words.split()) == (code, "", f"pstamp: {message}\n")
    assert labels() == {"web": (5, True, None)}


def test_help(tool: Tool) -> None:
    code, out, _ = tool("-help")
    assert code == 0
    assert out.startswith("usage: labeltool -MODE [-OPTION VALUE ...]\n")
    assert "  -updatelabel         change a label\n" in out
