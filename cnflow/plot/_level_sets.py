"""Level sets of given masses: on the line, in the plane, and as coloured samples in more directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnflow import _validation
from cnflow._figures import figure
from cnflow.plot._merge_tree import NAMED, badge, leaf_colour, named_leaves, require_level_sets
from cnflow.plot._style import DARK, FAINT, GREY, new_axes, random_indices, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import ContourSet

    from cnflow.topology._level_sets import LevelSets

MOST_ROWS = 3000
"""Most samples drawn, chosen at random."""

SHADES = ("#F3F5F7", "#A9B7C6")
"""Of the level sets in the plane: the largest mass, and the smallest."""

ONE_MASS = 0.9
"""Mass of the level set whose structures are coloured where level sets themselves cannot be drawn."""

DIRECTIONS = {"core": "core direction", "joint": "latent direction", "data": "data direction"}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@figure
def plot_level_sets(
    t: LevelSets,
    ax: Axes | None = None,
    masses: Sequence[float] | None = None,
    axes: tuple[int, int] | None = None,
    grid: int = 200,
) -> Axes:
    """Draw the level sets of the masses, and the samples coloured by structure.

    In one direction: the density, with the level set of each mass as a band at its height. In two: the level sets shaded and
    named by mass, the samples coloured by the leaf they climb to, peaks numbered, and crosses where structures merge. In more: the
    samples in two directions, coloured by the structure of the level set of one mass that they are in (a structure of several
    leaves has the colour of the one with the highest peak), grey outside.

    Args:
        t: the result of ``level_sets``.
        ax: axes to draw on.
        masses: of the level sets; default those of ``t.masses`` that the samples can tell, and .9 in three or more directions,
            where there can be but one.
        axes: the two directions to draw, from 0, where there are three or more; default the two in which the samples spread most.
        grid: points along each side at which the density is looked at.

    Raises:
        TypeError: it is something else.
        ValueError: for masses outside (0, 1) or that so few samples cannot tell, none, more than can be drawn, or directions that
            are not there.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> from cnflow.topology import MixtureDensity, level_sets
        >>> two = MixtureDensity([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0])
        >>> plot_level_sets(level_sets(two, two.sample(500), refits=0, homology=False)).get_xlabel()
        'direction 1'
    """
    require_level_sets(t, "plot_level_sets")
    dim = t.rows.shape[1]
    masses, grid = _masses(t, masses, dim), _validation.integer("grid", grid, low=2)
    pair = _pair(axes, dim)
    levels = np.asarray(t.axis.level(np.array(masses)), dtype=np.float64)
    name = DIRECTIONS.get(t.source.space, "direction")
    if dim == 1:
        return _line(t, new_axes(ax, 6.0, 4.0), masses, levels, f"{name} 1", 3 * grid)
    ax = new_axes(ax, 5.6, 5.0)
    if dim == 2:
        _plane(t, ax, masses, levels, grid)
        ax.set(xlabel=f"{name} 1", ylabel=f"{name} 2")
    else:
        _projected(t, ax, masses[0], float(levels[0]), pair, name)
    ax.set_aspect("equal")
    return tidy(ax)


def _masses(t: LevelSets, masses: Sequence[float] | None, dim: int) -> list[float]:
    if masses is None:
        low, high = t.axis.askable()
        wanted = [m for m in ((ONE_MASS,) if dim > 2 else t.masses) if low <= m <= high]
        return sorted(wanted) or [0.5]
    several = [masses] if np.ndim(masses) == 0 else masses
    given = sorted(_validation.each("masses", several, _validation.number, least=1, above=0, below=1))
    if dim > 2 and len(given) > 1:
        raise ValueError(
            f"masses has {len(given)} entries, expected one: samples of {dim} directions are coloured by the "
            f"structures of a single "
            "level set; draw one figure for each"
        )
    return given


def _pair(axes: tuple[int, int] | None, dim: int) -> tuple[int, int] | None:
    if axes is None:
        return None
    pair = _validation.each("axes", axes, _validation.integer)
    if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= i < dim for i in pair):
        raise ValueError(f"axes is {tuple(axes)}, expected two different directions from 0 to {dim - 1}")
    return pair


def _line(t: LevelSets, ax: Axes, masses: list[float], levels: Floats, name: str, grid: int) -> Axes:
    """One direction: the density, filled by leaf, and the level sets as bands at their heights."""
    rows = t.rows[:, 0]
    order = np.argsort(rows, kind="stable")
    inside = rows[t.log_prob >= levels.min()]
    low, high = _widened(*_ends(inside), 0.12)
    at, value, leaf = _curve(t, order, low, high, grid)
    for s in t.tree.leaves:
        ax.fill_between(
            at, 0, value, where=leaf == s.number, color=leaf_colour(s.number), alpha=0.3, linewidth=0, zorder=1
        )
    ax.plot(at, value, color=DARK, linewidth=1.5, zorder=3, label="density")
    previous = np.inf
    for mass, level in zip(masses, levels, strict=True):
        height = float(np.exp(level))
        for start, end in _runs(at, value >= height):
            ax.plot([start, end], [height] * 2, color=DARK, linewidth=3.0, alpha=0.55, solid_capstyle="butt", zorder=2,
                    label=f"mass {mass:g}")  # fmt: skip
        if previous - height > 0.035 * value.max():
            previous = height
            ax.annotate(_percent(mass), (1.0, height), xycoords=ax.get_yaxis_transform(), xytext=(3, 0),
                        textcoords="offset points", va="center", fontsize=8, color=DARK)  # fmt: skip
    merges = {(float(s.saddle[0]), float(np.exp(s.merge))) for s in t.tree if s.saddle is not None}
    if merges:
        ax.plot(
            *zip(*sorted(merges), strict=True),
            "x",
            color=DARK,
            markersize=6,
            markeredgewidth=1.6,
            zorder=4,
            label="merges",
        )
    for number in named_leaves(t.tree):
        badge(ax, number, (t.tree[number].peak[0], np.exp(t.tree[number].birth)), lift=10)
    ax.set(xlim=(low, high), ylim=(0, 1.16 * value.max()), xlabel=name, ylabel="density")
    ax.set_title("Level sets by mass", fontsize=11)
    return tidy(ax)


def _curve(t: LevelSets, order: Ints, low: float, high: float, grid: int) -> tuple[Floats, Floats, Ints]:
    """Places, the density and the leaf there; where the density is known at samples only, the samples."""
    rows, label = t.rows[order, 0], t.tree.label[order]
    if _table_only(t):
        return rows, np.exp(t.log_prob[order]), label
    at = np.linspace(low, high, grid)
    nearest = np.clip(np.searchsorted(0.5 * (rows[1:] + rows[:-1]), at), 0, len(rows) - 1)
    return at, np.exp(t.source.density.log_prob(at[:, None])), label[nearest]


def _runs(at: Floats, inside: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """First and last place of every unbroken run of places inside."""
    edges = np.flatnonzero(np.diff(np.r_[False, inside, False].astype(int)))
    return [(float(at[a]), float(at[b - 1])) for a, b in edges.reshape(-1, 2)]


def _plane(t: LevelSets, ax: Axes, masses: list[float], levels: Floats, grid: int) -> None:
    """Two directions: level sets as filled contours, samples by leaf, peaks and merges."""
    edges, first = np.unique(levels, return_index=True)
    inside = t.rows[t.log_prob >= edges[0]]
    lines = _contours(t, ax, edges, inside, grid)
    _limits(ax, np.concatenate([inside, *lines.allsegs[0]]))
    leaves = len(t.tree.leaves)
    _scatter(ax, t.rows, np.array([*(leaf_colour(i) for i in range(leaves)), GREY])[t.tree.label])
    points = np.stack([s.peak for s in t.tree.leaves])
    saddles = np.array([s.saddle for s in t.tree if s.saddle is not None]).reshape(-1, 2)
    if len(saddles):
        saddles = np.unique(saddles, axis=0)
        ax.plot(*saddles.T, "x", color=DARK, markersize=6, markeredgewidth=1.6, zorder=4, label="merges")
    _name_lines(ax, lines, [masses[i] for i in first], np.concatenate([points, saddles]))
    _peaks(t, ax, points)
    ax.set_title("Level sets by mass, samples by leaf", fontsize=11)


def _contours(t: LevelSets, ax: Axes, edges: Floats, inside: Floats, grid: int) -> ContourSet:
    """Shade the level sets and draw their borders; where the density is known at samples only, through triangles of samples."""
    from matplotlib.colors import LinearSegmentedColormap

    if _table_only(t):
        some = random_indices(len(t.rows), MOST_ROWS)
        where, value = [*t.rows[some].T], t.log_prob[some]
        fill: Any = ax.tricontourf
        line: Any = ax.tricontour
    else:
        # a level set reaches farther than the few samples in it
        where = [np.linspace(*_widened(*_ends(column), 0.02 + 4 / np.sqrt(len(inside))), grid) for column in inside.T]
        mesh = np.stack(np.meshgrid(*where), -1)
        value = t.source.density.log_prob(mesh.reshape(-1, 2)).reshape(grid, grid)
        fill, line = ax.contourf, ax.contour
    # outside the support there is no number to draw a border with
    value = np.maximum(value, edges[0] - 30)
    colours = LinearSegmentedColormap.from_list("level sets", SHADES)(np.linspace(0, 1, len(edges)))
    fill(*where, value, levels=[*edges, max(float(value.max()), edges[-1]) + 1], colors=colours, zorder=0)
    borders: ContourSet = line(
        *where, value, levels=edges, colors=DARK, linewidths=0.7, linestyles="solid", alpha=0.7, zorder=2
    )
    return borders


def _name_lines(ax: Axes, lines: ContourSet, masses: list[float], marks: Floats) -> None:
    """Write each mass once, on a border that is long enough, clear of the marks and of other names."""
    from matplotlib.patheffects import withStroke

    width = float(np.ptp(ax.get_xlim()))
    places = np.empty((0, 2))
    # smallest mass first: its borders are the shortest
    for segments in reversed([some for some in lines.allsegs if some]):
        length = [float(np.hypot(*np.diff(p, axis=0).T).sum()) for p in segments]
        long = min(0.12 * width, max(length))
        free = np.concatenate([p for p, n in zip(segments, length, strict=True) if n >= long])
        clear = 3 * np.minimum(_nearest(free, marks), 0.05 * width) + np.minimum(_nearest(free, places), 0.15 * width)
        places = np.vstack([places, free[clear.argmax()]])
    names = {float(level): _percent(mass) for level, mass in zip(lines.levels, masses, strict=True)}
    if len(places):
        labels = ax.clabel(lines, fmt=names, fontsize=7, inline_spacing=2, manual=[tuple(p) for p in places], zorder=5)
        for text in labels:
            text.set(path_effects=[withStroke(linewidth=2, foreground="white")], alpha=1)


def _nearest(points: Floats, others: Floats) -> Floats:
    """Distance of each point from the nearest of others; infinite if there are none."""
    nearest: Floats = np.linalg.norm(points[:, None] - others[None], axis=-1).min(1, initial=np.inf)
    return nearest


def _projected(t: LevelSets, ax: Axes, mass: float, level: float, pair: tuple[int, int] | None, name: str) -> None:
    """Three directions or more: samples in two of them, by structure of one level set."""
    tree, component, dim = t.tree, t.tree.component(level), t.rows.shape[1]
    if pair is None:
        centre, turn = t.rows.mean(0), _principal(t.rows)
        names = [f"{name.replace('direction', 'principal direction')} {i}" for i in (1, 2)]
    else:
        centre, turn = np.zeros(dim), np.eye(dim)[:, list(pair)]
        names = [f"{name} {i + 1}" for i in pair]
    colours = np.array([*(leaf_colour(min(s.leaves)) for s in tree), FAINT])
    _scatter(ax, (t.rows - centre) @ turn, colours[component], alpha=0.6)
    share = {s.number: float((component == s.number).mean()) for s in tree.at(level)}
    for number in sorted(share, key=lambda i: -share[i])[:NAMED]:
        s = tree[number]
        word = f"{number}" if s.is_leaf else f"{number} ({len(s.leaves)} leaves)"
        ax.plot(
            [], [], "o", color=colours[number], markersize=5, label=f"structure {word}: {100 * share[number]:.0f} %"
        )
    ax.plot([], [], "o", color=FAINT, markersize=5, label=f"outside: {100 * (component < 0).mean():.0f} %")
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, handletextpad=0.1,
              columnspacing=1.0, borderaxespad=0.0)  # fmt: skip
    _peaks(t, ax, (np.stack([s.peak for s in tree.leaves]) - centre) @ turn)
    _limits(ax, (t.rows[component >= 0] - centre) @ turn)
    ax.set(xlabel=names[0], ylabel=names[1])
    ax.set_title(f"Samples by structure of the {_percent(mass)} level set", fontsize=11)


def _principal(rows: Floats) -> Floats:
    """The two directions in which samples spread most, shape (k, 2); the largest entry of each is positive."""
    _, vectors = np.linalg.eigh(np.cov(rows.T))
    turn: Floats = vectors[:, [-1, -2]]
    turn *= np.sign(turn[np.abs(turn).argmax(0), [0, 1]])
    return turn


def _scatter(ax: Axes, points: Floats, colours: NDArray[np.str_], alpha: float = 0.5) -> None:
    some = random_indices(len(points), MOST_ROWS)
    x, y = points[some].T
    ax.scatter(x, y, s=5, c=colours[some], alpha=alpha, linewidths=0, rasterized=True, zorder=1)


def _peaks(t: LevelSets, ax: Axes, points: Floats) -> None:
    """Peaks: a disc with its number for those that are named, a dot for the others."""
    named = named_leaves(t.tree)
    for number, point in enumerate(points):
        if number in named:
            badge(ax, number, (float(point[0]), float(point[1])))
        else:
            ax.plot(*point, "o", color=leaf_colour(number), markeredgecolor="white", markersize=5, zorder=5)


def _limits(ax: Axes, points: Floats) -> None:
    """Show all points, at a shape of the axes that is never narrower than 5 to 8."""
    ends = np.array([_ends(points[:, 0]), _ends(points[:, 1])])
    middle, half = ends.mean(1), 0.57 * np.ptp(ends, axis=1)
    half = np.maximum(half, 0.625 * (half.max() or 1.0))
    ax.set(xlim=(middle[0] - half[0], middle[0] + half[0]), ylim=(middle[1] - half[1], middle[1] + half[1]))


def _table_only(t: LevelSets) -> bool:
    """Whether the density is known at the samples alone."""
    return hasattr(t.source.density, "values")


def _ends(values: Floats) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _widened(low: float, high: float, margin: float) -> tuple[float, float]:
    room = margin * ((high - low) or 1.0)
    return low - room, high + room


def _percent(mass: float) -> str:
    return f"{100 * mass:.3g} %"
