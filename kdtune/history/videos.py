"""Numbers of evaluated videos in each block, from the index of the stored frames, without torch."""

from __future__ import annotations

from kdtune.clips.dataset import TrialData
from kdtune.clips.frames.store import ClipStore
from kdtune.config.trial import FINETUNE_STAGE
from kdtune.errors import UserError
from kdtune.history.sweep import SweepHistory
from kdtune.store import StoreFiles


def videos_of(store: StoreFiles, history: SweepHistory) -> dict[str, dict[str, int]]:
    """Return block → {"validation": n, "test": n}, the numbers of videos that are evaluated at the metric's stage.

    Blocks without a trial and blocks whose frames are no longer in the store are left out.
    """
    sweep, stage = history.record.sweep(), history.metric.stage
    stores: dict[str, ClipStore] = {}
    for folder in store.clip_stores():
        try:
            clips, _ = ClipStore.look(folder)
            stores.setdefault(clips.manifest, clips)
        except UserError:  # its index is damaged
            continue
    found = {}
    for block in sweep.blocks():
        config = sweep.build(block, sweep.search.controls[0], sweep.search.seeds[0])
        measured = config.finetuned if stage == FINETUNE_STAGE and config.finetuned is not None else config
        asked = [group.asked for group in history.in_order() if group.asked.block == block.label]
        keys = [key for group in asked for key in (group.keys if measured is config else group.finetuned)]
        identities = (store.trial(key).identity() for key in keys)
        manifest = next((identity["data"] for identity in identities if identity and "data" in identity), None)
        if manifest in stores:
            try:
                data = TrialData.of(measured, stores[manifest])
            except UserError:  # the store now has the frames of fewer videos than the trials had
                continue
            found[block.label] = {"validation": len(data.validation), "test": len(data.test)}
    return found
