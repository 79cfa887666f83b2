"""How long trials of a shape take, by what the store holds: the rows of such trials, and what `plan --measure` left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from kdtune.clips.dataset import TrialData
from kdtune.clips.machine import processor
from kdtune.clips.order import fraction_size
from kdtune.config.key import canonical
from kdtune.config.trial import TrialConfig
from kdtune.plan.shapes import Form, bank_bytes, shape, stream, videos, watches
from kdtune.store import Store, TrialFiles
from kdtune.store.files import read_json
from kdtune.store.seal import passed_over
from kdtune.train.prepared import Prepared

#: Of a shape so many trials are looked at, the last ones: how fast the machine is now, in a store of any size.
RECENT = 16
#: What a sample takes that only goes forward, as a share of one that is trained on.
FORWARD = 1 / 3


@dataclass(frozen=True)
class Speed:
    """Of one shape on one device."""

    device: str
    """Its name; empty where the trials that tell do not say."""
    sample_s: float
    """Training on a sample."""
    target_s: float
    """A sample's targets, where nobody has computed them."""
    video_s: float
    """A video in an evaluation."""
    checkpoint_bytes: int
    """Without its memory bank."""


@dataclass(frozen=True)
class Scope:
    """What a trial goes through."""

    samples: int
    """In an epoch."""
    evaluated: int
    """Videos of an evaluation: gallery, validation and test."""
    classes: int
    load: float
    """An epoch without evaluation, in samples trained: where the head is measured after it, on validation for the
    schedule or for a best so far, that counts as well."""


class Scopes:
    """What trials go through whose data are prepared. Raises DataError for those with too few videos."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self._data: dict[str, TrialData] = {}

    def manifest(self, config: TrialConfig) -> str:
        return self.prepared.clips(config).manifest

    def of(self, config: TrialConfig, form: Form) -> Scope:
        manifest = self.manifest(config)
        name = videos(form, manifest)
        if name not in self._data:
            self._data[name] = TrialData.of(config, self.prepared.clips(config))
        found = self.recorded(form, manifest)
        assert found is not None
        return found

    def recorded(self, form: Form, manifest: str) -> Scope | None:
        """By a trial's record; None where the sweep has nothing to do with its data."""
        data = self._data.get(videos(form, manifest))
        if data is None:
            return None
        samples = fraction_size(len(data.order), form["data"]["fraction"])
        return Scope(
            samples, replace(data, size=samples).evaluated, data.classes, samples + FORWARD * _heads(form, data)
        )


def _heads(form: Form, data: TrialData) -> float:
    """Samples that the head alone is measured on, on average after an epoch."""
    watched, stage = watches(form), form["stage"]
    due = 1 / stage["every"] if stage.get("between") == "head" else 0.0
    tested = 0 if data.validation_is_test else len(data.test)
    return len(data.validation) * (1.0 if watched else due) + tested * due


def _is_whole(row: Mapping[str, Any]) -> bool:
    """Whether everything was measured after the epoch, rather than the head alone."""
    return "evaluation" in row and any("knn" in figures for figures in row["evaluation"].values())


@dataclass(frozen=True)
class _Trained:
    """A trial of the store with what it went through."""

    files: TrialFiles
    form: Form
    scope: Scope
    device: str
    """Empty where it is not complete, for then nobody has written it down."""


class Speeds:
    """Of every shape that the store can tell of, on devices of one kind."""

    def __init__(self, store: Store, identities: Mapping[str, Mapping[str, Any]], scopes: Scopes, kind: str) -> None:
        self.store, self.scopes, self.kind = store, scopes, kind
        self.trials = {key: identity for key, identity in identities.items() if "trial" in identity}
        self._known: dict[str, Speed | None] = {}
        self._keys: dict[str, list[str]] = defaultdict(list)
        for key, identity in self.trials.items():
            teacher = identities.get(identity["teacher"])
            if teacher is not None or identity["teacher"] is None:
                form = teacher.get("trial", teacher) if teacher is not None else None
                self._keys[shape(identity["trial"], form, kind)].append(key)

    def shape(self, config: TrialConfig) -> str:
        teacher = canonical(config.teacher) if config.distils and config.teacher is not None else None
        return shape(canonical(config), teacher, self.kind)

    def of(self, name: str) -> Speed | None:
        """Of the shape with this digest: from trials of this machine, what was measured on it, or from elsewhere."""
        if name not in self._known:
            trained, noted = self._trained(name), self._noted(name)
            measured = Speed(**noted) if noted is not None else None
            if here := [trial for trial in trained if self._here(trial.device)]:
                self._known[name] = _from_rows(here)
            elif measured is not None and (self._here(measured.device) or not trained):
                self._known[name] = measured
            else:
                self._known[name] = _from_rows(trained) if trained else None
        return self._known[name]

    def _noted(self, name: str) -> dict[str, Any] | None:
        """What `plan --measure` left; None where that is missing, damaged, or of another version."""
        noted = passed_over(lambda: read_json(self.store.measured(name)), None)
        return noted if noted is not None and set(noted) == {field.name for field in fields(Speed)} else None

    def computed(self) -> dict[str, int]:
        """Stream of targets → how many of them the trials that are complete have asked for, so that they are there."""
        found: dict[str, int] = defaultdict(int)
        for key, identity in self.trials.items():
            form, manifest = identity["trial"], identity["data"]
            scope = self.scopes.recorded(form, manifest) if identity["teacher"] is not None else None
            if scope is not None and self.store.trial(key).sound_result() is not None:
                name = stream(form, manifest, identity["teacher"])
                found[name] = max(found[name], form["epochs"] * scope.samples)
        return found

    def _here(self, device: str) -> bool:
        # Which GPU this is nobody can tell without torch: any is taken.
        return device == processor() if self.kind == "cpu" else device != ""

    def _trained(self, name: str) -> list[_Trained]:
        files = [self.store.trial(key) for key in self._keys.get(name, [])]
        begun = sorted((f for f in files if f.epochs.exists()), key=lambda f: f.epochs.stat().st_mtime)
        found = []
        for trial in begun[-RECENT:]:
            identity, profile = self.trials[trial.key], (trial.sound_result() or {}).get("profile")
            scope = self.scopes.recorded(identity["trial"], identity["data"])
            if scope is not None and (profile is None or profile["device_kind"] == self.kind):
                found.append(_Trained(trial, identity["trial"], scope, profile["device"] if profile else ""))
        return [trial for trial in found if trial.files.sound_rows()]


def _from_rows(trained: Sequence[_Trained]) -> Speed:
    """Epochs without evaluation and without targets tell what a sample takes; the others, what comes on top."""
    epochs = [(row, trial.scope) for trial in trained for row in trial.files.sound_rows()]
    unevaluated = [(row, scope) for row, scope in epochs if not _is_whole(row)] or epochs
    plain = [(row, scope) for row, scope in unevaluated if not row.get("targets_computed")] or unevaluated
    sample_s = sum(row["seconds"] for row, _ in plain) / sum(scope.load for _, scope in plain)

    def extra(row: Mapping[str, Any], scope: Scope) -> float:
        return row["seconds"] - sample_s * scope.load

    target_s, video_s = FORWARD * sample_s, 0.0
    if taught := [(row, scope) for row, scope in unevaluated if row.get("targets_computed")]:
        target_s = max(0.0, sum(extra(*epoch) for epoch in taught) / sum(row["targets_computed"] for row, _ in taught))
    if evaluated := [(row, scope) for row, scope in epochs if _is_whole(row)]:
        spent = sum(extra(row, scope) - target_s * row.get("targets_computed", 0) for row, scope in evaluated)
        video_s = max(0.0, spent / sum(scope.evaluated for _, scope in evaluated))
    sizes = [
        trial.files.checkpoint.stat().st_size - bank_bytes(trial.form, trial.scope.samples)
        for trial in trained
        if trial.files.checkpoint.exists()
    ]
    return Speed(trained[-1].device, sample_s, target_s, video_s, max(sizes, default=0))
