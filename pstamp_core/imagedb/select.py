"""One request row's selection, step by step: conditions, query, runs, positions, what is left, and why nothing is."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

from peewee import OP, SQL, Case, Expression, NodeList, chunked, fn

from pstamp_core.faults import Fault, FinalError, UserError
from pstamp_core.imagedb.components import Component, Facts, Verdict, classify
from pstamp_core.imagedb.dates import utc
from pstamp_core.imagedb.footprints import Place, astrometry, in_cells, near, ranges_around
from pstamp_core.imagedb.images import MULTI_OVERLAP, USE_IMFILE_ID, Selection
from pstamp_core.imagedb.stages import STAGES, Stage, stage_tables, warps_of
from pstamp_core.imagedb.tables import diffInputSkyfile, pstampFootprint, pstampImage, rawExp, rawImfile

Row = dict[str, Any]

MAX_IMAGES = 20_000
"""Images that one request row may match; more are refused, so that no row fills the memory."""

EARLIEST_MJD = 54000.0
"""Dates before this are raised to it (`Job.pm`)."""
LATEST_MJD = 100_000.0
"""Dates after this (the year 2132) are lowered to it: calendars end, and leap seconds are unknown long before."""
FIRST_COORD_MJD = 54922.0
"""Where a search by position begins when MJD_MIN is 0: 2009-04-01 (`pstampparse.pl`)."""

_DIFF_MODES = {"warp_warp": 1, "warp_stack": 2, "stack_stack": 4}
_OLD_TESSELLATIONS = ("fixns", "allsky", "rings.v0")  # not searched unless asked for (`Job.pm`)
_SKIPPED_RUNS = ("new", "purged", "scrubbed")  # a run in such a state gives way to an older one (`filterRuns`)
_BATCH = 500  # numbers in one list
_SHOWN = 3  # images named in a sentence


@dataclass(frozen=True)
class Condition:
    """What a row asks of an image: in words, as ``REQFILT 'i%'``, and for the database."""

    words: str
    sql: Any


def select_rows(wanted: Selection) -> list[Row]:
    """Return the rows of the images that match, in the order exposure, newest run, component.

    Raises
    ------
    FinalError
        23 nothing matches, 28 no image has the position, 25 where the images lie is not known, 11 not implemented.
    UserError
        21: a value is no value, or too many images match.
    """
    _check(wanted)
    tables = stage_tables(wanted.img_type, wanted.options)
    if wanted.req_type == "bycoord":
        rows, what = _at_position(wanted, tables)
    else:
        base = _base(wanted, tables)
        conditions = _conditions(wanted, tables)
        rows, what = _fetch(tables, [base.sql], conditions), base.words
        if not rows:
            raise _no_match(_why_none(wanted.img_type, tables, base.words, [base.sql], conditions))
    if wanted.req_type == "byexp" or (wanted.req_type != "byid" and wanted.img_type != "stack"):
        rows = _newest_runs(rows, by_cell=wanted.req_type != "byexp")
    if wanted.req_type in ("byid", "byexp") and wanted.img_type != "stack" and _by_position(wanted):
        rows = _on_place(rows, _place(wanted), what)
    return _fit(rows, what)


def pixels_of(position: tuple[float, float], footprint_ids: Collection[int]) -> dict[int, tuple[float, float]]:
    """Return the pixel (FITS: the first is centred on 1, 1) of a position on each of the footprints."""
    table = pstampFootprint
    pixels: dict[int, tuple[float, float]] = {}
    for batch in chunked(footprint_ids, _BATCH):
        query: Any = table.select(table.footprint_id, table.wcs).where(table.footprint_id.in_(batch)).tuples()
        pixels |= {footprint_id: astrometry(cards).to_pixel(*position) for footprint_id, cards in query}
    return pixels


def component_rows(stage: str, stage_id: int, component: str, options: int) -> list[Row]:
    """Return the row of one component, whatever state it is in, or none."""
    if stage not in STAGES:
        return []
    tables = stage_tables(stage, options)
    columns = tables.columns
    return _fetch(tables, [(columns["stage_id"] == stage_id) & (columns["component"] == component)], [])


# -- what is asked ---------------------------------------------------------------------------------------------------


def _check(wanted: Selection) -> None:
    asked = f"REQ_TYPE {wanted.req_type} with IMG_TYPE {wanted.img_type}"
    if wanted.req_type not in ("byid", "byexp", "bydiff", "bycoord", "byskycell"):
        raise UserError(f"REQ_TYPE {wanted.req_type!r}: expected byid, byexp, bydiff, bycoord or byskycell")
    if wanted.img_type not in (*STAGES, "stack_summary"):
        raise UserError(f"IMG_TYPE {wanted.img_type!r}: expected {', '.join(STAGES)} or stack_summary")
    if wanted.req_type == "bydiff" or wanted.img_type == "stack_summary":
        raise FinalError(f"{asked} is not implemented on this server", Fault.PSTAMP_NOT_IMPLEMENTED)
    if wanted.req_type == "byexp" and wanted.img_type == "stack":
        raise FinalError(f"{asked}: a stack has many exposures; use bycoord or byskycell", Fault.PSTAMP_NOT_IMPLEMENTED)
    if wanted.req_type == "byskycell" and wanted.img_type in ("raw", "chip"):
        raise _no_match(f"{asked}: only warp, diff and stack images lie on skycells")
    for column, value in (("MJD_MIN", wanted.mjd_min), ("MJD_MAX", wanted.mjd_max)):
        if not math.isfinite(value):
            raise UserError(f"{column} {value}: expected a number of days")


def _base(wanted: Selection, tables: Stage) -> Condition:
    """Return the condition that names the images themselves: a run, a file, an exposure or a skycell."""
    columns, stage, name = tables.columns, wanted.img_type, wanted.id or ""
    if wanted.req_type == "byid":
        if not (name.isascii() and name.isdigit() and len(name) < 19):
            raise UserError(f"ID {name[:64]!r}: expected the number of a {stage} run")
        if wanted.options & USE_IMFILE_ID and stage in ("raw", "chip", "warp"):
            return Condition(f"{stage} file {int(name)}", columns["file_id"] == int(name))
        return Condition(f"{'exposure' if stage == 'raw' else stage} {int(name)}", columns["stage_id"] == int(name))
    if wanted.req_type == "byexp":
        exposure = _any_case(rawExp.exp_name, name)
        if stage == "diff":  # lead the query along the index on warps; an exposure is input or template
            warps = warps_of(exposure)
            exposure &= diffInputSkyfile.warp1.in_(warps) | diffInputSkyfile.warp2.in_(warps)
        return Condition(f"exposure {name!r}", exposure)
    if not wanted.component or not wanted.tess_id:
        raise _no_match("REQ_TYPE byskycell needs both TESS_ID and COMPONENT (tessellation and skycell)")
    return Condition(f"skycell {wanted.component!r}", _any_case(columns["component"], wanted.component))


def _conditions(wanted: Selection, tables: Stage) -> list[Condition]:
    """Return the further conditions of a row, the most selective first."""
    columns, found = tables.columns, []
    if wanted.img_type == "raw":
        found.append(Condition("exposure type object", rawExp.exp_type == "object"))
        found.append(Condition("a file that counts (not ignored)", rawImfile.ignored == False))  # noqa: E712 (SQL)
    component = wanted.component or "all"
    if component.lower() != "all" and wanted.req_type != "byskycell":
        found.append(Condition(f"COMPONENT {component!r}", _same(columns["component"], component)))
    found += _tessellation(wanted, tables)
    if wanted.reqfilt:
        pattern = wanted.reqfilt + "%" if len(wanted.reqfilt) == 1 else wanted.reqfilt
        found.append(Condition(f"REQFILT {pattern!r}", _like(columns["filter"], pattern)))
    if wanted.data_group:
        found.append(Condition(f"DATA_GROUP {wanted.data_group!r}", _like(columns["data_group"], wanted.data_group)))
    if wanted.run_type and wanted.img_type == "diff":
        mode = _DIFF_MODES.get(wanted.run_type.lower())
        if mode is None:
            raise _no_match(f"RUN_TYPE {wanted.run_type!r}: expected {', '.join(_DIFF_MODES)} for differences")
        found.append(Condition(f"RUN_TYPE {wanted.run_type!r}", columns["diff_mode"] == mode))
    return found + _dates(wanted, tables)


def _tessellation(wanted: Selection, tables: Stage) -> list[Condition]:
    stage, tess_id = wanted.img_type, tables.columns["tess_id"]
    if stage in ("raw", "chip") or (wanted.req_type in ("byid", "byexp") and stage != "warp"):
        return []
    if wanted.tess_id:
        return [Condition(f"TESS_ID {wanted.tess_id!r}", _same(tess_id, wanted.tess_id))]
    if wanted.req_type == "bycoord":
        return [Condition("a tessellation in use", fn.LOWER(tess_id).not_in(_OLD_TESSELLATIONS))]
    return []


def _dates(wanted: Selection, tables: Stage) -> list[Condition]:
    columns, stage = tables.columns, wanted.img_type
    if stage == "stack" and wanted.req_type == "byid":
        return []
    early, late = wanted.mjd_min, wanted.mjd_max
    if wanted.req_type == "bycoord" and stage != "stack" and not early:
        early = FIRST_COORD_MJD
    found = []
    for column, limit, within in (("MJD_MIN", early, operator.ge), ("MJD_MAX", late, operator.le)):
        if not limit:
            continue
        mean = within(columns["mjd"], limit)
        start = within(columns["dateobs"], utc(min(max(limit, EARLIEST_MJD), LATEST_MJD)))
        either = {"stack": mean, "diff": start | (columns["dateobs"].is_null() & mean)}
        found.append(Condition(f"{column} {limit:.10g}", either.get(stage, start)))
    return found


def _any_case(column: Any, name: str) -> Any:
    """Return the condition that a name is equal but for case, in the spellings that an index serves."""
    return column.in_(sorted({name, name.lower(), name.upper()}))


def _same(column: Any, name: str) -> Any:
    return fn.LOWER(column) == fn.LOWER(name)


def _like(column: Any, pattern: str) -> Any:
    """Return LIKE without regard to case, with MySQL's escape sign on both engines (`**` is plain LIKE on both)."""
    like = Expression(fn.LOWER(column), OP.ILIKE, fn.LOWER(pattern), flat=True)
    return NodeList((like, SQL("ESCAPE"), "\\"), parens=True)


def _by_position(wanted: Selection) -> bool:
    """Tell whether a position chooses among the components of a run: the row names no component and no file."""
    a_file = wanted.req_type == "byid" and wanted.options & USE_IMFILE_ID and wanted.img_type != "diff"
    return wanted.position is not None and not wanted.component and not a_file


def _place(wanted: Selection) -> Place:
    if wanted.position is None:
        raise UserError("REQ_TYPE bycoord needs a position; expected RA and Dec, COORD_MASK bit 1 clear")
    return Place(*wanted.position, box=wanted.size_deg if wanted.options & MULTI_OVERLAP else None)


# -- what is found ---------------------------------------------------------------------------------------------------


def _fetch(tables: Stage, bases: Sequence[Any], conditions: Sequence[Condition]) -> list[Row]:
    """Return the rows that meet one of `bases`, no two of which overlap, and all `conditions`."""
    columns = tables.columns
    rows: list[Row] = []
    for base in bases:
        query: Any = tables.select(*(column.alias(name) for name, column in columns.items()))
        query = query.where(base, *(condition.sql for condition in conditions)).limit(MAX_IMAGES + 1)
        rows.extend(query.dicts())
        _bounded(rows)
    return sorted(rows, key=lambda row: (row["exp_id"] or 0, -row["stage_id"], row["component"]))


def _bounded(rows: Collection[Any]) -> None:
    if len(rows) > MAX_IMAGES:
        raise UserError(f"the row matches more than {MAX_IMAGES} images; narrow it by filter, dates or data group")


def _why_none(stage: str, tables: Stage, what: str, bases: Sequence[Any], conditions: Sequence[Condition]) -> str:
    """Return the sentence that says how many images there are, and how many of them each condition left."""
    left = [0] * (len(conditions) + 1)
    for base in bases:
        steps = accumulate((condition.sql for condition in conditions), operator.and_)
        sums = (fn.COALESCE(fn.SUM(Case(None, [(step, 1)], 0)), 0) for step in steps)
        counts: Any = tables.select(fn.COUNT(SQL("1")), *sums).where(base).tuples()
        left = [number + int(more) for number, more in zip(left, counts.get(), strict=True)]
    if not left[0]:
        return f"no {stage} image of {what}"
    parts = [f"{_count(left[0], stage)} of {what}"]
    for condition, before, number in zip(conditions, left, left[1:], strict=False):
        if number < before:
            parts.append(f"{number or 'none'} of them with {condition.words}")
    return ", ".join(parts)


def _at_position(wanted: Selection, tables: Stage) -> tuple[list[Row], str]:
    """Return the rows of the images that have the position, or touch its box, and the position in words.

    In four small queries instead of one, since no engine could be relied on to join them in this order.
    """
    place, stage = _place(wanted), wanted.img_type
    what, conditions = f"RA {place.ra:.7g} Dec {place.dec:.7g}", _conditions(wanted, tables)
    query: Any = pstampFootprint.select(pstampFootprint.footprint_id)
    near_by = [footprint_id for (footprint_id,) in query.where(in_cells(ranges_around(place)), near(place)).tuples()]
    rows = _fetch(tables, _images_on(near_by, tables, stage), conditions)
    holding = _holding(place, {row["footprint_id"] for row in rows})
    rows = [row for row in rows if row["footprint_id"] in holding]
    if not rows:
        bases = _images_on(_holding(place, near_by), tables, stage)
        raise _no_match(_why_none(stage, tables, what, bases, conditions))
    return rows, what


def _images_on(footprint_ids: Collection[int], tables: Stage, stage: str) -> list[Any]:
    """Return conditions, one for each batch of runs, that an image has one of the footprints."""
    runs: dict[int, list[tuple[str, int]]] = {}
    for batch in chunked(footprint_ids, _BATCH):
        query: Any = pstampImage.select(pstampImage.stage_id, pstampImage.component, pstampImage.footprint_id)
        query = query.where(pstampImage.footprint_id.in_(batch), pstampImage.stage == stage)
        for stage_id, component, footprint_id in query.tuples():
            runs.setdefault(stage_id, []).append((component, footprint_id))
    columns, conditions = tables.columns, []
    for batch in chunked(sorted(runs), _BATCH):
        components, footprints = (
            set(part) for part in zip(*chain.from_iterable(runs[stage_id] for stage_id in batch), strict=True)
        )
        conditions.append(
            columns["stage_id"].in_(batch)
            & columns["component"].in_(components)
            & columns["footprint_id"].in_(footprints)
        )
    return conditions


def _holding(place: Place, footprint_ids: Collection[int]) -> set[int]:
    """Return those of the footprints that have the position on their pixels, or touch its box."""
    table = pstampFootprint
    found = set()
    for batch in chunked(footprint_ids, _BATCH):
        query: Any = table.select(table.footprint_id, table.wcs, table.naxis1, table.naxis2)
        query = query.where(table.footprint_id.in_(batch), near(place)).tuples()
        found |= {footprint_id for footprint_id, *shape in query if place.is_on(*shape)}
    return found


def _newest_runs(rows: list[Row], *, by_cell: bool) -> list[Row]:
    """Keep the newest run of each exposure, of each kind of difference, and of each skycell if `by_cell`.

    A run that is not processed yet, or deleted for good, gives way to an older one.
    """
    chosen: dict[Any, int] = {}
    keys = []
    for row in rows:
        exposure = row["exp_id"] or ("run", row["stage_id"])
        cell = (row["tess_id"], row["component"]) if by_cell and row["tess_id"] else None
        keys.append((exposure, row["diff_mode"], cell))
    for there in (True, False):
        for key, row in zip(keys, rows, strict=True):  # newest first
            if (row["run_state"] not in _SKIPPED_RUNS) is there:
                chosen.setdefault(key, row["stage_id"])
    return [row for key, row in zip(keys, rows, strict=True) if chosen[key] == row["stage_id"]]


def _on_place(rows: list[Row], place: Place, what: str) -> list[Row]:
    stage = rows[0]["stage"]
    known = {row["footprint_id"] for row in rows} - {None}
    if not known:
        raise FinalError(f"where {_count(len(rows), stage)} of {what} lie on the sky is not known (no footprint)")
    holding = _holding(place, known)
    found = [row for row in rows if row["footprint_id"] in holding]
    if not found:
        message = f"RA {place.ra:.7g} Dec {place.dec:.7g} is on none of {_count(len(rows), stage)} of {what}"
        raise FinalError(message, Fault.PSTAMP_NO_OVERLAP)
    return found


def _fit(rows: list[Row], what: str) -> list[Row]:
    """Drop what can't be used, unless nothing else is left and it is known to be gone: then that is the answer."""
    why = [_unfit(row) for row in rows]
    fit = [row for row, reason in zip(rows, why, strict=True) if not reason]
    gone = [row for row in rows if row["path_base"] and _verdict(row).component is Component.GONE]
    if fit or gone:
        return fit or gone
    shown = "; ".join(f"{row['component']} {reason}" for row, reason in zip(rows[:_SHOWN], why, strict=False))
    more = ", ..." if len(rows) > _SHOWN else ""
    raise _no_match(f"{_count(len(rows), rows[0]['stage'])} of {what}, none of which can be used: {shown}{more}")


def _unfit(row: Row) -> str:
    """Return why an image can't be used, or nothing.

    A fault of an image that is not full belongs to an attempt to make it again, and is no reason.
    """
    verdict = _verdict(row)
    if row["fault"] and (verdict.component in (Component.USABLE, Component.GONE)):
        return f"failed with fault {row['fault']}"
    if row["quality"] and row["stage"] != "raw":
        return f"has bad quality {row['quality']}"
    if not (row["path_base"] or row["path"]):
        return "has no file name"
    if row["stage"] == "stack" and verdict.component is not Component.USABLE:
        return f"is {verdict.reason}"
    return ""


def _verdict(row: Row) -> Verdict:
    return classify(
        Facts(row["stage"], row["stage_id"], row["run_state"], row["data_state"], row["fault"], row["quality"])
    )


def _count(number: int, stage: str) -> str:
    return f"{number} {stage} image{'s' if number > 1 else ''}"


def _no_match(message: str) -> FinalError:
    return FinalError(message, Fault.PSTAMP_NO_IMAGE_MATCH)
