"""Measure a frozen network on validation and on test. config/metrics.py defines the figures.

k-NN and linear probe learn from the trial's own training videos (its data fraction) with their action labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdtune.config.metrics import METRICS, PER_VIDEO, RETRIEVED, best
from kdtune.errors import TrialError
from kdtune.models.heads import PclNetwork
from kdtune.parse import JsonObject
from kdtune.store.contents import EpochRecord, PerVideo, Scores
from kdtune.train.inputs import evaluation_questions
from kdtune.train.measuring.probes import class_figures, confusion_matrix, nearest, probe_predictions, retrieved, vote
from kdtune.train.samples import Samples

#: Hint that ends the message about a figure that is not finite.
ADVICE = "a lower optimizer.lr or weight of the loss may help"
#: Videos per evaluation pass. Fixed, because the batch size can change bits.
EVALUATION_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """The figures of one network."""

    scores: Scores
    """{"validation": {metric: value, …majority baselines}, "test": {…}}."""
    per_video: PerVideo
    """The outcomes of the metrics of PER_VIDEO, of which the scores are the means."""
    classes: Mapping[str, JsonObject] | None
    """For an action head, by split: class names, confusion matrix, and each class's precision, recall and F1."""


class HeadScores(NamedTuple):
    """The scores of a head on V videos."""

    scores: dict[str, float]
    """Accuracy, mean cross-entropy (nats) and majority baseline."""
    per_video: dict[str, str]
    """The videos' outcomes (PER_VIDEO), by the accuracy's name."""


@torch.no_grad()
def head_scores(network: PclNetwork, samples: Samples, rows: np.ndarray, epoch: int = 0) -> HeadScores:
    """Return what the head scores on `rows` (V,), each of which it is asked about under Q labels, 5 or 1.

    `epoch` is the last one that `network` was trained on: evaluation.draws may ask for new samples each epoch.
    """
    target = samples.config.loss.target
    questions = torch.tensor(evaluation_questions(samples.config), device=samples.device)  # (Q, n)
    network.eval()
    right, loss, labels = [], 0.0, []
    for part in passes(rows):
        batch = samples.evaluation(part, epoch)
        asked = network.features(batch.clips)[:, questions]  # (B, Q, n, F)
        logits, truth = network.logits(asked.flatten(0, 1)), batch.labels.flatten()
        right.append((logits.argmax(1) == truth).view(len(part), len(questions)).cpu())
        loss += float(F.cross_entropy(logits.double(), truth, reduction="sum"))
        labels.append(truth.cpu())
    hits, each = torch.cat(right), torch.cat(labels)
    scores = {
        target: int(hits.sum()) / len(each),
        f"{target}_loss": loss / len(each),
        f"{target}_majority": int(torch.bincount(each).max()) / len(each),
    }
    return HeadScores(scores, {target: _digits(hits, target)})


def _digits(right: Tensor, metric: str) -> str:
    """Return the outcomes of a metric of PER_VIDEO as text: the right answers (V,) or (V, Q) of each video."""
    answers = right.view(len(right), -1)
    return "".join(map(str, (answers.sum(1) * (PER_VIDEO[metric] // answers.shape[1])).tolist()))


def head_evaluation(network: PclNetwork, samples: Samples, epoch: int, validation: dict[str, float] | None) -> Scores:
    """Return the head's scores by split. `validation` passes those on validation if they are known."""
    data = samples.data
    scores = {"validation": validation or head_scores(network, samples, data.validation, epoch).scores}
    same = data.validation_is_test
    scores["test"] = dict(scores["validation"]) if same else head_scores(network, samples, data.test, epoch).scores
    return scores


@torch.no_grad()
def video_features(network: PclNetwork, samples: Samples, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Average the features of evenly spaced clips: (V,) rows → (V, F) and (V, D) float32 on the CPU.

    Head and probe use the first, the backbone's. k-NN and retrieval compare the second, which is the same tensor unless
    `evaluation.features` is conv5. Raises TrialError if a feature is not finite: neighbours and probe would use it
    without complaint.
    """
    network.eval()
    conv5 = samples.config.evaluation.features == "conv5"
    pooled, compared = [], []
    for part in passes(rows):
        own, other = network.evaluation_features(samples.evenly_spaced(part), conv5)
        pooled.append(own.mean(1).cpu())
        if conv5:
            compared.append(other.mean(1).cpu())
    features = torch.cat(pooled)
    found = torch.cat(compared) if conv5 else features
    if not (features.isfinite().all() and found.isfinite().all()):
        bad = int((~(features.isfinite().all(1) & found.isfinite().all(1))).sum())
        raise TrialError(f"the network's features are not finite for {bad} of {len(rows)} videos; {ADVICE}")
    return features, found


def passes(rows: np.ndarray) -> list[np.ndarray]:
    """Cut the rows into evaluation passes."""
    return np.split(rows, range(EVALUATION_BATCH, len(rows), EVALUATION_BATCH))


def evaluate(network: PclNetwork, samples: Samples, epoch: int = 0) -> Evaluation:
    """Return every figure of `network` on both splits, after `epoch`. Raises TrialError if a feature is not finite."""
    config, data = samples.config, samples.data
    gallery, compared = video_features(network, samples, data.train)
    labels = torch.from_numpy(data.labels[data.train])
    classes = len(data.actions)
    # With data.validation 0 both splits are the same videos: measure them once.
    splits = {"test": data.test} if data.validation_is_test else {"validation": data.validation, "test": data.test}
    # Both splits are queried together, so that the probe is fitted once.
    queried = [video_features(network, samples, rows) for rows in splits.values()]
    features, queries = (torch.cat(each) for each in zip(*queried, strict=True))
    order, similarity = nearest(compared, queries, max(config.evaluation.neighbors, *RETRIEVED))
    knn = vote(order, similarity, labels, config.evaluation.neighbors, classes)
    linear = probe_predictions(gallery, labels, features, classes)
    scores: dict[str, dict[str, float]] = {}
    per_video: dict[str, dict[str, str]] = {}
    tables, first = {}, 0
    for split, rows in splits.items():
        own = slice(first, first + len(rows))
        first += len(rows)
        truth = torch.from_numpy(data.labels[rows])
        head = head_scores(network, samples, rows, epoch)
        right = {
            "knn": knn[own] == truth,
            "linear": linear[own] == truth,
            "retrieval_1": labels[order[own, 0]] == truth,
        }
        scores[split] = {
            **head.scores,
            "knn": float(right["knn"].double().mean()),
            "linear": float(right["linear"].double().mean()),
            **{f"retrieval_{k}": retrieved(order[own], labels, truth, k) for k in RETRIEVED},
            "action_majority": float(torch.bincount(truth).max() / len(truth)),
        }
        if config.loss.target == "action":
            # The head is linear: its logits for the mean features are the mean of the clips' logits.
            logits = F.linear(features[own], network.head.weight.detach().cpu(), network.head.bias.detach().cpu())
            matrix = confusion_matrix(truth, logits.argmax(1), classes)
            per_class, means = class_figures(matrix)
            right["top1"] = logits.argmax(1) == truth
            top5 = logits.topk(min(5, classes), dim=1).indices
            scores[split] |= {
                "top1": float(right["top1"].double().mean()),
                "top5": float((top5 == truth.unsqueeze(1)).any(1).double().mean()),
                **means,
            }
            tables[split] = {"actions": list(data.actions), "confusion": matrix.tolist(), **per_class}
        per_video[split] = {**head.per_video, **{metric: _digits(hits, metric) for metric, hits in right.items()}}
    if data.validation_is_test:
        scores = {"validation": dict(scores["test"]), **scores}
        per_video = {"validation": dict(per_video["test"]), **per_video}
        tables = {"validation": tables["test"], **tables} if tables else tables
    return Evaluation(scores, per_video, tables or None)


def with_best(evaluation: Scores, rows: Sequence[EpochRecord], own: Scores | None = None) -> Scores:
    """Add the best value so far (`best_knn` …) to each figure, over this evaluation and those of the epochs in `rows`.

    `own` holds figures of the epoch's own weights if `evaluation` measured the best weights instead.
    """
    earlier = [row["evaluation"] for row in rows if "evaluation" in row] + ([own] if own is not None else [])
    scores = {}
    for split, values in evaluation.items():
        found = [metric for metric in METRICS if metric in values]
        seen = {m: [figures[split][m] for figures in earlier if m in figures[split]] for m in found}
        so_far = {f"best_{m}": best(m, [values[m], *seen[m]]) for m in found}
        scores[split] = {**values, **so_far}
    return scores
