"""Numbers of evaluated videos in each block, as the block's trials recorded them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import PositiveInt

from kdtune.config.trial import FINETUNE_STAGE
from kdtune.history.rows import parsed
from kdtune.history.sweep import SweepHistory
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json
from kdtune.store.seal import passed_over

#: Block → split → number of evaluated videos.
Videos = Mapping[str, Mapping[str, int]]
#: Maximum number of trials of a block whose records are looked at.
LOOKED = 8


@dataclass(frozen=True)
class _Counts:
    validation: PositiveInt
    test: PositiveInt


@dataclass(frozen=True)
class _DataRecord:
    """The fields of data.json that a sweep needs."""

    videos: _Counts


def videos_of(store: StoreFiles, history: SweepHistory) -> dict[str, dict[str, int]]:
    """Return block → {"validation": n, "test": n}, the numbers of videos that are evaluated at the metric's stage.

    All trials of a block are evaluated on the same videos: the first one that recorded their number tells it, a control
    if possible. Blocks without such a trial are left out.
    """
    tuned = history.metric.stage == FINETUNE_STAGE
    controls = [group.asked for block in history.blocks.values() for group in block.first_control()]
    store.fetch_trials(key for asked in controls for key in asked.every_key)
    found = {}
    for label, block in history.blocks.items():
        groups = itertools.chain(block.first_control(), block.candidates.values())
        keys = (key for group in groups for key in (group.asked.finetuned if tuned else group.keys) or group.keys)
        records = (_counts(store.trial(key)) for key in itertools.islice(keys, LOOKED))
        counts = next((counts for counts in records if counts is not None), None)
        if counts is not None:
            found[label] = {"validation": counts.validation, "test": counts.test}
    return found


def _counts(files: TrialFiles) -> _Counts | None:
    """Return the counts in a trial's data.json; None if it is missing or damaged."""

    def read() -> _Counts | None:
        record = read_json(files.data)
        return None if record is None else parsed(_DataRecord, record, files.data).videos

    return passed_over(read, None)
