"""The baseline of benchmarks/sweep.py: what a competent user writes from Ray's documentation and the PCL recipe.

    python benchmarks/baseline.py JOB.json        # sweep.py writes the job: trial, points, lists, teachers, places

Ray Tune with OptunaSearch, ASHA and the MLflow callback; in each trial, a DataLoader in which decord reads a tuple's
frames, torchvision transforms them frame by frame, and the teacher runs live on every batch. Network, losses, k-NN and
linear probe are kdtune's, so that both sides do the same arithmetic; clips, augmentation, targets, evaluation inputs
and search are not.

After every epoch it measures what PCL measures (loss and accuracy of the pretext task on the validation videos) and the
search's objective, which ASHA needs then; everything else, including the test videos, at the stages only.

Choices in its favour: get_batch decodes as few frames as possible, one transform call for a clip's frames, PCL's fast
blur (Pillow's), no checkpoints, no artifacts, no deterministic algorithms, one process for many trials (Ray's default
for functions). `workers` is 0: with a trial on each core, more workers would only wait for each other.

Its networks use torch's default memory layout, as PCL's do; `memory_format` is one of kdtune's switches.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from baseline_data import SPLITS, Spaced, Tuples, load_lists
from kdtune.config.trial import TrialConfig
from kdtune.losses.contrast import MemoryBank, in_batch_loss
from kdtune.losses.distill import distillation_loss
from kdtune.models.heads import PclNetwork, build_network
from kdtune.train.measuring.probes import nearest, probe_predictions, vote

# ---- evaluation ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def head_scores(network: PclNetwork, loader: DataLoader[Any], prefix: str) -> dict[str, float]:
    network.eval()
    hits, loss, count = 0, 0.0, 0
    for clips, labels, _ in loader:
        logits = network.logits(network.features(clips))
        hits += int((logits.argmax(1) == labels).sum())
        loss += float(cross_entropy(logits, labels, reduction="sum"))
        count += len(labels)
    return {f"{prefix}_pretext": hits / count, f"{prefix}_pretext_loss": loss / count}


@torch.no_grad()
def features(network: PclNetwork, loader: DataLoader[Any]) -> Tensor:
    network.eval()
    return torch.cat([network.features(clips).mean(1) for clips in loader])


# ---- one trial -------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds, by purpose."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] += now - self._last
        self._last = now


def train(values: dict[str, Any]) -> None:
    """Ray's trainable: one trial from its first epoch to its last."""
    from ray import tune

    clock = Clock()
    torch.set_num_threads(1)
    job = json.loads(Path(values["job"]).read_text())
    shared = TrialConfig.model_validate(job["trial"])
    shared_loss = shared.loss.model_dump(by_alias=True)
    loss = {**shared_loss, **{name: values[name] for name in ("alpha", "lambda", "tau")}}
    config = TrialConfig.model_validate({**job["trial"], "loss": loss, "memory_format": "contiguous"})
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    lists, opt = load_lists(Path(job["lists"])), config.optimizer
    labels = {split: torch.tensor([label for _, label in videos]) for split, videos in lists.items()}
    workers = {"num_workers": job["workers"], "persistent_workers": job["workers"] > 0}
    odd = len(lists["train"]) % opt.batch == 1  # batch normalisation needs two
    data = Tuples(lists["train"], config, train=True)
    loader = DataLoader(data, batch_size=opt.batch, shuffle=True, drop_last=odd, **workers)
    asked = {s: DataLoader(Tuples(lists[s], config, train=False), batch_size=32, **workers) for s in SPLITS[1:]}
    spaced = {s: DataLoader(Spaced(lists[s], config), batch_size=32, **workers) for s in SPLITS}

    network, teacher = build_network(config), None
    if values["teacher"] != "none":
        entry = job["teachers"][values["teacher"]]
        teacher = build_network(TrialConfig.model_validate(entry["trial"])).eval().requires_grad_(False)
        teacher.load_state_dict(torch.load(entry["checkpoint"], weights_only=True)["network"])
    size, k = len(lists["train"]), config.loss.negatives
    bank: nn.Module | None = None
    if config.loss.contrast == "memory_bank":
        bank = MemoryBank(
            size, config.loss.projection, k, config.loss.bank_momentum, config.loss.temperature, config.seed
        )
    optimizer = torch.optim.SGD(network.parameters(), lr=opt.lr, momentum=opt.momentum, weight_decay=opt.weight_decay)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=opt.factor, patience=opt.patience)
    clock.lap("start")

    for epoch in range(1, config.epochs + 1):
        network.train()
        total = 0.0
        for clips, targets, at in loader:
            clock.lap("input")
            said = None
            if teacher is not None:
                with torch.no_grad():
                    said = teacher.logits(teacher.features(clips))
                clock.lap("teacher")
            seen = network.features(clips)
            logits = network.logits(seen)
            first, last = network.projections(seen)
            if bank is not None:
                contrast = bank.loss(first, last, at, torch.randint(size, (len(at), k)))
                bank.update(first, last, at)
            else:
                contrast = in_batch_loss(first, last, config.loss.temperature)
            step_loss = cross_entropy(logits, targets) + config.loss.alpha * contrast
            if said is not None:
                step_loss = step_loss + config.loss.lambda_ * distillation_loss(logits, said, config.loss.tau)
            optimizer.zero_grad(set_to_none=True)
            step_loss.backward()
            optimizer.step()
            total += float(step_loss.detach()) * len(at)
            clock.lap("network")

        row: dict[str, float] = {"loss": total / size, **head_scores(network, asked["validation"], "validation")}
        plateau.step(row["validation_pretext_loss"])
        clock.lap("validation")
        at_stage = epoch in job["stages"]
        if at_stage or job["metric"] != "pretext":
            splits = SPLITS[1:] if at_stage else SPLITS[1:2]
            gallery = features(network, spaced["train"])
            for split in splits:
                found = features(network, spaced[split])
                neighbors = config.evaluation.neighbors
                order = vote(*nearest(gallery, found, neighbors), labels["train"], neighbors, job["classes"])
                row[f"{split}_knn"] = float((order == labels[split]).double().mean())
                if at_stage:
                    linear = probe_predictions(gallery, labels["train"], found, job["classes"])
                    row[f"{split}_linear"] = float((linear == labels[split]).double().mean())
            if at_stage:
                row |= head_scores(network, asked["test"], "test")
            clock.lap("stages" if at_stage else "objective")
        tune.report({**row, **{f"seconds_{name}": seconds for name, seconds in clock.seconds.items()}})
        clock.lap("report")


# ---- the sweep -------------------------------------------------------------------------------------------------------


def main() -> None:
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    file = Path(sys.argv[1]).resolve()
    job = json.loads(file.read_text())
    epochs, metric = job["trial"]["epochs"], f"validation_{job['metric']}"
    ray.init(address="local", num_cpus=job["cores"], include_dashboard=False, log_to_driver=False)
    results = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={
            "job": str(file),
            "teacher": tune.choice(["none", *job["teachers"]]),
            "lambda": tune.loguniform(0.05, 5.0),
            "tau": tune.uniform(1.0, 8.0),
            "alpha": tune.uniform(0.1, 1.0),
        },
        tune_config=tune.TuneConfig(
            metric=metric,
            mode="max",
            num_samples=len(job["points"]),
            search_alg=OptunaSearch(points_to_evaluate=job["points"], seed=0),
            # No trial is stopped: both sides must train the same epochs.
            scheduler=ASHAScheduler(max_t=epochs, grace_period=epochs),
        ),
        run_config=tune.RunConfig(
            name="baseline",
            storage_path=job["storage"],
            callbacks=[MLflowLoggerCallback(tracking_uri=job["tracking_uri"], experiment_name="baseline")],
            verbose=0,
        ),
    ).fit()
    if results.errors:
        sys.exit(f"{len(results.errors)} trials failed: {results.errors[0]}")
    rows = [{"point": result.config, **result.metrics} for result in results]
    Path(job["out"]).write_text(json.dumps(rows, default=str))
    ray.shutdown()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(None if print(__doc__) or sys.argv[1:] in (["-h"], ["--help"]) else 2)
    main()
