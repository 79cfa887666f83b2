"""Summarise a data set for people: classes, splits, groups, what is left out, and what was guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdtune.clips.catalog import read_data_set
from kdtune.clips.frames.store import ClipStore
from kdtune.clips.layout.names import counted
from kdtune.clips.layout.walk import others_in_words
from kdtune.clips.manifest import recorded_hashes
from kdtune.clips.order import carve_validation
from kdtune.config.sections import DataConfig
from kdtune.parse import printable
from kdtune.store import Store

#: Maximum number of classes listed with their videos.
CLASSES_SHOWN = 12


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
    validation_share: float
    """`data.validation`; 0 where validation is the test list."""
    carved_by: str
    """`data.carve`."""
    test: int
    groups: int
    refused: int = 0
    """Videos that could not be decoded."""
    too_short: int = 0
    frames_needed: int = 0
    list_of_refused: Path | None = None
    passed_over: str = ""
    guesses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def summary_of(data: DataConfig, frames_needed: int, store: Store, clips: ClipStore | None = None) -> Summary:
    """Read a data set and count its videos. `clips` are its stored frames, if there are any.

    Names copies of videos if the store has the files' hashes. Raises DataError where the data set cannot be read.
    """
    data_set = read_data_set(data)
    root, rows, reading = Path(data.folder), data_set.catalog, data_set.reading
    notes, hashes = list(reading.notes), recorded_hashes(data_set.catalog, root, store)
    if hashes is not None and len(set(hashes)) < len(hashes):
        from kdtune.clips.duplicates import notes_on, same_bytes  # imported late: needs PyAV

        notes += notes_on(same_bytes(rows, hashes, root))
    refused = too_short = 0
    if clips is not None:
        long_enough = clips.index["frames"] >= frames_needed
        refused, too_short, rows = clips.record["refused"], int((~long_enough).sum()), clips.index[long_enough]
    train = rows[rows["split"] == "train"]
    carved = 0
    if len(train):
        carved = int(carve_validation(train, data.validation, data.subset_seed, data.carve).sum())
    test = int((rows["split"] == "test").sum())
    counts = rows.groupby(["label", "action"], as_index=False).size()
    return Summary(
        place=f"{data.dataset} in {printable(data.folder)}",
        layout=reading.layout,
        classes=tuple(zip(counts["action"], counts["size"].tolist(), strict=True)),
        training=len(train) if data.train_on == "all" else len(train) - carved,
        validation=carved if data.validation > 0 else test,
        validation_share=data.validation,
        carved_by=data.carve,
        test=test,
        groups=rows["group"].nunique(),
        refused=refused,
        too_short=too_short,
        frames_needed=frames_needed,
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
    share = f"{summary.validation_share:.0%} of the training list, by {summary.carved_by}"
    share += "" if summary.carved_by == "groups" else ", so that groups are on both sides"
    origin = share if summary.validation_share > 0 else "the test list: data.validation is 0"
    yield (
        f"  splits     training {summary.training:,}, validation {summary.validation:,} ({origin}), "
        f"test {summary.test:,}"
    )
    yield f"  groups     {summary.groups:,}"
    if summary.refused:
        yield f"  refused    {counted(summary.refused, 'video')} (list: {summary.list_of_refused})"
    if summary.too_short:
        yield f"  too short  {counted(summary.too_short, 'video')} with fewer than {summary.frames_needed} frames"
    if summary.passed_over:
        yield f"  left out   {summary.passed_over}"
    for title, texts in (("guess", summary.guesses), ("note", summary.notes)):
        for text in texts:
            yield f"  {title:<10} {printable(text)}"
