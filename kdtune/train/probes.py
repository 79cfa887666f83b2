"""What features and predictions are worth: nearest neighbours, linear probe, confusion. Pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: The linear probe: L2-regularised logistic regression on standardised features, full-batch L-BFGS.
PROBE_L2, PROBE_ITERATIONS = 1e-3, 100


def nearest(train: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """All training videos by falling cosine: train (N, F), queries (Q, F) → positions (Q, N), similarities (Q, N)."""
    similarity = F.normalize(queries.double(), dim=1) @ F.normalize(train.double(), dim=1).T
    # A stable sort settles ties by the one order, on every machine alike.
    order = torch.sort(similarity, dim=1, descending=True, stable=True)
    return order.indices, order.values


def vote(order: Tensor, similarity: Tensor, labels: Tensor, neighbors: int, classes: int) -> Tensor:
    """Vote of the `neighbors` nearest training videos, each weighted by its similarity.

    Shape: order and similarity (Q, N) of `nearest`, labels (N,) → (Q,) labels.
    """
    chosen = F.one_hot(labels[order[:, :neighbors]], classes)
    votes = (chosen * similarity[:, :neighbors].unsqueeze(2)).sum(1)
    # Similarities may be negative: a class without a vote must not win by its zero.
    return votes.masked_fill(chosen.sum(1) == 0, -torch.inf).argmax(1)


def retrieved(order: Tensor, labels: Tensor, truth: Tensor, k: int) -> float:
    """Share of the queries for which one of the k nearest training videos has the query's label (PCL's top-k)."""
    return float((labels[order[:, :k]] == truth.unsqueeze(1)).any(1).double().mean())


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


def confusion_matrix(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """(Q,) and (Q,) labels → (classes, classes) counts: rows are the truth, columns what was predicted."""
    return torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes)


def class_figures(confusion: Tensor) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Precision, recall and F1 of each class, and their means over the classes that occur in the truth.

    A class that is never predicted has precision 0 (as scikit-learn's zero_division=0).
    """
    hits = confusion.diagonal().double()
    truth, predicted = confusion.sum(1).double(), confusion.sum(0).double()
    figures = {
        "precision": hits / predicted.clamp_min(1),
        "recall": hits / truth.clamp_min(1),
        "f1": 2 * hits / (truth + predicted).clamp_min(1),
    }
    there = truth > 0
    means = {name: float(values[there].mean()) for name, values in figures.items()}
    return {name: values.tolist() for name, values in figures.items()}, means
