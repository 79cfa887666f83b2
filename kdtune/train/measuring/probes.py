"""Score features and predictions: nearest neighbours, linear probe, confusion. Pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: The linear probe: L2-regularised logistic regression on standardised features, full-batch L-BFGS.
PROBE_L2, PROBE_ITERATIONS = 1e-3, 100


def nearest(train: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest training videos of each query, by descending cosine similarity.

    Shape: train (N, F), queries (Q, F) → positions (Q, K) and similarities (Q, K), K = min(k, N). Equal similarities
    keep the order of `train` on every machine: the result is the first K columns of a stable sort, at a fraction of its
    time and memory.
    """
    similarity = F.normalize(queries.double(), dim=1) @ F.normalize(train.double(), dim=1).T
    k = min(k, len(train))
    values, order = similarity.topk(k, dim=1)
    # torch.topk promises no order of equal values: sort by position, then stably by value.
    order = order.sort(dim=1).values
    values, ranks = similarity.gather(1, order).sort(dim=1, descending=True, stable=True)
    order = order.gather(1, ranks)
    # Nor does topk promise which of several equal values it returns last: sort those rows whole.
    tied = (similarity >= values[:, -1:]).sum(1) > k
    if tied.any():
        whole = similarity[tied].sort(dim=1, descending=True, stable=True)
        values[tied], order[tied] = whole.values[:, :k], whole.indices[:, :k]
    return order, values


def vote(order: Tensor, similarity: Tensor, labels: Tensor, neighbors: int, classes: int) -> Tensor:
    """Return the label that the `neighbors` nearest training videos vote for, each weighted by its similarity.

    Shape: order and similarity (Q, K) from `nearest` with K = min(neighbors, N) or more; labels (N,) → (Q,) labels.
    """
    chosen = F.one_hot(labels[order[:, :neighbors]], classes)
    votes = (chosen * similarity[:, :neighbors].unsqueeze(2)).sum(1)
    # Similarities may be negative: a class without a vote must not win with its zero.
    return votes.masked_fill(chosen.sum(1) == 0, -torch.inf).argmax(1)


def retrieved(order: Tensor, labels: Tensor, truth: Tensor, k: int) -> float:
    """Return the share of queries of which one of the k nearest training videos has the label (PCL's top-k).

    Shape: order (Q, K) from `nearest`, labels (N,), truth (Q,).
    """
    return float((labels[order[:, :k]] == truth.unsqueeze(1)).any(1).double().mean())


def probe_predictions(train: Tensor, labels: Tensor, queries: Tensor, classes: int) -> Tensor:
    """Fit a logistic regression to train (N, F) and labels (N,); return its labels (Q,) for queries (Q, F)."""
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
    """Count (Q,) true and (Q,) predicted labels: (classes, classes), rows are the truth, columns the prediction."""
    return torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes)


def class_figures(confusion: Tensor) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return each class's precision, recall and F1, and their means over the classes that occur in the truth.

    A class that is never predicted has precision 0 (scikit-learn's zero_division=0).
    """
    hits = confusion.diagonal().double()
    truth, predicted = confusion.sum(1).double(), confusion.sum(0).double()
    figures = {
        "precision": hits / predicted.clamp_min(1),
        "recall": hits / truth.clamp_min(1),
        "f1": 2 * hits / (truth + predicted).clamp_min(1),
    }
    present = truth > 0
    means = {name: float(values[present].mean()) for name, values in figures.items()}
    return {name: values.tolist() for name, values in figures.items()}, means
