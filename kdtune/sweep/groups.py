"""Make groups from searched values: the trials of a candidate or control, and the teachers that they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kdtune.config.checking.refit import refit_of
from kdtune.config.space import SHORT_NAMES, Scalar, flat_params, resolve
from kdtune.config.sweep import Block, SweepConfig, values_label
from kdtune.config.trial import TrialConfig
from kdtune.history.events import Asked, Kind, Refitted
from kdtune.history.front import Values
from kdtune.sweep.feasible import Draw, Verdict
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
            for seed in search.first_seeds:
                name = f"{block.label} · {control_name(self.sweep, i, seed)}"
                found.append(self._group("control", name, block, i, (seed,), control, {}))
        return found

    def candidate(
        self,
        block: Block,
        number: int,
        values: Mapping[str, Scalar],
        thresholds: Mapping[str, float],
        drawn: Draw | None = None,
        fronts: Mapping[str, Sequence[Values]] | None = None,
    ) -> TrialGroup:
        """Return the group of a candidate with its first seeds, as `drawn`. An infeasible one needs no teacher."""
        name, seeds = candidate_name(block, number), tuple(self.sweep.search.first_seeds)
        group = self._group("candidate", name, block, number, seeds, values, thresholds)
        points = {stage: tuple(map(tuple, front)) for stage, front in (fronts or {}).items()}
        redrawn, verdict = ({}, Verdict()) if drawn is None else (drawn.redrawn, drawn.verdict)
        asked = replace(group.asked, redrawn=redrawn, fronts=points)
        needs = () if verdict.reason else group.needs
        return replace(group, asked=asked, infeasible=verdict.reason, needs=needs, costs=verdict.costs)

    def further(self, block: Block, look: int, seed: int, candidates: Sequence[TrialGroup]) -> list[TrialGroup]:
        """Return what look number `look` of a race asks for: `seed` of the first control, then of each candidate.
        None of them is pruned."""
        name = f"{block.label} · {control_name(self.sweep, 0, seed)}"
        found = [self._group("control", name, block, 0, (seed,), self.sweep.search.controls[0], {}, look=look)]
        for group in candidates:
            name, number, values = f"{group.name} seed {seed}", group.asked.number, group.asked.values
            assert number is not None
            found.append(self._group("further", name, block, number, (seed,), values, {}, None, group.name, look))
        return found

    def refit(self, group: TrialGroup, seeds: Sequence[int]) -> TrialGroup:
        """Return the refit of a control or candidate: its `seeds` trained again on the whole training list, and never
        pruned."""
        asked, block = group.asked, group.block
        assert block is not None
        assert asked.number is not None
        assert asked.kind in ("control", "candidate")
        name = f"{block.label} · refit of {asked.group.removeprefix(f'{block.label} · ')}"
        again = Refitted(asked.group, asked.kind)
        return self._group("refit", name, block, asked.number, tuple(seeds), asked.values, {}, again)

    def _group(
        self,
        kind: Kind,
        name: str,
        block: Block,
        number: int,
        seeds: tuple[int, ...],
        values: Mapping[str, Scalar],
        thresholds: Mapping[str, float],
        refits: Refitted | None = None,
        extends: str | None = None,
        look: int | None = None,
    ) -> TrialGroup:
        configs = tuple(self.sweep.build(block, values, seed) for seed in seeds)
        chosen = {**block.values, **values}
        # Other searched and blocked parameters get a column of their own.
        others = {name: value for name, value in chosen.items() if resolve(name) not in SHORT_NAMES.values()}
        params = tuple({**flat_params(config, chosen.get("teacher")), **others} for config in configs)
        if refits is not None:
            configs = tuple(map(refit_of, configs))
        asked = Asked(
            group=name,
            kind=kind,
            block=block.label,
            number=number,
            seeds=seeds,
            keys=tuple(map(self.key_of, configs)),
            finetuned=tuple(self.key_of(config.finetuned) for config in configs if config.finetuned is not None),
            values=dict(values),
            params=params,
            thresholds=thresholds,
            epochs=configs[0].epochs,
            refits=refits,
            extends=extends,
            look=look,
        )
        needs = dict.fromkeys(self._teacher(config, chosen) for config in configs if config.distils)
        return TrialGroup(asked, block, configs, tuple(needs))

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
            asked = Asked(
                group=name,
                kind="teacher",
                block=None,
                number=None,
                seeds=(config.teacher.seed,),
                keys=(key,),
                params=(flat_params(config.teacher),),
                epochs=config.teacher.epochs,
            )
            self.teachers[key] = TrialGroup(asked, None, (config.teacher,))
        return key


def control_name(sweep: SweepConfig, place: int, seed: int) -> str:
    """Return the name of a control within its block."""
    name = "control" if len(sweep.search.controls) == 1 else f"control {place}"
    return name if len(sweep.search.first_seeds) == 1 else f"{name} seed {seed}"


def candidate_name(block: Block, number: int) -> str:
    """Return the name of a candidate's group."""
    return f"{block.label} · candidate {number}"
