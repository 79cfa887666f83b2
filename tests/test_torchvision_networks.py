"""torchvision's networks as backbones: names, shapes, published sizes, features, and no additional random draws."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model, get_model_weights
from torchvision.ops import StochasticDepth

from kdtune.config.network import NetworkConfig, Torchvision
from kdtune.config.sections import ClipConfig
from kdtune.models.backbones import build_backbone

torch.set_num_threads(1)

NAMES = get_args(Torchvision)
MVITS = ("mvit_v1_b", "mvit_v2_s")
CLASSIFIERS = {"fc", "classifier", "head"}


def network(name: str, frames: int = 16, size: int = 224) -> nn.Module:
    return build_backbone(NetworkConfig(backbone=name), ClipConfig(frames=frames, size=size))


def clips(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def without_classifier(name: str) -> dict[str, Tensor]:
    return {key: v for key, v in get_model(name).state_dict().items() if key.split(".")[0] not in CLASSIFIERS}


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_torchvisions_without_the_classifier(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = network(name).state_dict(), without_classifier(name)
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_those_that_torchvision_publishes(name: str) -> None:
    published = get_model_weights(name).DEFAULT.meta
    features = NetworkConfig(backbone=name).features
    size = 112 if name.endswith("_18") else 224
    with torch.device("meta"):
        net = network(name, 16, size)
        with FlopCounterMode(display=False) as counter:
            assert net(torch.empty(1, 3, 16, size, size)).shape == (1, features)
    parameters = sum(p.numel() for p in net.parameters())
    assert parameters == published["num_params"] - 400 * (features + 1)
    # Their counts include the classifier of Kinetics-400: less than 0.001.
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(published["_ops"], abs=0.002)


@pytest.mark.parametrize(
    "name", ["r3d_18", "swin3d_t", *(pytest.param(mvit, marks=pytest.mark.slow) for mvit in MVITS)]
)
def test_features_are_what_torchvisions_classifier_sees(name: str) -> None:
    frames, size = (16, 224) if name in MVITS else (8, 32)
    theirs, seen = get_model(name).eval(), []
    head = theirs.fc if name == "r3d_18" else theirs.head
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ours = network(name, frames, size).eval()
    ours.load_state_dict({key: v for key, v in theirs.state_dict().items() if key in ours.state_dict()})
    x = clips(1, 3, frames, size, size)
    with torch.no_grad():
        theirs(x)
        torch.testing.assert_close(ours(x), seen[0])


def test_s3d_is_torchvisions_where_its_average_is_global() -> None:
    theirs = get_model("s3d").eval()
    theirs.classifier = nn.Identity()
    ours = network("s3d").eval()
    ours.load_state_dict(theirs.state_dict())
    x = clips(1, 3, 16, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_s3d_forgets_its_initial_statistics_as_fast_as_the_others() -> None:
    momenta = {part.momentum for part in network("s3d").modules() if isinstance(part, nn.BatchNorm3d)}
    assert momenta == {nn.BatchNorm3d(1).momentum}


@pytest.mark.parametrize("name", NAMES)
def test_dropout_and_stochastic_depth_are_off(name: str) -> None:
    with torch.device("meta"):
        parts = list(network(name).modules())
    assert all(part.p == 0 for part in parts if isinstance(part, nn.Dropout | StochasticDepth))


@pytest.mark.parametrize("name", MVITS)
@pytest.mark.parametrize(("frames", "size"), [(7, 36), (10, 112), (8, 50)])
def test_mvit_has_a_position_for_each_feature(
    name: str, frames: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interpolate(*_: object, **__: object) -> None:
        raise AssertionError("a table of positions has another length than its features")

    monkeypatch.setattr(nn.functional, "interpolate", interpolate)
    with torch.device("meta"):
        net = network(name, frames, size)
        assert net(torch.empty(1, 3, frames, size, size)).shape == (1, 768)
