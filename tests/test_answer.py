"""The sentences that answer a sweep's question, for every kind of sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from watched import GMAC, KNN, a_history, asked

from kdtune.history.events import Ended, Event, Outcome
from kdtune.history.race import Looked
from kdtune.history.racing import RaceRules
from kdtune.history.words.answer import answer

VIDEOS = {"validation": 48, "test": 24}
TITLE = "k-NN accuracy on validation at late"


def group(kind: Any, number: int, *objectives: Sequence[float], block: str = "all", **fields: Any) -> list[Event]:
    """A group that has ended with these values: for each objective, one per seed."""
    params = {"teacher": "none"} if kind == "control" else {"teacher": "c3d", "lambda": 0.25 + number}
    seeds = len(objectives[0])
    event = asked(kind, number, block, seeds=seeds, params=(params,) * seeds, **fields)
    return [event, Ended(event.group, Outcome("complete", tuple(map(tuple, objectives))))]


def controls(*objectives: Sequence[float], block: str = "all") -> list[Event]:
    """One control for each seed."""
    events: list[Event] = []
    for seed, values in enumerate(zip(*objectives, strict=True)):
        name = f"{block} · control seed {seed}"
        known, end = group("control", 0, *((value,) for value in values), block=block)
        assert isinstance(known, type(asked("control", 0)))
        assert isinstance(end, Ended)
        events.append(dataclasses.replace(known, group=name, seeds=(seed,), keys=(name.replace(" ", "-"),)))
        events.append(dataclasses.replace(end, group=name))
    return events


def raced(decision: Any) -> Looked:
    """The look of a race that ends it."""
    failed = decision == "failed"
    seen: dict[str, Any] = {"control": BASE, "candidates": {0: UNDECIDED}, "leader": None if failed else 0}
    reason = "a disk is full" if failed else ""
    return Looked(block="all", number=1, comparisons=1, decision=decision, reason=reason, **seen)


RACE = RaceRules(first=3, most=5, margin=20)
BASE = (0.40, 0.42, 0.38)
BETTER, WORSE, UNDECIDED = (0.50, 0.521, 0.479), (0.30, 0.321, 0.279), (0.41, 0.40, 0.43)
#: The sweep's events, its blocks and objectives, and the answer.
ONE = {"blocks": {"all": 1}}
TWO = {"blocks": {"f=1": 1, "f=0.5": 1}}
CASES: dict[str, tuple[list[Event], dict[str, Any], list[str]]] = {
    "nothing was asked": ([], ONE, ["No answer yet: the control is pending."]),
    "no candidate is complete": (controls(BASE), ONE, ["No answer yet: no candidate is complete."]),
    "the best is the control itself": (
        [*controls(BASE[:1]), *group("candidate", 0, BASE[:1], keys=("all-·-control-seed-0",))],
        ONE,
        ["No answer yet: the best candidate is the control's own trial."],
    ),
    "better": (
        [*controls(BASE), *group("candidate", 0, BETTER)],
        ONE,
        [
            f"Candidate 0 (c3d) is better than scratch in {TITLE}: +10.0 points (95 % CI +9.8 … +10.2 over 3 "
            "seeds, on 48 videos, corrected for 1 comparison)."
        ],
    ),
    "worse": (
        [*controls(BASE), *group("candidate", 0, WORSE)],
        ONE,
        [
            f"Even the best, candidate 0 (c3d), is worse than scratch in {TITLE}: −10.0 points (95 % CI −10.2 … "
            "−9.8 over 3 seeds, on 48 videos, corrected for 1 comparison)."
        ],
    ),
    "not decided": (
        [*controls(BASE), *group("candidate", 0, UNDECIDED)],
        ONE,
        [
            f"The data do not decide whether candidate 0 (c3d) is better than scratch in {TITLE}: +1.3 points "
            "(95 % CI −7.4 … +10.1 over 3 seeds, on 48 videos, corrected for 1 comparison); about 27 more "
            "seeds would decide."
        ],
    ),
    "one seed": (
        [*controls(BASE[:1]), *group("candidate", 0, BETTER[:1])],
        ONE,
        [
            f"The data do not decide whether candidate 0 (c3d) is better than scratch in {TITLE}: +10.0 points "
            "(95 % CI −9.6 … +28.6 over 48 videos, one seed, corrected for 1 comparison); about 6 more seeds would "
            "decide."
        ],
    ),
    "less is better": (
        [*controls(BASE), *group("candidate", 0, WORSE)],
        {**ONE, "objectives": (dataclasses.replace(KNN, metric="pretext_loss", column="pretext_loss", mode="min"),)},
        [
            "Candidate 0 (c3d) is better than scratch in pretext loss on validation at late: +0.1 nats (95 % CI "
            "+0.0975 … +0.102 over 3 seeds, on 48 videos, corrected for 1 comparison)."
        ],
    ),
    "several objectives": (
        [
            *controls((2.0, 2.0, 2.0), BASE),
            *group("candidate", 0, (2.0, 2.0, 2.0), BETTER),
            *group("candidate", 1, (1.0, 1.0, 1.0), WORSE),
        ],
        {"blocks": {"all": 2}, "objectives": (GMAC, KNN)},
        [
            "Candidate 0 (c3d, λ 0.25), the best of a Pareto set of 2 in k-NN accuracy, is better than scratch in "
            f"{TITLE}: +10.0 points (95 % CI +9.6 … +10.4 over 3 seeds, on 48 videos, corrected for 2 comparisons)."
        ],
    ),
    "so far": (
        [*controls(BASE), *group("candidate", 0, BETTER)],
        {"blocks": {"all": 2}},
        [
            f"So far, candidate 0 (c3d) is better than scratch in {TITLE}: +10.0 points (95 % CI +9.8 … +10.2 "
            "over 3 seeds, on 48 videos, corrected for 1 comparison)."
        ],
    ),
    "two blocks": (
        [
            *controls(BASE, block="f=1"),
            *group("candidate", 0, BETTER, block="f=1"),
            *controls(BASE, block="f=0.5"),
            *group("candidate", 0, UNDECIDED, block="f=0.5"),
        ],
        TWO,
        [
            f"In 1 of 2 blocks the best candidate is better than scratch in {TITLE} (95 % CI, corrected for 2 "
            "comparisons).",
            "f=1: candidate 0 (c3d) is better, +10.0 points (+9.6 … +10.4 over 3 seeds, on 48 videos).",
            "f=0.5: not decided, candidate 0 (c3d) has +1.3 points (−11.2 … +13.9 over 3 seeds, on 48 videos); about "
            "35 more seeds would decide.",
        ],
    ),
    "one of two blocks": (
        [*controls(BASE, block="f=1"), *group("candidate", 0, WORSE, block="f=1")],
        TWO,
        [
            f"So far, in none of 2 blocks is the best candidate better than scratch in {TITLE}, in 1 it is worse "
            "(95 % CI, corrected for 1 comparison).",
            "f=1: candidate 0 (c3d) is worse, −10.0 points (−10.2 … −9.8 over 3 seeds, on 48 videos).",
            "No answer yet: the control is pending in f=0.5.",
        ],
    ),
    "a race that has not looked": (
        [*controls(BASE), *group("candidate", 0, UNDECIDED)],
        {**ONE, "race": RACE},
        [
            f"So far, the data do not decide whether candidate 0 (c3d) is better than scratch in {TITLE}: +1.3 points "
            "(95 % CI −18.0 … +20.7 over 3 seeds, on 48 videos, corrected for 1 comparison and 2 looks); its race has "
            "not ended."
        ],
    ),
    "a race within the margin": (
        [*controls(BASE), *group("candidate", 0, UNDECIDED), raced("within margin")],
        {**ONE, "race": RACE},
        [
            f"Candidate 0 (c3d) is within ±20 points of scratch in {TITLE}: +1.3 points (95 % CI −18.0 … +20.7 over 3 "
            "seeds, on 48 videos, corrected for 1 comparison and 2 looks)."
        ],
    ),
    "a race that failed": (
        [*controls(BASE), *group("candidate", 0, UNDECIDED), raced("failed")],
        {**ONE, "race": RACE},
        [
            f"The data do not decide whether candidate 0 (c3d) is better than scratch in {TITLE}: +1.3 points "
            "(95 % CI −18.0 … +20.7 over 3 seeds, on 48 videos, corrected for 1 comparison and 2 looks); its race "
            "failed: a disk is full."
        ],
    ),
    "many blocks without an answer": (
        controls(BASE, block="b0"),
        {"blocks": {f"b{n}": 1 for n in range(7)}},
        ["No answer yet: no candidate is complete in b0; the control is pending in 6 blocks."],
    ),
    "many blocks": (
        [
            event
            for n, values in enumerate((BETTER, WORSE, UNDECIDED, BETTER, BETTER))
            for event in (*controls(BASE, block=f"b{n}"), *group("candidate", 0, values, block=f"b{n}"))
        ],
        {"blocks": {f"b{n}": 1 for n in range(5)}},
        [
            f"In 3 of 5 blocks the best candidate is better than scratch in {TITLE}, in 1 it is worse (95 % CI, "
            "corrected for 5 comparisons).",
            "Gains are from −10.0 to +10.0 points, with intervals between −18.8 and +21.5.",
        ],
    ),
}


@pytest.mark.parametrize(("events", "record", "sentences"), CASES.values(), ids=CASES.keys())
def test_the_answer_of_every_kind_of_sweep(events: list[Event], record: dict[str, Any], sentences: list[str]) -> None:
    history = a_history(*events, **record)
    assert list(answer(history, dict.fromkeys(history.blocks, VIDEOS)).sentences) == sentences


def test_what_is_unknown_is_left_out() -> None:
    history = a_history(*controls(BASE), *group("candidate", 0, BETTER), **ONE)
    assert "over 3 seeds, corrected for 1 comparison)" in str(answer(history, {}))
    history = a_history(*controls(BASE[:1]), *group("candidate", 0, BETTER[:1]), **ONE)
    assert str(answer(history, {})).endswith(
        "+10.0 points (no interval: one seed has no spread); more seeds would show the spread."
    )


def test_a_label_with_control_characters_cannot_write_on_a_terminal() -> None:
    assert "\x1b" not in str(answer(a_history(blocks={"a\x1b[2J": 1, "b": 1}), {}))
