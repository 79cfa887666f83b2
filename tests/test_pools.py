"""Our max-pool against torch's: the same bits forward and backward, and nothing that depends on the order of threads.

On the CPU the module uses torch's pooling, so the CUDA code is called directly here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import get_model

from kdtune.config.network import NetworkConfig
from kdtune.config.sections import ClipConfig
from kdtune.models.backbones import build_backbone
from kdtune.models.pools import MaxPool3d, OrderedMaxPool3d, Triple, replace_max_pools

torch.set_num_threads(1)

#: Frames, height and width of the input; kernel, stride and padding.
CASES = {
    "C3D": ((4, 8, 6), (2, 2, 2), (2, 2, 2), (0, 0, 0)),
    "C3D's first": ((3, 8, 6), (1, 2, 2), (1, 2, 2), (0, 0, 0)),
    "a remainder is left out": ((5, 7, 9), (2, 2, 2), (2, 2, 2), (0, 0, 0)),
    "S3D's branches": ((5, 6, 7), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    "S3D's and MViT's space": ((4, 7, 8), (1, 3, 3), (1, 2, 2), (0, 1, 1)),
    "S3D's halving": ((5, 7, 8), (3, 3, 3), (2, 2, 2), (1, 1, 1)),
    "padding on every side": ((2, 1, 2), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    "gaps between the windows": ((7, 9, 8), (2, 1, 2), (3, 2, 4), (0, 0, 1)),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)

Case = tuple[Triple, Triple, Triple, Triple]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pooled(pool: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output, and the input's gradient for random gradients of the output."""
    x = x.detach().requires_grad_()
    y = pool(x)
    (gradient,) = torch.autograd.grad(y, x, random(*y.shape, seed=1).to(y))
    return y.detach(), gradient


def ours(case: Case) -> Any:
    return lambda x: OrderedMaxPool3d.apply(x, *case[1:])


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Compare bits, including the sign of zero and NaN."""
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    """Raise for operations without a deterministic algorithm, as in every trial."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


# ---- the pooling itself ----------------------------------------------------------------------------------------------


@EVERY_CASE
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("ties", [False, True])
def test_values_and_gradients_have_the_bits_of_torchs(
    case: Case, dtype: torch.dtype, layout: torch.memory_format, ties: bool
) -> None:
    """Where windows overlap, rounding reveals the order in which their gradients are added."""
    x = random(2, 3, *case[0]).to(dtype, memory_format=layout)
    x = x.relu() if ties else x
    y, gradient = pooled(ours(case), x)
    expected_y, expected_gradient = pooled(nn.MaxPool3d(*case[1:]), x)
    assert same_bits(y, expected_y)
    assert same_bits(gradient, expected_gradient)
    assert gradient.is_contiguous(memory_format=layout), "another layout than the input's"


def test_a_position_gets_its_gradients_in_the_order_of_the_windows() -> None:
    """The test above relies on rounding. Here 1 + tiny is 1, so another order would give another sum."""
    tiny = torch.finfo(torch.float32).eps / 2
    x = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 1, 5).requires_grad_()
    y = OrderedMaxPool3d.apply(x, (1, 1, 3), (1, 1, 1), (0, 0, 0))
    (gradient,) = torch.autograd.grad(y, x, torch.tensor([tiny, tiny, 1.0]).view(1, 1, 1, 1, 3))
    assert gradient[..., 2].item() == tiny + tiny + 1.0 > 1.0


def test_of_equal_values_the_first_gets_the_gradient() -> None:
    x = torch.zeros(1, 1, 2, 2, 2)
    _, gradient = pooled(ours(CASES["C3D"]), x)
    assert gradient.flatten().nonzero().flatten().tolist() == [0]


@EVERY_CASE
def test_nan_and_infinity_go_where_torch_lets_them_go(case: Case) -> None:
    x = random(2, 3, *case[0])
    kind = torch.randint(0, 6, x.shape, generator=torch.Generator().manual_seed(2))
    for value, what in ((math.nan, 0), (-math.inf, 1), (-math.inf, 2), (math.inf, 3)):
        x[kind == what] = value
    x[0, 0] = -math.inf  # windows whose values are all at most the initial value of the search
    runs = [pooled(pool, x) for pool in (ours(case), nn.MaxPool3d(*case[1:]))]
    assert all(same_bits(a, b) for a, b in zip(*runs, strict=True))
    # An infinite gradient stays at its position: times zero it would be NaN everywhere else.
    x = random(1, 1, *case[0]).requires_grad_()
    y = OrderedMaxPool3d.apply(x, *case[1:])
    (gradient,) = torch.autograd.grad(y, x, torch.full_like(y, math.inf))
    assert set(gradient.unique().tolist()) <= {0.0, math.inf}


@EVERY_CASE
def test_gradients_are_the_derivatives(case: Case) -> None:
    numel = math.prod(case[0])
    # All values differ by more than gradcheck moves them.
    x = torch.randperm(numel, generator=torch.Generator().manual_seed(0)).view(1, 1, *case[0]).double().requires_grad_()
    assert torch.autograd.gradcheck(ours(case), (x,))


@EVERY_CASE
def test_a_clip_without_a_batch_is_pooled_alike(case: Case) -> None:
    x = random(3, *case[0])
    for a, b in zip(pooled(ours(case), x), pooled(nn.MaxPool3d(*case[1:]), x), strict=True):
        assert same_bits(a, b)


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    case = CASES["S3D's branches"]
    x = random(2, 3, *case[0])
    expected = F.max_pool3d(x, *case[1:])
    assert not ours(case)(x).requires_grad
    for without in (torch.no_grad(), torch.inference_mode()):
        with without:
            y = ours(case)(x.clone().requires_grad_())
            assert not y.requires_grad
            assert same_bits(y, expected)


def test_under_autocast_it_works_in_the_type_that_it_gets() -> None:
    """Like torch's on CUDA; on the CPU, torch's returns to float32."""
    case = CASES["S3D's branches"]
    x = random(2, 3, *case[0]).bfloat16()
    expected = pooled(nn.MaxPool3d(*case[1:]), x)
    with torch.autocast("cpu", torch.bfloat16):
        found = pooled(ours(case), x)
    assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))


class Operations(TorchDispatchMode):
    """Records the operations that are computed within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_the_gradient_scatters_nothing() -> None:
    """Elementwise work on views and copies has one thread per result, so no order matters on any device."""
    case = CASES["S3D's halving"]
    x = random(2, 3, *case[0]).requires_grad_()
    y = ours(case)(x)
    with Operations() as seen:
        torch.autograd.grad(y, x, torch.ones_like(y))
    assert {"eq", "where", "add_"} <= seen.names
    words = ("scatter", "index", "put", "gather", "pool")
    assert not [name for name in seen.names if any(word in name for word in words)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@EVERY_CASE
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_on_cuda_it_repeats_and_has_the_cpus_bits(case: Case, dtype: torch.dtype, layout: torch.memory_format) -> None:
    # Many channels, so that many threads work in parallel.
    x = random(2, 256, *case[0]).relu().to(dtype, memory_format=layout)
    expected = pooled(nn.MaxPool3d(*case[1:]), x)
    for _ in range(2):
        found = pooled(MaxPool3d(*case[1:]), x.cuda())
        assert all(same_bits(a.cpu(), b) for a, b in zip(found, expected, strict=True))


# ---- the module, and networks with it --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "step"), [("cpu", "MaxPool3DWithIndicesBackward0"), ("cuda", "OrderedMaxPool3dBackward")]
)
def test_ours_is_for_cuda_and_torchs_for_the_cpu(device: str, step: str) -> None:
    with FakeTensorMode():  # tensors that only claim to be on a GPU
        y = MaxPool3d(2)(torch.empty(1, 3, 4, 8, 8, device=device, requires_grad=True))
    assert y.grad_fn is not None
    assert y.grad_fn.name() == step
    assert y.shape == (1, 3, 2, 4, 4)


def test_the_module_takes_what_torchs_takes() -> None:
    x = random(1, 2, 6, 7, 8)
    for arguments in ((2,), ((1, 2, 2),), (3, 2, 1), ([1, 3, 3], [1, 2, 2], [0, 1, 1])):
        assert same_bits(MaxPool3d(*arguments)(x), nn.MaxPool3d(*arguments)(x))
        pool = MaxPool3d(*arguments)
        found = OrderedMaxPool3d.apply(x, pool.kernel_size, pool.stride, pool.padding)
        assert same_bits(found, nn.MaxPool3d(*arguments)(x))


@pytest.mark.parametrize("backbone", ["c3d", "s3d", "mvit_v1_b", "mvit_v2_s"])
def test_networks_have_no_other(backbone: str) -> None:
    with torch.device("meta"):
        network = build_backbone(NetworkConfig(backbone=backbone), ClipConfig(frames=8, size=32))
    assert {type(part) for part in network.modules() if isinstance(part, nn.MaxPool3d)} == {MaxPool3d}


def test_replacing_changes_no_name_and_no_value() -> None:
    network = get_model("s3d")
    names = list(network.state_dict())
    before = {name: part for name, part in network.named_modules() if isinstance(part, nn.MaxPool3d)}
    assert len(before) == 13
    replace_max_pools(network)
    assert list(network.state_dict()) == names
    x = random(1, 2, 6, 7, 8)
    for name, pool in before.items():
        after = network.get_submodule(name)
        assert type(after) is MaxPool3d
        assert same_bits(after(x), pool(x))


@pytest.mark.parametrize("setting", [{"dilation": 2}, {"ceil_mode": True}, {"return_indices": True}])
def test_pools_of_another_kind_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="dilation, ceil_mode or return_indices"):
        replace_max_pools(nn.Sequential(nn.ReLU(), nn.Sequential(nn.MaxPool3d(2, **setting))))
