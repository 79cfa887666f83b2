"""Feature distillation against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdtune.losses.features import FeatureProjector, feature_loss

torch.set_num_threads(1)
B, CLIPS, STUDENT, TEACHER = 4, 3, 6, 9


def normal(seed: int, size: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(B, CLIPS, size))


@pytest.mark.parametrize("scale", [1.0, 0.01, 300.0])
def test_the_loss_is_two_less_twice_the_cosine(scale: float) -> None:
    own, other = normal(0, TEACHER), normal(1, TEACHER, scale)
    lengths = {name: np.linalg.norm(x, axis=-1, keepdims=True) for name, x in (("own", own), ("other", other))}
    cosines = (own * other).sum(-1, keepdims=True) / lengths["own"] / lengths["other"]
    projected = torch.tensor(own, requires_grad=True)
    loss = feature_loss(projected, torch.tensor(other))
    assert loss.shape == ()
    assert loss.item() == pytest.approx((2 - 2 * cosines).mean(), rel=1e-12)
    loss.backward()
    # d(2 − 2 cos)/dx = −2 (v − cos · u) / ‖x‖ with unit vectors u of x and v of the teacher, over B · n clips.
    expected = -2 * (other / lengths["other"] - cosines * own / lengths["own"]) / lengths["own"] / (B * CLIPS)
    assert projected.grad is not None
    np.testing.assert_allclose(projected.grad.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_loss_goes_from_0_to_4_whatever_the_lengths() -> None:
    teacher = torch.tensor(normal(1, TEACHER))
    assert float(feature_loss(3 * teacher, teacher)) == pytest.approx(0, abs=1e-15)
    assert float(feature_loss(-teacher, teacher)) == pytest.approx(4)


def test_the_teacher_gets_no_gradient() -> None:
    projected, teacher = (torch.tensor(normal(i, TEACHER), requires_grad=True) for i in (0, 1))
    feature_loss(projected, teacher).backward()
    assert projected.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("zero", ["projected", "teacher", "both"])
def test_zeros_give_a_finite_loss_and_no_gradient(zero: str) -> None:
    projected, teacher = (torch.tensor(normal(i, TEACHER), dtype=torch.float32) for i in (0, 1))
    projected[0] = 0 if zero != "teacher" else projected[0]
    teacher[0] = 0 if zero != "projected" else teacher[0]
    projected.requires_grad_()
    loss = feature_loss(projected, teacher)
    loss.backward()
    assert projected.grad is not None
    assert projected.grad.isfinite().all()
    assert projected.grad[0].abs().max() < 1e-6
    rest = feature_loss(projected[1:], teacher[1:]).item() * (B - 1)
    assert loss.item() == pytest.approx((rest + (zero != "both")) / B, rel=1e-6)


def test_the_projector_is_one_linear_layer_between_the_widths() -> None:
    torch.manual_seed(0)
    projector = FeatureProjector(STUDENT, TEACHER).double()
    given = normal(2, STUDENT)
    out = projector(torch.tensor(given))
    state = {name: value.numpy() for name, value in projector.state_dict().items()}
    assert {name: value.shape for name, value in state.items()} == {
        "linear.weight": (TEACHER, STUDENT),
        "linear.bias": (TEACHER,),
    }
    assert out.shape == (B, CLIPS, TEACHER)
    for i, c, k in np.ndindex(B, CLIPS, TEACHER):
        expected = (state["linear.weight"][k] * given[i, c]).sum() + state["linear.bias"][k]
        assert out[i, c, k].item() == pytest.approx(expected, rel=1e-10)


def test_a_student_of_another_width_learns_a_teachers_features() -> None:
    torch.manual_seed(0)
    student = torch.randn(B, CLIPS, STUDENT)
    teacher = student @ torch.randn(STUDENT, TEACHER)
    projector = FeatureProjector(STUDENT, TEACHER)
    optimizer = torch.optim.SGD(projector.parameters(), lr=1.0)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = feature_loss(projector(student), teacher)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 0.01
