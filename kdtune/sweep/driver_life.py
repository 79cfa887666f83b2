"""Find out whether a sweep's driver is alive, without comparing the clocks of two machines.

A driver holds the sweep's lock while it runs, and the operating system releases it however the driver ends. In a store
behind a URL the lock is an object that the driver touches every few seconds, so a check compares two readings of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from pydantic import FiniteFloat

from kdtune.history.rows import parsed
from kdtune.store import StoreFiles, SweepFiles
from kdtune.store.files import read_json
from kdtune.store.lease import BEAT_S, EXPIRY_S, clock
from kdtune.store.seal import passed_over

#: Seconds without a touch of the lock, by the reader's clock, after which the first look counts a driver behind a URL
#: as dead. Later looks wait for EXPIRY_S, when its lock is free: a busy machine may touch it late.
SILENT_S = 4 * BEAT_S
#: Seconds between two readings of the lock.
LOOK_S = 0.5


@dataclass(frozen=True)
class Driver:
    """Who runs a sweep, as it says itself in driver.json."""

    host: str
    pid: int
    since: FiniteFloat
    """Seconds since 1970, by the driver's clock."""
    address: str | None = None
    """Address of the cluster; None if the sweep runs on the driver's machine."""
    seconds: FiniteFloat = 0.0
    """Seconds that it had run when it wrote this, by the driver's clock."""


def read_driver(files: SweepFiles) -> Driver | None:
    """Return the content of driver.json; None if it is missing, or damaged, which is noted."""
    record = passed_over(lambda: read_json(files.driver, ("host", "pid", "since")), None)
    return None if record is None else passed_over(lambda: parsed(Driver, record, files.driver), None)


class DriverLife:
    """Checks the driver of one sweep."""

    def __init__(self, store: StoreFiles, name: str) -> None:
        self._store, self._lock = store, f"sweep-{name}"
        self.files = store.sweep(name)
        self._beat: str | None = None
        self._since: float | None = None
        """When `_beat` was first seen, by this process's clock; None before the first look."""

    def look(self) -> tuple[Driver | None, bool]:
        """Return the driver's record and whether the driver is alive; (None, False) if there is no record.

        A recorded driver that is not alive has died. With a store behind a URL the first call waits for a touch of the
        lock: about BEAT_S for a living driver, SILENT_S for a dead one.
        """
        alive = self._is_alive()
        driver = read_driver(self.files)
        return driver, alive and driver is not None

    def alive(self) -> Driver | None:
        """Return the driver that runs the sweep, or None."""
        driver, alive = self.look()
        return driver if alive else None

    def _is_alive(self) -> bool:
        if self._store.is_locked_here(self._lock):
            return True
        if self._store.mirror is None or not self.files.driver.exists():
            return False
        first = self._since is None
        while (beat := self._store.lock_beat(self._lock)) is not None:
            now = clock()
            if self._since is None or beat != self._beat:
                touched = self._since is not None
                self._beat, self._since = beat, now
                if touched:
                    return True
            elif not first:
                return now - self._since < EXPIRY_S
            elif now - self._since >= SILENT_S:
                return False
            time.sleep(LOOK_S)
        return False
