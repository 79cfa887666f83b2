"""A lock among all machines that see a remote store: an object that its holder touches every few seconds.

    locks/<name>/<generation>     {"copy": the holder's working copy, "host", "process", "beat": counts up, "free"}

The highest generation is the lock. It is free where its object says so, where its holder had this very working copy (of
which the caller has the file lock, so that holder is dead), or where nobody has touched it for EXPIRY_S of the waiter's
own clock, in which it could be read all the time: no two machines' clocks are compared. Who wants it then creates the
next generation, which only one can, and removes those below. The last object stays, saying that it is free: were it
removed, one who had found it old could create the same generation again.

A holder that was stopped for longer than EXPIRY_S and goes on finds a higher generation, and publishes nothing more.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from typing import Any

from filelock import FileLock, Timeout

from kdtune.errors import Problem, StoreError
from kdtune.remote import Remote

#: Seconds between two touches, until an untouched lock is free, and between two looks at one that is held.
BEAT_S, EXPIRY_S, POLL_S = 5.0, 30.0, 1.0


class Lease:
    """One name. Raises StoreError where the remote cannot be reached."""

    def __init__(self, remote: Remote, name: str, copy: str) -> None:
        self.remote, self.name, self.copy = remote, name, copy
        self.lost = False
        self._generation, self._beats, self._confirmed = 0, 0, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"kdtune-lease-{name}", daemon=True)

    def acquire(self, blocking: bool = True) -> None:
        """Hold it. Where another machine does: wait until it is free or, if that one shows a sign of life, Timeout."""
        seen, since, looked, told = "", 0.0, time.monotonic(), False
        while True:
            generation, version = self._top()
            holder = self._holder(generation)
            now = time.monotonic()
            # Where this process could not look for a while, neither may the holder have been able to touch it.
            unchanged = version == seen and now - looked < EXPIRY_S / 2
            looked = now
            expired = unchanged and now - since > EXPIRY_S
            if holder["free"] or holder["copy"] == self.copy or expired:
                if self._create(generation + 1):
                    return
                continue
            if not unchanged:
                if seen and version != seen and not blocking:
                    raise Timeout(self.name)
                seen, since = version, now
            if not told:
                what = f"{self.name} is held by {holder['host']}, process {holder['process']}"
                print(f"kdtune: {self.remote.url}: {what}; waiting until it is free", file=sys.stderr)
                told = True
            time.sleep(POLL_S)

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        self.remote.guards.remove(self.check)
        if not self.lost:
            with suppress(StoreError), self.remote.patience(POLL_S):  # else it expires
                self.remote.write(self._object(self._generation), self._content(free=True))

    def check(self) -> None:
        """Raises StoreError where another machine has the lock by now."""
        if not self.lost and time.monotonic() - self._confirmed > EXPIRY_S / 2:
            self._confirm()
        if self.lost:
            what = f"{self.name} was taken over by another machine, while this process was stopped or cut off"
            raise StoreError([Problem(str(self.remote.url), what)])

    # ---- its objects -------------------------------------------------------------------------------------------------

    def _object(self, generation: int) -> str:
        return f"locks/{self.name}/{generation:08d}"

    def _top(self) -> tuple[int, str]:
        """The highest generation and the version of its object; (0, "") where there is none."""
        there = self.remote.listing(f"locks/{self.name}")
        top = max(there, default="")
        return (int(top), there[top]) if top else (0, "")

    def _holder(self, generation: int) -> dict[str, Any]:
        if generation == 0:
            return {"free": True, "copy": ""}
        content = self.remote.read(self._object(generation))
        if content is None:  # a higher one was made just now, and this one removed
            return {"free": False, "copy": "", "host": "another machine", "process": "unknown"}
        return json.loads(content)

    def _content(self, free: bool = False) -> bytes:
        self._beats += 1
        who = {"copy": self.copy, "host": socket.gethostname(), "process": os.getpid()}
        return json.dumps({**who, "beat": self._beats, "free": free, "once": uuid.uuid4().hex}).encode()

    def _create(self, generation: int) -> bool:
        if not self.remote.create(self._object(generation), self._content()):
            return False
        there = self.remote.listing(f"locks/{self.name}")
        if max(there) != f"{generation:08d}":  # it had been made, followed by the next one and removed since we looked
            self.remote.remove(self._object(generation))
            return False
        for below in there:
            if below < f"{generation:08d}":
                self.remote.remove(f"locks/{self.name}/{below}")
        self._generation, self._confirmed = generation, time.monotonic()
        self.remote.guards.append(self.check)
        self._thread.start()
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S) and not self.lost:
            with suppress(StoreError), self.remote.patience(0.0):
                self._confirm()

    def _confirm(self) -> None:
        began = time.monotonic()
        generation, _ = self._top()
        self.lost = generation > self._generation
        if not self.lost:
            self.remote.write(self._object(self._generation), self._content())
            self._confirmed = began


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
