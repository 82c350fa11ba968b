"""Parameter sensitivity on a planted network: a robust summary, and a sparse basis that is there by overfitting alone.

Prints the table that is committed under docs/benchmarks, and draws the figure. Rows are written as they come; run again to go
on where it stopped.

    python scripts/benchmark_sensitivity.py --json docs/benchmarks/sensitivity.json --figure docs/figures/sensitivity.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_rows import complete
from scipy.stats import kurtosis
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn

from cnflow.flow._ngca import NGCA
from cnflow.network.coordinates._transforms import SparseRotation, read_coordinates
from cnflow.network.perturbation._baseline import layer_activations
from cnflow.network.perturbation._sensitivity import Sensitivity, sensitivity
from cnflow.network.perturbation._sparse_coordinates import sparsest_insensitive

SOURCES, INPUTS, WIDTH, HEADS = 3, 48, 24, 16
DENSITY = np.array([0.1, 0.15, 0.25])
"""How often each sparse source is not zero."""

ROWS, FEW, COMPONENTS = 2000, 100, 12
LAYER = "0"
SUMMARY, OVERFIT, ALL, PRINCIPAL = "summary", "overfit rotation", "the same, all samples", "PCA of the rest"
STEP, DRAWS = 0.01, 8
PERTURB = ("flat", "sgd")


def planted(seed: int, n: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Inputs (n, 48), targets (n, 20), and the sparse sources (n, 3) among the inputs' Gaussian dimensions."""
    fixed, rng = np.random.default_rng(99), np.random.default_rng(seed)
    mixing = np.linalg.qr(fixed.normal(size=(INPUTS, INPUTS)))[0]
    wanted = fixed.normal(size=(INPUTS - SOURCES, HEADS)) / np.sqrt(INPUTS)
    s = rng.normal(size=(n, SOURCES)) * (rng.random((n, SOURCES)) < DENSITY) / np.sqrt(DENSITY)
    g = rng.normal(size=(n, INPUTS - SOURCES))
    y = np.c_[np.tanh(s), np.sin(2 * s[:, :1] * s[:, 1:2]), 0.5 * g @ wanted + rng.normal(size=(n, HEADS))]
    return *(torch.tensor(a, dtype=torch.float32) for a in (np.c_[s, g] @ mixing, y)), s


def loss(model: nn.Module, batch: Any) -> Tensor:
    """Mean square error."""
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def train(seed: int, steps: int = 3000) -> nn.Module:
    """Fresh samples at every step, so that nothing of the network is an overfit."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(),
        nn.Linear(48, SOURCES + 1 + HEADS),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    x, y, _ = planted(seed, 256 * steps // 4)
    for step in range(steps):
        rows = slice(256 * step % len(x), 256 * step % len(x) + 256)
        optimiser.zero_grad()
        loss(model, (x[rows], y[rows])).backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def rest(rows: np.ndarray) -> np.ndarray:
    """What no line through the summary explains of the activations."""
    found = NGCA(SOURCES, random_state=0).fit_transform(rows)
    centred = rows - rows.mean(0)
    return centred - found @ np.linalg.lstsq(found, centred, rcond=None)[0]


def overfit(rows: np.ndarray) -> np.ndarray:
    """The sparsest rotation of the rest, as far as a hundred samples can tell."""
    left = rest(rows)
    return SparseRotation(COMPONENTS, random_state=0).fit(left[:FEW]).transform(left)


def all_rows(rows: np.ndarray) -> np.ndarray:
    """The same rotation, from all samples."""
    return SparseRotation(COMPONENTS, random_state=0).fit_transform(rest(rows))


def principal(rows: np.ndarray) -> np.ndarray:
    """Principal components of the rest."""
    return PCA(COMPONENTS).fit_transform(rest(rows))


TRANSFORMS = {
    SUMMARY: make_pipeline(NGCA(SOURCES, random_state=0), SparseRotation(random_state=0)),
    OVERFIT: overfit,
    ALL: all_rows,
    PRINCIPAL: principal,
}


def measured(
    model: nn.Module, batch: tuple[Tensor, Tensor], perturb: str, step: float = STEP, draws: int = DRAWS
) -> Sensitivity:
    """Sensitivity of the three transforms."""
    options = {"loss": loss} if perturb == "sgd" else {}
    return sensitivity(
        TRANSFORMS, model, batch, LAYER, perturb=perturb, step=step, draws=draws, progress=False, **options
    )


def measure(seed: int, perturb: str) -> dict[str, Any]:
    """One row: one network, one way to move it."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    model = train(seed)
    trained = time.perf_counter() - start
    x, y, s = planted(seed + 100, ROWS)
    with torch.no_grad():
        errors = (model(x) - y).square().mean(0)
    start = time.perf_counter()
    found = measured(model, (x, y), perturb)
    seconds = time.perf_counter() - start
    rows = layer_activations(model, x, LAYER)
    fresh = layer_activations(model, planted(seed + 200, ROWS)[0], LAYER)
    left = rest(np.r_[rows, fresh])
    few = SparseRotation(COMPONENTS, random_state=0).fit(left[:FEW])
    summary = read_coordinates(TRANSFORMS[SUMMARY], rows)
    known = np.abs(np.corrcoef(s.T, summary.T)[:SOURCES, SOURCES:]).max(1)
    ratio, every, pca = (found.ratio(name, SUMMARY) for name in (OVERFIT, ALL, PRINCIPAL))
    options = {"loss": loss} if perturb == "sgd" else {}
    kept = sparsest_insensitive(model, (x, y), LAYER, perturb=perturb, step=STEP, draws=4, progress=False, **options)
    hit = np.abs(np.corrcoef(s.T, kept.transform(rows).T)[:SOURCES, SOURCES:]).max(1, initial=0)
    return {
        "seed": seed, "perturb": perturb, "summary_mse": float(errors[: SOURCES + 1].mean()),
        "refit_summary": float(found[SUMMARY].refit.mean()), "size": float(found.size.mean()),
        "behaviour_change": float(found.behaviour_change.max()), "true_correlation": float(known.min()),
        "kurtosis_fitted": float(few.kurtosis_.mean()),
        "kurtosis_fresh": float(kurtosis(few.transform(left[ROWS:]), fisher=False).mean()),
        "kurtosis_summary": float(kurtosis(summary, fisher=False).mean()),
        "ratio": ratio.value, "ratio_error": ratio.error, "bound": ratio.bound, "ratio_all_rows": every.value,
        "ratio_pca": pca.value,
        "rates": {c.name: {"mean": c.mean, "error": c.mean_error, "span": c.subspace_mean, "saturated": int(c.saturated.sum()),
                           "angle": float(c.angle.mean()), "null": float(c.null.mean())} for c in found.changes},
        "kept": len(kept.sparsity), "kept_true": int((hit > 0.9).sum()), "candidates": len(kept.candidate_sparsity),
        "limit": kept.limit,
        "seconds_training": trained, "seconds": seconds,
    }  # fmt: skip


def spread(values: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3g} ({low:.3g}–{high:.3g})"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line for each way to move."""
    lines = [
        "| moved by | ‖δ‖/‖θ‖ | behaviour changed | summary | its span | overfit rotation | its span | "
        "overfit / summary | seeds ≥ 5 | all samples / summary | PCA / summary | kept: planted, other | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for perturb in PERTURB:
        some = [r for r in rows if r["perturb"] == perturb]
        if not some:
            continue
        rate = {name: [r["rates"][name]["mean"] for r in some] for name in TRANSFORMS}
        span = {name: [r["rates"][name]["span"] for r in some] for name in TRANSFORMS}
        kept = f"{np.median([r['kept_true'] for r in some]):g} of 3, {np.median([r['kept'] - r['kept_true'] for r in some]):g}"
        cells = [
            perturb, f"{np.median([r['size'] for r in some]):.2g}", f"≤ {max(r['behaviour_change'] for r in some):.2g}",
            spread(rate[SUMMARY]), spread(span[SUMMARY]), spread(rate[OVERFIT]), spread(span[OVERFIT]),
            f"**{spread([r['ratio'] for r in some])}**", f"{sum(r['ratio'] >= 5 for r in some)} of {len(some)}",
            spread([r["ratio_all_rows"] for r in some]), spread([r["ratio_pca"] for r in some]), f"{kept} of 21",
            f"{np.median([r['seconds'] for r in some]):.0f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(path: Path, seed: int = 0) -> None:
    """Every coordinate of one network, and how angles grow with the step."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from cnflow.plot._style import BLUE, GREEN, GREY, ORANGE, RED, tidy

    torch.set_num_threads(1)
    model, (x, y, _) = train(seed), planted(seed + 100, ROWS)
    fig, axes = plt.subplots(1, 3, figsize=(17, 4.6), layout="constrained", width_ratios=(1.25, 1.25, 1))
    for ax, perturb, title in zip(axes, PERTURB, ("flat directions", "10 steps of SGD"), strict=False):
        measured(model, (x, y), perturb).plot(ax)
        ax.set_title(f"{title}: one point per coordinate", fontsize=11)
        ax.set_ylim(0.03, 1000)
        ax.get_legend().remove()
    axes[0].legend(frameon=False, fontsize=9, loc="lower right")
    steps = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
    found = [measured(model, (x, y), "flat", step, draws=4) for step in steps]
    for name, colour in zip(TRANSFORMS, (BLUE, ORANGE, GREEN, RED), strict=True):
        angles = np.array([f[name].angle.mean(1) for f in found])
        sizes = np.array([f.size.mean() for f in found])
        axes[2].errorbar(sizes, angles.mean(1), angles.std(1) / 2, fmt="o-", markersize=4, color=colour, label=name)
    own = found[-3][SUMMARY].refit.mean()
    axes[2].axhline(own, color=BLUE, linestyle=":", label="summary,\nrefitting alone")
    axes[2].axhline(np.mean([c.null.mean() for c in found[0].changes]), color=GREY, linestyle="--", label="unrelated")
    axes[2].set(xscale="log", yscale="log", xlabel="‖δ‖/‖θ‖", ylabel="mean angle (sine)")
    axes[2].set_title("flat directions: angle by length of step", fontsize=11)
    axes[2].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    tidy(axes[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark/sensitivity.json"))
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    rows, footer = complete(
        options.json,
        [(seed, perturb) for seed in options.seeds for perturb in PERTURB],
        ("seed", "perturb"),
        measure,
        lambda r: (
            f"seed {r['seed']}, {r['perturb']}: overfit / summary {r['ratio']:.3g} ± {r['ratio_error']:.2g} {r['bound']}, PCA "
            f"{r['ratio_pca']:.3g}; kurtosis {r['kurtosis_fitted']:.2f}, fresh {r['kurtosis_fresh']:.2f}; kept {r['kept_true']} "
            f"planted of {r['kept']}; {r['seconds_training']:.0f} + {r['seconds']:.0f} s"
        ),
        packages=("torch", "scikit-learn", "scipy", "numpy"),
    )
    print(f"\n{table(rows)}\n\nMedian over seeds {sorted({r['seed'] for r in rows})}, quartiles in brackets. {footer}")
    if options.figure:
        figure(options.figure)


if __name__ == "__main__":
    main()
