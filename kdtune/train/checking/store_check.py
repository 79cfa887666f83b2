"""Check a store for damage, and set damaged files aside so that the next run makes them again.

Reads every record; compares every result with its rows and checkpoint, and every block of targets and stored frame with
its digest. A repair holds the lock of the trial or sweep, so it never touches files in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from filelock import Timeout

from kdtune.clips.machine import cores
from kdtune.errors import Problem, StoreError
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json, set_aside
from kdtune.store.kinds import REMEDIES, records
from kdtune.store.seal import passed_over
from kdtune.train.checking.store_repair import make_incomplete, problem_in, repair_of
from kdtune.train.checkpoint import read_checkpoint, trained_weights
from kdtune.train.soundness import complete_rows
from kdtune.train.targets import is_block


@dataclass(frozen=True)
class Damage:
    """A damaged file, or one that disagrees with another."""

    path: Path
    what: str
    remedy: str
    lock: str | None = None
    """Name of the lock that its writers hold; None if they hold none."""
    repair: Callable[[], object] | None = field(default=None, compare=False)
    """Sets the file aside; None if that would not help."""

    def __str__(self) -> str:
        return f"{Problem(str(self.path), self.what)}; {self.remedy}"

    def repaired(self, store: StoreFiles) -> str | None:
        """Set the file aside; return None, or the reason if it was left."""
        if self.repair is None:
            return "nothing to repair here"
        try:
            if self.lock is None:
                self.repair()
            else:
                with store.lock(self.lock).acquire(timeout=0):
                    self.repair()
        except Timeout:
            return "left alone: it is in use"
        except OSError as error:
            return f"cannot be set aside: {error.strerror}"
        return None


def damages(store: StoreFiles) -> Iterator[Damage]:
    """Yield the damaged records, checkpoints, targets and frames of a store; behind a URL, of this machine's copy.

    Raises StoreError if something cannot be read at all.
    """
    from kdtune.clips.frames.repair import problems_of  # it imports a video decoder, which only this check needs

    bad: set[Path] = set()
    for path, kind in records(store.root):
        if (what := problem_in(path, kind)) is not None:
            bad.add(path)
            yield Damage(path, what, kind.remedy, _lock(path, store), repair_of(path, kind, store))
    for files in store.trials():
        if bad.isdisjoint((files.config, files.result_file, files.epochs)):
            yield from _disagreements(files)
        yield from _other_checkpoints(files)
    for path in sorted(store.root.glob("targets/*/epoch_*/*.npy")):
        if not path.name.startswith(".") and not is_block(path):
            repair = partial(set_aside, path)
            yield Damage(path, "is damaged: it does not match its checksum", REMEDIES["targets"], None, repair)
    for folder in store.clip_stores():
        for problem in problems_of(folder, cores()):
            place, _, what = problem.partition(": ")
            yield Damage(Path(place), what or problem, REMEDIES["clips"])


def _disagreements(files: TrialFiles) -> Iterator[Damage]:
    """Yield the first disagreement between result, rows and checkpoint of a trial whose records are readable."""
    identity = passed_over(lambda: read_json(files.config), None) or {}
    imported = "imported" in identity
    remedy = REMEDIES["imported" if imported else "checkpoint"]
    lock = f"trial-{files.key}"
    try:
        if files.result() is None:
            return
        if not imported:
            complete_rows(files)
        if files.mirror is None or files.checkpoint.exists():
            trained_weights(files)
    except StoreError as error:
        problem = error.problems[0]
        where = Path(problem.where)
        repair = None if imported else partial(make_incomplete, files, where)
        yield Damage(where, problem.what.partition("; ")[0], remedy, lock, repair)


def _other_checkpoints(files: TrialFiles) -> Iterator[Damage]:
    """Yield the damaged checkpoints that no result covers: of incomplete trials, previous ones, those of stages."""
    incomplete = [files.checkpoint] if not files.result_file.exists() else []
    for path in [*incomplete, files.checkpoint_before, *sorted(files.folder.glob("stage_*.pt"))]:
        if not path.exists():
            continue
        try:
            read_checkpoint(path)
        except StoreError as error:
            name = "kept" if path.name.startswith("stage_") else "checkpoint"
            what = error.problems[0].what.partition("; ")[0]
            yield Damage(path, what, REMEDIES[name], f"trial-{files.key}", partial(set_aside, path))


def _lock(path: Path, store: StoreFiles) -> str | None:
    folder, name = path.relative_to(store.root).parts[0], path.parent.name
    return {"trials": f"trial-{name}", "sweeps": f"sweep-{name}"}.get(folder)


def report(store: StoreFiles, repair: bool, say: Callable[[str], object]) -> tuple[int, int]:
    """Print each damage with `say`, and with `repair` its repair; return the numbers found and left."""
    found = left = 0
    for damage in damages(store):
        found += 1
        say(str(damage))
        if repair:
            why = damage.repaired(store)
            left += why is not None
            say("  set aside" if why is None else f"  {why}")
    return found, left if repair else found
