"""The day of an operator, as `docs/operators.md` tells it, typed anew."""

from __future__ import annotations

import runpy
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"


def test_the_day_of_an_operator_goes_as_it_is_told(tmp_path: Path) -> None:
    day = runpy.run_path(str(PAGE.with_name("day.py")))
    told = PAGE.read_text(encoding="utf-8")
    assert day["alike"](day["replay"](told, tmp_path)).splitlines() == day["alike"](told).splitlines()
