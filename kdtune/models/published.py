"""The names under which others publish weights of these networks, and ours for the same tensors. Names only, no torch.

pcl          PCL's and VCOP's code: `base_network.` before the backbone, the pretext head `fc` and the `projector` after
             pre-training (models/vcopn.py); no prefix, and the classifier `linear`, after fine-tuning (ft_classify.py).
             Backbones: R3DNet, R2Plus1DNet and C3D.
torchvision  torchvision's video models, whose names our backbones keep; their classifiers are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import get_args

from kdtune.config.network import NetworkConfig, Torchvision

#: A tensor that only one of PCL's backbones has, and what we call that backbone.
PCL_BACKBONES = {
    "conv1.temporal_spatial_conv.weight": "r3d",
    "conv1.spatial_conv.weight": "r21d",
    "conv3a.weight": "c3d",
}
#: Our heads' modules and PCL's: of a pre-trained network, and of a fine-tuned one.
PRETEXT_HEADS = {"head": "fc", "projector.0": "projector.mlp.0", "projector.2": "projector.mlp.2"}
ACTION_HEADS = {"head": "linear"}
#: Where torchvision's models keep their classifiers.
CLASSIFIERS = ("fc", "classifier", "head")
#: The places of C3D's convolutions in our nn.Sequential, and PCL's numbers; the normalisation of each comes next.
C3D_CONVOLUTIONS = {0: "1", 4: "2", 8: "3a", 11: "3b", 15: "4a", 18: "4b", 22: "5a", 25: "5b"}


@dataclass(frozen=True)
class Layout:
    """How one file names the tensors of one backbone and its heads."""

    name: str
    """pcl or torchvision."""
    backbone: str
    """The backbone that the names belong to, as we call it."""
    modules: dict[str, str] = field(default_factory=dict)
    """pcl: our module → theirs."""
    target: str | None = None
    """pcl: the loss.target that heads in this file learned."""

    def theirs(self, name: str) -> str | None:
        """Their name of our tensor `name`, or None where they have none."""
        if self.name == "torchvision":
            return name.removeprefix("backbone.") if name.startswith("backbone.") else None
        module, _, tensor = name.rpartition(".")
        return f"{self.modules[module]}.{tensor}" if module in self.modules else None

    def drops(self, name: str) -> bool:
        """Is their `name` of a classifier, which no import keeps?"""
        return self.name == "torchvision" and name.split(".")[0] in CLASSIFIERS


def layout_of(names: Collection[str], student: NetworkConfig) -> Layout | None:
    """The layout of a file with these tensors, or None where they are neither PCL's nor, for `student`, torchvision's.

    PCL's may belong to another backbone than the student's: compare them.
    """
    pretrained = any(name.startswith("base_network.") for name in names)
    prefix = "base_network." if pretrained else ""
    for mark, backbone in PCL_BACKBONES.items():
        if prefix + mark in names:
            pairs = _c3d_modules() if backbone == "c3d" else _residual_modules(backbone)
            modules = {f"backbone.{ours}": prefix + theirs for ours, theirs in pairs}
            heads, target = (PRETEXT_HEADS, "pretext") if pretrained else (ACTION_HEADS, "action")
            return Layout("pcl", backbone, modules | heads, target)
    # Among our own, r3d alone has torchvision's shapes.
    if student.backbone in (*get_args(Torchvision), "r3d") and not pretrained:
        return Layout("torchvision", student.backbone)
    return None


def _c3d_modules() -> Iterator[tuple[str, str]]:
    """Our module and PCL's, for each module of C3D that has tensors."""
    for place, number in C3D_CONVOLUTIONS.items():
        yield f"layers.{place}", f"conv{number}"
        yield f"layers.{place + 1}", f"bn{number}"


def _residual_modules(backbone: str) -> Iterator[tuple[str, str]]:
    """The same for R3DNet and R2Plus1DNet, with as many blocks as any depth has."""
    # What stands for one convolution: there always a module of parts, here the convolution or a sequence of parts.
    if backbone == "r3d":
        parts, stem, stem_norm = {"": "temporal_spatial_conv"}, "stem.0", "stem.1"
    else:
        parts, stem, stem_norm = {".0": "spatial_conv", ".1": "bn", ".3": "temporal_conv"}, "stem", "stem.4"
    convolutions = [(stem, "conv1")]
    yield stem_norm, "bn1"
    for stage in range(1, 5):
        # Their first block of a stage stands by itself, the further ones in a list.
        for block, name in enumerate(("block1", "blocks.0")):
            ours, theirs = f"layer{stage}.{block}", f"conv{stage + 1}.{name}"
            for number in (1, 2):
                convolutions.append((f"{ours}.conv{number}.0", f"{theirs}.conv{number}"))
                yield f"{ours}.conv{number}.1", f"{theirs}.bn{number}"
            convolutions.append((f"{ours}.downsample.0", f"{theirs}.downsampleconv"))
            yield f"{ours}.downsample.1", f"{theirs}.downsamplebn"
    for ours, theirs in convolutions:
        for place, part in parts.items():
            yield ours + place, f"{theirs}.{part}"
