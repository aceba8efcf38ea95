"""Accounts: who may log in, what stands for a login, and whose requests one may see.

An account is an e-mail address with a password and groups. What its owner may see of a project is not said here but by
`pstampUser` and `pstampUserDomain` (`pstamp_core.tasks.parse`), which look at the address. Secrets are kept only as
hashes: passwords as argon2, those of logins and tokens, which nobody can guess, as SHA-256.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import threading
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from peewee import SQL

from pstamp_core.faults import Fault, UserError
from pstamp_core.machines.machine import MICROSECONDS
from pstamp_core.store import moment, pstampAccount, pstampGroup, pstampGuess, pstampKey, pstampRequest
from pstamp_core.tasks.server import Server

if TYPE_CHECKING:
    from argon2 import PasswordHasher

OPERATORS = "operators"
"""The group whose members see all requests and have no quota."""

MIN_PASSWORD = 10
MAX_PASSWORD = 200
"""Characters of a password."""
MAX_EMAIL = 68
"""Characters of an e-mail address, as in the header of a request file."""
MAX_TOKENS = 100
"""Tokens of an account."""
MAX_TOKEN_DAYS = 3650

WRONG_FOR_EMAIL = 10
WRONG_FROM_ADDRESS = 50
"""Wrong passwords, for one e-mail address and from one internet address, after which all are refused for a time."""
GUESS_SECONDS = 900
"""How long wrong passwords are counted together, and the longest that more are refused."""

HASHES_AT_ONCE = 4
"""Each takes 19 MiB; more than these wait, so that a crowd at the door takes no more memory."""

_EMAIL = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-z0-9-]+(\.[a-z0-9-]+)*")
_GROUP = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_hashing = threading.BoundedSemaphore(HASHES_AT_ONCE)


class Refused(UserError):  # noqa: N818 (an outcome)
    """E-mail address and password do not fit, or there were too many wrong ones; the message does not tell which."""

    default_fault = Fault.PSTAMP_NOT_AUTHORIZED


@dataclass(frozen=True)
class Account:
    """Who somebody is.

    Attributes
    ----------
    account_id : int
        Its number.
    email : str
        In lower case; the username of the requests of this account.
    groups : frozenset of str
        Members of a group see each other's requests.
    active : bool
        Whether one can log in.
    """

    account_id: int
    email: str
    groups: frozenset[str]
    active: bool = True

    @property
    def operator(self) -> bool:
        """Whether it sees all requests, and has no quota."""
        return OPERATORS in self.groups


@dataclass(frozen=True)
class Token:
    """What stands for an account in a program, without the secret."""

    token_id: int
    name: str
    made: datetime
    expires: datetime


def add_account(server: Server, email: str, password: str, groups: Collection[str] = ()) -> Account:
    """Make an account.

    Raises
    ------
    UserError
        There is one already, or the address, the password or a group is none that can be.
    """
    email = _checked_email(email)
    names = _checked_groups(groups)
    hashed = _hash(_checked_password(password))

    def work() -> Account:
        if pstampAccount.get_or_none(pstampAccount.email == email):
            raise UserError(f"account {email}: there is one already")
        row = pstampAccount.create(email=email, password=hashed)
        _set_groups(row, names)
        return _account(row)

    return server.store.work(work)


def change_account(server: Server, email: str, *, password: str | None = None, active: bool | None = None) -> Account:
    """Change an account; `None` leaves what is there. A new password and disabling end its logins and tokens.

    Raises
    ------
    UserError
        There is none, or the password is none that can be.
    """
    hashed = None if password is None else _hash(_checked_password(password))

    def work() -> Account:
        row = _find(email)
        if hashed is not None:
            row.password = hashed
        if active is not None:
            row.active = active
        row.save()
        if hashed is not None or active is False:
            pstampKey.delete().where(pstampKey.account_id == row.account_id).execute()
        return _account(row)

    return server.store.work(work)


def change_groups(server: Server, email: str, add: Collection[str] = (), remove: Collection[str] = ()) -> Account:
    """Put an account into groups, and take it out of others.

    Raises
    ------
    UserError
        There is no such account, a name is none that can be, or the account is not in a group it is to leave.
    """
    added, removed = _checked_groups(add), _checked_groups(remove)

    def work() -> Account:
        row = _find(email)
        names = _account(row).groups
        if missing := sorted(set(removed) - names):
            raise UserError(f"account {row.email} is not in group {missing[0]}")
        _set_groups(row, (names | set(added)) - set(removed))
        return _account(row)

    return server.store.work(work)


def accounts(server: Server) -> list[Account]:
    """Return all accounts by their addresses."""
    with server.store.reading():
        groups: dict[int, set[str]] = {}
        for each in pstampGroup.select():
            groups.setdefault(each.account, set()).add(each.name)
        return [
            Account(row.account_id, row.email, frozenset(groups.get(row.account_id, ())), row.active)
            for row in pstampAccount.select().order_by(pstampAccount.email)
        ]


def account_of(server: Server, email: str) -> Account:
    """Return the account of an address.

    Raises
    ------
    UserError
        There is none.
    """
    with server.store.reading():
        return _account(_find(email))


def check_password(server: Server, email: str, password: str, address: str) -> Account:
    """Return the account that e-mail address and password belong to.

    Wrong passwords are counted for the e-mail address, whether there is such an account or not, and for the internet
    `address` they come from (for IPv6 its /64, all of which one site has). Beyond a number the right one is refused as
    well, until the time is over.

    Raises
    ------
    Refused
        They do not belong together, the account is disabled, or too many were wrong.
    """
    row = _row_of(server, email, password, address)
    with server.store.reading():
        return _account(row)


def _row_of(server: Server, email: str, password: str, address: str) -> pstampAccount:
    """Return the row of the account, as `check_password` says."""
    email = email.strip().lower()
    limits = {f"email {email[:MAX_EMAIL]}": WRONG_FOR_EMAIL, f"address {_network(address)}": WRONG_FROM_ADDRESS}
    limits = {who.encode("ascii", "replace").decode(): limit for who, limit in limits.items()}
    with server.store.reading():
        _refuse_guesses(limits, server.store.now())
        row = pstampAccount.get_or_none(pstampAccount.email == email) if _EMAIL.fullmatch(email) else None
        fits = _fits(row.password if row else _nobodys(), password)
        _refuse_guesses(limits, server.store.now())  # others guessed meanwhile
        if row and fits and row.active:
            return row
    server.store.work(lambda: _count_wrong(list(limits), server.store.now()))
    raise Refused(_NOT_TOGETHER)


_NOT_TOGETHER = "e-mail address and password do not belong to an account here"


def log_in(server: Server, email: str, password: str, address: str) -> tuple[Account, str]:
    """Return the account, as `check_password` does, and a new secret that stands for it from now on.

    Races tolerated: where password or account were changed since the password was compared, there is no login.

    Raises
    ------
    Refused
        As `check_password`.
    """
    row = _row_of(server, email, password, address)
    mine = pstampAccount.account_id == row.account_id
    as_it_was = mine & (pstampAccount.password == row.password) & (pstampAccount.active == True)  # noqa: E712 (SQL)

    def work() -> tuple[Account, str]:
        # This locks the row, so that a change comes before or after all of this.
        if not pstampAccount.update(email=row.email).where(as_it_was).execute():
            raise Refused(_NOT_TOGETHER)
        account = _account(row)
        return account, _make_key(server, account, None, server.settings.login_hours * 3600)

    return server.store.work(work)


def by_login(server: Server, secret: str) -> Account | None:
    """Return the account that a login's secret stands for; None for one that is unknown, over or ended."""
    return _by_key(server, secret, is_token=False)


def log_out(server: Server, secret: str) -> None:
    """End a login; one that is over already does no harm."""
    ended = (pstampKey.digest == _digest(secret)) & pstampKey.name.is_null()
    server.store.work(lambda: pstampKey.delete().where(ended).execute())


def add_token(server: Server, account: Account, name: str, days: float = 365) -> str:
    """Return a new token, a secret that stands for the account in a program for some days.

    Raises
    ------
    UserError
        The name or the days can't be, or the account is disabled or has too many tokens.
    """
    if not account.active:
        raise UserError(f"account {account.email} is disabled, and so would be its token; see: pstamp user enable")
    name = name.strip()
    if not (0 < len(name) <= 64 and name.isprintable()):
        raise UserError(f"token {name[:64]!r}: expected a name of 1 to 64 printable characters")
    if not 0 < days <= MAX_TOKEN_DAYS:
        raise UserError(f"token {name!r}: {days:g} days; expected more than 0 and at most {MAX_TOKEN_DAYS}")

    def work() -> str:
        _delete_expired(server.store.now())
        if pstampKey.select().where(_tokens_of(account)).count() >= MAX_TOKENS:
            raise UserError(f"account {account.email} has {MAX_TOKENS} tokens, which is all it can; drop one first")
        return _make_key(server, account, name, days * 86400)

    return server.store.work(work)


def tokens(server: Server, account: Account) -> list[Token]:
    """Return the tokens of an account that are not over, the oldest first."""
    with server.store.reading():
        valid = _tokens_of(account) & (pstampKey.expires_at > server.store.now())
        return [
            Token(row.key_id, row.name, moment(row.made_at), moment(row.expires_at))
            for row in pstampKey.select().where(valid).order_by(pstampKey.key_id)
        ]


def drop_token(server: Server, account: Account, token_id: int) -> None:
    """Delete a token.

    Raises
    ------
    UserError
        The account has no such token.
    """

    def work() -> None:
        if not pstampKey.delete().where(_tokens_of(account) & (pstampKey.key_id == token_id)).execute():
            raise UserError(f"account {account.email} has no token {token_id}")

    server.store.work(work)


def by_token(server: Server, secret: str) -> Account | None:
    """Return the account that a token stands for; None for one that is unknown, over or dropped."""
    return _by_key(server, secret, is_token=True)


def visible(account: Account) -> Any:
    """Return the condition for the requests that an account may see, for a query of `pstampRequest` in this session.

    These are its own, those of whoever shares a group with it, and all for an operator.
    """
    if account.operator:
        return SQL("1 = 1")
    friends = (
        pstampAccount.select(pstampAccount.email)
        .join(pstampGroup, on=(pstampGroup.account_id == pstampAccount.account_id))
        .where(pstampGroup.name.in_(sorted(account.groups)))
    )
    # As a list: with a subquery MariaDB looks at all requests.
    return pstampRequest.username.in_({account.email, *(row.email for row in friends)})


def _checked_email(email: str) -> str:
    email = email.strip().lower()
    if not (_EMAIL.fullmatch(email) and len(email) <= MAX_EMAIL):
        raise UserError(f"e-mail address {email[:MAX_EMAIL]!r}: expected user@domain, at most {MAX_EMAIL} characters")
    return email


def _checked_password(password: str) -> str:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise UserError(f"the password has {len(password)} characters; expected {MIN_PASSWORD} to {MAX_PASSWORD}")
    return password


def _checked_groups(groups: Collection[str]) -> list[str]:
    names = sorted({name.strip().lower() for name in groups})
    for name in names:
        if not _GROUP.fullmatch(name):
            raise UserError(
                f"group {name[:64]!r}: expected at most 64 letters, digits and . _ -, the first a letter or digit"
            )
    return names


def _find(email: str) -> pstampAccount:
    row = pstampAccount.get_or_none(pstampAccount.email == _checked_email(email))
    if row is None:
        raise UserError(f"there is no account {email.strip().lower()}; see: pstamp user list")
    return row


def _account(row: pstampAccount) -> Account:
    mine = pstampGroup.select().where(pstampGroup.account_id == row.account_id)
    return Account(row.account_id, row.email, frozenset(each.name for each in mine), row.active)


def _set_groups(row: pstampAccount, names: Collection[str]) -> None:
    pstampGroup.delete().where(pstampGroup.account_id == row.account_id).execute()
    for name in names:
        pstampGroup.create(account_id=row.account_id, name=name)


def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)  # OWASP's password storage cheat sheet


def _bytes(password: str) -> bytes:
    # Keyboards differ in how they compose a letter with an accent.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _hash(password: str) -> str:
    with _hashing:
        return _hasher().hash(_bytes(password))


def _fits(hashed: str, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    with _hashing:
        try:
            return _hasher().verify(hashed, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False


@cache
def _nobodys() -> str:
    """Return a hash to compare with where there is no account, since that must take as long."""
    return _hash(secrets.token_urlsafe())


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a socket's path, or nothing
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _refuse_guesses(limits: dict[str, int], now: int) -> None:
    counted = pstampGuess.who.in_(list(limits)) & (pstampGuess.until > now)
    over = [row for row in pstampGuess.select().where(counted) if row.wrong >= limits[row.who]]
    if over:
        minutes = -(-(max(row.until for row in over) - now) // (60 * MICROSECONDS))
        raise Refused(f"too many wrong passwords; try again in {minutes} min")


def _count_wrong(subjects: list[str], now: int) -> None:
    pstampGuess.delete().where(pstampGuess.until <= now).execute()
    for who in subjects:
        pstampGuess.insert(who=who, wrong=0, until=now + GUESS_SECONDS * MICROSECONDS).on_conflict_ignore().execute()
        pstampGuess.update(wrong=pstampGuess.wrong + 1).where(pstampGuess.who == who).execute()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _make_key(server: Server, account: Account, name: str | None, seconds: float) -> str:
    now = server.store.now()
    _delete_expired(now)
    secret = secrets.token_urlsafe(32)
    pstampKey.create(
        account_id=account.account_id, name=name, digest=_digest(secret), made_at=now,
        expires_at=now + int(seconds * MICROSECONDS),
    )  # fmt: skip
    return secret


def _delete_expired(now: int) -> None:
    pstampKey.delete().where(pstampKey.expires_at <= now).execute()


def _tokens_of(account: Account) -> Any:
    return (pstampKey.account_id == account.account_id) & pstampKey.name.is_null(False)


def _by_key(server: Server, secret: str, *, is_token: bool) -> Account | None:
    with server.store.reading():
        key = pstampKey.get_or_none(
            (pstampKey.digest == _digest(secret))
            & pstampKey.name.is_null(not is_token)
            & (pstampKey.expires_at > server.store.now())
        )
        row = pstampAccount.get_or_none(pstampAccount.account_id == key.account) if key else None
        return _account(row) if row and row.active else None
