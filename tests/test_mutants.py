"""Without any one of the safeguards, a test fails: each is switched off in turn (see `mutants`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS

TESTS = Path(__file__).parent


def outcome(mysql_server: str, mutant: str, *tests: str) -> tuple[int, str]:
    """Run tests with a safeguard switched off; return pytest's exit code and its last line."""
    environment = {
        **os.environ, "PSTAMP_MUTANT": mutant, "PSTAMP_TEST_MYSQL": mysql_server, "PYTHONPATH": str(TESTS),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "mutants", "-p", "no:cacheprovider", "-p", "no:xdist",
         "-x", "--tb=no", *tests],
        env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_missing_safeguard_is_noticed(mysql_server: str, mutant: str) -> None:
    _, test = MUTANTS[mutant]
    code, line = outcome(mysql_server, mutant, test)
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "failed" in line
    assert "error" not in line


def test_with_all_safeguards_nothing_fails(mysql_server: str) -> None:
    code, line = outcome(mysql_server, "", *{test for _, test in MUTANTS.values()})
    assert code == pytest.ExitCode.OK, line
