"""The metrics of a trial: accuracies as shares of 1, losses in nats, and costs.

Each evaluation records these for validation and test:

- `knn`, `linear`: action accuracy of the frozen features by k-NN and by a linear probe, both learnt from the trial's
  own training videos.
- `retrieval_k`: share of videos for which one of the k nearest training videos shows the same action. With
  `evaluation.features: conv5`, k-NN and retrieval compare the last stage's maps (PCL's measure of R3D, R(2+1)D, C3D).
- `pretext`: accuracy on the five labels. Each video is asked under each of them (`evaluation.labels`).
- `action`: accuracy of the action head, for one clip per video; `top1`, `top5`, `precision`, `recall` and `f1` (means
  over the classes) use a video's averaged logits.

The costs of a trial (OfCost) are recorded once, when it is trained. Two follow from its configuration and the number
of actions, and are the same everywhere:

- `parameters`: number of weights that the student learns in its backbone and its head.
- `gmac`: 10⁹ multiply-accumulates of the backbone for one clip: convolutions and matrix products, without biases.

The others are measured by the process that ends the trial, and depend on the machine and on versions. Times also
depend on the machine's load, so a search for them need not be repeatable:

- `peak_memory`: MiB of device memory at the peak of a training step, the largest of an epoch: weights, gradients,
  momentum, the batch, the backward pass's buffers, the memory bank, an epoch's targets. It counts what torch allocates
  for the step itself: not evaluations, batches made ahead, the teacher (its targets are computed before), the libraries
  or the process.
- `clip_ms`: milliseconds of the backbone for a single clip, evaluated with the trial's threads and precision: the
  median of a few passes.
- `epoch_seconds`: seconds of a training epoch: the median over the epochs that no evaluation follows or, where there
  are none, over all epochs, evaluations included.

All but the last are measured once per process for trials that differ only in seed, λ, τ and α: they cost the same.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

#: k of the retrieval figures (PCL).
RETRIEVED = (1, 5, 10, 20, 50)

OfFeatures = Literal["knn", "linear", "retrieval_1", "retrieval_5", "retrieval_10", "retrieval_20", "retrieval_50"]
OfPretext = Literal["pretext", "pretext_loss"]
OfAction = Literal["action", "action_loss", "top1", "top5", "precision", "recall", "f1"]
Metric = Literal[OfFeatures, OfPretext, OfAction]

#: Costs are measured once per trial, not per epoch, so they are not part of Metric.
OfCost = Literal["parameters", "gmac", "peak_memory", "clip_ms", "epoch_seconds"]

#: Each metric is recorded together with its `best_…`.
METRICS: tuple[Metric, ...] = get_args(Metric)
#: loss.target → metrics that need a head with this target.
OF_HEAD: dict[str, tuple[str, ...]] = {"pretext": get_args(OfPretext), "action": get_args(OfAction)}
OF_COST: tuple[OfCost, ...] = get_args(OfCost)
#: Means over the videos of a share of right answers, with the answers that a video's outcome counts. A row of a stage
#: holds the outcomes: one digit per video, so that `pretext` 3 means three of five. Asked under one label, a video has
#: 0 or 5.
PER_VIDEO: dict[str, int] = {"knn": 1, "linear": 1, "retrieval_1": 1, "pretext": 5, "action": 1, "top1": 1}


def available(metric: str, target: str) -> bool:
    """Return whether a trial whose `loss.target` is `target` records `metric`."""
    return metric in get_args(OfFeatures) or metric in OF_HEAD[target]


def is_cost(metric: str) -> bool:
    """Return whether `metric` is a cost of a trial."""
    return metric in OF_COST


def column(metric: str, reduce: str) -> str:
    """Return the name of the recorded figure that `stage.reduce` selects: the boundary's value, or the best so far."""
    return f"best_{metric}" if reduce == "best" else metric


def best(metric: str, values: list[Any]) -> Any:
    """Return the best of `values`: the lowest for a loss, else the highest."""
    return min(values) if metric.endswith("_loss") else max(values)


def wrong_digits(metric: str, text: str) -> list[str]:
    """Return the characters of a row's `per_video` text that `metric` cannot have: all of them unless it is in
    PER_VIDEO."""
    return sorted(set(text) - set("012345"[: PER_VIDEO.get(metric, -1) + 1]))


def outcomes(metric: str, text: str) -> tuple[float, ...]:
    """Return the share of right answers of each video, from a row's `per_video` text of a metric of PER_VIDEO.

    Raises ValueError where `text` holds anything but the digits that the metric allows.
    """
    most = PER_VIDEO[metric]
    if wrong := wrong_digits(metric, text):
        raise ValueError(f"outcomes of {metric} must be digits from 0 to {most}, but got {wrong[0]!r}")
    return tuple(int(digit) / most for digit in text)


def majority_of(metric: str) -> str:
    """Return the name of the baseline of `metric`: the score of always predicting the most frequent class."""
    return "pretext_majority" if metric.removeprefix("best_").startswith("pretext") else "action_majority"
