"""The machine's usage is recorded beside a trial's rows and never in them."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
from helpers import CPU, bits, train

from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.store.files import read_jsonl
from kdtune.train.measuring.usage import UsageMeter
from kdtune.train.session import Session


def test_an_epoch_has_one_line_and_no_bit_of_a_trial_knows_of_it(
    tiny: TrialConfig, prepared: Session, tmp_path: Path
) -> None:
    session = Session(StoreFiles(tmp_path / "measured"), dict(prepared.folders))
    files, meter = session.files(tiny), UsageMeter(CPU)
    for row in session.trial(tiny, CPU):
        meter.note(files, row)
    lines = read_jsonl(files.machine)
    assert [line["epoch"] for line in lines] == [1, 2]
    for line, row in zip(lines, files.rows(), strict=True):
        assert line["at"] >= row["at"]
        assert 0 < line["system_memory_usage_percentage"] <= 100
        assert 0 < line["process_memory_usage_megabytes"] < psutil.virtual_memory().total / 1e6
        assert line["process_cpu_utilization_percentage"] > 0, "it has just trained"
    assert bits(files) == bits(train(tiny, StoreFiles(tmp_path / "alone"), prepared))
    # Rows of another life are passed again, and not measured again.
    again = UsageMeter(CPU)
    for row in session.trial(tiny, CPU):
        again.note(files, row)
    assert read_jsonl(files.machine) == lines


def test_names_are_mlflows_where_it_has_one() -> None:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor

    theirs = CPUMonitor()
    theirs.collect_metrics()
    ours = UsageMeter(CPU).read()
    assert theirs.metrics.keys() <= ours.keys()
    used, total = (getattr(psutil.virtual_memory(), name) / 1e6 for name in ("used", "total"))
    assert abs(ours["system_memory_usage_megabytes"] - used) < total / 4


def test_a_full_disk_is_not_the_meters_to_tell(tiny: TrialConfig, tmp_path: Path) -> None:
    meter, files = UsageMeter(CPU), StoreFiles(tmp_path).trial("0" * 32)
    tmp_path.joinpath("trials").write_text("no folder")
    meter.note(files, {"epoch": 1, "at": time.time()})
