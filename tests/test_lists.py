"""Lists and groups.csv as editors, spreadsheets and other systems save them, and contradictions in them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing import fuzz, fuzzed_on_disk
from hypothesis import strategies as st
from layouts import check, check_outcome, read, unprivileged, videos, write

from kdtune.clips.catalog import load_catalog
from kdtune.config.sections import DataConfig
from kdtune.errors import DataError

VIDEOS = [f"{action}/v_{action}_g{group:02d}_c01.avi" for action in ("run", "sit") for group in (1, 2, 3)]
LISTS = {
    "classInd.txt": "1 run\n2 sit\n",
    "trainlist01.txt": "".join(f"{video} {1 + video.startswith('sit')}\n" for video in VIDEOS if "_g01_" not in video),
    "testlist01.txt": "".join(f"{video}\n" for video in VIDEOS if "_g01_" in video),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of three videos each, without lists."""
    videos(tmp_path / "root", *VIDEOS)
    return tmp_path / "root"


def save(root: Path, change: Callable[[str, str], str] = lambda _, text: text, encoding: str = "utf-8") -> None:
    """Write the lists into `root`, changed and encoded."""
    for name, text in LISTS.items():
        write(root / name, change(name, text).encode(encoding))


def refusal(root: Path, **fields: object) -> str:
    with pytest.raises(DataError) as caught:
        read(root, **fields)
    return str(caught.value)


def before_videos(prefix: str) -> Callable[[str, str], str]:
    return lambda name, text: text if name == "classInd.txt" else text.replace("run/", prefix + "run/")


SAVED: dict[str, tuple[str, Callable[[str, str], str]]] = {
    "as they are": ("utf-8", lambda _, text: text),
    "with a mark": ("utf-8-sig", lambda _, text: text),
    "as UTF-16": ("utf-16", lambda _, text: text),
    "as UTF-32": ("utf-32", lambda _, text: text),
    "Windows lines": ("utf-8", lambda _, text: text.replace("\n", "\r\n")),
    "old Mac lines": ("utf-8", lambda _, text: text.replace("\n", "\r")),
    "tabs": ("utf-8", lambda _, text: text.replace(" ", "\t")),
    "blanks": ("utf-8", lambda _, text: text.replace(" ", "  \t ").replace("\n", "  \n\n")),
    "./": ("utf-8", before_videos("./")),
    "//": ("utf-8", before_videos(".//")),
    "backslashes": ("utf-8", lambda _, text: text.replace("/", "\\")),
    "another case": ("utf-8", lambda name, text: text if name == "classInd.txt" else text.replace("run/", "RUN/")),
}


@pytest.mark.parametrize("saved", SAVED)
def test_lists_are_read_as_people_save_them(saved: str, root: Path) -> None:
    encoding, change = SAVED[saved]
    save(root)
    plain = read(root).catalog
    save(root, change, encoding)
    catalog = read(root).catalog
    columns = ["label", "action", "split", "group"] + ([] if saved == "another case" else ["video"])
    assert catalog[columns].equals(plain[columns])


def test_absolute_paths_below_the_root_are_paths_in_it(root: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.symlink_to(root)
    for prefix in (root, linked):
        save(root, before_videos(f"{prefix}/"))
        assert list(read(linked).catalog["video"]) == VIDEOS
    save(root, before_videos("/elsewhere/"))
    assert f"is not below data.root ({root})" in refusal(root)
    save(root, before_videos("C:\\data\\"))
    assert "is a path of another machine" in refusal(root)
    save(root, before_videos("../root/"))
    assert "leads upwards (..)" in refusal(root)


def test_names_in_another_normal_form_and_with_blanks_are_found(tmp_path: Path) -> None:
    name, other = unicodedata.normalize("NFC", "café au lait"), unicodedata.normalize("NFD", "café au lait")
    videos(tmp_path, f"{other}/1 a.avi", f"{other}/2 a.avi", "tea/1.avi", "tea/2.avi")
    write(tmp_path / "classInd.txt", f"1 {name}\n2 tea\n")
    write(tmp_path / "trainlist01.txt", f"{name}/1 a.avi 1\ntea/1.avi 2\n")
    write(tmp_path / "testlist01.txt", f"{name}/2 a.avi\ntea/2.avi\n")
    write(tmp_path / "groups.csv", f"video,group\n{other}/1 a.avi,x\n{name}/2 a.avi,y\ntea/1.avi,x\ntea/2.avi,y\n")
    understood = read(tmp_path)
    check(understood, tmp_path)
    assert list(understood.catalog["group"]) == ["x", "y", "x", "y"]


BROKEN = {
    "latin-1": ("trainlist01.txt", b"run/caf\xe9.avi 1\n", r"trainlist01\.txt:5: is not UTF-8 text \(byte 0xe9\)"),
    "NUL": ("trainlist01.txt", b"run/\x00.avi 1\n", r"trainlist01\.txt:5: holds a NUL character"),
    "another label": ("testlist01.txt", b"run/x.avi 2\n", r"testlist01\.txt:3: label 2, but classInd.txt has 1 run"),
    "in both": (
        "testlist01.txt",
        f"{VIDEOS[1]}\n".encode(),
        r"1 video is in the lists of two splits: run/.* \(trainlist01.txt:1 and testlist01.txt:3\)",
    ),
    "listed twice": (
        "trainlist01.txt",
        f"./{VIDEOS[1]}\n".encode(),
        r"1 video is listed twice: run/.* \(trainlist01.txt:1 and trainlist01.txt:5\)",
    ),
    "listed twice in another case": (
        "trainlist01.txt",
        VIDEOS[1].replace("run/", "Run/").encode(),
        "1 video listed twice, in spellings of the same file",
    ),
    "a class twice": ("classInd.txt", b"3 Run\n", r"classInd\.txt:3: class Run is also in line 1"),
    "a gap": ("classInd.txt", b"4 jump\n", "must number its classes 1, 2, 3"),
    "a long number": ("classInd.txt", b"9" * 5000 + b" jump\n", r"classInd\.txt:3: must be a number and a class"),
    "a long label": ("testlist01.txt", b"run/x.avi " + b"9" * 5000, r"testlist01\.txt:3: "),
    "a long name": ("testlist01.txt", b"run/" + b"x" * 300 + b".avi\n", "cannot be read: File name too long"),
    "a control character": ("testlist01.txt", b"run/\x07.avi\n", r"run/\\x07.avi is a name with a control character"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_in_a_list_is_named_with_its_line(kind: str, root: Path) -> None:
    name, line, message = BROKEN[kind]
    save(root)
    write(root / name, LISTS[name].encode() + line)
    with pytest.raises(DataError, match=message):
        read(root)


def test_one_cause_is_not_said_of_every_line(root: Path) -> None:
    save(root, lambda name, text: text.replace("run", "walk") * 100 if name == "trainlist01.txt" else text)
    text = refusal(root)
    assert len(text.splitlines()) < 10
    assert "trainlist01.txt: 195 more problems" in text


def test_videos_that_no_list_names_are_said(root: Path) -> None:
    save(root)
    videos(root, "run/extra.avi", "run/notes.txt")
    understood = read(root)
    assert len(understood.catalog) == 6
    assert "1 video is in no list and left out: run/extra.avi" in understood.reading.notes
    assert understood.reading.others == {".txt": 1}


def test_lists_of_another_split_are_not_ignored(root: Path) -> None:
    write(root / "trainlist02.txt", "")
    assert "trainlist01.txt: this list is missing" in refusal(root)


def test_a_root_that_is_one_folder_too_high_is_named(root: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    save(lists)
    text = refusal(tmp_path, lists=str(lists), dataset="ucf101")
    assert f"6 of 6 listed videos are missing: {VIDEOS[0]}" in text
    assert f"set data.root to {root}" in text


def test_hmdb51_lists_may_have_tabs_marks_and_paths(tmp_path: Path) -> None:
    films = [f"film{k}_{action}_f_cm_np1_ba_med_0.avi" for action in ("run", "sit") for k in range(3)]
    videos(tmp_path, *(f"{name.split('_')[1]}/{name}" for name in films))
    write(tmp_path / "run_test_split1.txt", "".join(f"{n} {1 + n.startswith('film0')} \n" for n in films[:3]))
    text = "".join(f"./sit\\{name}\t{1 + name.startswith('film0')}\r\n" for name in films[3:])
    write(tmp_path / "sit_test_split1.txt", text.encode("utf-8-sig"))
    catalog = load_catalog(DataConfig(dataset="hmdb51", root=str(tmp_path)))
    assert list(catalog["video"]) == [f"{name.split('_')[1]}/{name}" for name in films]
    assert list(catalog["split"]) == ["test", "train", "train"] * 2
    write(tmp_path / "sit_test_split1.txt", f"run/{films[0]} 1\n")
    with pytest.raises(DataError, match="is not of the class sit"):
        load_catalog(DataConfig(dataset="hmdb51", root=str(tmp_path)))


def test_lists_that_may_not_be_read_are_named() -> None:
    with unprivileged() as root:
        videos(root, *VIDEOS)
        save(root)
        (root / "trainlist01.txt").chmod(0)
        assert f"{root}/trainlist01.txt: cannot be read: Permission denied" in refusal(root)


#: Commas separate the columns here.
GROUPS = "video,group\n" + "".join(f"{video},film{number % 3}\n" for number, video in enumerate(VIDEOS))


@pytest.mark.parametrize(
    "saved",
    [
        GROUPS.encode(),
        GROUPS.encode("utf-8-sig"),
        GROUPS.encode("utf-16"),
        GROUPS.replace(",", ", ").encode(),
        GROUPS.replace(",", ";").replace("\n", ";\r\n").encode(),
        GROUPS.replace(",", "\t").encode(),
        GROUPS.replace("run/", "./RUN\\").replace("video,group", "Video , Group").encode(),
        ("\n" + GROUPS + GROUPS.partition("\n")[2] + "\n,\n").encode(),
        "".join(f'"{line}"\n' for line in GROUPS.replace(",", '","').splitlines()).encode(),
    ],
    ids=["plain", "mark", "UTF-16", "blank", "semicolon", "tab", "other spelling", "twice the same", "quoted"],
)
def test_groups_are_read_as_spreadsheets_save_them(saved: bytes, root: Path) -> None:
    write(root / "groups.csv", saved)
    understood = read(root)
    check(understood, root)
    assert list(understood.catalog["group"]) == ["film0", "film1", "film2"] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"groups\.csv: is empty"),
        (b"\n\n", r"groups\.csv: is empty"),
        (b"name,film\n", r"groups\.csv:1: needs the columns video and group, but has \['name', 'film'\]"),
        (GROUPS.encode() + "Amélie,a\n".encode("latin-1"), r"groups\.csv:8: is not UTF-8 text \(byte 0xe9\)"),
        (GROUPS.encode() + b"run/x.avi,Tiger, Dragon\n", r"groups\.csv:8: has 3 columns, but the first line has 2"),
        (GROUPS.encode() + b'run/x.avi,"Tiger\n', r"groups\.csv:8: is not CSV"),
        (GROUPS.encode() + b"run/x.avi,\n", r"groups\.csv:8: names no group"),
        (
            GROUPS.encode() + f"./{VIDEOS[0]},other\n".encode(),
            r"groups\.csv:8: puts run/v_run_g01_c01\.avi into the group other, but line 2 into film0",
        ),
        (
            GROUPS.encode() + VIDEOS[0].replace("run/", "Run/").encode() + b",x\n" + VIDEOS[0].encode()[:0],
            r"run/v_run_g01_c01\.avi",
        ),
        (GROUPS.encode().replace(VIDEOS[0].encode(), b"run/other.avi"), r"names no group for 1 video: run/v_run_g01"),
    ],
)
def test_groups_that_are_wrong_are_named_with_their_line(content: bytes, message: str, root: Path) -> None:
    write(root / "groups.csv", content)
    if b"Run/" in content:
        understood = read(root)
        assert any("groups.csv names a video that is not in the data set: Run/" in n for n in understood.reading.notes)
        return
    with pytest.raises(DataError, match=message):
        read(root)


def test_a_folder_named_groups_csv_is_said(root: Path) -> None:
    (root / "groups.csv").mkdir()
    assert refusal(root) == f"  {root}/groups.csv: is a folder; it must be a file"


def test_a_group_with_commas_and_groups_of_other_videos(root: Path) -> None:
    write(root / "groups.csv", GROUPS.replace("film0", '"Tiger, Dragon"') + "run/gone.avi,x\n")
    understood = read(root)
    assert set(understood.catalog["group"]) == {"Tiger, Dragon", "film1", "film2"}
    assert "groups.csv names a video that is not in the data set: run/gone.avi" in understood.reading.notes


def test_a_group_in_both_official_lists_is_said(root: Path) -> None:
    save(root)
    write(root / "groups.csv", "video,group\n" + "".join(f"{video},film\n" for video in VIDEOS))
    assert "1 group has videos in the training and the test list: film" in read(root).reading.notes


# fmt: off
PIECES = st.sampled_from([
    *VIDEOS, "run", "sit", "/", "\\", "./", "../", " ", "\t", "\n", "\n", "\n", "\r\n", "1", "2", "9" * 20, ".avi",
    "x.mp4", "video", "group", "video,group\n", ",", ";", '"', "é", "e\u0301", "\x00", "\x07", "\ufeff", "\u2028",
    "\ue000", "C:/",
])
# fmt: on
ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
PIECED = st.tuples(st.lists(PIECES, max_size=30).map("".join), ENCODINGS).map(lambda t: t[0].encode(t[1], "replace"))
ANY = st.one_of(PIECED, st.binary(max_size=60))


def or_nearly(text: str) -> st.SearchStrategy[bytes]:
    """Return the text unchanged, with a part replaced, or arbitrary text."""
    raw = text.encode()
    cuts = st.tuples(st.integers(0, len(raw)), st.integers(0, 8), PIECED | st.just(b""))
    nearly = cuts.map(lambda c: raw[: c[0]] + c[2] + raw[c[0] + c[1] :])
    return st.one_of(st.just(raw), st.just(raw), st.just(raw), nearly, nearly, ANY)


@fuzzed_on_disk
def test_any_lists_and_groups_are_a_catalog_or_refused(examples: int, root: Path) -> None:
    def one(contents: tuple[bytes | None, ...]) -> None:
        for name, content in zip([*LISTS, "groups.csv"], contents, strict=True):
            (root / name).unlink(missing_ok=True)
            if content is not None:
                write(root / name, content)
        check_outcome(root)

    lists = st.tuples(*(or_nearly(text) for text in LISTS.values())) | st.tuples(*[st.none()] * len(LISTS))
    fuzz(one, st.tuples(lists, st.none() | or_nearly(GROUPS)).map(lambda t: (*t[0], t[1])), examples=examples)
