"""The training loop, to be read from top to bottom. Everything it calls is a function of its arguments.

L = CE + alpha · contrast + lambda · tau² · KL(teacher ‖ student) + beta · relations + gamma · features
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdtune.config.schedules import scheduled_values, value_at
from kdtune.config.trial import TrialConfig
from kdtune.errors import TrialError
from kdtune.losses.contrast import in_batch_loss
from kdtune.losses.distill import distillation_loss
from kdtune.losses.features import feature_loss
from kdtune.losses.relations import relation_loss
from kdtune.parse import JsonObject
from kdtune.store import TrialFiles
from kdtune.store.contents import EpochRecord, ResultRecord
from kdtune.store.files import append_jsonl, write_json
from kdtune.train.checkpoint import content_digest, first_names, not_finite_tensors
from kdtune.train.initial import initial_state
from kdtune.train.loader import steps_of_an_epoch
from kdtune.train.measuring.evaluate import ADVICE, evaluate, head_evaluation, head_scores, with_best
from kdtune.train.profile import make_deterministic, profile, state_digest, weights_digest
from kdtune.train.resume import resume
from kdtune.train.samples import Samples, TrainingBatch
from kdtune.train.soundness import not_finite
from kdtune.train.state import EpochProgress, TrialState
from kdtune.train.targets import Targets

log = logging.getLogger(__name__)

#: Called after each step; returns whether the trial stops early.
StopCheck = Callable[[], bool]


def never() -> bool:
    """Never stop early."""
    return False


def train_trial(
    samples: Samples,
    targets: Targets | None,
    start: Mapping[str, Tensor] | None,
    files: TrialFiles,
    stopping: StopCheck = never,
) -> Generator[EpochRecord, None, ResultRecord | None]:
    """Train from the last checkpoint to the end; yield each epoch's row once it is on disk, and return the result.

    `start` holds the weights whose backbone initialises a fresh trial. Rows of epochs that are already done come first.
    The caller may stop after any row, and `stopping` after any step (the return value is then None); the next call
    resumes there, to the same bits. Raises TrialError, naming the epoch, if a loss, a figure or a weight is not finite.
    """
    config, data, device = samples.config, samples.data, samples.device
    # ---- set-up --------------------------------------------------------------------------------------------------
    make_deterministic(config)
    origins = {} if targets is None else {"teacher": targets.weights_sha256}
    origins |= {} if start is None else {"start": state_digest(start)}
    state = resume(lambda: initial_state(config, data, start, device), files, config.stage_epochs, origins)
    if state.epoch < config.epochs:
        state.note_profile(profile(config, device, data.clips))
    yield from list(state.rows)
    network, optimizer, target = state.network, state.optimizer, config.loss.target
    steps = steps_of_an_epoch(config, data)
    batches = samples.training(state.epoch + 1, state.progress.steps)

    while state.epoch < config.epochs:
        # ---- one epoch, or the rest of it --------------------------------------------------------------------------
        epoch, progress = state.epoch + 1, state.progress
        progress.start_clock()
        rate = optimizer.param_groups[0]["lr"]
        epoch_targets = targets.epoch(epoch) if targets is not None else {}
        network.train()
        for batch in islice(batches, steps - progress.steps):
            total, terms, logits = forward(state, config, epoch, batch, epoch_targets)

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
            if stopping():
                state.save(files)
                return None

        # ---- the epoch's figures ---------------------------------------------------------------------------------
        losses = torch.stack(progress.losses).double().cpu()
        bad = (~losses.isfinite().all(1)).nonzero()
        if len(bad) > 0:
            what = f"the loss is not finite at epoch {epoch}, step {int(bad[0]) + 1} of {steps} (rate {rate:g})"
            raise TrialError(f"{what}: {ADVICE}")
        means = (losses.sum(0) / data.size).tolist()
        train = dict(zip(progress.terms, means, strict=True)) | {f"{target}_accuracy": int(progress.hits) / data.size}
        row: EpochRecord = {"epoch": epoch, "lr": rate, "train": train, "samples_sha256": state.samples}
        fields = {"lambda": config.loss.lambda_, "tau": config.loss.tau} if "logits" in epoch_targets else {}
        if scheduled := scheduled_values(fields, epoch, config.epochs):
            row["scheduled"] = scheduled

        # ---- schedule and stages ---------------------------------------------------------------------------------
        if config.watches_validation:
            row["validation"] = head_scores(network, samples, data.validation, epoch).scores
            watched = row["validation"][f"{target}_loss"]
            if state.scheduler is not None:
                state.scheduler.step(watched)
            if config.stage.weights == "best":
                state.note_validation(epoch, watched)
        stage = next((name for name, at_epoch in config.stage_epochs.items() if at_epoch == epoch), None)
        due = config.stage.every > 0 and epoch % config.stage.every == 0
        own = None  # the head's scores with the epoch's own weights, if `stage.between` asks for them
        if due and config.stage.between == "head":
            own = head_evaluation(network, samples, epoch, row.get("validation"))
            row["evaluation"] = with_best(own, state.rows)
        if stage is not None or (due and own is None):
            measured = state.final_network()
            try:
                evaluation = evaluate(measured, samples, epoch)
            except TrialError as error:
                raise TrialError(f"after epoch {epoch} (rate {rate:g}) {error}") from error
            row["evaluation"] = with_best(evaluation.scores, state.rows, own)
            row["weights_sha256"] = weights_digest(measured)
            row["optimizer_sha256"] = content_digest(optimizer.state_dict()["state"])
        if stage is not None:
            row["stage"] = stage
            row["per_video"] = evaluation.per_video
            if evaluation.classes is not None:
                _write_classes(files.classes(stage), evaluation.classes)
        if infinite := [*not_finite(row), *not_finite_tensors(network.state_dict())]:
            raise TrialError(
                f"after epoch {epoch} (rate {rate:g}) these are not finite: {first_names(infinite)}; {ADVICE}"
            )

        # ---- to disk: the row first, because a resumed trial drops a row that no checkpoint covers -----------------
        if targets is not None:
            row |= targets.counts()
        row["seconds"] = progress.count_time()
        row["at"] = time.time()
        state.epoch, state.seconds, state.progress = epoch, state.seconds + row["seconds"], EpochProgress()
        append_jsonl(files.epochs, row)
        state.rows.append(row)
        if stage is not None or epoch == config.epochs:
            state.save(files, stage if config.stage.keep and epoch < config.epochs else None)
        else:
            state.save_if_cheap(files)
        try:
            yield row
        except GeneratorExit:
            state.save_if_behind(files)
            raise

    # Before the result is written: after that the trial is complete and stays untouched.
    files.checkpoint_before.unlink(missing_ok=True)
    result: ResultRecord = {
        "epochs": state.epoch,
        "stages": {row["stage"]: row["evaluation"] for row in state.rows if "stage" in row},
        "weights_sha256": weights_digest(state.final_network()),
        "kept_epoch": state.epoch if state.best is None else state.best["epoch"],
        "seconds": state.seconds,
        "profile": state.profiles[-1]["profile"],
        "earlier_profiles": state.profiles[:-1],
    }
    return {**result, "origins": origins} if origins else result


class Forward(NamedTuple):
    """The forward pass of one batch of B samples."""

    total: Tensor
    """The loss L, a scalar."""
    terms: dict[str, Tensor]
    """The terms of the loss by name: scalars, not weighted."""
    logits: Tensor
    """The head's logits (B, classes)."""


def forward(
    state: TrialState, config: TrialConfig, epoch: int, batch: TrainingBatch, targets: Mapping[str, Tensor]
) -> Forward:
    """Pass `batch` through the network in training mode and compute the loss.

    `targets` are the epoch's, from `Targets.epoch`; empty without a teacher. Updates the memory bank with the batch's
    projections.
    """
    network, bank, loss, target = state.network, state.bank, config.loss, config.loss.target
    weights: dict[str, float] = {target: 1.0, "contrast": loss.alpha, "relations": loss.beta, "features": loss.gamma}
    weights["distill"] = value_at(loss.lambda_, epoch, config.epochs)
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
    if "logits" in targets:
        terms["distill"] = distillation_loss(logits, targets["logits"][at], value_at(loss.tau, epoch, config.epochs))
    if "relations" in targets:
        terms["relations"] = relation_loss(features, targets["relations"][at])
    if state.projector is not None:
        terms["features"] = feature_loss(state.projector(features), targets["features"][at])
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return Forward(total, terms, logits)


def _write_classes(path: Path, classes: Mapping[str, JsonObject]) -> None:
    """Write the per-class figures. Only the report uses them, so a failed write does not end the trial."""
    try:
        write_json(path, classes)
    except OSError as error:
        log.warning(f"{path} was not written: {error.strerror}; the trial continues without it")
