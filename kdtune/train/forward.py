"""The forward pass of a training step: what the student says of a batch, and its loss.

L = CE + alpha · contrast + lambda · tau² · KL(teacher ‖ student) + beta · relations + gamma · features
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdtune.config.sections import LossConfig
from kdtune.losses.contrast import in_batch_loss
from kdtune.losses.distill import distillation_loss
from kdtune.losses.features import feature_loss
from kdtune.losses.relations import relation_loss
from kdtune.train.samples import TrainingBatch
from kdtune.train.state import TrialState


class Forward(NamedTuple):
    """Of one batch of B samples."""

    total: Tensor
    """The loss L, a scalar."""
    terms: dict[str, Tensor]
    """Its terms by name, scalars without their weights."""
    logits: Tensor
    """(B, classes) of the head."""


def forward(
    state: TrialState, loss: LossConfig, epoch: int, batch: TrainingBatch, taught: Mapping[str, Tensor]
) -> Forward:
    """Pass `batch` through the network in training mode. `taught` is what the teacher says of the epoch's samples, as
    `Targets.epoch`; empty without one. The memory bank learns the batch's projections."""
    network, bank, target = state.network, state.bank, loss.target
    weights: dict[str, float] = {target: 1.0, "contrast": loss.alpha, "distill": loss.lambda_, "relations": loss.beta}
    weights["features"] = loss.gamma
    device = batch.clips.device
    at = torch.from_numpy(batch.samples).to(device, non_blocking=True)

    features = network.features(batch.clips)
    logits = network.logits(features)
    terms: dict[str, Tensor] = {target: F.cross_entropy(logits, batch.labels)}
    if target == "pretext" and loss.alpha > 0:
        first, last = network.projections(features)
        if bank is not None:
            negatives = bank.draw_negatives(epoch, batch.samples).to(device, non_blocking=True)
            terms["contrast"] = bank.loss(first, last, at, negatives)
            bank.update(first, last, at)
        else:
            terms["contrast"] = in_batch_loss(first, last, loss.temperature)
    if "logits" in taught:
        terms["distill"] = distillation_loss(logits, taught["logits"][at], loss.tau)
    if "relations" in taught:
        terms["relations"] = relation_loss(features, taught["relations"][at])
    if state.projector is not None:
        terms["features"] = feature_loss(state.projector(features), taught["features"][at])
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return Forward(total, terms, logits)
