"""Command lines as IPP's C programs take them: one mode, and options with a single dash, in any order.

An option is its exact name followed by one word, or a flag without one. Most names mean the same in all modes, so that
a name has one type.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pstamp_core.faults import Fault, PstampError
from runners.outcome import HOME, main, settings_of

if TYPE_CHECKING:
    from pstamp_core.settings import Settings
    from pstamp_core.tasks.tool.rows import Rows

FLAG = "flag"
TEXT = "text"
Kind = str | tuple[int, int]
"""`FLAG`, `TEXT`, ``"time"``, ``"number"``, or the smallest and the largest integer."""

COMMON: Mapping[str, Kind] = {
    "home": TEXT, "dbserver": TEXT, "dbname": TEXT, "dbuser": TEXT, "dbpassword": TEXT, "dbport": (1, 65535),
}  # fmt: skip
"""What every mode takes: which database (`pmConfig.c`); ``-home`` is ours."""
COMMON_HELP = """
Every mode takes: -home DIR (the server's folder; else PSTAMP_HOME, else ./pstamp-home), and what replaces parts of the
configured address of its database: -dbserver HOST -dbname NAME -dbuser NAME -dbport N. The password comes from the
setting password_file or from PSTAMP_DB_PASSWORD (-dbpassword works, but everybody on the machine can see it).
"""

_HELP = {"-help", "--help", "-h"}
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d{1,6})?)?", re.ASCII)


class UsageError(PstampError):
    """The command line makes no sense; fault 3 (`pxerrors.c`), or 1 for what the C program's modes found missing."""

    default_fault = Fault.PS_EXIT_CONFIG_ERROR


class Help(Exception):  # noqa: N818 (not an error)
    """Somebody asks for help; the text is the argument."""


class Option(NamedTuple):
    """An option of one mode.

    Attributes
    ----------
    name : str
        Without the dash.
    many : bool
        May be repeated.
    missing : int
        The exit code when it is not given; 0 where it need not be.
    ignored : bool
        Taken, and without effect.
    default : str or None
        What it is when it is not given.
    """

    name: str
    many: bool = False
    missing: int = 0
    ignored: bool = False
    default: str | None = None

    @classmethod
    def of(cls, text: str) -> Option:
        """Read ``name``, ``name*`` (many), ``name!3`` (missing: exit code 3), ``name~`` (ignored), ``name=default``."""
        name, sign, rest = [*re.split(r"([*!~=])", text, maxsplit=1), "", ""][:3]
        return cls(name, sign == "*", int(rest) if sign == "!" else 0, sign == "~", rest if sign == "=" else None)


class Program(NamedTuple):
    """A program with modes.

    Attributes
    ----------
    name : str
        What it is called.
    about : str
        What it is, for ``-help``.
    modes : mapping of str to (str, str)
        For each mode what it does, and its options as `Option.of` reads them.
    kinds : mapping of str to Kind
        The options that are not texts.
    """

    name: str
    about: str
    modes: Mapping[str, tuple[str, str]]
    kinds: Mapping[str, Kind]

    def options(self, mode: str) -> dict[str, Option]:
        """Return the options of a mode by their names."""
        return {option.name: option for option in map(Option.of, self.modes[mode][1].split())}

    def kind(self, name: str) -> Kind:
        """Return the type of an option."""
        return COMMON.get(name) or self.kinds.get(name, TEXT)

    def read(self, words: Sequence[str]) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Read a command line.

        Returns
        -------
        (str, dict, dict)
            The mode, its options by name, and those of `COMMON` that were given. Options that were not given and have
            no default are left out; a flag is True, a time is in UTC, what may be repeated is a list.

        Raises
        ------
        Help
            It asks for help.
        UsageError
            No mode or two, an unknown option, a missing or a wrong value, one option twice, a required one missing.
        """
        modes, given = self._sort(words)
        wants_help = any(name in _HELP for name, _ in given)
        if wants_help and len(modes) < 2:
            raise Help(self._help(*modes))
        if len(modes) != 1:
            found = f"two modes, -{modes[0]} and -{modes[1]}; expected one" if modes else "no mode"
            raise UsageError(f"{found}; {self.name} -help lists the modes")
        (mode,) = modes
        known = self.options(mode)
        options: dict[str, Any] = {}
        common: dict[str, Any] = {}
        for word, value in given:
            option = known.get(word[1:]) or (Option(word[1:]) if word[1:] in COMMON else None)
            if option is None or word[0] != "-":
                names = " ".join(f"-{name}" for name in known) or "none"
                raise UsageError(f"-{mode}: {word!r} is no option of it; its options are {names}")
            self._add(mode, common if option.name in COMMON else options, option, value)
        for option in known.values():
            if option.missing and option.name not in options:
                raise UsageError(f"-{mode}: -{option.name} is missing", option.missing)
            if option.default is not None and option.name not in options:
                options[option.name] = _value(self.kind(option.name), option.default)
        return mode, {name: value for name, value in options.items() if not known[name].ignored}, common

    def _sort(self, words: Sequence[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
        """Return the modes among the words, and the others with the values that belong to them."""
        names = {*COMMON, *(name for mode in self.modes for name in self.options(mode))}
        reserved = {f"-{name}" for name in (*names, *self.modes)} | _HELP
        modes: list[str] = []
        given: list[tuple[str, str | None]] = []
        rest = iter(enumerate(words))
        for place, word in rest:
            name = word.removeprefix("-")
            if word[:1] == "-" and name in self.modes:
                modes.append(name)
            elif word[:1] == "-" and name in names and self.kind(name) != FLAG:
                following = words[place + 1] if place + 1 < len(words) else None
                if following is None or following in reserved:
                    raise UsageError(f"{word} needs a value: {_words(self.kind(name))}")
                given.append((word, following))
                next(rest)
            else:
                given.append((word, None))
        return modes, given

    def _add(self, mode: str, options: dict[str, Any], option: Option, text: str | None) -> None:
        kind = self.kind(option.name)
        if option.name in options and not option.many:
            raise UsageError(f"-{mode}: -{option.name} is given twice")
        try:
            value = True if text is None else _value(kind, text)
        except ValueError:
            raise UsageError(f"-{mode}: -{option.name} {text!r}: expected {_words(kind)}") from None
        options[option.name] = [*options.get(option.name, []), value] if option.many else value

    def _help(self, mode: str = "") -> str:
        if not mode:
            lines = [f"  -{name:<19} {what}" for name, (what, _) in self.modes.items()]
            usage = f"usage: {self.name} -MODE [-OPTION VALUE ...]\n\n{self.about}\n\nModes (-MODE -help tells more):"
            return "\n".join([usage, *lines]) + "\n" + COMMON_HELP
        lines = [f"  {_line(option, self.kind(option.name))}" for option in self.options(mode).values()]
        return "\n".join([f"usage: {self.name} -{mode} [-OPTION VALUE ...]\n\n{self.modes[mode][0]}\n", *lines, ""])


def _line(option: Option, kind: Kind) -> str:
    notes = [
        _words(kind) if kind != FLAG else "", "required" if option.missing else "", "repeatable" if option.many else "",
        "no effect" if option.ignored else "", f"default {option.default}" if option.default is not None else "",
    ]  # fmt: skip
    return f"-{option.name:<19} {', '.join(filter(None, notes))}".rstrip()


def _words(kind: Kind) -> str:
    if isinstance(kind, tuple):
        low, high = kind
        return f"an integer from {low}" + (f" to {high}" if high < 2**63 - 1 else "")
    return {"time": "a time in UTC, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss", "number": "a number"}.get(kind, "a text")


def _integer(text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or not low <= int(text) <= high:
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?", text) or not isfinite(float(text)):
        raise ValueError
    return float(text)


def _time(text: str) -> datetime:
    if not _TIME.fullmatch(text):
        raise ValueError
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _text(text: str) -> str:
    text.encode()  # words that are not UTF-8 come with surrogates
    return text


_READERS: Mapping[str, Callable[[str], Any]] = {TEXT: _text, "number": _number, "time": _time}


def _value(kind: Kind, text: str) -> Any:
    return _integer(text, *kind) if isinstance(kind, tuple) else _READERS[kind](text)


def run(program: Program, call: Callable[[str, Settings, dict[str, Any]], Rows | int | None]) -> None:
    """Run a program: read its command line, `call` the mode, print what comes of it; all failures end in one line.

    `call` gets the mode, the settings and the options, without ``-simple``.
    """

    def work() -> None:
        try:
            mode, options, common = program.read(sys.argv[1:])
        except Help as text:
            print(text, end="")
            return
        if "dbpassword" in common:
            print(f"{program.name}: everybody on this machine can read a password given as -dbpassword; "
                  "use PSTAMP_DB_PASSWORD, or the setting password_file", file=sys.stderr)  # fmt: skip
        home = Path(common.pop("home", None) or os.environ.get("PSTAMP_HOME") or HOME)
        simple = options.pop("simple", False)
        found = call(mode, settings_of(home, without_home=True, **common), options)
        if found is not None:
            print(found if isinstance(found, int) else found.simple() if simple else found.text(),
                  end="\n" if isinstance(found, int) else "")  # fmt: skip
        sys.stdout.flush()

    main(work)
