"""Sensitivity of coordinates to the parameters, beside that of unrelated coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cnflow._figures import figure
from cnflow.plot._style import BLUE, CYCLE, DARK, GREY, RED, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.network.perturbation._sensitivity import Sensitivity
    from cnflow.network.perturbation._sparse_coordinates import InsensitiveCoordinates

MOST = 40
"""Coordinates drawn of each transform, in order; more would be too thin to tell apart."""

RATE = "angle per unit of ‖δ‖/‖θ‖"


@figure
def plot_sensitivity(s: Sensitivity, ax: Axes | None = None) -> Axes:
    """Draw the sensitivity of every coordinate, with its standard error over draws, side by side for each transform.

    The solid line is the mean, the dotted line that of the span, the dashed line what unrelated coordinates would have: the
    most that can be measured with this step. Hollow points are over half as far, so lower bounds.

    Args:
        s: the result of ``sensitivity``.
        ax: axes to draw on.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> import torch
        >>> from sklearn.decomposition import PCA
        >>> from cnflow.network.perturbation._sensitivity import sensitivity
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
        >>> found = sensitivity(PCA(2), model, torch.randn(50, 3), "0", draws=2, progress=False)
        >>> plot_sensitivity(found).get_ylabel()
        'angle per unit of ‖δ‖/‖θ‖'
    """
    counts = [min(MOST, len(change.null)) for change in s.changes]
    ax = new_axes(ax, float(np.clip(2.5 + 0.16 * sum(counts), 5.0, 14.0)), 4.2)
    start = 0.0
    centres: list[float] = []
    labels: list[str] = []
    for change, count, colour in zip(s.changes, counts, CYCLE * len(counts), strict=False):
        at = start + np.arange(count)
        value, error = change.sensitivity[:count], np.nan_to_num(change.error[:count])
        low = np.minimum(error, 0.9 * value)  # a bar that reaches zero has no end on a log axis
        ax.errorbar(at, value, (low, error), fmt="none", ecolor=colour, elinewidth=1.0, zorder=2)
        face = np.where(change.saturated[:count], "white", colour)
        ax.scatter(at, value, 22, facecolors=list(face), edgecolors=colour, linewidths=1.2, zorder=3)
        ends = (start - 0.6, start + count - 0.4)
        lines = (
            (change.mean, "-", DARK, "mean"),
            (change.subspace_mean, ":", DARK, "span"),
            (float(np.nanmean(change.null) * (1 / change.per).mean()), "--", GREY, "unrelated coordinates"),
        )
        for height, style, shade, name in lines:
            ax.plot(
                ends, [height, height], style, color=shade, linewidth=1.3, label=None if centres else name, zorder=1
            )
        centres.append(start + (count - 1) / 2)
        left_out = len(change.null) - count
        labels.append(change.name + f"\n(first {count} of {len(change.null)})" * bool(left_out))
        start += count + 1.5
    ax.set_yscale("log")
    ax.set_xticks(centres, labels, rotation=0 if len(centres) < 5 else 20)
    ax.set(ylabel=RATE, title=f"{s.layer}, {s.perturb}: one point per coordinate, {len(s.size)} draws")
    ax.title.set_fontsize(11)
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return tidy(ax)


@figure
def plot_insensitive(found: InsensitiveCoordinates, ax: Axes | None = None) -> Axes:
    """Draw sparsity against sensitivity: all coordinates of the sparse rotation, and those that are left.

    Args:
        found: the result of ``sparsest_insensitive``.
        ax: axes to draw on.
    """
    ax = new_axes(ax)
    ax.errorbar(
        found.candidates.sensitivity, found.candidate_sparsity, xerr=np.nan_to_num(found.candidates.error),
        fmt="o", markersize=5, color=GREY, elinewidth=1.0, label=f"sparse rotation, {len(found.candidate_sparsity)}",
    )  # fmt: skip
    if found.change is not None:
        ax.plot(found.sensitivity, found.sparsity, "o", markersize=8, markerfacecolor="none", markeredgecolor=BLUE,
                markeredgewidth=1.6, label=f"left, {len(found.sparsity)}")  # fmt: skip
    ax.axvline(found.limit, color=RED, linewidth=1.2, linestyle="--", label="limit")
    ax.axhline(found.sparsity_null, color=DARK, linewidth=1.0, linestyle=":", label="largest in Gaussian samples")
    ax.set(xscale="log", yscale="log", xlabel=f"sensitivity: {RATE}", ylabel="kurtosis (3 for a Gaussian)")
    ax.legend(frameon=False, fontsize=9)
    return tidy(ax)
