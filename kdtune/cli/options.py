"""The commands and their options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kdtune import __version__
from kdtune.calling import pasteable
from kdtune.cli.completion import SHELLS, completed_by, set_paths, sweep_files, sweep_names
from kdtune.cli.parser import Parser, Run
from kdtune.commands import data, jobs, machine, publish, report, sweeps, teachers, trials, watch
from kdtune.commands import store as store_commands
from kdtune.parse import printable
from kdtune.report.results import FORMATS
from kdtune.store.places import default_place
from kdtune.tracking.location import DEFAULT_PORT
from kdtune.urls import SecretUrl


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 0, but got {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"must be a port from 1 to 65535, but got {text!r}")
    return int(text)


DEVICES = ("auto", "cpu", "cuda")
SWEEP_FILE = "a sweep file, or the name of one that comes with kdtune"
#: Headings of the help, in its order. Each says what one wants to do.
RUN, WATCH, READ, PREPARE, CHECK = (
    "Run a sweep or a trial",
    "Watch a sweep, or stop it",
    "Read what came out",
    "Prepare videos and teachers",
    "Check this machine and the store",
)


def parser(call: str | None = None) -> Parser:
    """Return the parser of all commands, whose examples begin with `call`, by default as this process was called."""
    call = call or pasteable()
    top = Parser(
        prog="kdtune",
        description="Bit-exact repeatable sweeps over knowledge distillation of self-supervised video models.",
        epilog=f"To begin:     {call} plan lambda_tau\nExplanations: {call} plan --help",
    )
    top.groups = {heading: [] for heading in (RUN, WATCH, READ, PREPARE, CHECK)}
    top.add_argument("--version", action="version", version=__version__)
    store = default_place()
    top.add_argument("--store", default=store, help=argparse.SUPPRESS)
    subparsers = top.with_commands("command")

    def command(name: str, run: Run, does: str, example: str, group: str = "", into: Any = None) -> Parser:
        """Add a command under the heading `group`, or below the command that `into` belongs to."""
        epilog = f"example: {call} {example}".replace("%", "%%")
        sub = (into or subparsers).add_parser(name, help=does, description=does, epilog=epilog)
        if group:
            top.groups[group].append((name, does))
        sub.set_defaults(run=run)
        shown = printable(str(SecretUrl(store))).replace("%", "%%")  # argparse formats what it prints
        does = f"where trials are kept (default: {shown})"
        sub.add_argument("--store", default=argparse.SUPPRESS, metavar="DIR|URL", help=does)
        return sub

    def family(name: str, does: str, group: str) -> Any:
        """Add a command that has commands of its own, and return the place to add them."""
        sub = subparsers.add_parser(name, help=does, description=does)
        top.groups[group].append((name, does))
        return sub.with_commands(f"{name}_command")

    def with_sets(sub: Parser, does: str) -> Parser:
        action = sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=does)
        completed_by(action, set_paths)
        return sub

    def with_file(sub: Parser, what: str) -> Parser:
        completed_by(sub.add_argument("file", type=Path, metavar="FILE", help=what), sweep_files)
        return with_sets(sub, "change a value of the file, as in lambda=0.5, loss.tau=2 or search.candidates=16")

    def with_sweep(sub: Parser, what: str = "a sweep's name", **settings: Any) -> Parser:
        completed_by(sub.add_argument("sweep", metavar="SWEEP", help=what, **settings), sweep_names)
        return sub

    # ---- run ---------------------------------------------------------------------------------------------------------
    does = "check a sweep file and show what it would run and cost"
    sub = with_file(command("plan", sweeps.plan, does, "plan paper.yaml", RUN), SWEEP_FILE)
    does = "prepare the data and time a few steps of trials of unknown speed on this machine"
    sub.add_argument("--measure", action="store_true", help=does)
    sub = command("sweep", sweeps.sweep, "run a sweep, or resume it", "sweep lambda_tau.yaml", RUN)
    with_file(sub, SWEEP_FILE).add_argument("--address", help="of a Ray cluster; default: this machine")
    does = "where trials run: in parallel through Ray, or one by one in this process (default: ray)"
    sub.add_argument("--backend", choices=("ray", "inprocess"), default="ray", help=does)
    sub.add_argument("--dry-run", action="store_true", help="only show what would run, as `plan` does")
    sub.set_defaults(measure=False)
    example = "train lambda_tau.yaml --set teacher=c3d --set lambda=0.5"
    sub = command("train", trials.train, "train one trial, without Ray; first its teacher, if needed", example, RUN)
    with_file(sub, "a trial file, or a sweep file, of which `trial` is trained")
    sub.add_argument("--device", choices=DEVICES, default="auto")
    does = "processes that read batches ahead (default: 0); their number changes no bit"
    sub.add_argument("--workers", type=_count, default=0, metavar="N", help=does)
    example = "submit ucf101.yaml --address http://HEAD:8265 --store /shared/runs"
    sub = command("submit", jobs.submit, "run a sweep as a Ray job, which outlives this machine", example, RUN)
    with_file(sub, SWEEP_FILE)
    sub.add_argument("--address", required=True, metavar="URL", help="of the cluster's dashboard: http://HEAD:8265")

    # ---- watch -------------------------------------------------------------------------------------------------------
    does = "show the progress of sweeps, here or elsewhere, from the store alone"
    sub = command("status", watch.status, does, "status lambda_tau --follow", WATCH)
    with_sweep(sub, "a sweep's name (default: one line per sweep)", nargs="?")
    does = "keep showing it until the sweep stops running; the name may be left out if only one sweep is there, or runs"
    sub.add_argument("--follow", action="store_true", help=does)
    sub.add_argument("--format", choices=("table", "json"), default="table")
    sub = with_sweep(command("logs", jobs.logs, "print the output of a submitted sweep", "logs ucf101 --follow", WATCH))
    sub.add_argument("--follow", action="store_true", help="keep printing new output until the sweep ends")
    does = "stop a sweep after writing checkpoints, wherever it runs"
    with_sweep(command("stop", jobs.stop, does, "stop ucf101", WATCH))

    # ---- read --------------------------------------------------------------------------------------------------------
    sub = command("results", sweeps.results, "print a sweep's trials", "results lambda_tau --format markdown", READ)
    with_sweep(sub)
    sub.add_argument("--format", choices=FORMATS, default="table")
    sub.add_argument("--accuracies", action="store_true", help="all accuracies, with mean and spread over the seeds")
    does = "write a page with a sweep's answer, tables and plots"
    sub = with_sweep(command("report", report.report, does, "report lambda_tau --regret 3", READ))
    sub.add_argument("--out", type=Path, metavar="DIR", help="where to write it (default: reports/SWEEP in the store)")
    does = "first train N pruned candidates to the end, to see how often pruning was wrong"
    sub.add_argument("--regret", type=_count, default=0, metavar="N", help=does)
    sub.add_argument("--device", choices=DEVICES, default="auto", help="for --regret")
    sub = command("ui", machine.ui, "serve MLflow's pages on this machine", "ui --port 5000", READ)
    sub.add_argument("--port", type=_port, default=DEFAULT_PORT)
    does = "update MLflow from the store alone: runs, metrics, data sets, models"
    with_sweep(command("publish", publish.publish, does, "publish lambda_tau", READ))
    does = "train again, from scratch or from a stage, and compare every figure bit for bit"
    sub = command("replay", trials.replay, does, "replay lambda_tau --sample 3", READ)
    what = "a trial's key, or its first digits; or a sweep's name"
    completed_by(sub.add_argument("name", metavar="TRIAL|SWEEP", help=what), sweep_names)
    sub.add_argument("--sample", type=_count, metavar="N", help="only N of the trials, drawn anew each time")
    does = "start from the checkpoint of this stage; teachers are not trained again"
    sub.add_argument("--from", dest="from_stage", metavar="STAGE", help=does)
    does = "stop at the first difference, on another machine, too: do not compare figures within their bounds"
    sub.add_argument("--exact", action="store_true", help=does)
    sub.add_argument("--device", choices=DEVICES, default="auto")

    # ---- prepare -----------------------------------------------------------------------------------------------------
    of_data = family("data", "get, prepare and check data sets", PREPARE)
    does = "write a sweep file that is fitted to a folder of videos"
    sub = command("init", data.init, does, "data init VIDEOS > mine.yaml", into=of_data)
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="class folders, with or without lists")
    does = "download UCF101 or HMDB51 from its official place"
    sub = command("download", data.download, does, "data download ucf101", into=of_data)
    sub.add_argument("dataset", choices=("ucf101", "hmdb51"))
    sub.add_argument("--to", type=Path, metavar="FOLDER", help="where to put it (default: data/DATASET)")
    sub.add_argument("--yes", action="store_true", help="agree to the licence and the size without being asked")
    does = "decode a file's videos into the store"
    with_file(command("prepare", data.prepare, does, "data prepare ucf101.yaml", into=of_data), "a trial or sweep file")
    does = "check every stored frame against its checksum"
    command("verify", data.verify, does, "data verify", into=of_data)
    sub = command("synth", data.synth, "write a set of motion videos", "data synth data/synthetic", into=of_data)
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--seed", type=_count, default=0)
    sub.add_argument("--groups", type=_count, default=20, help="looks: each with its own sprites and background")
    sub.add_argument("--clips", type=_count, default=3, help="videos per class and group")
    of_teacher = family("teacher", "list the store's trials, import others", PREPARE)
    does = "list the trials in the store that can teach"
    command("list", teachers.list_teachers, does, "teacher list", into=of_teacher)
    example = "teacher import best_model.pt --set student.backbone=c3d --set clip.frames=16"
    does = "import a checkpoint of PCL's or torchvision's, or a trial of another store"
    sub = command("import", teachers.import_teacher, does, example, into=of_teacher)
    sub.add_argument("source", type=Path, metavar="SOURCE", help="a checkpoint, or a folder trials/KEY of a store")
    sub.add_argument("--trial", type=Path, metavar="FILE", help="a trial file with the checkpoint's network and clips")
    with_sets(sub, "set a value of that trial")
    sub.add_argument("--weights", metavar="NAME", help="which of several state dicts in the file, such as model or ema")
    sub.add_argument("--name", default="imported", help="its name in the printed lines for a sweep file")

    # ---- check -------------------------------------------------------------------------------------------------------
    does = "check whether this machine is ready, and what would not be deterministic on it"
    sub = command("doctor", machine.doctor, does, "doctor --device cpu", CHECK)
    sub.add_argument("--device", choices=DEVICES, default="auto", help="auto: all available devices")
    sub.add_argument("--full", action="store_true", help="trials of the papers' sizes, for a GPU")
    of_store = family("store", "check what the store holds", CHECK)
    does = "list every damaged record, checkpoint, target and stored frame"
    sub = command("check", store_commands.check, does, "store check --repair", into=of_store)
    does = "set damaged files aside, so that the next sweep or `train` makes them again, bit for bit"
    sub.add_argument("--repair", action="store_true", help=does)
    command("schema", machine.schema, "print the JSON Schema of a sweep file", "schema > sweeps/schema.json", CHECK)
    does = "print the code by which a shell completes commands, options, sweeps and paths"
    sub = command("completion", machine.completion, does, "completion bash >> ~/.bashrc", CHECK)
    sub.add_argument("shell", choices=SHELLS)
    return top
