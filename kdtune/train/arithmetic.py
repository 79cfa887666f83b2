"""Fingerprint this process's rounding, which depends on kernels and switches that no version number shows.

oneDNN does not report which instructions it uses, and a virtual machine may hide some of the processor's. The profile
therefore holds a fingerprint of small computations of every kind that a trial performs. On a CPU with AVX-512 it
changes with ONEDNN_MAX_CPU_ISA (SSE41, AVX2), MKL_CBWR, MKL_ENABLE_INSTRUCTIONS and ATEN_CPU_CAPABILITY, and stays the
same for switches that change no bit of a trial.
"""

from __future__ import annotations

import hashlib
import math
import os
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from kdtune.parse import first_line

#: Environment variables that choose kernels in oneDNN, MKL, ATen, OpenBLAS (NumPy's), cuBLAS and cuDNN.
SWITCHES = (
    *("ONEDNN_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("DNNL_MAX_CPU_ISA", "DNNL_CPU_ISA_HINTS", "DNNL_DEFAULT_FPMATH_MODE"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "MKL_DISABLE_FAST_MM"),
    *("ATEN_CPU_CAPABILITY", "TORCH_MKLDNN_MATMUL_MIN_DIM", "TORCH_MKLDNN_MATMUL_MIN_SIZE", "TORCH_LINEAR_FLATTEN_3D"),
    *("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_BLAS_PREFER_CUBLASLT"),
    *("TORCH_CUDNN_V8_API_DISABLED", "TORCH_CUDNN_USE_HEURISTIC_MODE_B", "CUBLAS_WORKSPACE_CONFIG"),
)
#: Values that make_deterministic sets itself; they are not reported.
OWN_VALUES = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def switches() -> str:
    """Return the SWITCHES that are set, such as `MKL_CBWR=AVX2`, separated by commas; empty if none is."""
    found = {name: os.environ[name] for name in SWITCHES if os.environ.get(name)}
    return ", ".join(f"{name}={value}" for name, value in found.items() if OWN_VALUES.get(name) != value)


@cache
def fingerprint(device: torch.device, threads: int, precision: str) -> str:
    """Return 12 hex digits of a SHA-256 over the bits of small convolutions, matrix products and sums.

    They run forwards and backwards on `device` and on the CPU. `threads` and `precision` must be torch's current
    settings: they key the cache.
    """
    sha = hashlib.sha256()
    try:
        with torch.enable_grad():
            for place in dict.fromkeys((device, torch.device("cpu"))):
                for tensor in _computed(place, bf16=precision == "bf16"):
                    sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    except RuntimeError as error:  # the device refuses one of them: a trial must not fail for its fingerprint
        return f"not measured: {first_line(error)}"
    return sha.hexdigest()[:12]


def _computed(device: torch.device, *, bf16: bool) -> list[Tensor]:
    def values(*shape: int) -> Tensor:
        whole = torch.arange(math.prod(shape)) * 7919 % 1009  # exact on every machine
        return (whole.float() / 1009 - 0.5).reshape(shape).to(device).requires_grad_()

    clips = values(4, 3, 8, 16, 16)
    kernels = [values(16, 3, 3, 3, 3), values(32, 16, 3, 3, 3), values(32, 16, 1, 1, 1), values(48, 32, 1, 3, 3)]
    layers = [values(48, 512), values(512, 33)]
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        hidden = F.relu(F.batch_norm(F.conv3d(clips, kernels[0], padding=1), None, None, training=True))
        block = F.conv3d(hidden, kernels[1], stride=2, padding=1) + F.conv3d(hidden, kernels[2], stride=2)
        last = F.conv3d(block, kernels[3], padding=(0, 1, 1))
        features = F.relu(last.mean((2, 3, 4)) @ layers[0])
        logits = features @ layers[1]
        loss = F.cross_entropy(logits, torch.arange(4, device=device)) + F.normalize(features, dim=1).sum()
    gradients = torch.autograd.grad(loss, [clips, *kernels, *layers])
    large = values(96, 512).detach()
    double = large.double()
    sums = [large @ large.T, double @ double.T, (3 * large).exp().log1p(), large.sum(1), large.softmax(1)]
    return [last, logits, loss, *gradients, *sums]
