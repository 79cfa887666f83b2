"""Measuring a frozen network (DESIGN 4.6): k-NN and linear probe against independent computations, and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from kdtune.train.inputs import batches
from kdtune.train.measuring.probes import nearest, probe_predictions, vote

torch.set_num_threads(1)


def features(rows: int, size: int, seed: int) -> np.ndarray:
    """Random features as after a ReLU: not negative."""
    return np.abs(np.random.default_rng(seed).normal(size=(rows, size))).astype(np.float32)


def knn_by_hand(train: np.ndarray, labels: np.ndarray, queries: np.ndarray, neighbors: int) -> list[int]:
    predictions = []
    for query in queries.astype(float):
        cosines = [float(query @ x / np.sqrt((query @ query) * (x @ x))) for x in train.astype(float)]
        # Ties go to the video that comes first in the one order.
        nearest = sorted(range(len(train)), key=lambda i: (-round(cosines[i], 12), i))[:neighbors]
        votes: dict[int, float] = {}
        for i in nearest:
            votes[labels[i]] = votes.get(labels[i], 0.0) + cosines[i]
        predictions.append(min(votes, key=lambda label: (-round(votes[label], 12), label)))
    return predictions


def knn(train: np.ndarray, labels: np.ndarray, queries: np.ndarray, neighbors: int, classes: int) -> list[int]:
    order, similarity = nearest(torch.from_numpy(train), torch.from_numpy(queries), neighbors)
    return vote(order, similarity, torch.from_numpy(labels), neighbors, classes).tolist()


@pytest.mark.parametrize("k", [1, 7, 50, 200])
def test_nearest_is_the_head_of_a_stable_sort_however_many_tie(k: int) -> None:
    rng = np.random.default_rng(k)
    # Few different vectors, so that most similarities are tied, including the k-th.
    train = torch.from_numpy(rng.integers(-1, 2, (120, 3)).astype(np.float32))
    queries = torch.from_numpy(rng.integers(-2, 3, (60, 3)).astype(np.float32))
    order, values = nearest(train, queries, k)
    whole = F.normalize(queries.double(), dim=1) @ F.normalize(train.double(), dim=1).T
    expected = whole.sort(dim=1, descending=True, stable=True)
    assert torch.equal(order, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])


@pytest.mark.parametrize("neighbors", [1, 5])
def test_knn_is_the_vote_of_the_nearest_by_cosine(neighbors: int) -> None:
    train, queries = features(60, 4, 0), features(200, 4, 1)
    labels = np.random.default_rng(2).integers(0, 6, 60)
    expected = knn_by_hand(train, labels, queries, neighbors)
    assert knn(train, labels, queries, neighbors, 6) == expected
    assert expected != knn_by_hand(train, labels, queries, 6 - neighbors)
    # The length of a feature does not matter.
    assert knn(train * features(60, 1, 3), labels, queries * 7, neighbors, 6) == expected


def test_knn_settles_ties_by_the_one_order() -> None:
    one = np.array([[0.6, 0.8]], np.float32)
    train, labels = np.repeat(one, 9, 0), np.array([2, 1, 1, 0, 0, 0, 1, 2, 2])
    assert knn(train, labels, one, 1, 3) == [2]
    assert knn(train, labels, one, 3, 3) == [1]
    # Among equal votes the lowest class wins: 1 and 2 have two each.
    assert knn(train[[0, 1, 2, 7]], labels[[0, 1, 2, 7]], one, 4, 3) == [1]


def test_weights_count_not_only_votes() -> None:
    train = np.array([[1, 0], [0.1, 1], [0.1, 1]], np.float32)
    assert knn(train, np.array([0, 1, 1]), np.array([[1, 0]], np.float32), 3, 2) == [0]


def test_the_nearest_decides_alone_also_where_nothing_is_similar() -> None:
    # A collapsed network: all features are 0, or no query has anything in common with a training video.
    train, labels = np.array([[1, 0], [2, 0]], np.float32), np.array([2, 1])
    for query in ([0, 0], [0, 1], [-1, 0]):
        assert knn(train, labels, np.array([query], np.float32), 1, 3) == [2]


# ---- linear probe ----------------------------------------------------------------------------------------------------


def optimum(train: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int) -> np.ndarray:
    """Return the scores at the minimum of mean CE + 1e-3/2 · ‖W‖² on standardised features, by SciPy and NumPy."""
    mean, scale = train.mean(0), np.maximum(train.std(0), 1e-8)
    x, q = (train - mean) / scale, (queries - mean) / scale
    truth = np.eye(classes)[labels]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat[:-classes].reshape(classes, -1), flat[-classes:]
        scores = x @ weight.T + bias
        scores -= scores.max(1, keepdims=True)
        log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        error = (np.exp(log_p) - truth) / len(x)
        value = -(truth * log_p).sum() / len(x) + 1e-3 / 2 * (weight**2).sum()
        return value, np.concatenate([(error.T @ x + 1e-3 * weight).ravel(), error.sum(0)])

    start = np.zeros(classes * (x.shape[1] + 1))
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-9, "ftol": 0})
    assert np.abs(found.jac).max() < 1e-6
    return q @ found.x[:-classes].reshape(classes, -1).T + found.x[-classes:]


@pytest.mark.parametrize(("rows", "size", "classes", "signal"), [(80, 16, 5, 1.0), (40, 64, 10, 0.5), (300, 8, 3, 0.3)])
def test_the_probe_is_the_regularised_optimum(rows: int, size: int, classes: int, signal: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, rows)
    centres = rng.normal(size=(classes, size)) * signal
    train = (rng.normal(size=(rows, size)) + centres[labels]) * 10 ** rng.uniform(-2, 2, size)
    queries = train.std(0) * rng.normal(size=(400, size))
    scores = optimum(train, labels, queries, classes)
    ranked = np.sort(scores, 1)
    clear = ranked[:, -1] - ranked[:, -2] > 0.05  # where both are equally good, either answer is right
    assert clear.mean() > 0.8
    got = probe_predictions(*(torch.from_numpy(x) for x in (train, labels, queries)), classes).numpy()
    assert (got == scores.argmax(1))[clear].all()


def test_the_probe_bears_dead_features_and_absent_classes() -> None:
    train = np.zeros((6, 3))
    train[:3, 0] = 1
    labels = np.array([2, 2, 2, 4, 4, 4])
    got = probe_predictions(*(torch.from_numpy(x) for x in (train, labels, train)), 6)
    assert got.tolist() == labels.tolist()


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 16])
def test_a_last_batch_of_one_joins_the_one_before(size: int) -> None:
    for count in range(2, 70):
        samples = np.arange(count)[::-1]
        cut = batches(samples, size)
        assert np.concatenate(cut).tolist() == samples.tolist()
        lengths = [len(batch) for batch in cut]
        assert min(lengths) >= 2
        assert all(length == size for length in lengths[:-1])
        assert lengths[-1] <= size + 1
        assert len(cut) == max(1, -(-count // size) - (count % size == 1))


def test_two_percent_of_ucf101_is_twelve_batches() -> None:
    # REFERENCE.md, "Traps found": 193 videos would give 12 batches of 16 and one of 1.
    assert [len(batch) for batch in batches(np.arange(193), 16)] == [16] * 11 + [17]
