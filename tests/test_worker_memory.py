"""A worker is reused from trial to trial: its memory stays flat, and its caches stay within their budgets."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers import ROOT

from kdtune.config.trial import TrialConfig
from kdtune.train.session import Session

#: Train trials one after another in one process, as a worker does; print the resident bytes after each.
TRAINS = """
import json, os, sys
import torch
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train.samples import SampleCache
from kdtune.train.session import Session
form, root, folders, trials = json.loads(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
session = Session(StoreFiles(root), folders, cache=SampleCache(40_000_000))
for number in range(trials):
    form["loss"]["alpha"], form["seed"] = 0.1 + number / 1000, number % 7  # a few streams that take turns
    for _ in session.trial(TrialConfig.model_validate(form), torch.device("cpu")):
        pass
    assert session.cache.bytes <= session.cache.budget
    resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    print(resident, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat_over_a_hundred_trials(
    tiny: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory
) -> None:
    form = tiny.model_dump(mode="json", by_alias=True, exclude_none=True) | {"epochs": 1, "stages": {"late": 1}}
    arguments = [json.dumps(form), str(tmp_path_factory.mktemp("hundred")), json.dumps(prepared.folders), "100"]
    done = subprocess.run(
        [sys.executable, "-c", TRAINS, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    resident = [int(line) for line in done.stdout.split()]
    assert len(resident) == 100
    # By the 30th trial, every stream has been kept once and evicted once. What 70 trials leave is then noise: one that
    # leaked as little as its batches (about 20 MB) would leave more than a GB.
    assert max(resident[30:]) - resident[30] < 60e6, resident
