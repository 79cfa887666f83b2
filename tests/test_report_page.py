"""A report's page in a real browser: it shows its figures without asking anybody, and answers who points at them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from browser import browser, missing, page_text
from fabricated import fabricate, sweep_of, usual_figure
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By

from kdtune.api.reporting import make_report
from kdtune.store import StoreFiles

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]
#: Each tries to leave its place in the page, and to run a script.
SCRIPT = "document.title = 'stolen'"
ATTACK = f'</p></title></script><script>{SCRIPT}</script><img src=x onerror="{SCRIPT}">'
TEACHER = "<b>\"r'"
WIDE, NARROW = 1200, 400


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = StoreFiles(tmp_path_factory.mktemp("page") / "runs")
    teachers = {"c3d": {"student": {"backbone": "c3d"}}, TEACHER: {"student": {"backbone": "r21d"}}}
    trial = {"epochs": 8, "stages": {"early": 2, "mid": 6, "late": 8}, "finetune": {"epochs": 4}}
    space = {"teacher": [*teachers], "lambda": {"log": [0.05, 5.0]}, "tau": {"range": [1.0, 8.0]}}
    search = {"candidates": 24, "space": space}
    fabricate(store, sweep_of(search, question=ATTACK, teachers=teachers, trial=trial), usual_figure)
    return make_report(store, "s")[0]


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with browser() as driver:
        yield driver


def opened(driver: Chrome, page: Path, width: int, script: bool = True) -> Chrome:
    """Open the page in a window of this width, with scripts or without."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    driver.get("about:blank")
    driver.get(page.as_uri())
    return driver


@pytest.mark.parametrize(("width", "script"), [(WIDE, True), (WIDE, False), (NARROW, True)])
def test_the_page_shows_its_answer_tables_and_plots_and_asks_nobody(
    driver: Chrome, page: Path, width: int, script: bool
) -> None:
    opened(driver, page, width, script)
    text = page_text(driver)
    for words in (
        ATTACK,
        "the best candidate is better than scratch",
        "corrected for 48 comparisons",  # two blocks of 24 candidates
        "After fine-tuning",
        TEACHER,
    ):
        assert words in text
    assert driver.title == "kdtune report: s"
    plots = driver.execute_script(
        "return [...document.querySelectorAll('.plot svg')].map(p => [p.getBoundingClientRect().width, p.ariaLabel])"
    )
    assert len(plots) == 5
    assert all(shown >= 600 and said for shown, said in plots), "letters would be too small to read"
    tables = driver.execute_script("return [...document.querySelectorAll('table')].map(t => t.rows.length)")
    assert tables[:2] == [1 + 20, 1 + 5]
    # Nothing is wider than the page except for tables and plots, which scroll on their own.
    assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    asked = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [url for url in asked if not url.startswith("data:")] == []
    titles = driver.execute_script("return document.querySelectorAll('#parallel g > title').length")
    assert titles == (0 if script else 2 * 24), "without the script the browser shows a trial's values itself"
    link = driver.find_element(By.CSS_SELECTOR, "#block_0 tbody tr:nth-child(2) a")
    key = (link.get_attribute("href") or "").split("#trial-")[1]
    driver.get(f"{page.as_uri()}#trial-{key}")
    assert f"python -m kdtune replay {key[:12]}" in driver.find_element(By.CSS_SELECTOR, "tr:target").text


def column(driver: Chrome, table: str, place: int) -> list[str]:
    cells = driver.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr td:nth-child({place})")
    return [cell.get_attribute("textContent") or "" for cell in cells]


def test_a_click_on_a_head_sorts_the_table(driver: Chrome, page: Path) -> None:
    opened(driver, page, WIDE)
    heads = [head.text for head in driver.find_elements(By.CSS_SELECTOR, "#block_0 thead th")]
    place = heads.index("gain (points)") + 1
    before = column(driver, "block_0", place)
    assert len(before) == 1 + 24, "the tail is part of the table"
    shown = []
    for _ in range(3):
        driver.find_element(By.CSS_SELECTOR, f"#block_0 thead th:nth-child({place}) button").click()
        shown.append(column(driver, "block_0", place))
    figures = [[float(text.replace("−", "-")) for text in texts if text] for texts in shown]
    assert figures[0] == sorted(figures[0], reverse=True)
    assert figures[1] == sorted(figures[1])
    assert shown[0][-1] == shown[1][-1] == "", "what has no figure stands last"
    assert shown[2] == before
    driver.find_element(By.CSS_SELECTOR, "#block_0 thead th:nth-child(1) button").click()
    assert column(driver, "block_0", 1) == [*map(str, range(24)), "control"]


def test_a_trial_says_its_values_and_a_click_marks_it_everywhere(driver: Chrome, page: Path) -> None:
    opened(driver, page, WIDE)
    line = driver.find_elements(By.CSS_SELECTOR, "#parallel g.mark")[-1]  # drawn last: nothing covers it
    # A point on the line; the middle of its box need not be one.
    at = driver.execute_script(
        """
        const path = arguments[0].querySelector("path");
        path.closest("figure").scrollIntoView();
        const at = path.getPointAtLength(path.getTotalLength() / 3).matrixTransform(path.getScreenCTM());
        return [Math.round(at.x), Math.round(at.y)];
        """,
        line,
    )
    pointer = ActionChains(driver)
    pointer.w3c_actions.pointer_action.move_to_location(*at)
    pointer.perform()
    tip = driver.find_element(By.ID, "tip")
    assert "k-NN accuracy on validation: early" in tip.text
    ActionChains(driver).click().perform()
    assert "pinned" in (tip.get_attribute("class") or "")
    on = "[...document.querySelectorAll('.on')]"
    marked = driver.execute_script(f"return {on}.map(e => [e.closest('figure').id, e.tagName])")
    assert {("parallel", "g"), ("stages", "g"), ("lambda_tau", "g"), ("trials", "TR")} <= {(a, b) for a, b in marked}
    keys = driver.execute_script(f"return {on}.flatMap(e => e.dataset.keys.split(' '))")
    assert len(set(keys)) == 3, "one trial per seed"
    faint = "return getComputedStyle(document.querySelector('#parallel g.mark:not(.on)')).opacity"
    assert float(driver.execute_script(faint)) < 0.5
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    assert driver.find_elements(By.CSS_SELECTOR, ".on") == []
    assert float(driver.execute_script(faint)) == 1
