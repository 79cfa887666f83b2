"""Decode the videos of a store, a few at a time, in threads that stop when one of them fails."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event

from tqdm import tqdm

from kdtune.clips.frames.tiers import Tier
from kdtune.clips.frames.writing import Part, write_part
from kdtune.clips.video.decode import Refused, decode, header_pixels

log = logging.getLogger(__name__)

#: Memory that decoding needs per pixel of a frame, decoders' buffers included (measured: 205 MB at 1920×1080, H.264).
BYTES_A_PIXEL = 100
#: Memory for all videos decoded at the same time; a single video may take more.
DECODING_BYTES = 500 * 2**20


def decoded_parts(
    videos: Sequence[tuple[Path, Path]], size: tuple[int, int], tier: Tier, threads: int
) -> Generator[Part | Refused, None, None]:
    """Decode each of `videos`, pairs of (file, part), into its part. Yield the results in the order of `videos`.

    At most two parts per thread wait on the disk, a thread holds one frame, and large videos wait for each other, so
    memory and disk use are bounded for any number, length and size of videos. The caller removes each part. Raises
    OSError (disk full). Then, or if the caller stops early, the threads stop and the parts are removed.
    """
    waiting: deque[Future[Part | Refused]] = deque()
    stop, memory, pool = Event(), _Memory(DECODING_BYTES), ThreadPoolExecutor(threads)
    whole = False
    try:
        for path, part in videos:
            waiting.append(pool.submit(_part, path, part, size, tier, stop, memory))
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        whole = True
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        for _, part in videos if not whole else ():
            part.unlink(missing_ok=True)


def _part(path: Path, part: Path, size: tuple[int, int], tier: Tier, stop: Event, memory: _Memory) -> Part | Refused:
    with memory.share(BYTES_A_PIXEL * header_pixels(path)):
        try:
            return write_part(part, tier, decode(path, size), stop)
        except Refused as refused:
            part.unlink(missing_ok=True)
            return refused


class _Memory:
    """A memory budget in bytes that threads share: a thread waits until its share is free."""

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self.changed = Condition()

    @contextmanager
    def share(self, size: int) -> Iterator[None]:
        """Hold `size` bytes, or the whole budget where `size` exceeds it."""
        size = min(size, self.total)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= size)
            self.free -= size
        try:
            yield
        finally:
            with self.changed:
                self.free += size
                self.changed.notify_all()


class Progress:
    """Shows how many videos are decoded and the time left: a bar on a terminal, else a line for each tenth."""

    def __init__(self, frames: Sequence[int], done: int) -> None:
        """Take the approximate frame count of each video; an earlier build decoded the first `done` of them."""
        self.frames, self.done = [max(1, count) for count in frames], done
        self.piped = not sys.stderr.isatty()
        self.started, self.first = time.monotonic(), done
        self.bar = tqdm(total=sum(self.frames), initial=sum(self.frames[:done]), unit="frame", disable=self.piped)

    def advance(self) -> None:
        """Count one more decoded video."""
        self.bar.update(self.frames[self.done])
        self.done += 1
        total = len(self.frames)
        self.bar.set_description(f"decoding videos {self.done:,}/{total:,}", refresh=False)
        if self.piped and self.done * 10 // total > (self.done - 1) * 10 // total:
            rest = f", {self._left()} left" if self.done < total else ""
            log.info(f"clips: {self.done:,} of {total:,} videos decoded{rest}")

    def close(self) -> None:
        self.bar.close()

    def _left(self) -> str:
        elapsed = time.monotonic() - self.started
        pace = elapsed / sum(self.frames[self.first : self.done])
        minutes = pace * sum(self.frames[self.done :]) / 60
        if minutes < 1:
            return "less than a minute"
        return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"
