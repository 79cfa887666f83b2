"""Settings that need more videos than there are: the warning, and that its options mend it."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from layouts import videos

from kdtune.config.load import check_sweep
from kdtune.plan.plan import plan
from kdtune.store import StoreFiles
from kdtune.sweep.few_videos import DataWarning, data_warnings
from kdtune.train.prepared import Prepared

#: Settings that 2 classes of 60 videos suffice for: 120 videos, 24 of them for test, 19 of 96 for validation.
FITTING = {
    "data.validation": 0.45,
    "loss.contrast": "in_batch",
    "student.width": 8,
    "clip.frames": 8,
    "clip.size": 32,
    "epochs": 8,
}
BANK = {"loss.contrast": "memory_bank"}


def form(root: Path, sections: dict[str, Any], **trial: Any) -> tuple[dict[str, Any], list[str]]:
    raw = {"name": "few", "trial": {"data": {"dataset": "folder", "root": str(root)}}, "search": {"space": {}}}
    space = {"lambda": {"log": [0.05, 5.0]}}
    raw |= {"search": {"space": space, "candidates": 2, **sections.pop("search", {})}, **sections}
    return raw, [f"{key}={value}" for key, value in {**FITTING, **trial}.items()]


def warned(raw: dict[str, Any], sets: list[str], tmp_path: Path) -> list[DataWarning]:
    return data_warnings(check_sweep(raw, sets), Prepared(StoreFiles(tmp_path / "runs")))


def options(warnings: list[DataWarning]) -> list[str]:
    return [option for warning in warnings for option in _sets(warning.remedy)]


def _sets(remedy: str) -> list[str]:
    """Return the --set values in a remedy, as a shell reads them."""
    words = shlex.split(remedy)
    return [value for option, value in pairwise(words) if option == "--set"]


@pytest.mark.parametrize(
    ("trial", "sections", "mended"),
    [
        ({}, {}, []),
        (BANK, {}, ["loss.contrast=in_batch"]),
        ({"optimizer.batch": 64}, {}, ["optimizer.batch=16"]),
        ({"evaluation.neighbors": 40}, {}, ["evaluation.neighbors=13"]),
        ({"data.validation": 0.2}, {}, ["data.validation=0.45"]),
        ({"data.fraction": 0.1}, {}, ["data.fraction=0.31"]),
        (
            {},
            {"search": {"blocks": {"fraction": [1.0, 0.5, 0.02]}}},
            ["search.blocks.fraction=[1.0, 0.5]"],
        ),
        (
            {},
            {"search": {"space": {"optimizer.batch": {"int": [4, 128]}}}},
            ['search.space.optimizer.batch={"int": [4, 16]}'],
        ),
        (
            {},
            {"search": {"space": {"loss.contrast": ["in_batch", "memory_bank"]}}},
            ['search.space.loss.contrast=["in_batch"]'],
        ),
        (
            {},
            {"search": {"controls": [{"teacher": "none", "optimizer.batch": 64}]}},
            ['search.controls=[{"teacher": "none", "optimizer.batch": 16}]'],
        ),
        (
            {},
            {"teachers": {"big": {"optimizer": {"batch": 64}}}, "search": {"space": {"teacher": ["big"]}}},
            ["teachers.big.optimizer.batch=16"],
        ),
        ({"finetune.optimizer.batch": 64}, {}, ["finetune.optimizer.batch=16"]),
        ({"data.fraction": 0.5, "optimizer.batch": 48}, {}, ["data.fraction=0.91"]),
    ],
    ids=str,
)
def test_a_warning_says_what_mends_it(
    trial: dict[str, Any], sections: dict[str, Any], mended: list[str], tmp_path: Path
) -> None:
    for action in ("run", "sit"):
        videos(tmp_path / "data", *(f"{action}/{number}.avi" for number in range(60)))
    raw, sets = form(tmp_path / "data", dict(sections), **trial)
    found = options(warned(raw, sets, tmp_path))
    assert found == mended
    assert warned(raw, [*sets, *found], tmp_path) == []


def test_too_few_videos_for_any_share_ask_for_seeds_and_fewer_still_for_both(tmp_path: Path) -> None:
    videos(tmp_path / "data", *(f"{action}/{number}.avi" for action in ("run", "sit") for number in range(35)))
    raw, sets = form(tmp_path / "data", {})
    (warning,) = warned(raw, [*sets, "data.validation=0.2"], tmp_path)
    assert options([warning]) == ["data.validation=0.35", "search.seeds=[0, 1, 2, 3, 4]"]
    assert "one is 9.1 points" in warning.seen
    assert warned(raw, [*sets, *options([warning])], tmp_path) == []


def test_where_no_setting_helps_the_warning_stays_and_says_so(tmp_path: Path) -> None:
    videos(tmp_path / "data", *(f"{action}/{number}.avi" for action in ("run", "sit") for number in range(10)))
    raw, sets = form(tmp_path / "data", {})
    changes = ["optimizer.batch=4", "data.validation=0.5", "search.seeds=[0, 1, 2, 3, 4]"]
    (warning,) = warned(raw, [*sets, *changes], tmp_path)
    assert "validation has 8 videos" in warning.seen
    assert warning.remedy == "no setting mends it, only more videos do"


def test_plan_shows_the_warnings(tmp_path: Path) -> None:
    videos(tmp_path / "data", *(f"{action}/{number}.avi" for action in ("run", "sit") for number in range(60)))
    raw, sets = form(tmp_path / "data", {}, **BANK)
    said = "\n".join(plan(check_sweep(raw, sets), StoreFiles(tmp_path / "runs")))
    assert "warning      loss.negatives is 1,024, but there are only 53 training videos:" in said
    assert "--set loss.contrast=in_batch" in said
    lines = plan(check_sweep(*form(tmp_path / "data", {})), StoreFiles(tmp_path / "runs"))
    assert not any(line.startswith("warning") for line in lines)
