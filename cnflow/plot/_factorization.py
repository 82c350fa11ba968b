"""Rank of a map: its singular values over points, and the error of predictions from k numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cnflow._figures import figure
from cnflow.plot._style import BLUE, DARK, GREY, ORANGE, new_axes, tidy, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.network.rank._bottleneck import Bottleneck
    from cnflow.network.rank._factorization import Factorization

DECADES = 4
"""Decades drawn below the smallest singular value that counts."""


@figure
def plot_factorization(found: Factorization, ax: Axes | None = None) -> Axes:
    """Draw singular values relative to the largest: median and range over the points, and after random re-encodings.

    The line is at the rank; what lies below the tolerance is rounding, and is drawn at the lower edge.

    Args:
        found: what ``cnflow.network.factorization`` gives.
        ax: axes to draw on.
    """
    ax = new_axes(ax, 6.0, 4.2)
    relative = found.spectrum / np.maximum(found.spectrum[:, :1], 1e-300)
    counted = relative[:, : found.rank][relative[:, : found.rank] > found.tolerance]
    floor = (
        max(found.tolerance, counted.min() * 10.0**-DECADES) if found.energy is None else relative[relative > 0].min()
    )
    shown = min(relative.shape[1], max(2 * found.rank, found.rank + 8))
    order = np.arange(1, shown + 1)
    kept = np.maximum(relative[:, :shown], floor)
    ax.fill_between(
        order, kept.min(0), kept.max(0), color=BLUE, alpha=0.2, linewidth=0, label=f"range over {len(kept)} points"
    )
    ax.plot(order, np.median(kept, 0), "o-", color=BLUE, markersize=3, linewidth=1.2, label="median")
    if len(found.recoded):
        again = found.recoded / np.maximum(found.recoded[..., :1], 1e-300)
        again = np.maximum(again.reshape(-1, again.shape[-1])[:, :shown], floor)
        label = f"after {len(found.recoded)} re-encodings of both layers"
        ax.plot(
            order[: again.shape[1]], np.median(again, 0), "s--", color=ORANGE, markersize=3, linewidth=1.0, label=label
        )
    name = "rank" if found.energy is None else f"{found.energy:.0%} of ‖J‖²"
    ax.axvline(found.rank + 0.5, color=DARK, linestyle=":", linewidth=1.0)
    ax.annotate(f"{name}: {found.rank}", (found.rank + 0.5, 1.0), xycoords=ax.get_xaxis_transform(), xytext=(4, -3),
                textcoords="offset points", ha="left", va="top", fontsize=9, color=DARK)  # fmt: skip
    ax.set_yscale("log")
    ax.set(xlabel="direction", ylabel="singular value of ∂target/∂source over the largest", xlim=(0.5, shown + 0.5))
    whole_numbers(ax.xaxis)
    ax.set_title(
        f"{found.source} → {found.target}: {found.shape[1]} → {found.dimension} → {found.shape[0]}\n"
        f"joint row space {found.row_dimension}, consistency {found.consistency:.2f}",
        fontsize=11,
    )
    ax.legend(frameon=False, fontsize=9, loc="best")
    return tidy(ax)


@figure
def plot_bottleneck(found: Bottleneck, ax: Axes | None = None) -> Axes:
    """Draw the held-out error of source → k → target against k, beside that of linear maps.

    Args:
        found: what ``cnflow.network.train_bottleneck`` gives.
        ax: axes to draw on.
    """
    ax = new_axes(ax)
    ax.plot(found.dims, found.linear, "s--", color=GREY, markersize=4, label="linear maps of rank k")
    ax.errorbar(
        found.dims,
        found.error,
        found.std_error,
        fmt="o-",
        color=BLUE,
        markersize=4,
        capsize=3,
        label="networks through k",
    )
    ax.set_yscale("log")
    ax.set(xlabel="k: numbers in the summary", ylabel="held-out error, share of the target's variance")
    ax.set_xticks(found.dims)
    ax.set_title(f"{found.source} → k → {found.target}, {found.n_held_out} samples held out", fontsize=11)
    ax.legend(frameon=False, fontsize=9)
    return tidy(ax)
