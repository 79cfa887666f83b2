"""Prepared data sets of trials. They determine the trials' keys and show which settings do not fit the data.

torch is imported only to check an imported head: a sweep that finds every trial in the store runs without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdtune.clips.dataset import TrialData
from kdtune.clips.frames.store import ClipStore
from kdtune.clips.summary import Summary, summary_of
from kdtune.config.key import ManifestOf, digest, trial_key
from kdtune.config.schedules import largest
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import ConfigError, DamageError, DataError, Problem, StoreError
from kdtune.store import StoreFiles, TrialFiles
from kdtune.train.soundness import read_result


def source_id(data: DataConfig, clip: ClipConfig) -> str:
    """Return a session-wide name of a data set at a frame size and tier, without reading its videos.

    Uses the folder as written in the configuration: workers on other machines have other working directories.
    """
    fields = data.model_dump(include={"dataset", "lists", "split"})
    quality = None if clip.tier == "raw" else clip.quality
    return digest(
        {**fields, "folder": data.folder, "size": list(clip.stored_size), "tier": clip.tier, "quality": quality}
    )


def data_sets(configs: Iterable[TrialConfig]) -> list[TrialConfig]:
    """Return one trial for each stored data set that `configs` and the trials that they need read."""
    parts = (part for config in configs for part in config.lineage() if part.imported is None)
    return list({source_id(part.data, part.clip): part for part in parts}.values())


@dataclass
class Prepared:
    """Prepared data sets and the store. Small and picklable: every worker gets a copy."""

    store: StoreFiles
    folders: dict[str, str] = field(default_factory=dict)
    """source_id → folder of the ClipStore."""
    _opened: dict[str, ClipStore] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_opened": {}}  # memory maps cannot be pickled

    def prepare(self, config: TrialConfig) -> None:
        """Make the ClipStores that `config` and its teachers need, and a missing synthetic data set.

        Raises DataError if the data cannot be read.
        """
        # Imported here: workers find their clips prepared and need no video decoder.
        from kdtune.clips.frames.build import prepare_clips
        from kdtune.clips.synthetic import make_synthetic

        for part in config.lineage():
            source = source_id(part.data, part.clip)
            if part.imported is None and source not in self.folders:
                if part.data.dataset == "synthetic" and not Path(part.data.folder).exists():
                    make_synthetic(Path(part.data.folder))
                self.folders[source] = str(prepare_clips(part.data, part.clip, self.store).folder)

    def summary(self, part: TrialConfig) -> Summary:
        """Return the summary of a trial's data set, with exact counts once its frames are prepared.

        Raises DataError if the data set cannot be read.
        """
        clips = self.clips(part) if source_id(part.data, part.clip) in self.folders else None
        return summary_of(part.data, part.frames_needed, self.store, clips)

    def problems(self, config: TrialConfig) -> list[Problem]:
        """Return the problems of a prepared trial: a head that does not fit, too few videos, a missing import."""
        found: list[Problem] = []
        for part in self._incomplete_parts(config):
            if part.imported is not None:
                found += self.import_problems(part)
                continue
            try:
                TrialData.of(part, self.clips(part))
            except DataError as error:
                found += error.problems
            if part.distils and part.teacher is not None and largest(part.loss.lambda_) > 0:
                found += self._head_problems(part, part.teacher)
        return list(dict.fromkeys(found))

    def _incomplete_parts(self, config: TrialConfig) -> Iterator[TrialConfig]:
        """Yield the trials of the lineage to be trained. A complete trial no longer needs its teacher or start."""
        if not self._is_complete(config):
            yield config
            for other in config.needs:
                yield from self._incomplete_parts(other)
        finetuned = config.finetuned
        if finetuned is not None and not self._is_complete(finetuned):
            yield finetuned  # it starts from this trial
            if config.finetuned_teacher is not None:
                yield from self._incomplete_parts(config.finetuned_teacher)

    def _is_complete(self, config: TrialConfig) -> bool:
        """Return whether the trial has an undamaged result."""
        try:
            return read_result(self.files(config).fetch()) is not None
        except DamageError:
            return False

    def _head_problems(self, config: TrialConfig, teacher: TrialConfig) -> list[Problem]:
        """Return the problem of a teacher whose head has other classes: the loss compares logits class by class."""
        own = self.clips(config).actions
        files = self.files(teacher)
        if teacher.imported is not None and self._is_complete(teacher):
            from kdtune.train.checkpoint import trained_weights

            try:
                head = trained_weights(files.fetch(files.checkpoint)).get("head.bias")
            except StoreError as error:
                return error.problems
            wanted, got = TrialData.of(config, self.clips(config)).classes, 0 if head is None else len(head)
            if got != wanted:
                what = f"{teacher.imported} has {got or 'no'} logits, its student {wanted}"
                return [Problem("teacher.imported", what, "lambda: 0 with beta or gamma; or a start instead")]
        elif teacher.imported is None and config.loss.target == "action" and own != self.clips(teacher).actions:
            its = self.clips(teacher).actions
            what = f"the teacher knows {len(its)} actions {_first(its)}, its student learns {len(own)} {_first(own)}"
            return [Problem("teacher", f"{what}: with lambda > 0 they must be the same")]
        return []

    def import_problems(self, config: TrialConfig) -> list[Problem]:
        """Return the problem of an import that the store lacks. Call it only for one that is missing."""
        clip = config.clip
        what = (
            f"{config.imported} is not in {self.store.root} for {config.architecture} at {clip.frames} frames of "
            f"{clip.size}², {clip.modality}; import it with `kdtune teacher import`, or describe here what it is"
        )
        return [Problem("imported", what)]

    def clips(self, config: TrialConfig) -> ClipStore:
        """Return the open ClipStore of the trial's own data set, which must be prepared."""
        source = source_id(config.data, config.clip)
        if source not in self._opened:
            self._opened[source] = ClipStore.open(self.store.fetch_clips(Path(self.folders[source])))
        return self._opened[source]

    def view_clips(self, config: TrialConfig) -> ClipStore | None:
        """Return the ClipStore from which the teacher sees the trial's samples; None if it is the trial's own."""
        view = config.view
        return None if view is None or view.clip.stored_size == config.clip.stored_size else self.clips(view)

    def key(self, config: TrialConfig) -> str:
        """Return the trial's key in the store."""
        return trial_key(config, self.manifest_of(config))

    def manifest_of(self, config: TrialConfig) -> ManifestOf:
        """Return the lookup data set → manifest for the lineage. Raises ConfigError if one data set has two."""
        manifests: dict[DataConfig, str] = {}
        seen: dict[tuple[Any, ...], str] = {}
        for part in config.lineage():
            if part.imported is None:
                data, manifest = part.data, self.clips(part).manifest
                manifests[data] = manifest
                if seen.setdefault((data.dataset, data.folder, data.lists, data.split), manifest) != manifest:
                    what = "trial, teacher, start and fine-tuning must see the same videos in one tier and quality"
                    raise ConfigError.at("clip.tier", what, "say it in the trial; the others inherit it")
        return manifests.__getitem__

    def files(self, config: TrialConfig) -> TrialFiles:
        return self.store.trial(self.key(config))


def _first(names: tuple[str, ...]) -> str:
    return f"({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
