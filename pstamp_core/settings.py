"""The settings of one server: read from ``pstamp.toml`` in its home folder.

The home holds everything of a server: ``pstamp.toml``, the database ``pstamp.db`` (unless a MySQL server is named),
``images/`` with the image databases, ``work/`` with one directory a request, and ``datastore/``.
"""

from __future__ import annotations

import json
import re
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any

from pstamp_core.database import redact, with_parts
from pstamp_core.faults import Fault, RetryableError

FILE_NAME = "pstamp.toml"


@dataclass(frozen=True)
class Settings:
    """What a site can choose.

    Attributes
    ----------
    home : Path
        The server's folder.
    database : str
        Address of the server's database; relative paths lie in the home.
    password_file : str
        File whose first line is the database's password, so that the address need not hold it.
    product : str
        The data store product that gets results, unless the user has one (IPP: PSTAMP_DATA_STORE_PRODUCT).
    label : str
        The label of requests that come with none.
    default_access_level : int
        The level of users unknown to pstampUser and pstampUserDomain (IPP: PSTAMP_DEFAULT_ACCESS_LEVEL).
    serve_v1 : bool
        Serve version 1 request files, which name no user; else they are answered with 29.
    max_rows : int
        Rows in a request file.
    max_open_rows : int
        Rows of all requests of a user of the web service that are not finished; 0 is no limit. Operators have none.
    login_hours : float
        How long a login of the web service lasts.
    max_upload_bytes : int
        Of a request file, or anything else, that is sent to the web service.
    max_stamp_pixels : int
        Width or height of a stamp in pixels; its square bounds the pixels of a stamp that is not square.
    max_jobs : int
        Jobs that one request may lead to.
    lossy : bool
        Quantise float products as IPP does, instead of storing them without loss.
    lease_seconds : float
        How long a worker may be silent before its work counts as lost.
    retry_ceiling : int
        Faults after which the server gives up.
    retry_seconds : float
        Wait before the first retry; doubled for each further one, up to an hour.
    check_seconds : float
        Time between two looks at a waiting dependent.
    claim_limit : int
        Jobs that a worker takes at once, all of one image.
    cooldown_seconds : float
        How long a component that was given up is left alone, before the next request has it tried again.
    longest_wait_days : float
        Days after which a component that is waited for, and not there, is given up, whatever keeps it; 0 is never.
    preserve_days : float
        Days after which a finished request is deleted from disk (IPP: PSTAMP_PRESERVE_DAYS), and so are the logs of
        dependents and of what was made again, counted from the last line; 0 keeps for ever.
    pin_days : float
        Days after which a job that has not moved keeps no image from being cleaned any more; 0 is never.
    keep_made_days : float
        Days for which images that were made again are kept, though no job needs them any more.
    poll_hosts : list of str
        Hosts, as ``host`` or ``host:port``, to which the data stores that are watched may redirect besides their own.
    poll_redirects : int
        Redirects that are followed, one after the other.
    poll_seconds : float
        How long a data store may take for an index.
    poll_bytes : int
        The largest index that is read; 20 MB are some 200,000 rows.
    fetch_seconds : float
        How long it may take for a request file.
    update_chip, update_warp, update_diff, update_destreak : list of str
        The program, and its arguments, that makes a component of this stage again from its inputs, or takes the streaks
        from it. Empty: another update server does that. See `pstamp_update_run` for what is asked of it.

        In an argument {stage}, {stage_id} and {component} stand for the component, {path_base} for what the names of
        its files begin with, {root} for the folder of the project's images, {database} for the address of its image
        database, without the password; a brace is written twice.
    update_timeout : float
        Seconds after which such a program is killed.
    update_at_once : int
        How many of them run at the same time on a host; 0 is one for each core.
    """

    home: Path
    database: str = "pstamp.db"
    password_file: str = ""
    product: str = "pstamp_results"
    label: str = "LOCAL"
    default_access_level: int = 1
    serve_v1: bool = False
    max_rows: int = 100_000
    max_open_rows: int = 300_000
    login_hours: float = 12.0
    max_upload_bytes: int = 50_000_000
    max_stamp_pixels: int = 8000
    max_jobs: int = 1_000_000
    lossy: bool = False
    lease_seconds: float = 600.0
    retry_ceiling: int = 3
    retry_seconds: float = 10.0
    check_seconds: float = 5.0
    claim_limit: int = 100
    cooldown_seconds: float = 3600.0
    longest_wait_days: float = 7.0
    preserve_days: float = 14.0
    pin_days: float = 7.0
    keep_made_days: float = 1.0
    poll_hosts: tuple[str, ...] = ()
    poll_redirects: int = 5
    poll_seconds: float = 10.0
    poll_bytes: int = 20_000_000
    fetch_seconds: float = 120.0
    update_chip: tuple[str, ...] = ()
    update_warp: tuple[str, ...] = ()
    update_diff: tuple[str, ...] = ()
    update_destreak: tuple[str, ...] = ()
    update_timeout: float = 1200.0
    update_at_once: int = 0

    @property
    def address(self) -> str:
        """The database's address, with a relative path taken from the home."""
        return self.locate(self.database)

    def locate(self, address: str) -> str:
        """Return a database address in which a relative path is taken from the home."""
        if "://" in address and not address.startswith("sqlite:///"):
            return address
        return str(self.home / address.removeprefix("sqlite:///"))

    @property
    def work(self) -> Path:
        """Where the work directories are."""
        return self.home / "work"

    @property
    def images(self) -> Path:
        """Where the image databases are."""
        return self.home / "images"

    @property
    def datastore(self) -> Path:
        """The root of the data store."""
        return self.home / "datastore"


PLACEHOLDERS = ("stage", "stage_id", "component", "path_base", "root", "database")
"""What stands in braces in an argument of a program that makes components again."""

_LIST = "tuple[str, ...]"
_HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?")
_TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool, _LIST: list}


def load_settings(home: Path, database: str | None = None, *, without_home: bool = False, **parts: Any) -> Settings:
    """Read the settings of the server in `home`.

    Parameters
    ----------
    home : Path
        The server's folder.
    database : str, optional
        Address of the server's database, instead of what the file says.
    without_home : bool
        Do without the file where it is missing, if a database is named: for those who touch the database only.
    **parts
        Parts of the address that go before both (`pstamp_core.database.with_parts`); a password goes before the
        password file.

    Raises
    ------
    RetryableError
        Fault 3: no server there, not TOML, an unknown key, a value of the wrong type, or no password file.
    """
    path = home / FILE_NAME
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not (without_home and (database or parts.get("name"))):
            raise _wrong(
                f"no server in {home} ({FILE_NAME} is missing); make one with: pstamp init --home {home}"
            ) from None
        values = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong(f"{path}: {error}") from error
    _check(path, values)
    if database:
        values["database"] = database
    settings = Settings(home.resolve(), **values)
    if settings.password_file and parts.get("password") is None:
        secret = settings.home / settings.password_file
        try:
            parts["password"] = secret.read_text(encoding="utf-8").partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise _wrong(f"{path}: password_file = {settings.password_file!r}: {error}") from error
    return replace(settings, database=with_parts(settings.database, **parts))


def _check(path: Path, values: dict[str, Any]) -> None:
    """Check what the file at `path` says, and turn it into what `Settings` takes."""
    known = {each.name: str(each.type) for each in fields(Settings) if each.name != "home"}
    for key, value in values.items():
        if key not in known:
            raise _wrong(f"{path}: unknown key {key!r}; the keys are {', '.join(known)}")
        if not isinstance(value, _TYPES[known[key]]) or (isinstance(value, bool) and known[key] != "bool"):
            expected = "a list" if known[key] == _LIST else known[key]
            raise _wrong(f"{path}: {key} = {value!r}; expected {expected}")
        if known[key] == _LIST:
            if flaw := (_flaw(value) if key.startswith("update_") else _odd_host(value)):
                raise _wrong(f"{path}: {key}: {flaw}")
            values[key] = tuple(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not 0 <= value < inf:
            raise _wrong(f"{path}: {key} = {value!r}; expected 0 or more")


def _flaw(command: list[Any]) -> str:
    """Return what is wrong with a program and its arguments, or nothing."""
    for word in command:
        if not isinstance(word, str) or "\0" in word or command[0] == "":
            return f"{word!r}: expected a program and its arguments, as strings"
        try:
            # A field is (text before it, name, format, conversion).
            wrong = [name for _, name, *more in string.Formatter().parse(word)
                     if name is not None and (name not in PLACEHOLDERS or any(more))]  # fmt: skip
        except ValueError as error:
            return f"{word!r}: {error}; a brace that stands for itself is written twice"
        if wrong:
            known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            return f"{word!r}: unknown placeholder {wrong[0]!r}; there are {known}"
    return ""


def _odd_host(hosts: list[Any]) -> str:
    """Return which of `hosts` is none, or nothing."""
    odd = [host for host in hosts if not (isinstance(host, str) and _HOST.fullmatch(host))]
    return f"{odd[0]!r}: expected a host, or host:port" if odd else ""


def in_force(settings: Settings, chosen: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return each setting with its value, passwords left out, and where that comes from.

    Parameters
    ----------
    settings : Settings
        As they are in force.
    chosen : mapping of str to str
        Where those come from that went before the file: by the name of the setting.
    """
    path = settings.home / FILE_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    keys = {found[1]: number for number, line in enumerate(lines, 1) if (found := _KEY.match(line))}
    rows = []
    for each in fields(Settings):
        value = getattr(settings, each.name)
        value = json.dumps(value) if each.type == _LIST else str(value)
        source = chosen.get(each.name) or (f"{FILE_NAME} line {keys[each.name]}" if each.name in keys else "default")
        rows.append((each.name, redact(value) if each.name == "database" else value, source))
    return rows


_KEY = re.compile(r"\s*[\"']?(\w+)[\"']?\s*=")


def default_settings_text() -> str:
    """Return a ``pstamp.toml`` in which every key stands with its default, as a comment."""
    lines = ["# Settings of a pstamp server. Lines that start with # show the defaults.", ""]
    # JSON writes such values as TOML does.
    keys = [f"# {each.name} = {json.dumps(each.default)}" for each in fields(Settings) if each.name != "home"]
    return "\n".join([*lines, *keys, ""])


def _wrong(message: str) -> RetryableError:
    return RetryableError(message, Fault.PS_EXIT_CONFIG_ERROR)
