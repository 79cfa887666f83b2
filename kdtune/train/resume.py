"""Where a trial goes on: the last checkpoint that is whole, the trial's own, and fits its rows; else the start.

A checkpoint also holds the rows of its epochs, so that it can restore a file of rows that is missing or damaged. One
note says whatever is not as it should be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kdtune.errors import DamageError, Problem, StoreError
from kdtune.store import TrialFiles
from kdtune.store.files import write_atomic, write_jsonl
from kdtune.train.checkpoint import ADVICE, kept_weights, out_of_memory, read_checkpoint
from kdtune.train.profile import state_digest
from kdtune.train.soundness import Row, missing, read_rows
from kdtune.train.state import PARTS, PLAIN, TrialState


def resume(
    fresh: Callable[[], TrialState], files: TrialFiles, stages: Iterable[str], origins: dict[str, str]
) -> TrialState:
    """Return the state from which the trial goes on. Afterwards epochs.jsonl holds the rows of its epochs, once each.

    Args:
        fresh: makes the state before the first step.
        stages: the trial's stages in their order; their checkpoints serve where the last ones are damaged.
        origins: SHA-256 of the weights of its teacher and its start. A checkpoint that learned from others is dropped.

    Raises StoreError for a checkpoint that another version wrote, and where the disk refuses to be read.
    """
    rows, wrong = _rows(files)
    by_words = {"": files.checkpoint, "the one before": files.checkpoint_before}
    by_words |= {f"stage {name}": files.stage_checkpoint(name) for name in reversed(list(stages))}
    words, state = "the start: it is trained again", None
    for name, place in by_words.items():
        if not place.exists():
            continue
        try:
            parts = _checked(place, files, rows, origins)
        except DamageError as error:
            wrong += [str(problem).removesuffix(f"; {ADVICE}") for problem in error.problems]
            continue
        words, state = name, _restored(fresh(), parts, place)
        state.rows = state.rows or rows[: state.epoch]
        if place == files.checkpoint_before:
            # The next one written makes the last the one before: that must not be the damaged one.
            os.replace(place, files.checkpoint)
        elif place != files.checkpoint:
            write_atomic(files.checkpoint, place.read_bytes())
            files.checkpoint_before.unlink(missing_ok=True)
        break
    if state is None:
        state = fresh()
        for place in (files.checkpoint, files.checkpoint_before):
            place.unlink(missing_ok=True)
    if not wrong and rows[: state.epoch] != state.rows:
        lacking = missing([row["epoch"] for row in rows[: state.epoch]], state.epoch)
        wrong.append(f"{files.epochs}: {lacking or 'is not as it was written'}")
    if wrong:
        then = f"going on from {words}" if words else "the checkpoint has the rows, and they are written again"
        print(f"kdtune: {'; '.join(dict.fromkeys(wrong))}; {then}", file=sys.stderr)
    if wrong or rows != state.rows:
        write_jsonl(files.epochs, state.rows)
    state.origins = origins
    return state


def _rows(files: TrialFiles) -> tuple[list[Row], list[str]]:
    """The rows from the first epoch on as far as each follows the one before, and what is wrong with the file."""
    try:
        return read_rows(files), []
    except DamageError as error:
        wrong = [str(problem) for problem in error.problems]
    try:
        read = files.rows()
    except (ValueError, TypeError, RecursionError, StoreError):
        return [], wrong
    sound: list[Row] = []
    for row in read:
        if not isinstance(row, dict) or row.get("epoch") != len(sound) + 1:
            break
        sound.append(row)
    return sound, wrong


def _checked(place: Path, files: TrialFiles, rows: list[Row], origins: dict[str, str]) -> dict[str, Any]:
    """The parts of a checkpoint that belongs to this trial and fits its rows. Raises DamageError for another."""
    parts = read_checkpoint(place)

    def refuse(what: str) -> DamageError:
        return DamageError([Problem(str(place), what)])

    if not isinstance(parts, dict) or not isinstance(parts.get("epoch"), int):
        raise refuse("is no trial's checkpoint")
    if absent := {*PLAIN, *PARTS, "progress"} - set(parts):
        what = f"the checkpoint is of another version: it has no {', '.join(sorted(absent))}; {ADVICE}"
        raise StoreError([Problem(str(place), what)])
    if parts.get("trial", files.key) != files.key:
        raise refuse(f"is the checkpoint of another trial, {parts['trial'][:12]}…")
    if parts.get("origins", origins) != origins:
        raise refuse("the checkpoint learned from other weights than its teacher or start has now")
    epoch, own = parts["epoch"], parts.get("rows")
    seen = rows[:epoch] if own is None else own
    if lacking := missing([row["epoch"] for row in seen], epoch):
        raise DamageError([Problem(str(files.epochs if own is None else place), lacking)])
    if epoch > 0 and parts["progress"]["losses"] is None:  # else its state is beyond that row
        last = seen[-1]
        if last.get("samples_sha256", parts["samples"]) != parts["samples"]:
            raise refuse(f"the checkpoint has seen other samples than the row of epoch {epoch} says")
        if "weights_sha256" in last and last["weights_sha256"] != state_digest(kept_weights(parts, place)):
            raise refuse(f"the checkpoint holds other weights than the row of epoch {epoch} names")
    return parts


def _restored(state: TrialState, parts: dict[str, Any], place: Path) -> TrialState:
    try:
        state.restore(parts)
    except (KeyError, ValueError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        what = f"the checkpoint does not fit the trial's network; {ADVICE}"
        raise StoreError([Problem(str(place), what)]) from error
    return state
