"""The documentation: its links, its references, its tables; `make docs` builds the site itself."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

import kdtune
from kdtune.config.fields import Section
from kdtune.config.space import all_paths
from kdtune.config.sweep import SweepConfig

sys.path.append(str(ROOT / "docs" / "generator"))
import api
import commands
import configuration
from pages import BrokenLinks, nav_pages, sources, stage

LONGEST_README = 130


def test_every_page_is_in_the_navigation_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    pages = sources(ROOT)
    assert sorted(nav_pages(ROOT / "zensical.toml")) == sorted(pages)
    stage(ROOT, tmp_path, dict.fromkeys(("api", "commands", "configuration"), "generated"))
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.md")} == set(pages)
    assert "![" in (tmp_path / "index.md").read_text()
    assert (tmp_path / "files" / "docs" / "mlflow.png").is_file()
    assert (tmp_path / "reference" / "commands.md").read_text().endswith("generated\n")


def test_a_link_that_leads_nowhere_is_named_with_its_line(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for file in sources(ROOT).values():
        (repository / file).parent.mkdir(parents=True, exist_ok=True)
        (repository / file).write_text("# Page\n\n    [code](none.md)\n")
    (repository / "docs" / "faq.md").parent.mkdir(exist_ok=True)
    (repository / "docs" / "faq.md").write_text(
        "# Page\n\n[one](nowhere.md) ![two](../none.png) [three](../../out.md)\n"
    )
    with pytest.raises(BrokenLinks) as refused:
        stage(repository, tmp_path / "site", {})
    assert str(refused.value).splitlines() == [
        f"docs/faq.md:3: {target} is no file of this repository"
        for target in ("nowhere.md", "../none.png", "../../out.md")
    ]


def sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for below in section.__subclasses__():
        yield from sections(below)


def test_every_field_of_the_configuration_is_described() -> None:
    found = list(sections(Section))
    assert SweepConfig in found
    bare = [
        f"{section.__name__}.{name}"
        for section in found
        if section.__module__.startswith("kdtune.")
        for name, field in section.model_fields.items()
        if not field.description and field.annotation not in found  # a section's own docstring describes it
    ]
    assert bare == []
    assert [section.__name__ for section in found if not section.__doc__] == []


def test_the_configuration_reference_has_every_path() -> None:
    page = configuration.page()
    headings = re.findall(r"^## (\S+)$", page, re.MULTILINE)
    for path in all_paths():
        section, _, field = path.rpartition(".")
        assert f"| `{field}` |" in page, path
        # A scheduled value and the data of fine-tuning have the fields of another section, to which their row leads.
        elsewhere = section.endswith(("lambda", "tau")) or section in ("", "finetune.data")
        assert elsewhere or f"trial.{section}" in headings, path
    assert "| `keep` | number > 0, ≤ 1 | `0.5` | Share of the candidates that continue. |" in page


def test_the_command_reference_is_the_same_with_another_store_and_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    page = commands.page()
    for command in ("sweep", "plan", "data prepare", "store check", "teacher import"):
        assert f"## {command}\n" in page
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("KDTUNE_STORE", "elsewhere")
    assert commands.page() == page


def test_the_api_reference_has_every_public_name_with_its_examples() -> None:
    page = api.page()
    for name in kdtune.__all__:
        assert re.search(rf"^## kdtune\.{name}$", page, re.MULTILINE), name
    for heading in ("### Sweep.gains", "### Trial.load_student", "### Store.trials", "- `backend`: `ray` trains"):
        assert heading in page
    assert page.count("```") % 2 == 0


def test_the_table_of_promises_names_modules_and_tests_that_exist() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| promise | module | tests |")[2]
    rows = [row.split(" | ") for row in table.strip().splitlines()[1:]]
    assert len(rows) > 20
    missing = []
    for promise, modules, tests in rows:
        folder = ""
        for module in re.findall(r"`([\w/.]+)`", modules):
            # `train/state.py`, `checkpoint.py`: a bare name is in the folder of the one before it.
            folder = module.rpartition("/")[0] if "/" in module else folder
            places = [Path("kdtune", module), Path("kdtune", folder, module), Path(module)]
            missing += [] if any((ROOT / place).exists() for place in places) else [(promise, module)]
        missing += [
            (promise, test) for test in re.findall(r"`(\w+\.py)`", tests) if not (ROOT / "tests" / test).is_file()
        ]
    assert missing == []


def test_the_table_of_layers_names_what_exists() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Layers")[2].partition("## Promises")[0]
    names = {path.name for path in (ROOT / "kdtune").iterdir() if (path / "__init__.py").is_file()}
    names |= {path.name for path in (ROOT / "kdtune").glob("*.py") if not path.name.startswith("__")}
    described = {name.strip("`/") for name in re.findall(r"`\w+(?:/|\.py)`", table)}
    assert len(described) > 20
    assert described <= names


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_README


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    """Every command in its order, on synthetic motions, in one process, with two epochs a trial; no page is served."""
    kdtune.make_synthetic(tmp_path / "videos", groups=6, clips=1)
    text = (ROOT / "docs" / "tutorial.md").read_text()
    lines = [line.partition("  #")[0].strip() for line in text.splitlines() if line.startswith("    python -m kdtune ")]
    ran = []
    for line in lines:
        if " ui" in line or "--follow" in line:
            continue
        command = line.replace("python", shlex.quote(sys.executable), 1)
        command += " --backend inprocess" if " sweep " in line else ""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        ran.append(line.split()[3])
        if "data init" in line:
            shortened(tmp_path / "mine.yaml")
    assert ran == ["data", "plan", "sweep", "sweep", "report", "results", "replay"]
    assert "SAME 1/1" in done.stdout
    assert (tmp_path / "runs" / "reports" / "videos" / "report.html").is_file()


def shortened(file: Path) -> None:
    """Rewrite the sweep file for a test: trials of two epochs, without pruning."""
    values = yaml.safe_load(file.read_text())
    values["trial"] |= {"epochs": 2, "stages": {"early": 1, "late": 2}}
    values["search"] |= {"candidates": 5, "seeds": [0, 1]}
    del values["prune"]
    file.write_text(yaml.safe_dump(values))
