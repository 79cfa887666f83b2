"""`resources.same_device`: a block's trials keep to one device model of a cluster, also after a resume."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import Said, environment, in_work, sweep, until
from helpers import link_clips

from kdtune.config.search import ResourceConfig
from kdtune.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR, ResourceError
from kdtune.execute.cluster.devices import CPU_LABEL, GPU_LABEL, Devices, DeviceWatch, assigned, choose_devices
from kdtune.history.reading import read_history
from kdtune.store import StoreFiles
from kdtune.store.files import read_json
from kdtune.train.session import Session

BLOCKS = ["fraction=1.0", "fraction=0.5", "fraction=0.25"]
ONE_GPU = ResourceConfig(gpu=1)


def node(name: str, model: str = "", label: str = GPU_LABEL, cpu: float = 8, gpu: float = 0) -> dict[str, Any]:
    """Return Ray's record of a node."""
    labels = {label: model} if model else {}
    where = {"NodeManagerAddress": f"10.0.0.{name}", "NodeManagerHostname": f"host-{name}"}
    return {"Resources": {"CPU": cpu, "GPU": gpu, "memory": 2**36}, "Labels": labels, **where}


MIXED = [node("1", "H100", gpu=4), node("2", "A100", gpu=2), node("3", "A100", gpu=1), node("4", cpu=64)]


def chosen(
    store: StoreFiles, resources: ResourceConfig, nodes: list[dict[str, Any]], processors: tuple[str, ...] = ()
) -> tuple[Devices | None, list[str]]:
    said: list[str] = []
    return choose_devices(store.sweep("s"), BLOCKS, resources, nodes, processors, said.append), said


def test_blocks_are_shared_out_by_the_room_of_each_model() -> None:
    assert assigned(BLOCKS, {"H100": 4, "A100": 3}, {}) == dict(zip(BLOCKS, ["H100", "A100", "H100"], strict=True))
    assert assigned(BLOCKS, {"H100": 4, "A100": 1}, {}) == dict.fromkeys(BLOCKS, "H100")
    assert assigned(BLOCKS[:1], {"b": 2, "a": 2}, {}) == {BLOCKS[0]: "a"}, "equal ones by name"
    kept = {BLOCKS[2]: "H100"}
    assert assigned(BLOCKS, {"H100": 2, "A100": 2}, kept) == dict(zip(BLOCKS, ["A100", "A100", "H100"], strict=True))


def test_trials_on_gpus_keep_to_a_model_by_default_and_a_resumed_sweep_keeps_the_same(store: StoreFiles) -> None:
    first, said = chosen(store, ONE_GPU, MIXED)
    assert first == Devices(GPU_LABEL, dict(zip(BLOCKS, ["H100", "A100", "H100"], strict=True)))
    assert first.selector(BLOCKS[1]) == {GPU_LABEL: "A100"}
    assert first.selector(None) == {}, "teachers are trained anywhere"
    assert said[0] == "A100, 3 trials at once: block fraction=0.5"
    assert said[1] == "H100, 4 trials at once: block fraction=1.0, fraction=0.25"
    # The same on a cluster that has grown, where other models would be chosen today.
    grown = [*MIXED, node("5", "A100", gpu=32)]
    assert chosen(store, ONE_GPU, grown)[0] == first
    assert chosen(store, ResourceConfig(gpu=1, same_device=False), grown)[0] is None
    with pytest.raises(ResourceError) as refusal:
        chosen(store, ONE_GPU, MIXED[1:])
    assert [problem.where for problem in refusal.value.problems] == ["resources.same_device"] * 2
    assert "block fraction=1.0 began on H100, which no machine with enough resources has" in str(refusal.value)
    # A damaged record is noted, and the models are chosen again.
    store.sweep("s").devices.write_text("{")
    assert chosen(store, ONE_GPU, MIXED)[0] == first


def test_machines_whose_model_is_not_known_are_named(store: StoreFiles) -> None:
    found, said = chosen(store, ONE_GPU, [*MIXED, node("6", gpu=8)])
    assert found is not None
    assert "note: 1 machines get no trial of a block" in said[0]
    store.sweep("s").devices.unlink()
    with pytest.raises(ResourceError, match=r"not known: 10.0.0.6 \(host-6\).*ray start --labels"):
        chosen(store, ResourceConfig(gpu=1, same_device=True), [*MIXED, node("6", gpu=8)])
    assert chosen(store, ONE_GPU, [node("6", gpu=8)]) == (None, []), "no label, nothing to tell apart"


def test_processors_are_told_apart_by_labels_if_the_sweep_asks(store: StoreFiles) -> None:
    labelled = [node("1", "zen4", CPU_LABEL), node("2", "skylake", CPU_LABEL, cpu=4)]
    same = ResourceConfig(same_device=True)
    assert chosen(store, ResourceConfig(), labelled, ("EPYC", "EPYC")) == (None, [])
    found, said = chosen(store, ResourceConfig(), labelled, ("EPYC", "Xeon"))
    assert found is None
    assert "trials run on EPYC and Xeon, which round differently; resources.same_device: true" in said[0]
    found, _ = chosen(store, same, labelled, ("EPYC", "Xeon"))
    assert found is not None
    assert found.blocks == dict(zip(BLOCKS, ["zen4", "skylake", "zen4"], strict=True))
    bare = [node("1"), node("2")]
    store.sweep("s").devices.unlink()
    assert chosen(store, same, bare, ("EPYC", "EPYC")) == (None, []), "one model"
    with pytest.raises(ResourceError, match="ray start --labels kdtune-cpu=MODEL"):
        chosen(store, same, bare, ("EPYC", "Xeon"))


def test_a_model_that_is_gone_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    alive, said = list(MIXED), []
    monkeypatch.setattr("kdtune.execute.cluster.devices.alive_nodes", lambda: alive)
    monkeypatch.setattr("kdtune.execute.cluster.devices.LOOK_S", 0.0)
    watch = DeviceWatch(Devices(GPU_LABEL, {"a": "H100", "b": "A100"}), said.append)
    for nodes in (MIXED, MIXED[1:], MIXED[1:], MIXED, MIXED[1:]):
        alive[:] = nodes
        watch.look(["a", "b", None, "a"])
    assert len(said) == 2, "once, and again when it has gone again"
    assert "block a waits for a machine with H100: the cluster has none left" in said[0]
    alive.clear()
    watch.look([None])
    assert len(said) == 2, "nothing waits"


# ---- a real cluster --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_block_is_trained_on_one_model_and_waits_for_it(
    sweep_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    """The nodes differ by an environment variable of their workers, which a trial's profile records."""
    from ray.cluster_utils import Cluster

    search = {**sweep_form["search"], "candidates": 1}
    form = {**sweep_form, "search": search, "resources": {"same_device": True, "retries": 0}}
    file, store = tmp_path / "tiny.yaml", StoreFiles(tmp_path / "runs")
    file.write_text(yaml.safe_dump(form, sort_keys=False))
    link_clips(prepared.store.root, store.root)
    env = environment(tmp_path, RAY_AUTH_MODE="disabled")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in env.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        stack.callback(cluster.shutdown)

        def start(model: str) -> Any:
            hints = {"ONEDNN_CPU_ISA_HINTS": model}
            return cluster.add_node(num_cpus=1, labels={CPU_LABEL: model}, env_vars=hints)

        def run() -> Said:
            found = sweep(file, tmp_path, env, "--address", cluster.address)
            stack.callback(found.end)
            return found

        start("one")
        two = start("two")
        first = run()
        until(lambda: store.sweep("tiny").devices.exists(), "the models are chosen", first)
        devices = read_json(store.sweep("tiny").devices)
        assert devices is not None
        assert devices["blocks"] == {"fraction=1.0": "one", "fraction=0.5": "two"}

        def half_trains() -> bool:
            open_groups = read_history(store, "tiny").open.values()
            keys = {key for group in open_groups if group.asked.block == "fraction=0.5" for key in group.keys}
            return not keys.isdisjoint(in_work(raylet(two).pid))

        until(half_trains, "the second block trains", first)
        raylet(two).kill()
        raylet(two).wait()
        until(lambda: "block fraction=0.5 waits for a machine with two" in first.text, "it says so", first)
        first.process.send_signal(signal.SIGINT)
        assert first.ended() == EXIT_INTERRUPTED, first.text
        refused = run()
        assert refused.ended() == EXIT_USER_ERROR, refused.text
        assert "block fraction=0.5 began on two, which no machine with enough resources has" in refused.text
        start("two")
        last = run()
        assert last.ended() == EXIT_OK, last.text
    groups = [group for group in read_history(store, "tiny").in_order() if group.asked.block is not None]
    assert len(groups) == 4
    results = {key: (group.asked.block, store.trial(key).result()) for group in groups for key in group.keys}
    assert any(result is not None for _, result in results.values())
    for block, result in results.values():
        if result is not None:  # others were pruned
            assert result["profile"]["switches"] == f"ONEDNN_CPU_ISA_HINTS={devices['blocks'][block]}"
            assert result["earlier_profiles"] == []


def raylet(node: Any) -> Any:
    return node.all_processes["raylet"][0].process
