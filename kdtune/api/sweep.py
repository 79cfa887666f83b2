"""A sweep of a store as users see it: DataFrames, bests, gains, the answer, the report."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kdtune.api.store import Store
from kdtune.api.trial import Trial
from kdtune.errors import Problem, StoreError
from kdtune.names import quoted

if TYPE_CHECKING:
    import pandas as pd

    from kdtune.config.sweep import SweepConfig
    from kdtune.history.sweep import SweepHistory
    from kdtune.history.trials import SweepTrials


class Sweep:
    """A sweep as its records showed it when it was opened. Open it again to see what has happened since.

    >>> sweep = kdtune.open_sweep("tiny", store="runs")
    >>> sweep
    Sweep('tiny', 4 complete)
    >>> sweep.blocks
    ['all']
    >>> print(sweep.answer)
    The data do not decide ...
    """

    def __init__(self, store: Store, name: str) -> None:
        """Read a sweep. Raises the same errors as `open_sweep`."""
        from kdtune.history.reading import read_history

        self.store, self.name = store, name
        self.history: SweepHistory = read_history(store.files, name)
        """The typed history that every figure here comes from (kdtune/history)."""

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts().items() if count)
        return f"Sweep({self.name!r}, {counts or 'nothing asked'})"

    def _repr_html_(self) -> str:
        """Show the question, the answer and a table for each block in a notebook."""
        from html import escape

        from kdtune.report.results import summary_tables
        from kdtune.tables.html import table_html

        texts = [self.name, self.history.record.question, self.answer]
        head = "".join(f"<p>{escape(text)}</p>" for text in texts if text)
        return head + "".join(map(table_html, summary_tables(self._found)))

    @property
    def blocks(self) -> list[str]:
        """Labels of the blocks, in the sweep file's order. Candidates are compared within a block only."""
        return list(self.history.blocks)

    @property
    def config(self) -> SweepConfig:
        """The sweep file as it was run, including `--set`. Raises StoreError if this version refuses it."""
        return self.history.record.sweep()

    def counts(self) -> Mapping[str, int]:
        """Return the number of groups (candidates, controls, teachers) in each state.

        >>> kdtune.open_sweep("tiny", store="runs").counts()["complete"]
        4
        """
        return self.history.counts()  # type: ignore[return-value]

    # ---- DataFrames --------------------------------------------------------------------------------------------------

    def trials(self, *, refits: bool = False) -> pd.DataFrame:
        """Return one row for each trial: by block, controls first, then candidates by number and seed.

        Columns, with their dtypes:
            key (string), block (string), candidate (Int64, missing for a control), control (bool), seed (int64),
            state (string: complete, pruned, infeasible, failed, running, pending), epochs (int64, without fine-tuning),
            seconds (float64, of training), objective (float64, the first one, missing unless complete),
            objective/<metric> (float64, of several objectives each), params/<name> (as they were searched: teacher,
            lambda, tau, alpha, fraction, student and more), <stage>/<split>/<metric> (float64: accuracies as shares,
            losses in nats), cost/<name> (float64; kdtune/config/metrics.py says the units), weights_sha256 (string),
            finetuned (string, the key of its fine-tuning), error (string). In a race also dropped (Int64, the look that
            dropped the candidate, or missing).

        With `refits` the trainings on the whole training list follow, and a column refit (bool) tells them apart: their
        objectives are measured on the test split.

        >>> frame = kdtune.open_sweep("tiny", store="runs").trials()
        >>> frame.loc[frame["control"], ["candidate", "state"]].to_numpy().tolist()
        [[<NA>, 'complete']]
        >>> frame["params/lambda"].dtype, frame["late/validation/knn"].dtype, frame["candidate"].dtype
        (dtype('float64'), dtype('float64'), Int64Dtype())
        """
        from kdtune.api.frames import trials_frame

        return trials_frame(self.history, self._found.trials, self._found.refits or () if refits else ())

    def epochs(self) -> pd.DataFrame:
        """Return one row for each epoch of each trial, in the order of `trials`, as far as this sweep trained it.

        Columns: key, block, candidate, control and seed as in `trials`, finetuning (bool), and those of
        `Trial.epochs`: epoch (int64, from 1), lr, train/loss, seconds, stage, evaluation/<split>/<metric> and more.

        >>> frame = kdtune.open_sweep("tiny", store="runs").epochs()
        >>> int(frame["epoch"].max()), frame["train/loss"].dtype
        (2, dtype('float64'))
        """
        from kdtune.api.frames import epochs_frame

        return epochs_frame(self.store.files, self._found.trials)

    def gains(self, block: str | None = None) -> pd.DataFrame:
        """Return the gain of each complete candidate over the control, best first, for one block or for all.

        Gains are paired by seed and turned so that more is better. The column `unit` holds their unit: points
        (hundredths) for an accuracy. With 95 % confidence, all intervals of the sweep contain their gain at once
        (Bonferroni).

        Columns: block (string), candidate (int64), gain (float64), low and high (float64, the interval's ends, missing
        where nothing says how far chance reaches), verdict (string: better, worse, not decided), basis (string: the
        chance that the interval covers: seeds, videos, seeds and videos, or missing), seeds (int64, how many were
        paired), videos (Int64, how many the interval covers), unit (string).

        Raises StoreError for an unknown block.

        >>> gains = kdtune.open_sweep("tiny", store="runs").gains()
        >>> gains[["verdict", "unit"]].drop_duplicates().to_numpy().tolist()
        [['not decided', 'points']]
        """
        from kdtune.api.frames import gains_frame

        return gains_frame(self.history, self._chosen_blocks(block), self._found.videos)

    def pareto(self, block: str | None = None) -> pd.DataFrame:
        """Return the candidates that no other beats in every objective, by number; the best one for a single objective.

        Columns: block (string), candidate (int64), a column for each objective (float64, mean over the seeds), and
        params/<name> as in `trials`. Raises StoreError for an unknown block.

        >>> kdtune.open_sweep("tiny", store="runs").pareto().columns[:3].tolist()
        ['block', 'candidate', 'knn']
        """
        from kdtune.api.frames import pareto_frame

        return pareto_frame(self.history, self._chosen_blocks(block))

    # ---- one trial, the answer, the report ---------------------------------------------------------------------------

    def best(self, block: str | None = None, *, seed: int | None = None) -> Trial | None:
        """Return a trial of the block's best complete candidate, or None while no candidate is complete.

        With several objectives, it is the candidate of the Pareto set that is best in the first one that is not a cost.

        Args:
            block: its label. May be left out if the sweep has one block.
            seed: which of the candidate's trials. Default: its first.

        Raises StoreError for an unknown block or seed.

        >>> kdtune.open_sweep("tiny", store="runs").best().state
        'complete'
        """
        group = self.history.blocks[self._one_block(block)].leader
        return None if group is None else self._with_seed(group.trials, seed)

    def control(self, block: str | None = None, *, seed: int | None = None) -> Trial | None:
        """Return a trial of the block's first control, which gains are measured against; arguments as in `best`.

        >>> kdtune.open_sweep("tiny", store="runs").control().config.teacher is None
        True
        """
        groups = self.history.blocks[self._one_block(block)].controls.get(0, {})
        return self._with_seed({own: group.keys[0] for own, group in groups.items()}, seed) if groups else None

    def trial(self, key: str) -> Trial:
        """Return the trial of this sweep whose key begins with `key`.

        It may be a teacher, control, candidate, refit or fine-tuning. Raises StoreError if there is none, or more than
        one.

        >>> sweep = kdtune.open_sweep("tiny", store="runs")
        >>> sweep.trial(sweep.trials()["key"][0]) == sweep.control()
        True
        """
        keys = dict.fromkeys(found for group in self.history.groups.values() for found in group.asked.every_key)
        fits = [found for found in keys if found.startswith(key)]
        if len(fits) != 1:
            what = f"has {len(fits) or 'no'} trial{'s' * (len(fits) > 1)} whose key begins with {quoted(key)}"
            raise StoreError([Problem(f"sweep {self.name}", what, ", ".join(fits[:5]))])
        return Trial(self.store, fits[0])

    @property
    def answer(self) -> str:
        """The sweep's question answered in a few sentences, with intervals and what would decide: what `sweep`,
        `results`, `status`, the report and MLflow say."""
        from kdtune.history.words.answer import answer

        return str(answer(self.history, self._found.videos))

    def report(self, out: str | Path | None = None, *, regret: int = 0, device: str = "auto") -> list[Path]:
        """Write the sweep's page, tables and plots; return their files, the page first.

        Args:
            out: the folder to write to. Default: `reports/<name>` in the store.
            regret: so many pruned candidates are first trained to their end, to see how often a stop was wrong.
            device: `auto`, `cpu` or `cuda`, for `regret`.

        Raises StoreError where the folder cannot be written, or a pruned trial would be another one now.

        >>> kdtune.open_sweep("tiny", store="runs").report("report")[0].name
        'report.html'
        """
        from kdtune.api.reporting import make_report

        return make_report(self.store.files, self.name, None if out is None else Path(out), regret, device)

    # ---- from the history --------------------------------------------------------------------------------------------

    @cached_property
    def _found(self) -> SweepTrials:
        from kdtune.history.trials import sweep_trials

        return sweep_trials(self.store.files, self.history)

    def _chosen_blocks(self, block: str | None) -> list[str]:
        if block is not None and block not in self.history.blocks:
            raise StoreError([Problem("block", f"sweep {self.name} has no {quoted(block)}", ", ".join(self.blocks))])
        return self.blocks if block is None else [block]

    def _one_block(self, block: str | None) -> str:
        labels = self._chosen_blocks(block)
        if len(labels) > 1:
            raise StoreError([Problem("block", f"sweep {self.name} has several: say which", ", ".join(labels))])
        return labels[0]

    def _with_seed(self, keys: Mapping[int, str], seed: int | None) -> Trial:
        """Return the trial of a seed, by default of the first; `keys` holds the key for each."""
        chosen = next(iter(keys)) if seed is None else seed
        if chosen not in keys:
            raise StoreError([Problem("seed", f"there is no trial with seed {chosen}", ", ".join(map(str, keys)))])
        return Trial(self.store, keys[chosen])
