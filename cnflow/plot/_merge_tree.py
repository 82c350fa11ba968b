"""The merge tree as mountains: peaks on top, joined downwards, as wide as the share of the samples that they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from cnflow._figures import figure
from cnflow.plot._style import DARK, FAINT, GREY, MANY, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.topology._level_sets import LevelSets
    from cnflow.topology.merge_tree._tree import LevelSetTree, Structure

NAMED = 12
"""Leaves that are named in a figure, the heaviest; more names would overlap."""

MASS = "mass of the level set"
SCALE = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Masses at which the level is written, in nats, where no merge is near."""

HEADROOM = 0.17
"""Room above mass 0 for the names of the leaves, in mass."""

APART = 0.045
"""Least distance between two levels that are written, in mass."""

FLAT = 0.05
"""Least lifetime, in mass, of a structure that gets marks of full size."""

Floats = NDArray[np.float64]


@figure
def plot_tree(t: LevelSets, ax: Axes | None = None) -> Axes:
    """Draw how structures merge: peaks on top, and downwards the mass at which they join.

    Every structure is as wide, at every level, as the share of the samples that it holds there; the base is all samples. Leaves are
    coloured, what they merge into is grey, and a line marks each merge, with its level in nats on the right. Above each of
    the 12 heaviest leaves stand its number and the share of the samples it holds when it merges. A circle marks a
    structure that has
    loops (β₁) or voids (β₂). Whiskers, where there is a band and up to 12 leaves, are the masses between which a peak or a merge
    may truly be. Dotted grey lines are structures of the density that the samples do not show, from peak to pass, in the leaf that
    they are counted to.

    Args:
        t: the result of ``level_sets``.
        ax: axes to draw on.

    Raises:
        TypeError: it is something else.

    References:
        Weber, Bremer, Pascucci: Topological landscapes, a terrain metaphor for scientific data (2007).

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> from cnflow.topology import MixtureDensity, level_sets
        >>> two = MixtureDensity([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0])
        >>> plot_tree(level_sets(two, two.sample(500), refits=0, homology=False)).get_title()
        'Merge tree: 2 leaves, 1 merge'
    """
    tree = require_level_sets(t, "plot_tree").tree
    ax = new_axes(ax, 5.2, 4.6)
    centre, right = _places(tree)
    levels, held = _held(t)
    mass = to_masses(t, levels)
    named = named_leaves(tree)
    for s in tree:
        on = (levels <= s.birth) & (levels >= s.merge)
        width = held[on][:, list(s.leaves)].sum(1)
        height = np.clip(mass[on], s.birth_mass, s.merge_mass)
        if s.parent is None:
            # the axis may be of other samples: then the lowest of these is not at mass 1
            height[0] = 1.0
        colour = leaf_colour(s.number) if s.is_leaf else FAINT
        x = centre[s.number]
        ax.fill_betweenx(height, x - width / 2, x + width / 2, facecolor=colour, edgecolor=colour if s.is_leaf else GREY,
                         linewidth=0.8, label=f"structure {s.number}", zorder=2 if s.is_leaf else 1)  # fmt: skip
        if s.children:
            ends = np.array([centre[c] + side * max(tree[c].mass, 0.01) / 2 for c in s.children for side in (-1, 1)])
            ax.plot(
                [ends.min(), ends.max()], [s.birth_mass] * 2, color=DARK, linewidth=1.2, solid_capstyle="butt", zorder=3
            )
        top = _whisker(t, ax, s, x) if len(tree.leaves) <= NAMED else s.birth_mass
        _handles(ax, s, x)
        if s.number in named:
            badge(ax, s.number, (x, top), lift=10)
            ax.annotate(f"{100 * s.mass:.0f} %", (x, top), xytext=(0, 19), textcoords="offset points", ha="center",
                        va="bottom", fontsize=8 if len(named) < 10 else 7, color=DARK, zorder=6)  # fmt: skip
    _nats(t, ax)
    hidden = _not_shown(t, ax, centre)
    base = sum(s.mass for s in tree.roots)
    ax.set(
        xlim=(-0.03 * right, 1.03 * right), ylim=(1.0, -HEADROOM), xticks=[], yticks=np.linspace(0, 1, 6),
        xlabel=f"width: share of the samples (base: {100 * base:.0f} %)",
    )  # fmt: skip
    ax.set_ylabel(MASS, y=0.5 / (1 + HEADROOM))
    count, merges = len(tree.leaves), len(tree) - len(tree.leaves)
    title = f"Merge tree: {_counted(count, 'leaf', 'leaves')}, {_counted(merges, 'merge', 'merges')}"
    notes = [f"the {NAMED} heaviest are named"] if count > NAMED else []
    notes += [f"grey and dotted: {hidden} more that the samples do not show"] if hidden else []
    ax.set_title("\n".join([title, *notes]), fontsize=11 if not notes else 10)
    tidy(ax)
    ax.spines["left"].set_bounds(0, 1)
    return ax


def _not_shown(t: LevelSets, ax: Axes, centre: dict[int, float] | Floats) -> int:
    """Draw the structures that the samples do not show, and give back their number."""
    if t.evidence is None:
        return 0
    first = t.evidence.tree.peak_of_leaf
    inside: dict[int, list[Structure]] = {}
    for valley in t.evidence.open:
        side = t.evidence.side(valley)
        inside.setdefault(int(t.tree.leaf_of_peak[first[side.leaves[0]]]), []).append(side)
    for leaf, sides in inside.items():
        width = max(t.tree[leaf].basin_mass, 0.02)
        for i, side in enumerate(sides):
            x = centre[leaf] + width * ((i + 1) / (len(sides) + 1) - 0.5)
            ax.plot([x, x], [side.birth_mass, min(side.merge_mass, 1.0)], color=GREY, linewidth=1.2, linestyle=":",
                    marker="_", markersize=5, zorder=5, label=f"not shown {side.number}")  # fmt: skip
    return len(t.evidence.open)


def require_level_sets(t: Any, name: str) -> LevelSets:
    """Give back level sets.

    Args:
        t: what a figure was given.
        name: of the figure's function, for the message.

    Raises:
        TypeError: they are not level sets.
    """
    missing = [part for part in ("tree", "axis", "source", "log_prob") if not hasattr(t, part)]
    if missing:
        raise TypeError(
            f"{name} got a {type(t).__name__}, which has no {missing[0]!r}, expected a LevelSets: "
            "pass what cnflow.topology.level_sets(density, x) gives"
        )
    return cast("LevelSets", t)


def leaf_colour(number: int) -> str:
    """Colour of a leaf, the same in every figure; from the eleventh on the same ten in paler shades."""
    first = MANY[number % len(MANY)]
    pale = min(0.45 * (number // len(MANY)), 0.7)
    return "#" + "".join(f"{round(c + pale * (255 - c)):02X}" for c in bytes.fromhex(first[1:]))


def named_leaves(tree: LevelSetTree) -> set[int]:
    """Numbers of the leaves that a figure names: the heaviest."""
    return set(sorted(range(len(tree.leaves)), key=lambda i: (-tree[i].mass, i))[:NAMED])


def badge(ax: Axes, number: int, point: tuple[float, float], lift: float = 0.0) -> None:
    """Write the number of a leaf on a disc of its colour, `lift` points above a place."""
    dark = leaf_colour(number) == MANY[number % len(MANY)]
    ax.annotate(
        str(number), point, xytext=(0, lift), textcoords="offset points", ha="center", va="center", fontsize=8, zorder=6,
        weight="bold", color="white" if dark else DARK, annotation_clip=True,
        bbox={"boxstyle": "circle,pad=0.22", "facecolor": leaf_colour(number), "edgecolor": "white", "linewidth": 0.8},
    )  # fmt: skip


def to_masses(t: LevelSets, levels: Any) -> Floats:
    """Masses of levels in nats; 1 for -inf."""
    return np.atleast_1d(np.asarray(t.axis.mass(np.asarray(levels, dtype=np.float64)), dtype=np.float64))


def _places(tree: LevelSetTree) -> tuple[dict[int, float], float]:
    """Where the middle of every structure is, in shares of the samples, so that no two overlap; and how wide all of them are."""
    floor, gap = 0.5 / len(tree.leaves), 0.22 / len(tree.leaves)
    slot: dict[int, float] = {}
    for s in tree:  # children have lower numbers
        inside = sum(slot[c] for c in s.children) if s.children else floor + gap
        slot[s.number] = max(s.mass + gap, inside)
    left, reached = {}, 0.0
    for s in tree.roots:
        left[s.number], reached = reached, reached + slot[s.number]
    for s in reversed(list(tree)):
        start = left[s.number] + (slot[s.number] - sum(slot[c] for c in s.children)) / 2
        for c in sorted(s.children, key=lambda c: -tree[c].basin_mass):
            left[c], start = start, start + slot[c]
    return {number: left[number] + slot[number] / 2 for number in slot}, reached


def _held(t: LevelSets, most: int = 128) -> tuple[Floats, Floats]:
    """Levels, ascending, shape (L,), and the share of samples in every leaf's basin at or above each, shape (L, leaves)."""
    log_prob, label, count = t.log_prob, t.tree.label, len(t.tree.leaves)
    some = np.sort(log_prob)[np.linspace(0, len(log_prob) - 1, min(len(log_prob), most)).astype(int)]
    ends = [s.birth for s in t.tree] + [s.merge for s in t.tree if np.isfinite(s.merge)]
    levels = np.unique(np.concatenate([some, ends]))
    kept = label >= 0
    reaches = np.searchsorted(levels, log_prob[kept], side="right")
    rows = np.bincount(reaches * count + label[kept], minlength=(len(levels) + 1) * count).reshape(-1, count)
    return levels, rows[::-1].cumsum(0)[::-1][1:] / len(log_prob)


def _whisker(t: LevelSets, ax: Axes, s: Structure, x: float) -> float:
    """Draw between which masses a peak, or the merge that made an inner node, may be; give back the upper end."""
    if "birth_low" not in s.extras:
        return s.birth_mass
    ends = to_masses(t, [s.extras["birth_high"], s.extras["birth_low"]])
    ax.plot(
        [x, x], ends, color=DARK, linewidth=0.8, marker="_", markersize=5, alpha=0.7, zorder=4, label=f"band {s.number}"
    )
    return min(float(ends[0]), s.birth_mass)


def _handles(ax: Axes, s: Structure, x: float) -> None:
    """A circle with the numbers of loops and voids, at the middle of the structure's life, where they were counted."""
    numbers = s.extras.get("betti", ())[1:]
    if not any(numbers):
        return
    flat = s.merge_mass - s.birth_mass < FLAT
    place = (x, 0.5 * (s.birth_mass + s.merge_mass))
    ax.plot(*place, "o", markersize=5 if flat else 8, markerfacecolor="white", markeredgecolor=DARK,
            markeredgewidth=1.2 if flat else 1.6, zorder=5)  # fmt: skip
    text = ", ".join(f"{name} = {b}" for name, b in zip(("β₁", "β₂"), numbers, strict=False) if b)
    # structures of short life lie close together: every other is named on the left
    side = -1 if flat and s.number % 2 else 1
    ax.annotate(text, place, xytext=(9 * side, 0), textcoords="offset points", va="center", ha="left" if side > 0 else "right",
                fontsize=7 if flat else 8, color=DARK, zorder=6,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85})  # fmt: skip


def _nats(t: LevelSets, ax: Axes) -> None:
    """On the right, the level of every merge in nats, deepest valley first while there is room; between them usual masses."""
    tree = t.tree
    merges = [s for s in tree if s.children]
    valley = {s.number: min(tree[c].prominence for c in s.children) for s in merges}
    levels = [(s.birth_mass, s.birth, DARK) for s in sorted(merges, key=lambda s: -valley[s.number])]
    low, high = t.axis.askable()
    levels += [(mass, float(t.axis.level(mass)), GREY) for mass in SCALE if low <= mass <= high]
    kept: list[tuple[float, float, str]] = []
    for one in levels:
        room = APART if one[2] == DARK else 1.5 * APART
        if all(abs(one[0] - other[0]) >= room for other in kept):
            kept.append(one)
    side = ax.secondary_yaxis("right")
    side.set_yticks([mass for mass, _, _ in kept], [f"{level:.2f}".replace("-", "−") for _, level, _ in kept])
    side.set_ylabel("level, nats", color=DARK, fontsize=9)
    side.tick_params(labelsize=8, length=3)
    for tick, (_, _, colour) in zip(side.get_yticklabels(), kept, strict=True):
        tick.set_color(colour)
    side.spines["right"].set_visible(False)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
