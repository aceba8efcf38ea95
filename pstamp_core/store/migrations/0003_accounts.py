"""Schema 3: accounts of people, with their groups, logins, tokens and wrong guesses, and who sent which request."""

# ruff: noqa: D101 (`tables.py` says what the tables are)

from __future__ import annotations

from typing import Any

from peewee import BigAutoField, BigIntegerField, BooleanField, CompositeKey, ForeignKeyField, IntegerField, Model

from pstamp_core.database import NameField, Table, create_tables
from pstamp_core.store.migrations import sql


class pstampAccount(Table):
    account_id = BigAutoField()
    email = NameField(255, unique=True)
    password = NameField(255)
    active = BooleanField()


class pstampGroup(Table):
    account_id = ForeignKeyField(
        pstampAccount, column_name="account_id", object_id_name="account", on_delete="CASCADE", index=False
    )
    name = NameField(index=True)

    class Meta:
        primary_key = CompositeKey("account_id", "name")


class pstampKey(Table):
    key_id = BigAutoField()
    account_id = ForeignKeyField(pstampAccount, column_name="account_id", object_id_name="account", on_delete="CASCADE")
    name = NameField(null=True)
    digest = NameField(unique=True)
    made_at = BigIntegerField()
    expires_at = BigIntegerField(index=True)


class pstampGuess(Table):
    who = NameField(255, primary_key=True)
    wrong = IntegerField()
    until = BigIntegerField(index=True)


class pstampSender(Table):
    req_id = BigIntegerField(primary_key=True)
    account_id = ForeignKeyField(pstampAccount, column_name="account_id", object_id_name="account", on_delete="CASCADE")
    num_rows = IntegerField()


TABLES: tuple[type[Model], ...] = (pstampAccount, pstampGroup, pstampKey, pstampGuess, pstampSender)


def up(migrator: Any, db: Any) -> None:
    """Make version 3 of version 2."""
    del migrator
    with db.bind_ctx(TABLES, bind_refs=False, bind_backrefs=False):
        create_tables(db, TABLES)


def down(migrator: Any, db: Any) -> None:
    """Make version 2 of version 3: its tables go when that is marked."""
    (number,) = sql.run(db, "SELECT COUNT(*) FROM pstampAccount").fetchone()
    if number:
        migrator.report.say(f"pstampAccount: all accounts are gone ({number}), and what hangs on them")
