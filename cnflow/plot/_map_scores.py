"""How far the best map stands out from all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cnflow import _validation
from cnflow._figures import figure
from cnflow.plot._style import BLUE, DARK, GREY, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.alignment._full_width_result import FullWidthAlignment


@figure
def plot_map_scores(found: FullWidthAlignment, ax: Axes | None = None) -> Axes:
    """Draw the score of every distinct map, the best one on top; the one that is returned is blue.

    Bars are two standard errors of the difference from the best.

    Args:
        found: an alignment at full width.
        ax: to draw on; a new figure if None.

    Raises:
        ValueError: for something else than an alignment at full width.
    """
    from cnflow.alignment import FullWidthAlignment

    _validation.instance("found", found, FullWidthAlignment)
    ax = tidy(new_axes(ax, 5.6, 3.6))
    frame = found.to_frame()
    place = -np.arange(len(frame))
    colours = np.where(np.arange(len(frame)) == found.evidence.preferred, BLUE, GREY)
    ax.errorbar(frame["score"], place, xerr=2 * frame["standard_error"], fmt="none", ecolor=GREY, elinewidth=1.2)
    ax.scatter(frame["score"], place, c=colours, s=34, zorder=3)
    ax.set_yticks(place, frame["start"])
    ax.set_xlabel("score: mean similarity to nearest samples and partners (cosine)")
    ax.set_ylabel("start")
    ax.set_title(f"{found.verdict}\nprobability {found.probability:.3f}", fontsize=10, color=DARK)
    return ax
