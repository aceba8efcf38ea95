"""The site's program in the tests of the update server: ``python programs.py ROOT PATH_BASE WORDS...``.

It does what the next line of ``PATH_BASE.does`` says, the last one for ever, and writes the files in ROOT/good
otherwise. Each start is a line in ``PATH_BASE.told``: its words. No packages, so that it starts quickly.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

SUFFIXES = {
    "chip": (".ch.fits", ".ch.mk.fits", ".ch.wt.fits"),
    "warp": (".fits", ".mask.fits", ".wt.fits"),
    "diff": (".fits", ".mask.fits", ".wt.fits"),
}


def main(root: Path, base: Path, words: list[str]) -> int:
    with base.with_name(f"{base.name}.told").open("a") as told:
        told.write(" ".join(words) + "\n")
    does = base.with_name(f"{base.name}.does")
    first, *rest = (does.read_text() if does.exists() else "work").splitlines()
    if rest:
        does.write_text("\n".join(rest))
    what, *more = first.split()
    if what == "hang":
        child = subprocess.Popen(["sleep", "1000"])
        base.with_name(f"{base.name}.pids").write_text(f"{os.getpid()} {child.pid}")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
    elif what == "fail":
        print("on standard output", flush=True)
        print("first line\n" + " ".join(more[1:]) + "\n", file=sys.stderr)
        return int(more[0])
    elif what == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "chatter":
        for number in range(2000):
            print(f"line {number}")
    elif what == "purge":
        with sqlite3.connect(words[3]) as db:
            db.execute("UPDATE chipRun SET state = 'purged'")
            db.execute("UPDATE chipProcessedImfile SET data_state = 'purged'")
    elif what == "meet":  # the others that run at the same time
        while len(list(root.glob("*.told"))) < int(more[0]):
            time.sleep(0.01)
    elif what == "leave":
        return 0
    odd, good = root / "files" / what, root / "files" / "good"
    suffixes = SUFFIXES[words[0]]
    for suffix in suffixes[:-1] if what == "forget" else suffixes:
        private = base.with_name(f".{base.name}{suffix}.tmp")
        shutil.copy(odd if odd.exists() and suffix == suffixes[-1] else good, private)
        private.rename(f"{base}{suffix}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
