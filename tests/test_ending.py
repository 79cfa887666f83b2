"""What MLflow gets for a whole sweep, from ledgers written by hand: the result, the models, and what was found."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import run_python

from kdtune.errors import StoreError
from kdtune.store import Store
from kdtune.store.files import append_jsonl, write_json
from kdtune.tracking.commit import commit_tags
from kdtune.tracking.ending import SweepEnding

BLOCKS = {"fraction=1.0": 2, "fraction 1/0": 1}


class Book:
    """Write a sweep's record and ledger."""

    def __init__(self, folder: Path, mode: str = "max", **record: Any) -> None:
        self.store = Store(folder)
        self.files = self.store.sweep("s")
        objective = {"metric": "knn", "split": "validation", "stage": "late", "mode": mode}
        texts = {"name": "s", "question": "?", "experiment": "s", "text": ""}
        write_json(
            self.files.sweep,
            {**texts, "ledger": "ledger_0.jsonl", "blocks": BLOCKS, "objective": [objective], "stages": {}, **record},
        )

    def group(self, kind: str, block: str | None, number: int | None, *objectives: float, keys: str = "") -> None:
        """Return rows that ask a group and end it with a value for each objective: first trained, then found."""
        name = f"{block} {kind} {number}"
        seeds = keys or f"{number}a {number}b"
        row = {
            "group": name,
            "kind": kind,
            "block": block,
            "number": number,
            "values": {"lambda": 0.51239, "tau": None},
        }
        lists = {"keys": seeds.split(), "finetuned": [f"{key}-ft" for key in seeds.split()], "seeds": [0, 1]}
        self.write("asked", **row, **lists, params=[{"teacher": "c3d"}] * 2)
        for i, objective in enumerate(objectives):
            self.write(
                "ended", group=name, state="complete", objective=objective, spread=0.01, cached=i > 0, stage=None
            )

    def write(self, event: str, **row: Any) -> None:
        append_jsonl(self.files.folder / "ledger_0.jsonl", {"event": event, **row})

    def ending(self) -> SweepEnding:
        return SweepEnding(self.store, "s")


def whole(book: Book) -> SweepEnding:
    first, second = BLOCKS
    for block in BLOCKS:
        book.group(
            "control", block, 0, 0.40, keys=" ".join(f"{'c' if block == first else 'd'}{seed}" for seed in (0, 1))
        )
    book.group("candidate", first, 0, 0.45, keys="k0 l0")
    book.group("candidate", first, 1, 0.50, 0.50, keys="k1 l1")
    book.group("candidate", first, 2, 0.90, keys="k2 l2")  # from an earlier run with more candidates
    book.group("candidate", second, 0, 0.30, keys="k3 l3")
    return book.ending()


def test_the_result_is_each_blocks_best_beside_its_control(tmp_path: Path) -> None:
    assert whole(Book(tmp_path)).summary().splitlines() == [
        "**knn** on validation at late (higher is better)",
        "",
        "| block | control | best candidate | difference |",
        "| --- | --- | --- | --- |",
        "| fraction=1.0 | 0.400 | 0.500 ± 0.010, candidate 1 (lambda 0.5124) | +0.100 |",
        "| fraction 1/0 | 0.400 | 0.300 ± 0.010, candidate 0 (lambda 0.5124) | -0.100 |",
        "",
        "Candidates: 3 complete.",
    ]
    lower = whole(Book(tmp_path / "lower", "min"))
    assert "| fraction=1.0 | 0.400 | 0.450 ± 0.010, candidate 0 (lambda 0.5124) | +0.050 |" in lower.summary()


def test_a_block_without_a_complete_candidate_says_so(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.group("candidate", "fraction=1.0", 0)
    ending = book.ending()
    assert "| fraction=1.0 | – | none is complete | – |" in ending.summary()
    assert "Candidates: 1 not ended." in ending.summary()
    assert not ending.complete
    assert ending.students().wanted == ()
    assert ending.trials() == [], "nothing of it was begun"


def test_what_was_fine_tuned_is_the_best_of_its_block(tmp_path: Path) -> None:
    students = whole(Book(tmp_path, tracking={"models": "best", "register": "mine"})).students()
    assert students.register == "mine"
    first = {
        student.trial.key: student.alias for student in students.wanted if student.trial.key.startswith(("k1", "c"))
    }
    assert first == {"k1": None, "k1-ft": "best-fraction-1-0", "c0": None, "c0-ft": None}
    aliases = [student.alias for student in students.wanted if student.alias]
    assert len(set(aliases)) == 2, "two blocks whose names MLflow cannot tell apart"


@pytest.mark.parametrize(("models", "count"), [("none", 0), ("best", 8), ("all", 2 * 2 * 2 + 3 * 2 * 2)])
def test_models_are_what_the_file_asks_for(models: str, count: int, tmp_path: Path) -> None:
    ending = whole(Book(tmp_path, tracking={"models": models, "register": None}))
    assert ending.complete
    assert len({student.trial.key for student in ending.students().wanted}) == count


def test_a_trial_was_found_where_it_was_found_the_first_time(tmp_path: Path) -> None:
    commit = {"mlflow.source.git.commit": "c0ffee"}
    trials = {trial.key: trial.tags for trial in whole(Book(tmp_path, commit=commit)).trials()}
    assert trials["k1"]["kdtune.cached"] == "false", "it was trained, and found when the command was run again"
    assert trials["k1"]["mlflow.source.git.commit"] == "c0ffee"
    book = Book(tmp_path / "other", commit=commit)
    book.write(
        "asked",
        group="j",
        kind="control",
        block="fraction=1.0",
        number=0,
        values={},
        seeds=[0],
        keys=["c"],
        finetuned=[],
        params=[{}],
    )
    book.write("ended", group="j", state="complete", objective=0.4, spread=None, cached=True, stage=None)
    (trial,) = book.ending().trials()
    assert trial.tags["kdtune.cached"] == "true"
    assert "mlflow.source.git.commit" not in trial.tags, "whose code trained it is not known"


def test_an_unknown_sweep_is_refused(tmp_path: Path) -> None:
    whole(Book(tmp_path))
    with pytest.raises(StoreError, match="holds no sweep named 't'"):
        SweepEnding(Store(tmp_path), "t")


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
