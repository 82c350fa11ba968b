"""Two aligned cores: one side's samples, and the other's carried onto them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnflow import _validation
from cnflow._figures import figure
from cnflow.plot._style import DARK, GREY, MANY, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnflow.alignment._result import Alignment

Floats = NDArray[np.float64]

MOST_SAMPLES = 1500
"""Samples drawn of each side, chosen at random."""


@figure
def plot_alignment(
    found: Alignment, ax: Axes | None = None, names: tuple[dict[int, str], dict[int, str]] | None = None, seed: int = 0
) -> Axes:
    """Draw B's samples as dots and A's carried samples as crosses, coloured by matched structure.

    The axes are the two widest of B's core; a structure without a partner is grey. At the middle of every structure of B stands its
    number, or its name, with that of its partner in front.

    Args:
        found: an alignment.
        ax: to draw on; a new figure if None.
        names: of the structures of both sides, by number; default the numbers.
        seed: of the choice of samples.

    Raises:
        ValueError: for something else than an alignment, or no seed.
    """
    _check(found)
    rng = np.random.default_rng(_validation.seed(seed))
    ax = tidy(new_axes(ax, 5.6, 4.8))
    named_a, named_b = names or ({}, {})
    axes = found.b.axes[:, :2]
    partner = {match.a: match.b for match in found.pairs if match.a is not None and match.b is not None}
    pick_a, pick_b = (rng.permutation(len(side.rows))[:MOST_SAMPLES] for side in (found.a, found.b))
    carried = found.map(found.a.rows[pick_a])
    for points, labels, marker, size in (
        (found.b.rows[pick_b], found.b.label(found.b.rows[pick_b]), "o", 9),
        (carried, np.array([partner.get(int(i), -1) for i in found.a.label(found.a.rows[pick_a])]), "x", 14),
    ):
        _scatter(ax, (points - found.b.middle) @ axes, labels, set(partner.values()), marker, size)
    for structure in found.b.structures:
        here = (found.b.rows[found.b.label() == structure.number].mean(0) - found.b.middle) @ axes
        back = [a for a, b in partner.items() if b == structure.number]
        own = named_b.get(structure.number, str(structure.number))
        _write(ax, here, f"{named_a.get(back[0], str(back[0])) if back else '–'} → {own}")
    ax.scatter([], [], c=GREY, s=14, marker="o", label=found.b.name)
    ax.scatter([], [], c=GREY, s=18, marker="x", label=f"{found.a.name}, carried over")
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    ax.set(xlabel=f"widest direction of {found.b.name}'s core", ylabel="second widest", aspect="equal")
    ax.set_title(f"{found.verdict}\noverlap ratio {found.overlap:.2f}", fontsize=10, color=DARK)
    return ax


@figure
def plot_cores(found: Alignment, names: tuple[dict[int, str], dict[int, str]] | None = None, seed: int = 0) -> Figure:
    """Draw both cores beside each other: A's as it is, and B's with A's samples carried onto it; matched structures in one colour.

    Args:
        found: an alignment.
        names: of the structures of both sides, by number; default the numbers.
        seed: of the choice of samples.

    Raises:
        ValueError: for something else than an alignment, or no seed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _check(found)
    seed = _validation.seed(seed)
    fig = Figure(figsize=(11, 5.2), layout="constrained")
    FigureCanvasAgg(fig)
    left, right = fig.subplots(1, 2)
    partner = {match.a: -1 if match.b is None else match.b for match in found.pairs if match.a is not None}
    a = found.a
    rows = a.rows[np.random.default_rng(seed).permutation(len(a.rows))[:MOST_SAMPLES]]
    labels = np.array([partner.get(int(i), -1) for i in a.label(rows)])
    _scatter(tidy(left), (rows - a.middle) @ a.axes[:, :2], labels, set(labels.tolist()), "x", 14)
    for structure in a.structures:
        here = (a.rows[a.label() == structure.number].mean(0) - a.middle) @ a.axes[:, :2]
        _write(left, here, (names or ({}, {}))[0].get(structure.number, str(structure.number)))
    left.set(xlabel=f"widest direction of {a.name}'s core", ylabel="second widest", aspect="equal")
    left.set_title(f"{a.name}: {len(a.structures)} structures in {a.dim} directions", fontsize=10, color=DARK)
    plot_alignment(found, right, names, seed)
    return fig


def _check(found: Any) -> None:
    """Refuse what is no alignment."""
    from cnflow.alignment import Alignment

    _validation.instance("found", found, Alignment)


def _scatter(ax: Axes, flat: Floats, labels: NDArray[np.int64], matched: set[int], marker: str, size: float) -> None:
    """Samples in the colour of the structure of B that theirs is matched to; grey without."""
    colours = [MANY[i % len(MANY)] if i >= 0 and i in matched else GREY for i in labels]
    x, y = flat.T
    ax.scatter(x, y, c=colours, s=size, marker=marker, alpha=0.45, linewidths=0 if marker == "o" else 0.7)


def _write(ax: Axes, here: Floats, text: str) -> None:
    ax.annotate(
        text, (float(here[0]), float(here[1])), ha="center", va="center", color=DARK, fontsize=9,
        bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8},
    )  # fmt: skip
