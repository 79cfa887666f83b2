"""Train a trial again, from scratch or from a stage, and compare it bit for bit with its records in the store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from kdtune.clips.dataset import TrialData
from kdtune.clips.frames.store import ClipStore
from kdtune.config.trial import TrialConfig
from kdtune.errors import DamageError, StoreError, TrialError
from kdtune.parse import JsonObject
from kdtune.store import TARGET_COUNTS, StoreFiles, TrialFiles
from kdtune.store.contents import EpochRecord
from kdtune.store.files import write_atomic, write_jsonl
from kdtune.train.checking.recorded import RecordedTrial, recorded_trial
from kdtune.train.checkpoint import read_checkpoint, trained_weights, weights_in
from kdtune.train.importing.imports import import_trial
from kdtune.train.prepared import source_id
from kdtune.train.profile import profile, profile_changes, state_digest
from kdtune.train.session import Session

#: Fields of a row that depend on when and beside what it was made; all others are compared.
CLOCK = ("seconds", "at", *TARGET_COUNTS)
#: Fields of a row that follow from the configuration and the draws: the same on every machine.
EXACT = ("samples_sha256", "scheduled")
#: The learning rate of the first epoch that is trained. A later one may depend on the losses before it.
FIRST_EXACT = (*EXACT, "lr")
#: The largest relative change of the first epoch's mean loss that rounding explains. Other instruction sets (AVX2,
#: SSE4.1, torch's plain kernels) were seen to change it by up to 0.15 %, another seed changes it by some 3 %.
ROUNDING = 0.01


@dataclass(frozen=True)
class Difference:
    """The first figure that differs. If no other machine can explain a difference, the figure is that one."""

    epoch: int
    figure: str
    """Its path in the row, such as `evaluation.validation.knn`; `weights`, or `training` if the replay failed."""
    was: Any
    is_now: Any
    profile: dict[str, tuple[Any, Any]]
    """Field → (then, now) of each difference between the profiles."""
    fault: str = ""
    """Why no other machine explains the difference; empty if one may."""
    rows: tuple[tuple[EpochRecord, EpochRecord], ...] = field(default=(), repr=False)
    """(was, is now) of each epoch trained again, if the profile differs and the replay trained on; else empty."""
    videos: Mapping[str, int] = field(default_factory=dict, repr=False)
    """Split → number of its videos."""

    def __str__(self) -> str:
        lines = [f"epoch {self.epoch}, {self.figure}: was {self.was!r}, is now {self.is_now!r}"]
        lines += [f"  {self.fault}"] if self.fault and self.profile else []
        lines += [f"  profile, {name}: was {was!r}, is now {now!r}" for name, (was, now) in self.profile.items()]
        return "\n".join(lines if self.profile else [*lines, "  the profile is the same"])


class Replay:
    """Replays trials of one store in a temporary store of its own.

    Trains from scratch, teachers included. With `from_stage`, trains from that stage's checkpoint and copies the
    teachers. A teacher that was trained under another profile is copied, too.
    """

    def __init__(self, store: StoreFiles, device: torch.device, from_stage: str | None = None) -> None:
        self.store, self.device, self.from_stage = store, device, from_stage
        self._folder = tempfile.TemporaryDirectory(prefix="kdtune-replay-")
        self._shared = Session(StoreFiles(tempfile.mkdtemp(dir=self._folder.name)))
        self.session = self._shared
        """The session of the last trial. Trials share one, with its teachers, unless they need copies of others."""

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def trial(
        self, key: str, exact: bool = False, trains_on: Callable[[Difference], object] = lambda _: None
    ) -> Difference | None:
        """Replay the trial `key`; return the first difference, or None if its recorded epochs and weights repeat.

        Stop at the first difference if the profile is the same, or `exact` is set. Under another profile rounding
        differs: call `trains_on` with the first difference, and train to the end of the record, so that the figures
        can be compared.

        Raises StoreError if it cannot be replayed: the key is unknown, the trial was imported or is of another version,
        or the store lacks its frames or the stage's checkpoint.
        """
        recorded = self._restore(key)
        files, config = recorded.files, recorded.config
        result, begin = files.result(), 0
        if self.from_stage is not None:
            self._begin_at(self.from_stage, files, config)
            begin = config.stage_epochs[self.from_stage]
        first: Difference | None = None
        pairs: list[tuple[EpochRecord, EpochRecord]] = []
        epoch, run = 1, self.session.trial(config, self.device)
        try:
            for was, row in zip(files.rows(), run, strict=False):
                epoch = row["epoch"]
                pairs += [(was, row)] if epoch > begin else []
                for figure, a, b in differences(was, row):
                    profiles = self._profiles(files, config) if first is None else first.profile
                    fault = "" if exact else _fault(figure, a, b, first=epoch == begin + 1)
                    found = Difference(epoch, figure, a, b, profiles, fault)
                    if fault or exact or not profiles:
                        run.close()
                        return found if fault or first is None else first
                    if first is None:
                        first = found
                        trains_on(first)
                epoch += 1
            if result is None:
                run.close()  # the recorded trial is incomplete: there is nothing more to compare
            else:
                for _ in run:
                    pass
        except TrialError as error:
            fault = "the recorded trial passed this epoch"
            return Difference(epoch, "training", "trained", str(error), self._profiles(files, config), fault)
        again = self.session.files(config).result()
        if first is None and result is not None and again is not None:
            then, now = result["weights_sha256"], again["weights_sha256"]
            if then != now:
                first = Difference(epoch - 1, "weights", then, now, self._profiles(files, config))
        if first is None or exact or not first.profile:
            return first
        data = TrialData.of(config, self.session.clips(config))
        return replace(first, rows=tuple(pairs), videos=data.videos)

    def _begin_at(self, stage: str, files: TrialFiles, config: TrialConfig) -> None:
        checkpoint = files.stage_checkpoint(stage)
        files.fetch(checkpoint)
        if not checkpoint.exists():
            kept = [name for name in config.stage_epochs if files.has(files.stage_checkpoint(name))]
            what = f"has no checkpoint of a stage {stage!r}"
            raise StoreError.at(files.folder, what, ", ".join(kept) or "replay it from scratch")
        self._check_stage(stage, files, checkpoint)
        again = self.session.files(config)
        write_atomic(again.checkpoint, checkpoint.read_bytes())
        write_jsonl(again.epochs, [row for row in files.rows() if row["epoch"] <= config.stage_epochs[stage]])

    def _check_stage(self, stage: str, files: TrialFiles, checkpoint: Path) -> None:
        """Raise DamageError if the stage's row names other weights than the checkpoint's.

        A replay from such a checkpoint would differ in every later epoch and show nothing about the trial.
        """
        row = next((row for row in files.rows() if row.get("stage") == stage), None)
        if row is None:
            raise DamageError.at(files.epochs, f"has no row of stage {stage}")
        found = state_digest(weights_in(read_checkpoint(checkpoint), checkpoint))
        if found != row["weights_sha256"]:
            what = f"holds the weights {found[:12]}…, but the row of stage {stage} names {row['weights_sha256'][:12]}…"
            raise DamageError.at(checkpoint, f"{what}; replay it from scratch")

    def _restore(self, key: str) -> RecordedTrial:
        """Return a trial of the store, with the clips and the weights of others that training it needs."""
        recorded = recorded_trial(self.store, key)
        where = str(recorded.files.folder)
        if recorded.config.imported is not None:
            raise StoreError.at(where, "was imported, not trained: there is nothing to replay")
        self.session = self._shared
        for part in recorded.lineage():
            if part.config.imported is None:
                self._find_clips(part)
        others = [part for part in recorded.lineage() if part is not recorded]
        imported = [part for part in others if part.config.imported is not None]
        trained = [part for part in others if part.config.imported is None]
        # Trained again under another profile, a teacher would differ, and its student with it.
        copied = trained if self.from_stage is not None else [part for part in trained if self._trained_elsewhere(part)]
        if copied:
            # In the shared store these trials may have been trained again, or would later seem to have been.
            self.session = Session(StoreFiles(tempfile.mkdtemp(dir=self._folder.name)), self._shared.folders)
        for part in [*imported, *copied]:
            import_trial(part.files.fetch(part.files.checkpoint).folder, self.session.store)
        if self.session.key(recorded.config) != recorded.files.key:
            raise StoreError.at(where, "does not hash to its name: config.json was changed")
        return recorded

    def _find_clips(self, part: RecordedTrial) -> None:
        manifest, where = part.identity["data"], str(part.files.folder)
        configs = filter(None, (part.config, part.config.view))
        for source, config in {source_id(config.data, config.clip): config for config in configs}.items():
            self.session.folders[source] = str(self._clips(manifest, config, where))

    def _clips(self, manifest: str, config: TrialConfig, where: str) -> Path:
        def fits(record: JsonObject) -> bool:
            return record["manifest"] == manifest and tuple(record["size"]) == config.clip.stored_size

        for folder in self.store.clip_stores():
            try:
                found = ClipStore.open(folder).record
            except StoreError:  # damaged or of another codec: another folder may still fit
                continue
            if fits(found):
                return folder
        if (copied := self.store.fetch_clips_that(fits)) is not None:
            return copied
        raise StoreError.at(where, "its decoded frames are not in the store; `data prepare` makes them")

    def _trained_elsewhere(self, part: RecordedTrial) -> bool:
        """Return whether a complete trial, whose weights are there, was trained under another profile."""
        files = part.files
        if files.sound_result() is None or not self._profiles(files, part.config):
            return False
        try:
            trained_weights(files.fetch(files.checkpoint))
        except StoreError:  # damaged: it is trained again
            return False
        return True

    def _profiles(self, files: TrialFiles, config: TrialConfig) -> dict[str, tuple[Any, Any]]:
        """Return the differences between the present profile and every profile under which the trial was trained."""
        now, result = profile(config, self.device, self.session.clips(config)), files.result()
        if result is not None:
            earlier = [entry["profile"] for entry in result.get("earlier_profiles", [])]
            then = [*earlier, *([] if result["profile"] is None else [result["profile"]])]
        else:
            then = [entry["profile"] for entry in read_checkpoint(files.checkpoint)["profiles"]]
        return {name: both for was in then for name, both in profile_changes(was, now).items()}


def _fault(figure: str, was: Any, now: Any, *, first: bool) -> str:
    """Return why no other machine explains a difference, or an empty string. `first` is the first trained epoch."""
    if figure.partition(".")[0] in (FIRST_EXACT if first else EXACT):
        return "this is the same on every machine"
    if first and figure == "train.loss" and not (isinstance(was, float) and abs(now - was) <= ROUNDING * abs(was)):
        return f"rounding changes the loss of the first epoch by less than {ROUNDING:.0%}"
    return ""


def differences(was: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, was, is now) for each value that differs between two rows, except the CLOCK fields."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*was, *now]):
            if path or name not in CLOCK:
                yield from differences(was.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif was != now and not (was != was and now != now):  # two NaNs are equal here
        yield path, was, now
