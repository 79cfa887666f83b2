"""How long a trial takes: seconds per sample, from the records of trials of the same shape or from `plan --measure`.

A trial's work is counted in samples: one that is trained on counts 1, one that only passes forward counts FORWARD.
Dividing a recorded trial's seconds by its work gives its seconds per sample.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from kdtune.clips.machine import processor
from kdtune.clips.tuples import EACH_LABEL_CLIPS
from kdtune.config.shape import Form, shape
from kdtune.errors import DamageError, Problem
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json
from kdtune.store.seal import REMEDY, note_damage, passed_over

#: Work of a sample that only passes forward: without the backward pass, which costs about twice as much.
FORWARD = 1 / 3
#: What reading a record of another form can raise.
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError)
#: Latest trials of a shape that are looked at, which bounds the time for a store of any size.
RECENT = 16


@dataclass(frozen=True)
class Speed:
    """The speed of one shape on one device."""

    device: str
    """The device's name; empty if the trial does not say."""
    sample_s: float
    """Seconds per sample."""
    checkpoint_bytes: int
    """Size of a checkpoint without its memory bank."""


@dataclass(frozen=True)
class Work:
    """What is done to a trial's videos. Evaluations are numbers of epochs after which they happen."""

    epochs: int
    watched: int = 0
    """Validation loss, which the head gives."""
    head: int = 0
    """Evaluations of the head alone, on validation and test."""
    whole: int = 0
    """Evaluations of all metrics, on every video."""
    targets: int = 0
    """Samples whose targets the teacher computes."""

    def samples(self, form: Form, videos: Mapping[str, int]) -> float:
        """Return the work in samples, for a trial's canonical form and its videos as data.json counts them."""
        training, validation, test = videos["training"], videos["validation"], videos["test"]
        evaluated = training + test + (validation if form["data"]["validation"] > 0 else 0)  # else validation is test
        clips = 3 if form["loss"]["target"] == "pretext" else 1  # of a sample
        asked = (EACH_LABEL_CLIPS if form["evaluation"].get("labels") == "each" else clips) / clips
        forward = (self.watched * validation + self.head * (validation + test)) * asked + self.targets
        forward += self.whole * (evaluated * form["evaluation"]["clips"] / clips + (evaluated - training) * asked)
        return self.epochs * training + FORWARD * forward


class Speeds:
    """The speeds of all shapes that a store knows, for devices of one kind ("cpu" or "cuda")."""

    def __init__(self, store: StoreFiles, identities: Mapping[str, Mapping[str, Any]], kind: str) -> None:
        self.store, self.kind = store, kind
        self._known: dict[str, Speed | None] = {}
        self._trials: dict[str, list[tuple[TrialFiles, Form]]] = defaultdict(list)
        for key, identity in identities.items():
            with suppress(*UNREADABLE):  # `kdtune store check` names damaged records
                teacher = identities[identity["teacher"]] if identity["teacher"] is not None else None
                form = teacher.get("trial", teacher) if teacher is not None else None
                self._trials[shape(identity["trial"], form, kind)].append((store.trial(key), identity["trial"]))

    def of(self, name: str) -> Speed | None:
        """Return the speed of the shape with this digest, or None if nobody has measured it.

        The latest trial on this device wins, then what `plan --measure` found, then the latest trial elsewhere.
        """
        if name not in self._known:
            found = self._recorded(name)
            measured = self._measured(name)
            own = [speed for speed in found if self._here(speed)]
            self._known[name] = next(iter([*own, *([measured] if measured is not None else []), *found]), None)
        return self._known[name]

    def _here(self, speed: Speed) -> bool:
        # Naming this machine's GPU needs torch, so any GPU counts as this one.
        return speed.device == processor() if self.kind == "cpu" else speed.device != ""

    def _measured(self, name: str) -> Speed | None:
        """Return what `plan --measure` found; None if that is missing, damaged or of another version."""
        noted = passed_over(lambda: read_json(self.store.measured(name)), None)
        return Speed(**noted) if noted is not None and set(noted) == {field.name for field in fields(Speed)} else None

    def _recorded(self, name: str) -> list[Speed]:
        """Return the speeds of the shape's latest trials, the latest first. A note names damaged records."""
        begun = [(files, form) for files, form in self._trials.get(name, []) if files.epochs.exists()]
        begun.sort(key=lambda trial: trial[0].epochs.stat().st_mtime, reverse=True)
        found = []
        for files, form in begun[:RECENT]:
            try:
                speed = self._speed(files, form)
            except UNREADABLE:
                note_damage(DamageError([Problem(str(files.folder), f"does not tell how fast it was; {REMEDY}")]))
            else:
                found += [speed] if speed is not None else []
        return found

    def _speed(self, files: TrialFiles, form: Form) -> Speed | None:
        rows = files.sound_rows()
        profile = (files.sound_result() or {}).get("profile") or {"device": "", "device_kind": self.kind}
        data = passed_over(lambda: read_json(files.data, ("videos",)), None)
        if not rows or data is None or profile["device_kind"] != self.kind:
            return None
        videos = data["videos"]
        whole = sum(any("knn" in found for found in row.get("evaluation", {}).values()) for row in rows)
        work = Work(
            epochs=len(rows),
            watched=sum("validation" in row for row in rows),
            head=sum("evaluation" in row for row in rows) - whole,
            whole=whole,
            targets=sum(row.get("targets_computed", 0) for row in rows),
        )
        bank = bank_bytes(form, videos["training"])
        size = files.checkpoint.stat().st_size if files.checkpoint.exists() else bank
        seconds = sum(row["seconds"] for row in rows)
        return Speed(profile["device"], seconds / work.samples(form, videos), size - bank)


def bank_bytes(form: Form, samples: int) -> int:
    """Return the size of the memory bank in a checkpoint: two float32 projections of every training video."""
    loss = form["loss"]
    return 2 * 4 * samples * loss["projection"] if loss.get("contrast") == "memory_bank" else 0
