"""Find out whether the test list steers a sweep. If it does, no figure on it is unbiased."""

from __future__ import annotations

from kdtune.config.checking.sweep import named_trials, placed_values
from kdtune.config.metrics import is_cost
from kdtune.config.space import resolve
from kdtune.config.sweep import SweepConfig

#: End of a line about such a sweep.
NONE_LEFT = "the test list steers this sweep, and no untouched figure is left to report"


def steered_by_test(sweep: SweepConfig) -> list[str]:
    """Return the settings of `sweep` that let the test list steer it, each with its value; empty where none does.

    With `data.validation: 0`, validation is the test list, which then moves the learning rate, chooses weights and
    candidates, and prunes. With `objective.split: test`, it chooses candidates and prunes.
    """
    found = []
    for i, objective in enumerate(sweep.objectives):
        if objective.split == "test" and not is_cost(objective.metric):
            found.append(f"objective{f'.{i}' if len(sweep.objectives) > 1 else ''}.split is test")
    for place, trial in named_trials(sweep).items():
        if trial.data.validation == 0 and "validation" in trial.data.model_fields_set:
            found.append(f"{place}.data.validation is 0")
        own = trial.finetune.data if trial.finetune is not None else None
        if own is not None and own.validation == 0:
            found.append(f"{place}.finetune.data.validation is 0")
    for place, name, values in placed_values(sweep):
        if resolve(name).endswith("data.validation") and any(value == 0 for value in values):
            found.append(f"{place} has 0")
    return found
