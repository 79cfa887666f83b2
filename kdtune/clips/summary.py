"""Summarise a data set for people: classes, splits, groups, what is left out, and what was guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kdtune.clips.catalog import read_data_set
from kdtune.clips.frames.store import ClipStore
from kdtune.clips.layout.names import counted, some
from kdtune.clips.layout.walk import others_in_words
from kdtune.clips.manifest import recorded_hashes
from kdtune.clips.order import validation_rows
from kdtune.config.sections import DataConfig
from kdtune.parse import printable
from kdtune.store import StoreFiles

#: Maximum number of classes listed with their videos.
CLASSES_SHOWN = 12
#: Maximum number of refused, and of short, videos listed.
VIDEOS_SHOWN = 3


@dataclass(frozen=True)
class Summary:
    """A data set in figures. Counts cover the usable videos where the frames are stored, else all listed videos."""

    place: str
    layout: str
    classes: tuple[tuple[str, int], ...]
    """Name and number of videos of each class, in the order of the labels."""
    training: int
    """Videos to train on: the training list, without validation unless data.train_on is "all"."""
    validation: int
    validation_from: str
    """The source of the validation videos, in words."""
    test: int
    groups: int
    frames: str = ""
    """Size of the folders of frames, in words; empty where the videos are files."""
    refused: tuple[str, ...] = ()
    """Videos that could not be decoded, with the reason."""
    too_short: tuple[str, ...] = ()
    """Videos with fewer frames than a sample needs."""
    frames_needed: int = 0
    decoded: bool = field(default=True, compare=False)
    """Whether the videos are decoded, so that the refused and the short ones are known."""
    list_of_refused: Path | None = None
    passed_over: str = ""
    guesses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def summary_of(data: DataConfig, frames_needed: int, store: StoreFiles, clips: ClipStore | None = None) -> Summary:
    """Read a data set and count its videos. `clips` are its stored frames, if there are any.

    Names copies of videos if the store has the files' hashes. Raises DataError where the data set cannot be read.
    """
    data_set = read_data_set(data)
    root, rows, reading = Path(data.folder), data_set.catalog, data_set.reading
    notes, hashes = list(reading.notes), recorded_hashes(data_set.catalog, root, store)
    if hashes is not None and len(set(hashes)) < len(hashes):
        from kdtune.clips.duplicates import notes_on, same_bytes  # imported late: needs PyAV

        notes += notes_on(same_bytes(rows, hashes, root))
    refused, too_short = tuple[str, ...](), tuple[str, ...]()
    if clips is not None:
        long_enough = clips.index["frames"] >= frames_needed
        short = clips.index[~long_enough]
        too_short = tuple(f"{video} {n:,}" for video, n in zip(short["video"], short["frames"], strict=True))
        refused, rows = clips.refused(), clips.index[long_enough]
    given = bool((data_set.catalog["split"] == "val").any())
    train = rows[rows["split"] != "test"]
    carved = int(validation_rows(train, data, given=given).sum()) if len(train) else 0
    test = int((rows["split"] == "test").sum())
    counts = rows.groupby(["label", "action"], as_index=False).size()
    return Summary(
        place=f"{data.dataset} in {printable(data.folder)}",
        layout=reading.layout,
        classes=tuple(zip(counts["action"], counts["size"].tolist(), strict=True)),
        training=len(train) if data.train_on == "all" else len(train) - carved,
        validation=carved if data.validation > 0 else test,
        validation_from=_validation_from(data, given),
        test=test,
        groups=rows["group"].nunique(),
        frames=_frames(list(reading.frames.values()), data.fps) if reading.frames else "",
        refused=refused,
        too_short=too_short,
        frames_needed=frames_needed,
        decoded=clips is not None,
        list_of_refused=clips.folder / "refused.csv" if clips is not None and refused else None,
        passed_over=others_in_words(reading.others) if reading.others else "",
        guesses=tuple(reading.guesses),
        notes=tuple(notes),
    )


def lines(summary: Summary) -> Iterator[str]:
    """Yield the summary as lines, in the columns of `plan`."""
    yield f"videos       {summary.place}: {printable(summary.layout)}"
    shown = ", ".join(f"{printable(name)} {number:,}" for name, number in summary.classes[:CLASSES_SHOWN])
    more = len(summary.classes) - CLASSES_SHOWN
    yield f"  classes    {len(summary.classes):,}: {shown}" + (f" and {more:,} more" if more > 0 else "")
    yield (
        f"  splits     training {summary.training:,}, validation {summary.validation:,} ({summary.validation_from}), "
        f"test {summary.test:,}"
    )
    yield f"  groups     {summary.groups:,}"
    if summary.frames:
        yield f"  frames     {summary.frames}"
    if not summary.decoded:
        yield "  refused    unknown, like videos that are too short, until `data prepare` has decoded them"
    if summary.refused:
        number = counted(len(summary.refused), "video")
        yield f"  refused    {number} (list: {summary.list_of_refused}): {some(summary.refused, VIDEOS_SHOWN)}"
    if summary.too_short:
        number = counted(len(summary.too_short), "video")
        yield (
            f"  too short  {number} with fewer than {summary.frames_needed} frames: "
            f"{some(summary.too_short, VIDEOS_SHOWN)}"
        )
    if summary.passed_over:
        yield f"  left out   {summary.passed_over}"
    for title, texts in (("guess", summary.guesses), ("note", summary.notes)):
        for text in texts:
            yield f"  {title:<10} {printable(text)}"


def _validation_from(data: DataConfig, given: bool) -> str:
    if data.validation == 0:
        return "the test list: data.validation is 0"
    if given:
        return "those of the data set"
    both_sides = "" if data.carve == "groups" else ", so that groups are on both sides"
    return f"{data.validation:.0%} of the training list, by {data.carve}{both_sides}"


def _frames(counts: list[int], fps: float | None) -> str:
    """Return the number and lengths of the folders of frames, in words."""
    least, most = min(counts), max(counts)
    text = f"{counted(len(counts), 'folder')} of {_span(f'{least:,}', f'{most:,}')} frames"
    if fps is None:
        return f"{text}; data.fps is not set, so their seconds are unknown"
    return f"{text}, {_span(f'{least / fps:.1f}', f'{most / fps:.1f}')} s at {fps:g} frames per second (data.fps)"


def _span(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"
