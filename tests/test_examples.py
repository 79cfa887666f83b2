"""The example notebook and docs/api.md run as they stand."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import pytest
import yaml
from helpers import ROOT, link_clips

import kdtune
from kdtune.train.session import Session

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def code_cells() -> list[Any]:
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_the_notebook_is_shown_as_it_ran() -> None:
    cells = code_cells()
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}, "no errors"
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    shown = str(outputs)
    assert "The data do not decide" in shown
    assert not re.search(r"/(tmp|home|root|work|usr|opt)/", shown), "no path of the machine that ran it"


def test_the_notebook_runs_on_a_smaller_sweep(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, with the cell of its parameters replaced: one candidate, and frames that are there."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    link_clips(prepared.store.root, tmp_path / "runs")
    search = {"space": {"alpha": [0.25]}, "candidates": 1}
    values = {"name": "small", "trial": {**trial_form, "epochs": 1, "stages": {"late": 1}}, "search": search}
    known = {"kdtune": kdtune, "form": values, "store": "runs"}
    for cell in code_cells():
        if "parameters" not in cell.metadata.get("tags", []):
            tree = ast.parse(cell.source)
            exec(compile(tree, str(NOTEBOOK), "exec"), known)
    assert known["sweep"].counts()["complete"] == 2


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(tmp_path: Path) -> None:
    from nbclient import NotebookClient

    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "True" in str(book.cells[-1].outputs), "the replay found no difference"


@pytest.mark.slow
def test_the_documentation_runs(
    trial_form: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    assert len(blocks) == 7
    mapping = ast.unparse(ast.parse(blocks[0]).body[2].value.args[0])  # type: ignore[attr-defined]
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(ast.literal_eval(mapping)))
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(trial_form))
    known: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), known)
    said = capsys.readouterr().out
    assert "epochs should be greater than or equal to 1, got 0" in said
    assert "['first']" in said
