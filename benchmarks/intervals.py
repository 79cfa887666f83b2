"""Count how often intervals of a gain miss the truth, by method, on fabricated outcomes of two equal networks.

    python benchmarks/intervals.py                      # the table of docs/statistics.md, some minutes
    python benchmarks/intervals.py --pairs 2000         # a quick look

Shown is how many times as often as it may an interval of level 1 − 0.05/16 misses 0, and half its median width in
points:

    seeds and videos    what kdtune uses (kdtune/history/intervals/crossed.py)
    Satterthwaite       the same variance, with degrees of freedom taken from the mean squares
    seeds alone         Student's t over the seeds' differences: it holds for these videos only
    videos alone        Student's t over the videos' mean differences: it holds for these seeds only
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy import special

from common import parser, print_table, say, write_json
from kdtune.history.intervals.crossed import crossed_mean
from racing_truths import Truth, scores

ALPHA = 0.05 / 16
METHODS = ("seeds and videos", "Satterthwaite", "seeds alone", "videos alone")
#: Seeds, videos, spread over seeds and over videos in points, accuracy.
CASES = [
    (2, 48, 2.0, 8.0, 0.4),
    (2, 200, 8.0, 8.0, 0.4),
    (3, 48, 0.0, 30.0, 0.4),
    (4, 100, 0.0, 8.0, 0.4),
    (4, 100, 4.0, 8.0, 0.4),
    (4, 100, 12.0, 8.0, 0.4),
    (4, 100, 2.0, 8.0, 0.1),
    (8, 48, 4.0, 8.0, 0.4),
    (8, 200, 0.0, 30.0, 0.4),
    (8, 200, 4.0, 8.0, 0.4),
    (8, 200, 2.0, 8.0, 0.1),
]


def main() -> None:
    args = parse()
    rows, content = [], []
    for place, (seeds, videos, seeds_sd, videos_sd, accuracy) in enumerate(CASES):
        truth = Truth("", (0.0,), 1, videos, accuracy, (seeds_sd,), videos_sd)
        rng, at_once = np.random.default_rng(place), 2_000_000 // (seeds * videos)
        missed, halves = dict.fromkeys(METHODS, 0), {method: list[float]() for method in METHODS}
        for begin in range(0, args.pairs, at_once):
            found = scores(truth, min(at_once, args.pairs - begin), seeds, rng)
            differences = found[:, 1] - found[:, 0]
            for method, half in widths(differences).items():
                missed[method] += int((np.abs(differences.mean((-1, -2))) > half).sum())
                halves[method] += half.tolist()
        times = {method: missed[method] / args.pairs / ALPHA for method in METHODS}
        width = {method: 100 * float(np.median(halves[method])) for method in METHODS}
        case = [seeds, videos, f"{seeds_sd:g} and {videos_sd:g}", f"{100 * accuracy:g} %"]
        rows.append([*case, *(f"{times[method]:.1f} (± {min(100, width[method]):.0f})" for method in METHODS)])
        content.append({"case": case, "times": times, "half_width": width})
        say(f"{seeds} seeds, {videos} videos: done")
    print(f"{args.pairs} pairs of each kind; error of an estimate of 1.0: ± {1 / (args.pairs * ALPHA) ** 0.5:.1f}")
    print_table(["seeds", "videos", "spread over seeds and videos", "accuracy", *METHODS], rows)
    write_json(args.out, {"pairs": args.pairs, "alpha": ALPHA, "cases": content})


def parse() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--pairs", type=int, default=20_000, help="of each kind (default: 20000)")
    return made.parse_args()


def widths(differences: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return method → half the widths [N] of the intervals of differences [N, S, V]."""
    seeds, videos = differences.shape[1:]
    crossed = crossed_mean(differences)
    by_seed, by_video = differences.mean(-1), differences.mean(-2)
    ms_a, ms_b = videos * by_seed.var(-1, ddof=1), seeds * by_video.var(-1, ddof=1)
    total = differences.var((-1, -2)) * seeds * videos
    df_e = (seeds - 1) * (videos - 1)
    ms_e = (total - ms_a * (seeds - 1) - ms_b * (videos - 1)) / df_e
    sum_, terms = ms_a + ms_b - ms_e, ms_a**2 / (seeds - 1) + ms_b**2 / (videos - 1) + ms_e**2 / df_e
    known = sum_ > 0
    df = np.where(known, sum_**2 / np.where(terms > 0, terms, 1.0), 1.0)
    of_sum = -special.stdtrit(np.maximum(df, 0.5), ALPHA / 2) * np.sqrt(np.where(known, sum_, 0) / (seeds * videos))
    return {
        "seeds and videos": crossed.half(ALPHA),
        "Satterthwaite": np.where(known, of_sum, np.inf),
        "seeds alone": -special.stdtrit(seeds - 1, ALPHA / 2) * np.sqrt(ms_a / (seeds * videos)),
        "videos alone": -special.stdtrit(videos - 1, ALPHA / 2) * np.sqrt(ms_b / (seeds * videos)),
    }


if __name__ == "__main__":
    main()
