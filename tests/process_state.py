"""What a library call must leave as it was. Scripts of tests import this in a process of their own."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings

import optuna
import torch

#: The loggers that kdtune, or a library that it uses, could change.
LOGGERS = ("kdtune", "ray", "ray.tune", "optuna")


def process_state() -> set[tuple[str, str]]:
    """Return signal handlers, hooks, variables, warning filters, loggers and torch's settings, as (kind, text)."""
    loggers = [(name, logging.getLogger(name).level, logging.getLogger(name).handlers) for name in LOGGERS]
    root = logging.root
    state = {
        "handlers": [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "hooks": [sys.excepthook, sys.unraisablehook, threading.excepthook],
        "environment": os.environ.items(),
        "filters": warnings.filters,
        "logging": [*root.handlers, *root.filters, root.level, *loggers, optuna.logging.get_verbosity()],
        "torch": [
            ("threads", torch.get_num_threads()),
            ("same", torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
            ("benchmark", torch.backends.cudnn.benchmark),
            ("onednn", torch.backends.mkldnn.enabled),
        ],
    }
    return {(kind, str(each)) for kind, found in state.items() for each in found}
