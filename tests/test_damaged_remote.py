"""Damaged or hostile content behind a store's URL, or in a working copy's records, is used or refused in a message."""

from __future__ import annotations

import itertools
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fuzzing import fuzz, fuzzed
from hypothesis import strategies as st

from kdtune.errors import UserError
from kdtune.store import StoreFiles, lease
from kdtune.store.files import append_jsonl, write_atomic

NAMES = ["zzz", "-1", "99999999999", "²", "..", "0x1", "a b", "x" * 300, "00000000", "../../../evil", ".hidden"]
CONTENTS = st.one_of(
    st.sampled_from([b"", b"{", b"[]", b"null", b"3", b'{"copy": 3}', b"\xff\xfe", b"[" * 5000]),
    st.sampled_from([b'{"free": "yes", "copy": [], "host": 1, "process": {}}', b'{"../../evil": {"object": 1}}']),
    st.binary(max_size=40),
)
FOLDERS = st.sampled_from(["locks/trial-k", "trials/k", "trials", "sweeps/s", "mirror"])
DAMAGES = st.one_of(
    st.tuples(st.just("object"), st.integers(0, 20), CONTENTS),
    st.tuples(st.just("record"), st.integers(0, 20), CONTENTS),
    st.tuples(FOLDERS, st.sampled_from(NAMES), CONTENTS),
)
numbers = itertools.count()


def made(store: StoreFiles) -> None:
    """A complete trial."""
    store.claim()
    with store.lock("trial-k"):
        files = store.trial("k")
        append_jsonl(files.epochs, {"epoch": 1})
        write_atomic(files.checkpoint, b"1")
        files.write_result({"epochs": 1, "stages": {}, "weights_sha256": "0" * 64})


def used(store: StoreFiles) -> None:
    store.claim()
    with store.lock("trial-k"):
        files = store.trial("k")
        files.fetch(files.checkpoint)
        files.result(), files.rows(), files.failure()
        files.publish()
    store.trials()
    store.sweeps()


def spoil(store: StoreFiles, url: str, damages: list[tuple[str, Any, bytes]]) -> None:
    remote = fsspec.filesystem("memory")
    root = url.removeprefix("memory:/")
    objects = sorted(remote.find(root))
    records = sorted((store.root / "mirror").rglob("*.json"))
    for where, which, content in damages:
        if where == "object":
            remote.pipe_file(objects[which % len(objects)], content)
        elif where == "record":
            records[which % len(records)].write_bytes(content)
        else:
            remote.pipe_file(f"{root}/{where}/{which}", content)


def attempted(damages: list[tuple[str, Any, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "EXPIRY_S", 0.02)
        patch.setattr(lease, "POLL_S", 0.005)
        patch.setattr(os, "fsync", lambda _: None)
        url = f"memory://damaged-{next(numbers)}/x"
        patch.setenv("KDTUNE_CACHE", f"{folder}/copies/first")
        first = StoreFiles(url)
        made(first)
        spoil(first, url, damages)
        for machine in ("first", "second"):
            patch.setenv("KDTUNE_CACHE", f"{folder}/copies/{machine}")
            with suppress(UserError):  # no other error
                used(StoreFiles(url))
        assert not list(Path(folder).rglob("evil*"))
        assert [path.name for path in Path(folder).iterdir()] == ["copies"]


@fuzzed
def test_what_is_damaged_there_or_here_is_used_or_refused(examples: int) -> None:
    fuzz(attempted, st.lists(DAMAGES, min_size=1, max_size=3), examples=examples)
