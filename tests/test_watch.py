"""The display of a watched sweep, on terminals and in pipes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from rich.console import Console
from watched import HIDE, SHOW, Terminal, a_history, a_record, asked, ended, epoch, tuned

from kdtune.history.progress import picture
from kdtune.units import duration
from kdtune.watch.live import Live, Plain, watcher
from kdtune.watch.picture import show, tables


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (720, "12 min"), (12_000, "3 h 20 min"), (216_000, "2.5 days")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_plain_lines_read_as_they_always_did() -> None:
    said: list[str] = []
    with Plain(said.append) as watch:
        watch.say("s: a question")
        watch.begin(a_record())
        for event in (
            asked("control", 0),
            asked("teacher", None, None),
            asked("candidate", 0, thresholds={"early": 0.271}),
            *(asked("candidate", number, seeds=2) for number in (1, 2)),
            ended("teacher c3d", "complete", cached=True),
            epoch("f=1 · candidate 0", 1),
            epoch("f=1 · candidate 0", 2, stage="early", knn=0.25),
            epoch("f=1 · candidate 0", 2, stage="early", knn=0.25),  # of a trial that resumes
            ended("f=1 · candidate 0", "pruned", stage="early"),
            epoch("f=1 · candidate 1", 2, stage="early", knn=0.5, seed=1),
            ended("f=1 · candidate 1", "complete", 0.3125, seeds=2),
            ended("f=1 · candidate 2", "failed", error="luck"),
            ended("f=1 · control", "complete"),
        ):
            watch.apply(event)
    assert [re.sub(r"^\[ +\d+ s", "[     0 s", line) for line in said] == [
        "s: a question",
        "[     0 s ·   1/8] f=1 · candidate 0 · early: k-NN accuracy 0.250",
        "[     0 s ·   2/8] f=1 · candidate 0 · pruned at early: below 0.271",
        "[     0 s ·   2/8] f=1 · candidate 1 seed 1 · early: k-NN accuracy 0.500",
        "[     0 s ·   3/8] f=1 · candidate 1 · complete, k-NN accuracy 0.312",
        "[     0 s ·   4/8] f=1 · candidate 2 · failed: luck",
        "[     0 s ·   5/8] f=1 · control · complete",
    ]


def test_a_fine_tuning_s_line_says_its_top_1() -> None:
    said: list[str] = []
    watch = Plain(said.append)
    watch.begin(a_record(stages={"late": 8, "finetune": 12}))
    name = "f=1 · candidate 0"
    for event in (asked("candidate", 0, finetuned=("tuned/0",)), epoch(name, 8, stage="late", knn=0.25)):
        watch.apply(event)
    watch.apply(tuned(name, 4, 0.625))
    assert [line.partition("] ")[2] for line in said] == [
        f"{name} · late: k-NN accuracy 0.250",
        f"{name} · finetune: top-1 accuracy 0.625",
    ]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(monkeypatch)


def test_a_terminal_gets_a_table_that_goes_and_the_ends_above_it(terminal: Terminal) -> None:
    with watcher(terminal.stream) as watch:
        assert isinstance(watch, Live)
        watch.say("s: a question [with brackets]")
        watch.begin(a_record())
        watch.apply(asked("control", 0))
        watch.apply(asked("candidate", 0))
        watch.apply(epoch("f=1 · candidate 0", 2, stage="early", knn=0.25))
        watch.apply(ended("f=1 · control", "complete", 0.375))
    text = terminal.closed()
    assert "s: a question [with brackets]\r\n" in text
    assert "f=1 · control · complete, k-NN accuracy 0.375" in text
    assert "early: k-NN accuracy 0.250" in text, "in the table"
    assert "· early: k-NN accuracy 0.250" not in text, "and not as a line"
    assert text.index(HIDE) < text.index("running") < text.rindex(SHOW)
    assert "best k-NN accuracy" not in screen(text), "the table has gone"
    assert "f=1 · control · complete" in screen(text)


def test_the_cursor_comes_back_when_the_sweep_is_interrupted(terminal: Terminal) -> None:
    def interrupted() -> None:
        with watcher(terminal.stream) as watch:
            watch.begin(a_record())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    text = terminal.closed()
    assert text.rindex(SHOW) > text.rindex(HIDE)


def screen(text: str) -> str:
    """Return what a terminal shows of `text`: cursor up, carriage return and erasing are applied, others dropped."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif re.fullmatch(r"\x1b\[\d*A", part):
            row = max(0, row - int(part[2:-1] or 1))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part[0] not in "\x1b\r":
            lines[row] += part
    return "\n".join(lines)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_what_cannot_move_its_cursor_gets_lines(term: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")  # does not make a terminal of a pipe
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe, os.fdopen(reading) as end:
        with watcher(terminal.stream if term == "dumb" else pipe) as watch:
            assert type(watch) is Plain
            watch.begin(a_record())
            watch.apply(asked("candidate", 0))
            watch.apply(ended("f=1 · candidate 0", "complete", 0.5))
        pipe.close()
        text = terminal.closed() + end.read()
    assert text.rstrip().endswith("f=1 · candidate 0 · complete, k-NN accuracy 0.500")
    assert "\x1b" not in text


def test_a_table_is_no_taller_than_the_terminal() -> None:
    blocks = {f"f={number}": 2 for number in range(40)}
    history = a_history(*(asked("candidate", 0, block) for block in blocks), blocks=blocks)
    for number in range(30, 40):
        history.apply(epoch(f"f={number} · candidate 0", 1))
    for height in (12, 24, 50):
        console = Console(width=100, height=height, force_terminal=True)
        lines = console.render_lines(tables(history, picture(history), "s", height=height), pad=False)
        assert len(lines) <= height
        text = "\n".join("".join(segment.text for segment in line) for line in lines)
        assert "f=39" in text or "more" in text
        assert "more blocks" in text, "none goes unmentioned"
        assert "f=30" in text, "those at work come first"


def test_a_picture_in_a_pipe_is_plain_text_of_which_nothing_is_cut(tmp_path: Path) -> None:
    long = "f=1 student.backbone=r21d data.dataset=a_rather_long_name_of_a_data_set clip.frames=16"
    history = a_history(asked("candidate", 0, long), blocks={long: 1, "f=0.5": 3})
    history.apply(epoch(f"{long} · candidate 0", 2, stage="early", knn=0.25))
    with (tmp_path / "out").open("w") as file:
        show(tables(history, picture(history), "s · running"), file)
    text = (tmp_path / "out").read_text()
    assert "\x1b" not in text
    assert "…" not in text
    assert text.splitlines()[0] == "s · running · 0/4 ended · about 30 s left"
    assert f"{long} · candidate 0  2 of 8  early: k-NN accuracy 0.250" in re.sub(" {2,}", "  ", text)
    assert all(line == line.rstrip() for line in text.splitlines())
