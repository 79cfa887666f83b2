"""`kdtune.train`: one trial, in this process, without Ray."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtune.api.store import Store, store_of
from kdtune.api.trial import Trial
from kdtune.config.trial import TrialConfig
from kdtune.errors import UserError
from kdtune.store.contents import EpochRecord

if TYPE_CHECKING:
    import torch

    from kdtune.train.session import Session


class TrialRun(Iterator[EpochRecord]):
    """The training of one trial: an iterator that yields a row after each epoch, when the row is in the store.

    Between two rows torch has the caller's own settings. You may stop iterating at any time: the next training of the
    same trial resumes from its last checkpoint, to the same bits.
    """

    def __init__(self, store: Store, session: Session, config: TrialConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.trial = Trial(store, session.key(config))
        self._rows: Generator[EpochRecord, None, None] = session.trial(config, device)

    def __repr__(self) -> str:
        return f"TrialRun({self.trial!r})"

    def __next__(self) -> EpochRecord:
        from kdtune.train.profile import make_deterministic, settings_kept

        with settings_kept():
            make_deterministic(self.config)  # as the trainer left torch when it yielded the last row
            return next(self._rows)

    def close(self) -> None:
        """Stop: write what a resumed training needs, and free the trial for others."""
        from kdtune.train.profile import settings_kept

        with settings_kept():
            self._rows.close()


class Training(Iterator[EpochRecord]):
    """Result of `kdtune.train`: an iterator over the rows of the trial and then of its fine-tuning.

    >>> training = kdtune.train("trial.yaml", store="runs")
    >>> [row["epoch"] for row in training]
    [1, 2]
    >>> training.trial.state
    'complete'
    """

    def __init__(self, runs: list[TrialRun]) -> None:
        self.runs = tuple(runs)
        """The trial and, where its configuration says `finetune`, its fine-tuning, which has a key of its own."""
        self._rows = (row for run in self.runs for row in run)

    def __repr__(self) -> str:
        return f"Training({', '.join(repr(run.trial) for run in self.runs)})"

    def __next__(self) -> EpochRecord:
        return next(self._rows)

    @property
    def trial(self) -> Trial:
        """The trial being trained."""
        return self.runs[0].trial

    @property
    def finetuned(self) -> Trial | None:
        """Its fine-tuning; None if its configuration has none."""
        return self.runs[1].trial if len(self.runs) > 1 else None

    def close(self) -> None:
        """Stop: write what a resumed training needs, and free the trials for others."""
        for run in self.runs:
            run.close()

    def run(self) -> Trial:
        """Train to the end and return the trial.

        >>> kdtune.train("trial.yaml", store="runs").run().state
        'complete'
        """
        for _ in self:
            pass
        return self.trial


def train(
    trial: TrialConfig | Mapping[str, Any] | str | Path,
    *,
    store: Store | str | Path | None = None,
    device: str = "auto",
    workers: int = 0,
) -> Training:
    """Prepare one trial, and return its training, which yields a row after each epoch.

    Training starts with the first row; teachers that the store does not have yet are trained before it. A complete
    trial yields its recorded rows, and an interrupted one resumes. The same trial has the same bits in any process.

    Args:
        trial: a file (a trial's, or a sweep's whose `trial` is trained), its content as a mapping, or a TrialConfig.
        store: where trials are kept: a Store, a folder or a URL. Default: the variable KDTUNE_STORE, or `runs`.
        device: `auto`, `cpu` or `cuda`.
        workers: processes that read batches ahead. Their number changes no bit.

    Raises ConfigError with all problems of the configuration, DataError with those of the data, StoreError for a store
    that cannot be written, ResourceError for a device that is not there; and while it trains TrialError, where a loss
    or a weight is not finite.

    >>> for row in kdtune.train({**form, "epochs": 2}, store="runs"):
    ...     print(row["epoch"], row.get("stage"), row["train"]["loss"] > 0)
    1 early True
    2 late True
    >>> kdtune.train({"epochs": 0, "student": {"width": "four"}}, store="runs")
    Traceback (most recent call last):
    ...
    kdtune.errors.ConfigError:   trial: student.width: should be a valid integer, got 'four'
      trial: epochs: should be greater than or equal to 1, got 0
    """
    from kdtune.config.load import check_trial, load_trial

    if isinstance(trial, str | Path):
        trial = load_trial(Path(trial))
    config = trial if isinstance(trial, TrialConfig) else check_trial(trial)
    place = store_of(store)
    from kdtune.train.session import Session, choose_device

    chosen = choose_device(device)
    place.files.check()
    session = Session(place.files, workers=workers)
    session.prepare(config)
    if problems := session.problems(config):
        raise UserError(problems)
    configs = [config] if config.finetuned is None else [config, config.finetuned]
    return Training([TrialRun(place, session, config, chosen) for config in configs])
