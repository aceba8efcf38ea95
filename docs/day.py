"""Types what stands in `docs/operators.md`: ``python docs/day.py`` writes what comes out into the page.

In its blocks marked ``console`` a line ``$ command`` is typed into a shell, in one folder that is empty at first, and
all that follows is what it printed; a last line ``[5]`` is an exit status that is not 0. The tests type it all anew and
compare, so that the page tells what the commands do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).parent / "operators.md"
ROOT = PAGE.parents[1]

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_VARY = (
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?( UTC)?", "<time>"),
    (r"\b\d\d:\d\d:\d\d\b( UTC)?", "<time>"),
    (r"/\d{4}/\d\d/\d\d/", "/<day>/"),
    (r"\b[\w-]+\.\d+\.[0-9a-f]{8}\b", "<worker>"),
    (r"\b\d+(\.\d+)? (s|min|h|d)\b", "<age>"),
    (r"(work and datastore) .*", r"\1 <disk>"),
    (r"(pstamp\.toml line) \d+", r"\1 <number>"),
    (r"/\S*/(?=(home|survey)\b)", ""),
    (r" +", " "),
    (r"-{2,}", "--"),
)
"""What differs from one day to the next, and what stands for it."""


def replay(page: str, folder: Path) -> str:
    """Return `page` with what its commands print when they are typed in `folder`."""
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120", "TERM": "dumb",
        "LOGNAME": "ana", "TZ": "UTC", "SIMTEST": str(ROOT / "simtest"),
    }  # fmt: skip
    environment = {name: value for name, value in environment.items() if not name.startswith("PSTAMP_")}
    environment["PSTAMP_HOME"] = "home"

    def type_all(block: re.Match[str]) -> str:
        commands = re.findall(r"^\$ (.*)$", block[1], re.MULTILINE)
        return "```console\n" + "".join(f"$ {each}\n{_type(each, folder, environment)}" for each in commands) + "```"

    return _BLOCK.sub(type_all, page)


def _type(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(  # noqa: S603 (what stands in our own page)
        ["/bin/sh", "-c", f"{{ {command}\n}} 2>&1"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    printed = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines()).replace(f"{folder}/", "/srv/ps/")
    return printed + (f"[{done.returncode}]\n" if done.returncode else "")


def alike(page: str) -> str:
    """Return `page` without what differs from one day to the next."""
    for pattern, stands in _VARY:
        page = re.sub(pattern, stands, page)
    return page


def main() -> None:
    """Type it all, and write the page anew."""
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(replay(PAGE.read_text(encoding="utf-8"), Path(folder).resolve()), encoding="utf-8")


if __name__ == "__main__":
    main()
