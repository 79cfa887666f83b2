"""Checkpoints: a damaged one is noticed and reported, and the previous one is used, to the same bits (DESIGN 4.1)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import bits, stopped, train

from kdtune.config.trial import TrialConfig
from kdtune.errors import StoreError
from kdtune.store import StoreFiles, TrialFiles
from kdtune.train.checkpoint import content_digest, read_checkpoint
from kdtune.train.session import Session
from kdtune.train.state import TrialState


@pytest.fixture(scope="module")
def config(trial_form: dict[str, Any]) -> TrialConfig:
    """A trial whose checkpoint holds everything it can: banks, a projector, best weights, a schedule that acts."""
    teacher = {"student": {"backbone": "c3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}
    loss = {**trial_form["loss"], "gamma": 0.5}
    more = {"epochs": 4, "stages": {"late": 4}, "optimizer": {"patience": 0}, "stage": {"weights": "best"}}
    return TrialConfig.model_validate({**trial_form, **more, "teacher": teacher, "loss": loss})


@pytest.fixture(scope="module")
def undisturbed(config: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> TrialFiles:
    return train(config, StoreFiles(tmp_path_factory.mktemp("undisturbed")), prepared)


@pytest.fixture(scope="module")
def stopped_at_3(config: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> TrialFiles:
    """The trial stopped after its third epoch, with checkpoints of the second and the third."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdtune.train.state.CHECKPOINT_SHARE", math.inf)
        return stopped(config, StoreFiles(tmp_path_factory.mktemp("stopped")), prepared, 3)


@pytest.fixture
def begun(stopped_at_3: TrialFiles, tmp_path: Path) -> TrialFiles:
    """A copy of that trial with its teacher, in a store of its own."""
    shutil.copytree(stopped_at_3.folder.parents[1], tmp_path, dirs_exist_ok=True)
    return StoreFiles(tmp_path).trial(stopped_at_3.key)


class Stop(Exception):
    pass


@pytest.fixture(autouse=True)
def after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow a checkpoint after every epoch, however short it is."""
    monkeypatch.setattr("kdtune.train.state.CHECKPOINT_SHARE", math.inf)


def test_short_epochs_have_no_checkpoint_each_but_stages_and_stopping_have(
    config: TrialConfig, prepared: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdtune.train.state.CHECKPOINT_SHARE", 0.0)
    alone = config.model_copy(update={"stages": {"mid": 3, "late": 5}, "epochs": 5, "teacher": None})
    saved = saved_epochs(monkeypatch)
    undisturbed = bits(train(alone, StoreFiles(tmp_path / "undisturbed"), prepared))
    assert saved == [3, 5]
    saved.clear()
    files = stopped(alone, StoreFiles(tmp_path / "stopped"), prepared, 2)
    assert saved == [2]
    assert read_checkpoint(files.checkpoint)["epoch"] == 2
    saved.clear()
    assert bits(train(alone, StoreFiles(tmp_path / "stopped"), prepared)) == undisturbed
    assert saved == [3, 5]


@pytest.mark.parametrize(("bytes_a_second", "first"), [(1.0, 4), (math.inf, 1)], ids=["dear", "cheap"])
def test_what_the_first_checkpoint_would_take_follows_from_its_size(
    bytes_a_second: float,
    first: int,
    config: TrialConfig,
    prepared: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kdtune.train.state.CHECKPOINT_SHARE", 0.02)
    monkeypatch.setattr("kdtune.train.state.CHECKPOINT_RATE", bytes_a_second)
    saved = saved_epochs(monkeypatch)
    train(config.model_copy(update={"teacher": None}), StoreFiles(tmp_path), prepared)
    assert saved[0] == first, "the stage's is written anyway"


def saved_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the epochs after which checkpoints were written."""
    epochs: list[int] = []
    save = TrialState.save

    def noted(state: TrialState, files: TrialFiles, stage: str | None = None) -> None:
        save(state, files, stage)
        epochs.append(state.epoch)

    monkeypatch.setattr(TrialState, "save", noted)
    return epochs


@pytest.mark.parametrize("step", [1, 2])
def test_a_checkpoint_within_an_epoch_holds_the_position(
    step: int,
    config: TrialConfig,
    prepared: Session,
    undisturbed: TrialFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also stop after the epoch's last step, before its figures are computed."""

    def save_and_stop(state: TrialState, files: TrialFiles) -> None:
        if state.epoch == 1 and state.progress.steps == step:
            state.save(files)
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(TrialState, "save_if_due", save_and_stop)
        with pytest.raises(Stop):
            train(config, StoreFiles(tmp_path), prepared)
    files = Session(StoreFiles(tmp_path), dict(prepared.folders)).files(config)
    parts = read_checkpoint(files.checkpoint)
    assert parts["epoch"] == 1
    assert len(parts["progress"]["losses"]) == step
    assert bits(train(config, StoreFiles(tmp_path), prepared)) == bits(undisturbed)


@pytest.mark.slow
def test_long_epochs_have_checkpoints_within(
    config: TrialConfig, prepared: Session, undisturbed: TrialFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at: list[tuple[int, int]] = []
    saved = TrialState.save

    def save(state: TrialState, files: TrialFiles, stage: str | None = None) -> None:
        at.append((state.epoch, state.progress.steps))
        saved(state, files, stage)

    monkeypatch.setattr(TrialState, "save", save)
    train(config, StoreFiles(tmp_path / "seldom"), prepared)
    assert [place for place in at if place[1] > 0] == [], "a short epoch has none"
    at.clear()
    monkeypatch.setattr("kdtune.train.state.CHECKPOINT_EVERY_S", 0.0)
    assert bits(train(config, StoreFiles(tmp_path / "often"), prepared)) == bits(undisturbed)
    steps = max(step for _, step in at)
    assert steps > 1
    # The teacher's epoch, then the trial's own.
    of_an_epoch = lambda epoch: [*((epoch, step) for step in range(1, steps + 1)), (epoch + 1, 0)]  # noqa: E731
    assert at == [place for epoch in (0, 0, 1, 2, 3) for place in of_an_epoch(epoch)]


def test_a_checkpoint_of_another_version_says_so(
    config: TrialConfig, prepared: Session, begun: TrialFiles, tmp_path: Path
) -> None:
    parts = read_checkpoint(begun.checkpoint)
    del parts["samples"]
    torch.save({**parts, "sha256": content_digest(parts)}, begun.checkpoint)
    with pytest.raises(StoreError, match="another version wrote the checkpoint: it has no samples; remove its folder"):
        train(config, StoreFiles(tmp_path), prepared)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def one_bit(path: Path) -> None:
    """Flip a bit in the middle of a weight; torch itself would read it without an error."""
    weights = read_checkpoint(path)["network"]["backbone.layer4.0.conv2.0.weight"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    at = content.find(weights[:64])
    assert at > 0
    content[at + 40] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)


@pytest.mark.parametrize("damage", [torn, one_bit, lambda path: path.write_bytes(b""), Path.unlink])
def test_the_one_before_is_used_to_the_same_bits(
    damage: Callable[[Path], object],
    config: TrialConfig,
    prepared: Session,
    undisturbed: TrialFiles,
    begun: TrialFiles,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = begun
    assert read_checkpoint(files.checkpoint)["epoch"] == 3
    assert read_checkpoint(files.checkpoint_before)["epoch"] == 2
    damage(files.checkpoint)
    assert bits(train(config, StoreFiles(tmp_path), prepared)) == bits(undisturbed)
    said = capsys.readouterr().err
    if files.checkpoint.exists() and damage is not Path.unlink:
        assert "resuming from the previous checkpoint" in said
        assert str(files.checkpoint) in said
    assert not files.checkpoint_before.exists(), "a complete trial needs it no more"


def test_a_checkpoint_without_its_checksum_is_damaged(begun: TrialFiles) -> None:
    torch.save(read_checkpoint(begun.checkpoint), begun.checkpoint)
    with pytest.raises(StoreError, match="does not match its checksum"):
        read_checkpoint(begun.checkpoint)


def test_where_both_are_damaged_the_trial_begins_again_and_says_so(
    config: TrialConfig,
    prepared: Session,
    undisturbed: TrialFiles,
    begun: TrialFiles,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one_bit(begun.checkpoint)
    torn(begun.checkpoint_before)
    assert bits(train(config, StoreFiles(tmp_path), prepared)) == bits(undisturbed)
    said = capsys.readouterr().err
    assert "checkpoint.pt: the checkpoint is damaged: it does not match its checksum" in said
    assert "checkpoint_before.pt: the checkpoint cannot be read" in said
    assert said.endswith("resuming from the start\n")
    assert said.count("resuming") == 1


def test_the_checksum_covers_names_types_shapes_order_and_every_byte() -> None:
    x = torch.arange(6, dtype=torch.float32)
    base = {"a": x, "b": [1, 2.0, None, {"c": True}]}
    others: list[Any] = [
        {"a": x.double(), "b": base["b"]},
        {"a": x.view(2, 3), "b": base["b"]},
        {"a": x + 1e-6, "b": base["b"]},
        {"z": x, "b": base["b"]},
        {"b": base["b"], "a": x},
        {"a": x, "b": [1, 2, None, {"c": True}]},
        {"a": x, "b": [1, 2.0, [None], {"c": True}]},
        {"a": x, "b": [1, 2.0, None, {"c": False}]},
        {"a": -0.0 * x, "b": base["b"]},
        {"a": 0.0 * x, "b": base["b"]},
    ]
    digests = [content_digest(value) for value in (base, *others)]
    assert len(set(digests)) == len(digests)
    assert content_digest({"a": x.clone(), "b": [1, 2.0, None, {"c": True}]}) == digests[0]
