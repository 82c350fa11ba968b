"""Stages on planted sets: does the width fall to the truth, in the right order, and at what price?

Trains every set with its shipped config and configs/stages.yaml (in 32 dimensions stages_32d.yaml), each run on one thread, and prints the
tables that are committed under docs/benchmarks. Rows are written as they come; run again to go on where it stopped.

    python scripts/benchmark_stages.py --jobs 2 --json docs/benchmarks/stages.json
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_narrowing import ROOT, SETS, core_angle

from cnflow.data import PlantedDataModule
from cnflow.flow import FixedGrid, NarrowingFlow, check_noise, load_flow, spectrum

OVERLAYS = {8: "stages.yaml", 32: "stages_32d.yaml"}
WIDE = [
    "--data.init_args.dim=32", "--model.field.init_args.hidden=128", "--model.weight_decay=0.3", "--trainer.max_steps=1500",
]  # fmt: skip
"""One stage in 32 dimensions: field, weight decay and steps are those of configs/stages_32d.yaml, and so is the budget."""


def tasks(seeds: list[int], sets: list[str], dims: list[int]) -> list[tuple[str, str, int, int, int]]:
    """(set, noise, dim, stages, seed), the graded ring and the narrow sets first."""
    found = [("ring", "graded", 8, 4, seed) for seed in seeds if 8 in dims and "ring" in sets]
    for dim in dims:
        # with one stage the narrow sets are those of benchmark_narrowing.py
        both = (4, 1) if dim > 8 else (4,)
        found += [(name, "structure", dim, stages, seed) for seed in seeds for name in sets for stages in both]
    return found


def one_stage_rows() -> list[dict[str, Any]]:
    """The rows of docs/benchmarks/narrowing.json in the form of this table."""
    rows = json.loads((ROOT / "docs/benchmarks/narrowing.json").read_text())["rows"]
    return [
        r | {"dim": 8, "stages": 1, "profile": [8, r["core"]], "noise": "structure"}
        for r in rows
        if r["noise"] == "structure"
    ]


def train(name: str, noise: str, dim: int, stages: int, seed: int, folder: Path) -> float:
    """Train one run through the command line on one thread; returns seconds of the whole process."""
    command = [
        sys.executable, str(ROOT / "scripts/train.py"), "fit", "--config", str(ROOT / f"configs/{name}.yaml"),
        *(["--config", str(ROOT / "configs" / OVERLAYS[dim])] if stages > 1 else []),
        f"--run.dir={folder}", "--run.overwrite=true", "--run.figures=false", f"--seed_everything={seed}",
        f"--model.seed={seed}", f"--data.init_args.seed={seed}", f"--data.init_args.noise={noise}",
        *(WIDE if (dim, stages) == (32, 1) else []),
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}, {noise}, D = {dim}, {stages} stages, seed {seed} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


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
    seconds = train(name, noise, dim, stages, seed, folder)
    flow = load_flow(folder)
    data = PlantedDataModule(name, dim=dim, noise=noise, seed=seed)
    x = data.split("test")
    nll = -flow.log_prob(x.numpy()).double().numpy()
    true = -data.planted.log_prob(data.sample("test").x)
    check = check_noise(flow, x.numpy(), max_rows=10_000, seed=seed, n_permutations=19)
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
        flow.evaluation = FixedGrid("rk4", 12)  # within 1e-3 nats of the adaptive solver, row by row, and faster
        found = spectrum(flow, depth=depths, n_bootstrap=0, n=20_000, seed=seed)
        row["above_null"] = [int(n) for n in found.n_above]
    return row


def profile_text(some: list[dict[str, Any]]) -> str:
    """Median width profile of some rows."""
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
    rows: list[dict[str, Any]] = json.loads(options.json.read_text())["rows"] if options.json.is_file() else []
    key = ("set", "noise", "dim", "stages", "seed")
    have = {tuple(r[k] for k in key) for r in rows}
    todo = [task for task in tasks(options.seeds, options.sets, options.dims) if task not in have]
    packages = ("torch", "lightning", "scikit-learn", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages} | {"python": platform.python_version()}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread per run, {options.jobs} at a time"
    start = time.perf_counter()

    def one(task: tuple[str, str, int, int, int]) -> None:
        name, noise, dim, stages, seed = task
        row = measure(*task, options.runs / f"{name}-{noise}-{dim}-{stages}-{seed}")
        rows.append(row)
        rows.sort(key=lambda r: (r["noise"], r["dim"], list(SETS).index(r["set"]), -r["stages"], r["seed"]))
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"versions": versions, "machine": machine, "rows": rows}, indent=1))
        done = len(rows) - len(have)
        left = (time.perf_counter() - start) / done * (len(todo) - done)
        print(
            f"[{done}/{len(todo)}, {left / 60:.0f} min left] {name:12} {noise:9} D = {dim}, {stages} stages, seed {seed}: "
            f"{row['profile']} (core {row['true_core']}), gap {row['gap']:.3f}, AUC {row['auc']:.3f}, "
            f"above null {row.get('above_null')}, {row['seconds']:.0f} s",
            flush=True,
        )

    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(one, todo):
            pass
    print(f"\n{table([*rows, *one_stage_rows()])}\n\nMedian over seeds (worst in brackets). {machine}; {versions}.")


if __name__ == "__main__":
    main()
