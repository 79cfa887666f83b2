"""Make groups from searched values: the trials of a candidate or control, and the teachers that they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from kdtune.config.checking.refit import refit_of
from kdtune.config.space import SHORT_NAMES, Scalar, flat_params, resolve
from kdtune.config.sweep import Block, SweepConfig, values_label
from kdtune.config.trial import TrialConfig
from kdtune.sweep.group import TrialGroup

#: Returns a trial's key.
KeyOf = Callable[[TrialConfig], str]


class GroupFactory:
    """Makes the groups of a sweep, each teacher once."""

    def __init__(self, sweep: SweepConfig, key_of: KeyOf) -> None:
        self.sweep, self.key_of = sweep, key_of
        self.teachers: dict[str, TrialGroup] = {}
        """Key of the teacher's trial → its group, in the order in which they are first needed."""

    def controls(self, block: Block) -> list[TrialGroup]:
        """Return one group per control of the file and seed."""
        search = self.sweep.search
        found = []
        for i, control in enumerate(search.controls):
            for seed in search.seeds:
                name = "control" if len(search.controls) == 1 else f"control {i}"
                name += "" if len(search.seeds) == 1 else f" seed {seed}"
                found.append(self._group("control", f"{block.label} · {name}", block, i, (seed,), control))
        return found

    def candidate(
        self, block: Block, number: int, values: Mapping[str, Scalar], thresholds: Mapping[str, float]
    ) -> TrialGroup:
        """Return the group of a candidate with all its seeds."""
        name, seeds = candidate_name(block, number), tuple(self.sweep.search.seeds)
        return self._group("candidate", name, block, number, seeds, values, thresholds)

    def refit(self, group: TrialGroup) -> TrialGroup:
        """Return the refit of a control or candidate: trained again on the whole training list, and never pruned."""
        assert group.block is not None
        configs = tuple(map(refit_of, group.configs))
        what = group.name.removeprefix(f"{group.block.label} · ")
        chosen = {**group.block.values, **group.values}
        return replace(
            group,
            kind="refit",
            name=f"{group.block.label} · refit of {what}",
            configs=configs,
            keys=tuple(self.key_of(config) for config in configs),
            finetuned=tuple(self.key_of(c.finetuned) for c in configs if c.finetuned is not None),
            needs=tuple(dict.fromkeys(self._teacher(c, chosen) for c in configs if c.distils)),
            thresholds={},
            refits=group,
        )

    def _group(
        self,
        kind: Literal["control", "candidate"],
        name: str,
        block: Block,
        number: int,
        seeds: tuple[int, ...],
        values: Mapping[str, Scalar],
        thresholds: Mapping[str, float] | None = None,
    ) -> TrialGroup:
        configs = tuple(self.sweep.build(block, values, seed) for seed in seeds)
        chosen = {**block.values, **values}
        # Other searched and blocked parameters get a column of their own.
        others = {name: value for name, value in chosen.items() if resolve(name) not in SHORT_NAMES.values()}
        return TrialGroup(
            kind,
            name,
            block,
            number,
            seeds,
            values,
            configs,
            keys=tuple(self.key_of(config) for config in configs),
            params=tuple({**flat_params(config, chosen.get("teacher")), **others} for config in configs),
            finetuned=tuple(self.key_of(c.finetuned) for c in configs if c.finetuned is not None),
            needs=tuple(dict.fromkeys(self._teacher(c, chosen) for c in configs if c.distils)),
            thresholds=thresholds or {},
        )

    def _teacher(self, config: TrialConfig, chosen: Mapping[str, Scalar]) -> str:
        """Return the key of the trial's teacher. Make the teacher's group when it is first needed."""
        assert config.teacher is not None
        key = self.key_of(config.teacher)
        if key not in self.teachers:
            # Named by content, not by the group that needs it first: on other data a teacher is another trial.
            teacher = str(chosen["teacher"])
            links = self.sweep.chain(teacher)
            where = {p: v for p, v in chosen.items() if any(self.sweep.follows(link, p) for link in links)}
            name = f"teacher {teacher} {values_label(where)}".rstrip()
            name += " on the whole list" if config.teacher.data.train_on == "all" else ""
            seeds, params = (config.teacher.seed,), (flat_params(config.teacher),)
            self.teachers[key] = TrialGroup("teacher", name, None, None, seeds, {}, (config.teacher,), (key,), params)
        return key


def candidate_name(block: Block, number: int) -> str:
    """Return the name of a candidate's group."""
    return f"{block.label} · candidate {number}"
