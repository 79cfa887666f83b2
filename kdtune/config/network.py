"""The networks by name, their settings, and the smallest clip that each accepts."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from kdtune.config.fields import Section, broken

#: kdtune's own networks. All have a width, and all but C3D a depth.
Own = Literal["r3d", "r21d", "c3d", "tdn_light"]
#: torchvision's networks, unchanged.
Torchvision = Literal[
    "r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b"
]

#: Fewest frames and smallest side in pixels that a network's pools need. Networks not listed accept any clip. S3D's
#: pools need 5 frames, but below 8 oneDNN's gradient of its stem is wrong or crashes (torch 2.15).
SMALLEST: dict[str, tuple[int, int]] = {"c3d": (8, 16), "s3d": (8, 18)}

#: Smallest side in pixels at which a network's last stage has 2×2 positions, for `evaluation.features: conv5`. Networks
#: not listed have no last stage of convolutions, or more than an average after it.
SMALLEST_CONV5 = {"c3d": 32} | dict.fromkeys(("r3d", "r21d", "tdn_light", "r3d_18", "mc3_18", "r2plus1d_18"), 18)

#: Dimension of the pooled features of torchvision's networks.
TORCHVISION_FEATURES = (
    dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), 512)
    | dict.fromkeys(("mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s"), 768)
    | dict.fromkeys(("s3d", "swin3d_b"), 1024)
)


class NetworkConfig(Section):
    """A backbone and its size."""

    backbone: Own | Torchvision = "r3d"
    """The network. r3d, r21d and c3d are the papers'; tdn_light is a light 2D network with temporal differences,
    inspired by the published TDN but different from it; the others are torchvision's."""
    depth: Literal[10, 18] = 10
    """Number of layers of r3d, r21d and tdn_light: 10 means one block per stage (the papers), 18 two (torchvision)."""
    width: Annotated[int, Field(ge=4, le=1_000_000)] = 64
    """Channels of the first stage of r3d, r21d, c3d and tdn_light. Features have 8 × width dimensions."""
    init: Literal["torch", "kaiming"] | None = None
    """Initial weights of the convolutions of r3d, r21d, c3d and tdn_light: `torch` is PyTorch's default, as in PCL's
    networks; `kaiming` is He's normal initialisation by fan-out, as in torchvision. Default: `kaiming` for tdn_light,
    else `torch`."""

    @property
    def has_width(self) -> bool:
        return self.backbone in get_args(Own)

    @property
    def has_depth(self) -> bool:
        return self.has_width and self.backbone != "c3d"

    @property
    def initial_weights(self) -> Literal["torch", "kaiming"]:
        """`init` with its default filled in. It has no effect on torchvision's networks."""
        return self.init or ("kaiming" if self.backbone == "tdn_light" else "torch")

    @property
    def features(self) -> int:
        """Dimension of the pooled features; 512 for kdtune's own networks at width 64."""
        return TORCHVISION_FEATURES.get(self.backbone, 8 * self.width)

    @property
    def has_position_tables(self) -> bool:
        """Whether the weights hold position tables, whose sizes depend on the clip."""
        return self.backbone.startswith("mvit")

    def check_conv5(self, size: int) -> None:
        """Raise PydanticCustomError where `evaluation.features: conv5` is impossible with clips of size² pixels."""
        least = SMALLEST_CONV5.get(self.backbone)
        if least is None:
            raise broken(f"evaluation.features: conv5 needs one of {', '.join(sorted(SMALLEST_CONV5))}", self.backbone)
        if size < least:
            raise broken(f"evaluation.features: conv5 needs clip.size >= {least} for {self.backbone}", size)

    def check(self, frames: int, size: int, memory_format: str) -> None:
        """Raise PydanticCustomError where the network cannot process clips of `frames` frames of size² pixels."""
        fewest, smallest = SMALLEST.get(self.backbone, (1, 1))
        if frames < fewest or size < smallest:
            rule = f"{self.backbone} needs clip.frames >= {fewest} and clip.size >= {smallest}"
            raise broken(rule, f"frames={frames}, size={size}")
        if self.backbone == "tdn_light" and self.width < 8 and memory_format == "channels_last":
            # Without AVX-512, oneDNN then writes past its workspace in 1×1 convolutions of 4 channels and stride 2.
            rule = "tdn_light needs student.width >= 8 where memory_format is channels_last"
            raise broken(rule, f"width={self.width}")
