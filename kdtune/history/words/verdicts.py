"""The gains that a sweep's answer rests on, and the words for their verdicts, intervals and what would decide them."""

from __future__ import annotations

from typing import Literal

from kdtune.history.blocks import BlockHistory
from kdtune.history.gains import Family, Gain, Verdict
from kdtune.history.racing import MOST_NEEDED, seeds_needed
from kdtune.history.sweep import SweepHistory
from kdtune.history.videos import Videos
from kdtune.history.words.names import counted

#: A gain's verdict; in a race also that the best candidate is within ±margin of the control.
BlockVerdict = Verdict | Literal["within margin"]


def block_verdict(block: BlockHistory, gain: Gain) -> BlockVerdict:
    """Return the decision of a block's race, or the verdict of its best candidate's gain while none has decided."""
    decision = None if block.race is None else block.race.decision
    return gain.verdict if decision is None or decision == "failed" else decision


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


def evaluated(history: SweepHistory, label: str, videos: Videos, split: str | None = None) -> int | None:
    """Return the number of videos on which the metric is measured in a block; None for a cost, or if it is unknown."""
    return None if history.metric.cost else videos.get(label, {}).get(split or history.metric.split)


# ---- words -----------------------------------------------------------------------------------------------------------


def verdict_words(gain: Gain, verdict: BlockVerdict | None = None) -> str:
    """Return the verdict with its error rate, as in `better (95 % CI, corrected for 16 comparisons)`; default: the
    gain's."""
    verdict = gain.verdict if verdict is None else verdict
    return verdict if verdict == "not decided" else f"{verdict} ({correction(gain.family)})"


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
    return correction(gain.family, f" {ends} over {sample(gain, videos)}")


def sample(gain: Gain, videos: int | None) -> str:
    """Return the seeds and videos of a gain; videos whose chance its interval does not cover follow `on`."""
    seeds = counted(len(gain.differences), "seed")
    match gain.basis:
        case "videos":
            return f"{counted(gain.videos or 0, 'video')}, one seed"
        case "seeds and videos":
            return f"{seeds} and {counted(gain.videos or 0, 'video')}"
        case _:
            return seeds + (f", on {counted(videos, 'video')}" if videos else "")


def to_decide(block: BlockHistory, gain: Gain) -> str:
    """Return what would decide an undecided gain, to end a sentence; empty if the data do not tell."""
    race = block.race
    if race is not None and not race.ended:
        return "; its race has not ended"
    if race is not None and race.last is not None and race.decision == "failed":
        return f"; its race failed: {race.last.reason}"
    more = seeds_needed(gain, None if race is None else race.rules)
    if more:
        return f"; about {counted(more, 'more seed')} would decide"
    if gain.low is None:
        return "; more seeds would show the spread" if len(gain.differences) == 1 else ""
    return f"; {MOST_NEEDED} more seeds would not decide{': it takes more videos' if gain.videos else ''}"
