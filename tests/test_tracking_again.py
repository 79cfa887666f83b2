"""MLflow when a sweep runs again: after an interrupt, and after its content was deleted or changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from servers import wait_until
from tracked import EXPERIMENT, SWEEP, Shown, make_trial, make_trials, publish, write_epoch

from kdtune.store import StoreFiles
from kdtune.tracking.location import database_path
from kdtune.tracking.publish import Publisher, TrackedTrial, read_run_ids
from kdtune.tracking.sweep_text import SweepText


def test_running_again_doubles_nothing(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    trials = make_trials(store)
    assert publish(uri, tmp_path, trials) == []
    before, ids = Shown(uri), read_run_ids(tmp_path / "mlflow.jsonl", uri)
    assert publish(uri, tmp_path, trials) == []
    after = Shown(uri)
    assert after.everything() == before.everything()
    assert [run.info.run_id for run in after.parents] == [run.info.run_id for run in before.parents]
    assert read_run_ids(tmp_path / "mlflow.jsonl", uri) == ids
    assert len((tmp_path / "mlflow.jsonl").read_text().splitlines()) == 1


def test_a_run_that_has_everything_is_not_written_again(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    def found(cached: str) -> list[TrackedTrial]:
        return [replace(trial, tags={**trial.tags, "kdtune.cached": cached}) for trial in trials]

    def written() -> list[tuple[str, int]]:
        artifacts = tmp_path / "mlflow" / "artifacts"
        return sorted((str(path), path.stat().st_mtime_ns) for path in artifacts.glob("**/config.json"))

    trials = make_trials(store)[:3]
    assert publish(uri, tmp_path, found("false")) == []
    before, configs = Shown(uri).everything(), written()
    assert len(configs) == 3
    assert publish(uri, tmp_path, found("true")) == []  # as when the sweep's command runs again
    assert Shown(uri).everything() == before
    assert written() == configs


def test_a_pruned_trial_that_another_sweep_continues_shows_its_rows(
    uri: str, store: StoreFiles, tmp_path: Path
) -> None:
    trial = make_trial(store, 1, "pruned", 2)
    assert publish(uri, tmp_path, [trial]) == []
    write_epoch(trial, 3)
    assert publish(uri, tmp_path, [trial]) == []
    shown = Shown(uri)
    assert [step for step, _, _ in shown.history(trial.name, "train/loss")] == [1, 2, 3]
    assert shown.trials[trial.name].data.tags["kdtune.epochs"] == "3"


def test_an_interrupted_trial_resumes_in_its_run(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    trial = make_trial(store, 1, "running", 2)
    assert publish(uri, tmp_path, [trial], "interrupted") == []
    first = Shown(uri)
    assert [run.info.status for run in (*first.parents, *first.trials.values())] == ["KILLED", "KILLED"]
    write_epoch(trial, 3)
    write_epoch(trial, 4)
    assert publish(uri, tmp_path, [replace(trial, state="complete")]) == []
    second = Shown(uri)
    assert [step for step, _, _ in second.history(trial.name, "train/loss")] == [1, 2, 3, 4]
    assert second.trials[trial.name].info.run_id == first.trials[trial.name].info.run_id
    assert second.trials[trial.name].info.status == second.parents[0].info.status == "FINISHED"


def test_a_deleted_database_is_filled_anew(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    trials = make_trials(store)
    assert publish(uri, tmp_path, trials) == []
    before = Shown(uri).everything()
    database = database_path(uri)
    assert database is not None
    database.unlink()
    assert publish(uri, tmp_path, trials) == []
    shown = Shown(uri)
    assert shown.everything() == before
    ids = {run.data.tags["kdtune.key"]: run.info.run_id for run in shown.trials.values()}
    assert read_run_ids(tmp_path / "mlflow.jsonl", uri) == {"parent": shown.parents[0].info.run_id, **ids}


def test_a_database_deleted_in_mid_sweep_is_filled_anew(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    first, second = make_trial(store, 1, "complete", 4), make_trial(store, 2, "running", 1)
    publisher = Publisher(uri, EXPERIMENT, SweepText(SWEEP), tmp_path / "mlflow.jsonl")
    publisher.update(first)
    wait_until(lambda: first.key in read_run_ids(tmp_path / "mlflow.jsonl", uri), "the first trial is sent")
    database = database_path(uri)
    assert database is not None
    database.unlink()
    publisher.update(second)
    assert publisher.close("complete", timeout_s=120) == []
    shown = Shown(uri)
    assert len(shown.parents) == 1
    assert len(shown.history(first.name, "train/loss")) == 4
    assert len(shown.history(second.name, "train/loss")) == 1


def test_a_run_deleted_in_the_pages_comes_back(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    trials = make_trials(store)
    assert publish(uri, tmp_path, trials) == []
    shown = Shown(uri)
    shown.client.delete_run(shown.trials["1 · c3d"].info.run_id)
    assert publish(uri, tmp_path, trials) == []
    assert Shown(uri).everything() == shown.everything()


def test_a_changed_param_makes_the_run_anew(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    trial = make_trial(store, 1, "complete", 4)
    assert publish(uri, tmp_path, [trial]) == []
    renamed = replace(trial, params={**trial.params, "teacher": "c3d_wide"})
    assert publish(uri, tmp_path, [renamed]) == []
    shown = Shown(uri)
    assert shown.trials[trial.name].data.params["teacher"] == "c3d_wide"
    assert [step for step, _, _ in shown.history(trial.name, "train/loss")] == [1, 2, 3, 4]


def test_what_a_killed_driver_left_running_is_ended(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    trial = make_trial(store, 1, "running", 1)
    assert publish(uri, tmp_path, [trial]) == []
    shown = Shown(uri)
    shown.client.update_run(shown.trials[trial.name].info.run_id, status="RUNNING")
    assert publish(uri, tmp_path, []) == []
    assert Shown(uri).trials[trial.name].info.status == "KILLED"
