"""The request form: what people type in it becomes a request, and a request fills it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pstamp_core.faults import IllegalTransition, UserError, fault_sentence
from pstamp_core.formats import (
    OPTION_FLAGS,
    CoordMask,
    Option,
    RequestRow,
    RequestTable,
    check_rows,
    name_is_valid,
    parse_targets,
    read_request,
    write_request,
)
from pstamp_core.formats.request import COLUMNS, NAME_RULE, row_fault
from pstamp_core.formats.tables import is_null, number_of, number_text, shown
from pstamp_core.imagedb.dates import tai
from pstamp_core.tasks.accounts import Account, Refused
from pstamp_core.tasks.browse import find_request
from pstamp_core.tasks.finder import access_of, usable_projects
from pstamp_core.tasks.operate import Choice, order
from pstamp_core.tasks.parse import PlannedJob, rehearse
from pstamp_core.tasks.server import LOCAL, Server
from pstamp_core.tasks.submit import web_request

MAX_POSITIONS = 5000
"""Positions in a form; longer lists come as a file."""
MAX_COUNTED_ROWS = 50
"""Rows whose images are counted before a request is sent."""
MAX_COUNTED = 2000
"""Images after which no further row is counted."""

TEXTS = (
    "project", "req_type", "img_type", "id", "tess_id", "component", "data_group", "reqfilt", "run_type", "comment",
)  # fmt: skip
"""Fields that are columns of text."""
PRODUCTS = ("mask", "variance", "jpeg", "cmf", "psf", "backmdl", "exptime", "expnum")
"""Fields that are bits of OPTION_MASK, by the names of `OPTION_FLAGS`: what is wanted besides the image."""
WAYS = ("uncompressed", "unconvolved", "inverse", "allroi", "use_imfile_id", "do_not_wait")
"""The other such fields: which image, and how."""

DEFAULTS = {
    **dict.fromkeys((*TEXTS, *PRODUCTS, *WAYS, "positions", "x", "y", "mjd_min", "mjd_max"), ""),
    "prefix": "web", "req_type": "bycoord", "img_type": "stack", "width": "100", "height": "100", "unit": "pixels",
}  # fmt: skip
"""Every field of the form, with what stands in it at first; the project depends on who asks.

SURVEY_NAME, IPP_RELEASE and the FWHM limits choose nothing here, and what is not implemented (get_image, bydiff,
stack_summary, restoring the background) is not offered.
"""

_OF_A_LINE = ("reqfilt", "mjd_min", "mjd_max")  # besides its position, and its comment


@dataclass(frozen=True)
class Matches:
    """What one row would lead to.

    Attributes
    ----------
    what : str
        Its position, or what it names.
    images : int
        Images that match and can be had.
    waiting : int
        How many of them have to be made again first.
    answers : list of str
        What would be answered instead of a stamp.
    """

    what: str
    images: int
    waiting: int
    answers: list[str]


def blank_form(server: Server, account: Account) -> dict[str, str]:
    """Return the fields of an empty form."""
    names = project_names(server, account)
    # Every server has the project of a laptop's own images; where there is another one, that is what people want.
    first = next((name for name in names if name != LOCAL), LOCAL)
    return DEFAULTS | {"project": first}


def project_names(server: Server, account: Account) -> list[str]:
    """Return the projects that an account may ask for."""
    return [project.name for project in usable_projects(server, access_of(server, account))]


def read_form(
    server: Server, account: Account, values: Mapping[str, str], *, preview: bool = False
) -> tuple[RequestTable, dict[str, str]]:
    """Return the request that a form asks for, and what is wrong with it, by field.

    Parameters
    ----------
    server : Server
        The server.
    account : Account
        Who asks.
    values : mapping of str to str
        The fields of `DEFAULTS`; one that is missing is empty.
    preview : bool
        Whether it is to be accepted before anything is cut (ACTION PREVIEW).
    """
    form = _Form({name: values.get(name, "").strip() for name in DEFAULTS})
    if not name_is_valid(f"{form.values['prefix']}_1234567890"):
        form.wrong("prefix", f"with a number added to it, expected {NAME_RULE}")
    if form.values["allroi"] and form.values["unit"] == "pixels":
        form.wrong("allroi", "needs a size in arcsec")
    targets: list[dict[str, Any]] = form.read("positions", _positions) or []
    common: dict[str, Any] = {name: None if is_null(form.values[name]) else form.values[name] for name in TEXTS}
    common |= {name: form.read(name, _mjd) or 0.0 for name in ("mjd_min", "mjd_max")}
    common |= {name: form.number(name) for name in ("width", "height")}
    common |= {"job_type": "stamp", "option_mask": sum(_bits(form.values)), "coord_mask": 0}
    if form.values["unit"] == "pixels":
        common["coord_mask"] |= CoordMask.RANGE_IN_PIXELS
    if not targets:
        common["coord_mask"] |= CoordMask.CENTER_IN_PIXELS
        targets = [form.pixel(whole=common["width"] == common["height"] == 0)]
    elif form.values["x"] or form.values["y"]:
        form.wrong("x", "there are positions, too; give either them or a pixel")
    rows = tuple(RequestRow(**{**common, **form.line(n, each), "rownum": n}) for n, each in enumerate(targets, 1))
    table = RequestTable("web", 2, "PREVIEW" if preview else "PROCESS", account.email, rows)
    if not form.errors:
        for n, column, what in _flaws(server, account, table):
            form.wrong_column(n, column, what, targets[n - 1])
    return table, form.errors


class _Form:
    """The fields of a form, and what is wrong with them."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.errors: dict[str, str] = {}

    def wrong(self, field: str, what: str) -> None:
        """Keep what is wrong with a field; the first thing counts."""
        self.errors.setdefault(field, what)

    def wrong_column(self, n: int, column: str, what: str, target: Mapping[str, Any]) -> None:
        """Keep what is wrong with a column of row `n` at the field where its value was typed."""
        field = column.lower()
        if column.startswith("CENTER") and not self.values["positions"]:
            field = "x" if column == "CENTER_X" else "y"
        elif field not in DEFAULTS or target.get(field) is not None:
            field = "positions"
        self.wrong(field, f"position {n}: {column} is {what}" if field == "positions" else what)

    def read(self, field: str, convert: Callable[[str], Any]) -> Any:
        """Return the value of a field; None if it is empty, or none that can be."""
        if self.values[field]:
            try:
                return convert(self.values[field])
            except UserError as error:
                self.wrong(field, str(error))
            except ValueError:
                expected = "an MJD, or a date as 2010-03-01" if convert is _mjd else "a number"
                self.wrong(field, f"{shown(self.values[field])}; expected {expected}")
        return None

    def number(self, field: str) -> float:
        """Return the number in a field that must not be empty."""
        if not self.values[field]:
            self.wrong(field, "not given; expected a number")
        return float(self.read(field, number_of) or 0.0)

    def pixel(self, *, whole: bool) -> dict[str, float]:
        """Return the centre of the only row, which is a pixel, since there are no positions."""
        given, by_place = bool(self.values["x"] or self.values["y"]), self.values["req_type"] == "bycoord"
        if by_place or not (given or whole):
            self.wrong("positions", "expected at least one, RA and Dec" + ("" if by_place else ", or a pixel below"))
        return (
            {"center_x": self.number("x"), "center_y": self.number("y")}
            if given
            else {"center_x": 0.0, "center_y": 0.0}
        )

    def line(self, n: int, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns that a line of positions sets."""
        columns = {name: value for name, value in target.items() if value is not None}
        for name in ("mjd_min", "mjd_max"):
            if name in columns:
                try:
                    columns[name] = _mjd(columns[name])
                except ValueError:
                    date = shown(columns.pop(name))
                    self.wrong("positions", f"position {n}: {name.upper()} is {date}; expected an MJD, or a date")
        if is_null(columns.get("reqfilt", "-")):
            columns["reqfilt"] = None
        return columns


def _positions(text: str) -> list[dict[str, Any]]:
    return parse_targets(text, numbered=False, most=MAX_POSITIONS, source="positions")[0]


def _bits(values: Mapping[str, str]) -> Iterator[int]:
    yield Option.SELECT_IMAGE
    yield from (OPTION_FLAGS[name] for name in (*PRODUCTS, *WAYS) if values[name])


def _mjd(text: str) -> float:
    """Return a date given as MJD (TAI), or as a calendar date and perhaps time (UTC)."""
    try:
        return number_of(text)
    except ValueError:
        date = datetime.fromisoformat(text)
    if not 1900 <= date.year <= 2130:
        raise ValueError(text)
    return float(tai([date if date.tzinfo else date.replace(tzinfo=UTC)])[0] or 0.0)


def _flaws(server: Server, account: Account, table: RequestTable) -> Iterator[tuple[int, str, str]]:
    """Yield the rows that the table can't hold, or the parser would refuse: number, column, value and reason."""
    for n, row in enumerate(table.rows, 1):
        yield from ((n, column.name, fault) for column in COLUMNS if (fault := row_fault(row, column)))
    findings = check_rows(
        table, project_fault=access_of(server, account).fault, max_size_pixels=server.settings.max_stamp_pixels,
        path="form",
    )  # fmt: skip
    for found in (each for of_row in findings for each in of_row):
        yield found.position, found.column, f"{found.value}; {found.reason}"


def count_matches(server: Server, account: Account, table: RequestTable) -> list[Matches]:
    """Return what each row of a request in which nothing is wrong would lead to, without sending it.

    At most `MAX_COUNTED_ROWS` rows are looked at, and none after more than `MAX_COUNTED` images.
    """
    rows = table.rows[:MAX_COUNTED_ROWS]
    by_row = rehearse(server, rows, account.email, most=MAX_COUNTED)
    return [_matches(row, jobs) for row, jobs in zip(rows, by_row, strict=False)]


def _matches(row: RequestRow, jobs: Iterable[PlannedJob]) -> Matches:
    answered = [job.columns for job in jobs if job.columns["fault"]]
    counts = Counter(columns["fault"] for columns in answered)
    said = {columns["fault"]: columns["sentence"].removeprefix(f"row {row.rownum}: ") for columns in answered}
    answers = [
        said[fault] if count == 1 else f"{count} images: {fault_sentence(fault)}"
        for fault, count in sorted(counts.items())
    ]
    to_cut = [job for job in jobs if not job.columns["fault"]]
    place = "" if row.center_in_pixels else f"{row.center_x:.7g} {row.center_y:+.7g}"
    what = " ".join(part for part in (row.id, row.component, place, row.comment and f"| {row.comment}") if part)
    return Matches(what, len(to_cut), sum(job.need is not None for job in to_cut), answers)


def send_form(server: Server, account: Account, table: RequestTable, prefix: str) -> int:
    """Queue the request of a form under the name ``<prefix>_<number>``; return its number.

    Raises
    ------
    UserError, RetryableError
        As `web_request`.
    """

    def write(name: str, file: Path) -> None:
        write_request(file, replace(table, req_name=name))

    number, _, _ = web_request(server, write, prefix=prefix, sender=account)
    return int(number or 0)


def form_like(server: Server, account: Account, req_id: int) -> tuple[dict[str, str], str]:
    """Return the fields of a form that asks for what an earlier request did, and what they do not hold of it.

    Raises
    ------
    NotThere
        There is no such request that the account may see.
    UserError
        The request's file is not here any more, or is no request.
    """
    with server.store.reading():
        request = find_request(account, req_id)
    file = Path(request.uri)
    if not file.is_file():
        raise UserError(f"the file of request {req_id} is not here any more, so that no form can be made of it")
    table = read_request(file, max_rows=server.settings.max_rows)
    if not table.rows:
        raise UserError(f"request {req_id} has no rows")
    return _fields_of(table.rows[0], table.rows[:MAX_POSITIONS]), _lost(table)


def _fields_of(first: RequestRow, rows: tuple[RequestRow, ...]) -> dict[str, str]:
    fields = DEFAULTS | {name: getattr(first, name) or "" for name in TEXTS}
    fields |= {name: number_text(getattr(first, name)) for name in ("width", "height")}
    fields |= {name: number_text(getattr(first, name)) for name in ("mjd_min", "mjd_max") if getattr(first, name)}
    fields |= {name: "on" for name in (*PRODUCTS, *WAYS) if OPTION_FLAGS[name] in first.options}
    fields["unit"] = "pixels" if first.size_in_pixels else "arcsec"
    if first.center_in_pixels:
        return fields | {"x": number_text(first.center_x), "y": number_text(first.center_y)}
    alone = {row.comment for row in rows} == {first.comment}
    fields["positions"] = "\n".join(_line(row, first, with_comment=not alone) for row in rows)
    return fields if alone else fields | {"comment": ""}


def _line(row: RequestRow, first: RequestRow, *, with_comment: bool) -> str:
    words = [number_text(row.center_x), number_text(row.center_y)]
    if any(getattr(row, name) != getattr(first, name) for name in _OF_A_LINE):
        words += [row.reqfilt or "null", number_text(row.mjd_min), number_text(row.mjd_max)]
    return " ".join(words) + (f" | {row.comment}" if with_comment and row.comment else "")


def _lost(table: RequestTable) -> str:
    """Return what of a request's rows a form can't hold."""
    first = table.rows[0]
    of_line = dict.fromkeys(("rownum", "center_x", "center_y", "comment", *_OF_A_LINE))
    same = {column.name.lower(): getattr(first, column.name.lower()) for column in COLUMNS}
    same = {name: value for name, value in same.items() if name not in of_line}
    lost = []
    if any(getattr(row, name) != value for row in table.rows for name, value in same.items()):
        lost.append(
            "its rows differ in more than position, filter, dates and comment, the rest here is the first row's"
        )
    if first.center_in_pixels and len(table.rows) > 1:
        lost.append("only the pixel of its first row is here")
    if len(table.rows) > MAX_POSITIONS:
        lost.append(f"it has {len(table.rows)} rows, and only the first {MAX_POSITIONS} are here")
    return "; ".join(lost)


def decide(server: Server, account: Account, req_id: int, event: str) -> None:
    """Accept a preview, or cancel a request.

    Parameters
    ----------
    server : Server
        The server.
    account : Account
        Who decides: whoever sent the request, or an operator.
    req_id : int
        The request.
    event : str
        ``accept`` or ``cancel``.

    Raises
    ------
    NotThere
        There is no such request that the account may see.
    Refused
        It is another's.
    UserError
        It is no preview that waits, or has ended already; the message says in which state it is.
    """
    with server.store.reading():
        request = find_request(account, req_id)
    if not (account.operator or request.username == account.email):
        raise Refused(f"request {req_id} is not yours: whoever sent it can {event} it, or an operator")
    try:
        order(server, event, Choice("request", (req_id,)), account.email, "from its page")
    except IllegalTransition as error:
        raise UserError(f"request {req_id} can't be {_DONE[event]} any more: {error}") from None


_DONE = {"accept": "accepted", "cancel": "cancelled"}
