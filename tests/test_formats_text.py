"""The text form of a request: the examples of the format's description, each rule, and the way back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pstamp_core.faults import Fault, UserError
from pstamp_core.formats import (
    Option,
    RequestRow,
    RequestTable,
    check_request,
    check_rows,
    format_text,
    make_request,
    parse_targets,
    parse_text,
    read_request,
    write_request,
)

HEAD = "demo_1 2 PROCESS ana@obs.example.edu\n"
SHORT = "1 150.12 2.21 100 100 2 stamp 1 gpc1 3PI null bycoord stack null null null null i 0 0 null 0 0"
WHOLE = HEAD + SHORT

# What each of these rows asks for is at its end; a number is the code that the row gets from the checks.
EXAMPLES = {
    "bycoord": """
# six image types at one position
demo_coord_1 2 PROCESS ana@obs.example.edu
1 150.1200 2.2100 400 400 2 stamp 1 gpc1 MD04 null bycoord raw null null null null r 55200 55400 null 0 0 | raw chips
2 150.1200 2.2100 400 400 2 stamp 7 gpc1 MD04 null bycoord chip null null null null i 55200 55400 null 0 6 | seeing
3 150.1200 2.2100 120 120 0 stamp 3 gpc1 3PI null bycoord warp null null null null g 55200 55400 null 0 0 | arcsec
4 150.1200 2.2100 400 400 2 stamp 65 gpc1 bypass null bycoord diff null MD04.V3 null null i 55200 55400 warp_stack 0 0
5 150.1200 2.2100 400 400 2 stamp 2057 gpc1 MD04 null bycoord stack null null null null z 0 0 notnightly 0 0 | sources
6 150.1200 2.2100 0 0 2 stamp 455 gpc1 3PI null bycoord stack_summary null null null null y 0 0 null 0 0 | binned
""",
    "byskycell": """
demo_skycell_1 2 PROCESS ana@obs.example.edu
1 150.12 2.21 200 200 2 stamp 1 gpc1 bypass null byskycell raw null RINGS.V3 skycell.1234.056 null r 0 0 null 0 0
2 150.12 2.21 200 200 2 stamp 1 gpc1 bypass null byskycell chip null RINGS.V3 skycell.1234.056 null r 0 0 null 0 0
3 150.12 2.21 200 200 2 stamp 3 gpc1 null 3PI.PV9 byskycell warp null RINGS.V3 skycell.1234.056 null r 55100 0 null 0 0
4 150.12 2.21 200 200 2 stamp 1 gpc1 bypass null byskycell diff null RINGS.V3 skycell.1 null r 55100 55500 null 0 0
5 500 500 64 64 3 stamp 1 gpc1 3PI null byskycell stack null RINGS.V3 skycell.1234.056 null r 0 0 null 0 0 | pixels
6 0 0 0 0 3 stamp 65 gpc1 3PI null byskycell stack_summary null RINGS.V3 skycell.1234.056 null r 0 0 null 0 0
""",
    "byid": """
demo_id_1 2 PROCESS ana@obs.example.edu
1 150.12 2.21 200 200 2 stamp 1 gpc1 null null byid raw 70001 null null null null 0 0 null 0 0 | chip at the position
2 150.12 2.21 200 200 2 stamp 55 gpc1 null null byid chip 80001 null null null null 0 0 null 0 0 | psf, background
3 300 300 64 64 3 stamp 1 gpc1 null null byid warp 90001 null skycell.1234.056 null null 0 0 null 0 0
4 150.12 2.21 200 200 2 stamp 1025 gpc1 null null byid diff 50001 null null null null 0 0 null 0 0 | inverse
5 0 0 0 0 3 stamp 1 gpc1 null null byid stack 60001 null null null null 0 0 null 0 0 | whole skycell
6 0 0 0 0 2 stamp 65 gpc1 null null byid stack_summary 4001 null null null null 0 0 null 0 0
""",
    "byexp": """
demo_exp_1 2 PROCESS ana@obs.example.edu
1 150.12 2.21 200 200 2 stamp 1 gpc1 null null byexp raw o9001g0101o null null null null 0 0 null 0 0 |
2 10 20 0 0 1 stamp 1 gpc1 null null byexp chip o9001g0101o null XY33 null null 0 0 null 0 0 | one whole chip
3 150.12 2.21 90 90 0 stamp 8195 gpc1 null null byexp warp o9001g0101o RINGS.V3 null null null 0 0 null 0 0
4 150.12 2.21 200 200 2 stamp 1 gpc1 null null byexp diff o9001g0101o null null null null 0 0 warp_warp 0 0
5 150.12 2.21 200 200 2 stamp 1 gpc1 null null byexp stack o9001g0101o null null null null 0 0 null 0 0 | 11
6 150.12 2.21 200 200 2 stamp 1 gpc1 null null byexp stack_summary o9001g0101o null null null null 0 0 null 0 0 | 11
""",
    "bydiff": """
demo_diff_1 2 PROCESS ana@obs.example.edu
1 150.12 2.21 200 200 2 stamp 1 gpc1 null null bydiff raw 770001 null null null null 0 0 null 0 0
2 150.12 2.21 200 200 2 stamp 1 gpc1 null null bydiff chip 770001 null null null null 0 0 null 0 0 |
3 150.12 2.21 200 200 2 stamp 1025 gpc1 null null bydiff warp 770001 null null null null 0 0 null 0 0
4 150.12 2.21 200 200 2 stamp 3 gpc1 null null bydiff diff 770001 null null null null 0 0 null 0 0
5 150.12 2.21 200 200 2 stamp 2049 gpc1 null null bydiff stack 770001 null null null null 0 0 null 0 0
6 150.12 2.21 200 200 2 stamp 1 gpc1 null null bydiff stack_summary 770001 null null null null 0 0 null 0 0
""",
    "bundles": """
demo_bundle_1 2 PROCESS ana@obs.example.edu
1 0 0 0 0 3 get_image 1 gpc1 null null byid chip 80001 null XY33 null null 0 0 null 0 0 | bundle of one chip
2 0 0 0 0 3 get_image 32769 gpc1 null null byid warp 90001 null skycell.1234.056 null null 0 0 null 0 0
3 0 0 0 0 3 get_image 1 gpc1 null null byexp warp o9001g0101o null null null null 0 0 null 0 0
4 0 0 0 0 3 get_image 1 gpc1 null null byskycell stack null RINGS.V3 skycell.1234.056 null i 0 0 null 0 0 |
5 0 0 0 0 3 stamp 16385 gpc1 null null byid chip 123456 null null null null 0 0 null 0 0 | id of a file
""",
    "errors": """
demo_errors_1 2 PROCESS ana@obs.example.edu
1 150.12 2.21 100 100 2 list_uri 1 gpc1 3PI null bycoord stack null null null null i 0 0 null 0 0 | 21 JOB_TYPE
2 150.12 2.21 100 100 2 stamp 1 gpc1 3PI null byname stack null null null null i 0 0 null 0 0 | 21 REQ_TYPE
3 150.12 2.21 100 100 2 stamp 1 gpc1 3PI null bycoord cutout null null null null i 0 0 null 0 0 | 21 IMG_TYPE
4 150.12 2.21 100 100 3 stamp 1 gpc1 3PI null bycoord stack null null null null i 0 0 null 0 0 | 21 COORD_MASK
5 150.12 2.21 100 100 2 stamp 1 gpc1 null null byid stack o9001g0101o null null null i 0 0 null 0 0 | 21 ID
6 300 300 100 100 3 stamp 1 gpc1 null null byid chip 80001 null null null null 0 0 null 0 0 | 21 COMPONENT
7 150.12 2.21 100 100 2 get_image 1 gpc1 3PI null bycoord stack null null null null i 0 0 null 0 0 | 21 JOB_TYPE
8 150.12 2.21 100 100 2 stamp 1 nosuchcam 3PI null bycoord stack null null null null i 0 0 null 0 0 | 22 PROJECT
9 150.12 2.21 100 100 2 stamp 1 gpc1 null null byexp stack o9001g0101o null null null i 0 0 null 0 0 | 11 IMG_TYPE
""",
}


def refusal(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_text(text, source="r.txt")
    assert caught.value.fault == Fault.PSTAMP_INVALID_REQUEST
    return str(caught.value)


def project_fault(name: str) -> tuple[int, str] | None:
    return None if name == "gpc1" else (22, "there is no such project")


# the examples


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_pass_through_a_file(name: str, tmp_path: Path) -> None:
    table, warnings = parse_text(EXAMPLES[name])
    assert warnings == []
    assert len(table.rows) == EXAMPLES[name].count("\n") - (3 if name == "bycoord" else 2)
    write_request(tmp_path / "r.fits", table)
    assert read_request(tmp_path / "r.fits") == table
    assert parse_text(format_text(table)) == (table, [])
    assert check_request(table, serve_v1=False, path="r.fits") is None
    for row, found in zip(table.rows, check_rows(table, project_fault=project_fault, path="r.fits"), strict=True):
        expected = (row.comment or "").split() if name in ("errors", "byexp") else []
        if expected and expected[0].isdigit():
            assert [str(found[0].fault), found[0].column][: len(expected)] == expected
            assert len(found) == 1
        else:
            assert found == []


def test_a_row_of_values() -> None:
    assert parse_text(EXAMPLES["bycoord"])[0].rows[3] == RequestRow(
        rownum=4,
        center_x=150.12,
        center_y=2.21,
        width=400.0,
        height=400.0,
        coord_mask=2,
        job_type="stamp",
        option_mask=65,
        project="gpc1",
        survey_name="bypass",
        req_type="bycoord",
        img_type="diff",
        tess_id="MD04.V3",
        reqfilt="i",
        mjd_min=55200.0,
        mjd_max=55400.0,
        run_type="warp_stack",
    )


def test_numbering_and_inherited_values() -> None:
    table, warnings = parse_text(
        """
demo_short_1 2 PREVIEW ana@obs.example.edu
0 150.12 2.21 100 100 2 stamp 1 gpc1 3PI null bycoord stack null null null null i 0 0 null 0 0 | row 1
0 150.52 2.31 100 100 2 | the rest repeats row 1
0 151.02 2.41 100 100 2 stamp 65
"""
    )
    assert (table.req_name, table.extver, table.action, warnings) == ("demo_short_1", 2, "PREVIEW", [])
    first, second, third = table.rows
    assert second == replace(first, rownum=2, center_x=150.52, center_y=2.31, comment="the rest repeats row 1")
    assert third == replace(first, rownum=3, center_x=151.02, center_y=2.41, option_mask=65, comment=None)


def test_version_1() -> None:
    text = """demo_old_1 1
1 150.12 2.21 100 100 2 stamp 1 gpc1 byid stack 60001 null null null null 0 0 | refused where it is not served
2 150.12 2.21 100 100 2 stamp 1 gpc1 bycoord warp null MD04 null null i 55200 55300 |
"""
    table, warnings = parse_text(text)
    assert (table.extver, table.action, table.email, warnings) == (1, "PROCESS", None, [])
    assert table.rows[1] == RequestRow(
        2, 150.12, 2.21, 100.0, 100.0, 2, "stamp", 1, "gpc1", req_type="bycoord", img_type="warp", tess_id="MD04",
        reqfilt="i", mjd_min=55200.0, mjd_max=55300.0,
    )  # fmt: skip
    assert parse_text(format_text(table)) == (table, [])
    found = check_request(table, serve_v1=False, path="r.fits")
    assert found is not None
    assert found.fault == 29
    assert check_request(table, serve_v1=True, path="r.fits") is None


# the rules


def test_blank_lines_blanks_comments_and_line_ends_mean_nothing() -> None:
    text = f"\ufeff\n   \n# a\n  # b\r\n\t {HEAD.strip()} \r\n\n  {SHORT}\r\n \t\n"
    assert parse_text(text) == parse_text(WHOLE)


def test_words_of_the_header() -> None:
    table, _ = parse_text("'a_1' 2 'process' null\n" + SHORT)
    assert (table.req_name, table.action, table.email) == ("a_1", "PROCESS", None)
    table, _ = parse_text(WHOLE, req_name="other", email="b@c")
    assert (table.req_name, table.email) == ("other", "b@c")


def test_version_1_drops_action_and_email() -> None:
    table, warnings = parse_text("a 1 PREVIEW a@b\n", source="r.txt")
    assert (table.action, table.email) == ("PROCESS", None)
    assert warnings == ["r.txt, line 1: version 1 has no ACTION and EMAIL; they are dropped"]
    assert parse_text("a 1", email="a@b", source="r.txt") == (table, warnings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.txt: there is no header line; expected REQ_NAME EXTVER ACTION EMAIL"),
        ("# only\n\n", "r.txt: there is no header line; expected REQ_NAME EXTVER ACTION EMAIL"),
        ("\nname", "r.txt, line 2: the header is 'name'; expected REQ_NAME EXTVER ACTION EMAIL, EXTVER 1 or 2"),
        ("n 3 x y", "r.txt, line 1: the header is 'n 3 x y'; expected REQ_NAME EXTVER ACTION EMAIL, EXTVER 1 or 2"),
        ("n 2 PROCESS", "r.txt, line 1: the header has 3 words; expected four, REQ_NAME EXTVER ACTION EMAIL"),
        ("n 2 PROCESS a b", "r.txt, line 1: the header has 5 words; expected four, REQ_NAME EXTVER ACTION EMAIL"),
        (HEAD + "1 2 3 4 5", "r.txt, line 2: the row has 5 values; expected at least 6"),
        (HEAD + "1 2 3 4 5 6", "r.txt, line 2: the first row has 6 values; expected all 23"),
        (WHOLE + "\n1 1 1 1 1 1", "r.txt, line 3: ROWNUM 1 is that of line 2"),
        (WHOLE + "\n0 1 1 1 1 1", "r.txt, line 3: ROWNUM 1 is that of line 2"),
        (WHOLE + "\n-1 1 1 1 1 1", "r.txt, line 3: ROWNUM is '-1'; expected a whole number from 0 to 2147483647"),
        (WHOLE + "\n2 1 1 1 1 +2", "r.txt, line 3: COORD_MASK is '+2'; expected a whole number from 0 to 2147483647"),
        (WHOLE + "\n2 1 1 1 1 2.0", "r.txt, line 3: COORD_MASK is '2.0'; expected a whole number from 0 to 2147483647"),
        (WHOLE + "\n2147483648 1 1 1 1 2",
         "r.txt, line 3: ROWNUM is '2147483648'; expected a whole number from 0 to 2147483647"),
        (WHOLE + "\n2 1:0:0 1 1 1 2", "r.txt, line 3: CENTER_X is '1:0:0'; expected a number"),
        (WHOLE + "\n2 1 nan 1 1 2", "r.txt, line 3: CENTER_Y is 'nan'; expected a number"),
        (WHOLE + "\n2 1 1 1e999 1 2", "r.txt, line 3: WIDTH is '1e999'; expected a number"),
        (WHOLE + "\n2 1 1 1 inf 2", "r.txt, line 3: HEIGHT is 'inf'; expected a number"),
        (WHOLE + "\n2 1 1 1 1 2 " + "x" * 17,
         "r.txt, line 3: JOB_TYPE is 'xxxxxxxxxxxxxxxxx' (17 characters); expected at most 16 ASCII"),
        (WHOLE + "\n2 1 1 1 1 2 stämp", "r.txt, line 3: JOB_TYPE is 'st?mp' (5 characters); expected at most 16 ASCII"),
    ],
)  # fmt: skip
def test_lines_that_are_refused(text: str, message: str) -> None:
    assert refusal(text) == message


def test_numbers_are_those_of_the_original() -> None:
    (row,) = parse_text(WHOLE.replace("150.12 2.21 100 100", ".5 -2. +1e2 1.5E-1"))[0].rows
    assert (row.center_x, row.center_y, row.width, row.height) == (0.5, -2.0, 100.0, 0.15)


@pytest.mark.parametrize(
    ("comment", "read", "warning"),
    [
        ("  two  words ", "two  words", None),
        ("", None, None),
        ("NULL", None, None),
        ("a # b # c", "a   b # c", "the first # of the comment is replaced by a blank"),
        ("a | b | c", "a", "the comment is cut at its vertical bar"),
        ("x" * 70, "x" * 63, "the comment is cut to 63 characters"),
        ("x" * 63, "x" * 63, None),
        ("x" * 62 + " y", "x" * 62, "the comment is cut to 63 characters"),
        ("Käse", "K?se", "characters of the comment that are not ASCII are replaced by ?"),
    ],
)
def test_comments(comment: str, read: str | None, warning: str | None) -> None:
    table, warnings = parse_text(WHOLE + "|" + comment, source="r.txt")
    assert table.rows[0].comment == read
    assert warnings == ([f"r.txt, line 2: {warning}"] if warning else [])


def test_surplus_values_are_dropped_with_a_warning() -> None:
    table, warnings = parse_text(WHOLE + " 77 88", source="r.txt")
    assert table == parse_text(WHOLE)[0]
    assert warnings == ["r.txt, line 2: the row has 25 values; those after 23 are dropped"]


def test_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pstamp_core.formats.text.MAX_ROWS", 2)
    rows = "\n0 1 1 1 1 2"
    assert len(parse_text(WHOLE.replace("\n1", "\n0") + rows)[0].rows) == 2
    assert refusal(WHOLE.replace("\n1", "\n0") + rows * 2) == "r.txt, line 4: this is row 3; expected at most 2 rows"
    assert len(parse_targets("1 2 3\n" * 2, most=2)[0]) == 2
    with pytest.raises(UserError, match="target list, line 3: this is target 3; expected at most 2"):
        parse_targets("1 2 3\n" * 3, most=2)


# the way back


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"comment": "a | b"}, "row 1: COMMENT is 'a | b'; the text form holds 63 characters without | and #"),
        ({"comment": "no. #1"}, "row 1: COMMENT is 'no. #1'; the text form holds 63 characters without | and #"),
        ({"comment": "x" * 64},
         f"row 1: COMMENT is '{'x' * 57}...'; the text form holds 63 characters without | and #"),
        ({"data_group": "a b"}, "row 1: DATA_GROUP is 'a b'; the text form holds one word without |"),
        ({"data_group": "a|b"}, "row 1: DATA_GROUP is 'a|b'; the text form holds one word without |"),
        ({"width": math.inf}, "row 1: WIDTH is inf; expected a finite number"),
        ({"rownum": 0}, "row 0: ROWNUM is 0; the text form needs one that is not used yet"),
    ],
)  # fmt: skip
def test_what_the_text_form_can_not_hold(changes: dict[str, Any], message: str) -> None:
    table, _ = parse_text(WHOLE)
    with pytest.raises(UserError) as caught:
        format_text(replace(table, rows=(replace(table.rows[0], **changes),)))
    assert str(caught.value) == message


def test_a_header_and_a_number_that_the_text_form_can_not_hold() -> None:
    table, _ = parse_text(WHOLE)
    for name in ("", "a b", "a'b", "#a"):
        with pytest.raises(UserError, match="the text form can't hold"):
            format_text(replace(table, req_name=name))
    with pytest.raises(UserError, match="row 1: ROWNUM is 1; the text form needs one that is not used yet"):
        format_text(replace(table, rows=table.rows * 2))


def _words(width: int) -> st.SearchStrategy[str | None]:
    letters = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="|#")
    return st.none() | st.text(letters, min_size=1, max_size=width).filter(lambda word: word.lower() != "null")


_reals = st.floats(allow_nan=False, allow_infinity=False)
_integers = st.integers(0, 2**31 - 1)
_comments = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="|#"), max_size=63).map(
    lambda text: None if text.strip().lower() in ("", "null") else text.strip()
)
_rows = st.builds(
    RequestRow, rownum=st.integers(1, 2**31 - 1), center_x=_reals, center_y=_reals, width=_reals, height=_reals,
    coord_mask=_integers, job_type=_words(16).map(lambda word: word and word.lower()), option_mask=_integers,
    project=_words(16), survey_name=_words(16),
    ipp_release=_words(64), req_type=_words(16), img_type=_words(16), id=_words(16), tess_id=_words(64),
    component=_words(64), data_group=_words(64), reqfilt=_words(16), mjd_min=_reals, mjd_max=_reals,
    run_type=_words(16), fwhm_min=_reals, fwhm_max=_reals, comment=_comments, bad=st.just({}),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(_rows, max_size=4, unique_by=lambda row: row.rownum))
def test_text_and_file_give_back_what_went_in(rows: list[RequestRow], tmp_path_factory: pytest.TempPathFactory) -> None:
    table = RequestTable("demo_1", 2, "PREVIEW", "a@b.c", tuple(rows))
    assert parse_text(format_text(table)) == (table, [])
    path = tmp_path_factory.mktemp("r") / "r.fits"
    write_request(path, table)
    assert read_request(path) == table


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(
        st.lists(st.sampled_from([*SHORT.split(), "|", "#", "x" * 70, "ä", "-1", "1e400", "0", "\t"]), max_size=26),
        max_size=4,
    ),
    head=st.sampled_from([HEAD, "a 1\n", "a 2 b\n", ""]),
)
def test_any_text_is_a_table_or_a_refusal(lines: list[list[str]], head: str) -> None:
    text = head + "\n".join([SHORT if head == HEAD else "", *(" ".join(words) for words in lines)])
    try:
        table, _ = parse_text(text, source="r.txt")
    except UserError as error:
        message = str(error)
    else:
        assert parse_text(format_text(table))[0] == table
        return
    assert message.startswith("r.txt")
    assert message.isprintable()


# psmkreq


def test_the_defaults_of_psmkreq() -> None:
    table = make_request("a_1", email="a@b", ra=150.5, dec=-2.25)
    assert table == RequestTable(
        "a_1",
        2,
        "PROCESS",
        "a@b",
        (
            RequestRow(
                1, 150.5, -2.25, 100.0, 100.0, 2, "stamp", 2049, "gpc1", req_type="bycoord", img_type="stack"
            ),
        ),
    )  # fmt: skip
    assert parse_text(format_text(table)) == (table, [])
    assert check_rows(table, project_fault=project_fault, path="r.fits") == [[]]


def one_row(**options: Any) -> RequestRow:
    (row,) = make_request("a_1", email=None, **({"ra": 1.0, "dec": 2.0} | options)).rows
    return row


@pytest.mark.parametrize(
    ("options", "mask"),
    [
        ({}, 2049),
        ({"convolved": True}, 1),
        ({"options": Option.SELECT_IMAGE | Option.SELECT_MASK}, 2051),
        ({"option_mask": 5}, 5),
        ({"img_type": "warp"}, 1),
    ],
)
def test_the_bits_of_psmkreq(options: dict[str, Any], mask: int) -> None:
    assert one_row(**options).option_mask == mask


def test_centres_and_sizes_of_psmkreq() -> None:
    assert one_row(arcseconds=True, width=30).coord_mask == 0
    pixels = one_row(ra=None, dec=None, x=10, y=20.5, req_type="byid", id=7)
    assert (pixels.center_x, pixels.center_y, pixels.coord_mask, pixels.id) == (10.0, 20.5, 3, "7")
    whole = one_row(ra=None, dec=None, whole_file=True, req_type="byid", id="7")
    assert (whole.center_x, whole.center_y, whole.width, whole.height, whole.coord_mask) == (0, 0, 0, 0, 3)
    assert whole.whole_file
    placed = one_row(whole_file=True)
    assert (placed.center_x, placed.coord_mask, placed.whole_file) == (1.0, 2, True)
    bundle = one_row(ra=None, dec=None, job_type="get_image", req_type="byexp", img_type="raw", id="o1g1o")
    assert (bundle.whole_file, bundle.coord_mask) == (True, 3)
    assert one_row(width=None, reqfilt="i", comment=None) == one_row(reqfilt="i")


@pytest.mark.parametrize(
    ("ra", "dec", "degrees"),
    [
        ("10:30:00", "-00:30:36", (157.5, -0.51)),
        ("0:0:0.24", "+5:15", (0.001, 5.25)),
        ("150.5", ".5", (150.5, 0.5)),
    ],
)
def test_sexagesimal_positions(ra: str, dec: str, degrees: tuple[float, float]) -> None:
    row = one_row(ra=ra, dec=dec)
    assert (row.center_x, row.center_y) == pytest.approx(degrees, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ra": "1:60:00"}, "RA is '1:60:00'; expected degrees or h:m:s"),
        ({"ra": "1h"}, "RA is '1h'; expected degrees or h:m:s"),
        ({"dec": "1:2:61"}, "DEC is '1:2:61'; expected degrees or d:m:s"),
        ({"dec": math.nan}, "DEC is 'nan'; expected degrees or d:m:s"),
        ({"dec": None}, "the centre is not clear; expected RA and Dec, or x and y, or a list of targets"),
        ({"x": 1.0, "y": 1.0}, "the centre is not clear; expected RA and Dec, or x and y, or a list of targets"),
        ({"job_type": "get_image"}, "JOB_TYPE is 'get_image' with bycoord; expected byid or byexp"),
        ({"req_type": "byexp"}, "ID is not given; expected one, as byexp needs it"),
        ({"wdith": 5}, "WDITH is not a column of a request"),
        ({"width": "wide"}, "row 1: WIDTH is 'wide'; expected a number"),
        ({"option_mask": -1}, "row 1: OPTION_MASK is '-1'; expected a whole number from 0 to 2147483647"),
        ({"project": "p" * 17}, "row 1: PROJECT is 'ppppppppppppppppp' (17 characters); expected at most 16 ASCII"),
    ],
)
def test_what_psmkreq_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        one_row(**options)
    assert str(caught.value) == message


def test_a_list_of_targets() -> None:
    targets, warnings = parse_targets(
        "# name list\n\n 9 10:00:00 -5.5\n9 1.5 2 i\n3 1 2 r 55000 | first\n4 1 2 r 55000 55001.5 | a#b", source="t.txt"
    )
    assert warnings == ["t.txt, line 6: the first # of the comment is replaced by a blank"]
    rows = make_request("a_1", email=None, targets=targets, reqfilt="z", width=7).rows
    assert [(r.rownum, r.center_x, r.center_y, r.reqfilt, r.mjd_min, r.mjd_max, r.comment) for r in rows] == [
        (1, 150.0, -5.5, "z", 0.0, 0.0, None),
        (2, 1.5, 2.0, "i", 0.0, 0.0, None),
        (3, 1.0, 2.0, "r", 55000.0, 0.0, "first"),
        (4, 1.0, 2.0, "r", 55000.0, 55001.5, "a b"),
    ]
    assert {(row.width, row.coord_mask, row.option_mask) for row in rows} == {(7.0, 2, 2049)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2", "t.txt, line 2: there are 2 values; expected ROWNUM RA DEC [FILTER [MJD_MIN [MJD_MAX]]]"),
        ("1 2 3 4 5 6 7", "t.txt, line 2: there are 7 values; expected ROWNUM RA DEC [FILTER [MJD_MIN [MJD_MAX]]]"),
        ("1 x 3", "t.txt, line 2: RA is 'x'; expected degrees or h:m:s"),
        ("1 2 3:99", "t.txt, line 2: DEC is '3:99'; expected degrees or d:m:s"),
    ],
)
def test_targets_that_are_refused(line: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_targets("1 2 3\n" + line, source="t.txt")
    assert str(caught.value) == message


def test_targets_bring_their_own_centres() -> None:
    with pytest.raises(UserError, match="the centre is not clear"):
        make_request("a_1", email=None, ra=1.0, dec=2.0, targets=[{"center_x": 1.0, "center_y": 2.0}])


@pytest.mark.parametrize(
    ("line", "centre", "other"),
    [
        ("150.12 2.21", (150.12, 2.21), {}),
        ("0 -0.5", (0.0, -0.5), {}),
        ("150.12,2.21", (150.12, 2.21), {}),
        ("10:00:00 -5:30:00 i", (150.0, -5.5), {"reqfilt": "i"}),
        ("10 00 00, -5 30 00, i 55000", (150.0, -5.5), {"reqfilt": "i", "mjd_min": "55000"}),
        ("00 00 00 -00 30 00\r", (0.0, -0.5), {}),
        ("150.12\t2.21 null 55000 55001.5 | M 31\r", (150.12, 2.21),
         {"reqfilt": "null", "mjd_min": "55000", "mjd_max": "55001.5", "comment": "M 31"}),
    ],
)  # fmt: skip
def test_targets_as_people_paste_them(line: str, centre: tuple[float, float], other: dict[str, Any]) -> None:
    targets, warnings = parse_targets(f"# RA Dec\n\n{line}\n", numbered=False)
    expected = {"center_x": centre[0], "center_y": centre[1], "comment": None} | other
    assert (targets, warnings) == ([expected], [])


@pytest.mark.parametrize(
    ("line", "numbers", "values"),
    [
        ("150.12", 1, 1),
        ("name 150.12 2.21", 0, 3),
        ("7 150.12 2.21", 3, 3),
        ("150,12 2,21", 4, 4),
        ("10:00 5:30 3 4 5 6", 6, 6),
        ("1 2 i 55000 55001 deep", 2, 6),
    ],
)
def test_pasted_lines_that_could_be_misread_are_refused(line: str, numbers: int, values: int) -> None:
    with pytest.raises(UserError) as caught:
        parse_targets("1 2\n" + line, numbered=False, source="positions")
    assert str(caught.value) == (
        f"positions, line 2: it begins with {numbers} numbers and has {values} values; "
        "expected RA DEC [FILTER [MJD_MIN [MJD_MAX]]]"
    )
