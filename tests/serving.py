"""`pstamp serve` with commands for the test, as processes of their own.

``python serving.py serve SECONDS ...`` is ``pstamp serve ...``, but jobs are run by this file and time out after
SECONDS, and faults are tried again, or given up, at once. ``python serving.py work`` claims the jobs of one image, and
does what the image's name says.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__)
SCRIPTS = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]["scripts"]


def serve(timeout: float) -> None:
    from pstamp_core.tasks import table

    jobs = replace(table.JOBS, command=(sys.executable, str(HERE), "work"), timeout=timeout)
    table.TASKS = (jobs, *(replace(task, period=0.1) for task in table.TASKS if task.inside))
    from pstamp_core.tasks import serve
    from runners import pstamp

    serve.KILL_AFTER, serve.LAST_WORDS = 0.5, 3.0

    pstamp.main()


def work() -> None:
    """Finish jobs, or hang with a child that hangs too, die, or end without a word."""
    from racing import finish

    from runners.console import server_of

    home = Path(os.environ["PSTAMP_HOME"])
    server = server_of(home)
    with server.store.reading():
        jobs = server.store.work(lambda: server.store.claim_jobs(server.args(), 50))
        if not jobs:
            return
        image = jobs[0].image
        told = home / f"{image}.{os.getpid()}"
        told.write_text("".join(f"{job.job_id} {job.attempt}\n" for job in jobs))
        if image == "is stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if image in ("hangs", "is stubborn", "crashes"):
            child = subprocess.Popen(["sleep", "1000"])
            (home / f"child.{child.pid}").touch()
            if image == "crashes":
                os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(1000)
        elif image == "gives up":
            print("one thing\nand another", file=sys.stderr)
            sys.exit(3)
        elif image.startswith("is slow"):
            wait_for((home / "go on").exists)
        finish(server, jobs)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of commands for which only `more` is set; all that pyproject.toml names is found in `folder`."""
    programs = folder / "programs"
    if not programs.exists():
        programs.mkdir()
        for name, target in SCRIPTS.items():
            module, function = target.split(":")
            program = programs / name
            program.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
            program.chmod(0o755)
    others = {name: value for name, value in os.environ.items() if not name.startswith("PSTAMP_")}
    return {**others, "PATH": f"{programs}{os.pathsep}{others['PATH']}", **more}


class Served:
    """A running `pstamp serve`, and its log so far; with a `timeout` one whose jobs are run by this file."""

    def __init__(self, home: Path, address: str, timeout: float | None, *options: str, **more: str) -> None:
        self.log_file = home / f"log {time.monotonic_ns()}"
        command = ["pstamp", "serve"] if timeout is None else [sys.executable, str(HERE), "serve", str(timeout)]
        command += ["--home", str(home), "--dbname", address, "--no-web", *options]
        env = environment(home.parent, **more)
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(command, env=env, stderr=log, cwd=HERE.parent)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(home: Path, address: str, timeout: float | None = 60, *options: str, **more: str) -> Iterator[Served]:
    served = Served(home, address, timeout, *options, **more)
    try:
        yield served
    finally:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):  # kindly, at once, by force
            with suppress(subprocess.TimeoutExpired):
                if served.process.poll() is None:
                    served.process.send_signal(number)
                    served.process.wait(10)


def wait_for(what: Any, seconds: float = 60) -> Any:
    """Return what `what` returns, as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "serve":
        sys.argv = ["pstamp", "serve", *arguments[1:]]
        serve(float(arguments[0]))
    else:
        work()
