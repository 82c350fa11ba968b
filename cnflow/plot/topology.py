"""Level sets, merge tree and barcode of an analysis by mass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnflow.plot._style import BLUE, DARK, FAINT, GREEN, GREY, MANY, ORANGE, new_axes, new_figure, thin, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_barcode", "plot_level_sets", "plot_topology", "plot_tree"]

NAMED = 12
"""Leaves that are named in a figure; more would overlap."""


def _colour(t: Any, number: int) -> str:
    """A leaf's own colour; that of its one leaf for anything else that has one, else grey."""
    return MANY[number % len(MANY)] if t.tree[number].is_leaf else GREY


def plot_level_sets(t: Any, ax: Axes | None = None, masses: Sequence[float] | None = None, grid: int = 160) -> Axes:
    """Rows by structure; in one and two directions the level sets themselves.

    Args:
        t: the result of ``level_sets``.
        ax: axes to draw on.
        masses: of the level sets drawn; default .25, .5, .75, .9 and .99, as far as they can be told.
        grid: points along each side at which the density is looked at.
    """
    ax = new_axes(ax)
    low, high = t.axis.askable()
    masses = [m for m in (masses or (0.25, 0.5, 0.75, 0.9, 0.99)) if low <= m <= high]
    levels = np.array([float(t.axis.level(m)) for m in masses])
    rows, dim = t.rows, t.rows.shape[1]
    some = thin(len(rows), 3000)
    name = "core direction" if t.source.space == "core" else "direction"
    if dim == 1:
        edges = np.linspace(*_range(rows[:, 0]), 600)
        value = np.exp(t.source.density.log_prob(edges[:, None]))
        ax.plot(edges, value, color=DARK, linewidth=1.5)
        for mass, level in zip(masses, levels, strict=True):
            ax.axhline(np.exp(level), color=GREY, linewidth=0.6)
            ax.annotate(f"{mass:.0%}", (edges[-1], np.exp(level)), fontsize=8, color=DARK, va="bottom", ha="right")
        for s in t.tree.leaves:
            ax.plot(s.peak[0], np.exp(s.birth), "o", color=_colour(t, s.number), markersize=6)
        ax.set(xlabel=f"{name} 1", ylabel="density, 1/unit", ylim=(0, None))
        return tidy(ax)
    label = t.tree.label[some]
    turned, points, saddles = (
        rows,
        np.stack([s.peak for s in t.tree.leaves]),
        [s.saddle for s in t.tree if s.saddle is not None],
    )
    if dim > 2:
        # the two directions in which the rows spread most
        centre = rows.mean(0)
        axes = np.linalg.svd(rows[some] - centre, full_matrices=False)[2][:2].T
        turned, points, saddles = (rows - centre) @ axes, (points - centre) @ axes, []
        inside = t.tree.component(float(t.axis.level(0.9)))[some] >= 0
        label = np.where(inside, label, -1)
    colours = np.array([MANY[i % len(MANY)] if i >= 0 else FAINT for i in label])
    ax.scatter(*turned[some].T, s=4, c=colours, alpha=0.45, linewidths=0, rasterized=True)
    if dim == 2:
        x, y = (np.linspace(*_range(rows[:, j]), grid) for j in (0, 1))
        mesh = np.stack(np.meshgrid(x, y, indexing="xy"), -1)
        value = t.source.density.log_prob(mesh.reshape(-1, 2)).reshape(grid, grid)
        order = np.argsort(levels)
        lines = ax.contour(x, y, value, levels=levels[order], colors=DARK, linewidths=0.8, linestyles="solid")
        ax.clabel(lines, fmt={levels[i]: f"{masses[i]:.0%}" for i in order}, fontsize=7, inline_spacing=2)
        ax.set(xlabel=f"{name} 1", ylabel=f"{name} 2")
    else:
        ax.set(xlabel="widest direction of the rows", ylabel="second widest")
        ax.set_title("rows in the 90 % level set, coloured by structure", fontsize=9, color=DARK)
    for number, point in enumerate(points[:NAMED]):
        ax.annotate(str(number), point[:2], fontsize=9, weight="bold", ha="center", va="center", color="white",
                    bbox={"boxstyle": "circle,pad=0.2", "facecolor": MANY[number % len(MANY)], "edgecolor": "white"})  # fmt: skip
    if saddles:
        ax.plot(*np.stack(saddles).T, "x", color=DARK, markersize=6, markeredgewidth=1.5)
    ax.set_aspect("equal", adjustable="datalim")
    return tidy(ax)


def _range(values: NDArray[np.float64], margin: float = 0.06) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return low - margin * (high - low), high + margin * (high - low)


def plot_tree(t: Any, ax: Axes | None = None) -> Axes:
    """The merge tree: peaks on top, and downwards the mass at which they join. Bars are as wide as structures are heavy.

    Args:
        t: the result of ``level_sets``.
        ax: axes to draw on.
    """
    ax = new_axes(ax)
    tree = t.tree
    place = _places(tree)
    widest = max(s.mass for s in tree)
    for s in tree:
        x, top, bottom = place[s.number], s.birth_mass, s.merge_mass
        loops = s.extras.get("betti", (1, 0, 0))[1:]
        ax.plot(
            [x, x], [top, bottom], color=_colour(t, s.number), linewidth=2 + 10 * s.mass / widest, solid_capstyle="butt"
        )
        if s.children:
            ends = [place[c] for c in s.children]
            ax.plot([min(ends), max(ends)], [top, top], color=DARK, linewidth=1.2)
        if s.is_leaf and s.number < NAMED:
            ax.annotate(f"{s.number}\n{s.basin_mass:.2f}", (x, top), xytext=(0, 4), textcoords="offset points", ha="center",
                        va="bottom", fontsize=8, color=_colour(t, s.number), annotation_clip=False)  # fmt: skip
        if any(loops):
            told = ", ".join(f"β{d} = {b}" for d, b in enumerate(loops, 1) if b)
            ax.annotate(
                told,
                (x, 0.5 * (top + bottom)),
                xytext=(9, 0),
                textcoords="offset points",
                fontsize=8,
                color=DARK,
                va="center",
            )
    ax.set(ylim=(1.03, -0.03), xlim=(-0.8, max(place.values()) + 0.8), xticks=[], ylabel="mass of the level set")
    ax.set_title("leaf, and share of rows that climb to it", fontsize=9, color=DARK, pad=24)
    ax.spines["bottom"].set_visible(False)
    return tidy(ax)


def _places(tree: Any) -> dict[int, float]:
    """Horizontal place of every structure: leaves side by side, nodes in the middle of their children."""
    place: dict[int, float] = {}
    waiting = [s.number for s in tree.roots][::-1]
    order: list[int] = []
    while waiting:
        number = waiting.pop()
        order.append(number)
        if tree[number].is_leaf:
            place[number] = float(len(place))
        waiting += sorted(tree[number].children, key=lambda c: tree[c].top)
    for number in reversed(order):
        if not tree[number].is_leaf:
            place[number] = float(np.mean([place[c] for c in tree[number].children]))
    return place


def plot_barcode(t: Any, ax: Axes | None = None) -> Axes:
    """Over which masses each component, loop and void is there.

    Args:
        t: the result of ``level_sets``.
        ax: axes to draw on.
    """
    ax = new_axes(ax)
    bars = [(0, s.birth_mass, _end(t.tree, s), f"{s.number}") for s in t.tree.leaves]
    classes = t.homology.classes if t.homology is not None else ()
    bars += [(c.dim, c.birth_mass, c.death_mass, "") for c in classes]
    colours = {0: BLUE, 1: ORANGE, 2: GREEN}
    names = {0: "components", 1: "loops", 2: "voids"}
    seen: set[int] = set()
    for row, (dim, start, end, text) in enumerate(bars):
        ax.barh(row, end - start, left=start, height=0.6, color=colours[dim], label=None if dim in seen else names[dim])
        seen.add(dim)
        if text and len(bars) <= 2 * NAMED:
            ax.annotate(
                text,
                (start, row),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8,
                color=DARK,
            )
    ax.set(xlim=(-0.05, 1), ylim=(len(bars) - 0.3, -0.7), yticks=[], xlabel="mass of the level set")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, frameon=False, fontsize=9)
    ax.spines["left"].set_visible(False)
    return tidy(ax)


def _end(tree: Any, leaf: Any) -> float:
    """Mass at which a leaf joins an older one: the elder rule. Leaves are numbered from the highest down."""
    here = leaf
    while here.parent is not None and min(tree[here.parent].leaves) == leaf.number:
        here = tree[here.parent]
    return here.merge_mass


def plot_topology(t: Any, fig: Figure | None = None) -> Figure:
    """Level sets, merge tree and barcode side by side.

    Args:
        t: the result of ``level_sets``.
        fig: an empty figure to draw on.
    """
    fig = new_figure(fig, 13.5, 4.6)
    left, middle, right = fig.subplots(1, 3, width_ratios=[1.25, 1, 1])
    plot_level_sets(t, left)
    plot_tree(t, middle)
    plot_barcode(t, right)
    return fig
