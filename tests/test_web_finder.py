"""The finder: which skycells, exposures and chips hold a position, for whom, and what a page shows of it."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import markupsafe
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from webtest import Browse, app, browse

from pstamp_core.faults import UserError
from pstamp_core.imagedb import select
from pstamp_core.store import pstampAccessLevel, pstampProject, pstampUser
from pstamp_core.tasks import accounts, finder
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.finder import find_images
from pstamp_core.tasks.server import Server, add_project
from simtest.survey import Survey

__all__ = ["app", "browse"]


@pytest.fixture
def ann(server: Server) -> Account:
    return accounts.add_account(server, "ann@example.org", "correct horse 9")


def at(place: tuple[float, float]) -> str:
    return f"{place[0]!r} {place[1]!r}"


def wcs_of(path: Path) -> WCS:
    with fits.open(path) as hdus:
        header = next(hdu.header for hdu in hdus if hdu.header["NAXIS"] == 2 or "ZNAXIS" in hdu.header)
        return WCS(header)


def test_a_position_on_every_stage_with_its_pixels(server: Server, survey: Survey, ann: Account) -> None:
    (found,) = find_images(server, ann, f"{at(survey.galaxy)} | M 31")
    assert (found.ra, found.dec, found.comment, found.problems) == (*survey.galaxy, "M 31", [])
    assert [each.stage for each in found.images] == ["stack", "warp", "diff", "chip", "raw"]
    assert {each.project for each in found.images} == {"gpc1"}
    with server.store.reading():
        project = pstampProject.get(pstampProject.name == "gpc1")
    imagedb = server.imagedb(project)
    for images in found.images:
        assert images.count == len(images.newest) > 0
        dates = [spot.mjd_obs for spot in images.newest]
        assert dates == sorted(dates, reverse=True)
        for spot in images.newest:
            image = imagedb.component(spot.stage, spot.stage_id, spot.component)
            assert image is not None
            assert (image.tess_id, image.exp_name, image.filter) == (spot.tess_id, spot.exp_name, spot.filter)
            assert image.mjd_obs == spot.mjd_obs
            if image.image.exists():  # cleaned images have none
                x, y = wcs_of(image.image).all_world2pix(*survey.galaxy, 1)
                assert (spot.x, spot.y) == pytest.approx((float(x), float(y)), abs=1e-6)
    stacks = found.images[0]
    assert {(cell.tess_id, cell.skycell, cell.x, cell.y) for cell in found.skycells} == {
        (spot.tess_id, spot.component, spot.x, spot.y) for spot in stacks.newest
    }
    assert {cell.skycell for cell in found.skycells} <= set(survey.skycells)


def test_sexagesimal_and_decimal_positions_find_the_same(server: Server, survey: Survey, ann: Account) -> None:
    text = "150.12 2.21\n10:00:28.8 +2:12:36\n10 00 28.8, 2 12 36"
    found = find_images(server, ann, text, stages=("stack",), reqfilt="r")
    assert [(each.ra, each.dec) for each in found] == [pytest.approx((150.12, 2.21), abs=1e-9)] * 3
    one, two, three = ([(cell.skycell, round(cell.x, 5), round(cell.y, 5)) for cell in f.skycells] for f in found)
    assert one == two == three != []
    assert {spot.filter for each in found for spot in each.images[0].newest} == {"r.00000"}


def test_nothing_lies_beside_the_survey(server: Server, ann: Account) -> None:
    (found,) = find_images(server, ann, "10 -80")
    assert (found.skycells, found.images, found.problems) == ([], [], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("150.1 2.2\n\n1 150.1 2.2", "positions, line 3: it begins with 3 numbers and has 3 values; "
                                    "expected RA DEC [FILTER [MJD_MIN [MJD_MAX]]]"),
        ("361 0", "position 361 0: expected RA from -180 to 360 and Dec from -90 to 90 degrees"),
        ("-180.5 0", "position -180.5 0: expected RA from -180 to 360 and Dec from -90 to 90 degrees"),
        ("0 90.5", "position 0 90.5: expected RA from -180 to 360 and Dec from -90 to 90 degrees"),
        ("1e999 0", "position inf 0: expected RA from -180 to 360 and Dec from -90 to 90 degrees"),
        ("1 2\n" * 21, "positions, line 21: this is target 21; expected at most 20"),
    ],
)  # fmt: skip
def test_positions_that_are_none(server: Server, ann: Account, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        find_images(server, ann, text)
    assert str(caught.value) == message


def set_limit(server: Server, mjd_max: float) -> None:
    with server.store.reading():
        project = pstampProject.get(pstampProject.name == "gpc1")
        mine = pstampAccessLevel.proj_id == project.proj_id
        assert pstampAccessLevel.update(mjd_max=mjd_max).where(mine).execute() == 1


def test_what_an_access_level_may_not_see_is_not_found(server: Server, survey: Survey, ann: Account) -> None:
    where = at(survey.centre)
    (everything,) = find_images(server, ann, where)
    limit = sorted(survey.mjd)[2] + 0.5
    set_limit(server, limit)
    (some,) = find_images(server, ann, where)
    for before, after in zip(everything.images, some.images, strict=True):
        allowed = [spot for spot in before.newest if spot.stage == "stack" or (spot.mjd_obs or 0) <= limit]
        assert after.newest == allowed
        assert (len(allowed) < len(before.newest)) is (before.stage != "stack")
    set_limit(server, -1.0)
    assert find_images(server, ann, where)[0].images == []


def test_a_project_that_is_switched_off_is_not_looked_at(server: Server, survey: Survey, ann: Account) -> None:
    with server.store.reading():
        pstampProject.update(state="disabled").where(pstampProject.name == "gpc1").execute()
    assert find_images(server, ann, at(survey.centre))[0].images == []


def test_who_has_no_access_at_all_finds_nothing(server: Server, survey: Survey, ann: Account) -> None:
    with server.store.reading():
        project = pstampProject.get(pstampProject.name == "gpc1")
        pstampUser.create(userName="ann", domainName="example.org", accessLevel=-1)
        pstampAccessLevel.create(proj_id=project.proj_id, accessLevel=-1)
    assert find_images(server, ann, at(survey.centre))[0].images == []


def test_the_newest_images_of_many_are_told(
    server: Server, survey: Survey, ann: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    (everything,) = find_images(server, ann, at(survey.centre), stages=("warp",))
    monkeypatch.setattr(finder, "MAX_IMAGES", 2)
    (found,) = find_images(server, ann, at(survey.centre), stages=("warp",))
    assert found.images[0].count == everything.images[0].count > 2
    assert found.images[0].newest == everything.images[0].newest[:2]
    assert found.skycells == everything.skycells


def test_positions_after_many_images_are_not_looked_up(
    server: Server, survey: Survey, ann: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "MAX_LOOKED_AT", 3)
    found = find_images(server, ann, f"{at(survey.centre)}\n" * 2, stages=("warp",))
    assert [len(each.images) for each in found] == [1, 0]
    assert [each.problems for each in found] == [
        [],
        ["not looked up, since the positions before it have many images; ask for it alone"],
    ]


def test_too_many_images_are_told_as_such(
    server: Server, survey: Survey, ann: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "MAX_IMAGES", 3)
    (found,) = find_images(server, ann, at(survey.centre), stages=("warp",))
    assert found.images == []
    assert found.problems == [
        "gpc1, warp: the row matches more than 3 images; narrow it by filter, dates or data group"
    ]


def test_an_image_database_that_is_silent_hides_no_other(
    server: Server, survey: Survey, ann: Account, tmp_path: Path
) -> None:
    add_project(server, "gpc2", str(tmp_path / "no-such.db"))
    (found,) = find_images(server, ann, at(survey.centre))
    assert found.problems == ["gpc2: its images can't be looked up now; try again later"]
    assert {each.project for each in found.images} == {"gpc1"}
    assert len(found.images) == 5


# -- the page


def test_the_page_shows_skycells_and_images_and_leads_to_the_form(browse: Browse, survey: Survey) -> None:
    ann = browse("ann")
    assert "<h2>" not in ann.get("/finder").text
    answer = ann.get(
        "/finder", params={"positions": f"{at(survey.galaxy)} | <b>M 31</b>", "stage": "stack", "reqfilt": "r"}
    )
    assert answer.status_code == 200
    text = answer.text
    ra, dec = survey.galaxy
    assert f"<h2>{ra:.7g} {dec:+.7g} · &lt;b&gt;M 31&lt;/b&gt;</h2>" in text
    number = r'<td class="number">[\d.]+</td>'
    cell = rf"<tr><td>(skycell[\w.]+)</td>{number}{number}<td>RINGS.V3</td><td>gpc1</td>"
    cells = re.findall(cell, text)
    assert cells
    assert set(cells) <= set(survey.skycells)
    assert re.findall("<summary>(.*)</summary>", text) == ["gpc1: 1 stack image"]
    way = html.unescape(re.findall(r'href="(/form\?[^"]*)"', text)[0])
    assert parse_qs(urlsplit(way).query) == {
        "positions": [f"{ra:.10g} {dec:.10g}"], "project": ["gpc1"], "tess_id": ["RINGS.V3"], "component": [cells[0]],
    }  # fmt: skip


def test_the_page_says_what_is_wrong_and_keeps_what_was_typed(browse: Browse) -> None:
    evil = '"><script>alert(1)</script>'
    answer = browse("ann").get("/finder", params={"positions": evil, "stage": evil, "reqfilt": evil})
    assert answer.status_code == 400
    assert "begins with 0 numbers" in answer.text
    assert evil not in answer.text
    assert answer.text.count(str(markupsafe.escape(evil))) >= 2


def test_values_from_the_page_are_no_sql(browse: Browse, survey: Survey) -> None:
    answer = browse("ann").get(
        "/finder", params={"positions": at(survey.centre), "reqfilt": "r' OR 1=1 --", "stage": "x'"}
    )
    assert answer.status_code == 200
    assert "No image that you may see has this position, among those asked for." in answer.text


def test_the_finder_wants_a_login(browse: Browse) -> None:
    answer = browse("nobody").get("/finder?positions=1+2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/finder")
