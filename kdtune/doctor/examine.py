"""Is this machine ready, and what would not be deterministic on it? torch is imported once it is known to be there."""

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
from kdtune.doctor.doors import doors
from kdtune.doctor.finding import Finding
from kdtune.errors import StoreError
from kdtune.store import Store
from kdtune.store.files import write_atomic

if TYPE_CHECKING:
    import torch

    from kdtune.clips.store import ClipStore
    from kdtune.config.trial import TrialConfig
    from kdtune.doctor.repeat import Pair

#: What the trainer needs.
NEEDED = ("torch", "numpy", "pandas", "pyarrow", "pydantic", "filelock", "pillow")
#: What there is not without each of the others.
OPTIONAL = {
    "torchvision": "the networks tdn_light and torchvision's own cannot be trained",
    "ray": "no sweeps; `train` and `replay` go without",
    "optuna": "no sweeps; `train` and `replay` go without",
    "mlflow": "no pages: `ui` does not start, and trials are not shown there",
    "av": "videos can be neither made nor decoded; prepared clips can be trained on",
    "decord": "PyAV decodes all videos alone, which takes longer",
}
#: With less, a trial at the papers' sizes may not have room for its checkpoints.
LITTLE_DISK_GIB = 1
#: How long a killed process's lock may take to be free; on a shared folder its server decides.
FREED_S = 10
#: The names of the findings that `examine` makes of trials.
TRIAL, PACKED = "trial", "packed"


def examine(store: Store, device: str, *, full: bool) -> Iterator[Finding]:
    """Every finding as soon as it is made. `device` is "auto" (all there are), "cpu" or "cuda".

    Raises ResourceError for a device that is not there.
    """
    trainer = needed_packages()
    devices = _devices(device) if trainer.state == "ok" else []
    yield Finding("python", "ok", platform.python_version())
    yield trainer
    for name in OPTIONAL:
        yield optional_package(name)
    yield machine()
    yield store_folder(store)
    yield from doors()
    if devices:
        yield from determinism(devices, full=full)


# ---- the machine -----------------------------------------------------------------------------------------------------


def needed_packages() -> Finding:
    versions = {name: _version(name) for name in NEEDED}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Finding("trainer", "problem", f"not installed: {', '.join(missing)}; nothing can be trained without")
    if reason := _import_fails("torch"):
        return Finding("trainer", "problem", f"torch {versions['torch']} cannot be imported: {reason}")
    return Finding("trainer", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))


def optional_package(name: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(name, "note", f"not installed: {OPTIONAL[name]}")
    # The one that does not load beside every torch. The others are not the trainer's to import.
    if name == "torchvision" and not _import_fails("torch") and (reason := _import_fails(name)):
        what = f"{version} cannot be imported with torch {_version('torch')}; they must belong together: {reason}"
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
    except Exception as error:  # a library that does not fit may raise anything
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return ""


def machine() -> Finding:
    parts = [f"{cores()} core{'s' if cores() != 1 else ''}", f"{memory_bytes() / GIB:.0f} GiB of memory"]
    return Finding("machine", "ok", ", ".join([*parts, f"{platform.system()} {platform.machine()}"]))


def store_folder(store: Store) -> Finding:
    """Can trials be kept in the store? Makes its folder where there is none."""
    try:
        store.check()
        store.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=store.root) as scratch:
            for content in ("first", "second"):  # renamed to a new name, then over a file that is there
                write_atomic(Path(scratch) / "file", content)
                if (Path(scratch) / "file").read_text(encoding="utf-8") != content:
                    return Finding("store", "problem", f"{store.root}: a file that was renamed keeps its old content")
            if problem := _lock_problem(store, Path(scratch).name.lstrip(".")):
                return Finding("store", "problem", f"{store.root}: {problem}")
        free = free_bytes(store.root) / GIB
    except StoreError as error:
        return Finding("store", "problem", str(error).strip())
    except OSError as error:
        return Finding("store", "problem", f"{store.root} cannot be written to: {error.strerror or error}")
    little = free < LITTLE_DISK_GIB
    text = f"{store.root}: files are replaced whole, locks exclude, {free:.1f} GiB free"
    return Finding("store", "note" if little else "ok", f"{text}: not much for trials" if little else text)


def _lock_problem(store: Store, name: str) -> str:
    """Does another process see a lock as held, and as free when its holder is killed? Empty where both are so."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=_hold, args=(store, name, theirs), daemon=True)
    holder.start()
    theirs.close()  # or the end of the process would go unseen
    lock = store.lock_here(name)
    try:
        if refusal := ours.recv():
            return f"no lock can be had: {refusal}"
        with suppress(Timeout), lock.acquire(timeout=0):
            return "a lock does not exclude: two processes can hold it at once"
        holder.kill()
        with suppress(Timeout), lock.acquire(timeout=FREED_S):
            return ""
        return "a lock outlives its holder: after a crash nobody can have it"
    except EOFError:
        return "no lock can be had: the process that asked for one died"
    finally:
        holder.kill()
        holder.join()
        Path(lock.lock_file).unlink(missing_ok=True)


def _hold(store: Store, name: str, said: Connection) -> None:
    try:
        with store.lock_here(name):
            said.send("")
            said.recv()  # never comes: the lock is held until this process is killed
    except (OSError, NotImplementedError) as error:
        said.send(str(error))


# ---- the trials ------------------------------------------------------------------------------------------------------


def _devices(name: str) -> list[torch.device]:
    import torch

    from kdtune.train.session import choose_device

    choose_device(name)  # refuses a GPU that is not there
    gpus = [torch.device("cuda", place) for place in range(torch.cuda.device_count())] if name != "cpu" else []
    return gpus if name == "cuda" else [torch.device("cpu"), *gpus]


def determinism(devices: list[torch.device], *, full: bool) -> Iterator[Finding]:
    """Each device, and short trials on it: every one twice, and the first (all of them, if `full`) by two processes."""
    import torch

    from kdtune.doctor.repeat import Pair, short_clips, short_trials

    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
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
    """Does a trial repeat its bits alone and, where it does, beside itself? With a digest to compare machines by."""
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
