"""Teachers that see other input than their students: same moments, same region of the picture, stable targets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import fuzz, fuzzed
from helpers import CPU, bits, stopped, train
from hypothesis import strategies as st
from pydantic import ValidationError

from kdtune.clips.dataset import TrialData
from kdtune.clips.tuples import ClipDraws, draw_tuples
from kdtune.clips.view import EdgePadded, draws_for_view
from kdtune.config.key import identity, trial_key
from kdtune.config.sections import ClipConfig
from kdtune.config.trial import TrialConfig
from kdtune.config.view import view_of
from kdtune.store import TARGET_COUNTS, StoreFiles
from kdtune.train.inputs import training_samples, viewed_samples
from kdtune.train.replay import Replay
from kdtune.train.samples import Samples
from kdtune.train.session import Session
from kdtune.train.targets import Targets

#: No colours, no blur, no flip: clips are crops of stored frames.
PLAIN = {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0, "flip_p": 0.0}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
TEACHER = {"student": {"backbone": "r3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}


def taught_by(form: dict[str, Any], sees: dict[str, Any], **more: Any) -> TrialConfig:
    return TrialConfig.model_validate({**form, "teacher": {**TEACHER, "clip": sees}, **more})


# ---- draws -----------------------------------------------------------------------------------------------------------


@fuzzed
def test_a_view_shows_the_same_moment_and_place(examples: int) -> None:
    frames, size = st.sampled_from([4, 8, 10, 16, 32]), st.sampled_from([16, 32, 64, 112])

    def check(own: tuple[int, int], its: tuple[int, int], length: int, u: tuple[float, float, float]) -> None:
        clip, other = (ClipConfig(frames=t, size=s) for t, s in (own, its))
        view = view_of(clip, other) or clip
        length = max(length, clip.frames)
        room = np.array(clip.stored_size) - clip.size
        start = np.array([[int(u[0] * (length - clip.frames + 1))]])
        crop = np.floor(np.array(u[1:]) * (room + 1)).astype(np.int64)[None, None]
        found = draws_for_view(ClipDraws(start, crop, None), clip, view, np.array([length]))
        first = int(found.start[0, 0])
        if view.frames <= length:
            assert 0 <= first <= length - view.frames
            inner, outer = sorted(((int(start[0, 0]), clip.frames), (first, view.frames)), key=lambda at: at[1])
            assert outer[0] <= inner[0]
            assert inner[0] + inner[1] <= outer[0] + outer[1]
        read = EdgePadded(Counting(), np.array([length])).clip(0, first, view.frames)  # type: ignore[arg-type]
        assert np.array_equal(read, np.clip(np.arange(first, first + view.frames), 0, length - 1))
        top_left = found.crop[0, 0]
        assert (top_left >= 0).all()
        assert (top_left + view.size <= view.stored_size).all()
        centres = [(at + c.size / 2) / np.array(c.stored_size) for at, c in ((crop[0, 0], clip), (top_left, view))]
        # To half a pixel; at the picture's edge, rounding of the sizes adds one.
        assert (abs(centres[0] - centres[1]) <= 1.5 / min(clip.stored_size[0], view.stored_size[0])).all()

    pairs, unit = st.tuples(frames, size), st.floats(0, 1, exclude_max=True)
    fuzz(check, pairs, pairs, st.integers(4, 200), st.tuples(unit, unit, unit), examples=examples)


class Counting:
    """Frames whose pixels are their numbers."""

    def clip(self, row: int, start: int, count: int) -> np.ndarray:
        assert row == 0
        return np.arange(start, start + count)


# ---- pixels ----------------------------------------------------------------------------------------------------------


def test_a_view_is_cut_from_the_frames_around_the_students(trial_form: dict[str, Any], prepared: Session) -> None:
    """RGB and 12 frames, for a student of residuals and 8 frames: compared with slices of the stored frames."""
    config = taught_by(trial_form, {"frames": 12, "modality": "rgb"}, augment=PLAIN)
    data = TrialData.of(config, prepared.clips(config))
    samples = np.arange(data.size)
    assert config.view is not None
    seen = viewed_samples(config, config.view, data, data.clips, 3, samples, CPU)
    own = training_samples(config, data, 3, samples, CPU)
    assert seen.labels.equal(own.labels)
    rows = data.order[samples]
    draws = draw_tuples(
        config, seed=0, purpose="train", epoch=3, samples=samples, lengths=data.lengths[rows], train=True
    )
    for i, row in enumerate(rows.tolist()):
        video = data.clips.frames(row) / 255
        for c in (0, 2):  # the middle clip is transformed
            first = int(np.clip(draws.start[i, c] - 2, 0, len(video) - 12))
            top, left = draws.crop[i, c]
            cut = (video[first : first + 12, top : top + 24, left : left + 24] - MEAN) / STD
            np.testing.assert_allclose(seen.clips[i, c].numpy(), cut.transpose(3, 0, 1, 2), atol=1e-5)
            mine = cut[int(draws.start[i, c]) - first :][:8].transpose(3, 0, 1, 2)
            np.testing.assert_allclose(own.clips[i, c].numpy(), np.roll(mine, 1, 1) - mine, atol=1e-5)


@pytest.fixture(scope="module")
def larger(eight_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, dict[str, Any]]:
    """Return 8 videos, prepared for students of 32² and their teachers of 64², and the trial's form."""
    form = {
        "data": {"dataset": "synthetic", "root": str(eight_videos), "validation": 0.0},
        "clip": {"frames": 8, "size": 32},
        "student": {"backbone": "r3d", "width": 4},
        "loss": {"negatives": 4},
        "evaluation": {"clips": 1},
        "epochs": 2,
        "stages": {"early": 1, "late": 2},
    }
    session = Session(StoreFiles(tmp_path_factory.mktemp("larger")))
    session.prepare(taught_by(form, {"size": 64}))
    return session, form


def test_a_larger_view_shows_the_same_place(larger: tuple[Session, dict[str, Any]]) -> None:
    session, form = larger
    config = taught_by(form, {"size": 64, "modality": "rgb"}, clip={**form["clip"], "modality": "rgb"}, augment=PLAIN)
    data, clips = TrialData.of(config, session.clips(config)), session.view_clips(config)
    assert config.view is not None
    assert clips is not None
    samples = np.arange(data.size)
    own = training_samples(config, data, 1, samples, CPU).clips.numpy()
    seen = viewed_samples(config, config.view, data, clips, 1, samples, CPU).clips.numpy()
    assert seen.shape == (*own.shape[:4], 64, 64)
    halved = seen.reshape(*own.shape[:4], 32, 2, 32, 2).mean((5, 7))
    same = abs(halved - own).mean()
    # Shifted by two pixels, it is another region.
    assert same < 0.5 * abs(np.roll(halved, 2, -1) - own)[..., 4:-4].mean()
    assert same < 0.5 * abs(np.roll(halved, 2, -2) - own)[..., 4:-4, :].mean()


# ---- keys and refusals -----------------------------------------------------------------------------------------------


def key_of(config: TrialConfig) -> str:
    return trial_key(config, lambda data: "manifest")


def test_only_what_is_seen_otherwise_makes_a_view() -> None:
    form = {"clip": {"frames": 10, "size": 64}}
    same = taught_by(form, {"resize": [80, 100], "interval": 4})
    assert same.view is None
    assert "view" not in identity(same, lambda data: "manifest")
    keys = set()
    for clip in ({"frames": 16}, {"size": 112, "resize": [128, 171]}, {"modality": "rgb"}, {"normalize": False}):
        config = taught_by(form, clip)
        assert config.view is not None
        assert config.view.teacher is None
        assert [getattr(config.view.clip, name) for name in clip] == [
            tuple(value) if isinstance(value, list) else value for value in clip.values()
        ]
        assert (len(list(config.lineage())) == 3) == ("size" in clip)
        keys.add(key_of(config))
    imported = {"imported": "0" * 32, "student": {"backbone": "c3d"}}
    for resize in ([128, 171], [130, 174]):
        clip = {"frames": 16, "size": 112, "resize": resize}
        keys.add(key_of(TrialConfig.model_validate({**form, "teacher": {**imported, "clip": clip}})))
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("form", "clip", "message"),
    [
        (
            {"augment": {"per": "frame"}},
            {"frames": 16},
            "must be the student's 10 where augment.per is frame",
        ),
        ({}, {"size": 64, "resize": [128, 171]}, "the teacher's crop must be the same share of the picture"),
    ],
)
def test_views_that_cannot_be_are_refused(form: dict[str, Any], clip: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        taught_by(form, clip)


# ---- training --------------------------------------------------------------------------------------------------------


def test_targets_of_a_view_are_found_again_and_are_its_own(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    other = {"frames": 12, "modality": "rgb"}
    config = taught_by({**trial_form, "epochs": 1, "stages": {"late": 1}}, other)
    files = train(config, StoreFiles(tmp_path), prepared)
    size = TrialData.of(config, prepared.clips(config)).size
    assert [files.rows()[0][name] for name in TARGET_COUNTS] == [size, 0]
    again = config.model_copy(update={"loss": config.loss.model_copy(update={"tau": 2.0})})
    rows = train(again, StoreFiles(tmp_path), prepared).rows()
    assert [rows[0][name] for name in TARGET_COUNTS] == [0, size]
    # For the same teacher, a student whose clips equal the teacher's has other targets.
    alike = config.model_copy(update={"clip": config.clip.model_copy(update=other)})
    session = Session(StoreFiles(tmp_path), dict(prepared.folders))
    assert config.teacher is not None
    key = session.key(config.teacher)
    samples = [Samples(c, TrialData.of(c, session.clips(c)), CPU) for c in (config, alike)]
    first, second = (Targets(of, key, session.store, partial(session.weights, config.teacher, CPU)) for of in samples)
    assert first.key != second.key
    assert not first.epoch(1)["logits"].equal(second.epoch(1)["logits"])


@pytest.mark.slow
def test_a_larger_teachers_student_resumes_and_replays_to_the_same_bits(
    larger: tuple[Session, dict[str, Any]], tmp_path: Path
) -> None:
    session, form = larger
    config = taught_by(form, {"size": 64, "frames": 12, "modality": "rgb"}, loss={"lambda": 0.5, "gamma": 0.5})
    whole = train(config, session.store, session)
    stopped(config, StoreFiles(tmp_path), session, 1)
    assert bits(train(config, StoreFiles(tmp_path), session)) == bits(whole)
    with Replay(session.store, CPU) as replay:
        assert replay.trial(session.key(config)) is None
