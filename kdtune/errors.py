"""Every exception that kdtune raises on purpose.

KdtuneError
├── UserError                 the request cannot be carried out; shown without a traceback, exit code 2
│   ├── ConfigError           a file or --set has problems
│   ├── DataError             videos, lists or stored frames are missing, broken or too short
│   ├── StoreError            the store holds something that this version cannot use
│   │   ├── LockLost          another machine has taken over what this process was making
│   │   └── DamageError       a file of the store is damaged, or does not match its record
│   └── ResourceError         more cores, GPUs or memory requested than available
└── TrialError                a running trial could not continue; the sweep marks it failed
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from kdtune.urls import redact

#: A bug ends with EXIT_FAILED_TRIALS, too.
EXIT_OK, EXIT_FAILED_TRIALS, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Problem:
    """One problem: its place, the rule with the value got, and the allowed values."""

    where: str
    what: str
    allowed: str = ""

    def __str__(self) -> str:
        """Return the problem in one line, redacted: `what` may hold a library's message that quotes a URL."""
        return redact(f"{self.where}: {self.what}" + (f" (allowed: {self.allowed})" if self.allowed else ""))


class KdtuneError(Exception):
    """Root of every exception that kdtune raises on purpose."""


class UserError(KdtuneError):
    """An error that carries all problems found, so that the user can fix all of them at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(f"  {problem}" for problem in self.problems))

    @classmethod
    def at(cls, where: object, what: str, allowed: str = "") -> Self:
        """Return the error of a single problem."""
        return cls([Problem(str(where), what, allowed)])

    def __reduce__(self) -> tuple[type[UserError], tuple[list[Problem]]]:
        """Pickle the problems. By default the text would be passed, and each letter taken for a problem."""
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
    """A file of the store is damaged, or does not match its record. It may be made again."""


class ResourceError(UserError):
    """More cores, GPUs or memory requested than available."""


class TrialError(KdtuneError):
    """A running trial could not continue; the text gives the reason in plain words."""
