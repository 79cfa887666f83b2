"""Tables and texts on a narrow terminal: nothing is wider than it, and nothing is lost."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from kdtune.messages import wrapped
from kdtune.tables import Table, render
from kdtune.tables.fit import fitted, width_of
from kdtune.tables.terminal import text_for

RESULTS = Table.of(
    ["trial", "student", "teacher", "λ", "τ", "early", "mid", "late", "gain (points)", "note", "state"],
    [
        ["control", "r3d", "none", "–", "–", "0.333", "0.479", "0.479", "", "", "complete"],
        ["0", "r3d", "c3d", "0.345", "5.936", "0.354", "0.500", "0.500", "+2.1", "", "complete"],
        ["7", "r3d", "r21d", "0.2857", "7.162", "0.333", "0.500", "", "", "", f"failed: {'a long reason ' * 20}"],
    ],
    "fraction=1.0: k-NN accuracy on validation (majority baseline 0.125)",
    "… and 3 more: 4, 3 complete",
)
ACCURACIES = Table.of(
    ["stage", "accuracy", "majority", *(f"{n}: c3d, λ 0.{n}25 (n = 3)" for n in range(6))],
    [
        [s, a, "0.125", *(f"0.{n}1{len(s + a) % 10} ± 0.020" for n in range(6))]
        for s in ("late", "finetune")
        for a in ("k-NN", "top-1")
    ],
    "all, validation",
)


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("table", [RESULTS, ACCURACIES], ids=["results", "accuracies"])
def test_a_table_fits_a_terminal_and_loses_only_what_is_too_long(table: Table, width: int) -> None:
    text = text_for(table, width)
    assert max(map(cell_len, text.splitlines())) <= width
    words = " ".join(text.split())
    assert table.title in words
    for row in table.rows:
        for cell in row:
            assert cell.text in words or cell_len(cell.text) > width // 2
    for part in fitted(table, width):
        assert width_of(part) <= width
        # Each part begins with what tells the rows apart.
        assert part.columns[0].label == table.columns[0].label
        assert len({tuple(cell.text for cell in row) for row in part.rows}) == len(table.rows)


def test_a_table_that_fits_and_one_in_a_pipe_are_as_they_were() -> None:
    assert text_for(RESULTS, None) == render(RESULTS, "text") == text_for(RESULTS, 1000)
    assert fitted(RESULTS, 1000) == [RESULTS]


def test_columns_without_a_difference_become_a_note() -> None:
    text = text_for(RESULTS, 100)
    assert "in every row: student r3d" in " ".join(text.split())
    assert "note" not in text


def test_lines_break_at_words_and_what_follows_is_indented() -> None:
    line = "trial        " + "some words of a plan " * 8
    shown = wrapped(line, 80).splitlines()
    assert max(map(len, shown)) <= 80
    assert all(part.startswith(" " * 13) for part in shown[1:])
    assert " ".join(" ".join(shown).split()) == " ".join(line.split())
    problem = "  --set student.backbone=r3: unknown value (allowed: " + ", ".join(["r3d"] * 30) + ")"
    assert all(part.startswith("    ") for part in wrapped(problem, 80).splitlines()[1:])
    assert wrapped(line, None) == line
    assert wrapped("x" * 200, 80) == "x" * 200  # a path stays whole, to be copied
