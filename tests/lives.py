"""Attempts at a trial, killed at lines that are drawn at random, and all that a store's files say afterwards."""

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

from kdtune.store import Store
from kdtune.store.seal import SEAL
from kdtune.train.checkpoint import content_digest, read_checkpoint
from kdtune.train.replay import CLOCK

#: What is going on at a line (tests/killed.py says which): in each of them trials are killed.
KINDS = ("session", "resume", "targets", "training", "evaluation", "cost", "rows", "checkpoint")
#: What of a store is other each time: all figures that a clock says.
TIMES = (*CLOCK, "epoch_seconds", "clip_ms")


def left(store: Store) -> dict[str, Any]:
    """All that a store's files say, by path; but for clocks, and for the temporary files of writes that were killed."""
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
            found[name] = re.sub(rf'"{SEAL}": "\w+"', "", text)  # it is of the times, too
        else:
            found[name] = path.read_bytes()
    return found


@dataclass
class Lives:
    """Attempts at one trial, killed at lines drawn at random. From an empty store to the end of the trial is a life."""

    process: subprocess.Popen[str]
    draws: random.Random
    passed: Counter[str] = field(default_factory=Counter)
    """Lines as `kind file:line`, each with how often one attempt at most has come to it."""
    kills: list[dict[str, Any]] = field(default_factory=list)
    damaged: int = 0
    _kinds: list[str] = field(default_factory=list)

    def attempt(self, store: Store, place: str | None = None, n: int = 1, **how: Any) -> dict[str, Any]:
        """One attempt, killed when it comes to the line `place` for the n-th time; returns what became of it."""
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

    def attempt_anywhere(self, store: Store, **how: Any) -> dict[str, Any]:
        """Every kind comes in its turn, and any of its lines; early passages more often, for longer lives."""
        if not self._kinds:
            self._kinds = self.draws.sample(KINDS, len(KINDS))
        kind = self._kinds.pop()
        place = self.draws.choice(sorted(line for line in self.passed if line.startswith(f"{kind} ")))
        return self.attempt(store, place, self.draws.randint(1, self.draws.randint(1, self.passed[place])), **how)

    def live(self, store: Store, damaging: float = 0.0, **how: Any) -> None:
        """Attempts, until one comes to the end. After a kill the last checkpoint is damaged with that probability."""
        how["every_s"] = self.draws.choice([None, 0.0])
        while self.attempt_anywhere(store, **how)["exit"] != 0:
            for files in store.trials():
                both = files.checkpoint.exists() and files.checkpoint_before.exists()
                if both and files.result() is None and self.draws.random() < damaging:
                    self.damage(files.checkpoint)

    def damage(self, path: Path) -> None:
        """Tear off its end or turn over one of its bits, wherever it may be."""
        content = bytearray(path.read_bytes())
        at = self.draws.randrange(len(content))
        if self.draws.random() < 0.5:
            del content[at:]
        else:
            content[at] ^= 1 << self.draws.randrange(8)
        path.write_bytes(content)
        self.damaged += 1

    def counts(self) -> dict[str, int]:
        """Kills, the different lines that they struck, those in the different steps of the trials, kills by kind."""
        lines = {kill["place"] for kill in self.kills}
        moments = {tuple(kill[name] for name in ("place", "trial", "epoch", "step")) for kill in self.kills}
        kinds = Counter(kill["place"].split()[0] for kill in self.kills)
        counts = {"kills": len(self.kills), "lines": len(lines), "moments": len(moments), "damaged": self.damaged}
        return counts | {kind: kinds[kind] for kind in KINDS}
