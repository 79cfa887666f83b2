"""Compare a trial with the number of its videos: which of its settings need more than there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kdtune.clips.layout.names import counted
from kdtune.clips.order import fraction_size, validation_rows
from kdtune.config.sections import DataConfig
from kdtune.config.trial import TrialConfig

#: Validation videos below which one of them weighs 2.5 points, and half as many, which suffice with so many seeds.
ENOUGH, ENOUGH_WITH_SEEDS, SEEDS = 40, 20, 5
#: Shares of the training list to suggest for validation.
SHARES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


@dataclass(frozen=True)
class Mend:
    """A better value of one setting."""

    path: str
    value: Any
    fits: Callable[[Any], bool]
    """Whether another value of this setting would do as well."""


@dataclass(frozen=True)
class Shortage:
    """What a check finds."""

    seen: str
    why: str
    mends: tuple[Mend, ...]
    """Empty where only more videos help."""


@dataclass(frozen=True)
class Videos:
    """The videos that a trial has."""

    train: pd.DataFrame
    """The training list with validation; columns of the catalog."""
    training: int
    """Videos that the trial trains on, at its fraction."""
    pool: int
    """Training videos at a fraction of 1."""
    validation: int
    classes: int

    @classmethod
    def of(cls, data: DataConfig, rows: pd.DataFrame) -> Videos:
        """Count the videos of `rows`, a catalog, as `data` splits them."""
        train = rows[rows["split"] != "test"]
        carved = carved_videos(train, data, data.validation)
        pool = len(train) if data.train_on == "all" else len(train) - carved
        return cls(train, fraction_size(pool, data.fraction), pool, carved, rows["label"].nunique())


def shortages(config: TrialConfig, videos: Videos, seeds: int, *, compared: bool = True) -> Iterator[Shortage]:
    """Yield what is wrong with a trial on `videos`, in a sweep with this number of seeds.

    `compared` says whether candidates are compared on the trial's validation videos.
    """
    if videos.pool == 0:
        return  # the sweep refuses it
    if (found := _fraction(config, videos)) is not None:
        yield found  # a larger fraction may mend the others
        return
    for check in (_negatives, _batch, _neighbors):
        if (found := check(config, videos)) is not None:
            yield found
    if compared and (found := _validation(config, videos, seeds)) is not None:
        yield found


def _fraction(config: TrialConfig, videos: Videos) -> Shortage | None:
    """Check that a fraction leaves a video of each class, and a batch."""
    fraction, needed = config.data.fraction, min(videos.pool, max(videos.classes, config.optimizer.batch))
    if fraction == 1 or videos.training >= needed:
        return None
    least = min(1.0, -(-100 * needed // videos.pool) / 100)
    seen = f"data.fraction {fraction:g} of {videos.pool:,} training videos is {counted(videos.training, 'video')}"
    why = f"there are {videos.classes} classes, and a batch has {config.optimizer.batch}"
    return Shortage(seen, why, (Mend("data.fraction", least, lambda value: value >= least),))


def _negatives(config: TrialConfig, videos: Videos) -> Shortage | None:
    """Check that the memory bank holds more videos than are drawn from it."""
    loss, count = config.loss, videos.training
    if loss.target != "pretext" or loss.alpha == 0 or loss.contrast != "memory_bank" or loss.negatives <= count:
        return None
    seen = f"loss.negatives is {loss.negatives:,}, but there are only {counted(count, 'training video')}"
    why = f"the same negatives are drawn again and again, and one in {count:,} is the video itself"
    fewer = 1 << (max(1, count // 2).bit_length() - 1)
    if fewer < 64:
        return Shortage(seen, why, (Mend("loss.contrast", "in_batch", lambda value: value == "in_batch"),))
    return Shortage(seen, why, (Mend("loss.negatives", fewer, lambda value: value <= count),))


def _batch(config: TrialConfig, videos: Videos) -> Shortage | None:
    """Check that an epoch has more than one step."""
    batch, count = config.optimizer.batch, videos.training
    if batch <= count:
        return None
    fewer = max(2, 1 << (max(1, count // 2).bit_length() - 1))
    seen = f"optimizer.batch is {batch:,}, but there are only {counted(count, 'training video')}"
    why = "an epoch is a single step on all of them"
    return Shortage(seen, why, (Mend("optimizer.batch", fewer, lambda value: value <= count),))


def _neighbors(config: TrialConfig, videos: Videos) -> Shortage | None:
    """Check that a class has as many training videos as vote in k-NN."""
    neighbors, each = config.evaluation.neighbors, videos.training / videos.classes
    if neighbors == 1 or neighbors <= each:
        return None
    seen = f"evaluation.neighbors is {neighbors:,}, but a class has only {each:.3g} training videos on average"
    most = max(1, int(each / 2))
    mend = Mend("evaluation.neighbors", most, lambda value: value <= each)
    return Shortage(seen, "videos of other classes outvote the right one", (mend,))


def _validation(config: TrialConfig, videos: Videos, seeds: int) -> Shortage | None:
    """Check that validation can tell candidates apart."""
    count, share = videos.validation, config.data.validation
    if share == 0 or count >= ENOUGH or (count >= ENOUGH_WITH_SEEDS and seeds >= SEEDS):
        return None
    if count == 0:
        seen = f"no group of videos is small enough for data.validation {share:g}"
        return Shortage(seen, "no video is left to choose by", (_by_videos(),))
    sizes = {share: count} | {
        larger: carved_videos(videos.train, config.data, larger) for larger in SHARES if larger > share
    }
    enough = next((larger for larger, size in sizes.items() if size >= ENOUGH), None)
    with_seeds = next((larger for larger, size in sizes.items() if size >= ENOUGH_WITH_SEEDS), None)
    larger = enough or with_seeds or share  # half of the videos for validation is no gain if it is not enough
    mends = [_share(larger)] if larger > share else []
    mends += [_seeds()] if enough is None and with_seeds is not None and seeds < SEEDS else []
    seen = f"validation has {counted(count, 'video')}: one is {100 / count:.1f} points"
    why = "candidates that differ by less than a few videos cannot be told apart"
    return Shortage(seen, why, tuple(mends))


def _share(share: float) -> Mend:
    return Mend("data.validation", share, lambda value: value >= share)


def _seeds() -> Mend:
    return Mend("search.seeds", list(range(SEEDS)), lambda value: False)


def _by_videos() -> Mend:
    return Mend("data.carve", "videos", lambda value: value == "videos")


def carved_videos(train: pd.DataFrame, data: DataConfig, share: float) -> int:
    """Return the number of a training list's validation videos: its own, or those that a share carves."""
    if train.empty or share == 0:
        return 0
    given = bool((train["split"] == "val").any())
    return int(validation_rows(train, data.model_copy(update={"validation": share}), given=given).sum())
