"""Every measured accuracy, with scratch beside each candidate: mean and spread over the seeds."""

from __future__ import annotations

from collections.abc import Sequence

from kdtune.config.metrics import METRICS
from kdtune.config.space import value_text
from kdtune.config.trial import FINETUNE_STAGE
from kdtune.history.metric import MetricSpec, Split
from kdtune.history.trials import SweepTrials, TrialRecord, baseline_in
from kdtune.report.results import readable
from kdtune.tables import Table

#: A loss is no accuracy; top-1 retrieval is k-NN with one neighbour.
SHOWN = tuple(metric for metric in METRICS if not metric.endswith("_loss") and metric != "retrieval_1")


def accuracies(found: SweepTrials, form: str, width: int | None = None) -> str:
    """Return a table for each block and split, in one of READABLE's formats; `width` as in results.render.

    Rows are the metrics at the last stage of pre-training and after fine-tuning; columns are scratch and each
    candidate, with mean ± standard deviation over its seeds (n − 1). If trials were trained again on the whole list,
    the tables of the test split show those.
    """
    tested = found.trials if found.refits is None else found.refits
    of: dict[Split, Sequence[TrialRecord]] = {"validation": found.trials, "test": tested}
    last = [stage for stage in found.history.record.stages if stage != FINETUNE_STAGE][-1:]
    stages = [*last, *(stage for stage in found.history.record.stages if stage == FINETUNE_STAGE)]
    tables = []
    for block in found.history.blocks:
        for split, trials in of.items():
            groups: dict[tuple[object, ...], list[TrialRecord]] = {}
            for trial in trials:
                if trial.block == block and any(stage in trial.stages for stage in stages):
                    groups.setdefault((trial.candidate, trial.params["teacher"]), []).append(trial)
            if groups:
                again = ", trained again on the whole list" if split == "test" and found.refits is not None else ""
                table = _table(f"{block}, {split}{again}", list(groups.values()), stages, split)
                tables.append(readable(table, form, width))
    return "\n\n".join(tables) or "no trial has reached its last stage yet"


def _table(title: str, groups: list[list[TrialRecord]], stages: list[str], split: Split) -> Table:
    rows = []
    for stage in stages:
        for metric in SHOWN:
            spec = MetricSpec(metric, split, stage, "max", metric)
            found = [[v for trial in group if (v := trial.figure(spec)) is not None] for group in groups]
            if any(found):
                majority = spec.text(baseline_in(spec, [trial for group in groups for trial in group]))
                rows.append([stage, spec.name, majority, *map(spec.mean_text, found)])
    return Table.of(["stage", "accuracy", "majority", *map(_title, groups)], rows, title)


def _title(group: list[TrialRecord]) -> str:
    """Return a column's label, as in `0: c3d, λ 1 (n = 3)`."""
    candidate, params = group[0].candidate, group[0].params
    if candidate is None:
        name = "scratch" if params["teacher"] == "none" else f"control: {params['teacher']}"
    else:
        name = f"{candidate}: {params['teacher']}, λ {value_text(params['lambda'])}"
    return f"{name} (n = {len(group)})"
