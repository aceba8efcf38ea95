"""What holds for every page: logins, tokens, forms from other sites, bounded bodies, strict headers, errors."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from webtest import PASSWORD, Browse, app, browse, email, token_of

from pstamp_core.faults import Bug, RetryableError
from pstamp_core.store import pstampKey
from pstamp_core.tasks import accounts
from pstamp_core.tasks.server import Server
from pstamp_web import app as web
from pstamp_web.app import WebService
from pstamp_web.guard import Guard
from pstamp_web.who import COOKIE

__all__ = ["app", "browse"]


# -- logging in and out


def test_who_has_no_login_is_led_to_it_and_back(browse: Browse) -> None:
    nobody = browse("nobody")
    answer = nobody.get("/account")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/account")
    assert 'name="next" value="/account"' in nobody.get("/login?next=/account").text
    answer = nobody.post("/login", data={"email": email("ann"), "password": PASSWORD, "next": "/account"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    assert "<h1>ann@example.org</h1>" in nobody.get("/account").text


@pytest.mark.parametrize(
    "way",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\/evil", "javascript:alert(1)", "/\t/evil", ""],
)
def test_the_way_back_is_never_another_site(browse: Browse, way: str) -> None:
    answer = browse("nobody").post("/login", data={"email": email("ann"), "password": PASSWORD, "next": way})
    assert answer.headers["location"] == "/"


def test_the_cookie_is_for_the_browser_alone_and_secure_where_the_page_is(app: FastAPI) -> None:
    form = {"email": email("ann"), "password": PASSWORD}
    for base, secure in (("http://testserver", False), ("https://testserver", True)):
        cookie = TestClient(app, base_url=base, follow_redirects=False).post("/login", data=form).headers["set-cookie"]
        parts = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"httponly", "samesite=lax", "path=/", "max-age=43200"} <= parts
        assert ("secure" in parts) is secure


def test_a_login_has_a_new_secret_whatever_was_planted(browse: Browse, app: FastAPI) -> None:
    victim = browse("nobody")
    victim.cookies.set(COOKIE, "planted")
    form = {"email": email("ann"), "password": PASSWORD, "form_token": token_of(victim, "/login")}
    assert victim.post("/login", data=form).status_code == 303
    thief = browse("nobody")
    thief.cookies.set(COOKIE, "planted")
    assert thief.get("/account").status_code == 303


def test_a_wrong_password_is_told_without_saying_which_is_wrong(browse: Browse) -> None:
    nobody, answers = browse("nobody"), set()
    for who, password in (("ann", "wrong password"), ("zoe", PASSWORD)):
        answer = nobody.post("/login", data={"email": email(who), "password": password})
        assert answer.status_code == 403
        assert COOKIE not in answer.headers.get("set-cookie", "")
        answers.add(answer.text.replace(email(who), ""))
    assert len(answers) == 1


def test_guessing_is_stopped(browse: Browse) -> None:
    nobody = browse("nobody")
    for _ in range(accounts.WRONG_FOR_EMAIL):
        nobody.post("/login", data={"email": email("ann"), "password": "wrong password"})
    answer = nobody.post("/login", data={"email": email("ann"), "password": PASSWORD})
    assert answer.status_code == 403
    assert nobody.post("/login", data={"email": email("bob"), "password": PASSWORD}).status_code == 303


def test_logging_out_ends_the_login_in_the_database_too(browse: Browse) -> None:
    ann = browse("ann")
    secret = ann.cookies[COOKIE]
    assert ann.post("/logout", data={"form_token": token_of(ann)}).status_code == 303
    later = browse("nobody")
    later.cookies.set(COOKIE, secret)
    assert later.get("/account").status_code == 303


def test_a_changed_password_ends_all_logins(browse: Browse) -> None:
    here, there = browse("ann"), browse("ann")
    form = {"form_token": token_of(here), "password": PASSWORD, "new": "another horse 8", "again": "another horse 7"}
    answer = here.post("/account/password", data=form)
    assert (answer.status_code, "the new password and its repetition differ" in answer.text) == (400, True)
    form["again"] = "another horse 8"
    assert here.post("/account/password", data={**form, "password": "wrong password"}).status_code == 400
    assert here.post("/account/password", data=form).headers["location"] == "/login"
    assert there.get("/account").status_code == 303
    form = {"email": email("ann"), "password": "another horse 8", "form_token": token_of(there, "/login")}
    assert there.post("/login", data=form).status_code == 303


def test_a_token_is_shown_once_and_can_be_ended(browse: Browse, server: Server) -> None:
    ann, bob = browse("ann"), browse("bob")
    answer = ann.post("/account/token", data={"form_token": token_of(ann), "name": "<b>night</b>"})
    secret = answer.text.split('<code class="token">')[1].split("<")[0]
    account = accounts.by_token(server, secret)
    assert account is not None
    assert account.email == email("ann")
    again = ann.get("/account").text
    assert secret not in again
    assert "&lt;b&gt;night&lt;/b&gt;" in again
    [token] = accounts.tokens(server, account)
    number = {"token_id": str(token.token_id)}
    bob.post("/account/token/drop", data={"form_token": token_of(bob), **number})
    assert accounts.by_token(server, secret) is not None
    ann.post("/account/token/drop", data={"form_token": token_of(ann), **number})
    assert accounts.by_token(server, secret) is None
    assert ann.post("/account/token/drop", data={"form_token": token_of(ann), "token_id": "x"}).status_code == 400


def test_secrets_are_in_the_database_as_hashes_alone(browse: Browse, server: Server) -> None:
    ann = browse("ann")
    with server.store.reading():
        stored = repr(list(pstampKey.select().tuples()))
    assert stored != "[]"
    assert ann.cookies[COOKIE] not in stored


# -- what other sites have a browser send


@pytest.mark.parametrize("token", [None, "", "0" * 64])
def test_a_form_without_its_token_is_refused(browse: Browse, server: Server, token: str | None) -> None:
    ann = browse("ann")
    form = {"name": "night"} | ({"form_token": token} if token is not None else {})
    answer = ann.post("/account/token", data=form)
    assert answer.status_code == 403
    assert "came from another site" in answer.text
    assert not accounts.tokens(server, next(each for each in accounts.accounts(server) if each.email == email("ann")))


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Origin", "https://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "http://testserver:81", 403),
        ("Origin", "http://testserver", 200),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Sec-Fetch-Site", "same-origin", 200),
    ],
)
def test_what_a_page_of_another_site_sends_is_refused(browse: Browse, header: str, value: str, status: int) -> None:
    ann = browse("ann")
    form = {"form_token": token_of(ann), "name": "night"}
    assert ann.post("/account/token", data=form, headers={header: value}).status_code == status
    assert ann.get("/account", headers={header: value}).status_code == 200


# -- bodies and headers


def test_a_body_that_says_it_is_too_large_is_not_read(browse: Browse) -> None:
    answer = browse("ann").post("/login", content=b"x", headers={"Content-Length": "999999999"})
    assert answer.status_code == 413
    assert answer.text == "Error: larger than 50100000 bytes, which is the most that this server takes at a time"


@pytest.fixture
def small(app: FastAPI) -> Iterator[TestClient]:
    """A browser of the service with a bound of 1,000 bytes and 0.3 s."""
    for each in app.user_middleware:
        if each.cls is Guard:
            each.kwargs.update(max_bytes=1000, seconds=0.3)
    with TestClient(app, follow_redirects=False, raise_server_exceptions=False) as client:
        yield client


def test_a_body_is_refused_as_soon_as_it_is_too_large(small: TestClient) -> None:
    sent = 0

    def blocks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 100
            yield b"email=" + b"x" * 94

    answer = small.post("/login", content=blocks(), headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 413
    assert "larger than 1000 bytes" in answer.text


def test_many_fields_and_large_ones_are_refused(browse: Browse) -> None:
    nobody = browse("nobody")
    assert nobody.post("/login", data={f"f{n}": "x" for n in range(300)}).status_code == 400
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="email"\r\n\r\n' + b"y" * 1_000_001 + b"\r\n--x--\r\n"
    assert nobody.post("/login", content=part, headers=boundary).status_code == 400


@pytest.mark.parametrize("path", ["/login", "/account", "/static/pstamp.css", "/nowhere", "/api/nowhere"])
def test_every_answer_has_the_strict_headers(browse: Browse, path: str) -> None:
    headers = browse("ann").get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


def test_no_page_has_scripts_or_styles_in_it() -> None:
    templates = Path(web.__file__).parent / "templates"
    for template in templates.glob("*.html"):
        text = template.read_text("utf-8")
        assert "style=" not in text, template.name
        assert "<style" not in text, template.name
        assert "|safe" not in text.replace(" ", ""), template.name
        assert " on" not in [text[at - 3 : at] for at in range(3, len(text)) if text[at : at + 6] == "click="], (
            template.name
        )
        assert all("src=" in tag.split(">")[0] for tag in text.split("<script")[1:]), template.name


def test_errors_are_told_in_the_form_that_is_asked_for(
    browse: Browse, app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/api/broken")
    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError("secret detail")

    @app.get("/away")
    def away() -> None:
        raise RetryableError("database pstamp on secret.host: gone")

    @app.get("/bug")
    def bug() -> None:
        raise Bug("secret detail")

    ann = browse("ann")
    assert (ann.get("/nowhere").status_code, ann.get("/api/nowhere").json()) == (404, {"error": "Not Found"})
    assert "<h1>That did not work</h1>" in ann.get("/nowhere").text
    assert ann.get("/api/broken").json()["error"].startswith("something went wrong here")
    for path in ("/broken", "/api/broken", "/bug"):
        assert ann.get(path).status_code == 500
        assert "secret detail" not in ann.get(path).text
    answer = ann.get("/away")
    assert (answer.status_code, "secret" in answer.text) == (503, False)
    assert "try again in a minute (the operators find why in the log)" in answer.text
    assert "database pstamp on secret.host: gone" in caplog.text


# -- as a server


@pytest.fixture
def service(server: Server) -> Iterator[WebService]:
    """The service on a real socket, whose bodies must come within 0.5 s."""
    one = WebService(server, "127.0.0.1", 0)
    one.start()
    yield one
    one.stop()


def _ask(port: int, text: bytes) -> bytes:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection:
        connection.sendall(text)
        answer = b""
        while block := connection.recv(65536):
            answer += block
        return answer


def test_it_answers_on_a_real_socket(service: WebService) -> None:
    assert service.address == f"http://127.0.0.1:{service.port}/"
    answer = _ask(service.port, b"GET /login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nserver:" not in answer.lower()


def test_slow_senders_hold_up_nobody(service: WebService) -> None:
    """Two hundred that never end their headers or bodies, more than there are threads; then one who asks."""
    slow = []
    for number in range(200):
        connection = socket.create_connection(("127.0.0.1", service.port), timeout=20)
        ending = (
            b"" if number % 2 else b"Content-Length: 1000\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\nem"
        )
        connection.sendall(b"POST /login HTTP/1.1\r\nHost: x\r\n" + ending)
        slow.append(connection)
    answer = _ask(service.port, b"GET /login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    for connection in slow:
        connection.close()


def test_a_body_that_does_not_end_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "BODY_SECONDS", 0.3)
    service = WebService(server, "127.0.0.1", 0)
    service.start()
    form = b"Content-Type: application/x-www-form-urlencoded\r\n\r\nem"
    answer = _ask(service.port, b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n" + form)
    service.stop()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"not all of it came within 0.3 s" in answer


def test_a_port_in_use_is_told(service: WebService, server: Server) -> None:
    with pytest.raises(RetryableError) as refusal:
        WebService(server, "127.0.0.1", service.port)
    assert str(refusal.value) == (
        f"can't listen on 127.0.0.1 port {service.port}: Address already in use; choose with --host and --port"
    )
    assert refusal.value.fault == 3


def test_stopping_ends_the_thread(server: Server) -> None:
    before = threading.active_count()
    service = WebService(server, "127.0.0.1", 0)
    service.start()
    _ask(service.port, b"GET /static/icon.svg HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    service.stop()
    assert not service._thread.is_alive()
    assert threading.active_count() <= before + 40  # those of the pool, which wait for the next service
