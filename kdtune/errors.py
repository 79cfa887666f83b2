"""Every exception that kdtune raises on purpose.

KdtuneError
├── UserError                 what was asked for cannot be done; shown without a traceback, exit code 2
│   ├── ConfigError           a file or --set has problems
│   ├── DataError             videos, lists or stored frames are missing, broken or too short
│   ├── StoreError            the store holds something that this version cannot use
│   │   ├── LockLost          another machine has taken over what this process was making
│   │   └── DamageError       a file of the store is damaged, or disagrees with what was recorded of it
│   └── ResourceError         more cores, GPUs or memory asked for than there are
└── TrialError                a trial that ran and could not go on; the sweep marks it failed
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kdtune.urls import redact

#: A bug ends with EXIT_FAILED_TRIALS, too: nothing says that everything is fine.
EXIT_OK, EXIT_FAILED_TRIALS, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it stands, the rule with what was got, and what is allowed."""

    where: str
    what: str
    allowed: str = ""

    def __str__(self) -> str:
        """The problem in a line; without secrets, for `what` often is what a library said of a URL."""
        return redact(f"{self.where}: {self.what}" + (f" (allowed: {self.allowed})" if self.allowed else ""))


class KdtuneError(Exception):
    """The root of the tree above."""


class UserError(KdtuneError):
    """Carries every problem found, so that the user mends all of them at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(f"  {problem}" for problem in self.problems))

    def __reduce__(self) -> tuple[type[UserError], tuple[list[Problem]]]:
        """Pickle the problems: by its text alone, another process would take each letter for a problem."""
        return type(self), (self.problems,)


class ConfigError(UserError):
    """A configuration file or a --set has problems."""


class DataError(UserError):
    """Videos, lists or stored frames are missing, broken or too short."""


class StoreError(UserError):
    """The store holds something that this version cannot use."""


class LockLost(StoreError):
    """Another machine has taken over what this process was making, while it was stopped or cut off."""


class DamageError(StoreError):
    """A file of the store is damaged, or disagrees with what was recorded of it: it may be made again."""


class ResourceError(UserError):
    """More cores, GPUs or memory asked for than there are."""


class TrialError(KdtuneError):
    """A trial that ran and could not go on, in plain words."""
