"""Tables: what a reader is told of controls, gains, majority baselines and pruned candidates, in every format."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any

import pytest
from scipy import stats
from watched import GMAC, KNN, a_history, asked, ended

from kdtune.history.events import Ended, Outcome
from kdtune.history.metric import MetricSpec
from kdtune.history.trials import EarlierProfile, SweepTrials, TrialEnd, TrialRecord
from kdtune.report.results import FORMATS, mixed_profiles, render, results_json, summary

#: The values of each seed in the end; None for a group that was pruned at the early stage.
Values = tuple[float, ...] | None
LATE: dict[str, dict[int | None, Values]] = {
    "fraction=1.0": {None: (0.4,), 0: (0.35,), 1: None, 2: (0.5,)},
    "fraction=0.25": {None: (0.2,), 0: (0.9,)},
}
PROFILE = {"device": "a CPU", "torch": "2.15", "cuda": None, "frames": "f", "threads": 1, "precision": "fp32"}


def told(
    late: Mapping[str, Mapping[int | None, Values]], metric: MetricSpec = KNN, cost: dict[str, float] | None = None
) -> SweepTrials:
    """Return a sweep in which the controls (None) and candidates of each block came to these values."""
    sizes = {block: sum(number is not None for number in groups) for block, groups in late.items()}
    history = a_history(blocks=sizes, objectives=(metric,))
    trials = []
    for block, groups in late.items():
        for number, values in groups.items():
            group = asked("control" if number is None else "candidate", number or 0, block, len(values or (0,)))
            student = {"student": "r3d", "alpha": 0.5, "fraction": 1.0}
            params = {"teacher": "none", "lambda": None, "tau": None} if number is None else {"teacher": "c3d"}
            params = {**student, "lambda": 0.25, "tau": 4.0, **params}
            known = history.apply(dataclasses.replace(group, params=(params,) * len(group.seeds)))
            assert known is not None
            stage = "early" if values is None else None
            outcome = Outcome("complete" if values is not None else "pruned", (values,) if values else (), stage=stage)
            history.apply(Ended(group.group, outcome))
            for i in range(len(group.seeds)):
                reached = {"early": 0.3} | ({} if values is None else {"late": values[i]})
                scores = {name: {metric.column: score, "action_majority": 0.125} for name, score in reached.items()}
                stages = {name: {"validation": found, "test": found} for name, found in scores.items()}
                end = None if values is None else TrialEnd(8, stages, "0" * 64, PROFILE, cost=cost)
                epochs = 2 if values is None else 8
                trials.append(
                    TrialRecord(known, i, outcome.state, epochs, stages, 1.0, "0" * 64, history.objectives, end)
                )
    return SweepTrials(history, trials, None)


@pytest.fixture
def results() -> SweepTrials:
    return told(LATE)


def line(text: str, start: str) -> list[str]:
    """The cells of the first line that starts with `start`."""
    return next(row for row in text.splitlines() if row.startswith(start)).split()


def test_gains_are_against_the_control_of_the_same_block(results: SweepTrials) -> None:
    first, second, _ = render(results, "table", {}).split("\n\n")  # the answer comes last
    assert line(first, "2 ")[6:] == ["0.300", "0.500", "+10.0", "complete"]
    assert line(first, "0 ")[6:] == ["0.300", "0.350", "−5.0", "complete"]
    assert line(second, "0 ")[6:] == ["0.300", "0.900", "+70.0", "complete"]


def test_candidates_stand_by_objective_and_pruned_ones_last(results: SweepTrials) -> None:
    first = render(results, "table", {}).split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in first[3:]] == ["control", "2", "0", "1"]
    assert first[-1].endswith("pruned at early")
    assert first[0] == "fraction=1.0: k-NN accuracy on validation (majority baseline 0.125)"


def test_a_loss_and_a_cost_are_called_what_they_are_and_less_is_better() -> None:
    loss = MetricSpec("pretext_loss", "validation", "late", "min", "pretext_loss")
    text = render(told({"all": {None: (1.0,), 0: (0.75,), 1: (1.125,)}}, loss), "table", {})
    assert text.splitlines()[0] == "all: pretext loss on validation"
    assert [row.split()[0] for row in text.split("\n\n")[0].splitlines()[3:]] == ["control", "0", "1"]
    assert [line(text, start)[-2] for start in ("0 ", "1 ")] == ["+0.25", "−0.125"]
    assert "gain (nats)" in text
    text = render(told({"all": {None: (2.0,), 0: (6.65,)}}, GMAC), "table", {})
    assert text.splitlines()[0] == "all: GMAC"
    assert line(text, "0 ")[6:] == ["6.65", "−4.65", "complete"]
    assert "gain (GMAC)" in text


def test_the_summary_names_every_candidate_that_it_does_not_show() -> None:
    many: dict[int | None, Values] = {None: (0.4,), **{n: (0.5 - n / 100,) for n in range(6)}, 6: None, 7: None}
    assert summary(told({"all": many})).endswith("… and 3 more: 5 complete; 6, 7 pruned at early")


def test_a_candidate_s_mean_over_its_seeds_decides_and_each_trial_has_its_own_gain() -> None:
    found = told({"all": {None: (0.4,), 0: (0.9, 0.1), 1: (0.6, 0.6)}})
    best = results_json(found, {})["best"]["all"]
    assert (best["candidate"], best["seed"]) == (1, 0)
    control = asked("control", 0, "all", group="all · control seed 1")
    found.history.apply(dataclasses.replace(control, seeds=(1,)))
    found.history.apply(ended(control.group, "complete", 0.2))
    text = render(found, "table", {})
    gains = {tuple(row.split()[:2]): row.split()[-2] for row in text.split("\n\n")[0].splitlines()[4:]}
    assert [row.split()[-2] for row in text.splitlines() if row.startswith("0 ")] == ["+50.0", "−10.0"], gains


def test_the_summary_has_the_means_over_a_candidate_s_seeds_and_its_gain_s_interval() -> None:
    found = told({"all": {None: (0.42, 0.38, 0.4), 0: (0.50, 0.52, 0.51), 1: (0.4, 0.4, 0.3)}})
    text = summary(found)
    assert line(text, "control")[1] == "3"
    differences = [0.50 - 0.42, 0.52 - 0.38, 0.51 - 0.40]
    half = stats.t.ppf(1 - 0.05 / 2 / 2, 2) * stdev(differences) / 3**0.5  # two candidates
    low, high = (f"+{100 * (fmean(differences) + end):.1f}".replace("+-", "−") for end in (-half, half))
    assert line(text, "0 ")[1:2] + line(text, "0 ")[7:] == [
        "3",
        "0.300",
        "0.510",
        "+11.0",
        f"({low}",
        "…",
        f"{high})",
        "complete",
    ]
    assert [row.split()[0] for row in text.splitlines()[3:]] == ["control", "0", "1"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_holds_every_trial(results: SweepTrials, form: str) -> None:
    text = render(results, form, {})
    if form == "json":
        assert json.loads(text) == results_json(results, {})
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["key"] for row in rows] == [trial.key for trial in results.trials]
        assert rows[2]["late.validation.knn"] == ""
    else:
        assert text.count("complete") == 5
        assert text.count("pruned at early") == 1


def test_costs_are_columns() -> None:
    cost = {"parameters": 229085, "gmac": 0.019, "peak_memory": 20.5, "clip_ms": 2.25, "epoch_seconds": 0.5}
    rows = list(csv.DictReader(io.StringIO(render(told(LATE, cost=cost), "csv", {}))))
    assert {name: float(rows[0][f"cost.{name}"]) for name in cost} == cost
    assert {rows[2][f"cost.{name}"] for name in cost} == {""}, "stopped early"
    assert "cost" not in rows[0]


def test_mixed_profiles_are_said(results: SweepTrials) -> None:
    some = results.trials[0]

    def ran(*profiles: dict[str, Any], earlier: tuple[EarlierProfile, ...] = ()) -> str | None:
        ends = [TrialEnd(8, {}, "0" * 64, profile, earlier) for profile in profiles]
        return mixed_profiles([*(dataclasses.replace(some, end=end) for end in ends), results.trials[2]])

    own = {"frames": "of another block", "threads": 2, "precision": "bf16"}
    assert ran(PROFILE, PROFILE, {**PROFILE, **own}) is None
    said = ran(PROFILE, {**PROFILE, "torch": "2.11", "cuda": "13.0"}, PROFILE) or ""
    assert "several profiles (cuda None | 13.0; torch 2.15 | 2.11)" in said
    resumed = ran(PROFILE, earlier=(EarlierProfile({**PROFILE, "torch": "2.11"}, 1),))
    assert "torch 2.11 | 2.15" in (resumed or "")
