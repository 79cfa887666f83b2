"""The git commit of the working tree in which a sweep runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

#: Time limit for git in seconds. On a large tree or a slow disk its answer is not worth waiting longer.
PATIENCE_S = 5.0


def commit_tags(folder: Path) -> dict[str, str]:
    """Return MLflow's tag for the commit and a tag for changed tracked files; empty without git or a working tree."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    dirty = {} if changes is None else {"kdtune.git.dirty": str(bool(changes)).lower()}
    return {"mlflow.source.git.commit": commit, **dirty}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=PATIENCE_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
