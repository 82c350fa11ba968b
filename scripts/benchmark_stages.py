"""Stages on planted sets: does the width fall to the truth, in the right order, and at what price?

Trains every set by penalties, configs/penalties, with configs/stages.yaml (in 32 dimensions stages_32d.yaml), each run on one
thread, and prints the tables that are committed under docs/benchmarks. Rows are written as they come; run again to go
on where it stopped.

    python scripts/benchmark_stages.py --jobs 2 --json docs/benchmarks/stages.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_narrowing import core_angle
from benchmark_rows import complete, train

from cnflow.data import PlantedDataModule
from cnflow.flow import FixedGrid, NarrowingFlow, check_noise, load_flow, spectrum

SETS = {"ring": 2, "clusters": 2, "linked_rings": 3, "trefoil": 3}
OVERLAYS = {8: "stages", 32: "stages_32d"}
WIDE = [
    "--data.init_args.dim=32", "--model.field.init_args.hidden=128", "--model.weight_decay=0.3", "--trainer.max_steps=1500",
]  # fmt: skip
"""One stage in 32 dimensions: field, weight decay and steps are those of configs/stages_32d.yaml, and so is the budget."""


def tasks(seeds: list[int], sets: list[str], dims: list[int]) -> list[tuple[str, str, int, int, int]]:
    """(set, noise, dim, stages, seed), the graded ring and the narrow sets first."""
    found = [("ring", "graded", 8, 4, seed) for seed in seeds if 8 in dims and "ring" in sets]
    for dim in dims:
        found += [(name, "structure", dim, stages, seed) for seed in seeds for name in sets for stages in (4, 1)]
    return found


def retirement_order(flow: NarrowingFlow, grades: np.ndarray, noise_plane: np.ndarray) -> list[float]:
    """Mean stage boundary at which noise of each grade is first retired: 0 never active, S active to the end.

    A direction of the flow counts for a grade by its share in the plane of that grade.
    """
    last = torch.stack([stage.active for stage in flow.stages]).sum(0).double().numpy()
    noise = ~flow.base.core.numpy()
    axes = flow.frame.rotation.detach().double().numpy()
    share = np.stack([((axes @ noise_plane[:, grades == g]) ** 2).sum(1) for g in range(3)], 1)[noise]
    return [float(v) for v in (share * last[noise][:, None]).sum(0) / share.sum(0)]


def measure(name: str, noise: str, dim: int, stages: int, seed: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    overrides = ["--run.figures=false", f"--data.init_args.noise={noise}", *(WIDE if (dim, stages) == (32, 1) else [])]
    seconds = train([name, f"penalties/{name}", *([OVERLAYS[dim]] if stages > 1 else [])], seed, folder, overrides)
    flow = load_flow(folder)
    data = PlantedDataModule(name, dim=dim, noise=noise, seed=seed)
    x = data.split("test")
    nll = -flow.log_prob(x.numpy()).double().numpy()
    true = -data.planted.log_prob(data.sample("test").x)
    check = check_noise(flow, x.numpy(), max_samples=10_000, seed=seed, n_permutations=19)
    row: dict[str, Any] = {
        "set": name, "noise": noise, "dim": dim, "stages": stages, "seed": seed, "profile": list(flow.width_profile),
        "true_core": SETS[name], "nll": float(nll.mean()), "true_nll": float(true.mean()), "gap": float((nll - true).mean()),
        "auc": check.auc, "auc_se": check.auc_se, "seconds": seconds,
        "sin2": core_angle(flow, x[:1000], data.planted.core_plane) if flow.core_dim else 1.0,
    }  # fmt: skip
    if noise == "graded":
        row["retired_at"] = retirement_order(flow, data.planted.grades, data.planted.noise_plane)
    if stages > 1:
        depths = [flow.stages.depth(s) for s in range(stages + 1)]
        flow.evaluation = FixedGrid("rk4", 12)  # within 1e-3 nats of the adaptive solver, sample by sample, and faster
        found = spectrum(flow, depth=depths, n_bootstrap=0, n=20_000, seed=seed)
        row["above_null"] = [int(n) for n in found.n_above]
    return row


def profile_text(some: list[dict[str, Any]]) -> str:
    """Median width profile of some samples."""
    return " → ".join(f"{width:g}" for width in np.median([r["profile"] for r in some], axis=0))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: four stages beside one, medians over seeds, worst case in brackets; then the graded ring."""
    head = (
        "| set, D | width profile | core right, 4 stages / 1 | gap to the true NLL: 4 stages | 1 stage | difference | "
        "AUC, 4 stages | eigenvalues above null = width | seconds: 4 stages | 1 stage |"
    )
    lines = [head, "|---" * 10 + "|"]
    for dim in (8, 32):
        for name in SETS:
            groups = {
                stages: {
                    r["seed"]: r for r in rows
                    if (r["set"], r["noise"], r["dim"], r["stages"]) == (name, "structure", dim, stages)
                }
                for stages in (4, 1)
            }  # fmt: skip
            if not groups[4] or not groups[1]:
                continue
            four, one = list(groups[4].values()), list(groups[1].values())
            both = [groups[4][seed]["gap"] - groups[1][seed]["gap"] for seed in groups[4] if seed in groups[1]]
            right = [sum(r["profile"][-1] == r["true_core"] for r in some) for some in (four, one)]
            falling = sum(r["profile"] == sorted(r["profile"], reverse=True) for r in four)
            match = np.mean([a == b for r in four for a, b in zip(r["above_null"], r["profile"], strict=True)])
            lines.append(
                f"| {name}, {dim} | {profile_text(four)} ({falling} of {len(four)} never rise) | {right[0]} of {len(four)} / "
                f"{right[1]} of {len(one)} | {_spread(four, 'gap')} | {_spread(one, 'gap')} | "
                f"{np.median(both):+.3f} ({max(both):+.3f}) | {_spread(four, 'auc')} | {match:.0%} | "
                f"{_spread(four, 'seconds', 0)} | {_spread(one, 'seconds', 0)} |"
            )
    graded = [r for r in rows if r["noise"] == "graded"]
    if graded:
        lines += ["", "| graded ring, D = 8, seed | width profile | mean boundary at which noise retires: none / shear / warp "
                  "| gap | AUC |", "|---" * 5 + "|"]  # fmt: skip
        for r in graded:
            stages = " / ".join(f"{value:.2f}" for value in r["retired_at"])
            lines.append(
                f"| {r['seed']} | {' → '.join(map(str, r['profile']))} | {stages} | {r['gap']:.3f} | {r['auc']:.3f} |"
            )
    return "\n".join(lines)


def _spread(some: list[dict[str, Any]], key: str, digits: int = 3) -> str:
    values = [r[key] for r in some]
    return f"{np.median(values):.{digits}f} ({max(values):.{digits}f})"


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 32], choices=[8, 32])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark_stages"))
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark_stages/stages.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, footer = complete(
        options.json,
        tasks(options.seeds, options.sets, options.dims),
        ("set", "noise", "dim", "stages", "seed"),
        lambda *task: measure(*task, options.runs / "-".join(map(str, task))),
        lambda row: (
            f"{row['set']:12} {row['noise']:9} D = {row['dim']}, {row['stages']} stages, seed {row['seed']}: {row['profile']} "
            f"(core {row['true_core']}), gap {row['gap']:.3f}, AUC {row['auc']:.3f}, above null {row.get('above_null')}, "
            f"{row['seconds']:.0f} s"
        ),
        jobs=options.jobs,
    )
    print(f"\n{table(rows)}\n\nMedian over seeds (worst in brackets). {footer}")


if __name__ == "__main__":
    main()
