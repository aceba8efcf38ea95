"""The three indexes against the examples of the protocol's description, and back again."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pstamp_core.datastore.index import (
    FileEntry,
    FilesetEntry,
    ProductEntry,
    read_fileset_index,
    read_product_index,
    read_root_index,
    root_index,
)
from pstamp_core.datastore.index import fileset_index as fileset_lines
from pstamp_core.datastore.index import product_index as product_lines

ROOT = """\
# productID  |Most recent |Time registered     |type     |Description                     |
field_frames |none        |2026-02-11T09:00:00Z|image    |Demonstration frames            |
cutout_asks  |vega_0042   |2026-03-04T05:06:07Z|psrequest|Incoming cutout requests        |
cutout_results|vega_0042   |2026-03-04T05:31:40Z|psresults|Finished cutouts                |
"""
PRODUCTS = [
    ProductEntry("field_frames", None, datetime(2026, 2, 11, 9, tzinfo=UTC), "image", "Demonstration frames"),
    ProductEntry(
        "cutout_asks", "vega_0042", datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC), "psrequest", "Incoming cutout requests"
    ),
    ProductEntry(
        "cutout_results", "vega_0042", datetime(2026, 3, 4, 5, 31, 40, tzinfo=UTC), "psresults", "Finished cutouts"
    ),
]

PRODUCT = """\
# filesetID|time registered     |type     |req_id|
vega_0040  |2026-03-04T04:10:00Z|PSRESULTS|91    |
vega_0041  |2026-03-04T04:55:12Z|PSRESULTS|null  |
vega_0042  |2026-03-04T05:31:40Z|PSRESULTS|93    |
"""
FILESETS = [
    FilesetEntry("vega_0040", datetime(2026, 3, 4, 4, 10, tzinfo=UTC), "PSRESULTS", ("91",)),
    FilesetEntry("vega_0041", datetime(2026, 3, 4, 4, 55, 12, tzinfo=UTC), "PSRESULTS", (None,)),
    FilesetEntry("vega_0042", datetime(2026, 3, 4, 5, 31, 40, tzinfo=UTC), "PSRESULTS", ("93",)),
]

FILESET = """\
# fileID          |bytes   |md5sum                          |type        |
results.fits      |11520   |62d71657ba0f9a3b2dc8bf0382aedee2|table       |
# fileID          |bytes   |md5sum                          |type        |component|
results.mdc       |4133    |c75d4098d234ee520522887c2cddc62a|text        |
parse_error.txt   |61      |65d0b09c00a0a84cf6c2a964ffb8ebd3|text        |
# fileID          |bytes   |md5sum                          |type        |
1_1_r_demo.0007.fits|23040   |746ea49d8e1ca78f1a0459b26fa4b9d7|pstamp      |
1_1_r_demo.0007.mk.fits|8640    |c58fac03b19f1749229ac4c41ea35a9e|pstamp      |
1_1_r_demo.0007.jpg|5219    |54cb19f7b4da6da355a776fa2b95eb23|pstamp      |
1_1_r_demo.0007.psf|14400   |fecc2961c0b6ebfdcea30e769202cd7b|fits        |
"""
FILES = [
    FileEntry("results.fits", 11520, "62d71657ba0f9a3b2dc8bf0382aedee2", "table"),
    FileEntry("results.mdc", 4133, "c75d4098d234ee520522887c2cddc62a", "text"),
    FileEntry("parse_error.txt", 61, "65d0b09c00a0a84cf6c2a964ffb8ebd3", "text"),
    FileEntry("1_1_r_demo.0007.fits", 23040, "746ea49d8e1ca78f1a0459b26fa4b9d7", "pstamp"),
    FileEntry("1_1_r_demo.0007.mk.fits", 8640, "c58fac03b19f1749229ac4c41ea35a9e", "pstamp"),
    FileEntry("1_1_r_demo.0007.jpg", 5219, "54cb19f7b4da6da355a776fa2b95eb23", "pstamp"),
    FileEntry("1_1_r_demo.0007.psf", 14400, "fecc2961c0b6ebfdcea30e769202cd7b", "fits"),
]
MD5 = "0" * 32


def product_index(filesets: list[FilesetEntry], labels: Sequence[str | None] = ()) -> str:
    values = [[value or "null" for value in (*entry.values, *[None] * 8)[:8]] for entry in filesets]
    texts = [(entry.name, entry.type, *own) for entry, own in zip(filesets, values, strict=True)]
    longest = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = list(product_lines(filesets, labels, longest[: 2 + len(labels)]))
    assert all(line.endswith("|\n") and line.count("\n") == 1 for line in lines)
    return "".join(lines)


def fileset_index(files: list[FileEntry], labels: Mapping[str, Sequence[str | None]] | None = None) -> str:
    lines = list(fileset_lines(files, labels))
    assert all(line.endswith("|\n") and line.count("\n") == 1 for line in lines)
    return "".join(lines)


def test_the_root_index_is_the_example_whatever_the_order_of_its_rows() -> None:
    assert root_index(PRODUCTS[::-1]) == ROOT
    assert read_root_index(ROOT) == PRODUCTS


def test_the_product_index_is_the_example() -> None:
    assert product_index(FILESETS, ("req_id",)) == PRODUCT
    assert read_product_index(PRODUCT) == FILESETS


def test_the_fileset_index_is_the_example() -> None:
    assert fileset_index(FILES, {"text": ("component",), "tgz": ("component",)}) == FILESET
    assert read_fileset_index(FILESET) == FILES


def test_indexes_without_rows_are_their_headers() -> None:
    assert root_index([]) == ROOT.splitlines(keepends=True)[0]
    assert product_index([], ("req_id", None)) == "# filesetID|time registered|type|req_id|\n"
    assert fileset_index([]) == FILESET.splitlines(keepends=True)[0]


def test_own_columns_end_at_the_first_label_that_is_missing() -> None:
    entry = FilesetEntry("a", datetime(2026, 3, 4, tzinfo=UTC), "PSRESULTS", ("91", None, "c", "d"))
    assert product_index([entry], ("req_id", "user", None, "unseen")).splitlines() == [
        "# filesetID|time registered     |type     |req_id|user|",
        "a          |2026-03-04T00:00:00Z|PSRESULTS|91    |null|",
    ]


def test_all_values_of_a_file_are_shown_with_the_gaps_between_them() -> None:
    files = [
        FileEntry("a", 1, MD5, "tgz", ("XY33",)),
        FileEntry("b", 2, "", "tgz", ("1", None, "3")),
        FileEntry("c", 3, MD5, "tgz", tuple("12345678")),
    ]
    text = fileset_index(files, {"tgz": ("component", "b", None, "d")})
    assert text.splitlines() == [
        FILESET.splitlines()[2] + "b       |",
        f"a                 |1       |{MD5}|tgz         |XY33    |",
        f"b                 |2       |{' ' * 32}|tgz         |1       |null    |3       |",
        f"c                 |3       |{MD5}|tgz         |" + "".join(f"{digit}       |" for digit in "12345678"),
    ]
    assert read_fileset_index(text) == files


def test_columns_are_as_wide_as_their_longest_text_or_their_label() -> None:
    assert list(product_lines(FILESETS[:1], ("req_id", "b", None), [12, 9, 0, 7])) == [
        "# filesetID |time registered     |type     |req_id|b      |\n",
        "vega_0040   |2026-03-04T04:10:00Z|PSRESULTS|91    |null   |\n",
    ]


def test_types_with_equal_columns_share_a_header() -> None:
    files = [FileEntry("a", 1, MD5, "text"), FileEntry("b", 1, MD5, "tgz"), FileEntry("c", 1, MD5, "text")]
    text = fileset_index(files, {"text": ("component",), "tgz": ("component", None)})
    assert text.count("#") == 1


def test_times_are_utc_in_whole_seconds() -> None:
    moment = datetime(2026, 3, 4, 1, 2, 3, 999999, tzinfo=timezone(timedelta(hours=-10)))
    assert "|2026-03-04T11:02:03Z|" in product_index([FilesetEntry("a", moment, "PSRESULTS")])


def test_characters_that_would_break_a_row_become_blanks() -> None:
    entry = ProductEntry("p", None, datetime(2026, 3, 4, tzinfo=UTC), "image", "a|b#c\nd\te")
    assert [row.description for row in read_root_index(root_index([entry]))] == ["a b c d e"]
    assert product_index([], ("a|b#\n",)) == "# filesetID|time registered|type|a b  |\n"
    fileset = FilesetEntry("p", datetime(2026, 3, 4, tzinfo=UTC), "t", ("1|2",))
    assert product_index([fileset], ("a",)).splitlines()[1] == "p          |2026-03-04T00:00:00Z|t   |1 2|"
    assert fileset_index([FileEntry("n", 1, MD5, "t", ("1|2",))], {"t": ("a#b",)}).splitlines() == [
        FILESET.splitlines()[0] + "a b     |",
        f"n                 |1       |{MD5}|t           |1 2     |",
    ]


@pytest.mark.parametrize(
    "row",
    [
        "a/b|1||text|",
        "..|1||text|",
        ".|1||text|",
        "|1||text|",
        "a|||text|",
        "a|-1||text|",
        "a|1.5||text|",
        "a|²||text|",
        "a|٣||text|",
        f"a|{'9' * 19}||text|",
        f"a|{'9' * 5000}||text|",
        f"a|1|{'A' * 32}|text|",
        f"a|1|{'a' * 31}|text|",
        "a|1||te/xt|",
        "a|1|||",
        "a|1||text|co#mment|",
        "a|1|",
        " # a|1||text|",
    ],
)
def test_a_file_row_that_breaks_a_rule_is_dropped_alone(row: str) -> None:
    assert read_fileset_index(f"first|1||text|\n\n{row}\r\n   \n last one | 2 | |te[x]t|") == [
        FileEntry("first", 1, "", "text"),
        FileEntry("last one", 2, "", "te[x]t"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        "b|2026-03-04 05:06:07|PSRESULTS|",
        "b|2026-13-04T05:06:07Z|PSRESULTS|",
        "b|2026-03-04T05:06:07.5Z|PSRESULTS|",
        "b|2026-03-04T05:06:07Z|",
        "b|2026-03-04T05:06:07Z|PS/RESULTS|",
        "b/c|2026-03-04T05:06:07Z|PSRESULTS|",
    ],
)
def test_a_fileset_row_that_breaks_a_rule_is_dropped_alone(row: str) -> None:
    text = f"a|2026-03-04T05:06:07Z|PSRESULTS|null|\n{row}\nc|2026-03-04T05:06:07Z|PSRESULTS\n"
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert read_product_index(text) == [
        FilesetEntry("a", moment, "PSRESULTS", (None,)),
        FilesetEntry("c", moment, "PSRESULTS"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        "p|none|2026-03-04T05:06:07Z|image|",
        "p|..|2026-03-04T05:06:07Z|image|d|",
        "p/q|none|2026-03-04T05:06:07Z|image|d|",
        "p|none|never|image|d|",
        "p|none|2026-03-04T05:06:07Z|im/age|d|",
    ],
)
def test_a_product_row_that_breaks_a_rule_is_dropped_alone(row: str) -> None:
    assert read_root_index(f"{row}\n{ROOT}") == PRODUCTS


def test_a_product_row_may_have_an_empty_description_and_further_fields() -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    text = "p|none|2026-03-04T05:06:07Z|image||\nq|none|2026-03-04T05:06:07Z|image|d|more|\n"
    assert read_root_index(text) == [
        ProductEntry("p", None, moment, "image", ""),
        ProductEntry("q", None, moment, "image", "d"),
    ]


NAMES = st.text("AZaz09-+_.:", min_size=1, max_size=70).filter(lambda name: name not in (".", "..", "none", "null"))
TEXTS = st.text(st.characters(exclude_categories=("C",), exclude_characters="|#"), max_size=40).map(str.strip)
VALUES = st.text("azAZ09 .-", min_size=1, max_size=20).map(str.strip).filter(lambda text: text not in ("", "null"))
TIMES = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
FILE_VALUES = st.lists(st.none() | VALUES, max_size=8).map(
    lambda values: tuple(values) if values and values[-1] else ()
)
MD5S = st.one_of(st.just(""), st.text("0123456789abcdef", min_size=32, max_size=32))


@settings(deadline=None)
@given(st.lists(st.builds(ProductEntry, NAMES, st.none() | NAMES, TIMES, NAMES, TEXTS)))
def test_what_is_written_in_the_root_index_is_read_again(products: list[ProductEntry]) -> None:
    assert read_root_index(root_index(products)) == sorted(products, key=lambda entry: (entry.type, entry.name))


@settings(deadline=None)
@given(
    st.integers(0, 8).flatmap(
        lambda n: st.tuples(
            st.lists(VALUES, min_size=n, max_size=n),
            st.lists(st.builds(FilesetEntry, NAMES, TIMES, NAMES, st.tuples(*[st.none() | VALUES] * n))),
        )
    )
)
def test_what_is_written_in_a_product_index_is_read_again(case: tuple[list[str], list[FilesetEntry]]) -> None:
    labels, filesets = case
    text = product_index(filesets, labels)
    assert read_product_index(text) == filesets
    assert len({len(line) for line in text.splitlines()}) == 1


@settings(deadline=None)
@given(
    st.lists(st.builds(FileEntry, NAMES, st.integers(0, 10**17), MD5S, NAMES, FILE_VALUES)),
    st.dictionaries(NAMES, st.lists(VALUES, max_size=4)),
)
def test_what_is_written_in_a_fileset_index_is_read_again(files: list[FileEntry], labels: dict[str, list[str]]) -> None:
    assert read_fileset_index(fileset_index(files, labels)) == files


@settings(deadline=None)
@given(st.text(st.sampled_from("|#\n\r .aZ0:-T²\x85"), max_size=200) | st.text())
def test_no_text_is_too_odd_to_read(text: str) -> None:
    read_root_index(text)
    read_product_index(text)
    read_fileset_index(text)
