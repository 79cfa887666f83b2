"""What features and predictions are worth: nearest neighbours, linear probe, confusion. Pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: The linear probe: L2-regularised logistic regression on standardised features, full-batch L-BFGS.
PROBE_L2, PROBE_ITERATIONS = 1e-3, 100


def nearest(train: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest training videos of each query by falling cosine, all where there are fewer.

    Shape: train (N, F), queries (Q, F) → positions (Q, K) and similarities (Q, K), K = min(k, N). Equal similarities
    stand in the order of `train`, on every machine alike: the first K columns of a stable sort, at a fraction of its
    time and memory.
    """
    similarity = F.normalize(queries.double(), dim=1) @ F.normalize(train.double(), dim=1).T
    k = min(k, len(train))
    values, order = similarity.topk(k, dim=1)
    # torch.topk promises no order of equal values: by position first, then by a stable sort of the values.
    order = order.sort(dim=1).values
    values, ranks = similarity.gather(1, order).sort(dim=1, descending=True, stable=True)
    order = order.gather(1, ranks)
    # Where equal ones were left out at the end, which ones topk took is not promised either.
    tied = (similarity >= values[:, -1:]).sum(1) > k
    if tied.any():
        whole = similarity[tied].sort(dim=1, descending=True, stable=True)
        values[tied], order[tied] = whole.values[:, :k], whole.indices[:, :k]
    return order, values


def vote(order: Tensor, similarity: Tensor, labels: Tensor, neighbors: int, classes: int) -> Tensor:
    """Vote of the `neighbors` nearest training videos, each weighted by its similarity.

    Shape: order and similarity (Q, K) of `nearest`, K ≥ neighbors or all; labels (N,) → (Q,) labels.
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
