"""Replay: a trial trained again from scratch has the same bits, and differences are named (DESIGN 4.1)."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CPU, ROOT, link_clips, session_of, train

from kdtune.api.store import Store
from kdtune.cli import main
from kdtune.config.key import canonical, restored
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_OK, EXIT_USER_ERROR, StoreError
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json, read_jsonl, write_json, write_jsonl
from kdtune.train import initial
from kdtune.train.checkpoint import content_digest, read_checkpoint
from kdtune.train.replay import Replay, differences
from kdtune.train.session import Session


@pytest.fixture(scope="module")
def config(trial_form: dict[str, Any]) -> TrialConfig:
    """A distilled and fine-tuned trial, so that everything is replayed that a trial can need."""
    teacher = {"student": {"backbone": "c3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}
    return TrialConfig.model_validate({**trial_form, "teacher": teacher, "finetune": {"epochs": 1}})


@pytest.fixture(scope="module")
def store(config: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> StoreFiles:
    store = StoreFiles(tmp_path_factory.mktemp("replayed"))
    link_clips(prepared.store.root, store.root)
    session = session_of(store, prepared)
    session.prepare(config)
    assert config.finetuned is not None
    for part in (config, config.finetuned):
        train(part, store, session)
    return store


def replayed(store: StoreFiles, key: str) -> Any:
    with Replay(store, CPU) as replays:
        return replays.trial(key)


def files_of(store: StoreFiles, config: TrialConfig) -> TrialFiles:
    session = Session(store)
    session.prepare(config)
    return session.files(config)


def test_a_trial_its_teacher_and_its_fine_tuning_are_the_same_again(
    store: StoreFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = sorted(path.name for path in (store.root / "trials").iterdir())
    assert len(keys) == 3
    with Replay(store, CPU) as replays:
        folder = replays.session.store.root
        assert [replays.trial(key) for key in keys] == [None, None, None]
        assert sorted(path.name for path in (folder / "trials").iterdir()) == keys, "made again, not looked up"
    assert not folder.exists()
    assert main(["replay", keys[0][:10], "--store", str(store.root), "--device", "cpu"]) == EXIT_OK
    assert capsys.readouterr().out.splitlines() == [f"SAME          {keys[0]}", "SAME 1/1"]


@pytest.fixture
def tampered(
    store: StoreFiles, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., TrialFiles]]:
    """Returns a function that changes the record of the trial, and has replays repeat the true one in no time.

    The record is restored afterwards.
    """
    files = files_of(store, config)
    rows, result = read_jsonl(files.epochs), files.result()
    assert result is not None

    def repeated(session: Session, config: TrialConfig, device: torch.device) -> Iterator[Any]:
        session.files(config).write_result(result)
        yield from json.loads(json.dumps(rows))

    def change(edit: Callable[[list[Any]], object] = lambda rows: None, *, elsewhere: bool = True, **fields: Any):
        changed = json.loads(json.dumps(rows))
        edit(changed)
        write_jsonl(files.epochs, changed)
        profile = {**result["profile"], **({"torch": "1.0", "threads": 7} if elsewhere else {})}
        files.write_result({**result, "profile": profile, **fields})  # type: ignore[typeddict-item]
        return files

    monkeypatch.setattr(Session, "trial", repeated)
    yield change
    write_jsonl(files.epochs, rows)
    files.write_result(result)


def test_the_first_difference_is_named_with_the_profile(
    store: StoreFiles, tampered: Callable[..., TrialFiles], capsys: pytest.CaptureFixture[str]
) -> None:
    def knn(rows: list[Any]) -> None:
        rows[1]["evaluation"]["validation"]["knn"] = was + 2**-40

    files = tampered()
    was = files.rows()[1]["evaluation"]["validation"]["knn"]
    tampered(knn)
    # Another machine may have counted so. With --exact, any difference counts.
    command = ["replay", files.key, "--store", str(store.root), "--device", "cpu"]
    assert main([*command, "--exact"]) == EXIT_FAILED_TRIALS
    out = capsys.readouterr().out
    found = f"epoch 2, evaluation.validation.knn: was {was + 2**-40!r}, is now {was!r}"
    assert f"DIFFERENT     {files.key}\n{found}" in out
    assert "profile, torch: was '1.0', is now" in out
    assert "profile, threads: was 7, is now 1" in out
    assert out.endswith("SAME 0/1, DIFFERENT 1/1\n")
    assert main(command) == EXIT_OK
    printed = capsys.readouterr()
    assert f"CONSISTENT    {files.key}\n{found}" in printed.out
    assert "k-NN accuracy on validation at late" in printed.out
    assert printed.out.endswith("SAME 0/1, CONSISTENT 1/1\n")
    assert "knn differs at epoch 2 under another profile; training on" in printed.err
    assert "note:" in printed.err
    assert "reports knn" in printed.err, "its videos' outcomes give another"
    # Under this machine's own profile, every bit counts.
    tampered(knn, elsewhere=False)
    assert "the profile is the same" in str(replayed(store, files.key))
    tampered(elsewhere=False, weights_sha256="other")
    difference = replayed(store, files.key)
    assert (difference.epoch, difference.figure, difference.was) == (2, "weights", "other")
    assert difference.rows == ()
    tampered(weights_sha256="other")
    assert Store(store.root).trial(files.key).replay(device="cpu").verdict == "CONSISTENT"  # type: ignore[union-attr]


def test_figures_that_another_machine_does_not_explain_are_inconsistent(
    store: StoreFiles, tampered: Callable[..., TrialFiles], capsys: pytest.CaptureFixture[str]
) -> None:
    def loss(rows: list[Any]) -> None:
        rows[1]["evaluation"]["validation"]["pretext_loss"] += 0.4

    files = tampered(loss)
    command = ["replay", files.key, "--store", str(store.root), "--device", "cpu"]
    assert main(command) == EXIT_OK
    assert "not judged" in capsys.readouterr().out, "one seed alone does not say how far a loss may differ"
    identity, others = read_json(files.config), [store.trial(f"seed_{seed}") for seed in (6, 7, 8, 9)]
    for seed, other in enumerate(others, 1):
        write_json(other.config, {**identity, "trial": {**identity["trial"], "seed": seed}})
        rows = files.rows()
        rows[1]["evaluation"]["validation"]["pretext_loss"] += 0.01 * seed
        write_jsonl(other.epochs, rows)
    try:
        assert main(command) == EXIT_FAILED_TRIALS
        out = capsys.readouterr().out
        assert f"INCONSISTENT  {files.key}" in out
        line = next(line for line in out.splitlines() if line.startswith("pretext loss on validation at late"))
        assert "−0.4 nats" in line
        assert "seeds, beyond it" in line
        assert "the spread of 5 trainings in 1 group" in out
    finally:
        for other in others:
            shutil.rmtree(other.folder)


def test_what_is_the_same_on_every_machine_must_repeat(
    store: StoreFiles, tampered: Callable[..., TrialFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tampered(lambda rows: rows[1].update(samples_sha256="other", lr=3.0))
    found = replayed(store, files.key)
    assert (found.epoch, found.figure, bool(found.fault)) == (2, "samples_sha256", True)
    tampered(lambda rows: rows[1].update(lr=3.0))
    assert not replayed(store, files.key).fault, "the rate may follow the losses before it"
    for factor, fault in ((1.02, True), (0.98, True), (1.005, False)):
        tampered(lambda rows, factor=factor: rows[0]["train"].update(loss=factor * rows[0]["train"]["loss"]))
        found = replayed(store, files.key)
        assert ("less than 1%" in str(found)) == fault, "rounding has had one epoch to grow"
    monkeypatch.undo()
    # The teacher was trained elsewhere, too: it is copied, because a new one would differ, and its student with it.
    teacher = store.trial(read_json(files.config)["teacher"])
    result = teacher.result()
    assert result is not None
    teacher.write_result({**result, "profile": {**result["profile"], "torch": "1.0"}})  # type: ignore[typeddict-item]
    tampered()
    monkeypatch.undo()
    monkeypatch.setattr(initial, "SGD", lambda *groups, lr, **others: torch.optim.SGD(*groups, lr=10 * lr, **others))
    try:
        for order in ((files, teacher), (teacher, files)):
            with Replay(store, CPU) as replays:
                for part in order:
                    found = replays.trial(part.key)
                    assert (found.epoch, found.figure, bool(found.fault)) == (1, "lr", True), "a copy is no replay"
                    if part is files:
                        copied = replays.session.store.trial(teacher.key).result()
                        assert copied is not None
                        assert copied["weights_sha256"] == result["weights_sha256"]
    finally:
        teacher.write_result(result)


@pytest.mark.slow
def test_other_instructions_give_figures_that_agree_and_another_rate_does_not(store: StoreFiles) -> None:
    """A real other profile: the plain kernels of torch, and oneDNN's for processors of 2008."""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    damaged = """
import sys, torch
from kdtune.cli import main
from kdtune.train import initial

class Damaged(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            torch._foreach_mul_([weight.grad for weight in group["params"] if weight.grad is not None], 10.0)
        return super().step(closure)

initial.SGD = Damaged
sys.exit(main(sys.argv[1:]))
"""
    keys = [files.key for files in store.trials()]
    for program, code, verdict in ((["-m", "kdtune"], EXIT_OK, "CONSISTENT"), (["-c", damaged], 1, "INCONSISTENT")):
        for key in keys:
            command = [sys.executable, *program, "replay", key, "--store", str(store.root), "--device", "cpu"]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == code, done.stdout + done.stderr
            assert done.stdout.startswith(f"{verdict:<14}{key}"), "bits differ, and the profile says so"
            assert "profile, arithmetic: was" in done.stdout


def test_from_a_stage_only_what_follows_is_trained_again(
    store: StoreFiles, config: TrialConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    files = files_of(store, config)
    with Replay(store, CPU, "early") as replays:
        assert replays.trial(files.key) is None
    rows = read_jsonl(files.epochs)
    for epoch in (1, 2):
        changed = json.loads(json.dumps(rows))
        changed[epoch - 1]["train"]["loss"] += 2**-40
        write_jsonl(files.epochs, changed)
        try:
            with Replay(store, CPU, "early") as replays:
                difference = replays.trial(files.key)
            assert difference is not None
            assert difference.epoch == epoch, "the first epoch's row is the checkpoint's"
            assert replayed(store, files.key).epoch == epoch
        finally:
            write_jsonl(files.epochs, rows)
    # Another state at the stage says nothing about the trial.
    other = files.stage_checkpoint("early").read_bytes()
    parts = read_checkpoint(files.stage_checkpoint("early"))
    parts["network"]["head.bias"][0] += 1
    torch.save({**parts, "sha256": content_digest(parts)}, files.stage_checkpoint("early"))
    try:
        assert main(["replay", files.key, "--store", str(store.root), "--from", "early"]) == EXIT_USER_ERROR
        printed = capsys.readouterr()
        assert "stage_early.pt: holds the weights" in printed.err
        assert "but the row of stage early names" in printed.err
        assert "1 of 1 trials have a checkpoint of stage early" in printed.err
    finally:
        files.stage_checkpoint("early").write_bytes(other)
    assert main(["replay", files.key, "--store", str(store.root), "--from", "late"]) == EXIT_USER_ERROR
    assert "--from: got late, but no checkpoint of that stage was kept" in capsys.readouterr().err
    with (
        pytest.raises(StoreError, match=r"no checkpoint of a stage 'mid'.*early"),
        Replay(store, CPU, "mid") as replays,
    ):
        replays.trial(files.key)


def test_a_trial_that_did_not_end_is_replayed_as_far_as_it_came(
    config: TrialConfig, store: StoreFiles, tmp_path: Path, trial_form: dict[str, Any]
) -> None:
    shorter = TrialConfig.model_validate(trial_form)
    session = Session(store)
    session.prepare(shorter)
    run = session.trial(shorter, CPU)
    next(run)
    run.close()
    assert replayed(store, session.key(shorter)) is None


def test_what_cannot_be_replayed_is_said(
    store: StoreFiles, config: TrialConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    files = files_of(store, config)
    identity = read_json(files.config)
    for changed, words in (
        ({**identity, "semantics": 1}, "is of semantics 1"),
        ({**identity, "data": "other"}, "frames are not in the store"),
        ({**identity, "trial": {**identity["trial"], "seed": 5}}, "does not hash to its name"),
        ({**identity["trial"], "imported": "0" * 32, "target": "pretext"}, "was imported"),
    ):
        write_json(files.config, changed)
        try:
            with pytest.raises(StoreError, match=words):
                replayed(store, files.key)
        finally:
            write_json(files.config, identity)
    assert main(["replay", "nothing", "--store", str(store.root)]) == EXIT_USER_ERROR
    assert "holds no sweep 'nothing', and no trials whose keys begin with it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"optimizer": {"schedule": "constant"}},
        {"epochs": 8, "loss": {"alpha": 0.0}},
        {"loss": {"target": "action"}, "student": {"backbone": "s3d"}},
        {"student": {"backbone": "c3d", "width": 8}, "stages": {"a": 3, "b": 200}, "clip": {"resize": [130, 180]}},
        {"teacher": {"student": {"backbone": "c3d"}}, "loss": {"lambda": 0.0, "beta": 1.0}},
    ],
)
def test_a_configuration_is_restored_from_its_canonical_form(form: dict[str, Any]) -> None:
    config = TrialConfig.model_validate(form)
    again = restored(json.loads(json.dumps(canonical(config))), config.teacher, config.start)
    assert canonical(again) == canonical(config)


def test_differences_are_found_at_any_depth_and_clocks_do_not_count() -> None:
    row = {"epoch": 1, "seconds": 1.0, "at": 2.0, "train": {"loss": math.nan, "seconds": 3}}
    assert list(differences(row, {**row, "seconds": 9.0, "at": 9.0})) == []
    deeper = {**row, "train": {"loss": 0.5, "seconds": 4, "new": 1}}
    found = [path for path, _, _ in differences(row, deeper)]
    assert found == ["train.loss", "train.seconds", "train.new"]
