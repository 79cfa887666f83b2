"""The process of a command: its streams, its arguments, and how each exception ends it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TextIO

from kdtune.errors import (
    EXIT_FAILED_TRIALS,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USER_ERROR,
    Problem,
    TrialError,
    UserError,
)
from kdtune.messages import show_messages
from kdtune.parse import printable
from kdtune.store.files import disk_full, disk_full_words
from kdtune.urls import SecretUrl, redact, remember_environment

#: Set to 1, an exception that is a bug is raised instead of being told in a line.
DEBUG = "KDTUNE_DEBUG"
#: Seconds after which an interrupt that was lost is sent again.
AGAIN_S = 0.1


def prepare(arguments: Sequence[str]) -> None:
    """Make the process fit for any command: open streams that take any text, shown messages, and known secrets."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a stream that a program put in its place need not
            stream.reconfigure(errors="backslashreplace")
    show_messages()
    remember_environment()
    _redact_libraries()
    for argument in arguments:
        SecretUrl(argument.partition("=")[2] if argument.startswith("-") else argument)


def _redact_libraries() -> None:
    """Take secrets out of what libraries log, and of what a thread says that ends with an exception."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, _Redacted):
        logging.setLogRecordFactory(_Redacted(make))
        threading.excepthook = _ended_thread
    sys.unraisablehook = _swallowed


class _Redacted:
    """Makes log records whose texts have no secrets."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **more: Any) -> logging.LogRecord:
        record = self._make(*arguments, **more)
        with suppress(Exception):  # whoever formats the record says what is wrong with it
            record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = redact("".join(traceback.format_exception(record.exc_info[1])).rstrip())
        return record


def _swallowed(found: sys.UnraisableHookArgs) -> None:
    """Send an interrupt again that came in a destructor or a weak reference's callback, where Python drops it.

    What else fails there concerns nobody: the failure that led there has been told.
    """
    if isinstance(found.exc_value, KeyboardInterrupt):
        # To the process, not from the thread to itself: only so does a signal end the main thread's sleep.
        threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)).start()
    elif os.environ.get(DEBUG) == "1":
        sys.__unraisablehook__(found)


def _ended_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
        print(redact("".join(traceback.format_exception(arguments.exc_value))), file=sys.stderr, end="")


def _open_streams() -> None:
    """Give a process that was started with a closed stream an empty one.

    Else Python has None there, and the first file that is opened gets the stream's number: what a child prints would
    go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.fstat(number)
                continue
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise UserError for arguments that no file can be named by, and where the working directory is gone."""
    problems = []
    for argument in arguments:
        try:
            if b"\0" in os.fsencode(argument):
                problems.append(Problem("argument", f"holds a NUL, got {argument!r}", "text without it"))
        except UnicodeEncodeError:
            problems.append(Problem("argument", f"is no text that this system can encode, got {argument!r}"))
    try:
        os.getcwd()
    except OSError as error:
        problems.append(Problem("working directory", f"cannot be used: {error.strerror}", "a folder that is there"))
    if problems:
        raise UserError(problems)


# ---- endings ---------------------------------------------------------------------------------------------------------


def flush() -> None:
    """Raise OSError now for output that cannot be written, rather than when the interpreter ends."""
    sys.stdout.flush()


def end(error: BaseException, store: str) -> int:
    """Tell the user what `error` means, and return the exit code. Raises it again where it is a bug and DEBUG is set.

    `store` is what `--store` names.
    """
    match error:
        case UserError():
            count = len(error.problems)
            _say(f"{count} problem{'s' if count != 1 else ''}\n{error}")
            return EXIT_USER_ERROR
        case TrialError():
            _say(f"the trial failed: {error}")
            return EXIT_FAILED_TRIALS
        case KeyboardInterrupt():
            _say("interrupted; run the same command again to resume")
            return EXIT_INTERRUPTED
        case BrokenPipeError():  # the reader of a pipe has seen enough
            _drop(sys.stdout)
            return EXIT_OK
        case OSError():
            return _end_of_place(error, store)
        case MemoryError():
            _say("this machine has too little memory for it")
            return EXIT_USER_ERROR
        case _:
            return _end_of_bug(error)


def _end_of_place(error: OSError, store: str) -> int:
    if error.filename is None and not _works(sys.stdout):
        _drop(sys.stdout)
        _say(f"the output cannot be written: {error.strerror}")
    elif disk_full(error):
        _say(f"{disk_full_words(error)}; free some space (--store {SecretUrl(store)})")
    elif error.filename is not None and error.strerror:
        _say(f"{printable(os.fsdecode(str(error.filename)))}: {error.strerror}")
    else:  # of a connection, say: where it came from is not plain
        return _end_of_bug(error)
    return EXIT_USER_ERROR


def _end_of_bug(error: BaseException) -> int:
    if os.environ.get(DEBUG) == "1":
        raise error
    text = printable(redact(str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"))
    _say(f"this is a bug: {type(error).__name__}: {text}")
    trace = redact("".join(traceback.format_exception(error)))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="kdtune-bug-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(trace)
        print(f"  where it happened: {file.name}", file=sys.stderr)
    except OSError:  # no folder for temporary files: nothing may get lost
        print(trace, file=sys.stderr)
    return EXIT_FAILED_TRIALS


def _say(text: str) -> None:
    with suppress(OSError):  # nobody hears
        print(f"kdtune: {redact(text)}", file=sys.stderr, flush=True)


def _works(stream: TextIO) -> bool:
    """Whether the stream takes a line. What did not go out before is lost, so nothing is said by trying."""
    try:
        stream.write("\n")
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _drop(stream: TextIO) -> None:
    """Let what is left in the stream, and whatever follows, go nowhere: the interpreter flushes it at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
