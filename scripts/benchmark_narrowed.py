"""What retiring directions saves: the last stage of a pruned flow beside the same stage unpruned, one thread.

    python scripts/benchmark_narrowed.py --json docs/benchmarks/narrowed.json

A quarter of the directions is active in the last stage of the pruned flow. Timed is the exact log-density of its active
state, p(active), from the last stage boundary on, on the same fixed grid.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

from cnflow.flow import FixedGrid, MLPField, NarrowingFlow

STAGES = 4


def flows(dim: int, hidden: int, rows: int) -> tuple[NarrowingFlow, NarrowingFlow]:
    """An unpruned flow whose fields are not zero, and the same flow with 1, 3/4, 1/2, 1/4 of its directions active."""
    torch.manual_seed(0)
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        flow = NarrowingFlow(dim, field=MLPField(hidden, 2, "tanh"), components=16, stages=STAGES)
        with torch.no_grad():
            for field in flow.fields():
                field.out.weight.normal_(std=0.3 / hidden**0.5)
        made.append(flow)
    whole, narrow = made
    share = torch.arange(STAGES).flip(0)[:, None] + 1
    active = torch.arange(dim)[None] < share * dim / STAGES
    x = torch.randn(rows, dim)
    narrow.prune(active[-1], active, x)
    return whole, narrow


def main() -> None:
    """Time alternating blocks, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--evaluations", type=int, default=5, help="evaluations per block")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for dim, hidden in ((8, 64), (24, 128), (32, 128), (64, 128)):
        pair = flows(dim, hidden, 2048)
        cuts = [flow.at(STAGES - 1) for flow in pair]
        states = [cut.sample((options.rows,)) for cut in cuts]
        grid = FixedGrid("rk4", 8 * STAGES)
        times: list[list[float]] = [[], []]
        with torch.no_grad():
            for _ in range(options.repeats + 1):
                for cut, state, taken in zip(cuts, states, times, strict=True):
                    start = time.perf_counter()
                    for _ in range(options.evaluations):
                        cut.log_prob(state, solver=grid)
                    taken.append((time.perf_counter() - start) / options.evaluations)
        whole, narrow = (np.array(taken[1:]) for taken in times)  # the first block warms up
        ratio = whole / narrow
        units = [flow.stages[-1].field.units for flow in pair]
        rows.append(
            {
                "dim": dim,
                "active": [cut.width for cut in cuts],
                "units": units,
                "ms": [1e3 * float(np.median(taken)) for taken in (whole, narrow)],
                "ratio": float(np.median(ratio)),
                "ratio_min": float(ratio.min()),
                "ratio_max": float(ratio.max()),
            }
        )
    print(
        "| active in the last stage: unpruned → pruned | hidden units | ms: unpruned | pruned | times faster, median (min–max) |"
    )
    print("|---" * 5 + "|")
    for r in rows:
        (a, b), (u, v), (s, t) = r["active"], r["units"], r["ms"]
        print(
            f"| {a} → {b} | 2 × {u} → 2 × {v} | {s:.1f} | {t:.1f} | {r['ratio']:.1f} ({r['ratio_min']:.1f}–{r['ratio_max']:.1f}) |"
        )
    versions = {"torch": importlib.metadata.version("torch")}
    blocks = f"{options.repeats} alternating blocks of {options.evaluations} evaluations"
    note = f"{options.rows} samples, rk4 with 8 steps, one thread, {blocks}"
    print(f"\n{platform.machine()}; {note}; {versions}.")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"note": note, "versions": versions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
