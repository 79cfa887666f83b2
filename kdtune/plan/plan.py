"""`plan`: what a sweep would run and what that costs, from its file and the store's records, usually in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kdtune.config.sweep import SweepConfig
from kdtune.errors import DataError
from kdtune.plan.describe import described, trials_line
from kdtune.plan.forecast import Forecast, look_ahead
from kdtune.store import StoreFiles
from kdtune.units import duration

if TYPE_CHECKING:
    from kdtune.plan.keys import Keys
    from kdtune.train.prepared import Prepared

#: Maximum number of items listed.
SHOWN = 3
#: Maximum number of candidates that are looked up before a sweep starts; more take seconds.
MOST_LOOKED_AT = 500


def plan(sweep: SweepConfig, store: StoreFiles, measuring: Callable[[str], object] | None = None) -> Iterator[str]:
    """Yield lines on what the sweep is, what of it is in the store, and what the rest costs in hours and disk.

    With `measuring`, which receives messages on the progress, the data sets are prepared and trials of unknown speed
    are timed. The same DataError and UserError are then raised as by the sweep.
    """
    keys = _keys(sweep, store, prepare=measuring is not None)
    yield from described(sweep)
    forecast = look_ahead(sweep, store, keys)
    prepared = keys.prepared if keys is not None else None
    yield from _data(sweep, store, prepared)
    unknown = "`plan --measure` says how long that takes and what it leaves"
    yield from _ahead(sweep, forecast, keys, unknown, measuring)


def outlook(sweep: SweepConfig, store: StoreFiles) -> Iterator[str]:
    """Yield what a sweep is about to do and, where trials like its own were timed here, about how long that takes."""
    yield trials_line(sweep)
    if store.mirror is not None or sum(map(sweep.candidates, sweep.blocks())) > MOST_LOOKED_AT:
        return
    keys = _keys(sweep, store, prepare=False)
    unknown = "the time left is shown when the first of them have ended"
    yield from _ahead(sweep, look_ahead(sweep, store, keys), keys, unknown)


def _ahead(
    sweep: SweepConfig,
    forecast: Forecast,
    keys: Keys | None,
    unknown: str,
    measuring: Callable[[str], object] | None = None,
) -> Iterator[str]:
    """Yield what the store has and what is to be trained; `unknown` says when the time of trials becomes known."""
    yield from _in_store(forecast, keys)
    if not forecast.trials and not forecast.further:
        yield "to train     nothing"
    elif keys is None or keys.missing:
        yield f"to train     {_trials(sweep, forecast)}; {unknown}"
    else:
        yield from _costs(sweep, forecast, keys, measuring)


def _keys(sweep: SweepConfig, store: StoreFiles, *, prepare: bool) -> Keys | None:
    """Return the keys, or None if the store is empty and is not to be prepared."""
    if prepare:
        from kdtune.plan.keys import Keys
        from kdtune.sweep.prepare import check_resources, prepare_sweep, refuse, this_machine

        refuse(sweep, check_resources(sweep.resources, [this_machine(sweep.resources)]))
        store.claim()
        return Keys(prepare_sweep(sweep, store))
    if not store.trials() and not store.measured("any").parent.exists():
        return None
    from kdtune.plan.keys import Keys
    from kdtune.train.prepared import Prepared

    return Keys(Prepared(store))


def _data(sweep: SweepConfig, store: StoreFiles, prepared: Prepared | None) -> Iterator[str]:
    """Yield a summary of each data set that is here, or why the sweep would refuse it; then warnings on few videos."""
    configs = [sweep.build(block, {}, sweep.search.first_seeds[0]) for block in sweep.blocks()]
    if not any(Path(part.data.folder).is_dir() for config in configs for part in config.lineage()):
        return
    from kdtune.clips.summary import lines
    from kdtune.sweep.few_videos import data_warnings
    from kdtune.train.prepared import Prepared, data_sets

    prepared = Prepared(store) if prepared is None else prepared
    for part in data_sets(configs):
        if Path(part.data.folder).is_dir():
            try:
                yield from lines(prepared.summary(part))
            except DataError as error:
                yield f"videos       {part.data.dataset} in {part.data.folder} cannot be used:"
                yield from _some([str(problem) for problem in error.problems])
    for warning in data_warnings(sweep, prepared):
        yield f"warning      {warning.seen}:"
        yield f"             {warning.why}"
        yield f"             {warning.remedy}"


def _in_store(forecast: Forecast, keys: Keys | None) -> Iterator[str]:
    if keys is None:
        yield "in the store nothing yet"
        return
    if keys.missing:
        folders = " and ".join(dict.fromkeys(keys.missing.values()))
        yield f"in the store {folders} is not prepared, or was changed since: no trial on it can be found"
    counts = f"{len(forecast.found)} found, {len(forecast.continued)} continued, {len(forecast.new)} new"
    if forecast.unasked:
        counts += f", {forecast.unasked} still to be asked, when others have ended"
    yield f"{'             ' if keys.missing else 'in the store '}{counts}"
    yield from _some([f"{w.name}: {w.done} of {w.config.epochs} epochs" for w in forecast.continued.values()])


def _trials(sweep: SweepConfig, forecast: Forecast) -> str:
    if most := forecast.most_further:
        return f"{forecast.trials} to {forecast.trials + most} trials{' at most' if sweep.prune.at else ''}"
    at_most = "at most " if forecast.unasked or sweep.prune.at else ""
    return f"{at_most}{forecast.trials} trial{'s' if forecast.trials != 1 else ''}"


def _costs(
    sweep: SweepConfig, forecast: Forecast, keys: Keys, measuring: Callable[[str], object] | None
) -> Iterator[str]:
    """Yield the hours of one worker and of all that fit here, the disk space, and the trials of unknown cost."""
    from kdtune.clips.machine import amount, processor
    from kdtune.plan.costs import cost_of, shape_words, side_by_side

    kind = "cuda" if sweep.resources.gpu > 0 else "cpu"
    every = [*forecast.pending, *forecast.further]
    cost = cost_of(every, keys.prepared, keys.identities, kind)
    if measuring is not None and cost.unmeasured:
        from kdtune.plan.calibrate import measure
        from kdtune.train.session import choose_device

        measure(cost.unmeasured, keys.prepared, choose_device(kind), sweep.resources.workers, measuring)
        cost = cost_of(every, keys.prepared, keys.identities, kind)
    line = f"to train     {_trials(sweep, forecast)}"
    if cost.seconds:
        raced = cost_of(forecast.pending, keys.prepared, keys.identities, kind) if forecast.further else cost
        ends = [raced.seconds, cost.seconds]
        line += f": about {_span(ends)} of one worker"
        if (workers := min(side_by_side(sweep.resources), forecast.trials + forecast.most_further)) > 1:
            line += f", {_span([end / workers for end in ends])} with {workers} side by side"
        line += f"; {amount(cost.bytes)}"
    yield line
    if elsewhere := [device or "an unknown machine" for device in cost.devices if device != processor()]:
        yield f"             at the speed of {' and '.join(sorted(elsewhere))}"
    if cost.unmeasured:
        what = "without those" if cost.seconds else "all"
        yield f"             {what} of unknown speed (`plan --measure` finds it):"
        yield from _some([shape_words(config) for config in cost.unmeasured.values()])


def _span(seconds: list[float]) -> str:
    return " to ".join(dict.fromkeys(map(duration, seconds)))


def _some(lines: list[str]) -> Iterator[str]:
    """Yield the first lines and the number of the others."""
    yield from (f"               {line}" for line in lines[:SHOWN])
    if len(lines) > SHOWN:
        yield f"               and {len(lines) - SHOWN} more"
