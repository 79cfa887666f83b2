"""Golden values: tiny trials of everything that the trainer can do, and their figures when last recorded.

    python tests/golden.py      # from the repository's root, with kdtune installed: trains them all, writes golden.json

Run this when results change on purpose, after raising TRAINER_SEMANTICS. It records this machine's profile. With the
same profile, every figure must be equal to the bit. With another CPU or torch, figures that depend on the data alone
must be equal, and losses and shares may differ by rounding.

The videos are rendered, so no codec's version matters.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, get_args

from helpers import bits, train
from tqdm import tqdm

from kdtune.clips.frames.rendered import rendered_clips
from kdtune.config.inherit import merge
from kdtune.config.key import TRAINER_SEMANTICS
from kdtune.config.network import Own, Torchvision
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.store.files import write_atomic
from kdtune.train.prepared import source_id
from kdtune.train.replay import differences
from kdtune.train.session import Session

FILE = Path(__file__).with_name("golden.json")
#: torchvision's networks have up to 88 million weights, and their checkpoints up to 0.7 GB.
LARGE = get_args(Torchvision)

# ---- the trials ------------------------------------------------------------------------------------------------------

#: 16 videos each for validation and test, and 24, half of the rest, for training: three steps per epoch.
VIDEOS: dict[str, Any] = {"classes": ("SpinLeft", "Rise", "Grow", "Shake"), "groups": 10, "clips": 2}

#: Learning rates are this low because fresh networks are chaotic: at 0.01 the last bits of the first step change the
#: sixth loss by up to a tenth, and no tolerance could tell another trainer from another CPU. The weight decay is high
#: enough to show at these rates.
OPTIMIZER: dict[str, Any] = {"batch": 8, "lr": 1e-4, "weight_decay": 10.0}
TINY: dict[str, Any] = {
    "data": {"dataset": "synthetic", "root": "rendered", "fraction": 0.5},
    "clip": {"frames": 8, "size": 32},
    "student": {"backbone": "r3d", "width": 4},
    "loss": {"negatives": 16, "bank_momentum": 0.25, "lambda": 0.75},
    "optimizer": OPTIMIZER,
    "evaluation": {"clips": 2},
    "epochs": 2,
    "stages": {"early": 1, "late": 2},
}
SHORT: dict[str, Any] = {"epochs": 1, "stages": {"late": 1}}
IN_BATCH = {"loss": {"contrast": "in_batch"}}
#: Fields that students change are explicit in their teachers, so that all students of a target share one teacher.
TAUGHT = {
    "teacher": {
        **SHORT,
        "student": {"backbone": "c3d"},
        "loss": {"contrast": "in_batch", "alpha": 0.5, "beta": 0.0, "gamma": 0.0},
        "optimizer": OPTIMIZER,
    }
}


#: For the more chaotic networks, in which many normalised layers follow each other, or each normalises few values.
#: S3D's last layers have a single value per clip.
RATES = {"r21d": 1e-6, "r2plus1d_18": 1e-6, "s3d": 1e-9}


def _network(backbone: str, depth: int = 10) -> dict[str, Any]:
    rate = RATES.get(backbone, OPTIMIZER["lr"]) * (0.1 if depth == 18 else 1.0)
    return {"student": {"backbone": backbone, "depth": depth}, "optimizer": {"lr": rate}}


def _trials() -> dict[str, TrialConfig]:
    changes: dict[str, list[dict[str, Any]]] = {}
    for backbone in get_args(Own):
        taught = [TAUGHT, _network(backbone)]
        changes[f"{backbone} memory_bank"] = taught
        changes[f"{backbone} in_batch"] = [*taught, IN_BATCH]
        changes[f"{backbone} action"] = [*taught, {"loss": {"target": "action"}}]
    changes |= {
        "r3d depth 18": [TAUGHT, _network("r3d", 18), IN_BATCH, SHORT],
        "r21d depth 18": [TAUGHT, _network("r21d", 18), IN_BATCH, SHORT],
        "no contrast": [TAUGHT, {"loss": {"alpha": 0.0}}],
        # Each term has its own weight, so that swapped weights show.
        "relations": [TAUGHT, {"loss": {"beta": 2.0}}],
        "features": [TAUGHT, {"loss": {"gamma": 3.0}}],
        "bf16": [SHORT, {"precision": "bf16"}],
        "channels_last": [SHORT, {"memory_format": "channels_last"}],
        "rgb": [SHORT, {"clip": {"modality": "rgb"}}],
        "start": [SHORT, {"start": SHORT}],
        "augmented per frame": [SHORT, {"augment": {"per": "frame"}}],
        # With this seed and these initial weights, the validation loss rises from the first epoch on: the rate is 1e-4
        # twice, 2e-5, and then the minimum instead of 4e-6; and the first weights are the best.
        "plateau": [
            {"student": {"init": "kaiming"}},
            {"seed": 3, "optimizer": {"patience": 0, "factor": 0.2, "min_lr": 5e-6}},
            {"epochs": 4, "stages": {"late": 4}},
        ],
        "best weights": [{"student": {"init": "kaiming"}}, {"seed": 3, "stage": {"weights": "best"}}],
        "other readings": [
            SHORT,
            {"seed": 1, "data": {"subset_seed": 1}, "clip": {"stride": "vcop", "interval": 4, "normalize": False}},
            {"pretext": {"spatial": "random", "temporal": "adjacent", "remote": "either"}},
            {"evaluation": {"transform": "train", "labels": "drawn", "neighbors": 3}},
        ],
    }
    few = {"data": {"fraction": 1 / 3}}
    changes |= {backbone: [_network(backbone), IN_BATCH, SHORT, few] for backbone in LARGE}
    trials = {name: TrialConfig.model_validate(reduce(merge, parts, TINY)) for name, parts in changes.items()}
    finetune = {"epochs": 2, "optimizer": OPTIMIZER}
    finetuned = TrialConfig.model_validate({**TINY, **SHORT, "finetune": finetune}).finetuned
    assert finetuned is not None
    return trials | {"fine-tuning": finetuned}


TRIALS = _trials()

# ---- making them and recording them ----------------------------------------------------------------------------------


def rendered_session(folder: Path) -> Session:
    """A session with rendered videos, whose store is in `folder`."""
    first = next(iter(TRIALS.values()))
    clips = rendered_clips(folder / "clips", first.clip.stored_size, **VIDEOS)
    return Session(StoreFiles(folder / "store"), {source_id(first.data, first.clip): str(clips.folder)})


@dataclass(frozen=True)
class Trained:
    """The trial's figures on this machine."""

    profile: dict[str, Any]
    figures: dict[str, Any]
    """Return {"epoch 1": its row without times, …, "weights_sha256": at the end}."""

    @classmethod
    def of(cls, name: str, session: Session) -> Trained:
        """Train the trial `name`, its teacher and its start first."""
        files = train(TRIALS[name], session.store, session)
        rows, weights = bits(files)
        result = files.result()
        assert result is not None
        if name in LARGE:
            files.checkpoint.unlink()
        figures = {f"epoch {row['epoch']}": row for row in rows}
        return cls(result["profile"], {**figures, "weights_sha256": weights})


def record() -> dict[str, Any]:
    """Return golden.json's content: semantics, profile, digest of the rendered frames, and each trial's figures."""
    with tempfile.TemporaryDirectory(prefix="kdtune-golden-") as folder:
        session = rendered_session(Path(folder))
        trials = {name: Trained.of(name, session) for name in tqdm(TRIALS, unit="trial")}
    profile = dict(next(iter(trials.values())).profile)
    frames = profile.pop("frames")
    figures = {name: trial.figures for name, trial in trials.items()}
    return {"semantics": TRAINER_SEMANTICS, "profile": profile, "frames": frames, "trials": figures}


def as_json(value: Any, indent: str = "") -> str:
    """Format with sorted keys and one line per innermost dictionary, so that a diff shows what changed."""
    if not isinstance(value, dict) or not any(isinstance(part, dict) for part in value.values()):
        return json.dumps(value, sort_keys=True)
    inner = f"{indent} "
    lines = [f"{inner}{json.dumps(name)}: {as_json(part, inner)}" for name, part in sorted(value.items())]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


# ---- comparing with what is recorded ---------------------------------------------------------------------------------

#: Tolerance of a loss under another profile: this share of it or, below 1, this much. Tried on one CPU with AVX-512 in
#: ten settings: as other CPUs compute (ATEN_CPU_CAPABILITY default and avx2, with or without ONEDNN_MAX_CPU_ISA from
#: SSE41 to AVX512_CORE and MKL_CBWR COMPATIBLE or AVX2), without oneDNN, with two threads. torchvision's networks were
#: not tried at their present size and rate. The largest difference seen was 1e-5, in R(2+1)D; in the others 3e-6; in
#: bf16 6e-4, which is as far as fp32 is from it.
LOSS = {"fp32": 1e-4, "bf16": 5e-3}
#: Tolerance of an accuracy: one of 16 videos. None was seen to change.
SHARE = 1 / 16
#: Tolerance of means over four classes, one of which a single video may change by 1.
PER_CLASS, SHARE_PER_CLASS = ("precision", "recall", "f1"), 1 / 4
#: Maximum number of figures named in a complaint.
SHOWN = 5

ADVICE = (
    "If this change of results is meant, raise TRAINER_SEMANTICS in kdtune/config/key.py and record anew with "
    "`python tests/golden.py`; else mend the change."
)


def complaint(golden: dict[str, Any], name: str, got: Trained) -> str:
    """Return which figures of a trial differ from the record, for the developer who changed them; empty if none."""
    now = {field: value for field, value in got.profile.items() if field != "frames"}
    then = {**golden["profile"], "precision": TRIALS[name].precision}
    # A field that is not recorded is unknown; the other fields tell whether this is the recorded machine.
    others = [f"{field} was {a!r}, is {b!r}" for field, a, b in differences(then, now) if field in then]
    mode = f"tolerant: {'; '.join(others)}" if others else "exact: the profile is the recorded one"
    found = [
        f"  {', '.join(path.split('.', 1))}: recorded {a!r}, got {b!r}"
        for path, b, a in differences(got.figures, golden["trials"][name])  # in the order in which they were made
        if not (others and _near(path, a, b, TRIALS[name].precision))
    ]
    if len(found) > SHOWN:
        found[SHOWN:] = [f"  … and {len(found) - SHOWN} more figures"]
    return "\n".join([f"{name} is not what golden.json says ({mode}):", *found, ADVICE]) if found else ""


def _near(path: str, recorded: Any, got: Any, precision: str) -> bool:
    """Return whether another profile may give `got`: not for data or learning rates, which no network rounds."""
    figure = path.split(".")[-1].removeprefix("best_")
    if ".per_video." in path:  # the means of these outcomes are compared
        return len(recorded) == len(got)
    if isinstance(recorded, str) and isinstance(got, str):
        return figure.endswith("_sha256") and figure != "samples_sha256"
    if not isinstance(recorded, float) or not isinstance(got, float) or figure == "lr" or figure.endswith("_majority"):
        return False
    if figure.endswith("_loss") or (".train." in path and not figure.endswith("_accuracy")):
        return abs(got - recorded) <= LOSS[precision] * max(1.0, abs(recorded))
    return abs(got - recorded) <= (SHARE_PER_CLASS if figure in PER_CLASS else SHARE)


if __name__ == "__main__":
    write_atomic(FILE, as_json(record()) + "\n")
