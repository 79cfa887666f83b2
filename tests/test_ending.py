"""What MLflow is told of a sweep as a whole, from ledgers written by hand: the result, the models, what was found."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import run_python
from watched import a_record, asked, ended

from kdtune.config.search import Mode
from kdtune.errors import StoreError
from kdtune.history.events import Asked, Ended, Outcome
from kdtune.history.metric import MetricSpec
from kdtune.history.reading import read_history
from kdtune.history.record import ModelsWanted
from kdtune.store import StoreFiles
from kdtune.store.files import append_jsonl, write_json
from kdtune.tracking.commit import commit_tags
from kdtune.tracking.ending import SweepEnding

BLOCKS = {"fraction=1.0": 2, "fraction 1/0": 1}


class Book:
    """A sweep's record and ledger."""

    def __init__(self, folder: Path, mode: Mode = "max", **record: Any) -> None:
        self.store = StoreFiles(folder)
        self.files = self.store.sweep("s")
        objective = MetricSpec("knn", "validation", "late", mode, "knn")
        fields = {"question": "?", "experiment": "s", "blocks": BLOCKS, "objectives": (objective,), **record}
        write_json(self.files.sweep, a_record(**fields).row())

    def group(self, kind: Any, block: str, number: int, *objectives: float, keys: str = "") -> None:
        """Asked and, for each objective, ended with it: the first time trained, then found."""
        named = tuple((keys or f"{number}a {number}b").split())
        tuned = tuple(f"{key}-ft" for key in named)
        values = {"lambda": 0.51239, "tau": None}
        group = asked(kind, number, block, seeds=2, keys=named, finetuned=tuned, values=values)
        group = dataclasses.replace(group, group=f"{block} {kind} {number}")
        self.write(group)
        for i, value in enumerate(objectives):
            spread = ((value - 0.01 / 2**0.5, value + 0.01 / 2**0.5),)
            self.write(Ended(group.group, Outcome("complete", spread), cached=i > 0))

    def write(self, event: Asked | Ended) -> None:
        append_jsonl(self.files.folder / "ledger.jsonl", event.row())

    def ending(self) -> SweepEnding:
        return SweepEnding(self.store, read_history(self.store, "s"))


def whole(book: Book) -> SweepEnding:
    first, second = BLOCKS
    for block in BLOCKS:
        book.group("control", block, 0, 0.40, keys="c0 c1" if block == first else "d0 d1")
    book.group("candidate", first, 0, 0.45, keys="k0 l0")
    book.group("candidate", first, 1, 0.50, 0.50, keys="k1 l1")
    book.group("candidate", first, 2, 0.90, keys="k2 l2")  # of an earlier run that asked for more
    book.group("candidate", second, 0, 0.30, keys="k3 l3")
    return book.ending()


def test_the_result_is_each_blocks_best_beside_its_control(tmp_path: Path) -> None:
    answer, empty, *table = whole(Book(tmp_path)).result().text.splitlines()
    assert answer.startswith("In none of 2 blocks is the best candidate better than the control (teacher c3d)")
    assert empty == ""
    assert table == [
        "**k-NN accuracy** on validation at late (higher is better)",
        "",
        "| block | control | best candidate | gain (points) | interval | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
        "| fraction=1.0 | 0.400 ± 0.010 | 0.500 ± 0.010, candidate 1 (lambda 0.5124) | +10.0 | none | not decided |",
        "| fraction 1/0 | 0.400 ± 0.010 | 0.300 ± 0.010, candidate 0 (lambda 0.5124) | −10.0 | none | not decided |",
        "",
        "Candidates: 3 complete.",
    ]
    lower = whole(Book(tmp_path / "lower", "min")).result().text
    assert "| fraction=1.0 | 0.400 ± 0.010 | 0.450 ± 0.010, candidate 0 (lambda 0.5124) | −5.0 | none |" in lower


def test_a_block_without_a_complete_candidate_says_so(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.group("candidate", "fraction=1.0", 0)
    ending = book.ending()
    assert "| fraction=1.0 | – | none is complete | – | – | – |" in ending.result().text
    assert "Candidates: 1 pending." in ending.result().text
    assert not ending.history.complete
    assert ending.students().wanted == ()
    assert ending.trials() == [], "nothing of it was begun"


def test_what_was_fine_tuned_is_the_best_of_its_block(tmp_path: Path) -> None:
    students = whole(Book(tmp_path, tracking=ModelsWanted("best", "mine"))).students()
    assert students.register == "mine"
    first = {student.key: student.alias for student in students.wanted if student.key.startswith(("k1", "c"))}
    assert first == {"k1": None, "k1-ft": "best-fraction-1-0", "c0": None, "c0-ft": None}
    aliases = [student.alias for student in students.wanted if student.alias]
    assert len(set(aliases)) == 2, "two blocks whose names MLflow cannot tell apart"


@pytest.mark.parametrize(("models", "count"), [("none", 0), ("best", 8), ("all", 2 * 2 * 2 + 3 * 2 * 2)])
def test_models_are_what_the_file_asks_for(models: Any, count: int, tmp_path: Path) -> None:
    ending = whole(Book(tmp_path, tracking=ModelsWanted(models)))
    assert ending.history.complete
    assert len({student.key for student in ending.students().wanted}) == count


def test_a_trial_was_found_where_it_was_found_the_first_time(tmp_path: Path) -> None:
    commit = {"mlflow.source.git.commit": "c0ffee"}
    trials = {trial.key: trial.tags for trial in whole(Book(tmp_path, commit=commit)).trials()}
    assert trials["k1"]["kdtune.cached"] == "false", "it was trained, and found when the command was run again"
    assert trials["k1"]["mlflow.source.git.commit"] == "c0ffee"
    book = Book(tmp_path / "other", commit=commit)
    book.write(asked("control", 0, "fraction=1.0", group="g", keys=("c",)))
    book.write(ended("g", "complete", 0.4, cached=True))
    (trial,) = book.ending().trials()
    assert trial.tags["kdtune.cached"] == "true"
    assert "mlflow.source.git.commit" not in trial.tags, "whose code trained it is not known"


def test_an_unknown_sweep_is_refused(tmp_path: Path) -> None:
    whole(Book(tmp_path))
    with pytest.raises(StoreError, match="holds no sweep named 't'"):
        read_history(StoreFiles(tmp_path), "t")


def test_it_needs_neither_torch_nor_mlflow() -> None:
    code = "import sys, kdtune.tracking.ending; print([n for n in ('torch', 'mlflow', 'ray') if n in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_the_commit_of_a_working_tree(tmp_path: Path) -> None:
    assert commit_tags(tmp_path) == {}

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "-m", "one")
    commit = {"mlflow.source.git.commit": git("rev-parse", "HEAD")}
    assert commit_tags(tmp_path) == {**commit, "kdtune.git.dirty": "false"}
    (tmp_path / "file").write_text("two")
    assert commit_tags(tmp_path) == {**commit, "kdtune.git.dirty": "true"}
