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
    from kdtune.api.running import open_sweep as open_sweep
    from kdtune.api.running import run as run
    from kdtune.api.store import Store as Store
    from kdtune.api.sweep import Sweep as Sweep
    from kdtune.api.training import Training as Training
    from kdtune.api.training import train as train
    from kdtune.api.trial import Trial as Trial
    from kdtune.api.trial import TrialResult as TrialResult
    from kdtune.clips.synthetic import make_synthetic as make_synthetic
    from kdtune.config.sweep import SweepConfig as SweepConfig
    from kdtune.config.trial import TrialConfig as TrialConfig
    from kdtune.errors import ConfigError as ConfigError
    from kdtune.errors import DataError as DataError
    from kdtune.errors import KdtuneError as KdtuneError
    from kdtune.errors import StoreError as StoreError
    from kdtune.errors import TrialError as TrialError
    from kdtune.errors import UserError as UserError

__version__ = "0.1.0"

#: Public name → the module that defines it. `kdtune.train` is the package itself, which can be called.
_DEFINED_IN = {
    "ConfigError": "kdtune.errors",
    "DataError": "kdtune.errors",
    "KdtuneError": "kdtune.errors",
    "Store": "kdtune.api.store",
    "StoreError": "kdtune.errors",
    "Sweep": "kdtune.api.sweep",
    "SweepConfig": "kdtune.config.sweep",
    "Training": "kdtune.api.training",
    "Trial": "kdtune.api.trial",
    "TrialConfig": "kdtune.config.trial",
    "TrialError": "kdtune.errors",
    "TrialResult": "kdtune.api.trial",
    "UserError": "kdtune.errors",
    "make_synthetic": "kdtune.clips.synthetic",
    "open_sweep": "kdtune.api.running",
    "run": "kdtune.api.running",
}
_PACKAGES = {"train": "kdtune.train"}

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
    if name in _PACKAGES:
        return import_module(_PACKAGES[name])
    if name in _DEFINED_IN:
        value = globals()[name] = getattr(import_module(_DEFINED_IN[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
