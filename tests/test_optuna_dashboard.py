"""Optuna's own pages on the journal that a sweep leaves: it is an ordinary study file."""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.request
from pathlib import Path

import optuna
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from browser import browser, missing, page_text
from helpers import ROOT, sweep_of
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from schedulers import drive
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from servers import DEFAULT_HOST, WAIT_S, free_port, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(
        importlib.util.find_spec("optuna_dashboard") is None, reason="optuna-dashboard is not installed"
    ),
]
SHOTS = ROOT / "build" / "screenshots"


def importance_bars(driver: Chrome) -> list[str]:
    """Return the parameters in the importance chart that is drawn, the least important first."""
    card = "//*[contains(@class, 'MuiCard')][.//*[contains(text(), 'Hyperparameter Importance')]]"
    labels = driver.find_elements(By.XPATH, f"{card}//*[local-name()='g'][@class='ytick']")
    return [label.text for label in labels]


def test_it_shows_the_studies_what_mattered_and_what_was_pruned(tmp_path: Path) -> None:
    sweep, ledger = sweep_of(), tmp_path / "study.jsonl"
    drive(sweep, ledger, at_once=2)
    journal = ledger.with_suffix(".log")
    before = journal.read_bytes()
    storage = JournalStorage(JournalFileBackend(str(journal)))
    studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
    assert len(studies) == len(sweep.blocks())
    study = studies[0]
    states = [trial.state.name for trial in study.trials]
    assert states.count("PRUNED") > 0
    assert states.count("COMPLETE") > 1

    SHOTS.mkdir(parents=True, exist_ok=True)
    port = free_port()
    address = f"http://{DEFAULT_HOST}:{port}"
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), str(journal), "--port", str(port)]
    with running(command, address, "/api/studies"), browser() as driver:
        wait = WebDriverWait(driver, WAIT_S)
        with urllib.request.urlopen(f"{address}/api/studies", timeout=30) as answer:
            ids = {found["study_name"]: found["study_id"] for found in json.load(answer)["study_summaries"]}
        assert set(ids) == {study.study_name for study in studies}

        driver.get(f"{address}/dashboard")
        wait.until(lambda page: all(study.study_name in page_text(page) for study in studies))
        driver.save_screenshot(str(SHOTS / "optuna_studies.png"))

        driver.get(f"{address}/dashboard/studies/{ids[study.study_name]}")
        wait.until(lambda page: set(importance_bars(page)) == set(sweep.search.space))
        driver.save_screenshot(str(SHOTS / "optuna_importance.png"))

        driver.get(f"{address}/dashboard/studies/{ids[study.study_name]}/trials")
        wait.until(lambda page: f"Trial {len(states) - 1}" in page_text(page) and "Pruned" in page_text(page))
        driver.save_screenshot(str(SHOTS / "optuna_trials.png"))
        assert page_text(driver).count("Pruned") >= states.count("PRUNED")
    assert journal.read_bytes() == before  # looking changes nothing
