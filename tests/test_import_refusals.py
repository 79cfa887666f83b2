"""Files that `teacher import` refuses: hostile, damaged, or of another network."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from published_networks import base_network, config, pretrained, refusal, saved

from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.store import StoreFiles
from kdtune.train.importing.imports import import_checkpoint


class Bomb:
    """What a hostile file does to a loader that executes code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_loading_never_runs_code(way: str, tmp_path: Path, store: StoreFiles) -> None:
    trace, file = tmp_path / "trace", tmp_path / "hostile.pt"
    content = {"state_dict": pretrained().state_dict(), "bomb": Bomb(trace)}
    if way == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    said = refusal(lambda: import_checkpoint(file, config(), store))
    assert not trace.exists()
    assert "it could run code" in said
    assert "weights_only" not in said, "torch's advice is to run it"
    torch.load(saved(tmp_path, Bomb(trace)), weights_only=False)
    assert trace.exists(), "the file would have done it"


def test_a_whole_module_is_refused(tmp_path: Path, store: StoreFiles) -> None:
    file = saved(tmp_path, base_network("r3d"))
    assert "it could run code" in refusal(lambda: import_checkpoint(file, config(), store))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
        ({"epoch": 3, "state_dict": {}}, "holds no state dict"),
        ({"a": torch.zeros(2), "b": 3}, "holds no state dict"),
        ({0: torch.zeros(2)}, "holds no state dict"),
        (torch.zeros(2), "holds no state dict"),
    ],
    ids=["empty", "a list", "an empty one", "mixed", "numbered", "a tensor"],
)
def test_other_content_is_refused(content: Any, words: str, tmp_path: Path, store: StoreFiles) -> None:
    assert words in refusal(lambda: import_checkpoint(saved(tmp_path, content), config(), store))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, store: StoreFiles) -> None:
    assert "No such file" in refusal(lambda: import_checkpoint(tmp_path / "absent.pt", config(), store))
    assert "Is a directory" in refusal(lambda: import_checkpoint(tmp_path, config(), store))
    file = saved(tmp_path, pretrained().state_dict())
    file.write_bytes(file.read_bytes()[:5000])
    assert "is damaged" in refusal(lambda: import_checkpoint(file, config(), store))
    file.write_text("no tensors\n")
    assert "is damaged" in refusal(lambda: import_checkpoint(file, config(), store))


def test_all_problems_come_in_one_message(tmp_path: Path, store: StoreFiles) -> None:
    state = pretrained().state_dict()
    state["fc.weight"] = torch.zeros(6, 96)
    state["fc.bias"] = torch.zeros(6)
    state["projector.mlp.2.weight"] = torch.zeros(64, 32)
    state["base_network.bn1.weight"] = torch.ones(4, dtype=torch.long)
    state["base_network.bn1.bias"][1:3] = torch.tensor([torch.inf, torch.nan])
    state["base_network.bn1.running_var"] = torch.ones(4).to_sparse()
    del state["base_network.conv2.block1.bn2.weight"]
    state["memory"] = torch.zeros(3, 2)
    said = refusal(lambda: import_checkpoint(saved(tmp_path, state), config(), store))
    for words in (
        "fc: has 6 outputs, this network's pretext head 5",
        "projector.mlp.2.weight: got the shape [64, 32], expected the shape [128, 32]",
        "base_network.bn1.weight: got the type torch.int64, expected torch.float32",
        "base_network.bn1.bias: is not finite in 2 of 4 places",
        "base_network.bn1.running_var: is sparse",
        "base_network.conv2.block1.bn2.weight: is missing, expected the shape [4]",
        "memory: is unknown, got the shape [3, 2]",
    ):
        assert words in said
    assert said.count("\n") == 6, "each problem once"
    assert not (store.root / "trials").exists(), "nothing was written"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (config("c3d"), "holds PCL's r3d, but student.backbone is c3d (allowed: student.backbone: r3d)"),
        (config("r3d_18"), "holds PCL's r3d, but student.backbone is r3d_18"),
        (config("r3d", loss={"target": "action"}), "has heads that learned pretext labels, but loss.target is action"),
        (config("r3d", depth=18), "conv2.blocks.0.conv1.temporal_spatial_conv.weight: is missing"),
        (config("r3d", width=8), "weight: got the shape [4, 4, 3, 3, 3], expected the shape [8, 8, 3, 3, 3]"),
    ],
    ids=["backbone", "torchvision", "target", "depth", "width"],
)
def test_weights_of_another_network_are_refused(
    own: TrialConfig, words: str, tmp_path: Path, store: StoreFiles
) -> None:
    file = saved(tmp_path, pretrained().state_dict())
    said = refusal(lambda: import_checkpoint(file, own, store))
    assert words in said
    assert len(said.splitlines()) <= 11
    assert str(file) in said


def test_long_lists_are_cut_and_counted(tmp_path: Path, store: StoreFiles) -> None:
    state = pretrained(depth=18).state_dict()
    said = refusal(lambda: import_checkpoint(saved(tmp_path, state), config(), store))
    extra = len(state) - len(pretrained().state_dict())
    assert f"and {extra - 10} more such problems; is the file for this network, r3d depth 10 width 4?" in said
    assert len(said.splitlines()) == 11


def test_an_action_head_of_another_task_is_refused(tmp_path: Path, store: StoreFiles) -> None:
    file = saved(tmp_path, base_network("c3d", classes=7).state_dict())
    said = refusal(lambda: import_checkpoint(file, config("c3d"), store))
    assert "has heads that learned action labels, but loss.target is pretext" in said


@pytest.mark.parametrize("backbone", ["c3d", "r21d", "tdn_light"])
def test_unknown_names_are_refused(backbone: str, tmp_path: Path, store: StoreFiles) -> None:
    file = saved(tmp_path, {"features.0.weight": torch.zeros(2), "features.0.bias": torch.zeros(2)})
    said = refusal(lambda: import_checkpoint(file, config(backbone), store))
    assert f"holds no weights of {backbone} under known names; its first names are features.0.weight" in said


def test_our_own_checkpoint_is_imported_by_its_folder(tmp_path: Path, store: StoreFiles) -> None:
    file = saved(tmp_path, {"epoch": 3, "network": build_network(config()).state_dict()})
    assert "import the folder of its trial" in refusal(lambda: import_checkpoint(file, config(), store))
