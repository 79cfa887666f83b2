"""How a trial's cost grows with its videos and with the frames of its clips.

    python benchmarks/growth.py                     # the quick start's trial, about ten minutes
    python benchmarks/growth.py --rounds 3 --out growth.json

Each round trains the quick start's trial without a teacher with every number of videos, then with every number of
frames, one after the other in this process. Frames are decoded before, and the first trial of a kind, which prepares
its samples, is not timed. A ratio is a trial's seconds over those of the round's first one.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from common import machine_line, parser, print_table, ratios, say, spread, this_machine, write_json
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train.samples import SampleCache
from kdtune.train.session import Session
from shapes import SHAPES, Place, place

#: Numbers of groups of videos (the shape has 10), and of frames per clip.
GROUPS, FRAMES = (10, 20, 40), (8, 12, 16)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=2, help="default: 2")
    args = made.parse_args()
    seconds: dict[str, dict[str, list[float]]] = {"videos": {}, "frames": {}}
    with ExitStack() as stack:
        places = {groups: stack.enter_context(videos(groups)) for groups in GROUPS}
        for number in range(args.rounds):
            for groups, at in places.items():
                name = f"{8 * groups * 3:,} videos"
                note(seconds["videos"], name, one_trial(at, {}, number))
            for frames in FRAMES:
                note(seconds["frames"], f"{frames} frames", one_trial(places[GROUPS[0]], {"frames": frames}, number))
        found = this_machine(places[GROUPS[0]].sweep.trial)
    print(f"\n{SHAPES['quick'].about}, a trial without a teacher\n{machine_line(found)}")
    times: dict[str, dict[str, list[float]]] = {}
    for kind, values in seconds.items():
        first, *_ = values.values()
        times[kind] = {name: ratios(own, first) for name, own in values.items()}
        print_table(
            [kind, "seconds", "÷ the first"],
            [[name, spread(values[name]), spread(times[kind][name])] for name in values],
        )
    write_json(args.out, {"machine": found, "seconds": seconds, "ratios": times})


def videos(groups: int) -> Any:
    """Prepare the quick start's data with `groups` groups of each of its 8 motions and three videos per group."""
    shape = SHAPES["quick"]
    return place(replace(shape, videos={"groups": groups, "clips": 3}), 1, train_teachers=False)


def one_trial(at: Place, clip: dict[str, Any], number: int) -> float:
    """Return the seconds of a trial with these clips, whose samples the trial before has prepared."""
    form = at.sweep.trial.model_dump(mode="json", by_alias=True, exclude_unset=True)
    form["clip"] |= clip
    session = Session(StoreFiles(tempfile.mkdtemp(dir=at.folder)), dict(at.session.folders), cache=SampleCache(2**33))
    for alpha in (0.4 + 0.01 * number, 0.5 + 0.01 * number):
        config = TrialConfig.model_validate({**form, "loss": {**form["loss"], "alpha": alpha}})
        session.prepare(config)
        started = time.perf_counter()
        for _ in session.trial(config, torch.device("cpu")):
            pass
    return time.perf_counter() - started


def note(seconds: dict[str, list[float]], name: str, value: float) -> None:
    say(f"{name}: {value:.1f} s")
    seconds.setdefault(name, []).append(value)


if __name__ == "__main__":
    main()
