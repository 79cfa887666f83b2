"""A frozen network, measured at a stage: pretext, k-NN and linear-probe accuracy on validation and on test.

The k-NN and the probe learn from the trial's own training videos (its data fraction) with their action labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdtune.clips.dataset import TrialData
from kdtune.clips.tuples import PRETEXT_CLASSES
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import PclNetwork
from kdtune.train.inputs import evaluation_tuples, evenly_spaced_clips

#: Videos in one evaluation pass. Fixed, because the batch size can change bits.
EVALUATION_BATCH = 32
#: The linear probe: L2-regularised logistic regression on standardised features, full-batch L-BFGS.
PROBE_L2, PROBE_ITERATIONS = 1e-3, 100


@torch.no_grad()
def pretext_scores(network: PclNetwork, config: TrialConfig, data: TrialData, rows: np.ndarray) -> dict[str, float]:
    """Accuracy, mean cross-entropy in nats and majority-class floor of the pretext task on `rows`."""
    device = next(network.parameters()).device
    network.eval()
    hits, loss, counts = 0, 0.0, np.zeros(PRETEXT_CLASSES)
    for part in _passes(rows):
        batch = evaluation_tuples(config, data, part, device)
        logits = network.pretext_logits(network.features(batch.clips))
        hits += int((logits.argmax(1) == batch.labels).sum())
        loss += float(F.cross_entropy(logits.double(), batch.labels, reduction="sum"))
        counts += np.bincount(batch.labels.cpu().numpy(), minlength=PRETEXT_CLASSES)
    return {
        "pretext": hits / len(rows),
        "pretext_loss": loss / len(rows),
        "pretext_floor": float(counts.max() / len(rows)),
    }


@torch.no_grad()
def video_features(network: PclNetwork, config: TrialConfig, data: TrialData, rows: np.ndarray) -> Tensor:
    """(V,) rows → (V, F) float32 on the CPU: the features of evenly spaced clips, averaged."""
    device = next(network.parameters()).device
    network.eval()
    parts = []
    for part in _passes(rows):
        clips = evenly_spaced_clips(config, data, part, device)
        parts.append(network.features(clips).mean(1).cpu())
    return torch.cat(parts)


def _passes(rows: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, range(EVALUATION_BATCH, len(rows), EVALUATION_BATCH))


def knn_predictions(train: Tensor, labels: Tensor, queries: Tensor, neighbors: int, classes: int) -> Tensor:
    """Vote of the `neighbors` nearest training videos by cosine, each weighted by its similarity.

    Shape: train (N, F), labels (N,), queries (Q, F) → (Q,) labels.
    """
    similarity = F.normalize(queries.double(), dim=1) @ F.normalize(train.double(), dim=1).T
    # A stable sort settles ties by the one order, on every machine alike.
    order = torch.sort(similarity, dim=1, descending=True, stable=True)
    nearest, weight = order.indices[:, :neighbors], order.values[:, :neighbors]
    chosen = F.one_hot(labels[nearest], classes)
    votes = (chosen * weight.unsqueeze(2)).sum(1)
    # Similarities may be negative: a class without a vote must not win by its zero.
    return votes.masked_fill(chosen.sum(1) == 0, -torch.inf).argmax(1)


def probe_predictions(train: Tensor, labels: Tensor, queries: Tensor, classes: int) -> Tensor:
    """Logistic regression fitted to (train, labels), applied to queries: (N, F), (N,), (Q, F) → (Q,) labels."""
    mean, scale = train.double().mean(0), train.double().std(0, correction=0).clamp_min(1e-8)
    x, queries = (train.double() - mean) / scale, (queries.double() - mean) / scale
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=PROBE_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels) + PROBE_L2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (queries @ weight.T + bias).detach().argmax(1)


def evaluate(network: PclNetwork, config: TrialConfig, data: TrialData) -> dict[str, dict[str, Any]]:
    """{"validation": {pretext, knn, linear, …floors}, "test": {…}}: accuracies as shares of 1."""
    features = video_features(network, config, data, data.train)
    labels = torch.from_numpy(data.labels[data.train])
    classes = int(data.labels.max()) + 1
    # Asked together, for the probe is fitted once.
    queries = torch.cat([video_features(network, config, data, rows) for rows in (data.validation, data.test)])
    knn = knn_predictions(features, labels, queries, config.evaluation.neighbors, classes)
    linear = probe_predictions(features, labels, queries, classes)
    scores: dict[str, dict[str, Any]] = {}
    for split, rows, asked in (
        ("validation", data.validation, slice(None, len(data.validation))),
        ("test", data.test, slice(len(data.validation), None)),
    ):
        truth = torch.from_numpy(data.labels[rows])
        scores[split] = {
            **pretext_scores(network, config, data, rows),
            "knn": float((knn[asked] == truth).double().mean()),
            "linear": float((linear[asked] == truth).double().mean()),
            "action_floor": float(torch.bincount(truth).max() / len(truth)),
        }
    return scores
