"""What each command does: call, print, exit code. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_OK, Problem, UserError

if TYPE_CHECKING:
    import torch

    from kdtune.config.trial import TrialConfig
    from kdtune.train.session import Session


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def sweep(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_sweep

    sweep = load_sweep(options.file, options.set)
    if options.dry_run:
        return plan(options)
    from kdtune.report.results import mixed_profiles, sweep_results
    from kdtune.report.tables import summary
    from kdtune.store import Store, read_json
    from kdtune.sweep.driver import drive
    from kdtune.tracking.location import tracking_uri
    from kdtune.tracking.publish import read_run_ids

    store, uri = Store(options.store), tracking_uri()
    end = drive(sweep, options.file.read_text(), store, options.address, uri, _say)
    files = store.sweep(sweep.name)
    results = sweep_results(store, sweep.name, read_run_ids(files.mlflow, uri))
    print(f"\n{summary(results, read_json(files.sweep))}\n")
    for line in end.account(options.store):
        print(line)
    for note in filter(None, [*end.notes, mixed_profiles(results["trials"])]):
        print(f"note: {note}")
    print("Look at it:  python -m kdtune ui")
    print(f"All figures: python -m kdtune results {sweep.name} --format csv")
    if sweep.search.candidates is not None:
        more = f"--set search.candidates={2 * sweep.search.candidates}"
        print(f"Go on:       python -m kdtune sweep {options.file} {more}")
    return end.exit_code


def plan(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_sweep
    from kdtune.store import Store
    from kdtune.sweep.plan import plan

    sweep = load_sweep(options.file, options.set)
    for line in plan(sweep, Store(options.store)):
        print(line)
    return EXIT_OK


def train(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_trial

    config = load_trial(options.file, options.set)
    from kdtune.store import Store
    from kdtune.train.session import Session, choose_device

    session = Session(Store(options.store), workers=options.workers)
    device = choose_device(options.device)
    session.prepare(config)
    if problems := session.problems(config):
        raise UserError(problems)
    ended = _train_one(session, config, device)
    if config.finetuned is not None:
        ended["finetune"] = _train_one(session, config.finetuned, device)
    print(json.dumps(ended, indent=1))
    return EXIT_OK


def _train_one(session: Session, config: TrialConfig, device: torch.device) -> dict[str, Any]:
    """Train a trial with a line for each epoch, tell MLflow, and return its key with its result."""
    from kdtune.config.space import flat_params
    from kdtune.tracking.location import tracking_uri
    from kdtune.tracking.publish import TrackedTrial, publish_trial

    files = session.files(config)
    _say(f"trial {files.key} on {device}, in {files.folder}")
    state = "failed"
    try:
        for row in session.trial(config, device):
            stage = f" · {row['stage']}: {_figures(row['evaluation']['validation'])}" if "stage" in row else ""
            losses = " ".join(f"{name} {value:.3f}" for name, value in row["train"].items())
            _say(f"epoch {row['epoch']:3d}/{config.epochs} {losses} ({row['seconds']:.1f} s){stage}")
        state = "complete"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        params = {**flat_params(config), "seed": config.seed, "control": False, "block": None, "key": files.key}
        tracked = TrackedTrial(files, f"train {files.key[:8]}", params, {}, state)
        for problem in publish_trial(tracking_uri(), "train", tracked):
            _say(f"note: {problem}")
    return {"key": files.key, **(files.result() or {})}


def _figures(evaluation: dict[str, float]) -> str:
    """The best-known figures of a stage; all of them are in the result."""
    shown = (name for name in ("pretext", "top1", "knn", "linear") if name in evaluation)
    return ", ".join(f"{name} {evaluation[name]:.3f}" for name in shown)


def results(options: argparse.Namespace) -> int:
    from kdtune.report.results import mixed_profiles, sweep_results
    from kdtune.report.tables import render
    from kdtune.store import Store, read_json
    from kdtune.tracking.location import tracking_uri
    from kdtune.tracking.publish import read_run_ids

    store = Store(options.store)
    files = store.sweep(options.sweep)
    results = sweep_results(store, options.sweep, read_run_ids(files.mlflow, tracking_uri()))
    if note := mixed_profiles(results["trials"]):
        _say(f"note: {note}")
    if options.accuracies:
        from kdtune.report.accuracies import accuracies
        from kdtune.report.tables import STYLES

        if options.format not in STYLES:
            what = f"makes tables, got {options.format}: that format always holds every figure"
            raise UserError([Problem("--accuracies", what, ", ".join(STYLES))])
        print(accuracies(results, read_json(files.sweep), options.format))
    else:
        print(render(results, read_json(files.sweep), options.format))
    return EXIT_OK


def schema(options: argparse.Namespace) -> int:
    from kdtune.config.sweep import SweepConfig

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **SweepConfig.model_json_schema()}
    print(json.dumps(schema, indent=1, ensure_ascii=False))
    return EXIT_OK


def synth(options: argparse.Namespace) -> int:
    from kdtune.clips.synthetic import make_synthetic

    make_synthetic(options.folder, seed=options.seed, groups=options.groups, clips=options.clips)
    return EXIT_OK


def prepare(options: argparse.Namespace) -> int:
    from kdtune.clips.build import described
    from kdtune.clips.store import ClipStore
    from kdtune.config.load import load_trial
    from kdtune.store import Store
    from kdtune.train.prepared import Prepared

    prepared = Prepared(Store(options.store))
    prepared.prepare(load_trial(options.file, options.set))
    for clips in map(ClipStore.open, map(Path, dict.fromkeys(prepared.folders.values()))):
        print(f"{clips.folder}: {clips.tier.name}, {described(clips)}")
    return EXIT_OK


def verify(options: argparse.Namespace) -> int:
    from kdtune.clips.machine import cores
    from kdtune.clips.repair import problems_of
    from kdtune.store import Store

    folders = Store(options.store).clip_stores()
    damaged = [problem for folder in folders for problem in problems_of(folder, cores())]
    print("".join(f"{problem}\n" for problem in damaged), end="")
    print(f"{len(folders)} clip stores checked, {len(damaged)} problems")
    if damaged:
        _say("the next `data prepare` or sweep on their videos decodes again what is damaged")
    return EXIT_FAILED_TRIALS if damaged else EXIT_OK


def replay(options: argparse.Namespace) -> int:
    from kdtune.report.results import keys_of
    from kdtune.store import Store
    from kdtune.train.replay import Replay
    from kdtune.train.session import choose_device

    store, device = Store(options.store), choose_device(options.device)
    keys = keys_of(store, options.name)
    if options.from_stage is not None:
        found, keys = len(keys), [key for key in keys if store.trial(key).stage_checkpoint(options.from_stage).exists()]
        _say(f"{len(keys)} of {found} trials have a checkpoint of stage {options.from_stage}")
        if not keys:
            raise UserError([Problem("--from", f"got {options.from_stage}, but no checkpoint of it was kept")])
    if options.sample is not None:
        # Other ones each time: an audit that is known beforehand is none.
        keys = random.sample(keys, min(options.sample, len(keys)))
    same = 0
    with Replay(store, device, options.from_stage) as replays:
        for key in keys:
            difference = replays.trial(key)
            same += difference is None
            print(f"SAME       {key}" if difference is None else f"DIFFERENT  {key}\n{difference}", flush=True)
    print(f"SAME {same}/{len(keys)}")
    return EXIT_OK if same == len(keys) else EXIT_FAILED_TRIALS


def doctor(options: argparse.Namespace) -> int:
    from kdtune.store import Store
    from kdtune.train.doctor import PACKED, TRIAL, examine

    tried = problems = 0
    for finding in examine(Store(options.store), options.device, full=options.full):
        print(finding, flush=True)
        tried += finding.name in (TRIAL, PACKED)
        problems += finding.state == "problem"
    if problems:
        print(f"{problems} problem{'s' if problems != 1 else ''}")
        return EXIT_FAILED_TRIALS
    print(f"ready: every trial repeated its bits ({tried}/{tried})")
    return EXIT_OK


def teacher_list(options: argparse.Namespace) -> int:
    from kdtune.report.teachers import teacher_rows, teacher_table
    from kdtune.store import Store

    print(teacher_table(teacher_rows(Store(options.store))))
    return EXIT_OK


def teacher_import(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_trial
    from kdtune.store import Store
    from kdtune.train.imports import import_checkpoint, import_trial, yaml_lines

    store = Store(options.store)
    if options.source.is_dir():
        print(import_trial(options.source, store))
        return EXIT_OK
    config = load_trial(options.trial, options.set)
    imported = import_checkpoint(options.source, config, store)
    heads = ", ".join(imported.heads) or "none"
    _say(f"trial {imported.key} in {imported.files.folder}; layout {imported.layout}, heads: {heads}")
    _say("in a sweep file, under `teachers:`; in a trial, under `teacher:` or `start:` without the name:")
    print(yaml_lines(imported, config, options.name))
    return EXIT_OK


def ui(options: argparse.Namespace) -> int:
    from kdtune.tracking.location import serve, tracking_uri

    serve(tracking_uri(), options.port)
