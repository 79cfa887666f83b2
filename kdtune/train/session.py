"""From a configuration to a trained trial in the store: its data, its teacher first, its lock, its failures."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kdtune.clips.dataset import TrialData
from kdtune.clips.store import ClipStore
from kdtune.config.key import ManifestOf, digest, identity, trial_key
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import KdtuneError, Problem, ResourceError
from kdtune.store import Store, TrialFiles, write_json
from kdtune.train.targets import Targets
from kdtune.train.trial import train_trial


def source_id(data: DataConfig, clip: ClipConfig) -> str:
    """Names a data set at a frame size within one session, before its videos are looked at.

    By the folder as it is written: a worker on another machine has another working directory.
    """
    fields = data.model_dump(include={"dataset", "lists", "split"})
    return digest({**fields, "folder": data.folder, "size": list(clip.stored_size)})


@dataclass
class Session:
    """Prepared data sets and the store. Small and picklable: workers get a copy."""

    store: Store
    folders: dict[str, str] = field(default_factory=dict)
    """source_id → folder of the ClipStore."""
    _opened: dict[str, ClipStore] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "folders": self.folders, "_opened": {}}  # memory maps stay here

    def prepare(self, config: TrialConfig) -> None:
        """Make the ClipStores that `config` and its teachers need; a missing synthetic data set is made, too."""
        # Imported here: workers find their clips prepared, and need no video decoder.
        from kdtune.clips.build import prepare_clips
        from kdtune.clips.synthetic import make_synthetic

        if source_id(config.data, config.clip) not in self.folders:
            if config.data.dataset == "synthetic" and not Path(config.data.folder).exists():
                make_synthetic(Path(config.data.folder))
            clips = prepare_clips(config.data, config.clip, self.store)
            self.folders[source_id(config.data, config.clip)] = str(clips.folder)
        if config.teacher is not None:
            self.prepare(config.teacher)

    def clips(self, config: TrialConfig) -> ClipStore:
        source = source_id(config.data, config.clip)
        if source not in self._opened:
            self._opened[source] = ClipStore.open(Path(self.folders[source]))
        return self._opened[source]

    def key(self, config: TrialConfig) -> str:
        return trial_key(config, self._manifest_of(config))

    def _manifest_of(self, config: TrialConfig) -> ManifestOf:
        chain = [config]
        while chain[-1].teacher is not None:
            chain.append(chain[-1].teacher)
        return {part.data: self.clips(part).manifest for part in chain}.__getitem__

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
            files.clear_failure()
            targets = None
            try:
                data = TrialData.of(config, self.clips(config))
                if config.distils and config.teacher is not None:
                    for _ in self.trial(config.teacher, device):
                        pass
                    targets = Targets(config, self.key(config.teacher), data, self.store, device)
                write_json(files.config, identity(config, self._manifest_of(config)))
                yield from train_trial(config, data, targets, files, device)
            except Exception as error:
                files.write_failure(plain_words(error))
                raise


def plain_words(error: BaseException) -> str:
    """An error as one line for people; for one that kdtune did not foresee, with the place where it happened."""
    if isinstance(error, KdtuneError):
        return str(error).strip()
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def choose_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" → a device that is there. Raises ResourceError for one that is not."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError([Problem("--device", "got cuda, but torch sees no GPU", "cpu, auto")])
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
