"""What `results` prints: tables of each block to read, and every trial as CSV or JSON (DESIGN 5)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from kdtune.history.progress import race_json
from kdtune.history.trials import SweepTrials, TrialRecord
from kdtune.history.words.answer import Answer, answer
from kdtune.messages import wrapped
from kdtune.parse import JsonObject
from kdtune.report.block_table import block_table
from kdtune.report.teachers import teachers_table
from kdtune.tables import Cell, Table
from kdtune.tables import render as rendered

FORMATS = ("table", "json", "csv", "markdown", "latex")
#: Formats with a table per block → the tables' form.
READABLE = {"table": "text", "markdown": "markdown", "latex": "latex"}
#: Fields of a trial that become several columns (params, stages, cost) or none.
NESTED = ("params", "stages", "objectives", "cost", "profile", "earlier_profiles")
#: Candidates per block in the summary; the rest are only counted.
SHOWN = 5
#: Fields of a profile that depend on a trial or its data, and so may differ within one sweep on one machine.
OWN = ("frames", "threads", "precision", "torchvision")


def render(found: SweepTrials, form: str, run_ids: Mapping[str, str], width: int | None = None) -> str:
    """Return the results of a sweep in one of FORMATS; `run_ids`: trial's key → MLflow's run.

    `width` is the terminal's, to which the tables that are read there are fitted. The `table` ends with the answer.
    """
    if form == "json":
        return json.dumps(results_json(found, run_ids), indent=1, ensure_ascii=False)
    if form == "csv":
        return rendered(_trials(found, run_ids), "csv")
    tables = [readable(table, form, width) for table in _tables(found, None)]
    # The other forms are pasted into papers and pages.
    words = [wrapped("\n".join(answer_of(found).sentences), width)] if form == "table" else []
    return "\n\n".join([*tables, *words])


def answer_of(found: SweepTrials) -> Answer:
    """Return the sweep's answer."""
    return answer(found.history, found.videos)


def readable(table: Table, form: str, width: int | None) -> str:
    """Return a table in one of READABLE's formats; a `table` is fitted to a terminal of this width."""
    if form != "table" or width is None:
        return rendered(table, READABLE[form])
    from kdtune.tables.terminal import text_for

    return text_for(table, width)


def summary(found: SweepTrials, width: int | None = None) -> str:
    """Return what is printed at the end of a sweep: the teachers, and for each block the control and the best."""
    return "\n\n".join(readable(table, "table", width) for table in summary_tables(found))


def summary_tables(found: SweepTrials) -> list[Table]:
    """Return the tables of `summary`."""
    return list(_tables(found, SHOWN))


def _tables(found: SweepTrials, most: int | None) -> Iterator[Table]:
    """Yield a table for each block and one for its refits, with their figures on test; then the teachers' table.

    A block's table has all trials, or with `most` the means of that many candidates.
    """
    objectives, stages = found.history.objectives, list(found.history.record.stages)
    last = next(reversed(found.history.blocks.values()), None)
    for label, block in found.history.blocks.items():
        race = [] if block.race is None else [f"race: {block.race.words()}"]
        race += [found.history.race_words] if race and block is last else []
        own = [trial for trial in found.trials if trial.block == label]
        gains = (
            None if most is None else found.history.gains(label, found.videos.get(label, {}).get(block.metric.split))
        )
        yield block_table(block, own, objectives, stages, most, gains, notes=race)
        if refits := [trial for trial in found.refits or [] if trial.block == label]:
            tested = [objective.at(split="test") for objective in objectives]
            yield block_table(block, refits, tested, stages, what="trained again on the whole list, ")
    if (teachers := teachers_table(found.teachers)) is not None:
        yield teachers


def _trials(found: SweepTrials, run_ids: Mapping[str, str]) -> Table:
    """Return one row per trial, with stage accuracies in columns like `late.validation.knn`, costs in `cost.gmac`."""
    results = results_json(found, run_ids)
    rows = []
    for trial in [*results["trials"], *results.get("refits", [])]:
        flat = {name: value for name, value in trial.items() if name not in NESTED}
        flat |= trial["params"]
        for stage, splits in trial["stages"].items():
            flat |= {f"{stage}.{split}.{metric}": v for split, values in splits.items() for metric, v in values.items()}
        flat |= {f"cost.{name}": figure for name, figure in (trial["cost"] or {}).items()}
        rows.append(flat)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return Table.of(columns, [[Cell("", row.get(name)) for name in columns] for row in rows])


# ---- JSON ------------------------------------------------------------------------------------------------------------


def results_json(found: SweepTrials, run_ids: Mapping[str, str]) -> JsonObject:
    """Return {"sweep": name, "answer": text, "trials": […], "best": {block: trial}} as DESIGN 5.

    `run_ids`: key → MLflow's run.
    Trials are in order of blocks: controls, then candidates by number. A block's best is the first trial of its best
    candidate, or None; with several objectives it is a list, the Pareto set. A sweep with `refit: true` also has
    "refits": controls and chosen candidates, trained again on the whole training list, with objectives on test.
    A sweep with a race has "races", block → as "race" in kdtune.history.progress.picture, and a dropped candidate's
    trials have "dropped", the number of the look. A sweep with teachers has "teachers", which have no block and no
    objective.
    """
    history = found.history
    count = len(history.objectives)
    rows = [(trial, trial_json(trial, count, run_ids)) for trial in found.trials]
    first = {(trial.block, trial.candidate): row for trial, row in reversed(rows)}
    best = {label: [first[label, group.number] for group in block.best] for label, block in history.blocks.items()}
    results: JsonObject = {"sweep": history.name, "answer": str(answer_of(found)), "trials": [row for _, row in rows]}
    results["best"] = best if count > 1 else {label: next(iter(rows), None) for label, rows in best.items()}
    if history.record.race is not None:
        results["races"] = {label: race_json(block) for label, block in history.blocks.items()}
    if found.refits is not None:
        results["refits"] = [trial_json(trial, count, run_ids) for trial in found.refits]
    if found.teachers:
        results["teachers"] = [trial_json(trial, 1, run_ids) for trial in found.teachers]
    return results


def trial_json(trial: TrialRecord, objectives: int, run_ids: Mapping[str, str]) -> JsonObject:
    """Return a trial as in DESIGN 5; `objectives` is the sweep's number of objectives."""
    asked = trial.group.asked
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
    if (spread := trial.group.spread) is not None:
        row["spread"] = spread
    if trial.group.dropped is not None:
        row["dropped"] = trial.group.dropped
    if asked.refits is not None:
        row["refits"] = asked.refits.group
    if trial.group.promotions:
        row["promoted_from"] = [event.stage for event, _ in trial.group.promotions]
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
