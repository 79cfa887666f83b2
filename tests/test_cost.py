"""What a trial costs: every figure against another way to it, and nothing of the trial touched by the measuring."""

from __future__ import annotations

import random
import threading
from math import isfinite, prod
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from helpers import CPU, bits, run_python, train
from torch import Tensor, nn

from kdtune.clips.dataset import TrialData
from kdtune.config.inherit import merge
from kdtune.config.metrics import OF_COST, OfCost
from kdtune.config.network import NetworkConfig, Own
from kdtune.config.sections import ClipConfig
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.store import Store
from kdtune.train.checkpoint import final_weights
from kdtune.train.cost import allocated_on_cpu, clip_cost, epoch_seconds, trial_cost
from kdtune.train.initial import initial_state
from kdtune.train.inputs import training_samples
from kdtune.train.profile import make_deterministic
from kdtune.train.replay import Replay
from kdtune.train.samples import Kept, Samples
from kdtune.train.session import Session

MIB = 2**20
TEACHER = {"student": {"backbone": "c3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}


def trial_of(form: dict[str, Any], **sections: Any) -> TrialConfig:
    """`form` with these sections, each over what `form` says there."""
    return TrialConfig.model_validate(merge(form, sections))


def measured(
    config: TrialConfig, prepared: Session, kept: Kept | None = None, device: torch.device = CPU
) -> dict[OfCost, float]:
    """Of a trial that was not trained."""
    make_deterministic(config)
    data = TrialData.of(config, prepared.clips(config))
    fresh = initial_state(config, data, None, device)
    return trial_cost(fresh, Samples(config, data, device, kept=kept), None)


# ---- in the records --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"teacher": TEACHER, "loss": {"beta": 0.5, "gamma": 0.5, "contrast": "in_batch"}},
        {"teacher": TEACHER, "loss": {"target": "action", "gamma": 0.5}},
        {"precision": "bf16"},
        {"memory_format": "channels_last", "student": {"backbone": "tdn", "width": 8}},
    ],
    ids=["pretext", "distilled", "action", "bf16", "channels_last"],
)
def test_a_trials_result_holds_what_it_cost(
    sections: dict[str, Any], trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    files = train(trial_of(trial_form, **sections), Store(tmp_path), prepared)
    result = files.result()
    assert result is not None
    cost = result["cost"]
    assert tuple(cost) == OF_COST
    assert all(isfinite(figure) and figure > 0 for figure in cost.values())
    learnt = final_weights(files.checkpoint)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    student = [name for name in learnt if name.startswith(("backbone.", "head.")) and not name.endswith(statistics)]
    assert cost["parameters"] == sum(learnt[name].numel() for name in student)
    # Both epochs end with a stage.
    assert cost["epoch_seconds"] == sum(row["seconds"] for row in files.rows()) / 2


def test_a_fine_tuning_is_a_trial_with_costs_of_its_own(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    config = trial_of(trial_form, finetune={"epochs": 1})
    assert config.finetuned is not None
    assert config.finetuned.start is not None
    store = Store(tmp_path)
    tuned = train(config.finetuned, store, prepared).result()
    whole = store.trial(prepared.key(config.finetuned.start)).result()
    assert tuned is not None
    assert whole is not None
    assert tuple(tuned["cost"]) == OF_COST
    assert tuned["cost"]["gmac"] == whole["cost"]["gmac"], "the same backbone for the same clips"
    # Heads of 3·F → 5 and F → 4, F being 8 times the width of 4.
    assert whole["cost"]["parameters"] - tuned["cost"]["parameters"] == (3 * 32 + 1) * 5 - (32 + 1) * 4


def test_epochs_are_timed_without_their_evaluations() -> None:
    rows: list[dict[str, Any]] = [{"seconds": float(n)} for n in (3, 1, 7)]
    evaluated: list[dict[str, Any]] = [{"seconds": 50.0, "evaluation": {}}, {"seconds": 70.0, "evaluation": {}}]
    assert epoch_seconds([evaluated[0], *rows, evaluated[1]]) == 3.0
    assert epoch_seconds(evaluated) == 60.0


def test_trials_that_are_alike_are_measured_once_in_a_process(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    taught = {"teacher": TEACHER, "loss": {"lambda": 0.5, "tau": 2.0}}
    session = Session(Store(tmp_path / "one"), dict(prepared.folders))

    def cost(**sections: Any) -> dict[str, float]:
        config = trial_of(trial_form, **sections)
        for _ in session.trial(config, CPU):
            pass
        result = session.files(config).result()
        assert result is not None
        return {name: figure for name, figure in result["cost"].items() if name != "epoch_seconds"}

    first = cost(**taught)
    other = {"teacher": TEACHER, "seed": 1, "loss": {"lambda": 3.0, "tau": 5.0, "alpha": 0.9}}
    assert cost(**other) == first, "the clock's figure, too"
    for unlike in ({}, {**taught, "optimizer": {"batch": 8}}, {"loss": {"alpha": 0.0}}):
        assert cost(**unlike)["clip_ms"] != first["clip_ms"]
    # In a process of its own it would have measured what it was given.
    session = Session(Store(tmp_path / "another"), dict(prepared.folders))
    alone = cost(**other)
    assert [alone[name] for name in OF_COST[:3]] == [first[name] for name in OF_COST[:3]]


def test_replay_does_not_compare_costs(tiny: TrialConfig, prepared: Session, tmp_path: Path) -> None:
    store = Store(tmp_path)
    session = Session(store)
    session.prepare(tiny)
    files = train(tiny, store, session)
    result = files.result()
    assert result is not None
    files.write_result({**result, "cost": dict.fromkeys(OF_COST, -1.0)})
    with Replay(store, CPU) as replays:
        assert replays.trial(files.key) is None
    files.write_result({name: value for name, value in result.items() if name != "cost"})
    with Replay(store, CPU) as replays:
        assert replays.trial(files.key) is None, "a result from before costs were measured"


# ---- parameters and multiplications ----------------------------------------------------------------------------------


def counted(network: nn.Module, clip: Tensor) -> int:
    """Multiply-accumulates by the layers' shapes: an output of a layer takes as many as it has weights."""
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
    clip = torch.zeros(1, 3, 8, 32, 32)
    expected = counted(network.backbone.eval(), clip)
    assert clip_cost(network, clip)[0] == expected
    assert measured(config, prepared)["gmac"] == expected / 1e9


def test_costs_of_c3d_by_hand(trial_form: dict[str, Any], prepared: Session) -> None:
    """Eight 3×3×3 convolutions; pools halve 32² four times and the 8 frames from the second on."""
    w = 4
    channels = [(3, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w), (4 * w, 8 * w), *[(8 * w, 8 * w)] * 3]
    places = [8 * 32**2, 8 * 16**2, *[4 * 8**2] * 2, *[2 * 4**2] * 2, *[1 * 2**2] * 2]
    cost = measured(trial_of(trial_form, student={"backbone": "c3d", "width": w}), prepared)
    assert cost["gmac"] == sum(27 * a * b * n for (a, b), n in zip(channels, places, strict=True)) / 1e9
    convolutions = sum(27 * a * b + b for a, b in channels)
    norms = sum(2 * b for _, b in channels)
    assert cost["parameters"] == convolutions + norms + (3 * 8 * w + 1) * 5


def test_gmac_of_the_papers_r3d() -> None:
    """REFERENCE.md: 13.1 GMAC for 10 frames of 112²."""
    config = TrialConfig(student=NetworkConfig(backbone="r3d"), clip=ClipConfig(frames=10))
    multiplications, seconds = clip_cost(build_network(config), torch.zeros(1, 3, 10, 112, 112))
    assert multiplications / 1e9 == pytest.approx(13.1, abs=0.05)
    assert seconds > 0


# ---- memory ----------------------------------------------------------------------------------------------------------


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
        held.clear()  # allocated before: that it is freed makes no room here
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
    code = "import torch; from kdtune.train.cost import allocated_on_cpu as of; print(of(lambda: torch.zeros(256)))"
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("1024\n", "")


def saved_for_backward(config: TrialConfig, prepared: Session, size: int, device: torch.device = CPU) -> int:
    """Bytes that autograd keeps of a forward pass of `size` samples: each tensor's memory once, weights apart."""
    make_deterministic(config)
    data = TrialData.of(config, prepared.clips(config))
    network = build_network(config, data.classes).to(device)
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    found: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage  # held, so that no other gets its place
        return tensor

    clips = training_samples(config, data, 1, np.arange(size), device).clips
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.logits(network.features(clips))
    found.pop(clips.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in found.values()) + clips.nbytes


@pytest.mark.parametrize("backbone", ["r3d", "c3d", "tdn"])
def test_memory_is_what_a_step_needs(backbone: str, trial_form: dict[str, Any], prepared: Session) -> None:
    student = {"backbone": backbone, "width": 8}
    for batch in (4, 8, 16):
        config = trial_of(trial_form, student=student, loss={"alpha": 0.0}, optimizer={"batch": batch})
        peak = MIB * measured(config, prepared)["peak_memory"]
        weights = 4 * sum(parameter.numel() for parameter in build_network(config).parameters())
        # Weights, their gradients and momentum; the kernels need a little of their own (seen: 2 to 11 %).
        needed = 3 * weights + saved_for_backward(config, prepared, batch)
        assert needed < peak < 1.15 * needed


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
    # A last batch of one joins the one before.
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


# ---- nothing is touched ----------------------------------------------------------------------------------------------


def test_measuring_changes_no_bit(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the trial, and of the next one in the same process with the same kept samples."""
    trials = [trial_of(trial_form, teacher=TEACHER, seed=seed) for seed in (0, 1)]

    def ended(store: Store) -> list[Any]:
        session = Session(store, dict(prepared.folders))
        for config in trials:
            for _ in session.trial(config, CPU):
                pass
        return [bits(session.files(config)) for config in trials]

    measuring = ended(Store(tmp_path / "measured"))
    monkeypatch.setattr("kdtune.train.session.trial_cost", lambda *_: {})
    assert ended(Store(tmp_path / "not measured")) == measuring


def test_measuring_leaves_generators_and_samples_alone(tiny: TrialConfig, prepared: Session) -> None:
    torch.manual_seed(1)
    kept = Kept(10**9)
    data = TrialData.of(tiny, prepared.clips(tiny))
    before = next(Samples(tiny, data, CPU, kept=kept).training(1, 0))
    copy, size = before.clips.clone(), kept.bytes
    states = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    measured(tiny, prepared, kept)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tobytes(), random.getstate()) == states[1:]
    assert kept.bytes == size
    assert next(Samples(tiny, data, CPU, kept=kept).training(1, 0)) is before
    assert before.clips.equal(copy)
    assert torch.is_grad_enabled()
