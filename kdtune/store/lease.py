"""A lock among all machines that see a remote store: an object that its holder touches every few seconds.

    locks/<name>/<generation>     {"copy": the holder's working copy, "host", "process", "beat": counts up, "free"}

The highest generation is the lock. It is free where its object says so, where its holder had this very working copy (of
which the caller has the file lock, so that holder is dead), or where nobody has touched it for EXPIRY_S of the waiter's
own clock, in which it could be read all the time: no two machines' clocks are compared. Who wants it then creates the
next generation, which only one can, and removes those below. The last object stays, saying that it is free: were it
removed, one who had found it old could create the same generation again.

A holder must not write what another machine has taken over. Three things keep it from that:

* Before each attempt to write, `check` asks whether the lock was confirmed within ASK_S; if not, it is confirmed now.
  ASK_S and the time limit of an attempt (objects.py) together are shorter than EXPIRY_S. The age is taken by a clock
  that counts while the machine is suspended, and by the wall clock, which is set again when a paused virtual machine
  goes on.
* To confirm is to touch the object and *then* to look for a higher generation. Who takes an untouched lock over creates
  its generation and *then* looks whether the one below was touched after all; if so, it waits until the old holder
  must have noticed. So one of the two sees the other, whatever the order of their requests.
* A write that was sent in time and arrives late is refused by the server, for it names the version that it replaces
  (mirror.py).
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

from kdtune.errors import LockLost, Problem, StoreError
from kdtune.store.remote import Remote

log = logging.getLogger(__name__)

#: Seconds between two touches, until an untouched lock is free, and between two looks at one that is held.
BEAT_S, EXPIRY_S, POLL_S = 5.0, 45.0, 1.0
#: A write is preceded by a confirmation not older than this share of EXPIRY_S.
ASK = 0.25


def clock() -> float:
    """Seconds since some moment, suspension of the machine included; `time.monotonic` leaves that out on Linux."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True)
class _Holder:
    """What a lock's object says, and what is made of one that nobody can read."""

    copy: str = ""
    host: str = "another machine"
    process: str = "unknown"
    free: bool = False

    @classmethod
    def of(cls, content: bytes | None) -> _Holder:
        """None: a higher generation was made just now, and this one removed."""
        try:
            found = json.loads(content or b"")
            copy, host, process, free = (found[name] for name in ("copy", "host", "process", "free"))
        except (ValueError, RecursionError, KeyError, TypeError):
            return cls()  # damaged: its holder touches it, or it expires
        return cls(str(copy), str(host), str(process), free is True)


class Lease:
    """One name. Raises StoreError where the remote cannot be reached."""

    def __init__(self, remote: Remote, name: str, copy: str) -> None:
        self.remote, self.name, self.copy = remote, name, copy
        self.lost = False
        self._generation, self._beats = 0, 0
        self._confirmed = (0.0, 0.0)
        """When: by `clock`, and by the wall clock."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"kdtune-lease-{name}", daemon=True)

    def acquire(self, blocking: bool = True) -> None:
        """Hold it. Where another machine does: wait until it is free or, if that one shows a sign of life, Timeout."""
        seen, since, looked, told = "", 0.0, clock(), False
        while True:
            generation, version = self._top()
            holder = self._holder(generation)
            now = clock()
            # Where this process could not look for a while, neither may the holder have been able to touch it.
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

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        del self.remote.guards[self.name]
        if not self.lost:
            with suppress(StoreError), self.remote.patience(POLL_S):  # else it expires
                self.remote.write(self._object(self._generation), self._content(free=True))

    def check(self, now: bool = False) -> None:
        """Raise LockLost where another machine has the lock, and ConnectionError where that cannot be told.

        What was confirmed shortly before is not asked again, but for `now`.
        """
        if not self.lost and (now or self._age() > ASK * EXPIRY_S):
            self._confirm()
        if self.lost:
            what = f"{self.name} was taken over by another machine, while this process was stopped or cut off"
            raise LockLost([Problem(str(self.remote.url), what)])

    def _confirm(self) -> None:
        """Touch the object, and look whether the lock has gone. Raises ConnectionError where that cannot be told."""
        began = clock(), time.time()
        try:
            with self.remote.patience(0.0):
                # In this order; see above.
                self.remote.write(self._object(self._generation), self._content())
                generation, _ = self._top()
        except StoreError as error:
            raise ConnectionError(error.problems[0].what) from error
        self.lost = self.lost or generation > self._generation
        self._confirmed = began

    def _age(self) -> float:
        """Seconds since the lock was confirmed, by whichever clock says more."""
        return max(clock() - self._confirmed[0], time.time() - self._confirmed[1])

    # ---- its objects -------------------------------------------------------------------------------------------------

    def _object(self, generation: int) -> str:
        return f"locks/{self.name}/{generation:08d}"

    def _generations(self) -> dict[int, str]:
        """Generation → the version of its object. Objects of other names are nobody's."""
        there = self.remote.listing(f"locks/{self.name}")
        numbered = {int(name): version for name, version in there.items() if name.isascii() and name.isdecimal()}
        return {number: version for number, version in numbered.items() if f"{number:08d}" in there and number > 0}

    def _top(self) -> tuple[int, str]:
        """The highest generation and the version of its object; (0, "") where there is none."""
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
        if self._top()[0] != generation:  # it had been made, followed by the next one and removed since we looked
            self.remote.remove(self._object(generation))
            return False
        self._generation, self._confirmed = generation, began
        self.remote.guards[self.name] = self.check
        self._thread.start()
        return True

    def _succeed(self, generation: int, version: str | None) -> None:
        """Take over from the holder of `generation`; one that was expired had last touched it to this `version`."""
        try:
            there = self._generations()
            if version is not None and there.get(generation, version) != version:
                time.sleep(EXPIRY_S)  # touched just now, after all: within this time its holder finds that it has gone
            with suppress(StoreError), self.remote.patience(0.0):  # else the next holder does
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
    """A lock between this machine's processes and then among all machines; used as a FileLock is."""

    def __init__(self, here: FileLock, remote: Remote, name: str, copy: str) -> None:
        self._here, self._lease_of = here, (remote, name, copy)
        self._held: list[ExitStack] = []

    def acquire(self, timeout: float = -1, blocking: bool = True) -> ExitStack:
        """Raises Timeout where it is held and we shall not wait (`blocking` False or `timeout` 0; no other is known).

        To be released, or left as the `with` of what it returns.
        """
        assert timeout in (-1, 0)
        with ExitStack() as stack:
            stack.enter_context(self._here.acquire(timeout=timeout, blocking=blocking))
            lease = Lease(*self._lease_of)
            lease.acquire(blocking and timeout != 0)
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
