"""Interrupts that Python itself would swallow are handled all the same, and not printed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import pytest
from helpers import run_python

from kdtune.commands.interrupts import Interrupts


class Finalised:
    """Calls `do` when it is garbage-collected; Python can only print what that raises."""

    def __init__(self, do: Callable[[], object]) -> None:
        self.do = do

    def __del__(self) -> None:
        self.do()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupt_that_python_swallows_is_heard_and_not_printed(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[type[BaseException]] = []

    def hook(swallowed: sys.UnraisableHookArgs) -> None:
        printed.append(swallowed.exc_type)

    monkeypatch.setattr(sys, "unraisablehook", hook)
    with Interrupts() as interrupts:
        Finalised(lambda: signal.raise_signal(number))
        assert interrupts.asked
        Finalised(lambda: 1 / 0)
    assert printed == [ZeroDivisionError], "other errors are printed as ever"
    assert sys.unraisablehook is hook


def test_a_patient_one_notes_the_first_signal_and_raises_at_the_second() -> None:
    with Interrupts() as interrupts, interrupts.patient():
        signal.raise_signal(signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


LOST = """
import signal, time
from kdtune import cli
from kdtune.commands import process

class Finalised:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

process.prepare([])
try:
    Finalised()
    while True:
        time.sleep(60)
except BaseException as error:
    raise SystemExit(process.end(error, "runs"))
"""


def test_an_interrupt_that_is_lost_ends_any_command() -> None:
    done = run_python(LOST, check=False)
    assert (done.returncode, done.stderr) == (130, "kdtune: interrupted; run the same command again to resume\n")
