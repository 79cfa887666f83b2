"""Restore the configuration of a trial from its records in a store. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kdtune.config.key import TRAINER_SEMANTICS, restored
from kdtune.config.trial import TrialConfig
from kdtune.errors import DamageError, KdtuneError, StoreError
from kdtune.parse import JsonObject
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json
from kdtune.store.seal import REMEDY


@dataclass(frozen=True)
class RecordedTrial:
    """A trial as its config.json records it."""

    files: TrialFiles
    identity: JsonObject
    """The content of the trial's key (config.key.identity)."""
    config: TrialConfig
    """The configuration with its teacher and start; `data.root` is where the videos were when it was trained."""
    needs: tuple[RecordedTrial, ...] = ()
    """Its teacher and its start, if it has them."""

    def lineage(self) -> Iterator[RecordedTrial]:
        """Yield this trial and all trials that it learned or started from."""
        yield self
        for other in self.needs:
            yield from other.lineage()


def recorded_trial(store: StoreFiles, key: str) -> RecordedTrial:
    """Return the trial `key` of `store`.

    Raises StoreError if it was not begun or is of another version of the trainer, and DamageError if its records are
    damaged.
    """
    files = store.trial(key).fetch()
    where, identity = str(files.folder), read_json(files.config)
    if identity is None:
        raise StoreError.at(where, "is not a trial that was begun")
    try:
        if "imported" in identity:
            raw = {name: identity[name] for name in ("imported", "student", "clip")}
            config = TrialConfig.model_validate({**raw, "loss": {"target": identity["target"]}})
            return RecordedTrial(files, identity, config)
        if identity["semantics"] != TRAINER_SEMANTICS:
            raise StoreError.at(where, f"is of semantics {identity['semantics']}", str(TRAINER_SEMANTICS))
        others = {name: recorded_trial(store, identity[name]) for name in ("teacher", "start") if identity[name]}
        configs = {name: other.config for name, other in others.items()}
        if "view" in identity and (teacher := configs.get("teacher")) is not None and teacher.imported is not None:
            pictures = teacher.clip.model_copy(update={"resize": tuple(identity["view"])})
            configs["teacher"] = teacher.model_copy(update={"clip": pictures})
        form = dict(identity["trial"])
        if folder := (read_json(files.data) or {}).get("folder"):
            form["data"] = {**form["data"], "root": folder}
        config = restored(form, configs.get("teacher"), configs.get("start"))
    except KdtuneError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamageError.at(files.config, f"does not hold a trial's configuration; {REMEDY}") from error
    return RecordedTrial(files, identity, config, tuple(others.values()))
