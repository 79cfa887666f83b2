"""`kdtune.open_sweep` and `kdtune.run`: a sweep that was run, and one that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from kdtune.api.store import Store, store_of
from kdtune.api.sweep import Sweep
from kdtune.config.sweep import SweepConfig
from kdtune.history.events import Event


def open_sweep(name: str, store: Store | str | Path | None = None) -> Sweep:
    """Open a sweep of a store, complete or still running.

    Args:
        name: the sweep's name.
        store: a Store, a folder or a URL. Default: the variable KDTUNE_STORE, or `runs`.

    Raises StoreError for an unknown name or a damaged record.

    >>> kdtune.open_sweep("tiny", store="runs").name
    'tiny'
    >>> kdtune.open_sweep("none", store="runs")
    Traceback (most recent call last):
    ...
    kdtune.errors.StoreError:   ...: holds no sweep named 'none' (allowed: tiny)
    """
    return Sweep(store_of(store), name)


def run(
    sweep: SweepConfig | Mapping[str, Any] | str | Path,
    *,
    store: Store | str | Path | None = None,
    backend: Literal["ray", "inprocess"] = "ray",
    address: str | None = None,
    on_event: Callable[[Event], object] | None = None,
    tracking: bool | str = True,
) -> Sweep:
    """Run a sweep, or resume it, and return it opened.

    Trials that the store has are not trained again, and the same sweep asks for the same candidates on every backend.
    Any thread may call this, also beside a Ray that already runs, and the process is left as it was. Progress goes to
    the logger `kdtune`, at level INFO.

    Args:
        sweep: a file, the name of a shipped sweep or of one in the store, the content of a file as a mapping, or a
            SweepConfig.
        store: where trials are kept: a Store, a folder or a URL. Default: the variable KDTUNE_STORE, or `runs`.
        backend: `ray` trains on this machine's cores and GPUs, or on the cluster at `address`; `inprocess` trains one
            trial after the other in the calling thread.
        address: address of a Ray cluster, as in `head:6379`. If this process is connected to that cluster already, the
            connection is used, and stays. Without an address the sweep starts its own Ray, which ends with it. Ray
            allows one cluster per process: beside another connection a sweep is refused (ResourceError).
        on_event: function that is called with each event (kdtune/history/events.py): Asked, Started, EpochEnd, Ended,
            and in a race Looked. Calls come one at a time; with `ray`, from another thread than the caller's. An
            exception that it raises ends the sweep, which can be resumed, and is raised again.
        tracking: whether to log to MLflow, at MLFLOW_TRACKING_URI or else in `sqlite:///mlflow/mlflow.db`; or the URI
            of another MLflow.

    Raises ConfigError with all problems of the sweep; DataError, StoreError and ResourceError before anything is
    trained; KeyboardInterrupt once the trials have written their checkpoints: the same call then resumes the sweep. A
    failed trial does not end a sweep; its state is `failed`.

    >>> seen = []
    >>> sweep = kdtune.run("tiny.yaml", store="runs", backend="inprocess", on_event=seen.append, tracking=False)
    >>> sweep
    Sweep('tiny', 4 complete)
    >>> kdtune.run({"name": "half done", "search": {"space": {}}}, store="runs")
    Traceback (most recent call last):
    ...
    kdtune.errors.ConfigError:   sweep: name: ...
    """
    from kdtune.execute.run import run_sweep

    place = store_of(store)
    done = run_sweep(sweep, place.files, backend=backend, address=address, on_event=on_event, tracking=tracking)
    return Sweep(place, done.sweep)
