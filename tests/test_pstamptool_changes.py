"""The modes of `pstamptool` that change something, and the filters that all modes share; on both engines."""

from __future__ import annotations

import pytest
from conftest import Rows

from pstamp_core.faults import PstampError
from pstamp_core.machines import RequestState
from pstamp_core.store import Store, pstampRequest
from pstamp_core.tasks.tool.filters import Compare, Filter, conditions

REQUEST_FILTERS = (
    Filter("req_id", pstampRequest.req_id),
    Filter("not_req_id", pstampRequest.req_id, Compare.UNEQUAL),
    Filter("req_id_min", pstampRequest.req_id, Compare.AT_LEAST),
    Filter("req_id_max", pstampRequest.req_id, Compare.AT_MOST),
    Filter("fault", pstampRequest.fault),
    Filter("state", pstampRequest.state),
    Filter("label", pstampRequest.label, Compare.LIKE),
    Filter("username", pstampRequest.username),
    Filter("timestamp_begin", pstampRequest.timestamp, Compare.AT_LEAST),
    Filter("timestamp_end", pstampRequest.timestamp, Compare.AT_MOST),
)


# -- filters


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"req_id": 2}, [2]),
        ({"req_id": 99}, []),
        ({"not_req_id": 2}, [1, 3, 4, 5, 6]),
        ({"req_id_min": 2, "req_id_max": 4}, [2, 3, 4]),
        ({"req_id": 5, "req_id_max": 4}, []),  # not one or the other
        ({"fault": 0}, [1, 3, 4, 5, 6]),
        ({"fault": 2}, [2]),
        ({"state": "run"}, [1, 2, 3, 4, 5]),
        ({"state": "NEW"}, [6]),
        ({"state": "run", "fault": 2}, [2]),
        ({"label": ["ps_a"]}, [1, 2]),
        ({"label": ["PS_A"]}, [1, 2]),
        ({"label": [r"ps\_a"]}, [1]),
        ({"label": ["ps%"]}, [1, 2, 3]),
        ({"label": [r"ps\%"]}, [3]),
        ({"label": ["psxa", "ps%"], "req_id_max": 2}, [1, 2]),
        ({"label": ["psxa", "it's;"]}, [2, 4]),
        ({"label": ["'; DROP TABLE pstampRequest; --"]}, []),
        ({"label": [""]}, [5]),
        ({"label": ["", "psxa"]}, [2, 5]),
        ({"label": ["%"]}, [1, 2, 3, 4, 6]),
        ({"label": "ps_a"}, [1, 2]),  # a mode that takes one
        ({"username": "Ana@Obs.edu"}, [1]),
        ({"username": "a%"}, []),
        ({"username": "___@obs.edu"}, []),
        ({"username": ""}, [2, 3, 4, 5, 6]),
    ],
)
def test_what_filters_find(store: Store, rows: Rows, options: dict[str, object], found: list[int]) -> None:
    rows.request(label="ps_a", username="ana@OBS.edu")
    rows.request(label="psXa", fault=2)
    rows.request(label="ps%")
    rows.request(label="it's;")
    rows.request(label=None)
    rows.request(RequestState.NEW, label="other")
    query = pstampRequest.select().order_by(pstampRequest.req_id)
    for condition in conditions(options, REQUEST_FILTERS):
        query = query.where(condition)
    assert [request.req_id for request in query] == found


def test_times_include_their_ends(store: Store, rows: Rows) -> None:
    request = rows.request()
    rows.clock.forward(60)
    rows.request()
    for name in ("timestamp_begin", "timestamp_end"):
        (condition,) = conditions({name: request.timestamp}, REQUEST_FILTERS)
        found = [each.req_id for each in pstampRequest.select().where(condition)]
        assert found == ([1, 2] if name == "timestamp_begin" else [1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": "rnu"}, "-state rnu: expected one of new, parsed, run, stop, cancel, goto_cleaned, cleaned"),
        ({"fault": -1}, "-fault -1: expected a fault, 0 to 32767"),
        ({"fault": 40000}, "-fault 40000: expected a fault, 0 to 32767"),
    ],
)
def test_what_filters_refuse(options: dict[str, object], message: str) -> None:
    with pytest.raises(PstampError) as caught:
        conditions(options, REQUEST_FILTERS)
    assert (str(caught.value), caught.value.fault) == (message, 3)
