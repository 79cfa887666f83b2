"""Objects behind a URL: written whole, conditionally, and within a time limit."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from kdtune.errors import StoreError
from kdtune.store import objects, remote
from kdtune.store.objects import Changed
from kdtune.store.remote import Remote


@pytest.mark.parametrize("protocol", ["s3", "memory"])
def test_objects_are_written_listed_created_once_and_removed(
    protocol: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    here = Remote(request.getfixturevalue("s3") if protocol == "s3" else f"memory://{tmp_path.name}")
    assert here.listing("a") == here.tree("a") == {}
    assert here.read("a/b") is None
    assert not here.get("a/b", tmp_path / "copy")
    (tmp_path / "file").write_bytes(b"first")
    here.put(tmp_path / "file", "a/b")
    here.write("a/c/d", b"deeper")
    before = here.listing("a")
    assert list(before) == ["b"]
    assert {folder: list(names) for folder, names in here.tree("a").items()} == {"a": ["b"], "a/c": ["d"]}
    here.write("a/b", b"second")
    assert here.listing("a") != before
    assert here.get("a/b", tmp_path / "deep" / "copy")
    assert [path.read_bytes() for path in (tmp_path / "deep").iterdir()] == [b"second"]
    assert here.create("a/new", b"mine")
    assert here.create("a/new", b"mine"), "the answer to the first attempt may have been lost"
    assert not here.create("a/new", b"another's")
    assert here.read("a/new") == b"mine"
    for _ in range(2):
        here.remove("a/new")
    assert here.read("a/new") is None


@pytest.mark.parametrize("protocol", ["s3", "memory"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_write_replaces_the_version_that_it_names_and_no_other(
    protocol: str, parts: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Remote(request.getfixturevalue("s3") if protocol == "s3" else f"memory://{tmp_path.name}-{parts}")
    size = 5 * 2**20  # the minimum size that S3 accepts for a part, except for the last
    monkeypatch.setattr(objects, "PART_BYTES", size)
    file = tmp_path / "file"

    def put(first: bytes, over: str | None) -> None:
        file.write_bytes(first * (size if parts > 1 else 1) + b"end")
        here.put(file, "a/b", over)

    put(b"1", None)
    old = here.version("a/b")
    assert old == here.listing("a")["b"]
    with pytest.raises(Changed):
        put(b"2", None)
    put(b"3", old)
    with pytest.raises(Changed):
        put(b"4", old)
    with pytest.raises(Changed):
        here.remove("a/b", old)
    assert here.read("a/b") == b"3" * (size if parts > 1 else 1) + b"end"
    here.remove("a/b", here.version("a/b"))
    with pytest.raises(Changed):
        put(b"5", old)
    assert here.listing("a") == {}


@pytest.mark.parametrize("answers", ["never", "not even a connection"])
def test_a_server_that_is_silent_is_refused_in_seconds(
    answers: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A single attempt has a time limit, even if the server has yet to ask for the body of an upload."""
    pytest.importorskip("s3fs")
    (tmp_path / "aws").touch()
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setattr(objects, "FIRST_S", 0.3)
    monkeypatch.setattr(remote, "FIRST_PATIENCE_S", 0.0)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        port = server.getsockname()[1]
        if answers != "never":
            for _ in range(3):  # nobody accepts them, and then the system accepts no more
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for ask in (Remote("s3://bucket/x").check_writable, lambda: Remote("s3://bucket/x").listing("a")):
            with pytest.raises(StoreError, match="cannot be reached: no answer in time"):
                ask()
