"""The classification of a component: the whole table as a golden, and what must hold of any such table."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pstamp_core.imagedb import Component, Facts, Verdict, classify, needs_magic
from pstamp_core.imagedb.components import CODES, RULES, STATES, Destreak, Tries, worst

# U usable, Q to be queued, P in progress, W waiting, X not now (25), D not destreaked (24), G gone (26).
LETTERS = dict(zip("UQPWXDG", Component, strict=True))

GOLDEN = """
chip           full  update cleaned goto_cleaned new  wait error_cleaned purged drop odd
full           U     Q      Q       W            W    W    G             G      G    X
update         U     P      Q       W            W    W    G             G      G    X
cleaned        U     Q      Q       W            W    W    G             G      G    X
goto_cleaned   Q     Q      Q       W            W    W    G             G      G    X
new            U     W      W       W            W    W    G             G      G    W
wait           U     W      W       W            W    W    G             G      G    W
error_cleaned  G     G      G       G            G    G    G             G      G    G
purged         G     G      G       G            G    G    G             G      G    G
drop           G     G      G       G            G    G    G             G      G    G
odd            U     X      X       X            W    W    G             G      G    X

warp           full  update cleaned goto_cleaned new  wait error_cleaned purged drop odd
full           U     X      X       X            X    X    G             G      G    X
update         U     P      Q       W            W    W    G             G      G    X
cleaned        U     Q      Q       W            W    W    G             G      G    X
goto_cleaned   Q     Q      Q       W            W    W    G             G      G    X
new            U     W      W       W            W    W    G             G      G    W
wait           U     W      W       W            W    W    G             G      G    W
error_cleaned  G     G      G       G            G    G    G             G      G    G
purged         G     G      G       G            G    G    G             G      G    G
drop           G     G      G       G            G    G    G             G      G    G
odd            U     X      X       X            W    W    G             G      G    X
"""

# A chip with streaks that is there: by the state of its destreak run, and of its file in that.
STREAKS = """
               none  full update cleaned goto_cleaned error_cleaned purged odd
none           D     D    D      D       D            D             D      D
new            P     Q    P      Q       W            X             G      X
update         P     Q    P      Q       W            X             G      X
cleaned        Q     Q    Q      Q       W            X             G      Q
full           Q     Q    Q      Q       W            X             G      Q
goto_cleaned   W     W    W      W       W            X             G      W
goto_restored  W     W    W      W       W            X             G      W
failed_revert  X     X    X      X       X            X             G      X
wait           W     W    W      W       W            X             G      W
purged         G     G    G      G       G            G             G      G
odd            X     X    X      X       W            X             G      X
"""

LIKE = {  # states that behave as another
    "reg": "new", "keep": "wait", "ignore": "wait", "goto_purged": "purged", "error_purged": "purged",
    "scrubbed": "purged", "goto_scrubbed": "purged", "error_scrubbed": "purged", "": "odd",
}  # fmt: skip
WORDS = (*STATES, "odd", "")
FINAL = set(CODES)


def read(block: str) -> dict[tuple[str, str], Component]:
    head, *lines = (line.split() for line in block.strip("\n").splitlines())
    columns = head if head[0] == "none" else head[1:]
    return {(row, each): LETTERS[code] for row, *codes in lines for each, code in zip(columns, codes, strict=True)}


CHIP, WARP = (read(block) for block in GOLDEN.strip().split("\n\n"))


def expected(stage: str, run: str, data: str) -> Component:
    return (CHIP if stage == "chip" else WARP)[LIKE.get(run, run), LIKE.get(data, data)]


def test_the_golden_table_names_every_known_state() -> None:
    assert {run for run, _ in CHIP} | LIKE.keys() == set(WORDS)


@pytest.mark.parametrize("stage", ["chip", "warp", "diff"])
def test_every_combination_of_states(stage: str) -> None:
    for run, data in product(WORDS, WORDS):
        verdict = classify(Facts(stage, 7, run, data))
        assert verdict.component is expected(stage, run, data), (run, data)


@pytest.mark.parametrize("stage", ["chip", "warp", "diff"])
def test_without_waiting_what_would_wait_is_25(stage: str) -> None:
    for run, data in product(WORDS, WORDS):
        patient, verdict = classify(Facts(stage, 7, run, data)), classify(Facts(stage, 7, run, data), no_wait="because")
        if patient.waits:
            assert (verdict.component, verdict.fault) == (Component.NOT_NOW, 25)
            assert verdict.reason == f"{patient.reason}; because"
        else:
            assert verdict == patient


@pytest.mark.parametrize(("fault", "quality"), list(product((0, 2, 26), (0, 8006))))
def test_a_raw_image_is_there_whatever_is_said_of_it(fault: int, quality: int) -> None:
    for run, data in product(WORDS, WORDS):
        assert classify(Facts("raw", 7, run, data, fault, quality)).component is Component.USABLE


def test_a_raw_image_with_streaks() -> None:
    for magicked in (0, -1):
        verdict = classify(Facts("raw", 7, "full", "full", magicked=magicked, need_magic=True))
        assert verdict == Verdict(Component.NOT_DESTREAKED, "never destreaked")
    assert classify(Facts("raw", 7, "full", "full", magicked=3, need_magic=True)).component is Component.USABLE


def test_a_stack_is_full_or_gone() -> None:
    for state in WORDS:
        wanted = "U" if state == "full" else "X" if LIKE.get(state, state) == "odd" else "G"
        assert classify(Facts("stack", 7, state, state)).component is LETTERS[wanted], state


def test_a_camera_product_is_full_or_waited_for_or_gone() -> None:
    codes = {"full": "U", "update": "P", "new": "W", "wait": "W", "odd": "X"}
    for state in WORDS:
        wanted = codes.get(LIKE.get(state, state), "G")
        assert classify(Facts("camera", 7, state, state, as_input=True)).component is LETTERS[wanted], state


@pytest.mark.parametrize("stage", ["chip", "camera", "warp", "diff", "stack"])
def test_fault_26_is_gone_whatever_the_states(stage: str) -> None:
    for run, data in product(WORDS, WORDS):
        assert classify(Facts(stage, 7, run, data, 26)).fault == 26


def test_another_fault_belongs_to_a_try_and_does_not_decide_who_waits() -> None:
    """§8 point 24: also that of a cleaned component in a run that is in update for another's sake."""
    for stage, run, data in product(("chip", "warp", "diff", "stack"), WORDS, WORDS):
        with_fault, without = classify(Facts(stage, 7, run, data, 2)), classify(Facts(stage, 7, run, data))
        assert with_fault.fault == without.fault
        assert with_fault.waits == without.waits
    assert classify(Facts("chip", 7, "update", "cleaned", 2)).reason == "cleaned, must be made again"


def test_a_failed_try_is_repeated_when_its_time_has_come() -> None:
    facts = Facts("warp", 7, "update", "update", 2)
    assert classify(facts) == Verdict(
        Component.QUEUE, "a try to make it failed, with fault 2: A disk, network or system call failed; "
        "to be tried again",
    )  # fmt: skip
    assert classify(replace(facts, tries=Tries(2, 4, due=False))) == Verdict(
        Component.WAITING, "2 tries to make it failed, the last with fault 2: A disk, network or system call failed; "
        "tried again after a while",
    )  # fmt: skip
    said = "a try to make it failed, with fault 2: no disk; tried again after a while"
    assert classify(replace(facts, tries=Tries(1, 2, "no disk", due=False))).reason == said
    assert "no disk" not in classify(replace(facts, tries=Tries(1, 4, "no disk", due=False))).reason
    in_progress = replace(facts, fault=0, tries=Tries(2, 4, due=False))
    assert classify(in_progress) == Verdict(Component.IN_PROGRESS, "being made again")


def test_when_the_tries_are_used_up_it_is_not_to_be_had_now() -> None:
    """§8 points 9, 11: counted are tries, and the answer is 25 with the cause, not 26."""
    used_up = Tries(3, 6, used_up=True, due=False)
    for stage, run, data, fault in product(("chip", "warp", "diff"), WORDS, WORDS, (0, 2)):
        facts = Facts(stage, 7, run, data, fault)
        verdict = classify(replace(facts, tries=used_up))
        if facts.can_be_made:
            assert verdict == Verdict(
                Component.NOT_NOW, "3 tries to make it failed, the last with fault 6: The work was lost or took too "
                "long; given up for now, a later request has it tried again", 6,
            )  # fmt: skip
            assert verdict.fault == 25
        else:
            assert verdict.component is classify(facts).component


@pytest.mark.parametrize("stage", ["chip", "warp", "diff"])
def test_bad_quality_is_never_made_again(stage: str) -> None:
    for run, data in product(WORDS, WORDS):
        without, verdict = expected(stage, run, data), classify(Facts(stage, 7, run, data, 0, 8006))
        if without in (Component.USABLE, Component.GONE):
            assert verdict.component is without
        else:
            assert verdict == Verdict(Component.GONE, "of bad quality (8006); such images are not made again")


def test_old_differences_are_not_made_again() -> None:
    """§8 point 22: from which number on is a setting of the project."""
    old = Facts("diff", 22778, "cleaned", "cleaned", oldest_diff=22779)
    assert classify(old) == classify(old, no_wait="because")
    assert classify(old).reason == "cleaned, and too old to be made again (before difference 22779)"
    assert classify(old).fault == 26
    assert classify(replace(old, stage_id=22779)).waits
    assert classify(replace(old, run_state="full", data_state="full")).component is Component.USABLE
    assert classify(replace(old, stage="warp")).waits


@pytest.mark.parametrize(
    ("stage", "fault", "quality", "wanted"),
    [
        ("warp", 0, 0, "U"), ("warp", 2, 0, "X"), ("warp", 0, 8006, "G"), ("warp", 2, 8006, "G"),
        ("stack", 0, 0, "U"), ("stack", 2, 0, "X"), ("stack", 0, 8006, "G"),
        ("camera", 0, 0, "U"), ("camera", 2, 0, "X"), ("camera", 0, 8006, "G"),
        ("chip", 0, 0, "U"), ("chip", 2, 0, "U"),
    ],
)  # fmt: skip
def test_an_input_is_ready_by_the_rule_of_the_update_server(stage: str, fault: int, quality: int, wanted: str) -> None:
    """§8 point 23."""
    facts = Facts(stage, 7, "full", "full", fault, quality, as_input=True)
    assert classify(facts).component is LETTERS[wanted]
    assert classify(facts).cause == (2 if wanted == "X" else 0)
    if stage != "camera":  # nobody asks for one
        assert classify(replace(facts, as_input=False)).component is Component.USABLE


@pytest.mark.parametrize("kind", Component)
def test_what_its_inputs_mean_for_a_component(kind: Component) -> None:
    inputs = Verdict(kind, "the inputs' reason", 5)
    cleaned = Facts("warp", 7, "cleaned", "cleaned", inputs=inputs)
    for facts in (cleaned, replace(cleaned, run_state="update"),
                  replace(cleaned, run_state="update", data_state="update")):  # fmt: skip
        verdict = classify(facts)
        if kind is Component.USABLE:
            assert verdict == classify(replace(facts, inputs=None))
        elif kind in FINAL:
            assert verdict == inputs
        else:
            assert verdict == Verdict(Component.WAITING, "the inputs' reason")
    about_to_be_cleaned = classify(replace(cleaned, run_state="goto_cleaned"))
    assert about_to_be_cleaned.component is (kind if kind in FINAL else Component.QUEUE)
    assert classify(replace(cleaned, run_state="full", data_state="full")).component is Component.USABLE


def test_the_worst_input_decides() -> None:
    """A diff that lacks one warp for good is not kept waiting for the other."""
    order = "GDXWQPU"
    for one, other in product(order, order):
        verdicts = [("chip", Verdict(LETTERS[each], each)) for each in (one, other)]
        found = worst(verdicts)
        assert found.component is LETTERS[min(one, other, key=order.index)]
    assert worst([("chip", Verdict(Component.QUEUE, "cleaned"))]).reason == "waits for its chip: cleaned"
    gone = worst([("warp", Verdict(Component.GONE, "deleted", 3)), ("stack", Verdict(Component.USABLE, "there"))])
    assert gone == Verdict(Component.GONE, "can't be made again without its warp: deleted", 3)
    assert worst([("warp", gone)]).reason == (
        "can't be made again without its warp: can't be made again without its warp: deleted"
    )


def test_streaks() -> None:
    for (run, file), wanted in read(STREAKS).items():
        destreak = Destreak("" if run == "none" else run, "" if file == "none" else file)
        facts = Facts("chip", 7, "update", "full", magicked=-1, need_magic=True, destreak=destreak)
        assert classify(facts).component is wanted, (run, file)
        for clean in (replace(facts, magicked=1), replace(facts, need_magic=False)):
            assert classify(clean).component is Component.USABLE
        kept = classify(replace(facts, run_state="goto_cleaned"))
        if wanted is not Component.NOT_DESTREAKED:
            assert kept == Verdict(Component.QUEUE, "about to be cleaned; to be kept")


@pytest.mark.parametrize("run", ["new", "update"])
def test_destreaking_that_failed(run: str) -> None:
    facts = Facts("chip", 7, "full", "full", need_magic=True, destreak=Destreak(run, "update", 2))
    assert classify(facts).component is Component.QUEUE

    def with_tries(tries: Tries, fault: int = 2) -> Verdict:
        return classify(replace(facts, destreak=Destreak(run, "update", fault, tries=tries)))

    assert with_tries(Tries(1, 2, due=False)) == Verdict(
        Component.WAITING, "a try to destreak it failed, with fault 2: A disk, network or system call failed; "
        "tried again after a while",
    )  # fmt: skip
    assert with_tries(Tries(3, 2, used_up=True, due=False)) == Verdict(
        Component.NOT_NOW, "3 tries to destreak it failed, the last with fault 2: A disk, network or system call "
        "failed; given up for now, a later request has it tried again", 2,
    )  # fmt: skip
    assert with_tries(Tries(), 26).fault == 26
    assert with_tries(Tries(1, 2, due=False), 0).component is Component.IN_PROGRESS


def test_a_chip_that_was_never_destreaked_is_not_made_for_nothing() -> None:
    cleaned = Facts("chip", 7, "cleaned", "cleaned", magicked=-1, need_magic=True, destreak=Destreak())
    assert classify(cleaned) == Verdict(Component.NOT_DESTREAKED, "never destreaked")
    assert classify(replace(cleaned, destreak=None)).component is Component.QUEUE
    assert classify(replace(cleaned, destreak=Destreak(of_source=True))).component is Component.QUEUE
    assert classify(replace(cleaned, destreak=Destreak("cleaned"))).component is Component.QUEUE
    assert classify(replace(cleaned, need_magic=False)).component is Component.QUEUE
    assert classify(replace(cleaned, stage="warp")).component is Component.QUEUE  # its chips decide


def test_who_has_streaks() -> None:
    stages = ("raw", "chip", "camera", "warp", "diff", "stack")
    assert [stage for stage in stages if needs_magic(stage, None, True)] == ["raw", "chip", "warp", "diff"]
    assert [mode for mode in (1, 2, 3, 4) if needs_magic("diff", mode, True)] == [1, 2, 3]
    assert not needs_magic("chip", None, False)


TRIES = (Tries(), Tries(1, 2), Tries(1, 2, due=False), Tries(3, 2, used_up=True, due=False))
DESTREAKS = (
    None, Destreak(), Destreak(of_source=True), Destreak("cleaned", "cleaned"), Destreak("new"),
    Destreak("new", "full"), Destreak("update", "update", 2), Destreak("update", "update", 2, tries=TRIES[2]),
    Destreak("update", "update", 2, tries=TRIES[3]), Destreak("update", "purged"), Destreak("failed_revert"),
    Destreak("wait"), Destreak("odd"), Destreak("new", "goto_cleaned"), Destreak("update", "odd"),
)  # fmt: skip
ALL = st.builds(
    Facts, stage=st.sampled_from(("raw", "chip", "camera", "warp", "diff", "stack")),
    stage_id=st.just(987654), run_state=st.sampled_from(WORDS), data_state=st.sampled_from(WORDS),
    fault=st.sampled_from((0, 2, 26)), quality=st.sampled_from((0, 8006)), magicked=st.sampled_from((-1, 0, 1)),
    need_magic=st.booleans(), oldest_diff=st.sampled_from((0, 10**6)), as_input=st.booleans(),
    tries=st.sampled_from(TRIES), destreak=st.sampled_from(DESTREAKS),
    inputs=st.sampled_from((None, *(Verdict(kind, f"so {kind.value}", 2) for kind in Component))),
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(ALL)
@example(Facts("camera", 987654, "full", "update"))
def test_every_combination_has_one_answer_with_a_reason_that_many_can_share(facts: Facts) -> None:
    verdict = classify(facts)
    assert verdict.fault == CODES.get(verdict.component, 0)
    assert verdict.waits is (verdict.component in (Component.QUEUE, Component.IN_PROGRESS, Component.WAITING))
    assert verdict.reason.strip()
    assert "()" not in verdict.reason
    assert not re.search("987654", verdict.reason)
    assert verdict.cause == 0 or verdict.component is Component.NOT_NOW or facts.inputs is not None


@settings(max_examples=1500, deadline=None)
@given(ALL)
def test_parser_and_checker_agree(facts: Facts) -> None:
    """§8 point 4: what the own row alone decides stays decided, whatever else is found out."""
    alone = classify(replace(facts, as_input=False, tries=Tries(), inputs=None, destreak=None))
    if not alone.waits:
        assert classify(replace(facts, as_input=False)) == alone


@settings(max_examples=1500, deadline=None)
@given(ALL)
def test_only_what_the_data_say_is_gone(facts: Facts) -> None:
    """§8 points 3, 11: no fault that may pass, no number of tries and nothing unknown is called gone."""
    if classify(facts).component is Component.GONE:
        words = (facts.run_state, facts.data_state, *((facts.destreak.file_state,) if facts.destreak else ()))
        said = (
            facts.fault == 26, facts.quality != 0, facts.stage in ("stack", "camera"),
            facts.stage_id < facts.oldest_diff, facts.inputs is not None and facts.inputs.component is Component.GONE,
            any("purged" in word or "scrubbed" in word or word in ("drop", "error_cleaned") for word in words),
        )  # fmt: skip
        assert any(said)


def test_every_rule_decides_something() -> None:
    """A rule that never decides is no rule."""
    decided = set()
    states = product(("raw", "chip", "camera", "warp", "diff", "stack"), WORDS, WORDS)
    for stage, run, data in states:
        base = Facts(stage, 7, run, data)
        variants = [base, replace(base, fault=26), replace(base, quality=1), replace(base, oldest_diff=9)]
        variants += [replace(base, as_input=True, fault=2), replace(base, as_input=True, quality=1)]
        variants += [replace(base, fault=2, tries=tries) for tries in TRIES]
        variants += [replace(base, inputs=Verdict(kind, "so")) for kind in Component]
        variants += [replace(base, need_magic=True, destreak=each) for each in DESTREAKS]
        decided |= {next(n for n, rule in enumerate(RULES) if rule.holds(facts)) for facts in variants}
    assert [rule.when for n, rule in enumerate(RULES) if n not in decided] == []


def test_every_rule_has_words_of_its_own() -> None:
    assert len({rule.when for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("warp", 7, "full", "cleaned"), "cleaned although its run says full; an operator must look"),
        (("chip", 7, "full", "cleaned"), "cleaned, must be made again"),
        (("chip", 7, "goto_cleaned", "full"), "about to be cleaned; to be kept"),
        (("chip", 7, "goto_cleaned", "cleaned"), "cleaned, must be made again"),
        (("chip", 7, "odd", "cleaned"), "in a state that this server does not know ('odd'); an operator must look"),
        (("chip", 7, "odd", ""), "in a state that this server does not know ('odd' and ''); an operator must look"),
        (("diff", 7, "goto_purged", "full"), "deleted for good: its run is goto_purged"),
        (("diff", 7, "cleaned", "scrubbed"), "deleted for good: it is scrubbed"),
        (("warp", 7, "error_cleaned", "cleaned"), "lost when it was cleaned: its run is error_cleaned"),
        (("warp", 7, "update", "error_cleaned"), "lost when it was cleaned: it is error_cleaned"),
        (("stack", 7, "cleaned", "cleaned"), "state cleaned; stacks are not made again"),
        (("camera", 7, "cleaned", "cleaned"), "state cleaned; camera products are not made again"),
        (("warp", 7, "keep", "cleaned"), "an operator holds it (keep)"),
        (("warp", 7, "cleaned", "goto_cleaned"), "being cleaned; it can be made again after that"),
        (("chip", 7, "full", "full", 26), "deleted for good (fault 26)"),
        (("chip", 7, "update", "update"), "being made again"),
    ],
)  # fmt: skip
def test_reasons(arguments: tuple[str, int, str, str], reason: str) -> None:
    assert classify(Facts(*arguments)).reason == reason
