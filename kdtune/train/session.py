"""From a configuration to a trained trial in the store: its data, its teacher first, its lock, its failures."""

from __future__ import annotations

import traceback
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kdtune.clips.dataset import TrialData
from kdtune.clips.store import ClipStore
from kdtune.config.key import ManifestOf, digest, identity, trial_key
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import ConfigError, DataError, KdtuneError, Problem, ResourceError, StoreError
from kdtune.store import Store, TrialFiles, disk_full, disk_full_words, write_json
from kdtune.train.checkpoint import final_weights
from kdtune.train.samples import Kept, Samples
from kdtune.train.targets import Targets
from kdtune.train.trial import train_trial


def source_id(data: DataConfig, clip: ClipConfig) -> str:
    """Names a data set at a frame size and in a tier within one session, before its videos are looked at.

    By the folder as it is written: a worker on another machine has another working directory.
    """
    fields = data.model_dump(include={"dataset", "lists", "split"})
    quality = None if clip.tier == "raw" else clip.quality
    return digest(
        {**fields, "folder": data.folder, "size": list(clip.stored_size), "tier": clip.tier, "quality": quality}
    )


@dataclass
class Session:
    """Prepared data sets and the store. Small and picklable: workers get a copy."""

    store: Store
    folders: dict[str, str] = field(default_factory=dict)
    """source_id → folder of the ClipStore."""
    workers: int = 0
    """Processes of a trial that draw and read its batches ahead. Their number changes no bit."""
    kept: Kept = field(default_factory=Kept)
    """Prepared samples that this process keeps from trial to trial. Whether they are kept changes no bit."""
    _opened: dict[str, ClipStore] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": {}, "kept": Kept(self.kept.budget)}  # memory maps and batches stay here

    def prepare(self, config: TrialConfig) -> None:
        """Make the ClipStores that `config` and its teachers need; a missing synthetic data set is made, too."""
        # Imported here: workers find their clips prepared, and need no video decoder.
        from kdtune.clips.build import prepare_clips
        from kdtune.clips.synthetic import make_synthetic

        for part in config.lineage():
            source = source_id(part.data, part.clip)
            if part.imported is None and source not in self.folders:
                if part.data.dataset == "synthetic" and not Path(part.data.folder).exists():
                    make_synthetic(Path(part.data.folder))
                self.folders[source] = str(prepare_clips(part.data, part.clip, self.store).folder)

    def problems(self, config: TrialConfig) -> list[Problem]:
        """What only data and store can tell of a prepared trial: heads that do not fit, too few videos, no import."""
        found: list[Problem] = []
        for part in self._to_train(config):
            if part.imported is not None:
                found += self._import_problems(part)
                continue
            try:
                TrialData.of(part, self.clips(part))
            except DataError as error:
                found += error.problems
            if part.distils and part.teacher is not None and part.loss.lambda_ > 0:
                found += self._head_problems(part, part.teacher)
        return list(dict.fromkeys(found))

    def _to_train(self, config: TrialConfig) -> Iterator[TrialConfig]:
        """What of the lineage is not complete; a complete trial needs nobody any more."""
        if self.files(config).result() is None:
            yield config
            for other in config.needs:
                yield from self._to_train(other)
        finetuned = config.finetuned
        if finetuned is not None and self.files(finetuned).result() is None:
            yield finetuned  # what it needs is this trial

    def _head_problems(self, config: TrialConfig, teacher: TrialConfig) -> list[Problem]:
        """Logits are compared class by class."""
        own = self.clips(config).actions
        if teacher.imported is not None and self.files(teacher).result() is not None:
            head = final_weights(self.files(teacher).checkpoint).get("head.bias")
            wanted, got = TrialData.of(config, self.clips(config)).classes, 0 if head is None else len(head)
            if got != wanted:
                what = f"{teacher.imported} has {got or 'no'} logits, its student {wanted}"
                return [Problem("teacher.imported", what, "lambda: 0 with beta or gamma; or a start instead")]
        elif teacher.imported is None and config.loss.target == "action" and own != self.clips(teacher).actions:
            its = self.clips(teacher).actions
            what = f"the teacher knows {len(its)} actions {_some(its)}, its student learns {len(own)} {_some(own)}"
            return [Problem("teacher", f"{what}: with lambda > 0 they must be the same")]
        return []

    def _import_problems(self, config: TrialConfig) -> list[Problem]:
        clip = config.clip
        what = (
            f"{config.imported} is not in {self.store.root} for {config.architecture} at {clip.frames} frames of "
            f"{clip.size}², {clip.modality}; import it with `kdtune teacher import`, or say here what it is"
        )
        return [Problem("imported", what)]

    def clips(self, config: TrialConfig) -> ClipStore:
        source = source_id(config.data, config.clip)
        if source not in self._opened:
            self._opened[source] = ClipStore.open(Path(self.folders[source]))
        return self._opened[source]

    def key(self, config: TrialConfig) -> str:
        return trial_key(config, self._manifest_of(config))

    def _manifest_of(self, config: TrialConfig) -> ManifestOf:
        manifests: dict[DataConfig, str] = {}
        seen: dict[tuple[Any, ...], str] = {}
        for part in config.lineage():
            if part.imported is None:
                data, manifest = part.data, self.clips(part).manifest
                manifests[data] = manifest
                if seen.setdefault((data.dataset, data.folder, data.lists, data.split), manifest) != manifest:
                    what = "trial, teacher, start and fine-tuning must see the same videos in one tier and quality"
                    raise ConfigError([Problem("clip.tier", what, "say it in the trial; the others inherit it")])
        return manifests.__getitem__

    def files(self, config: TrialConfig) -> TrialFiles:
        return self.store.trial(self.key(config))

    def trial(self, config: TrialConfig, device: torch.device) -> Generator[dict[str, Any], None, None]:
        """Train `config` to the end, or as long as the caller goes on, yielding its rows (see train_trial).

        A complete trial only yields what it left. One process trains a trial at a time; others wait for it. A failure
        is recorded with its error in plain words, and raised again.
        """
        files = self.files(config)
        with self.store.lock(f"trial-{files.key}"):
            if files.result() is not None:
                yield from files.rows()
                return
            files.clear_leftovers()
            files.clear_failure()
            try:
                if config.imported is not None:
                    raise StoreError(self._import_problems(config))
                data = TrialData.of(config, self.clips(config))
                for other in config.needs:
                    for _ in self.trial(other, device):
                        pass
                samples = Samples(config, data, device, self.workers, self.kept)
                targets = start = None
                if config.distils and config.teacher is not None:
                    targets = Targets(samples, self.key(config.teacher), self.store)
                if config.start is not None:
                    start = final_weights(self.files(config.start).checkpoint)
                write_json(files.config, identity(config, self._manifest_of(config)))
                yield from train_trial(samples, targets, start, files)
            except Exception as error:
                with suppress(OSError):  # a full disk must not hide what went wrong first
                    files.write_failure(plain_words(error))
                raise


def _some(names: tuple[str, ...]) -> str:
    return f"({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"


def plain_words(error: BaseException) -> str:
    """An error as one line for people; for one that kdtune did not foresee, with the place where it happened."""
    if isinstance(error, KdtuneError):
        return str(error).strip()
    if disk_full(error):
        return disk_full_words(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def choose_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" → a device that is there. Raises ResourceError for one that is not."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError([Problem("--device", "got cuda, but torch sees no GPU", "cpu, auto")])
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
