"""A trial's costs: recorded, measured once for equal trials, and without any effect on the trial."""

from __future__ import annotations

import random
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, bits, train
from measuring import measured, trial_of

from kdtune.clips.dataset import TrialData
from kdtune.config.metrics import OF_COST
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train.checkpoint import final_weights
from kdtune.train.measuring.cost import epoch_seconds
from kdtune.train.replay import Replay
from kdtune.train.samples import SampleCache, Samples
from kdtune.train.session import Session

TEACHER = {"student": {"backbone": "c3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}


# ---- in the records --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"teacher": TEACHER, "loss": {"beta": 0.5, "gamma": 0.5, "contrast": "in_batch"}},
        {"teacher": TEACHER, "loss": {"target": "action", "gamma": 0.5}},
        pytest.param({"precision": "bf16"}, marks=pytest.mark.slow),
        {"memory_format": "channels_last", "student": {"backbone": "tdn_light", "width": 8}},
    ],
    ids=["pretext", "distilled", "action", "bf16", "channels_last"],
)
def test_a_trials_result_holds_what_it_cost(
    sections: dict[str, Any], trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    files = train(trial_of(trial_form, **sections), StoreFiles(tmp_path), prepared)
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
    store = StoreFiles(tmp_path)
    tuned = train(config.finetuned, store, prepared).result()
    whole = store.trial(prepared.key(config.finetuned.start)).result()
    assert tuned is not None
    assert whole is not None
    assert tuple(tuned["cost"]) == OF_COST
    assert tuned["cost"]["gmac"] == whole["cost"]["gmac"], "the same backbone for the same clips"
    # Heads of 3·F → 5 and F → 4, where F is 8 times the width of 4.
    assert whole["cost"]["parameters"] - tuned["cost"]["parameters"] == (3 * 32 + 1) * 5 - (32 + 1) * 4


def test_epochs_are_timed_without_their_evaluations() -> None:
    rows: list[dict[str, Any]] = [{"seconds": float(n)} for n in (3, 1, 7)]
    evaluated: list[dict[str, Any]] = [{"seconds": 50.0, "evaluation": {}}, {"seconds": 70.0, "evaluation": {}}]
    assert epoch_seconds([evaluated[0], *rows, evaluated[1]]) == 3.0
    assert epoch_seconds(evaluated) == 60.0


@pytest.mark.slow
def test_trials_that_are_alike_are_measured_once_in_a_process(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    taught = {"teacher": TEACHER, "loss": {"lambda": 0.5, "tau": 2.0}}
    session = Session(StoreFiles(tmp_path / "one"), dict(prepared.folders))

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
    # Another session measures anew, and the costs that do not depend on time are equal.
    session = Session(StoreFiles(tmp_path / "another"), dict(prepared.folders))
    alone = cost(**other)
    assert [alone[name] for name in OF_COST[:3]] == [first[name] for name in OF_COST[:3]]


@pytest.mark.slow
def test_replay_does_not_compare_costs(tiny: TrialConfig, prepared: Session, tmp_path: Path) -> None:
    store = StoreFiles(tmp_path)
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


# ---- nothing is touched ----------------------------------------------------------------------------------------------


def test_measuring_changes_no_bit(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits of the trial and of the next one in the same process, with the same kept samples, do not change."""
    trials = [trial_of(trial_form, teacher=TEACHER, seed=seed) for seed in (0, 1)]

    def ended(store: StoreFiles) -> list[Any]:
        session = Session(store, dict(prepared.folders))
        for config in trials:
            for _ in session.trial(config, CPU):
                pass
        return [bits(session.files(config)) for config in trials]

    measuring = ended(StoreFiles(tmp_path / "measured"))
    monkeypatch.setattr("kdtune.train.session.trial_cost", lambda *_: {})
    assert ended(StoreFiles(tmp_path / "not measured")) == measuring


def test_measuring_leaves_generators_and_samples_alone(tiny: TrialConfig, prepared: Session) -> None:
    torch.manual_seed(1)
    cache = SampleCache(10**9)
    data = TrialData.of(tiny, prepared.clips(tiny))
    before = next(Samples(tiny, data, CPU, cache=cache).training(1, 0))
    copy, size = before.clips.clone(), cache.bytes
    states = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    measured(tiny, prepared, cache)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tobytes(), random.getstate()) == states[1:]
    assert cache.bytes == size
    assert next(Samples(tiny, data, CPU, cache=cache).training(1, 0)) is before
    assert before.clips.equal(copy)
    assert torch.is_grad_enabled()
