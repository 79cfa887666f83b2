"""Catalogs: official lists, folders, what is reported when something is missing, and the manifest."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from helpers import SHARED

from kdtune.clips import manifest
from kdtune.clips.catalog import COLUMNS, load_catalog, video_path
from kdtune.clips.layout.lists import hmdb51_group, hmdb51_rows, ucf101_rows
from kdtune.clips.layout.names import Names
from kdtune.clips.layout.rows import table
from kdtune.clips.manifest import manifest_digest
from kdtune.config.sections import DataConfig
from kdtune.errors import DataError, Problem
from kdtune.store import StoreFiles

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared data is not at {SHARED}")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def videos(root: Path, *names: str) -> None:
    for name in names:
        write(root / name, f"bytes of {name}")


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    """Two classes with UCF101's files; the videos' content does not matter here."""
    root = tmp_path / "ucf"
    write(root / "classInd.txt", "1 Run\n2 Sit\n")
    write(root / "trainlist01.txt", "Run/v_Run_g02_c01.avi 1\r\nSit/v_Sit_g02_c01.avi 2\r\n")
    write(root / "testlist01.txt", "Run/v_Run_g01_c01.avi\nSit/v_Sit_g01_c01.avi\n")
    videos(root, *(f"{c}/v_{c}_g0{g}_c01.avi" for c in ("Run", "Sit") for g in (1, 2)))
    return root


def listed(name: str, split: int) -> pd.DataFrame:
    """Return the catalog of the official lists alone; their videos are not here."""
    lists, problems = SHARED / "splits" / name, list[Problem]()
    read = ucf101_rows if name == "ucf101" else hmdb51_rows
    rows = read(lists, split, Names(lists), problems)
    assert not problems
    return table(rows)


@needs_shared
@pytest.mark.parametrize(("split", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_the_official_ucf101_lists(split: int, train: int, test: int) -> None:
    catalog = listed("ucf101", split)
    assert catalog["split"].value_counts().to_dict() == {"train": train, "test": test}
    assert list(catalog.columns) == COLUMNS
    assert list(catalog.index) == list(range(13320))
    assert catalog["video"].is_monotonic_increasing
    assert set(catalog["group"]) == {f"g{n:02d}" for n in range(1, 26)}
    groups = catalog.groupby("split")["group"].agg(set)
    assert not groups["train"] & groups["test"]
    actions = catalog.drop_duplicates("label").set_index("label")["action"]
    assert len(actions) == 101
    assert actions[0] == "ApplyEyeMakeup"
    assert actions[100] == "YoYo"


@needs_shared
@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_official_hmdb51_lists(split: int) -> None:
    catalog = listed("hmdb51", split)
    assert catalog["split"].value_counts().to_dict() == {"train": 3570, "test": 1530}
    assert catalog["label"].nunique() == 51
    assert (catalog["group"] != "").all()
    assert catalog["video"].str.startswith("brush_hair/").sum() == 100


def test_parts_of_a_film_are_one_hmdb51_group() -> None:
    tail = "climb_f_cm_np1_ba_med_3.avi"
    same = ["Return_of_the_King_4", "Return_of_the_King_12", "RETURN_OF_THE_KING", "Return_of_the_King_Part_2_3"]
    assert {hmdb51_group(f"{film}_{tail}", "climb") for film in same} == {"returnoftheking"}
    # Years stay; a class name within a film's name does not end it; a name that is only a number stays.
    assert hmdb51_group(f"Bouldern_1979_{tail}", "climb") == "bouldern1979"
    assert hmdb51_group(f"rope_climb_Olivia_{tail}", "climb") == "ropeclimbolivia"
    assert hmdb51_group(f"21_{tail}", "climb") == "21"
    assert hmdb51_group("no class in this name.avi", "climb") == "noclassinthisname"


@needs_shared
def test_a_folder_with_lists_and_groups() -> None:
    catalog = load_catalog(DataConfig(dataset="folder", root=str(SHARED / "clips" / "fight")))
    assert catalog["split"].value_counts().to_dict() == {"train": 73, "test": 34}
    assert catalog["group"].nunique() == 13
    groups = catalog.groupby("split")["group"].agg(set)
    assert not groups["train"] & groups["test"]


def test_a_folder_without_lists_is_split_by_group(tmp_path: Path) -> None:
    videos(tmp_path, *(f"{c}/v_{c}_g{g:02d}_c0{k}.avi" for c in ("a", "b") for g in range(10) for k in (1, 2)))
    videos(tmp_path, "a/notes.txt")
    catalog = load_catalog(DataConfig(dataset="folder", root=str(tmp_path)))
    assert len(catalog) == 40
    assert dict(zip(catalog["action"], catalog["label"], strict=True)) == {"a": 0, "b": 1}
    # A fixed result: the same on every machine and in every process.
    assert set(catalog.loc[catalog["split"] == "test", "group"]) == {"g00", "g01"}


def test_a_folder_of_any_names_takes_each_video_as_a_group(tmp_path: Path) -> None:
    videos(tmp_path, *(f"{c}/{k}.MP4" for c in ("a", "b") for k in range(5)))
    catalog = load_catalog(DataConfig(dataset="folder", root=str(tmp_path)))
    assert list(catalog["group"]) == [f"{c}/{k}" for c in ("a", "b") for k in range(5)]
    assert (catalog["split"] == "test").sum() == 2


def test_groups_csv_must_name_every_video(tmp_path: Path) -> None:
    videos(tmp_path, "a/1.mp4", "a/2.mp4", "b/3.mp4")
    write(tmp_path / "groups.csv", "video,class,group\na/1.mp4,a,x\nb/3.mp4,b,y\n")
    with pytest.raises(DataError, match=r"no group for 1 video: a/2\.mp4"):
        load_catalog(DataConfig(dataset="folder", root=str(tmp_path)))


def test_ucf101_reads_windows_lines_and_lists_elsewhere(ucf: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("classInd.txt", "trainlist01.txt", "testlist01.txt"):
        (ucf / name).rename(lists / name)
    catalog = load_catalog(DataConfig(dataset="ucf101", root=str(ucf), lists=str(lists)))
    assert list(catalog["split"]) == ["test", "train", "test", "train"]
    assert list(catalog["group"]) == ["g01", "g02", "g01", "g02"]


def test_names_that_differ_in_case_are_found(tmp_path: Path) -> None:
    videos(tmp_path, "HandStandPushups/v_HandStandPushups_g01_c01.avi")
    found = video_path(tmp_path, "HandstandPushups/v_HandStandPushups_g01_c01.avi")
    assert found.is_file()
    assert video_path(tmp_path, "HandstandPushups/other.avi") == tmp_path / "HandstandPushups/other.avi"


def test_all_problems_come_at_once(ucf: Path) -> None:
    write(ucf / "classInd.txt", "1 Run\n2 Sit\n3 Hop\n")
    write(ucf / "testlist01.txt", "Run/v_Run_g01_c01.avi\nRun/gone.avi\nHop/gone.avi\n")
    with pytest.raises(DataError) as caught:
        load_catalog(DataConfig(dataset="ucf101", root=str(ucf)))
    text = str(caught.value)
    assert "class Hop has no training videos" in text
    assert "2 of 5 listed videos are missing: Hop/gone.avi, Run/gone.avi" in text


def test_broken_lists_say_where(ucf: Path) -> None:
    write(ucf / "trainlist01.txt", "Run/v_Run_g02_c01.avi 2\nnot a video\nFly/x.avi 1\n")
    write(ucf / "testlist01.txt", "Run/v_Run_g01_c01.avi\nRun/v_Run_g01_c01.avi\n")
    with pytest.raises(DataError) as caught:
        load_catalog(DataConfig(dataset="ucf101", root=str(ucf)))
    text = str(caught.value)
    for line in (1, 2, 3):
        assert f"trainlist01.txt:{line}" in text
    assert "1 video is listed twice: Run/v_Run_g01_c01.avi (testlist01.txt:1 and testlist01.txt:2)" in text


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "folder", "synthetic"])
def test_a_missing_root_says_what_was_looked_for(dataset: str, tmp_path: Path) -> None:
    root = tmp_path / "nothing"
    with pytest.raises(DataError) as caught:
        load_catalog(DataConfig.model_validate({"dataset": dataset, "root": str(root)}))
    assert str(root) in str(caught.value)
    assert "data.root" in str(caught.value)


def test_missing_root_and_missing_lists_come_together(tmp_path: Path) -> None:
    data = DataConfig(dataset="hmdb51", root=str(tmp_path / "no"), lists=str(tmp_path / "none"))
    with pytest.raises(DataError) as caught:
        load_catalog(data)
    assert "data.root" in str(caught.value)
    assert "data.lists" in str(caught.value)


def test_the_manifest_is_of_bytes_and_rows(ucf: Path, tmp_path: Path) -> None:
    store = StoreFiles(tmp_path / "store")
    catalog = load_catalog(DataConfig(dataset="ucf101", root=str(ucf)))
    first = manifest_digest(catalog, ucf, store)
    assert manifest_digest(catalog, ucf, store) == first
    assert manifest_digest(catalog, ucf, StoreFiles(tmp_path / "other")) == first
    moved = ucf.rename(tmp_path / "moved")
    assert manifest_digest(catalog, moved, store) == first
    assert manifest_digest(catalog.assign(group="x"), moved, store) != first
    write(moved / catalog["video"][0], "other bytes")
    assert manifest_digest(catalog, moved, store) != first


def test_unchanged_files_are_not_read_again(ucf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = StoreFiles(tmp_path / "store")
    catalog = load_catalog(DataConfig(dataset="ucf101", root=str(ucf)))
    first = manifest_digest(catalog, ucf, store)
    read: list[str] = []
    digest_of = manifest.hashlib.file_digest

    def counted(file, name):
        read.append(Path(file.name).name)
        return digest_of(file, name)

    monkeypatch.setattr(manifest.hashlib, "file_digest", counted)
    assert manifest_digest(catalog, ucf, store) == first
    assert read == []
    touched = ucf / catalog["video"][1]
    os.utime(touched, ns=(1, 1))
    assert manifest_digest(catalog, ucf, store) == first
    assert read == [touched.name]
    # Another split of the same root adds to the record and removes nothing.
    manifest_digest(catalog.iloc[:1], ucf, store)
    assert manifest_digest(catalog, ucf, store) == first
    assert read == [touched.name]


def test_a_file_that_vanished_is_named(ucf: Path, tmp_path: Path) -> None:
    catalog = pd.DataFrame([("Run/gone.avi", 0, "Run", "train", "g")], columns=COLUMNS)
    with pytest.raises(DataError, match=r"gone\.avi: cannot be read"):
        manifest_digest(catalog, ucf, StoreFiles(tmp_path))
