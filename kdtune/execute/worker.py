"""The actor that trains groups for Ray Tune."""

from __future__ import annotations

import json
from typing import Any

import ray
from ray import tune

from kdtune.errors import ResourceError
from kdtune.execute.group_run import run_group
from kdtune.messages import show_messages
from kdtune.sweep.stopping import stop_file
from kdtune.train.prepared import Prepared
from kdtune.train.session import Session


class TrialWorker(tune.Trainable):
    """Ray's view of a group: the first step returns the node's id, each later step is one epoch of one trial.

    The actor is reused for further groups: it keeps imports, the GPU context, open data sets and prepared samples.
    """

    def setup(self, config: dict[str, Any]) -> None:
        show_messages()
        prepared: Prepared = config["prepared"]
        self.lacking = [] if config["needs"] is None else config["needs"].problems()
        self.stopping = stop_file(prepared.store.sweep(config["sweep"]))
        self.session = Session(prepared.store, prepared.folders, config["workers"], stopping=self.stopping)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.rows.close()
        self.session.folders.update(new_config["prepared"].folders)
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self.named = False
        self.rows = run_group(config["group"], config["objectives"], self.session, config["device"])
        if self.stopping():
            self.rows.close()  # a group that has not begun must not begin now

    def step(self) -> dict[str, Any]:
        if self.lacking:  # not in `setup`, because Ray reports its errors as a dead process
            raise ResourceError(self.lacking)
        if not self.named:
            self.named = True
            return {"node": ray.get_runtime_context().get_node_id()}
        row = next(self.rows, None)
        # As text: Tune keeps statistics of every number in a result, for each trial, until the run ends.
        return {"done": True} if row is None else {"row": json.dumps(row)}

    def cleanup(self) -> None:
        self.rows.close()  # frees the locks of its trials

    # Ray calls these to retry a trial. Only the TrialStore's checkpoints are used.
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass
