"""Pixels, frames and promises of odd recordings equal those of FFmpeg's own player; cut-off files are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import decoded
from PIL import Image
from recordings import (
    CODECS,
    MATRICES,
    SIZE,
    Recipe,
    empty_chunks,
    ffmpeg,
    needs_ffmpeg,
    orient,
    pattern,
    recipes,
    shown,
    trimmed,
)

from kdtune.clips.video.decode import Refused, header_frames
from kdtune.clips.video.geometry import Turn, turn_of

pytestmark = needs_ffmpeg
WHOLE_MATRIX = [pytest.param(recipe, id=str(recipe), marks=pytest.mark.slow) for recipe in recipes()]
Make = Callable[..., Path]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make the video of a name once. It encodes a pattern unless the arguments say otherwise."""
    folder = tmp_path_factory.mktemp("recordings")

    def made(name: str, codec: str, *arguments: str, seconds: float = 1) -> Path:
        path = folder / name
        if not path.exists():
            ffmpeg(*pattern(seconds), *CODECS[codec], *arguments, path)
        return path

    return made


def assert_as_shown(path: Path) -> np.ndarray:
    """Compare with the ffmpeg command. Return the frames."""
    frames, expected = decoded(path, SIZE)[0], shown(path)
    assert len(frames) == len(expected)
    pictures = {
        "as shown": expected,
        "mirrored": expected[:, :, ::-1],
        "flipped": expected[:, ::-1],
        "turned": expected[:, ::-1, ::-1],
    }
    difference = {name: np.abs(frames.astype(int) - other).mean() for name, other in pictures.items()}
    assert min(difference, key=lambda name: difference[name]) == "as shown", difference
    assert difference["as shown"] < 6, difference  # versions of swscale interpolate the colours of 10 bits differently
    return frames


@pytest.mark.parametrize("recipe", WHOLE_MATRIX)
def test_the_whole_matrix(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / f"video.{recipe.suffix}"
    recipe.make(path)
    frames = len(assert_as_shown(path))
    # Where the header counts no frames, its seconds times the rate are an estimate, at most two seconds too long.
    assert frames - 10 <= header_frames(path) <= frames + 50


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_display_matrix(matrix: str, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    path.write_bytes(make("short.mp4", "mjpeg", seconds=0.2).read_bytes())
    orient(path, *MATRICES[matrix])
    assert_as_shown(path)


def test_turns_are_those_of_ffmpegs_filters() -> None:
    """Names follow fftools: clock, cclock, hflip, vflip; every matrix with right-angled corners is told apart."""
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    turned = {name: turn_of((a, b, 0, c, d, 0, 0, 0, 1))(pixels) for name, (a, b, c, d) in EIGHT.items()}
    expected = {
        "upright": pixels,
        "mirrored": pixels[:, ::-1],
        "flipped": pixels[::-1],
        "180": np.rot90(pixels, 2),
        "90": np.rot90(pixels, -1),
        "270": np.rot90(pixels),
        "transposed": pixels.transpose(1, 0, 2),
        "transposed the other way": np.rot90(pixels, 2).transpose(1, 0, 2),
    }
    for name, picture in expected.items():
        np.testing.assert_array_equal(turned[name], picture, err_msg=name)


EIGHT = {name: tuple(map(int, MATRICES[name])) for name in list(MATRICES)[:8]}


def test_an_angle_that_is_no_quarter_turn_is_kept() -> None:
    assert turn_of((56756, 32768, 0, -32768, 56756, 0, 0, 0, 1)) == Turn(angle=30)
    assert turn_of((0, 0, 0, 0, 0, 0, 0, 0, 1)) == turn_of(None) == Turn()


def test_side_data_that_pyav_does_not_know(tmp_path: Path) -> None:
    """A camera's EXIF gives the orientation of Motion JPEG; PyAV 18 cannot list the side data of such a frame."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a title"  # orientation: turned by 90°
    for number in range(3):
        picture = np.random.Generator(np.random.Philox(number)).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(picture).resize(SIZE[::-1], 0).save(tmp_path / f"{number}.jpg", exif=exif)
    ffmpeg("-f", "image2", "-i", tmp_path / "%d.jpg", "-c", "copy", tmp_path / "camera.avi")
    assert len(assert_as_shown(tmp_path / "camera.avi")) == 3


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_what_an_edit_list_hides_is_not_promised(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"trimmed.{suffix}"
    trimmed(path, "h264", end="0.8")
    frames = assert_as_shown(path)
    assert len(frames) == header_frames(path) == 20
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(Refused):
        decoded(path, SIZE)


@pytest.mark.parametrize("which", [slice(0, 7), slice(9, 14), slice(-8, None)], ids=["begin", "middle", "end"])
def test_empty_chunks_of_an_avi_promise_nothing(which: slice, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "capture.avi"
    path.write_bytes(make("plain.avi", "mjpeg").read_bytes())
    empty_chunks(path, which)
    frames = assert_as_shown(path)
    assert len(frames) == header_frames(path) == 25 - len(range(25)[which])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Refused, match=r"promises .* frames, only .* decode"):
        decoded(path, SIZE)


def test_a_late_clock_is_no_length(make: Make, tmp_path: Path) -> None:
    path = make("late.mkv", "mjpeg", "-output_ts_offset", "36600")
    assert len(assert_as_shown(path)) == header_frames(path) == 25
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    with pytest.raises(Refused, match=r"promises 1\.0 s, ends after 0\.\d s"):
        decoded(cut, SIZE)


def test_a_cut_in_an_open_group_of_pictures(tmp_path: Path) -> None:
    path = tmp_path / "cut.mkv"
    trimmed(path, "h264 open GOP")
    assert_as_shown(path)


def test_interlaced_frames_and_empty_packets(make: Make) -> None:
    assert_as_shown(make("interlaced.mp4", "h264 interlaced", seconds=0.2))
    assert_as_shown(make("repeated.ogv", "theora"))


def test_hidden_frames_and_a_title_that_is_no_utf_8(make: Make, tmp_path: Path) -> None:
    assert_as_shown(make("hidden.webm", "vp8 hidden"))
    path = tmp_path / "latin.avi"
    path.write_bytes(make("plain.avi", "mjpeg", "-metadata", "title=caf+").read_bytes().replace(b"caf+", b"caf\xe9"))
    assert len(assert_as_shown(path)) == 25


def test_sound_that_is_longer_than_the_video(make: Make) -> None:
    path = make("sound.wmv", "wmv2", "-f", "lavfi", "-i", "sine=duration=1.8", seconds=1)
    assert_as_shown(path)


def test_a_cover_is_not_taken_for_the_video(make: Make, tmp_path: Path) -> None:
    cover = tmp_path / "cover.jpg"
    ffmpeg(*pattern(1, "320x240"), "-frames:v", "1", cover)
    both = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic")
    ffmpeg("-i", cover, "-i", make("plain.mp4", "mpeg4"), *both, tmp_path / "both.mp4")
    np.testing.assert_array_equal(decoded(tmp_path / "both.mp4", SIZE)[0], decoded(make("plain.mp4", "mpeg4"), SIZE)[0])
    sound = ("-f", "lavfi", "-i", "sine=duration=0.2")
    ffmpeg("-i", cover, *sound, *both[:4], "-c:v", "copy", *both[6:], tmp_path / "song.m4a")
    with pytest.raises(Refused, match="only a cover picture"):
        decoded(tmp_path / "song.m4a", SIZE)


def test_a_size_that_changes_and_a_suffix_that_lies(make: Make, tmp_path: Path) -> None:
    small, large, path = make("small.h264", "h264"), tmp_path / "large.h264", tmp_path / "both.avi"
    ffmpeg(*pattern(1, "96x64"), *CODECS["h264"], large)
    path.write_bytes(small.read_bytes() + large.read_bytes())
    frames, decoder = decoded(path, SIZE)
    assert frames.shape == (50, *SIZE, 3)
    assert decoder == "pyav"
    assert np.abs(frames.astype(int) - shown(path)).mean() < 6


CUT = {"mp4": "mpeg4", "mov": "mjpeg", "mkv": "mpeg4", "webm": "vp8", "avi": "mpeg4", "flv": "flv1", "wmv": "wmv2"}


@pytest.mark.parametrize("suffix", CUT)
@pytest.mark.parametrize("share", [0.3, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.1, 0.6, 0.85, 0.95))])
def test_what_is_cut_off_is_refused(suffix: str, share: float, make: Make, tmp_path: Path) -> None:
    # mp4 and mov have their index in front, as for the web; otherwise nothing of a cut file can be opened
    web = ("-movflags", "faststart") if suffix in ("mp4", "mov") else ()
    whole, cut = make(f"whole.{suffix}", CUT[suffix], *web, seconds=4), tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(Refused):
        decoded(cut, SIZE)
    assert len(decoded(whole, SIZE)[0]) == 100
