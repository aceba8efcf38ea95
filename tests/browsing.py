"""A real browser: Debian's Chromium, driven by Playwright, and `pstamp serve` as a process for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from serving import environment

# Without these Chromium looks up hosts of its maker, which a machine without a way out answers late.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "the tests need Debian's package chromium; sh tests/programs.sh installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def served(home: Path, *options: str) -> Iterator[tuple[str, Path]]:
    """Run `pstamp serve` with its web service on a free port; the address of that, and the log."""
    log = home.parent / "serve.log"
    with log.open("wb") as stream:
        command = ["pstamp", "serve", "--home", str(home), "--port", "0", *options]
        process = subprocess.Popen(command, env=environment(home.parent), stderr=stream)
        try:
            until = time.monotonic() + 60
            while not (found := re.search(r"web service: (http://\S+)/\n", log.read_text())):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            yield found[1], log
        finally:
            process.terminate()
            process.wait(60)
