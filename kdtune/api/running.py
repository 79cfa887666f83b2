"""`kdtune.open_sweep` and `kdtune.run`: a sweep that was run, and one that is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdtune.api.store import Store, store_of
from kdtune.api.sweep import Sweep
from kdtune.config.sweep import SweepConfig
from kdtune.history.events import EpochEnd, Event, Started, epoch_row, ledger_event

if TYPE_CHECKING:
    from kdtune.urls import SecretUrl

log = logging.getLogger(__name__)


def open_sweep(name: str, store: Store | str | Path | None = None) -> Sweep:
    """Open a sweep that was run, or still runs, in a store.

    Args:
        name: the sweep's name.
        store: a Store, a folder or a URL. Default: the variable KDTUNE_STORE, or `runs`.

    Raises StoreError for an unknown name or a record that is damaged.

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
    tracking_uri: str | None = None,
) -> Sweep:
    """Run a sweep, or resume it, and return it opened.

    What the store has is looked up, not trained again; the same sweep asks the same candidates on every backend. Any
    thread may call this, also beside a Ray that already runs, and the process is left as it was found. Progress goes to
    the logger `kdtune`, at level INFO.

    Args:
        sweep: a file, the bare name of a shipped sweep, the content of a file as a mapping, or a SweepConfig.
        store: where trials are kept: a Store, a folder or a URL. Default: the variable KDTUNE_STORE, or `runs`.
        backend: `ray` trains on this machine's cores and GPUs, or on the cluster at `address`; `inprocess` trains one
            trial after the other in the calling thread.
        address: of a Ray cluster, as in `ray://head:10001`.
        on_event: is called with each event (kdtune/history/events.py): Asked, Started, EpochEnd, Ended. What it raises
            ends the sweep, which then can be resumed, and is raised.
        tracking_uri: of MLflow. Default: the variable MLFLOW_TRACKING_URI, or `sqlite:///mlflow/mlflow.db`.

    Raises ConfigError with all problems of the sweep; DataError, StoreError and ResourceError before anything is
    trained; KeyboardInterrupt, when the trials have written their checkpoints: the same call then resumes the sweep. A
    trial that fails ends no sweep; it has the state `failed`.

    >>> seen = []
    >>> sweep = kdtune.run("tiny.yaml", store="runs", backend="inprocess", on_event=seen.append)
    >>> sweep
    Sweep('tiny', 4 complete)
    >>> kdtune.run({"name": "half done", "search": {"space": {}}}, store="runs")
    Traceback (most recent call last):
    ...
    kdtune.errors.ConfigError:   sweep: name: ...
    """
    from kdtune.execute.backend import backend_of
    from kdtune.execute.driver import drive
    from kdtune.sweep.cancel import Cancel

    config, text = _loaded(sweep)
    place, chosen, cancel = store_of(store), backend_of(backend, address), Cancel()
    place.files.check()
    files = place.files.sweep(config.name)
    with files.synced():
        end = drive(
            config, text, place.files, chosen, _tracking(tracking_uri), _Listener(files.folder, on_event), cancel
        )
    for note in end.notes:
        log.warning(note)
    if cancel.interrupted:
        raise KeyboardInterrupt(f"sweep {config.name} was interrupted; the same call resumes it")
    return Sweep(place, config.name)


def _loaded(sweep: SweepConfig | Mapping[str, Any] | str | Path) -> tuple[SweepConfig, str]:
    """Return a sweep, checked, and the text of its file; of one built in Python, the text of a file that says it."""
    import yaml

    from kdtune.config.load import check_sweep, parse_sweep
    from kdtune.config.reader import read_text
    from kdtune.config.shipped import located

    if isinstance(sweep, str | Path):
        file = located(Path(sweep))
        text = read_text(file)
        return parse_sweep(text, file), text
    config = check_sweep(_raw(sweep) if isinstance(sweep, SweepConfig) else sweep)
    return config, yaml.safe_dump(_raw(config), sort_keys=False, allow_unicode=True)


def _raw(sweep: SweepConfig) -> dict[str, Any]:
    return sweep.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _tracking(uri: str | None) -> SecretUrl:
    from kdtune.tracking.location import tracking_uri
    from kdtune.urls import SecretUrl

    return tracking_uri() if uri is None else SecretUrl(uri)


class _Listener:
    """Passes what a sweep's driver says on: texts to the log, events to a callable."""

    def __init__(self, folder: Path, on_event: Callable[[Event], object] | None) -> None:
        self._folder, self._on_event = folder, on_event

    def say(self, text: str) -> None:
        log.info(text)

    def begin(self, record: dict[str, Any]) -> None:
        pass

    def ledger(self, row: dict[str, Any]) -> None:
        if self._on_event is not None:
            started = row["event"] == "started"
            self._on_event(Started(row["group"]) if started else ledger_event(row, self._folder))

    def epoch(self, group: str, key: str, row: dict[str, Any]) -> None:
        if self._on_event is not None:
            self._on_event(EpochEnd(group, key, epoch_row(row, self._folder)))
