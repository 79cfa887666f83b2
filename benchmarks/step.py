"""A trial's training step without the loop around it: forward, loss, backward, SGD."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from kdtune.config.trial import TrialConfig
from kdtune.losses.contrast import in_batch_loss
from kdtune.losses.distill import distillation_loss
from kdtune.models.heads import PclNetwork
from kdtune.train.inputs import SampleBatch


def training_step(
    config: TrialConfig, network: PclNetwork, optimizer: SGD, batch: SampleBatch, said: Tensor | None = None
) -> None:
    """Take one step on a batch in memory; `said` are a teacher's logits (B, 5) for it."""
    loss = config.loss
    features = network.features(batch.clips)
    logits = network.logits(features)
    first, last = network.projections(features)
    total = cross_entropy(logits, batch.labels) + loss.alpha * in_batch_loss(first, last, loss.temperature)
    if said is not None:
        total = total + loss.lambda_ * distillation_loss(logits, said, loss.tau)
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    optimizer.step()


def standing_still(config: TrialConfig, network: PclNetwork) -> SGD:
    """Return a trial's optimiser with a rate so small that the hundredth step is like the first."""
    opt = config.optimizer
    return SGD(network.parameters(), lr=1e-9, momentum=opt.momentum, weight_decay=opt.weight_decay)
