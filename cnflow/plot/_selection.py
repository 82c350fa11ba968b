"""The curve that chose the size of a core."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnflow._figures import figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.flow._selection import Selection


@figure
def plot_selection(selection: Selection, ax: Axes | None = None) -> Axes:
    """Held-out NLL above that of the best size, with paired standard errors; the size taken and those not ruled out marked.

    Args:
        selection: how the size was chosen.
        ax: where to draw; default a new figure.
    """
    ax = Figure(figsize=(6.4, 4.2), layout="constrained").subplots() if ax is None else ax
    sizes = [point.core_dim for point in selection.curve]
    values = [point.behind for point in selection.curve]
    ax.errorbar(
        sizes, values, [point.error for point in selection.curve], fmt="o-", color="0.35", capsize=3, label="size tried"
    )
    low, high = min(selection.candidates), max(selection.candidates)
    if not selection.determined:
        ax.axvspan(low - 0.3, high + 0.3, color="tab:orange", alpha=0.15, label="not ruled out")
    taken = next(point for point in selection.curve if point.core_dim == selection.core_dim)
    ax.plot(taken.core_dim, taken.behind, "o", color="tab:blue", markersize=10, label=f"taken: {taken.core_dim}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("core directions k")
    ax.set_ylabel("held-out NLL above the best size (nats)")
    ax.set_title(selection.statement(), fontsize=10)
    ax.legend(frameon=False)
    return ax
