"""The looks of a race: which candidates of a block go on, and how the race ends (DESIGN 4.12).

A look falls when everything that the look before it asked for has ended. It sees exactly these trainings, so what it
decides depends on neither the order in which they ended nor the number of trainings that ran side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kdtune.history.blocks import BlockHistory
from kdtune.history.gains import VideoScores
from kdtune.history.groups import GroupHistory
from kdtune.history.race import Looked
from kdtune.history.racing import look


def take_look(block: BlockHistory, recorded: Looked | None) -> Looked:
    """Return the next look of a block whose trainings have all ended.

    A `recorded` look that saw the same is kept as it is, even if another version of the statistics would now decide
    otherwise: later trainings followed from it.
    """
    race = block.race
    assert race is not None
    number = len(race.looks) + 1
    controls = [group for _, group in sorted(block.controls[0].items())]
    seen = _seen(block)
    control = _values(controls)
    values = {group.number: _values(group.every_part) for group in seen}
    found = Looked(
        block=block.label,
        number=number,
        comparisons=race.comparisons,
        control=tuple(control.values()),
        candidates={candidate: tuple(own.values()) for candidate, own in values.items()},
        decision="failed",
    )
    goes_on = recorded is not None and recorded.left and number < len(race.rules.looks)
    if recorded is not None and recorded.evidence == found.evidence and (recorded.decision is not None or goes_on):
        return recorded
    seeds = range(race.rules.looks[number - 1])
    if lacking := [seed for seed in seeds if seed not in control]:
        return replace(found, reason=f"the control has no value with seed {lacking[0]}")
    dropped = {n: f"no value with seed {seed}" for n, own in values.items() for seed in seeds if seed not in own}
    rest = [group for group in seen if group.number not in dropped]
    if not rest:
        return replace(found, dropped=dropped, reason="no candidate has a value with every seed")
    told = look(race.rules, block.metric, *_scores(block, rest, controls), race.comparisons)
    gains = {number: (gain.mean, gain.low, gain.high) for number, gain in told.gains.items()}
    dropped |= told.dropped
    return replace(found, gains=gains, dropped=dropped, leader=told.leader, decision=told.decision)


def _seen(block: BlockHistory) -> list[GroupHistory]:
    """Return the candidates that the next look sees, by number: those that are left in the race, at first all that are
    complete. A candidate that is the control's own trial is neither better nor worse."""
    last = None if block.race is None else block.race.last
    if last is not None:
        return [block.candidates[number] for number in last.left]
    complete = (group for _, group in sorted(block.candidates.items()) if group.state == "complete")
    return [group for group in complete if not block.is_control_itself(group)]


def _values(groups: Sequence[GroupHistory]) -> dict[int, float]:
    """Return seed → value of the objective, over groups of different seeds."""
    found = {seed: value for group in groups for seed, value in group.values().items()}
    return {seed: found[seed] for seed in sorted(found)}


def _scores(
    block: BlockHistory, candidates: Sequence[GroupHistory], controls: Sequence[GroupHistory]
) -> tuple[Mapping[int, VideoScores], VideoScores]:
    """Return the scores of the candidates and of the control: one for each video where all of them have those."""
    parts, metric = {group.number: group.every_part for group in candidates}, block.metric.metric
    every = [controls, *parts.values()]
    values = [_values(groups) for groups in every]
    scores: list[dict[int, Sequence[float]]] = [
        {seed: own for group in groups for seed, own in group.scores(metric).items()} for groups in every
    ]
    lengths = {len(own) for found in scores for own in found.values()}
    if len(lengths) != 1 or any(own.keys() != known.keys() for own, known in zip(scores, values, strict=True)):
        scores = [{seed: [value] for seed, value in known.items()} for known in values]
    return dict(zip(parts, scores[1:], strict=True)), scores[0]
