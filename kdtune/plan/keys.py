"""Keys of trials before a sweep prepares their data, as far as the store's records tell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdtune.clips.frames.build import find_clips
from kdtune.config.key import TRAINER_SEMANTICS, folder_key
from kdtune.config.trial import TrialConfig
from kdtune.train.prepared import Prepared, source_id


class Keys:
    """Return trials' keys. A trial whose data are not prepared gets a key that no trial of the store has."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.missing: dict[str, str] = {}
        """source_id → folder of the data sets that are not prepared."""
        self.identities: dict[str, Mapping[str, Any]] = {}
        """Key → identity (config.key) of the store's trials that this version could have made."""
        for files in prepared.store.trials():
            identity = files.identity() or {}
            if "imported" in identity or identity.get("semantics") == TRAINER_SEMANTICS:
                self.identities[files.key] = identity
        self._manifests: set[str] = set()

    def of(self, config: TrialConfig) -> str:
        if not self._prepared(config):
            return folder_key(config)
        self._manifests.update(self.prepared.clips(part).manifest for part in config.lineage() if not part.imported)
        return self.prepared.key(config)

    @property
    def may_be_found(self) -> bool:
        """Whether the store holds a trial on any of the data sets that `of` has seen."""
        return any(identity.get("data") in self._manifests for identity in self.identities.values())

    def _prepared(self, config: TrialConfig) -> bool:
        """Return whether all data sets of the trial's lineage are prepared. Looks for each only once."""
        folders = self.prepared.folders
        sources = {source_id(p.data, p.clip): p for p in config.lineage() if p.imported is None}
        for source, part in sources.items():
            if source not in folders and source not in self.missing:
                clips = find_clips(part.data, part.clip, self.prepared.store)
                if clips is None:
                    self.missing[source] = part.data.folder
                else:
                    folders[source] = str(clips.folder)
        return self.missing.keys().isdisjoint(sources)
