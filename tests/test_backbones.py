"""Every backbone, ours and torchvision's: the smallest clips, repeatable gradients, either memory layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from networks import clips, network
from pydantic import ValidationError
from torch import nn

from kdtune.config.network import SMALLEST, NetworkConfig, Own, Torchvision
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network

torch.set_num_threads(1)

#: Networks that take seconds even for the smallest clips.
LARGE = ("mc3_18", "r2plus1d_18", "mvit_v1_b", "swin3d_s", "swin3d_b")


EVERY = [
    pytest.param(name, marks=pytest.mark.slow if name in LARGE else ())
    for name in (*get_args(Own), *get_args(Torchvision))
]


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def smallest(backbone: str) -> tuple[int, int]:
    """Return the smallest clip that the network accepts and a trial may have, apart from the tuple's transforms."""
    frames, size = SMALLEST.get(backbone, (1, 1))
    return max(frames, 4), max(size, 16)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("backbone", EVERY)
def test_a_step_on_the_smallest_clips_repeats_bit_for_bit_and_draws_nothing(backbone: str) -> None:
    frames, size = smallest(backbone)
    x = clips(2, 3, frames, size, size)
    runs = []
    for run in range(2):
        net = network(backbone, width=4, shape=(frames, size), seed=0).train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        torch.manual_seed(run)
        features = net(x)
        assert features.shape == (2, NetworkConfig(backbone=backbone, width=4).features)
        features.square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
        runs.append(net.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.parametrize(("backbone", "shape"), [("c3d", (7, 16)), ("c3d", (8, 14)), ("s3d", (8, 16))])
def test_no_smaller_clips_fit(backbone: str, shape: tuple[int, int]) -> None:
    net = network(backbone, width=4, shape=shape)
    with pytest.raises(RuntimeError, match="too small"):
        net(clips(2, 3, shape[0], shape[1], shape[1]))


def test_a_trial_with_smaller_clips_is_refused() -> None:
    raw = {"student": {"backbone": "s3d"}, "clip": {"size": 16}}
    with pytest.raises(ValidationError, match=r"s3d needs clip\.frames >= 8 and clip\.size >= 18"):
        TrialConfig.model_validate(raw)


def test_a_narrow_tdn_light_in_channels_last_is_refused() -> None:
    raw = {"student": {"backbone": "tdn_light", "width": 4}, "memory_format": "channels_last"}
    with pytest.raises(
        ValidationError, match=r"tdn_light needs student\.width >= 8 where memory_format is channels_last"
    ):
        TrialConfig.model_validate(raw)
    for fits in ({"memory_format": "contiguous"}, {"student": {"backbone": "tdn_light", "width": 8}}):
        TrialConfig.model_validate({**raw, **fits})


@pytest.mark.parametrize("backbone", EVERY)
def test_gradients_are_deterministic_on_cuda(backbone: str) -> None:
    """On CUDA, torch has no deterministic gradients for some pools and interpolations; no backbone uses these.

    They are average pools, linear interpolation and, in older versions, max-pools. Whole averages are sums, not pools.
    test_cuda.py tests the gradients themselves.
    """
    net = network(backbone, width=4, shape=(8, 18))
    assert not [name for name, part in net.named_modules() if type(part) is nn.MaxPool3d]
    todo, seen = [net(clips(2, 3, 8, 18, 18)).grad_fn], set()
    while todo:
        step = todo.pop()
        if step is not None and step not in seen:
            seen.add(step)
            todo += [before for before, _ in step.next_functions]
    names = {step.name() for step in seen}
    assert len(names) > 3
    assert not {name for name in names if "AvgPool" in name or "Upsample" in name}


@pytest.mark.parametrize("backbone", EVERY)
def test_channels_last_gives_the_same_features(backbone: str) -> None:
    x = clips(2, 1, 3, 8, 18, 18)
    towards = clips(2, 1, NetworkConfig(backbone=backbone, width=8).features)
    runs = []
    for layout in ("contiguous", "channels_last"):
        raw = {"student": {"backbone": backbone, "width": 8}, "clip": {"frames": 8, "size": 18}}
        # In evaluation mode: batch statistics over two values would magnify rounding.
        net = build_network(TrialConfig.model_validate({**raw, "memory_format": layout})).eval()
        features = net.features(x)
        (features * towards).sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in net.backbone.parameters() if p.grad is not None])
        runs.append((features.detach(), gradients))
    for plain, last in zip(*runs, strict=True):
        # Rounding can switch a ReLU near 0.
        assert (plain - last).norm() < 1e-2 * plain.norm()
