"""A trial whose values overflow fails and says where; a failed measurement does not lose a trained trial."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from helpers import CPU, bits, only_group, session_of, train

from kdtune.config.search import ObjectiveConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import TrialError
from kdtune.history.events import Ended
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import append_jsonl, write_json, write_jsonl
from kdtune.sweep.group import outcome_in_store
from kdtune.train import session as sessions
from kdtune.train import trial as loop
from kdtune.train.measuring.evaluate import Evaluation
from kdtune.train.measuring.usage import UsageMeter
from kdtune.train.session import Session
from kdtune.train.soundness import not_finite


def failed(config: TrialConfig, prepared: Session, store: StoreFiles) -> tuple[TrialFiles, str]:
    """Train a trial that must fail. Return its files and the error that its record holds."""
    session = session_of(store, prepared)
    with pytest.raises(TrialError) as raised:
        list(session.trial(config, CPU))
    files = session.files(config)
    assert files.failure() == str(raised.value)
    assert files.result() is None
    for path in (*files.folder.glob("*.json"), *files.folder.glob("*.jsonl")):
        assert "NaN" not in path.read_text()
        assert "Infinity" not in path.read_text()
    return files, str(raised.value)


def test_weights_that_the_last_step_blows_up(tiny: TrialConfig, prepared: Session, store: StoreFiles) -> None:
    """The losses of all earlier steps are finite."""
    optimizer = tiny.optimizer.model_copy(update={"lr": 1e30, "batch": 64})
    config = tiny.model_copy(update={"optimizer": optimizer, "epochs": 1, "stages": {"late": 1}})
    files, said = failed(config, prepared, store)
    assert said.startswith("after epoch 1 (rate 1e+30)")
    assert "not finite" in said
    assert said.endswith("a lower optimizer.lr or weight of the loss may help")
    assert files.rows() == []


def test_a_figure_that_is_not_finite(
    tiny: TrialConfig, prepared: Session, store: StoreFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluated(*_: Any) -> Evaluation:
        return Evaluation({split: {"knn": 0.5, "pretext_loss": math.nan} for split in ("validation", "test")}, {}, None)

    monkeypatch.setattr(loop, "evaluate", evaluated)
    _, said = failed(tiny, prepared, store)
    assert said.startswith("after epoch 1 (rate 0.01) these are not finite: evaluation.validation.pretext_loss, ")


def test_weights_that_are_not_finite_though_every_figure_is(
    tiny: TrialConfig, prepared: Session, store: StoreFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.model_copy(update={"stages": {"late": 2}})
    step = torch.optim.SGD.step

    def blown_up(optimizer: torch.optim.SGD, closure: Any = None) -> Any:
        done = step(optimizer, closure)
        optimizer.param_groups[0]["params"][0].data.fill_(math.inf)
        return done

    monkeypatch.setattr(torch.optim.SGD, "step", blown_up)
    _, said = failed(
        config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"batch": 64})}), prepared, store
    )
    assert said.startswith("after epoch 1")
    assert "backbone." in said


def test_no_record_holds_what_is_not_finite(tmp_path: Path) -> None:
    record = {"a": [1.0, {"b": math.nan}], "c": math.inf, "d": -math.inf, "e": "NaN", "f": 1}
    assert list(not_finite(record)) == ["a[1].b", "c", "d"]
    path = tmp_path / "record"
    for write in (write_json, append_jsonl, lambda place, value: write_jsonl(place, [value])):
        with pytest.raises(ValueError, match="JSON"):
            write(path, record)
        assert not path.exists() or path.read_bytes() == b""


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no memory"), RuntimeError("no such operator"), MemoryError()]
)
def test_a_cost_that_cannot_be_measured(
    error: Exception,
    tiny: TrialConfig,
    prepared: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any) -> dict[str, float]:
        raise error

    config = tiny.model_copy(update={"epochs": 1, "stages": {"late": 1}})
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "trial_cost", refuse)
        patch.setattr(prepared, "costs", {})  # those that this process has measured before
        files = train(config, StoreFiles(tmp_path / "unmeasured"), prepared)
    assert files.failure() is None
    result = files.result()
    assert result is not None
    assert set(result["cost"]) == {"epoch_seconds"}
    assert type(error).__name__ in result["cost_unmeasured"]
    assert "cannot measure the cost" in capsys.readouterr().err
    assert bits(files) == bits(train(config, StoreFiles(tmp_path / "measured"), prepared))

    def outcome(*metrics: str) -> Any:
        group = only_group(config, files.key)
        return outcome_in_store(
            group, [ObjectiveConfig(metric=m) for m in metrics], StoreFiles(tmp_path / "unmeasured")
        )

    assert outcome("knn").state == "complete"
    assert outcome("knn", "gmac").state == "failed"
    assert "gmac was not measured" in outcome("knn", "gmac").error
    json.dumps(Ended("g", outcome("knn", "gmac")).row(), allow_nan=False)


def test_a_machine_that_tells_nothing_costs_no_trial(
    tiny: TrialConfig, store: StoreFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise psutil.AccessDenied

    for name in ("Process", "virtual_memory", "cpu_percent"):
        monkeypatch.setattr(psutil, name, refuse)
    meter, files = UsageMeter(CPU), store.trial("0" * 32)
    assert meter.read() == {}
    meter.note(files, {"epoch": 1, "at": math.inf})
    assert files.machine.read_text().startswith('{"epoch": 1')
