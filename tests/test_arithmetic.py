"""The profile distinguishes machines and switches that give other bits, and an unknown field is no change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import CPU, ROOT

from kdtune.config.trial import TrialConfig
from kdtune.report.results import mixed_profiles
from kdtune.train.arithmetic import SWITCHES, fingerprint, switches
from kdtune.train.profile import arithmetic

#: Print the bits of a convolution, computed as in a trial, and the profile's value.
PROGRAM = """
import hashlib, json, sys
import torch
from kdtune.config.trial import TrialConfig
from kdtune.train.profile import arithmetic
from kdtune.train.arithmetic import switches
config = TrialConfig()
said = arithmetic(config, torch.device("cpu"))
x = torch.arange(4 * 8 * 6 * 20 * 20).remainder(997).float().div(997).reshape(4, 8, 6, 20, 20)
w = torch.arange(16 * 8 * 27).remainder(89).float().sub(40).div(97).reshape(16, 8, 3, 3, 3)
y = torch.conv3d(x, w).mean((2, 3, 4)) @ torch.ones(16, 512).div(7)
print(json.dumps([hashlib.sha256(y.numpy().tobytes()).hexdigest(), said, switches()]))
"""


def computed(**changed: str) -> list[str]:
    environment = {**os.environ, **changed}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"ONEDNN_MAX_CPU_ISA": "SSE41"}, {"MKL_CBWR": "COMPATIBLE"}])
def test_what_changes_bits_changes_the_fingerprint(changed: dict[str, str]) -> None:
    bits, fingerprint, said = computed()
    assert [bits, fingerprint, said] == computed(), "it repeats in another process"
    other_bits, other_fingerprint, other_said = computed(**changed)
    assert (other_bits != bits) <= (other_fingerprint != fingerprint)
    assert said == ""
    assert other_said == ", ".join(f"{name}={value}" for name, value in changed.items())


def test_the_fingerprint_repeats_and_switches_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrialConfig()
    first = arithmetic(config, CPU)
    fingerprint.cache_clear()
    assert len(first) == 12
    assert arithmetic(config, CPU) == first
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert switches() == "", "that one is set by make_deterministic"
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "SSE41")
    assert switches() == "DNNL_MAX_CPU_ISA=SSE41, MKL_CBWR=AVX2"


def trial(**fields: Any) -> Any:
    return SimpleNamespace(profiles=[{"torch": "2.15.0", "threads": 1, "precision": "fp32", "frames": "f", **fields}])


def test_profiles_are_mixed_where_both_are_known() -> None:
    assert mixed_profiles([trial(), trial(arithmetic="a", torchvision="1")]) is None
    assert mixed_profiles([trial(arithmetic="a"), trial(arithmetic="b", threads=2)]) is None
    said = mixed_profiles([trial(arithmetic="a"), trial(arithmetic="b")])
    assert said is not None
    assert "arithmetic (1 threads, fp32) a | b" in said
