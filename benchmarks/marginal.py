"""What one more trial costs in a warm sweep, over its bare arithmetic.

    python benchmarks/marginal.py                        # the quick start's shape: 8 frames of 32², width 8
    python benchmarks/marginal.py --shape paper          # R3D at 10 × 112², width 64, some steps
    python benchmarks/marginal.py --rounds 5 --out marginal.json

One more trial: `python -m kdtune sweep`, one trial at a time, with its data set, teacher and targets in the store. Its
seconds are those from the end of the trial before to its own end, so everything is in them: Ray's start of it, reading,
augmentation, evaluation, checkpoints, tracking. In each round the sweep goes on by TRIALS candidates; the first of them
also pays the worker's imports and is left out.

Bare arithmetic: the student's forward and backward passes and steps, and the evaluations' forward passes, on the same
batches and targets already in memory, in a process of one thread like the worker's. It takes turns with the sweep; a
ratio is of one round.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.nn.functional import cross_entropy

from kdtune.clips.dataset import TrialData
from kdtune.clips.synthetic import make_synthetic
from kdtune.config.load import load_trial
from kdtune.config.trial import TrialConfig
from kdtune.losses.contrast import in_batch_loss
from kdtune.losses.distill import distillation_loss
from kdtune.store import Store, read_jsonl
from kdtune.train.evaluate import EVALUATION_BATCH
from kdtune.train.inputs import evaluation_samples, evenly_spaced_clips, training_samples
from kdtune.train.loader import training_places
from kdtune.train.profile import make_deterministic
from kdtune.train.samples import Samples
from kdtune.train.session import Session
from kdtune.train.targets import Targets
from kdtune.train.trial import initial_state

TRIALS = 4
CPU = torch.device("cpu")

#: What the sweep's trial is, by shape; the rest is the papers'.
SHAPES: dict[str, dict[str, Any]] = {
    "quick": {  # sweeps/lambda_tau.yaml
        "student": {"backbone": "r3d", "width": 8},
        "clip": {"frames": 8, "size": 32},
        "loss": {"contrast": "in_batch"},
        "optimizer": {"batch": 8},
        "epochs": 8,
        "stages": {"early": 2, "mid": 6, "late": 8},
        "evaluation": {"clips": 8},
        "memory_format": "channels_last",
    },
    "paper": {  # few videos and steps; a stage for every epoch, as three for 200 would leave evaluation out
        "student": {"backbone": "r3d", "width": 64},
        "clip": {"frames": 10, "size": 112},
        "loss": {"contrast": "in_batch"},
        "optimizer": {"batch": 4},
        "epochs": 2,
        "stages": {"early": 1, "late": 2},
        "evaluation": {"clips": 2},
    },
}
TEACHERS = {
    "quick": {"student": {"backbone": "c3d", "width": 8}},
    "paper": {"student": {"backbone": "c3d", "width": 8}},
}
#: Of the synthetic videos: motions × groups × clips. Default: the quick start's.
VIDEOS: dict[str, dict[str, Any]] = {"quick": {}, "paper": {"classes": ("SpinLeft", "Rise"), "groups": 5, "clips": 1}}


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory(prefix="kdtune-marginal-") as folder:
        file = write_sweep(Path(folder), args.shape)
        store = Store(Path(folder) / "runs")
        done = sweep(file, store, candidates=1)  # the data set, the teacher, its targets
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        context.Process(target=serve_arithmetic, args=(theirs, file, store), daemon=True).start()
        theirs.close()  # so that recv() ends where the process does
        rows = []
        for turn in range(args.rounds):
            pipe.send("run")
            bare = pipe.recv()
            before = set(done)
            done = sweep(file, store, candidates=1 + TRIALS * (turn + 1))
            ends = sorted(rows_of(store, key)[-1]["at"] for key in done if key not in before)
            trials = [later - earlier for earlier, later in pairwise(ends)]
            inside = [sum(row["seconds"] for row in rows_of(store, key)) for key in done if key not in before]
            rows.append({"arithmetic_s": bare, "trials_s": trials, "inside_epochs_s": inside})
            ratio = float(np.median(trials)) / bare
            print(
                f"round {turn + 1}: arithmetic {bare:.2f} s, one more trial {np.median(trials):.2f} s: {ratio:.3f}",
                flush=True,
            )
        pipe.send("")
        ratios = [float(np.median(row["trials_s"])) / row["arithmetic_s"] for row in rows]
        print(f"\nmarginal cost over bare arithmetic, {args.shape}: {np.median(ratios):.3f}")
    if args.out:
        args.out.write_text(json.dumps({"shape": args.shape, "rounds": rows, "ratios": ratios}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="quick")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--out", type=Path, help="also write every figure to this file, as JSON")
    return parser.parse_args()


# ---- the sweep -------------------------------------------------------------------------------------------------------


def write_sweep(folder: Path, shape: str) -> Path:
    """A sweep over λ and τ without pruning; each trial takes all cores for itself, so that one runs at a time."""
    make_synthetic(folder / "videos", **VIDEOS[shape])
    form = {
        "name": "marginal",
        "trial": {**SHAPES[shape], "data": {"dataset": "synthetic", "root": str(folder / "videos")}},
        "teachers": {"c3d": TEACHERS[shape]},
        "search": {
            "space": {"teacher": ["c3d"], "lambda": {"log": [0.05, 5.0]}, "tau": {"range": [1.0, 8.0]}},
            "controls": [{"teacher": "none"}],
            "sampler": "random",
            "candidates": 1,
        },
        "resources": {"cpu": os.cpu_count()},
    }
    file = folder / "marginal.yaml"
    file.write_text(yaml.safe_dump(form, sort_keys=False))
    return file


def sweep(file: Path, store: Store, candidates: int) -> list[str]:
    """Run the command; the keys of the sweep's candidates so far, in their order."""
    command = [sys.executable, "-m", "kdtune", "sweep", str(file), "--set", f"search.candidates={candidates}"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{file.parent}/mlflow.db"}
    done = subprocess.run([*command, "--store", str(store.root)], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    (ledger,) = store.sweep("marginal").folder.glob("ledger_*.jsonl")
    asked = [row for row in read_jsonl(ledger) if row["event"] == "asked" and row["kind"] == "candidate"]
    return list(dict.fromkeys(key for row in asked for key in row["keys"]))


def rows_of(store: Store, key: str) -> list[dict[str, Any]]:
    return store.trial(key).rows()


# ---- bare arithmetic -------------------------------------------------------------------------------------------------


def serve_arithmetic(pipe: Any, file: Path, store: Store) -> None:
    trial = Arithmetic(load_trial(file, ["teacher=c3d"]), store)
    trial.run()  # the first time pays for what torch sets up
    while pipe.recv():
        started = time.perf_counter()
        trial.run()
        pipe.send(time.perf_counter() - started)


class Arithmetic:
    """One trial's passes and steps on batches in memory."""

    def __init__(self, config: TrialConfig, store: Store) -> None:
        make_deterministic(config)
        session = Session(store)
        session.prepare(config)
        self.config, self.data = config, TrialData.of(config, session.clips(config))
        targets = Targets(Samples(config, self.data, CPU), session.key(config.teacher), store)
        self.epochs = [
            (
                [
                    (training_samples(config, self.data, at, samples, CPU), torch.from_numpy(samples))
                    for at, samples in training_places(config, self.data, epoch, 0)
                    if at == epoch
                ],
                targets.epoch(epoch)["logits"],
            )
            for epoch in range(1, config.epochs + 1)
        ]
        asked = [self.data.train, self.data.validation, self.data.test]
        passes = [
            part for rows in asked for part in np.split(rows, range(EVALUATION_BATCH, len(rows), EVALUATION_BATCH))
        ]
        self.videos = [evenly_spaced_clips(config, self.data, rows, CPU) for rows in passes]
        self.tuples = [evaluation_samples(config, self.data, rows, CPU) for rows in asked[1:]]

    def run(self) -> None:
        config, loss = self.config, self.config.loss
        state = initial_state(config, self.data, None, CPU)
        network, optimizer = state.network, state.optimizer
        for epoch, (batches, logits) in enumerate(self.epochs, 1):
            network.train()
            for batch, at in batches:
                features = network.features(batch.clips)
                said = network.logits(features)
                first, last = network.projections(features)
                total = cross_entropy(said, batch.labels) + loss.alpha * in_batch_loss(first, last, loss.temperature)
                total = total + loss.lambda_ * distillation_loss(said, logits[at], loss.tau)
                optimizer.zero_grad(set_to_none=True)
                total.backward()
                optimizer.step()
            if epoch in config.stage_epochs.values():
                network.eval()
                with torch.no_grad():
                    for clips in self.videos:
                        network.features(clips)
                    for batch in self.tuples:
                        network.logits(network.features(batch.clips))


if __name__ == "__main__":
    main()
