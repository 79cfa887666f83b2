"""Imported weights (teacher import) give the same outputs as in their original network, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from networks import clips
from published_networks import base_network, config, pretrained, randomised, refusal, saved
from torch import Tensor, nn
from torchvision.models import get_model

from kdtune.config.key import identity, trial_key
from kdtune.config.load import load_sweep
from kdtune.config.network import NetworkConfig
from kdtune.config.sections import ClipConfig
from kdtune.config.sweep import Block
from kdtune.config.trial import TrialConfig
from kdtune.models.backbones import build_backbone
from kdtune.models.heads import build_network
from kdtune.models.published import layout_of
from kdtune.store import StoreFiles
from kdtune.store.files import read_json
from kdtune.train.checkpoint import final_weights, read_checkpoint
from kdtune.train.importing.imports import Imported, import_checkpoint, yaml_lines
from kdtune.train.profile import state_digest

torch.set_num_threads(1)

NETWORKS = [("r3d", 10), ("r3d", 18), ("r21d", 10), ("r21d", 18), ("c3d", 10)]


def no_manifest(_: object) -> str:
    raise AssertionError("imported weights have no data")


# ---- published checkpoints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backbone", "depth"), NETWORKS)
@torch.no_grad()
def test_pcls_pretrained_networks_give_their_own_outputs(
    backbone: str, depth: int, tmp_path: Path, store: StoreFiles
) -> None:
    theirs, own = pretrained(backbone, depth), config(backbone, depth)
    imported = import_checkpoint(saved(tmp_path, theirs.state_dict()), own, store)
    assert (imported.layout, imported.heads) == ("pcl", ("head", "projector"))
    ours = build_network(own).eval()
    ours.load_state_dict(final_weights(imported.files.checkpoint))
    x = clips(2, 3, 3, 8, 32, 32)
    features = ours.features(x)
    for got, wanted in zip((ours.logits(features), *ours.projections(features)), theirs(x), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("backbone", "depth"), NETWORKS)
@torch.no_grad()
def test_fine_tuned_networks_give_their_own_logits(
    backbone: str, depth: int, tmp_path: Path, store: StoreFiles
) -> None:
    theirs = randomised(base_network(backbone, depth, classes=7))
    own = config(backbone, depth, loss={"target": "action"})
    imported = import_checkpoint(saved(tmp_path, theirs.state_dict()), own, store)
    assert (imported.layout, imported.heads) == ("pcl", ("head",))
    ours = build_network(own, 7).eval()
    ours.load_state_dict(final_weights(imported.files.checkpoint))
    x = clips(2, 1, 3, 8, 32, 32)
    torch.testing.assert_close(ours.logits(ours.features(x)), theirs(x[:, 0]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_pcls_own_width(tmp_path: Path, store: StoreFiles) -> None:
    theirs, own = pretrained(width=64), config(width=64)
    assert theirs.fc.weight.shape == (5, 1536)
    imported = import_checkpoint(saved(tmp_path, theirs.state_dict()), own, store)
    ours = build_network(own).eval()
    ours.load_state_dict(final_weights(imported.files.checkpoint))
    x = clips(1, 3, 3, 8, 16, 16)
    torch.testing.assert_close(ours.logits(ours.features(x)), theirs(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["r3d", "r3d_18"])
@torch.no_grad()
def test_torchvisions_r3d_18_gives_its_own_features(backbone: str, tmp_path: Path, store: StoreFiles) -> None:
    torch.manual_seed(3)
    theirs = randomised(get_model("r3d_18"))
    own = config(backbone, depth=18, width=64)
    imported = import_checkpoint(saved(tmp_path, theirs.state_dict()), own, store)
    assert (imported.layout, imported.heads) == ("torchvision", ())
    theirs.fc = nn.Identity()
    ours = build_network(own).eval()
    missing, unexpected = ours.load_state_dict(final_weights(imported.files.checkpoint), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"head", "projector"}
    x = clips(2, 3, 8, 32, 32)
    torch.testing.assert_close(ours.clip_features(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "backbone",
    ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b"],
)
def test_every_torchvision_network_has_a_place_for_each_tensor(backbone: str) -> None:
    with torch.device("meta"):
        theirs = get_model(backbone).state_dict()
        ours = build_backbone(NetworkConfig(backbone=backbone), ClipConfig(frames=16, size=224)).state_dict()
    layout = layout_of(theirs, NetworkConfig(backbone=backbone))
    assert layout is not None
    named = {layout.theirs(f"backbone.{name}"): value for name, value in ours.items()}
    kept = {name: value for name, value in theirs.items() if not layout.drops(name)}
    assert len(theirs) - len(kept) == 2
    assert {name: (v.shape, v.dtype) for name, v in named.items()} == {n: (v.shape, v.dtype) for n, v in kept.items()}


# ---- what a file may look like ---------------------------------------------------------------------------------------

WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "best": 0.5},
    "network": lambda state: {"network": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {"lr": 0.1}},
    "DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "both": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "double precision": lambda state: {n: v.double() if v.is_floating_point() else v for n, v in state.items()},
    "another order": lambda state: dict(reversed(state.items())),
    "parameters": lambda state: {n: nn.Parameter(v, v.is_floating_point()) for n, v in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_same_weights_are_the_same_trial_however_they_are_wrapped(
    wrapping: str, tmp_path: Path, store: StoreFiles
) -> None:
    state = pretrained().state_dict()
    first = import_checkpoint(saved(tmp_path, state), config(), store)
    again = import_checkpoint(saved(tmp_path, WRAPPINGS[wrapping](state), "other.pt"), config(), store)
    assert again == first
    assert read_json(first.files.folder / "result.json")["imported"]["source"] == "best_model_196.pt"


def test_a_trials_records(tmp_path: Path, store: StoreFiles) -> None:
    own = config(seed=4, epochs=7)
    imported = import_checkpoint(saved(tmp_path, pretrained().state_dict()), own, store)
    named = own.model_copy(update={"imported": imported.imported})
    assert imported.key == trial_key(named, no_manifest) == imported.files.folder.name
    assert read_json(imported.files.config) == identity(named, no_manifest)
    weights = read_checkpoint(imported.files.checkpoint)["network"]
    assert list(weights) == sorted(weights)
    result = imported.files.result()
    assert result is not None
    assert result["weights_sha256"] == state_digest(weights)
    assert result["weights_sha256"][:32] == imported.imported
    origin = result.pop("imported")
    assert len(origin.pop("sha256")) == 64
    assert origin == {"source": "best_model_196.pt", "layout": "pcl", "heads": ["head", "projector"]}
    del result["weights_sha256"]
    assert result == {"epochs": 0, "stages": {}, "seconds": 0.0, "profile": None}
    names = {path.name for path in imported.files.folder.iterdir()}
    assert names == {"config.json", "checkpoint.pt", "result.json"}


def test_weights_are_named_by_what_they_are_and_trials_also_by_their_clips(tmp_path: Path, store: StoreFiles) -> None:
    theirs = pretrained()
    file = saved(tmp_path, theirs.state_dict())
    first = import_checkpoint(file, config(), store)
    longer = import_checkpoint(file, config(clip={"frames": 16, "size": 16}), store)
    assert longer.imported == first.imported
    assert longer.key != first.key
    theirs.fc.bias.data[2] += 1e-3
    other = import_checkpoint(saved(tmp_path, theirs.state_dict()), config(), store)
    assert other.imported != first.imported


def test_another_number_than_the_configuration_names_is_refused(tmp_path: Path, store: StoreFiles) -> None:
    file = saved(tmp_path, pretrained().state_dict())
    imported = import_checkpoint(file, config(), store)
    assert import_checkpoint(file, config(imported=imported.imported), store) == imported
    said = refusal(lambda: import_checkpoint(file, config(imported="0" * 32), store))
    assert imported.imported in said
    assert "0" * 32 in said


def test_heads_may_be_missing_as_a_whole(tmp_path: Path, store: StoreFiles) -> None:
    state = pretrained(projection=None).state_dict()
    assert import_checkpoint(saved(tmp_path, state), config(), store).heads == ("head",)
    base = {name: value for name, value in state.items() if name.startswith("base_network.")}
    for target in ("pretext", "action"):
        imported = import_checkpoint(saved(tmp_path, base), config(loss={"target": target}), store)
        assert imported.heads == ()
    bare = {name.removeprefix("base_network."): value for name, value in base.items()}
    assert import_checkpoint(saved(tmp_path, bare), config(loss={"target": "action"}), store) == imported


def test_old_checkpoints_do_not_count_batches(tmp_path: Path, store: StoreFiles) -> None:
    state = {n: v for n, v in pretrained().state_dict().items() if not n.endswith("num_batches_tracked")}
    weights = final_weights(import_checkpoint(saved(tmp_path, state), config(), store).files.checkpoint)
    build_network(config()).load_state_dict(weights)
    assert {int(v) for n, v in weights.items() if n.endswith("num_batches_tracked")} == {0}


def test_a_view_into_a_large_tensor_is_stored_by_itself(tmp_path: Path, store: StoreFiles) -> None:
    state = pretrained().state_dict()
    large = torch.zeros(1_000_000)
    large[:5] = state["fc.bias"]
    state["fc.bias"] = large[:5]
    imported = import_checkpoint(saved(tmp_path, state), config(), store)
    assert imported.files.checkpoint.stat().st_size < 1_000_000


def test_an_interrupted_import_is_made_again(tmp_path: Path, store: StoreFiles) -> None:
    file = saved(tmp_path, pretrained().state_dict())
    imported = import_checkpoint(file, config(), store)
    (imported.files.folder / "result.json").unlink()
    imported.files.checkpoint.write_bytes(b"")
    assert import_checkpoint(file, config(), store) == imported
    assert state_digest(final_weights(imported.files.checkpoint))[:32] == imported.imported


# ---- the lines to paste ----------------------------------------------------------------------------------------------


def pasted(lines: str, trial: dict[str, Any], folder: Path) -> TrialConfig:
    """Return the teacher of a sweep file with these lines in it."""
    form = {"name": "s", "trial": trial, "search": {"space": {"tau": [4.0]}, "sampler": "grid"}}
    file = folder / "sweep.yaml"
    file.write_text(f"{yaml.safe_dump(form)}teachers:\n{lines}\n")
    sweep = load_sweep(file)
    (name,) = sweep.teachers
    return sweep.teacher(name, Block(0, {}))


@pytest.mark.parametrize(
    ("own", "digits"),
    [
        (config("c3d"), "3fa9" * 8),
        (config("r21d", depth=18, width=8, loss={"target": "action"}), "1" * 32),
        (config("r3d_18", clip={"frames": 16, "size": 32, "modality": "rgb", "normalize": False}), "12e" + "4" * 29),
    ],
    ids=["c3d", "digits alone", "like a float"],
)
def test_the_printed_lines_mean_the_same_trial_in_any_sweep(
    own: TrialConfig, digits: str, tmp_path: Path, store: StoreFiles
) -> None:
    named = own.model_copy(update={"imported": digits})
    key = trial_key(named, no_manifest)
    lines = yaml_lines(Imported(key, digits, "pcl", (), store.trial(key)), own, "pcl_c3d")
    assert lines.splitlines()[0] == "  pcl_c3d:"
    (raw,) = yaml.safe_load(lines).values()
    assert trial_key(TrialConfig.model_validate(raw), no_manifest) == key
    for trial in ({}, {"student": {"backbone": "r3d", "depth": 18, "width": 8}, "loss": {"alpha": 0.1}, "epochs": 3}):
        assert trial_key(pasted(lines, trial, tmp_path), no_manifest) == key


@pytest.mark.parametrize("name", ["pcl c3d", "12", "yes", "a: b", "Zürich"])
def test_any_name_is_printed_so_that_it_reads_back(name: str, store: StoreFiles) -> None:
    lines = yaml_lines(Imported("k", "a" * 32, "pcl", (), store.trial("k")), config(), name)
    assert list(yaml.safe_load(lines)) == [name]
