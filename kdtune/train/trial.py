"""The training loop. Read it from top to bottom; everything it calls is a function of what it is given."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kdtune.clips.dataset import TrialData
from kdtune.config.trial import TrialConfig
from kdtune.errors import TrialError
from kdtune.files import append_jsonl, write_json, write_jsonl
from kdtune.losses.contrast import MemoryBank
from kdtune.losses.features import FeatureProjector
from kdtune.models.backbones import feature_size
from kdtune.models.heads import build_network
from kdtune.store import TrialFiles
from kdtune.train.checkpoint import content_digest, load_part
from kdtune.train.cost import trial_cost
from kdtune.train.evaluate import evaluate, head_scores, with_best
from kdtune.train.forward import forward
from kdtune.train.loader import steps_of_an_epoch
from kdtune.train.profile import make_deterministic, profile, weights_digest
from kdtune.train.samples import Samples
from kdtune.train.state import EpochProgress, TrialState
from kdtune.train.targets import Targets


def train_trial(
    samples: Samples, targets: Targets | None, start: Mapping[str, Tensor] | None, files: TrialFiles
) -> Iterator[dict[str, Any]]:
    """Train from the last checkpoint to the end, yielding each epoch's row when it is on disk.

    `start` holds the weights whose backbone a fresh trial begins with. The caller may stop after any row: the next call
    goes on from there, to the same bits. The rows of epochs that are already done come first. Raises TrialError, naming
    the step, when a loss is not finite.
    """
    result = yield from _epochs(samples, targets, start, files)
    # Only now: the memory that the training had is free again, and the measurement needs as much.
    fresh = initial_state(samples.config, samples.data, None, samples.device)
    files.write_result({**result, "cost": trial_cost(fresh, samples, targets, files.rows())})


def _epochs(
    samples: Samples, targets: Targets | None, start: Mapping[str, Tensor] | None, files: TrialFiles
) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Yields as `train_trial`, and returns what the trial ended with."""
    config, data, device = samples.config, samples.data, samples.device
    # ---- set-up --------------------------------------------------------------------------------------------------
    make_deterministic(config)
    state = initial_state(config, data, start, device)
    state.load(files)
    state.note_profile(profile(config, device, data.clips))
    rows = [row for row in files.rows() if row["epoch"] <= state.epoch]
    _rewrite_rows(files, rows)
    yield from rows
    network, optimizer, target = state.network, state.optimizer, config.loss.target
    steps = steps_of_an_epoch(config, data)
    batches = samples.training(state.epoch + 1, state.progress.steps)

    while state.epoch < config.epochs:
        # ---- one epoch, or what is left of it ----------------------------------------------------------------------
        epoch, progress = state.epoch + 1, state.progress
        progress.start_clock()
        rate = optimizer.param_groups[0]["lr"]
        taught = targets.epoch(epoch) if targets is not None else {}
        network.train()
        for batch in islice(batches, steps - progress.steps):
            # ---- forward -----------------------------------------------------------------------------------------
            total, terms, logits = forward(state, config.loss, epoch, batch, taught)

            # ---- backward ----------------------------------------------------------------------------------------
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()

            # ---- position --------------------------------------------------------------------------------------------
            progress.terms = ("loss", *terms)
            progress.losses.append(torch.stack((total, *terms.values())).detach() * len(batch.samples))
            progress.hits = progress.hits + (logits.argmax(1) == batch.labels).sum()
            progress.count_time()
            state.note_samples(batch.digest)
            state.save_if_due(files)

        # ---- the epoch's figures ---------------------------------------------------------------------------------
        losses = torch.stack(progress.losses).double().cpu()
        bad = (~losses.isfinite().all(1)).nonzero()
        if len(bad) > 0:
            raise TrialError(
                f"the loss is not finite at epoch {epoch}, step {int(bad[0]) + 1} of {steps} (rate {rate:g}): "
                "a lower optimizer.lr or weight of the loss may help"
            )
        means = (losses.sum(0) / data.size).tolist()
        row: dict[str, Any] = {"epoch": epoch, "lr": rate}
        row["train"] = dict(zip(progress.terms, means, strict=True))
        row["train"][f"{target}_accuracy"] = int(progress.hits) / data.size
        row["samples_sha256"] = state.samples

        # ---- schedule and stages ---------------------------------------------------------------------------------
        if config.watches_validation:
            row["validation"] = head_scores(network, samples, data.validation)
            watched = row["validation"][f"{target}_loss"]
            if state.scheduler is not None:
                state.scheduler.step(watched)
            if config.stage.weights == "best":
                state.note_validation(epoch, watched)
        stage = next((name for name, at_epoch in config.stage_epochs.items() if at_epoch == epoch), None)
        if stage is not None or (config.stage.every > 0 and epoch % config.stage.every == 0):
            measured = state.kept_network()
            evaluation = evaluate(measured, samples)
            row["evaluation"] = with_best(evaluation.scores, rows)
            row["weights_sha256"] = weights_digest(measured)
            row["optimizer_sha256"] = content_digest(optimizer.state_dict()["state"])
        if stage is not None:
            row["stage"] = stage
            if evaluation.classes is not None:
                write_json(files.classes(stage), evaluation.classes)

        # ---- to disk: the row first, for a row without its checkpoint is dropped at the next start -----------------
        if targets is not None:
            row |= targets.counts()
        row["seconds"] = progress.count_time()
        row["at"] = time.time()
        state.epoch, state.seconds, state.progress = epoch, state.seconds + row["seconds"], EpochProgress()
        append_jsonl(files.epochs, row)
        if stage is not None or epoch == config.epochs:
            state.save(files, stage if config.stage.keep and epoch < config.epochs else None)
        else:
            state.save_if_cheap(files)
        rows.append(row)
        try:
            yield row
        except GeneratorExit:
            state.save_if_behind(files)
            raise

    # Before the result: a trial that has one is complete, and not touched again.
    files.checkpoint_before.unlink(missing_ok=True)
    return {
        "epochs": state.epoch,
        "stages": {row["stage"]: row["evaluation"] for row in rows if "stage" in row},
        "weights_sha256": weights_digest(state.kept_network()),
        "kept_epoch": state.epoch if state.best is None else state.best["epoch"],
        "seconds": state.seconds,
        "profile": state.profiles[-1]["profile"],
        "earlier_profiles": state.profiles[:-1],
    }


def initial_state(
    config: TrialConfig, data: TrialData, start: Mapping[str, Tensor] | None, device: torch.device
) -> TrialState:
    """The state before the first step: of the configuration, the start's weights and the size of the data alone."""
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
    learning = list(network.parameters())
    if config.distils and config.teacher is not None and loss.gamma > 0:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            projector = FeatureProjector(feature_size(config.student), feature_size(config.teacher.student)).to(device)
        learning += projector.parameters()
    optimizer = SGD(learning, lr=opt.lr, momentum=opt.momentum, weight_decay=opt.weight_decay)
    if config.schedule_acts:  # else the evaluations that it would watch are spared, too
        scheduler = ReduceLROnPlateau(optimizer, factor=opt.factor, patience=opt.patience, min_lr=opt.min_lr)
    return TrialState(network, bank, projector, optimizer, scheduler)


def _rewrite_rows(files: TrialFiles, rows: list[dict[str, Any]]) -> None:
    """Drop rows beyond the checkpoint, so that the file holds each epoch once."""
    if rows != files.rows():
        write_jsonl(files.epochs, rows)
