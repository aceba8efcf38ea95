"""`pstamp user`, as operators type it and scripts feed it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pstamp_core.settings import load_settings
from pstamp_core.tasks.accounts import Account, accounts, by_token, check_password
from pstamp_core.tasks.server import Server, make_server
from runners import pstamp

Result = tuple[int, str, str]
Command = Callable[..., Result]
PASSWORD = "correct horse battery"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server that the commands work on."""
    for name in ("PSTAMP_DB", "PSTAMP_DB_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PSTAMP_HOME", str(tmp_path / "h"))
    make_server(tmp_path / "h").store.db.close()
    return Server(load_settings(tmp_path / "h"))


@pytest.fixture
def user(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``pstamp user``, with something on standard input; gives exit code, output and errors."""

    def run(*args: str, typed: str = "") -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["pstamp", "user", *args])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as caught:
            pstamp.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


def test_accounts_are_made_and_shown(server: Server, user: Command) -> None:
    assert user("list") == (0, "there is no account yet; make one with: pstamp user add EMAIL\n", "")
    assert user("add", "Ana@obs.edu", "--group", "team", "--group", "survey", "--operator", typed=PASSWORD) == (
        0, "account ana@obs.edu: may log in; groups: operators, survey, team\n", "",
    )  # fmt: skip
    assert user("add", "bob@obs.edu", typed=f"{PASSWORD} 2\r\nmore\n") == (
        0, "account bob@obs.edu: may log in; no groups\n", "",
    )  # fmt: skip
    assert user("list") == (
        0, "e-mail       may log in  groups\n"
        "ana@obs.edu  yes         operators, survey, team\n"
        "bob@obs.edu  yes\n", "",
    )  # fmt: skip
    ana, bob = accounts(server)
    assert check_password(server, "ana@obs.edu", PASSWORD, "") == ana
    assert check_password(server, "bob@obs.edu", f"{PASSWORD} 2", "") == bob


@pytest.mark.parametrize(
    ("args", "typed", "said"),
    [
        (("add", "a@b.edu"), "", "there is no password on standard input; expected it as the first line"),
        (
            ("add", "a@b.edu"),
            "\nsecond line\n",
            "there is no password on standard input; expected it as the first line",
        ),
        (("add", "a@b.edu"), "short\n", "the password has 5 characters; expected 10 to 200"),
        (("add", "ana"), PASSWORD, "e-mail address 'ana': expected user@domain, at most 68 characters"),
        (("add", "known@b.edu"), PASSWORD, "account known@b.edu: there is one already"),
        (("password", "a@b.edu"), PASSWORD, "there is no account a@b.edu; see: pstamp user list"),
        (("password", "known@b.edu"), "short", "the password has 5 characters; expected 10 to 200"),
        (("disable", "a@b.edu"), "", "there is no account a@b.edu; see: pstamp user list"),
        (("enable", "a@b.edu"), "", "there is no account a@b.edu; see: pstamp user list"),
        (("token", "a@b.edu"), "", "there is no account a@b.edu; see: pstamp user list"),
        (("groups", "known@b.edu", "--remove", "x"), "", "account known@b.edu is not in group x"),
    ],
)
def test_what_can_not_be_is_one_line_and_changes_nothing(
    server: Server, user: Command, args: tuple[str, ...], typed: str, said: str
) -> None:
    user("add", "known@b.edu", typed=PASSWORD)
    assert user(*args, typed=typed) == (5, "", f"pstamp: {said}\n")
    (known,) = accounts(server)
    assert check_password(server, "known@b.edu", PASSWORD, "") == known


def test_there_is_no_option_for_a_password(user: Command) -> None:
    code, out, err = user("add", "a@b.edu", "--password", PASSWORD)
    assert (code, out) == (3, "")
    assert err.startswith("pstamp: No such option: --password")


def test_an_account_is_changed(server: Server, user: Command) -> None:
    user("add", "ana@obs.edu", typed=PASSWORD)
    code, token, err = user("token", "Ana@obs.edu", "--name", "laptop", "--days", "7")
    assert (code, err, token.count("\n")) == (0, "", 1)
    (ana,) = accounts(server)
    assert by_token(server, token.strip()) == ana
    assert user("groups", "ana@obs.edu", "--add", "team", "--add", "Survey") == (
        0, "account ana@obs.edu: may log in; groups: survey, team\n", "",
    )  # fmt: skip
    assert user("groups", "ana@obs.edu", "--remove", "team") == (
        0, "account ana@obs.edu: may log in; groups: survey\n", "",
    )  # fmt: skip
    assert user("groups", "ana@obs.edu") == (0, "account ana@obs.edu: may log in; groups: survey\n", "")
    assert user("disable", "ana@obs.edu") == (0, "account ana@obs.edu: is disabled; groups: survey\n", "")
    assert user("list") == (0, "e-mail       may log in  groups\nana@obs.edu  no          survey\n", "")
    assert by_token(server, token.strip()) is None
    assert user("enable", "ana@obs.edu") == (0, "account ana@obs.edu: may log in; groups: survey\n", "")
    assert user("password", "ana@obs.edu", typed="another password\n") == (
        0, "account ana@obs.edu: may log in; groups: survey\n", "",
    )  # fmt: skip
    ana = Account(ana.account_id, "ana@obs.edu", frozenset({"survey"}))
    assert check_password(server, "ana@obs.edu", "another password", "") == ana


def test_on_a_terminal_it_is_asked_for_twice_and_not_shown(server: Server) -> None:
    """Typed through a terminal of its own; a repetition that differs is asked for again."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", "from runners.pstamp import main; main()", "user", "add", "ana@obs.edu"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        shown = ""
        for prompt, typed in (
            ("password: ", PASSWORD), ("the same again: ", "something else"),
            ("password: ", PASSWORD), ("the same again: ", PASSWORD),
        ):  # fmt: skip
            shown += _until(ours, prompt)
            os.write(ours, f"{typed}\n".encode())
        shown += _until(ours, "no groups\r\n")
        assert process.wait() == 0
    os.close(ours)
    assert shown.split("\r\n") == [
        "password: ", "the same again: ", "Error: The two entered values do not match.",
        "password: ", "the same again: ", "account ana@obs.edu: may log in; no groups", "",
    ]  # fmt: skip
    assert check_password(server, "ana@obs.edu", PASSWORD, "").email == "ana@obs.edu"


def _until(terminal: int, end: str) -> str:
    """Read until what is shown ends so."""
    shown = ""
    while not shown.endswith(end):
        shown += os.read(terminal, 1000).decode()
    return shown
