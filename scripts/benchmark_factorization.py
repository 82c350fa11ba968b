"""Through how few numbers do the maps of a network go: planted networks in plain and bent coordinates, digits by depth.

Prints the table that is committed under docs/benchmarks, and draws the figure. Rows are written as they come; run again to go on
where it stopped. One thread: set OMP_NUM_THREADS=1 to compare seconds.

    python scripts/benchmark_factorization.py --json docs/benchmarks/factorization.json --figure docs/figures/factorization.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from benchmark_rows import Row, complete
from digits_network import rows as images
from digits_network import trained as digits_model
from torch import nn

from cnflow.network import factorization, random_encoding, reencode

PUBLISHED = {"initial": (49, 41, 34, 29, 9), "trained": (43, 13, 6, 5.5, 5)}
"""Directions that hold 99 % of ‖J‖², from the input to each layer of a digits network, as published."""

PLANTED = ("512 → 22 → 512", "the same, both layers re-encoded", "rank 5 by region, 20 in all")
LAYERS = ("1", "3", "5", "7", "output")


class Turning(nn.Module):
    """One of four maps of rank 5, by which of four gates is largest: the sample space is another in every region."""

    def __init__(self, source: int = 64, target: int = 64) -> None:
        super().__init__()
        self.read = nn.Parameter(torch.linalg.qr(torch.randn(source, 20))[0].T.reshape(4, 5, source))
        self.write = nn.Parameter(torch.linalg.qr(torch.randn(target, 20))[0].reshape(target, 4, 5))
        self.gate = nn.Parameter(torch.randn(4, source))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Samples, shape (n, target)."""
        which = nn.functional.one_hot((x @ self.gate.T).argmax(1), 4).to(x)
        return torch.einsum("tkr,nkr,nk->nt", self.write, torch.tanh(torch.einsum("krd,nd->nkr", self.read, x)), which)


def through(k: int = 22, d: int = 512) -> nn.Module:
    """A random network d → k → d; its first module is the source."""
    return nn.Sequential(nn.Identity(), nn.Linear(d, k), nn.Tanh(), nn.Linear(k, d), nn.Tanh())


def planted(case: str, seed: int) -> Row:
    """One planted network at 64 points."""
    torch.manual_seed(seed)
    model = (Turning() if case == PLANTED[2] else through()).double().eval()
    x = torch.randn(64, 64 if case == PLANTED[2] else 512, dtype=torch.float64)
    source, target = "input", "output"
    if case == PLANTED[1]:
        with torch.no_grad():
            y = model(x)
        model, source = reencode(model, "0", random_encoding(x, "smooth", 10 * seed + 1))
        model, target = reencode(model, "4", random_encoding(y, "smooth", 10 * seed + 2))
    start = time.perf_counter()
    f = factorization(model, x, source, target, seed=seed)
    return {
        "seconds": time.perf_counter() - start, "dimension": f.dimension, "low": int(f.pointwise.min()), "high": f.rank,
        "rows": f.row_dimension, "consistency": f.consistency, "again": sorted({int(r) for r in f.recoded_rank.ravel()}),
    }  # fmt: skip


def digits_network(seed: int, trained: bool) -> tuple[nn.Module, torch.Tensor]:
    """The network that reads digits, and images."""
    return digits_model(seed, epochs=40 if trained else 0), images()


def digits(case: str, seed: int) -> Row:
    """Directions with 99 % of ‖J‖² from the input to every layer, at 256 images."""
    model, x = digits_network(seed, case == "trained")
    start = time.perf_counter()
    found = [
        factorization(model, x, "input", layer, points=256, energy=0.99, reencodings=0, seed=seed) for layer in LAYERS
    ]
    return {
        "seconds": time.perf_counter() - start,
        "directions": [float(f.pointwise.mean()) for f in found],
        "std_error": [float(f.pointwise.std(ddof=1) / len(f.pointwise) ** 0.5) for f in found],
        "consistency": [f.consistency for f in found],
        "row_dimension": [f.row_dimension for f in found],
    }  # fmt: skip


def table(rows: list[Row], machine: str) -> str:
    """Markdown."""

    def of(part: str, case: str) -> list[Row]:
        return [r for r in rows if (r["part"], r["case"]) == (part, case)]

    lines = ["| planted network | seeds | rank at the points | dimension | joint row space | consistency | re-encoded | s |",
             "|---" * 8 + "|"]  # fmt: skip
    for case in PLANTED:
        mine = of("planted", case)
        if not mine:
            continue

        def every(key: str, mine: list[Row] = mine) -> str:
            return ", ".join(map(str, sorted({r[key] for r in mine})))

        at_points = sorted({value for r in mine for value in (r["low"], r["high"])})
        again = sorted({rank for r in mine for rank in r["again"]})
        lines.append(
            f"| {case} | {len(mine)} | {', '.join(map(str, at_points))} | {every('dimension')} | {every('rows')} | "
            f"{np.median([r['consistency'] for r in mine]):.3f} | {', '.join(map(str, again))} | "
            f"{np.median([r['seconds'] for r in mine]):.1f} |"
        )
    lines += [
        "",
        "| digits network | seed | layer 1 | 2 | 3 | 4 | logits | consistency | joint row space |",
        "|---" * 9 + "|",
    ]
    for case, published in PUBLISHED.items():
        for r in of("digits", case):
            told = " | ".join(f"{v:.2f} ± {e:.2f}" for v, e in zip(r["directions"], r["std_error"], strict=True))
            shared = ", ".join(f"{c:.2f}" for c in r["consistency"])
            lines.append(f"| {case} | {r['seed']} | {told} | {shared} | {', '.join(map(str, r['row_dimension']))} |")
        lines.append(f"| {case}, published | | {' | '.join(map(str, published))} | | |")
    return "\n".join([*lines, "", machine])


def draw(file: Path) -> None:
    """Singular values of a planted network, and of the digits network by depth before and after training."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from cnflow.plot._style import CYCLE, tidy

    torch.manual_seed(0)
    fig, axes = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    factorization(through(), torch.randn(64, 512), "0", "output").plot(axes[0])
    for ax, trained in zip(axes[1:], (False, True), strict=True):
        model, x = digits_network(0, trained)
        for layer, name, colour in zip(
            LAYERS, ("layer 1", "layer 2", "layer 3", "layer 4", "logits"), CYCLE, strict=False
        ):
            f = factorization(model, x, "input", layer, points=256, energy=0.99, reencodings=0)
            share = (f.spectrum**2).cumsum(1) / (f.spectrum**2).sum(1, keepdims=True)
            left = np.maximum(1 - share, 1e-6)
            order = np.arange(1, share.shape[1] + 1)
            ax.plot(order, np.median(left, 0), color=colour, label=f"{name}: {f.pointwise.mean():.1f}")
            ax.fill_between(order, *np.quantile(left, [0.25, 0.75], axis=0), color=colour, alpha=0.2, linewidth=0)
        ax.axhline(0.01, color="#333333", linestyle=":", linewidth=1)
        ax.set(
            yscale="log",
            ylim=(1e-5, 1.2),
            xlim=(0, 64),
            xlabel="direction k",
            ylabel="share of ‖J‖² beyond k directions",
        )
        ax.set_title(
            f"digits network, input → layer, {'trained' if trained else 'at the start'}\n256 images, median and quartiles",
            fontsize=11,
        )
        ax.legend(frameon=False, fontsize=9, title="directions to 99 %", title_fontsize=9, loc="upper right")
        tidy(ax)
    file.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(file, dpi=110)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("factorization.json"))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    tasks = [("planted", case, seed) for seed in range(options.seeds) for case in PLANTED]
    tasks += [("digits", case, seed) for seed in range(2) for case in PUBLISHED]

    def measure(part: str, case: str, seed: int) -> Row:
        return {"part": part, "case": case, "seed": seed} | {"planted": planted, "digits": digits}[part](case, seed)

    names = ("part", "case", "seed")
    rows, machine = complete(
        options.json, tasks, names, measure, lambda r: " ".join(f"{k} {v}" for k, v in r.items()), jobs=options.jobs,
        packages=("torch", "scikit-learn", "numpy"),
    )  # fmt: skip
    print(f"\n{table(rows, machine)}")
    if options.figure:
        draw(options.figure)


if __name__ == "__main__":
    main()
