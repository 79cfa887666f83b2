"""Check this machine: packages, hardware, store, sockets, determinism. Imports torch only once it is installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import multiprocessing
import platform
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout

from kdtune.clips.machine import GIB, cores, free_bytes, memory_bytes
from kdtune.doctor.finding import Finding
from kdtune.doctor.sockets import socket_findings
from kdtune.errors import StoreError
from kdtune.store import StoreFiles
from kdtune.store.files import write_atomic

if TYPE_CHECKING:
    import torch

    from kdtune.clips.frames.store import ClipStore
    from kdtune.config.trial import TrialConfig
    from kdtune.doctor.repeat import Pair

#: Packages that the trainer needs.
NEEDED = ("torch", "numpy", "pandas", "pyarrow", "pydantic", "filelock", "pillow")
#: Optional package → what does not work without it.
OPTIONAL = {
    "torchvision": "tdn_light and torchvision's networks cannot be trained",
    "ray": "no sweeps; `train` and `replay` work without it",
    "optuna": "no sweeps; `train` and `replay` work without it",
    "mlflow": "no web pages: `ui` does not start, and trials are not shown there",
    "av": "videos can be neither made nor decoded; prepared clips can be trained on",
    "decord": "PyAV decodes every video, which takes longer",
}
#: With less free space, a trial at the papers' sizes may lack room for its checkpoints.
LITTLE_DISK_GIB = 1
#: Seconds until a killed process's lock must be free; on a shared folder its server decides.
FREED_S = 10
#: Names of the findings about trials.
TRIAL, PACKED = "trial", "packed"


def examine(store: StoreFiles, device: str, *, full: bool) -> Iterator[Finding]:
    """Yield every finding as soon as it is known. `device` is "auto" (all devices), "cpu" or "cuda".

    Raises ResourceError for "cuda" without a GPU.
    """
    trainer = needed_packages()
    devices = _devices(device) if trainer.state == "ok" else []
    yield Finding("python", "ok", platform.python_version())
    yield trainer
    for name in OPTIONAL:
        yield optional_package(name)
    yield machine()
    yield store_folder(store)
    yield from socket_findings()
    if devices:
        yield from determinism(devices, full=full)


# ---- the machine -----------------------------------------------------------------------------------------------------


def needed_packages() -> Finding:
    """Return whether the trainer's packages are installed, with their versions."""
    versions = {name: _version(name) for name in NEEDED}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Finding("trainer", "problem", f"not installed: {', '.join(missing)}; training needs them")
    if reason := _import_fails("torch"):
        return Finding("trainer", "problem", f"torch {versions['torch']} cannot be imported: {reason}")
    return Finding("trainer", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))


def optional_package(name: str) -> Finding:
    """Return the version of an optional package, or what does not work without it."""
    version = _version(name)
    if version is None:
        return Finding(name, "note", f"not installed: {OPTIONAL[name]}")
    # Only torchvision must match torch; the trainer does not import the others.
    if name == "torchvision" and not _import_fails("torch") and (reason := _import_fails(name)):
        what = f"{version} cannot be imported with torch {_version('torch')}; their versions must match: {reason}"
        return Finding(name, "problem", what)
    return Finding(name, "ok", version)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_fails(module: str) -> str:
    try:
        importlib.import_module(module)
    except Exception as error:  # a library that does not match may raise anything
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return ""


def machine() -> Finding:
    """Return the machine's cores, memory and system."""
    parts = [f"{cores()} core{'s' if cores() != 1 else ''}", f"{memory_bytes() / GIB:.0f} GiB of memory"]
    return Finding("machine", "ok", ", ".join([*parts, f"{platform.system()} {platform.machine()}"]))


def store_folder(store: StoreFiles) -> Finding:
    """Return whether the store can hold trials: atomic writes, locks, free space. Makes its folder if it is missing."""
    try:
        store.check()
        store.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=store.root) as scratch:
            for content in ("first", "second"):  # renamed to a new name, then over an existing file
                write_atomic(Path(scratch) / "file", content)
                if (Path(scratch) / "file").read_text(encoding="utf-8") != content:
                    return Finding("store", "problem", f"{store.root}: a renamed file keeps its old content")
            if problem := _lock_problem(store, Path(scratch).name.lstrip(".")):
                return Finding("store", "problem", f"{store.root}: {problem}")
        free = free_bytes(store.root) / GIB
    except StoreError as error:
        return Finding("store", "problem", str(error).strip())
    except OSError as error:
        return Finding("store", "problem", f"{store.root} cannot be written to: {error.strerror or error}")
    little = free < LITTLE_DISK_GIB
    text = f"{store.root}: writes are atomic, locks work, {free:.1f} GiB free"
    return Finding("store", "note" if little else "ok", f"{text}: not much for trials" if little else text)


def _lock_problem(store: StoreFiles, name: str) -> str:
    """Return what is wrong with locks; empty if another process sees a lock as held, and as free after its holder is
    killed."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=_hold, args=(store, name, theirs), daemon=True)
    holder.start()
    theirs.close()  # otherwise the process's end would go unnoticed
    lock = store.lock_here(name)
    try:
        if refusal := ours.recv():
            return f"no lock can be taken: {refusal}"
        with suppress(Timeout), lock.acquire(timeout=0):
            return "a lock does not exclude: two processes can hold it at once"
        holder.kill()
        with suppress(Timeout), lock.acquire(timeout=FREED_S):
            return ""
        return "a lock outlives its holder: after a crash no process can take it"
    except EOFError:
        return "no lock can be taken: the process that asked for one died"
    finally:
        holder.kill()
        holder.join()
        Path(lock.lock_file).unlink(missing_ok=True)


def _hold(store: StoreFiles, name: str, answer: Connection) -> None:
    try:
        with store.lock_here(name):
            answer.send("")
            answer.recv()  # blocks: the lock is held until this process is killed
    except (OSError, NotImplementedError) as error:
        answer.send(str(error))


# ---- the trials ------------------------------------------------------------------------------------------------------


def _devices(name: str) -> list[torch.device]:
    import torch

    from kdtune.train.session import choose_device

    choose_device(name)  # refuses "cuda" without a GPU
    gpus = [torch.device("cuda", place) for place in range(torch.cuda.device_count())] if name != "cpu" else []
    return gpus if name == "cuda" else [torch.device("cpu"), *gpus]


def determinism(devices: list[torch.device], *, full: bool) -> Iterator[Finding]:
    """Yield a finding on each device and on short trials there.

    Each trial runs twice; the first one (with `full`, each one) also runs in two processes at once.
    """
    import torch

    from kdtune.doctor.repeat import Pair, short_clips, short_trials

    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
        yield Finding("cuda", "note", f"torch sees no GPU; it is built for {built}")
    with tempfile.TemporaryDirectory(prefix="kdtune-doctor-") as scratch, Pair() as pair:
        clips = short_clips(Path(scratch) / "clips", full=full)
        for device in devices:
            configs = short_trials(full=full, cpu=device.type == "cpu")
            yield _described(device, configs[0], clips)
            for config in configs:
                yield from of_trial(config, clips.folder, device, pair if full or config is configs[0] else None)


def _described(device: torch.device, config: TrialConfig, clips: ClipStore) -> Finding:
    import torch

    from kdtune.train.profile import profile

    seen = profile(config, device, clips)
    text = f"{seen['device']}, {seen['cpu_capability']}"
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / GIB
        text = f"{seen['device']}, {memory:.0f} GiB, CUDA {seen['cuda']}, cuDNN {seen['cudnn']}"
    return Finding(str(device), "ok", text)


def of_trial(config: TrialConfig, clips: Path, device: torch.device, pair: Pair | None) -> Iterator[Finding]:
    """Yield whether a trial repeats its bits alone and, if so, beside a copy of itself; a digest compares machines."""
    from kdtune.doctor.repeat import difference, trained_twice

    clip = config.clip
    network = f"{config.architecture}, {clip.frames} frames of {clip.size}²"
    name = f"{device}, {network}, {config.precision}, {config.loss.contrast}"
    alone, problem = trained_twice(config, clips, device)
    if problem:
        yield Finding(TRIAL, "problem", f"{name}: {problem}")
        return
    yield Finding(TRIAL, "ok", f"{alone.digest} {name}")
    if pair is not None:
        both = pair.trained(config, clips, device)
        problem = next(filter(None, (difference(alone, its) for its in both)), "")
        text = f"{name}, two at a time: {problem}" if problem else f"{alone.digest} {name}, two at a time"
        yield Finding(PACKED, "problem" if problem else "ok", text)
