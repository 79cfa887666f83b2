"""The training loop. Read it from top to bottom; everything it calls is a function of what it is given.

L = CE(pretext) + alpha · L_contrast + lambda · tau² · KL(teacher ‖ student)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kdtune.clips.dataset import TrialData
from kdtune.clips.draws import shuffled
from kdtune.config.trial import TrialConfig
from kdtune.errors import TrialError
from kdtune.losses.contrast import MemoryBank, in_batch_loss
from kdtune.losses.distill import distillation_loss
from kdtune.models.heads import build_network
from kdtune.store import TrialFiles, append_jsonl, write_jsonl
from kdtune.train.checkpoint import TrialState
from kdtune.train.evaluate import evaluate, pretext_scores
from kdtune.train.inputs import batches, training_tuples
from kdtune.train.profile import make_deterministic, profile, weights_digest
from kdtune.train.targets import Targets


def train_trial(
    config: TrialConfig, data: TrialData, targets: Targets | None, files: TrialFiles, device: torch.device
) -> Iterator[dict[str, Any]]:
    """Train from the last checkpoint to the end, yielding each epoch's row after everything of it is on disk.

    The caller may stop after any row: the next call goes on from there, to the same bits. The rows of epochs that are
    already done come first. Raises TrialError, naming the step, when a loss is not finite.
    """
    # ---- set-up --------------------------------------------------------------------------------------------------
    make_deterministic(config.threads)
    state = initial_state(config, data, device)
    state.load(files.checkpoint)
    rows = [row for row in files.rows() if row["epoch"] <= state.epoch]
    _rewrite_rows(files, rows)
    yield from rows
    network, bank, optimizer, loss_weights = state.network, state.bank, state.optimizer, config.loss

    while state.epoch < config.epochs:
        # ---- one epoch -------------------------------------------------------------------------------------------
        epoch, started = state.epoch + 1, time.perf_counter()
        rate = optimizer.param_groups[0]["lr"]
        teacher_logits = targets.epoch(epoch) if targets is not None else None
        network.train()
        losses, hits = [], torch.zeros((), dtype=torch.long, device=device)
        order = shuffled(len(data.order), seed=config.seed, epoch=epoch)
        for samples in batches(order[order < data.size], config.optimizer.batch):
            batch = training_tuples(config, data, epoch, samples, device)
            at = torch.from_numpy(samples).to(device)

            # ---- forward -----------------------------------------------------------------------------------------
            features = network.features(batch.clips)
            logits = network.pretext_logits(features)
            pretext = F.cross_entropy(logits, batch.labels)
            contrast = distill = torch.zeros((), device=device)
            if loss_weights.alpha > 0:
                first, last = network.projections(features)
                if bank is not None:
                    negatives = bank.draw_negatives(epoch, samples).to(device)
                    contrast = bank.loss(first, last, at, negatives)
                    bank.update(first, last, at)
                else:
                    contrast = in_batch_loss(first, last, loss_weights.temperature)
            if teacher_logits is not None:
                distill = distillation_loss(logits, teacher_logits[at], loss_weights.tau)
            loss = pretext + loss_weights.alpha * contrast + loss_weights.lambda_ * distill

            # ---- backward ----------------------------------------------------------------------------------------
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(torch.stack((loss, pretext, contrast, distill)).detach() * len(samples))
            hits += (logits.argmax(1) == batch.labels).sum()

        # ---- the epoch's figures ---------------------------------------------------------------------------------
        steps = torch.stack(losses).double().cpu()
        bad = (~steps.isfinite().all(1)).nonzero()
        if len(bad) > 0:
            raise TrialError(
                f"the loss is not finite at epoch {epoch}, step {int(bad[0]) + 1} of {len(steps)} (rate {rate:g}): "
                "a lower optimizer.lr or loss.lambda may help"
            )
        means = (steps.sum(0) / data.size).tolist()
        row: dict[str, Any] = {"epoch": epoch, "lr": rate}
        row["train"] = dict(zip(("loss", "pretext", "contrast", "distill"), means, strict=True))
        row["train"]["pretext_accuracy"] = int(hits) / data.size

        # ---- schedule and stages ---------------------------------------------------------------------------------
        if state.scheduler is not None:
            watched = pretext_scores(network, config, data, data.validation)["pretext_loss"]
            state.scheduler.step(watched)
            row["validation"] = {"pretext_loss": watched}
        for stage, stage_epoch in config.stage_epochs.items():
            if stage_epoch == epoch:
                row["stage"] = stage
                row["evaluation"] = _with_best(evaluate(network, config, data), rows)
                row["weights_sha256"] = weights_digest(network)

        # ---- to disk: the row first, for a row without its checkpoint is dropped at the next start -----------------
        row["seconds"] = time.perf_counter() - started
        row["at"] = time.time()
        state.epoch, state.seconds = epoch, state.seconds + row["seconds"]
        append_jsonl(files.epochs, row)
        state.save(files.checkpoint)
        rows.append(row)
        yield row

    files.write_result(
        {
            "epochs": state.epoch,
            "stages": {row["stage"]: row["evaluation"] for row in rows if "stage" in row},
            "weights_sha256": weights_digest(network),
            "seconds": state.seconds,
            "profile": profile(config, device, data.clips),
        }
    )


def initial_state(config: TrialConfig, data: TrialData, device: torch.device) -> TrialState:
    """The state before the first step; it depends on the configuration and the number of training videos alone."""
    loss, opt = config.loss, config.optimizer
    network = build_network(config).to(device)
    bank = None
    if loss.alpha > 0 and loss.contrast == "memory_bank":
        bank = MemoryBank(
            data.size, loss.projection, loss.negatives, loss.bank_momentum, loss.temperature, config.seed
        ).to(device)
    optimizer = SGD(network.parameters(), lr=opt.lr, momentum=opt.momentum, weight_decay=opt.weight_decay)
    scheduler = None
    if config.schedule_acts:  # else the evaluations that it would watch are spared, too
        scheduler = ReduceLROnPlateau(optimizer, factor=opt.factor, patience=opt.patience, min_lr=opt.min_lr)
    return TrialState(network, bank, optimizer, scheduler)


def _rewrite_rows(files: TrialFiles, rows: list[dict[str, Any]]) -> None:
    """Drop rows beyond the checkpoint, so that the file holds each epoch once."""
    if rows != files.rows():
        write_jsonl(files.epochs, rows)


def _with_best(scores: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Beside each accuracy at this stage, the best one so far (`best_knn` …)."""
    for split, values in scores.items():
        for metric in ("pretext", "knn", "linear"):
            earlier = [row["evaluation"][split][metric] for row in rows if "stage" in row]
            values[f"best_{metric}"] = max([values[metric], *earlier])
    return scores
