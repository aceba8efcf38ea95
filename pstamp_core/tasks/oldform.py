"""The form of the original server's ``request.php``: its fields, its checks in their order, the request they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pstamp_core.faults import UserError
from pstamp_core.formats import make_request, write_request
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.submit import web_request

REQ_TYPES = {"db_id": "byid", "exposure_id": "byexp", "coord": "bycoord", "diff_image_id": "bydiff"}
"""What each choice of ``select_by`` is in a request."""
IMG_TYPES = ("chip", "warp", "stack", "diff", "raw")
MODES = ("Make Stamps", "Get Images", "Get Status")
DEFAULTS = {
    "project": "gpc1", "select_by": "db_id", "img_type": "chip", "id": "", "class_id": "", "center_type": "Sky",
    "RA": "", "DEC": "", "X": "", "Y": "", "range_type": "Pixels", "dRA": "", "dDEC": "", "W": "", "H": "",
    "cmd_mode": "Make Stamps",
}  # fmt: skip
"""The fields, with what stands in them first."""

_CENTERS = {"Sky": ("RA", "DEC"), "Pixels": ("X", "Y")}
_RANGES = {"Sky": ("dRA", "dDEC"), "Pixels": ("W", "H")}


def send_old_form(server: Server, account: Account, fields: Mapping[str, str]) -> tuple[int, str]:
    """Queue what a form asks for, under the label WEB; return the request's number and its name, ``web_<n>``.

    Parameters
    ----------
    server : Server
        The server.
    account : Account
        Who sends it.
    fields : mapping of str to str
        Those of `DEFAULTS`, all of them. A coordinate of 0 is one, unlike in the original.

    Raises
    ------
    UserError
        A field is empty that is needed, or has a value that it can't have; the first that is wrong is named.
    RetryableError
        As `web_request`.
    """
    value = {name: fields[name].strip() for name in DEFAULTS}
    for name, known in (
        ("select_by", REQ_TYPES), ("img_type", IMG_TYPES), ("center_type", _CENTERS), ("range_type", _RANGES),
        ("cmd_mode", MODES[:2]),
    ):  # fmt: skip
        if value[name] not in known:
            raise UserError(f"{name} is {value[name][:40]!r}; expected one of {', '.join(known)}")
    _check(value)
    center, extent = _CENTERS[value["center_type"]], _RANGES[value["range_type"]]
    first, second = (_number(value, name) if value["center_type"] == "Pixels" else value[name] for name in center)
    names = ("x", "y") if value["center_type"] == "Pixels" else ("ra", "dec")
    given: dict[str, Any] = {name: number for name, number in zip(names, (first, second), strict=True) if number != ""}
    width, height = (_number(value, name) for name in extent)
    by_position = value["select_by"] == "coord"
    whole = None if by_position or value["class_id"].lower() in ("", "all") else value["class_id"]

    def write(name: str, file: Path) -> None:
        table = make_request(
            name, email=account.email, project=value["project"], req_type=REQ_TYPES[value["select_by"]],
            img_type=value["img_type"], id=value["id"] or None, component=whole,
            job_type="get_image" if value["cmd_mode"] == "Get Images" else "stamp",
            pixcenter=value["center_type"] == "Pixels", arcseconds=value["range_type"] == "Sky",
            width=width or None, height=height or None, **given,
        )  # fmt: skip
        write_request(file, table)

    number, name, _ = web_request(server, write, sender=account)
    return int(number or 0), name


def _check(value: Mapping[str, str]) -> None:
    """Raise where a field is empty that is needed: in the order of the original."""
    stamps = value["cmd_mode"] == "Make Stamps"
    needed = ["project"]
    if stamps or value["select_by"] == "coord":
        needed += [*_CENTERS[value["center_type"]], *_RANGES[value["range_type"]]]
    for name in needed:
        if not value[name]:
            raise UserError(f"{name} is empty; expected one")
    if value["select_by"] == "exposure_id" and value["img_type"] == "stack":
        raise UserError("a stack is not of one exposure; select it by coordinates or by its database ID")
    if value["select_by"] != "coord" and not value["id"]:
        what = "the name of an exposure" if value["select_by"] == "exposure_id" else "a database ID"
        raise UserError(f"id is empty; expected {what}")


def _number(value: Mapping[str, str], name: str) -> float | str:
    if not value[name]:
        return ""
    try:
        return float(value[name])
    except ValueError:
        raise UserError(f"{name} is {value[name][:40]!r}; expected a number") from None
