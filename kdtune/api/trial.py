"""One trial of a store as users see it: what it is, how it ended, its student, its features, its replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdtune.errors import DamageError, Problem
from kdtune.store import TrialFiles
from kdtune.store.seal import REMEDY

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from kdtune.api.store import Store
    from kdtune.config.trial import TrialConfig
    from kdtune.history.replayed import Replayed
    from kdtune.history.trials import Stages
    from kdtune.train.measuring.student import Student

State = Literal["complete", "failed", "incomplete"]


@dataclass(frozen=True)
class TrialResult:
    """The result of a complete trial.

    >>> result = kdtune.Store("runs").trial(key).result
    >>> result.epochs, len(result.weights_sha256), result.cost["gmac"] > 0
    (2, 64, True)
    """

    epochs: int
    """Epochs that were trained; 0 for imported weights."""
    stages: Stages
    """Stage → split (`validation`, `test`) → metric → value. Accuracies are shares, losses are in nats."""
    weights_sha256: str
    """SHA-256 of every parameter and buffer, in hex."""
    seconds: float | None
    """Training time in seconds; None for imported weights."""
    cost: Mapping[str, float]
    """Parameters, GMAC, memory and times (kdtune/config/metrics.py says the units); empty where none was measured."""
    profile: Mapping[str, Any]
    """The device and versions that bits depend on."""


@dataclass(frozen=True, repr=False)
class Trial:
    """One candidate with one seed, a teacher, or any other trial of a store. Reads records only when asked.

    >>> trial = kdtune.Store("runs").trial(key)
    >>> trial
    Trial('...', r3d-10 w4, 2 epochs, complete)
    >>> trial.config.student.backbone, trial.config.epochs
    ('r3d', 2)
    >>> sorted(trial.stages)
    ['early', 'late']
    >>> 0.0 <= trial.result.stages["late"]["validation"]["knn"] <= 1.0
    True
    """

    store: Store
    key: str
    """The digest of everything that the trial is made from."""

    def __repr__(self) -> str:
        from kdtune.report.teachers import network_label

        form = self.files.identity() or {}
        student = form.get("student") or (form.get("trial") or {}).get("student")
        parts = [network_label(student)] if student else []
        epochs = len(self.files.sound_rows())
        parts += [f"{epochs} epochs"] if epochs else ["imported"] if "imported" in form else []
        return f"Trial({self.key!r}, {', '.join([*parts, self.state])})"

    @property
    def files(self) -> TrialFiles:
        """The trial's files in the store."""
        return self.store.files.trial(self.key)

    @property
    def state(self) -> State:
        """`complete`, `failed` (the last attempt; `error` says why), or `incomplete`: not begun, running or stopped."""
        files = self.files.fetch()
        if files.sound_result() is not None:
            return "complete"
        return "failed" if files.failure() is not None else "incomplete"

    @property
    def error(self) -> str | None:
        """Reason why the last attempt failed, in plain words; None if it did not."""
        return self.files.fetch().failure()

    @cached_property
    def config(self) -> TrialConfig:
        """The trial's configuration: every setting, teacher and start included.

        Raises StoreError if the trial has not begun or another version made it, and DamageError if its record is
        damaged.
        """
        from kdtune.train.checking.recorded import recorded_trial

        return recorded_trial(self.store.files, self.key).config

    @property
    def stages(self) -> Stages:
        """The stages that the trial has reached: stage → split → metric → value, as in `TrialResult`."""
        return self.files.fetch().stages()

    @property
    def result(self) -> TrialResult | None:
        """The trial's result; None if it is not complete. Raises DamageError if its record is damaged."""
        found = self.files.fetch().result()
        if found is None:
            return None
        try:
            return TrialResult(
                int(found["epochs"]),
                dict(found["stages"]),
                str(found["weights_sha256"]),
                found.get("seconds"),
                dict(found.get("cost") or {}),
                dict(found.get("profile") or {}),
            )
        except (TypeError, ValueError) as error:
            raise DamageError([Problem(str(self.files.result_file), f"holds no trial's result; {REMEDY}")]) from error

    def epochs(self) -> pd.DataFrame:
        """Return one row per epoch, in order, with an index from 0.

        The columns are those of the trial's records with their parts joined by `/`: `epoch` (int64, from 1), `lr`,
        `train/loss` and the loss's terms, `train/pretext_accuracy`, `seconds`, `at` (seconds since 1970), and at a
        stage `stage` (text, else missing) and `evaluation/<split>/<metric>`.

        >>> frame = kdtune.Store("runs").trial(key).epochs()
        >>> frame[["epoch", "stage"]].to_numpy().tolist()
        [[1, 'early'], [2, 'late']]
        >>> frame["train/loss"].dtype
        dtype('float64')
        """
        import pandas as pd

        return pd.json_normalize([dict(row) for row in self.files.fetch().sound_rows()], sep="/")

    def load_student(self) -> Student:
        """Return the trained network as a `torch.nn.Module` on the CPU, in evaluation mode.

        It takes frames as they were decoded, uint8 (B, n, T, H, W, 3), and gives logits (B, classes) in the order of
        its `labels`; `.features(frames)` gives (B, n, F). Other shapes raise ValueError, which states the right one.

        Raises StoreError if the trial is not complete, or its weights are not those that its result names.

        >>> student = kdtune.Store("runs").trial(key).load_student()
        >>> student(torch.zeros(1, 3, 8, 24, 24, 3))
        Traceback (most recent call last):
        ...
        ValueError: frames must be uint8 (B, 3, 8, 24, 24, 3), ..., but got float32 (1, 3, 8, 24, 24, 3)
        """
        from kdtune.train.measuring.student import trained_student

        return trained_student(self.files)

    def features(self, videos: Sequence[str | Path | np.ndarray] | np.ndarray, device: str = "auto") -> np.ndarray:
        """Return the student's features of videos, (N, F) float32, for N videos in their order.

        A row is the mean over the trial's `evaluation.clips` evenly spaced clips of the video: what its k-NN and its
        linear probe are measured on. The same videos give the same bits, whatever torch's settings are.

        Args:
            videos: paths of video files, or arrays of frames, uint8 (T, H, W, 3) RGB at any size; both are resized.
            device: `auto`, `cpu` or `cuda`.

        Raises DataError with every video that cannot be decoded or has fewer frames than `config.clip.frames`,
        StoreError as `load_student` does, and ResourceError for a device that does not exist.

        >>> frames = np.zeros((12, 64, 64, 3), dtype=np.uint8)
        >>> kdtune.Store("runs").trial(key).features([frames, frames]).shape
        (2, 32)
        """
        if isinstance(videos, str | Path):
            raise TypeError(f"videos must be a list of paths or arrays, but got the one path {str(videos)!r}")
        from kdtune.train.measuring.features import video_features
        from kdtune.train.profile import make_deterministic, settings_kept
        from kdtune.train.session import choose_device

        student = self.load_student().to(choose_device(device))
        with settings_kept():
            make_deterministic(self.config)
            return video_features(student, self.config, list(videos))

    def replay(self, device: str = "auto", *, exact: bool = False) -> Replayed | None:
        """Train the trial again from nothing, in a temporary store, and compare every figure and the weights.

        Returns None if all bits are the same. Otherwise `verdict` is DIFFERENT under the same profile; under another
        one, where rounding differs, CONSISTENT if the figures agree within the spread over seeds and the videos' own
        chance, else INCONSISTENT. `first` is the first difference (`epoch`, `figure`, `was`, `is_now`, and what has
        changed in the `profile`), and `figures` compares both trainings. With `exact`, any difference is DIFFERENT and
        ends the replay.

        Raises StoreError if that is impossible: no such trial, imported weights, another version, or frames that the
        store no longer has; ResourceError for a device that does not exist.

        >>> kdtune.Store("runs").trial(key).replay(device="cpu") is None
        True
        """
        from kdtune.history.replayed import SeedGroups, replayed
        from kdtune.train.profile import settings_kept
        from kdtune.train.replay import Replay
        from kdtune.train.session import choose_device

        store = self.store.files
        with settings_kept(), Replay(store, choose_device(device)) as replay:
            difference = replay.trial(self.key, exact)
        return None if difference is None else replayed(self.key, difference, SeedGroups(store))
