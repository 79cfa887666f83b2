"""A program that writes checkpoints as PCL's code does for torchvision's networks, and does not import kdtune.

    python tests/pcl_files.py FOLDER LAYOUT…

For each layout it writes FOLDER/LAYOUT.pt, the state dict, and FOLDER/LAYOUT.out.pt: a batch of clips and what the
network says of them. Source: BestJuly/Pretext-Contrastive-Learning, train_vcp_contrast.py and models/pcl_net.py (R3D-18
pre-training), models/network.py (R18, R21D: fine-tuning; PC_VideoNet: other pretext tasks).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.video import r2plus1d_18, r3d_18


class Head(nn.Module):
    """PCL's projector."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, size))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.mlp(x), dim=1)


class Network(nn.Module):
    """A torchvision network without its classifier, numbered by nn.Sequential, with the heads of one script."""

    def __init__(self, model: nn.Module, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.base_network = nn.Sequential(*list(model.children())[:-1])
        for name, head in heads.items():
            self.add_module(name, head)

    def features(self, clips: Tensor) -> Tensor:
        """(B, n, 3, T, H, W) → (B, n, 512)."""
        return torch.stack([self.base_network(clips[:, c]).view(-1, 512) for c in range(clips.shape[1])], 1)


#: Layout → network, heads.
LAYOUTS = {
    "r18": (r3d_18, {"fc": (1536, 5), "projector": 128}),
    "r18_no_projector": (r3d_18, {"fc": (1536, 5)}),
    "r18_backbone": (r3d_18, {}),
    "r18_fine_tuned": (r3d_18, {"linear": (512, 7)}),
    "r18_other_tasks": (r3d_18, {"projector": 128, "fc_seq": (1024, 2), "fc_speed": (1024, 4)}),
    "r21d": (r2plus1d_18, {"projector": 128, "fc_seq": (1024, 2), "fc_speed": (1024, 4)}),
    "r21d_fine_tuned": (r2plus1d_18, {"linear": (512, 7)}),
}


def network(layout: str) -> Network:
    build, sizes = LAYOUTS[layout]
    heads = {name: Head(size) if name == "projector" else nn.Linear(*size) for name, size in sizes.items()}
    return Network(build(weights=None), heads)


@torch.no_grad()
def write(folder: Path, layout: str) -> None:
    torch.manual_seed(3)
    net = network(layout).eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm3d):  # other statistics than the default, so that a misplaced tensor is noticed
            for tensor, low in ((part.running_mean, -0.5), (part.running_var, 0.5), (part.weight, 0.5)):
                tensor.copy_(low + torch.rand(tensor.shape))
    torch.save(net.state_dict(), folder / f"{layout}.pt")
    clips = torch.randn(1, 3, 3, 8, 16, 16)
    features = net.features(clips)
    said = {"clips": clips, "features": features}
    for name, head in net.named_children():
        if name in ("fc", "linear", "projector"):
            said[name] = head(features.flatten(1)) if name == "fc" else head(features[:, 0])
    torch.save(said, folder / f"{layout}.out.pt")


if __name__ == "__main__":
    for wanted in sys.argv[2:]:
        write(Path(sys.argv[1]), wanted)
