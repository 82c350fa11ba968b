"""Does the evidence hold? False components and loops where there are none, and groups shown where there are some.

    python scripts/benchmark_evidence.py --json docs/benchmarks/evidence.json

Densities are Gaussian mixtures chosen by BIC among spherical, diagonal, tied and full covariances, fitted to all samples; HDBSCAN,
dip-means and the sup-norm band see the same rows. Needs the extra ``benchmark``. Rows of the table are written as they come; run
again to go on.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_rows import complete
from scipy.spatial.distance import cdist, pdist
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from cnflow.topology import level_sets

Floats = np.ndarray

NULLS = ("Gaussian", "cube", "t5", "banana", "ring", "spiral", "torus")
KINDS = ("spherical", "diag", "tied", "full")


def null(kind: str, n: int, d: int, rng: np.random.Generator) -> Floats:
    """Samples of one component, shape (n, d); the ring has a loop, the others have none."""
    x = rng.normal(size=(n, d))
    if kind == "cube":
        x = rng.uniform(size=(n, d)) * np.sqrt(12)
    elif kind == "t5":
        x *= np.sqrt(3 / rng.chisquare(5, n))[:, None]
    elif kind == "banana":
        x[:, 1] += 0.8 * (x[:, 0] ** 2 - 1)
    elif kind == "ring":
        angle = rng.uniform(0, 2 * np.pi, n)
        x[:, :2] = 3 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.4 * x[:, :2]
    elif kind == "spiral":
        turn = rng.uniform(1.0, 3.0, n) * np.pi
        x[:, :2] = (0.5 * turn * np.stack([np.cos(turn), np.sin(turn)])).T + 0.25 * x[:, :2]
    elif kind == "torus":
        # flat, in four directions
        angle = rng.uniform(0, 2 * np.pi, (2, n))
        x[:, :4] = 2 * np.concatenate([np.cos(angle), np.sin(angle)]).T + 0.25 * x[:, :4]
    return x


def groups(count: int, d: int, separation: float, n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Standard Gaussians, the nearest two ``separation`` apart, of masses down to 2 %: samples and labels."""
    while True:
        centres = rng.normal(size=(count, d))
        distance = pdist(centres)
        if distance.max() < 4 * distance.min():
            break
    weights = np.maximum(rng.dirichlet(np.full(count, 3.0)), 0.02)
    label = rng.choice(count, n, p=weights / weights.sum())
    return (separation / distance.min() * centres)[label] + rng.normal(size=(n, d)), label


def fitted(x: Floats, most: int = 12) -> GaussianMixture:
    """The mixture of least BIC."""
    best: tuple[float, GaussianMixture] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in KINDS:
            low, worse = np.inf, 0
            for count in range(1, most + 1):
                one = GaussianMixture(
                    count, covariance_type=kind, max_iter=60, init_params="k-means++", random_state=0
                ).fit(x)
                value = one.bic(x)
                if best is None or value < best[0]:
                    best = value, one
                worse = 0 if value < low else worse + 1
                low = min(low, value)
                if worse == 3:
                    break
    return best[1]


def dip_means(x: Floats, most: int = 16, viewers: int = 200) -> int:
    """Number of groups by dip-means: a group is split if its distances from some of its samples have more than one mode.

    References:
        Kalogeratos, Likas: Dip-means: an incremental clustering method for estimating the number of clusters (2012), with its
        settings: one row in a hundred at the level 0 of a table of 1 000 draws.
    """
    from diptest import diptest

    rng = np.random.default_rng(0)
    label = np.zeros(len(x), dtype=int)
    for count in range(1, most):
        scores = np.zeros(count)
        for number in range(count):
            mine = x[label == number]
            if len(mine) < 16:
                continue
            some = mine[rng.permutation(len(mine))[:viewers]]
            dips = np.array([diptest(row) for row in cdist(some, mine)])
            split = dips[:, 1] <= 0
            if split.mean() >= 0.01:
                scores[number] = dips[split, 0].mean()
        if not scores.any():
            return count
        means = [x[label == number].mean(0) for number in range(count)]
        worst = int(scores.argmax())
        halves = KMeans(2, n_init=10, random_state=0).fit(x[label == worst]).cluster_centers_
        means[worst : worst + 1] = list(halves)
        label = KMeans(count + 1, init=np.stack(means), n_init=1).fit_predict(x)
    return most


def measure(part: str, name: str, d: int, n: int, separation: float, repeat: int) -> dict[str, Any]:
    """One data set."""
    rng = np.random.default_rng([repeat, n, d, int(10 * separation), len(name), ord(name[0])])
    label = None
    x = null(name, n, d, rng) if part == "level" else None
    if x is None:
        x, label = groups(int(name), d, separation, n, rng)
    density = fitted(x)
    begun = time.perf_counter()
    loops = part == "level" and d == 2
    t = level_sets(density, x, homology=loops)
    seconds = time.perf_counter() - begun
    row: dict[str, Any] = {
        "part": part, "name": name, "d": d, "n": n, "separation": separation, "repeat": repeat, "shown": 1 + len(t.evidence.shown),
        "proposed": 1 + len(t.evidence.valleys), "seconds": seconds,
    }  # fmt: skip
    truth = 1 if part == "level" else int(name)
    table = t.betti()
    # at some mass the truth is the number of groups, at others less: a lower bound must never exceed it
    row["bounds"] = bool(table["b0_low"].max() <= truth <= 1 + len(t.evidence.valleys))
    if loops:
        right = int(name == "ring")
        row["loops"] = len(t.homology.of(1))
        row["bounds"] &= bool(table["b1_low"].max() <= right <= table["b1_high"].max())
    if part == "power":
        found = HDBSCAN(min_cluster_size=max(10, n // 100), copy=True).fit_predict(x)
        band = level_sets(density, x, homology=False, evidence="band")
        row |= {
            "hdbscan": int(found.max() + 1), "band": len(band.tree.leaves), "dip_means": dip_means(x),
            "ari": float(adjusted_rand_score(label, t.tree.label)),
            "ari_hdbscan": float(adjusted_rand_score(label, found)),
        }  # fmt: skip
    return row


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown: level, then power."""
    head = "| one component | d | n | repeats | valleys proposed | false components | loops right | bounds hold |"
    lines = [head, "|---" * 8 + "|"]
    level = [r for r in rows if r["part"] == "level"]
    for key in dict.fromkeys((r["name"], r["d"], r["n"]) for r in level):
        some = [r for r in level if (r["name"], r["d"], r["n"]) == key]
        loops = [r["loops"] == (key[0] == "ring") for r in some if "loops" in r]
        proposed, false = np.mean([r["proposed"] - 1 for r in some]), sum(r["shown"] > 1 for r in some)
        right = f"{sum(loops)} of {len(loops)}" if loops else "–"
        hold = sum(r["bounds"] for r in some)
        lines.append(
            f"| {key[0]} | {key[1]} | {key[2]:,} | {len(some)} | {proposed:.1f} | {false} | {right} | {hold} |"
        )
    head = "| groups | d | σ apart | repeats | all shown | too many | by HDBSCAN | by dip-means | by the band | ARI | of HDBSCAN |"
    lines += ["", head, "|---" * 11 + "|"]
    power = [r for r in rows if r["part"] == "power"]
    for key in dict.fromkeys((r["name"], r["d"], r["separation"]) for r in power):
        some, k = [r for r in power if (r["name"], r["d"], r["separation"]) == key], int(key[0])
        right = [sum(r[method] == k for r in some) for method in ("shown", "hdbscan", "dip_means", "band")]
        many, ari = (
            sum(r["shown"] > k for r in some),
            [np.mean([r[name] for r in some]) for name in ("ari", "ari_hdbscan")],
        )
        counts = f"{right[0]} | {many} | {right[1]} | {right[2]} | {right[3]} | {ari[0]:.2f} | {ari[1]:.2f}"
        lines.append(f"| {k} | {key[1]} | {key[2]:g} | {len(some)} | {counts} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60, help="of the level; a third as many of the power")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 20])
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--separations", type=float, nargs="*", default=[5.0, 4.0, 6.0, 3.0], help="of the power, in σ")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark/evidence.json"))
    options = parser.parse_args()
    tasks = [
        ("level", name, d, n, 0.0, repeat)
        for repeat in range(options.repeats) for n in options.rows for d in options.dims for name in NULLS
        if name != "torus" or d >= 4
    ]  # fmt: skip
    power = [
        ("power", str(count), d, 2000, separation, repeat)
        for repeat in range(options.repeats // 3) for separation in options.separations
        for d in (2, 8, 16, 32) for count in (3, 5, 8)
    ]  # fmt: skip
    # both in turn, so that a benchmark that is stopped has some of each
    order = sorted([*tasks, *power], key=lambda task: task[-1] * (3 if task[0] == "power" else 1))
    rows, footer = complete(
        options.json, order, ("part", "name", "d", "n", "separation", "repeat"), measure,
        lambda row: (
            f"{row['part']} {row['name']} d {row['d']} n {row['n']} {row['separation']:g}: "
            f"{row['shown']} of {row['proposed']} shown"
        ),
        packages=("numpy", "scipy", "scikit-learn"),
    )  # fmt: skip
    print(f"\n{tables(rows)}\n\n{footer}")


if __name__ == "__main__":
    main()
