"""The command line: options, and exit codes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from kdtune import __version__
from kdtune.commands import data, jobs, machine, process, publish, report, sweeps, teachers, trials, watch
from kdtune.commands import store as store_commands
from kdtune.commands.utf8 import start_in_utf8_mode
from kdtune.config.shipped import located
from kdtune.parse import printable
from kdtune.report.tables import FORMATS
from kdtune.store.places import DEFAULT_STORE, default_place
from kdtune.tracking.location import DEFAULT_PORT
from kdtune.urls import SecretUrl, redact


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code (see errors.py)."""
    if arguments is None:
        start_in_utf8_mode()
    given = sys.argv[1:] if arguments is None else arguments
    process.prepare(given)
    store = DEFAULT_STORE
    try:
        try:
            options = _parser().parse_args(given)
        except SystemExit:  # --help, --version, or refused arguments
            process.flush()
            raise
        store = options.store
        process.check_arguments(given)
        if "file" in options:
            options.file = located(options.file)
        code = options.run(options)
        process.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        return process.end(error, store)


# ---- options ---------------------------------------------------------------------------------------------------------


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 0, but got {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"must be a port from 1 to 65535, but got {text!r}")
    return int(text)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with `message`, redacted: it may quote a URL with a password."""
        super().error(redact(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kdtune",
        description="Bit-exact repeatable sweeps over knowledge distillation of self-supervised video models.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    store = default_place()
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, does: str, example: str, into: Any = subparsers) -> argparse.ArgumentParser:
        sub = into.add_parser(name, help=does, description=does, epilog=f"example: python -m kdtune {example}")
        sub.set_defaults(run=run)
        shown = printable(str(SecretUrl(store))).replace("%", "%%")  # argparse formats what it prints
        sub.add_argument("--store", default=store, metavar="DIR|URL", help=f"where trials are kept (default: {shown})")
        return sub

    def with_file(sub: argparse.ArgumentParser, what: str) -> argparse.ArgumentParser:
        sub.add_argument("file", type=Path, metavar="FILE", help=what)
        sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the file")
        return sub

    sub = command("sweep", sweeps.sweep, "run a sweep, or resume it", "sweep lambda_tau.yaml")
    with_file(sub, "a sweep file, or the name of one that comes with kdtune").add_argument(
        "--address", help="of a Ray cluster; default: this machine"
    )
    does = "where trials run: in parallel through Ray, or one by one in this process (default: ray)"
    sub.add_argument("--backend", choices=("ray", "inprocess"), default="ray", help=does)
    sub.add_argument("--dry-run", action="store_true", help="only show what would run, as `plan` does")
    sub.set_defaults(measure=False)
    does = "check a sweep file and show what it would run and cost"
    sub = command("plan", sweeps.plan, does, "plan paper.yaml")
    does = "prepare the data and time a few steps of trials of unknown speed on this machine"
    with_file(sub, "a sweep file").add_argument("--measure", action="store_true", help=does)
    example = "submit ucf101.yaml --address http://HEAD:8265 --store /shared/runs"
    sub = command("submit", jobs.submit, "run a sweep as a Ray job, which outlives this machine", example)
    with_file(sub, "a sweep file")
    sub.add_argument("--address", required=True, metavar="URL", help="of the cluster's dashboard: http://HEAD:8265")
    sub = command("logs", jobs.logs, "print the output of a submitted sweep", "logs ucf101 --follow")
    sub.add_argument("sweep", metavar="SWEEP", help="a sweep's name")
    sub.add_argument("--follow", action="store_true", help="keep printing new output until the sweep ends")
    sub = command("stop", jobs.stop, "stop a sweep after writing checkpoints, wherever it runs", "stop ucf101")
    sub.add_argument("sweep", metavar="SWEEP", help="a sweep's name")
    example = "train lambda_tau.yaml --set teacher=c3d --set lambda=0.5"
    sub = command("train", trials.train, "train one trial, without Ray", example)
    with_file(sub, "a trial file, or a sweep file, of which `trial` is trained")
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    does = "processes that read batches ahead (default: 0); their number changes no bit"
    sub.add_argument("--workers", type=_count, default=0, metavar="N", help=does)
    sub = command("results", sweeps.results, "print a sweep's trials", "results lambda_tau --format markdown")
    sub.add_argument("sweep", metavar="SWEEP", help="a sweep's name")
    sub.add_argument("--format", choices=FORMATS, default="table")
    sub.add_argument("--accuracies", action="store_true", help="all accuracies, with mean and spread over the seeds")
    does = "write a page with a sweep's answer, tables and plots"
    sub = command("report", report.report, does, "report lambda_tau --regret 3")
    sub.add_argument("sweep", metavar="SWEEP", help="a sweep's name")
    sub.add_argument("--out", type=Path, metavar="DIR", help="where to write it (default: reports/SWEEP in the store)")
    does = "first train N pruned candidates to the end, to see how often pruning was wrong"
    sub.add_argument("--regret", type=_count, default=0, metavar="N", help=does)
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="for --regret")
    does = "update MLflow from the store alone: runs, metrics, data sets, models"
    sub = command("publish", publish.publish, does, "publish lambda_tau")
    sub.add_argument("sweep", metavar="SWEEP", help="a sweep's name")
    does = "show the progress of sweeps, here or elsewhere, from the store alone"
    sub = command("status", watch.status, does, "status lambda_tau --follow")
    sub.add_argument("sweep", nargs="?", metavar="SWEEP", help="a sweep's name (default: one line per sweep)")
    sub.add_argument("--follow", action="store_true", help="keep showing it until the sweep stops running")
    sub.add_argument("--format", choices=("table", "json"), default="table")
    does = "train again, from scratch or from a stage, and compare every figure bit for bit"
    sub = command("replay", trials.replay, does, "replay lambda_tau --sample 3")
    sub.add_argument("name", metavar="TRIAL|SWEEP", help="a trial's key, or its first digits; or a sweep's name")
    sub.add_argument("--sample", type=_count, metavar="N", help="only N of the trials, drawn anew each time")
    does = "start from the checkpoint of this stage; teachers are not trained again"
    sub.add_argument("--from", dest="from_stage", metavar="STAGE", help=does)
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    does = "check whether this machine is ready, and what would not be deterministic on it"
    sub = command("doctor", machine.doctor, does, "doctor --device cpu")
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: all available devices")
    sub.add_argument("--full", action="store_true", help="trials of the papers' sizes, for a GPU")
    command("schema", machine.schema, "print the JSON Schema of a sweep file", "schema > sweeps/schema.json")
    sub = command("ui", machine.ui, "serve MLflow's pages on this machine", "ui --port 5000")
    sub.add_argument("--port", type=_port, default=DEFAULT_PORT)

    of_data = subparsers.add_parser("data", help="make, prepare and check data sets").add_subparsers(
        dest="data_command", required=True, metavar="COMMAND"
    )
    sub = command("synth", data.synth, "write a set of motion videos", "data synth data/synthetic", of_data)
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--seed", type=_count, default=0)
    sub.add_argument("--groups", type=_count, default=10, help="looks: each with its own sprites and background")
    sub.add_argument("--clips", type=_count, default=3, help="videos per class and group")
    example = "data prepare ucf101.yaml"
    sub = command("prepare", data.prepare, "decode a file's videos into the store", example, of_data)
    with_file(sub, "a trial or sweep file")
    command("verify", data.verify, "check every stored frame against its checksum", "data verify", of_data)

    of_store = subparsers.add_parser("store", help="check what the store holds").add_subparsers(
        dest="store_command", required=True, metavar="COMMAND"
    )
    does = "list every damaged record, checkpoint, target and stored frame"
    sub = command("check", store_commands.check, does, "store check --repair", of_store)
    does = "set damaged files aside, so that the next sweep or `train` makes them again, bit for bit"
    sub.add_argument("--repair", action="store_true", help=does)

    of_teacher = subparsers.add_parser("teacher", help="list the store's trials, import others").add_subparsers(
        dest="teacher_command", required=True, metavar="COMMAND"
    )
    command("list", teachers.list_teachers, "list the trials in the store that can teach", "teacher list", of_teacher)
    example = "teacher import best_model.pt --set student.backbone=c3d --set clip.frames=16"
    does = "import a checkpoint of PCL's or torchvision's, or a trial of another store"
    sub = command("import", teachers.import_teacher, does, example, of_teacher)
    sub.add_argument("source", type=Path, metavar="SOURCE", help="a checkpoint, or a folder trials/KEY of a store")
    sub.add_argument("--trial", type=Path, metavar="FILE", help="a trial file with the checkpoint's network and clips")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set a value of that trial")
    sub.add_argument("--weights", metavar="NAME", help="which of several state dicts in the file, such as model or ema")
    sub.add_argument("--name", default="imported", help="its name in the printed lines for a sweep file")
    return parser
