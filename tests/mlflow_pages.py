"""MLflow's own pages on a sweep, as people open them: what the browser tests look at, and the picture in the README.

    python tests/mlflow_pages.py --uri sqlite:///mlflow/mlflow.db --sweep lambda_tau --out build/screenshots

starts `kdtune ui`, opens each page in a headless Chromium, waits until it shows what it must, and saves it as a PNG.
docs/mlflow.png is its charts.png of the quick start.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from browser import browser, missing, page_text
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.ui import WebDriverWait
from servers import WAIT_S, free_port, served

PARENT = "mlflow.parentRunId"


@dataclass
class Seen:
    """Texts and pictures by page: table, runs, charts, compare, trial, metrics, artifacts."""

    folder: Path
    texts: dict[str, str] = field(default_factory=dict)
    axes: dict[str, set[str]] = field(default_factory=dict)

    def keep(self, driver: Chrome, name: str) -> None:
        self.texts[name] = page_text(driver)
        self.axes[name] = axes(driver)
        driver.save_screenshot(str(self.folder / f"{name}.png"))


def call(address: str, path: str, **query: str | list[str]) -> dict:
    """Return the response of MLflow's REST API to a GET (without body) or, for a search, a POST."""
    url = f"{address}/api/2.0/mlflow/{path}"
    if path.endswith("search"):
        request = urllib.request.Request(url, json.dumps(query).encode(), {"Content-Type": "application/json"})
    else:
        request = urllib.request.Request(f"{url}?{urllib.parse.urlencode(query)}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def tags(run: dict) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


def comparable(run: dict, params: Sequence[str], metric: str) -> bool:
    """Return whether every axis of the chart has a value for this run.

    A control has no lambda and no tau, which would turn their axes into lists of words. A pruned run has no late
    accuracy, and MLflow draws it at the axis' upper end, as if it were the best.
    """
    values = {param["key"]: param["value"] for param in run["data"].get("params", [])}
    measured = {entry["key"] for entry in run["data"].get("metrics", [])}
    return metric in measured and all(values.get(name, "none") != "none" for name in params)


def axes(driver: Chrome) -> set[str]:
    """Return the titles of the axes of the parallel-coordinates charts that are drawn."""
    found = driver.find_elements(By.CSS_SELECTOR, ".parcoords .axis-title, .parcoords .label")
    return {element.text for element in found if element.text}


class Pages:
    """One browser on one MLflow. Each method returns when its page shows what it must."""

    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver, self.address = driver, address
        self.wait = WebDriverWait(driver, WAIT_S)
        # MLflow asks once, over every page, whether this experiment is for a language model. It is not.
        driver.get(f"{address}/health")
        asked = {
            "mlflow.workflowType_v1": "machine_learning",
            "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
            "mlflow.assistant.panelOpen_v1": False,
        }
        for name, value in asked.items():
            driver.execute_script("localStorage.setItem(arguments[0], arguments[1])", name, json.dumps(value))

    def open(self, page: str, texts: Sequence[str]) -> None:
        """Open `page` and wait for the texts."""
        self.driver.get("about:blank")  # otherwise a new #fragment would not load the page
        self.driver.get(page if page.startswith("http") else f"{self.address}/#/{page}")
        self.shows(texts)

    def shows(self, texts: Sequence[str]) -> None:
        self.wait.until(lambda driver: all(text in page_text(driver) for text in texts), f"{texts}")

    def click(self, xpath: str) -> None:
        self.wait.until(element_to_be_clickable((By.XPATH, xpath)), xpath).click()

    def compare(self, experiment_id: str, run_ids: Sequence[str], params: Sequence[str], metric: str) -> None:
        """Open the comparison of these runs, with parallel coordinates of these params and metric."""
        query = urllib.parse.urlencode(
            {"runs": json.dumps(list(run_ids)), "experiments": json.dumps([experiment_id])},
            quote_via=urllib.parse.quote,
        )
        self.open(f"compare-runs?{query}", [f"Comparing {len(run_ids)} Runs"])
        self.click("//button[normalize-space()='Clear All']")
        fields = self.driver.find_elements(By.CSS_SELECTOR, "input[id^=dubois-select]")
        for box, names in zip(fields, (params, [metric]), strict=True):
            for name in names:
                box.send_keys(name)
                found = f"[@title='{name}' or normalize-space()='{name}']"
                self.click(f"//div[contains(@class, 'select-item-option')]{found}")
            box.send_keys(Keys.ESCAPE)
        self.wait.until(lambda driver: axes(driver) == {*params, metric})


def look(uri: str, sweep: str, params: Sequence[str], metric: str, folder: Path) -> Seen:
    """Open every page of the sweep, as `kdtune ui` serves them."""
    folder.mkdir(parents=True, exist_ok=True)
    seen, port = Seen(folder), free_port()
    with tempfile.TemporaryFile() as log, served(uri, port, log) as address, browser() as driver:
        log.seek(0)
        said = log.read().decode()
        (link,) = [line.split()[1] for line in said.splitlines() if line.strip().startswith(f"{sweep}: http")]
        experiment = link.split("/experiments/")[1].split("/")[0]
        runs = call(address, "runs/search", experiment_ids=[experiment])["runs"]
        (parent,) = [run for run in runs if tags(run).get("kdtune.sweep") == sweep]
        children = [run for run in runs if tags(run).get(PARENT) == parent["info"]["run_id"]]
        try:
            _look(Pages(driver, address), seen, link, experiment, parent, children, params, metric)
        except TimeoutException:
            seen.keep(driver, "failed")
            raise
    return seen


def _look(
    pages: Pages,
    seen: Seen,
    link: str,
    experiment: str,
    parent: dict,
    children: Sequence[dict],
    params: Sequence[str],
    metric: str,
) -> None:
    names = [run["info"]["run_name"] for run in children if tags(run)["kdtune.kind"] != "teacher"]
    compared = [run for run in children if comparable(run, params, metric)]
    best = max(compared, key=lambda run: {entry["key"]: entry["value"] for entry in run["data"]["metrics"]}[metric])
    stage, *series = metric.split("/")
    points = sum(entry["key"].endswith("/" + "/".join(series)) for entry in best["data"]["metrics"])
    driver = pages.driver
    named = call(pages.address, "experiments/get", experiment_id=experiment)["experiment"]["name"]
    pages.open("experiments", [named])
    seen.keep(driver, "experiments")
    # The table as it opens by default: the sweep and, one click away, its trials below it.
    pages.open(f"experiments/{experiment}/runs", [parent["info"]["run_name"]])
    name = parent["info"]["run_name"]
    pages.click(f"//*[@role='gridcell'][.//a[normalize-space()='{name}']]//button")
    pages.shows(names)
    seen.keep(driver, "table")
    # The view that kdtune saves with the experiment; nothing was clicked.
    pages.open(link, [*names, *params, "late"])
    seen.keep(driver, "ranking")
    pages.open(f"{link}&compareRunsMode=CHART", ["Parallel Coordinates"])
    pages.wait.until(lambda page: axes(page) >= {*params})
    seen.keep(driver, "charts")
    pages.compare(experiment, [run["info"]["run_id"] for run in compared], params, metric)
    seen.keep(driver, "compare")
    run = f"experiments/{experiment}/runs/{best['info']['run_id']}"
    pages.open(run, [best["info"]["run_name"], *params])
    seen.keep(driver, "trial")
    pages.open(f"{run}/model-metrics", [stage])
    # The search box takes a regular expression: select the curve over the stages, without each stage's own point.
    driver.find_element(By.CSS_SELECTOR, "input[placeholder='Search metric charts']").send_keys("^" + "/".join(series))
    pages.wait.until(lambda page: len(page.find_elements(By.CSS_SELECTOR, ".scatterlayer .point")) == points)
    seen.keep(driver, "metrics")
    pages.open(f"{run}/artifacts", ["config.json"])
    pages.click("//*[normalize-space(text())='config.json']")
    pages.shows(['"seed"'])
    seen.keep(driver, "artifacts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uri", required=True, help="MLflow's database, e.g. sqlite:///mlflow/mlflow.db")
    parser.add_argument("--sweep", required=True)
    parser.add_argument("--params", nargs="+", default=["teacher", "lambda", "tau"])
    parser.add_argument("--metric", default="late/validation/knn")
    parser.add_argument("--out", type=Path, default=Path("build/screenshots"), help="a folder for the PNG files")
    chosen = parser.parse_args()
    if (reason := missing()) is not None:
        sys.exit(reason)
    seen = look(chosen.uri, chosen.sweep, chosen.params, chosen.metric, chosen.out)
    for name in seen.texts:
        print(chosen.out / f"{name}.png")


if __name__ == "__main__":
    main()
