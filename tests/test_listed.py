"""Lists of paths and labels in the styles of Kinetics, mmaction2, UCF101 and spreadsheets; and their errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing import fuzz, fuzzed_on_disk
from hypothesis import strategies as st
from layouts import check, check_outcome, counts, read, videos, write

from kdtune.clips.layout.cuts import film_of
from kdtune.clips.layout.parts import part_of_list
from kdtune.errors import DataError

CLASSES = ("run", "sit")
#: Number of the video → its split.
SPLITS = {0: "train", 1: "train", 2: "train", 3: "val", 4: "test"}
VIDEOS = [f"{action}/{action}{k}.mp4" for action in CLASSES for k in SPLITS]
#: What each complete layout gives.
EXPECTED = {(action, split): 3 if split == "train" else 1 for action in CLASSES for split in ("train", "val", "test")}


def refusal(root: Path, **fields: object) -> str:
    with pytest.raises(DataError) as caught:
        read(root, **fields)
    return str(caught.value)


def lists(root: Path, line: Callable[[str, int], str], name: str = "{split}.csv", header: str = "") -> None:
    """Write one list for each split; `line` makes a line of a video and the number of its class."""
    for split in ("train", "val", "test"):
        text = "".join(f"{line(v, CLASSES.index(v[:3]))}\n" for v in VIDEOS if SPLITS[int(v[-5])] == split)
        write(root / name.format(split=split), header + text)


def whole(line: Callable[[str, int], str], name: str = "{split}.csv", header: str = "") -> Callable[[Path], None]:
    def make(root: Path) -> None:
        videos(root, *VIDEOS)
        lists(root, line, name, header)

    return make


def kinetics(root: Path) -> None:
    def line(video: str, _: int) -> str:
        split, second = SPLITS[int(video[-5])], int(video[-5])
        return f"{video[:3]},id_{video[:3]},{second},{second + 10},{split}"

    for video in VIDEOS:
        second = int(video[-5])
        folder = f"{SPLITS[second]}/{video[:3]}"
        videos(root, f"{folder}/id_{video[:3]}_{second:06d}_{second + 10:06d}.mp4")
    lists(root, line, header="label,youtube_id,time_start,time_end,split\n")


def one_table(root: Path) -> None:
    videos(root, *(f"videos/{video[4:]}" for video in VIDEOS))
    use = {"train": "Training", "val": "validation", "test": "TEST"}
    rows = "".join(f"{v[4:-4]};{v[:3]};{use[SPLITS[int(v[-5])]]}\r\n" for v in VIDEOS)
    write(root / "annotations.csv", ("name;Class Name;subset\r\n" + rows).encode("utf-8-sig"))


def rooted(root: Path) -> None:
    videos(root, *(f"{SPLITS[int(video[-5])]}/{video}" for video in VIDEOS))
    header = "clip_name,clip_path,label\n"
    lists(root, lambda v, _: f"{v[4:-4]},/{SPLITS[int(v[-5])]}/{v},{v[:3]}", header=header)


def of_three_splits(root: Path) -> None:
    whole(lambda v, k: f"{v} {k}", "ucf101_{split}_split_1_videos.txt")(root)
    for number in (2, 3):
        lists(root, lambda v, k: f"gone/{v} {k}", f"ucf101_{{split}}_split_{number}_videos.txt")


STYLES: dict[str, Callable[[Path], None]] = {
    "mmaction2: path number": whole(lambda v, k: f"{v} {k}", "kinetics400_{split}_list_videos.txt"),
    "mmaction2: the official splits": of_three_splits,
    "UCF101's names, from 1": whole(lambda v, k: f"{v} {k + 1}", "{split}list.txt"),
    "SlowFast: path,number": whole(lambda v, k: f"{v},{k}"),
    "names after tabs": whole(lambda v, _: f"{v}\t{v[:3]}", "{split}.tsv"),
    "a header": whole(lambda v, _: f'"{v}", {v[:3]}', header="Video Path, label\n"),
    "label first": whole(lambda v, k: f"{k};{v}"),
    "no labels": whole(lambda v, _: v, "{split}.txt"),
    "no suffix": whole(lambda v, _: f"{v[:-4]} {v[:3]}", "{split}.txt"),
    "backslashes": whole(lambda v, k: f".\\{v[:3]}\\{v[4:]} {k}", "{split}.txt"),
    "Kinetics": kinetics,
    "one table with a column split": one_table,
    "paths that begin with a slash": rooted,
}


@pytest.mark.parametrize("style", STYLES)
def test_each_style_of_lists_gives_its_classes_and_splits(style: str, tmp_path: Path) -> None:
    STYLES[style](tmp_path)
    understood = read(tmp_path)
    check(understood, tmp_path)
    assert counts(understood.catalog) == EXPECTED
    assert dict(zip(understood.catalog["label"], understood.catalog["action"], strict=True)) == {0: "run", 1: "sit"}
    assert not any("not read" in note for note in understood.reading.notes) or style.startswith("mmaction2: the")


def test_absolute_paths_and_lists_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    videos(root, *VIDEOS)
    lists(tmp_path / "lists", lambda v, k: f"{root}/{v} {k}")
    assert counts(read(root, lists=str(tmp_path / "lists")).catalog) == EXPECTED
    lists(tmp_path / "lists", lambda v, k: f"/elsewhere/{v} {k}")
    assert f"train.csv:1: /elsewhere/run/run0.mp4 is not below data.root ({root})" in refusal(
        root, lists=str(tmp_path / "lists")
    )


def test_data_lists_may_name_one_file(tmp_path: Path) -> None:
    videos(tmp_path, *VIDEOS)
    write(tmp_path / "mine.txt", "".join(f"{video} {video[:3]}\n" for video in VIDEOS))
    understood = read(tmp_path, lists=str(tmp_path / "mine.txt"))
    check(understood, tmp_path)
    assert understood.reading.layout == "list mine.txt"
    assert any("names no splits: 20% of the groups" in guess for guess in understood.reading.guesses)
    assert understood.catalog["split"].value_counts().to_dict() == {"train": 8, "test": 2}


def test_without_a_test_list_val_is_the_test_list(tmp_path: Path) -> None:
    STYLES["SlowFast: path,number"](tmp_path)
    (tmp_path / "test.csv").unlink()
    understood = read(tmp_path)
    assert counts(understood.catalog) == {(a, s): n for a in CLASSES for s, n in (("train", 3), ("test", 1))}
    assert any("no test list: val is the test list" in guess for guess in understood.reading.guesses)
    assert "2 videos are in no list and left out: run/run4.mp4, sit/sit4.mp4" in understood.reading.notes


def test_numbers_get_the_names_of_a_file(tmp_path: Path) -> None:
    whole(lambda v, k: f"{v} {k}")(tmp_path)
    for text in ("running\nsitting\n", "0 running\n1 sitting\n", "id,name\n1,sitting\n0,running\n", "running 0\n"):
        write(tmp_path / "classes.txt", text)
        if text == "running 0\n":
            assert "classes.txt: names 1 classes, but the lists have the labels 1, too" in refusal(tmp_path)
            continue
        understood = read(tmp_path)
        assert set(understood.catalog["action"]) == {"running", "sitting"}
        assert "class names are those of classes.txt" in understood.reading.guesses


def test_numbers_without_names_and_with_gaps_are_told(tmp_path: Path) -> None:
    videos(tmp_path, *(video[4:] for video in VIDEOS))
    lists(tmp_path, lambda v, k: f"{v[4:]} {3 + 4 * k}")
    understood = read(tmp_path)
    assert sorted(set(zip(understood.catalog["label"], understood.catalog["action"], strict=True))) == [
        (0, "3"),
        (1, "7"),
    ]
    guesses = " ".join(understood.reading.guesses)
    assert "the labels 3, 7 are counted as 0 to 1" in guesses
    assert "nothing names them" in guesses


def test_groups_may_be_a_column_and_one_in_two_splits_is_noted(tmp_path: Path) -> None:
    whole(lambda v, _: f"{v},{v[:3]},film{v[-5]}", header="video,label,group\n")(tmp_path)
    understood = read(tmp_path)
    assert set(understood.catalog["group"]) == {f"film{k}" for k in SPLITS}
    assert not any("groups.csv" in guess for guess in understood.reading.guesses)
    lists(tmp_path, lambda v, _: f"{v},{v[:3]},{'a' if v[-5] in '23' else v}", header="video,label,group\n")
    notes = read(tmp_path).reading.notes
    assert "1 group has videos in the training and the validation list: a" in notes


def change(name: str, text: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        STYLES["SlowFast: path,number"](root)
        (root / name).write_text((root / name).read_text() + text)

    return make


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "in two splits": (
        change("test.csv", "run/run0.mp4,0\n"),
        r"1 video is in the lists of two splits: run/run0\.mp4 \(.*:3 and train\.csv:1\)",
    ),
    "missing": (change("val.csv", "run/gone.mp4,0\n"), r"1 of 11 listed videos are missing: run/gone\.mp4"),
    "names and numbers": (change("val.csv", "run/run9.mp4,jump\n"), "labels are names and numbers: jump in val.csv:3"),
    "upwards": (change("val.csv", "../run0.mp4,0\n"), r"val\.csv:3: \.\./run0\.mp4 leads upwards"),
    "several lists": (change("train2.csv", ""), ""),
    "no text": (
        lambda root: [change("val.csv", "")(root), write(root / "val.csv", b"caf\xe9.mp4,0\n")],
        r"val\.csv:1: is not UTF-8 text \(byte 0xe9\)",
    ),
    "empty": (lambda root: [change("val.csv", "")(root), write(root / "val.csv", "")], r"val\.csv: is empty"),
    "columns without names": (
        lambda root: [change("val.csv", "")(root), write(root / "val.csv", "run/run3.mp4,0,0,0\n")],
        r"val\.csv: has 4 columns and no header that says what they are",
    ),
    "two labels": (
        lambda root: [change("val.csv", "")(root), write(root / "val.csv", "run/run3.mp4 0 1\n")],
        r"val\.csv: has two numbers after a video file",
    ),
    "training alone": (
        lambda root: [change("val.csv", "")(root), (root / "val.csv").unlink(), (root / "test.csv").unlink()],
        r"needs lists for training and for val or test, but holds train\.csv",
    ),
    "a split that is none": (
        lambda root: [videos(root, *VIDEOS), write(root / "a.csv", "path,label,split\nrun/run0.mp4,run,dev\n")],
        r"a\.csv:2: split must be train, val or test, but got 'dev'",
    ),
    "a name that fits several": (
        lambda root: [
            videos(root, *VIDEOS, "run/a/x.mp4", "run/b/x.mp4"),
            write(root / "a.csv", "path,label,split\nx,run,train\n"),
        ],
        r"a\.csv:2: x may be any of 2 videos: run/a/x\.mp4, run/b/x\.mp4",
    ),
    "two tables": (
        lambda root: [one_table(root), write(root / "b.csv", "path,label,split\nrun0,run,train\n")],
        r"holds several lists, and their names say no split: annotations\.csv, b\.csv",
    ),
}
WRONG["several lists"] = (change("train.csv", ""), "several lists for train")


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_in_lists_is_named_with_its_line(kind: str, tmp_path: Path) -> None:
    make, message = WRONG[kind]
    make(tmp_path)
    if kind == "several lists":
        write(tmp_path / "train_old.csv", "run/run0.mp4,0\n")
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("train", ("train", None)),
        ("trainlist01", ("train", 1)),
        ("validate", ("val", None)),
        ("kinetics400_val_list_videos", ("val", None)),
        ("ucf101_train_split_2_rawframes", ("train", 2)),
        ("train_test_split", ("", None)),
        ("contest", ("", None)),
    ],
)
def test_the_names_of_lists_say_their_split(stem: str, expected: tuple[str, int | None]) -> None:
    assert part_of_list(stem) == expected


def test_names_that_look_like_cuts_are_guessed(tmp_path: Path) -> None:
    videos(tmp_path, *(f"fight/fi{k:03d}.mp4" for k in (12, 13)), *(f"calm/{name}.mp4" for name in "abcdefgh"))
    guesses = read(tmp_path).reading.guesses
    assert any("names look like cuts of one film: fi012, fi013 (2 videos" in guess for guess in guesses)
    names = ("film_01", "abc1_000010_000020", "fi012", "12", "x part 3", "run (2)", "a-b")
    assert [film_of(name) for name in names] == ["film", "abc1", "fi", "", "x", "run", "a-b"]


# fmt: off
PIECES = st.sampled_from([
    *VIDEOS, "run", "sit", "/", "\\", "./", "../", " ", "\t", "\n", "\n", "\n", "0", "1", "9" * 20, ".mp4", "x", ",",
    ";", '"', "path,label,split\n", "train", "test", "label", "é", "\x00", "\x07", "\ufeff", "\u0663", "C:/", "video",
])
# fmt: on
TEXTS = st.none() | st.lists(PIECES, max_size=30).map("".join)


@fuzzed_on_disk
def test_any_lists_are_a_catalog_or_refused(examples: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    STYLES["SlowFast: path,number"](root)
    names = ("train.csv", "val.csv", "test.csv", "classes.txt", "all.csv")
    sound = [(root / name).read_text() if (root / name).exists() else None for name in names]

    def one(contents: tuple[str | None, ...]) -> None:
        for name, content in zip(names, contents, strict=True):
            (root / name).unlink(missing_ok=True)
            if content is not None:
                write(root / name, content)
        check_outcome(root)

    fuzz(one, st.tuples(*(st.just(text) | TEXTS for text in sound)), examples=examples)
