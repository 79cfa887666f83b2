"""A command whose text is UTF-8, whatever the locale: names of files, and what its own processes read and write."""

from __future__ import annotations

import os
import sys

#: Python's own switch, which processes below inherit: Ray's workers, MLflow's server.
UTF8_MODE = "PYTHONUTF8"


def start_in_utf8_mode() -> None:
    """Start this command again in Python's UTF-8 mode where the locale has another encoding.

    There Python would decode the names of videos by the locale: other names, so another manifest and other keys than
    everywhere else. What is printed keeps the locale's encoding, with an escape for what it lacks.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get(UTF8_MODE) == "1":
        return
    environment = {**os.environ, UTF8_MODE: "1"}
    if sys.stdout is not None:  # it is None where the command was started with a closed stream
        environment.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
