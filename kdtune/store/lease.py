"""A lock among all machines that share a remote store: an object that its holder touches every few seconds.

    locks/<name>/<generation>     {"copy": the holder's working copy, "host", "process", "beat": counts up, "free"}

The highest generation is the lock. It is free if

* its object says so,
* its holder used this working copy (the caller has the copy's file lock, so that holder is dead), or
* it stayed untouched for EXPIRY_S on the waiter's own clock while the waiter could read it. No machine compares its
  clock with another's.

To take a free lock, a machine creates the next generation, which only one can, and removes the ones below. A released
lock's object stays and says that it is free: if it were removed, a machine that had seen it expire could create the
same generation again.

A holder must not write after another machine has taken over. Three rules ensure that:

* Before each attempt to write, `check` confirms the lock unless it was confirmed within ASK_SHARE · EXPIRY_S. That time
  plus the time limit of an attempt (objects.py) is shorter than EXPIRY_S. The age is measured by a clock that runs
  while the machine is suspended, and by the wall clock, which is corrected when a paused virtual machine resumes.
* To confirm, the holder touches the object and *then* looks for a higher generation. To take over an expired lock, a
  machine creates its generation and *then* looks whether the one below was touched after all; if so, it waits until the
  old holder must have noticed. So one of the two sees the other, whatever the order of their requests.
* The server refuses a write that was sent in time but arrives late, because the write names the version that it
  replaces (mirror.py).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from filelock import FileLock, Timeout

from kdtune.errors import LockLost, StoreError
from kdtune.store.remote import Remote

log = logging.getLogger(__name__)

#: Seconds between touches, until an untouched lock is free, and between a waiter's polls.
BEAT_S, EXPIRY_S, POLL_S = 5.0, 45.0, 1.0
#: Maximum age of the confirmation before a write, as a share of EXPIRY_S.
ASK_SHARE = 0.25


def clock() -> float:
    """Return monotonic seconds that include suspension, which `time.monotonic` leaves out on Linux."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True)
class _Holder:
    """The content of a lock's object; the defaults stand for an unreadable one."""

    copy: str = ""
    host: str = "another machine"
    process: str = "unknown"
    free: bool = False

    @classmethod
    def of(cls, content: bytes | None) -> _Holder:
        """Parse an object's content; None if a higher generation has just replaced the object."""
        try:
            found = json.loads(content or b"")
            copy, host, process, free = (found[name] for name in ("copy", "host", "process", "free"))
        except (ValueError, RecursionError, KeyError, TypeError):
            return cls()  # damaged: its holder touches it or it expires
        return cls(str(copy), str(host), str(process), free is True)


class Lease:
    """The lock of one name. Methods raise StoreError if the remote cannot be reached."""

    def __init__(self, remote: Remote, name: str, copy: str) -> None:
        self.remote, self.name, self.copy = remote, name, copy
        self.lost = False
        self._generation, self._beats = 0, 0
        self._confirmed = (0.0, 0.0)
        """When the lock was last confirmed, by `clock` and by the wall clock."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"kdtune-lease-{name}", daemon=True)

    def acquire(self, blocking: bool = True) -> None:
        """Take the lock. Waits while another machine holds it; without `blocking`, raises Timeout once that machine
        shows a sign of life."""
        seen, since, looked, told = "", 0.0, clock(), False
        while True:
            generation, version = self._top()
            holder = self._holder(generation)
            now = clock()
            # If this process could not read for a while, the holder may not have been able to touch it either.
            unchanged = version == seen and now - looked < EXPIRY_S / 2
            looked = now
            expired = unchanged and now - since > EXPIRY_S
            if holder.free or holder.copy == self.copy or expired:
                if self._create(generation + 1):
                    self._succeed(generation, version if expired else None)
                    return
                continue
            if not unchanged:
                if seen and version != seen and not blocking:
                    raise Timeout(self.name)
                seen, since = version, now
            if not told:
                what = f"{self.name} is held by {holder.host}, process {holder.process}"
                log.warning(f"{self.remote.url}: {what}; waiting until it is free")
                told = True
            time.sleep(POLL_S)

    def beat(self) -> str | None:
        """Return what changes with each touch of whoever holds the lock; None where it is free."""
        generation, version = self._top()
        return None if self._holder(generation).free else version

    def release(self) -> None:
        """Give the lock up. Does not wait for a remote that cannot be reached: the lock then expires."""
        self._ended.set()
        self._thread.join()
        del self.remote.guards[self.name]
        if not self.lost:
            with suppress(StoreError), self.remote.patience(POLL_S):  # otherwise it expires
                self.remote.write(self._object(self._generation), self._content(free=True))

    def check(self, now: bool = False) -> None:
        """Raise LockLost if another machine has taken the lock, and ConnectionError if that is unknown.

        Uses a recent confirmation, unless `now` asks for a new one.
        """
        if not self.lost and (now or self._age() > ASK_SHARE * EXPIRY_S):
            self._confirm()
        if self.lost:
            what = f"another machine took {self.name} over while this process was stopped or cut off"
            raise LockLost.at(self.remote.url, what)

    def _confirm(self) -> None:
        """Touch the object, then look for a higher generation. Raises ConnectionError if the remote is out of reach."""
        began = clock(), time.time()
        try:
            with self.remote.patience(0.0):
                # In this order: see the module's docstring.
                self.remote.write(self._object(self._generation), self._content())
                generation, _ = self._top()
        except StoreError as error:
            raise ConnectionError(error.problems[0].what) from error
        self.lost = self.lost or generation > self._generation
        self._confirmed = began

    def _age(self) -> float:
        """Return the seconds since the lock was confirmed, by the clock that shows more."""
        return max(clock() - self._confirmed[0], time.time() - self._confirmed[1])

    # ---- its objects -------------------------------------------------------------------------------------------------

    def _object(self, generation: int) -> str:
        return f"locks/{self.name}/{generation:08d}"

    def _generations(self) -> dict[int, str]:
        """Return generation → version of its object. Ignores objects with other names."""
        there = self.remote.listing(f"locks/{self.name}")
        numbered = {int(name): version for name, version in there.items() if name.isascii() and name.isdecimal()}
        return {number: version for number, version in numbered.items() if f"{number:08d}" in there and number > 0}

    def _top(self) -> tuple[int, str]:
        """Return the highest generation and the version of its object; (0, "") if there is none."""
        return max(self._generations().items(), default=(0, ""))

    def _holder(self, generation: int) -> _Holder:
        return _Holder(free=True) if generation == 0 else _Holder.of(self.remote.read(self._object(generation)))

    def _content(self, free: bool = False) -> bytes:
        self._beats += 1
        who = {"copy": self.copy, "host": socket.gethostname(), "process": os.getpid()}
        return json.dumps({**who, "beat": self._beats, "free": free, "once": uuid.uuid4().hex}).encode()

    def _create(self, generation: int) -> bool:
        began = clock(), time.time()
        if not self.remote.create(self._object(generation), self._content()):
            return False
        if self._top()[0] != generation:  # others made it, made the next one and removed it since we looked
            self.remote.remove(self._object(generation))
            return False
        self._generation, self._confirmed = generation, began
        self.remote.guards[self.name] = self.check
        self._thread.start()
        return True

    def _succeed(self, generation: int, version: str | None) -> None:
        """Take over from the holder of `generation`. `version` is the one at which it expired, None if it was free."""
        try:
            there = self._generations()
            if version is not None and there.get(generation, version) != version:
                time.sleep(EXPIRY_S)  # it was touched after all: within this time its holder notices the loss
            with suppress(StoreError), self.remote.patience(0.0):  # otherwise the next holder removes them
                for below in there.keys() - {self._generation}:
                    self.remote.remove(self._object(below))
        except BaseException:
            self.release()
            raise

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S) and not self.lost:
            with suppress(ConnectionError):
                self._confirm()


class SharedLock:
    """A lock among this machine's processes and then among all machines, with the interface of FileLock."""

    def __init__(self, here: FileLock, remote: Remote, name: str, copy: str) -> None:
        self._here, self._lease_of = here, (remote, name, copy)
        self._held: list[ExitStack] = []

    def acquire(self, timeout: float = -1, blocking: bool = True) -> ExitStack:
        """Take the lock; return a context manager that releases it.

        Raises Timeout if another process holds it and `blocking` is False or `timeout` is not -1: after that many
        seconds on this machine, or as soon as another machine shows a sign of life.
        """
        with ExitStack() as stack:
            stack.enter_context(self._here.acquire(timeout=timeout, blocking=blocking))
            lease = Lease(*self._lease_of)
            lease.acquire(blocking and timeout < 0)
            stack.callback(lease.release)
            self._held.append(stack.pop_all())
        held = ExitStack()
        held.callback(self.release)
        return held

    def release(self) -> None:
        self._held.pop().close()

    def __enter__(self) -> SharedLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
