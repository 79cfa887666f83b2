"""The results of a sweep as JSON (DESIGN 5), and the differences between its trials' profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from kdtune.history.trials import SweepTrials, TrialRecord
from kdtune.parse import JsonObject

#: Fields of a profile that depend on a trial or its data, and so may differ within one sweep on one machine.
OWN = ("frames", "threads", "precision", "torchvision")


def results_json(found: SweepTrials, run_ids: Mapping[str, str]) -> JsonObject:
    """Return {"sweep": name, "trials": […], "best": {block: trial}} as DESIGN 5; `run_ids`: key → MLflow's run.

    Trials are in order of blocks: controls, then candidates by number. A block's best is the first trial of its best
    candidate, or None; with several objectives it is a list, the Pareto set. A sweep with `refit: true` also has
    "refits": controls and chosen candidates, trained again on the whole training list, with objectives on test.
    """
    history = found.history
    count = len(history.objectives)
    rows = [(trial, trial_json(trial, count, run_ids)) for trial in found.trials]
    first = {(trial.block, trial.candidate): row for trial, row in reversed(rows)}
    best = {label: [first[label, group.number] for group in block.best] for label, block in history.blocks.items()}
    results: JsonObject = {"sweep": history.name, "trials": [row for _, row in rows]}
    results["best"] = best if count > 1 else {label: next(iter(rows), None) for label, rows in best.items()}
    if found.refits is not None:
        results["refits"] = [trial_json(trial, count, run_ids) for trial in found.refits]
    return results


def trial_json(trial: TrialRecord, objectives: int, run_ids: Mapping[str, str]) -> JsonObject:
    """Return a trial as in DESIGN 5; `objectives` is the sweep's number of objectives."""
    asked, outcome = trial.group.asked, trial.group.outcome
    row: JsonObject = {
        "key": trial.key,
        "candidate": trial.candidate,
        "block": trial.block,
        "control": trial.is_control,
        "seed": trial.seed,
        "params": trial.params,
        "state": trial.state,
        "epochs": trial.epochs,
        "stages": trial.stages,
        "objective": trial.objective,
        "weights_sha256": trial.weights_sha256,
        "seconds": trial.seconds,
        "cached": trial.group.cached,
        "cost": trial.cost,
        "profile": trial.profile,
        "mlflow_run_id": run_ids.get(trial.key),
        "error": trial.error,
    }
    if objectives > 1:
        row["objectives"] = list(trial.values) or [None] * objectives
    if outcome is not None and outcome.spread is not None:
        row["spread"] = outcome.spread
    if asked.refits is not None:
        row["refits"] = asked.refits.group
    if asked.finetuned:
        row["finetune"] = trial.finetuned
    if trial.end is not None and trial.end.earlier_profiles:
        row["earlier_profiles"] = [asdict(earlier) for earlier in trial.end.earlier_profiles]
    return row


def mixed_profiles(trials: Sequence[TrialRecord]) -> str | None:
    """Return the differences between the trials' machines and versions, in words; None if there are none."""
    seen: dict[str, list[str]] = {}
    for profile in (profile for trial in trials for profile in trial.profiles):
        for name in profile.keys() - OWN:
            # The fingerprint depends on these two settings of the trial.
            settings = f" ({profile['threads']} threads, {profile['precision']})" if name == "arithmetic" else ""
            values = seen.setdefault(f"{name}{settings}", [])
            if str(profile[name]) not in values:
                values.append(str(profile[name]))
    mixed = [f"{name} {' | '.join(values)}" for name, values in sorted(seen.items()) if len(values) > 1]
    if not mixed:
        return None
    return f"the trials ran under several profiles ({'; '.join(mixed)}): results repeat bit for bit only within one"
