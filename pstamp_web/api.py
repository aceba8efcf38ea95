"""The JSON interface: the same as the pages, for programs; ``/api/openapi.json`` and ``docs/api.md`` describe it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from pstamp_core.tasks import browse, downloads, finder, report, rows
from pstamp_core.tasks import form as forms
from pstamp_core.tasks.accounts import Account
from pstamp_core.tasks.rows import Finding
from pstamp_core.tasks.submit import check_file, insert_request
from pstamp_core.tasks.upload import received
from pstamp_web.old import Fields
from pstamp_web.requests import STATES, Number
from pstamp_web.status import latest
from pstamp_web.who import Program, server_of

MAX_JSON = 5_000_000
"""Bytes of a request in JSON."""
MAX_ROWS = 5000
"""Its rows; longer lists come as a file."""
MAX_FINDINGS = 200
"""Findings in one answer."""
MAX_FLAWS = 20
"""What is told of a body that is no request."""


# -- what comes in


Text16 = Annotated[str, Field(max_length=16, pattern="^[ -~]*$")]
Text64 = Annotated[str, Field(max_length=64, pattern="^[ -~]*$")]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Row(BaseModel):
    """A row of the request table; its columns have their names, and text that is not given is null there, too."""

    model_config = _STRICT

    ROWNUM: int = Field(None, description="stands in each of the row's results; its place, from 1, if not given")  # type: ignore[assignment]
    CENTER_X: float = Field(description="RA, degrees (J2000); or a pixel, see COORD_MASK")
    CENTER_Y: float = Field(description="Dec, degrees (J2000); or a pixel")
    WIDTH: float = Field(description="seconds of arc, or pixels, see COORD_MASK; with HEIGHT 0 the whole image")
    HEIGHT: float = Field(description="as WIDTH")
    COORD_MASK: int = Field(0, description="sum of 1: the centre is a pixel; 2: the size is in pixels")
    JOB_TYPE: Text16 = Field("stamp", description="stamp")
    OPTION_MASK: int = Field(
        1, description="sum of 1: image; 2: mask; 4: variance; 8: sources; 16: PSF; 32: background model; 64: JPEG;"
        " 128: exposure map; 256: map of the number of inputs; 512: not compressed; 1024: the inverse difference, too;"
        " 2048: the unconvolved stack; 8192: every image that the box touches; 16384: ID is that of a file;"
        " 32768: don't wait for pixels that have to be made again",
    )  # fmt: skip
    PROJECT: Text16 | None = Field(None, description="such as gpc1")
    SURVEY_NAME: Text16 | None = Field(None, description="chooses nothing here")
    IPP_RELEASE: Text64 | None = Field(None, description="chooses nothing here")
    REQ_TYPE: Text16 | None = Field(None, description="bycoord, byid, byexp or byskycell")
    IMG_TYPE: Text16 | None = Field(None, description="raw, chip, warp, diff or stack")
    ID: Text16 | None = Field(None, description="what REQ_TYPE looks for: a number, or the name of an exposure")
    TESS_ID: Text64 | None = Field(None, description="tessellation, such as RINGS.V3")
    COMPONENT: Text64 | None = Field(None, description="a chip (XY33) or skycell (skycell.1234.056)")
    DATA_GROUP: Text64 | None = Field(None, description="% stands for any characters")
    REQFILT: Text16 | None = Field(None, description="filter, such as r")
    MJD_MIN: float = Field(0.0, description="images from this date on (TAI); 0 for any")
    MJD_MAX: float = Field(0.0, description="images until this date (TAI); 0 for any")
    RUN_TYPE: Text16 | None = Field(None, description="of differences, or stacks")
    FWHM_MIN: float = Field(0.0, description="chooses nothing here")
    FWHM_MAX: float = Field(0.0, description="chooses nothing here")
    COMMENT: Text64 | None = Field(None, description="stands in each of the row's results")


class NewRequest(BaseModel):
    """A request. Its name will be the prefix and a number; one that is to have a name of its own comes as a file."""

    model_config = _STRICT | ConfigDict(
        json_schema_extra={
            "example": {
                "prefix": "m31",
                "action": "PROCESS",
                "rows": [
                    {"CENTER_X": 10.6847, "CENTER_Y": 41.2688, "WIDTH": 300, "HEIGHT": 300, "COORD_MASK": 2,
                     "PROJECT": "gpc1", "REQ_TYPE": "bycoord", "IMG_TYPE": "stack", "REQFILT": "r"},
                ],
            }
        }
    )  # fmt: skip

    prefix: str = Field("web", max_length=53, description="letters, digits and . _ + -")
    action: Literal["PROCESS", "PREVIEW"] = Field("PROCESS", description="PREVIEW: wait to be accepted before cutting")
    rows: list[Row] = Field(min_length=1, max_length=MAX_ROWS)


def _schema() -> dict[str, Any]:
    schema = NewRequest.model_json_schema()
    schema["properties"]["rows"]["items"] = schema.pop("$defs")["Row"]
    return schema


_ROWS = {"requestBody": {"required": True, "content": {"application/json": {"schema": _schema()}}}}
_FILE = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "FITS, EXTNAME PS1_PS_REQUEST"}
                    },
                }
            }
        },
    }
}


async def _new_request(request: Request) -> NewRequest:
    """Read a request, once it is known who sends it, and no more of it than may be."""
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MAX_JSON:
            raise HTTPException(413, f"more than {MAX_JSON} bytes; send longer lists of rows as a file")
    try:
        return NewRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_FLAWS]
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from None


SentRows = Annotated[NewRequest, Depends(_new_request)]
"""Stands after `Program`, as a form does."""


# -- what goes out


@dataclass(frozen=True)
class Failure:
    """What went wrong, in a sentence; and what is wrong with a request that was refused."""

    error: str
    count: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Check:
    """What is wrong with a request: how many things, and the first of them."""

    count: int
    findings: list[Finding]


@dataclass(frozen=True)
class OneRequest(browse.Entry):
    """A request.

    Attributes
    ----------
    says : str
        Its state in words.
    product : str
        The product of the data store in which its results appear; its fileset has the name of the request.
    rows : int
        How many the request has, as far as known.
    mine : bool
        Whether you may accept or cancel it.
    goes : datetime or None
        When its files are deleted; null while it is not finished, when they are gone, or are kept for ever.
    waits : list of Wait
        What keeps it from being finished, that of the most images first.
    more : int
        How many images wait for other things than these.
    page : str
        Its page, for people.
    """

    says: str
    product: str
    rows: int | None
    mine: bool
    goes: datetime | None
    waits: list[browse.Wait]
    more: int
    page: str


@dataclass(frozen=True)
class Jobs:
    """What became of the images of a request, and how many pages of such there are."""

    jobs: list[browse.Outcome]
    pages: int


@dataclass(frozen=True)
class Matches:
    """How many images match the rows of a preview, and how many pages of such there are."""

    rows: list[browse.Match]
    pages: int


@dataclass(frozen=True)
class ResultFile:
    """A file of a request's results; `url` is its path on this server, below ``/ds/``, which asks for no token."""

    name: str
    bytes: int
    md5: str
    type: str
    url: str


_TOKEN = HTTPBearer(
    auto_error=False,
    description="a token, from your account's page or `pstamp user token`; or HTTP Basic with e-mail and password",
)
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "It is not what it should be; nothing was changed."},
    401: {"model": Failure, "description": "There is no valid token."},
    403: {"model": Failure, "description": "It is another's, who lets you look at it only."},
    404: {"model": Failure, "description": "There is none, or none that you may see."},
    413: {"model": Failure, "description": "It is too large."},
    422: {"model": Failure, "description": "A value has the wrong form; the sentence says which."},
    503: {"model": Failure, "description": "Try again later."},
}
router = APIRouter(prefix="/api", dependencies=[Security(_TOKEN)], responses=_REFUSALS, tags=["requests"])


# -- sending


@router.post("/check", openapi_extra=_ROWS)
def check_rows(request: Request, account: Program, new: SentRows) -> Check:
    """Tell what is wrong with a request, as far as that can be told without a look at images; send nothing."""
    _, findings = _read_rows(request, account, new)
    return _checked(findings)


@router.post("/check/file", openapi_extra=_FILE)
def check_request_file(request: Request, account: Program, form: Fields) -> Check:
    """Tell the same of a request file."""
    file = _file(form)
    with received(server_of(request), file.file, str(file.filename)) as path:
        return _checked(check_file(server_of(request), path, account))


@router.post("/requests", status_code=201, response_model=OneRequest, openapi_extra=_ROWS)
def send_rows(request: Request, response: Response, account: Program, new: SentRows) -> OneRequest | Response:
    """Send a request, unless anything is wrong with it."""
    table, findings = _read_rows(request, account, new)
    if findings:
        return _refused(findings)
    return _sent(request, response, account, forms.send_form(server_of(request), account, table, new.prefix))


@router.post("/requests/file", status_code=201, response_model=OneRequest, openapi_extra=_FILE)
def send_file(
    request: Request,
    response: Response,
    account: Program,
    form: Fields,
    anyway: Annotated[
        bool, Query(description="send it although rows are wrong: each gets an answer among the results")
    ] = False,
) -> OneRequest | Response:
    """Send a request file, unless anything is wrong with it."""
    server, file = server_of(request), _file(form)
    with received(server, file.file, str(file.filename)) as path:
        findings = check_file(server, path, account)
        if findings and not (anyway and findings[0].position):
            return _refused(findings)
        number, _ = insert_request(server, path, sender=account)
    return _sent(request, response, account, number)


def _read_rows(request: Request, account: Account, new: NewRequest) -> tuple[rows.RequestTable, list[Finding]]:
    given = [row.model_dump(exclude_none=True) for row in new.rows]
    table = rows.request_of(account, given, preview=new.action == "PREVIEW")
    return table, rows.check_table(server_of(request), account, table, new.prefix)


def _file(form: FormData) -> UploadFile:
    file = form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise HTTPException(400, "there is no file in it; send one as the field file of a form (multipart/form-data)")
    return file


def _checked(findings: list[Finding]) -> Check:
    return Check(len(findings), findings[:MAX_FINDINGS])


def _refused(findings: list[Finding]) -> Response:
    shown = tuple(findings[:MAX_FINDINGS])
    return JSONResponse(asdict(Failure(shown[0].sentence, len(findings), shown)), 400)


def _sent(request: Request, response: Response, account: Account, number: int) -> OneRequest:
    response.headers["Location"] = f"/api/requests/{number}"
    return _look(request, account, number)


# -- looking


@router.get("/requests")
def list_requests(
    request: Request,
    account: Program,
    search: Annotated[
        str, Query(description="a number, what a name begins with, a whole label, or a sender's e-mail address")
    ] = "",
    state: Annotated[str, Query(description="a state, or unfinished")] = "",
    everyone: Annotated[bool, Query(description="everybody's, for operators")] = False,
    before: Annotated[Number | None, Query(description="only smaller numbers: `before` of the last answer")] = None,
) -> browse.Listing:
    """List your requests, and those of your groups, the newest first; 50 at a time."""
    server = server_of(request)
    return browse.list_requests(server, account, everyone=everyone, search=search, state=state, before=before)


@router.get("/requests/{req_id}")
def look(request: Request, account: Program, req_id: int) -> OneRequest:
    """Tell how a request is, and what it waits for."""
    return _look(request, account, req_id)


def _look(request: Request, account: Account, req_id: int) -> OneRequest:
    view = browse.look(server_of(request), account, req_id)
    return OneRequest(
        **vars(view.entry), says=STATES[view.entry.state][0], product=view.product, rows=view.rows, mine=view.mine,
        goes=view.goes, waits=view.waits, more=view.more, page=f"/request/{req_id}",
    )  # fmt: skip


@router.get("/requests/{req_id}/jobs")
def list_jobs(request: Request, account: Program, req_id: int, page: Number = 1, failed: bool = False) -> Jobs:
    """Tell what became of each image, or row that led to none, and why; 50 at a time, or only those that failed."""
    return Jobs(*browse.outcomes(server_of(request), account, req_id, page, failed=failed))


@router.get("/requests/{req_id}/matches")
def count_matches(request: Request, account: Program, req_id: int, page: Number = 1) -> Matches:
    """Tell how many images match each row of a preview; 50 rows at a time."""
    return Matches(*browse.matches(server_of(request), account, req_id, page))


@router.get("/requests/{req_id}/results", response_model=list[dict[str, Any]])
def results(request: Request, account: Program, req_id: int) -> Response:
    """Send the results table of a finished request: an object for each line, with the names of its columns."""
    made = downloads.results_json(server_of(request), account, req_id)
    return StreamingResponse(made, media_type="application/json")


@router.get("/requests/{req_id}/files")
def list_files(request: Request, account: Program, req_id: int) -> list[ResultFile]:
    """List the files of a finished request; ``results.fits`` is the first."""
    product, fileset, files = downloads.list_files(server_of(request), account, req_id)
    folder = f"/ds/{quote(product)}/{quote(fileset)}"
    return [ResultFile(each.name, each.bytes, each.md5, each.type, f"{folder}/{quote(each.name)}") for each in files]


# -- deciding


@router.post("/requests/{req_id}/accept")
def accept(request: Request, account: Program, req_id: int) -> OneRequest:
    """Have the images of a preview cut."""
    forms.decide(server_of(request), account, req_id, "accept")
    return _look(request, account, req_id)


@router.post("/requests/{req_id}/cancel")
def cancel(request: Request, account: Program, req_id: int) -> OneRequest:
    """Have nothing more done for a request; what was cut before is published."""
    forms.decide(server_of(request), account, req_id, "cancel")
    return _look(request, account, req_id)


# -- the survey, and the server


@router.get("/finder", tags=["survey"])
def find_images(
    request: Request,
    account: Program,
    positions: Annotated[
        str, Query(description="RA and Dec, one position a line", examples=["10.6847 41.2688\n0:42:44.3 41:16:08"])
    ],
    stage: Annotated[Literal["stack", "warp", "diff", "chip", "raw"] | None, Query()] = None,
    reqfilt: Annotated[str, Query(description="filter, such as r")] = "",
) -> list[finder.Found]:
    """Tell which skycells, exposures and chips hold some positions, and at which of their pixels."""
    stages = (stage,) if stage else finder.STAGES
    return finder.find_images(server_of(request), account, positions, stages=stages, reqfilt=reqfilt.strip())


@router.get("/status", tags=["server"])
def status(request: Request, account: Program) -> report.Status:
    """Tell how the server is; whose the work is, is told to operators only."""
    found = latest(request)
    return found if account.operator else replace(found, stuck=[], more_stuck=0, leases=[], labels=[])
