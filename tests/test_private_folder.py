"""The folder for Ray's sockets: short enough in any environment, private, and never another user's."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from filelock import FileLock
from fuzzing import fuzz, fuzzed
from hypothesis import strategies as st

from kdtune.errors import ResourceError
from kdtune.execute.cluster import folder as module
from kdtune.execute.cluster.folder import FITS, PREFIX, private_folder, sweep_left_overs


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: pytest's own are too long for Ray."""
    with tempfile.TemporaryDirectory(prefix="k", dir="/tmp") as name:
        yield Path(name)


def deep(place: Path, length: int) -> Path:
    """Create a folder in `place` whose path has `length` characters."""
    folder = place / ("x" * (length - len(str(place)) - 1))
    folder.mkdir()
    assert len(str(folder)) == length
    return folder


def test_the_longest_folder_that_fits_takes_rays_longest_socket(short: Path) -> None:
    place = deep(short, FITS)
    with private_folder({"TMPDIR": str(place)}) as folder:
        assert folder.parent == place
        path = Path(f"{folder}{module._SOCKET}")
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as found:
            found.bind(str(path))
        with socket.socket(socket.AF_UNIX) as found, pytest.raises(OSError, match="too long"):
            found.bind(f"{path}x")
    assert list(place.iterdir()) == []


def test_the_folder_is_for_its_user_alone(short: Path) -> None:
    with private_folder({"TMPDIR": str(short)}) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.fixture(params=["long", "file", "full"])
def unfit(request: pytest.FixtureRequest, short: Path) -> tuple[Path, str]:
    """An unusable place, and its reason."""
    if request.param == "long":
        return deep(short, 105), f"has 105 characters, and {FITS} fit"
    place = short / request.param
    if request.param == "file":
        place.touch()
        return place, "exists"
    disk = request.getfixturevalue("small_disk")
    place.symlink_to(disk)
    return place, f"has {shutil.disk_usage(disk).free / 2**20:.0f} MiB free, and 64 are needed"


def test_a_tmpdir_that_does_not_serve_is_passed_over(unfit: tuple[Path, str]) -> None:
    with private_folder({"TMPDIR": str(unfit[0])}) as folder:
        assert folder.parent in (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
    assert not folder.exists()


def test_a_tmpdir_that_is_not_there_is_passed_over_and_not_made(short: Path) -> None:
    with private_folder({"TMPDIR": str(short / "none")}) as folder:
        assert folder.parent == Path("/tmp")
    assert list(short.iterdir()) == []


def test_a_ray_tmpdir_that_does_not_serve_is_refused_and_nothing_else_is_taken(
    unfit: tuple[Path, str], short: Path
) -> None:
    place, why = unfit
    with pytest.raises(ResourceError) as refusal, private_folder({"RAY_TMPDIR": str(place), "TMPDIR": str(short)}):
        pass
    problem = str(refusal.value)
    assert f"RAY_TMPDIR: no folder for Ray's sockets: {place}: " in problem
    assert why in problem
    assert f"of at most {FITS} characters" in problem
    assert len(refusal.value.problems) == 1


def test_a_ray_tmpdir_is_made_and_used(short: Path) -> None:
    with private_folder({"RAY_TMPDIR": str(short / "made"), "TMPDIR": "/nowhere"}) as folder:
        assert folder.parent == short / "made"


def test_what_killed_owners_left_is_swept_and_nothing_else(short: Path) -> None:
    names = ("killed", "alive", "elsewhere", "starting", "other")
    found = {name: short / f"{PREFIX}{name}" for name in names}
    for each in found.values():
        each.mkdir()
        (each / "file").touch()
    for name in ("killed", "alive"):
        (found[name] / module._LOCK).touch()
    (found["elsewhere"] / "lock-another-machine").touch()
    found["other"].rename(short / "other")
    (short / "other" / module._LOCK).touch()
    (short / f"{PREFIX}link").symlink_to(short / "other")
    with FileLock(found["alive"] / module._LOCK):
        sweep_left_overs(short)
    left = {path.name.removeprefix(PREFIX) for path in short.iterdir()}
    assert left == {"alive", "elsewhere", "starting", "other", "link"}
    assert (short / "other" / "file").exists()


def test_another_users_left_over_stays(short: Path) -> None:
    theirs = short / f"{PREFIX}theirs"
    theirs.mkdir()
    (theirs / module._LOCK).touch()
    try:
        os.chown(theirs, 12345, 12345)
    except PermissionError:
        pytest.skip("only root can give a folder away")
    sweep_left_overs(short)
    assert theirs.exists()


def test_an_owner_keeps_its_folder_while_others_start(short: Path) -> None:
    with private_folder({"TMPDIR": str(short)}) as first, private_folder({"TMPDIR": str(short)}) as second:
        assert first != second
        assert first.exists()
    assert list(short.iterdir()) == []


@fuzzed
def test_any_environment_gives_a_folder_or_one_message(
    examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = st.sampled_from(["TMPDIR", "TEMP", "TMP", "RAY_TMPDIR", "XDG_RUNTIME_DIR"])
    values = st.binary(max_size=300).map(lambda text: os.fsdecode(text.replace(b"\0", b"0").replace(b"/", b"|")))

    def check(environment: dict[str, str]) -> None:
        with suppress(ResourceError) if environment.get("RAY_TMPDIR") else nullcontext():
            with private_folder(environment) as folder:
                assert folder.is_absolute()
                assert len(os.fsencode(f"{folder}{module._SOCKET}")) <= 107
            assert not folder.exists()
        for entry in tmp_path.iterdir():
            shutil.rmtree(entry)

    fuzz(check, st.dictionaries(names, values), examples=examples)
