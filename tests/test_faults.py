"""The fault codes and the exceptions that carry them."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest

from pstamp_core import faults
from pstamp_core.faults import (
    Bug,
    Fault,
    FinalError,
    IllegalTransition,
    LeaseLost,
    PstampError,
    RetryableError,
    Stale,
    UserError,
    fault_name,
    fault_sentence,
    is_final,
    is_retryable,
)

# request-files: the codes, with 31 named and 32 ours.
CODES = """
0  PSTAMP_SUCCESS
1  PS_EXIT_UNKNOWN_ERROR
2  PS_EXIT_SYS_ERROR
3  PS_EXIT_CONFIG_ERROR
4  PS_EXIT_PROG_ERROR
5  PS_EXIT_DATA_ERROR
6  PS_EXIT_TIMEOUT_ERROR
10 PSTAMP_SYSTEM_ERROR
11 PSTAMP_NOT_IMPLEMENTED
12 PSTAMP_UNKNOWN_ERROR
20 PSTAMP_DUP_REQUEST
21 PSTAMP_INVALID_REQUEST
22 PSTAMP_UNKNOWN_PROJECT
23 PSTAMP_NO_IMAGE_MATCH
24 PSTAMP_NOT_DESTREAKED
25 PSTAMP_NOT_AVAILABLE
26 PSTAMP_GONE
27 PSTAMP_NO_JOBS_QUEUED
28 PSTAMP_NO_OVERLAP
29 PSTAMP_NOT_AUTHORIZED
30 PSTAMP_NO_VALID_PIXELS
31 PSTAMP_BG_RESTORE_NOT_AVAILABLE
32 PSTAMP_CANCELLED
"""
TABLE = {int(number): name for number, name in (line.split() for line in CODES.strip().splitlines())}


def test_the_codes_are_those_of_ipp() -> None:
    assert {int(member): member.name for member in Fault} == TABLE


@pytest.mark.parametrize("code", range(-10, 300))
def test_each_code_has_one_class(code: int) -> None:
    assert is_retryable(code) == (1 <= code <= 9)
    assert is_final(code) == (code >= 10)


def test_the_classes_meet_where_they_should() -> None:
    assert faults.FIRST_FINAL == 10
    assert list(faults.RETRYABLE) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("code", range(34))
def test_every_code_has_a_name_and_a_sentence(code: int) -> None:
    assert fault_name(code) == TABLE.get(code, "unknown")
    if code in TABLE:
        assert re.fullmatch(r"[A-Z].+\.", fault_sentence(code))
        assert fault_sentence(code) == Fault(code).sentence
    else:
        assert fault_sentence(code) == f"Code {code} has no meaning of its own."


def test_no_two_codes_say_the_same() -> None:
    assert len({member.sentence for member in Fault}) == len(Fault)


def test_a_fault_is_its_number() -> None:
    assert Fault.PSTAMP_GONE == 26
    assert f"{Fault.PSTAMP_GONE}" == "26"
    assert pickle.loads(pickle.dumps(Fault.PSTAMP_GONE)) is Fault.PSTAMP_GONE  # noqa: S301


DEFAULTS: dict[type[PstampError], int] = {
    PstampError: 1, UserError: 21, FinalError: 25, RetryableError: 2, LeaseLost: 6, Stale: 2, Bug: 4,
    IllegalTransition: 5,
}  # fmt: skip
CLASSES = [
    thing
    for _, thing in inspect.getmembers(faults, inspect.isclass)
    if issubclass(thing, Exception) and thing.__module__ == faults.__name__
]


def test_every_exception_has_a_code_here() -> None:
    assert set(CLASSES) == set(DEFAULTS)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_exception_has_the_code_of_its_class_or_its_own(kind: type[PstampError]) -> None:
    assert kind("message").fault == DEFAULTS[kind]
    assert kind("message", 30).fault == 30
    assert kind("message", 0).fault == 0
    assert type(kind("message", Fault.PSTAMP_GONE).fault) is int


@pytest.mark.parametrize("kind", CLASSES)
def test_a_default_code_fits_its_class(kind: type[PstampError]) -> None:
    assert is_final(kind.default_fault) == issubclass(kind, UserError)
    assert is_retryable(kind.default_fault) != issubclass(kind, UserError)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_exception_survives_the_way_from_a_worker_process(kind: type[PstampError]) -> None:
    back: Any = pickle.loads(pickle.dumps(kind("row 3: EXTNAME = 'X'; expected 'Y'", 30)))  # noqa: S301
    assert type(back) is kind
    assert (str(back), back.fault) == ("row 3: EXTNAME = 'X'; expected 'Y'", 30)


def test_the_tree_at_the_top_of_the_module_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (faults.__doc__ or "").splitlines():
        found = re.match(r"^[ |]*\+-- (\w+) |^ +(PstampError) ", line)
        if found:
            name = found[1] or found[2]
            depth = line.index(name)
            path = [(at, parent) for at, parent in path if at < depth]
            drawn[name] = path[-1][1] if path else "Exception"
            path.append((depth, name))
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}


@pytest.mark.parametrize("name", [name for name in vars(faults) if not name.startswith("_")])
def test_what_is_public_is_documented(name: str) -> None:
    thing = getattr(faults, name)
    if getattr(thing, "__module__", "") == faults.__name__:
        assert inspect.getdoc(thing)
