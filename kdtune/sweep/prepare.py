"""Refuse a sweep that cannot work, and prepare its data sets, before it trains. Needs neither Ray nor torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from kdtune.clips.catalog import load_catalog
from kdtune.clips.machine import GIB, cores, memory_bytes
from kdtune.config.search import ResourceConfig
from kdtune.config.space import Scalar, resolve
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import DataError, Problem, UserError
from kdtune.store import StoreFiles
from kdtune.train.prepared import Prepared, source_id


def check_resources(resources: ResourceConfig, nodes: Sequence[Mapping[str, float]]) -> list[Problem]:
    """Return why no node of `nodes` can run a trial. Each node has its CPU, GPU and memory (bytes), as Ray counts them.

    A trial runs on one machine: two machines with one GPU each are not one machine with two.
    """
    units = {"CPU": 1, "GPU": 1, "memory": GIB}
    asked = {"CPU": resources.cpu, "GPU": resources.gpu, "memory": resources.memory or 0}
    there = [{name: node.get(name, 0) / unit for name, unit in units.items()} for node in nodes]
    if any(all(amount <= node[name] for name, amount in asked.items()) for node in there):
        return []
    problems = []
    for name, amount in asked.items():
        largest = max((node[name] for node in there), default=0)
        if amount > largest:
            what = f"a trial asks for {amount:g}, but no machine has more than {largest:.3g}"
            problems.append(Problem(f"resources.{name.lower()}", what, f"at most {largest:.3g}"))
    together = " and ".join(f"{amount:g} {name}" for name, amount in asked.items() if amount)
    return problems or [Problem("resources", f"no machine has {together} together")]


def this_machine(resources: ResourceConfig) -> dict[str, float]:
    """Return the CPUs, GPUs and memory (bytes) of this machine. GPUs are counted only if `resources` asks for one."""
    gpus = 0
    if resources.gpu > 0:
        import torch

        gpus = torch.cuda.device_count()
    return {"CPU": cores(), "GPU": gpus, "memory": memory_bytes()}


def refuse(sweep: SweepConfig, lacking: Sequence[Problem] = ()) -> None:
    """Raise UserError with all problems that can be found before a video is decoded, and those in `lacking`."""
    problems = [*lacking, *_unmeasurable(sweep)]
    parts = [part for config in _configs(sweep) for part in config.lineage() if part.imported is None]
    # Blocks and teachers usually share their data; check each set once.
    for data in {source_id(part.data, part.clip): part.data for part in parts}.values():
        # A missing synthetic set is generated later.
        if data.dataset != "synthetic" or Path(data.folder).exists():
            try:
                load_catalog(data)
            except DataError as error:
                problems += error.problems
    if problems:
        raise UserError(dict.fromkeys(problems))


def _unmeasurable(sweep: SweepConfig) -> list[Problem]:
    """Return the problem of a constraint that this machine would have to measure on a GPU that it lacks."""
    metrics = [constraint.metric for constraint in sweep.constraints]
    if "clip_ms" not in metrics or sweep.resources.gpu == 0 or this_machine(sweep.resources)["GPU"]:
        return []
    what = "clip_ms is measured by the machine that runs the sweep, which has no GPU"
    return [Problem(f"constraints.{metrics.index('clip_ms')}.metric", what, "parameters, gmac")]


def prepare_sweep(sweep: SweepConfig, store: StoreFiles) -> Prepared:
    """Prepare every data set of the sweep. Raises DataError if one cannot be prepared, and UserError for heads,
    lists of videos and imported trials that do not fit."""
    prepared = Prepared(store)
    problems: list[Problem] = []
    for config in _configs(sweep):
        prepared.prepare(config)
        problems += prepared.problems(config)
    if problems:
        raise UserError(dict.fromkeys(problems))
    return prepared


def _configs(sweep: SweepConfig) -> list[TrialConfig]:
    """Return trials that cover every teacher, data set and clip shape of the sweep."""
    configs = []
    for block in sweep.blocks():
        variants: list[Mapping[str, Scalar]] = [{}, *sweep.search.controls]
        space = sweep.space(block)
        for name, parameter in space.items():
            if name == "teacher" or resolve(name).startswith(("data.", "clip.", "finetune.data.", "finetune.clip.")):
                variants += [{name: value} for value in parameter.extremes]
        configs += [sweep.build(block, values, sweep.search.first_seeds[0]) for values in variants]
        # A teacher may use its student's videos at another size.
        teachers = space["teacher"].extremes if "teacher" in space else []
        for values, teacher in itertools.product(variants, teachers):
            with suppress(ValidationError):  # such a candidate fails when it is asked
                configs.append(sweep.build(block, {**values, "teacher": teacher}, sweep.search.first_seeds[0]))
    return configs
