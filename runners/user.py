"""`pstamp user`: who may log in to the web service."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pstamp_core.faults import UserError
from runners import console
from runners.console import HOME, Home, server_of

if TYPE_CHECKING:
    from pstamp_core.tasks.accounts import Account

app = typer.Typer(no_args_is_help=True, help="Who may log in to the web service. Passwords are asked for, or come on "
                  "standard input.")  # fmt: skip

Email = Annotated[str, typer.Argument(help="Their e-mail address.", show_default=False)]
LONGEST_LINE = 10_000


@app.command()
def add(
    email: Email,
    group: Annotated[list[str] | None, typer.Option("--group", help="Whose members see each other's requests.")] = None,
    operator: Annotated[bool, typer.Option("--operator", help="Sees all requests, and has no quota.")] = False,
    home: Home = HOME,
) -> None:
    """Make an account.

    Example: pstamp user add ana@obs.example.edu --group supernovae
    """
    from pstamp_core.tasks.accounts import OPERATORS, add_account

    server = server_of(home)
    groups = [*(group or ()), *([OPERATORS] if operator else ())]
    _say(add_account(server, email, _ask_for_password(), groups))


@app.command(name="list")
def list_(home: Home = HOME) -> None:
    """Show all accounts.

    Example: pstamp user list
    """
    from pstamp_core.tasks.accounts import accounts

    found = accounts(server_of(home))
    if not found:
        print("there is no account yet; make one with: pstamp user add EMAIL")
        return
    console.table(
        ("e-mail", "may log in", "groups"),
        [(each.email, "yes" if each.active else "no", ", ".join(sorted(each.groups))) for each in found],
    )


@app.command()
def password(email: Email, home: Home = HOME) -> None:
    """Give an account another password; it is logged out everywhere, and its tokens end.

    Example: pstamp user password ana@obs.example.edu
    """
    from pstamp_core.tasks.accounts import account_of, change_account

    server = server_of(home)
    account_of(server, email)  # before anything is typed for nothing
    _say(change_account(server, email, password=_ask_for_password()))


@app.command()
def disable(email: Email, home: Home = HOME) -> None:
    """Let nobody log in to an account; it is logged out everywhere, and its tokens end. What it sent goes on.

    Example: pstamp user disable ana@obs.example.edu
    """
    from pstamp_core.tasks.accounts import change_account

    _say(change_account(server_of(home), email, active=False))


@app.command()
def enable(email: Email, home: Home = HOME) -> None:
    """Let the owner of a disabled account log in again.

    Example: pstamp user enable ana@obs.example.edu
    """
    from pstamp_core.tasks.accounts import change_account

    _say(change_account(server_of(home), email, active=True))


@app.command()
def groups(
    email: Email,
    add: Annotated[list[str] | None, typer.Option("--add", help="Put it into this group.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="Take it out of this group.")] = None,
    home: Home = HOME,
) -> None:
    """Change the groups of an account; without options, show them. Members of `operators` see all requests.

    Example: pstamp user groups ana@obs.example.edu --add operators --remove supernovae
    """
    from pstamp_core.tasks.accounts import change_groups

    _say(change_groups(server_of(home), email, add or (), remove or ()))


@app.command()
def token(
    email: Email,
    name: Annotated[str, typer.Option(help="What it is for.")] = "pstamp user token",
    days: Annotated[float, typer.Option(help="How long it is good.")] = 365,
    home: Home = HOME,
) -> None:
    """Print a new token, which stands for the account in a program. It is shown this once, and kept nowhere.

    Example: pstamp user token ana@obs.example.edu --name laptop
    """
    from pstamp_core.tasks.accounts import account_of, add_token

    server = server_of(home)
    print(add_token(server, account_of(server, email), name, days))


def _ask_for_password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("password", hide_input=True, confirmation_prompt="the same again"))
    line = sys.stdin.readline(LONGEST_LINE).removesuffix("\n").removesuffix("\r")
    if not line:
        raise UserError("there is no password on standard input; expected it as the first line")
    return line


def _say(account: Account) -> None:
    state = "may log in" if account.active else "is disabled"
    names = f"groups: {', '.join(sorted(account.groups))}" if account.groups else "no groups"
    print(f"account {account.email}: {state}; {names}")
