"""Level sets of maps: their points and persistence beside the null's, sizes of those of discrete maps, and Reeb graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnflow._figures import figure
from cnflow.plot._style import (
    BLUE,
    CYCLE,
    DARK,
    FAINT,
    GREEN,
    GREY,
    ORANGE,
    new_axes,
    random_indices,
    tidy,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.network.preimages._discrete import LevelSetSizes
    from cnflow.network.preimages._preimages import Preimage
    from cnflow.network.preimages._reeb import ReebGraph

MOST = 3000
"""Points drawn."""

SOLID = 0.02
"""Share of the variance in the third principal direction from which the points are drawn in space."""

WORDS = ("component", "loop", "void")


@figure
def plot_preimage(preimage: Preimage, ax: Axes | None = None) -> Axes:
    """Draw a level set: its points, and its persistence beside that of points drawn at random from the region.

    Args:
        preimage: the result of ``level_sets``.
        ax: axes to draw on; emptied, and the two panels are their `child_axes`.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> import torch
        >>> from cnflow.network.preimages._preimages import level_sets
        >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> found = level_sets(torch.nn.Linear(2, 1), x, points=100, landmarks=40)
        >>> len(plot_preimage(found).child_axes)
        2
    """
    ax = new_axes(ax, 9.0, 4.2)
    ax.set_axis_off()
    solid = len(_frame(preimage.points)[1]) > 2
    left = ax.inset_axes((0.06, 0.12, 0.42, 0.78), projection="3d" if solid else None)
    plot_level_set_points(preimage, left)
    _persistence(preimage, ax.inset_axes((0.6, 0.12, 0.38, 0.78)))
    return ax


def plot_level_set_points(preimage: Preimage, ax: Axes | None = None) -> Axes:
    """Draw the points of a level set, coloured by component, before points of the region.

    They are drawn as they are in two dimensions, else in their first two or three principal directions.

    Args:
        preimage: the result of ``level_sets``.
        ax: axes to draw on, in space for points that need it; on flat axes the first two directions are drawn.
    """
    if ax is None and len(_frame(preimage.points)[1]) > 2:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=(5, 4.5)).add_subplot(projection="3d")
    ax = new_axes(ax, 5.0, 4.5)
    solid = ax.name == "3d"
    mean, directions = _frame(preimage.points)
    directions = directions[: 3 if solid else 2]
    behind = ((preimage.null_points - mean) @ directions.T)[random_indices(len(preimage.null_points), MOST)]
    _dots(ax, behind, s=4, color=FAINT, label="region")
    at = (preimage.points - mean) @ directions.T
    for number in np.unique(preimage.component):
        which = np.flatnonzero(preimage.component == number)
        some = at[which[random_indices(len(which), MOST)]]
        _dots(ax, some, s=7, color=GREY if number < 0 else CYCLE[number % len(CYCLE)])
    given = preimage.points.shape[1] == 2
    named = [f"{preimage.source} {i + 1}" if given else f"principal direction {i + 1}" for i in range(len(directions))]
    ax.set(xlabel=named[0], ylabel=named[1])
    ax.set_title(
        f"{preimage.layer} = {', '.join(f'{v:.3g}' for v in preimage.value)}: Betti {preimage.betti}", fontsize=11
    )
    if solid:
        space: Any = ax
        space.set_zlabel(named[2])
        ax.set_box_aspect(np.ptp(np.concatenate([at, behind]), axis=0))
        ax.tick_params(labelsize=7)
        return ax
    ax.set_aspect("equal", adjustable="datalim")
    return tidy(ax)


@figure
def plot_level_set_sizes(sizes: LevelSetSizes, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Draw the sizes of level sets, largest first; two maps that are the same up to relabelling draw the same line.

    Args:
        sizes: the result of ``level_set_sizes``.
        ax: axes to draw on.
        label: of the line.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> from cnflow.network.preimages._discrete import level_set_sizes
        >>> plot_level_set_sizes(level_set_sizes(["a", "b", "a"])).get_ylabel()
        'inputs'
    """
    ax = new_axes(ax, 5.0, 3.4)
    drawn = sum(bool(line.get_gid() == "sizes") for line in ax.lines)
    # the later thinner, so that equal lines do not hide one another
    ax.plot(
        np.arange(1, len(sizes.sizes) + 1), sizes.sizes, "o-", gid="sizes", color=CYCLE[drawn % len(CYCLE)],
        linewidth=3.0 / (drawn + 1), markersize=7 / (drawn + 1), label=label,
    )  # fmt: skip
    ax.set(xlabel="level set, largest first", ylabel="inputs", ylim=(0, None))
    whole_numbers(ax.xaxis)
    if label is not None:
        ax.legend(frameon=False, fontsize=9)
    return tidy(ax)


@figure
def plot_reeb(graph: ReebGraph, ax: Axes | None = None) -> Axes:
    """Draw a Reeb graph: values upwards, nodes of one height spaced as in the data, areas by number of samples.

    Args:
        graph: the result of ``reeb_graph``.
        ax: axes to draw on.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> from cnflow.network.preimages._reeb import reeb_graph
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> plot_reeb(reeb_graph(x[:, 1], x)).get_ylabel()
        'value'
    """
    ax = new_axes(ax, 4.5, 4.5)
    height = np.array([(node.low + node.high) / 2 for node in graph.nodes])
    centres = np.stack([node.centre for node in graph.nodes])
    # upwards the value; sideways the widest direction of what a linear fit of the value leaves
    design = np.stack([np.ones_like(height), height], 1)
    rest = centres - design @ np.linalg.lstsq(design, centres, rcond=None)[0]
    across = rest @ np.linalg.svd(rest, full_matrices=False)[2][0]
    for a, b in graph.edges:
        ax.plot(across[[a, b]], height[[a, b]], color=GREY, linewidth=1.2, zorder=1)
    rows = np.array([len(node.members) for node in graph.nodes])
    colour = np.select([graph.degrees > 2, graph.degrees == 1], [ORANGE, GREEN], BLUE)
    ax.scatter(across, height, s=12 + 120 * rows / rows.max(), c=colour, linewidths=0, zorder=2)
    ax.margins(x=0.3 if np.ptp(across) > 0 else 1.0)
    ax.set(xlabel="apart in the data", ylabel="value")
    ax.set_title(f"Reeb graph: {_many(graph.components, 'component')}, {_many(graph.loops, 'loop')}", fontsize=11)
    return tidy(ax)


def _dots(ax: Axes, points: NDArray[np.float64], **style: Any) -> None:
    """Dots at points in the plane or in space, shape (n, 2) or (n, 3)."""
    draw: Any = ax.scatter
    draw(*points.T, linewidths=0, rasterized=True, **style)


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _frame(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean, and the two or three directions to draw in, one a row; in two dimensions the coordinates themselves."""
    if points.shape[1] <= 2:
        return np.zeros(points.shape[1]), np.eye(points.shape[1])
    mean = points.mean(0)
    _, size, directions = np.linalg.svd(points - mean, full_matrices=False)
    share = size**2 / (size**2).sum()
    return mean, directions[: 3 if share[2] > SOLID else 2]


def _persistence(preimage: Preimage, ax: Axes) -> None:
    """Births and deaths of loops and voids as filled marks, those of the null hollow."""
    top = 0.0
    for rips, null in ((preimage.null, True), (preimage.diagrams, False)):
        for dim, diagram in enumerate(next(iter(rips.diagrams.values()))[1:], 1):
            death = np.minimum(diagram[:, 1], rips.cap)
            colour = (ORANGE, GREEN)[(dim - 1) % 2]
            style: dict[str, Any] = {"facecolors": "none", "edgecolors": GREY} if null else {"color": colour}
            word = f"{WORDS[dim]}s" if dim < len(WORDS) else f"H{dim}"
            ax.scatter(
                diagram[:, 0], death, s=26, marker="o^s"[(dim - 1) % 3], linewidths=0.8, zorder=2 if null else 3,
                label=f"{word}, region (null)" if null else word, **style,
            )  # fmt: skip
            top = max(top, float(death.max(initial=0.0)))
    ax.plot([0, top], [0, top], color=DARK, linewidth=0.8)
    ax.set(xlabel="birth (source units)", ylabel="death (source units)")
    ax.set_title(f"Betti {preimage.betti}, of the region {preimage.null_betti}", fontsize=11)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    tidy(ax)
