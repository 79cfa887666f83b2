"""One trial: the readable loop, targets, checkpoints, metrics, replay. Runs without Ray, Optuna and MLflow.

The package can be called: `kdtune.train(trial, store=…)` is the public function of kdtune/api/training.py. A function
of that name in `kdtune` would be replaced by this package whenever one of its modules is imported.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return _public()(*arguments, **named)

    @property
    def __signature__(self) -> Any:
        from inspect import signature

        return signature(_public())


def _public() -> Any:
    # By name: the modules of this layer know nothing of the one above.
    return import_module("kdtune.api.training").train


sys.modules[__name__].__class__ = _Callable
