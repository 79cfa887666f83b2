"""The command line: parse, call, print. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from kdtune import __version__
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR, TrialError, UserError
from kdtune.report.tables import FORMATS
from kdtune.tracking.location import DEFAULT_PORT

DEFAULT_STORE = "runs"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (see errors.py)."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except UserError as error:
        problems = len(error.problems)
        print(f"kdtune: {problems} problem{'s' if problems != 1 else ''}\n{error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except TrialError as error:
        print(f"kdtune: the trial failed: {error}", file=sys.stderr)
        return EXIT_FAILED_TRIALS
    except KeyboardInterrupt:
        print("kdtune: interrupted; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- commands --------------------------------------------------------------------------------------------------------


def _sweep(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_sweep

    sweep = load_sweep(options.file, options.set)
    if options.dry_run:
        return _plan(options)
    from kdtune.report.results import sweep_results
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
    print(f"{end.trained} trials trained, {end.found} found in {options.store}; {_duration(end.seconds)}.")
    for note in end.notes:
        print(f"note: {note}")
    print("Look at it:  python -m kdtune ui")
    print(f"All figures: python -m kdtune results {sweep.name} --format csv")
    if sweep.search.candidates is not None:
        more = f"--set search.candidates={2 * sweep.search.candidates}"
        print(f"Go on:       python -m kdtune sweep {options.file} {more}")
    return end.exit_code


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _plan(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_sweep
    from kdtune.store import Store
    from kdtune.sweep.plan import plan

    sweep = load_sweep(options.file, options.set)
    for line in plan(sweep, Store(options.store)):
        print(line)
    return EXIT_OK


def _train(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_trial
    from kdtune.config.trial import flat_params

    config = load_trial(options.file, options.set)
    from kdtune.store import Store
    from kdtune.tracking.location import tracking_uri
    from kdtune.tracking.publish import TrackedTrial, publish_trial
    from kdtune.train.session import Session, choose_device

    session, device = Session(Store(options.store)), choose_device(options.device)
    session.prepare(config)
    files = session.files(config)
    _say(f"trial {files.key} on {device}, in {files.folder}")
    state = "failed"
    try:
        for row in session.trial(config, device):
            stage = f" · {row['stage']}: {json.dumps(row['evaluation']['validation'])}" if "stage" in row else ""
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
    print(json.dumps({"key": files.key, **(files.result() or {})}, indent=1))
    return EXIT_OK


def _results(options: argparse.Namespace) -> int:
    from kdtune.report.results import sweep_results
    from kdtune.report.tables import render
    from kdtune.store import Store, read_json
    from kdtune.tracking.location import tracking_uri
    from kdtune.tracking.publish import read_run_ids

    store = Store(options.store)
    files = store.sweep(options.sweep)
    results = sweep_results(store, options.sweep, read_run_ids(files.mlflow, tracking_uri()))
    print(render(results, read_json(files.sweep), options.format))
    return EXIT_OK


def _schema(options: argparse.Namespace) -> int:
    from kdtune.config.sweep import SweepConfig

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **SweepConfig.model_json_schema()}
    print(json.dumps(schema, indent=1, ensure_ascii=False))
    return EXIT_OK


def _synth(options: argparse.Namespace) -> int:
    from kdtune.clips.synthetic import make_synthetic

    make_synthetic(options.folder, seed=options.seed, groups=options.groups, clips=options.clips)
    return EXIT_OK


def _prepare(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_trial
    from kdtune.store import Store
    from kdtune.train.session import Session

    session = Session(Store(options.store))
    session.prepare(load_trial(options.file, options.set))
    for folder in session.folders.values():
        print(folder)
    return EXIT_OK


def _verify(options: argparse.Namespace) -> int:
    from kdtune.clips.store import ClipStore
    from kdtune.store import Store

    folders = sorted(Store(options.store).clips("x").parent.glob("*"))
    damaged = [problem for folder in folders for problem in ClipStore.open(folder).verify()]
    for problem in damaged:
        print(problem)
    print(f"{len(folders)} clip stores checked, {len(damaged)} problems")
    return EXIT_FAILED_TRIALS if damaged else EXIT_OK


def _ui(options: argparse.Namespace) -> int:
    from kdtune.tracking.location import serve, tracking_uri

    serve(tracking_uri(), options.port)


# ---- options ---------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kdtune",
        description="Sweeps over knowledge distillation of self-supervised video models, bit for bit repeatable.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, does: str, example: str, into: Any = commands) -> argparse.ArgumentParser:
        sub = into.add_parser(name, help=does, description=does, epilog=f"example: python -m kdtune {example}")
        sub.set_defaults(run=run)
        store = os.environ.get("KDTUNE_STORE", DEFAULT_STORE)
        sub.add_argument("--store", default=store, metavar="DIR", help=f"where trials are kept (default: {store}/)")
        return sub

    def with_file(sub: argparse.ArgumentParser, what: str) -> argparse.ArgumentParser:
        sub.add_argument("file", type=Path, metavar="FILE", help=what)
        sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the file")
        return sub

    sub = command("sweep", _sweep, "run a sweep, or go on with it", "sweep sweeps/lambda_tau.yaml")
    with_file(sub, "a sweep file").add_argument("--address", help="of a Ray cluster; default: this machine")
    sub.add_argument("--dry-run", action="store_true", help="only say what would run")
    sub = command("plan", _plan, "say what a sweep would run, and check its file", "plan sweeps/paper.yaml")
    with_file(sub, "a sweep file")
    example = "train sweeps/lambda_tau.yaml --set teacher=c3d --set lambda=0.5"
    sub = command("train", _train, "train one trial, without Ray", example)
    with_file(sub, "a trial file, or a sweep file whose `trial` is trained")
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    sub = command("results", _results, "print a sweep's trials", "results lambda_tau --format markdown")
    sub.add_argument("sweep", metavar="SWEEP", help="a sweep's name")
    sub.add_argument("--format", choices=FORMATS, default="table")
    command("schema", _schema, "print the JSON Schema of a sweep file", "schema > sweeps/schema.json")
    sub = command("ui", _ui, "serve MLflow's pages on this machine", "ui --port 5000")
    sub.add_argument("--port", type=int, default=DEFAULT_PORT)

    data = commands.add_parser("data", help="make, prepare and check data sets").add_subparsers(
        dest="data_command", required=True, metavar="COMMAND"
    )
    sub = command("synth", _synth, "write a set of motion videos", "data synth data/synthetic", data)
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--groups", type=int, default=10, help="looks: each has its own sprites and background")
    sub.add_argument("--clips", type=int, default=3, help="videos of each class and group")
    sub = command("prepare", _prepare, "decode a file's videos into the store", "data prepare sweeps/ucf101.yaml", data)
    with_file(sub, "a trial or sweep file")
    command("verify", _verify, "check every stored frame against its checksum", "data verify", data)
    return parser
