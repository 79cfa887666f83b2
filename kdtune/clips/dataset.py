"""The part of a ClipStore that one trial uses: training videos in the one order, validation and test videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdtune.clips.frames.store import ClipStore, usable
from kdtune.clips.order import fraction_size, one_order, validation_rows
from kdtune.clips.tuples import PRETEXT_CLASSES
from kdtune.config.trial import TrialConfig
from kdtune.errors import DataError, Problem
from kdtune.parse import JsonObject


@dataclass(frozen=True)
class TrialData:
    """Rows are positions in the ClipStore's index; a *sample* is a position in the one order."""

    clips: ClipStore
    order: np.ndarray  # (N,) rows of all training videos in the one order, at any fraction; see data.train_on
    size: int  # number of them that the trial trains on: samples 0 … size − 1
    validation: np.ndarray  # (V,) rows; the test rows where data.validation is 0
    test: np.ndarray  # (W,) rows
    lengths: np.ndarray  # frame count of every row of the store
    labels: np.ndarray  # action label of every row of the store
    actions: tuple[str, ...]  # the labels' names
    classes: int  # number of classes of the head: the pretext labels, or the actions

    @property
    def train(self) -> np.ndarray:
        """(size,) rows of the trial's training videos."""
        return self.order[: self.size]

    @property
    def validation_is_test(self) -> bool:
        """Whether validation is the test list."""
        return np.array_equal(self.validation, self.test)

    @property
    def videos(self) -> dict[str, int]:
        """Number of videos by use."""
        return {"training": self.size, "validation": len(self.validation), "test": len(self.test)}

    def record(self, folder: str) -> JsonObject:
        """Return the record for people and MLflow: the folder, the number of videos by use, and the actions."""
        return {"folder": str(Path(folder).absolute()), "videos": self.videos, "actions": list(self.actions)}

    @classmethod
    def of(cls, config: TrialConfig, clips: ClipStore) -> TrialData:
        """Return the data of the trial `config`. Raises DataError where too few videos are left for any use."""
        index = usable(clips, config.frames_needed)
        train = index[index["split"] != "test"]
        held_out = validation_rows(train, config.data, given=bool((clips.index["split"] == "val").any()))
        test = index.index[index["split"] == "test"].to_numpy()
        pool = train if config.data.train_on == "all" else train[~held_out]
        order = one_order(pool, config.data.subset_seed).index.to_numpy()
        data = cls(
            clips=clips,
            order=order,
            size=fraction_size(len(order), config.data.fraction),
            validation=train.index[held_out].to_numpy() if config.data.validation > 0 else test,
            test=test,
            lengths=clips.index["frames"].to_numpy(),
            labels=clips.index["label"].to_numpy(),
            actions=clips.actions,
            classes=PRETEXT_CLASSES if config.loss.target == "pretext" else len(clips.actions),
        )
        where = f"data (fraction {config.data.fraction:g})"
        problems = []
        if data.size < 2:
            problems.append(Problem(where, f"training needs at least 2 videos, but {data.size} is left"))
        for name, rows in (("validation", data.validation), ("test", data.test)):
            if len(rows) == 0 and (name == "test" or config.data.validation > 0):
                problems.append(Problem(where, f"no {name} videos are left: more groups or longer videos are needed"))
        if problems:
            raise DataError(problems)
        return data
