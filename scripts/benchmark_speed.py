"""One training step beside zuko's CNF with exact trace: same net, same batch, one thread, side by side.

pip install 'cnflow[benchmark]'
python scripts/benchmark_speed.py --json docs/benchmarks/speed.json
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cnflow.data import PlantedDataModule
from cnflow.flow import FixedGrid, MLPField, NarrowingFlow

BATCH = 512


def ours(x: torch.Tensor, hidden: int, depth: int, costs: bool) -> Callable[[], float]:
    """A step of this package: midpoint with 6 steps, closed-form divergence; with the transport budget if asked."""
    flow = NarrowingFlow(
        x.shape[1],
        field=MLPField(hidden, depth, "tanh"),
        components=16,
        solver=FixedGrid("midpoint", 6),
    )
    flow.initialise(x)
    optimiser = torch.optim.AdamW(flow.parameters(), lr=1e-3)
    probe = torch.randint(0, 2, (BATCH, x.shape[1])).float() * 2 - 1

    def step() -> float:
        batch = x[torch.randint(len(x), (BATCH,))]
        way = flow.transport(batch, probe=probe if costs else None, costs=costs)
        loss = -(flow.base.log_prob(way.z) + way.log_det).mean()
        if costs:
            budget = 0.01 * (way.kinetic.mean() + way.jacobian.mean())
            loss = loss + budget + 0.25 * flow.base.columns().clamp_max(0.9).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def zukos(x: torch.Tensor, hidden: int, depth: int) -> Callable[[], float]:
    """A step of zuko's CNF: its defaults (dopri5, adjoint by its own solver, exact trace), the same net."""
    import zuko

    flow = zuko.flows.CNF(x.shape[1], hidden_features=(hidden,) * depth, activation=torch.nn.Tanh, exact=True, freqs=3)
    optimiser = torch.optim.AdamW(flow.parameters(), lr=1e-3)
    scaled = (x - x.mean(0)) / x.std()

    def step() -> float:
        batch = scaled[torch.randint(len(x), (BATCH,))]
        loss = -flow().log_prob(batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def main() -> None:
    """Time alternating blocks, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="steps per block")
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 24])
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for dim in options.dims:
        x = torch.as_tensor(PlantedDataModule("ring", dim=dim, n=5000, n_test=10).split("train"))
        for depth in (2, 3):
            # midway through training fields are no longer zero, and an adaptive solver takes more steps; at the start
            # it takes the fewest, so these ratios favour zuko
            contenders = {
                "zuko": zukos(x, 64, depth),
                "cnflow, likelihood": ours(x, 64, depth, costs=False),
                "cnflow, likelihood + budget + columns": ours(x, 64, depth, costs=True),
            }
            times: dict[str, list[float]] = {name: [] for name in contenders}
            for step in contenders.values():
                step()
            for _ in range(options.repeats):
                for name, step in contenders.items():
                    start = time.perf_counter()
                    for _ in range(options.steps):
                        step()
                    times[name].append((time.perf_counter() - start) / options.steps)
            for name, values in times.items():
                ratios = np.array(times["zuko"]) / np.array(values)
                rows.append(
                    {
                        "dim": dim,
                        "hidden": f"{depth} x 64",
                        "step": name,
                        "ms": 1e3 * float(np.median(values)),
                        "ratio": float(np.median(ratios)),
                        "ratio_min": float(ratios.min()),
                        "ratio_max": float(ratios.max()),
                    }
                )
    print("| D | hidden | step of | median ms | times faster than zuko, median (min–max) |\n|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['dim']} | {r['hidden']} | {r['step']} | {r['ms']:.1f} | "
            f"{r['ratio']:.1f} ({r['ratio_min']:.1f}–{r['ratio_max']:.1f}) |"
        )
    versions = {name: importlib.metadata.version(name) for name in ("torch", "zuko")}
    note = f"batch {BATCH}, tanh, one thread, {options.repeats} alternating blocks of {options.steps} steps"
    print(f"\n{platform.machine()}; {note}; {versions}.")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"note": note, "versions": versions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
