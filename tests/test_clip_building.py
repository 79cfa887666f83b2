"""Building a ClipStore: the same bytes for any threads and kills, in bounded memory, on a disk that may be full."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import av
import numpy as np
import pytest
from helpers import ROOT, SMALL_CLIP, fill_disk, flip_a_byte, run_python

from kdtune.clips.catalog import load_catalog
from kdtune.clips.frames import parts
from kdtune.clips.frames.build import build, prepare_clips
from kdtune.clips.frames.store import ClipStore
from kdtune.clips.frames.tiers import Frame, Tier
from kdtune.clips.frames.writing import Part, StoreWriter
from kdtune.config.sections import DataConfig
from kdtune.errors import DataError
from kdtune.store import StoreFiles

RAW_FILES = ("frames.u8", "index.parquet", "refused.csv", "store.json")
JPEG_FILES = ("frames.jpeg", "frames.npy", *RAW_FILES[1:])
#: A process that prepares the clips of a set after running `{patch}`; arguments: videos, store, tier.
CHILD = """
import sys, threading
from kdtune.clips.frames import parts, writing
from kdtune.clips.frames.build import prepare_clips
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.store import StoreFiles
decode, count = parts.decode, []
{patch}
print("ready", flush=True)
sys.stdin.readline()
data = DataConfig(dataset="synthetic", root=sys.argv[1])
clips = prepare_clips(data, ClipConfig(frames=8, size=32, tier=sys.argv[3]), StoreFiles(sys.argv[2]))
print(len(count), clips.digest, flush=True)
"""


def start(patch: str, root: Path, store: Path, tier: str = "raw") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD.replace("{patch}", patch), str(root), str(store), tier]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_bytes_do_not_depend_on_the_threads(
    threads: int, eight_clips: ClipStore, eight: DataConfig, eight_videos: Path, tmp_path: Path
) -> None:
    catalog = load_catalog(eight)
    writer = StoreWriter(tmp_path, SMALL_CLIP.stored_size, Tier())
    build(writer, [eight_videos / video for video in catalog["video"]], [100] * len(catalog), threads)
    writer.finish(catalog, {name: eight_clips.record[name] for name in ("manifest", "decoders", "reading")})
    for name in RAW_FILES:
        assert (tmp_path / name).read_bytes() == (eight_clips.folder / name).read_bytes()


def test_few_videos_are_on_the_disk_at_a_time(
    eight: DataConfig, eight_videos: Path, tmp_path: Path, decodes: list[str]
) -> None:
    """With two threads, at most four videos are decoded and not yet appended."""
    videos = [(eight_videos / video, tmp_path / f"{row}") for row, video in enumerate(load_catalog(eight)["video"])]
    for taken, _ in enumerate(parts.decoded_parts(videos, (37, 49), Tier(), 2)):
        assert len(decodes) - taken <= 4
        (tmp_path / f"{taken}").unlink()
    assert len(decodes) == len(videos)
    assert list(tmp_path.iterdir()) == []


def test_large_videos_wait_for_each_other(
    eight: DataConfig, eight_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory for three videos of 320×240, never four are decoded at once; a larger video is decoded alone."""
    active, most, decode = 0, 0, parts.decode
    changing = Lock()

    def counted(path: Path, size: tuple[int, int]) -> Iterator[Frame]:
        nonlocal active, most
        with changing:
            active += 1
            most = max(most, active)
        yield from decode(path, size)
        with changing:
            active -= 1

    monkeypatch.setattr(parts, "decode", counted)
    videos = [(eight_videos / video, tmp_path / f"{row}") for row, video in enumerate(load_catalog(eight)["video"])]
    for fit, bound in ((3.5, 3), (0.5, 1)):
        most = 0
        monkeypatch.setattr(parts, "DECODING_BYTES", int(fit * parts.BYTES_A_PIXEL * 320 * 240))
        for part in parts.decoded_parts(videos, (37, 49), Tier(), threads=8):
            assert isinstance(part, Part)
            part.path.unlink()
        assert 0 < most <= bound
        assert active == 0


BLOCKED_AFTER_THREE = (
    "add = writing.StoreWriter.add\n"
    "def blocked(self, part):\n"
    "    add(self, part)\n"
    "    if len(self.rows) == 3: print('begun', flush=True); threading.Event().wait()\n"
    "writing.StoreWriter.add = blocked"
)


@pytest.fixture(scope="module", params=["raw", "jpeg"])
def killed(
    request: pytest.FixtureRequest, eight: DataConfig, eight_videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ClipStore, Path]:
    """A store built in one go, and the folder of a build whose process was killed after three videos."""
    folder, tier = tmp_path_factory.mktemp("killed"), request.param
    whole = prepare_clips(eight, SMALL_CLIP.model_copy(update={"tier": tier}), StoreFiles(folder / "whole"))
    with start(BLOCKED_AFTER_THREE, eight_videos, folder / "killed", tier) as child:
        go(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    store = StoreFiles(folder / "killed")
    assert not store.clips(whole.folder.name).exists()
    return whole, store.making_clips(whole.folder.name)


@pytest.mark.parametrize("after", ["nothing", "the second video's bytes changed", "the last line is torn", "no power"])
def test_a_killed_build_resumes(
    after: str, killed: tuple[ClipStore, Path], eight: DataConfig, tmp_path: Path, decodes: list[str]
) -> None:
    whole, interrupted = killed
    store, kept = StoreFiles(tmp_path), 3
    folder, left = store.clips(whole.folder.name), store.making_clips(whole.folder.name)
    shutil.copytree(interrupted, left)
    lines = left / "progress.jsonl"
    assert lines.read_bytes().count(b"\n") == 3
    if after == "the second video's bytes changed":
        flip_a_byte(left / whole.tier.file, whole.byte_spans()[1][0] + 5)
        kept = 1
    elif after == "the last line is torn":
        lines.write_bytes(lines.read_bytes()[:-20])
        kept = 2
    elif after == "no power":  # blocks that were never written are zeros
        lines.write_bytes(lines.read_bytes() + bytes(100) + b"\n")
        os.truncate(left / whole.tier.file, whole.byte_spans()[2][1] - 1)
        kept = 2
    # With `auto`, the tier that was begun stays.
    clips = prepare_clips(eight, SMALL_CLIP, store)
    assert sorted(decodes) == sorted(Path(video).name for video in whole.index["video"][kept:])
    assert clips.folder == folder
    assert not left.exists()
    for name in RAW_FILES if whole.tier.name == "raw" else JPEG_FILES:
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.folder.iterdir()}


def test_two_processes_build_it_once(eight_clips: ClipStore, eight_videos: Path, tmp_path: Path) -> None:
    patch = "parts.decode = lambda path, size: (count.append(path), decode(path, size))[1]"
    children = [start(patch, eight_videos, tmp_path) for _ in range(2)]
    for child in children:
        go(child)
    said = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    answers = [out.split() for out, _ in said]
    assert sorted(int(count) for count, _ in answers) == [0, len(eight_clips.index)]
    assert {digest for _, digest in answers} == {eight_clips.digest}


@pytest.mark.parametrize("small_disk", [2], indirect=True)
def test_a_disk_that_is_too_small_is_refused_before_decoding(
    eight: DataConfig, small_disk: Path, decodes: list[str]
) -> None:
    with pytest.raises(
        DataError, match=r"the frames need about 2\.\d MiB, but its disk has [12]\.\d MiB free"
    ) as caught:
        prepare_clips(eight, SMALL_CLIP.model_copy(update={"tier": "raw"}), StoreFiles(small_disk))
    assert str(small_disk / "clips") in str(caught.value)
    assert "--store" in str(caught.value)
    assert decodes == []
    assert list((small_disk / "clips").iterdir()) == []


@pytest.mark.parametrize("small_disk", [4], indirect=True)
def test_a_disk_that_fills_up_stops_cleanly_and_keeps_what_is_made(
    eight: DataConfig, eight_clips: ClipStore, small_disk: Path, decodes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = StoreWriter.add

    def add_and_fill(self: StoreWriter, part: parts.Part) -> None:
        add(self, part)
        if len(self.rows) == 3:
            fill_disk(small_disk, leave=100_000)

    monkeypatch.setattr(StoreWriter, "add", add_and_fill)
    store = StoreFiles(small_disk)
    with pytest.raises(DataError) as caught:
        prepare_clips(eight, SMALL_CLIP, store)
    said = r"the disk is full: [34] of 8 videos are decoded and kept, the others need about [01]\.\d MiB"
    assert re.search(said, str(caught.value))
    left = store.making_clips(eight_clips.folder.name)
    assert list(left.glob("part_*")) == []
    kept = (left / "progress.jsonl").read_bytes().count(b"\n")
    (small_disk / "filler").unlink()
    monkeypatch.setattr(StoreWriter, "add", add)
    decodes.clear()
    assert prepare_clips(eight, SMALL_CLIP, store).digest == eight_clips.digest
    assert len(decodes) == 8 - kept


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process so")
def test_a_videos_length_does_not_matter_to_memory(tmp_path: Path) -> None:
    """One video of 6,000 small frames, stored at 128×171: 394 MB."""
    for name, count in (("train/Walk", 6000), ("train/Sit", 60), ("test/Sit", 61)):
        (tmp_path / "set" / name).mkdir(parents=True)
        with av.open(str(tmp_path / "set" / name / "video.avi"), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for t in range(count):
                picture = np.full((48, 64, 3), t % 256, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    code = f"""
from pathlib import Path
from kdtune.clips.frames.build import prepare_clips
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.store import StoreFiles
def peak():  # not getrusage's, which in a new process is the parent's
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])
before = peak()
data = DataConfig(dataset="folder", root={str(tmp_path / "set")!r})
clips = prepare_clips(data, ClipConfig(), StoreFiles({str(tmp_path)!r}))
print(clips.record["bytes"], peak() - before, peak())
"""
    size, grown, peak = map(int, run_python(code).stdout.split())
    assert size == 6121 * 128 * 171 * 3
    assert grown < size / 3
    assert peak < 2**30
