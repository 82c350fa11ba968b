"""The core: its points, coloured by label, and the level sets of its density named by the mass they hold."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.data._arrays import refuse_masked
from cnflow.plot._style import (
    BLUE,
    CYCLE,
    DARK,
    FAINT,
    GREY,
    MANY,
    as_array,
    as_rows,
    direction_names,
    message,
    new_axes,
    random_indices,
    tidy,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PAIRED = 5
"""Most directions in a pair plot; more make the panels too small to read."""

Floats = NDArray[np.float64]


def plot_core(
    core: ArrayLike,
    labels: ArrayLike | None = None,
    log_prob: Callable[[Any], Any] | None = None,
    names: Sequence[str] | None = None,
    masses: Sequence[float] = (0.1, 0.5, 0.9),
    max_points: int = 4000,
    ax: Axes | None = None,
) -> Axes:
    """Draw the core: a histogram (k = 1), a scatter with level sets (k = 2), or pairs (k >= 3).

    The level set at mass a is the smallest region that holds a fraction a of the probability. Its threshold
    is the (1 - a) quantile of the log-density at the core points, so the contours are only as good as the
    points are many.

    Args:
        core: core coordinates, shape (n, k). Beyond five directions the first five are drawn: pass the
            leading first.
        labels: of the points, shape (n,); strings and up to 30 whole numbers are classes, other numbers a
            colour scale.
        log_prob: log-density of the core in nats, taking an array of shape (m, k) and giving (m,), or the
            `log_prob` of a torch distribution. Drawn for k = 1 and 2 only: level sets in more directions have
            no faithful picture in pairs.
        names: of the directions, at least as many as are drawn.
        masses: probability masses in (0, 1), without unit.
        max_points: most points drawn, chosen at random.
        ax: axes to draw on. For k >= 3 they are emptied, and the panels are their `child_axes`.

    Returns:
        The axes.

    Raises:
        ValueError: a shape is wrong, a number is not finite, a mass is outside (0, 1), or there are fewer names than directions.

    References:
        Hyndman (1996), "Computing and graphing highest density regions".

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> import numpy as np
        >>> plot_core(np.random.default_rng(0).normal(size=(50, 2))).get_xlabel()
        'core 1'
    """
    points = as_rows("core", core)
    n, k = points.shape
    masses = _validation.each("masses", masses, _validation.number, above=0, below=1)
    max_points = _validation.integer("max_points", max_points, low=1)
    tags = None if labels is None else np.asarray(getattr(labels, "cpu", lambda: labels)())
    refuse_masked(labels, "labels")
    if tags is not None and tags.dtype.kind in "fc" and not np.isfinite(tags).all():
        raise ValueError(
            f"labels has {int((~np.isfinite(tags)).sum())} values that are NaN or infinite, whose points would be left out: "
            "give them a class of their own, or drop their samples"
        )
    if tags is not None and tags.shape != (n,):
        raise ValueError(f"labels has shape {tags.shape}, expected ({n},): one for each sample of core")
    shown = min(k, MAX_PAIRED)
    called = direction_names(names, shown, "core")[:shown]
    if k >= 3:
        return _pairs(points[:, :shown], tags, called, k, max_points, new_axes(ax, 2.1 * shown, 2.0 * shown))
    ax = new_axes(ax)
    if k == 0:
        return message(ax, "The core is empty:\nevery direction is noise.")
    if k == 1:
        _histogram(ax, points[:, 0], tags, log_prob, called[0], sorted(masses))
    else:
        _plane(ax, points, tags, log_prob, called, sorted(masses), max_points)
    return tidy(ax)


def _histogram(
    ax: Axes,
    values: Floats,
    tags: NDArray[Any] | None,
    log_prob: Callable[[Any], Any] | None,
    called: str,
    masses: Sequence[float],
) -> None:
    """One direction: a histogram per class, scaled to the whole, and the density as a line."""
    edges = np.histogram_bin_edges(values, bins=min(60, max(10, int(np.sqrt(len(values))))))
    width = edges[1] - edges[0]
    classes = _classes(tags)
    if tags is None or classes is None:
        ax.hist(values, edges.tolist(), density=True, color=FAINT, edgecolor="white", linewidth=0.3)
    else:
        parts = [values[tags == name] for name in classes]
        weights = [np.full(len(part), 1 / (len(values) * width)) for part in parts]
        colours = [colour for colour, _ in _class_styles(len(classes))]
        ax.hist(
            parts,
            edges.tolist(),
            weights=weights,
            stacked=True,
            color=colours,
            alpha=0.6,
            label=list(map(str, classes)),
        )
    if log_prob is not None:
        reach = 0.05 * (edges[-1] - edges[0])
        grid = np.linspace(edges[0] - reach, edges[-1] + reach, 400)
        density = np.exp(_evaluate(log_prob, grid[:, None]))
        ax.plot(grid, density, color=DARK, linewidth=1.5, label="model density")
        thresholds = _thresholds(_evaluate(log_prob, values[:, None]), masses)
        for mass, level in zip(masses, thresholds, strict=True):
            inside = np.where(density >= np.exp(level), np.exp(level), np.nan)
            ax.plot(
                grid,
                inside,
                color=BLUE,
                linewidth=1.0,
                label="level set, by mass" if mass == masses[0] else None,
            )
            last = np.flatnonzero(np.isfinite(inside))
            if len(last):
                ax.annotate(f"{mass:g}", (grid[last[-1]], np.exp(level)), xytext=(3, 0), color=BLUE,
                            textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=9)
    levels = ", level sets by mass" if log_prob is not None else ""
    ax.set(
        xlabel=called,
        ylabel="density (per unit)",
        title=f"Core: 1 direction, {len(values)} points{levels}",
    )


def _plane(
    ax: Axes,
    points: Floats,
    tags: NDArray[Any] | None,
    log_prob: Callable[[Any], Any] | None,
    called: list[str],
    masses: Sequence[float],
    max_points: int,
) -> None:
    """Two directions: points, and the level sets over them."""
    _scatter(ax, points, tags, max_points, size=7, colorbar=True)
    title = f"Core: 2 directions, {len(points)} points"
    if log_prob is not None:
        at_points = _evaluate(log_prob, points)
        low, high = points.min(0), points.max(0)
        reach = 0.08 * (high - low)
        x, y = (np.linspace(low[i] - reach[i], high[i] + reach[i], 160) for i in range(2))
        grid = np.stack(np.meshgrid(x, y), -1)
        surface = _evaluate(log_prob, grid.reshape(-1, 2)).reshape(len(y), len(x))
        # Contour levels must increase, and a larger mass has a lower threshold.
        levels = dict(zip(_thresholds(at_points, masses)[::-1], list(masses)[::-1], strict=True))
        widths = dict(zip(levels, np.linspace(0.7, 2.2, len(levels)), strict=True))
        ax.contour(x, y, surface, levels=list(levels), colors=DARK, linewidths=list(widths.values()),
                   linestyles="solid")  # fmt: skip
        # Labels on the lines collide where a level set is narrow, so the legend names them.
        for level, mass in reversed(levels.items()):
            ax.plot([], [], color=DARK, linewidth=widths[level], label=f"mass {mass:g}")
        title += ", level sets by mass"
    if ax.get_legend_handles_labels()[1]:
        outside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
        for handle in ax.legend(frameon=False, fontsize=9, markerscale=2, **outside).legend_handles:
            if handle is not None:
                handle.set_alpha(1.0)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel=called[0], ylabel=called[1], title=title)


def _pairs(points: Floats, tags: NDArray[Any] | None, called: list[str], k: int, max_points: int, ax: Axes) -> Axes:
    """Three directions or more: a scatter of each pair below a diagonal of histograms."""
    shown = len(called)
    ax.set_axis_off()
    which = f"the first {shown} of {k}" if shown < k else str(k)
    ax.set_title(f"Core: {which} directions, {len(points)} points")
    cell, gap = 1 / shown, 0.07 / shown
    limits = [_padded(points[:, i]) for i in range(shown)]
    for row in range(shown):
        for column in range(row + 1):
            panel = ax.inset_axes((column * cell + gap, 1 - (row + 1) * cell + gap, cell - 2 * gap, cell - 2 * gap))
            if row == column:
                panel.hist(points[:, row], 30, color=GREY)
                panel.set_yticks([])
            else:
                _scatter(panel, points[:, [column, row]], tags, max_points, size=3, colorbar=False)
                panel.set_ylim(limits[row])
                panel.locator_params(nbins=3, axis="y")
            panel.set_xlim(limits[column])
            tidy(panel).tick_params(labelsize=7)
            panel.locator_params(nbins=3, axis="x")
            panel.set_xlabel(called[column]) if row == shown - 1 else panel.set_xticklabels([])
            if column == 0 and row:
                panel.set_ylabel(called[row])
            elif row != column:
                panel.set_yticklabels([])
    classes = _classes(tags)
    if classes is not None:
        from matplotlib.lines import Line2D

        handles = [
            Line2D([], [], linestyle="", marker=marker, color=colour, label=str(name))
            for name, (colour, marker) in zip(classes, _class_styles(len(classes)), strict=True)
        ]
        # The upper right triangle is empty.
        ax.legend(handles=handles, loc="upper right", frameon=False, ncols=1 + len(handles) // 9, fontsize=9)
    elif tags is not None:
        scatter = next(panel.collections[0] for panel in ax.child_axes if panel.collections)
        ax.figure.colorbar(scatter, cax=ax.inset_axes((0.9, 0.55, 0.025, 0.4)), label="label")
    return ax


def _scatter(ax: Axes, points: Floats, tags: NDArray[Any] | None, max_points: int, size: float, colorbar: bool) -> None:
    """Points coloured by class, by a scale, or all alike."""
    order = random_indices(len(points), max_points)
    classes = _classes(tags)
    style: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.6, "rasterized": True}
    if tags is None:
        ax.scatter(*points[order].T, color=GREY, **style)
    elif classes is None:
        x, y = points[order].T
        scatter = ax.scatter(x, y, c=tags[order].astype(float), cmap="cividis", **style)
        if colorbar:
            ax.figure.colorbar(scatter, ax=ax, label="label")
    else:
        for name, (colour, marker) in zip(classes, _class_styles(len(classes)), strict=True):
            chosen = order[tags[order] == name]
            ax.scatter(*points[chosen].T, color=colour, marker=marker, label=str(name), **style)


def _classes(tags: NDArray[Any] | None) -> NDArray[Any] | None:
    """The distinct labels, or None if the labels are absent or a continuous quantity."""
    if tags is None or tags.dtype.kind == "f":
        return None
    classes = np.unique(tags)
    # Beyond this nobody can tell the colours and shapes apart.
    return classes if len(classes) <= 3 * len(MANY) or tags.dtype.kind not in "iu" else None


def _class_styles(count: int) -> list[tuple[str, str]]:
    """A colour and a marker for each class: shapes change when the colours run out."""
    colours = CYCLE if count <= len(CYCLE) else MANY
    return [(colours[i % len(colours)], "o^s"[i // len(colours) % 3]) for i in range(count)]


def _evaluate(log_prob: Callable[[Any], Any], where: Floats) -> Floats:
    """Log-density in nats at samples, with its shape checked."""
    found = as_array("log_prob", log_prob(_as_asked(log_prob, where)))
    if found.shape != (len(where),):
        raise ValueError(f"log_prob gave shape {found.shape} for {where.shape}, expected ({len(where)},)")
    return found


def _as_asked(log_prob: Callable[[Any], Any], where: Floats) -> Any:
    """Samples as the callable wants them: a torch distribution refuses arrays, everything else may have one."""
    torch, owner = sys.modules.get("torch"), getattr(log_prob, "__self__", None)
    if torch is None or not isinstance(owner, torch.distributions.Distribution):
        return where
    like = owner.mean
    return torch.as_tensor(where, dtype=like.dtype, device=like.device)


def _thresholds(at_points: Floats, masses: Sequence[float]) -> Floats:
    """Log-density in nats above which lies each mass."""
    thresholds: Floats = np.quantile(at_points, 1 - np.asarray(masses, dtype=float))
    return thresholds


def _padded(values: Floats) -> tuple[float, float]:
    """Limits a little beyond the values."""
    low, high = float(values.min()), float(values.max())
    reach = 0.05 * (high - low) or 0.5
    return low - reach, high + reach
