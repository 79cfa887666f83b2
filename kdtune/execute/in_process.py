"""The backend that trains in this process, one group after another, for debuggers and machines without Ray."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from kdtune.config.search import ResourceConfig
from kdtune.errors import Problem
from kdtune.execute.backend import Stuck
from kdtune.execute.group_queue import GroupQueue
from kdtune.sweep.group import TrialGroup
from kdtune.sweep.prepare import check_resources, this_machine
from kdtune.sweep.stopping import Cancel, StopFlag

if TYPE_CHECKING:
    from kdtune.train.session import Session


class InProcess:
    """Trains in the calling thread, so that a debugger sees every step."""

    address: str | None = None

    def problems(self, resources: ResourceConfig) -> list[Problem]:
        return check_resources(resources, [this_machine(resources)])

    def run(self, queue: GroupQueue, cancel: Cancel, say: Callable[[str], object], stuck: Stuck) -> None:
        from kdtune.train.profile import settings_kept
        from kdtune.train.session import Session

        stops, prepared = queue.stopping.stops, queue.prepared
        session = Session(prepared.store, prepared.folders, queue.sweep.resources.workers, stopping=StopFlag(stops))
        with settings_kept(), cancel.patient():
            while not stops() and (group := queue.next()) is not None:
                queue.started(group)
                queue.ended(group, _train(queue, group, session))


def _train(queue: GroupQueue, group: TrialGroup, session: Session) -> Exception | None:
    """Train one group; return the exception that it failed with, or None."""
    from kdtune.execute.group_run import run_group

    with closing(run_group(group, queue.sweep.objectives, session, queue.device)) as rows:
        while True:
            try:
                row = next(rows, None)
            except Exception as error:
                return error
            if row is None:
                return None
            queue.row(group, row)
