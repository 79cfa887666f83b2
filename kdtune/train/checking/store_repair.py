"""Find what is wrong with one record, and set it aside: here and, for a store behind a URL, there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from kdtune.config.key import digest
from kdtune.errors import Problem, StoreError
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json, read_jsonl, set_aside, set_damaged_lines_aside
from kdtune.store.kinds import Kind
from kdtune.store.seal import REMEDY

#: Files that a complete trial needs intact.
REQUIRED_RECORDS = ("config.json", "result.json", "epochs.jsonl")


def problem_in(path: Path, kind: Kind) -> str | None:
    """Return what is wrong with a record, or None."""
    try:
        if path.suffix == ".jsonl":
            read_jsonl(path, kind.needs)
            return None
        record = read_json(path, kind.needs) or {}
    except StoreError as error:
        return "; ".join(_without_path(problem, path) for problem in error.problems)
    if path.name == "config.json" and (digest(record) != path.parent.name):
        return "is damaged: it does not hash to the trial's key"
    return None


def _without_path(problem: Problem, path: Path) -> str:
    """Return a problem's text without `path` and advice, but with the line number if it has one."""
    line = problem.where.removeprefix(str(path)).removeprefix(":")
    what = problem.what.removesuffix(f"; {REMEDY}")
    return f"line {line} {what}" if line else what


def repair_of(path: Path, kind: Kind, store: StoreFiles) -> Callable[[], object]:
    """Return a function that sets a damaged record aside. Call it under its lock."""
    if store.mirror is not None and path.relative_to(store.root).parts[0] in ("trials", "sweeps"):
        return partial(_repair_both, path, kind, store)
    if _by_lines(path):
        return partial(set_damaged_lines_aside, path, kind.needs)
    if path.name in REQUIRED_RECORDS:
        return partial(make_incomplete, store.trial(path.parent.name), path)
    return partial(set_aside, path)


def _by_lines(path: Path) -> bool:
    """Return whether only the damaged lines of a record are set aside."""
    return path.suffix == ".jsonl" and path.name not in REQUIRED_RECORDS


def _repair_both(path: Path, kind: Kind, store: StoreFiles) -> None:
    """Replace this machine's copy with the remote one; if that is damaged too, set it aside here, remove it there."""
    mirror, folder = store.mirror, path.parent.relative_to(store.root).as_posix()
    assert mirror is not None
    set_aside(path)
    mirror.fetch(folder)
    if path.exists() and problem_in(path, kind) is None:
        return
    if path.exists() and _by_lines(path):
        set_damaged_lines_aside(path, kind.needs)
        mirror.publish(folder)
        return
    if path.exists():
        set_aside(path)
    mirror.withdraw(folder, path.name)
    if path.name in REQUIRED_RECORDS:
        make_incomplete(store.trial(path.parent.name), path)


def make_incomplete(files: TrialFiles, damaged: Path) -> None:
    """Set the file and the result aside, so that the trial resumes from what is intact."""
    for path in dict.fromkeys((files.result_file, damaged)):
        if path.exists() and path != files.folder:
            set_aside(path)
    files.withdraw_result()
