"""Run a sweep as a library call, which leaves the process as it found it and may come from any thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kdtune.config.load import check_sweep, parse_sweep
from kdtune.config.reading.reader import read_text
from kdtune.config.reading.shipped import located
from kdtune.config.sweep import SweepConfig
from kdtune.errors import ConfigError
from kdtune.execute.backend import Backend, backend_of
from kdtune.execute.books import Ending
from kdtune.execute.driver import drive
from kdtune.history.events import Event
from kdtune.history.record import SweepRecord, read_record
from kdtune.store import StoreFiles
from kdtune.sweep.stopping import Cancel
from kdtune.tracking.location import tracking_uri
from kdtune.urls import SecretUrl

log = logging.getLogger(__name__)

#: A sweep: a file, the name of a shipped sweep or of one in the store, the content of a file, or a configuration
#: built in Python.
SweepSource = str | Path | Mapping[str, Any] | SweepConfig
OnEvent = Callable[[Event], object]
#: Options that dump a configuration as its file.
_AS_WRITTEN: dict[str, Any] = {"mode": "json", "by_alias": True, "exclude_unset": True}


class _Listener:
    """The watcher of a library call: sends texts to the logger `kdtune` and events to `on_event`."""

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event

    def say(self, text: str) -> None:
        log.info(text)

    def begin(self, record: SweepRecord) -> None:
        pass

    def apply(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event)


def run_sweep(
    sweep: SweepSource,
    store: StoreFiles,
    *,
    sets: Sequence[str] = (),
    backend: str | Backend = "ray",
    address: str | None = None,
    on_event: OnEvent | None = None,
    tracking: bool | str = True,
    cancel: Cancel | None = None,
) -> Ending:
    """Run or resume a sweep, and return when it has ended: complete, out of budget, or cancelled.

    Args:
        sweep: a file, the name of a sweep that comes with kdtune or is in the store, a file's content, a SweepConfig.
        store: where its trials are kept.
        sets: values of the file to change, as in `--set`: "search.candidates=8".
        backend: `ray`, `inprocess`, or a Backend. Candidates, prunings and bits are the same.
        address: of a Ray cluster. If this process is already connected to that cluster, the sweep uses the connection
            and leaves it open. Without an address the sweep starts its own Ray, which ends with it.
        on_event: called with every event (kdtune.history.events), one at a time, from any thread. An exception ends
            the sweep like a cancel, and is raised again.
        tracking: True to use MLflow at MLFLOW_TRACKING_URI or in the embedded database; False for none; or a URI.
        cancel: `cancel.ask()`, from any thread, ends the sweep after its trials have written their checkpoints.

    Raises ConfigError, DataError, StoreError or ResourceError (each a UserError with all problems) before anything is
    trained; ResourceError if Ray stops answering or this process uses another Ray; KeyboardInterrupt after one, when
    trials have written their checkpoints and all books are closed. The same call resumes the sweep.
    """
    config, text = _read(sweep, store, sets)
    on = backend_of(backend, address) if isinstance(backend, str) else backend
    uri = tracking_uri() if tracking is True else SecretUrl(tracking) if tracking else None
    cancel = Cancel() if cancel is None else cancel
    store.check()
    with store.sweep(config.name).synced():
        ending = drive(config, text, store, on, uri, _Listener(on_event), cancel)
    for note in ending.notes:
        log.warning(note)
    if cancel.interrupted:
        raise KeyboardInterrupt(f"sweep {config.name} was interrupted; the same call resumes it")
    return ending


def _read(sweep: SweepSource, store: StoreFiles, sets: Sequence[str]) -> tuple[SweepConfig, str]:
    """Return the sweep, checked like a file, and the text to keep with it. Raises ConfigError."""
    if isinstance(sweep, str | Path):
        try:
            file = located(Path(sweep))
        except ConfigError:  # no file has that name
            if str(sweep) not in store.sweeps():
                raise
            sweep = read_record(store, str(sweep)).sweep()
        else:
            text = read_text(file)
            return parse_sweep(text, file, sets), text
    checked = check_sweep(sweep.model_dump(**_AS_WRITTEN) if isinstance(sweep, SweepConfig) else sweep, sets)
    return checked, yaml.safe_dump(checked.model_dump(**_AS_WRITTEN), sort_keys=False, allow_unicode=True)
