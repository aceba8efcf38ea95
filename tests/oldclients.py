"""Programs as they were written for the original server: they read its pages by their words alone.

Written from what such programs rely on, with nothing of ours but the addresses.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

BETWEEN = re.compile(r"Submitted Request ID:&nbsp; (\d+)\s+Request Name: &nbsp; (\S+)")


class RefusedUploadError(Exception):
    """The server said ``Error:``."""


def upload(web: Any, login: tuple[str, str], content: bytes) -> tuple[int, str]:
    """Send a request file; once without it first, since the first visit was always refused."""
    web.post("/upload.php", auth=login)
    answer = web.post("/upload.php", files={"filename": ("request.fits", content, "image/x-fits")}, auth=login)
    if "Error:" in answer.text:
        raise RefusedUploadError(answer.text.split("Error:")[1].split("<")[0].strip())
    found = BETWEEN.search(answer.text)
    assert found, answer.text
    return int(found[1]), found[2]


@dataclass
class File:
    """One line of a fileset's index, by the names that its header gives."""

    columns: dict[str, str]

    @property
    def name(self) -> str:
        return self.columns["fileID"]


def sections(web: Any, store: str, product: str, name: str) -> list[list[File]] | None:
    """Return the sections of a fileset's index, one for each header line; None while it is not there."""
    answer = web.get(f"{store}/{product}/{name}/index.txt")
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200
    found: list[list[File]] = []
    names: list[str] = []
    for line in answer.text.splitlines():
        if line.startswith("#"):
            names = [each.strip() for each in line[1:].split("|")]
            found.append([])
        else:
            found[-1].append(File(dict(zip(names, (each.strip() for each in line.split("|")), strict=False))))
    return found


def fetch(web: Any, store: str, product: str, name: str, file: File) -> bytes:
    """Return a file, whose md5 must be that of the index."""
    content: bytes = web.get(f"{store}/{product}/{name}/{file.name}").content
    assert hashlib.md5(content, usedforsecurity=False).hexdigest() == file.columns["md5sum"]
    return content


def read_mdc(text: str) -> list[dict[str, str]]:
    """Return the rows of results.mdc: ``ROW_<n> METADATA``, lines of NAME TYPE VALUE, END."""
    rows: list[dict[str, str]] = []
    inside = False
    for line in text.splitlines():
        if re.match(r"ROW_\d+\s+METADATA", line):
            rows.append({})
            inside = True
            first = True
        elif line.strip() == "END":
            inside = False
        elif inside and line.strip():
            assert not line[0].isspace()
            name, _, *value = line.split(None, 2)
            assert not first or name == "ROWNUM"
            first = False
            rows[-1][name] = value[0].strip() if value else ""
    return rows


def status_table(text: str) -> list[dict[str, str]]:
    """Return the rows of all tables with bars inside <pre>, by the names of their columns."""
    rows = []
    for block in re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        names = [each.strip() for each in lines[0].strip("|").split("|")]
        rows += [
            dict(zip(names, (each.strip() for each in line.strip("|").split("|")), strict=True)) for line in lines[1:]
        ]
    return rows


def skycells(web: Any, login: tuple[str, str], ra: object, dec: object) -> list[tuple[str, str, float, float]]:
    """Ask findskycell.php."""
    answer = web.post("/findskycell.php", data={"ra": str(ra), "dec": str(dec)}, auth=login)
    rows = re.findall(r"<tr><td>([^<]+)</td><td>(skycell\.[\d.]+)</td><td>([^<]+)</td><td>([^<]+)</td>", answer.text)
    return [(tess, cell, float(x), float(y)) for tess, cell, x, y in rows]


def states(text: str) -> dict[int, str]:
    """Return what request.php says in mode Get Status."""
    return {int(number): state for number, state in re.findall(r"request id: (\d+)&nbsp;&nbsp; State: (\w+)", text)}
