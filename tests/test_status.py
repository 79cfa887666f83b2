"""`status`: sweeps that run elsewhere, read from the store alone."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import kdtune, kdtune_here, refused, run_python, stopped, train
from watched import a_sweep, asked, driven, ended, left_by_driver, status, tell

from kdtune.cli import main
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_OK, EXIT_USER_ERROR, UserError
from kdtune.history.reading import HistoryReader, Lines
from kdtune.store import StoreFiles, SweepFiles
from kdtune.store.files import append_jsonl
from kdtune.store.seal import sealed
from kdtune.sweep import driver_life
from kdtune.sweep.driver_life import DriverLife
from kdtune.sweep.driver_lock import DriverLock
from kdtune.train.session import Session


def trial_of(config: TrialConfig, seed: int) -> TrialConfig:
    return config.model_copy(update={"seed": seed})


def test_a_sweep_is_read_while_its_trials_run(tiny: TrialConfig, prepared: Session, tmp_path: Path) -> None:
    """Real trials, each at another point of its life, seen here and by another process."""
    store = StoreFiles(tmp_path)
    control, done, half, waits = (trial_of(tiny, seed) for seed in range(4))
    key = {n: prepared.key(config) for n, config in enumerate((control, done, half, waits))}
    files = a_sweep(tmp_path, "tiny", asked("control", 0, "all", keys=(key[0],), epochs=2))
    for number in (0, 1, 2):
        tell(files, asked("candidate", number, "all", keys=(key[number + 1],), epochs=2))
    with driven(tmp_path):
        found = status(tmp_path, "tiny")
        assert (found["state"], found["done"], found["total"]) == ("running", 0, 5)
        assert found["driver"]["host"] == "box"
        assert found["running"] == []
        assert found["time_left"] is None

        knn = [train(config, store, prepared).stages()["late"]["validation"]["knn"] for config in (control, done)]
        tell(files, ended("all · control", "complete", knn[0]), ended("all · candidate 0", "complete", knn[1]))
        early = stopped(half, store, prepared, epoch=1).stages()["early"]["validation"]["knn"]
        found = status(tmp_path, "tiny")
        states = {"complete": 2, "pruned": 0, "infeasible": 0, "failed": 0, "running": 1, "pending": 2}
        best = {"candidate": 0, "objective": knn[1], "gain": pytest.approx(100 * (knn[1] - knn[0]))}
        assert found["blocks"] == [{"block": "all", **states, "best": best}]
        name = "all · candidate 1"
        at = {"group": name, "trial": name, "epoch": 1, "epochs": 2, "stage": "early", "metric": "knn", "value": early}
        assert found["running"] == [at]
        # One epoch of the one that runs and four of the two to come, one at a time, at the pace of the five done.
        rows = [row for config in (control, done, half) for row in store.trial(prepared.key(config)).rows()]
        assert len(rows) == 5
        assert found["time_left"] == pytest.approx((1 + 4) * sum(row["seconds"] for row in rows) / 5)

        text = kdtune("status", "tiny", store=tmp_path).stdout
        assert text.startswith("tiny · running (host box, pid 1234) · 2/5 ended · about ")
        assert re.search(rf"^{name} +1 of 2 +early: k-NN accuracy {early:.3f}$", text, re.MULTILINE)
        assert "\x1b" not in text


def test_what_began_is_not_called_running_where_nobody_runs_it(
    tiny: TrialConfig, prepared: Session, tmp_path: Path
) -> None:
    key = prepared.key(tiny)
    files = a_sweep(tmp_path, "tiny", asked("candidate", 0, "all", keys=(key,)))
    stopped(tiny, StoreFiles(tmp_path), prepared, epoch=1)
    assert status(tmp_path, "tiny")["state"] == "stopped"
    text = kdtune_here("status", "tiny", store=tmp_path).stdout
    assert text.startswith("tiny · not running · 0/4 ended\n")
    assert "begun" in text
    assert "running" not in text.split("\n", 1)[1]
    left_by_driver(files)
    found = status(tmp_path, "tiny")
    assert (found["state"], found["time_left"]) == ("died", None)
    text = kdtune_here("status", "tiny", store=tmp_path).stdout
    assert "the driver died (host box, pid 1234): run the same command again to resume" in text
    with driven(tmp_path):
        files.stop.touch()
        assert status(tmp_path, "tiny")["state"] == "stopping"


@pytest.mark.parametrize("skew", [-1e6, -31.0, 1e6])
def test_no_clock_says_whether_a_driver_is_alive(skew: float, tmp_path: Path) -> None:
    """The driver's machine, or the one that keeps the store, has another time than this one."""
    files = a_sweep(tmp_path)
    now = time.time() + skew
    with driven(tmp_path):
        left_by_driver(files, since=now)
        os.utime(files.driver, (now, now))
        assert status(tmp_path, "tiny")["state"] == "running"
        assert [sweep["state"] for sweep in status(tmp_path)["sweeps"]] == ["running"]
    os.utime(files.driver, (now, now))
    assert status(tmp_path, "tiny")["state"] == "died"


def test_looking_for_a_driver_keeps_none_from_starting(tmp_path: Path) -> None:
    a_sweep(tmp_path)
    store = StoreFiles(tmp_path)
    with DriverLock(store, "tiny", None):
        assert DriverLife(store, "tiny").alive() is not None
        with pytest.raises(UserError, match="another driver runs it"), DriverLock(store, "tiny", None):
            pass
    ended = threading.Event()

    def look() -> None:
        life = DriverLife(store, "tiny")
        while not ended.is_set():
            life.look()

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for thread in lookers:
        thread.start()
    try:
        for _ in range(20):
            with DriverLock(store, "tiny", None):
                pass
    finally:
        ended.set()
        for thread in lookers:
            thread.join()


def test_a_torn_last_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    row = ended("all · candidate 0", "complete", 0.5).row()
    files = a_sweep(tmp_path, "tiny", asked("candidate", 0, "all"))
    ledger, whole = files.folder / "ledger_0.jsonl", sealed(json.dumps(row)) + "\n"
    reader = HistoryReader(StoreFiles(tmp_path), "tiny")
    history = reader.poll()
    with ledger.open("a") as file:
        file.write(whole[:30])
    assert status(tmp_path, "tiny")["done"] == 0
    reader.poll()
    assert history.done == 0
    append_jsonl(ledger, row)  # cuts what was torn
    reader.poll()
    assert history.done == 1
    assert status(tmp_path, "tiny")["done"] == 1


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    """A trial that resumes from its checkpoint drops the rows beyond it."""
    path, other = tmp_path / "epochs.jsonl", tmp_path / "other.jsonl"
    for number in (1, 2):
        append_jsonl(path, {"epoch": number})
    lines = Lines(path, ("epoch",))
    assert [row["epoch"] for row in lines.new()] == [1, 2]
    assert lines.new() == []
    for row in ({"epoch": 1}, {"epoch": 2, "again": "and longer than before"}, {"epoch": 3}):
        append_jsonl(other, row)
    other.replace(path)
    assert [row["epoch"] for row in lines.new()] == [1, 2, 3]
    append_jsonl(path, {"epoch": 4})
    assert [row["epoch"] for row in lines.new()] == [4]


def test_an_unknown_name_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    a_sweep(tmp_path, "one")
    a_sweep(tmp_path, "two")
    said = refused(kdtune_here("status", "three", store=tmp_path))
    assert said.startswith("kdtune: 1 problem\n")
    assert "holds no sweep named 'three' (allowed: one, two)" in said
    assert "--follow: shows one sweep" in refused(kdtune_here("status", "--follow", store=tmp_path))


def test_the_only_sweep_or_the_only_one_that_runs_is_followed_without_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["status", "--follow", "--store", str(tmp_path)]
    assert main(command) == EXIT_USER_ERROR
    assert "--follow: shows one sweep: name it, since 0 are here" in capsys.readouterr().err
    a_sweep(tmp_path, "one", asked("candidate", 0, "all"))
    assert main(command) == EXIT_OK
    assert capsys.readouterr().out.startswith("one · not running"), "its state, since nobody runs it"
    a_sweep(tmp_path, "two")
    followed: list[str] = []
    monkeypatch.setattr("kdtune.watch.status.follow", lambda store, name, stream: followed.append(name))
    with driven(tmp_path, "two"):
        assert main(command) == EXIT_OK
        assert main([*command, "one"]) == EXIT_OK, "a name that is given is followed"
    assert followed == ["two", "one"]
    assert main(command) == EXIT_USER_ERROR
    assert "2 are here and 0 of them run (allowed: one, two)" in capsys.readouterr().err


def test_all_sweeps_are_listed_with_their_bests_and_who_runs_them(tmp_path: Path) -> None:
    assert "no sweep was run" in kdtune_here("status", store=tmp_path).stdout
    numbers = [asked("candidate", number, "all") for number in range(4)]
    a_sweep(tmp_path, "new")
    end = [ended(f"all · candidate {n}", "complete", value) for n, value in enumerate((0.25, 0.5, 0.125))]
    a_sweep(tmp_path, "runs", *numbers, *end[:2])
    left_by_driver(a_sweep(tmp_path, "died", *numbers, *end[:1]))
    a_sweep(tmp_path, "whole", *numbers, *end, ended("all · candidate 3", "failed", error="luck"))
    with driven(tmp_path, "runs"):
        found = status(tmp_path)
        lines = kdtune_here("status", store=tmp_path).stdout.splitlines()
    assert found["store"] == str(tmp_path)
    assert [(row["sweep"], row["state"], row["done"], row["total"], row["failed"]) for row in found["sweeps"]] == [
        ("died", "died", 1, 4, 0),
        ("new", "stopped", 0, 4, 0),
        ("runs", "running", 2, 4, 0),
        ("whole", "complete", 4, 4, 1),
    ]
    assert found["sweeps"][2]["best"] == {"all": {"candidate": 1, "objective": 0.5, "gain": None}}
    cells = [line.split() for line in lines[2:]]
    assert cells[0] == ["died", "died", "1/4", "0.250", "(no.", "0)", "host", "box,", "pid", "1234"]
    assert cells[1] == ["new", "stopped", "0/4"]
    assert cells[3] == ["whole", "complete", "4/4", "1", "0.500", "(no.", "1)"]


def test_thousands_of_trials_are_answered_for_without_opening_their_files(tmp_path: Path) -> None:
    files = a_sweep(tmp_path, "large", blocks={"all": 5000})
    with (files.folder / "ledger_0.jsonl").open("w") as ledger:
        for number in range(5000):
            row = asked("candidate", number, "all", keys=(f"{number:064x}",), epochs=2)
            ledger.write(sealed(json.dumps(row.row())) + "\n")
            if number < 4998:
                ledger.write(sealed(json.dumps(ended(row.group, "complete", number / 5000).row())) + "\n")
            folder = tmp_path / "trials" / row.keys[0]
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("{}")
            (folder / "epochs.jsonl").write_text(sealed('{"epoch": 1, "seconds": 2.0}') + "\n")
    code = f"""
import sys
opened = []
sys.addaudithook(lambda event, told: opened.append(str(told[0])) if event == "open" else None)
from kdtune.cli import main
assert main(["status", "large", "--format", "json", "--store", {str(tmp_path)!r}]) == 0
print("opened", sum("/trials/" in path for path in opened))
print([name for name in ("torch", "ray", "mlflow", "optuna", "numpy", "pandas") if name in sys.modules])
"""
    with driven(tmp_path, "large"):
        *answer, opened, heavy = run_python(code).stdout.splitlines()
    found = json.loads("\n".join(answer))
    assert (found["done"], found["blocks"][0]["best"]["candidate"], len(found["running"])) == (4998, 4997, 2)
    assert found["time_left"] == pytest.approx(2.0), "an epoch of two seconds is left to each of the two"
    assert int(opened.split()[1]) < 20
    assert heavy == "[]"


class FarStore:
    """A store behind a URL, whose lock another machine holds and touches every `every` seconds (None: it has died)."""

    mirror = "far"

    def __init__(self, folder: Path, every: float | None, free: bool = False) -> None:
        self.now, self.every, self.free = 0.0, every, free
        self._store = StoreFiles(folder)

    def sweep(self, name: str) -> SweepFiles:
        return self._store.sweep(name)

    def is_locked_here(self, name: str) -> bool:
        return False

    def lock_beat(self, name: str) -> str | None:
        return None if self.free else str(0 if self.every is None else self.now // self.every)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("every", "free", "alive", "took"), [(5.0, False, True, 5.0), (None, False, False, 20.0), (5.0, True, False, 0.0)]
)
def test_behind_a_url_a_driver_is_alive_that_touches_its_lock(
    every: float | None, free: bool, alive: bool, took: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_driver(a_sweep(tmp_path), since=9e9)
    store: Any = FarStore(tmp_path, every, free)
    monkeypatch.setattr(driver_life, "clock", lambda: store.now)
    monkeypatch.setattr(driver_life.time, "sleep", store.sleep)
    life = DriverLife(store, "tiny")
    assert (life.look()[1], store.now) == (alive, took)
    if alive:
        store.now, store.every = store.now + 19, 1e9  # this touch is its last
        assert life.look()[1]
        store.now += 44
        assert life.look()[1], "it may only be busy: no other machine could take its lock yet"
        store.now += 2
        assert not life.look()[1]
