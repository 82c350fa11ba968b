"""Circles in natural image patches: the dense core subsets X(k, p) as level sets of a k-nearest-neighbour density.

Carlsson, Ishkhanov, de Silva and Zomorodian (2008) found one circle in X(300, 30) and three, which meet in four points, in
X(15, 30): β₁ = 5. X(k, p) is the p % of the samples nearest to their k-th neighbour. As log p̂ = const − 7 log r_k on the
7-sphere, it is the level set at mass p/100 of the density that k neighbours estimate: k is how much that density is
smoothed, p how far down one looks.

Prints the table that is committed under docs/benchmarks. Rows are written as they come; run again to go on where it stopped.
The data are 50 000 patches in the 8 coordinates of their discrete cosine transform, n50000Dct.mat of javaPlex's tutorial.

    python scripts/natural_patches.py --data n50000Dct.mat --json docs/benchmarks/patches.json --figure docs/figures/patches.png
"""

from __future__ import annotations

import argparse
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_rows import Row, complete
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.special import gammaln
from sklearn.neighbors import NearestNeighbors

from cnflow.plot._style import BLUE, FAINT, GREY, tidy
from cnflow.topology import MassAxis, rips

Floats = NDArray[np.float64]

NEIGHBOURS = (300, 15)
LANDMARKS = 300
MASS = 0.3
BARS = 7
MERGE = (50, 2)
"""For denoising: each sample is replaced by the mean of so many neighbours, so many times."""

VARIANTS = (
    # mass, landmarks, denoised
    *((MASS, landmarks, False) for landmarks in (50, 100, 200, 300, 500)),
    (MASS, LANDMARKS, True),
    *((mass, LANDMARKS, False) for mass in (0.05, 0.1, 0.2, 0.4, 0.5, 0.7)),
)


@lru_cache
def read(path: Path) -> Floats:
    """Samples on the 7-sphere, shape (n, 8)."""
    held = [value for name, value in loadmat(path).items() if not name.startswith("_")]
    x = np.asarray(held[0], dtype=np.float64)
    if len(held) != 1 or x.ndim != 2 or x.shape[1] != 8:
        raise ValueError(
            f"{path} holds {[v.shape for v in held]}, expected one array (n, 8): pass javaPlex's n50000Dct.mat"
        )
    return x


@lru_cache
def log_density(path: Path) -> tuple[dict[int, Floats], float]:
    """For every k the log-density in nats that k neighbours estimate, shape (n,), against area on S⁷; seconds."""
    x, start = read(path), time.perf_counter()
    model = NearestNeighbors(n_neighbors=max(NEIGHBOURS) + 1, algorithm="brute", n_jobs=1).fit(x)
    parts = [model.kneighbors(part)[0][:, list(NEIGHBOURS)] for part in np.array_split(x, 20)]
    reach = np.log(np.maximum(np.concatenate(parts), 1e-12))
    d = x.shape[1] - 1
    ball = d / 2 * np.log(np.pi) - gammaln(d / 2 + 1)
    found = {k: np.log(k / len(x)) - ball - d * reach[:, i] for i, k in enumerate(NEIGHBOURS)}
    return found, time.perf_counter() - start


def level_set(path: Path, k: int, mass: float) -> tuple[Floats, Floats]:
    """The samples of X(k, 100 mass); the level and its standard error, nats."""
    log_prob = log_density(path)[0][k]
    axis = MassAxis.fit(log_prob)
    level = float(axis.level(mass))
    return read(path)[log_prob >= level], np.array([level, float(axis.level_error(mass))])


def denoise(x: Floats) -> Floats:
    """Samples moved to the middle of their neighbours, back on the sphere."""
    for _ in range(MERGE[1]):
        near = (
            NearestNeighbors(n_neighbors=MERGE[0], algorithm="brute", n_jobs=1)
            .fit(x)
            .kneighbors(x, return_distance=False)
        )
        x = x[near].mean(1)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def measure(path: Path, k: int, mass: float, landmarks: int, denoised: bool) -> Row:
    """One row: the longest bars in H1 of one level set."""
    rows, (level, error) = level_set(path, k, mass)
    start = time.perf_counter()
    rows_used = denoise(rows) if denoised else rows
    middle = time.perf_counter()
    found = rips(rows_used, landmarks=landmarks)
    end = time.perf_counter()
    bars, p_values = found.diagrams[2][1], found.p_values(1)
    order = np.argsort(bars[:, 0] - bars[:, 1], kind="stable")[:BARS]
    return {
        "k": k, "mass": mass, "landmarks": landmarks, "denoised": denoised, "n": len(rows), "level": level, "level_error": error,
        "covering_radius": found.radius, "beta1": found.betti()[1], "bars": bars[order].tolist(),
        "p_values": p_values[order].tolist(), "seconds_knn": log_density(path)[1], "seconds_denoise": middle - start,
        "seconds": end - middle,
    }  # fmt: skip


def lengths(row: Row) -> Floats:
    """Of the bars, longest first."""
    bars = np.array(row["bars"])
    return bars[:, 1] - bars[:, 0]


def drop(row: Row) -> tuple[int, float]:
    """Bars before the largest drop in length, and how many times shorter the next one is."""
    length = lengths(row)
    ratio = length[:-1] / length[1:]
    return int(ratio.argmax()) + 1, float(ratio.max())


def table(rows: list[Row]) -> str:
    """All samples in markdown."""
    head = (
        "| set | mass | level, nats | landmarks | denoised | β₁ at p < .001 | bars before the largest drop | lengths "
        "of the 7 longest bars in H1 | s |",
        "|---|---|---|---|---|---|---|---|---|",
    )
    lines = [
        f"| X({r['k']}, {100 * r['mass']:.0f}) | {r['mass']:.2f} | {r['level']:.3f} ± {r['level_error']:.3f} | {r['landmarks']} "
        f"| {'yes' if r['denoised'] else 'no'} | {r['beta1']} | {drop(r)[0]} (× {drop(r)[1]:.1f}) "
        f"| {', '.join(f'{v:.3f}' for v in lengths(r))} "
        f"| {r['seconds_denoise'] + r['seconds']:.1f} |"
        for r in rows
    ]
    return "\n".join([*head, *lines])


def barcode(row: Row) -> str:
    """The longest bars of one row in markdown."""
    lines = [
        f"| {i} | {birth:.3f} | {death:.3f} | {death - birth:.3f} | {p:.2g} |"
        for i, ((birth, death), p) in enumerate(zip(row["bars"], row["p_values"], strict=True), 1)
    ]
    title = f"**X({row['k']}, {100 * row['mass']:.0f})**, {row['landmarks']} landmarks\n"
    return "\n".join([title, "| bar | birth | death | length | p |", "|---|---|---|---|---|", *lines])


def draw(path: Path, rows: list[Row], file: Path) -> None:
    """Barcodes of both densities above, their circles below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11.5, 6.8), layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    for ax, k in zip(above.subplots(1, 2, sharex=True), NEIGHBOURS, strict=True):
        row = next(r for r in rows if (r["k"], r["mass"], r["landmarks"], r["denoised"]) == (k, MASS, LANDMARKS, False))
        for place, ((birth, death), p) in enumerate(zip(row["bars"], row["p_values"], strict=True)):
            ax.barh(place, death - birth, left=birth, height=0.6, color=BLUE if p < 0.001 else GREY)
            ax.text(death + 0.015, place, f"{death - birth:.3f}", va="center", fontsize=8)
        ax.set(
            title=f"X({k}, {100 * MASS:.0f}): k = {k}, mass {MASS:.2f}, log p̂ ≥ {row['level']:.2f} nats; β₁ = {row['beta1']}",
            xlabel="scale (distance in ℝ⁸, no unit)", ylabel="H1 bar, by length", xlim=(0.3, 1.45),
            yticks=range(BARS), yticklabels=range(1, BARS + 1),
        )  # fmt: skip
        ax.invert_yaxis()
        tidy(ax)
        ax.title.set_fontsize(10)
    above.suptitle(
        "Longest H1 bars of 300 landmarks with their lengths; blue: p < .001 against Gaussian noise", fontsize=10
    )
    below.suptitle(
        "4 000 samples of each set; blue: samples near the plane shown, whose two coordinates hold over .85 of the squared length",
        fontsize=10,
    )
    views = (
        (300, (0, 1), "primary circle"), (15, (0, 1), "primary circle"),
        (15, (0, 2), "secondary circle"), (15, (1, 3), "secondary circle"),
    )  # fmt: skip
    for ax, (k, (i, j), name) in zip(below.subplots(1, len(views)), views, strict=True):
        x = level_set(path, k, MASS)[0]
        x = x[np.random.default_rng(0).permutation(len(x))[:4000]]
        inside = x[:, i] ** 2 + x[:, j] ** 2 > 0.85
        ax.scatter(*x[~inside][:, [i, j]].T, s=1, color=FAINT, linewidths=0, rasterized=True)
        ax.scatter(*x[inside][:, [i, j]].T, s=2, color=BLUE, linewidths=0, rasterized=True)
        ax.set(
            title=f"X({k}, {100 * MASS:.0f}), {name}", xlabel=f"DCT coordinate e{i + 1} (no unit)",
            ylabel=f"DCT coordinate e{j + 1}", aspect="equal", xlim=(-1.08, 1.08), ylim=(-1.08, 1.08),
            xticks=(-1, 0, 1), yticks=(-1, 0, 1),
        )  # fmt: skip
        tidy(ax)
        ax.title.set_fontsize(10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main() -> None:
    """Measure, print the tables, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="n50000Dct.mat")
    parser.add_argument("--json", type=Path, default=Path("patches.json"))
    parser.add_argument("--figure", type=Path, help="where to draw; left out, nothing is drawn")
    args = parser.parse_args()
    if not args.data.is_file():
        parser.error(f"--data {args.data} is no file: give the path of javaPlex's n50000Dct.mat")

    tasks: list[tuple[Any, ...]] = [(k, *variant) for k in NEIGHBOURS for variant in VARIANTS]
    rows, told = complete(
        args.json, tasks, ("k", "mass", "landmarks", "denoised"), lambda *task: measure(args.data, *task),
        lambda r: f"X({r['k']}, {100 * r['mass']:.0f}), {r['landmarks']} landmarks: β₁ {r['beta1']}",
        packages=("ripser", "scikit-learn", "scipy", "numpy"),
    )  # fmt: skip
    print(f"\n{table(rows)}\n")
    for row in rows:
        if (row["mass"], row["landmarks"], row["denoised"]) == (MASS, LANDMARKS, False):
            print(f"{barcode(row)}\n")
    print(f"{rows[0]['seconds_knn']:.0f} s for the neighbours of all samples. {told}")
    if args.figure:
        draw(args.data, rows, args.figure)


if __name__ == "__main__":
    main()
