"""`report`: write a sweep's page, tables and plots. The same records give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from kdtune import __version__
from kdtune.config.checking.steering import NONE_LEFT, steered_by_test
from kdtune.config.sweep import SweepConfig
from kdtune.history.gains import LEVEL
from kdtune.history.metric import MetricSpec
from kdtune.history.sweep import SweepHistory
from kdtune.history.trials import sweep_trials
from kdtune.history.words.answer import answer
from kdtune.report.convergence import Reach, curve, curve_metric, reaches
from kdtune.report.finetuned import finetuned_parts
from kdtune.report.page import Heading, Part, Points, Text, as_page, as_text
from kdtune.report.paper import early_plot, early_words, paper_of, paper_tables
from kdtune.report.plots import BLOCKS, CANDIDATES, Plot, drawn, gains_plot, stages_plot
from kdtune.report.plots_space import importance_plot, map_plot, parallel_plot, pareto_plot
from kdtune.report.races import race_parts
from kdtune.report.results import mixed_profiles
from kdtune.report.sections import (
    block_table,
    on_test_table,
    profile_table,
    reach_table,
    recipe_table,
    trials_table,
)
from kdtune.report.standing import SweepReport, sweep_of
from kdtune.report.stops import stops_of, stops_parts
from kdtune.report.teachers import teachers_table
from kdtune.report.words import block_words, method_words, trial_words
from kdtune.store import StoreFiles
from kdtune.store.files import write_atomic
from kdtune.tables import Table, render
from kdtune.units import duration, moment

#: Block → parameter → share of the importance (kdtune/sweep/importance.py).
Importances = dict[str, dict[str, float]]


def write_report(store: StoreFiles, history: SweepHistory, folder: Path, importances: Importances) -> list[Path]:
    """Write report.html, report.md, plots/ and tables/ of a sweep to `folder`; return all files, the page first.

    Raises StoreError if an earlier version wrote `record`.
    """
    sweep = sweep_of(sweep_trials(store, history))
    parts = list(parts_of(store, sweep, importances))
    title = f"kdtune report: {history.name}"
    words = {
        " ".join(entry.keys): trial_words(sweep, standing, entry)
        for standing in sweep.standings
        for entry in (*standing.controls, *standing.candidates)
    }
    texts: dict[str, str | bytes] = {"report.html": as_page(title, parts, words), "report.md": as_text(title, parts)}
    for part in parts:
        if isinstance(part, Plot):
            texts |= {f"plots/{part.name}.svg": part.svg, f"plots/{part.name}.png": part.png}
        if isinstance(part, Table):
            forms = {"csv": "csv", "md": "markdown", "tex": "latex"}
            texts |= {f"tables/{part.name}.{suffix}": f"{render(part, form)}\n" for suffix, form in forms.items()}
    for place, content in texts.items():
        # A lone surrogate in a record has no UTF-8 and is shown escaped.
        write_atomic(folder / place, content.encode(errors="backslashreplace") if isinstance(content, str) else content)
    return [folder / place for place in texts]


def parts_of(store: StoreFiles, sweep: SweepReport, importances: Importances) -> Iterator[Part]:
    """Yield the parts of the page from top to bottom."""
    config = sweep.history.record.sweep()
    metric = curve_metric(sweep, store)
    curves = {trial.key: curve(store, trial, metric) for trial in sweep.trials}
    reached = {standing.block: reaches(standing, curves, metric) for standing in sweep.standings}
    yield Text(f"Question: {sweep.history.record.question or 'none was given.'}")
    yield Text(str(answer(sweep.history, sweep.videos)), "answer")
    yield from _when(sweep)
    yield from _warnings(sweep, config)
    yield Heading("Gains over the control")
    yield from drawn("gains", _gains_caption(), partial(gains_plot, sweep))
    yield from map(Text, method_words(sweep))
    for i, standing in enumerate(sweep.standings):
        yield Points(block_words(sweep, standing))
        yield block_table(sweep, standing, f"block_{i}")
    yield from race_parts(sweep)
    yield from _test_parts(sweep, config)
    yield from _paper_parts(sweep, config)
    yield from finetuned_parts(store, sweep)
    if (table := teachers_table(sweep.teachers)) is not None:
        yield Heading("Teachers' accuracies")
        yield table
    yield Heading("Stages and convergence")
    caption = f"{metric.axis}, mean over the seeds, where trials were evaluated; ✕: pruned there; black: the control."
    yield from drawn("stages", caption + _cut(sweep), partial(stages_plot, sweep, curves, metric))
    yield from _reach_parts(reached, sweep, metric)
    space = config.search.space
    yield Heading("What was searched")
    caption = f"Each candidate at its λ and τ; colour: {sweep.metric.title}."
    yield from drawn("lambda_tau", caption + _cut(sweep), partial(map_plot, sweep, space))
    caption = "A line for each candidate through its values; faint lines were pruned or failed."
    yield from drawn("parallel", caption + _cut(sweep), partial(parallel_plot, sweep, space))
    caption = "Candidates that no other beats in both objectives, with their numbers."
    yield from drawn("pareto", caption + _cut(sweep), partial(pareto_plot, sweep))
    yield from _importance_parts(sweep, importances)
    yield from stops_parts(stops_of(store, sweep), sweep)
    yield Heading("Recipe")
    yield recipe_table(config)
    yield Heading("Trials, seeds, machines")
    yield Points(list(_made_words(sweep)))
    if (table := profile_table(sweep.every)) is not None:
        yield table
    yield trials_table(sweep)


# ---- sections --------------------------------------------------------------------------------------------------------


def _when(sweep: SweepReport) -> Iterator[Part]:
    """Yield when the trials were trained and how long it took, by their own records."""
    every = {trial.key: trial for trial in sweep.every}.values()
    spans = [trial.span for trial in every if trial.span is not None]
    if spans:
        first, last = min(began for began, _ in spans), max(ended for _, ended in spans)
        took = duration(sum(trial.seconds for trial in every))
        yield Text(f"{len(spans)} trials, trained from {moment(first)} to {moment(last)}: {took} of training.", "note")


def _warnings(sweep: SweepReport, config: SweepConfig) -> Iterator[Part]:
    if reasons := steered_by_test(config):
        yield Text(f"{'; '.join(reasons)}: {NONE_LEFT}.", "warning")
    if missing := _missing(sweep):
        yield Text(f"This sweep is not finished: {missing}. These figures may still change.", "warning")
    if mixed := mixed_profiles([*sweep.trials, *(sweep.refits or [])]):
        yield Text(f"Mixed profiles: {mixed}.", "warning")


def _missing(sweep: SweepReport) -> str:
    """Return what has not ended, in words; empty if everything has."""
    found = []
    for standing in sweep.standings:
        entries = [*standing.controls, *standing.candidates]
        open_ = sum(entry.state in ("running", "pending") for entry in entries)
        unasked = standing.history.unasked
        words = [f"{open_} not ended"] if open_ else []
        words += [f"{unasked} candidates not asked"] if unasked > 0 else []
        words += ["no control yet"] if not standing.controls else []
        if sweep.refits is not None:
            again = [trial for trial in sweep.refits if trial.block == standing.block]
            late = sum(trial.state in ("running", "pending") for trial in again)
            words += [f"{late} refits not ended"] if late else [] if again else ["no refits yet"]
        found += [f"{standing.block}: {', '.join(words)}"] if words else []
    return "; ".join(found)


def _test_parts(sweep: SweepReport, config: SweepConfig) -> Iterator[Part]:
    yield Heading("On the test split")
    if reasons := steered_by_test(config):
        yield Text(f"{'; '.join(reasons)}: {NONE_LEFT}.", "warning")
        return
    if sweep.metric.cost:
        yield Text("The objective is a cost: it has no split.")
        return
    table = on_test_table(sweep)
    if table is None:
        yield Text("No candidate is complete yet." if sweep.refits is None else "No refit is complete yet.")
        return
    yield Text(
        "Neither search nor pruning saw the test split. Only candidates chosen on validation are measured there, so "
        "the choice does not bias these gains; their intervals are corrected for the number of chosen candidates."
    )
    if sweep.refits is not None:
        yield Text(
            "Controls, chosen candidates and their teachers were trained again on the whole training list; these are "
            "the results. Their learning rates and weights depend on the loss on the validation videos, some or all of "
            "which they trained on, and not on the test split."
        )
    yield table


def _paper_parts(sweep: SweepReport, config: SweepConfig) -> Iterator[Part]:
    paper = paper_of(sweep, config)
    if paper is None:
        return
    yield Heading("Comparison with the paper")
    yield Text(
        "The paper concludes that distillation pays most at the early stage. Rows of one student share their scratch "
        "trial, so they are not independent."
    )
    yield Points(early_words(paper))
    caption = "Gain of a student with a teacher over scratch at the early stage; bars: ± standard deviation over seeds."
    yield from drawn("paper_early", caption, partial(early_plot, paper))
    yield from paper_tables(paper)


def _reach_parts(reached: dict[str, list[Reach]], sweep: SweepReport, metric: MetricSpec) -> Iterator[Part]:
    words = []
    for block, found in reached.items():
        saved = [reach.saved for reach in found[1:] if reach.saved is not None]
        if found[1:]:
            most = f"; the fastest saves {max(saved):.0%} of the control's epochs" if saved and max(saved) > 0 else ""
            own = found[0].saved or 0.0
            none = " Stopping it there saves at least as much, without a teacher." if most and own >= max(saved) else ""
            words.append(
                f"{block}: {len(saved)} of {len(found) - 1} candidates reach the control's final {metric.name} with "
                f"every seed{most}. The control itself first reaches it at epoch {found[0].mean:.4g} "
                f"of {found[0].full}.{none}"
            )
    yield from [Points(words)] if words else [Text("No control is complete yet, so there is no value to reach.")]
    if (table := reach_table(reached, sweep, metric)) is not None:
        yield table


def _importance_parts(sweep: SweepReport, importances: Importances) -> Iterator[Part]:
    if not importances:
        yield Text("Importance of parameters: too few complete candidates, nothing that varies, or no Optuna journal.")
        return
    most = max(sum(e.state == "complete" for e in s.candidates) for s in sweep.standings)
    hint = "" if most >= 50 else f" No block has more than {most} complete candidates: this is only a hint."
    caption = "Importance of the searched parameters, estimated by Optuna: what sets the best candidates apart."
    yield from drawn("importance", caption + hint, partial(importance_plot, importances))


def _made_words(sweep: SweepReport) -> Iterator[str]:
    yield f"kdtune {__version__}; seeds {', '.join(map(str, sweep.seeds)) or 'none yet'}."
    objectives = [f"{m.mode} {m.title}" for m in sweep.metrics]
    yield f"Objective: {'; '.join(objectives)}."
    videos = {standing.block: standing.videos for standing in sweep.standings if standing.videos}
    if videos:
        sizes = dict.fromkeys(f"{v['validation']} validation and {v['test']} test videos" for v in videos.values())
        yield f"Evaluated: {'; '.join(sizes)}."
    yield "Every figure of a table links to its trial here, with its key and the command that reproduces it."


def _gains_caption() -> str:
    shown = f"the best candidates of each block, {CANDIDATES} at most"
    return f"Gain over the control of {shown}; bars: simultaneous {LEVEL:.0%} intervals; arrows: cut off."


def _cut(sweep: SweepReport) -> str:
    return f" The first {BLOCKS} of {len(sweep.standings)} blocks." if len(sweep.standings) > BLOCKS else ""
