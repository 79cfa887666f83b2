"""Machines at one store behind a URL, in one thread: a simulated S3 server, whose network and clocks a test controls.

The server compares and writes in one step, as S3 does; its versions are digests of the content. A request may arrive
before, while or after another machine takes over, or never; its answer may be lost.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdtune.store import StoreFiles, lease, remote
from kdtune.store.files import append_jsonl, read_jsonl, write_atomic
from kdtune.store.lease import Lease
from kdtune.store.remote import Remote

EPOCHS = 4
#: Performs a request on the server when it is called.
Deliver = Callable[[], Any]
#: A machine's network: gets the request and a function to deliver it; returns the answer or raises ConnectionError.
Network = Callable[[str, str, Deliver], Any]


def refused(code: str) -> OSError:
    """Return an error as s3fs raises it for one of S3's codes."""
    error = OSError(22, code)
    error.__cause__ = SimpleException(code)
    return error


class SimpleException(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


class Server:
    """Key → content."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def info(self, key: str) -> dict[str, Any]:
        if key not in self.objects:
            raise FileNotFoundError(key)
        content = self.objects[key]
        return {"name": key, "type": "file", "size": len(content), "ETag": f'"{hashlib.md5(content).hexdigest()}"'}

    def _holds(self, key: str, condition: dict[str, str]) -> bool:
        tag = self.info(key)["ETag"] if key in self.objects else None
        return (tag is None) if "IfNoneMatch" in condition else condition.get("IfMatch", tag) == tag

    def put_object(self, key: str, Body: bytes, **condition: str) -> None:  # noqa: N803
        if not self._holds(key, condition):
            raise refused("PreconditionFailed")
        self.objects[key] = Body

    def delete_object(self, key: str, **condition: str) -> None:
        if not self._holds(key, condition):
            raise refused("PreconditionFailed")
        self.objects.pop(key, None)


class Client:
    """The part of s3fs.S3FileSystem that kdtune uses, for one machine."""

    def __init__(self, server: Server, network: Network) -> None:
        self.server, self.network = server, network

    def split_path(self, path: str) -> tuple[str, str, None]:
        return "bucket", path, None

    def call_s3(self, method: str, Bucket: str, Key: str, **arguments: Any) -> None:  # noqa: N803
        return self.network(method, Key, lambda: getattr(self.server, method)(Key, **arguments))

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        def answer() -> list[dict[str, Any]]:
            found = [key for key in self.server.objects if key.rpartition("/")[0] == path]
            if not found:
                raise FileNotFoundError(path)
            return [self.server.info(key) for key in found]

        return self.network("ls", path, answer)

    def info(self, path: str) -> dict[str, Any]:
        return self.network("info", path, lambda: self.server.info(path))

    def cat_file(self, path: str) -> bytes:
        return self.network("cat", path, lambda: (self.server.info(path), self.server.objects[path])[1])

    def get_file(self, path: str, to: str) -> None:
        Path(to).write_bytes(self.cat_file(path))


class Machine:
    """A machine that works on the trial `k`, in its own working copy."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.network: Network = lambda _what, _key, deliver: deliver()
        world.patch.setenv("KDTUNE_CACHE", str(world.folder / name))
        self.store = StoreFiles("s3://bucket/x", reached=True)
        assert self.store.mirror is not None
        self.remote = self.store.mirror.remote
        world.clients[id(self.remote)] = Client(world.server, lambda *request: self.network(*request))
        self.files = self.store.trial("k")
        self.lock = self.store.lock("trial-k")

    @contextmanager
    def held(self) -> Iterator[None]:
        with self.lock:
            self.files.fetch(self.files.checkpoint)
            yield

    @property
    def lease(self) -> Lease | None:
        """The lease of the held lock; None where none is held."""
        check = self.remote.guards.get("trial-k")
        return None if check is None else check.__self__  # type: ignore[attr-defined]

    def train(self, epochs: int) -> None:
        """Resume from the last checkpoint: write rows, checkpoints, a stage and, at the end, the result."""
        at = int(self.files.checkpoint.read_bytes()) if self.files.checkpoint.exists() else 0
        rows = [row for row in read_jsonl(self.files.epochs) if row["epoch"] <= at]
        write_atomic(self.files.epochs, "")
        for row in [*rows, *({"epoch": epoch, "by": self.name} for epoch in range(at + 1, epochs + 1))]:
            append_jsonl(self.files.epochs, row, sync=False)
        write_atomic(self.files.config, b"{}")
        if at < 2 <= epochs:
            write_atomic(self.files.stage_checkpoint("early"), b"2")
        write_atomic(self.files.checkpoint, str(max(at, epochs)).encode())

    def complete(self) -> None:
        if self.files.result() is None:
            self.train(EPOCHS)
            self.files.write_result(
                {"epochs": EPOCHS, "stages": {}, "weights_sha256": "0" * 64, "seconds": 1.0, "profile": None}
            )
        elif self.files.unpublished:  # an earlier attempt was cut off with its result; Session.trial does the same
            self.files.publish()


class World:
    """Machines, their server, and one clock that a sleep advances; `asleep` is called for each second of it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.server, self.clients = Server(), dict[int, Client]()
        self.now, self.asleep = 1000.0, lambda: None
        self._names = itertools.count()
        times = SimpleNamespace(time=self.clock, monotonic=self.clock, sleep=self.sleep)
        patch.setattr(lease, "clock", self.clock)
        patch.setattr(lease, "time", times)
        patch.setattr(remote, "time", times)
        patch.setattr(Lease, "_beat", lambda _: None)
        patch.setattr("os.fsync", lambda _: None)
        patch.setattr(Remote, "_connected", lambda here: (self.clients[id(here)], "bucket/x"))

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            self.asleep()

    def machine(self, name: str) -> Machine:
        return Machine(self, name)

    def state(self) -> tuple[list[int], int, bool]:
        """Return the state of the trial behind the URL: epochs of rows and checkpoint, and whether it is complete."""
        third = self.machine(f"third-{next(self._names)}").files
        third.fetch(third.checkpoint)
        at = int(third.checkpoint.read_bytes()) if third.checkpoint.exists() else 0
        return [row["epoch"] for row in third.rows()], at, third.result() is not None


@contextmanager
def world(folder: Path) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        yield World(folder, patch)
