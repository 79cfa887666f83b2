"""What a trial costs, against independent counts: parameters, multiplications, memory."""

from __future__ import annotations

import threading
from math import prod
from typing import Any, get_args

import numpy as np
import pytest
import torch
from helpers import CPU, run_python
from measuring import measured, trial_of
from torch import Tensor, nn

from kdtune.clips.dataset import TrialData
from kdtune.config.metrics import OF_COST
from kdtune.config.network import NetworkConfig, Own
from kdtune.config.sections import ClipConfig
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.train.inputs import training_samples
from kdtune.train.measuring.cost import allocated_on_cpu, clip_cost
from kdtune.train.profile import make_deterministic
from kdtune.train.session import Session

MIB = 2**20


def counted(network: nn.Module, clip: Tensor) -> int:
    """Count multiply-accumulates by the layers' shapes: one output of a layer takes as many as it has weights."""
    total = 0

    def add(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        assert isinstance(layer.weight, Tensor)
        total += out.numel() * prod(layer.weight.shape[1:])

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        network(clip)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("backbone", get_args(Own))
def test_multiplications_are_those_of_the_layers(backbone: str, trial_form: dict[str, Any], prepared: Session) -> None:
    config = trial_of(trial_form, student={"backbone": backbone, "width": 4})
    network = build_network(config)
    clip = torch.zeros(1, 3, 8, 24, 24)
    expected = counted(network.backbone.eval(), clip)
    assert clip_cost(network, clip)[0] == expected
    assert measured(config, prepared)["gmac"] == expected / 1e9


def test_costs_of_c3d_by_hand(trial_form: dict[str, Any], prepared: Session) -> None:
    """Eight 3×3×3 convolutions; pools halve 24² four times, and the 8 frames from the second pool on."""
    w = 4
    channels = [(3, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w), (4 * w, 8 * w), *[(8 * w, 8 * w)] * 3]
    places = [8 * 24**2, 8 * 12**2, *[4 * 6**2] * 2, *[2 * 3**2] * 2, *[1 * 1**2] * 2]
    cost = measured(trial_of(trial_form, student={"backbone": "c3d", "width": w}), prepared)
    assert cost["gmac"] == sum(27 * a * b * n for (a, b), n in zip(channels, places, strict=True)) / 1e9
    convolutions = sum(27 * a * b + b for a, b in channels)
    norms = sum(2 * b for _, b in channels)
    assert cost["parameters"] == convolutions + norms + (3 * 8 * w + 1) * 5


def test_gmac_of_the_papers_r3d() -> None:
    """REFERENCE.md: 13.1 GMAC for 10 frames at 112²."""
    config = TrialConfig(student=NetworkConfig(backbone="r3d"), clip=ClipConfig(frames=10))
    multiplications, seconds = clip_cost(build_network(config), torch.zeros(1, 3, 10, 112, 112))
    assert multiplications / 1e9 == pytest.approx(13.1, abs=0.05)
    assert seconds > 0


def test_allocations_are_counted_to_the_byte_whatever_else_there_is() -> None:
    held = [torch.zeros(20 * MIB, dtype=torch.uint8)]
    stop, allocated = threading.Event(), threading.Event()

    def another() -> None:
        while not stop.is_set():
            torch.zeros(50 * MIB, dtype=torch.uint8)
            allocated.set()

    def run() -> None:
        allocated.clear()
        first = torch.zeros(MIB, dtype=torch.uint8)
        second = torch.zeros(2 * MIB, dtype=torch.uint8)
        del first
        held.clear()  # allocated before: freeing it makes no room in this measurement
        third = torch.zeros(MIB // 2, dtype=torch.uint8)
        assert len(second) + len(third) == 2.5 * MIB
        assert allocated.wait(60)

    thread = threading.Thread(target=another)
    thread.start()
    try:
        assert allocated_on_cpu(run) == 3 * MIB
        assert allocated_on_cpu(run) == 3 * MIB
    finally:
        stop.set()
        thread.join()
    assert allocated_on_cpu(lambda: None) == 0


def test_the_profiler_says_nothing() -> None:
    code = "from kdtune.train.measuring.cost import allocated_on_cpu as of; print(of(lambda: torch.zeros(256)))"
    done = run_python(f"import torch; {code}")
    assert (done.stdout, done.stderr) == ("1024\n", "")


def saved_for_backward(config: TrialConfig, prepared: Session, size: int, device: torch.device = CPU) -> int:
    """Return the bytes that autograd keeps from a forward pass of `size` samples: each tensor once, without weights."""
    make_deterministic(config)
    data = TrialData.of(config, prepared.clips(config))
    network = build_network(config, data.classes).to(device)
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    found: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage  # kept alive, so that no other tensor gets its address
        return tensor

    clips = training_samples(config, data, 1, np.arange(size), device).clips
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.logits(network.features(clips))
    found.pop(clips.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in found.values()) + clips.nbytes


@pytest.mark.parametrize("backbone", ["r3d", "c3d", "tdn_light"])
def test_memory_is_what_a_step_needs(backbone: str, trial_form: dict[str, Any], prepared: Session) -> None:
    student = {"backbone": backbone, "width": 8}
    for batch in (4, 8, 16):
        config = trial_of(trial_form, student=student, loss={"alpha": 0.0}, optimizer={"batch": batch})
        peak = MIB * measured(config, prepared)["peak_memory"]
        weights = 4 * sum(parameter.numel() for parameter in build_network(config).parameters())
        # Weights, their gradients and momentum; the kernels need a little more (seen: 2 to 16 %).
        needed = 3 * weights + saved_for_backward(config, prepared, batch)
        assert needed < peak < 1.2 * needed


def test_memory_counts_the_bank_its_negatives_and_the_largest_batch(
    trial_form: dict[str, Any], prepared: Session
) -> None:
    def peak(**sections: Any) -> float:
        return MIB * measured(trial_of(trial_form, **sections), prepared)["peak_memory"]

    more = peak(loss={"negatives": 2000}) - peak(loss={"negatives": 1000})
    entries = 2 * 16 * 1000 * 128 * 4  # of either view's bank, for each of 16 samples; beside them, which they are
    assert entries < more < 1.05 * entries
    data = TrialData.of(trial_of(trial_form), prepared.clips(trial_of(trial_form)))
    assert peak(optimizer={"batch": 1000}) == peak(optimizer={"batch": data.size})
    # A last batch of one is merged into the one before.
    assert peak(optimizer={"batch": data.size - 1}) == peak(optimizer={"batch": data.size})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_costs_on_a_gpu(trial_form: dict[str, Any], prepared: Session) -> None:
    config = trial_of(trial_form, student={"width": 32}, loss={"alpha": 0.0})
    gpu = torch.device("cuda")
    first = measured(config, prepared, device=gpu)
    other = torch.zeros(100 * MIB, device=gpu)
    again = measured(config, prepared, device=gpu)
    del other
    on_cpu = measured(config, prepared)
    assert [first[name] for name in OF_COST[:2]] == [on_cpu[name] for name in OF_COST[:2]]
    assert again["peak_memory"] == first["peak_memory"], "whatever else is there"
    weights = 4 * sum(parameter.numel() for parameter in build_network(config).parameters())
    assert MIB * first["peak_memory"] > 3 * weights + saved_for_backward(config, prepared, 16, gpu)


def test_only_clocks_say_something_else_each_time(tiny: TrialConfig, prepared: Session) -> None:
    first, again = measured(tiny, prepared), measured(tiny, prepared)
    assert [first[name] for name in OF_COST[:3]] == [again[name] for name in OF_COST[:3]]
