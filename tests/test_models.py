"""The papers' networks: REFERENCE.md's sizes, torchvision's R3D-18, a plain C3D; and the PCL network around them."""

from __future__ import annotations

import random
from math import prod
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import clips, network
from published_networks import base_network
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.video import r3d_18

from kdtune.config.network import NetworkConfig, Own
from kdtune.config.sections import ClipConfig
from kdtune.config.trial import TrialConfig
from kdtune.models.backbones import build_backbone
from kdtune.models.heads import build_network

torch.set_num_threads(1)

# REFERENCE.md, "The network": million parameters, GMAC for clips of 10 and of 16 frames at 112².
SIZES = {
    ("r3d", 10): (14.4, 13.1, 19.9),
    ("r21d", 10): (14.4, 13.9, 21.4),
    ("c3d", 10): (27.7, 22.9, 38.5),
    ("r3d", 18): (33.2, 27.0, 40.7),
}


def randomised(module: nn.Module) -> nn.Module:
    """Give batch normalisation random statistics and weights, so that a layer left out is noticed."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm3d):
            for tensor, low in ((part.running_mean, -0.5), (part.running_var, 0.5), (part.weight.data, 0.5)):
                assert tensor is not None
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return module


@pytest.mark.parametrize(("backbone", "depth"), SIZES)
def test_sizes_are_the_papers(backbone: str, depth: int) -> None:
    million, *gmacs = SIZES[backbone, depth]
    with torch.device("meta"):
        net = network(backbone, depth)
        assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == million
        for frames, gmac in zip((10, 16), gmacs, strict=True):
            with FlopCounterMode(display=False) as counter:
                out = net(torch.empty(1, 3, frames, 112, 112))
            assert out.shape == (1, 512)
            # The counter counts a multiplication and an addition as two operations, and convolutions without their
            # biases.
            assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(gmac, abs=0.08)


@pytest.mark.parametrize("training", [False, True])
def test_r3d_18_is_torchvisions(training: bool) -> None:
    theirs = r3d_18(weights=None)
    theirs.fc = nn.Identity()
    randomised(theirs)
    ours = network("r3d", 18)
    ours.load_state_dict(theirs.state_dict())
    x = clips(2, 3, 8, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x), rtol=1e-4, atol=1e-5)


def variances(net: nn.Module) -> list[tuple[tuple[int, ...], float, float]]:
    """Return shape, variance and largest weight of each convolution, in an order that does not depend on names."""
    weights = [part.weight.detach() for part in net.modules() if isinstance(part, nn.Conv3d)]
    return sorted((tuple(w.shape), float(w.var(correction=0)), float(w.abs().max())) for w in weights)


@pytest.mark.parametrize("backbone", ["r3d", "r21d", "c3d"])
def test_initial_weights_are_distributed_as_pcls(backbone: str) -> None:
    torch.manual_seed(1)
    theirs = variances(base_network(backbone, width=16))
    ours = variances(network(backbone, width=16, seed=0))
    assert [shape for shape, *_ in ours] == [shape for shape, *_ in theirs]
    for (shape, variance, largest), (_, theirs_variance, _) in zip(ours, theirs, strict=True):
        # PyTorch's default: uniform within ±1/√fan_in. Five standard errors of a uniform sample's variance.
        fan_in, tolerance = prod(shape[1:]), 5 * (0.8 / prod(shape)) ** 0.5
        assert largest <= fan_in**-0.5
        assert variance == pytest.approx(1 / (3 * fan_in), rel=tolerance)
        assert theirs_variance == pytest.approx(1 / (3 * fan_in), rel=tolerance)


@pytest.mark.parametrize("backbone", ["r3d", "r21d", "c3d"])
def test_kaiming_is_hes_normal_by_fan_out(backbone: str) -> None:
    config = NetworkConfig(backbone=backbone, width=16, init="kaiming")
    torch.manual_seed(0)
    for shape, variance, _ in variances(build_backbone(config, ClipConfig(frames=8, size=16))):
        fan_out = shape[0] * prod(shape[2:])
        assert variance == pytest.approx(2 / fan_out, rel=5 * (2 / prod(shape)) ** 0.5)


def test_r3d_10_has_one_block_of_r3d_18_a_stage() -> None:
    deep, flat = network("r3d", 18).state_dict(), network("r3d", 10).state_dict()
    shapes = {name: value.shape for name, value in deep.items() if ".1." not in name or not name.startswith("layer")}
    first_blocks = {name: s for name, s in shapes.items() if not name.startswith("layer") or name.split(".")[1] == "0"}
    first_blocks |= {n: v.shape for n, v in deep.items() if n.startswith("layer") and n.split(".")[1] == "0"}
    assert {name: value.shape for name, value in flat.items()} == first_blocks


def test_r21d_factorises_every_convolution_at_its_cost() -> None:
    full, factorised = network("r3d"), network("r21d")
    for stage in range(1, 5):
        for name in ("conv1", "conv2"):
            conv = full.get_submodule(f"layer{stage}.0.{name}.0")
            space, time = (factorised.get_submodule(f"layer{stage}.0.{name}.0.{i}") for i in (0, 3))
            assert (space.kernel_size, time.kernel_size) == ((1, 3, 3), (3, 1, 1))
            assert [a * b for a, b in zip(space.stride, time.stride, strict=True)] == list(conv.stride)
            assert space.bias is None
            assert time.bias is None
            cost = space.weight.numel() + time.weight.numel()
            step = 9 * space.in_channels + 3 * time.out_channels  # the cost of one more channel in between
            assert conv.weight.numel() - step < cost <= conv.weight.numel()


def test_r21d_factorises_its_shortcuts() -> None:
    net = network("r21d")
    for stage, (inputs, outputs) in enumerate(((64, 128), (128, 256), (256, 512)), start=2):
        (space, norm, relu, time), last = net.get_submodule(f"layer{stage}.0.downsample")
        assert [type(part) for part in (norm, relu, last)] == [nn.BatchNorm3d, nn.ReLU, nn.BatchNorm3d]
        assert (space.stride, time.stride) == ((1, 2, 2), (2, 1, 1))
        middle = inputs * outputs // (inputs + outputs)
        assert (norm.num_features, last.num_features) == (middle, outputs)
        assert space.weight.shape == (middle, inputs, 1, 1, 1)
        assert time.weight.shape == (outputs, middle, 1, 1, 1)
        assert space.bias is None
        assert time.bias is None
    assert net.get_submodule("layer1.0").downsample is None


def test_c3d_is_eight_convolutions_and_four_pools() -> None:
    net = randomised(network("c3d", width=4)).eval()
    convs = [m for m in net.modules() if isinstance(m, nn.Conv3d)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm3d)]
    assert [conv.out_channels for conv in convs] == [4, 8, 16, 16, 32, 32, 32, 32]
    x = reference = clips(2, 3, 10, 32, 32)
    pools = {0: (1, 2, 2), 1: (2, 2, 2), 3: (2, 2, 2), 5: (2, 2, 2)}
    for i, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        x = F.conv3d(x, conv.weight, conv.bias, padding=1)
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
        if i in pools:
            x = F.max_pool3d(x, pools[i], pools[i])
    with torch.no_grad():
        torch.testing.assert_close(net(reference), x.mean((2, 3, 4)))


@pytest.mark.parametrize("backbone", get_args(Own))
@pytest.mark.parametrize("width", [4, 8])
def test_width_scales_all_channels(backbone: str, width: int) -> None:
    net = network(backbone, width=width).eval()
    assert NetworkConfig(backbone=backbone, width=width).features == 8 * width
    assert NetworkConfig(backbone=backbone).features == 512
    assert net(clips(2, 3, 8, 32, 32)).shape == (2, 8 * width)
    sizes = {w: sum(p.numel() for p in network(backbone, width=w).parameters()) for w in (width, 2 * width)}
    assert 3 < sizes[2 * width] / sizes[width] < 4


# ---- the PCL network -------------------------------------------------------------------------------------------------


def config(**raw: object) -> TrialConfig:
    return TrialConfig.model_validate({"student": {"width": 4}, "loss": {"projection": 16}, **raw})


def test_weights_depend_on_the_seed_and_the_architecture_alone() -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    a = build_network(config(seed=3)).state_dict()
    after = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    torch.manual_seed(12)
    other = {"epochs": 5, "optimizer": {"lr": 0.5}, "teacher": {"student": {"backbone": "c3d"}}}
    b = build_network(config(seed=3, **other)).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    c = build_network(config(seed=4)).state_dict()
    random_ones = [name for name in a if name.endswith("weight") and a[name].ndim > 1]
    assert len(random_ones) > 5
    assert not any(torch.equal(a[name], c[name]) for name in random_ones)


def test_three_passes_update_batch_statistics_thrice() -> None:
    net = build_network(config())
    net.features(clips(2, 3, 3, 8, 16, 16))
    counts = {int(v) for name, v in net.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {3}


def test_the_head_sees_all_clips_and_the_projector_the_outer_two() -> None:
    net = build_network(config()).eval()
    x = clips(2, 3, 3, 8, 16, 16)
    with torch.no_grad():
        features = net.features(x)
        assert features.shape == (2, 3, 32)
        for c in range(3):
            torch.testing.assert_close(features[:, c], net.backbone(x[:, c]))
        logits, views = net.logits(features), net.projections(features)
        weight, bias = net.head.weight, net.head.bias
        expected = torch.cat([features[:, c] for c in range(3)], 1) @ weight.T + bias
        torch.testing.assert_close(logits, expected)
        assert logits.shape == (2, 5)
        first, _, last = net.projector
        for view, c in zip(views, (0, 2), strict=True):
            hidden = (features[:, c] @ first.weight.T + first.bias).clamp_min(0)
            plain = hidden @ last.weight.T + last.bias
            torch.testing.assert_close(view, plain / plain.norm(dim=1, keepdim=True))
            assert view.shape == (2, 16)
