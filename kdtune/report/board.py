"""A sweep as people watch it: fed with the rows of its ledger and of its trials, asked how far it is.

A row costs O(1) and a picture O(running jobs + blocks), so that sweeps of thousands of trials can be watched.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from kdtune.records import objectives_of, wanted
from kdtune.report.tally import ENDED, Job, Mean, Tally

Row = dict[str, Any]


class Board:
    """The state of a sweep. `sweep` is its stored record (`sweep_record` in kdtune/sweep/driver.py): its `objective` is
    one objective or a list of them, of which the first is shown for trials that run."""

    def __init__(self, sweep: Row) -> None:
        self._record, self.name = sweep, sweep["name"]
        self.objectives: list[Row] = objectives_of(sweep)
        self.stages: dict[str, int] = sweep["stages"]
        modes, last = [objective["mode"] for objective in self.objectives], max(self.stages.values())
        self._tuning = max(0, last - sweep.get("epochs", last))  # stages count fine-tuning's epochs on
        self.teachers = Tally(0, modes, None)
        self.blocks = {label: Tally(candidates, modes, last) for label, candidates in sweep["blocks"].items()}
        self.jobs: dict[str, Job] = {}
        self.running: dict[str, Job] = {}
        self.pace = Mean()
        """Seconds of an epoch, of whatever trial."""
        self.done = 0
        """Jobs that have ended."""
        self.total = sum(sweep["blocks"].values())
        """Jobs that were asked, and candidates still to be asked."""

    # ---- what happens ------------------------------------------------------------------------------------------------

    def take(self, row: Row) -> Job | None:
        """Take note of a ledger's row, or of {"event": "started", "job": its name}; returns the job that it is of.

        None for a job that the sweep does not ask for: a ledger also knows candidates of a run that had more of them.
        """
        if row["event"] == "asked":
            return self._ask(row)
        job = self.jobs.get(row["job"])
        if job is not None and row["event"] == "started":
            self._move(job, "running")
        elif job is not None and row["event"] == "ended":
            self._end(job, row)
        return job

    def epoch(self, name: str, key: str, row: Row) -> str | None:
        """Take note of an epoch's row of a trial of job `name`; returns what is new in it, as in `early: knn 0.250`."""
        job = self.jobs.get(name)
        if job is None:
            return None
        if job.state == "pending":
            self._move(job, "running")
        job.done[key], job.newest = row["epoch"], key
        self.pace.add(row["seconds"])
        job.tally.pace.add(row["seconds"])
        if "evaluation" not in row:
            return None
        objective = self.objectives[0]
        figures = row["evaluation"]["test" if job.kind == "refit" else objective["split"]]
        # What an action head is measured by is not there before fine-tuning; between stages nothing else may be.
        job.metric = objective["column"] if objective["column"] in figures else "knn"
        if job.metric not in figures:
            return None
        place = row.get("stage") or f"epoch {row['epoch']}"
        known = key in job.reached.get(place, {})
        job.reached.setdefault(place, {})[key] = figures[job.metric]
        return None if known or "stage" not in row else f"{place}: {job.metric} {figures[job.metric]:.3f}"

    def _ask(self, row: Row) -> Job | None:
        name, kind, block = row["job"], row["kind"], row["block"]
        if not wanted(row, self._record):
            return None
        tally = self.teachers if block is None else self.blocks[block]
        if name in self.jobs:  # asked anew, for instance since its data have changed: these are other trials
            self._move(self.jobs[name], "pending")
        else:
            self.total += kind != "candidate"
            tally.counts[kind, "pending"] += 1
        keys, finetuned, bars = row["keys"], row.get("finetuned", []), row.get("bars", {})
        if "epochs" in row:  # ledgers of earlier versions do not say
            tally.epochs = row["epochs"] + (self._tuning if finetuned else 0)
        epochs = tally.epochs
        job = self.jobs[name] = Job(name, kind, row["number"], row["seeds"], keys, finetuned, bars, epochs, tally)
        if kind == "candidate":
            tally.seeds = len(keys)
        elif kind == "control" and job.number == 0:
            tally.controls[name] = None
        return job

    def _end(self, job: Job, row: Row) -> None:
        values = row.get("objectives") or [row["objective"]]
        end = (row["state"], row["stage"], *values)
        if job.end == end:
            return  # every run that finds it says so again
        self._move(job, row["state"])
        job.end, job.done, job.reached = end, {}, {}  # thousands of them end
        scored = job.state == "complete" and None not in values
        if job.name in job.tally.controls:
            job.tally.controls[job.name] = values if scored else None
        if job.kind == "candidate" and job.number is not None:
            if scored:
                job.tally.front.add(job.number, values)
            job.length = {"complete": job.epochs, "pruned": self.stages.get(row["stage"])}.get(job.state)
            if job.length is not None:
                job.tally.lengths.add(job.length)

    def _move(self, job: Job, state: str) -> None:
        """To another state; what it had ended with holds no longer."""
        job.tally.counts[job.kind, job.state] -= 1
        job.tally.counts[job.kind, state] += 1
        self.done += (state in ENDED) - (job.state in ENDED)
        if job.kind == "candidate" and job.number is not None and job.end:
            job.tally.front.remove(job.number)
        if job.length is not None:
            job.tally.lengths.add(job.length, -1)
        job.state, job.end, job.length = state, (), None
        if state == "running":
            self.running[job.name] = job
        else:
            self.running.pop(job.name, None)

    # ---- how far it is -----------------------------------------------------------------------------------------------

    def time_left(self) -> float | None:
        """Seconds until the last job ends if epochs go on as they went, so many side by side as now; None while there
        is nothing to go by. About: candidates to come are taken to be as long as those that have ended."""
        if not self.running or self.pace.value is None:
            return None

        def seconds(tally: Tally, epochs: float) -> float:
            return epochs * (tally.pace.value or self.pace.value or 0)

        begun = [seconds(job.tally, job.rest) for job in self.running.values()]
        waiting = sum(seconds(tally, tally.waiting) for tally in (self.teachers, *self.blocks.values()))
        return max(*begun, (sum(begun) + waiting) / len(begun))

    def picture(self) -> Row:
        """The state in plain values.

        {"done": ended jobs, "total", "time_left": seconds or None,
        "metric": of the objective, or None where there are several objectives,
        "teachers": as a block, or None where there are none,
        "blocks": [{"block", "complete", "pruned", "failed", "running", "pending": jobs,
        "best": {"candidate", "objective", "gain": over the first control or None} or None; with several objectives
        {"candidates": the Pareto set} or None}],
        "running": [{"job", "trial": the job with the seed of the newest row, "epoch", "epochs": of that trial or None,
        "stage": the last one (or epoch that was evaluated), "metric", "value": there, mean over the seeds that are
        there}]}
        """
        return {
            "done": self.done,
            "total": self.total,
            "time_left": self.time_left(),
            "metric": self.objectives[0]["column"] if len(self.objectives) == 1 else None,
            "teachers": self._block("teachers", self.teachers) if self.teachers.counts else None,
            "blocks": [self._block(label, tally) for label, tally in self.blocks.items()],
            "running": [_running(job) for job in self.running.values()],
        }

    def _block(self, label: str, tally: Tally) -> Row:
        states = {state: tally.count(state) for state in (*ENDED, "running", "pending")}
        best: Row | None = None
        numbers = tally.front.numbers()
        if numbers and len(self.objectives) > 1:
            best = {"candidates": numbers}
        elif numbers:
            (value,) = tally.front.values(numbers[0])
            best = {"candidate": numbers[0], "objective": value, "gain": tally.gain(value)}
        return {"block": label, **states, "best": best}


def _running(job: Job) -> Row:
    key = job.newest or job.keys[0]
    stage = next(reversed(job.reached), None)
    value = None if stage is None else fmean(job.reached[stage].values())
    progress = {"job": job.name, "trial": job.named(key), "epoch": job.epoch(job.index(key)), "epochs": job.epochs}
    return {**progress, "stage": stage, "metric": job.metric or None, "value": value}
