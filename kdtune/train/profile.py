"""The machine's profile, on which bits depend besides the configuration, and deterministic settings (DESIGN 4.1)."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdtune.clips.frames.store import ClipStore
from kdtune.clips.machine import processor
from kdtune.config.trial import TrialConfig
from kdtune.scoped import kept_environment, kept_process
from kdtune.store.contents import MachineProfile
from kdtune.train.arithmetic import fingerprint, switches

#: cuBLAS repeats its sums only with a fixed workspace; the variable is read when its handle is made.
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def settings_kept() -> Iterator[None]:
    """Put the settings that `make_deterministic` changes back as they were when the `with` ends."""
    with kept_process("TORCHINDUCTOR_CACHE_DIR"):
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)  # the first optimizer imports half of torch
    cudnn, matmul, mkldnn = torch.backends.cudnn, torch.backends.cuda.matmul, torch.backends.mkldnn
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    onednn = bool(mkldnn.enabled)
    try:
        with kept_environment(CUBLAS):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = flags
        mkldnn.set_flags(_enabled=onednn)


def make_deterministic(config: TrialConfig) -> None:
    """Set every torch option that bits depend on. Call it before the first CUDA operation."""
    os.environ.setdefault(CUBLAS, ":4096:8")
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"
    # oneDNN's weight gradient of a bf16 convolution reads uninitialised memory (seen with torch 2.15 on a CPU with
    # AVX-512: different bits in each run, or NaN). Without oneDNN, bf16 repeats on a CPU; CUDA does not use it.
    torch.backends.mkldnn.set_flags(_enabled=config.precision != "bf16")


def arithmetic(config: TrialConfig, device: torch.device) -> str:
    """Return `fingerprint` with torch set as for the trial."""
    make_deterministic(config)
    return fingerprint(device, config.threads, config.precision)


def profile(config: TrialConfig, device: torch.device, clips: ClipStore) -> MachineProfile:
    """Return the profile: two equal trials with equal profiles have equal bits. It is recorded, but not in the key."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else processor(),
        "device_kind": device.type,
        "cpu": processor() if cuda else None,  # the CPU draws, reads and evaluates
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "switches": switches(),
        "arithmetic": arithmetic(config, device),
        "torch": str(torch.__version__),
        "torchvision": torchvision_version(config),
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": config.threads,
        "precision": config.precision,
        "frames": clips.digest,
    }


def torchvision_version(config: TrialConfig) -> str | None:
    """Return torchvision's version if its code is in the network (its own networks, tdn_light's blocks), else None."""
    used = not config.student.has_width or config.student.backbone == "tdn_light"
    return version("torchvision").partition("+")[0] if used else None


def profile_changes(was: MachineProfile, now: MachineProfile) -> dict[str, tuple[Any, Any]]:
    """Return field → (then, now) for each field that differs."""
    return {name: (was.get(name), value) for name, value in now.items() if was.get(name) != value}


def weights_digest(network: nn.Module) -> str:
    """Return `state_digest` of every parameter and buffer."""
    return state_digest(network.state_dict())


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) over each tensor's name, type, shape and bytes, in the state's order."""
    sha = hashlib.sha256()
    for name, value in state.items():
        array = value.detach().cpu().contiguous().numpy()
        sha.update(f"{name}:{array.dtype}:{array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
