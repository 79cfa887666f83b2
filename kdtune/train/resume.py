"""Resume a trial from its last checkpoint that is intact, its own and consistent with its rows; else from the start.

A checkpoint also holds the rows of its epochs, so it can restore a missing or damaged file of rows. One note reports
everything that was wrong.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from kdtune.errors import DamageError, StoreError
from kdtune.store import TrialFiles
from kdtune.store.contents import EpochRecord
from kdtune.store.files import write_atomic, write_jsonl
from kdtune.train.checkpoint import ADVICE, StateDict, out_of_memory, read_checkpoint, weights_in
from kdtune.train.profile import state_digest
from kdtune.train.soundness import missing, read_rows
from kdtune.train.state import PARTS, PLAIN, TrialState

log = logging.getLogger(__name__)


def resume(
    fresh: Callable[[], TrialState], files: TrialFiles, stages: Iterable[str], origins: dict[str, str]
) -> TrialState:
    """Return the state from which the trial resumes, and make epochs.jsonl hold the rows of its epochs, once each.

    Args:
        fresh: makes the state before the first step.
        stages: the trial's stages in order; their checkpoints serve if the last two are damaged.
        origins: SHA-256 of the weights of its teacher and start. A checkpoint that learned from others is dropped.

    Raises StoreError if another version wrote a checkpoint, or the disk cannot be read.
    """
    rows, wrong = _sound_rows(files)
    candidates = {"": files.checkpoint, "the previous checkpoint": files.checkpoint_before}
    candidates |= {f"stage {name}": files.stage_checkpoint(name) for name in reversed(list(stages))}
    resumed_from, state = "the start", None
    for name, place in candidates.items():
        if not place.exists():
            continue
        try:
            parts = _checked(place, files, origins)
        except DamageError as error:
            wrong += [str(problem).removesuffix(f"; {ADVICE}") for problem in error.problems]
            continue
        resumed_from, state = name, _restored(fresh(), parts, place)
        if place == files.checkpoint_before:
            # The next save moves the last checkpoint to this place: it must not be the damaged one.
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
        wrong.append(f"{files.epochs}: {lacking or 'differs from what was written'}")
    if wrong:
        then = f"resuming from {resumed_from}" if resumed_from else "its rows are restored from the checkpoint"
        log.warning(f"{'; '.join(dict.fromkeys(wrong))}; {then}")
    if wrong or rows != state.rows:
        write_jsonl(files.epochs, state.rows)
    state.origins = origins
    return state


def _sound_rows(files: TrialFiles) -> tuple[list[EpochRecord], list[str]]:
    """Return the rows of epochs 1, 2, … up to the first gap, and the problems of the file."""
    try:
        return read_rows(files), []
    except DamageError as error:
        wrong = [str(problem) for problem in error.problems]
    try:
        read = files.rows()
    except StoreError:
        return [], wrong
    sound: list[EpochRecord] = []
    for row in read:
        if row["epoch"] != len(sound) + 1:
            break
        sound.append(row)
    return sound, wrong


def _checked(place: Path, files: TrialFiles, origins: dict[str, str]) -> StateDict:
    """Return the parts of a checkpoint that belongs to this trial and fits the rows in it.

    Raises DamageError if it does not, and StoreError if another version wrote it.
    """
    parts = read_checkpoint(place)

    def refuse(what: str) -> DamageError:
        return DamageError.at(place, what)

    if not isinstance(parts, dict) or not isinstance(parts.get("epoch"), int):
        raise refuse("is not a trial's checkpoint")
    if absent := {*PLAIN, *PARTS, "progress", "trial"} - set(parts):
        what = f"another version wrote the checkpoint: it has no {', '.join(sorted(absent))}; {ADVICE}"
        raise StoreError.at(place, what)
    if parts["trial"] != files.key:
        raise refuse(f"is the checkpoint of another trial, {parts['trial'][:12]}…")
    if parts["origins"] != origins:
        raise refuse("the checkpoint learned from other weights than its teacher or start now has")
    epoch, rows = parts["epoch"], parts["rows"]
    if lacking := missing([row["epoch"] for row in rows], epoch):
        raise refuse(lacking)
    if epoch > 0 and parts["progress"]["losses"] is None:  # otherwise its state is ahead of that row
        last = rows[-1]
        if last["samples_sha256"] != parts["samples"]:
            raise refuse(f"the checkpoint has seen other samples than the row of epoch {epoch} says")
        if "weights_sha256" in last and last["weights_sha256"] != state_digest(weights_in(parts, place)):
            raise refuse(f"the checkpoint holds other weights than the row of epoch {epoch} names")
    return parts


def _restored(state: TrialState, parts: StateDict, place: Path) -> TrialState:
    try:
        state.restore(parts)
    except (KeyError, ValueError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise StoreError.at(place, f"the checkpoint does not fit the trial's network; {ADVICE}") from error
    return state
