"""How tests fuzz: few examples in every run, many in the slow ones; a call that hangs fails."""

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

#: A call that uses more processor time than this, in seconds, hangs. A busy machine changes nothing.
HANGS_S = 5
#: Examples in every run, and in the slow ones.
FEW, MANY = 50, int(os.environ.get("KDTUNE_FUZZ", "10000"))

#: Parametrizes a test with `examples`, the number of examples.
fuzzed = pytest.mark.parametrize(
    "examples", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=[pytest.mark.slow])]
)


def fuzz(check: Callable[..., None], *strategies: SearchStrategy[Any], examples: int) -> None:
    """Call `check` with `examples` values drawn from `strategies`; the same ones in each run of few."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples <= FEW,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(tuples(*strategies))  # one argument, for Hypothesis has no place for `*drawn`
    def run(drawn: tuple[Any, ...]) -> None:
        with no_hang():
            check(*drawn)

    run()


@contextmanager
def no_hang(seconds: float = HANGS_S) -> Iterator[None]:
    """Fail where the block uses more than `seconds` of this process's processor time (main thread only)."""
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
