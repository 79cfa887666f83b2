"""Costs of trials that were not trained."""

from __future__ import annotations

from typing import Any

import torch
from helpers import CPU

from kdtune.clips.dataset import TrialData
from kdtune.config.inherit import merge
from kdtune.config.metrics import OfCost
from kdtune.config.trial import TrialConfig
from kdtune.train.initial import initial_state
from kdtune.train.measuring.cost import trial_cost
from kdtune.train.profile import make_deterministic
from kdtune.train.samples import SampleCache, Samples
from kdtune.train.session import Session


def trial_of(form: dict[str, Any], **sections: Any) -> TrialConfig:
    """Return `form` with these sections merged into its own."""
    return TrialConfig.model_validate(merge(form, sections))


def measured(
    config: TrialConfig, prepared: Session, cache: SampleCache | None = None, device: torch.device = CPU
) -> dict[OfCost, float]:
    """Return the cost of a trial that was not trained."""
    make_deterministic(config)
    data = TrialData.of(config, prepared.clips(config))
    fresh = initial_state(config, data, None, device)
    return trial_cost(fresh, Samples(config, data, device, cache=cache), None)
