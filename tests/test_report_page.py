"""A report's page, opened in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from browser import WIDTH, browser, missing, page_text
from fabricated import fabricate, sweep_of, usual_figure
from selenium.webdriver.common.by import By

from kdtune.api.reporting import make_report
from kdtune.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


def test_a_report_s_page_shows_its_answer_tables_and_plots_and_asks_nobody(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    fabricate(store, sweep_of(), usual_figure)
    page = make_report(store, "s")[0]
    with browser() as driver:
        driver.get(page.as_uri())
        text = page_text(driver)
        for words in ("Does a teacher help?", "the best candidate surely beats scratch", "surely better"):
            assert words in text
        plots = driver.execute_script(
            "return [...document.images].map(i => [i.naturalWidth, i.getBoundingClientRect().width, i.alt])"
        )
        assert len(plots) == 4
        assert all(drawn > 0 and 300 < shown <= WIDTH and said for drawn, shown, said in plots)
        tables = driver.execute_script("return [...document.querySelectorAll('table')].map(t => t.rows.length)")
        assert tables[:3] == [1 + 1 + 5, 1 + 1 + 5, 1 + 4]
        # Nothing is wider than the page except for tables, which scroll on their own.
        assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        link = driver.find_element(By.CSS_SELECTOR, "#block_0 tbody tr:nth-child(2) a")
        key = (link.get_attribute("href") or "").split("#trial-")[1]
        link.click()
        row = driver.find_element(By.CSS_SELECTOR, "tr:target")
        assert f"python -m kdtune replay {key[:12]}" in row.text
        asked = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert [url for url in asked if not url.startswith("data:")] == []
