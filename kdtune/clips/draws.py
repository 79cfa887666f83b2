"""Randomness without state: each draw is a pure function of (seed, purpose, epoch, sample, clip) (DESIGN 4.1).

Philox is counter-based. Only its raw 64-bit stream is used: NumPy keeps it stable between versions, while its
distributions may change. Python's hash() is salted per process, so keys come from BLAKE2.
"""

from __future__ import annotations

import hashlib

import numpy as np


def uniforms(n: int, *, seed: int, purpose: str, epoch: int = 0, sample: int = 0, clip: int = 0) -> np.ndarray:
    """Return `n` float64 draws in [0, 1), shape (n,). The first m of them are the same for every n ≥ m."""
    name = f"{seed}/{purpose}/{epoch}/{sample}/{clip}".encode()
    key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), dtype="<u8").astype(np.uint64)
    raw = np.random.Philox(key=key).random_raw(n)
    return (raw >> np.uint64(11)) * 2.0**-53


def below(uniform: float, n: int) -> int:
    """Turn one uniform draw into an integer from 0 … n−1."""
    return int(uniform * n)


def shuffled(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return the samples 0 … n−1 in one epoch's order, shape (n,) int64. Fewer samples keep their relative order."""
    return np.argsort(uniforms(n, seed=seed, purpose="shuffle", epoch=epoch), kind="stable")
