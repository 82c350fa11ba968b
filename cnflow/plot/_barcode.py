"""Barcode and Betti numbers over mass: which components, loops and voids the level sets have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cnflow import _validation
from cnflow._figures import figure
from cnflow.plot._merge_tree import MASS, NAMED, leaf_colour, named_leaves, require_level_sets, to_masses
from cnflow.plot._style import BLUE, DARK, GREEN, ORANGE, new_axes, tidy, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.topology._level_sets import LevelSets

MOST = 40
"""Bars drawn for each dimension; more would be too thin to tell apart."""

COLOURS = (BLUE, ORANGE, GREEN)
WORDS = (("H₀", "β₀", "component", "components"), ("H₁", "β₁", "loop", "loops"), ("H₂", "β₂", "void", "voids"))
LOGIT = (0.005, 0.9995)
"""Widest limits of a logit axis."""

TICKS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class _Bar:
    dim: int
    start: float
    end: float
    start_band: tuple[float, float] | None
    end_band: tuple[float, float] | None
    leaf: int | None
    p_value: float


@figure
def plot_barcode(t: LevelSets, ax: Axes | None = None, scale: str = "linear") -> Axes:
    """Draw over which masses every component, loop and void is there.

    A component starts at its peak and ends where it joins one of a higher peak (the elder rule): one bar for each leaf, whose
    number stands on its left. Loops and voids follow, longest first. Bars that reach the end of the axis are never filled, or
    never join another. Whiskers, where there is a band, are the masses between which an end may truly be.

    Args:
        t: the result of ``level_sets``.
        ax: axes to draw on.
        scale: of the mass axis: "linear", or "logit", which widens masses near 0 and near 1 (.9 to .999).

    Raises:
        TypeError: it is something else.
        ValueError: for another scale.

    References:
        Edelsbrunner, Letscher, Zomorodian: Topological persistence and simplification (2002).

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> from cnflow.topology import MixtureDensity, level_sets
        >>> two = MixtureDensity([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0])
        >>> ax = plot_barcode(level_sets(two, two.sample(500), refits=0, homology=False))
        >>> [round(float(bar.get_x() + bar.get_width()), 2) for bar in ax.patches]
        [1.0, 0.95]
    """
    require_level_sets(t, "plot_barcode")
    _validation.choice("scale", scale, ("linear", "logit"))
    ax = new_axes(ax, 5.5, 4.2)
    low, high = (0.0, 1.0) if scale == "linear" else _within(_ends(t), LOGIT)
    if scale == "logit":
        ax.set_xscale("logit")
        ax.set_xticks([m for m in TICKS if low <= m <= high], [f"{m:g}" for m in TICKS if low <= m <= high])
        ax.set_xticks([], minor=True)
    ax.set_xlim(low, high)
    every = _bars(t)
    named = named_leaves(t.tree)
    row, ticks = 0.0, []
    for dim in _dims(t):
        bars = [b for b in every if b.dim == dim]
        shown = sorted(bars, key=lambda b: b.start - b.end)[:MOST] if len(bars) > MOST else bars
        more = f", the longest {MOST} drawn" if len(bars) > MOST else ""
        group, _, one, many = WORDS[dim]
        ax.annotate(
            f"{group}: {len(bars) or 'no'} {one if len(bars) == 1 else many}{more}", (0.0, row), va="center", ha="left",
            xycoords=ax.get_yaxis_transform(), fontsize=9, weight="bold", color=COLOURS[dim],
        )  # fmt: skip
        row += 1
        for bar in shown:
            _draw(ax, bar, row, low, high, text=len(shown) <= NAMED)
            if bar.leaf in named:
                ticks.append((row, bar.leaf))
            row += 1
        row += 0.6
    ax.set_ylim(max(row - 0.9, 5.0), -0.8)
    ax.set_yticks([place for place, _ in ticks], [str(leaf) for _, leaf in ticks])
    tidy(ax)
    for tick, (_, leaf) in zip(ax.get_yticklabels(), ticks, strict=True):
        tick.set(color=leaf_colour(leaf), weight="bold", fontsize=9 if row < 14 else 7)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(MASS)
    ax.set_title("Barcode", fontsize=11)
    return ax


@figure
def plot_betti(t: LevelSets, ax: Axes | None = None, masses: Sequence[float] | None = None) -> Axes:
    """Draw how many components, loops and voids the level set of every mass has.

    What is shaded is between the lowest and the highest numbers that the band, or else the error of the levels, allows.

    Args:
        t: the result of ``level_sets``.
        ax: axes to draw on.
        masses: at which they are counted; default 200 of those that the samples determine.

    Raises:
        TypeError: it is something else.
        ValueError: for masses outside (0, 1), or beyond what the samples determine.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> from cnflow.topology import MixtureDensity, level_sets
        >>> two = MixtureDensity([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0])
        >>> ax = plot_betti(level_sets(two, two.sample(500), refits=0, homology=False), masses=(0.5, 0.99))
        >>> ax.lines[0].get_ydata().tolist()
        [2, 1]
    """
    require_level_sets(t, "plot_betti")
    asked = np.linspace(*_ends(t), 200) if masses is None else masses
    table = t.betti(sorted(_validation.each("masses", asked, _validation.number, least=1, above=0, below=1)))
    ax = new_axes(ax, 5.5, 3.2)
    mass, top = table.index.to_numpy(), 1
    for dim, (colour, (_, beta, _, word)) in enumerate(zip(COLOURS, WORDS, strict=True)):
        if f"b{dim}" not in table:
            continue
        number, low, high = (table[f"b{dim}{end}"].to_numpy() for end in ("", "_low", "_high"))
        ax.fill_between(mass, low, high, step="mid", color=colour, alpha=0.18, linewidth=0)
        # thin lines over wide ones, so that equal numbers do not hide one another
        ax.plot(
            mass, number, color=colour, linewidth=(4.0, 2.4, 1.2)[dim], drawstyle="steps-mid", label=f"{beta} {word}"
        )
        top = max(top, int(high.max()))
    ax.set(xlim=(0, 1), ylim=(-0.15 - 0.02 * top, top + 0.25 + 0.02 * top), xlabel=MASS, ylabel="Betti number")
    whole_numbers(ax.yaxis)
    ax.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, borderaxespad=0.2,
              handlelength=1.4, columnspacing=1.2)  # fmt: skip
    return tidy(ax)


def _ends(t: LevelSets) -> tuple[float, float]:
    """Least and greatest mass that the samples determine."""
    low, high = t.axis.askable()
    return float(low), float(high)


def _within(ends: tuple[float, float], most: tuple[float, float]) -> tuple[float, float]:
    return max(ends[0], most[0]), min(ends[1], most[1])


def _dims(t: LevelSets) -> tuple[int, ...]:
    return (0, *(t.homology.dims if t.homology is not None else ()))


def _bars(t: LevelSets) -> list[_Bar]:
    tree, bars = t.tree, []
    for leaf in tree.leaves:
        # leaves are numbered from the highest peak down: of those that meet, the lowest number is the elder
        last = max((s for s in tree if min(s.leaves) == leaf.number), key=lambda s: s.number)
        bars.append(_Bar(0, leaf.birth_mass, last.merge_mass, _between(t, leaf.extras, "birth"),
                         _between(t, last.extras, "merge"), leaf.number, float("nan")))  # fmt: skip
    for c in t.homology.classes if t.homology is not None else ():
        bars.append(_Bar(c.dim, c.birth_mass, c.death_mass, _near(t, c.birth, c.error), _near(t, c.death, c.error), None,
                         float(c.p_value)))  # fmt: skip
    return bars


def _between(t: LevelSets, extras: Mapping[str, Any], end: str) -> tuple[float, float] | None:
    if f"{end}_low" not in extras or not np.isfinite(extras[f"{end}_high"]):
        return None
    low, high = to_masses(t, [extras[f"{end}_high"], extras[f"{end}_low"]])
    return float(low), float(high)


def _near(t: LevelSets, level: float, error: float) -> tuple[float, float] | None:
    """Masses between which the end of a loop or void is, by the band, or by the error of the level where there is none."""
    if not np.isfinite(level) or (t.band is None and not error > 0):
        return None
    low, high = t.band.interval(level) if t.band is not None else (level - 2 * error, level + 2 * error)
    first, last = to_masses(t, [float(high), float(low)])
    return float(first), float(last)


def _draw(ax: Axes, bar: _Bar, row: float, low: float, high: float, text: bool) -> None:
    start, end = np.clip([bar.start, bar.end], low, high)
    name = WORDS[bar.dim][3]
    ax.barh(
        row, end - start, left=start, height=0.62, color=COLOURS[bar.dim], linewidth=0, zorder=2,
        label=name if name not in ax.get_legend_handles_labels()[1] else None,
    )  # fmt: skip
    for band in (bar.start_band, bar.end_band):
        if band is not None:
            ax.plot(np.clip(band, low, high), [row, row], color=DARK, linewidth=1.0, marker="|", markersize=5, zorder=3)
    if text and np.isfinite(bar.p_value):
        p_value = f"p = {bar.p_value:.2g}" if bar.p_value > 1e-9 else "p < 1e-9"
        ax.annotate(p_value, (1.0, row), xycoords=ax.get_yaxis_transform(), xytext=(4, 0),
                    textcoords="offset points", va="center", fontsize=8, color=DARK)  # fmt: skip
