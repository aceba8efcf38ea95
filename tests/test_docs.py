"""The generated pages are what the machines say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_state_diagrams_are_not_stale() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
