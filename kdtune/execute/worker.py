"""What runs inside a Ray Tune worker: the trials of one group, epoch by epoch, until the end or until a threshold is
missed."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import ExitStack, closing
from statistics import fmean
from typing import Any

from ray import tune

from kdtune.config.search import ObjectiveConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import ResourceError
from kdtune.sweep.group import TrialGroup, stage_values
from kdtune.sweep.prune import reaches
from kdtune.sweep.stopping import StopFile
from kdtune.train.prepared import Prepared
from kdtune.train.session import Session, choose_device
from kdtune.train.usage import UsageMeter

#: {"key": a trial's key, "row": its row of one epoch, "trained": whether this process trains it, or has found it}
Rows = Generator[dict[str, Any], None, None]


def run_group(group: TrialGroup, objective: ObjectiveConfig, session: Session, device: str) -> Rows:
    """Train the trials of `job` side by side, stage by stage, yielding every epoch's row with its trial's key.

    At a stage the mean over the seeds is held against the group's threshold; where it misses it, all of them stop
    there. What reaches all thresholds is trained to its end, and fine-tuned where that was asked for. Where the
    session's trials are told to stop, the group ends as well.
    """
    place = choose_device(device)
    meter = UsageMeter(place)
    with ExitStack() as stack:

        def open_trial(config: TrialConfig) -> Rows:
            return stack.enter_context(closing(session.trial(config, place)))

        def reported(key: str, row: dict[str, Any]) -> dict[str, Any]:
            meter.note(session.store.trial(key), row)
            return {"key": key, "row": row, "trained": key in session.trained}

        runs = [open_trial(config) for config in group.configs]
        for stage in group.configs[0].stage_epochs:
            evaluations = []
            for key, run in zip(group.keys, runs, strict=True):
                for row in run:
                    yield reported(key, row)
                    if row.get("stage") == stage:
                        evaluations.append(row["evaluation"])
                        break
                else:
                    return  # told to stop before it reached the stage
            values = stage_values(evaluations, objective, group.configs[0].stage.reduce)
            if values is not None and not reaches(fmean(values), group.thresholds.get(stage), objective.mode):
                return
        finetuned = [open_trial(config.finetuned) for config in group.configs if config.finetuned is not None]
        for key, run in zip([*group.keys, *group.finetuned], [*runs, *finetuned], strict=True):
            for row in run:
                yield reported(key, row)


class TrialWorker(tune.Trainable):
    """Ray's view of a group: one step is one epoch of one trial.

    The actor is reused from group to group: imports, the GPU's context, opened data sets and prepared samples stay.
    """

    def setup(self, config: dict[str, Any]) -> None:
        prepared: Prepared = config["prepared"]
        self.lacking = [] if config["needs"] is None else config["needs"].problems()
        self.stopping = StopFile(prepared.store.sweep(config["sweep"]))
        self.session = Session(prepared.store, prepared.folders, config["workers"], stopping=self.stopping)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.rows.close()
        self.session.folders.update(new_config["prepared"].folders)
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self.rows = run_group(config["group"], config["objective"], self.session, config["device"])
        if self.stopping():
            self.rows.close()  # what has not begun does not begin any more

    def step(self) -> dict[str, Any]:
        if self.lacking:  # said here rather than in `setup`, whose errors Ray takes for a process that died
            raise ResourceError(self.lacking)
        row = next(self.rows, None)
        # As text: of every number in a result Tune keeps statistics, for each trial and to the end.
        return {"done": True} if row is None else {"row": json.dumps(row)}

    def cleanup(self) -> None:
        self.rows.close()  # frees the locks of its trials

    # Ray asks for these when it tries a trial again. The TrialStore's checkpoints are the only ones there are.
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass
