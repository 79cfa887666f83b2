"""`data synth`, `data prepare` and `data verify`."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdtune.commands.places import reading, writing
from kdtune.commands.say import say
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_OK


def synth(options: argparse.Namespace) -> int:
    from kdtune.clips.synthetic import make_synthetic

    make_synthetic(options.folder, seed=options.seed, groups=options.groups, clips=options.clips)
    return EXIT_OK


def prepare(options: argparse.Namespace) -> int:
    from kdtune.clips.build import described
    from kdtune.clips.store import ClipStore
    from kdtune.clips.summary import lines
    from kdtune.config.load import load_trial
    from kdtune.train.prepared import Prepared, data_sets

    prepared, config = Prepared(writing(options)), load_trial(options.file, options.set)
    parts = data_sets([config])
    listed = [prepared.summary(part) for part in parts if Path(part.data.folder).exists()]
    print("\n".join(line for summary in listed for line in lines(summary)), flush=True)
    prepared.prepare(config)
    for part in parts:
        if (summary := prepared.summary(part)) not in listed:
            print("\n".join(lines(summary)))
    for clips in map(ClipStore.open, map(Path, dict.fromkeys(prepared.folders.values()))):
        print(f"{clips.folder}: {clips.tier.name}, {described(clips)}")
    return EXIT_OK


def verify(options: argparse.Namespace) -> int:
    from kdtune.clips.machine import cores
    from kdtune.clips.repair import problems_of

    folders = reading(options).clip_stores()
    damaged = [problem for folder in folders for problem in problems_of(folder, cores())]
    print("".join(f"{problem}\n" for problem in damaged), end="")
    print(f"{len(folders)} clip stores checked, {len(damaged)} problems")
    if damaged:
        say("the next `data prepare` or sweep on their videos decodes the damaged ones again")
    return EXIT_FAILED_TRIALS if damaged else EXIT_OK
