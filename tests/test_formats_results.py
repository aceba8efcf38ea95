"""PS1_PS_RESULTS and its metadata config text: exact columns, documented nulls, and the way back."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from pstamp_core.faults import Bug, Fault, UserError, fault_sentence
from pstamp_core.formats import (
    RequestRow,
    RequestTable,
    read_mdc,
    read_results,
    request_columns,
    results_mdc,
    write_request,
    write_results,
)
from pstamp_core.formats.results import COLUMNS

ROW = RequestRow(
    4, 150.12, -2.21, -100.0, 50.0, 2, "stamp", 66, "gpc1", None, "3PI.PV9", "byid", "stack", "60001", None, "all",
    None, "i", 54000.0, 0.0, "deep", 1.5, 9.0, "two | words",
)  # fmt: skip

# name TFORM of the original's columns; V is J with TZERO 2147483648
ORIGINAL = """ROWNUM V, ERROR_CODE V, ERROR_STR 24A, IMG_NAME 64A, JOB_ID K, RA_DEG D, DEC_DEG D, MJD_OBS D, RA_OBS D,
DEC_OBS D, FILTER 16A, EXPTIME D, FPA_ID 20A, PROJECT 16A, JOB_TYPE 16A, REQ_TYPE 16A, IMG_TYPE 16A, ID 16A,
TESS_ID 64A, COMPONENT 64A, DATA_GROUP 64A, OPTION_MASK J, MJD_MIN D, MJD_MAX D, REQFILT 16A, COORD_MASK J, CENTER_X D,
CENTER_Y D, WIDTH D, HEIGHT D, COMMENT 64A"""
OURS = """SURVEY_NAME 16A, IPP_RELEASE 64A, RUN_TYPE 16A, FWHM_MIN D, FWHM_MAX D, CAUSE V, SENTENCE 255A, BOX_X0 J,
BOX_Y0 J, BOX_NX J, BOX_NY J, IMG_X0 J, IMG_Y0 J, IMG_NX J, IMG_NY J, FRAC_IMAGE D, FRAC_FINITE D, INPUT_IMAGE 255A,
MD5 32A, WAIT_S D"""


def write(path: Path, *rows: dict[str, Any]) -> Path:
    write_results(path, "demo_1", 77, rows)
    return path


def read_one(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    (read,) = read_results(write(path, row)).rows
    return read


def test_the_columns(tmp_path: Path) -> None:
    with fits.open(write(tmp_path / "r", {"ROWNUM": 1})) as hdus:
        columns = hdus[1].columns
        found = [
            f"{c.name} {'V' if (c.format, c.bzero) == ('J', 2147483648) else c.format}" for c in columns
        ]  # fmt: skip
        assert ", ".join(found) == f"{ORIGINAL}, {OURS}".replace("\n", " ")
        assert {c.name: c.unit for c in columns if c.unit and c.name in ORIGINAL} == {
            "RA_DEG": "deg", "DEC_DEG": "deg", "MJD_OBS": "d", "RA_OBS": "deg", "DEC_OBS": "deg", "EXPTIME": "s",
            "MJD_MIN": "d", "MJD_MAX": "d",
        }  # fmt: skip
        for n, column in enumerate(COLUMNS, 1):
            assert hdus[1].header.comments[f"TTYPE{n}"] == column.meaning


def test_the_header(tmp_path: Path) -> None:
    with fits.open(write(tmp_path / "r")) as hdus:
        header = hdus[1].header
        assert [header[key] for key in ("EXTNAME", "EXTVER", "REQ_NAME", "REQ_ID")] == [
            "PS1_PS_RESULTS",
            1,
            "demo_1",
            77,
        ]
    write_results(tmp_path / "s", "dämo", 1, [])
    assert read_results(tmp_path / "s").req_name == "d?mo"
    read = read_results(tmp_path / "r")
    assert (read.req_name, read.req_id, read.rows) == ("demo_1", 77, ())


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    row = {"ROWNUM": 1, "IMG_NAME": "a.fits", **request_columns(ROW)}
    assert write(tmp_path / "a", row).read_bytes() == write(tmp_path / "b", row).read_bytes()
    assert b"DATE" not in (tmp_path / "a").read_bytes()


def test_what_is_not_given_is_null(tmp_path: Path) -> None:
    row = read_one(tmp_path / "r", {})
    assert list(row) == [column.name for column in COLUMNS]
    derived = {"ERROR_STR": "PSTAMP_SUCCESS", "SENTENCE": "The product was delivered."}
    for name, value in row.items():
        if name in derived:
            assert value == derived[name]
        elif name in ("SURVEY_NAME", "IPP_RELEASE", "RUN_TYPE", "INPUT_IMAGE", "MD5"):
            assert value == "null"
        else:
            assert value in (0, "0")


def test_a_request_row_is_repeated_as_it_was_written(tmp_path: Path) -> None:
    row = read_one(tmp_path / "r", {"ROWNUM": 4, **request_columns(ROW)})
    assert {name: row[name] for name in list(row)[13:36]} == {
        "PROJECT": "gpc1", "JOB_TYPE": "stamp", "REQ_TYPE": "byid", "IMG_TYPE": "stack", "ID": "60001",
        "TESS_ID": "null", "COMPONENT": "all", "DATA_GROUP": "null", "OPTION_MASK": 66, "MJD_MIN": 54000.0,
        "MJD_MAX": 0.0, "REQFILT": "i", "COORD_MASK": 2, "CENTER_X": 150.12, "CENTER_Y": -2.21, "WIDTH": -100.0,
        "HEIGHT": 50.0, "COMMENT": "two | words", "SURVEY_NAME": "null", "IPP_RELEASE": "3PI.PV9", "RUN_TYPE": "deep",
        "FWHM_MIN": 1.5, "FWHM_MAX": 9.0,
    }  # fmt: skip


def test_all_values_come_back(tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    for n, column in enumerate(COLUMNS, 1):
        given[column.name] = (
            f"text {n}" if column.tform.endswith("A") else n + 0.25 if column.tform == "D" else n * 1000
        )
    given |= {"ROWNUM": 2**32 - 1, "JOB_ID": 2**63 - 1, "BOX_X0": -(2**31), "RA_DEG": math.inf}
    assert read_one(tmp_path / "r", given) == given


@pytest.mark.parametrize("code", [0, 4, 31, 99, *Fault])
def test_the_code_brings_its_name_and_sentence(tmp_path: Path, code: int) -> None:
    row = read_one(tmp_path / "r", {"ERROR_CODE": code})
    assert row["ERROR_STR"] == (Fault(code).name if code != 99 else "unknown")[:24]
    assert row["SENTENCE"] == fault_sentence(code)


def test_texts_are_cut_to_their_columns(tmp_path: Path) -> None:
    row = read_one(
        tmp_path / "r",
        {"COMMENT": "c" * 70, "SENTENCE": "s" * 256, "FILTER": "Käse\n", "INPUT_IMAGE": "i" * 300, "MD5": "x" * 33},
    )
    assert row["COMMENT"] == "c" * 64
    assert row["SENTENCE"] == "s" * 252 + "..."
    assert row["FILTER"] == "K?se?"
    assert (len(row["INPUT_IMAGE"]), len(row["MD5"])) == (255, 32)
    assert read_one(tmp_path / "r", {"SENTENCE": "s" * 255})["SENTENCE"] == "s" * 255


def test_the_name_of_a_product_is_never_changed(tmp_path: Path) -> None:
    assert read_one(tmp_path / "r", {"IMG_NAME": "n" * 64})["IMG_NAME"] == "n" * 64
    for name in ("n" * 65, "ä.fits", "a\nb"):
        with pytest.raises(Bug, match="expected a name of at most 64 ASCII characters"):
            write(tmp_path / "s", {"IMG_NAME": name})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"ROWNUM": -1}, "results table: ROWNUM is -1; expected 0 to 4294967295"),
        ({"BOX_X0": 2**31}, "results table: BOX_X0 is 2147483648; expected -2147483648 to 2147483647"),
        ({"JOB_ID": 2**63}, f"results table: JOB_ID is {2**63}; expected {-(2**63)} to {2**63 - 1}"),
        ({"ROWNUN": 1}, "results table: there is no column ROWNUN"),
    ],
)
def test_what_can_not_be_a_result(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(Bug) as caught:
        write(tmp_path / "r", row)
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


def test_reading_the_original_s_results(tmp_path: Path) -> None:
    columns = [fits.Column("ROWNUM", "J", bzero=2**31, array=np.array([3], dtype=np.uint32))]
    columns += [fits.Column("IMG_NAME", "64A", array=["a.fits"]), fits.Column("OTHER", "2D", array=[[1.0, 2.0]])]
    hdu = fits.BinTableHDU.from_columns(columns)
    hdu.header.update({"EXTNAME": "PS1_PS_RESULTS", "REQ_NAME": "x", "REQ_ID": 2**40})
    hdu.writeto(tmp_path / "r.fits")
    read = read_results(tmp_path / "r.fits")
    assert (read.req_name, read.req_id, read.rows) == ("x", 2**40, ({"ROWNUM": 3, "IMG_NAME": "a.fits"},))


def test_results_that_are_refused(tmp_path: Path) -> None:
    write_request(tmp_path / "q.fits", RequestTable("demo_1", 2, "PROCESS", "a@b", (ROW,)))
    with pytest.raises(UserError, match=r"q\.fits: EXTNAME is 'PS1_PS_REQUEST'; expected PS1_PS_RESULTS"):
        read_results(tmp_path / "q.fits")
    path = write(tmp_path / "r.fits")
    path.write_bytes(path.read_bytes().replace(b"REQ_ID  =                   77", b"REQ_ID  = 'seven'             "))
    with pytest.raises(UserError, match=r"r\.fits: REQ_ID is 'seven'; expected a number"):
        read_results(path)


# metadata config text


def test_a_results_table_as_text(tmp_path: Path) -> None:
    path = write(tmp_path / "r", {"ROWNUM": 1, "RA_DEG": 150.1234567890123, "IMG_NAME": "a.fits"}, {"ROWNUM": 2})
    lines = results_mdc(path).split("\n")
    assert lines[:8] == [
        "ROW_0  METADATA",
        "ROWNUM           U32       1",
        "ERROR_CODE       U32       0",
        "ERROR_STR        STR       PSTAMP_SUCCESS",
        "IMG_NAME         STR       a.fits",
        "JOB_ID           S64       0",
        "RA_DEG           F64       150.1234567890123",
        "DEC_DEG          F64       0",
    ]
    assert lines[len(COLUMNS) + 1 : len(COLUMNS) + 5] == ["END", "", "ROW_1  METADATA", "ROWNUM           U32       2"]
    assert lines[-2:] == ["END", ""]
    assert "BOX_X0           S32       0" in lines


def test_no_rows_are_no_text(tmp_path: Path) -> None:
    assert results_mdc(write(tmp_path / "r")) == ""
    assert read_mdc("") == []


def test_every_type_as_text(tmp_path: Path) -> None:
    columns = [
        fits.Column("B", "B", array=np.array([200], dtype=np.uint8)),
        fits.Column("I", "I", array=[-5]),
        fits.Column("E", "E", array=[0.5]),
        fits.Column("L", "L", array=[True]),
        fits.Column("L2", "L", array=[False]),
        fits.Column("NANS", "D", array=[np.nan]),
        fits.Column("TEXT", "9A", array=[b"a\nb"]),
        fits.Column("EMPTY", "9A", array=[b""]),
        fits.Column("BLANK", "9A", array=[b"   "]),
        fits.Column("NONE", "J", array=[-1], null=-1),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "r.fits")
    text = results_mdc(tmp_path / "r.fits")
    assert [line.split() for line in text.split("\n")[1:-2]] == [
        ["B", "U8", "200"], ["I", "S16", "-5"], ["E", "F32", "0.5"], ["L", "BOOL", "T"], ["L2", "BOOL", "F"],
        ["NANS", "F64", "nan"], ["TEXT", "STR", "a?b"], ["EMPTY", "STR", "NULL"], ["BLANK", "STR", "NULL"],
        ["NONE", "S32", "NULL"],
    ]  # fmt: skip
    ((name, values),) = read_mdc(text)
    assert name == "ROW_0"
    assert math.isnan(values.pop("NANS"))
    assert values == {
        "B": 200, "I": -5, "E": 0.5, "L": True, "L2": False, "TEXT": "a?b", "EMPTY": None, "BLANK": None, "NONE": None
    }  # fmt: skip


def test_a_request_as_text(tmp_path: Path) -> None:
    write_request(tmp_path / "q.fits", RequestTable("demo_1", 2, "PROCESS", "a@b", (ROW,)))
    ((_, values),) = read_mdc(results_mdc(tmp_path / "q.fits"))
    assert len(values) == 24
    assert (values["ROWNUM"], values["COMMENT"], values["CENTER_Y"]) == (4, "two | words", -2.21)


_texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=70)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "ROWNUM": st.integers(0, 2**32 - 1),
                "JOB_ID": st.integers(-(2**63), 2**63 - 1),
                "BOX_X0": st.integers(-(2**31), 2**31 - 1),
                "RA_DEG": st.floats(allow_nan=False),
                "WIDTH": st.floats(allow_nan=False),
                "COMMENT": _texts,
                "SENTENCE": _texts,
            }
        ),
        max_size=3,
    )
)
def test_text_gives_back_the_table(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.mktemp("r") / "r.fits", *rows)
    read = read_results(path).rows
    blocks = read_mdc(results_mdc(path))
    assert [name for name, _ in blocks] == [f"ROW_{n}" for n in range(len(rows))]
    for (_, values), row in zip(blocks, read, strict=True):
        assert values == {name: None if value in ("", "NULL") else value for name, value in row.items()}
    for given_row, row in zip(rows, read, strict=True):
        for name in ("ROWNUM", "JOB_ID", "BOX_X0", "RA_DEG", "WIDTH"):
            assert row[name] == given_row[name]


def test_rows_of_a_database_are_read_too() -> None:
    text = """demoRow MULTI

demoRow  METADATA\x20\x20
   num_id           S64       11\x20\x20\x20
   nick             STR       red fox\x20\x20
   note             STR       NULL\x20\x20
   empty            STR
   seen             TAI       2031-02-03T04:05:06.000000
   is_parent        BOOL      F\x20\x20
END

# a remark
demoRow  METADATA
   num_id           S64       12
   METADATA         STR       x
   END              S32       5
END

"""
    assert read_mdc(text) == [
        (
            "demoRow",
            {
                "num_id": 11, "nick": "red fox", "note": None, "empty": "",
                "seen": datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC), "is_parent": False,
            },
        ),
        ("demoRow", {"num_id": 12, "METADATA": "x", "END": 5}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A METADATA\nX S32 1\n", "r.mdc: block A has no END"),
        ("X S32 1\n", "r.mdc, line 1: 'X S32 1'; expected NAME METADATA"),
        ("A METADATA\nB METADATA\nEND\n", "r.mdc, line 2: 'B METADATA'; expected NAME TYPE VALUE or END"),
        ("A METADATA\nX\nEND\n", "r.mdc, line 2: 'X'; expected NAME TYPE VALUE or END"),
        ("A METADATA\nX S32 one\nEND\n", "r.mdc, line 2: 'one'; expected a value of type S32"),
        ("A METADATA\nX F64\nEND\n", "r.mdc, line 2: ''; expected a value of type F64"),
        ("A METADATA\nX BOOL 1\nEND\n", "r.mdc, line 2: '1'; expected a value of type BOOL"),
        ("A METADATA\nEND\nEND\n", "r.mdc, line 3: 'END'; expected NAME METADATA"),
    ],
)
def test_text_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_mdc(text, source="r.mdc")
    assert str(caught.value) == message
