"""A private MariaDB server for the tests: an empty data directory, a free port, stopped with the tests.

``PSTAMP_TEST_MYSQL=mysql://user:password@host:port/`` names another server instead; the tests make and drop databases
of their own there (``pstamp_test_*``).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pymysql

HELP = (
    "the tests need MariaDB's server program: apt-get install mariadb-server-core (make test does it as root), "
    "or set PSTAMP_TEST_MYSQL=mysql://user:password@host:port/ to use another server"
)


class MariaDB:
    """A MariaDB server of our own in `folder`."""

    def __init__(self, folder: Path, memory: str = "64M") -> None:
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        server, install = _program("mariadbd"), _program("mariadb-install-db")
        subprocess.run(
            [install, "--no-defaults", f"--datadir={folder / 'data'}", "--auth-root-authentication-method=normal",
             "--skip-test-db", f"--user={_user()}"],
            check=True, capture_output=True,
        )  # fmt: skip
        self._command = [
            server, "--no-defaults", f"--datadir={folder / 'data'}", f"--port={self.port}", "--bind-address=127.0.0.1",
            f"--socket={folder / 's'}", f"--tmpdir={folder}", f"--pid-file={folder / 'pid'}", f"--user={_user()}",
            "--innodb-flush-log-at-trx-commit=2", f"--innodb-buffer-pool-size={memory}", "--skip-log-bin",
        ]  # fmt: skip

    @property
    def address(self) -> str:
        """Where it is, without a database name."""
        return f"mysql://root@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        for _ in range(300):
            try:
                pymysql.connect(host="127.0.0.1", port=self.port, user="root", ssl_disabled=True).close()
            except pymysql.err.OperationalError:
                if self._process.poll() is not None:
                    raise RuntimeError(f"MariaDB did not start:\n{(self.folder / 'log').read_text()}") from None
                Event().wait(0.1)  # not time.sleep, which tests replace
            else:
                return
        raise RuntimeError("MariaDB does not answer")

    def stop(self, kill: bool = False) -> None:
        """Stop it, or kill it."""
        if self._process:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait(30)
            self._process = None


@contextmanager
def server(memory: str = "64M") -> Iterator[str]:
    """Give the address of a server: the one that PSTAMP_TEST_MYSQL names, or one of our own, stopped at the end.

    Ours keeps this much of its tables in memory.
    """
    if address := os.environ.get("PSTAMP_TEST_MYSQL"):
        yield address.rstrip("/") + "/"
        return
    # In memory where there is such a folder: no test is about the disk of the server, and making tables waits for it.
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 (a folder of its own is made in it)
    folder = Path(tempfile.mkdtemp(prefix="pstamp-mariadb-", dir=shm))
    mariadb = MariaDB(folder, memory)
    try:
        mariadb.start()
        yield mariadb.address
    finally:
        mariadb.stop(kill=True)
        shutil.rmtree(folder)


@contextmanager
def database(address: str) -> Iterator[str]:
    """Give the address of an empty database on the server at `address`, dropped at the end."""
    from pstamp_core.database import connect

    name = f"pstamp_test_{os.getpid()}_{time.monotonic_ns()}"
    _execute(address, f"CREATE DATABASE `{name}`")
    try:
        yield connect_address(address, name)
    finally:
        connect(address + name).close()
        _execute(address, f"DROP DATABASE `{name}`")


def connect_address(address: str, name: str) -> str:
    """Return the address of database `name` on a server."""
    return address + name


def _execute(address: str, sql: str) -> None:
    from pstamp_core.database import connect

    db = connect(address + "mysql")
    with db:
        db.execute_sql(sql)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        raise RuntimeError(f"{name} is missing: {HELP}")
    return path


def _user() -> str:
    import getpass

    return getpass.getuser()
