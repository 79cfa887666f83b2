"""Sweeps over knowledge distillation of self-supervised video models, bit for bit repeatable.

>>> import kdtune
>>> kdtune.Store("runs").sweeps()
['tiny']

The names below are loaded on first use, so `import kdtune` is fast and needs no torch; docs/api.md has examples.
Messages go to `logging.getLogger("kdtune")`. Every error that a user can fix is a `kdtune.UserError`, whose `problems`
give the place, the value got and the allowed values.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdtune.api.running import open_sweep, run
    from kdtune.api.store import Store
    from kdtune.api.sweep import Sweep
    from kdtune.api.training import Training, train
    from kdtune.api.trial import Trial, TrialResult
    from kdtune.clips.synthetic import make_synthetic
    from kdtune.config.sweep import SweepConfig
    from kdtune.config.trial import TrialConfig
    from kdtune.errors import ConfigError, DataError, KdtuneError, StoreError, TrialError, UserError

__version__ = "0.1.0"

#: Module → the public names that it defines.
_DEFINES = {
    "kdtune.api.running": ("open_sweep", "run"),
    "kdtune.api.store": ("Store",),
    "kdtune.api.sweep": ("Sweep",),
    "kdtune.api.training": ("Training",),
    "kdtune.api.trial": ("Trial", "TrialResult"),
    "kdtune.clips.synthetic": ("make_synthetic",),
    "kdtune.config.sweep": ("SweepConfig",),
    "kdtune.config.trial": ("TrialConfig",),
    "kdtune.errors": ("ConfigError", "DataError", "KdtuneError", "StoreError", "TrialError", "UserError"),
}

__all__ = [
    "ConfigError",
    "DataError",
    "KdtuneError",
    "Store",
    "StoreError",
    "Sweep",
    "SweepConfig",
    "Training",
    "Trial",
    "TrialConfig",
    "TrialError",
    "TrialResult",
    "UserError",
    "make_synthetic",
    "open_sweep",
    "run",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "train":  # the package itself, which can be called
        return import_module("kdtune.train")
    for module, names in _DEFINES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
