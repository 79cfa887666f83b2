"""Sweeps whose figures are a function from the test: real schedulers, ledgers, journals and records, no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from schedulers import key_of

from kdtune.config.key import TRAINER_SEMANTICS, canonical, digest
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import FINETUNE_STAGE
from kdtune.history.record import SweepRecord
from kdtune.store import StoreFiles
from kdtune.store.files import write_json, write_jsonl
from kdtune.sweep.earlier import known_candidates
from kdtune.sweep.feasible import Costs, RecordedCosts
from kdtune.sweep.group import Outcome, TrialGroup, outcome_in_store
from kdtune.sweep.groups import KeyOf
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.study import Journal

#: Function of a group, the index of one of its seeds and an epoch (including fine-tuning's) to the validation accuracy.
#: None makes the group fail.
Figure = Callable[[TrialGroup, int, int], float | None]
PROFILE = {"device": "a CPU", "torch": "2.15", "threads": 1}
FLOOR = 0.1
VIDEOS = {"training": 64, "validation": 48, "test": 24}


def fabricate(
    store: StoreFiles,
    sweep: SweepConfig,
    figure: Figure,
    ends: int | None = None,
    keys: KeyOf = key_of,
    costs: Costs | None = None,
    prices: Sequence[str] = (),
) -> SweepScheduler:
    """Run the sweep's scheduler, one group at a time. Stop after `ends` groups, as a killed driver would."""
    files = store.sweep(sweep.name)
    ledger = files.ledger(sweep.ledger)
    write_json(files.sweep, SweepRecord.of(sweep, ledger.name, "", {}).row())
    asked = Ledger(ledger)
    list(known_candidates(sweep, asked, store, keys))
    metrics = [*(constraint.metric for constraint in sweep.constraints), *prices]
    recorded = None if costs is None else RecordedCosts(costs, metrics, asked)
    scheduler = SweepScheduler(sweep, keys, asked, Journal(files.study(ledger), sweep), costs=recorded)
    while ends != 0 and (group := scheduler.next_to_train(store)) is not None:
        scheduler.finish(group, _train(store, sweep, group, figure), cached=False)
        ends = None if ends is None else ends - 1
    return scheduler


def finish(store: StoreFiles, sweep: SweepConfig, group: TrialGroup, figure: Figure) -> None:
    """Train a pruned group to the end, as `--regret` does."""
    last = list(group.configs[0].stage_epochs.values())[-1]
    for i, key in enumerate(group.asked.keys):
        rows = _rows(group, i, figure, last)
        write_jsonl(store.trial(key).epochs, rows)
        _write_result(store, key, group, i, rows)


def _train(store: StoreFiles, sweep: SweepConfig, group: TrialGroup, figure: Figure) -> Outcome:
    stages = list(group.configs[0].stage_epochs.values())
    for epoch in stages:
        for i, key in enumerate(group.asked.keys):
            if figure(group, i, epoch) is None:
                return Outcome("failed", error="the loss is not finite at epoch 1")
            form = canonical(group.configs[i])
            write_json(store.trial(key).config, {"data": "", "trial": form, "semantics": TRAINER_SEMANTICS})
            write_json(store.trial(key).data, {"folder": "/videos", "videos": VIDEOS, "actions": ["Run", "Fall"]})
            write_jsonl(store.trial(key).epochs, _rows(group, i, figure, epoch))
        if (outcome := outcome_in_store(group, sweep.objectives, store)) is not None:
            return outcome  # pruned, or not finite
    for i, key in enumerate(group.asked.keys):
        _write_result(store, key, group, i, store.trial(key).rows())
    for i, key in enumerate(group.asked.finetuned):
        last = group.configs[i].milestones[FINETUNE_STAGE]
        value = figure(group, i, last)
        assert value is not None
        rows = [_row(epoch + 1) for epoch in range(last - group.configs[i].epochs)]
        scores = {split: {"top1": round(value - less, 6)} for split, less in (("validation", 0), ("test", 0.01))}
        rows[-1] |= {"stage": FINETUNE_STAGE, "evaluation": scores, "weights_sha256": digest(key) * 2}
        write_json(store.trial(key).config, {"data": "fabricated"})
        write_jsonl(store.trial(key).epochs, rows)
        _write_result(store, key, group, i, rows)
    outcome = outcome_in_store(group, sweep.objectives, store)
    assert outcome is not None
    return outcome


def _rows(group: TrialGroup, i: int, figure: Figure, last: int) -> list[dict[str, Any]]:
    names = {epoch: name for name, epoch in group.configs[0].stage_epochs.items()}
    rows: list[dict[str, Any]] = []
    for epoch in range(1, last + 1):
        row = _row(epoch)
        if epoch in names:
            value = figure(group, i, epoch)
            assert value is not None
            scores = {name: round(value, 6) for name in ("pretext", "knn", "linear")}
            scores |= {"pretext_loss": round(2 - value, 6), "action_majority": FLOOR, "pretext_majority": FLOOR}
            scores |= {f"best_{name}": score for name, score in scores.items() if not name.endswith("majority")}
            tested = {name: round(score - 0.01, 6) for name, score in scores.items()}
            row |= {"stage": names[epoch], "evaluation": {"validation": scores, "test": tested}}
            row["weights_sha256"] = digest([group.asked.keys[i], epoch]) * 2
        rows.append(row)
    return rows


def _row(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "seconds": 2.0, "at": 1.0e9 + epoch, "train": {"loss": 1.0}}


def _write_result(store: StoreFiles, key: str, group: TrialGroup, i: int, rows: list[dict[str, Any]]) -> None:
    width = group.configs[i].student.width
    store.trial(key).write_result(
        {
            "epochs": len(rows),
            "stages": {row["stage"]: row["evaluation"] for row in rows if "stage" in row},
            "weights_sha256": rows[-1]["weights_sha256"],
            "seconds": 2.0 * len(rows),
            "profile": PROFILE,
            "earlier_profiles": [],
            "cost": {"parameters": 1000 * width, "gmac": 0.01 * width**1.5},
        }
    )


# ---- the usual one ---------------------------------------------------------------------------------------------------

FORM: dict[str, Any] = {
    "name": "s",
    "question": "Does a teacher help?",
    "trial": {"epochs": 8, "stages": {"early": 2, "mid": 6, "late": 8}},
    "teachers": {"c3d": {"student": {"backbone": "c3d"}}, "r21d": {"student": {"backbone": "r21d"}}},
    "search": {
        "space": {"teacher": ["c3d", "r21d"], "lambda": {"log": [0.05, 5.0]}, "tau": {"range": [1.0, 8.0]}},
        "blocks": {"data.fraction": [1.0, 0.25]},
        "candidates": 5,
        "window": 2,
        "sampler": "random",
        "seeds": [0, 1, 2],
    },
    "prune": {"at": ["early"], "keep": 0.5, "min_peers": 2},
}


def sweep_of(search: dict[str, Any] | None = None, **changes: Any) -> SweepConfig:
    return SweepConfig.model_validate({**FORM, **changes, "search": {**FORM["search"], **(search or {})}})


def usual_figure(group: TrialGroup, i: int, epoch: int) -> float | None:
    """Return a validation accuracy with a clear answer in the block with all data, and none in the other.

    With all data, candidate 1 is 10 points above the control, ± half a point per seed, and the others equal the
    control. With a quarter of the data every candidate is far from the control, above or below. Candidates 3 and 4 are
    weak at the first stage.
    """
    base = 0.2 + 0.05 * epoch + 0.03 * group.asked.seeds[i]
    if group.asked.role != "candidate" or group.asked.number is None or group.block is None:
        return base
    i = group.asked.seeds[i]
    early = -0.05 if group.asked.number > 2 and epoch == 2 else 0.0
    if group.block.index == 0:
        steps = (0.0, 0.005, -0.005)
        return (
            base
            + early
            + (0.1 if group.asked.number == 1 else 0.001 * group.asked.number)
            + steps[(i + group.asked.number) % 3]
        )
    return base + early + (0.06, -0.07, 0.04)[(i + group.asked.number) % 3] + 0.001 * group.asked.number
