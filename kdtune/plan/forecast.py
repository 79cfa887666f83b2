"""Forecast what a sweep would find in the store, resume and begin, with the real scheduler and without writing.

Trials in the store count as ended, so the search asks for the same candidates as the sweep would. If the store cannot
hold any trial of the sweep, the search is not asked and Optuna is not imported.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from kdtune.config.checking.refit import refit_of
from kdtune.config.key import folder_key
from kdtune.config.space import Parameter, Scalar, resolve
from kdtune.config.sweep import Block, SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.history.events import Outcome
from kdtune.store import StoreFiles
from kdtune.sweep.earlier import known_candidates
from kdtune.sweep.feasible import recorded_costs
from kdtune.sweep.group import TrialGroup, outcome_in_store
from kdtune.sweep.groups import GroupFactory, KeyOf
from kdtune.sweep.ledger import Ledger

if TYPE_CHECKING:
    from kdtune.history.blocks import BlockHistory
    from kdtune.plan.keys import Keys

#: Number of examples that stand for the candidates of a block that cannot be asked yet, to estimate their cost.
IMAGINED = 16


@dataclass(frozen=True)
class PendingTrial:
    """A trial that is to be trained or resumed."""

    config: TrialConfig
    name: str
    """The name that people read."""
    done: int = 0
    """Epochs that are already trained."""
    times: float = 1.0
    """Number of trials that this one stands for; not a whole number for an imagined candidate."""


@dataclass
class Forecast:
    """The trials of a sweep, each once, with fine-tunings, teachers and their teachers."""

    found: set[str] = field(default_factory=set)
    """Keys of trials that have ended in the store."""
    continued: dict[str, PendingTrial] = field(default_factory=dict)
    """Key → a trial that resumes from its checkpoint."""
    new: dict[str, PendingTrial] = field(default_factory=dict)
    unasked: int = 0
    """Number of trials of candidates that can be asked only when others have ended."""
    imagined: list[PendingTrial] = field(default_factory=list)
    """Examples of what the unasked trials may be."""
    further: list[PendingTrial] = field(default_factory=list)
    """Examples of the further seeds that races may ask for."""

    @property
    def pending(self) -> list[PendingTrial]:
        """All trials to train, if no unasked one is in the store and races need no further seeds."""
        return [*self.continued.values(), *self.new.values(), *self.imagined]

    @property
    def trials(self) -> int:
        """Number of trials to train, without the further seeds of races."""
        return len(self.continued) + len(self.new) + self.unasked

    @property
    def most_further(self) -> int:
        """Maximum number of further seeds that races may ask for."""
        return round(sum(trial.times for trial in self.further))


def look_ahead(sweep: SweepConfig, store: StoreFiles, keys: Keys | None) -> Forecast:
    """Return the forecast of `sweep`. Without `keys` nothing is looked up in the store, and every trial is new."""
    look = _Look(sweep, store, keys.of if keys is not None else folder_key)
    groups = [group for block in sweep.blocks() for group in look.made.controls(block)]
    asked = {block.index: 0 for block in sweep.blocks()}
    races: dict[int, BlockHistory] = {}
    outcomes: Mapping[str, Outcome | None] = {}
    # Without its data set, the size of a network's head is unknown.
    unknown = sweep.constraints and keys is not None and keys.missing
    if keys is not None and keys.may_be_found and not unknown:
        from kdtune.sweep.scheduler import SweepScheduler

        files = store.sweep(sweep.name).fetch()
        ledger = Ledger(files.ledger(sweep.ledger), write=False)
        for _ in known_candidates(sweep, ledger, store, keys.of):
            pass  # the sweep says it
        costs, regretted = recorded_costs(sweep, keys.prepared, ledger), files.regretted()
        scheduler = SweepScheduler(sweep, keys.of, ledger, costs=costs, regretted=regretted)
        while (group := scheduler.next_to_train(store)) is not None:
            pass  # it is not in the store and counts as running
        groups = list(scheduler.groups.values())
        outcomes = {name: group.outcome for name, group in scheduler.history.groups.items()}
        asked = {search.block.index: len(search.history.candidates) for search in scheduler.blocks}
        races = {search.block.index: search.history for search in scheduler.blocks}
    for group in groups:
        look.add_group(group, outcomes.get(group.name))
    for block in sweep.blocks():
        look.add_unasked(block, asked[block.index])
        look.add_race(block, races.get(block.index))
        if sweep.refit and not any(group.kind == "refit" and group.block == block for group in groups):
            look.add_refits(block)
    forecast = look.forecast
    forecast.found -= forecast.continued.keys() | forecast.new.keys()  # pruned as one candidate, resumed as another
    return forecast


class _Look:
    def __init__(self, sweep: SweepConfig, store: StoreFiles, key_of: KeyOf) -> None:
        self.sweep, self.store, self.key_of = sweep, store, key_of
        self.made, self.forecast = GroupFactory(sweep, key_of), Forecast()

    def add_group(self, group: TrialGroup, outcome: Outcome | None) -> None:
        outcome = outcome or outcome_in_store(group, self.sweep.objectives, self.store)
        if outcome is not None and outcome.state == "infeasible":
            return
        if outcome is not None:
            self.forecast.found.update(group.asked.keys, group.asked.finetuned if outcome.state == "complete" else ())
            return
        for seed, config in zip(group.asked.seeds, group.configs, strict=True):
            self._add(config, group.name if len(group.configs) == 1 else f"{group.name} seed {seed}")

    def add_unasked(self, block: Block, asked: int) -> None:
        """Add the candidates of a block from number `asked` on. A grid's are known; others are imagined."""
        sweep, count = self.sweep, self.sweep.candidates(block) - asked
        if sweep.search.sampler == "grid":
            for number, values in enumerate(sweep.grid(block)[asked:], asked):
                self.add_group(self.made.candidate(block, number, values, {}), None)
        elif count > 0:
            self._imagine(_imagined(sweep, block), count, "")

    def add_refits(self, block: Block) -> None:
        """Add what is trained again after the search of a block: its controls and a candidate, which is imagined."""
        for control in self.made.controls(block):
            self.add_group(self.made.refit(control, control.asked.seeds), None)
        self._imagine(list(map(refit_of, _examples(self.sweep, block))), 1, " on the whole list")

    def add_race(self, block: Block, history: BlockHistory | None) -> None:
        """Add the further seeds that the race of a block may still ask for: those of all candidates that may be left,
        and of their control. `history` is the block's, if the store may hold some of it."""
        rules, sweep = self.sweep.search.race, self.sweep
        if rules is None:
            return
        examples, left, seeds = _examples(sweep, block), sweep.candidates(block), rules.first
        race = None if history is None else history.race
        if history is not None and race is not None:
            if race.ended:
                return
            ended = [group.state for group in history.candidates.values() if group.outcome is not None]
            left -= len(ended) - ended.count("complete")
            if race.last is not None:
                seeds, left = race.next_seeds.stop, len(race.last.left)
                chosen = (history.candidates[number].asked.values for number in race.last.left)
                examples = [sweep.build(block, values, 0) for values in chosen]
        control = sweep.build(block, sweep.search.controls[0], 0)
        times = [(control, 1.0), *((config, left / len(examples)) for config in examples)]
        if sweep.refit:
            times += [(refit_of(control), 1.0), *((refit_of(config), 1 / len(examples)) for config in examples)]
        for config, count in times:
            tuned = [] if config.finetuned is None else [config.finetuned]
            again = [PendingTrial(trial, "", times=count * (rules.most - seeds)) for trial in (config, *tuned)]
            self.forecast.further += [trial for trial in again if trial.times > 0]

    def _imagine(self, examples: list[TrialConfig], count: int, what: str) -> None:
        """Add `count` candidates that cannot be asked yet. Another seed costs the same and has the same teacher."""
        trials = count * len(self.sweep.search.first_seeds)
        self.forecast.unasked += trials * (1 if self.sweep.trial.finetune is None else 2)
        for config in examples:
            tuned, teacher = config.finetuned, config.finetuned_teacher
            for other in config.needs if teacher is None else [*config.needs, teacher]:
                self._add(other, f"teacher {other.architecture}{what}")
            for trial in [config] if tuned is None else [config, tuned]:
                self.forecast.imagined.append(PendingTrial(trial, "", times=trials / len(examples)))

    def _add(self, config: TrialConfig, name: str) -> None:
        """Add a trial, the trials that it needs and the fine-tuning that follows it."""
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


def _examples(sweep: SweepConfig, block: Block) -> list[TrialConfig]:
    """Return examples of a block's candidates: points of its grid, or imagined ones."""
    if sweep.search.sampler != "grid":
        return _imagined(sweep, block)
    return [sweep.build(block, values, sweep.search.first_seeds[0]) for values in sweep.grid(block, IMAGINED)]


def _imagined(sweep: SweepConfig, block: Block) -> list[TrialConfig]:
    """Return examples of a block's candidates: all combinations of values that affect the cost, or IMAGINED of them."""
    space = sweep.space(block)
    choices = {name: _costly_values(name, parameter) for name, parameter in space.items()}
    total = math.prod(map(len, choices.values()))
    found = []
    for place in _places(total):
        values: dict[str, Scalar] = {}
        for name, options in choices.items():
            place, chosen = divmod(place, len(options))
            if space[name].active({**block.values, **values}):
                values[name] = options[chosen]
        try:
            found.append(sweep.build(block, values, sweep.search.first_seeds[0]))
        except ValidationError:  # the values exclude each other: such a candidate fails and costs nothing
            continue
    return found


def _places(total: int) -> Sequence[int]:
    """Return all numbers below `total`, or IMAGINED of them. A range of more than 2^63 numbers has no length."""
    if total <= IMAGINED:
        return range(total)
    draw = random.Random(0)
    return (
        draw.sample(range(total), IMAGINED)
        if total <= sys.maxsize
        else [draw.randrange(total) for _ in range(IMAGINED)]
    )


def _costly_values(name: str, parameter: Parameter) -> list[Scalar]:
    """Return a parameter's values that may differ in cost. Weights, rates and temperatures do not affect it."""
    sizes = parameter.choice is not None or parameter.int or parameter.int_log or resolve(name) == "data.fraction"
    return parameter.extremes if sizes else parameter.extremes[-1:]
