"""The progress of a sweep: the time left, and its displayed state as JSON."""

from __future__ import annotations

from statistics import fmean

from kdtune.history.blocks import BlockHistory
from kdtune.history.groups import STATES, GroupHistory
from kdtune.history.sweep import SweepHistory
from kdtune.parse import JsonObject


def time_left(history: SweepHistory) -> float | None:
    """Estimate the seconds until the last group ends, at the present pace and with as many groups at once as now.

    Return None while no group runs or no epoch has ended. Later candidates count as many epochs as the ended ones.
    """
    if not history.running or history.pace.value is None:
        return None

    def seconds(block: BlockHistory, epochs: float) -> float:
        return epochs * (block.pace.value or history.pace.value or 0)

    running = [(history.block_of(group), group) for group in history.running.values()]
    begun = [seconds(block, block.left(group)) for block, group in running]
    waiting = sum(seconds(block, block.waiting) for block in (history.teachers, *history.blocks.values()))
    return max(*begun, (sum(begun) + waiting) / len(begun))


def picture(history: SweepHistory) -> JsonObject:
    """Return the state of a sweep as JSON.

    {"done": ended groups, "total", "time_left": seconds or None,
    "metric": the objective's column, or None where there are several objectives, "unit": of gains,
    "teachers": as a block, with "values": {teacher: its own value in the objective's metric}, or None without teachers,
    "blocks": [{"block", "complete", "pruned", "infeasible", "failed", "running", "pending": groups,
    "redrawn": {bound of the constraints: draws that broke it}, if there are any,
    "best": {"candidate", "objective", "gain": over the first control in `unit`, more is better, or None} or None; with
    several objectives {"candidates": the Pareto set} or None, and in a race "race": {"look": the newest one's number or
    None, "seeds": that it saw, "left": candidates still in the race, "decision": or None, "trainings": that ended,
    "words"}}],
    "running": [{"group", "trial": the group with the seed of the newest row, "epoch", "epochs": of that trial,
    "stage": the last stage or evaluated epoch, "metric", "value": its mean over the seeds that have reached it}]}
    """
    return {
        "done": history.done,
        "total": history.total,
        "time_left": time_left(history),
        "metric": history.metric.column if len(history.objectives) == 1 else None,
        "unit": history.metric.unit,
        "teachers": _teachers(history) if history.teachers.counts.total() else None,
        "blocks": [_block(block) for block in history.blocks.values()],
        "running": [_running(group) for group in history.running.values()],
    }


def _block(block: BlockHistory) -> JsonObject:
    best: JsonObject | None = None
    if block.best and len(block.objectives) > 1:
        best = {"candidates": [group.number for group in block.best]}
    elif block.best:
        differences, objective = block.differences(block.best[0]).values(), block.best[0].objective()
        gain = block.metric.scaled(fmean(differences)) if differences else None
        best = {"candidate": block.best[0].number, "objective": objective, "gain": gain}
    counts: JsonObject = {state: block.count(state) for state in STATES}
    found: JsonObject = {"block": block.label, **counts, "best": best}
    if block.redrawn:
        found["redrawn"] = dict(block.redrawn)
    return found if block.race is None else {**found, "race": race_json(block)}


def race_json(block: BlockHistory) -> JsonObject:
    """Return the state of a block's race as in `picture`."""
    race = block.race
    assert race is not None, "the sweep must have a race"
    look, left = (None, None) if race.last is None else (race.last.number, race.last.left)
    state = {"look": look, "seeds": race.seeds, "left": left, "decision": race.decision}
    return {**state, "trainings": block.trainings, "words": race.words()}


def _teachers(history: SweepHistory) -> JsonObject:
    found = {name.removeprefix("teacher "): group.objective() for name, group in history.teachers.teachers.items()}
    return _block(history.teachers) | {"values": {name: value for name, value in found.items() if value is not None}}


def _running(group: GroupHistory) -> JsonObject:
    key = group.newest or group.keys[0]
    stage = next(reversed(group.reached), None)
    return {
        "group": group.name,
        "trial": group.trial_name(key),
        "epoch": group.epoch(group.place(key)),
        "epochs": group.epochs,
        "stage": stage,
        "metric": None if stage is None else group.shown[stage].column,
        "value": None if stage is None else fmean(group.reached[stage].values()),
    }
