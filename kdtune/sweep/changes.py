"""Explain what changed in a sweep file since its last run, and what that means for the trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdtune.config.reading.reader import parse_file
from kdtune.config.sweep import SweepConfig
from kdtune.errors import ConfigError
from kdtune.store import SweepFiles
from kdtune.store.files import read_json
from kdtune.store.seal import passed_over


def explained(files: SweepFiles, sweep: SweepConfig, text: str) -> list[str]:
    """Return lines for the user; none on the first run, and none if nothing that affects the search has changed."""
    before = passed_over(lambda: read_json(files.sweep, ("ledger", "blocks", "text")), None)
    if before is None:
        return []
    if before["ledger"] == files.ledger(sweep.ledger).name:
        asked = {block.label: sweep.candidates(block) for block in sweep.blocks()}
        changed = [f"{block}: {n} → {asked[block]}" for block, n in before["blocks"].items() if asked[block] != n]
        return [f"candidates have changed ({', '.join(changed)}): the same sequence continues"] if changed else []
    if files.ledger(sweep.ledger).exists():
        return ["the sweep file is the same as in an earlier run: that search resumes"]
    names = ", ".join(differences(_read(before["text"]), _read(text))) or "--set, or kdtune itself"
    return [
        f"the sweep file has changed since the last run ({names}): its candidates are asked again; "
        "trials that the store has are reused, and unfinished ones resume"
        + ("" if sweep.search.from_ else f"; with `search.from: [{sweep.name}]` the search also learns from them")
    ]


def _read(text: str) -> Mapping[str, Any]:
    try:
        return parse_file(text, Path("sweep.yaml"))[0]
    except ConfigError:  # an earlier version accepted it
        return {}


def differences(was: Any, now: Any, path: str = "") -> list[str]:
    """Return the dotted paths at which two JSON values differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        names = dict.fromkeys([*was, *now])
        return [p for n in names for p in differences(was.get(n), now.get(n), f"{path}.{n}" if path else str(n))]
    return [] if was == now else [path]
