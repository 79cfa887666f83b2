"""A sweep as MLflow's table of runs shows it best: its trials, best first, with a column for each searched value.

MLflow's table opens without a column for any param. What a user sets there can be saved with the experiment, is then
listed above the table, and has a link; all of it is one tag of the experiment, `mlflow.sharedViewState.ID`, which
MLflow's pages read (3.17: name, times, and the state as JSON). So kdtune saves a view for each sweep. A version of
MLflow that reads it otherwise shows its usual table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdtune.history.metric import MetricSpec
from kdtune.history.record import SweepRecord
from kdtune.parse import JsonObject
from kdtune.tracking.location import prepare_environment
from kdtune.tracking.record import metric_name

TAG, PREFIX = "mlflow.sharedViewState.", "kdtune-"
COLUMNS = 20
"""At most so many params, and so many metrics: an experiment's tag holds 20000 characters, of older versions 5000."""
EXPERIMENTS = 5
"""How many experiments `links` names: those that were written last."""


@dataclass(frozen=True)
class Ranking:
    """What a sweep's table shows, by MLflow's names."""

    params: Sequence[str]
    """Blocked on and searched, in the sweep file's order."""
    metrics: Sequence[str]
    """What gains are said of, where it counts and at each stage, then the other objectives."""
    decisive: str
    """The one of them that sorts the table."""
    ascending: bool = False
    """The smallest is the best."""


def ranking(record: SweepRecord) -> Ranking:
    """Return what the table of a sweep shows."""
    first = record.metric
    others = [objective for objective in record.objectives if objective != first and not objective.cost]
    # Costs are no rows of a trial; the objective stands in every run.
    metrics = [] if first.cost else [_metric(first, stage) for stage in record.stages]
    decisive = "objective" if first.cost else _metric(first, first.stage)
    metrics += [_metric(other, other.stage) for other in others]
    metrics = list(dict.fromkeys([decisive, *metrics]))[:COLUMNS]
    return Ranking(record.params[:COLUMNS], metrics, decisive, first.mode == "min")


def _metric(objective: MetricSpec, stage: str) -> str:
    return metric_name(f"{stage}/{objective.split}/{objective.column}")


def saved_view(sweep: str, parent_id: str, ranking: Ranking, at_ms: int) -> tuple[str, str]:
    """The experiment's tag, name and value, that makes the view of a sweep whose own run is `parent_id`."""
    columns = [f"params.`{name}`" for name in ranking.params] + [f"metrics.`{name}`" for name in ranking.metrics]
    state = {
        # A teacher has stages of its own; a refit has trained on its validation videos, and would always come first.
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_id}' AND "
        "tags.`kdtune.kind` != 'teacher' AND tags.`kdtune.kind` != 'refit'",
        "orderByKey": f"metrics.`{ranking.decisive}`",
        "orderByAsc": ranking.ascending,
        "selectedColumns": [*columns, "tags.`kdtune.state`"],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": [
            {"uuid": "kdtune", "name": sweep, "display": True, "isReordered": False, "columns": 2, "cardHeight": 420}
        ],
        "compareRunCharts": _charts(ranking),
        # Else the sections are sorted by name, and this one is not the first.
        "isAccordionReordered": True,
    }
    view = {"name": f"{sweep}: best first", "createdAt": at_ms, "updatedAt": at_ms, "state": json.dumps(state)}
    return f"{TAG}{PREFIX}{sweep}", json.dumps(view)


def _charts(ranking: Ranking) -> list[JsonObject]:
    """Parallel coordinates of the sweep, and how the trials' accuracy grows from stage to stage."""
    shared = {"metricSectionId": "kdtune", "deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    parallel = {
        "type": "PARALLEL",
        "uuid": "kdtune-parallel",
        "selectedParams": list(ranking.params),
        "selectedMetrics": [ranking.decisive],
        "showAllRuns": True,
    }
    _, _, over_stages = ranking.decisive.partition("/")
    line = {
        "type": "LINE",
        "uuid": "kdtune-stages",
        "displayName": f"{over_stages} at the stages",
        "metricKey": over_stages,
        "selectedMetricKeys": [over_stages],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
    return [{**shared, **chart} for chart in ((parallel, line) if over_stages else (parallel,))]


def links(uri: str, address: str) -> Iterator[str]:
    """For each sweep whose view the database at `uri` has, a line with the link to it at `address`, latest first.

    Raises:
        Exception: whatever mlflow raises where it cannot read the database.
    """
    prepare_environment()
    from mlflow import MlflowClient

    found = MlflowClient(uri).search_experiments(order_by=["last_update_time DESC"], max_results=EXPERIMENTS)
    for experiment in found:
        for tag in sorted(experiment.tags):
            if tag.startswith(TAG + PREFIX):
                page = f"{address}/#/experiments/{experiment.experiment_id}/runs"
                yield f"{tag.removeprefix(TAG + PREFIX)}: {page}?viewStateShareKey={tag.removeprefix(TAG)}"
