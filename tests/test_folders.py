"""Folders as people have them: split folders, wrappers, links, junk, other suffixes; and names that are refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz, fuzzed_on_disk
from hypothesis import strategies as st
from layouts import check, check_outcome, counts, read, unprivileged, videos, write

from kdtune.clips.layout.parts import part_of
from kdtune.clips.order import carve_validation
from kdtune.clips.summary import lines, summary_of
from kdtune.config.sections import DataConfig
from kdtune.errors import DataError
from kdtune.store import StoreFiles


def refusal(root: Path, **fields: object) -> str:
    with pytest.raises(DataError) as caught:
        read(root, **fields)
    return str(caught.value)


def classes(root: Path, *names: str, number: int = 6) -> None:
    videos(root, *(f"{name}/{k}.mp4" for name in names for k in range(number)))


@pytest.mark.parametrize(
    ("name", "part"),
    [(name, "train") for name in ("train", "TRAIN", "training", "Train_Set", "trainset", "train_videos")]
    + [(name, "val") for name in ("val", "Valid", "validation", "val-split")]
    + [(name, "test") for name in ("test", "Testing", "test set")]
    + [
        (name, "")
        for name in ("trainer", "trains", "valley", "contest", "valing", "testid", "testation", "training day")
    ],
)
def test_split_folders_are_known_in_their_usual_spellings(name: str, part: str) -> None:
    assert part_of(name) == part


def test_split_folders_are_splits_and_the_folders_below_are_classes(tmp_path: Path) -> None:
    classes(tmp_path / "Training", "run", "sit", number=4)
    classes(tmp_path / "valid", "run", "sit", number=1)
    classes(tmp_path / "test", "run", "sit", number=2)
    videos(tmp_path, "__MACOSX/train/run/._1.mp4")
    understood = read(tmp_path)
    check(understood, tmp_path)
    assert counts(understood.catalog) == {
        (action, split): number
        for action in ("run", "sit")
        for split, number in (("train", 4), ("val", 1), ("test", 2))
    }
    assert understood.reading.layout == "split folders (Training, test, valid)"
    text = "\n".join(lines(summary_of(understood.data, 16, StoreFiles(tmp_path / "store"))))
    assert "training 8, validation 2 (those of the data set), test 4" in text
    told = read(tmp_path, validation=0.3).reading.notes
    assert "data.validation: 0.3 has no effect: the data set says which videos are validation" in told


def test_without_a_test_folder_val_is_the_test_list(tmp_path: Path) -> None:
    classes(tmp_path / "train", "run", "sit", number=4)
    classes(tmp_path / "val", "run", "sit", number=2)
    understood = read(tmp_path)
    assert counts(understood.catalog)["run", "test"] == 2
    assert any("no test folder: val is the test list" in guess for guess in understood.reading.guesses)


MIXTURES: dict[str, tuple[Callable[[Path], None], str]] = {
    "split folders beside classes": (
        lambda root: classes(root, "train/run", "train/sit", "test/run", "test/sit", "jump"),
        r"split folders \(test, train\) beside other folders of videos \(jump\)",
    ),
    "a class that is named like a split": (
        lambda root: classes(root, "car", "train", "bus"),
        r"split folders \(train\) beside other folders of videos \(bus, car\)",
    ),
    "a split within a split": (
        lambda root: classes(root, "train/run", "train/sit", "train/test", "test/run", "test/sit"),
        r"named like a split \(train/test\)",
    ),
    "splits within classes": (
        lambda root: classes(root, "run/train", "run/test", "sit/train", "sit/test"),
        r"the class folders hold split folders \(run/test, run/train, sit/test, sit/train\)",
    ),
    "one split alone": (lambda root: classes(root, "train/run", "train/sit"), r"set data\.root to .*/train"),
    "no training": (lambda root: classes(root, "val/run", "val/sit", "test/run"), "none for training"),
    "two spellings": (
        lambda root: classes(root, "train/run", "training/sit", "test/run"),
        r"several folders for one split: test, train, training",
    ),
    "splits without classes": (lambda root: classes(root, "train", "test"), "but no class folders: 0.mp4"),
    "classes that differ in case": (
        lambda root: classes(root, "train/Run", "train/sit", "test/run", "test/sit"),
        "differ only in case or accents: Run and run",
    ),
    "a wrapper": (lambda root: classes(root, "MyData/run", "MyData/sit"), r"set data\.root to .*/MyData if"),
    "two wrappers": (lambda root: classes(root, "a/b/run", "a/b/sit"), r"set data\.root to .*/a/b if"),
    "one class": (lambda root: classes(root, "run"), "has only one class, run: there is nothing to tell apart"),
    "no folders": (
        lambda root: videos(root, "1.mp4", "2.mp4"),
        r"holds 2 videos, but no class folders: 1\.mp4, 2\.mp4",
    ),
    "frames": (
        lambda root: [classes(root, "a"), write(root / "b" / "v1" / "1.jpg", "")],
        r"1 file is not a video: \.jpg 1",
    ),
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_layout_that_is_no_data_set_is_refused_with_what_was_seen(mixture: str, tmp_path: Path) -> None:
    make, message = MIXTURES[mixture]
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_what_systems_leave_and_what_is_no_video_is_passed_over(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b", number=3)
    videos(tmp_path, "a/._1.mp4", "a/.DS_Store", "a/Thumbs.db", "__MACOSX/a/._1.mp4", ".cache/1.mp4", "b/@eaDir/1.mp4")
    videos(tmp_path, "b/frames.mp4/1.jpg", "b/notes.txt", "b/LICENCE", "readme.txt", "loose.mp4")
    os.mkfifo(tmp_path / "a" / "pipe.mp4")
    understood = read(tmp_path)
    check(understood, tmp_path)
    assert len(understood.catalog) == 6
    assert understood.reading.others == {".jpg": 1, ".txt": 1, "no suffix": 1, "special file": 1}
    assert any("loose.mp4" in note for note in understood.reading.notes)


def test_other_endings_are_videos(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b", number=1)
    videos(tmp_path, "a/x.MTS", "a/x.3gp", "a/x.m2ts", "b/x.ogv", "b/x.vob")
    assert len(read(tmp_path).catalog) == 7


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    classes(root, "a", "b", "a/z", number=2)
    classes(tmp_path, "elsewhere", number=3)
    (root / "a" / "part").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "again").symlink_to(root / "a" / "z")
    (root / "a" / "loop").symlink_to(root / "a")
    (root / "b" / "up").symlink_to("/")
    (root / "b" / "linked.mp4").symlink_to(tmp_path / "elsewhere" / "0.mp4")
    understood = read(root)
    check(understood, root)
    names = set(understood.catalog["video"])
    assert {"a/part/0.mp4", "a/z/1.mp4", "b/linked.mp4"} <= names
    assert len(names) == 2 + 2 + 3 + 3
    (note,) = [note for note in understood.reading.notes if "links" in note]
    assert all(name in note for name in ("a/again", "a/loop", "b/up"))


def test_a_folder_that_is_in_two_classes_is_refused(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b/x")
    (tmp_path / "a" / "y").symlink_to(tmp_path / "b" / "x")
    assert "b/x: is the same folder as" in refusal(tmp_path)


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b")
    (tmp_path / "a" / "gone.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "b" / "self").symlink_to("self")
    text = refusal(tmp_path)
    assert "a/gone.mp4: is a link that leads nowhere" in text
    assert "b/self: cannot be read: Too many levels of symbolic links" in text


def test_names_that_cannot_be_stored_are_refused_in_print(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b")
    (tmp_path / "a" / "new\nline.mp4").touch()
    Path(os.fsdecode(os.fsencode(tmp_path / "b") + b"/\xff.mp4")).touch()
    text = refusal(tmp_path)
    assert r"a/new\nline.mp4: is a name with a control character" in text
    assert r"b/\udcff.mp4: is a name that is not UTF-8" in text
    for folder in ("a", "b"):
        for file in (tmp_path / folder).iterdir():
            file.rename(file.with_suffix(".txt"))
    videos(tmp_path, "a/1.mp4", "b/1.mp4", "b/2.mp4")
    assert read(tmp_path).reading.others == {".txt": 14}
    videos(tmp_path, "\udcff/1.mp4")
    assert refusal(tmp_path) == rf"  {tmp_path}/\udcff: is a name that is not UTF-8; rename it"


def test_what_cannot_be_read_is_named() -> None:
    with unprivileged() as folder:
        classes(folder, "a", "b", "c/d")
        (folder / "b").chmod(0)
        (folder / "c" / "d").chmod(0)
        text = refusal(folder)
        assert f"{folder}/b: cannot be read: Permission denied" in text
        assert f"{folder}/c/d: cannot be read: Permission denied" in text
        folder.chmod(0)
        assert f"{folder}: cannot be read: Permission denied" in refusal(folder)
        assert f"{folder}/a: cannot be read: Permission denied" in refusal(folder / "a")


def test_a_folder_of_unknown_lists_is_not_ignored(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b")
    write(tmp_path / "lists" / "train.json", "{}")
    text = refusal(tmp_path, lists=str(tmp_path / "lists"))
    assert "holds none of the lists that are read; it has train.json" in text
    write(tmp_path / "a_test_split1.txt", "1.mp4 1\n")
    assert "data.dataset: hmdb51" in refusal(tmp_path)


def test_the_summary_says_what_was_understood(tmp_path: Path) -> None:
    root = tmp_path / "root"
    classes(root, *(f"c{k:02d}" for k in range(14)), number=5)
    write(root / "c00" / "notes.txt", "")
    write(root / "actors.csv", "")
    data = DataConfig(dataset="folder", root=str(root))
    text = "\n".join(lines(summary_of(data, 16, StoreFiles(tmp_path / "store"))))
    assert f"videos       folder in {root}: class folders" in text
    assert "classes    14: c00 5, c01 5" in text
    assert "c11 5 and 2 more" in text
    rows = read(root).catalog
    train = rows[rows["split"] == "train"]
    validation = carve_validation(train, 0.2, 0).sum()
    expected = (
        f"training {len(train) - validation}, validation {validation} (20% of the training list, by groups), test 14"
    )
    assert expected in text
    assert "groups     70" in text
    assert "left out   1 file is not a video: .txt 1" in text
    assert "guess      no groups.csv: each video is its own group" in text
    assert "guess      no lists and no test folder: 20% of the groups, chosen by hash, are the test list" in text
    assert "note       files that may be lists are not read: actors.csv" in text


# fmt: off
NAMES = st.sampled_from([
    "train", "Test", "val", "run", "Run", "sit", "caf\u00e9", "cafe\u0301", "x.mp4", "x.mp4", "y.AVI", "v_g01_c01.avi",
    "z.mts", "n.txt", "._x.avi", ".git", "__MACOSX", "a b.mp4", "tab\t.mp4", "\udcff.mp4", "groups.csv", "lists",
])
# fmt: on
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
#: Content of a tree: a file or a pipe at a path, or a link from a path to another one, to nowhere, or upwards.
ENTRIES = st.tuples(st.sampled_from(["file"] * 6 + ["pipe", "link"]), PATHS, PATHS | st.sampled_from(["", "..", "/"]))


def test_a_split_that_is_a_link_upwards_is_not_walked(tmp_path: Path) -> None:
    classes(tmp_path, "train/run", "train/sit")
    (tmp_path / "test").symlink_to("/")
    assert "holds only train, and no test folder" in refusal(tmp_path)


def test_what_cannot_be_read_in_a_test_folder_is_named() -> None:
    with unprivileged() as folder:
        classes(folder, "train/run", "train/sit", "test/run", "test/sit", "notes")
        (folder / "test" / "sit").chmod(0)
        (folder / "notes").chmod(0)
        text = refusal(folder)
        assert f"{folder}/test/sit: cannot be read: Permission denied" in text
        assert f"{folder}/notes: cannot be read: Permission denied" in text


#: Names that may be a data set if the tree holds nothing else.
PLAIN = st.tuples(
    st.sampled_from([[""], ["train/", "test/"], ["Training/", "valid/", "test/"], ["train/", "val/"], ["sit/"]]),
    st.sampled_from([["run", "sit"], ["run", "caf\u00e9", "a b"], ["run"]]),
    st.integers(1, 4),
).map(lambda t: [("file", f"{part}{action}/v{k}.mp4", "") for part in t[0] for action in t[1] for k in range(t[2])])
TREES = st.tuples(PLAIN | st.just([]), st.lists(ENTRIES, max_size=8)).map(lambda t: t[0] + t[1])


@fuzzed_on_disk
def test_any_tree_is_a_catalog_or_refused(examples: int, tmp_path: Path) -> None:
    number = iter(range(examples * 20))

    def one(entries: list[tuple[str, str, str]]) -> None:
        root = tmp_path / str(next(number))
        root.mkdir()
        plant(root, entries)
        check_outcome(root)
        shutil.rmtree(root)

    fuzz(one, TREES, examples=examples)


def plant(root: Path, entries: list[tuple[str, str, str]]) -> None:
    """Create what can be created of `entries`: a name may be taken, lie below a file, or lead through a link."""
    make: dict[str, Callable[[Path, str], Any]] = {
        "file": lambda path, _: path.touch(),
        "pipe": lambda path, _: os.mkfifo(path),
        "link": lambda path, target: path.symlink_to(root / target),
    }
    for kind, name, target in entries:
        try:
            if not Path(os.path.realpath((root / name).parent)).is_relative_to(os.path.realpath(root)):
                continue
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(root / name):
                make[kind](root / name, target)
        except OSError:
            continue
