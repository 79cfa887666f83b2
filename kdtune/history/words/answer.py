"""The answer to a sweep's question in plain sentences that claim no more than its figures show.

`sweep`, `results`, `status`, the report, MLflow and the Python API show these sentences (DESIGN 4.9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdtune.history.blocks import BlockHistory
from kdtune.history.gains import Gain
from kdtune.history.groups import joint_state
from kdtune.history.sweep import SweepHistory
from kdtune.history.videos import Videos
from kdtune.history.words.names import control_name, counted, leader_name
from kdtune.history.words.verdicts import (
    block_verdict,
    correction,
    evaluated,
    evidence,
    leader_gain,
    refit_gain,
    sample,
    to_decide,
)
from kdtune.parse import printable

#: Maximum number of blocks that an answer names.
SHOWN = 4


@dataclass(frozen=True)
class Answer:
    """One sentence on the whole sweep, and then at most one for each block."""

    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.sentences)


def answer(history: SweepHistory, videos: Videos) -> Answer:
    """Answer the sweep's question with the intervals, and say what would decide it."""
    found = {label: (block, leader_gain(history, label, videos)) for label, block in history.blocks.items()}
    known = {label: (block, gain) for label, (block, gain) in found.items() if gain is not None}
    lacking = {label: _lacking(block) for label, (block, gain) in found.items() if gain is None}
    if not known:
        return Answer((printable(_no_answer(lacking, len(found))),))
    if len(found) == 1:
        sentences = [block_answer(history, label, videos) for label in known]
    else:
        sentences = [_overall(history, known, len(found))]
        if len(known) <= SHOWN:
            sentences += [_in_short(history, label, videos, gain) for label, (_, gain) in known.items()]
        else:
            sentences += [_range(history, [gain for _, gain in known.values()])]
        sentences += [_no_answer(lacking, len(found))] if lacking else []
    if not history.complete:
        sentences[0] = f"So far, {sentences[0][0].lower()}{sentences[0][1:]}"
    return Answer(tuple(map(printable, sentences)))


def block_answer(history: SweepHistory, label: str, videos: Videos) -> str:
    """Return one sentence on a block: its best candidate, the gain, the interval, and what would decide."""
    block, metric = history.blocks[label], history.metric
    leader, gain = block.leader, leader_gain(history, label, videos)
    if leader is None or gain is None:
        return f"{_lacking(block).capitalize()}, so there is no gain to report."
    name, control = leader_name(block, leader), control_name(block)
    by = f"{metric.gain_text(gain.mean, unit=True)} ({evidence(history, gain, evaluated(history, label, videos))})"
    against, tested = f"{control} in {metric.title}: {by}", _on_test(history, label, videos)
    match block_verdict(block, gain):
        case "better":
            return f"{name[0].upper()}{name[1:]} is better than {against}{tested}."
        case "worse":
            return f"Even the best, {name}, is worse than {against}{tested}."
        case "within margin":
            return f"{name[0].upper()}{name[1:]} is within {_margin(history)} of {against}{tested}."
        case _:
            return f"The data do not decide whether {name} is better than {against}{to_decide(block, gain)}{tested}."


# ---- parts ----------------------------------------------------------------------------------------------------------


def _overall(history: SweepHistory, known: Mapping[str, tuple[BlockHistory, Gain]], blocks: int) -> str:
    """Return in how many blocks the best candidate is better than the control, and in how many worse."""
    verdicts = [block_verdict(block, gain) for block, gain in known.values()]
    better, worse, within = (verdicts.count(verdict) for verdict in ("better", "worse", "within margin"))
    control = control_name(next(iter(known.values()))[0])
    than = f"better than {control} in {history.metric.title}"
    claim = f"In {better} of {blocks} blocks the best candidate is {than}"
    if not better:
        claim = f"In none of {blocks} blocks is the best candidate {than}"
    claim += f", in {within} it is within {_margin(history)}" if within else ""
    claim += f", in {worse} it is worse" if worse else ""
    if all(gain.low is None for _, gain in known.values()):
        return f"{claim}: the data give no intervals."
    return f"{claim} ({correction(next(iter(known.values()))[1].family)})."


def _in_short(history: SweepHistory, label: str, videos: Videos, gain: Gain) -> str:
    """Return a block's part of an answer that has named the metric, the control and the correction."""
    block, metric = history.blocks[label], history.metric
    assert block.leader is not None, "a gain is the best candidate's"
    name = leader_name(block, block.leader)
    ends = metric.interval_text(gain.low, gain.high) or "no interval"
    over = sample(gain, evaluated(history, label, videos))
    by = f"{metric.gain_text(gain.mean, unit=True)} ({ends} over {over})"
    tested = _on_test(history, label, videos)
    match block_verdict(block, gain):
        case "not decided":
            return f"{label}: not decided, {name} has {by}{to_decide(block, gain)}{tested}."
        case "within margin":
            return f"{label}: {name} is within {_margin(history)}, {by}{tested}."
        case verdict:
            return f"{label}: {name} is {verdict}, {by}{tested}."


def _margin(history: SweepHistory) -> str:
    """Return the margin of the races, as in `±2 points`."""
    race, unit = history.record.race, history.metric.unit
    return f"±{0 if race is None else race.margin or 0:g} {unit}".rstrip()


def _range(history: SweepHistory, gains: Sequence[Gain]) -> str:
    metric, means = history.metric, [gain.mean for gain in gains]
    ends = [end for gain in gains for end in (gain.low, gain.high) if end is not None]
    reach = f", with intervals between {metric.gain_text(min(ends))} and {metric.gain_text(max(ends))}" if ends else ""
    return f"Gains are from {metric.gain_text(min(means))} to {metric.gain_text(max(means), unit=True)}{reach}."


def _on_test(history: SweepHistory, label: str, videos: Videos) -> str:
    """Return what the refit reached on test, to continue a sentence; empty without one."""
    gain = refit_gain(history, label, videos)
    if gain is None:
        return ""
    metric = history.metric
    ends = metric.interval_text(gain.low, gain.high) or "no interval"
    by = f"{metric.gain_text(gain.mean, unit=True)} ({ends})"
    return f"; trained again on the whole list, on test: {by}, {gain.verdict}"


def _lacking(block: BlockHistory) -> str:
    """Return why a block has no gain, in words."""
    controls = block.first_control()
    state = joint_state(controls) if controls else "pending"
    if state != "complete":
        return f"the control is {state}"
    if block.leader is None:
        return "no candidate is complete"
    if block.is_control_itself(block.leader):
        return "the best candidate is the control's own trial"
    return "the best candidate and the control share no seed"


def _no_answer(lacking: Mapping[str, str], blocks: int) -> str:
    """Return why blocks have no answer: block → reason. Blocks are named if they are few."""
    by_reason: dict[str, list[str]] = {}
    for label, reason in lacking.items():
        by_reason.setdefault(reason, []).append(label)
    parts = []
    for reason, labels in by_reason.items():
        where = f" in {', '.join(labels) if len(labels) <= SHOWN else counted(len(labels), 'block')}"
        parts.append(reason + (where if blocks > 1 else ""))
    return f"No answer yet: {'; '.join(parts) or 'there is no block'}."
