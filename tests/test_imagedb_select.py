"""Selection: every REQ_TYPE with every IMG_TYPE, condition and state, and the sentence when nothing is left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mariadb
import pytest
from astropy.io.fits import Header
from peewee import Model
from playhouse.test_utils import assert_query_count

from pstamp_core.faults import FinalError, PstampError, RetryableError, UserError
from pstamp_core.imagedb import Facts, Image, ImageDB, OnSky, Selection, classify
from pstamp_core.imagedb import select as select_module
from pstamp_core.imagedb import tables as t

SIZE = 100
PIXEL = 1e-3
CHIPS = {"XY01": (150.00, 2.0), "XY02": (150.11, 2.0)}  # 0.1 degrees wide, side by side
CELLS = {"skycell.1.001": (150.0, 2.0), "skycell.1.002": (150.08, 2.0)}  # overlapping from 150.03 to 150.05
ON_BOTH = (150.04, 2.0)
ON_FIRST, ON_SECOND, BESIDE = (149.98, 2.0), (150.10, 2.0), (151.0, 2.0)
TESS = "RINGS.V3"


def header(centre: tuple[float, float]) -> Header:
    return Header({
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": centre[0], "CRVAL2": centre[1], "CRPIX1": SIZE / 2 + 0.5,
        "CRPIX2": SIZE / 2 + 0.5, "CDELT1": -PIXEL, "CDELT2": PIXEL, "RADESYS": "ICRS",
    })  # fmt: skip


class Survey:
    """Writes rows of a small survey; ids are given by the caller, exposure n has runs n*10 + 1, 2, ..."""

    def __init__(self, db: ImageDB, root: Path) -> None:
        self.db, self.root = db, root

    def put(self, table: type[Model], **columns: Any) -> None:
        with self.db.session():
            table.insert(columns).execute()

    def set(self, table: type[Model], condition: Any, **columns: Any) -> None:
        with self.db.session():
            assert table.update(columns).where(condition).execute() > 0

    def lies(self, stage: str, stage_id: int, cells: dict[str, tuple[float, float]]) -> None:
        self.db.add_footprints(
            OnSky(stage, stage_id, name, header(centre), SIZE, SIZE) for name, centre in cells.items()
        )

    def exposure(self, exp_id: int, filter_: str = "r.00000", day: int = 1, **columns: Any) -> None:
        common: dict[str, Any] = {
            "dateobs": datetime(2010, 3, day, 12, tzinfo=UTC), "filter": filter_, "ra": math.radians(150.05),
            "decl": math.radians(2.0), "exp_time": 40.0,
        }  # fmt: skip
        self.put(t.rawExp, exp_id=exp_id, exp_name=f"o{exp_id}g0001o", camera="GPC1", **common | columns)
        for number, chip in enumerate(CHIPS):
            self.put(
                t.rawImfile, raw_imfile_id=exp_id * 100 + number, exp_id=exp_id, class_id=chip,
                uri=f"raw/{exp_id}.{chip}.fits", **common,
            )  # fmt: skip
        self.lies("raw", exp_id, CHIPS)

    def chips(self, chip_id: int, exp_id: int, state: str = "full", **columns: Any) -> None:
        """A chip run, with a camera and a fake run of the same number."""
        self.put(t.chipRun, chip_id=chip_id, exp_id=exp_id, state=state, **{"data_group": "Survey.1"} | columns)
        self.put(t.camRun, cam_id=chip_id, chip_id=chip_id, state="full")
        self.put(t.fakeRun, fake_id=chip_id, cam_id=chip_id)
        for number, chip in enumerate(CHIPS):
            self.put(t.chipImfile, chip_imfile_id=chip_id * 100 + number, chip_id=chip_id, class_id=chip)
            self.put(
                t.chipProcessedImfile, chip_id=chip_id, exp_id=exp_id, class_id=chip, data_state=state,
                path_base=f"chip/{chip_id}.{chip}",
            )  # fmt: skip
        self.lies("chip", chip_id, CHIPS)

    def warps(self, warp_id: int, chip_id: int, state: str = "full", tess_id: str = TESS, **columns: Any) -> None:
        self.put(
            t.warpRun, warp_id=warp_id, fake_id=chip_id, state=state, tess_id=tess_id,
            **{"data_group": "Survey.1"} | columns,
        )  # fmt: skip
        for number, cell in enumerate(CELLS):
            self.put(t.warpImfile, warp_skyfile_id=warp_id * 100 + number, warp_id=warp_id, skycell_id=cell)
            self.put(
                t.warpSkyfile, warp_id=warp_id, skycell_id=cell, tess_id=tess_id, data_state=state,
                path_base=f"warp/{warp_id}.{cell}",
            )  # fmt: skip
        self.lies("warp", warp_id, CELLS)

    def diffs(self, diff_id: int, mode: int, *, bothways: bool = False, **inputs: int | None) -> None:
        self.put(t.diffRun, diff_id=diff_id, state="full", data_group="Survey.1", tess_id=TESS, bothways=bothways,
                 diff_mode=mode)  # fmt: skip
        for number, cell in enumerate(CELLS):
            self.put(t.diffInputSkyfile, diff_skyfile_id=diff_id * 100 + number, diff_id=diff_id, skycell_id=cell,
                     tess_id=TESS, **inputs)  # fmt: skip
            self.put(
                t.diffSkyfile, diff_id=diff_id, skycell_id=cell, data_state="full", path_base=f"diff/{diff_id}.{cell}"
            )
        self.lies("diff", diff_id, CELLS)

    def stack(self, stack_id: int, cell: str, filter_: str = "r.00000", state: str = "full", **columns: Any) -> None:
        self.put(t.stackRun, stack_id=stack_id, state=state, skycell_id=cell, filter=filter_,
                 **{"tess_id": TESS, "data_group": "Survey.1"} | columns)  # fmt: skip
        self.put(t.stackSumSkyfile, stack_id=stack_id, path_base=f"stack/{stack_id}", mjd_obs=55256.5)
        self.lies("stack", stack_id, {cell: CELLS[cell]})

    def select(self, req_type: str, img_type: str, **columns: Any) -> list[Image]:
        return self.db.select(Selection(req_type=req_type, img_type=img_type, **columns))

    def found(self, req_type: str, img_type: str, **columns: Any) -> list[tuple[int, str]]:
        return [(image.stage_id, image.component) for image in self.select(req_type, img_type, **columns)]

    def answer(self, req_type: str, img_type: str, **columns: Any) -> tuple[int, str]:
        with pytest.raises(PstampError) as caught:
            self.select(req_type, img_type, **columns)
        return caught.value.fault, str(caught.value)


@pytest.fixture(scope="module")
def mysql(mysql_server: str) -> Iterator[str]:
    with mariadb.database(mysql_server) as address:
        yield address


@pytest.fixture
def address(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The address of an image database; on MariaDB one for all tests, which make it empty: tables take long there."""
    return str(tmp_path / "images.db") if engine == "sqlite" else str(request.getfixturevalue("mysql"))


@pytest.fixture
def empty(address: str, tmp_path: Path) -> Iterator[Survey]:
    db = ImageDB(address, tmp_path / "images")
    db.create()
    with db.session():
        with db.db.atomic():
            for table in t.TABLES:
                table.delete().execute()
        yield Survey(db, tmp_path / "images")


@pytest.fixture
def survey(empty: Survey) -> Survey:
    """Two exposures of two chips and skycells; warps 11 and 21; differences of all kinds; a stack for each skycell."""
    with empty.db.db.atomic():
        for exp, filter_ in ((1, "r.00000"), (2, "i.00000")):
            empty.exposure(exp, filter_, day=exp)
            empty.chips(exp * 10 + 1, exp)
            empty.warps(exp * 10 + 1, exp * 10 + 1)
        first, second = CELLS
        empty.stack(1, first)
        empty.stack(2, second)
        empty.stack(3, first, "i.00000")
        empty.diffs(1, 1, bothways=True, warp1=11, warp2=21, stack1=None, stack2=None)
        empty.diffs(2, 2, warp1=11, warp2=0, stack1=2**63 - 1, stack2=1)
        empty.diffs(3, 3, warp1=2**63 - 1, warp2=21, stack1=1, stack2=None)
        empty.diffs(4, 4, warp1=None, warp2=None, stack1=1, stack2=3)
    return empty


C1, C2 = CHIPS
S1, S2 = CELLS


@pytest.mark.parametrize(
    ("img_type", "position", "expected"),
    [
        ("raw", ON_FIRST, [(1, C1), (2, C1)]),
        ("chip", ON_SECOND, [(11, C2), (21, C2)]),
        ("warp", ON_FIRST, [(11, S1), (21, S1)]),
        ("warp", ON_BOTH, [(11, S1), (11, S2), (21, S1), (21, S2)]),
        # Without exposures (SQL sorts these first), then exposure 1 by number downwards, then exposure 2.
        ("diff", ON_SECOND, [(4, S2), (2, S2), (1, S2), (3, S2)]),
        ("stack", ON_FIRST, [(3, S1), (1, S1)]),
        ("stack", ON_BOTH, [(3, S1), (2, S2), (1, S1)]),
    ],
)
def test_bycoord(survey: Survey, img_type: str, position: tuple[float, float], expected: list[tuple[int, str]]) -> None:
    assert survey.found("bycoord", img_type, position=position) == expected


@pytest.mark.parametrize(
    ("img_type", "number", "expected"),
    [("raw", 1, [C1, C2]), ("chip", 11, [C1, C2]), ("warp", 21, [S1, S2]), ("diff", 2, [S1, S2]), ("stack", 3, [S1])],
)
def test_byid(survey: Survey, img_type: str, number: int, expected: list[str]) -> None:
    everything = [(number, name) for name in expected]
    assert survey.found("byid", img_type, id=str(number), component="all", position=ON_FIRST) == everything
    assert survey.found("byid", img_type, id=str(number)) == everything  # centre in pixels
    assert survey.found("byid", img_type, id=str(number), position=ON_FIRST) == everything[:1]
    assert survey.found("byid", img_type, id=str(number), component=expected[-1].upper(), position=ON_FIRST) == [
        everything[-1]
    ]


@pytest.mark.parametrize(
    ("img_type", "expected"),
    [("raw", [(2, C1), (2, C2)]), ("chip", [(21, C1), (21, C2)]), ("warp", [(21, S1), (21, S2)]),
     ("diff", [(3, S1), (3, S2)])],
)  # fmt: skip
def test_byexp(survey: Survey, img_type: str, expected: list[tuple[int, str]]) -> None:
    assert survey.found("byexp", img_type, id="O2G0001O") == expected
    assert survey.found("byexp", img_type, id="o2g0001o", position=ON_SECOND) == expected[1:]
    assert survey.found("byexp", img_type, id="o2g0001o", component=expected[0][1], position=ON_SECOND) == expected[:1]


@pytest.mark.parametrize(
    ("img_type", "expected"), [("warp", [11, 21]), ("diff", [4, 2, 1, 3]), ("stack", [3, 1])]
)  # fmt: skip
def test_byskycell(survey: Survey, img_type: str, expected: list[int]) -> None:
    found = survey.found("byskycell", img_type, tess_id="rings.v3", component=S1.upper(), position=BESIDE)
    assert found == [(number, S1) for number in expected]


@pytest.mark.parametrize(
    ("req_type", "img_type", "fault", "message"),
    [
        ("byexp", "stack", 11, "{asked}: a stack has many exposures; use bycoord or byskycell"),
        ("byskycell", "raw", 23, "{asked}: only warp, diff and stack images lie on skycells"),
        ("byskycell", "chip", 23, "{asked}: only warp, diff and stack images lie on skycells"),
        ("bydiff", "warp", 11, "{asked} is not implemented on this server"),
        ("bycoord", "stack_summary", 11, "{asked} is not implemented on this server"),
        ("byname", "stack", 21, "REQ_TYPE 'byname': expected byid, byexp, bydiff, bycoord or byskycell"),
        ("byid", "cutout", 21, "IMG_TYPE 'cutout': expected raw, chip, warp, stack, diff or stack_summary"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(survey: Survey, req_type: str, img_type: str, fault: int, message: str) -> None:
    message = message.format(asked=f"REQ_TYPE {req_type} with IMG_TYPE {img_type}")
    assert survey.answer(req_type, img_type, id="1", position=ON_FIRST) == (fault, message)


@pytest.mark.parametrize(
    ("req_type", "columns", "message"),
    [
        ("byid", {"id": "o1g0001o"}, "ID 'o1g0001o': expected the number of a warp run"),
        ("byid", {"id": None}, "ID '': expected the number of a warp run"),
        ("byid", {"id": "-1"}, "ID '-1': expected the number of a warp run"),
        ("byid", {"id": "1" * 99}, f"ID '{'1' * 64}': expected the number of a warp run"),
        ("byid", {"id": "\u0661"}, "ID '\u0661': expected the number of a warp run"),
        ("byid", {"id": "1", "mjd_min": math.nan}, "MJD_MIN nan: expected a number of days"),
        ("byid", {"id": "1", "mjd_max": math.inf}, "MJD_MAX inf: expected a number of days"),
        ("bycoord", {}, "REQ_TYPE bycoord needs a position; expected RA and Dec, COORD_MASK bit 1 clear"),
        ("bycoord", {"position": (400.0, 0.0)}, "position RA 400 Dec 0: expected RA 0 to 360, Dec -90 to 90 degrees"),
    ],
)
def test_values_that_are_none(survey: Survey, req_type: str, columns: dict[str, Any], message: str) -> None:
    assert survey.answer(req_type, "warp", **columns) == (21, message)


def test_ids_of_files(survey: Survey) -> None:
    assert survey.found("byid", "raw", id="101", options=16384, position=BESIDE) == [(1, C2)]
    assert survey.found("byid", "chip", id="1101", options=16384) == [(11, C2)]
    assert survey.found("byid", "warp", id="2100", options=16384) == [(21, S1)]
    assert survey.found("byid", "stack", id="3", options=16384) == [(3, S1)]
    assert survey.found("byid", "diff", id="3", options=16384, position=ON_FIRST) == [(3, S1)]
    assert survey.answer("byid", "chip", id="11", options=16384) == (23, "no chip image of chip file 11")
    # The bit does not leak into other request types.
    assert survey.found("byexp", "chip", id="o1g0001o", options=16384) == [(11, C1), (11, C2)]
    assert survey.found("bycoord", "chip", position=ON_FIRST, options=16384) == [(11, C1), (21, C1)]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"reqfilt": "r"}, [11]), ({"reqfilt": "R"}, [11]), ({"reqfilt": "i%"}, [21]),
        ({"reqfilt": "_.0000_"}, [11, 21]),
        ({"reqfilt": "I.00000"}, [21]), ({"data_group": "survey.1"}, [11, 21]), ({"data_group": "SURVEY%"}, [11, 21]),
        ({"mjd_min": 55257.0}, [21]), ({"mjd_max": 55257.0}, [11]), ({"mjd_min": 41}, [11, 21]),
        ({"mjd_max": 1e300}, [11, 21]), ({"tess_id": "RINGS.V3"}, [11, 21]), ({"component": "SKYCELL.1.001"}, [11, 21]),
        ({"component": "All"}, [11, 21]), ({"run_type": "warp_warp"}, [11, 21]),
    ],
)  # fmt: skip
def test_conditions_on_warps(survey: Survey, columns: dict[str, Any], expected: list[int]) -> None:
    found = survey.found("bycoord", "warp", position=ON_FIRST, **columns)
    assert found == [(number, S1) for number in expected]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"reqfilt": "z"}, "2 warp images of RA 149.98 Dec 2, none of them with REQFILT 'z%'"),
        ({"reqfilt": "r", "data_group": "Other%", "mjd_min": 55000.0},
         "2 warp images of RA 149.98 Dec 2, 1 of them with REQFILT 'r%', "
         "none of them with DATA_GROUP 'Other%'"),
        ({"tess_id": "MD04.V3"}, "2 warp images of RA 149.98 Dec 2, none of them with TESS_ID 'MD04.V3'"),
        ({"component": S2}, "2 warp images of RA 149.98 Dec 2, none of them with COMPONENT 'skycell.1.002'"),
        ({"mjd_max": 55255.0, "tess_id": TESS},
         "2 warp images of RA 149.98 Dec 2, none of them with MJD_MAX 55255"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_condition_that_excluded_the_last(
    survey: Survey, columns: dict[str, Any], sentence: str
) -> None:
    assert survey.answer("bycoord", "warp", position=ON_FIRST, **columns) == (23, sentence)


def test_nothing_at_all(survey: Survey) -> None:
    assert survey.answer("bycoord", "warp", position=BESIDE) == (23, "no warp image of RA 151 Dec 2")
    assert survey.answer("byid", "warp", id="99") == (23, "no warp image of warp 99")
    assert survey.answer("byexp", "chip", id="o9") == (23, "no chip image of exposure 'o9'")
    assert survey.answer("byexp", "diff", id="o9") == (23, "no diff image of exposure 'o9'")
    assert survey.answer("byskycell", "stack", tess_id=TESS, component="x") == (23, "no stack image of skycell 'x'")
    needs = "REQ_TYPE byskycell needs both TESS_ID and COMPONENT (tessellation and skycell)"
    assert survey.answer("byskycell", "stack", tess_id=TESS) == (23, needs)
    assert survey.answer("byskycell", "stack", component=S1) == (23, needs)
    assert survey.answer("byid", "raw", id="1", data_group="x%") == (
        23, "2 raw images of exposure 1, none of them with DATA_GROUP 'x%'",
    )  # fmt: skip


def test_off_every_component_is_28_and_an_unknown_place_is_25(survey: Survey) -> None:
    assert survey.answer("byid", "chip", id="11", position=BESIDE) == (
        28, "RA 151 Dec 2 is on none of 2 chip images of chip 11",
    )  # fmt: skip
    assert survey.answer("byexp", "diff", id="o1g0001o", position=BESIDE)[0] == 28
    survey.set(t.pstampImage, t.pstampImage.stage == "chip", stage="gone")
    assert survey.answer("byid", "chip", id="11", position=ON_FIRST) == (
        25, "where 2 chip images of chip 11 lie on the sky is not known (no footprint)",
    )  # fmt: skip
    assert survey.found("byid", "stack", id="1", position=BESIDE) == [(1, S1)]  # the stamp itself answers 28


def test_a_box_takes_all_that_it_touches(survey: Survey) -> None:
    near_first = (149.94, 2.0)
    wide, narrow = (0.2, 0.01), (0.05, 0.01)
    assert survey.found("byid", "chip", id="11", position=near_first, size_deg=narrow, options=8192) == [(11, C1)]
    assert survey.found("byid", "chip", id="11", position=ON_FIRST, size_deg=(0.2, 0.01), options=8192) == [
        (11, C1),
        (11, C2),
    ]
    assert survey.found("bycoord", "chip", position=near_first, size_deg=(0.3, 0.01), options=8192) == [
        (11, C1), (11, C2), (21, C1), (21, C2),
    ]  # fmt: skip
    assert survey.answer("bycoord", "chip", position=near_first, size_deg=wide)[0] == 23  # without the bit
    assert survey.answer("bycoord", "chip", position=near_first, options=8192)[0] == 23  # size in pixels
    assert survey.found("byexp", "warp", id="o1g0001o", position=ON_FIRST, size_deg=(0.12, 0.12), options=8192) == [
        (11, S1), (11, S2),
    ]  # fmt: skip


def test_dates_are_tai_with_all_leap_seconds(empty: Survey) -> None:
    empty.exposure(1, dateobs=datetime(2017, 3, 1, tzinfo=UTC))  # MJD 57813 UTC, 37 s of TAI - UTC
    tai = 57813 + 37 / 86400
    (image, _) = empty.select("byid", "raw", id="1")
    assert image.mjd_obs == pytest.approx(tai, abs=1e-9)
    millisecond = 1e-3 / 86400
    assert empty.found("byid", "raw", id="1", mjd_min=tai - millisecond, mjd_max=tai + millisecond)
    assert empty.answer("byid", "raw", id="1", mjd_min=tai + millisecond)[0] == 23
    assert empty.answer("byid", "raw", id="1", mjd_max=tai - millisecond)[0] == 23


def test_a_date_in_a_leap_second(empty: Survey) -> None:
    empty.exposure(1, dateobs=datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC))
    leap = 57754 + 36.5 / 86400  # 2016-12-31T23:59:60.5 UTC
    assert empty.found("byid", "raw", id="1", component=C1, mjd_max=leap) == [(1, C1)]


def test_a_search_by_position_begins_in_april_2009_but_not_for_stacks(empty: Survey) -> None:
    empty.exposure(1, dateobs=datetime(2009, 3, 1, tzinfo=UTC))
    empty.stack(1, S1)
    empty.set(t.stackSumSkyfile, t.stackSumSkyfile.stack_id == 1, mjd_obs=54000.5)
    assert empty.answer("bycoord", "raw", position=ON_FIRST)[1].endswith("none of them with MJD_MIN 54922")
    assert empty.found("bycoord", "raw", position=ON_FIRST, mjd_min=54000.0) == [(1, C1)]
    assert empty.found("byid", "raw", id="1", component="all") == [(1, C1), (1, C2)]
    empty.exposure(2, dateobs=datetime(2005, 3, 1, tzinfo=UTC))  # no survey began before MJD 54000
    assert empty.found("byid", "raw", id="2") == [(2, C1), (2, C2)]
    assert empty.answer("byid", "raw", id="2", mjd_min=1.0)[0] == 23
    assert empty.found("bycoord", "stack", position=ON_FIRST) == [(1, S1)]


def test_stacks_compare_their_mean_date_as_it_is_but_not_byid(survey: Survey) -> None:
    survey.set(t.stackSumSkyfile, t.stackSumSkyfile.stack_id == 3, mjd_obs=53000.0)
    assert survey.found("bycoord", "stack", position=ON_FIRST, mjd_max=53000.0) == [(3, S1)]
    assert survey.found("bycoord", "stack", position=ON_FIRST, mjd_min=53000.1) == [(1, S1)]
    assert survey.found("byid", "stack", id="3", mjd_min=60000.0) == [(3, S1)]
    survey.set(t.stackSumSkyfile, t.stackSumSkyfile.stack_id == 3, mjd_obs=None)
    assert survey.found("bycoord", "stack", position=ON_FIRST, mjd_min=1.0) == [(1, S1)]


def test_differences_of_stacks_go_by_the_filter_and_date_of_their_stack(survey: Survey) -> None:
    assert survey.found("bycoord", "diff", position=ON_FIRST, run_type="Stack_Stack", reqfilt="r") == [(4, S1)]
    assert survey.answer("bycoord", "diff", position=ON_FIRST, run_type="stack_stack", reqfilt="i")[0] == 23
    assert survey.found("bycoord", "diff", position=ON_FIRST, run_type="stack_stack", mjd_min=55256.0) == [(4, S1)]
    assert survey.answer("bycoord", "diff", position=ON_FIRST, run_type="stack_stack", mjd_min=55257.0)[0] == 23
    (image,) = survey.select("bycoord", "diff", position=ON_FIRST, run_type="stack_stack")
    assert (image.exp_id, image.exp_name, image.filter, image.mjd_obs) == (None, None, "r.00000", 55256.5)


@pytest.mark.parametrize("no_value", [0, None, 2**63 - 1])
def test_an_input_that_is_none(survey: Survey, no_value: int | None) -> None:
    survey.diffs(5, 3, warp1=no_value, warp2=21, stack1=1, stack2=no_value)
    survey.diffs(6, 4, warp1=no_value, warp2=no_value, stack1=no_value, stack2=3)
    warp_side, stack_side = (survey.select("byid", "diff", id=number, component=S1)[0] for number in ("5", "6"))
    assert (warp_side.exp_id, warp_side.filter) == (2, "i.00000")
    assert (stack_side.exp_id, stack_side.filter) == (None, "i.00000")


def test_an_exposure_without_date_does_not_get_that_of_the_template(survey: Survey) -> None:
    survey.set(t.rawExp, t.rawExp.exp_id == 1, dateobs=None)
    (image,) = survey.select("byid", "diff", id="2", component=S1)
    assert (image.exp_id, image.mjd_obs) == (1, None)
    assert survey.answer("byid", "diff", id="2", mjd_min=54000.0)[0] == 23


def test_run_type_of_differences(survey: Survey) -> None:
    assert survey.found("bycoord", "diff", position=ON_FIRST, run_type="warp_warp") == [(1, S1)]
    assert survey.found("bycoord", "diff", position=ON_FIRST, run_type="WARP_STACK") == [(2, S1)]
    assert survey.answer("bycoord", "diff", position=ON_FIRST, run_type="warps") == (
        23, "RUN_TYPE 'warps': expected warp_warp, warp_stack, stack_stack for differences",
    )  # fmt: skip


def test_both_kinds_of_difference_of_an_exposure_survive_and_the_newest_of_each(survey: Survey) -> None:
    """Two for one exposure, as the original's own test of difference types expects."""
    survey.diffs(5, 2, warp1=11, warp2=None, stack1=None, stack2=1)
    found = survey.found("byexp", "diff", id="o1g0001o", position=ON_FIRST)
    assert found == [(5, S1), (1, S1)]


def test_differences_of_stacks_have_no_exposure_to_be_the_newest_of(survey: Survey) -> None:
    survey.diffs(5, 4, warp1=None, warp2=None, stack1=3, stack2=1)
    assert survey.found("byskycell", "diff", tess_id=TESS, component=S1, run_type="stack_stack") == [(5, S1), (4, S1)]


def test_the_inverse_of_a_bothways_difference(survey: Survey) -> None:
    """Its exposure is that of the second input; where there is no inverse the bit means nothing."""
    both, one_way = (
        survey.select("byid", "diff", id="1", component=S1, options=1024),
        survey.select("byid", "diff", id="2", component=S1, options=1024),
    )
    assert (both[0].exp_id, both[0].filter) == (2, "i.00000")
    assert both[0].image.name == "1.skycell.1.001.inv.fits"
    assert (one_way[0].exp_id, one_way[0].filter) == (1, "r.00000")
    assert one_way[0].image.name == "2.skycell.1.001.fits"
    assert survey.found("byexp", "diff", id="o2g0001o", component=S1, options=1024) == [(3, S1), (1, S1)]
    assert survey.found("byexp", "diff", id="o1g0001o", component=S1, options=1024) == [(2, S1)]
    survey.diffs(6, 1, warp1=11, warp2=21, stack1=None, stack2=None)
    (image,) = survey.select("byid", "diff", id="6", component=S1, options=1024)
    assert (image.exp_id, image.image.name) == (1, "6.skycell.1.001.fits")
    # Each image for itself: the bit does not stick from one to the next.
    found = survey.select("bycoord", "diff", position=ON_FIRST, options=1024)
    assert {image.stage_id: ".inv." in image.image.name for image in found} == {
        1: True, 2: False, 3: False, 4: False, 6: False,
    }  # fmt: skip


def test_the_newest_run_of_an_exposure(survey: Survey) -> None:
    survey.warps(31, 11)
    survey.chips(31, 1)
    assert survey.found("byexp", "warp", id="o1g0001o", component=S1) == [(31, S1)]
    assert survey.found("byskycell", "warp", tess_id=TESS, component=S1) == [(31, S1), (21, S1)]
    assert survey.found("bycoord", "warp", position=ON_FIRST) == [(31, S1), (21, S1)]
    assert survey.found("bycoord", "chip", position=ON_FIRST) == [(31, C1), (21, C1)]
    assert survey.found("byid", "warp", id="11", component=S1) == [(11, S1)]


@pytest.mark.parametrize("state", ["new", "purged", "scrubbed"])
def test_a_run_that_is_not_there_gives_way_to_an_older_one(survey: Survey, state: str) -> None:
    survey.warps(31, 11, state)
    assert survey.found("byexp", "warp", id="o1g0001o", component=S1) == [(11, S1)]
    survey.set(t.warpRun, t.warpRun.warp_id == 11, state=state)
    assert survey.found("byexp", "warp", id="o1g0001o", component=S1) == [(31, S1)]  # the newest of them


def test_another_tessellation_keeps_its_own_newest_run(survey: Survey) -> None:
    survey.warps(31, 11, tess_id="MD04.V3")
    assert survey.found("bycoord", "warp", position=ON_FIRST) == [(31, S1), (11, S1), (21, S1)]
    assert survey.found("bycoord", "warp", position=ON_FIRST, tess_id="md04.v3") == [(31, S1)]
    assert survey.found("byexp", "warp", id="o1g0001o", tess_id=TESS, component=S1) == [(11, S1)]
    survey.warps(41, 11, tess_id="AllSky")
    assert survey.found("bycoord", "warp", position=ON_FIRST) == [(31, S1), (11, S1), (21, S1)]
    assert survey.found("bycoord", "warp", position=ON_FIRST, tess_id="ALLSKY") == [(41, S1)]


def test_a_data_group_without_tessellation_is_found(survey: Survey) -> None:
    assert survey.found("bycoord", "stack", position=ON_FIRST, data_group="survey%") == [(3, S1), (1, S1)]


def test_the_escape_sign_of_patterns_is_the_same_on_both_engines(survey: Survey) -> None:
    for number, group in ((11, "100%_x"), (21, "100 ax")):
        survey.set(t.warpRun, t.warpRun.warp_id == number, data_group=group)
    assert survey.found("byexp", "warp", id="o1g0001o", data_group="100\\%\\_x", component=S1) == [(11, S1)]
    assert survey.answer("byexp", "warp", id="o2g0001o", data_group="100\\%\\_x")[0] == 23
    assert survey.found("byexp", "warp", id="o2g0001o", data_group="100__X", component=S1) == [(21, S1)]


@pytest.mark.parametrize("text", ["'", '"; DROP TABLE warpRun; --', "%s", "?", "é\u0000", "\\"])
def test_text_is_only_text(survey: Survey, text: str) -> None:
    for columns in ({"data_group": text}, {"reqfilt": text + "x"}, {"tess_id": text}, {"component": text}):
        assert survey.answer("byexp", "warp", id="o1g0001o", **columns)[0] == 23
    assert survey.answer("byexp", "warp", id=text)[0] == 23
    assert survey.answer("byskycell", "warp", tess_id=text, component=text)[0] == 23
    assert len(survey.select("byexp", "warp", id="o1g0001o")) == 2


def test_raw_exposures_of_other_types_and_ignored_chips_are_left_out(survey: Survey) -> None:
    survey.set(t.rawImfile, t.rawImfile.class_id == C2, ignored=True)
    survey.set(t.rawExp, t.rawExp.exp_id == 2, exp_type="flat")
    assert survey.found("bycoord", "raw", position=ON_FIRST) == [(1, C1)]
    assert survey.answer("bycoord", "raw", position=ON_SECOND)[0] == 23
    assert (
        survey.answer("byid", "raw", id="2")[1] == "2 raw images of exposure 2, none of them with exposure type object"
    )


def test_what_failed_or_is_bad_is_dropped_while_there_is_something_else(survey: Survey) -> None:
    first, second = (t.warpSkyfile.warp_id == 11) & (t.warpSkyfile.skycell_id == S1), t.warpSkyfile.warp_id == 21
    survey.set(t.warpSkyfile, first, fault=4)
    assert survey.found("bycoord", "warp", position=ON_FIRST) == [(21, S1)]
    survey.set(t.warpSkyfile, second, quality=8006)
    assert survey.answer("bycoord", "warp", position=ON_FIRST) == (
        23, "2 warp images of RA 149.98 Dec 2, none of which can be used: skycell.1.001 failed with fault 4; "
        "skycell.1.001 has bad quality 8006",
    )  # fmt: skip
    survey.set(t.warpSkyfile, second, quality=0, path_base=None)
    assert survey.answer("byid", "warp", id="21") == (
        23, "2 warp images of warp 21, none of which can be used: skycell.1.001 has no file name; "
        "skycell.1.002 has no file name",
    )  # fmt: skip


def test_what_is_gone_for_good_is_answered_with_26_when_nothing_else_is_left(survey: Survey) -> None:
    survey.set(t.warpSkyfile, t.warpSkyfile.warp_id == 11, fault=26)
    assert survey.found("bycoord", "warp", position=ON_FIRST) == [(21, S1)]
    (image,) = survey.select("byid", "warp", id="11", component=S1)
    assert classify(Facts("warp", 11, image.run_state, image.data_state, image.fault, image.quality)).fault == 26


def test_what_is_gone_and_has_no_file_name_is_no_image(survey: Survey) -> None:
    survey.set(t.warpSkyfile, t.warpSkyfile.warp_id == 11, fault=26, path_base=None)
    assert survey.answer("byid", "warp", id="11", component=S1) == (
        23, "1 warp image of warp 11, none of which can be used: skycell.1.001 failed with fault 26",
    )  # fmt: skip


def test_raw_quality_does_not_count(survey: Survey) -> None:
    survey.set(t.rawImfile, t.rawImfile.exp_id == 1, quality=5)
    assert survey.found("byid", "raw", id="1", component=C1) == [(1, C1)]


@pytest.mark.parametrize("stage", ["chip", "warp", "diff"])
@pytest.mark.parametrize("state", ["cleaned", "update", "goto_cleaned", "error_cleaned", "wait", "odd"])
def test_images_that_are_not_there_are_selected_all_the_same(survey: Survey, stage: str, state: str) -> None:
    """In any state, also with a leftover fault: what to do about it is the classification's business."""
    run, files, number = {
        "chip": (t.chipRun, t.chipProcessedImfile, "chip_id"), "warp": (t.warpRun, t.warpSkyfile, "warp_id"),
        "diff": (t.diffRun, t.diffSkyfile, "diff_id"),
    }[stage]  # fmt: skip
    stage_id = 2 if stage == "diff" else 11
    survey.set(run, getattr(run, number) == stage_id, state=state)
    survey.set(files, getattr(files, number) == stage_id, data_state=state, fault=0 if state == "error_cleaned" else 2)
    images = survey.select("byid", stage, id=str(stage_id), component="all")
    assert [(image.run_state, image.data_state) for image in images] == [(state, state)] * 2
    assert not any(image.image.exists() for image in images)


def test_stacks_that_are_not_full_only_when_none_is(survey: Survey) -> None:
    survey.set(t.stackRun, t.stackRun.stack_id == 1, state="cleaned")
    assert survey.found("bycoord", "stack", position=ON_FIRST) == [(3, S1)]
    (image,) = survey.select("bycoord", "stack", position=ON_FIRST, reqfilt="r")
    assert classify(Facts("stack", 1, image.run_state, image.data_state)).fault == 26
    survey.set(t.stackRun, t.stackRun.stack_id == 1, state="odd")
    assert survey.answer("byid", "stack", id="1") == (
        23, "1 stack image of stack 1, none of which can be used: skycell.1.001 is in a state that this server does "
        "not know ('odd'); an operator must look",
    )  # fmt: skip


def test_an_image_knows_its_exposure(survey: Survey) -> None:
    (image,) = survey.select("byid", "warp", id="11", component=S1)
    assert (image.stage, image.tess_id, image.exp_id, image.exp_name) == ("warp", TESS, 1, "o1g0001o")
    assert (image.filter, image.exp_time, image.camera, image.data_group) == ("r.00000", 40.0, "GPC1", "Survey.1")
    assert image.ra_obs == pytest.approx(150.05, abs=1e-9)
    assert image.dec_obs == pytest.approx(2.0, abs=1e-9)
    assert image.mjd_obs == pytest.approx(55256.5 + 34 / 86400, abs=1e-9)
    (stack,) = survey.select("byid", "stack", id="1")
    assert (stack.exp_id, stack.ra_obs, stack.exp_time, stack.mjd_obs) == (None, None, None, 55256.5)


def names(image: Image, root: Path) -> dict[str, str]:
    products = ("image", "mask", "variance", "sources", "psf", "backmdl", "exposure", "number")
    paths = {product: getattr(image, product) for product in products}
    return {product: str(path.relative_to(root)) for product, path in paths.items() if path}


@pytest.mark.parametrize(
    ("img_type", "number", "component", "options", "base", "always", "side"),
    [
        ("raw", 1, C1, 0, "raw/1.XY01.fits", {"image": ""}, {}),
        ("chip", 11, C1, 0, "chip/11.XY01",
         {"image": ".ch.fits", "mask": ".ch.mk.fits", "variance": ".ch.wt.fits"},
         {"sources": ".cmf", "psf": ".psf", "backmdl": ".mdl.fits"}),
        ("warp", 11, S1, 0, "warp/11.skycell.1.001",
         {"image": ".fits", "mask": ".mask.fits", "variance": ".wt.fits"}, {"sources": ".cmf", "psf": ".psf"}),
        ("diff", 1, S1, 0, "diff/1.skycell.1.001",
         {"image": ".fits", "mask": ".mask.fits", "variance": ".wt.fits"}, {"sources": ".cmf", "psf": ".psf"}),
        ("diff", 1, S1, 1024, "diff/1.skycell.1.001",
         {"image": ".inv.fits", "mask": ".inv.mask.fits", "variance": ".inv.wt.fits"},
         {"sources": ".inv.cmf", "psf": ".psf"}),
        ("stack", 1, S1, 0, "stack/1", {"image": ".fits", "mask": ".mask.fits", "variance": ".wt.fits"},
         {"sources": ".cmf", "psf": ".target.psf", "exposure": ".unconv.exp.fits", "number": ".unconv.num.fits"}),
        ("stack", 1, S1, 2048, "stack/1",
         {"image": ".unconv.fits", "mask": ".unconv.mask.fits", "variance": ".unconv.wt.fits"},
         {"sources": ".cmf", "psf": ".target.psf", "exposure": ".unconv.exp.fits", "number": ".unconv.num.fits"}),
    ],
)  # fmt: skip
def test_names_of_files(
    survey: Survey, img_type: str, number: int, component: str, options: int, base: str,
    always: dict[str, str], side: dict[str, str],
) -> None:  # fmt: skip
    def look() -> dict[str, str]:
        (image,) = survey.select("byid", img_type, id=str(number), component=component, options=options)
        assert image == survey.db.component(img_type, number, component, options)
        assert image.hdu is None
        return names(image, survey.root)

    expected = {product: base + suffix for product, suffix in always.items()}
    assert look() == expected  # nothing is on disk
    (survey.root / base).parent.mkdir(parents=True)
    for suffix in side.values():
        (survey.root / f"{base}{suffix}").touch()
    assert look() == expected | {product: base + suffix for product, suffix in side.items()}


def test_paths(survey: Survey, tmp_path: Path) -> None:
    survey.set(t.stackSumSkyfile, t.stackSumSkyfile.stack_id == 1, path_base="/elsewhere/a")
    assert survey.select("byid", "stack", id="1")[0].image == Path("/elsewhere/a.fits")
    survey.set(t.stackSumSkyfile, t.stackSumSkyfile.stack_id == 1, path_base="../a")
    assert survey.answer("byid", "stack", id="1") == (
        25, f"stack 1 skycell.1.001: path '../a' leads out of {tmp_path}/images; expected a name below it",
    )  # fmt: skip
    assert survey.found("bycoord", "stack", position=ON_FIRST) == [(3, S1)]  # the others are served
    assert survey.db.component("stack", 1, S1) is None


def test_one_component_again(survey: Survey) -> None:
    image = survey.db.component("warp", 11, S2)
    assert image is not None
    assert (image.stage, image.stage_id, image.component) == ("warp", 11, S2)
    assert survey.db.component("warp", 11, "skycell.9") is None
    assert survey.db.component("warp", 99, S1) is None
    assert survey.db.component("camera", 11, S1) is None
    survey.set(t.warpSkyfile, t.warpSkyfile.warp_id == 11, fault=26, quality=3, data_state="purged")
    image = survey.db.component("warp", 11, S2)
    assert image is not None
    assert (image.fault, image.quality, image.data_state) == (26, 3, "purged")


def test_too_many_images_are_refused(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_module, "MAX_IMAGES", 3)
    assert survey.answer("bycoord", "warp", position=ON_BOTH) == (
        21, "the row matches more than 3 images; narrow it by filter, dates or data group",
    )  # fmt: skip
    assert len(survey.select("bycoord", "warp", position=ON_FIRST)) == 2


def test_runs_in_batches_give_the_same_images(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = survey.select("bycoord", "diff", position=ON_BOTH), survey.select("bycoord", "chip", position=ON_FIRST)
    why = survey.answer("bycoord", "warp", position=ON_BOTH, reqfilt="z")
    assert why == (23, "4 warp images of RA 150.04 Dec 2, none of them with REQFILT 'z%'")
    monkeypatch.setattr(select_module, "_BATCH", 1)
    assert whole == (
        survey.select("bycoord", "diff", position=ON_BOTH), survey.select("bycoord", "chip", position=ON_FIRST)
    )  # fmt: skip
    assert survey.answer("bycoord", "warp", position=ON_BOTH, reqfilt="z") == why


def test_two_exposures_with_the_position_on_different_chips(survey: Survey) -> None:
    """Runs and chips that both occur at a position, but not together, are not there."""
    swapped = dict(zip(CHIPS, reversed(CHIPS.values()), strict=True))
    survey.lies("chip", 21, swapped)
    assert survey.found("bycoord", "chip", position=ON_FIRST) == [(11, C1), (21, C2)]
    assert survey.answer("bycoord", "chip", position=ON_FIRST, reqfilt="r", component=C2) == (
        23, "2 chip images of RA 149.98 Dec 2, 1 of them with COMPONENT 'XY02', none of them with REQFILT 'r%'",
    )  # fmt: skip


def test_few_queries_whatever_the_number_of_images(survey: Survey) -> None:
    for exp in range(3, 12):
        survey.exposure(exp)
        survey.chips(exp * 10 + 1, exp)
        survey.warps(exp * 10 + 1, exp * 10 + 1)
    with survey.db.session():
        for req_type, columns, queries in (
            ("bycoord", {"position": ON_BOTH}, 4), ("byid", {"id": "11", "position": ON_BOTH}, 2),
            ("byskycell", {"tess_id": TESS, "component": S1}, 1),
        ):  # fmt: skip
            with assert_query_count(queries):
                survey.select(req_type, "warp", **columns)


def test_a_database_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(RetryableError, match="no such table") as caught:
        ImageDB(str(tmp_path / "none.db")).select(Selection(req_type="byid", img_type="warp", id="1"))
    assert caught.value.fault == 2
    with pytest.raises(RetryableError):
        ImageDB("mysql://nobody@127.0.0.1:1/none").select(Selection(req_type="byid", img_type="warp", id="1"))


def test_errors_are_of_the_right_kind(survey: Survey) -> None:
    with pytest.raises(FinalError):
        survey.select("byid", "warp", id="99")
    with pytest.raises(UserError):
        survey.select("byid", "warp", id="x")
