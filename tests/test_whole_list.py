"""Training on the whole list: `data.validation: 0` makes the test list validation, which is reported everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fabricated import fabricate, sweep_of, usual_figure
from helpers import CPU

from kdtune.api.reporting import make_report
from kdtune.clips.dataset import TrialData
from kdtune.clips.summary import lines
from kdtune.config.checking.steering import steered_by_test
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.plan.plan import plan
from kdtune.store import StoreFiles
from kdtune.train.measuring.evaluate import HeadScores, evaluate
from kdtune.train.samples import Samples
from kdtune.train.session import Session


@pytest.fixture(scope="module")
def whole(trial_form: dict[str, Any]) -> TrialConfig:
    return TrialConfig.model_validate({**trial_form, "data": {**trial_form["data"], "validation": 0}})


def test_every_training_video_is_trained_on_and_the_test_list_is_validation(
    whole: TrialConfig, tiny: TrialConfig, prepared: Session
) -> None:
    clips = prepared.clips(whole)
    data, carved = TrialData.of(whole, clips), TrialData.of(tiny, clips)
    listed = clips.index.index[clips.index["split"] == "train"]
    assert sorted(data.train) == sorted(listed) == sorted([*carved.train, *carved.validation])
    assert data.validation.tolist() == data.test.tolist() == carved.test.tolist()
    assert prepared.key(whole) != prepared.key(tiny)


def test_the_same_videos_are_measured_once_with_the_figures_that_they_have_apart(
    whole: TrialConfig, prepared: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = TrialData.of(whole, prepared.clips(whole))
    network = build_network(whole, data.classes)
    once = evaluate(network, Samples(whole, data, CPU))
    # In another order they are no longer recognised as the test list.
    apart = evaluate(network, Samples(whole, replace(data, validation=data.validation[::-1].copy()), CPU))
    assert once.scores["validation"] == once.scores["test"]
    assert list(once.scores) == list(apart.scores) == ["validation", "test"]
    for split in apart.scores:
        assert once.scores[split] == pytest.approx(apart.scores[split], abs=1e-12)
    asked: list[int] = []
    monkeypatch.setattr(
        "kdtune.train.measuring.evaluate.head_scores", lambda _, __, rows, ___: asked.extend(rows) or HeadScores({}, {})
    )
    evaluate(network, Samples(whole, data, CPU))
    assert asked == data.test.tolist()


def test_the_summary_says_what_validation_is(whole: TrialConfig, prepared: Session) -> None:
    (line,) = [line for line in lines(prepared.summary(whole)) if "splits" in line]
    assert "the test list: data.validation is 0" in line
    test = len(TrialData.of(whole, prepared.clips(whole)).test)
    assert f"validation {test} (" in line


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"trial": {"data": {"validation": 0}}}, ["trial.data.validation is 0"]),
        ({"trial": {"finetune": {"data": {"validation": 0}}}}, ["trial.finetune.data.validation is 0"]),
        ({"trial": {"finetune": {}, "data": {"validation": 0.2}}}, []),
        ({"teachers": {"c3d": {"data": {"validation": 0}}, "r21d": {}}}, ["teachers.c3d.data.validation is 0"]),
        ({"search": {"blocks": {"data.validation": [0.2, 0]}}}, ["search.blocks.data.validation has 0"]),
        ({"search": {"controls": [{"data.validation": 0.0}]}}, ["search.controls.0.data.validation has 0"]),
        ({"objective": {"metric": "knn", "split": "test"}}, ["objective.split is test"]),
        ({"objective": [{"metric": "knn"}, {"metric": "linear", "split": "test"}]}, ["objective.1.split is test"]),
    ],
)
def test_a_sweep_that_the_test_list_steers_is_known(changes: dict[str, Any], reasons: list[str]) -> None:
    assert steered_by_test(sweep_of(**changes)) == reasons


def test_plan_and_report_say_that_the_test_list_steers(tmp_path: Path) -> None:
    search = {"seeds": [0], "blocks": {}, "candidates": 1}
    store, sweep = StoreFiles(tmp_path / "runs"), sweep_of(search, trial={"data": {"validation": 0}, "epochs": 8})
    said = "trial.data.validation is 0: the test list steers this sweep"
    assert any(said in line for line in plan(sweep, store))
    fabricate(store, sweep, usual_figure)
    page = make_report(store, "s")[0].read_text()
    assert said in page
    assert not (store.report("s") / "tables" / "test.csv").exists()
    assert "no search and no pruning" not in page
