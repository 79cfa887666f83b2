"""Fuzzing: few examples in every run, many in the slow tests. A call that hangs fails."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy, tuples

#: Processor time of a call, in seconds, above which it counts as hanging. A busy machine does not matter.
HANGS_S = 5
#: Number of examples in every run, and in the slow tests.
FEW, MANY = 50, int(os.environ.get("KDTUNE_FUZZ", "10000"))


def _fuzzed(many: int) -> pytest.MarkDecorator:
    """Parametrize a test with `examples`, the number of examples."""
    return pytest.mark.parametrize(
        "examples", [pytest.param(FEW, id="few"), pytest.param(many, id="many", marks=[pytest.mark.slow])]
    )


fuzzed = _fuzzed(MANY)
#: For tests whose examples are files on the disk: each takes some 30 ms, and on a busy machine three times as long.
fuzzed_on_disk = _fuzzed(MANY // 5)


def fuzz(check: Callable[..., None], *strategies: SearchStrategy[Any], examples: int) -> None:
    """Call `check` with `examples` values drawn from `strategies`. Runs with few examples always draw the same."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples <= FEW,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(tuples(*strategies))  # a single argument, because Hypothesis does not support `*drawn`
    def run(drawn: tuple[Any, ...]) -> None:
        with no_hang():
            check(*drawn)

    run()


@contextmanager
def no_hang(seconds: float = HANGS_S) -> Iterator[None]:
    """Fail if the block uses more than `seconds` of this process's processor time (main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hung(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"used more than {seconds} s of the processor")

    before = signal.signal(signal.SIGPROF, hung)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
