"""What MLflow shows of a sweep as a whole, read from its record and its ledger: all its trials, its result in a few
lines, and the students that become models. The driver asks for it when a sweep ends, `publish` whenever it likes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from kdtune.config.space import value_text
from kdtune.store import Store
from kdtune.store.records import ledger_rows, objectives_of, wanted
from kdtune.tracking.record import TrackedTrial
from kdtune.tracking.trials import keys_of, tracked_trial

#: A row of the ledger, or the sweep's record.
Row = dict[str, Any]
#: If two groups share a trial, the later kind wins.
ORDER = ("teacher", "refit", "control", "candidate")
#: MLflow takes letters, digits, `_` and `-` in an alias, this many at most.
NO_ALIAS, ALIAS_LENGTH = r"[^\w-]+", 255


@dataclass(frozen=True)
class TrackedStudent:
    """A complete trial whose student becomes an MLflow model."""

    trial: TrackedTrial
    alias: str | None = None
    """In the model registry: it is the best of a block."""


@dataclass(frozen=True)
class Students:
    """Those of a sweep."""

    wanted: tuple[TrackedStudent, ...] = ()
    register: str | None = None
    """The name under which those with an alias are registered."""


class SweepEnding:
    """A sweep as its files here say it is now. Raises StoreError for an unknown name."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, files = store, store.sweep(name)
        self.record: Row = store.sweep_record(name)
        self.asked: dict[str, Row] = {}
        self.ended: dict[str, Row] = {}
        self._found: dict[str, bool] = {}
        """Was the group's end in the store when this sweep first came to it?"""
        for row in ledger_rows(files.folder / self.record["ledger"]):
            group = row["group"]
            if row["event"] == "asked":
                if group in self.asked and self.asked[group]["keys"] != row["keys"]:
                    self.ended.pop(group, None)
                    self._found.pop(group, None)
                self.asked[group] = row
            else:
                self.ended[group] = row
                self._found.setdefault(group, row["cached"])
        self.asked = {group: row for group, row in self.asked.items() if wanted(row, self.record)}
        self.objective: Row = objectives_of(self.record)[0]

    @property
    def complete(self) -> bool:
        """Has every group ended that the sweep is to have?"""
        candidates = sum(row["kind"] == "candidate" for row in self.asked.values())
        return candidates == sum(self.record["blocks"].values()) and self.asked.keys() <= self.ended.keys()

    # ---- trials ------------------------------------------------------------------------------------------------------

    def trials(self) -> list[TrackedTrial]:
        """Every trial that was begun, as the driver told of it last."""
        rows = sorted(self.asked.values(), key=lambda row: ORDER.index(row["kind"]))
        return [trial for asked in rows for trial in self._trials(asked)]

    def _trials(self, asked: Row) -> list[TrackedTrial]:
        end = self.ended.get(asked["group"])
        state = "running" if end is None else end["state"]
        objective = None if end is None else end["objective"]
        found = [
            tracked_trial(
                self.store,
                asked,
                key,
                state,
                objective,
                cached=self._found.get(asked["group"], False),
                commit=self.record.get("commit"),
            )
            for key in keys_of(asked, "complete" if end is None else state)
        ]
        # What was asked, or would follow, and was not begun has nothing to show.
        return [trial for trial in found if end is not None or trial.files.fetch().sound_rows()]

    # ---- the result --------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Markdown: in each block the best candidate beside its control."""
        objective, blocks = self.objective, list(self.record["blocks"])
        where = "" if objective.get("cost") else f" on {objective['split']} at {objective['stage']}"
        better = "higher" if objective["mode"] == "max" else "lower"
        states = Counter(self._state(row) for row in self.asked.values() if row["kind"] == "candidate")
        counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        lines = [
            f"**{objective['metric']}**{where} ({better} is better)",
            "",
            "| block | control | best candidate | difference |",
            "| --- | --- | --- | --- |",
            *(f"| {block} | {' | '.join(self._block(block))} |" for block in blocks),
            "",
            f"Candidates: {counted or 'none'}.",
        ]
        if self.record.get("refit") and not objective.get("cost"):
            lines += ["", f"Trained again on the whole training list, {objective['metric']} on test:", ""]
            lines += ["| block | control | chosen candidate | difference |", "| --- | --- | --- | --- |"]
            lines += [f"| {block} | {' | '.join(self._refits(block))} |" for block in blocks]
        return "\n".join(lines)

    def _state(self, asked: Row) -> str:
        end = self.ended.get(asked["group"])
        return "not ended" if end is None else end["state"]

    def _block(self, block: str) -> tuple[str, str, str]:
        controls = [value for row in self._controls(block) if (value := self._objective(row)) is not None]
        best = self.best(block)
        control = _figure(fmean(controls), stdev(controls) if len(controls) > 1 else None) if controls else "–"
        if best is None:
            return control, "none is complete", "–"
        end = self.ended[best["group"]]
        values = ", ".join(f"{name} {value_text(value)}" for name, value in best["values"].items() if value is not None)
        shown = f"{_figure(end['objective'], end.get('spread'))}, candidate {best['number']} ({values})"
        return control, shown, f"{end['objective'] - fmean(controls):+.3f}" if controls else "–"

    def _refits(self, block: str) -> tuple[str, str, str]:
        """The same of the refits, whose objective is measured on test."""
        found = [self.refit(row) for row in self._controls(block)]
        controls = [value for row in found if row is not None and (value := self._objective(row)) is not None]
        best = self.best(block)
        again = None if best is None else self.refit(best)
        value = None if again is None else self._objective(again)
        control = _figure(fmean(controls), stdev(controls) if len(controls) > 1 else None) if controls else "–"
        if again is None or value is None:
            return control, "not complete", "–"
        shown = f"{_figure(value, self.ended[again['group']].get('spread'))}, candidate {again['number']}"
        return control, shown, f"{value - fmean(controls):+.3f}" if controls else "–"

    def refit(self, asked: Row) -> Row | None:
        """What trains a control or a candidate again; None where nothing does (yet)."""
        again = (row for row in self.asked.values() if row["kind"] == "refit")
        return next((row for row in again if row["refits"]["group"] == asked["group"]), None)

    def _controls(self, block: str) -> list[Row]:
        """The block's first control, which gains are measured against: a group for each seed."""
        return [row for row in self._groups("control", block) if row["number"] == 0]

    def _groups(self, kind: str, block: str) -> list[Row]:
        return [row for row in self.asked.values() if row["kind"] == kind and row["block"] == block]

    def _objective(self, asked: Row) -> float | None:
        end = self.ended.get(asked["group"])
        return None if end is None or end["state"] != "complete" else end["objective"]

    def best(self, block: str) -> Row | None:
        """The complete candidate with the best objective, of several the first one; the lower number wins a tie."""
        sign = 1 if self.objective["mode"] == "max" else -1
        found = [
            (row, value) for row in self._groups("candidate", block) if (value := self._objective(row)) is not None
        ]
        return max(found, key=lambda both: (sign * both[1], -both[0]["number"]))[0] if found else None

    # ---- models ------------------------------------------------------------------------------------------------------

    def students(self) -> Students:
        """Those that the sweep file asks for, each of a trial's first seed; with a fine-tuning also what that made.

        Where the best of a block was trained again on the whole list, that student takes its place; so of the control.
        """
        tracking = self.record.get("tracking") or {"models": "best", "register": None}
        best = {block: row for block in self.record["blocks"] if (row := self.best(block)) is not None}
        aliases = _aliases(list(self.record["blocks"]))
        by_key: dict[str, TrackedStudent] = {}

        def want(asked: Row, alias: str | None, seeds: int | None = 1) -> None:
            for trial in self._of_seeds(asked, seeds):
                last = trial.key == (asked["finetuned"] or asked["keys"])[0]
                if trial.key not in by_key or (alias is not None and last):
                    by_key[trial.key] = TrackedStudent(trial, alias if last else None)

        if tracking["models"] != "none":
            for block, row in best.items():
                want(self.refit(row) or row, aliases[block])
                for control in self._controls(block)[:1]:
                    want(self.refit(control) or control, None)
        if tracking["models"] == "all":
            for row in self.asked.values():
                want(row, None, seeds=None)
        return Students(tuple(by_key.values()), tracking["register"])

    def _of_seeds(self, asked: Row, seeds: int | None) -> list[TrackedTrial]:
        """The complete trials of the group's first `seeds` seeds, or of all; imported weights are nobody's student."""
        keys = {*asked["keys"][:seeds], *asked["finetuned"][:seeds]}
        found = [trial for trial in self._trials(asked) if trial.key in keys and trial.state == "complete"]
        return [trial for trial in found if "imported" not in (trial.files.identity() or {})]


def _figure(value: float, deviation: float | None) -> str:
    return f"{value:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "")


def _aliases(blocks: list[str]) -> dict[str, str]:
    """Block → `best-…`, a dash for what MLflow refuses; no two blocks share one."""
    found: dict[str, str] = {}
    for block in blocks:
        alias = re.sub(NO_ALIAS, "-", f"best-{block}")[: ALIAS_LENGTH - 8]
        found[block] = alias if alias not in found.values() else f"{alias}-{len(found)}"
    return found
