"""The displayed names of candidates, controls and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdtune.config.space import Scalar, value_text
from kdtune.history.blocks import BlockHistory
from kdtune.history.groups import GroupHistory

#: Short name of a parameter → its sign.
SIGNS = {"lambda": "λ", "tau": "τ", "alpha": "α"}


def counted(number: int, what: str) -> str:
    """Return a number with its noun, as in `1 seed` or `3 seeds`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def label(parameter: str) -> str:
    """Return the displayed name of a parameter: its sign if it has one, else its name."""
    return SIGNS.get(parameter, parameter)


def described(name: str, values: Mapping[str, Scalar], params: Sequence[str]) -> str:
    """Return a name with the values of `params`, as in `candidate 3 (c3d, λ 0.25, τ 4)`."""
    shown = [f"{label(p)} {value_text(values[p])}" for p in params if values.get(p) is not None]
    shown = [text.removeprefix("teacher ").removeprefix("student ") for text in shown]
    return f"{name} ({', '.join(shown)})" if shown else name


def varied(block: BlockHistory) -> list[str]:
    """Return the parameters that differ between a block's trials, and always the teacher."""
    groups = [*(group for by_seed in block.controls.values() for group in by_seed.values()), *block.candidates.values()]
    values: dict[str, set[str]] = {}
    for group in groups:
        for name, value in group.params.items():
            values.setdefault(name, set()).update([] if value is None else [str(value)])
    return [name for name, seen in values.items() if name == "teacher" or len(seen) > 1]


def control_name(block: BlockHistory) -> str:
    """Return `scratch`, or another control's description."""
    teacher = block.first_control()[0].params.get("teacher", "none")
    return "scratch" if teacher == "none" else f"the control (teacher {teacher})"


def leader_name(block: BlockHistory, leader: GroupHistory) -> str:
    """Return the name of a block's best candidate, and whether it is one of several."""
    name = described(f"candidate {leader.number}", leader.params, varied(block))
    if len(block.best) > 1:
        return f"{name}, the best of a Pareto set of {len(block.best)} in {block.metric.name},"
    return name
