"""MLflow's own pages in a headless Chromium: what the browser tests look at, and the picture in the README.

    python tests/browser.py --uri sqlite:///mlflow/mlflow.db --experiment lambda_tau --out docs/mlflow.png

Needs chromium and chromedriver (Debian: chromium, chromium-driver) and selenium from PyPI.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.ui import WebDriverWait

from kdtune.tracking.location import DEFAULT_HOST, SERVER_SETTINGS, ui_command

WIDTH, HEIGHT = 1600, 1000
WAIT_S = 90
PARENT = "mlflow.parentRunId"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def missing() -> str | None:
    """Why no browser can be started here, or None."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not found" if absent else None


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((DEFAULT_HOST, 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Ask until the condition holds.

    Raises:
        TimeoutError: it did not, within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s: {what}")
        time.sleep(0.05)


@contextmanager
def served(uri: str, port: int) -> Iterator[str]:
    """MLflow's server, as `python -m kdtune ui` starts it, for as long as the block runs; gives its address."""
    address = f"http://{DEFAULT_HOST}:{port}"
    with tempfile.TemporaryFile() as log:
        # A session of its own: the server's helpers are ended with it.
        server = subprocess.Popen(
            ui_command(uri, port=port),
            env={**SERVER_SETTINGS, **os.environ},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

        def answers() -> bool:
            if server.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"MLflow's server ended: {log.read().decode()[-2000:]}")
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False

        try:
            wait_until(answers, "MLflow's server answers")
            yield address
        finally:
            end(server)


def end(server: subprocess.Popen[bytes]) -> None:
    """End the server with everything it started, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def browser() -> Iterator[Chrome]:
    """A headless Chromium with a profile of its own."""
    with tempfile.TemporaryDirectory() as profile:
        options = ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}"):
            options.add_argument(flag)
        driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
        try:
            # The window's size is the outer one; the picture is the page's.
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False},
            )
            yield driver
        finally:
            driver.quit()


def call(address: str, path: str, **query: str | list[str]) -> dict:
    """The answer of MLflow's REST interface to a GET (no body) or, for a search, a POST."""
    url = f"{address}/api/2.0/mlflow/{path}"
    if path.endswith("search"):
        request = urllib.request.Request(url, json.dumps(query).encode(), {"Content-Type": "application/json"})
    else:
        request = urllib.request.Request(f"{url}?{urllib.parse.urlencode(query)}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def runs_of(address: str, experiment: str) -> tuple[str, list[dict]]:
    """The experiment's id and its runs, the sweep's own run included."""
    found = call(address, "experiments/get-by-name", experiment_name=experiment)["experiment"]["experiment_id"]
    return found, call(address, "runs/search", experiment_ids=[found]).get("runs", [])


def page_text(driver: Chrome) -> str:
    return str(driver.execute_script("return document.body.innerText"))


def prepare(driver: Chrome, address: str, experiment_id: str, parent_id: str, columns: Sequence[str]) -> None:
    """What a user has clicked once: model training, no assistant, the sweep unfolded, these columns of the table."""
    driver.get(f"{address}/health")
    page = f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment_id}"]-ReactComponentState'
    stored = {
        "mlflow.workflowType_v1": "machine_learning",
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
        "mlflow.assistant.panelOpen_v1": False,
        page: {"selectedColumns": list(columns), "runsExpanded": {parent_id: True}},
    }
    for name, value in stored.items():
        driver.execute_script("localStorage.setItem(arguments[0], arguments[1])", name, json.dumps(value))


def show_runs(driver: Chrome, address: str, experiment_id: str, texts: Sequence[str]) -> None:
    """Open the table of runs and wait until it shows these texts."""
    driver.get(f"{address}/#/experiments/{experiment_id}/runs")
    WebDriverWait(driver, WAIT_S).until(lambda page: all(text in page_text(page) for text in texts))


def show_parallel(
    driver: Chrome, address: str, experiment_id: str, run_ids: Sequence[str], params: Sequence[str], metric: str
) -> None:
    """Open the comparison of these runs and wait until parallel coordinates of these params and metric are drawn."""
    query = urllib.parse.urlencode(
        {"runs": json.dumps(list(run_ids)), "experiments": json.dumps([experiment_id])}, quote_via=urllib.parse.quote
    )
    driver.get(f"{address}/#/compare-runs?{query}")
    wait = WebDriverWait(driver, WAIT_S)
    clear = wait.until(element_to_be_clickable((By.XPATH, "//button[normalize-space()='Clear All']")))
    clear.click()
    fields = driver.find_elements(By.CSS_SELECTOR, "input[id^=dubois-select]")
    for field, names in zip(fields, (params, [metric]), strict=True):
        for name in names:
            field.send_keys(name)
            option = f"//div[contains(@class, 'select-item-option')][@title='{name}' or normalize-space()='{name}']"
            wait.until(element_to_be_clickable((By.XPATH, option))).click()
        field.send_keys(Keys.ESCAPE)
    wait.until(lambda page: axes(page) == {*params, metric})


def axes(driver: Chrome) -> set[str]:
    """Titles of the axes of the parallel-coordinates chart that is drawn."""
    return {element.text for element in driver.find_elements(By.CSS_SELECTOR, ".parcoords .axis-title")}


def picture(
    uri: str, experiment: str, params: Sequence[str], metric: str, out: Path, seen: list[str] | None = None
) -> list[Path]:
    """Save two PNG files, the table of runs and, as `out`, the comparison; gives their paths.

    The text of both pages is added to `seen`.
    """
    texts = [] if seen is None else seen
    with served(uri, free_port()) as address, browser() as driver:
        experiment_id, runs = runs_of(address, experiment)
        children = [run for run in runs if PARENT in tags(run)]
        parent_id = tags(children[0])[PARENT]
        compared = [run["info"]["run_id"] for run in children if comparable(run, params, metric)]
        columns = [f"params.`{name}`" for name in params] + [f"metrics.`{metric}`", "metrics.`objective`"]
        prepare(driver, address, experiment_id, parent_id, columns)
        table = out.with_name(f"{out.stem}_runs{out.suffix}")
        out.parent.mkdir(parents=True, exist_ok=True)
        show_runs(driver, address, experiment_id, [children[0]["info"]["run_name"], "objective"])
        driver.save_screenshot(str(table))
        texts.append(page_text(driver))
        show_parallel(driver, address, experiment_id, compared, params, metric)
        driver.save_screenshot(str(out))
        texts.append(page_text(driver))
    return [table, out]


def tags(run: dict) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


def comparable(run: dict, params: Sequence[str], metric: str) -> bool:
    """Whether every axis of the chart has a value for this run.

    A control has no lambda and no tau, which would turn their axes into lists of words; a pruned run has no late
    accuracy, and MLflow draws it at the axis' upper end, as if it were the best.
    """
    values = {param["key"]: param["value"] for param in run["data"].get("params", [])}
    measured = {entry["key"] for entry in run["data"].get("metrics", [])}
    return metric in measured and all(values.get(name, "none") != "none" for name in params)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uri", required=True, help="MLflow's database, e.g. sqlite:///mlflow/mlflow.db")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--params", nargs="+", default=["teacher", "lambda", "tau"])
    parser.add_argument("--metric", default="late/validation/knn")
    parser.add_argument("--out", type=Path, required=True, help="the comparison's PNG; the table's gets _runs")
    chosen = parser.parse_args()
    if (reason := missing()) is not None:
        sys.exit(reason)
    for path in picture(chosen.uri, chosen.experiment, chosen.params, chosen.metric, chosen.out):
        print(path)


if __name__ == "__main__":
    main()
