"""The content of a sweep's parent run in MLflow: its description, its result, and the view of its trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdtune.config.recipe import recipe
from kdtune.config.space import value_text
from kdtune.errors import StoreError
from kdtune.history.blocks import BlockHistory
from kdtune.history.gains import Gain
from kdtune.history.groups import STATES, GroupHistory
from kdtune.history.metric import MetricSpec
from kdtune.history.record import SweepRecord
from kdtune.history.sweep import SweepHistory
from kdtune.history.videos import Videos, videos_of
from kdtune.history.words.answer import answer
from kdtune.history.words.verdicts import block_verdict, leader_gain, refit_gain, verdict_words
from kdtune.store import StoreFiles
from kdtune.tracking.ranking import Ranking, ranking
from kdtune.tracking.record import metric_name


@dataclass(frozen=True)
class SweepText:
    """The content of a sweep's parent run."""

    name: str
    """The sweep's name, which identifies the parent run."""
    question: str = ""
    """The run's description."""
    config_text: str = ""
    """The sweep file's text, for the artifact sweep.yaml."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Further tags of the run."""
    ranking: Ranking | None = None
    """Columns and order of the sweep's view of MLflow's table; None for no view."""


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep, for its parent run."""

    text: str = ""
    """Markdown, added to the run's description."""
    verdict: str = ""
    """The verdict of each block's best candidate, with its error rate."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The best values."""


def sweep_text(record: SweepRecord) -> SweepText:
    """Return what MLflow is told of the sweep with this record."""
    return SweepText(record.name, record.question, record.text, record.commit, ranking(record))


def sweep_result(store: StoreFiles, history: SweepHistory) -> SweepResult:
    """Return the answer, and the best candidate of each block beside its control, with gains and verdicts."""
    try:
        settings = recipe(history.record.sweep().trial)
    except StoreError:  # an earlier version ran it
        settings = {}
    videos = videos_of(store, history)
    metric, several = history.metric, len(history.blocks) > 1
    gains = {label: leader_gain(history, label, videos) for label in history.blocks}
    metrics: dict[str, float] = {}
    for label, block in history.blocks.items():
        best, prefix = block.leader, f"best/{label}/" if several else "best/"
        value = None if best is None else best.objective(block.place)
        if value is not None:
            metrics[metric_name(f"{prefix}{metric.column}")] = value
        if (gain := gains.get(label)) is not None:
            metrics[metric_name(f"{prefix}gain")] = gain.mean
    says = {
        label: verdict_words(gain, block_verdict(history.blocks[label], gain))
        for label, gain in gains.items()
        if gain is not None
    }
    verdict = "; ".join(f"{label}: {text}" if several else text for label, text in says.items())
    text = "\n".join([str(answer(history, videos)), "", *_lines(history, gains, videos)])
    if settings:
        text += f"\n\nRecipe: {', '.join(f'`{path}` {value}' for path, value in settings.items())}."
    return SweepResult(text, verdict or "no answer yet", metrics)


def _lines(history: SweepHistory, gains: Mapping[str, Gain | None], videos: Videos) -> list[str]:
    metric = history.metric
    better = "higher" if metric.sign > 0 else "lower"
    counted = Counter(group.state for group in history.groups.values() if group.kind == "candidate")
    states = [f"{counted[state]} {state}" for state in STATES if counted[state]]
    rows = [[label, *_row(block, block.leader, gains.get(label))] for label, block in history.blocks.items()]
    lines = [f"**{metric.name}**{metric.where} ({better} is better)", "", *_table("best candidate", metric, rows)]
    if len(history.objectives) > 1:
        names = ", ".join(f"{objective.name} ({objective.mode})" for objective in history.objectives)
        lines += ["", f"Pareto sets of {names}:", ""]
        lines += [f"- {label}: {_numbers(block)}" for label, block in history.blocks.items()]
    lines += ["", f"Candidates: {', '.join(states) or 'none'}."]
    if history.record.race is not None:
        races = [(label, block.race) for label, block in history.blocks.items() if block.race is not None]
        lines += ["", *(f"- {label}: race: {race.words()}" for label, race in races), "", history.race_words]
    if history.record.refit and not metric.cost:
        rows = []
        for label, block in history.blocks.items():
            refit = None if block.leader is None else block.refit(block.leader)
            rows.append([label, *_row(block, refit, refit_gain(history, label, videos), refit=True)])
        lines += ["", f"Trained again on the whole training list, {metric.name} on test:", ""]
        lines += _table("chosen candidate", metric, rows)
    return lines


def _table(chosen: str, metric: MetricSpec, rows: Sequence[Sequence[str]]) -> list[str]:
    heads = ["block", "control", chosen, metric.gain_head, "interval", "verdict"]
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _row(block: BlockHistory, shown: GroupHistory | None, gain: Gain | None, refit: bool = False) -> list[str]:
    """Return the control's figure, that of `shown` (the best candidate, or its refit), its gain and the verdict."""
    control = block.metric.mean_text(block.control_values(refit=refit).values()) or "–"
    best, values = block.leader, [] if shown is None else [*shown.values(block.place).values()]
    if best is None or not values:
        return [control, "not complete" if refit else "none is complete", "–", "–", "–"]
    chosen = {name: value_text(value) for name, value in best.asked.values.items() if value is not None}
    described = "" if refit else f" ({', '.join(f'{name} {text}' for name, text in chosen.items())})"
    figure = f"{block.metric.mean_text(values)}, candidate {best.number}{described}"
    if gain is None:
        return [control, figure, "–", "–", "–"]
    interval = block.metric.interval_text(gain.low, gain.high)
    verdict = gain.verdict if refit else block_verdict(block, gain)
    return [control, figure, block.metric.gain_text(gain.mean), interval or "none", verdict]


def _numbers(block: BlockHistory) -> str:
    return ", ".join(f"candidate {group.number}" for group in block.best) or "none is complete"
