"""Set up the process of a command (streams, arguments, hooks), and map each exception to its exit code."""

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

from kdtune.commands.say import say
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

#: If set to 1, an exception that is a bug is raised instead of reported in one line.
DEBUG = "KDTUNE_DEBUG"
#: Seconds after which a lost interrupt is sent again.
AGAIN_S = 0.1


def prepare(arguments: Sequence[str]) -> None:
    """Prepare the process: open streams that accept any text, show messages, and remember secrets."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a replacement by another program may lack it
            stream.reconfigure(errors="backslashreplace")
    show_messages()
    remember_environment()
    _redact_libraries()
    for argument in arguments:
        SecretUrl(argument.partition("=")[2] if argument.startswith("-") else argument)


def _redact_libraries() -> None:
    """Remove secrets from the logs of libraries and from the tracebacks of threads."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, _Redacted):
        logging.setLogRecordFactory(_Redacted(make))
        threading.excepthook = _ended_thread
    sys.unraisablehook = _swallowed


class _Redacted:
    """Makes log records without secrets."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **more: Any) -> logging.LogRecord:
        record = self._make(*arguments, **more)
        with suppress(Exception):  # the handler that formats the record reports its error
            record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = redact("".join(traceback.format_exception(record.exc_info[1])).rstrip())
        return record


def _swallowed(found: sys.UnraisableHookArgs) -> None:
    """Send an interrupt again that came in a destructor or a weak reference's callback, where Python drops it.

    Other exceptions there are ignored: the failure that caused them has been reported.
    """
    if isinstance(found.exc_value, KeyboardInterrupt):
        # Signal the process, not the thread: only that ends a sleep of the main thread.
        threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)).start()
    elif os.environ.get(DEBUG) == "1":
        sys.__unraisablehook__(found)


def _ended_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
        print(redact("".join(traceback.format_exception(arguments.exc_value))), file=sys.stderr, end="")


def _open_streams() -> None:
    """Open /dev/null for each standard stream with which the process was started closed.

    Otherwise the stream is None, and the first file opened gets its descriptor: a child's output would go into it.
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
    """Raise UserError for arguments that cannot name a file, and for a missing working directory."""
    problems = []
    for argument in arguments:
        try:
            if b"\0" in os.fsencode(argument):
                problems.append(Problem("argument", f"holds a NUL, got {argument!r}", "text without it"))
        except UnicodeEncodeError:
            problems.append(Problem("argument", f"is not text that this system can encode, got {argument!r}"))
    try:
        os.getcwd()
    except OSError as error:
        problems.append(Problem("working directory", f"cannot be used: {error.strerror}", "an existing folder"))
    if problems:
        raise UserError(problems)


# ---- endings ---------------------------------------------------------------------------------------------------------


def flush() -> None:
    """Raise OSError now for output that cannot be written, not when the interpreter ends."""
    sys.stdout.flush()


def end(error: BaseException, store: str) -> int:
    """Report `error` to the user and return the exit code. Raises it again if it is a bug and KDTUNE_DEBUG is 1.

    `store` is the value of `--store`.
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
        case BrokenPipeError():  # the reader closed the pipe
            _drop(sys.stdout)
            return EXIT_OK
        case OSError():
            return _end_of_place(error, store)
        case MemoryError():
            _say("this machine has too little memory for this command")
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
    else:  # for example from a connection: its cause is unknown
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
    except OSError:  # no folder for temporary files: print it, so that it is not lost
        print(trace, file=sys.stderr)
    return EXIT_FAILED_TRIALS


def _say(text: str) -> None:
    with suppress(OSError):  # stderr is closed
        say(f"kdtune: {redact(text)}")


def _works(stream: TextIO) -> bool:
    """Write an empty line to the stream; return whether it accepts it."""
    try:
        stream.write("\n")
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _drop(stream: TextIO) -> None:
    """Redirect the stream to /dev/null, with what is still buffered: the interpreter flushes it when it ends."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
