"""Describe a sweep from its file alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdtune.config.checking.steering import NONE_LEFT, steered_by_test
from kdtune.config.key import folder_key
from kdtune.config.metrics import is_cost
from kdtune.config.space import Parameter, resolve
from kdtune.config.sweep import Block, SweepConfig
from kdtune.config.trial import TrialConfig


def described(sweep: SweepConfig) -> Iterator[str]:
    """Yield lines about the question, clips, objectives, teachers, blocks and the number of trials."""
    if sweep.question:
        yield sweep.question
        yield ""
    trial, blocks, seeds = sweep.trial, sweep.blocks(), len(sweep.search.first_seeds)
    stages = ", ".join(f"{name} {epoch}" for name, epoch in trial.stage_epochs.items())
    yield f"trial        {trial.epochs} epochs (stages: {stages})"
    yield f"clips        {trial.clip.frames} frames at {trial.clip.size}×{trial.clip.size}, {trial.clip.modality}"
    there = Path(trial.data.folder).is_dir()
    missing = "" if there else " (will be made)" if trial.data.dataset == "synthetic" else " (not here)"
    yield f"data         {trial.data.dataset} in {trial.data.folder}{missing}"
    for i, objective in enumerate(sweep.objectives):
        where = "" if is_cost(objective.metric) else f" on {objective.split} at {objective.stage}"
        yield f"{'objective' if i == 0 else '':<12} {objective.mode} {objective.metric}{where}"
    if reasons := steered_by_test(sweep):
        yield f"note         {'; '.join(reasons)}: {NONE_LEFT}"
    if sweep.constraints:
        yield f"constraints  {'; '.join(map(str, sweep.constraints))}: other candidates are not trained"
    if sweep.prune.at:
        kept = f"the best {sweep.prune.keep:.0%} of at least {sweep.prune.min_peers} peers continue"
        yield f"pruning      at {', '.join(sweep.prune.at)}: {kept}; controls never"
    yield f"search       {sweep.search.sampler}, window {sweep.search.window}, seeds {sweep.search.seeds_text}"
    teachers = _teachers(sweep)
    shown = (f"{name} ({_origin(config)})" for name, config in teachers)
    yield f"teachers     {len(teachers)}: " + (", ".join(shown) or "none")
    if trial.finetuned is not None:
        yield f"fine-tuning  {trial.finetuned.epochs} epochs on {trial.finetuned.data.dataset}, of what is not pruned"
    yield f"blocks       {len(blocks)}"
    for block in blocks:
        yield f"  {block.label}: {len(sweep.search.controls) * seeds} controls, {sweep.candidates(block)} candidates of"
        for name, parameter in sweep.space(block).items():
            yield f"      {name:<10} {_values(parameter)}"
    yield trials_line(sweep)
    controls, tuned = len(blocks) * len(sweep.search.controls) * seeds, _finetuned_teachers(sweep)
    if sweep.refit:
        chosen, further = len(blocks) * seeds, len(blocks) * (len(sweep.search.every_seed) - seeds)
        yield (
            f"refits       {controls + chosen} on the whole training list: {controls} controls, {chosen} chosen"
            + (f"; a race adds at most {2 * further}" if further else "")
            + (", with their teachers" if teachers else "")
        )
    epochs = _epochs(sweep, trial.epochs) + trial.epochs * len(teachers) * trial.data.fraction
    yield f"             at most {epochs:,.1f} epochs of the full data"
    if trial.finetune is not None and trial.finetuned is not None:
        fraction = None if trial.finetune.data is None else trial.finetuned.data.fraction
        epochs = _epochs(sweep, trial.finetuned.epochs, fraction) + sum(t.epochs * t.data.fraction for t in tuned)
        yield f"             and {epochs:,.1f} of fine-tuning on {trial.finetuned.data.dataset}"


def _named_teachers(sweep: SweepConfig) -> Iterator[tuple[Block, str]]:
    """Yield every teacher that a trial of a block may name."""
    for block in sweep.blocks():
        space = sweep.space(block)
        named = [block.values.get("teacher"), *(control.get("teacher") for control in sweep.search.controls)]
        named += space["teacher"].extremes if "teacher" in space else []
        yield from ((block, str(name)) for name in named if name not in (None, "none"))


def trials_line(sweep: SweepConfig) -> str:
    """Return the number of trials as a sum: teachers, controls, candidates, fine-tunings."""
    teachers, blocks, seeds = _teachers(sweep), sweep.blocks(), len(sweep.search.first_seeds)
    controls = len(blocks) * len(sweep.search.controls) * seeds
    candidates = sum(sweep.candidates(block) for block in blocks)
    tuned = _finetuned_teachers(sweep)
    finetunings = (controls + candidates * seeds + len(tuned)) if sweep.trial.finetune is not None else 0
    total = len(teachers) + controls + candidates * seeds
    same = total - _different(sweep, teachers)
    return (
        f"trials       {total + finetunings} = {len(teachers)} teachers + {controls} controls + "
        f"{candidates} candidates × {seeds} seed{'s' if seeds > 1 else ''}"
        + (f" + {finetunings} fine-tunings" if finetunings else "")
        + (f"; {same} of them are the same trial as another" if same else "")
        + (f"; races add at most {sum(_most_further(sweep, block) for block in blocks)}" if sweep.search.race else "")
    )


def _most_further(sweep: SweepConfig, block: Block) -> int:
    """Return how many further seeds a block's race may train at most, those of the control included."""
    return (1 + sweep.candidates(block)) * (len(sweep.search.every_seed) - len(sweep.search.first_seeds))


def _teachers(sweep: SweepConfig) -> list[tuple[str, TrialConfig]]:
    """Return (name, trial) of every teacher that the sweep may need. One name may mean other trials in other blocks."""
    found: dict[str, tuple[str, TrialConfig]] = {}
    for block, name in _named_teachers(sweep):
        for link in sweep.chain(name):
            config = sweep.teacher(link, block)
            found.setdefault(folder_key(config), (link, config))
    return list(found.values())


def _finetuned_teachers(sweep: SweepConfig) -> list[TrialConfig]:
    """Return the teachers that are fine-tuned in order to teach fine-tunings."""
    known = {folder_key(config) for _, config in _teachers(sweep)}
    seed, named = sweep.search.first_seeds[0], _named_teachers(sweep)
    tuned = [sweep.build(block, {"teacher": name}, seed).finetuned_teacher for block, name in named]
    found = {folder_key(teacher): teacher for teacher in tuned if teacher is not None}
    return [teacher for key, teacher in found.items() if key not in known]


def _origin(config: TrialConfig) -> str:
    if config.imported is not None:
        return f"imported {config.imported[:8]}"
    return f"{config.epochs} epochs, fraction {config.data.fraction:g}"


def _different(sweep: SweepConfig, teachers: list[tuple[str, TrialConfig]]) -> int:
    """Return the number of different trials. A sampler's candidates are not known yet and count as different."""
    keys, unknown = {folder_key(config) for _, config in teachers}, 0
    for block in sweep.blocks():
        points = [*sweep.search.controls]
        if sweep.search.sampler == "grid":
            points += sweep.grid(block)
        else:
            unknown += sweep.candidates(block) * len(sweep.search.first_seeds)
        keys |= {folder_key(sweep.build(block, point, seed)) for point in points for seed in sweep.search.first_seeds}
    return len(keys) + unknown


def _values(parameter: Parameter) -> str:
    if parameter.choice is not None:
        text = " | ".join(str(value) for value in parameter.choice)
    else:
        low, high = parameter.bounds or (0, 0)
        text = f"{low:g} … {high:g}" + (" (log)" if parameter.is_log else "")
    return text + (f" when {parameter.when}" if parameter.when else "")


def _epochs(sweep: SweepConfig, epochs: int, fraction: float | None = None) -> float:
    """Return the epochs of all controls and candidates, with `epochs` each, in epochs of the whole training set.

    They train on `fraction` of it, by default on their block's.
    """
    total = 0.0
    for block in sweep.blocks():
        named = [value for name, value in block.values.items() if resolve(name) == "data.fraction"]
        own = float(named[0]) if named else sweep.trial.data.fraction  # type: ignore[arg-type]
        trials = (len(sweep.search.controls) + sweep.candidates(block)) * len(sweep.search.first_seeds)
        trials += _most_further(sweep, block)
        total += trials * (own if fraction is None else fraction)
    return epochs * total
