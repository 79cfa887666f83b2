"""DESIGN 4.9: history, `results`, `report`, MLflow and `status` say the same of a sweep."""

from __future__ import annotations

import csv
import html
import json
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from fabricated import FORM, fabricate, sweep_of, usual_figure
from helpers import sweep_results
from schedulers import key_of
from watched import left_by_driver

import kdtune
from kdtune.api.reporting import make_report
from kdtune.cli import main
from kdtune.config.key import digest
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_OK
from kdtune.history.reading import read_history
from kdtune.history.sweep import SweepHistory
from kdtune.store import StoreFiles
from kdtune.store.files import append_jsonl
from kdtune.sweep.group import TrialGroup
from kdtune.tracking.ending import SweepEnding
from kdtune.tracking.record import metric_name
from kdtune.watch.status import show_status, status

pytestmark = pytest.mark.usefixtures("empty_plots")

#: Of a sweep whose trials all cost as much: the third candidate's is far better than the control's.
LOSS = {"metric": "pretext_loss", "mode": "min"}
GMAC = {"metric": "gmac", "mode": "min"}


def of_width(group: TrialGroup, i: int, epoch: int) -> float:
    return 0.2 + 0.05 * epoch + 0.001 * group.configs[i].student.width


def with_changed_data(config: TrialConfig) -> str:
    """The key of a trial whose videos are others."""
    return digest(["changed", key_of(config)])


def usual(store: StoreFiles) -> None:
    fabricate(store, sweep_of(), usual_figure)


def min_objective(store: StoreFiles) -> None:
    fabricate(store, sweep_of(objective=LOSS), usual_figure)


def cost(store: StoreFiles) -> None:
    space = {"student.width": {"int_log": [4, 64]}, "teacher": ["none", "c3d"]}
    search = {"space": space, "controls": [{"teacher": "none", "student.width": 16}]}
    fabricate(store, sweep_of(search, objective=GMAC, prune={}), of_width)


def two_objectives(store: StoreFiles) -> None:
    space = {"student.width": {"int_log": [4, 64]}, "teacher": ["none", "c3d"]}
    fabricate(store, sweep_of({"space": space}, objective=[GMAC, {"metric": "knn"}], prune={}), of_width)


def promoted(store: StoreFiles) -> None:
    """Candidate 3 is pruned, and promoted at the end, as the later ones are worse."""

    def figure(group: TrialGroup, i: int, epoch: int) -> float | None:
        value = usual_figure(group, i, epoch)
        weak = group.kind == "candidate" and (group.asked.number or 0) > 3 and epoch == 2
        return value if value is None or not weak else value - 0.1

    prune = {"at": ["early"], "keep": 0.5, "min_peers": 2, "promote": True}
    scheduler = fabricate(store, sweep_of({"candidates": 8}, prune=prune), figure)
    assert all(block.candidates[3].promoted for block in scheduler.history.blocks.values())


def killed_and_asked_again(store: StoreFiles) -> None:
    """Its videos have changed since it was complete, and its driver was killed half way. One trial has begun."""
    fabricate(store, sweep_of(refit=True), usual_figure)
    scheduler = fabricate(store, sweep_of(refit=True), usual_figure, ends=10, keys=with_changed_data)
    begun = scheduler.next_to_train(store)
    assert begun is not None
    store.trial(begun.asked.keys[0]).folder.mkdir(parents=True)
    append_jsonl(store.trial(begun.asked.keys[0]).epochs, {"epoch": 1, "seconds": 2.0, "at": 1.0e9})
    left_by_driver(store.sweep("s"))


RACE = {"seeds": {"race": {"first": 2, "most": 5}}}


def raced(store: StoreFiles) -> None:
    fabricate(store, sweep_of(RACE), usual_figure)


def raced_and_killed(store: StoreFiles) -> None:
    """Its driver was killed between two looks: one candidate has a further seed that no look has seen."""
    scheduler = fabricate(store, sweep_of(RACE), usual_figure, ends=0)
    while not any(group.kind == "further" and group.state == "complete" for group in scheduler.history.groups.values()):
        scheduler = fabricate(store, sweep_of(RACE), usual_figure, ends=1)
    left_by_driver(store.sweep("s"))


SWEEPS = [usual, promoted, min_objective, cost, two_objectives, killed_and_asked_again, raced, raced_and_killed]


@pytest.fixture(params=SWEEPS, ids=lambda make: make.__name__)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreFiles:
    make: Callable[[StoreFiles], None] = request.param
    monkeypatch.setattr("kdtune.report.write.drawn", lambda *_: [])  # plots take seconds
    store = StoreFiles(tmp_path / "runs")
    make(store)
    return store


def rows_of(markdown: str) -> dict[str, list[str]]:
    """First cell → the others, of the first table."""
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]
    heads = lines.index(lines[0])
    count = next((i for i, line in enumerate(lines[1:], 1) if line[0] == "block"), len(lines))
    return {line[0]: line[1:] for line in lines[heads + 2 : count]}


def test_all_readers_say_the_same(store: StoreFiles, capsys: pytest.CaptureFixture[str]) -> None:
    history = read_history(store, "s")
    results, found = sweep_results(store, "s"), status(store, "s")
    assert main(["results", "s", "--format", "csv", "--store", str(store.root)]) == EXIT_OK
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    page = make_report(store, "s")[0].read_text()
    ending = SweepEnding(store, history)
    result = ending.result()

    # ---- the answer --------------------------------------------------------------------------------------------------
    answer = kdtune.open_sweep("s", store=store.root).answer
    assert (results["answer"], found["answer"]) == (answer, answer)
    for command in ("results", "status"):
        assert main([command, "s", "--store", str(store.root)]) == EXIT_OK
        assert capsys.readouterr().out.split("\n\n")[-1].split() == answer.split()
    assert f"<p class=answer>{html.escape(answer, quote=False)}</p>" in page
    assert result.text.startswith(f"{answer}\n\n")

    summary, tracked = rows_of(result.text), {trial.key: trial for trial in ending.trials()}
    several = len(history.objectives) > 1
    assert history.total == found["total"]
    assert history.done == found["done"]
    for i, (label, block) in enumerate(history.blocks.items()):
        shown = found["blocks"][i]
        reported = list(csv.DictReader((store.report("s") / "tables" / f"block_{i}.csv").read_text().splitlines()))
        numbers, leader = [group.asked.number for group in block.best], block.leader
        gain = None if leader is None else block.gain(leader)

        # ---- the best ------------------------------------------------------------------------------------------------
        best: Any = results["best"][label]
        assert numbers == ([trial["candidate"] for trial in best] if several else [best["candidate"]] if best else [])
        if several:
            assert (shown["best"] or {"candidates": []})["candidates"] == numbers
            assert {int(row["trial"]) for row in reported if row["state"].endswith("Pareto set")} == set(numbers)
            assert f"- {label}: {', '.join(f'candidate {n}' for n in numbers)}" in result.text
        elif leader is not None:
            assert (shown["best"]["candidate"], shown["best"]["objective"]) == (leader.number, leader.objective())
        if leader is None or gain is None:
            assert summary[label][1:] == ["none is complete", "–", "–", "–"]
            assert shown["best"] is None
            continue

        # ---- its gain ------------------------------------------------------------------------------------------------
        words = history.metric.gain_text(gain.mean)
        assert summary[label][2] == words
        prefix = f"best/{label}" if len(history.blocks) > 1 else "best"
        assert result.metrics[metric_name(f"{prefix}/gain")] == gain.mean
        assert f"candidate {leader.number} (" in summary[label][1]
        row = next(row for row in reported if row["trial"] == str(leader.number))
        assert float(row[history.metric.gain_head]) == gain.mean
        assert [row["interval"], row["verdict"]] == summary[label][3:5]
        assert words in page
        if not several:
            assert shown["best"]["gain"] == gain.mean
            trials = [t for t in results["trials"] if t["block"] == label]
            base = {t["seed"]: t["objective"] for t in trials if t["control"]}
            own = {t["seed"]: t["objective"] for t in trials if t["candidate"] == leader.number}
            own = {seed: own[seed] for seed in leader.values()}  # a race's next look will add the others
            gains = [history.metric.gain(value, base[seed]) for seed, value in own.items()]
            assert list(gain.differences) == gains

    # ---- states ------------------------------------------------------------------------------------------------------
    assert states_of(history) == Counter((t["block"], t["state"]) for t in results["trials"] if t["seed"] == 0)
    assert [row["state"] for row in table if not row.get("refits")] == [t["state"] for t in results["trials"]]
    for block in found["blocks"]:
        counted = Counter(g.state for g in history.groups.values() if g.asked.block == block["block"])
        counted["pending"] += history.blocks[block["block"]].unasked
        assert {state: block[state] for state in counted} == dict(counted)
    for trial in results["trials"]:
        assert (trial["state"] == "pending") == (trial["key"] not in tracked)
        assert trial["state"] == "pending" or tracked[trial["key"]].state == trial["state"]
        assert f"trial-{trial['key']}" in page
    shown_as_text = StringIO()
    show_status(store, "s", shown_as_text)
    # ---- the race ----------------------------------------------------------------------------------------------------
    for label, block in history.blocks.items() if history.record.race is not None else ():
        assert block.race is not None
        words = f"race: {block.race.words()}"
        assert next(b for b in found["blocks"] if b["block"] == label)["race"]["words"] == block.race.words()
        assert f"{label}: {words}" in result.text
        assert history.race_words in result.text
        assert history.race_words in page
        assert block.race.words() in shown_as_text.getvalue()
        assert block.race.last is not None
        for number in block.race.looks[0].candidates:
            own = [tracked[key] for key in block.candidates[number].trials.values()]
            assert {trial.tags["kdtune.kind"] for trial in own} == {"candidate"}
            assert {trial.objective for trial in own} == {block.candidates[number].objective()}
        dropped = {t["candidate"]: t["dropped"] for t in results["trials"] if t["block"] == label and "dropped" in t}
        assert dropped == block.race.dropped
        for number, look in dropped.items():
            row = next(row for row in table if row["block"] == label and row["candidate"] == str(number))
            assert row["dropped"] == str(look)
            i = list(history.blocks).index(label)
            reported = list(csv.DictReader((store.report("s") / "tables" / f"block_{i}.csv").read_text().splitlines()))
            shown = next(row["state"] for row in reported if row["trial"] == str(number))
            assert shown == f"complete, dropped at look {look}"

    candidates = Counter(group.state for group in history.groups.values() if group.kind == "candidate")
    counted = result.text.split("Candidates: ")[1]
    assert all(f"{count} {state}" in counted for state, count in candidates.items())


def states_of(history: SweepHistory) -> Counter[tuple[str | None, str]]:
    """(block, state) of the groups whose first seed is 0."""
    return Counter((group.asked.block, group.state) for group in history.in_order() if group.asked.seeds[0] == 0)


def test_what_is_asked_again_is_pending_and_nothing_old_is_shown(tmp_path: Path) -> None:
    store = StoreFiles(tmp_path / "runs")
    killed_and_asked_again(store)
    history = read_history(store, "s")
    states = Counter((group.kind, group.state) for group in history.groups.values())
    assert states["control", "complete"] == 6
    assert states["candidate", "complete"] + states["candidate", "pruned"] == 2
    assert states["candidate", "running"] == 1
    assert states["candidate", "pending"] >= 1
    assert {kind for kind, _ in states} == {"teacher", "control", "candidate"}, "refits of other trials are gone"
    known = {with_changed_data(c) for s in (sweep_of(refit=True),) for b in s.blocks() for c in _controls(s, b)}
    assert {key for g in history.groups.values() if g.kind == "control" for key in g.keys} == known
    found = status(store, "s")
    assert (found["state"], found["driver"]["host"]) == ("died", "box")
    assert "not ended" in make_report(store, "s")[0].read_text()
    # The run that resumes comes to a whole sweep again.
    fabricate(store, sweep_of(refit=True), usual_figure, keys=with_changed_data)
    whole = read_history(store, "s")
    assert whole.complete
    assert status(store, "s")["state"] == "complete"
    # The videos are as they were: everything is found, and so it is told.
    fabricate(store, sweep_of(refit=True), usual_figure)
    again = read_history(store, "s")
    assert again.complete
    assert {g.cached for g in again.groups.values() if g.kind == "candidate"} == {True}
    json.dumps(sweep_results(store, "s"), allow_nan=False)


def _controls(sweep: Any, block: Any) -> list[TrialConfig]:
    return [sweep.build(block, sweep.search.controls[0], seed) for seed in FORM["search"]["seeds"]]
