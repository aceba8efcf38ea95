"""Uploads: a file from a browser is checked, and queued at once or after its sender has seen what is wrong with it."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pstamp_core.faults import UserError
from pstamp_core.formats import Finding
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.submit import check_file, insert_request

KEPT_SECONDS = 3600.0
"""How long a file whose rows are partly bad is kept until its sender says what to do; one for each account."""
_BLOCK = 2**20


@dataclass(frozen=True)
class Upload:
    """What became of an uploaded file.

    Attributes
    ----------
    name : str
        Its name, of plain characters.
    findings : list of Finding
        What is wrong with it; nothing was queued then.
    req_id : int
        The request that it was queued as; 0 if it was not.
    digest : str
        Where only rows are bad: what `send_kept` takes to queue it all the same.
    """

    name: str
    findings: list[Finding]
    req_id: int = 0
    digest: str = ""


def upload(server: Server, account: Account, stream: BinaryIO, name: str) -> Upload:
    """Check an uploaded request file, and queue it if nothing is wrong with it.

    Raises
    ------
    UserError
        The file is larger than the settings allow; or it became impossible to queue while it was checked.
    RetryableError
        A disk or the database fails.
    """
    with received(server, stream, name) as file:
        findings = check_file(server, file, account)
        if not findings:
            number, _ = insert_request(server, file, sender=account)
            return Upload(file.name, [], number)
        if findings[0].position == 0:
            return Upload(file.name, findings)
        digest = _digest(file)
        kept = file.replace(_folder(server) / f"{account.account_id}@{file.name}")
        for older in _kept(server, account):
            if older != kept:
                older.unlink(missing_ok=True)
        return Upload(file.name, findings, digest=digest)


def send_kept(server: Server, account: Account, digest: str) -> int:
    """Queue the file of which its sender has seen that rows of it are bad; return the request's number.

    Raises
    ------
    UserError
        It is not here any more; or it can't be queued any more.
    RetryableError
        A disk or the database fails.
    """
    for kept in _kept(server, account):
        with (
            suppress(FileNotFoundError),  # another upload may take its place
            kept.open("rb") as stream,
            received(server, stream, kept.name.partition("@")[2]) as file,
        ):
            if _digest(file) == digest:
                number, _ = insert_request(server, file, sender=account)
                kept.unlink(missing_ok=True)
                return number
    raise UserError("the file is not here any more; choose it again")


@contextmanager
def received(server: Server, stream: BinaryIO, name: str) -> Iterator[Path]:
    """Give a private copy of an uploaded file, with its name in plain characters, to whoever checks or queues it.

    Raises
    ------
    UserError
        The file is larger than the settings allow.
    """
    folder, most = _folder(server), server.settings.max_upload_bytes
    _expire(folder)
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", re.split(r"[/\\]", name)[-1])[-64:].lstrip(".") or "upload"
    with tempfile.TemporaryDirectory(dir=folder) as private:
        file = Path(private) / plain
        with file.open("xb") as copy:
            while block := stream.read(_BLOCK):
                copy.write(block)
                if copy.tell() > most:
                    raise UserError(f"{plain}: more than {most} bytes; send it in parts")
        yield file


def _folder(server: Server) -> Path:
    folder = server.settings.work / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _kept(server: Server, account: Account) -> list[Path]:
    return list(_folder(server).glob(f"{account.account_id}@*"))


def _expire(folder: Path) -> None:
    """Delete what was kept long enough, and what died half done."""
    for each in folder.iterdir():
        with suppress(FileNotFoundError):  # deleted by another
            if each.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
