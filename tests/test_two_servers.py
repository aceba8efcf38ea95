"""A server publishes requests, another finds and serves them, the first collects the results: as on two machines."""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path

import servers
from browsing import served
from serving import environment

from pstamp_core.datastore.index import read_fileset_index
from pstamp_core.formats import parse_text, read_results, write_request
from pstamp_core.tasks.server import Server, make_server
from simtest.survey import Survey

NAMES = ("night_1", "night_2", "night_3")


class Site:
    """A home with a server, and the commands that its people type."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.home = folder, server.settings.home
        server.store.db.close()

    def type(self, *words: object, text: str = "") -> str:
        env = environment(self.folder, PSTAMP_HOME=str(self.home), HOME=str(self.folder))
        done = subprocess.run([*map(str, words)], input=text, text=True, capture_output=True, env=env, cwd=self.folder)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout


def sums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "index.txt"
    }


def test_requests_are_found_served_and_collected(tmp_path: Path, survey: Survey) -> None:
    for name in ("asking", "serving"):
        (tmp_path / name).mkdir()
    asking = Site(tmp_path / "asking", make_server(tmp_path / "asking" / "home"))
    serving = Site(tmp_path / "serving", servers.make(tmp_path / "serving" / "home", survey))
    asking.type("dsprodtool", "--add", "asks", "--type", "psrequest", "--description", "requests of ours")
    serving.type("dsprodtool", "--add", "for_asking", "--type", "psresults", "--description", "results for asking")
    with served(asking.home) as (asked, _), served(serving.home) as (served_at, log):
        serving.type("pstamptool", "-adddatastore", "-set_uri", f"{asked}/ds/asks", "-set_out_product", "for_asking",
                     "-set_poll_interval", "1")  # fmt: skip
        for name in NAMES:  # while the other polls
            table, _ = parse_text("\n".join([f"{name} 2 PROCESS ana@obs.example.edu", servers.row(1, survey)]))
            write_request(asking.folder / f"{name}.fits", table)
            asking.type("dsreg", "--add", name, "--product", "asks", "--type", "PSREQUEST", "--list", "-", "--copy",
                        "--datapath", asking.folder, text=f"{name}.fits|||psrequest\n")  # fmt: skip
        stamps = asking.folder / "stamps"
        stamps.mkdir()
        until = time.monotonic() + 120
        while len(list(stamps.iterdir())) < len(NAMES):
            assert time.monotonic() < until, log.read_text()
            asking.type("dsleech", "--uri", f"{served_at}/ds/for_asking/index.txt", "--dir", stamps, "--apart",
                        "--recall", "--remember")  # fmt: skip
            time.sleep(1)
    assert {path.name for path in stamps.iterdir()} == set(NAMES)
    # Each once, whole, and as registered.
    assert sums(stamps) == sums(serving.home / "datastore" / "for_asking")
    for name in NAMES:
        index = read_fileset_index((serving.home / "datastore" / "for_asking" / name / "index.txt").read_text())
        got = sums(stamps / name)
        assert got == {each.name: each.md5 for each in index}
        results = read_results(stamps / name / "results.fits")
        assert results.req_name == name
        assert len(results.rows) == 4
        assert not any(row["ERROR_CODE"] for row in results.rows)
