"""Operators that do not repeat bit for bit on a machine are found in short trials, and named."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU
from torch import Tensor, nn

from kdtune.clips.dataset import TrialData
from kdtune.clips.frames.store import ClipStore
from kdtune.config.sections import EvaluationConfig
from kdtune.config.trial import TrialConfig
from kdtune.doctor.examine import PACKED, TRIAL, Finding, of_trial
from kdtune.doctor.repeat import Pair, short_clips, short_trials, trained
from kdtune.models.heads import PclNetwork, build_network
from kdtune.train.operators import Operators, find_operators


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return short_clips(tmp_path_factory.mktemp("doctor") / "clips", full=False)


@pytest.fixture(scope="module")
def config() -> TrialConfig:
    """R3D of depth 10 in fp32 with a memory bank, shortened further."""
    shorter = {"epochs": 1, "stages": {"late": 1}, "evaluation": EvaluationConfig(clips=1)}
    return short_trials(full=False, cpu=True)[2].model_copy(update=shorter)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        yield pair


def noise(shape: torch.Size) -> Tensor:
    """Draw from the system's generator, which no seed affects, without a torch operator."""
    drawn = np.frombuffer(os.urandom(4 * shape.numel()), np.uint32)
    return torch.from_numpy(drawn.astype(np.float32).reshape(shape))


@torch.library.custom_op("kdtune_tests::noisy", mutates_args=())
def noisy(x: Tensor) -> Tensor:
    return x + noise(x.shape)


@torch.library.custom_op("kdtune_tests::noisy_backward", mutates_args=())
def noisy_backward(x: Tensor) -> Tensor:
    return x.clone()


noisy_backward.register_autograd(lambda ctx, gradient: noisy(gradient))


class NoisyBackward(nn.Module):
    """Returns its input, but with a noisy gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return noisy_backward(x)


# ---- operators -------------------------------------------------------------------------------------------------------


def found(network: nn.Module) -> Operators:
    def run() -> None:
        network.zero_grad()
        network(torch.ones(4, 8)).square().sum().backward()

    return find_operators(run)


def test_an_operator_that_draws_is_named_with_its_module() -> None:
    first = found(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))).first
    assert first is not None
    assert (first.operator, first.module, first.backward) == ("aten.bernoulli_.float", "Sequential.1", False)


def test_an_operator_of_the_backward_pass_is_named_with_its_module() -> None:
    first = found(nn.Sequential(nn.Linear(8, 8), NoisyBackward(), nn.Linear(8, 8))).first
    assert first is not None
    assert (first.operator, first.module, first.backward) == ("kdtune_tests.noisy.default", "Sequential.1", True)
    assert str(first).startswith("kdtune_tests.noisy.default (backward pass of Sequential.1, operator ")


def test_what_only_writes_to_its_arguments_is_seen_and_counted() -> None:
    def run() -> None:
        x = torch.zeros(8) + 1.0
        torch._foreach_add_([x], [noise(x.shape)])
        x.mul_(2.0)

    first = find_operators(run).first
    assert first is not None
    # After zeros: add, and the operator that receives the noise.
    assert (first.operator, first.position) == ("aten._foreach_add_.List", 3)


def test_memory_that_nobody_has_written_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    seen = []

    def run() -> None:
        noise(torch.Size([1000]))  # freed at once, so that the next one gets its memory
        memory = torch.empty(1000)
        seen.append(bytes(memory.numpy().data))
        memory.view(10, 100).t()
        torch.empty_like(memory).new_empty(1000).zero_().add_(1.0)

    assert find_operators(run).first is None
    assert len(set(seen)) > 1


@pytest.mark.parametrize("mode", [0, 1, 2], ids=["default", "warn", "error"])
def test_all_operators_that_torch_refuses_are_named_and_its_settings_kept(mode: int) -> None:
    def run() -> None:
        Refused()(torch.zeros(2, 8))

    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(mode)
    try:
        operators = find_operators(run)
        assert operators == Operators(None, ("put_", "max_unpooling2d_forward_out"))
        assert torch.get_deterministic_debug_mode() == mode
        assert torch._C._is_multithreading_enabled()
    finally:
        torch.set_deterministic_debug_mode(before)


class Refused(nn.Module):
    """Returns its input, through two operators that torch refuses on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x.clone().put_(torch.tensor([0]), x.flatten()[:1])
        wide = nn.functional.max_unpool2d(x[None, None], torch.arange(x.numel()).view(1, 1, *x.shape) * 2, 2)
        return x + 0 * wide.sum()


# ---- trials ----------------------------------------------------------------------------------------------------------


def headed(monkeypatch: pytest.MonkeyPatch, before: nn.Module) -> None:
    """Give the networks of this process's trials the module `before` in front of their heads."""

    def build(config: TrialConfig, classes: int) -> PclNetwork:
        network = build_network(config, classes)
        network.head = nn.Sequential(before, network.head)  # type: ignore[assignment]
        return network

    monkeypatch.setattr("kdtune.train.initial.build_network", build)


def examined(config: TrialConfig, clips: ClipStore, pair: Pair | None = None) -> list[Finding]:
    return list(of_trial(config, clips.folder, CPU, pair))


def test_a_trial_repeats_alone_and_beside_itself(config: TrialConfig, clips: ClipStore, pair: Pair) -> None:
    name = "cpu, r3d depth 10 width 8, 8 frames of 32², fp32, memory_bank"
    digest = trained(config, clips.folder, CPU).digest
    assert examined(config, clips, pair) == [
        Finding(TRIAL, "ok", f"{digest} {name}"),
        Finding(PACKED, "ok", f"{digest} {name}, two at a time"),
    ]
    assert trained(config.model_copy(update={"seed": 1}), clips.folder, CPU).digest != digest


@pytest.mark.parametrize(
    ("part", "named"),
    [
        pytest.param(
            nn.Dropout(),
            "aten.bernoulli_.float (forward pass of Sequential.0, operator ",
            marks=pytest.mark.slow,  # the forward pass of a network is told above
        ),
        (NoisyBackward(), "kdtune_tests.noisy.default (backward pass of Sequential.0, operator "),
    ],
    ids=["forward", "backward"],
)
def test_a_trial_that_does_not_repeat_is_told_with_its_operator(
    config: TrialConfig, clips: ClipStore, monkeypatch: pytest.MonkeyPatch, part: nn.Module, named: str
) -> None:
    headed(monkeypatch, part)
    (finding,) = examined(config, clips)
    assert (finding.name, finding.state) == (TRIAL, "problem")
    # A difference is reported with its epoch, or with what overflowed in it: the noise is uninitialised memory.
    assert re.match(r"cpu, r3d depth 10 width 8, 8 frames of 32², fp32, memory_bank: (after )?epoch \d", finding.text)
    assert f"; the first operator that differs is {named}" in finding.text


@pytest.mark.slow
def test_a_trial_that_torch_refuses_is_told_with_all_operators(
    config: TrialConfig, clips: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    headed(monkeypatch, Refused())
    (finding,) = examined(config, clips)
    assert finding.state == "problem"
    assert finding.text.endswith("memory_bank: torch has no deterministic put_, max_unpooling2d_forward_out")


def test_a_trial_that_fails_is_a_problem(config: TrialConfig, clips: ClipStore) -> None:
    wild = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"lr": 1e30})})
    (finding,) = examined(wild, clips)
    assert finding.state == "problem"
    assert "the loss is not finite at epoch 1, step 2" in finding.text


def test_other_bits_beside_another_trial_are_a_problem(
    config: TrialConfig, clips: ClipStore, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    headed(monkeypatch, nn.Hardtanh(0.0, 1e-3))  # the networks of the other processes are unchanged
    alone, beside = examined(config, clips, pair)
    assert (alone.state, beside.name, beside.state) == ("ok", PACKED, "problem")
    assert "memory_bank, two at a time: epoch 1, train.loss: was " in beside.text


@pytest.mark.slow
def test_a_process_that_dies_fails_its_trial_alone(config: TrialConfig, clips: ClipStore, pair: Pair) -> None:
    multiprocessing.active_children()[0].kill()
    (ended,) = pair.trained(config, clips.folder, CPU)
    assert ended.error == "its process died (killed, or out of memory)"
    assert pair.trained(config, clips.folder, CPU) == [trained(config, clips.folder, CPU)] * 2


def test_small_trials_are_many_on_a_gpu_and_full_ones_have_the_papers_sizes(clips: ClipStore) -> None:
    def what(config: TrialConfig) -> tuple[Any, ...]:
        return config.architecture, config.loss.contrast, config.precision, config.clip.frames, config.clip.size

    def expected(width: int, lengths: tuple[int, ...], size: int) -> set[tuple[Any, ...]]:
        depths = [f"{name} depth {depth} width {width}" for name in ("r3d", "r21d") for depth in (10, 18)]
        kinds = (("memory_bank", "in_batch"), ("fp32", "bf16"), lengths, (size,))
        return set(itertools.product([f"c3d width {width}", *depths], *kinds))

    small, full = short_trials(full=False, cpu=False), short_trials(full=True, cpu=False)
    assert {what(config) for config in small} == expected(8, (8,), 32)
    assert {what(config) for config in full} == expected(64, (10, 16), 112)
    assert {config.optimizer.batch for config in full} == {16}
    assert short_trials(full=True, cpu=True) == full
    cpu = short_trials(full=False, cpu=True)
    assert [config.precision for config in cpu] == ["fp32"] * 10 + ["bf16"]
    for config in small:
        assert TrialData.of(config, clips).size == 2 * config.optimizer.batch
