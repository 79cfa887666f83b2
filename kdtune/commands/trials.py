"""`train` and `replay`: single trials, without Ray."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtune.commands.places import reading, writing
from kdtune.commands.say import say
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_OK, Problem, UserError
from kdtune.names import is_name, quoted, stays_below

if TYPE_CHECKING:
    import torch

    from kdtune.config.trial import TrialConfig
    from kdtune.train.session import Session


def train(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_trial

    config = load_trial(options.file, options.set)
    from kdtune.train.session import Session, choose_device

    device = choose_device(options.device)
    session = Session(writing(options), workers=options.workers)
    session.prepare(config)
    if problems := session.problems(config):
        raise UserError(problems)
    ended = _train_one(session, config, device)
    if config.finetuned is not None:
        ended["finetune"] = _train_one(session, config.finetuned, device)
    print(json.dumps(ended, indent=1))
    return EXIT_OK


def _train_one(session: Session, config: TrialConfig, device: torch.device) -> dict[str, Any]:
    """Train a trial, print a line for each epoch, publish it to MLflow, and return its key and result."""
    from kdtune.config.space import flat_params
    from kdtune.tracking.commit import commit_tags
    from kdtune.tracking.location import tracking_uri
    from kdtune.tracking.publish import TrackedTrial, publish_trial
    from kdtune.train.usage import UsageMeter

    files, meter = session.files(config), UsageMeter(device)
    say(f"trial {files.key} on {device}, in {files.folder}")
    state = "failed"
    try:
        for row in session.trial(config, device):
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


def _figures(evaluation: dict[str, float]) -> str:
    """Return the main figures of a stage, as text; the result holds all of them."""
    shown = (name for name in ("pretext", "top1", "knn", "linear") if name in evaluation)
    return ", ".join(f"{name} {evaluation[name]:.3f}" for name in shown)


def replay(options: argparse.Namespace) -> int:
    from kdtune.history.trials import trained_keys
    from kdtune.train.replay import Replay
    from kdtune.train.session import choose_device

    store, device = reading(options), choose_device(options.device)
    keys = trained_keys(store, options.name)
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
    same = 0
    with Replay(store, device, options.from_stage) as replays:
        for key in keys:
            difference = replays.trial(key)
            same += difference is None
            print(f"SAME       {key}" if difference is None else f"DIFFERENT  {key}\n{difference}", flush=True)
    print(f"SAME {same}/{len(keys)}")
    return EXIT_OK if same == len(keys) else EXIT_FAILED_TRIALS
