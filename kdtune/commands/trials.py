"""`train` and `replay`: single trials, without Ray."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kdtune.commands.places import reading
from kdtune.commands.say import line_width, say
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_OK, Problem, UserError
from kdtune.names import is_name, quoted, stays_below
from kdtune.parse import JsonObject

if TYPE_CHECKING:
    from kdtune.api.training import TrialRun


def train(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_trial

    config = load_trial(options.file, options.set)
    from kdtune.api.store import Store
    from kdtune.api.training import train

    store = Store(options.store, option="--store")
    first, *rest = train(config, store=store, device=options.device, workers=options.workers).runs
    ended = _shown(first)
    for finetuning in rest:
        ended["finetune"] = _shown(finetuning)
    print(json.dumps(ended, indent=1))
    return EXIT_OK


def _shown(run: TrialRun) -> JsonObject:
    """Train a trial, print a line for each epoch, publish it to MLflow, and return its key and result."""
    from kdtune.config.space import flat_params
    from kdtune.tracking.commit import commit_tags
    from kdtune.tracking.location import tracking_uri
    from kdtune.tracking.publish import TrackedTrial, publish_trial
    from kdtune.train.measuring.usage import UsageMeter

    config, files, meter = run.config, run.trial.files, UsageMeter(run.device)
    say(f"trial {files.key} on {run.device}, in {files.folder}")
    state = "failed"
    try:
        for row in run:
            meter.note(files, row)
            stage = f" · {row['stage']}: {_figures(row['evaluation']['validation'])}" if "stage" in row else ""
            losses = " ".join(f"{name} {value:.3f}" for name, value in row["train"].items())
            say(f"epoch {row['epoch']:3d}/{config.epochs} {losses} ({row['seconds']:.1f} s){stage}")
        state = "complete"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        params = {**flat_params(config), "seed": config.seed, "control": False, "block": None, "key": files.key}
        tracked = TrackedTrial(files, f"train {files.key[:8]}", params, commit_tags(Path.cwd()), state)
        for problem in publish_trial(tracking_uri(), "train", tracked):
            say(f"note: {problem}")
    return {"key": files.key, **(files.result() or {})}


def _figures(evaluation: Mapping[str, float]) -> str:
    """Return the main figures of a stage, as text; the result holds all of them."""
    shown = (name for name in ("pretext", "top1", "knn", "linear") if name in evaluation)
    return ", ".join(f"{name} {evaluation[name]:.3f}" for name in shown)


def replay(options: argparse.Namespace) -> int:
    from kdtune.history.replayed import SeedGroups, objectives_of, replayed
    from kdtune.history.trials import trained_keys
    from kdtune.tables.terminal import text_for
    from kdtune.train.replay import Difference, Replay
    from kdtune.train.session import choose_device

    store, device = reading(options), choose_device(options.device)
    keys, objectives = trained_keys(store, options.name), objectives_of(store, options.name)
    if options.from_stage is not None:
        stage, trials = options.from_stage, [store.trial(key) for key in keys]
        keys = [t.key for t in trials if stays_below(stage) and "/" not in stage and t.has(t.stage_checkpoint(stage))]
        shown = stage if is_name(stage) else quoted(stage)
        if not keys:
            raise UserError([Problem("--from", f"got {shown}, but no checkpoint of that stage was kept")])
        say(f"{len(keys)} of {len(trials)} trials have a checkpoint of stage {shown}")
    if options.sample is not None:
        # Drawn anew each time: an audit must not be predictable.
        keys = random.sample(keys, min(options.sample, len(keys)))
    verdicts: Counter[str] = Counter(SAME=0)
    groups: SeedGroups | None = None
    with Replay(store, device, options.from_stage) as replays:
        for key in keys:

            def trains_on(first: Difference, key: str = key) -> None:
                say(f"{key[:12]}: {first.figure} differs at epoch {first.epoch} under another profile; training on")

            difference = replays.trial(key, options.exact, trains_on)
            if difference is None:
                verdicts["SAME"] += 1
                print(f"SAME          {key}", flush=True)
                continue
            groups = groups or SeedGroups(store)
            found = replayed(key, difference, groups, objectives)
            verdicts[found.verdict] += 1
            print(f"{found.verdict:<12}  {key}\n{found.first}", flush=True)
            if found.figures:
                print(text_for(found.table, line_width(sys.stdout)), flush=True)
    print(", ".join(f"{verdict} {count}/{len(keys)}" for verdict, count in verdicts.items()))
    return EXIT_OK if verdicts["SAME"] + verdicts["CONSISTENT"] == len(keys) else EXIT_FAILED_TRIALS
