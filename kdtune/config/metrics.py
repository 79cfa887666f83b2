"""Every figure that an evaluation records for validation and for test; shares of 1, losses in nats.

`knn` and `linear` are the action accuracies of the frozen features: k-NN and linear probe, both learnt from the trial's
own training videos. `retrieval_k`: one of the k nearest of them shows the action. With `evaluation.features: conv5`
k-NN and retrieval compare the last stage's maps instead (PCL's measure of R3D, R(2+1)D and C3D). `pretext`: accuracy
on the five labels, for one tuple a video. `action`: the same of the action head, for one clip a video; `top1`, `top5`,
`precision`, `recall` and `f1` (means over the classes) are its figures for a video's averaged logits.

And every figure of what a trial costs (OfCost), recorded once, when it is trained. The first two follow from its
configuration and the number of actions, and are the same everywhere and each time:

- `parameters`: how many weights the student learns in its backbone and its head.
- `gmac`: 10⁹ multiply-accumulates of the backbone for one clip: convolutions and matrix products, without biases.

The others are measured by whoever ends the trial, and depend on the machine and on versions; times also on what else
the machine does, so that a search for them need not repeat:

- `peak_memory`: MiB of the device's memory at the peak of a training step, the largest of an epoch: weights,
  gradients, momentum, the batch, what the backward pass needs, the memory bank, an epoch's targets. Counted is what
  torch allocates for the step itself: neither evaluations, nor batches made ahead, nor a teacher, whose targets are
  computed before, nor what the libraries and the process take.
- `clip_ms`: milliseconds of the backbone for a single clip, evaluated with the trial's threads and precision: the
  median of a few passes.
- `epoch_seconds`: seconds of a training epoch, the median of those that no evaluation follows; of all where there is
  no such one, evaluations included.

All but the last a process measures once for all its trials that differ in seed, λ, τ and α alone: they cost the same.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

#: k of the retrieval figures (PCL).
RETRIEVED = (1, 5, 10, 20, 50)

OfFeatures = Literal["knn", "linear", "retrieval_1", "retrieval_5", "retrieval_10", "retrieval_20", "retrieval_50"]
OfPretext = Literal["pretext", "pretext_loss"]
OfAction = Literal["action", "action_loss", "top1", "top5", "precision", "recall", "f1"]
Metric = Literal[OfFeatures, OfPretext, OfAction]

#: Measured once a trial, not after an epoch: no Metric.
OfCost = Literal["parameters", "gmac", "peak_memory", "clip_ms", "epoch_seconds"]

#: Each has its `best_…` beside it.
METRICS: tuple[Metric, ...] = get_args(Metric)
#: loss.target → what its head alone can be measured by.
OF_HEAD: dict[str, tuple[str, ...]] = {"pretext": get_args(OfPretext), "action": get_args(OfAction)}
OF_COST: tuple[OfCost, ...] = get_args(OfCost)


def available(metric: str, target: str) -> bool:
    """Does a trial with this `loss.target` record `metric`?"""
    return metric in get_args(OfFeatures) or metric in OF_HEAD[target]


def is_cost(metric: str) -> bool:
    """Is it what a trial costs, rather than how good it is?"""
    return metric in OF_COST


def column(metric: str, reduce: str) -> str:
    """The recorded figure that `stage.reduce` picks: the value at the boundary, or the best so far."""
    return f"best_{metric}" if reduce == "best" else metric


def best(metric: str, values: list[Any]) -> Any:
    """The best of `values`: the lowest loss, the highest of everything else."""
    return min(values) if metric.endswith("_loss") else max(values)


def majority_of(metric: str) -> str:
    """The figure beside `metric` that says what always answering the most frequent class would score."""
    return "pretext_majority" if metric.removeprefix("best_").startswith("pretext") else "action_majority"
