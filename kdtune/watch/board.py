"""A sweep as people watch it: fed with the rows of its ledger and of its trials, asked how far it is.

A row costs O(1) and a picture O(running groups + blocks), so that sweeps of thousands of trials can be watched.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from kdtune.store.records import objectives_of, wanted
from kdtune.watch.tally import ENDED, Mean, Tally, TrialGroup

Row = dict[str, Any]


class Board:
    """The state of a sweep. `sweep` is its stored record (`sweep_record` in kdtune/execute/driver.py): its `objective`
    is one objective or a list of them, of which the first is shown for trials that run."""

    def __init__(self, sweep: Row) -> None:
        self._record, self.name = sweep, sweep["name"]
        self.objectives: list[Row] = objectives_of(sweep)
        self.stages: dict[str, int] = sweep["stages"]
        modes, last = [objective["mode"] for objective in self.objectives], max(self.stages.values())
        self._tuning = max(0, last - sweep.get("epochs", last))  # stages count fine-tuning's epochs on
        self.teachers = Tally(0, modes, None)
        self.blocks = {label: Tally(candidates, modes, last) for label, candidates in sweep["blocks"].items()}
        self.groups: dict[str, TrialGroup] = {}
        self.running: dict[str, TrialGroup] = {}
        self.pace = Mean()
        """Seconds of an epoch, of whatever trial."""
        self.done = 0
        """Groups that have ended."""
        self.total = sum(sweep["blocks"].values())
        """Groups that were asked, and candidates still to be asked."""

    # ---- what happens ------------------------------------------------------------------------------------------------

    def take(self, row: Row) -> TrialGroup | None:
        """Take note of a ledger's row, or of {"event": "started", "group": its name}; returns the group that it is of.

        None for a group that the sweep does not ask for: a ledger also knows candidates of a run that had more of them.
        """
        if row["event"] == "asked":
            return self._ask(row)
        group = self.groups.get(row["group"])
        if group is not None and row["event"] == "started":
            self._move(group, "running")
        elif group is not None and row["event"] == "ended":
            self._end(group, row)
        return group

    def epoch(self, name: str, key: str, row: Row) -> str | None:
        """Take note of an epoch's row of a trial of group `name`; returns what is new in it, as in `early: knn
        0.250`."""
        group = self.groups.get(name)
        if group is None:
            return None
        if group.state == "pending":
            self._move(group, "running")
        group.done[key], group.newest = row["epoch"], key
        self.pace.add(row["seconds"])
        group.tally.pace.add(row["seconds"])
        if "evaluation" not in row:
            return None
        objective = self.objectives[0]
        figures = row["evaluation"]["test" if group.kind == "refit" else objective["split"]]
        # What an action head is measured by is not there before fine-tuning; between stages nothing else may be.
        group.metric = objective["column"] if objective["column"] in figures else "knn"
        if group.metric not in figures:
            return None
        place = row.get("stage") or f"epoch {row['epoch']}"
        known = key in group.reached.get(place, {})
        group.reached.setdefault(place, {})[key] = figures[group.metric]
        return None if known or "stage" not in row else f"{place}: {group.metric} {figures[group.metric]:.3f}"

    def _ask(self, row: Row) -> TrialGroup | None:
        name, kind, block = row["group"], row["kind"], row["block"]
        if not wanted(row, self._record):
            return None
        tally = self.teachers if block is None else self.blocks[block]
        if name in self.groups:  # asked anew, for instance since its data have changed: these are other trials
            self._move(self.groups[name], "pending")
        else:
            self.total += kind != "candidate"
            tally.counts[kind, "pending"] += 1
        keys, finetuned, thresholds = row["keys"], row.get("finetuned", []), row.get("thresholds", {})
        if "epochs" in row:  # ledgers of earlier versions do not say
            tally.epochs = row["epochs"] + (self._tuning if finetuned else 0)
        epochs = tally.epochs
        group = self.groups[name] = TrialGroup(
            name, kind, row["number"], row["seeds"], keys, finetuned, thresholds, epochs, tally
        )
        if kind == "candidate":
            tally.seeds = len(keys)
        elif kind == "control" and group.number == 0:
            tally.controls[name] = None
        return group

    def _end(self, group: TrialGroup, row: Row) -> None:
        values = row.get("objectives") or [row["objective"]]
        end = (row["state"], row["stage"], *values)
        if group.end == end:
            return  # every run that finds it says so again
        self._move(group, row["state"])
        group.end, group.done, group.reached = end, {}, {}  # thousands of them end
        scored = group.state == "complete" and None not in values
        if group.name in group.tally.controls:
            group.tally.controls[group.name] = values if scored else None
        if group.kind == "candidate" and group.number is not None:
            if scored:
                group.tally.front.add(group.number, values)
            group.length = {"complete": group.epochs, "pruned": self.stages.get(row["stage"])}.get(group.state)
            if group.length is not None:
                group.tally.lengths.add(group.length)

    def _move(self, group: TrialGroup, state: str) -> None:
        """To another state; what it had ended with holds no longer."""
        group.tally.counts[group.kind, group.state] -= 1
        group.tally.counts[group.kind, state] += 1
        self.done += (state in ENDED) - (group.state in ENDED)
        if group.kind == "candidate" and group.number is not None and group.end:
            group.tally.front.remove(group.number)
        if group.length is not None:
            group.tally.lengths.add(group.length, -1)
        group.state, group.end, group.length = state, (), None
        if state == "running":
            self.running[group.name] = group
        else:
            self.running.pop(group.name, None)

    # ---- how far it is -----------------------------------------------------------------------------------------------

    def time_left(self) -> float | None:
        """Seconds until the last group ends if epochs go on as they went, so many side by side as now; None while there
        is nothing to go by. About: candidates to come are taken to be as long as those that have ended."""
        if not self.running or self.pace.value is None:
            return None

        def seconds(tally: Tally, epochs: float) -> float:
            return epochs * (tally.pace.value or self.pace.value or 0)

        begun = [seconds(group.tally, group.rest) for group in self.running.values()]
        waiting = sum(seconds(tally, tally.waiting) for tally in (self.teachers, *self.blocks.values()))
        return max(*begun, (sum(begun) + waiting) / len(begun))

    def picture(self) -> Row:
        """The state in plain values.

        {"done": ended groups, "total", "time_left": seconds or None,
        "metric": of the objective, or None where there are several objectives,
        "teachers": as a block, or None where there are none,
        "blocks": [{"block", "complete", "pruned", "failed", "running", "pending": groups,
        "best": {"candidate", "objective", "gain": over the first control or None} or None; with several objectives
        {"candidates": the Pareto set} or None}],
        "running": [{"group", "trial": the group with the seed of the newest row, "epoch", "epochs": of that trial or
        None, "stage": the last one (or epoch that was evaluated), "metric", "value": there, mean over the seeds that
        are there}]}
        """
        return {
            "done": self.done,
            "total": self.total,
            "time_left": self.time_left(),
            "metric": self.objectives[0]["column"] if len(self.objectives) == 1 else None,
            "teachers": self._block("teachers", self.teachers) if self.teachers.counts else None,
            "blocks": [self._block(label, tally) for label, tally in self.blocks.items()],
            "running": [_running(group) for group in self.running.values()],
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


def _running(group: TrialGroup) -> Row:
    key = group.newest or group.keys[0]
    stage = next(reversed(group.reached), None)
    value = None if stage is None else fmean(group.reached[stage].values())
    progress = {
        "group": group.name,
        "trial": group.named(key),
        "epoch": group.epoch(group.index(key)),
        "epochs": group.epochs,
    }
    return {**progress, "stage": stage, "metric": group.metric or None, "value": value}
