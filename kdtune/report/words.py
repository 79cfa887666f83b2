"""A sweep's answer in plain words that claim no more than its figures show."""

from __future__ import annotations

from statistics import fmean

from kdtune.history.gains import LEVEL, Gain
from kdtune.history.trials import baseline_in
from kdtune.report.standing import Entry, Standing, SweepReport


def control_name(entry: Entry) -> str:
    """Return `scratch`, or another control's description."""
    return "scratch" if entry.params["teacher"] == "none" else f"the control (teacher {entry.params['teacher']})"


def answer(sweep: SweepReport) -> str:
    """Answer the sweep's question in one sentence, with the interval."""
    known = [s for s in sweep.standings if s.leader is not None and s.leader.name in s.gains]
    if not known:
        return (
            f"No answer yet: {'; '.join(dict.fromkeys(_lacking(s) for s in sweep.standings)) or 'there is no block'}."
        )
    if len(sweep.standings) == 1:
        return _one(sweep, known[0])
    better = [s for s in known if s.gains[_name(s)].verdict == "better"]
    text = sweep.metric.gain_text
    if len(known) <= 4:
        each = [f"{s.block} {text(s.gains[_name(s)].mean)}{_interval(sweep, s.gains[_name(s)])}" for s in known]
        gains = f"{', '.join(each)} {sweep.metric.unit}".strip()
    else:
        means = [s.gains[_name(s)].mean for s in known]
        ends = [end for s in known for end in (s.gains[_name(s)].low, s.gains[_name(s)].high) if end is not None]
        reach = f", with intervals between {text(min(ends))} and {text(max(ends))}" if ends else ", without intervals"
        gains = f"gains from {text(min(means))} to {text(max(means), unit=True)}{reach}"
    claim = f"In {len(better)} of {len(known)} blocks the best candidate surely beats"
    how = f"simultaneous {LEVEL:.0%} intervals, corrected for {_times(sweep.comparisons)}"
    if all(s.gains[_name(s)].low is None for s in known):
        how = "the data give no intervals"
    elif any(s.gains[_name(s)].basis == "videos" for s in known):
        how += f"; with one seed, they come from the {sweep.metric.split} videos alone and are approximate"
    rest = len(sweep.standings) - len(known)
    later = f" {rest} block{'s have' if rest > 1 else ' has'} no figure yet." if rest else ""
    control = control_name(known[0].controls[0])
    return f"{claim} {control} in {sweep.metric.title}: {gains} ({how}).{later}"


def _one(sweep: SweepReport, standing: Standing) -> str:
    entry, gain = standing.leader, standing.gains[_name(standing)]
    assert entry is not None, "the block must have a best candidate"
    name = entry.described(sweep.varied_in(standing))
    control, title = control_name(standing.controls[0]), sweep.metric.title
    by = sweep.metric.gain_text(gain.mean, unit=True)
    if gain.low is None:
        why = "one seed has no spread" if len(gain.differences) == 1 else "all its seeds have the same gain"
        return f"The data do not decide: the gain of the best, {name}, over {control} in {title} is {by}, but {why}."
    span = (
        f"{LEVEL:.0%} interval {sweep.metric.interval_text(gain.low, gain.high)}, {basis_words(gain, standing, sweep)}"
    )
    span += f", corrected for {_times(sweep.comparisons)}"
    match gain.verdict:
        case "better":
            return f"The best, {name}, is better than {control} in {title}: {by} ({span})."
        case "worse":
            return f"Even the best, {name}, is worse than {control} in {title}: {by} ({span})."
        case _:
            return f"The data do not decide whether the best, {name}, differs from {control} in {title}: {by} ({span})."


def basis_words(gain: Gain, standing: Standing, sweep: SweepReport) -> str:
    """Return the basis of an interval in words."""
    if gain.basis == "seeds":
        return f"Student's t over {len(gain.differences)} seeds' differences"
    return f"one seed: from {standing.videos[sweep.metric.split]} {sweep.metric.split} videos alone, approximate"


def _interval(sweep: SweepReport, gain: Gain) -> str:
    return f" ({sweep.metric.interval_text(gain.low, gain.high)})" if gain.low is not None else " (no interval)"


def _name(standing: Standing) -> str:
    return "" if standing.leader is None else standing.leader.name


def _times(comparisons: int) -> str:
    return f"{comparisons} comparison{'s' if comparisons != 1 else ''}"


def _lacking(standing: Standing) -> str:
    if standing.controls and standing.controls[0].state != "complete":
        return f"{standing.block}: the control is {standing.controls[0].state}"
    if standing.leader is None:
        return f"{standing.block}: no candidate is complete"
    return f"{standing.block}: the best candidate is the control's own trial"


def block_words(sweep: SweepReport, standing: Standing) -> list[str]:
    """Return sentences on what one block's figures show and what they do not."""
    leader = standing.leader
    if leader is None or leader.name not in standing.gains:
        return [f"{_lacking(standing).split(': ', 1)[1].capitalize()}, so there are no gains to report."]
    words = [_one(sweep, standing)]
    decided = {"better": 0, "worse": 0, "not decided": 0}
    for gain in standing.gains.values():
        decided[gain.verdict] += 1
    total = len(standing.gains)
    words.append(
        f"{total} complete candidate{'s' if total != 1 else ''}: {decided['better']} surely better than the control, "
        f"{decided['worse']} surely worse, {decided['not decided']} not decided."
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
    words = []
    if any(gain.basis == "seeds" for gain in gains):
        words.append(
            "Gains are paired by seed: a candidate's trial minus the control of the same seed, which saw the same "
            f"samples. Intervals: Student's t over the seeds' differences, at a simultaneous level of {LEVEL:.0%} for "
            f"all {_times(sweep.comparisons)} of this sweep, pruned candidates included (Bonferroni; Dunn 1961, "
            "J. Am. Stat. Assoc. 56, 52–64). They apply to other seeds on these videos, not to other videos."
        )
        fewest = min(len(gain.differences) for gain in gains if gain.basis == "seeds")
        if fewest < 4:
            words.append(
                f"{fewest} seeds give a poor estimate of the spread, so these intervals are wide. A few more seeds are "
                "the best way to narrow them."
            )
    if any(gain.basis == "videos" for gain in gains):
        words.append(
            "One seed has no spread, so nothing here shows how another seed would do. The intervals are for the "
            "difference of two shares of the evaluated videos (Newcombe 1998, Stat. Med. 17, 873–890). They are "
            "approximate and unpaired, so conservative with respect to the videos, and corrected for "
            f"{_times(sweep.comparisons)} (Bonferroni; Dunn 1961). Several `search.seeds` give a paired answer."
        )
    if any(gain.low is None for gain in gains):
        words.append(
            "A gain without an interval decides nothing. It has none if all seeds have the same gain, or if there is "
            "one seed and the metric is not a share of videos or their number is no longer known."
        )
    if gains:
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
        lines.append(f"gain {by}{f' ({interval})' if interval else ''}: {gain.says}")
    return "\n".join([*lines, f"pruned at {entry.last_stage}" if entry.last_stage else entry.state])
