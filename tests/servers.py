"""A server on the simulated survey, and what a user does with it."""

from __future__ import annotations

from pathlib import Path

from pstamp_core.formats import parse_text, write_request
from pstamp_core.tasks import report
from pstamp_core.tasks.server import Server, add_project, make_server
from pstamp_core.tasks.submit import submit
from simtest.survey import Survey

SETTINGS = "retry_seconds = 0.0\ncheck_seconds = 0.0\n"


def make(home: Path, survey: Survey, settings: str = SETTINGS) -> Server:
    """A server with the survey as project gpc1; it retries at once."""
    home.mkdir()
    (home / "pstamp.toml").write_text(settings)
    server = make_server(home)
    add_project(server, "gpc1", str(survey.database), str(survey.folder), "GPC1")
    return server


def send(server: Server, tmp_path: Path, *rows: str, name: str = "test_1", action: str = "PROCESS") -> int:
    """Submit a request of rows in the text form; return its number."""
    table, _ = parse_text("\n".join([f"{name} 2 {action} ana@obs.example.edu", *rows]))
    path = tmp_path / f"{name}.fits"
    write_request(path, table)
    return submit(server, path)


def row(number: int, survey: Survey, **other: object) -> str:
    """A row of 30 x 30 pixels of the r stack at the middle of the field, unless said otherwise."""
    values: dict[str, object] = {
        "rownum": number, "x": survey.centre[0], "y": survey.centre[1], "w": 30, "h": 30, "coord": 2,
        "job": "stamp", "options": 1, "project": "gpc1", "survey": "null", "release": "null", "req": "bycoord",
        "img": "stack", "id": "null", "tess": survey.tess_id, "component": "null", "group": "null", "filter": "r",
        "min": 0, "max": 0, "run": "null", "fmin": 0, "fmax": 0,
    }  # fmt: skip
    assert set(other) <= set(values)
    return " ".join(str(value) for value in {**values, **other}.values())


def codes(server: Server, req_id: int) -> dict[int, list[int]]:
    """The codes of a request's results, by row."""
    found: dict[int, list[int]] = {}
    for line in report.results(server, req_id):
        found.setdefault(line["ROWNUM"], []).append(line["ERROR_CODE"])
    return found


def sentences(server: Server, req_id: int) -> dict[int, str]:
    """The sentence of each row's first result."""
    return {line["ROWNUM"]: line["SENTENCE"] for line in reversed(report.results(server, req_id))}
