"""`store check --repair` of a store behind a URL: damage in a machine's copy, and damage in the store itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from helpers import bits, clocks, train
from s3 import Machines

from kdtune.cli import main
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles, TrialFiles, seal
from kdtune.train.session import Session

SPOILED: dict[str, Callable[[TrialFiles], Path]] = {
    "result": lambda files: files.result_file,
    "rows": lambda files: files.epochs,
    "identity": lambda files: files.config,
}


def check(url: str, *more: str) -> int:
    seal._noted.clear()
    return main(["store", "check", *more, "--store", url])


@pytest.fixture(scope="module")
def config(tiny: TrialConfig) -> TrialConfig:
    return tiny.model_copy(update={"epochs": 1, "stages": {"late": 1}})


def other_figure(content: str) -> str:
    """Replace the record's first 1 by a 2; it is still valid JSON."""
    changed = content.replace("1", "2", 1)
    json.loads(changed.splitlines()[0] if changed.count("\n{") else changed)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("what", SPOILED)
@pytest.mark.parametrize("where", ["here", "there"])
def test_a_damaged_record_is_named_set_aside_and_made_again(
    what: str,
    where: str,
    config: TrialConfig,
    prepared: Session,
    s3: str,
    on: Machines,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = train(config, on("a"), prepared)
    made = bits(files)
    path = SPOILED[what](files)
    if where == "there":
        name = f"{s3}/trials/{files.key}"
        remote, _ = fsspec.core.url_to_fs(s3)
        (object_,) = (each for each in remote.find(name) if Path(each).name.startswith(path.name))
        remote.pipe_file(object_, other_figure(remote.cat_file(object_).decode()).encode())
        files = on("b").trial(files.key).fetch()
        path = SPOILED[what](files)
    else:
        path.write_text(other_figure(path.read_text()))
    assert check(s3) == 1
    assert f"{path.name}: " in capsys.readouterr().out
    assert check(s3, "--repair") == 0
    assert check(s3) == 0, capsys.readouterr().out
    again = train(config, StoreFiles(s3), prepared)
    assert bits(again) == made
    third = train(config, on("c"), prepared)
    assert (bits(third), clocks(third)) == (made, clocks(again)), "nothing is left to train"
    assert check(s3) == 0, capsys.readouterr().out
