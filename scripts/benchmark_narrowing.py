"""Planted sets: is the core found, is the density right, is the noise noise?

Trains every set with its shipped config, seed by seed, each run on one thread, and prints the table that is committed
under docs/benchmarks. Rows are written as they come; run again to go on where it stopped.

    python scripts/benchmark_narrowing.py --jobs 2 --json docs/benchmarks/narrowing.json
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
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsRegressor

from cnflow.data import PlantedDataModule
from cnflow.flow import FixedGrid, NarrowingFlow, check_noise, load_flow

ROOT = Path(__file__).resolve().parent.parent
SETS = {"ring": 2, "clusters": 2, "linked_rings": 3, "trefoil": 3}
NLL_ROOM = {"ring": 0.10, "clusters": 0.10, "linked_rings": 0.20, "trefoil": 0.20}
SETTINGS = {
    "structure": [],
    # the easier half: independent noise, but variances that say nothing, so that PCA is blind
    "independent": ["--data.init_args.noise=independent", "--data.init_args.equalize=true", "--trainer.max_steps=1500"],
}


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


def train(name: str, setting: str, seed: int, folder: Path) -> float:
    """Train one run through the command line on one thread; returns seconds of the whole process."""
    command = [
        sys.executable, str(ROOT / "scripts/train.py"), "fit", "--config", str(ROOT / f"configs/{name}.yaml"),
        f"--run.dir={folder}", "--run.overwrite=true", f"--seed_everything={seed}", f"--model.seed={seed}",
        f"--data.init_args.seed={seed}", *SETTINGS[setting],
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}, {setting}, seed {seed} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def measure(name: str, setting: str, seed: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    seconds = train(name, setting, seed, folder)
    flow = load_flow(folder)
    overrides = {"noise": "independent", "equalize": True} if setting == "independent" else {}
    data = PlantedDataModule(name, seed=seed, **overrides)
    sample = data.sample("test")
    x = data.split("test")
    narrowed = flow.encode(x.numpy())
    true = -data.planted.log_prob(sample.x)
    gap = -narrowed.log_prob.double().numpy() - true
    check = check_noise(flow, x.numpy(), max_rows=10_000, seed=seed)
    r2 = 0.0
    if flow.core_dim:
        guess = cross_val_predict(KNeighborsRegressor(10), narrowed.core.numpy(), sample.structure, cv=5)
        r2 = r2_score(sample.structure, guess)
    return {
        "set": name, "noise": setting, "seed": seed, "core": flow.core_dim, "true_core": SETS[name],
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

            right = sum(r["core"] == r["true_core"] for r in some)
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
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark/narrowing.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = json.loads(options.json.read_text())["rows"] if options.json.is_file() else []
    have = {(r["set"], r["noise"], r["seed"]) for r in rows}
    todo = [
        (name, setting, seed) for setting in options.settings for seed in options.seeds for name in options.sets
        if (name, setting, seed) not in have
    ]  # fmt: skip
    packages = ("torch", "lightning", "scikit-learn", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages} | {"python": platform.python_version()}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread per run, {options.jobs} at a time"
    start = time.perf_counter()

    def one(task: tuple[str, str, int]) -> None:
        name, setting, seed = task
        row = measure(name, setting, seed, options.runs / f"{name}-{setting}-{seed}")
        rows.append(row)
        rows.sort(key=lambda r: (list(SETS).index(r["set"]), r["noise"] != "structure", r["seed"]))
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"versions": versions, "machine": machine, "rows": rows}, indent=1))
        done = len(rows) - len(have)
        left = (time.perf_counter() - start) / done * (len(todo) - done)
        print(
            f"[{done}/{len(todo)}, {left / 60:.0f} min left] {name:12} {setting:11} seed {seed}: core {row['core']} "
            f"(true {row['true_core']}), gap {row['gap']:.3f}, AUC {row['auc']:.3f}, R² {row['r2']:.3f}, "
            f"sin² {row['sin2']:.4f}, {row['seconds']:.0f} s",
            flush=True,
        )

    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(one, todo):
            pass
    print(f"\n{table(rows)}\n\nMedian over seeds (worst in brackets). {machine}; {versions}.")


if __name__ == "__main__":
    main()
