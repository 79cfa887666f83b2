"""Which jobs a sweep has, and which of them may start: all of the search's order, and nothing of Ray (DESIGN 4.4, 4.5).

Within a block candidate n is asked as soon as all candidates ≤ n − window have ended. Teachers go first, for others
wait for them; then controls; then candidates by number. A ledger beside the sweep keeps what was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from kdtune.config.space import SHORT_NAMES, Scalar, flat_params, resolve
from kdtune.config.sweep import Block, SweepConfig, values_label
from kdtune.config.trial import TrialConfig
from kdtune.files import append_jsonl, read_jsonl
from kdtune.store import Store
from kdtune.sweep.job import Job, Kind, Outcome, outcome_in_store
from kdtune.sweep.prune import bar
from kdtune.sweep.search import Finished, ask

#: Gives a trial's key.
KeyOf = Callable[[TrialConfig], str]
#: Is told of every job's end, at once.
OnEnd = Callable[[Job, Outcome], object]
#: What goes first.
RANK: dict[Kind, int] = {"teacher": 0, "control": 1, "candidate": 2}


class Campaign:
    """The jobs of a sweep and their outcomes."""

    def __init__(self, sweep: SweepConfig, key_of: KeyOf, ledger: Path, on_end: OnEnd = lambda *_: None) -> None:
        self.sweep, self.key_of, self.ledger, self.on_end = sweep, key_of, ledger, on_end
        self.jobs: dict[str, Job] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.cached: set[str] = set()
        """Names of the jobs whose outcome was in the store."""
        self.notes: list[str] = []
        """For people: where the ledger and a fresh ask differ."""
        self._started: set[str] = set()
        self._teacher_of: dict[str, str] = {}  # key → job name
        self._blocks = [(block, sweep.candidates(block)) for block in sweep.blocks()]
        self._asked: dict[int, list[Job]] = {block.index: [] for block, _ in self._blocks}
        self._recorded = {row["job"]: row for row in read_jsonl(ledger) if row["event"] == "asked"}
        for block, _ in self._blocks:
            for i, control in enumerate(sweep.search.controls):
                for seed in sweep.search.seeds:
                    self._add("control", f"{block.label} · {_control_name(i, seed, sweep)}", block, i, (seed,), control)
        self._ask_more()

    # ---- what runs next ----------------------------------------------------------------------------------------------

    def next_job(self) -> Job | None:
        """The next job whose teachers are complete, or None if there is none now. It counts as started."""
        # A teacher and a control can be one trial: it is made once, and then looked up.
        in_work = {key for name in self._started - self.outcomes.keys() for key in self.jobs[name].keys}
        while True:
            waiting = [job for job in self.jobs.values() if job.name not in self._started | self.outcomes.keys()]
            lost = [job for job in waiting if any(out and out.state == "failed" for out in self._teachers(job))]
            for job in lost:  # their ends may let more candidates be asked
                errors = [out.error for out in self._teachers(job) if out and out.state == "failed"]
                self.finish(job, Outcome("failed", error=f"its teacher failed: {errors[0]}"), cached=False)
            if not lost:
                break
        # min() takes the first of equals: within a rank and number jobs stand in the order in which they were made.
        ready = [job for job in waiting if all(self._teachers(job)) and in_work.isdisjoint(job.keys)]
        if not ready:
            return None
        job = min(ready, key=lambda job: (RANK[job.kind], job.number or 0))
        self._started.add(job.name)
        return job

    def next_to_train(self, store: Store) -> Job | None:
        """The next job that `store` does not hold to its end, or None if there is none now; the others are finished."""
        while (job := self.next_job()) is not None:
            outcome = outcome_in_store(job, self.sweep.objective, store)
            if outcome is None:
                return job
            self.finish(job, outcome, cached=True)
        return None

    def _teachers(self, job: Job) -> list[Outcome | None]:
        return [self.outcomes.get(self._teacher_of[key]) for key in job.needs]

    @property
    def done(self) -> bool:
        return len(self.outcomes) == len(self.jobs)

    @property
    def total(self) -> int:
        """Jobs asked so far and those still to be asked."""
        others = sum(job.kind != "candidate" for job in self.jobs.values())
        return others + sum(candidates for _, candidates in self._blocks)

    def finish(self, job: Job, outcome: Outcome, cached: bool) -> None:
        """Take note of how `job` ended, and ask what may be asked now."""
        self.outcomes[job.name] = outcome
        if cached:
            self.cached.add(job.name)
        append_jsonl(self.ledger, {"event": "ended", "job": job.name, **asdict(outcome), "cached": cached})
        self.on_end(job, outcome)
        self._ask_more()

    # ---- asking ------------------------------------------------------------------------------------------------------

    def _ask_more(self) -> None:
        for block, candidates in self._blocks:
            asked = self._asked[block.index]
            while len(asked) < candidates:
                seen = self._history(block, len(asked))
                if seen is None:
                    break
                self._ask(block, len(asked), seen)

    def _history(self, block: Block, candidate: int) -> list[tuple[Job, Outcome]] | None:
        """The candidates that `candidate` learns from, in order, or None while one of them has not ended."""
        known = self._asked[block.index][: max(0, candidate - self.sweep.search.window + 1)]
        if any(job.name not in self.outcomes for job in known):
            return None
        return [(job, self.outcomes[job.name]) for job in known]

    def _ask(self, block: Block, candidate: int, seen: Sequence[tuple[Job, Outcome]]) -> None:
        epochs = self.sweep.trial.milestones
        history = [
            Finished(job.values, out.state, out.objective, {epochs[stage]: v for stage, v in out.stages.items()})
            for job, out in seen
        ]
        values = ask(self.sweep, block, candidate, history)
        name = f"{block.label} · candidate {candidate}"
        recorded = self._recorded[name]["values"] if name in self._recorded else values
        if recorded != values:
            # What was asked stays asked: its trials are there, and later candidates have learned from them.
            self.notes.append(f"{name}: the search would now ask {values}; kept: {recorded}")
            values = recorded
        bars = {}
        for stage in self.sweep.prune.at:
            peers = [out.stages[stage] for _, out in seen if stage in out.stages and out.state != "failed"]
            level = bar(peers, self.sweep.prune, self.sweep.objective.mode)
            if level is not None:
                bars[stage] = level
        job = self._add("candidate", name, block, candidate, tuple(self.sweep.search.seeds), values, bars)
        self._asked[block.index].append(job)

    def _add(
        self,
        kind: Kind,
        name: str,
        block: Block,
        number: int,
        seeds: tuple[int, ...],
        values: Mapping[str, Scalar],
        bars: Mapping[str, float] | None = None,
    ) -> Job:
        configs = tuple(self.sweep.build(block, values, seed) for seed in seeds)
        needs = tuple(dict.fromkeys(self._teacher(c, block, values) for c in configs if c.distils))
        keys = tuple(self.key_of(config) for config in configs)
        chosen = {**block.values, **values}
        # Beside the columns that every trial has, whatever else is searched or blocked on, under its name.
        others = {name: value for name, value in chosen.items() if resolve(name) not in SHORT_NAMES.values()}
        params = tuple({**flat_params(config, chosen.get("teacher")), **others} for config in configs)
        finetuned = tuple(self.key_of(c.finetuned) for c in configs if c.finetuned is not None)
        job = Job(kind, name, block, number, seeds, values, configs, keys, params, finetuned, needs, bars or {})
        self._remember(job)
        return job

    def _remember(self, job: Job) -> None:
        self.jobs[job.name] = job
        row = {
            "event": "asked",
            "job": job.name,
            "kind": job.kind,
            "block": job.block.label if job.block else None,
            "number": job.number,
            "values": dict(job.values),
            "seeds": list(job.seeds),
            "keys": list(job.keys),
            "finetuned": list(job.finetuned),
            "params": list(job.params),
        }
        if self._recorded.get(job.name) != row:
            append_jsonl(self.ledger, row)

    def _teacher(self, config: TrialConfig, block: Block, values: Mapping[str, Scalar]) -> str:
        """The key of the trial's teacher; its job is made where it is first needed."""
        assert config.teacher is not None
        key = self.key_of(config.teacher)
        if key not in self._teacher_of:
            # Named by content, not by who asks first: one teacher is another trial on another block's data.
            chosen = {**block.values, **values}
            teacher = str(chosen["teacher"])
            links = self.sweep.chain(teacher)
            where = {p: v for p, v in chosen.items() if any(self.sweep.follows(link, p) for link in links)}
            name = f"teacher {teacher} {values_label(where)}".rstrip()
            self._teacher_of[key] = name
            params = (flat_params(config.teacher),)
            self._remember(
                Job("teacher", name, None, None, (config.teacher.seed,), {}, (config.teacher,), (key,), params)
            )
        return key


def _control_name(index: int, seed: int, sweep: SweepConfig) -> str:
    name = "control" if len(sweep.search.controls) == 1 else f"control {index}"
    return name if len(sweep.search.seeds) == 1 else f"{name} seed {seed}"
