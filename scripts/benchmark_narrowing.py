"""Planted sets: is the core found, is the density right, is the noise noise?

Trains every set with its shipped config, which names the data and nothing else, seed by seed, each run on one thread, and
prints the table that is committed under docs/benchmarks. Rows are written as they come; run again to go on.

    python scripts/benchmark_narrowing.py --jobs 2 --json docs/benchmarks/narrowing.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_rows import complete, train
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsRegressor

from cnflow.data import PlantedDataModule
from cnflow.flow import FixedGrid, NarrowingFlow, check_noise, load_flow

SETS = {
    "ring": (2,), "linked_rings": (3,), "trefoil": (3,), "torus": (3,), "sphere": (3,), "nested_clusters": (2,),
    "figure_eight": (2,), "chain": (3,), "clusters": (1, 2),
}  # fmt: skip
"""Core sizes that are right. One direction tells the four clusters apart, given which the other is Gaussian: 1 is right, too."""

SETTINGS = {
    "structure": [],
    # independent noise, but variances that say nothing, so that PCA is blind
    "independent": ["--data.init_args.noise=independent", "--data.init_args.equalize=true"],
}
QUIET = ["--run.figures=false", "--run.topology=false"]


def core_angle(flow: NarrowingFlow, x: torch.Tensor, plane: np.ndarray) -> float:
    """Mean sin² between the true plane and the one the core reads: top eigenvectors of E[Jᵀ C⁻¹ J], J = ∂core/∂x."""
    x = x.clone().requires_grad_(True)
    way = flow.transport(x, solver=FixedGrid("rk4", 12))
    core = way.z[:, flow.base.core]
    rows = [torch.autograd.grad(core[:, k].sum(), x, retain_graph=True)[0] for k in range(core.shape[1])]
    jacobian = torch.stack(rows, 1) / core.detach().std(0)[:, None]
    second = torch.einsum("nki,nkj->ij", jacobian, jacobian).double().numpy()
    found = np.linalg.eigh(second)[1][:, -core.shape[1] :]
    return float(1 - (np.linalg.norm(found.T @ plane) ** 2) / max(core.shape[1], plane.shape[1]))


def measure(name: str, setting: str, seed: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    seconds = train([name], seed, folder, [*QUIET, *SETTINGS[setting]])
    flow = load_flow(folder)
    overrides = {"noise": "independent", "equalize": True} if setting == "independent" else {}
    data = PlantedDataModule(name, seed=seed, **overrides)
    sample = data.sample("test")
    x = data.split("test")
    narrowed = flow.encode(x.numpy())
    true = -data.planted.log_prob(sample.x)
    gap = -narrowed.log_prob.double().numpy() - true
    check = check_noise(flow, x.numpy(), max_samples=10_000, seed=seed)
    r2 = 0.0
    if flow.core_dim:
        guess = cross_val_predict(KNeighborsRegressor(10), narrowed.core.numpy(), sample.structure, cv=5)
        r2 = r2_score(sample.structure, guess)
    return {
        "set": name, "noise": setting, "seed": seed, "core": flow.core_dim, "candidates": list(flow.selection.candidates),
        "nll": float(-narrowed.log_prob.mean()), "true_nll": float(true.mean()), "gap": float(gap.mean()),
        "gap_se": float(gap.std() / len(gap) ** 0.5), "auc": check.auc, "auc_se": check.auc_se, "r2": float(r2),
        "sin2": core_angle(flow, x[:1000], data.planted.core_plane) if flow.core_dim else 1.0, "seconds": seconds,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line per set and setting: medians over seeds, worst case in brackets."""
    head = "| set, noise | core right | NLL | true NLL | gap, nats | AUC | R² core → structure | sin² | seconds |"
    lines = [head, "|---" * 9 + "|"]
    for name in SETS:
        for setting in SETTINGS:
            some = [r for r in rows if r["set"] == name and r["noise"] == setting]
            if not some:
                continue

            def spread(key: str, digits: int, worst: Any, some: list[dict[str, Any]] = some) -> str:
                values = [r[key] for r in some]
                return f"{np.median(values):.{digits}f} ({worst(values):.{digits}f})"

            right = sum(r["core"] in SETS[r["set"]] for r in some)
            lines.append(
                f"| {name}, {setting} | {right} of {len(some)} | {np.median([r['nll'] for r in some]):.3f} | "
                f"{np.median([r['true_nll'] for r in some]):.3f} | {spread('gap', 3, max)} | {spread('auc', 3, max)} | "
                f"{spread('r2', 3, min)} | {spread('sin2', 4, max)} | {spread('seconds', 0, max)} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--settings", nargs="+", default=["structure"], choices=list(SETTINGS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark/narrowing.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, footer = complete(
        options.json,
        # by seed, so that a benchmark that is stopped has every set
        [(n, setting, s) for setting in options.settings for s in options.seeds for n in options.sets],
        ("set", "noise", "seed"),
        lambda name, setting, seed: measure(name, setting, seed, options.runs / f"{name}-{setting}-{seed}"),
        lambda row: (
            f"{row['set']:12} {row['noise']:11} seed {row['seed']}: core {row['core']} of {row['candidates']}, gap "
            f"{row['gap']:.3f}, AUC {row['auc']:.3f}, R² {row['r2']:.3f}, sin² {row['sin2']:.4f}, {row['seconds']:.0f} s"
        ),
        jobs=options.jobs,
    )
    print(f"\n{table(rows)}\n\nMedian over seeds (worst in brackets). {footer}")


if __name__ == "__main__":
    main()
