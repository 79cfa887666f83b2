"""Numbers of evaluated videos in each block, from the index of the stored frames, without torch."""

from __future__ import annotations

from typing import Any

from kdtune.clips.dataset import TrialData
from kdtune.clips.store import ClipStore
from kdtune.config.trial import FINETUNE_STAGE
from kdtune.errors import UserError
from kdtune.report.results import config_of, groups_of
from kdtune.store import Store


def videos_of(store: Store, record: dict[str, Any], stage: str) -> dict[str, dict[str, int]]:
    """Return block → {"validation": n, "test": n}, the numbers of videos that are evaluated at `stage`.

    Blocks without a trial and blocks whose frames are no longer in the store are left out.
    """
    sweep = config_of(record)
    stores: dict[str, ClipStore] = {}
    for folder in store.clip_stores():
        try:
            clips, _ = ClipStore.look(folder)
            stores.setdefault(clips.manifest, clips)
        except UserError:  # its index is damaged
            continue
    groups = [group for group, _ in groups_of(store, record)]
    found = {}
    for block in sweep.blocks():
        config = sweep.build(block, sweep.search.controls[0], sweep.search.seeds[0])
        measured = config.finetuned if stage == FINETUNE_STAGE and config.finetuned is not None else config
        keys = [
            k
            for group in groups
            if group["block"] == block.label
            for k in group["keys" if measured is config else "finetuned"]
        ]
        identities = (store.trial(key).identity() for key in keys)
        manifest = next((identity["data"] for identity in identities if identity and "data" in identity), None)
        if manifest in stores:
            try:
                data = TrialData.of(measured, stores[manifest])
            except UserError:  # the store now has the frames of fewer videos than the trials had
                continue
            found[block.label] = {"validation": len(data.validation), "test": len(data.test)}
    return found
