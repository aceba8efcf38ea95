"""The classification of a component, as a whole table: stage x run state x data state x fault x quality x wait."""

from __future__ import annotations

from itertools import product

import pytest

from pstamp_core.imagedb import Component, availability
from pstamp_core.imagedb.availability import STATES

# U usable, Q to be queued, P in progress, W waiting, X waiting and the job stops with 25, G gone: it stops with 26.
GOLDEN = """
chip           full  update cleaned goto_cleaned new  wait error_cleaned purged drop odd
full           U     Q      Q       W            W    W    G             G      G    X
update         U     P      Q       W            W    W    G             G      G    X
cleaned        U     Q      Q       W            W    W    G             G      G    X
goto_cleaned   Q     Q      Q       W            W    W    G             G      G    X
new            U     W      W       W            W    W    G             G      G    X
wait           U     W      W       W            W    W    G             G      G    X
error_cleaned  G     G      G       G            G    G    G             G      G    G
purged         G     G      G       G            G    G    G             G      G    G
drop           G     G      G       G            G    G    G             G      G    G
odd            U     X      X       X            X    X    G             G      G    X

warp           full  update cleaned goto_cleaned new  wait error_cleaned purged drop odd
full           U     X      X       X            X    X    G             G      G    X
update         U     P      Q       W            W    W    G             G      G    X
cleaned        U     Q      Q       W            W    W    G             G      G    X
goto_cleaned   Q     Q      Q       W            W    W    G             G      G    X
new            U     W      W       W            W    W    G             G      G    X
wait           U     W      W       W            W    W    G             G      G    X
error_cleaned  G     G      G       G            G    G    G             G      G    G
purged         G     G      G       G            G    G    G             G      G    G
drop           G     G      G       G            G    G    G             G      G    G
odd            U     X      X       X            X    X    G             G      G    X
"""

LIKE = {  # states that behave as another
    "reg": "new", "keep": "wait", "ignore": "wait", "goto_purged": "purged", "error_purged": "purged",
    "scrubbed": "purged", "goto_scrubbed": "purged", "error_scrubbed": "purged", "": "odd",
}  # fmt: skip
MEANING = {
    "U": (Component.USABLE, 0), "Q": (Component.TO_BE_QUEUED, 0), "P": (Component.IN_PROGRESS, 0),
    "W": (Component.WAITING, 0), "X": (Component.WAITING, 25), "G": (Component.GONE, 26),
}  # fmt: skip
WORDS = (*STATES, "odd", "")


def golden(stage: str) -> dict[tuple[str, str], str]:
    block = next(block for block in GOLDEN.strip().split("\n\n") if block.startswith(stage))
    head, *lines = (line.split() for line in block.splitlines())
    return {(run, data): code for run, *codes in lines for data, code in zip(head[1:], codes, strict=True)}


def expected(stage: str, run: str, data: str) -> str:
    table = golden("chip" if stage == "chip" else "warp")
    return table[LIKE.get(run, run), LIKE.get(data, data)]


def test_the_golden_table_names_every_known_state() -> None:
    assert {run for run, _ in golden("chip")} | LIKE.keys() == set(WORDS)


@pytest.mark.parametrize("stage", ["chip", "warp", "diff"])
def test_every_combination_of_states(stage: str) -> None:
    for run, data in product(WORDS, WORDS):
        verdict = availability(stage, 7, run, data)
        assert (verdict.component, verdict.fault) == MEANING[expected(stage, run, data)], (run, data)
        assert verdict.waits == (expected(stage, run, data) in "QPW")
        assert verdict.reason


@pytest.mark.parametrize("stage", ["chip", "warp", "diff"])
def test_without_waiting_what_would_wait_is_25(stage: str) -> None:
    for run, data in product(WORDS, WORDS):
        verdict = availability(stage, 7, run, data, wait=False)
        component, fault = MEANING[expected(stage, run, data)]
        assert (verdict.component, verdict.fault) == (component, 25 if expected(stage, run, data) in "QPW" else fault)
        assert not verdict.waits


@pytest.mark.parametrize(("fault", "quality", "wait"), list(product((0, 2, 26), (0, 8006), (True, False))))
def test_a_raw_image_is_there_whatever_is_said_of_it(fault: int, quality: int, wait: bool) -> None:
    for run, data in product(WORDS, WORDS):
        assert availability("raw", 7, run, data, fault, quality, wait=wait).component is Component.USABLE


@pytest.mark.parametrize("wait", [True, False])
def test_a_stack_is_full_or_gone(wait: bool) -> None:
    for state in WORDS:
        verdict = availability("stack", 7, state, state, wait=wait)
        code = "U" if state == "full" else "X" if LIKE.get(state, state) == "odd" else "G"
        assert (verdict.component, verdict.fault) == MEANING[code], state


@pytest.mark.parametrize("stage", ["chip", "warp", "diff", "stack"])
def test_fault_26_is_gone_whatever_the_states(stage: str) -> None:
    for run, data in product(WORDS, WORDS):
        assert availability(stage, 7, run, data, 26).fault == 26


def test_another_fault_belongs_to_an_attempt_and_decides_nothing() -> None:
    for stage, run, data in product(("chip", "warp", "diff", "stack"), WORDS, WORDS):
        with_fault, without = availability(stage, 7, run, data, 2), availability(stage, 7, run, data)
        assert (with_fault.component, with_fault.fault) == (without.component, without.fault)
    assert availability("warp", 7, "update", "update", 2).reason == "being made again; the last try ended in fault 2"


@pytest.mark.parametrize("stage", ["chip", "warp", "diff"])
def test_bad_quality_is_never_made_again(stage: str) -> None:
    for run, data in product(WORDS, WORDS):
        code = expected(stage, run, data)
        verdict = availability(stage, 7, run, data, 0, 8006)
        if code in "QPW":
            assert verdict.component is Component.GONE
            assert verdict.reason == "of bad quality (8006); such images are not made again"
        elif code in "UG":
            assert (verdict.component, verdict.fault) == MEANING[code]


def test_old_differences_are_not_made_again() -> None:
    assert availability("diff", 22778, "cleaned", "cleaned", oldest_diff=22779).fault == 26
    assert availability("diff", 22778, "cleaned", "cleaned", wait=False, oldest_diff=22779).fault == 26
    assert availability("diff", 22779, "cleaned", "cleaned", oldest_diff=22779).waits
    assert availability("diff", 22778, "full", "full", oldest_diff=22779).component is Component.USABLE
    assert availability("warp", 22778, "cleaned", "cleaned", oldest_diff=22779).waits


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("warp", 7, "full", "cleaned"), "cleaned although warp run 7 says full; an operator must look"),
        (("chip", 7, "full", "cleaned"), "cleaned, must be made again"),
        (("chip", 7, "goto_cleaned", "full"), "about to be cleaned, must be made again"),
        (("chip", 7, "odd", "cleaned"), "in a state that this server does not know ('odd'); an operator must look"),
        (("diff", 7, "goto_purged", "full"), "deleted for good: diff run 7 is goto_purged"),
        (("diff", 7, "cleaned", "scrubbed"), "deleted for good: the component is scrubbed"),
        (("warp", 7, "error_cleaned", "cleaned"), "lost when it was cleaned: warp run 7 is error_cleaned"),
        (("stack", 7, "cleaned", "cleaned"), "state cleaned; stacks are not made again"),
        (("warp", 7, "keep", "cleaned"), "an operator holds its run (keep)"),
        (("warp", 7, "cleaned", "goto_cleaned"), "being cleaned; it can be made again after that"),
        (("chip", 7, "full", "full", 26), "deleted for good (fault 26)"),
    ],
)
def test_reasons(arguments: tuple[str, int, str, str], reason: str) -> None:
    assert availability(*arguments).reason == reason


def test_the_reason_for_25_says_that_the_request_does_not_wait() -> None:
    verdict = availability("chip", 7, "cleaned", "cleaned", wait=False)
    assert verdict.reason == "cleaned, must be made again; the request does not wait (OPTION_MASK bit 32768)"
