"""The 2D network with temporal differences: no 3D convolution, its size, and how it uses a clip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdtune.config.network import NetworkConfig
from kdtune.config.sections import ClipConfig
from kdtune.models.backbones import build_backbone
from kdtune.models.tdn_light import LightTdn, MotionExcitation

torch.set_num_threads(1)


def network(init: str | None = None) -> nn.Module:
    torch.manual_seed(0)
    return build_backbone(NetworkConfig(backbone="tdn_light", width=8, init=init), ClipConfig(frames=8, size=16))


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# Blocks per stage, width: million parameters, GMAC for clips of 10 frames at 112².
SIZES = {(1, 64): (4.98, 8.41), (2, 64): (11.25, 17.66), (1, 32): (1.25, 2.18)}


@pytest.mark.parametrize(("blocks", "width"), SIZES)
def test_size(blocks: int, width: int) -> None:
    million, gmac = SIZES[blocks, width]
    with torch.device("meta"):
        net = LightTdn(blocks, width)
        with FlopCounterMode(display=False) as counter:
            assert net(torch.empty(1, 3, 10, 112, 112)).shape == (1, 8 * width)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(million, abs=0.005)
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(gmac, abs=0.005)


def test_nothing_in_it_is_three_dimensional() -> None:
    net = network()
    layers = {type(part) for part in net.modules() if not list(part.children())}
    assert layers == {nn.Conv2d, nn.BatchNorm2d, nn.ReLU}
    assert all(p.ndim in (1, 2, 4) for p in net.parameters())


@pytest.mark.parametrize(("frames", "size"), [(2, 16), (3, 18), (10, 30)])
def test_takes_any_clip(frames: int, size: int) -> None:
    net = network().train()
    net(randn(2, 3, frames, size, size)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("init", ["torch", "kaiming"])
def test_smoothing_starts_as_the_mean_of_its_window(init: str) -> None:
    for part in network(init).modules():
        if isinstance(part, MotionExcitation):
            assert (part.smooth.weight == 1 / 9).all()


def test_differences_are_those_of_neighbours_in_one_clip() -> None:
    torch.manual_seed(0)
    motion = MotionExcitation(8).eval()
    x = randn(2 * 3, 8, 4, 4)
    with torch.no_grad():
        a, b, c = motion.squeeze(x).unflatten(0, (2, 3)).unbind(1)
        nothing = torch.zeros_like(a)
        following = torch.stack((b - a, c - b, nothing), dim=1)
        preceding = torch.stack((nothing, a - b, b - c), dim=1)
        differences = motion.differences(x, frames=3)
        torch.testing.assert_close(differences, torch.cat((following, preceding), dim=2).flatten(0, 1))
        gate = torch.sigmoid(motion.expand(motion.smooth(differences)))
        torch.testing.assert_close(motion(x, frames=3), x + x * (gate - 0.5))


def test_a_still_clip_has_no_differences_and_is_seen_as_one_frame() -> None:
    net = network().eval()
    seen = []
    for part in net.modules():
        if isinstance(part, MotionExcitation):
            part.register_forward_hook(lambda part, inputs, _: seen.append(part.differences(*inputs)))
    frame = randn(2, 3, 1, 32, 32)
    with torch.no_grad():
        still = net(frame.expand(-1, -1, 8, -1, -1))
        assert len(seen) == 4
        assert not any(differences.any() for differences in seen)
        torch.testing.assert_close(still, net(frame))


@pytest.mark.parametrize("order", [[7, 6, 5, 4, 3, 2, 1, 0], [2, 3, 0, 1, 4, 5, 6, 7]])
def test_the_order_of_frames_changes_the_features(order: list[int]) -> None:
    net = network().eval()
    x = randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        features, others = net(x), net(x[:, :, order])
        # Far more than rounding, and without the differences nothing at all.
        assert (features - others).norm() > 1e-2 * features.norm()
        for part in net.modules():
            if isinstance(part, MotionExcitation):
                part.expand.weight.zero_()
        torch.testing.assert_close(net(x), net(x[:, :, order]))


def test_it_learns_which_way_time_runs() -> None:
    """A square moves right, or the same frames run backwards: only the differences distinguish them."""
    generator = torch.Generator().manual_seed(1)
    net, head = network(), nn.Linear(64, 2)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.02, momentum=0.9)
    right = 0
    for step in range(120):
        clips = torch.rand(8, 3, 1, 16, 16, generator=generator).repeat(1, 1, 6, 1, 1)
        for frame in range(6):
            clips[:, :, frame, 6:10, 2 * frame : 2 * frame + 4] = 3.0
        backwards = torch.randint(2, (8,), generator=generator)
        clips = torch.where(backwards.view(-1, 1, 1, 1, 1) == 1, clips.flip(2), clips)
        logits = head(net(clips))
        right += int((logits.argmax(1) == backwards).sum()) if step >= 100 else 0
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, backwards).backward()
        optimizer.step()
    assert right > 0.9 * 20 * 8
