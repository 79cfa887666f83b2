"""The sentences of a report on each block and on its intervals, beside the sweep's answer."""

from __future__ import annotations

from statistics import fmean

from kdtune.history.trials import baseline_in
from kdtune.history.words.answer import block_answer
from kdtune.history.words.names import counted
from kdtune.history.words.verdicts import correction, verdict_words
from kdtune.report.standing import Entry, Standing, SweepReport


def block_words(sweep: SweepReport, standing: Standing) -> list[str]:
    """Return sentences on what one block's figures show and what they do not."""
    leader = standing.leader
    words = [block_answer(sweep.history, standing.block, {standing.block: standing.videos})]
    if leader is None or leader.name not in standing.gains:
        return words
    decided = {"better": 0, "worse": 0, "not decided": 0}
    for gain in standing.gains.values():
        decided[gain.verdict] += 1
    family = standing.gains[leader.name].family
    words.append(
        f"{counted(len(standing.gains), 'complete candidate')}: {decided['better']} better than the control "
        f"({correction(family)}), {decided['worse']} worse, {decided['not decided']} not decided."
    )
    entries = [*standing.controls, *standing.candidates]
    majority = baseline_in(sweep.metric, [entry.trials[0] for entry in entries])
    if majority is not None and fmean(leader.finals(sweep.metric).values()) <= majority:
        words.append(
            f"The best candidate is not above the majority baseline of {majority:.3f}: always answering the most "
            "frequent class does at least as well."
        )
    if leader.params["teacher"] == "none":
        words.append("The best candidate has no teacher, so its gain does not come from distillation.")
    return words


def method_words(sweep: SweepReport) -> list[str]:
    """Return how the intervals are computed and what they do not cover."""
    gains = [gain for standing in sweep.standings for gain in standing.gains.values()]
    if not gains:
        return []
    family, bases = gains[0].family, {gain.basis for gain in gains}
    looks = f" at all {family.looks} looks" if family.looks > 1 else ""
    words = [
        "Gains are paired by seed: a candidate's trial minus the control of the same seed, which saw the same samples. "
        f"With a probability of {family.level:.0%}, all {counted(family.comparisons, 'interval')} of this sweep hold "
        f"their gain{looks}, pruned candidates included (Bonferroni; Dunn 1961, J. Am. Stat. Assoc. 56, 52–64)."
    ]
    if "seeds and videos" in bases:
        words.append(
            "The intervals cover the choice of the seeds and of the videos: crossed random effects, with Behrens and "
            "Fisher's quantile (Searle, Casella, McCulloch 1992, Variance Components, ch. 4; Fisher 1935, Ann. Eugen. "
            "6, 391–398)."
        )
    if "seeds" in bases:
        words.append(
            "Intervals over seeds alone are Student's t. They apply to other seeds on these videos, not to other "
            "videos."
        )
    fewest = min(len(gain.differences) for gain in gains)
    if 1 < fewest < 4:
        words.append(
            f"{fewest} seeds give a poor estimate of the spread, so these intervals are wide. A few more seeds are "
            "the best way to narrow them."
        )
    if "videos" in bases:
        paired = all(gain.paired for gain in gains if gain.basis == "videos")
        how = "of the same videos" if paired else "as if each were measured on videos of its own, so they are too wide"
        words.append(
            "One seed has no spread, so nothing here shows how another seed would do. The intervals are for the "
            f"difference of two figures {how} (Newcombe 1998, Stat. Med. 17, {'2635–2650' if paired else '873–890'}). "
            "Several `search.seeds` cover the seeds, too."
        )
    if None in bases:
        words.append(
            "A gain without an interval decides nothing. It has none if all seeds have the same gain, or if there is "
            "one seed and the metric is not a share of videos or their number is no longer known."
        )
    words.append(
        "The best candidate is the best of many, so its gain on the split that chose it is too high on average, "
        "and more so with more candidates. Its interval is corrected for that, its mean is not."
    )
    return words


def trial_words(sweep: SweepReport, standing: Standing, entry: Entry) -> str:
    """Return the values of a candidate or control in a few lines, to be shown beside the pointer."""
    lines = [f"{entry.described(sweep.varied_in(standing))} · {standing.block}"]
    stages = [] if sweep.metric.cost else [sweep.metric.at(stage=stage) for stage in sweep.history.record.stages]
    reached = [f"{metric.stage} {text}" for metric in stages if (text := entry.text(metric))]
    lines += [f"{sweep.metric.name} on {sweep.metric.split}: {' · '.join(reached)}"] if reached else []
    costs = [metric for metric in sweep.metrics if metric.cost or metric != sweep.metric]
    lines += [f"{metric.name}: {text}" for metric in costs if (text := entry.text(metric))]
    if (gain := standing.gains.get(entry.name)) is not None:
        interval = sweep.metric.interval_text(gain.low, gain.high)
        by = sweep.metric.gain_text(gain.mean, unit=True)
        lines.append(f"gain {by}{f' ({interval})' if interval else ''}: {verdict_words(gain)}")
    return "\n".join([*lines, f"pruned at {entry.last_stage}" if entry.last_stage else entry.state])
