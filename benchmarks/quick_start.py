"""Count how often the quick start ends with a decided answer: several search seeds, on one or two instruction sets.

    python benchmarks/quick_start.py                       # search seeds 0 to 9 on this CPU
    python benchmarks/quick_start.py --isa avx2 --seeds 5  # as a CPU without AVX-512 computes, seeds 0 to 4
    python benchmarks/quick_start.py --store /tmp/quick    # resumes there

Each run is `kdtune sweep sweeps/lambda_tau.yaml` with another `search.seed`, so with other candidates. The runs of an
instruction set share a store: teachers, controls and equal candidates are trained once. A run is decided if a block's
race ended with `better` or `worse`. Printed are each block's decision, the leader's gain with its corrected interval in
points, the trainings and processor seconds that the run took, and the decided share.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from common import ROOT, command, machine_line, parser, print_table, say, this_machine, write_json
from kdtune.config.load import load_sweep
from kdtune.history.reading import read_history
from kdtune.store import StoreFiles

FILE = "sweeps/lambda_tau.yaml"
#: Variables that make torch and oneDNN compute as on a CPU with these vector instructions.
ISA = {"native": {}, "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}
DECIDED = ("better", "worse")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=10, help="number of search seeds, from --from on (default: 10)")
    options.add_argument("--from", type=int, default=0, dest="first", help="the first search seed (default: 0)")
    options.add_argument("--isa", choices=ISA, default="native", help="instruction set (default: this CPU's)")
    options.add_argument("--store", type=Path, help="keep teachers and trials here (default: a temporary folder)")
    options.add_argument("--backend", choices=("inprocess", "ray"), default="inprocess")
    args = options.parse_args()
    with nullcontext(args.store) if args.store else tempfile.TemporaryDirectory(prefix="kdtune-quick-") as folder:
        found = [run(Path(folder) / args.isa, seed, args) for seed in range(args.first, args.first + args.seeds)]
    machine = {**this_machine(load_sweep(ROOT / FILE).trial), "cpu_capability": found[0]["cpu_capability"]}
    print(machine_line(machine))
    rows = [
        (one["seed"], name, *block.values(), one["trainings"], f"{one['cpu_seconds']:.0f}")
        for one in found
        for name, block in one["blocks"].items()
    ]
    print_table(("search seed", "block", "decision", "seeds", "gain", "from", "to", "trainings", "CPU seconds"), rows)
    decided = sum(any(block["decision"] in DECIDED for block in one["blocks"].values()) for one in found)
    print(f"\ndecided: {decided} of {len(found)}")
    write_json(args.out, {"machine": machine, "isa": args.isa, "runs": found})


def run(folder: Path, seed: int, args: Any) -> dict[str, Any]:
    """Run the sweep with this search seed; return its decisions and what it took."""
    name, store = f"quick_start_{seed}", folder / "runs"
    changes = {"name": name, "search.seed": seed, "data.root": folder / "videos", "tracking.models": "none"}
    arguments = [sys.executable, "-m", "kdtune", "sweep", FILE, "--store", str(store), "--backend", args.backend]
    for key, value in changes.items():
        arguments += ["--set", f"{key}={value}"]
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{(folder / 'mlflow.db').absolute()}"}
    folder.mkdir(parents=True, exist_ok=True)
    before = len(list(StoreFiles(store).trials()))
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command(arguments, {**ISA[args.isa], **tracking})
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began
    blocks = {label: _block(block) for label, block in read_history(StoreFiles(store), name).blocks.items()}
    say(f"search seed {seed}: {', '.join(block['decision'] for block in blocks.values())}; {seconds:.0f} CPU seconds")
    trainings = len(list(StoreFiles(store).trials())) - before
    profiles = {(files.result() or {})["profile"]["cpu_capability"] for files in StoreFiles(store).trials()}
    shared = {"cpu_capability": ", ".join(sorted(profiles)), "trainings": trainings, "cpu_seconds": seconds}
    return {"seed": seed, "blocks": blocks, **shared}


def _block(block: Any) -> dict[str, Any]:
    """Return how a block's race ended: its decision, and the leader's gain with its interval in points."""
    race = block.race
    mean, low, high = race.last.gains[race.last.leader]
    ends = ("–" if end is None else f"{end:+.1f}" for end in (low, high))
    return dict(
        zip(
            ("decision", "seeds", "gain", "from", "to"), (race.decision, race.seeds, f"{mean:+.1f}", *ends), strict=True
        )
    )


if __name__ == "__main__":
    main()
