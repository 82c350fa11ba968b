"""Samples of a model beside data, and grids of decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnflow import _validation
from cnflow.plot._style import BLUE, GREY, RED, as_array, as_rows, direction_names, new_figure, random_indices, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PAIRS = 3
"""Most pairs of coordinates drawn."""


def plot_samples(
    x: ArrayLike,
    samples: ArrayLike,
    names: Sequence[str] | None = None,
    max_points: int = 3000,
    fig: Figure | None = None,
) -> Figure:
    """Draw data beside samples of the model: pairs of the first coordinates, on the same limits.

    The limits come from the data, with a margin, so a sample that strays far is outside; the title counts
    those.

    Args:
        x: data, shape (n, d).
        samples: of the model, in the same units, shape (m, d).
        names: of the coordinates.
        max_points: most points drawn in a panel; the same number in both, so that densities compare by eye.
        fig: figure to draw on.

    Returns:
        The figure, one row per pair: (1, 2), (3, 4), (5, 6); data left, samples right. One panel if d = 1.

    Raises:
        ValueError: the shapes are not (n, d) and (m, d) with the same d >= 1, or a number is not finite.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(2, 50, 4))
        >>> len(plot_samples(x[0], x[1]).axes)
        4
    """
    max_points = _validation.integer("max_points", max_points, low=1)
    data, drawn = as_rows("x", x), as_rows("samples", samples)
    d = data.shape[1]
    if d == 0 or drawn.shape[1] != d:
        raise ValueError(
            f"x has shape {data.shape} and samples {drawn.shape}, expected (n, d) and (m, d) with the "
            "same d >= 1: decode the samples back to data space"
        )
    pairs = [(i, i + 1) for i in range(0, d - 1, 2)][:MAX_PAIRS]
    if d % 2 and d > 1 and len(pairs) < MAX_PAIRS:
        pairs.append((0, d - 1))
    called = direction_names(names, d if d == 1 else max(map(max, pairs)) + 1, "x")
    if d == 1:
        return _histograms(data[:, 0], drawn[:, 0], called[0], new_figure(fig, 5.5, 3.8))
    low, high = data.min(0), data.max(0)
    reach = np.where(high > low, 0.08 * (high - low), 0.5)
    low, high = low - reach, high + reach
    count = min(len(data), len(drawn), max_points)
    fig = new_figure(fig, 7.0, 0.5 + 3.1 * len(pairs))
    panels = fig.subplots(len(pairs), 2, squeeze=False)
    for row, (i, j) in zip(panels, pairs, strict=True):
        for ax, rows, colour, word in zip(row, (data, drawn), (GREY, BLUE), ("data", "samples"), strict=True):
            chosen = rows[random_indices(len(rows), count)]
            ax.scatter(chosen[:, i], chosen[:, j], s=5, color=colour, alpha=0.5, linewidths=0, rasterized=True)
            ax.set(xlim=(low[i], high[i]), ylim=(low[j], high[j]), xlabel=called[i])
            tidy(ax).set_title(word if ax in panels[0] else "", fontsize=11)
        row[0].set_ylabel(called[j])
        row[1].set_yticklabels([])
    seen = sorted({i for pair in pairs for i in pair})
    outside = ((drawn < low) | (drawn > high))[:, seen].any(1).mean()
    fig.suptitle(f"Data and samples, {count} points each; {100 * outside:.1f}% of samples outside the limits",
                 fontsize=11)  # fmt: skip
    return fig


def _histograms(data: np.ndarray, drawn: np.ndarray, name: str, fig: Figure) -> Figure:
    """One coordinate: both histograms on the same bins."""
    ax = tidy(fig.subplots())
    edges = np.histogram_bin_edges(data, bins=min(60, max(10, int(np.sqrt(len(data))))))
    ax.hist(data, edges.tolist(), density=True, color=GREY, alpha=0.6, label="data")
    ax.hist(drawn, edges.tolist(), density=True, histtype="step", color=RED, linewidth=1.5, label="samples")
    ax.set(xlabel=name, ylabel="density (per unit)", title="Data and samples")
    ax.legend(frameon=False)
    return fig


def plot_images(
    images: ArrayLike,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    limits: tuple[float, float] | None = None,
    fig: Figure | None = None,
) -> Figure:
    """Draw a grid of grey images, for instance the decoding of steps along each core direction.

    All images share one grey scale, so that a change of brightness between them is real.

    Args:
        images: intensities, shape (samples, columns, height, width); dark is large.
        row_labels: one for each sample, written at its left.
        column_labels: one for each column, written above it.
        title: of the figure.
        limits: intensities drawn white and black; default the least and the largest of all images.
        fig: figure to draw on.

    Returns:
        The figure, with samples * columns axes.

    Raises:
        ValueError: the array does not have four dimensions, a number is not finite, or a label is missing.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> import numpy as np
        >>> len(plot_images(np.zeros((2, 3, 8, 8)), row_labels=["core 1", "core 2"]).axes)
        6
    """
    grid = as_array("images", images)
    if grid.ndim != 4 or grid.size == 0:
        raise ValueError(
            f"images has shape {grid.shape}, expected (samples, columns, height, width): "
            "reshape flat pixels, for digits to (samples, columns, 8, 8)"
        )
    rows, columns = grid.shape[:2]
    for name, labels, count in (("row_labels", row_labels, rows), ("column_labels", column_labels, columns)):
        if labels is not None and not hasattr(labels, "__len__"):
            raise ValueError(f"{name} is a {type(labels).__name__}, expected a list of {count}")
        if labels is not None and len(labels) != count:
            raise ValueError(f"{name} has {len(labels)} entries, expected {count}: one for each")
    if not np.isfinite(grid).all():
        raise ValueError(
            f"images has {int((~np.isfinite(grid)).sum())} intensities that are NaN or infinite, expected none: fill them in"
        )
    low, *high = (
        (grid.min(), grid.max()) if limits is None else _validation.each("limits", limits, _validation.number, least=2)
    )
    if len(high) > 1:
        raise ValueError(f"limits has {1 + len(high)} values, expected two: of white and of black")
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    side = 0.75
    fig = new_figure(fig, side * columns + 0.9 * bool(row_labels), side * rows + 0.5 * bool(title) + 0.3)
    panels = fig.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    layout = fig.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):
        layout.set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    for r in range(rows):
        for c in range(columns):
            ax = panels[r, c]
            ax.imshow(grid[r, c], cmap="gray_r", vmin=low, vmax=high[0], interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if r == 0 and column_labels is not None:
                ax.set_title(column_labels[c], fontsize=9, pad=3)
            if c == 0 and row_labels is not None:
                ax.set_ylabel(row_labels[r], rotation=0, ha="right", va="center", fontsize=9)
    if title:
        fig.suptitle(title, fontsize=11)
    return fig
