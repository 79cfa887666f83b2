"""Build the trials of `refit: true`: the chosen trials again, on the whole training list."""

from __future__ import annotations

from collections.abc import Iterator

from kdtune.config.checking.steering import steered_by_test
from kdtune.config.checking.sweep import named_trials, placed_values
from kdtune.config.inherit import NESTED
from kdtune.config.sections import DataConfig
from kdtune.config.space import resolve
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import Problem


def refit_of(config: TrialConfig) -> TrialConfig:
    """Return `config` changed to train on the validation videos, too, and otherwise the same.

    The same change applies to its teacher, its start and its fine-tuning.
    """
    update: dict[str, object] = {"data": _whole(config.data)}
    for name in NESTED:
        other = getattr(config, name)
        if other is not None:
            update[name] = refit_of(other)
    own = config.finetune
    if own is not None and own.data is not None:
        update["finetune"] = own.model_copy(update={"data": _whole(own.data)})
    return config.model_copy(update=update)


def _whole(data: DataConfig) -> DataConfig:
    return data.model_copy(update={"train_on": "all"})


def refit_problems(sweep: SweepConfig) -> Iterator[Problem]:
    """Yield settings that would search on videos that were trained on, or make a refit meaningless."""
    rule = "is what `refit: true` sets for its own trials; a search needs validation videos that were not trained on"
    for place, name, values in placed_values(sweep):
        if resolve(name).endswith("data.train_on") and "all" in values:
            yield Problem(place, rule, "rest")
    for place, trial in named_trials(sweep).items():
        own = trial.finetune.data if trial.finetune is not None else None
        for path, data in (("data", trial.data), ("finetune.data", own)):
            # What a teacher inherits is reported for the trial.
            if data is not None and data.train_on == "all" and "train_on" in data.model_fields_set:
                yield Problem(f"{place}.{path}.train_on", rule, "rest")
    for reason in steered_by_test(sweep) if sweep.refit else ():
        yield Problem("refit", f"needs a search that the test list does not steer, but {reason}", "false")
