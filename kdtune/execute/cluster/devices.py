"""Keep the trials of a block on one device model of a cluster, by the labels of Ray's nodes.

Devices of different models round differently, so a gain between them would contain that difference, too. Ray labels a
node with the model of its GPUs; users label the processors (`ray start --labels kdtune-cpu=epyc-9654`). A block's model
is chosen once, recorded in the sweep's folder, and kept when the sweep is resumed. Teachers belong to no block: nothing
is compared with them, and they are trained anywhere.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune

from kdtune.clips.machine import GIB
from kdtune.config.search import ResourceConfig
from kdtune.errors import Problem, ResourceError
from kdtune.execute.cluster.nodes import alive_nodes
from kdtune.history.rows import parsed
from kdtune.store import SweepFiles
from kdtune.store.files import read_json, write_json
from kdtune.store.records import DEVICES
from kdtune.store.seal import passed_over
from kdtune.sweep.group import TrialGroup
from kdtune.sweep.prepare import check_resources

#: The label that Ray gives a node with GPUs, and the one by which a user names a node's processor.
GPU_LABEL, CPU_LABEL = "ray.io/accelerator-type", "kdtune-cpu"
#: Seconds between two looks at which models the cluster has.
LOOK_S = 3.0
#: Ray's record of a node.
Node = Mapping[str, Any]
FIELD = "resources.same_device"
ELSEWHERE = f"`--set {FIELD}=false` trains on any machine"


@dataclass(frozen=True)
class Devices:
    """The device model of each block: the content of devices.json."""

    label: str
    """The label of a node that names its model."""
    blocks: Mapping[str, str]
    """Block → model."""

    def selector(self, block: str | None) -> dict[str, str]:
        """Return Ray's label selector for a trial of `block`; empty if it may run anywhere."""
        return {self.label: self.blocks[block]} if block is not None and block in self.blocks else {}

    def absent(self, blocks: Iterable[str | None], nodes: Iterable[Node]) -> dict[str, list[str]]:
        """Return model → those of `blocks` that keep to it, for each model that no node has."""
        there = {model_of(node, self.label) for node in nodes}
        found: dict[str, list[str]] = {}
        for block in blocks:
            model = None if block is None else self.blocks.get(block)
            if block is not None and model is not None and model not in there:
                found.setdefault(model, []).append(block)
        return found


class DeviceWatch:
    """Says which device models a running sweep waits for."""

    def __init__(self, devices: Devices, say: Callable[[str], object]) -> None:
        self.devices, self.say = devices, say
        self._absent: Collection[str] = ()
        """Models that the last look found to be absent."""
        self._next_look = 0.0

    def look(self, blocks: Iterable[str | None]) -> None:
        """Every LOOK_S, say which models have become absent, of those that the open groups' `blocks` keep to."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_S
        absent = self.devices.absent(dict.fromkeys(blocks), alive_nodes())
        for model in absent.keys() - self._absent:
            what = f"block {', '.join(absent[model])} waits for a machine with {model}: the cluster has none left"
            self.say(f"{what}; {ELSEWHERE}")
        self._absent = absent.keys()


@dataclass(frozen=True)
class Request:
    """Ray Tune's request for the resources of a group."""

    resources: ResourceConfig
    devices: Devices | None

    def __call__(self, config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        """Return the resources under Ray's names, memory in bytes, on the device model of the group's block."""
        group: TrialGroup = config["group"]
        memory = {"memory": (self.resources.memory or 0) * GIB}
        bundle: dict[str, int | float] = {"CPU": self.resources.cpu, "GPU": self.resources.gpu, **memory}
        selector = {} if self.devices is None else self.devices.selector(group.asked.block)
        more: dict[str, Any] = {"bundle_label_selector": [selector]} if selector else {}
        return tune.PlacementGroupFactory([bundle], **more)


def choose_devices(
    files: SweepFiles,
    blocks: Sequence[str],
    resources: ResourceConfig,
    nodes: Sequence[Node],
    processors: Collection[str],
    say: Callable[[str], object],
) -> Devices | None:
    """Return the device model of each block, and record it; None if trials may run on any machine of the cluster.

    `processors` are the names of the nodes' processors. Raises ResourceError if a block's model is not in the cluster,
    or the nodes' labels do not tell their models apart.
    """
    if resources.same_device is False:
        return None
    label = GPU_LABEL if resources.gpu > 0 else CPU_LABEL
    fitting = [node for node in nodes if not check_resources(resources, [node["Resources"]])]
    bare = [node for node in fitting if model_of(node, label) is None]
    slots: Counter[str] = Counter()
    for node in fitting:
        if (model := model_of(node, label)) is not None:
            slots[model] += _slots(resources, node)
    recorded = _recorded(files, label)
    kept = {block: recorded[block] for block in blocks if block in recorded}
    if not kept and not _wanted(resources, slots, bare, processors, say):
        return None
    if gone := {block: model for block, model in kept.items() if model not in slots}:
        raise ResourceError(
            Problem(FIELD, f"block {block} began on {model}, which no machine with enough resources has", ELSEWHERE)
            for block, model in gone.items()
        )
    found = Devices(label, assigned(blocks, slots, kept))
    write_json(files.devices, {"label": label, "blocks": {**recorded, **found.blocks}})
    if len(slots) > 1:
        for model, count in sorted(slots.items()):
            own = ", ".join(block for block in blocks if found.blocks[block] == model)
            say(f"{model}, {count} trials at once: {f'block {own}' if own else 'no block'}")
        say(f"each block keeps to one device model, so that its gains compare like with like; {ELSEWHERE}")
    return found


def assigned(blocks: Sequence[str], slots: Mapping[str, int], kept: Mapping[str, str]) -> dict[str, str]:
    """Return block → model: those of `kept`, and for each other block, in order, the model with most room.

    `slots` is the number of trials that the nodes of each model run at once. Equal ones are taken by name.
    """
    found = dict(kept)
    for block in blocks:
        if block not in found:
            load = Counter(found.values())
            found[block] = min(slots, key=lambda model: ((load[model] + 1) / max(1, slots[model]), model))
    return {block: found[block] for block in blocks}


def model_of(node: Node, label: str) -> str | None:
    """Return a node's device model, or None if its labels do not tell it."""
    return (node.get("Labels") or {}).get(label) or None


def _wanted(
    resources: ResourceConfig,
    slots: Mapping[str, int],
    bare: Sequence[Node],
    processors: Collection[str],
    say: Callable[[str], object],
) -> bool:
    """Return whether blocks are to keep to a model. Raises ResourceError if they are, and nodes lack the label."""
    if resources.gpu > 0:
        mixed, how = len(slots) + bool(bare) > 1, f"ray start --labels {GPU_LABEL}=MODEL"
    else:
        mixed, how = len(slots) > 1 or len(set(processors)) > 1, f"ray start --labels {CPU_LABEL}=MODEL"
    if resources.same_device and mixed and bare:
        names = ", ".join(f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})" for node in bare)
        raise ResourceError([Problem(FIELD, f"the device model of these machines is not known: {names}", how)])
    if resources.same_device is None and resources.gpu == 0:
        if len(set(processors)) > 1:
            there = " and ".join(sorted(set(processors)))
            say(f"note: trials run on {there}, which round differently; {FIELD}: true keeps a block on one of them")
        return False
    if bare and len(slots) > 0:
        say(f"note: {len(bare)} machines get no trial of a block, because no label names their devices: {how}")
    return len(slots) > 0


def _slots(resources: ResourceConfig, node: Node) -> int:
    """Return how many trials a node runs at once."""
    asked = {"CPU": resources.cpu, "GPU": resources.gpu}
    return min(math.floor(node["Resources"].get(name, 0) / amount + 1e-9) for name, amount in asked.items() if amount)


def _recorded(files: SweepFiles, label: str) -> Mapping[str, str]:
    """Return the recorded model of each block; empty if there is none, or it is for devices of another kind."""
    record = passed_over(lambda: read_json(files.devices, DEVICES), None)
    found = None if record is None else passed_over(lambda: parsed(Devices, record, files.devices), None)
    return {} if found is None or found.label != label else found.blocks
