"""Handwritten digits: the flow beside the best Gaussian mixture, beside itself unpruned, and what k-means sees in the core.

Two views of the same images, each with its shipped config: the first 24 principal components, and all 61 pixels that
vary. Prints the table that is committed under docs/benchmarks. Rows are written as they come; run again to go on
where it stopped.

    python scripts/benchmark_digits.py --jobs 2 --json docs/benchmarks/digits.json
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from benchmark_rows import ROOT, complete, train
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from cnflow.data import DigitsDataModule
from cnflow.flow import NarrowingFlow, load_flow

VIEWS = {"24 components": ("digits", 24), "61 pixels": ("digits_pixels", None)}
MIXTURES = (1, 5, 10, 15, 20, 30, 40)
REGULARISATIONS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
DRAWS = (1, 8)
"""Dequantised copies of the training images that a mixture is fitted to: the flow sees a fresh one every epoch."""


def best_mixture(data: DigitsDataModule) -> dict[str, Any]:
    """The full-covariance mixture with the least validation NLL over K, regularisation and dequantised copies."""
    generator = torch.Generator().manual_seed(data.seed)
    val, test = data.split("val").numpy(), data.split("test").numpy()
    tried = []
    for draws in DRAWS:
        train = data.dequantised_train(draws, generator).numpy()
        for k in MIXTURES:
            for regularisation in REGULARISATIONS:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    mixture = GaussianMixture(k, reg_covar=regularisation, random_state=0, max_iter=200).fit(train)
                nll = {"val": -mixture.score(val), "test": -mixture.score(test)}
                tried.append(nll | {"k": k, "regularisation": regularisation, "draws": draws})
    return {name: float(value) for name, value in min(tried, key=lambda row: row["val"]).items()}


def never_pruned(config: str) -> list[str]:
    """Overrides that leave a config as it is but for the selection: the same flow, budget and steps, nothing pruned."""
    penalties = yaml.safe_load((ROOT / f"configs/{config}.yaml").read_text())["model"]["penalties"]
    budget = [p for p in penalties if not p["class_path"].endswith("ColumnPenalty")]
    return ["--model.schedule.select=1", f"--model.penalties={json.dumps(budget)}"]


def rand_index(z: np.ndarray, labels: np.ndarray) -> float:
    """Adjusted Rand index of k-means(10), 20 starts, mean of three seeds."""
    fits = [KMeans(10, n_init=20, random_state=seed).fit_predict(z) for seed in range(3)]
    return float(np.mean([adjusted_rand_score(labels, fit) for fit in fits]))


def rand_indices(flow: NarrowingFlow, data: DigitsDataModule) -> dict[str, float]:
    """k-means on the input, the core and the whole latent state: on the test images, and on all 1797."""
    out = {}
    for name, splits in {"test": ["test"], "all": ["train", "val", "test"]}.items():
        x = torch.cat([data.split(split) for split in splits])
        labels = np.concatenate([data.labels(split) for split in splits])
        narrowed = flow.encode(x.numpy())
        latent = flow.state_at(x.numpy(), 1.0).detach()
        views = {"input": x, "core": narrowed.core, "latent": latent}
        out |= {f"ari_{view}_{name}": rand_index(z.numpy(), labels) for view, z in views.items()}
    return out


def measure(view: str, seed: int, runs: Path) -> dict[str, Any]:
    """One row of the table."""
    config, components = VIEWS[view]
    data = DigitsDataModule(components, seed=seed)
    data.setup()
    folder, unpruned = runs / f"{config}-{seed}", runs / f"{config}-{seed}-unpruned"
    seconds = train([config], seed, folder)
    train([config], seed, unpruned, never_pruned(config))
    summary = json.loads((folder / "summary.json").read_text())
    check = summary["noise_check"]
    return {
        "view": view, "seed": seed, "mixture": best_mixture(data), "nll": summary["nll"]["test"]["nll"],
        "nll_se": summary["nll"]["test"]["nll_se"], "core": summary["core_dim"], "dim": summary["dim"],
        "nll_unpruned": json.loads((unpruned / "summary.json").read_text())["nll"]["test"]["nll"],
        "auc": check["auc"], "auc_se": check["auc_se"], "log_scale": data.log_scale, "seconds": seconds,
        **rand_indices(load_flow(folder), data),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line per run and the mean over seeds of every view."""
    head = (
        "| view, seed | core | NLL, nats | unpruned | mixture (K, regularisation, draws) | AUC "
        "| ARI test: input / core / latent | ARI all: input / core / latent | seconds |"
    )
    lines = [head, "|---" * 9 + "|"]
    for view in VIEWS:
        some = [r for r in rows if r["view"] == view]
        for r in some:
            m = r["mixture"]
            lines.append(
                f"| {view}, {r['seed']} | {r['core']} of {r['dim']} | {r['nll']:.2f} ± {r['nll_se']:.2f} | "
                f"{r['nll_unpruned']:.2f} | {m['test']:.2f} ({m['k']:.0f}, {m['regularisation']:g}, {m['draws']:.0f}) | "
                f"{r['auc']:.3f} ± {r['auc_se']:.3f} | {_rands(r, 'test')} | {_rands(r, 'all')} | {r['seconds']:.0f} |"
            )
        if some:
            mean = {
                k: float(np.mean([r[k] for r in some])) for k in some[0] if k.startswith(("nll", "auc", "ari", "sec"))
            }
            lines.append(
                f"| **{view}, mean** | {min(r['core'] for r in some)}–{max(r['core'] for r in some)} | **{mean['nll']:.2f}** | "
                f"{mean['nll_unpruned']:.2f} | **{np.mean([r['mixture']['test'] for r in some]):.2f}** | {mean['auc']:.3f} | "
                f"{_rands(mean, 'test')} | {_rands(mean, 'all')} | {mean['seconds']:.0f} |"
            )
    return "\n".join(lines)


def _rands(row: dict[str, Any], split: str) -> str:
    return " / ".join(f"{row[f'ari_{view}_{split}']:.3f}" for view in ("input", "core", "latent"))


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--views", nargs="+", default=list(VIEWS), choices=list(VIEWS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark/digits.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, footer = complete(
        options.json,
        [(view, seed) for view in options.views for seed in options.seeds],
        ("view", "seed"),
        lambda view, seed: measure(view, seed, options.runs),
        lambda row: (
            f"{row['view']}, seed {row['seed']}: core {row['core']}, NLL {row['nll']:.2f}, {row['seconds']:.0f} s"
        ),
        jobs=options.jobs,
    )
    print(f"{table(rows)}\n\n{footer}")


if __name__ == "__main__":
    main()
