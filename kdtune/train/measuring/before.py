"""Compute what a trial's network costs before the trial is trained, once for each shape of network.

torch is imported when a network is measured: a sweep whose ledger holds all costs needs none.
"""

from __future__ import annotations

from collections.abc import Collection

from kdtune.clips.dataset import TrialData
from kdtune.clips.tuples import PRETEXT_CLASSES
from kdtune.config.key import canonical, digest
from kdtune.config.trial import TrialConfig
from kdtune.train.prepared import Prepared


class NetworkCosts:
    """The costs of trials' networks on one kind of device, `cpu` or `cuda`."""

    def __init__(self, prepared: Prepared, device: str) -> None:
        self.prepared, self.device = prepared, device
        self._classes: dict[str, int] = {}

    def shape(self, config: TrialConfig) -> str:
        """Return a digest that is equal for networks of equal cost. The trial's data must be prepared."""
        form = canonical(config)
        clip = {name: form["clip"][name] for name in ("frames", "size", "modality")}
        head = [config.loss.target, self._head(config)]
        return digest([form["student"], clip, *head, config.threads, config.precision, self.device])

    def _head(self, config: TrialConfig) -> int:
        """Return the number of classes of the trial's head."""
        if config.loss.target == "pretext":
            return PRETEXT_CLASSES
        clips = self.prepared.clips(config)
        if clips.manifest not in self._classes:
            self._classes[clips.manifest] = TrialData.of(config, clips).classes
        return self._classes[clips.manifest]

    def measure(self, config: TrialConfig, metrics: Collection[str]) -> dict[str, float]:
        """Return the named costs: `parameters`, `gmac`, `clip_ms` (see config/metrics.py).

        The first two need neither the device nor memory for the network. `clip_ms` is measured on the device, while
        whatever else runs on this machine. Leaves torch's settings as they were.
        """
        found: dict[str, float] = {}
        if not {"parameters", "gmac"}.isdisjoint(metrics):
            counted = _counted(config, self._head(config))
            found |= {name: counted[name] for name in ("parameters", "gmac") if name in metrics}
        if "clip_ms" in metrics:
            found["clip_ms"] = 1000 * self._seconds(config)
        return found

    def _seconds(self, config: TrialConfig) -> float:
        import torch

        from kdtune.models.heads import build_network
        from kdtune.train.measuring.cost import clip_cost
        from kdtune.train.profile import make_deterministic, settings_kept
        from kdtune.train.session import choose_device

        with settings_kept():
            make_deterministic(config)
            device = choose_device(self.device)
            network = build_network(config, self._head(config)).to(device)
            return clip_cost(network, torch.zeros(_clip_shape(config), device=device))[1]


def _clip_shape(config: TrialConfig) -> tuple[int, ...]:
    return (1, 3, config.clip.frames, config.clip.size, config.clip.size)


def _counted(config: TrialConfig, classes: int) -> dict[str, float]:
    """Return `parameters` and `gmac` of the network, from tensors that have shapes but no content."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from kdtune.models.heads import build_network

    meta = torch.device("meta")
    try:
        with meta:
            network = build_network(config, classes)
    except (RuntimeError, NotImplementedError):  # torchvision's transformers compute numbers when they are built
        network = build_network(config, classes).to(meta)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.backbone.eval()(torch.zeros(_clip_shape(config), device=meta))  # no autocast, which meta tensors lack
    parameters = sum(p.numel() for part in (network.backbone, network.head) for p in part.parameters())
    return {"parameters": parameters, "gmac": counter.get_total_flops() // 2 / 1e9}
