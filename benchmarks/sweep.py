"""Trials per hour: kdtune's sweep against benchmarks/baseline.py, and the finished sweep run again.

    python benchmarks/sweep.py                                       # the quick start's shape, about 30 minutes
    python benchmarks/sweep.py --shape paper --out sweep_paper.json
    python benchmarks/sweep.py --shape paper-2                       # 2 % of the data

Both sides train the same trials: the control and the same candidates (from random search, so that they are known in
advance), for the same epochs on the same videos, measured by the same metrics at the same stages, with nothing pruned.
Seconds are those of the whole command, from Python's start to the last row in a fresh SQLite database of MLflow. kdtune
trains the teachers before, and both sides get their weights. kdtune's store is new in every round, so its time includes
decoding the videos and computing the targets (`cold`). `warm` has decoded frames but no targets. `again` runs the cold
sweep once more. The sides take turns; the first side and the trials' seed change from round to round.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from common import command, machine_line, parser, print_table, ratios, say, spread, this_machine, write_json
from kdtune.clips.dataset import TrialData
from kdtune.clips.machine import cores
from kdtune.config.sweep import SweepConfig
from kdtune.sweep.search import Search
from shapes import SHAPES, Place, place, targets_ready, teachers

#: Metrics compared between the sides, at the last stage.
METRICS = ("pretext", "knn", "linear")
PAPER_EPOCHS, PAPER_STAGES, PAPER_CLIPS = 200, 3, 10


def main() -> None:
    args = parse()
    shape = SHAPES[args.shape]
    rounds, candidates = args.rounds or shape.rounds, args.candidates or shape.candidates
    found: dict[str, list[dict[str, Any]]] = {"kdtune": [], "warm": [], "again": [], "baseline": []}
    with place(shape, candidates, args.epochs) as at:
        targets_ready(at, shape.ready)
        job = baseline_job(at, candidates, args.workers)
        for number in range(rounds):
            folder = at.folder / f"round_{number}"
            sides = [kdtune_side, baseline_side]
            job["trial"]["seed"] = number
            for side in sides if number % 2 == 0 else sides[::-1]:
                for name, figures in side(at, job, folder, args.warm).items():
                    say(f"round {number}: {name} {figures['seconds']:.1f} s")
                    found[name].append(figures)
        content = {
            "shape": {"name": args.shape, "about": shape.about, "videos": job["videos"]},
            "sweep": at.sweep.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "machine": this_machine(at.sweep.trial),
            "points": job["points"],
            "baseline_loader_workers": args.workers,
            "decode_seconds": at.decode_s,
            "sides": found,
            **what_it_comes_to(found, at.sweep, job["videos"]),
        }
    print_all(content)
    write_json(args.out, content)


def parse() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--shape", choices=list(SHAPES), default="quick", help="default: quick")
    made.add_argument("--rounds", type=int, help="default: the shape's, 3 or 1")
    made.add_argument("--candidates", type=int, help="beside the control; default: the shape's")
    made.add_argument("--epochs", type=int, help="other than the shape's, with one stage at the end")
    made.add_argument("--workers", type=int, default=0, help="DataLoader workers of each of the baseline's trials")
    made.add_argument("--warm", action="store_true", help="also run kdtune with the frames decoded before")
    return made.parse_args()


def baseline_job(at: Place, candidates: int, workers: int) -> dict[str, Any]:
    """Return what baseline.py needs, except for the places of its results."""
    block, search = at.sweep.blocks()[0], at.sweep.search
    trial = at.sweep.build(block, search.controls[0], seed=0)
    clips = at.session.clips(trial)
    data = TrialData.of(trial, clips)
    lists = at.folder / "lists.csv"
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    with lists.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for split, rows in splits.items():
            for video in clips.index.loc[rows].itertuples():
                writer.writerow([at.folder / "videos" / video.video, video.label, split])
    unused = {"lambda": 1.0, "tau": 4.0, "alpha": trial.loss.alpha}  # of a control
    random_search = Search(at.sweep, block)
    asked = [random_search.ask() for _ in range(candidates)]
    return {
        "trial": trial.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "points": [{**unused, **values} for values in (*search.controls, *asked)],
        "teachers": {
            name: {
                "trial": teacher.model_dump(mode="json", by_alias=True, exclude_unset=True),
                "checkpoint": str(at.session.files(teacher).checkpoint),
            }
            for name, teacher in teachers(at.sweep).items()
        },
        "lists": str(lists),
        "videos": {split: len(rows) for split, rows in splits.items()},
        "classes": len(data.actions),
        "stages": list(trial.stage_epochs.values()),
        "metric": at.sweep.objectives[0].metric,
        "workers": workers,
        "cores": cores(),
    }


# ---- the sides -------------------------------------------------------------------------------------------------------


def kdtune_side(at: Place, job: dict[str, Any], folder: Path, warm: bool) -> dict[str, dict[str, Any]]:
    """Run the sweep in a new store, the same command again, and optionally once more in a store with decoded frames."""
    measured = {}
    for name in ("kdtune", "again", "warm") if warm else ("kdtune", "again"):
        store = folder / ("warm" if name == "warm" else "cold")
        if name != "again":
            at.copy_store(store, clips=name == "warm")
        env = {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}
        here = ["--store", str(store)]
        seeds = ["--set", f"search.seeds=[{job['trial']['seed']}]"]
        seconds, _ = command([sys.executable, "-m", "kdtune", "sweep", str(at.file), *seeds, *here], env)
        trials = [trial for trial in results(at, here) if trial["candidate"] is not None or trial["control"]]
        if len(trials) != len(job["points"]) or any(trial["state"] != "complete" for trial in trials):
            sys.exit(f"kdtune has not trained the baseline's trials: {[trial['state'] for trial in trials]}")
        measured[name] = {"seconds": seconds, "trials": [one_of_kdtune(at, store, trial) for trial in trials]}
    return measured


def results(at: Place, here: list[str]) -> list[dict[str, Any]]:
    show = [sys.executable, "-m", "kdtune", "results", at.sweep.name, "--format", "json", *here]
    return json.loads(command(show)[1])["trials"]


def one_of_kdtune(at: Place, store: Path, trial: dict[str, Any]) -> dict[str, Any]:
    """Return the accuracies at the last stage, and the median seconds of an epoch and of a stage."""
    rows = [json.loads(line) for line in (store / "trials" / trial["key"] / "epochs.jsonl").read_text().splitlines()]
    stage = list(at.sweep.trial.stage_epochs)[-1]
    accuracies = {f"{s}_{m}": trial["stages"][stage][s][m] for s in ("validation", "test") for m in METRICS}
    plain = [row["seconds"] for row in rows if "stage" not in row]
    # The first epoch of the first trial with a teacher computes targets; the median ignores it.
    epoch = statistics.median(plain) if plain else None
    staged = [row["seconds"] - (epoch or 0) for row in rows if "stage" in row]
    figures = {"epoch": epoch, "stage": statistics.median(staged), "all": trial["seconds"]}
    return {"values": trial["params"], **accuracies, "seconds": figures}


def baseline_side(at: Place, job: dict[str, Any], folder: Path, warm: bool) -> dict[str, dict[str, Any]]:
    there = folder / "baseline"
    there.mkdir(parents=True)
    out, file = there / "out.json", there / "job.json"
    uri = f"sqlite:///{there}/mlflow.db"
    file.write_text(json.dumps({**job, "out": str(out), "storage": str(there / "ray"), "tracking_uri": uri}))
    seconds, _ = command([sys.executable, str(Path(__file__).with_name("baseline.py")), str(file)])
    rows = json.loads(out.read_text())
    asked = [{name: row["point"][name] for name in job["points"][0]} for row in rows]
    if sorted(map(str, asked)) != sorted(str({name: p[name] for name in job["points"][0]}) for p in job["points"]):
        sys.exit(f"the baseline has trained other trials: {asked}")
    trials = [
        {
            "values": {name: value for name, value in row["point"].items() if name != "job"},
            "distils": row["point"]["teacher"] != "none",
            **{f"{split}_{metric}": row[f"{split}_{metric}"] for split in ("validation", "test") for metric in METRICS},
            "seconds": {k.removeprefix("seconds_"): v for k, v in row.items() if k.startswith("seconds_")},
        }
        for row in rows
    ]
    return {"baseline": {"seconds": seconds, "trials": trials}}


# ---- what it comes to ------------------------------------------------------------------------------------------------


def what_it_comes_to(
    found: dict[str, list[dict[str, Any]]], sweep: SweepConfig, videos: dict[str, int]
) -> dict[str, Any]:
    seconds = {name: [side["seconds"] for side in sides] for name, sides in found.items() if sides}
    trials = len(found["kdtune"][0]["trials"])
    spent: dict[str, float] = {}
    for trial in (trial for side in found["baseline"] for trial in side["trials"]):
        for name, value in trial["seconds"].items():
            spent[name] = spent.get(name, 0.0) + value
    shares = {name: value / sum(spent.values()) for name, value in spent.items()}
    faster = ratios(seconds["baseline"], seconds["kdtune"])
    long = sweep.trial.clip.size == 112 and sweep.trial.epochs > 1
    return {
        "seconds": seconds,
        "trials_per_hour": {name: [trials * 3600 / s for s in seconds[name]] for name in seconds if name != "again"},
        "ratio": faster,
        "ratio_warm": ratios(seconds["baseline"], seconds["warm"]) if "warm" in seconds else None,
        # As if the baseline, too, measured the objective at the stages only (ASHA could then stop only there).
        "ratio_without_objective_between_stages": [r * (1 - shares.get("objective", 0.0)) for r in faster],
        "one_more_trial": one_more(found),
        "again_share": ratios(seconds["again"], seconds["kdtune"]),
        "baseline_shares": shares,
        "trial_at_the_papers_length": papers_length(found, sweep, videos) if long else None,
    }


def one_more(found: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return a trial's own seconds: what each trial adds to a sweep, without starts and what is made once."""
    kdtune = statistics.median(trial["seconds"]["all"] for side in found["kdtune"] for trial in side["trials"])
    taught = [trial["seconds"] for side in found["baseline"] for trial in side["trials"] if trial["distils"]]
    baseline = statistics.median(sum(seconds.values()) for seconds in taught)
    return {"kdtune": kdtune, "baseline": baseline, "ratio": baseline / kdtune}


def papers_length(
    found: dict[str, list[dict[str, Any]]], sweep: SweepConfig, videos: dict[str, int]
) -> dict[str, float]:
    """Estimate the seconds of a trial of 200 epochs with 3 stages of ten clips per video, with its targets found.

    It is composed of these epochs and stages. A stage grows with the number of clips that its network sees, including
    three for each tuple.
    """
    ours = [trial["seconds"] for side in found["kdtune"] for trial in side["trials"]]
    theirs = [trial["seconds"] for side in found["baseline"] for trial in side["trials"] if trial["distils"]]

    def stages(tuples: int) -> float:
        """Return how many of the measured stages cost as much as the paper's stages."""
        now, then = (n * sum(videos.values()) + 3 * tuples for n in (sweep.trial.evaluation.clips, PAPER_CLIPS))
        return PAPER_STAGES * then / now

    each = ("input", "teacher", "network", "validation", "report")
    epoch = statistics.median(sum(seconds.get(name, 0.0) for name in each) / sweep.trial.epochs for seconds in theirs)
    stage = statistics.median(seconds["stages"] for seconds in theirs)
    baseline = PAPER_EPOCHS * epoch + stages(videos["test"]) * stage  # its validation tuples are part of its epochs
    both = stages(videos["validation"] + videos["test"])
    # The lower one, because the first trial with the teacher may have computed targets.
    kdtune = statistics.median_low(PAPER_EPOCHS * one["epoch"] + both * one["stage"] for one in ours)
    return {"kdtune": kdtune, "baseline": baseline, "ratio": baseline / kdtune}


def print_all(content: dict[str, Any]) -> None:
    videos = ", ".join(f"{count} {split}" for split, count in content["shape"]["videos"].items())
    print(
        f"\n{content['shape']['about']}; {len(content['points'])} trials of "
        f"{content['sweep']['trial']['epochs']} epochs; videos: {videos}"
    )
    print(machine_line(content["machine"]))
    rows = [[name, spread(seconds, 1), "–"] for name, seconds in content["seconds"].items()]
    for row in rows:
        if row[0] in content["trials_per_hour"]:
            row[2] = spread(content["trials_per_hour"][row[0]], 1)
    print_table(["side", "seconds of the sweep", "trials per hour"], rows)
    print(f"\nkdtune is {spread(content['ratio'])} times as fast as the baseline", end="")
    print(f", {spread(content['ratio_warm'])} times with decoded frames" if content["ratio_warm"] else "", end="")
    print(f"; decoding takes about {content['decode_seconds']:.1f} s, Python's start included.")
    more = content["one_more_trial"]
    print(f"One more trial takes {more['kdtune']:.1f} s and {more['baseline']:.1f} s, {more['ratio']:.2f} times.")
    only = spread(content["ratio_without_objective_between_stages"])
    print(f"Were the objective measured at the stages alone by the baseline, too, about {only} times.")
    print(f"The finished sweep run again takes {spread([100 * s for s in content['again_share']], 1)} % of its time.")
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in content["baseline_shares"].items())
    print(f"The baseline's trials spend: {shares}.")
    if content["trial_at_the_papers_length"]:
        long = content["trial_at_the_papers_length"]
        print(
            f"A trial of {PAPER_EPOCHS} epochs and {PAPER_STAGES} stages of {PAPER_CLIPS} clips would take "
            f"{long['kdtune']:.0f} s (targets found) and {long['baseline']:.0f} s, {long['ratio']:.2f} times."
        )
    rows = []
    for name in (f"{split}_{metric}" for split in ("validation", "test") for metric in METRICS):
        sides = [[t[name] for side in content["sides"][s] for t in side["trials"]] for s in ("kdtune", "baseline")]
        rows.append([name, *(f"{statistics.mean(v):.3f} ± {statistics.stdev(v):.3f}" for v in sides)])
    print_table(["accuracy at the last stage, mean ± deviation over trials", "kdtune", "baseline"], rows)


if __name__ == "__main__":
    main()
