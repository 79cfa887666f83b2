"""Write a fitted sweep as a commented YAML file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

import numpy as np
import yaml

from kdtune.clips.layout.names import counted
from kdtune.clips.machine import amount, cores, gpus
from kdtune.clips.summary import lines, summary_of
from kdtune.config.key import canonical
from kdtune.parse import printable
from kdtune.plan.costs import side_by_side, work_of
from kdtune.plan.fit import ROOM, Fit
from kdtune.plan.forecast import PendingTrial, look_ahead
from kdtune.store import StoreFiles
from kdtune.sweep.shortages import Videos
from kdtune.units import duration

#: Billions of multiplications of a clip's forward pass at width 64, 10 frames and 112² (docs/recipe.md).
GMAC = {"r3d": 13.1, "r21d": 13.9, "c3d": 22.9}
#: Billions of multiplications per second of one core, forward and backward, and seconds of a sample besides those.
#: Measured at 10×112² and width 64, and at 8×32² and width 8 (docs/performance.md).
GMAC_PER_S, SAMPLE_S = 100.0, 0.004
#: Column of the comments, and the longest line. A longer comment goes above its line.
COLUMN, LONGEST = 58, 120


def sweep_text(fitted: Fit, store: StoreFiles) -> str:
    """Return the sweep file: comments on the data and the cost, and the sweep with a reason for each choice."""
    raw = fitted.raw
    root = printable(shlex.quote(raw["trial"]["data"]["root"]))  # a name with a line end must not end the comment
    head = [f"# Written by `kdtune data init {root}`. Change what you like.", "#"]
    head += ["#   python -m kdtune plan  FILE", "#   python -m kdtune sweep FILE", "#"]
    head += [f"# {line}".rstrip() for line in (*_about_data(fitted, store), *_about_cost(fitted, store))]
    if fitted.left:
        head += ["#", "# There are few videos:"]
        for warning in fitted.left:
            head += wrap(str(warning), LONGEST - 2, initial_indent="#   ", subsequent_indent="#     ")
    return "\n".join([*head, *_body(raw, _reasons(fitted))]) + "\n"


def _about_data(fitted: Fit, store: StoreFiles) -> Iterator[str]:
    sweep, headers = fitted.sweep, fitted.headers
    yield from lines(summary_of(sweep.trial.data, sweep.trial.frames_needed, store))
    frames, (height, width) = headers.frames, (int(np.median(side)) for side in (headers.heights, headers.widths))
    sample = "" if len(frames) == len(fitted.data_set.catalog) else f" ({counted(len(frames), 'file')} looked at)"
    middle = f"half of the videos at least {int(np.median(frames)):,}"
    span = (
        f"{frames[0]:,} frames each" if frames[0] == frames[-1] else f"{frames[0]:,} to {frames[-1]:,} frames, {middle}"
    )
    yield f"  length     {span}{sample}"
    yield f"  pictures   {width}×{height} pixels in the middle of the videos"


def _about_cost(fitted: Fit, store: StoreFiles) -> Iterator[str]:
    sweep, count = fitted.sweep, len(fitted.data_set.catalog)
    forecast = look_ahead(sweep, store, None)
    height, width = sweep.trial.clip.stored_size
    stored = float(fitted.headers.frames.mean()) * count * height * width * 3
    text = f"cost         at most {counted(forecast.trials, 'trial')}"
    if gpus() == 0:
        seconds = sum(trial.times * _seconds(trial, fitted) for trial in forecast.pending)
        workers = max(1, min(side_by_side(sweep.resources), forecast.trials))
        text += f", very roughly {duration(seconds / workers)} on the {counted(cores(), 'core')} of this machine"
    yield f"{text}; the frames take up to {amount(stored)}"
    yield "             `plan FILE --measure` times a few steps and says how long it takes here"


def _seconds(trial: PendingTrial, fitted: Fit) -> float:
    """Estimate the seconds of a trial on one core of a CPU, if it is trained to its end."""
    config = trial.config
    videos = Videos.of(config.data, fitted.data_set.catalog)
    test = int((fitted.data_set.catalog["split"] == "test").sum())
    counts = {"training": videos.training, "validation": videos.validation, "test": test}
    student, clip = config.student, config.clip
    share = (student.width / 64) ** 2 * clip.frames / 10 * (clip.size / 112) ** 2 * student.depth / 10
    sample_s = config.clips * 3 * GMAC.get(student.backbone, GMAC["r3d"]) * share / GMAC_PER_S + SAMPLE_S
    return work_of(trial).samples(canonical(config), counts) * sample_s


def _reasons(fitted: Fit) -> Mapping[str, str]:
    """Return path → why it has its value."""
    sweep, headers = fitted.sweep, fitted.headers
    clip, needed = sweep.trial.clip, sweep.trial.frames_needed
    room = headers.share_of(needed)
    videos = Videos.of(sweep.trial.data, fitted.data_set.catalog)
    short = "" if room >= ROOM else "; the others are left out"
    steps = videos.training // sweep.trial.optimizer.batch * sweep.trial.epochs
    contrast = {
        "in_batch": "negatives: the batch's other videos, as a memory bank needs more",
        "memory_bank": "negatives are drawn from all training videos",
    }
    return {
        "trial": "shared by all; what is left out has the papers' value",
        "trial.data": f"{videos.training:,} videos to train on, {videos.validation:,} to choose by",
        "trial.student": "the papers' network" + ("" if sweep.trial.student.width == 64 else ", an eighth as wide"),
        "trial.clip": f"a sample needs {needed} frames: {room:.0%} of the videos have them{short}",
        "trial.loss": contrast[sweep.trial.loss.contrast],
        "trial.optimizer": f"{counted(max(1, videos.training // sweep.trial.optimizer.batch), 'step')} an epoch",
        "trial.epochs": f"about {max(1, steps):,} steps; more epochs cost more and train better",
        "trial.stages": "candidates are compared here",
        "trial.evaluation": f"clips of a video that are averaged, of {clip.frames} frames each",
        "trial.memory_format": "faster for small networks on a CPU",
        "teachers": "each is a trial, trained when first needed, then reused",
        "search.space.teacher": "a list is a choice",
        "search.blocks": "one independent search for each share of the videos",
        "search.controls": "from scratch: never pruned; gains are measured against it",
        "search.candidates": "in each block; more may be added later",
        "search.seeds": "of each candidate; intervals come from their spread",
        "search.window": "candidates that may run side by side",
        "objective": "the test list stays untouched for the report",
        "prune": "the better half goes on at each stage",
        "resources": "of one trial",
    }


# ---- YAML ------------------------------------------------------------------------------------------------------------


def _body(raw: Mapping[str, Any], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of the file: `trial`, `teachers` and `search` one setting a line, other sections in one line."""
    for key, value in raw.items():
        if key in ("trial", "teachers", "search"):
            yield _line(f"{key}:", reasons.get(key, ""))
            for name, inner in value.items():
                path = f"{key}.{name}"
                if path == "search.space":
                    yield "  space:"
                    for parameter, values in inner.items():
                        yield _line(
                            f"    {in_one_line(parameter)}: {in_one_line(values)}",
                            reasons.get(f"{path}.{parameter}", ""),
                        )
                else:
                    yield _line(f"  {in_one_line(name)}: {in_one_line(inner)}", reasons.get(path, ""))
        else:
            yield _line(f"{key}: {in_one_line(value)}", reasons.get(key, ""))


def _line(text: str, reason: str) -> str:
    if not reason:
        return text
    line = f"{text:<{COLUMN}}  # {reason}"
    indent = " " * (len(text) - len(text.lstrip()))
    return line if len(line) <= LONGEST else f"{indent}# {reason}\n{text}"


def in_one_line(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")
