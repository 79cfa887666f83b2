"""Judge a replay that found a difference: it shows a fault, or another machine explains it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kdtune.config.key import digest
from kdtune.config.metrics import PER_VIDEO
from kdtune.config.search import Mode
from kdtune.history.agreement import Answers, Comparison, Spread, answers_bound, seeds_bound, shares_bound
from kdtune.history.events import EpochRow
from kdtune.history.gains import LEVEL
from kdtune.history.metric import MetricSpec
from kdtune.history.record import read_record
from kdtune.history.rows import epoch_row
from kdtune.history.trials import Stages, epoch_rows
from kdtune.names import is_name
from kdtune.parse import JsonObject
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.contents import EpochRecord
from kdtune.store.seal import passed_over
from kdtune.tables import Cell, Table, number, render
from kdtune.train.soundness import per_video

if TYPE_CHECKING:
    from kdtune.train.replay import Difference


#: Teachers and starts behind each other that are looked at. Only a damaged record names itself.
LONGEST_CHAIN = 50

Verdict = Literal["DIFFERENT", "CONSISTENT", "INCONSISTENT"]


@dataclass(frozen=True)
class Replayed:
    """A replay whose bits differ from the record.

    DIFFERENT     the profile is the same, so the bits must be; or there is nothing to compare by
    CONSISTENT    under another profile every figure of the last stage agrees with the recorded one within its bound
    INCONSISTENT  under another profile one does not, or a figure differs that is the same on every machine

    Earlier stages are compared, too, but do not decide: more bounds that hold at once would all be wider.
    """

    first: Difference
    """The first difference."""
    figures: tuple[Comparison, ...] = ()
    """The figures at the end of each stage, if the replay trained on under another profile."""
    trainings: int = 0
    groups: int = 0
    """The trainings, in groups of trials that differ by their seed alone, that the spread over seeds comes from."""

    @property
    def verdict(self) -> Verdict:
        if not self.first.profile or (not self.first.fault and not self._judged):
            return "DIFFERENT"
        agrees = not self.first.fault and all(figure.agrees for figure in self._judged)
        return "CONSISTENT" if agrees else "INCONSISTENT"

    @property
    def _judged(self) -> list[Comparison]:
        last = self.figures[-1].metric.stage if self.figures else None
        return [figure for figure in self.figures if figure.metric.stage == last and figure.agrees is not None]

    def __str__(self) -> str:
        return f"{self.verdict}\n{self.first}" + (f"\n{render(self.table, 'text')}" if self.figures else "")

    @property
    def table(self) -> Table:
        """The figures of both trainings, their differences and bounds."""
        names = ("figure", "was", "is now", "difference", "bound", "")
        columns = [number(name) if name in names[1:5] else name for name in names]
        return Table.of(columns, [_row(figure) for figure in self.figures], "", *self._notes())

    def _notes(self) -> Iterator[str]:
        judged = self._judged
        if not judged:
            yield "Neither another seed nor a number of videos says how far apart the figures may be."
            return
        which = f"its {len(judged)} bounds hold" if len(judged) > 1 else "its bound holds"
        yield f"Stage {judged[0].metric.stage} decides: by chance alone, {which} in {LEVEL:.0%} of replays."
        if self.groups:
            by = f"seeds: the spread of {self.trainings} trainings in {self.groups} group{'s' * (self.groups > 1)}"
            yield f"{by} of trials that differ by their seed alone."
        else:
            yield "Too few trials differ by their seed alone to know that spread: the bounds rest on the videos."


def _row(figure: Comparison) -> list[Cell]:
    metric, bound = figure.metric, figure.bound
    difference = metric.gain_text(metric.scaled(figure.is_now - figure.was), unit=True)
    limit = "" if bound is None else f"±{metric.gain_text(metric.scaled(bound)).removeprefix('+')}"
    basis = figure.basis or "not judged"
    texts = [metric.title, metric.text(figure.was), metric.text(figure.is_now), difference, limit]
    return [*map(Cell, texts), Cell(basis if figure.agrees is not False else f"{basis}, beyond it", strong=True)]


def objectives_of(store: StoreFiles, name: str) -> Sequence[MetricSpec]:
    """Return the objectives of the sweep `name`; empty if there is no such sweep."""
    known = is_name(name) and store.sweep(name).fetch().sweep.exists()
    return read_record(store, name).objectives if known else ()


class SeedGroups:
    """Finds the trials of a store that differ by their seed alone."""

    def __init__(self, store: StoreFiles) -> None:
        self.store = store
        self._identities: dict[str, JsonObject] = {}
        for files in store.trials():
            if (identity := files.identity()) is not None and isinstance(identity.get("trial"), dict):
                self._identities[files.key] = identity
        self._stages: dict[str, Stages] = {}

    def of(self, key: str) -> list[list[str]]:
        """Return groups of keys, each of trials that differ by their seed alone.

        The trial's own group comes first. The others have its data, network and schedule, but other weights of the
        loss or another teacher.
        """
        wanted = self._kind(key, pooled=True)
        groups: dict[str | None, list[str]] = {self._kind(key, pooled=False): []}
        for other in self._identities if wanted is not None else ():
            if self._kind(other, pooled=True) == wanted:
                groups.setdefault(self._kind(other, pooled=False), []).append(other)
        return list(groups.values())

    def _kind(self, key: str, *, pooled: bool) -> str | None:
        """Return a digest of the trial without its seed; `pooled` leaves out the loss's weights and the teacher, too.

        Return None for a trial that this store has not begun.
        """
        form = self._without_seed(key, pooled)
        try:
            return None if form is None else digest(form)
        except ValueError:  # NaN, which no trial's identity has
            return None

    def _without_seed(self, key: str, pooled: bool, depth: int = 0) -> JsonObject | None:
        identity = self._identities.get(key)
        if identity is None or depth > LONGEST_CHAIN:
            return None
        trial = {name: value for name, value in identity["trial"].items() if name != "seed"}
        form = {**identity, "trial": trial}
        if pooled and isinstance(trial.get("loss"), dict):
            trial["loss"] = trial["loss"].get("target")
            form |= {"teacher": None, "view": None}
        for name in ("teacher", "start"):
            # The seeds of a sweep share a teacher, but each fine-tunes a start of its own.
            if isinstance(other := form.get(name), str) and other in self._identities:
                form[name] = self._without_seed(other, pooled, depth + 1)
        return form

    def values(self, metric: MetricSpec, groups: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the recorded values of a metric in each group, of the trials that have one."""
        found = ([metric.value_of(self._stages_of(key), {}) for key in group] for group in groups)
        return [[value for value in group if value is not None] for group in found]

    def _stages_of(self, key: str) -> Stages:
        if key not in self._stages:
            rows = epoch_rows(self.store.trial(key))
            self._stages[key] = {row.stage: row.evaluation for row in rows if row.stage and row.evaluation}
        return self._stages[key]


def replayed(key: str, difference: Difference, groups: SeedGroups, objectives: Sequence[MetricSpec] = ()) -> Replayed:
    """Return what the first difference of a replay of the trial `key` shows.

    Compares the `objectives` of its sweep at each stage; without any, or if the trial has none of them, its main
    accuracies on validation. The head's loss on validation is compared, too: it is finer than an accuracy.

    Raises DamageError if a row of the record is damaged.
    """
    if not difference.rows:
        return Replayed(difference)
    files = groups.store.trial(key)
    pairs = [
        _Pair(epoch_row(was, files.epochs), epoch_row(now, files.epochs), was, now, files)
        for was, now in difference.rows
    ]
    stages = {pair.was.stage: pair for pair in pairs if pair.was.stage and pair.was.evaluation and pair.now.evaluation}
    metrics = [metric for stage, pair in stages.items() for metric in _metrics(stage, pair, objectives)]
    kin = groups.of(key)
    spreads = {metric: Spread.of(groups.values(metric, kin)) for metric in metrics}
    last = [metric for metric in metrics if metric.stage == metrics[-1].stage]
    judged = sum(spreads[metric] is not None or metric.is_share for metric in last)
    figures = [stages[of.stage].compared(of, spreads[of], difference.videos.get(of.split), judged) for of in metrics]
    widest = max(filter(None, spreads.values()), key=lambda spread: spread.freedom, default=None)
    counts = (0, 0) if widest is None else (widest.freedom + widest.groups, widest.groups)
    return Replayed(difference, tuple(figures), *counts)


@dataclass(frozen=True)
class _Pair:
    """The row of an epoch in the record and in the replay, and the raw rows."""

    was: EpochRow
    now: EpochRow
    raw_was: EpochRecord
    raw_now: EpochRecord
    files: TrialFiles

    def figures(self, metric: MetricSpec) -> tuple[float | None, float | None]:
        was, now = ((row.evaluation or {}).get(metric.split, {}).get(metric.column) for row in (self.was, self.now))
        return was, now

    def has(self, metric: MetricSpec) -> bool:
        return not metric.cost and None not in self.figures(metric)

    def compared(self, metric: MetricSpec, spread: Spread | None, videos: int | None, figures: int) -> Comparison:
        """Return the comparison of a metric that both rows have, with one of `figures` bounds that hold at once."""
        was, now = self.figures(metric)
        assert was is not None
        assert now is not None
        by_seeds = None if spread is None else seeds_bound(spread, figures)
        by_videos = None
        if metric.is_share:
            answers = self._answers(metric)
            if answers is not None:
                by_videos = answers_bound(answers, figures)
            elif videos:
                by_videos = shares_bound(was, now, videos, figures)
        return Comparison(metric, was, now, by_seeds, by_videos)

    def _answers(self, metric: MetricSpec) -> Answers | None:
        """Return the answers of each video; None where a row holds none, or not those of the same videos.

        A note names a row that holds answers without the mean that it reports.
        """
        scale = PER_VIDEO.get(metric.column)
        if scale is None:
            return None

        def answers(row: EpochRecord) -> str | None:
            return passed_over(lambda: per_video(self.files, row, metric.split, metric.column), None)

        was, now = answers(self.raw_was), answers(self.raw_now)
        return Answers(was, now, scale) if was and now and len(was) == len(now) else None


def _metrics(stage: str, pair: _Pair, objectives: Sequence[MetricSpec]) -> list[MetricSpec]:
    """Return the metrics to compare at a stage."""

    def on_validation(*columns: str) -> list[MetricSpec]:
        modes: dict[bool, Mode] = {True: "min", False: "max"}
        return [MetricSpec(name, "validation", stage, modes[name.endswith("_loss")], name) for name in columns]

    own = [metric for metric in (objective.at(stage=stage) for objective in objectives) if pair.has(metric)]
    compared = own or on_validation("pretext", "top1", "knn", "linear")
    found = dict.fromkeys([*compared, *on_validation("pretext_loss", "action_loss")])
    return [metric for metric in found if pair.has(metric)]
