"""Count how often races decide wrongly and rightly, on fabricated outcomes whose truth is known. Nothing is trained.

    python benchmarks/racing.py                        # the table of docs/statistics.md, some minutes
    python benchmarks/racing.py --sweeps 200           # a quick look
    python benchmarks/racing.py --truths "no gain"     # those whose names begin so

Every kind of sweep is judged by a race (the very functions that sweeps use), by sweeps with fixed seeds and the same
intervals and correction, by a screening with confirmation, and by the naive best of n.

    false "better"    sweeps in which a candidate is called better than the control and is not, with the 95 % interval
                      of that share (Clopper and Pearson)
    other errors      other sweeps that wrongly say worse, or within the margin
    right             blocks with the right decision; where there is a gain to find: the power
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from common import parser, print_table, say, write_json
from kdtune.history.intervals.shares import count_interval
from kdtune.history.racing import RaceRules, fixed_seeds
from racing_truths import Counts, Design, Truth, best_of_n, count, fixed, race, scores, screened

#: Number of cells (sweeps × networks × seeds × videos) that are judged at a time.
CELLS = 4_000_000
NONE = (0.0,) * 8
TRUTHS = [
    Truth("no gain", NONE, right="none"),
    Truth("no gain, 4 blocks of 16", (0.0,) * 16, blocks=4, right="none"),
    Truth("no gain, 48 videos", NONE, blocks=2, videos=48, right="none"),
    Truth("no gain, 48 videos, 10 % right", NONE, videos=48, accuracy=0.1, right="none"),
    Truth("no gain, spread over seeds 1 to 8 points", NONE, seeds_sd=(1, 1, 2, 3, 4, 5, 6, 7, 8), right="none"),
    Truth("no gain, spread over seeds 0", NONE, seeds_sd=(0.0,), right="none"),
    Truth("no gain, videos differ much", NONE, videos_sd=30.0, right="none"),
    Truth("no gain, a search that follows chance", NONE, follows=0.8, right="none"),
    Truth("no gain, pretext (fifths), 48 videos", NONE, videos=48, labels=5, right="none"),
    Truth("1 of 8 gains 3 points", (3.0, *NONE[1:])),
    Truth("1 of 8 gains 10 points", (10.0, *NONE[1:])),
    Truth("1 of 8 gains 10 points, spread over seeds 5", (10.0, *NONE[1:]), seeds_sd=(5.0,)),
    Truth("4 of 8 gain 10 points, 2 blocks", (10.0,) * 4 + (0.0,) * 4, blocks=2),
    Truth("2 of 16 gain 10 points, 400 videos", (10.0,) * 2 + (0.0,) * 14, videos=400),
    Truth("1 of 4 gains 20 points, 48 videos", (20.0, 0.0, 0.0, 0.0), videos=48),
    Truth("all 8 lose 10 points", (-10.0,) * 8, right="worse"),
    Truth("no gain, margin 8 points, 400 videos", NONE, videos=400, right="within margin", margin=8.0),
    Truth("7 of 8 lose 5 points", (0.0,) + (-5.0,) * 7, right="none"),
]


def main() -> None:
    args = parse()
    rules = RaceRules(args.first, args.most)
    found: list[tuple[Truth, dict[str, Counts]]] = []
    for place, truth in enumerate(TRUTHS):
        if not truth.name.startswith(args.truths):
            continue
        started = time.perf_counter()
        designs: dict[str, Design] = {
            f"race, {rules.first} to {rules.most} seeds": race(rules),
            f"{rules.most} seeds each": fixed(rules.most),
            "3 seeds each": fixed(3),
            f"best of {rules.first} seeds, {rules.most - rules.first} confirm": screened(rules.first, rules.most),
            "best of n, 1 seed": best_of_n(1),
        }
        found.append((truth, simulate(truth, designs, args.sweeps, rules.most, np.random.default_rng(place))))
        say(f"{truth.name}: {time.perf_counter() - started:.0f} s")
    alike = {fixed_seeds(rules, truth.comparisons) for truth, _ in found}
    print(f"{args.sweeps} sweeps of each kind; looks at {', '.join(map(str, rules.looks))} seeds, as powerful as")
    print(f"{' to '.join(map(str, sorted(alike)))} seeds each (kdtune.history.racing.fixed_seeds)")
    tables(found)
    content = [{"truth": asdict(t), "designs": {name: asdict(c) for name, c in by.items()}} for t, by in found]
    write_json(args.out, {"rules": asdict(rules), "figures": content})


def tables(found: Sequence[tuple[Truth, dict[str, Counts]]]) -> None:
    """Print the errors, then the right decisions with the trainings."""
    if not found:
        return
    designs = list(found[0][1])
    rows = [[truth.name, *(_false(by[name]) for name in designs)] for truth, by in found]
    print("\nSweeps with a false “better” (95 % CI) + other wrong decisions")
    print_table(["truth", *designs], rows)
    print("\nBlocks with the right decision (trainings per sweep)")
    rows = [[truth.name, *(_right(truth, by[name]) for name in designs)] for truth, by in found]
    print_table(["truth", *designs], rows)


def _false(counts: Counts) -> str:
    low, high = count_interval(counts.false_better, counts.sweeps, 0.95)
    other = f" + {100 * counts.false_other / counts.sweeps:.1f}" if counts.false_other else ""
    return f"{100 * counts.false_better / counts.sweeps:.1f} % ({100 * low:.1f}–{100 * high:.1f}){other}"


def _right(truth: Truth, counts: Counts) -> str:
    share = "" if truth.right == "none" else f"{100 * counts.right / counts.blocks:.0f} % "
    return f"{share}({counts.trainings:.0f})"


def parse() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--sweeps", type=int, default=2000, help="of each kind (default: 2000)")
    made.add_argument("--first", type=int, default=2, help="seeds before the first look (default: 2)")
    made.add_argument("--most", type=int, default=8, help="seeds at the last look (default: 8)")
    made.add_argument("--truths", default="", help="only kinds of sweeps whose names begin so")
    return made.parse_args()


def simulate(
    truth: Truth, designs: dict[str, Design], sweeps: int, seeds: int, rng: np.random.Generator
) -> dict[str, Counts]:
    """Return what each design says of the same sweeps."""
    found: dict[str, list[Counts]] = {name: [] for name in designs}
    at_once = max(1, CELLS // (truth.networks * seeds * truth.videos))
    for begin in range(0, sweeps, at_once):
        outcomes = scores(truth, min(at_once, sweeps - begin), seeds, rng)
        for name, design in designs.items():
            found[name].append(count(truth, design(truth, outcomes)))
    return {name: summed(parts) for name, parts in found.items()}


def summed(parts: list[Counts]) -> Counts:
    sweeps = sum(part.sweeps for part in parts)
    trainings = sum(part.trainings * part.sweeps for part in parts) / sweeps
    blocks, right = sum(part.blocks for part in parts), sum(part.right for part in parts)
    better, other = sum(part.false_better for part in parts), sum(part.false_other for part in parts)
    return Counts(sweeps, blocks, better, other, right, trainings)


if __name__ == "__main__":
    main()
