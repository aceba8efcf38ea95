"""The tables that users send and get: PS1_PS_REQUEST, PS1_PS_RESULTS, their text forms and their checks."""

from pstamp_core.formats.checks import JOB_TYPES, Finding, check_request, check_rows
from pstamp_core.formats.dump import header_line, simple_rows
from pstamp_core.formats.mdc import read_mdc, read_rows, results_mdc
from pstamp_core.formats.request import (
    CoordMask,
    Option,
    RequestRow,
    RequestTable,
    name_is_valid,
    read_request,
    write_request,
)
from pstamp_core.formats.results import Results, read_results, request_columns, result_portions, write_results
from pstamp_core.formats.text import OPTION_FLAGS, format_text, make_request, parse_targets, parse_text

__all__ = [
    "JOB_TYPES",
    "OPTION_FLAGS",
    "CoordMask",
    "Finding",
    "Option",
    "RequestRow",
    "RequestTable",
    "Results",
    "check_request",
    "check_rows",
    "format_text",
    "header_line",
    "make_request",
    "name_is_valid",
    "parse_targets",
    "parse_text",
    "read_mdc",
    "read_request",
    "read_results",
    "read_rows",
    "request_columns",
    "result_portions",
    "results_mdc",
    "simple_rows",
    "write_request",
    "write_results",
]
