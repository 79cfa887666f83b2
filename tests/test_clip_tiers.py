"""The tiers of a ClipStore: a jpeg store returns what its JPEGs hold; `auto` chooses by size and keeps its choice."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import FakeClips, run_python
from PIL import Image

from kdtune.clips.catalog import load_catalog
from kdtune.clips.frames.build import prepare_clips
from kdtune.clips.frames.store import ClipStore
from kdtune.clips.frames.survey import choose, survey
from kdtune.clips.frames.tiers import Tier
from kdtune.clips.machine import GIB
from kdtune.clips.tuples import read_clips
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import ConfigError, StoreError
from kdtune.store import StoreFiles
from kdtune.store.files import write_json
from kdtune.train.session import Session

CLIP = ClipConfig(frames=8, size=32)


def as_tier(tier: str, quality: int = 95) -> ClipConfig:
    return CLIP.model_copy(update={"tier": tier, "quality": quality})


@pytest.fixture(scope="module")
def data(eight_videos: Path) -> DataConfig:
    return DataConfig(dataset="synthetic", root=str(eight_videos))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoreFiles:
    return StoreFiles(tmp_path_factory.mktemp("tiers"))


@pytest.fixture(scope="module")
def raw(data: DataConfig, store: StoreFiles) -> ClipStore:
    return prepare_clips(data, as_tier("raw"), store)


@pytest.fixture(scope="module")
def jpeg(data: DataConfig, store: StoreFiles) -> ClipStore:
    return prepare_clips(data, as_tier("jpeg"), store)


# ---- what is stored --------------------------------------------------------------------------------------------------


def test_what_is_read_is_what_the_jpegs_hold(raw: ClipStore, jpeg: ClipStore) -> None:
    content, ends = (jpeg.folder / "frames.jpeg").read_bytes(), np.load(jpeg.folder / "frames.npy")
    assert ends[-1] == len(content) == jpeg.record["bytes"]
    assert len(ends) == jpeg.record["frames"] + 1
    assert list(jpeg.index["frames"]) == list(raw.index["frames"])
    for i, offset in enumerate(jpeg.index["offset"]):
        frames = jpeg.frames(i)
        assert frames.shape == raw.frames(i).shape
        for t in (0, 41, len(frames) - 1):
            picture = Image.open(io.BytesIO(content[ends[offset + t] : ends[offset + t + 1]]))
            by_pillow = np.asarray(picture.convert("RGB")).astype(int)
            assert np.abs(by_pillow - frames[t]).max() <= 2
        np.testing.assert_array_equal(jpeg.frames(i), frames)
        np.testing.assert_array_equal(jpeg.clip(i, 7, 5), frames[7:12])
        assert 0 < np.abs(raw.frames(i).astype(int) - frames).mean() < 3


def test_quality_and_tier_are_other_stores_and_other_data(
    raw: ClipStore, jpeg: ClipStore, data: DataConfig, store: StoreFiles
) -> None:
    small = prepare_clips(data, as_tier("jpeg", 30), store)
    assert small.record["bytes"] < jpeg.record["bytes"] < raw.record["bytes"]
    assert len({clips.folder for clips in (raw, jpeg, small)}) == 3
    assert len({clips.manifest for clips in (raw, jpeg, small)}) == 3
    assert prepare_clips(data, as_tier("jpeg", 30), store).digest == small.digest


@pytest.mark.parametrize("per_frame", [False, True])
def test_clips_are_cut_alike_from_either_tier(per_frame: bool, raw: ClipStore, jpeg: ClipStore) -> None:
    """Overlapping clips, distant clips, the first and the last frame equal slices of whole videos."""
    rng = np.random.default_rng(0)
    rows, length = np.array([0, 5, 5, 7]), int(raw.index["frames"].min())
    start = np.array([[0, 3, 6], [0, 30, length - 8], [20, 22, 24], [length - 8, 0, 5]])
    crop = rng.integers(0, 5, (4, 3, 8, 2) if per_frame else (4, 3, 2))
    for clips in (raw, jpeg):
        out = read_clips(clips, rows, start, crop, CLIP)
        for i, row in enumerate(rows):
            for c in range(3):
                video = clips.frames(row)[start[i, c] :][:8]
                for t, (top, left) in enumerate(np.broadcast_to(crop[i, c], (8, 2))):
                    np.testing.assert_array_equal(out[i, c, t], video[t, top : top + 32, left : left + 32])


def test_overlapping_clips_are_read_once() -> None:
    read: list[int] = []

    class Counted(FakeClips):
        def clip(self, row: int, start: int, count: int) -> np.ndarray:
            read.append(count)
            return super().clip(row, start, count)

    clips = Counted([60], 37, 49)
    read_clips(clips, np.array([0]), np.linspace(0, 52, 10).astype(int)[None], np.zeros((1, 10, 2), int), CLIP)
    assert sum(read) == 60
    read.clear()
    read_clips(clips, np.array([0]), np.array([[0, 26, 52]]), np.zeros((1, 3, 2), int), CLIP)
    assert sum(read) == 24, "what lies between clips is not read"


def test_another_codec_is_refused_plainly(jpeg: ClipStore, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(jpeg.folder, folder)
    decoders = jpeg.record["decoders"]
    version = decoders["simplejpeg"]
    write_json(folder / "store.json", {**jpeg.record, "decoders": {**decoders, "simplejpeg": "0.1"}})
    with pytest.raises(StoreError, match=rf"simplejpeg 0\.1, but version {version} is installed: other pixels"):
        ClipStore.open(folder)


def test_without_the_codec_raw_is_what_there_is(
    raw: ClipStore, jpeg: ClipStore, eight_videos: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
from pathlib import Path
sys.modules["simplejpeg"] = None  # as where it is not installed
from kdtune.clips.frames.build import prepare_clips
from kdtune.clips.frames.store import ClipStore
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.errors import UserError
from kdtune.store import StoreFiles
data = DataConfig(dataset="synthetic", root={str(eight_videos)!r})
def clip(tier): return ClipConfig(frames=8, size=32, tier=tier)
print(prepare_clips(data, clip("auto"), StoreFiles({str(tmp_path)!r})).digest)
for attempt in (lambda: prepare_clips(data, clip("jpeg"), StoreFiles({str(tmp_path)!r})),
                lambda: ClipStore.open(Path({str(jpeg.folder)!r}))):
    try:
        attempt()
    except UserError as error:
        print(error)
"""
    digest, asked, opened = run_python(code).stdout.splitlines()
    assert digest == raw.digest
    missing = "but the package simplejpeg is not installed"
    assert asked == f"  clip.tier: got jpeg, {missing} (allowed: raw; or pip install simplejpeg)"
    assert missing in opened


# ---- auto ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "disk", "tier"),
    [(24, 100, "raw"), (25, 13, "raw"), (23, 100, "jpeg"), (100, 11, "jpeg"), (20, 11, "jpeg")],
)
def test_auto_chooses_by_memory_and_disk(memory: int, disk: int, tier: str) -> None:
    chosen, why = choose(12 * GIB, 2 * GIB, 95, memory * GIB, disk * GIB)
    assert chosen == (Tier() if tier == "raw" else Tier("jpeg", 95))
    assert (why == "") == (tier == "raw")


def test_auto_says_what_it_chose_and_why() -> None:
    _, why = choose(int(12.3 * GIB), int(2.4 * GIB), 90, int(23.8 * GIB), 10 * GIB)
    assert why == (
        "clips: about 12.3 GiB as raw frames, half of the memory is 11.9 GiB and the disk has 10.0 GiB free: "
        "kept as JPEG (quality 90, about 2.4 GiB); clip.tier: raw overrides"
    )


@pytest.mark.parametrize("tier", ["raw", "jpeg"])
def test_the_estimate_is_near(tier: str, raw: ClipStore, jpeg: ClipStore, data: DataConfig) -> None:
    paths = [Path(data.folder) / video for video in load_catalog(data)["video"]]
    seen, clips = survey(paths, CLIP.stored_size, 95, 2), {"raw": raw, "jpeg": jpeg}[tier]
    longest = max(end - start for start, end in clips.byte_spans())
    assert seen.bytes(clips.tier) == pytest.approx(clips.record["bytes"] + longest, rel=0.1)
    assert seen.frames == tuple(raw.index["frames"])


@pytest.mark.parametrize("small_disk", [2], indirect=True)
def test_auto_on_a_small_disk_keeps_jpegs_and_stays_with_them(
    jpeg: ClipStore, data: DataConfig, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = prepare_clips(data, CLIP, StoreFiles(small_disk))
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("kdtune: clips: about 2.")
    assert "MiB as raw frames, the disk has 2.0 MiB free: kept as JPEG (quality 95, about " in first
    assert last.endswith("GiB at 37×49 as JPEG (quality 95)")
    assert clips.digest == jpeg.digest
    # An existing store is used on a larger disk, too, and even if it is damaged.
    roomy = StoreFiles(tmp_path)
    shutil.copytree(clips.folder, roomy.clips(clips.folder.name))
    assert prepare_clips(data, CLIP, roomy).tier.name == "jpeg"
    (roomy.clips(clips.folder.name) / "store.json").unlink()
    again = prepare_clips(data, CLIP, roomy)
    assert (again.tier.name, again.digest) == ("jpeg", jpeg.digest)


def test_auto_takes_raw_where_both_are_there(
    raw: ClipStore, jpeg: ClipStore, data: DataConfig, store: StoreFiles
) -> None:
    assert prepare_clips(data, CLIP, store).folder == raw.folder


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_a_tier_is_in_the_key_by_its_pixels(raw: ClipStore, eight_videos: Path, store: StoreFiles) -> None:
    form = {"data": {"dataset": "synthetic", "root": str(eight_videos)}, "teacher": {"student": {"backbone": "c3d"}}}

    def key(clip: dict[str, object], teacher_clip: dict[str, object] | None = None) -> str:
        teacher = {"student": {"backbone": "c3d"}, **({"clip": teacher_clip} if teacher_clip else {})}
        config = TrialConfig.model_validate({**form, "clip": {"frames": 8, "size": 32, **clip}, "teacher": teacher})
        session = Session(store)
        session.prepare(config)
        return session.key(config)

    assert key({}) == key({"tier": "raw"}) == key({"tier": "raw", "quality": 3})
    assert len({key({"tier": "raw"}), key({"tier": "jpeg"}), key({"tier": "jpeg", "quality": 30})}) == 3
    with pytest.raises(ConfigError, match=r"clip\.tier: trial, teacher, start and fine-tuning must see the same"):
        key({"tier": "raw"}, {"frames": 8, "size": 32, "tier": "jpeg"})
