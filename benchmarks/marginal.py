"""The cost of one more trial in a warm sweep, over its bare arithmetic.

    python benchmarks/marginal.py                        # the quick start's shape: 8 frames of 32², width 8
    python benchmarks/marginal.py --shape few            # R3D and C3D at 10×112², few steps
    python benchmarks/marginal.py --rounds 5 --out marginal.json

One more trial: `python -m kdtune sweep`, one trial at a time, with its data set, teachers and targets in the store. Its
seconds run from the end of the trial before to its own end, so everything is included: start by Ray, reading,
augmentation, evaluation, checkpoints, tracking. In each round the sweep gets --trials more candidates; the first of
them also pays for the worker's imports and is left out.

Bare arithmetic: the student's forward and backward passes and steps, and the evaluations' forward passes, on the same
batches and targets already in memory, in a process of one thread like the worker's. It takes turns with the sweep; a
ratio compares within one round.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any

import torch

from common import command, machine_line, parser, print_table, ratios, say, spread, this_machine, write_json
from kdtune.clips.dataset import TrialData
from kdtune.clips.machine import cores
from kdtune.config.trial import TrialConfig
from kdtune.store.files import read_jsonl
from kdtune.train.initial import initial_state
from kdtune.train.inputs import evaluation_samples, evenly_spaced_clips, training_samples
from kdtune.train.loader import training_places
from kdtune.train.measuring.evaluate import passes
from kdtune.train.profile import make_deterministic
from kdtune.train.samples import Samples
from kdtune.train.session import Session
from kdtune.train.targets import Targets
from shapes import SHAPES, Place, place
from step import training_step

CPU = torch.device("cpu")


def main() -> None:
    args = parse()
    rows: list[dict[str, Any]] = []
    with place(SHAPES[args.shape], candidates=1) as at:
        done = sweep(at, candidates=1)
        first, *_ = at.sweep.teachers
        config = at.sweep.build(at.sweep.blocks()[0], {"teacher": first}, at.sweep.search.first_seeds[0])
        at.session.prepare(config)
        pipe = arithmetic_process(config, at.session)
        for number in range(args.rounds):
            pipe.send("run")
            bare = pipe.recv()
            before, done = done, sweep(at, candidates=1 + args.trials * (number + 1))
            found = [read_jsonl(at.session.store.trial(key).epochs) for key in done if key not in before]
            ends = sorted(trial[-1]["at"] for trial in found)
            trials = [later - earlier for earlier, later in pairwise(ends)]
            inside = [sum(row["seconds"] for row in trial) for trial in found]
            rows.append({"arithmetic_s": bare, "trials_s": trials, "inside_epochs_s": inside})
            say(f"round {number}: arithmetic {bare:.2f} s, one more trial {statistics.median(trials):.2f} s")
        pipe.send("")
    bare, more = [row["arithmetic_s"] for row in rows], [statistics.median(row["trials_s"]) for row in rows]
    found, times = this_machine(config), ratios(more, bare)
    print(f"\n{SHAPES[args.shape].about}\n{machine_line(found)}")
    print_table(["bare arithmetic, s", "one more trial, s", "ratio"], [[spread(bare), spread(more), spread(times, 3)]])
    write_json(args.out, {"shape": args.shape, "machine": found, "rounds": rows, "ratios": times})


def parse() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--shape", choices=["quick", "few"], default="quick", help="default: quick")
    made.add_argument("--rounds", type=int, default=3, help="default: 3")
    made.add_argument("--trials", type=int, default=4, help="candidates of a round, at least 2 (default: 4)")
    args = made.parse_args()
    if args.trials < 2:
        made.error("--trials must be at least 2: the first one is left out")
    return args


def sweep(at: Place, candidates: int) -> list[str]:
    """Run the command, one trial at a time. Return the keys of the sweep's candidates so far."""
    sets = ["--set", f"search.candidates={candidates}", "--set", f"resources.cpu={cores()}"]
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{at.folder}/mlflow.db"}
    command([sys.executable, "-m", "kdtune", "sweep", str(at.file), *sets, "--store", str(at.store)], uri)
    (ledger,) = at.session.store.sweep(at.sweep.name).folder.glob("ledger_*.jsonl")
    asked = [row for row in read_jsonl(ledger) if row["event"] == "asked" and row["kind"] == "candidate"]
    return list(dict.fromkeys(key for row in asked for key in row["keys"]))


# ---- bare arithmetic -------------------------------------------------------------------------------------------------


def arithmetic_process(config: TrialConfig, session: Session) -> Connection:
    """Return the pipe to a process that runs a trial's arithmetic for every message and replies with its seconds."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    context.Process(target=serve_arithmetic, args=(theirs, config, session), daemon=True).start()
    theirs.close()  # so that recv() ends when the process does
    return pipe


def serve_arithmetic(pipe: Connection, config: TrialConfig, session: Session) -> None:
    trial = Arithmetic(config, session)
    trial.run()  # the first run pays for torch's set-up
    while pipe.recv():
        started = time.perf_counter()
        trial.run()
        pipe.send(time.perf_counter() - started)


class Arithmetic:
    """One trial's passes and steps on batches in memory."""

    def __init__(self, config: TrialConfig, session: Session) -> None:
        make_deterministic(config)
        assert config.teacher is not None
        self.config, self.data = config, TrialData.of(config, session.clips(config))
        samples, load = Samples(config, self.data, CPU), partial(session.weights, config.teacher, CPU)
        targets = Targets(samples, session.key(config.teacher), session.store, load)
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
        self.videos = [evenly_spaced_clips(config, self.data, part, CPU) for rows in asked for part in passes(rows)]
        self.tuples = [evaluation_samples(config, self.data, part, CPU) for rows in asked[1:] for part in passes(rows)]

    def run(self) -> None:
        config = self.config
        state = initial_state(config, self.data, None, CPU)
        network, optimizer = state.network, state.optimizer
        for epoch, (batches, logits) in enumerate(self.epochs, 1):
            network.train()
            for batch, at in batches:
                training_step(config, network, optimizer, batch, logits[at])
            if epoch in config.stage_epochs.values():
                network.eval()
                with torch.no_grad():
                    for clips in self.videos:
                        network.features(clips)
                    for batch in self.tuples:
                        network.logits(network.features(batch.clips))


if __name__ == "__main__":
    main()
