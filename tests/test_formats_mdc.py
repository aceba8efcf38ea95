"""Rows as `pstamptool` prints them, byte by byte, and the way back."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pstamp_core.faults import UserError
from pstamp_core.formats import read_rows
from pstamp_core.tasks.tool.rows import Rows

SEEN = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
DEMO = Rows(
    "demoRow",
    [("num_id", "S64"), ("nick", "STR"), ("note", "STR"), ("seen", "UTC"), ("fault", "S16"), ("is_parent", "BOOL")],
    [(11, "red fox", None, SEEN, 0, False), (12, "owl", "x", None, None, None)],
)


def test_the_metadata_config_form() -> None:
    """The example of IPP's form; the tag UTC instead of TAI, and F for a NULL, are ours."""
    assert DEMO.text().replace(" ", "·") == (
        "demoRow·MULTI\n"
        "\n"
        "demoRow··METADATA··\n"
        "···num_id···········S64·······11·············\n"
        "···nick·············STR·······red·fox·········\n"
        "···note·············STR·······NULL············\n"
        "···seen·············UTC·······2031-02-03T04:05:06.000000\n"
        "···fault············S16·······0··············\n"
        "···is_parent········BOOL······F··············\n"
        "END\n"
        "\n"
        "demoRow··METADATA··\n"
        "···num_id···········S64·······12·············\n"
        "···nick·············STR·······owl·············\n"
        "···note·············STR·······x···············\n"
        "···seen·············UTC·······NULL···········\n"
        "···fault············S16·······32767··········\n"
        "···is_parent········BOOL······F··············\n"
        "END\n"
        "\n"
    )


def test_the_simple_form() -> None:
    """NULL is printed, so that columns can be counted."""
    assert DEMO.simple() == "11 red_fox NULL 2031-02-03T04:05:06.000000 0 F\n12 owl x NULL 32767 F\n"


def test_no_rows_print_nothing() -> None:
    empty = Rows("demoRow", DEMO.columns, [])
    assert (empty.text(), empty.simple()) == ("", "")


@pytest.mark.parametrize(
    ("kind", "value", "text", "simple"),
    [
        ("S16", -5, "-5             ", "-5"),
        ("S32", None, "2147483647     ", "2147483647"),
        ("S64", None, "9223372036854775807", "9223372036854775807"),
        ("F32", 55000.123, "55000.12       ", "55000.123000"),
        ("F64", 55000.123, "55000.123      ", "55000.123000"),
        ("F64", 1 / 3, "0.333333333333333", "0.333333"),
        ("F64", 0.0, "0              ", "0.000000"),
        ("F32", None, "nan            ", "nan"),
        ("BOOL", True, "T              ", "T"),
        ("STR", "", "NULL            ", "NULL"),
        ("STR", "   ", "NULL            ", "NULL"),
        ("STR", "a name of more than fifteen", "a name of more than fifteen ", "a_name_of_more_than_fifteen"),
        ("STR", "a\nEND\r\n\tb\x85", "a?END???b?      ", "a?END???b?"),
        ("STR", "Łódź", "Łódź            ", "Łódź"),
        ("UTC", SEEN.astimezone(timezone(timedelta(hours=2))), "2031-02-03T04:05:06.000000", None),
    ],
)
def test_a_value(kind: str, value: Any, text: str, simple: str | None) -> None:
    rows = Rows("r", [("column", kind)], [(value,)])
    assert rows.text() == f"r MULTI\n\nr  METADATA  \n   column           {kind:<8}  {text}\nEND\n\n"
    if simple is not None:
        assert rows.simple() == f"{simple}\n"


def test_a_long_name_widens_its_field() -> None:
    rows = Rows("r", [("a_name_of_eighteen", "S32")], [(1,)])
    assert "\n   a_name_of_eighteen  S32       1              \n" in rows.text()


# -- the way back


@pytest.mark.parametrize("tag", ["TAI", "UTC"])
@pytest.mark.parametrize("header", ["demoRow MULTI\n", ""])
def test_what_ipp_prints_is_read(tag: str, header: str) -> None:
    text = DEMO.text().replace(" UTC ", f" {tag} ").replace("demoRow MULTI\n", header)
    assert read_rows(text) == [
        ("demoRow", {"num_id": 11, "nick": "red fox", "note": None, "seen": SEEN, "fault": 0, "is_parent": False}),
        ("demoRow", {"num_id": 12, "nick": "owl", "note": "x", "seen": None, "fault": None, "is_parent": False}),
    ]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("priority S64 10000", 10000),
        ("priority U32 10000", 10000),
        ("priority S32 2147483647", None),
        ("priority S64 2147483647", 2147483647),
        ("priority U16 32767", 32767),
        ("priority U16 65535", None),
        ("mjd F32 nan", None),
        ("text STR NULL", None),
        ("text STR 32767", "32767"),
    ],
)
def test_null_goes_by_the_type(line: str, value: object) -> None:
    assert read_rows(f"r METADATA\n{line}\nEND\n") == [("r", {line.split()[0]: value})]


@pytest.mark.parametrize("value", ["yesterday", "2031-02-30T00:00:00", "T"])
def test_a_damaged_time_is_refused(value: str) -> None:
    with pytest.raises(UserError) as caught:
        read_rows(f"r METADATA\nseen TAI {value}\nEND\n", source="out")
    assert str(caught.value) == f"out, line 2: {value!r}; expected a value of type TAI"


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "S16": st.integers(-(2**15), 2**15 - 2),
    "S32": st.integers(-(2**31), 2**31 - 2),
    "S64": st.integers(-(2**63), 2**63 - 2),
    "F64": st.floats(allow_nan=False, allow_infinity=False),
    "BOOL": st.booleans(),
    "STR": st.text(max_size=20),
    "UTC": st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),
}


def as_read(kind: str, value: Any) -> Any:
    """What is left of a value: 15 digits, a text without its outer blanks and control characters."""
    if kind == "F64" and value is not None:
        return float(f"{value:.15g}")
    if kind == "STR":
        text = "".join("?" if each < " " or "\x7f" <= each <= "\x9f" else each for each in value or "")
        return None if (text := text.strip()) in ("", "NULL") else text
    return bool(value) if kind == "BOOL" else value


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_text_gives_back_the_rows(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6))
    columns = [(f"column{n}", kind) for n, kind in enumerate(kinds)]
    row = st.tuples(*(st.none() | VALUES[kind] for kind in kinds))
    rows = Rows("record", columns, data.draw(st.lists(row, max_size=3)))
    read = read_rows(rows.text())
    assert read == [
        ("record", {name: as_read(kind, value) for (name, kind), value in zip(columns, row, strict=True)})
        for row in rows.rows
    ]
    lines = rows.simple().split("\n")
    assert lines.pop() == ""
    assert [len(line.split(" ")) for line in lines] == [len(columns)] * len(rows.rows)


def test_the_largest_float_is_a_value() -> None:
    ((_, values),) = read_rows(Rows("r", [("x", "F64")], [(1e300,)]).text())
    assert math.isclose(values["x"], 1e300)
