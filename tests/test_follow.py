"""`status --follow`, in a pipe and on a terminal; and a real running sweep, watched from another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, kdtune
from servers import wait_until
from watched import HIDE, SHOW, Row, Terminal, a_sweep, asked, driven, ended, status, tell

from kdtune.store import StoreFiles
from kdtune.store.files import append_jsonl, write_json
from kdtune.watch import status as report


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(monkeypatch)


@contextmanager
def following(root: Path, out: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command, and end it with the block."""
    command = [sys.executable, "-m", "kdtune", "status", "tiny", "--follow", "--store", str(root)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=out, stdout=out)  # the terminal's size is also read from stdin
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_followed_sweep_is_told_in_lines_in_a_pipe(tmp_path: Path) -> None:
    numbers = [asked("candidate", number, "all", thresholds={"early": 0.25}) for number in range(4)]
    files = a_sweep(tmp_path, "tiny", *numbers, ended("all · candidate 0", "complete", 0.5))
    out, driver = tmp_path / "out", ExitStack()
    driver.enter_context(driven(tmp_path))
    with driver, out.open("w") as file, following(tmp_path, file.fileno()) as process:
        wait_until(lambda: "1/4 ended" in out.read_text(), "the picture at the start")
        trial = StoreFiles(tmp_path).trial("all · candidate 1/0")
        write_json(trial.config, {})
        scores = {split: {"knn": 0.125} for split in ("validation", "test")}
        append_jsonl(trial.epochs, {"epoch": 1, "seconds": 1.0, "stage": "early", "evaluation": scores})
        wait_until(lambda: "candidate 1 · early: k-NN accuracy 0.125" in out.read_text(), "a stage")
        tell(files, ended("all · candidate 1", "pruned", stage="early"))
        wait_until(lambda: "2/4] all · candidate 1 · pruned at early: below 0.250" in out.read_text(), "an end")
        # The same sweep runs again with more candidates: its record is rewritten.
        a_sweep(tmp_path, "tiny", asked("candidate", 4, "all"), blocks={"all": 6})
        tell(files, ended("all · candidate 2", "failed", error="luck"))
        files.driver.unlink()
        driver.close()
        assert process.wait(60) == 0
    text = out.read_text()
    assert "\x1b" not in text
    assert "tiny · not running · 3/6 ended" in text
    assert text.count("candidate 0 · complete") == 0, "what had ended before is in the picture, not told again"


def test_a_followed_sweep_is_drawn_on_a_terminal_and_ends_cleanly(terminal: Terminal, tmp_path: Path) -> None:
    numbers = [asked("candidate", number, "all") for number in range(4)]
    files = a_sweep(tmp_path, "tiny", *numbers, ended("all · candidate 0", "complete", 0.5))
    driver = ExitStack()
    driver.enter_context(driven(tmp_path))
    with driver, following(tmp_path, terminal.slave) as process:
        wait_until(lambda: "1/4 ended" in terminal.text and HIDE in terminal.text, "the table")
        tell(files, ended("all · candidate 1", "complete", 0.75))
        wait_until(lambda: "2/4 ended" in terminal.text and "0.750 (no. 1)" in terminal.text, "the table, drawn again")
        files.driver.unlink()
        driver.close()
        assert process.wait(60) == 0
    text = terminal.closed()
    assert "all · candidate 1 · complete, k-NN accuracy 0.750\r\n" in text
    end = text[text.rindex(SHOW) :]
    assert "tiny · not running · 2/4 ended" in end
    assert "0.750 (no. 1)" in end


def test_who_watches_may_leave(terminal: Terminal, tmp_path: Path) -> None:
    a_sweep(tmp_path, "tiny", asked("candidate", 0, "all"))
    with driven(tmp_path), following(tmp_path, terminal.slave) as process:
        wait_until(lambda: "0/4 ended" in terminal.text and HIDE in terminal.text, "the table that is drawn again")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert SHOW in terminal.closed()


@pytest.mark.slow
def test_a_real_sweep_is_watched_from_another_process(sweep_form: dict[str, Any], tmp_path: Path) -> None:
    search = {"space": {"teacher": ["c3d"], "alpha": [0.5, 1.0]}, "sampler": "grid"}
    form = {**sweep_form, "search": search, "prune": {}, "objective": {"metric": "knn"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(form))
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    command = [sys.executable, "-m", "kdtune", "sweep", str(tmp_path / "tiny.yaml"), "--store", str(tmp_path)]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen([*command, "--backend", "inprocess"], env=environment, stderr=said, cwd=ROOT)
    seen: list[Row] = []
    while process.poll() is None:
        time.sleep(0.1)  # leaves the sweep a core
        if StoreFiles(tmp_path).sweeps():
            seen.append(report.status(StoreFiles(tmp_path), "tiny"))
    assert process.returncode == 0, (tmp_path / "said").read_text()
    assert [row["done"] for row in seen] == sorted(row["done"] for row in seen)
    assert any(row["running"] for row in seen)
    end = status(tmp_path, "tiny")
    assert (end["state"], end["done"], end["total"]) == ("complete", 4, 4)
    results = json.loads(kdtune("results", "tiny", "--format", "json", store=tmp_path).stdout)
    scratch, best = results["trials"][0], results["best"]["all"]
    assert end["blocks"][0]["best"] == {
        "candidate": best["candidate"],
        "objective": best["objective"],
        "gain": pytest.approx(100 * (best["objective"] - scratch["objective"])),
    }
