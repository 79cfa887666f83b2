"""Folders of files that are named like videos, for tests that only read names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from kdtune.clips.catalog import COLUMNS, DataSet, read_data_set
from kdtune.clips.layout.names import unusable
from kdtune.clips.layout.walk import is_junk
from kdtune.config.sections import DataConfig
from kdtune.errors import DataError


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def videos(root: Path, *names: str) -> None:
    for name in names:
        write(root / name, f"bytes of {name}".encode(errors="surrogateescape"))


def read(root: Path, **fields: object) -> DataSet:
    return read_data_set(DataConfig.model_validate({"dataset": "folder", "root": str(root), **fields}))


def counts(catalog: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Return (class, split) → videos."""
    return catalog.groupby(["action", "split"]).size().to_dict()


def check(data_set: DataSet, root: Path) -> None:
    """Assert what holds for every catalog of a folder."""
    catalog = data_set.catalog
    assert list(catalog.columns) == COLUMNS
    assert list(catalog.index) == list(range(len(catalog)))
    assert catalog["video"].is_monotonic_increasing
    assert catalog["video"].is_unique
    pairs = catalog[["label", "action"]].drop_duplicates()
    assert pairs["label"].is_unique
    assert pairs["action"].is_unique
    assert len(pairs) >= 2
    assert set(catalog["split"]) <= {"train", "val", "test"}
    assert set(catalog.loc[catalog["split"] == "train", "action"]) == set(catalog["action"])
    for text in [*catalog["video"], *catalog["action"], *catalog["group"]]:
        assert text
        assert not unusable(text)
    frames = data_set.reading.frames
    if "list" not in data_set.reading.layout:
        assert not any(is_junk(part) for video in catalog["video"] for part in video.split("/"))
        assert all((root / video).is_dir() if frames else (root / video).is_file() for video in catalog["video"])
        real = [os.path.join(os.path.realpath((root / video).parent), Path(video).name) for video in catalog["video"]]
        assert len(set(real)) == len(real)
    if data_set.reading.layout == "class folders":
        groups = catalog.groupby("split")["group"].agg(set)
        assert not groups["train"] & groups.get("test", set())


def check_outcome(root: Path) -> None:
    """Assert that a folder is a valid catalog, or is refused in printable text with at least one problem."""
    try:
        data_set = read(root)
    except DataError as error:
        text = str(error)
    else:
        check(data_set, root)
        return
    assert text
    assert text.replace("\n", "").isprintable()


@contextmanager
def unprivileged() -> Iterator[Path]:
    """An empty folder, in a process that is subject to permissions even if root runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            folder = Path(name) / "data"
            folder.mkdir()
            yield folder
        finally:
            os.seteuid(user)
            for path in Path(name).rglob("*"):
                path.chmod(0o755)
