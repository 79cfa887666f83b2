"""PCL's checkpoints of torchvision's networks, written by a program that does not know kdtune (pcl_files.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from pcl_files import network
from published_networks import config, refusal, saved

from kdtune.models.heads import build_network
from kdtune.models.published import layout_of
from kdtune.store import StoreFiles
from kdtune.train.checkpoint import final_weights
from kdtune.train.importing.imports import import_checkpoint

torch.set_num_threads(1)

#: Layout, our backbone, target, imported heads.
LAYOUTS = [
    ("r18", "r3d", "pretext", ("head", "projector")),
    ("r18", "r3d_18", "pretext", ("head", "projector")),
    ("r18_no_projector", "r3d_18", "pretext", ("head",)),
    ("r18_backbone", "r3d_18", "pretext", ()),
    ("r18_fine_tuned", "r3d_18", "action", ("head",)),
    ("r18_other_tasks", "r3d_18", "pretext", ("projector",)),
    ("r21d", "r2plus1d_18", "pretext", ("projector",)),
    ("r21d_fine_tuned", "r2plus1d_18", "action", ("head",)),
]


WITH_IDS = [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in LAYOUTS]


@pytest.mark.parametrize(("layout", "backbone", "target", "heads"), WITH_IDS)
def test_every_tensor_has_a_place(layout: str, backbone: str, target: str, heads: tuple[str, ...]) -> None:
    own = config(backbone, depth=18, width=64, loss={"target": target})
    with torch.device("meta"):
        theirs = network(layout).state_dict()
        ours = build_network(own, 7 if target == "action" else 5).state_dict()
    found = layout_of(theirs, own.student)
    assert found is not None
    assert (found.name, found.backbone, found.target) == ("pcl", backbone, target)
    places = {found.theirs(name): value.shape for name, value in ours.items()}
    for name, value in theirs.items():
        assert found.drops(name) != (places.get(name) == value.shape)
    assert {name.split(".")[0] for name in ours if found.theirs(name) in theirs} == {"backbone", *heads}


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "backbone", "target", "heads"), WITH_IDS)
@torch.no_grad()
def test_a_file_of_pcls_code_gives_the_outputs_of_its_network(
    layout: str, backbone: str, target: str, heads: tuple[str, ...], tmp_path: Path, store: StoreFiles
) -> None:
    command = [sys.executable, ROOT / "tests" / "pcl_files.py", tmp_path, layout]
    subprocess.run(command, check=True, env={"PATH": "", "PYTHONPATH": ""})
    own = config(backbone, depth=18, width=64, loss={"target": target})
    imported = import_checkpoint(tmp_path / f"{layout}.pt", own, store)
    assert (imported.layout, imported.heads) == ("pcl", heads)

    theirs = torch.load(tmp_path / f"{layout}.out.pt")
    ours = build_network(own, 7 if target == "action" else 5).eval()
    missing, unexpected = ours.load_state_dict(final_weights(imported.files.checkpoint), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing}.isdisjoint({"backbone", *heads})
    features = ours.features(theirs["clips"])
    said = {"features": features}
    if "head" in heads:
        said["fc" if target == "pretext" else "linear"] = ours.logits(
            features if target == "pretext" else features[:, :1]
        )
    if "projector" in heads:
        said["projector"] = ours.projections(features)[0]
    assert said.keys() == theirs.keys() - {"clips"}
    for name, values in said.items():
        torch.testing.assert_close(values, theirs[name], rtol=1e-4, atol=1e-5)


NUMBERED = ["base_network.0.0.weight", "base_network.1.0.conv1.0.weight"]


@pytest.mark.parametrize(
    ("names", "backbone", "target", "complaint"),
    [
        (NUMBERED, "c3d", "pretext", "holds PCL's r3d_18, but student.backbone is c3d"),
        (
            [*NUMBERED, "base_network.0.3.weight"],
            "r3d",
            "pretext",
            "holds PCL's r2plus1d_18, but student.backbone is r3d",
        ),
        (
            [*NUMBERED, "linear.weight"],
            "r3d",
            "pretext",
            "has heads that learned action labels, but loss.target is pretext",
        ),
        ([*NUMBERED, "fc.weight"], "r3d", "action", "has heads that learned pretext labels, but loss.target is action"),
    ],
)
def test_what_does_not_fit_is_refused(
    names: list[str], backbone: str, target: str, complaint: str, tmp_path: Path, store: StoreFiles
) -> None:
    file = saved(tmp_path, {name: torch.zeros(1) for name in names})
    own = config(backbone, loss={"target": target})
    assert complaint in refusal(lambda: import_checkpoint(file, own, store))
