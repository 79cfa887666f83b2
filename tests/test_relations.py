"""Temporal knowledge transfer against NumPy in double precision, from RKD's equations."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from kdtune.losses.relations import relation_loss, relations

torch.set_num_threads(1)
B, F = 5, 7


def features(seed: int, size: int = F) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(B, 3, size))


def by_hand(tuples: np.ndarray) -> np.ndarray:
    """Compute the six relations of each tuple, one number at a time."""
    rows = []
    for clips in tuples:
        pairs = [(clips[i], clips[j]) for i, j in combinations(range(3), 2)]
        cosines = [(a * b).sum() / (a**2).sum() ** 0.5 / (b**2).sum() ** 0.5 for a, b in pairs]
        distances = [((a - b) ** 2).sum() ** 0.5 for a, b in pairs]
        rows.append([*cosines, *(d / (sum(distances) / 3) for d in distances)])
    return np.array(rows)


def loss_by_hand(student: np.ndarray, teacher: np.ndarray) -> float:
    squares = (by_hand(student) - by_hand(teacher)) ** 2
    return float(squares[:, :3].sum() / (3 * B) + squares[:, 3:].sum() / (3 * B))


def slope(of: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Compute the gradient by central differences."""
    gradient = np.empty_like(at)
    for index in np.ndindex(at.shape):
        away = np.zeros_like(at)
        away[index] = step
        gradient[index] = (of(at + away) - of(at - away)) / (2 * step)
    return gradient


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_relations_are_cosines_and_distances_over_their_mean(dtype: torch.dtype, tolerance: float) -> None:
    given = features(0)
    out = relations(torch.tensor(given, dtype=dtype))
    assert out.shape == (B, 6)
    assert out.dtype == dtype
    np.testing.assert_allclose(out.numpy(), by_hand(given), rtol=tolerance, atol=tolerance)


def test_relations_of_a_known_triangle() -> None:
    # Points (3, 0), (0, 4), (3, 4): distances 5, 4, 3 of mean 4; the third is at cos 0.6 and 0.8 from the others.
    out = relations(torch.tensor([[[3.0, 0.0], [0.0, 4.0], [3.0, 4.0]]], dtype=torch.float64))
    assert out[0].tolist() == pytest.approx([0, 0.6, 0.8, 5 / 4, 1, 3 / 4])


@pytest.mark.parametrize(("size", "scale"), [(F, 1.0), (3, 1.0), (40, 1.0), (F, 50.0)])
def test_the_loss_and_its_gradient_by_hand_for_any_width_and_scale_of_the_teacher(size: int, scale: float) -> None:
    own, other = features(1), scale * features(2, size)
    student = torch.tensor(own, requires_grad=True)
    teacher = torch.tensor(other)
    loss = relation_loss(student, relations(teacher))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(loss_by_hand(own, other), rel=1e-12)
    loss.backward()
    assert student.grad is not None
    numerical = slope(lambda at: loss_by_hand(at, other), own)
    np.testing.assert_allclose(student.grad.numpy(), numerical, rtol=1e-5, atol=1e-8)


def test_nothing_is_left_to_learn_where_the_relations_agree() -> None:
    # A rotated, mirrored and scaled copy in a wider space has the same relations.
    own = features(3)
    basis, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(20, F)))
    student = torch.tensor(own, requires_grad=True)
    loss = relation_loss(student, relations(torch.tensor(7 * own @ basis.T)))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-20)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12


def test_the_order_of_the_clips_matters() -> None:
    own = torch.tensor(features(5))
    assert relation_loss(own, relations(own[:, [1, 0, 2]])) > 0.01


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = (torch.tensor(features(i), requires_grad=True) for i in (0, 1))
    relation_loss(student, relations(teacher)).backward()
    assert student.grad is not None
    assert teacher.grad is None


def zeros(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def one_zero(x: Tensor) -> Tensor:
    return torch.cat((torch.zeros_like(x[:, :1]), x[:, 1:]), 1)


def all_equal(x: Tensor) -> Tensor:
    return x[:, :1].expand_as(x).clone()


def two_equal(x: Tensor) -> Tensor:
    return x[:, [0, 0, 2]]


def collinear(x: Tensor) -> Tensor:
    return x[:, :1] * torch.tensor([1.0, 2.0, -3.0])[None, :, None]


def nearly_equal(x: Tensor) -> Tensor:
    return x[:, :1] + 1e-7 * x


@pytest.mark.parametrize("of", [zeros, one_zero, all_equal, two_equal, collinear, nearly_equal])
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_degenerate_features_give_finite_losses_and_tame_gradients(of: Callable[[Tensor], Tensor], role: str) -> None:
    plain = [torch.tensor(features(i), dtype=torch.float32) for i in (0, 1)]
    student, teacher = (of(plain[0]), plain[1]) if role == "student" else (plain[0], of(plain[1]))
    student.requires_grad_()
    loss = relation_loss(student, relations(teacher))
    loss.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 10  # no division by a rounding error
    assert 0 <= loss.item() <= 4 + 1.5**2


def test_relations_of_degenerate_tuples() -> None:
    x = torch.tensor(features(0), dtype=torch.float32)
    assert (relations(zeros(x)) == 0).all()
    same = relations(all_equal(x))
    torch.testing.assert_close(same[:, :3], torch.ones(B, 3))
    assert (same[:, 3:] == 0).all()
    # At 1, 2 and −3 on a line: distances 1, 4 and 5, the largest possible ones over their mean.
    expected = torch.tensor([1, -1, -1, 0.3, 1.2, 1.5])
    torch.testing.assert_close(relations(collinear(x)), expected.expand(B, 6))
