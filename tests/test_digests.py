"""Records that make two runs comparable: digests of weights, optimiser and samples, and the profile."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from helpers import CPU, bits, session_of, train

from kdtune.clips.dataset import TrialData
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train import trial as trial_module
from kdtune.train.checkpoint import content_digest, read_checkpoint
from kdtune.train.loader import steps_of_an_epoch, training_batches
from kdtune.train.profile import state_digest
from kdtune.train.session import Session


def test_each_stage_records_digests_of_weights_optimiser_and_samples(
    tiny: TrialConfig, prepared: Session, tmp_path: Path
) -> None:
    files = train(tiny, StoreFiles(tmp_path), prepared)
    assert [path.name for path in sorted(files.folder.glob("*.pt"))] == ["checkpoint.pt", "stage_early.pt"]
    rows = {row.get("stage", row["epoch"]): row for row in files.rows()}
    for stage, path in (("early", files.stage_checkpoint("early")), ("late", files.checkpoint)):
        parts = read_checkpoint(path)
        assert parts["epoch"] == tiny.stage_epochs[stage]
        assert state_digest(parts["network"]) == rows[stage]["weights_sha256"]
        assert content_digest(parts["optimizer"]["state"]) == rows[stage]["optimizer_sha256"]
        assert parts["samples"] == rows[stage]["samples_sha256"]
    forgetful = tiny.model_copy(update={"stage": tiny.stage.model_copy(update={"keep": False})})
    again = train(forgetful, StoreFiles(tmp_path / "again"), prepared)
    assert again.key == files.key
    assert bits(again) == bits(files)
    assert [path.name for path in again.folder.glob("*.pt")] == ["checkpoint.pt"]


def test_the_samples_digest_is_of_what_was_drawn_alone(tiny: TrialConfig, prepared: Session, tmp_path: Path) -> None:
    def trained(name: str, **update: Any) -> list[str]:
        rows = train(tiny.model_copy(update=update), StoreFiles(tmp_path / name), prepared).rows()
        return [row["samples_sha256"] for row in rows]

    def by_hand(**update: Any) -> str:
        """Return the digest of the first epoch."""
        config, digest = tiny.model_copy(update=update), ""
        data = TrialData.of(config, prepared.clips(config))
        for raw in islice(training_batches(config, data, 1, 0, 0), steps_of_an_epoch(config, data)):
            digest = hashlib.sha256((digest + raw.digest).encode()).hexdigest()
        return digest

    reference = trained("reference")
    assert len(set(reference)) == 2
    assert trained("network", student=tiny.student.model_copy(update={"backbone": "c3d"})) == reference
    assert by_hand() == by_hand(precision="bf16") == reference[0]
    for name, update in (
        ("seed", {"seed": 1}),
        ("augment", {"augment": tiny.augment.model_copy(update={"hue": 0.05})}),
        ("pretext", {"pretext": tiny.pretext.model_copy(update={"spatial": "random"})}),
        ("batch", {"optimizer": tiny.optimizer.model_copy(update={"batch": 8})}),
    ):
        assert by_hand(**update) not in reference, name


def test_a_changed_profile_is_said_and_recorded(
    tiny: TrialConfig,
    prepared: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = session_of(StoreFiles(tmp_path), prepared)
    run = session.trial(tiny, CPU)
    next(run)
    run.close()
    now = trial_module.profile

    def elsewhere(*arguments: Any) -> dict[str, Any]:
        return {**now(*arguments), "device": "another"}

    monkeypatch.setattr(trial_module, "profile", elsewhere)
    files = train(tiny, StoreFiles(tmp_path), prepared)
    assert "resuming under another profile (device " in capsys.readouterr().err
    result = files.result()
    assert result is not None
    assert result["profile"]["device"] == "another"
    [before] = result["earlier_profiles"]
    assert before["epoch"] == 1
    assert before["profile"] == {**result["profile"], "device": before["profile"]["device"]}
