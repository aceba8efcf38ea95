"""`pstamp simtest`, as people type it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_runners_pstamp import Result, command

__all__ = ["command"]

Command = Callable[..., Result]
CELL = "skycell.1234.044"


@pytest.fixture
def made(command: Command) -> Command:
    assert command("simtest", "make", "survey", "--size", 80, "--exposures", 5) == (
        0,
        "survey in survey; image database survey/simtest.db\n",
        "chip: 20 of 20\nwarp: 20 of 20\nstack: 8 of 8\ndiff: 24 of 24\n",
    )
    return command


def test_a_component_is_cleaned_and_made_again(made: Command, tmp_path: Path) -> None:
    image = next((tmp_path / "survey" / "warp" / CELL).glob("*.40001.*044.fits"))
    content = image.read_bytes()
    warp = ("survey", "warp", 40001, CELL)
    assert made("simtest", "clean", *warp) == (0, "1 images cleaned in survey\n", "")
    assert not image.exists()
    assert made("simtest", "clean", *warp[:3]) == (0, "4 images cleaned in survey\n", "")
    ordered = made("simtest", "order", *warp, "fail", "--times", 2, "--fault", 6)
    assert ordered == (0, f"warp 40001 {CELL}: fail with fault 6 in the next 2 runs\n", "")
    for _ in range(2):
        assert made("simtest", "process", *warp) == (6, "", f"warp 40001 {CELL}: fault 6, as ordered\n")
    assert made("simtest", "process", *warp) == (0, "", "")
    assert image.read_bytes() == content
    assert made("simtest", "restore", "survey") == (0, "12 images made again in survey\n", "")
    assert made("simtest", "clean", "survey", "raw", 9001) == (
        5, "", "pstamp: clean raw 9001: only the pixels of a chip, warp or diff are ever deleted\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hang"], "hang in all runs"),
        (["purge", "--times", 1], "purge in the next run"),
        (["vanish"], "vanish in all runs"),
        (["nothing"], "nothing is ordered"),
    ],
)
def test_orders(made: Command, arguments: list[object], said: str) -> None:
    chip = ("survey", "chip", 10001, "XY33")
    assert made("simtest", "order", *chip, *arguments) == (0, f"chip 10001 XY33: {said}\n", "")
    assert Path("survey/orders.json").exists() == (arguments != ["nothing"])


def test_magic(command: Command) -> None:
    assert command("simtest", "make", "survey", "--size", 80, "--exposures", 5, "--magic")[0] == 0
    code, out, err = command("simtest", "make", "survey")
    assert (code, out) == (5, "")
    assert err == "pstamp: folder survey holds a simulated survey already; remove it, or name another folder\n"
    assert '"magic": true' in Path("survey/simtest.json").read_text()
