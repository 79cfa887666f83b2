"""MLflow's own pages, started as `python -m kdtune ui` does, and a report's, looked at in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from browser import WIDTH, browser, missing, page_text, picture
from fabricated import fabricate
from selenium.webdriver.common.by import By
from test_report import figure, sweep_of
from test_tracking import EXPERIMENT, SWEEP, make_trial, publish

from kdtune.commands.report import make_report
from kdtune.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


def test_the_pages_show_the_sweep_and_compare_its_trials(tmp_path: Path) -> None:
    store, uri = Store(tmp_path / "runs"), f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    trials = [make_trial(store, number, "complete", 4) for number in (1, 2, 3)]
    trials = [*trials, make_trial(store, 4, "pruned", 2)]
    assert publish(uri, tmp_path, trials) == []
    shown: list[str] = []
    # `picture` itself waits for the runs' names in the table and for the axes of the chart.
    files = picture(uri, EXPERIMENT, ["lambda"], "late/validation/knn", tmp_path / "mlflow.png", seen=shown)
    table, comparison = shown
    for text in (EXPERIMENT, SWEEP, *(trial.name for trial in trials), "late/validation/k"):
        assert text in table
    assert "Comparing 3 Runs" in comparison  # The pruned one has no late accuracy.
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")


def test_a_report_s_page_shows_its_answer_tables_and_plots_and_asks_nobody(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    fabricate(store, sweep_of(), figure)
    page = make_report(store, "s")[0]
    with browser() as driver:
        driver.get(page.as_uri())
        text = page_text(driver)
        for words in ("Does a teacher help?", "does the best candidate surely beat scratch", "surely better"):
            assert words in text
        plots = driver.execute_script(
            "return [...document.images].map(i => [i.naturalWidth, i.getBoundingClientRect().width, i.alt])"
        )
        assert len(plots) == 4
        assert all(drawn > 0 and 300 < shown <= WIDTH and said for drawn, shown, said in plots)
        tables = driver.execute_script("return [...document.querySelectorAll('table')].map(t => t.rows.length)")
        assert tables[:3] == [1 + 1 + 5, 1 + 1 + 5, 1 + 4]
        # Nothing is wider than the page but tables, which scroll by themselves.
        assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        link = driver.find_element(By.CSS_SELECTOR, "#block_0 tbody tr:nth-child(2) a")
        key = (link.get_attribute("href") or "").split("#trial-")[1]
        link.click()
        row = driver.find_element(By.CSS_SELECTOR, "tr:target")
        assert f"python -m kdtune replay {key[:12]}" in row.text
        asked = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert [url for url in asked if not url.startswith("data:")] == []
