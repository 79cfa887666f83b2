"""Make a data set without people: sprites on a still background, whose class shows only in their motion.

The videos are real encoded files, 320×240 at 25 frames/s, named and listed like UCF101: even clip numbers are H.264 in
.mp4, odd ones MPEG-4 ASP in .avi. The same seed gives the same frames and, with the same FFmpeg, the same files.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from kdtune.clips.machine import cores
from kdtune.clips.motion import ALL_CLASSES, CLASSES, HEIGHT, WIDTH, Video, frames_of, groups_to_test, videos_of
from kdtune.errors import DataError, Problem
from kdtune.processes import end_with_parent
from kdtune.store.files import write_atomic
from kdtune.store.places import check_readable, check_writable

VERSION = 1
#: In the set's folder: what the set was made from.
RECORD = "synthetic.json"
FPS = 25
#: Fewer videos than this are made in this process: starting workers would take longer.
WORTH_WORKERS = 24
#: Look-up tables to video range: brightness 0..255 becomes 16..235, colour 16..240.
VIDEO_RANGE = [16 + (v * 219 + 127) // 255 for v in range(256)] + [16 + (v * 224 + 127) // 255 for v in range(256)] * 2


def make_synthetic(
    root: str | Path, *, seed: int = 0, classes: tuple[str, ...] = CLASSES, groups: int = 20, clips: int = 3
) -> None:
    """Make classes × groups × clips videos and their lists at `root`, unless the same set is already there.

    Args:
        root: the folder to make: what `data.root` of a trial then names.
        seed: of the sprites, backgrounds and paths.
        classes: names of motions, two at least for a data set that can be trained on.
        groups: looks, two at least: each has its own sprites and background. A fifth of them are the test list's.
        clips: videos of each class and group.

    The files are made beside `root` and renamed when complete. Raises DataError where an argument is out of range,
    `root` holds other files, or its folder cannot be read or written.

    >>> kdtune.make_synthetic("motions", classes=("Rise", "Fall"), groups=2, clips=1)
    >>> sorted(path.name for path in Path("motions").glob("*/*"))
    ['v_Fall_g01_c01.avi', 'v_Fall_g02_c01.avi', 'v_Rise_g01_c01.avi', 'v_Rise_g02_c01.avi']
    """
    root = Path(root).absolute()
    wanted = {"version": VERSION, "seed": seed, "classes": list(classes), "groups": groups, "clips": clips}
    problems = [
        Problem("classes", f"{action} is not a motion", " ".join(ALL_CLASSES))
        for action in classes
        if action not in ALL_CLASSES
    ]
    if groups < 2 or clips < 1:
        problems.append(Problem("groups, clips", f"must be at least 2 and 1, but got {groups} and {clips}"))
    if problems:
        raise DataError(problems)
    check_readable(root, str(root), DataError)
    check_writable(root.parent, str(root.parent), DataError)
    with FileLock(root.parent / f".{root.name}.lock"):
        if root.exists() and any(root.iterdir()):
            found = _recorded(root / RECORD)
            if found != wanted:
                what = "holds other files" if found is None else f"holds another set: {found}"
                raise DataError([Problem(str(root), f"{what}; wanted {wanted}", "another folder, or remove this one")])
            return
        making = root.parent / f".{root.name}.making"
        shutil.rmtree(making, ignore_errors=True)  # left by a run that was killed
        for action in classes:
            (making / action).mkdir(parents=True)
        videos = videos_of(seed, classes, groups, clips)
        try:
            _make_all(videos, making)
            _write_lists(making, classes, videos, groups)
            write_atomic(making / RECORD, json.dumps(wanted, indent=1) + "\n")
            if root.exists():
                root.rmdir()
            os.replace(making, root)
        finally:
            shutil.rmtree(making, ignore_errors=True)


def _recorded(path: Path) -> Any:
    """Return what a set was made from, or None if the file does not say. It is no store record, and has no seal."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _encode(video: Video, folder: Path) -> None:
    """Write one video file. With one thread and bit-exact flags, the same encoder writes the same bytes."""
    h264 = video.name.endswith(".mp4")
    with av.open(str(folder / video.name), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264" if h264 else "mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 2 * WIDTH, 2 * HEIGHT, "yuv420p"
        stream.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        if h264:
            stream.options = {"preset": "ultrafast", "crf": "23", "threads": "1"}
        else:
            stream.codec_context.codec_tag = "XVID"
            stream.codec_context.flags |= av.codec.context.Flags.qscale
            stream.codec_context.global_quality = 4 * 118  # quantiser 4, in FFmpeg's units
        for image in frames_of(video):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_yuv420p(image), format="yuv420p")))
        container.mux(stream.encode())


def _yuv420p(image: Image.Image) -> np.ndarray:
    """Return a frame of the canvas at twice its size as stacked YUV 4:2:0 planes, shape (360, 320) uint8.

    The colour planes are half as wide and high as the brightness, exactly the canvas's size. Pillow's integer tables
    give the same bytes on every machine; FFmpeg's converters do not promise that.
    """
    y, u, v = image.convert("YCbCr").point(VIDEO_RANGE).split()
    doubled = np.asarray(y.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BILINEAR))
    colour = [np.asarray(plane).reshape(HEIGHT // 2, 2 * WIDTH) for plane in (u, v)]
    return np.concatenate([doubled, *colour])


def _make_all(videos: list[Video], folder: Path) -> None:
    workers = cores()
    with tqdm(total=len(videos), desc="making videos", unit="video", disable=None) as bar:
        if workers == 1 or len(videos) < WORTH_WORKERS:
            for video in videos:
                _encode(video, folder)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
            for _ in pool.map(_encode, videos, [folder] * len(videos), chunksize=4):
                bar.update()


def _write_lists(folder: Path, classes: tuple[str, ...], videos: list[Video], groups: int) -> None:
    """Write classInd.txt and, for each of the three splits, UCF101's training and test list."""
    write_atomic(folder / "classInd.txt", "".join(f"{k} {action}\n" for k, action in enumerate(classes, 1)))
    for split in (1, 2, 3):
        test = groups_to_test(groups, split)
        train_lines = [f"{v.name} {classes.index(v.action) + 1}\n" for v in videos if v.group not in test]
        test_lines = [f"{v.name}\n" for v in videos if v.group in test]
        write_atomic(folder / f"trainlist{split:02d}.txt", "".join(train_lines))
        write_atomic(folder / f"testlist{split:02d}.txt", "".join(test_lines))
