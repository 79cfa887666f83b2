"""The loss's terms against NumPy in double precision, from KD's equations and the definition of the NCE softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import chi_square

from kdtune.losses.contrast import MemoryBank, in_batch_loss
from kdtune.losses.distill import distillation_loss

torch.set_num_threads(1)
B, CLASSES = 7, 5


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def logits(seed: int, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=(B, CLASSES))


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# ---- distillation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0, 8.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_distillation_is_tau_squared_kl_averaged_over_the_batch(
    tau: float, dtype: torch.dtype, tolerance: float
) -> None:
    s, t = logits(0), logits(1)
    p, q = softmax(t / tau), softmax(s / tau)
    expected = tau**2 * (p * (np.log(p) - np.log(q))).sum() / B
    student = torch.tensor(s, dtype=dtype, requires_grad=True)
    loss = distillation_loss(student, torch.tensor(t, dtype=dtype), tau)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=tolerance)
    loss.backward()
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), tau * (q - p) / B, rtol=10 * tolerance, atol=tolerance)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = (torch.tensor(logits(i), requires_grad=True) for i in (0, 1))
    distillation_loss(student, teacher, 4.0).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_a_high_temperature_compares_the_logits_themselves() -> None:
    # Hinton et al., Eq. 4: for tau much larger than the logits the gradient is their difference over the classes.
    s, t = (x - x.mean(1, keepdims=True) for x in (logits(0), logits(1)))
    student = torch.tensor(s, requires_grad=True)
    loss = distillation_loss(student, torch.tensor(t), 1e4)
    loss.backward()
    assert loss.item() == pytest.approx(((s - t) ** 2).sum() / 2 / CLASSES / B, rel=2e-3)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), (s - t) / CLASSES / B, atol=2e-3)


def test_distillation_is_nothing_where_both_agree_and_stays_finite_where_they_cannot() -> None:
    s = torch.tensor(logits(0))
    assert float(distillation_loss(s, s + 5.0, 4.0)) == pytest.approx(0, abs=1e-12)
    sure = torch.tensor([[1000.0, 0, 0, 0, 0]])
    loss = distillation_loss(sure.flip(1), sure, 1.0)
    assert loss.item() == pytest.approx(1000.0)
    # Relative entropy is not symmetric: KL(teacher ‖ student), not the reverse.
    assert distillation_loss(s, s * 2, 1.0).item() != pytest.approx(distillation_loss(s * 2, s, 1.0).item(), rel=1e-3)


# ---- contrast --------------------------------------------------------------------------------------------------------


def cross_entropy_of_the_first(scores: np.ndarray) -> float:
    return float(-np.log(softmax(scores)[:, 0]).mean())


def test_in_batch_contrast_is_cross_entropy_over_the_other_views() -> None:
    rng = np.random.default_rng(0)
    a, b = unit(rng, B, 16), unit(rng, B, 16)
    expected = 0.0
    for one, other in ((a, b), (b, a)):
        for i in range(B):
            scores = np.array([one[i] @ other[j] for j in [i, *(k for k in range(B) if k != i)]]) / 0.07
            expected += cross_entropy_of_the_first(scores[None]) / B
    first, last = (torch.tensor(x, requires_grad=True) for x in (a, b))
    loss = in_batch_loss(first, last, 0.07)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    loss.backward()
    # The cross-entropy's gradient at the scores is probability − target; each score is a product of two views.
    on_scores = (softmax(a @ b.T / 0.07) - np.eye(B)) / B / 0.07 + (softmax(b @ a.T / 0.07) - np.eye(B)).T / B / 0.07
    assert first.grad is not None
    assert last.grad is not None
    np.testing.assert_allclose(first.grad.numpy(), on_scores @ b, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(last.grad.numpy(), on_scores.T @ a, rtol=1e-10, atol=1e-12)


def test_in_batch_contrast_is_least_where_each_view_is_its_videos_other_one() -> None:
    views = torch.eye(B, dtype=torch.float64)
    sure = 2 * np.log(1 + (B - 1) * np.exp(-1 / 0.07))  # all other products are 0
    assert float(in_batch_loss(views, views, 0.07)) == pytest.approx(sure)
    assert float(in_batch_loss(views, views.roll(1, 0), 0.07)) == pytest.approx(2 / 0.07, rel=1e-5)


@pytest.mark.parametrize("momentum", [0.5, 0.0, 0.9])
def test_the_memory_bank_over_several_steps(momentum: float) -> None:
    videos, dimension, negatives = 30, 16, 12
    rng = np.random.default_rng(0)
    bank = MemoryBank(videos, dimension, negatives, momentum, temperature=0.07, seed=3).double()
    memory = {"first": bank.first.numpy().copy(), "last": bank.last.numpy().copy()}
    for step in range(5):
        samples = rng.permutation(videos)[:B]
        views = {"first": unit(rng, B, dimension), "last": unit(rng, B, dimension)}
        drawn = bank.draw_negatives(step, samples)
        expected, slopes = 0.0, {}
        # Each view against the other view's memory: first its own video's entry, then the negatives.
        for view, other in (("first", "last"), ("last", "first")):
            entries = [[samples[i], *drawn[i].tolist()] for i in range(B)]
            scores = np.array([memory[other][entries[i]] @ views[view][i] for i in range(B)]) / 0.07
            expected += cross_entropy_of_the_first(scores)
            off = softmax(scores) - np.eye(1, negatives + 1)  # probability − target
            slopes[view] = np.array([off[i] @ memory[other][entries[i]] for i in range(B)]) / 0.07 / B
        first, last = (torch.tensor(views[name], requires_grad=True) for name in ("first", "last"))
        loss = bank.loss(first, last, torch.from_numpy(samples), drawn)
        assert loss.item() == pytest.approx(expected, rel=1e-10)
        loss.backward()
        for name, view in (("first", first), ("last", last)):
            assert view.grad is not None
            np.testing.assert_allclose(view.grad.numpy(), slopes[name], rtol=1e-9, atol=1e-12)
            # Only `update` writes to the bank.
            np.testing.assert_allclose(getattr(bank, name).numpy(), memory[name], rtol=1e-12, atol=1e-14)
        bank.update(first, last, torch.from_numpy(samples))
        for name in memory:
            for i, sample in enumerate(samples):
                mixed = momentum * memory[name][sample] + (1 - momentum) * views[name][i]
                memory[name][sample] = mixed / np.linalg.norm(mixed)
            np.testing.assert_allclose(getattr(bank, name).numpy(), memory[name], rtol=1e-12, atol=1e-14)
            assert not getattr(bank, name).requires_grad


def test_a_fresh_bank_depends_on_its_seed_and_has_entries_of_about_unit_length() -> None:
    banks = [MemoryBank(200, 128, 8, 0.5, 0.07, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(banks[0].first, banks[1].first)
    assert not torch.equal(banks[0].first, banks[2].first)
    assert not torch.equal(banks[0].first, banks[0].last)
    assert banks[0].first.norm(dim=1).mean() == pytest.approx(1.0, abs=0.02)
    assert banks[0].first.abs().max() <= (3 / 128) ** 0.5
    assert set(banks[0].state_dict()) == {"first", "last"}  # so that a checkpoint holds it


def test_negatives_are_uniform_and_a_samples_own() -> None:
    videos, negatives = 20, 500
    bank = MemoryBank(videos, 8, negatives, 0.5, 0.07, seed=0)
    drawn = bank.draw_negatives(1, np.arange(20))
    assert drawn.shape == (20, negatives)
    counts = np.bincount(drawn.flatten().numpy(), minlength=videos)
    assert len(counts) == videos
    assert 0.34 < chi_square(counts, np.full(videos, 500.0)) < 2.3  # 0.1 % and 99.9 % points of χ²/19
    assert torch.equal(bank.draw_negatives(1, np.array([7, 2])), drawn[[7, 2]])
    assert not torch.equal(bank.draw_negatives(2, np.arange(20)), drawn)
    assert len({row.numpy().tobytes() for row in drawn}) == 20
