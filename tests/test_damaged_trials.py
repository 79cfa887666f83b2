"""A trial with damaged, stale or swapped files is refused, or made again to the same bits; never used as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import fuzz, fuzzed
from helpers import CPU, bits, flip_a_byte, only_group
from hypothesis import strategies as st

from kdtune.clips.frames.rendered import rendered_clips
from kdtune.config.search import ObjectiveConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import DamageError, StoreError
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json, read_jsonl, write_json, write_jsonl
from kdtune.sweep.group import outcome_in_store
from kdtune.train import trial as loop
from kdtune.train.checkpoint import content_digest, final_weights, read_checkpoint
from kdtune.train.importing.imports import import_trial
from kdtune.train.measuring.student import trained_student
from kdtune.train.prepared import source_id
from kdtune.train.profile import state_digest
from kdtune.train.replay import Replay
from kdtune.train.session import Session
from kdtune.train.soundness import missing

FORM: dict[str, Any] = {
    "data": {"dataset": "synthetic", "root": "rendered", "validation": 0.3},
    "clip": {"frames": 4, "size": 24},
    "student": {"backbone": "r3d", "width": 4},
    "loss": {"negatives": 16},
    "evaluation": {"clips": 1},
    "epochs": 3,
    "stages": {"early": 1, "late": 3},
    "optimizer": {"batch": 4},
}
SHORT = {"student": {"backbone": "r3d", "width": 4}, "epochs": 2, "stages": {"early": 1, "late": 2}}
CONFIG = TrialConfig.model_validate({**FORM, "teacher": SHORT, "start": {**SHORT, "seed": 1}})
assert CONFIG.teacher is not None
assert CONFIG.start is not None
TEACHER, START = CONFIG.teacher, CONFIG.start


@dataclass
class Trials:
    """A store for one test in which the trial, its teacher and its start are complete."""

    session: Session
    whole: TrialFiles

    def files(self, config: TrialConfig = CONFIG) -> TrialFiles:
        return self.session.files(config)

    def train(self, config: TrialConfig = CONFIG) -> list[dict[str, Any]]:
        return list(self.session.trial(config, CPU))

    def assert_same(self) -> None:
        """The trial's rows, weights and checkpoint equal those of an untouched trial."""
        assert bits(self.files()) == bits(self.whole)
        result = self.files().result()
        assert result is not None
        assert state_digest(final_weights(self.files().checkpoint)) == result["weights_sha256"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("whole")
    clips = rendered_clips(folder / "clips", CONFIG.clip.stored_size, classes=("Rise", "Grow"), groups=4, clips=2)
    session = Session(StoreFiles(folder / "store"), {source_id(CONFIG.data, CONFIG.clip): str(clips.folder)})
    list(session.trial(CONFIG, CPU))
    return session


@pytest.fixture
def trials(whole: Session, tmp_path: Path) -> Trials:
    store = StoreFiles(shutil.copytree(whole.store.root, tmp_path / "store"))
    return Trials(Session(store, dict(whole.folders), cache=whole.cache, costs=whole.costs), whole.files(CONFIG))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the epoch of each training step, and whether the trial has a teacher."""
    taken: list[str] = []
    forward = loop.forward

    def counted(state: Any, loss: Any, epoch: int, *more: Any) -> Any:
        taken.append(f"epoch {epoch}{' with a teacher' if state.origins else ''}")
        return forward(state, loss, epoch, *more)

    monkeypatch.setattr(loop, "forward", counted)
    return taken


# ---- records ---------------------------------------------------------------------------------------------------------


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[TrialFiles], None]:
    def damage(files: TrialFiles) -> None:
        files.epochs.write_bytes(b"".join(change(files.epochs.read_bytes().splitlines(keepends=True))))

    return damage


def changed_accuracy(files: TrialFiles) -> None:
    rows = read_jsonl(files.epochs)
    rows[0]["evaluation"]["validation"]["knn"] += 0.25
    write_jsonl(files.epochs, rows)


def changed_result(**fields: Any) -> Callable[[TrialFiles], None]:
    return lambda files: write_json(files.result_file, {**read_json(files.result_file), **fields})


RECORDS: dict[str, Callable[[TrialFiles], Any]] = {
    "no rows": lambda files: files.epochs.unlink(),
    "rows emptied": lambda files: files.epochs.write_text(""),
    "a stage's row deleted": lines(lambda rows: rows[1:]),
    "a row in the middle deleted": lines(lambda rows: [rows[0], rows[2]]),
    "the last row deleted": lines(lambda rows: rows[:2]),
    "a row twice": lines(lambda rows: [rows[0], rows[1], rows[1], rows[2]]),
    "two rows exchanged": lines(lambda rows: [rows[1], rows[0], rows[2]]),
    "a line cut": lines(lambda rows: [rows[0][:40] + b"\n", *rows[1:]]),
    "no object": lines(lambda rows: [b"[1]\n", *rows[1:]]),
    "binary": lambda files: files.epochs.write_bytes(b"\xff\xfe\n"),
    "an accuracy changed": changed_accuracy,
    "no result": lambda files: files.result_file.unlink(),
    "result cut": lambda files: files.result_file.write_bytes(files.result_file.read_bytes()[:50]),
    "result emptied": lambda files: files.result_file.write_text(""),
    "result of another type": lambda files: files.result_file.write_text("[]"),
    "result without weights": changed_result(weights_sha256=None),
    "result with other weights": changed_result(weights_sha256="0" * 64),
    "result with other epochs": changed_result(epochs=7),
    "result nested": lambda files: files.result_file.write_text("[" * 100_000),
}


@pytest.mark.parametrize("damage", RECORDS)
def test_records_of_a_complete_trial_are_made_again_from_its_checkpoint(
    damage: str, trials: Trials, steps: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    files = trials.files()
    RECORDS[damage](files)
    rows = trials.train()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row.get("stage") for row in rows] == ["early", None, "late"]
    assert rows == files.rows()
    trials.assert_same()
    assert steps == []
    said = capsys.readouterr().err
    assert (str(files.folder) in said) == (damage != "no result"), "which nothing tells from a killed trial"
    assert len(trials.train()) == 3
    assert capsys.readouterr().err == "", "mended once and for all"


STOPPED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "no rows": lambda rows: [],
    "the first deleted": lambda rows: rows[1:],
    "a row twice": lambda rows: [rows[0], *rows],
    "a line cut": lambda rows: [rows[0][:40] + b"\n", rows[1]],
}


@pytest.mark.parametrize("damage", STOPPED)
def test_a_trial_that_was_stopped_resumes_with_all_its_rows(
    damage: str, trials: Trials, steps: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    files = trials.files()
    shutil.rmtree(files.folder)
    run = trials.session.trial(CONFIG, CPU)
    for _ in range(2):
        next(run)
    run.close()
    lines(STOPPED[damage])(files)
    steps.clear()
    assert [row["epoch"] for row in trials.train()] == [1, 2, 3]
    trials.assert_same()
    assert {step.split()[1] for step in steps} == {"3"}
    assert "its rows are restored from the checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [name for name in RECORDS if name != "result with other weights"])
def test_a_sweep_does_not_take_a_damaged_trial_for_complete(damage: str, trials: Trials) -> None:
    objectives, group = [ObjectiveConfig(metric="knn")], only_group(CONFIG, trials.files().key)
    sound = outcome_in_store(group, objectives, trials.session.store)
    assert sound is not None
    assert sound.state == "complete"
    RECORDS[damage](trials.files())
    assert outcome_in_store(group, objectives, trials.session.store) is None
    trials.train()
    assert outcome_in_store(group, objectives, trials.session.store) == sound


def test_what_rows_lack_is_named() -> None:
    assert missing([1, 2, 3]) == missing([], 0) == ""
    assert missing([], 3) == "lacks epoch 1 to 3"
    assert missing([2, 5, 6], 7) == "lacks epoch 1, 3 to 4, 7"
    assert missing([1, 1, 3], 2) == (
        "lacks epoch 2, and holds epoch 3, which the trial does not have, and holds epoch 1 more than once"
    )
    assert missing([2, 1]) == "holds its epochs out of order"


# ---- weights ---------------------------------------------------------------------------------------------------------


def stale(files: TrialFiles) -> None:
    shutil.copy(files.stage_checkpoint("early"), files.checkpoint)


def truncated(files: TrialFiles) -> None:
    files.checkpoint.write_bytes(files.checkpoint.read_bytes()[:-3000])


def other_weights(files: TrialFiles) -> None:
    """A whole checkpoint of this trial with other weights."""
    parts = read_checkpoint(files.checkpoint)
    parts["network"]["head.bias"] += 1
    torch.save({**parts, "sha256": content_digest(parts)}, files.checkpoint)


WEIGHTS: dict[str, Callable[[TrialFiles], Any]] = {
    "an earlier one of the trial": stale,
    "another trial's": lambda files: shutil.copy(next(_others(files)).checkpoint, files.checkpoint),
    "other weights": other_weights,
    "truncated": truncated,
    "a bit": lambda files: flip_a_byte(files.checkpoint, files.checkpoint.stat().st_size // 2),
    "gone": lambda files: files.checkpoint.unlink(),
    "no checkpoint": lambda files: torch.save({"network": {"a": 1}}, files.checkpoint),
}


def _others(files: TrialFiles) -> Any:
    return (TrialFiles(folder) for folder in files.folder.parent.iterdir() if folder != files.folder)


@pytest.mark.parametrize(
    ("which", "damage"),
    [pytest.param(TEACHER, name, id=f"teacher, {name}") for name in WEIGHTS]
    + [pytest.param(START, name, id=f"start, {name}") for name in ("an earlier one of the trial", "other weights")],
)
def test_a_teacher_or_start_with_other_weights_is_trained_again_before_it_is_used(
    which: TrialConfig, damage: str, trials: Trials, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(trials.files().folder)
    shutil.rmtree(trials.session.store.root / "targets")
    WEIGHTS[damage](trials.files(which))
    trials.train()
    trials.assert_same()
    said = capsys.readouterr().err
    assert f"{trials.files(which).checkpoint}: " in said
    assert "training it again from what is intact" in said


def test_targets_that_are_there_need_no_weights(trials: Trials, steps: list[str]) -> None:
    shutil.rmtree(trials.files().folder)
    trials.files(TEACHER).checkpoint.unlink()
    trials.train()
    trials.assert_same()
    assert set(steps) == {f"epoch {epoch} with a teacher" for epoch in (1, 2, 3)}


def test_a_teacher_that_comes_out_otherwise_teaches_under_another_name(
    trials: Trials, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on another kind of machine: earlier targets are not mixed with new ones."""
    teacher, files = trials.files(TEACHER), trials.files()
    run = trials.session.trial(CONFIG.model_copy(update={"seed": 7}), CPU)
    next(run)
    run.close()
    rows = teacher.rows()
    rows[-1]["weights_sha256"] = "0" * 64
    write_jsonl(teacher.epochs, rows)
    changed_result(weights_sha256="0" * 64)(teacher)
    teacher.checkpoint.unlink()
    shutil.rmtree(trials.session.store.root / "targets")
    other = CONFIG.model_copy(update={"seed": 7})
    with pytest.raises(
        StoreError, match="the teacher was trained again, to other weights than this trial learned from"
    ):
        trials.train(other)
    capsys.readouterr()
    list(trials.session.trial(other, CPU))
    result = trials.files(other).result()
    assert result is not None
    assert result["origins"]["teacher"] == (teacher.result() or {})["weights_sha256"]
    assert files.result() is not None


def test_a_checkpoint_that_learned_from_other_weights_is_dropped(
    trials: Trials, capsys: pytest.CaptureFixture[str]
) -> None:
    files = trials.files()
    parts = read_checkpoint(files.stage_checkpoint("early"))
    parts["origins"]["teacher"] = "0" * 64
    torch.save({**parts, "sha256": content_digest(parts)}, files.checkpoint)
    for path in (files.result_file, files.stage_checkpoint("early")):
        path.unlink()
    trials.train()
    trials.assert_same()
    assert "learned from other weights than its teacher or start now has" in capsys.readouterr().err


@pytest.mark.parametrize("damage", WEIGHTS)
def test_other_weights_are_not_served_nor_imported(damage: str, trials: Trials, tmp_path: Path) -> None:
    files = trials.files(START)
    trained_student(files)
    other = StoreFiles(tmp_path / "other")
    import_trial(files.folder, other)
    WEIGHTS[damage](files)
    with pytest.raises(StoreError, match=r"remove its folder to train it again|no longer has a checkpoint"):
        trained_student(files)
    with pytest.raises(StoreError):
        import_trial(files.folder, StoreFiles(tmp_path / "third"))
    assert import_trial(other.trial(files.key).folder, trials.session.store) == files.key
    trained_student(files)


def test_a_replay_does_not_begin_at_another_stages_checkpoint(trials: Trials) -> None:
    files = trials.files(START)
    shutil.copy(files.checkpoint, files.stage_checkpoint("early"))
    with Replay(trials.session.store, CPU, "early") as replays:
        replays.session.folders.update(trials.session.folders)
        with pytest.raises(DamageError, match="the row of stage early names"):
            replays._begin_at("early", files, START)


# ---- everything at once ----------------------------------------------------------------------------------------------

DAMAGED = ("epochs.jsonl", "result.json", "checkpoint.pt", "stage_early.pt")


@fuzzed
def test_any_damage_to_any_files_ends_in_the_same_bits(examples: int, whole: Session, tmp_path: Path) -> None:
    store, count = StoreFiles(tmp_path / "store"), 0
    session = Session(store, dict(whole.folders), cache=whole.cache, costs=whole.costs)
    damage = st.tuples(
        st.sampled_from([CONFIG, TEACHER, START]),
        st.sampled_from(DAMAGED),
        st.sampled_from(["gone", "empty", "cut", "flipped", "swapped"]),
        st.floats(0, 1, exclude_max=True),
    )

    def check(damages: list[tuple[TrialConfig, str, str, float]], forget: bool) -> None:
        nonlocal count
        count += 1
        shutil.rmtree(store.root, ignore_errors=True)
        shutil.copytree(whole.store.root, store.root)
        for config, name, how, share in damages:
            path = session.files(config).folder / name
            content = path.read_bytes() if path.exists() else b""
            at = int(share * len(content))
            if how == "gone" or not content:
                path.unlink(missing_ok=True)
            elif how == "swapped":
                shutil.copy(whole.files(START if config is not START else TEACHER).folder / name, path)
            elif how == "flipped" and name.endswith(".pt"):
                flip_a_byte(path, at)
            else:
                path.write_bytes(b"" if how == "empty" else content[:at])
        if forget:
            shutil.rmtree(session.files(CONFIG).folder)
            shutil.rmtree(store.root / "targets")
        list(session.trial(CONFIG, CPU))
        assert bits(session.files(CONFIG)) == bits(whole.files(CONFIG)), damages

    fuzz(check, st.lists(damage, min_size=1, max_size=4), st.booleans(), examples=max(8, examples // 10))
