"""The answer to a sweep's question in plain sentences that claim no more than its figures show.

`sweep`, `results`, `status`, the report, MLflow and the Python API show these sentences, and nothing else words a
verdict (DESIGN 4.9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdtune.config.space import Scalar, value_text
from kdtune.history.gains import Family, Gain
from kdtune.history.groups import BlockHistory, GroupHistory, joint_state
from kdtune.history.racing import MOST_NEEDED, seeds_needed
from kdtune.history.sweep import SweepHistory
from kdtune.history.videos import Videos
from kdtune.parse import printable

#: Maximum number of blocks that an answer names.
SHOWN = 4
#: Short name of a parameter → its sign.
SIGNS = {"lambda": "λ", "tau": "τ", "alpha": "α"}


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
    name, control = _leader_name(block, leader), control_name(block)
    by = f"{metric.gain_text(gain.mean, unit=True)} ({evidence(history, gain, evaluated(history, label, videos))})"
    against, tested = f"than {control} in {metric.title}: {by}", _on_test(history, label, videos)
    match gain.verdict:
        case "better":
            return f"{name[0].upper()}{name[1:]} is better {against}{tested}."
        case "worse":
            return f"Even the best, {name}, is worse {against}{tested}."
        case _:
            return f"The data do not decide whether {name} is better {against}{to_decide(gain)}{tested}."


def verdict_words(gain: Gain) -> str:
    """Return the verdict with its error rate, as in `better (95 % CI, corrected for 16 comparisons)`."""
    return gain.verdict if gain.verdict == "not decided" else f"{gain.verdict} ({correction(gain.family)})"


def correction(family: Family, ends: str = "") -> str:
    """Return the level of intervals, as in `95 % CI, corrected for 16 comparisons`; `ends` follow `CI`."""
    looks = f" and {family.looks} looks" if family.looks > 1 else ""
    comparisons = counted(family.comparisons, "comparison")
    return f"{100 * family.level:g} % CI{ends}, corrected for {comparisons}{looks}"


def evidence(history: SweepHistory, gain: Gain, videos: int | None) -> str:
    """Return a gain's interval and what it rests on, as in `95 % CI +1.0 … +7.4 over 3 seeds, on 48 videos, corrected
    for 16 comparisons`. `videos` is the number of evaluated videos, if known."""
    if gain.low is None or gain.high is None:
        count = len(gain.differences)
        why = "one seed has no spread" if count == 1 else f"{count} seeds have the same gain"
        return f"no interval: {why}"
    ends = history.metric.interval_text(gain.low, gain.high)
    return correction(gain.family, f" {ends} over {_sample(gain, videos)}")


def _sample(gain: Gain, videos: int | None) -> str:
    """Return the seeds and videos of a gain; videos whose chance its interval does not cover follow `on`."""
    seeds = counted(len(gain.differences), "seed")
    match gain.basis:
        case "videos":
            return f"{counted(gain.videos or 0, 'video')}, one seed"
        case "seeds and videos":
            return f"{seeds} and {counted(gain.videos or 0, 'video')}"
        case _:
            return seeds + (f", on {counted(videos, 'video')}" if videos else "")


def evaluated(history: SweepHistory, label: str, videos: Videos, split: str | None = None) -> int | None:
    """Return the number of videos on which the metric is measured in a block; None for a cost, or if it is unknown."""
    return None if history.metric.cost else videos.get(label, {}).get(split or history.metric.split)


def to_decide(gain: Gain) -> str:
    """Return what would decide an undecided gain, to end a sentence; empty if the data do not tell."""
    more = seeds_needed(gain)
    if more:
        return f"; about {counted(more, 'more seed')} would decide"
    if gain.low is None:
        return "; more seeds would show the spread" if len(gain.differences) == 1 else ""
    return f"; {MOST_NEEDED} more seeds would not decide{': it takes more videos' if gain.videos else ''}"


def counted(number: int, what: str) -> str:
    """Return a number with its noun, as in `1 seed` or `3 seeds`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# ---- names -----------------------------------------------------------------------------------------------------------


def label(parameter: str) -> str:
    """Return the displayed name of a parameter: its sign if it has one, else its name."""
    return SIGNS.get(parameter, parameter)


def described(name: str, values: Mapping[str, Scalar], params: Sequence[str]) -> str:
    """Return a name with the values of `params`, as in `candidate 3 (c3d, λ 0.25, τ 4)`."""
    shown = [f"{label(p)} {value_text(values[p])}" for p in params if values.get(p) is not None]
    shown = [text.removeprefix("teacher ").removeprefix("student ") for text in shown]
    return f"{name} ({', '.join(shown)})" if shown else name


def varied(block: BlockHistory) -> list[str]:
    """Return the parameters that differ between a block's trials, and always the teacher."""
    groups = [*(group for by_seed in block.controls.values() for group in by_seed.values()), *block.candidates.values()]
    values: dict[str, set[str]] = {}
    for group in groups:
        for name, value in group.params.items():
            values.setdefault(name, set()).update([] if value is None else [str(value)])
    return [name for name, seen in values.items() if name == "teacher" or len(seen) > 1]


def control_name(block: BlockHistory) -> str:
    """Return `scratch`, or another control's description."""
    teacher = block.first_control()[0].params.get("teacher", "none")
    return "scratch" if teacher == "none" else f"the control (teacher {teacher})"


def _leader_name(block: BlockHistory, leader: GroupHistory) -> str:
    name = described(f"candidate {leader.number}", leader.params, varied(block))
    if len(block.best) > 1:
        return f"{name}, the best of a Pareto set of {len(block.best)} in {block.metric.name},"
    return name


# ---- gains -----------------------------------------------------------------------------------------------------------


def leader_gain(history: SweepHistory, label: str, videos: Videos) -> Gain | None:
    """Return the gain of a block's best candidate, corrected for all candidates of the sweep; None without one."""
    block, number = history.blocks[label], evaluated(history, label, videos)
    return None if block.leader is None else block.gain(block.leader, max(1, history.comparisons), number)


def refit_gain(history: SweepHistory, label: str, videos: Videos) -> Gain | None:
    """Return the gain on test of the refit of a block's best candidate, corrected for the chosen candidates of all
    blocks; None without one."""
    block = history.blocks[label]
    refit = None if block.leader is None or history.metric.cost else block.refit(block.leader)
    return None if refit is None else block.gain(refit, chosen(history), evaluated(history, label, videos, "test"))


def chosen(history: SweepHistory) -> int:
    """Return the number of comparisons on test: the candidates that the search chose in all blocks, at least 1."""
    return max(1, sum(len(block.best) for block in history.blocks.values()))


# ---- parts of sentences ----------------------------------------------------------------------------------------------


def _overall(history: SweepHistory, known: Mapping[str, tuple[BlockHistory, Gain]], blocks: int) -> str:
    """Return in how many blocks the best candidate is better than the control, and in how many worse."""
    verdicts = [gain.verdict for _, gain in known.values()]
    better, worse = verdicts.count("better"), verdicts.count("worse")
    control = control_name(next(iter(known.values()))[0])
    than = f"better than {control} in {history.metric.title}"
    claim = f"In {better} of {blocks} blocks the best candidate is {than}"
    if not better:
        claim = f"In none of {blocks} blocks is the best candidate {than}"
    claim += f", and in {worse} it is worse" if worse else ""
    if all(gain.low is None for _, gain in known.values()):
        return f"{claim}: the data give no intervals."
    return f"{claim} ({correction(next(iter(known.values()))[1].family)})."


def _in_short(history: SweepHistory, label: str, videos: Videos, gain: Gain) -> str:
    """Return a block's part of an answer that has named the metric, the control and the correction."""
    block, metric = history.blocks[label], history.metric
    assert block.leader is not None, "a gain is the best candidate's"
    name = _leader_name(block, block.leader)
    ends = metric.interval_text(gain.low, gain.high) or "no interval"
    sample = _sample(gain, evaluated(history, label, videos))
    by = f"{metric.gain_text(gain.mean, unit=True)} ({ends} over {sample})"
    tested = _on_test(history, label, videos)
    if gain.verdict == "not decided":
        return f"{label}: not decided, {name} has {by}{to_decide(gain)}{tested}."
    return f"{label}: {name} is {gain.verdict}, {by}{tested}."


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
