"""The same bits on CUDA (DESIGN 4.1): whole trials, two of them on one GPU, their samples, every network's gradients.

The device is a parameter. A small core runs on the CPU wherever tests run, everything where torch sees a GPU.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from helpers import ROOT, bits

from kdtune.clips.frames.rendered import rendered_clips
from kdtune.config.network import Own, Torchvision
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.store import StoreFiles, TrialFiles
from kdtune.train.prepared import source_id
from kdtune.train.profile import make_deterministic
from kdtune.train.session import Session

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]

#: Backbone and depth (c3d has only one).
NETWORKS = (("c3d", 10), ("r3d", 10), ("r3d", 18), ("r21d", 10), ("r21d", 18))
PRECISIONS = ("fp32", "bf16")
MATRIX = [
    (*network, *others)
    for network, *others in itertools.product(NETWORKS, PRECISIONS, ("memory_bank", "in_batch"), (10, 16))
]
CORE = [
    ("cpu", "c3d", 10, "fp32", "in_batch", 16),
    pytest.param("cpu", "r21d", 10, "fp32", "memory_bank", 10, marks=pytest.mark.slow),
    pytest.param("cpu", "r21d", 10, "bf16", "memory_bank", 10, marks=pytest.mark.slow),  # a CPU emulates bf16
]
BACKBONES = itertools.product((*get_args(Own), *get_args(Torchvision)), PRECISIONS)


def tiny(student: dict[str, Any], **more: Any) -> TrialConfig:
    """A trial of two epochs on 8 training videos, two steps per epoch, with width 8 at 32²."""
    raw = {
        "data": {"dataset": "synthetic", "root": "rendered", "validation": 0.3},
        "clip": {"frames": 10, "size": 32},
        "student": {"width": 8, **student},
        "loss": {"negatives": 16},
        "optimizer": {"batch": 4},
        "evaluation": {"clips": 2},
        "epochs": 2,
        "stages": {"late": 2},
    }
    return TrialConfig.model_validate({**raw, **more})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a session's folders: the rendered clips of all trials here, so that no video decoder is needed."""
    config = tiny({})
    clips = tmp_path_factory.mktemp("rendered") / "clips"
    rendered_clips(clips, config.clip.stored_size, classes=("SpinLeft", "Rise"), groups=4, clips=2)
    return {source_id(config.data, config.clip): str(clips)}


def trained(config: TrialConfig, device: str, store: Path, folders: dict[str, str]) -> TrialFiles:
    session = Session(StoreFiles(store), folders)
    for _ in session.trial(config, torch.device(device)):
        pass
    files = session.files(config)
    result = files.result()
    assert result is not None
    assert result["profile"]["device_kind"] == device
    return files


@pytest.mark.parametrize(
    ("device", "backbone", "depth", "precision", "contrast", "frames"),
    [*CORE, *(pytest.param("cuda", *case, marks=NEEDS_GPU) for case in MATRIX)],
)
def test_a_trial_repeats(
    device: str,
    backbone: str,
    depth: int,
    precision: str,
    contrast: str,
    frames: int,
    folders: dict[str, str],
    tmp_path: Path,
) -> None:
    config = tiny(
        {"backbone": backbone, "depth": depth},
        clip={"frames": frames, "size": 32},
        loss={"negatives": 16, "contrast": contrast},
        precision=precision,
    )
    first, second = (trained(config, device, tmp_path / name, folders) for name in ("first", "second"))
    assert bits(first) == bits(second)


PACKED = """
import json, sys
import torch
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train.session import Session
form, device, store, folders = sys.argv[1:]
run = Session(StoreFiles(store), json.loads(folders)).trial(TrialConfig.model_validate_json(form), torch.device(device))
print("ready", flush=True)
sys.stdin.readline()
for row in run:
    print(row["epoch"], flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), *DEVICES[1:]])
def test_two_processes_at_once_give_the_bits_of_one_alone(device: str, folders: dict[str, str], tmp_path: Path) -> None:
    teacher = {"student": {"backbone": "r3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}
    config = tiny({"backbone": "r21d"}, teacher=teacher, epochs=3, stages={"late": 3})
    alone = trained(config, device, tmp_path / "alone", folders)

    def packed(name: str) -> subprocess.Popen[str]:
        arguments = [config.model_dump_json(by_alias=True), device, str(tmp_path / name), json.dumps(folders)]
        command = [sys.executable, "-c", PACKED, *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with packed("left") as left, packed("right") as right:
        # In lockstep: both are asked to train an epoch before either is awaited.
        for said in ("ready", "1", "2", "3"):
            for process in (left, right):
                assert process.stdout is not None
                assert process.stdout.readline() == f"{said}\n"
            for process in (left, right):
                assert process.stdin is not None
                process.stdin.write("next\n")
                process.stdin.flush()
    assert (left.returncode, right.returncode) == (0, 0)
    for name in ("left", "right"):
        assert bits(StoreFiles(tmp_path / name).trial(alone.key)) == bits(alone)


@NEEDS_GPU
@pytest.mark.parametrize("frames", [10, 16])
def test_cpu_and_cuda_draw_the_same_samples(frames: int, folders: dict[str, str], tmp_path: Path) -> None:
    config = tiny({}, clip={"frames": frames, "size": 32})
    cpu, cuda = (
        [row["samples_sha256"] for row in trained(config, device, tmp_path / device, folders).rows()]
        for device in ("cpu", "cuda")
    )
    assert cpu == cuda
    assert len(set(cpu)) == config.epochs, "every epoch draws its own"


@pytest.mark.parametrize(
    ("device", "backbone", "precision"),
    [("cpu", "s3d", "fp32"), *(pytest.param("cuda", *case, marks=NEEDS_GPU) for case in BACKBONES)],
)
def test_every_networks_gradients_repeat(device: str, backbone: str, precision: str) -> None:
    config = tiny({"backbone": backbone}, clip={"frames": 8, "size": 32}, precision=precision)
    make_deterministic(config)
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(4, 1, 3, 8, 32, 32, generator=generator).to(device)
    runs = []
    for _ in range(2):
        network = build_network(config).to(device)
        features = network.features(clips)
        towards = torch.randn(features.shape, generator=generator.manual_seed(2)).to(device)
        (features * towards).sum().backward()
        runs.append({name: p.grad for name, p in network.backbone.named_parameters()})
    for name, gradient in runs[0].items():
        assert gradient is not None
        assert gradient.isfinite().all()
        assert torch.equal(gradient, runs[1][name]), name
