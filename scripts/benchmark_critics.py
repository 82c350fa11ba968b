"""Critics beside the likelihood: is the core found without a likelihood, and is the noise noise?

    python scripts/benchmark_critics.py --jobs 2 --json docs/benchmarks/critics.json

Fits ring, linked rings, trefoil and torus with both objectives of ``cnflow.fit``, the size of the core not given, one thread each.
Samples are written as they come; run again to go on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_rows import complete

import cnflow
from cnflow.data import PlantedDataModule

SETS = {"ring": 2, "linked_rings": 3, "trefoil": 3, "torus": 3}


def measure(name: str, objective: str, seed: int) -> dict[str, Any]:
    """One row of the table."""
    data = PlantedDataModule(name, seed=seed)
    x, sample = data.split("train").numpy(), data.sample("test")
    begun = time.perf_counter()
    flow = cnflow.fit(x, objective=objective, seed=seed)
    seconds = time.perf_counter() - begun
    test = data.split("test").numpy()
    check = cnflow.check_noise(flow, test, max_samples=10_000, seed=seed)
    gap = data.planted.log_prob(sample.x) - flow.log_prob(test).double().numpy()
    return {
        "set": name, "objective": objective, "seed": seed, "core": flow.core_dim,
        "candidates": list(flow.selection.candidates), "gap": float(gap.mean()), "auc": check.auc, "auc_se": check.auc_se,
        "seconds": seconds,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line per set and objective: medians over seeds, worst case in brackets."""
    lines = ["| set | objective | core right | gap, nats | AUC | seconds |", "|---" * 6 + "|"]
    for name, size in SETS.items():
        for objective in ("likelihood", "critics"):
            some = [r for r in rows if (r["set"], r["objective"]) == (name, objective)]
            if some:
                middle, worst = (
                    {key: f([r[key] for r in some]) for key in ("gap", "auc", "seconds")} for f in (np.median, max)
                )
                lines.append(
                    f"| {name} | {objective} | {sum(r['core'] == size for r in some)} of {len(some)} | {middle['gap']:.3f} "
                    f"({worst['gap']:.3f}) | {middle['auc']:.3f} ({worst['auc']:.3f}) | {middle['seconds']:.0f} |"
                )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark/critics.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, footer = complete(
        options.json,
        [(name, objective, seed) for seed in options.seeds for name in SETS for objective in ("likelihood", "critics")],
        ("set", "objective", "seed"),
        measure,
        lambda row: (
            f"{row['set']:12} {row['objective']:10} seed {row['seed']}: core {row['core']} of {row['candidates']}, gap "
            f"{row['gap']:.3f}, AUC {row['auc']:.3f}, {row['seconds']:.0f} s"
        ),
        jobs=options.jobs,
    )
    print(f"\n{table(rows)}\n\nMedian over seeds (worst in brackets). {footer}")


if __name__ == "__main__":
    main()
