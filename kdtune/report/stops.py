"""What pruning saved, and what it cost: epochs not trained, and what stopped candidates come to where they go on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from kdtune.config.trial import TrialConfig
from kdtune.errors import Problem, StoreError
from kdtune.report.measure import Measure
from kdtune.report.results import config_of, groups_of, objective_value
from kdtune.report.standing import Row, Sweep
from kdtune.store import Store
from kdtune.store.records import objectives_of


@dataclass(frozen=True)
class Finished:
    """A stopped candidate whose trials the store has to their end, mean over the seeds."""

    block: str
    number: int
    stage: str
    """Where it was stopped."""
    keys: list[str]
    value: float
    best: float | None
    """Of the block's complete candidates."""
    control: float | None
    sign: int

    @property
    def over_best(self) -> float | None:
        """How much better it would have been than the block's best: above 0 the stop was wrong."""
        return None if self.best is None else self.sign * (self.value - self.best)

    @property
    def wrong(self) -> bool:
        return self.over_best is not None and self.over_best > 0


@dataclass(frozen=True)
class Stops:
    """The pruned candidates of a sweep."""

    pruned: int
    """Candidates."""
    candidates: int
    """That have ended, pruned or complete."""
    trained: int
    """Epochs of pre-training of those candidates, all seeds."""
    saved: int
    """Epochs that the pruned ones had left."""
    finished: list[Finished] = field(default_factory=list)


def stops_of(store: Store, sweep: Sweep) -> Stops:
    """From the ledger and the store."""
    groups = [
        (group, end)
        for group, end in groups_of(store, sweep.record)
        if group["kind"] == "candidate" and end is not None
    ]
    groups = [(group, end) for group, end in groups if end["state"] in ("complete", "pruned")]
    trials = {(trial["block"], trial["candidate"], trial["seed"]): trial for trial in sweep.trials}
    trained = saved = 0
    finished = []
    for group, end in groups:
        for seed in group["seeds"]:
            done = trials[group["block"], group["number"], seed]["epochs"]
            trained += done
            saved += group["epochs"] - done if end["state"] == "pruned" else 0
        if end["state"] == "pruned" and (found := _finished(store, sweep, group, end)) is not None:
            finished.append(found)
    return Stops(sum(end["state"] == "pruned" for _, end in groups), len(groups), trained, saved, finished)


def _finished(store: Store, sweep: Sweep, group: Row, end: Row) -> Finished | None:
    objective = objectives_of(sweep.record)[0]
    measure = Measure.of(objective)
    values = []
    for i, key in enumerate(group["keys"]):
        result = store.trial(key).sound_result()
        if result is None:
            return None
        stages = result["stages"] | (store.trial(group["finetuned"][i]).stages() if group["finetuned"] else {})
        value = objective_value(objective, {"stages": stages, "cost": result.get("cost") or {}})
        if value is None:
            return None
        values.append(value)
    standing = next(standing for standing in sweep.standings if standing.block == group["block"])
    finals = [list(entry.finals(measure).values()) for entry in standing.candidates if entry.state == "complete"]
    means = [measure.sign * fmean(found) for found in finals if found]
    control = list(standing.controls[0].finals(measure).values()) if standing.controls else []
    return Finished(
        group["block"],
        group["number"],
        end["stage"],
        group["keys"],
        fmean(values),
        measure.sign * max(means) if means else None,
        fmean(control) if control else None,
        measure.sign,
    )


def chosen(store: Store, record: dict[str, Any], count: int) -> Iterator[tuple[str, list[tuple[str, TrialConfig]]]]:
    """(name, [(key, trial)]) of `count` pruned candidates, for `--regret` to finish, fine-tunings included.

    Which ones follows from their names' hashes: the same each time, a larger count adds to a smaller, and no figure has
    a say in it. Raises StoreError where the sweep pruned nothing.
    """
    sweep = config_of(record)
    pruned = [group for group, end in groups_of(store, record) if end is not None and end["state"] == "pruned"]
    if not pruned:
        raise StoreError([Problem("--regret", "finishes pruned candidates, and this sweep has none yet")])
    blocks = {block.label: block for block in sweep.blocks()}
    for group in sorted(pruned, key=lambda group: hashlib.sha256(group["group"].encode()).hexdigest())[:count]:
        trials = []
        for i, seed in enumerate(group["seeds"]):
            config = sweep.build(blocks[group["block"]], group["values"], seed)
            trials.append((group["keys"][i], config))
            if config.finetuned is not None:
                trials.append((group["finetuned"][i], config.finetuned))
        yield group["group"], trials
