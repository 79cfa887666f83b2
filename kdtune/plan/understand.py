"""Find out which data set a folder holds, and where its lists are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdtune.clips.catalog import DataSet, read_data_set
from kdtune.clips.layout.listed import find_lists
from kdtune.clips.layout.text import names_in
from kdtune.config.sections import DataConfig

#: Folders, beside the classes or around them, in which lists come.
LIST_FOLDERS = ("lists", "annotations", "splits", "ucfTrainTestlist", "testTrainMulti_7030_splits")
#: Endings of the lists' names, by the data set in whose format they are.
ENDINGS = {"hmdb51": "_test_split1.txt", "folder": "trainlist01.txt"}
#: Number of UCF101's classes, and one of them.
UCF101 = 101, "ApplyEyeMakeup"


def understood(folder: str) -> DataSet:
    """Return the data set in `folder`, read as the configuration in its `data` says.

    Lists beside or around the classes are never ignored. Raises DataError as `data prepare` does.
    """
    found = read_data_set(next(_readings(folder), _data("folder", folder)))
    if found.reading.layout == "UCF101's lists" and _is_ucf101(found):
        return read_data_set(found.data.model_copy(update={"dataset": "ucf101"}))
    return found


def _readings(folder: str) -> Iterator[DataConfig]:
    """Yield the ways to read a folder, those with lists first."""
    root = Path(folder)
    for place in (root, *(root / name for name in LIST_FOLDERS)):
        names = names_in(place, [])
        for dataset, ending in ENDINGS.items():
            if any(name.endswith(ending) for name in names):
                yield _data(dataset, folder, None if place == root else place)
        if find_lists(place, names, 1, given=place != root)[0]:
            yield _data("folder", folder, None if place == root else place)


def _data(dataset: str, folder: str, lists: Path | None = None) -> DataConfig:
    fields = {"dataset": dataset, "root": folder} | ({} if lists is None else {"lists": str(lists)})
    return DataConfig.model_validate(fields)


def _is_ucf101(found: DataSet) -> bool:
    count, example = UCF101
    actions = set(found.catalog["action"])
    return len(actions) == count and example in actions
