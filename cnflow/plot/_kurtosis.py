"""Preferred coordinates of a layer: kurtosis over layers, and alignment of units with the input's coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cnflow._figures import figure
from cnflow.plot._style import BLUE, DARK, FAINT, GREY, ORANGE, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.network.coordinates._input_alignment import InputAlignment
    from cnflow.network.coordinates._kurtosis import BasisKurtosis


@figure
def plot_kurtosis(result: BasisKurtosis, ax: Axes | None = None) -> Axes:
    """Draw kurtosis over coordinates for every layer, with the band of random rotations.

    Whiskers are two standard errors; the band is from the lowest to the highest rotation, the dashed line the value that a
    rotation has in the mean, exactly. The axis is logarithmic where values differ by more than ten times.

    Args:
        result: of ``basis_kurtosis``.
        ax: axes to draw on.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> from cnflow.network.coordinates._kurtosis import basis_kurtosis
        >>> x = np.random.default_rng(0).laplace(size=(200, 16))
        >>> plot_kurtosis(basis_kurtosis({"first": x, "second": x}, progress=False)).get_ylabel()
        'kurtosis over coordinates'
    """
    count = len(result.names)
    ax = new_axes(ax, max(4.0, min(11.0, 2.4 + 0.45 * count)), 3.6)
    place = np.arange(count)
    # a single layer has a band too
    edges = np.concatenate([place - 0.5, place[-1:] + 0.5])
    low, high, middle = (
        np.append(v, v[-1]) for v in (result.null.min(1), result.null.max(1), result.expected)
    )  # the last step has an end
    ax.fill_between(edges, low, high, step="post", color=FAINT, linewidth=0, label="random rotations")
    ax.step(edges, middle, where="post", color=GREY, linestyle="--", linewidth=1.0, label="expected of them")
    ax.errorbar(
        place, result.value, 2 * np.nan_to_num(result.std_error), color=BLUE, marker="o", markersize=5, linewidth=1.4,
        capsize=2, label="as it is",
    )  # fmt: skip
    if max(result.value.max(), high.max()) > 10 * min(result.value.min(), low.min()):
        from matplotlib.ticker import LogLocator, NullFormatter

        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    turned = max(map(len, result.names)) > 4
    ax.set_xticks(
        place, result.names, rotation=45 if turned else 0, ha="right" if turned else "center", rotation_mode="anchor"
    )
    ax.set_xlim(-0.5, count - 0.5)
    ax.set_ylabel("kurtosis over coordinates")
    ax.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return tidy(ax)


@figure
def plot_input_alignment(result: InputAlignment, ax: Axes | None = None) -> Axes:
    """Draw how local the units of a layer are in the input, beside units of the layer rotated at random.

    Spatial spread if the input has positions, participation otherwise. Curves are the share of units up to a value.

    Args:
        result: of ``input_alignment``.
        ax: axes to draw on.
    """
    ax = new_axes(ax, 5.0, 3.6)
    spatial = result.spread is not None
    own, rotated, permuted = (
        (result.spread, result.rotated_spread, result.permuted_spread)
        if spatial
        else (result.participation, result.rotated_participation, None)
    )
    words = ("as it is", "rotated at random", "input positions permuted")
    for values, colour, label in zip((own, rotated, permuted), (BLUE, ORANGE, GREY), words, strict=True):
        if values is None:
            continue
        ax.ecdf(values[np.isfinite(values)], color=colour, linewidth=1.8, label=label)
    ax.set_xlabel("spatial spread, rms distance" if spatial else "participation, number of inputs")
    ax.set_ylabel("share of units up to it")
    ax.set_xlim(left=0)
    ax.set_title(f"{result.layer} from {result.source}", fontsize=11, color=DARK, pad=22)
    ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, borderaxespad=0.1)
    return tidy(ax)
