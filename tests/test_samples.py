"""Prepared samples are kept from stage to stage and from trial to trial, within a budget, and change no bit."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, bits
from torch import Tensor

from kdtune.clips.dataset import TrialData
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles, TrialFiles
from kdtune.train import samples as module
from kdtune.train.inputs import evaluation_samples, evenly_spaced_clips, training_samples
from kdtune.train.loader import steps_of_an_epoch, training_batches
from kdtune.train.samples import SampleCache, Samples, default_budget, stream_digest
from kdtune.train.session import Session


def changed(config: TrialConfig, **sections: Any) -> TrialConfig:
    form = config.model_dump(by_alias=True, exclude_unset=True)
    merged = {name: {**form[name], **v} if isinstance(v, dict) and name in form else v for name, v in sections.items()}
    return TrialConfig.model_validate({**form, **merged})


@pytest.fixture(scope="module")
def data(tiny: TrialConfig, prepared: Session) -> TrialData:
    return TrialData.of(tiny, prepared.clips(tiny))


def one_epoch(samples: Samples, epoch: int = 1) -> list[Tensor]:
    steps = steps_of_an_epoch(samples.config, samples.data)
    return [batch.clips for batch in islice(samples.training(epoch, 0), steps)]


def test_what_is_found_is_what_was_made(tiny: TrialConfig, data: TrialData) -> None:
    cache = SampleCache(10**9)
    first = one_epoch(Samples(tiny, data, CPU, cache=cache))
    again = Samples(changed(tiny, loss={"alpha": 0.1}), data, CPU, cache=cache)
    for found, made in zip(one_epoch(again), first, strict=True):
        assert found is made, "λ, τ, α and the like change no sample"
    batch = next(again.training(1, 0))
    assert batch.clips.equal(training_samples(tiny, data, 1, batch.samples, CPU).clips)
    rows = data.validation
    spaced, one_each = again.evenly_spaced(rows), again.evaluation(rows)
    other_seed = Samples(changed(tiny, seed=3), data, CPU, cache=cache)
    assert other_seed.evenly_spaced(rows) is spaced, "an evaluation asks every trial the same"
    assert other_seed.evaluation(rows) is one_each
    assert spaced.equal(evenly_spaced_clips(tiny, data, rows, CPU))
    assert one_each.clips.equal(evaluation_samples(tiny, data, rows, CPU).clips)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"clip": {"interval": 4}},
        {"clip": {"normalize": False}},
        {"pretext": {"spatial": "random"}},
        {"augment": {"grey_p": 0.5}},
        {"data": {"subset_seed": 1}},
        {"loss": {"target": "action"}},
    ],
)
def test_everything_that_changes_samples_changes_their_stream(
    tiny: TrialConfig, data: TrialData, change: dict[str, Any]
) -> None:
    assert stream_digest(changed(tiny, **change), data, "seed") != stream_digest(tiny, data, "seed")
    assert stream_digest(changed(tiny, data={"fraction": 0.5}), data, "seed") == stream_digest(tiny, data, "seed")


def test_the_budget_is_kept_and_the_stream_that_asks_pushes_none_of_its_own_out() -> None:
    def clips(size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8)

    cache, made = SampleCache(100), []

    def get(stream: str, name: int, size: int) -> None:
        cache.get(stream, name, lambda: made.append((stream, name)) or clips(size))

    for name in range(6):  # 30 bytes each: three fit
        get("a", name, 30)
    for name in range(6):
        get("a", name, 30)
    assert made[6:] == [("a", 3), ("a", 4), ("a", 5)], "the first three are still there"
    assert cache.bytes == 90
    get("b", 0, 20)
    assert cache.bytes == 20, "the stream that nobody asks for made room"
    get("a", 0, 70)
    assert cache.bytes == 90
    get("b", 1, 30)
    assert cache.bytes == 50, "it was a that had not been asked for longest"
    get("c", 0, 101)
    assert cache.bytes == 50, "for what can never fit nobody makes room"


def test_the_default_budget_leaves_memory_for_a_worker_on_every_core() -> None:
    assert 0 < default_budget() <= 2**30


def test_nothing_is_kept_where_it_would_gain_nothing(
    tiny: TrialConfig, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that read ahead prepare while the trainer trains. Here this process reads: that saves their start."""
    cache = SampleCache(10**9)
    monkeypatch.setattr(
        "kdtune.train.samples.training_batches", lambda *arguments: training_batches(*arguments[:4], 0, *arguments[5:])
    )
    one_epoch(Samples(tiny, data, CPU, workers=1, cache=cache))
    assert cache.bytes == 0


@pytest.fixture(scope="module")
def second(tiny: TrialConfig) -> TrialConfig:
    return changed(tiny, loss={"alpha": 0.2})


@pytest.fixture(scope="module")
def alone(second: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> TrialFiles:
    """The second of two trials, trained alone and without a cache."""
    session = Session(StoreFiles(tmp_path_factory.mktemp("alone")), dict(prepared.folders), cache=SampleCache(0))
    for _ in session.trial(second, CPU):
        pass
    assert session.cache.bytes == 0
    return session.files(second)


@pytest.mark.parametrize("budget", [12_000_000, 10**9])
def test_kept_samples_change_no_bit(
    tiny: TrialConfig, second: TrialConfig, alone: TrialFiles, prepared: Session, tmp_path: Path, budget: int
) -> None:
    """Two trials one after another in one process, the second with what the first has left, and one alone."""
    session = Session(StoreFiles(tmp_path), dict(prepared.folders), cache=SampleCache(budget))
    for config in (tiny, second):
        for _ in session.trial(config, CPU):
            pass
    assert session.cache.bytes > 0
    assert bits(session.files(second)) == bits(alone)


def test_a_trial_leaves_kept_samples_as_they_were(
    tiny: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that trains or evaluates writes into its input."""
    session = Session(StoreFiles(tmp_path_factory.mktemp("kept")), dict(prepared.folders), cache=SampleCache(10**9))
    for _ in session.trial(tiny, CPU):
        pass
    data = TrialData.of(tiny, session.clips(tiny))
    monkeypatch.setattr(module, "on_device", lambda *_: pytest.fail("made again"))
    monkeypatch.setattr(module, "evenly_spaced_clips", lambda *_: pytest.fail("made again"))
    samples = Samples(tiny, data, CPU, cache=session.cache)
    steps = steps_of_an_epoch(tiny, data)
    for epoch in range(1, tiny.epochs + 1):
        for batch in islice(samples.training(epoch, 0), steps):
            assert batch.clips.equal(training_samples(tiny, data, epoch, batch.samples, CPU).clips)
    for part in np.split(data.train, range(32, len(data.train), 32)):
        assert samples.evenly_spaced(part).equal(evenly_spaced_clips(tiny, data, part, CPU))
