"""PS1_PS_REQUEST files: every writer's habits are read, and what can't be read is refused by name."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pstamp_core.faults import Fault, RetryableError, UserError
from pstamp_core.formats import CoordMask, Option, RequestRow, RequestTable, read_request, write_request

ROW = RequestRow(
    rownum=7,
    center_x=150.12,
    center_y=-2.21,
    width=100.0,
    height=-50.5,
    coord_mask=2,
    job_type="stamp",
    option_mask=2049,
    project="gpc1",
    survey_name="3PI",
    ipp_release="3PI.PV9",
    req_type="byid",
    img_type="stack",
    id="60001",
    tess_id="RINGS.V3",
    component="skycell.1234.056",
    data_group="MD04.%",
    reqfilt="i",
    mjd_min=55200.25,
    mjd_max=55300.0,
    run_type="deep",
    fwhm_min=1.5,
    fwhm_max=9.0,
    comment="two | words",
)
TABLE = RequestTable("demo_1", 2, "PROCESS", "ana@obs.example.edu", (ROW,))
HEADER = {"EXTNAME": "PS1_PS_REQUEST", "EXTVER": "2", "REQ_NAME": "demo_1", "ACTION": "PROCESS", "EMAIL": "a@b.c"}
PLACE = [("ROWNUM", "J", [1, 2]), *((name, "D", [1.5, 2.5]) for name in ("CENTER_X", "CENTER_Y", "WIDTH", "HEIGHT"))]


def write(path: Path, columns: list[tuple[str, str, Any]], **header: Any) -> Path:
    """Write a table with astropy alone."""
    hdu = fits.BinTableHDU.from_columns([fits.Column(name, form, array=np.array(v)) for name, form, v in columns])
    for key, value in {**HEADER, **header}.items():
        if value is not None:
            hdu.header[key] = value
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    return path


def refusal(path: Path, **limits: int) -> str:
    with pytest.raises(UserError) as caught:
        read_request(path, **limits)
    assert caught.value.fault == Fault.PSTAMP_INVALID_REQUEST
    return str(caught.value)


# what is written


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_request(tmp_path / "r.fits", TABLE)
    assert read_request(tmp_path / "r.fits") == TABLE


def test_version_1_has_19_columns_and_is_processed(tmp_path: Path) -> None:
    table = RequestTable("demo_1", 1, "PREVIEW", "a@b.c", (ROW,))
    write_request(tmp_path / "r.fits", table)
    with fits.open(tmp_path / "r.fits") as hdus:
        assert len(hdus[1].columns) == 19
        assert "EMAIL" not in hdus[1].header
        assert "ACTION" not in hdus[1].header
    read = read_request(tmp_path / "r.fits")
    assert (read.extver, read.action, read.email) == (1, "PROCESS", None)
    (row,) = read.rows
    assert (row.survey_name, row.ipp_release, row.run_type, row.fwhm_min, row.fwhm_max) == (None, None, None, 0.0, 0.0)
    assert (row.id, row.mjd_max, row.comment) == ("60001", 55300.0, "two | words")


def test_the_layout_is_that_of_the_reference_writer(tmp_path: Path) -> None:
    write_request(tmp_path / "r.fits", TABLE)
    with fits.open(tmp_path / "r.fits") as hdus:
        header = hdus[1].header
        assert [header[key] for key in HEADER] == ["PS1_PS_REQUEST", "2", "demo_1", "PROCESS", "ana@obs.example.edu"]
        assert [f"{c.name} {c.format}" for c in hdus[1].columns] == [
            "ROWNUM J",
            "CENTER_X D",
            "CENTER_Y D",
            "WIDTH D",
            "HEIGHT D",
            "COORD_MASK J",
            "JOB_TYPE 16A",
            "OPTION_MASK J",
            "PROJECT 16A",
            "SURVEY_NAME 16A",
            "IPP_RELEASE 64A",
            "REQ_TYPE 16A",
            "IMG_TYPE 16A",
            "ID 16A",
            "TESS_ID 64A",
            "COMPONENT 64A",
            "DATA_GROUP 64A",
            "REQFILT 16A",
            "MJD_MIN D",
            "MJD_MAX D",
            "RUN_TYPE 16A",
            "FWHM_MIN D",
            "FWHM_MAX D",
            "COMMENT 64A",
        ]


def test_what_is_not_given_is_written_as_null(tmp_path: Path) -> None:
    write_request(tmp_path / "r.fits", RequestTable("n", 2, "PROCESS", None, (RequestRow(1, 0.0, 0.0, 0.0, 0.0),)))
    with fits.open(tmp_path / "r.fits") as hdus:
        assert hdus[1].header["EMAIL"] == "null"
        assert hdus[1].data["TESS_ID"][0] == "null"
    assert read_request(tmp_path / "r.fits").email is None


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_request(tmp_path / name, TABLE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert b"DATE" not in (tmp_path / "a").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"comment": "x" * 65}, "COMMENT is 'xxx"),
        ({"tess_id": "käse"}, "row 7: TESS_ID is 'k?se' (4 characters); expected at most 64, all ASCII"),
        ({"width": float("nan")}, "row 7: WIDTH is nan; expected a finite number"),
        ({"option_mask": -1}, "row 7: OPTION_MASK is -1; expected a whole number from 0 to 2147483647"),
        ({"bad": {"WIDTH": "wide"}}, "row 7: WIDTH is 'wide'; expected a number"),
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    table = replace(TABLE, rows=(replace(ROW, **changes),))
    with pytest.raises(UserError) as caught:
        write_request(tmp_path / "r.fits", table)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("req_name", "email"), [("a/b", "a@b.c"), ("ok", "ä@b.c"), ("ok", "a" * 69)])
def test_a_header_that_would_be_refused_is_not_written(tmp_path: Path, req_name: str, email: str) -> None:
    with pytest.raises(UserError, match="expected at most"):
        write_request(tmp_path / "r.fits", RequestTable(req_name, 2, "PROCESS", email, (ROW,)))
    assert list(tmp_path.iterdir()) == []


# writers' habits


@pytest.mark.parametrize("extver", [1, 2, "1", "2", "2  "])
def test_extver_is_a_string_or_an_integer(tmp_path: Path, extver: int | str) -> None:
    assert read_request(write(tmp_path / "r", PLACE, EXTVER=extver)).extver == int(extver)


def test_order_extra_columns_and_missing_columns(tmp_path: Path) -> None:
    columns = [
        ("EXTRA", "3D", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        ("STAMP_NAME", "2000A", ["x", "y"]),
        *reversed(PLACE),
        ("REQ_TYPE", "7A", ["bycoord", "byid"]),
    ]
    first, second = read_request(write(tmp_path / "r", columns)).rows
    assert first == RequestRow(1, 1.5, 1.5, 1.5, 1.5, req_type="bycoord")
    assert second == RequestRow(2, 2.5, 2.5, 2.5, 2.5, req_type="byid")


def test_numbers_of_any_width(tmp_path: Path) -> None:
    columns = [
        ("ROWNUM", "K", [1, 2]),
        ("CENTER_X", "E", [150.25, 1e3]),
        ("CENTER_Y", "I", [-5, 6]),
        ("WIDTH", "J", [100, 200]),
        ("HEIGHT", "B", [7, 8]),
        ("COORD_MASK", "D", [2.0, 3.0]),
        ("OPTION_MASK", "5A", ["2049", " 7 "]),
        ("MJD_MIN", "8A", ["55200.5", "null"]),
        ("ID", "J", [60001, 0]),
        ("COMPONENT", "D", [12.0, 12.5]),
    ]
    first, second = read_request(write(tmp_path / "r", columns)).rows
    assert first == RequestRow(
        1, 150.25, -5.0, 100.0, 7.0, 2, option_mask=2049, mjd_min=55200.5, id="60001", component="12"
    )
    assert second == RequestRow(2, 1000.0, 6.0, 200.0, 8.0, 3, option_mask=7, id="0", component="12.5")
    assert type(first.center_y) is float
    assert type(first.coord_mask) is int


def test_unsigned_columns_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "r"
    columns = [
        fits.Column("ROWNUM", "J", bzero=2**31, array=np.array([3, 2**32 - 1], dtype=np.uint32)),
        fits.Column("OPTION_MASK", "J", null=-1, array=np.array([5, -1])),
        fits.Column("ID", "K", null=-9, array=np.array([-9, 44])),
        fits.Column("CENTER_X", "J", null=-9, array=np.array([-9, 44])),
        fits.Column("MJD_MIN", "J", null=-9, array=np.array([-9, 44])),
    ]
    hdu = fits.BinTableHDU.from_columns(columns)
    hdu.header.update(HEADER)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    first, second = read_request(path).rows
    assert (first.rownum, first.option_mask, first.id, first.mjd_min) == (3, 5, None, 0.0)
    assert first.bad["CENTER_X"] == ""
    assert (second.center_x, second.mjd_min) == (44.0, 44.0)
    assert (second.rownum, second.option_mask, second.id) == (0, 0, "44")
    assert second.bad["ROWNUM"] == "4294967295"
    assert "OPTION_MASK" not in second.bad


def test_padded_and_lower_case_names(tmp_path: Path) -> None:
    path = write(tmp_path / "r", [*PLACE, ("DATA_GROUP", "8A", ["md", "x"]), ("COMMENT", "8A", ["hello", ""])])
    content = path.read_bytes()
    for name, padded in ((b"'DATA_GROUP'", b"'DATA_GROUP '"), (b"'COMMENT '  ", b"' comment  '")):
        assert content.count(name) == 1
        content = content.replace(name + b" " * (len(padded) - len(name)), padded)
    path.write_bytes(content)
    first, second = read_request(path).rows
    assert (first.data_group, first.comment) == ("md", "hello")
    assert (second.data_group, second.comment) == ("x", None)


def test_label_stands_in_for_data_group(tmp_path: Path) -> None:
    assert read_request(write(tmp_path / "a", [*PLACE, ("LABEL", "4A", ["l1", "l2"])])).rows[1].data_group == "l2"
    both = [*PLACE, ("LABEL", "4A", ["l1", "l2"]), ("DATA_GROUP", "4A", ["d1", ""])]
    assert [row.data_group for row in read_request(write(tmp_path / "b", both)).rows] == ["d1", None]


def test_version_1_knows_no_columns_of_version_2(tmp_path: Path) -> None:
    columns = [*PLACE, ("SURVEY_NAME", "4A", ["3PI", "3PI"]), ("FWHM_MAX", "D", [1.0, np.nan])]
    rows = read_request(write(tmp_path / "r", columns, EXTVER=1)).rows
    assert [(row.survey_name, row.fwhm_max) for row in rows] == [(None, 0.0)] * 2


def test_null_strings_blanks_and_strange_bytes(tmp_path: Path) -> None:
    cells = [b"NULL", b" Null ", b"  ", b"", b" two words  ", b"ab\0cd", "käse".encode(), b"k\xe4se", b"a\nb\x1b"]
    columns = [(name, form, np.resize(values, len(cells))) for name, form, values in PLACE]
    path = write(tmp_path / "r", [*columns, ("COMMENT", "16A", cells)])
    comments = [row.comment for row in read_request(path).rows]
    assert comments == [None, None, None, None, "two words", "ab", "käse", "käse", "a?b?"]


def test_header_values_are_kept_for_the_check(tmp_path: Path) -> None:
    table = read_request(write(tmp_path / "r", PLACE, REQ_NAME="../x y", ACTION=" preview", EMAIL="NULL"))
    assert (table.req_name, table.action, table.email) == ("../x y", "PREVIEW", None)
    table = read_request(write(tmp_path / "s", PLACE, REQ_NAME=None, ACTION=None, EMAIL=None))
    assert (table.req_name, table.action, table.email) == ("", "", None)
    path = write(tmp_path / "t", PLACE, REQ_NAME="abcd")
    path.write_bytes(path.read_bytes().replace(b"'abcd", "'ab\xe4".encode()))
    assert read_request(path).req_name == "ab??"
    assert read_request(write(tmp_path / "u", PLACE, REQ_NAME="n" * 300)).req_name == "n" * 300
    assert read_request(write(tmp_path / "v", PLACE, REQ_NAME=12)).req_name == "12"


def test_values_that_make_no_sense_do_not_spoil_the_file(tmp_path: Path) -> None:
    columns = [
        ("ROWNUM", "8A", ["one", "2"]),
        ("CENTER_X", "8A", ["12:30:00", "1.5e2"]),
        ("CENTER_Y", "D", [np.nan, -np.inf]),
        ("HEIGHT", "8A", ["null", "-.5"]),
        ("COORD_MASK", "D", [2.5, np.nan]),
        ("OPTION_MASK", "J", [-1, 3]),
    ]
    first, second = read_request(write(tmp_path / "r", columns)).rows
    assert first.bad == {
        "ROWNUM": "one",
        "CENTER_X": "12:30:00",
        "WIDTH": "",
        "HEIGHT": "null",
        "COORD_MASK": "2.5",
        "OPTION_MASK": "-1",
    }
    assert (first.rownum, first.coord_mask, first.option_mask) == (0, 0, 0)
    assert np.isnan([first.center_x, first.center_y, first.width, first.height]).all()
    assert second.bad == {"WIDTH": "", "COORD_MASK": "nan"}
    assert (second.rownum, second.center_x, second.center_y, second.height) == (2, 150.0, -np.inf, -0.5)


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    assert read_request(write(tmp_path / "r", [("ROWNUM", "J", np.zeros(0))])).rows == ()


# what rows know


def test_what_a_row_asks_for() -> None:
    row = RequestRow(1, -10.0, 5.0, -100.0, 50.0, coord_mask=2, option_mask=8194)
    assert row.options == Option.SELECT_IMAGE | Option.SELECT_MASK | Option.MULTI_OVERLAP_IMAGE
    assert (row.center_in_pixels, row.size_in_pixels, row.whole_file) == (False, True, False)
    assert (row.size, row.sky_center) == ((100.0, 50.0), (350.0, 5.0))
    assert RequestRow(1, 360.0, 0.0, 1.0, 1.0).sky_center == (0.0, 0.0)


@pytest.mark.parametrize(
    ("center", "size", "mask", "whole"),
    [
        ((5.0, 5.0), (0.0, 0.0), 2, True),
        ((5.0, 5.0), (0.0, 10.0), 2, False),
        ((0.0, 0.0), (10.0, 10.0), CoordMask.CENTER_IN_PIXELS, True),
        ((0.0, 0.0), (10.0, 10.0), CoordMask.RANGE_IN_PIXELS, False),
        ((0.0, 1.0), (10.0, 10.0), CoordMask.CENTER_IN_PIXELS, False),
    ],
)
def test_whole_file(center: tuple[float, float], size: tuple[float, float], mask: int, whole: bool) -> None:
    assert RequestRow(1, *center, *size, coord_mask=int(mask)).whole_file is whole


@pytest.mark.parametrize(("component", "only"), [(None, None), ("ALL", None), ("XY33", "XY33")])
def test_all_is_no_component(component: str | None, only: str | None) -> None:
    assert RequestRow(1, 0.0, 0.0, 0.0, 0.0, component=component).only_component == only


# files that are refused


def test_not_fits(tmp_path: Path) -> None:
    path = tmp_path / "r.fits"
    expected = "r.fits: this is not a FITS file; expected a file that begins with SIMPLE, not compressed"
    path.write_text("<html>Not found</html>")
    assert refusal(path) == expected
    path.write_bytes(b"")
    assert refusal(path) == expected
    path.write_bytes(gzip.compress(b"SIMPLE  =                    T" + b" " * 5000))
    assert refusal(path) == expected
    path.write_bytes(b"SIMPLE  =                    T" + b" " * 3_000_000)
    assert refusal(path) == "r.fits: a header has no END; expected one within 10000 cards"


def test_not_a_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "r.fits") == "r.fits: there is no such file; expected a FITS file"
    assert refusal(tmp_path) == f"{tmp_path.name}: this is not a regular file; expected a FITS file"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == "pipe: this is not a regular file; expected a FITS file"


def test_a_disk_that_fails_is_not_the_user_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_request(tmp_path / "r.fits", TABLE)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(RetryableError, match=r"r\.fits: can't be read: Input/output error"):
        read_request(tmp_path / "r.fits")


def test_a_server_short_of_memory_is_not_the_user_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_request(tmp_path / "r.fits", TABLE)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(fits, "open", fail)
    with pytest.raises(MemoryError):
        read_request(tmp_path / "r.fits")


def test_fits_without_such_a_table(tmp_path: Path) -> None:
    path = tmp_path / "r.fits"
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(path)
    assert refusal(path) == "r.fits: there is no first extension; expected a binary table there"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((3, 3)))]).writeto(path, overwrite=True)
    assert refusal(path) == "r.fits: the first extension is not a binary table; expected a binary table there"
    write(tmp_path / "s.fits", PLACE, EXTNAME="PS1_PS_RESULTS")
    assert refusal(tmp_path / "s.fits") == "s.fits: EXTNAME is 'PS1_PS_RESULTS'; expected PS1_PS_REQUEST"
    write(tmp_path / "t.fits", PLACE, EXTNAME=None)
    assert refusal(tmp_path / "t.fits") == "t.fits: EXTNAME is None; expected PS1_PS_REQUEST"


@pytest.mark.parametrize(
    ("extver", "text"), [(3, "'3'"), ("two", "'two'"), (None, "''"), ("2.0", "'2.0'"), (True, "'True'")]
)
def test_versions_that_do_not_exist(tmp_path: Path, extver: Any, text: str) -> None:
    write(tmp_path / "r.fits", PLACE, EXTVER=extver)
    assert refusal(tmp_path / "r.fits") == f"r.fits: EXTVER is {text}; expected 1 or 2"


def test_truncated(tmp_path: Path) -> None:
    path = tmp_path / "r.fits"
    write_request(path, RequestTable("demo_1", 2, "PROCESS", "a@b.c", (ROW,) * 20))
    content = path.read_bytes()
    start = content.index(b"END".ljust(80), 2880) // 2880 * 2880 + 2880
    size = start + 20 * 524
    path.write_bytes(content[: size - 1])
    assert refusal(path) == f"r.fits: the file is cut short: it has {size - 1} bytes; expected {size} for 20 rows"
    path.write_bytes(content[:size])  # only the padding is missing
    assert len(read_request(path).rows) == 20
    path.write_bytes(content[:4000])
    assert refusal(path) == "r.fits: a header has no END; expected one within 10000 cards"


def claim(path: Path, **claims: int) -> Path:
    """Write a good file, then let its header lie."""
    write(path, PLACE)
    content = path.read_bytes()
    for key, value in claims.items():
        at = content.index(key.encode().ljust(8) + b"=", 2880)
        content = content[: at + 10] + str(value).rjust(20).encode() + content[at + 30 :]
    path.write_bytes(content)
    return path


def test_a_header_that_claims_too_much(tmp_path: Path) -> None:
    path = tmp_path / "r.fits"
    assert (
        refusal(claim(path, NAXIS2=10**9))
        == "r.fits: the table has 1000000000 rows (NAXIS2); expected at most 100000, "
        "so send it in parts"
    )
    path.unlink()
    assert "the file is cut short" in refusal(claim(path, NAXIS2=99_999))
    path.unlink()
    assert "the file is cut short" in refusal(claim(path, NAXIS1=10**12))
    path.unlink()
    assert "the file is cut short" in refusal(claim(path, PCOUNT=10**12))
    path.unlink()
    assert refusal(claim(path, NAXIS2=-1)) == (
        "r.fits: NAXIS1, NAXIS2, PCOUNT are 36, -1, 0; expected numbers that are not negative"
    )
    path.unlink()
    assert refusal(claim(path, NAXIS1=35)) == "r.fits: NAXIS1 is 35; expected 36, the sum of the columns"


def test_limits(tmp_path: Path) -> None:
    path = write(tmp_path / "r.fits", PLACE)
    size = path.stat().st_size
    assert len(read_request(path, max_rows=2, max_bytes=size).rows) == 2
    assert refusal(path, max_rows=1) == "r.fits: the table has 2 rows (NAXIS2); expected at most 1, so send it in parts"
    assert (
        refusal(path, max_bytes=size - 1)
        == f"r.fits: the file has more than {size - 1} bytes; expected a smaller table"
    )


def test_a_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "r.fits", PLACE)
    os.truncate(path, 10**12)
    assert refusal(path, max_bytes=10**6) == "r.fits: the file has more than 1000000 bytes; expected a smaller table"


def test_a_cell_of_a_million_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "r.fits", [("ROWNUM", "J", [1]), ("COMMENT", "1000000A", ["x" * 10**6])])
    assert refusal(path) == "r.fits: column COMMENT is 1000000 characters wide; expected at most 1024"
    path = write(tmp_path / "s.fits", [("ROWNUM", "J", [1]), ("COMMENT", "1024A", ["x" * 1024])])
    assert read_request(path).rows[0].comment == "x" * 1024


def test_columns_that_are_no_column_of_values(tmp_path: Path) -> None:
    write(tmp_path / "a.fits", [*PLACE[1:], ("ROWNUM", "2J", [[1, 2], [3, 4]])])
    assert refusal(tmp_path / "a.fits") == "a.fits: column ROWNUM has TFORM '2J'; expected one number or one text"
    write(tmp_path / "b.fits", [*PLACE, ("COMMENT", "PA(9)", np.array(["x", "y"], dtype=object))])
    assert "column COMMENT has TFORM 'PA(1)'" in refusal(tmp_path / "b.fits")
    write(tmp_path / "c.fits", [*PLACE, ("ID", "C", [1j, 2j])])
    assert "column ID has TFORM 'C'" in refusal(tmp_path / "c.fits")
    path = write(tmp_path / "d.fits", [*PLACE, ("COMMENT", "8A", ["x", "y"])])
    path.write_bytes(path.read_bytes().replace(b"TTYPE5  = 'HEIGHT", b"TTYPE5  = 'WIDTH "))
    assert refusal(path) == "d.fits: column 'WIDTH' occurs 2 times; expected each name once"
    hdu = fits.BinTableHDU.from_columns([fits.Column("ID", "8A", dim="(4,2)", array=np.array([["ab", "cd"]]))])
    hdu.header.update(HEADER)
    hdu.writeto(tmp_path / "e.fits")
    assert (
        refusal(tmp_path / "e.fits") == "e.fits: column ID holds arrays (TDIM '(4,2)'); expected one value in each cell"
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "r.fits"
    write_request(path, TABLE)
    return path.read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_refused_or_read_but_never_a_traceback(good: bytes, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(10, len(content) - 1) | st.integers(2880, 2880 + 80 * 60))
        content[at] = data.draw(st.integers(0, 255) | st.sampled_from(b"0123456789ADEPQ' ="))
    path = tmp_path / "damaged.fits"
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    try:
        assert all(isinstance(row, RequestRow) for row in read_request(path).rows)
    except UserError as error:
        message, fault = str(error), error.fault
    else:
        return
    assert fault == Fault.PSTAMP_INVALID_REQUEST
    assert message.startswith("damaged.fits: ")
    assert message.isprintable()
