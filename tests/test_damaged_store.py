"""Whatever happens to a file of the store, every command ends with a result or a message, and names the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import damage
import pytest
from fuzzing import fuzz, fuzzed
from helpers import kdtune_here, short_videos
from hypothesis import strategies as st

from kdtune.clips.synthetic import make_synthetic
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_OK, EXIT_USER_ERROR, DamageError
from kdtune.history.record import read_record
from kdtune.store import StoreFiles, seal
from kdtune.store.files import read_json, read_jsonl, write_json, write_jsonl
from kdtune.store.kinds import KINDS, records
from kdtune.sweep.importance import importances
from kdtune.train.session import Session

CONTENTS: tuple[dict[str, Any], ...] = ({"a": 1}, {"text": "Zürich", "nested": {"list": [0.1, None, True]}})
#: Commands that only read; those that load or train much are in the slow test.
LOOKS = (("results", "small", "--format", "json"), ("status", "small", "--format", "json"), ("teacher", "list"))


@dataclass(frozen=True)
class Swept:
    """A store with a small trained sweep."""

    file: Path
    snapshot: damage.Snapshot

    @property
    def root(self) -> Path:
        return self.file.parent / "runs"

    def run(self, *command: str) -> tuple[int, str, str]:
        """Run a command in this process, as if in a fresh one. Return its exit code and output."""
        seal._noted.clear()
        done = kdtune_here(*command, "--store", str(self.root))
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    root = tmp_path_factory.mktemp("data") / "videos"
    with short_videos():
        make_synthetic(root, classes=("SpinLeft", "Rise"), groups=4, clips=1)
    trial = {
        "data": {"dataset": "synthetic", "root": str(root), "validation": 0.3},
        "clip": {"frames": 4, "size": 24},
        "student": {"backbone": "r3d", "width": 4},
        "loss": {"negatives": 16},
        "evaluation": {"clips": 1},
        "epochs": 1,
        "stages": {"late": 1},
    }
    session = Session(StoreFiles(tmp_path_factory.mktemp("prepared")))
    session.prepare(TrialConfig.model_validate(trial))
    file = damage.trained_sweep(tmp_path_factory.mktemp("small"), session, trial)
    found = Swept(file, damage.Snapshot(file.parent / "runs"))
    found.run("store", "check")  # creates the folder of the locks
    return found


# ---- what a seal tells -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", CONTENTS)
def test_every_flipped_bit_and_every_cut_of_a_record_is_noticed(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, content)
    whole = path.read_bytes()
    flips = [whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :] for i in range(len(whole)) for bit in range(8)]
    cuts = [whole[:i] for i in range(len(whole) - 1)]
    assert seal.opened(whole.rstrip(b"\n"), path) == content
    for other in [*flips, *cuts]:
        with pytest.raises(DamageError):
            seal.opened(other.rstrip(b"\n"), path)


def test_every_flipped_bit_of_lines_is_noticed_and_the_sound_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"n": 0}, {"n": 1}])
    whole = path.read_bytes()
    for i in [*range(0, 8 * len(whole) - 8, 5), *range(8 * len(whole) - 8, 8 * len(whole))]:
        path.write_bytes(whole[: i // 8] + bytes([whole[i // 8] ^ 1 << i % 8]) + whole[i // 8 + 1 :])
        with pytest.raises(DamageError):
            read_jsonl(path)
        assert len([row for row in read_jsonl(path, passing_over=True) if row in ({"n": 0}, {"n": 1})]) < 2


def test_a_record_without_a_checksum_is_damaged_and_an_empty_one_needs_none(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {})
    assert read_json(path) == {}
    path.write_text(json.dumps(CONTENTS[1], indent=1) + "\n")
    with pytest.raises(DamageError, match="is damaged: its checksum cannot be read"):
        read_json(path)


# ---- the check -------------------------------------------------------------------------------------------------------


def test_a_sound_store_is_found_sound_and_nothing_is_written(swept: Swept) -> None:
    before = {path: path.stat().st_mtime_ns for path in swept.root.rglob("*")}
    code, out, _ = swept.run("store", "check")
    assert (code, out) == (EXIT_OK, "0 damaged\n")
    assert {path: path.stat().st_mtime_ns for path in swept.root.rglob("*") if "locks" not in path.parts} == {
        path: time for path, time in before.items() if "locks" not in path.parts
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.pattern)
def test_a_changed_figure_of_each_kind_of_record_is_named_and_repaired(kind: Any, swept: Swept) -> None:
    found = [path for path, its in records(swept.root) if its is kind]
    if not found:
        rare = (
            "measured/*.json",
            "trials/*/classes_*.json",
            "sweeps/*/mlflow.jsonl",
            "sweeps/*/devices.json",
            "sweeps/*/regret.jsonl",
        )
        assert kind.pattern in rare
        found = [swept.root / kind.pattern.replace("*", "x")]
    with swept.snapshot.restored():
        path = found[0]
        if not path.exists():
            write_json(path, {"uri": "sqlite:///x.db", "runs": {}})
        content = path.read_bytes()
        digit = next(i for i, byte in enumerate(content) if chr(byte).isdigit())
        path.write_bytes(
            content[:digit] + (b"1" if content[digit : digit + 1] != b"1" else b"2") + content[digit + 1 :]
        )
        code, out, _ = swept.run("store", "check")
        assert code == EXIT_FAILED_TRIALS
        assert str(path) in out
        assert kind.remedy in out
        code, out, _ = swept.run("store", "check", "--repair")
        assert code == EXIT_OK, out
        assert list(path.parent.glob(f"{path.name}.damaged")), "what is set aside is kept"
        assert swept.run("store", "check")[0] == EXIT_OK


def test_a_checkpoint_that_holds_other_weights_is_named_and_its_trial_is_no_longer_complete(swept: Swept) -> None:
    trials = [files for files in StoreFiles(swept.root).trials() if files.checkpoint.exists()]
    with swept.snapshot.restored():
        trials[0].checkpoint.write_bytes(trials[1].checkpoint.read_bytes())
        code, out, _ = swept.run("store", "check")
        assert code == EXIT_FAILED_TRIALS
        assert "the checkpoint holds the weights" in out
        assert swept.run("store", "check", "--repair")[0] == EXIT_OK
        assert trials[0].result() is None
        assert trials[1].result() is not None


def test_what_is_in_work_is_left_alone(swept: Swept) -> None:
    store = StoreFiles(swept.root)
    files = store.trials()[0]
    with swept.snapshot.restored():
        files.result_file.write_text("{")
        with store.lock(f"trial-{files.key}"):
            code, out, _ = swept.run("store", "check", "--repair")
        assert (code, files.result_file.read_text()) == (EXIT_FAILED_TRIALS, "{")
        assert "left alone: it is in use" in out


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_one_damaged_trial_hides_no_other(swept: Swept) -> None:
    sound = json.loads(swept.run(*LOOKS[0])[1])["trials"]
    with swept.snapshot.restored():
        for name in ("config.json", "result.json", "epochs.jsonl"):
            damage.damaged(swept.root / "trials" / sound[0]["key"] / name, "binary", 0.5)
        code, out, err = swept.run(*LOOKS[0])
        assert code == EXIT_OK
        assert json.loads(out)["trials"][1:] == sound[1:]
        assert sound[0]["key"] in err
        assert swept.run("plan", str(swept.file))[0] == EXIT_OK


@pytest.mark.parametrize("way", [way for way in damage.WAYS if way != "deleted"])
def test_a_damaged_journal_costs_the_importances_alone(way: str, swept: Swept) -> None:
    files = StoreFiles(swept.root).sweep("small")
    record = read_record(StoreFiles(swept.root), "small")
    with swept.snapshot.restored():
        damage.damaged(files.study(files.folder / record.ledger), way, 0.5)
        assert importances(files, record) == {}


def _check(swept: Swept, commands: list[tuple[str, ...]], sound: dict[tuple[str, ...], str], drawn: Any) -> None:
    index, way, at = drawn
    files = damage.files_of(swept.root)
    path = files[index % len(files)]
    with swept.snapshot.restored():
        damage.damaged(path, way, at)
        for command in commands:
            code, out, err = swept.run(*command)
            assert code in (EXIT_OK, EXIT_FAILED_TRIALS, EXIT_USER_ERROR)
            assert "Traceback" not in err
            silent = way not in ("deleted", "truncated", "empty") and code == EXIT_OK and path.name not in err
            assert not silent or out == sound[command], f"{command} uses the damaged {path} without a word"


def _fuzz(swept: Swept, commands: list[tuple[str, ...]], examples: int) -> None:
    sound = {command: swept.run(*command)[1] for command in commands}
    drawn = st.tuples(st.integers(0, 10_000), st.sampled_from(damage.WAYS), st.floats(0, 1, exclude_max=True))
    fuzz(lambda which: _check(swept, commands, sound, which), drawn, examples=examples)


@fuzzed
def test_commands_that_look_at_a_damaged_store_say_so(examples: int, swept: Swept) -> None:
    _fuzz(swept, list(LOOKS), 25 if examples < 1000 else 3000)


@pytest.mark.slow
def test_every_command_on_a_damaged_store_ends_with_a_message(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    report = ("report", "small", "--out", str(swept.file.parent / "page"))
    plan = ("plan", str(swept.file))
    _fuzz(swept, [*LOOKS, ("status",), ("results", "small", "--accuracies"), plan, report], 400)
