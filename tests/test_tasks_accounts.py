"""Accounts: passwords, guesses, logins, tokens, groups; on both engines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import argon2
import pytest
from conftest import Clock, Rows

from pstamp_core.faults import Fault, UserError
from pstamp_core.settings import Settings
from pstamp_core.store import Store, pstampAccount, pstampGuess, pstampKey, pstampRequest
from pstamp_core.tasks import accounts
from pstamp_core.tasks.accounts import (
    Account,
    Refused,
    account_of,
    add_account,
    add_token,
    by_login,
    by_token,
    change_account,
    change_groups,
    check_password,
    drop_token,
    log_in,
    log_out,
    tokens,
    visible,
)
from pstamp_core.tasks.server import Server

PASSWORD = "correct horse battery"
HERE = "192.0.2.1"
DOES_NOT_FIT = "e-mail address and password do not belong to an account here"


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    return Server(Settings(tmp_path, login_hours=2.0), store)


@pytest.fixture
def ana(server: Server) -> Account:
    return add_account(server, "ana@obs.edu", PASSWORD, ["team"])


def refusal(act: Callable[..., object], *args: Any, **values: Any) -> str:
    with pytest.raises(UserError) as caught:
        act(*args, **values)
    return str(caught.value)


def guess(server: Server, email: str = "ana@obs.edu", password: str = "wrong", address: str = HERE) -> str:  # noqa: S107
    """Give a password; return what is said against it."""
    with pytest.raises(Refused) as caught:
        check_password(server, email, password, address)
    assert caught.value.fault == Fault.PSTAMP_NOT_AUTHORIZED
    return str(caught.value)


# -- accounts


def test_an_account_is_made_once_in_lower_case(server: Server) -> None:
    ana = add_account(server, " Ana.O'Hara+ps@Obs.EDU ", PASSWORD, ["Team", "team", "operators"])
    assert ana == Account(ana.account_id, "ana.o'hara+ps@obs.edu", frozenset({"team", "operators"}), True)
    assert ana.operator
    assert account_of(server, "ANA.o'hara+ps@obs.edu") == ana
    assert refusal(add_account, server, "ANA.o'hara+ps@obs.edu", PASSWORD) == (
        "account ana.o'hara+ps@obs.edu: there is one already"
    )
    bob = add_account(server, "bob@obs.edu", PASSWORD)
    assert not bob.operator
    assert accounts.accounts(server) == [ana, bob]


@pytest.mark.parametrize(
    ("email", "password", "groups", "said"),
    [
        ("ana", PASSWORD, (), "e-mail address 'ana': expected user@domain, at most 68 characters"),
        ("a@b@c", PASSWORD, (), "e-mail address 'a@b@c': expected user@domain, at most 68 characters"),
        ("a b@c", PASSWORD, (), "e-mail address 'a b@c': expected user@domain, at most 68 characters"),
        ("a@b\nc", PASSWORD, (), "e-mail address 'a@b\\nc': expected user@domain, at most 68 characters"),
        ("\u00e4@b.de", PASSWORD, (), "e-mail address '\u00e4@b.de': expected user@domain, at most 68 characters"),
        (f"{'a' * 63}@b.edu", PASSWORD, (),
         f"e-mail address '{'a' * 63}@b.ed': expected user@domain, at most 68 characters"),
        ("a@b.edu", "9 letters", (), "the password has 9 characters; expected 10 to 200"),
        ("a@b.edu", "x" * 201, (), "the password has 201 characters; expected 10 to 200"),
        ("a@b.edu", PASSWORD, ["ok", "a b"], "group 'a b': expected at most 64 letters, digits and . _ -, "
         "the first a letter or digit"),
        ("a@b.edu", PASSWORD, [""], "group '': expected at most 64 letters, digits and . _ -, "
         "the first a letter or digit"),
    ],
)  # fmt: skip
def test_what_makes_no_account(server: Server, email: str, password: str, groups: list[str], said: str) -> None:
    assert refusal(add_account, server, email, password, groups) == said
    assert accounts.accounts(server) == []


def test_an_account_that_there_is_not_is_told(server: Server) -> None:
    said = "there is no account bob@obs.edu; see: pstamp user list"
    for act in (account_of, change_account, change_groups):
        assert refusal(act, server, "Bob@obs.edu") == said


def test_groups_are_changed(server: Server, ana: Account) -> None:
    changed = change_groups(server, "Ana@obs.edu", ["Operators", "survey", "team"], ["team"])
    assert changed.groups == {"operators", "survey"}
    assert account_of(server, ana.email) == changed
    assert refusal(change_groups, server, ana.email, ["x"], ["survey", "team"]) == (
        "account ana@obs.edu is not in group team"
    )
    assert account_of(server, ana.email) == changed


# -- passwords


def test_a_password_is_kept_as_an_argon2_hash_alone(server: Server, ana: Account) -> None:
    add_account(server, "bob@obs.edu", PASSWORD)
    one, other = (row.password for row in pstampAccount.select())
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert one != other
    assert argon2.PasswordHasher().verify(one, PASSWORD)


def test_what_does_not_fit_is_refused_in_one_sentence(server: Server, ana: Account) -> None:
    assert check_password(server, " ANA@obs.edu", PASSWORD, HERE) == ana
    add_account(server, "gone@obs.edu", PASSWORD)
    change_account(server, "gone@obs.edu", active=False)
    found = {
        guess(server), guess(server, password=""), guess(server, password=PASSWORD + "x"),
        guess(server, password="x" * 10**6), guess(server, password="\ud800"), guess(server, "bob@obs.edu", PASSWORD),
        guess(server, "", PASSWORD), guess(server, "\ud800' OR 1 = 1 --" * 100, PASSWORD),
        guess(server, "gone@obs.edu", PASSWORD),
    }  # fmt: skip
    assert found == {DOES_NOT_FIT}
    assert check_password(server, "ana@obs.edu", PASSWORD, HERE) == ana


def test_a_password_fits_however_its_accents_are_composed(server: Server) -> None:
    bob = add_account(server, "bob@obs.edu", "caf\u00e9 au lait")
    assert check_password(server, "bob@obs.edu", "cafe\u0301 au lait", HERE) == bob


def test_a_guess_costs_a_hash_whoever_it_is_for(server: Server, ana: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    verify, hashed = argon2.PasswordHasher.verify, []

    def counted(self: argon2.PasswordHasher, hash: str, password: bytes) -> Any:  # noqa: A002
        hashed.append((hash.rsplit("$", 2)[0], len(password)))
        return verify(self, hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    for email in ("ana@obs.edu", "bob@obs.edu", "no address"):
        guess(server, email)
    assert hashed == [("$argon2id$v=19$m=19456,t=2,p=1", 5)] * 3


def test_guesses_for_an_address_end_in_a_refusal_of_the_right_password(
    server: Server, ana: Account, clock: Clock
) -> None:
    add_account(server, "bob@obs.edu", PASSWORD)
    for number in range(accounts.WRONG_FOR_EMAIL):
        assert guess(server, "Ana@obs.edu", address=f"192.0.2.{number}") == DOES_NOT_FIT
    said = "too many wrong passwords; try again in 15 min"
    assert guess(server, password=PASSWORD) == said
    assert guess(server, password=PASSWORD, address="198.51.100.1") == said
    assert check_password(server, "bob@obs.edu", PASSWORD, HERE).email == "bob@obs.edu"
    clock.forward(accounts.GUESS_SECONDS - 30)
    assert guess(server, password=PASSWORD) == "too many wrong passwords; try again in 1 min"
    clock.forward(30)
    assert check_password(server, "ana@obs.edu", PASSWORD, HERE) == ana
    guess(server, "bob@obs.edu")
    assert {row.who: row.wrong for row in pstampGuess.select()} == {"email bob@obs.edu": 1, "address 192.0.2.1": 1}


def test_nobodys_address_is_counted_like_any(server: Server) -> None:
    assert [guess(server, "bob@obs.edu", address=str(n)) for n in range(11)] == [
        *[DOES_NOT_FIT] * 10, "too many wrong passwords; try again in 15 min",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "same", "another"),
    [
        (HERE, HERE, "192.0.2.2"),
        ("2001:db8::1", "2001:db8:0:0:ffff:1:2:3", "2001:db8:0:1::1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"),
        ("fe80::1%eth0", "fe80::2%eth1", "fe81::1"),
        ("", "", "unix:/run/x"),
    ],
)
def test_guesses_from_an_address_end_in_a_refusal(
    server: Server, ana: Account, monkeypatch: pytest.MonkeyPatch, first: str, same: str, another: str
) -> None:
    monkeypatch.setattr(accounts, "WRONG_FROM_ADDRESS", 2)
    for number in range(2):
        assert guess(server, f"{number}@obs.edu", address=first) == DOES_NOT_FIT
    assert guess(server, password=PASSWORD, address=same) == "too many wrong passwords; try again in 15 min"
    assert check_password(server, "ana@obs.edu", PASSWORD, another) == ana


def test_who_guesses_many_at_the_same_time_gains_nothing(
    server: Server, ana: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right one among those that were let in together comes too late when the others were counted first."""
    fits = accounts._fits

    def slow(hashed: str, password: str) -> bool:
        monkeypatch.setattr(accounts, "_fits", fits)
        for _ in range(accounts.WRONG_FOR_EMAIL):
            guess(server)
        return fits(hashed, password)

    monkeypatch.setattr(accounts, "_fits", slow)
    assert guess(server, password=PASSWORD) == "too many wrong passwords; try again in 15 min"


# -- logins


def test_a_login_is_a_new_secret_of_which_the_hash_is_kept(server: Server, ana: Account) -> None:
    (who, one), (_, other) = (log_in(server, "Ana@obs.edu", PASSWORD, HERE) for _ in range(2))
    assert who == ana
    assert one != other
    assert len(one) >= 43  # 256 bits
    assert [row.digest for row in pstampKey.select().order_by(pstampKey.key_id)] == [
        hashlib.sha256(each.encode()).hexdigest() for each in (one, other)
    ]
    assert one not in str(list(pstampKey.select().dicts()))
    assert by_login(server, one) == by_login(server, other) == ana
    log_out(server, one)
    log_out(server, "never there")
    assert (by_login(server, one), by_login(server, other)) == (None, ana)
    with pytest.raises(Refused):
        log_in(server, "ana@obs.edu", "wrong", HERE)


@pytest.mark.parametrize("secret", ["", "x", "x" * 10**6, "\ud800", "' OR 1 = 1 --"])
def test_what_is_no_secret_is_nobodys(server: Server, ana: Account, secret: str) -> None:
    log_in(server, ana.email, PASSWORD, HERE)
    add_token(server, ana, "t")
    assert by_login(server, secret) is None
    assert by_token(server, secret) is None
    log_out(server, secret)
    assert pstampKey.select().count() == 2


def test_a_login_ends_when_its_time_is_over(server: Server, ana: Account, clock: Clock) -> None:
    _, secret = log_in(server, ana.email, PASSWORD, HERE)
    clock.forward(7199)
    assert by_login(server, secret) == ana
    clock.forward(1)
    assert by_login(server, secret) is None
    log_in(server, ana.email, PASSWORD, HERE)
    assert pstampKey.select().count() == 1


def test_a_login_knows_what_has_become_of_its_account(server: Server, ana: Account) -> None:
    _, secret = log_in(server, ana.email, PASSWORD, HERE)
    change_groups(server, ana.email, ["operators"])
    found = by_login(server, secret)
    assert found
    assert found.operator


@pytest.mark.parametrize("change", [{"password": "another password"}, {"active": False}])
def test_a_new_password_and_disabling_end_all_that_stands_for_the_account(
    server: Server, ana: Account, change: dict[str, Any]
) -> None:
    bob = add_account(server, "bob@obs.edu", PASSWORD)
    secrets = [(log_in(server, who.email, PASSWORD, HERE)[1], add_token(server, who, "t")) for who in (ana, bob)]
    changed = change_account(server, "Ana@obs.edu", **change)
    assert changed == Account(ana.account_id, ana.email, ana.groups, change.get("active", True))
    found = [(by_login(server, login), by_token(server, token)) for login, token in secrets]
    assert found == [(None, None), (bob, bob)]
    assert guess(server, password=PASSWORD) == DOES_NOT_FIT
    change_account(server, ana.email, active=True)
    assert by_login(server, secrets[0][0]) is None
    assert check_password(server, ana.email, change.get("password", PASSWORD), HERE) == ana


@pytest.mark.parametrize("change", [{"password": "another password"}, {"active": False}])
def test_who_logs_in_while_the_account_is_changed_is_not_let_in(
    server: Server, ana: Account, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    fits = accounts._fits

    def slow(hashed: str, password: str) -> bool:
        change_account(server, ana.email, **change)
        return fits(hashed, password)

    monkeypatch.setattr(accounts, "_fits", slow)
    assert refusal(log_in, server, ana.email, PASSWORD, HERE) == DOES_NOT_FIT
    assert pstampKey.select().count() == 0


def test_a_disabled_account_has_no_login_and_no_token(server: Server, ana: Account) -> None:
    """Not even one that was made in the moment when it was disabled."""
    (_, login), token = log_in(server, ana.email, PASSWORD, HERE), add_token(server, ana, "t")
    pstampAccount.update(active=False).execute()
    assert (by_login(server, login), by_token(server, token)) == (None, None)


def test_a_change_that_can_not_be_ends_nothing(server: Server, ana: Account) -> None:
    _, secret = log_in(server, ana.email, PASSWORD, HERE)
    assert refusal(change_account, server, ana.email, password="short") == (
        "the password has 5 characters; expected 10 to 200"
    )
    assert by_login(server, secret) == ana


# -- tokens


def test_a_token_stands_for_its_account_until_it_is_dropped(server: Server, ana: Account, clock: Clock) -> None:
    bob = add_account(server, "bob@obs.edu", PASSWORD)
    laptop, brief = add_token(server, ana, " laptop "), add_token(server, ana, "a day", days=1)
    assert [(each.name, (each.expires - each.made).days) for each in tokens(server, ana)] == [
        ("laptop", 365), ("a day", 1),
    ]  # fmt: skip
    assert tokens(server, bob) == []
    assert by_token(server, laptop) == by_token(server, brief) == ana
    assert by_login(server, laptop) is None
    _, login = log_in(server, ana.email, PASSWORD, HERE)
    assert by_token(server, login) is None
    log_out(server, laptop)
    assert by_token(server, laptop) == ana
    clock.forward(86400)
    assert by_token(server, brief) is None
    (first,) = tokens(server, ana)
    assert refusal(drop_token, server, bob, first.token_id) == f"account bob@obs.edu has no token {first.token_id}"
    drop_token(server, ana, first.token_id)
    assert by_token(server, laptop) is None


def test_a_login_is_no_token_to_be_dropped(server: Server, ana: Account) -> None:
    _, secret = log_in(server, ana.email, PASSWORD, HERE)
    (row,) = pstampKey.select()
    assert refusal(drop_token, server, ana, row.key_id) == f"account ana@obs.edu has no token {row.key_id}"
    assert by_login(server, secret) == ana


def test_what_makes_no_token(server: Server, ana: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name: refusal(add_token, server, ana, name) for name in ("", " ", "x" * 65, "a\nb")}
    assert names[" "] == "token '': expected a name of 1 to 64 printable characters"
    assert names["a\nb"] == "token 'a\\nb': expected a name of 1 to 64 printable characters"
    days = {number: refusal(add_token, server, ana, "t", number) for number in (0, -1, 3651, float("nan"))}
    assert days[0] == "token 't': 0 days; expected more than 0 and at most 3650"
    monkeypatch.setattr(accounts, "MAX_TOKENS", 2)
    log_in(server, ana.email, PASSWORD, HERE)
    add_token(server, ana, "a")
    add_token(server, ana, "b", days=3650)
    assert refusal(add_token, server, ana, "c") == (
        "account ana@obs.edu has 2 tokens, which is all it can; drop one first"
    )
    disabled = change_account(server, ana.email, active=False)
    assert refusal(add_token, server, disabled, "d") == (
        "account ana@obs.edu is disabled, and so would be its token; see: pstamp user enable"
    )


# -- who sees what


def test_requests_are_seen_by_their_owner_the_groups_and_operators(server: Server, rows: Rows) -> None:
    people = {
        name: add_account(server, f"{name}@obs.edu", PASSWORD, groups)
        for name, groups in {
            "ana": ["team", "survey"], "bob": ["survey", "other"], "eve": [], "ivo": ["third"], "joe": ["operators"],
            "kim": ["operators", "team"],
        }.items()
    }  # fmt: skip
    owners = ["ana", "bob", "eve", "ivo", "kim", "nobody"]
    requests = {name: rows.request(username=f"{name}@obs.edu") for name in owners} | {"": rows.request(username=None)}

    def seen(who: Account) -> set[str]:
        found = {row.req_id for row in pstampRequest.select().where(visible(who))}
        return {name for name, request in requests.items() if request.req_id in found}

    assert {name: seen(who) for name, who in people.items()} == {
        "ana": {"ana", "bob", "kim"}, "bob": {"ana", "bob"}, "eve": {"eve"}, "ivo": {"ivo"}, "joe": {*requests},
        "kim": {*requests},
    }  # fmt: skip


def test_a_page_of_visible_requests_is_one_query(server: Server, ana: Account, rows: Rows) -> None:
    for number in range(3):
        rows.request(username="ana@obs.edu", label=f"l{number}")
    found = pstampRequest.select().where(visible(ana) & (pstampRequest.label > "l0"))
    assert [row.label for row in found.order_by(pstampRequest.req_id.desc()).limit(2)] == ["l2", "l1"]


@pytest.mark.parametrize("act", [accounts._hash, partial(accounts._fits, "$argon2id$")])
def test_no_more_are_hashed_at_once_than_memory_is_meant_for(act: Callable[[str], object]) -> None:
    for _ in range(accounts.HASHES_AT_ONCE):
        assert accounts._hashing.acquire(blocking=False)
    one_more = Thread(target=act, args=(PASSWORD,), daemon=True)
    try:
        one_more.start()
        one_more.join(0.2)
        assert one_more.is_alive()
    finally:
        accounts._hashing.release(accounts.HASHES_AT_ONCE)
    one_more.join()
