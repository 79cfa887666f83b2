"""Train one group, epoch by epoch, to its end or until it misses a threshold. Every backend uses this."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing

from kdtune.config.search import ObjectiveConfig
from kdtune.config.trial import TrialConfig
from kdtune.execute.group_queue import ReportedEpoch
from kdtune.store.contents import EpochRecord
from kdtune.sweep.group import TrialGroup, continues
from kdtune.train.measuring.usage import UsageMeter
from kdtune.train.session import Session, choose_device


def run_group(
    group: TrialGroup, objectives: Sequence[ObjectiveConfig], session: Session, device: str
) -> Generator[ReportedEpoch, None, None]:
    """Train the trials of `group` side by side, stage by stage, yielding a row for each epoch.

    At each stage the mean over the seeds is compared with the group's threshold, or with several objectives with its
    front. If it misses, all trials stop there;
    a group that reaches all thresholds is trained to its end, and fine-tuned if the sweep asks for it. The group also
    ends when the session's trials are asked to stop.
    """
    place = choose_device(device)
    meter = UsageMeter(place)
    with ExitStack() as stack:

        def open_trial(config: TrialConfig) -> Generator[EpochRecord, None, None]:
            return stack.enter_context(closing(session.trial(config, place)))

        def reported(key: str, row: EpochRecord) -> ReportedEpoch:
            meter.note(session.store.trial(key), row)
            return {"key": key, "row": row, "trained": key in session.trained}

        runs = [open_trial(config) for config in group.configs]
        for stage in group.configs[0].stage_epochs:
            evaluations = []
            for key, run in zip(group.asked.keys, runs, strict=True):
                for row in run:
                    yield reported(key, row)
                    if row.get("stage") == stage:
                        evaluations.append(row["evaluation"])
                        break
                else:
                    return  # asked to stop before it reached the stage
            if not continues(group, stage, evaluations, objectives):
                return
        finetuned = [open_trial(config.finetuned) for config in group.configs if config.finetuned is not None]
        for key, run in zip(group.asked.every_key, [*runs, *finetuned], strict=True):
            for row in run:
                yield reported(key, row)
