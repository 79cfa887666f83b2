"""The lock that allows one driver per sweep, and the record by which other processes identify the driver."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import TracebackType

from filelock import Timeout

from kdtune.errors import Problem, UserError
from kdtune.store import StoreFiles, SweepFiles
from kdtune.store.files import write_json
from kdtune.sweep.driver_life import Driver, read_driver
from kdtune.urls import SecretUrl

#: Seconds between two updates of a driver's running time in its record.
BEAT_S = 5.0
#: Seconds to try for the lock: a process that checks the driver (driver_life.py) holds it for a moment.
TRY_S = 1.0


class DriverLock:
    """Makes this process the sweep's driver within the context. Raises UserError on entry if there is another."""

    def __init__(self, store: StoreFiles, name: str, address: str | None) -> None:
        self.files, self.address = store.sweep(name), address
        self._name = name
        self._lock = store.lock(f"sweep-{name}")
        self._over = threading.Event()

    def __enter__(self) -> DriverLock:
        try:
            self._lock.acquire(timeout=TRY_S)
        except Timeout:
            raise UserError([Problem(f"sweep {self._name}", _who(self.files, self._name))]) from None
        # The lock is held: no other process writes these files. A killed driver may have left some.
        self.files.stop.unlink(missing_ok=True)
        address = None if self.address is None else str(SecretUrl(self.address))
        self._driver = Driver(socket.gethostname(), os.getpid(), time.time(), address)
        self._began = time.monotonic()
        write_json(self.files.driver, asdict(self._driver))
        self._beating = threading.Thread(target=self._beat, name="kdtune-presence", daemon=True)
        self._beating.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        self._lock.release()

    def close(self) -> None:
        """Record that the driver has ended. The lock is released later, at the latest when the process ends."""
        self._over.set()
        self._beating.join()
        self.files.driver.unlink(missing_ok=True)
        self.files.stop.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                seconds = time.monotonic() - self._began
                write_json(self.files.driver, asdict(replace(self._driver, seconds=seconds)))
            except OSError:  # the store cannot be reached; the next write reports it
                continue


@contextmanager
def nobody_runs(store: StoreFiles, name: str) -> Iterator[None]:
    """Prevent drivers from running the sweep within the context. Raises UserError if one runs it already."""
    lock = store.lock(f"sweep-{name}")
    try:
        lock.acquire(timeout=TRY_S)
    except Timeout:
        hint = "the driver publishes to MLflow itself; stop it, or publish after it has ended"
        raise UserError([Problem(f"sweep {name}", _who(store.sweep(name), name), hint)]) from None
    try:
        store.sweep(name).driver.unlink(missing_ok=True)  # what a killed driver left
        yield
    finally:
        lock.release()


def _who(files: SweepFiles, name: str) -> str:
    other = read_driver(files)
    if other is None:
        return "another process runs or publishes it"
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(other.since))
    where = f"host {other.host}, process {other.pid}, since {since}"
    return f"another driver runs it ({where}): watch it with `kdtune status {name}`"
