"""Attempts at a trial that are killed at random lines, and the content of a store's files afterwards."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdtune.store import StoreFiles
from kdtune.store.seal import SEAL
from kdtune.train.checkpoint import content_digest, read_checkpoint
from kdtune.train.replay import CLOCK

#: What runs at a line (see tests/killed.py). Trials are killed in each of these kinds.
KINDS = ("session", "resume", "targets", "training", "evaluation", "cost", "rows", "checkpoint")
#: Content of a store that differs each time: all times.
TIMES = (*CLOCK, "epoch_seconds", "clip_ms")


def left(store: StoreFiles) -> dict[str, Any]:
    """Return the content of a store's files by path, without times and without the temporary files of killed writes."""
    found: dict[str, Any] = {}
    for path in sorted(store.root.rglob("*")):
        name = str(path.relative_to(store.root))
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.suffix == ".pt":
            parts = {part: value for part, value in read_checkpoint(path).items() if part not in CLOCK}
            parts["rows"] = [{part: v for part, v in row.items() if part not in CLOCK} for row in parts["rows"]]
            found[name] = content_digest(parts)
        elif path.suffix in (".json", ".jsonl"):
            text = re.sub(rf'"({"|".join(TIMES)})": [\d.e+-]+', "", path.read_text())
            found[name] = re.sub(rf'"{SEAL}": "\w+"', "", text)  # the digest covers times, too
        else:
            found[name] = path.read_bytes()
    return found


@dataclass
class Lives:
    """Attempts at one trial, killed at random lines. A life leads from an empty store to the end of the trial."""

    process: subprocess.Popen[str]
    draws: random.Random
    passed: Counter[str] = field(default_factory=Counter)
    """Lines as `kind file:line` → how often a single attempt has reached it, at most."""
    kills: list[dict[str, Any]] = field(default_factory=list)
    damaged: int = 0
    _kinds: list[str] = field(default_factory=list)

    def attempt(self, store: StoreFiles, place: str | None = None, n: int = 1, **how: Any) -> dict[str, Any]:
        """Make one attempt, killed when it reaches the line `place` for the n-th time. Return its result."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        ask = {"store": str(store.root), "place": place, "n": n, "every_s": None, "from_outside": False, **how}
        print(json.dumps(ask), file=self.process.stdin, flush=True)
        said = json.loads(self.process.stdout.readline())
        self.passed |= Counter(said["passed"])
        if said["exit"] != 0:
            assert said["exit"] == -signal.SIGKILL, f"failed, as it says on stderr: {ask}"
            self.kills.append(said)
        return said

    def attempt_anywhere(self, store: StoreFiles, **how: Any) -> dict[str, Any]:
        """Draw a line: the kinds in turn, any line of a kind, and early passages more often, for longer lives."""
        if not self._kinds:
            self._kinds = self.draws.sample(KINDS, len(KINDS))
        kind = self._kinds.pop()
        place = self.draws.choice(sorted(line for line in self.passed if line.startswith(f"{kind} ")))
        return self.attempt(store, place, self.draws.randint(1, self.draws.randint(1, self.passed[place])), **how)

    def live(self, store: StoreFiles, damaging: float = 0.0, **how: Any) -> None:
        """Make attempts until one ends the trial. After a kill, damage the checkpoint with probability `damaging`."""
        how["every_s"] = self.draws.choice([None, 0.0])
        while self.attempt_anywhere(store, **how)["exit"] != 0:
            for files in store.trials():
                both = files.checkpoint.exists() and files.checkpoint_before.exists()
                if both and files.result() is None and self.draws.random() < damaging:
                    self.damage(files.checkpoint)

    def damage(self, path: Path) -> None:
        """Cut off the end of a file, or flip one of its bits, at a random place."""
        content = bytearray(path.read_bytes())
        at = self.draws.randrange(len(content))
        if self.draws.random() < 0.5:
            del content[at:]
        else:
            content[at] ^= 1 << self.draws.randrange(8)
        path.write_bytes(content)
        self.damaged += 1

    def counts(self) -> dict[str, int]:
        """Return the numbers of kills, of lines hit, of lines hit in different steps, and of kills by kind."""
        lines = {kill["place"] for kill in self.kills}
        moments = {tuple(kill[name] for name in ("place", "trial", "epoch", "step")) for kill in self.kills}
        kinds = Counter(kill["place"].split()[0] for kill in self.kills)
        counts = {"kills": len(self.kills), "lines": len(lines), "moments": len(moments), "damaged": self.damaged}
        return counts | {kind: kinds[kind] for kind in KINDS}
