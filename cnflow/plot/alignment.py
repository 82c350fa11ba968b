"""Both cores in one picture: one side's rows, and the other's carried onto them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cnflow.plot._style import DARK, GREY, MANY, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.alignment.result import Alignment

__all__ = ["plot_alignment"]

MOST_ROWS = 1500
"""Rows drawn of each side, a random choice of them."""


def plot_alignment(
    found: Alignment, ax: Axes | None = None, names: tuple[dict[int, str], dict[int, str]] | None = None, seed: int = 0
) -> Axes:
    """Draw B's rows as dots and A's carried rows as crosses, coloured by matched structure.

    The axes are the two widest of B's core; a structure without a partner is grey. At the middle of every structure of B stands its
    number, or its name, with that of its partner in front.

    Args:
        found: an alignment.
        ax: to draw on; a new figure if None.
        names: of the structures of both sides, by number; default the numbers.
        seed: of the choice of rows.
    """
    ax = tidy(new_axes(ax, 5.6, 4.8))
    rng = np.random.default_rng(seed)
    named_a, named_b = names or ({}, {})
    axes = found.b.axes[:, :2]
    partner = {match.a: match.b for match in found.pairs if match.a is not None and match.b is not None}
    pick_a, pick_b = (rng.permutation(len(side.rows))[:MOST_ROWS] for side in (found.a, found.b))
    carried = found.core_map(found.a.rows[pick_a])
    for points, labels, marker, size in (
        (found.b.rows[pick_b], found.b.label(found.b.rows[pick_b]), "o", 9),
        (carried, np.array([partner.get(int(i), -1) for i in found.a.label(found.a.rows[pick_a])]), "x", 14),
    ):
        colours = [MANY[i % len(MANY)] if i >= 0 and i in partner.values() else GREY for i in labels]
        flat = (points - found.b.middle) @ axes
        more = {"linewidths": 0} if marker == "o" else {"linewidths": 0.7}
        ax.scatter(*flat.T, c=colours, s=size, marker=marker, alpha=0.45, **more)
    for structure in found.b.structures:
        here = (found.b.rows[found.b.label() == structure.number].mean(0) - found.b.middle) @ axes
        back = [a for a, b in partner.items() if b == structure.number]
        own = named_b.get(structure.number, str(structure.number))
        text = f"{named_a.get(back[0], str(back[0])) if back else '–'} → {own}"
        ax.annotate(
            text, here, ha="center", va="center", color=DARK, fontsize=9,
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8},
        )  # fmt: skip
    ax.scatter([], [], c=GREY, s=14, marker="o", label=found.b.name)
    ax.scatter([], [], c=GREY, s=18, marker="x", label=f"{found.a.name}, carried over")
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.11), ncols=2, borderaxespad=0)
    ax.set(xlabel=f"widest direction of {found.b.name}'s core", ylabel="second widest", aspect="equal")
    ax.set_title(f"{found.verdict}\nrows overlap by {found.overlap:.0%}", fontsize=10, color=DARK)
    return ax
