"""Non-Gaussian component analysis on planted sets: is the plane found, and its dimension, beside PCA and FastICA?

Prints the table that is committed under docs/benchmarks. Rows are written as they come; run again to go on where it
stopped. One thread: set OMP_NUM_THREADS=1 to compare seconds.

    python scripts/benchmark_ngca.py --json docs/benchmarks/ngca.json
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_rows import complete
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning

from cnflow.data import Planted
from cnflow.flow._ngca import METHODS, NGCA
from cnflow.flow._stein import stein_null

SETS = ("ring", "clusters", "linked_rings", "trefoil")
SETTINGS = {
    # noise, variances made equal, samples, dimensions
    "independent, equal variances": ("independent", True, 20_000, 8),
    "independent": ("independent", False, 20_000, 8),
    "independent, equal variances, n = 2 000": ("independent", True, 2_000, 8),
    "independent, equal variances, 32-D": ("independent", True, 20_000, 32),
    "independent, equal variances, 32-D, n = 2 000": ("independent", True, 2_000, 32),
    "structure, equal variances": ("structure", True, 20_000, 8),
    "structure": ("structure", False, 20_000, 8),
}
VARIANTS = {method: {"method": method} for method in METHODS} | {"not whitened": {"whiten": False}}


def sin2(found: np.ndarray, true: np.ndarray) -> float:
    """Mean sin² of the angle between two planes of the same dimension, given by orthonormal bases, shape (d, k)."""
    return float(1 - np.linalg.norm(found.T @ true) ** 2 / true.shape[1])


def principal(x: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Plane of the k directions of most variance, shape (d, k)."""
    return PCA(k, random_state=seed).fit(x).components_.T


def independent(x: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Plane of the k independent components of most negentropy, by FastICA's log cosh, shape (d, k)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = FastICA(whiten="unit-variance", random_state=seed, max_iter=1000, tol=1e-4).fit(x)

    def contrast(y: np.ndarray) -> np.ndarray:
        return np.log(np.cosh(y)).mean(0)

    normal = contrast(np.random.default_rng(0).standard_normal(1_000_000))
    negentropy = (contrast(model.transform(x)) - normal) ** 2
    return np.linalg.qr(model.components_[np.argsort(-negentropy)[:k]].T)[0]


def measure(name: str, setting: str, seed: int) -> dict[str, Any]:
    """One row: every method on one draw."""
    noise, equalize, n, dim = SETTINGS[setting]
    planted = Planted(name, dim=dim, noise=noise, equalize=equalize, seed=seed)
    x, k, true = planted.sample(n, seed=1).x, planted.core_dim, planted.core_plane
    row: dict[str, Any] = {"set": name, "setting": setting, "seed": seed, "n": n, "dim": dim, "true_core": k}
    for label, find in (("pca", principal), ("ica", independent)):
        start = time.perf_counter()
        row[label] = {"sin2": sin2(find(x, k, seed), true), "seconds": time.perf_counter() - start}
    for label, options in VARIANTS.items():
        if label == "score":
            stein_null.cache_clear()  # the seconds reported are those of a first fit
        start = time.perf_counter()
        chosen = given = NGCA(random_state=seed, **options).fit(x)
        middle = time.perf_counter()
        if label == "score" or chosen.n_components_ != k:
            given = NGCA(k, random_state=seed, **options).fit(x)
        row[label] = {
            "sin2": sin2(given.plane_, true), "expected_sin2": given.expected_sin2_, "chosen": chosen.n_components_,
            "null": chosen.null_, "spectrum": [float(v) for v in given.spectrum_[: k + 3]],
            "gap": float(given.spectrum_[k - 1] / max(given.spectrum_[k], 1e-6)),
            "information": [float(v) for v in given.information_],
            "seconds": time.perf_counter() - middle, "seconds_choosing": middle - start,
        }  # fmt: skip
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line per set and setting: medians over seeds, worst case in brackets."""
    labels = ["pca", "ica", *VARIANTS]
    head = "| set | sin² PCA | FastICA |" + "".join(f" NGCA {label} |" for label in VARIANTS)
    head += " expected | gap | k right: " + ", ".join(VARIANTS) + " | s, k given | s, k chosen |"
    rule = "|---" * (head.count("|") - 1) + "|"
    lines = []
    for setting in SETTINGS:
        some = [r for r in rows if r["setting"] == setting]
        if not some:
            continue
        lines += [f"\n**Noise: {setting}**\n", head, rule]
        for name in SETS:
            group = [r for r in some if r["set"] == name]
            if not group:
                continue
            angles = [np.array([r[label]["sin2"] for r in group]) for label in labels]
            cells = [f"{np.median(a):.5f} ({a.max():.5f})" for a in angles]
            score = [r["score"] for r in group]
            gaps = np.array([s["gap"] for s in score])
            right = ", ".join(str(sum(r[v]["chosen"] == r["true_core"] for r in group)) for v in VARIANTS)
            cells += [
                f"{np.median([s['expected_sin2'] for s in score]):.5f}", f"{np.median(gaps):.0f} ({gaps.min():.0f})",
                f"{right} of {len(group)}", f"{np.median([s['seconds'] for s in score]):.1f}",
                f"{np.median([s['seconds_choosing'] for s in score]):.1f}",
            ]  # fmt: skip
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines).lstrip("\n")


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark/ngca.json"))
    options = parser.parse_args()
    rows, footer = complete(
        options.json,
        # by seed, so that a benchmark that is stopped has every set
        [(n, setting, s) for setting in options.settings for s in options.seeds for n in options.sets],
        ("set", "setting", "seed"),
        measure,
        lambda row: (
            f"{row['set']:12} {row['setting']}, seed {row['seed']}: sin² "
            + ", ".join(f"{label} {row[label]['sin2']:.5f}" for label in ("pca", "ica", *VARIANTS))
            + f"; k {row['score']['chosen']} (true {row['true_core']}), gap {row['score']['gap']:.0f}, "
            f"{row['score']['seconds']:.1f} s"
        ),
        packages=("scikit-learn", "scipy", "numpy"),
    )
    seeds = sorted({r["seed"] for r in rows})
    print(f"\n{table(rows)}\n\nMedian over seeds {seeds} (worst in brackets). {footer}")


if __name__ == "__main__":
    main()
