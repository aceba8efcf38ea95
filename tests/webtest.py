"""What the tests of the web service share: a server with accounts, and browsers of several people.

``server`` is that of `conftest`: the simulated survey as project gpc1. `ann` and `bob` have an account each, `olga` is
an operator; `nobody` has none. Import the fixtures that a module needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from pstamp_core.tasks import accounts
from pstamp_core.tasks.server import Server
from pstamp_web.app import make_app

PASSWORD = "correct horse 9"
PEOPLE = {"ann": (), "bob": (), "olga": (accounts.OPERATORS,)}

Browse = Callable[[str], TestClient]


def email(name: str) -> str:
    return f"{name}@example.org"


@pytest.fixture
def app(server: Server) -> FastAPI:
    for name, groups in PEOPLE.items():
        accounts.add_account(server, email(name), PASSWORD, groups)
    return make_app(server)


@pytest.fixture
def browse(app: FastAPI) -> Iterator[Browse]:
    """Open the browser of one of `PEOPLE`, logged in, or of nobody; follows no redirects."""
    open_ones = []

    def one(name: str) -> TestClient:
        client = TestClient(app, follow_redirects=False, raise_server_exceptions=False)
        open_ones.append(client)
        if name in PEOPLE:
            answer = client.post("/login", data={"email": email(name), "password": PASSWORD})
            assert answer.status_code == 303, answer.text
        return client

    yield one
    for client in open_ones:
        client.close()


def token_of(client: TestClient, path: str = "/account") -> str:
    """Return the token that the forms of somebody's pages carry."""
    found = re.search(r'name="form_token" value="([^"]*)"', client.get(path).text)
    assert found
    return found[1]
