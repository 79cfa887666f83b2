"""Run commands in UTF-8 mode, whatever the locale: for file names, and for the text of child processes."""

from __future__ import annotations

import os
import sys

#: Python's own variable for UTF-8 mode, which child processes inherit: Ray's workers, MLflow's server.
UTF8_MODE = "PYTHONUTF8"


def start_in_utf8_mode() -> None:
    """Restart this command in Python's UTF-8 mode where the locale has another encoding.

    Otherwise Python would decode the names of videos by the locale, which gives another manifest and other keys than
    elsewhere. Output keeps the locale's encoding, with escapes for characters that it lacks.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get(UTF8_MODE) == "1":
        return
    environment = {**os.environ, UTF8_MODE: "1"}
    if sys.stdout is not None:  # None if the command was started with a closed stream
        environment.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
