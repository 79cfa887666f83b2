"""Every measured accuracy, with scratch beside each candidate: mean and spread over the seeds."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from kdtune.config.metrics import METRICS, majority_of
from kdtune.config.space import value_text
from kdtune.config.trial import FINETUNE_STAGE
from kdtune.report.tables import READABLE
from kdtune.tables import Table, render

#: A loss is no accuracy; top-1 retrieval is k-NN with one neighbour.
SHOWN = tuple(metric for metric in METRICS if not metric.endswith("_loss") and metric != "retrieval_1")

#: Accuracies of a single answer, which have a majority baseline.
ONE_ANSWER = ("knn", "linear", "pretext", "action", "top1")


def accuracies(results: dict[str, Any], sweep: dict[str, Any], form: str) -> str:
    """Return a table for each block and split, in one of READABLE's formats.

    Rows are the metrics at the last stage of pre-training and after fine-tuning; columns are scratch and each
    candidate, with mean ± standard deviation over its seeds (n − 1). If trials were trained again on the whole list,
    the tables of the test split show those.
    """
    of = {"validation": results["trials"], "test": results.get("refits", results["trials"])}
    last = [stage for stage in sweep["stages"] if stage != FINETUNE_STAGE][-1:]
    stages = [*last, *(stage for stage in sweep["stages"] if stage == FINETUNE_STAGE)]
    tables = []
    for block in sweep["blocks"]:
        for split, trials in of.items():
            groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
            for trial in trials:
                if trial["block"] == block and any(stage in trial["stages"] for stage in stages):
                    groups.setdefault((trial["candidate"], trial["params"]["teacher"]), []).append(trial)
            if groups:
                again = ", trained again on the whole list" if split == "test" and "refits" in results else ""
                table = _table(f"{block}, {split}{again}", list(groups.values()), stages, split)
                tables.append(render(table, READABLE[form]))
    return "\n\n".join(tables) or "no trial has reached its last stage yet"


def _table(title: str, groups: list[list[dict[str, Any]]], stages: list[str], split: str) -> Table:
    rows = []
    for stage in stages:
        for metric in SHOWN:
            figures = [[trial["stages"].get(stage, {}).get(split, {}) for trial in group] for group in groups]
            found = [[values[metric] for values in group if metric in values] for group in figures]
            if any(found):
                majorities = [values[majority_of(metric)] for group in figures for values in group if metric in values]
                majority = f"{majorities[0]:.3f}" if metric in ONE_ANSWER else ""
                rows.append([stage, metric, majority, *map(_spread, found)])
    return Table.of(["stage", "accuracy", "majority", *map(_title, groups)], rows, title)


def _title(group: list[dict[str, Any]]) -> str:
    """Return a column's label, as in `0: c3d, λ 1 (n = 3)`."""
    candidate, params = group[0]["candidate"], group[0]["params"]
    if candidate is None:
        name = "scratch" if params["teacher"] == "none" else f"control: {params['teacher']}"
    else:
        name = f"{candidate}: {params['teacher']}, λ {value_text(params['lambda'])}"
    return f"{name} (n = {len(group)})"


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
