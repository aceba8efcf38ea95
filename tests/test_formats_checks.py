"""The checks of a request and of its rows: each alone, with its code and its sentence, and their order."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pstamp_core.formats import Option, RequestRow, RequestTable, check_request, check_rows

ROW = RequestRow(
    3,
    150.12,
    2.21,
    100.0,
    100.0,
    coord_mask=2,
    job_type="stamp",
    option_mask=1,
    project="gpc1",
    req_type="bycoord",
    img_type="stack",
)
TABLE = RequestTable("demo_1", 2, "PROCESS", "ana@obs.example.edu", (ROW,))
PATH = Path("work") / "r.fits"


def project_fault(name: str) -> tuple[int, str] | None:
    return {"gpc1": None, "secret": (29, "access level 1 may not use it")}.get(name, (22, "there is no such project"))


def findings(**changes: Any) -> list[tuple[int, str]]:
    """Check one row; return codes and sentences, without the part that is the same in all."""
    table = replace(TABLE, rows=(replace(ROW, **changes),))
    (found,) = check_rows(table, project_fault=project_fault, path=PATH)
    assert all(each.sentence.startswith("r.fits, row ") for each in found)
    return [(each.fault, each.sentence.split(": ", 1)[1]) for each in found]


# the whole request


def request_sentence(serve_v1: bool = False, **changes: Any) -> tuple[int, str] | None:
    found = check_request(replace(TABLE, **changes), serve_v1=serve_v1, path=PATH)
    if found is None:
        return None
    assert found.rownum == 0
    return found.fault, found.sentence


def test_a_good_request() -> None:
    assert request_sentence() is None
    assert request_sentence(action="PREVIEW", req_name="A-b_c.d+9", email="a.b+c@d") is None


def test_version_1_is_served_where_the_site_allows_it() -> None:
    v1: dict[str, Any] = {"extver": 1, "email": None}
    assert request_sentence(**v1) == (29, "r.fits: EXTVER is '1'; expected 2: version 1 is not served here")
    assert request_sentence(serve_v1=True, **v1) is None
    assert request_sentence(serve_v1=True, **v1, rows=()) is not None


@pytest.mark.parametrize(("action", "value"), [("", "not given"), ("LIST", "'LIST'"), ("NULL", "'NULL'")])
def test_action(action: str, value: str) -> None:
    assert request_sentence(action=action) == (21, f"r.fits: ACTION is {value}; expected PROCESS or PREVIEW")


@pytest.mark.parametrize("email", ["ana", "@obs", "ana@", "a b@c", "a@b@c", "a@" + "b" * 254])
def test_email(email: str) -> None:
    fault, sentence = request_sentence(email=email) or (0, "")
    assert fault == 29
    assert sentence.startswith("r.fits: EMAIL is '")
    assert sentence.endswith("; expected user@domain")


def test_no_email_and_no_rows() -> None:
    assert request_sentence(email=None) == (29, "r.fits: EMAIL is not given; expected user@domain")
    assert request_sentence(rows=()) == (21, "r.fits: the table has no rows; expected at least one")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "..",
        "a..b",
        ".a",
        "-a",
        "a b",
        "a'b",
        'a"b',
        "a;b",
        "a$b",
        "a\nb",
        "a\n",
        "ä",
        "x" * 65,
        "x" * 300,
        "null",
        "Index.txt",
        "a%",
        "a\\b",
        "a\0",
    ],
)
def test_names_that_can_be_no_folder(name: str) -> None:
    fault, sentence = request_sentence(req_name=name) or (0, "")
    assert fault == 21
    assert sentence.startswith("r.fits: REQ_NAME is ")
    assert sentence.endswith("; expected at most 64 letters, digits and . _ + -, the first a letter or digit, "
                             "no '..', not null or index.txt")  # fmt: skip
    assert sentence.isprintable()
    assert sentence.isascii()
    assert len(sentence) < 255


def test_the_longest_name() -> None:
    assert request_sentence(req_name="x" * 64) is None


def test_the_order_of_the_whole_request() -> None:
    worst: dict[str, Any] = {"extver": 2, "action": "LIST", "email": None, "rows": (), "req_name": "a/b"}
    seen = []
    for column, repair in (("ACTION", "PROCESS"), ("EMAIL", "a@b"), ("the table", (ROW,)), ("REQ_NAME", "ok")):
        fault, sentence = request_sentence(**worst) or (0, "")
        seen.append(fault)
        assert sentence.startswith(f"r.fits: {column} ")
        worst[{"the table": "rows"}.get(column, column.lower())] = repair
    assert seen == [21, 29, 21, 21]
    assert request_sentence(**worst) is None


# rows: the original's checks


def test_a_good_row() -> None:
    assert findings() == []


def test_what_a_finding_says() -> None:
    table = replace(TABLE, rows=(ROW, replace(ROW, rownum=4, img_type="cutout")))
    good, (found,) = check_rows(table, project_fault=project_fault, path=PATH)
    assert good == []
    assert (found.rownum, found.fault, found.column, found.value) == (4, 21, "IMG_TYPE", "'cutout'")
    assert found.sentence == (
        "r.fits, row 4: IMG_TYPE is 'cutout'; expected raw, chip, warp, diff, stack or stack_summary"
    )


@pytest.mark.parametrize(
    ("changes", "fault", "sentence"),
    [
        ({"rownum": 0}, 21, "ROWNUM is 0; expected a whole number from 1 to 2147483647"),
        ({"rownum": -3}, 21, "ROWNUM is -3; expected a whole number from 1 to 2147483647"),
        ({"rownum": 0, "bad": {"ROWNUM": "one"}}, 21, "ROWNUM is 'one'; expected a whole number from 1 to 2147483647"),
        ({"job_type": "list_uri"}, 21, "JOB_TYPE is 'list_uri'; expected stamp or get_image"),
        ({"job_type": None}, 21, "JOB_TYPE is not given; expected stamp or get_image"),
        (
            {"req_type": "byname"},
            21,
            "REQ_TYPE is 'byname'; expected byid, byexp, bydiff, bycoord or byskycell",
        ),
        (
            {"job_type": "get_image"},
            21,
            "JOB_TYPE is 'get_image'; "
            "expected stamp (get_image goes with byid, byexp, byskycell stack and stack_summary)",
        ),
        ({"mjd_min": math.nan}, 21, "MJD_MIN is nan; expected a number"),
        ({"mjd_max": math.nan, "bad": {"MJD_MAX": "2010-01-01"}}, 21, "MJD_MAX is '2010-01-01'; expected a number"),
        ({"fwhm_min": math.inf}, 21, "FWHM_MIN is inf; expected a number"),
        ({"fwhm_max": -math.inf}, 21, "FWHM_MAX is -inf; expected a number"),
        (
            {"req_type": "byid", "img_type": "chip", "id": "8", "coord_mask": 3, "component": "all"},
            21,
            "COMPONENT is 'all'; expected a chip or skycell, as the centre is a pixel",
        ),
        (
            {"img_type": "cutout"},
            21,
            "IMG_TYPE is 'cutout'; expected raw, chip, warp, diff, stack or stack_summary",
        ),
        ({"center_x": math.nan}, 21, "CENTER_X is nan; expected a number"),
        ({"center_y": math.inf}, 21, "CENTER_Y is inf; expected a number"),
        ({"width": math.nan, "bad": {"WIDTH": ""}}, 21, "WIDTH is not given; expected a number"),
        ({"height": math.nan, "bad": {"HEIGHT": "1,5"}}, 21, "HEIGHT is '1,5'; expected a number"),
        ({"width": math.inf}, 21, "WIDTH is inf; expected a number"),
        (
            {"req_type": "byid", "id": "8", "coord_mask": 3, "center_x": math.inf},
            21,
            "CENTER_X is inf; expected a number",
        ),
        ({"req_type": "byname", "job_type": "get_image"}, 21,
         "REQ_TYPE is 'byname'; expected byid, byexp, bydiff, bycoord or byskycell"),
        ({"req_type": "byexp"}, 11, "IMG_TYPE is 'stack'; expected raw, chip, warp or diff with byexp"),
        (
            {"req_type": "byexp", "img_type": "stack_summary"},
            11,
            "IMG_TYPE is 'stack_summary'; expected raw, chip, warp or diff with byexp",
        ),
        ({"coord_mask": 3}, 21, "COORD_MASK is 3; expected no bit 1 (pixel centre), as bycoord needs RA and Dec"),
        (
            {"req_type": "byid", "id": "o9001g0101o"},
            21,
            "ID is 'o9001g0101o'; expected a number from the database, as byid needs it",
        ),
        ({"req_type": "bydiff"}, 21, "ID is not given; expected a number from the database, as bydiff needs it"),
        ({"req_type": "byid", "id": "0"}, 21, "ID is '0'; expected a number from the database, as byid needs it"),
        ({"req_type": "byid", "id": "-5"}, 21, "ID is '-5'; expected a number from the database, as byid needs it"),
        ({"project": "nosuchcam"}, 22, "PROJECT is 'nosuchcam'; there is no such project"),
        ({"project": None}, 22, "PROJECT is not given; expected the name of a project"),
        ({"project": "secret"}, 29, "PROJECT is 'secret'; access level 1 may not use it"),
        # ours
        ({"center_x": 400.0}, 21, "CENTER_X is 400; expected RA in degrees, from -180 to 360"),
        ({"center_x": -180.5}, 21, "CENTER_X is -180.5; expected RA in degrees, from -180 to 360"),
        ({"center_y": -91.0}, 21, "CENTER_Y is -91; expected Dec in degrees, from -90 to 90"),
        ({"center_y": 90.5}, 21, "CENTER_Y is 90.5; expected Dec in degrees, from -90 to 90"),
        ({"width": 0.0}, 21, "WIDTH is 0; expected a size, or WIDTH and HEIGHT both 0 for the whole file"),
        ({"height": 0.0}, 21, "HEIGHT is 0; expected a size, or WIDTH and HEIGHT both 0 for the whole file"),
        ({"width": 8000.5}, 21, "WIDTH is 8000.5; expected at most 8000 pixels"),
        ({"height": -1e300}, 21, "HEIGHT is -1e+300; expected at most 8000 pixels"),
        ({"width": 36001.0, "coord_mask": 0}, 21, "WIDTH is 36001; expected at most 36000 seconds of arc"),
        (
            {"req_type": "byid", "id": "8", "coord_mask": 3, "center_x": -1e7},
            21,
            "CENTER_X is -10000000; expected a pixel from -1000000 to 1000000",
        ),
        ({"mjd_min": 55300.0, "mjd_max": 55200.5}, 21, "MJD_MIN is 55300; expected at most MJD_MAX, 55200.5"),
        ({"fwhm_min": 9.0, "fwhm_max": 3.0}, 21, "FWHM_MIN is 9; expected at most FWHM_MAX, 3"),
        (
            {"option_mask": 0, "bad": {"OPTION_MASK": "all"}},
            21,
            "OPTION_MASK is 'all'; expected a whole number from 0 to 2147483647",
        ),
        ({"option_mask": -1}, 21, "OPTION_MASK is -1; expected a whole number from 0 to 2147483647"),
        (
            {"coord_mask": 0, "bad": {"COORD_MASK": "2.5"}},
            21,
            "COORD_MASK is '2.5'; expected a whole number from 0 to 2147483647",
        ),
        (
            {"job_type": "get_image", "req_type": "byid", "id": "8", "center_x": math.nan},
            21,
            "CENTER_X is nan; expected a number",
        ),
    ],
)  # fmt: skip
def test_one_thing_wrong(changes: dict[str, Any], fault: int, sentence: str) -> None:
    assert findings(**changes) == [(fault, sentence)]


@pytest.mark.parametrize(
    "changes",
    [
        {"center_x": 360.0, "center_y": 90.0},
        {"center_x": -180.0, "center_y": -90.0},
        {"width": -8000.0, "height": 0.5},
        {"width": 0.0, "height": 0.0},
        {"coord_mask": 0, "width": 36000.0},
        {"mjd_min": 55300.0},
        {"mjd_max": 55300.0},
        {"fwhm_max": 3.0},
        {"comment": "a | b"},
        {"run_type": "no such type"},
        {"option_mask": 2**30},
        {"coord_mask": 6},
        {"req_type": "byid", "id": "60001", "coord_mask": 3},
        {"req_type": "byid", "id": "8", "img_type": "chip", "coord_mask": 3, "component": "XY33"},
        {"req_type": "byid", "id": "8", "img_type": "chip", "coord_mask": 3, "option_mask": Option.USE_IMFILE_ID},
        {"req_type": "byid", "id": "8", "img_type": "chip", "coord_mask": 3, "center_x": 0.0, "center_y": 0.0},
        {"req_type": "byid", "id": "8", "img_type": "chip", "coord_mask": 3, "width": 0.0, "height": 0.0},
        {"req_type": "byid", "id": "8", "coord_mask": 3, "center_x": 0.0, "center_y": 0.0, "width": 9000.0},
        {"req_type": "byid", "id": "8", "coord_mask": 3, "center_x": 0.0, "center_y": 0.0, "width": 0.0},
        {"req_type": "byexp", "img_type": "diff"},
        {"job_type": "get_image", "req_type": "byid", "id": "8", "img_type": "warp"},
        {"job_type": "get_image", "req_type": "byexp", "img_type": "chip"},
        {"job_type": "get_image", "req_type": "byskycell"},
        {"job_type": "get_image", "img_type": "stack_summary"},
        # get_image takes no notice of position and size
        {"job_type": "get_image", "req_type": "byskycell", "center_x": 400.0, "width": 1e9},
        {"job_type": "get_image", "req_type": "byskycell", "center_x": math.nan, "bad": {"CENTER_X": ""}},
    ],
)
def test_nothing_wrong(changes: dict[str, Any]) -> None:
    assert findings(**changes) == []


@pytest.mark.parametrize("req_type", ["bydiff", "bycoord", "byskycell"])
def test_get_image_where_it_is_not_supported(req_type: str) -> None:
    ((fault, sentence),) = findings(job_type="get_image", req_type=req_type, img_type="warp", id="8")
    assert (fault, sentence[:26]) == (21, "JOB_TYPE is 'get_image'; e")


def test_the_order_of_a_row() -> None:
    # everything is wrong; what is found first is repaired, again and again
    nan = math.nan
    row: dict[str, Any] = {
        "rownum": 0, "job_type": "x", "req_type": "x", "img_type": "x", "project": "x", "id": None, "coord_mask": 3,
        "center_x": nan, "center_y": nan, "width": nan, "height": nan,
        "mjd_min": nan, "mjd_max": nan, "fwhm_min": nan, "fwhm_max": nan, "option_mask": 2**31,
    }  # fmt: skip
    repairs: list[tuple[str, int, Any]] = [
        ("ROWNUM", 21, 1), ("JOB_TYPE", 21, "get_image"), ("REQ_TYPE", 21, "bycoord"), ("JOB_TYPE", 21, "stamp"),
        ("MJD_MIN", 21, 60000.0), ("MJD_MAX", 21, 50000.0), ("FWHM_MIN", 21, 1.0), ("FWHM_MAX", 21, 2.0),
        ("COMPONENT", 21, "XY33"), ("IMG_TYPE", 21, "chip"), ("CENTER_X", 21, 1e9), ("CENTER_Y", 21, 1e9),
        ("WIDTH", 21, 9000.0), ("HEIGHT", 21, 9000.0), ("COORD_MASK", 21, 2), ("PROJECT", 22, "secret"),
        ("PROJECT", 29, "gpc1"), ("CENTER_X", 21, 1.0), ("CENTER_Y", 21, 1.0), ("WIDTH", 21, 9.0), ("HEIGHT", 21, 9.0),
        ("OPTION_MASK", 21, 1), ("MJD_MIN", 21, 0.0),
    ]  # fmt: skip
    for column, fault, repair in repairs:
        (found,) = check_rows(replace(TABLE, rows=(replace(ROW, **row),)), project_fault=project_fault, path=PATH)
        assert (found[0].column, found[0].fault) == (column, fault)
        row[column.lower()] = repair
    assert check_rows(replace(TABLE, rows=(replace(ROW, **row),)), project_fault=project_fault, path=PATH) == [[]]


def test_all_findings_of_a_row_are_told() -> None:
    assert findings(center_x=400.0, center_y=-91.0, width=1e6, project="x") == [
        (22, "PROJECT is 'x'; there is no such project"),
        (21, "CENTER_X is 400; expected RA in degrees, from -180 to 360"),
        (21, "CENTER_Y is -91; expected Dec in degrees, from -90 to 90"),
        (21, "WIDTH is 1000000; expected at most 8000 pixels"),
    ]


def test_a_rownum_used_twice() -> None:
    rows = tuple(replace(ROW, rownum=n) for n in (5, 6, 5, 0, 0, 5))
    found = check_rows(replace(TABLE, rows=rows), project_fault=project_fault, path=PATH)
    assert [[each.sentence for each in each_row] for each_row in found] == [
        [],
        [],
        ["r.fits, row 5: ROWNUM is 5; expected a number that no row before it has"],
        ["r.fits, row 4 of the table: ROWNUM is 0; expected a whole number from 1 to 2147483647"],
        ["r.fits, row 5 of the table: ROWNUM is 0; expected a whole number from 1 to 2147483647"],
        ["r.fits, row 5: ROWNUM is 5; expected a number that no row before it has"],
    ]
    assert [each_row[0].rownum for each_row in found if each_row] == [5, 0, 0, 5]


def test_a_project_is_asked_for_once() -> None:
    asked = []

    def ask(name: str) -> None:
        asked.append(name)

    rows = tuple(replace(ROW, rownum=n, project=("a", "b")[n % 2]) for n in range(1, 9))
    assert not any(check_rows(replace(TABLE, rows=rows), project_fault=ask, path=PATH))
    assert sorted(asked) == ["a", "b"]


def test_the_size_limit_is_the_site_s() -> None:
    table = replace(TABLE, rows=(replace(ROW, height=99.0),))
    ((found,),) = check_rows(table, project_fault=project_fault, path=PATH, max_size_pixels=99)
    assert found.sentence == "r.fits, row 3: WIDTH is 100; expected at most 99 pixels"


def test_sentences_hold_strange_values_shortly() -> None:
    path = Path("ä" * 100 + ".fits")
    (found,) = check_rows(
        replace(TABLE, rows=(replace(ROW, job_type="x\u2028" * 500),)), project_fault=project_fault, path=path
    )
    assert found[0].sentence.isascii()
    assert found[0].sentence.isprintable()
    assert len(found[0].sentence) < 255
