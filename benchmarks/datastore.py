"""The data store over HTTP: indexes of a product of 100,000 filesets, and 200 downloads at once.

The peer of an index is the same text as a file: served by the same server, and by nginx. That of the downloads is nginx
on the same folder; without nginx (Debian: nginx-light) it is left out. Servers are processes of their own, with one
worker each; all bytes are compared.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from statistics import median

from benchmarks import medians, table
from benchmarks.queues import insert
from pstamp_core.database import session
from pstamp_core.datastore.tables import TABLES
from pstamp_core.files import measure
from pstamp_core.tasks.server import Server, make_server
from tests import mariadb

FILESETS = 100_000
LATER = 10
DOWNLOADS = 200
SIZE = 1_000_000
ROUNDS = 5
HOST = "127.0.0.1"
SERVE = """
import sys, uvicorn
from pathlib import Path
from pstamp_core.settings import load_settings
from pstamp_core.tasks.server import Server
from pstamp_web.app import make_app
settings = load_settings(Path(sys.argv[1]), sys.argv[2])
uvicorn.run(make_app(Server(settings)), host=sys.argv[3], port=int(sys.argv[4]), access_log=False, log_level="error")
"""
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen {host}:{port}; location /ds/ {{ alias {root}/; }} }}
}}
"""


async def fetch(port: int, path: str) -> bytes:
    """Return the body of an answer, as it was sent."""
    reader, writer = await asyncio.open_connection(HOST, port, limit=2**20)
    writer.write(f"GET /ds/{path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.split()[1] == b"200", head
    parts = []
    while part := await reader.read(2**20):
        parts.append(part)
    writer.close()
    return b"".join(parts)


def get(port: int, path: str) -> bytes:
    """Fetch one."""
    return asyncio.run(fetch(port, path))


def at_once(port: int, paths: list[str]) -> tuple[float, list[bytes]]:
    """Fetch all at once; return how long that took, in seconds, and what came."""

    async def work() -> list[bytes]:
        return await asyncio.gather(*(fetch(port, path) for path in paths))

    start = time.perf_counter()
    bodies = asyncio.run(work())
    return time.perf_counter() - start, bodies


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """Run a server; give its port when it answers."""
    with subprocess.Popen(command) as process:
        try:
            for _ in range(300):
                try:
                    asyncio.run(fetch(port, "index.txt"))
                    break
                except OSError:
                    assert process.poll() is None
                    time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def ours(server: Server, address: str) -> tuple[list[str], int]:
    """Return how our server is started, and its port."""
    port = free_port()
    return [sys.executable, "-c", SERVE, str(server.settings.home), address, HOST, str(port)], port


def nginx(folder: Path, root: Path) -> tuple[list[str], int] | None:
    """Return how nginx is started on the same folder, and its port, if it is there."""
    program = shutil.which("nginx")
    if not program:
        return None
    port = free_port()
    folder.chmod(0o755)
    configuration = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else it can't read the folder
    configuration.write_text(user + NGINX.format(folder=folder, host=HOST, port=port, root=root))
    return [program, "-c", str(configuration)], port


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.create_server((HOST, 0)) as listening:
        return int(listening.getsockname()[1])


def filled(home: Path, address: str) -> Server:
    """Make a server whose product has many filesets, and whose product ``text`` has its index as a file."""
    server = make_server(home, address)
    store = server.datastore
    with session(server.store.db, TABLES):
        name = "CONCAT('request_', 1000000 + n)" if address.startswith("mysql") else "'request_' || (1000000 + n)"
        insert(
            server.store.db, "dsFileset (prod_id, fileset_name, reg_time, hide, type, prod_col_0)", FILESETS,
            f"1, {name}, '2026-03-04 05:06:07.000000', 0, 'PSRESULTS', n",
        )  # fmt: skip
    store.add_product("text", "table", "The same as a file")
    text = home / "same.txt"
    text.write_text("".join(store.product_index(server.settings.product)))
    store.register("text", "same", "table", [measure(text, "text")], (), "copy")
    server.store.db.close()
    return server


def indexes(folder: Path, address: str, engine: str) -> None:
    """Measure indexes on one engine."""
    server = filled(folder / engine, address)
    product = server.settings.product
    last = f"request_{1000000 + FILESETS - 1 - LATER}"
    paths = {
        "index.txt": f"{product}/index.txt",
        f"?<last>, {LATER} newer": f"{product}/index.txt?{last}",
        "the same as a file": "text/same/same.txt",
        "the page": f"{product}/",
    }
    with ExitStack() as stack:
        port = stack.enter_context(running(*ours(server, address)))
        tasks = {name: lambda path=path: get(port, path) for name, path in paths.items()}
        static = nginx(folder, server.settings.datastore)
        if static:
            other = stack.enter_context(running(*static))
            tasks["the same by nginx"] = lambda: get(other, "text/same/same.txt")
        sizes = {name: len(task()) for name, task in tasks.items()}
        assert tasks["index.txt"]() == tasks["the same as a file"]()
        assert tasks[f"?<last>, {LATER} newer"]().count(b"\n") == 1 + LATER
        times = medians(tasks, ROUNDS)
    peer = times["the same as a file"]
    table(
        f"A product of {FILESETS:,} filesets: {engine}",
        ("asked for", "bytes", "time", "ratio to the same as a file"),
        [(name, f"{sizes[name]:,}", f"{times[name] * 1e3:.1f} ms", f"{times[name] / peer:.2f}") for name in tasks],
    )


def downloads(folder: Path) -> None:
    """Measure downloads."""
    home = folder / "downloads"
    server = make_server(home)
    work = home / "w"
    work.mkdir()
    contents = {f"{number}.fits": Random(number).randbytes(SIZE) for number in range(DOWNLOADS)}
    for name, content in contents.items():
        (work / name).write_bytes(content)
    files = [measure(work / name, "pstamp") for name in contents]
    server.datastore.publish(server.settings.product, "many", "PSRESULTS", files, ["1"])
    server.store.db.close()
    paths = [f"{server.settings.product}/many/{name}" for name in contents]
    with ExitStack() as stack:
        ports = {"pstamp": stack.enter_context(running(*ours(server, server.settings.address)))}
        static = nginx(folder, server.settings.datastore)
        if static:
            ports["nginx"] = stack.enter_context(running(*static))
        else:
            print("nginx is not installed (Debian: nginx-light): no peer for downloads")
        taken: dict[str, list[float]] = {"pstamp, first time": []}
        for number in range(ROUNDS + 1):
            for name, port in ports.items():
                seconds, bodies = at_once(port, paths)
                assert bodies == list(contents.values())
                taken.setdefault(name if number or name == "nginx" else "pstamp, first time", []).append(seconds)
    times = {name: median(each) for name, each in taken.items()}
    table(
        f"{DOWNLOADS} downloads at once of {SIZE:,} bytes each, all bytes compared",
        ("server", "time", "MB/s", "ratio to nginx"),
        [
            (name, f"{seconds * 1e3:.0f} ms", f"{DOWNLOADS * SIZE / seconds / 1e6:.0f}",
             f"{seconds / times['nginx']:.2f}" if "nginx" in times else "-")
            for name, seconds in times.items()
        ],
    )  # fmt: skip


def main() -> None:
    """Measure on both engines; without MariaDB's server program, on SQLite alone."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pstamp-bench-")))
        downloads(folder)
        indexes(folder, str(folder / "pstamp.db"), "SQLite")
        try:
            address = stack.enter_context(mariadb.server(memory="256M"))
        except RuntimeError as error:
            print(error)
            return
        indexes(folder, stack.enter_context(mariadb.database(address)), "MariaDB")


if __name__ == "__main__":
    main()
