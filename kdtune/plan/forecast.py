"""What a sweep would find in the store, go on with and begin: a look ahead with the real scheduler, writing nothing.

What is there counts as ended, so that the search asks on as it would. Where the store cannot hold a trial of the sweep,
no search is asked: then nothing imports Optuna.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from kdtune.config.key import trial_key
from kdtune.config.refit import refit_of
from kdtune.config.space import Parameter, Scalar, resolve
from kdtune.config.sweep import Block, SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.history.events import Outcome
from kdtune.store import Store
from kdtune.sweep.group import TrialGroup, outcome_in_store
from kdtune.sweep.groups import GroupFactory, KeyOf
from kdtune.sweep.ledger import Ledger

if TYPE_CHECKING:
    from kdtune.plan.keys import Keys

#: How many candidates are imagined, for what they may cost, of those of a block that nobody knows yet.
IMAGINED = 16


@dataclass(frozen=True)
class PendingTrial:
    """A trial that is still to be trained, or the rest of one."""

    config: TrialConfig
    name: str
    """For people."""
    done: int = 0
    """Epochs that are there."""
    times: float = 1.0
    """How many trials it stands for; a share where nobody knows yet what will be asked."""


@dataclass
class Forecast:
    """The trials of a sweep, each once; fine-tunings are trials, and so are teachers and their teachers."""

    found: set[str] = field(default_factory=set)
    """Keys of those whose end is in the store."""
    continued: dict[str, PendingTrial] = field(default_factory=dict)
    """Key → the rest of a trial that has a checkpoint."""
    new: dict[str, PendingTrial] = field(default_factory=dict)
    unasked: int = 0
    """Trials of candidates that can be asked only when others have ended."""
    imagined: list[PendingTrial] = field(default_factory=list)
    """What these may be."""

    @property
    def pending(self) -> list[PendingTrial]:
        """All that is to be trained, if what is unasked turns out to be new."""
        return [*self.continued.values(), *self.new.values(), *self.imagined]

    @property
    def trials(self) -> int:
        """How many these are."""
        return len(self.continued) + len(self.new) + self.unasked


def look_ahead(sweep: SweepConfig, store: Store, keys: Keys | None) -> Forecast:
    """Without `keys` nothing is looked for in the store: every trial is new."""
    look = _Look(sweep, store, keys.of if keys is not None else _folder_key)
    groups = [group for block in sweep.blocks() for group in look.made.controls(block)]
    asked = {block.index: 0 for block in sweep.blocks()}
    outcomes: Mapping[str, Outcome] = {}
    if keys is not None and keys.may_be_found:
        from kdtune.sweep.scheduler import SweepScheduler

        scheduler = SweepScheduler(
            sweep, keys.of, Ledger(store.sweep(sweep.name).fetch().ledger(sweep.ledger), write=False)
        )
        while (group := scheduler.next_to_train(store)) is not None:
            pass  # it is not in the store, and stays in work
        groups, outcomes = list(scheduler.groups.values()), scheduler.outcomes
        asked = {search.block.index: len(search.groups) for search in scheduler.blocks}
    for group in groups:
        look.add_job(group, outcomes.get(group.name))
    for block in sweep.blocks():
        look.add_unasked(block, asked[block.index])
        if sweep.refit and not any(group.kind == "refit" and group.block == block for group in groups):
            look.add_refits(block)
    forecast = look.forecast
    forecast.found -= forecast.continued.keys() | forecast.new.keys()  # pruned as one candidate, trained on as another
    return forecast


def _folder_key(config: TrialConfig) -> str:
    """Tells trials apart where their data are not at hand."""
    return trial_key(config, lambda data: data.folder)


class _Look:
    def __init__(self, sweep: SweepConfig, store: Store, key_of: KeyOf) -> None:
        self.sweep, self.store, self.key_of = sweep, store, key_of
        self.made, self.forecast = GroupFactory(sweep, key_of), Forecast()

    def add_job(self, group: TrialGroup, outcome: Outcome | None) -> None:
        outcome = outcome or outcome_in_store(group, self.sweep.objectives, self.store)
        if outcome is not None:
            self.forecast.found.update(group.keys, group.finetuned if outcome.state == "complete" else ())
            return
        for seed, config in zip(group.seeds, group.configs, strict=True):
            self._add(config, group.name if len(group.seeds) == 1 else f"{group.name} seed {seed}")

    def add_unasked(self, block: Block, asked: int) -> None:
        """The candidates of a block from number `asked` on: a grid's are known, of others only what they may be."""
        sweep, seeds = self.sweep, self.sweep.search.seeds
        count = sweep.candidates(block) - asked
        if sweep.search.sampler == "grid":
            for number, values in enumerate(sweep.grid(block)[asked:], asked):
                self.add_job(self.made.candidate(block, number, values, {}), None)
        elif count > 0:
            self.forecast.unasked += count * len(seeds) * (1 if sweep.trial.finetune is None else 2)
            configs = _imagined(sweep, block)
            for config in configs:  # another seed costs the same, and has the same teacher
                for other in _needed(config):
                    self._add(other, f"teacher {other.architecture}")
                for trial in (config, config.finetuned):
                    if trial is not None:
                        self.forecast.imagined.append(PendingTrial(trial, "", times=count * len(seeds) / len(configs)))

    def add_refits(self, block: Block) -> None:
        """What is trained again when the search of a block is over: its controls, and a candidate that nobody knows."""
        for control in self.made.controls(block):
            self.add_job(self.made.refit(control), None)
        seeds = self.sweep.search.seeds
        self.forecast.unasked += len(seeds) * (1 if self.sweep.trial.finetune is None else 2)
        if self.sweep.search.sampler == "grid":
            points = self.sweep.grid(block, IMAGINED)
            configs = [self.sweep.build(block, values, seeds[0]) for values in points]
        else:
            configs = _imagined(self.sweep, block)
        for config in map(refit_of, configs):
            for other in _needed(config):
                self._add(other, f"teacher {other.architecture} on the whole list")
            for trial in (config, config.finetuned):
                if trial is not None:
                    self.forecast.imagined.append(PendingTrial(trial, "", times=len(seeds) / len(configs)))

    def _add(self, config: TrialConfig, name: str) -> None:
        """A trial that is to be there, with what it needs and what follows it."""
        key, forecast = self.key_of(config), self.forecast
        if key in forecast.continued or key in forecast.new:
            return
        files = self.store.trial(key)
        if files.sound_result() is not None:
            forecast.found.add(key)
        elif config.imported is None:
            if files.has(files.checkpoint) or files.checkpoint_before.exists():
                done = max((row["epoch"] for row in files.sound_rows()), default=0)
                forecast.continued[key] = PendingTrial(config, name, done)
            else:
                forecast.new[key] = PendingTrial(config, name)
            for other in config.needs:
                self._add(other, f"teacher {other.architecture}")
        if (finetuned := config.finetuned) is not None:
            self._add(finetuned, f"{name}, fine-tuning")


def _needed(config: TrialConfig) -> list[TrialConfig]:
    """The trials that a trial and its fine-tuning need, themselves apart."""
    teacher = config.finetuned_teacher
    return config.needs if teacher is None else [*config.needs, teacher]


def _imagined(sweep: SweepConfig, block: Block) -> list[TrialConfig]:
    """Candidates as they may come: every combination of values that may change what they cost, or IMAGINED of them."""
    space = sweep.space(block)
    choices = {name: _telling(name, parameter) for name, parameter in space.items()}
    total = math.prod(map(len, choices.values()))
    found = []
    for place in _places(total):
        values: dict[str, Scalar] = {}
        for name, options in choices.items():
            place, chosen = divmod(place, len(options))
            if space[name].active({**block.values, **values}):
                values[name] = options[chosen]
        try:
            found.append(sweep.build(block, values, sweep.search.seeds[0]))
        except ValidationError:  # values that clash: such a candidate fails, and costs nothing
            continue
    return found


def _places(total: int) -> Sequence[int]:
    """All numbers below `total`, or IMAGINED of them; a range of more than 2^63 has no length."""
    if total <= IMAGINED:
        return range(total)
    draw = random.Random(0)
    return (
        draw.sample(range(total), IMAGINED)
        if total <= sys.maxsize
        else [draw.randrange(total) for _ in range(IMAGINED)]
    )


def _telling(name: str, parameter: Parameter) -> list[Scalar]:
    """The values of a parameter between which costs may differ: a weight, a rate or a temperature costs nothing."""
    sizes = parameter.choice is not None or parameter.int or parameter.int_log or resolve(name) == "data.fraction"
    return parameter.extremes if sizes else parameter.extremes[-1:]
