"""`submit`, `logs` and `stop`: run a sweep as a Ray job on a cluster."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdtune.calling import pasteable
from kdtune.commands.places import reading, store_words, writing
from kdtune.commands.say import say, show, show_command
from kdtune.errors import EXIT_OK


def submit(options: argparse.Namespace) -> int:
    from kdtune.config.load import parse_sweep
    from kdtune.config.reading.reader import read_text

    text = read_text(options.file)  # read once, so that the job reads the text that was checked
    sweep = parse_sweep(text, options.file, options.set)
    from kdtune.execute.cluster.handover import withheld
    from kdtune.execute.cluster.ray_jobs import submit_sweep

    store = writing(options)
    job = submit_sweep(sweep, text, options.file, options.set, store, options.address, Path.cwd())
    for variable in withheld():
        say(f"note: {variable} was not passed on, because Ray shows a job's environment; set it on the cluster's head")
    show(f"{sweep.name} runs on {options.address} as job {job}; it no longer needs this machine.")
    place = store_words(options)
    show_command("Watch it:", pasteable("status", sweep.name, *place))
    show_command("Its output:", pasteable("logs", sweep.name, "--follow", *place))
    show_command("Stop it:", pasteable("stop", sweep.name, *place))
    return EXIT_OK


def logs(options: argparse.Namespace) -> int:
    from kdtune.execute.cluster.ray_jobs import show_logs

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    state = show_logs(reading(options), options.sweep, options.follow, write)
    say(f"the job of {options.sweep}: {state}")
    return EXIT_OK


def stop(options: argparse.Namespace) -> int:
    from kdtune.execute.cluster.ray_jobs import stop_sweep

    stop_sweep(reading(options), options.sweep, say)
    return EXIT_OK
