"""`report`: what its page says of sweeps with known figures, and that it claims no more than they show."""

from __future__ import annotations

import csv
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import pytest
from fabricated import VIDEOS, Figure, fabricate, finish, sweep_of, usual_figure
from helpers import ROOT, run_python, sweep_results
from scipy import stats

from kdtune.api.reporting import make_report
from kdtune.cli import main
from kdtune.config.load import load_sweep
from kdtune.config.sweep import SweepConfig
from kdtune.errors import EXIT_USER_ERROR, StoreError
from kdtune.history.reading import read_history
from kdtune.history.record import SweepRecord, read_record
from kdtune.report.stops import chosen_stops
from kdtune.store import StoreFiles
from kdtune.store.files import read_json, write_json
from kdtune.sweep.group import TrialGroup
from kdtune.sweep.importance import importances

#: Fixtures of a module are made before: `made` has real plots.
pytestmark = pytest.mark.usefixtures("empty_plots")


def reported(
    tmp_path: Path, sweep: SweepConfig, at: Figure = usual_figure, ends: int | None = None
) -> tuple[StoreFiles, str]:
    """Return the store and the page of a fabricated sweep."""
    store = StoreFiles(tmp_path / "runs")
    fabricate(store, sweep, at, ends)
    return store, make_report(store, sweep.name)[0].read_text()


def table(store: StoreFiles, name: str, sweep: str = "s") -> list[dict[str, str]]:
    return list(csv.DictReader((store.report(sweep) / "tables" / f"{name}.csv").read_text().splitlines()))


def answer(page: str) -> str:
    found = re.search(r"<p class=answer>(.*?)</p>", page)
    assert found is not None
    return found[1]


class Links(HTMLParser):
    """The links and resources of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.targets += [found[name] or "" for name in ("href", "src", "srcset", "action") if name in found]
        self.ids += [found["id"] or ""] if "id" in found else []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoreFiles, str]:
    return reported(tmp_path_factory.mktemp("report"), sweep_of())


def test_gains_are_paired_by_seed_with_intervals_for_all_comparisons(made: tuple[StoreFiles, str]) -> None:
    store, _ = made
    trials = sweep_results(store, "s")["trials"]
    control = {t["seed"]: t["objective"] for t in trials if t["control"] and t["block"] == "fraction=1.0"}
    rows = {row["trial"]: row for row in table(store, "block_0")}
    candidates = [t for t in trials if t["candidate"] is not None and t["seed"] == 0]
    assert {t["state"] for t in candidates} == {"complete", "pruned"}
    for number in (0, 1, 2):
        own = [t for t in trials if t["candidate"] == number and t["block"] == "fraction=1.0"]
        differences = [t["objective"] - control[t["seed"]] for t in own]
        row = rows[str(number)]
        assert float(row["gain (points)"]) == pytest.approx(100 * fmean(differences))
        ends = stats.ttest_1samp(differences, 0).confidence_interval(1 - 0.05 / len(candidates))
        assert row["interval"] == f"{100 * ends.low:+.1f} … {100 * ends.high:+.1f}".replace("-", "−")
        assert row["verdict"] == ("better" if number == 1 else "not decided")
        assert row["keys"].split() == [t["key"] for t in own]
    assert rows["3"]["state"] == "pruned at early"


def test_the_answer_claims_what_is_decided_and_no_more(made: tuple[StoreFiles, str]) -> None:
    said = answer(made[1])
    assert said.startswith("In 1 of 2 blocks the best candidate is better than scratch in k-NN accuracy on validation")
    assert "(95 % CI, corrected for 10 comparisons)" in said
    assert "fraction=1.0: candidate 1 (" in said
    assert ") is better, +10.0 points (" in said
    assert "The data do not decide whether candidate" in made[1], "of the other block"
    assert "too high on average" in made[1], "the largest of many is biased"


def test_test_figures_are_apart_and_of_the_chosen_candidates_alone(made: tuple[StoreFiles, str]) -> None:
    store, _ = made
    rows = table(store, "test")
    assert [row["block"] for row in rows] == ["fraction=1.0", "fraction=1.0", "fraction=0.25", "fraction=0.25"]
    assert rows[1]["trial"].startswith("candidate 1 (")
    late = 0.2 + 0.05 * 8 + 0.03
    assert float(rows[0]["k-NN accuracy on test"]) == pytest.approx(late - 0.01)
    ends = stats.ttest_1samp([0.105, 0.095, 0.1], 0).confidence_interval(1 - 0.05 / 2)
    assert rows[1]["interval"] == f"{100 * ends.low:+.1f} … {100 * ends.high:+.1f}".replace("-", "−")


def test_every_figure_leads_to_its_trial_and_nothing_to_another_host(made: tuple[StoreFiles, str]) -> None:
    store, page = made
    links = Links(page)
    outside = [target for target in links.targets if not target.startswith(("#", "data:"))]
    assert outside == []
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert "@import" not in page
    assert len(links.ids) == len(set(links.ids))
    assert {target[1:] for target in links.targets if target.startswith("#")} <= set(links.ids)
    for trial in sweep_results(store, "s")["trials"]:
        assert f"trial-{trial['key']}" in links.ids
        assert f"python -m kdtune replay {trial['key'][:12]}" in page


def test_tables_and_plots_are_files_in_every_form(made: tuple[StoreFiles, str]) -> None:
    folder = made[0].report("s")
    for name in ("block_0", "block_1", "test", "convergence", "trials", "profiles"):
        for form in ("csv", "md", "tex"):
            assert (folder / "tables" / f"{name}.{form}").stat().st_size > 0
    latex = (folder / "tables" / "block_0.tex").read_text()
    assert r"\toprule" in latex
    assert all(ord(sign) < 128 for line in latex.splitlines() if not line.startswith("%") for sign in line)
    for name in ("gains", "stages", "lambda_tau", "parallel"):
        assert (folder / "plots" / f"{name}.svg").read_bytes().startswith(b"<?xml")
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"plots/{name}.svg" in (folder / "report.md").read_text()


def test_the_same_records_give_the_same_bytes(made: tuple[StoreFiles, str], tmp_path: Path) -> None:
    """In another process with another hash seed, and into another folder."""
    store, _ = made
    code = (
        "from pathlib import Path\nfrom kdtune.store import StoreFiles\nfrom kdtune.api.reporting import make_report\n"
    )
    run_python(code + f"make_report(StoreFiles({str(store.root)!r}), 's', Path({str(tmp_path)!r}))", hash_seed=1)
    here = store.report("s")
    files = sorted(path.relative_to(here) for path in here.rglob("*") if path.is_file())
    assert len(files) > 20
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [path for path in files if (here / path).read_bytes() != (tmp_path / path).read_bytes()] == []


def test_teachers_recipe_and_dates_are_on_the_page(made: tuple[StoreFiles, str]) -> None:
    store, page = made
    assert [row["k-NN on validation"] for row in table(store, "teachers")] == ["0.6", "0.6"]
    assert [trial["candidate"] for trial in sweep_results(store, "s")["teachers"]] == [None, None]
    assert "trained from 2001-09-09 01:46 UTC to 2001-09-09 01:46 UTC" in page
    settings = {row["setting"]: row["value"] for row in table(store, "settings")}
    assert settings["stages"] == "early 2, mid 6, late 8"
    assert settings["searched: lambda"] == "0.05 … 5, log-uniform"
    assert {"epochs", "optimizer.batch", "optimizer.lr", "clip.frames", "clip.size"} <= settings.keys()


def test_fine_tuning_is_shown_with_top_1_and_the_confusion_of_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = {"epochs": 8, "stages": {"early": 2, "late": 8}, "finetune": {"epochs": 4}}
    sweep = sweep_of({"blocks": {}, "candidates": 2}, trial=trial, prune={})
    store, page = reported(tmp_path, sweep)
    assert 'id="confusion"' not in page
    rows = table(store, "finetuned")
    assert [row["trial"][:11] for row in rows] == ["control", "candidate 1", "candidate 0"]
    assert float(rows[1]["gain (points)"]) == pytest.approx(10)
    assert (rows[1]["top-1 on test"] != "", rows[2]["top-1 on test"]) == (True, "")
    figures = {"actions": ["<b>Run</b>", "Fall"], "confusion": [[3, 1], [0, 4]]}
    damaged = {"actions": ["Run"], "confusion": [[1, 2]]}
    tuned = [key for group in read_history(store, "s").groups.values() for key in group.asked.finetuned]
    for i, key in enumerate(tuned):
        write_json(store.trial(key).classes("finetune"), {"test": damaged if i == 0 else figures})
    page = make_report(store, "s")[0].read_text()
    assert 'id="confusion"' in page
    assert "<b>Run" not in page
    assert "confusion must have a row and a column for each action" in caplog.text


def test_convergence_by_hand(tmp_path: Path) -> None:
    """The control ends at 0.6. Candidate 0 reaches it at epoch 6 with each seed, candidate 1 at 2 with one of three."""

    def curve(group: TrialGroup, i: int, epoch: int) -> float:
        if group.kind != "candidate":
            return 0.2 + 0.05 * epoch
        return {0: {2: 0.5, 6: 0.6, 8: 0.55}, 1: {2: 0.7 if i == 0 else 0.1, 6: 0.2, 8: 0.3}}[group.asked.number or 0][
            epoch
        ]

    sweep = sweep_of({"blocks": {}, "candidates": 2}, prune={})
    store, page = reported(tmp_path, sweep, curve)
    rows = [list(row.values())[2:5] for row in table(store, "convergence")]
    assert rows == [["3 of 3", "8.0", "0.0"], ["3 of 3", "6.0", "0.25"], ["1 of 3", "2.0", ""]]
    assert "1 of 2 candidates reach the control's final k-NN accuracy" in html.unescape(page)


def test_what_pruning_saved_and_what_a_finished_stop_shows(tmp_path: Path) -> None:
    sweep = sweep_of({"blocks": {}})
    store, page = reported(tmp_path, sweep)
    assert "2 of 5 ended candidates were pruned: 36 epochs were not trained, 30%" in page  # 2 · 3 seeds · 6 of 8 epochs
    assert "The cost is not known" in page
    history = read_history(store, "s")
    first = [name for name, _ in chosen_stops(history, 1)]
    assert [name for name, _ in chosen_stops(history, 2)][:1] == first, "a larger count adds to a smaller"
    scheduler = fabricate(store, sweep, usual_figure)
    pruned = next(group for group in scheduler.groups.values() if group.kind == "candidate" and group.asked.number == 3)
    finish(store, sweep, pruned, lambda group, i, epoch: 0.9)  # a wrong stop: better than all
    page = make_report(store, "s")[0].read_text()
    assert "So 1 of 1 stops were wrong" in page
    (row,) = table(store, "stops")
    best = 0.2 + 0.4 + 0.03 + 0.1
    assert float(row["less the best (points)"]) == pytest.approx(100 * (0.9 - best))
    assert float(row["less the control (points)"]) == pytest.approx(100 * (0.9 - best + 0.1))
    states = {t["candidate"]: t["state"] for t in sweep_results(store, "s")["trials"]}
    assert states[3] == "pruned", "here it stays what it was"


@pytest.mark.parametrize("ends", [0, 1, 4, 9])
def test_an_unfinished_sweep_is_reported_as_one(tmp_path: Path, ends: int) -> None:
    _, page = reported(tmp_path, sweep_of(), ends=ends)
    assert "This sweep is not finished" in page
    assert "candidates not asked" in page
    assert answer(page).startswith("No answer yet: the control is" if ends < 4 else "No answer yet") or ends > 4


def test_a_block_without_a_complete_candidate_gives_no_answer(tmp_path: Path) -> None:
    def fails(group: TrialGroup, i: int, epoch: int) -> float | None:
        return None if group.kind == "candidate" else 0.5

    _, page = reported(tmp_path, sweep_of(), fails)
    assert answer(page) == "No answer yet: no candidate is complete in fraction=1.0, fraction=0.25."
    assert "failed: the loss is not finite" in page


def test_one_seed_rests_on_its_videos_and_says_so(tmp_path: Path) -> None:
    store, page = reported(tmp_path, sweep_of({"seeds": [0], "blocks": {}}))
    assert answer(page).startswith("The data do not decide whether candidate 1 (")
    assert f"over {VIDEOS['validation']} videos, one seed" in answer(page)
    for path in store.root.glob("trials/*/data.json"):  # an earlier version did not record it
        path.unlink()
    assert "no interval: one seed has no spread" in answer(make_report(store, "s")[0].read_text())


def test_an_objective_on_test_leaves_no_untouched_figure(tmp_path: Path) -> None:
    store, page = reported(tmp_path, sweep_of(objective={"metric": "knn", "split": "test"}))
    assert "no untouched figure is left" in page
    assert not (store.report("s") / "tables" / "test.csv").exists()


def test_several_objectives_and_controls(tmp_path: Path) -> None:
    search = {
        "space": {"teacher": ["none", "c3d"], "student.width": {"int_log": [4, 64]}},
        "controls": [{"teacher": "none"}, {"teacher": "none", "student.width": 16}],
        "blocks": {},
    }
    objectives = [{"metric": "pretext_loss", "mode": "min"}, {"metric": "gmac", "mode": "min"}]
    store, page = reported(tmp_path, sweep_of(search, objective=objectives, prune={}))
    rows = table(store, "block_0")
    assert [row["trial"] for row in rows[:2]] == ["control 0", "control 1"]
    assert "gain (nats)" in rows[0]
    best = {t["candidate"] for t in sweep_results(store, "s")["best"]["all"]}
    assert {int(row["trial"]) for row in rows[2:] if row["state"].endswith("Pareto set")} == best
    assert (store.report("s") / "plots" / "pareto.svg").exists()
    assert 'id="pareto"' in page


def test_importance_is_of_what_matters(tmp_path: Path) -> None:
    def by_tau(group: TrialGroup, i: int, epoch: int) -> float:
        return 0.3 + 0.05 * group.configs[0].loss.tau if group.configs[0].distils else 0.3

    sweep = sweep_of({"candidates": 40, "blocks": {}, "seeds": [0]}, prune={})
    store, page = reported(tmp_path, sweep, by_tau)
    shares = importances(store.sweep("s"), read_record(store, "s"))["all"]
    assert next(iter(shares)) == "tau"
    assert sum(shares.values()) == pytest.approx(1)
    assert 'id="importance"' in page
    files = store.sweep("s")
    files.study(files.ledger(sweep.ledger)).unlink()
    assert importances(store.sweep("s"), read_record(store, "s")) == {}


def test_what_cannot_be_reported_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = reported(tmp_path, sweep_of(prune={}))
    assert main(["report", "other", "--store", str(store.root)]) == EXIT_USER_ERROR
    assert "holds no sweep named 'other' (allowed: s)" in capsys.readouterr().err
    assert main(["report", "s", "--regret", "2", "--store", str(store.root)]) == EXIT_USER_ERROR
    assert "this sweep has none yet" in capsys.readouterr().err
    record = read_json(store.sweep("s").sweep)
    write_json(store.sweep("s").sweep, {name: value for name, value in record.items() if name != "config"})
    with pytest.raises(StoreError, match="run the sweep again"):
        make_report(store, "s")


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "sweeps").glob("*.yaml")))
def test_a_sweep_s_record_gives_the_sweep_again(file: str) -> None:
    sweep = load_sweep(ROOT / "sweeps" / file, ["search.seeds=[0,5]"])
    again = SweepRecord.of(sweep, "ledger_x.jsonl", "", {}).sweep()
    assert again == sweep
    assert again.ledger == sweep.ledger
    for block in sweep.blocks():
        control = sweep.search.controls[0]
        assert again.build(block, control, 5) == sweep.build(block, control, 5)
