"""Determine what a teacher sees of its student's samples: the same moments, the same region of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdtune.config.fields import broken
from kdtune.config.sections import ClipConfig

#: Fields of `clip` that determine what a network sees. They are part of an imported network's identity.
SEEN = ("frames", "size", "modality", "normalize")
#: Allowed relative difference between the crops of student and teacher: sizes are whole pixels.
SAME_CROP = 0.05


def seen(clip: ClipConfig | Mapping[str, Any]) -> list[Any]:
    """Return the values of the SEEN fields of a clip configuration or its canonical form."""
    return [clip[name] if isinstance(clip, Mapping) else getattr(clip, name) for name in SEEN]


def view_of(student: ClipConfig, teacher: ClipConfig) -> ClipConfig | None:
    """Return the student's clips as its teacher sees them; None where both see the same.

    Where the sizes are equal, the teacher sees the student's frames, and its own `resize` has no effect.
    """
    if seen(student) == seen(teacher):
        return None
    resize = student.stored_size if student.size == teacher.size else teacher.stored_size
    return student.model_copy(update={**dict(zip(SEEN, seen(teacher), strict=True)), "resize": resize})


def check_view(student: ClipConfig, teacher: ClipConfig, per: str) -> None:
    """Raise PydanticCustomError where the teacher cannot see the same region of the student's samples.

    `per` is `augment.per`.
    """
    if (view := view_of(student, teacher)) is None:
        return
    if per == "frame" and view.frames != student.frames:
        rule = f"the teacher's clip.frames must be the student's {student.frames} where augment.per is frame"
        raise broken(rule, view.frames)
    for own, its in zip(student.stored_size, view.stored_size, strict=True):
        if abs((view.size / its) / (student.size / own) - 1) > SAME_CROP:
            rule = "the teacher's crop must be the same share of the picture as the student's"
            got = f"{view.size} of {list(view.stored_size)}; clip.resize sets it"
            raise broken(f"{rule}, {student.size} of {list(student.stored_size)}", got)
