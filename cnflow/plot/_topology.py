"""Level sets, how they merge, and what they hold, beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnflow._figures import figure
from cnflow.plot._barcode import plot_barcode, plot_betti
from cnflow.plot._level_sets import plot_level_sets
from cnflow.plot._merge_tree import plot_tree, require_level_sets
from cnflow.plot._style import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnflow.topology._level_sets import LevelSets


@figure
def plot_topology(t: LevelSets, fig: Figure | None = None) -> Figure:
    """Draw level sets, merge tree, barcode and Betti numbers beside each other.

    Args:
        t: the result of ``level_sets``.
        fig: an empty figure to draw on.

    Returns:
        The figure; its axes are in that order.

    Raises:
        TypeError: it is something else.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> from cnflow.topology import MixtureDensity, level_sets
        >>> two = MixtureDensity([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0])
        >>> [ax.get_title() for ax in plot_topology(level_sets(two, two.sample(500), refits=0, homology=False)).axes[1:3]]
        ['Merge tree: 2 leaves, 1 merge', 'Barcode']
    """
    require_level_sets(t, "plot_topology")
    fig = new_figure(fig, 15.0, 5.6)
    panels = fig.subplot_mosaic(
        [["sets", "tree", "bars"], ["sets", "tree", "betti"]], width_ratios=[1.25, 1.1, 1], height_ratios=[1.5, 1]
    )
    plot_level_sets(t, panels["sets"])
    plot_tree(t, panels["tree"])
    plot_barcode(t, panels["bars"])
    plot_betti(t, panels["betti"])
    space = "" if t.source.space == "given" else f", {t.source.space} space"
    fig.suptitle(f"Level sets of {t.source.density!r}{space}: {len(t.rows):,} samples", fontsize=12)
    return fig
