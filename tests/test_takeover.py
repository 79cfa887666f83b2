"""A holder of a lock that is cut off, stopped or slow never overwrites what the next one writes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout
from fuzzing import fuzz, fuzzed
from hypothesis import strategies as st
from takeover import EPOCHS, Deliver, Machine, World, world

from kdtune.errors import LockLost, StoreError
from kdtune.store import lease

#: When the request at which the holder is cut off arrives: never, before the other machine takes over, between its
#: first look and its first write, or after it has completed the trial; and whether the answer arrives.
ARRIVALS = [(None, False)] + [(when, answer) for when in ("before", "between", "after") for answer in (False, True)]


def middle(holder: Machine) -> None:
    holder.train(2)
    holder.files.publish()


def end(holder: Machine) -> None:
    holder.complete()


def failure(holder: Machine) -> None:
    holder.train(2)
    holder.files.publish()
    holder.files.write_failure("out of luck")
    holder.files.publish()
    holder.files.clear_failure()
    holder.files.publish()


def disturbed(folder: Path, work: Callable[[Machine], None], at: int, arrives: str | None, answers: bool) -> bool:
    """Do `work` on a machine that is cut off at its request number `at` while another machine completes the trial.

    Return False if there is no such request.
    """
    with world(folder) as here:
        holder, other = here.machine("holder"), here.machine("other")
        with holder.held():
            holder.train(1)
            holder.files.publish()
        count = iter(range(1000))

        def network(_what: str, _key: str, deliver: Deliver) -> Any:
            if next(count) != at:
                return deliver()
            answer, error = None, None

            def arrive(now: str) -> None:
                nonlocal answer, error
                if now == arrives:
                    try:
                        answer = deliver()
                    except OSError as refusal:
                        error = refusal

            arrive("before")
            with other.held():  # waits until the holder's lock has expired
                arrive("between")
                other.complete()
            arrive("after")
            if not answers:
                raise ConnectionError("cut off")
            if error is not None:
                raise error
            return answer

        with holder.held():
            holder.network = network
            here.now += lease.EXPIRY_S / 2  # so that the lock is confirmed on the way
            try:
                work(holder)
                overtaken = False
            except LockLost:
                overtaken = True
            if next(count) <= at:
                return False
            assert overtaken
        assert here.state() == ([*range(1, EPOCHS + 1)], EPOCHS, True)
        # The loser's working copy is replaced when it next looks.
        with holder.held():
            assert [row["epoch"] for row in holder.files.rows()] == [*range(1, EPOCHS + 1)]
            assert holder.files.checkpoint.read_bytes() == str(EPOCHS).encode()
        return True


@pytest.mark.parametrize("work", [middle, end, failure])
def test_who_is_cut_off_at_any_request_overwrites_nothing(work: Callable[[Machine], None], tmp_path: Path) -> None:
    tried = at = 0
    while True:
        done = [
            disturbed(tmp_path / f"{at}-{i}", work, at, arrives, answers)
            for i, (arrives, answers) in enumerate(ARRIVALS)
        ]
        if not any(done):
            break
        tried, at = tried + len(done), at + 1
    print(f"{work.__name__}: {tried} of {tried}")
    assert tried >= 7 * len(ARRIVALS)


# ---- any order of events ---------------------------------------------------------------------------------------------

MACHINES = ("a", "b", "c")
EVENTS = st.one_of(
    st.tuples(
        st.sampled_from(["take", "train", "complete", "release", "cut", "mend", "stop", "crash"]),
        st.sampled_from(MACHINES),
    ),
    st.tuples(st.sampled_from(["wait", "arrive"]), st.integers(1, 100)),
)


class Driver:
    """Machines that follow a list of events. Requests of a machine that is cut off may arrive later, or never."""

    def __init__(self, here: World) -> None:
        self.here, self.late = here, list[Deliver]()
        self.machines = {name: here.machine(name) for name in MACHINES}
        self.cut, self.stopped = set[str](), set[str]()
        self.complete = False
        here.asleep = self.beat
        for machine in self.machines.values():
            self.connect(machine)

    def connect(self, machine: Machine) -> None:
        def network(_what: str, _key: str, deliver: Deliver) -> Any:
            if machine.name in self.cut:
                self.late.append(deliver)
                raise ConnectionError("cut off")
            return deliver()

        machine.network = network

    def beat(self) -> None:
        """Confirm, every few seconds, the locks of holders that can."""
        for machine in self.machines.values():
            held = machine.lease
            if held is not None and machine.name not in self.cut | self.stopped and int(self.here.now) % 5 == 0:
                held._confirm()

    def do(self, event: str, which: str | int) -> None:
        if event == "wait":
            return self.here.sleep(float(which))
        if event == "arrive":
            if self.late:
                with suppress(OSError):
                    self.late.pop(int(which) % len(self.late))()
            return None
        machine = self.machines[str(which)]
        if event in ("cut", "stop"):
            return (self.cut if event == "cut" else self.stopped).add(machine.name)
        if event == "mend":
            self.cut.discard(machine.name)
            return self.stopped.discard(machine.name)
        if machine.name in self.stopped:
            return None
        if event == "crash":
            return self.crash(machine)
        try:
            if event == "take" and machine.lease is None:
                machine.lock.acquire(blocking=False)
                machine.files.fetch(machine.files.checkpoint)
            elif machine.lease is not None and event == "train" and machine.files.result() is None:
                machine.train(min(EPOCHS, len(machine.files.rows()) + 1))
                machine.files.publish()
            elif machine.lease is not None and event == "complete":
                machine.complete()
            elif machine.lease is not None and event == "release":
                machine.lock.release()
        except (StoreError, Timeout):
            if machine.lease is not None:
                machine.lock.release()
        return None

    def crash(self, machine: Machine) -> None:
        """Kill a machine's process with what it holds; another one starts in the same working copy."""
        if machine.lease is not None:
            self.cut.add(machine.name)
            machine.lock.release()
            self.cut.discard(machine.name)
        machine = self.machines[machine.name] = self.here.machine(machine.name)
        self.connect(machine)

    def check(self) -> None:
        """Rows reach at least as far as the checkpoint, so that the trial can resume; a complete trial stays whole."""
        objects = self.here.server.objects
        rows = objects.get("bucket/x/trials/k/epochs.jsonl", b"").count(b"\n")
        at = int(objects.get("bucket/x/trials/k/checkpoint.pt", b"0"))
        complete = "bucket/x/trials/k/result.json" in objects
        assert complete or not self.complete
        assert rows >= at
        assert not complete or rows == at == EPOCHS
        self.complete = complete


def played(events: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as here:
        driver = Driver(here)
        for event, which in events:
            driver.do(event, which)
            driver.check()
        for machine in driver.machines.values():  # all is connected again, and a machine completes the trial
            driver.do("mend", machine.name)
        for machine in driver.machines.values():
            if machine.lease is not None:
                machine.lock.release()
        with driver.machines["c"].held():
            driver.machines["c"].complete()
        driver.check()
        assert here.state() == ([*range(1, EPOCHS + 1)], EPOCHS, True)


@fuzzed
def test_whatever_happens_to_machines_and_requests_a_trial_stays_whole(examples: int) -> None:
    fuzz(played, st.lists(EVENTS, max_size=30), examples=examples)
