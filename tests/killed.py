"""Train a trial in one process per attempt, and kill it at a given line (see lives.py).

    python killed.py TRIAL FOLDERS      its configuration and a Session's folders, both as JSON

Each line on stdin requests an attempt; each line on stdout reports its result. The processes are forked from one that
has imported torch but has not used it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow.dataset  # noqa: F401 imported by pandas at its first use: here once, rather than in each child
import torch
import torch._inductor.config  # noqa: F401 likewise by torch, which takes seconds

import kdtune
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train.session import Session
from kdtune.train.state import TrialState

PACKAGE = f"{Path(kdtune.__file__).parent}{os.sep}"

#: A line's kind is that of the innermost of these files and functions on the stack; "session" if there is none.
KINDS = {
    "train/targets.py": "targets",
    "train/measuring/evaluate.py": "evaluation",
    "train/measuring/cost.py": "cost",
    "TrialState.save": "checkpoint",
    "train/resume.py": "resume",
    "append_jsonl": "rows",
    "TrialFiles.write_result": "rows",
    "train_trial": "training",
}


def kind(frame: FrameType | None) -> str:
    while frame is not None:
        found = KINDS.get(frame.f_code.co_qualname) or KINDS.get(file_of(frame))
        if found is not None:
            return found
        frame = frame.f_back
    return "session"


def file_of(frame: FrameType) -> str:
    return frame.f_code.co_filename.removeprefix(PACKAGE)


def moment(frame: FrameType | None) -> dict[str, Any]:
    """Return the trial (the teacher or its student), its epoch, and the number of finished steps in that epoch."""
    while frame is not None and frame.f_code.co_qualname != "train_trial":
        frame = frame.f_back
    values = {} if frame is None else frame.f_locals
    files, progress = values.get("files"), values.get("progress")
    return {"trial": files and files.key, "epoch": values.get("epoch"), "step": progress and progress.steps}


def attempt(config: TrialConfig, folders: dict[str, str], ask: dict[str, Any], report: int) -> None:
    """Train to the end, or until killed by itself or by the reader of the pipe `report`, which gets its place."""
    passed: Counter[str] = Counter()

    def say(place: str | None, frame: FrameType | None) -> None:
        os.write(report, json.dumps({"place": place, **moment(frame), "passed": passed}).encode() + b"\n")

    def enter(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        before = f"{kind(frame)} {file_of(frame)}:"

        def line(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
            if event == "line":
                place = f"{before}{frame.f_lineno}"
                passed[place] += 1
                if place == ask["place"] and passed[place] == ask["n"]:
                    say(place, frame)
                    if not ask["from_outside"]:
                        os.kill(os.getpid(), signal.SIGKILL)
            return line

        return line

    if ask["every_s"] is not None:
        sys.modules[TrialState.__module__].CHECKPOINT_EVERY_S = ask["every_s"]
    sys.settrace(enter)
    for _ in Session(StoreFiles(ask["store"]), folders).trial(config, torch.device("cpu")):
        pass
    sys.settrace(None)
    say(None, None)


def main() -> None:
    config, folders = TrialConfig.model_validate_json(sys.argv[1]), json.loads(sys.argv[2])
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                attempt(config, folders, json.loads(line), writing)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = json.loads(pipe.readline() or '{"place": null, "passed": {}}')
            if said["place"] is not None:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        print(json.dumps({**said, "exit": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
