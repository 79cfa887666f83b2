"""Which videos there are: their class, official split and group, as one table for every kind of data set.

A catalog is a DataFrame with the columns
    video   path below the root as the lists spell it, posix (use `video_path` to find the file)
    label   class number from 0
    action  class name
    split   "train" or "test"
    group   what must not be torn apart: videos of one group share actor, background or source film
with rows sorted by `video` and an index of 0..N-1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from kdtune.config.sections import DataConfig
from kdtune.errors import DataError, Problem

COLUMNS = ["video", "label", "action", "split", "group"]
SUFFIXES = {".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv"}
#: Without lists, this share of the groups, the first by the hash of their names, is the test list.
TEST_SHARE = 0.2
SHOWN = 5

WHERE_FROM = {
    "synthetic": "make it with `kdtune data synth`",
    "ucf101": "UCF-101 is at https://www.crcv.ucf.edu/data/UCF101.php; its class folders belong here",
    "hmdb51": "HMDB51 is at https://serre.lab.brown.edu/hmdb51.html; its class folders belong here",
    "folder": "a folder with one folder of videos for each class belongs here",
}


def load_catalog(data: DataConfig) -> pd.DataFrame:
    """The catalog of the data set that `data` names, with every listed video on disk.

    Raises DataError with all problems: no root, no or broken lists, classes without training videos, missing videos.
    """
    root = Path(data.folder)
    lists = Path(data.lists) if data.lists else root
    problems = []
    if not root.is_dir():
        what = f"the videos of {data.dataset} were looked for in {root.absolute()}, which is not a folder"
        problems.append(Problem("data.root", f"{what}; {WHERE_FROM[data.dataset]}, or set data.root"))
    try:
        if data.dataset == "hmdb51":
            catalog = hmdb51_lists(lists, data.split)
        elif data.dataset == "folder":
            catalog = folder(root, lists, data.split) if root.is_dir() else _table([])
        else:
            catalog = ucf101_lists(lists, data.split)
    except DataError as error:
        # Where there is no root and no lists of their own, "no lists in it" would only say the same again.
        told = problems and lists == root
        raise DataError(problems if told else problems + error.problems) from None
    trained = set(catalog.loc[catalog["split"] == "train", "action"])
    for action in sorted(set(catalog["action"]) - trained):
        problems.append(Problem(str(lists), f"class {action} has no training videos"))
    if root.is_dir():
        missing = [video for video in catalog["video"] if not video_path(root, video).is_file()]
        if missing:
            what = f"{len(missing)} of {len(catalog)} listed videos are not there: {_some(missing)}"
            problems.append(Problem(str(root), what))
        if not len(catalog):
            problems.append(Problem(str(root), "no videos in class folders", " ".join(sorted(SUFFIXES))))
    if problems:
        raise DataError(problems)
    return catalog


def video_path(root: Path, video: str) -> Path:
    """The file of a catalog's `video`, also where its folder or name differs in case only.

    UCF101's archives and lists disagree over HandstandPushups and HandStandPushups. A path that exists nowhere comes
    back as it was listed.
    """
    path = root / video
    if path.exists():
        return path
    found = root
    for part in Path(video).parts:
        names = sorted(p.name for p in found.iterdir()) if found.is_dir() else []
        same = [name for name in names if name.casefold() == part.casefold()]
        if not same:
            return path
        found = found / same[0]
    return found


def ucf101_lists(lists: Path, split: int) -> pd.DataFrame:
    """The official lists classInd.txt, trainlist0N.txt and testlist0N.txt.

    The group is the gNN of the name as it is: the official splits are by that number across classes. Raises DataError.
    """
    problems: list[Problem] = []
    labels = _class_labels(lists / "classInd.txt", problems)
    rows = []
    for part in ("train", "test"):
        path = lists / f"{part}list{split:02d}.txt"
        for where, line in _lines(path, problems):
            named = re.fullmatch(r"(.+?\.\w+)(?:\s+(\d+))?", line)
            video = named[1] if named else line
            action = video.split("/")[0]
            if named is None or "/" not in video:
                problems.append(Problem(where, f"must be class/video.ext and perhaps its label, but got {line!r}"))
            elif action not in labels:
                problems.append(Problem(where, f"class {action} is not in classInd.txt"))
            elif named[2] and int(named[2]) != labels[action] + 1:
                problems.append(Problem(where, f"label {named[2]}, but classInd.txt has {labels[action] + 1} {action}"))
            else:
                rows.append((video, labels[action], action, part, ucf101_group(video)))
    return _checked(lists, rows, problems)


def ucf101_group(video: str) -> str:
    """The "g08" of v_X_g08_c01.avi; of any other name the path without its suffix: a group of its own."""
    found = re.search(r"_(g\d+)_c\d+$", Path(video).stem)
    return found[1] if found else Path(video).with_suffix("").as_posix()


def hmdb51_lists(lists: Path, split: int) -> pd.DataFrame:
    """The official lists <class>_test_split<N>.txt: 1 is train, 2 is test, 0 is unused. Raises DataError."""
    problems: list[Problem] = []
    rows = []
    ending = f"_test_split{split}.txt"
    files = sorted(lists.glob(f"*{ending}"))
    if not files:
        problems.append(Problem(str(lists.absolute()), f"no lists <class>{ending} are here; set data.lists to them"))
    for label, path in enumerate(files):
        action = path.name.removesuffix(ending)
        for where, line in _lines(path, problems):
            name, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2") or not name:
                problems.append(Problem(where, f"must be a name and 0, 1 or 2, but got {line!r}"))
            elif use != "0":
                part = "train" if use == "1" else "test"
                rows.append((f"{action}/{name.strip()}", label, action, part, hmdb51_group(name.strip(), action)))
    return _checked(lists, rows, problems)


def hmdb51_group(name: str, action: str) -> str:
    """The source film: what stands before the class in the name.

    Parts of one film are one group (Return_of_the_King_12, RETURN_OF_THE_KING: returnoftheking), so case, punctuation
    and trailing part numbers do not count. Numbers of three and more digits stay, as they are years. Two films taken
    for one (Oceans11, Oceans12) cost nothing; one film taken for two would leak from training into validation.
    """
    stem = Path(name).stem
    film = stem.rpartition(f"_{action}_")[0] or stem
    plain = re.sub(r"[\W_]+", " ", film.casefold()).strip()
    part = r"(?:\s*\b(?:part|teil|nr))?\s*(?<!\d)\d{1,2}(?: of)?$"
    while (shorter := re.sub(part, "", plain)) != plain and shorter:
        plain = shorter
    return plain.replace(" ", "")


def folder(root: Path, lists: Path, split: int) -> pd.DataFrame:
    """Class folders of videos, with UCF101-style lists and a groups.csv (video, class, group) where they exist.

    Without lists the test list is a fifth of the groups, chosen by the hash of the group's name. Without groups.csv a
    group is UCF101's gNN or the video itself. Raises DataError.
    """
    problems: list[Problem] = []
    if (lists / "classInd.txt").exists() or (lists / f"trainlist{split:02d}.txt").exists():
        catalog = ucf101_lists(lists, split)
    else:
        classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        videos = {path: sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) for path in classes}
        for path in classes:
            if not videos[path] and path != lists:
                problems.append(Problem(str(path), "the class is empty: no videos in it", " ".join(sorted(SUFFIXES))))
        classes = [path for path in classes if videos[path]]
        rows = []
        for label, path in enumerate(classes):
            for file in videos[path]:
                video = file.relative_to(root).as_posix()
                rows.append((video, label, path.name, "train", ucf101_group(video)))
        catalog = _table(rows)
    if (lists / "groups.csv").exists():
        catalog["group"] = _groups(lists / "groups.csv", catalog, problems)
    if problems:
        raise DataError(problems)
    if not (lists / f"trainlist{split:02d}.txt").exists():
        by_hash = sorted(set(catalog["group"]), key=lambda group: hashlib.sha256(group.encode()).hexdigest())
        test = set(by_hash[: max(1, round(TEST_SHARE * len(by_hash)))])
        catalog["split"] = ["test" if group in test else "train" for group in catalog["group"]]
    return catalog


def _groups(path: Path, catalog: pd.DataFrame, problems: list[Problem]) -> list[str]:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"video", "group"} <= set(table.columns):
        problems.append(Problem(str(path), f"needs the columns video and group, but has {list(table.columns)}"))
        return list(catalog["group"])
    group_of = dict(zip(table["video"], table["group"], strict=True))
    without = [video for video in catalog["video"] if video not in group_of]
    if without:
        problems.append(Problem(str(path), f"names no group for {len(without)} videos: {_some(without)}"))
    return [group_of.get(video, "") for video in catalog["video"]]


def _class_labels(path: Path, problems: list[Problem]) -> dict[str, int]:
    """classInd.txt counts from 1; labels count from 0."""
    labels = {}
    for where, line in _lines(path, problems):
        number, _, action = line.partition(" ")
        if not number.isdecimal() or not action:
            problems.append(Problem(where, f"must be a number and a class, but got {line!r}"))
        else:
            labels[action.strip()] = int(number) - 1
    if sorted(labels.values()) != list(range(len(labels))):
        problems.append(Problem(str(path), "must number its classes 1, 2, 3, … without gaps"))
    return labels


def _lines(path: Path, problems: list[Problem]) -> Iterable[tuple[str, str]]:
    """Place (path:number) and text of the lines that are not empty."""
    if not path.is_file():
        problems.append(Problem(str(path.absolute()), "this list is missing; set data.lists to the folder that has it"))
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [(f"{path}:{number}", line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _checked(lists: Path, rows: list[tuple[str, int, str, str, str]], problems: list[Problem]) -> pd.DataFrame:
    catalog = _table(rows)
    twice = sorted(set(catalog.loc[catalog["video"].duplicated(), "video"]))
    if twice:
        problems.append(Problem(str(lists), f"{len(twice)} videos are listed more than once: {_some(twice)}"))
    if problems:
        raise DataError(problems)
    return catalog


def _table(rows: list[tuple[str, int, str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(sorted(rows), columns=COLUMNS).astype({"label": "int64"})


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
