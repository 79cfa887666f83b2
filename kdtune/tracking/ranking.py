"""A saved view of MLflow's table of runs for each sweep: trials, best first, with a column for each searched value.

MLflow's table shows no params by default. A view of it can be saved with the experiment: MLflow lists it above the
table and gives it a link. The view is one tag of the experiment, `mlflow.sharedViewState.ID`, which MLflow's pages read
(3.17: name, times, and the state as JSON). A version of MLflow that reads the tag differently shows its usual table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdtune.config.metrics import available
from kdtune.config.trial import FINETUNE_STAGE
from kdtune.history.metric import MetricSpec
from kdtune.history.record import SweepRecord
from kdtune.parse import JsonObject
from kdtune.tracking.location import prepare_environment
from kdtune.tracking.record import metric_name

TAG, PREFIX = "mlflow.sharedViewState.", "kdtune-"
COLUMNS, SHOWN = 20, 5
"""Maximum number of params, and of metrics, in the charts and in the table. A window of 1600 pixels shows 2 · SHOWN
columns beside the name; an experiment's tag holds 20000 characters (5000 in older versions)."""
EXPERIMENTS = 5
"""Maximum number of experiments that `links` reads, the most recently updated first."""


@dataclass(frozen=True)
class Ranking:
    """The columns and the order of a sweep's table, by MLflow's names."""

    params: Sequence[str]
    """Block and searched parameters, in the sweep file's order."""
    metrics: Sequence[str]
    """The metric of gains at its own stage and at each stage, then the other objectives."""
    decisive: str
    """The metric that sorts the table."""
    ascending: bool = False
    """Whether the smallest value is the best."""


def ranking(record: SweepRecord) -> Ranking:
    """Return the columns and the order of a sweep's table."""
    first = record.metric
    others = [objective for objective in record.objectives if objective != first and not objective.cost]
    # A cost has no metric at the stages; every run has the objective.
    metrics = [] if first.cost else [_metric(_measured(first, stage), stage) for stage in record.stages]
    decisive = "objective" if first.cost else _metric(first, first.stage)
    metrics += [_metric(other, other.stage) for other in others]
    metrics = list(dict.fromkeys([decisive, *metrics]))[:COLUMNS]
    return Ranking(record.params[:COLUMNS], metrics, decisive, first.mode == "min")


def _measured(objective: MetricSpec, stage: str) -> MetricSpec:
    """Return the metric to show at a stage: fine-tuning has an action head, which cannot answer the pretext task."""
    return objective if stage != FINETUNE_STAGE or available(objective.metric, "action") else objective.other("top1")


def _metric(objective: MetricSpec, stage: str) -> str:
    return metric_name(f"{stage}/{objective.split}/{objective.column}")


def saved_view(sweep: str, parent_id: str, ranking: Ranking, at_ms: int) -> tuple[str, str]:
    """Return name and value of the experiment's tag with the view of a sweep, whose own run is `parent_id`."""
    columns = [f"params.`{name}`" for name in ranking.params[:SHOWN]]
    columns += [f"metrics.`{name}`" for name in ranking.metrics[:SHOWN]]
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
        # Otherwise MLflow sorts the sections by name, and this one is not the first.
        "isAccordionReordered": True,
    }
    view = {"name": f"{sweep}: best first", "createdAt": at_ms, "updatedAt": at_ms, "state": json.dumps(state)}
    return f"{TAG}{PREFIX}{sweep}", json.dumps(view)


def _charts(ranking: Ranking) -> list[JsonObject]:
    """Return a chart of parallel coordinates, and one of the deciding metric over the stages."""
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
    """Yield a line with the link at `address` for each sweep whose view the database at `uri` has, latest first.

    Raises:
        Exception: any error that mlflow raises if it cannot read the database.
    """
    prepare_environment()
    from mlflow import MlflowClient

    found = MlflowClient(uri).search_experiments(order_by=["last_update_time DESC"], max_results=EXPERIMENTS)
    for experiment in found:
        for tag in sorted(experiment.tags):
            if tag.startswith(TAG + PREFIX):
                page = f"{address}/#/experiments/{experiment.experiment_id}/runs"
                yield f"{tag.removeprefix(TAG + PREFIX)}: {page}?viewStateShareKey={tag.removeprefix(TAG)}"
