"""Colours, tidy axes, and the checks every figure shares. Matplotlib's global state is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnflow import _validation
from cnflow.data._arrays import as_numbers, check_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, SKY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#8C564B", "#56B4E9",
)  # fmt: skip
"""Okabe and Ito's palette, which the common kinds of colour blindness can tell apart; yellow is too faint."""

CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BROWN)
MANY = (*CYCLE, "#332288", "#B5A642", "#111111")
"""Ten colours, for more classes than the palette above has: three more of a lightness not yet taken."""

GREY, DARK, FAINT = "#9A9A9A", "#333333", "#DDDDDD"


def new_axes(ax: Axes | None, width: float = 5.5, height: float = 4.2) -> Axes:
    """Give back `ax`, or the axes of a new figure laid out so that labels do not collide.

    Args:
        ax: axes to draw on, or None.
        width: of a new figure, in inches.
        height: of a new figure, in inches.
    """
    if ax is not None:
        from matplotlib.axes import Axes

        return _validation.instance("ax", ax, Axes)
    # Imported late: pyplot picks a backend when imported, and that is the user's to choose.
    import matplotlib.pyplot as plt

    _, new = plt.subplots(figsize=(width, height), layout="constrained")
    return new


def new_figure(fig: Figure | None, width: float, height: float) -> Figure:
    """Give back `fig`, or a new figure of that size in inches."""
    if fig is not None:
        from matplotlib.figure import FigureBase

        return _validation.instance("fig", fig, FigureBase)
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(width, height), layout="constrained")


def tidy(ax: Axes) -> Axes:
    """Remove the frame lines that carry no data, and let ticks be light."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=DARK, labelsize=9)
    return ax


def whole_numbers(axis: Axis) -> None:
    """Put ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    locator = axis.get_major_locator()
    if isinstance(locator, MaxNLocator):
        locator.set_params(integer=True)


def message(ax: Axes, text: str) -> Axes:
    """Say in the middle of empty axes why nothing is drawn."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=DARK, wrap=True)
    return ax


def as_array(name: str, value: Any) -> NDArray[np.float64]:
    """Read real numbers, see ``as_numbers``, in float64."""
    return np.asarray(as_numbers(value, name), dtype=np.float64)


def as_rows(name: str, value: Any) -> NDArray[np.float64]:
    """Read samples of vectors, shape (n, directions).

    Raises:
        ValueError: the array is not two-dimensional, has no samples, or holds what is not finite, which would be left
            out in silence.
    """
    array = as_array(name, value)
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(
            f"{name} has shape {array.shape}, expected (n, directions) with n > 0: reshape a single column to (n, 1)"
        )
    check_rows(array, name)
    return array


def direction_names(names: Sequence[str] | None, count: int, default: str) -> list[str]:
    """Give one name per direction: those given, or `default` with a number from 1.

    Raises:
        ValueError: there are fewer names than directions.
    """
    if names is None:
        return [f"{default} {i + 1}" for i in range(count)]
    if isinstance(names, str) or not hasattr(names, "__len__"):
        raise ValueError(f"names is a {type(names).__name__}, expected a list of {count}: give one for each direction")
    if len(names) < count:
        raise ValueError(f"names has {len(names)} entries, expected {count}: give one for each direction")
    return [str(name) for name in names]


def random_indices(n: int, most: int, seed: int = 0) -> NDArray[np.int64]:
    """Choose at most `most` of n samples, in random order so that no label is drawn last and hides others."""
    return np.random.default_rng(seed).permutation(n)[:most]


def mark_prune(ax: Axes, step: float | None, label: bool = True) -> None:
    """Draw a vertical line where directions were pruned, for the legend with a label."""
    if step is not None:
        ax.axvline(step, color=DARK, linestyle="--", linewidth=1.0, label=f"pruned at {step:g}" if label else None)
