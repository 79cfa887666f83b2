"""Map the tensor names of published weights to kdtune's names. Names only, no torch.

pcl          PCL's and VCOP's code. After pre-training (models/pcl_net.py), the backbone has the prefix `base_network.`,
             and there are a pretext head `fc` and a `projector`. After fine-tuning (ft_classify.py), there is a
             classifier `linear`; only torchvision's networks (models/network.py) keep the prefix. The heads `fc_seq`
             and `fc_speed` of its networks for other pretext tasks (PC_VideoNet) are left out.
             Backbones: R3DNet, R2Plus1DNet and C3D, and torchvision's r3d_18 and r2plus1d_18 as an nn.Sequential with
             numbered parts: 0 is the stem, 1 to 4 are the stages.
torchvision  torchvision's video models, whose names our backbones keep. Their classifiers are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import get_args

from kdtune.config.network import NetworkConfig, Torchvision

#: Tensor that only one of PCL's backbones has → our name of that backbone.
PCL_BACKBONES = {
    "conv1.temporal_spatial_conv.weight": "r3d",
    "conv1.spatial_conv.weight": "r21d",
    "conv3a.weight": "c3d",
}
#: Part of torchvision's networks → PCL's number.
PCL_NUMBERED = {"stem": "0", **{f"layer{stage}": str(stage) for stage in range(1, 5)}}
#: A tensor of both numbered networks, and one that only r2plus1d_18 has.
PCL_NUMBERED_MARK, PCL_FACTORISED_MARK = "0.0.weight", "0.3.weight"
#: A tensor that only PCL's fine-tuned networks have, and PCL's heads for other pretext tasks, which are not imported.
PCL_CLASSIFIER, PCL_OTHER_HEADS = "linear.weight", ("fc_seq", "fc_speed")
#: Module of our heads → PCL's, in a pre-trained and in a fine-tuned network.
PRETEXT_HEADS = {"head": "fc", "projector.0": "projector.mlp.0", "projector.2": "projector.mlp.2"}
ACTION_HEADS = {"head": "linear"}
#: Names of the classifiers in torchvision's models.
CLASSIFIERS = ("fc", "classifier", "head")
#: Position of each C3D convolution in our nn.Sequential → PCL's number. Its normalisation comes next.
C3D_CONVOLUTIONS = {0: "1", 4: "2", 8: "3a", 11: "3b", 15: "4a", 18: "4b", 22: "5a", 25: "5b"}


@dataclass(frozen=True)
class Layout:
    """How one file names the tensors of one backbone and its heads."""

    name: str
    """pcl or torchvision."""
    backbone: str
    """The backbone that the names belong to, by our name."""
    modules: dict[str, str] = field(default_factory=dict)
    """pcl: our module → theirs."""
    target: str | None = None
    """pcl: the loss.target of the heads in this file."""
    parts: dict[str, str] = field(default_factory=dict)
    """pcl: our prefix → theirs, for parts with the same inner names."""

    def theirs(self, name: str) -> str | None:
        """Return their name of our tensor `name`; None where they have none."""
        if self.name == "torchvision":
            return name.removeprefix("backbone.") if name.startswith("backbone.") else None
        module, _, tensor = name.rpartition(".")
        if module in self.modules:
            return f"{self.modules[module]}.{tensor}"
        parts = (theirs + name.removeprefix(ours) for ours, theirs in self.parts.items() if name.startswith(ours))
        return next(parts, None)

    def drops(self, name: str) -> bool:
        """Return whether their tensor `name` belongs to a head that is not imported."""
        return name.split(".")[0] in (CLASSIFIERS if self.name == "torchvision" else PCL_OTHER_HEADS)


def layout_of(names: Collection[str], student: NetworkConfig) -> Layout | None:
    """Return the layout of a file with tensors of these names; None if they are neither PCL's nor torchvision's.

    Names of torchvision's are recognised only for a `student` with torchvision's shapes. PCL's names may belong to
    another backbone than the student's: compare them.
    """
    wrapped = any(name.startswith("base_network.") for name in names)
    prefix = "base_network." if wrapped else ""
    pretrained = wrapped and PCL_CLASSIFIER not in names
    heads, target = (PRETEXT_HEADS, "pretext") if pretrained else (ACTION_HEADS, "action")
    for mark, backbone in PCL_BACKBONES.items():
        if prefix + mark in names:
            pairs = _c3d_modules() if backbone == "c3d" else _residual_modules(backbone)
            modules = {f"backbone.{ours}": prefix + theirs for ours, theirs in pairs}
            return Layout("pcl", backbone, modules | heads, target)
    if prefix + PCL_NUMBERED_MARK in names:
        # Our r3d at depth 18 has the names and shapes of torchvision's r3d_18.
        backbone = "r2plus1d_18" if prefix + PCL_FACTORISED_MARK in names else "r3d_18"
        if student.backbone == "r3d" and backbone == "r3d_18":
            backbone = "r3d"
        parts = {f"backbone.{ours}.": f"{prefix}{number}." for ours, number in PCL_NUMBERED.items()}
        return Layout("pcl", backbone, dict(heads), target, parts)
    # Of our own networks, only r3d has torchvision's shapes.
    if student.backbone in (*get_args(Torchvision), "r3d") and not wrapped:
        return Layout("torchvision", student.backbone)
    return None


def _c3d_modules() -> Iterator[tuple[str, str]]:
    """Yield our name and PCL's for each module of C3D that has tensors."""
    for place, number in C3D_CONVOLUTIONS.items():
        yield f"layers.{place}", f"conv{number}"
        yield f"layers.{place + 1}", f"bn{number}"


def _residual_modules(backbone: str) -> Iterator[tuple[str, str]]:
    """Yield our name and PCL's for each module of R3DNet or R2Plus1DNet, with enough blocks for every depth."""
    # PCL makes each convolution a module of parts; ours is the convolution itself or a sequence of parts.
    if backbone == "r3d":
        parts, stem, stem_norm = {"": "temporal_spatial_conv"}, "stem.0", "stem.1"
    else:
        parts, stem, stem_norm = {".0": "spatial_conv", ".1": "bn", ".3": "temporal_conv"}, "stem", "stem.4"
    convolutions = [(stem, "conv1")]
    yield stem_norm, "bn1"
    for stage in range(1, 5):
        # PCL keeps the first block of a stage separate and the others in a list.
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
