"""Racing: the rules, the decisions of a look, and the seeds that are still needed."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from kdtune.history.gains import Family, Gain, paired_gain
from kdtune.history.metric import MetricSpec
from kdtune.history.racing import RaceRules, fixed_seeds, fixed_trainings, look, seeds_needed

KNN = MetricSpec("knn", "validation", "late", "max", "knn")
LOSS = MetricSpec("pretext_loss", "validation", "late", "min", "pretext_loss")
Scores = dict[int, list[float]]


def network(share: float, seeds: int = 8, videos: int = 400, number: int = 0) -> Scores:
    """Return the outcomes of a network that answers this share of the videos rightly, the easy ones rather than the
    hard ones. All networks see the same videos."""
    easy = np.random.default_rng(0).normal(size=videos)
    threshold = stats.norm.ppf(share) * math.sqrt(2)
    found = {}
    for seed in range(seeds):
        noise = np.random.default_rng([number, seed]).normal(size=videos)
        found[seed] = [float(right) for right in easy + noise + threshold > 0]
    return found


def first(scores: Scores, seeds: int) -> Scores:
    return {seed: scores[seed] for seed in range(seeds)}


def test_looks_are_fixed_and_spend_the_whole_error_probability() -> None:
    rules = RaceRules()
    assert rules.looks == (2, 3, 5, 8)
    assert sum(map(rules.share, rules.looks)) == pytest.approx(1)
    assert [rules.look_at(seeds) for seeds in (1, 2, 4, 8, 9)] == [None, 2, 3, 8, 8]
    assert rules.family(8, 16).alpha == pytest.approx(0.05 / 16 * (1 - (5 / 8) ** 3))
    assert RaceRules(first=4, most=4).looks == (4,)
    assert RaceRules(first=2, most=100).looks[-1] == 100


@pytest.mark.parametrize("wrong", [{"first": 1}, {"first": 5, "most": 4}, {"confidence": 1.0}, {"margin": 0.0}])
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        RaceRules(**wrong)  # type: ignore[arg-type]


def test_a_look_finds_the_better_candidate_and_agrees_with_the_history_s_gains() -> None:
    rules, control = RaceRules(), network(0.3)
    candidates = {3: network(0.5, number=1), 7: network(0.32, number=2)}
    found = look(rules, KNN, candidates, control, 16)
    assert (found.decision, found.leader, found.dropped, found.left) == ("better", 3, {}, (3, 7))
    for number, own in candidates.items():
        values, base = ({seed: fmean(one) for seed, one in each.items()} for each in (own, control))
        gain = paired_gain(KNN, values, base, rules.family(8, 16), scores=own, control_scores=control)
        assert gain is not None
        assert found.gains[number].verdict == gain.verdict == ("better" if number == 3 else "not decided")
        assert (found.gains[number].low, found.gains[number].high) == pytest.approx((gain.low, gain.high))
        assert found.gains[number].differences == pytest.approx(gain.differences)
        assert (gain.basis, gain.videos, gain.comparisons, gain.looks) == ("seeds and videos", 400, 16, 4)


def test_two_seeds_decide_nothing_but_drop_what_is_far_behind() -> None:
    control = first(network(0.5, number=9), 2)
    shares = {0: 0.55, 1: 0.53, 2: 0.2, 3: 0.56, 4: 0.35}
    candidates = {number: first(network(share, number=number), 2) for number, share in shares.items()}
    found = look(RaceRules(), KNN, candidates, control, 16)
    assert found.decision is None
    assert found.dropped == {2: "worse than the control", 4: "worse than the control"}
    assert found.left == (0, 1, 3)
    lone = look(RaceRules(), KNN, {2: candidates[2]}, control, 16)
    assert (lone.decision, lone.leader, lone.left) == (None, 2, (2,)), "the leader of an open race stays"


def test_all_worse_within_the_margin_and_not_decided() -> None:
    control = network(0.5, number=9)
    worse = {number: network(0.2, number=number) for number in (0, 1)}
    assert look(RaceRules(), KNN, worse, control, 4).decision == "worse"
    close = {number: network(0.5, number=number) for number in (0, 1)}
    assert look(RaceRules(), KNN, close, control, 4).decision == "not decided"
    assert look(RaceRules(margin=15.0), KNN, close, control, 4).decision == "within margin"
    assert look(RaceRules(margin=1.0), KNN, close, control, 4).decision == "not decided"
    early = look(RaceRules(), KNN, {n: first(own, 5) for n, own in close.items()}, first(control, 5), 4)
    assert early.decision is None


def test_less_is_better_where_the_metric_says_so_and_one_value_per_seed_is_enough() -> None:
    rules = RaceRules(first=2, most=5)
    control = {seed: [1.5 + 0.01 * seed] for seed in range(5)}
    better = {seed: [1.0 + 0.012 * seed] for seed in range(5)}
    found = look(rules, LOSS, {0: better}, control, 1)
    assert found.decision == "better"
    assert found.gains[0].basis == "seeds"
    theirs = stats.ttest_rel([one for [one] in control.values()], [one for [one] in better.values()])
    ends = theirs.confidence_interval(1 - rules.family(5, 1).alpha)
    assert (found.gains[0].low, found.gains[0].high) == pytest.approx((ends.low, ends.high))
    worse = look(rules, LOSS, {0: control}, better, 1)
    assert worse.decision == "worse"


def test_a_look_at_other_seeds_is_refused() -> None:
    control = network(0.5, seeds=4)
    for candidates, base in (({}, first(control, 2)), ({0: control}, control), ({0: control}, first(control, 2))):
        with pytest.raises(ValueError, match="a look needs"):
            look(RaceRules(), KNN, candidates, base, 4)


def test_as_many_seeds_as_needed_decide_and_one_fewer_does_not() -> None:
    """Repeat the differences' mean and spread with more seeds: Student's t decides at the named number."""
    differences = (0.02, 0.05, -0.01, 0.04)
    mean, spread = fmean(differences), float(np.std(differences, ddof=1))
    gain = Gain(mean, differences, -0.02, 0.07, "seeds", (0, 1, 2, 3), family=Family(4))
    more = seeds_needed(gain)
    assert more is not None
    half = [stats.t.isf(0.05 / 8, n - 1) * spread / math.sqrt(n) for n in (4 + more - 1, 4 + more)]
    assert half[0] >= mean > half[1]


def test_no_seed_helps_where_it_is_decided_or_the_videos_are_too_few() -> None:
    seeds, differences = (0, 1, 2), (2.0, 3.0, 4.0)
    assert seeds_needed(Gain(3.0, differences, 1.0, 5.0, "seeds", seeds)) == 0
    assert seeds_needed(Gain(3.0, differences, -1.0, 7.0, "seeds and videos", seeds, 48, videos_part=4.0)) is None
    assert seeds_needed(Gain(3.0, (3.0,))) is None
    assert seeds_needed(Gain(3.0, (3.0,), -2.0, 8.0, "videos", (0,), 48)) in range(1, 10)


def test_fixed_seeds_take_as_many_trainings_as_the_same_power_needs() -> None:
    rules = RaceRules()
    seeds = fixed_seeds(rules, 16)
    last, fixed = rules.family(8, 16).alpha, Family(16).alpha
    reach = stats.t.isf(last / 2, 7) / math.sqrt(8)
    assert stats.t.isf(fixed / 2, seeds - 1) / math.sqrt(seeds) <= reach
    assert stats.t.isf(fixed / 2, seeds - 2) / math.sqrt(seeds - 1) > reach
    assert fixed_trainings(rules, [8, 8]) == seeds * 18
