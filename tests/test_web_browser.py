"""The story of a newcomer, in a real browser: an account, three positions, the count, accepted, watched, the stamps."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import servers
from browsing import chromium, served
from playwright.sync_api import Browser, Page, expect
from serving import environment

from simtest.survey import Survey

PASSWORD = "a horse of course"
WAYS = ["/login", "/requests", "/form", "/upload", "/finder", "/status", "/account", "/ds/"]
NAMELESS = """
    [...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
        .filter((field) => !field.labels.length && !field.ariaLabel).map((field) => field.name)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, survey: Survey) -> Iterator[str]:
    """The address of a server that somebody has just made, with an account for ann."""
    home = tmp_path_factory.mktemp("place") / "home"
    servers.make(home, survey).store.db.close()
    with served(home) as (address, log):
        assert "nobody has an account yet; make one with: pstamp user add YOU@EXAMPLE.ORG\n" in log.read_text()
        made = subprocess.run(
            ["pstamp", "user", "add", "ann@example.org", "--home", str(home)],
            input=f"{PASSWORD}\n", text=True, env=environment(home.parent), capture_output=True,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        yield address


def watch(page: Page) -> list[str]:
    """Collect what the browser complains of: scripts and styles that the policy forbids, errors, missing files."""
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def log_in(page: Page, place: str) -> None:
    page.goto(place)
    page.get_by_label("E-mail address").fill("ann@example.org")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("link", name="ann@example.org")).to_be_visible()


def test_a_newcomer_gets_stamps(browser: Browser, place: str, survey: Survey, tmp_path: Path) -> None:
    page = browser.new_page()
    complaints = watch(page)
    log_in(page, place)
    page.get_by_role("link", name="New request").first.click()
    ra, dec = survey.centre
    positions = "\n".join(f"{ra + step:.5f} {dec:.5f} | target {number}" for number, step in enumerate((0, 1e-4, 2e-4)))
    page.locator("[name=positions]").fill(positions)
    page.locator("[name=width]").fill("20")
    page.locator("[name=height]").fill("20")
    page.locator("[name=reqfilt]").fill("r")
    page.get_by_role("button", name="Count images").click()
    # The middle of the field lies on four skycells that overlap.
    expect(page.get_by_text("12 images in 3 of 3 rows.")).to_be_visible()
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Cut 12 stamps").click(timeout=30_000)  # the page finds out by itself
    expect(page.locator(".stamps img")).to_have_count(12, timeout=60_000)
    for picture in page.locator(".stamps img").all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("(image) => image.naturalWidth") > 0
    expect(page.get_by_text("finished", exact=True)).to_be_visible()
    assert complaints == []

    # The files are those that the data store registered, byte for byte.
    way = page.get_by_role("link", name="Files one by one").get_attribute("href")
    index = httpx2.get(f"{place}{way}index.txt").text.splitlines()
    rows = [[field.strip() for field in line.split("|")] for line in index if not line.startswith("#")]
    assert rows[0][0] == "results.fits"
    assert [kind for _, _, _, kind, *_ in rows].count("pstamp") == 12
    for name, size, md5, *_ in rows:
        content = httpx2.get(f"{place}{way}{name}").content
        assert (str(len(content)), hashlib.md5(content, usedforsecurity=False).hexdigest()) == (size, md5)

    with page.expect_download() as waited:
        page.get_by_role("link", name="All files (tar)").click()
    waited.value.save_as(tmp_path / "all.tar")
    listed = subprocess.run(["tar", "-tf", tmp_path / "all.tar"], capture_output=True, text=True, check=True).stdout
    assert sorted(name.split("/")[1] for name in listed.splitlines()) == sorted(name for name, *_ in rows)
    page.close()


def test_it_works_without_scripts(browser: Browser, place: str, survey: Survey) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    log_in(page, place)
    page.goto(f"{place}/form")
    page.locator("[name=positions]").fill(f"{survey.centre[0]} {survey.centre[1]}")
    page.locator("[name=width]").fill("20")
    page.locator("[name=height]").fill("20")
    page.get_by_role("button", name="Send at once").click()
    for _ in range(60):
        if page.locator(".stamps img").count():
            break
        page.wait_for_timeout(1000)
        page.reload()
    expect(page.locator(".stamps img").first).to_be_visible()
    page.get_by_label("Stretch of the pictures").select_option("log")
    page.get_by_role("button", name="Show").click()
    assert "stretch=log" in str(page.locator(".stamps img").first.get_attribute("src"))
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_is_wider_than_the_screen_or_breaks_the_policy(
    browser: Browser, place: str, scheme: str, width: int
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})  # type: ignore[arg-type]
    page = context.new_page()
    complaints = watch(page)
    log_in(page, place)
    for way in WAYS:
        answer = page.goto(f"{place}{way}")
        assert answer
        assert answer.ok, way
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), way
        assert page.locator("h1").count() == 1, way
        assert page.evaluate(NAMELESS) == [], way
    back = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(back) == {"light": "rgb(251, 251, 253)", "dark": "rgb(16, 21, 29)"}[scheme]
    assert complaints == []
    context.close()
