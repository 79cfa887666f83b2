"""Find what earlier sweeps of the store know for `search.from`: values of this sweep's space and their outcomes.

An earlier candidate is used only if its trials are the ones that this sweep would train: the same keys, hence the same
epochs, data, teacher, seeds and trainer. Its outcome is read from the trials' records by this sweep's objectives. So
names and spaces of sweeps may differ, and a widened range or an added choice keeps all that was learned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from kdtune.config.key import TRAINER_SEMANTICS, canonical
from kdtune.config.points import fitted
from kdtune.config.space import Scalar, resolve
from kdtune.config.sweep import SweepConfig
from kdtune.errors import ConfigError, KdtuneError, Problem
from kdtune.history.events import Asked, Known, KnownCandidate, Outcome
from kdtune.near import did_you_mean
from kdtune.parse import JsonObject, shortened
from kdtune.store import StoreFiles
from kdtune.sweep.changes import differences
from kdtune.sweep.group import TrialGroup, outcome_in_store
from kdtune.sweep.groups import GroupFactory, KeyOf
from kdtune.sweep.ledger import Ledger

#: Maximum number of differences named.
SHOWN = 3
OUTSIDE, NOT_ENDED = "with values outside this space", "without a result that this sweep's seeds and objectives need"


@dataclass
class _Found:
    """The candidates of one earlier sweep."""

    candidates: list[KnownCandidate] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    """Reason → number of candidates that are not used for it."""

    def words(self, name: str) -> str:
        """Return one line for the user."""
        states = Counter(candidate.outcome.state for candidate in self.candidates)
        ends = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        left = "; ".join(f"{number} {reason}" for reason, number in self.unused.items())
        used = f"{len(self.candidates)} candidates of {name} are known before candidate 0 ({ends})"
        return f"search.from: {used}{f'; not used: {left}' if left else ''}"


def known_candidates(sweep: SweepConfig, ledger: Ledger, store: StoreFiles, key_of: KeyOf) -> Iterator[str]:
    """Look up what the search starts from, unless the ledger records it already, and add it to the ledger.

    Yields lines for the user. Raises ConfigError, with all problems, if a sweep named in `search.from` is unknown or
    has nothing that this sweep can use.
    """
    wanted = sweep.search.from_
    if not wanted or ledger.known is not None:
        return
    there = store.sweeps()
    names = there if wanted == "compatible" else wanted
    problems: list[Problem] = []
    found: dict[str, _Found] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for i, name in enumerate(names):
        place = f"search.from.{i}"
        if name not in there:
            what = f"the store holds no sweep named {name!r}{did_you_mean(name, there)}"
            problems.append(Problem(place, what, ", ".join(there) or "none yet"))
            continue
        one = found[name] = _Reader(sweep, store, key_of).read(name, ledger.path)
        if not one.candidates and wanted != "compatible":
            why = "; ".join(f"{number} {reason}" for reason, number in one.unused.items()) or "it has none yet"
            problems.append(Problem(place, f"this sweep can use no candidate of {name}: {why}"))
        one.candidates = [known for known in one.candidates if (known.block, known.keys) not in seen]
        seen.update((known.block, known.keys) for known in one.candidates)
    if problems:
        raise ConfigError(problems)
    ledger.known = Known(candidates=tuple(known for one in found.values() for known in one.candidates))
    ledger.add(ledger.known)
    lines = [one.words(name) for name, one in found.items() if one.candidates]
    yield from lines or ["search.from: no other sweep of the store has trained a candidate that this one would train"]


class _Reader:
    """Reads the candidates of earlier sweeps as candidates of `sweep`."""

    def __init__(self, sweep: SweepConfig, store: StoreFiles, key_of: KeyOf) -> None:
        self.sweep, self.store = sweep, store
        self.made = GroupFactory(sweep, key_of)

    def read(self, name: str, own: Path) -> _Found:
        """Return what a sweep knows by all its ledgers, those of earlier versions of its file included."""
        found, seen = _Found(), set[tuple[str, tuple[str, ...]]]()
        for path in sorted(self.store.sweep(name).fetch().folder.glob("ledger_*.jsonl")):
            if path == own:
                continue
            ledger = Ledger(path, write=False)
            for asked in ledger.candidates():
                known, reason = self._candidate(name, asked, ledger.ended.get(asked.group))
                found.unused[reason] += bool(reason)
                for candidate in known:
                    if (candidate.block, candidate.keys) not in seen:
                        seen.add((candidate.block, candidate.keys))
                        found.candidates.append(candidate)
        found.unused = +found.unused
        return found

    def _candidate(self, name: str, asked: Asked, ended: Outcome | None) -> tuple[list[KnownCandidate], str]:
        """Return an earlier candidate as it is known in the blocks of this sweep; if in none, also the reason."""
        known: list[KnownCandidate] = []
        reason = OUTSIDE
        for group in self._groups(asked):
            if set(group.asked.keys).isdisjoint(asked.keys):
                reason = self._difference(group, asked)
                continue
            outcome = self._outcome(group, ended)
            if outcome is None:
                reason = NOT_ENDED
                continue
            block = group.asked.block
            assert block is not None
            values = dict(group.asked.values)
            known.append(KnownCandidate(sweep=name, block=block, keys=group.asked.keys, values=values, outcome=outcome))
        return known, "" if known else reason

    def _groups(self, asked: Asked) -> Iterable[TrialGroup]:
        """Yield the groups that this sweep would make of an earlier candidate, one for each block that fits."""
        # Searched values win over those that a trial merely has; a parameter without effect is None in the latter.
        form = (self.store.trial(asked.keys[0]).fetch().identity() or {}).get("trial") or {}
        named = (*_flat(form), *asked.params[0].items(), *asked.values.items())
        given = {resolve(name): value for name, value in named}
        for block in self.sweep.blocks():
            if any(given.get(resolve(name), value) != value for name, value in block.values.items()):
                continue
            values = fitted(self.sweep.space(block), block.values, given, whole=True)
            if values is None:
                continue
            with suppress(ValidationError, KdtuneError):  # values that clash, or data that are not there
                yield self.made.candidate(block, 0, values, {})

    def _outcome(self, group: TrialGroup, ended: Outcome | None) -> Outcome | None:
        """Return the outcome of the group's trials by this sweep's objectives; None if the store does not tell.

        Trials that were pruned in the earlier sweep count as pruned at the same stage unless they are complete.
        """
        outcome = outcome_in_store(group, self.sweep.objectives, self.store)
        if outcome is None and ended is not None and ended.stage is not None:
            never = math.inf if self.sweep.objectives[0].mode == "max" else -math.inf
            asked = replace(group.asked, thresholds={ended.stage: never})
            outcome = outcome_in_store(replace(group, asked=asked), self.sweep.objectives, self.store)
        if outcome is None or outcome.state not in ("complete", "pruned"):
            return None
        return replace(outcome, stages={stage: v for stage, v in outcome.stages.items() if math.isfinite(v)})

    def _difference(self, group: TrialGroup, asked: Asked) -> str:
        """Return how the trials of an earlier candidate differ from this sweep's."""
        stored = self.store.trial(asked.keys[0]).fetch().identity() or {}
        trial: JsonObject = stored.get("trial") or {}
        mine = min(group.configs, key=lambda config: config.seed != asked.seeds[0])
        paths = differences(trial, form := canonical(mine)) if trial else []
        if not trial:
            return "whose trials the store no longer has"
        if stored.get("semantics") != TRAINER_SEMANTICS:
            return "trained by another version of kdtune's trainer"
        if not paths:
            return "with other videos, another teacher or another start"
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        return f"that differ in {', '.join(_values(path, trial, form) for path in paths[:SHOWN])}{more}"


def _flat(form: JsonObject, prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    """Yield (dotted path, value) of the scalars of a trial's canonical form."""
    for name, value in form.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, str | int | float):
            yield f"{prefix}{name}", value


def _values(path: str, there: JsonObject, here: JsonObject) -> str:
    """Return a setting with its values in the trial of the earlier sweep and in this one."""
    was, now = dict(_flat(there)), dict(_flat(here))
    return f"{path} ({shortened(was[path])}, here {shortened(now[path])})" if path in was and path in now else path
