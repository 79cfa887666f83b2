"""`data init`, `data download`, `data synth`, `data prepare` and `data verify`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdtune.calling import pasteable
from kdtune.commands.places import reading, writing
from kdtune.commands.say import say, show
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_OK, Problem, UserError
from kdtune.parse import printable


def init(options: argparse.Namespace) -> int:
    from kdtune.config.load import parse_sweep
    from kdtune.plan.fit import fit
    from kdtune.plan.sweep_file import sweep_text

    store = reading(options)
    fitted = fit(str(options.folder), store)
    text = sweep_text(fitted, store)
    parse_sweep(text, Path("the file"))  # what is printed is a file that `sweep` accepts
    print(text, end="", flush=True)
    for path in fitted.headers.unreadable:
        say(f"note: {printable(str(path))} cannot be opened as a video")
    for warning in fitted.left:
        say(f"warning: {warning}")
    look, run = pasteable("plan", "FILE"), pasteable("sweep", "FILE")
    say(f"save this as a file; look at it with `{look}`, run it with `{run}`")
    return EXIT_OK


def download(options: argparse.Namespace) -> int:
    from kdtune.download.fetch import Fetch
    from kdtune.download.official import OFFICIAL
    from kdtune.plan.sweep_file import in_one_line

    official = OFFICIAL[options.dataset]
    folder = options.to if options.to is not None else Path("data") / official.dataset
    fetch = Fetch(official, folder, say)
    if not fetch.run(lambda terms: _agrees(terms, yes=options.yes)):
        say("nothing was downloaded")
        return EXIT_OK
    show(f"{official.count:,} videos of {official.classes} classes are in {folder}. In a sweep file:")
    print(f"  data: {in_one_line(fetch.data.model_dump(exclude_unset=True))}")
    show(f"or let kdtune write one: {pasteable('data', 'init', str(folder))} > {official.dataset}.yaml")
    return EXIT_OK


def _agrees(terms: str, *, yes: bool) -> bool:
    """Show what is downloaded; return whether the user wants it. Raises UserError where nobody can be asked."""
    say(terms)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError([Problem("--yes", "there is no terminal to ask whether to download this", "--yes to agree")])
    print("Download it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def synth(options: argparse.Namespace) -> int:
    from kdtune.clips.synthetic import make_synthetic

    make_synthetic(options.folder, seed=options.seed, groups=options.groups, clips=options.clips)
    return EXIT_OK


def prepare(options: argparse.Namespace) -> int:
    from kdtune.clips.frames.build import described
    from kdtune.clips.frames.store import ClipStore
    from kdtune.clips.summary import lines
    from kdtune.config.load import load_trial
    from kdtune.train.prepared import Prepared, data_sets

    prepared, config = Prepared(writing(options)), load_trial(options.file, options.set)
    parts = data_sets([config])
    listed = [prepared.summary(part) for part in parts if Path(part.data.folder).exists()]
    show("\n".join(line for summary in listed for line in lines(summary)))
    prepared.prepare(config)
    for part in parts:
        summary = prepared.summary(part)
        if summary in listed:
            show(f"  refused    none, and no video is too short ({summary.place})")
        else:
            show("\n".join(lines(summary)))
    for clips in map(ClipStore.open, map(Path, dict.fromkeys(prepared.folders.values()))):
        show(f"{clips.folder}: {clips.tier.name}, {described(clips)}")
    return EXIT_OK


def verify(options: argparse.Namespace) -> int:
    from kdtune.clips.frames.repair import problems_of
    from kdtune.clips.machine import cores

    folders = reading(options).clip_stores()
    damaged = [problem for folder in folders for problem in problems_of(folder, cores())]
    for problem in damaged:
        show(problem)
    show(f"{len(folders)} clip stores checked, {len(damaged)} problems")
    if damaged:
        say("the next `data prepare` or sweep on their videos decodes the damaged ones again")
    return EXIT_FAILED_TRIALS if damaged else EXIT_OK
