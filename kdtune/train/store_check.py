"""Walks a store and names whatever in it is damaged; sets aside what is made again without it.

Every record is read, every result is held against its rows and its checkpoint, every block of targets and every stored
frame against its digest. Whoever repairs holds the lock of the trial or sweep, so nothing is touched that is in work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import Timeout

from kdtune.clips.machine import cores
from kdtune.errors import Problem, StoreError
from kdtune.store import Store, TrialFiles
from kdtune.store.files import read_json
from kdtune.store.kinds import REMEDIES, records
from kdtune.store.seal import passed_over
from kdtune.train.checkpoint import read_checkpoint, trained_weights
from kdtune.train.soundness import complete_rows
from kdtune.train.store_repair import aside, incomplete, mend_of, wrong
from kdtune.train.targets import is_block


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written, or that disagrees with another."""

    path: Path
    what: str
    remedy: str
    lock: str | None = None
    """The lock of whoever may be writing it; None for the lock of nobody."""
    mend: Callable[[], object] | None = field(default=None, compare=False)
    """Sets it aside; None where that would help nobody."""

    def __str__(self) -> str:
        return f"{Problem(str(self.path), self.what)}; {self.remedy}"

    def repaired(self, store: Store) -> str | None:
        """Set the file aside; return why not, or None where that was done."""
        if self.mend is None:
            return "nothing to repair here"
        try:
            if self.lock is None:
                self.mend()
            else:
                with store.lock(self.lock).acquire(timeout=0):
                    self.mend()
        except Timeout:
            return "left alone, for it is in work"
        except OSError as error:
            return f"cannot be set aside: {error.strerror}"
        return None


def damages(store: Store) -> Iterator[Damage]:
    """Yield what is damaged: records, checkpoints, targets, frames; of a store behind a URL, of its copy here.

    Raises StoreError where something cannot be read at all.
    """
    from kdtune.clips.repair import problems_of  # it decodes videos, which the rest of the store needs nobody for

    bad: set[Path] = set()
    for path, kind in records(store.root):
        if (what := wrong(path, kind)) is not None:
            bad.add(path)
            yield Damage(path, what, kind.remedy, _lock(path, store), mend_of(path, kind, store))
    for files in store.trials():
        if bad.isdisjoint((files.config, files.result_file, files.epochs)):
            yield from _trial(files)
        yield from _kept(files)
    for path in sorted(store.root.glob("targets/*/epoch_*/*.npy")):
        if not path.name.startswith(".") and not is_block(path):
            mend = aside(path)
            yield Damage(path, "is damaged: it does not match its checksum", REMEDIES["targets"], None, mend)
    for folder in store.clip_stores():
        for problem in problems_of(folder, cores()):
            place, _, what = problem.partition(": ")
            yield Damage(Path(place), what or problem, REMEDIES["clips"])


def _trial(files: TrialFiles) -> Iterator[Damage]:
    """Do the result, the rows and the checkpoint of a trial agree, whose records can be read?"""
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
        mend = None if imported else incomplete(files, where)
        yield Damage(where, problem.what.partition("; ")[0], remedy, lock, mend)


def _kept(files: TrialFiles) -> Iterator[Damage]:
    """The checkpoints that no result tells of."""
    incomplete = [files.checkpoint] if not files.result_file.exists() else []
    for path in [*incomplete, files.checkpoint_before, *sorted(files.folder.glob("stage_*.pt"))]:
        if not path.exists():
            continue
        try:
            read_checkpoint(path)
        except StoreError as error:
            name = "kept" if path.name.startswith("stage_") else "checkpoint"
            what = error.problems[0].what.partition("; ")[0]
            yield Damage(path, what, REMEDIES[name], f"trial-{files.key}", aside(path))


def _lock(path: Path, store: Store) -> str | None:
    folder, name = path.relative_to(store.root).parts[0], path.parent.name
    return {"trials": f"trial-{name}", "sweeps": f"sweep-{name}"}.get(folder)


def report(store: Store, repair: bool, say: Callable[[str], object]) -> tuple[int, int]:
    """Say each damage, and with `repair` what was done about it; return how many there are, and how many are left."""
    found = left = 0
    for damage in damages(store):
        found += 1
        say(str(damage))
        if repair:
            why = damage.repaired(store)
            left += why is not None
            say("  set aside" if why is None else f"  {why}")
    return found, left if repair else found
