"""Whole sweeps whose trials' figures are a function of the test's own: real campaigns, ledgers, journals and records,
and nothing trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from campaigns import key_of

from kdtune.config.key import digest
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import FINETUNE_STAGE
from kdtune.files import write_json, write_jsonl
from kdtune.store import Store
from kdtune.sweep.campaign import Campaign
from kdtune.sweep.driver import sweep_record
from kdtune.sweep.job import Job, Outcome, outcome_in_store
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.study import Journal

#: Of a job, the place of one of its seeds, and an epoch (fine-tuning's counted on): the validation accuracy there; None
#: makes the job fail.
Figure = Callable[[Job, int, int], float | None]
PROFILE = {"device": "a CPU", "torch": "2.15", "threads": 1}
FLOOR = 0.1


def fabricate(store: Store, sweep: SweepConfig, figure: Figure, ends: int | None = None) -> Campaign:
    """Run the sweep's campaign, one job at a time; after `ends` of them it is left as a killed driver would."""
    files = store.sweep(sweep.name)
    ledger = files.ledger(sweep.ledger)
    write_json(files.sweep, sweep_record(sweep, "", ledger, {}))
    campaign = Campaign(sweep, key_of, Ledger(ledger), Journal(files.study(ledger), sweep))
    while ends != 0 and (job := campaign.next_to_train(store)) is not None:
        campaign.finish(job, _train(store, sweep, job, figure), cached=False)
        ends = None if ends is None else ends - 1
    return campaign


def finish(store: Store, sweep: SweepConfig, job: Job, figure: Figure) -> None:
    """Give a pruned job its end, as `--regret` does."""
    last = list(job.configs[0].stage_epochs.values())[-1]
    for i, key in enumerate(job.keys):
        rows = _rows(job, i, figure, last)
        write_jsonl(store.trial(key).epochs, rows)
        _write_result(store, key, job, i, rows)


def _train(store: Store, sweep: SweepConfig, job: Job, figure: Figure) -> Outcome:
    stages = list(job.configs[0].stage_epochs.values())
    for epoch in stages:
        for i, key in enumerate(job.keys):
            if figure(job, i, epoch) is None:
                return Outcome("failed", error="the loss is not finite at epoch 1")
            write_json(store.trial(key).config, {"data": "fabricated"})
            write_jsonl(store.trial(key).epochs, _rows(job, i, figure, epoch))
        if (outcome := outcome_in_store(job, sweep.objectives, store)) is not None:
            return outcome  # pruned, or not finite
    for i, key in enumerate(job.keys):
        _write_result(store, key, job, i, store.trial(key).rows())
    for i, key in enumerate(job.finetuned):
        last = job.configs[i].milestones[FINETUNE_STAGE]
        value = figure(job, i, last)
        assert value is not None
        rows = [_row(epoch + 1) for epoch in range(last - job.configs[i].epochs)]
        scores = {split: {"top1": round(value - less, 6)} for split, less in (("validation", 0), ("test", 0.01))}
        rows[-1] |= {"stage": FINETUNE_STAGE, "evaluation": scores, "weights_sha256": digest(key) * 2}
        write_json(store.trial(key).config, {"data": "fabricated"})
        write_jsonl(store.trial(key).epochs, rows)
        _write_result(store, key, job, i, rows)
    outcome = outcome_in_store(job, sweep.objectives, store)
    assert outcome is not None
    return outcome


def _rows(job: Job, i: int, figure: Figure, last: int) -> list[dict[str, Any]]:
    names = {epoch: name for name, epoch in job.configs[0].stage_epochs.items()}
    rows: list[dict[str, Any]] = []
    for epoch in range(1, last + 1):
        row = _row(epoch)
        if epoch in names:
            value = figure(job, i, epoch)
            assert value is not None
            scores = {name: round(value, 6) for name in ("pretext", "knn", "linear")}
            scores |= {"pretext_loss": round(2 - value, 6), "action_floor": FLOOR, "pretext_floor": FLOOR}
            scores |= {f"best_{name}": score for name, score in scores.items() if not name.endswith("floor")}
            tested = {name: round(score - 0.01, 6) for name, score in scores.items()}
            row |= {"stage": names[epoch], "evaluation": {"validation": scores, "test": tested}}
            row["weights_sha256"] = digest([job.keys[i], epoch]) * 2
        rows.append(row)
    return rows


def _row(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "seconds": 2.0, "at": 1.0e9 + epoch, "train": {"loss": 1.0}}


def _write_result(store: Store, key: str, job: Job, i: int, rows: list[dict[str, Any]]) -> None:
    width = job.configs[i].student.width
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


def usual_figure(job: Job, i: int, epoch: int) -> float | None:
    """With all of the data candidate 1 is 10 points over the control, give or take half a point a seed, and the others
    are as good as it; with a quarter every candidate is far from it, now above, now below. Candidates 3 and 4 are weak
    at the first stage."""
    base = 0.2 + 0.05 * epoch + 0.03 * job.seeds[i]
    if job.kind != "candidate" or job.number is None or job.block is None:
        return base
    early = -0.05 if job.number > 2 and epoch == 2 else 0.0
    if job.block.index == 0:
        steps = (0.0, 0.005, -0.005)
        return base + early + (0.1 if job.number == 1 else 0.001 * job.number) + steps[(i + job.number) % 3]
    return base + early + (0.06, -0.07, 0.04)[(i + job.number) % 3] + 0.001 * job.number
