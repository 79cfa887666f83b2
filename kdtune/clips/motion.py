"""Draw the synthetic videos' frames: the sprites' motion and look, before encoding.

Background and sprites depend on (seed, group) only, so they do not reveal the class. Nor does a single frame: position
(on a torus), size and angle of the sprites have the same uniform distribution in every class. Only their change from
frame to frame differs (`motion`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 160, 120  # pixels of the canvas; encoded frames are twice as wide and high
SPRITES = 3
SPRITE_PX = 64  # side of a sprite's picture
LEAST_PX, LARGEST_PX = 28.0, 75.0  # smallest and largest diameter of a sprite on the canvas
FRAMES = (90, 110)  # fewest and most frames of a video
TEST_SHARE = 0.2  # share of the groups in the test list

CLASSES = ("SpinLeft", "Slide", "Rise", "Fall", "Grow", "Shrink", "Shake", "Orbit")
#: SpinRight is not in CLASSES: the trainer's random horizontal flip turns it into SpinLeft.
ALL_CLASSES = (*CLASSES, "SpinRight")


@dataclass(frozen=True)
class Video:
    """One video to make; these four fields determine everything in it."""

    seed: int
    action: str
    group: int
    clip: int

    @property
    def name(self) -> str:
        suffix = "mp4" if self.clip % 2 == 0 else "avi"
        return f"{self.action}/v_{self.action}_g{self.group:02d}_c{self.clip:02d}.{suffix}"


@dataclass(frozen=True)
class Pose:
    """A sprite in one frame: centre and diameter in pixels of the canvas, angle in turns (counter-clockwise)."""

    x: float
    y: float
    diameter: float
    angle: float


def motion(action: str, n: int, draws: np.ndarray) -> list[list[Pose]]:
    """Return the sprites' poses as [frame][sprite]. `draws` (8,) are uniforms in [0, 1).

    Speeds are at least 3.3 pixels per frame: one pixel per frame where frames are stored 49 pixels wide.
    """
    x0, y0, size0, angle0, start, speed, way, lean = (float(draw) for draw in draws)
    sign = 1 if way < 0.5 else -1
    step = (3.5 + 2.0 * speed) * sign  # pixels per frame
    period = 12.0 + 4.0 * speed  # frames
    frames = []
    for t in range(n):
        dx = dy = size = angle = 0.0
        if action == "Slide":
            dx = step * t
        elif action == "Rise":
            dy = -abs(step) * t
        elif action == "Fall":
            dy = abs(step) * t
        elif action == "Shake":
            # Two frames forth, two back, along a random line.
            side = (1 if (t // 2) % 2 else -1) * (4.5 + 2.0 * speed)
            dx, dy = side * _cos(lean), side * _sin(lean)
        elif action == "Orbit":
            turn = start + sign * t / (1.3 * period)
            dx, dy = 17.0 * _cos(turn), 17.0 * _sin(turn)
        elif action in ("SpinLeft", "SpinRight"):
            angle = t / period * (1 if action == "SpinLeft" else -1)
        else:
            # Cycle through all sizes, so that each is as frequent as in the other classes.
            size = t / period * (1 if action == "Grow" else -1)
        poses = []
        for k in range(SPRITES):
            third = k / SPRITES
            ratio = (size0 + third + size) % 1.0
            poses.append(
                Pose(
                    x=(WIDTH * (x0 + third) + dx) % WIDTH,
                    y=(HEIGHT * (y0 + third) + dy) % HEIGHT,
                    diameter=round(LEAST_PX * (LARGEST_PX / LEAST_PX) ** ratio, 3),
                    angle=(angle0 + third + angle) % 1.0,
                )
            )
        frames.append(poses)
    return frames


def videos_of(seed: int, classes: tuple[str, ...], groups: int, clips: int) -> list[Video]:
    """Return classes × groups × clips videos; groups and clips are numbered from 1."""
    return [
        Video(seed, action, group, clip)
        for action in classes
        for group in range(1, groups + 1)
        for clip in range(1, clips + 1)
    ]


def groups_to_test(groups: int, split: int) -> set[int]:
    """Return the test groups of a split: the first fifth of the groups for split 1, the next for split 2, …"""
    share = max(1, round(TEST_SHARE * groups))
    return {(share * (split - 1) + k) % groups + 1 for k in range(share)}


def frames_of(video: Video) -> Iterator[Image.Image]:
    """Yield the frames of a video, RGB, at the size of the canvas (half that of the encoded frames)."""
    background, sprites = _look(video.seed, video.group)
    draws = _generator(video.seed, "clip", video.action, video.group, video.clip).random(9)
    n = FRAMES[0] + int(draws[8] * (FRAMES[1] - FRAMES[0] + 1))
    for poses in motion(video.action, n, draws[:8]):
        frame = background.copy()
        for (picture, mask), pose in zip(sprites, poses, strict=True):
            _draw(frame, picture, mask, pose)
        yield frame


def _draw(frame: Image.Image, picture: Image.Image, mask: Image.Image, pose: Pose) -> None:
    """Draw a sprite on the torus: what leaves on one side enters on the other."""
    side = math.ceil(pose.diameter) + 2
    left, top = math.floor(pose.x - side / 2), math.floor(pose.y - side / 2)
    # The affine coefficients map a pixel of the box to one of the sprite's picture.
    zoom = SPRITE_PX / pose.diameter
    a, b = round(zoom * _cos(pose.angle), 6), round(zoom * _sin(pose.angle), 6)
    cx, cy = round(pose.x - left, 3), round(pose.y - top, 3)
    middle = SPRITE_PX / 2
    inverse = (a, -b, middle - a * cx + b * cy, b, a, middle - b * cx - a * cy)
    affine, size = Image.Transform.AFFINE, (side, side)
    shown = picture.transform(size, affine, inverse, Image.Resampling.BILINEAR)
    cover = mask.transform(size, affine, inverse, Image.Resampling.BILINEAR)
    for x in (left - WIDTH, left, left + WIDTH):
        for y in (top - HEIGHT, top, top + HEIGHT):
            if -side < x < WIDTH and -side < y < HEIGHT:
                frame.paste(shown, (x, y), cover)


def _look(seed: int, group: int) -> tuple[Image.Image, list[tuple[Image.Image, Image.Image]]]:
    """Return the background and the sprites (picture, mask) of a group."""
    random = _generator(seed, "look", group)
    # Lighter at the top, as outdoors, so that a rotated clip differs from an upright one.
    coarse = 55 + 25 * random.random((6, 8, 3)) + np.linspace(50, 0, 6)[:, None, None]
    background = Image.fromarray(coarse.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return background, [_sprite(random) for _ in range(SPRITES)]


def _sprite(random: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Return a polygon, one half bright, one dark, with a patch, so that every angle looks different; and its mask."""
    bright = tuple(int(v) for v in 170 + 85 * random.random(3))
    dark = tuple(int(v) for v in 45 * random.random(3))
    patch = tuple(int(v) for v in 255 * random.random(3))
    picture = Image.new("RGB", (SPRITE_PX, SPRITE_PX), bright)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, SPRITE_PX, int(SPRITE_PX * (0.4 + 0.2 * random.random()))), fill=dark)
    x, y = (int(v) for v in 20 + 15 * random.random(2))
    draw.ellipse((x, y, x + 13, y + 13), fill=patch)
    mask = Image.new("L", (SPRITE_PX, SPRITE_PX), 0)
    corners = int(3 + random.random() * 6)
    middle = SPRITE_PX / 2
    outline = [
        (round(middle + 31 * _cos(k / corners), 3), round(middle + 31 * _sin(k / corners), 3)) for k in range(corners)
    ]
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    return picture, mask


def _cos(turns: float) -> float:
    """Return the cosine of an angle in turns, rounded so that the C library's last bits do not matter."""
    return round(math.cos(2 * math.pi * turns), 9)


def _sin(turns: float) -> float:
    return round(math.sin(2 * math.pi * turns), 9)


def _generator(*name: object) -> np.random.Generator:
    """Return a generator seeded from the hash of `name`, a separate one for each purpose."""
    key = hashlib.sha256("/".join(str(part) for part in name).encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key[:16], dtype="<u8").astype(np.uint64)))
