"""Build the state of a trial before its first step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kdtune.clips.dataset import TrialData
from kdtune.config.trial import TrialConfig
from kdtune.losses.contrast import MemoryBank
from kdtune.losses.features import FeatureProjector
from kdtune.models.heads import build_network
from kdtune.train.checkpoint import load_part
from kdtune.train.state import TrialState


def initial_state(
    config: TrialConfig, data: TrialData, start: Mapping[str, Tensor] | None, device: torch.device
) -> TrialState:
    """Return the state before the first step: a function of the configuration, `start`'s weights and the data's size.

    Raises StoreError if `start` lacks the backbone's weights.
    """
    loss, opt = config.loss, config.optimizer
    network = build_network(config, data.classes)
    if start is not None:
        load_part(network.backbone, start, "backbone")
    network = network.to(device)
    bank = projector = scheduler = None
    if loss.target == "pretext" and loss.alpha > 0 and loss.contrast == "memory_bank":
        bank = MemoryBank(
            data.size, loss.projection, loss.negatives, loss.bank_momentum, loss.temperature, config.seed
        ).to(device)
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    if config.distils and config.teacher is not None and loss.gamma > 0:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            projector = FeatureProjector(config.student.features, config.teacher.student.features).to(device)
        learning += projector.parameters()
    optimizer = SGD(learning, lr=opt.lr, momentum=opt.momentum, weight_decay=opt.weight_decay)
    if config.plateau_can_act:  # otherwise the evaluations that it watches are skipped too
        scheduler = ReduceLROnPlateau(optimizer, factor=opt.factor, patience=opt.patience, min_lr=opt.min_lr)
    return TrialState(network, bank, projector, optimizer, scheduler)
